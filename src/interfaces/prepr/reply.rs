//! The dialect's error body (the vendor publishes none), its ids in paths, and the origin in its URLs.

use std::future::Ready;
use std::future::ready;
use std::str::FromStr;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::assets::AssetId;
use crate::catalogue::AlbumId;
use crate::error::Code;
use crate::error::Error;
use crate::interfaces::http::extract::origin;
use crate::interfaces::http::table::Failure;
use crate::wire::prepr::parse_id;

/// What a refused call is told.
#[derive(Serialize, JsonSchema)]
pub struct PreprRefusal {
    /// Always `ERROR`.
    status: String,
    /// A stable word, such as `ASSET_NOT_FOUND`.
    message: String,
    /// One sentence: what is wrong and what to do.
    detail: String,
    /// Finds the request in the log.
    request_id: String,
}

pub fn tell(error: &Error, request_id: &str) -> Value {
    let refusal = PreprRefusal {
        status: "ERROR".to_owned(),
        message: error.code.wire().to_owned(),
        detail: error.public().to_owned(),
        request_id: request_id.to_owned(),
    };
    serde_json::to_value(refusal).unwrap_or_else(|_| json!({ "status": "ERROR" }))
}

/// The origin under which the caller reached us, or the configured one.
pub struct Origin(pub String);

impl FromRequest for Origin {
    type Error = Failure;
    type Future = Ready<Result<Origin, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Origin(origin(request))))
    }
}

/// The `{id}` of an asset, with dashes or without. Anything else cannot be one: 404.
pub struct AssetUuid(pub AssetId);

impl FromRequest for AssetUuid {
    type Error = Failure;
    type Future = Ready<Result<AssetUuid, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(in_path(request, Code::AssetNotFound).map(AssetUuid))
    }
}

/// The same of a collection.
pub struct AlbumUuid(pub AlbumId);

impl FromRequest for AlbumUuid {
    type Error = Failure;
    type Future = Ready<Result<AlbumUuid, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(in_path(request, Code::CollectionNotFound).map(AlbumUuid))
    }
}

fn in_path<T: FromStr>(request: &HttpRequest, missing: Code) -> Result<T, Failure> {
    let text = request.match_info().get("id").unwrap_or_default();
    parse_id(text).ok_or_else(|| Failure(missing.because("Nothing has this id: an id is a UUID.")))
}
