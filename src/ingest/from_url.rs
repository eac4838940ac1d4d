//! Fetching: a file that lies elsewhere becomes an asset.
//!
//! ```text
//! order ─▶ one transaction: asset QUEUED, where it lies, job ─▶ the caller is answered
//! fetch (job) ─▶ staging/{id}.fetched, hashed; what is flushed is noted, and an attempt that breaks
//!                off is gone on with by Range, if the source says that it is still the same
//!   whole  ─▶ final name ─▶ one transaction: asset NOT_READY + job `save`
//!   not    ─▶ one transaction: asset ERROR with a sentence · or again, a while later
//! ```
//!
//! Invariant: an asset that is QUEUED has its order and its job; whatever ends the one ends the
//! others in the same transaction. Every address is judged at the socket (`support::fetch`), also
//! those that sources send us on to. One that was deleted meanwhile is fetched no further.
//!
//! Where credentials for `s3://` come from is the configuration's; no other source gets any. Such a bucket is
//! called wherever the configuration says that it is, and never sends us on.
//!
//! What a source says of its content (`digests.rs`) is compared when the file came in one answer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use std::time::Instant as Moment;

use bytes::Bytes;
use hyper::Method;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use url::Url;

use crate::accounts::Caller;
use crate::assets;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::Status;
use crate::assets::place;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::jobs::Attempt;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Job;
use crate::infra::jobs::Queue;
use crate::infra::jobs::Run;
use crate::infra::storage::Storage;
use crate::infra::storage::sigv4;
use crate::infra::storage::sigv4::Signer;
use crate::ingest::Ingest;
use crate::ingest::Intake;
use crate::ingest::Once;
use crate::ingest::SaveOriginal;
use crate::ingest::Taken;
use crate::ingest::digests::Digests;
use crate::ingest::name;
use crate::ingest::store;
use crate::ingest::store::Order;
use crate::journal::Event;
use crate::support::clock::Instant;
use crate::support::fetch;
use crate::support::fetch::Answer;
use crate::support::fetch::Ask;
use crate::support::fetch::Line;
use crate::support::mime;
use crate::support::secret::Secret;

/// How often a source may send us on.
const MOST_REDIRECTS: usize = 3;

/// How much may have to be fetched again after a crash.
const MARK_EVERY_BYTES: u64 = 16 << 20;

/// How often is told how far it is.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a source may make us wait before the next attempt.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// The job may take longer than the configuration allows a file: it ends by that, and by this only at last.
const LONGEST_ATTEMPT: Duration = Duration::from_hours(24);

/// What an asset in the trash is told to be, that was never fetched.
const DELETED: &str = "The asset was deleted before its file was fetched.";

/// What one is told to be that the disk had no room for.
const NO_ROOM: &str = "The disk is too full for this file.";

/// How files are fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchConfig {
    pub connect_seconds: u64,
    /// For the head of an answer.
    pub answer_seconds: u64,
    /// For one attempt. A file that takes longer is gone on with by another, as long as each gets further.
    pub total_seconds: u64,
    /// A source that is slower than this over `window_seconds` is given up for this attempt.
    pub min_bytes_per_second: u64,
    pub window_seconds: u64,
    /// Waits between attempts.
    pub retry_seconds: Vec<u64>,
}

/// A bucket that may be read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Of another server than Amazon's: `https://host`, and the bucket's name is the path's first part.
    #[serde(default)]
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: Secret,
    /// Of credentials that last for a while.
    #[serde(default)]
    pub session_token: Secret,
}

impl Bucket {
    /// Where an object lies.
    fn address(&self, name: &str, key: &str) -> String {
        let (region, path) = (&self.region, sigv4::encoded(key));
        match self.endpoint.trim_end_matches('/') {
            // Amazon's certificate holds for one label in front of its own name.
            "" if name.contains('.') => format!("https://s3.{region}.amazonaws.com/{name}/{path}"),
            "" => format!("https://{name}.s3.{region}.amazonaws.com/{path}"),
            endpoint => format!("{endpoint}/{name}/{path}"),
        }
    }
}

/// The source of what was sent straight into the bucket: its voucher says where it lies. Nobody can name it, for it is
/// no address.
pub(super) const SENT: &str = "sent";

/// Fetches the file of an asset that is QUEUED.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchOriginal {
    pub(super) id: AssetId,
}

impl FetchOriginal {
    /// Where errands in the network wait.
    pub const QUEUE_NAME: Queue = Queue("net");
}

impl Job for FetchOriginal {
    const KIND: &'static str = "ingest.fetch";
    const QUEUE: Queue = FetchOriginal::QUEUE_NAME;
    /// More than the configuration has waits for: what counts is there.
    const MAX_ATTEMPTS: u32 = 100;
    const TIMEOUT: Duration = LONGEST_ATTEMPT;
}

/// Why an attempt did not bring the file.
pub(super) enum Stop {
    /// Trying again would not help.
    Final(String),
    /// It might, after this time if the source says one.
    Later(String, Option<Duration>),
    /// The same, because the disk is full.
    NoRoom,
    /// The attempt has used up its time.
    OutOfTime,
    /// It is not the source's fault.
    Ours(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        match e.code {
            Code::Unreachable => {
                tracing::info!(error = %e, "a source could not be reached");
                Stop::Later(sentence(&e.detail), None)
            }
            // What came is let go, so that others have room while this one waits for its next attempt.
            Code::DiskFull => Stop::NoRoom,
            Code::UrlNotAllowed | Code::InvalidRequest | Code::TooLarge | Code::EmptyFile => {
                Stop::Final(sentence(e.public()))
            }
            _ => Stop::Ours(e),
        }
    }
}

impl Ingest {
    /// Has a file fetched. The asset that it will be, QUEUED.
    pub async fn order(&self, caller: &Caller, name: &str, source: &str, once: Option<Once>) -> Result<Asset> {
        let at = self.locate(source)?;
        let named = if name.trim().is_empty() { name_in(&at.url) } else { name.to_owned() };
        let (id, user, source) = (AssetId::random()?, caller.user_id(), source.to_owned());
        let this = self.clone();
        self.db
            .write(move |tx| {
                let asset = queued(id, user, &named, at.url.host_str(), tx.now());
                assets::store::insert(tx, &asset)?;
                this.schemas.settle(tx, id)?;
                store::put_order(tx, id, &source)?;
                this.jobs.enqueue(tx, &FetchOriginal { id }, Enqueue::default())?;
                if let Some(once) = &once {
                    once.note(tx, [id])?;
                }
                Ok(asset)
            })
            .await
    }

    /// Where a source lies, and who signs for it.
    fn locate(&self, source: &str) -> Result<Place> {
        let Some(rest) = source.strip_prefix("s3://") else {
            return Ok(Place { url: self.fetch.check(source)?, signer: None, token: None });
        };
        let bad = |what: &str| Code::UrlNotAllowed.because(format!("`{}`: {what}", source.escape_debug()));
        let (name, key) = rest
            .split_once('/')
            .filter(|(name, key)| !name.is_empty() && !key.is_empty())
            .ok_or_else(|| bad("an address in a bucket is s3://BUCKET/KEY"))?;
        if source.len() > 2048 || source.chars().any(char::is_control) {
            return Err(bad("it is too long, or holds a control character"));
        }
        if key.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(bad("a part of the key is a dot or two"));
        }
        let bucket = self.config.buckets.get(name).ok_or_else(|| {
            bad("there are no credentials for this bucket; the operator can give some in ingest.buckets")
        })?;
        let url = bucket.address(name, key);
        let signer = Signer {
            access_key: bucket.access_key.clone(),
            secret: bucket.secret_key.clone(),
            region: bucket.region.clone(),
        };
        let token = Some(bucket.session_token.expose()).filter(|token| !token.is_empty()).map(str::to_owned);
        Ok(Place { url: self.bucket_fetch.check(&url)?, signer: Some(signer), token })
    }
}

/// Where a file lies.
struct Place {
    url: Url,
    /// It is a bucket of the configuration.
    signer: Option<Signer>,
    token: Option<String>,
}

impl Run<FetchOriginal> for Ingest {
    async fn run(&self, job: FetchOriginal, at: &Attempt) -> Result<()> {
        let id = job.id;
        let Some((order, name)) = self.ordered(id).await? else {
            return self.end(id, DELETED, Some(at.clone())).await;
        };
        let was_sent = order.source == SENT;
        let fetched = tokio::select! {
            fetched = self.bring(id, &name, order, at) => fetched,
            () = self.unwanted(id) => return self.end(id, DELETED, Some(at.clone())).await,
            () = at.cancelled() => return Ok(()),
        };
        let (code, why, wait) = match fetched {
            Ok(taken) => {
                self.arrived(taken, at.clone()).await?;
                return if was_sent { self.collected(id).await } else { Ok(()) };
            }
            Err(Stop::Ours(e)) => return Err(e),
            Err(Stop::Final(why)) => return self.end(id, &why, Some(at.clone())).await,
            Err(Stop::OutOfTime) => return self.go_on(id, at.clone()).await,
            Err(Stop::Later(why, wait)) => (Code::Unreachable, why, wait),
            Err(Stop::NoRoom) => {
                self.let_go(id).await?;
                (Code::DiskFull, NO_ROOM.to_owned(), None)
            }
        };
        let nth = at.number().saturating_sub(1) as usize;
        let Some(usual) = self.config.fetch.retry_seconds.get(nth) else {
            let why = format!("{why} It was tried {} times.", at.number());
            return self.end(id, &why, Some(at.clone())).await;
        };
        at.retry_in(wait.unwrap_or(Duration::from_secs(*usual)).min(LONGEST_WAIT));
        Err(code.because(why))
    }

    async fn gave_up(&self, job: FetchOriginal, error: &Error) {
        if let Err(e) = self.end(job.id, &sentence(error.public()), None).await {
            tracing::error!(asset.id = %job.id, error = %e, "an asset's failure could not be recorded");
        }
    }
}

impl Ingest {
    /// The order of an asset, and its name, while it is wanted.
    async fn ordered(&self, id: AssetId) -> Result<Option<(Order, String)>> {
        self.db
            .read(move |c| {
                let waits = |asset: &Asset| asset.status == Status::Queued && asset.trashed_at.is_none();
                let Some(asset) = assets::store::find(c, id)?.filter(waits) else { return Ok(None) };
                Ok(store::order(c, id)?.map(|order| (order, asset.name)))
            })
            .await
    }

    /// Resolves when nobody waits for this file any more: the asset was deleted, or replaced.
    async fn unwanted(&self, id: AssetId) {
        let changed = self.assets.changed();
        loop {
            let mut told = pin!(changed.notified());
            told.as_mut().enable();
            if matches!(self.ordered(id).await, Ok(None)) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_secs(10), told).await;
            // Assets change all the time; one that is being fetched hardly ever does.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One attempt at getting the whole file into staging.
    async fn bring(&self, id: AssetId, name: &str, mut order: Order, at: &Attempt) -> Result<Taken, Stop> {
        if order.source == SENT {
            return self.collect(id, name, at).await;
        }
        let began = Moment::now();
        let place = self.locate(&order.source)?;
        let had = order.kept_bytes;
        let (source, start) = loop {
            let resume = order.validator.clone().filter(|_| order.kept_bytes > 0);
            let source = self.ask(&place, order.kept_bytes, resume.as_deref()).await?;
            match (source.answer.status, resume) {
                (200, _) => break (source, 0),
                (206, Some(_)) if source.continues(&order) => break (source, order.kept_bytes),
                // Not what we have the beginning of: from the start, then.
                (206 | 416, Some(_)) => order.kept_bytes = 0,
                _ => return Err(source.refusal()),
            }
        };
        order.total_bytes = source.total(start)?;
        order.validator = source.validator();
        if order.total_bytes.is_some_and(|total| total > self.config.max_file_bytes) {
            let most = self.config.max_file_bytes;
            return Err(Stop::Final(format!("The file is larger than the {most} bytes that are taken.")));
        }
        order.kept_bytes = start;
        let more = order.total_bytes.map_or(0, |total| total.saturating_sub(start));
        let mut intake = self.resume_as(id, 1, place::fetched_name(id), name, start, more).await?;
        if intake.size_bytes() != start {
            // Less is in staging than was noted; next time it is fetched from the start.
            self.note(id, &Order { kept_bytes: 0, ..order }).await?;
            return Err(Stop::Later("The beginning of the file was lost here.".into(), Some(Duration::ZERO)));
        }
        self.note(id, &order).await?;
        let said = Some(&source).filter(|_| start == 0).map(|source| source.digests(place.signer.is_some()));
        let mut stop = match self.fill(id, &mut intake, source, &mut order, began, at).await {
            Ok(()) => {
                let taken = intake.finish().await?;
                let Some(header) = said.and_then(|said| said.contradicted_by(&taken.checksums)) else {
                    return Ok(taken);
                };
                self.note(id, &Order { kept_bytes: 0, ..order }).await?;
                return Err(Stop::Later(format!("The content is not what the source's {header} says."), None));
            }
            Err(stop) => stop,
        };
        let got_further = order.validator.is_some() && start == had && intake.size_bytes() > had;
        if matches!(stop, Stop::OutOfTime) && !got_further {
            let seconds = self.config.fetch.total_seconds;
            stop = Stop::Final(format!("Fetching the file took longer than {seconds} s."));
        }
        if matches!(stop, Stop::Later(..) | Stop::OutOfTime) {
            order.kept_bytes = if order.validator.is_some() { intake.mark().await? } else { 0 };
            self.note(id, &order).await?;
        }
        Err(stop)
    }

    async fn fill(
        &self,
        id: AssetId,
        intake: &mut Intake,
        mut source: Source,
        order: &mut Order,
        began: Moment,
        at: &Attempt,
    ) -> Result<(), Stop> {
        let total_time = Duration::from_secs(self.config.fetch.total_seconds);
        let window = Duration::from_secs(self.config.fetch.window_seconds.max(1));
        let least = self.config.fetch.min_bytes_per_second.saturating_mul(window.as_secs());
        let slow = || Stop::Later(format!("The source sent less than {least} bytes in {} s.", window.as_secs()), None);
        let (mut waited, mut came, mut told) = (Duration::ZERO, 0, Moment::now());
        let expected = |got: u64, total: Option<u64>| match total {
            Some(total) => format!("The source sent {got} of the {total} bytes that it announced."),
            None => format!("The source stopped after {got} bytes."),
        };
        loop {
            let left = total_time.checked_sub(began.elapsed()).ok_or(Stop::OutOfTime)?;
            let asked = Moment::now();
            let chunk = tokio::time::timeout(left.min(window), source.answer.chunk()).await;
            waited += asked.elapsed();
            match chunk {
                // Whose time it was that is over, the next round says.
                Err(_) if left < window => continue,
                Err(_) => return Err(slow()),
                Ok(Err(e)) => {
                    tracing::debug!(asset.id = %id, error = %e, "a source broke off");
                    return Err(Stop::Later(expected(intake.size_bytes(), order.total_bytes), None));
                }
                Ok(Ok(None)) => break,
                Ok(Ok(Some(bytes))) => {
                    came += bytes.len() as u64;
                    intake.write(bytes).await?;
                }
            }
            if waited >= window {
                if came < least {
                    return Err(slow());
                }
                (waited, came) = (Duration::ZERO, 0);
            }
            if order.validator.is_some() && intake.size_bytes() - order.kept_bytes >= MARK_EVERY_BYTES {
                order.kept_bytes = intake.mark().await?;
                self.note(id, order).await?;
            }
            if told.elapsed() >= TELL_EVERY {
                told = Moment::now();
                self.tell(id, intake.size_bytes(), order.total_bytes, at).await?;
            }
        }
        match order.total_bytes {
            Some(total) if total != intake.size_bytes() => {
                Err(Stop::Later(expected(intake.size_bytes(), Some(total)), None))
            }
            _ => Ok(()),
        }
    }

    /// Asks for the file, or what is missing of it, wherever it is sent on to.
    async fn ask(&self, place: &Place, kept_bytes: u64, resume: Option<&str>) -> Result<Source, Stop> {
        let connect = Duration::from_secs(self.config.fetch.connect_seconds);
        let patience = Duration::from_secs(self.config.fetch.answer_seconds);
        let mut url = place.url.clone();
        let fetch = if place.signer.is_some() { &self.bucket_fetch } else { &self.fetch };
        let token: Vec<_> = place.token.iter().map(|token| ("x-amz-security-token", token.clone())).collect();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = match &place.signer {
                Some(signer) => signer.headers(&url, &token, self.db.clock().now()),
                None => Vec::new(),
            };
            if let Some(validator) = resume {
                headers.extend([("range", format!("bytes={kept_bytes}-")), ("if-range", validator.to_owned())]);
            }
            let mut line = fetch.connect(&url, connect).await?;
            let ask = Ask { method: Method::GET, url: &url, headers, body: Bytes::new() };
            let host = fetch::place(&url);
            let Ok(answer) = tokio::time::timeout(patience, line.send(&ask)).await else {
                return Err(fetch::unreachable(&url, format!("no answer within {} s", patience.as_secs())).into());
            };
            let answer = answer?;
            if (300..400).contains(&answer.status) && place.signer.is_some() {
                return Err(Stop::Final(format!(
                    "The bucket answers {} from {host}: its region or endpoint is another.",
                    answer.status
                )));
            }
            match fetch.redirect(&url, &answer)? {
                Some(next) => url = next,
                None => return Ok(Source { host, answer, _line: line }),
            }
        }
        Err(Stop::Final(format!("The source sends on more than {MOST_REDIRECTS} times.")))
    }

    /// Removes what came of a file; it is fetched from its beginning then.
    async fn let_go(&self, id: AssetId) -> Result<()> {
        self.db.write_relaxed(move |tx| store::set_kept(tx, id, 0, None, None)).await?;
        let storage = self.storage.clone();
        self.cpu
            .run(move || {
                storage.unstage(&place::fetched_name(id));
                Ok(())
            })
            .await
    }

    async fn note(&self, id: AssetId, order: &Order) -> Result<()> {
        let Order { validator, total_bytes, kept_bytes, .. } = order.clone();
        self.db.write_relaxed(move |tx| store::set_kept(tx, id, kept_bytes, validator.as_deref(), total_bytes)).await
    }

    /// Shows how far it is.
    pub(super) async fn tell(&self, id: AssetId, received: u64, total: Option<u64>, at: &Attempt) -> Result<()> {
        let mut facts = Map::from_iter([("received_bytes".to_owned(), received.into())]);
        if let Some(total) = total.filter(|total| *total > 0) {
            facts.insert("total_bytes".to_owned(), total.into());
            at.progress((received.saturating_mul(100) / total).min(99) as u8);
        }
        self.db.write_relaxed(move |tx| assets::store::set_fetched_so_far(tx, id, &facts)).await
    }

    /// Makes what was fetched the asset's content.
    async fn arrived(&self, taken: Taken, at: Attempt) -> Result<()> {
        let this = self.clone();
        let keeping = self.cpu.handle().spawn(async move { this.keep_fetched(taken, at).await });
        keeping.await.map_err(|e| Code::Internal.from("keeping a fetched file", e))?
    }

    async fn keep_fetched(&self, taken: Taken, at: Attempt) -> Result<()> {
        let (id, place) = (taken.id, taken.place()?);
        let (this, attempt) = (self.clone(), at.clone());
        let (checksums, content_type) = (taken.checksums, taken.content_type.clone());
        let kept = self.commit(vec![(taken, place)], Storage::commit, move |tx| {
            let digests = (checksums.md5_hex(), checksums.sha256_hex());
            let digests = (&*digests.0, &*digests.1);
            if !assets::store::fetched(tx, id, checksums.size_bytes, digests, &content_type)? {
                return Err(Code::AssetNotFound.into());
            }
            let asset = assets::full(tx, id)?.asset;
            store::remove_order(tx, id)?;
            this.jobs.enqueue(tx, &SaveOriginal::of(&asset), Enqueue::default())?;
            this.homes.owe(tx, &asset)?;
            this.assets.changes(tx, id);
            attempt.complete(tx)
        });
        match kept.await {
            Err(e) if e.code == Code::AssetNotFound => self.end(id, DELETED, Some(at)).await,
            kept => kept,
        }
    }

    /// What an attempt in its time did not bring all of is gone on with by another, and tries begin anew: the
    /// source does answer.
    async fn go_on(&self, id: AssetId, at: Attempt) -> Result<()> {
        let jobs = self.jobs.clone();
        self.db
            .write(move |tx| {
                jobs.enqueue(tx, &FetchOriginal { id }, Enqueue::default())?;
                at.complete(tx)
            })
            .await
    }

    /// Ends an order for a reason that people can read.
    async fn end(&self, id: AssetId, why: &str, at: Option<Attempt>) -> Result<()> {
        let (this, why) = (self.clone(), why.to_owned());
        self.db.write(move |tx| this.record_end(tx, id, why, at)).await?;
        let storage = self.storage.clone();
        self.cpu
            .run(move || {
                storage.unstage(&place::fetched_name(id));
                Ok(())
            })
            .await
    }

    fn record_end(&self, tx: &Tx, id: AssetId, why: String, at: Option<Attempt>) -> Result<()> {
        let errors = BTreeMap::from([("original".to_owned(), why)]);
        let queued = assets::store::find(tx, id)?.is_some_and(|asset| asset.status == Status::Queued);
        if queued && assets::store::looked_at(tx, id, 1, Status::Error, &Map::<String, Value>::new(), &errors)? {
            if assets::store::is_present(tx, id, 1)? {
                self.journal.tell(tx, id, Event::FileSaved, &json!({ "revision": 1 }))?;
                self.processing.open_nothing(tx, id, 1)?;
            }
            self.assets.changes(tx, id);
        }
        store::remove_order(tx, id)?;
        at.map_or(Ok(()), |at| at.complete(tx))
    }
}

/// A source that answers.
struct Source {
    host: String,
    answer: Answer,
    _line: Line,
}

impl Source {
    /// Whether this is what is missing of what we have the beginning of.
    fn continues(&self, order: &Order) -> bool {
        let Some((from, _, total)) = self.range() else { return false };
        let same = self.validator().is_none_or(|now| Some(now) == order.validator);
        same && from == order.kept_bytes && (order.total_bytes.is_none() || total == order.total_bytes)
    }

    /// First and last byte, and how many there are in all, if that is known.
    fn range(&self) -> Option<(u64, u64, Option<u64>)> {
        let (span, total) = self.answer.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let (from, to) = span.split_once('-')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        Some((from.parse().ok()?, to.parse().ok()?, total))
    }

    /// What is said of the content.
    fn digests(&self, is_bucket: bool) -> Digests {
        Digests::said(self.answer.headers(), is_bucket)
    }

    /// How many bytes the whole file has, if the source says; it must not contradict itself.
    fn total(&self, start: u64) -> Result<Option<u64>, Stop> {
        if self.answer.header("content-encoding").is_some_and(|e| !e.eq_ignore_ascii_case("identity")) {
            return Err(Stop::Final("The source sent the file packed, which was not asked for.".into()));
        }
        let length: Option<u64> = self.answer.header("content-length").and_then(|text| text.parse().ok());
        if start == 0 {
            return Ok(length);
        }
        let lies = || Stop::Later("The source contradicts itself about the length of the file.".into(), None);
        let (from, to, total) = self.range().ok_or_else(lies)?;
        let span = to.checked_sub(from).and_then(|n| n.checked_add(1)).ok_or_else(lies)?;
        let end = from.checked_add(span).ok_or_else(lies)?;
        if length.is_some_and(|length| length != span) || total.is_some_and(|total| total != end) {
            return Err(lies());
        }
        Ok(Some(end))
    }

    /// What names this content, if anything does: a strong ETag, else its date.
    fn validator(&self) -> Option<String> {
        let tag = self.answer.header("etag").filter(|tag| tag.starts_with('"'));
        tag.or_else(|| self.answer.header("last-modified")).map(str::to_owned)
    }

    /// What it means that no file came.
    fn refusal(&self) -> Stop {
        let status = self.answer.status;
        let said = match status {
            401 | 403 => " (access denied)",
            404 | 410 => " (not found)",
            429 => " (too many requests)",
            500.. => " (failure)",
            _ => "",
        };
        let why = format!("{} answered {status}{said}.", self.host);
        match status {
            408 | 425 | 429 | 500.. => {
                let seconds = self.answer.header("retry-after").and_then(|text| text.trim().parse().ok());
                Stop::Later(why, seconds.map(Duration::from_secs))
            }
            _ => Stop::Final(why),
        }
    }
}

pub(super) fn queued(id: AssetId, user: i64, named: &str, host: Option<&str>, now: Instant) -> Asset {
    let named = name::clean(named);
    let guess = mime::from_name(&named).map_or("application/octet-stream", |kind| kind.content_type);
    Asset {
        status: Status::Queued,
        name: named,
        content_type: guess.to_owned(),
        upload_source: host.map(str::to_owned),
        ..Asset::arriving(id, user, now)
    }
}

/// What a file is called when nobody says: as its address ends.
fn name_in(url: &Url) -> String {
    let last = url.path().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    percent_decode_str(last).decode_utf8_lossy().into_owned()
}

fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    format!("{text}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_objects_lie() {
        for (endpoint, name, address) in [
            ("", "venue", "https://venue.s3.here.amazonaws.com/a%20b/c"),
            ("", "venue.example.com", "https://s3.here.amazonaws.com/venue.example.com/a%20b/c"),
            ("http://minio.lan:9000/", "venue", "http://minio.lan:9000/venue/a%20b/c"),
        ] {
            let bucket = Bucket {
                endpoint: endpoint.to_owned(),
                region: "here".to_owned(),
                access_key: String::new(),
                secret_key: Secret::default(),
                session_token: Secret::default(),
            };
            assert_eq!(bucket.address(name, "a b/c"), address);
        }
    }
}
