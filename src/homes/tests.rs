//! What holds wherever originals are kept; and what a bucket may do wrong.

use std::io::Read;
use std::io::Write;
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;

use super::*;
use crate::assets::store as asset_store;
use crate::homes::model::Copy;
use crate::infra::storage::OtherConfig;
use crate::infra::storage::bucket::Known;
use crate::infra::storage::bucket::Pace;
use crate::infra::storage::double::Double;
use crate::infra::storage::double::Manner;
use crate::support::checksum;
use crate::support::clock::Clock;
use crate::support::clock::Instant as At;
use crate::support::id;

const SCHEMA: &str = include_str!("../../schema.sql");
const BUCKET: &str = "things";

/// A place to keep originals in, without the rest of the house.
struct Bench {
    homes: Homes,
    db: Db,
    dir: TempDir,
}

fn config(backend: &str, endpoint: &str) -> Config {
    Config {
        backend: backend.to_owned(),
        endpoint: endpoint.to_owned(),
        bucket: if backend == "fs" && endpoint.is_empty() { String::new() } else { BUCKET.to_owned() },
        access_key: crate::support::secret::Secret::new("us"),
        secret_key: crate::support::secret::Secret::new("hush"),
        free_floor_bytes: 0,
        ..Config::default()
    }
}

/// Two buckets: one is s3, the other r2.
fn both(backend: &str, one: &Double, two: &Double) -> Config {
    Config {
        local_copies_bytes: 0,
        other: OtherConfig {
            backend: "r2".to_owned(),
            endpoint: two.endpoint.clone(),
            bucket: "elsewhere".to_owned(),
            access_key: crate::support::secret::Secret::new("us"),
            secret_key: crate::support::secret::Secret::new("hush"),
            ..OtherConfig::default()
        },
        ..config(backend, &one.endpoint)
    }
}

impl Bench {
    fn new(config: Config) -> Bench {
        Bench::by(config, Clock::system())
    }

    fn by(config: Config, clock: Clock) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::temporary(SCHEMA, clock).unwrap();
        let homes = Bench::open(config, &db, &dir);
        Bench { homes, db, dir }
    }

    fn open(config: Config, db: &Db, dir: &TempDir) -> Homes {
        let storage = Storage::open(dir.path(), &config, &[], &[place::ORIGINALS]).unwrap();
        Homes::new(config, db.clone(), Cpu::open(8), storage, Assets::new(db.clone())).unwrap()
    }

    /// The same box with another configuration.
    fn reopen(self, config: Config) -> Bench {
        let homes = Bench::open(config, &self.db, &self.dir);
        Bench { homes, ..self }
    }

    /// Takes bytes in, as an upload does.
    async fn keep(&self, bytes: &[u8]) -> AssetId {
        let id = AssetId::random().unwrap();
        let storage = &self.homes.0.storage;
        let name = place::original_name(id, 1);
        let mut file = storage.stage(&name).unwrap();
        file.write_all(bytes).unwrap();
        storage.flush(&file).unwrap();
        storage.commit(&name, &place::original(id, 1).unwrap()).unwrap();
        storage.unstage(&name);
        let sha256 = id::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        let asset = Asset {
            id,
            revision: 1,
            status: crate::assets::Status::Ok,
            name: "a.bin".to_owned(),
            size_bytes: bytes.len() as u64,
            md5: id::hex(&checksum::md5(bytes)),
            sha256,
            content_type: "application/octet-stream".to_owned(),
            public: false,
            on_demand: false,
            creator_id: 1,
            updater_id: 1,
            uploaded_at: At(0),
            updated_at: At(0),
            trashed_at: None,
            upload_source: None,
            home: Backend::Fs,
            bucket: String::new(),
            data_schema_id: 0,
            data: serde_json::Map::new(),
            facts: serde_json::Map::new(),
            errors: std::collections::BTreeMap::new(),
        };
        let homes = self.homes.clone();
        self.db
            .write(move |tx| {
                asset_store::insert(tx, &asset)?;
                homes.owe(tx, &asset)
            })
            .await
            .unwrap();
        id
    }

    /// Moves what is due, once; what went wrong.
    async fn drain(&self) -> Vec<String> {
        let due = |tx: &Tx| store::let_go(tx, false).and_then(|()| store::hasten(tx, false, 1000));
        self.db.write(due).await.unwrap();
        let mut wrong = Vec::new();
        while let Some(object) = self.db.write(|tx| store::claim(tx, false)).await.unwrap() {
            let moved = self.homes.relocate(&object, &Pace::default(), Copy::MayGo).await;
            wrong.extend(moved.as_ref().err().map(Error::to_string));
            self.homes.note(&object, Instant::now(), moved).await.unwrap();
        }
        self.homes.make_room(0).await;
        wrong
    }

    async fn read(&self, id: AssetId, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        match self.homes.open(id, 1).await?.0 {
            Source::Here(file) => {
                use std::os::unix::fs::FileExt;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes)
            }
            Source::Away(away) => {
                let (mut incoming, mut bytes) = (away.read(range), Vec::new());
                while let Some(more) = incoming.next().await? {
                    bytes.extend_from_slice(&more);
                }
                Ok(bytes)
            }
        }
    }

    async fn home(&self, id: AssetId) -> (Backend, String) {
        self.db.read(move |c| asset_store::find(c, id)).await.unwrap().map(|a| (a.home, a.bucket)).unwrap()
    }

    fn is_here(&self, id: AssetId) -> bool {
        self.homes.0.storage.holds(&place::original(id, 1).unwrap())
    }

    fn key(id: AssetId) -> String {
        format!("{BUCKET}/{}", place::original(id, 1).unwrap().as_str())
    }

    /// Compares the tally with what there is.
    async fn counts_are_right(&self) {
        let all = |sql: &'static str| {
            self.db.read(move |c| {
                let mut rows = c.prepare(sql)?;
                let read = |r: &rusqlite::Row<'_>| {
                    Ok(format!(
                        "{} {} {} {}: {} with {} bytes",
                        r.get::<_, String>(0)?,
                        r.get::<_, String>(1)?,
                        r.get::<_, String>(2)?,
                        r.get::<_, i64>(3)?,
                        r.get::<_, i64>(4)?,
                        r.get::<_, i64>(5)?
                    ))
                };
                Ok(rows.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?)
            })
        };
        let kept =
            all("SELECT * FROM object_tally WHERE objects <> 0 OR bytes <> 0 ORDER BY 1, 2, 3, 4").await.unwrap();
        let counted = all("SELECT home, bucket, iif(goal IS NULL, 'stays', iif(by_hand, 'by_hand', 'waits')), here, \
                    count(*), sum(size_bytes) FROM object GROUP BY 1, 2, 3, 4 \
             UNION ALL SELECT home, bucket, 'left', 0, count(*), 0 FROM leftover GROUP BY 1, 2 ORDER BY 1, 2, 3, 4");
        assert_eq!(kept, counted.await.unwrap());
    }

    fn staging_is_empty(&self) -> bool {
        self.homes.0.storage.staged().unwrap().is_empty()
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Moving everything.
fn plan(to: &str) -> Plan {
    Plan { to: to.to_owned(), keep_source: false, bytes_per_second: 0, patience: Duration::from_mins(1) }
}

/// What every home keeps to.
async fn conforms(config: Config) {
    let bench = Bench::new(config);
    let sizes = [1, 1000, 1 << 20, 8 << 20, (8 << 20) + 1, (16 << 20) + 12345];
    for size in sizes {
        let body = bytes(size);
        let id = bench.keep(&body).await;
        assert_eq!(bench.drain().await, Vec::<String>::new());
        let whole = 0..size as u64;
        assert!(bench.read(id, whole.clone()).await.unwrap() == body, "whole, {size}");
        let middle = size as u64 / 3..(size as u64 / 3 + 5000).min(size as u64);
        let wanted = &body[middle.start as usize..middle.end as usize];
        assert!(bench.read(id, middle).await.unwrap() == wanted, "a part of {size}");
        assert_eq!(bench.homes.open(id, 1).await.unwrap().1, size as u64);
        bench.counts_are_right().await;

        let pin = bench.homes.bring(id, 1).await.unwrap();
        let mut file = bench.homes.0.storage.open_file(&place::original(id, 1).unwrap()).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == body, "as a file, {size}");
        drop(pin);

        bench.homes.forget(id, 1).await.unwrap();
        assert_eq!(bench.homes.open(id, 1).await.err().unwrap().code, Code::ContentNotFound);
        assert!(!bench.is_here(id));
        bench.homes.forget(id, 1).await.unwrap();
        assert_eq!(
            bench.homes.bring(id, 1).await.err().map(|e| e.code),
            bench.homes.has_bucket().then_some(Code::ContentNotFound)
        );
    }
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert!(bench.staging_is_empty());
    assert_eq!(bench.homes.counts().await.unwrap().leftovers, 0);
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_disk_conforms() {
    conforms(config("fs", "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_conforms_with_copies_and_without() {
    for local_copies_bytes in [u64::MAX, 0] {
        let double = Double::start();
        conforms(Config { local_copies_bytes, ..config("s3", &double.endpoint) }).await;
        assert_eq!(double.names(), Vec::<String>::new(), "what is forgotten is removed");
    }
    let double = Double::start();
    conforms(Config { local_copies_bytes: 0, ..config("r2", &double.endpoint) }).await;
}

/// Against a server that is not ours, if one is named: packaging/test.sh does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_server_conforms() {
    #[expect(clippy::disallowed_methods, reason = "the one thing that this test is told")]
    if let Ok(endpoint) = std::env::var("CLOAKROOM_TEST_S3") {
        conforms(Config { local_copies_bytes: 0, ..config("s3", &endpoint) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_from_the_disk_before_the_bucket_has_it() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let small = bench.keep(b"x").await;
    double.behave(Manner::Silent);
    bench.drain().await;
    assert!(bench.is_here(small) && double.names().is_empty());
    double.behave(Manner::Well);
    bench.db.write(move |tx| store::forget(tx, small, 1)).await.unwrap();
    let body = bytes(9 << 20);
    let id = bench.keep(&body).await;
    for manner in [Manner::Forbids, Manner::Unavailable, Manner::Resets, Manner::Corrupts] {
        double.behave(manner);
        let wrong = bench.drain().await;
        assert_eq!(wrong.len(), 1, "{manner:?}: {wrong:?}");
        assert!(!wrong[0].contains("hush"), "{wrong:?}");
        assert!(bench.is_here(id), "{manner:?}");
        assert_eq!(bench.home(id).await, (Backend::Fs, String::new()), "{manner:?}");
        let counts = bench.homes.counts().await.unwrap();
        assert_eq!((counts.waiting, counts.waiting_bytes), (1, body.len() as u64));
        assert!(counts.last_error.is_some());
    }
    double.behave(Manner::Well);
    assert_eq!(bench.drain().await, Vec::<String>::new());
    assert_eq!(bench.home(id).await, (Backend::S3, BUCKET.to_owned()));
    assert!(!bench.is_here(id) && double.object(&Bench::key(id)).unwrap() == body);
    let counts = bench.homes.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.last_error), (0, None));
    assert!(bench.staging_is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strange_tag_is_settled_by_reading_back() {
    let double = Double::start();
    double.behave(Manner::TagsOddly);
    // Though there is no room for another file.
    let bench =
        Bench::new(Config { local_copies_bytes: 0, free_floor_bytes: u64::MAX / 2, ..config("s3", &double.endpoint) });
    for size in [100, 9 << 20] {
        let id = bench.keep(&bytes(size)).await;
        assert_eq!(bench.drain().await, Vec::<String>::new());
        assert_eq!(bench.home(id).await.0, Backend::S3);
        assert!(double.log().iter().any(|line| line.starts_with("GET ") && line.contains(&id.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_tagged_rightly_and_was_not_kept_is_found_out() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let id = bench.keep(&bytes(5000)).await;
    for manner in [Manner::Forgets, Manner::Corrupts, Manner::Forgets] {
        double.behave(manner);
        assert_eq!(bench.drain().await.len(), 1, "{manner:?}");
        assert!(bench.is_here(id) && bench.home(id).await.0 == Backend::Fs, "{manner:?}");
    }
    double.behave(Manner::Well);
    assert_eq!(bench.drain().await, Vec::<String>::new());
    assert!(double.object(&Bench::key(id)).unwrap() == bytes(5000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_not_found_is_away_and_no_object_is_at_fault() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let there = bench.keep(&bytes(5000)).await;
    bench.drain().await;
    double.behave(Manner::Misses);
    bench.keep(b"small").await;
    bench.keep(&bytes(9 << 20)).await;
    for wrong in bench.drain().await {
        assert!(wrong.starts_with(Code::StorageUnavailable.wire()), "{wrong}");
    }
    assert_eq!(bench.homes.bring(there, 1).await.err().unwrap().code, Code::StorageUnavailable);
    assert!(bench.homes.state().not_before.is_some(), "all wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_are_not_taken_for_a_range() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let body = bytes(5000);
    let id = bench.keep(&body).await;
    bench.drain().await;
    double.behave(Manner::HeedsNoRange);
    assert!(bench.read(id, 0..5000).await.unwrap() == body, "that is the whole");
    for range in [0..4999, 1..5000, 100..200] {
        assert_eq!(bench.read(id, range.clone()).await.unwrap_err().code, Code::StorageUnavailable, "{range:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_where_a_connection_broke() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let body = bytes(3 << 20);
    let id = bench.keep(&body).await;
    bench.drain().await;
    double.behave(Manner::ResetsOnce);
    assert!(bench.read(id, 0..body.len() as u64).await.unwrap() == body);
    assert!(
        double.log().iter().any(|line| line.starts_with("GET ")
            && line.ends_with(&format!("-{}", body.len() - 1))
            && !line.contains(" 0-")),
        "{:?}",
        double.log()
    );
    double.behave(Manner::Unavailable);
    assert_eq!(bench.read(id, 0..10).await.unwrap_err().code, Code::StorageUnavailable);
    double.behave(Manner::Well);
    double.damage(&Bench::key(id));
    let damaged = bench.homes.bring(id, 1).await.err().unwrap();
    assert_eq!(damaged.code, Code::StorageUnavailable, "{damaged}");
    assert!(!bench.is_here(id) && bench.staging_is_empty(), "what is not the original is not put in its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_take_what_they_may_and_pinned_ones_stay() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 2500, ..config("s3", &double.endpoint) });
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(bench.keep(&bytes(1000)).await);
        bench.drain().await;
    }
    let pin = bench.homes.bring(ids[0], 1).await.unwrap();
    for _ in 0..3 {
        ids.push(bench.keep(&bytes(1000)).await);
        bench.drain().await;
    }
    let here: Vec<bool> = ids.iter().map(|id| bench.is_here(*id)).collect();
    assert_eq!(here.iter().filter(|here| **here).count(), 2, "{here:?}");
    assert!(here[0], "somebody is working on it");
    drop(pin);
    for id in ids {
        assert!(bench.read(id, 0..1000).await.unwrap() == bytes(1000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_it_was_on_its_way() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    let id = bench.keep(&bytes(5000)).await;
    let object = bench.db.write(|tx| store::claim(tx, false)).await.unwrap().unwrap();
    let asset_gone = bench.db.write(move |tx| {
        asset_store::set_trashed(tx, id, true, 1)?;
        asset_store::forget(tx, id)
    });
    asset_gone.await.unwrap();
    // The file is open already when the sweep comes.
    let file = bench.homes.0.storage.open_file(&object.place().unwrap()).unwrap();
    bench.homes.forget(id, 1).await.unwrap();
    while bench.homes.sweep().await.unwrap() > 0 {}
    let bucket = bench.homes.bucket(object.goal.as_ref().unwrap()).unwrap();
    let known = Known { sha256: &object.sha256, md5: None };
    bucket.send(&bench.homes.0.cpu, &object.place().unwrap(), Arc::new(file), &known, &Pace::default()).await.unwrap();
    assert_eq!(double.names().len(), 1);
    bench.homes.switch(&object, object.goal.as_ref().unwrap(), Copy::MayGo, false).await.unwrap();
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert_eq!(double.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_there_and_on_and_back() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(config("fs", ""));
    let mut kept = Vec::new();
    for n in 0..20 {
        let body = bytes(1000 + n);
        kept.push((bench.keep(&body).await, body));
    }
    assert_eq!(bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap_err().code, Code::InvalidRequest);

    let bench = bench.reopen(both("fs", &one, &two));
    one.behave(Manner::Unavailable);
    let hasty = Plan { patience: Duration::ZERO, ..plan("s3") };
    assert!(bench.homes.migrate(&hasty, |_| {}).await.is_err(), "it ends, and loses nothing");
    assert!(kept.iter().all(|(id, _)| bench.is_here(*id)));
    bench.counts_are_right().await;
    one.behave(Manner::Well);
    // As if it was killed in the middle: some are there, some are held.
    let held = bench.db.write(|tx| {
        store::let_go(tx, true)?;
        store::claim(tx, true)
    });
    assert!(held.await.unwrap().is_some());
    let done = bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    assert_eq!((one.names().len(), two.names().len()), (20, 0));
    assert!(kept.iter().all(|(id, _)| !bench.is_here(*id)));

    let done = bench.homes.migrate(&plan("r2"), |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    bench.counts_are_right().await;
    assert_eq!((one.names().len(), two.names().len()), (0, 20));
    assert_eq!(bench.home(kept[0].0).await, (Backend::R2, "elsewhere".to_owned()));
    for (id, body) in &kept {
        assert!(bench.read(*id, 0..body.len() as u64).await.unwrap() == *body);
    }

    let done = bench.homes.migrate(&Plan { keep_source: true, ..plan("fs") }, |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    assert_eq!(two.names().len(), 20, "the source was to be kept");
    for (id, body) in &kept {
        assert!(bench.is_here(*id) && bench.home(*id).await.0 == Backend::Fs);
        assert!(bench.read(*id, 0..body.len() as u64).await.unwrap() == *body);
    }
    assert!(bench.homes.survey().await.unwrap().0.is_empty(), "no rows are left");
    bench.counts_are_right().await;
    assert_eq!(bench.homes.migrate(&plan("fs"), |_| {}).await.unwrap().moved, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_not_sent_as_if_it_was_whole() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    let id = bench.keep(&bytes(4000)).await;
    std::fs::write(bench.dir.path().join(place::original(id, 1).unwrap().as_str()), bytes(3999)).unwrap();
    assert_eq!(bench.drain().await.len(), 1);
    assert_eq!(bench.home(id).await.0, Backend::Fs);
    assert_eq!(double.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_into_a_bucket_are_signed_for_a_week_at_most() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    let id = bench.keep(&bytes(10)).await;
    let life = Duration::from_hours(24 * 365);
    let link = || bench.homes.link(id, 1, life, "inline; filename=\"a.bin\"", "text/plain");
    assert_eq!(link().await.unwrap(), None, "while it is here");
    bench.drain().await;
    let url = link().await.unwrap().unwrap();
    assert!(url.starts_with(&format!("{}/{}?", double.endpoint, Bench::key(id))), "{url}");
    assert!(url.contains("X-Amz-Expires=604800") && url.contains("X-Amz-Signature="), "{url}");
    assert!(url.contains("response-content-disposition=") && !url.contains("hush"), "{url}");
}

/// How many steps SQLite takes for it.
fn steps<T>(tx: &Tx, doing: impl FnOnce(&Tx) -> Result<T>) -> u64 {
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    tx.progress_handler(1, Some(count)).unwrap();
    doing(tx).unwrap();
    tx.progress_handler(0, None::<fn() -> bool>).unwrap();
    taken.load(Ordering::Relaxed)
}

/// So many rows of each sort.
fn fill(tx: &Tx, count: u32) {
    let ids = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
    for (home, bucket, goal, by_hand, error) in [
        ("fs", "", Some("s3"), 0, None),
        ("fs", "", Some("s3"), 0, Some("it did not answer")),
        ("fs", "", Some("s3"), 1, None),
        ("s3", BUCKET, None, 0, None),
        ("s3", BUCKET, Some("r2"), 1, None),
    ] {
        tx.execute(
            &format!(
                "{ids} INSERT INTO object (asset_id, revision, size_bytes, sha256, home, bucket, goal, by_hand, here, since, \
                                           next_at, error) \
                 SELECT lower(hex(randomblob(16))), 1, 10, '', ?2, ?3, ?4, ?5, 1, i, i, ?6 FROM n"
            ),
            rusqlite::params![count, home, bucket, goal, by_hand, error],
        )
        .unwrap();
    }
    let leftovers = format!(
        "{ids} INSERT INTO leftover (home, bucket, asset_id, revision, next_at) \
         SELECT 's3', ?2, lower(hex(randomblob(16))), 1, i FROM n"
    );
    tx.execute(&leftovers, rusqlite::params![count, BUCKET]).unwrap();
}

#[tokio::test]
async fn what_is_asked_while_the_box_runs_takes_no_longer_for_millions() {
    let bench = Bench::new(config("fs", ""));
    let middle = ("80000000000000000000000000000000".parse::<AssetId>().unwrap(), 1);
    let measure = |count: u32| {
        bench.db.write(move |tx| {
            fill(tx, count);
            Ok([
                ("tallies", steps(tx, |tx| store::tallies(tx))),
                ("waiting", steps(tx, |tx| store::waiting(tx))),
                ("planned", steps(tx, |tx| store::planned(tx))),
                ("copies_bytes", steps(tx, |tx| store::copies_bytes(tx))),
                ("count_leftovers", steps(tx, |tx| store::count_leftovers(tx))),
                ("next_leftover", steps(tx, |tx| store::next_leftover(tx, BUCKET))),
                ("take_leftover", steps(tx, |tx| store::take_leftover(tx, BUCKET, LINGER))),
                ("failures", steps(tx, |tx| store::failures(tx, 5))),
                ("page", steps(tx, |tx| store::page(tx, &Home::here(), Some(middle), 7))),
                ("first_due", steps(tx, |tx| store::first_due(tx, false))),
                ("next_due", steps(tx, |tx| store::next_due(tx, false))),
                ("claim", steps(tx, |tx| store::claim(tx, true))),
                ("let_go", steps(tx, |tx| store::let_go(tx, true))),
                ("hasten", steps(tx, |tx| store::hasten(tx, true, 32))),
                ("hasten_leftovers", steps(tx, |tx| store::hasten_leftovers(tx, BUCKET, LINGER, 32))),
                ("oldest_copies", steps(tx, |tx| store::oldest_copies(tx, None, 64))),
            ])
        })
    };
    let few = measure(200).await.unwrap();
    let many = measure(4000).await.unwrap();
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(few > 0 && many <= few + few / 2, "{what}: {few} steps with few, {many} with many");
    }
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purged_while_it_was_sent_by_a_process_that_ended() {
    let (double, clock) = (Double::start(), Clock::by_hand(At(1_000_000)));
    let bench = Bench::by(config("s3", &double.endpoint), clock.clone());
    let id = bench.keep(&bytes(5000)).await;
    let object = bench.db.write(|tx| store::claim(tx, false)).await.unwrap().unwrap();
    let file = bench.homes.0.storage.open_file(&object.place().unwrap()).unwrap();
    bench.homes.forget(id, 1).await.unwrap();
    while bench.homes.sweep().await.unwrap() > 0 {}
    let bucket = bench.homes.bucket(object.goal.as_ref().unwrap()).unwrap();
    let known = Known { sha256: &object.sha256, md5: None };
    bucket.send(&bench.homes.0.cpu, &object.place().unwrap(), Arc::new(file), &known, &Pace::default()).await.unwrap();
    assert_eq!(double.names().len(), 1);

    let bench = bench.reopen(config("s3", &double.endpoint));
    assert!(bench.homes.sweep_due().await.unwrap().unwrap() <= LINGER);
    clock.advance(LINGER);
    assert_eq!(bench.homes.sweep_due().await.unwrap(), None);
    assert_eq!(double.names(), Vec::<String>::new());
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_arrives_that_was_removed_behind_its_back() {
    for is_removed_first in [true, false] {
        let (one, two) = (Double::start(), Double::start());
        let bench = Bench::new(both("s3", &one, &two));
        let body = bytes(5000);
        let id = bench.keep(&body).await;
        let goal = bench.homes.goal_of("s3").unwrap();
        let open = || bench.homes.0.storage.open_file(&place::original(id, 1).unwrap()).unwrap();

        // A slow mover has begun, and the original goes another way meanwhile.
        let slow = bench.db.write(|tx| store::claim(tx, false)).await.unwrap().unwrap();
        let (its_file, another) = (open(), open());
        assert_eq!(bench.homes.migrate(&plan("r2"), |_| {}).await.unwrap().moved, 1);
        bench.homes.plan(&goal).await.unwrap();
        let fast = bench.db.write(|tx| store::claim(tx, true)).await.unwrap().unwrap();
        bench.homes.send(&fast, &goal, another, &Pace::default()).await.unwrap();
        bench.homes.send(&slow, &goal, its_file, &Pace::default()).await.unwrap();
        bench.homes.switch(&slow, &goal, Copy::MayGo, false).await.unwrap();
        assert_eq!(bench.home(id).await.0, Backend::R2, "it was overtaken");
        while is_removed_first && bench.homes.sweep().await.unwrap() > 0 {}
        let late = bench.homes.switch(&fast, &goal, Copy::None, false).await;
        assert_eq!(late.as_ref().unwrap_err().code, Code::Conflict);
        assert_eq!(bench.home(id).await.0, Backend::R2);
        bench.homes.note(&fast, Instant::now(), late).await.unwrap();

        let done = bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap();
        assert_eq!((done.moved, done.failed), (1, 0));
        while bench.homes.sweep().await.unwrap() > 0 {}
        assert_eq!((one.names(), two.names()), (vec![Bench::key(id)], Vec::new()));
        assert!(!bench.is_here(id) && bench.read(id, 0..5000).await.unwrap() == body);
        bench.counts_are_right().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_stops_nobody() {
    let (double, clock) = (Double::start(), Clock::by_hand(At(1_000_000_000_000)));
    let days = Duration::from_hours(48);
    let bench = Bench::by(config("s3", &double.endpoint), clock.clone());
    let homes = &bench.homes;
    assert!(homes.next().await.unwrap().is_some(), "nothing is there");
    let first = bench.keep(&bytes(100)).await;
    clock.set_back(days);
    assert_eq!(homes.next().await.unwrap(), None);
    assert_eq!(bench.home(first).await.0, Backend::S3);

    let second = bench.keep(&bytes(200)).await;
    double.behave(Manner::Unavailable);
    // After many failures, so that the wait is not over before it is looked at.
    homes.state().failures = 9;
    assert_eq!(homes.next().await.unwrap(), None);
    assert!(homes.state().not_before.is_some());
    clock.set_back(days);
    assert!(homes.next().await.unwrap().unwrap() <= mover::LONGEST_WAIT);
    double.behave(Manner::Well);
    homes.state().not_before = None;
    assert_eq!(homes.next().await.unwrap(), None);
    assert_eq!(bench.home(second).await.0, Backend::S3);

    homes.forget(second, 1).await.unwrap();
    clock.set_back(days);
    assert!(homes.sweep_due().await.unwrap().unwrap() <= LINGER);
    clock.advance(LINGER);
    assert_eq!(homes.sweep_due().await.unwrap(), None);
    assert_eq!(double.names(), [Bench::key(first)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_moved_is_let_go_though_that_could_not_be_written_down_at_first() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    let id = bench.keep(&bytes(100)).await;
    let object = bench.db.write(|tx| store::claim(tx, false)).await.unwrap().unwrap();
    let sql = "CREATE TRIGGER full BEFORE UPDATE OF error ON object BEGIN SELECT RAISE(ABORT, 'full'); END";
    bench.db.write(|tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    let (homes, before) = (bench.homes.clone(), bench.db.stats().writes);
    let noted = tokio::spawn(async move {
        homes.note(&object, Instant::now(), Err(Code::StorageUnavailable.because("as told"))).await
    });
    while bench.db.stats().writes == before {
        tokio::task::yield_now().await;
    }
    bench.db.write(|tx| Ok(tx.execute_batch("DROP TRIGGER full")?)).await.unwrap();
    noted.await.unwrap().unwrap();
    let now = bench.db.read(move |c| store::find(c, id, 1)).await.unwrap().unwrap();
    assert!(!now.held);
    assert_eq!(bench.homes.survey().await.unwrap().1.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goals_are_given_page_by_page_and_taken_back_wherever_that_ended() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(both("fs", &one, &two));
    let homes = &bench.homes;
    let mut kept = Vec::new();
    for n in 0..20 {
        kept.push(bench.keep(&bytes(1000 + n)).await);
    }
    let commits = || bench.db.stats().batches;
    let (s3, r2) = (homes.goal_of("s3").unwrap(), homes.goal_of("r2").unwrap());
    let before = commits();
    homes.plan(&s3).await.unwrap();
    assert_eq!((commits() - before, bench.db.read(store::planned).await.unwrap().0), (3, 20), "7 at a time");
    let before = commits();
    homes.plan(&s3).await.unwrap();
    assert_eq!(commits() - before, 0, "nothing is left to be said");

    // One page of another way was given, and an original has come to each bucket, unheard of, when it was killed.
    let some = {
        let r2 = r2.clone();
        bench.db.read(move |c| store::page(c, &r2, None, 7)).await.unwrap()
    };
    let begun = bench.db.write(|tx| store::claim(tx, true)).await.unwrap().unwrap();
    let (to, moving) = (r2.clone(), some.iter().find(|(id, ..)| *id != begun.id).unwrap().0);
    let given = bench.db.write(move |tx| {
        some.iter().try_for_each(|(id, revision, _)| store::send(tx, &to, true, *id, *revision).map(|_| ()))
    });
    given.await.unwrap();
    let next = bench.db.write(move |tx| {
        tx.execute("UPDATE object SET next_at = 0 WHERE asset_id = ?1", [moving])?;
        store::claim(tx, true)
    });
    let next = next.await.unwrap().unwrap();
    assert_eq!((next.id, next.goal.as_ref()), (moving, Some(&r2)));
    for object in [&begun, &next] {
        let file = homes.0.storage.open_file(&object.place().unwrap()).unwrap();
        homes.send(object, object.goal.as_ref().unwrap(), file, &Pace::default()).await.unwrap();
    }
    assert_eq!((one.names().len(), two.names().len()), (1, 1));
    bench.counts_are_right().await;

    assert_eq!(homes.migrate(&plan("fs"), |_| {}).await.unwrap().moved, 0);
    assert!(kept.iter().all(|id| bench.is_here(*id)));
    assert!(homes.survey().await.unwrap().0.is_empty(), "no rows are left");
    assert_eq!((one.names(), two.names()), (Vec::new(), Vec::new()));
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_copies_that_stay_keep_no_young_ones() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let (mut old, mut pins) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let id = bench.keep(&bytes(1000)).await;
        pins.push(bench.homes.bring(id, 1).await.unwrap());
        bench.drain().await;
        old.push(id);
    }
    let young = bench.keep(&bytes(1000)).await;
    bench.drain().await;
    assert!(!bench.is_here(young) && old.iter().all(|id| bench.is_here(*id)));
    assert!(bench.staging_is_empty());
    drop(pins);
    bench.homes.make_room(0).await;
    assert!(old.iter().all(|id| !bench.is_here(*id)));
    bench.counts_are_right().await;
}

/// The second bucket of [`both`] as the only one.
fn alone(backend: &str, two: &Double, name: &str) -> Config {
    Config { bucket: "elsewhere".to_owned(), name: name.to_owned(), ..config(backend, &two.endpoint) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_corrected_moves_nothing_and_removes_nothing() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let ids = [bench.keep(&bytes(1000)).await, bench.keep(&bytes(2000)).await];
    bench.drain().await;
    let bench = bench.reopen(Config { local_copies_bytes: 0, ..config("r2", &double.endpoint) });
    assert_eq!(bench.homes.migrate(&plan("r2"), |_| {}).await.unwrap().moved, 0);
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert_eq!(double.names().len(), 2);
    for id in ids {
        assert_eq!(bench.home(id).await, (Backend::R2, BUCKET.to_owned()));
        assert!(bench.read(id, 0..1000).await.unwrap() == bytes(1000));
    }
    assert_eq!(bench.homes.survey().await.unwrap().0[0].home.backend, Backend::R2);
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_from_where_an_original_may_lie() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(both("s3", &one, &two));
    let id = bench.keep(&bytes(1000)).await;
    bench.drain().await;
    let source = bench.homes.goal_of("s3").unwrap();
    bench.homes.migrate(&plan("r2"), |_| {}).await.unwrap();
    // What was left behind could not be removed then.
    let leave = move |tx: &Tx| store::leave(tx, &source, (id, 1), Duration::ZERO);
    bench.db.write(leave).await.unwrap();
    // Both buckets are known by other names than before: the one that is left is called as the other was.
    let bench = bench.reopen(alone("r2", &two, BUCKET));
    assert_eq!(bench.homes.sweep().await.unwrap(), 0);
    assert_eq!(two.names().len(), 1, "the only one");
    // Even if it is on record that it is to be removed from its home.
    let bench = bench.reopen(both("s3", &one, &two));
    let home = bench.homes.goal_of("r2").unwrap();
    let leave = move |tx: &Tx| {
        tx.execute("UPDATE leftover SET next_at = 0", [])?;
        store::leave(tx, &home, (id, 1), Duration::ZERO)
    };
    bench.db.write(leave).await.unwrap();
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert_eq!((one.names().len(), two.names().len()), (0, 1));
    assert_eq!(bench.homes.counts().await.unwrap().leftovers, 0);
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_buckets_that_are_called_the_same_are_told_apart_by_name() {
    let (old, new) = (Double::start(), Double::start());
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &old.endpoint) });
    let id = bench.keep(&bytes(1000)).await;
    bench.drain().await;
    let with = |name: &str, endpoint: &str| {
        let mut settings = both("s3", &new, &old);
        settings.name = name.to_owned();
        settings.other.backend = "s3".to_owned();
        settings.other.bucket = BUCKET.to_owned();
        settings.other.endpoint = endpoint.to_owned();
        settings
    };
    for (name, endpoint, wanted) in [
        ("", &old.endpoint, "storage.name"),
        (BUCKET, &old.endpoint, "storage.name"),
        ("new", &format!("{}/", new.endpoint), "the same bucket"),
        ("s3", &old.endpoint, "no name"),
    ] {
        let refused = with(name, endpoint).buckets().err().unwrap();
        assert!(refused.code == Code::InvalidRequest && refused.detail.contains(wanted), "{refused}");
    }
    let bench = bench.reopen(with("new", &old.endpoint));
    assert_eq!(bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap().moved, 1);
    assert_eq!((old.names().len(), new.names().len()), (0, 1));
    assert_eq!(bench.home(id).await, (Backend::S3, BUCKET.to_owned()), "as its server calls it");
    assert!(bench.read(id, 0..1000).await.unwrap() == bytes(1000));
    assert_eq!(bench.homes.migrate(&plan(BUCKET), |_| {}).await.unwrap().moved, 1, "and back, by name");
    assert_eq!((old.names().len(), new.names().len()), (1, 0));
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bucket_by_two_addresses_is_not_moved_to_itself() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let id = bench.keep(&bytes(1000)).await;
    bench.drain().await;
    let mut settings = both("s3", &double, &double);
    settings.name = "new".to_owned();
    settings.other.bucket = BUCKET.to_owned();
    settings.endpoint = double.endpoint.replace("127.0.0.1", "localhost");
    let bench = bench.reopen(settings);
    let refused = bench.homes.migrate(&plan("new"), |_| {}).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidRequest, "{refused}");
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert_eq!(double.names(), [Bench::key(id)]);
    assert_eq!(bench.home(id).await.1, BUCKET);
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_when_the_disk_is_short_also_while_the_bucket_is_away() {
    let double = Double::start();
    let settings = Config { local_copies_bytes: u64::MAX, ..config("s3", &double.endpoint) };
    let bench = Bench::new(settings.clone());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bench.keep(&bytes(1000)).await);
    }
    bench.drain().await;
    assert!(ids.iter().all(|id| bench.is_here(*id)));
    double.behave(Manner::Unavailable);
    let waits = bench.keep(&bytes(1000)).await;
    let free_floor_bytes = bench.homes.0.storage.free_bytes().unwrap();
    let bench = bench.reopen(Config { free_floor_bytes, ..settings });
    bench.homes.start().await.unwrap();
    let go = async {
        while ids.iter().any(|id| bench.is_here(*id)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), go).await.unwrap();
    bench.homes.stop(Duration::ZERO).await;
    assert!(ids.iter().all(|id| !bench.is_here(*id)) && bench.is_here(waits));
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_wanted_now_has_the_room_of_older_ones() {
    let double = Double::start();
    let settings = Config { local_copies_bytes: u64::MAX, ..config("s3", &double.endpoint) };
    let bench = Bench::new(settings.clone());
    let (old, wanted) = (bench.keep(&bytes(1000)).await, bench.keep(&bytes(1000)).await);
    bench.drain().await;
    let bench = bench.reopen(Config { local_copies_bytes: 1000, ..settings.clone() });
    bench.homes.make_room(0).await;
    let (away, here) = if bench.is_here(old) { (wanted, old) } else { (old, wanted) };
    // There is no disk to be filled here: that the other copy went is what can be seen.
    let bench = bench.reopen(Config { free_floor_bytes: u64::MAX / 2, ..settings });
    assert_eq!(bench.homes.bring(away, 1).await.err().unwrap().code, Code::DiskFull);
    assert!(!bench.is_here(here) && bench.staging_is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_set_aside_for_what_is_still_to_come() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let size = 3 << 20;
    let id = bench.keep(&bytes(size)).await;
    bench.drain().await;
    let object = bench.db.read(move |c| store::find(c, id, 1)).await.unwrap().unwrap();
    let (homes, storage) = (bench.homes.clone(), bench.homes.0.storage.clone());
    // It goes on with the first of it in an hour.
    let slow = tokio::spawn(async move { homes.fetch(&object, &object.home, &Pace::new(300)).await });
    let comes = async {
        while !(1..size as u64).contains(&storage.set_aside_bytes()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), comes).await.unwrap();
    slow.abort();
    assert!(slow.await.is_err());
    let ends = async {
        while storage.set_aside_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ends).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_on_record_before_it_is_there() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let id = bench.keep(&bytes(1000)).await;
    bench.drain().await;
    let sql = "CREATE TRIGGER full BEFORE UPDATE OF here ON object BEGIN SELECT RAISE(ABORT, 'full'); END";
    bench.db.write(|tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    assert!(bench.homes.bring(id, 1).await.is_err());
    assert!(!bench.is_here(id), "nobody would count it");
    bench.db.write(|tx| Ok(tx.execute_batch("DROP TRIGGER full")?)).await.unwrap();
    let _pin = bench.homes.bring(id, 1).await.unwrap();
    assert_eq!(bench.homes.counts().await.unwrap().copies_bytes, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_bucket_that_is_not_configured_any_more_goes_where_new_ones_go() {
    let (gone, one, two) = (Double::start(), Double::start(), Double::start());
    gone.behave(Manner::Unavailable);
    let bench = Bench::new(alone("s3", &gone, ""));
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(bench.keep(&bytes(1000 + n)).await);
    }
    assert_eq!(bench.drain().await.len(), 3);
    bench.db.write(|tx| store::hasten(tx, false, 100)).await.unwrap();
    let bench = bench.reopen(Config { other: OtherConfig::default(), ..both("s3", &one, &two) });
    while bench.homes.next().await.unwrap().is_none() {}
    assert_eq!((one.names().len(), bench.homes.state().failed), (3, 0));
    bench.counts_are_right().await;

    // And stays here, if that is where new ones stay.
    one.behave(Manner::Unavailable);
    let last = bench.keep(&bytes(10)).await;
    bench.drain().await;
    bench.db.write(|tx| store::hasten(tx, false, 100)).await.unwrap();
    let bench = bench.reopen(config("fs", ""));
    while bench.homes.next().await.unwrap().is_none() {}
    assert_eq!(bench.homes.counts().await.unwrap().waiting, 0);
    assert!(bench.is_here(last));
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_nothing_can_be_removed_from_is_put_off_by_itself() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(both("s3", &one, &two));
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(bench.keep(&bytes(1000 + n)).await);
    }
    bench.drain().await;
    let (first, second) = (bench.homes.goal_of("s3").unwrap(), bench.homes.goal_of("r2").unwrap());
    let at: Vec<_> = ids.clone();
    let leave = move |tx: &Tx| {
        for id in &at {
            store::forget(tx, *id, 1)?;
            store::leave(tx, &second, (*id, 1), Duration::ZERO)?;
        }
        tx.execute("UPDATE leftover SET next_at = 0 WHERE bucket = ?1", [&first.bucket])?;
        Ok(())
    };
    bench.db.write(leave).await.unwrap();
    one.behave(Manner::Forbids);
    let tried = || one.log().iter().filter(|line| line.starts_with("DELETE ")).count();
    let before = tried();
    assert_eq!(bench.homes.sweep().await.unwrap(), 3, "from the other one");
    assert_eq!(tried() - before, 1);
    bench.homes.sweep().await.unwrap();
    assert_eq!(tried() - before, 1, "it is not asked for each of them");
    one.behave(Manner::Well);
    bench.homes.resting().clear();
    bench.db.write(|tx| Ok(tx.execute("UPDATE leftover SET next_at = 0", [])?)).await.unwrap();
    assert_eq!(bench.homes.sweep().await.unwrap(), 3);
    assert_eq!(one.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_removes_no_other_does_later() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    let id = bench.keep(&bytes(10)).await;
    bench.drain().await;
    bench.homes.forget(id, 1).await.unwrap();
    let take = |tx: &Tx| store::take_leftover(tx, BUCKET, Duration::from_mins(1));
    assert!(bench.db.write(take).await.unwrap().is_some());
    assert!(bench.db.write(take).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_does_not_keep_an_original_from_moving() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(Config { local_copies_bytes: u64::MAX, ..both("s3", &one, &two) });
    let id = bench.keep(&bytes(4000)).await;
    bench.drain().await;
    let at = bench.dir.path().join(place::original(id, 1).unwrap().as_str());
    for wrong in [vec![0; 4000], bytes(3999)] {
        std::fs::write(&at, wrong).unwrap();
        let to = if two.names().is_empty() { "r2" } else { "s3" };
        let done = bench.homes.migrate(&plan(to), |_| {}).await.unwrap();
        assert_eq!((done.moved, done.failed), (1, 0));
        assert!(std::fs::read(&at).unwrap() == bytes(4000));
    }
    assert!(one.object(&Bench::key(id)).unwrap() == bytes(4000));
    bench.counts_are_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_where_the_original_was_moved_to() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(both("s3", &one, &two));
    let body = bytes(600_000);
    let id = bench.keep(&body).await;
    bench.drain().await;
    for to in ["r2", "fs"] {
        let Source::Away(away) = bench.homes.open(id, 1).await.unwrap().0 else { panic!("it is away") };
        assert_eq!(bench.homes.migrate(&plan(to), |_| {}).await.unwrap().moved, 1);
        while !one.names().is_empty() || (to == "fs" && !two.names().is_empty()) {
            bench.homes.sweep().await.unwrap();
        }
        let (mut reading, first) = away.begin(1000..500_000).await.unwrap();
        let mut read = first.unwrap().to_vec();
        while let Some(bytes) = reading.next().await.unwrap() {
            read.extend_from_slice(&bytes);
        }
        assert!(read == body[1000..500_000], "{to}");
    }
    let done = bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap();
    assert_eq!(done.moved, 1);
    let Source::Away(away) = bench.homes.open(id, 1).await.unwrap().0 else { panic!("it is away") };
    one.lose(&Bench::key(id));
    assert_eq!(away.begin(0..10).await.err().unwrap().code, Code::StorageUnavailable, "it is on record");
    bench.homes.forget(id, 1).await.unwrap();
    assert_eq!(away.begin(0..10).await.err().unwrap().code, Code::ContentNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_is_patient_with_a_bucket_and_not_with_a_full_disk() {
    let double = Double::start();
    let settings = Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) };
    let bench = Bench::new(Config { backend: "fs".to_owned(), ..settings.clone() });
    for n in 0..3 {
        bench.keep(&bytes(1000 + n)).await;
    }
    double.behave(Manner::Unavailable);
    let homes = bench.homes.clone();
    let moving =
        tokio::spawn(
            async move { homes.migrate(&Plan { patience: Duration::from_hours(1), ..plan("s3") }, |_| {}).await },
        );
    while double.log().len() < 8 {
        tokio::task::yield_now().await;
    }
    double.behave(Manner::Well);
    let done = moving.await.unwrap().unwrap();
    assert_eq!((done.moved, done.failed), (3, 0));

    let bench = bench.reopen(Config { free_floor_bytes: u64::MAX / 2, ..settings });
    let full = bench.homes.migrate(&Plan { patience: Duration::from_hours(1), ..plan("fs") }, |_| {}).await;
    assert_eq!(full.unwrap_err().code, Code::DiskFull);
    assert_eq!(double.names().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_a_server_may_work_with_are_left_to_it() {
    let double = Double::start();
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let bench =
        bench.reopen(Config { backend: "fs".to_owned(), local_copies_bytes: 0, ..config("s3", &double.endpoint) });
    let id = bench.keep(&bytes(1000)).await;
    let server = crate::infra::db::DataLock::take(bench.homes.0.storage.root()).unwrap();
    assert_eq!(bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap().moved, 1);
    assert!(bench.is_here(id));
    drop(server);
    assert_eq!(bench.homes.migrate(&plan("s3"), |_| {}).await.unwrap().moved, 0);
    assert!(!bench.is_here(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_made_anew_is_no_turn_of_whoever_was_at_the_old_one() {
    let (one, two) = (Double::start(), Double::start());
    let bench = Bench::new(both("s3", &one, &two));
    let id = bench.keep(&bytes(1000)).await;
    let slow = bench.db.write(|tx| store::claim(tx, false)).await.unwrap().unwrap();
    let (here, goal) = (Home::here(), bench.homes.goal_of("s3").unwrap());
    bench.homes.plan(&here).await.unwrap();
    assert!(!bench.db.read(move |c| store::is_known(c, id, 1)).await.unwrap());
    bench.homes.plan(&goal).await.unwrap();
    let now = bench.db.write(|tx| store::claim(tx, true)).await.unwrap().unwrap();
    assert_ne!(now.turn, slow.turn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_counts_from_when_the_attempt_began_and_ends_with_the_first_success() {
    let double = Double::start();
    let bench = Bench::new(config("s3", &double.endpoint));
    bench.keep(&bytes(1000)).await;
    bench.keep(&bytes(1000)).await;
    let claim = || bench.db.write(|tx| store::claim(tx, false));
    let (one, two) = (claim().await.unwrap().unwrap(), claim().await.unwrap().unwrap());
    let long_ago = Instant::now().checked_sub(LINGER * 20).unwrap();
    let away = || Err(Code::StorageUnavailable.because("as told"));
    bench.homes.note(&one, long_ago, away()).await.unwrap();
    assert!(bench.homes.state().not_before.unwrap() <= long_ago + Duration::from_secs(1));
    bench.homes.state().failures = 20;
    bench.homes.note(&one, Instant::now(), away()).await.unwrap();
    assert!(bench.homes.next().await.unwrap().is_some(), "it waits");
    let mut woken = std::pin::pin!(bench.homes.0.owed.notified());
    woken.as_mut().enable();
    bench.homes.note(&two, Instant::now(), Ok(())).await.unwrap();
    tokio::time::timeout(Duration::ZERO, woken).await.expect("nobody was woken");
    assert!(bench.homes.state().not_before.is_none());
}
