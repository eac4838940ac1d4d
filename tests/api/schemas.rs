//! Schemas of custom metadata: made, listed, changed, deleted, and who may.

use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::PATIENCE;
use crate::harness::jpeg;

const SCHEMAS: &str = "/api/v1/assetschemas";

/// The contract's own example.
pub fn products() -> Value {
    json!({"name": {"en": "Product Assets"}, "status": "ACTIVE", "schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": [], "properties": {
            "product_name": {"type": "string", "maxLength": 200, "filespin_properties": {
                "title": {"en": "Product Name"}, "hint": {"en": "…"}, "placeholder": {"en": "…"},
                "searchable": true, "keyword_searchable": true, "filterable": false, "facetable": false,
                "ui": {"order": 1, "multiline": false, "readonly": false, "disabled": false, "hidden": false}}},
            "category": {"type": "string", "enum": ["clothing", "footwear"], "filespin_properties": {"searchable": true}},
            "price": {"type": "number", "filespin_properties": {"searchable": true}}}}})
}

fn send(app: &Appliance, method: &str, path: &str, body: &Value) -> Answer {
    app.call(method, path, &[AUTH, ("Content-Type", "application/json")], body.to_string().as_bytes())
}

#[test]
fn a_schema_is_made_read_changed_and_deleted() {
    let app = Appliance::start();
    let made = send(&app, "POST", SCHEMAS, &products()).json();
    let id = made["id"].as_i64().unwrap_or_default();
    assert!(id > 0 && made["schema"] == products()["schema"] && made["name"]["en"] == "Product Assets", "{made}");
    let one = format!("{SCHEMAS}/{id}");
    assert_eq!(app.json(&one), made);
    let listed = app.json(SCHEMAS);
    assert_eq!((&listed["total"], &listed["schemas"][0]["id"], &listed["schemas"][1]), (&json!(2), &json!(0), &made));

    for method in ["PUT", "PATCH"] {
        let changed = send(&app, method, &one, &json!({"name": "Goods", "status": "INACTIVE", "page": 2})).json();
        assert_eq!(changed["name"], json!({"en": "Goods"}));
        assert_eq!(
            (&changed["status"], &changed["schema"]),
            (&json!("INACTIVE"), &made["schema"]),
            "what is left out stays"
        );
    }
    let form = Form::new().file("file", "p.jpg", &jpeg(30, 20));
    app.upload(form.field("custom_metadata", &json!({"data": {}, "data_schema_id": id}).to_string()));
    send(&app, "DELETE", &one, &Value::Null).refused(409, "SCHEMA_IN_USE");
    let other = send(&app, "POST", SCHEMAS, &products()).json()["id"].clone();
    let other = format!("{SCHEMAS}/{other}");
    assert_eq!(send(&app, "DELETE", &other, &Value::Null).json()["status"], "OK");
    app.call("GET", &other, &[AUTH], b"").refused(404, "SCHEMA_NOT_FOUND");
}

#[test]
fn a_changed_schema_is_applied_to_what_is_there() {
    let app = Appliance::start();
    let plain =
        json!({"name": "x", "schema": {"properties": {"note": {"type": "string"}, "size": {"type": "number"}}}});
    let id = send(&app, "POST", SCHEMAS, &plain).json()["id"].clone();
    let data = json!({"data": {"note": "green apple", "size": 5}, "data_schema_id": id});
    let form = Form::new().file("file", "p.jpg", &jpeg(30, 20)).field("custom_metadata", &data.to_string());
    let asset = app.upload(form).json()["assets"][0]["id"].clone();
    let found = |asked: &Value| app.post_json("/api/v1/search", &asked.to_string());
    let by_word = json!({"keyword": "apple"});
    let by_field = json!({"schema_criteria": {"data_schema_id": id, "fields": {"note": "green", "size": ">=5"}}});
    assert_eq!(found(&by_word).json()["result"], json!([]));
    found(&by_field).refused(400, "INVALID_REQUEST");

    let change = |note: Value, most: u32| {
        let size = json!({"type": "number", "maximum": most, "filespin_properties": {"searchable": true}});
        let schema = json!({"properties": {"note": {"type": "string", "filespin_properties": note}, "size": size}});
        assert_eq!(send(&app, "PUT", &format!("{SCHEMAS}/{id}"), &json!({"schema": schema})).status, 200);
    };
    let becomes = |asked: &Value, want: &Value| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while found(asked).json()["result"] != *want {
            assert!(std::time::Instant::now() < deadline, "{asked} still finds {}", found(asked).text());
        }
    };
    let both = json!({"searchable": true, "keyword_searchable": true});
    change(both.clone(), 9);
    becomes(&by_word, &json!([asset]));
    becomes(&by_field, &json!([asset]));
    // By these rules it does not conform any more.
    change(both, 3);
    becomes(&by_word, &json!([]));
}

#[test]
fn a_new_schema_is_applied_to_what_named_its_number_before() {
    let app = Appliance::start();
    let upload = |name: &str, price: Value| {
        let data = json!({"data": {"product_name": name, "price": price}, "data_schema_id": 1});
        let form = Form::new().file("file", "p.jpg", &jpeg(30, 20)).field("custom_metadata", &data.to_string());
        app.upload(form).json()["assets"][0]["id"].clone()
    };
    let (conforms, _) = (upload("green apple", json!(5)), upload("red apple", json!("five")));
    let found = |asked: &Value| app.post_json("/api/v1/search", &asked.to_string());
    assert_eq!(found(&json!({"keyword": "apple"})).json()["result"], json!([]), "nobody says yet what is searched");
    let made = send(&app, "POST", SCHEMAS, &products()).json();
    assert_eq!(made["id"], 1, "the number that the data named");
    let asked = json!({"schema_criteria": {"data_schema_id": 1, "fields": {"product_name": "apple", "price": ">=5"}}});
    let deadline = std::time::Instant::now() + PATIENCE;
    while found(&asked).json()["result"] != json!([conforms]) {
        assert!(std::time::Instant::now() < deadline, "it still finds {}", found(&asked).text());
    }
    assert_eq!(found(&json!({"keyword": "apple"})).json()["result"], json!([conforms]), "the other does not conform");
    send(&app, "DELETE", &format!("{SCHEMAS}/1"), &Value::Null).refused(409, "SCHEMA_IN_USE");
}

#[test]
fn the_default_schema_is_there_and_stays() {
    let app = Appliance::start();
    let default = app.json(&format!("{SCHEMAS}/0"));
    assert_eq!(default["name"]["en"], "FileSpin Asset Schema");
    let text = &default["schema"]["properties"]["filespin_search_txt"];
    assert_eq!((&text["type"], &text["maxLength"]), (&json!("string"), &json!(200)));
    let answer = app.get("/api/v1/json-schema/Asset.CustomMetadata.v1.schema.json");
    assert_eq!((answer.status, &*answer.header("content-type")), (200, "application/schema+json"));
    assert_eq!(answer.json(), default["schema"]);
    let id = default["schema"]["$id"].as_str().unwrap_or_default().to_owned();
    assert!(
        id.starts_with("http://") && id.ends_with("/api/v1/json-schema/Asset.CustomMetadata.v1.schema.json"),
        "{id}"
    );
    send(&app, "PUT", &format!("{SCHEMAS}/0"), &products()).refused(403, "FORBIDDEN");
    send(&app, "DELETE", &format!("{SCHEMAS}/0"), &Value::Null).refused(403, "FORBIDDEN");
}

#[test]
fn what_is_no_schema_is_refused() {
    let app = Appliance::start();
    let with = |schema: Value| json!({"name": {"en": "x"}, "schema": schema});
    for bad in [
        json!([]),
        json!({"type": "strong"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "#"}),
        json!({"properties": {"a": {"pattern": "(a+)+\\1"}}}),
        json!({"description": "x".repeat(70_000)}),
        (0..60).fold(json!({}), |inner, _| json!({"not": inner})),
    ] {
        send(&app, "POST", SCHEMAS, &with(bad)).refused(400, "INVALID_SCHEMA");
    }
    for bad in [json!({}), json!({"name": "x"}), json!({"name": 5, "schema": {}}), json!({"name": {}, "schema": {}})] {
        send(&app, "POST", SCHEMAS, &bad).refused(400, "INVALID_REQUEST");
    }
    send(&app, "POST", SCHEMAS, &json!({"name": "x", "status": "ODD", "schema": {}})).refused(400, "INVALID_REQUEST");
    let deep = format!("{{\"name\":\"x\",\"schema\":{}{}}}", "[".repeat(300), "]".repeat(300));
    app.post_json(SCHEMAS, &deep).refused(400, "INVALID_REQUEST");
    app.post_json(SCHEMAS, &"x".repeat(300 * 1024)).refused(413, "TOO_LARGE");
    for id in ["999", "-1", "abc", "1%27--", "99999999999999999999"] {
        app.call("GET", &format!("{SCHEMAS}/{id}"), &[AUTH], b"").refused(404, "SCHEMA_NOT_FOUND");
    }
    app.get(SCHEMAS).refused(401, "UNAUTHORIZED");
}
