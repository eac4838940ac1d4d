//! Collections: made, found, changed, downloaded as an archive.
//!
//! Shapes: <https://developers.filespin.io/reference/asset-collection-api>. How one is changed
//! and deleted is not published; both are at the address at which it is read.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::collections::By;
use crate::collections::Change;
use crate::collections::Collections;
use crate::collections::Descending;
use crate::collections::Draft;
use crate::collections::Filled;
use crate::collections::Filter;
use crate::delivery::Delivery;
use crate::delivery::link::Life;
use crate::delivery::link::Signed;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::interfaces::filespin::links;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::extract::CollectionId;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::clock::Instant;
use crate::support::cpu::Cpu;
use crate::support::page::Page;
use crate::wire::filespin::AssetData;

const ONE: &str = "/api/v1/assetcollection/{collection_id}";
const ASSETS: &str = "/api/v1/assetcollection/{collection_id}/assets";
/// How long the address of a download is good for.
const LINK_LIFE: Duration = Duration::from_mins(10);
const MOST_PER_PAGE: u32 = 30;

const ARCHIVE: Body = Body::Other("application/zip", "The archive, or the range of it that was asked for.");

pub fn mount(r: &mut Routes) {
    let refused = [Code::InvalidRequest, Code::AssetNotFound, Code::CollectionNotFound, Code::TooLarge];
    r.post("/api/v1/assetcollection", Permission::OwnCollection, create, "Makes a collection, or a copy of one")
        .takes(Body::json::<NewCollection>())
        .answers(200, Body::json::<CollectionData>())
        .refuses(&refused);
    r.post(
        "/api/v1/assetcollections",
        Permission::ReadAsset,
        search,
        "Searches the collections that the caller may see",
    )
    .takes(Body::json::<Asked>())
    .answers(200, Body::json::<Listing>())
    .refuses(&[Code::InvalidRequest, Code::TooLarge]);
    r.get(ONE, Permission::ReadAsset, find, "A collection")
        .answers(200, Body::json::<CollectionData>())
        .refuses(&[Code::CollectionNotFound]);
    for method in [Routes::patch, Routes::put] {
        method(r, ONE, Permission::OwnCollection, update, "Changes a collection; what is left out stays")
            .takes(Body::json::<CollectionChange>())
            .answers(200, Body::json::<CollectionData>())
            .refuses(&refused);
    }
    r.delete(ONE, Permission::OwnCollection, delete, "Deletes a collection; its assets stay")
        .answers(200, Body::json::<Deleted>())
        .refuses(&[Code::CollectionNotFound]);
    r.post(
        ASSETS,
        Permission::OwnCollection,
        add,
        "Adds assets to a collection; those that are in it stay where they are",
    )
    .takes(Body::json::<Ids>())
    .answers(200, Body::json::<CollectionData>())
    .refuses(&refused);
    r.delete(
        ASSETS,
        Permission::OwnCollection,
        remove,
        "Takes assets out of a collection; those that are not in it are ignored",
    )
    .takes(Body::json::<Ids>())
    .answers(200, Body::json::<CollectionData>())
    .refuses(&refused);
    r.get(
        "/api/v1/assetcollection/{collection_id}/download",
        Permission::Anyone,
        download,
        "The originals of a collection as a ZIP archive, or where to get it for ten minutes",
    )
    .query([("as_url", "`y`: an address instead of the archive")])
    .query(links::PARAMETERS)
    .answers(200, ARCHIVE)
    .answers(200, Body::json::<Address>())
    .answers(206, ARCHIVE)
    .refuses(&[
        Code::CollectionNotFound,
        Code::EmptyCollection,
        Code::InvalidRequest,
        Code::RangeNotSatisfiable,
        Code::Forbidden,
    ]);
}

#[derive(Deserialize, JsonSchema)]
struct NewCollection {
    /// The collection that this one shall be a copy of.
    source_id: Option<i64>,
    name: Option<String>,
    description: Option<String>,
    /// Up to 30 ids.
    assets: Option<Vec<String>>,
    /// Whether the others may see it and download it.
    group_access: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
struct CollectionChange {
    name: Option<String>,
    description: Option<String>,
    /// Instead of those that are in it.
    assets: Option<Vec<String>>,
    /// In addition to them.
    add_assets: Option<Vec<String>>,
    remove_assets: Option<Vec<String>>,
    group_access: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
struct Ids {
    assets: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Asked {
    /// A part of the name or of the description.
    keyword: Option<String>,
    /// The caller's own that are shared with nobody.
    private_only: Option<bool>,
    last_update_range: Option<TimeRange>,
    /// `group_access`, `name` or `last_update`, each with `_ASC` or `_DESC`.
    sort_by: Option<Sorts>,
    offset: Option<u32>,
    /// 30, which is also the most.
    limit: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
struct TimeRange {
    start: Option<String>,
    end: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Sorts {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize, JsonSchema)]
struct CollectionData {
    id: i64,
    user_id: i64,
    name: String,
    description: String,
    last_update: String,
    /// Ids, in their order.
    assets: Vec<String>,
    group_access: bool,
    user_name: String,
    user_email: String,
    /// The same assets, by id.
    extended_result: BTreeMap<String, AssetData>,
}

#[derive(Serialize, JsonSchema)]
struct Listing {
    collections: Vec<CollectionData>,
    total_collections: u64,
    offset: u32,
    limit: u32,
}

#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// `OK`
    status: &'static str,
    message: &'static str,
}

/// Of `as_url`.
#[derive(Serialize, JsonSchema)]
struct Address {
    url: String,
}

/// What people are called: name and e-mail, by number.
type People = HashMap<i64, (String, String)>;

impl CollectionData {
    fn new(filled: &Filled, people: &People) -> CollectionData {
        let Filled { collection: c, assets } = filled;
        let (user_name, user_email) = people.get(&c.user_id).cloned().unwrap_or_default();
        CollectionData {
            id: c.id,
            user_id: c.user_id,
            name: c.name.clone(),
            description: c.description.clone(),
            last_update: c.changed_at.iso(),
            assets: assets.iter().map(|full| full.asset.id.to_string()).collect(),
            group_access: c.group_access,
            user_name,
            user_email,
            extended_result: assets.iter().map(|full| (full.asset.id.to_string(), AssetData::from(full))).collect(),
        }
    }
}

async fn create(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    body: JsonBody<NewCollection>,
) -> Reply<Json<CollectionData>> {
    let NewCollection { source_id, name, description, assets, group_access } = body.0;
    let assets = assets.map(ids).transpose()?;
    let draft = Draft { source: source_id, name, description, group_access, assets };
    let made = collections.create(&caller, draft).await?;
    Ok(Json(CollectionData::new(&made, &people(&accounts).await?)))
}

async fn search(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    body: JsonBody<Asked>,
) -> Reply<Json<Listing>> {
    let asked = body.0;
    let sorts = match asked.sort_by {
        None => Vec::new(),
        Some(Sorts::One(sort)) => vec![sort],
        Some(Sorts::Many(sorts)) => sorts,
    };
    let instant = |text: Option<String>| {
        let read = |text: String| {
            let wrong = || {
                Code::InvalidRequest
                    .because(format!("last_update_range: `{text}` is not a time such as 2024-05-15T15:43:02Z"))
            };
            Instant::parse(&text).ok_or_else(wrong)
        };
        text.map(read).transpose()
    };
    let range = asked.last_update_range;
    let (start, end) = range.map_or((None, None), |range| (range.start, range.end));
    // Whole seconds on the wire: the last one is in it to its end.
    let end = instant(end)?.map(|at| at.plus(Duration::from_millis(999)));
    let filter = Filter {
        keyword: asked.keyword.filter(|text| !text.is_empty()),
        private_only: asked.private_only.unwrap_or(false),
        changed: (instant(start)?, end),
        sort: sorts.iter().take(3).map(|text| sort(text)).collect::<Result<_>>()?,
    };
    if filter.keyword.as_ref().is_some_and(|text| text.len() > 200) {
        return Err(Code::InvalidRequest.because("keyword: at most 200 bytes").into());
    }
    let page = Page::new(asked.offset, asked.limit, MOST_PER_PAGE, MOST_PER_PAGE);
    let (found, total_collections) = collections.search(&caller, filter, page).await?;
    let people = people(&accounts).await?;
    let collections = found.iter().map(|filled| CollectionData::new(filled, &people)).collect();
    Ok(Json(Listing { collections, total_collections, offset: page.offset, limit: page.limit }))
}

async fn find(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    id: CollectionId,
) -> Reply<Json<CollectionData>> {
    let found = collections.find(&caller, id.0).await?;
    Ok(Json(CollectionData::new(&found, &people(&accounts).await?)))
}

async fn update(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    id: CollectionId,
    body: JsonBody<CollectionChange>,
) -> Reply<Json<CollectionData>> {
    let CollectionChange { name, description, assets, add_assets, remove_assets, group_access } = body.0;
    let change = Change {
        name,
        description,
        group_access,
        assets: assets.map(ids).transpose()?,
        add: add_assets.map(ids).transpose()?.unwrap_or_default(),
        remove: remove_assets.map(ids).transpose()?.unwrap_or_default(),
    };
    changed(&caller, &accounts, &collections, id, change).await
}

async fn add(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    id: CollectionId,
    body: JsonBody<Ids>,
) -> Reply<Json<CollectionData>> {
    let change = Change { add: ids(body.0.assets)?, ..Change::default() };
    changed(&caller, &accounts, &collections, id, change).await
}

async fn remove(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    id: CollectionId,
    body: JsonBody<Ids>,
) -> Reply<Json<CollectionData>> {
    let change = Change { remove: ids(body.0.assets)?, ..Change::default() };
    changed(&caller, &accounts, &collections, id, change).await
}

async fn changed(
    caller: &Caller,
    accounts: &Accounts,
    collections: &Collections,
    id: CollectionId,
    change: Change,
) -> Reply<Json<CollectionData>> {
    let found = collections.update(caller, id.0, change).await?;
    Ok(Json(CollectionData::new(&found, &people(accounts).await?)))
}

async fn delete(caller: Caller, collections: Data<Collections>, id: CollectionId) -> Reply<Json<Deleted>> {
    collections.delete(&caller, id.0).await?;
    Ok(Json(Deleted { status: "OK", message: "Deleted" }))
}

#[expect(clippy::too_many_arguments, reason = "actix gives a handler each of its collaborators as an argument")]
async fn download(
    caller: Caller,
    accounts: Data<Accounts>,
    collections: Data<Collections>,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    origin: Origin,
    request: HttpRequest,
    id: CollectionId,
    query: Pairs,
) -> Reply<HttpResponse> {
    let path = format!("assetcollection/{}/download", id.0);
    let link = Signed::read(&path, request.query_string())?;
    let signed = link.is_some();
    let caller = match link {
        // Whoever has the link sees what its signer sees.
        Some(link) => {
            let access_id = link.access_id.clone();
            delivery.standing(&caller, Some(link)).await?;
            accounts.signer(&access_id).await?.map_or(Caller::Nobody, |signer| signer.caller)
        }
        None => caller,
    };
    if !caller.may(Permission::ReadAsset) {
        return Err(Code::Unauthorized.because("A collection needs an API key, a token or a signed link.").into());
    }
    let archive = collections.download(&caller, id.0).await?;
    let wants_address = matches!(query.get("as_url"), Some("y" | "yes" | "true" | "1"));
    if wants_address && !signed {
        if !caller.may(Permission::SignLink) {
            return Err(Code::Forbidden.because("as_url: a token signs no links; it downloads this itself.").into());
        }
        let signed = delivery.sign(&caller, &path, &[], Life::For(LINK_LIFE)).await?;
        return Ok(HttpResponse::Ok().json(Address { url: format!("{}/api/v1/{signed}", origin.0) }));
    }
    Ok(respond::archive(&request, &cpu, &archive, "download.zip").await?)
}

fn ids(texts: Vec<String>) -> Result<Vec<AssetId>> {
    let read =
        |text: String| text.parse().map_err(|()| Code::AssetNotFound.because(format!("No asset has the id {text}.")));
    texts.into_iter().map(read).collect()
}

fn sort(text: &str) -> Result<(By, Descending)> {
    let (name, descending) = match text.rsplit_once('_').or_else(|| text.rsplit_once(' ')) {
        Some((name, "DESC")) => (name, true),
        Some((name, "ASC")) => (name, false),
        _ => (text, false),
    };
    let by = match name {
        "group_access" => By::GroupAccess,
        "name" => By::Name,
        "last_update" => By::Changed,
        _ => return Err(wrong(text)),
    };
    Ok((by, Descending(descending)))
}

fn wrong(text: &str) -> Error {
    Code::InvalidRequest
        .because(format!("sort_by: `{text}` is none of group_access, name and last_update, with _ASC or _DESC"))
}

async fn people(accounts: &Accounts) -> Result<People> {
    let users = accounts.users().await?;
    let name = |first: &str, last: &str| format!("{first} {last}").trim().to_owned();
    Ok(users.into_iter().map(|user| (user.id, (name(&user.first_name, &user.last_name), user.email))).collect())
}
