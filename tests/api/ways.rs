//! The other ways in: files fetched from elsewhere, files sent straight to storage, calls that are
//! sent twice; and how room is kept for all of them.
//!
//! The elsewhere is a server in here that lies, stalls, breaks off and sends on.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::KEY;
use crate::harness::PATIENCE;
use crate::harness::UPLOAD;
use crate::harness::jpeg;
use crate::harness::meddle;

const EXTERNAL: &str = "/api/v1/assets/new/content/original/external";
const ANNOUNCE: &str = "/api/v1/assets/new/content_storage_url";
const REGISTER: &str = "/api/v1/assets/new/register_asset";
const STORAGE: &str = "/api/v1/storage";
/// The loopback may be called, and what failed is tried again at once.
const NEAR: [(&str, &str); 2] =
    [("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"), ("CLOAKROOM_INGEST__FETCH__RETRY_SECONDS", "0,0")];

/// A source of files: each request is heard, and answered by the next of what was planned, the last for ever.
struct Source {
    url: String,
    heard: mpsc::Receiver<Vec<String>>,
}

type Plan = Box<dyn Fn(&mut TcpStream, &[String]) + Send + Sync>;

impl Source {
    fn new(plans: Vec<Plan>) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/dir/photo%201.jpg?x=1", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::channel();
        let (plans, next) = (Arc::new(plans), Arc::new(Mutex::new(0)));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (tell, plans, next) = (tell.clone(), Arc::clone(&plans), Arc::clone(&next));
                std::thread::spawn(move || {
                    let mut socket = socket.unwrap();
                    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                    let head: Vec<_> =
                        lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                    let nth = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        (*next - 1).min(plans.len() - 1)
                    };
                    let _ = tell.send(head.clone());
                    plans[nth](&mut socket, &head);
                });
            }
        });
        Source { url, heard }
    }

    fn next(&self) -> Vec<String> {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }
}

/// Says this and hangs up.
fn says(head: &str, body: &[u8]) -> Plan {
    let whole = [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat();
    Box::new(move |socket, _| {
        let _ = socket.write_all(&whole);
    })
}

/// The whole file.
fn whole(body: &[u8]) -> Plan {
    says(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"one\"", body.len()), body)
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter()
        .find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()))
}

fn order(app: &Appliance, key: &str) -> String {
    let answer = app.post_json(EXTERNAL, &json!({"name": "a.jpg", "key": key}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    assert_eq!((&said["status"], &said["message"]), (&json!("QUEUED"), &json!("Queued for processing")));
    said["id"].as_str().unwrap().to_owned()
}

fn ended(app: &Appliance, id: &str) -> Value {
    app.until(&format!("/api/v1/assets/{id}/data"), |data| {
        let ended = data["status"] == "OK" || data["status"] == "ERROR";
        if !ended {
            // An image is asked for because that waits at the server.
            app.get(&format!("/api/v1/assets/{id}/conversions?resize=1,1"));
        }
        ended
    })
}

#[track_caller]
fn fails(app: &Appliance, plans: Vec<Plan>, why: &str) {
    let source = Source::new(plans);
    let data = ended(app, &order(app, &source.url));
    let said = data["errors"]["original"].as_str().unwrap_or_default();
    assert!(data["status"] == "ERROR" && said.contains(why) && said.ends_with('.'), "wanted {why:?}: {data}");
    let told: Vec<_> = app.journal(data["id"].as_str().unwrap()).into_iter().map(|(event, _)| event).collect();
    assert_eq!(told, ["file-saved", "file-processed"]);
    app.staging_empties();
}

#[test]
fn a_file_is_fetched_from_where_it_lies() {
    let app = Appliance::with(&NEAR);
    let body = jpeg(64, 48);
    let source = Source::new(vec![whole(&body)]);
    let id = order(&app, &source.url);
    let data = ended(&app, &id);
    assert_eq!((&data["status"], &data["size"], &data["name"]), (&json!("OK"), &json!(body.len()), &json!("a.jpg")));
    assert_eq!((&data["upload_source"], &data["metadata"]["width"]), (&json!("127.0.0.1"), &json!(64)));
    assert_eq!(fs::read(app.data_dir().join(format!("originals/{}/{id}.1", &id[..2]))).unwrap(), body);
    let asked = source.next();
    assert_eq!(asked[0], "GET /dir/photo%201.jpg?x=1 HTTP/1.1");
    assert_eq!(header(&asked, "accept-encoding"), Some("identity"));
    for never in ["range", "cookie", "authorization", "referer"] {
        assert_eq!(header(&asked, never), None, "{asked:?}");
    }
    assert_eq!(app.journal(&id)[0].0, "file-saved");
    app.staging_empties();

    // Without a name it is called as its address ends; without a length it is what comes.
    let source = Source::new(vec![says("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")]);
    let answer = app.post_json(EXTERNAL, &json!({"key": source.url}).to_string()).json();
    let data = ended(&app, answer["id"].as_str().unwrap());
    assert_eq!((&data["name"], &data["size"]), (&json!("photo 1.jpg"), &json!(5)));
}

#[test]
fn fetching_goes_on_where_it_broke_off() {
    let app = Appliance::with(&NEAR);
    let body = jpeg(400, 300);
    let (half, total) = (body.len() / 2, body.len());
    let broken = |head: &str| says(&format!("200 OK\r\nContent-Length: {total}\r\n{head}"), &body[..half]);
    let rest = |from: usize, total: usize| {
        let head = format!(
            "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{total}\r\nETag: \"one\"",
            body.len() - from,
            body.len() - 1
        );
        says(&head, &body[from..])
    };
    // What the second request asks for, and what it is answered; a third is answered with the whole.
    for (what, first, asks, second, requests) in [
        ("a strong ETag", "ETag: \"one\"", Some("\"one\""), rest(half, total), 2),
        (
            "a date",
            "Last-Modified: Sat, 21 Nov 2026 06:26:48 GMT",
            Some("Sat, 21 Nov 2026 06:26:48 GMT"),
            whole(&body),
            2,
        ),
        ("a weak ETag", "ETag: W/\"one\"", None, whole(&body), 2),
        ("nothing", "X: y", None, whole(&body), 2),
        ("one that changed", "ETag: \"one\"", Some("\"one\""), whole(&body), 2),
        ("one that changed its length", "ETag: \"one\"", Some("\"one\""), rest(half, total + 1), 3),
        ("one that sends another part", "ETag: \"one\"", Some("\"one\""), rest(half - 1, total), 3),
        ("one that has less now", "ETag: \"one\"", Some("\"one\""), says("416 No\r\nContent-Length: 0", b""), 3),
    ] {
        let source = Source::new(vec![broken(first), second, whole(&body)]);
        let id = order(&app, &source.url);
        let data = ended(&app, &id);
        assert_eq!((&data["status"], &data["size"]), (&json!("OK"), &json!(total)), "{what}: {data}");
        assert!(fs::read(app.data_dir().join(format!("originals/{}/{id}.1", &id[..2]))).unwrap() == body, "{what}");
        let asked: Vec<_> = (0..requests).map(|_| source.next()).collect();
        assert_eq!(header(&asked[1], "if-range"), asks, "{what}");
        assert_eq!(header(&asked[1], "range"), asks.map(|_| format!("bytes={half}-")).as_deref(), "{what}");
        assert!(source.heard.try_recv().is_err(), "{what}: asked more often than {requests} times");
    }
    app.staging_empties();
}

#[test]
fn sources_that_fail_end_in_a_sentence() {
    let app = Appliance::with(
        &[
            NEAR.as_slice(),
            &[
                ("CLOAKROOM_INGEST__FETCH__WINDOW_SECONDS", "2"),
                ("CLOAKROOM_INGEST__FETCH__ANSWER_SECONDS", "4"),
                ("CLOAKROOM_INGEST__MAX_FILE_BYTES", "100000"),
            ],
        ]
        .concat(),
    );
    let big = vec![b'x'; 200_000];
    let stalls: Plan = Box::new(|socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
        let _ = socket.read(&mut [0]);
    });
    let silent: Plan = Box::new(|socket, _| {
        let _ = socket.read(&mut [0]);
    });
    let drips: Plan = Box::new(|socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n");
        while socket.write_all(b"drip").is_ok() {
            std::thread::yield_now();
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(50) {
                std::thread::yield_now();
            }
        }
    });
    let endless: Plan = Box::new(|socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while socket.write_all(&[&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat()).is_ok() {}
    });
    for (plan, why) in [
        (says("404 Not Found\r\nContent-Length: 4", b"gone"), "answered 404 (not found)"),
        (says("403 Forbidden\r\nContent-Length: 0", b""), "answered 403 (access denied)"),
        (says("204 No Content", b""), "answered 204"),
        (says("503 Busy\r\nContent-Length: 0", b""), "answered 503 (failure). It was tried 3 times"),
        (says("206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/9", b"x"), "answered 206"),
        (says("304 Not Modified", b""), "answered 304"),
        (says("302 Found\r\nContent-Length: 0", b""), "answered 302"),
        (says("200 OK\r\nContent-Length: 0", b""), "empty"),
        (says("200 OK\r\nContent-Length: 1000", b"too little"), "10 of the 1000 bytes"),
        (says("200 OK\r\nContent-Length: 10\r\nContent-Length: 11", b"0123456789a"), "It was tried 3 times"),
        (says("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nhel"), "stopped after"),
        (says("200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip", b"\x1f\x8bxx"), "packed"),
        (whole(&big), "larger than the 100000 bytes"),
        (says("200 OK", &big), "at most 100000 bytes"),
        (endless, "at most 100000 bytes"),
        (says("nonsense", b""), "It was tried 3 times"),
        (stalls, "less than 20480 bytes in 2 s"),
        (drips, "less than 20480 bytes in 2 s"),
        (silent, "127.0.0.1 cannot be reached, or does not answer as it should. It was tried 3 times"),
    ] {
        fails(&app, vec![plan], why);
    }
    // Nobody there at all.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = ended(&app, &order(&app, &format!("http://{gone}/")));
    let same = "127.0.0.1 cannot be reached, or does not answer as it should. It was tried 3 times.";
    assert_eq!(data["errors"]["original"], same, "nobody learns which ports there are");
}

#[test]
fn what_the_disk_has_no_room_for_is_let_go_and_tried_so_often() {
    let stat = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    // Large shares, so that what others write meanwhile does not count.
    let floor = free / 4;
    let app = Appliance::with(
        &[
            NEAR.as_slice(),
            &[
                ("CLOAKROOM_STORAGE__FREE_FLOOR_BYTES", &floor.to_string()),
                ("CLOAKROOM_INGEST__MAX_FILE_BYTES", &free.to_string()),
            ],
        ]
        .concat(),
    );
    let begins = || says("200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"one\"", b"5\r\nhello\r\n");
    let goes_on = || {
        let head = format!(
            "206 Partial Content\r\nContent-Range: bytes 5-{}/{free}\r\nContent-Length: {}\r\nETag: \"one\"",
            free - 1,
            free - 5
        );
        says(&head, b"")
    };
    let body = jpeg(8, 8);
    let source = Source::new(vec![begins(), goes_on(), whole(&body)]);
    let data = ended(&app, &order(&app, &source.url));
    assert_eq!((&data["status"], &data["size"]), (&json!("OK"), &json!(body.len())), "{data}");
    let asked: Vec<_> = (0..3).map(|_| source.next()).collect();
    let ranges: Vec<_> = asked.iter().map(|head| header(head, "range")).collect();
    assert_eq!(ranges, [None, Some("bytes=5-"), None], "what there was no room for is fetched from its beginning");
    let endless = says(&format!("200 OK\r\nContent-Length: {free}"), b"x");
    fails(&app, vec![begins(), endless], "The disk is too full for this file. It was tried 3 times");
}

#[test]
fn a_source_may_take_only_so_long_in_all() {
    let app = Appliance::with(
        &[
            NEAR.as_slice(),
            &[("CLOAKROOM_INGEST__FETCH__TOTAL_SECONDS", "2"), ("CLOAKROOM_INGEST__FETCH__WINDOW_SECONDS", "60")],
        ]
        .concat(),
    );
    let endless: Plan = Box::new(|socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while socket
            .write_all(b"1000\r\n")
            .and_then(|()| socket.write_all(&[b'x'; 0x1000]))
            .and_then(|()| socket.write_all(b"\r\n"))
            .is_ok()
        {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(20) {
                std::thread::yield_now();
            }
        }
    });
    fails(&app, vec![endless], "took longer than 2 s");
    // One that begins anew each time would never end.
    let again: Plan = Box::new(|socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"one\"\r\n\r\nsome");
        let _ = socket.read(&mut [0]);
    });
    fails(&app, vec![again], "took longer than 2 s");
}

#[test]
fn a_file_that_takes_longer_than_an_attempt_may_is_gone_on_with() {
    let app = Appliance::with(
        &[
            NEAR.as_slice(),
            &[
                // An attempt that gets nothing in this time is the last.
                ("CLOAKROOM_INGEST__FETCH__TOTAL_SECONDS", "8"),
                ("CLOAKROOM_INGEST__FETCH__WINDOW_SECONDS", "60"),
                ("CLOAKROOM_INGEST__FETCH__RETRY_SECONDS", "0"),
            ],
        ]
        .concat(),
    );
    let body = jpeg(400, 300);
    let (part, total) = (body.len() / 3, body.len());
    let whole = body.clone();
    // What it does not have time for, it does not send: the box hangs up.
    let pieces: Plan = Box::new(move |socket, asked| {
        let range = header(asked, "range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let from = range.map_or(0, |from| from.parse().unwrap());
        let status = match from {
            0 => "200 OK".to_owned(),
            _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"one\"\r\n\r\n", total - from);
        let to = if from < 2 * part { from + part } else { total };
        let _ = socket.write_all(&[head.as_bytes(), &whole[from..to]].concat());
        let _ = socket.read(&mut [0]);
    });
    let source = Source::new(vec![pieces]);
    let data = ended(&app, &order(&app, &source.url));
    assert_eq!((&data["status"], &data["checksum"]), (&json!("OK"), &json!(md5(&body))), "{data}");
    let ranges = [(); 3].map(|()| header(&source.next(), "range").map(str::to_owned));
    assert_eq!(ranges, [0, 1, 2].map(|nth| (nth > 0).then(|| format!("bytes={}-", nth * part))));
}

#[test]
fn what_a_source_says_of_the_content_has_to_be_true() {
    let app = Appliance::with(&NEAR);
    let body = jpeg(40, 30);
    let says_md5 = |of: &[u8]| {
        use md5::Digest;
        let md5 = STANDARD.encode(md5::Md5::digest(of));
        says(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"one\"\r\nContent-MD5: {md5}", body.len()), &body)
    };
    let source = Source::new(vec![says_md5(b"another"), says_md5(&body)]);
    assert_eq!(ended(&app, &order(&app, &source.url))["status"], "OK");
    assert_eq!([source.next(), source.next()].map(|head| header(&head, "range").is_some()), [false, false]);
    fails(&app, vec![says_md5(b"another")], "not what the source's content-md5 says. It was tried 3 times");
}

#[test]
fn a_bucket_of_the_configuration_is_called_wherever_it_is() {
    let body = jpeg(40, 30);
    let source = Source::new(vec![
        says(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"{}\"", body.len(), md5(&body)), &body),
        says(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"{}\"", body.len(), "0".repeat(32)), &body),
    ]);
    let endpoint = source.url.split("/dir").next().unwrap();
    let bucket = format!(
        "{{ venue = {{ endpoint = '{endpoint}', region = 'here', access_key = 'us', secret_key = 'hush', \
         session_token = 'for a while' }} }}"
    );
    let app = Appliance::with(&[
        ("CLOAKROOM_INGEST__BUCKETS", bucket.as_str()),
        ("CLOAKROOM_INGEST__FETCH__RETRY_SECONDS", "0"),
    ]);
    let data = ended(&app, &order(&app, "s3://venue/evening/1 ü.jpg"));
    assert_eq!((&data["status"], &data["checksum"]), (&json!("OK"), &json!(md5(&body))), "{data}");
    let asked = source.next();
    assert_eq!(asked[0], "GET /venue/evening/1%20%C3%BC.jpg HTTP/1.1");
    assert_eq!(header(&asked, "x-amz-security-token"), Some("for a while"));
    let signed = header(&asked, "authorization").unwrap();
    assert!(signed.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"), "{signed}");
    let data = ended(&app, &order(&app, "s3://venue/evening/2.jpg"));
    assert_eq!(
        data["errors"]["original"], "The content is not what the source's etag says. It was tried 2 times.",
        "{data}"
    );
    // Nobody else is let in there by that.
    let body = json!({"key": format!("{endpoint}/venue/evening/1.jpg")}).to_string();
    app.post_json(EXTERNAL, &body).refused(400, "URL_NOT_ALLOWED");
}

#[test]
fn nobody_is_sent_on_to_what_may_not_be_called() {
    let app = Appliance::with(&NEAR);
    let body = jpeg(8, 8);
    let to = |url: &str| says(&format!("302 Found\r\nLocation: {url}\r\nContent-Length: 0"), b"");
    let last = Source::new(vec![whole(&body)]);
    let hops = || vec![to("/2"), to("3?x"), to(&last.url)];
    assert_eq!(ended(&app, &order(&app, &Source::new(hops()).url))["status"], "OK", "three are fine");
    fails(&app, vec![to("/again")], "more than 3 times");
    // The trap is on another loopback network: none is allowed but 127.0.0.0/8.
    let trap = TcpListener::bind("[::1]:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    for place in ["[::1]", "[::]", "0.0.0.0", "10.0.0.1", "169.254.169.254"] {
        fails(&app, vec![to(&format!("http://{place}:{port}/x"))], "not an address of the public Internet");
    }
    fails(&app, vec![to("file:///etc/passwd")], "only http and https");
    fails(&app, vec![to("s3://bucket/key")], "only http and https");
    assert!(trap.accept().is_err(), "somebody called");

    // On a box that was told nothing, the loopback is refused at once, and by redirect.
    let strict = Appliance::start();
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    for place in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "user@example.org"] {
        let body = json!({"name": "a.jpg", "key": format!("http://{place}:{port}/x")});
        strict.post_json(EXTERNAL, &body.to_string()).refused(400, "URL_NOT_ALLOWED");
    }
    for (key, status, word) in [
        (json!("ftp://example.org/x"), 400, "URL_NOT_ALLOWED"),
        (json!("s3://nobodys/x.jpg"), 400, "URL_NOT_ALLOWED"),
        (json!("s3://"), 400, "URL_NOT_ALLOWED"),
        (json!("nonsense"), 400, "INVALID_REQUEST"),
        (json!("http://example.org/\r\nx"), 400, "INVALID_REQUEST"),
        (json!(""), 400, "MISSING_MANDATORY_PARAMETERS"),
        (json!(7), 400, "INVALID_REQUEST"),
    ] {
        strict.post_json(EXTERNAL, &json!({"key": key}).to_string()).refused(status, word);
    }
    strict.post_json(EXTERNAL, "{}").refused(400, "MISSING_MANDATORY_PARAMETERS");
    assert!(trap.accept().is_err(), "somebody called");
    assert_eq!(strict.json("/api/v1/assets")["total"], 0);
}

#[test]
fn deleting_ends_the_fetching_and_a_crash_does_not() {
    let mut app = Appliance::with(&[NEAR.as_slice(), &[("CLOAKROOM_INGEST__FETCH__WINDOW_SECONDS", "60")]].concat());
    let body = jpeg(400, 300);
    let (half, total) = (body.len() / 2, body.len());
    let start = [format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes(), &body[..half]].concat();
    let waits = || -> Plan {
        let start = start.clone();
        Box::new(move |socket, _| {
            let _ = socket.write_all(&start);
            let _ = socket.read(&mut [0]);
        })
    };
    let source = Source::new(vec![waits()]);
    let id = order(&app, &source.url);
    source.next();
    app.staging_holds(1);
    assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["status"], "QUEUED");
    assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"").status, 200);
    app.staging_empties();
    assert_eq!(app.call("POST", &format!("/api/v1/assets/{id}/undelete"), &[AUTH], b"").status, 200);
    let data = ended(&app, &id);
    assert_eq!(data["errors"]["original"], "The asset was deleted before its file was fetched.");

    let source = Source::new(vec![waits(), whole(&body)]);
    let id = order(&app, &source.url);
    source.next();
    app.staging_holds(1);
    app.crash(|_| {});
    let data = ended(&app, &id);
    assert_eq!((&data["status"], &data["size"]), (&json!("OK"), &json!(total)), "{data}");
    app.staging_empties();
}

#[test]
fn how_far_it_is_can_be_seen() {
    let app = Appliance::with(&[NEAR.as_slice(), &[("CLOAKROOM_INGEST__FETCH__WINDOW_SECONDS", "60")]].concat());
    let (open, go_on) = mpsc::channel::<()>();
    let go_on = Mutex::new(go_on);
    let plan: Plan = Box::new(move |socket, _| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n");
        // A byte now and then, for a minute at most, until it was seen how far it is.
        let mut sent = 0;
        while sent < 1990 && go_on.lock().unwrap().recv_timeout(Duration::from_millis(30)).is_err() {
            let _ = socket.write_all(b"x");
            sent += 1;
        }
        let _ = socket.write_all(&vec![b'x'; 2000 - sent]);
    });
    let source = Source::new(vec![plan]);
    let id = order(&app, &source.url);
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| data["metadata"]["received_bytes"].is_u64());
    assert_eq!((&data["status"], &data["metadata"]["total_bytes"]), (&json!("QUEUED"), &json!(2000)));
    open.send(()).unwrap();
    let data = ended(&app, &id);
    assert_eq!((&data["size"], &data["metadata"]), (&json!(2000), &json!({})));
}

/// What a form has to say, and where.
fn announced(app: &Appliance, query: &str) -> (String, BTreeMap<String, String>) {
    let said = app.json(&format!("{ANNOUNCE}?filename=photo.jpg{query}"));
    let fields = serde_json::from_value(said["storage"]["fields"].clone()).unwrap();
    assert_eq!(said["storage"]["url"], format!("http://box{STORAGE}"));
    assert_eq!((&said["storage"]["protocol"], &said["storage"]["expiry"]), (&json!("POST"), &json!(86400)));
    (said["asset_id"].as_str().unwrap().to_owned(), fields)
}

fn filled(fields: &BTreeMap<String, String>, body: &[u8]) -> Form {
    let form = fields.iter().fold(Form::new(), |form, (name, value)| form.field(name, value));
    form.file("file", "whatever.jpg", body)
}

/// As nobody: the form is enough.
fn send(app: &Appliance, form: Form) -> Answer {
    app.call("POST", STORAGE, &[("Content-Type", Form::TYPE)], &form.end())
}

fn md5(body: &[u8]) -> String {
    use md5::Digest;
    format!("{:032x}", u128::from_be_bytes(md5::Md5::digest(body).into()))
}

fn registration(id: &str, body: &[u8]) -> Value {
    json!({"asset_id": id, "size": body.len(), "checksum": md5(body)})
}

fn register(app: &Appliance, said: &Value) -> Answer {
    app.post_json(REGISTER, &said.to_string())
}

#[test]
fn a_file_goes_straight_to_storage_and_is_registered() {
    let mut app = Appliance::start();
    let body = jpeg(64, 48);
    let (id, fields) = announced(&app, "");
    assert_eq!(fields["key"], format!("originals/{id}/original/original__photo.jpg"));
    register(&app, &registration(&id, &body)).refused(404, "CONTENT_NOT_FOUND");
    let answer = send(&app, filled(&fields, b"not this one"));
    assert_eq!((answer.status, answer.header("etag")), (204, format!("\"{}\"", md5(b"not this one"))));
    // Sent again, as stores have it, the last one counts.
    let mut asking = fields.clone();
    asking.insert("success_action_status".to_owned(), "201".to_owned());
    let again = filled(&asking, &body);
    let answer = send(&app, again);
    assert!(
        answer.status == 201 && answer.text().contains(&format!("<Key>{}</Key>", fields["key"])),
        "{}",
        answer.text()
    );
    app.staging_holds(1);
    assert_eq!(app.json("/api/v1/assets")["total"], 0);
    app.crash(|_| {});
    app.staging_holds(1);

    let mut wrong = registration(&id, &body);
    wrong["size"] = json!(body.len() + 1);
    register(&app, &wrong).refused(400, "CONTENT_MISMATCH");
    register(&app, &registration(&id, b"not this one")).refused(400, "CONTENT_MISMATCH");
    let mut same_length = registration(&id, &body);
    same_length["checksum"] = json!("0".repeat(32));
    register(&app, &same_length).refused(400, "CONTENT_MISMATCH");

    let mut right = registration(&id, &body);
    right["size"] = json!(body.len().to_string());
    right["checksum"] = json!(md5(&body).to_uppercase());
    right["service_data"] = json!({"app": "MyApp", "network_bandwidth": 50});
    let answer = register(&app, &right);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.json()["id"], &answer.json()["name"]), (&json!(id), &json!("photo.jpg")));
    let data = app.settled(&id);
    assert_eq!((&data["status"], &data["checksum"]), (&json!("OK"), &json!(md5(&body))));
    assert_eq!(data["data"]["_filespin_service_data"], right["service_data"]);
    assert_eq!(fs::read(app.data_dir().join(format!("originals/{}/{id}.1", &id[..2]))).unwrap(), body);
    app.staging_empties();

    // Once more the same is the same; anything else is refused, and nothing can be sent any more.
    assert_eq!(register(&app, &right).json()["id"], json!(id));
    register(&app, &wrong).refused(400, "ASSET_ID_EXISTS");
    send(&app, filled(&fields, &body)).refused(403, "POLICY_REFUSED");
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
    app.staging_empties();
}

#[test]
fn only_what_was_signed_is_taken() {
    let app = Appliance::with(&[("CLOAKROOM_INGEST__MAX_FILE_BYTES", "1000")]);
    let (id, fields) = announced(&app, "");
    let body = b"some text".as_slice();
    let with = |name: &str, value: &str| {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), value.to_owned());
        fields
    };
    let policy = String::from_utf8(STANDARD.decode(&fields["policy"]).unwrap()).unwrap();
    assert!(policy.contains("[\"content-length-range\",1,1000]") && policy.contains(&fields["key"]), "{policy}");
    let wider = STANDARD.encode(policy.replace("1000]", "9000]"));
    let bent = |text: &str| format!("{}{}", if text.starts_with('a') { 'b' } else { 'a' }, &text[1..]);
    let other = announced(&app, "").1;
    for (name, value) in [
        ("policy", wider.as_str()),
        ("policy", &bent(&fields["policy"])),
        ("x-amz-signature", &bent(&fields["x-amz-signature"])),
        ("x-amz-signature", &other["x-amz-signature"]),
        ("x-amz-credential", "CLOAKROOM/20200101/local/s3/aws4_request"),
        ("x-amz-date", "20200101T000000Z"),
        ("key", &other["key"]),
        ("key", &format!("{}x", fields["key"])),
        ("acl", "public-read"),
        ("success_action_redirect", "https://example.org/"),
    ] {
        send(&app, filled(&with(name, value), body)).refused(403, "POLICY_REFUSED");
    }
    for name in fields.keys() {
        let mut short = fields.clone();
        short.remove(name);
        send(&app, filled(&short, body)).refused(400, "INVALID_REQUEST");
        let twice = Form::new().field(&name.to_uppercase(), &fields[name]);
        let twice = fields.iter().fold(twice, |form, (name, value)| form.field(name, value)).file("file", "a", body);
        send(&app, twice).refused(400, "INVALID_REQUEST");
    }
    send(&app, filled(&fields, &[1; 1001])).refused(413, "TOO_LARGE");
    send(&app, filled(&fields, b"")).refused(400, "EMPTY_FILE");
    send(&app, Form::new().file("file", "a", body)).refused(400, "INVALID_REQUEST");
    let no_file = fields.iter().fold(Form::new(), |form, (name, value)| form.field(name, value));
    send(&app, no_file).refused(400, "NO_FILE");
    let mut half = filled(&fields, body).end();
    half.truncate(half.len() - 14);
    app.call("POST", STORAGE, &[("Content-Type", Form::TYPE)], &half).refused(400, "UPLOAD_INCOMPLETE");
    // Anybody may send fields; no more is read than any form has.
    let stuffed = (0..40).fold(Form::new(), |form, n| form.field(&format!("x-ignore-{n}"), &"x".repeat(600)));
    send(&app, stuffed).refused(413, "TOO_LARGE");
    let named = (0..40).fold(Form::new(), |form, n| form.field(&format!("{n}{}", "x".repeat(600)), ""));
    send(&app, named).refused(413, "TOO_LARGE");
    app.staging_empties();
    register(&app, &registration(&id, body)).refused(404, "CONTENT_NOT_FOUND");
    // None of that has spoilt it. Nor does it matter what follows the file, or that the file has no name.
    let bare = fields.iter().fold(Form::new(), |form, (name, value)| form.field(name, value));
    let bare = bare.part("name=\"FILE\"", body).field("behind", &"x".repeat(100_000));
    assert_eq!(send(&app, bare).status, 204);
    assert_eq!(register(&app, &registration(&id, body)).status, 200);
}

#[test]
fn announcing_and_registering_are_refused_clearly() {
    let app = Appliance::start();
    let ask = |query: &str| app.call("GET", &format!("{ANNOUNCE}{query}"), &[AUTH], b"");
    for query in ["", "?filename=", "?filename=%20", "?asset_id=x"] {
        ask(query).refused(400, "MISSING_MANDATORY_PARAMETERS");
    }
    for query in ["&asset_id=xyz", "&asset_id=0123456789ABCDEF0123456789ABCDEF", "&protocol=PUT", "&asset_id=../../etc"]
    {
        ask(&format!("?filename=a.jpg{query}")).refused(400, "INVALID_REQUEST");
    }
    let kept = app.keep("kept.txt", b"text");
    ask(&format!("?filename=a.jpg&asset_id={kept}")).refused(400, "ASSET_ID_EXISTS");
    // Not even when it is gone: what is left of it may still be on its way out.
    app.settled(&kept);
    assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{kept}"), &[AUTH], b"").status, 200);
    assert_eq!(app.post_json("/api/v1/assets/purge", "{}").status, 202);
    app.until("/api/v1/assets/purge/count", |trash| trash["count"] == 0);
    ask(&format!("?filename=a.jpg&asset_id={kept}")).refused(400, "ASSET_ID_EXISTS");
    let chosen = "0123456789abcdef0123456789abcdef";
    assert_eq!(announced(&app, &format!("&asset_id={chosen}&protocol=post")).0, chosen);
    ask(&format!("?filename=a.jpg&asset_id={chosen}")).refused(400, "ASSET_ID_EXISTS");

    let body = b"text".as_slice();
    register(&app, &registration(&"0".repeat(32), body)).refused(404, "ASSET_NOT_FOUND");
    register(&app, &json!({"size": 1, "checksum": md5(body)})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    register(&app, &json!({"asset_id": chosen, "size": 1})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    register(&app, &json!({"asset_id": chosen, "checksum": md5(body)})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    for (name, value) in
        [("asset_id", json!("x")), ("size", json!(-1)), ("size", json!("many")), ("checksum", json!("x"))]
    {
        let mut said = registration(chosen, body);
        said[name] = value;
        register(&app, &said).refused(400, "INVALID_REQUEST");
    }
    // Somebody else's.
    let made = app.cli(&["user", "add", "b@example.com", "--role", "creator"]);
    let said = String::from_utf8(made.stdout).unwrap();
    let key = said.lines().find_map(|line| line.strip_prefix("API key: ")).unwrap();
    let stranger = [("X-FileSpin-Api-Key", key)];
    app.call("POST", REGISTER, &stranger, registration(chosen, body).to_string().as_bytes()).refused(403, "FORBIDDEN");
    // A name is no path, and comes back as it was.
    let name = "..%2F..%2F%C3%BC%0d%0a%22%3B.jpg";
    let fields = app.json(&format!("{ANNOUNCE}?filename={name}"))["storage"]["fields"].clone();
    let fields: BTreeMap<String, String> = serde_json::from_value(fields).unwrap();
    assert!(fields["key"].ends_with("/original/original__ü\";.jpg"), "{}", fields["key"]);
    assert_eq!(send(&app, filled(&fields, body)).status, 204);
}

/// Makes all that was announced an hour older.
pub fn an_hour_later_for_vouchers(data_dir: &Path) {
    meddle(
        data_dir,
        "UPDATE voucher SET expires_at = expires_at - 3600000;
         UPDATE job SET run_at = run_at - 3600000 WHERE kind = 'ingest.expire_voucher'",
    );
}

#[test]
fn what_nobody_registers_goes() {
    let mut app = Appliance::with(&[
        ("CLOAKROOM_INGEST__DIRECT_SECONDS", "3600"),
        ("CLOAKROOM_INGEST__RESUMABLE_DOUBT_SECONDS", "1"),
    ]);
    let body = b"text".as_slice();
    let said = app.json(&format!("{ANNOUNCE}?filename=a.txt"));
    let id = said["asset_id"].as_str().unwrap().to_owned();
    let fields: BTreeMap<String, String> = serde_json::from_value(said["storage"]["fields"].clone()).unwrap();
    assert_eq!(send(&app, filled(&fields, body)).status, 204);
    app.staging_holds(1);
    app.crash(an_hour_later_for_vouchers);
    app.staging_empties();
    register(&app, &registration(&id, body)).refused(410, "UPLOAD_GONE");
    send(&app, filled(&fields, body)).refused(403, "POLICY_REFUSED");
    app.staging_empties();
}

const TYPE: (&str, &str) = ("Content-Type", Form::TYPE);

fn upload_as(app: &Appliance, key: &str, form: Form) -> Answer {
    app.call("POST", UPLOAD, &[AUTH, TYPE, ("Idempotency-Key", key)], &form.end())
}

#[test]
fn a_call_that_is_sent_twice_is_made_once() {
    let mut app = Appliance::with(&NEAR);
    let form =
        |text: &str| Form::new().field("custom_metadata", r#"{"data": {"n": 1}}"#).file("f", "a.txt", text.as_bytes());
    let first = upload_as(&app, "one", form("text"));
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, String::new()), "{}", first.text());
    app.settled(first.json()["assets"][0]["id"].as_str().unwrap());
    app.restart();
    let again = upload_as(&app, "one", form("text"));
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true".to_owned()));
    assert_eq!(again.body, first.body, "word for word");
    for other in [form("other"), Form::new().file("f", "a.txt", b"text"), form("text").file("g", "b.txt", b"more")] {
        upload_as(&app, "one", other).refused(422, "IDEMPOTENCY_KEY_REUSED");
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
    assert_ne!(upload_as(&app, "two", form("text")).body, first.body);
    upload_as(&app, "", form("text")).refused(400, "INVALID_REQUEST");
    upload_as(&app, &"x".repeat(256), form("text")).refused(400, "INVALID_REQUEST");
    // What failed is not held against anybody.
    upload_as(&app, "three", Form::new().file("f", "a.txt", b"")).refused(400, "EMPTY_FILE");
    assert_eq!(upload_as(&app, "three", form("third")).status, 200);

    let json = |path: &str, key: &str, body: &Value| {
        app.call("POST", path, &[AUTH, ("Idempotency-Key", key)], body.to_string().as_bytes())
    };
    let order = json!({"name": "a.jpg", "key": "http://127.0.0.1:1/a.jpg"});
    let ordered = json(EXTERNAL, "four", &order);
    assert_eq!(ordered.status, 200, "{}", ordered.text());
    assert_eq!(json(EXTERNAL, "four", &order).body, ordered.body);
    json(EXTERNAL, "four", &json!({"name": "b.jpg", "key": "http://127.0.0.1:1/a.jpg"}))
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
    json(EXTERNAL, "one", &order).refused(422, "IDEMPOTENCY_KEY_REUSED");

    let ask = |query: &str| {
        app.call("GET", &format!("{ANNOUNCE}?filename={query}"), &[AUTH, ("Idempotency-Key", "six")], b"")
    };
    let set_aside = ask("a.jpg");
    let again = ask("a.jpg");
    assert_eq!((set_aside.status, &again.body), (200, &set_aside.body));
    assert_eq!((&*again.header("idempotent-replayed"), &*again.header("cache-control")), ("true", "no-store"));
    ask("b.jpg").refused(422, "IDEMPOTENCY_KEY_REUSED");

    let (id, fields) = announced(&app, "");
    assert_eq!(send(&app, filled(&fields, b"text")).status, 204);
    let registered = json(REGISTER, "five", &registration(&id, b"text"));
    // Whether it has been looked at by then is chance; what was answered first is answered again.
    assert_eq!((registered.status, registered.json()["id"].as_str()), (200, Some(&*id)));
    app.settled(&id);
    assert_eq!(json(REGISTER, "five", &registration(&id, b"text")).body, registered.body);

    // A key is its caller's.
    let made = app.cli(&["user", "add", "b@example.com", "--role", "creator"]);
    let said = String::from_utf8(made.stdout).unwrap();
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (api_key, upload_key) = (value("API key: "), value("upload key: "));
    let theirs = [("X-FileSpin-Api-Key", &*api_key), TYPE, ("Idempotency-Key", "one")];
    let answer = app.call("POST", UPLOAD, &theirs, &form("theirs").end());
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, String::new()));
    let page = |key: &str, form: Form| {
        let headers = [("X-FileSpin-Upload-Key", &*upload_key), TYPE, ("Idempotency-Key", key)];
        app.call("POST", "/api/v1/upload", &headers, &form.end())
    };
    let picked = page("one", form("picked"));
    assert_eq!(picked.status, 200, "{}", picked.text());
    assert_eq!(page("one", form("picked")).body, picked.body);
    page("one", form("other")).refused(422, "IDEMPOTENCY_KEY_REUSED");
}

#[test]
fn what_is_kept_is_never_told_to_be_lost() {
    let mut app = Appliance::start();
    app.crash(|data_dir| {
        for (name, when) in [("one", "UPDATE ON repeatable"), ("two", "INSERT ON handed_in")] {
            meddle(data_dir, &format!("CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, 'full'); END"));
        }
    });
    let form = || Form::new().file("f", "a.txt", b"text");
    let first = upload_as(&app, "one", form());
    assert_eq!(first.status, 200, "{}", first.text());
    let again = upload_as(&app, "one", form());
    assert_eq!((again.status, &again.json()["assets"][0]["id"]), (200, &first.json()["assets"][0]["id"]));
    let made = app.cli(&["user", "add", "b@example.com", "--role", "creator"]);
    let said = String::from_utf8(made.stdout).unwrap();
    let key = said.lines().find_map(|line| line.strip_prefix("upload key: ")).unwrap();
    let page = app.call("POST", "/api/v1/upload", &[("X-FileSpin-Upload-Key", key), TYPE], &form().end());
    assert_eq!(page.status, 200, "{}", page.text());
}

/// An upload of this length of which only the beginning is sent.
fn begun(app: &Appliance, length: u64, more: &str) -> TcpStream {
    let mut stream = app.connect();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nX-FileSpin-Api-Key: {KEY}\r\nContent-Type: {}\r\n\
         {more}Content-Length: {length}\r\n\r\n--b0undary\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\nbegin",
        Form::TYPE
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn two_at_once_under_one_key_are_one() {
    let app = Appliance::start();
    let mut first = begun(&app, 10_000, "Idempotency-Key: same\r\n");
    app.staging_holds(1);
    let form = Form::new().file("f", "a.bin", b"begin");
    upload_as(&app, "same", form).refused(409, "IDEMPOTENCY_KEY_IN_USE");
    first.write_all(b"\r\n--b0undary--\r\n").unwrap();
    drop(first);
    app.staging_empties();
    let form = || Form::new().file("f", "a.bin", b"begin");
    let deadline = Instant::now() + PATIENCE;
    while upload_as(&app, "same", form()).status != 200 {
        assert!(Instant::now() < deadline, "the key is still taken");
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
}

#[test]
fn the_same_content_is_told_and_not_merged() {
    let app = Appliance::start();
    let form =
        || Form::new().file("f", "a.txt", b"the same").file("g", "b.txt", b"the same").file("h", "c.txt", b"another");
    let said = app.upload(form()).json();
    let id = |n: usize| said["assets"][n]["id"].clone();
    assert_eq!((&said["assets"][0]["duplicate_of"], &said["assets"][2]["duplicate_of"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&said["assets"][1]["duplicate_of"], &said["files"][1]["duplicate_of"]),
        (&json!([id(0)]), &json!([id(0)]))
    );
    let later = app.upload(form()).json();
    assert_eq!(later["assets"][0]["duplicate_of"], json!([id(1), id(0)]));
    let settled = app.settled(later["assets"][2]["id"].as_str().unwrap());
    assert_eq!(settled["metadata"]["duplicate_of"], json!([id(2)]));
    assert_eq!(app.json("/api/v1/assets")["total"], 6);
    // What is in the trash is nobody's double.
    assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{}", id(2).as_str().unwrap()), &[AUTH], b"").status, 200);
    let third = app.upload(Form::new().file("h", "c.txt", b"another")).json();
    assert_eq!(third["assets"][0]["duplicate_of"], json!([later["assets"][2]["id"]]));

    let made = app.cli(&["user", "add", "b@example.com", "--role", "creator"]);
    let made = String::from_utf8(made.stdout).unwrap();
    let key = made.lines().find_map(|line| line.strip_prefix("upload key: ")).unwrap();
    let page = app.call("POST", "/api/v1/upload", &[("X-FileSpin-Upload-Key", key), TYPE], &form().end()).json();
    assert_eq!(page["assets"][0]["duplicate_of"], Value::Null, "a page learns nothing of others");

    let none = Appliance::with(&[("CLOAKROOM_INGEST__DUPLICATES", "none")]);
    none.upload(form());
    assert_eq!(none.upload(form()).json()["assets"][0]["duplicate_of"], Value::Null);
}

#[test]
fn room_is_promised_once_and_comes_back() {
    let stat = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    // Large shares, so that what others write meanwhile does not count.
    let (floor, large) = (free / 4, free / 2);
    let app = Appliance::with(&[
        ("CLOAKROOM_STORAGE__FREE_FLOOR_BYTES", &floor.to_string()),
        ("CLOAKROOM_INGEST__MAX_FILE_BYTES", &free.to_string()),
    ]);
    let first = begun(&app, large, "");
    app.staging_holds(1);
    Answer::read(begun(&app, large, ""), "POST").refused(507, "DISK_FULL");
    assert_eq!(app.upload(Form::new().file("f", "small.txt", b"text")).status, 200, "a small one has room");
    drop(first);
    app.staging_empties();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let third = begun(&app, large, "");
        third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        if (&third).read(&mut [0; 1]).is_err() {
            break; // It is being taken in: nothing is said yet.
        }
        assert!(Instant::now() < deadline, "the room did not come back");
    }
}
