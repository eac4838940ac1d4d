//! What people do with an asset that is kept: write about it, archive it, replace it, hand in conversions,
//! delete it, fetch it back, empty the trash; one by one, many at once, two people at once, and through
//! crashes.

#![expect(clippy::indexing_slicing, reason = "the steps that the tests share fail by panicking, too")]
#![expect(clippy::disallowed_methods, reason = "what fails at its record is planted in the database")]

use std::fs;
use std::time::Instant;

use rusqlite::Connection;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::PATIENCE;
use crate::harness::jpeg;
use crate::harness::meddle;
use crate::harness::pixels;
use crate::harness::png;

/// Files of what is deleted go at once, not after a while.
const AT_ONCE: (&str, &str) = ("CLOAKROOM_CUSTODY__LINGER_SECONDS", "0");

const NOWHERE: &str = "00000000000000000000000000000000";

/// A named conversion, a public one, of 100 pixels' width.
fn with_conversions(app: &Appliance) {
    let body = json!({"key": "image", "value": {"is_on_demand_private": false, "conversions": [{"key": "small", "value": {
        "format": "jpg", "watermark": false, "enabled": true, "public": true, "width": 100, "height": 0, "dpi": 72}}]}});
    let answer = app.call("PATCH", "/api/v1/user/settings/update", &[AUTH], body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn data(app: &Appliance, id: &str) -> Value {
    app.json(&format!("/api/v1/assets/{id}/data"))
}

/// An asset with all its conversions.
fn whole(app: &Appliance, name: &str, body: &[u8]) -> String {
    let id = app.keep(name, body);
    made(app, &id);
    id
}

fn made(app: &Appliance, id: &str) -> Value {
    app.until(&format!("/api/v1/assets/{id}/data"), |data| {
        data["status"] == "OK"
            && data["conversions"]["small"].is_object()
            && data["addons_info"]["ON_DEMAND_IMAGE"]["available"] == true
    })
}

/// Where the conversion of this key lies, when it does.
fn place_of(app: &Appliance, id: &str, key: &str) -> String {
    let folder = format!("conversions/{}/{id}/1", &id[..2]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let there = fs::read_dir(app.data_dir().join(&folder)).into_iter().flatten().flatten();
        let mut names = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if let Some(name) = names.find(|name| name.split('.').any(|part| part == key)) {
            return format!("{folder}/{name}");
        }
        assert!(Instant::now() < deadline, "{key} is nowhere");
        app.get("/livez");
    }
}

fn ended(app: &Appliance, answer: &Answer) -> Value {
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("QUEUED")), "{}", answer.text());
    let job = answer.json()["job_id"].as_i64().unwrap_or_default();
    app.until(&format!("/api/v1/jobs/{job}"), |job| job["status"] == "COMPLETED" || job["status"] == "ERROR")
}

/// The API key of a new user in this role.
fn key_of(app: &Appliance, role: &str) -> String {
    let made = app.cli(&["user", "add", &format!("{role}@example.com"), "--role", role]);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    said.lines().find_map(|line| line.strip_prefix("API key: ")).unwrap_or_default().to_owned()
}

/// An asset of which everything is made that is made without being asked for.
fn looked_at(app: &Appliance, name: &str, body: &[u8]) -> String {
    let id = app.keep(name, body);
    app.until(&format!("/api/v1/assets/{id}/data"), |data| data["addons_info"]["ON_DEMAND_IMAGE"]["available"] == true);
    id
}

fn events(app: &Appliance, id: &str) -> Vec<String> {
    app.journal(id).into_iter().map(|(event, _)| event).collect()
}

#[test]
fn data_is_added_to_and_replaced() {
    let app = Appliance::start();
    let id = looked_at(&app, "p.jpg", &jpeg(30, 20));
    let path = format!("/api/v1/assets/{id}/data/update");
    let said = |query: &str, body: Value| app.post_json(&format!("{path}{query}"), &body.to_string());
    let first = said("", json!({"data": {"a": 1, "b": {"x": 1}}, "data_schema_id": 7, "more": "ignored"}));
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!((&first.json()["data"], &first.json()["data_schema_id"]), (&json!({"a": 1, "b": {"x": 1}}), &json!(7)));
    let second = said("?async=1", json!({"data": {"b": {"y": 2}, "filespin_search_txt": "MY_ID"}, "mode": "APPEND"}));
    assert_eq!(second.status, 202, "{}", second.text());
    assert_eq!(second.json()["data"], json!({"a": 1, "b": {"y": 2}, "filespin_search_txt": "MY_ID"}));
    assert_eq!(second.json()["data_schema_id"], 0, "the default schema, unless it is named");
    let third = said("", json!({"data": {"c": null, "_filespin_fr_count": 3}, "mode": "REPLACE"}));
    assert_eq!(third.json()["data"], json!({"c": null}), "what is the system's is not for people");
    assert_eq!(data(&app, &id), third.json());
    assert_eq!(events(&app, &id)[2..], ["file-data-updated", "file-data-updated", "file-data-updated"]);

    said("", json!({"data": {"long": "x".repeat(3000)}})).refused(400, "DATA_TOO_LARGE");
    said("", json!({"data": {"long": "é".repeat(2900)}, "mode": "REPLACE"})).json()["data"]["long"].as_str().unwrap();
    said("", json!({"data": {"more": "x".repeat(100)}})).refused(400, "DATA_TOO_LARGE");
    for bad in [
        "",
        "[",
        "null",
        "[]",
        "{}",
        "{\"data\":[]}",
        "{\"data\":\"x\"}",
        "{\"data\":{},\"mode\":\"MERGE\"}",
        "{\"data\":{},\"data_schema_id\":\"1\"}",
        "{\"data\":{},\"data_schema_id\":1e99}",
        "{\"data\":{\"a\":\"\\ud800\"}}",
    ] {
        app.post_json(&path, bad).refused(400, "INVALID_REQUEST");
    }
    let deep = format!("{{\"data\":{{\"a\":{}1{}}}}}", "[".repeat(300), "]".repeat(300));
    app.post_json(&path, &deep).refused(400, "INVALID_REQUEST");
    app.post_json(&path, &" ".repeat(10_000_000)).refused(413, "TOO_LARGE");
    app.post_json(&format!("/api/v1/assets/{NOWHERE}/data/update"), "{\"data\":{}}").refused(404, "ASSET_NOT_FOUND");
    for awkward in ["'; DROP TABLE asset; --", "\" OR NEAR(* AND", "a\u{0}b", "%_\\"] {
        let answer = said("", json!({"data": {awkward: awkward}, "mode": "REPLACE"}));
        assert_eq!(answer.json()["data"], json!({awkward: awkward}));
    }
    let refused = app.upload(
        Form::new()
            .file("f", "p.jpg", &jpeg(9, 9))
            .field("custom_metadata", &json!({"data": {"long": "x".repeat(3000)}}).to_string()),
    );
    refused.refused(400, "DATA_TOO_LARGE");
    app.staging_empties();
    let form =
        Form::new().file("f", "p.jpg", &jpeg(9, 9)).field("custom_metadata", "{\"data\":{\"_filespin_x\":1,\"y\":2}}");
    let id = app.upload(form).json()["assets"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(data(&app, &id)["data"], json!({"y": 2}));
}

#[test]
fn what_is_not_looked_at_yet_can_only_be_deleted() {
    // Nobody looks: there is no worker.
    let app = Appliance::with(&[("CLOAKROOM_WORKERS__PROGRAM", "/bin/false")]);
    let id = app.keep("p.jpg", &jpeg(30, 20));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    for (path, body) in
        [("data/update", "{\"data\":{}}"), ("process", "{\"keys\":[\"smart_imaging\"]}"), ("archive", "")]
    {
        app.post_json(&at(path), body).refused(400, "ASSET_NOT_READY");
    }
    app.send(&at("content/web"), Form::new().file("f", "x.png", &png(9, 9, false))).refused(400, "ASSET_NOT_READY");
    assert_eq!(app.post_json(&at("delete"), "{\"keys\":[\"original\"]}").status, 200);
    app.get(&at("conversions")).refused(404, "ASSET_NOT_FOUND");
    assert_eq!(app.post_json(&at("undelete"), "").status, 200);
    assert_eq!(data(&app, &id)["status"], "NOT_READY");
}

#[test]
fn two_people_write_about_one_asset_and_neither_is_lost() {
    let app = Appliance::start();
    let id = app.saved("p.jpg", &jpeg(30, 20))["id"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for person in 0..4 {
            let (app, id) = (&app, &id);
            scope.spawn(move || {
                for n in 0..10 {
                    let body = json!({"data": {format!("{person}-{n}"): n}}).to_string();
                    assert_eq!(app.post_json(&format!("/api/v1/assets/{id}/data/update"), &body).status, 200);
                }
            });
        }
    });
    assert_eq!(data(&app, &id)["data"].as_object().unwrap().len(), 40);
}

#[test]
fn what_is_archived_can_only_be_read() {
    let app = Appliance::start();
    with_conversions(&app);
    let id = whole(&app, "p.jpg", &jpeg(300, 200));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    for _ in 0..2 {
        let answer = app.post_json(&at("archive"), "");
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ARCHIVED")), "{}", answer.text());
    }
    for (path, body) in [
        ("data/update", "{\"data\":{}}"),
        ("process", "{\"keys\":[\"small\"]}"),
        ("delete", "{\"keys\":[\"original\"]}"),
        ("delete", "{\"keys\":[\"small\"]}"),
    ] {
        app.post_json(&at(path), body).refused(400, "ASSET_ARCHIVED");
    }
    app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"").refused(400, "ASSET_ARCHIVED");
    for path in ["content/original/replace", "content/web"] {
        app.send(&at(path), Form::new().file("f", "q.jpg", &jpeg(9, 9))).refused(400, "ASSET_ARCHIVED");
    }
    for path in ["content/original", "conversions/small", "conversions?resize=50,50", "get_link?key=original"] {
        assert_eq!(app.call("GET", &at(path), &[AUTH], b"").status, 200, "{path}");
    }
    for _ in 0..2 {
        assert_eq!(app.post_json(&at("unarchive"), "").json()["status"], "OK");
    }
    assert_eq!(app.post_json(&at("data/update"), "{\"data\":{}}").status, 200);
    let broken = app.saved("a.jpg", b"not a picture")["id"].as_str().unwrap().to_owned();
    app.post_json(&format!("/api/v1/assets/{broken}/archive"), "").refused(400, "ASSET_INVALID");
    app.post_json(&format!("/api/v1/assets/{NOWHERE}/archive"), "").refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn conversions_are_deleted_by_their_keys() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let id = whole(&app, "p.jpg", &jpeg(300, 200));
    let file = place_of(&app, &id, "small");
    let delete =
        |keys: Value| app.post_json(&format!("/api/v1/assets/{id}/delete"), &json!({"keys": keys}).to_string()).json();
    assert_eq!(delete(json!(["nonsense", "small", "smart_imaging"]))["keys"], json!(["small"]));
    assert_eq!(data(&app, &id)["conversions"], json!({}));
    app.get(&format!("/api/v1/assets/{id}/conversions/small")).refused(404, "CONTENT_NOT_FOUND");
    app.until_there(&file, false);
    assert_eq!(delete(json!(["small"]))["keys"], json!([]));
    let (event, detail) = app.journal(&id).pop().unwrap();
    assert_eq!((&*event, detail), ("file-deleted", json!({"keys": ["small"]})));

    // It can be made again, and then it stays.
    app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\":[\"small\"]}");
    made(&app, &id);
    assert_eq!(app.get(&format!("/api/v1/assets/{id}/conversions/small")).picture(), ("image/jpeg", 100, 67));
    assert_eq!(delete(json!(["*"]))["keys"], json!(["small"]));
    assert_eq!(app.get(&format!("/api/v1/assets/{id}/conversions?resize=30,20")).picture(), ("image/jpeg", 30, 20));
    assert_eq!(data(&app, &id)["status"], "OK");
    for bad in ["", "{}", "{\"keys\":\"original\"}", "{\"keys\":[1]}"] {
        app.post_json(&format!("/api/v1/assets/{id}/delete"), bad).refused(400, "INVALID_REQUEST");
    }
}

#[test]
fn every_address_of_deleting_is_answered() {
    let app = Appliance::start();
    let delete: [(&str, &str, &str); 5] = [
        ("POST", "/delete", "{\"keys\":[\"original\"]}"),
        ("POST", "/content/delete", "{\"keys\":[\"original\"]}"),
        ("DELETE", "", ""),
        ("DELETE", "/content", "{\"keys\":[\"original\"]}"),
        ("DELETE", "/content/original", ""),
    ];
    let undelete = ["/undelete", "/content/undelete"];
    let id = app.saved("p.jpg", &jpeg(30, 20))["id"].as_str().unwrap().to_owned();
    for (n, (verb, path, body)) in delete.into_iter().enumerate() {
        let answer = app.call(verb, &format!("/api/v1/assets/{id}{path}"), &[AUTH], body.as_bytes());
        assert_eq!(
            (answer.status, &answer.json()["keys"]),
            (200, &json!(["original"])),
            "{verb} {path}: {}",
            answer.text()
        );
        app.call(verb, &format!("/api/v1/assets/{id}{path}"), &[AUTH], body.as_bytes()).refused(404, "ASSET_NOT_FOUND");
        let back = format!("/api/v1/assets/{id}{}", undelete[n % 2]);
        assert_eq!(app.post_json(&back, "").json()["keys"], json!(["original"]));
        assert_eq!(app.post_json(&back, "").json()["keys"], json!([]), "twice is no mistake");
    }
    app.post_json(&format!("/api/v1/assets/{NOWHERE}/undelete"), "").refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn what_is_in_the_trash_is_hidden_and_comes_back_whole() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let body = jpeg(2500, 1500);
    let id = whole(&app, "p.jpg", &body);
    let other = whole(&app, "q.jpg", &jpeg(30, 20));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    app.post_json(&at("data/update"), "{\"data\":{\"a\":1}}");
    let link = app.json(&at("get_link?key=original"))["url"].as_str().unwrap().replace(&app.base, "");
    let link = link[link.find("/api/").unwrap()..].to_owned();
    assert_eq!(app.get(&link).status, 200);
    app.post_json(&at("content/set_public_access"), "{\"keys\":[\"original\"]}");
    let before = data(&app, &id);
    let original = format!("originals/{}/{id}.1", &id[..2]);
    let base = place_of(&app, &id, "smart_imaging");

    assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"").status, 200);
    for path in [
        "data",
        "conversions",
        "conversions?resize=30,20",
        "conversions/small",
        "content/original",
        "content/original/download",
        "download",
        "get_link?key=original",
    ] {
        app.call("GET", &at(path), &[AUTH], b"").refused(404, "ASSET_NOT_FOUND");
    }
    app.get(&link).refused(404, "ASSET_NOT_FOUND");
    app.get(&format!("/api/v1/conversion/{id}")).refused(404, "ASSET_NOT_FOUND");
    for (path, body) in [
        ("process", "{\"keys\":[\"small\"]}"),
        ("data/update", "{\"data\":{}}"),
        ("archive", ""),
        ("content/set_public_access", "{\"keys\":[\"original\"]}"),
    ] {
        app.post_json(&at(path), body).refused(404, "ASSET_NOT_FOUND");
    }
    app.send(&at("content/original/replace"), Form::new().file("f", "x.jpg", &body)).refused(404, "ASSET_NOT_FOUND");
    app.send(&at("content/web"), Form::new().file("f", "x.jpg", &body)).refused(404, "ASSET_NOT_FOUND");
    let links = app.post_json("/api/v1/assets/get_link?key=original", &json!([id, other]).to_string()).json();
    assert_eq!(links["errors"], json!({id.clone(): "ASSET_NOT_FOUND"}));
    let listed = app.json("/api/v1/assets");
    assert_eq!((&listed["total"], &listed["count"], &listed["assets"][0]["id"]), (&json!(1), &json!(1), &json!(other)));
    assert_eq!(app.json("/api/v1/assets/purge/count"), json!({"count": 1, "size": body.len()}));
    app.until_there(&base, false);
    assert_eq!(fs::read(app.data_dir().join(&original)).unwrap(), body, "kept until the trash is emptied");

    assert_eq!(app.post_json(&at("undelete"), "").status, 200);
    let after = made(&app, &id);
    for same in ["id", "name", "checksum", "size", "public", "data", "metadata", "upload_time", "creator_id"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_eq!(app.get(&link).body, body);
    place_of(&app, &id, "smart_imaging");
    assert_eq!(app.json("/api/v1/assets")["total"], 2);
    let told = app.journal(&id);
    let about: Vec<_> = told.iter().filter(|(event, _)| event.ends_with("deleted")).collect();
    let keys = json!({"keys": ["original"]});
    assert_eq!(about, [&("file-deleted".to_owned(), keys.clone()), &("file-undeleted".to_owned(), keys)]);
    assert_eq!(told.last().unwrap().0, "file-processed");
}

#[test]
fn only_some_may_delete_and_fewer_empty_the_trash() {
    let app = Appliance::start();
    let id = app.saved("p.jpg", &jpeg(30, 20))["id"].as_str().unwrap().to_owned();
    let (creator, manager) = (key_of(&app, "creator"), key_of(&app, "manager"));
    let as_user =
        |key: &str, path: &str| app.call("POST", path, &[("X-FileSpin-Api-Key", key)], b"{\"keys\":[\"original\"]}");
    let delete = format!("/api/v1/assets/{id}/delete");
    as_user(&creator, &delete).refused(403, "FORBIDDEN");
    as_user(&creator, "/api/v1/assets/bulk/delete").refused(403, "FORBIDDEN");
    assert_eq!(as_user(&manager, &delete).status, 200);
    as_user(&manager, "/api/v1/assets/purge").refused(403, "FORBIDDEN");
    app.call("POST", &delete, &[], b"{}").refused(401, "UNAUTHORIZED");
}

#[test]
fn emptying_the_trash_leaves_nothing() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let stays = whole(&app, "stays.jpg", &jpeg(30, 20));
    let ids: Vec<_> = (0..3).map(|n| whole(&app, &format!("{n}.jpg"), &jpeg(2500, 1500 + n))).collect();
    for id in &ids {
        assert_eq!(app.get(&format!("/api/v1/assets/{id}/conversions?resize=20,20")).status, 200);
        assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"").status, 200);
    }
    // One of them alone, and one that is not in the trash.
    let some = app.post_json("/api/v1/assets/purge", &json!({"asset_ids": [ids[0], stays]}).to_string());
    let job = ended(&app, &some);
    assert_eq!((&job["type"], &job["status"], job.get("asset_id")), (&json!("PURGE"), &json!("COMPLETED"), None));
    assert_eq!(job["callback"], json!({"total": 2, "done": 2, "errors": {stays.clone(): "ASSET_NOT_FOUND"}}));
    app.post_json(&format!("/api/v1/assets/{}/undelete", ids[0]), "").refused(404, "ASSET_NOT_FOUND");
    assert_eq!(app.post_json(&format!("/api/v1/assets/{}/undelete", ids[1]), "").status, 200, "not asked for");
    assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{}", ids[1]), &[AUTH], b"").status, 200);

    let job = ended(&app, &app.post_json("/api/v1/assets/bulk/purge", ""));
    assert_eq!(job["callback"], json!({"total": 2, "done": 2, "errors": {}}));
    assert_eq!(job["job_steps"]["bulk"]["purge"]["percent_complete"], 100);
    for id in &ids {
        for folder in ["originals", "conversions", "odi"] {
            let file = if folder == "originals" { format!("{id}.1") } else { id.clone() };
            app.until_there(&format!("{folder}/{}/{file}", &id[..2]), false);
        }
    }
    assert_eq!(app.json("/api/v1/assets/bulk/purge/count"), json!({"count": 0, "size": 0}));
    assert_eq!(app.json("/api/v1/assets")["assets"][0]["id"], *stays);
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
    assert_eq!(ended(&app, &app.post_json("/api/v1/assets/purge", "{}"))["callback"]["done"], 0);
    assert_eq!(app.get(&format!("/api/v1/assets/{stays}/conversions/small")).status, 200);
    app.post_json("/api/v1/assets/purge", "{\"asset_ids\":[\"x\"]}").refused(400, "INVALID_REQUEST");
    app.staging_empties();
}

#[test]
fn an_original_is_replaced_and_everything_follows() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let id = whole(&app, "p.jpg", &jpeg(2500, 1500));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    app.post_json(&at("data/update"), "{\"data\":{\"a\":1,\"b\":1}}");
    app.post_json(&at("content/set_public_access"), "{\"keys\":[\"original\"]}");
    // One that no setting asks for is made again, too; one that was handed in is of the old content.
    app.post_json(&at("process"), "{\"keys\":[\"deepzoom\"]}");
    app.until(&at("data"), |data| data["conversions"]["deepzoom"].is_object());
    assert_eq!(app.send(&at("content/mine"), Form::new().file("f", "m.png", &png(9, 9, false))).status, 200);
    let before = data(&app, &id);
    let odi = app.get(&at("conversions?resize=60,60"));
    assert_eq!(odi.picture(), ("image/jpeg", 60, 36));
    let shard = &id[..2];
    for there in
        [format!("originals/{shard}/{id}.1"), format!("conversions/{shard}/{id}/1"), format!("odi/{shard}/{id}/1")]
    {
        app.until_there(&there, true);
    }

    let body = png(300, 400, false);
    let form =
        Form::new().file("any", "new.png", &body).field("custom_metadata", "{\"data\":{\"b\":2},\"data_schema_id\":4}");
    let answer = app.send(&at("content/original/replace"), form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!((&told["files"], &told["success"]), (&told["assets"], &json!(true)));
    assert_eq!((&told["assets"][0]["id"], &told["assets"][0]["status"]), (&json!(id), &json!("NOT_READY")));
    let again = app.get(&at("conversions?resize=60,60"));
    assert_eq!(again.picture(), ("image/png", 45, 60), "an image waits for the new one");
    assert_ne!(again.header("etag"), odi.header("etag"));
    assert_eq!(app.get(&at("content/original")).body, body, "still public");
    app.until(&at("data"), |data| data["conversions"]["deepzoom"].is_object());
    let after = made(&app, &id);
    assert_eq!(after["conversions"].as_object().unwrap().len(), 2, "{after}");
    assert_eq!(
        (&after["id"], &after["name"], &after["size"], &after["content_type"]),
        (&before["id"], &json!("new.png"), &json!(body.len()), &json!("image/png"))
    );
    assert_ne!(after["checksum"], before["checksum"]);
    assert_eq!((&after["metadata"]["width"], &after["metadata"]["height"]), (&json!(300), &json!(400)));
    assert_eq!((&after["data"], &after["data_schema_id"]), (&json!({"a": 1, "b": 2}), &json!(4)));
    assert_eq!(app.get(&at("conversions/small")).picture(), ("image/jpeg", 100, 133));
    app.get(&at("conversions/mine")).refused(404, "CONTENT_NOT_FOUND");
    for gone in
        [format!("originals/{shard}/{id}.1"), format!("conversions/{shard}/{id}/1"), format!("odi/{shard}/{id}/1")]
    {
        app.until_there(&gone, false);
    }
    app.until_there(&format!("originals/{shard}/{id}.2"), true);
    app.staging_empties();
    let told = events(&app, &id);
    assert_eq!(told.iter().filter(|event| *event == "file-saved").count(), 2, "{told:?}");
    assert_eq!(told.last().unwrap(), "file-processed");
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
}

#[test]
fn a_replacement_has_to_make_sense() {
    let app = Appliance::start();
    let id = looked_at(&app, "p.jpg", &jpeg(30, 20));
    let before = data(&app, &id);
    let path = format!("/api/v1/assets/{id}/content/original/replace");
    let file = || Form::new().file("f", "x.jpg", &jpeg(9, 9));
    app.send(&path, Form::new()).refused(400, "NO_FILE");
    app.send(&path, Form::new().field("custom_metadata", "{}")).refused(400, "NO_FILE");
    app.send(&path, file().file("g", "y.jpg", &jpeg(9, 9))).refused(400, "INVALID_REQUEST");
    app.send(&path, Form::new().file("f", "x.jpg", b"")).refused(400, "EMPTY_FILE");
    app.send(&path, file().field("custom_metadata", "nonsense")).refused(400, "INVALID_REQUEST");
    let long = json!({"data": {"x": "x".repeat(3000)}}).to_string();
    app.send(&path, file().field("custom_metadata", &long)).refused(400, "DATA_TOO_LARGE");
    app.send(&path.replace(&id, NOWHERE), file()).refused(404, "ASSET_NOT_FOUND");
    app.post_json(&path, "{}").refused(400, "NO_FILE");
    let creator = key_of(&app, "user");
    app.call("POST", &path, &[("X-FileSpin-Api-Key", &creator), ("Content-Type", Form::TYPE)], &file().end())
        .refused(403, "FORBIDDEN");
    assert_eq!(data(&app, &id), before);
    app.staging_empties();
    // By something that cannot be read: the asset says so, and can be mended.
    assert_eq!(app.send(&path, Form::new().file("f", "x.jpg", b"no picture")).status, 200);
    assert_eq!(app.settled(&id)["status"], "ERROR");
    assert_eq!(app.send(&path, file()).status, 200);
    assert_eq!((&app.settled(&id)["status"], app.settled(&id).get("errors")), (&json!("OK"), None));
}

#[test]
fn two_who_replace_one_asset_leave_one_content() {
    let app = Appliance::with(&[AT_ONCE]);
    let id = app.saved("p.jpg", &jpeg(30, 20))["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/assets/{id}/content/original/replace");
    for _ in 0..3 {
        let answers: Vec<(Vec<u8>, Answer)> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..6_u32)
                .map(|n| {
                    let (app, path) = (&app, &path);
                    scope.spawn(move || {
                        let body = png(40 + n, 30, false);
                        let answer = app.send(path, Form::new().file("f", "x.png", &body));
                        (body, answer)
                    })
                })
                .collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        for (_, answer) in answers.iter().filter(|(_, answer)| answer.status != 200) {
            answer.refused(409, "CONFLICT");
        }
        let kept = app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body;
        let winner = answers.iter().find(|(body, _)| *body == kept).unwrap();
        assert_eq!(winner.1.status, 200, "whoever stays was told so");
        let shown = app.settled(&id);
        assert_eq!(shown["size"], kept.len());
        assert_eq!(shown["checksum"], winner.1.json()["assets"][0]["checksum"]);
    }
    app.staging_empties();
    let shard = app.data_dir().join(format!("originals/{}", &id[..2]));
    let present = data(&app, &id)["key"].as_str().unwrap().trim_start_matches('/').to_owned();
    for entry in fs::read_dir(&shard).unwrap().flatten() {
        let file = format!("originals/{}/{}", &id[..2], entry.file_name().to_string_lossy());
        app.until_there(&file, file == present);
    }
}

#[test]
fn what_is_made_of_an_old_original_is_never_shown() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let id = app.keep("p.jpg", &jpeg(4000, 3000));
    for n in 0..4_u32 {
        let body = png(200, 100 + n * 50, false);
        let path = format!("/api/v1/assets/{id}/content/original/replace");
        assert_eq!(app.send(&path, Form::new().file("f", "x.png", &body)).status, 200);
        if n % 2 == 0 {
            // Half of them while the one before is being worked on.
            made(&app, &id);
            assert_eq!(app.get(&format!("/api/v1/assets/{id}/conversions/small")).picture().2, 50 + n * 25);
        }
    }
    made(&app, &id);
    let small = app.get(&format!("/api/v1/assets/{id}/conversions/small"));
    assert_eq!(small.picture(), ("image/jpeg", 100, 125));
    let jobs = app.until("/api/v1/jobs?limit=500", |jobs| {
        jobs["jobs"]
            .as_array()
            .is_some_and(|all| all.iter().all(|job| job["status"] != "QUEUED" && job["status"] != "IN_PROGRESS"))
    });
    let told: Vec<_> = jobs["jobs"].as_array().unwrap().iter().filter(|job| job["status"] == "ERROR").collect();
    assert!(told.iter().all(|job| job["message"] == "The original was replaced."), "{told:?}");
}

#[test]
fn conversions_are_handed_in() {
    let app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let id = whole(&app, "p.jpg", &jpeg(300, 200));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    let hand_in = |key: &str, name: &str, body: &[u8]| {
        app.send(&at(&format!("content/{key}")), Form::new().file("f", name, body))
    };
    let first = png(60, 40, true);
    let answer = hand_in("my_own-1", "mine.png", &first);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = &answer.json()["conversions"]["my_own-1"];
    assert_eq!(
        (&told["width"], &told["height"], &told["size"], &told["public"]),
        (&json!(60), &json!(40), &json!(first.len()), &json!(false))
    );
    let place = told["key"].as_str().unwrap().trim_start_matches('/').to_owned();
    assert_eq!(fs::read(app.data_dir().join(&place)).unwrap(), first);
    app.get(&at("conversions/my_own-1")).refused(401, "UNAUTHORIZED");
    app.post_json(&at("content/set_public_access"), "{\"keys\":[\"my_own-1\"]}");
    let shown = app.get(&at("conversions/my_own-1"));
    assert!(shown.body == first && shown.header("content-type") == "image/png");
    assert_eq!(app.get(&at("conversions/my_own-1?resize=30,30")).picture(), ("image/png", 30, 20), "a PNG stays one");
    let kept = app.call("GET", &at("download?key=my_own-1"), &[AUTH], b"");
    assert!(kept.body == first && kept.header("content-disposition").contains("p-my_own-1.png"), "{kept:?}");
    let link = app.json(&at("get_link?key=my_own-1"))["url"].as_str().unwrap().to_owned();
    assert!(link.contains("/conversions/my_own-1?"), "{link}");

    // Handed in again: the new one, at once and everywhere.
    let second = jpeg(80, 80);
    assert_eq!(hand_in("my_own-1", "mine.jpg", &second).status, 200);
    app.post_json(&at("content/set_public_access"), "{\"keys\":[\"my_own-1\"]}");
    assert_eq!(app.get(&at("conversions/my_own-1")).body, second);
    assert_eq!(app.get(&at("conversions/my_own-1?resize=30,30")).picture(), ("image/jpeg", 30, 30));
    app.until_there(&place, false);

    // In place of one of the settings: theirs stays when that is made again.
    assert_eq!(hand_in("small", "s.png", &png(20, 20, false)).status, 200);
    let asked = app.post_json(&at("process"), "{\"keys\":[\"small\"]}");
    assert_eq!(ended(&app, &asked)["status"], "COMPLETED");
    assert_eq!(app.get(&at("conversions/small")).picture(), ("image/png", 20, 20), "public as the settings say");

    // What is no picture is kept as it is, and only that.
    let text = hand_in("notes", "notes.txt", b"some words\n");
    assert_eq!(text.json()["conversions"]["notes"].get("width"), None);
    let shown = app.call("GET", &at("conversions/notes"), &[AUTH], b"");
    assert_eq!(
        (&*shown.body, shown.header("content-disposition").starts_with("attachment")),
        (&b"some words\n"[..], true)
    );
    assert!(app.call("GET", &at("conversions/notes?resize=9,9"), &[AUTH], b"").status < 500);

    for (key, name, body, status, message) in [
        ("original", "x.png", &first[..], 400, "INVALID_REQUEST"),
        ("720p-video", "x.png", &first, 400, "INVALID_REQUEST"),
        ("deepzoom", "x.png", &first, 400, "INVALID_REQUEST"),
        ("Poster", "x.png", &first, 400, "INVALID_REQUEST"),
        ("a%20b", "x.png", &first, 400, "INVALID_REQUEST"),
        ("a.b", "x.png", &first, 400, "INVALID_REQUEST"),
        ("0123456789012345678901234567890", "x.png", &first, 400, "INVALID_REQUEST"),
        ("web", "x.png", b"", 400, "EMPTY_FILE"),
        ("web", "x.png", b"\x89PNG\r\n\x1a\nno picture", 422, "BAD_IMAGE"),
    ] {
        hand_in(key, name, body).refused(status, message);
    }
    app.send(&at("content/web"), Form::new()).refused(400, "NO_FILE");
    app.send(&format!("/api/v1/assets/{NOWHERE}/content/web"), Form::new().file("f", "x", &first))
        .refused(404, "ASSET_NOT_FOUND");
    app.staging_empties();
    assert_eq!(events(&app, &id).iter().filter(|event| *event == "file-processed").count(), 6);
    let listed = data(&app, &id)["conversions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(listed, ["my_own-1", "notes", "small"]);
    let gone = app.post_json(&at("delete"), "{\"keys\":[\"notes\",\"my_own-1\"]}");
    assert_eq!(gone.json()["keys"], json!(["my_own-1", "notes"]));
}

#[test]
fn two_who_hand_in_one_conversion_leave_one() {
    let app = Appliance::with(&[AT_ONCE]);
    let id = app.saved("p.jpg", &jpeg(30, 20))["id"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for n in 0..6_u32 {
            let (app, id) = (&app, &id);
            scope.spawn(move || {
                let form = Form::new().file("f", "x.png", &png(10 + n, 10, false));
                let answer = app.send(&format!("/api/v1/assets/{id}/content/web"), form);
                assert_eq!(answer.status, 200, "{}", answer.text());
            });
        }
    });
    let told = data(&app, &id)["conversions"]["web"].clone();
    let shown = app.call("GET", &format!("/api/v1/assets/{id}/conversions/web"), &[AUTH], b"");
    assert_eq!(shown.picture().1, told["width"]);
    assert_eq!(shown.body.len(), told["size"]);
    app.staging_empties();
    let present = told["key"].as_str().unwrap().trim_start_matches('/').to_owned();
    let folder = format!("conversions/{}/{id}/1", &id[..2]);
    for entry in fs::read_dir(app.data_dir().join(&folder)).unwrap().flatten() {
        let file = format!("{folder}/{}", entry.file_name().to_string_lossy());
        app.until_there(&file, file == present);
    }
}

#[test]
fn what_is_made_again_lies_beside_what_is_on_record() {
    let mut app = Appliance::with(&[AT_ONCE]);
    with_conversions(&app);
    let id = whole(&app, "p.jpg", &jpeg(300, 200));
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    let folder = format!("conversions/{}/{id}/1", &id[..2]);
    let files = |app: &Appliance| {
        let entries = fs::read_dir(app.data_dir().join(&folder)).unwrap().flatten();
        let mut files: Vec<_> =
            entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect();
        files.sort();
        files
    };
    // What is shown is what is told, and lies where that says.
    let shown = |app: &Appliance, width: u32| {
        let told = data(app, &id)["conversions"]["small"].clone();
        let shown = app.get(&at("conversions/small"));
        assert_eq!((shown.picture().1, &told["width"]), (width, &json!(width)));
        assert_eq!(shown.body.len(), told["size"]);
        let key = told["key"].as_str().unwrap().trim_start_matches('/').to_owned();
        assert_eq!(fs::read(app.data_dir().join(&key)).unwrap(), shown.body);
        key
    };
    let before = shown(&app, 100);
    assert_eq!(files(&app), std::slice::from_ref(&before));

    let body = json!({"key": "image", "value": {"is_on_demand_private": false, "conversions": [{"key": "small", "value": {
        "format": "jpg", "watermark": false, "enabled": true, "public": true, "width": 50, "height": 0, "dpi": 72}}]}});
    let answer = app.call("PATCH", "/api/v1/user/settings/update", &[AUTH], body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());

    // It comes as far as its record, and no further.
    let full = "CREATE TRIGGER full BEFORE UPDATE ON conversion BEGIN SELECT RAISE(ABORT, 'full'); END";
    app.crash(|folder| meddle(folder, full));
    let asked = app.post_json(&at("process"), "{\"keys\":[\"small\"]}").json();
    let failed = "SELECT count(*) FROM job WHERE kind = 'processing.step' AND error_code IS NOT NULL";
    {
        let rows = Connection::open(app.data_dir().join("cloakroom.db")).unwrap();
        rows.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while rows.query_row(failed, [], |r| r.get::<_, i64>(0)).unwrap() == 0 {
            assert!(Instant::now() < deadline, "nothing failed");
            app.get("/livez");
        }
    }
    shown(&app, 100);
    let there = files(&app);
    assert_eq!((there.len(), there.contains(&before)), (2, true), "{there:?}");
    let made_in_vain = there.into_iter().find(|file| *file != before).unwrap();

    // A cancelled job has no effect.
    let cancelled = app.post_json(&format!("/api/v1/jobs/{}/cancel", asked["job_id"]), "");
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    app.crash(|folder| meddle(folder, "DROP TRIGGER full"));
    app.until_there(&made_in_vain, false);
    shown(&app, 100);

    // One that goes on record takes the place of the one before, whose file goes.
    ended(&app, &app.post_json(&at("process"), "{\"keys\":[\"small\"]}"));
    let after = shown(&app, 50);
    assert!(![&before, &made_in_vain].contains(&&after), "{after}");
    app.until_there(&before, false);
    shown(&app, 50);
    assert_eq!(files(&app), [after]);
}

#[test]
fn contents_are_downloaded() {
    let app = Appliance::start();
    with_conversions(&app);
    let body = jpeg(300, 200);
    let id = whole(&app, "p.jpg", &body);
    let at = |rest: &str| format!("/api/v1/assets/{id}/{rest}");
    for path in ["download", "download?key=original", "content/original/download"] {
        app.get(&at(path)).refused(401, "UNAUTHORIZED");
        let got = app.call("GET", &at(path), &[AUTH, ("Range", "bytes=10-19")], b"");
        assert_eq!((got.status, &got.body[..]), (206, &body[10..20]), "{path}");
        assert!(got.header("content-disposition").starts_with("attachment; filename=\"p.jpg\""), "{path}");
    }
    let small = app.get(&at("download?key=small"));
    assert_eq!(small.picture(), ("image/jpeg", 100, 67));
    assert!(small.header("content-disposition").starts_with("attachment; filename=\"p-small.jpg\""));
    assert_eq!(
        app.call("HEAD", &at("download?key=small"), &[], b"").header("content-length"),
        small.body.len().to_string()
    );
    app.call("GET", &at("download?key=nonsense"), &[AUTH], b"").refused(404, "CONTENT_NOT_FOUND");
    app.call("GET", &at("download?key=../../x"), &[AUTH], b"").refused(404, "CONTENT_NOT_FOUND");
}

#[test]
fn many_are_deleted_at_once() {
    let app = Appliance::start();
    let ids: Vec<_> = (0..60).map(|n| app.keep(&format!("{n}.txt"), b"some words\n")).collect();
    for id in &ids {
        app.settled(id);
    }
    app.post_json(&format!("/api/v1/assets/{}/archive", ids[3]), "");
    let at = data(&app, &ids[0])["upload_time"].as_str().unwrap().to_owned();
    let last = data(&app, &ids[59])["upload_time"].as_str().unwrap().to_owned();
    let bulk = |body: Value| app.post_json("/api/v1/assets/bulk/delete", &body.to_string());
    let job = ended(&app, &bulk(json!({"start_time": at, "end_time": last})));
    assert_eq!((&job["type"], &job["status"]), (&json!("BULK_DELETE"), &json!("COMPLETED")), "{job}");
    assert_eq!((&job["input"]["start_time"], &job["input"]["end_time"]), (&json!(at), &json!(last)));
    assert_eq!(job["callback"], json!({"total": 60, "done": 60, "errors": {ids[3].clone(): "ASSET_ARCHIVED"}}));
    assert_eq!(job["progress"], job["callback"]);
    assert_eq!(job["job_steps"]["bulk"]["delete"]["status"], "COMPLETED");
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
    assert_eq!(app.json("/api/v1/assets/purge/count")["count"], 59);
    assert_eq!(app.json("/api/v1/jobs")["jobs"][0]["job_id"], job["job_id"]);
    assert_eq!(events(&app, &ids[7]).last().unwrap(), "file-deleted");
    app.post_json(&format!("/api/v1/assets/{}/unarchive", ids[3]), "");
    let job = ended(&app, &bulk(json!({"asset_ids": [ids[3], ids[4], NOWHERE]})));
    assert_eq!(
        job["callback"]["errors"],
        json!({ids[4].clone(): "ASSET_NOT_FOUND", NOWHERE: "ASSET_NOT_FOUND"}),
        "{job}"
    );
    // The longest span there may be.
    let days = ended(&app, &bulk(json!({"start_time": "2024-01-01T00:00:00Z", "end_time": "2024-02-01T00:00:00Z"})));
    assert_eq!(days["callback"], json!({"total": 0, "done": 0, "errors": {}}), "{days}");
    for (body, message) in [
        (json!({}), "MISSING_MANDATORY_PARAMETERS"),
        (json!({"start_time": at}), "MISSING_MANDATORY_PARAMETERS"),
        (json!({"start_time": "yesterday", "end_time": at}), "INVALID_REQUEST"),
        (json!({"start_time": at, "end_time": "2001-01-01T00:00:00Z"}), "INVALID_REQUEST"),
        (json!({"start_time": "2024-01-01T00:00:00Z", "end_time": "2024-02-01T00:00:01Z"}), "INVALID_REQUEST"),
        (json!({"asset_ids": vec![NOWHERE; 1001]}), "INVALID_REQUEST"),
        (json!({"asset_ids": ["x"]}), "INVALID_REQUEST"),
        (json!({"asset_ids": "x"}), "INVALID_REQUEST"),
        (json!([]), "INVALID_REQUEST"),
    ] {
        bulk(body).refused(400, message);
    }
}

#[test]
fn many_are_processed_at_once() {
    let app = Appliance::start();
    let pictures: Vec<_> =
        (0..3).map(|n| app.saved(&format!("{n}.jpg"), &jpeg(30, 20))["id"].as_str().unwrap().to_owned()).collect();
    let text = app.saved("a.txt", b"some words\n")["id"].as_str().unwrap().to_owned();
    let broken = app.saved("a.jpg", b"no picture")["id"].as_str().unwrap().to_owned();
    with_conversions(&app);
    let mut ids = pictures.clone();
    ids.extend([text, broken.clone(), NOWHERE.to_owned()]);
    let body = json!({"asset_ids": ids, "keys": ["small", "nonsense"]}).to_string();
    let job = ended(&app, &app.post_json("/api/v1/assets/bulk/process", &body));
    assert_eq!((&job["type"], &job["status"]), (&json!("BULK_PROCESS"), &json!("COMPLETED")), "{job}");
    assert_eq!(job["input"], json!({"assets": 6, "keys": ["small", "nonsense"]}));
    let told = &job["callback"];
    assert_eq!(told["errors"], json!({broken: "ASSET_INVALID", NOWHERE: "ASSET_NOT_FOUND"}));
    assert_eq!(told["jobs"].as_object().unwrap().len(), 3, "what no key applies to has no job: {told}");
    for id in &pictures {
        app.until(&format!("/api/v1/jobs/{}", told["jobs"][id]), |job| job["status"] == "COMPLETED");
        assert!(data(&app, id)["conversions"]["small"].is_object());
    }
    let at = data(&app, &pictures[0])["upload_time"].as_str().unwrap().to_owned();
    let body = json!({"start_time": at, "end_time": at, "keys": ["small"]}).to_string();
    let job = ended(&app, &app.post_json("/api/v1/assets/bulk/process", &body));
    assert!(job["callback"]["total"].as_u64().unwrap() >= 1, "{job}");
    for bad in ["{}", "{\"keys\":[]}", "{\"asset_ids\":[]}", "{\"keys\":\"x\",\"asset_ids\":[]}"] {
        assert_eq!(app.post_json("/api/v1/assets/bulk/process", bad).status, 400, "{bad}");
    }
}

#[test]
fn what_a_crash_left_of_replacing_and_handing_in_is_settled() {
    let mut app = Appliance::with(&[AT_ONCE]);
    let body = jpeg(30, 20);
    let id = app.saved("p.jpg", &body)["id"].as_str().unwrap().to_owned();
    assert_eq!(
        app.send(&format!("/api/v1/assets/{id}/content/web"), Form::new().file("f", "w.png", &png(9, 9, false))).status,
        200
    );
    for n in 1..=2 {
        let form = Form::new().file("f", "x.txt", format!("words {n}").as_bytes());
        assert_eq!(app.send(&format!("/api/v1/assets/{id}/content/original/replace"), form).status, 200);
    }
    app.settled(&id);
    assert_eq!(
        app.send(&format!("/api/v1/assets/{id}/content/web"), Form::new().file("f", "w.png", &png(7, 9, false))).status,
        200
    );
    let shard = id[..2].to_owned();
    app.until_there(&format!("originals/{shard}/{id}.2"), false);
    app.staging_empties();
    let key = data(&app, &id)["conversions"]["web"]["key"].as_str().unwrap().trim_start_matches('/').to_owned();
    let handed = key.rsplit('.').next().unwrap().to_owned();
    app.crash(|dir| {
        let link = |from: &str, to: &str| fs::hard_link(dir.join(from), dir.join(to)).unwrap();
        let stage = |name: &str| fs::write(dir.join("staging").join(name), b"bytes").unwrap();
        // Recorded, its name in staging not yet gone.
        link(&format!("originals/{shard}/{id}.3"), &format!("staging/{id}.3"));
        link(&key, &format!("staging/{id}.3.web.{handed}"));
        // Kept, but nobody was told.
        stage(&format!("{id}.4"));
        link(&format!("staging/{id}.4"), &format!("originals/{shard}/{id}.4"));
        // Refused because a later one was there.
        stage(&format!("{id}.2"));
        link(&format!("staging/{id}.2"), &format!("originals/{shard}/{id}.2"));
        // Not finished.
        stage(&format!("{id}.5"));
        stage(&format!("{id}.3.other.0123456789abcdef"));
        // Handed in, but nobody was told.
        stage(&format!("{id}.3.web.fedcba9876543210"));
        link(
            &format!("staging/{id}.3.web.fedcba9876543210"),
            &format!("conversions/{shard}/{id}/3/web.fedcba9876543210"),
        );
        // Being removed.
        fs::create_dir(dir.join("staging/tmp-0123456789abcdef")).unwrap();
        stage("tmp-0123456789abcdef/playlist.m3u8");
    });
    let dir = app.data_dir();
    assert_eq!(fs::read_dir(dir.join("staging")).unwrap().count(), 0);
    let in_quarantine: Vec<_> =
        fs::read_dir(dir.join("quarantine")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(in_quarantine, [&*format!("{id}.4")]);
    for gone in [
        format!("originals/{shard}/{id}.2"),
        format!("originals/{shard}/{id}.4"),
        format!("conversions/{shard}/{id}/3/web.fedcba9876543210"),
    ] {
        assert!(!dir.join(&gone).exists(), "{gone}");
    }
    assert_eq!(app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body, b"words 2");
    assert_eq!(app.call("GET", &format!("/api/v1/assets/{id}/conversions/web"), &[AUTH], b"").picture().1, 7);
    // And on it goes, with the next free number.
    let form = Form::new().file("f", "x.png", &png(50, 40, false));
    assert_eq!(app.send(&format!("/api/v1/assets/{id}/content/original/replace"), form).status, 200);
    assert_eq!(pixels(&app.get(&format!("/api/v1/assets/{id}/conversions?resize=50,40")).body).dimensions(), (50, 40));
}

#[test]
fn what_is_owed_is_done_after_a_crash() {
    let mut app = Appliance::with(&[("CLOAKROOM_CUSTODY__LINGER_SECONDS", "1")]);
    with_conversions(&app);
    let ids: Vec<_> = (0..4).map(|n| whole(&app, &format!("{n}.jpg"), &jpeg(300, 200 + n))).collect();
    let replaced = &ids[0];
    let form = Form::new().file("f", "x.jpg", &jpeg(90, 90));
    assert_eq!(app.send(&format!("/api/v1/assets/{replaced}/content/original/replace"), form).status, 200);
    for id in &ids[1..] {
        assert_eq!(app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"").status, 200);
    }
    let purge = app.post_json("/api/v1/assets/purge", "");
    app.crash(|_| {});
    ended(&app, &purge);
    made(&app, replaced);
    assert_eq!(app.get(&format!("/api/v1/assets/{replaced}/conversions/small")).picture(), ("image/jpeg", 90, 90));
    app.until_there(&format!("originals/{}/{replaced}.1", &replaced[..2]), false);
    for id in &ids[1..] {
        app.until_there(&format!("originals/{}/{id}.1", &id[..2]), false);
        app.until_there(&format!("conversions/{}/{id}", &id[..2]), false);
    }
}
