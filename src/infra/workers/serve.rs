//! The frame of the worker binary: be locked in, then answer requests until the server is gone.
//!
//! In: frames and descriptors on standard input (`protocol`). Out: for each request one
//! reply, and bytes in the memory that came with it. What a request means is the business of
//! the function given to [`serve`], which sees a JSON value and the sources as plain bytes.
//!
//! Invariant: the function never runs outside the sandbox, unless the server has said that it
//! may. A panic in it is reported as a failed request and ends the process: what it left
//! behind is not trusted with the next file. Everything worse (signals, endless loops, memory
//! without bound) is for the kernel and the server to end.
//!
//! This process is single-threaded: the call filter lets nothing start a thread.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use memmap2::Mmap;
use memmap2::MmapOptions;
use serde_json::Value;

use super::protocol;
use super::protocol::FRAME_BYTES;
use super::protocol::FromWorker;
use super::protocol::Run;
use super::protocol::ToWorker;
use super::protocol::VERSION;
use super::sandbox;
use crate::error::BoxError;

/// The sandbox could not be entered.
const EXIT_NO_SANDBOX: i32 = 70;
/// Started by hand, or by a server that speaks otherwise.
const EXIT_NOT_UNDERSTOOD: i32 = 64;

/// Where a request's result is written; lent by the server.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    size_bytes: u64,
    most_bytes: u64,
}

impl OutputFile {
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size_bytes + bytes.len() as u64 > self.most_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the result is larger than this box makes"));
        }
        let written = self.file.write(bytes)?;
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers requests with `answer(body, sources, output)` until the server is gone.
pub fn serve(mut answer: impl FnMut(Value, &[&[u8]], &mut OutputFile) -> Value) -> ! {
    let mut buffer = vec![0; FRAME_BYTES];
    if let Err(error) = set_up(&mut buffer) {
        tell(&FromWorker::Broken { why: error.to_string() });
        std::process::exit(EXIT_NO_SANDBOX)
    }
    let last_words = remember_panics();
    loop {
        let (request, descriptors) = next(&mut buffer);
        let reply = match request {
            ToWorker::Run(run) => {
                let attempt = std::panic::catch_unwind(AssertUnwindSafe(|| perform(run, descriptors, &mut answer)));
                attempt.unwrap_or_else(|_| Err(take(&last_words).into()))
            }
            ToWorker::SelfTest => Ok(FromWorker::Tried(sandbox::attempts())),
            ToWorker::Setup(_) => std::process::exit(EXIT_NOT_UNDERSTOOD),
        };
        match reply {
            Ok(reply) => tell(&reply),
            Err(error) => {
                tell(&FromWorker::Failed { why: error.to_string() });
                std::process::exit(1)
            }
        }
    }
}

/// Reads the first frame and locks the door.
fn set_up(buffer: &mut [u8]) -> Result<(), BoxError> {
    let (ToWorker::Setup(setup), _) = next(buffer) else { std::process::exit(EXIT_NOT_UNDERSTOOD) };
    let layers = match sandbox::enter(&setup) {
        Ok(layers) => layers,
        Err(error) if setup.sandbox_required => return Err(error),
        Err(error) => vec![format!("no sandbox: {error}")],
    };
    tell(&FromWorker::Ready { version: VERSION.to_owned(), layers });
    Ok(())
}

fn perform(
    run: Run,
    descriptors: Vec<OwnedFd>,
    answer: &mut impl FnMut(Value, &[&[u8]], &mut OutputFile) -> Value,
) -> Result<FromWorker, BoxError> {
    sandbox::allow_cpu(run.cpu_seconds)?;
    let mut files = descriptors.into_iter().map(File::from);
    let file = files.next().ok_or("no output was lent")?;
    let mut output = OutputFile { file, size_bytes: 0, most_bytes: run.output_bytes };
    let maps = files.zip(&run.sources_bytes).map(|(file, size)| map(&file, *size)).collect::<io::Result<Vec<_>>>()?;
    let sources: Vec<&[u8]> = maps.iter().map(|map| map.as_deref().unwrap_or_default()).collect();
    let body = answer(run.body, &sources, &mut output);
    Ok(FromWorker::Done { body, output_bytes: output.size_bytes })
}

/// `None` stands for an empty file, which cannot be mapped.
fn map(file: &File, size_bytes: u64) -> io::Result<Option<Mmap>> {
    if size_bytes == 0 {
        return Ok(None);
    }
    #[expect(unsafe_code, reason = "reading a large source into memory first would double its cost")]
    // SAFETY: originals are never rewritten. Should one be cut short all the same, this process
    // dies of it (SIGBUS) and nobody else.
    let map = unsafe { MmapOptions::new().len(size_bytes as usize).map_copy_read_only(file)? };
    Ok(Some(map))
}

/// Waits for the next frame; leaves when there will be none.
fn next(buffer: &mut [u8]) -> (ToWorker, Vec<OwnedFd>) {
    match protocol::receive_with_descriptors(io::stdin().as_fd(), buffer) {
        Ok(Some(frame)) => frame,
        Ok(None) => std::process::exit(0),
        Err(error) => {
            eprintln!("cloakroom starts this program itself, with a socket as standard input: {error}");
            std::process::exit(EXIT_NOT_UNDERSTOOD)
        }
    }
}

fn tell(frame: &FromWorker) {
    let socket = io::stdin();
    match protocol::send(socket.as_fd(), frame, &[]) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let why = "the reply was too long for a frame".to_owned();
            let _ = protocol::send(socket.as_fd(), &FromWorker::Failed { why }, &[]);
            std::process::exit(1)
        }
        Err(_) => std::process::exit(0),
        Ok(()) => {}
    }
}

/// Keeps the words and the place of the latest panic, which the payload alone does not tell.
pub fn remember_panics() -> Arc<Mutex<String>> {
    let words = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&words);
    std::panic::set_hook(Box::new(move |info| {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    words
}

pub fn take(words: &Mutex<String>) -> String {
    std::mem::take(&mut *words.lock().unwrap_or_else(PoisonError::into_inner))
}
