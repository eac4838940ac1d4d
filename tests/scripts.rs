//! Other people's programs against the real binary: what `tests/scripts/README.md` lists.
//!
//! A program that is missing on this machine is a failure, with a sentence that says what to install.

#![expect(clippy::unwrap_used, reason = "the steps that the tests share fail by panicking, too")]

#[path = "api/harness/mod.rs"]
#[expect(dead_code, reason = "these tests only start and ask; the programs do the rest")]
mod harness;

use std::path::Path;
use std::process::Command;

use harness::Appliance;
use harness::EMAIL;
use harness::KEY;
use harness::PASSWORD;

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
    needs("/usr/bin/python3", &["-c", "import requests"], "python3-requests");
    let app = Appliance::with(&[
        ("CLOAKROOM_NET__ALLOW", "127.0.0.0/8"),
        ("CLOAKROOM_WEBHOOKS__SCHEDULE_SECONDS", "1,1,1,1,1,1,1"),
    ]);
    run_on(&app, "/usr/bin/python3", "s10_webhooks.py", &[verifiers.to_str().unwrap()]);
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(script);
    let output = Command::new(interpreter)
        .arg(path)
        .args([&*app.base, KEY])
        .args(more)
        .env("NODE_PATH", NODE_PACKAGES)
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
