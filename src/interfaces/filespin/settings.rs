//! Settings: all of them, and one section at a time.
//!
//! Shapes: <https://developers.filespin.io/reference/update-image>, `update-video`,
//! `update-watermark`, `webhook-update` and `user-update-addons-settings`. `focal_point` and
//! `valid_old_seconds` are ours.
//!
//! Keys in the section `auth` are the caller's; everything else is the box's.

use actix_web::HttpResponse;
use actix_web::web::Data;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::NewKey;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::delivery::Delivery;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::interfaces::filespin::account;
use crate::interfaces::filespin::reply::private;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::Auth;
use crate::settings::Placement;
use crate::settings::Settings;
use crate::webhooks::Webhooks;
use crate::wire::filespin::callbacks::PreprWebhookUpdate;
use crate::wire::filespin::callbacks::WebhookUpdate;
use crate::wire::filespin::settings::AuthUpdate;
use crate::wire::filespin::settings::ImageSettings;
use crate::wire::filespin::settings::SettingsData;
use crate::wire::filespin::settings::StorageSettings;
use crate::wire::filespin::settings::addons;
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
        .query([("update_key", "The section, when the body does not say")])
        .takes(Body::json::<Update>())
        .answers(200, Body::json::<SettingsData>())
        .refuses(&[
            Code::InvalidRequest,
            Code::MissingParameter,
            Code::AssetNotFound,
            Code::Conflict,
            Code::FeatureUnavailable,
            Code::UrlNotAllowed,
            Code::TooLarge,
            Code::UploadIncomplete,
            Code::BodyTooSlow,
        ]);
    }
}

/// A section and what it is to be, whole.
#[derive(Deserialize, JsonSchema)]
struct Update {
    /// `storage`, `auth`, `webhook`, `database`, `image`, `video`, `addons`, `watermark` or `prepr_webhook`
    key: Option<String>,
    /// The section, whole. `null` takes the watermark away.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
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

async fn all(
    accounts: Data<Accounts>,
    settings: Data<Settings>,
    delivery: Data<Delivery>,
    caller: Caller,
) -> Reply<HttpResponse> {
    shown(&accounts, &settings, &delivery, &caller).await
}

async fn update(
    accounts: Data<Accounts>,
    settings: Data<Settings>,
    delivery: Data<Delivery>,
    caller: Caller,
    webhooks: Data<Webhooks>,
    query: Pairs,
    body: JsonBody<Update>,
) -> Reply<HttpResponse> {
    let Update { key, value } = body.0;
    let key = key.as_deref().or(query.get("update_key"));
    let key =
        key.ok_or_else(|| Code::MissingParameter.because("key: name a section of the settings, such as image"))?;
    let value = value.ok_or_else(|| Code::MissingParameter.because("value: send the whole section"))?;
    if let Some((_, mandatory)) = MANDATORY.iter().find(|(section, _)| *section == key && !value.is_null()) {
        whole(&value, mandatory)?;
    }
    match key {
        "storage" => read::<StorageSettings>(value)?.judge(delivery.bucket())?,
        "auth" => set_auth(&accounts, &settings, &caller, read(value)?).await?,
        "database" => no_database(&value)?,
        "image" => settings.set_images(read::<ImageSettings>(value)?.into_domain()?).await?,
        "video" => settings.set_videos(read::<VideoSettings>(value)?.into_domain()?).await?,
        "addons" => settings.set_addons(addons(value)?).await?,
        "watermark" if value.is_null() => settings.set_watermark(None).await?,
        "watermark" => set_watermark(&delivery, read(value)?).await?,
        "webhook" => {
            let update = read::<WebhookUpdate>(value)?;
            webhooks.configure(update.web_urls.into_list(), update.callback_events.into()).await?;
        }
        "prepr_webhook" => {
            let update = read::<PreprWebhookUpdate>(value)?;
            let wanted = update.wanted();
            webhooks.configure_prepr(update.web_urls.into_list(), wanted).await?;
        }
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(Code::InvalidRequest.because(format!("there is no section `{other}`")).into());
        }
    }
    shown(&accounts, &settings, &delivery, &caller).await
}

/// How many missing names a refusal spells out.
const MOST_NAMED: usize = 10;

/// Sections whose sub-keys all have to be there. `*` stands for every member of a list or an object; what it leads
/// to has to be there in each.
const MANDATORY: &[(&str, &[&str])] = &[
    (
        "storage",
        &[
            "originals_root",
            "originals_root_folder",
            "derivatives_root",
            "derivatives_root_folder",
            "transcodes_root",
            "transcodes_root_folder",
        ],
    ),
    ("auth", &["upload_key", "authorized_domains", "dropbox_app_key", "dropbox_app_secret", "api_key"]),
    (
        "image",
        &[
            "is_on_demand_private",
            "conversions",
            "conversions/*/key",
            "conversions/*/value/watermark",
            "conversions/*/value/enabled",
            "conversions/*/value/public",
        ],
    ),
    (
        "video",
        &[
            "video_transcode_test_mode",
            "thumbnails/video_default/width",
            "thumbnails/video_default/height",
            "thumbnails/storyboard/enabled",
            "thumbnails/storyboard/mode",
            "thumbnails/storyboard/mode_value",
            "thumbnails/storyboard/width",
            "thumbnails/storyboard/height",
            "thumbnails/storyboard/public",
            "thumbnails/storyboard/aspect",
            "thumbnails/storyboard/padding",
            "thumbnails/storyboard/upscale",
            "preview/video_preview_enabled",
            "preview/video_preview_public",
            "preview/video_preview_start",
            "preview/video_preview_length",
            "preview/video_preview_preset",
            "preview/video_preview_aspect",
            "preview/video_preview_padding",
            "preview/video_preview_upscale",
            "transcodes/360p-video",
            "transcodes/360p-wm-video",
            "transcodes/480p-video",
            "transcodes/480p-wm-video",
            "transcodes/720p-video",
            "transcodes/720p-wm-video",
            "transcodes/1080p-video",
            "transcodes/1080p-wm-video",
            "transcodes/hls-video",
            "transcodes/hls-video/watermark",
            "transcodes/*/enabled",
            "transcodes/*/public",
            "transcodes/*/aspect",
            "transcodes/*/padding",
            "transcodes/*/upscale",
        ],
    ),
    ("addons", &["*/title", "*/description", "*/added", "*/enabled", "*/settings"]),
    (
        "webhook",
        &[
            "web_urls",
            "callback_events/file-saved",
            "callback_events/file-processed",
            "callback_events/file-data-updated",
            "callback_events/file-deleted",
            "callback_events/file-undeleted",
            "callback_events/addon-processed",
        ],
    ),
    ("watermark", &["watermarkPlacement", "watermarkScale"]),
];

/// That nothing of a section is left out. What is of another kind than it should be is said by who reads it.
fn whole(value: &Value, mandatory: &[&str]) -> Result<()> {
    if !value.is_object() {
        return Err(Code::InvalidRequest.because("value: has to be an object"));
    }
    let mut missing = Vec::new();
    for path in mandatory {
        let names: Vec<&str> = path.split('/').collect();
        gather_missing(value, &names, &[], &mut missing);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let left_out = missing.len().saturating_sub(MOST_NAMED);
    let named: Vec<String> = missing.into_iter().take(MOST_NAMED).collect();
    let more = if left_out > 0 { format!(" and {left_out} more") } else { String::new() };
    Err(Code::MissingParameter
        .because(format!("value: a section is replaced whole; missing: {}{more}", named.join(", "))))
}

/// Adds the first name on a path that is not there.
fn gather_missing(value: &Value, names: &[&str], behind: &[&str], missing: &mut Vec<String>) {
    let Some((name, further)) = names.split_first() else { return };
    let mut follow = |name: &str, value| gather_missing(value, further, &[behind, &[name]].concat(), missing);
    match value {
        Value::Object(members) if *name == "*" => members.iter().for_each(|(name, value)| follow(name, value)),
        Value::Array(items) if *name == "*" => {
            items.iter().enumerate().for_each(|(n, value)| follow(&n.to_string(), value));
        }
        Value::Object(members) => {
            // Also as the vendor's older page spells it, with underscores.
            if let Some(value) = members.get(*name).or_else(|| members.get(&name.replace('-', "_"))) {
                follow(name, value);
                return;
            }
            let path = [behind, &[name]].concat().join("/");
            if !missing.contains(&path) {
                missing.push(path);
            }
        }
        _ => {}
    }
}

async fn shown(accounts: &Accounts, settings: &Settings, delivery: &Delivery, caller: &Caller) -> Reply<HttpResponse> {
    let values = settings.now();
    let person = accounts.person(caller.user_id()).await?;
    let sealed = &values.auth.dropbox_app_secret;
    let secret = if sealed.is_empty() { String::new() } else { accounts.unseal(sealed).unwrap_or_default() };
    Ok(private(&SettingsData::new(&values, &person, secret, delivery.bucket())))
}

/// Keys belong to the caller, the rest to the box.
async fn set_auth(accounts: &Accounts, settings: &Settings, caller: &Caller, update: AuthUpdate) -> Result<()> {
    let secret = update.dropbox_app_secret.filter(|secret| !secret.is_empty());
    let auth = Auth {
        authorized_domains: update.authorized_domains,
        dropbox_app_key: update.dropbox_app_key.unwrap_or_default(),
        dropbox_app_secret: secret.map(|secret| accounts.seal(&secret)).transpose()?.unwrap_or_default(),
    };
    let auth = auth.checked()?;
    let valid_old = account::old_key_life(accounts, update.valid_old_seconds)?;
    let (api, upload) = (NewKey::of(update.api_key), NewKey::of(update.upload_key));
    let settings = settings.clone();
    let domains = move |tx: &Tx| settings.edit(tx, |values| values.auth = auth);
    accounts.set_keys(caller.user_id(), api, upload, valid_old, domains).await
}

/// Whatever names a database is refused; naming none is what is.
fn no_database(value: &Value) -> Result<()> {
    fn names_nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(object) => object.values().all(names_nothing),
            _ => false,
        }
    }
    if names_nothing(value) {
        return Ok(());
    }
    Err(Code::FeatureUnavailable.because(
        "This box exports to no database. Follow its webhooks, or read the API, to keep another database up to date.",
    ))
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
    let asset = asset.map(|key| key.parse::<AssetId>().map_err(|()| Code::AssetNotFound)).transpose()?;
    delivery.set_watermark(asset, placement, scale).await
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Code::InvalidRequest.because(format!("value: {e}")))
}
