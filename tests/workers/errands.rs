//! Errands that misbehave: each misdeed costs one errand, and nothing is left of its process.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use cloakroom::infra::workers::errand::Config;
use cloakroom::infra::workers::errand::Ending;
use cloakroom::infra::workers::errand::ErrandLimits;
use cloakroom::infra::workers::errand::Errands;
use cloakroom::infra::workers::errand::Grants;
use serde_json::Value;
use serde_json::json;

use super::PROCESS;
use super::cpu_ticks;
use super::exists;
use super::kill;
use super::stat;
use super::until;

fn errands() -> Errands {
    let config = Config {
        slots: 4,
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_poison-worker"))),
        wall_seconds: 30,
        idle_seconds: 20,
        cpu_seconds: 20,
        memory_bytes: 256 << 20,
        folder_bytes: 4 << 20,
        ..Config::default()
    };
    Errands::new(config, &[])
}

/// Runs a misdeed; returns the number of its process and what came of it.
async fn commit(
    errands: &Errands,
    errand: Value,
    grants: Grants,
    limits: ErrandLimits,
) -> (i32, Result<Value, Ending>) {
    let pid = Mutex::new(0);
    let outcome = errands.run(errand, grants, limits, |line| first(&pid, &line)).await;
    (pid.into_inner().unwrap(), outcome)
}

fn first(pid: &Mutex<i32>, line: &Value) {
    let mut pid = pid.lock().unwrap();
    if *pid == 0 {
        *pid = line.as_i64().unwrap_or_default() as i32;
    }
}

/// Whether any process is in the group.
fn group_exists(pid: i32) -> bool {
    rustix::process::test_kill_process_group(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
}

fn assert_gone(pid: i32, deed: &str) {
    assert!(pid > 1 && !exists(pid) && !group_exists(pid), "{deed}: process {pid} must be gone");
}

fn in_folder(folder: &Path) -> Grants {
    Grants { folder: Some(folder.to_owned()), ..Grants::default() }
}

#[tokio::test]
async fn the_cell_holds() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let sandbox = errands.sandbox().await.unwrap();
    assert!(sandbox.holds, "{sandbox:#?}");
    assert_eq!(sandbox.attempts.len(), 13);
    assert_eq!(sandbox.layers.len(), 3);
}

#[tokio::test]
async fn an_errand_reaches_its_source_and_its_folder_and_nothing_else() {
    let _shared = PROCESS.read().await;
    let folder = tempfile::tempdir().unwrap();
    let (source, other, work) =
        (folder.path().join("film.mp4"), folder.path().join("film.other"), folder.path().join("work"));
    fs::create_dir(&work).unwrap();
    for file in [&source, &other] {
        fs::write(file, "film").unwrap();
    }
    let errand = json!({"do": "open", "source": &source, "folder": &work});
    let grants = Grants { read: vec![source.clone()], folder: Some(work.clone()), devices: false };
    let errands = errands();
    let (pid, outcome) = commit(&errands, errand, grants, errands.limits()).await;
    for (what, as_it_should_be) in outcome.unwrap().as_object().unwrap() {
        assert_eq!(as_it_should_be, &json!(true), "{what}");
    }
    assert_gone(pid, "open");
    assert_eq!(fs::read_to_string(work.join("a/made")).unwrap(), "x");
    assert_eq!(fs::read_to_string(source).unwrap(), "film");
    assert!(!folder.path().join("out").exists());
}

#[tokio::test]
async fn lines_come_as_they_are_told_and_nothing_spoils_them() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    for (deed, last) in [("print", json!("printed")), ("threads", json!(140))] {
        let lines = Mutex::new(vec![]);
        let outcome = errands
            .run(json!({"do": deed}), Grants::default(), errands.limits(), |line| lines.lock().unwrap().push(line))
            .await;
        assert_eq!(outcome, Ok(last.clone()), "{deed}");
        let lines = lines.into_inner().unwrap();
        assert!(lines.len() == 2 && lines[0].is_number() && lines[1] == last, "{deed}: {lines:?}");
    }
    assert_eq!((errands.counts().finished, errands.counts().failed, errands.counts().running), (3, 0, 0));
}

#[tokio::test]
async fn each_misdeed_costs_one_errand() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let limits = errands.limits();
    let short = |wall: u64, idle: u64| ErrandLimits {
        wall: Duration::from_millis(wall),
        idle: Duration::from_millis(idle),
        ..limits
    };
    let crashed =
        |words: &'static str| move |ending: &Ending| matches!(ending, Ending::Crashed(why) if why.contains(words));
    let is = |expected: Ending| move |ending: &Ending| *ending == expected;
    type Expected = Box<dyn Fn(&Ending) -> bool>;
    let cases: Vec<(&str, ErrandLimits, Expected)> = vec![
        ("segfault", limits, Box::new(crashed("SIGSEGV"))),
        ("abort", limits, Box::new(crashed("SIGABRT"))),
        ("recurse", limits, Box::new(crashed("signal"))),
        ("panic", limits, Box::new(crashed("poison.rs"))),
        ("allocate", limits, Box::new(crashed("SIGABRT"))),
        ("swell", limits, Box::new(is(Ending::Memory))),
        // Which of the two depends on who else wants the processor.
        (
            "spin",
            short(800, 20_000),
            Box::new(|ending: &Ending| matches!(ending, Ending::TookTooLong | Ending::Starved)),
        ),
        ("sleep", short(1000, 20_000), Box::new(is(Ending::Starved))),
        ("sleep", short(20_000, 1000), Box::new(is(Ending::Stalled))),
        ("loop", ErrandLimits { cpu_seconds: 1, ..short(120_000, 120_000) }, Box::new(is(Ending::TookTooLong))),
        ("chatter", limits, Box::new(is(Ending::TooLarge))),
        ("drone", limits, Box::new(is(Ending::TooLarge))),
        ("killed", limits, Box::new(is(Ending::KilledFromOutside))),
    ];
    for (deed, mut limits, expected) in cases {
        let (pid, ending) = loop {
            let (pid, outcome) = commit(&errands, json!({"do": deed}), Grants::default(), limits).await;
            let ending = outcome.expect_err(deed);
            if pid != 0 || limits.wall.min(limits.idle) > Duration::from_mins(1) {
                break (pid, ending);
            }
            // Its time was up before it could say who it is.
            limits = ErrandLimits { wall: limits.wall * 2, idle: limits.idle * 2, ..limits };
        };
        assert!(expected(&ending), "{deed}: {ending:?}");
        assert_gone(pid, deed);
    }
    let (_, fine) = commit(&errands, json!({"do": "threads"}), Grants::default(), limits).await;
    assert_eq!(fine, Ok(json!(140)));
}

#[tokio::test]
async fn a_folder_that_grows_too_large_ends_its_errand() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    for deed in ["write a large file", "write many files"] {
        let folder = tempfile::tempdir().unwrap();
        let errand = json!({"do": deed, "folder": folder.path()});
        let (pid, outcome) = commit(&errands, errand, in_folder(folder.path()), errands.limits()).await;
        assert_eq!(outcome, Err(Ending::TooLarge), "{deed}");
        assert_gone(pid, deed);
    }
}

#[tokio::test]
async fn a_worker_that_hangs_up_and_stays_is_ended() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    // No other limit can be meant.
    let hour = Duration::from_hours(1);
    let limits = ErrandLimits { wall: hour, idle: hour, ..errands.limits() };
    let (pid, outcome) = commit(&errands, json!({"do": "hang up"}), Grants::default(), limits).await;
    assert_eq!(outcome, Err(Ending::Stalled));
    assert_gone(pid, "hang up");
}

#[tokio::test]
async fn a_worker_that_ignores_the_processor_limit_is_killed() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let patience = Duration::from_mins(2);
    let limits = ErrandLimits { cpu_seconds: 1, wall: patience, idle: patience, ..errands.limits() };
    let (pid, outcome) = commit(&errands, json!({"do": "ignore"}), Grants::default(), limits).await;
    assert_eq!(outcome, Err(Ending::TookTooLong));
    assert_gone(pid, "ignore");
}

#[tokio::test]
async fn calling_an_errand_off_returns_when_it_is_gone() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    for deed in ["loop", "sleep", "spin", "swell", "chatter"] {
        let folder = tempfile::tempdir().unwrap();
        let pid = Mutex::new(0);
        {
            let limits = ErrandLimits { memory_bytes: 8 << 30, ..errands.limits() };
            let running = errands.run(json!({"do": deed}), in_folder(folder.path()), limits, |line| first(&pid, &line));
            let started = until("it has begun", || *pid.lock().unwrap() != 0);
            tokio::select! {
                outcome = running => assert!(matches!(outcome, Err(Ending::TooLarge)), "{deed}: {outcome:?}"),
                () = started => {}
            }
        }
        assert_gone(pid.into_inner().unwrap(), deed);
        folder.close().unwrap();
        assert_eq!(errands.counts().running, 0);
    }
    // Never polled: nothing is started at all.
    drop(errands.run(json!({"do": "loop"}), Grants::default(), errands.limits(), |_| ()));
}

#[tokio::test]
async fn an_errand_killed_from_outside_may_be_tried_again() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let pid = Mutex::new(0);
    let running = errands.run(json!({"do": "loop"}), Grants::default(), errands.limits(), |line| first(&pid, &line));
    let killer = async {
        until("it has begun", || *pid.lock().unwrap() != 0).await;
        kill(*pid.lock().unwrap());
    };
    let (outcome, ()) = tokio::join!(running, killer);
    assert_eq!(outcome, Err(Ending::KilledFromOutside));
}

#[tokio::test]
async fn errands_take_turns() {
    let _shared = PROCESS.read().await;
    let config = Config { slots: 1, program: Some(env!("CARGO_BIN_EXE_poison-worker").into()), ..Config::default() };
    let errands = Errands::new(config, &[]);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let errands = errands.clone();
        all.spawn(async move {
            let seen = errands.run(json!({"do": "threads"}), Grants::default(), errands.limits(), |_| {
                assert_eq!(errands.counts().running, 1);
            });
            seen.await
        });
    }
    for outcome in all.join_all().await {
        assert_eq!(outcome, Ok(json!(140)));
    }
}

#[tokio::test]
async fn errands_step_back_and_leave_memory_to_others() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let pid = Mutex::new(0);
    let running = errands.run(json!({"do": "loop"}), Grants::default(), errands.limits(), |line| first(&pid, &line));
    let looking = async {
        until("it has begun", || *pid.lock().unwrap() != 0).await;
        let pid = *pid.lock().unwrap();
        let nice = |pid| rustix::process::getpriority_process(rustix::process::Pid::from_raw(pid)).unwrap();
        assert_eq!(nice(pid), (nice(0) + 10).min(19));
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "700");
        // Its own session, batch scheduling, and descriptors: three, and the pipe.
        assert_eq!(stat(pid, 3).unwrap(), pid.to_string());
        assert_eq!(stat(pid, 38).unwrap(), "3");
    };
    tokio::select! {
        outcome = running => panic!("{outcome:?}"),
        () = looking => {}
    }
}

#[tokio::test]
async fn errands_die_with_the_server() {
    let _shared = PROCESS.read().await;
    let mut server =
        Command::new(env!("CARGO_BIN_EXE_poison-worker")).arg("errand server").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let worker: i32 = line.trim().parse().unwrap();
    until("it is at work", || cpu_ticks(worker) > 5).await;
    server.kill().unwrap();
    server.wait().unwrap();
    until("it is dead", || stat(worker, 0).is_none_or(|state| state == "Z")).await;
}

#[tokio::test]
async fn a_program_that_is_no_worker_leaves_films_alone() {
    let _shared = PROCESS.read().await;
    for program in ["/bin/true", "/bin/false", "/nowhere/cloakroom-video"] {
        let errands = Errands::new(Config { program: Some(program.into()), ..Config::default() }, &[]);
        let outcome = errands.run(json!({"do": "nothing"}), Grants::default(), errands.limits(), |_| ()).await;
        assert!(outcome.is_err(), "{program}: {outcome:?}");
    }
    let missing = Errands::new(Config { program: Some("/nowhere/cloakroom-video".into()), ..Config::default() }, &[]);
    assert!(matches!(missing.available().await, Err(Ending::Unavailable(_))));
}

#[tokio::test]
async fn what_an_errand_may_not_read_is_said_before_it_begins() {
    let _shared = PROCESS.read().await;
    let errands = errands();
    let grants = Grants { read: vec!["/nowhere/film.mp4".into()], ..Grants::default() };
    let (_, outcome) = commit(&errands, json!({"do": "nothing"}), grants, errands.limits()).await;
    assert!(matches!(&outcome, Err(Ending::Unavailable(why)) if why.contains("film.mp4")), "{outcome:?}");
}
