//! The pool of media workers against a worker that misbehaves: each misdeed costs one request.
//!
//! `poison.rs` is the worker. Whatever it does, the request before and the one after must be
//! answered, within the limits, by a server that has not grown.
#![expect(clippy::unwrap_used, reason = "the steps that the tests share fail by panicking, too")]

mod errands;
mod films;
mod stills;

use std::collections::HashSet;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use cloakroom::error::Blame;
use cloakroom::error::Code;
use cloakroom::error::Result;
use cloakroom::infra::workers::Answer;
use cloakroom::infra::workers::Class;
use cloakroom::infra::workers::Config;
use cloakroom::infra::workers::Counts;
use cloakroom::infra::workers::Limits;
use cloakroom::infra::workers::Workers;
use serde_json::Value;
use serde_json::json;
use tokio::sync::RwLock;

/// Tests share a process; the one that counts its descriptors wants it for itself.
static PROCESS: RwLock<()> = RwLock::const_new(());

/// How often misdeeds are repeated to see whether anything is left of them.
const ROUNDS: usize = 20;

fn config() -> Config {
    Config {
        slots: 1,
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_poison-worker"))),
        output_bytes: 16 << 20,
        ..Config::default()
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

async fn ask(workers: &Workers, request: Value) -> Result<Answer> {
    workers.run(Class::Interactive, request, vec![], workers.limits()).await
}

async fn pid(workers: &Workers) -> i32 {
    ask(workers, json!({"do": "pid"})).await.unwrap().reply.as_i64().unwrap() as i32
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn exists(pid: i32) -> bool {
    rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
}

/// Looks until it is so; gives up loudly.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while !so() {
        assert!(start.elapsed() < Duration::from_mins(2), "waited in vain until {what}");
        tick.tick().await;
    }
}

#[tokio::test]
async fn the_sandbox_holds() {
    let _shared = PROCESS.read().await;
    for program in [env!("CARGO_BIN_EXE_poison-worker"), env!("CARGO_BIN_EXE_cloakroom-media")] {
        let workers = Workers::start(Config { program: Some(program.into()), ..config() }).unwrap();
        let sandbox = workers.sandbox();
        assert!(sandbox.holds, "{sandbox:#?}");
        assert_eq!(sandbox.attempts.len(), 7);
        workers.available().unwrap();
    }
}

#[tokio::test]
async fn a_worker_reaches_nothing_but_what_it_was_given() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let refused = ask(&workers, json!({"do": "open"})).await.unwrap().reply;
    for (what, refused) in refused.as_object().unwrap() {
        assert_eq!(refused, &json!(true), "{what}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_worker_leaves_media_unavailable() {
    let _shared = PROCESS.read().await;
    for program in ["/bin/true", "/nowhere/cloakroom-media"] {
        let workers = Workers::start(Config { program: Some(program.into()), ..config() }).unwrap();
        assert!(!workers.sandbox().why.is_empty());
        assert_eq!(ask(&workers, json!({"do": "echo"})).await.unwrap_err().code, Code::MediaUnavailable);
        let config = Config { allow_unsandboxed: true, program: Some(program.into()), ..config() };
        let error = ask(&Workers::start(config).unwrap(), json!({"do": "echo"})).await.unwrap_err();
        assert_eq!(error.code.blame(), Blame::World, "leave to decode is no worker yet");
    }
}

#[tokio::test]
async fn a_self_test_without_an_answer_is_made_again() {
    let _shared = PROCESS.read().await;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("worker");
    // As on a box that stands still while it starts: the first worker does not get to its answer.
    let script = format!(
        "#!/bin/sh\nmkdir {}/begun && exec sleep 3600\nexec {} \"$@\"\n",
        folder.path().display(),
        env!("CARGO_BIN_EXE_poison-worker")
    );
    executable(&program, &script);
    let workers = Workers::start(Config { program: Some(program), ..config() }).unwrap();
    assert!(folder.path().join("begun").exists());
    until("it is tried again", || workers.available().is_ok()).await;
    assert!(workers.sandbox().holds && workers.sandbox().why.is_empty(), "{:#?}", workers.sandbox());
    ask(&workers, json!({"do": "echo"})).await.unwrap();
}

/// Writes a program, which nobody has open for writing any more when this returns.
fn executable(path: &Path, script: &str) {
    let mut sh = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(sh.wait().unwrap().success());
}

#[tokio::test]
async fn bytes_go_in_and_come_out() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let big: Vec<u8> = (0..10 << 20).map(|n: u32| (n % 251) as u8).collect();
    for parts in
        [vec![], vec![&b""[..]], vec![&b"a"[..], b"bc"], vec![&big[..]], vec![&big[..100_000], &big[7..70_000]]]
    {
        let sources = parts.iter().map(|part| file(part)).collect();
        let request = json!({"do": "echo", "word": "täst"});
        let answer = workers.run(Class::Interactive, request, sources, workers.limits()).await.unwrap();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(answer.reply, json!({"word": "täst", "lengths": lengths}));
        assert!(answer.output.bytes().unwrap() == parts.concat());
    }
}

#[tokio::test]
async fn each_misdeed_costs_one_request() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    for (deed, code) in [
        ("panic", Code::BadImage),
        ("abort", Code::BadImage),
        ("exit", Code::BadImage),
        ("segfault", Code::BadImage),
        ("recurse", Code::BadImage),
        ("allocate", Code::BadImage),
        ("flood", Code::BadImage),
        ("hold", Code::BadImage),
        ("nonsense", Code::BadImage),
        ("ramble", Code::BadImage),
        ("killed", Code::Busy),
        ("hang up", Code::Busy),
    ] {
        let before = pid(&workers).await;
        let error = ask(&workers, json!({"do": deed})).await.expect_err(deed);
        assert_eq!(error.code, code, "{deed}: {error}");
        assert_ne!(pid(&workers).await, before, "{deed}: the next request needs a fresh worker");
        assert!(!exists(before), "{deed}: the old worker must be gone");
    }
    assert_eq!(workers.counts().restarts, 12);
}

#[tokio::test]
async fn a_panic_tells_the_log_where_and_the_caller_only_what() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let error = ask(&workers, json!({"do": "panic"})).await.unwrap_err();
    assert_eq!(error.public(), "the decoder stopped on this file");
    assert!(error.to_string().contains("a bug in a decoder") && error.to_string().contains("poison.rs"), "{error}");
}

#[tokio::test]
async fn endless_work_is_ended_by_the_processor_limit() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    for _ in 0..2 {
        let limits = Limits { cpu_seconds: 1, ..workers.limits() };
        let error = workers.run(Class::Interactive, json!({"do": "loop"}), vec![], limits).await.unwrap_err();
        assert_eq!(error.code, Code::BadImage);
        assert!(error.public().contains("takes longer"), "{error}");
        pid(&workers).await;
    }
}

#[tokio::test]
async fn the_processor_limit_is_per_request() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let before = pid(&workers).await;
    for _ in 0..300 {
        let limits = Limits { cpu_seconds: 0, ..workers.limits() };
        workers.run(Class::Interactive, json!({"do": "echo"}), vec![], limits).await.unwrap();
    }
    assert_eq!(pid(&workers).await, before);
}

#[tokio::test]
async fn the_deadline_kills_and_blames_the_file_only_for_what_it_used() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let before = pid(&workers).await;
    let limits = Limits { wall: Duration::from_millis(200), ..workers.limits() };
    let start = Instant::now();
    let error = workers.run(Class::Interactive, json!({"do": "sleep"}), vec![], limits).await.unwrap_err();
    assert!(start.elapsed() >= limits.wall);
    assert_eq!(error.code, Code::Busy, "a worker that did not run did not hang in the file");
    assert_ne!(pid(&workers).await, before);
    assert!(!exists(before));
    assert_eq!(workers.counts().killed, 1);
}

#[tokio::test]
async fn results_end_at_their_limit() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let limits = Limits { output_bytes: 1000, ..workers.limits() };
    for (size, fits) in [(1000, true), (1001, false)] {
        let source = vec![file(&vec![1; size])];
        let answer = workers.run(Class::Interactive, json!({"do": "echo"}), source, limits).await.unwrap();
        assert_eq!(answer.reply.get("refused").is_none(), fits);
    }
}

#[tokio::test]
async fn workers_killed_from_outside_are_replaced() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    // While idle: nobody notices.
    for _ in 0..20 {
        let idle = pid(&workers).await;
        kill(idle);
        until("it is buried", || !exists(idle)).await;
    }
    until("all are counted", || workers.counts() == Counts { restarts: 20, ..Counts::default() }).await;
    // At work: that request may be tried again.
    let busy = pid(&workers).await;
    let theirs = workers.clone();
    let request = tokio::spawn(async move { ask(&theirs, json!({"do": "loop"})).await });
    until("it is at work", || cpu_ticks(busy) > 5).await;
    kill(busy);
    assert_eq!(request.await.unwrap().unwrap_err().code, Code::Busy);
    assert_ne!(pid(&workers).await, busy);
}

/// A figure of a process, counted after its name: 0 is the state, 11 the clock ticks used.
fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(')').next()?.split_whitespace().nth(field)?.to_owned())
}

fn cpu_ticks(pid: i32) -> u64 {
    stat(pid, 11).unwrap().parse().unwrap()
}

#[tokio::test]
async fn workers_die_with_the_server() {
    let _shared = PROCESS.read().await;
    let program = env!("CARGO_BIN_EXE_poison-worker");
    let mut server = Command::new(program).arg("server").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let worker: i32 = line.trim().parse().unwrap();
    until("it is at work", || cpu_ticks(worker) > 5).await;
    server.kill().unwrap();
    server.wait().unwrap();
    // Whoever inherits it may take its time to bury it.
    until("it is dead", || stat(worker, 0).is_none_or(|state| state == "Z")).await;
}

#[tokio::test]
async fn an_asker_that_leaves_frees_the_slot() {
    let _shared = PROCESS.read().await;
    // No limit ends a request here, so only the asker's leaving does.
    let endless = Config { wall_seconds: 3600, cpu_seconds: 3600, max_wait_seconds: 600, ..config() };
    let workers = Workers::start(endless).unwrap();
    for deed in ["loop", "sleep"] {
        let before = pid(&workers).await;
        let mut patience = Duration::from_millis(50);
        // A worker that was not yet at work when its asker left goes on.
        while pid(&workers).await == before {
            assert!(patience < Duration::from_mins(2), "{deed}: the worker was not ended");
            assert!(tokio::time::timeout(patience, ask(&workers, json!({"do": deed}))).await.is_err());
            patience *= 2;
        }
        assert!(!exists(before));
    }
    // Never polled, or dropped while still in the queue: nothing happens at all.
    drop(ask(&workers, json!({"do": "loop"})));
    assert_eq!(workers.counts().killed, 2);
}

#[tokio::test]
async fn the_queue_is_bounded_in_length() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(Config { max_waiting: 1, max_wait_seconds: 3600, ..config() }).unwrap();
    let busy = occupied(&workers).await;
    let first = tokio::spawn({
        let workers = workers.clone();
        async move { ask(&workers, json!({"do": "echo"})).await }
    });
    until("one waits", || workers.counts().waiting == 1).await;
    assert_eq!(ask(&workers, json!({"do": "echo"})).await.unwrap_err().code, Code::Busy);
    // Background requests have slots of their own.
    let other = workers.run(Class::Background, json!({"do": "echo"}), vec![], workers.limits()).await;
    assert!(other.is_ok());
    busy.abort();
    assert!(first.await.unwrap().is_ok(), "who waits gets the slot");
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(Config { max_wait_seconds: 1, ..config() }).unwrap();
    let busy = occupied(&workers).await;
    let start = Instant::now();
    assert_eq!(ask(&workers, json!({"do": "echo"})).await.unwrap_err().code, Code::Busy);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(workers.counts().waiting, 0);
    busy.abort();
}

/// Somebody who keeps the only slot until he is sent away.
async fn occupied(workers: &Workers) -> tokio::task::JoinHandle<Result<Answer>> {
    let theirs = workers.clone();
    let limits = Limits { wall: Duration::from_hours(1), ..workers.limits() };
    let busy =
        tokio::spawn(async move { theirs.run(Class::Interactive, json!({"do": "sleep"}), vec![], limits).await });
    until("the slot is taken", || workers.counts().running == 1).await;
    busy
}

#[tokio::test]
async fn background_workers_step_back() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(config()).unwrap();
    let answer = workers.run(Class::Background, json!({"do": "pid"}), vec![], workers.limits()).await.unwrap();
    let theirs = answer.reply.as_i64().unwrap() as i32;
    let nice = |pid| rustix::process::getpriority_process(rustix::process::Pid::from_raw(pid)).unwrap();
    let ours = nice(0);
    assert_eq!(nice(theirs), (ours + 10).min(19));
    assert_eq!(nice(pid(&workers).await), ours);
}

#[tokio::test]
async fn workers_are_relieved_after_their_turn() {
    let _shared = PROCESS.read().await;
    let workers = Workers::start(Config { requests_per_worker: 3, ..config() }).unwrap();
    let mut seen = vec![];
    for _ in 0..9 {
        seen.push(pid(&workers).await);
    }
    let turns: Vec<usize> = seen.chunk_by(|a, b| a == b).map(<[i32]>::len).collect();
    assert_eq!(turns, [3, 3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_pools_two_slots_two_hundred_requests() {
    let _shared = PROCESS.read().await;
    let pools = [(); 2]
        .map(|()| Workers::start(Config { slots: 2, max_waiting: 200, max_wait_seconds: 600, ..config() }).unwrap());
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200_usize {
        for workers in pools.clone() {
            all.spawn(async move {
                let limits = workers.limits();
                let word = vec![number as u8; number * 100];
                let deed = if number % 10 == 9 { "abort" } else { "echo" };
                let request = json!({"do": deed, "word": number});
                match workers.run(Class::Interactive, request, vec![file(&word)], limits).await {
                    Ok(answer) => {
                        assert_eq!(answer.reply["word"], json!(number));
                        assert_eq!(answer.output.bytes().unwrap(), word);
                        true
                    }
                    Err(error) => {
                        assert_eq!((error.code, deed), (Code::BadImage, "abort"));
                        false
                    }
                }
            });
        }
    }
    let fine = all.join_all().await.into_iter().filter(|fine| *fine).count();
    assert_eq!(fine, 360);
    for workers in pools {
        assert!(workers.counts().running <= 2);
        assert_eq!(workers.counts().waiting, 0);
    }
}

#[tokio::test]
async fn the_server_does_not_grow() {
    let _alone = PROCESS.write().await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before_all = descriptors();
    let workers = Workers::start(config()).unwrap();
    let round = async || {
        for deed in ["echo", "panic", "abort", "nonsense", "hold"] {
            let _ = workers
                .run(Class::Interactive, json!({"do": deed}), vec![file(b"x"), file(b"y")], workers.limits())
                .await;
        }
        let _ = tokio::time::timeout(Duration::from_millis(5), ask(&workers, json!({"do": "loop"}))).await;
        pid(&workers).await;
    };
    round().await;
    let before = descriptors();
    for _ in 0..ROUNDS {
        round().await;
    }
    // Tests that wait for their turn have a runtime each, with a few descriptors; a leak in
    // every round is more than those.
    let after = descriptors();
    assert!(after < before + ROUNDS, "{before} descriptors have become {after}");
    workers.stop();
    drop(workers);
    let left = descriptors();
    assert!(left < before_all + ROUNDS, "{before_all} descriptors have become {left} after the stop");
}

#[tokio::test]
async fn stopping_ends_workers_and_requests() {
    let _shared = PROCESS.read().await;
    for at_work in [false, true] {
        let workers = Workers::start(Config { slots: 2, ..config() }).unwrap();
        let (first, second) = tokio::join!(pid(&workers), pid(&workers));
        let request = at_work.then(|| {
            let workers = workers.clone();
            tokio::spawn(async move { ask(&workers, json!({"do": "loop"})).await })
        });
        if at_work {
            until("it is at work", || cpu_ticks(first).max(cpu_ticks(second)) > 5).await;
        }
        workers.stop();
        for gone in HashSet::from([first, second]) {
            assert!(!exists(gone));
        }
        if let Some(request) = request {
            assert_eq!(request.await.unwrap().unwrap_err().code, Code::Busy);
        }
        assert_eq!(ask(&workers, json!({"do": "echo"})).await.unwrap_err().code, Code::Busy);
        assert_eq!(workers.counts().running, 0);
    }
}
