//! Assets: taken in whole or announced, shown, described, deleted.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::assets::AssetId;
use crate::assets::ORIGINAL;
use crate::catalogue::Catalogue;
use crate::custody::Custody;
use crate::error::Code;
use crate::error::Result;
use crate::ingest::Arrival;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::Phased;
use crate::ingest::Taken;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::observe::Figures;
use crate::interfaces::http::parts::FilePart;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
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
    .answers(201, Body::json::<PreprAsset>())
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
    incoming: Incoming,
) -> Reply<HttpResponse> {
    let (said, taken) = match incoming {
        Incoming::Fields(said) => (said, None),
        Incoming::Parts(parts) => receive(&ingest, &figures, parts.files(&[SOURCE])).await?,
    };
    if chunks::phase(&said, &query)?.as_deref() == Some("start") {
        return Ok(HttpResponse::Created().json(chunks::start(&ingest, &caller, &said).await?));
    }
    let draft = said.draft()?;
    draft.check()?;
    let taken = taken.ok_or_else(|| {
        Code::NoFile.because("Send a file as `source` in multipart/form-data, or upload_phase=start and file_size.")
    })?;
    let note = Note { arrival: Some(Arrival { draft, phased: false, public: config.public }), ..Note::default() };
    let kept = ingest.keep(&caller, vec![taken], note).await?;
    let id = kept.first().map(|asset| asset.id).ok_or(Code::Internal)?;
    let entry = catalogue.find(id).await?;
    Ok(HttpResponse::Created().json(PreprAsset::with(&entry, &origin.0, fields(&query))))
}

/// The fields of a body and the file in it.
async fn receive(ingest: &Ingest, figures: &Figures, mut parts: Parts) -> Result<(Said, Option<Taken>)> {
    let (mut said, mut taken) = (Said::default(), None);
    while let Some(part) = parts.next().await? {
        match part {
            Part::Field { name, text } => said.put(&name, text)?,
            Part::File(_) if taken.is_some() => return Err(Code::InvalidRequest.because("This call takes one file.")),
            Part::File(mut file) => {
                let intake = ingest.begin(&file.name, parts.announced_bytes()).await?;
                taken = Some(take(intake, figures, &mut parts, &mut file).await?);
            }
        }
    }
    Ok((said, taken))
}

async fn take(mut intake: Intake, figures: &Figures, parts: &mut Parts, file: &mut FilePart) -> Result<Taken> {
    while let Some(chunk) = parts.chunk(file).await? {
        figures.received(chunk.len() as u64);
        intake.write(chunk).await?;
    }
    intake.finish().await
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
