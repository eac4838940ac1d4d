//! Schemas of custom metadata.
//!
//! Shapes: <https://developers.filespin.io/guides/asset-schemas>. The vendor publishes how a
//! schema is created; reading, changing and deleting one are at the addresses that follow from it.

use actix_web::HttpResponse;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::extract::SchemaId;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::schemas::DEFAULT;
use crate::schemas::Draft;
use crate::schemas::Schema;
use crate::schemas::Schemas;
use crate::schemas::Status;
use crate::support::page::Page;

const ONE: &str = "/api/v1/assetschemas/{schema_id}";
const DEFAULT_DOCUMENT: &str = "/api/v1/json-schema/Asset.CustomMetadata.v1.schema.json";

pub fn mount(r: &mut Routes) {
    r.get("/api/v1/assetschemas", Permission::ReadAsset, list, "Lists the schemas of custom metadata")
        .query([("offset", "Rows to skip"), ("limit", "Rows to answer: 50, at most 100")])
        .answers(200, Body::json::<Listing>())
        .refuses(&[Code::InvalidRequest]);
    r.post("/api/v1/assetschemas", Permission::AdministerSchemas, create, "Adds a schema; the box gives it its number")
        .takes(Body::json::<NewSchema>())
        .answers(200, Body::json::<SchemaData>())
        .refuses(&[Code::InvalidRequest, Code::InvalidSchema, Code::TooLarge]);
    r.get(ONE, Permission::ReadAsset, find, "A schema")
        .answers(200, Body::json::<SchemaData>())
        .refuses(&[Code::SchemaNotFound]);
    for method in [Routes::put, Routes::patch] {
        method(
            r,
            ONE,
            Permission::AdministerSchemas,
            update,
            "Changes a schema; what is left out stays. Its assets are judged and indexed anew in the background",
        )
        .takes(Body::json::<SchemaChange>())
        .answers(200, Body::json::<SchemaData>())
        .refuses(&[Code::SchemaNotFound, Code::InvalidRequest, Code::InvalidSchema, Code::TooLarge]);
    }
    r.delete(ONE, Permission::AdministerSchemas, delete, "Deletes a schema that no asset names")
        .answers(200, Body::json::<Deleted>())
        .refuses(&[Code::SchemaNotFound, Code::SchemaInUse]);
    r.get(DEFAULT_DOCUMENT, Permission::Anyone, default_document, "The default schema, 0, as a JSON Schema")
        .answers(200, Body::Other("application/schema+json", "A JSON Schema of the 2020-12 dialect"));
}

/// A name in one language or in several.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Name {
    /// In English.
    Plain(String),
    /// By language: `{"en": "Products"}`.
    ByLanguage(Map<String, Value>),
}

#[derive(Deserialize, JsonSchema)]
struct NewSchema {
    name: Name,
    /// `ACTIVE` (as usual) or `INACTIVE`
    status: Option<String>,
    /// A JSON Schema of the 2020-12 dialect, of at most 64 KiB. References lead to places in the same document.
    schema: Value,
}

#[derive(Deserialize, JsonSchema)]
struct SchemaChange {
    name: Option<Name>,
    /// `ACTIVE` or `INACTIVE`
    status: Option<String>,
    schema: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct SchemaData {
    id: i64,
    /// By language.
    name: Map<String, Value>,
    /// `ACTIVE` or `INACTIVE`
    status: &'static str,
    schema: Value,
    creator_id: i64,
    create_time: String,
    update_time: String,
}

#[derive(Serialize, JsonSchema)]
struct Listing {
    schemas: Vec<SchemaData>,
    count: usize,
    total: u64,
    offset: u32,
    limit: u32,
}

#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// `OK`
    status: &'static str,
    message: &'static str,
}

impl SchemaData {
    /// `base` is the origin under which the caller reached us: schema 0 names itself by it.
    fn new(schema: Schema, base: &str) -> SchemaData {
        SchemaData {
            id: schema.id,
            name: schema.name,
            status: schema.status.word(),
            schema: if schema.id == DEFAULT { located(schema.schema, base) } else { schema.schema },
            creator_id: schema.creator_id,
            create_time: schema.created_at.iso(),
            update_time: schema.changed_at.iso(),
        }
    }
}

async fn list(schemas: Data<Schemas>, origin: Origin, query: Pairs) -> Reply<Json<Listing>> {
    let page = Page::new(query.number("offset")?, query.number("limit")?, 50, 100);
    let (found, total) = schemas.list(page).await?;
    let schemas: Vec<_> = found.into_iter().map(|schema| SchemaData::new(schema, &origin.0)).collect();
    Ok(Json(Listing { count: schemas.len(), schemas, total, offset: page.offset, limit: page.limit }))
}

async fn create(
    caller: Caller,
    schemas: Data<Schemas>,
    origin: Origin,
    body: JsonBody<NewSchema>,
) -> Reply<Json<SchemaData>> {
    let NewSchema { name, status, schema } = body.0;
    let status = read_status(status)?.unwrap_or(Status::Active);
    let made = schemas.create(Draft { name: by_language(name), status, schema }, caller.user_id()).await?;
    Ok(Json(SchemaData::new(made, &origin.0)))
}

async fn find(schemas: Data<Schemas>, origin: Origin, schema: SchemaId) -> Reply<Json<SchemaData>> {
    Ok(Json(SchemaData::new(schemas.find(schema.0).await?, &origin.0)))
}

async fn update(
    schemas: Data<Schemas>,
    origin: Origin,
    id: SchemaId,
    body: JsonBody<SchemaChange>,
) -> Reply<Json<SchemaData>> {
    let SchemaChange { name, status, schema } = body.0;
    let status = read_status(status)?;
    let change = move |before: Draft| Draft {
        name: name.map_or(before.name, by_language),
        status: status.unwrap_or(before.status),
        schema: schema.unwrap_or(before.schema),
    };
    Ok(Json(SchemaData::new(schemas.update(id.0, change).await?, &origin.0)))
}

async fn delete(schemas: Data<Schemas>, schema: SchemaId) -> Reply<Json<Deleted>> {
    schemas.delete(schema.0).await?;
    Ok(Json(Deleted { status: "OK", message: "Deleted" }))
}

async fn default_document(schemas: Data<Schemas>, origin: Origin) -> Reply<HttpResponse> {
    let schema = located(schemas.find(DEFAULT).await?.schema, &origin.0);
    Ok(HttpResponse::Ok().content_type("application/schema+json").body(schema.to_string()))
}

/// With an absolute `$id`, as the contract shows it.
fn located(mut schema: Value, base: &str) -> Value {
    if let Some(id) = schema.get_mut("$id") {
        *id = format!("{base}{DEFAULT_DOCUMENT}").into();
    }
    schema
}

fn by_language(name: Name) -> Map<String, Value> {
    match name {
        Name::Plain(text) => Map::from_iter([("en".to_owned(), text.into())]),
        Name::ByLanguage(names) => names,
    }
}

fn read_status(word: Option<String>) -> Result<Option<Status>> {
    word.map(|word| {
        Status::from_word(&word)
            .ok_or_else(|| Code::InvalidRequest.because(format!("status: `{word}` is neither ACTIVE nor INACTIVE")))
    })
    .transpose()
}
