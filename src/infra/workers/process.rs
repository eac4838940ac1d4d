//! One media worker as the server sees it: a child, a socket, and how it ended.
//!
//! A `Process` is started, set up and waited for in one go, so whoever holds one can use it
//! at once. Dropping it kills and reaps; no worker outlives its `Process`, and none becomes a
//! zombie.
//!
//! The thread that starts a worker must live as long as the worker should: the kernel ties the
//! parent-death signal to the thread, not to the process.
//!
//! Nothing is set between fork and exec (the worker locks itself in), so the standard library
//! can use `posix_spawn`, whose cost does not grow with the server's memory.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::process::Pid;
use rustix::process::Signal;

use super::protocol;
use super::protocol::FRAME_BYTES;
use super::protocol::FromWorker;
use super::protocol::Setup;
use super::protocol::ToWorker;
use super::protocol::VERSION;
use crate::error::Code;
use crate::error::Result;

/// How long a new worker may take until it is ready, and a self-test until it is done. Far
/// above the milliseconds they need, for a box that is starting everything at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A worker that is ready.
pub struct Process {
    child: Child,
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// What each layer of its sandbox says about itself.
    pub layers: Vec<String>,
    /// Requests it was given.
    pub served: u32,
}

/// Why a worker is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Out of processor time.
    TookTooLong,
    /// SIGKILL from somebody else: in practice the kernel, out of memory.
    KilledFromOutside,
    /// It stopped itself, or fell over.
    Crashed(ExitStatus),
}

impl Process {
    pub fn start(program: &Path, setup: Setup) -> Result<Process> {
        let unable = |e: io::Error| Code::Busy.from(format!("starting {}", program.display()), e);
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| unable(e.into()))?;
        let child = Command::new(program)
            .arg(setup.class.word())
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(unable)?;
        let mut process = Process { child, socket: ours, buffer: vec![0; FRAME_BYTES], layers: vec![], served: 0 };
        process.send(&ToWorker::Setup(setup), &[]).map_err(unable)?;
        match process.answer_in(PATIENCE)? {
            FromWorker::Ready { version, layers } if version == VERSION => process.layers = layers,
            FromWorker::Ready { version, .. } => {
                return Err(Code::MediaUnavailable.because(format!(
                    "the media worker is version {version}, the service {VERSION}: restart the service"
                )));
            }
            FromWorker::Broken { why } => {
                return Err(Code::MediaUnavailable.because(format!("the sandbox cannot be entered: {why}")));
            }
            _ => return Err(Code::MediaUnavailable.because("the media worker answered nonsense")),
        }
        Ok(process)
    }

    pub fn send(&self, frame: &ToWorker, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        protocol::send(self.socket.as_fd(), frame, descriptors)
    }

    /// The next frame; `None` when the worker is gone.
    pub fn receive(&mut self) -> io::Result<Option<FromWorker>> {
        protocol::receive(self.socket.as_fd(), &mut self.buffer)
    }

    /// The answer to a question that is quickly answered.
    pub fn answer_in(&mut self, patience: Duration) -> Result<FromWorker> {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let patience = Timespec::try_from(patience).ok();
        let answered = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, patience.as_ref()))
            .map_err(|e| Code::Internal.from("waiting for a media worker", e))?;
        if answered == 0 {
            return Err(Code::Busy.because("the media worker did not answer in time"));
        }
        match self.receive() {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(Code::MediaUnavailable.because("the media worker left without a word")),
            Err(error) => Err(Code::MediaUnavailable.from("listening to a media worker", error)),
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Processor time used so far; zero when the kernel does not tell.
    pub fn cpu(&self) -> Duration {
        cpu(&self.child)
    }

    /// Makes sure that it is gone, and says of what, for one that left by itself.
    pub fn end(mut self) -> Ending {
        match self.kill() {
            Some(status) if status.signal() == Some(libc::SIGXCPU) => Ending::TookTooLong,
            Some(status) if status.signal() == Some(libc::SIGKILL) => Ending::KilledFromOutside,
            Some(status) => Ending::Crashed(status),
            None => Ending::KilledFromOutside,
        }
    }

    /// The whole group, which the sandbox keeps at one. A process that is already dying keeps
    /// the cause it dies of.
    fn kill(&mut self) -> Option<ExitStatus> {
        // Already reaped: its number may belong to somebody else by now.
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processor time that a child has used so far; zero when the kernel does not tell.
pub fn cpu(child: &Child) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut clock = 0;
    #[expect(unsafe_code, reason = "no safe wrapper reads another process's clock")]
    // SAFETY: both calls only write into the two locals. Whoever holds a `Child` has not reaped
    // it, or the number is refused.
    let read = unsafe {
        libc::clock_getcpuclockid(child.id() as libc::pid_t, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    if read { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}
