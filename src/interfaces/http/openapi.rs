//! The OpenAPI 3.1 document, made from the rows that serve.

use actix_web::http::Method;
use schemars::generate::SchemaSettings;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::accounts::Permission;
use crate::error::Code;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Row;

/// Codes that any route with a caller may answer.
const COMMON: &[Code] = &[Code::Internal, Code::Busy, Code::UnsupportedMedia, Code::TooManyRequests];

/// Codes that any route with a body may answer.
const OF_BODIES: &[Code] = &[Code::InvalidRequest, Code::UploadIncomplete, Code::BodyTooSlow, Code::TooLarge];

/// The whole document. Each dialect brings its rows and the schema of its refusal.
pub fn document(dialects: &[(&[Row], Body)]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut describe = |body: Body| match body {
        Body::Json(schema) => json!({ "application/json": { "schema": schema(&mut generator) } }),
        Body::Other(media_type, what) if media_type.ends_with("json") => {
            json!({ media_type: { "schema": { "description": what } } })
        }
        Body::Other(media_type, what) => {
            json!({ media_type: { "schema": { "type": "string", "format": "binary", "description": what } } })
        }
    };
    let refusals: Vec<Value> = dialects.iter().map(|(_, error)| describe(*error)).collect();
    let mut paths = Map::new();
    for (row, refusal) in dialects.iter().zip(&refusals).flat_map(|((rows, _), r)| rows.iter().map(move |row| (row, r)))
    {
        let operation = operation(row, refusal, &mut describe);
        let verb = row.method.as_str().to_ascii_lowercase();
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            if row.method == Method::GET {
                path.insert("head".to_owned(), head(&operation));
            }
            path.insert(verb, operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cloakroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A self-hosted digital asset management appliance. Speaks FileSpin's REST contract and Prepr's for assets.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "ApiKey": { "type": "apiKey", "in": "header", "name": "X-FileSpin-Api-Key" },
                "UploadKey": { "type": "apiKey", "in": "query", "name": "upload_key" },
                "Token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "AccessToken": { "type": "apiKey", "in": "query", "name": "access_token" },
            },
        },
    })
}

fn operation(row: &Row, refusal: &Value, describe: &mut impl FnMut(Body) -> Value) -> Value {
    let mut answers = Map::new();
    for (status, body) in &row.answers {
        // What has no body has no type either.
        let content = if *status == 204 { json!({}) } else { describe(*body) };
        // One status may have several media types.
        let known = answers.get_mut(&status.to_string()).and_then(|known| known.pointer_mut("/content"));
        match (known.and_then(Value::as_object_mut), content) {
            (Some(known), Value::Object(more)) => known.extend(more),
            (_, content) => {
                answers.insert(status.to_string(), json!({ "description": row.summary, "content": content }));
            }
        }
    }
    let denied: &[Code] = match row.permission {
        Permission::Anyone => &[Code::Unauthorized],
        Permission::Scope(_) => &[Code::Unauthorized, Code::TooManyRequests],
        _ => &[Code::Unauthorized, Code::Forbidden],
    };
    let of_body = if row.takes.is_some() { OF_BODIES } else { &[] };
    let own = row.refuses.iter().chain(denied);
    let general = of_body.iter().chain(COMMON).filter(|code| !row.refuses.contains(code));
    for code in own.chain(general) {
        let status = code.http().to_string();
        let line = format!("`{}`: {}", code.wire(), code.help());
        match answers.get_mut(&status).and_then(|known| known.get_mut("description")) {
            Some(Value::String(known)) => *known = format!("{known}\n\n{line}"),
            _ => {
                answers.insert(status, json!({ "description": line, "content": refusal }));
            }
        }
    }
    let in_path = row
        .path
        .split('{')
        .filter_map(|part| Some(part.split_once('}')?.0))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": parameter(name) }));
    let in_query = row
        .query
        .iter()
        .map(|(name, what)| json!({ "name": name, "in": "query", "description": what, "schema": parameter(name) }));
    let in_head = row.headers.iter().map(
        |(name, what)| json!({ "name": name, "in": "header", "description": what, "schema": { "type": "string" } }),
    );
    let mut operation = json!({
        "summary": row.summary,
        "operationId": operation_id(row),
        "parameters": in_path.chain(in_query).chain(in_head).collect::<Vec<_>>(),
        "responses": answers,
        "x-permission": row.permission.word(),
    });
    if let Some(operation) = operation.as_object_mut() {
        let ways = match row.permission {
            Permission::Anyone => json!([]),
            Permission::HandIn => json!([{ "UploadKey": [] }]),
            Permission::EditAssetOrHandedIn | Permission::CreateAssetOrHandIn | Permission::ResumeUpload => {
                json!([{ "ApiKey": [] }, { "Token": [] }, { "UploadKey": [] }])
            }
            Permission::Scope(_) => json!([{ "Token": [] }, { "AccessToken": [] }, { "ApiKey": [] }]),
            _ => json!([{ "ApiKey": [] }, { "Token": [] }]),
        };
        operation.insert("security".into(), ways);
        if let Some(body) = row.takes {
            operation
                .insert("requestBody".into(), json!({ "required": !row.body_is_optional, "content": describe(body) }));
        }
    }
    operation
}

/// Counting words mean numbers wherever they stand.
fn parameter(name: &str) -> Value {
    match name {
        "limit" | "offset" | "since" | "grace_seconds" => {
            json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
        }
        "before" | "page" => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
        "link_type" => json!({ "type": "string", "enum": ["cdn", "object_storage"] }),
        "delivery" => json!({ "type": "string", "enum": ["display", "download"] }),
        _ => json!({ "type": "string" }),
    }
}

/// The same without bodies.
fn head(get: &Value) -> Value {
    let mut head = get.clone();
    if let Some(id) = get.get("operationId").and_then(Value::as_str)
        && let Some(head) = head.as_object_mut()
    {
        head.insert("operationId".to_owned(), json!(format!("head_{id}")));
    }
    if let Some(answers) = head.get_mut("responses").and_then(Value::as_object_mut) {
        for answer in answers.values_mut().filter_map(Value::as_object_mut) {
            answer.remove("content");
        }
    }
    head
}

fn operation_id(row: &Row) -> String {
    let words = row.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.fold(row.method.as_str().to_ascii_lowercase(), |id, word| format!("{id}_{word}"))
}
