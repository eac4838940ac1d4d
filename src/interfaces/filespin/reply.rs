//! How this dialect answers: refusals, the origin in the URLs it hands out, answers that nobody keeps.

use actix_web::HttpResponse;
use actix_web::http::header;
use serde::Serialize;

pub use crate::interfaces::http::extract::Origin;
pub use crate::interfaces::http::table::Refusal;
pub use crate::interfaces::http::table::tell;

/// An answer that nobody keeps: it holds secrets, or is about people.
pub fn private(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}
