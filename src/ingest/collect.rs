//! Files that were sent straight into the bucket: registered, brought here, looked at like any other.
//!
//! ```text
//! form ─▶ the sender POSTs to the bucket, without us
//! register ─▶ the bucket says how large it is, and its MD5 (the entity tag of what came by a form)
//!             ─▶ one transaction: asset QUEUED, order, job `fetch` ─▶ the caller is answered
//! collect ─▶ read from the bucket to staging, hashed: it has to be what was registered
//!             ─▶ kept like anything that was fetched; the mover brings it to where originals lie
//! voucher over ─▶ what lies under the form's key is removed
//! ```
//!
//! Invariant: what was registered stays in the bucket until it has been collected. A bucket that does not answer
//! delays; it costs no order. Who holds the form may send again until it is over, so its key is cleared then, and
//! once more a week later, for what was still on its way.

use std::time::Instant as Moment;

use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::place;
use crate::error::Result;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::storage::Bucket;
use crate::infra::storage::ObjectPath;
use crate::ingest::Ingest;
use crate::ingest::Note;
use crate::ingest::Taken;
use crate::ingest::direct;
use crate::ingest::from_url::FetchOriginal;
use crate::ingest::from_url::SENT;
use crate::ingest::from_url::Stop;
use crate::ingest::from_url::TELL_EVERY;
use crate::ingest::from_url::queued;
use crate::ingest::store;
use crate::ingest::store::Voucher;
use crate::support::checksum;
use crate::support::id;

/// Of a file's name, in a key.
const MOST_NAME_BYTES: usize = 100;

/// What is read from the bucket while somebody waits, to know its MD5.
const MOST_READ_BYTES: u64 = 16 << 20;

impl Ingest {
    /// The bucket that a file may be sent straight into, and under which key.
    pub(super) fn place_in_bucket(&self, id: AssetId, name: &str) -> Result<Option<(String, String)>> {
        let Some(bucket) = self.homes.open_to_forms() else { return Ok(None) };
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
        let name: String = name.chars().map(plain).take(MOST_NAME_BYTES).collect();
        let key = ObjectPath::new(format!("originals/{id}/original/original__{name}"))?;
        Ok(Some((bucket.to_owned(), key.as_str().to_owned())))
    }

    /// Makes an asset, QUEUED, of what lies in the bucket, when it is what the sender says.
    pub(super) async fn register_in_bucket(
        &self,
        id: AssetId,
        voucher: Voucher,
        size_bytes: u64,
        md5: String,
        note: Note,
    ) -> Result<Asset> {
        let bucket = self.homes.sent_into(voucher.bucket.as_deref().unwrap_or_default())?;
        let key = ObjectPath::new(voucher.object_key.as_str())?;
        let told = bucket.find(&key).await?.ok_or_else(direct::nothing_sent)?;
        let mut known = told.tag.filter(|tag| *tag == md5);
        // The tag of a bucket that encrypts may be anything. What is larger is judged when it has come.
        if known.is_none() && (told.size_bytes == size_bytes && size_bytes <= MOST_READ_BYTES) {
            known = Some(self.md5_of(bucket, &key, size_bytes).await?);
        }
        direct::compare((told.size_bytes, known.as_deref()), (size_bytes, &md5))?;
        let this = self.clone();
        self.db
            .write(move |tx| {
                let asset = Asset { data: note.system, ..queued(id, voucher.user_id, &voucher.name, None, tx.now()) };
                if !store::set_registered(tx, id, size_bytes, &md5)? {
                    return Err(direct::meanwhile());
                }
                assets::store::insert(tx, &asset)?;
                this.schemas.settle(tx, id)?;
                store::put_order(tx, id, SENT)?;
                this.jobs.enqueue(tx, &FetchOriginal { id }, Enqueue::default())?;
                if let Some(once) = &note.once {
                    once.note(tx, [id])?;
                }
                Ok(asset)
            })
            .await
    }

    async fn md5_of(&self, bucket: &Bucket, key: &ObjectPath, size_bytes: u64) -> Result<String> {
        let mut incoming = bucket.read(key, 0..size_bytes);
        let mut bytes = Vec::with_capacity(size_bytes as usize);
        while let Some(chunk) = incoming.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        self.cpu.run(move || Ok(id::hex(&checksum::md5(&bytes)))).await
    }

    /// Brings what was registered from the bucket to staging.
    pub(super) async fn collect(&self, id: AssetId, name: &str, at: &Attempt) -> Result<Taken, Stop> {
        let lost = || Stop::Final("It is not known any more where in the bucket the file was sent to.".to_owned());
        let voucher = self.db.read(move |c| store::voucher(c, id)).await?.ok_or_else(lost)?;
        let (size_bytes, md5) = voucher.registered.ok_or_else(lost)?;
        let bucket = self.homes.sent_into(&voucher.bucket.ok_or_else(lost)?)?;
        let key = ObjectPath::new(voucher.object_key)?;
        let told = bucket.find(&key).await?;
        let other =
            || Stop::Final("What lies in the bucket is not what was registered; send the file again.".to_owned());
        if told.ok_or_else(|| Stop::Final("The file is not in the bucket any more.".to_owned()))?.size_bytes
            != size_bytes
        {
            return Err(other());
        }
        let mut intake = self.resume_as(id, 1, place::fetched_name(id), name, 0, size_bytes).await?;
        let (mut incoming, mut told_at) = (bucket.read(&key, 0..size_bytes), Moment::now());
        while let Some(bytes) = incoming.next().await? {
            intake.write(bytes).await?;
            if told_at.elapsed() >= TELL_EVERY {
                told_at = Moment::now();
                self.tell(id, intake.size_bytes(), Some(size_bytes), at).await?;
            }
        }
        let taken = intake.finish().await?;
        if taken.checksums.md5_hex() == md5 { Ok(taken) } else { Err(other()) }
    }

    /// What was collected need not lie there twice until its voucher is over.
    pub(super) async fn collected(&self, id: AssetId) -> Result<()> {
        let voucher = self.db.read(move |c| store::voucher(c, id)).await?;
        self.cleared_from_bucket(id, voucher.as_ref()).await.map(drop)
    }

    /// Removes what lies in the bucket under a form's key; false when that has to wait.
    pub(super) async fn cleared_from_bucket(&self, id: AssetId, voucher: Option<&Voucher>) -> Result<bool> {
        let Some((voucher, bucket)) = voucher.and_then(|voucher| Some((voucher, voucher.bucket.as_ref()?))) else {
            return Ok(true);
        };
        if self.db.read(move |c| store::order(c, id)).await?.is_some() {
            return Ok(false);
        }
        let key = ObjectPath::new(voucher.object_key.as_str())?;
        let removed = match self.homes.sent_into(bucket) {
            Ok(bucket) => bucket.delete(&key).await,
            Err(e) => Err(e),
        };
        if let Err(error) = &removed {
            tracing::warn!(%error, asset.id = %id, "what was sent straight into a bucket could not be removed; it will be tried again");
        }
        Ok(removed.is_ok())
    }
}
