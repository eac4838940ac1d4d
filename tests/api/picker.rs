//! Pages with an upload key: what they may hand in, from where, and what they may read of the answer.

use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::jpeg;

const UPLOAD_KEY: &str = "fedcba9876543210fedcba9876543210";
const TYPE: (&str, &str) = ("Content-Type", Form::TYPE);
const OURS: (&str, &str) = ("Origin", "https://www.example.com");
const ACAO: &str = "access-control-allow-origin";

fn start() -> Appliance {
    Appliance::with(&[("CLOAKROOM_ADMIN_UPLOAD_KEY", UPLOAD_KEY)])
}

fn authorize(app: &Appliance, domains: &[&str]) {
    let settings = app.json("/api/v1/user/settings");
    let kept = |name: &str| settings.pointer(&format!("/auth/{name}")).cloned();
    let body = json!({"key": "auth", "value": {
        "authorized_domains": domains,
        "api_key": kept("api_key"),
        "upload_key": kept("upload_key"),
        "dropbox_app_key": kept("dropbox_app_key"),
        "dropbox_app_secret": kept("dropbox_app_secret"),
    }});
    let body = body.to_string();
    let answer = app.call("PATCH", "/api/v1/user/settings/update", &[AUTH], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn hand_in(app: &Appliance, query: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[TYPE], headers].concat();
    let body = Form::new().file("file", "p.jpg", &jpeg(30, 20)).end();
    app.call("POST", &format!("/api/v1/upload{query}"), &headers, &body)
}

#[test]
fn a_page_hands_in() {
    let app = start();
    let key = format!("?upload_key={UPLOAD_KEY}&picker_host=claimed.example");
    let answer = hand_in(&app, &key, &[OURS]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header(ACAO), OURS.1);
    assert!(answer.header("vary").contains("Origin"));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let said = answer.json();
    assert_eq!((&said["success"], &said["files"][0]["id"]), (&json!(true), &said["assets"][0]["id"]));
    let id = said["files"][0]["id"].as_str().unwrap();
    let data = app.settled(id);
    assert_eq!((&data["creator_id"], &data["name"]), (&json!(1), &json!("p.jpg")));

    // It cannot read, not even what it handed in.
    for path in [format!("/api/v1/assets/{id}/data"), "/api/v1/assets".to_owned(), "/api/v1/user".to_owned()] {
        app.get(&format!("{path}?upload_key={UPLOAD_KEY}")).refused(401, "UNAUTHORIZED");
        app.call("GET", &path, &[("X-FileSpin-Api-Key", UPLOAD_KEY)], b"").refused(401, "UNAUTHORIZED");
    }
    assert_eq!(hand_in(&app, "", &[("X-FileSpin-Upload-Key", UPLOAD_KEY)]).status, 200, "a program");
    // It may describe what it handed in, and nothing else.
    let ours = format!("/api/v1/assets/{id}/data/update");
    let described = app.call("POST", &format!("{ours}{key}"), &[OURS], b"{\"data\": {\"by\": \"page\"}}");
    assert_eq!((described.status, described.json()), (200, json!({"status": "OK", "id": id})));
    assert_eq!(described.header(ACAO), OURS.1);
    assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["data"]["by"], "page");
    for other in [app.keep("other.txt", b"x"), "0".repeat(32)] {
        let path = format!("/api/v1/assets/{other}/data/update{key}");
        app.call("POST", &path, &[OURS], b"{\"data\": {}}").refused(403, "FORBIDDEN");
    }
    hand_in(&app, "", &[]).refused(401, "UNAUTHORIZED");
    hand_in(&app, "?upload_key=", &[]).refused(401, "UNAUTHORIZED");
    hand_in(&app, "?upload_key=00000000000000000000000000000000", &[OURS]).refused(401, "UNAUTHORIZED");
    hand_in(&app, "", &[AUTH]).refused(403, "FORBIDDEN");
    let empty = app.call("POST", &format!("/api/v1/upload{key}"), &[TYPE], &Form::new().end());
    empty.refused(400, "NO_FILE");
}

#[test]
fn only_authorised_pages_hand_in_and_read_the_answer() {
    let app = start();
    authorize(&app, &["example.com"]);
    let key = format!("?upload_key={UPLOAD_KEY}");
    let preflight = |origin: &str| {
        let asked = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        app.call("OPTIONS", "/api/v1/upload", &asked, b"")
    };
    for (origin, admitted) in [
        ("https://example.com", true),
        ("https://shop.example.com", true),
        ("http://example.com:3000", true),
        ("https://evil-example.com", false),
        ("https://example.com.evil.org", false),
        ("https://evil.org", false),
        ("null", false),
    ] {
        let answer = hand_in(&app, &key, &[("Origin", origin)]);
        let allowed = if admitted { origin } else { "" };
        assert_eq!(answer.header(ACAO), allowed, "{origin}");
        assert_eq!(preflight(origin).header(ACAO), allowed, "{origin}");
        if admitted {
            assert_eq!(answer.status, 200, "{origin}: {}", answer.text());
        } else {
            answer.refused(403, "FORBIDDEN");
        }
    }
    hand_in(&app, &key, &[]).refused(403, "FORBIDDEN");
    let claimed = format!("{key}&picker_host=example.com");
    hand_in(&app, &claimed, &[("Origin", "https://evil.org")]).refused(403, "FORBIDDEN");
    assert_eq!(hand_in(&app, &key, &[("Referer", "https://www.example.com/page?x=1")]).status, 200);
    hand_in(&app, &key, &[("Origin", "null"), ("Referer", "https://example.com/")]).refused(403, "FORBIDDEN");
    let other = app.call("GET", "/api/v1/assets", &[AUTH, ("Origin", "https://evil.org")], b"");
    assert_eq!(other.header(ACAO), "*", "other calls are the configuration's business");
    authorize(&app, &[]);
    assert_eq!(hand_in(&app, &key, &[("Origin", "https://evil.org")]).header(ACAO), "https://evil.org");
}

#[test]
fn an_upload_key_is_worth_what_its_user_is() {
    let app = start();
    let add = |name: &str, role: &str| {
        let made = app.cli(&["user", "add", &format!("{name}@example.com"), "--role", role]);
        let said = String::from_utf8(made.stdout).unwrap();
        said.lines().find_map(|line| line.strip_prefix("upload key: ")).unwrap().to_owned()
    };
    let looker = add("looker", "user");
    hand_in(&app, &format!("?upload_key={looker}"), &[]).refused(403, "FORBIDDEN");
    let maker = add("maker", "creator");
    assert_eq!(hand_in(&app, &format!("?upload_key={maker}"), &[]).status, 200);
    let found = app.post_json("/api/v1/users/search", "{\"keyword\": \"maker\"}").json();
    let path = format!("/api/v1/users/{}", found["users"][0]["id"]);
    assert_eq!(found["users"][0]["uploadKey"], maker);
    let disable = app.call("PATCH", &path, &[AUTH], b"{\"enabled\": false}");
    assert_eq!(disable.status, 200, "{}", disable.text());
    hand_in(&app, &format!("?upload_key={maker}"), &[]).refused(403, "FORBIDDEN");
}

#[test]
fn upload_keys_are_capped() {
    let app = Appliance::with(&[
        ("CLOAKROOM_ADMIN_UPLOAD_KEY", UPLOAD_KEY),
        ("CLOAKROOM_ACCOUNTS__UPLOAD_KEY_CALLS_PER_MINUTE", "3"),
        ("CLOAKROOM_ACCOUNTS__UPLOAD_KEY_MAX_BYTES", "2000"),
    ]);
    let key = format!("/api/v1/upload?upload_key={UPLOAD_KEY}");
    let big = Form::new().file("file", "b.txt", &[b'x'; 3000]).end();
    app.call("POST", &key, &[TYPE], &big).refused(413, "TOO_LARGE");
    app.staging_empties();
    let mut unannounced = app.connect();
    {
        use std::io::Write;
        let head = format!("POST {key} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Type: {}\r\n", Form::TYPE);
        let body = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", big.len());
        unannounced.write_all(&[head.as_bytes(), body.as_bytes(), &big, b"\r\n0\r\n\r\n"].concat()).unwrap();
    }
    Answer::read(unannounced, "POST").refused(413, "TOO_LARGE");
    app.staging_empties();
    let small = Form::new().file("file", "s.txt", b"x").end();
    assert_eq!(app.call("POST", &key, &[TYPE], &small).status, 200);
    // One more is allowed every 20 seconds, so this takes as many calls as the machine is slow.
    let refused =
        (0..100).map(|_| app.call("POST", &key, &[TYPE], &small)).find(|answer| answer.status != 200).unwrap();
    refused.refused(429, "TOO_MANY_REQUESTS");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(app.upload(Form::new().file("file", "s.txt", &[b'x'; 5000])).status, 200, "others are not held up");
}
