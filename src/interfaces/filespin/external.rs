//! Files that lie elsewhere.

use actix_web::HttpResponse;
use actix_web::web::Data;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::ingest::Ingest;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::once;
use crate::interfaces::http::once::Begun;
use crate::interfaces::http::once::Call;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;

pub fn mount(r: &mut Routes) {
    r.post(
        "/api/v1/assets/new/content/original/external",
        Permission::CreateAsset,
        external,
        "Fetches a file from an http, https or s3 address, in the background; the asset is QUEUED until it has come",
    )
    .headers(once::HEADERS)
    .takes(Body::json::<External>())
    .answers(200, Body::json::<Ordered>())
    .refuses(once::REFUSALS)
    .refuses(&[Code::MissingParameter, Code::UrlNotAllowed]);
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct External {
    /// What the asset is to be called; as its address ends when it is left out.
    #[serde(default)]
    name: String,
    /// `https://…`, `http://…`, or `s3://BUCKET/KEY` in a bucket of the configuration.
    #[serde(default)]
    key: String,
}

#[derive(Serialize, JsonSchema)]
struct Ordered {
    id: String,
    /// `QUEUED`
    status: &'static str,
    message: &'static str,
}

async fn external(caller: Caller, ingest: Data<Ingest>, call: Call, body: JsonBody<External>) -> Reply<HttpResponse> {
    let External { name, key } = &body.0;
    let ordered = |id: String| Ordered { id, status: "QUEUED", message: "Queued for processing" };
    let print = call.print_of(&body.0)?;
    let once = match call.begin(&ingest, &caller).await? {
        Begun::New(once) => once.map(|once| once.of(print)),
        Begun::Made(before) => {
            before.fits(&print)?;
            let id = before.assets.first().map(ToString::to_string).unwrap_or_default();
            return Ok(once::noted(&before).unwrap_or_else(|| once::made_up(&ordered(id))));
        }
    };
    if key.is_empty() {
        return Err(Code::MissingParameter.because("key: say where the file lies.").into());
    }
    let asset = ingest.order(&caller, name, key, once.clone()).await?;
    Ok(once::first(&ingest, once, &ordered(asset.id.to_string())).await?)
}
