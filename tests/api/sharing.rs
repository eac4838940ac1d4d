//! Links that carry a right, and contents that everybody may read.

use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::Form;
use crate::harness::jpeg;

const UPDATE: &str = "/api/v1/user/settings/update";

/// The address of a link, as this box serves it; whole when it leads elsewhere.
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a step of a test fails by panicking, too")]
fn link(app: &Appliance, path: &str) -> String {
    let url = app.json(path)["url"].as_str().unwrap().to_owned();
    let at = url.find("/api/v1/").unwrap_or_default();
    assert!(url.starts_with("http://"), "{url}");
    url[at..].to_owned()
}

fn access_id(app: &Appliance, email: &str) -> String {
    let listed = String::from_utf8_lossy(&app.cli(&["user", "list"]).stdout).into_owned();
    let found = listed.lines().find(|line| line.ends_with(email)).and_then(|line| line.split_whitespace().nth(2));
    found.unwrap_or_default().to_owned()
}

#[test]
fn a_link_opens_one_content_without_a_key() {
    let app = Appliance::start();
    let body = jpeg(300, 200);
    let id = app.keep("p.jpg", &body);
    let ask = format!("/api/v1/assets/{id}/get_link");
    let saved = link(&app, &format!("{ask}?key=original"));
    let answer = app.get(&saved);
    assert!(answer.status == 200 && answer.body == body);
    assert!(answer.header("content-disposition").starts_with("attachment"), "to keep, unless said otherwise");
    let shown = link(&app, &format!("{ask}?key=original&delivery=display&expiry=60&link_type=cdn"));
    assert!(app.get(&shown).header("content-disposition").starts_with("inline"));
    let part = app.call("GET", &shown, &[("Range", "bytes=0-9")], b"");
    assert_eq!((part.status, part.body.len()), (206, 10));

    app.get(&saved.replace("delivery=download", "delivery=display")).refused(403, "FORBIDDEN");
    let other = app.keep("q.jpg", &jpeg(30, 20));
    app.get(&saved.replace(&id, &other)).refused(403, "FORBIDDEN");

    let longest = link(&app, &format!("{ask}?key=original&expiry=MAX"));
    assert!(longest.contains("expiry=2147483647"), "{longest}");
    let week = link(&app, &format!("{ask}?key=original&expiry=MAX&link_type=object_storage"));
    // Where originals go to a bucket it leads there, as soon as it is there.
    let is_there = week.contains("X-Amz-Expires=604800") || app.get(&week).status == 200;
    assert!(!week.contains("expiry=2147483647") && is_there, "{week}");
}

#[test]
fn what_is_asked_of_a_link_has_to_make_sense() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let ask = |query: &str| app.call("GET", &format!("/api/v1/assets/{id}/get_link?{query}"), &[AUTH], b"");
    ask("").refused(400, "MISSING_MANDATORY_PARAMETERS");
    ask("key=720p-video").refused(404, "CONTENT_NOT_FOUND");
    ask("key=smart_imaging").refused(404, "CONTENT_NOT_FOUND");
    for bad in ["expiry=soon", "expiry=0", "expiry=-5", "delivery=mail", "link_type=tape"] {
        ask(&format!("key=original&{bad}")).refused(400, "INVALID_REQUEST");
    }
    app.get(&format!("/api/v1/assets/{id}/get_link?key=original")).refused(401, "UNAUTHORIZED");
    let made = app.cli(&["user", "add", "other@example.com"]);
    assert!(made.status.success());
    ask(&format!("key=original&accessId={}", access_id(&app, "other@example.com"))).refused(403, "FORBIDDEN");
    let own = ask(&format!("key=original&accessId={}", access_id(&app, crate::harness::EMAIL)));
    assert_eq!(own.status, 200);
}

#[test]
fn many_links_at_once() {
    let app = Appliance::start();
    let ids = [app.keep("a.jpg", &jpeg(30, 20)), app.keep("b.jpg", &jpeg(30, 20))];
    let missing = "0".repeat(32);
    let ask = |body: &Value| app.post_json("/api/v1/assets/get_link?key=original", &body.to_string());
    let answer = ask(&json!([ids[0], ids[1], missing, "nonsense"])).json();
    for id in &ids {
        assert_eq!(answer["links"][id]["url"], answer[id]["url"]);
        assert!(answer[id]["url"].as_str().is_some_and(|url| url.contains(id.as_str())), "{answer}");
    }
    assert_eq!(answer["errors"], json!({missing: "ASSET_NOT_FOUND", "nonsense": "ASSET_NOT_FOUND"}));
    ask(&json!(vec![ids[0].clone(); 101])).refused(400, "INVALID_REQUEST");
}

#[test]
fn contents_are_made_public_and_private_again() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let content = format!("/api/v1/assets/{id}/content");
    let call = |verb: &str| {
        let body = json!({"keys": ["original", "720p-video"]}).to_string();
        app.post_json(&format!("{content}/{verb}"), &body).json()
    };
    app.get(&format!("{content}/original")).refused(401, "UNAUTHORIZED");
    assert_eq!(call("set_public_access")["keys"], json!(["original"]), "what is not there is ignored");
    assert_eq!(app.get(&format!("{content}/original")).status, 200);
    assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["public"], true);
    assert_eq!(call("remove_public_access")["keys"], json!(["original"]));
    app.get(&format!("{content}/original")).refused(401, "UNAUTHORIZED");
    let nowhere = format!("/api/v1/assets/{}/content/set_public_access", "0".repeat(32));
    app.post_json(&nowhere, "{\"keys\": []}").refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn what_somebody_said_of_one_asset_outlives_making_it_again() {
    let app = Appliance::start();
    let entry = |key: &str, public: bool| {
        json!({"key": key, "value": {"format": "jpg", "watermark": false, "enabled": true, "public": public,
                                     "width": 100, "height": 0, "dpi": 72}})
    };
    let value = json!({"is_on_demand_private": false, "conversions": [entry("open", true), entry("closed", false)]});
    let body = json!({"key": "image", "value": value}).to_string();
    assert_eq!(app.call("PATCH", UPDATE, &[AUTH], body.as_bytes()).status, 200);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let data = format!("/api/v1/assets/{id}/data");
    let has = |data: &Value| data["conversions"]["open"].is_object() && data["conversions"]["closed"].is_object();
    let say = |verb: &str, key: &str| {
        let keys = json!({"keys": [key]}).to_string();
        assert_eq!(app.post_json(&format!("/api/v1/assets/{id}/{verb}"), &keys).status, 200, "{verb}");
    };
    // Who may see the two, as the data tells it and as strangers find it.
    let seen = || {
        let data = app.until(&data, has);
        ["open", "closed"].map(|key| {
            let told = data["conversions"][key]["public"] == true;
            let answer = app.get(&format!("/api/v1/assets/{id}/conversions/{key}"));
            assert_eq!((answer.status == 200, answer.status == 401), (told, !told), "{key}: {}", answer.status);
            told
        })
    };
    assert_eq!(seen(), [true, false], "as the settings say");
    say("content/remove_public_access", "open");
    say("content/set_public_access", "closed");
    assert_eq!(seen(), [false, true]);

    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\": [\"open\", \"closed\"]}").json();
    app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| job["status"] == "COMPLETED");
    assert_eq!(seen(), [false, true], "made again");
    let replaced = app.send(
        &format!("/api/v1/assets/{id}/content/original/replace"),
        Form::new().file("file", "q.jpg", &jpeg(400, 300)),
    );
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    assert_eq!(seen(), [false, true], "made of another original");
    say("delete", "original");
    say("undelete", "original");
    assert_eq!(seen(), [false, true], "fetched out of the trash");

    // A key that is deleted begins anew.
    say("delete", "open");
    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\": [\"open\"]}").json();
    app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| job["status"] == "COMPLETED");
    assert_eq!(seen(), [true, true], "as the settings say, and as somebody said");
}
