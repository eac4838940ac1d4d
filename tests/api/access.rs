//! How callers are told apart: keys, tokens, pages of other origins. Who may call what is in `matrix`.

use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::KEY;
use crate::harness::PASSWORD;

#[test]
fn every_route_refuses_credentials_that_are_none() {
    let app = Appliance::start();
    let document = app.get("/openapi.json").json();
    let mut rows = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &"0".repeat(32)).replace("{job_id}", "0").replace("{key}", "original");
        for (method, row) in methods.as_object().unwrap() {
            rows += 1;
            let method = method.to_uppercase();
            let what = format!("{method} {path}, which asks for {}", row["x-permission"]);
            for wrong in [
                ("X-FileSpin-Api-Key", "00000000000000000000000000000000"),
                ("X-FileSpin-Api-Key", "'; --"),
                ("Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),
                ("Authorization", "Basic YWRtaW46YWRtaW4="),
            ] {
                assert_eq!(app.call(&method, &path, &[wrong], b"").status, 401, "{wrong:?} {what}");
            }
        }
    }
    assert!(rows > 15, "only {rows} rows in the document");
}

#[test]
fn tokens() {
    let app = Appliance::start();
    let login = |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password }).to_string();
        app.call("POST", "/api/v1/login", &[("Content-Type", "application/json")], body.as_bytes())
    };
    login(EMAIL, "wrong").refused(401, "UNAUTHORIZED");
    assert_eq!(
        login("nobody@example.com", "wrong").json()["detail"],
        login(EMAIL, "wrong").json()["detail"],
        "who exists is nobody's business"
    );
    app.call("POST", "/api/v1/login", &[], b"{").refused(400, "INVALID_REQUEST");

    let answer = login(EMAIL, PASSWORD);
    let said = answer.json();
    assert_eq!((answer.status, &said["role_id"], &said["user_email"]), (200, &json!(1), &json!(EMAIL)));
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = said["jwt"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let valid = app.call("GET", "/api/v1/auth/validate", &[("Authorization", &bearer)], b"");
    assert_eq!((valid.status, &valid.json()["user_id"]), (200, &said["user_id"]));
    assert_eq!(app.get(&format!("/api/v1/auth/validate?_jwt={token}")).status, 200);
    assert_eq!(app.call("GET", "/api/v1/assets", &[("Authorization", &bearer)], b"").status, 200);
    // Another signature. The last digits of a base64 text may carry no bits, so one in the middle.
    let middle = token.len() - 10;
    let other = if &token[middle..=middle] == "A" { "B" } else { "A" };
    for bad in ["garbage", "a.b.c", "", &format!("{}{other}{}", &token[..middle], &token[middle + 1..])] {
        app.get(&format!("/api/v1/auth/validate?_jwt={bad}")).refused(401, "UNAUTHORIZED");
    }
    app.get("/api/v1/auth/validate").refused(401, "UNAUTHORIZED");

    // The token is asked about, whoever asks: a key of one's own makes no other text valid.
    let ask = |path: &str, headers: &[(&str, &str)]| app.call("GET", path, headers, b"");
    let own = ("Authorization", &*bearer);
    for own in [AUTH, own] {
        ask("/api/v1/auth/validate?_jwt=garbage", &[own]).refused(401, "UNAUTHORIZED");
        ask("/api/v1/auth/validate?_jwt=", &[own]).refused(401, "UNAUTHORIZED");
        assert_eq!(ask(&format!("/api/v1/auth/validate?_jwt={token}"), &[own]).status, 200);
    }
    ask("/api/v1/auth/validate", &[AUTH]).refused(401, "UNAUTHORIZED");
    ask("/api/v1/auth/validate", &[AUTH, ("Authorization", "Bearer garbage")]).refused(401, "UNAUTHORIZED");
    assert_eq!(ask("/api/v1/auth/validate", &[AUTH, own]).status, 200);

    // Somebody else's token is theirs, also when an administrator asks about it.
    let added = app.cli(&["user", "add", "--role", "user", "guest@example.com"]);
    let printed = String::from_utf8(added.stdout).unwrap();
    let password = printed.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    let guest = login("guest@example.com", password).json();
    let validated = ask(&format!("/api/v1/auth/validate?_jwt={}", guest["jwt"].as_str().unwrap()), &[AUTH]).json();
    assert_eq!(validated["user_id"], guest["user_id"]);
    assert_ne!(guest["user_id"], said["user_id"]);
    app.call("POST", "/api/v1/user/logout", &[own], b"");
    ask(&format!("/api/v1/auth/validate?_jwt={token}"), &[AUTH]).refused(401, "UNAUTHORIZED");
}

#[test]
fn pages_of_other_origins() {
    let ask = |app: &Appliance, method: &str, headers: &[(&str, &str)]| {
        let answer = app.call(method, "/api/v1/assets", headers, b"");
        (answer.status, answer.header("access-control-allow-origin"), answer)
    };
    let page = ("Origin", "https://page.example");
    let open = Appliance::start();
    let (status, allowed, answer) = ask(&open, "OPTIONS", &[page, ("Access-Control-Request-Method", "POST")]);
    assert_eq!((status, &*allowed), (204, "*"));
    assert!(answer.header("access-control-allow-headers").contains("X-FileSpin-Api-Key"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let (status, allowed, _) = ask(&open, "GET", &[page, AUTH]);
    assert_eq!((status, &*allowed), (200, "*"));
    let (status, allowed, _) = ask(&open, "GET", &[page, ("X-FileSpin-Api-Key", &KEY.replace('0', "1"))]);
    assert_eq!((status, &*allowed), (401, "*"), "the page may read why it was refused");

    let closed = Appliance::with(&[("CLOAKROOM_HTTP__CORS_ORIGINS", "https://ours.example")]);
    for (origin, expected) in [("https://ours.example", "https://ours.example"), ("https://page.example", "")] {
        let (_, allowed, answer) = ask(&closed, "GET", &[("Origin", origin), AUTH]);
        assert_eq!(allowed, expected);
        assert!(expected.is_empty() || answer.header("vary").contains("Origin"), "{answer:?}");
    }
}

#[test]
fn who_asks_too_much_is_told_when_to_come_back() {
    let app = Appliance::with(&[
        ("CLOAKROOM_HTTP__RATES__CALLS_PER_SECOND", "1"),
        ("CLOAKROOM_HTTP__RATES__CALLS_BURST", "5"),
        ("CLOAKROOM_HTTP__RATES__FAILURES_PER_SECOND", "1"),
        ("CLOAKROOM_HTTP__RATES__FAILURES_BURST", "3"),
    ]);
    let limits = app.call("GET", "/api/v1/limits", &[AUTH], b"");
    assert_eq!(limits.status, 200);
    assert_eq!(limits.json()["requests"]["calls_burst"], 5);
    let last = |headers: &[(&str, &str)], path: &str| {
        (0..200).map(|_| app.call("GET", path, headers, b"")).find(|answer| answer.status == 429).unwrap()
    };
    let slower = last(&[AUTH], "/api/v1/assets");
    assert_eq!(slower.json()["message"], "TOO_MANY_REQUESTS");
    assert!(slower.header("retry-after").parse::<u32>().unwrap() >= 1);
    // Who guesses is told so; what needs no right is still there for everybody.
    let guessed = format!("/api/v1/assets/{}/conversions", "0".repeat(32));
    assert_eq!(last(&[], &guessed).json()["message"], "TOO_MANY_REQUESTS");
    assert_eq!(app.call("GET", "/openapi.json", &[], b"").status, 200);
}
