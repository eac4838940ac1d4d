//! What holds wherever originals are kept; and what a bucket may do wrong.

use std::io::Read;
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::assets::store as asset_store;
use crate::homes::model::Copy;
use crate::infra::storage::bucket::Pace;
use crate::infra::storage::double::Double;
use crate::infra::storage::double::Manner;
use crate::support::checksum;
use crate::support::clock::Clock;
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

impl Bench {
    fn new(config: Config) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::temporary(SCHEMA, Clock::system()).unwrap();
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
            uploaded_at: Instant(0),
            updated_at: Instant(0),
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
        self.db.write(|tx| store::let_go(tx, false)).await.unwrap();
        let mut wrong = Vec::new();
        while let Some(object) = self.db.write(|tx| store::claim(tx, false)).await.unwrap() {
            let moved = self.homes.relocate(&object, &Pace::default(), Copy::MayGo).await;
            wrong.extend(moved.as_ref().err().map(Error::to_string));
            self.homes.note(&object, moved).await.unwrap();
        }
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

    fn staging_is_empty(&self) -> bool {
        self.homes.0.storage.staged().unwrap().is_empty()
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7 + n / 251) as u8).collect()
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
    let bench = Bench::new(Config { local_copies_bytes: 0, ..config("s3", &double.endpoint) });
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
    bucket.send(&bench.homes.0.cpu, &object.place().unwrap(), Arc::new(file), &Pace::default()).await.unwrap();
    assert_eq!(double.names().len(), 1);
    bench.homes.switch(&object, object.goal.as_ref().unwrap(), Copy::MayGo, false).await.unwrap();
    while bench.homes.sweep().await.unwrap() > 0 {}
    assert_eq!(double.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_there_and_on_and_back() {
    let (one, two) = (Double::start(), Double::start());
    let plan = |to| Plan { to, keep_source: false, bytes_per_second: 0 };
    let bench = Bench::new(config("fs", ""));
    let mut kept = Vec::new();
    for n in 0..20 {
        let body = bytes(1000 + n);
        kept.push((bench.keep(&body).await, body));
    }
    assert_eq!(bench.homes.migrate(&plan(Backend::S3), |_| {}).await.unwrap_err().code, Code::InvalidRequest);

    let both = Config {
        local_copies_bytes: 0,
        other: crate::infra::storage::OtherConfig {
            backend: "r2".to_owned(),
            endpoint: two.endpoint.clone(),
            bucket: "elsewhere".to_owned(),
            access_key: crate::support::secret::Secret::new("us"),
            secret_key: crate::support::secret::Secret::new("hush"),
            ..crate::infra::storage::OtherConfig::default()
        },
        ..config("fs", &one.endpoint)
    };
    let bench = bench.reopen(both);
    one.behave(Manner::Unavailable);
    assert!(bench.homes.migrate(&plan(Backend::S3), |_| {}).await.is_err(), "it ends, and loses nothing");
    assert!(kept.iter().all(|(id, _)| bench.is_here(*id)));
    one.behave(Manner::Well);
    // As if it was killed in the middle: some are there, some are held.
    let held = bench.db.write(|tx| {
        store::let_go(tx, true)?;
        store::claim(tx, true)
    });
    assert!(held.await.unwrap().is_some());
    let done = bench.homes.migrate(&plan(Backend::S3), |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    assert_eq!((one.names().len(), two.names().len()), (20, 0));
    assert!(kept.iter().all(|(id, _)| !bench.is_here(*id)));

    let done = bench.homes.migrate(&plan(Backend::R2), |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    assert_eq!((one.names().len(), two.names().len()), (0, 20));
    assert_eq!(bench.home(kept[0].0).await, (Backend::R2, "elsewhere".to_owned()));
    for (id, body) in &kept {
        assert!(bench.read(*id, 0..body.len() as u64).await.unwrap() == *body);
    }

    let done = bench.homes.migrate(&Plan { keep_source: true, ..plan(Backend::Fs) }, |_| {}).await.unwrap();
    assert_eq!((done.moved, done.failed), (20, 0));
    assert_eq!(two.names().len(), 20, "the source was to be kept");
    for (id, body) in &kept {
        assert!(bench.is_here(*id) && bench.home(*id).await.0 == Backend::Fs);
        assert!(bench.read(*id, 0..body.len() as u64).await.unwrap() == *body);
    }
    assert!(bench.homes.survey().await.unwrap().0.is_empty(), "no rows are left");
    assert_eq!(bench.homes.migrate(&plan(Backend::Fs), |_| {}).await.unwrap().moved, 0);
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
