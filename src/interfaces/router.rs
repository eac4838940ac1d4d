//! Every mount on one page.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web;
use actix_web::web::ServiceConfig;

use crate::error::Code;
use crate::interfaces::filespin;
use crate::interfaces::http::health;
use crate::interfaces::http::observe::RequestId;
use crate::interfaces::http::openapi;
use crate::interfaces::http::table;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Routes;
use crate::interfaces::invitation;
use crate::interfaces::manual;
use crate::interfaces::prepr;
use crate::interfaces::tus;

/// Puts everything that is served into an application.
pub fn mount(app: &mut ServiceConfig) {
    app.route("/livez", web::get().to(health::live))
        .route("/readyz", web::get().to(health::ready))
        .route("/metrics", web::get().to(health::metrics))
        .route("/openapi.json", web::get().to(document))
        .route("/manual/images", web::get().to(manual::images))
        .route("/manual/images/{name}", web::get().to(manual::picture))
        .route("/invitation", web::get().to(invitation::page))
        .route("/", web::get().to(welcome));
    routes().mount(app);
    prepr::routes().mount(app);
    app.default_service(web::to(nowhere));
}

/// FileSpin's contract, and ways in that speak of the same things and refuse in its words.
fn routes() -> Routes {
    let mut routes = filespin::routes();
    tus::mount(&mut routes);
    routes
}

async fn document() -> HttpResponse {
    let (filespin, prepr) = (routes(), prepr::routes());
    HttpResponse::Ok().json(openapi::document(&[
        (filespin.rows(), Body::json::<filespin::reply::Refusal>()),
        (prepr.rows(), Body::json::<prepr::reply::Refusal>()),
    ]))
}

async fn welcome() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(concat!(
            "This is Cloakroom ",
            env!("CARGO_PKG_VERSION"),
            ".\n\nUpload:  POST /api/v1/assets/new/content/original/upload\n",
            "Picture: GET  /api/v1/assets/{id}/conversions?resize=400,300\n",
            "Prepr:   POST /assets\n",
            "What pictures can be made: /manual/images\n",
            "The API: /openapi.json    Health: /readyz    Figures: /metrics\n",
        ))
}

async fn nowhere(request: HttpRequest, id: RequestId) -> HttpResponse {
    let error = Code::NotFound.because(format!("There is nothing at {}.", request.path()));
    table::refuse(filespin::reply::tell, &error, &id.0)
}
