//! On-demand images, under the documented address and the old one that is all over the web.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::accounts::Permission;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::media::imaging::Recipe;
use crate::media::imaging::params::PARAMS;

pub fn mount(r: &mut Routes) {
    for path in ["/api/v1/assets/{id}/conversions", "/api/v1/conversion/{id}"] {
        r.get(path, Permission::Anyone, image, "An image, computed from the parameters and cached")
            .query(PARAMS.iter().map(|p| (p.name(), p.help())))
            .query([("delivery", "`download`: as a file to keep")])
            .answers(200, Body::Other("image/*", "The image."))
            .refuses(&[Code::InvalidRequest, Code::AssetNotFound, Code::NoImage, Code::BadImage, Code::AssetNotReady]);
    }
}

async fn image(delivery: Data<Delivery>, request: HttpRequest, id: Id, query: Pairs) -> Reply<HttpResponse> {
    let recipe = Recipe::parse(query.iter()).map_err(|bad| Code::InvalidRequest.because(bad.to_string()))?;
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let image = delivery.image(id.0, &recipe, accept).await?;
    let download = (query.get("delivery") == Some("download")).then(|| id.0.to_string());
    Ok(respond::image(&request, &image, download.as_deref()))
}
