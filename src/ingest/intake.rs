//! A stream of bytes on its way in: staged, hashed, measured.
//!
//! The HTTP worker collects chunks into batches of [`BATCH_BYTES`]; one blocking step at a
//! time hashes and writes a batch while the next one is collected. Never a whole file in
//! memory: at most two batches for each upload.
//!
//! Dropping an [`Intake`] or a [`Taken`] at any moment removes what it staged. (A kept file
//! has its final name by then; only the name in staging goes.) Those that a row knows of stay:
//! they are gone on with, or removed, by whoever owns the row.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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
use crate::infra::storage::staging;
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
    _under_way: UnderWay,
}

/// One file received whole: flushed in staging, waiting to be kept.
pub struct Taken {
    pub id: AssetId,
    pub revision: u32,
    pub name: String,
    pub content_type: String,
    pub checksums: Checksums,
    pub(super) staged: Staged,
}

impl Taken {
    /// The name in staging goes with what is returned.
    pub(super) fn of(storage: &Storage, cpu: &Cpu, file: Received) -> Taken {
        Taken {
            id: file.id,
            revision: 1,
            name: file.name,
            content_type: file.content_type,
            checksums: file.checksums,
            staged: Staged::new(storage, cpu, file.staged_name),
        }
    }

    /// What came in some other way than through an [`Intake`]; its name in staging is not removed here.
    pub(super) fn staged_elsewhere(
        storage: &Storage,
        cpu: &Cpu,
        staged_name: String,
        id: AssetId,
        name: &str,
        head: &[u8],
        checksums: Checksums,
    ) -> Taken {
        let name = name::clean(name);
        let kind = mime::refined(mime::sniff(head), &name);
        let staged = Staged::that_stays(storage, cpu, staged_name);
        Taken { id, revision: 1, name, content_type: kind.content_type.to_owned(), checksums, staged }
    }

    pub(super) fn staged_name(&self) -> &str {
        &self.staged.name
    }
}

/// A file that was received by other means, flushed under this name in staging.
pub(super) struct Received {
    pub id: AssetId,
    pub name: String,
    pub staged_name: String,
    pub content_type: String,
    pub checksums: Checksums,
}

struct Sink {
    file: File,
    digester: Digester,
    unflushed_bytes: u64,
    storage: Storage,
    reserved: Reservation,
}

/// The name in staging; removed when dropped, unless it stays.
pub(super) struct Staged {
    storage: Storage,
    /// Where a large file may be removed that is dropped where nobody may block.
    cpu: Cpu,
    pub name: String,
    stays: AtomicBool,
}

impl Staged {
    fn new(storage: &Storage, cpu: &Cpu, name: String) -> Staged {
        Staged { storage: storage.clone(), cpu: cpu.clone(), name, stays: AtomicBool::new(false) }
    }

    /// One that a row knows of.
    pub(super) fn that_stays(storage: &Storage, cpu: &Cpu, name: String) -> Staged {
        Staged { storage: storage.clone(), cpu: cpu.clone(), name, stays: AtomicBool::new(true) }
    }

    /// From now on it stays where it is.
    pub(super) fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    pub(super) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.stays() {
            return;
        }
        // The name is free at once; giving the blocks of a large file back takes its time.
        match self.storage.set_aside_staged(&self.name) {
            Ok(None) => {}
            Ok(Some(aside)) => {
                let storage = self.storage.clone();
                self.cpu.spawn(move || storage.unstage(&aside));
            }
            Err(error) => tracing::warn!(%error, staged.name = self.name, "a staged file could not be removed"),
        }
    }
}

/// Counts an upload while it lasts.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UnderWay {
    pub(super) fn begin(ingest: &Ingest) -> UnderWay {
        ingest.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&ingest.under_way))
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
        let (storage, md5, cpu) = (self.storage.clone(), self.md5.clone(), self.cpu.clone());
        let (staged, sink) = self
            .cpu
            .run(move || {
                let reserved = storage.reserve(declared_bytes)?;
                let file = storage.stage(&staged_name)?;
                let staged = Staged::new(&storage, &cpu, staged_name);
                Ok((staged, Sink { file, digester: Digester::new(&md5), unflushed_bytes: 0, storage, reserved }))
            })
            .await?;
        Ok(self.intake((id, revision), name, staged, sink, (0, Vec::new())))
    }

    /// Goes on behind the first `kept_bytes` of what is in staging, and leaves it there whatever
    /// happens. More are to come.
    pub(super) async fn resume_as(
        &self,
        id: AssetId,
        revision: u32,
        staged_name: String,
        name: &str,
        kept_bytes: u64,
        more_bytes: u64,
    ) -> Result<Intake> {
        let (storage, md5, cpu) = (self.storage.clone(), self.md5.clone(), self.cpu.clone());
        let (staged, sink, known) = self
            .cpu
            .run(move || {
                let (file, kept) = storage.restage(&staged_name, kept_bytes)?;
                // Only now: what was cut off is free again.
                let reserved = storage.reserve(more_bytes)?;
                let staged = Staged::that_stays(&storage, &cpu, staged_name);
                let mut digester = Digester::new(&md5);
                let mut head = Vec::new();
                let mut at = 0;
                while at < kept {
                    let mut batch = vec![0; BATCH_BYTES.min((kept - at) as usize)];
                    file.read_exact_at(&mut batch, at)?;
                    if at == 0 {
                        head.extend(batch.iter().take(HEAD_BYTES));
                    }
                    at += batch.len() as u64;
                    digester.update(&Bytes::from(batch));
                }
                Ok((staged, Sink { file, digester, unflushed_bytes: 0, storage, reserved }, (kept, head)))
            })
            .await?;
        Ok(self.intake((id, revision), name, staged, sink, known))
    }

    /// An intake of what is known already: its size and its head.
    fn intake(
        &self,
        (id, revision): (AssetId, u32),
        name: &str,
        staged: Staged,
        sink: Sink,
        (size_bytes, head): (u64, Vec<u8>),
    ) -> Intake {
        Intake {
            id,
            revision,
            staged,
            name: name::clean(name),
            cpu: self.cpu.clone(),
            max_bytes: self.config.max_file_bytes,
            size_bytes,
            head,
            batch: BytesMut::new(),
            sink: Some(sink),
            step: None,
            _under_way: UnderWay::begin(self),
        }
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

    /// How many bytes have come.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Brings everything so far to the disk; how much that is.
    pub(super) async fn mark(&mut self) -> Result<u64> {
        self.send_batch().await?;
        let sink = self.sink().await?;
        let flushed = self.cpu.run(move || {
            sink.storage.flush(&sink.file)?;
            Ok(sink)
        });
        self.sink = Some(flushed.await?);
        Ok(self.size_bytes)
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
        self.reserved.spend(batch.len() as u64)?;
        self.digester.update(batch);
        self.file.write_all(batch).map_err(Error::from)?;
        staging::start_writing(&self.file, batch.len() as u64);
        self.unflushed_bytes += batch.len() as u64;
        if self.unflushed_bytes >= FLUSH_EVERY_BYTES {
            self.storage.flush(&self.file)?;
            self.unflushed_bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::infra::storage::Config;

    #[tokio::test]
    async fn a_file_that_is_dropped_is_removed_where_that_may_take_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), &Config::default(), &[], &[]).unwrap();
        let cpu = Cpu::open(1);
        let (release, held) = channel::<()>();
        cpu.spawn(move || {
            let _ = held.recv();
        });
        tokio::task::yield_now().await;
        for (name, stays) in [("one", false), ("two", true)] {
            storage.stage(name).unwrap();
            drop(Staged { storage: storage.clone(), cpu: cpu.clone(), name: name.to_owned(), stays: stays.into() });
        }
        let staged = storage.staged().unwrap();
        assert!(staged.len() == 2 && staged[0].starts_with("tmp-") && staged[1] == "two", "{staged:?}");
        assert!(storage.stage("one").is_ok(), "its name is free");
        // What is removed stands in line before what comes now.
        tokio::task::yield_now().await;
        drop(release);
        cpu.run(|| Ok(())).await.unwrap();
        assert_eq!(storage.staged().unwrap(), ["one", "two"]);
    }
}
