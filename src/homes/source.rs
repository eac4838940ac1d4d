//! An original to be read: a file here, or an object in a bucket.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::homes::store;
use crate::infra::storage::Backend;
use crate::infra::storage::Bucket;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::bucket::Incoming;

/// How long somebody who waits for an answer is left without one, until it is said that the bucket does not answer.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that can be read in ranges.
#[derive(Clone)]
pub enum Source {
    Here(Arc<File>),
    Away(Away),
}

impl Source {
    /// The file, of what is always here.
    pub fn file(&self) -> Result<&Arc<File>> {
        match self {
            Source::Here(file) => Ok(file),
            Source::Away(_) => Err(Code::Internal.because("this is read as a file, and lies in a bucket")),
        }
    }
}

/// An object in a bucket.
#[derive(Clone)]
pub struct Away {
    bucket: Bucket,
    key: ObjectPath,
}

impl Away {
    /// Some of its bytes, as they come.
    pub fn read(&self, bytes: Range<u64>) -> Incoming {
        self.bucket.read(&self.key, bytes)
    }

    /// The same, and the first of them, so that it is known whether the bucket answers.
    pub async fn begin(&self, bytes: Range<u64>) -> Result<(Incoming, Option<Bytes>)> {
        let mut incoming = self.read(bytes).within(FIRST_BYTES_WITHIN);
        let first = incoming.next().await.map_err(on_record)?;
        Ok((incoming, first))
    }
}

/// A bucket that does not find what is on record is not itself: nobody has removed it.
pub(super) fn on_record(error: Error) -> Error {
    match error.code {
        Code::ContentNotFound => Code::StorageUnavailable.from("the bucket does not find what was sent there", error),
        _ => error,
    }
}

impl Homes {
    /// Opens an original for reading, with its size.
    pub async fn open(&self, id: AssetId, revision: u32) -> Result<(Source, u64)> {
        let (storage, at) = (self.0.storage.clone(), place::original(id, revision)?);
        let opened = self.0.cpu.run(move || {
            let file = storage.open_file(&at)?;
            let size_bytes = file.metadata()?.len();
            Ok((Source::Here(Arc::new(file)), size_bytes))
        });
        let missing = match opened.await {
            Err(e) if e.code == Code::ContentNotFound => e,
            other => return other,
        };
        match self.0.db.read(move |c| store::find(c, id, revision)).await? {
            Some(object) if object.home.backend != Backend::Fs => {
                let away = Away { bucket: self.bucket(&object.home)?.clone(), key: object.place()? };
                Ok((Source::Away(away), object.size_bytes))
            }
            _ => Err(missing),
        }
    }

    /// An address in the bucket that shows the original to whoever has it; `None` when it is here.
    pub async fn link(
        &self,
        id: AssetId,
        revision: u32,
        life: Duration,
        disposition: &str,
        content_type: &str,
    ) -> Result<Option<String>> {
        match self.0.db.read(move |c| store::find(c, id, revision)).await? {
            Some(object) if object.home.backend != Backend::Fs => {
                let bucket = self.bucket(&object.home)?;
                bucket.link(&object.place()?, life, disposition, content_type).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}
