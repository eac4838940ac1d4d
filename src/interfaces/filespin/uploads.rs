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
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::parts::FilePart;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::wire::filespin::Uploaded;

pub fn mount(r: &mut Routes) {
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
        Code::BodyTooSlow,
        Code::TooLarge,
        Code::UnsupportedMedia,
        Code::StorageUnavailable,
        Code::DiskFull,
    ]);
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
            Part::File(file) => taken.push(take(&ingest, &figures, &mut parts, *file).await?),
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

async fn take(ingest: &Ingest, figures: &Figures, parts: &mut Parts, mut file: FilePart) -> Result<Taken> {
    let mut intake = ingest.begin(&file.name, parts.declared_bytes).await?;
    while let Some(chunk) = parts.chunk(&mut file).await? {
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
