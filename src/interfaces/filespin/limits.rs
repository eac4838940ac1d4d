//! Ours: what may be asked of this box, as numbers that a program can read.
//!
//! The same numbers are what the rooms refuse by; those of the configuration are filled in by
//! `app`, the rest are constants of the rooms.

use actix_web::HttpResponse;
use actix_web::web::Data;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accounts::Permission;
use crate::assets::data;
use crate::collections;
use crate::custody::MOST_ASSETS;
use crate::interfaces::filespin::search;
use crate::interfaces::filespin::sharing;
use crate::interfaces::http::Rates;
use crate::interfaces::http::extract;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::media::imaging::params::Plan;

pub fn mount(r: &mut Routes) {
    r.get("/api/v1/limits", Permission::ReadAsset, limits, "Ours: what may be asked of this box")
        .answers(200, Body::json::<LimitsData>());
}

/// Every limit that a caller can meet.
#[derive(Serialize, JsonSchema)]
pub struct LimitsData {
    pub requests: RequestLimits,
    pub uploads: UploadLimits,
    pub images: ImageLimits,
    pub films: FilmLimits,
    pub webhooks: WebhookLimits,
    pub calls: CallLimits,
}

/// How many requests are answered before 429; a zero means no limit.
#[derive(Serialize, JsonSchema)]
pub struct RequestLimits {
    /// Of one user, in the long run.
    calls_per_second: u32,
    /// Of one user, at once.
    calls_burst: u32,
    /// Of one address, without a right or for what is not there, in the long run.
    failures_per_second: u32,
    /// The same, at once.
    failures_burst: u32,
}

#[derive(Serialize, JsonSchema)]
pub struct UploadLimits {
    pub max_file_bytes: u64,
    /// Files and fields of one upload.
    pub max_parts: usize,
    /// On average, after some seconds of grace.
    pub min_bytes_per_second: u64,
    pub max_pause_seconds: u64,
    /// Of a body that comes in by an upload key.
    pub upload_key_max_bytes: u64,
    /// From one address.
    pub upload_key_calls_per_minute: u32,
}

#[derive(Serialize, JsonSchema)]
pub struct ImageLimits {
    /// Of a picture that is decoded.
    pub max_pixels: u64,
    pub max_side: u32,
    /// An animation of more stands still.
    pub max_frames: u32,
    /// The largest on-demand image; more is clamped.
    pub max_on_demand_width: u32,
    pub max_on_demand_height: u32,
}

#[derive(Serialize, JsonSchema)]
pub struct FilmLimits {
    /// For one film.
    pub max_seconds_of_work: u64,
    pub at_once: usize,
}

#[derive(Serialize, JsonSchema)]
pub struct WebhookLimits {
    pub max_urls: usize,
    pub attempts: usize,
    /// For a receiver to answer.
    pub timeout_seconds: u64,
}

/// Of single calls.
#[derive(Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "these are the words on the wire")]
pub struct CallLimits {
    max_json_bytes: usize,
    /// Of an asset's data, as JSON.
    max_data_characters: usize,
    /// In one call for links.
    max_links: usize,
    /// In one bulk call.
    max_bulk_assets: u32,
    max_collection_assets: usize,
    max_search_results_per_page: u64,
}

impl From<Rates> for RequestLimits {
    fn from(rates: Rates) -> RequestLimits {
        let Rates { calls_per_second, calls_burst, failures_per_second, failures_burst } = rates;
        RequestLimits { calls_per_second, calls_burst, failures_per_second, failures_burst }
    }
}

impl Default for ImageLimits {
    fn default() -> ImageLimits {
        let (max_on_demand_width, max_on_demand_height) = Plan::CEILING;
        ImageLimits { max_pixels: 0, max_side: 0, max_frames: 0, max_on_demand_width, max_on_demand_height }
    }
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits {
            max_json_bytes: extract::MAX_JSON_BYTES,
            max_data_characters: data::MOST_CHARACTERS,
            max_links: sharing::MOST_LINKS,
            max_bulk_assets: MOST_ASSETS,
            max_collection_assets: collections::MOST_ASSETS,
            max_search_results_per_page: search::MOST_PER_PAGE,
        }
    }
}

async fn limits(limits: Data<LimitsData>) -> Reply<HttpResponse> {
    Ok(HttpResponse::Ok().json(&**limits))
}
