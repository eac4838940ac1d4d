//! Where the file picker hands in: pages of others, with an upload key.
//!
//! The table has checked key, page and pace before any of the body is read. What comes in is
//! noted with its key, so that the page may describe it afterwards; it can read nothing.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Query;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::Assets;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::interfaces::filespin::once;
use crate::interfaces::filespin::once::Begun;
use crate::interfaces::filespin::once::BodyPrint;
use crate::interfaces::filespin::once::CUSTOM_METADATA;
use crate::interfaces::filespin::once::Call;
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
        .headers(once::HEADERS)
        .answers(200, Body::json::<Uploaded>())
        .refuses(once::REFUSALS)
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

#[expect(clippy::too_many_arguments, reason = "actix hands in one by one what a request holds")]
async fn upload(
    caller: Caller,
    accounts: Data<Accounts>,
    ingest: Data<Ingest>,
    assets: Data<Assets>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    call: Call,
    parts: Parts,
) -> Reply<HttpResponse> {
    let limit = accounts.config().upload_key_max_bytes;
    if parts.declared_bytes > limit {
        return Err(too_large(limit).into());
    }
    let mut received = 0;
    let mut parts = parts.at_most(ingest.config().max_parts);
    let mut body = BodyPrint::default();
    let once = match call.begin(&ingest, &caller).await? {
        Begun::Made(before) => {
            before.fits(&call.print(&body.read(&mut parts).await?))?;
            return Ok(uploads::again(&before, &assets, &origin.0).await?);
        }
        Begun::New(once) => once,
    };
    let mut note = Note { source: source(&request), ..Note::default() };
    let mut taken = Vec::new();
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(file) => {
                let name = file.name.clone();
                let file = take(&ingest, &mut parts, *file, limit - received).await?;
                body.file(&name, &file.0.checksums.sha256_hex());
                figures.received(file.1);
                received += file.1;
                taken.push(file.0);
            }
            Part::Field { name, text } if name == CUSTOM_METADATA => {
                let told = uploads::custom_metadata(&text)?;
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
    let ids = kept.iter().map(|asset| asset.id.to_string()).collect();
    accounts.note_handed_in(&caller, ids).await?;
    Ok(once::first(&ingest, once, &Uploaded::new(&kept, &origin.0)).await?)
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
