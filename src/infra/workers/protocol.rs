//! What server and media worker say to each other, and how a frame crosses.
//!
//! They share one AF_UNIX SOCK_SEQPACKET pair; the worker finds its end as standard input.
//! A packet is one frame: UTF-8 JSON of at most [`FRAME_BYTES`], an object with a single
//! key naming the kind. Descriptors ride along as SCM_RIGHTS, only with `run`: first the
//! output (an empty memfd, read-write), then the sources (read-only) in order.
//!
//! ```text
//! server → worker   setup      once: version, class, limits          worker → server   ready | broken
//!                   run        body, lengths, limits + descriptors                     done | failed
//!                   self_test                                                          tried
//! ```
//!
//! Strictly one question, one answer. An empty read is the end of the other side: the worker
//! leaves, the server buries it. Pixels never travel here; they lie in the output, whose
//! length `done` tells and the server checks.
//!
//! Packets rather than a stream: the kernel keeps the frames apart, and a descriptor can
//! never be parted from the words that explain it.

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::ReturnFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Class;

/// The longest frame; larger things belong into the output.
pub const FRAME_BYTES: usize = 64 * 1024;
/// The most files one request may bring.
pub const SOURCES_MAX: usize = 8;
/// Server and worker are parts of one package; a worker of another version is refused.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    Setup(Setup),
    Run(Run),
    SelfTest,
}

#[derive(Serialize, Deserialize)]
pub struct Setup {
    pub version: String,
    pub class: Class,
    pub memory_bytes: u64,
    pub output_bytes: u64,
    /// Whether a worker that cannot be locked in must leave.
    pub sandbox_required: bool,
}

#[derive(Serialize, Deserialize)]
pub struct Run {
    /// What to do, in words that only the two ends understand.
    pub body: Value,
    /// The length of each source, so that the worker need not ask the kernel.
    pub sources_bytes: Vec<u64>,
    pub cpu_seconds: u64,
    pub output_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    Ready { version: String, layers: Vec<String> },
    Broken { why: String },
    Done { body: Value, output_bytes: u64 },
    Failed { why: String },
    Tried(Vec<Attempt>),
}

/// Something a worker must not be able to do, and what happened when it tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub what: String,
    pub refused: bool,
    /// The kernel's answer.
    pub answer: String,
}

/// Sends one frame. `InvalidInput` says that it is too long; nothing was sent then.
pub fn send(socket: BorrowedFd<'_>, frame: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(frame)?;
    if text.len() > FRAME_BYTES || descriptors.len() > SOURCES_MAX + 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {} bytes", text.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOURCES_MAX + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits for one frame, without taking descriptors: any that were sent are closed by the
/// kernel. `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<T>> {
    let (_, length) = match rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC)) {
        Ok(read) => read,
        // The other side left without reading everything.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    parse(buffer, length)
}

/// Waits for one frame and the descriptors that came with it.
pub fn receive_with_descriptors<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOURCES_MAX + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut *buffer)],
            &mut control,
            RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            descriptors.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost on the way"));
    }
    Ok(parse(buffer, message.bytes)?.map(|frame| (frame, descriptors)))
}

fn parse<T: DeserializeOwned>(buffer: &[u8], length: usize) -> io::Result<Option<T>> {
    if length == 0 {
        return Ok(None);
    }
    let text = buffer.get(..length).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a frame too long"))?;
    Ok(Some(serde_json::from_slice(text)?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use rustix::net::AddressFamily;
    use rustix::net::SocketFlags;
    use rustix::net::SocketType;
    use serde_json::json;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn frames_keep_their_descriptors_and_their_borders() {
        let (a, b) = pair();
        let zero = File::open("/dev/zero").unwrap();
        send(a.as_fd(), &json!({"n": 1}), &[zero.as_fd(), zero.as_fd()]).unwrap();
        send(a.as_fd(), &json!({"n": 2}), &[]).unwrap();
        let mut buffer = vec![0; FRAME_BYTES];
        let (frame, mut files): (Value, _) = receive_with_descriptors(b.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!((frame, files.len()), (json!({"n": 1}), 2));
        let mut byte = [1];
        File::from(files.remove(0)).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert_eq!(receive::<Value>(b.as_fd(), &mut buffer).unwrap(), Some(json!({"n": 2})));
    }

    #[test]
    fn the_other_end_leaving_is_an_end_not_an_error() {
        let (a, b) = pair();
        send(b.as_fd(), &json!("never read"), &[]).unwrap();
        drop(a);
        assert_eq!(receive::<Value>(b.as_fd(), &mut [0; 16]).unwrap(), None);
    }

    #[test]
    fn frames_too_long_or_not_json_are_refused() {
        let (a, b) = pair();
        let long = "x".repeat(FRAME_BYTES);
        assert_eq!(send(a.as_fd(), &long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        rustix::net::send(&a, b"{", SendFlags::empty()).unwrap();
        assert!(receive::<Value>(b.as_fd(), &mut [0; 16]).is_err());
        rustix::net::send(&a, &[b'1'; 100], SendFlags::empty()).unwrap();
        assert!(receive::<Value>(b.as_fd(), &mut [0; 16]).is_err());
    }
}
