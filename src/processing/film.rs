//! The job of a film: everything that one round wants of it.
//!
//! The renditions and the stream are made in one decoding; the clip, the storyboard and the
//! waveform are errands of their own. Each errand's result is recorded when it is there, with the
//! end of its steps, so that a job which is taken up again goes on with what is still open.
//!
//! Invariant: a conversion is on record only when its files lie complete under their final names.
//! A film that cannot be decoded is an answer, not a failure: its steps end with a sentence and
//! are not tried again. So do the steps that lay the venue's mark over a film when there is none.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::HLS;
use crate::assets::Making;
use crate::assets::STORYBOARD;
use crate::assets::WAVEFORM;
use crate::assets::place;
use crate::assets::store as asset_store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::films;
use crate::films::Transcoding;
use crate::films::Wanted;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::infra::storage::Workspace;
use crate::media::video::Mark;
use crate::media::video::Place;
use crate::processing::Processing;
use crate::processing::keys::films::AUDIO_PREVIEW;
use crate::processing::keys::films::FILMS;
use crate::processing::keys::films::FilmKey;
use crate::processing::keys::films::Part;
use crate::processing::keys::no_watermark;
use crate::processing::store;
use crate::settings::Placement;
use crate::settings::Values;
use crate::settings::videos::CLIP_PREVIEW;

/// How often progress is written down.
const TICK: Duration = Duration::from_secs(1);

/// Of a waveform, in pixels.
const WAVEFORM_SIZE: (u32, u32) = (1800, 360);

/// The film keys of one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFilm {
    pub round: i64,
    pub id: AssetId,
    pub revision: u32,
}

impl RunFilm {
    /// Where films are made: apart from pictures, which must not wait for them.
    pub const QUEUE_NAME: Queue = Queue("video");
}

impl Job for RunFilm {
    const KIND: &'static str = "processing.film";
    const QUEUE: Queue = RunFilm::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 3;
    const TIMEOUT: Duration = Duration::from_hours(12);
}

/// What an errand has made: to be recorded in one transaction with the end of its steps.
#[derive(Default)]
struct Done {
    conversions: Vec<Conversion>,
    /// What is to be said about single steps.
    notes: Vec<(String, String)>,
    /// About the original.
    warning: Option<String>,
    facts: Map<String, Value>,
    on_demand: bool,
}

impl Run<RunFilm> for Processing {
    async fn run(&self, job: RunFilm, at: &Attempt) -> Result<()> {
        tokio::select! {
            done = self.run_film(&job, at) => done,
            // Dropping the work kills its worker.
            () = at.cancelled() => Err(Code::Conflict.because("the job was cancelled")),
        }
    }

    async fn gave_up(&self, job: RunFilm, error: &Error) {
        if let Err(e) = self.refuse(&job, error, |key| film_key(key).is_some()).await {
            tracing::error!(asset.id = %job.id, error = %e, "a failed film could not be recorded");
        }
    }
}

impl Processing {
    async fn run_film(&self, job: &RunFilm, at: &Attempt) -> Result<()> {
        let (id, round) = (job.id, job.round);
        let found = self.db.read(move |c| Ok((assets::full(c, id)?.asset, store::open_steps(c, round)?))).await;
        let (asset, open) = match found {
            Ok((asset, open)) if asset.revision == job.revision => (asset, open),
            // Deleted or replaced meanwhile: nobody waits for this any more.
            Ok(_) => return Ok(()),
            Err(e) if e.code == Code::AssetNotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let open: Vec<&'static FilmKey> = open.iter().filter_map(|key| film_key(key)).collect();
        let settings = self.settings.now();
        let is_bare = |key: &&FilmKey| settings.watermark.is_none() && settings.videos.marks(key.name);
        let (bare, open): (Vec<_>, Vec<_>) = open.into_iter().partition(is_bare);
        if !bare.is_empty() {
            // Never without: it would be taken for a film with the mark.
            self.refuse(job, &no_watermark(), move |name| bare.iter().any(|key| key.name == name)).await?;
        }
        let together = |key: &&FilmKey| matches!(key.part, Part::Rendition | Part::Stream);
        let (ladder, alone): (Vec<_>, Vec<_>) = open.into_iter().partition(together);
        let errands =
            std::iter::once(ladder).filter(|keys| !keys.is_empty()).chain(alone.into_iter().map(|key| vec![key]));
        for keys in errands {
            self.run_errand(job, &asset, &settings, &keys, at).await?;
        }
        let (this, at, of) = (self.clone(), at.clone(), (job.id, job.revision));
        self.db
            .write(move |tx| {
                if at.number() > 1 {
                    // The attempt before may have made something that this one has not.
                    this.owe_sweep(tx, of.0, of.1)?;
                }
                at.complete(tx)
            })
            .await
    }

    /// Ends some of the open steps: nothing will come of them, for this reason.
    async fn refuse(&self, job: &RunFilm, why: &Error, some: impl Fn(&str) -> bool + Send + 'static) -> Result<()> {
        let (this, job, sentence) = (self.clone(), job.clone(), why.public().to_owned());
        self.db
            .write(move |tx| {
                let of = (job.id, job.revision);
                for key in store::open_steps(tx, job.round)?.iter().filter(|key| some(key)) {
                    asset_store::set_error(tx, job.id, job.revision, key, &sentence)?;
                    this.end(tx, of, job.round, key, tx.now(), Some(&sentence))?;
                }
                this.owe_sweep(tx, job.id, job.revision)?;
                this.assets.changes(tx, job.id);
                Ok(())
            })
            .await
    }

    /// One errand for some keys, and its record.
    async fn run_errand(
        &self,
        job: &RunFilm,
        asset: &Asset,
        settings: &Values,
        keys: &[&'static FilmKey],
        at: &Attempt,
    ) -> Result<()> {
        let started = self.db.clock().now();
        let names: Vec<String> = keys.iter().map(|key| key.name.to_owned()).collect();
        let percent = Arc::new(AtomicU8::new(0));
        let watch = {
            let percent = Arc::clone(&percent);
            move |now: f32| {
                percent.fetch_max(now.clamp(0.0, 99.0) as u8, Ordering::Relaxed);
            }
        };
        let making = Making { revision: job.revision, round: job.round, begun_at: started };
        let work = self.make(asset, settings, keys, making, watch);
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        let mut written = None;
        let made = loop {
            tokio::select! {
                made = &mut work => break made,
                _ = tick.tick() => {
                    let now = percent.load(Ordering::Relaxed);
                    if written != Some(now) {
                        at.progress(now);
                        let (round, names) = (job.round, names.clone());
                        self.db.write_relaxed(move |tx| store::progress(tx, round, &names, now)).await?;
                        written = Some(now);
                    }
                }
            }
        };
        let failure = match &made {
            Ok(_) => None,
            // What is wrong with the film will be wrong the next time, too.
            Err(e) if e.code == Code::BadVideo => Some(e.public().to_owned()),
            Err(_) => return made.map(|_| ()),
        };
        let done = made.unwrap_or_default();
        let (this, job) = (self.clone(), job.clone());
        self.db
            .write(move |tx| {
                // Cancelled, deleted or replaced at this very moment: nothing comes of it.
                if !store::open_steps(tx, job.round)?.iter().any(|open| names.contains(open))
                    || !asset_store::is_present(tx, job.id, job.revision)?
                {
                    return Err(Code::Conflict.because("the job was cancelled"));
                }
                this.assets.changes(tx, job.id);
                let Done { conversions, notes, warning, facts, on_demand } = done;
                this.record(tx, (job.id, job.revision), conversions)?;
                if let Some(warning) = warning {
                    asset_store::set_error(tx, job.id, job.revision, "warning", &warning)?;
                }
                if !facts.is_empty() {
                    asset_store::add_facts(tx, job.id, job.revision, &facts)?;
                }
                if on_demand {
                    asset_store::set_on_demand(tx, job.id, job.revision)?;
                }
                for (key, note) in notes {
                    store::note(tx, job.round, &key, &note)?;
                }
                for key in &names {
                    if let Some(sentence) = &failure {
                        asset_store::set_error(tx, job.id, job.revision, key, sentence)?;
                    }
                    this.end(tx, (job.id, job.revision), job.round, key, started, failure.as_deref())?;
                }
                Ok(())
            })
            .await
    }

    async fn make(
        &self,
        asset: &Asset,
        settings: &Values,
        keys: &[&'static FilmKey],
        making: Making,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Done> {
        let _here = self.homes.bring(asset.id, asset.revision).await?;
        let source = self.storage.path_of(&place::original(asset.id, asset.revision)?);
        match keys {
            [FilmKey { part: Part::Preview, .. }] => self.preview(asset, settings, source, making, watch).await,
            [FilmKey { part: Part::Storyboard, .. }] => self.storyboard(asset, settings, source, making, watch).await,
            [FilmKey { part: Part::Recording, .. }] => self.recording(asset, source, making, watch).await,
            keys => self.ladder(asset, settings, keys, source, making, watch).await,
        }
    }

    /// Renditions and the stream.
    async fn ladder(
        &self,
        asset: &Asset,
        settings: &Values,
        keys: &[&'static FilmKey],
        source: PathBuf,
        making: Making,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Done> {
        let videos = &settings.videos;
        let renditions = keys.iter().filter_map(|key| videos.rendition(key.name)).collect();
        let hls = keys.iter().any(|key| key.part == Part::Stream).then(|| videos.stream());
        let mut wanted = Wanted { renditions, hls, ..Wanted::default() };
        wanted.renditions.sort_by_key(|rendition| rendition.lines);
        let wants_mark =
            wanted.renditions.iter().any(|r| r.watermark) || wanted.hls.as_ref().is_some_and(|h| h.watermark);
        wanted.mark = wants_mark.then(|| self.mark(settings)).transpose()?;
        let Transcoding { work, made, encoding } = self.films.transcode(source, wanted, watch).await?;

        let mut done = Done { warning: sentences(&made.warnings), ..Done::default() };
        for rendition in &made.renditions {
            done.notes.push((rendition.name.clone(), encoding.clone()));
            done.conversions.push(Conversion {
                width: Some(rendition.width),
                height: Some(rendition.height),
                duration_seconds: Some(rendition.duration_seconds),
                size_bytes: rendition.size_bytes,
                watermarked: videos.marks(&rendition.name),
                ..Conversion::made(&rendition.name, "mp4", "video/mp4", making)
            });
        }
        for (name, same) in &made.skipped {
            done.notes.push((name.clone(), format!("Not made: it would equal {same}.")));
        }
        if let Some(hls) = &made.hls {
            done.notes.push((HLS.to_owned(), encoding.clone()));
            done.conversions.push(Conversion {
                width: Some(hls.width),
                height: Some(hls.height),
                duration_seconds: Some(hls.duration_seconds),
                size_bytes: hls.size_bytes,
                watermarked: videos.marks(HLS),
                ..Conversion::made(HLS, "m3u8", "application/vnd.apple.mpegurl", making)
            });
        }
        let (conversions, stream) = (done.conversions.clone(), made.hls.map(|hls| hls.files).unwrap_or_default());
        let id = asset.id;
        self.placing
            .place(move |storage| {
                for made in &conversions {
                    let to = place::whole(id, made)?;
                    match &*made.key {
                        HLS => storage.adopt_folder(&work, "hls", &stream, &to)?,
                        name => storage.adopt(&work, &format!("{name}.mp4"), &to)?,
                    }
                }
                Ok(())
            })
            .await?;
        Ok(done)
    }

    async fn preview(
        &self,
        asset: &Asset,
        settings: &Values,
        source: PathBuf,
        making: Making,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Done> {
        let name = CLIP_PREVIEW;
        let (rendition, clip) = (settings.videos.clip(), settings.videos.preview.clip);
        let watermarked = rendition.watermark;
        let mark = watermarked.then(|| self.mark(settings)).transpose()?;
        let wanted = Wanted { renditions: vec![rendition], clip: Some(clip), mark, ..Wanted::default() };
        let Transcoding { work, made, encoding } = self.films.transcode(source, wanted, watch).await?;
        let Some(clip) = made.renditions.first() else {
            return Err(Code::Internal.because("a clip was asked for and is not there"));
        };
        let conversion = Conversion {
            width: Some(clip.width),
            height: Some(clip.height),
            duration_seconds: Some(clip.duration_seconds),
            size_bytes: clip.size_bytes,
            watermarked,
            ..Conversion::made(name, "mp4", "video/mp4", making)
        };
        let to = place::whole(asset.id, &conversion)?;
        self.placing.place(move |storage| storage.adopt(&work, &format!("{name}.mp4"), &to)).await?;
        Ok(Done { conversions: vec![conversion], notes: vec![(name.to_owned(), encoding)], ..Done::default() })
    }

    async fn storyboard(
        &self,
        asset: &Asset,
        settings: &Values,
        source: PathBuf,
        making: Making,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Done> {
        let wanted = &settings.videos.storyboard;
        let (work, stills) =
            self.films.storyboard(source, wanted.frames, (wanted.width, wanted.height), wanted.shape, watch).await?;
        let first = stills.first().map(|still| (still.width, still.height));
        let mut conversion = Conversion {
            width: first.map(|size| size.0),
            height: first.map(|size| size.1),
            ..Conversion::made(STORYBOARD, "vtt", "text/vtt", making)
        };
        let to = place::whole(asset.id, &conversion)?;
        conversion.size_bytes = self
            .placing
            .place(move |storage| {
                // Everything that lies there was made for it: frames, sheets, and what ties them together.
                let (files, size) = listing(&work)?;
                storage.adopt_folder(&work, films::STORYBOARD, &files, &to)?;
                Ok(size)
            })
            .await?;
        Ok(Done { conversions: vec![conversion], ..Done::default() })
    }

    async fn recording(
        &self,
        asset: &Asset,
        source: PathBuf,
        making: Making,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Done> {
        let (work, made) = self.films.recording(source, WAVEFORM_SIZE, watch).await?;
        let preview = Conversion {
            duration_seconds: Some(made.duration_seconds),
            size_bytes: made.preview_bytes,
            public: asset.public,
            ..Conversion::made(AUDIO_PREVIEW, "m4a", "audio/mp4", making)
        };
        let mut waveform = Conversion {
            width: Some(made.waveform.width),
            height: Some(made.waveform.height),
            ..Conversion::made(WAVEFORM, "png", "image/png", making)
        };
        let (drawn_to, heard_at) = (place::whole(asset.id, &waveform)?, place::whole(asset.id, &preview)?);
        waveform.size_bytes = self
            .placing
            .place(move |storage| {
                let size = std::fs::metadata(work.path().join(&made.waveform.file))?.len();
                storage.adopt(&work, &made.waveform.file, &drawn_to)?;
                storage.adopt(&work, "preview.m4a", &heard_at)?;
                Ok(size)
            })
            .await?;
        let facts = Map::from_iter([("duration".to_owned(), made.duration_seconds.into())]);
        let warning = sentences(&made.warnings);
        Ok(Done { conversions: vec![preview, waveform], facts, warning, on_demand: true, ..Done::default() })
    }

    fn mark(&self, settings: &Values) -> Result<Mark> {
        let mark = settings.watermark.as_ref().ok_or_else(no_watermark)?;
        let file = self.storage.path_of(&place::watermark(&mark.digest)?);
        let place = match mark.placement {
            Placement::Center => Place::Center,
            Placement::TopLeft => Place::TopLeft,
            Placement::TopRight => Place::TopRight,
            Placement::BottomLeft => Place::BottomLeft,
            Placement::BottomRight => Place::BottomRight,
        };
        Ok(Mark { file, place, scale: mark.scale })
    }
}

/// A film key by its name.
fn film_key(name: &str) -> Option<&'static FilmKey> {
    FILMS.iter().find(|key| key.name == name)
}

fn sentences(warnings: &[String]) -> Option<String> {
    (!warnings.is_empty()).then(|| warnings.join(" "))
}

/// The files of a storyboard, and how many bytes they are together.
fn listing(work: &Workspace) -> Result<(Vec<String>, u64)> {
    let (mut files, mut size) = (Vec::new(), 0);
    for entry in std::fs::read_dir(work.path().join(films::STORYBOARD))? {
        let entry = entry?;
        size += entry.metadata()?.len();
        files.extend(entry.file_name().into_string());
    }
    files.sort();
    Ok((files, size))
}
