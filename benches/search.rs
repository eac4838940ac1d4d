//! A million assets: how fast they are written, listed and found, and how large the database is.
//!
//! ```text
//! cargo bench --bench search                     a million, in a folder under target/
//! ASSETS=100000 cargo bench --bench search       fewer
//! KEEP=1                                         leaves the database for the next run
//! ```
//!
//! The rows are written by the statements that an upload uses, into a database made from
//! `schema.sql`, so every index and trigger is paid for; what is asked goes through the rooms,
//! without HTTP. Words follow Zipf's law: some stand in every tenth asset, most in a handful.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for people who measure"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant as Stopwatch;

use cloakroom::app::SCHEMA;
use cloakroom::assets::Asset;
use cloakroom::assets::AssetId;
use cloakroom::assets::Assets;
use cloakroom::assets::Status;
use cloakroom::assets::store;
use cloakroom::infra::db::Config;
use cloakroom::infra::db::Db;
use cloakroom::infra::jobs;
use cloakroom::infra::jobs::Jobs;
use cloakroom::schemas;
use cloakroom::schemas::Draft;
use cloakroom::schemas::Schemas;
use cloakroom::search::By;
use cloakroom::search::Criteria;
use cloakroom::search::SchemaCriteria;
use cloakroom::search::Search;
use cloakroom::search::Sort;
use cloakroom::support::clock::Clock;
use cloakroom::support::clock::Instant;
use cloakroom::support::page::Page;
use serde_json::Value;
use serde_json::json;

/// 2024-01-01T00:00:00Z
const BEGAN: i64 = 1_704_067_200_000;
/// Three years, in milliseconds.
const SPAN: i64 = 3 * 365 * 86_400_000;
const VOCABULARY: u64 = 20_000;
const ROUNDS: u64 = 200;
/// Assets in one transaction.
const BATCH: u64 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let count: u64 = env::var("ASSETS").ok().map_or(1_000_000, |n| n.parse().unwrap());
    let folder = PathBuf::from(env::var("FOLDER").unwrap_or_else(|_| format!("target/bench-search-{count}")));
    let keep = env::var("KEEP").is_ok();
    if !keep {
        let _ = fs::remove_dir_all(&folder);
    }
    fs::create_dir_all(&folder).unwrap();
    let db = Db::open(&folder.join("cloakroom.db"), SCHEMA, Clock::system(), &Config::default()).unwrap();
    let there = db.read(store::count).await.unwrap();
    if there < count {
        fill(&db, count).await;
    }
    let began = Stopwatch::now();
    db.optimize().await.unwrap();
    println!("statistics: {:.1} s", began.elapsed().as_secs_f64());
    let bytes = fs::metadata(folder.join("cloakroom.db")).unwrap().len();
    println!("database: {} MB, {} bytes an asset\n", bytes >> 20, bytes / count);
    sizes(&db).await;
    measure(&db, count).await;
    db.close().await.unwrap();
    if !keep {
        fs::remove_dir_all(&folder).unwrap();
    }
}

async fn fill(db: &Db, count: u64) {
    let schemas = Schemas::new(db.clone(), Jobs::new(db.clone(), jobs::Config::default()));
    let both = json!({"searchable": true, "keyword_searchable": true});
    let field = json!({"searchable": true});
    let schema = json!({"type": "object", "properties": {
        "event": {"type": "string", "filespin_properties": both},
        "photographer": {"type": "string", "filespin_properties": field},
        "rating": {"type": "integer", "filespin_properties": field},
        "price": {"type": "number", "filespin_properties": field},
    }});
    let name = json!({"en": "Bench"}).as_object().unwrap().clone();
    schemas.create(Draft { name, status: schemas::Status::Active, schema }, 1).await.unwrap();
    let began = Stopwatch::now();
    let mut random = Random(7);
    let mut slowest = Duration::ZERO;
    // What a savepoint remembers is walked by each statement in it, so long transactions would be dearer than uploads.
    for first in (0..count).step_by(BATCH as usize) {
        let batch: Vec<Asset> = (first..(first + BATCH).min(count)).map(|n| asset(n, count, &mut random)).collect();
        let at = Stopwatch::now();
        db.write(move |tx| batch.iter().try_for_each(|asset| store::insert(tx, asset))).await.unwrap();
        slowest = slowest.max(at.elapsed());
        if first % 100_000 == 0 && first > 0 {
            println!("{first}: {:.0} rows/s", first as f64 / began.elapsed().as_secs_f64());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("insert: {count} in {seconds:.0} s, {:.0} rows/s; slowest {BATCH} {slowest:.0?}", count as f64 / seconds);
}

fn asset(n: u64, count: u64, random: &mut Random) -> Asset {
    let content_type = match random.below(100) {
        0..85 => "image/jpeg",
        85..95 => "image/png",
        _ => "video/mp4",
    };
    let words: Vec<String> = (0..4).map(|_| word(random)).collect();
    let mut data = json!({"filespin_search_txt": words.join(" ")});
    let has_schema = n.is_multiple_of(2);
    if has_schema {
        data["event"] = format!("Event {}", random.below(2000)).into();
        data["photographer"] = format!("Person{}", random.below(200)).into();
        data["rating"] = (random.below(5) + 1).into();
        data["price"] = (random.below(100_000) as f64 / 100.0).into();
    }
    let at = Instant(BEGAN + (SPAN as f64 * n as f64 / count as f64) as i64);
    Asset {
        id: AssetId::random().unwrap(),
        revision: 1,
        status: Status::Ok,
        name: format!("{}_{n:06}.JPG", ["IMG", "DSC", "PXL", "photo"][random.below(4) as usize]),
        size_bytes: 500_000 + random.below(12_000_000),
        md5: format!("{:032x}", random.next()),
        sha256: format!("{:064x}", random.next()),
        content_type: content_type.to_owned(),
        public: false,
        on_demand: true,
        creator_id: random.below(20) as i64 + 1,
        updater_id: 1,
        uploaded_at: at,
        updated_at: at,
        trashed_at: None,
        upload_source: None,
        data_schema_id: i64::from(has_schema),
        data: data.as_object().unwrap().clone(),
        facts: json!({"width": 6000, "height": 4000, "Make": "Canon", "Model": "EOS R5"}).as_object().unwrap().clone(),
        errors: BTreeMap::new(),
        home: cloakroom::infra::storage::Backend::Fs,
        bucket: String::new(),
    }
}

/// The n-th most frequent word has a share of about 1/n.
fn word(random: &mut Random) -> String {
    let rank = ((VOCABULARY as f64).powf(random.below(1 << 30) as f64 / f64::from(1 << 30))) as u64;
    format!("word{rank}")
}

async fn measure(db: &Db, count: u64) {
    let (assets, search) = (Assets::new(db.clone()), Search::new(db.clone()));
    let seqs: Vec<i64> = (0..ROUNDS).map(|n| (n * 7919 % count) as i64 + 1).collect();
    let ids: Vec<AssetId> =
        db.read(move |c| Ok(store::by_seq(c, &seqs, false)?.iter().map(|full| full.asset.id).collect())).await.unwrap();
    println!("{:<46} {:>9} {:>9} {:>9} {:>9}   hits", "µs", "p50", "p99", "p50 CPU", "p99 CPU");
    let mut times = Times::default();
    for id in &ids {
        let at = Watch::start();
        assets.find(*id).await.unwrap();
        times.took(&at);
    }
    times.print("id look-up", 1);
    for (name, first) in
        [("listing, newest 50", 0), ("listing, 50 from the middle", count / 2), ("listing, the last 50", count - 60)]
    {
        let mut times = Times::default();
        for n in 0..ROUNDS {
            let page = Page::new(Some((first + if first > 0 { n % 10 } else { 0 }) as u32), None, 50, 500);
            let at = Watch::start();
            assets.list(page).await.unwrap();
            times.took(&at);
        }
        times.print(name, 50);
    }
    let all = Criteria { per_page: 50, ..Criteria::default() };
    let keyword = |text: String| Criteria { keyword: Some(text), ..all.clone() };
    let schema = |fields: Value| {
        let fields = fields.as_object().unwrap().clone();
        Criteria { schema: Some(SchemaCriteria { schema: 1, fields }), ..all.clone() }
    };
    let day = |from: i64, days: i64| {
        let at = |day: i64| Some(Instant(BEGAN + day * 86_400_000));
        Some((at(from), at(from + days)))
    };
    let ranked = vec![Sort { by: By::Relevance, descending: true }];
    let by_size = vec![Sort { by: By::Size, descending: true }];
    let tasks: Vec<Task<'_>> = vec![
        ("search for everything", Box::new(|_| all.clone())),
        ("keyword, rare", Box::new(|n| keyword(format!("word{}", 5000 + n * 37)))),
        ("keyword, in the middle", Box::new(|n| keyword(format!("word{}", 100 + n)))),
        ("keyword, common", Box::new(|n| keyword(format!("word{}", n % 10 + 1)))),
        ("keyword, two common", Box::new(|n| keyword(format!("word{} word{}", n % 5 + 1, n % 7 + 2)))),
        ("keyword, common OR common", Box::new(|n| keyword(format!("word{} OR word{}", n % 5 + 1, n % 7 + 2)))),
        ("keyword, phrase", Box::new(|n| keyword(format!("\"word{} word{}\"", n % 5 + 1, n % 7 + 2)))),
        ("keyword, beginning (word12*)", Box::new(|n| keyword(format!("word{}*", n % 80 + 12)))),
        ("file name, beginning (IMG*)", Box::new(|_| Criteria { file_name: Some("IMG*".to_owned()), ..all.clone() })),
        ("content type (video*)", Box::new(|_| Criteria { content_type: Some("video*".to_owned()), ..all.clone() })),
        (
            "keyword, common, and content type",
            Box::new(|n| Criteria {
                content_type: Some("image/png".to_owned()),
                ..keyword(format!("word{}", n % 10 + 1))
            }),
        ),
        ("creator", Box::new(|n| Criteria { creator: Some(n as i64 % 20 + 1), ..all.clone() })),
        ("span of time, a day", Box::new(|n| Criteria { uploaded: day(n as i64 * 5, 1), ..all.clone() })),
        ("span of time, a year", Box::new(|n| Criteria { uploaded: day(n as i64, 365), ..all.clone() })),
        (
            "keyword, common, in an old month",
            Box::new(|n| Criteria { uploaded: day(n as i64, 30), ..keyword(format!("word{}", n % 10 + 1)) }),
        ),
        (
            "size, narrow",
            Box::new(|n| Criteria { size_bytes: Some((Some(n * 50_000), Some(n * 50_000 + 5000))), ..all.clone() }),
        ),
        ("size, wide", Box::new(|_| Criteria { size_bytes: Some((Some(5_000_000), None)), ..all.clone() })),
        ("field: event", Box::new(|n| schema(json!({"event": format!("\"event {n}\"")})))),
        (
            "field: photographer and event",
            Box::new(|n| schema(json!({"photographer": format!("person{}", n % 200), "event": "event"}))),
        ),
        ("field: rating 5", Box::new(|_| schema(json!({"rating": 5})))),
        (
            "field: rating 4 or more, photographer",
            Box::new(|n| schema(json!({"rating": ">=4", "photographer": format!("person{}", n % 200)}))),
        ),
        ("field: price, narrow", Box::new(|n| schema(json!({"price": format!("{n}..{}", n + 1)})))),
        ("field: price, wide", Box::new(|_| schema(json!({"price": ">100"})))),
        (
            "keyword, common, and price, narrow",
            Box::new(|n| Criteria {
                keyword: Some(format!("word{}", n % 10 + 1)),
                ..schema(json!({"price": format!("{n}..{}", n + 1)}))
            }),
        ),
        (
            "ranked: keyword, rare",
            Box::new(|n| Criteria { sort: ranked.clone(), ..keyword(format!("word{}", 5000 + n * 37)) }),
        ),
        (
            "ranked: keyword, common",
            Box::new(|n| Criteria { sort: ranked.clone(), ..keyword(format!("word{}", n % 10 + 1)) }),
        ),
        (
            "ranked: three common",
            Box::new(|n| Criteria {
                sort: ranked.clone(),
                ..keyword(format!("word{} OR word{} OR word{}", n % 5 + 1, n % 7 + 2, n % 11 + 3))
            }),
        ),
        ("by size: everything", Box::new(|_| Criteria { sort: by_size.clone(), ..all.clone() })),
        (
            "by size: keyword, common",
            Box::new(|n| Criteria { sort: by_size.clone(), ..keyword(format!("word{}", n % 10 + 1)) }),
        ),
    ];
    for (name, criteria) in &tasks {
        let (mut times, mut hits) = (Times::default(), 0);
        for n in 0..ROUNDS {
            let asked = criteria(n);
            let at = Watch::start();
            let found = search.search(asked).await.unwrap();
            times.took(&at);
            hits += found.hits;
        }
        times.print(name, hits as u64 / ROUNDS);
    }
    let made = search.search(keyword("word1".to_owned())).await.unwrap();
    for (name, page) in [("page 2 of a search", 2), ("page 100 of a search", 100)] {
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            let at = Watch::start();
            search.page(made.id, page, false).await.unwrap();
            times.took(&at);
        }
        times.print(name, made.hits as u64);
    }
}

/// What the largest parts of the database take.
async fn sizes(db: &Db) {
    let listed = db.read(|c| {
        let mut rows = c.prepare("SELECT name, sum(pgsize) AS s FROM dbstat GROUP BY name ORDER BY s DESC LIMIT 14")?;
        let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?)))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    // Only where SQLite was built with it.
    for (name, bytes) in listed.await.unwrap_or_default() {
        println!("  {name:<30} {:>6} MB", bytes >> 20);
    }
    println!();
}

/// The clock, and the processor time of this process, which neighbours cannot stretch.
struct Watch(Stopwatch, Duration);

/// What is asked in round n, by its name.
type Task<'a> = (&'a str, Box<dyn Fn(u64) -> Criteria + 'a>);

impl Watch {
    fn start() -> Watch {
        Watch(Stopwatch::now(), cpu())
    }
}

fn cpu() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

#[derive(Default)]
struct Times {
    clock: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Times {
    fn took(&mut self, at: &Watch) {
        self.clock.push(at.0.elapsed());
        self.cpu.push(cpu().saturating_sub(at.1));
    }

    fn print(&mut self, name: &str, hits: u64) {
        self.clock.sort();
        self.cpu.sort();
        let at = |of: &[Duration], share: f64| of[((of.len() - 1) as f64 * share) as usize].as_micros();
        let (clock, cpu) = (&self.clock, &self.cpu);
        println!(
            "{name:<46} {:>9} {:>9} {:>9} {:>9}   {hits}",
            at(clock, 0.5),
            at(clock, 0.99),
            at(cpu, 0.5),
            at(cpu, 0.99)
        );
    }
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}
