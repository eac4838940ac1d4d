//! What receivers and listeners are told: callbacks, their log, the feed and the changes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

use std::collections::VecDeque;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::PATIENCE;
use crate::harness::jpeg;

const UPDATE: &str = "/api/v1/user/settings/update";
/// Receivers on the loopback, and retries that a test can wait for.
const NEAR: [(&str, &str); 2] =
    [("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"), ("CLOAKROOM_WEBHOOKS__SCHEDULE_SECONDS", "1,1,1,1,1,1,1")];

fn webhook(app: &Appliance, urls: &Value) -> Answer {
    let events = json!({"file-saved": true, "file-processed": true, "file-data-updated": true, "file-deleted": true,
                        "file-undeleted": true, "addon-processed": true});
    let body = json!({"key": "webhook", "value": {"web_urls": urls, "callback_events": events}});
    app.call("PATCH", &format!("{UPDATE}?update_key=webhook"), &[AUTH], body.to_string().as_bytes())
}

/// A callback that came.
struct Came {
    head: Vec<String>,
    body: Value,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
    }
}

/// A receiver that gives these answers to what was saved, one each time, and then 200.
struct Receiver {
    url: String,
    came: mpsc::Receiver<Came>,
}

impl Receiver {
    fn answering(statuses: &[u16]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let statuses = Arc::new(Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>()));
        let (heard, came) = mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (heard, statuses) = (heard.clone(), Arc::clone(&statuses));
                std::thread::spawn(
                    move || while Receiver::serve(socket.as_ref().unwrap(), &heard, &statuses).is_some() {},
                );
            }
        });
        Receiver { url, came }
    }

    fn serve(socket: &TcpStream, heard: &mpsc::Sender<Came>, statuses: &Mutex<VecDeque<u16>>) -> Option<()> {
        let mut reader = BufReader::new(socket);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let planned = if body["event"] == "file-saved" { statuses.lock().unwrap().pop_front() } else { None };
        let status = planned.unwrap_or(200);
        heard.send(Came { head, body }).ok()?;
        let mut socket = socket;
        write!(socket, "HTTP/1.1 {status} So\r\nContent-Length: 4\r\n\r\nwell").ok()
    }

    fn next(&self) -> Came {
        self.came.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_receiver_is_told_retried_and_left_alone() {
    let app = Appliance::with(&NEAR);
    let receiver = Receiver::answering(&[500, 503]);
    assert_eq!(webhook(&app, &json!(receiver.url)).status, 200);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let first = receiver.next();
    assert_eq!((&first.body["event"], &first.body["id"]), (&json!("file-saved"), &json!(id)));
    assert_eq!((&first.body["status"], &first.body["size"]), (&json!("OK"), &json!(jpeg(300, 200).len())));
    assert_eq!(first.body["checksum"].as_str().unwrap().len(), 32);
    assert_eq!(first.body["metadata"]["width"], 300);
    // What came later does not wait for what failed.
    let mut saved = 1;
    let mut events = vec!["file-saved"];
    while saved < 3 || events.len() < 4 {
        let came = receiver.next();
        if came.body["event"] == "file-saved" {
            saved += 1;
            assert_eq!(came.body, first.body, "the same bytes");
            assert_eq!(came.header("webhook-id"), first.header("webhook-id"));
            events.push("file-saved");
        } else {
            assert_eq!(came.body["event"], "file-processed");
            assert_eq!(came.body["addons_info"]["ON_DEMAND_IMAGE"]["available"], true);
            events.push("file-processed");
        }
    }
    let delivered = format!("/api/v1/callbacks?status=delivered&event=file-saved&asset_id={id}");
    let log = app.until(&delivered, |log| log["count"] == 1);
    let callback = &log["callbacks"][0];
    assert_eq!((&callback["attempts"], &callback["url"]), (&json!(3), &json!(receiver.url)));
    assert_eq!(callback["id"], first.header("webhook-id"));
    let path = format!("/api/v1/callbacks/{}", callback["id"].as_str().unwrap());
    let detail = app.json(&path);
    assert_eq!(serde_json::from_str::<Value>(detail["body"].as_str().unwrap()).unwrap(), first.body);
    let attempts: Vec<_> = detail["attempt_log"].as_array().unwrap().iter().map(|a| a["status"].clone()).collect();
    assert_eq!(attempts, [500, 503, 200]);
    assert_eq!(
        (&detail["attempt_log"][0]["error"], &detail["attempt_log"][0]["answer"]),
        (&json!("answered 500"), &json!("well"))
    );
    // What was heard is counted when its answer has come.
    app.until("/api/v1/callbacks?status=delivered", |log| log["count"] == 2);
    let metrics = app.get("/metrics").text();
    assert!(metrics.contains("cloakroom_callbacks_delivered_total 2\n"), "{metrics}");
    assert!(metrics.contains("cloakroom_callback_attempts_failed_total 2\n"), "{metrics}");

    // By hand: again, under the same id; a test; and everything of a day.
    assert_eq!(app.post_json(&format!("{path}/redeliver"), "").status, 202);
    assert_eq!(receiver.next().header("webhook-id"), first.header("webhook-id"));
    let begun = app.post_json("/api/v1/callbacks/test", "");
    assert_eq!((begun.status, receiver.next().body["event"].clone()), (202, json!("test")), "{}", begun.text());
    let span = json!({"start_date": "2020-01-01T00:00:00Z", "end_date": "2020-01-07T23:59:59Z"});
    let begun = app.post_json("/api/v1/callbacks/reissue", &span.to_string());
    let said = "Re-issue callbacks started for assets uploaded from 2020-01-01T00:00:00Z to 2020-01-07T23:59:59Z";
    assert_eq!((begun.status, begun.json()), (202, json!(said)));
    let uploaded = app.json(&format!("/api/v1/assets/{id}/data"))["upload_time"].as_str().unwrap().to_owned();
    let span = json!({"start_date": uploaded, "end_date": uploaded});
    assert_eq!(app.post_json("/api/v1/callbacks/reissue", &span.to_string()).status, 202);
    for event in ["file-saved", "file-processed"] {
        let came = receiver.next();
        assert_eq!((&came.body["event"], &came.body["id"]), (&json!(event), &json!(id)));
        assert_ne!(came.header("webhook-id"), first.header("webhook-id"));
    }
    app.until("/api/v1/callbacks?status=WAITING", |log| log["count"] == 0);
    assert!(receiver.came.try_recv().is_err(), "nothing of 2020, and nothing twice");
    let page = app.json("/api/v1/callbacks?limit=2");
    let rest = app.json(&format!("/api/v1/callbacks?before={}", page["next"]));
    assert_eq!((&page["count"], &rest["count"], &rest["next"]), (&json!(2), &json!(3), &Value::Null));
}

#[test]
fn what_is_owed_outlives_a_crash() {
    let mut app = Appliance::with(&NEAR);
    let receiver = Receiver::answering(&[500]);
    assert_eq!(webhook(&app, &json!([receiver.url])).status, 200);
    app.keep("p.bin", b"something that is no picture");
    let first = receiver.next();
    assert_eq!(first.body["event"], "file-saved");
    app.crash(|_| {});
    let again = loop {
        let came = receiver.next();
        if came.header("webhook-id") == first.header("webhook-id") {
            break came;
        }
    };
    assert_eq!(again.body, first.body);
    app.until("/api/v1/callbacks?status=WAITING", |log| log["count"] == 0);
}

#[test]
fn private_addresses_are_refused_and_never_called() {
    // Any port will do: only the address speaks against it.
    let app = Appliance::with(&[("CLOAKROOM_NET__PORTS", "1-65535")]);
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:1::80ff:fffe]",
        "[fe80::1]",
        "[fd00::1]",
        "10.1.2.3",
        "172.20.0.1",
        "192.168.0.10",
        "169.254.169.254",
        "100.64.1.1",
        "224.0.0.1",
        "①②⑦.0.0.1",
        "user@example.org",
        "example.org@127.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{port}/x");
            let detail = webhook(&app, &json!(url)).refused(400, "URL_NOT_ALLOWED");
            assert!(detail.starts_with("web_urls:"), "{url}: {detail}");
        }
    }
    for url in ["ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "data:x"] {
        webhook(&app, &json!([url])).refused(400, "URL_NOT_ALLOWED");
    }
    for urls in [
        json!("nonsense"),
        json!(["http://a.example/\r\nX: y"]),
        json!(["http://a b.example/"]),
        json!(["https://a.example", "https://b.example", "https://c.example", "https://d.example"]),
        json!(7),
        json!([7]),
        json!({}),
        Value::Null,
    ] {
        webhook(&app, &urls).refused(400, "INVALID_REQUEST");
    }
    let value =
        json!({"key": "webhook", "value": {"web_urls": "https://a.example", "callback_events": {"file-saved": true}}});
    let answer = app.call("PATCH", UPDATE, &[AUTH], value.to_string().as_bytes());
    let detail = answer.refused(400, "MISSING_MANDATORY_PARAMETERS");
    assert!(detail.contains("callback_events/addon-processed"), "every event has to be there: {detail}");
    assert_eq!(app.json("/api/v1/user/settings")["webhook"]["web_urls"], "", "nothing changed");

    // A name that leads to this very machine looks harmless until it is resolved.
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(webhook(&app, &json!(format!("http://{name}:{port}/"))).status, 200);
    assert_eq!(app.post_json("/api/v1/callbacks/test", "").status, 202);
    let log = app.until("/api/v1/callbacks", |log| log["callbacks"][0]["attempts"] == 1);
    let error = log["callbacks"][0]["last_attempt"]["error"].as_str().unwrap();
    assert_eq!(error, format!("{name} cannot be reached, or does not answer as it should"));
    assert!(trap.accept().is_err(), "somebody came");
}

#[test]
fn settings_and_secrets_are_an_administrators() {
    let app = Appliance::with(&NEAR);
    let set = webhook(&app, &json!(" https://a.example/x ,http://127.0.0.1:9/ ,https://a.example/x"));
    assert_eq!(set.json()["webhook"]["web_urls"], "https://a.example/x,http://127.0.0.1:9/");
    assert_eq!(set.json()["webhook"]["callback_events"]["file-undeleted"], true);
    let secrets = app.json("/api/v1/callbacks/secret")["secrets"].clone();
    assert!(secrets[0]["secret"].as_str().unwrap().starts_with("whsec_") && secrets.as_array().unwrap().len() == 1);
    assert!(!app.call("GET", "/api/v1/user/settings", &[AUTH], b"").text().contains("whsec_"));
    let rotated = app.post_json("/api/v1/callbacks/secret?grace_seconds=3600", "").json()["secrets"].clone();
    assert_eq!(rotated.as_array().unwrap().len(), 2);
    assert_eq!((&rotated[1]["secret"], rotated[1]["expires_at"].is_string()), (&secrets[0]["secret"], true));
    app.post_json("/api/v1/callbacks/secret?grace_seconds=99999999", "").refused(400, "INVALID_REQUEST");
    let now = app.post_json("/api/v1/callbacks/secret?grace_seconds=0", "").json()["secrets"].clone();
    assert_eq!(now.as_array().unwrap().len(), 1);

    let added = app.cli(&["user", "add", "--role", "manager", "m@example.com"]);
    let said = String::from_utf8(added.stdout).unwrap();
    let key = said.lines().find_map(|line| line.strip_prefix("API key: ")).unwrap_or_else(|| panic!("{said}"));
    let manager = ("X-FileSpin-Api-Key", key);
    let one = format!("/api/v1/callbacks/{}", "0".repeat(32));
    for (method, path) in [
        ("GET", "/api/v1/callbacks"),
        ("GET", &one),
        ("POST", &format!("{one}/redeliver")),
        ("POST", "/api/v1/callbacks/test"),
        ("POST", "/api/v1/callbacks/reissue"),
        ("GET", "/api/v1/callbacks/secret"),
        ("POST", "/api/v1/callbacks/secret"),
    ] {
        app.call(method, path, &[manager], b"").refused(403, "FORBIDDEN");
        app.call(method, path, &[], b"").refused(401, "UNAUTHORIZED");
    }
    for path in ["/api/v1/feed", "/api/v1/changes"] {
        app.get(path).refused(401, "UNAUTHORIZED");
        assert_eq!(app.call("HEAD", path, &[manager], b"").status, 200, "{path}");
    }
    app.call("GET", &one, &[AUTH], b"").refused(404, "CALLBACK_NOT_FOUND");
    app.call("GET", "/api/v1/callbacks/'%20OR%201", &[AUTH], b"").refused(404, "CALLBACK_NOT_FOUND");
    app.post_json(&format!("{one}/redeliver"), "").refused(404, "CALLBACK_NOT_FOUND");
    for query in ["status=x", "asset_id=x", "before=x", "limit=-1", "limit=x"] {
        app.call("GET", &format!("/api/v1/callbacks?{query}"), &[AUTH], b"").refused(400, "INVALID_REQUEST");
    }
    for (body, word) in [
        (json!({}), "MISSING_MANDATORY_PARAMETERS"),
        (json!({"start_date": "2017-06-01T00:00:00Z"}), "MISSING_MANDATORY_PARAMETERS"),
        (json!({"start_date": "x", "end_date": "2017-06-01T00:00:00Z"}), "INVALID_REQUEST"),
        (json!({"start_date": "2017-06-02T00:00:00Z", "end_date": "2017-06-01T00:00:00Z"}), "INVALID_REQUEST"),
        (json!({"start_date": "2017-06-01T00:00:00Z", "end_date": "2017-06-08T00:00:01Z"}), "INVALID_REQUEST"),
        (json!({"start_date": 1, "end_date": 2}), "INVALID_REQUEST"),
        (json!([]), "INVALID_REQUEST"),
    ] {
        app.post_json("/api/v1/callbacks/reissue", &body.to_string()).refused(400, word);
    }
}

/// The feed as a client reads it.
struct Feed(BufReader<TcpStream>);

impl Feed {
    fn open(app: &Appliance, last: Option<i64>) -> Feed {
        let mut stream = app.connect();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        write!(stream, "GET /api/v1/feed HTTP/1.1\r\nHost: box\r\n{}: {}\r\n{last}\r\n", AUTH.0, AUTH.1).unwrap();
        let mut feed = Feed(BufReader::new(stream));
        let head: Vec<_> = std::iter::from_fn(|| Some(feed.line()).filter(|line| !line.is_empty())).collect();
        assert!(
            head[0].contains("200") && head.iter().any(|line| line == "content-type: text/event-stream"),
            "{head:?}"
        );
        feed
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event: its id, its type, its data.
    fn next(&mut self) -> (i64, String, Value) {
        let mut wanted = |name: &str| loop {
            // Between them lie the sizes of chunks, comments, and blank lines.
            if let Some(value) = self.line().strip_prefix(name) {
                return value.to_owned();
            }
        };
        let (id, event, data) = (wanted("id: "), wanted("event: "), wanted("data: "));
        (id.parse().unwrap(), event, serde_json::from_str(&data).unwrap())
    }
}

#[test]
fn the_feed_tells_what_happens_and_goes_on_where_it_broke_off() {
    let mut app = Appliance::with(&[("CLOAKROOM_HTTP__DRAIN_SECONDS", "3600")]);
    let mut feed = Feed::open(&app, None);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let (first, event, data) = feed.next();
    assert_eq!(event, "file-saved");
    assert_eq!((&data["seq"], &data["event"], &data["asset_id"]), (&json!(first), &json!(event), &json!(id)));
    assert_eq!((&data["body"]["id"], &data["body"]["event"]), (&json!(id), &json!("file-saved")));
    assert!(data["at"].as_str().unwrap().ends_with('Z'));
    let (second, event, _) = feed.next();
    assert_eq!((second > first, &*event), (true, "file-processed"));
    let mut late = Feed::open(&app, Some(first));
    assert_eq!(late.next().0, second);
    let mut all = Feed::open(&app, Some(0));
    assert_eq!((all.next().0, all.next().0), (first, second));
    for bad in ["x", "-1", "99999999999999999999"] {
        app.call("GET", "/api/v1/feed", &[AUTH, ("Last-Event-ID", bad)], b"").refused(400, "INVALID_REQUEST");
    }

    let page = app.json("/api/v1/changes?since=0&limit=1");
    assert_eq!((&page["next"], &page["current"]), (&json!(first), &json!(second)));
    assert_eq!(page["changes"][0]["body"]["id"], id);
    let rest = app.json(&format!("/api/v1/changes?since={first}"));
    assert_eq!((rest["changes"].as_array().unwrap().len(), &rest["next"]), (1, &json!(second)));
    let none = app.json(&format!("/api/v1/changes?since={second}"));
    assert_eq!((none["changes"].as_array().unwrap().len(), &none["next"]), (0, &json!(second)));
    for bad in ["since=x", "since=-1", "limit=x", "since=9999999999999999999999"] {
        app.call("GET", &format!("/api/v1/changes?{bad}"), &[AUTH], b"").refused(400, "INVALID_REQUEST");
    }

    // A server that stops does not wait for those who listen: it would for an hour.
    assert!(app.stop().success());
    let mut left = String::new();
    feed.0.read_to_string(&mut left).unwrap();
}
