//! The dialect's error body, and the origin in the URLs it hands out.

use std::future::Ready;
use std::future::ready;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::header;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::error::Error;
use crate::interfaces::http::extract::origin;
use crate::interfaces::http::table::Failure;

/// What a refused call is told. `status` and `message` are the vendor's, the rest is ours.
#[derive(Serialize, JsonSchema)]
pub struct Refusal {
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
    let refusal = Refusal {
        status: "ERROR".to_owned(),
        message: error.code.wire().to_owned(),
        detail: error.public().to_owned(),
        request_id: request_id.to_owned(),
    };
    serde_json::to_value(refusal).unwrap_or_else(|_| json!({ "status": "ERROR" }))
}

/// An answer that nobody keeps: it holds secrets, or is about people.
pub fn private(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body)
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
