//! Multipart upload.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::web::Json;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::Assets;
use crate::error::Code;
use crate::error::Result;
use crate::ingest::Answered;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::Origin;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::BodyPrint;
use crate::interfaces::http::once::Call;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::auth::host_of;
use crate::wire::filespin::AssetData;
use crate::wire::filespin::CustomMetadata;
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
    let parts = parts.at_most(ingest.config().max_parts);
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once,
        Begun::Made(before) => return Ok(again(&before, &call, parts, &assets, &origin.0).await?),
    };
    let begin = async |name: &str, bytes| ingest.begin(name, bytes).await;
    let Brought { taken, note, print } = receive(parts, &figures, usize::MAX, begin).await?;
    let once = once.map(|once| once.of(call.print(&print)));
    let note = Note { source: source(&request), once: once.clone(), ..note };
    let kept = ingest.keep(&caller, taken, note).await?;
    let same = ingest.duplicates(&caller, &kept).await;
    Ok(once::first(&ingest, once, &Uploaded::new(&kept, &origin.0).noting(&same)).await?)
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
    let parts = parts.at_most(ingest.config().max_parts);
    let begin = async |name: &str, bytes| ingest.begin_replacing(id.0, name, bytes).await;
    let Brought { taken, note, .. } = receive(parts, &figures, 1, begin).await?;
    let note = Note { source: source(&request), ..note };
    let asset = ingest.replace(&caller, one(taken)?, note).await?;
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
    let parts = parts.at_most(ingest.config().max_parts);
    let begin = async |name: &str, bytes| ingest.begin_handing_in(id.0, key, name, bytes).await;
    let taken = receive(parts, &figures, 1, begin).await?.taken;
    let full = ingest.hand_in(&caller, one(taken)?).await?;
    Ok(Json(AssetData::from(&full)))
}

/// What a form brought.
pub(super) struct Brought {
    pub(super) taken: Vec<Taken>,
    /// What it says of its files.
    pub(super) note: Note,
    /// Of the whole form.
    pub(super) print: String,
}

/// Reads a form of at most so many files.
pub(super) async fn receive(
    mut parts: Parts,
    figures: &Figures,
    most_files: usize,
    begin: impl AsyncFn(&str, u64) -> Result<Intake>,
) -> Result<Brought> {
    let (mut taken, mut note, mut print) = (Vec::new(), Note::default(), BodyPrint::default());
    while let Some(part) = parts.next().await? {
        match part {
            Part::File(_) if taken.len() == most_files => {
                return Err(Code::InvalidRequest.because("This call takes one file."));
            }
            Part::File(file) => {
                let name = file.name.clone();
                let intake = begin(&name, parts.announced_bytes()).await?;
                let file = parts.pour(file, intake, figures).await?;
                print.file(&name, &file.checksums.sha256_hex());
                taken.push(file);
            }
            Part::Field { name, text } if name == CustomMetadata::NAME => {
                let told = CustomMetadata::parse(&text)?;
                (note.data, note.data_schema_id) = (told.data, told.data_schema_id);
                print.field(&name, &text);
            }
            Part::Field { .. } => {}
        }
    }
    Ok(Brought { taken, note, print: print.end() })
}

/// An upload that was made before, answered as it was then.
pub(super) async fn again(
    before: &Answered,
    call: &Call,
    parts: Parts,
    assets: &Assets,
    origin: &str,
) -> Result<HttpResponse> {
    let print = BodyPrint::default().read(parts, |field| field == CustomMetadata::NAME).await?;
    before.fits(&call.print(&print))?;
    if let Some(answer) = once::noted(before) {
        return Ok(answer);
    }
    let mut kept = Vec::new();
    for id in &before.assets {
        kept.push(assets.find(*id).await?.asset);
    }
    Ok(once::made_up(&Uploaded::new(&kept, origin)))
}

fn one(taken: Vec<Taken>) -> Result<Taken> {
    taken.into_iter().next().ok_or_else(|| Code::NoFile.because("The upload holds no file: send a file part."))
}

/// The page that uploaded, for the record.
fn source(request: &HttpRequest) -> Option<String> {
    host_of(request.headers().get(header::ORIGIN)?.to_str().ok()?)
}
