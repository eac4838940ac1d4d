//! The settings as FileSpin's API spells them.
//!
//! Shapes: <https://developers.filespin.io/reference/update-image> and `update-watermark`. In the
//! vendor's list of conversions deep zoom is one more entry, with a value of its own.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::model::Person;
use crate::assets::place;
use crate::error::Code;
use crate::error::Result;
use crate::media::imaging::OutputFormat;
use crate::settings::Addons;
use crate::settings::DEEPZOOM;
use crate::settings::DeepZoom;
use crate::settings::Images;
use crate::settings::NamedConversion;
use crate::settings::Values;
use crate::wire::filespin::BUCKET;
use crate::wire::filespin::callbacks::PreprWebhookSettings;
use crate::wire::filespin::callbacks::WebhookSettings;
use crate::wire::filespin::videos::VideoSettings;

/// Every section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SettingsData {
    storage: StorageSettings,
    auth: AuthData,
    database: DatabaseSettings,
    image: ImageSettings,
    video: VideoSettings,
    addons: BTreeMap<String, AddonSettings>,
    /// Absent while none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark: Option<WatermarkData>,
    webhook: WebhookSettings,
    /// Ours: who is told in Prepr's words.
    prepr_webhook: PreprWebhookSettings,
}

/// Where what lies, in the vendor's words. That is chosen when the box starts: one folder, and for originals a
/// bucket, if there is one. So this section says what is and cannot say anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StorageSettings {
    originals_root: String,
    originals_root_folder: String,
    derivatives_root: String,
    derivatives_root_folder: String,
    transcodes_root: String,
    transcodes_root_folder: String,
}

/// The caller's keys, and the pages that may use upload keys.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuthData {
    api_key: String,
    upload_key: String,
    /// None: every page may.
    authorized_domains: Vec<String>,
    dropbox_app_key: String,
    dropbox_app_secret: String,
}

/// The section `auth` as it is sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct AuthUpdate {
    /// The present one stays; another takes its place; an empty text asks for a new one.
    pub api_key: Option<String>,
    pub upload_key: Option<String>,
    /// At most 10; each covers its subdomains.
    pub authorized_domains: Vec<String>,
    pub dropbox_app_key: Option<String>,
    pub dropbox_app_secret: Option<String>,
    /// Ours: how long keys that were replaced work, in seconds.
    pub valid_old_seconds: Option<u64>,
}

/// A database that facts about assets are exported to; there is none.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DatabaseSettings {
    connection_url: &'static str,
}

/// What is kept about an add-on; there are none here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddonSettings {
    title: String,
    description: String,
    /// Whether it was added, or when.
    added: Value,
    enabled: bool,
    settings: AddonDetails,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct AddonDetails {
    #[serde(rename = "event-hooks", default, skip_serializing_if = "Option::is_none")]
    event_hooks: Option<EventHooks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disposition: Option<Disposition>,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct EventHooks {
    #[serde(rename = "file-saved", default, skip_serializing_if = "Option::is_none")]
    file_saved: Option<EventHook>,
    #[serde(rename = "file-data-updated", default, skip_serializing_if = "Option::is_none")]
    file_data_updated: Option<EventHook>,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct EventHook {
    enabled: bool,
    content_types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema_criteria: Option<SchemaCriteria>,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct SchemaCriteria {
    data_schema_id: i64,
    fields: Value,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Disposition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass_through_fields: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confidence_threshold: Option<f64>,
    #[serde(flatten)]
    #[schemars(skip)]
    others: Map<String, Value>,
}

/// How pictures are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageSettings {
    /// On-demand images need an API key, a token or a signed link.
    is_on_demand_private: bool,
    /// At most 5, `deepzoom` included.
    conversions: Vec<Entry>,
    /// Ours: what `crop=…,face` and `crop=…,smart` keep in view, unless an asset's data say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    focal_point: Option<FocalPoint>,
}

/// In shares of the upright picture, from its top left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct FocalPoint {
    x: f32,
    y: f32,
}

/// A conversion under its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Entry {
    /// 1 to 20 letters and digits, or `deepzoom`.
    key: String,
    value: EntryValue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct EntryValue {
    /// `jpg` or `png`; ours: also `webp` and `avif`. Not for deepzoom, nor are the sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    watermark: bool,
    /// Made by itself after an upload.
    enabled: bool,
    /// Everybody may read it.
    public: bool,
    /// Pixels; the aspect ratio is kept, and with both sides the width decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dpi: Option<u16>,
}

/// What is laid over pictures.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the vendor's names")]
struct WatermarkData {
    watermark_file_key: Option<String>,
    watermark_placement: &'static str,
    watermark_scale: f64,
}

impl SettingsData {
    /// All sections as they are now. Keys are the caller's; the secret is opened by who holds the key to it;
    /// `bucket` is where originals go, if that is not the box's own folder.
    pub fn new(values: &Values, person: &Person, dropbox_app_secret: String, bucket: Option<&str>) -> SettingsData {
        SettingsData {
            storage: StorageSettings::fixed(bucket),
            auth: AuthData {
                api_key: person.api_key.clone().unwrap_or_default(),
                upload_key: person.upload_key.clone().unwrap_or_default(),
                authorized_domains: values.auth.authorized_domains.clone(),
                dropbox_app_key: values.auth.dropbox_app_key.clone(),
                dropbox_app_secret,
            },
            database: DatabaseSettings { connection_url: "" },
            image: ImageSettings::from(&values.images),
            video: VideoSettings::from(&values.videos),
            addons: values.addons.iter().filter_map(|(name, kept)| Some((name.clone(), addon(kept)?))).collect(),
            watermark: values.watermark.as_ref().map(|mark| WatermarkData {
                watermark_file_key: mark.asset.map(|id| id.to_string()),
                watermark_placement: mark.placement.word(),
                watermark_scale: mark.scale,
            }),
            webhook: WebhookSettings::from(&values.webhook),
            prepr_webhook: PreprWebhookSettings::from(&values.webhook),
        }
    }
}

impl StorageSettings {
    /// What a box answers whose originals go to this bucket, or stay with it.
    fn fixed(bucket: Option<&str>) -> StorageSettings {
        let [here, originals, conversions] = [BUCKET, place::ORIGINALS, place::CONVERSIONS].map(str::to_owned);
        StorageSettings {
            originals_root: bucket.map_or_else(|| here.clone(), str::to_owned),
            originals_root_folder: originals,
            derivatives_root: here.clone(),
            derivatives_root_folder: conversions.clone(),
            transcodes_root: here,
            transcodes_root_folder: conversions,
        }
    }

    /// Whether a box can do as it says: it has to say what is.
    pub fn judge(&self, bucket: Option<&str>) -> Result<()> {
        let named = [
            ("originals_root", &self.originals_root),
            ("originals_root_folder", &self.originals_root_folder),
            ("derivatives_root", &self.derivatives_root),
            ("derivatives_root_folder", &self.derivatives_root_folder),
            ("transcodes_root", &self.transcodes_root),
            ("transcodes_root_folder", &self.transcodes_root_folder),
        ];
        for (what, name) in named {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
            let dots = name.split('/').any(|part| part == "." || part == "..");
            if name.is_empty() || name.len() > 255 || dots || !name.bytes().all(plain) {
                return Err(
                    Code::InvalidRequest.because(format!("{what}: has to be a name, or names with `/` between"))
                );
            }
        }
        if *self == StorageSettings::fixed(bucket) {
            return Ok(());
        }
        Err(Code::FeatureUnavailable.because(
            "Where a box keeps what is the configuration's, so this section says what is and cannot be changed: \
             `data_dir` names its folder, and `storage` the bucket that originals go to, if there is one. \
             `cloakroom storage migrate` moves those that are there already.",
        ))
    }
}

/// The section `addons` as it is sent, every add-on in its documented shape.
pub fn addons(sent: Value) -> Result<Addons> {
    let read: BTreeMap<String, AddonSettings> = serde_json::from_value(sent)
        .map_err(|e| Code::InvalidRequest.because(format!("value: not the settings of add-ons by name: {e}")))?;
    Ok(read.into_iter().filter_map(|(name, addon)| Some((name, serde_json::to_value(addon).ok()?))).collect())
}

fn addon(kept: &Value) -> Option<AddonSettings> {
    serde_json::from_value(kept.clone()).ok()
}

impl From<&Images> for ImageSettings {
    fn from(images: &Images) -> ImageSettings {
        let side = |pixels: u32| (pixels > 0).then_some(pixels);
        let named = images.conversions.iter().map(|c| Entry {
            key: c.name.clone(),
            value: EntryValue {
                format: Some(c.format.extension().to_owned()),
                watermark: c.watermark,
                enabled: c.enabled,
                public: c.public,
                width: side(c.width),
                height: side(c.height),
                dpi: Some(c.dpi),
            },
        });
        let deepzoom = images.deepzoom.iter().map(|d| Entry {
            key: DEEPZOOM.to_owned(),
            value: EntryValue {
                format: None,
                watermark: d.watermark,
                enabled: d.enabled,
                public: d.public,
                width: None,
                height: None,
                dpi: None,
            },
        });
        ImageSettings {
            is_on_demand_private: images.on_demand_private,
            conversions: named.chain(deepzoom).collect(),
            focal_point: images.focus.map(|(x, y)| FocalPoint { x, y }),
        }
    }
}

impl ImageSettings {
    /// The same, as the settings keep it.
    pub fn into_domain(self) -> Result<Images> {
        let mut images = Images {
            on_demand_private: self.is_on_demand_private,
            focus: self.focal_point.map(|point| (point.x, point.y)),
            ..Images::default()
        };
        for Entry { key, value } in self.conversions {
            let EntryValue { watermark, enabled, public, .. } = value;
            if key == DEEPZOOM {
                if images.deepzoom.replace(DeepZoom { watermark, enabled, public }).is_some() {
                    return Err(Code::InvalidRequest.because("conversions: deepzoom is there twice"));
                }
                continue;
            }
            let word = value.format.as_deref().unwrap_or("jpg").to_ascii_lowercase();
            let word = if word == "jpeg" { "jpg" } else { &word };
            let format = OutputFormat::ALL.into_iter().find(|format| format.extension() == word).ok_or_else(|| {
                Code::InvalidRequest.because(format!("conversions: format of `{key}` has to be jpg, png, webp or avif"))
            })?;
            images.conversions.push(NamedConversion {
                name: key,
                format,
                width: value.width.unwrap_or(0),
                height: value.height.unwrap_or(0),
                dpi: value.dpi.unwrap_or(72),
                watermark,
                enabled,
                public,
            });
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn add_ons_are_kept_in_their_shape() {
        let hook = json!({"enabled": true, "content_types": ["image/jpeg"]});
        let criteria = json!({"data_schema_id": 1, "fields": ["a"]});
        let sent = json!({"SCENE_CLASSIFICATION": {
            "title": "Scenes", "description": "", "added": true, "enabled": true,
            "settings": {
                "event-hooks": {
                    "file-saved": hook.clone(),
                    "file-data-updated": {"enabled": false, "content_types": [], "schema_criteria": criteria},
                },
                "disposition": {"update_metadata": true, "pass_through_fields": ["x"], "confidence_threshold": 0.5},
                "model": "of their own",
            },
        }});
        let kept = addons(sent.clone()).unwrap();
        assert_eq!(Value::Object(kept.clone()), sent);
        assert_eq!(serde_json::to_value(addon(&kept["SCENE_CLASSIFICATION"])).unwrap(), sent["SCENE_CLASSIFICATION"]);
        for bad in [json!([]), json!({"A": {}}), json!({"A": 1}), json!(null)] {
            assert_eq!(addons(bad).unwrap_err().code, Code::InvalidRequest);
        }
    }

    #[test]
    fn storage_says_what_is() {
        let fixed = StorageSettings::fixed(None);
        assert!(fixed.judge(None).is_ok());
        let other = StorageSettings { originals_root: "my-bucket".into(), ..fixed.clone() };
        assert_eq!(other.judge(None).unwrap_err().code, Code::FeatureUnavailable);
        // What is made of originals stays with the box.
        assert!(other.judge(Some("my-bucket")).is_ok());
        assert_eq!(fixed.judge(Some("my-bucket")).unwrap_err().code, Code::FeatureUnavailable);
        for bad in ["", "../up", "a b", "x\0"] {
            let bad = StorageSettings { originals_root_folder: bad.into(), ..fixed.clone() };
            assert_eq!(bad.judge(None).unwrap_err().code, Code::InvalidRequest);
        }
    }

    #[test]
    fn there_and_back() {
        let sent = json!({
            "is_on_demand_private": true,
            "conversions": [
                {"key": "web500", "value": {"format": "jpg", "watermark": true, "enabled": true, "public": true,
                                            "width": 500, "height": 300, "dpi": 72}},
                {"key": "deepzoom", "value": {"watermark": false, "enabled": true, "public": false}},
            ],
        });
        let read: ImageSettings = serde_json::from_value(sent.clone()).unwrap();
        let images = read.into_domain().unwrap();
        assert!(images.on_demand_private && images.deepzoom.is_some());
        assert_eq!(images.conversions[0].width, 500);
        assert_eq!(serde_json::to_value(ImageSettings::from(&images)).unwrap(), sent);
    }
}
