//! Where the file picker hands in: pages of others, with an upload key.
//!
//! The table has checked key, page and pace before any of the body is read. What comes in is
//! noted with its key, so that the page may describe it afterwards; it can read nothing.

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Json;
use actix_web::web::Query;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::filespin::uploads;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::observe::PICKER;
use crate::interfaces::http::parts::FilePart;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::auth::host_of;
use crate::wire::filespin::Uploaded;

pub fn mount(r: &mut Routes) {
    r.post(PICKER, Permission::HandIn, upload, "Takes files in from a page with an upload key, an asset for each")
        .query([
            ("upload_key", "The upload key; programs may send it as X-FileSpin-Upload-Key"),
            ("picker_host", "The page's host, for the record; who may call is judged by Origin or Referer"),
        ])
        .takes(Body::Other(
            "multipart/form-data",
            "One or more files under any field name; optionally `custom_metadata`.",
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

async fn upload(
    caller: Caller,
    accounts: Data<Accounts>,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    parts: Parts,
) -> Reply<Json<Uploaded>> {
    let limit = accounts.config().upload_key_max_bytes;
    if parts.declared_bytes > limit {
        return Err(too_large(limit).into());
    }
    let mut received = 0;
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut note = Note { source: source(&request), ..Note::default() };
    let mut taken = Vec::new();
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(file) => {
                let file = take(&ingest, &mut parts, *file, limit - received).await?;
                figures.received(file.1);
                received += file.1;
                taken.push(file.0);
            }
            Part::Field { name, text } if name == "custom_metadata" => {
                let told = uploads::custom_metadata(&text)?;
                note.data = told.data;
                note.data_schema_id = told.data_schema_id;
            }
            Part::Field { .. } => {}
        }
    }
    let assets = ingest.keep(&caller, taken, note).await?;
    let ids = assets.iter().map(|asset| asset.id.to_string()).collect();
    accounts.note_handed_in(&caller, ids).await?;
    Ok(Json(Uploaded::new(&assets, &origin.0)))
}

/// A file and its size.
async fn take(ingest: &Ingest, parts: &mut Parts, mut file: FilePart, left: u64) -> Result<(Taken, u64)> {
    let mut intake = ingest.begin(&file.name, parts.announced_bytes()).await?;
    let mut received = 0;
    while let Some(chunk) = parts.chunk(&mut file).await? {
        received += chunk.len() as u64;
        if received > left {
            return Err(too_large(left));
        }
        intake.write(chunk).await?;
    }
    Ok((intake.finish().await?, received))
}

fn too_large(limit: u64) -> Error {
    Code::TooLarge.because(format!("At most {limit} bytes are taken in by an upload key."))
}

/// The page that handed in, for the record: what the browser says, else what the page says.
fn source(request: &HttpRequest) -> Option<String> {
    let said = |name| request.headers().get(name).and_then(|value| host_of(value.to_str().ok()?));
    let claimed = || {
        let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?.into_inner();
        let (_, host) = pairs.into_iter().find(|(name, host)| name == "picker_host" && !host.is_empty())?;
        Some(host.chars().take(255).collect())
    };
    said(header::ORIGIN).or_else(|| said(header::REFERER)).or_else(claimed)
}
