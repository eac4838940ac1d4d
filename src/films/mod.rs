//! Films and recordings, by way of video workers.
//!
//! In: where a source lies, and what is wanted of it. Out: a work folder with what was made, to
//! be taken over into the store, and a description of it.
//!
//! Each errand has a process of its own (`infra::workers::errand`), which dies with the future
//! that waits for it. Nothing of an errand is left when its [`Workspace`] is dropped.
//!
//! Invariant: graphics hardware may speed an errand up, and is never the reason for its failure:
//! if a hardware encoder gives up, at once or half-way, the whole errand is done again in
//! software, and [`Transcoding::encoding`] says so.
//!
//! This room knows errands and outcomes, not processes and not frames (`media::video`).

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::Storage;
use crate::infra::storage::Workspace;
use crate::infra::workers::errand;
use crate::infra::workers::errand::Ending;
use crate::infra::workers::errand::ErrandLimits;
use crate::infra::workers::errand::Errands;
use crate::infra::workers::errand::Grants;
use crate::media::video;
use crate::media::video::Clip;
use crate::media::video::Errand;
use crate::media::video::Frames;
use crate::media::video::Hls;
use crate::media::video::Mark;
use crate::media::video::Outcome;
use crate::media::video::Poster;
use crate::media::video::Recorded;
use crate::media::video::Recording;
use crate::media::video::Rendition;
use crate::media::video::Report;
use crate::media::video::Shape;
use crate::media::video::Still;
use crate::media::video::Storyboard;
use crate::media::video::Survey;
use crate::media::video::Transcode;
use crate::media::video::Transcoded;
use crate::media::video::VideoError;
use crate::support::cpu::Cpu;

/// How long it may take to find out whether an encoder works.
const TRIAL: Duration = Duration::from_secs(30);

/// Where a storyboard lies in its work folder.
pub const STORYBOARD: &str = "storyboard";

/// How films are worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// An encoder such as `x264enc`; `auto`, or nothing, takes the best that works.
    pub encoder: String,
    /// How many at a time, and what one may cost.
    pub workers: errand::Config,
}

/// Has films worked on; cheap to clone.
#[derive(Clone)]
pub struct Films {
    encoder: Arc<str>,
    errands: Errands,
    storage: Storage,
    cpu: Cpu,
    surveyed: Arc<Mutex<Option<Arc<Survey>>>>,
    /// Whoever looks around holds it, so that nobody does it beside him.
    looking: Arc<tokio::sync::Mutex<()>>,
}

/// Renditions that are wanted of one film.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub renditions: Vec<Rendition>,
    pub hls: Option<Hls>,
    pub clip: Option<Clip>,
    pub mark: Option<Mark>,
}

/// Renditions that were made, lying in the work folder.
#[derive(Debug)]
pub struct Transcoding {
    pub work: Workspace,
    pub made: Transcoded,
    /// By which encoder, and why not by another, as a sentence.
    pub encoding: String,
}

impl Films {
    pub fn new(config: Config, storage: Storage, cpu: Cpu) -> Films {
        let errands = errands(&config);
        let (surveyed, looking) = Default::default();
        Films { encoder: config.encoder.into(), errands, storage, cpu, surveyed, looking }
    }

    /// Errands under way, and how they ended so far.
    pub fn counts(&self) -> errand::Counts {
        self.errands.counts()
    }

    /// Begins to find out what this machine can do, and says it in the log.
    pub fn look_around(&self) {
        let this = self.clone();
        self.cpu.handle().spawn(async move {
            match this.survey().await {
                Ok(survey) => {
                    tracing::info!(
                        gstreamer = survey.version,
                        encoders = survey.encoders.join(" "),
                        "films can be made"
                    );
                    for missing in &survey.missing {
                        tracing::warn!(package = missing.package, "{}", missing.line());
                    }
                }
                Err(e) => tracing::warn!(error = %e, "films cannot be made; pictures can"),
            }
        });
    }

    /// What this machine can do with films; looked at again until there is an encoder that works.
    pub async fn survey(&self) -> Result<Arc<Survey>> {
        let _turn = self.looking.lock().await;
        if let Some(survey) = self.surveyed().filter(|survey| survey.best().is_some()) {
            return Ok(survey);
        }
        let survey = Arc::new(ask(&self.errands).await?);
        *self.surveyed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&survey));
        Ok(survey)
    }

    /// What was seen last, if anything was.
    pub fn surveyed(&self) -> Option<Arc<Survey>> {
        self.surveyed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes renditions in one decoding; `watch` hears of the progress in percent.
    pub async fn transcode(
        &self,
        source: PathBuf,
        wanted: Wanted,
        mut watch: impl FnMut(f32) + Send,
    ) -> Result<Transcoding> {
        let survey = self.survey().await?;
        let encoder = self.encoder(&survey)?;
        let software = survey.software().filter(|software| *software != encoder);
        let devices = !video::is_software(encoder);
        let first = self.transcode_with(encoder, devices, &source, &wanted, &mut watch).await;
        let why = match (first, software) {
            (Ok((work, made)), _) => {
                return Ok(Transcoding { work, made, encoding: format!("Encoded with {encoder}.") });
            }
            (Err(Failure::Encoder(why)), Some(_)) if devices => why,
            (Err(failure), _) => return Err(failure.into_error()),
        };
        let other = software.unwrap_or(encoder);
        tracing::warn!(encoder, error = why, "an encoder failed; the film is made again in software");
        let again = self.transcode_with(other, false, &source, &wanted, &mut watch).await;
        let (work, made) = again.map_err(Failure::into_error)?;
        Ok(Transcoding { work, made, encoding: format!("Encoded with {other}, because {encoder} failed: {why}") })
    }

    /// Keeps a good frame as a picture, `poster.jpg` in the work folder.
    pub async fn poster(&self, source: PathBuf, side: u32) -> Result<(Workspace, Still)> {
        let work = self.workspace().await?;
        let errand = Errand::Poster(Poster { source: source.clone(), folder: work.path().to_owned(), side });
        match self.send(&errand, grants(vec![source], &work), self.errands.limits(), |_| {}).await? {
            Outcome::Poster(still) => Ok((work, still)),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps frames from all along a film, each fitting the box, in the folder [`STORYBOARD`].
    pub async fn storyboard(
        &self,
        source: PathBuf,
        frames: Frames,
        (width, height): (u32, u32),
        shape: Shape,
        watch: impl FnMut(f32) + Send,
    ) -> Result<(Workspace, Vec<Still>)> {
        let work = self.workspace().await?;
        // A folder of its own, so that it can be taken over as one.
        let folder = work.path().join(STORYBOARD);
        std::fs::create_dir(&folder)?;
        let errand = Errand::Storyboard(Storyboard { source: source.clone(), folder, frames, width, height, shape });
        match self.send(&errand, grants(vec![source], &work), self.errands.limits(), watch).await? {
            Outcome::Storyboard(stills) => Ok((work, stills)),
            other => Err(unexpected(&other)),
        }
    }

    /// Draws a recording's waveform of this size, and makes a copy that every browser plays.
    pub async fn recording(
        &self,
        source: PathBuf,
        (width, height): (u32, u32),
        watch: impl FnMut(f32) + Send,
    ) -> Result<(Workspace, Recorded)> {
        let work = self.workspace().await?;
        let folder = work.path().to_owned();
        let errand = Errand::Recording(Recording { source: source.clone(), folder, width, height });
        match self.send(&errand, grants(vec![source], &work), self.errands.limits(), watch).await? {
            Outcome::Recording(recorded) => Ok((work, recorded)),
            other => Err(unexpected(&other)),
        }
    }

    async fn transcode_with(
        &self,
        encoder: &str,
        devices: bool,
        source: &Path,
        wanted: &Wanted,
        watch: &mut (impl FnMut(f32) + Send),
    ) -> Result<(Workspace, Transcoded), Failure> {
        let work = self.workspace().await?;
        let Wanted { renditions, hls, clip, mark } = wanted.clone();
        let mut read = vec![source.to_owned()];
        read.extend(mark.as_ref().map(|mark| mark.file.clone()));
        let grants = grants(read, &work);
        let errand = Errand::Transcode(Transcode {
            source: source.to_owned(),
            folder: work.path().to_owned(),
            renditions,
            hls,
            clip,
            mark,
            encoder: encoder.to_owned(),
        });
        match converse(&self.errands, &errand, grants, self.errands.limits(), watch).await {
            Ok(Ok(Outcome::Transcoded(made))) => Ok((work, made)),
            Ok(Ok(other)) => Err(Failure::Ours(unexpected(&other))),
            Ok(Err(VideoError::Encoder(why))) => Err(Failure::Encoder(why)),
            Ok(Err(e)) => Err(Failure::Ours(refused(e))),
            // A driver that takes the process down with it says no word of its own.
            Err(Ending::Crashed(why)) if devices => Err(Failure::Encoder(why)),
            Err(Ending::Stalled) if devices => Err(Failure::Encoder(Ending::Stalled.to_string())),
            Err(ending) => Err(Failure::Ours(ending.into())),
        }
    }

    /// The encoder that the configuration names, or the best that works.
    fn encoder<'a>(&self, survey: &'a Survey) -> Result<&'a str> {
        let named = survey.encoders.iter().find(|found| ***found == *self.encoder).map(String::as_str);
        named.or_else(|| survey.best()).ok_or_else(|| {
            Code::MediaUnavailable.because(match survey.missing.first() {
                Some(missing) => missing.line(),
                None => "no H.264 encoder works on this machine".to_owned(),
            })
        })
    }

    async fn send(
        &self,
        errand: &Errand,
        grants: Grants,
        limits: ErrandLimits,
        watch: impl FnMut(f32) + Send,
    ) -> Result<Outcome> {
        converse(&self.errands, errand, grants, limits, watch).await?.map_err(refused)
    }

    async fn workspace(&self) -> Result<Workspace> {
        let storage = self.storage.clone();
        self.cpu.run(move || storage.workspace()).await
    }
}

fn grants(read: Vec<PathBuf>, work: &Workspace) -> Grants {
    Grants { read, folder: Some(work.path().to_owned()), devices: false }
}

/// What this machine can do with films, for a program that has no box open.
pub async fn survey(config: &Config) -> Result<Survey> {
    ask(&errands(config)).await
}

fn errands(config: &Config) -> Errands {
    let program = config.workers.program.clone().filter(|program| !program.as_os_str().is_empty());
    // Posters and the survey do not wait for films.
    let slots = config.workers.slots.max(1) + 2;
    Errands::new(errand::Config { slots, program, ..config.workers.clone() }, video::ENVIRONMENT)
}

async fn ask(errands: &Errands) -> Result<Survey> {
    let limits = ErrandLimits { wall: TRIAL, idle: TRIAL, ..errands.limits() };
    let survey = video::survey(|errand| async move {
        match converse(errands, &errand, Grants::default(), limits, |_| {}).await {
            Ok(answer) => answer,
            Err(ending @ (Ending::Starved | Ending::Stalled | Ending::KilledFromOutside | Ending::NoRoom(_))) => {
                Err(VideoError::Late(ending.to_string()))
            }
            Err(ending) => Err(VideoError::Internal(ending.to_string())),
        }
    });
    survey.await.map_err(|e| match e {
        VideoError::Internal(why) => Code::MediaUnavailable.because(why),
        e => refused(e),
    })
}

async fn converse(
    errands: &Errands,
    errand: &Errand,
    grants: Grants,
    limits: ErrandLimits,
    mut watch: impl FnMut(f32) + Send,
) -> Result<Result<Outcome, VideoError>, Ending> {
    let nonsense = |e: serde_json::Error| Ending::Nonsense(e.to_string());
    let grants = Grants { devices: errand.needs_devices(), ..grants };
    let errand = serde_json::to_value(errand).map_err(nonsense)?;
    let hear = |line| {
        if let Ok(Report::Progress(percent)) = serde_json::from_value(line) {
            watch(percent);
        }
    };
    match serde_json::from_value(errands.run(errand, grants, limits, hear).await?).map_err(nonsense)? {
        Report::Done(outcome) => Ok(Ok(outcome)),
        Report::Failed(e) => Ok(Err(e)),
        Report::Progress(_) => Err(Ending::Nonsense("the last line was none".to_owned())),
    }
}

/// Why renditions were not made.
enum Failure {
    /// Another encoder may do.
    Encoder(String),
    Ours(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Failure::Encoder(why) => Code::Internal.because(format!("the encoder failed: {why}")),
            Failure::Ours(e) => e,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Ours(e)
    }
}

fn refused(error: VideoError) -> Error {
    match error {
        VideoError::Invalid(sentence) => Code::BadVideo.because(sentence),
        VideoError::Encoder(why) => Code::Internal.because(format!("the encoder failed: {why}")),
        VideoError::Missing(missing) => Code::MediaUnavailable.because(missing.line()),
        VideoError::Late(why) => Code::Busy.because(why),
        VideoError::Internal(why) => Code::Internal.because(why),
    }
}

fn unexpected(outcome: &Outcome) -> Error {
    Code::Internal.because(format!("a video worker answered something else: {outcome:?}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::process::Stdio;

    use super::*;
    use crate::infra::storage;

    /// A video worker that knows of no encoder when it is asked first, and whose first trial of one is killed.
    const SLOW_TO_START: &str = r#"#!/bin/sh
        cd "$(dirname "$0")"
        case $(cat) in
        *Encoder*)
            echo encoder >> asked
            mkdir tried && kill -KILL $$
            echo '{"done": "Encoder"}'
            ;;
        *)
            echo survey >> asked
            mkdir seen || found='"x264enc"'
            echo "{\"done\": {\"Survey\": {
                \"version\": \"1\", \"candidates\": [$found], \"encoders\": [], \"failing\": [], \"missing\": []
            }}}" | tr -d '\n'
            echo
        esac"#;

    #[tokio::test]
    async fn a_machine_is_looked_at_until_an_encoder_works() {
        let folder = tempfile::tempdir().unwrap();
        let films = films(folder.path(), SLOW_TO_START);
        assert_eq!(films.survey().await.unwrap().best(), None);
        assert_eq!(
            films.survey().await.unwrap().best(),
            Some("x264enc"),
            "and the trial that was killed is no verdict"
        );
        assert_eq!(films.survey().await.unwrap().best(), Some("x264enc"));
        assert_eq!(films.surveyed().unwrap().failing, []);
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked.lines().collect::<Vec<_>>(), ["survey", "survey", "encoder", "encoder"]);
    }

    /// With a script for a video worker.
    fn films(folder: &Path, script: &str) -> Films {
        let program = folder.join("worker");
        // Written by somebody else: what this process has open for writing, others can't run for a moment.
        let mut sh = Command::new("sh");
        sh.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&program).stdin(Stdio::piped());
        let mut sh = sh.spawn().unwrap();
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(sh.wait().unwrap().success());
        let workers = errand::Config { program: Some(program), allow_unsandboxed: true, ..errand::Config::default() };
        let storage = Storage::open(&folder.join("data"), &storage::Config::default(), &[], &[]).unwrap();
        Films::new(Config { workers, ..Config::default() }, storage, Cpu::open(1))
    }
}
