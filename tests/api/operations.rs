//! The process itself: health, configuration, signals, certificates, restarts.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::Form;
use crate::harness::KEY;
use crate::harness::PASSWORD;
use crate::harness::UPLOAD;
use crate::harness::command;
use crate::harness::jpeg;

#[test]
fn it_tells_how_it_is() {
    let app = Appliance::start();
    assert_eq!(app.get("/livez").text(), "ok\n");
    let ready = app.get("/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()), "{}", ready.text());
    app.saved("p.jpg", &jpeg(100, 100));
    let figures = app.get("/metrics").text();
    assert!(figures.ends_with("# EOF\n"), "{figures}");
    for line in figures.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("cloakroom_"), "{line}");
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    }
    let document = app.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for named in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(named).is_some(), "{named} is referred to and not there");
    }
    assert!(app.get("/").text().contains("Cloakroom"));
}

#[test]
fn refusals_are_json() {
    let app = Appliance::start();
    app.get("/nowhere").refused(404, "NOT_FOUND");
    app.get("/api/v1/assets/../../etc/passwd").refused(404, "NOT_FOUND");
    app.get("/%00").refused(404, "NOT_FOUND");
    let answer = app.call("DELETE", "/api/v1/assets", &[AUTH], b"");
    answer.refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    let answer = app.call("GET", "/nowhere", &[("X-Request-Id", "my-own-id")], b"");
    assert_eq!(answer.json()["request_id"], "my-own-id");
}

#[test]
fn one_server_for_one_directory() {
    let mut app = Appliance::start();
    let second = app.cli(&["serve"]);
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(app.get("/livez").status, 200);
    assert_eq!(app.stop().code(), Some(0), "SIGTERM is a clean end");
}

#[test]
fn a_stop_lets_uploads_finish() {
    let mut app = Appliance::start();
    let body = Form::new().file("f", "late.txt", &vec![b'x'; 100_000]).end();
    let (first, rest) = body.split_at(50_000);
    let mut stream = app.connect();
    let kind = Form::TYPE;
    let head = format!("Host: box\r\nX-FileSpin-Api-Key: {KEY}\r\nContent-Type: {kind}\r\nConnection: close\r\n");
    write!(stream, "POST {UPLOAD} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(first).unwrap();
    app.staging_holds(1);
    app.terminate();
    stream.write_all(rest).unwrap();
    assert_eq!(Answer::read(stream, "POST").status, 200);
    app.restart();
    assert_eq!(app.json("/api/v1/assets")["assets"][0]["name"], "late.txt");
}

#[test]
fn everything_survives_a_restart() {
    let mut app = Appliance::start();
    let id = app.saved("p.jpg", &jpeg(1200, 800))["id"].as_str().unwrap().to_owned();
    app.until("/api/v1/jobs", |jobs| jobs["jobs"][0]["status"] == "COMPLETED");
    let paths = [format!("/api/v1/assets/{id}/data"), "/api/v1/assets".to_owned(), "/api/v1/jobs".to_owned()];
    let before: Vec<_> = paths.iter().map(|path| app.json(path)).collect();
    app.restart();
    let after: Vec<_> = paths.iter().map(|path| app.json(path)).collect();
    assert_eq!(before, after);
}

#[test]
fn settings_are_checked_and_shown() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let settings = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<HashMap<_, _>>();
        let output = command(&folder, &settings).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let file = folder.path().join("config.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[db]\nreaders = 3\n").unwrap();
    let limit = ("CLOAKROOM_DB__READ_LIMIT_MS", "77");
    let (code, shown, said) = run(&["check", "--config", path, "--log", "debug"], &[limit]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        format!("db.readers = 3  # file {path}:2"),
        "db.read_limit_ms = 77  # environment CLOAKROOM_DB__READ_LIMIT_MS".to_owned(),
        "log = \"debug\"  # flag --log".to_owned(),
        "ingest.max_parts = 64  # default".to_owned(),
    ] {
        assert!(shown.contains(&line), "`{line}` is not in\n{shown}");
    }
    let shows_secret = |line: &str| line.contains(KEY) || line.contains(PASSWORD);
    assert!(!shown.lines().any(shows_secret), "the first administrator's secrets are no settings: {shown}");

    fs::write(&file, "[htpp]\nlisten = []\n[db]\nreeders = 3\n").unwrap();
    for command in ["check", "serve"] {
        let (code, _, said) = run(&[command, "--config", path], &[("CLOAKROOM_DB__READER", "3")]);
        assert_eq!(code, Some(78), "{said}");
        for hint in ["did you mean http?", "did you mean db.readers?", "did you mean CLOAKROOM_DB__READERS?"] {
            assert!(said.contains(hint), "`{hint}` is not in\n{said}");
        }
    }
    let (code, _, said) = run(&["user", "list"], &[]);
    assert!(code == Some(78) && said.contains("start it once"), "{said}");
}

#[test]
fn the_command_line_works_beside_the_server() {
    let app = Appliance::start();
    let listed = String::from_utf8(app.cli(&["user", "list"]).stdout).unwrap();
    assert!(listed.contains("ADMIN") && listed.contains(EMAIL), "{listed}");
    let rotated = String::from_utf8(app.cli(&["key", "rotate", EMAIL]).stdout).unwrap();
    let key = rotated.trim().strip_prefix("API key: ").unwrap();
    assert_eq!(app.call("GET", "/api/v1/assets", &[("X-FileSpin-Api-Key", key)], b"").status, 200);
    assert_eq!(app.call("GET", "/api/v1/assets", &[AUTH], b"").status, 200, "the old key works for a while");
    let doctor = app.cli(&["doctor"]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.status.success() && !said.contains("FAIL"), "{said}");
}

#[test]
fn it_signs_its_own_certificates() {
    let app = Appliance::with(&[("CLOAKROOM_HTTP__LISTEN", "https://127.0.0.1:0")]);
    assert!(app.base.starts_with("https://"), "{}", app.base);
    let tls = app.data_dir().join("tls");
    for private in ["root.key", "leaf.key"] {
        let mode = fs::metadata(tls.join(private)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{private}");
    }
    let ask = |trusted: &[&str]| {
        let url = format!("{}/livez", app.base);
        let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(trusted).arg(url).output();
        output.expect("this test needs curl").stdout
    };
    assert_eq!(ask(&["--cacert", tls.join("root.pem").to_str().unwrap()]), b"ok\n");
    assert_eq!(ask(&[]), b"", "nobody trusts it unasked");
}

/// A stranger's bytes cannot reach a decoder that is not there.
#[test]
fn the_server_maps_no_codec() {
    let said = |program: &str| {
        let output = Command::new("ldd").arg(program).output().expect("this test needs ldd");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(env!("CARGO_BIN_EXE_cloakroom-media")).contains("libavif"), "the check could not fail");
    let server = said(env!("CARGO_BIN_EXE_cloakroom"));
    for codec in ["libavif", "libde265", "libaom", "libdav1d", "libjpeg", "libwebp", "libgst"] {
        assert!(!server.contains(codec), "{server}");
    }
    // Those that are linked in carry their names with them.
    let bytes = fs::read(env!("CARGO_BIN_EXE_cloakroom")).unwrap();
    for symbol in [&b"tj3Decompress8"[..], b"WebPDecodeRGBA"] {
        assert!(
            !bytes.windows(symbol.len()).any(|w| w == symbol),
            "the server holds {}",
            String::from_utf8_lossy(symbol)
        );
    }
}
