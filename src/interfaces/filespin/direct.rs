//! Straight to storage: announce, send, register.
//!
//! The form is S3's, and so is what is checked of it; the box is the store, unless originals go to a bucket on S3:
//! then the form leads there. Whoever sends needs no key:
//! the form is signed. It answers 204 like S3, or 200 or 201 when `success_action_status` asks for
//! that; refusals are this dialect's JSON with S3's statuses where it matters (403 for a form that
//! does not fit its policy), because the programs that send look at the status alone.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Data;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::Full;
use crate::error::Code;
use crate::error::Result;
use crate::ingest::Claim;
use crate::ingest::Ingest;
use crate::ingest::Permit;
use crate::ingest::after_keeping;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Origin;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::Call;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::id;
use crate::wire::filespin::AssetData;

/// Where forms are sent to.
const STORAGE: &str = "/api/v1/storage";

/// The field of the form that holds the file, after all others.
const FILE: &str = "file";

/// Of all fields before it, as in S3: anybody may send some.
const MOST_FIELDS_BYTES: usize = 20 * 1024;

pub fn mount(r: &mut Routes) {
    r.get(
        "/api/v1/assets/new/content_storage_url",
        Permission::CreateAsset,
        announce,
        "Sets an asset id aside and gives the form that sends its file straight to storage",
    )
    .query([
        ("filename", "What the file is called"),
        ("asset_id", "An id of one's own choice: 32 lower-case hex digits"),
        ("protocol", "`POST`, the only one there is"),
    ])
    .headers(once::HEADERS)
    .answers(200, Body::json::<Announced>())
    .refuses(once::REFUSALS)
    .refuses(&[Code::MissingParameter, Code::AssetIdExists, Code::InvalidRequest]);
    r.post(STORAGE, Permission::Anyone, send, "Takes a file that comes by a form of content_storage_url")
        .takes(Body::Other(
            "multipart/form-data",
            "All fields of `storage.fields`, then the file as `file`. Further fields: Content-Type, success_action_status.",
        ))
        .answers(204, Body::Other("*/*", "Nothing; the file waits to be registered. ETag is its MD5."))
        .refuses(&[
            Code::NoFile,
            Code::EmptyFile,
            Code::UploadIncomplete,
            Code::InvalidRequest,
            Code::PolicyRefused,
            Code::BodyTooSlow,
            Code::TooLarge,
            Code::StorageUnavailable,
            Code::DiskFull,
        ]);
    r.post(
        "/api/v1/assets/new/register_asset",
        Permission::CreateAsset,
        register,
        "Makes an asset of a file that was sent straight to storage, when size and checksum are right",
    )
    .headers(once::HEADERS)
    .takes(Body::json::<Registration>())
    .answers(200, Body::json::<AssetData>())
    .refuses(once::REFUSALS)
    .refuses(&[
        Code::MissingParameter,
        Code::AssetIdExists,
        Code::AssetNotFound,
        Code::ContentNotFound,
        Code::ContentMismatch,
        Code::DataTooLarge,
        Code::UploadGone,
        Code::Conflict,
        Code::StorageUnavailable,
        Code::DiskFull,
    ]);
}

/// Where and how to send the file.
#[derive(Serialize, JsonSchema)]
struct Announced {
    asset_id: String,
    storage: Target,
}

#[derive(Serialize, JsonSchema)]
struct Target {
    name: String,
    /// What the form is POSTed to.
    url: String,
    /// To be sent as they are, before the file.
    fields: BTreeMap<&'static str, String>,
    /// `POST`
    protocol: &'static str,
    /// Seconds.
    expiry: u64,
    key: String,
    bucket: String,
    storage_type: &'static str,
}

async fn announce(
    caller: Caller,
    ingest: Data<Ingest>,
    origin: Origin,
    query: Pairs,
    call: Call,
) -> Reply<HttpResponse> {
    let filename = query.get("filename").unwrap_or_default();
    if filename.trim().is_empty() {
        return Err(Code::MissingParameter.because("filename: say what the file is called.").into());
    }
    if !query.get("protocol").is_none_or(|p| p.is_empty() || p.eq_ignore_ascii_case("POST")) {
        return Err(Code::InvalidRequest.because("protocol: files are sent by POST.").into());
    }
    let asked = query.get("asset_id").filter(|text| !text.is_empty());
    let print = call.print_of(&(filename, asked))?;
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once.map(|once| once.of(print)),
        Begun::Made(before) => {
            before.fits(&print)?;
            if let Some(answer) = once::noted(&before) {
                return Ok(secret(answer));
            }
            let permit = ingest.announced(*before.assets.first().ok_or(Code::Internal)?).await?;
            return Ok(secret(once::made_up(&announced(permit, &origin.0))));
        }
    };
    let permit = ingest.announce(&caller, filename, asked.map(asset_id).transpose()?, once.clone()).await?;
    Ok(secret(once::first(&ingest, once, &announced(permit, &origin.0)).await?))
}

fn announced(permit: Permit, origin: &str) -> Announced {
    let storage_type = if permit.url.is_some() { "AMAZON_S3" } else { "FILESPIN" };
    Announced {
        asset_id: permit.id.to_string(),
        storage: Target {
            name: permit.name,
            url: permit.url.unwrap_or_else(|| format!("{origin}{STORAGE}")),
            fields: permit.fields.into_iter().collect(),
            protocol: "POST",
            expiry: permit.expires_in.as_secs(),
            key: format!("/{}", permit.key),
            bucket: permit.bucket,
            storage_type,
        },
    }
}

/// Whoever has the form may send.
fn secret(mut answer: HttpResponse) -> HttpResponse {
    answer.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    answer
}

async fn send(ingest: Data<Ingest>, figures: Data<Figures>, origin: Origin, parts: Parts) -> Reply<HttpResponse> {
    let parts = parts.at_most(ingest.config().max_parts).fields_at_most(MOST_FIELDS_BYTES);
    let mut parts = parts.files(&[FILE]);
    let mut fields = BTreeMap::new();
    while let Some(part) = parts.next().await? {
        match part {
            Part::Field { name, text } => {
                if fields.insert(name.to_ascii_lowercase(), text).is_some() {
                    return Err(Code::InvalidRequest.because("A field of the form is there twice.").into());
                }
            }
            Part::File(file) if file.field.eq_ignore_ascii_case(FILE) => {
                let (intake, sizes) = ingest.begin_sent(&fields, parts.announced_bytes()).await?;
                parts.files_at_most(*sizes.end());
                let taken = parts.pour(file, intake, &figures).await?;
                // What follows the file is not looked at, as in S3; but it has to end: else this may be half a file.
                parts.skip().await?;
                let md5 = ingest.sent(taken).await?;
                return Ok(thanks(&fields, &origin.0, &md5));
            }
            Part::File(_) => break,
        }
    }
    Err(Code::NoFile.because("The form holds no file: send it as the file part `file`, after all fields.").into())
}

/// S3's answer, in the status that the form asks for.
fn thanks(fields: &BTreeMap<String, String>, origin: &str, md5: &str) -> HttpResponse {
    let asked = fields.get("success_action_status").map(String::as_str);
    let status = match asked {
        Some("200") => StatusCode::OK,
        Some("201") => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::ETAG, format!("\"{md5}\"")));
    if status != StatusCode::CREATED {
        return answer.finish();
    }
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let key = fields.get("key").map(|key| plain(key)).unwrap_or_default();
    answer.content_type("application/xml").body(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}{STORAGE}</Location>\
         <Bucket>cloakroom</Bucket><Key>{key}</Key><ETag>\"{md5}\"</ETag></PostResponse>",
        plain(origin)
    ))
}

fn asset_id(text: &str) -> Result<AssetId> {
    text.parse().map_err(|()| Code::InvalidRequest.because("asset_id: an id is 32 lower-case hex digits."))
}

/// What was sent, in the words of who sent it.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Registration {
    #[serde(default)]
    asset_id: Option<String>,
    /// Bytes.
    #[serde(default)]
    size: Option<Number>,
    /// MD5, in hex.
    #[serde(default)]
    checksum: Option<String>,
    /// About the program that sent it; kept as `_filespin_service_data` in the asset's data.
    #[serde(default)]
    service_data: Option<Map<String, Value>>,
    #[serde(default)]
    upload_time: Option<Value>,
    #[serde(default)]
    upload_started_at: Option<Value>,
    #[serde(default)]
    upload_completed_at: Option<Value>,
}

/// A number; forms send it as a text.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

async fn register(
    caller: Caller,
    ingest: Data<Ingest>,
    assets: Data<Assets>,
    call: Call,
    body: JsonBody<Registration>,
) -> Reply<HttpResponse> {
    let print = call.print_of(&body.0)?;
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once.map(|once| once.of(print)),
        Begun::Made(before) => {
            before.fits(&print)?;
            if let Some(answer) = once::noted(&before) {
                return Ok(answer);
            }
            let id = *before.assets.first().ok_or(Code::Internal)?;
            return Ok(once::made_up(&AssetData::from(&assets.find(id).await?)));
        }
    };
    let claim = claim(body.0)?;
    let asset = ingest.register(&caller, claim, once.clone()).await?;
    let known = after_keeping(assets.find(asset.id).await.map(Some));
    let full = known.unwrap_or(Full { asset, conversions: Vec::new() });
    Ok(once::first(&ingest, once, &AssetData::from(&full)).await?)
}

fn claim(body: Registration) -> Result<Claim> {
    let missing = |name: &str| Code::MissingParameter.because(format!("{name}: this call needs it."));
    let size_bytes = match body.size.ok_or_else(|| missing("size"))? {
        Number::Number(n) => n,
        Number::Text(text) => {
            text.trim().parse().map_err(|_| Code::InvalidRequest.because("size: a whole number of bytes."))?
        }
    };
    let md5 = body.checksum.ok_or_else(|| missing("checksum"))?.trim().to_ascii_lowercase();
    if id::parse_hex16(&md5).is_none() {
        return Err(Code::InvalidRequest.because("checksum: an MD5 in 32 hex digits."));
    }
    Ok(Claim {
        id: asset_id(&body.asset_id.ok_or_else(|| missing("asset_id"))?)?,
        size_bytes,
        md5,
        service: body.service_data.unwrap_or_default(),
    })
}
