//! Collections: put together, shared, changed, and taken along as an archive.

use std::process::Command;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::jpeg;
use crate::harness::png;

const ONE: &str = "/api/v1/assetcollection";
const ALL: &str = "/api/v1/assetcollections";

fn send(app: &Appliance, method: &str, path: &str, body: &Value) -> Answer {
    app.call(method, path, &[AUTH, ("Content-Type", "application/json")], body.to_string().as_bytes())
}

#[test]
fn a_collection_is_made_copied_changed_and_deleted() {
    let app = Appliance::start();
    let (a, b) = (app.keep("a.jpg", &jpeg(30, 20)), app.keep("b.png", &png(30, 20, false)));
    let made =
        send(&app, "POST", ONE, &json!({"name": "My Collection", "assets": [a, b, a], "description": "d"})).json();
    assert_eq!(made["assets"], json!([a, b]));
    assert_eq!(
        (&made["user_id"], &made["group_access"], &made["user_email"]),
        (&json!(1), &json!(false), &json!("admin@example.com"))
    );
    assert_eq!(made["extended_result"][&a]["name"], "a.jpg");
    let one = format!("{ONE}/{}", made["id"]);
    assert_eq!(app.json(&one)["assets"], made["assets"]);

    let copy = send(&app, "POST", ONE, &json!({"source_id": made["id"]})).json();
    assert!(copy["name"].as_str().is_some_and(|name| name.starts_with("Copy of My Collection @ 2")), "{copy}");
    assert_eq!(copy["assets"], made["assets"]);
    let empty = send(&app, "POST", ONE, &json!({})).json();
    assert!(empty["name"].as_str().is_some_and(|name| name.starts_with("Collection 2")), "{empty}");

    for method in ["PATCH", "PUT"] {
        let changed = send(&app, method, &one, &json!({"name": "Other", "assets": [b], "group_access": true})).json();
        assert_eq!(
            (&changed["name"], &changed["assets"], &changed["description"]),
            (&json!("Other"), &json!([b]), &json!("d"))
        );
    }
    assert_eq!(
        send(&app, "POST", &format!("{one}/assets"), &json!({"assets": [a, b]})).json()["assets"],
        json!([b, a])
    );
    assert_eq!(send(&app, "DELETE", &format!("{one}/assets"), &json!({"assets": [b]})).json()["assets"], json!([a]));

    let listed = |asked: Value| {
        let said = send(&app, "POST", ALL, &asked).json();
        let names =
            said["collections"].as_array().into_iter().flatten().map(|c| c["name"].as_str().unwrap_or_default());
        (
            names.map(|name| name.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" "),
            said["total_collections"].clone(),
        )
    };
    assert_eq!(listed(json!({"sort_by": "name_ASC"})), ("Collection Copy Other".to_owned(), json!(3)));
    assert_eq!(listed(json!({"sort_by": ["name_DESC"], "limit": 1, "offset": 1})), ("Copy".to_owned(), json!(3)));
    assert_eq!(listed(json!({"keyword": "othe"})), ("Other".to_owned(), json!(1)));
    assert_eq!(listed(json!({"keyword": "%"})).1, json!(0));
    assert_eq!(listed(json!({"private_only": true})).1, json!(2));
    assert_eq!(listed(json!({"last_update_range": {"end": "2020-01-01T00:00:00Z"}})).1, json!(0));

    assert_eq!(send(&app, "DELETE", &one, &Value::Null).json()["status"], "OK");
    app.call("GET", &one, &[AUTH], b"").refused(404, "COLLECTION_NOT_FOUND");
}

#[test]
fn what_a_collection_cannot_be() {
    let app = Appliance::start();
    let ids: Vec<String> = (0..31).map(|n| app.keep("a.jpg", &jpeg(30 + n, 20))).collect();
    send(&app, "POST", ONE, &json!({"assets": ids})).refused(400, "INVALID_REQUEST");
    send(&app, "POST", ONE, &json!({"assets": ["0".repeat(32)]})).refused(404, "ASSET_NOT_FOUND");
    send(&app, "POST", ONE, &json!({"assets": ["x"]})).refused(404, "ASSET_NOT_FOUND");
    send(&app, "POST", ONE, &json!({"assets": 5})).refused(400, "INVALID_REQUEST");
    send(&app, "POST", ONE, &json!({"source_id": 99})).refused(404, "COLLECTION_NOT_FOUND");
    send(&app, "POST", ONE, &json!({"name": "x".repeat(300)})).refused(400, "INVALID_REQUEST");
    send(&app, "POST", ALL, &json!({"sort_by": "size"})).refused(400, "INVALID_REQUEST");
    send(&app, "POST", ALL, &json!({"last_update_range": {"start": "x"}})).refused(400, "INVALID_REQUEST");
    let made = send(&app, "POST", ONE, &json!({"assets": ids[..30]})).json();
    send(&app, "PATCH", &format!("{ONE}/{}", made["id"]), &json!({"add_assets": [ids[30]]}))
        .refused(400, "INVALID_REQUEST");
    let empty = send(&app, "POST", ONE, &json!({})).json();
    app.call("GET", &format!("{ONE}/{}/download", empty["id"]), &[AUTH], b"").refused(400, "EMPTY_COLLECTION");
    for id in ["99", "x", "-1", "1'"] {
        app.call("GET", &format!("{ONE}/{id}"), &[AUTH], b"").refused(404, "COLLECTION_NOT_FOUND");
        app.call("GET", &format!("{ONE}/{id}/download"), &[AUTH], b"").refused(404, "COLLECTION_NOT_FOUND");
    }
    app.get(&format!("{ONE}/1/download")).refused(401, "UNAUTHORIZED");
}

#[test]
fn a_collection_is_its_makers_until_it_is_shared() {
    let app = Appliance::start();
    let made = app.cli(&["user", "add", "other@example.com", "--role", "manager"]);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let key = said.split_whitespace().find(|word| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit()));
    let other = ("X-FileSpin-Api-Key", key.unwrap_or_default());
    let asset = app.keep("a.jpg", &jpeg(30, 20));
    let id = send(&app, "POST", ONE, &json!({"assets": [asset]})).json()["id"].clone();
    let one = format!("{ONE}/{id}");
    let ask = |method: &str, body: &str| {
        app.call(method, &one, &[other, ("Content-Type", "application/json")], body.as_bytes())
    };
    ask("GET", "").refused(404, "COLLECTION_NOT_FOUND");
    send(&app, "PATCH", &one, &json!({"group_access": true}));
    assert_eq!(ask("GET", "").json()["assets"], json!([asset]));
    ask("PATCH", "{\"name\": \"mine\"}").refused(403, "FORBIDDEN");
    ask("DELETE", "").refused(403, "FORBIDDEN");
    assert_eq!(app.call("GET", &format!("{one}/download"), &[other], b"").status, 200);
}

#[test]
fn the_archive_opens_everywhere_and_goes_on_where_it_broke_off() {
    let app = Appliance::start();
    let (picture, other) = (jpeg(600, 400), png(50, 40, true));
    let ids = [app.keep("Zoë's.jpg", &picture), app.keep("zoë's.JPG", &other), app.keep("c.png", &other)];
    let id = send(&app, "POST", ONE, &json!({"assets": ids})).json()["id"].clone();
    let path = format!("{ONE}/{id}/download");
    let whole = app.call("GET", &path, &[AUTH], b"");
    assert_eq!((whole.status, &*whole.header("content-type")), (200, "application/zip"));
    assert_eq!(whole.header("content-disposition"), "attachment; filename=\"download.zip\"");
    assert_eq!(whole.header("content-length"), whole.body.len().to_string());
    let etag = whole.header("etag");
    assert!(etag.starts_with('"'), "a strong one: {etag}");

    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let file = folder.path().join("download.zip");
    assert!(std::fs::write(&file, &whole.body).is_ok());
    let listing = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                   print([(i.filename, i.file_size) for i in z.infolist()])";
    let said = Command::new("/usr/bin/python3").args(["-c", listing]).arg(&file).output();
    let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let want = format!(
        "[(\"Zoë's.jpg\", {}), (\"zoë's (2).JPG\", {}), ('c.png', {})]\n",
        picture.len(),
        other.len(),
        other.len()
    );
    assert_eq!(said, want);
    let unzip = Command::new("unzip").arg("-t").arg(&file).output().map(|out| out.status.success());
    assert!(unzip.unwrap_or(false), "`unzip -t` (Debian: unzip) finds it in order");

    let middle = whole.body.len() / 2;
    let from = format!("bytes={middle}-");
    let rest = app.call("GET", &path, &[AUTH, ("Range", &from), ("If-Range", &etag)], b"");
    assert_eq!(rest.status, 206);
    assert!(rest.body == whole.body[middle..]);
    assert_eq!(rest.header("content-range"), format!("bytes {middle}-{}/{}", whole.body.len() - 1, whole.body.len()));
    assert_eq!(app.call("GET", &path, &[AUTH, ("Range", "bytes=99999999-")], b"").status, 416);
    assert_eq!(app.call("GET", &path, &[AUTH, ("If-None-Match", &etag)], b"").status, 304);
    let head = app.call("HEAD", &path, &[AUTH], b"");
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, etag.clone()));

    send(&app, "DELETE", &format!("{ONE}/{id}/assets"), &json!({"assets": [ids[2]]}));
    let changed = app.call("GET", &path, &[AUTH, ("Range", &from), ("If-Range", &etag)], b"");
    assert_eq!(changed.status, 200, "another archive is sent whole");
    assert_ne!(changed.header("etag"), etag);
}

#[test]
fn what_an_archive_needs_is_computed_before_anybody_asks() {
    let app = Appliance::start();
    let id = send(&app, "POST", ONE, &json!({})).json()["id"].clone();
    let originals: Vec<(String, Vec<u8>)> =
        (0..5).map(|n| jpeg(60 + n, 40)).map(|p| (app.keep("a.jpg", &p), p)).collect();
    // One after the other, and each asked for again and again.
    for (asset, _) in originals.iter().chain(&originals) {
        assert_eq!(send(&app, "PATCH", &format!("{ONE}/{id}"), &json!({"add_assets": [asset]})).status, 200);
    }
    let place = app.data_dir().join("cloakroom.db");
    let database =
        Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap_or_else(|e| panic!("{e}"));
    let known = |asset: &str| {
        let sum = database.query_row("SELECT crc32 FROM original_crc WHERE asset_id = ?1", [asset], |row| row.get(0));
        sum.unwrap_or(0_u32)
    };
    for (asset, body) in &originals {
        app.until("/api/v1/assets", |_| known(asset) == crc32fast::hash(body));
    }
}

#[test]
fn an_address_opens_an_archive_for_a_while() {
    let app = Appliance::start();
    let asset = app.keep("a.jpg", &jpeg(30, 20));
    let id = send(&app, "POST", ONE, &json!({"assets": [asset]})).json()["id"].clone();
    let path = format!("{ONE}/{id}/download");
    let url = app.json(&format!("{path}?as_url=y"))["url"].as_str().unwrap_or_default().to_owned();
    let address = url.find("/api/v1/").map_or("", |at| &url[at..]).to_owned();
    assert!(url.starts_with("http://") && address.starts_with(&path), "{url}");
    let opened = app.get(&address);
    assert_eq!((opened.status, &*opened.header("content-type")), (200, "application/zip"), "{}", opened.text());
    app.get(&address.replace(&format!("/{id}/"), "/2/")).refused(403, "FORBIDDEN");
    app.get(&address.replace("expiry=1", "expiry=2")).refused(403, "FORBIDDEN");
    app.get(&path).refused(401, "UNAUTHORIZED");
}
