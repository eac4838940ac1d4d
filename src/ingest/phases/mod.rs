//! Uploads in phases: announced with a size, sent in chunks that say no offset, ended by a word.
//!
//! ```text
//! begin_phased ─▶ staging/phase-{id} · tx: row, asset-created, a job that gives it up one day
//! turn ─▶ write … ─▶ settle     appended and flushed, then tx: offset, length and digest of the chunk
//! finish                        hashed again, kept like any upload; the row goes in that transaction
//! ```
//!
//! Chunks are put one after the other in the order they come. One that is the same as the last is
//! taken for a repetition, and not for more, when the answer to the last one did not go out as far
//! as is known here, or when there is no room for more: whoever repeats blindly after a lost
//! answer gets the file that was meant. What a restart interrupted counts as not answered. A
//! chunk that does say its offset is judged by that.
//!
//! What nobody goes on with is given up, but not because a clock jumped (`resumable::Doubts`).
//!
//! Invariants: the offset of the row is never ahead of what is flushed; bytes behind it are cut off
//! before anything is written, and missing ones are never made up. One writer at a time: the right to write ([`Turn`]) moves with the
//! file into every blocking step, so a step that outlives its request still holds it.

pub mod store;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant as Moment;

use bytes::Bytes;
use bytes::BytesMut;
use ring::digest;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use crate::accounts::Caller;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::catalogue::Draft;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::is_in_doubt;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::infra::storage::Reservation;
use crate::infra::storage::Storage;
use crate::ingest::Arrival;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Once;
use crate::ingest::Taken;
use crate::ingest::name;
use crate::journal::Event;
use crate::support::checksum::Checksums;
use crate::support::checksum::Digester;
use crate::support::clock::Instant;
use crate::support::id;
use crate::support::mime;

/// How names in staging begin that are uploads in phases.
pub const STAGED: &str = "phase-";

/// How much is hashed and written in one step.
const BATCH_BYTES: usize = 1 << 20;

/// A long chunk is flushed as it comes, so that the last flush is short.
const FLUSH_EVERY_BYTES: u64 = 64 << 20;

/// Nothing is owed further ahead than its time and this.
pub(super) const SLACK: Duration = Duration::from_hours(2);

/// How long a chunk waits for the one before it to be done.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upload in phases, as its row has it.
#[derive(Clone, Debug)]
pub struct Phased {
    pub id: AssetId,
    pub user_id: i64,
    pub size_bytes: u64,
    pub offset_bytes: u64,
    pub last_bytes: u64,
    pub last_sha256: String,
    pub name: Option<String>,
    pub label: Option<String>,
    pub draft: Draft,
    pub created_at: Instant,
    pub touched_at: Instant,
}

impl Phased {
    fn staged_name(&self) -> String {
        staged_name(self.id)
    }
}

/// What is known of uploads in phases beside their rows.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<AssetId, Arc<Session>>>);

#[derive(Default)]
struct Session {
    writer: Arc<tokio::sync::Mutex<()>>,
    /// The answer to the last chunk went out.
    answered: AtomicBool,
    /// What is still to come.
    reserved: Mutex<Option<Reservation>>,
}

impl Session {
    /// Sets aside what is still to come, if there is so much.
    fn reserve(&self, storage: &Storage, rest_bytes: u64) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = None;
        *reserved = storage.reserve(rest_bytes).ok();
    }

    /// That many bytes go to the disk now, and are not counted twice.
    fn spend(&self, storage: &Storage, bytes: u64) -> Result<()> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *reserved {
            Some(reserved) => reserved.spend(bytes),
            none => none.insert(storage.reserve(0)?).spend(bytes),
        }
    }
}

impl Sessions {
    fn of(&self, id: AssetId) -> Arc<Session> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }

    fn forget(&self, id: AssetId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// The right to write to an upload in phases.
pub struct Turn {
    ingest: Ingest,
    session: Arc<Session>,
    row: Phased,
    /// Here, or away in the step under way.
    sink: Option<Sink>,
    batch: BytesMut,
    chunk_bytes: u64,
    /// A chunk is being received.
    writing: bool,
}

struct Sink {
    _writer: OwnedMutexGuard<()>,
    session: Arc<Session>,
    storage: Storage,
    file: Option<File>,
    sha256: digest::Context,
    unflushed_bytes: u64,
}

impl Ingest {
    /// Announces an upload: its asset's id is fixed from now on.
    pub async fn begin_phased(
        &self,
        caller: &Caller,
        size_bytes: u64,
        name: Option<String>,
        label: Option<String>,
        draft: Draft,
        once: Option<Once>,
    ) -> Result<Phased> {
        draft.check()?;
        if size_bytes == 0 {
            return Err(Code::EmptyFile.because("file_size: an upload has at least one byte."));
        }
        if size_bytes > self.config.max_file_bytes {
            return Err(
                Code::TooLarge.because(format!("A file may have at most {} bytes.", self.config.max_file_bytes))
            );
        }
        let (id, now) = (AssetId::random()?, self.db.clock().now());
        let row = Phased {
            id,
            user_id: caller.user_id(),
            size_bytes,
            offset_bytes: 0,
            last_bytes: 0,
            last_sha256: String::new(),
            name: name.map(|name| name::clean(&name)),
            label,
            draft,
            created_at: now,
            touched_at: now,
        };
        let (this, begun) = (self.clone(), row);
        let beginning = self.cpu.handle().spawn(async move { this.record_phased(begun, once).await });
        beginning.await.map_err(|e| Code::Internal.from("beginning an upload", e))?
    }

    async fn record_phased(&self, row: Phased, once: Option<Once>) -> Result<Phased> {
        let (storage, staged, size_bytes) = (self.storage.clone(), row.staged_name(), row.size_bytes);
        let reserved = self
            .cpu
            .run(move || {
                let reserved = storage.reserve(size_bytes)?;
                storage.stage(&staged)?;
                storage.flush_names()?;
                Ok(reserved)
            })
            .await?;
        let (this, begun) = (self.clone(), row.clone());
        let written = self
            .db
            .write(move |tx| {
                store::insert(tx, &begun)?;
                if let Some(once) = &once {
                    once.note(tx, [begun.id])?;
                }
                let job = GiveUpPhased { id: begun.id };
                let run_at = Some(begun.touched_at.plus(this.phased_life()));
                this.jobs.enqueue(tx, &job, Enqueue { run_at, ..Enqueue::default() })?;
                this.jobs.pull_forward::<GiveUpPhased>(tx, this.phased_life() + SLACK)?;
                this.journal.tell(tx, begun.id, Event::AssetCreated, &json!({ "by": begun.user_id }))
            })
            .await;
        if let Err(error) = written {
            if !is_in_doubt(&error) {
                self.storage.unstage(&row.staged_name());
            }
            return Err(error);
        }
        *self.phased.of(row.id).reserved.lock().unwrap_or_else(PoisonError::into_inner) = Some(reserved);
        Ok(row)
    }

    /// An upload in phases that is not whole yet.
    pub async fn phased(&self, id: AssetId) -> Result<Option<Phased>> {
        self.db.read(move |c| store::find(c, id)).await
    }

    /// Adds to what is said about an upload that is not whole yet; `None` when there is none.
    pub async fn describe_phased(&self, id: AssetId, said: Draft) -> Result<Option<Phased>> {
        said.check()?;
        self.db
            .write(move |tx| {
                let Some(mut row) = store::find(tx, id)? else { return Ok(None) };
                row.draft.then(said);
                store::set_draft(tx, id, &row.draft)?;
                Ok(Some(row))
            })
            .await
    }

    /// Gives an upload up before it is whole. Whether there was one.
    pub async fn give_up_phased(&self, id: AssetId) -> Result<bool> {
        let Some(turn) = self.turn(id).await? else { return Ok(false) };
        let this = self.clone();
        self.db.write(move |tx| this.tell_given_up(tx, id)).await?;
        let storage = self.storage.clone();
        self.cpu.spawn(move || storage.unstage(&staged_name(id)));
        self.phased.forget(id);
        drop(turn);
        Ok(true)
    }

    /// Waits a while for the right to write; `None` when there is no such upload.
    pub async fn turn(&self, id: AssetId) -> Result<Option<Turn>> {
        if self.phased(id).await?.is_none() {
            return Ok(None);
        }
        let session = self.phased.of(id);
        let writer = tokio::time::timeout(PATIENCE, Arc::clone(&session.writer).lock_owned()).await;
        let writer = writer.map_err(|_| Code::Conflict.because("Another chunk of this upload is being received."))?;
        // As it is now that nobody else writes.
        let Some(row) = self.phased(id).await? else {
            self.phased.forget(id);
            return Ok(None);
        };
        let sink = Sink {
            _writer: writer,
            session: Arc::clone(&session),
            storage: self.storage.clone(),
            file: None,
            sha256: digest::Context::new(&digest::SHA256),
            unflushed_bytes: 0,
        };
        Ok(Some(Turn {
            ingest: self.clone(),
            session,
            row,
            sink: Some(sink),
            batch: BytesMut::new(),
            chunk_bytes: 0,
            writing: false,
        }))
    }

    /// It was announced, so its end is told as well.
    fn tell_given_up(&self, tx: &Tx, id: AssetId) -> Result<()> {
        store::forget(tx, id)?;
        self.journal.tell(tx, id, Event::FileDeleted, &json!({ "keys": ["original"], "errors": {} }))
    }

    fn phased_life(&self) -> Duration {
        Duration::from_secs(self.config.phased_seconds)
    }

    /// Brings files and rows together after a restart.
    pub(super) async fn recover_phased(&self) -> Result<()> {
        let rows = self.db.read(store::all).await?;
        for name in self.storage.staged()?.iter().filter(|name| name.starts_with(STAGED)) {
            match rows.iter().find(|row| row.staged_name() == *name) {
                Some(row) => {
                    if self.storage.is_linked(name) {
                        // Its final name was given, but not recorded.
                        self.storage.uncommit(&crate::assets::place::original(row.id, 1)?);
                    }
                    let kept = self.storage.open_staged(name)?.metadata()?.len().min(row.offset_bytes);
                    if kept < row.offset_bytes {
                        let lost = row.offset_bytes - kept;
                        tracing::error!(asset.id = %row.id, lost_bytes = lost, "the disk lost bytes of an upload");
                        let row =
                            Phased { offset_bytes: kept, last_bytes: 0, last_sha256: String::new(), ..row.clone() };
                        self.db.write(move |tx| store::advance(tx, &row)).await?;
                    }
                    self.storage.resume_staged(name, kept)?;
                    self.phased.of(row.id).reserve(&self.storage, row.size_bytes - kept);
                }
                None => self.storage.unstage(name),
            }
        }
        let staged = self.storage.staged()?;
        for row in rows.into_iter().filter(|row| !staged.contains(&row.staged_name())) {
            tracing::warn!(asset.id = %row.id, "the bytes of an upload in phases are gone");
            let this = self.clone();
            self.db.write(move |tx| this.tell_given_up(tx, row.id)).await?;
        }
        let this = self.clone();
        self.db.write(move |tx| this.jobs.pull_forward::<GiveUpPhased>(tx, this.phased_life() + SLACK)).await
    }
}

impl Turn {
    pub fn row(&self) -> &Phased {
        &self.row
    }

    /// Takes the next bytes of a chunk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.chunk_bytes += bytes.len() as u64;
        // As much as can still come, or the last chunk once more.
        let most = (self.row.size_bytes - self.row.offset_bytes).max(self.row.last_bytes);
        if self.chunk_bytes > most {
            return Err(self.too_much());
        }
        self.batch.extend_from_slice(&bytes);
        if self.batch.len() >= BATCH_BYTES { self.send_batch().await } else { Ok(()) }
    }

    /// Ends a chunk, which its sender says begins at `told`. The upload as it is then.
    ///
    /// Once all of it is here it is kept, also when the caller goes away.
    pub async fn settle(mut self, told: Option<u64>, name: Option<String>) -> Result<Answering> {
        if self.writing || !self.batch.is_empty() {
            self.send_batch().await?;
        }
        let handle = self.ingest.cpu.handle().clone();
        let settling = handle.spawn(async move { self.settle_chunk(told, name).await });
        settling.await.map_err(|e| Code::Internal.from("keeping a chunk", e))?
    }

    async fn settle_chunk(mut self, told: Option<u64>, name: Option<String>) -> Result<Answering> {
        let sha256 = self.sink.as_ref().map(|sink| id::hex(sink.sha256.clone().finish().as_ref())).unwrap_or_default();
        let is_last = self.chunk_bytes > 0 && self.chunk_bytes == self.row.last_bytes && sha256 == self.row.last_sha256;
        let end = self.row.offset_bytes + self.chunk_bytes;
        let answered = self.session.answered.load(Ordering::Acquire);
        let is_again = match told {
            Some(at) if at == self.row.offset_bytes => false,
            Some(at) if is_last && at + self.chunk_bytes == self.row.offset_bytes => true,
            Some(_) => {
                return Err(Code::Conflict.because(format!("The next chunk begins at {}.", self.row.offset_bytes)));
            }
            None => is_last && (!answered || end > self.row.size_bytes),
        };
        if is_again || self.chunk_bytes == 0 {
            return Ok(Answering { session: Arc::clone(&self.session), row: self.row.clone() });
        }
        if end > self.row.size_bytes {
            return Err(self.too_much());
        }
        let sink = self.sink.take().ok_or_else(lost)?;
        let sink = self.ingest.cpu.run(move || sink.flushed()).await?;
        self.row.offset_bytes = end;
        self.row.last_bytes = self.chunk_bytes;
        self.row.last_sha256 = sha256;
        if let Some(name) = name.filter(|name| !name.is_empty() && self.row.name.is_none()) {
            self.row.name = Some(name::clean(&name));
        }
        self.session.answered.store(false, Ordering::Release);
        let row = self.row.clone();
        self.ingest.db.write(move |tx| store::advance(tx, &row)).await?;
        self.session.reserve(&self.ingest.storage, self.row.size_bytes - self.row.offset_bytes);
        drop(sink);
        Ok(Answering { session: Arc::clone(&self.session), row: self.row.clone() })
    }

    /// Ends the upload: what was put together becomes an asset.
    ///
    /// Runs to its end even when the caller goes away.
    pub async fn finish(self, caller: &Caller, name: Option<String>, public: bool) -> Result<Asset> {
        let Phased { offset_bytes, size_bytes, .. } = self.row;
        if offset_bytes != size_bytes {
            return Err(Code::InvalidRequest.because(format!(
                "{offset_bytes} bytes are here; file_size said {size_bytes}. Send the rest, then finish."
            )));
        }
        let (handle, caller) = (self.ingest.cpu.handle().clone(), caller.clone());
        let finishing = handle.spawn(async move { self.keep(&caller, name, public).await });
        finishing.await.map_err(|e| Code::Internal.from("keeping an upload", e))?
    }

    async fn keep(mut self, caller: &Caller, said: Option<String>, public: bool) -> Result<Asset> {
        self.usable()?;
        let Phased { id, size_bytes, name, draft, .. } = self.row.clone();
        let (sink, md5, staged) = (self.sink.take().ok_or_else(lost)?, self.ingest.md5.clone(), staged_name(id));
        let (sink, head, checksums) = self
            .ingest
            .cpu
            .run(move || {
                // What was refused may lie behind the end.
                let file = sink.storage.resume_staged(&staged, size_bytes)?;
                sink.storage.flush(&file)?;
                let (head, checksums) = examine(&file, Digester::new(&md5))?;
                Ok((sink, head, checksums))
            })
            .await?;
        if checksums.size_bytes != size_bytes {
            return Err(Code::Internal.because("the bytes kept are not the bytes received"));
        }
        let name = said.or(name).or_else(|| draft.name.clone()).unwrap_or_default();
        let storage = self.ingest.storage.clone();
        let taken = Taken::staged_elsewhere(&storage, &self.ingest.cpu, staged_name(id), id, &name, &head, checksums);
        let note = Note { arrival: Some(Arrival { draft, phased: true, public }), ..Note::default() };
        let kept = self.ingest.keep(caller, vec![taken], note).await?;
        storage.unstage(&staged_name(id));
        self.ingest.phased.forget(id);
        drop(sink);
        kept.into_iter().next().ok_or_else(lost)
    }

    async fn send_batch(&mut self) -> Result<()> {
        self.usable()?;
        let mut sink = self.sink.take().ok_or_else(lost)?;
        let batch = std::mem::take(&mut self.batch).freeze();
        let (staged, offset) = (staged_name(self.row.id), self.row.offset_bytes);
        let rest = self.row.size_bytes - offset;
        let sink = self
            .ingest
            .cpu
            .run(move || {
                sink.take(&staged, offset, rest, &batch)?;
                Ok(sink)
            })
            .await?;
        self.sink = Some(sink);
        self.writing = true;
        Ok(())
    }

    /// After a flush that failed, nothing that the disk says is to be believed.
    fn usable(&self) -> Result<()> {
        if self.ingest.storage.is_degraded() {
            return Err(Code::StorageUnavailable.because("the disk failed to flush"));
        }
        Ok(())
    }

    fn too_much(&self) -> Error {
        Code::InvalidRequest.because(format!(
            "This is more than file_size said: {} of {} bytes are here.",
            self.row.offset_bytes, self.row.size_bytes
        ))
    }
}

/// A chunk that is kept, and is to be answered.
pub struct Answering {
    session: Arc<Session>,
    row: Phased,
}

impl Answering {
    pub fn row(&self) -> &Phased {
        &self.row
    }

    /// The sender is there to hear it: the same bytes again are more of them.
    pub fn answered(&self) {
        self.session.answered.store(true, Ordering::Release);
    }
}

impl Sink {
    fn take(&mut self, staged: &str, offset_bytes: u64, rest_bytes: u64, batch: &Bytes) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(self.storage.resume_staged(staged, offset_bytes)?);
            // What came of a chunk before this one and does not count was just cut off.
            self.session.reserve(&self.storage, rest_bytes);
        }
        self.session.spend(&self.storage, batch.len() as u64)?;
        let Some(file) = &mut self.file else { return Err(lost()) };
        self.sha256.update(batch);
        file.write_all(batch)?;
        self.unflushed_bytes += batch.len() as u64;
        if self.unflushed_bytes >= FLUSH_EVERY_BYTES {
            self.storage.flush(file)?;
            self.unflushed_bytes = 0;
        }
        Ok(())
    }

    fn flushed(self) -> Result<Sink> {
        if let Some(file) = &self.file {
            self.storage.flush(file)?;
        }
        Ok(self)
    }
}

/// The head of a file and its checksums.
fn examine(file: &File, mut digester: Digester) -> Result<(Vec<u8>, Checksums)> {
    let mut head = vec![0; mime::SNIFF_BYTES];
    let read = file.read_at(&mut head, 0)?;
    head.truncate(read);
    let mut offset = 0;
    loop {
        let mut batch = vec![0; BATCH_BYTES];
        let read = file.read_at(&mut batch, offset)?;
        if read == 0 {
            return Ok((head, digester.finish()));
        }
        batch.truncate(read);
        digester.update(&Bytes::from(batch));
        offset += read as u64;
    }
}

fn staged_name(id: AssetId) -> String {
    format!("{STAGED}{id}")
}

fn lost() -> Error {
    Code::Internal.because("an upload in phases lost its file")
}

/// Gives an upload in phases up that nobody goes on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GiveUpPhased {
    pub id: AssetId,
}

impl Job for GiveUpPhased {
    const KIND: &'static str = "ingest.give_up_phased";
    const QUEUE: Queue = Queue("save");
    const MAX_ATTEMPTS: u32 = 8;
    const TIMEOUT: Duration = Duration::from_mins(2);
}

impl Run<GiveUpPhased> for Ingest {
    async fn run(&self, job: GiveUpPhased, at: &Attempt) -> Result<()> {
        let turn = match self.turn(job.id).await {
            Ok(Some(turn)) => turn,
            Ok(None) => {
                self.doubts_alone.forget(job.id);
                let at = at.clone();
                return self.db.write(move |tx| at.complete(tx)).await;
            }
            // Somebody is going on with it just now.
            Err(e) if e.code == Code::Conflict => {
                let (this, at, run_at) = (self.clone(), at.clone(), self.db.clock().now().plus(self.phased_life()));
                let again = Enqueue { run_at: Some(run_at), ..Enqueue::default() };
                return self
                    .db
                    .write(move |tx| {
                        this.jobs.enqueue(tx, &job, again)?;
                        at.complete(tx)
                    })
                    .await;
            }
            Err(e) => return Err(e),
        };
        let (this, at, life) = (self.clone(), at.clone(), self.phased_life());
        let is_expired = self.db.clock().now().since(turn.row().touched_at) >= life;
        let is_sure = self.doubts_alone.is_sure(job.id, is_expired, Moment::now(), self.doubt());
        let given_up = self
            .db
            .write(move |tx| {
                // Whoever described it meanwhile has not left it alone.
                let expires_at = store::find(tx, job.id)?.map(|row| row.touched_at.plus(life));
                let left_alone = expires_at.is_some_and(|at| at <= tx.now());
                if is_sure && left_alone {
                    this.tell_given_up(tx, job.id)?;
                } else if let Some(expires_at) = expires_at {
                    let run_at = Some(if left_alone { tx.now().plus(this.next_look()) } else { expires_at });
                    this.jobs.enqueue(tx, &job, Enqueue { run_at, ..Enqueue::default() })?;
                }
                at.complete(tx)?;
                Ok((is_sure && left_alone).then_some(job.id))
            })
            .await?;
        if let Some(id) = given_up {
            self.storage.unstage(&staged_name(id));
            self.phased.forget(id);
            self.doubts_alone.forget(id);
        }
        drop(turn);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::storage::Config;

    #[tokio::test]
    async fn what_a_chunk_has_written_is_not_set_aside_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 1, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        drop(storage.stage("phase-x").unwrap());
        let session = Arc::new(Session::default());
        let batch = Bytes::from(vec![b'x'; 400]);
        for _ in 0..2 {
            // A chunk that is not settled is nothing: the next one begins where it began.
            let mut sink = Sink {
                _writer: Arc::clone(&session.writer).lock_owned().await,
                session: Arc::clone(&session),
                storage: storage.clone(),
                file: None,
                sha256: digest::Context::new(&digest::SHA256),
                unflushed_bytes: 0,
            };
            for left in [600, 200, 0] {
                sink.take("phase-x", 0, 1000, &batch).unwrap();
                assert_eq!(storage.set_aside_bytes(), left);
            }
        }
        *session.reserved.lock().unwrap() = None;
        session.spend(&storage, 5).unwrap();
        assert_eq!(storage.set_aside_bytes(), 0, "what could not be set aside is asked for as it comes");
    }
}
