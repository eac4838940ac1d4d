//! Jobs: rounds of processing and how far they are.

use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::interfaces::http::extract::JobId;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::processing::Processing;
use crate::support::page::Page;
use crate::wire::filespin::JobData;

pub fn mount(r: &mut Routes) {
    r.get("/api/v1/jobs", Permission::ReadAsset, list, "Lists the caller's jobs, newest first")
        .query([("offset", "Rows to skip"), ("limit", "Rows to answer: 30, at most 500")])
        .answers(200, Body::json::<Listing>())
        .refuses(&[Code::InvalidRequest]);
    r.get("/api/v1/jobs/{job_id}", Permission::ReadAsset, find, "How far a job is")
        .answers(200, Body::json::<JobData>())
        .refuses(&[Code::JobNotFound]);
    r.post(
        "/api/v1/jobs/{job_id}/cancel",
        Permission::EditAsset,
        cancel,
        "Ours: ends what a job has not done yet; its open steps become `ERROR`",
    )
    .answers(200, Body::json::<JobData>())
    .refuses(&[Code::JobNotFound, Code::Conflict]);
}

#[derive(Serialize, JsonSchema)]
struct Listing {
    count: usize,
    limit: u32,
    offset: u32,
    total: u64,
    jobs: Vec<JobData>,
}

async fn list(caller: Caller, processing: Data<Processing>, query: Pairs) -> Reply<Json<Listing>> {
    let page = Page::new(query.number("offset")?, query.number("limit")?, 30, 500);
    let (rounds, total) = processing.list(caller.user_id(), page).await?;
    let jobs: Vec<_> = rounds.iter().map(JobData::from).collect();
    Ok(Json(Listing { count: jobs.len(), limit: page.limit, offset: page.offset, total, jobs }))
}

async fn cancel(
    caller: Caller,
    accounts: Data<Accounts>,
    processing: Data<Processing>,
    job: JobId,
) -> Reply<Json<JobData>> {
    let by = accounts.email(caller.user_id()).await?;
    Ok(Json(JobData::from(&processing.cancel(job.0, &by).await?)))
}

async fn find(processing: Data<Processing>, job: JobId) -> Reply<Json<JobData>> {
    Ok(Json(JobData::from(&processing.find(job.0).await?)))
}
