//! Other people's programs against the real binary: what `tests/scripts/README.md` lists.
//!
//! A program that is missing on this machine is a failure, with a sentence that says what to install.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]

#[path = "api/harness/mod.rs"]
#[expect(dead_code, reason = "these tests only start and ask; the programs do the rest")]
mod harness;

use std::cell::RefCell;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use harness::Appliance;
use harness::EMAIL;
use harness::KEY;
use harness::PASSWORD;
use tempfile::TempDir;

const NODE_PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/node/node_modules");

#[test]
fn s1_upload_poll_serve() {
    python("s1_upload_poll_serve.py");
}

#[test]
fn s1_checks() {
    python("s1_checks.py");
}

#[test]
fn s2_curl_metadata() {
    needs("curl", &["--version"], "curl");
    run("bash", "s2_curl_metadata.sh");
}

#[test]
fn s3_url_ingest() {
    needs("/usr/bin/python3", &["-c", "import requests"], "python3-requests");
    // The script's own server is the bucket's, too: it has to know its port beforehand.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bucket = format!(
        "{{ venue = {{ endpoint = 'http://127.0.0.1:{port}', region = 'eu-central-1', access_key = 'TESTKEY', \
         secret_key = 'TESTSECRET' }} }}"
    );
    let app = Appliance::with(&[
        ("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"),
        ("CLOAKROOM_INGEST__BUCKETS", &bucket),
        ("CLOAKROOM_INGEST__FETCH__RETRY_SECONDS", "1"),
    ]);
    run_on(&app, "/usr/bin/python3", "s3_url_ingest.py", &[&port.to_string()]);
}

#[test]
fn s4_direct_to_storage() {
    needs("curl", &["--version"], "curl");
    python("s4_direct_to_storage.py");
}

#[test]
fn s5_video() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s5_video.py");
}

#[test]
fn s6_private_original() {
    python("s6_private_original.py");
}

#[test]
fn s7_signed_urls() {
    needs("php", &["--version"], "php-cli");
    needs("node", &["--version"], "nodejs");
    python("s7_signed_urls.py");
}

#[test]
fn s8_public_access() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s8_public_access.py");
}

#[test]
fn s9_replace() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s9_replace.py");
}

#[test]
fn s11_metadata_search() {
    python("s11_metadata_search.py");
}

#[test]
fn s11_gallery() {
    needs_package("axios");
    run("node", "s11_gallery.js");
}

#[test]
fn s14_delete_undelete() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s14_delete_undelete.py");
}

#[test]
fn s13_jwt_spa() {
    needs("/usr/bin/python3", &["-c", "import requests"], "python3-requests");
    run_with("/usr/bin/python3", "s13_jwt_spa.py", &[EMAIL, PASSWORD]);
}

#[test]
fn s13_jwt_spa_with_axios() {
    needs_package("axios");
    run_with("node", "s13_jwt_spa.mjs", &[EMAIL, PASSWORD]);
}

#[test]
fn s10_webhooks() {
    // Beside the build: packaging/test.sh puts them there.
    let verifiers = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("foreign");
    for there in ["python/standardwebhooks", "node/node_modules/standardwebhooks"] {
        let path = verifiers.join(there);
        assert!(path.exists(), "this test needs {}: run packaging/test.sh", path.display());
    }
    needs("node", &["--version"], "nodejs");
    needs("ffmpeg", &["-version"], "ffmpeg");
    needs("/usr/bin/python3", &["-c", "import requests"], "python3-requests");
    let app = Appliance::with(&[
        ("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"),
        ("CLOAKROOM_WEBHOOKS__SCHEDULE_SECONDS", "1,1,1,1,1,1,1"),
    ]);
    run_on(&app, "/usr/bin/python3", "s10_webhooks.py", &[verifiers.to_str().unwrap()]);
}

#[test]
fn openapi() {
    let foreign = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("foreign");
    let program = foreign.join("schemathesis/bin/st");
    assert!(program.exists(), "this test needs {}: run packaging/test.sh", program.display());
    let app = Appliance::with(&[("CLOAKROOM_HTTP__RATES__CALLS_BURST", "0")]);
    run_on(&app, "/usr/bin/python3", "openapi.py", &[foreign.to_str().unwrap()]);
}

#[test]
fn bucket_of_others() {
    // Beside the build: packaging/test.sh puts it there.
    let moto = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("foreign/moto");
    assert!(moto.join("moto").exists(), "this test needs {}: run packaging/test.sh", moto.display());
    let mut server = Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/moto_server.py"))
        .env("PYTHONPATH", &moto)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    let endpoint = endpoint.trim();
    assert!(endpoint.starts_with("http://"), "moto does not start");
    let app = Appliance::with(&[
        ("CLOAKROOM_STORAGE__BACKEND", "s3"),
        ("CLOAKROOM_STORAGE__ENDPOINT", endpoint),
        ("CLOAKROOM_STORAGE__BUCKET", "things"),
        ("CLOAKROOM_STORAGE__ACCESS_KEY", "us"),
        ("CLOAKROOM_STORAGE__SECRET_KEY", "hush"),
        ("CLOAKROOM_STORAGE__LOCAL_COPIES_BYTES", "0"),
        ("CLOAKROOM_CUSTODY__LINGER_SECONDS", "0"),
    ]);
    run_in(&app, "/usr/bin/python3", "bucket_of_others.py", &[endpoint], &[("PYTHONPATH", moto.to_str().unwrap())]);
    // The same program as for a box without a bucket: its forms lead to this server now.
    run_on(&app, "/usr/bin/python3", "s4_direct_to_storage.py", &[]);
    drop(app);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn tus_js_client_survives_kills() {
    needs_package("tus-js-client");
    let app = Killable::start();
    for (way, kills) in [("pieces", 5), ("stream", 2), ("parallel", 0)] {
        app.upload(way, kills, |state| {
            let mut client = Command::new("node");
            client.arg(script("tus_js.mjs")).args([&*app.base, KEY]).arg(app.file()).arg(state).arg(way);
            client
        });
    }
}

#[test]
fn uppy_survives_kills_of_the_server() {
    needs_package("@uppy/tus");
    let app = Killable::start();
    app.upload("uppy", 1, |_| {
        let mut client = Command::new("node");
        client.arg(script("tus_uppy.mjs")).args([&*app.base, KEY]).arg(app.file());
        client
    });
}

#[test]
fn browsers_go_on_after_kills_of_the_server_and_of_the_page() {
    needs("sh", &["-c", "command -v chromium"], "chromium");
    let app = Killable::start();
    for (way, package) in [("tus-js", "tus-js-client"), ("uppy", "@uppy/tus")] {
        needs_package(package);
        needs_package("esbuild");
        app.browse(way, &["", "reload", "", "restart", "", "reload", ""]);
    }
}

#[test]
fn tuspy_survives_kills() {
    let packages = foreign("tuspy");
    let there = packages.join("tusclient").exists();
    assert!(there, "this test needs {}: run packaging/test.sh", packages.display());
    let app = Killable::start();
    app.upload("tuspy", 5, |state| {
        let mut client = Command::new("/usr/bin/python3");
        client.arg(script("tus_py.py")).args([&*app.base, KEY]).arg(app.file()).arg(state).arg(&packages);
        client
    });
}

/// A server that comes back at the same address, and a file to send to it.
struct Killable {
    app: RefCell<Appliance>,
    base: String,
    folder: TempDir,
}

impl Killable {
    const SIZE_BYTES: usize = 24 << 20;

    fn start() -> Killable {
        // Free now, and nobody else asks for it while the server is away.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let app = Appliance::with(&[("CLOAKROOM_HTTP__LISTEN", &address)]);
        let folder = TempDir::new().unwrap();
        let noise = (0..Killable::SIZE_BYTES as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        fs::write(folder.path().join("film.bin"), noise.collect::<Vec<_>>()).unwrap();
        Killable { base: app.base.clone(), app: RefCell::new(app), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("film.bin")
    }

    /// Has a client upload the file. In turn the server and the client are killed, at even distances.
    fn upload(&self, way: &str, kills: usize, client: impl Fn(&Path) -> Command) {
        let state = self.folder.path().join(format!("{way}.state"));
        if way != "tuspy" {
            fs::write(&state, "{}").unwrap();
        }
        let (mut killed, mut resumed) = (0, 0);
        let asset = loop {
            let mut running = client(&state).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut told, mut asset) = (running.stdin.take().unwrap(), None);
            let lines = BufReader::new(running.stdout.take().unwrap()).lines();
            for line in lines.map(Result::unwrap) {
                let (word, value) = line.split_once(' ').unwrap_or((&line, ""));
                match word {
                    "asset" => asset = Some(value.to_owned()),
                    "resumes" => resumed += 1,
                    _ => {}
                }
                let next_bytes = Killable::SIZE_BYTES / (kills + 1) * (killed + 1);
                if word == "progress" && killed < kills && value.parse::<usize>().unwrap() >= next_bytes {
                    killed += 1;
                    if killed % 2 == 1 {
                        self.app.borrow_mut().crash(|_| {});
                    } else {
                        running.kill().unwrap();
                        break;
                    }
                }
                if word == "progress" {
                    // One that has given up meanwhile is found out at its end.
                    let _ = writeln!(told);
                }
            }
            let ended = running.wait().unwrap();
            if let Some(asset) = asset {
                assert!(ended.success(), "{way}: the client ended with {ended}");
                break asset;
            }
            assert!(ended.code().is_none(), "{way}: the client gave up with {ended}");
        };
        assert_eq!((killed, resumed), (kills, kills / 2), "{way}: kills, and starts that went on");
        self.check(way, &asset);
    }

    /// Has a page upload the file. At even distances it is given the next of the orders, or the server is killed
    /// where there is none.
    fn browse(&self, way: &str, orders: &[&str]) {
        let mut running = Command::new("node")
            .arg(script("tus_browser.mjs"))
            .args([&*self.base, KEY])
            .arg(self.file())
            .arg(way)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = running.stdin.take().unwrap();
        let (mut next, mut begun, mut resumed, mut asset) = (0, 0, Vec::new(), None);
        let lines = BufReader::new(running.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap) {
            let (word, value) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "asset" => asset = Some(value.to_owned()),
                "begins" => begun += 1,
                "resumes" => resumed.push(value.parse::<usize>().unwrap()),
                _ => {}
            }
            let next_bytes = Killable::SIZE_BYTES / (orders.len() + 1) * (next + 1);
            if word == "progress" && next < orders.len() && value.parse::<usize>().unwrap() >= next_bytes {
                if orders[next].is_empty() {
                    self.app.borrow_mut().crash(|_| {});
                } else {
                    writeln!(told, "{}", orders[next]).unwrap();
                }
                next += 1;
            }
        }
        let ended = running.wait().unwrap();
        assert!(ended.success(), "{way}: the browser's program ended with {ended}");
        let pages = orders.iter().filter(|order| !order.is_empty()).count();
        assert_eq!(
            (next, begun, resumed.len()),
            (orders.len(), 1, pages),
            "{way}: orders, beginnings, pages that went on"
        );
        assert!(resumed.iter().all(|at| *at > 0), "{way}: went on at {resumed:?}");
        self.check(way, &asset.unwrap());
    }

    /// What arrived is the file, and its name and data are what was said of it.
    fn check(&self, way: &str, asset: &str) {
        let app = self.app.borrow();
        let path = format!("/api/v1/assets/{asset}/content/original/download");
        let kept = app.call("GET", &path, &[("X-FileSpin-Api-Key", KEY)], b"").body;
        assert!(kept == fs::read(self.file()).unwrap(), "{way}: what was kept is not what was sent");
        let data = app.json(&format!("/api/v1/assets/{asset}/data"));
        assert_eq!((&data["name"], &data["data"]["way"]), (&"film.bin".into(), &way.into()));
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name)
}

/// What packaging/test.sh puts beside the build.
fn foreign(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("foreign").join(name)
}

#[test]
fn ps1_prepr_curl() {
    needs("curl", &["--version"], "curl");
    let app = Appliance::with(&[("CLOAKROOM_NET__ALLOW", "127.0.0.0/8")]);
    run_on(&app, "bash", "ps1_prepr_curl.sh", &[]);
}

#[test]
fn ps2_prepr_chunks() {
    needs("curl", &["--version"], "curl");
    needs("ffmpeg", &["-version"], "ffmpeg");
    run("bash", "ps2_prepr_chunks.sh");
}

#[test]
fn ps3_prepr_sdk() {
    needs("php", &["-r", "exit(extension_loaded('curl') ? 0 : 1);"], "php-curl");
    needs("php", &["-r", "require '/usr/share/php/GuzzleHttp/autoload.php';"], "php-guzzlehttp-guzzle");
    run("php", "ps3_prepr_sdk.php");
}

#[test]
fn outputs_open() {
    for (program, package) in [
        ("djpeg", "libjpeg-turbo-progs"),
        ("pngcheck", "pngcheck"),
        ("dwebp", "webp"),
        ("avifdec", "libavif-bin"),
        ("exiftool", "libimage-exiftool-perl"),
    ] {
        needs("sh", &["-c", &format!("command -v {program}")], package);
    }
    run("/usr/bin/python3", "outputs_open.py");
}

fn python(script: &str) {
    needs("/usr/bin/python3", &["-c", "import requests"], "python3-requests");
    run("/usr/bin/python3", script);
}

/// A package of npm in `tests/scripts/node`.
fn needs_package(name: &str) {
    needs("node", &["--version"], "nodejs");
    let there = Path::new(NODE_PACKAGES).join(name).exists();
    assert!(there, "this test needs {name}: run `npm ci` in tests/scripts/node");
}

fn needs(program: &str, arguments: &[&str], package: &str) {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    assert!(found, "this test needs `{program} {}` to work: install {package}", arguments.join(" "));
}

fn run(interpreter: &str, script: &str) {
    run_with(interpreter, script, &[]);
}

/// With more arguments behind the base address and the API key.
fn run_with(interpreter: &str, script: &str, more: &[&str]) {
    run_on(&Appliance::start(), interpreter, script, more);
}

fn run_on(app: &Appliance, interpreter: &str, script: &str, more: &[&str]) {
    run_in(app, interpreter, script, more, &[]);
}

/// With variables.
fn run_in(app: &Appliance, interpreter: &str, script: &str, more: &[&str], environment: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(script);
    let output = Command::new(interpreter)
        .arg(path)
        .args([&*app.base, KEY])
        .args(more)
        .env("NODE_PATH", NODE_PACKAGES)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
