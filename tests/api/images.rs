//! On-demand images: what the parameters do, which format comes, and what a cache may rely on.
//!
//! Type and size are read from the bytes; the harness compares them with the header.

use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::jpeg;
use crate::harness::pixels;
use crate::harness::png;
use crate::harness::turned;

const CHROME: &str = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";

#[test]
fn size_and_format_are_as_asked() {
    let app = Appliance::start();
    let photo = app.keep("p.jpg", &jpeg(3000, 2000));
    let drawing = app.keep("d.png", &png(640, 400, false));
    let (jpg, png, webp, avif) = ("image/jpeg", "image/png", "image/webp", "image/avif");
    for (id, query, accept, expected) in [
        (&photo, "resize=400,300", "*/*", (jpg, 400, 267)),
        (&photo, "resize=400,300", CHROME, (avif, 400, 267)),
        (&photo, "resize=400,300", "image/webp,*/*", (webp, 400, 267)),
        (&photo, "resize=400,300", "image/avif;q=0,image/webp", (webp, 400, 267)),
        (&photo, "resize=400,300", "", (jpg, 400, 267)),
        (&photo, "resize=400,300&format=png", CHROME, (png, 400, 267)),
        (&photo, "resize=300,1000&format=jpg", CHROME, (jpg, 300, 200)),
        (&photo, "resize=99999999999,1", "*/*", (jpg, 2, 1)),
        (&photo, "resize=9999,9999", "*/*", (jpg, 2048, 1365)),
        (&photo, "", "*/*", (jpg, 2048, 1365)),
        (&photo, "resize=60,60&nonsense=1&x", "*/*", (jpg, 60, 40)),
        (&drawing, "resize=9999,9999", "*/*", (png, 640, 400)),
        (&drawing, "resize=320,320", "image/avif", (avif, 320, 200)),
        (&drawing, "resize=320,320&format=webp", "*/*", (webp, 320, 200)),
    ] {
        for base in ["/api/v1/assets/{}/conversions", "/api/v1/conversion/{}"] {
            let path = format!("{}?{query}", base.replace("{}", id));
            let answer = app.call("GET", &path, &[("Accept", accept)], b"");
            assert_eq!(answer.picture(), expected, "{path} with {accept}");
            assert!(answer.header("vary").contains("Accept"), "{path}: {}", answer.header("vary"));
        }
    }
}

#[test]
fn quality_and_background_show() {
    let app = Appliance::start();
    let photo = app.keep("p.jpg", &jpeg(800, 600));
    let weigh = |query: &str| app.get(&format!("/api/v1/assets/{photo}/conversions?{query}")).body.len();
    assert!(weigh("quality=5") < weigh("quality=95"));
    assert_eq!(weigh("quality=90"), weigh(""), "90 is what comes unasked");
    // What lies outside is the nearest that lies inside: the very same picture.
    let picture = |query: &str| {
        let answer = app.get(&format!("/api/v1/assets/{photo}/conversions?resize=90,90&{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        (answer.header("etag"), answer.body)
    };
    for (outside, inside) in [
        ("quality=0", "quality=1"),
        ("quality=101", "quality=100"),
        ("quality=99999999999", "quality=100"),
        ("trim=150", "trim=100"),
        ("sharpen=101", "sharpen=100"),
        ("dpi=9999", "dpi=2400"),
    ] {
        assert!(picture(outside) == picture(inside), "{outside} is {inside}");
    }
    assert!(picture("quality=1").1 != picture("quality=100").1 && picture("dpi=2400").1 != picture("").1);

    let clear = app.keep("c.png", &png(40, 40, true));
    for (query, expected) in [
        ("format=jpg&bgcolor=00ff00", [0, 255, 0, 255]),
        ("format=jpg", [255, 255, 255, 255]),
        ("format=png&bgcolor=00ff00", [0, 255, 0, 255]),
    ] {
        let answer = app.get(&format!("/api/v1/assets/{clear}/conversions?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let pixel = pixels(&answer.body).get_pixel(20, 20).0;
        let near = pixel.iter().zip(expected).all(|(is, should)| is.abs_diff(should) < 6);
        assert!(near, "{query}: {pixel:?} instead of {expected:?}");
    }
    let answer = app.get(&format!("/api/v1/assets/{clear}/conversions?resize=10,10"));
    assert_eq!(answer.picture(), ("image/png", 10, 10));
    assert_eq!(pixels(&answer.body).get_pixel(5, 5).0[3], 0, "what is transparent stays so");
}

#[test]
fn bad_parameters_are_named() {
    let app = Appliance::start();
    let photo = app.keep("p.jpg", &jpeg(80, 60));
    for (name, value) in [
        ("resize", "abc"),
        ("resize", ""),
        ("resize", "0,0"),
        ("resize", "-5,9"),
        ("resize", "10"),
        ("resize", "1,2,3"),
        ("quality", "-1"),
        ("quality", "high"),
        ("trim", "1.5"),
        ("bgcolor", "zz"),
        ("bgcolor", "%23ff0000"),
        ("format", "exe"),
    ] {
        for base in ["/api/v1/assets/{}/conversions", "/api/v1/conversion/{}"] {
            let answer = app.get(&format!("{}?{name}={value}", base.replace("{}", &photo)));
            let detail = answer.refused(400, "INVALID_REQUEST");
            assert!(detail.contains(name), "{name}={value}: {detail}");
        }
    }
}

#[test]
fn caches_can_rely_on_it() {
    let mut app = Appliance::start();
    let id = app.saved("p.jpg", &jpeg(1200, 900))["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/assets/{id}/conversions?resize=300,300&quality=70");
    let first = app.get(&path);
    assert_eq!(first.picture(), ("image/jpeg", 300, 225));
    let etag = first.header("etag");
    assert!(etag.starts_with('"') && first.header("cache-control").starts_with("public"), "{first:?}");

    for (known, status) in [(&*etag, 304), (&*format!("W/{etag}, \"x\""), 304), ("*", 304), ("\"other\"", 200)] {
        let answer = app.call("GET", &path, &[("If-None-Match", known)], b"");
        assert_eq!((answer.status, answer.header("etag")), (status, etag.clone()), "{known}");
        assert_eq!(answer.body.is_empty(), status == 304);
    }
    let head = app.call("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), first.body.len().to_string());
    let permuted = app.get(&format!("/api/v1/assets/{id}/conversions?quality=70&resize=300,300"));
    assert_eq!((permuted.header("etag"), &permuted.body), (etag.clone(), &first.body));
    let other = app.call("GET", &path, &[("Accept", "image/webp")], b"");
    assert_ne!(other.header("etag"), etag, "another format is another picture");

    app.restart();
    let again = app.get(&path);
    assert_eq!((again.header("etag"), &again.body), (etag, &first.body), "the same after a restart");
}

#[test]
fn cameras_that_were_turned() {
    let app = Appliance::start();
    let photo = jpeg(600, 400);
    for (orientation, size) in [(1, (600, 400)), (3, (600, 400)), (6, (400, 600)), (8, (400, 600))] {
        let data = app.saved("p.jpg", &turned(&photo, orientation));
        let metadata = &data["metadata"];
        assert_eq!((&metadata["width"], &metadata["height"]), (&json!(size.0), &json!(size.1)), "{orientation}");
        let answer = app.get(&format!("/api/v1/assets/{}/conversions?format=png", data["id"].as_str().unwrap()));
        assert_eq!(answer.picture(), ("image/png", size.0, size.1), "{orientation}");
        // The red half: left, right, top, bottom.
        let (x, y) = [(10, 200), (590, 200), (200, 10), (200, 590)][usize::from(orientation) * 3 / 8];
        let pixel = pixels(&answer.body).get_pixel(x, y).0;
        assert!(pixel[0] > 200 && pixel[2] < 60, "{orientation}: {pixel:?} at {x},{y}");
    }
}

#[test]
fn where_there_is_no_image() {
    let app = Appliance::start();
    let text = app.keep("notes.txt", b"Just notes, no picture.\n");
    let broken = app.keep("broken.jpg", b"not a picture");
    for (id, message) in [
        (&*text, "NO_IMAGE"),
        (&*broken, "NO_IMAGE"),
        ("00000000000000000000000000000000", "ASSET_NOT_FOUND"),
        ("not-an-id", "ASSET_NOT_FOUND"),
        ("..%2f..%2fetc", "ASSET_NOT_FOUND"),
    ] {
        app.get(&format!("/api/v1/assets/{id}/conversions?resize=10,10")).refused(404, message);
        app.get(&format!("/api/v1/conversion/{id}")).refused(404, message);
    }
}

/// A file of the golden set.
#[expect(clippy::unwrap_used, reason = "a step of a test fails by panicking, too")]
fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/inputs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_kind_of_picture_comes_through_the_sandbox() {
    let app = Appliance::start();
    for (name, size) in [
        ("heic_420.heic", (48, 32)),
        ("jxl_lossy.jxl", (48, 32)),
        ("psd_rle.psd", (48, 32)),
        ("svg_drawing.svg", (48, 32)),
        ("pdf_drawing.pdf", (48, 32)),
        ("tiff_lzw.tif", (48, 32)),
        ("gif_still.gif", (48, 32)),
    ] {
        let id = app.keep(name, &golden(name));
        let answer = app.get(&format!("/api/v1/assets/{id}/conversions?resize=48,48&format=jpg"));
        assert_eq!(answer.picture(), ("image/jpeg", size.0, size.1), "{name}");
        let data = app.settled(&id);
        assert_eq!((&data["status"], &data["errors"]), (&json!("OK"), &json!(null)), "{name}");
    }
    let face = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media/faces/astronaut.jpg")).unwrap();
    let id = app.keep("crew.jpg", &face);
    let answer = app.get(&format!("/api/v1/assets/{id}/conversions?crop=100,40,face&format=jpg"));
    assert_eq!(answer.picture(), ("image/jpeg", 100, 40));
    let answer = app.get(&format!("/api/v1/assets/{id}/conversions?resize=100,100&quality=auto&format=webp"));
    assert_eq!(answer.picture(), ("image/webp", 100, 100));
    app.get(&format!("/api/v1/assets/{id}/conversions?page=2")).refused(400, "INVALID_REQUEST");
}

#[test]
fn what_a_picture_tells_is_for_those_who_may_read_it() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &turned(&jpeg(60, 40), 6));
    let path = format!("/api/v1/assets/{id}/conversions?keep=all");
    app.get(&path).refused(401, "UNAUTHORIZED");
    let answer = app.call("GET", &path, &[AUTH], b"");
    assert_eq!((answer.picture(), &*answer.header("cache-control")), (("image/jpeg", 40, 60), "private, no-store"));
    assert_eq!(app.get(&path.replace("all", "copyright")).status, 200);
}

#[test]
fn deep_zoom_tiles() {
    let app = Appliance::start();
    let id = app.keep("p.jpg", &jpeg(700, 300));
    app.settled(&id);
    let at = |rest: &str| format!("/api/v1/assets/{id}/conversions/deepzoom/{rest}");
    app.get(&at("deepzoom.dzi")).refused(404, "CONTENT_NOT_FOUND");
    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), "{\"keys\":[\"deepzoom\"]}").json();
    app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| job["status"] == "COMPLETED");
    app.get(&at("deepzoom.dzi")).refused(401, "UNAUTHORIZED");
    let described = app.call("GET", &at("deepzoom.xml"), &[AUTH], b"");
    assert_eq!((described.status, &*described.header("content-type")), (200, "application/xml"));
    assert!(described.text().contains("Width=\"700\" Height=\"300\""), "{}", described.text());
    // 700 pixels are three tiles of 254, and an overlap of one on the inner sides.
    for (tile, size) in [("10/0_0.jpg", (255, 255)), ("10/2_1.jpg", (193, 47)), ("0/0_0.jpg", (1, 1))] {
        let answer = app.call("GET", &at(&format!("deepzoom_files/{tile}")), &[AUTH], b"");
        assert_eq!(answer.picture(), ("image/jpeg", size.0, size.1), "{tile}");
    }
    for tile in ["10/3_0.jpg", "11/0_0.jpg", "10/-1_0.jpg", "x/0_0.jpg", "10/00.jpg"] {
        let answer = app.call("GET", &at(&format!("deepzoom_files/{tile}")), &[AUTH], b"");
        answer.refused(404, "NOT_FOUND");
    }
}

#[test]
fn the_manual_shows_what_it_says() {
    let app = Appliance::start();
    let page = app.get("/manual/images").text();
    let pictures: Vec<&str> = page.split(" src=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(pictures.len() > 15 && page.contains("id=\"crop\""), "{page}");
    for picture in pictures {
        let answer = app.get(&format!("/manual/{picture}"));
        assert_eq!(answer.status, 200, "{picture}: {}", answer.text());
        let (_, width, height) = answer.picture();
        assert!(width.max(height) <= 240, "{picture}: {width} x {height}");
    }
    assert_eq!(app.get("/manual/images/nonsense").status, 404);
}
