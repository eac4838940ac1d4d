//! Assets: taken in whole or announced, shown, described, deleted.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::assets::AssetId;
use crate::assets::ORIGINAL;
use crate::catalogue::Catalogue;
use crate::catalogue::Entry;
use crate::custody::Custody;
use crate::error::Code;
use crate::error::Result;
use crate::ingest::Answered;
use crate::ingest::Arrival;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Phased;
use crate::ingest::Taken;
use crate::ingest::after_keeping;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::BodyPrint;
use crate::interfaces::http::once::Call;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::interfaces::prepr::Config;
use crate::interfaces::prepr::chunks;
use crate::interfaces::prepr::input::Incoming;
use crate::interfaces::prepr::input::Said;
use crate::interfaces::prepr::reply::AssetUuid;
use crate::interfaces::prepr::reply::Origin;
use crate::wire::prepr::Fields;
use crate::wire::prepr::Pending;
use crate::wire::prepr::PreprAsset;

/// The file of a direct upload.
const SOURCE: &str = "source";

pub(super) const FIELDS: (&str, &str) = ("fields", "`tags` and `collections`: shown, too");

/// What a body about an asset may be.
pub(super) const DESCRIPTION: Body = Body::Other(
    "multipart/form-data",
    "`name`, `body`, `author`, `reference_id`, `tags[items][0][body]`, `collections[items][0][id]`; also as JSON or as a form.",
);

pub fn mount(r: &mut Routes) {
    r.post(
        "/assets",
        Permission::Scope(Scope::AssetsPublish),
        create,
        "Takes a file in, or with `upload_phase=start` announces one",
    )
    .takes(Body::Other(
        "multipart/form-data",
        "The file as `source`, or `upload_phase=start` and `file_size`; and `name`, `body`, `author`, `reference_id`, \
         `tags[items][0][body]`, `collections[items][0][id]`. Without a file also as JSON or as a form.",
    ))
    .headers(once::HEADERS)
    .answers(201, Body::json::<PreprAsset>())
    .refuses(once::REFUSALS)
    .refuses(&[
        Code::NoFile,
        Code::EmptyFile,
        Code::UploadIncomplete,
        Code::InvalidRequest,
        Code::MissingParameter,
        Code::BodyTooSlow,
        Code::TooLarge,
        Code::StorageUnavailable,
        Code::DiskFull,
    ]);
    r.get("/assets/{id}", Permission::Scope(Scope::Assets), find, "An asset")
        .query([FIELDS])
        .answers(200, Body::json::<PreprAsset>())
        .refuses(&[Code::AssetNotFound]);
    r.put("/assets/{id}", Permission::Scope(Scope::AssetsPublish), update, "Changes what is said about an asset")
        .query([FIELDS])
        .takes(DESCRIPTION)
        .answers(200, Body::json::<PreprAsset>())
        .refuses(&[Code::AssetNotFound, Code::AssetArchived, Code::InvalidRequest]);
    r.delete("/assets/{id}", Permission::Scope(Scope::AssetsDelete), delete, "Moves an asset to the trash")
        .answers(204, Body::Other("application/json", "Nothing."))
        .refuses(&[Code::AssetNotFound, Code::AssetArchived]);
}

#[expect(clippy::too_many_arguments, reason = "what a handler takes")]
async fn create(
    caller: Caller,
    ingest: Data<Ingest>,
    catalogue: Data<Catalogue>,
    config: Data<Config>,
    figures: Data<Figures>,
    origin: Origin,
    query: Pairs,
    call: Call,
    incoming: Incoming,
) -> Reply<HttpResponse> {
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once,
        Begun::Made(before) => {
            before.fits(&call.print(&print_of(incoming).await?))?;
            return Ok(created(again(&before, &ingest, &catalogue, &origin).await?));
        }
    };
    let Brought { said, taken, print } = receive(&ingest, &figures, incoming).await?;
    let once = once.map(|once| once.of(call.print(&print)));
    if chunks::phase(&said, &query)?.as_deref() == Some("start") {
        let begun = chunks::start(&ingest, &caller, &said, once.clone()).await?;
        return Ok(created(once::first(&ingest, once, &begun).await?));
    }
    let draft = said.draft()?;
    draft.check()?;
    let taken = taken.ok_or_else(|| {
        Code::NoFile.because("Send a file as `source` in multipart/form-data, or upload_phase=start and file_size.")
    })?;
    let arrival = Arrival { draft, phased: false, public: config.public };
    let note = Note { arrival: Some(arrival), once: once.clone(), ..Note::default() };
    let kept = ingest.keep(&caller, vec![taken], note).await?;
    let asset = kept.into_iter().next().ok_or(Code::Internal)?;
    let known = after_keeping(catalogue.find(asset.id).await.map(Some));
    let entry = known.unwrap_or_else(|| Entry::bare(asset));
    Ok(created(once::first(&ingest, once, &PreprAsset::with(&entry, &origin.0, fields(&query))).await?))
}

/// What a body brought.
struct Brought {
    said: Said,
    taken: Option<Taken>,
    print: String,
}

/// The fields of a body and the file in it.
async fn receive(ingest: &Ingest, figures: &Figures, incoming: Incoming) -> Result<Brought> {
    let mut parts = match incoming {
        Incoming::Fields(said) => return Ok(Brought { print: said.print(), said, taken: None }),
        Incoming::Parts(parts) => parts.files(&[SOURCE]),
    };
    let (mut said, mut taken, mut print) = (Said::default(), None, BodyPrint::default());
    while let Some(part) = parts.next().await? {
        match part {
            Part::Field { name, text } => {
                print.field(&name, &text);
                said.put(&name, text)?;
            }
            Part::File(_) if taken.is_some() => return Err(Code::InvalidRequest.because("This call takes one file.")),
            Part::File(file) => {
                let name = file.name.clone();
                let intake = ingest.begin(&name, parts.announced_bytes()).await?;
                let file = parts.pour(file, intake, figures).await?;
                print.file(&name, &file.checksums.sha256_hex());
                taken = Some(file);
            }
        }
    }
    Ok(Brought { said, taken, print: print.end() })
}

/// What a body holds that nobody keeps.
async fn print_of(incoming: Incoming) -> Result<String> {
    match incoming {
        Incoming::Fields(said) => Ok(said.print()),
        Incoming::Parts(parts) => BodyPrint::default().read(parts.files(&[SOURCE]), |_| true).await,
    }
}

/// A call that was made before, answered as it was then.
async fn again(before: &Answered, ingest: &Ingest, catalogue: &Catalogue, origin: &Origin) -> Result<HttpResponse> {
    if let Some(answer) = once::noted(before) {
        return Ok(answer);
    }
    let id = *before.assets.first().ok_or(Code::Internal)?;
    Ok(match ingest.phased(id).await? {
        Some(row) => once::made_up(&chunks::upload(&row)),
        None => once::made_up(&shown(catalogue, origin, id).await?),
    })
}

fn created(mut answer: HttpResponse) -> HttpResponse {
    *answer.status_mut() = StatusCode::CREATED;
    answer
}

async fn find(
    ingest: Data<Ingest>,
    catalogue: Data<Catalogue>,
    origin: Origin,
    query: Pairs,
    id: AssetUuid,
) -> Reply<HttpResponse> {
    if let Some(row) = ingest.phased(id.0).await? {
        return Ok(HttpResponse::Ok().json(pending(&row)));
    }
    let entry = catalogue.find(id.0).await?;
    Ok(HttpResponse::Ok().json(PreprAsset::with(&entry, &origin.0, fields(&query))))
}

async fn update(
    caller: Caller,
    ingest: Data<Ingest>,
    catalogue: Data<Catalogue>,
    origin: Origin,
    query: Pairs,
    id: AssetUuid,
    said: Said,
) -> Reply<HttpResponse> {
    let draft = said.draft()?;
    if let Some(row) = ingest.describe_phased(id.0, draft.clone()).await? {
        return Ok(HttpResponse::Ok().json(pending(&row)));
    }
    let entry = catalogue.change(&caller, id.0, draft).await?;
    Ok(HttpResponse::Ok().json(PreprAsset::with(&entry, &origin.0, fields(&query))))
}

async fn delete(caller: Caller, ingest: Data<Ingest>, custody: Data<Custody>, id: AssetUuid) -> Reply<HttpResponse> {
    if !ingest.give_up_phased(id.0).await? {
        custody.delete(&caller, id.0, vec![ORIGINAL.to_owned()]).await?;
    }
    Ok(HttpResponse::NoContent().finish())
}

/// An upload that is not whole, as an asset.
pub(super) fn pending(row: &Phased) -> PreprAsset {
    let Phased { id, created_at, name, label, draft, .. } = row;
    PreprAsset::pending(&Pending { id: *id, at: *created_at, name: name.clone(), label: label.clone(), draft })
}

pub(super) fn fields(query: &Pairs) -> Fields {
    query.get("fields").map(Fields::parse).unwrap_or_default()
}

/// An asset as it is now.
pub(super) async fn shown(catalogue: &Catalogue, origin: &Origin, id: AssetId) -> Result<PreprAsset> {
    Ok(PreprAsset::with(&catalogue.find(id).await?, &origin.0, Fields::default()))
}
