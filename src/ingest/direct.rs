//! Straight to storage: a file is sent first, by a signed form, and becomes an asset when it is
//! registered.
//!
//! ```text
//! announce ─▶ a voucher: id, key and who may register it; a job that will let it expire
//! begin_sent ─▶ staging/{id}.sent.{…}, as any upload ─▶ sent: flushed, its name too, and noted in the voucher
//! register ─▶ size and MD5 are as the sender says ─▶ kept like any upload; the voucher goes in that transaction
//! ```
//!
//! Whoever holds the form may send, also without an account, until the voucher expires; what is sent
//! again replaces what was sent before, as in any store. Only the user who was given the voucher
//! registers. What nobody registers goes when the voucher expires, but not because a clock jumped
//! (`resumable::Doubts`); that the voucher has been is known for a week longer.
//!
//! Where originals go to a bucket on S3, the form leads into the bucket itself: see `collect`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use std::time::Instant as Moment;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::MasterKey;
use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::place;
use crate::custody::Sweep;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::is_in_doubt;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::post_policy;
use crate::infra::storage::post_policy::Terms;
use crate::infra::storage::sigv4::Signer;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Note;
use crate::ingest::Once;
use crate::ingest::Taken;
use crate::ingest::intake::Staged;
use crate::ingest::name;
use crate::ingest::phases::SLACK;
use crate::ingest::resumable;
use crate::ingest::store;
use crate::ingest::store::Sent;
use crate::ingest::store::Voucher;
use crate::journal;
use crate::support::checksum::Checksums;
use crate::support::clock::Instant;
use crate::support::id;

/// What the store here is called.
const BUCKET: &str = "cloakroom";

/// How long it is known that a voucher has expired.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What programs may say about how they sent, as JSON.
const MOST_SERVICE_BYTES: usize = 8 * 1024;

/// Where that is kept in an asset's data.
const SERVICE_DATA: &str = "_filespin_service_data";

/// What somebody needs to send a file.
#[derive(Clone, Debug)]
pub struct Permit {
    pub id: AssetId,
    pub name: String,
    pub key: String,
    pub bucket: String,
    /// Where the form goes, if that is not this box.
    pub url: Option<String>,
    /// The fields of the form; the file comes last.
    pub fields: Vec<(&'static str, String)>,
    pub expires_in: Duration,
}

/// What somebody says they have sent.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: AssetId,
    pub size_bytes: u64,
    /// In hex.
    pub md5: String,
    /// About the program that sent it; kept with the asset.
    pub service: Map<String, Value>,
}

/// Lets a voucher expire, with what was sent on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExpireVoucher {
    id: AssetId,
}

impl Job for ExpireVoucher {
    const KIND: &'static str = "ingest.expire_voucher";
    const QUEUE: Queue = Sweep::QUEUE_NAME;
    const MAX_ATTEMPTS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_mins(1);
}

/// Who signs the forms: the box itself.
pub(super) fn signer(master: &MasterKey) -> Signer {
    Signer {
        access_key: "CLOAKROOM".to_owned(),
        secret: master.secret_for("forms that send to storage"),
        region: "local".to_owned(),
    }
}

impl Ingest {
    /// Sets an id aside, the asked for one or a new one, and says how to send the file for it.
    pub async fn announce(
        &self,
        caller: &Caller,
        filename: &str,
        id: Option<AssetId>,
        once: Option<Once>,
    ) -> Result<Permit> {
        let id = id.map_or_else(AssetId::random, Ok)?;
        let name = name::clean(filename);
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let key = format!("originals/{id}/original/original__{last}");
        let (lasts, now) = (Duration::from_secs(self.config.direct_seconds), self.db.clock().now());
        let expires_at = now.plus(lasts);
        let (key, bucket) = match self.place_in_bucket(id, last)? {
            Some((bucket, key)) => (key, Some(bucket)),
            None => (key, None),
        };
        let user_id = caller.user_id();
        let voucher = Voucher { user_id, name, object_key: key, bucket, expires_at, sent: None, registered: None };
        let permit = self.permit(id, &voucher, now)?;
        let (jobs, longest) = (self.jobs.clone(), self.longest_voucher());
        self.db
            .write(move |tx| {
                // An id of the past may still be cleared away after: no name of a file ever comes back.
                let known = assets::store::revision(tx, id)?.is_some()
                    || !journal::store::last_of_each(tx, id)?.is_empty()
                    || resumable::is_known(tx, id)?;
                if known || !store::put_voucher(tx, id, &voucher)? {
                    return Err(Code::AssetIdExists.because("This asset id is taken; leave it out, and get a new one."));
                }
                let when = Enqueue { run_at: Some(expires_at), ..Enqueue::default() };
                jobs.enqueue(tx, &ExpireVoucher { id }, when)?;
                if let Some(once) = &once {
                    once.note(tx, [id])?;
                }
                jobs.pull_forward::<ExpireVoucher>(tx, longest)
            })
            .await?;
        Ok(permit)
    }

    /// How to send a file that was announced before.
    pub async fn announced(&self, id: AssetId) -> Result<Permit> {
        let voucher = self.db.read(move |c| store::voucher(c, id)).await?.ok_or_else(not_expected)?;
        self.permit(id, &voucher, self.db.clock().now())
    }

    fn permit(&self, id: AssetId, voucher: &Voucher, now: Instant) -> Result<Permit> {
        let Voucher { name, object_key: key, bucket, expires_at, .. } = voucher.clone();
        let (expires_in, most_bytes) = (expires_at.since(now), self.config.max_file_bytes);
        if let Some(bucket) = bucket {
            let bucket = self.homes.sent_into(&bucket)?;
            let form = bucket.form(&ObjectPath::new(&*key)?, most_bytes, expires_at, now)?;
            let bucket = bucket.name().to_owned();
            return Ok(Permit { id, name, key, bucket, url: Some(form.url), fields: form.fields, expires_in });
        }
        let terms = Terms { bucket: BUCKET, key: &key, sizes: 1..=most_bytes, expires_at, free: post_policy::FREE };
        let fields = post_policy::form(&self.signer, &terms, now)?;
        Ok(Permit { id, name, key, bucket: BUCKET.to_owned(), url: None, fields, expires_in })
    }

    /// Starts to receive a file by its form; also says how large it may be.
    pub async fn begin_sent(
        &self,
        fields: &BTreeMap<String, String>,
        declared_bytes: u64,
    ) -> Result<(Intake, RangeInclusive<u64>)> {
        let now = self.db.clock().now();
        let allowed = post_policy::check(&self.signer, BUCKET, fields, now)?;
        let id: AssetId = allowed.key.split('/').nth(1).and_then(|id| id.parse().ok()).ok_or_else(not_expected)?;
        let voucher = self.db.read(move |c| store::voucher(c, id)).await?;
        let is_expected = |v: &Voucher| v.bucket.is_none() && v.object_key == allowed.key && v.expires_at > now;
        let voucher = voucher.filter(is_expected).ok_or_else(not_expected)?;
        let staged = place::sent_name(id, &id::hex(&id::random::<8>()?));
        let intake = self.begin_as(id, 1, staged, &voucher.name, declared_bytes).await?;
        Ok((intake, allowed.sizes))
    }

    /// Notes what was received, for it to be registered. It is safe when this returns. Its MD5.
    ///
    /// Runs to its end even when the caller goes away: what a row waits for has to be there.
    pub async fn sent(&self, taken: Taken) -> Result<String> {
        let this = self.clone();
        let noting = self.cpu.handle().spawn(async move { this.note_sent(taken).await });
        noting.await.map_err(|e| Code::Internal.from("noting what was sent", e))?
    }

    async fn note_sent(&self, taken: Taken) -> Result<String> {
        let storage = self.storage.clone();
        self.cpu.run(move || storage.flush_names()).await?;
        let sent = Sent {
            staged: taken.staged.name.clone(),
            size_bytes: taken.checksums.size_bytes,
            md5: taken.checksums.md5_hex(),
            sha256: taken.checksums.sha256_hex(),
            content_type: taken.content_type.clone(),
        };
        let (id, md5) = (taken.id, sent.md5.clone());
        let noted = self
            .db
            .write(move |tx| {
                let voucher = store::voucher(tx, id)?.filter(|v| v.expires_at > tx.now()).ok_or_else(not_expected)?;
                store::set_sent(tx, id, Some(&sent))?;
                Ok(voucher.sent)
            })
            .await;
        if noted.as_ref().map_or_else(is_in_doubt, |_| true) {
            taken.staged.stay();
        }
        if let Some(before) = noted? {
            let storage = self.storage.clone();
            self.cpu.spawn(move || storage.unstage(&before.staged));
        }
        Ok(md5)
    }

    /// Makes an asset of what was sent, when it is what the sender says. Saying the same once more
    /// is answered the same.
    pub async fn register(&self, caller: &Caller, claim: Claim, once: Option<Once>) -> Result<Asset> {
        let (id, now) = (claim.id, self.db.clock().now());
        let (voucher, asset) = self.db.read(move |c| Ok((store::voucher(c, id)?, assets::store::find(c, id)?))).await?;
        if let Some(asset) = asset.filter(|asset| asset.trashed_at.is_none()) {
            let registered = voucher.and_then(|voucher| voucher.registered);
            let content = registered.unwrap_or((asset.size_bytes, asset.md5.clone()));
            let same = asset.creator_id == caller.user_id() && content == (claim.size_bytes, claim.md5);
            let taken = || Code::AssetIdExists.because("This asset was registered already, with another content.");
            return if same { Ok(asset) } else { Err(taken()) };
        }
        let missing = || Code::AssetNotFound.because("No file was announced under this id, or that is long ago.");
        let voucher = voucher.ok_or_else(missing)?;
        if voucher.user_id != caller.user_id() {
            return Err(Code::Forbidden.because("This file was announced by somebody else."));
        }
        if voucher.expires_at <= now {
            return Err(Code::UploadGone.because("The file was not registered in time and is gone; announce it anew."));
        }
        let service = Value::Object(claim.service);
        if service.to_string().len() > MOST_SERVICE_BYTES {
            return Err(Code::DataTooLarge.because(format!("service_data: at most {MOST_SERVICE_BYTES} bytes as JSON")));
        }
        let nothing_said = service.as_object().is_none_or(Map::is_empty);
        let system = if nothing_said { Map::new() } else { Map::from_iter([(SERVICE_DATA.to_owned(), service)]) };
        let note = Note { system, once, ..Note::default() };
        if voucher.bucket.is_some() {
            return self.register_in_bucket(id, voucher, claim.size_bytes, claim.md5, note).await;
        }
        let sent = voucher.sent.ok_or_else(nothing_sent)?;
        compare((sent.size_bytes, Some(&sent.md5)), (claim.size_bytes, &claim.md5))?;
        let staged = sent.staged.clone();
        let taken = self.taken(id, voucher.name, sent)?;
        let kept = self
            .keep_with(caller, vec![taken], note, move |tx| {
                if store::remove_voucher(tx, id, Some(&staged))? { Ok(()) } else { Err(meanwhile()) }
            })
            .await;
        let kept = kept.map_err(|e| if e.code == Code::AssetIdExists { meanwhile() } else { e })?;
        kept.into_iter().next().ok_or_else(|| Code::Internal.because("a file was registered and is no asset"))
    }

    /// What a wrong clock put far into the future comes back.
    pub(super) async fn recover_vouchers(&self) -> Result<()> {
        let (jobs, longest) = (self.jobs.clone(), self.longest_voucher());
        self.db.write(move |tx| jobs.pull_forward::<ExpireVoucher>(tx, longest)).await
    }

    /// No voucher is looked after further ahead.
    fn longest_voucher(&self) -> Duration {
        REMEMBERED.max(Duration::from_secs(self.config.direct_seconds)) + SLACK
    }

    /// What was sent, as if it had just been received.
    fn taken(&self, id: AssetId, name: String, sent: Sent) -> Result<Taken> {
        let broken = || Code::Internal.because("a voucher's checksums cannot be read");
        let half = |at: usize| sent.sha256.get(at..at + 32).and_then(id::parse_hex16).ok_or_else(broken);
        let mut sha256 = [0; 32];
        for (to, from) in sha256.iter_mut().zip(half(0)?.into_iter().chain(half(32)?)) {
            *to = from;
        }
        let md5 = id::parse_hex16(&sent.md5).ok_or_else(broken)?;
        Ok(Taken {
            id,
            revision: 1,
            name,
            content_type: sent.content_type,
            checksums: Checksums { md5, sha256, size_bytes: sent.size_bytes },
            staged: Staged::that_stays(&self.storage, &self.cpu, sent.staged),
        })
    }
}

impl Run<ExpireVoucher> for Ingest {
    async fn run(&self, job: ExpireVoucher, at: &Attempt) -> Result<()> {
        let (this, at, id) = (self.clone(), at.clone(), job.id);
        let (voucher, now) = (self.db.read(move |c| store::voucher(c, id)).await?, self.db.clock().now());
        let is_expired = voucher.as_ref().is_some_and(|voucher| voucher.expires_at <= now);
        let is_sure = self.doubts.is_sure(id, is_expired, Moment::now(), self.doubt());
        // Looked at again a while later: as long as it is still being collected, or the bucket does not answer.
        let is_sure = is_sure && self.cleared_from_bucket(id, voucher.as_ref()).await?;
        let gone = self
            .db
            .write(move |tx| {
                at.complete(tx)?;
                let Some(voucher) = store::voucher(tx, id)? else { return Ok(None) };
                let forgotten_at = voucher.expires_at.plus(REMEMBERED);
                let (done, next) = if tx.now() < voucher.expires_at {
                    (None, voucher.expires_at)
                } else if !is_sure {
                    (None, tx.now().plus(this.next_look()))
                } else if tx.now() < forgotten_at {
                    store::set_sent(tx, id, None)?;
                    (voucher.sent, forgotten_at)
                } else {
                    store::remove_voucher(tx, id, None)?;
                    return Ok(voucher.sent);
                };
                let when = Enqueue { run_at: Some(next), ..Enqueue::default() };
                this.jobs.enqueue(tx, &ExpireVoucher { id }, when)?;
                Ok(done)
            })
            .await?;
        if is_sure {
            self.doubts.forget(id);
        }
        if let Some(sent) = gone {
            let storage = self.storage.clone();
            self.cpu
                .run(move || {
                    storage.unstage(&sent.staged);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

pub(super) fn nothing_sent() -> Error {
    Code::ContentNotFound.because("Nothing was sent to storage under this id yet.")
}

/// Whether what is there, its size and its MD5 if that is known, is what somebody says they have sent.
pub(super) fn compare((size_bytes, md5): (u64, Option<&str>), (said_bytes, said_md5): (u64, &str)) -> Result<()> {
    if size_bytes != said_bytes {
        return Err(Code::ContentMismatch
            .because(format!("{size_bytes} bytes were sent, not {said_bytes}; send the file again.")));
    }
    match md5.filter(|md5| *md5 != said_md5) {
        Some(md5) => {
            Err(Code::ContentMismatch.because(format!("What was sent has the checksum {md5}; send the file again.")))
        }
        None => Ok(()),
    }
}

fn not_expected() -> Error {
    Code::PolicyRefused.because(
        "Nothing is expected under this key: it was registered already, or its time is over. Announce the file anew.",
    )
}

pub(super) fn meanwhile() -> Error {
    Code::Conflict
        .because("The file was sent again or registered at the same time; look at the asset, and register again.")
}
