//! Asset data, jobs and their parts as FileSpin's API spells them.
//!
//! Shapes: <https://developers.filespin.io/reference/asset-api>. Names, order of meaning and
//! types are the vendor's; nothing here decides anything.

pub mod callbacks;
pub mod settings;
pub mod users;
pub mod videos;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::assets::AUDIO_PREVIEW;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::place;
use crate::error::Code;
use crate::error::Result;
use crate::infra::storage::Backend;
use crate::processing::Round;
use crate::processing::RoundStatus;
use crate::processing::Step;
use crate::processing::keys;
use crate::settings::videos::CLIP_PREVIEW;
use crate::support::clock::Instant;
use crate::wire::filespin::callbacks::SmallBody;

/// Where local content lies, in the vendor's words.
const STORAGE_TYPE: &str = "FILESPIN";
const BUCKET: &str = "cloakroom";
const PROVIDER: &str = "local";

/// What a round is called in which something is made of a film.
const FILM: &str = "VIDEO_TRANSCODE";

/// Processing keys whose steps are transcodes, beside those that end in `-video`.
const TRANSCODES: &[&str] = &[CLIP_PREVIEW, AUDIO_PREVIEW];

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
    /// `FILESPIN` on this box, `AMAZON_S3` or `CLOUDFLARE_R2` in a bucket.
    storage_type: &'static str,
    bucket: String,
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
    #[schemars(default)]
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
        let metadata = shown(asset.facts);
        AssetData {
            id: id.to_string(),
            status: asset.status.word(),
            name: asset.name,
            size: asset.size_bytes,
            checksum: asset.md5,
            provider: PROVIDER,
            storage_type: match asset.home {
                Backend::Fs => STORAGE_TYPE,
                Backend::S3 => "AMAZON_S3",
                Backend::R2 => "CLOUDFLARE_R2",
            },
            bucket: if asset.home == Backend::Fs { BUCKET.to_owned() } else { asset.bucket },
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
                .filter(|c| !c.is_internal())
                .map(|c| (c.key.clone(), conversion(&full.asset, c)))
                .collect(),
            addons_info: BTreeMap::from([("ON_DEMAND_IMAGE", AddonInfo { available: asset.on_demand })]),
            errors: asset.errors,
        }
    }
}

/// What everybody may know who may know of the asset.
fn shown(mut facts: Map<String, Value>) -> Map<String, Value> {
    facts.retain(|name, _| !PRIVATE_FACTS.contains(&name.as_str()));
    facts
}

fn conversion(asset: &Asset, c: &Conversion) -> ConversionData {
    let place = place::conversion(asset.id, c);
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
    /// As in the asset's data. An upload is answered before anybody has looked at the file: empty then.
    metadata: Map<String, Value>,
    /// A small preview, for pictures and films.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail: Option<String>,
    /// Assets that came before and have the same content, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    duplicate_of: Vec<String>,
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
            metadata: shown(asset.facts.clone()),
            thumbnail: (asset.has_picture() || asset.is_film())
                .then(|| format!("{base}/api/v1/assets/{}/conversions?resize=200,200", asset.id)),
            duplicate_of: Vec::new(),
        }
    }
}

/// What a sender says about the files of an upload, as the field `custom_metadata`.
#[derive(Debug, Default, Deserialize)]
pub struct CustomMetadata {
    #[serde(default)]
    pub data: Map<String, Value>,
    #[serde(default)]
    pub data_schema_id: i64,
}

impl CustomMetadata {
    /// The field of a form, or the key in a list, that holds it.
    pub const NAME: &str = "custom_metadata";

    pub fn parse(text: &str) -> Result<CustomMetadata> {
        serde_json::from_str(text).map_err(|e| {
            Code::InvalidRequest.because(format!(
                "custom_metadata is not the JSON text {{\"data\": {{...}}, \"data_schema_id\": 1}}: {e}."
            ))
        })
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

    /// The same, saying of each file which assets have its content already.
    #[must_use]
    pub fn noting(mut self, duplicates: &[Vec<AssetId>]) -> Uploaded {
        for (file, same) in self.files.iter_mut().zip(duplicates) {
            file.duplicate_of = same.iter().map(AssetId::to_string).collect();
        }
        self.assets.clone_from(&self.files);
        self
    }
}

/// What the API calls a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JobData {
    /// `QUEUED`, `IN_PROGRESS`, `COMPLETED` or `ERROR`.
    status: &'static str,
    message: String,
    job_id: i64,
    /// Absent when it is about many.
    #[serde(skip_serializing_if = "Option::is_none")]
    asset_id: Option<String>,
    creator_id: i64,
    requested_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    job_steps: StepsData,
    /// Of one about many: what was asked for.
    input: Map<String, Value>,
    /// Ours: how far one about many is. `total`, `done`, and `errors` by asset id; of `BULK_PROCESS` also `jobs`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(default)]
    progress: Map<String, Value>,
    /// Empty until it is over. Then what `file-processed` was told about; of one about many what `progress`
    /// says at the end; of one that ended with the content it was about, `status` and `message`.
    callback: JobCallback,
    /// `IMAGE`, `VIDEO_TRANSCODE`, `BULK_DELETE`, `BULK_PROCESS` or `PURGE`.
    #[serde(rename = "type")]
    kind: String,
}

/// What has come of a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum JobCallback {
    Processed(SmallBody),
    Outcome(Map<String, Value>),
}

/// Steps by family, then by processing key.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct StepsData {
    /// Of films: done as soon as one of the others has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    preprocess: Option<StepData>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    conversions: BTreeMap<String, StepData>,
    /// Renditions, streams and previews of films and recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcodes: Option<BTreeMap<String, StepData>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    addons: BTreeMap<String, StepData>,
    /// The one step of a job about many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    bulk: BTreeMap<String, StepData>,
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
        JobData {
            status: round.status.word(),
            message: failure(round).to_owned(),
            job_id: round.id,
            asset_id: round.asset_id.map(|id| id.to_string()),
            creator_id: round.creator_id,
            requested_at: round.requested_at.iso(),
            completed_at: round.completed_at.map(Instant::iso),
            job_steps: StepsData::from(round),
            input: round.input.clone(),
            progress: if round.asset_id.is_none() { round.outcome.clone() } else { Map::new() },
            callback: JobCallback::from(round),
            kind: round.kind.clone(),
        }
    }
}

/// What succeeds may have something to say, too; that stays with its step.
fn failure(round: &Round) -> &str {
    round.steps.iter().find(|step| step.status == RoundStatus::Error).map_or("", |step| &step.message)
}

impl From<&Round> for JobCallback {
    fn from(round: &Round) -> JobCallback {
        match round.asset_id {
            _ if round.completed_at.is_none() => JobCallback::Outcome(Map::new()),
            _ if !round.outcome.is_empty() => JobCallback::Outcome(round.outcome.clone()),
            Some(id) => JobCallback::Processed(SmallBody::processed(id, &round.steps)),
            // Cancelled before anything came of it.
            None => JobCallback::Outcome(Map::from_iter([
                ("status".to_owned(), round.status.word().into()),
                ("message".to_owned(), failure(round).into()),
            ])),
        }
    }
}

impl From<&Round> for StepsData {
    fn from(round: &Round) -> StepsData {
        let mut steps = StepsData::default();
        if round.kind == FILM {
            let begun = round.steps.iter().filter_map(|step| step.started_at).min();
            steps.preprocess = Some(StepData {
                status: if begun.is_some() { RoundStatus::Completed } else { RoundStatus::Queued }.word(),
                percent_complete: if begun.is_some() { 100 } else { 0 },
                started_at: begun.map(Instant::iso),
                finished_at: begun.map(Instant::iso),
                message: String::new(),
            });
            steps.transcodes = Some(BTreeMap::new());
        }
        for step in &round.steps {
            let family = match &*step.key {
                _ if round.asset_id.is_none() => &mut steps.bulk,
                key if keys::is_addon(key) => &mut steps.addons,
                key if key.ends_with("-video") || TRANSCODES.contains(&key) => steps.transcodes.get_or_insert_default(),
                _ => &mut steps.conversions,
            };
            family.insert(step.key.clone(), StepData::from(step));
        }
        steps
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round(kind: &str, steps: &[(&str, RoundStatus, u8, Option<i64>)]) -> Round {
        let step = |&(key, status, percent, started): &(&str, RoundStatus, u8, Option<i64>)| Step {
            key: key.to_owned(),
            status,
            percent,
            started_at: started.map(|seconds| Instant(seconds * 1000)),
            finished_at: None,
            message: match status {
                RoundStatus::Completed => "made with x264enc".to_owned(),
                RoundStatus::Error => "cannot be decoded".to_owned(),
                _ => String::new(),
            },
        };
        Round {
            id: 1234,
            asset_id: (!kind.starts_with("BULK")).then(|| "99d819953914402babbdeb68337ea6a3".parse().unwrap()),
            revision: Some(1),
            creator_id: 272,
            kind: kind.to_owned(),
            status: RoundStatus::InProgress,
            requested_at: Instant(0),
            completed_at: None,
            input: Map::new(),
            outcome: Map::new(),
            steps: steps.iter().map(step).collect(),
        }
    }

    fn told(round: &Round) -> Value {
        serde_json::to_value(JobData::from(round)).unwrap()
    }

    fn job(kind: &str, steps: &[(&str, RoundStatus, u8, Option<i64>)]) -> Value {
        told(&round(kind, steps))
    }

    #[test]
    fn steps_of_films_have_the_families_of_the_contract() {
        use RoundStatus::InProgress;
        use RoundStatus::Queued;
        let told = job(
            "VIDEO_TRANSCODE",
            &[
                ("720p-wm-video", InProgress, 40, Some(9)),
                ("clip_preview", Queued, 0, None),
                ("hls-video", InProgress, 40, Some(8)),
                ("poster", Queued, 0, None),
                ("storyboard", Queued, 0, None),
            ],
        );
        assert_eq!(told["type"], "VIDEO_TRANSCODE");
        let waiting = json!({"status": "QUEUED", "percent_complete": 0, "message": ""});
        let under_way =
            |at: &str| json!({"status": "IN_PROGRESS", "percent_complete": 40, "started_at": at, "message": ""});
        assert_eq!(
            told["job_steps"],
            json!({
                "preprocess": {"status": "COMPLETED", "percent_complete": 100, "started_at": "1970-01-01T00:00:08Z",
                               "finished_at": "1970-01-01T00:00:08Z", "message": ""},
                "conversions": {"poster": waiting},
                "transcodes": {"720p-wm-video": under_way("1970-01-01T00:00:09Z"), "clip_preview": waiting,
                               "hls-video": under_way("1970-01-01T00:00:08Z")},
                "addons": {"storyboard": waiting},
            })
        );
        let queued = job("VIDEO_TRANSCODE", &[("storyboard", Queued, 0, None)]);
        assert_eq!(queued["job_steps"]["preprocess"]["status"], "QUEUED");
        assert_eq!(queued["job_steps"]["transcodes"], json!({}));
        // What goes well may have something to say, which is not what the job has to say.
        let ended = [("720p-video", RoundStatus::Completed, 100, None), ("hls-video", RoundStatus::Error, 3, None)];
        assert_eq!(job("VIDEO_TRANSCODE", &ended[..1])["message"], "");
        assert_eq!(job("VIDEO_TRANSCODE", &ended)["message"], "cannot be decoded");
        let bulk = job("BULK_PROCESS", &[("process", Queued, 0, None)]);
        assert_eq!((&bulk["job_steps"], bulk.get("asset_id")), (&json!({"bulk": {"process": waiting}}), None));
        let image = job("IMAGE", &[("smart_imaging", Queued, 0, None)]);
        assert_eq!(image["job_steps"], json!({"conversions": {"smart_imaging": waiting}}));
    }

    #[test]
    fn a_callback_is_empty_until_the_job_is_over() {
        use RoundStatus::Completed;
        use RoundStatus::Error;
        use RoundStatus::InProgress;
        let id = "99d819953914402babbdeb68337ea6a3";
        let ended = |round: Round| Round { status: Completed, completed_at: Some(Instant(0)), ..round };
        let (one, other) = (("360p-video", Completed, 100, None), ("hls-video", Error, 3, None));
        let failed = "cannot be decoded";
        for (steps, expected) in [
            (&[one][..], json!({"status": "OK", "message": "", "statusMsg": ""})),
            (
                &[one, other],
                json!({"status": "MAYBE", "message": failed, "statusMsg": failed, "errors": {"hls-video": failed}}),
            ),
            (
                &[other],
                json!({"status": "ERROR", "message": failed, "statusMsg": failed, "errors": {"hls-video": failed}}),
            ),
        ] {
            let under_way = round("VIDEO_TRANSCODE", steps);
            assert_eq!(told(&under_way)["callback"], json!({}));
            let callback = told(&ended(under_way))["callback"].clone();
            let keys: Vec<&str> = steps.iter().map(|step| step.0).collect();
            assert_eq!((&callback["event"], &callback["id"]), (&json!("file-processed"), &json!(id)));
            assert_eq!(callback["keys"], json!(keys));
            for name in ["status", "message", "statusMsg", "errors"] {
                assert_eq!(callback.get(name), expected.get(name), "{name} of {keys:?}");
            }
        }

        // Nobody was told of these: what was written down instead.
        let gone = json!({"status": "ERROR", "message": "The asset was deleted."});
        let outcome = gone.as_object().unwrap().clone();
        assert_eq!(told(&ended(Round { outcome, ..round("IMAGE", &[other]) }))["callback"], gone);

        // One about many counts, which is no callback.
        let counted = json!({"total": 60, "done": 50, "errors": {}});
        let outcome = counted.as_object().unwrap().clone();
        let bulk = Round { outcome, ..round("BULK_DELETE", &[("delete", InProgress, 83, None)]) };
        assert_eq!((&told(&bulk)["callback"], &told(&bulk)["progress"]), (&json!({}), &counted));
        let over = told(&ended(bulk));
        assert_eq!((&over["callback"], &over["progress"]), (&counted, &counted));
        let nothing = told(&ended(round("BULK_DELETE", &[("delete", Error, 0, None)])));
        assert_eq!((nothing.get("progress"), &nothing["callback"]["message"]), (None, &json!(failed)));
        assert_eq!(told(&round("IMAGE", &[one])).get("progress"), None);
    }
}
