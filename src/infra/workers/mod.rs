//! Sandboxed media processes: where a stranger's bytes are decoded.
//!
//! In: a request as a JSON value, the files it speaks of as open descriptors, and limits. Out:
//! a reply as a JSON value and, in sealed memory, the bytes that were made. What a request
//! means is known to the caller and to the worker binary, not here.
//!
//! Invariant: whatever a file does to its decoder costs that one request. Workers crash, hang
//! and swell alone, are killed within their limits, and are replaced; the server maps no codec.
//! Interactive requests never wait behind background ones, nobody waits without bound, and a
//! request whose asker has gone stops at once.
//!
//! At start a worker tries, from inside, what the sandbox must refuse. Unless all of it is
//! refused, every request answers `MEDIA_UNAVAILABLE`; the service itself runs on, because
//! taking files in needs no decoder. A worker that does not get to an answer, on a box that is
//! starting everything at once, says nothing about the sandbox: another one is asked.
//!
//! One file each: what is said (`protocol`), the cell (`sandbox`), the worker's side (`serve`),
//! the server's side (`process`, `slot`), the bytes that come back (`output`). What takes minutes
//! and makes files instead of one answer goes to a process of its own: see [`errand`].

pub mod errand;
mod output;
mod process;
mod protocol;
mod sandbox;
mod serve;
mod slot;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;

pub use self::output::Output;
pub use self::protocol::Attempt;
pub use self::serve::OutputFile;
pub use self::serve::serve;

use self::process::Process;
use self::protocol::FromWorker;
use self::protocol::SOURCES_MAX;
use self::protocol::Setup;
use self::protocol::ToWorker;
use self::protocol::VERSION;
use self::slot::Order;
use self::slot::Slot;
use crate::error::Code;
use crate::error::Result;

/// How long the self-test may take.
const SELF_TEST: Duration = Duration::from_secs(10);
/// From a self-test without an answer to the next: at first, and at most.
const TESTED_AGAIN_AFTER: Duration = Duration::from_secs(2);
const TESTED_AGAIN_AFTER_MOST: Duration = Duration::from_mins(5);

/// How many workers there are, and what one request may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Requests of people, at the same time; 0 stands for the number of cores.
    pub slots: usize,
    /// Requests of jobs, at the same time; at least 1.
    pub background_slots: usize,
    /// The worker binary; `cloakroom-media` beside the server's when absent.
    pub program: Option<PathBuf>,
    /// A worker makes room for a fresh one after this many. With 1, no two files meet in a
    /// process, for about a millisecond more each.
    pub requests_per_worker: u32,
    pub wall_seconds: u64,
    pub cpu_seconds: u64,
    /// Address space of a worker.
    pub memory_bytes: u64,
    /// The largest result.
    pub output_bytes: u64,
    /// Decode even where the sandbox does not hold. For machines where nothing hostile arrives.
    pub allow_unsandboxed: bool,
    /// Requests of one class that may wait for a slot; more are answered BUSY at once.
    pub max_waiting: usize,
    /// How long they wait.
    pub max_wait_seconds: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            slots: 0,
            background_slots: 1,
            program: None,
            requests_per_worker: 500,
            wall_seconds: 30,
            cpu_seconds: 20,
            memory_bytes: 1536 << 20,
            output_bytes: 512 << 20,
            allow_unsandboxed: false,
            max_waiting: 256,
            max_wait_seconds: 10,
        }
    }
}

/// Who is waiting for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Somebody in front of a screen.
    Interactive,
    /// A job; its workers step back for everybody else.
    Background,
}

impl Class {
    /// Also shown in the process list.
    pub fn word(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Background => "background",
        }
    }
}

/// What one request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub wall: Duration,
    pub cpu_seconds: u64,
    /// At most the pool's own.
    pub output_bytes: u64,
}

/// What a worker answered.
#[derive(Debug)]
pub struct Answer {
    pub reply: Value,
    pub output: Output,
}

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Worker processes alive.
    pub running: usize,
    /// Requests waiting for a slot.
    pub waiting: usize,
    /// Workers that ended, for whatever reason, and made room for another.
    pub restarts: u64,
    /// Workers killed because of a deadline or because the asker was gone.
    pub killed: u64,
}

/// The pool of media workers; cheap to clone. The last clone to go stops it.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<Pool>,
    slots: Vec<Arc<Slot>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Tests the sandbox and stands ready. Fails only where the system gives no threads or
    /// descriptors: a sandbox that does not hold is an answer, see [`Workers::sandbox`].
    pub fn start(config: Config) -> Result<Workers> {
        let program = match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|e| Code::Internal.from("finding the media worker", e))?
                .with_file_name("cloakroom-media"),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let interactive = if config.slots == 0 { cores } else { config.slots };
        let background = config.background_slots.max(1);
        let pool = Arc::new(Pool {
            interactive: Lane::new(interactive),
            background: Lane::new(background),
            config,
            program,
            stopping: AtomicBool::new(false),
            counts: Counters::default(),
            sandbox: Mutex::default(),
        });
        pool.test_sandbox();

        let mut inner = Inner { pool, slots: vec![], threads: Mutex::default() };
        if !inner.pool.sandbox().is_known() {
            inner.test_again().map_err(|e| Code::Internal.from("testing the sandbox again", e))?;
        }
        for number in 0..interactive + background {
            let class = if number < interactive { Class::Interactive } else { Class::Background };
            inner.add(class, number).map_err(|e| Code::Internal.from("starting a slot for media workers", e))?;
        }
        Ok(Workers { inner: Arc::new(inner) })
    }

    /// Has a worker answer `request` about `sources`, which are read from their beginnings.
    /// Dropping the future kills the worker.
    ///
    /// `BAD_IMAGE`: the decoder fell over the file or took too long. `BUSY`: no slot, no
    /// memory, or stopping; the same request may succeed later. `MEDIA_UNAVAILABLE`: see above.
    pub async fn run(&self, class: Class, request: Value, sources: Vec<File>, limits: Limits) -> Result<Answer> {
        self.seat(class).await?.run(request, sources, limits).await
    }

    /// Waits until a worker is free, and keeps it for one request. `BUSY` after a while.
    pub async fn seat(&self, class: Class) -> Result<Seat> {
        self.available()?;
        let permit = self.inner.pool.admit(class).await?;
        Ok(Seat { workers: self.clone(), class, permit })
    }

    /// The configured limits of a request.
    pub fn limits(&self) -> Limits {
        let config = &self.inner.pool.config;
        Limits {
            wall: Duration::from_secs(config.wall_seconds),
            cpu_seconds: config.cpu_seconds,
            output_bytes: config.output_bytes,
        }
    }

    /// Whether this box decodes at all.
    pub fn available(&self) -> Result<()> {
        let sandbox = self.inner.pool.sandbox();
        if sandbox.holds || self.inner.pool.config.allow_unsandboxed {
            Ok(())
        } else {
            Err(Code::MediaUnavailable.because(sandbox.why.clone()))
        }
    }

    /// What the self-test found.
    pub fn sandbox(&self) -> Sandbox {
        self.inner.pool.sandbox().clone()
    }

    pub fn counts(&self) -> Counts {
        let Pool { counts, interactive, background, .. } = &*self.inner.pool;
        Counts {
            running: counts.running.load(Ordering::Relaxed),
            waiting: interactive.waiting.load(Ordering::Relaxed) + background.waiting.load(Ordering::Relaxed),
            restarts: counts.restarts.load(Ordering::Relaxed),
            killed: counts.killed.load(Ordering::Relaxed),
        }
    }

    /// Ends every worker; requests under way and later ones answer BUSY. Returns when no worker
    /// is left.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

/// A worker that is free for whoever holds this.
pub struct Seat {
    workers: Workers,
    class: Class,
    permit: OwnedSemaphorePermit,
}

impl Seat {
    /// As [`Workers::run`], without the wait.
    pub async fn run(self, request: Value, sources: Vec<File>, limits: Limits) -> Result<Answer> {
        if sources.len() > SOURCES_MAX {
            return Err(Code::Internal.because(format!("{} files in one request to a media worker", sources.len())));
        }
        let pool = &self.workers.inner.pool;
        let limits = Limits { output_bytes: limits.output_bytes.min(pool.config.output_bytes), ..limits };
        let Some(slot) = pool.lane(self.class).idle.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
            return Err(Code::Internal.because("a slot for media workers was lost"));
        };
        let (reply, answer) = oneshot::channel();
        slot.give(Order { body: request, sources, limits, reply, permit: self.permit });
        Asked { slot, answer: Some(answer) }.wait().await
    }
}

impl Inner {
    fn add(&mut self, class: Class, number: usize) -> std::io::Result<()> {
        let slot = Arc::new(Slot::new(class)?);
        self.slots.push(Arc::clone(&slot));
        let (pool, theirs) = (Arc::clone(&self.pool), Arc::clone(&slot));
        self.spawn(format!("media-slot-{number}"), move || slot::run(&theirs, &pool))?;
        self.pool.lane(class).idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        Ok(())
    }

    /// Tests the sandbox until a worker has answered.
    fn test_again(&self) -> std::io::Result<()> {
        let pool = Arc::clone(&self.pool);
        self.spawn("media-self-test".to_owned(), move || {
            let mut pause = TESTED_AGAIN_AFTER;
            while !pool.is_stopping() && !pool.sandbox().is_known() {
                // Woken by the stop.
                std::thread::park_timeout(pause);
                if !pool.is_stopping() {
                    pool.test_sandbox();
                }
                pause = TESTED_AGAIN_AFTER_MOST.min(pause * 2);
            }
        })
    }

    fn spawn(&self, name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn stop(&self) {
        self.pool.stopping.store(true, Ordering::SeqCst);
        self.pool.interactive.permits.close();
        self.pool.background.permits.close();
        for slot in &self.slots {
            slot.ring();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            thread.thread().unpark();
            // A slot that panicked has taken its worker with it.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An asker's place; when it is given up, the slot hears of it.
struct Asked {
    slot: Arc<Slot>,
    answer: Option<oneshot::Receiver<Result<Answer>>>,
}

impl Asked {
    async fn wait(mut self) -> Result<Answer> {
        let Some(answer) = &mut self.answer else { return Err(slot::stopping()) };
        let answer = answer.await;
        self.answer = None;
        answer.unwrap_or_else(|_| Err(slot::stopping()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The slot looks whether the channel is closed when it hears the bell: close it first.
        if self.answer.take().is_some() {
            self.slot.ring();
        }
    }
}

/// What the slots share.
struct Pool {
    config: Config,
    program: PathBuf,
    interactive: Lane,
    background: Lane,
    stopping: AtomicBool,
    counts: Counters,
    /// As the last self-test found it.
    sandbox: Mutex<Sandbox>,
}

/// The slots of one class, and the queue before them.
struct Lane {
    permits: Arc<Semaphore>,
    /// As many as there are permits. The one used last is taken first: its worker is warmest.
    idle: Mutex<Vec<Arc<Slot>>>,
    waiting: AtomicUsize,
}

impl Lane {
    fn new(slots: usize) -> Lane {
        Lane { permits: Arc::new(Semaphore::new(slots)), idle: Mutex::default(), waiting: AtomicUsize::new(0) }
    }
}

#[derive(Default)]
struct Counters {
    running: AtomicUsize,
    restarts: AtomicU64,
    killed: AtomicU64,
}

impl Counters {
    fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    fn killed(&self) {
        self.killed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Waits for a slot of this class, in a queue of bounded length and for a bounded time.
    async fn admit(&self, class: Class) -> Result<OwnedSemaphorePermit> {
        let lane = self.lane(class);
        if let Ok(permit) = Arc::clone(&lane.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::in_queue(&lane.waiting, self.config.max_waiting)?;
        let wait = Duration::from_secs(self.config.max_wait_seconds);
        match tokio::time::timeout(wait, Arc::clone(&lane.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(slot::stopping()),
            Err(_elapsed) => Err(Code::Busy.because("no media worker became free in time")),
        }
    }

    /// The slot is ready for the next order.
    fn offer(&self, slot: &Arc<Slot>, permit: OwnedSemaphorePermit) {
        self.lane(slot.class).idle.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(slot));
        drop(permit);
    }

    fn start_worker(&self, class: Class) -> Result<Process> {
        let process = Process::start(&self.program, self.setup(class))?;
        self.counts.running.fetch_add(1, Ordering::Relaxed);
        Ok(process)
    }

    fn setup(&self, class: Class) -> Setup {
        Setup {
            version: VERSION.to_owned(),
            class,
            memory_bytes: self.config.memory_bytes,
            output_bytes: self.config.output_bytes,
            sandbox_required: !self.config.allow_unsandboxed,
        }
    }

    fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Interactive => &self.interactive,
            Class::Background => &self.background,
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn sandbox(&self) -> MutexGuard<'_, Sandbox> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn test_sandbox(&self) {
        let found = Sandbox::test(self);
        let mut sandbox = self.sandbox();
        if *sandbox != found {
            found.log();
            *sandbox = found;
        }
    }
}

/// A place in a queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn in_queue(waiting: &AtomicUsize, most: usize) -> Result<Place<'_>> {
        let place = Place(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Code::Busy.because("too many requests wait for media workers"));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the self-test found about the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    pub holds: bool,
    /// What is wrong, in one sentence; empty when it holds.
    pub why: String,
    /// Each layer about itself, for instance which Landlock this kernel has.
    pub layers: Vec<String>,
    pub attempts: Vec<Attempt>,
}

impl Sandbox {
    /// Whether a worker has tried and told: the next one would find the same.
    fn is_known(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Starts a worker, lets it try, and ends it: it may have become something else.
    fn test(pool: &Pool) -> Sandbox {
        let tried = Process::start(&pool.program, pool.setup(Class::Interactive)).and_then(|mut process| {
            let ask = process.send(&ToWorker::SelfTest, &[]);
            ask.map_err(|e| Code::MediaUnavailable.from("asking for the self-test", e))?;
            let answer = process.answer_in(SELF_TEST)?;
            Ok((std::mem::take(&mut process.layers), answer))
        });
        match tried {
            Ok((layers, FromWorker::Tried(attempts))) => Sandbox::judge(layers, attempts),
            Ok((layers, _)) => Sandbox { why: "the self-test gave no result".to_owned(), layers, ..Sandbox::default() },
            Err(error) => Sandbox { why: error.to_string(), ..Sandbox::default() },
        }
    }

    fn judge(layers: Vec<String>, attempts: Vec<Attempt>) -> Sandbox {
        let open: Vec<_> =
            attempts.iter().filter(|a| !a.refused).map(|a| format!("{} ({})", a.what, a.answer)).collect();
        let holds = open.is_empty() && !attempts.is_empty();
        let why = if holds { String::new() } else { format!("a media worker could {}", open.join(", ")) };
        Sandbox { holds, why, layers, attempts }
    }

    fn log(&self) {
        let layers = self.layers.join("; ");
        if self.holds {
            tracing::info!(sandbox.layers = layers, "the sandbox of the media workers holds");
        } else {
            tracing::error!(
                sandbox.layers = layers,
                sandbox.why = self.why,
                "the sandbox of the media workers does not hold"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(refused: bool) -> Attempt {
        Attempt { what: "read a secret".to_owned(), refused, answer: "it worked".to_owned() }
    }

    #[test]
    fn the_sandbox_holds_only_when_everything_was_refused() {
        for (attempts, holds) in
            [(vec![attempt(true), attempt(true)], true), (vec![attempt(true), attempt(false)], false), (vec![], false)]
        {
            assert_eq!(Sandbox::judge(vec![], attempts).holds, holds);
        }
        assert_eq!(Sandbox::judge(vec![], vec![attempt(false)]).why, "a media worker could read a secret (it worked)");
    }

    #[test]
    fn the_queue_is_bounded_and_places_are_given_back() {
        let waiting = AtomicUsize::new(0);
        let first = Place::in_queue(&waiting, 1).unwrap();
        assert_eq!(Place::in_queue(&waiting, 1).err().map(|e| e.code), Some(Code::Busy));
        drop(first);
        assert!(Place::in_queue(&waiting, 1).is_ok());
    }

    #[test]
    fn settings_have_defaults_and_typos_are_refused() {
        let parsed: Config = serde_json::from_str(r#"{"slots": 3}"#).unwrap();
        assert_eq!(parsed, Config { slots: 3, ..Config::default() });
        assert!(serde_json::from_str::<Config>(r#"{"slot": 3}"#).is_err());
    }
}
