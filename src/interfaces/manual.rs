//! The manual of on-demand images, served by the box itself: what it can do, with pictures.
//!
//! The page is written from the list of parameters, its pictures are rendered by the box, so
//! both are always those of the version that runs. It needs no script and no other host.

use std::fmt::Write;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::delivery::Delivery;
use crate::delivery::Shown;
use crate::interfaces::http::respond;
use crate::interfaces::http::table::Reply;
use crate::media::imaging::params::PARAMS;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
<title>On-demand images – Cloakroom</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
section{display:grid;grid-template-columns:1fr 260px;gap:1.5rem;border-top:1px solid #ddd;padding:1rem 0;align-items:start}\
h2{margin:0;font-size:1.1rem}code{background:#f3f3f3;padding:.1em .3em;border-radius:3px;overflow-wrap:anywhere}\
img{max-width:100%;background:repeating-conic-gradient(#eee 0 25%,#fff 0 50%) 0/16px 16px}\
@media(max-width:40rem){section{grid-template-columns:1fr}}</style>\
<h1>On-demand images</h1>\
<p><code>GET /api/v1/assets/{id}/conversions?resize=800,600&amp;quality=85</code> gives any picture, drawing or page in any \
shape. Parameters combine freely and act in the order of this page, whatever their order in the address. Names that are \
not on it are ignored; of a repeated one the last counts. Results fit in 2048 × 1536 pixels and are never enlarged. \
Without <code>format</code> the best that the <code>Accept</code> header names is sent: AVIF, WebP, else PNG for \
pictures with transparency and JPEG for all others.</p>\
<p>In: JPEG, PNG, GIF, WebP, AVIF, HEIC, TIFF, BMP, ICO, JPEG XL, PSD, SVG, the pages of PDF, and camera raw files \
(CR2, CR3, NEF, ARW, RAF, DNG, ORF, RW2), of which the camera's own picture is shown.</p>\
<section><div><h2>The original</h2></div><img alt=\"The scene of the examples\" src=\"images/original\"></section>";

/// The page.
pub async fn images() -> HttpResponse {
    let mut page = HEAD.to_owned();
    for param in PARAMS {
        let (name, help) = (param.name(), escaped(param.help()));
        let example = escaped(param.example());
        let _ = write!(
            page,
            "<section id=\"{name}\"><div><h2>{name}</h2><p>{help}</p><p><code>{example}</code></p></div>\
             <img alt=\"{example}\" loading=\"lazy\" src=\"images/{name}\"></section>"
        );
    }
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
        ))
        .body(page)
}

/// One of its pictures.
pub async fn picture(delivery: Data<Delivery>, request: HttpRequest) -> Reply<HttpResponse> {
    let name = request.match_info().get("name").filter(|name| *name != "original");
    let image = delivery.example(name).await?;
    Ok(respond::image(&request, &Shown { image, public: true }, None))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
