//! Errands: work that takes minutes and makes files, each in a sandboxed process of its own.
//!
//! In: an errand as a JSON value, the files it may read, a folder it may write in, and limits.
//! Out: what the errand says on the way, line by line, and the last line, or an [`Ending`]. What
//! the lines mean is known to the caller and to the program, not here.
//!
//! Invariant: whatever an errand does costs that errand alone. When [`Errands::run`] returns, or
//! its future is dropped, the process is gone; what it left in its folder is the caller's to
//! take away.
//!
//! ```text
//! server → worker   standard input: {"cell": …, "errand": …}, then its end
//! worker → server   standard output: a JSON value on each line; {"cell": …} is the frame's own
//! ```
//!
//! One process for each errand rather than a pool as for pictures: a start costs little beside a
//! film, and nothing of one film meets another.
//!
//! One file each: the cell (`cell`), the worker's side (`serve`), the watch over one process
//! (`watch`).

mod cell;
mod serve;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::sync::Semaphore;

pub use self::serve::serve;

use self::cell::Cell;
use self::watch::Finished;
use self::watch::Watch;
use super::Sandbox;
use super::protocol::Attempt;
use super::protocol::VERSION;
use crate::error::Code;
use crate::error::Error;

/// The errand of the frame itself: try what must be refused.
const SELF_TEST: &str = "self_test";
/// The cell could not be entered, or the libraries not be loaded.
const EXIT_NO_CELL: i32 = 70;
/// Started by hand, or by a server that speaks otherwise.
const EXIT_NOT_UNDERSTOOD: i32 = 64;
/// A line of the frame says where.
const EXIT_PANICKED: i32 = 101;
/// Lines that wait for a slow listener; later ones are lost to him, except the last of all.
const LINES_WAITING: usize = 64;

/// How many errands run at the same time, and what one may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// At least 1.
    pub slots: usize,
    /// The program; `cloakroom-video` beside the server's when absent.
    pub program: Option<PathBuf>,
    pub wall_seconds: u64,
    /// Without a word from it for so long, an errand has stalled.
    pub idle_seconds: u64,
    pub cpu_seconds: u64,
    /// Memory that is in use, shared libraries included.
    pub memory_bytes: u64,
    /// All files in the folder of an errand.
    pub folder_bytes: u64,
    /// Run even where the sandbox does not hold. For machines where nothing hostile arrives.
    pub allow_unsandboxed: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            slots: 1,
            program: None,
            wall_seconds: 6 * 3600,
            idle_seconds: 90,
            cpu_seconds: 24 * 3600,
            memory_bytes: 3 << 30,
            folder_bytes: 64 << 30,
            allow_unsandboxed: false,
        }
    }
}

/// What an errand may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Files, or folders with all that is in them.
    pub read: Vec<PathBuf>,
    /// Where it may write; also its home and its place for temporary files.
    pub folder: Option<PathBuf>,
    /// Graphics hardware.
    pub devices: bool,
}

/// What an errand may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrandLimits {
    pub wall: Duration,
    pub idle: Duration,
    pub memory_bytes: u64,
    pub cpu_seconds: u64,
    pub folder_bytes: u64,
}

/// Why an errand brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It fell over: of a signal, of a panic, or with an exit code of its own.
    Crashed(String),
    Memory,
    /// Over the limit of time, or of processor time.
    TookTooLong,
    /// Over the limit of time without having had the processor.
    Starved,
    /// It said nothing for too long.
    Stalled,
    /// It wrote or said too much.
    TooLarge,
    /// What it said is no answer.
    Nonsense(String),
    /// SIGKILL from somebody else: in practice the kernel, out of memory.
    KilledFromOutside,
    /// Nobody wants the answer any more.
    Cancelled,
    /// This machine lacks memory or processes for one more.
    NoRoom(String),
    /// This machine runs no errands: no program, or no sandbox.
    Unavailable(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Crashed(_) => "the decoder stopped on this film",
            Ending::Memory => "this film needs more memory than this box gives one film",
            Ending::TookTooLong => "this film takes longer than this box allows",
            Ending::Starved => "the film did not get its turn in time",
            Ending::Stalled => "the decoder came to a standstill on this film",
            Ending::TooLarge => "what was made of this film is larger than this box keeps",
            Ending::Nonsense(_) => "the decoder was led astray by this film",
            Ending::KilledFromOutside => "the video worker was killed, by want of memory",
            Ending::Cancelled => "the errand was called off",
            Ending::NoRoom(_) => "the video worker could not be started",
            Ending::Unavailable(_) => "films cannot be worked on here",
        })
    }
}

impl Ending {
    /// More than the sentence, for the operator.
    pub fn details(&self) -> Option<&str> {
        match self {
            Ending::Crashed(why) | Ending::Nonsense(why) | Ending::NoRoom(why) | Ending::Unavailable(why) => Some(why),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Ending::Crashed(_)
            | Ending::Memory
            | Ending::TookTooLong
            | Ending::Stalled
            | Ending::TooLarge
            | Ending::Nonsense(_) => Code::BadVideo,
            Ending::Starved | Ending::KilledFromOutside | Ending::Cancelled | Ending::NoRoom(_) => Code::Busy,
            Ending::Unavailable(_) => Code::MediaUnavailable,
        }
    }
}

impl From<Ending> for Error {
    fn from(ending: Ending) -> Error {
        let sentence = ending.to_string();
        match ending.details() {
            Some(details) => ending.code().from(sentence, details),
            None => ending.code().because(sentence),
        }
    }
}

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub finished: u64,
    /// Ended without an answer, for whatever reason.
    pub failed: u64,
}

/// Runs errands; cheap to clone.
#[derive(Clone)]
pub struct Errands {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    environment: &'static [(&'static str, &'static str)],
    slots: Semaphore,
    tested: OnceCell<Sandbox>,
    running: AtomicUsize,
    finished: AtomicU64,
    failed: AtomicU64,
}

impl Errands {
    /// Starts nothing yet. The program finds `environment` and no other variables, except those
    /// that name its folder.
    pub fn new(config: Config, environment: &'static [(&'static str, &'static str)]) -> Errands {
        let slots = Semaphore::new(config.slots.max(1));
        let (running, finished, failed) = Default::default();
        let tested = OnceCell::new();
        Errands { inner: Arc::new(Inner { config, environment, slots, tested, running, finished, failed }) }
    }

    /// Runs one errand, when its turn comes, and returns its last line; `on_line` hears every
    /// line. Dropping the future kills the process and returns when it is gone.
    pub async fn run(
        &self,
        errand: Value,
        grants: Grants,
        limits: ErrandLimits,
        mut on_line: impl FnMut(Value) + Send,
    ) -> Result<Value, Ending> {
        self.available().await?;
        let Ok(_slot) = self.inner.slots.acquire().await else { return Err(Ending::Cancelled) };
        let finished = self.watch(errand, grants, limits, &mut on_line).await?;
        finished.last.ok_or_else(|| Ending::Nonsense("the video worker left without a word".to_owned()))
    }

    /// The configured limits of an errand.
    pub fn limits(&self) -> ErrandLimits {
        let config = &self.inner.config;
        ErrandLimits {
            wall: Duration::from_secs(config.wall_seconds),
            idle: Duration::from_secs(config.idle_seconds),
            memory_bytes: config.memory_bytes,
            cpu_seconds: config.cpu_seconds,
            folder_bytes: config.folder_bytes,
        }
    }

    /// Whether this box runs errands at all.
    pub async fn available(&self) -> Result<(), Ending> {
        if self.inner.config.allow_unsandboxed {
            return Ok(());
        }
        let sandbox = self.sandbox().await?;
        if sandbox.holds { Ok(()) } else { Err(Ending::Unavailable(sandbox.why.clone())) }
    }

    /// What the self-test finds; made with the first question. Fails where it cannot be made,
    /// and is made again then.
    pub async fn sandbox(&self) -> Result<&Sandbox, Ending> {
        self.inner.tested.get_or_try_init(|| self.test()).await
    }

    pub fn counts(&self) -> Counts {
        Counts {
            running: self.inner.running.load(Ordering::Relaxed),
            finished: self.inner.finished.load(Ordering::Relaxed),
            failed: self.inner.failed.load(Ordering::Relaxed),
        }
    }

    async fn test(&self) -> Result<Sandbox, Ending> {
        let patience = Duration::from_secs(10);
        let limits = ErrandLimits { wall: patience, idle: patience, ..self.limits() };
        let finished = self.watch(json!(SELF_TEST), Grants::default(), limits, &mut |_| ()).await?;
        let (layers, attempts) = finished.tried.unwrap_or_default();
        let sandbox = Sandbox::judge(layers, attempts);
        sandbox.log();
        Ok(sandbox)
    }

    async fn watch(
        &self,
        errand: Value,
        grants: Grants,
        limits: ErrandLimits,
        on_line: &mut (dyn FnMut(Value) + Send),
    ) -> Result<Finished, Ending> {
        let Inner { config, environment, .. } = &*self.inner;
        let program = match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|e| Ending::Unavailable(e.to_string()))?
                .with_file_name("cloakroom-video"),
        };
        let Grants { read, folder, devices } = grants;
        let cell = Cell {
            version: VERSION.to_owned(),
            read,
            folder,
            devices,
            memory_bytes: limits.memory_bytes,
            cpu_seconds: limits.cpu_seconds,
            folder_bytes: limits.folder_bytes,
            sandbox_required: !config.allow_unsandboxed,
        };
        let _running = Running::count(&self.inner.running);
        let (mut watch, mut lines) = Watch::start(program, environment, Document { cell, errand }, limits)?;
        while let Some(line) = lines.recv().await {
            on_line(line);
        }
        let finished = watch.finished().await;
        let counted = if finished.is_ok() { &self.inner.finished } else { &self.inner.failed };
        counted.fetch_add(1, Ordering::Relaxed);
        finished
    }
}

/// Counts itself while it lives.
struct Running<'a>(&'a AtomicUsize);

impl Running<'_> {
    fn count(running: &AtomicUsize) -> Running<'_> {
        running.fetch_add(1, Ordering::Relaxed);
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the program finds on standard input.
#[derive(Serialize, Deserialize)]
struct Document {
    cell: Cell,
    errand: Value,
}

/// A line of the frame itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CellLine {
    Broken(String),
    Panicked(String),
    Tried { layers: Vec<String>, attempts: Vec<Attempt> },
}

impl CellLine {
    fn line(&self) -> Value {
        json!({ "cell": self })
    }

    /// `None` for lines of the errand.
    fn of(line: &Value) -> Option<CellLine> {
        let object = line.as_object().filter(|object| object.len() == 1)?;
        serde_json::from_value(object.get("cell")?.clone()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_frame_are_told_from_others() {
        let broken = CellLine::Broken("no Landlock".to_owned()).line();
        assert!(matches!(CellLine::of(&broken), Some(CellLine::Broken(_))));
        for other in [json!({"cell": 1}), json!({"cell": {"broken": "x"}, "more": 1}), json!("cell"), json!({})] {
            assert!(CellLine::of(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn endings_blame_the_film_only_for_what_it_did() {
        for (ending, code) in [
            (Ending::Crashed("signal 11".to_owned()), Code::BadVideo),
            (Ending::Memory, Code::BadVideo),
            (Ending::Starved, Code::Busy),
            (Ending::KilledFromOutside, Code::Busy),
            (Ending::Unavailable("no program".to_owned()), Code::MediaUnavailable),
        ] {
            let details = ending.details().map(str::to_owned);
            let error = Error::from(ending);
            assert_eq!(error.code, code);
            assert!(
                details
                    .is_none_or(|details| !error.public().contains(&details) && error.to_string().contains(&details))
            );
        }
    }

    #[test]
    fn settings_have_defaults_and_typos_are_refused() {
        let parsed: Config = serde_json::from_str(r#"{"slots": 3}"#).unwrap();
        assert_eq!(parsed, Config { slots: 3, ..Config::default() });
        assert!(serde_json::from_str::<Config>(r#"{"slot": 3}"#).is_err());
    }
}
