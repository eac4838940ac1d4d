//! Webhooks: what happens to assets is told to the URLs in the settings.
//!
//! ```text
//! journal ──cursor──▶ fan_out   tx: a notice for each entry (its body, once and for all),
//!                               a delivery for each URL, the cursor
//!                       ──woken──▶ courier   a lane for each URL: up to four requests at a time
//!                                            tx: the attempt, and where the delivery stands
//! ```
//!
//! A delivery is a row until it has an end, so what is owed survives a crash; it is sent at least
//! once, and under the same id with the same bytes every time.
//!
//! The rows are not jobs of the engine, on purpose: a queue there has slots that anybody's job
//! may take, and one receiver that hangs would take them all. Here each URL has a lane of its
//! own, which nobody else's deliveries ever wait for. (Sending old news again is a job.)
//!
//! A URL is told in FileSpin's words or in Prepr's; the journal is the same.
//!
//! Invariants: whatever is changed about the receivers is changed in the transaction of the
//! settings. What still waits for one that is told nothing any more is never sent, and is dropped
//! page by page behind that, for it may be a lot; before it is told again, all of it. No wait is longer than `model::longest_wait`: a delivery further ahead than that
//! was owed by a clock that has been set back, and is due.

mod courier;
mod fan_out;
pub mod model;
mod prepr;
mod reissue;
mod signing;
mod store;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant as Moment;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use model::Attempt;
pub use model::Delivery;
pub use model::DeliveryId;
pub use model::Filter;
pub use model::State;
pub use reissue::ReissueCallbacks;

use crate::accounts::MasterKey;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::Jobs;
use crate::journal;
use crate::journal::Entry;
use crate::journal::Journal;
use crate::news;
use crate::settings::Settings;
use crate::settings::Webhook;
use crate::settings::webhook::Dialect;
use crate::settings::webhook::Events;
use crate::settings::webhook::PreprEvents;
use crate::settings::webhook::Receiver;
use crate::settings::webhook::SealedSecret;
use crate::support::clock::Instant;
use crate::support::fetch::Fetch;
use crate::wire::filespin::callbacks::CallbackBody;

/// What the journal calls us.
const CONSUMER: &str = "webhooks";

/// Secrets that may be in force at once.
const MOST_SECRETS: usize = 4;

/// How often old deliveries are looked for; and how long they must have been seen to be old, so
/// that a clock that jumps ahead and back costs nothing.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// Deliveries that are forgotten, or dropped, in one transaction.
const PAGE: u32 = 500;

/// How long after a failure the rest is dropped.
const DROP_AGAIN: Duration = Duration::from_mins(1);

/// How callbacks are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URLs that may be told.
    pub max_urls: usize,
    /// Waits between the attempts at a delivery; there is one attempt more than there are waits.
    pub schedule_seconds: Vec<u64>,
    /// Longest time for one attempt.
    pub timeout_seconds: u64,
    /// Requests at once to one URL.
    pub max_connections: usize,
    /// How long ended deliveries stay in the log.
    pub keep_days: u64,
}

/// Tells receivers what happens; cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    config: Config,
    schedule: Vec<Duration>,
    db: Db,
    jobs: Jobs,
    journal: Journal,
    settings: Settings,
    fetch: Fetch,
    master: MasterKey,
    /// The origin in addresses that are told; empty when nobody configured one.
    public_url: String,
    /// Something is owed, or to somebody else than before.
    owed: Arc<Notify>,
    /// Somebody is told nothing any more for whom something may wait.
    unwanted: Arc<Notify>,
    /// URLs whose lane is open.
    lanes: Mutex<HashSet<String>>,
    counters: Counters,
    stopping: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Counters {
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

/// Figures since the start.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub waiting: u64,
    pub delivered: u64,
    pub failed: u64,
    pub given_up: u64,
}

impl Webhooks {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each collaborator once")]
    pub fn new(
        config: Config,
        db: Db,
        jobs: Jobs,
        journal: Journal,
        settings: Settings,
        fetch: Fetch,
        master: MasterKey,
        public_url: String,
    ) -> Webhooks {
        let schedule = config.schedule_seconds.iter().map(|seconds| Duration::from_secs(*seconds)).collect();
        Webhooks(Arc::new(Inner {
            config,
            schedule,
            db,
            jobs,
            journal,
            settings,
            fetch,
            master,
            public_url,
            owed: Arc::default(),
            unwanted: Arc::default(),
            lanes: Mutex::default(),
            counters: Counters::default(),
            stopping: watch::Sender::new(false),
            tasks: Mutex::default(),
        }))
    }

    /// Begins to tell.
    pub fn start(&self) {
        let handle = self.0.db.handle();
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(handle.spawn(self.clone().fan_out()));
        tasks.push(handle.spawn(self.clone().open_lanes()));
        tasks.push(handle.spawn(self.clone().drop_unwanted()));
        tasks.push(handle.spawn(self.clone().tidy_up()));
    }

    /// Begins nothing more, and lets requests under way end for `grace`. What is cut off is sent again.
    pub async fn stop(&self, grace: Duration) {
        self.0.stopping.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for task in &mut tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::info!("callbacks under way were cut off; they will be sent again");
            tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Chooses who is told what. URLs that were disabled are told again.
    pub async fn configure(&self, urls: Vec<String>, events: Events) -> Result<()> {
        self.choose(Dialect::FileSpin, urls, move |webhook| webhook.events = events).await
    }

    /// The same for those who are told in Prepr's words.
    pub async fn configure_prepr(&self, urls: Vec<String>, events: PreprEvents) -> Result<()> {
        self.choose(Dialect::Prepr, urls, move |webhook| webhook.prepr_events = events).await
    }

    async fn choose(
        &self,
        dialect: Dialect,
        urls: Vec<String>,
        set_events: impl FnOnce(&mut Webhook) + Send + 'static,
    ) -> Result<()> {
        let most = self.0.config.max_urls;
        if urls.len() > most {
            return Err(Code::InvalidRequest.because(format!("web_urls: at most {most} are told")));
        }
        for url in &urls {
            if url.contains(',') {
                return Err(Code::InvalidRequest.because("web_urls: a comma in a URL has to be written %2C"));
            }
            self.0.fetch.check(url).map_err(|e| e.code.because(format!("web_urls: {}", e.detail)))?;
        }
        for url in &urls {
            self.drop_waiting(url).await?;
        }
        let (this, fresh) = (self.clone(), self.sealed_secret()?);
        self.0
            .db
            .write(move |tx| {
                if this.0.settings.webhook(tx)?.active().next().is_none() {
                    // Nobody was told what happened until now, and nobody will be.
                    journal::store::set_cursor(tx, CONSUMER, journal::store::latest(tx)?)?;
                }
                let chosen = urls.iter().map(|url| Receiver { url: url.clone(), dialect, disabled_at: None });
                let chosen: Vec<Receiver> = chosen.collect();
                this.0.settings.edit(tx, |values| {
                    let webhook = &mut values.webhook;
                    webhook.receivers.retain(|receiver| receiver.dialect != dialect);
                    webhook.receivers.extend(chosen);
                    set_events(webhook);
                    if webhook.secrets.is_empty() && !urls.is_empty() {
                        webhook.secrets.push(fresh);
                    }
                })?;
                tx.wake(&this.0.unwanted);
                tx.wake(&this.0.owed);
                Ok(())
            })
            .await
    }

    /// The secrets that sign, the newest first, and when each ends.
    pub fn secrets(&self) -> Result<Vec<(String, Option<Instant>)>> {
        self.in_force(&self.0.settings.now().webhook, self.0.db.clock().now())
    }

    /// Makes a new secret; those before it sign for `grace` longer.
    pub async fn rotate_secret(&self, grace: Duration) -> Result<Vec<(String, Option<Instant>)>> {
        let (this, fresh) = (self.clone(), self.sealed_secret()?);
        self.0
            .db
            .write(move |tx| {
                let (now, end) = (tx.now(), tx.now().plus(grace));
                this.0.settings.edit(tx, |values| {
                    let secrets = &mut values.webhook.secrets;
                    for old in secrets.iter_mut() {
                        old.expires_at = Some(old.expires_at.map_or(end, |before| before.min(end)));
                    }
                    secrets.retain(|old| old.expires_at.is_none_or(|at| at > now));
                    secrets.insert(0, fresh);
                    secrets.truncate(MOST_SECRETS);
                })
            })
            .await?;
        self.secrets()
    }

    /// Sends every URL something that means nothing, once; says under which ids.
    pub async fn test(&self) -> Result<Vec<DeliveryId>> {
        let this = self.clone();
        self.0
            .db
            .write(move |tx| {
                let webhook = this.0.settings.webhook(tx)?;
                if webhook.active().next().is_none() {
                    return Err(Code::InvalidRequest.because("No URL is told anything: set web_urls first."));
                }
                // As if all tries but one had been made: whoever tests looks at the outcome.
                let tries = this.0.schedule.len() as u32;
                let mut owed = this.owe(tx, &webhook, Dialect::FileSpin, None, "test", &CallbackBody::test(), tries)?;
                let body = prepr::test(tx.now())?;
                owed.extend(this.owe(tx, &webhook, Dialect::Prepr, None, "test", &body, tries)?);
                Ok(owed)
            })
            .await
    }

    /// Deliveries, newest first.
    pub async fn list(&self, filter: Filter, limit: u32) -> Result<Vec<Delivery>> {
        self.0.db.read(move |c| store::list(c, &filter, limit)).await
    }

    /// A delivery, its body, and what came of each attempt.
    pub async fn find(&self, id: DeliveryId) -> Result<(Delivery, String, Vec<Attempt>)> {
        self.0
            .db
            .read(move |c| {
                let (delivery, body) = store::find(c, id)?.ok_or_else(|| missing(id))?;
                let attempts = store::attempts(c, delivery.seq)?;
                Ok((delivery, body, attempts))
            })
            .await
    }

    /// Sends a delivery again, at once and with all its tries.
    pub async fn redeliver(&self, id: DeliveryId) -> Result<Delivery> {
        let this = self.clone();
        self.0
            .db
            .write(move |tx| {
                let (delivery, _) = store::find(tx, id)?.ok_or_else(|| missing(id))?;
                if !this.0.settings.webhook(tx)?.is_active(&delivery.url) {
                    return Err(Code::Conflict.because("Its URL is not told anything any more: set it again first."));
                }
                store::begin_again(tx, delivery.seq)?;
                tx.wake(&this.0.owed);
                store::find(tx, id)?.map(|(delivery, _)| delivery).ok_or_else(|| missing(id))
            })
            .await
    }

    pub async fn counts(&self) -> Result<Counts> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        Ok(Counts {
            waiting: self.0.db.read(store::waiting).await?,
            delivered: count(&counters.delivered),
            failed: count(&counters.failed),
            given_up: count(&counters.given_up),
        })
    }

    /// Owes an entry of the journal to everybody who wants it, in their words.
    fn owe_entry(&self, tx: &Tx, webhook: &Webhook, entry: &Entry) -> Result<()> {
        if webhook.events.wants(&entry.event) && webhook.active_in(Dialect::FileSpin).next().is_some() {
            let body = news::body(tx, entry)?;
            self.owe(tx, webhook, Dialect::FileSpin, Some(entry.asset_id), &entry.event, &body, 0)?;
        }
        if webhook.active_in(Dialect::Prepr).next().is_none() {
            return Ok(());
        }
        let Some(event) = prepr::event(tx, entry)?.filter(|event| webhook.prepr_events.wants(event)) else {
            return Ok(());
        };
        let body = prepr::body(tx, entry, event, &self.0.public_url)?;
        self.owe(tx, webhook, Dialect::Prepr, Some(entry.asset_id), event, &body, 0).map(drop)
    }

    /// Writes a notice down and owes it to every URL, as if so many tries had been made already.
    #[expect(clippy::too_many_arguments, reason = "a notice has that many sides")]
    fn owe(
        &self,
        tx: &Tx,
        webhook: &Webhook,
        dialect: Dialect,
        asset_id: Option<crate::assets::AssetId>,
        event: &str,
        body: &impl Serialize,
        tries: u32,
    ) -> Result<Vec<DeliveryId>> {
        if webhook.active_in(dialect).next().is_none() {
            return Ok(Vec::new());
        }
        let text = serde_json::to_string(body).map_err(|e| Code::Internal.from("writing down a callback", e))?;
        let notice = store::add_notice(tx, asset_id, event, &text)?;
        tx.wake(&self.0.owed);
        webhook.active_in(dialect).map(|url| store::add_delivery(tx, notice, event, url, tries)).collect()
    }

    fn sealed_secret(&self) -> Result<SealedSecret> {
        let sealed = STANDARD.encode(self.0.master.seal(&signing::new_secret()?)?);
        Ok(SealedSecret { sealed, expires_at: None })
    }

    fn in_force(&self, webhook: &Webhook, now: Instant) -> Result<Vec<(String, Option<Instant>)>> {
        let broken = |e| Code::Internal.from("a sealed signing secret is not Base64", e);
        let in_force = webhook.secrets.iter().filter(|secret| secret.expires_at.is_none_or(|at| at > now));
        in_force
            .map(|secret| {
                let sealed = STANDARD.decode(&secret.sealed).map_err(broken)?;
                Ok((self.0.master.open(&sealed)?, secret.expires_at))
            })
            .collect()
    }

    /// Drops what waits for URLs that are told nothing any more, whenever there may be some.
    async fn drop_unwanted(self) {
        let mut stopping = self.0.stopping.subscribe();
        while !*stopping.borrow_and_update() {
            let mut told = pin!(self.0.unwanted.notified());
            told.as_mut().enable();
            let dropped = self.drop_all_unwanted().await;
            if let Err(error) = &dropped {
                tracing::error!(%error, "callbacks that nobody wants could not be dropped");
            }
            tokio::select! {
                () = told => {}
                () = tokio::time::sleep(DROP_AGAIN), if dropped.is_err() => {}
                _ = stopping.changed() => {}
            }
        }
    }

    async fn drop_all_unwanted(&self) -> Result<()> {
        for url in self.0.db.read(store::waited_for).await? {
            self.drop_waiting(&url).await?;
        }
        Ok(())
    }

    /// Drops what waits for a URL, for as long as it is told nothing.
    async fn drop_waiting(&self, url: &str) -> Result<()> {
        loop {
            let (this, url) = (self.clone(), url.to_owned());
            let page = self.0.db.write_relaxed(move |tx| {
                if this.0.settings.webhook(tx)?.is_active(&url) { Ok(0) } else { store::drop_waiting(tx, &url, PAGE) }
            });
            if page.await? < PAGE as usize {
                return Ok(());
            }
        }
    }

    /// Forgets all deliveries that ended before this instant, a page at a time.
    async fn forget_ended(&self, before: Instant) -> Result<()> {
        while self.0.db.write_relaxed(move |tx| store::prune(tx, before, PAGE)).await? == PAGE as usize {}
        Ok(())
    }

    /// Forgets old deliveries, now and then.
    async fn tidy_up(self) {
        let mut stopping = self.0.stopping.subscribe();
        let now = || (Moment::now(), self.0.db.clock().now());
        let mut seen = now();
        while !*stopping.borrow_and_update() {
            if seen.0.elapsed() >= PRUNE_EVERY {
                let keep = Duration::from_hours(24 * self.0.config.keep_days);
                let before = seen.1.min(now().1).minus(keep);
                match self.forget_ended(before).await {
                    Ok(()) => seen = now(),
                    Err(error) => tracing::error!(%error, "old deliveries could not be forgotten"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_mins(1)) => {}
                _ = stopping.changed() => {}
            }
        }
    }
}

fn missing(id: DeliveryId) -> crate::error::Error {
    Code::CallbackNotFound.because(format!("no callback {id}"))
}

#[cfg(test)]
mod tests;
