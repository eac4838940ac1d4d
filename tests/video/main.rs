//! Films, good and bad, to the real programs: what `README.md` in this folder lists, in the sizes that suit every run.
//!
//! A program that is missing on this machine is a failure, with a sentence that says what to install.

#![expect(clippy::expect_used, reason = "the steps that the tests share fail by panicking, too")]

use std::path::Path;
use std::process::Command;

/// How much longer the processor may take for it in a build without optimisation.
const SLOWNESS: &str = if cfg!(debug_assertions) { "6" } else { "1" };

#[test]
fn the_checker_notices_what_is_wrong() {
    run("check_self.py", &[]);
}

#[test]
fn films_become_what_players_need_or_an_answer() {
    run("workers.py", &[env!("CARGO_BIN_EXE_cloakroom-video"), "--slowness", SLOWNESS]);
}

#[test]
fn the_server_makes_films_and_outlives_every_kill() {
    run("server.py", &[env!("CARGO_BIN_EXE_cloakroom"), "--slowness", SLOWNESS]);
}

fn run(script: &str, arguments: &[&str]) {
    for (program, package) in [("ffmpeg", "ffmpeg"), ("gst-launch-1.0", "gstreamer1.0-tools")] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        assert!(found.is_ok_and(|found| found.status.success()), "this test needs {program}: install {package}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/video").join(script);
    let output = Command::new("/usr/bin/python3")
        .arg(path)
        .args(arguments)
        .output()
        .expect("this test needs /usr/bin/python3: install python3");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprintln!("{}", said(&output.stdout));
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
