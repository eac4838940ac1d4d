//! Receiving one piece: written behind what is there, flushed, recorded.
//!
//! The request only hands chunks over. A task of its own owns file and hold, so that what came is
//! kept in order whatever becomes of the request: done, refused, broken off, or forgotten by the
//! server because its connection went away.
//!
//! What becomes of the bytes of a piece:
//!
//! | it | with a checksum | without |
//! |---|---|---|
//! | came whole | kept if it is right, else discarded | kept |
//! | broke off, or was sent away by another request | discarded | kept |
//! | would make the upload longer than was said | discarded | discarded, but for what was recorded on the way |
//!
//! Without a checksum the offset is moved along every [`FLUSH_EVERY_BYTES`] or [`FLUSH_EVERY`].

use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accounts::Caller;
use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::storage::Reservation;
use crate::infra::storage::Storage;
use crate::ingest::Ingest;
use crate::ingest::intake::UnderWay;
use crate::ingest::resumable::Claim;
use crate::ingest::resumable::Kind;
use crate::ingest::resumable::PATIENCE;
use crate::ingest::resumable::Resumable;
use crate::ingest::resumable::State;
use crate::ingest::resumable::check::Check;
use crate::ingest::resumable::empty;
use crate::ingest::resumable::fits;
use crate::ingest::resumable::hold::Hold;
use crate::ingest::resumable::locked;
use crate::ingest::resumable::store;
use crate::ingest::resumable::unknown;
use crate::support::checksum::Digester;
use crate::support::cpu::Cpu;

/// How much is hashed and written in one step.
const BATCH_BYTES: usize = 256 * 1024;

/// How much a step may overshoot.
const CHUNK_BYTES: usize = 256 * 1024;

/// How many chunks wait for the disk.
const CHUNKS_WAITING: usize = 4;

const FLUSH_EVERY_BYTES: u64 = 64 << 20;

const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// What is said about a piece.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is going to be, if that is known.
    pub declared_bytes: Option<u64>,
    /// How long the whole upload is, if that was not said before.
    pub length_bytes: Option<u64>,
    pub claim: Option<Claim>,
}

/// A piece being received. Dropping it is breaking it off.
pub struct Receiving {
    /// Absent once nothing follows.
    chunks: Option<mpsc::Sender<Message>>,
    outcome: JoinHandle<Result<Resumable>>,
}

enum Message {
    Chunk(Bytes),
    End,
}

/// How a piece ended.
enum End {
    Whole,
    BrokenOff,
    SentAway,
    Refused(Error),
}

/// What hashes and writes.
struct Tail {
    file: File,
    storage: Storage,
    /// Of everything from the beginning of the upload, unless that would mean to read it again.
    digester: Option<Digester>,
    check: Option<Check>,
    unflushed_bytes: u64,
    /// Of what was announced, what has not come yet; room for more is asked for as it comes.
    reserved: Reservation,
}

/// A tail that is here, or away in the step under way.
struct Writing {
    cpu: Cpu,
    tail: Option<Tail>,
    step: Option<JoinHandle<Result<Tail>>>,
}

impl Ingest {
    /// Starts to receive the next piece of an upload.
    pub async fn receive(&self, caller: &Caller, id: AssetId, piece: Piece) -> Result<Receiving> {
        self.find_resumable(caller, id).await?;
        let mut hold = self.holds.take(id, PATIENCE).await.ok_or_else(locked)?;
        let mut upload = self.find_resumable(caller, id).await?;
        self.fit(&mut upload, &piece).await?;
        let (storage, lanes, claim) = (self.storage.clone(), self.md5.clone(), piece.claim);
        let (at, staged) = (upload.offset_bytes, place::resumable_name(id));
        let expected = upload.length_bytes.map_or(piece.declared_bytes.unwrap_or(0), |length| length - at);
        // A part is digested when it is joined.
        let digester = match upload.kind {
            Kind::Whole => hold.take_digest(at).or_else(|| (at == 0).then(|| Digester::new(&lanes))),
            Kind::Part | Kind::Joined => None,
        };
        let is_open = upload.state == State::Open;
        let opened = self
            .cpu
            .run(move || {
                let reserved = storage.reserve(expected)?;
                if !is_open {
                    return Ok(None);
                }
                let mut file = storage.stage_again(&staged)?;
                if file.metadata()?.len() < at {
                    return Err(Code::UploadGone.because("Bytes of this upload were lost; start anew."));
                }
                file.set_len(at)?;
                file.seek(SeekFrom::Start(at))?;
                let check = claim.map(|claim| Check::new(claim, &lanes));
                Ok(Some(Tail { file, storage, digester, check, unflushed_bytes: 0, reserved }))
            })
            .await;
        if matches!(&opened, Err(e) if e.code == Code::UploadGone) {
            tracing::error!(upload.id = %id, "an upload lost bytes that were on the disk");
            self.give_up(&mut hold, id).await?;
        }
        let tail = opened?;
        let (chunks, arrivals) = mpsc::channel(CHUNKS_WAITING);
        let (this, under_way) = (self.clone(), UnderWay::begin(self));
        let outcome = self.cpu.handle().spawn(async move {
            let _under_way = under_way;
            match tail {
                Some(tail) => this.take_in(hold, upload, tail, arrivals).await,
                None => took_nothing(upload, arrivals).await,
            }
        });
        Ok(Receiving { chunks: Some(chunks), outcome })
    }

    /// Refuses a piece that does not belong here, before any of it is read.
    async fn fit(&self, upload: &mut Resumable, piece: &Piece) -> Result<()> {
        let id = upload.id;
        if upload.kind == Kind::Joined {
            return Err(Code::Forbidden.because("An upload that is joined of parts takes no bytes of its own."));
        }
        if piece.offset_bytes != upload.offset_bytes {
            return Err(Code::OffsetMismatch.because(format!(
                "The upload goes on at byte {}, and this piece begins at byte {}.",
                upload.offset_bytes, piece.offset_bytes
            )));
        }
        match (upload.length_bytes, piece.length_bytes) {
            (Some(said), Some(now)) if said != now => {
                return Err(Code::InvalidRequest.because(format!(
                    "The length of this upload was said to be {said} bytes; it cannot become {now}."
                )));
            }
            (None, Some(length)) => {
                fits(length, upload.most_bytes)?;
                if length < upload.offset_bytes {
                    return Err(Code::InvalidRequest.because("The upload is longer than that already."));
                }
                if length == 0 && upload.kind == Kind::Whole {
                    return Err(empty());
                }
                if !self.db.write(move |tx| store::set_length(tx, id, length)).await? {
                    return Err(locked());
                }
                upload.length_bytes = Some(length);
            }
            _ => {}
        }
        let most = upload.length_bytes.unwrap_or(upload.most_bytes);
        if piece.declared_bytes.is_some_and(|bytes| upload.offset_bytes.saturating_add(bytes) > most) {
            return Err(too_long(most));
        }
        Ok(())
    }

    async fn take_in(
        self,
        mut hold: Hold,
        mut upload: Resumable,
        tail: Tail,
        mut arrivals: mpsc::Receiver<Message>,
    ) -> Result<Resumable> {
        let most = upload.length_bytes.unwrap_or(upload.most_bytes);
        let is_checked = tail.check.is_some();
        let mut writing = Writing { cpu: self.cpu.clone(), tail: Some(tail), step: None };
        let (mut position, mut flushed_at) = (upload.offset_bytes, Instant::now());
        let mut batch = BytesMut::new();
        let end = loop {
            hold.listens();
            let message = tokio::select! {
                message = arrivals.recv() => message,
                () = hold.sent_away() => break End::SentAway,
            };
            hold.works();
            match message {
                Some(Message::Chunk(chunk)) => {
                    position += chunk.len() as u64;
                    if position > most {
                        break End::Refused(too_long(most));
                    }
                    batch.extend_from_slice(&chunk);
                }
                Some(Message::End) => break End::Whole,
                None => break End::BrokenOff,
            }
            if batch.len() >= BATCH_BYTES {
                writing.send(&mut batch).await?;
            }
            if !is_checked
                && (position - upload.offset_bytes >= FLUSH_EVERY_BYTES || flushed_at.elapsed() >= FLUSH_EVERY)
            {
                writing.send(&mut batch).await?;
                writing.flush().await?;
                self.move_along(&mut upload, position).await?;
                flushed_at = Instant::now();
            }
        };
        hold.works();
        // The request is answered by what is returned; what it may still be sending has nowhere to go.
        drop(arrivals);
        // Whoever holds the upload next must find nobody writing, however this piece ended.
        let settled = writing.settle().await;
        if let End::Refused(error) = end {
            return Err(error);
        }
        if is_checked && !matches!(end, End::Whole) {
            return Err(ended(&end));
        }
        settled?;
        writing.send(&mut batch).await?;
        writing.flush().await?;
        let mut tail = writing.here().await?;
        if let Some(check) = tail.check.take()
            && !self.cpu.run(move || Ok(check.holds())).await?
        {
            return Err(
                Code::ChecksumMismatch.because("The piece is not what its checksum was made of; send it again.")
            );
        }
        self.move_along(&mut upload, position).await?;
        if let Some(digester) = tail.digester {
            hold.leave_digest(digester, position);
        }
        if upload.is_due() {
            // Also when nobody waits for it any more: all bytes are here.
            upload = self.finish(&mut hold, upload).await?;
        }
        if matches!(end, End::Whole) { Ok(upload) } else { Err(ended(&end)) }
    }

    async fn move_along(&self, upload: &mut Resumable, position: u64) -> Result<()> {
        let (id, expires) = (upload.id, self.expiry(self.db.clock().now()));
        if !self.db.write(move |tx| store::progress(tx, id, position, expires)).await? {
            return Err(unknown(id));
        }
        (upload.offset_bytes, upload.expires_at) = (position, expires);
        Ok(())
    }
}

impl Receiving {
    /// Takes the next bytes; false when no more are wanted, and [`Receiving::finish`] says why.
    pub async fn write(&mut self, chunk: Bytes) -> bool {
        match &self.chunks {
            Some(chunks) => chunks.send(Message::Chunk(chunk)).await.is_ok(),
            None => false,
        }
    }

    /// Waits until no more bytes are wanted, before their end.
    pub async fn refuses(&self) {
        match &self.chunks {
            Some(chunks) => chunks.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Ends the piece. The upload as it is on the disk then.
    pub async fn finish(mut self) -> Result<Resumable> {
        if let Some(chunks) = self.chunks.take() {
            let _ = chunks.send(Message::End).await;
        }
        self.outcome.await.map_err(|e| Code::Internal.from("receiving a piece", e))?
    }

    /// Waits until what came of a piece that broke off is kept.
    pub async fn break_off(mut self) {
        self.chunks = None;
        let _ = self.outcome.await;
    }
}

impl Writing {
    /// Hands the batch to the next blocking step, once the one before it is done.
    async fn send(&mut self, batch: &mut BytesMut) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut tail = self.here().await?;
        let batch = std::mem::replace(batch, BytesMut::with_capacity(BATCH_BYTES + CHUNK_BYTES)).freeze();
        let cpu = self.cpu.clone();
        self.step = Some(self.cpu.handle().spawn(async move {
            cpu.run(move || {
                tail.take(&batch)?;
                Ok(tail)
            })
            .await
        }));
        Ok(())
    }

    /// Makes everything so far survive a power cut.
    async fn flush(&mut self) -> Result<()> {
        let mut tail = self.here().await?;
        if tail.unflushed_bytes > 0 {
            tail = self
                .cpu
                .run(move || {
                    tail.storage.flush(&tail.file)?;
                    tail.unflushed_bytes = 0;
                    Ok(tail)
                })
                .await?;
        }
        self.tail = Some(tail);
        Ok(())
    }

    /// Waits until the step under way has ended.
    async fn settle(&mut self) -> Result<()> {
        self.tail = Some(self.here().await?);
        Ok(())
    }

    async fn here(&mut self) -> Result<Tail> {
        let mut tail = match (self.tail.take(), self.step.take()) {
            (Some(tail), _) => tail,
            (None, Some(step)) => step.await.map_err(|e| Code::Internal.from("writing a piece", e))??,
            (None, None) => return Err(Code::Internal.because("an upload lost its file")),
        };
        if let Some(digester) = &mut tail.digester {
            digester.settled().await;
        }
        Ok(tail)
    }
}

impl Tail {
    fn take(&mut self, batch: &Bytes) -> Result<()> {
        self.reserved.spend(batch.len() as u64)?;
        if let Some(digester) = &mut self.digester {
            digester.update(batch);
        }
        if let Some(check) = &mut self.check {
            check.update(batch);
        }
        self.file.write_all(batch)?;
        self.unflushed_bytes += batch.len() as u64;
        Ok(())
    }
}

/// A piece of nothing for an upload that is complete: its end was asked for twice.
async fn took_nothing(upload: Resumable, mut arrivals: mpsc::Receiver<Message>) -> Result<Resumable> {
    match arrivals.recv().await {
        Some(Message::Chunk(_)) => Err(too_long(upload.offset_bytes)),
        Some(Message::End) | None => Ok(upload),
    }
}

fn too_long(most: u64) -> Error {
    Code::TooLarge.because(format!("This upload has at most {most} bytes, and the piece goes beyond."))
}

fn ended(end: &End) -> Error {
    match end {
        End::SentAway => Code::UploadLocked.because("Another request took this upload over; ask for its offset."),
        _ => Code::UploadIncomplete.because("The piece ended early; ask for the offset of the upload and go on."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::infra::storage::Config;

    const STAGED: &str = "0123.resumable";

    fn storage() -> (tempfile::TempDir, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 1, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        (dir, storage)
    }

    fn tail(storage: &Storage, announced_bytes: u64) -> Tail {
        let reserved = storage.reserve(announced_bytes).unwrap();
        let file = storage.stage_again(STAGED).unwrap();
        Tail { file, storage: storage.clone(), digester: None, check: None, unflushed_bytes: 0, reserved }
    }

    /// Sets everything aside that is free at this moment.
    fn all(storage: &Storage) -> Vec<Reservation> {
        let sizes = (0..50).rev().flat_map(|bits| [1_u64 << bits; 2]);
        sizes.filter_map(|bytes| storage.reserve(bytes).ok()).collect()
    }

    #[test]
    fn what_was_written_is_not_set_aside_any_more() {
        let (_dir, storage) = storage();
        let mut tail = tail(&storage, 300_000);
        assert_eq!(storage.set_aside_bytes(), 300_000);
        for left in [200_000, 100_000, 0, 0] {
            tail.take(&Bytes::from(vec![b'x'; 100_000])).unwrap();
            assert_eq!(storage.set_aside_bytes(), left);
        }
        drop(tail);
        assert_eq!(storage.set_aside_bytes(), 0);
    }

    #[test]
    fn a_sender_who_announced_nothing_is_refused_where_the_disk_ends() {
        let (dir, storage) = storage();
        let mut tail = tail(&storage, 0);
        let batch = Bytes::from(vec![b'x'; BATCH_BYTES]);
        // Others come and go on this disk, so it is filled up before each step.
        let refused = (0..200).find_map(|_| {
            let _held = all(&storage);
            tail.take(&batch).err()
        });
        assert_eq!(refused.map(|e| e.code), Some(Code::DiskFull));
        let written = fs::metadata(dir.path().join("staging").join(STAGED)).unwrap().len();
        assert_eq!(written % BATCH_BYTES as u64, 0, "a step that was refused has written nothing");
    }

    #[tokio::test]
    async fn a_step_that_comes_late_is_waited_for() {
        let (dir, storage) = storage();
        let cpu = Cpu::open(1);
        let (release, held) = channel::<()>();
        cpu.spawn(move || {
            let _ = held.recv();
        });
        tokio::task::yield_now().await;
        let mut writing = Writing { cpu, tail: Some(tail(&storage, 0)), step: None };
        writing.send(&mut BytesMut::from(&b"late"[..])).await.unwrap();
        let settling = tokio::spawn(async move {
            writing.settle().await.unwrap();
            writing
        });
        tokio::task::yield_now().await;
        assert!(!settling.is_finished(), "the step has not begun");
        drop(release);
        let writing = settling.await.unwrap();
        assert!(writing.step.is_none() && writing.tail.is_some());
        assert_eq!(fs::read(dir.path().join("staging").join(STAGED)).unwrap(), b"late");
    }
}
