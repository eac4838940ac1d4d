//! The job after an upload: look at what was taken in, and say what it is.
//!
//! Sniff (never trust the name), let a worker probe it, then in one transaction: OK or ERROR
//! with the facts, `file-saved` in the journal, and a round of the processing that the
//! settings ask for, or `file-processed` when nothing is to be made. The original is safe long
//! before this runs; this only looks.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Status;
use crate::assets::model;
use crate::assets::place;
use crate::assets::store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::ingest::Ingest;
use crate::journal::Event;
use crate::media::imaging::Facts;
use crate::media::imaging::container::VideoFacts;
use crate::support::mime;
use crate::support::mime::Family;

/// What the contract's guide shows for an original that can't be read.
const INVALID: &str = "Original file appears to be invalid!";

/// Looks at one revision of one asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SaveOriginal {
    pub id: AssetId,
    pub revision: u32,
    /// What the content that was there before had, and is made of this one, too.
    #[serde(default)]
    pub again: Vec<String>,
}

impl SaveOriginal {
    pub fn of(asset: &Asset) -> SaveOriginal {
        SaveOriginal { id: asset.id, revision: asset.revision, again: Vec::new() }
    }
}

impl Job for SaveOriginal {
    const KIND: &'static str = "ingest.save";
    const QUEUE: Queue = Queue("save");
    const MAX_ATTEMPTS: u32 = 8;
    const TIMEOUT: Duration = Duration::from_mins(2);
}

/// What looking brought.
#[derive(Default)]
struct Verdict {
    /// Better known than by its first bytes.
    content_type: Option<&'static str>,
    facts: Map<String, Value>,
    errors: BTreeMap<String, String>,
}

impl Run<SaveOriginal> for Ingest {
    async fn run(&self, job: SaveOriginal, at: &Attempt) -> Result<()> {
        let SaveOriginal { id, revision, again } = job;
        let Some(asset) = self.db.read(move |c| store::find(c, id)).await?.filter(|a| a.revision == revision) else {
            return Ok(());
        };
        let verdict = self.look(&asset).await?;
        self.settle(asset, verdict, again, Some(at.clone())).await
    }

    async fn gave_up(&self, job: SaveOriginal, error: &Error) {
        let SaveOriginal { id, revision, .. } = job;
        let found = self.db.read(move |c| store::find(c, id)).await;
        let Ok(Some(asset)) = found.map(|a| a.filter(|a| a.revision == revision)) else { return };
        let errors = BTreeMap::from([("original".to_owned(), error.public().to_owned())]);
        if let Err(e) = self.settle(asset, Verdict { errors, ..Verdict::default() }, Vec::new(), None).await {
            tracing::error!(asset.id = %id, error = %e, "an asset's failure could not be recorded");
        }
    }
}

impl Ingest {
    async fn look(&self, asset: &Asset) -> Result<Verdict> {
        let (storage, at) = (self.storage.clone(), place::original(asset.id, asset.revision)?);
        let look = move || {
            let file = storage.open_file(&at)?;
            let mut head = vec![0; mime::SNIFF_BYTES];
            let read = file.read_at(&mut head, 0)?;
            head.truncate(read);
            Ok((Arc::new(file), head))
        };
        let (file, head) = self.homes.with(asset.id, asset.revision, look).await?;
        let kind = mime::sniff(&head);
        let claimed = mime::from_name(&asset.name);
        let mut verdict = match kind.family {
            Family::Image => self.look_at_picture(file).await?,
            Family::Video | Family::Audio => self.look_at_recording(file, kind.content_type).await?,
            Family::Document if kind.content_type == model::PDF => self.look_at_pages(file).await?,
            Family::Document => Verdict::default(),
            Family::Other => Verdict::error(INVALID),
        };
        let is_media = |family| matches!(family, Family::Image | Family::Video | Family::Audio);
        if kind.family == Family::Document && claimed.is_some_and(|c| is_media(c.family)) {
            verdict = Verdict::error(INVALID);
        }
        if let Some(warning) = mime::mismatch(&asset.name, &kind) {
            verdict.errors.entry("warning".to_owned()).or_insert(warning);
        }
        Ok(verdict)
    }

    async fn look_at_picture(&self, file: Arc<File>) -> Result<Verdict> {
        match self.stills.probe(file).await {
            Ok(facts) => Ok(Verdict::picture(facts)),
            Err(e) if e.code == Code::NoImage => Ok(Verdict::error(INVALID)),
            Err(e) if e.code == Code::BadImage => Ok(Verdict::error(&format!("{INVALID} ({})", e.public()))),
            Err(e) => Err(e),
        }
    }

    /// A document is worth keeping also when it cannot be drawn.
    async fn look_at_pages(&self, file: Arc<File>) -> Result<Verdict> {
        match self.stills.probe(file).await {
            Ok(facts) => Ok(Verdict::picture(facts)),
            Err(e) if matches!(e.code, Code::NoImage | Code::BadImage) => Ok(Verdict::default()),
            Err(e) => Err(e),
        }
    }

    async fn look_at_recording(&self, file: Arc<File>, content_type: &str) -> Result<Verdict> {
        match self.stills.probe_container(file).await {
            Ok(Some(facts)) => Ok(Verdict::recording(&facts, content_type)),
            Ok(None) => Ok(Verdict::default()),
            Err(e) if matches!(e.code, Code::BadImage | Code::NoImage) => Ok(Verdict::error(INVALID)),
            Err(e) => Err(e),
        }
    }

    /// Writes the verdict and everything that follows from it, in one transaction. Of one that went
    /// to the trash meanwhile nothing is told or made; that is done when it is fetched back.
    async fn settle(&self, mut asset: Asset, verdict: Verdict, again: Vec<String>, at: Option<Attempt>) -> Result<()> {
        let (journal, processing, this) = (self.journal.clone(), self.processing.clone(), self.clone());
        let mut facts = verdict.facts;
        self.db
            .write(move |tx| {
                let same = this.same_as(tx, asset.id, asset.creator_id)?;
                if !same.is_empty() {
                    facts.insert("duplicate_of".to_owned(), same.iter().map(AssetId::to_string).collect());
                }
                let status = if verdict.errors.contains_key("original") { Status::Error } else { Status::Ok };
                if let Some(content_type) = verdict.content_type {
                    content_type.clone_into(&mut asset.content_type);
                    store::set_content_type(tx, asset.id, asset.revision, content_type)?;
                }
                let is_new = store::looked_at(tx, asset.id, asset.revision, status, &facts, &verdict.errors)?;
                if is_new && store::is_present(tx, asset.id, asset.revision)? {
                    journal.tell(tx, asset.id, Event::FileSaved, &json!({ "revision": asset.revision }))?;
                    if status == Status::Ok {
                        processing.open_automatic(tx, &asset, &again)?;
                    } else {
                        processing.open_nothing(tx, asset.id, asset.revision)?;
                    }
                }
                at.map_or(Ok(()), |at| at.complete(tx))
            })
            .await
    }
}

impl Verdict {
    fn error(sentence: &str) -> Verdict {
        Verdict { errors: BTreeMap::from([("original".to_owned(), sentence.to_owned())]), ..Verdict::default() }
    }

    /// The contract's names: ExifTool's words beside `width` and `height`.
    fn picture(facts: Facts) -> Verdict {
        let mut found = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                found.insert(name.to_owned(), value);
            }
        };
        put("width", Some(facts.width.into()));
        put("height", Some(facts.height.into()));
        put("Make", facts.make.map(Value::from));
        put("Model", facts.model.map(Value::from));
        put("Orientation", facts.orientation.map(Value::from));
        put("ColorSpace", facts.color_space.map(Value::from));
        put("captured_at", facts.captured_at.map(Value::from));
        put("has_alpha", facts.has_alpha.then_some(true.into()));
        put("animated", facts.animated.then_some(true.into()));
        put("frames", facts.frames.map(Value::from));
        put("duration", facts.duration_seconds.map(Value::from));
        put("pages", facts.pages.map(Value::from));
        for (name, value) in facts.exif {
            put(&name, Some(value.into()));
        }
        // Kept for the owner, never shown to others: see `wire::filespin`.
        put("gps", facts.gps.and_then(|g| serde_json::to_value(g).ok()));
        let errors = facts.warning.map(|w| ("warning".to_owned(), w)).into_iter().collect();
        Verdict { facts: found, errors, ..Verdict::default() }
    }

    fn recording(facts: &VideoFacts, content_type: &str) -> Verdict {
        let mut found = Map::new();
        // The tables of these say for certain that there is no picture; their first bytes do not.
        let is_family = matches!(content_type, "video/mp4" | "video/quicktime" | "video/x-m4v" | "video/3gpp");
        let is_sound = is_family && facts.width == 0 && facts.duration_seconds > 0.0;
        if facts.width > 0 {
            found.insert("width".into(), facts.width.into());
            found.insert("height".into(), facts.height.into());
        }
        if facts.duration_seconds > 0.0 {
            found.insert("duration".into(), ((facts.duration_seconds * 1000.0).round() / 1000.0).into());
        }
        Verdict { content_type: is_sound.then_some("audio/mp4"), facts: found, ..Verdict::default() }
    }
}
