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
//! | came with the creation, and not whole | the upload is given up | the upload is given up: nobody has its address |
//!
//! What is discarded is cut off at once, so that it is not in the way of its own retry. Without a
//! checksum the offset is moved along every [`FLUSH_EVERY_BYTES`] or [`FLUSH_EVERY`], by flushes that
//! run while more comes.

use std::fs::File;
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
use crate::infra::storage::staging;
use crate::infra::storage::staging::Reopened;
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
    /// It came with the creation: the sender hears the address of the upload in the answer to this piece.
    pub is_first: bool,
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
    /// Where the next byte goes.
    at_bytes: u64,
    unflushed_bytes: u64,
    /// Of what was announced, what has not come yet; room for more is asked for as it comes.
    reserved: Reservation,
}

/// A tail that is here, or away in the step under way.
struct Writing {
    cpu: Cpu,
    tail: Option<Tail>,
    step: Option<JoinHandle<Result<Tail>>>,
    /// A flush under way, while more is written; everything up to there survives a power cut after it.
    flushing: Option<(JoinHandle<Result<()>>, u64)>,
}

impl Ingest {
    /// Starts to receive the next piece of an upload.
    pub async fn receive(&self, caller: &Caller, id: AssetId, piece: Piece) -> Result<Receiving> {
        self.find_resumable(caller, id).await?;
        let hold = self.holds.take(id, PATIENCE).await.ok_or_else(locked)?;
        let mut upload = self.find_resumable(caller, id).await?;
        if let Err(refused) = self.fit(&mut upload, &piece).await {
            return Err(self.refused(hold, &piece, id, refused).await);
        }
        let (storage, lanes, claim) = (self.storage.clone(), self.md5.clone(), piece.claim);
        let (kind, at, is_open) = (upload.kind, upload.offset_bytes, upload.state == State::Open);
        let to_come = upload.length_bytes.map_or(piece.declared_bytes.unwrap_or(0), |length| length - at);
        let opening = hold.during(&self.cpu, move |hold| {
            if !is_open {
                return Ok(None);
            }
            let (file, reserved) = open(&storage, &place::resumable_name(id), at, to_come, hold.room().take())?;
            // A part is digested when it is joined.
            let digester = match kind {
                Kind::Whole => hold.take_digest(at).or_else(|| (at == 0).then(|| Digester::new(&lanes))),
                Kind::Part | Kind::Joined => None,
            };
            let check = claim.map(|claim| Check::new(claim, &lanes));
            Ok(Some(Tail { file, storage, digester, check, at_bytes: at, unflushed_bytes: 0, reserved }))
        });
        let (hold, opened) = opening.await?;
        let tail = match opened {
            Ok(tail) => tail,
            Err(gone) if gone.code == Code::UploadGone => {
                tracing::error!(upload.id = %id, "an upload lost bytes that were on the disk");
                self.give_up(hold, id).await?;
                return Err(gone);
            }
            Err(refused) => return Err(self.refused(hold, &piece, id, refused).await),
        };
        let (chunks, arrivals) = mpsc::channel(CHUNKS_WAITING);
        let (this, under_way) = (self.clone(), UnderWay::begin(self));
        let outcome = self.cpu.handle().spawn(async move {
            let (_under_way, mut hold) = (under_way, hold);
            let Some(tail) = tail else { return took_nothing(upload, arrivals).await };
            match this.take_in(&mut hold, upload, tail, arrivals, piece.is_first).await {
                Err(refused) => Err(this.refused(hold, &piece, id, refused).await),
                taken => taken,
            }
        });
        Ok(Receiving { chunks: Some(chunks), outcome })
    }

    /// What is said of a piece that is not taken. If it came with the creation, the upload goes with it.
    async fn refused(&self, hold: Hold, piece: &Piece, id: AssetId, refused: Error) -> Error {
        if piece.is_first
            && let Err(error) = self.give_up(hold, id).await
        {
            tracing::error!(upload.id = %id, %error, "an upload that nobody knows of could not be given up");
        }
        refused
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
        &self,
        hold: &mut Hold,
        mut upload: Resumable,
        tail: Tail,
        mut arrivals: mpsc::Receiver<Message>,
        is_first: bool,
    ) -> Result<Resumable> {
        let is_checked = tail.check.is_some();
        let mut writing = Writing { cpu: self.cpu.clone(), tail: Some(tail), step: None, flushing: None };
        let written = self.write_down(hold, &mut upload, &mut writing, &mut arrivals).await;
        hold.works();
        // The request is answered by what is returned; what it may still be sending has nowhere to go.
        drop(arrivals);
        // Whoever holds the upload next must find nobody writing, however this piece ended.
        let settled = writing.settle().await;
        let (end, batch) = written?;
        let (refused, broken) = match end {
            End::Whole => (None, None),
            End::Refused(error) => (Some(error), None),
            early if is_checked || is_first => (Some(ended(&early)), None),
            early => (None, Some(ended(&early))),
        };
        if let Some(error) = refused {
            self.discard(hold, &upload, writing).await;
            return Err(error);
        }
        settled?;
        upload = self.keep_piece(hold, upload, writing, batch).await?;
        if upload.is_due() {
            // Also when nobody waits for it any more: all bytes are here.
            upload = self.finish(hold, upload).await?;
        }
        broken.map_or(Ok(upload), Err)
    }

    /// Writes what comes, until nothing more does or may. What is left to be written is returned.
    async fn write_down(
        &self,
        hold: &mut Hold,
        upload: &mut Resumable,
        writing: &mut Writing,
        arrivals: &mut mpsc::Receiver<Message>,
    ) -> Result<(End, BytesMut)> {
        let most = upload.length_bytes.unwrap_or(upload.most_bytes);
        let is_checked = writing.tail.as_ref().is_some_and(|tail| tail.check.is_some());
        let (mut position, mut begun) = (upload.offset_bytes, (upload.offset_bytes, Instant::now()));
        let mut batch = BytesMut::new();
        loop {
            hold.listens();
            let message = tokio::select! {
                message = arrivals.recv() => message,
                flushed = writing.flushed() => {
                    hold.works();
                    self.move_along(upload, flushed?).await?;
                    continue;
                }
                () = hold.sent_away() => return Ok((End::SentAway, batch)),
            };
            hold.works();
            match message {
                Some(Message::Chunk(chunk)) => {
                    position += chunk.len() as u64;
                    if position > most {
                        return Ok((End::Refused(too_long(most)), batch));
                    }
                    batch.extend_from_slice(&chunk);
                }
                Some(Message::End) => return Ok((End::Whole, batch)),
                None => return Ok((End::BrokenOff, batch)),
            }
            if batch.len() >= BATCH_BYTES {
                writing.send(&mut batch).await?;
            }
            let is_time = position - begun.0 >= FLUSH_EVERY_BYTES || begun.1.elapsed() >= FLUSH_EVERY;
            if is_time && !is_checked && writing.flushing.is_none() {
                writing.send(&mut batch).await?;
                writing.start_flush().await?;
                begun = (position, Instant::now());
            }
        }
    }

    /// Keeps a piece, if it is what was said of it.
    async fn keep_piece(
        &self,
        hold: &mut Hold,
        mut upload: Resumable,
        mut writing: Writing,
        mut batch: BytesMut,
    ) -> Result<Resumable> {
        writing.send(&mut batch).await?;
        writing.flush().await?;
        let mut tail = writing.here().await?;
        if let Some(check) = tail.check.take()
            && !self.cpu.run(move || Ok(check.holds())).await?
        {
            writing.tail = Some(tail);
            self.discard(hold, &upload, writing).await;
            return Err(
                Code::ChecksumMismatch.because("The piece is not what its checksum was made of; send it again.")
            );
        }
        self.move_along(&mut upload, tail.at_bytes).await?;
        if let Some(digester) = tail.digester {
            hold.leave_digest(digester, upload.offset_bytes);
        }
        *hold.room() = upload.reserves_bytes().map(|_| tail.reserved);
        Ok(upload)
    }

    /// Cuts off what does not count.
    async fn discard(&self, hold: &mut Hold, upload: &Resumable, writing: Writing) {
        let Some(Tail { file, mut reserved, .. }) = writing.tail else { return };
        let (at, to_come) = (upload.offset_bytes, upload.reserves_bytes());
        let cut = self.cpu.run(move || {
            file.set_len(at)?;
            reserved.resize(to_come.unwrap_or(0))?;
            Ok(to_come.map(|_| reserved))
        });
        match cut.await {
            Ok(reserved) => *hold.room() = reserved,
            Err(error) => tracing::warn!(upload.id = %upload.id, %error, "what does not count could not be cut off"),
        }
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

    /// Starts to make everything so far survive a power cut, while more may be written.
    async fn start_flush(&mut self) -> Result<()> {
        let tail = self.here().await?;
        let (file, storage, at_bytes) = (tail.file.try_clone()?, tail.storage.clone(), tail.at_bytes);
        self.tail = Some(tail);
        let cpu = self.cpu.clone();
        let flush = self.cpu.handle().spawn(async move { cpu.run(move || storage.flush(&file)).await });
        self.flushing = Some((flush, at_bytes));
        Ok(())
    }

    /// How far the flush under way goes, once it has ended.
    async fn flushed(&mut self) -> Result<u64> {
        let Some((flush, at_bytes)) = &mut self.flushing else { return std::future::pending().await };
        let (done, at_bytes) = (flush.await, *at_bytes);
        self.flushing = None;
        done.map_err(|e| Code::Internal.from("flushing a piece", e))??;
        Ok(at_bytes)
    }

    /// Waits until what is under way has ended.
    async fn settle(&mut self) -> Result<()> {
        self.tail = Some(self.here().await?);
        if self.flushing.is_some() {
            self.flushed().await?;
        }
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
        staging::start_writing(&self.file, batch.len() as u64);
        self.at_bytes += batch.len() as u64;
        self.unflushed_bytes += batch.len() as u64;
        Ok(())
    }
}

/// Opens an upload to write on: what does not count is cut off, and room set aside for what is to come.
fn open(
    storage: &Storage,
    staged: &str,
    at_bytes: u64,
    to_come: u64,
    room: Option<Reservation>,
) -> Result<(File, Reservation)> {
    let file = match storage.reopen(staged, at_bytes)? {
        Reopened::At(file) => file,
        Reopened::Absent if at_bytes == 0 => storage.stage_again(staged)?,
        Reopened::Short(_) | Reopened::Absent => {
            return Err(Code::UploadGone.because("Bytes of this upload were lost; start anew."));
        }
    };
    // Only now: what was cut off is free again.
    let room = match room {
        Some(mut room) => {
            room.resize(to_come)?;
            room
        }
        None => storage.reserve(to_come)?,
    };
    Ok((file, room))
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
        _ => Code::UploadInterrupted.because("The piece ended early; ask for the offset of the upload and go on."),
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
        Tail { file, storage: storage.clone(), digester: None, check: None, at_bytes: 0, unflushed_bytes: 0, reserved }
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

    #[test]
    fn what_does_not_count_is_cut_off_before_room_is_set_aside() {
        let (dir, storage) = storage();
        let path = dir.path().join("staging").join(STAGED);
        storage.stage(STAGED).unwrap().write_all(b"12345").unwrap();
        let refused = open(&storage, STAGED, 3, u64::MAX / 2, None).map(drop).unwrap_err();
        assert_eq!((refused.code, fs::read(&path).unwrap()), (Code::DiskFull, b"123".to_vec()));
        assert_eq!(open(&storage, STAGED, 4, 0, None).map(drop).unwrap_err().code, Code::UploadGone);
        // What was set aside before is gone on with.
        let (mut file, room) = open(&storage, STAGED, 3, 7, storage.reserve(20).ok()).unwrap();
        assert_eq!(storage.set_aside_bytes(), 7);
        file.write_all(b"x").unwrap();
        drop(room);
        assert_eq!((storage.set_aside_bytes(), fs::read(&path).unwrap()), (0, b"123x".to_vec()));
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
        let mut writing = Writing { cpu, tail: Some(tail(&storage, 0)), step: None, flushing: None };
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

    #[tokio::test]
    async fn more_is_written_while_a_flush_is_under_way() {
        let (dir, storage) = storage();
        let (release, held) = channel::<()>();
        let cpu = Cpu::open(2);
        let mut writing = Writing { cpu, tail: Some(tail(&storage, 0)), step: None, flushing: None };
        writing.send(&mut BytesMut::from(&b"first"[..])).await.unwrap();
        writing.settle().await.unwrap();
        // One of two slots is taken, so the flush stands behind what is written next.
        writing.cpu.spawn(move || {
            let _ = held.recv();
        });
        tokio::task::yield_now().await;
        writing.start_flush().await.unwrap();
        writing.send(&mut BytesMut::from(&b"second"[..])).await.unwrap();
        assert_eq!(writing.flushed().await.unwrap(), 5, "of what came before it");
        drop(release);
        writing.settle().await.unwrap();
        assert!(writing.flushing.is_none() && writing.tail.is_some_and(|tail| tail.at_bytes == 11));
        assert_eq!(fs::read(dir.path().join("staging").join(STAGED)).unwrap(), b"firstsecond");
    }
}
