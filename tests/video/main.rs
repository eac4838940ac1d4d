//! Films, good and bad, to the real programs: what `README.md` in this folder lists, in the sizes that suit every run.
//!
//! `VIDEO_FILMS=all` is for a night or a release: every film, and kills at random moments. A program that is missing on
//! this machine is a failure, with a sentence that says what to install.

#![expect(clippy::expect_used, reason = "the steps that the tests share fail by panicking, too")]
#![expect(clippy::disallowed_methods, reason = "how many films, the environment is asked")]

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;

/// How much longer the processor may take for it in a build without optimisation.
const SLOWNESS: &str = if cfg!(debug_assertions) { "6" } else { "1" };

/// Small ones that differ, good and bad. Frames are dear without optimisation, so the others are
/// for a release build.
const WORKER: [&str; 5] = ["64x48", "one-frame", "mono8k.wav", "no-moov", "hls.mp4"];
const SERVER: [(&str, &str); 3] = [("good", "64x48"), ("good", "sound-only"), ("bad", "no-moov")];

#[test]
fn the_checker_notices_what_is_wrong() {
    run("check_self.py", &[]);
}

#[test]
fn films_become_what_players_need_or_an_answer() {
    let program = env!("CARGO_BIN_EXE_cloakroom-video");
    if everything() {
        return run("workers.py", &[program, "--slowness", SLOWNESS, "--all"]);
    }
    for film in WORKER {
        run("workers.py", &[program, "--slowness", SLOWNESS, "--only", film]);
    }
}

#[test]
fn the_server_makes_films_and_outlives_every_kill() {
    let program = env!("CARGO_BIN_EXE_cloakroom");
    if everything() {
        return run("server.py", &[program, "--slowness", SLOWNESS, "--rounds", "5"]);
    }
    for (part, film) in SERVER {
        run("server.py", &[program, "--slowness", SLOWNESS, "--part", part, "--only", film]);
    }
}

fn everything() -> bool {
    std::env::var("VIDEO_FILMS").is_ok_and(|films| films == "all")
}

/// One script at a time: they make the films that all of them use, and look for workers that nobody minds.
fn run(script: &str, arguments: &[&str]) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
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
