//! Searches over a small archive, and how SQLite goes about them.

use serde_json::json;

use super::*;
use crate::app::SCHEMA;
use crate::infra::jobs::Config;
use crate::infra::jobs::Jobs;
use crate::schemas::Draft;
use crate::schemas::Schemas;
use crate::schemas::Status;
use crate::search::plan::Numbers;
use crate::support::clock::Clock;

const HOUR: i64 = 3_600_000;
/// 2024-05-15T00:00:00Z
const NOON: i64 = 1_715_731_200_000;

struct House {
    db: Db,
    search: Search,
    schemas: Schemas,
}

impl House {
    fn open() -> House {
        let db = Db::temporary(SCHEMA, Clock::by_hand(Instant(NOON))).unwrap();
        let schemas = Schemas::new(db.clone(), Jobs::new(db.clone(), Config::default()));
        House { search: Search::new(db.clone()), schemas, db }
    }

    /// Adds an asset whose id ends in its number.
    async fn add(&self, n: u32, name: &str, content_type: &str, schema: i64, data: Value) {
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        self.db
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO asset (id, status, name, size_bytes, md5, sha256, content_type, creator_id, updater_id, \
                         uploaded_at, updated_at, data_schema_id, data) \
                     VALUES (?1, 'OK', ?2, ?3, '', '', ?4, ?5, 1, ?6, ?6, ?7, ?8)",
                    rusqlite::params![
                        format!("{n:032x}"),
                        name,
                        n * 1000,
                        content_type,
                        n % 2 + 1,
                        NOON + i64::from(n) * HOUR,
                        schema,
                        data.to_string()
                    ],
                )?;
                Ok(())
            })
            .await
            .unwrap();
    }

    async fn schema(&self) -> i64 {
        let both = json!({"searchable": true, "keyword_searchable": true});
        let field = json!({"searchable": true});
        let schema = json!({"type": "object", "properties": {
            "brand": {"type": "string", "maxLength": 20, "filespin_properties": both},
            "colour": {"type": "string", "filespin_properties": field},
            "day": {"type": "string", "format": "date", "filespin_properties": field},
            "note": {"type": "string"},
            "price": {"type": "number", "minimum": 0, "filespin_properties": field},
            "sold": {"type": "boolean", "filespin_properties": field},
        }});
        let name = json!({"en": "Products"}).as_object().unwrap().clone();
        self.schemas.create(Draft { name, status: Status::Active, schema }, 1).await.unwrap().id
    }

    async fn sql(&self, text: &'static str) {
        self.db.write(move |tx| Ok(tx.execute_batch(text)?)).await.unwrap();
    }

    async fn found(&self, criteria: Criteria) -> Result<Vec<u32>> {
        let criteria = Criteria { per_page: 50, ..criteria };
        Ok(numbers(&self.search.search(criteria).await?))
    }
}

fn numbers(found: &Found) -> Vec<u32> {
    found.assets.iter().map(|full| u32::from_str_radix(&full.asset.id.to_string()[24..], 16).unwrap()).collect()
}

fn keyword(text: &str) -> Criteria {
    Criteria { keyword: Some(text.to_owned()), ..Criteria::default() }
}

fn fields(schema: i64, fields: Value) -> Criteria {
    let Value::Object(fields) = fields else { panic!("no object") };
    Criteria { schema: Some(SchemaCriteria { schema, fields }), ..Criteria::default() }
}

async fn archive() -> (House, i64) {
    let house = House::open();
    let schema = house.schema().await;
    house.add(1, "Sunset beach.JPG", "image/jpeg", 0, json!({"filespin_search_txt": "MY_ID Zoë"})).await;
    house.add(2, "film.mov", "video/quicktime", 0, json!({"other": "hidden", "brand": "Acme"})).await;
    let acme = json!({"brand": "Acme Tools", "colour": "dark red", "price": 12.5, "sold": true, "day": "2024-05-15"});
    house.add(3, "IMG_0003.png", "image/png", schema, acme).await;
    let other =
        json!({"brand": "Blum", "colour": "red", "price": 7, "sold": false, "day": "2023-01-02", "note": "Acme"});
    house.add(4, "IMG_0004.jpg", "image/jpeg", schema, other).await;
    (house, schema)
}

#[tokio::test]
async fn words_are_found_where_they_count() {
    let (house, _) = archive().await;
    for (text, want) in [
        ("MY_ID", &[1][..]),
        ("my_id zoe", &[1]),
        ("sunset AND beach", &[1]),
        ("sunset OR film", &[2, 1]),
        ("\"sunset beach\"", &[1]),
        ("\"beach sunset\"", &[]),
        ("sun*", &[1]),
        ("jpg", &[4, 1]),
        ("hidden", &[]),
        ("Acme", &[3]),
        ("\"acme tools\"", &[3]),
        ("red", &[]),
        ("kimage", &[]),
        ("img*", &[4, 3]),
        ("*", &[4, 3, 2, 1]),
    ] {
        assert_eq!(house.found(keyword(text)).await.unwrap(), want, "{text}");
    }
}

#[tokio::test]
async fn fields_are_found_by_kind() {
    let (house, schema) = archive().await;
    for (asked, want) in [
        (json!({"brand": "acme"}), &[3][..]),
        (json!({"brand": "acme OR blum"}), &[4, 3]),
        (json!({"brand": "bl*"}), &[4]),
        (json!({"colour": "red"}), &[4, 3]),
        (json!({"colour": "\"dark red\"", "sold": true}), &[3]),
        (json!({"price": 7}), &[4]),
        (json!({"price": "7..12.5"}), &[4, 3]),
        (json!({"price": ">7"}), &[3]),
        (json!({"price": {"start": 8}}), &[3]),
        (json!({"price": "[* TO 8]", "colour": "red"}), &[4]),
        (json!({"price": "1 OR 7"}), &[4]),
        (json!({"sold": "false"}), &[4]),
        (json!({"day": "2024-05*"}), &[3]),
        (json!({"day": "2023-01-01..2023-12-31"}), &[4]),
        (json!({}), &[4, 3]),
    ] {
        assert_eq!(house.found(fields(schema, asked.clone())).await.unwrap(), want, "{asked}");
    }
    assert_eq!(house.found(fields(0, json!({"filespin_search_txt": "my*"}))).await.unwrap(), [1]);
    for bad in [json!({"note": "Acme"}), json!({"nothing": 1}), json!({"price": "much"}), json!({"brand": []})] {
        assert_eq!(house.found(fields(schema, bad)).await.unwrap_err().code, Code::InvalidRequest);
    }
    assert_eq!(house.found(fields(99, json!({}))).await.unwrap_err().code, Code::InvalidRequest);
}

#[tokio::test]
async fn everything_else_that_can_be_asked() {
    let (house, schema) = archive().await;
    let all = Criteria::default;
    let text = |s: &str| Some(s.to_owned());
    let at = |hours: i64| Some(Instant(NOON + hours * HOUR));
    let by = |by, descending| vec![Sort { by, descending }];
    for (asked, want) in [
        (all(), &[4, 3, 2, 1][..]),
        (Criteria { file_name: text("IMG_000*"), ..all() }, &[4, 3]),
        (Criteria { file_name: text("film.mov OR sun*"), ..all() }, &[2, 1]),
        (Criteria { content_type: text("image*"), ..all() }, &[4, 3, 1]),
        (Criteria { content_type: text("image/png OR video*"), ..all() }, &[3, 2]),
        (Criteria { content_type: text("image/j*"), ..all() }, &[4, 1]),
        (Criteria { creator: Some(2), ..all() }, &[3, 1]),
        (Criteria { creator: Some(-1), ..all() }, &[]),
        (Criteria { uploaded: Some((at(2), at(3))), ..all() }, &[3, 2]),
        (Criteria { uploaded: Some((at(4), None)), ..all() }, &[4]),
        (Criteria { uploaded: Some((at(2), at(3))), ..keyword("img*") }, &[3]),
        (Criteria { size_bytes: Some((Some(2000), Some(3000))), ..all() }, &[3, 2]),
        (Criteria { size_bytes: Some((None, Some(1000))), ..keyword("zoë") }, &[1]),
        (Criteria { size_bytes: Some((Some(4000), None)), ..fields(schema, json!({"colour": "red"})) }, &[4]),
        (Criteria { sort: by(By::Size, false), ..all() }, &[1, 2, 3, 4]),
        (Criteria { sort: by(By::Size, true), ..keyword("img*") }, &[4, 3]),
        (Criteria { sort: by(By::Uploaded, false), ..all() }, &[1, 2, 3, 4]),
        (Criteria { sort: [by(By::ContentType, true), by(By::Uploaded, false)].concat(), ..all() }, &[2, 3, 1, 4]),
        (Criteria { sort: by(By::Relevance, true), ..keyword("acme OR img* OR png") }, &[3, 4]),
    ] {
        assert_eq!(house.found(asked.clone()).await.unwrap(), want, "{asked:?}");
    }
}

#[tokio::test]
async fn the_index_follows_whatever_happens_to_an_asset() {
    let (house, schema) = archive().await;
    house.sql("UPDATE asset SET name = 'renamed.tif', content_type = 'image/tiff' WHERE seq = 2").await;
    assert!(house.found(keyword("film")).await.unwrap().is_empty());
    assert_eq!(house.found(keyword("renamed")).await.unwrap(), [2]);
    house.sql("UPDATE asset SET data = '{\"price\": 99, \"brand\": \"Zed\"}' WHERE seq = 4").await;
    assert!(house.found(keyword("blum")).await.unwrap().is_empty());
    assert_eq!(house.found(fields(schema, json!({"price": "99", "brand": "zed"}))).await.unwrap(), [4]);
    assert!(house.found(fields(schema, json!({"price": "7"}))).await.unwrap().is_empty());

    house.sql("UPDATE asset SET trashed_at = 5 WHERE seq IN (1, 4)").await;
    let trash = |criteria: Criteria| Criteria { trashed: true, ..criteria };
    assert_eq!(house.found(Criteria::default()).await.unwrap(), [3, 2]);
    assert!(house.found(keyword("zed OR sunset")).await.unwrap().is_empty());
    assert_eq!(house.found(trash(keyword("zed OR sunset"))).await.unwrap(), [4, 1]);
    assert_eq!(house.found(trash(fields(schema, json!({"price": ">90"})))).await.unwrap(), [4]);
    assert_eq!(house.found(trash(Criteria::default())).await.unwrap(), [4, 1]);
    house.sql("UPDATE asset SET trashed_at = NULL WHERE seq = 1").await;
    assert_eq!(house.found(keyword("sunset")).await.unwrap(), [1]);
    house.sql("DELETE FROM asset WHERE seq = 4").await;
    assert!(house.found(trash(Criteria::default())).await.unwrap().is_empty());
    let left = house.db.read(|c| Ok(c.query_row("SELECT count(*) FROM search_number", [], |r| r.get::<_, i64>(0))?));
    assert_eq!(left.await.unwrap(), 3, "of asset 3 alone");
    let (page, total) = (crate::support::page::Page::new(None, None, 50, 500), 3);
    let counted = house.db.read(move |c| Ok((assets::store::newest(c, page)?.len() as u64, assets::store::count(c)?)));
    assert_eq!(counted.await.unwrap(), (total, total));
}

#[tokio::test]
async fn data_that_does_not_conform_is_kept_and_not_found_by_field() {
    let (house, schema) = archive().await;
    let judge = |seq: i64| {
        let schemas = house.schemas.clone();
        house.db.write(move |tx| {
            let id = assets::store::by_seq(tx, &[seq], false)?.remove(0).asset.id;
            schemas.settle(tx, id)
        })
    };
    assert_eq!(judge(3).await.unwrap(), crate::schemas::Verdict::Conforms);
    house
        .sql("UPDATE asset SET data = json_set(data, '$.price', -1, '$.filespin_search_txt', 'stays') WHERE seq = 3")
        .await;
    assert!(matches!(judge(3).await.unwrap(), crate::schemas::Verdict::Differs(_)));
    assert!(house.found(fields(schema, json!({"brand": "acme"}))).await.unwrap().is_empty());
    assert!(house.found(keyword("acme")).await.unwrap().is_empty());
    assert_eq!(house.found(keyword("stays")).await.unwrap(), [3]);
    house.sql("UPDATE asset SET data = json_set(data, '$.price', 1) WHERE seq = 3").await;
    assert_eq!(judge(3).await.unwrap(), crate::schemas::Verdict::Conforms);
    assert_eq!(house.found(fields(schema, json!({"brand": "acme"}))).await.unwrap(), [3]);
}

#[tokio::test]
async fn pages_are_of_the_moment_of_the_search() {
    let house = House::open();
    for n in 1..=450 {
        house.add(n, "photo.jpg", "image/jpeg", 0, json!({})).await;
    }
    let criteria = Criteria { per_page: 100, ..keyword("photo") };
    let first = house.search.search(criteria.clone()).await.unwrap();
    assert_eq!((first.pages, first.hits, numbers(&first)[0]), (5, 450, 450));
    house.add(451, "photo.jpg", "image/jpeg", 0, json!({})).await;
    house.sql("UPDATE asset SET trashed_at = 1 WHERE seq = 340").await;
    let second = house.search.page(first.id, 2, false).await.unwrap();
    assert_eq!(
        (numbers(&second)[0], second.assets.len()),
        (350, 100),
        "what has come since shifts nothing, what has gone is not shown"
    );
    let again = Search::new(house.db.clone());
    for search in [&house.search, &again] {
        let last = loop {
            // Written down after the answer.
            match search.page(first.id, 5, false).await {
                Err(e) if e.code == Code::SearchNotFound => tokio::task::yield_now().await,
                found => break found.unwrap(),
            }
        };
        assert_eq!(numbers(&last).first(), Some(&49));
        assert!(search.page(first.id, 6, false).await.unwrap().assets.is_empty());
    }
    let nobody = house.search.page(SearchId::random().unwrap(), 1, false).await;
    assert_eq!(nobody.err().unwrap().code, Code::SearchNotFound);
}

#[tokio::test]
async fn the_oldest_first_is_the_newest_first_turned_round() {
    let (house, schema) = (House::open(), 0);
    for n in 1..=300 {
        house.add(n, if n % 3 == 0 { "third.jpg" } else { "photo.jpg" }, "image/jpeg", schema, json!({})).await;
    }
    let at = |hours: i64| Some(Instant(NOON + hours * HOUR));
    for criteria in [
        Criteria::default(),
        keyword("third"),
        Criteria { uploaded: Some((at(5), None)), ..Criteria::default() },
        Criteria { uploaded: Some((at(5), at(280))), ..keyword("photo") },
        Criteria { size_bytes: Some((Some(2000), Some(299_000))), ..Criteria::default() },
    ] {
        let mut ways = Vec::new();
        for descending in [true, false] {
            let sort = vec![Sort { by: By::Uploaded, descending }];
            let first = house.search.search(Criteria { sort, per_page: 40, ..criteria.clone() }).await.unwrap();
            let mut all = numbers(&first);
            for page in 2..=first.pages {
                all.extend(numbers(&house.search.page(first.id, page, false).await.unwrap()));
            }
            ways.push(all);
        }
        assert!(ways[1].len() > 90 && ways[1].is_sorted(), "{criteria:?}: {:?}", ways[1]);
        ways[0].reverse();
        assert_eq!(ways[0], ways[1], "{criteria:?}");
    }
}

#[tokio::test]
async fn nothing_is_scanned() {
    let (house, _) = archive().await;
    let range = Numbers { field_id: 1, ranges: vec![(1.0, 2.0), (5.0, 6.0)] };
    let words = Some("{name words} : (\"a\")".to_owned());
    let legs = [
        Plan::default(),
        Plan { text: words.clone(), ..Plan::default() },
        Plan { uploaded: Some((0, 9)), ..Plan::default() },
        Plan { size: Some((0, 9)), ..Plan::default() },
        Plan { numbers: vec![range.clone()], ..Plan::default() },
        Plan {
            text: words,
            uploaded: Some((0, 9)),
            size: Some((0, 9)),
            numbers: vec![range.clone(), range],
            ..Plan::default()
        },
    ];
    let drivers = |plan: &Plan| {
        let mut drivers = vec![Driver::Trash];
        drivers.extend(plan.text.as_ref().map(|_| Driver::Text));
        drivers.extend(plan.uploaded.map(|_| Driver::Uploaded));
        drivers.extend(plan.uploaded.map(|_| Driver::FewUploaded));
        drivers.extend(plan.size.map(|_| Driver::FewSized));
        drivers.extend(plan.numbers.first().map(|_| Driver::Numbers(0)));
        drivers.extend(plan.numbers.first().map(|_| Driver::FewNumbers(0)));
        if plan.is_open() {
            drivers.extend([Driver::Sizes { descending: true }, Driver::Sizes { descending: false }]);
        }
        drivers.push(Driver::Rows);
        drivers
    };
    let rising = vec![Sort { by: By::Uploaded, descending: false }];
    let legs = legs.iter().flat_map(|plan| [plan.clone(), Plan { sort: rising.clone(), ..plan.clone() }]);
    let legs: Vec<_> = legs.collect();
    let explained = house
        .db
        .read(move |c| {
            let mut all = Vec::new();
            for plan in &legs {
                for driver in drivers(plan) {
                    let (sql, values) = store::statement(plan, driver, &[7], 50);
                    let mut rows = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    let steps = rows
                        .query_map(rusqlite::params_from_iter(values), |r| r.get::<_, String>(3))?
                        .collect::<rusqlite::Result<Vec<_>>>()?;
                    all.push((driver, sql, steps));
                }
            }
            Ok(all)
        })
        .await
        .unwrap();
    for (driver, sql, steps) in explained {
        println!("{driver:?}: {}", steps.join(" · "));
        for step in &steps {
            // How SQLite calls walking a list of matches, of which the index says where they are.
            let is_match = step.contains("VIRTUAL TABLE INDEX") && step.contains('M');
            assert!(!step.starts_with("SCAN") || is_match || driver == Driver::Rows, "{driver:?} scans: {step}\n{sql}");
            let is_few =
                matches!(driver, Driver::Trash | Driver::FewUploaded | Driver::FewSized | Driver::FewNumbers(_));
            assert!(!step.contains("TEMP B-TREE") || is_few, "{driver:?} sorts: {step}\n{sql}");
        }
    }
}
