//! Originals in a bucket: on their way there, read from there, moved there and back.

#![expect(clippy::indexing_slicing, reason = "the steps that the tests share fail by panicking, too")]

use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::double::Double;
use crate::double::Manner;
use crate::double::md5_hex;
use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::PATIENCE;
use crate::harness::command;
use crate::harness::jpeg;
use crate::ways::an_hour_later_for_vouchers;

const NAME: &str = "things";
const ANNOUNCE: &str = "/api/v1/assets/new/content_storage_url";
const REGISTER: &str = "/api/v1/assets/new/register_asset";

fn bucket(double: &Double, backend: &'static str, copies: &'static str) -> Vec<(&'static str, String)> {
    vec![
        ("CLOAKROOM_STORAGE__BACKEND", backend.to_owned()),
        ("CLOAKROOM_STORAGE__ENDPOINT", double.endpoint.clone()),
        ("CLOAKROOM_STORAGE__BUCKET", NAME.to_owned()),
        ("CLOAKROOM_STORAGE__ACCESS_KEY", "us".to_owned()),
        ("CLOAKROOM_STORAGE__SECRET_KEY", "hush-hush".to_owned()),
        ("CLOAKROOM_STORAGE__LOCAL_COPIES_BYTES", copies.to_owned()),
        ("CLOAKROOM_STORAGE__DIRECT_TO_BUCKET", "true".to_owned()),
    ]
}

fn appliance(settings: &[(&'static str, String)]) -> Appliance {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
    Appliance::with(&settings)
}

fn key(id: &str) -> String {
    format!("originals/{}/{id}.1", &id[..2])
}

/// Asks until it is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A figure of `/metrics`.
fn figure(app: &Appliance, name: &str) -> u64 {
    let text = app.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cloakroom_{name} "))).map(str::to_owned);
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(u64::MAX)
}

fn note(app: &Appliance) -> String {
    let ready = app.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text());
    let checks = ready.json()["checks"].clone();
    let found = checks.as_array().into_iter().flatten().find(|check| check["name"] == "bucket").cloned();
    found.map_or_else(|| "none".to_owned(), |check| check["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_is_uploaded_goes_to_the_bucket_and_is_served_from_there() {
    let double = Double::start();
    let mut app = appliance(&bucket(&double, "s3", "0"));
    let body = jpeg(2400, 1600);
    let id = app.saved("p.jpg", &body)["id"].as_str().unwrap().to_owned();
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
    assert_eq!((&data["bucket"], &data["key"]), (&NAME.into(), &format!("/{}", key(&id)).into()));
    assert!(double.object(&format!("{NAME}/{}", key(&id))).unwrap() == body);
    // What works with it has it brought back; nothing does after this.
    app.until(&format!("/api/v1/assets/{id}/data"), |data| data["addons_info"]["ON_DEMAND_IMAGE"]["available"] == true);
    app.until_there(&key(&id), false);

    // A new process holds nothing open.
    app.restart();
    let path = format!("/api/v1/assets/{id}/content/original");
    let whole = app.call("GET", &path, &[AUTH], b"");
    assert!(whole.status == 200 && whole.body == body);
    let etag = whole.header("etag");
    assert!(whole.header("accept-ranges") == "bytes" && etag.len() == 34, "{etag}");
    let head = app.call("HEAD", &path, &[AUTH], b"");
    assert_eq!((head.status, head.header("content-length")), (200, body.len().to_string()));
    for (range, wanted) in
        [("bytes=10-19", &body[10..20]), ("bytes=-5", &body[body.len() - 5..]), ("bytes=1000-", &body[1000..])]
    {
        let part = app.call("GET", &path, &[AUTH, ("Range", range), ("If-Range", &etag)], b"");
        assert!(part.status == 206 && part.body == wanted, "{range}: {}", part.status);
    }
    let two = app.call("GET", &path, &[AUTH, ("Range", "bytes=0-4,100-104")], b"");
    assert_eq!(two.status, 206);
    assert!(two.body.windows(5).any(|w| w == &body[..5]) && two.body.windows(5).any(|w| w == &body[100..105]));
    let same = app.call("GET", &path, &[AUTH, ("If-None-Match", &etag)], b"");
    assert_eq!(same.status, 304);
    assert_eq!(app.call("GET", &path, &[AUTH, ("Range", "bytes=99999999-")], b"").status, 416);
    assert!(
        double.log().iter().any(|line| line.contains(&key(&id)) && line.ends_with(" 10-19")),
        "only what is asked for: {:?}",
        double.log()
    );

    // An archive reads it from there, too.
    let made = app.post_json("/api/v1/assetcollection", &format!("{{\"name\":\"c\",\"assets\":[\"{id}\"]}}")).json();
    let archive = format!("/api/v1/assetcollection/{}/download", made["id"]);
    let packed = app.call("GET", &archive, &[AUTH], b"");
    assert!(packed.status == 200 && packed.body.windows(64).any(|w| w == &body[5000..5064]), "{made}");

    // While it does not answer, that is said; nobody is begun with and cut off.
    double.behave(Manner::Unavailable);
    for (of, range) in [
        (&path, "bytes=0-"),
        (&path, "bytes=10-19"),
        (&path, "bytes=0-4,100-104"),
        (&archive, "bytes=0-"),
        (&archive, "bytes=1000-"),
    ] {
        let refused = app.call("GET", of, &[AUTH, ("Range", range)], b"");
        refused.refused(503, "STORAGE_UNAVAILABLE");
        assert!(refused.header("content-range").is_empty() && !refused.header("retry-after").is_empty());
    }
    double.behave(Manner::Well);
    let asked = double.log().len();
    for of in [&path, &archive] {
        let head = app.call("HEAD", of, &[AUTH], b"");
        assert!(head.status == 200 && head.header("content-length").parse::<usize>().unwrap() >= body.len());
    }
    assert_eq!(double.log().len(), asked, "who asks for the head alone costs the bucket nothing");

    // Workers are given files: it is fetched, and goes again.
    let big = app.call("GET", &format!("/api/v1/assets/{id}/conversions?resize=2000,1300"), &[AUTH], b"");
    assert_eq!(big.picture().1, 1950);
    app.until_there(&key(&id), false);
}

#[test]
fn an_archive_of_what_the_bucket_has_lost_is_refused() {
    let double = Double::start();
    let app = appliance(&bucket(&double, "s3", "0"));
    let id = app.keep("b.bin", &[7; 5000]);
    app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
    app.settled(&id);
    app.until_there(&key(&id), false);
    double.lose(&format!("{NAME}/{}", key(&id)));
    // What an archive says of it before its bytes has to be computed first.
    let made = app.post_json("/api/v1/assetcollection", &format!("{{\"name\":\"c\",\"assets\":[\"{id}\"]}}")).json();
    let archive = format!("/api/v1/assetcollection/{}/download", made["id"]);
    app.call("GET", &archive, &[AUTH], b"").refused(503, "STORAGE_UNAVAILABLE");
}

/// Beside another bucket, of the same name, which is `called` something.
fn two_buckets(one: &Double, two: &Double, called: &str) -> Vec<(&'static str, String)> {
    let mut settings = bucket(one, "s3", "0");
    for (name, value) in [
        ("CLOAKROOM_STORAGE__OTHER__BACKEND", "r2"),
        ("CLOAKROOM_STORAGE__OTHER__ENDPOINT", &two.endpoint),
        ("CLOAKROOM_STORAGE__OTHER__BUCKET", NAME),
        ("CLOAKROOM_STORAGE__OTHER__NAME", called),
        ("CLOAKROOM_STORAGE__OTHER__ACCESS_KEY", "us"),
        ("CLOAKROOM_STORAGE__OTHER__SECRET_KEY", "hush-hush"),
    ] {
        settings.push((name, value.to_owned()));
    }
    settings
}

#[test]
fn an_archive_out_of_two_buckets_is_begun_when_both_answer() {
    let (one, two) = (Double::start(), Double::start());
    let app = appliance(&two_buckets(&one, &two, "second"));
    let lies_in = |id: &str, kind: &str| {
        app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == kind);
        app.settled(id);
        app.until_there(&key(id), false);
    };
    let first = app.keep("a.bin", &[7; 5000]);
    lies_in(&first, "AMAZON_S3");
    let moved = app.cli(&["storage", "migrate", "--to", "second"]);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    lies_in(&first, "CLOUDFLARE_R2");
    let second = app.keep("b.bin", &[8; 5000]);
    lies_in(&second, "AMAZON_S3");
    let made =
        app.post_json("/api/v1/assetcollection", &format!("{{\"name\":\"c\",\"assets\":[\"{first}\",\"{second}\"]}}"));
    let archive = format!("/api/v1/assetcollection/{}/download", made.json()["id"]);
    let ask = || app.call("GET", &archive, &[AUTH], b"");
    assert_eq!(ask().status, 200);
    for double in [&one, &two] {
        double.behave(Manner::Unavailable);
        ask().refused(503, "STORAGE_UNAVAILABLE");
        double.behave(Manner::Well);
    }
    assert_eq!(ask().status, 200);
}

#[test]
fn two_buckets_of_one_name_are_refused_at_the_start() {
    let double = Double::start();
    let settings = two_buckets(&double, &Double::start(), "");
    let environment = settings.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    let folder = tempfile::TempDir::new().unwrap();
    let refused = command(&folder, &environment).arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(78) && said.contains("storage.name"), "{said}");
}

#[test]
fn a_link_into_the_bucket_needs_nothing_of_the_box() {
    let double = Double::start();
    let app = appliance(&bucket(&double, "r2", "0"));
    let body = jpeg(300, 200);
    let id = app.keep("p.jpg", &body);
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] != "FILESPIN");
    assert_eq!(data["storage_type"], "CLOUDFLARE_R2");
    let ask = format!("/api/v1/assets/{id}/get_link?key=original&link_type=object_storage");
    let url = app.json(&format!("{ask}&expiry=MAX&delivery=display"))["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("{}/{NAME}/{}?", double.endpoint, key(&id))), "{url}");
    assert!(url.contains("X-Amz-Expires=604800") && url.contains("inline"), "{url}");
    let short = app.json(&format!("{ask}&expiry=60"))["url"].as_str().unwrap().to_owned();
    assert!(short.contains("X-Amz-Expires=60&") && short.contains("attachment"), "{short}");
    let ours = app.json(&format!("/api/v1/assets/{id}/get_link?key=original&expiry=60"))["url"].clone();
    assert!(ours.as_str().unwrap().starts_with("http://box/api/v1/assets/"), "{ours}");
}

#[test]
fn a_form_leads_into_the_bucket_and_what_came_by_it_is_registered() {
    let double = Double::start();
    let mut app = appliance(&bucket(&double, "s3", "0"));
    let announce = |app: &Appliance, name: &str| {
        let said = app.json(&format!("{ANNOUNCE}?filename={name}"));
        (said["asset_id"].as_str().unwrap().to_owned(), said["storage"].clone())
    };
    let fill = |storage: &Value, body: &[u8]| {
        let fields = storage["fields"].as_object().unwrap();
        let form = fields.iter().fold(Form::new(), |form, (name, value)| form.field(name, value.as_str().unwrap()));
        form.file("file", "x", body).end()
    };
    let register = |app: &Appliance, id: &str, size: usize, md5: &str| {
        app.post_json(REGISTER, &json!({"asset_id": id, "size": size, "checksum": md5}).to_string())
    };
    let body = jpeg(320, 200);
    let (size, md5) = (body.len(), md5_hex(&body));

    let (id, storage) = announce(&app, "Z%C3%BCrich%20%281%29.jpg");
    let sent_to = format!("originals/{id}/original/original__Z_rich__1_.jpg");
    assert_eq!(storage["url"], format!("{}/{NAME}", double.endpoint));
    assert_eq!((&storage["storage_type"], &storage["bucket"]), (&json!("AMAZON_S3"), &json!(NAME)));
    assert_eq!((&storage["key"], &storage["fields"]["key"]), (&json!(format!("/{sent_to}")), &json!(sent_to)));
    register(&app, &id, size, &md5).refused(404, "CONTENT_NOT_FOUND");
    // The box does not take what is signed for the bucket.
    let here = [("Content-Type", Form::TYPE)];
    app.call("POST", "/api/v1/storage", &here, &fill(&storage, &body)).refused(403, "POLICY_REFUSED");
    assert_eq!(double.post(&format!("/{NAME}"), &fill(&storage, &body)), 204);
    register(&app, &id, size + 1, &md5).refused(400, "CONTENT_MISMATCH");
    register(&app, &id, size, &md5_hex(b"other")).refused(400, "CONTENT_MISMATCH");
    let registered = register(&app, &id, size, &md5);
    assert_eq!((registered.status, registered.json()["id"].as_str()), (200, Some(&*id)), "{}", registered.text());
    assert_eq!(register(&app, &id, size, &md5).status, 200, "said once more");
    register(&app, &id, size, &md5_hex(b"other")).refused(400, "ASSET_ID_EXISTS");
    let is_ok = |data: &Value| data["status"] == "OK" && data["storage_type"] == "AMAZON_S3";
    let data = app.until(&format!("/api/v1/assets/{id}/data"), is_ok);
    assert_eq!((&data["checksum"], &data["name"]), (&json!(md5), &json!("Zürich (1).jpg")));
    // Nothing is left where it was sent to.
    until("it is cleared away", || double.names() == [format!("{NAME}/{}", key(&id))]);

    // A tag that is no MD5 is no reason to refuse; and what was changed before it was collected is not taken.
    double.behave(Manner::TagsOddly);
    let (id, storage) = announce(&app, "odd.jpg");
    assert_eq!(double.post(&format!("/{NAME}"), &fill(&storage, &body)), 204);
    register(&app, &id, size, &md5_hex(b"other")).refused(400, "CONTENT_MISMATCH");
    assert_eq!(register(&app, &id, size, &md5).status, 200);
    app.until(&format!("/api/v1/assets/{id}/data"), is_ok);

    // An outage between the two, and a restart: the order waits.
    double.behave(Manner::Well);
    let (id, storage) = announce(&app, "late.jpg");
    assert_eq!(double.post(&format!("/{NAME}"), &fill(&storage, &body)), 204);
    let moved = app.keep("mover.txt", b"fails first");
    app.until(&format!("/api/v1/assets/{moved}/data"), |data| data["storage_type"] == "AMAZON_S3");
    double.behave(Manner::Unavailable);
    register(&app, &id, size, &md5).refused(503, "STORAGE_UNAVAILABLE");
    app.keep("mover.txt", b"fails now");
    // While it is away, forms lead here, and files come in all the same.
    until("the box has noticed", || announce(&app, "x").1["storage_type"] == "FILESPIN");
    let (other, here) = announce(&app, "here.jpg");
    assert!(here["url"].as_str().unwrap().ends_with("/api/v1/storage") && here["storage_type"] == "FILESPIN", "{here}");
    assert_eq!(app.call("POST", "/api/v1/storage", &[("Content-Type", Form::TYPE)], &fill(&here, &body)).status, 204);
    assert_eq!(register(&app, &other, size, &md5).status, 200);
    double.behave(Manner::Well);
    assert_eq!(register(&app, &id, size, &md5).status, 200);
    app.crash(|_| {});
    app.until(&format!("/api/v1/assets/{id}/data"), is_ok);
    app.until(&format!("/api/v1/assets/{other}/data"), is_ok);
    until("it is cleared away", || double.names().iter().all(|name| !name.contains("original__")));
}

#[test]
fn what_nobody_registers_goes_from_the_bucket() {
    let double = Double::start();
    let mut settings = bucket(&double, "s3", "0");
    settings.push(("CLOAKROOM_STORAGE__NAME", "on-record".to_owned()));
    settings.push(("CLOAKROOM_INGEST__DIRECT_SECONDS", "3600".to_owned()));
    settings.push(("CLOAKROOM_INGEST__RESUMABLE_DOUBT_SECONDS", "1".to_owned()));
    let mut app = appliance(&settings);
    let said = app.json(&format!("{ANNOUNCE}?filename=a.txt"));
    let fields = said["storage"]["fields"].as_object().unwrap().clone();
    let form = fields.iter().fold(Form::new(), |form, (name, value)| form.field(name, value.as_str().unwrap()));
    assert_eq!(double.post(&format!("/{NAME}"), &form.file("file", "x", b"text").end()), 204);
    app.crash(an_hour_later_for_vouchers);
    until("it is gone", || double.names().is_empty());
    let late = json!({"asset_id": said["asset_id"], "size": 4, "checksum": md5_hex(b"text")});
    app.post_json(REGISTER, &late.to_string()).refused(410, "UPLOAD_GONE");
    // Where the bucket is not for everybody, forms lead to the box.
    for (backend, direct) in [("r2", "true"), ("s3", "false")] {
        let mut settings = bucket(&double, backend, "0");
        settings.push(("CLOAKROOM_STORAGE__DIRECT_TO_BUCKET", direct.to_owned()));
        let said = appliance(&settings).json(&format!("{ANNOUNCE}?filename=a.txt"));
        assert_eq!(said["storage"]["storage_type"], "FILESPIN", "{backend} {direct}");
    }
}

#[test]
fn the_settings_say_which_bucket_originals_go_to() {
    let double = Double::start();
    let app = appliance(&bucket(&double, "s3", "0"));
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] != "FILESPIN");
    let mut storage = app.json("/api/v1/user/settings")["storage"].clone();
    let roots = ["originals_root", "derivatives_root", "transcodes_root"].map(|root| storage[root].clone());
    assert_eq!(roots, [data["bucket"].clone(), "cloakroom".into(), "cloakroom".into()]);
    let folder = storage["originals_root_folder"].as_str().unwrap();
    assert!(data["key"].as_str().unwrap().starts_with(&format!("/{folder}/")), "{data}");
    let update = |storage: &Value| {
        let body = json!({"key": "storage", "value": storage}).to_string();
        app.call("PATCH", "/api/v1/user/settings/update", &[AUTH], body.as_bytes())
    };
    assert_eq!(update(&storage).status, 200);
    storage["originals_root"] = "cloakroom".into();
    let why = update(&storage).refused(422, "FEATURE_UNAVAILABLE");
    assert!(why.contains("storage migrate"), "{why}");
}

#[test]
fn an_outage_delays_and_loses_nothing() {
    let double = Double::start();
    let mut app = appliance(&bucket(&double, "s3", "10000000"));
    assert_eq!(note(&app), "");
    let mut kept = Vec::new();
    for (n, manner) in [Manner::Unavailable, Manner::Forbids, Manner::Resets].into_iter().enumerate() {
        double.behave(manner);
        let body = jpeg(300 + n as u32, 200);
        kept.push((app.keep("p.jpg", &body), body));
    }
    until("a failure is told", || figure(&app, "bucket_last_error_age_seconds") > 0);
    assert_eq!(figure(&app, "bucket_objects_waiting"), 3);
    let bytes: usize = kept.iter().map(|(_, body)| body.len()).sum();
    assert_eq!(figure(&app, "bucket_bytes_waiting"), bytes as u64);
    assert!(note(&app).starts_with("3 originals"), "{}", note(&app));
    let shown = String::from_utf8(app.cli(&["storage", "status"]).stdout).unwrap();
    assert!(shown.contains("waiting to be moved: 3 originals") && shown.contains("held up: "), "{shown}");
    let checked = String::from_utf8(app.cli(&["check"]).stdout).unwrap();
    assert!(!checked.contains("hush-hush"), "{checked}");
    for (id, body) in &kept {
        assert!(app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body == *body);
    }

    app.crash(|_| double.behave(Manner::Well));
    for (id, body) in &kept {
        let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
        assert_eq!(data["size"], body.len());
        assert!(double.object(&format!("{NAME}/{}", key(id))).unwrap() == *body);
    }
    assert_eq!((note(&app), figure(&app, "bucket_objects_waiting")), (String::new(), 0));
}

#[test]
fn killed_while_it_drains() {
    let double = Double::start();
    let mut app = appliance(&bucket(&double, "s3", "0"));
    double.behave(Manner::Unavailable);
    let kept: Vec<_> = (0..12).map(|n| jpeg(200 + n, 100)).map(|body| (app.keep("p.jpg", &body), body)).collect();
    double.behave(Manner::Well);
    for wanted in [3, 7] {
        until("some arrive", || double.names().len() >= wanted);
        app.crash(|_| {});
    }
    for (id, body) in &kept {
        app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
        assert!(app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body == *body);
    }
    assert_eq!(double.names().len(), 12);
    app.staging_empties();
}

#[test]
fn what_is_deleted_or_replaced_goes_from_the_bucket() {
    let double = Double::start();
    let mut settings = bucket(&double, "s3", "0");
    settings.push(("CLOAKROOM_CUSTODY__LINGER_SECONDS", "0".to_owned()));
    let app = appliance(&settings);
    let id = app.saved("p.jpg", &jpeg(300, 200))["id"].as_str().unwrap().to_owned();
    app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
    let next = jpeg(320, 200);
    let form = crate::harness::Form::new().file("file", "q.jpg", &next);
    let answer = app.send(&format!("/api/v1/assets/{id}/content/original/replace"), form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("only the next revision is there", || double.names() == [format!("{NAME}/originals/{}/{id}.2", &id[..2])]);
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| {
        data["storage_type"] == "AMAZON_S3" && data["status"] == "OK"
    });
    assert_eq!(data["key"], format!("/originals/{}/{id}.2", &id[..2]));

    let deleted = app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(double.names().len(), 1, "the trash keeps it");
    let purged = app.post_json("/api/v1/assets/purge", "{}");
    assert!(purged.status < 300, "{}", purged.text());
    until("nothing is left", || double.names().is_empty());
}

#[test]
fn a_box_moves_while_it_runs_and_back_through_kills() {
    let double = Double::start();
    // The server knows the bucket, and keeps what arrives on its disk.
    let settings = bucket(&double, "fs", "0");
    let app = appliance(&settings);
    let made = |n: u32| (0..400_000 + n).map(|m| (m * 31 + m / 97) as u8).collect::<Vec<u8>>();
    let mut kept: Vec<_> = (0..10).map(made).map(|body| (app.keep("b.bin", &body), body)).collect();
    for (id, _) in &kept {
        app.settled(id);
    }
    let environment = settings.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    let slowly = || {
        command(&app.folder, &environment)
            .args(["storage", "migrate", "--to", "s3", "--rate", "1"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    for wanted in [2, 5] {
        let mut migrating = slowly();
        until("some are there", || double.names().len() >= wanted);
        let meanwhile = made(10 + wanted as u32);
        kept.push((app.keep("b.bin", &meanwhile), meanwhile));
        migrating.kill().unwrap();
        migrating.wait().unwrap();
        for (id, body) in &kept {
            let path = format!("/api/v1/assets/{id}/content/original");
            assert!(app.call("GET", &path, &[AUTH], b"").body == *body, "half-way");
        }
    }
    for (id, _) in &kept {
        app.settled(id);
    }
    let done = app.cli(&["storage", "migrate", "--to", "s3"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(double.names().len(), kept.len());
    for (id, body) in &kept {
        app.until_there(&key(id), false);
        assert!(app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body == *body);
        app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "AMAZON_S3");
    }
    let again = app.cli(&["storage", "migrate", "--to", "s3"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("moved 0 originals"));
    assert_eq!(app.cli(&["storage", "migrate", "--to", "r2"]).status.code(), Some(78));

    let back = app.cli(&["storage", "migrate", "--to", "fs"]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    for (id, body) in &kept {
        assert!(app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"").body == *body);
        app.until(&format!("/api/v1/assets/{id}/data"), |data| data["storage_type"] == "FILESPIN");
    }
    until("the bucket is empty again", || double.names().is_empty());
}

#[test]
fn a_bucket_that_is_half_described_is_refused_at_the_start() {
    let double = Double::start();
    let app = Appliance::with(&[("CLOAKROOM_STORAGE__BACKEND", "fs"), ("CLOAKROOM_STORAGE__BUCKET", "")]);
    for without in ["CLOAKROOM_STORAGE__BUCKET", "CLOAKROOM_STORAGE__SECRET_KEY"] {
        let settings = bucket(&double, "s3", "0").into_iter().filter(|(name, _)| *name != without);
        let environment = settings.map(|(n, v)| (n.to_owned(), v)).collect();
        let folder = tempfile::TempDir::new().unwrap();
        let refused = command(&folder, &environment).env_remove(without).arg("serve").output().unwrap();
        assert_eq!(refused.status.code(), Some(78), "{without}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("bucket") && !said.contains("hush-hush"), "{said}");
    }
    assert_eq!(note(&app), "none", "no bucket, no note");
}
