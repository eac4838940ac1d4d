//! Processing on demand, and the jobs that tell how far it is.

use rusqlite::Connection;
use rusqlite::OpenFlags;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::jpeg;

#[test]
fn a_job_can_be_followed_to_its_end() {
    let app = Appliance::start();
    let id = app.saved("p.jpg", &jpeg(2500, 1500))["id"].as_str().unwrap().to_owned();
    let process = format!("/api/v1/assets/{id}/process");
    let answer = app.post_json(&process, r#"{"keys": ["smart_imaging", "no_such_key"]}"#);
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("QUEUED")), "{}", answer.text());
    let number = answer.json()["job_id"].as_i64().unwrap();

    let job = app.until(&format!("/api/v1/jobs/{number}"), |job| job["status"] == "COMPLETED");
    assert_eq!((&job["asset_id"], &job["type"]), (&json!(id), &json!("IMAGE")));
    let steps = job["job_steps"]["conversions"].as_object().unwrap();
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["smart_imaging"], "unknown keys are ignored");
    assert_eq!(steps["smart_imaging"]["percent_complete"], 100);
    let listed = app.json("/api/v1/jobs?limit=1");
    assert_eq!((&listed["jobs"][0]["job_id"], &listed["count"]), (&json!(number), &json!(1)));
    assert_eq!(listed["total"], 2, "one by itself after the upload, one that was asked for");
    let data = app.json(&format!("/api/v1/assets/{id}/data"));
    assert_eq!(data["addons_info"]["ON_DEMAND_IMAGE"]["available"], true);
    // Looked at with the base image, beside what the header had said.
    let seen = &data["metadata"];
    assert_eq!((&seen["width"], &seen["height"]), (&json!(2500), &json!(1500)));
    assert!(seen["thumbhash"].as_str().is_some_and(|hash| (8..48).contains(&hash.len())), "{seen}");
    assert!(seen["colors"][0]["color"].as_str().is_some_and(|c| c.len() == 7 && c.starts_with('#')), "{seen}");
    assert!(seen["colors"][0]["share"].as_f64().is_some_and(|share| share > 0.0 && share <= 1.0), "{seen}");

    // What happened, for those who are told: saved once, processed by itself and when asked.
    let path = app.data_dir().join("cloakroom.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = database.prepare("SELECT event FROM journal WHERE asset_id = ?1 ORDER BY seq").unwrap();
    let events: Vec<String> = rows.query_map([&id], |row| row.get(0)).unwrap().flatten().collect();
    assert_eq!(events, ["file-saved", "file-processed", "file-processed"]);
}

#[test]
fn what_cannot_be_processed() {
    let app = Appliance::start();
    let text = app.saved("a.txt", b"some text\n")["id"].as_str().unwrap().to_owned();
    let broken = app.saved("a.jpg", b"not a picture")["id"].as_str().unwrap().to_owned();
    let nothing = "0".repeat(32);
    for (id, body, status, message) in [
        (&nothing, r#"{"keys": ["smart_imaging"]}"#, 404, "ASSET_NOT_FOUND"),
        (&broken, r#"{"keys": ["smart_imaging"]}"#, 400, "ASSET_INVALID"),
        (&text, r#"{"keys": "smart_imaging"}"#, 400, "INVALID_REQUEST"),
        (&text, "", 400, "INVALID_REQUEST"),
        (&text, "[", 400, "INVALID_REQUEST"),
    ] {
        app.post_json(&format!("/api/v1/assets/{id}/process"), body).refused(status, message);
    }
    for body in [r#"{"keys": ["no_such_key"]}"#, r#"{"keys": ["smart_imaging"]}"#, r#"{"keys": [], "more": 1}"#] {
        let answer = app.post_json(&format!("/api/v1/assets/{text}/process"), body);
        assert_eq!((answer.status, answer.json().get("job_id")), (202, None), "{body}: {}", answer.text());
    }
    for number in ["999", "-1", "x"] {
        app.call("GET", &format!("/api/v1/jobs/{number}"), &[AUTH], b"").refused(404, "JOB_NOT_FOUND");
    }
    app.call("GET", "/api/v1/jobs?limit=x", &[AUTH], b"").refused(400, "INVALID_REQUEST");
}
