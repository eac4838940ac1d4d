//! The one thread that writes: many closures, one commit.
//!
//! In come requests over a bounded channel; each is answered once its data is on disk. The
//! thread takes one request and whatever else waits already, up to [`MOST`], and runs them in
//! one `BEGIN IMMEDIATE … COMMIT`, each in a savepoint of its own. One flush of the log then
//! serves them all; nobody is made to wait for company.
//!
//! Invariants: an answer `Ok` is given only after the commit that holds it. A closure that
//! fails or panics takes back only what it did itself. If the commit fails, all in it fail.
//!
//! A batch in which everybody asked for [`Sync::Normal`] is committed without a flush. The
//! log is flushed as a whole, so such a batch is never lost while a later full one survives.
//!
//! Some SQLite errors (disk full, I/O) roll back the whole transaction beneath a savepoint.
//! That is seen by the connection being in autocommit again; whoever was in the batch fails
//! then, and the rest of the queue gets a new one.
//!
//! A log that could not be flushed is not written to, flushed or emptied again: the system has
//! dropped what it could not write, says so once, and would take whatever comes behind the gap for
//! safe. So every later write is refused until a restart, which reads from the log what is whole.
//! Of what was being committed nobody knows before whether it holds ([`is_in_doubt`]).

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::pool;
use crate::infra::db::pool::Sync;
use crate::infra::db::tx::AfterCommit;
use crate::infra::db::tx::Tx;
use crate::support::clock::Clock;
use crate::support::clock::Instant;

/// How many pages of 8 KiB the log has before it is emptied: about 32 MiB.
const LOG_PAGES: c_int = 4000;

thread_local! {
    /// Of the log of the connection that this thread writes with, after its last commit.
    static PAGES: Cell<c_int> = const { Cell::new(0) };
}

/// The most closures in one commit: bounds how long the first waits for the last.
const MOST: usize = 65;

/// Beneath the error of a commit of which only the next start knows whether it holds.
#[derive(Debug)]
pub(super) struct InDoubt;

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whether it was written is known after a restart")
    }
}

impl std::error::Error for InDoubt {}

/// Whether a write that failed may be there all the same after a restart: what goes with it then
/// has to stay.
pub fn is_in_doubt(error: &Error) -> bool {
    error.source.as_ref().is_some_and(|source| source.is::<InDoubt>())
}

/// What the writer is asked.
pub(super) enum Message {
    Write(Request),
    Optimize(oneshot::Sender<Result<()>>),
    Close(oneshot::Sender<Result<()>>),
}

/// A closure with its answer, the types gone.
pub(super) struct Request {
    sync: Sync,
    /// Runs on the connection, or is told why it cannot.
    work: Work,
}

type Work = Box<dyn FnOnce(Result<(&Connection, Instant), &Error>) -> Ran + Send>;

/// What a closure left behind.
struct Ran {
    kept: bool,
    after: Vec<AfterCommit>,
    /// Tells the caller; the argument is why the commit failed, if it did.
    answer: Answer,
}

type Answer = Box<dyn FnOnce(Option<&Error>) + Send>;

impl Request {
    pub(super) fn new<T: Send + 'static>(
        sync: Sync,
        f: impl FnOnce(&Tx) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Request {
        let work = move |on: Result<(&Connection, Instant), &Error>| {
            let (done, after) = match on {
                Ok((conn, now)) => {
                    let tx = Tx::new(conn, now);
                    let done = catch_unwind(AssertUnwindSafe(|| f(&tx)))
                        .unwrap_or_else(|_| Err(Code::Internal.because("a write to the database panicked")));
                    (done, tx.into_after())
                }
                Err(why) => (Err(why.code.because(format!("the write was not begun: {why}"))), Vec::new()),
            };
            Ran {
                kept: done.is_ok(),
                after,
                answer: Box::new(move |broken| {
                    answer(match (done, broken) {
                        (Ok(_), Some(why)) if is_in_doubt(why) => Err(why.code.from(why.detail.clone(), InDoubt)),
                        (Ok(_), Some(why)) => Err(why.code.because(format!("the commit failed: {why}"))),
                        (done, _) => done,
                    });
                }),
            }
        };
        Request { sync, work: Box::new(work) }
    }
}

/// What the writer counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub writes: AtomicU64,
    pub batches: AtomicU64,
    pub largest_batch: AtomicU64,
    pub failed_commits: AtomicU64,
    /// The log could not be flushed: nothing is written any more.
    pub degraded: AtomicBool,
    /// Somebody has asked for the end: what takes long and can be done another day ends.
    pub closing: AtomicBool,
}

/// The writing connection and what it needs to serve.
pub(super) struct Writer {
    conn: Connection,
    sync: Sync,
    clock: Clock,
    counters: Arc<Counters>,
}

impl Writer {
    pub(super) fn new(conn: Connection, clock: Clock, counters: Arc<Counters>) -> Writer {
        Writer { conn, sync: Sync::Full, clock, counters }
    }

    /// Serves until told to close, or until nobody is left who could ask.
    pub(super) fn serve(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(MOST);
        let mut requests = Vec::with_capacity(MOST);
        let mut closers = Vec::new();
        self.conn.wal_hook(Some(|_, pages| {
            PAGES.set(pages);
            Ok(())
        }));
        while inbox.blocking_recv_many(&mut messages, MOST) > 0 {
            for message in messages.drain(..) {
                match message {
                    Message::Write(request) => requests.push(request),
                    Message::Optimize(answer) => {
                        self.commit_all(&mut requests);
                        let _ = answer.send(self.optimize());
                    }
                    Message::Close(answer) => {
                        // Who is in the queue is served; who comes later is refused by the channel.
                        inbox.close();
                        closers.push(answer);
                    }
                }
            }
            self.commit_all(&mut requests);
        }
        let mut done = self.optimize().and_then(|()| self.empty_log());
        if self.is_degraded() {
            // What lies in the log stays there for the next start to read.
            let left = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            done = done.and(left.map(drop).map_err(Error::from));
        }
        if let Err((_, e)) = self.conn.close() {
            done = done.and(Err(e.into()));
        }
        for answer in closers {
            let _ = answer.send(match &done {
                Ok(()) => Ok(()),
                Err(e) => Err(e.code.because(e.to_string())),
            });
        }
    }

    fn commit_all(&mut self, requests: &mut Vec<Request>) {
        let mut waiting = requests.drain(..);
        while waiting.len() > 0 {
            if self.is_degraded() {
                for request in waiting {
                    tell((request.work)(Err(&degraded())), None);
                }
                return;
            }
            let full = waiting.as_slice().iter().any(|r| r.sync == Sync::Full);
            let sync = if full { Sync::Full } else { Sync::Normal };
            let begun = if sync == self.sync { Ok(()) } else { pool::set_sync(&self.conn, sync) };
            let begun = begun.and_then(|()| {
                self.sync = sync;
                self.say("BEGIN IMMEDIATE")
            });
            if let Err(why) = begun {
                for request in waiting {
                    tell((request.work)(Err(&why)), None);
                }
                return;
            }
            self.commit(&mut waiting);
            self.shorten_log();
        }
    }

    /// Runs requests in the open transaction, commits, answers. Leaves those not run in `waiting`.
    fn commit(&self, waiting: &mut impl Iterator<Item = Request>) {
        let mut batch = Vec::with_capacity(MOST);
        let mut outcome = Ok(());
        for request in waiting {
            outcome = self.say("SAVEPOINT one");
            if let Err(why) = &outcome {
                batch.push((request.work)(Err(why)));
                break;
            }
            let ran = (request.work)(Ok((&self.conn, self.clock.now())));
            let kept = ran.kept;
            batch.push(ran);
            outcome = if self.conn.is_autocommit() {
                Err(Code::Busy.because("the database rolled the whole transaction back"))
            } else if kept {
                self.say("RELEASE one")
            } else {
                self.say("ROLLBACK TO one").and_then(|()| self.say("RELEASE one"))
            };
            if outcome.is_err() {
                break;
            }
        }
        let outcome = outcome.and_then(|()| self.say("COMMIT").map_err(|why| self.doubted(why)));
        if let Err(why) = &outcome {
            tracing::error!(error = %why, writes = batch.len(), "a commit failed");
            self.counters.failed_commits.fetch_add(1, Ordering::Relaxed);
            if !self.conn.is_autocommit()
                && let Err(e) = self.say("ROLLBACK")
            {
                tracing::error!(error = %e, "a failed commit could not be rolled back");
            }
        } else {
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.writes.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.counters.largest_batch.fetch_max(batch.len() as u64, Ordering::Relaxed);
        let why = outcome.err();
        for ran in batch {
            tell(ran, why.as_ref());
        }
    }

    /// What a commit that failed is told as. Without room, or while another program writes, not all of
    /// it was written to the log; of anything else that is not known.
    fn doubted(&self, why: Error) -> Error {
        if matches!(why.code, Code::DiskFull | Code::Busy) {
            return why;
        }
        self.judge(&why);
        why.code.from(format!("the commit failed: {why}"), InDoubt)
    }

    /// After a failure of the disk beneath the log nothing is written any more.
    fn judge(&self, why: &Error) {
        if why.code == Code::StorageUnavailable && !self.counters.degraded.swap(true, Ordering::Relaxed) {
            tracing::error!(error = %why, "the disk failed beneath the database; nothing is written until the box is restarted");
        }
    }

    fn is_degraded(&self) -> bool {
        self.counters.degraded.load(Ordering::Relaxed)
    }

    /// Empties a log that has become long. What keeps it from that passes, and the next commit tries
    /// again, unless it is the disk.
    fn shorten_log(&self) {
        if PAGES.get() < LOG_PAGES || self.is_degraded() {
            return;
        }
        let emptied = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(why) = emptied.map_err(Error::from) {
            tracing::warn!(error = %why, "the log of the database could not be emptied");
            self.judge(&why);
        }
    }

    /// Refreshes the statistics that have become old.
    fn optimize(&self) -> Result<()> {
        if self.is_degraded() {
            return Err(degraded());
        }
        // All tables (0x10000), for it is the readers that search.
        self.conn.execute_batch("PRAGMA optimize=0x1fffe").map_err(Error::from).inspect_err(|why| self.judge(why))
    }

    /// Moves the log into the database as far as readers let it.
    fn empty_log(&self) -> Result<()> {
        // A row (busy, log pages, moved pages): being busy is no failure, the next one gets further.
        let emptied = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0));
        let busy = emptied.map_err(Error::from).inspect_err(|why| self.judge(why))?;
        if busy != 0 {
            tracing::debug!("a reader keeps the log from being emptied");
        }
        Ok(())
    }

    fn say(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

fn degraded() -> Error {
    Code::StorageUnavailable.because("the disk failed beneath the database; nothing is written until a restart")
}

/// Does what was to follow the commit, or drops it when there was none, then answers: who is
/// answered finds it done. All this is others' code, which the thread outlives.
fn tell(ran: Ran, why: Option<&Error>) {
    let holds = ran.kept && why.is_none();
    for then in ran.after {
        survive(|| if holds { then() } else { drop(then) });
    }
    survive(|| (ran.answer)(why));
}

fn survive(then: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(then)).is_err() {
        tracing::error!("what follows a commit panicked");
    }
}
