//! Asset data, listing, and contents as they are stored.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::Assets;
use crate::assets::ORIGINAL;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::interfaces::filespin::links;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::respond::Disposition;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::cpu::Cpu;
use crate::support::page::Page;
use crate::wire::filespin::AssetData;

const ANY: Body = Body::Other("*/*", "The bytes, whole or the ranges asked for.");

pub fn mount(r: &mut Routes) {
    mount_download(r);
    r.get("/api/v1/assets", Permission::ReadAsset, list, "Lists assets, newest first")
        .query([("offset", "Rows to skip"), ("limit", "Rows to answer: 50, at most 500")])
        .answers(200, Body::json::<Listing>())
        .refuses(&[Code::InvalidRequest]);
    r.get("/api/v1/assets/{id}/data", Permission::ReadAsset, data, "Everything known about an asset")
        .answers(200, Body::json::<AssetData>())
        .refuses(&[Code::AssetNotFound]);
    r.get("/api/v1/assets/{id}/content/{key}", Permission::Anyone, display, "A content, shown where that is safe")
        .query([("delivery", "`display` (as usual) or `download`")])
        .query(links::PARAMETERS)
        .answers(200, ANY)
        .answers(206, ANY)
        .refuses(&[Code::AssetNotFound, Code::ContentNotFound, Code::RangeNotSatisfiable, Code::Forbidden])
        .refuses(&[Code::StorageUnavailable]);
    r.get("/api/v1/assets/{id}/content/{key}/download", Permission::Anyone, download, "A content, as a file to keep")
        .query(links::PARAMETERS)
        .answers(200, ANY)
        .answers(206, ANY)
        .refuses(&[Code::AssetNotFound, Code::ContentNotFound, Code::RangeNotSatisfiable, Code::Forbidden])
        .refuses(&[Code::StorageUnavailable]);
}

fn mount_download(r: &mut Routes) {
    r.get("/api/v1/assets/{id}/download", Permission::Anyone, download_by_query, "The same, its key in the query")
        .query([("key", "A content key: `original` (as usual), a conversion, a transcode")])
        .query(links::PARAMETERS)
        .answers(200, ANY)
        .answers(206, ANY)
        .refuses(&[Code::AssetNotFound, Code::ContentNotFound, Code::RangeNotSatisfiable, Code::Forbidden])
        .refuses(&[Code::StorageUnavailable]);
}

#[derive(Serialize, JsonSchema)]
struct Listing {
    assets: Vec<AssetData>,
    count: usize,
    total: u64,
    offset: u32,
    limit: u32,
}

async fn list(assets: Data<Assets>, query: Pairs) -> Reply<Json<Listing>> {
    let page = Page::new(query.number("offset")?, query.number("limit")?, 50, 500);
    let (found, total) = assets.list(page).await?;
    let assets: Vec<_> = found.iter().map(AssetData::from).collect();
    Ok(Json(Listing { count: assets.len(), assets, total, offset: page.offset, limit: page.limit }))
}

async fn data(assets: Data<Assets>, id: Id) -> Reply<Json<AssetData>> {
    Ok(Json(AssetData::from(&assets.find(id.0).await?)))
}

async fn display(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    send(&caller, &delivery, &cpu, &request, &id, Disposition::asked(&query)).await
}

async fn download(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
) -> Reply<HttpResponse> {
    send(&caller, &delivery, &cpu, &request, &id, Disposition::Download).await
}

async fn download_by_query(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    let key = query.get("key").unwrap_or(ORIGINAL);
    let ground = links::ground(&delivery, &caller, &request).await?;
    let content = delivery.content(ground, id.0, key).await?;
    Ok(respond::content(&request, &cpu, &content, Disposition::Download).await?)
}

async fn send(
    caller: &Caller,
    delivery: &Delivery,
    cpu: &Cpu,
    request: &HttpRequest,
    id: &Id,
    how: Disposition,
) -> Reply<HttpResponse> {
    let key = request.match_info().get("key").unwrap_or_default();
    let ground = links::ground(delivery, caller, request).await?;
    let content = delivery.content(ground, id.0, key).await?;
    Ok(respond::content(request, cpu, &content, how).await?)
}
