//! Deliveries against receivers on the loopback, with a clock that is moved by hand.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::infra::jobs;
use crate::journal::Event;
use crate::support::clock::Clock;
use crate::support::fetch;

const ALL: Events = Events {
    file_saved: true,
    file_processed: true,
    file_data_updated: true,
    file_deleted: true,
    file_undeleted: true,
    addon_processed: true,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A room with what it works with.
struct House {
    webhooks: Webhooks,
    journal: Journal,
    jobs: Jobs,
    db: Db,
}

fn house() -> House {
    let db = Db::temporary(crate::app::SCHEMA, Clock::by_hand(Instant(1_700_000_000_000))).unwrap();
    housed(&db, &["127.0.0.0/8"])
}

/// The same after a restart.
fn housed(db: &Db, allow: &[&str]) -> House {
    let journal = Journal::new(db.clone());
    let jobs = Jobs::new(db.clone(), jobs::Config::default());
    let settings = std::thread::scope(|scope| {
        let (db, handle) = (db.clone(), db.handle().clone());
        scope.spawn(move || handle.block_on(Settings::open(db.clone(), Assets::new(db))).unwrap()).join().unwrap()
    });
    let allow = allow.iter().map(|network| (*network).to_owned()).collect();
    let webhooks = Webhooks::new(
        Config {
            max_urls: 3,
            schedule_seconds: vec![60, 300, 900, 1800, 3600, 7200, 14400],
            timeout_seconds: 15,
            max_connections: 4,
            keep_days: 14,
        },
        db.clone(),
        jobs.clone(),
        journal.clone(),
        settings,
        Fetch::new(&fetch::Config { allow, ..fetch::Config::default() }).unwrap(),
        MasterKey::derive(&[7; 32]).unwrap(),
        String::new(),
    );
    jobs.register::<ReissueCallbacks>(Arc::new(webhooks.clone()));
    webhooks.start();
    House { webhooks, journal, jobs, db: db.clone() }
}

impl House {
    async fn tell(&self, id: AssetId, event: Event, detail: Value) {
        let journal = self.journal.clone();
        self.db.write(move |tx| journal.tell(tx, id, event, &detail)).await.unwrap();
    }

    /// Moves the clock, and has everybody look at it.
    fn pass(&self, time: Duration) {
        self.db.clock().advance(time);
        self.webhooks.0.owed.notify_waiters();
    }

    /// Waits until the log is as wanted.
    async fn until(&self, wanted: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        let look = async {
            loop {
                let found = self.webhooks.list(Filter::default(), 500).await.unwrap();
                if wanted(&found) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), look).await.expect("the log is as wanted")
    }
}

/// What came to a receiver.
struct Came {
    head: String,
    body: String,
}

impl Came {
    fn header(&self, name: &str) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver that answers what it was told to, and then 200.
struct Ear {
    url: String,
    came: mpsc::UnboundedReceiver<Came>,
    open: Arc<AtomicUsize>,
}

impl Ear {
    async fn new(answers: &[&'static str]) -> Ear {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let (heard, came) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let count = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(listen(socket, heard.clone(), Arc::clone(&answers)));
            }
        });
        Ear { url, came, open }
    }

    async fn next(&mut self) -> Came {
        tokio::time::timeout(Duration::from_secs(30), self.came.recv()).await.expect("a callback").unwrap()
    }
}

async fn listen(
    mut socket: TcpStream,
    heard: mpsc::UnboundedSender<Came>,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
) {
    let mut read = Vec::new();
    loop {
        let came = loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let came = Came { head: head.to_ascii_lowercase(), body: body.to_owned() };
                if came.header("content-length") == body.len().to_string() {
                    break came;
                }
            }
            if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        read.clear();
        let _ = heard.send(came);
        let answer = answers.lock().unwrap().pop_front().unwrap_or(OK);
        if answer == "hang" {
            std::future::pending::<()>().await;
        }
        let _ = socket.write_all(answer.as_bytes()).await;
    }
}

fn asset() -> AssetId {
    AssetId::random().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_in_the_words_of_the_contract_and_signed() {
    let house = house();
    let mut ear = Ear::new(&[]).await;
    let id = asset();
    house.tell(id, Event::FileSaved, json!({})).await;
    house.webhooks.configure(vec![ear.url.clone()], Events { file_saved: false, ..ALL }).await.unwrap();
    house.tell(id, Event::FileSaved, json!({})).await;
    house.tell(id, Event::FileDeleted, json!({"keys": ["original"]})).await;
    let came = ear.next().await;
    assert_eq!(
        came.json(),
        json!({"event": "file-deleted", "id": id.to_string(), "keys": ["original"], "status": "OK", "message": "",
               "statusMsg": ""})
    );
    assert_eq!(came.header("content-type"), "application/json");
    let listed = house.until(|log| log.iter().all(|d| d.state == State::Delivered)).await;
    assert_eq!(listed.len(), 1, "nothing from before, and nothing that is not wanted");
    assert_eq!(came.header("webhook-id"), listed[0].id.to_string());
    let secret = house.webhooks.secrets().unwrap().remove(0).0;
    let expected = |secrets: &[String], came: &Came| {
        let at = Instant(came.header("webhook-timestamp").parse::<i64>().unwrap() * 1000);
        signing::signature(secrets, &came.header("webhook-id"), at, &came.body).unwrap().to_ascii_lowercase()
    };
    assert_eq!(came.header("webhook-signature"), expected(std::slice::from_ref(&secret), &came));

    // The old secret signs until it ends.
    let two = house.webhooks.rotate_secret(Duration::from_hours(1)).await.unwrap();
    assert_eq!((two.len(), &two[1].0), (2, &secret));
    house.tell(id, Event::FileUndeleted, json!({"keys": ["original"]})).await;
    let came = ear.next().await;
    assert_eq!(came.header("webhook-signature"), expected(&[two[0].0.clone(), secret], &came));
    house.db.clock().advance(Duration::from_hours(1));
    house.tell(id, Event::FileDeleted, json!({"keys": ["x"]})).await;
    let came = ear.next().await;
    assert_eq!(came.header("webhook-signature"), expected(&[two[0].0.clone()], &came));
    assert_eq!(ear.open.load(Ordering::SeqCst), 1, "one connection for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_attempts_in_eight_hours_with_one_id_and_the_same_bytes() {
    let house = house();
    let mut ear = Ear::new(&["HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"; 8]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    house.tell(asset(), Event::FileSaved, json!({})).await;
    let first = ear.next().await;
    let mut at = house.db.clock().now();
    for (n, wait) in [60, 300, 900, 1800, 3600, 7200, 14400].into_iter().enumerate() {
        let log = house.until(|log| log[0].attempts as usize == n + 1).await;
        assert_eq!(log[0].state, State::Waiting);
        let next = log[0].next_at.unwrap().since(at).as_secs_f64();
        assert!((0.9..=1.1).contains(&(next / f64::from(wait))), "attempt {}: {next} s instead of {wait}", n + 2);
        house.pass(Duration::from_secs_f64(next + 0.001));
        at = house.db.clock().now();
        let came = ear.next().await;
        assert_eq!((came.header("webhook-id"), &came.body), (first.header("webhook-id"), &first.body));
    }
    let log = house.until(|log| log[0].state != State::Waiting).await;
    assert_eq!((log[0].state, log[0].attempts), (State::Failed, 8));
    let (_, body, attempts) = house.webhooks.find(log[0].id).await.unwrap();
    assert_eq!((body, attempts.len()), (first.body.clone(), 8));
    let last = &attempts[7];
    let error = last.error.as_deref().unwrap();
    assert_eq!((last.number, last.status, error, &*last.answer), (8, Some(500), "answered 500", "oops"));
    house.pass(Duration::from_hours(48));

    // Never a ninth, unless somebody asks for it.
    house.webhooks.redeliver(log[0].id).await.unwrap();
    let again = ear.next().await;
    assert_eq!((again.header("webhook-id"), &again.body), (first.header("webhook-id"), &first.body));
    let log = house.until(|log| log[0].state == State::Delivered).await;
    assert_eq!(log[0].attempts, 9);
    assert!(ear.came.try_recv().is_err());
    let counts = house.webhooks.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.delivered, counts.failed, counts.given_up), (0, 1, 8, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_may_ask_for_time_and_redirects_are_not_followed() {
    let house = house();
    let trap = Ear::new(&[]).await;
    let later = "HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n";
    let away = format!("HTTP/1.1 307 There\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", trap.url);
    let mut ear = Ear::new(&[later, away.leak()]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    house.tell(asset(), Event::FileSaved, json!({})).await;
    ear.next().await;
    let log = house.until(|log| log[0].attempts == 1).await;
    assert_eq!(log[0].next_at.unwrap().since(house.db.clock().now()), Duration::from_hours(1));
    house.pass(Duration::from_hours(1));
    ear.next().await;
    let log = house.until(|log| log[0].attempts == 2).await;
    assert!(log[0].last.as_ref().unwrap().error.as_ref().unwrap().contains("not followed"));
    assert_eq!(trap.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_410_is_told_nothing_until_chosen_again() {
    let house = house();
    let mut gone = Ear::new(&["HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"]).await;
    let mut other = Ear::new(&[]).await;
    let urls = vec![gone.url.clone(), other.url.clone()];
    house.webhooks.configure(urls.clone(), ALL).await.unwrap();
    house.tell(asset(), Event::FileSaved, json!({})).await;
    gone.next().await;
    other.next().await;
    let settings = &house.webhooks.0.settings;
    house.until(|log| log.iter().all(|d| d.state != State::Waiting)).await;
    // A write that comes later is answered when those before it hold in memory, too.
    house.db.write(|_| Ok(())).await.unwrap();
    assert_eq!(settings.now().webhook.active().collect::<Vec<_>>(), [&*other.url]);
    house.tell(asset(), Event::FileSaved, json!({})).await;
    other.next().await;
    let log = house.until(|log| log.iter().all(|d| d.state != State::Waiting)).await;
    assert_eq!(log.len(), 3);
    let failed = log.iter().find(|d| d.state == State::Failed).unwrap();
    assert_eq!(house.webhooks.redeliver(failed.id).await.unwrap_err().code, Code::Conflict);
    house.webhooks.configure(urls, ALL).await.unwrap();
    house.webhooks.redeliver(failed.id).await.unwrap();
    gone.next().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let house = house();
    let hanging = Ear::new(&["hang"; 100]).await;
    let mut quick = Ear::new(&[]).await;
    house.webhooks.configure(vec![hanging.url.clone(), quick.url.clone()], ALL).await.unwrap();
    for _ in 0..40 {
        house.tell(asset(), Event::FileSaved, json!({})).await;
    }
    for _ in 0..40 {
        quick.next().await;
    }
    assert!(hanging.open.load(Ordering::SeqCst) <= 4, "more than four connections");
    assert!(quick.open.load(Ordering::SeqCst) <= 4, "more than four connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_befell_one_asset_is_told_in_order() {
    let house = house();
    let mut ear = Ear::new(&[]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    let id = asset();
    let journal = house.journal.clone();
    let tell = move |tx: &Tx| {
        (0..30).try_for_each(|n| journal.tell(tx, id, Event::FileDeleted, &json!({ "keys": [n.to_string()] })))
    };
    house.db.write(tell).await.unwrap();
    for n in 0..30 {
        assert_eq!(ear.next().await.json()["keys"], json!([n.to_string()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_survives_a_restart_and_is_owed_once() {
    let first = house();
    let mut ear = Ear::new(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]).await;
    first.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    first.tell(asset(), Event::FileSaved, json!({})).await;
    let came = ear.next().await;
    first.until(|log| log[0].attempts == 1).await;
    first.webhooks.stop(Duration::from_secs(5)).await;
    first.tell(asset(), Event::FileProcessed, json!({})).await;
    let second = housed(&first.db, &["127.0.0.0/8"]);
    assert_eq!(ear.next().await.json()["event"], "file-processed", "what was told in between");
    second.pass(Duration::from_mins(2));
    assert_eq!(ear.next().await.header("webhook-id"), came.header("webhook-id"));
    let log = second.until(|log| log.iter().all(|d| d.state == State::Delivered)).await;
    assert_eq!(log.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_stalls_nothing() {
    let house = house();
    let mut ear = Ear::new(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"; 2]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    house.tell(asset(), Event::FileSaved, json!({})).await;
    ear.next().await;
    house.until(|log| log[0].attempts == 1).await;
    house.pass(Duration::from_hours(24 * 400));
    ear.next().await;
    let log = house.until(|log| log[0].attempts == 2).await;
    // Set back: the next attempt lies 400 days ahead by the right clock, and comes all the same.
    let url = ear.url.clone();
    let far = log[0].next_at.unwrap();
    let before = Instant(1_700_000_000_000);
    let db = Db::clone(&house.db);
    let pulled = db.write(move |tx| {
        assert_eq!(store::outlook(tx, &url, before, 9)?.last_at, Some(far));
        let ahead = tx.now().since(before);
        tx.execute("UPDATE delivery SET next_at = next_at + ?1", [ahead.as_millis() as i64])?;
        store::pull_forward(tx, &url, model::longest_wait(&[Duration::from_hours(4)]))
    });
    assert_eq!(pulled.await.unwrap(), 1);
    house.pass(Duration::ZERO);
    ear.next().await;
    house.until(|log| log[0].state == State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_refused_when_chosen_and_when_called() {
    let house = house();
    let trap = Ear::new(&[]).await;
    for (url, code) in [
        ("http://10.0.0.1/", Code::UrlNotAllowed),
        ("http://[::1]/", Code::UrlNotAllowed),
        ("ftp://example.org/", Code::UrlNotAllowed),
        ("example.org", Code::InvalidRequest),
        ("https://a.example/,b", Code::InvalidRequest),
    ] {
        let refused = house.webhooks.configure(vec![url.to_owned()], ALL).await.unwrap_err();
        assert_eq!(refused.code, code, "{url}");
        assert!(refused.detail.contains("web_urls"), "{refused}");
    }
    let four = (0..4).map(|n| format!("https://{n}.example/")).collect();
    assert_eq!(house.webhooks.configure(four, ALL).await.unwrap_err().code, Code::InvalidRequest);
    house.webhooks.configure(vec![trap.url.clone()], ALL).await.unwrap();
    house.webhooks.stop(Duration::from_secs(5)).await;
    // The operator took the network back.
    let strict = housed(&house.db, &[]);
    strict.tell(asset(), Event::FileSaved, json!({})).await;
    let log = strict.until(|log| !log.is_empty() && log[0].attempts == 1).await;
    assert!(log[0].last.as_ref().unwrap().error.as_ref().unwrap().contains("URL_NOT_ALLOWED"));
    assert_eq!(trap.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_once_and_old_news_are_sent_again() {
    let house = house();
    assert_eq!(house.webhooks.test().await.unwrap_err().code, Code::InvalidRequest);
    let mut ear = Ear::new(&["HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    let ids = house.webhooks.test().await.unwrap();
    assert_eq!(ear.next().await.json()["event"], "test");
    let log = house.until(|log| log[0].state == State::Failed).await;
    assert_eq!((log[0].id, log[0].attempts), (ids[0], 1));

    // Sixty assets are more than a page; the first and the last lie outside.
    let at = house.db.clock().now();
    let journal = house.journal.clone();
    let arrive = move |tx: &Tx| {
        (0..62).try_for_each(|n| {
            let id = asset();
            tx.execute(
                "INSERT INTO asset (id, status, name, size_bytes, md5, sha256, content_type, creator_id, updater_id,
                                    uploaded_at, updated_at)
                 VALUES (?1, 'OK', 'a', 1, '', '', 'image/jpeg', 1, 1, ?2, 0)",
                // In the middle of a second, of which a span has whole ones.
                (id, at.plus(Duration::from_millis(1000 * n + 500))),
            )?;
            journal.tell(tx, id, Event::FileSaved, &json!({}))?;
            journal.tell(tx, id, Event::FileProcessed, &json!({}))?;
            journal.tell(tx, id, Event::FileProcessed, &json!({}))
        })
    };
    house.db.write(arrive).await.unwrap();
    for _ in 0..62 * 3 {
        ear.next().await;
    }
    let (from, to) = (at.plus(Duration::from_secs(1)), at.plus(Duration::from_mins(1)));
    house.webhooks.reissue(from, to).await.unwrap();
    assert_eq!(house.jobs.run_due_until_quiet().await.unwrap(), 2, "two pages");
    let mut saved = 0;
    for _ in 0..60 * 2 {
        let told = ear.next().await.json();
        assert_eq!(told["status"], "OK", "all data of the asset: {told}");
        saved += usize::from(told["event"] == "file-saved");
    }
    assert_eq!(saved, 60, "the last of each event");
    assert!(ear.came.try_recv().is_err());
    for (from, to) in [(to, from), (from, from.plus(Duration::from_hours(7 * 24 + 1)))] {
        assert_eq!(house.webhooks.reissue(from, to).await.unwrap_err().code, Code::InvalidRequest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_deliveries_are_forgotten_with_all_that_is_theirs() {
    let house = house();
    let mut ear = Ear::new(&[]).await;
    house.webhooks.configure(vec![ear.url.clone()], ALL).await.unwrap();
    house.tell(asset(), Event::FileSaved, json!({})).await;
    ear.next().await;
    house.until(|log| log[0].state == State::Delivered).await;
    let now = house.db.clock().now();
    let prune = |before: Instant| house.db.write(move |tx| store::prune(tx, before, 9));
    assert_eq!(prune(now).await.unwrap(), 0);
    assert_eq!(prune(now.plus(Duration::from_millis(1))).await.unwrap(), 1);
    let left = house.db.read(|c| {
        let count = |table: &str| c.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0));
        Ok([count("notice")?, count("delivery")?, count("attempt")?])
    });
    assert_eq!(left.await.unwrap(), [0, 0, 0]);
}

/// Owes a URL so much, as if it had been chosen.
async fn owe(house: &House, url: &str, count: usize, event: &'static str) {
    let url = url.to_owned();
    let owing = house.db.write(move |tx| {
        (0..count).try_for_each(|_| {
            let notice = store::add_notice(tx, None, event, "{}")?;
            store::add_delivery(tx, notice, event, &url, 0).map(drop)
        })
    });
    owing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_old_is_forgotten_at_once() {
    let house = house();
    owe(&house, "http://127.0.0.1:1/", 1200, "test").await;
    let ended = house.db.write(|tx| Ok(tx.execute("UPDATE delivery SET state = 'FAILED', finished_at = 5", [])?));
    assert_eq!(ended.await.unwrap(), 1200);
    house.webhooks.forget_ended(Instant(5)).await.unwrap();
    assert_eq!(house.webhooks.list(Filter::default(), 2000).await.unwrap().len(), 1200);
    house.webhooks.forget_ended(Instant(6)).await.unwrap();
    assert!(house.webhooks.list(Filter::default(), 2000).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_is_dropped_and_not_sent_when_somebody_is_back() {
    let house = house();
    let hanging = Ear::new(&["hang"; 100]).await;
    let mut other = Ear::new(&[]).await;
    let both = vec![hanging.url.clone(), other.url.clone()];
    house.webhooks.configure(both.clone(), ALL).await.unwrap();
    owe(&house, &hanging.url, 1200, "test").await;
    let waiting = || async { house.webhooks.counts().await.unwrap().waiting };
    assert_eq!(waiting().await, 1200);
    house.webhooks.configure(vec![other.url.clone()], ALL).await.unwrap();
    house.webhooks.configure(both, ALL).await.unwrap();
    assert_eq!(waiting().await, 0, "a URL that is back begins with nothing");
    owe(&house, &other.url, 1, "test").await;
    house.webhooks.0.owed.notify_waiters();
    other.next().await;

    // Taken out just before the process ended.
    house.webhooks.stop(Duration::ZERO).await;
    owe(&house, "http://127.0.0.1:1/gone", 1200, "test").await;
    let again = housed(&house.db, &["127.0.0.0/8"]);
    again.until(|log| log.iter().all(|d| d.state != State::Waiting)).await;
    let dropped = Filter { state: Some(State::Dropped), ..Filter::default() };
    assert_eq!(again.webhooks.list(dropped, 5000).await.unwrap().len(), 2400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_walked_by_what_is_asked_for() {
    let house = house();
    owe(&house, "http://127.0.0.1:1/", 3, "test").await;
    owe(&house, "http://127.0.0.1:2/", 2, "file-saved").await;
    let asks = |event: Option<&str>, url: Option<&str>| Filter {
        event: event.map(str::to_owned),
        url: url.map(str::to_owned),
        ..Filter::default()
    };
    for (filter, found, index) in [
        (asks(Some("file-saved"), None), 2, "delivery_event (event=? AND seq<?)"),
        (asks(None, Some("http://127.0.0.1:1/")), 3, "delivery_url (url=? AND seq<?)"),
        (Filter { state: Some(State::Waiting), ..asks(None, None) }, 0, "delivery_state (state=? AND seq<?)"),
    ] {
        let listed = house.webhooks.list(filter.clone(), 9).await.unwrap();
        assert!(found == 0 || listed.len() == found, "{filter:?}: {listed:?}");
        let plan = house.db.read(move |c| {
            let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {}", store::listing(&filter).0))?;
            let (mut rows, mut steps) = (plan.raw_query(), Vec::new());
            while let Some(row) = rows.next()? {
                steps.push(row.get::<_, String>(3)?);
            }
            Ok(steps.join("; "))
        });
        let plan = plan.await.unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
