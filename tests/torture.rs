//! The real binary, treated badly: what `tests/torture/README.md` lists, in the sizes that suit every run.
//!
//! `killloop.py --rounds 500` and `outage.py --minutes 10` are for a night. Slow clients meet short limits where they are
//! to be sent away, so that nobody waits long.

#![expect(clippy::expect_used, reason = "the steps that the tests share fail by panicking, too")]

use std::path::Path;
use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost() {
    run("killloop.py", &["--rounds", "20", "--uploads", "200"]);
}

#[test]
fn assets_are_what_their_clients_were_told() {
    run("lifeloop.py", &["--rounds", "6"]);
}

#[test]
fn slow_clients_are_sent_away() {
    run_with(
        "slow.py",
        &[],
        &[("CLOAKROOM_HTTP__BODY_GRACE_SECONDS", "2"), ("CLOAKROOM_HTTP__BODY_STALL_SECONDS", "5")],
    );
}

#[test]
fn a_bucket_may_be_away_and_lie() {
    // Beside the build: packaging/test.sh puts it there.
    let moto = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("foreign/moto");
    run("outage.py", &["--moto", moto.to_str().expect("a path that can be spelt")]);
}

fn run(script: &str, arguments: &[&str]) {
    run_with(script, arguments, &[]);
}

/// With variables.
fn run_with(script: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture").join(script);
    let output = Command::new("/usr/bin/python3")
        .arg(path)
        .arg(env!("CARGO_BIN_EXE_cloakroom"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("this test needs /usr/bin/python3: install python3");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
