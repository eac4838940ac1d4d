//! Signed links, as every chapter that hands out content reads them.

use actix_web::HttpRequest;

use crate::accounts::Caller;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::link::Signed;
use crate::error::Result;

/// What is signed is what follows this.
const ASSETS: &str = "/api/v1/assets/";

/// The old address of on-demand images; signed as if it were the documented one.
const LEGACY: &str = "/api/v1/conversion/";

/// Query parameters of a signed link, for the reference.
pub const PARAMETERS: [(&str, &str); 3] = [
    ("accessId", "Of a signed link: whose key signed it"),
    ("expiry", "Of a signed link: seconds since 1970"),
    ("signature", "Of a signed link: base64 of HMAC-SHA1 over what precedes it"),
];

/// On what ground this request asks for content.
pub async fn ground(delivery: &Delivery, caller: &Caller, request: &HttpRequest) -> Result<Ground> {
    let path = request.path();
    let signed = match (path.strip_prefix(ASSETS), path.strip_prefix(LEGACY)) {
        (Some(rest), _) => rest.to_owned(),
        (None, Some(id)) => format!("{id}/conversions"),
        (None, None) => path.to_owned(),
    };
    delivery.ground(caller, Signed::read(&signed, request.query_string())?).await
}
