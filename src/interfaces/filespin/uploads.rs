//! Multipart upload.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Json;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::Assets;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Answered;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::interfaces::filespin::once;
use crate::interfaces::filespin::once::Begun;
use crate::interfaces::filespin::once::BodyPrint;
use crate::interfaces::filespin::once::CUSTOM_METADATA;
use crate::interfaces::filespin::once::Call;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::parts::FilePart;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::wire::filespin::AssetData;
use crate::wire::filespin::Uploaded;

pub fn mount(r: &mut Routes) {
    mount_into(r);
    r.post(
        "/api/v1/assets/new/content/original/upload",
        Permission::CreateAsset,
        upload,
        "Takes files in, an asset for each",
    )
    .takes(Body::Other(
        "multipart/form-data",
        "One or more files under any field name; optionally `custom_metadata`, the JSON text \
             {\"data\": {...}, \"data_schema_id\": 1}, for all of them.",
    ))
    .headers(once::HEADERS)
    .answers(200, Body::json::<Uploaded>())
    .refuses(once::REFUSALS)
    .refuses(&[
        Code::NoFile,
        Code::EmptyFile,
        Code::UploadIncomplete,
        Code::InvalidRequest,
        Code::DataTooLarge,
        Code::BodyTooSlow,
        Code::TooLarge,
        Code::UnsupportedMedia,
        Code::StorageUnavailable,
        Code::DiskFull,
    ]);
}

fn mount_into(r: &mut Routes) {
    const TAKEN: [Code; 13] = [
        Code::AssetNotFound,
        Code::AssetArchived,
        Code::Conflict,
        Code::NoFile,
        Code::EmptyFile,
        Code::UploadIncomplete,
        Code::InvalidRequest,
        Code::DataTooLarge,
        Code::BodyTooSlow,
        Code::TooLarge,
        Code::UnsupportedMedia,
        Code::StorageUnavailable,
        Code::DiskFull,
    ];
    r.post(
        "/api/v1/assets/{id}/content/original/replace",
        Permission::EditAsset,
        replace,
        "Gives an asset its next content; everything that was made of the old one is made again",
    )
    .takes(Body::Other(
        "multipart/form-data",
        "One file under any field name; optionally `custom_metadata` as in an upload, which is added to the data.",
    ))
    .answers(200, Body::json::<Uploaded>())
    .refuses(&TAKEN);
    r.post(
        "/api/v1/assets/{id}/content/{key}",
        Permission::EditAsset,
        hand_in,
        "Keeps a file as a conversion of an asset, under a name of 1 to 30 letters, digits, dashes and underscores",
    )
    .takes(Body::Other("multipart/form-data", "One file under any field name."))
    .answers(200, Body::json::<AssetData>())
    .refuses(&TAKEN)
    .refuses(&[Code::AssetNotReady, Code::BadImage, Code::BadVideo, Code::MediaUnavailable]);
}

#[derive(Deserialize)]
pub(super) struct CustomMetadata {
    #[serde(default)]
    pub(super) data: Map<String, Value>,
    #[serde(default)]
    pub(super) data_schema_id: i64,
}

#[expect(clippy::too_many_arguments, reason = "actix hands in one by one what a request holds")]
async fn upload(
    caller: Caller,
    ingest: Data<Ingest>,
    assets: Data<Assets>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    call: Call,
    parts: Parts,
) -> Reply<HttpResponse> {
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut body = BodyPrint::default();
    let once = match call.begin(&ingest, &caller).await? {
        Begun::Made(before) => {
            before.fits(&call.print(&body.read(&mut parts).await?))?;
            return Ok(again(&before, &assets, &origin.0).await?);
        }
        Begun::New(once) => once,
    };
    let mut note = Note { source: source(&request), ..Note::default() };
    let mut taken = Vec::new();
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(mut file) => {
                let intake = ingest.begin(&file.name, parts.announced_bytes()).await?;
                let file_taken = take(intake, &figures, &mut parts, &mut file).await?;
                body.file(&file.name, &file_taken.checksums.sha256_hex());
                taken.push(file_taken);
            }
            Part::Field { name, text } if name == CUSTOM_METADATA => {
                let told = custom_metadata(&text)?;
                body.field(&text);
                note.data = told.data;
                note.data_schema_id = told.data_schema_id;
            }
            Part::Field { .. } => {}
        }
    }
    note.once = once.map(|once| once.of(call.print(&body.end())));
    let once = note.once.clone();
    let kept = ingest.keep(&caller, taken, note).await?;
    let same = ingest.duplicates(&caller, &kept).await?;
    Ok(once::first(&ingest, once, &Uploaded::new(&kept, &origin.0).noting(&same)).await?)
}

/// An upload that was made before, answered as it was then.
pub(super) async fn again(before: &Answered, assets: &Assets, origin: &str) -> Result<HttpResponse> {
    if let Some(answer) = once::noted(before) {
        return Ok(answer);
    }
    let mut kept = Vec::new();
    for id in &before.assets {
        kept.push(assets.find(*id).await?.asset);
    }
    Ok(once::made_up(&Uploaded::new(&kept, origin)))
}

async fn replace(
    caller: Caller,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    id: Id,
    parts: Parts,
) -> Reply<Json<Uploaded>> {
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut note = Note { source: source(&request), ..Note::default() };
    let mut taken = None;
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(_) if taken.is_some() => return Err(one_file().into()),
            Part::File(mut file) => {
                let intake = ingest.begin_replacing(id.0, &file.name, parts.announced_bytes()).await?;
                taken = Some(take(intake, &figures, &mut parts, &mut file).await?);
            }
            Part::Field { name, text } if name == CUSTOM_METADATA => {
                let told = custom_metadata(&text)?;
                note.data = told.data;
                note.data_schema_id = told.data_schema_id;
            }
            Part::Field { .. } => {}
        }
    }
    let asset = ingest.replace(&caller, taken.ok_or_else(no_file)?, note).await?;
    Ok(Json(Uploaded::new(&[asset], &origin.0)))
}

async fn hand_in(
    caller: Caller,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    request: HttpRequest,
    id: Id,
    parts: Parts,
) -> Reply<Json<AssetData>> {
    let key = request.match_info().get("key").unwrap_or_default();
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut taken = None;
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(_) if taken.is_some() => return Err(one_file().into()),
            Part::File(mut file) => {
                let intake = ingest.begin_handing_in(id.0, key, &file.name, parts.announced_bytes()).await?;
                taken = Some(take(intake, &figures, &mut parts, &mut file).await?);
            }
            Part::Field { .. } => {}
        }
    }
    let full = ingest.hand_in(&caller, taken.ok_or_else(no_file)?).await?;
    Ok(Json(AssetData::from(&full)))
}

fn one_file() -> Error {
    Code::InvalidRequest.because("This call takes one file.")
}

fn no_file() -> Error {
    Code::NoFile.because("The upload holds no file: send a file part.")
}

async fn take(mut intake: Intake, figures: &Figures, parts: &mut Parts, file: &mut FilePart) -> Result<Taken> {
    while let Some(chunk) = parts.chunk(file).await? {
        figures.received(chunk.len() as u64);
        intake.write(chunk).await?;
    }
    intake.finish().await
}

pub(super) fn custom_metadata(text: &str) -> Result<CustomMetadata> {
    serde_json::from_str(text).map_err(|e| {
        Code::InvalidRequest
            .because(format!("custom_metadata is not the JSON text {{\"data\": {{...}}, \"data_schema_id\": 1}}: {e}."))
    })
}

/// The page that uploaded, for the record.
fn source(request: &HttpRequest) -> Option<String> {
    let origin = request.headers().get(header::ORIGIN)?.to_str().ok()?;
    origin.split("://").nth(1).map(|host| host.chars().take(255).collect())
}
