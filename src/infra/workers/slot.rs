//! A slot: one thread, one worker at a time, one request at a time.
//!
//! An [`Order`] is put into the slot's inbox and its bell rung; the thread passes it to its
//! worker, waits with a deadline, and answers. The bell also tells that the asker is gone or
//! the pool stops; the thread then looks for itself, so a ring too many is harmless.
//!
//! Invariant: a request meets either a fresh worker or one that has answered its last request
//! well. After a failure, a timeout, or enough requests, the worker is killed and its
//! successor is started before the slot is offered again, so nobody waits for a start.
//!
//! Threads instead of async I/O: there are few, HTTP threads each run a runtime of their own,
//! and a worker must be started by a thread that lives on (see `process.rs`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rustix::event::EventfdFlags;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

use super::Answer;
use super::Class;
use super::Limits;
use super::Pool;
use super::output::Output;
use super::process::Ending;
use super::process::Process;
use super::protocol::FromWorker;
use super::protocol::Run;
use super::protocol::ToWorker;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;

/// A request on its way to a worker.
pub struct Order {
    pub body: Value,
    pub sources: Vec<File>,
    pub limits: Limits,
    /// Closed when the asker has gone away.
    pub reply: oneshot::Sender<Result<Answer>>,
    /// The right to this slot; given back when the slot is ready for the next order.
    pub permit: OwnedSemaphorePermit,
}

/// The server's end of one slot.
pub struct Slot {
    pub class: Class,
    bell: OwnedFd,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    order: Option<Order>,
    /// Nobody will look any more.
    closed: bool,
}

impl Slot {
    pub fn new(class: Class) -> io::Result<Slot> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Slot { class, bell, inbox: Mutex::default() })
    }

    /// Hands an order over; when the slot has closed, dropping it answers it.
    pub fn give(&self, order: Order) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if !inbox.closed {
            inbox.order = Some(order);
            drop(inbox);
            self.ring();
        }
    }

    pub fn ring(&self) {
        // A full counter means that it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Option<Order> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).order.take()
    }

    fn close(&self) {
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = Inbox { order: None, closed: true };
    }

    /// Waits for the bell or the worker, at most until `deadline`; says whether the worker stirred.
    fn wait(&self, worker: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Woken {
        let timeout = deadline.and_then(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())).ok());
        // Without a worker the bell is watched twice, which costs nothing.
        let bell = self.bell.as_fd();
        let mut polled =
            [PollFd::new(&bell, PollFlags::IN), PollFd::from_borrowed_fd(worker.unwrap_or(bell), PollFlags::IN)];
        // An interruption looks like a ring.
        let count = rustix::event::poll(&mut polled, timeout.as_ref()).unwrap_or(1);
        let [rung, stirred] = polled.map(|one| !one.revents().is_empty());
        if rung {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        match count {
            0 => Woken::Late,
            _ if stirred && worker.is_some() => Woken::ByWorker,
            _ => Woken::ByBell,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    ByBell,
    ByWorker,
    Late,
}

/// The life of a slot's thread.
pub fn run(slot: &Arc<Slot>, pool: &Pool) {
    let mut worker: Option<Process> = None;
    while !pool.is_stopping() {
        if let Some(order) = slot.take() {
            serve(slot, pool, &mut worker, order);
        } else {
            let woken = slot.wait(worker.as_ref().map(Process::socket), None);
            if let Some(dead) = worker.take_if(|_| woken == Woken::ByWorker) {
                let ending = dead.end();
                tracing::warn!(worker.class = slot.class.word(), ?ending, "an idle media worker ended");
                pool.counts.ended();
            }
        }
    }
    slot.close();
    if worker.take().is_some() {
        pool.counts.ended();
    }
}

fn serve(slot: &Arc<Slot>, pool: &Pool, worker: &mut Option<Process>, order: Order) {
    let Order { body, sources, limits, mut reply, permit } = order;
    if reply.is_closed() {
        return pool.offer(slot, permit);
    }
    let exchange = Exchange { slot, pool, limits };
    let sent = exchange.send(worker, body, &sources);
    drop(sources);
    let (result, keep) = match sent {
        Ok(output) => exchange.receive(worker, output, &mut reply),
        Err(error) => (Err(error), worker.is_some()),
    };
    let recycled = worker.as_ref().is_some_and(|w| w.served >= pool.config.requests_per_worker);
    if keep && !recycled {
        pool.offer(slot, permit);
        let _ = reply.send(result);
        return;
    }
    let _ = reply.send(result);
    if let Some(old) = worker.take() {
        drop(old);
        pool.counts.ended();
    }
    if !pool.is_stopping() {
        match pool.start_worker(slot.class) {
            Ok(fresh) => *worker = Some(fresh),
            Err(error) => tracing::error!(%error, "no media worker can be started"),
        }
    }
    pool.offer(slot, permit);
}

/// One request and its answer.
struct Exchange<'a> {
    slot: &'a Slot,
    pool: &'a Pool,
    limits: Limits,
}

impl Exchange<'_> {
    /// Passes the request on; afterwards `worker` is at work, with sources and output of its own.
    fn send(&self, worker: &mut Option<Process>, body: Value, sources: &[File]) -> Result<File> {
        let output = Output::lend().map_err(|e| Code::Busy.from("lending memory to a media worker", e))?;
        let mut sources_bytes = Vec::with_capacity(sources.len());
        for source in sources {
            sources_bytes.push(source.metadata()?.len());
        }
        let frame = ToWorker::Run(Run {
            body,
            sources_bytes,
            cpu_seconds: self.limits.cpu_seconds,
            output_bytes: self.limits.output_bytes,
        });
        let mut descriptors = vec![output.as_fd()];
        descriptors.extend(sources.iter().map(AsFd::as_fd));

        // The worker may have died while idle: the request has not been seen then, and a second
        // one gets it.
        let mut again = worker.is_some();
        loop {
            let mut process = match worker.take() {
                Some(process) => process,
                None => self.pool.start_worker(self.slot.class)?,
            };
            let sent = process.send(&frame, &descriptors);
            process.served += 1;
            match sent {
                Ok(()) => {
                    *worker = Some(process);
                    return Ok(output);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    *worker = Some(process);
                    return Err(Code::Internal.from("a request to a media worker", error));
                }
                Err(error) => {
                    process.end();
                    self.pool.counts.ended();
                    if !std::mem::take(&mut again) {
                        return Err(Code::Busy.from("speaking to a media worker", error));
                    }
                }
            }
        }
    }

    /// Waits for the answer; says whether the worker may go on.
    fn receive(
        &self,
        worker: &mut Option<Process>,
        output: File,
        reply: &mut oneshot::Sender<Result<Answer>>,
    ) -> (Result<Answer>, bool) {
        let Some(process) = worker else { return (Err(Code::Internal.because("no media worker")), false) };
        let deadline = Instant::now() + self.limits.wall;
        let cpu_before = process.cpu();
        loop {
            match self.slot.wait(Some(process.socket()), Some(deadline)) {
                Woken::ByBell if self.pool.is_stopping() => return (Err(stopping()), false),
                Woken::ByBell if reply.is_closed() => {
                    self.pool.counts.killed();
                    return (Err(Code::Busy.because("the asker is gone")), false);
                }
                Woken::ByBell => {}
                Woken::Late => {
                    self.pool.counts.killed();
                    return (Err(self.late(process.cpu().saturating_sub(cpu_before))), false);
                }
                Woken::ByWorker => break,
            }
        }
        match process.receive() {
            Ok(Some(FromWorker::Done { body, output_bytes })) if output_bytes <= self.limits.output_bytes => {
                match Output::seal(output, output_bytes) {
                    Ok(output) => (Ok(Answer { reply: body, output }), true),
                    Err(error) => (Err(stopped_on(error)), false),
                }
            }
            Ok(Some(FromWorker::Failed { why })) => (Err(stopped_on(why)), false),
            Ok(Some(_)) | Err(_) => (Err(stopped_on("the media worker answered nonsense")), false),
            Ok(None) => {
                let ending = worker.take().map(Process::end);
                self.pool.counts.ended();
                (Err(self.ended(ending)), false)
            }
        }
    }

    /// Time is up. A worker that had the processor for a fair part of it is stuck in the file;
    /// one that had not was starved, which is no fault of the file.
    fn late(&self, used: Duration) -> Error {
        tracing::warn!(
            worker.class = self.slot.class.word(),
            cpu_ms = used.as_millis() as u64,
            "a media worker was late"
        );
        if used * 4 >= self.limits.wall {
            took_too_long()
        } else {
            Code::Busy.because("decoding did not get its turn in time")
        }
    }

    fn ended(&self, ending: Option<Ending>) -> Error {
        tracing::warn!(worker.class = self.slot.class.word(), ?ending, "a media worker ended at work");
        match ending {
            Some(Ending::TookTooLong) => took_too_long(),
            Some(Ending::Crashed(status)) => stopped_on(status.to_string()),
            Some(Ending::KilledFromOutside) | None => {
                Code::Busy.because("a media worker was killed, by want of memory")
            }
        }
    }
}

fn took_too_long() -> Error {
    Code::BadImage.because("this file takes longer to decode than this box allows")
}

fn stopped_on(why: impl Into<crate::error::BoxError>) -> Error {
    Code::BadImage.from("the decoder stopped on this file", why)
}

pub fn stopping() -> Error {
    Code::Busy.because("the service is stopping")
}
