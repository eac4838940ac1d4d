//! Asking for processing.

use actix_web::HttpResponse;
use actix_web::web::Data;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::processing::Processing;

pub fn mount(r: &mut Routes) {
    r.post(
        "/api/v1/assets/{id}/process",
        Permission::EditAsset,
        process,
        "Makes conversions; unknown keys are ignored",
    )
    .takes(Body::json::<Keys>())
    .answers(202, Body::json::<Queued>())
    .refuses(&[
        Code::AssetNotFound,
        Code::AssetNotReady,
        Code::AssetInvalid,
        Code::AssetArchived,
        Code::InvalidRequest,
    ]);
}

#[derive(Deserialize, JsonSchema)]
struct Keys {
    /// Processing keys, such as `smart_imaging`.
    keys: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Queued {
    /// `QUEUED`
    status: &'static str,
    message: &'static str,
    /// Absent when none of the keys applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<i64>,
}

async fn process(caller: Caller, processing: Data<Processing>, id: Id, body: JsonBody<Keys>) -> Reply<HttpResponse> {
    let job_id = processing.ask(&caller, id.0, body.0.keys).await?;
    let message = if job_id.is_some() { "Queued for processing" } else { "None of the keys applies to this asset" };
    Ok(HttpResponse::Accepted().json(Queued { status: "QUEUED", message, job_id }))
}
