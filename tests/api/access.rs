//! Who may call what. The rows come from `/openapi.json`, so a new route is covered when it is there.

use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::KEY;
use crate::harness::PASSWORD;

const ROLES: [&str; 4] = ["admin", "manager", "creator", "user"];

/// How many of [`ROLES`], from the first, hold a permission: the contract's table.
#[expect(clippy::panic, reason = "a word that the table does not know fails the test")]
fn holders(permission: &str) -> usize {
    match permission {
        "ANYONE" | "READ_ASSET" => 4,
        "CREATE_ASSET" | "EDIT_ASSET" | "DISTRIBUTE_ASSET" => 3,
        "DELETE_UNDELETE_ASSET" => 2,
        "PURGE_ASSET" | "UPDATE_SETTINGS" | "USER_ADMIN" => 1,
        other => panic!("who holds {other}?"),
    }
}

#[test]
fn every_route_asks_for_its_permission() {
    let app = Appliance::start();
    let key_of = |role: &str| {
        let made = app.cli(&["user", "add", &format!("a.{role}@example.com"), "--role", role]);
        let said = String::from_utf8(made.stdout).unwrap();
        assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
        said.lines().find_map(|line| line.strip_prefix("API key: ")).unwrap().to_owned()
    };
    let keys = ROLES.map(key_of);
    let document = app.get("/openapi.json").json();
    let mut rows = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &"0".repeat(32)).replace("{job_id}", "0").replace("{key}", "original");
        for (method, row) in methods.as_object().unwrap() {
            rows += 1;
            let method = method.to_uppercase();
            let permission = row["x-permission"].as_str().unwrap();
            let what = format!("{method} {path}, which asks for {permission}");
            for (at, key) in keys.iter().enumerate() {
                // An answer without end is refused for this header instead.
                let headers = [("X-FileSpin-Api-Key", &**key), ("Last-Event-ID", "none")];
                let status = app.call(&method, &path, &headers, b"").status;
                assert_eq!(status == 403, at >= holders(permission), "{} {what}: {status}", ROLES[at]);
                assert_ne!(status, 401, "{} {what}", ROLES[at]);
                assert!(status < 500, "{} {what}: {status}", ROLES[at]);
            }
            let nobody = app.call(&method, &path, &[], b"").status;
            assert!(permission == "ANYONE" || nobody == 401, "nobody {what}: {nobody}");
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
