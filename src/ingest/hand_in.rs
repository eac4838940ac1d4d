//! Handing in a conversion: a file that people made of an asset themselves, kept under its key.
//!
//! It is taken in like an upload and looked at by a worker before it is kept: a picture has to be
//! one. Its file gets a name that no other ever has, so that the row alone says which of two is
//! the conversion, and the one that it replaces can go later (`processing::sweep`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde_json::json;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::Full;
use crate::assets::Making;
use crate::assets::Status;
use crate::assets::place;
use crate::assets::store;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::storage::Storage;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Taken;
use crate::journal::Event;
use crate::processing::keys;
use crate::support::id;
use crate::support::mime;
use crate::support::mime::Family;

/// The longest key.
const MOST_CHARACTERS: usize = 30;

impl Ingest {
    /// Starts to receive a conversion of an asset.
    pub async fn begin_handing_in(&self, id: AssetId, key: &str, name: &str, declared_bytes: u64) -> Result<Intake> {
        named(key)?;
        let asset = self.assets.find(id).await?.asset;
        takes_conversions(asset.status)?;
        let handed = id::hex(&id::random::<8>()?);
        let staged_name = place::handed_name(id, asset.revision, key, &handed);
        self.begin_as(id, asset.revision, staged_name, name, declared_bytes).await
    }

    /// Makes what was received a conversion. The asset as it is then.
    ///
    /// Runs to its end even when the caller goes away.
    pub async fn hand_in(&self, caller: &Caller, taken: Taken) -> Result<Full> {
        let conversion = self.look_at_conversion(&taken).await?;
        let (this, user) = (self.clone(), caller.user_id());
        let keeping = self.cpu.handle().spawn(async move { this.keep_conversion(user, taken, conversion).await });
        keeping.await.map_err(|e| Code::Internal.from("keeping a conversion", e))?
    }

    async fn look_at_conversion(&self, taken: &Taken) -> Result<Conversion> {
        let (storage, staged) = (self.storage.clone(), taken.staged_name().to_owned());
        let (file, head) = self
            .cpu
            .run(move || {
                let file: File = storage.open_staged(&staged)?;
                let mut head = vec![0; mime::SNIFF_BYTES];
                let read = file.read_at(&mut head, 0)?;
                head.truncate(read);
                Ok((Arc::new(file), head))
            })
            .await?;
        let (_, _, key, handed) = place::parse_handed_name(taken.staged_name())
            .ok_or_else(|| Code::Internal.because("a conversion was staged under a name of another kind"))?;
        let kind = mime::refined(mime::sniff(&head), &taken.name);
        let handing_in = Making { revision: taken.revision, round: 0, begun_at: self.db.clock().now() };
        let mut conversion = Conversion {
            handed: Some(handed.to_owned()),
            size_bytes: taken.checksums.size_bytes,
            ..Conversion::made(key, kind.extension, kind.content_type, handing_in)
        };
        match kind.family {
            Family::Image => match self.stills.probe(file).await {
                Ok(facts) => (conversion.width, conversion.height) = (Some(facts.width), Some(facts.height)),
                Err(e) if e.code == Code::NoImage => return Err(Code::BadImage.because(e.public().to_owned())),
                Err(e) => return Err(e),
            },
            Family::Video | Family::Audio => match self.stills.probe_container(file).await {
                Ok(Some(facts)) => {
                    let side = |pixels: u32| Some(pixels).filter(|pixels| *pixels > 0);
                    (conversion.width, conversion.height) = (side(facts.width), side(facts.height));
                    conversion.duration_seconds = Some(facts.duration_seconds).filter(|seconds| *seconds > 0.0);
                }
                Ok(None) => {}
                Err(e) if matches!(e.code, Code::BadImage | Code::NoImage) => {
                    return Err(Code::BadVideo.because(e.public().to_owned()));
                }
                Err(e) => return Err(e),
            },
            Family::Document | Family::Other => {}
        }
        Ok(conversion)
    }

    async fn keep_conversion(&self, user: i64, taken: Taken, conversion: Conversion) -> Result<Full> {
        let at = place::conversion(taken.id, &conversion)?;
        let (this, id) = (self.clone(), taken.id);
        let record = move |tx: &Tx| this.record_conversion(tx, user, id, &conversion);
        self.commit(vec![(taken, at)], Storage::commit_deep, record).await
    }

    fn record_conversion(&self, tx: &Tx, user: i64, id: AssetId, conversion: &Conversion) -> Result<Full> {
        let full = assets::full(tx, id)?;
        takes_conversions(full.asset.status)?;
        if full.asset.revision != conversion.revision {
            return Err(
                Code::Conflict.because("The original was replaced meanwhile; this conversion is of the old one.")
            );
        }
        let public = self.settings.access(tx)?.get(&conversion.key).copied().unwrap_or(false);
        store::put_conversion(tx, id, &Conversion { public, ..conversion.clone() })?;
        store::touch(tx, id, user)?;
        if full.conversion(&conversion.key).is_some() {
            self.processing.owe_sweep(tx, id, conversion.revision)?;
        }
        let detail = json!({ "keys": [conversion.key], "revision": conversion.revision });
        self.journal.tell(tx, id, Event::FileProcessed, &detail)?;
        self.assets.changes(tx, id);
        assets::full(tx, id)
    }
}

/// That a conversion may have this key.
fn named(key: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if key.is_empty() || key.len() > MOST_CHARACTERS || !key.bytes().all(plain) {
        return Err(Code::InvalidRequest.because(format!(
            "The name of a conversion has 1 to {MOST_CHARACTERS} letters, digits, dashes and underscores."
        )));
    }
    if keys::is_reserved(key) {
        return Err(Code::InvalidRequest.because(format!("`{key}` is made here and cannot be handed in.")));
    }
    Ok(())
}

/// Also of an asset that could not be read: somebody may know what it looks like.
fn takes_conversions(status: Status) -> Result<()> {
    match status {
        Status::Ok | Status::Error => Ok(()),
        Status::Archived => Err(Code::AssetArchived.into()),
        Status::NotReady | Status::Queued => Err(Code::AssetNotReady.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_conversions() {
        for good in ["a", "web-500_x", &"x".repeat(30)] {
            assert!(named(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a.b", "é", &"x".repeat(31), "original", "Deepzoom", "720p-video", "poster", "*", "../x"]
        {
            assert_eq!(named(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
    }
}
