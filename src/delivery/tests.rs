//! What is handed out while somebody else changes it: an original that arrives, the mark.

use std::path::PathBuf;
use std::sync::mpsc;

use serde_json::Map;
use tempfile::TempDir;

use super::*;
use crate::accounts;
use crate::accounts::MasterKey;
use crate::assets::Asset;
use crate::assets::AssetId;
use crate::assets::ORIGINAL;
use crate::assets::Status;
use crate::assets::place;
use crate::assets::store;
use crate::infra::db::Db;
use crate::infra::storage;
use crate::infra::workers;
use crate::infra::workers::Workers;
use crate::media::imaging::Limits;
use crate::settings::Placement;
use crate::settings::Watermark;

/// A delivery without media workers.
struct Bench {
    delivery: Delivery,
    db: Db,
    _dir: TempDir,
}

impl Bench {
    async fn open() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let db = Db::temporary(crate::app::SCHEMA, clock.clone()).unwrap();
        let cpu = Cpu::open(4);
        let at = storage::Config { free_floor_bytes: 0, ..storage::Config::default() };
        let storage = Storage::open(dir.path(), &at, &[place::ON_DEMAND], &[place::ORIGINALS]).unwrap();
        let assets = Assets::new(db.clone());
        let homes = Homes::new(at, db.clone(), cpu.clone(), storage.clone(), assets.clone()).unwrap();
        let none = workers::Config { program: Some(PathBuf::from("/nonexistent")), ..workers::Config::default() };
        let master = MasterKey::derive(&[9; 32]).unwrap();
        let delivery = Delivery::new(
            Config {
                cache_disk_bytes: 1 << 20,
                cache_memory_bytes: 1 << 20,
                open_files: 4,
                signed_only: false,
                presets_only: false,
                presets: Vec::new(),
            },
            clock.clone(),
            Accounts::new(accounts::Config::default(), db.clone(), clock, cpu.clone(), master),
            Settings::open(db.clone(), assets.clone()).await.unwrap(),
            assets,
            storage,
            homes,
            Journal::new(db.clone()),
            Stills::new(Workers::start(none).unwrap(), Limits::default()),
            cpu,
        );
        Bench { delivery: delivery.unwrap(), db, _dir: dir }
    }

    async fn original(&self, id: AssetId) -> Result<Arc<Content>> {
        self.delivery.content(Ground::Reader, id, ORIGINAL).await
    }

    fn mark(&self) -> Option<Watermark> {
        self.delivery.settings.now().watermark.clone()
    }
}

#[tokio::test]
async fn an_original_is_what_the_record_says_while_it_arrives_and_after() {
    let bench = Bench::open().await;
    let id = AssetId::random().unwrap();
    let write = async |f: fn(&crate::infra::db::Tx, AssetId) -> Result<bool>| {
        assert!(bench.db.write(move |tx| f(tx, id)).await.unwrap());
    };
    write(|tx, id| {
        let named = Asset { status: Status::Queued, name: "a.mp4".to_owned(), ..Asset::arriving(id, 1, tx.now()) };
        store::insert(tx, &Asset { content_type: "video/mp4".to_owned(), ..named })?;
        Ok(true)
    })
    .await;
    let missing = bench.original(id).await.err().unwrap();
    assert_eq!(missing.code, Code::ContentNotFound);

    // Its name on disk is there before the commit that makes it its own, or takes it back.
    bench.delivery.storage.put(&place::original(id, 1).unwrap(), b"first").unwrap();
    let early = bench.original(id).await.err().unwrap();
    assert_eq!(early.code, Code::ContentNotFound);
    bench.delivery.storage.put(&place::original(id, 1).unwrap(), b"second").unwrap();
    write(|tx, id| store::fetched(tx, id, 6, (&"1".repeat(32), &"2".repeat(64)), "video/mp4")).await;
    let fetched = bench.original(id).await.unwrap();
    assert_eq!((&*fetched.etag, &*fetched.content_type), (&*format!("\"{}\"", "2".repeat(32)), "video/mp4"));
    assert_eq!(fetched.size_bytes, 6);

    // Its first bytes did not show that there are no pictures in it.
    write(|tx, id| {
        store::set_content_type(tx, id, 1, "audio/mp4")?;
        store::looked_at(tx, id, 1, Status::Ok, &Map::new(), &std::collections::BTreeMap::new())
    })
    .await;
    let saved = bench.original(id).await.unwrap();
    assert_eq!((&saved.etag, &*saved.content_type), (&fetched.etag, "audio/mp4"));
    assert!(Arc::ptr_eq(&saved, &bench.original(id).await.unwrap()), "it is held open from then on");
}

#[tokio::test]
async fn a_mark_that_is_moved_is_the_one_that_is_set_by_then() {
    let bench = Bench::open().await;
    let settings = &bench.delivery.settings;
    let mark = |digest: &str| Watermark {
        digest: digest.repeat(32),
        asset: Some(AssetId::random().unwrap()),
        placement: Placement::Center,
        scale: 1.0,
    };
    let (old, new) = (mark("a"), mark("b"));
    for (chosen, expected) in
        [(Some(new.clone()), Some(Watermark { placement: Placement::TopLeft, scale: 0.5, ..new })), (None, None)]
    {
        settings.set_watermark(Some(old.clone())).await.unwrap();
        // All of it waits, in this order, until the writer is free.
        let (go_on, goes_on) = mpsc::channel();
        let busy = bench.db.write(move |_| {
            let _ = goes_on.recv();
            Ok(())
        });
        let (busy, set, moved, ()) = tokio::join!(
            busy,
            settings.set_watermark(chosen),
            bench.delivery.set_watermark(None, Placement::TopLeft, 0.5),
            async { go_on.send(()).unwrap() },
        );
        busy.unwrap();
        set.unwrap();
        let refused = expected.is_none().then_some(Code::MissingParameter);
        assert_eq!(moved.err().map(|e| e.code), refused);
        assert_eq!(bench.mark(), expected);
    }
}
