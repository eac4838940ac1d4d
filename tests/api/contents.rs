//! Originals on their way out: private, whole or in ranges, shown or to keep.

use crate::harness::AUTH;
use crate::harness::Appliance;
use crate::harness::jpeg;

#[test]
fn originals_are_for_those_who_may() {
    let app = Appliance::start();
    let body = jpeg(300, 200);
    let id = app.keep("Bühne 1.jpg", &body);
    let path = format!("/api/v1/assets/{id}/content/original");
    app.get(&path).refused(401, "UNAUTHORIZED");
    app.get(&format!("{path}/download")).refused(401, "UNAUTHORIZED");

    let whole = app.call("GET", &path, &[AUTH], b"");
    assert!(whole.status == 200 && whole.body == body);
    for (name, value) in [
        ("content-type", "image/jpeg"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(whole.header("content-disposition").starts_with("inline"));
    assert!(whole.header("content-security-policy").contains("sandbox"));
    for path in [format!("{path}/download"), format!("{path}?delivery=download")] {
        let named = app.call("GET", &path, &[AUTH], b"").header("content-disposition");
        assert_eq!(named, "attachment; filename=\"B_hne 1.jpg\"; filename*=UTF-8''B%C3%BChne%201.jpg", "{path}");
    }
    let head = app.call("HEAD", &path, &[AUTH], b"");
    assert_eq!((head.status, head.header("content-length")), (200, body.len().to_string()));
    assert!(head.body.is_empty());

    let key = |key: &str| app.call("GET", &format!("/api/v1/assets/{id}/content/{key}"), &[AUTH], b"");
    key("nonsense").refused(404, "CONTENT_NOT_FOUND");
    let nowhere = "/api/v1/assets/00000000000000000000000000000000/content/original";
    app.call("GET", nowhere, &[AUTH], b"").refused(404, "ASSET_NOT_FOUND");
}

#[test]
fn pages_of_strangers_are_not_shown() {
    let app = Appliance::start();
    for name in ["page.html", "picture.svg"] {
        let id = app.keep(name, b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>");
        let answer = app.call("GET", &format!("/api/v1/assets/{id}/content/original"), &[AUTH], b"");
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-disposition").starts_with("attachment"), "{name}: {answer:?}");
        assert!(answer.header("content-security-policy").contains("sandbox"), "{name}");
    }
}

#[test]
fn ranges() {
    let app = Appliance::start();
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let id = app.keep("bytes.bin", &body);
    let path = format!("/api/v1/assets/{id}/content/original");
    let ask =
        |range: &str, extra: &[(&str, &str)]| app.call("GET", &path, &[&[AUTH, ("Range", range)], extra].concat(), b"");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=999990-", 999_990, 1_000_000),
        ("bytes=-5", 999_995, 1_000_000),
        ("bytes=-2000000", 0, 1_000_000),
        ("bytes=500000-9999999999", 500_000, 1_000_000),
    ] {
        let answer = ask(range, &[]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/1000000", to - 1), "{range}");
        assert!(answer.body == body[from..to], "{range}");
    }
    for range in ["bytes=1000000-", "bytes=-0", "bytes=2000000-3000000"] {
        let answer = ask(range, &[]);
        assert_eq!((answer.status, &*answer.header("content-range")), (416, "bytes */1000000"), "{range}");
    }
    for range in ["bytes=abc", "lines=1-2", "bytes=9-1", ""] {
        assert_eq!(ask(range, &[]).body.len(), body.len(), "{range}: what is not understood is ignored");
    }

    let several = ask("bytes=0-1,10-12", &[]);
    assert_eq!(several.status, 206);
    assert!(several.header("content-type").starts_with("multipart/byteranges; boundary="), "{several:?}");
    for (said, from, to) in [("bytes 0-1/1000000", 0, 2), ("bytes 10-12/1000000", 10, 13)] {
        let at = several.body.windows(said.len()).position(|w| w == said.as_bytes()).expect(said);
        let start = at + several.body[at..].windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(several.body[start..start + to - from], body[from..to], "{said}");
    }

    let known = app.call("HEAD", &path, &[AUTH], b"");
    for (condition, status) in [(known.header("etag"), 206), ("\"other\"".to_owned(), 200)] {
        assert_eq!(ask("bytes=0-9", &[("If-Range", &condition)]).status, status, "{condition}");
    }
    assert_eq!(app.call("GET", &path, &[AUTH, ("If-None-Match", &known.header("etag"))], b"").status, 304);
}
