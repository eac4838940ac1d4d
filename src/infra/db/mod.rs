//! The only bridge from async code to SQLite.
//!
//! In go closures, out come their results: [`Db::read`] runs one on a query-only connection,
//! [`Db::write`] on the single writer, where it shares a commit with its neighbours
//! (`writer.rs`). Closures are sync, so no connection and no transaction can be held across
//! an `.await`; store functions take `&Conn` or `&Tx` and compose.
//!
//! Invariants: `write` answers `Ok` only when its data would survive a power cut. No caller
//! blocks: everything runs on the runtime on which the [`Db`] was opened, because actix gives
//! each of its workers a small runtime of its own, whose blocking pool is neither bounded
//! nor shared. A reader never sees what is not committed.
//!
//! A file whose last run did not end cleanly is checked before it is used. SQLite itself
//! leaves the sign: the last connection to close empties the log, so a log with bytes in it
//! at the start is a crash. Above [`Config::check_up_to_bytes`] the check would hold the
//! start for seconds and is left to [`Db::quick_check`], which the server runs behind its
//! start and then once a day.
//!
//! Where the disk fails beneath a commit, nothing is written until a restart ([`Db::is_degraded`]).
//!
//! This module knows no table.

#[cfg(test)]
pub mod flushes;
mod lock;
mod memory;
mod pool;
pub mod schema;
mod tx;
pub mod types;
mod writer;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::pool::Sync;
use crate::infra::db::schema::Step;
use crate::infra::db::writer::Counters;
use crate::infra::db::writer::InDoubt;
use crate::infra::db::writer::Message;
use crate::infra::db::writer::Request;
use crate::infra::db::writer::Writer;
use crate::support::clock::Clock;

pub use crate::infra::db::lock::DataLock;
pub use crate::infra::db::memory::Memory;
pub use crate::infra::db::tx::Tx;
pub use crate::infra::db::writer::is_in_doubt;

/// A connection, as store functions that only read take it. A [`Tx`] can be given instead.
pub type Conn = rusqlite::Connection;

/// Pages and rows between two looks whether a check is to end.
const STEPS_OF_A_CHECK: i32 = 1000;

/// Writes that may queue before `write` itself waits.
const QUEUED_WRITES: usize = 1024;

/// How the database is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connections for reading, and so reads at once.
    pub readers: u32,
    /// Longest time a single read may take, in milliseconds.
    pub read_limit_ms: u64,
    /// After a crash, a database up to this size is checked before the start, in bytes.
    pub check_up_to_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { readers: 4, read_limit_ms: 5000, check_up_to_bytes: 512 << 20 }
    }
}

/// What the database did since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Closures run by the writer.
    pub writes: u64,
    /// Commits that served them.
    pub batches: u64,
    /// The most closures in one commit.
    pub largest_batch: u64,
    /// Commits that failed: not zero means that the disk needs a look.
    pub failed_commits: u64,
    /// Size of the write-ahead log now.
    pub wal_bytes: u64,
}

/// The database; cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    path: PathBuf,
    clock: Clock,
    handle: Handle,
    read_limit: Duration,
    readers: pool::Readers,
    reads: Arc<Semaphore>,
    counters: Arc<Counters>,
    /// Gone only while being dropped.
    inbox: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Declared last: the directory goes after everything in it is closed.
    _temporary: Option<TempDir>,
}

impl Db {
    /// Opens the file, or makes it with `schema_sql`. Call it on the runtime that shall do the
    /// work, holding the [`DataLock`] of the directory. Blocks for as long as the disk takes.
    pub fn open(path: &Path, schema_sql: &str, clock: Clock, config: &Config) -> Result<Db> {
        open(path, schema_sql, schema::STEPS, clock, config, wal_bytes(path) > 0, None)
    }

    /// The same while another process has the directory: its log is no sign of a crash.
    pub fn open_beside(path: &Path, schema_sql: &str, clock: Clock, config: &Config) -> Result<Db> {
        open(path, schema_sql, schema::STEPS, clock, config, false, None)
    }

    /// A database for one test, gone with the last clone of it.
    pub fn temporary(schema_sql: &str, clock: Clock) -> Result<Db> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("temporary.db");
        open(&path, schema_sql, schema::STEPS, clock, &Config::default(), false, Some(dir))
    }

    /// Runs `f` on a query-only connection.
    pub async fn read<T: Send + 'static>(&self, f: impl FnOnce(&Conn) -> Result<T> + Send + 'static) -> Result<T> {
        let turn = Arc::clone(&self.0.reads).acquire_owned().await.map_err(|e| Code::Busy.from("reading", e))?;
        let db = self.clone();
        let running = self.0.handle.spawn_blocking(move || {
            let _turn = turn;
            db.read_now(f)
        });
        running.await.map_err(|e| Code::Internal.from("reading the database", e))?
    }

    /// As [`Db::read`], on a thread that may block.
    fn read_now<T>(&self, f: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        f(&*pool::reader(&self.0.readers, self.0.read_limit)?)
    }

    /// Runs `f` in a transaction of its own and answers when it is on disk.
    ///
    /// `Err` from `f`, or a panic, takes back what `f` did. Dropping the future does not stop
    /// a write that was handed over.
    pub async fn write<T: Send + 'static>(&self, f: impl FnOnce(&Tx) -> Result<T> + Send + 'static) -> Result<T> {
        self.hand_over(Sync::Full, f).await
    }

    /// As [`Db::write`], for what may be forgotten in a power cut, though not in a crash:
    /// leases, progress, intents that a later full write confirms. Saves the flush.
    pub async fn write_relaxed<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.hand_over(Sync::Normal, f).await
    }

    /// The disk has failed beneath a commit since the start; nothing is written until a restart.
    pub fn is_degraded(&self) -> bool {
        self.0.counters.degraded.load(Ordering::Relaxed)
    }

    /// Proves that a commit reaches the disk: rewrites a number in the file's header.
    pub async fn ping_write(&self) -> Result<()> {
        self.write(|tx| {
            let version: i32 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
            Ok(tx.pragma_update(None, "user_version", version)?)
        })
        .await
    }

    /// Refreshes the statistics by which SQLite plans its searches, where they have become old.
    pub async fn optimize(&self) -> Result<()> {
        self.command(Message::Optimize).await
    }

    /// Serves the writes in the queue, empties the log and stops the writer. Later writes are
    /// refused with [`Code::Busy`]; reads go on until the last clone is dropped.
    pub async fn close(&self) -> Result<()> {
        self.0.counters.closing.store(true, Ordering::Relaxed);
        self.command(Message::Close).await
    }

    /// Looks through the whole file for damage; takes about a second per gigabyte in memory. Ends
    /// with [`Code::Busy`] when the database is closed meanwhile.
    pub async fn quick_check(&self) -> Result<()> {
        let (path, counters) = (self.0.path.clone(), Arc::clone(&self.0.counters));
        // It must not take a reader's turn, nor hold up a stop.
        let running = self.0.handle.spawn_blocking(move || {
            let conn = pool::look_only(&path)?;
            pool::interrupt_when(&conn, STEPS_OF_A_CHECK, move || counters.closing.load(Ordering::Relaxed))?;
            quick_check(&conn)
        });
        running.await.map_err(|e| Code::Internal.from("checking the database", e))?
    }

    pub fn stats(&self) -> Stats {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        Stats {
            writes: count(&counters.writes),
            batches: count(&counters.batches),
            largest_batch: count(&counters.largest_batch),
            failed_commits: count(&counters.failed_commits),
            wal_bytes: wal_bytes(&self.0.path),
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The runtime on which the database was opened, for tasks that belong to nobody's request.
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    async fn hand_over<T: Send + 'static>(
        &self,
        sync: Sync,
        f: impl FnOnce(&Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let request = Request::new(sync, f, |done| drop(answer.send(done)));
        self.inbox()?.send(Message::Write(request)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| unanswered())?
    }

    async fn command(&self, message: impl FnOnce(oneshot::Sender<Result<()>>) -> Message) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.inbox()?.send(message(answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    fn inbox(&self) -> Result<&mpsc::Sender<Message>> {
        self.0.inbox.as_ref().ok_or_else(closed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.inbox = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A closure may own the last clone; then the writer itself is what drops us.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn open(
    path: &Path,
    schema_sql: &str,
    steps: &[Step],
    clock: Clock,
    config: &Config,
    crashed: bool,
    temporary: Option<TempDir>,
) -> Result<Db> {
    pool::check_version(rusqlite::version_number())?;
    let handle = Handle::try_current().map_err(|e| Code::Internal.from("opening the database outside a runtime", e))?;
    let found = schema::look(path, steps)?;
    let conn = pool::writer(path, Sync::Full)?;
    if crashed {
        let size_bytes = std::fs::metadata(path)?.len();
        if size_bytes <= config.check_up_to_bytes {
            quick_check(&conn)?;
        }
        pool::settle_log(&conn, path)?;
        tracing::info!(size_bytes, "the last run did not end cleanly; the database was recovered");
    }
    schema::settle(&conn, path, found, schema_sql, steps)?;
    let readers = pool::readers(path, config.readers.max(1))?;
    let counters = Arc::new(Counters::default());
    let (inbox, received) = mpsc::channel(QUEUED_WRITES);
    let writer = Writer::new(conn, clock.clone(), Arc::clone(&counters));
    let thread = std::thread::Builder::new().name("db-writer".to_owned()).spawn(move || writer.serve(received))?;
    Ok(Db(Arc::new(Inner {
        path: path.to_owned(),
        clock,
        handle,
        read_limit: Duration::from_millis(config.read_limit_ms),
        readers,
        reads: Arc::new(Semaphore::new(config.readers.max(1) as usize)),
        counters,
        inbox: Some(inbox),
        thread: Mutex::new(Some(thread)),
        _temporary: temporary,
    })))
}

fn quick_check(conn: &Conn) -> Result<()> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Code::StorageUnavailable.because(format!("the database is damaged ({verdict}); restore it from a backup")))
}

fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(pool::log_of(path)).map_or(0, |meta| meta.len())
}

fn closed() -> Error {
    Code::Busy.because("the database is closed")
}

/// The writer took a request and ended before it answered.
fn unanswered() -> Error {
    Code::Busy.from("the database was closed", InDoubt)
}

#[cfg(test)]
mod tests;
