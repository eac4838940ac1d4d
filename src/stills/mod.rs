//! Pictures, by way of the sandboxed workers.
//!
//! In: open files and what is wanted of them. Out: facts, or the bytes of pictures. The
//! bytes of a file are never looked at in this process; a file that crashes its decoder
//! fails this one call.
//!
//! Several pictures of one source that are asked for while no worker is free go to the next
//! one together and share a decoding (`together.rs`).
//!
//! This room knows requests and answers, not processes (`infra::workers`) and not pixels
//! (`media`).

mod together;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::media::imaging::Order;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::Storage;
use crate::infra::workers::Class;
use crate::infra::workers::Seat;
use crate::infra::workers::Workers;
use crate::media::Made;
use crate::media::Reply;
use crate::media::Request;
use crate::media::imaging::Facts;
use crate::media::imaging::ImageError;
use crate::media::imaging::Impression;
use crate::media::imaging::Limits;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::container::VideoFacts;
use crate::media::imaging::params::watermark::Placement;
use crate::stills::together::Gathering;

/// Asks workers about pictures; cheap to clone.
#[derive(Clone)]
pub struct Stills {
    workers: Workers,
    limits: Limits,
    gathering: Gathering,
}

/// The files that a picture is made of.
#[derive(Clone)]
pub struct Sources {
    pub picture: Arc<File>,
    /// What a watermark step lays over it.
    pub mark: Option<Arc<File>>,
    identity: Identity,
}

/// Device and inode of the picture and of the mark: equal exactly for equal files, for as long as
/// one of them is open, whatever their names lead to by now.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    picture: (u64, u64),
    mark: Option<(u64, u64)>,
}

impl Sources {
    /// Takes files that nobody writes to any more; blocking.
    pub fn new(picture: File, mark: Option<File>) -> Result<Sources> {
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let identity = Identity { picture: identity(&picture)?, mark: mark.as_ref().map(identity).transpose()? };
        Ok(Sources { picture: Arc::new(picture), mark: mark.map(Arc::new), identity })
    }

    /// Opens them; blocking.
    pub fn open(storage: &Storage, picture: &ObjectPath, mark: Option<&ObjectPath>) -> Result<Sources> {
        Sources::new(storage.open_file(picture)?, mark.map(|mark| storage.open_file(mark)).transpose()?)
    }

    fn files(&self) -> Result<Vec<File>> {
        let files = std::iter::once(&self.picture).chain(&self.mark);
        files.map(|file| file.try_clone().map_err(Error::from)).collect()
    }
}

/// A picture that was made.
pub struct Picture {
    pub bytes: Bytes,
    pub format: OutputFormat,
    pub width: u32,
    pub height: u32,
}

/// A pack of deep-zoom tiles.
pub struct Tiles {
    pub pack: Bytes,
    /// Of each tile.
    pub format: OutputFormat,
    /// Of the whole picture.
    pub width: u32,
    pub height: u32,
    pub tiles: u64,
}

impl Stills {
    pub fn new(workers: Workers, limits: Limits) -> Stills {
        Stills { workers, limits, gathering: Gathering::default() }
    }

    /// What is this picture? Somebody is waiting for it to become usable.
    pub async fn probe(&self, source: Arc<File>) -> Result<Facts> {
        match self.ask(Class::Interactive, Request::Probe { limits: self.limits.clone() }, source).await? {
            (Reply::Facts(facts), _) => Ok(*facts),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// What is this film or recording? `None` when the container is not understood.
    pub async fn probe_container(&self, source: Arc<File>) -> Result<Option<VideoFacts>> {
        match self.ask(Class::Interactive, Request::ProbeContainer, source).await? {
            (Reply::Container(facts), _) => Ok(facts),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Makes one picture.
    pub async fn render(&self, class: Class, sources: Sources, order: Order) -> Result<Picture> {
        let request = Request::Render { orders: vec![order], limits: self.limits.clone() };
        let made = self.run(self.workers.seat(class).await?, request, &sources).await?;
        made.into_iter().next().unwrap_or_else(|| Err(missing()))
    }

    /// Looks at a picture, and makes the base image from which smaller ones are cut later, if
    /// it is larger than that.
    pub async fn base(&self, source: Arc<File>, side: u32) -> Result<(Option<Picture>, Impression)> {
        match self.ask(Class::Background, Request::Base { side, limits: self.limits.clone() }, source).await? {
            (Reply::Base { made, impression }, output) => {
                Ok((made.map(|made| picture(&made, &output)).transpose()?, impression))
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Makes the pack of deep-zoom tiles; `media::imaging::deepzoom::Pack` finds them in it.
    pub async fn deep_zoom(&self, sources: Sources, mark: Option<(Placement, f64)>) -> Result<Tiles> {
        let request = Request::DeepZoom { mark, limits: self.limits.clone() };
        let seat = self.workers.seat(Class::Background).await?;
        match self.converse(seat, request, sources.files()?).await? {
            (Reply::DeepZoom { format, width, height, tiles }, pack) => {
                Ok(Tiles { pack, format, width, height, tiles })
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    async fn run(&self, seat: Seat, request: Request, sources: &Sources) -> Result<Vec<Result<Picture>>> {
        match self.converse(seat, request, sources.files()?).await? {
            (Reply::Rendered(made), output) => Ok(pictures(made, &output)),
            (other, _) => Err(unexpected(other)),
        }
    }

    async fn ask(&self, class: Class, request: Request, source: Arc<File>) -> Result<(Reply, Bytes)> {
        let source = source.try_clone().map_err(Error::from)?;
        self.converse(self.workers.seat(class).await?, request, vec![source]).await
    }

    async fn converse(&self, seat: Seat, request: Request, files: Vec<File>) -> Result<(Reply, Bytes)> {
        let request = serde_json::to_value(request).map_err(|e| Code::Internal.from("asking a media worker", e))?;
        let answer = seat.run(request, files, self.workers.limits()).await?;
        let reply = serde_json::from_value(answer.reply)
            .map_err(|e| Code::Internal.from("reading a media worker's reply", e))?;
        Ok((reply, answer.output.bytes()?))
    }
}

/// Cuts the output into the pictures that the reply lists.
fn pictures(made: Vec<Result<Made, ImageError>>, output: &Bytes) -> Vec<Result<Picture>> {
    made.into_iter().map(|made| made.map_err(refused).and_then(|made| picture(&made, output))).collect()
}

fn picture(made: &Made, output: &Bytes) -> Result<Picture> {
    let &Made { format, width, height, offset_bytes, size_bytes } = made;
    // The worker may be what a file made of it: its figures are not believed.
    let until = offset_bytes.checked_add(size_bytes).filter(|&until| until <= output.len() as u64);
    let until = until.ok_or_else(missing)? as usize;
    Ok(Picture { bytes: output.slice(offset_bytes as usize..until), format, width, height })
}

fn missing() -> Error {
    Code::BadImage.because("the decoder stopped on this file")
}

fn refused(error: ImageError) -> Error {
    match error {
        ImageError::Cancelled => Code::Busy.because("the work was given up"),
        ImageError::NotAnImage | ImageError::Unsupported(_) => {
            Code::NoImage.because("No image can be made from this content.")
        }
        e @ ImageError::NoPage(_) => Code::InvalidRequest.because(format!("page: {e}")),
        ImageError::NotRendered(why) => Code::Internal.because(why),
        e => Code::BadImage.because(e.to_string()),
    }
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused(e) => refused(e),
        other => Code::Internal.because(format!("a media worker answered something else: {other:?}")),
    }
}
