//! Connections: one writer, N query-only readers, their pragmas and why.
//!
//! Invariant: this is the only file that opens the database, so every connection has these
//! settings, and a second writing connection cannot come about by accident. SQLite below
//! 3.51.3 is refused: two connections that write or checkpoint at once could corrupt the WAL.
//!
//! - `synchronous=FULL`: with `NORMAL` a power cut loses commits that were acknowledged.
//! - `mmap_size=0`: a mapped page that rots or is cut off is a signal, not an error.
//! - `trusted_schema=OFF`, `cell_size_check=ON`: a database file from elsewhere is only data.
//! - `wal_autocheckpoint=0`: the writer empties the log itself, because SQLite forgets when that fails.
//! - readers are capped in SQL size, depth and, by the progress hook, in time: a search
//!   written by a guest cannot hold the log open.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use r2d2::Pool;
use r2d2::PooledConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::backup::Backup;
use rusqlite::backup::StepResult;
use rusqlite::limits::Limit;

use crate::error::Code;
use crate::error::Result;

/// The first SQLite without the WAL-reset corruption.
const OLDEST_SQLITE: i32 = 3_051_003;

/// How long another program that writes is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytecode steps between two looks at the deadline: well under a millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

pub(super) type Readers = Pool<SqliteConnectionManager>;
pub(super) type Reader = PooledConnection<SqliteConnectionManager>;

/// Refuses a SQLite that is known to corrupt databases.
pub(super) fn check_version(number: i32) -> Result<()> {
    if number >= OLDEST_SQLITE {
        return Ok(());
    }
    let (major, minor, patch) = (number / 1_000_000, number / 1000 % 1000, number % 1000);
    let sentence =
        format!("SQLite {major}.{minor}.{patch} can corrupt a database in WAL mode; 3.51.3 or later is needed");
    Err(Code::StorageUnavailable.because(sentence))
}

/// Opens the writing connection, making the file if there is none.
pub(super) fn writer(path: &Path, sync: Sync) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(PATIENCE)?;
    // The page size counts only before the first page is written.
    conn.execute_batch(
        "PRAGMA page_size=8192;
         PRAGMA journal_mode=WAL;
         PRAGMA mmap_size=0;
         PRAGMA foreign_keys=ON;
         PRAGMA trusted_schema=OFF;
         PRAGMA cell_size_check=ON;
         PRAGMA temp_store=MEMORY;
         PRAGMA wal_autocheckpoint=0;
         PRAGMA journal_size_limit=67108864;
         PRAGMA cache_size=-65536;
         PRAGMA analysis_limit=400;",
    )?;
    set_sync(&conn, sync)?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(conn)
}

/// Moves what a crash left in the log into the database, before anything is written behind it: the
/// disk may never have got what the system still has in memory, and takes for flushed.
pub(super) fn settle_log(conn: &Connection, path: &Path) -> Result<()> {
    // Whoever else is at it (a command beside a running server) is not waited for.
    conn.busy_timeout(Duration::ZERO)?;
    let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
    conn.busy_timeout(PATIENCE)?;
    if busy == 0 {
        std::fs::File::open(log_of(path))?.sync_all()?;
    }
    Ok(())
}

/// The write-ahead log of a database.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// The log is on disk: holds through a power cut.
    Full,
    /// The log is with the kernel: holds through a crash of the process.
    Normal,
}

pub(super) fn set_sync(conn: &Connection, sync: Sync) -> Result<()> {
    conn.execute_batch(match sync {
        Sync::Full => "PRAGMA synchronous=FULL",
        Sync::Normal => "PRAGMA synchronous=NORMAL",
    })?;
    Ok(())
}

/// Opens `count` connections that can only read.
pub(super) fn readers(path: &Path, count: u32) -> Result<Readers> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let manager = SqliteConnectionManager::file(path).with_flags(flags).with_init(|conn| {
        conn.busy_timeout(PATIENCE)?;
        conn.execute_batch(
            "PRAGMA query_only=ON;
             PRAGMA mmap_size=0;
             PRAGMA trusted_schema=OFF;
             PRAGMA cell_size_check=ON;
             PRAGMA temp_store=MEMORY;
             PRAGMA cache_size=-16384;",
        )?;
        conn.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 256 * 1024)?;
        conn.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 200)?;
        conn.set_limit(Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50)?;
        conn.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1024)?;
        conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        conn.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        conn.set_prepared_statement_cache_capacity(128);
        Ok(())
    });
    // Connections to a local file do not go stale: no checks, no replacing.
    Pool::builder()
        .max_size(count)
        .test_on_check_out(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_timeout(Duration::from_secs(10))
        .build(manager)
        .map_err(|e| Code::StorageUnavailable.from("opening the database for reading", e))
}

/// A reader out of the pool whose statements are interrupted `limit` from now.
pub(super) fn reader(readers: &Readers, limit: Duration) -> Result<Reader> {
    let conn = readers.get().map_err(|e| Code::Busy.from("waiting for a database reader", e))?;
    let since = std::time::Instant::now();
    interrupt_when(&conn, STEPS_PER_LOOK, move || since.elapsed() > limit)?;
    Ok(conn)
}

/// Opens an existing file read-only without changing a byte of it or of its log.
pub(super) fn look_only(path: &Path) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.busy_timeout(PATIENCE)?;
    Ok(conn)
}

/// Interrupts every statement of a connection once `over` says so, which is asked each so many steps.
pub(super) fn interrupt_when(conn: &Connection, steps: i32, over: impl FnMut() -> bool + Send + 'static) -> Result<()> {
    Ok(conn.progress_handler(steps, Some(over))?)
}

/// Copies the whole database into a new file, which appears complete and flushed or not at all.
///
/// The copy is one read transaction: writers go on, their commits are not in it.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target = Connection::open_with_flags(&partial, flags)?;
    let done = Backup::new(from, &mut target)?.step(-1)?;
    if !matches!(done, StepResult::Done) {
        return Err(Code::Busy.because("the database is locked by another program"));
    }
    target.close().map_err(|(_, e)| e)?;
    std::fs::File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, to)?;
    sync_parent(to)
}

/// Puts the names in a file's directory on disk.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_known_to_corrupt_is_refused() {
        for (number, good) in
            [(3_040_001, false), (3_051_002, false), (3_051_003, true), (3_053_002, true), (4_000_000, true)]
        {
            assert_eq!(check_version(number).is_ok(), good, "{number}");
        }
        check_version(rusqlite::version_number()).unwrap();
        assert!(check_version(3_040_001).unwrap_err().detail.contains("3.40.1"));
    }

    #[test]
    fn connections_have_the_promised_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let writer = writer(&path, Sync::Full).unwrap();
        let readers = readers(&path, 1).unwrap();
        let reader = reader(&readers, Duration::from_secs(5)).unwrap();
        let ask = |c: &Connection, pragma: &str| {
            c.pragma_query_value(None, pragma, |r| r.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        let text = |t: &str| rusqlite::types::Value::Text(t.to_owned());
        let number = rusqlite::types::Value::Integer;
        let table = [
            ("journal_mode", text("wal"), text("wal")),
            ("page_size", number(8192), number(8192)),
            ("foreign_keys", number(1), number(1)),
            ("trusted_schema", number(0), number(0)),
            ("cell_size_check", number(1), number(1)),
            ("query_only", number(0), number(1)),
            ("cache_size", number(-65536), number(-16384)),
            ("busy_timeout", number(20_000), number(20_000)),
        ];
        for (pragma, on_writer, on_reader) in table {
            assert_eq!(ask(&writer, pragma), on_writer, "{pragma} of the writer");
            assert_eq!(ask(&reader, pragma), on_reader, "{pragma} of a reader");
        }
        assert_eq!(ask(&writer, "synchronous"), number(2));
        set_sync(&writer, Sync::Normal).unwrap();
        assert_eq!(ask(&writer, "synchronous"), number(1));
        assert!(reader.execute_batch("CREATE TABLE t (a)").is_err());
    }

    #[test]
    fn a_read_without_end_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let _writer = writer(&path, Sync::Full).unwrap();
        let readers = readers(&path, 1).unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let conn = reader(&readers, Duration::from_millis(20)).unwrap();
        let error = crate::error::Error::from(conn.query_row(endless, [], |r| r.get::<_, i64>(0)).unwrap_err());
        assert_eq!(error.code, Code::Busy);
        drop(conn);
        let conn = reader(&readers, Duration::from_secs(5)).unwrap();
        assert_eq!(conn.query_row("SELECT 1", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
    }
}
