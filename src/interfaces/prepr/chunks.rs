//! Uploads in phases: `upload_phase` is `start`, `transfer` or `finish`.
//!
//! Clients repeat what they said before on every call, send an empty chunk when the size is a
//! multiple of the chunk, and the last chunk once more with the last word: what is not asked for is
//! not heard. Chunks may have any size. `start_offset`, or `Content-Range`, may say where a chunk begins.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::assets::AssetId;
use crate::catalogue::Catalogue;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Ingest;
use crate::ingest::Once;
use crate::ingest::Phased;
use crate::ingest::Turn;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::peer;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::interfaces::prepr::Config;
use crate::interfaces::prepr::assets::pending;
use crate::interfaces::prepr::assets::shown;
use crate::interfaces::prepr::input::Incoming;
use crate::interfaces::prepr::input::Said;
use crate::interfaces::prepr::reply::AssetUuid;
use crate::interfaces::prepr::reply::Origin;
use crate::wire::prepr::PreprAsset;
use crate::wire::prepr::PreprUpload;

/// A part of the file.
const CHUNK: &str = "file_chunk";

/// What is suggested to clients that ask.
const CHUNK_BYTES: u64 = 52_428_800;

const LABELS: [&str; 4] = ["Photo", "Video", "Audio", "Document"];

pub fn mount(r: &mut Routes) {
    r.post(
        "/assets/{id}/multipart",
        Permission::Scope(Scope::AssetsPublish),
        go_on,
        "Takes the next chunk of an announced file (`transfer`), or its end (`finish`)",
    )
    .takes(Body::Other(
        "multipart/form-data",
        "`upload_phase`, and with `transfer` the bytes as `file_chunk`; `original_name`; perhaps `start_offset`.",
    ))
    .answers(200, Body::json::<PreprUpload>())
    .answers(200, Body::json::<PreprAsset>())
    .refuses(&[
        Code::AssetNotFound,
        Code::InvalidRequest,
        Code::MissingParameter,
        Code::Conflict,
        Code::UploadIncomplete,
        Code::BodyTooSlow,
        Code::TooLarge,
        Code::StorageUnavailable,
        Code::DiskFull,
    ]);
}

/// Which phase a call is, if it says.
pub fn phase(said: &Said, query: &Pairs) -> Result<Option<String>> {
    let phase = said.text("upload_phase")?.or_else(|| query.get("upload_phase").map(str::to_owned));
    match phase.as_deref() {
        None | Some("") => Ok(None),
        Some("start" | "transfer" | "finish") => Ok(phase),
        Some(_) => Err(Code::InvalidRequest.because("upload_phase: `start`, `transfer` or `finish`")),
    }
}

/// Announces an upload.
pub async fn start(ingest: &Ingest, caller: &Caller, said: &Said, once: Option<Once>) -> Result<PreprUpload> {
    let size = said.number("file_size")?;
    let size = size.ok_or_else(|| Code::MissingParameter.because("file_size: how many bytes has the file?"))?;
    let label = said.text("label")?.filter(|label| LABELS.contains(&&**label));
    let name = said.text("original_name")?.filter(|name| !name.is_empty());
    let row = ingest.begin_phased(caller, size, name, label, said.draft()?, once).await?;
    Ok(upload(&row))
}

#[expect(clippy::too_many_arguments, reason = "what a handler takes")]
async fn go_on(
    caller: Caller,
    ingest: Data<Ingest>,
    catalogue: Data<Catalogue>,
    config: Data<Config>,
    figures: Data<Figures>,
    origin: Origin,
    request: HttpRequest,
    query: Pairs,
    id: AssetUuid,
    incoming: Incoming,
) -> Reply<HttpResponse> {
    let Some(turn) = ingest.turn(id.0).await? else {
        return over(&catalogue, &origin, id.0, incoming, &query).await;
    };
    let Received { turn, said, has_chunk, file_name } = receive(turn, &figures, incoming, &query).await?;
    let named = said.text("original_name")?.filter(|name| !name.is_empty());
    match phase(&said, &query)?.as_deref() {
        Some("finish") => {
            let asset = turn.finish(&caller, named, config.public).await?;
            Ok(HttpResponse::Ok().json(shown(&catalogue, &origin, asset.id).await?))
        }
        Some("transfer") | None if has_chunk => {
            let told = match said.number("start_offset")? {
                Some(at) => Some(at),
                None => begins_at(&request)?,
            };
            let mut kept = turn.settle(told, named.or(file_name)).await?;
            if !peer::has_left(&request) {
                kept.answered();
            }
            Ok(HttpResponse::Ok().json(upload(kept.row())))
        }
        Some("transfer") => {
            Err(Code::MissingParameter.because("file_chunk: send the bytes in multipart/form-data").into())
        }
        Some(_) => {
            Err(Code::InvalidRequest.because("This upload was started: transfer its chunks, then finish.").into())
        }
        None => Err(Code::MissingParameter.because("upload_phase: `transfer` or `finish`").into()),
    }
}

struct Received {
    turn: Turn,
    said: Said,
    has_chunk: bool,
    file_name: Option<String>,
}

/// Reads a body; a chunk goes to the disk, behind what counts.
async fn receive(mut turn: Turn, figures: &Figures, incoming: Incoming, query: &Pairs) -> Result<Received> {
    let mut parts = match incoming {
        Incoming::Fields(said) => return Ok(Received { turn, said, has_chunk: false, file_name: None }),
        Incoming::Parts(parts) => parts.files(&[CHUNK]),
    };
    let (mut said, mut has_chunk, mut file_name) = (Said::default(), false, None);
    while let Some(part) = turn.hear(parts.next()).await?? {
        match part {
            Part::Field { name, text } => said.put(&name, text)?,
            Part::File(_) if has_chunk => return Err(one_chunk()),
            Part::File(mut file) => {
                has_chunk = true;
                file_name = Some(file.name.clone());
                let heard = phase(&said, query)?.as_deref() != Some("finish");
                while let Some(bytes) = turn.hear(parts.chunk(&mut file)).await?? {
                    figures.received(bytes.len() as u64);
                    if heard {
                        turn.write(bytes).await?;
                    }
                }
            }
        }
    }
    Ok(Received { turn, said, has_chunk, file_name })
}

/// An upload that is whole already: its end may be said again by who did not hear the answer.
async fn over(
    catalogue: &Catalogue,
    origin: &Origin,
    id: AssetId,
    incoming: Incoming,
    query: &Pairs,
) -> Reply<HttpResponse> {
    let asset = shown(catalogue, origin, id).await?;
    let mut said = Said::default();
    match incoming {
        Incoming::Fields(fields) => said = fields,
        Incoming::Parts(parts) => {
            let mut parts = parts.files(&[CHUNK]);
            while let Some(part) = parts.next().await? {
                match part {
                    Part::Field { name, text } => said.put(&name, text)?,
                    Part::File(mut file) => while parts.chunk(&mut file).await?.is_some() {},
                }
            }
        }
    }
    if phase(&said, query)?.as_deref() == Some("finish") {
        return Ok(HttpResponse::Ok().json(asset));
    }
    Err(Code::InvalidRequest.because("This asset is whole: nothing can be added to it.").into())
}

pub(super) fn upload(row: &Phased) -> PreprUpload {
    PreprUpload::new(pending(row), row.offset_bytes, row.size_bytes, CHUNK_BYTES)
}

/// Where `Content-Range: bytes 5-9/10` says that a chunk begins.
fn begins_at(request: &HttpRequest) -> Result<Option<u64>> {
    let Some(range) = request.headers().get(header::CONTENT_RANGE) else { return Ok(None) };
    let begin =
        range.to_str().ok().and_then(|text| text.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    begin.map(Some).ok_or_else(|| Code::InvalidRequest.because("Content-Range has to be `bytes 5-9/10`."))
}

fn one_chunk() -> Error {
    Code::InvalidRequest.because("This call takes one file_chunk.")
}
