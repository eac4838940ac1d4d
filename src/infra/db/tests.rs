//! The database as rooms use it: what is promised of writes, of a disk that fails, of a kill.

use std::io::BufRead;
use std::io::Write;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::infra::db::flushes::Flushes;
use crate::support::clock::Instant;

const SCHEMA: &str = "CREATE TABLE hat (id INTEGER PRIMARY KEY, owner TEXT NOT NULL UNIQUE, at INTEGER);";

/// Tells a copy of this program that it is the one to be killed.
const VICTIM: &str = "the-victim";

fn db() -> Db {
    Db::temporary(SCHEMA, Clock::by_hand(Instant(1000))).unwrap()
}

fn count(c: &Conn) -> Result<i64> {
    Ok(c.query_row("SELECT count(*) FROM hat", [], |r| r.get(0))?)
}

fn hang(tx: &Tx, owner: &str) -> Result<()> {
    tx.prepare_cached("INSERT INTO hat (owner, at) VALUES (?1, ?2)")?.execute((owner, tx.now()))?;
    Ok(())
}

/// Keeps the writer busy until the returned sender is used, so that what comes queues up.
async fn occupy(db: &Db) -> std::sync::mpsc::Sender<()> {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begun, running) = oneshot::channel();
    let held = db.clone();
    tokio::spawn(async move {
        held.write(move |_| {
            let _ = begun.send(());
            let _ = wait.recv();
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    go
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_are_all_there_in_fewer_commits() {
    let db = db();
    let mut writes = JoinSet::new();
    let go = occupy(&db).await;
    for i in 0..500 {
        let db = db.clone();
        writes.spawn(async move { db.write(move |tx| hang(tx, &i.to_string())).await });
    }
    go.send(()).unwrap();
    while let Some(done) = writes.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(db.read(count).await.unwrap(), 500);
    let stats = db.stats();
    assert_eq!((stats.writes, stats.failed_commits), (501, 0));
    assert!(stats.batches < 250 && stats.largest_batch <= 65 && stats.largest_batch > 1, "{stats:?}");
}

#[tokio::test]
async fn a_closure_that_fails_or_panics_takes_back_only_its_own() {
    let db = db();
    let go = occupy(&db).await;
    let good = |owner: &'static str| db.write(move |tx| hang(tx, owner));
    let fails = db.write(|tx| {
        hang(tx, "half")?;
        Err::<(), _>(Code::Conflict.because("no"))
    });
    let twice = db.write(|tx| hang(tx, "ada"));
    let panics = db.write(|tx| {
        hang(tx, "other half")?;
        assert!(tx.now().0 < 0, "deliberately");
        Ok(())
    });
    let (ada, fails, twice, panics, bob, ()) =
        tokio::join!(good("ada"), fails, twice, panics, good("bob"), async move { go.send(()).unwrap() });
    ada.unwrap();
    assert_eq!(fails.unwrap_err().code, Code::Conflict);
    assert!(twice.is_err());
    assert_eq!(panics.unwrap_err().code, Code::Internal);
    bob.unwrap();
    assert_eq!(db.stats().batches, 2);
    let owners = db.read(|c| {
        let mut rows = c.prepare("SELECT owner FROM hat ORDER BY owner")?;
        Ok(rows.query_map([], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?)
    });
    assert_eq!(owners.await.unwrap(), ["ada", "bob"]);
    good("eve").await.unwrap();
}

#[tokio::test]
async fn a_transaction_ended_beneath_its_neighbours_fails_them_and_spares_the_next() {
    let db = db();
    let go = occupy(&db).await;
    let before = db.write(|tx| hang(tx, "before"));
    let ends = db.write(|tx| Ok(tx.execute_batch("ROLLBACK")?));
    let after = db.write(|tx| hang(tx, "after"));
    let (b, e, a, ()) = tokio::join!(before, ends, after, async move { go.send(()).unwrap() });
    assert_eq!(b.unwrap_err().code, Code::Busy);
    assert_eq!(e.unwrap_err().code, Code::Busy);
    a.unwrap();
    assert_eq!(db.read(count).await.unwrap(), 1);
    assert_eq!(db.stats().failed_commits, 1);
}

#[tokio::test]
async fn a_full_disk_fails_who_did_not_fit_and_nobody_is_lied_to() {
    let db = db();
    let pages = |tx: &Tx, more: i64| -> Result<()> {
        let now: i64 = tx.query_row("PRAGMA page_count", [], |r| r.get(0))?;
        tx.query_row(&format!("PRAGMA max_page_count = {}", now + more), [], |_| Ok(()))?;
        Ok(())
    };
    db.write(move |tx| pages(tx, 2)).await.unwrap();
    let go = occupy(&db).await;
    let large = db.write(|tx| hang(tx, &"x".repeat(1_000_000)));
    let (ada, large, bob, ()) =
        tokio::join!(db.write(|tx| hang(tx, "ada")), large, db.write(|tx| hang(tx, "bob")), async move {
            go.send(()).unwrap();
        });
    assert_eq!(large.unwrap_err().code, Code::DiskFull);
    let acknowledged = i64::from(ada.is_ok()) + i64::from(bob.is_ok());
    assert_eq!(db.read(count).await.unwrap(), acknowledged);
    db.write(move |tx| pages(tx, 1000)).await.unwrap();
    db.write(|tx| hang(tx, &"x".repeat(1_000_000))).await.unwrap();
    assert_eq!(db.read(count).await.unwrap(), acknowledged + 1);
}

/// The database of a folder in which flushes are watched, with one row.
async fn on_a_disk_that_fails() -> (TempDir, PathBuf, Flushes, Db) {
    let dir = tempfile::tempdir().unwrap();
    let (path, flushes) = (dir.path().join("t.db"), Flushes::watch(dir.path()));
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    db.write(|tx| hang(tx, "before")).await.unwrap();
    (dir, path, flushes, db)
}

fn owners(c: &Conn) -> Result<Vec<String>> {
    let mut rows = c.prepare("SELECT owner FROM hat ORDER BY owner")?;
    Ok(rows.query_map([], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?)
}

#[tokio::test]
async fn after_a_flush_that_failed_nothing_is_written_and_a_restart_reads_what_is_whole() {
    for reached_the_disk in [true, false] {
        let (_dir, path, flushes, db) = on_a_disk_that_fails().await;
        db.write_relaxed(|tx| hang(tx, "lease")).await.unwrap();
        let before = wal_bytes(&path);
        flushes.fail();
        let error = db.write(|tx| hang(tx, "upload")).await.unwrap_err();
        assert!(error.code == Code::StorageUnavailable && is_in_doubt(&error), "{error}");
        assert!(db.is_degraded());
        assert_eq!(db.stats().failed_commits, 1);

        let flushed = flushes.count();
        for _ in 0..3 {
            let late = db.write(|tx| hang(tx, "late")).await.unwrap_err();
            assert!(late.code == Code::StorageUnavailable && !is_in_doubt(&late), "{late}");
        }
        assert_eq!(db.write_relaxed(|tx| hang(tx, "late")).await.unwrap_err().code, Code::StorageUnavailable);
        assert_eq!(db.ping_write().await.unwrap_err().code, Code::StorageUnavailable);
        assert_eq!(db.optimize().await.unwrap_err().code, Code::StorageUnavailable);
        assert_eq!(db.read(owners).await.unwrap(), ["before", "lease"]);
        assert_eq!(db.close().await.unwrap_err().code, Code::StorageUnavailable);
        drop(db);
        assert_eq!(flushes.count(), flushed, "what may be gone was flushed again");

        if !reached_the_disk {
            std::fs::File::options().write(true).open(pool::log_of(&path)).unwrap().set_len(before).unwrap();
        }
        let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
        assert_eq!(wal_bytes(&path), 0, "the log is brought home before anything is written behind it");
        assert!(!db.is_degraded());
        db.write(|tx| hang(tx, "later")).await.unwrap();
        let expected: &[&str] =
            if reached_the_disk { &["before", "later", "lease", "upload"] } else { &["before", "later", "lease"] };
        assert_eq!(db.read(owners).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_flush_that_fails_while_the_log_is_emptied_is_not_passed_over() {
    let (_dir, path, flushes, db) = on_a_disk_that_fails().await;
    flushes.fail();
    // Longer than the log may be, and committed without a flush: the one that fails is of the emptying.
    db.write_relaxed(|tx| hang(tx, &"x".repeat(5000 * 8192))).await.unwrap();
    assert_eq!(db.write(|tx| hang(tx, "late")).await.unwrap_err().code, Code::StorageUnavailable);
    assert!(db.is_degraded());
    drop(db);
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    assert_eq!(db.read(count).await.unwrap(), 2, "it was whole in the log");
}

#[tokio::test]
async fn the_log_of_a_running_server_is_no_sign_of_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    db.write(|tx| hang(tx, "server")).await.unwrap();
    let log_bytes = db.stats().wal_bytes;
    let beside = Db::open_beside(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    assert_eq!(beside.read(count).await.unwrap(), 1);
    assert!(log_bytes > 0 && db.stats().wal_bytes == log_bytes, "it is left alone");
    beside.write(|tx| hang(tx, "command")).await.unwrap();
    assert_eq!(db.read(count).await.unwrap(), 2);
}

#[tokio::test]
async fn a_long_log_is_emptied_and_begun_anew() {
    let db = db();
    for i in 0..3 {
        db.write(move |tx| hang(tx, &format!("{i}{}", "x".repeat(5000 * 8192)))).await.unwrap();
    }
    assert!(db.stats().wal_bytes < 2 * 5100 * 8192, "{:?}", db.stats());
}

#[tokio::test]
async fn what_follows_a_commit_follows_only_a_commit() {
    let db = db();
    let done = Arc::new(AtomicUsize::new(0));
    let told = Arc::new(Notify::new());
    let waiting = told.notified();
    let (ok, bad, tells) = (Arc::clone(&done), Arc::clone(&done), Arc::clone(&told));
    db.write(move |tx| {
        tx.after_commit(|| assert!(Instant(0).0 > 0, "deliberately"));
        tx.after_commit(move || ok.store(1, Ordering::SeqCst));
        Ok(())
    })
    .await
    .unwrap();
    let failed = db.write(move |tx| {
        tx.after_commit(move || bad.store(100, Ordering::SeqCst));
        Err::<(), _>(Code::Conflict.into())
    });
    failed.await.unwrap_err();
    db.write(move |tx| {
        tx.wake(&tells);
        Ok(())
    })
    .await
    .unwrap();
    waiting.await;
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reader_does_not_see_what_is_not_committed() {
    let db = db();
    let reader = db.clone();
    let seen = db.write(move |tx| {
        hang(tx, "ada")?;
        let outside = std::thread::scope(|s| s.spawn(|| reader.read_now(count)).join());
        Ok((count(tx)?, outside.map_err(|_| Code::Internal)??))
    });
    assert_eq!(seen.await.unwrap(), (1, 0));
    assert_eq!(db.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_reader_cannot_write_and_a_panic_in_it_hurts_nobody() {
    let db = db();
    let wrote = db.read(|c| Ok(c.execute("INSERT INTO hat (owner) VALUES ('x')", [])?));
    assert_eq!(wrote.await.unwrap_err().code, Code::StorageUnavailable);
    for _ in 0..8 {
        let panicked = db.read(|c| {
            assert!(c.is_autocommit() && count(c)? > 5, "deliberately");
            Ok(())
        });
        assert_eq!(panicked.await.unwrap_err().code, Code::Internal);
    }
    assert_eq!(db.read(count).await.unwrap(), 0);
}

#[tokio::test]
async fn relaxed_and_full_writes_mix() {
    let db = db();
    let level = |tx: &Tx| Ok(tx.pragma_query_value(None, "synchronous", |r| r.get::<_, i64>(0))?);
    assert_eq!(db.write_relaxed(level).await.unwrap(), 1);
    assert_eq!(db.write(level).await.unwrap(), 2);
    let go = occupy(&db).await;
    let (relaxed, full, ()) =
        tokio::join!(db.write_relaxed(level), db.write(level), async move { go.send(()).unwrap() });
    assert_eq!((relaxed.unwrap(), full.unwrap()), (2, 2));
}

#[tokio::test]
async fn a_ping_is_a_real_commit() {
    let db = db();
    let before = db.stats().wal_bytes;
    db.ping_write().await.unwrap();
    assert!(db.stats().wal_bytes > before);
    db.quick_check().await.unwrap();
}

#[tokio::test]
async fn statistics_are_refreshed_where_they_are_old() {
    let db = db();
    let rows = |tx: &Tx| {
        let stat = "SELECT CAST(stat AS INTEGER) FROM sqlite_stat1 WHERE tbl = 'hat'";
        Ok(tx.query_row(stat, [], |r| r.get::<_, i64>(0))?)
    };
    db.write_relaxed(|tx| hang(tx, "first")).await.unwrap();
    db.optimize().await.unwrap();
    assert_eq!(db.write(rows).await.unwrap(), 1);
    for i in 0..100 {
        db.write_relaxed(move |tx| hang(tx, &i.to_string())).await.unwrap();
    }
    assert_eq!(db.write(rows).await.unwrap(), 1);
    db.optimize().await.unwrap();
    assert_eq!(db.write(rows).await.unwrap(), 101);
}

#[tokio::test]
async fn a_check_ends_when_the_database_is_closed() {
    let db = db();
    for i in 0..500 {
        db.write_relaxed(move |tx| hang(tx, &format!("{i:0>60}"))).await.unwrap();
    }
    db.quick_check().await.unwrap();
    db.close().await.unwrap();
    assert_eq!(db.quick_check().await.unwrap_err().code, Code::Busy);
}

#[tokio::test]
async fn closing_serves_the_queue_then_refuses_and_leaves_a_clean_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    let go = occupy(&db).await;
    let (last, closed, ()) =
        tokio::join!(db.write(|tx| hang(tx, "last")), db.close(), async move { go.send(()).unwrap() });
    last.unwrap();
    closed.unwrap();
    assert_eq!(wal_bytes(&path), 0);
    assert_eq!(db.write(|tx| hang(tx, "late")).await.unwrap_err().code, Code::Busy);
    assert_eq!(db.close().await.unwrap_err().code, Code::Busy);
    assert_eq!(db.read(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_locked_database_delays_a_write_and_then_it_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    let other = pool::writer(&path, Sync::Full).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.write(|tx| hang(tx, "patient")).await }
    });
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn damage_after_a_crash_is_found_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    for i in 0..2000 {
        db.write_relaxed(move |tx| hang(tx, &format!("{i:0>60}"))).await.unwrap();
    }
    db.close().await.unwrap();
    let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
    db.ping_write().await.unwrap();
    // As after a crash, and then a page gone bad.
    let crashed = dir.path().join("crashed.db");
    std::fs::copy(dir.path().join("t.db-wal"), dir.path().join("crashed.db-wal")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * 8192..3 * 8192 + 64].fill(0x5a);
    std::fs::write(&crashed, bytes).unwrap();
    let Err(error) = Db::open(&crashed, SCHEMA, Clock::system(), &Config::default()) else {
        panic!("used a damaged database")
    };
    assert!(error.to_string().contains("damaged") || error.to_string().contains("malformed"), "{error}");
}

fn write_until_killed() {
    let mut path = String::new();
    std::io::stdin().lock().read_line(&mut path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let db = Db::open(Path::new(path.trim()), SCHEMA, Clock::system(), &Config::default()).unwrap();
        let mut writes = JoinSet::new();
        for lane in 0..8 {
            let db = db.clone();
            writes.spawn(async move {
                for i in 0.. {
                    db.write(move |tx| hang(tx, &format!("{lane}/{i}"))).await.unwrap();
                    writeln!(std::io::stderr().lock(), "ack {lane}/{i}").unwrap();
                }
            });
        }
        writes.join_next().await;
    });
}

/// Starts itself as the process to be killed: the extra word among its arguments says which it is.
#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    if std::env::args().any(|word| word == VICTIM) {
        return write_until_killed();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(kill_and_look());
}

async fn kill_and_look() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    for round in 1..=2 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "infra::db::tests::nothing_acknowledged_is_lost_to_a_kill", VICTIM, "--nocapture"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", path.display()).unwrap();
        let mut acks = Vec::new();
        let mut told = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while told.read_line(&mut line).unwrap() > 0 {
            // A line that the kill cut short acknowledges nothing.
            acks.extend(line.strip_prefix("ack ").and_then(|ack| ack.strip_suffix('\n')).map(str::to_owned));
            if acks.len() == 300 {
                child.kill().unwrap();
            }
            line.clear();
        }
        child.wait().unwrap();
        assert!(acks.len() >= 300, "the child stopped by itself");
        assert!(wal_bytes(&path) > 0, "the child ended cleanly");
        let db = Db::open(&path, SCHEMA, Clock::system(), &Config::default()).unwrap();
        for owner in acks {
            let asked = owner.clone();
            let found = db.read(move |c| {
                Ok(c.query_row("SELECT count(*) FROM hat WHERE owner = ?1", [&asked], |r| r.get::<_, i64>(0))?)
            });
            assert_eq!(found.await.unwrap(), 1, "round {round}: {owner} is lost");
        }
        db.write(|tx| Ok(tx.execute("DELETE FROM hat", [])?)).await.unwrap();
    }
}
