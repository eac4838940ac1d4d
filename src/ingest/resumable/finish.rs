//! The end of an upload in pieces: from bytes in staging to an asset, however often it is tried.
//!
//! The bytes get a second name in staging, the one that every upload has there, and go the way of all
//! uploads under it. If that fails, only the second name goes. Their digest was kept up while they
//! came; after a restart they are read once, mostly out of the page cache, on a blocking thread.
//!
//! Whoever notices that an upload has all its bytes finishes it: the request with the last piece, the
//! one that asks how far it is, or, after a crash, a job.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::keys;
use crate::assets::AssetId;
use crate::assets::place;
use crate::assets::store as assets;
use crate::custody::Sweep;
use crate::error::Code;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::infra::storage::Storage;
use crate::infra::storage::staging;
use crate::ingest::Ingest;
use crate::ingest::Taken;
use crate::ingest::intake::Received;
use crate::ingest::resumable::FINISHING;
use crate::ingest::resumable::Kind;
use crate::ingest::resumable::REMEMBERED;
use crate::ingest::resumable::Resumable;
use crate::ingest::resumable::State;
use crate::ingest::resumable::hold::Hold;
use crate::ingest::resumable::locked;
use crate::ingest::resumable::store;
use crate::ingest::resumable::unknown;
use crate::support::checksum::Checksums;
use crate::support::checksum::Digester;
use crate::support::checksum::Lanes;
use crate::support::mime;

/// How much is read in one go.
const BLOCK_BYTES: usize = 256 * 1024;

/// How much is written before it is flushed, so that the last flush is short.
const FLUSH_EVERY_BYTES: u64 = 64 << 20;

/// Finishes an upload whose end was not seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishUpload {
    pub id: AssetId,
}

impl Job for FinishUpload {
    const KIND: &'static str = "ingest.finish";
    const QUEUE: Queue = Sweep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_hours(1);
}

impl Run<FinishUpload> for Ingest {
    async fn run(&self, job: FinishUpload, _: &Attempt) -> Result<()> {
        let id = job.id;
        match self.db.read(move |c| store::find(c, id)).await? {
            Some(upload) if upload.is_due() => self.settled(upload).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}

impl Ingest {
    /// An upload that has all its bytes, once it is an asset. Goes on when the caller goes away.
    pub(super) async fn settled(&self, upload: Resumable) -> Result<Resumable> {
        if !upload.is_due() {
            return Ok(upload);
        }
        let (this, id) = (self.clone(), upload.id);
        let settling = self.cpu.handle().spawn(async move {
            let mut hold = this.holds.take(id, FINISHING).await.ok_or_else(locked)?;
            let upload = this.db.read(move |c| store::find(c, id)).await?.ok_or_else(|| unknown(id))?;
            if upload.is_due() { this.finish(&mut hold, upload).await } else { Ok(upload) }
        });
        let upload = settling.await.map_err(|e| Code::Internal.from("finishing an upload", e))??;
        if upload.state == State::Gone { Err(Code::UploadGone.into()) } else { Ok(upload) }
    }

    /// Makes an asset of an upload that has all its bytes, as its holder. One of which the disk lost bytes is
    /// open again.
    pub(super) async fn finish(&self, hold: &mut Hold, mut upload: Resumable) -> Result<Resumable> {
        let id = upload.id;
        let digester = hold.take_digest(upload.offset_bytes);
        let is_there = self.db.read(move |c| assets::revision(c, id)).await?.is_some();
        if !is_there {
            let digester =
                if upload.kind == Kind::Joined { Some(self.join_parts(&mut upload).await?) } else { digester };
            let taken = match self.received(&upload, digester).await? {
                Ok(taken) => taken,
                Err(there) => return self.lost(upload, there).await,
            };
            match self.keep(&upload.owner(), vec![taken], upload.note.clone()).await {
                Err(e) if e.code == Code::AssetIdExists => {
                    // An attempt before this one is just being undone.
                    return Err(Code::Busy.from("finishing an upload", e));
                }
                kept => kept.map(drop)?,
            }
        }
        let (parts, key) = (upload.parts.clone(), upload.upload_key_id);
        self.db
            .write(move |tx| {
                store::finish(tx, id)?;
                if let Some(key) = key {
                    keys::note_handed_in(tx, &id.to_string(), key)?;
                }
                parts.iter().try_for_each(|part| store::give_up(tx, *part, tx.now().plus(REMEMBERED)))
            })
            .await?;
        hold.clear();
        // Nothing is written to them any more, so whoever waits for the answer need not wait for this.
        let (this, gone) = (self.clone(), upload.parts.iter().chain([&id]).copied().collect::<Vec<_>>());
        self.cpu.handle().spawn(async move {
            for id in gone {
                this.forget_staged(place::resumable_name(id)).await;
            }
        });
        upload.state = State::Finished;
        Ok(upload)
    }

    /// Writes the parts one after the other.
    async fn join_parts(&self, upload: &mut Resumable) -> Result<Digester> {
        let (storage, lanes, staged) = (self.storage.clone(), self.md5.clone(), place::resumable_name(upload.id));
        let (length, parts) = (upload.length_bytes.unwrap_or(0), upload.parts.clone());
        let joined = self.cpu.run(move || join(&storage, &lanes, length, &staged, &parts)).await;
        if let Err(error) = &joined {
            let id = upload.id;
            // The next try begins anew, and needs the room that this one took.
            self.forget_staged(place::resumable_name(id)).await;
            if error.code == Code::UploadGone {
                self.db.write(move |tx| store::give_up(tx, id, tx.now().plus(REMEMBERED))).await?;
            }
        }
        let (digester, bytes) = joined?;
        if bytes != length {
            return Err(Code::Internal.because("the parts of an upload are not as long as they were"));
        }
        let (id, expires) = (upload.id, upload.expires_at);
        self.db.write(move |tx| store::progress(tx, id, length, expires)).await?;
        upload.offset_bytes = length;
        Ok(digester)
    }

    /// What came, as any upload has it in staging; or how much is there, if that is less than was recorded.
    async fn received(&self, upload: &Resumable, digester: Option<Digester>) -> Result<Result<Taken, u64>> {
        let (storage, lanes, cpu) = (self.storage.clone(), self.md5.clone(), self.cpu.clone());
        let (id, name, size_bytes) = (upload.id, upload.name.clone(), upload.offset_bytes);
        self.cpu
            .run(move || {
                let staged = place::resumable_name(id);
                let Some(mut file) = storage.find_staged(&staged)? else { return Ok(Err(0)) };
                let there = file.metadata()?.len();
                if there < size_bytes {
                    return Ok(Err(there));
                }
                if there > size_bytes {
                    // What lies behind the last recorded offset is nothing: a crash, or a piece that was refused.
                    file = storage.resume_staged(&staged, size_bytes)?;
                    storage.flush(&file)?;
                }
                let (head, checksums) = examine(&file, &lanes, digester)?;
                if checksums.size_bytes != size_bytes {
                    return Err(Code::Internal.because("the bytes of an upload are not as many as were recorded"));
                }
                let kind = mime::refined(mime::sniff(&head), &name);
                let (staged_name, content_type) = (place::original_name(id, 1), kind.content_type.to_owned());
                storage.link_staged(&staged, &staged_name)?;
                Ok(Ok(Taken::of(&storage, &cpu, Received { id, name, staged_name, content_type, checksums })))
            })
            .await
    }
}

/// The head of a file and its checksums, for which it is read unless that was done while it came.
pub(in crate::ingest) fn examine(
    file: &File,
    lanes: &Lanes,
    digester: Option<Digester>,
) -> Result<(Vec<u8>, Checksums)> {
    let mut head = vec![0; mime::SNIFF_BYTES];
    let read = file.read_at(&mut head, 0)?;
    head.truncate(read);
    let digester = digester.map_or_else(|| digest(file, lanes), Ok)?;
    Ok((head, digester.finish()))
}

/// Reads a file from its beginning to its end.
fn digest(file: &File, lanes: &Lanes) -> Result<Digester> {
    let mut digester = Digester::new(lanes);
    let mut at = 0;
    while let Some(block) = block(file, at)? {
        at += block.len() as u64;
        digester.update(&block);
    }
    Ok(digester)
}

/// Writes files of this length one after the other; what it digests to, and how long it is.
fn join(storage: &Storage, lanes: &Lanes, length: u64, staged: &str, parts: &[AssetId]) -> Result<(Digester, u64)> {
    let mut file = storage.stage_again(staged)?;
    file.set_len(0)?;
    // Only now: what a try before this one left is free again.
    let mut reserved = storage.reserve(length)?;
    let (mut digester, mut whole, mut unflushed) = (Digester::new(lanes), 0, 0);
    for part in parts {
        let gone = || Code::UploadGone.because(format!("The part {part} is not there any more."));
        let part = storage.find_staged(&place::resumable_name(*part))?.ok_or_else(gone)?;
        let mut at = 0;
        while let Some(block) = block(&part, at)? {
            at += block.len() as u64;
            unflushed += block.len() as u64;
            reserved.spend(block.len() as u64)?;
            digester.update(&block);
            file.write_all(&block)?;
            staging::start_writing(&file, block.len() as u64);
            if unflushed >= FLUSH_EVERY_BYTES {
                storage.flush(&file)?;
                unflushed = 0;
            }
        }
        whole += at;
    }
    storage.flush(&file)?;
    Ok((digester, whole))
}

fn block(file: &File, at: u64) -> Result<Option<Bytes>> {
    let mut block = vec![0; BLOCK_BYTES];
    let read = file.read_at(&mut block, at)?;
    block.truncate(read);
    Ok((read > 0).then(|| Bytes::from(block)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::storage::Config;

    #[test]
    fn only_a_part_that_is_not_there_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 1, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        let part = AssetId::random().unwrap();
        let joined = || join(&storage, &Lanes::start(), 5, "joined", &[part]);
        assert_eq!(joined().map(drop).unwrap_err().code, Code::UploadGone);
        // There, but not to be opened: that may pass, and nothing is given up for it.
        let name = place::resumable_name(part);
        std::os::unix::fs::symlink("loop", dir.path().join("staging").join(&name)).unwrap();
        assert_eq!(joined().map(drop).unwrap_err().code, Code::StorageUnavailable);
        storage.unstage(&name);
        storage.stage(&name).unwrap().write_all(b"hello").unwrap();
        let (digester, bytes) = joined().unwrap();
        assert_eq!((digester.finish().size_bytes, bytes), (5, 5));
        assert_eq!(storage.set_aside_bytes(), 0);
    }
}
