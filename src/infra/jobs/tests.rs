//! The engine as rooms use it: kinds of jobs made up for the purpose, a database on disk,
//! time moved by hand where waits are long. Where something must happen "soon", the test
//! waits for the event itself; a hang is a failure.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use super::*;
use crate::support::clock::Clock;
use crate::support::clock::Instant;

const SCHEMA: &str = include_str!("../../../schema.sql");
const BENCH: Queue = Queue("bench");
const NEVER: Duration = Duration::from_hours(1);
/// Less than an idle slot sleeps: whoever is not woken is late.
const SOON: Duration = Duration::from_secs(25);

fn db() -> Db {
    Db::temporary(SCHEMA, Clock::by_hand(Instant(1_000_000))).unwrap()
}

fn jobs(db: &Db) -> Jobs {
    Jobs::new(db.clone(), Config { tick: Duration::from_millis(2), ..Config::default() })
}

/// What the made-up runner does with a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Do {
    Succeed,
    Complete,
    CompleteThenRollBack,
    Fail,
    FailWithTheDisk,
    FailForGood,
    Panic,
    HangUntilCancelled,
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    n: u32,
    act: Do,
}

impl Job for Task {
    const KIND: &'static str = "test.task";
    const QUEUE: Queue = BENCH;
    const MAX_ATTEMPTS: u32 = 3;
    const TIMEOUT: Duration = NEVER;
}

/// Never ends by itself.
#[derive(Serialize, Deserialize)]
struct Stuck;

impl Job for Stuck {
    const KIND: &'static str = "test.stuck";
    const QUEUE: Queue = BENCH;
    const MAX_ATTEMPTS: u32 = 2;
    const TIMEOUT: Duration = Duration::from_millis(5);
}

impl Run<Stuck> for Room {
    async fn run(&self, _: Stuck, at: &Attempt) -> Result<()> {
        let _ = self.ran.send((0, at.clone()));
        std::future::pending().await
    }

    async fn gave_up(&self, _: Stuck, error: &Error) {
        self.gave_up.lock().unwrap().push((0, error.code));
    }
}

/// Tells every attempt on a channel.
struct Room {
    db: Db,
    ran: mpsc::UnboundedSender<(u32, Attempt)>,
    gave_up: Mutex<Vec<(u32, Code)>>,
    panics_when_told: AtomicBool,
}

impl Room {
    fn new(db: &Db) -> (Arc<Room>, mpsc::UnboundedReceiver<(u32, Attempt)>) {
        let (ran, seen) = mpsc::unbounded_channel();
        let room = Room { db: db.clone(), ran, gave_up: Mutex::default(), panics_when_told: AtomicBool::new(false) };
        (Arc::new(room), seen)
    }

    fn given_up(&self) -> Vec<(u32, Code)> {
        self.gave_up.lock().unwrap().clone()
    }
}

impl Run<Task> for Room {
    async fn run(&self, job: Task, at: &Attempt) -> Result<()> {
        let _ = self.ran.send((job.n, at.clone()));
        match job.act {
            Do::Succeed => Ok(()),
            Do::Fail => Err(Code::Unreachable.because("nobody is there")),
            Do::FailWithTheDisk => Err(Code::StorageUnavailable.because("the disk is away")),
            Do::FailForGood => Err(Code::BadImage.because("torn")),
            Do::Panic => panic!("deliberately"),
            Do::HangUntilCancelled => {
                at.cancelled().await;
                let at = at.clone();
                self.db.write(move |tx| at.complete(tx)).await
            }
            Do::Complete | Do::CompleteThenRollBack => {
                let at = at.clone();
                self.db
                    .write(move |tx| {
                        tx.execute("INSERT INTO job (kind, queue, args, state, run_at, created_at) VALUES ('effect', 'none', '0', 'available', 0, 0)", [])?;
                        at.complete(tx)?;
                        if job.act == Do::Complete { Ok(()) } else { Err(Code::Busy.into()) }
                    })
                    .await
            }
            Do::Report => {
                for percent in [30, 60, 40] {
                    at.progress(percent);
                }
                let id = at.id();
                while self.db.read(move |c| store::get(c, id)).await?.map(|j| j.percent) != Some(60) {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        }
    }

    async fn gave_up(&self, job: Task, error: &Error) {
        self.gave_up.lock().unwrap().push((job.n, error.code));
        assert!(!self.panics_when_told.load(Ordering::SeqCst), "deliberately");
    }
}

async fn owe(db: &Db, jobs: &Jobs, n: u32, act: Do) -> JobId {
    let jobs = jobs.clone();
    db.write(move |tx| jobs.enqueue(tx, &Task { n, act }, Enqueue::default())).await.unwrap()
}

async fn state(db: &Db, id: JobId) -> Option<State> {
    db.read(move |c| store::get(c, id)).await.unwrap().map(|job| job.state)
}

/// Reads until the job stands so.
async fn until(db: &Db, id: JobId, wanted: Option<State>) {
    let reached = async {
        while state(db, id).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap();
}

async fn count(db: &Db, kind: &'static str) -> i64 {
    db.read(move |c| Ok(c.query_row("SELECT count(*) FROM job WHERE kind = ?1", [kind], |r| r.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn what_succeeds_leaves_no_row_and_runs_once() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(Arc::clone(&room));
    let id = owe(&db, &jobs, 7, Do::Succeed).await;
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
    let (n, at) = seen.recv().await.unwrap();
    assert_eq!((n, at.id(), at.number(), at.last_attempt()), (7, id, 1, false));
    assert_eq!(state(&db, id).await, None);
    assert!(!jobs.0.is_under_way(id));
}

#[tokio::test]
async fn a_job_owed_for_a_fact_rolled_back_is_not_owed() {
    let db = db();
    let jobs = jobs(&db);
    let owing = jobs.clone();
    let failed = db.write(move |tx| {
        owing.enqueue(tx, &Task { n: 1, act: Do::Succeed }, Enqueue::default())?;
        Err::<(), _>(Code::Conflict.into())
    });
    failed.await.unwrap_err();
    assert_eq!(count(&db, "test.task").await, 0);
}

#[tokio::test]
async fn effect_and_completion_are_one() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    let before = db.stats().batches;
    let good = owe(&db, &jobs, 1, Do::Complete).await;
    jobs.run_due_until_quiet().await.unwrap();
    // Owe, claim, effect with completion, and two looks that find nothing.
    assert_eq!(db.stats().batches - before, 5);
    assert_eq!((state(&db, good).await, count(&db, "effect").await), (None, 1));
    let bad = owe(&db, &jobs, 2, Do::CompleteThenRollBack).await;
    jobs.run_due_until_quiet().await.unwrap();
    assert_eq!((state(&db, bad).await, count(&db, "effect").await), (Some(State::Scheduled), 1));
}

#[tokio::test]
async fn failures_are_repeated_after_growing_waits_and_then_given_up() {
    let db = db();
    for (act, code) in [(Do::Fail, Code::Unreachable), (Do::Panic, Code::Internal)] {
        let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
        jobs.register::<Task>(Arc::clone(&room));
        let id = owe(&db, &jobs, 1, act.clone()).await;
        for (attempt, wait_ms) in [(1, 5000), (2, 10_000)] {
            assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1, "{act:?}");
            assert_eq!(seen.recv().await.unwrap().1.number(), attempt);
            assert_eq!(state(&db, id).await, Some(State::Scheduled));
            db.clock().advance(Duration::from_millis(wait_ms * 9 / 10 - 1));
            assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 0);
            db.clock().advance(Duration::from_millis(wait_ms / 5 + 1));
        }
        assert!(room.given_up().is_empty());
        assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
        assert!(seen.recv().await.unwrap().1.last_attempt());
        assert_eq!(room.given_up(), [(1, code)], "{act:?}");
        let job = db.read(move |c| Ok(store::get(c, id)?.unwrap())).await.unwrap();
        assert_eq!((job.state, job.attempt), (State::Discarded, 3));
        assert!(job.error.unwrap().starts_with(code.wire()));
    }
}

#[tokio::test]
async fn nothing_is_given_up_while_the_storage_is_away() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(Arc::clone(&room));
    let id = owe(&db, &jobs, 1, Do::FailWithTheDisk).await;
    for attempt in [1, 2, 3, 3, 3] {
        assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
        assert_eq!(seen.recv().await.unwrap().1.number(), attempt);
        assert_eq!(state(&db, id).await, Some(State::Scheduled));
        db.clock().advance(Duration::from_mins(2));
    }
    assert!(room.given_up().is_empty());
    let job = db.read(move |c| Ok(store::get(c, id)?.unwrap())).await.unwrap();
    assert!(job.error.unwrap().starts_with(Code::StorageUnavailable.wire()));
}

#[tokio::test]
async fn what_takes_too_long_is_ended_repeated_and_given_up() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Stuck>(Arc::clone(&room));
    let owing = jobs.clone();
    let id = db.write(move |tx| owing.enqueue(tx, &Stuck, Enqueue::default())).await.unwrap();
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
    assert_eq!((state(&db, id).await, room.given_up()), (Some(State::Scheduled), vec![]));
    db.clock().advance(NEVER);
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
    assert_eq!((state(&db, id).await, room.given_up()), (Some(State::Discarded), vec![(0, Code::Busy)]));
    for number in 1..=2 {
        assert_eq!(seen.recv().await.unwrap().1.number(), number);
    }
}

#[tokio::test]
async fn a_runner_may_choose_the_wait() {
    let db = db();
    let jobs = jobs(&db);
    struct Patient;
    impl Run<Task> for Patient {
        async fn run(&self, _: Task, at: &Attempt) -> Result<()> {
            at.retry_in(Duration::from_mins(10));
            Err(Code::Busy.into())
        }
    }
    jobs.register::<Task>(Arc::new(Patient));
    let id = owe(&db, &jobs, 1, Do::Fail).await;
    jobs.run_due_until_quiet().await.unwrap();
    assert_eq!(db.read(move |c| Ok(store::get(c, id)?.unwrap().run_at)).await.unwrap(), Instant(1_600_000));
}

#[tokio::test]
async fn a_permanent_error_is_given_up_at_once_and_can_be_tried_again_by_hand() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    room.panics_when_told.store(true, Ordering::SeqCst);
    jobs.register::<Task>(Arc::clone(&room));
    let id = owe(&db, &jobs, 1, Do::FailForGood).await;
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
    assert_eq!((state(&db, id).await, room.given_up()), (Some(State::Discarded), vec![(1, Code::BadImage)]));
    let again = jobs.clone();
    assert!(db.write(move |tx| again.retry(tx, id)).await.unwrap());
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 1);
    assert_eq!(room.given_up().len(), 2);
}

#[tokio::test]
async fn arguments_that_do_not_parse_are_discarded_and_an_unknown_kind_waits() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(Arc::clone(&room));
    let ids = db.write(|tx| {
        let new = |kind, args: &str| store::New {
            kind,
            queue: BENCH,
            args: args.to_owned(),
            priority: 0,
            run_at: tx.now(),
            unique_key: None,
        };
        Ok([
            store::enqueue(tx, &new("test.task", "{\"n\":\"x\"}"))?,
            store::enqueue(tx, &new("from.the.future", "{}"))?,
        ])
    });
    let [garbled, unknown] = ids.await.unwrap();
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 2);
    assert_eq!(state(&db, garbled).await, Some(State::Discarded));
    assert_eq!(state(&db, unknown).await, Some(State::Scheduled));
}

#[tokio::test]
async fn cancelled_while_waiting_is_never_run() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    let id = owe(&db, &jobs, 1, Do::Succeed).await;
    let cancelling = jobs.clone();
    assert!(db.write(move |tx| cancelling.cancel(tx, id)).await.unwrap());
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 0);
    assert_eq!(state(&db, id).await, Some(State::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_running_is_told_and_has_no_effect() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(Arc::clone(&room));
    jobs.start(&[(BENCH, 1)]).await.unwrap();
    let id = owe(&db, &jobs, 1, Do::HangUntilCancelled).await;
    let (_, at) = seen.recv().await.unwrap();
    assert!(!at.is_cancelled());
    let cancelling = jobs.clone();
    assert!(db.write(move |tx| cancelling.cancel(tx, id)).await.unwrap());
    at.cancelled().await;
    // The slot is free again, and the runner's late completion was refused.
    let next = owe(&db, &jobs, 2, Do::Succeed).await;
    until(&db, next, None).await;
    assert_eq!(state(&db, id).await, Some(State::Cancelled));
    assert!(room.given_up().is_empty());
    jobs.stop(NEVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_written_down_and_does_not_go_back() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    let id = owe(&db, &jobs, 1, Do::Report).await;
    jobs.run_due_until_quiet().await.unwrap();
    assert_eq!(state(&db, id).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_and_one_taken_over_ends_the_attempt() {
    let db = db();
    let times = Config { tick: Duration::from_millis(2), beat: Duration::from_millis(2), ..Config::default() };
    let jobs = Jobs::new(db.clone(), times);
    let (room, mut seen) = Room::new(&db);
    jobs.register::<Task>(room);
    jobs.start(&[(BENCH, 1)]).await.unwrap();
    let id = owe(&db, &jobs, 1, Do::HangUntilCancelled).await;
    let (_, at) = seen.recv().await.unwrap();
    db.clock().advance(Duration::from_secs(1000));
    let lease = async || {
        db.read(
            move |c| Ok(c.query_row("SELECT lease_until FROM job WHERE id = ?1", [id], |r| r.get::<_, Instant>(0))?),
        )
        .await
        .unwrap()
    };
    while lease().await != Instant(2_060_000) {
        tokio::task::yield_now().await;
    }
    // However dead a lease looks after a jump, what is under way here is not rescued.
    db.clock().advance(NEVER);
    jobs.0.tend_once().await.unwrap();
    assert_eq!(state(&db, id).await, Some(State::Running));
    db.write(move |tx| Ok(tx.execute("UPDATE job SET attempt = 9 WHERE id = ?1", [id])?)).await.unwrap();
    at.cancelled().await;
    jobs.stop(NEVER).await;
}

/// Works until it is let go.
struct Long {
    go: Semaphore,
    begun: mpsc::UnboundedSender<u32>,
}

#[derive(Serialize, Deserialize)]
struct Encode;

impl Job for Encode {
    const KIND: &'static str = "test.encode";
    const QUEUE: Queue = BENCH;
    const MAX_ATTEMPTS: u32 = 3;
    const TIMEOUT: Duration = NEVER;
}

impl Run<Encode> for Long {
    async fn run(&self, _: Encode, at: &Attempt) -> Result<()> {
        let _ = self.begun.send(at.number());
        drop(self.go.acquire().await);
        Ok(())
    }
}

/// A job under way in a slot, what lets it go, and a job that waits behind it.
async fn one_under_way(db: &Db) -> (Jobs, Arc<Long>, JobId, JobId) {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let long = Arc::new(Long { go: Semaphore::new(0), begun });
    let jobs = jobs(db);
    jobs.register::<Encode>(Arc::clone(&long));
    jobs.start(&[(BENCH, 1)]).await.unwrap();
    let owing = jobs.clone();
    let [first, second] = db
        .write(move |tx| {
            let owe = || owing.enqueue(tx, &Encode, Enqueue::default());
            Ok([owe()?, owe()?])
        })
        .await
        .unwrap();
    assert_eq!(begins.recv().await, Some(1));
    (jobs, long, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_lets_work_under_way_end_and_begins_nothing() {
    let db = db();
    let (jobs, long, first, second) = one_under_way(&db).await;
    let stopping = jobs.clone();
    let stop = tokio::spawn(async move { stopping.stop(NEVER).await });
    let mut phase = jobs.0.phase.subscribe();
    phase.wait_for(|p| *p == Phase::Draining).await.unwrap();
    assert!(still_runs(&stop).await, "stopped while a job was under way");
    long.go.add_permits(2);
    stop.await.unwrap();
    assert_eq!((state(&db, first).await, state(&db, second).await), (None, Some(State::Available)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_hands_back_what_does_not_end_without_counting_the_attempt() {
    let db = db();
    let (jobs, _long, first, _) = one_under_way(&db).await;
    jobs.stop(Duration::ZERO).await;
    let job = db.read(move |c| Ok(store::get(c, first)?.unwrap())).await.unwrap();
    assert_eq!((job.state, job.attempt), (State::Available, 0));
    assert!(jobs.0.under_way().is_empty());
}

/// Whether a task has not ended yet, after it had every chance to.
async fn still_runs(task: &JoinHandle<()>) -> bool {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    !task.is_finished()
}

#[test]
fn what_a_crash_left_running_runs_again_and_a_job_that_kills_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let clock = Clock::by_hand(Instant(1_000_000));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let open = || Db::open(&path, SCHEMA, clock.clone(), &crate::infra::db::Config::default()).unwrap();
    let mut id = None;
    for attempt in 1..=3 {
        let life = runtime();
        let db = life.block_on(async {
            let db = open();
            let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
            jobs.register::<Task>(room);
            jobs.start(&[(BENCH, 1)]).await.unwrap();
            if id.is_none() {
                id = Some(owe(&db, &jobs, 1, Do::HangUntilCancelled).await);
            }
            assert_eq!(seen.recv().await.unwrap().1.number(), attempt);
            db
        });
        // Everything is dropped where it stands, nothing is told to stop.
        drop(life);
        drop(db);
    }
    runtime().block_on(async {
        let db = open();
        let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
        jobs.register::<Task>(Arc::clone(&room));
        jobs.start(&[(BENCH, 1)]).await.unwrap();
        until(&db, id.unwrap(), Some(State::Discarded)).await;
        assert_eq!(room.given_up(), [(1, Code::Internal)]);
        assert!(seen.try_recv().is_err(), "not run a fourth time");
        jobs.stop(NEVER).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_claimers_never_get_the_same_job() {
    let db = db();
    let jobs = jobs(&db);
    struct Count(Mutex<HashMap<u32, u32>>, AtomicU32);
    impl Run<Task> for Count {
        async fn run(&self, job: Task, at: &Attempt) -> Result<()> {
            assert_eq!(at.number(), 1);
            *self.0.lock().unwrap().entry(job.n).or_default() += 1;
            tokio::task::yield_now().await;
            self.1.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }
    let room = Arc::new(Count(Mutex::default(), AtomicU32::new(0)));
    jobs.register::<Task>(Arc::clone(&room));
    jobs.start(&[(BENCH, 16)]).await.unwrap();
    for batch in 0..20 {
        let owing = jobs.clone();
        db.write(move |tx| {
            (0..25).try_for_each(|i| {
                owing.enqueue(tx, &Task { n: batch * 25 + i, act: Do::Succeed }, Enqueue::default()).map(drop)
            })
        })
        .await
        .unwrap();
    }
    while room.1.load(Ordering::SeqCst) < 500 {
        tokio::task::yield_now().await;
    }
    jobs.stop(NEVER).await;
    let ran = room.0.lock().unwrap();
    assert_eq!((ran.len(), ran.values().copied().max()), (500, Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    // The idle sleep is half a minute: a lost wake-up shows as a timeout.
    jobs.start(&[(BENCH, 2)]).await.unwrap();
    for n in 0..1000 {
        let owing = jobs.clone();
        db.write_relaxed(move |tx| owing.enqueue(tx, &Task { n, act: Do::Succeed }, Enqueue::default())).await.unwrap();
        let (ran, _) = tokio::time::timeout(SOON, seen.recv()).await.expect("slept through it").unwrap();
        assert_eq!(ran, n);
    }
    jobs.stop(NEVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_at_work_takes_no_wake_up_from_an_idle_one() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    jobs.start(&[(BENCH, 11)]).await.unwrap();
    let mut at_work = Vec::new();
    for n in 0..30 {
        // Of three jobs one takes long; there is always a slot for the next.
        let act = if n % 3 == 0 { Do::HangUntilCancelled } else { Do::Succeed };
        let id = owe(&db, &jobs, n, act.clone()).await;
        let (ran, _) = tokio::time::timeout(SOON, seen.recv()).await.expect("slept through it").unwrap();
        assert_eq!(ran, n);
        if act == Do::HangUntilCancelled {
            at_work.push(id);
        } else {
            until(&db, id, None).await;
        }
        // The others have time to fall asleep.
        for _ in 0..20 {
            db.write_relaxed(|_| Ok(())).await.unwrap();
        }
    }
    for id in at_work {
        let cancelling = jobs.clone();
        db.write(move |tx| cancelling.cancel(tx, id)).await.unwrap();
    }
    jobs.stop(NEVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_later_runs_when_its_time_comes() {
    let db = Db::temporary(SCHEMA, Clock::system()).unwrap();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    jobs.start(&[(BENCH, 1)]).await.unwrap();
    let at = db.clock().now().plus(Duration::from_millis(60));
    let owing = jobs.clone();
    let later = Enqueue { run_at: Some(at), ..Enqueue::default() };
    db.write(move |tx| owing.enqueue(tx, &Task { n: 1, act: Do::Succeed }, later)).await.unwrap();
    tokio::time::timeout(SOON, seen.recv()).await.expect("slept through it").unwrap();
    assert!(db.clock().now() >= at);
    jobs.stop(NEVER).await;
}

#[tokio::test]
async fn a_paused_queue_waits_and_the_others_do_not() {
    let db = db();
    let (jobs, (room, mut seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    let pressure = Arc::new(AtomicUsize::new(1));
    let asked = Arc::clone(&pressure);
    jobs.pause(BENCH, move || asked.load(Ordering::SeqCst) > 0);
    owe(&db, &jobs, 1, Do::Succeed).await;
    assert_eq!(jobs.run_due_until_quiet().await.unwrap(), 0);
    jobs.start(&[(BENCH, 1)]).await.unwrap();
    pressure.store(0, Ordering::SeqCst);
    tokio::time::timeout(SOON, seen.recv()).await.expect("never resumed").unwrap();
    jobs.stop(NEVER).await;
}

#[tokio::test]
async fn a_kind_without_a_slot_is_refused_at_the_start() {
    let db = db();
    let (jobs, (room, _seen)) = (jobs(&db), Room::new(&db));
    jobs.register::<Task>(room);
    let refused = jobs.start(&[(Queue("net"), 1), (BENCH, 0)]).await.unwrap_err();
    assert!(refused.detail.contains("test.task") && refused.detail.contains("bench"), "{refused}");
}
