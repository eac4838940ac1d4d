//! An original to be read: a file here, or an object in a bucket.
//!
//! Reading outlasts a move: what is not found any more where it was when it was opened is looked up once more, and
//! read on from where it is by then.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::homes::model::Home;
use crate::homes::store;
use crate::infra::storage::Backend;
use crate::infra::storage::Bucket;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::bucket::Incoming;
use crate::support::cpu::Cpu;

/// How long somebody who waits for an answer is left without one, until it is said that the bucket does not answer.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(10);

/// How much of a file is read at once.
const READ_BYTES: u64 = 256 << 10;

/// Bytes that can be read in ranges.
#[derive(Clone)]
pub enum Source {
    Here(Arc<File>),
    Away(Box<Away>),
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
    homes: Homes,
    id: AssetId,
    revision: u32,
    home: Home,
    bucket: Bucket,
    key: ObjectPath,
}

impl Away {
    /// Some of its bytes, as they come.
    pub fn read(&self, bytes: Range<u64>) -> Reading {
        let incoming = self.bucket.read(&self.key, bytes.clone());
        self.reading(bytes, incoming)
    }

    /// The same, and the first of them, so that it is known whether the bucket answers.
    pub async fn begin(&self, bytes: Range<u64>) -> Result<(Reading, Option<Bytes>)> {
        let incoming = self.bucket.read(&self.key, bytes.clone()).within(FIRST_BYTES_WITHIN);
        let mut reading = self.reading(bytes, incoming);
        let first = reading.next().await?;
        Ok((reading, first))
    }

    /// Whether both lie in the same bucket.
    pub fn is_beside(&self, other: &Away) -> bool {
        self.home == other.home
    }

    fn reading(&self, left: Range<u64>, incoming: Incoming) -> Reading {
        Reading { away: Box::new(self.clone()), left, from: From::There(Box::new(incoming)), has_looked: false }
    }
}

/// Bytes of an original as they come, wherever it is moved meanwhile.
pub struct Reading {
    away: Box<Away>,
    left: Range<u64>,
    from: From,
    /// It was looked up anew, and nothing has come since.
    has_looked: bool,
}

enum From {
    There(Box<Incoming>),
    Here(Arc<File>),
}

impl Reading {
    /// The next bytes; `None` when all that was asked for is there.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let next = match &mut self.from {
                From::There(incoming) => incoming.next().await,
                From::Here(file) => some_of(&self.away.homes.0.cpu, file, &self.left).await,
            };
            match next {
                Ok(Some(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    self.has_looked = false;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(e) if e.code == Code::ContentNotFound && !self.has_looked => self.look_again(e).await?,
                Err(e) => return Err(on_record(e)),
            }
        }
    }

    async fn look_again(&mut self, missing: Error) -> Result<()> {
        self.has_looked = true;
        match self.away.homes.open(self.away.id, self.away.revision).await?.0 {
            Source::Here(file) => self.from = From::Here(file),
            Source::Away(away) if away.is_beside(&self.away) => return Err(on_record(missing)),
            Source::Away(away) => {
                self.from = From::There(Box::new(away.bucket.read(&away.key, self.left.clone())));
                self.away = away;
            }
        }
        Ok(())
    }
}

/// The first bytes of a range of a file; `None` when it is empty.
async fn some_of(cpu: &Cpu, file: &Arc<File>, bytes: &Range<u64>) -> Result<Option<Bytes>> {
    let (file, at, wanted) = (Arc::clone(file), bytes.start, (bytes.end - bytes.start).min(READ_BYTES));
    if wanted == 0 {
        return Ok(None);
    }
    let read = cpu.run(move || {
        let mut buffer = vec![0; wanted as usize];
        file.read_exact_at(&mut buffer, at)?;
        Ok(Bytes::from(buffer))
    });
    read.await.map(Some)
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
                let (bucket, key) = (self.bucket(&object.home)?.clone(), object.place()?);
                let away = Away { homes: self.clone(), id, revision, home: object.home, bucket, key };
                Ok((Source::Away(Box::new(away)), object.size_bytes))
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
