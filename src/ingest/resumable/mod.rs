//! Uploads that come in pieces, over connections that break.
//!
//! ```text
//! begin_resumable ─▶ row, staging/{id}.resumable
//! receive ─▶ a piece is written behind what is there ─▶ fdatasync ─▶ row: so many bytes   (receive.rs)
//!     ─▶ the last one: the same way as every upload, `Ingest::keep` ─▶ row: finished      (finish.rs)
//! join    ─▶ a row that names its parts ─▶ their bytes, one after the other ─▶ as above
//! ```
//!
//! Invariant: the offset in the row is never more than what was flushed before, so what a sender is
//! told survives a power cut. Bytes behind it are nothing: the next piece is written over them. It
//! is moved along while a long piece comes, so a crash costs the last seconds, not the piece.
//!
//! An upload has the id of the asset that it becomes. So the end may be reached twice: the asset that
//! is there is the answer. Until it is there the bytes keep their name in staging, whatever fails.
//!
//! One request at a time changes an upload (`hold.rs`). Nobody else's can be seen.
//!
//! What is still to come of an upload is set aside on the disk, also between its pieces and from the
//! start on, so that what was begun can be ended ([`Resumable::reserves_bytes`]).

mod check;
mod expire;
mod finish;
mod hold;
mod model;
mod receive;
mod store;

use std::time::Duration;

use serde_json::Map;

pub use check::Claim;
pub use expire::Doubts;
pub use expire::ExpireUploads;
pub use finish::FinishUpload;
pub use hold::Holds;
pub use model::Beginning;
pub use model::Kind;
pub use model::Resumable;
pub use model::State;
pub use receive::Piece;
pub use receive::Receiving;

pub(super) use finish::examine;
pub(super) use hold::Hold;

use crate::accounts::Caller;
use crate::assets::AssetId;
use crate::assets::data;
use crate::assets::data::Mode;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Once;
use crate::ingest::name;
use crate::support::clock::Instant;

/// How long a writer who is at work is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long somebody who only looks waits for it.
const GLANCE: Duration = Duration::from_millis(1200);

/// How long somebody waits for an upload that is becoming an asset: its bytes may have to be read again.
const FINISHING: Duration = Duration::from_mins(1);

/// How long it is remembered that an upload was there.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// How many parts are joined at most.
const MOST_PARTS: usize = 1000;

impl Ingest {
    /// Begins an upload that comes in pieces.
    pub async fn begin_resumable(&self, caller: &Caller, said: Beginning) -> Result<Resumable> {
        let most_bytes = said.most_bytes.unwrap_or(u64::MAX).min(self.config.max_file_bytes);
        if let Some(bytes) = said.length_bytes {
            fits(bytes, most_bytes)?;
            if bytes == 0 && !said.is_part {
                return Err(empty());
            }
        }
        let kind = if said.is_part { Kind::Part } else { Kind::Whole };
        let upload = Resumable {
            length_bytes: said.length_bytes,
            most_bytes,
            ..self.new_resumable(caller, kind, &said.name, said.note, said.said)?
        };
        let (storage, staged) = (self.storage.clone(), place::resumable_name(upload.id));
        let declared = said.length_bytes.unwrap_or(0);
        let room = self
            .cpu
            .run(move || {
                let room = storage.reserve(declared)?;
                storage.stage_again(&staged)?;
                Ok(room)
            })
            .await?;
        if let Err(error) = self.record_resumable(upload.clone(), said.once).await {
            self.forget_staged(place::resumable_name(upload.id)).await;
            return Err(error);
        }
        if let Some(mut hold) = upload.reserves_bytes().and_then(|_| self.holds.take_free(upload.id)) {
            *hold.room() = Some(room);
        }
        Ok(upload)
    }

    /// Makes an asset of parts that are there, in this order. Asked again for the same, it answers the same.
    pub async fn join(
        &self,
        caller: &Caller,
        said: Beginning,
        parts: Vec<AssetId>,
        parts_said: String,
    ) -> Result<Resumable> {
        let most_bytes = said.most_bytes.unwrap_or(u64::MAX).min(self.config.max_file_bytes);
        let (user, by_key) = (caller.user_id(), key_of(caller).is_some());
        let (same, words) = (parts.clone(), said.said.clone());
        let before = self.db.read(move |c| store::find_joined(c, user, by_key, &same, &words)).await?;
        let upload = if let Some(before) = before {
            before
        } else {
            let length_bytes = self.measure(caller, &parts).await?;
            fits(length_bytes, most_bytes)?;
            if length_bytes == 0 {
                return Err(empty());
            }
            let upload = Resumable {
                length_bytes: Some(length_bytes),
                most_bytes,
                parts,
                parts_said,
                ..self.new_resumable(caller, Kind::Joined, &said.name, said.note, said.said)?
            };
            let (storage, room) = (self.storage.clone(), length_bytes);
            self.cpu.run(move || storage.reserve(room).map(drop)).await?;
            self.record_joined(upload, said.once).await?
        };
        self.settled(upload).await
    }

    /// An upload as its row has it. One that has all its bytes is made an asset first.
    pub async fn resumable(&self, caller: &Caller, id: AssetId) -> Result<Resumable> {
        let upload = self.find_resumable(caller, id).await?;
        self.settled(upload).await
    }

    /// The same for a sender who wants to go on: another one that is gone without a word still has bytes that
    /// can be kept.
    pub async fn resumable_at_rest(&self, caller: &Caller, id: AssetId) -> Result<Resumable> {
        let upload = self.resumable(caller, id).await?;
        match self.holds.take(id, GLANCE).await {
            Some(hold) => drop(hold),
            None => return Ok(upload),
        }
        self.find_resumable(caller, id).await
    }

    /// Gives an upload up. An asset that it has become stays.
    pub async fn terminate(&self, caller: &Caller, id: AssetId) -> Result<()> {
        self.find_resumable(caller, id).await?;
        let hold = self.holds.insist(id).await.ok_or_else(locked)?;
        self.find_resumable(caller, id).await?;
        self.give_up(hold, id).await
    }

    /// An upload that the caller may see.
    async fn find_resumable(&self, caller: &Caller, id: AssetId) -> Result<Resumable> {
        let found = self.db.read(move |c| store::find(c, id)).await?;
        let upload = found.filter(|upload| upload.is_of(caller)).ok_or_else(|| unknown(id))?;
        if upload.state == State::Gone {
            return Err(Code::UploadGone.because("This upload expired or was given up; start anew."));
        }
        Ok(upload)
    }

    /// The size of what parts give when they are joined.
    async fn measure(&self, caller: &Caller, parts: &[AssetId]) -> Result<u64> {
        if parts.is_empty() || parts.len() > MOST_PARTS {
            return Err(Code::InvalidRequest.because(format!("An upload is joined of 1 to {MOST_PARTS} parts.")));
        }
        let mut whole: u64 = 0;
        for id in parts {
            let part = self.find_resumable(caller, *id).await?;
            if part.kind != Kind::Part {
                return Err(Code::InvalidRequest.because(format!("The upload {id} is not a part.")));
            }
            if !part.is_whole() {
                return Err(Code::InvalidRequest.because(format!("The part {id} is not complete yet.")));
            }
            whole = whole.saturating_add(part.offset_bytes);
        }
        Ok(whole)
    }

    fn new_resumable(&self, caller: &Caller, kind: Kind, name: &str, note: Note, said: String) -> Result<Resumable> {
        let now = self.db.clock().now();
        Ok(Resumable {
            id: AssetId::random()?,
            user_id: caller.user_id(),
            upload_key_id: key_of(caller),
            kind,
            state: State::Open,
            length_bytes: None,
            offset_bytes: 0,
            most_bytes: 0,
            name: name::clean(name),
            note: Note { data: data::merged(Map::new(), note.data, Mode::Replace)?, ..note },
            said,
            parts: Vec::new(),
            parts_said: String::new(),
            created_at: now,
            expires_at: self.expiry(now),
        })
    }

    async fn record_resumable(&self, upload: Resumable, once: Option<Once>) -> Result<()> {
        let this = self.clone();
        self.db.write(move |tx| this.insert_resumable(tx, &upload, once.as_ref())).await
    }

    fn insert_resumable(&self, tx: &Tx, upload: &Resumable, once: Option<&Once>) -> Result<()> {
        store::insert(tx, upload)?;
        if let Some(once) = once {
            once.note(tx, [upload.id])?;
        }
        self.owe_expiry(tx)
    }

    /// Records one that is joined, unless the same was asked for at the same time: then that one.
    async fn record_joined(&self, upload: Resumable, once: Option<Once>) -> Result<Resumable> {
        let this = self.clone();
        self.db
            .write(move |tx| {
                let Resumable { user_id, upload_key_id, parts, said, .. } = &upload;
                if let Some(before) = store::find_joined(tx, *user_id, upload_key_id.is_some(), parts, said)? {
                    return Ok(before);
                }
                this.insert_resumable(tx, &upload, once.as_ref())?;
                Ok(upload)
            })
            .await
    }

    /// Takes an upload off the record and its bytes off the disk, as its holder. Goes on when the caller goes away.
    async fn give_up(&self, mut hold: Hold, id: AssetId) -> Result<()> {
        let this = self.clone();
        let giving_up = self.cpu.handle().spawn(async move {
            hold.clear();
            this.db.write(move |tx| store::give_up(tx, id, tx.now().plus(REMEMBERED))).await?;
            this.doubts.forget(id);
            this.forget_staged(place::resumable_name(id)).await;
            Ok(())
        });
        giving_up.await.map_err(|e| Code::Internal.from("giving an upload up", e))?
    }

    /// Forgets a name in staging. It is free when this returns; giving the blocks of a large file back takes its time.
    pub(super) async fn forget_staged(&self, name: String) {
        let (storage, cpu) = (self.storage.clone(), self.cpu.clone());
        let done = self.cpu.run(move || {
            if let Some(aside) = storage.set_aside_staged(&name)? {
                cpu.spawn(move || storage.unstage(&aside));
            }
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "a staged file could not be removed");
        }
    }

    fn expiry(&self, now: Instant) -> Instant {
        now.plus(Duration::from_secs(self.config.resumable_seconds))
    }

    /// Whether an asset of this id would come of an upload in pieces that is still open.
    pub(super) async fn is_resumable(&self, id: AssetId) -> Result<bool> {
        let found = self.db.read(move |c| store::find(c, id)).await?;
        Ok(found.is_some_and(|upload| upload.state == State::Open))
    }

    /// What a crash left of an upload in pieces: bytes behind the offset are nothing, and stay for now.
    pub(super) async fn recover_resumable(&self, name: &str, id: AssetId) -> Result<()> {
        let found = self.db.read(move |c| store::find(c, id)).await?;
        let Some(upload) = found.filter(|upload| upload.state == State::Open) else {
            self.storage.unstage(name);
            return Ok(());
        };
        let there = self.storage.open_staged(name)?.metadata()?.len();
        let upload = if there < upload.offset_bytes && upload.kind != Kind::Joined {
            self.lost(upload, there).await?
        } else {
            upload
        };
        if let (Some(bytes), Some(mut hold)) = (upload.reserves_bytes(), self.holds.take_free(id)) {
            *hold.room() = self.storage.reserve(bytes).ok();
        }
        Ok(())
    }

    /// Owns up to what the disk lost: an upload goes on where its bytes end.
    async fn lost(&self, upload: Resumable, there: u64) -> Result<Resumable> {
        let (id, expires) = (upload.id, upload.expires_at);
        tracing::error!(upload.id = %id, lost_bytes = upload.offset_bytes - there, "the disk lost bytes of an upload");
        self.db.write(move |tx| store::progress(tx, id, there, expires)).await?;
        Ok(Resumable { offset_bytes: there, ..upload })
    }

    /// Owes what was about to be done.
    pub(super) async fn take_up_resumables(&self) -> Result<()> {
        let is_empty = self.db.read(store::is_empty).await?;
        if is_empty {
            return Ok(());
        }
        let this = self.clone();
        self.db
            .write(move |tx| {
                for id in store::due(tx)? {
                    this.owe_finish(tx, id)?;
                }
                this.owe_expiry(tx)
            })
            .await
    }

    fn owe_finish(&self, tx: &Tx, id: AssetId) -> Result<()> {
        let once = Enqueue { unique_key: Some(id.to_string()), ..Enqueue::default() };
        self.jobs.enqueue(tx, &FinishUpload { id }, once).map(|_| ())
    }
}

/// Whether an asset of this id would come of an upload in pieces, or has come of one a short while ago.
pub(super) fn is_known(c: &Conn, id: AssetId) -> Result<bool> {
    Ok(store::find(c, id)?.is_some())
}

fn key_of(caller: &Caller) -> Option<i64> {
    match caller {
        Caller::UploadKey { key_id, .. } => Some(*key_id),
        _ => None,
    }
}

fn fits(bytes: u64, most: u64) -> Result<()> {
    if bytes > most {
        return Err(Code::TooLarge.because(format!("A file may have at most {most} bytes here.")));
    }
    Ok(())
}

fn empty() -> Error {
    Code::EmptyFile.because("An empty file is not taken.")
}

fn unknown(id: AssetId) -> Error {
    Code::UploadNotFound.because(format!("No upload of yours has the id {id}."))
}

fn locked() -> Error {
    Code::UploadLocked.because("Another request is writing to this upload; ask for its offset in a moment.")
}
