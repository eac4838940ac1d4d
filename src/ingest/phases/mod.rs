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
//! chunk that does say its offset is judged by that. Whether an answer was heard cannot always be
//! known, so one chunk too many is remembered: a file with a chunk in it twice is refused at its end.
//!
//! One writer at a time, as for uploads in pieces (`resumable::Holds`): the next request sends a
//! silent sender away, and waits for one that is at work. The right to write ([`Turn`]) moves with
//! the file into every blocking step, so a step that outlives its request still holds it.
//!
//! What nobody goes on with is given up, but not because a clock jumped (`resumable::Doubts`).
//!
//! Invariants: the offset of the row is never ahead of what is flushed; bytes behind it are cut off
//! before anything is written, and missing ones are never made up.

pub mod store;

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::time::Duration;
use std::time::Instant as Moment;

use bytes::Bytes;
use bytes::BytesMut;
use ring::digest;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::accounts::Caller;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::place;
use crate::catalogue;
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
use crate::infra::storage::Storage;
use crate::infra::storage::staging;
use crate::ingest::Arrival;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Once;
use crate::ingest::Taken;
use crate::ingest::name;
use crate::ingest::resumable::Hold;
use crate::ingest::resumable::examine;
use crate::journal::Event;
use crate::support::checksum::Digester;
use crate::support::checksum::Lanes;
use crate::support::clock::Instant;
use crate::support::id;

/// How much is hashed and written in one step.
const BATCH_BYTES: usize = 1 << 20;

/// A long chunk is flushed as it comes, so that the last flush is short.
const FLUSH_EVERY_BYTES: u64 = 64 << 20;

/// Nothing is owed further ahead than its time and this.
pub(super) const SLACK: Duration = Duration::from_hours(2);

/// How long a request waits for the one before it that is at work: at the end, all bytes may have to be read again.
const PATIENCE: Duration = Duration::from_mins(1);

/// An upload in phases, as its row has it.
#[derive(Clone, Debug)]
pub struct Phased {
    pub id: AssetId,
    pub user_id: i64,
    pub size_bytes: u64,
    pub offset_bytes: u64,
    pub last_bytes: u64,
    pub last_sha256: String,
    /// More came than was declared.
    pub overflowed: bool,
    pub name: Option<String>,
    pub label: Option<String>,
    pub draft: Draft,
    pub created_at: Instant,
    pub touched_at: Instant,
}

impl Phased {
    fn staged_name(&self) -> String {
        place::phased_name(self.id)
    }
}

/// The right to write to an upload in phases.
pub struct Turn {
    ingest: Ingest,
    row: Phased,
    /// Here, or away in the step under way.
    sink: Option<Sink>,
    batch: BytesMut,
    chunk_bytes: u64,
    /// A chunk is being received.
    writing: bool,
}

struct Sink {
    /// Keeps the room for what is to come, and the digest of what was kept.
    hold: Hold,
    storage: Storage,
    lanes: Lanes,
    file: Option<File>,
    /// Of everything from the beginning, unless that would mean to read it again.
    digester: Option<Digester>,
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
            overflowed: false,
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
                catalogue::can_describe(tx, &begun.draft)?;
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
        if let Some(mut hold) = self.holds.take_free(row.id) {
            *hold.room() = Some(reserved);
        }
        Ok(row)
    }

    /// An upload in phases that is not whole yet.
    pub async fn phased(&self, id: AssetId) -> Result<Option<Phased>> {
        self.db.read(move |c| store::find(c, id)).await
    }

    /// Adds to what is said about an upload that is not whole yet; `None` when there is none.
    pub async fn describe_phased(&self, id: AssetId, said: Draft) -> Result<Option<Phased>> {
        self.db
            .write(move |tx| {
                let Some(mut row) = store::find(tx, id)? else { return Ok(None) };
                catalogue::can_describe(tx, &said)?;
                row.draft.then(said);
                store::set_draft(tx, id, &row.draft)?;
                Ok(Some(row))
            })
            .await
    }

    /// Gives an upload up before it is whole. Whether there was one. Goes on when the caller goes away.
    pub async fn give_up_phased(&self, id: AssetId) -> Result<bool> {
        if self.phased(id).await?.is_none() {
            return Ok(false);
        }
        let this = self.clone();
        let giving_up = self.cpu.handle().spawn(async move {
            let hold = this.holds.insist(id).await.ok_or_else(busy)?;
            let Some(turn) = this.turn_of(id, hold).await? else { return Ok(false) };
            let telling = this.clone();
            this.db.write(move |tx| telling.tell_given_up(tx, id)).await?;
            turn.forget().await;
            Ok(true)
        });
        giving_up.await.map_err(|e| Code::Internal.from("giving an upload up", e))?
    }

    /// Waits a while for the right to write; `None` when there is no such upload.
    pub async fn turn(&self, id: AssetId) -> Result<Option<Turn>> {
        if self.phased(id).await?.is_none() {
            return Ok(None);
        }
        let hold = self.holds.take(id, PATIENCE).await.ok_or_else(busy)?;
        self.turn_of(id, hold).await
    }

    /// The upload as it is now that nobody else writes.
    async fn turn_of(&self, id: AssetId, hold: Hold) -> Result<Option<Turn>> {
        let Some(row) = self.phased(id).await? else { return Ok(None) };
        let sink = Sink {
            hold,
            storage: self.storage.clone(),
            lanes: self.md5.clone(),
            file: None,
            digester: None,
            sha256: digest::Context::new(&digest::SHA256),
            unflushed_bytes: 0,
        };
        Ok(Some(Turn {
            ingest: self.clone(),
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
        for name in self.storage.staged()? {
            let Some(id) = place::parse_phased_name(&name) else { continue };
            match rows.iter().find(|row| row.id == id) {
                Some(row) => self.recover_phases(&name, row.clone()).await?,
                None => self.storage.unstage(&name),
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

    async fn recover_phases(&self, name: &str, row: Phased) -> Result<()> {
        if self.storage.is_linked(name) {
            // Its final name was given, but not recorded.
            self.storage.uncommit(&place::original(row.id, 1)?);
        }
        let kept = self.storage.open_staged(name)?.metadata()?.len().min(row.offset_bytes);
        let (id, rest, lost) = (row.id, row.size_bytes - kept, row.offset_bytes - kept);
        if lost > 0 {
            tracing::error!(asset.id = %id, lost_bytes = lost, "the disk lost bytes of an upload");
            let row = Phased { offset_bytes: kept, last_bytes: 0, last_sha256: String::new(), ..row };
            self.db.write(move |tx| store::advance(tx, &row)).await?;
        }
        self.storage.resume_staged(name, kept)?;
        if let Some(mut hold) = self.holds.take_free(id) {
            *hold.room() = self.storage.reserve(rest).ok();
        }
        Ok(())
    }
}

impl Turn {
    pub fn row(&self) -> &Phased {
        &self.row
    }

    /// Waits for what the sender says next, unless somebody else wants to go on with the upload.
    pub async fn hear<T>(&mut self, coming: impl Future<Output = T>) -> Result<T> {
        let hold = &mut self.sink.as_mut().ok_or_else(lost)?.hold;
        hold.listens();
        let heard = tokio::select! {
            heard = coming => Ok(heard),
            () = hold.sent_away() => Err(Code::Conflict.because("Another request took this upload over.")),
        };
        hold.works();
        heard
    }

    /// Takes the next bytes of a chunk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.chunk_bytes += bytes.len() as u64;
        // As much as can still come, or the last chunk once more.
        let most = (self.row.size_bytes - self.row.offset_bytes).max(self.row.last_bytes);
        if self.chunk_bytes > most {
            return Err(self.overflow().await);
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
        let mut sink = self.sink.take().ok_or_else(lost)?;
        let is_again = match told {
            Some(at) if at == self.row.offset_bytes => false,
            Some(at) if is_last && at.checked_add(self.chunk_bytes) == Some(self.row.offset_bytes) => true,
            Some(_) => {
                return Err(Code::Conflict.because(format!("The next chunk begins at {}.", self.row.offset_bytes)));
            }
            None => is_last && (!*sink.hold.answered() || end > self.row.size_bytes),
        };
        if is_again || self.chunk_bytes == 0 {
            return Ok(Answering { hold: sink.hold, row: self.row });
        }
        if end > self.row.size_bytes {
            return Err(if told.is_none() { self.overflow().await } else { self.too_much() });
        }
        let sink = self.ingest.cpu.run(move || sink.flushed()).await?;
        self.row.offset_bytes = end;
        self.row.last_bytes = self.chunk_bytes;
        self.row.last_sha256 = sha256;
        if let Some(name) = name.filter(|name| !name.is_empty() && self.row.name.is_none()) {
            self.row.name = Some(name::clean(&name));
        }
        let Sink { mut hold, digester, .. } = sink;
        *hold.answered() = false;
        let row = self.row.clone();
        self.ingest.db.write(move |tx| store::advance(tx, &row)).await?;
        if let Some(digester) = digester {
            hold.leave_digest(digester, end);
        }
        Ok(Answering { hold, row: self.row })
    }

    /// Ends the upload: what was put together becomes an asset.
    ///
    /// Runs to its end even when the caller goes away.
    pub async fn finish(self, caller: &Caller, name: Option<String>, public: bool) -> Result<Asset> {
        let Phased { offset_bytes, size_bytes, overflowed, .. } = self.row;
        if overflowed {
            return Err(Code::InvalidRequest.because(
                "More came than file_size said, so a chunk may be in this file twice. Delete this upload and start \
                 anew; with start_offset in each transfer, chunks can be repeated.",
            ));
        }
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
        let (ingest, storage) = (self.ingest.clone(), self.ingest.storage.clone());
        storage.usable()?;
        let Phased { id, size_bytes, name, draft, .. } = self.row.clone();
        let (mut sink, staged) = (self.sink.take().ok_or_else(lost)?, self.row.staged_name());
        let (sink, head, checksums) = ingest
            .cpu
            .run(move || {
                // What was refused may lie behind the end.
                let file = sink.storage.resume_staged(&staged, size_bytes)?;
                sink.storage.flush(&file)?;
                let (head, checksums) = examine(&file, &sink.lanes, sink.hold.take_digest(size_bytes))?;
                Ok((sink, head, checksums))
            })
            .await?;
        if checksums.size_bytes != size_bytes {
            return Err(Code::Internal.because("the bytes kept are not the bytes received"));
        }
        let name = said.or(name).or_else(|| draft.name.clone()).unwrap_or_default();
        let staged = self.row.staged_name();
        let taken = Taken::staged_elsewhere(&storage, &ingest.cpu, staged, id, &name, &head, checksums);
        let note = Note { arrival: Some(Arrival { draft, phased: true, public }), ..Note::default() };
        let kept = ingest.keep(caller, vec![taken], note).await?;
        self.sink = Some(sink);
        self.forget().await;
        kept.into_iter().next().ok_or_else(lost)
    }

    /// The upload is over: nothing is left of it but what was made of it.
    async fn forget(mut self) {
        if let Some(sink) = &mut self.sink {
            sink.hold.clear();
        }
        self.ingest.doubts.forget(self.row.id);
        self.ingest.forget_staged(self.row.staged_name()).await;
    }

    async fn send_batch(&mut self) -> Result<()> {
        self.ingest.storage.usable()?;
        let mut sink = self.sink.take().ok_or_else(lost)?;
        let batch = std::mem::take(&mut self.batch).freeze();
        let (staged, offset) = (self.row.staged_name(), self.row.offset_bytes);
        let rest = self.row.size_bytes - offset;
        let mut sink = self
            .ingest
            .cpu
            .run(move || {
                sink.take(&staged, offset, rest, &batch)?;
                Ok(sink)
            })
            .await?;
        if let Some(digester) = &mut sink.digester {
            digester.settled().await;
        }
        self.sink = Some(sink);
        self.writing = true;
        Ok(())
    }

    /// Refuses more than was declared, and remembers it: a chunk whose answer was lost may have been counted twice.
    async fn overflow(&self) -> Error {
        let id = self.row.id;
        match self.ingest.db.write(move |tx| store::overflow(tx, id)).await {
            Ok(()) => self.too_much(),
            Err(error) => error,
        }
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
    hold: Hold,
    row: Phased,
}

impl Answering {
    pub fn row(&self) -> &Phased {
        &self.row
    }

    /// The sender is there to hear it: the same bytes again are more of them.
    pub fn answered(&mut self) {
        *self.hold.answered() = true;
    }
}

impl Sink {
    fn take(&mut self, staged: &str, offset_bytes: u64, rest_bytes: u64, batch: &Bytes) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(self.storage.resume_staged(staged, offset_bytes)?);
            // What came of a chunk before this one and does not count was just cut off. Without room for
            // all that is to come, it is asked for as it comes.
            let room = self.hold.room();
            if room.as_mut().is_none_or(|room| room.resize(rest_bytes).is_err()) {
                *room = None;
                *room = Some(self.storage.reserve(rest_bytes).or_else(|_| self.storage.reserve(0))?);
            }
            let begun = (offset_bytes == 0).then(|| Digester::new(&self.lanes));
            self.digester = self.hold.take_digest(offset_bytes).or(begun);
        }
        let (Some(file), Some(room)) = (&mut self.file, self.hold.room()) else { return Err(lost()) };
        room.spend(batch.len() as u64)?;
        self.sha256.update(batch);
        if let Some(digester) = &mut self.digester {
            digester.update(batch);
        }
        file.write_all(batch)?;
        staging::start_writing(file, batch.len() as u64);
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

fn busy() -> Error {
    Code::Conflict.because("Another request is at work on this upload. Try again in a moment.")
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
        let Some(hold) = self.holds.take_free(job.id) else {
            // Somebody is going on with it just now.
            let (this, at, run_at) = (self.clone(), at.clone(), self.db.clock().now().plus(self.phased_life()));
            let again = Enqueue { run_at: Some(run_at), ..Enqueue::default() };
            return self
                .db
                .write(move |tx| {
                    this.jobs.enqueue(tx, &job, again)?;
                    at.complete(tx)
                })
                .await;
        };
        let Some(turn) = self.turn_of(job.id, hold).await? else {
            self.doubts.forget(job.id);
            let at = at.clone();
            return self.db.write(move |tx| at.complete(tx)).await;
        };
        let (this, at, life) = (self.clone(), at.clone(), self.phased_life());
        let is_expired = self.db.clock().now().since(turn.row().touched_at) >= life;
        let is_sure = self.doubts.is_sure(job.id, is_expired, Moment::now(), self.doubt());
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
                Ok(is_sure && left_alone)
            })
            .await?;
        if given_up {
            turn.forget().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::storage::Config;
    use crate::ingest::resumable::Holds;

    #[test]
    fn what_a_chunk_has_written_is_not_set_aside_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 1, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        drop(storage.stage("phase-x").unwrap());
        let (holds, id, lanes) = (Holds::default(), AssetId::random().unwrap(), Lanes::start());
        let batch = Bytes::from(vec![b'x'; 400]);
        for _ in 0..2 {
            // A chunk that is not settled is nothing: the next one begins where it began.
            let mut sink = Sink {
                hold: holds.take_free(id).unwrap(),
                storage: storage.clone(),
                lanes: lanes.clone(),
                file: None,
                digester: None,
                sha256: digest::Context::new(&digest::SHA256),
                unflushed_bytes: 0,
            };
            for left in [600, 200, 0] {
                sink.take("phase-x", 0, 1000, &batch).unwrap();
                assert_eq!(storage.set_aside_bytes(), left);
            }
        }
    }
}
