//! Callbacks: the log of what receivers were told, and telling it again.
//!
//! `reissue` is the vendor's: <https://developers.filespin.io/reference/reissue-callbacks-api>. The
//! log, the test and the signing secrets are ours.

use std::future::Ready;
use std::future::ready;
use std::time::Duration;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Failure;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::support::clock::Instant;
use crate::webhooks::Attempt;
use crate::webhooks::Delivery;
use crate::webhooks::DeliveryId;
use crate::webhooks::Filter;
use crate::webhooks::State;
use crate::webhooks::Webhooks;

/// How long the secrets before a new one go on signing, unless somebody says otherwise.
const GRACE_SECONDS: u32 = 24 * 60 * 60;

/// And how long at most.
const MOST_GRACE_SECONDS: u32 = 30 * 24 * 60 * 60;

pub fn mount(r: &mut Routes) {
    r.get("/api/v1/callbacks", Permission::UpdateSettings, list, "Ours: what receivers were told, newest first")
        .query([
            ("status", "`WAITING`, `DELIVERED`, `FAILED` or `DROPPED`"),
            ("event", "Such as `file-saved`"),
            ("url", "The receiver's address, as in the settings"),
            ("asset_id", "What it was about"),
            ("before", "Only older ones: `next` of the page before"),
            ("limit", "Rows to answer: 50, at most 500"),
        ])
        .answers(200, Body::json::<Listing>())
        .refuses(&[Code::InvalidRequest]);
    r.get(
        "/api/v1/callbacks/{callback_id}",
        Permission::UpdateSettings,
        find,
        "Ours: one callback, its body, and what came of each attempt",
    )
    .answers(200, Body::json::<CallbackDetail>())
    .refuses(&[Code::CallbackNotFound]);
    r.post(
        "/api/v1/callbacks/{callback_id}/redeliver",
        Permission::UpdateSettings,
        redeliver,
        "Ours: sends a callback again, under its old id",
    )
    .answers(202, Body::json::<CallbackData>())
    .refuses(&[Code::CallbackNotFound, Code::Conflict]);
    r.post("/api/v1/callbacks/test", Permission::UpdateSettings, test, "Ours: sends every URL a `test` event, once")
        .answers(202, Body::json::<Begun>())
        .refuses(&[Code::InvalidRequest]);
    r.post(
        "/api/v1/callbacks/reissue",
        Permission::UpdateSettings,
        reissue,
        "Tells again what happened to the assets that were uploaded in a span of time",
    )
    .takes(Body::json::<Reissue>())
    .answers(202, Body::json::<String>())
    .refuses(&[
        Code::InvalidRequest,
        Code::MissingParameter,
        Code::TooLarge,
        Code::UploadIncomplete,
        Code::BodyTooSlow,
    ]);
    r.get(
        "/api/v1/callbacks/secret",
        Permission::UpdateSettings,
        secrets,
        "Ours: the secrets that sign callbacks (Standard Webhooks), newest first",
    )
    .answers(200, Body::json::<Secrets>());
    r.post(
        "/api/v1/callbacks/secret",
        Permission::UpdateSettings,
        rotate,
        "Ours: makes a new signing secret; the ones before it sign for a while longer",
    )
    .query([("grace_seconds", "How long: a day, at most 30 days")])
    .answers(200, Body::json::<Secrets>())
    .refuses(&[Code::InvalidRequest]);
}

#[derive(Serialize, JsonSchema)]
struct Listing {
    count: usize,
    callbacks: Vec<CallbackData>,
    /// `before` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// An event on its way to a URL.
#[derive(Serialize, JsonSchema)]
struct CallbackData {
    /// What the receiver knows it by, as `webhook-id`.
    id: String,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset_id: Option<String>,
    url: String,
    /// `WAITING`, `DELIVERED`, `FAILED` or `DROPPED`
    status: &'static str,
    attempts: u32,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt: Option<AttemptData>,
}

#[derive(Serialize, JsonSchema)]
struct CallbackDetail {
    #[serde(flatten)]
    callback: CallbackData,
    /// As it is sent, byte by byte.
    body: String,
    attempt_log: Vec<AttemptData>,
}

/// One attempt.
#[derive(Serialize, JsonSchema)]
struct AttemptData {
    number: u32,
    at: String,
    duration_ms: u64,
    /// What was answered, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why it does not count as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How the answer's body begins.
    answer: String,
}

#[derive(Serialize, JsonSchema)]
struct Begun {
    /// `QUEUED`
    status: &'static str,
    message: &'static str,
    /// Their ids.
    callbacks: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Reissue {
    /// `YYYY-MM-DDTHH:MM:SSZ`
    start_date: Option<String>,
    /// The same; at most 7 days later.
    end_date: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Secrets {
    secrets: Vec<SecretData>,
}

#[derive(Serialize, JsonSchema)]
struct SecretData {
    /// `whsec_` and Base64
    secret: String,
    /// When it signs no more; absent for the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl From<&Delivery> for CallbackData {
    fn from(delivery: &Delivery) -> CallbackData {
        CallbackData {
            id: delivery.id.to_string(),
            event: delivery.event.clone(),
            asset_id: delivery.asset_id.map(|id| id.to_string()),
            url: delivery.url.clone(),
            status: delivery.state.word(),
            attempts: delivery.attempts,
            created_at: delivery.created_at.iso(),
            next_attempt_at: delivery.next_at.map(Instant::iso),
            finished_at: delivery.finished_at.map(Instant::iso),
            last_attempt: delivery.last.as_ref().map(AttemptData::from),
        }
    }
}

impl From<&Attempt> for AttemptData {
    fn from(attempt: &Attempt) -> AttemptData {
        AttemptData {
            number: attempt.number,
            at: attempt.at.iso(),
            duration_ms: attempt.duration.as_millis() as u64,
            status: attempt.status,
            error: attempt.error.clone(),
            answer: attempt.answer.clone(),
        }
    }
}

/// The `{callback_id}` of the path. Anything else cannot be a callback: 404.
struct CallbackId(DeliveryId);

impl FromRequest for CallbackId {
    type Error = Failure;
    type Future = Ready<Result<CallbackId, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("callback_id").unwrap_or_default();
        let missing = || Failure(Code::CallbackNotFound.because("No callback has this id."));
        ready(text.parse().map(CallbackId).map_err(|()| missing()))
    }
}

async fn list(webhooks: Data<Webhooks>, query: Pairs) -> Reply<Json<Listing>> {
    let wrong = |name: &str| Code::InvalidRequest.because(format!("{name} is not understood"));
    let given = |name: &str| query.get(name).filter(|text| !text.is_empty());
    let filter = Filter {
        state: given("status").map(|text| text.parse::<State>().map_err(|()| wrong("status"))).transpose()?,
        event: given("event").map(str::to_owned),
        url: given("url").map(str::to_owned),
        asset_id: given("asset_id").map(|text| text.parse().map_err(|()| wrong("asset_id"))).transpose()?,
        before: given("before").map(|text| text.parse().map_err(|_| wrong("before"))).transpose()?,
    };
    let limit = query.number("limit")?.unwrap_or(50).clamp(1, 500);
    let found = webhooks.list(filter, limit).await?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|last| last.seq);
    let callbacks: Vec<_> = found.iter().map(CallbackData::from).collect();
    Ok(Json(Listing { count: callbacks.len(), callbacks, next }))
}

async fn find(webhooks: Data<Webhooks>, id: CallbackId) -> Reply<Json<CallbackDetail>> {
    let (delivery, body, attempts) = webhooks.find(id.0).await?;
    let attempt_log = attempts.iter().map(AttemptData::from).collect();
    Ok(Json(CallbackDetail { callback: CallbackData::from(&delivery), body, attempt_log }))
}

async fn redeliver(webhooks: Data<Webhooks>, id: CallbackId) -> Reply<HttpResponse> {
    Ok(HttpResponse::Accepted().json(CallbackData::from(&webhooks.redeliver(id.0).await?)))
}

async fn test(webhooks: Data<Webhooks>) -> Reply<HttpResponse> {
    let callbacks = webhooks.test().await?.iter().map(ToString::to_string).collect();
    Ok(HttpResponse::Accepted().json(Begun { status: "QUEUED", message: "Test queued", callbacks }))
}

async fn reissue(webhooks: Data<Webhooks>, body: JsonBody<Reissue>) -> Reply<HttpResponse> {
    let Reissue { start_date, end_date } = body.0;
    let (Some(start), Some(end)) = (start_date, end_date) else {
        return Err(Code::MissingParameter.because("start_date and end_date say which assets are meant").into());
    };
    let read = |name: &str, text: &str| {
        let wrong = || Code::InvalidRequest.because(format!("{name} has to be like 2017-06-01T00:00:00Z"));
        Instant::parse(text).ok_or_else(wrong)
    };
    let (from, to) = (read("start_date", &start)?, read("end_date", &end)?);
    webhooks.reissue(from, to).await?;
    let said = format!("Re-issue callbacks started for assets uploaded from {} to {}", from.iso(), to.iso());
    Ok(HttpResponse::Accepted().json(said))
}

async fn secrets(webhooks: Data<Webhooks>) -> Reply<HttpResponse> {
    Ok(shown(webhooks.secrets()?))
}

async fn rotate(webhooks: Data<Webhooks>, query: Pairs) -> Reply<HttpResponse> {
    let grace = query.number("grace_seconds")?.unwrap_or(GRACE_SECONDS);
    if grace > MOST_GRACE_SECONDS {
        return Err(Code::InvalidRequest.because(format!("grace_seconds: at most {MOST_GRACE_SECONDS}")).into());
    }
    Ok(shown(webhooks.rotate_secret(Duration::from_secs(grace.into())).await?))
}

fn shown(secrets: Vec<(String, Option<Instant>)>) -> HttpResponse {
    let data = |(secret, at): (String, Option<Instant>)| SecretData { secret, expires_at: at.map(Instant::iso) };
    HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Secrets { secrets: secrets.into_iter().map(data).collect() })
}
