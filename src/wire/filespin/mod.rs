//! Asset data, jobs and their parts as FileSpin's API spells them.
//!
//! Shapes: <https://developers.filespin.io/reference/asset-api>. Names, order of meaning and
//! types are the vendor's; nothing here decides anything.

pub mod settings;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::assets::Asset;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::place;
use crate::processing::Round;
use crate::processing::Step;
use crate::processing::keys;
use crate::support::clock::Instant;

/// Where local content lies, in the vendor's words.
const STORAGE_TYPE: &str = "FILESPIN";
const BUCKET: &str = "cloakroom";
const PROVIDER: &str = "local";

/// Facts that stay inside: where a picture was taken is nobody's business by default.
const PRIVATE_FACTS: &[&str] = &["gps"];

/// Everything that is known about an asset.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AssetData {
    /// 32 lower-case hex digits.
    id: String,
    /// `QUEUED`, `NOT_READY`, `OK`, `ERROR` or `ARCHIVED`.
    status: &'static str,
    name: String,
    /// Bytes.
    size: u64,
    /// MD5, in hex.
    checksum: String,
    provider: &'static str,
    storage_type: &'static str,
    bucket: &'static str,
    key: String,
    /// The original can be read by anyone.
    public: bool,
    /// What the content is, by looking at it.
    content_type: String,
    creator_id: i64,
    /// `YYYY-MM-DDTHH:MM:SSZ`
    upload_time: String,
    update_user_id: i64,
    update_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_source: Option<String>,
    data_schema_id: i64,
    /// Read-only: `width`, `height` (pixels, upright), `duration` (seconds), `Make`, `Model`, ...
    metadata: Map<String, Value>,
    /// What people and programs wrote.
    data: Map<String, Value>,
    conversions: BTreeMap<String, ConversionData>,
    addons_info: BTreeMap<&'static str, AddonInfo>,
    /// `original` (fatal) or `warning`, and a sentence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, String>,
}

/// A stored derivative.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConversionData {
    storage_type: &'static str,
    bucket: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    size: u64,
    public: bool,
    watermarked: bool,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AddonInfo {
    available: bool,
}

impl From<&Full> for AssetData {
    fn from(full: &Full) -> AssetData {
        let Asset { id, revision, .. } = full.asset;
        let asset = full.asset.clone();
        let mut metadata = asset.facts;
        metadata.retain(|name, _| !PRIVATE_FACTS.contains(&name.as_str()));
        AssetData {
            id: id.to_string(),
            status: asset.status.word(),
            name: asset.name,
            size: asset.size_bytes,
            checksum: asset.md5,
            provider: PROVIDER,
            storage_type: STORAGE_TYPE,
            bucket: BUCKET,
            key: place::original(id, revision).map(|p| format!("/{}", p.as_str())).unwrap_or_default(),
            public: asset.public,
            content_type: asset.content_type,
            creator_id: asset.creator_id,
            upload_time: asset.uploaded_at.iso(),
            update_user_id: asset.updater_id,
            update_time: asset.updated_at.iso(),
            upload_source: asset.upload_source,
            data_schema_id: asset.data_schema_id,
            metadata,
            data: asset.data,
            conversions: full
                .conversions
                .iter()
                // The base image is ours, not an account's conversion.
                .filter(|c| !keys::KEYS.iter().any(|k| k.name() == c.key && k.is_internal()))
                .map(|c| (c.key.clone(), conversion(&full.asset, c)))
                .collect(),
            addons_info: BTreeMap::from([("ON_DEMAND_IMAGE", AddonInfo { available: asset.on_demand })]),
            errors: asset.errors,
        }
    }
}

fn conversion(asset: &Asset, c: &Conversion) -> ConversionData {
    let place = place::conversion(asset.id, asset.revision, &c.key, &c.extension);
    ConversionData {
        storage_type: STORAGE_TYPE,
        bucket: BUCKET,
        key: place.map(|p| format!("/{}", p.as_str())).unwrap_or_default(),
        width: c.width,
        height: c.height,
        duration: c.duration_seconds,
        size: c.size_bytes,
        public: c.public,
        watermarked: c.watermarked,
    }
}

/// What an upload answers for each file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct UploadedFile {
    id: String,
    status: &'static str,
    name: String,
    size: u64,
    checksum: String,
    content_type: String,
    /// A small preview, for pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail: Option<String>,
}

impl UploadedFile {
    /// `base` is the origin under which the caller reached us.
    pub fn new(asset: &Asset, base: &str) -> UploadedFile {
        UploadedFile {
            id: asset.id.to_string(),
            status: asset.status.word(),
            name: asset.name.clone(),
            size: asset.size_bytes,
            checksum: asset.md5.clone(),
            content_type: asset.content_type.clone(),
            thumbnail: asset
                .has_picture()
                .then(|| format!("{base}/api/v1/assets/{}/conversions?resize=200,200", asset.id)),
        }
    }
}

/// The union of both documented answers to an upload.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Uploaded {
    pub assets: Vec<UploadedFile>,
    /// The same list under the older name.
    pub files: Vec<UploadedFile>,
    pub success: bool,
    pub provider: &'static str,
}

impl Uploaded {
    pub fn new(assets: &[Asset], base: &str) -> Uploaded {
        let files: Vec<_> = assets.iter().map(|asset| UploadedFile::new(asset, base)).collect();
        Uploaded { assets: files.clone(), files, success: true, provider: PROVIDER }
    }
}

/// What the API calls a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JobData {
    /// `QUEUED`, `IN_PROGRESS`, `COMPLETED` or `ERROR`.
    status: &'static str,
    message: String,
    job_id: i64,
    asset_id: String,
    creator_id: i64,
    requested_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    /// By family (`conversions`, `transcodes`, `addons`), then by processing key.
    job_steps: BTreeMap<&'static str, BTreeMap<String, StepData>>,
    input: Map<String, Value>,
    callback: Map<String, Value>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StepData {
    status: &'static str,
    percent_complete: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    message: String,
}

impl From<&Round> for JobData {
    fn from(round: &Round) -> JobData {
        let failed = round.steps.iter().find(|s| !s.message.is_empty());
        let steps = round.steps.iter().map(|s| (s.key.clone(), StepData::from(s))).collect();
        JobData {
            status: round.status.word(),
            message: failed.map(|s| s.message.clone()).unwrap_or_default(),
            job_id: round.id,
            asset_id: round.asset_id.to_string(),
            creator_id: round.creator_id,
            requested_at: round.requested_at.iso(),
            completed_at: round.completed_at.map(Instant::iso),
            job_steps: BTreeMap::from([("conversions", steps)]),
            input: Map::new(),
            callback: Map::new(),
            kind: round.kind.clone(),
        }
    }
}

impl From<&Step> for StepData {
    fn from(step: &Step) -> StepData {
        StepData {
            status: step.status.word(),
            percent_complete: step.percent,
            started_at: step.started_at.map(Instant::iso),
            finished_at: step.finished_at.map(Instant::iso),
            message: step.message.clone(),
        }
    }
}
