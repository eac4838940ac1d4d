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
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::after_keeping;
use crate::interfaces::filespin::uploads;
use crate::interfaces::filespin::uploads::Brought;
use crate::interfaces::http::extract::Origin;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::observe::PICKER;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::Call;
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
        return Err(Code::TooLarge.because(format!("At most {limit} bytes are taken in by an upload key.")).into());
    }
    let mut parts = parts.at_most(ingest.config().max_parts);
    parts.files_at_most(limit);
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once,
        Begun::Made(before) => return Ok(uploads::again(&before, &call, parts, &assets, &origin.0).await?),
    };
    let begin = async |name: &str, bytes| ingest.begin(name, bytes).await;
    let Brought { taken, note, print } = uploads::receive(parts, &figures, usize::MAX, begin).await?;
    let once = once.map(|once| once.of(call.print(&print)));
    let note = Note { source: source(&request), once: once.clone(), ..note };
    let kept = ingest.keep(&caller, taken, note).await?;
    let ids = kept.iter().map(|asset| asset.id.to_string()).collect();
    after_keeping(accounts.note_handed_in(&caller, ids).await);
    Ok(once::first(&ingest, once, &Uploaded::new(&kept, &origin.0)).await?)
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
