//! Collections, which are albums here.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::assets::AssetId;
use crate::catalogue::Album;
use crate::catalogue::Catalogue;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::interfaces::prepr::input::Said;
use crate::interfaces::prepr::listing;
use crate::interfaces::prepr::reply::AlbumUuid;
use crate::support::page::Page;
use crate::wire::prepr::PreprCollection;
use crate::wire::prepr::PreprPage;
use crate::wire::prepr::parse_id;

const BODY: Body = Body::Other("multipart/form-data", "`body`, the collection's name; also as JSON or as a form.");
const ITEMS: Body = Body::Other("multipart/form-data", "`items[0][id]`, …; also as JSON or as a form.");
const NOTHING: Body = Body::Other("application/json", "Nothing.");

pub fn mount(r: &mut Routes) {
    let (read, publish, delete) = (
        Permission::Scope(Scope::Collections),
        Permission::Scope(Scope::CollectionsPublish),
        Permission::Scope(Scope::CollectionsDelete),
    );
    r.get("/collections", read, list, "Collections, newest first")
        .query([("limit", "Up to 1000"), ("skip", "How many to leave out"), ("offset", "The same")])
        .answers(200, Body::json::<PreprPage<PreprCollection>>())
        .refuses(&[Code::InvalidRequest]);
    r.post("/collections", publish, create, "Makes a collection")
        .takes(BODY)
        .answers(201, Body::json::<PreprCollection>())
        .refuses(&[Code::InvalidRequest]);
    let refused = [Code::CollectionNotFound, Code::InvalidRequest];
    r.get("/collections/{id}", read, find, "A collection")
        .answers(200, Body::json::<PreprCollection>())
        .refuses(&refused);
    r.put("/collections/{id}", publish, update, "Gives a collection another name")
        .takes(BODY)
        .answers(200, Body::json::<PreprCollection>())
        .refuses(&refused);
    r.delete("/collections/{id}", delete, remove, "Forgets a collection; its assets stay")
        .answers(204, NOTHING)
        .refuses(&refused);
    r.post("/collections/{id}/assets", publish, put_in, "Puts assets into a collection; one that is in it stays")
        .takes(ITEMS)
        .answers(200, Body::json::<PreprCollection>())
        .refuses(&refused)
        .refuses(&[Code::AssetNotFound]);
    r.delete("/collections/{id}/assets", publish, take_out, "Takes assets out of a collection")
        .takes(ITEMS)
        .answers(204, NOTHING)
        .refuses(&refused);
    r.post("/collections/{id}/cover", publish, cover, "Chooses the asset that stands for a collection")
        .query([("id", "The id of the asset")])
        .answers(200, Body::json::<PreprCollection>())
        .refuses(&refused)
        .refuses(&[Code::AssetNotFound, Code::MissingParameter]);
}

async fn list(catalogue: Data<Catalogue>, query: Pairs) -> Reply<HttpResponse> {
    let page = Page { offset: listing::skip(&query)?, limit: listing::limit(&query)? };
    let (albums, total) = catalogue.albums(page).await?;
    Ok(HttpResponse::Ok().json(PreprPage {
        items: albums.iter().map(PreprCollection::from).collect(),
        total,
        after: None,
        before: None,
        skip: page.offset,
        limit: page.limit,
    }))
}

async fn create(catalogue: Data<Catalogue>, said: Said) -> Reply<HttpResponse> {
    let body = said.text("body")?.unwrap_or_default();
    let album = catalogue.create_album(body).await?;
    Ok(HttpResponse::Created().json(PreprCollection::from(&album)))
}

async fn find(catalogue: Data<Catalogue>, id: AlbumUuid) -> Reply<HttpResponse> {
    shown(catalogue.find_album(id.0).await)
}

async fn update(catalogue: Data<Catalogue>, id: AlbumUuid, said: Said) -> Reply<HttpResponse> {
    shown(catalogue.change_album(id.0, said.text("body")?).await)
}

async fn remove(catalogue: Data<Catalogue>, id: AlbumUuid) -> Reply<HttpResponse> {
    catalogue.delete_album(id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn put_in(catalogue: Data<Catalogue>, id: AlbumUuid, said: Said) -> Reply<HttpResponse> {
    shown(catalogue.put_into_album(id.0, said.assets()?).await)
}

async fn take_out(catalogue: Data<Catalogue>, id: AlbumUuid, said: Said) -> Reply<HttpResponse> {
    catalogue.take_from_album(id.0, said.assets()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn cover(catalogue: Data<Catalogue>, id: AlbumUuid, query: Pairs, said: Said) -> Reply<HttpResponse> {
    let text = query.get("id").map(str::to_owned).or(said.text("id")?);
    let text = text.ok_or_else(|| Code::MissingParameter.because("id: name the asset of the cover"))?;
    let asset: AssetId = parse_id(&text).ok_or(Code::AssetNotFound)?;
    shown(catalogue.set_cover(id.0, asset).await)
}

fn shown(album: Result<Album>) -> Reply<HttpResponse> {
    Ok(HttpResponse::Ok().json(PreprCollection::from(&album?)))
}
