//! Pictures, by way of the sandboxed workers.
//!
//! In: an open file and what is wanted of it. Out: facts, or the bytes of a picture. The
//! bytes of the file are never looked at in this process; a file that crashes its decoder
//! fails this one call.
//!
//! This room knows requests and answers, not processes (`infra::workers`) and not pixels
//! (`media`).

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::workers::Class;
use crate::infra::workers::Workers;
use crate::media::Reply;
use crate::media::Request;
use crate::media::imaging::Facts;
use crate::media::imaging::ImageError;
use crate::media::imaging::Limits;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;
use crate::media::imaging::container::VideoFacts;

/// Asks workers about pictures; cheap to clone.
#[derive(Clone)]
pub struct Stills {
    workers: Workers,
    limits: Limits,
}

/// A picture that was made.
pub struct Picture {
    pub bytes: Bytes,
    pub format: OutputFormat,
    pub width: u32,
    pub height: u32,
}

impl Stills {
    pub fn new(workers: Workers, limits: Limits) -> Stills {
        Stills { workers, limits }
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

    /// Makes a picture by a recipe, while somebody waits.
    pub async fn render(&self, source: Arc<File>, recipe: &Recipe, format: OutputFormat) -> Result<Picture> {
        let request = Request::Render { recipe: recipe.canonical(), format, limits: self.limits.clone() };
        picture(self.ask(Class::Interactive, request, source).await?)
    }

    /// Makes the base image from which smaller ones are cut later.
    pub async fn base(&self, source: Arc<File>, side: u32) -> Result<Picture> {
        picture(self.ask(Class::Background, Request::Base { side, limits: self.limits.clone() }, source).await?)
    }

    async fn ask(&self, class: Class, request: Request, source: Arc<File>) -> Result<(Reply, Bytes)> {
        let request = serde_json::to_value(request).map_err(|e| Code::Internal.from("asking a media worker", e))?;
        let source = source.try_clone().map_err(Error::from)?;
        let answer = self.workers.run(class, request, vec![source], self.workers.limits()).await?;
        let reply = serde_json::from_value(answer.reply)
            .map_err(|e| Code::Internal.from("reading a media worker's reply", e))?;
        Ok((reply, answer.output.bytes()?))
    }
}

fn picture((reply, bytes): (Reply, Bytes)) -> Result<Picture> {
    match reply {
        Reply::Rendered { format, width, height } => Ok(Picture { bytes, format, width, height }),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused(ImageError::Cancelled) => Code::Busy.because("the work was given up"),
        Reply::Refused(ImageError::NotAnImage | ImageError::Unsupported(_)) => {
            Code::NoImage.because("No image can be made from this content.")
        }
        Reply::Refused(ImageError::NotRendered(why)) => Code::Internal.because(why),
        Reply::Refused(e) => Code::BadImage.because(e.to_string()),
        other => Code::Internal.because(format!("a media worker answered something else: {other:?}")),
    }
}
