//! What happened, for those who ask: page by page from a cursor, or as it comes.
//!
//! In: the journal. Out: its lines with what is known of their assets, in the words of the
//! contract; the same words that webhooks send.
//!
//! Listening is a look at the journal, again and again. One task ([`News::start`]) does it for
//! all who listen: it looks once for every commit and hands the lines to each. A [`Listener`]
//! reads what it has missed from the journal itself, so one that comes back with the number of
//! the last line it saw loses nothing.
//!
//! Invariant: a listener gets every line once, in order, or is ended. One that does not keep up
//! is ended: what waits for it is bounded, and it can come back.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::broadcast;
use tokio::sync::watch;

use crate::assets;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::journal;
use crate::journal::Entry;
use crate::journal::Journal;
use crate::wire::filespin::callbacks::CallbackBody;
use crate::wire::filespin::callbacks::ChangeData;

/// Lines read at once.
const PAGE: u32 = 100;

/// Rounds of lines that wait for a listener who reads slowly, before it is ended.
const BUFFERED: usize = 64;

/// Listeners at once: each holds a connection.
const MOST_LISTENERS: usize = 200;

/// How late a line can be if a wake-up was lost.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// Tells what happened; cheap to clone.
#[derive(Clone)]
pub struct News {
    db: Db,
    journal: Journal,
    rounds: broadcast::Sender<Arc<Round>>,
    seats: Arc<Semaphore>,
    over: Arc<watch::Sender<bool>>,
}

/// A line, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub seq: i64,
    pub event: String,
    /// JSON.
    pub text: String,
}

/// The lines after `from`, as far as they were read together.
struct Round {
    from: i64,
    lines: Vec<Arc<Line>>,
}

impl News {
    pub fn new(db: Db, journal: Journal) -> News {
        News {
            db,
            journal,
            rounds: broadcast::Sender::new(BUFFERED),
            seats: Arc::new(Semaphore::new(MOST_LISTENERS)),
            over: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Begins to look at the journal for those who listen.
    pub fn start(&self) {
        self.db.handle().spawn(self.clone().look());
    }

    /// Ends all listeners, so that a server that stops need not wait for them.
    pub fn hang_up(&self) {
        self.over.send_replace(true);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        MOST_LISTENERS - self.seats.available_permits()
    }

    /// Up to `limit` lines after the cursor, oldest first, and the number of the newest there is.
    pub async fn after(&self, seq: i64, limit: u32) -> Result<(Vec<ChangeData>, i64)> {
        self.db.read(move |c| Ok((changes(c, seq, limit)?, journal::store::latest(c)?))).await
    }

    /// Listens, from after this line on; from now on when there is none.
    pub async fn listen(&self, after: Option<i64>) -> Result<Listener> {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let seat = seat.map_err(|_| Code::Busy.because("too many listen already"))?;
        let rounds = self.rounds.subscribe();
        let latest = self.journal.latest().await?;
        // A number from the future is that of another life of this box.
        let last = after.unwrap_or(latest).min(latest);
        Ok(Listener {
            news: self.clone(),
            last,
            behind: last < latest,
            waiting: VecDeque::new(),
            rounds,
            over: self.over.subscribe(),
            _seat: seat,
        })
    }

    async fn look(self) {
        let changed = self.journal.changed();
        let mut over = self.over.subscribe();
        let mut cursor = None;
        while !*over.borrow_and_update() {
            let mut woken = pin!(changed.notified());
            woken.as_mut().enable();
            match self.look_once(cursor).await {
                Ok((next, more)) => {
                    cursor = next;
                    if more {
                        continue;
                    }
                }
                Err(error) => tracing::error!(%error, "the journal could not be read for those who listen"),
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(LONGEST_IDLE) => {}
                _ = over.changed() => {}
            }
        }
    }

    /// The next cursor, and whether there may be more. Without listeners nobody looks, and
    /// whoever comes then is told where the looking begins.
    async fn look_once(&self, cursor: Option<i64>) -> Result<(Option<i64>, bool)> {
        if self.rounds.receiver_count() == 0 {
            return Ok((None, false));
        }
        let Some(from) = cursor else {
            let latest = self.journal.latest().await?;
            let _ = self.rounds.send(Arc::new(Round { from: latest, lines: Vec::new() }));
            return Ok((Some(latest), true));
        };
        let changes = self.db.read(move |c| changes(c, from, PAGE)).await?;
        let Some(to) = changes.last().map(ChangeData::seq) else { return Ok((cursor, false)) };
        let lines = changes.iter().map(line).collect::<Result<_>>()?;
        // Fails when the last listener has just left.
        let _ = self.rounds.send(Arc::new(Round { from, lines }));
        Ok((Some(to), changes.len() == PAGE as usize))
    }
}

/// Somebody who hears what happens.
pub struct Listener {
    news: News,
    /// The last line that was handed out.
    last: i64,
    /// There are lines in the journal before those that come by themselves.
    behind: bool,
    waiting: VecDeque<Arc<Line>>,
    rounds: broadcast::Receiver<Arc<Round>>,
    over: watch::Receiver<bool>,
    _seat: OwnedSemaphorePermit,
}

impl Listener {
    /// The next line; `None` when the box stops or the listener did not keep up.
    ///
    /// May be dropped while it waits: nothing is lost by that.
    pub async fn next(&mut self) -> Option<Arc<Line>> {
        loop {
            if *self.over.borrow() {
                return None;
            }
            if let Some(line) = self.ready() {
                return Some(line);
            }
            if self.behind {
                self.catch_up().await.ok()?;
                continue;
            }
            tokio::select! {
                round = self.rounds.recv() => {
                    let round = round.ok()?;
                    let last = self.last;
                    if round.from > last {
                        self.behind = true;
                    } else {
                        self.waiting.extend(round.lines.iter().filter(|line| line.seq > last).cloned());
                    }
                }
                _ = self.over.changed() => return None,
            }
        }
    }

    /// The next line, if it is here already.
    pub fn ready(&mut self) -> Option<Arc<Line>> {
        let line = self.waiting.pop_front()?;
        self.last = line.seq;
        Some(line)
    }

    async fn catch_up(&mut self) -> Result<()> {
        let last = self.last;
        let missed = self.news.db.read(move |c| changes(c, last, PAGE)).await?;
        self.behind = missed.len() == PAGE as usize;
        self.waiting = missed.iter().map(line).collect::<Result<_>>()?;
        Ok(())
    }
}

/// What a callback about this entry says.
pub fn body(c: &Conn, entry: &Entry) -> Result<CallbackBody> {
    Ok(CallbackBody::new(entry, full(c, entry)?.as_ref()))
}

fn changes(c: &Conn, seq: i64, limit: u32) -> Result<Vec<ChangeData>> {
    let entries = journal::store::after(c, seq, limit)?;
    entries.iter().map(|entry| Ok(ChangeData::new(entry, full(c, entry)?.as_ref()))).collect()
}

fn full(c: &Conn, entry: &Entry) -> Result<Option<assets::Full>> {
    if !CallbackBody::is_whole(&entry.event) {
        return Ok(None);
    }
    match assets::full(c, entry.asset_id) {
        Ok(full) => Ok(Some(full)),
        Err(e) if e.code == Code::AssetNotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn line(change: &ChangeData) -> Result<Arc<Line>> {
    let text = serde_json::to_string(change).map_err(|e| Code::Internal.from("writing down what happened", e))?;
    Ok(Arc::new(Line { seq: change.seq(), event: change.event().to_owned(), text }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::assets::AssetId;
    use crate::journal::Event;
    use crate::support::clock::Clock;

    fn news() -> News {
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let news = News::new(db.clone(), Journal::new(db));
        news.start();
        news
    }

    async fn tell(news: &News, count: usize) {
        let journal = news.journal.clone();
        news.db
            .write(move |tx| {
                (0..count).try_for_each(|n| {
                    journal.tell(tx, AssetId::random()?, Event::FileDeleted, &json!({ "keys": [n.to_string()] }))
                })
            })
            .await
            .unwrap();
    }

    async fn next(listener: &mut Listener, count: i64) -> Vec<i64> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let line = tokio::time::timeout(Duration::from_secs(20), listener.next()).await.unwrap();
            seen.push(line.unwrap().seq);
        }
        seen
    }

    #[tokio::test]
    async fn a_listener_gets_every_line_once_from_where_it_was() {
        let news = news();
        tell(&news, 5).await;
        let mut now = news.listen(None).await.unwrap();
        let mut back = news.listen(Some(2)).await.unwrap();
        let mut future = news.listen(Some(99)).await.unwrap();
        tell(&news, 1).await;
        tell(&news, 250).await;
        assert_eq!(next(&mut now, 251).await, (6..=256).collect::<Vec<_>>());
        assert_eq!(next(&mut back, 254).await, (3..=256).collect::<Vec<_>>());
        assert_eq!(next(&mut future, 251).await, (6..=256).collect::<Vec<_>>());
        assert_eq!(news.listeners(), 3);
        drop((now, back));
        assert_eq!(news.listeners(), 1);
        news.hang_up();
        assert_eq!(future.next().await, None);
    }

    #[tokio::test]
    async fn who_does_not_keep_up_is_ended_and_can_come_back() {
        let news = news();
        let mut slow = news.listen(None).await.unwrap();
        tell(&news, 1).await;
        next(&mut slow, 1).await;
        let mut quick = news.listen(None).await.unwrap();
        for _ in 0..2 * BUFFERED as i64 {
            tell(&news, 1).await;
            next(&mut quick, 1).await;
        }
        assert_eq!(slow.next().await, None);
        let mut again = news.listen(Some(slow.last)).await.unwrap();
        assert_eq!(next(&mut again, 3).await, [2, 3, 4]);
    }

    #[tokio::test]
    async fn pages_follow_one_another() {
        let news = news();
        tell(&news, 7).await;
        let (page, latest) = news.after(0, 5).await.unwrap();
        assert_eq!((page.len(), latest), (5, 7));
        let (rest, _) = news.after(page.last().unwrap().seq(), 5).await.unwrap();
        assert_eq!(rest.iter().map(ChangeData::seq).collect::<Vec<_>>(), [6, 7]);
        assert!(news.after(i64::MAX, 5).await.unwrap().0.is_empty());
    }
}
