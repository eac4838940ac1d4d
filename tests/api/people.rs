//! Users, invitations, keys, the second factor, and what callers see of them on the wire.

use base64::Engine;
use ring::hmac;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::KEY;
use crate::harness::PASSWORD;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const UPDATE: &str = "/api/v1/user/settings/update";

fn send(app: &Appliance, method: &str, path: &str, who: Option<(&str, &str)>, body: &Value) -> Answer {
    let headers: Vec<_> = [Some(JSON), who].into_iter().flatten().collect();
    app.call(method, path, &headers, body.to_string().as_bytes())
}

/// As the administrator; the JSON of a 200.
#[track_caller]
fn done(app: &Appliance, method: &str, path: &str, body: &Value) -> Value {
    let answer = send(app, method, path, Some(AUTH), body);
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json()
}

fn login(app: &Appliance, email: &str, password: &str, otp: Option<&str>) -> Answer {
    let body = json!({"email": email, "password": password, "otp": otp});
    send(app, "POST", "/api/v1/login", None, &body)
}

#[test]
fn a_user_from_the_invitation_to_the_end() {
    let app = Appliance::start();
    let me = app.json("/api/v1/user");
    let fields: Vec<_> = me.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "access_id",
        "addons",
        "apikey",
        "email",
        "enabled",
        "first_name",
        "group_asset_access",
        "group_id",
        "id",
        "invite_status",
        "last_name",
        "locale",
        "permissions",
        "role_id",
        "role_name",
        "uploadKey",
    ];
    let mut sorted = fields.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, documented);
    assert_eq!((&me["apikey"], &me["invite_status"], &me["role_id"]), (&json!(KEY), &json!("REGISTERED"), &json!(1)));
    assert_eq!(me["permissions"].as_array().unwrap().len(), 10);

    let ada = json!({"email": "ada@example.com", "first_name": "Ada", "role_id": 3});
    let made = done(&app, "POST", "/api/v1/users", &ada);
    assert_eq!((&made["invite_status"], &made["apikey"]), (&json!("REQUESTED"), &Value::Null));
    let path = format!("/api/v1/users/{}", made["id"]);
    let token = made["invitation"]["token"].as_str().unwrap();
    assert!(made["invitation"]["link"].as_str().unwrap().ends_with(&format!("/invitation#{token}")), "{made}");
    assert!(done(&app, "GET", &path, &json!({})).get("invitation").is_none(), "shown once");

    let whose = send(&app, "POST", "/api/v1/user/invitation", None, &json!({"token": token})).json();
    assert_eq!(whose["email"], "ada@example.com");
    let page = app.get("/invitation");
    assert_eq!((page.status, &*page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("script-src 'sha256-"), "{page:?}");
    let acceptance = json!({"token": token, "password": "a long password", "last_name": "L"});
    let accept = || send(&app, "POST", "/api/v1/user/invitation/accept", None, &acceptance);
    let accepted = accept();
    assert_eq!((accepted.status, &*accepted.header("cache-control")), (200, "no-store"), "{}", accepted.text());
    accept().refused(404, "NOT_FOUND");
    let accepted = accepted.json();
    assert_eq!((&accepted["invite_status"], &accepted["last_name"]), (&json!("REGISTERED"), &json!("L")));
    let hers = ("X-FileSpin-Api-Key", accepted["apikey"].as_str().unwrap());
    assert_eq!(send(&app, "GET", "/api/v1/user", Some(hers), &json!({})).json()["id"], made["id"]);
    send(&app, "GET", &path, Some(hers), &json!({})).refused(403, "FORBIDDEN");

    let found = done(&app, "POST", "/api/v1/users/search", &json!({"keyword": "ada"}));
    assert_eq!((&found["total"], &found["users"][0]["id"]), (&json!(1), &made["id"]));
    assert_eq!(done(&app, "GET", "/api/v1/users?limit=1", &json!({}))["total"], 2);
    let changed = done(&app, "PATCH", &path, &json!({"role_name": "MANAGER", "locale": "de-CH"}));
    assert_eq!(
        (&changed["role_id"], &changed["locale"], &changed["first_name"]),
        (&json!(2), &json!("de-CH"), &json!("Ada"))
    );

    // Her own password: the old one is asked for, and tokens of before end.
    let jwt = login(&app, "ada@example.com", "a long password", None).json()["jwt"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {jwt}");
    let token = ("Authorization", &*bearer);
    let own = |body: Value| send(&app, "PATCH", "/api/v1/user", Some(token), &body);
    own(json!({"password": "another password"})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    own(json!({"password": "another password", "old_password": "x"})).refused(403, "FORBIDDEN");
    assert_eq!(own(json!({"first_name": "Augusta", "role_id": 1})).json()["role_id"], 2, "not by herself");
    assert_eq!(own(json!({"password": "another password", "old_password": "a long password"})).status, 200);
    own(json!({"first_name": "x"})).refused(401, "UNAUTHORIZED");

    done(&app, "PATCH", &path, &json!({"enabled": false}));
    send(&app, "GET", "/api/v1/user", Some(hers), &json!({})).refused(403, "FORBIDDEN");
    login(&app, "ada@example.com", "another password", None).refused(401, "UNAUTHORIZED");
    done(&app, "DELETE", &path, &json!({}));
    send(&app, "GET", &path, Some(AUTH), &json!({})).refused(404, "USER_NOT_FOUND");
    send(&app, "GET", "/api/v1/user", Some(hers), &json!({})).refused(401, "UNAUTHORIZED");

    let own_path = format!("/api/v1/users/{}", me["id"]);
    for (method, body) in
        [("DELETE", json!({})), ("PATCH", json!({"enabled": false})), ("PATCH", json!({"role_id": 2}))]
    {
        send(&app, method, &own_path, Some(AUTH), &body).refused(409, "CONFLICT");
    }
    assert_eq!(app.json("/api/v1/groups")["groups"][0]["group_id"], 1);
}

#[test]
fn users_that_make_no_sense() {
    let app = Appliance::start();
    let deep = "[".repeat(300) + &"]".repeat(300);
    for (body, status, word) in [
        (json!({"email": "a@b.c"}).to_string(), 400, "MISSING_MANDATORY_PARAMETERS"),
        (json!({"role_id": 4}).to_string(), 400, "MISSING_MANDATORY_PARAMETERS"),
        (json!({"email": "a b@c", "role_id": 4}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 5}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 1, "role_name": "USER"}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 4, "group_id": 2}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 4, "group_asset_access": false}).to_string(), 422, "FEATURE_UNAVAILABLE"),
        (json!({"email": "a@b.c", "role_id": 4, "addons": ["AUTO_TAGS"]}).to_string(), 422, "FEATURE_UNAVAILABLE"),
        (json!({"email": "a@b.c", "role_id": 4, "enabled": "no"}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 4, "password": "short"}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": "a@b.c", "role_id": 4, "locale": "<b>"}).to_string(), 400, "INVALID_REQUEST"),
        (json!({"email": EMAIL, "role_id": 4}).to_string(), 409, "CONFLICT"),
        (json!({"email": ["a@b.c"], "role_id": 4}).to_string(), 400, "INVALID_REQUEST"),
        (format!("{{\"email\": {deep}}}"), 400, "INVALID_REQUEST"),
        (format!("{{\"x\": \"{}\"}}", "x".repeat(300_000)), 413, "TOO_LARGE"),
        ("{".to_owned(), 400, "INVALID_REQUEST"),
    ] {
        app.post_json("/api/v1/users", &body).refused(status, word);
    }
    for path in ["/api/v1/users/999", "/api/v1/users/x", "/api/v1/users/1%27--", "/api/v1/users/99999999999999999999"] {
        app.call("GET", path, &[AUTH], b"").refused(404, "USER_NOT_FOUND");
    }
    assert_eq!(app.json("/api/v1/users")["total"], 1, "nobody was made");
}

#[test]
fn what_is_said_of_a_user_holds_or_is_refused() {
    let app = Appliance::start();
    let said = json!({"email": "eve@example.com", "role_id": 4, "password": "a long password", "enabled": false,
                      "group_asset_access": true, "addons": []});
    let made = done(&app, "POST", "/api/v1/users", &said);
    assert_eq!((&made["enabled"], &made["group_asset_access"]), (&json!(false), &json!(true)), "{made}");
    let (path, key) = (format!("/api/v1/users/{}", made["id"]), made["apikey"].as_str().unwrap());
    let hers = Some(("X-FileSpin-Api-Key", key));
    login(&app, "eve@example.com", "a long password", None).refused(401, "UNAUTHORIZED");
    send(&app, "GET", "/api/v1/user", hers, &json!({})).refused(403, "FORBIDDEN");

    // What is the same for everybody may be sent back as it was read.
    assert_eq!(done(&app, "PATCH", &path, &json!({"enabled": true, "group_asset_access": true}))["enabled"], true);
    assert_eq!(login(&app, "eve@example.com", "a long password", None).status, 200);
    let refused =
        |body: &Value, status: u16, word: &str| send(&app, "PATCH", &path, Some(AUTH), body).refused(status, word);
    let why = refused(&json!({"password": "another password", "first_name": "Eve"}), 400, "INVALID_REQUEST");
    assert!(why.contains("owner"), "{why}");
    refused(&json!({"group_asset_access": false, "first_name": "Eve"}), 422, "FEATURE_UNAVAILABLE");
    refused(&json!({"addons": ["AUTO_TAGS"], "first_name": "Eve"}), 422, "FEATURE_UNAVAILABLE");
    assert_eq!(done(&app, "GET", &path, &json!({}))["first_name"], "", "nothing of a refused change is kept");
    assert_eq!(login(&app, "eve@example.com", "a long password", None).status, 200, "the password is what it was");
}

#[test]
fn a_second_factor_guards_the_password() {
    let app = Appliance::start();
    let enrolled = done(&app, "POST", "/api/v1/user/second_factor", &json!({"password": PASSWORD}));
    let secret = enrolled["secret"].as_str().unwrap();
    assert!(enrolled["otpauth_uri"].as_str().unwrap().contains(secret));
    assert!(enrolled["qr_svg"].as_str().unwrap().starts_with("<svg "));
    assert_eq!(login(&app, EMAIL, PASSWORD, None).status, 200);
    let confirm =
        |otp: &str| send(&app, "POST", "/api/v1/user/second_factor/confirm", Some(AUTH), &json!({"otp": otp}));
    confirm("12345").refused(400, "INVALID_REQUEST");
    let codes = confirm(&code(secret)).json()["recovery_codes"].clone();
    assert_eq!(codes.as_array().unwrap().len(), 10);
    assert_eq!(app.json("/api/v1/user/second_factor"), json!({"enabled": true, "recovery_codes_left": 10}));

    login(&app, EMAIL, PASSWORD, None).refused(401, "SECOND_FACTOR_REQUIRED");
    login(&app, EMAIL, "wrong", None).refused(401, "UNAUTHORIZED");
    login(&app, EMAIL, PASSWORD, codes[0].as_str()).json()["jwt"].as_str().unwrap();
    login(&app, EMAIL, PASSWORD, codes[0].as_str()).refused(401, "UNAUTHORIZED");
    let disable = |otp: &Value| {
        let body = json!({"password": PASSWORD, "otp": otp});
        send(&app, "POST", "/api/v1/user/second_factor/disable", Some(AUTH), &body)
    };
    disable(&json!("000000")).refused(401, "UNAUTHORIZED");
    assert_eq!(disable(&codes[1]).status, 200);
    assert_eq!(login(&app, EMAIL, PASSWORD, None).status, 200);
    disable(&codes[2]).refused(404, "NOT_FOUND");

    // Lost with all codes: the command line of the box helps.
    let enrolled = done(&app, "POST", "/api/v1/user/second_factor", &json!({"password": PASSWORD}));
    confirm(&code(enrolled["secret"].as_str().unwrap())).json()["recovery_codes"].as_array().unwrap();
    login(&app, EMAIL, PASSWORD, None).refused(401, "SECOND_FACTOR_REQUIRED");
    assert!(app.cli(&["user", "disable-second-factor", EMAIL]).status.success());
    assert_eq!(login(&app, EMAIL, PASSWORD, None).status, 200);
}

/// What an authenticator app shows now (RFC 6238).
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a step of a test fails by panicking, too")]
fn code(secret: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "an app on another device has its own clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut key = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for c in secret.bytes() {
        bits = bits << 5 | u32::from(if c.is_ascii_digit() { c - b'2' + 26 } else { c - b'A' });
        held += 5;
        if held >= 8 {
            held -= 8;
            key.push((bits >> held & 255) as u8);
        }
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = hmac::sign(&key, &(now / 30).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let four: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

#[test]
fn too_many_logins() {
    // One wrong password a minute: refusing takes no time, but finding it wrong does.
    let app = Appliance::with(&[("CLOAKROOM_ACCOUNTS__LOGINS_PER_ACCOUNT", "1")]);
    for who in [EMAIL, "nobody@example.com"] {
        login(&app, who, "wrong", None).refused(401, "UNAUTHORIZED");
        let refused = login(&app, who, "wrong", None);
        refused.refused(429, "TOO_MANY_REQUESTS");
        let wait: u32 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    login(&app, EMAIL, PASSWORD, None).refused(429, "TOO_MANY_REQUESTS");
    let body = json!({"email": EMAIL, "password": PASSWORD});
    let pretending = [JSON, ("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")];
    app.call("POST", "/api/v1/login", &pretending, body.to_string().as_bytes()).refused(429, "TOO_MANY_REQUESTS");
    assert_eq!(app.call("GET", "/api/v1/user", &[AUTH], b"").status, 200, "keys are not held up");
}

#[test]
fn keys_are_rotated_by_settings_and_by_themselves() {
    let app = Appliance::start();
    let auth = || app.json("/api/v1/user/settings")["auth"].clone();
    let before = auth();
    assert_eq!(before["api_key"], KEY);
    let asset = app.keep("a.txt", b"content");
    let link = |key: &str| {
        let path = format!("{asset}/content/original");
        let access = app.call("GET", "/api/v1/user", &[("X-FileSpin-Api-Key", key)], b"").json();
        let text = format!("{path}?expiry=4102444800&accessId={}", access["access_id"].as_str().unwrap());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()), text.as_bytes());
        let signature = base64::engine::general_purpose::URL_SAFE.encode(tag).replace('=', "%3D");
        format!("/api/v1/assets/{text}&signature={signature}")
    };
    let old_link = link(KEY);
    assert_eq!(app.get(&old_link).status, 200);

    let mut value = before.clone();
    value.as_object_mut().unwrap().remove("api_key");
    let update = |key: &str, value: &Value| {
        send(&app, "PATCH", UPDATE, Some(("X-FileSpin-Api-Key", key)), &json!({"key": "auth", "value": value}))
    };
    update(KEY, &value).refused(400, "MISSING_MANDATORY_PARAMETERS");
    assert_eq!(update(KEY, &before).status, 200);
    assert_eq!(auth(), before, "the same again changes nothing");

    let mine = "feedfacefeedfacefeedfacefeedface";
    value["api_key"] = json!(mine);
    value["dropbox_app_secret"] = json!("of dropbox");
    value["authorized_domains"] = json!(["Example.com"]);
    assert_eq!(update(KEY, &value).json()["auth"]["api_key"], mine);
    let after = app.call("GET", "/api/v1/user/settings", &[("X-FileSpin-Api-Key", mine)], b"").json();
    assert_eq!(after["auth"]["authorized_domains"], json!(["example.com"]));
    assert_eq!(after["auth"]["dropbox_app_secret"], "of dropbox");
    assert_eq!(app.call("GET", "/api/v1/user", &[AUTH], b"").status, 200, "the old one lives for a day");
    assert_eq!((app.get(&old_link).status, app.get(&link(mine)).status), (200, 200));

    for (name, bad) in [
        ("api_key", json!("short")),
        ("api_key", json!("x y z".repeat(10))),
        ("authorized_domains", json!(["*.example.com"])),
        ("authorized_domains", json!("example.com")),
        ("valid_old_seconds", json!(-1)),
    ] {
        let mut value = after["auth"].clone();
        value[name] = bad;
        update(mine, &value).refused(400, "INVALID_REQUEST");
    }

    let by_mine = Some(("X-FileSpin-Api-Key", mine));
    let keys = send(&app, "GET", "/api/v1/user/keys", by_mine, &json!({})).json()["keys"].clone();
    let old = keys.as_array().unwrap().iter().find(|key| !key["expires_at"].is_null()).unwrap();
    assert_eq!((&old["hint"], &old["kind"]), (&json!("0123"), &json!("api")));
    let path = format!("/api/v1/user/keys/{}", old["key_id"]);
    assert_eq!(send(&app, "DELETE", &path, by_mine, &json!({})).status, 200);
    send(&app, "DELETE", &path, by_mine, &json!({})).refused(404, "KEY_NOT_FOUND");
    assert_eq!(app.call("GET", "/api/v1/user", &[AUTH], b"").status, 401, "revoked at once");
    assert_eq!(app.get(&old_link).status, 403);

    let rotated = send(&app, "POST", "/api/v1/user/keys", by_mine, &json!({"kind": "api", "valid_old_seconds": 0}));
    let new = rotated.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(app.call("GET", "/api/v1/user", &[("X-FileSpin-Api-Key", mine)], b"").status, 401);
    assert_eq!(app.call("GET", "/api/v1/user", &[("X-FileSpin-Api-Key", &new)], b"").status, 200);
}

#[test]
fn sections_of_the_settings_that_say_what_is() {
    let app = Appliance::start();
    let settings = app.json("/api/v1/user/settings");
    let update =
        |key: &str, value: &Value| send(&app, "PATCH", UPDATE, Some(AUTH), &json!({"key": key, "value": value}));
    assert_eq!(update("storage", &settings["storage"]).status, 200);
    assert_eq!(settings["storage"]["transcodes_root"], "cloakroom", "as asset data has it");
    let mut other = settings["storage"].clone();
    other["originals_root"] = json!("my-bucket");
    let why = update("storage", &other).refused(422, "FEATURE_UNAVAILABLE");
    assert!(why.contains("data_dir"), "{why}");
    other["originals_root"] = json!("../../etc");
    update("storage", &other).refused(400, "INVALID_REQUEST");
    update("storage", &json!({"originals_root": "x"})).refused(400, "MISSING_MANDATORY_PARAMETERS");

    for nothing in [json!(null), json!(""), json!({}), json!({"connection_url": ""}), settings["database"].clone()] {
        assert_eq!(update("database", &nothing).status, 200, "{nothing}");
    }
    update("database", &json!({"connection_url": "mysql://x"})).refused(422, "FEATURE_UNAVAILABLE");

    let addons = json!({"AUTO_TAGS": {"title": "T", "description": "", "added": true, "enabled": true, "settings": {
        "event-hooks": {"file-saved": {"enabled": true, "content_types": ["image/jpeg"]}},
        "disposition": {"update_metadata": true}}}});
    assert_eq!(update("addons", &addons).json()["addons"], addons);
    let detail =
        update("addons", &json!({"AUTO_TAGS": {"enabled": true}})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    assert!(detail.contains("AUTO_TAGS/title"), "{detail}");
    update("addons", &json!({"AUTO_TAGS": 1})).refused(400, "INVALID_REQUEST");
    assert_eq!(app.json("/api/v1/user/settings")["addons"], addons);
    let body = json!({"key": "addons"});
    send(&app, "PATCH", UPDATE, Some(AUTH), &body).refused(400, "MISSING_MANDATORY_PARAMETERS");
    send(&app, "PATCH", UPDATE, Some(AUTH), &json!({"value": {}})).refused(400, "MISSING_MANDATORY_PARAMETERS");
    let by_query = format!("{UPDATE}?update_key=addons");
    assert_eq!(send(&app, "PATCH", &by_query, Some(AUTH), &json!({"value": {}})).status, 200);
}
