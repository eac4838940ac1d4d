//! The watch over the process of one errand: what it says, what it costs, and how it ends.
//!
//! [`Watch::start`] has a thread of its own start the process, listen to it and hold it to its
//! limits. Dropping the watch calls the errand off and returns when the process is gone.
//!
//! Invariant: the thread ends after its process, never before: the kernel ties the parent-death
//! signal to the thread that started it. Whatever the process does, the thread waits for
//! something that comes: a word, the bell, or the time of the next look at memory and disk.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc as blocking;
use std::time::Duration;
use std::time::Instant;

use rustix::event::EventfdFlags;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::super::process;
use super::super::protocol::Attempt;
use super::CellLine;
use super::Document;
use super::EXIT_NO_CELL;
use super::EXIT_NOT_UNDERSTOOD;
use super::EXIT_PANICKED;
use super::Ending;
use super::ErrandLimits;
use super::LINES_WAITING;

/// How often memory is looked at; a decoder needs longer to fill what a machine has.
const LOOK: Duration = Duration::from_millis(250);
/// The folder is looked at with every so many of those.
const LOOKS_PER_FOLDER: u32 = 8;
/// What a pipe takes at once.
const DOCUMENT_BYTES: usize = 64 << 10;
/// The longest line, and the most that is said.
const LINE_BYTES: usize = 4 << 20;
const SAID_BYTES: usize = 32 << 20;
/// From the last word to the end of the process, and from its death to its burial.
const LEAVING: Duration = Duration::from_secs(10);

/// An errand under way.
pub struct Watch {
    bell: Arc<Bell>,
    finished: oneshot::Receiver<Result<Finished, Ending>>,
    /// Closed when the thread ends.
    gone: blocking::Receiver<()>,
}

/// What came of an errand whose process left well.
#[derive(Debug, Default)]
pub struct Finished {
    pub last: Option<Value>,
    /// Layers and attempts of a self-test.
    pub tried: Option<(Vec<String>, Vec<Attempt>)>,
}

impl Watch {
    pub fn start(
        program: PathBuf,
        environment: &'static [(&'static str, &'static str)],
        document: Document,
        limits: ErrandLimits,
    ) -> Result<(Watch, mpsc::Receiver<Value>), Ending> {
        let no_room = |e: io::Error| Ending::NoRoom(e.to_string());
        let bell = Arc::new(Bell::new().map_err(no_room)?);
        let (tell, finished) = oneshot::channel();
        let (lines, heard) = mpsc::channel(LINES_WAITING);
        let (ends, gone) = blocking::channel::<()>();
        let theirs = Arc::clone(&bell);
        std::thread::Builder::new()
            .name("errand".to_owned())
            .spawn(move || {
                let outcome = Process::start(&program, environment, document, limits)
                    .and_then(|mut process| process.run(&theirs, &lines));
                if let Some(ending) = outcome.as_ref().err().filter(|ending| **ending != Ending::Cancelled) {
                    tracing::warn!(?ending, "an errand ended without an answer");
                }
                let _ = tell.send(outcome);
                drop((lines, ends));
            })
            .map_err(no_room)?;
        Ok((Watch { bell, finished, gone }, heard))
    }

    pub async fn finished(&mut self) -> Result<Finished, Ending> {
        (&mut self.finished).await.unwrap_or(Err(Ending::Cancelled))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bell.ring();
        // Killing takes as long as the kernel needs to take the memory back. A process that
        // hangs in a driver is left to the thread.
        let _ = self.gone.recv_timeout(LEAVING);
    }
}

/// Tells the thread that the errand is called off.
struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { fd, rung: AtomicBool::new(false) })
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    fn has_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }
}

/// The process, and what it has said and cost so far. Killed and buried when dropped.
struct Process {
    child: Child,
    pidfd: OwnedFd,
    output: ChildStdout,
    /// What the kernel says about its memory; absent where there is no /proc.
    memory: Option<File>,
    folder: Option<PathBuf>,
    limits: ErrandLimits,
    started: Instant,
    heard_at: Instant,
    said_bytes: usize,
    unfinished: Vec<u8>,
    last: Option<Value>,
    frame: Option<CellLine>,
}

impl Process {
    fn start(
        program: &Path,
        environment: &[(&str, &str)],
        document: Document,
        limits: ErrandLimits,
    ) -> Result<Process, Ending> {
        let no_room = |e: io::Error| Ending::NoRoom(e.to_string());
        let mut command = Command::new(program);
        command.arg("errand").env_clear().envs(environment.iter().copied());
        for variable in ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env(variable, document.cell.folder.as_deref().unwrap_or(Path::new("/nonexistent")));
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|e| match e
                .kind()
            {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    Ending::Unavailable(format!("{}: {e}", program.display()))
                }
                _ => no_room(e),
            })?;
        // Opened before the process knows what to do: later it is hidden from us.
        let memory = File::open(format!("/proc/{}/statm", child.id())).ok();
        let opened = match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => tell(input, &document)
                .and_then(|()| Ok(rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?))
                .map(|pidfd| (pidfd, output)),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let (pidfd, output) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                bury(&mut child);
                return Err(no_room(error));
            }
        };
        let now = Instant::now();
        Ok(Process {
            child,
            pidfd,
            output,
            memory,
            folder: document.cell.folder,
            limits,
            started: now,
            heard_at: now,
            said_bytes: 0,
            unfinished: vec![],
            last: None,
            frame: None,
        })
    }

    fn run(&mut self, bell: &Bell, lines: &mpsc::Sender<Value>) -> Result<Finished, Ending> {
        self.listen(bell, lines)?;
        self.see_off(bell)?;
        let used = process::cpu(&self.child);
        let status = bury(&mut self.child).ok_or(Ending::KilledFromOutside)?;
        self.judge(status, used)
    }

    /// Until it says no more.
    fn listen(&mut self, bell: &Bell, lines: &mpsc::Sender<Value>) -> Result<(), Ending> {
        let mut block = vec![0; 64 << 10];
        let mut looks = 0_u32;
        let mut next_look = self.started + LOOK;
        loop {
            let now = Instant::now();
            let (late, stalled) = (self.started + self.limits.wall, self.heard_at + self.limits.idle);
            if bell.has_rung() {
                return Err(Ending::Cancelled);
            } else if now >= late {
                return Err(self.late());
            } else if now >= stalled {
                return Err(Ending::Stalled);
            }
            if now >= next_look {
                looks += 1;
                next_look = now + LOOK;
                self.look(looks)?;
            }
            let until = late.min(stalled).min(next_look);
            if wait(self.output.as_fd(), bell, until) {
                match self.output.read(&mut block) {
                    Ok(0) => return Ok(()),
                    Ok(length) => self.hear(block.get(..length).unwrap_or_default(), lines)?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Ending::Nonsense(e.to_string())),
                }
            }
        }
    }

    fn hear(&mut self, bytes: &[u8], lines: &mpsc::Sender<Value>) -> Result<(), Ending> {
        self.said_bytes += bytes.len();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.unfinished.extend_from_slice(part);
            if self.said_bytes > SAID_BYTES || self.unfinished.len() > LINE_BYTES {
                return Err(Ending::TooLarge);
            }
            if parts.peek().is_some() {
                let line = serde_json::from_slice::<Value>(&self.unfinished);
                self.unfinished.clear();
                self.take(line.map_err(|e| Ending::Nonsense(e.to_string()))?, lines);
            }
        }
        Ok(())
    }

    fn take(&mut self, line: Value, lines: &mpsc::Sender<Value>) {
        self.heard_at = Instant::now();
        if let Some(frame) = CellLine::of(&line) {
            self.frame = Some(frame);
            return;
        }
        // A listener who is slow loses lines; who is gone has rung the bell.
        let _ = lines.try_send(line.clone());
        self.last = Some(line);
    }

    /// At memory every time, at the folder now and then.
    fn look(&self, looks: u32) -> Result<(), Ending> {
        if self.memory.as_ref().map_or(0, resident_bytes) > self.limits.memory_bytes {
            return Err(Ending::Memory);
        }
        if let Some(folder) = self.folder.as_deref().filter(|_| looks.is_multiple_of(LOOKS_PER_FOLDER))
            && disk_bytes(folder) > self.limits.folder_bytes
        {
            return Err(Ending::TooLarge);
        }
        Ok(())
    }

    /// From its last word to its end.
    fn see_off(&self, bell: &Bell) -> Result<(), Ending> {
        let until = Instant::now() + LEAVING;
        while !wait(self.pidfd.as_fd(), bell, until) {
            if bell.has_rung() {
                return Err(Ending::Cancelled);
            } else if Instant::now() >= until {
                return Err(Ending::Stalled);
            }
        }
        Ok(())
    }

    /// Time is up. A process that had the processor for a fair part of it is stuck in the film;
    /// one that had not was starved, which is no fault of the film.
    fn late(&self) -> Ending {
        if process::cpu(&self.child) * 4 >= self.limits.wall { Ending::TookTooLong } else { Ending::Starved }
    }

    fn judge(&mut self, status: ExitStatus, used: Duration) -> Result<Finished, Ending> {
        let frame = self.frame.take();
        match (status.code(), status.signal()) {
            (Some(0), _) if self.unfinished.is_empty() => {
                let tried = match frame {
                    Some(CellLine::Tried { layers, attempts }) => Some((layers, attempts)),
                    _ => None,
                };
                // What was made shows only now that it is all there.
                let made = self.folder.as_deref().map_or(0, disk_bytes);
                let fits = made <= self.limits.folder_bytes;
                if fits { Ok(Finished { last: self.last.take(), tried }) } else { Err(Ending::TooLarge) }
            }
            (Some(EXIT_NO_CELL), _) => Err(Ending::Unavailable(match frame {
                Some(CellLine::Broken(why)) => why,
                _ => "the sandbox cannot be entered".to_owned(),
            })),
            (Some(EXIT_NOT_UNDERSTOOD), _) => {
                Err(Ending::Unavailable("the video worker is of another version: restart the service".to_owned()))
            }
            // The loader's word for a library that is not installed.
            (Some(127), _) if self.last.is_none() => {
                Err(Ending::Unavailable("the video worker does not start: is GStreamer installed?".to_owned()))
            }
            (Some(EXIT_PANICKED), _) => Err(Ending::Crashed(match frame {
                Some(CellLine::Panicked(words)) => words,
                _ => status.to_string(),
            })),
            (_, Some(libc::SIGXCPU)) => Err(Ending::TookTooLong),
            (_, Some(libc::SIGXFSZ)) => Err(Ending::TooLarge),
            (_, Some(libc::SIGKILL)) if used.as_secs() >= self.limits.cpu_seconds => Err(Ending::TookTooLong),
            (_, Some(libc::SIGKILL)) => Err(Ending::KilledFromOutside),
            _ => Err(Ending::Crashed(status.to_string())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        bury(&mut self.child);
    }
}

/// Makes sure that it is gone, with its whole group; a process that is already dying keeps the
/// cause it dies of.
fn bury(child: &mut Child) -> Option<ExitStatus> {
    // Already reaped: its number may belong to somebody else by now.
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    // Not yet the head of a group in its first moments.
    let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
    child.wait().ok()
}

/// Passes the document on. The pipe takes it whole, so that nobody waits for a reader.
fn tell(mut input: ChildStdin, document: &Document) -> io::Result<()> {
    let text = serde_json::to_vec(document)?;
    if text.len() > DOCUMENT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("an errand of {} bytes", text.len())));
    }
    match input.write_all(&text) {
        // A program that does not listen has left, and its exit code says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

/// Whether `descriptor` stirred before the time, the bell or an interruption came.
fn wait(descriptor: BorrowedFd<'_>, bell: &Bell, until: Instant) -> bool {
    let timeout = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN), PollFd::new(&bell.fd, PollFlags::IN)];
    let count = rustix::event::poll(&mut polled, timeout.as_ref()).unwrap_or(0);
    let [stirred, _rung] = polled;
    count > 0 && !stirred.revents().is_empty()
}

/// Memory that a process has in use, from its `statm`; zero when it is dead.
fn resident_bytes(statm: &File) -> u64 {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0).unwrap_or(0);
    let pages = str::from_utf8(text.get(..length).unwrap_or_default())
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default().saturating_mul(rustix::param::page_size() as u64)
}

/// What a folder takes on the disk. Never follows a link.
fn disk_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("hls")).unwrap();
        let empty = disk_bytes(folder.path());
        std::fs::write(folder.path().join("hls/segment"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        let grown = disk_bytes(folder.path()) - empty;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
    }

    #[test]
    fn memory_in_use_is_seen() {
        let before = resident_bytes(&File::open("/proc/self/statm").unwrap());
        let more = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = resident_bytes(&File::open("/proc/self/statm").unwrap());
        assert!(before > 1 << 20 && after > before + more.len() as u64 / 2, "{before} {after}");
    }
}
