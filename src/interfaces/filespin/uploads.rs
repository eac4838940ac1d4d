//! Multipart upload.

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Json;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::Taken;
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
    .answers(200, Body::json::<Uploaded>())
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

async fn upload(
    caller: Caller,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    parts: Parts,
) -> Reply<Json<Uploaded>> {
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut note = Note { source: source(&request), ..Note::default() };
    let mut taken = Vec::new();
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(mut file) => {
                let intake = ingest.begin(&file.name, parts.announced_bytes()).await?;
                taken.push(take(intake, &figures, &mut parts, &mut file).await?);
            }
            Part::Field { name, text } if name == "custom_metadata" => {
                let told = custom_metadata(&text)?;
                note.data = told.data;
                note.data_schema_id = told.data_schema_id;
            }
            Part::Field { .. } => {}
        }
    }
    let assets = ingest.keep(&caller, taken, note).await?;
    Ok(Json(Uploaded::new(&assets, &origin.0)))
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
            Part::Field { name, text } if name == "custom_metadata" => {
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
