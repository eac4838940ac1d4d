//! The page behind the link of an invitation: it asks for a name and a password.
//!
//! One text without other files. The token stands behind `#` in its address, so it reaches the
//! server only in the body of the two calls that the page makes. Nothing runs there but the one
//! script whose digest the policy names.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PAGE: &str = include_str!("invitation.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        digest("script"),
        digest("style")
    )
});

pub async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .body(PAGE)
}

/// What a policy calls the content of the page's only element of this name.
fn digest(element: &str) -> String {
    let inside =
        PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let digest = ring::digest::digest(&ring::digest::SHA256, inside.map_or("", |(text, _)| text).as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_the_page_holds() {
        let of_nothing = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, b""));
        assert!(!POLICY.contains(&of_nothing), "{}", *POLICY);
        assert_eq!(PAGE.matches("<script").count(), 1);
    }
}
