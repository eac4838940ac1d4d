//! A stream of bytes on its way in: staged, hashed, measured.
//!
//! The HTTP worker collects chunks into batches of [`BATCH_BYTES`]; one blocking step at a
//! time hashes and writes a batch while the next one is collected. Never a whole file in
//! memory: at most two batches for each upload.
//!
//! Dropping an [`Intake`] or a [`Taken`] at any moment removes what it staged. (A kept file
//! has its final name by then; only the name in staging goes.)

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::task::JoinHandle;

use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::Reservation;
use crate::infra::storage::Storage;
use crate::ingest::Ingest;
use crate::ingest::name;
use crate::support::checksum::Checksums;
use crate::support::checksum::Digester;
use crate::support::cpu::Cpu;
use crate::support::mime;

/// How much is hashed and written in one step: large enough that a step costs little,
/// small enough that eight stations stay under a few megabytes.
const BATCH_BYTES: usize = 256 * 1024;

/// What a batch may overshoot by: the largest chunk that a body hands out.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of the head is kept for sniffing.
const HEAD_BYTES: usize = mime::SNIFF_BYTES;

/// Large files are flushed as they come, so that the last flush, which the caller waits
/// for, is short.
const FLUSH_EVERY_BYTES: u64 = 64 << 20;

/// One file being received.
pub struct Intake {
    id: AssetId,
    revision: u32,
    staged: Staged,
    name: String,
    cpu: Cpu,
    max_bytes: u64,
    size_bytes: u64,
    head: Vec<u8>,
    batch: BytesMut,
    /// What hashes and writes: here, or away in the step under way.
    sink: Option<Sink>,
    step: Option<JoinHandle<Result<Sink>>>,
    _reserved: Reservation,
    _under_way: UnderWay,
}

/// One file received whole: flushed in staging, waiting to be kept.
pub struct Taken {
    pub id: AssetId,
    pub revision: u32,
    pub name: String,
    pub content_type: String,
    pub checksums: Checksums,
    staged: Staged,
}

impl Taken {
    /// What came in some other way than through an [`Intake`]; its name in staging is not removed here.
    pub(super) fn staged_elsewhere(
        storage: &Storage,
        staged_name: String,
        id: AssetId,
        name: &str,
        head: &[u8],
        checksums: Checksums,
    ) -> Taken {
        let name = name::clean(name);
        let kind = mime::refined(mime::sniff(head), &name);
        let staged = Staged { storage: storage.clone(), name: staged_name, stays: true };
        Taken { id, revision: 1, name, content_type: kind.content_type.to_owned(), checksums, staged }
    }

    pub(super) fn staged_name(&self) -> &str {
        &self.staged.name
    }
}

struct Sink {
    file: File,
    digester: Digester,
    unflushed_bytes: u64,
    storage: Storage,
}

/// The name in staging; removed when dropped, unless somebody else does that.
struct Staged {
    storage: Storage,
    name: String,
    stays: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.stays {
            self.storage.unstage(&self.name);
        }
    }
}

/// Counts an upload while it lasts.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ingest {
    /// Starts to receive a file under a new id. `declared_bytes` is what the sender announced;
    /// that much is set aside on the disk, or refused.
    pub async fn begin(&self, name: &str, declared_bytes: u64) -> Result<Intake> {
        let id = AssetId::random()?;
        self.begin_as(id, 1, place::original_name(id, 1), name, declared_bytes).await
    }

    /// The same for a content of this asset and revision; fails with [`Code::Conflict`] when the
    /// name in staging is taken.
    pub(super) async fn begin_as(
        &self,
        id: AssetId,
        revision: u32,
        staged_name: String,
        name: &str,
        declared_bytes: u64,
    ) -> Result<Intake> {
        let (storage, md5) = (self.storage.clone(), self.md5.clone());
        let (staged, sink, reserved) = self
            .cpu
            .run(move || {
                let reserved = storage.reserve(declared_bytes)?;
                let file = storage.stage(&staged_name)?;
                let staged = Staged { storage: storage.clone(), name: staged_name, stays: false };
                Ok((staged, Sink { file, digester: Digester::new(&md5), unflushed_bytes: 0, storage }, reserved))
            })
            .await?;
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Ok(Intake {
            id,
            revision,
            staged,
            name: name::clean(name),
            cpu: self.cpu.clone(),
            max_bytes: self.config.max_file_bytes,
            size_bytes: 0,
            head: Vec::new(),
            batch: BytesMut::new(),
            sink: Some(sink),
            step: None,
            _reserved: reserved,
            _under_way: UnderWay(Arc::clone(&self.under_way)),
        })
    }
}

impl Intake {
    /// Takes the next bytes.
    pub async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.size_bytes += chunk.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(Code::TooLarge.because(format!("A file may have at most {} bytes.", self.max_bytes)));
        }
        if self.head.len() < HEAD_BYTES {
            let wanted = HEAD_BYTES - self.head.len();
            self.head.extend(chunk.iter().take(wanted));
        }
        self.batch.extend_from_slice(&chunk);
        if self.batch.len() >= BATCH_BYTES { self.send_batch().await } else { Ok(()) }
    }

    /// Ends the file: the last bytes are written and everything is flushed to the disk.
    pub async fn finish(mut self) -> Result<Taken> {
        if self.size_bytes == 0 {
            return Err(Code::EmptyFile.because(format!("The file `{}` is empty.", self.name)));
        }
        self.send_batch().await?;
        let mut sink = self.sink().await?;
        sink.digester.settled().await;
        let checksums = self
            .cpu
            .run(move || {
                sink.storage.flush(&sink.file)?;
                Ok(sink.digester.finish())
            })
            .await?;
        if checksums.size_bytes != self.size_bytes {
            return Err(Code::Internal.because("the bytes written are not the bytes received"));
        }
        let kind = mime::refined(mime::sniff(&self.head), &self.name);
        Ok(Taken {
            id: self.id,
            revision: self.revision,
            name: self.name,
            content_type: kind.content_type.to_owned(),
            checksums,
            staged: self.staged,
        })
    }

    /// Hands the batch to the next blocking step, once the one before it is done.
    async fn send_batch(&mut self) -> Result<()> {
        let mut sink = self.sink().await?;
        sink.digester.settled().await;
        let batch = std::mem::replace(&mut self.batch, BytesMut::with_capacity(BATCH_BYTES + CHUNK_BYTES)).freeze();
        let cpu = self.cpu.clone();
        self.step = Some(self.cpu.handle().spawn(async move {
            cpu.run(move || {
                sink.take(&batch)?;
                Ok(sink)
            })
            .await
        }));
        Ok(())
    }

    async fn sink(&mut self) -> Result<Sink> {
        let lost = || Code::Internal.because("an upload lost its file");
        match (self.sink.take(), self.step.take()) {
            (Some(sink), _) => Ok(sink),
            (None, Some(step)) => step.await.map_err(|e| Code::Internal.from("writing an upload", e))?,
            (None, None) => Err(lost()),
        }
    }
}

impl Sink {
    fn take(&mut self, batch: &Bytes) -> Result<()> {
        self.digester.update(batch);
        self.file.write_all(batch).map_err(Error::from)?;
        self.unflushed_bytes += batch.len() as u64;
        if self.unflushed_bytes >= FLUSH_EVERY_BYTES {
            self.storage.flush(&self.file)?;
            self.unflushed_bytes = 0;
        }
        Ok(())
    }
}
