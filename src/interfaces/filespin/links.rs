//! Signed links, as every chapter that hands out content reads them.

use actix_web::HttpRequest;

use crate::accounts::Caller;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::Standing;
use crate::delivery::link::Signed;
use crate::error::Result;

/// What is signed is what follows this.
const ASSETS: &str = "/api/v1/assets/";

/// Old addresses, and the section of an asset that they stand for: signed as if they were the
/// documented ones.
const LEGACY: [(&str, &str); 3] =
    [("/api/v1/conversion/", "conversions"), ("/api/v1/video/", "transcodes"), ("/api/v1/storyboard/", "storyboard")];

/// Query parameters of a signed link, for the reference.
pub const PARAMETERS: [(&str, &str); 3] = [
    ("accessId", "Of a signed link: whose key signed it"),
    ("expiry", "Of a signed link: seconds since 1970"),
    ("signature", "Of a signed link: base64 of HMAC-SHA1 over what precedes it"),
];

/// On what ground this request asks for content.
pub async fn ground(delivery: &Delivery, caller: &Caller, request: &HttpRequest) -> Result<Ground> {
    Ok(standing(delivery, caller, request).await?.ground)
}

/// The same, for answers that lead on to more.
pub async fn standing(delivery: &Delivery, caller: &Caller, request: &HttpRequest) -> Result<Standing> {
    delivery.standing(caller, Signed::read(&signed(request.path()), request.query_string())?).await
}

/// What stands for this path in the text that is signed.
fn signed(path: &str) -> String {
    if let Some(rest) = path.strip_prefix(ASSETS) {
        return rest.to_owned();
    }
    let old = LEGACY.iter().find_map(|(prefix, section)| {
        let rest = path.strip_prefix(prefix)?;
        let (id, file) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some(format!("{id}/{section}{file}"))
    });
    old.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_addresses_are_signed_as_the_documented_ones() {
        for (path, text) in [
            ("/api/v1/assets/x/transcodes/480p-video.mp4", "x/transcodes/480p-video.mp4"),
            ("/api/v1/conversion/x", "x/conversions"),
            ("/api/v1/video/x/480p-video.mp4", "x/transcodes/480p-video.mp4"),
            ("/api/v1/video/x/720p/init.mp4", "x/transcodes/720p/init.mp4"),
            ("/api/v1/storyboard/x/sprite.jpg", "x/storyboard/sprite.jpg"),
            ("/elsewhere", "/elsewhere"),
        ] {
            assert_eq!(signed(path), text);
        }
    }
}
