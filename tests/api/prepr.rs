//! Prepr's API, as its documentation and its PHP SDK use it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;

use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::Form;
use crate::harness::KEY;
use crate::harness::PATIENCE;
use crate::harness::jpeg;
use crate::harness::meddle;
use crate::harness::png;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const PARTS: (&str, &str) = ("Content-Type", Form::TYPE);

fn token(app: &Appliance, scopes: &str) -> String {
    let made = app.cli(&["key", "token", EMAIL, "--name", "test", "--scopes", scopes]);
    let said = String::from_utf8(made.stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("token: ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn send(app: &Appliance, method: &str, path: &str, kind: (&str, &str), body: &[u8]) -> Answer {
    app.call(method, path, &[AUTH, kind], body)
}

fn said(app: &Appliance, method: &str, path: &str, body: &Value) -> Answer {
    send(app, method, path, JSON, body.to_string().as_bytes())
}

/// Takes a picture in, with these fields.
fn keep(app: &Appliance, fields: &[(&str, &str)]) -> Value {
    let form = fields.iter().fold(Form::new(), |form, (name, text)| form.field(name, text));
    let form = form.file("source", "photo.jpg", &jpeg(40, 30));
    let answer = send(app, "POST", "/assets", PARTS, &form.end());
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn id(asset: &Value) -> String {
    asset["id"].as_str().unwrap().to_owned()
}

fn start(app: &Appliance, size: usize) -> String {
    let started = said(app, "POST", "/assets", &json!({"upload_phase": "start", "file_size": size.to_string()}));
    assert_eq!(started.status, 201, "{}", started.text());
    id(&started.json())
}

fn transfer(app: &Appliance, id: &str, chunk: &[u8]) -> Answer {
    let form = Form::new().field("upload_phase", "transfer").file("file_chunk", "xaa", chunk);
    send(app, "POST", &format!("/assets/{id}/multipart"), PARTS, &form.end())
}

fn finish(app: &Appliance, id: &str) -> Answer {
    said(app, "POST", &format!("/assets/{id}/multipart"), &json!({"upload_phase": "finish"}))
}

fn original(app: &Appliance, id: &str) -> Vec<u8> {
    let plain = id.replace('-', "");
    let answer = app.call("GET", &format!("/api/v1/assets/{plain}/content/original"), &[AUTH], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

fn total(app: &Appliance, query: &str) -> u64 {
    app.json(&format!("/assets?{query}"))["total"].as_u64().unwrap()
}

#[test]
fn a_token_is_taken_wherever_clients_put_it_and_does_what_its_scopes_say() {
    let app = Appliance::start();
    let (all, read) = (token(&app, "assets,assets_publish,assets_delete"), token(&app, "assets"));
    let asset = id(&keep(&app, &[]));
    for (path, header) in [
        ("/assets".to_owned(), Some(format!("Bearer {read}"))),
        ("/assets".to_owned(), Some(read.clone())),
        ("/assets".to_owned(), Some(format!("bearer {KEY}"))),
        (format!("/assets?access_token={read}"), None),
        (format!("/assets?access_token={KEY}&limit=3"), None),
    ] {
        let header = header.iter().map(|value| ("Authorization", &**value)).collect::<Vec<_>>();
        let answer = app.call("GET", &path, &header, b"");
        assert_eq!(answer.status, 200, "{path} {header:?}: {}", answer.text());
        let left: u32 = answer.header("x-prepr-ratelimit-remaining").parse().unwrap();
        assert!(left < 3000 && answer.header("x-prepr-ratelimit-limit") == "3000");
    }
    let path = format!("/assets/{asset}");
    let with = |method: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        app.call(method, &path, &[("Authorization", &bearer), FORM], b"name=x")
    };
    for (method, token) in [("PUT", &read), ("DELETE", &read), ("GET", &"0".repeat(48))] {
        with(method, token).refused(401, "UNAUTHORIZED");
    }
    app.get("/assets").refused(401, "UNAUTHORIZED");
    app.call("GET", "/collections", &[("Authorization", &all)], b"").refused(401, "UNAUTHORIZED");
    app.call("POST", "/api/v1/search", &[("Authorization", &format!("Bearer {all}"))], b"{}");
    app.call("GET", "/api/v1/users", &[("Authorization", &format!("Bearer {all}"))], b"").refused(403, "FORBIDDEN");
    assert_eq!(with("PUT", &all).status, 200);
    assert_eq!(with("DELETE", &all).status, 204);
    // Made by the API, listed, and ended.
    let made = app.post_json("/api/v1/users/1/keys", r#"{"name": "site", "scopes": ["assets"]}"#).json();
    let text = made["token"].as_str().unwrap().to_owned();
    assert_eq!(app.call("GET", "/assets", &[("Authorization", &text)], b"").status, 200);
    let keys = app.json("/api/v1/user/keys");
    let listed = keys["keys"].as_array().unwrap().iter().find(|key| key["name"] == "site").unwrap().clone();
    assert_eq!((&listed["kind"], &listed["scopes"]), (&json!("token"), &json!(["assets"])));
    let gone = app.call("DELETE", &format!("/api/v1/users/1/keys/{}", made["key_id"]), &[AUTH], b"");
    assert_eq!(gone.status, 200, "{}", gone.text());
    app.call("GET", "/assets", &[("Authorization", &text)], b"").refused(401, "UNAUTHORIZED");
    app.post_json("/api/v1/users/1/keys", r#"{"name": "x", "scopes": ["everything"]}"#).refused(400, "INVALID_REQUEST");
    app.post_json("/api/v1/users/1/keys", r#"{"name": "x", "scopes": []}"#).refused(400, "INVALID_REQUEST");
}

#[test]
fn a_token_that_reads_changes_no_collection_and_makes_no_link() {
    let app = Appliance::start();
    let asset = app.keep("a.txt", b"text");
    let bearer = format!("Bearer {}", token(&app, "assets,assets_publish,assets_delete"));
    let with = |method: &str, path: &str, body: &str| {
        app.call(method, path, &[("Authorization", &bearer), JSON], body.as_bytes())
    };
    let body = format!(r#"{{"name": "mine", "assets": ["{asset}"]}}"#);
    let made = app.post_json("/api/v1/assetcollection", &body);
    assert_eq!(made.status, 200, "{}", made.text());
    let one = format!("/api/v1/assetcollection/{}", made.json()["id"]);
    assert_eq!(with("GET", &one, "").status, 200, "reading is what it is for");
    assert_eq!(with("GET", &format!("{one}/download"), "").status, 200);
    for (method, path, body) in [
        ("DELETE", one.clone(), ""),
        ("PUT", one.clone(), r#"{"name": "theirs"}"#),
        ("POST", format!("{one}/assets"), r#"{"assets": []}"#),
        ("POST", "/api/v1/assetcollection".to_owned(), r#"{"name": "another"}"#),
        ("GET", format!("{one}/download?as_url=y"), ""),
        ("GET", format!("/api/v1/assets/{asset}/get_link?key=original&expiry=MAX"), ""),
        ("POST", "/api/v1/assets/get_link?key=original".to_owned(), &*format!(r#"["{asset}"]"#)),
    ] {
        with(method, &path, body).refused(403, "FORBIDDEN");
    }
    assert_eq!(app.json(&one)["name"], "mine");
}

#[test]
fn calls_with_a_token_are_counted_as_its_user_s() {
    let app = Appliance::with(&[
        ("CLOAKROOM_HTTP__RATES__CALLS_BURST", "3"),
        ("CLOAKROOM_HTTP__RATES__CALLS_PER_SECOND", "1"),
    ]);
    let bearer = format!("Bearer {}", token(&app, "assets"));
    let answers: Vec<u16> =
        (0..200).map(|_| app.call("GET", "/api/v1/assets", &[("Authorization", &bearer)], b"").status).collect();
    assert_eq!(answers[..3], [200; 3]);
    assert!(answers.contains(&429), "{answers:?}");
}

#[test]
fn too_many_calls_are_told_how_many_they_had() {
    let app = Appliance::with(&[("CLOAKROOM_ACCOUNTS__TOKEN_CALLS_PER_MINUTE", "2")]);
    let read = token(&app, "assets");
    let call = || app.call("GET", "/assets", &[("Authorization", &read)], b"");
    assert_eq!(call().header("x-prepr-ratelimit-remaining"), "1");
    assert_eq!(call().header("x-prepr-ratelimit-remaining"), "0");
    let refused = call();
    refused.refused(429, "TOO_MANY_REQUESTS");
    assert_eq!(
        (refused.header("x-prepr-ratelimit-limit"), refused.header("x-prepr-ratelimit-remaining")),
        ("2".into(), "0".into())
    );
    assert!(refused.header("retry-after").parse::<u32>().unwrap() <= 60);
}

#[test]
fn a_file_comes_in_whole_and_is_described_in_any_kind_of_body() {
    let app = Appliance::start();
    let asset = keep(&app, &[("name", "Evening"), ("body", "On the roof"), ("tags[items][0][body]", "Summer 2026")]);
    let id = id(&asset);
    assert_eq!(id.len(), 36);
    assert_eq!(
        (&asset["label"], &asset["name"], &asset["body"], &asset["original_name"], &asset["mime_type"]),
        (&json!("Photo"), &json!("Evening"), &json!("On the roof"), &json!("photo.jpg"), &json!("image/jpeg"))
    );
    assert!(asset["created_on"].as_str().unwrap().ends_with("+00:00"), "{asset}");
    assert_eq!((&asset["status"], &asset["author"]), (&Value::Null, &Value::Null));
    app.settled(&id.replace('-', ""));
    let path = format!("/assets/{id}?fields=tags,cdn_files");
    let found = app.json(&path);
    assert_eq!((&found["width"], &found["height"]), (&json!(40), &json!(30)));
    assert_eq!(found["tags"]["items"][0]["slug"], "summer-2026");
    let tag = found["tags"]["items"][0]["id"].as_str().unwrap().to_owned();
    for (kind, body, name) in [
        (JSON, json!({"name": "A", "author": "B", "tags": {"items": [{"id": tag}, {"slug": "new"}]}}).to_string(), "A"),
        (
            FORM,
            format!("name=C&reference_id=dam-7&tags%5Bitems%5D%5B0%5D%5Bid%5D={tag}&tags[items][1][body]=New!"),
            "C",
        ),
    ] {
        let changed = send(&app, "PUT", &path, kind, body.as_bytes());
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!((&changed.json()["name"], &changed.json()["tags"]["total"]), (&json!(name), &json!(2)));
    }
    let form = Form::new().field("body", "").field("author", "D").end();
    let changed = send(&app, "PUT", &path, PARTS, &form).json();
    assert_eq!(
        (&changed["name"], &changed["body"], &changed["author"], &changed["reference_id"]),
        (&json!("C"), &Value::Null, &json!("D"), &json!("dam-7"))
    );
    let uploaded = send(&app, "PUT", &path, JSON, b"{\"name\": null}").json();
    assert_eq!(uploaded["name"], "photo.jpg", "without a name it is its file's");
    for (body, code) in
        [("[]", "INVALID_REQUEST"), ("{\"name\": []}", "INVALID_REQUEST"), ("{\"tags\": [{}]}", "INVALID_REQUEST")]
    {
        send(&app, "PUT", &path, JSON, body.as_bytes()).refused(400, code);
    }
    let unknown = json!({"tags": [{"id": "00000000-0000-4000-8000-000000000000"}]});
    said(&app, "PUT", &path, &unknown).refused(400, "INVALID_REQUEST");
    said(&app, "POST", "/assets", &json!({"name": "nothing"})).refused(400, "NO_FILE");
    let empty = Form::new().file("source", "x.jpg", b"").end();
    send(&app, "POST", "/assets", PARTS, &empty).refused(400, "EMPTY_FILE");
    // A field named `source` is a file, also when it brings no name.
    let bare = Form::new().part("name=\"source\"", &png(3, 2, false)).end();
    assert_eq!(send(&app, "POST", "/assets", PARTS, &bare).status, 201);
    app.call("GET", "/assets/not-an-id", &[AUTH], b"").refused(404, "ASSET_NOT_FOUND");
    let deleted = app.call("DELETE", &format!("/assets/{id}"), &[AUTH, FORM], b"");
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    app.call("GET", &format!("/assets/{id}"), &[AUTH], b"").refused(404, "ASSET_NOT_FOUND");
    app.call("DELETE", &format!("/assets/{id}"), &[AUTH], b"").refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn a_call_that_comes_again_with_its_key_is_made_once() {
    let app = Appliance::start();
    let send = |key: &str, kind: (&str, &str), body: &[u8]| {
        app.call("POST", "/assets", &[AUTH, kind, ("Idempotency-Key", key)], body)
    };
    let form = |text: &str| Form::new().field("name", "A").file("source", "a.txt", text.as_bytes()).end();
    let begin = |size: u64| json!({"upload_phase": "start", "file_size": size, "name": "B"}).to_string().into_bytes();
    for (key, kind, body, other) in [("one", PARTS, form("text"), form("other")), ("two", JSON, begin(10), begin(11))] {
        let first = send(key, kind, &body);
        assert_eq!((first.status, first.header("idempotent-replayed")), (201, String::new()), "{}", first.text());
        let again = send(key, kind, &body);
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true".to_owned()));
        assert_eq!(again.body, first.body, "word for word");
        send(key, kind, &other).refused(422, "IDEMPOTENCY_KEY_REUSED");
    }
    assert_eq!(total(&app, ""), 1);
    app.staging_holds(1);
    // Answers that were not noted are made up.
    meddle(&app.data_dir(), "UPDATE repeatable SET answer = NULL");
    let said = send("one", PARTS, &form("text"));
    assert_eq!((said.status, &said.json()["name"]), (201, &json!("A")), "{}", said.text());
    let said = send("two", JSON, &begin(10));
    assert_eq!((said.status, &said.json()["name"]), (201, &json!("B")), "{}", said.text());
}

#[test]
fn addresses_of_files_lead_to_them() {
    let app = Appliance::start();
    let picture = id(&keep(&app, &[]));
    app.settled(&picture.replace('-', ""));
    let url = app.json(&format!("/assets/{picture}"))["cdn_files"]["items"][0]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix("http://box").unwrap_or_else(|| panic!("{url}"));
    assert!(path.contains("{format}"), "{path}");
    assert_eq!(app.get(&path.replace("{format}", "w_20,h_20")).picture(), ("image/jpeg", 20, 15));
    for bare in [path.replace("{format}", ""), path.replace("{format}/", "")] {
        assert_eq!(app.get(&bare).picture(), ("image/jpeg", 40, 30), "{bare}");
    }
    app.get(&path.replace("{format}", "z_1")).refused(400, "INVALID_REQUEST");
    app.get("/cdn/w_20/00000000000000000000000000000000.jpg").refused(404, "ASSET_NOT_FOUND");
    let form = Form::new().file("source", "notes.txt", b"some words").end();
    let document = send(&app, "POST", "/assets", PARTS, &form).json();
    assert_eq!(document["label"], "Document");
    let url = document["cdn_files"]["items"][0]["url"].as_str().unwrap().replace("{format}/", "");
    let file = app.get(url.strip_prefix("http://box").unwrap());
    assert_eq!((file.status, &*file.body), (200, &b"some words"[..]));
    // What came in by the other contract stays as private as it was.
    let private = app.keep("notes.txt", b"other words");
    app.get(&format!("/cdn/{private}.txt")).refused(401, "UNAUTHORIZED");
}

#[test]
fn listings_filter_sort_and_page() {
    let app = Appliance::start();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            id(&keep(
                &app,
                &[("name", &format!("Number {n} 100%")), ("reference_id", if n < 2 { "low" } else { "high" })],
            ))
        })
        .collect();
    let text = Form::new().file("source", "a.txt", b"x").field("tags[0][body]", "Odd").end();
    let document = id(&send(&app, "POST", "/assets", PARTS, &text).json());
    let album = said(&app, "POST", "/collections", &json!({"body": "Best"})).json();
    let put = json!({"items": [{"id": ids[0]}, {"id": ids[1]}]});
    assert_eq!(said(&app, "POST", &format!("/collections/{}/assets", id(&album)), &put).status, 200);
    for (query, count) in [
        ("", 6),
        ("labels[0][eq]=Photo", 5),
        ("labels[0][in][0]=Photo&labels[0][in][1]=Document", 6),
        ("labels[0][eq]=Video", 0),
        ("q[0][fz]=number+3", 1),
        ("q[0][fz]=%25", 5),
        ("q[0][fz]=_", 0),
        ("q[0][fz]=odd", 1),
        ("reference_id[0][eq]=low", 2),
        ("reference_id[0][in][0]=low&reference_id[0][in][1]=high", 5),
        ("tags[0][in][0]=odd", 1),
        ("tags[0][eq]=even", 0),
        (&format!("collections[0][eq]={}", id(&album)), 2),
        ("collections[0][eq]=nothing", 0),
        ("content_item[0][has]=true", 0),
        ("content_item[0][has]=false", 6),
        ("labels[0][eq]=Photo&reference_id[0][eq]=low&q[0][fz]=1", 2),
    ] {
        assert_eq!(total(&app, query), count, "{query}");
    }
    let listed = |query: &str| {
        let page = app.json(&format!("/assets?{query}"));
        let items = page["items"].as_array().unwrap();
        (items.iter().map(id).collect::<Vec<_>>(), page.clone())
    };
    let mut all = ids.clone();
    all.push(document.clone());
    assert_eq!(listed("sort=created_on").0, all);
    all.reverse();
    assert_eq!(listed("").0, all);
    assert_eq!((listed("skip=2&limit=2").0, listed("offset=4&limit=2").0), (all[2..4].to_vec(), all[4..].to_vec()));
    let (mut seen, mut page) = listed("limit=2");
    assert_eq!((&page["before"], &page["limit"], &page["skip"]), (&Value::Null, &json!(2), &json!(0)));
    while let Some(after) = page["after"].as_str() {
        let (next, found) = listed(&format!("limit=2&after={after}"));
        seen.extend(next);
        page = found;
    }
    assert_eq!(seen, all);
    let before = page["before"].as_str().unwrap();
    assert_eq!(listed(&format!("limit=2&before={before}")).0, all[2..4]);
    assert_eq!(send(&app, "PUT", &format!("/assets/{}", ids[0]), FORM, b"author=x").status, 200);
    assert_eq!(listed("sort=-changed_on&limit=1").0, ids[..1]);
    for bad in ["limit=1001", "limit=x", "limit=1.5", "skip=-1", "sort=size", "after=nonsense", "q[0][xx]=1"] {
        app.call("GET", &format!("/assets?{bad}"), &[AUTH], b"").refused(400, "INVALID_REQUEST");
    }
}

#[test]
fn collections_hold_what_is_put_into_them() {
    let app = Appliance::start();
    let asset = id(&keep(&app, &[]));
    let made = send(&app, "POST", "/collections", PARTS, &Form::new().field("body", "Roof").end());
    assert_eq!(made.status, 201, "{}", made.text());
    let album = made.json();
    assert_eq!((&album["label"], &album["body"]), (&json!("Collection"), &json!("Roof")));
    let path = format!("/collections/{}", id(&album));
    assert_eq!(send(&app, "PUT", &path, FORM, b"body=Terrace").json()["body"], "Terrace");
    for _ in 0..2 {
        let form = format!("items[0][id]={asset}");
        assert_eq!(send(&app, "POST", &format!("{path}/assets"), FORM, form.as_bytes()).status, 200);
    }
    let members = format!("collections[0][eq]={}", id(&album));
    assert_eq!(total(&app, &members), 1);
    let covered = app.call("POST", &format!("{path}/cover?id={asset}"), &[AUTH], b"");
    assert_eq!(covered.json()["cover"]["id"], *asset);
    let shown = app.json(&format!("/assets/{asset}?fields=collections"));
    assert_eq!(shown["collections"]["items"][0]["body"], "Terrace");
    let nobody = json!({"items": [{"id": "00000000-0000-4000-8000-000000000000"}]});
    said(&app, "POST", &format!("{path}/assets"), &nobody).refused(404, "ASSET_NOT_FOUND");
    let items = json!({"items": [{"id": asset}]});
    assert_eq!(said(&app, "DELETE", &format!("{path}/assets"), &items).status, 204);
    assert_eq!(total(&app, &members), 0);
    assert_eq!(app.json("/collections")["total"], 1);
    let put = json!({"collections": {"items": [{"id": id(&album)}]}});
    assert_eq!(said(&app, "PUT", &format!("/assets/{asset}"), &put).status, 200);
    assert_eq!(total(&app, &members), 1);
    assert_eq!(app.call("DELETE", &path, &[AUTH], b"").status, 204);
    app.call("GET", &path, &[AUTH], b"").refused(404, "COLLECTION_NOT_FOUND");
    said(&app, "POST", "/collections", &json!({"body": " "})).refused(400, "INVALID_REQUEST");
}

#[test]
fn chunks_are_put_one_after_the_other() {
    let app = Appliance::start();
    let whole = jpeg(300, 200);
    let id = start(&app, whole.len());
    let pending = app.json(&format!("/assets/{id}"));
    assert_eq!((&pending["cdn_files"]["total"], &pending["label"]), (&json!(0), &json!("Document")));
    assert_eq!(total(&app, ""), 0, "what is not whole is not listed");
    let (first, rest) = whole.split_at(1000);
    let kept = transfer(&app, &id, first);
    assert_eq!(
        (kept.status, &kept.json()["start_offset"], &kept.json()["end_offset"]),
        (200, &json!(1000), &json!(whole.len()))
    );
    finish(&app, &id).refused(400, "INVALID_REQUEST");
    assert_eq!(transfer(&app, &id, b"").json()["start_offset"], 1000, "an empty chunk is none");
    let named = send(&app, "PUT", &format!("/assets/{id}"), FORM, b"body=later");
    assert_eq!(named.json()["body"], "later");
    // As the SDK does: everything again, and the name of the file.
    let form = Form::new()
        .field("body", "Example")
        .field("upload_phase", "transfer")
        .field("file_size", &whole.len().to_string())
        .file("file_chunk", "roof.jpg", rest);
    assert_eq!(send(&app, "POST", &format!("/assets/{id}/multipart"), PARTS, &form.end()).status, 200);
    let form = Form::new().field("upload_phase", "finish").file("file_chunk", "roof.jpg", rest);
    let done = send(&app, "POST", &format!("/assets/{id}/multipart"), PARTS, &form.end());
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!((&done.json()["label"], &done.json()["body"]), (&json!("Photo"), &json!("later")));
    assert_eq!(original(&app, &id), whole);
    assert_eq!(finish(&app, &id).status, 200, "the end may be said twice");
    transfer(&app, &id, b"more").refused(400, "INVALID_REQUEST");
    app.staging_empties();
    for bad in [json!({"upload_phase": "start"}), json!({"upload_phase": "start", "file_size": "many"})] {
        assert_eq!(said(&app, "POST", "/assets", &bad).status, 400);
    }
    said(&app, "POST", "/assets", &json!({"upload_phase": "start", "file_size": 0})).refused(400, "EMPTY_FILE");
    said(&app, "POST", "/assets", &json!({"upload_phase": "start", "file_size": 1_u64 << 60}))
        .refused(413, "TOO_LARGE");
    let given_up = start(&app, 10);
    assert_eq!(transfer(&app, &given_up, b"12345").status, 200);
    assert_eq!(app.call("DELETE", &format!("/assets/{given_up}"), &[AUTH], b"").status, 204);
    transfer(&app, &given_up, b"12345").refused(404, "ASSET_NOT_FOUND");
    app.staging_empties();
}

#[test]
fn a_chunk_that_comes_again_after_a_lost_answer_counts_once() {
    let mut app = Appliance::start();
    // Heard answers: the same bytes twice are twice as many.
    let id = start(&app, 3000);
    for n in 1..=3 {
        assert_eq!(transfer(&app, &id, &[7; 1000]).json()["start_offset"], n * 1000);
    }
    // There is no room for more: a repetition.
    assert_eq!(transfer(&app, &id, &[7; 1000]).json()["start_offset"], 3000);
    assert_eq!(finish(&app, &id).status, 200);
    assert_eq!(original(&app, &id), [7; 3000]);
    // The sender is gone before the answer.
    let size = 1_100_000;
    let chunk = vec![7; size];
    let id = start(&app, 3 * size);
    let body = Form::new().field("upload_phase", "transfer").file("file_chunk", "x", &chunk).end();
    let mut socket = begun_chunk(&app, &id, body.len());
    let (most, end) = body.split_at(body.len() - 100);
    socket.write_all(most).unwrap();
    // It has its turn, so it comes before its repetition.
    until_staged(&app, &id);
    // The end of the chunk and the end of the connection are found at once.
    app.frozen(|| {
        socket.write_all(end).unwrap();
        drop(socket);
    });
    assert_eq!(transfer(&app, &id, &chunk).json()["start_offset"], size);
    // Nor does a crash make it more: nobody knows who heard the last answer.
    app.crash(|_| ());
    assert_eq!(transfer(&app, &id, &chunk).json()["start_offset"], size);
    assert_eq!(transfer(&app, &id, &chunk).json()["start_offset"], 2 * size);
    // Whoever says where a chunk begins is believed.
    let at = |offset: usize, bytes: &[u8]| {
        let form = Form::new().field("upload_phase", "transfer").field("start_offset", &offset.to_string());
        let form = form.file("file_chunk", "x", bytes);
        send(&app, "POST", &format!("/assets/{id}/multipart"), PARTS, &form.end())
    };
    assert!(at(0, &[7; 500]).refused(409, "CONFLICT").contains(&(2 * size).to_string()));
    assert_eq!(at(size, &chunk).json()["start_offset"], 2 * size);
    assert_eq!(at(2 * size, &chunk).json()["start_offset"], 3 * size);
    assert_eq!(finish(&app, &id).status, 200);
    assert!(original(&app, &id) == vec![7; 3 * size]);
    app.staging_empties();
}

#[test]
fn a_file_with_a_chunk_in_it_twice_is_refused_at_its_end() {
    let mut app = Appliance::start();
    let id = start(&app, 4000);
    // The answer to the second chunk got lost beyond the box, so it comes again; and the last has no room.
    for (chunk, status) in [([1; 1000], 200), ([2; 1000], 200), ([2; 1000], 200), ([3; 1000], 200), ([4; 1000], 400)] {
        assert_eq!(transfer(&app, &id, &chunk).status, status);
    }
    app.restart();
    assert!(finish(&app, &id).refused(400, "INVALID_REQUEST").contains("twice"));
    // One that is longer than all that could still come is too much as well.
    let id = start(&app, 1500);
    assert_eq!(transfer(&app, &id, &[1; 1000]).status, 200);
    transfer(&app, &id, &[2; 1001]).refused(400, "INVALID_REQUEST");
    assert_eq!(transfer(&app, &id, &[2; 500]).status, 200);
    finish(&app, &id).refused(400, "INVALID_REQUEST");
    // Nothing is twice when it is said where each chunk begins.
    let id = start(&app, 1000);
    let at = |offset: &str| {
        let form = Form::new().field("upload_phase", "transfer").field("start_offset", offset);
        let form = form.file("file_chunk", "x", &[7; 1000]);
        send(&app, "POST", &format!("/assets/{id}/multipart"), PARTS, &form.end())
    };
    assert_eq!(at("0").status, 200);
    at("1000").refused(400, "INVALID_REQUEST");
    at("18446744073709551615").refused(409, "CONFLICT");
    assert_eq!(finish(&app, &id).status, 200);
}

/// A chunk that is announced with this length, and of which nothing was sent yet.
fn begun_chunk(app: &Appliance, id: &str, length: usize) -> TcpStream {
    let mut socket = app.connect();
    write!(
        socket,
        "POST /assets/{id}/multipart HTTP/1.1\r\nHost: box\r\nX-FileSpin-Api-Key: {KEY}\r\nContent-Type: {}\r\nContent-Length: {length}\r\n\r\n",
        Form::TYPE,
    )
    .unwrap();
    socket
}

/// Waits until something of the first chunk is written.
fn until_staged(app: &Appliance, id: &str) {
    let staged = app.data_dir().join(format!("staging/phase-{}", id.replace('-', "")));
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::fs::metadata(&staged).unwrap().len() == 0 {
        assert!(std::time::Instant::now() < deadline, "nothing of the chunk is written");
        app.get("/livez");
    }
}

#[test]
fn a_silent_sender_is_sent_away_by_its_own_retry() {
    let app = Appliance::with(&[("CLOAKROOM_HTTP__BODY_STALL_SECONDS", "3600")]);
    let id = start(&app, 3_000_000);
    let body = Form::new().field("upload_phase", "transfer").file("file_chunk", "x", &vec![7; 3_000_000]).end();
    let mut socket = begun_chunk(&app, &id, body.len());
    socket.write_all(&body[..2_000_000]).unwrap();
    until_staged(&app, &id);
    assert_eq!(transfer(&app, &id, &vec![8; 3_000_000]).json()["start_offset"], 3_000_000);
    Answer::read(socket, "POST").refused(409, "CONFLICT");
    assert_eq!(finish(&app, &id).status, 200);
    assert!(original(&app, &id) == vec![8; 3_000_000]);
    app.staging_empties();
}

#[test]
fn what_an_upload_is_to_be_put_under_is_there_from_the_start() {
    let app = Appliance::start();
    let begin = |more: Value| {
        let mut body = json!({"upload_phase": "start", "file_size": 4});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said(&app, "POST", "/assets", &body)
    };
    let nobody = json!({"items": [{"id": "00000000-0000-4000-8000-000000000000"}]});
    begin(json!({"collections": nobody})).refused(400, "INVALID_REQUEST");
    begin(json!({"tags": nobody})).refused(400, "INVALID_REQUEST");
    app.staging_empties();
    let album = |name: &str| id(&said(&app, "POST", "/collections", &json!({"body": name})).json());
    let (kept, gone) = (album("Roof"), album("Terrace"));
    let begun = begin(json!({"collections": {"items": [{"id": kept}, {"id": gone}]}}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    let id = id(&begun.json());
    said(&app, "PUT", &format!("/assets/{id}"), &json!({"collections": nobody})).refused(400, "INVALID_REQUEST");
    // What goes away meanwhile does not take the upload with it.
    assert_eq!(app.call("DELETE", &format!("/collections/{gone}"), &[AUTH], b"").status, 204);
    assert_eq!(transfer(&app, &id, b"text").status, 200);
    let done = finish(&app, &id);
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(total(&app, &format!("collections[0][eq]={kept}")), 1);
}

#[test]
fn a_crash_costs_a_chunk_and_not_the_upload() {
    let mut app = Appliance::start();
    let id = start(&app, 3000);
    assert_eq!(transfer(&app, &id, &[1; 1000]).status, 200);
    let plain = id.replace('-', "");
    app.crash(|data| {
        let staged = data.join("staging").join(format!("phase-{plain}"));
        let mut file = std::fs::OpenOptions::new().append(true).open(staged).unwrap();
        file.write_all(b"half a chunk").unwrap();
        std::fs::write(data.join("staging/phase-00000000000000000000000000000000"), b"nobody's").unwrap();
    });
    app.staging_holds(1);
    assert_eq!(transfer(&app, &id, &[2; 2000]).json()["start_offset"], 3000);
    assert_eq!(finish(&app, &id).status, 200);
    assert_eq!(original(&app, &id), [[1; 1000].as_slice(), &[2; 2000]].concat());
}

#[test]
fn what_nobody_goes_on_with_is_given_up() {
    let app = Appliance::with(&[
        ("CLOAKROOM_INGEST__PHASED_SECONDS", "1"),
        ("CLOAKROOM_INGEST__RESUMABLE_DOUBT_SECONDS", "1"),
    ]);
    let id = start(&app, 3000);
    app.staging_empties();
    let deadline = std::time::Instant::now() + PATIENCE;
    while app.call("GET", &format!("/assets/{id}"), &[AUTH], b"").status != 404 {
        assert!(std::time::Instant::now() < deadline);
    }
    transfer(&app, &id, &[1; 1000]).refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn what_happens_is_told_in_preprs_words() {
    let ear = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", ear.local_addr().unwrap());
    let (tell, told) = mpsc::channel::<Value>();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = ear.accept() {
            let tell = tell.clone();
            std::thread::spawn(move || listen(stream, &tell));
        }
    });
    let app = Appliance::with(&[
        ("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"),
        ("CLOAKROOM_HTTP__PUBLIC_URL", "https://photos.example.com/"),
    ]);
    let set = json!({"key": "prepr_webhook", "value": {"web_urls": [url]}});
    let settings = app.post_json("/api/v1/user/settings/update", &set.to_string());
    assert_eq!(settings.status, 200, "{}", settings.text());
    assert_eq!(settings.json()["prepr_webhook"]["web_urls"], *url);
    assert_eq!(settings.json()["webhook"]["web_urls"], "");
    let next = || told.recv_timeout(PATIENCE).unwrap();

    let asset = id(&keep(&app, &[("name", "x")]));
    assert_eq!(send(&app, "PUT", &format!("/assets/{asset}"), FORM, b"name=y").status, 200);
    assert_eq!(app.call("DELETE", &format!("/assets/{asset}"), &[AUTH], b"").status, 204);
    for event in ["asset.created", "asset.changed", "asset.deleted"] {
        let said = next();
        assert_eq!((&said["event"], &said["payload"]["id"]), (&json!(event), &json!(asset)), "{said}");
        assert_eq!((said["id"].as_str().unwrap().len(), &said["performed_by"]), (36, &json!(EMAIL)));
        let url = said["payload"]["cdn_files"]["items"][0]["url"].as_str().unwrap();
        assert!(url.starts_with("https://photos.example.com/cdn/{format}/"), "{url}");
    }
    let phased = start(&app, 10);
    assert_eq!(transfer(&app, &phased, b"0123456789").status, 200);
    assert_eq!(finish(&app, &phased).status, 200);
    let other = app.keep("notes.txt", b"from elsewhere");
    let mut rest: Vec<(String, String)> = (0..3)
        .map(|_| next())
        .map(|said| {
            (said["payload"]["id"].as_str().unwrap().replace('-', ""), said["event"].as_str().unwrap().to_owned())
        })
        .collect();
    rest.sort();
    let phased = phased.replace('-', "");
    let mut wanted = [(phased.clone(), "asset.created"), (phased, "asset.uploaded"), (other, "asset.created")]
        .map(|(id, event)| (id, event.to_owned()));
    wanted.sort();
    assert_eq!(rest, wanted);
}

/// Reads callbacks off a connection, answers 200 and tells their bodies.
fn listen(stream: TcpStream, tell: &mpsc::Sender<Value>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        // Told first: what is answered may be followed by the next, on another connection.
        tell.send(serde_json::from_slice(&body).unwrap()).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}
