//! Settings, and what they change for those who look at pictures: private boxes, signed links,
//! presets, named conversions, the watermark.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::KEY;
use crate::harness::jpeg;
use crate::harness::pixels;
use crate::harness::png;

const UPDATE: &str = "/api/v1/user/settings/update";
/// Seconds since 1970, far ahead.
pub const LATER: u64 = 4_102_444_800;

/// Waits until these conversions are made.
fn until_made(app: &Appliance, id: &str, keys: &[&str]) {
    app.until(&format!("/api/v1/assets/{id}/data"), |data| {
        keys.iter().all(|key| data.pointer(&format!("/conversions/{key}")).is_some_and(Value::is_object))
    });
}

fn image(app: &Appliance, value: &Value) {
    let body = json!({"key": "image", "value": value}).to_string();
    let answer = app.call("PATCH", UPDATE, &[AUTH], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// As the vendor's guide tells integrators to do it.
#[expect(clippy::unwrap_used, reason = "a step of a test fails by panicking, too")]
pub fn signed(app: &Appliance, path: &str, expiry: u64) -> String {
    let listed = String::from_utf8(app.cli(&["user", "list"]).stdout).unwrap();
    let line = listed.lines().find(|line| line.ends_with(EMAIL)).unwrap();
    let access_id = line.split_whitespace().nth(2).unwrap();
    let glue = if path.contains('?') { '&' } else { '?' };
    let text = format!("{path}{glue}expiry={expiry}&accessId={access_id}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, KEY.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("/api/v1/assets/{text}&signature={signature}")
}

#[test]
fn a_section_is_replaced_whole_and_survives_a_restart() {
    let mut app = Appliance::start();
    let before = app.json("/api/v1/user/settings");
    assert_eq!(before["image"], json!({"is_on_demand_private": false, "conversions": []}));
    for section in ["storage", "auth", "webhook", "database", "image", "video", "addons"] {
        assert!(before[section].is_object(), "{section}");
    }
    assert!(before.get("watermark").is_none(), "no mark is set");
    let value = json!({"is_on_demand_private": true, "focal_point": {"x": 0.25, "y": 0.5}, "conversions": [
        {"key": "web500", "value": {"format": "jpg", "watermark": false, "enabled": true, "public": true,
                                    "width": 500, "height": 300, "dpi": 300}},
        {"key": "deepzoom", "value": {"watermark": false, "enabled": false, "public": true}},
    ]});
    image(&app, &value);
    assert_eq!(app.json("/api/v1/user/settings")["image"], value);
    app.restart();
    assert_eq!(app.json("/api/v1/user/settings")["image"], value);

    for (body, word) in [
        (json!({"key": "nonsense", "value": {}}), "nonsense"),
        (json!({"key": "image", "value": {"is_on_demand_private": 1, "conversions": []}}), "boolean"),
        (json!({"key": "watermark", "value": {"watermarkPlacement": "left", "watermarkScale": 1}}), "top-left"),
        (json!({"key": "watermark", "value": {"watermarkPlacement": "center", "watermarkScale": 2}}), "at most 1"),
    ] {
        let answer = app.call("PATCH", UPDATE, &[AUTH], body.to_string().as_bytes());
        let detail = answer.refused(400, "INVALID_REQUEST");
        assert!(detail.contains(word), "{body}: {detail}");
    }
    let bare = json!({"key": "x", "value": {"watermark": false, "enabled": true}});
    for (body, word) in [
        (json!({"key": "image", "value": {"conversions": []}}), "is_on_demand_private"),
        (
            json!({"key": "image", "value": {"is_on_demand_private": true, "conversions": [bare]}}),
            "conversions/0/value/public",
        ),
        (
            json!({"key": "image", "value": {"is_on_demand_private": true, "conversions": [{"key": "x"}]}}),
            "conversions/0/value",
        ),
        (json!({"key": "watermark", "value": {"watermarkPlacement": "center"}}), "watermarkScale"),
        (json!({"key": "watermark", "value": {}}), "watermarkPlacement, watermarkScale"),
    ] {
        let answer = app.call("PATCH", UPDATE, &[AUTH], body.to_string().as_bytes());
        let detail = answer.refused(400, "MISSING_MANDATORY_PARAMETERS");
        assert!(detail.ends_with(&format!("missing: {word}")), "{body}: {detail}");
    }
    assert_eq!(app.json("/api/v1/user/settings")["image"], value, "nothing changed");
}

#[test]
fn a_private_box_shows_pictures_to_those_who_may_and_to_signed_links() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let path = format!("/api/v1/assets/{id}/conversions?resize=90,90");
    assert!(app.get(&path).header("cache-control").starts_with("public"));
    image(&app, &json!({"is_on_demand_private": true, "conversions": []}));
    for path in [&path, &format!("/api/v1/conversion/{id}?resize=90,90")] {
        app.get(path).refused(401, "UNAUTHORIZED");
    }
    let answer = app.call("GET", &path, &[AUTH], b"");
    assert_eq!((answer.picture(), &*answer.header("cache-control")), (("image/jpeg", 90, 60), "private, no-store"));

    let link = signed(&app, &format!("{id}/conversions?resize=90,90"), LATER);
    assert_eq!(app.get(&link).picture(), ("image/jpeg", 90, 60));
    let legacy = signed(&app, &format!("{id}?resize=90,90"), LATER).replace("/assets/", "/conversion/");
    assert_eq!(app.get(&legacy).picture(), ("image/jpeg", 90, 60));
    for bad in [
        link.replace("90,90", "99,99"),
        link.replace("4102444800", "4102444801"),
        signed(&app, &format!("{id}/conversions?resize=90,90"), 1_000_000_000),
        format!("{path}&signature=abc&expiry={LATER}&accessId=nobody"),
        format!("{path}&signature="),
    ] {
        app.get(&bad).refused(403, "FORBIDDEN");
    }
    // An original is private from the start, and a link opens just that.
    app.get(&format!("/api/v1/assets/{id}/content/original")).refused(401, "UNAUTHORIZED");
    assert_eq!(app.get(&signed(&app, &format!("{id}/content/original"), LATER)).picture(), ("image/jpeg", 300, 200));
}

#[test]
fn strangers_are_bound_by_the_switches() {
    let presets = [("CLOAKROOM_DELIVERY__PRESETS_ONLY", "true"), ("CLOAKROOM_DELIVERY__PRESETS", "[\"resize=60,60\"]")];
    let app = Appliance::with(&presets);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    let at = |query: &str| format!("/api/v1/assets/{id}/conversions?{query}");
    assert_eq!(app.get(&at("resize=60,60")).picture(), ("image/jpeg", 60, 40));
    assert_eq!(app.get(&at("resize=060,60&format=png")).picture(), ("image/png", 60, 40));
    let detail = app.get(&at("resize=61,60")).refused(403, "FORBIDDEN");
    assert!(detail.contains("resize=60,60"), "{detail}");
    assert_eq!(app.call("GET", &at("resize=90,90"), &[AUTH], b"").picture(), ("image/jpeg", 90, 60));
    let link = signed(&app, &format!("{id}/conversions?resize=90,90"), LATER);
    assert_eq!(app.get(&link).picture(), ("image/jpeg", 90, 60));

    let app = Appliance::with(&[("CLOAKROOM_DELIVERY__SIGNED_ONLY", "true")]);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    app.get(&format!("/api/v1/assets/{id}/conversions?resize=60,60")).refused(401, "UNAUTHORIZED");
    let link = signed(&app, &format!("{id}/conversions?resize=60,60"), LATER);
    let answer = app.get(&link);
    assert_eq!(answer.picture(), ("image/jpeg", 60, 40));
    assert!(answer.header("cache-control").starts_with("public"), "the picture itself is no secret");
}

#[test]
fn who_asks_right_after_an_upload_is_not_sent_away() {
    let app = Appliance::start();
    let web = json!({"key": "web", "value": {"format": "jpg", "watermark": false, "enabled": true, "public": true,
                                             "width": 100, "height": 0, "dpi": 72}});
    image(&app, &json!({"is_on_demand_private": false, "conversions": [web]}));
    for path in ["conversions?resize=100,100", "conversions/web"] {
        // The server waits a few seconds; where a machine is too slow for that once, it is not each time.
        let is_shown = (0..5).any(|_| {
            let id = app.keep("p.jpg", &jpeg(1500, 1000));
            app.call_once("GET", &format!("/api/v1/assets/{id}/{path}"), &[], b"").status == 200
        });
        assert!(is_shown, "{path}");
    }
}

#[test]
fn named_conversions_are_made_and_transformed_further() {
    let app = Appliance::start();
    let entry = |key: &str, public: bool, enabled: bool, format: &str| {
        json!({"key": key, "value": {"format": format, "watermark": false, "enabled": enabled, "public": public,
                                     "width": 500, "height": 9, "dpi": 300}})
    };
    image(
        &app,
        &json!({"is_on_demand_private": false, "conversions": [
            entry("web500", true, true, "jpg"), entry("press", false, true, "png"), entry("late", true, false, "jpg"),
        ]}),
    );
    let id = app.keep("p.jpg", &jpeg(1500, 1000));
    until_made(&app, &id, &["web500", "press"]);
    let at = |rest: &str| format!("/api/v1/assets/{id}/conversions/{rest}");
    let whole = app.get(&at("web500"));
    assert_eq!(whole.picture(), ("image/jpeg", 500, 333), "the width decides");
    assert_eq!(whole.body[13..18], [1, 1, 44, 1, 44], "300 dots per inch");
    let cut = app.get(&at("web500?resize=50,50"));
    assert_eq!(cut.picture(), ("image/jpeg", 50, 33));
    assert_eq!(app.call("GET", &at("web500"), &[("Range", "bytes=0-1")], b"").body, [0xFF, 0xD8]);
    for path in ["press", "press?resize=50,50"] {
        app.get(&at(path)).refused(401, "UNAUTHORIZED");
        assert_eq!(app.call("GET", &at(path), &[AUTH], b"").status, 200, "{path}");
    }
    app.get(&at("late")).refused(404, "CONTENT_NOT_FOUND");
    app.get(&at("late?resize=9,9")).refused(404, "CONTENT_NOT_FOUND");
    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\":[\"late\",\"unknown\"]}").json();
    app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| job["status"] == "COMPLETED");
    assert_eq!(app.get(&at("late")).picture(), ("image/jpeg", 500, 333));
    let listed = &app.json(&format!("/api/v1/assets/{id}/data"))["conversions"];
    assert_eq!(listed["press"]["public"], json!(false));
    assert_eq!(listed.as_object().unwrap().len(), 3, "{listed}");

    // Made again in another shape, it is that one, and so is what is cut from it.
    let mut smaller = entry("web500", true, true, "jpg");
    smaller["value"]["width"] = json!(200);
    image(&app, &json!({"is_on_demand_private": false, "conversions": [smaller]}));
    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\":[\"web500\"]}").json();
    app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| job["status"] == "COMPLETED");
    assert_eq!(app.get(&at("web500")).picture(), ("image/jpeg", 200, 133));
    assert_ne!(app.get(&at("web500?resize=50,50")).header("etag"), cut.header("etag"));
}

#[test]
fn a_flag_that_is_changed_holds_for_what_was_made_before() {
    let app = Appliance::start();
    let choose = |public: bool| {
        let web = json!({"key": "web", "value": {"format": "jpg", "watermark": false, "enabled": true, "public": public,
                                                 "width": 100, "height": 0, "dpi": 72}});
        let tiles = json!({"key": "deepzoom", "value": {"watermark": false, "enabled": true, "public": !public}});
        image(&app, &json!({"is_on_demand_private": false, "conversions": [web, tiles]}));
    };
    choose(true);
    let [plain, opened, closed] = ["a.jpg", "b.jpg", "c.jpg"].map(|name| {
        let id = app.keep(name, &jpeg(300, 200));
        until_made(&app, &id, &["web", "deepzoom"]);
        id
    });
    let shown = |id: &str| {
        let data = app.json(&format!("/api/v1/assets/{id}/data"));
        [("web", "web"), ("deepzoom", "deepzoom/deepzoom.dzi")].map(|(key, path)| {
            let told = data["conversions"][key]["public"] == true;
            let answer = app.get(&format!("/api/v1/assets/{id}/conversions/{path}"));
            assert_eq!((answer.status == 200, answer.status == 401), (told, !told), "{key}: {}", answer.status);
            told
        })
    };
    assert_eq!(shown(&plain), [true, false]);
    for (id, verb) in [(&opened, "set"), (&closed, "remove")] {
        let path = format!("/api/v1/assets/{id}/content/{verb}_public_access");
        assert_eq!(app.post_json(&path, "{\"keys\": [\"web\"]}").status, 200);
    }
    for public in [false, true, true, false] {
        choose(public);
        assert_eq!(shown(&plain), [public, !public], "at once");
        assert_eq!(shown(&opened), [true, !public], "what somebody said of it");
        assert_eq!(shown(&closed), [false, !public], "what somebody said of it");
    }
}

#[test]
fn a_public_conversion_of_a_private_box_may_be_transformed() {
    let entry = |key: &str, public: bool| {
        json!({"key": key, "value": {"format": "jpg", "watermark": false, "enabled": true, "public": public,
                                     "width": 200, "height": 0, "dpi": 72}})
    };
    let section = json!({"is_on_demand_private": true, "conversions": [entry("open", true), entry("closed", false)]});
    let app = Appliance::start();
    image(&app, &section);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    until_made(&app, &id, &["open", "closed"]);
    let at = |rest: &str| format!("/api/v1/assets/{id}/conversions{rest}");
    assert_eq!(app.get(&at("/open")).picture(), ("image/jpeg", 200, 133));
    let cut = app.get(&at("/open?resize=60,60"));
    assert_eq!(cut.picture(), ("image/jpeg", 60, 40));
    assert!(cut.header("cache-control").starts_with("public"), "{cut:?}");
    for path in ["?resize=60,60", "/closed", "/closed?resize=60,60", "/open?resize=60,60&keep=all"] {
        app.get(&at(path)).refused(401, "UNAUTHORIZED");
        let answer = app.call("GET", &at(path), &[AUTH], b"");
        assert_eq!((answer.status, &*answer.header("cache-control")), (200, "private, no-store"), "{path}");
    }

    // What strangers can have made is bounded here as elsewhere.
    let app = Appliance::with(&[("CLOAKROOM_DELIVERY__SIGNED_ONLY", "true")]);
    image(&app, &section);
    let id = app.keep("p.jpg", &jpeg(300, 200));
    until_made(&app, &id, &["open"]);
    assert_eq!(app.get(&format!("/api/v1/assets/{id}/conversions/open")).status, 200);
    app.get(&format!("/api/v1/assets/{id}/conversions/open?resize=60,60")).refused(401, "UNAUTHORIZED");
}

#[test]
fn nothing_is_made_without_the_mark_that_it_is_to_bear() {
    let app = Appliance::start();
    image(
        &app,
        &json!({"is_on_demand_private": false, "conversions": [
            {"key": "marked", "value": {"format": "png", "watermark": true, "enabled": true, "public": true,
                                        "width": 200, "height": 0, "dpi": 72}},
            {"key": "plain", "value": {"format": "png", "watermark": false, "enabled": true, "public": true}},
            {"key": "deepzoom", "value": {"watermark": true, "enabled": true, "public": true}}]}),
    );
    let id = app.keep("p.png", &png(400, 300, false));
    let data = app.until(&format!("/api/v1/assets/{id}/data"), |data| {
        let errors = &data["errors"];
        errors["marked"].is_string() && errors["deepzoom"].is_string() && data["conversions"]["plain"].is_object()
    });
    let detail = app.get(&format!("/api/v1/assets/{id}/conversions/marked")).refused(404, "CONTENT_NOT_FOUND");
    assert!(detail.contains("No watermark is set"), "{detail}");
    assert_eq!((&data["status"], data["conversions"].as_object().unwrap().len()), (&json!("OK"), 1), "{data}");
    let process = || {
        let keys = "{\"keys\": [\"marked\", \"plain\", \"deepzoom\"]}";
        let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), keys).json();
        app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| !job["completed_at"].is_null())
    };
    let job = process();
    let steps = &job["job_steps"]["conversions"];
    assert_eq!((&job["status"], &steps["plain"]["status"]), (&json!("ERROR"), &json!("COMPLETED")), "{job}");
    for key in ["marked", "deepzoom"] {
        assert_eq!(steps[key]["status"], "ERROR", "{job}");
        assert!(steps[key]["message"].as_str().unwrap().starts_with("No watermark is set: choose one"), "{job}");
    }

    let key = app.keep("mark.png", &png(50, 50, false));
    let mark = json!({"key": "watermark", "value": {
        "watermarkFileKey": key, "watermarkPlacement": "center", "watermarkScale": 0.5}});
    assert_eq!(app.call("PATCH", UPDATE, &[AUTH], mark.to_string().as_bytes()).status, 200);
    assert_eq!(process()["status"], "COMPLETED");
    let data = app.json(&format!("/api/v1/assets/{id}/data"));
    for key in ["marked", "deepzoom"] {
        assert_eq!(data["conversions"][key]["watermarked"], true, "{data}");
        assert!(data["errors"].get(key).is_none(), "it is there now: {data}");
    }

    // Without a mark again, what there is stays, and nothing new is made.
    let none = json!({"key": "watermark", "value": null}).to_string();
    assert_eq!(app.call("PATCH", UPDATE, &[AUTH], none.as_bytes()).status, 200);
    assert_eq!(process()["status"], "ERROR");
    assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["conversions"]["marked"]["watermarked"], true);
}

#[test]
fn the_watermark_is_the_one_that_is_set() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(400, 300));
    let at = |query: &str| format!("/api/v1/assets/{id}/conversions?format=png&{query}");
    let detail = app.get(&at("watermark=true")).refused(400, "INVALID_REQUEST");
    assert!(detail.contains("watermark"), "{detail}");

    let plain = pixels(&app.get(&at("")).body);
    let mark = |color: [u8; 3], placement: &str, scale: f64| {
        let flat = image::RgbImage::from_pixel(100, 100, image::Rgb(color));
        let mut bytes = Vec::new();
        flat.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        let key = app.keep("mark.png", &bytes);
        let body = json!({"key": "watermark", "value": {
            "watermarkFileKey": key, "watermarkPlacement": placement, "watermarkScale": scale}});
        let answer = app.call("PATCH", UPDATE, &[AUTH], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        key
    };
    let key = mark([0, 255, 0], "bottom-right", 0.2);
    let set = &app.json("/api/v1/user/settings")["watermark"];
    assert_eq!(*set, json!({"watermarkFileKey": key, "watermarkPlacement": "bottom-right", "watermarkScale": 0.2}));
    let marked = pixels(&app.get(&at("watermark=1")).body);
    assert_eq!(marked.dimensions(), (400, 300));
    // 0.2 of 300 is 60 pixels, in the corner.
    assert_eq!(marked.get_pixel(395, 295).0[..3], [0, 255, 0]);
    assert_eq!(marked.get_pixel(341, 241).0[..3], [0, 255, 0]);
    assert_eq!(marked.get_pixel(330, 230), plain.get_pixel(330, 230));
    let placed = pixels(&app.get(&at("watermark=top-left,0.1")).body);
    assert_eq!(placed.get_pixel(2, 2).0[..3], [0, 255, 0]);
    assert_eq!(placed.get_pixel(395, 295), plain.get_pixel(395, 295));

    mark([255, 0, 255], "bottom-right", 0.2);
    let marked = pixels(&app.get(&at("watermark=1")).body);
    assert_eq!(marked.get_pixel(395, 295).0[..3], [255, 0, 255], "the cache knows one mark from another");

    image(
        &app,
        &json!({"is_on_demand_private": false, "conversions": [{"key": "marked", "value":
        {"format": "png", "watermark": true, "enabled": true, "public": true, "width": 200, "height": 0, "dpi": 72}}]}),
    );
    let id = app.keep("q.png", &png(400, 300, false));
    until_made(&app, &id, &["marked"]);
    let made = app.get(&format!("/api/v1/assets/{id}/conversions/marked"));
    assert_eq!(made.picture(), ("image/png", 200, 150));
    assert_eq!(pixels(&made.body).get_pixel(195, 145).0[..3], [255, 0, 255]);
    assert_eq!(app.json(&format!("/api/v1/assets/{id}/data"))["conversions"]["marked"]["watermarked"], json!(true));
}

#[test]
fn sizes_that_are_asked_for_together_are_all_right() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(3000, 2000));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (1..=24_u32)
            .map(|n| {
                let path = format!("/api/v1/assets/{id}/conversions?resize={0},{0}", n * 30);
                let app = &app;
                scope.spawn(move || assert_eq!(app.get(&path).picture(), ("image/jpeg", n * 30, n * 20), "{path}"))
            })
            .collect();
        for answer in asked {
            answer.join().unwrap();
        }
    });
}
