//! Settings: all of them, and one section at a time.
//!
//! Shapes: <https://developers.filespin.io/reference/update-image>, `update-video`,
//! `update-watermark` and `webhook-update`. The vendor's words for the sections are `image`,
//! `video`, `watermark` and `webhook`; `focal_point` is ours.

use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::Placement;
use crate::settings::Settings;
use crate::webhooks::Webhooks;
use crate::wire::filespin::callbacks::WebhookUpdate;
use crate::wire::filespin::settings::ImageSettings;
use crate::wire::filespin::settings::SettingsData;
use crate::wire::filespin::videos::VideoSettings;

pub fn mount(r: &mut Routes) {
    r.get("/api/v1/user/settings", Permission::UpdateSettings, all, "Every section of the settings")
        .answers(200, Body::json::<SettingsData>());
    for method in [Routes::patch, Routes::post] {
        method(
            r,
            "/api/v1/user/settings/update",
            Permission::UpdateSettings,
            update,
            "Replaces one section of the settings",
        )
        .query([("update_key", "The section, when the body does not say: `image`, `video`, `watermark` or `webhook`")])
        .takes(Body::json::<Update>())
        .answers(200, Body::json::<SettingsData>())
        .refuses(&[Code::InvalidRequest, Code::MissingParameter, Code::AssetNotFound, Code::UrlNotAllowed]);
    }
}

/// A section and what it is to be, whole.
#[derive(Deserialize, JsonSchema)]
struct Update {
    /// `image`, `video`, `watermark` or `webhook`
    key: Option<String>,
    value: Value,
}

/// The section `watermark`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the vendor's names")]
struct WatermarkUpdate {
    /// The id of the asset whose image becomes the watermark; the present one when absent.
    watermark_file_key: Option<String>,
    /// `center`, `top-left`, `top-right`, `bottom-left` or `bottom-right`
    watermark_placement: String,
    /// The largest share of a picture's width and height, above 0 and up to 1.
    watermark_scale: f64,
}

async fn all(settings: Data<Settings>) -> Json<SettingsData> {
    Json(SettingsData::from(&*settings.now()))
}

async fn update(
    settings: Data<Settings>,
    delivery: Data<Delivery>,
    webhooks: Data<Webhooks>,
    query: Pairs,
    body: JsonBody<Update>,
) -> Reply<Json<SettingsData>> {
    let Update { key, value } = body.0;
    let key = key.as_deref().or(query.get("update_key"));
    match key {
        Some("image") => settings.set_images(read::<ImageSettings>(value)?.into_domain()?).await?,
        Some("video") => {
            let before = settings.now();
            settings.set_videos(read::<VideoSettings>(value)?.into_domain(&before.videos)?).await?;
        }
        Some("watermark") if value.is_null() => settings.set_watermark(None).await?,
        Some("watermark") => set_watermark(&delivery, read(value)?).await?,
        Some("webhook") => {
            let update = read::<WebhookUpdate>(value)?;
            webhooks.configure(update.web_urls.into_list(), update.callback_events.into()).await?;
        }
        Some(other) => return Err(Code::InvalidRequest.because(format!("there is no section `{other}`")).into()),
        None => return Err(Code::MissingParameter.because("key: which section of the settings?").into()),
    }
    Ok(Json(SettingsData::from(&*settings.now())))
}

async fn set_watermark(delivery: &Delivery, update: WatermarkUpdate) -> Result<()> {
    let placement = Placement::from_word(&update.watermark_placement).ok_or_else(|| {
        let words: Vec<&str> = Placement::ALL.iter().map(|placement| placement.word()).collect();
        Code::InvalidRequest.because(format!("watermarkPlacement has to be {}", words.join(", ")))
    })?;
    let scale = update.watermark_scale;
    if !(scale > 0.0 && scale <= 1.0) {
        return Err(Code::InvalidRequest.because("watermarkScale has to be above 0 and at most 1"));
    }
    let asset = update.watermark_file_key.filter(|key| !key.is_empty());
    let asset = asset
        .map(|key| key.parse::<AssetId>().map_err(|()| Code::AssetNotFound.because(format!("no asset `{key}`"))))
        .transpose()?;
    delivery.set_watermark(asset, placement, scale).await
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Code::InvalidRequest.because(format!("value: {e}")))
}
