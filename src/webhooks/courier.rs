//! Lanes: each URL is served by a task of its own.
//!
//! A lane looks for what is due, sends up to [`Config::max_connections`](super::Config) of it at
//! a time, and sleeps until the next is due or somebody wakes it. Connections are kept between
//! requests, and there are never more than that. A receiver that hangs holds up its own lane and
//! nothing else.
//!
//! What befell one asset is sent in order: a delivery waits while an earlier one about the same
//! asset is on its way to the same URL. It does not wait for one that failed.
//!
//! What came of an attempt is written without a flush: forgotten in a power cut, the delivery is
//! sent once more.

use std::collections::HashMap;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant as Moment;

use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinSet;

use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::support::clock::Instant;
use crate::support::fetch::Answer;
use crate::support::fetch::Ask;
use crate::support::fetch::Line;
use crate::support::id;
use crate::webhooks::Webhooks;
use crate::webhooks::model;
use crate::webhooks::model::Attempt;
use crate::webhooks::model::Due;
use crate::webhooks::model::State;
use crate::webhooks::model::Verdict;
use crate::webhooks::signing;
use crate::webhooks::store;

/// Longest sleep of an idle lane: how late a delivery can be after the clock jumped.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// How long a connection is kept for the next delivery.
const LINE_IDLE: Duration = Duration::from_secs(5);

/// Of this, resolving a name, connecting and shaking hands.
const CONNECT: Duration = Duration::from_secs(5);

/// How much of an answer is kept.
const ANSWER_BYTES: usize = 1024;

/// How long the rest of an answer is waited for when its status is known.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How many due deliveries are read at once, beyond those under way.
const AHEAD: usize = 32;

/// What one attempt brought.
struct Outcome {
    status: Option<u16>,
    error: Option<String>,
    answer: String,
    /// How long the receiver asks us to wait.
    asked: Option<Duration>,
    /// The connection, if it can be used again.
    line: Option<Line>,
}

impl Webhooks {
    /// Opens a lane for every URL that has none.
    pub(super) async fn open_lanes(self) {
        let mut stopping = self.0.stopping.subscribe();
        let mut open = JoinSet::new();
        while !*stopping.borrow_and_update() {
            let mut woken = pin!(self.0.owed.notified());
            woken.as_mut().enable();
            for url in self.0.settings.now().webhook.active() {
                if let Some(lane) = Lane::enter(&self, url) {
                    open.spawn(lane.serve());
                }
            }
            tokio::select! {
                () = woken => {}
                Some(_) = open.join_next() => {}
                _ = stopping.changed() => {}
            }
        }
        while open.join_next().await.is_some() {}
    }
}

/// The service of one URL; there is one for each at most.
struct Lane {
    webhooks: Webhooks,
    url: String,
}

impl Lane {
    fn enter(webhooks: &Webhooks, url: &str) -> Option<Lane> {
        let mut lanes = webhooks.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.insert(url.to_owned()).then(|| Lane { webhooks: webhooks.clone(), url: url.to_owned() })
    }

    /// Until the URL is told nothing any more, or the box stops.
    async fn serve(self) {
        let room = &self.webhooks.0;
        let mut stopping = room.stopping.subscribe();
        let most = room.config.max_connections.max(1);
        let mut sending = JoinSet::new();
        let mut under_way: HashMap<i64, Option<AssetId>> = HashMap::new();
        let mut ahead: Vec<Due> = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        while !*stopping.borrow_and_update() && room.settings.now().webhook.is_active(&self.url) {
            let mut woken = pin!(room.owed.notified());
            woken.as_mut().enable();
            let mut idle = LONGEST_IDLE;
            while sending.len() < most {
                let busy: HashSet<_> = under_way.values().flatten().copied().collect();
                if !ahead.iter().any(|due| is_free(due, &busy)) {
                    match self.look(&under_way).await {
                        Ok((due, next)) => (ahead, idle) = (due, next),
                        Err(error) => {
                            tracing::error!(%error, "due callbacks could not be read");
                            idle = Duration::from_secs(1);
                        }
                    }
                }
                let Some(at) = ahead.iter().position(|due| is_free(due, &busy)) else { break };
                let due = ahead.remove(at);
                under_way.insert(due.seq, due.asset_id);
                let (webhooks, url, line) = (self.webhooks.clone(), self.url.clone(), lines.pop());
                sending.spawn(async move { (due.seq, webhooks.attempt(&url, &due, line).await) });
            }
            tokio::select! {
                Some(done) = sending.join_next() => match done {
                    Ok((seq, line)) => {
                        under_way.remove(&seq);
                        lines.extend(line);
                    }
                    Err(error) => {
                        tracing::error!(%error, "sending a callback broke off");
                        // Which one it was is not known: all are looked at again when they have come back.
                        while let Some(done) = sending.join_next().await {
                            lines.extend(done.ok().and_then(|(_, line)| line));
                        }
                        under_way.clear();
                    }
                },
                () = woken => {}
                () = tokio::time::sleep(idle.min(if lines.is_empty() { idle } else { LINE_IDLE })) => {
                    if sending.is_empty() {
                        lines.clear();
                    }
                }
                _ = stopping.changed() => {}
            }
        }
        while sending.join_next().await.is_some() {}
    }

    /// What is due and not under way, and how long until more is.
    async fn look(&self, under_way: &HashMap<i64, Option<AssetId>>) -> Result<(Vec<Due>, Duration)> {
        let room = &self.webhooks.0;
        let (url, now, limit) = (self.url.clone(), room.db.clock().now(), AHEAD + under_way.len());
        let outlook = room.db.read(move |c| store::outlook(c, &url, now, limit)).await?;
        let longest = model::longest_wait(&room.schedule);
        if outlook.last_at.is_some_and(|last| last > now.plus(longest)) {
            let url = self.url.clone();
            room.db.write_relaxed(move |tx| store::pull_forward(tx, &url, longest)).await?;
        }
        let due = outlook.due.into_iter().filter(|due| !under_way.contains_key(&due.seq)).collect();
        Ok((due, outlook.next_at.map_or(LONGEST_IDLE, |next| next.since(now).min(LONGEST_IDLE))))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.webhooks.0.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.url);
    }
}

fn is_free(due: &Due, busy: &HashSet<AssetId>) -> bool {
    due.asset_id.is_none_or(|id| !busy.contains(&id))
}

impl Webhooks {
    /// Sends a delivery once and records what came of it; the connection, if it can be used again.
    async fn attempt(&self, url: &str, due: &Due, line: Option<Line>) -> Option<Line> {
        let at = self.0.db.clock().now();
        let begun = Moment::now();
        let longest = Duration::from_secs(self.0.config.timeout_seconds);
        let outcome = match tokio::time::timeout(longest, self.send(url, due, at, line)).await {
            Ok(Ok((line, answer))) => Outcome::of(line, answer, at).await,
            Ok(Err(error)) => {
                tracing::info!(callback.id = %due.id, %error, "a callback reached nobody");
                Outcome::failed(told(&error))
            }
            Err(_) => Outcome::failed(format!("took longer than {} s", longest.as_secs())),
        };
        let attempt = Attempt {
            number: due.attempts + 1,
            at,
            duration: begun.elapsed(),
            status: outcome.status,
            error: outcome.error,
            answer: outcome.answer,
        };
        let scatter = id::random::<4>().map_or(0.5, |bytes| f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX));
        let verdict = model::judge(&self.0.schedule, due.tries, attempt.status, outcome.asked, scatter);
        self.count(due, &attempt, verdict);
        if let Err(error) = self.record(url.to_owned(), due.clone(), attempt, verdict).await {
            tracing::error!(%error, callback.id = %due.id, "what came of a callback could not be written down");
            // It is still owed, and must not be sent in a circle.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        outcome.line
    }

    async fn send(&self, url: &str, due: &Due, at: Instant, line: Option<Line>) -> Result<(Line, Answer)> {
        let url = self.0.fetch.check(url)?;
        let secrets: Vec<String> =
            self.in_force(&self.0.settings.now().webhook, at)?.into_iter().map(|(secret, _)| secret).collect();
        let id = due.id.to_string();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-signature", signing::signature(&secrets, &id, at, &due.body)?),
            ("webhook-timestamp", at.unix_seconds().to_string()),
            ("webhook-id", id),
        ];
        let ask = Ask { method: Method::POST, url: &url, headers, body: Bytes::from(due.body.clone()) };
        if let Some(answered) = on_kept(line, &ask).await {
            return Ok(answered);
        }
        let mut line = self.0.fetch.connect(&url, CONNECT).await?;
        let answer = line.send(&ask).await?;
        Ok((line, answer))
    }

    fn count(&self, due: &Due, attempt: &Attempt, verdict: Verdict) {
        let counters = &self.0.counters;
        if verdict == Verdict::Delivered {
            counters.delivered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counters.failed.fetch_add(1, Ordering::Relaxed);
        let why = attempt.error.as_deref().unwrap_or_default();
        // Without the URL: it often holds a secret. The log of callbacks has it.
        match verdict {
            Verdict::GivenUp => {
                counters.given_up.fetch_add(1, Ordering::Relaxed);
                tracing::error!(callback.id = %due.id, why, "a callback is given up");
            }
            Verdict::Gone => {
                tracing::warn!(callback.id = %due.id, "the URL wants no more callbacks and is disabled");
            }
            _ => tracing::info!(callback.id = %due.id, why, "a callback failed and will be repeated"),
        }
    }

    async fn record(&self, url: String, due: Due, attempt: Attempt, verdict: Verdict) -> Result<()> {
        let this = self.clone();
        let written = self.0.db.write_relaxed(move |tx| {
            let (state, next_at) = match verdict {
                Verdict::Delivered => (State::Delivered, tx.now()),
                Verdict::Again(wait) => (State::Waiting, tx.now().plus(wait)),
                Verdict::GivenUp | Verdict::Gone => (State::Failed, tx.now()),
            };
            store::record(tx, &due, &attempt, state, next_at)?;
            if verdict == Verdict::Gone {
                let now = tx.now();
                this.0.settings.edit(tx, |values| {
                    for receiver in values.webhook.receivers.iter_mut().filter(|receiver| receiver.url == url) {
                        receiver.disabled_at.get_or_insert(now);
                    }
                })?;
                tx.wake(&this.0.unwanted);
                tx.wake(&this.0.owed);
            }
            Ok(())
        });
        written.await
    }
}

impl Outcome {
    /// The status decides; the body is only kept to be looked at, as far as it comes at once.
    async fn of(line: Line, mut answer: Answer, now: Instant) -> Outcome {
        let status = answer.status;
        let error = match status {
            200..=202 => None,
            300..=399 => Some(format!("answered {status}; redirects are not followed")),
            410 => Some("answered 410: wants no more callbacks".to_owned()),
            _ => Some(format!("answered {status}")),
        };
        let asked = answer.header("retry-after").and_then(|text| wait_in(text, now));
        let read = tokio::time::timeout(ANSWER_PATIENCE, answer.beginning(ANSWER_BYTES)).await;
        let (read, whole) = read.unwrap_or(Ok((Vec::new(), false))).unwrap_or_default();
        let answer = String::from_utf8_lossy(&read).into_owned();
        Outcome { status: Some(status), error, answer, asked, line: whole.then_some(line) }
    }

    fn failed(error: String) -> Outcome {
        Outcome { status: None, error: Some(error), answer: String::new(), asked: None, line: None }
    }
}

/// The answer over a connection that was kept. The receiver may have closed it meanwhile: `None`.
async fn on_kept(line: Option<Line>, ask: &Ask<'_>) -> Option<(Line, Answer)> {
    let mut line = line?;
    if !line.is_ready().await {
        return None;
    }
    let answer = line.send(ask).await.ok()?;
    Some((line, answer))
}

/// An error for the log of attempts; what is ours stays ours, and why a server was not reached too.
fn told(error: &Error) -> String {
    match error.code {
        Code::Unreachable => error.detail.clone().into_owned(),
        Code::UrlNotAllowed | Code::InvalidRequest => error.to_string(),
        _ => error.public().to_owned(),
    }
}

/// `Retry-After`: seconds, or a date.
fn wait_in(text: &str, now: Instant) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Instant(at.as_millis() as i64).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_date() {
        let now = Instant::parse("1994-11-06T08:49:00Z").unwrap();
        for (text, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            assert_eq!(wait_in(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }
}
