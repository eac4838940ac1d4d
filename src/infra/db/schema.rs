//! From whatever lies on disk to the schema of this program.
//!
//! In goes the path and the text of `schema.sql`; afterwards the file holds exactly that
//! schema, or nothing of it was touched. A fresh file gets `schema.sql` whole. An older file
//! climbs [`STEPS`], all in one transaction, after a copy of it was put beside it
//! (`cloakroom.db.before-3`). A newer file, or one that is not ours, is refused before a byte
//! is written: the older program would not know what it breaks.
//!
//! `PRAGMA user_version` is the number of the last step climbed (`FIRST` without any), and
//! `PRAGMA application_id` says that the file is ours.
//!
//! A step is `steps/NNNN_what.sql`, never edited after its release. Steps run with foreign
//! keys off, as rebuilding a table needs it, and are checked before the commit. `schema.sql`
//! and the sum of all steps must agree; a test compares them.

use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::error::Code;
use crate::error::Result;
use crate::infra::db::pool;

/// What has to be done to a file of version `to - 1`.
pub struct Step {
    pub to: i32,
    pub sql: &'static str,
}

/// All steps since the first release, in order.
pub const STEPS: &[Step] = &[];

/// The version of the first release.
const FIRST: i32 = 1;

/// `Clkr`: what `file(1)` and we know the file by.
const APPLICATION_ID: i32 = 0x436c_6b72;

/// The version that this program writes and reads.
pub fn current(steps: &[Step]) -> i32 {
    steps.last().map_or(FIRST, |step| step.to)
}

/// What lies at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Version(i32),
}

/// Looks at the file without changing it, and refuses what must not be opened.
pub(super) fn look(path: &Path, steps: &[Step]) -> Result<Found> {
    let empty = match std::fs::metadata(path) {
        Ok(meta) => meta.len() == 0,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(e.into()),
    };
    if empty {
        return Ok(Found::Nothing);
    }
    let conn = pool::look_only(path)?;
    let number = |pragma| conn.pragma_query_value(None, pragma, |r| r.get::<_, i32>(0));
    let (ours, version) = (number("application_id")?, number("user_version")?);
    // Between creating the file and its first commit, the file has a header and nothing else.
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if ours == 0 && version == 0 && tables == 0 {
        return Ok(Found::Nothing);
    }
    if ours != APPLICATION_ID {
        return Err(refused(path, "is a database of another program"));
    }
    let newest = current(steps);
    if version > newest {
        let sentence = format!("has version {version}, this program knows {newest}; install the newer program again");
        return Err(refused(path, &sentence));
    }
    if version < FIRST {
        return Err(refused(path, &format!("has version {version}, which never existed")));
    }
    Ok(Found::Version(version))
}

/// Brings the writer's file to the current version.
pub(super) fn settle(conn: &Connection, path: &Path, found: Found, sql: &str, steps: &[Step]) -> Result<()> {
    let newest = current(steps);
    match found {
        Found::Nothing => in_one(conn, newest, |c| Ok(c.execute_batch(sql)?))?,
        Found::Version(at) if at == newest => return Ok(()),
        Found::Version(at) => {
            let kept = copy_before(path, newest);
            pool::copy(conn, &kept)?;
            tracing::info!(from = at, to = newest, kept = %kept.display(), "the database climbs to a newer version");
            conn.pragma_update(None, "foreign_keys", false)?;
            let climbed = in_one(conn, newest, |c| climb(c, at, steps));
            conn.pragma_update(None, "foreign_keys", true)?;
            climbed?;
        }
    }
    pool::sync_parent(path)
}

/// Where the copy of the database from before a climb to `version` lies.
fn copy_before(path: &Path, version: i32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".before-{version}"));
    PathBuf::from(name)
}

fn climb(conn: &Connection, from: i32, steps: &[Step]) -> Result<()> {
    for step in steps.iter().filter(|step| step.to > from) {
        conn.execute_batch(step.sql).map_err(|e| Code::Internal.from(format!("climbing to version {}", step.to), e))?;
    }
    let broken: i64 = conn.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0))?;
    if broken > 0 {
        return Err(Code::Internal.because(format!("{broken} rows would point nowhere after the climb")));
    }
    Ok(())
}

fn in_one(conn: &Connection, version: i32, work: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let done = work(conn).and_then(|()| {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.pragma_update(None, "user_version", version)?;
        Ok(conn.execute_batch("COMMIT")?)
    });
    if done.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    done
}

fn refused(path: &Path, why: &str) -> crate::error::Error {
    Code::StorageUnavailable.because(format!("{} {why}; nothing was changed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::db::pool::Sync;

    const V1: &str = "CREATE TABLE hat (id INTEGER PRIMARY KEY, owner TEXT NOT NULL);";
    const V3: &str = "CREATE TABLE hat (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, hook INTEGER REFERENCES hook(id));
                      CREATE TABLE hook (id INTEGER PRIMARY KEY);";
    const TWO: Step = Step { to: 2, sql: "CREATE TABLE hook (id INTEGER PRIMARY KEY);" };
    const THREE: Step = Step {
        to: 3,
        sql: "CREATE TABLE hat_new (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, hook INTEGER REFERENCES hook(id));
              INSERT INTO hat_new (id, owner) SELECT id, owner FROM hat;
              DROP TABLE hat;
              ALTER TABLE hat_new RENAME TO hat;",
    };

    fn open(path: &Path, sql: &str, steps: &[Step]) -> Result<Connection> {
        let found = look(path, steps)?;
        let conn = pool::writer(path, Sync::Full)?;
        settle(&conn, path, found, sql, steps)?;
        Ok(conn)
    }

    fn owners(conn: &Connection) -> Vec<String> {
        let mut rows = conn.prepare("SELECT owner FROM hat ORDER BY id").unwrap();
        rows.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn version(conn: &Connection) -> i32 {
        conn.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
    }

    #[test]
    fn a_fresh_file_gets_the_whole_schema_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = open(&path, V1, &[]).unwrap();
        conn.execute_batch("INSERT INTO hat (owner) VALUES ('ada')").unwrap();
        drop(conn);
        let conn = open(&path, V1, &[]).unwrap();
        assert_eq!((version(&conn), owners(&conn)), (1, vec!["ada".to_owned()]));
    }

    #[test]
    fn an_older_file_climbs_all_steps_and_a_copy_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = open(&path, V1, &[]).unwrap();
        conn.execute_batch("INSERT INTO hat (owner) VALUES ('ada')").unwrap();
        drop(conn);
        let conn = open(&path, V3, &[TWO, THREE]).unwrap();
        assert_eq!((version(&conn), owners(&conn)), (3, vec!["ada".to_owned()]));
        assert_eq!(conn.pragma_query_value(None, "foreign_keys", |r| r.get::<_, i64>(0)).unwrap(), 1);
        assert!(conn.execute_batch("INSERT INTO hat (owner, hook) VALUES ('bob', 9)").is_err());
        let before = open(&copy_before(&path, 3), V1, &[]).unwrap();
        assert_eq!((version(&before), owners(&before)), (1, vec!["ada".to_owned()]));
    }

    #[test]
    fn the_climb_and_the_whole_schema_end_at_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let climbed = dir.path().join("climbed.db");
        drop(open(&climbed, V1, &[]).unwrap());
        let climbed = open(&climbed, V3, &[TWO, THREE]).unwrap();
        let fresh = open(&dir.path().join("fresh.db"), V3, &[TWO, THREE]).unwrap();
        let columns = |c: &Connection| -> Vec<(String, String)> {
            let mut rows = c
                .prepare("SELECT s.name, i.name FROM sqlite_schema s, pragma_table_info(s.name) i ORDER BY 1, 2")
                .unwrap();
            rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(columns(&climbed), columns(&fresh));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let broken = [
            Step { to: 3, sql: "DROP TABLE hat; CREATE TABLE nonsense (" },
            Step { to: 3, sql: "CREATE TABLE rack (hook INTEGER REFERENCES hook(id)); INSERT INTO rack VALUES (7);" },
        ];
        for step in broken {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.db");
            let conn = open(&path, V1, &[]).unwrap();
            conn.execute_batch("INSERT INTO hat (owner) VALUES ('ada')").unwrap();
            drop(conn);
            assert!(open(&path, V3, &[TWO, step]).is_err());
            let conn = open(&path, V1, &[]).unwrap();
            assert_eq!((version(&conn), owners(&conn)), (1, vec!["ada".to_owned()]));
        }
    }

    #[test]
    fn a_newer_file_is_refused_and_not_a_byte_changes_even_with_an_open_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = open(&path, V3, &[TWO, THREE]).unwrap();
        conn.execute_batch("INSERT INTO hat (owner) VALUES ('ada')").unwrap();
        // As after a crash: the files without the process.
        let crashed = tempfile::tempdir().unwrap();
        for name in ["t.db", "t.db-wal"] {
            std::fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
        }
        let bytes = || ["t.db", "t.db-wal"].map(|name| std::fs::read(crashed.path().join(name)).unwrap());
        let before = bytes();
        assert!(!before[1].is_empty());
        let error = open(&crashed.path().join("t.db"), V1, &[TWO]).unwrap_err();
        assert!(error.detail.contains("version 3") && error.detail.contains("knows 2"), "{error}");
        assert_eq!(bytes(), before);
    }

    #[test]
    fn a_foreign_database_and_a_file_that_is_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("foreign.db");
        pool::writer(&foreign, Sync::Full).unwrap().execute_batch(V1).unwrap();
        assert!(open(&foreign, V1, &[]).unwrap_err().detail.contains("another program"));
        let text = dir.path().join("text.db");
        std::fs::write(&text, "not a database, but long enough to be looked at as one".repeat(100)).unwrap();
        assert!(open(&text, V1, &[]).is_err());
        assert!(std::fs::read_to_string(&text).unwrap().starts_with("not a database"));
    }

    #[test]
    fn a_file_cut_off_before_its_first_commit_is_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        drop(pool::writer(&path, Sync::Full).unwrap());
        let conn = open(&path, V1, &[]).unwrap();
        assert_eq!(version(&conn), 1);
    }

    #[test]
    fn steps_are_in_order() {
        for (step, to) in STEPS.iter().zip(FIRST + 1..) {
            assert_eq!(step.to, to);
        }
    }
}
