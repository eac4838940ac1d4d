//! Uploads in pieces: the tus protocol, version 1.0.0, at `/files`.
//!
//! Core, and the extensions creation, creation-with-upload, creation-defer-length, expiration,
//! checksum, termination and concatenation. Version and method override are settled in
//! `http::observe`, with what browsers ask; this translates headers, and calls `ingest::resumable`.
//!
//! Ours is: the asset that an upload has become is named in `Cloakroom-Asset-Id`, and as `asset_id`
//! in `Upload-Metadata`, in the answer to the last piece and whenever the upload is asked about
//! afterwards; a creation with an `Idempotency-Key` finds its upload again; `GET` tells as JSON what
//! `HEAD` tells; refusals are FileSpin's.

use std::time::Duration;
use std::time::SystemTime;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpResponseBuilder;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Payload;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::ingest::Answered;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::resumable::Beginning;
use crate::ingest::resumable::Claim;
use crate::ingest::resumable::Kind;
use crate::ingest::resumable::Piece;
use crate::ingest::resumable::Receiving;
use crate::ingest::resumable::Resumable;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::caller;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::observe::RESUMABLE;
use crate::interfaces::http::observe::TUS_VERSION;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::Call;
use crate::interfaces::http::pace::Pace;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::auth::host_of;
use crate::wire::filespin::CustomMetadata;

const ONE: &str = "/files/{id}";

const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation";

/// The type of a piece.
const PIECE: &str = "application/offset+octet-stream";

const ASSET_ID: &str = "Cloakroom-Asset-Id";

/// What a file is called by its sender; clients disagree.
const NAMES: [&str; 2] = ["filename", "name"];

/// What its sender takes it for. It is not believed: what a file is shows by its bytes.
const TYPES: [&str; 2] = ["filetype", "type"];

/// What stays as it is in the query of an address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An upload, as `GET` tells it.
#[derive(Serialize, JsonSchema)]
struct Told {
    id: String,
    /// How many bytes are on the disk.
    offset: u64,
    /// How many there are going to be; absent until the sender has said.
    length: Option<u64>,
    /// What its sender calls the file.
    name: String,
    /// The asset that it has become.
    asset_id: Option<String>,
    expires_at: String,
}

pub fn mount(r: &mut Routes) {
    const TAKING: [Code; 10] = [
        Code::InvalidRequest,
        Code::EmptyFile,
        Code::UploadInterrupted,
        Code::TusVersion,
        Code::TooLarge,
        Code::UnsupportedMedia,
        Code::UploadLocked,
        Code::ChecksumMismatch,
        Code::StorageUnavailable,
        Code::DiskFull,
    ];
    const OF_ONE: [Code; 3] = [Code::UploadNotFound, Code::UploadGone, Code::UploadLocked];
    let nothing = Body::Other("text/plain", "Nothing; what is said is in the headers.");
    let piece = Body::Other(PIECE, "The next bytes of the file.");
    for path in [RESUMABLE, ONE] {
        r.options(path, Permission::Anyone, options, "What of tus is spoken here").answers(204, nothing);
    }
    r.post(RESUMABLE, Permission::CreateAssetOrHandIn, create, "Begins an upload in pieces (tus), or joins parts")
        .may_take(piece)
        .headers(once::HEADERS)
        .answers(201, nothing)
        .refuses(once::REFUSALS)
        .refuses(&TAKING)
        .refuses(&[Code::DataTooLarge, Code::UploadNotFound, Code::UploadGone]);
    r.get(ONE, Permission::ResumeUpload, look, "How much of an upload in pieces is there")
        .answers(200, Body::json::<Told>())
        .refuses(&OF_ONE)
        .refuses(&[Code::TusVersion, Code::StorageUnavailable, Code::DiskFull]);
    r.patch(ONE, Permission::ResumeUpload, patch, "Takes the next piece of an upload")
        .may_take(piece)
        .answers(204, nothing)
        .refuses(&TAKING)
        .refuses(&[Code::UploadNotFound, Code::UploadGone, Code::OffsetMismatch]);
    r.delete(ONE, Permission::ResumeUpload, terminate, "Gives an upload up; an asset that it has become stays")
        .answers(204, nothing)
        .refuses(&OF_ONE)
        .refuses(&[Code::TusVersion]);
}

async fn options(ingest: Data<Ingest>, request: HttpRequest) -> HttpResponse {
    let one = request.match_info().get("id").is_some();
    let allow = if one { "GET, HEAD, PATCH, DELETE, OPTIONS" } else { "POST, OPTIONS" };
    HttpResponse::NoContent()
        .insert_header(("Tus-Version", TUS_VERSION))
        .insert_header(("Tus-Extension", EXTENSIONS))
        .insert_header(("Tus-Max-Size", ingest.config().max_file_bytes.to_string()))
        .insert_header(("Tus-Checksum-Algorithm", Claim::WORDS.join(",")))
        .insert_header((header::ALLOW, allow))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

#[expect(clippy::too_many_arguments, reason = "what actix gives a handler")]
async fn create(
    caller: Caller,
    accounts: Data<Accounts>,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    origin: Origin,
    call: Call,
    request: HttpRequest,
    body: Payload,
) -> Reply<HttpResponse> {
    speaks_tus(&request)?;
    let is_page = matches!(caller, Caller::UploadKey { .. });
    let most_bytes = is_page.then(|| accounts.config().upload_key_max_bytes);
    // Everybody who reads the page has the same key: what one has begun must not be another's.
    let call = if is_page { Call::without_key() } else { call };
    // What is handed in is noted with the asset; what was long ago is forgotten here.
    accounts.note_handed_in(&caller, Vec::new()).await?;
    let beginning = beginning(&request, most_bytes)?;
    let (concat, piece) = (concat(&request)?, first_piece(&request, &call)?);
    let print = call.print_of(&said(&request)?)?;
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once.map(|once| once.of(print)),
        Begun::Made(before) => {
            before.fits(&print)?;
            let upload = begun_before(&caller, &ingest, &request, &before, body).await?;
            return Ok(once::replayed(created(&origin, &request, &upload)));
        }
    };
    let beginning = Beginning { once, ..beginning };
    let upload = match concat {
        Concat::Final(parts, said) => {
            if beginning.length_bytes.is_some() || piece.is_some() {
                return Err(Code::InvalidRequest
                    .because("A final upload has neither a length nor bytes of its own.")
                    .into());
            }
            ingest.join(&caller, beginning, parts, said).await?
        }
        concat => {
            length_is_clear(&request)?;
            let is_part = matches!(concat, Concat::Partial);
            let upload = ingest.begin_resumable(&caller, Beginning { is_part, ..beginning }).await?;
            match piece {
                None => upload,
                Some(piece) => receive(&caller, &ingest, &figures, &request, upload.id, piece, body).await?,
            }
        }
    };
    Ok(created(&origin, &request, &upload))
}

/// What an earlier call has begun. Its sender goes on from the offset that is told; bytes that come with
/// this call are read and not kept, because who is still sending may not hear an answer.
async fn begun_before(
    caller: &Caller,
    ingest: &Ingest,
    request: &HttpRequest,
    before: &Answered,
    mut body: Payload,
) -> Result<Resumable> {
    let mut watch = pace(request).watch();
    while let Ok(Some(Ok(chunk))) = watch.next(body.next()).await {
        watch.came(chunk.len());
    }
    let begun = *before.assets.first().ok_or(Code::UploadNotFound)?;
    ingest.resumable_at_rest(caller, begun).await.map_err(|e| match e.code {
        Code::UploadGone => {
            e.code.because("This upload expired or was given up; begin anew with another Idempotency-Key.")
        }
        _ => e,
    })
}

fn created(origin: &Origin, request: &HttpRequest, upload: &Resumable) -> HttpResponse {
    let mut location = format!("{}{RESUMABLE}/{}", origin.0, upload.id);
    if request.query_string().contains(caller::UPLOAD_KEY)
        && let Some(key) = caller::upload_key(request)
    {
        // Who names the key in the address they were given goes on with the one they are given.
        let key = utf8_percent_encode(&key, PLAIN);
        location = format!("{location}?{}={key}", caller::UPLOAD_KEY);
    }
    let mut answer = HttpResponse::Created();
    answer.insert_header((header::LOCATION, location));
    tell(&mut answer, upload);
    answer.finish()
}

async fn look(caller: Caller, ingest: Data<Ingest>, request: HttpRequest) -> Reply<HttpResponse> {
    if *request.method() == Method::HEAD {
        speaks_tus(&request)?;
    }
    let id = named(&request)?;
    // Who asks by HEAD wants to go on; who only looks disturbs nobody.
    let upload = match *request.method() {
        Method::HEAD => ingest.resumable_at_rest(&caller, id).await?,
        _ => ingest.resumable(&caller, id).await?,
    };
    let mut answer = HttpResponse::Ok();
    tell(&mut answer, &upload);
    match upload.length_bytes {
        Some(length) => answer.insert_header(("Upload-Length", length.to_string())),
        None => answer.insert_header(("Upload-Defer-Length", "1")),
    };
    let metadata = metadata(&upload);
    if !metadata.is_empty() {
        answer.insert_header(("Upload-Metadata", metadata));
    }
    match upload.kind {
        Kind::Whole => {}
        Kind::Part => drop(answer.insert_header(("Upload-Concat", "partial"))),
        Kind::Joined => drop(answer.insert_header(("Upload-Concat", upload.parts_said.clone()))),
    }
    Ok(answer.json(Told {
        id: upload.id.to_string(),
        offset: upload.offset_bytes,
        length: upload.length_bytes,
        asset_id: upload.asset().map(|id| id.to_string()),
        expires_at: upload.expires_at.iso(),
        name: upload.name,
    }))
}

async fn patch(
    caller: Caller,
    ingest: Data<Ingest>,
    figures: Data<Figures>,
    request: HttpRequest,
    body: Payload,
) -> Reply<HttpResponse> {
    speaks_tus(&request)?;
    let id = named(&request)?;
    if !is_piece(&request) {
        return Err(Code::UnsupportedMedia.because(format!("A piece is sent as Content-Type: {PIECE}.")).into());
    }
    let offset_bytes = bytes(&request, "upload-offset")?
        .ok_or_else(|| Code::InvalidRequest.because("Upload-Offset has to say where the piece begins."))?;
    let piece = Piece { offset_bytes, length_bytes: bytes(&request, "upload-length")?, ..any_piece(&request)? };
    let upload = receive(&caller, &ingest, &figures, &request, id, piece, body).await?;
    let mut answer = HttpResponse::NoContent();
    tell(&mut answer, &upload);
    if upload.asset().is_some() {
        answer.insert_header(("Upload-Metadata", metadata(&upload)));
    }
    Ok(answer.finish())
}

async fn terminate(caller: Caller, ingest: Data<Ingest>, request: HttpRequest) -> Reply<HttpResponse> {
    speaks_tus(&request)?;
    ingest.terminate(&caller, named(&request)?).await?;
    Ok(HttpResponse::new(StatusCode::NO_CONTENT))
}

/// Hands the body over as it comes. What came of one that ends early is kept.
async fn receive(
    caller: &Caller,
    ingest: &Ingest,
    figures: &Figures,
    request: &HttpRequest,
    id: AssetId,
    piece: Piece,
    mut body: Payload,
) -> Result<Resumable> {
    let (declared, is_first) = (piece.declared_bytes, piece.is_first);
    let mut came = 0;
    let mut receiving: Receiving = ingest.receive(caller, id, piece).await?;
    let mut watch = pace(request).watch();
    loop {
        let chunk = tokio::select! {
            chunk = watch.next(body.next()) => chunk,
            () = receiving.refuses() => return receiving.finish().await,
        };
        match chunk {
            Ok(Some(Ok(chunk))) => {
                watch.came(chunk.len());
                came += chunk.len() as u64;
                figures.received(chunk.len() as u64);
                if !receiving.write(chunk).await {
                    return receiving.finish().await;
                }
            }
            Ok(None) if declared.is_none_or(|bytes| bytes == came) => return receiving.finish().await,
            // Clients take 4xx for the end of the upload, and go on after a 503.
            broken => {
                receiving.break_off().await;
                let why = if broken.is_ok() { "ended early" } else { "came too slowly or stopped coming" };
                let next = if is_first { "Nothing was kept: begin anew." } else { "Ask for the offset and go on." };
                return Err(Code::UploadInterrupted.because(format!("The piece {why}. {next}")));
            }
        }
    }
}

fn pace(request: &HttpRequest) -> Pace {
    request.app_data::<Data<Pace>>().map(|pace| pace.as_ref().clone()).unwrap_or_default()
}

/// What every answer about an upload says.
fn tell(answer: &mut HttpResponseBuilder, upload: &Resumable) {
    answer
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("Upload-Offset", upload.offset_bytes.to_string()));
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(upload.expires_at.unix_seconds().unsigned_abs());
    answer.insert_header(("Upload-Expires", httpdate::fmt_http_date(expires)));
    if let Some(asset) = upload.asset() {
        answer.insert_header((ASSET_ID, asset.to_string()));
    }
}

/// What the sender said, and the asset.
fn metadata(upload: &Resumable) -> String {
    let is_ours = |pair: &&str| pair.trim().split(' ').next() != Some("asset_id");
    let mut pairs: Vec<String> =
        upload.said.split(',').filter(is_ours).map(str::to_owned).filter(|pair| !pair.is_empty()).collect();
    if let Some(asset) = upload.asset() {
        pairs.push(format!("asset_id {}", BASE64_STANDARD.encode(asset.to_string())));
    }
    pairs.join(",")
}

fn speaks_tus(request: &HttpRequest) -> Result<()> {
    match text(request, "tus-resumable")? {
        Some(TUS_VERSION) => Ok(()),
        Some(other) => Err(Code::TusVersion.because(format!("tus {TUS_VERSION} is spoken here, and not `{other}`."))),
        None => Err(Code::TusVersion.because(format!("The request has to say Tus-Resumable: {TUS_VERSION}."))),
    }
}

/// The `{id}` of the path. Anything else cannot be an upload.
fn named(request: &HttpRequest) -> Result<AssetId> {
    let id = request.match_info().get("id").unwrap_or_default();
    id.parse().map_err(|()| Code::UploadNotFound.because("No upload has this address."))
}

fn beginning(request: &HttpRequest, most_bytes: Option<u64>) -> Result<Beginning> {
    let said = text(request, "upload-metadata")?.unwrap_or_default().trim().to_owned();
    let (name, mut note) = read_metadata(&said)?;
    note.source = text(request, "origin")?.and_then(host_of);
    let length_bytes = bytes(request, "upload-length")?;
    Ok(Beginning { name, note, said, length_bytes, most_bytes, ..Beginning::default() })
}

/// Either the length is said, or that it will be said later.
fn length_is_clear(request: &HttpRequest) -> Result<()> {
    let is_deferred = match text(request, "upload-defer-length")? {
        None => false,
        Some("1") => true,
        Some(other) => {
            return Err(Code::InvalidRequest.because(format!("Upload-Defer-Length can only be 1, and not `{other}`.")));
        }
    };
    let is_said = request.headers().contains_key("upload-length");
    if is_said == is_deferred {
        return Err(Code::InvalidRequest.because("Say either Upload-Length or Upload-Defer-Length: 1."));
    }
    Ok(())
}

enum Concat {
    No,
    Partial,
    Final(Vec<AssetId>, String),
}

fn concat(request: &HttpRequest) -> Result<Concat> {
    let unclear =
        || Code::InvalidRequest.because("Upload-Concat is `partial`, or `final;` and the addresses of parts.");
    let Some(said) = text(request, "upload-concat")? else { return Ok(Concat::No) };
    match said.split_once(';') {
        None if said == "partial" => Ok(Concat::Partial),
        Some(("final", parts)) => {
            let parts: Option<Vec<_>> = parts.split_whitespace().map(part).collect();
            Ok(Concat::Final(parts.ok_or_else(unclear)?, said.to_owned()))
        }
        _ => Err(unclear()),
    }
}

/// The upload at an address, absolute or not.
fn part(address: &str) -> Option<AssetId> {
    let path = address.split(['?', '#']).next()?;
    let (before, id) = path.rsplit_once('/')?;
    if before.ends_with(RESUMABLE) { id.parse().ok() } else { None }
}

/// What a request that begins an upload says of it.
fn said(request: &HttpRequest) -> Result<[Option<&str>; 4]> {
    Ok([
        text(request, "upload-length")?,
        text(request, "upload-defer-length")?,
        text(request, "upload-concat")?,
        text(request, "upload-metadata")?,
    ])
}

/// What of a request that begins an upload is its first piece already. Who may send the request again
/// finds the upload by its key, with what was kept of it.
fn first_piece(request: &HttpRequest, call: &Call) -> Result<Option<Piece>> {
    let has_body = request.headers().contains_key(header::TRANSFER_ENCODING)
        || bytes(request, "content-length")?.is_some_and(|bytes| bytes > 0);
    if !has_body {
        return Ok(None);
    }
    if !is_piece(request) {
        return Err(Code::UnsupportedMedia.because(format!("A first piece is sent as Content-Type: {PIECE}.")));
    }
    Ok(Some(Piece { is_first: !call.has_key(), ..any_piece(request)? }))
}

fn any_piece(request: &HttpRequest) -> Result<Piece> {
    let claim = text(request, "upload-checksum")?.map(claim).transpose()?;
    Ok(Piece { declared_bytes: bytes(request, "content-length")?, claim, ..Piece::default() })
}

fn is_piece(request: &HttpRequest) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PIECE)
}

fn claim(said: &str) -> Result<Claim> {
    let (word, digest) = said.split_once(' ').unwrap_or((said, ""));
    if !Claim::WORDS.contains(&word) {
        return Err(Code::InvalidRequest.because(format!("Upload-Checksum knows {}.", Claim::WORDS.join(", "))));
    }
    let digest = BASE64_STANDARD.decode(digest.trim()).ok();
    digest.and_then(|digest| Claim::of(word, &digest)).ok_or_else(|| {
        Code::InvalidRequest.because(format!("Upload-Checksum has to be `{word}` and its digest in Base64."))
    })
}

/// `key value,key value`, the values in Base64: the file's name, and what is known about it.
fn read_metadata(said: &str) -> Result<(String, Note)> {
    let unclear = |why: &str| Code::InvalidRequest.because(format!("Upload-Metadata: {why}."));
    let mut known: Map<String, Value> = Map::new();
    for pair in said.split(',').filter(|_| !said.is_empty()) {
        let pair = pair.trim();
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unclear("a key is not empty and has only ASCII characters"));
        }
        let value =
            BASE64_STANDARD.decode(value).map_err(|_| unclear(&format!("the value of `{key}` is not Base64")))?;
        let value = String::from_utf8(value).map_err(|_| unclear(&format!("the value of `{key}` is not UTF-8")))?;
        if known.insert(key.to_owned(), Value::String(value)).is_some() {
            return Err(unclear(&format!("`{key}` is there twice")));
        }
    }
    let mut take = |key: &str| match known.remove(key) {
        Some(Value::String(value)) => Some(value),
        _ => None,
    };
    let names = NAMES.map(&mut take);
    for kind in TYPES {
        take(kind);
    }
    take("asset_id");
    let custom = take(CustomMetadata::NAME).map(|text| CustomMetadata::parse(&text)).transpose()?.unwrap_or_default();
    let schema = match take("data_schema_id") {
        Some(number) => number.parse().map_err(|_| unclear("`data_schema_id` is not a whole number"))?,
        None => custom.data_schema_id,
    };
    // What Uppy says of every file that lies in no folder.
    if known.get("relativePath").is_some_and(|path| path == "null" || path == "") {
        known.remove("relativePath");
    }
    known.extend(custom.data);
    let name = names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or_default();
    Ok((name, Note { data: known, data_schema_id: schema, ..Note::default() }))
}

/// A number of bytes, or a sentence about why not.
fn bytes(request: &HttpRequest, name: &'static str) -> Result<Option<u64>> {
    text(request, name)?
        .map(|text| {
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number: Option<i64> = text.parse().ok().filter(|_| is_number);
            number.map(i64::unsigned_abs).ok_or_else(|| wrong(name, "is not a number of bytes"))
        })
        .transpose()
}

fn text<'r>(request: &'r HttpRequest, name: &'static str) -> Result<Option<&'r str>> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong(name, "is there twice"));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| wrong(name, "has characters that are not ASCII"))
}

fn wrong(name: &str, what: &str) -> Error {
    Code::InvalidRequest.because(format!("The header {name} {what}."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(pairs: &[(&str, &str)]) -> String {
        let pair = |(key, value): &(&str, &str)| format!("{key} {}", BASE64_STANDARD.encode(value));
        pairs.iter().map(pair).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn metadata_becomes_name_and_data() {
        let custom = r#"{"data": {"a": 1}, "data_schema_id": 7}"#;
        for (said, name, data, schema) in [
            (String::new(), "", json!({}), 0),
            (encoded(&[("filename", "a.jpg"), ("filetype", "image/jpeg")]), "a.jpg", json!({}), 0),
            (encoded(&[("name", "b.jpg"), ("type", "image/png")]), "b.jpg", json!({}), 0),
            (encoded(&[("name", "b.jpg"), ("filename", "a.jpg")]), "a.jpg", json!({}), 0),
            (
                encoded(&[("name", "c"), ("booth", "Zoë's"), ("relativePath", "null")]),
                "c",
                json!({"booth": "Zoë's"}),
                0,
            ),
            (encoded(&[("custom_metadata", custom), ("b", "x")]), "", json!({"a": 1, "b": "x"}), 7),
            (encoded(&[("custom_metadata", custom), ("data_schema_id", "9")]), "", json!({"a": 1}), 9),
            ("is_confidential,name Zg==".to_owned(), "f", json!({"is_confidential": ""}), 0),
        ] {
            let (named, note) = read_metadata(&said).unwrap();
            assert_eq!((&*named, Value::Object(note.data), note.data_schema_id), (name, data, schema), "{said}");
        }
    }

    #[test]
    fn metadata_that_is_none() {
        for said in [",", "a YQ==,", " ", "ä YQ==", "a !", "a YQ", "a YQ==,a YQ==", "a YQ== YQ==", "name /w=="] {
            assert!(read_metadata(said).is_err(), "{said:?}");
        }
        for (key, value) in [("custom_metadata", "{"), ("custom_metadata", "7"), ("data_schema_id", "x")] {
            assert!(read_metadata(&encoded(&[(key, value)])).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn checksums_as_they_are_said() {
        assert!(claim("sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=").is_ok());
        assert!(claim("md5 kAFQmDzST7DWlj99KOF/cg==").is_ok());
        for wrong in ["", "sha1", "sha1 ", "sha1 !", "sha1 kAFQmDzST7DWlj99KOF/cg==", "crc32 AAAA", "SHA1 qZk+"] {
            assert!(claim(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_parts() {
        let id = "0123456789abcdef0123456789abcdef";
        for right in ["/files/", "https://box:8443/files/", "http://box/behind/files/"] {
            assert!(part(&format!("{right}{id}")).is_some() && part(&format!("{right}{id}?upload_key=x")).is_some());
        }
        for wrong in [id, "/files/", "/other/0123456789abcdef0123456789abcdef", "/files/../../etc/passwd", ""] {
            assert!(part(wrong).is_none(), "{wrong}");
        }
    }
}
