//! On-demand images, under the documented address and the old one that is all over the web;
//! named conversions, as they are stored and transformed further; deep zoom.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::delivery::Delivery;
use crate::delivery::Of;
use crate::delivery::Wanted;
use crate::delivery::deepzoom::Tile;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::filespin::links;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::respond::Disposition;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::media::imaging::Recipe;
use crate::media::imaging::params::PARAMS;
use crate::support::cpu::Cpu;

const PICTURE: Body = Body::Other("image/*", "The image.");

const DOWNLOAD: (&str, &str) = ("delivery", "`download`: as a file to keep");

pub fn mount(r: &mut Routes) {
    mount_deepzoom(r);
    for path in ["/api/v1/assets/{id}/conversions", "/api/v1/conversion/{id}"] {
        r.get(path, Permission::Anyone, image, "An image, computed from the parameters and cached")
            .query(PARAMS.iter().map(|p| (p.name(), p.help())))
            .query([DOWNLOAD])
            .query(links::PARAMETERS)
            .answers(200, PICTURE)
            .refuses(&[Code::InvalidRequest, Code::AssetNotFound, Code::NoImage, Code::BadImage, Code::AssetNotReady])
            .refuses(&[Code::Unauthorized, Code::Forbidden, Code::StorageUnavailable]);
    }
    r.get(
        "/api/v1/assets/{id}/conversions/{key}",
        Permission::Anyone,
        conversion,
        "A named conversion, as it is stored, or transformed by parameters",
    )
    .query(PARAMS.iter().map(|p| (p.name(), p.help())))
    .query([DOWNLOAD])
    .query(links::PARAMETERS)
    .answers(200, PICTURE)
    .answers(206, PICTURE)
    .refuses(&[
        Code::InvalidRequest,
        Code::AssetNotFound,
        Code::ContentNotFound,
        Code::Unauthorized,
        Code::Forbidden,
    ]);
}

const TILES: &str = "/api/v1/assets/{id}/conversions/deepzoom/deepzoom_files/{level}/{tile}";

fn mount_deepzoom(r: &mut Routes) {
    let refused = [Code::AssetNotFound, Code::ContentNotFound, Code::Unauthorized, Code::Forbidden];
    for path in [
        "/api/v1/assets/{id}/conversions/deepzoom/deepzoom.dzi",
        "/api/v1/assets/{id}/conversions/deepzoom/deepzoom.xml",
    ] {
        r.get(path, Permission::Anyone, deepzoom, "The description of a Deep Zoom pyramid (DZI)")
            .query(links::PARAMETERS)
            .answers(200, Body::Other("application/xml", "DZI."))
            .refuses(&refused);
    }
    r.get(TILES, Permission::Anyone, tile, "A Deep Zoom tile: `{column}_{row}.jpg` of a level, or `.png`")
        .query(links::PARAMETERS)
        .answers(200, PICTURE)
        .refuses(&refused);
}

async fn deepzoom(caller: Caller, delivery: Data<Delivery>, request: HttpRequest, id: Id) -> Reply<HttpResponse> {
    let ground = links::ground(&delivery, &caller, &request).await?;
    let (dzi, public) = delivery.deepzoom(ground, id.0).await?;
    Ok(respond::document(&request, dzi, "application/xml", public))
}

async fn tile(caller: Caller, delivery: Data<Delivery>, request: HttpRequest, id: Id) -> Reply<HttpResponse> {
    let ground = links::ground(&delivery, &caller, &request).await?;
    let named = |name: &str| request.match_info().get(name).unwrap_or_default();
    let place = named("tile").split_once('.').and_then(|(place, _)| place.split_once('_'));
    let (Ok(level), Some((Ok(column), Ok(row)))) = (named("level").parse(), place.map(|(x, y)| (x.parse(), y.parse())))
    else {
        return Err(Code::NotFound.because("A tile is named {level}/{column}_{row}.jpg.").into());
    };
    let shown = delivery.tile(ground, id.0, Tile { level, column, row }).await?;
    Ok(respond::image(&request, &shown, None))
}

async fn image(
    caller: Caller,
    delivery: Data<Delivery>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    let ground = links::ground(&delivery, &caller, &request).await?;
    let wanted = Wanted { id: id.0, of: Of::Asset, recipe: &recipe(&query)?, accept: accept(&request) };
    let shown = delivery.image(ground, wanted).await?;
    Ok(respond::image(&request, &shown, download(&query).then(|| id.0.to_string())))
}

async fn conversion(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    let key = request.match_info().get("key").unwrap_or_default();
    let ground = links::ground(&delivery, &caller, &request).await?;
    let recipe = recipe(&query)?;
    if recipe == Recipe::default() {
        let content = delivery.conversion(ground, id.0, key).await?;
        return Ok(respond::content(&request, &cpu, &content, Disposition::asked(&query)).await?);
    }
    let wanted = Wanted { id: id.0, of: Of::Conversion(key), recipe: &recipe, accept: accept(&request) };
    let shown = delivery.image(ground, wanted).await?;
    Ok(respond::image(&request, &shown, download(&query).then(|| format!("{}-{key}", id.0))))
}

pub(super) fn recipe(query: &Pairs) -> Result<Recipe> {
    Recipe::parse(query.iter()).map_err(|bad| Code::InvalidRequest.because(bad.to_string()))
}

pub(super) fn accept(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok())
}

fn download(query: &Pairs) -> bool {
    Disposition::asked(query) == Disposition::Download
}
