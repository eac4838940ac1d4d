//! Changing what is kept: data, archive, deleting and fetching back, emptying the trash, and the
//! same for many assets at once.
//!
//! The vendor's pages name some of these without an address; those are answered under every one
//! that its clients use.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::assets::ORIGINAL;
use crate::assets::data::Mode;
use crate::custody::Custody;
use crate::custody::Selection;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::filespin::sharing::Changed;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::MaybeJson;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::clock::Instant;
use crate::wire::filespin::AssetData;

pub fn mount(r: &mut Routes) {
    r.post("/api/v1/assets/{id}/data/update", Permission::EditAssetOrHandedIn, update, "Writes data of an asset")
        .query([
            ("async", "`1`: answer 202"),
            ("upload_key", "The upload key by which it came in a short while ago; then the answer holds `id` alone"),
        ])
        .takes(Body::json::<DataUpdate>())
        .answers(200, Body::json::<AssetData>())
        .answers(202, Body::json::<AssetData>())
        .refuses(&[
            Code::AssetNotFound,
            Code::AssetNotReady,
            Code::AssetArchived,
            Code::DataTooLarge,
            Code::InvalidRequest,
        ]);
    r.post(
        "/api/v1/assets/{id}/archive",
        Permission::DeleteAsset,
        archive,
        "Makes an asset read-only: its status becomes `ARCHIVED`",
    )
    .answers(200, Body::json::<AssetData>())
    .refuses(&[Code::AssetNotFound, Code::AssetNotReady, Code::AssetInvalid]);
    r.post("/api/v1/assets/{id}/unarchive", Permission::DeleteAsset, unarchive, "Takes that back")
        .answers(200, Body::json::<AssetData>())
        .refuses(&[Code::AssetNotFound]);
    mount_deleting(r);
    mount_bulk(r);
}

fn mount_deleting(r: &mut Routes) {
    let refused = [Code::AssetNotFound, Code::AssetArchived, Code::InvalidRequest];
    for path in ["/api/v1/assets/{id}/delete", "/api/v1/assets/{id}/content/delete"] {
        r.post(
            path,
            Permission::DeleteAsset,
            delete,
            "Deletes contents: conversions, `*` for all of them, or `original`, which moves the asset to the trash",
        )
        .takes(Body::json::<Deletion>())
        .answers(200, Body::json::<Changed>())
        .refuses(&refused);
    }
    for path in ["/api/v1/assets/{id}", "/api/v1/assets/{id}/content"] {
        r.delete(path, Permission::DeleteAsset, delete_any, "The same; without a body, the original")
            .may_take(Body::json::<Deletion>())
            .answers(200, Body::json::<Changed>())
            .refuses(&refused);
    }
    r.delete("/api/v1/assets/{id}/content/{key}", Permission::DeleteAsset, delete_one, "The same for one content")
        .answers(200, Body::json::<Changed>())
        .refuses(&refused);
    for path in ["/api/v1/assets/{id}/undelete", "/api/v1/assets/{id}/content/undelete"] {
        r.post(
            path,
            Permission::DeleteAsset,
            undelete,
            "Fetches an asset out of the trash and makes its enabled conversions again",
        )
        .answers(200, Body::json::<Changed>())
        .refuses(&[Code::AssetNotFound]);
    }
}

fn mount_bulk(r: &mut Routes) {
    let refused = [Code::InvalidRequest, Code::MissingParameter];
    r.post(
        "/api/v1/assets/bulk/delete",
        Permission::DeleteAsset,
        delete_many,
        "Moves up to 1000 assets to the trash: those uploaded in a span of up to 31 days, or (ours) those listed",
    )
    .takes(Body::json::<ManyAssets>())
    .answers(202, Body::json::<Queued>())
    .refuses(&refused);
    r.post(
        "/api/v1/assets/bulk/process",
        Permission::EditAsset,
        process_many,
        "Makes conversions of up to 1000 assets, chosen in the same way",
    )
    .takes(Body::json::<ManyProcess>())
    .answers(202, Body::json::<Queued>())
    .refuses(&refused);
    for path in ["/api/v1/assets/purge", "/api/v1/assets/bulk/purge"] {
        r.post(
            path,
            Permission::PurgeAsset,
            purge,
            "Empties the trash for good, or (ours) removes listed assets from it",
        )
        .may_take(Body::json::<Purge>())
        .answers(202, Body::json::<Queued>())
        .refuses(&[Code::InvalidRequest]);
    }
    for path in ["/api/v1/assets/purge/count", "/api/v1/assets/bulk/purge/count"] {
        r.get(path, Permission::PurgeAsset, count_trash, "What is in the trash").answers(200, Body::json::<Trash>());
    }
}

/// What somebody says about an asset.
#[derive(Deserialize, JsonSchema)]
struct DataUpdate {
    /// Names that begin with `_filespin` are ignored. At most 3000 characters as JSON are kept of an asset.
    data: Map<String, Value>,
    /// `APPEND` (as usual) replaces what has the same name, `REPLACE` everything.
    #[serde(default)]
    mode: Option<UpdateMode>,
    /// The default schema (0) when absent.
    #[serde(default)]
    data_schema_id: Option<i64>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum UpdateMode {
    Append,
    Replace,
}

#[derive(Deserialize, JsonSchema)]
struct Deletion {
    /// `original`, `*`, or keys of conversions; what is not there is ignored.
    keys: Vec<String>,
}

/// Assets by the time of their upload, or by their ids.
#[derive(Deserialize, JsonSchema)]
struct ManyAssets {
    /// `YYYY-MM-DDTHH:MM:SSZ`
    start_time: Option<String>,
    /// The same; up to and with this second.
    end_time: Option<String>,
    asset_ids: Option<Vec<String>>,
}

#[derive(Deserialize, JsonSchema)]
struct ManyProcess {
    /// Processing keys; unknown ones are ignored.
    keys: Vec<String>,
    #[serde(flatten)]
    which: ManyAssets,
}

#[derive(Deserialize, JsonSchema)]
struct Purge {
    /// Of the trash; all of it when absent.
    asset_ids: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
struct Queued {
    /// `QUEUED`
    status: &'static str,
    message: &'static str,
    job_id: i64,
}

#[derive(Serialize, JsonSchema)]
struct Trash {
    /// Assets.
    count: u64,
    /// Bytes of their originals.
    size: u64,
}

/// What a page with an upload key is told.
#[derive(Serialize)]
struct Described {
    status: &'static str,
    id: String,
}

async fn update(
    caller: Caller,
    accounts: Data<Accounts>,
    custody: Data<Custody>,
    id: Id,
    query: Pairs,
    body: JsonBody<DataUpdate>,
) -> Reply<HttpResponse> {
    accounts.may_describe(&caller, &id.0.to_string()).await?;
    let DataUpdate { data, mode, data_schema_id } = body.0;
    let mode = match mode {
        Some(UpdateMode::Replace) => Mode::Replace,
        Some(UpdateMode::Append) | None => Mode::Append,
    };
    let full = custody.write_data(&caller, id.0, data, mode, data_schema_id.unwrap_or_default()).await?;
    // It is done either way; whoever asked not to wait expects the other status.
    let waits = !matches!(query.get("async"), Some("1" | "true"));
    let mut answer = if waits { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    if let Caller::UploadKey { .. } = caller {
        // It reads nothing, not even what others have written beside.
        return Ok(answer.json(Described { status: "OK", id: id.0.to_string() }));
    }
    Ok(answer.json(AssetData::from(&full)))
}

async fn archive(caller: Caller, custody: Data<Custody>, id: Id) -> Reply<Json<AssetData>> {
    Ok(Json(AssetData::from(&custody.archive(&caller, id.0, true).await?)))
}

async fn unarchive(caller: Caller, custody: Data<Custody>, id: Id) -> Reply<Json<AssetData>> {
    Ok(Json(AssetData::from(&custody.archive(&caller, id.0, false).await?)))
}

async fn delete(caller: Caller, custody: Data<Custody>, id: Id, body: JsonBody<Deletion>) -> Reply<Json<Changed>> {
    delete_keys(&caller, &custody, id.0, body.0.keys).await
}

async fn delete_any(caller: Caller, custody: Data<Custody>, id: Id, body: MaybeJson<Deletion>) -> Reply<Json<Changed>> {
    let keys = body.0.map_or_else(|| vec![ORIGINAL.to_owned()], |body| body.keys);
    delete_keys(&caller, &custody, id.0, keys).await
}

async fn delete_one(caller: Caller, custody: Data<Custody>, id: Id, request: HttpRequest) -> Reply<Json<Changed>> {
    let key = request.match_info().get("key").unwrap_or_default().to_owned();
    delete_keys(&caller, &custody, id.0, vec![key]).await
}

async fn delete_keys(caller: &Caller, custody: &Custody, id: AssetId, keys: Vec<String>) -> Reply<Json<Changed>> {
    let gone = custody.delete(caller, id, keys).await?;
    Ok(Json(Changed::of(gone)))
}

async fn undelete(caller: Caller, custody: Data<Custody>, id: Id) -> Reply<Json<Changed>> {
    let was_there = custody.undelete(&caller, id.0).await?;
    Ok(Json(Changed::of(was_there.then(|| ORIGINAL.to_owned()).into_iter().collect())))
}

async fn delete_many(caller: Caller, custody: Data<Custody>, body: JsonBody<ManyAssets>) -> Reply<HttpResponse> {
    let (which, input) = body.0.read()?;
    Ok(queued(custody.delete_many(&caller, which, input).await?))
}

async fn process_many(caller: Caller, custody: Data<Custody>, body: JsonBody<ManyProcess>) -> Reply<HttpResponse> {
    let ManyProcess { keys, which } = body.0;
    let (which, mut input) = which.read()?;
    input.insert("keys".to_owned(), json!(keys));
    Ok(queued(custody.process_many(&caller, which, keys, input).await?))
}

async fn purge(caller: Caller, custody: Data<Custody>, body: MaybeJson<Purge>) -> Reply<HttpResponse> {
    let ids = body.0.and_then(|body| body.asset_ids).map(|ids| read_ids(&ids)).transpose()?;
    let input = ids.iter().map(|ids| ("assets".to_owned(), ids.len().into())).collect();
    Ok(queued(custody.purge(&caller, ids, input).await?))
}

async fn count_trash(custody: Data<Custody>) -> Reply<Json<Trash>> {
    let (count, size) = custody.count_trash().await?;
    Ok(Json(Trash { count, size }))
}

fn queued(job_id: i64) -> HttpResponse {
    HttpResponse::Accepted().json(Queued { status: "QUEUED", message: "Job queued", job_id })
}

impl ManyAssets {
    /// Which assets are meant, and how that is told of the job.
    fn read(self) -> Result<(Selection, Map<String, Value>)> {
        match self {
            ManyAssets { asset_ids: Some(ids), .. } => {
                let ids = read_ids(&ids)?;
                let input = Map::from_iter([("assets".to_owned(), ids.len().into())]);
                Ok((Selection::These(ids), input))
            }
            ManyAssets { start_time: Some(start), end_time: Some(end), .. } => {
                let from = read_time("start_time", &start)?;
                let to = read_time("end_time", &end)?;
                let input = Map::from_iter([
                    ("start_time".to_owned(), from.iso().into()),
                    ("end_time".to_owned(), to.iso().into()),
                ]);
                Ok((Selection::Uploaded { from, to }, input))
            }
            _ => Err(Code::MissingParameter.because("Name the assets: send start_time and end_time, or asset_ids.")),
        }
    }
}

fn read_ids(ids: &[String]) -> Result<Vec<AssetId>> {
    ids.iter()
        .map(|id| {
            id.parse().map_err(|()| {
                Code::InvalidRequest.because(format!("asset_ids: `{id}` is not an asset id (32 hex digits)"))
            })
        })
        .collect()
}

fn read_time(name: &str, text: &str) -> Result<Instant> {
    Instant::parse(text).ok_or_else(|| {
        Code::InvalidRequest.because(format!("{name}: `{text}` is not a time; write 2017-06-01T00:00:00Z"))
    })
}
