//! Search: what is found, in which order, page by page, and what is not understood.

#![expect(
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too, and say what they ask in few words"
)]

use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::jpeg;
use crate::harness::png;
use crate::schemas::products;

const SEARCH: &str = "/api/v1/search";

fn keep(app: &Appliance, name: &str, body: &[u8], metadata: &Value) -> String {
    let form = Form::new().file("file", name, body).field("custom_metadata", &metadata.to_string());
    app.upload(form).json()["assets"][0]["id"].as_str().unwrap_or_default().to_owned()
}

fn found(app: &Appliance, asked: &Value) -> Vec<String> {
    let answer = app.post_json(SEARCH, &asked.to_string());
    assert_eq!(answer.status, 200, "{asked}: {}", answer.text());
    let said = answer.json();
    let ids: Vec<String> = serde_json::from_value(said["result"].clone()).unwrap_or_default();
    for id in &ids {
        assert_eq!(said["extended_result"][id]["id"], json!(id), "the same assets are told in full");
    }
    ids
}

#[test]
fn assets_are_found_by_all_that_can_be_asked() {
    let app = Appliance::start();
    let schema = app.post_json("/api/v1/assetschemas", &products().to_string()).json()["id"].clone();
    let of = |data: Value| json!({"data": data, "data_schema_id": schema});
    let a = keep(&app, "Sunset beach.jpg", &jpeg(300, 200), &json!({"data": {"filespin_search_txt": "MY_ID"}}));
    let b = keep(
        &app,
        "IMG_0042.PNG",
        &png(30, 20, false),
        &of(json!({"product_name": "Red shoe", "category": "footwear", "price": 80})),
    );
    let c = keep(
        &app,
        "IMG_0043.jpg",
        &jpeg(31, 20),
        &of(json!({"product_name": "Blue shirt", "category": "clothing", "price": 20.5})),
    );
    for (asked, want) in [
        (json!({}), vec![&c, &b, &a]),
        (json!({"page": 2, "junk": [null]}), vec![&c, &b, &a]),
        (json!({"keyword": "MY_ID"}), vec![&a]),
        (json!({"keyword": "sunset AND beach"}), vec![&a]),
        (json!({"keyword": "\"red shoe\" OR my_id"}), vec![&b, &a]),
        (json!({"keyword": "sho*"}), vec![&b]),
        (json!({"keyword": "footwear"}), vec![]),
        (json!({"file_name": "IMG*"}), vec![&c, &b]),
        (json!({"file_name": "sun* OR IMG_0042*"}), vec![&b, &a]),
        (json!({"content_type": "image/png OR video*"}), vec![&b]),
        (json!({"content_type": "image*", "keyword": "img*"}), vec![&c, &b]),
        (json!({"creator_id": 1}), vec![&c, &b, &a]),
        (json!({"creator_id": 2}), vec![]),
        (json!({"upload_time_range": {"start": "2020-01-01T00:00:00Z"}}), vec![&c, &b, &a]),
        (json!({"upload_time_range": {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01"}}), vec![]),
        (json!({"file_size_range": {"start": 1, "end": 100_000}, "keyword": "shoe"}), vec![&b]),
        (json!({"schema_criteria": {"data_schema_id": schema}}), vec![&c, &b]),
        (json!({"schema_criteria": {"data_schema_id": schema, "fields": {"category": "footwear"}}}), vec![&b]),
        (
            json!({"schema_criteria": {"data_schema_id": schema, "fields": {"product_name": "red OR blue", "price": "..50"}}}),
            vec![&c],
        ),
        (json!({"schema_criteria": {"data_schema_id": schema, "fields": {"price": "[50 TO 100]"}}}), vec![&b]),
        (json!({"sort_by": ["upload_time_range_ASC"]}), vec![&a, &b, &c]),
        (json!({"sort_by": ["file_size_range_DESC"], "limit_per_page": 1}), vec![&a]),
        (json!({"sort_by": "content_type_DESC"}), vec![&b, &c, &a]),
        (json!({"keyword": "shoe OR img*", "sort_by": ["relevance_DESC"]}), vec![&b, &c]),
        (json!({"trashed": true}), vec![]),
    ] {
        let want: Vec<String> = want.into_iter().cloned().collect();
        assert_eq!(found(&app, &asked), want, "{asked}");
    }
}

#[test]
fn further_pages_are_asked_by_the_number_of_the_search() {
    let mut app = Appliance::start();
    let mut ids: Vec<String> = (0..5).map(|n| app.keep("p.jpg", &jpeg(30 + n, 20))).collect();
    ids.reverse();
    let first = app.post_json(SEARCH, &json!({"keyword": "p", "limit_per_page": 2}).to_string()).json();
    assert_eq!((&first["result"], &first["total_pages"]), (&json!(ids[..2]), &json!(3)));
    let search = first["search_result_id"].as_str().unwrap_or_default().to_owned();
    app.keep("p.jpg", &jpeg(60, 20));
    let pages = |app: &Appliance| {
        let page = |n: u32| app.json(&format!("{SEARCH}/{search}/{n}"))["result"].clone();
        assert_eq!(
            [page(1), page(2), page(3), page(4)],
            [json!(ids[..2]), json!(ids[2..4]), json!(ids[4..]), json!([])]
        );
    };
    pages(&app);
    app.restart();
    pages(&app);
    for (path, status, word) in [
        ("0/1".to_owned(), 404, "SEARCH_NOT_FOUND"),
        (format!("{}/1", "0".repeat(32)), 404, "SEARCH_NOT_FOUND"),
        (format!("{search}/0"), 400, "INVALID_REQUEST"),
        (format!("{search}/x"), 400, "INVALID_REQUEST"),
        (format!("{search}/99999999999999999999999"), 400, "INVALID_REQUEST"),
    ] {
        app.call("GET", &format!("{SEARCH}/{path}"), &[AUTH], b"").refused(status, word);
    }
    assert_eq!(app.json(&format!("{SEARCH}/{search}/18446744073709551615"))["result"], json!([]));
}

#[test]
fn what_is_not_understood_is_refused_in_a_sentence() {
    let app = Appliance::start();
    app.keep("p.jpg", &jpeg(30, 20));
    for asked in [
        json!({"keyword": "a AND b OR c"}),
        json!({"keyword": "(a"}),
        json!({"keyword": "\"a"}),
        json!({"keyword": "a".repeat(3) + "\u{0}"}),
        json!({"keyword": "w ".repeat(41)}),
        json!({"keyword": 5}),
        json!({"file_name": "a^2"}),
        json!({"content_type": "image') OR 1=1"}),
        json!({"creator_id": "one"}),
        json!({"upload_time_range": {"start": "soon"}}),
        json!({"upload_time_range": "today"}),
        json!({"file_size_range": {"start": -1}}),
        json!({"schema_criteria": {"fields": {}}}),
        json!({"schema_criteria": {"data_schema_id": 77, "fields": {}}}),
        json!({"schema_criteria": {"data_schema_id": 0, "fields": {"nothing": "x"}}}),
        json!({"sort_by": ["name_DESC"]}),
        json!({"limit_per_page": "all"}),
        json!([]),
        json!("x"),
    ] {
        let said = app.post_json(SEARCH, &asked.to_string()).refused(400, "INVALID_REQUEST");
        assert!(said.len() > 10, "{asked}: {said}");
    }
    // Whatever a word holds, it is a word.
    for word in [
        "O'Brien",
        "a;b",
        "x' OR '1'='1",
        "100%",
        "a_b",
        "NEAR",
        "NOT",
        "col:x",
        "{a}",
        "-a",
        "a*b",
        "💥",
        "a\"\"b",
        "\\",
        "a--",
    ] {
        let answer = app.post_json(SEARCH, &json!({"keyword": word, "file_name": word}).to_string());
        assert!(matches!(answer.status, 200 | 400), "{word}: {}", answer.text());
    }
    app.post_json(SEARCH, &format!("{}{}", "[".repeat(300), "]".repeat(300))).refused(400, "INVALID_REQUEST");
    app.post_json(SEARCH, &" ".repeat(10 << 20)).refused(413, "TOO_LARGE");
    app.call("POST", SEARCH, &[], b"{}").refused(401, "UNAUTHORIZED");
}

#[test]
fn the_list_of_assets_says_how_many_there_are() {
    let app = Appliance::start();
    let mut ids: Vec<String> = (0..4).map(|n| app.keep("p.jpg", &jpeg(30 + n, 20))).collect();
    ids.reverse();
    let page = app.json("/api/v1/assets?offset=1&limit=2");
    let listed: Vec<&Value> = page["assets"].as_array().into_iter().flatten().map(|asset| &asset["id"]).collect();
    assert_eq!((listed, &page["total"]), (vec![&json!(ids[1]), &json!(ids[2])], &json!(4)));
    assert_eq!(app.json("/api/v1/assets?offset=4000000000")["assets"], json!([]));
}
