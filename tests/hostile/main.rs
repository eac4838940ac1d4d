//! Files and parameters made to hurt: what `README.md` in this folder lists, in the sizes that suit every run.
//!
//! `HOSTILE_COUNT=2000` is for a night or a release: so many mutants of each format, instead of a few.

#![expect(clippy::expect_used, reason = "the steps that the tests share fail by panicking, too")]
#![expect(clippy::disallowed_methods, reason = "the number of mutants is asked of the environment")]

use std::path::Path;
use std::process::Command;

use cloakroom::media::imaging::Recipe;

/// Pairs, and the canonical text or the parameter that is named.
type Case<'a> = (&'a [(&'a str, &'a str)], Result<&'a str, &'a str>);

#[test]
fn no_file_costs_the_server_more_than_an_answer() {
    run("server.py", env!("CARGO_BIN_EXE_cloakroom"), "60", &[]);
}

#[test]
fn no_file_kills_a_worker() {
    let slowness = if cfg!(debug_assertions) { "6" } else { "1" };
    run("workers.py", env!("CARGO_BIN_EXE_cloakroom-media"), "60", &["--slowness", slowness]);
}

#[test]
fn parameters_are_understood_or_named() {
    let long = "9".repeat(10_000);
    let deep = "1,".repeat(5_000);
    let table: &[Case] = &[
        (&[], Ok("")),
        (&[("nonsense", "1"), ("", ""), ("RESIZE", "x")], Ok("")),
        (&[("resize", "10,10"), ("resize", "x")], Err("resize")),
        (&[("resize", "x"), ("resize", "10,10")], Ok("resize=10,10")),
        (&[("resize", &long)], Err("resize")),
        (&[("resize", &format!("{long},{long}"))], Ok("resize=2048,1536")),
        (&[("resize", &deep)], Err("resize")),
        (&[("resize", "-1,10")], Err("resize")),
        (&[("resize", "1.5,10")], Err("resize")),
        (&[("resize", "1e3,10")], Err("resize")),
        (&[("resize", "10,10\0")], Err("resize")),
        (&[("resize", "10,10&quality=1")], Err("resize")),
        (&[("crop", &deep)], Err("crop")),
        (&[("crop", "1,1,face,face")], Err("crop")),
        (&[("crop", &format!("{long},{long},{long},{long}"))], Ok("crop=4294967295,4294967295,4294967295,4294967295")),
        (&[("crop", &format!("{long},{long},north"))], Ok("crop=1536,1536,north")),
        (&[("crop", "0,0,0,0")], Err("crop")),
        (&[("rotate", &long)], Err("rotate")),
        (&[("rotate", "1e9")], Err("rotate")),
        (&[("rotate", "-0.001")], Ok("")),
        (&[("rotate", "NaN")], Err("rotate")),
        (&[("dpr", "999999")], Ok("dpr=4")),
        (&[("dpr", "0.0001")], Ok("dpr=0.5")),
        (&[("blur", "999999")], Ok("blur=100")),
        (&[("blur", "-0")], Ok("")),
        (&[("sharpen", "101")], Ok("sharpen=100")),
        (&[("trim", &long)], Ok("trim=100")),
        (&[("quality", "0")], Ok("quality=1")),
        (&[("quality", &long)], Ok("quality=100")),
        (&[("quality", &format!("auto,{long}"))], Ok("quality=auto,95")),
        (&[("quality", &format!("-{long}"))], Err("quality")),
        (&[("format", "../../../etc/passwd")], Err("format")),
        (&[("format", "JPG\r\nX: y")], Err("format")),
        (&[("bgcolor", "#ffffff")], Err("bgcolor")),
        (&[("bgcolor", "ﬀﬀﬀ")], Err("bgcolor")),
        (&[("flip", "vhv")], Err("flip")),
        (&[("grayscale", "2")], Err("grayscale")),
        // Contradictions are carried out in the order of work.
        (&[("resize", "1,1"), ("crop", "2048,1536"), ("rotate", "45")], Ok("rotate=45&crop=2048,1536&resize=1,1")),
    ];
    for (pairs, expected) in table {
        let parsed = Recipe::parse(pairs.iter().copied());
        let said = match &parsed {
            Ok(recipe) => Ok(recipe.canonical()),
            Err(bad) => Err(bad.name.clone()),
        };
        let shown: String = format!("{pairs:?}").chars().take(80).collect();
        assert_eq!(said.as_deref().map_err(String::as_str), *expected, "{shown}");
        if let Err(bad) = parsed {
            assert!(bad.reason.len() < 200, "{shown}: the caller's own words come back: {} bytes", bad.reason.len());
        }
    }
}

fn run(script: &str, program: &str, count: &str, more: &[&str]) {
    let count = std::env::var("HOSTILE_COUNT").unwrap_or_else(|_| count.to_owned());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(script);
    let output = Command::new("/usr/bin/python3")
        .arg(path)
        .args([program, "--count", &count])
        .args(more)
        .output()
        .expect("this test needs /usr/bin/python3: install python3");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprintln!("{}", said(&output.stdout));
    assert!(output.status.success(), "{script}:\n{}{}", said(&output.stdout), said(&output.stderr));
}
