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
use harness::KEY;

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
fn s9_replace() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s9_replace.py");
}

#[test]
fn s14_delete_undelete() {
    needs("ffmpeg", &["-version"], "ffmpeg");
    python("s14_delete_undelete.py");
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

fn needs(program: &str, arguments: &[&str], package: &str) {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    assert!(found, "this test needs `{program} {}` to work: install {package}", arguments.join(" "));
}

fn run(interpreter: &str, script: &str) {
    let app = Appliance::start();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(script);
    let output = Command::new(interpreter).arg(path).args([&*app.base, KEY]).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
