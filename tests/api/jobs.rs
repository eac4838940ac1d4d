//! Processing on demand, and the jobs that tell how far it is.

#![expect(clippy::disallowed_methods, reason = "rows are planted behind the back of the server")]

use std::time::Duration;

use rusqlite::Connection;
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
    assert_eq!(
        job["callback"],
        json!({"event": "file-processed", "id": id, "keys": ["smart_imaging"], "status": "OK", "message": "",
               "statusMsg": ""})
    );
    assert_eq!(job.get("progress"), None, "that is of jobs about many");
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
    let events: Vec<_> = app.journal(&id).into_iter().map(|(event, _)| event).collect();
    assert_eq!(events, ["file-saved", "file-processed", "file-processed"]);
}

#[test]
fn what_nothing_is_made_of_is_told_of_like_everything() {
    let app = Appliance::start();
    let told = |id: &str| app.journal(id).into_iter().map(|(event, _)| event).collect::<Vec<_>>();
    for (name, body) in [("a.txt", &b"some text\n"[..]), ("a.zip", b"PK\x03\x04 and so on"), ("a.jpg", b"no picture")] {
        let id = app.saved(name, body)["id"].as_str().unwrap().to_owned();
        assert_eq!(told(&id), ["file-saved", "file-processed"], "{name}");
        assert_eq!(app.journal(&id)[1].1, json!({"revision": 1}), "{name}: there is no job");
    }
    let id = app.saved("b.txt", b"more text\n")["id"].as_str().unwrap().to_owned();
    app.call("DELETE", &format!("/api/v1/assets/{id}"), &[AUTH], b"");
    app.post_json(&format!("/api/v1/assets/{id}/undelete"), "");
    assert_eq!(told(&id)[2..], ["file-deleted", "file-undeleted", "file-processed"]);
    assert_eq!(app.json("/api/v1/jobs")["total"], 0);
}

#[test]
fn a_callback_says_how_it_ended_and_nothing_before() {
    let app = Appliance::start();
    let rows = Connection::open(app.data_dir().join("cloakroom.db")).unwrap();
    rows.busy_timeout(Duration::from_mins(1)).unwrap();
    // A round that nobody here can do: of a picture that is there, of one that goes, and of many. Between their
    // numbers is room for the jobs that their ends owe.
    let plant = |round: i64, asset: Option<&str>, kind: &str, key: &str, outcome: &str| {
        rows.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO job (id, kind, queue, args, state, run_at, created_at)
                 VALUES ({round}, 'test.none', 'nowhere', '{{}}', 'available', 1, 1);
             INSERT INTO round (id, asset_id, revision, creator_id, kind, status, requested_at, outcome)
                 VALUES ({round}, {}, 1, 1, '{kind}', 'QUEUED', 1000, '{outcome}');
             INSERT INTO step (round_id, key, status, job_id) VALUES ({round}, '{key}', 'QUEUED', {round});
             COMMIT;",
            asset.map_or("NULL".to_owned(), |id| format!("'{id}'")),
        ))
        .unwrap();
        let job = app.json(&format!("/api/v1/jobs/{round}"));
        assert_eq!((&job["status"], &job["callback"]), (&json!("QUEUED"), &json!({})), "{job}");
    };
    let ids: Vec<_> =
        ["a.txt", "b.txt"].map(|name| app.saved(name, b"some text\n")["id"].as_str().unwrap().to_owned()).into();

    plant(4000, Some(&ids[0]), "IMAGE", "deepzoom", "{}");
    let cancelled = app.post_json("/api/v1/jobs/4000/cancel", "").json();
    let why = &cancelled["message"];
    assert!(why.as_str().unwrap().starts_with("Cancelled by "), "{cancelled}");
    assert_eq!(
        cancelled["callback"],
        json!({"event": "file-processed", "id": ids[0], "keys": ["deepzoom"], "status": "ERROR", "message": why,
               "statusMsg": why, "errors": {"deepzoom": why}})
    );
    assert_eq!(
        app.journal(&ids[0]).pop().unwrap(),
        ("file-processed".to_owned(), json!({"job_id": 4000, "revision": 1}))
    );

    // What went with its asset was not processed, and nobody was told so.
    plant(4100, Some(&ids[1]), "IMAGE", "deepzoom", "{}");
    app.call("DELETE", &format!("/api/v1/assets/{}", ids[1]), &[AUTH], b"");
    let job = app.json("/api/v1/jobs/4100");
    assert_eq!(job["callback"], json!({"status": "ERROR", "message": "The asset was deleted."}), "{job}");
    assert_eq!(app.journal(&ids[1]).pop().unwrap().0, "file-deleted");

    plant(4200, None, "BULK_DELETE", "delete", r#"{"total": 9, "done": 4, "errors": {}}"#);
    let counted = json!({"total": 9, "done": 4, "errors": {}});
    assert_eq!(app.json("/api/v1/jobs/4200")["progress"], counted);
    assert_eq!(app.post_json("/api/v1/jobs/4200/cancel", "").json()["callback"], counted);
    plant(4300, None, "BULK_DELETE", "delete", "{}");
    let job = app.post_json("/api/v1/jobs/4300/cancel", "").json();
    assert_eq!(job["callback"], json!({"status": "ERROR", "message": job["message"]}));
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
