//! The settings as FileSpin's API spells them.
//!
//! Shapes: <https://developers.filespin.io/reference/update-image> and `update-watermark`. In the
//! vendor's list of conversions deep zoom is one more entry, with a value of its own.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::error::Code;
use crate::error::Result;
use crate::media::imaging::OutputFormat;
use crate::settings::DEEPZOOM;
use crate::settings::DeepZoom;
use crate::settings::Images;
use crate::settings::NamedConversion;
use crate::settings::Values;
use crate::wire::filespin::callbacks::WebhookSettings;
use crate::wire::filespin::videos::VideoSettings;

/// Every section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SettingsData {
    image: ImageSettings,
    video: VideoSettings,
    /// Absent while none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark: Option<WatermarkData>,
    webhook: WebhookSettings,
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

impl From<&Values> for SettingsData {
    fn from(values: &Values) -> SettingsData {
        SettingsData {
            image: ImageSettings::from(&values.images),
            video: VideoSettings::from(&values.videos),
            watermark: values.watermark.as_ref().map(|mark| WatermarkData {
                watermark_file_key: mark.asset.map(|id| id.to_string()),
                watermark_placement: mark.placement.word(),
                watermark_scale: mark.scale,
            }),
            webhook: WebhookSettings::from(&values.webhook),
        }
    }
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
