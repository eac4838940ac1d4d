//! Files on their way in: what is taken, under which name, and every way to be refused.
//!
//! Whatever was refused or broke off has to leave nothing: neither an asset nor a byte in staging.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

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
use crate::harness::png;
use crate::harness::png_claiming;

#[test]
fn files_become_assets() {
    let app = Appliance::start();
    let (small, large) = (jpeg(64, 48), jpeg(900, 700));
    let answer = app.upload(Form::new().file("file", "a.jpg", &small).file("file=@", "b.jpg", &large));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    assert_eq!((&said["success"], &said["assets"]), (&json!(true), &said["files"]));
    for (asset, name, body) in [(&said["assets"][0], "a.jpg", &small), (&said["assets"][1], "b.jpg", &large)] {
        let id = asset["id"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{id}");
        assert_eq!((&asset["name"], &asset["size"]), (&json!(name), &json!(body.len())));
        assert_eq!((&asset["status"], &asset["metadata"]), (&json!("NOT_READY"), &json!({})), "nobody has looked yet");
        let data = app.settled(id);
        assert_eq!((&data["status"], &data["content_type"]), (&json!("OK"), &json!("image/jpeg")));
        assert_eq!((&data["checksum"], &data["errors"]), (&asset["checksum"], &json!(null)));
        let kept = fs::read(app.data_dir().join(format!("originals/{}/{id}.1", &id[..2]))).unwrap();
        assert!(kept == *body, "the original of {name} differs");
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 2);
    app.staging_empties();
}

#[test]
fn a_body_and_its_page_are_known_however_they_are_written() {
    let app = Appliance::start();
    let body = Form::new().file("f", "a.txt", b"text").end();
    for (kind, origin, source) in [
        ("multipart/form-data; boundary=b0undary", "https://page.example:8443", json!("page.example")),
        ("Multipart/Form-Data ; boundary=\"b0undary\"", "foo://bar", Value::Null),
    ] {
        let answer = app.call("POST", UPLOAD, &[AUTH, ("Content-Type", kind), ("Origin", origin)], &body);
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let id = answer.json()["assets"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["upload_source"], source);
    }
}

#[test]
fn metadata_comes_before_or_after() {
    let app = Appliance::start();
    let told = r#"{"data": {"project": "X", "n": 1}, "data_schema_id": 7}"#;
    let body = jpeg(8, 8);
    for form in [
        Form::new().file("file", "p.jpg", &body).field("custom_metadata", told),
        Form::new().field("custom_metadata", told).field("other", "ignored").file("file", "p.jpg", &body),
    ] {
        let answer = app.upload(form).json();
        let data = app.json(&format!("/api/v1/assets/{}/data", answer["assets"][0]["id"].as_str().unwrap()));
        assert_eq!((&data["data"], &data["data_schema_id"]), (&json!({ "project": "X", "n": 1 }), &json!(7)));
    }
}

#[test]
fn what_is_refused_leaves_nothing() {
    let app = Appliance::start();
    let many = || (0..65).fold(Form::new(), |form, n| form.file("f", &format!("{n}.txt"), b"x"));
    let one = || Form::new().file("file", "p.txt", b"some text");
    let stuffed = || (0..5).fold(one(), |form, n| form.field(&n.to_string(), &"x".repeat(60_000)));
    let (form, zipped) = (Form::TYPE, ("Content-Encoding", "gzip"));
    for (what, headers, body, status, message) in [
        ("no file", vec![("Content-Type", form)], Form::new().field("a", "b").end(), 400, "NO_FILE"),
        ("no part", vec![("Content-Type", form)], Form::new().end(), 400, "NO_FILE"),
        ("no multipart", vec![("Content-Type", "image/jpeg")], jpeg(8, 8), 400, "NO_FILE"),
        ("no type and no body", vec![], vec![], 400, "NO_FILE"),
        ("empty body", vec![("Content-Type", form)], vec![], 400, "UPLOAD_INCOMPLETE"),
        ("empty file", vec![("Content-Type", form)], Form::new().file("f", "a.jpg", b"").end(), 400, "EMPTY_FILE"),
        ("no end", vec![("Content-Type", form)], one().end()[..80].to_vec(), 400, "UPLOAD_INCOMPLETE"),
        ("no boundary", vec![("Content-Type", "multipart/form-data; x=y")], one().end(), 400, "INVALID_REQUEST"),
        ("65 parts", vec![("Content-Type", form)], many().end(), 413, "TOO_LARGE"),
        ("fields as large as files", vec![("Content-Type", form)], stuffed().end(), 413, "TOO_LARGE"),
        ("gzip", vec![("Content-Type", form), zipped], one().end(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            "malformed metadata",
            vec![("Content-Type", form)],
            one().field("custom_metadata", r#"{"data": {}, "data_schema_id=1"}"#).end(),
            400,
            "INVALID_REQUEST",
        ),
        (
            "a good file before an empty one",
            vec![("Content-Type", form)],
            one().file("g", "empty.txt", b"").end(),
            400,
            "EMPTY_FILE",
        ),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([AUTH]).collect();
        let answer = app.call("POST", UPLOAD, &headers, &body);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let detail = answer.refused(status, message);
        assert!(detail.len() > 10, "{what}: {detail:?}");
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 0);
    app.staging_empties();
}

#[test]
fn what_a_file_is_shows_by_its_bytes() {
    let app = Appliance::start();
    let photo = jpeg(640, 480);
    let invalid = "Original file appears to be invalid!";
    let text = "This may be a TXT file uploaded as JPG!";
    let mistaken = "This may be a JPG file uploaded as PNG!";
    let huge = png_claiming(60000, 60000);
    for (name, body, status, errors) in [
        (
            "text.jpg",
            &b"This is not a picture, whatever it is called.\n"[..],
            "ERROR",
            json!({ "original": invalid, "warning": text }),
        ),
        ("noise.jpg", &[7; 4096], "ERROR", json!({ "original": invalid })),
        ("photo.png", &photo, "OK", json!({ "warning": mistaken })),
        ("cut.jpg", &photo[..photo.len() / 2], "OK", json!({ "warning": "the file ends before the picture does" })),
        ("notes.txt", b"just notes\n", "OK", json!(null)),
        ("clear.png", &png(20, 10, true), "OK", json!(null)),
    ] {
        let data = app.saved(name, body);
        assert_eq!((&data["status"], &data["errors"]), (&json!(status), &errors), "{name}: {data}");
    }

    let data = app.saved("huge.png", &huge);
    assert_eq!(data["status"], "ERROR");
    assert!(data["errors"]["original"].as_str().unwrap().starts_with(invalid), "{data}");
    for pid in app.processes() {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB").trim().to_owned();
        let peak_kib: u64 = peak.trim_end_matches(" kB").trim().parse().unwrap();
        assert!(peak_kib < 300 * 1024, "process {pid} took {peak}");
    }
}

#[test]
fn names_are_data_and_never_paths() {
    let app = Appliance::start();
    let long = format!("{}.jpg", "n".repeat(400));
    let shortened = format!("{}.jpg", "n".repeat(251));
    for (disposition, kept) in [
        (r#"filename="../../etc/passwd""#.to_owned(), "../../etc/passwd"),
        (r#"filename="/etc/passwd""#.to_owned(), "/etc/passwd"),
        (r#"filename="C:\\fake\\photo.jpg""#.to_owned(), r"C:\fake\photo.jpg"),
        (r#"filename="a \"quoted\" name.jpg""#.to_owned(), r#"a "quoted" name.jpg"#),
        ("filename*=UTF-8''two%0Alines%00.jpg".to_owned(), "twolines.jpg"),
        ("filename=\"🎭 Bühne.jpg\"".to_owned(), "🎭 Bühne.jpg"),
        ("filename=\"<b>&amp;'--.jpg\"".to_owned(), "<b>&amp;'--.jpg"),
        ("filename=\"\"".to_owned(), "unnamed"),
        (format!("filename=\"{long}\""), &*shortened),
    ] {
        let answer = app.upload(Form::new().part(&format!("name=\"file\"; {disposition}"), b"x"));
        assert_eq!(answer.status, 200, "{disposition}: {}", answer.text());
        assert_eq!(answer.json()["assets"][0]["name"], kept);
        let id = answer.json()["assets"][0]["id"].as_str().unwrap().to_owned();
        let sent = app.call("GET", &format!("/api/v1/assets/{id}/content/original/download"), &[AUTH], b"");
        assert_eq!((sent.status, &*sent.body), (200, &b"x"[..]));
        let named = sent.header("content-disposition");
        assert!(named.starts_with("attachment; filename=\"") && !named.contains(['\n', '/']), "{named}");
    }
    let strangers = |entry: &fs::DirEntry| entry.file_name() != "data";
    assert_eq!(fs::read_dir(app.folder.path()).unwrap().flatten().filter(strangers).count(), 0);
}

#[test]
fn clients_that_go_away_leave_nothing() {
    let app = Appliance::start();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: box\r\nX-FileSpin-Api-Key: {KEY}\r\nContent-Type: {}\r\nContent-Length: 900000\r\n\r\n\
         --b0undary\r\nContent-Disposition: form-data; name=\"f\"; filename=\"half.bin\"\r\n\r\n",
        Form::TYPE
    );
    let half = |bytes: usize| {
        let mut stream = app.connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; bytes]).unwrap();
        stream
    };
    // One says that it is done, one is gone.
    let silent = half(600_000);
    silent.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    let _ = (&silent).read_to_string(&mut said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    drop(half(600_000));
    app.staging_empties();
    assert_eq!(app.json("/api/v1/assets")["total"], 0);
    app.keep("next.txt", b"as if nothing had been");
}

#[test]
fn limits_that_are_set_hold() {
    let small = Appliance::with(&[("CLOAKROOM_INGEST__MAX_FILE_BYTES", "1000")]);
    small.upload(Form::new().file("f", "1001.bin", &[1; 1001])).refused(413, "TOO_LARGE");
    small.keep("1000.bin", &[1; 1000]);
    small.staging_empties();

    let full = Appliance::with(&[("CLOAKROOM_STORAGE__FREE_FLOOR_BYTES", "9000000000000000000")]);
    full.upload(Form::new().file("f", "any.bin", b"x")).refused(507, "DISK_FULL");
    full.staging_empties();
    assert_eq!(full.get("/readyz").status, 503, "a box without room is not ready");
}

#[test]
fn slow_bodies_are_sent_away() {
    let begun = |grace: &str, stall: &str| {
        let app = Appliance::with(&[
            ("CLOAKROOM_HTTP__BODY_GRACE_SECONDS", grace),
            ("CLOAKROOM_HTTP__BODY_STALL_SECONDS", stall),
        ]);
        let mut stream = app.connect();
        let head = format!(
            "POST {UPLOAD} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nX-FileSpin-Api-Key: {KEY}\r\n\
             Content-Type: {}\r\nContent-Length: 100000\r\n\r\n\
             --b0undary\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\n",
            Form::TYPE
        );
        stream.write_all(head.as_bytes()).unwrap();
        (app, stream)
    };
    // One says no more, one goes on a byte at a time.
    let (_app, stream) = begun("3600", "1");
    Answer::read(stream, "POST").refused(408, "BODY_TOO_SLOW");
    let (_app, mut stream) = begun("0", "3600");
    let patience = stream.read_timeout().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while stream.peek(&mut [0]).is_err() {
        assert!(Instant::now() < deadline, "a byte at a time is taken");
        let _ = stream.write_all(b"x");
    }
    stream.set_read_timeout(patience).unwrap();
    Answer::read(stream, "POST").refused(408, "BODY_TOO_SLOW");
}
