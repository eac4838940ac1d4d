//! Uploads in pieces, by the rules of tus 1.0.0, and what is promised beyond them.
//!
//! [`RULES`] is the protocol, a rule in each line; all run against one box. The tests below it are
//! about crashes, rivals, keys and time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::format_collect,
    clippy::large_stack_arrays,
    reason = "the steps that the tests share fail by panicking, too, and say what they ask in few words"
)]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use sha2::Digest;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::KEY;
use crate::harness::PATIENCE;
use crate::harness::jpeg;
use crate::harness::meddle;

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const PIECE: (&str, &str) = ("Content-Type", "application/offset+octet-stream");
const NOBODY: &str = "/files/00000000000000000000000000000000";

type Rule = (&'static str, fn(&Appliance));

#[rustfmt::skip]
const RULES: &[Rule] = &[
    ("OPTIONS needs no version and no key, and says what is spoken", |app| {
        for path in ["/files", NOBODY] {
            let answer = app.call("OPTIONS", path, &[], b"");
            assert_eq!((answer.status, &*answer.header("tus-version")), (204, "1.0.0"));
            assert_eq!(answer.header("tus-resumable"), "1.0.0");
            assert_eq!(answer.header("tus-max-size"), (64_u64 << 30).to_string());
            assert_eq!(answer.header("tus-checksum-algorithm"), "md5,sha1,sha256");
            for extension in ["creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination", "concatenation"] {
                assert!(answer.header("tus-extension").split(',').any(|e| e == extension), "{extension}");
            }
        }
    }),
    ("OPTIONS disregards a version", |app| {
        assert_eq!(app.call("OPTIONS", "/files", &[("Tus-Resumable", "9.9")], b"").status, 204);
    }),
    ("a request without a version is refused with those that are spoken", |app| {
        let path = begin(app, 5);
        for (method, path) in [("POST", "/files"), ("HEAD", &*path), ("PATCH", &*path), ("DELETE", &*path)] {
            let answer = app.call(method, path, &[AUTH, ("Upload-Length", "5"), ("Upload-Offset", "0"), PIECE], b"");
            assert_eq!((answer.status, &*answer.header("tus-version")), (412, "1.0.0"), "{method}");
        }
    }),
    ("another version is refused, and nothing is done", |app| {
        let path = begin(app, 5);
        for version in ["0.2.2", "1.0", "2.0.0", ""] {
            let headers = [AUTH, ("Tus-Resumable", version), ("Upload-Offset", "0"), PIECE];
            app.call("PATCH", &path, &headers, b"hello").refused(412, "TUS_VERSION_NOT_SUPPORTED");
        }
        assert_eq!(head(app, &path).header("upload-offset"), "0");
    }),
    ("every answer says the version, refusals too", |app| {
        for answer in [create(app, &[("Upload-Length", "1")]), head(app, NOBODY), app.get("/files"), app.call("POST", "/files", &[], b"")] {
            assert_eq!(answer.header("tus-resumable"), "1.0.0", "{}", answer.status);
        }
    }),
    ("creation answers 201 with an address, an offset and an expiry", |app| {
        let answer = create(app, &[("Upload-Length", "100")]);
        assert_eq!((answer.status, &*answer.header("upload-offset")), (201, "0"), "{}", answer.text());
        assert!(answer.header("location").starts_with("http://box/files/"));
        assert!(answer.header("upload-expires").ends_with(" GMT"));
    }),
    ("a length has to be a number", |app| {
        for length in ["-1", "1.5", "x", "", "0x10", "+5", "99999999999999999999"] {
            create(app, &[("Upload-Length", length)]).refused(400, "INVALID_REQUEST");
        }
    }),
    ("a length or its deferral has to be said", |app| {
        create(app, &[]).refused(400, "INVALID_REQUEST");
    }),
    ("a length and its deferral exclude each other", |app| {
        create(app, &[("Upload-Length", "1"), ("Upload-Defer-Length", "1")]).refused(400, "INVALID_REQUEST");
    }),
    ("a deferral is 1", |app| {
        for value in ["0", "2", "true", ""] {
            create(app, &[("Upload-Defer-Length", value)]).refused(400, "INVALID_REQUEST");
        }
    }),
    ("more than the greatest size is refused", |app| {
        create(app, &[("Upload-Length", &((64_u64 << 30) + 1).to_string())]).refused(413, "TOO_LARGE");
    }),
    ("nothing is not taken", |app| {
        create(app, &[("Upload-Length", "0")]).refused(400, "EMPTY_FILE");
    }),
    ("metadata comes back as it was sent", |app| {
        let said = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential";
        let path = path(&create(app, &[("Upload-Length", "1"), ("Upload-Metadata", said)]));
        assert_eq!(head(app, &path).header("upload-metadata"), said);
    }),
    ("metadata keys are unique, not empty and ASCII, values Base64", |app| {
        for said in ["a YQ==,a YQ==", "a YQ==,,b YQ==", "a ?", "a YQ== YQ==", "name gICA"] {
            create(app, &[("Upload-Length", "1"), ("Upload-Metadata", said)]).refused(400, "INVALID_REQUEST");
        }
    }),
    ("HEAD says offset, length and expiry, and is not kept", |app| {
        let path = begin(app, 10);
        patch(app, &path, 0, b"hello");
        let answer = head(app, &path);
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!((&*answer.header("upload-offset"), &*answer.header("upload-length")), ("5", "10"));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_ne!(answer.header("upload-expires"), "");
        assert_eq!(answer.header("upload-defer-length"), "");
    }),
    ("HEAD of what is not there says no offset", |app| {
        for path in [NOBODY, "/files/x", "/files/..%2f..%2fetc%2fpasswd"] {
            let answer = head(app, path);
            assert_eq!((answer.status, &*answer.header("upload-offset")), (404, ""), "{path}");
        }
    }),
    ("a length that is deferred is said to be", |app| {
        let path = path(&create(app, &[("Upload-Defer-Length", "1")]));
        let answer = head(app, &path);
        assert_eq!((&*answer.header("upload-defer-length"), &*answer.header("upload-length")), ("1", ""));
    }),
    ("a deferred length comes with a piece, and stays", |app| {
        let path = path(&create(app, &[("Upload-Defer-Length", "1")]));
        assert_eq!(patch(app, &path, 0, b"hel").status, 204);
        assert_eq!(patch_with(app, &path, 3, &[("Upload-Length", "6")], b"l").status, 204);
        assert_eq!(head(app, &path).header("upload-length"), "6");
        patch_with(app, &path, 4, &[("Upload-Length", "7")], b"o").refused(400, "INVALID_REQUEST");
        assert_eq!(patch_with(app, &path, 4, &[("Upload-Length", "6")], b"o!").status, 204);
        assert_ne!(head(app, &path).header("cloakroom-asset-id"), "");
    }),
    ("a deferred length may come with no bytes at all, at the end", |app| {
        let path = path(&create(app, &[("Upload-Defer-Length", "1")]));
        patch(app, &path, 0, b"hello");
        let answer = patch_with(app, &path, 5, &[("Upload-Length", "5")], b"");
        assert_eq!(answer.status, 204);
        assert_ne!(answer.header("cloakroom-asset-id"), "");
    }),
    ("a deferred length is not less than what is there, and not too much", |app| {
        let path = path(&create(app, &[("Upload-Defer-Length", "1")]));
        patch_with(app, &path, 0, &[("Upload-Length", "0")], b"").refused(400, "EMPTY_FILE");
        patch(app, &path, 0, b"hello");
        patch_with(app, &path, 5, &[("Upload-Length", "4")], b"").refused(400, "INVALID_REQUEST");
        patch_with(app, &path, 5, &[("Upload-Length", "99999999999999")], b"").refused(413, "TOO_LARGE");
    }),
    ("a length that was said cannot change", |app| {
        let path = begin(app, 10);
        patch_with(app, &path, 0, &[("Upload-Length", "11")], b"x").refused(400, "INVALID_REQUEST");
        assert_eq!(head(app, &path).header("upload-offset"), "0");
    }),
    ("a piece answers 204 with the new offset and expiry", |app| {
        let path = begin(app, 11);
        let answer = patch(app, &path, 0, b"hello ");
        assert_eq!((answer.status, &*answer.header("upload-offset")), (204, "6"));
        assert_ne!(answer.header("upload-expires"), "");
        assert_eq!(answer.header("cloakroom-asset-id"), "");
    }),
    ("a piece of another type is refused", |app| {
        let path = begin(app, 5);
        for kind in ["application/octet-stream", "text/plain", ""] {
            let answer = app.call("PATCH", &path, &[AUTH, TUS, ("Upload-Offset", "0"), ("Content-Type", kind)], b"hello");
            answer.refused(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        app.call("PATCH", &path, &[AUTH, TUS, ("Upload-Offset", "0")], b"hello").refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }),
    ("a piece says where it begins", |app| {
        let path = begin(app, 5);
        app.call("PATCH", &path, &[AUTH, TUS, PIECE], b"hello").refused(400, "INVALID_REQUEST");
        for offset in ["-1", "x", ""] {
            app.call("PATCH", &path, &[AUTH, TUS, PIECE, ("Upload-Offset", offset)], b"hello").refused(400, "INVALID_REQUEST");
        }
    }),
    ("a piece that begins elsewhere is refused, and nothing changes", |app| {
        let path = begin(app, 10);
        patch(app, &path, 0, b"hello");
        for offset in [0, 4, 6, 10, 11] {
            patch(app, &path, offset, b"xxx").refused(409, "OFFSET_MISMATCH");
        }
        assert_eq!(head(app, &path).header("upload-offset"), "5");
    }),
    ("a piece for what is not there is refused", |app| {
        patch(app, NOBODY, 0, b"x").refused(404, "UPLOAD_NOT_FOUND");
    }),
    ("a piece that goes beyond the length is refused", |app| {
        let path = begin(app, 5);
        patch(app, &path, 0, b"hello!").refused(413, "TOO_LARGE");
        assert_eq!(head(app, &path).header("upload-offset"), "0");
        chunked(app, &path, "6\r\nhello!\r\n0\r\n\r\n").refused(413, "TOO_LARGE");
        assert_eq!(head(app, &path).header("upload-offset"), "0");
    }),
    ("a body may be chunked", |app| {
        let path = begin(app, 5);
        let answer = chunked(app, &path, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
        assert_eq!((answer.status, &*answer.header("upload-offset")), (204, "5"));
    }),
    ("a piece of nothing changes nothing", |app| {
        let path = begin(app, 5);
        for _ in 0..2 {
            let answer = patch(app, &path, 0, b"");
            assert_eq!((answer.status, &*answer.header("upload-offset")), (204, "0"));
        }
    }),
    ("after the end a piece of nothing is answered as the end was, and more is refused", |app| {
        let path = begin(app, 5);
        let asset = patch(app, &path, 0, b"hello").header("cloakroom-asset-id");
        assert_eq!(asset.len(), 32);
        let again = patch(app, &path, 5, b"");
        assert_eq!((again.status, &*again.header("upload-offset"), again.header("cloakroom-asset-id")), (204, "5", asset));
        patch(app, &path, 5, b"x").refused(413, "TOO_LARGE");
        patch(app, &path, 0, b"hello").refused(409, "OFFSET_MISMATCH");
    }),
    ("another method can be meant", |app| {
        let path = begin(app, 5);
        let meant = |method, more: &[(&str, &str)], body: &[u8]| {
            app.call("POST", &path, &[&[AUTH, TUS, ("X-HTTP-Method-Override", method)], more].concat(), body)
        };
        assert_eq!(meant("PATCH", &[PIECE, ("Upload-Offset", "0")], b"hel").header("upload-offset"), "3");
        assert_eq!(meant("head", &[], b"").header("upload-offset"), "3");
        assert_eq!(meant("DELETE", &[], b"").status, 204);
        assert_eq!(head(app, &path).status, 410);
    }),
    ("a body may come with the creation", |app| {
        let answer = app.call("POST", "/files", &[AUTH, TUS, PIECE, ("Upload-Length", "10")], b"hello");
        assert_eq!((answer.status, &*answer.header("upload-offset")), (201, "5"));
        assert_eq!(patch(app, &path(&answer), 5, b"world").header("upload-offset"), "10");
    }),
    ("a whole body may come with the creation", |app| {
        let answer = app.call("POST", "/files", &[AUTH, TUS, PIECE, ("Upload-Length", "5")], b"hello");
        assert_eq!((answer.status, &*answer.header("upload-offset")), (201, "5"));
        assert_eq!(answer.header("cloakroom-asset-id").len(), 32);
    }),
    ("a body that comes with the creation is a piece", |app| {
        let wrong = [AUTH, TUS, ("Content-Type", "text/plain"), ("Upload-Length", "10")];
        app.call("POST", "/files", &wrong, b"hello").refused(415, "UNSUPPORTED_MEDIA_TYPE");
        app.call("POST", "/files", &[AUTH, TUS, PIECE, ("Upload-Length", "4")], b"hello").refused(413, "TOO_LARGE");
        let claim = ("Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let answer = app.call("POST", "/files", &[AUTH, TUS, PIECE, claim, ("Upload-Length", "10")], b"hello");
        answer.refused(460, "CHECKSUM_MISMATCH");
    }),
    ("right checksums are right", |app| {
        for (word, sum) in sums(b"hello") {
            let path = begin(app, 10);
            let answer = patch_with(app, &path, 0, &[("Upload-Checksum", &format!("{word} {sum}"))], b"hello");
            assert_eq!((answer.status, &*answer.header("upload-offset")), (204, "5"), "{word}");
        }
    }),
    ("wrong checksums are 460, and the piece is discarded", |app| {
        let path = begin(app, 10);
        for (word, sum) in sums(b"hallo") {
            patch_with(app, &path, 0, &[("Upload-Checksum", &format!("{word} {sum}"))], b"hello").refused(460, "CHECKSUM_MISMATCH");
            assert_eq!(head(app, &path).header("upload-offset"), "0");
        }
        patch(app, &path, 0, b"hello");
        patch_with(app, &path, 5, &[("Upload-Checksum", "md5 AAAAAAAAAAAAAAAAAAAAAA==")], b"XXXXX").refused(460, "CHECKSUM_MISMATCH");
        assert_eq!(written(app, &path), 5, "it is off the disk");
        let asset = patch(app, &path, 5, b"world").header("cloakroom-asset-id");
        assert_eq!(content(app, &asset), b"helloworld");
    }),
    ("unknown and malformed checksums are 400", |app| {
        let path = begin(app, 5);
        for claim in ["crc32 AAAA", "sha512 AAAA", "sha1", "sha1 !!!", "sha1 AAAA", "md5", ""] {
            patch_with(app, &path, 0, &[("Upload-Checksum", claim)], b"hello").refused(400, "INVALID_REQUEST");
        }
        assert_eq!(head(app, &path).header("upload-offset"), "0");
    }),
    ("DELETE answers 204, then the upload is gone for every method", |app| {
        let path = begin(app, 5);
        patch(app, &path, 0, b"he");
        assert_eq!(delete(app, &path).status, 204);
        patch(app, &path, 2, b"llo").refused(410, "UPLOAD_GONE");
        delete(app, &path).refused(410, "UPLOAD_GONE");
        let answer = head(app, &path);
        assert_eq!((answer.status, &*answer.header("upload-offset")), (410, ""));
        delete(app, NOBODY).refused(404, "UPLOAD_NOT_FOUND");
    }),
    ("DELETE after the end leaves the asset", |app| {
        let path = begin(app, 5);
        let asset = patch(app, &path, 0, b"hello").header("cloakroom-asset-id");
        assert_eq!((delete(app, &path).status, head(app, &path).status), (204, 410));
        assert_eq!(content(app, &asset), b"hello");
    }),
    ("partial uploads say that they are", |app| {
        let path = path(&create(app, &[("Upload-Length", "5"), ("Upload-Concat", "partial")]));
        assert_eq!(head(app, &path).header("upload-concat"), "partial");
        assert_eq!(patch(app, &path, 0, b"hello").header("cloakroom-asset-id"), "", "a part is no asset");
        assert_eq!(head(app, &path).header("cloakroom-asset-id"), "");
    }),
    ("partial uploads may have their length later", |app| {
        let path = path(&create(app, &[("Upload-Defer-Length", "1"), ("Upload-Concat", "partial")]));
        patch(app, &path, 0, b"hello");
        assert_eq!(patch_with(app, &path, 5, &[("Upload-Length", "5")], b"").status, 204);
    }),
    ("a final upload is its parts in the order that is said", |app| {
        let [a, b] = [b"hello ", b"world!"].map(|body| partial(app, body));
        let said = format!("final;{b} http://elsewhere:1{a}?upload_key=x");
        let answer = create(app, &[("Upload-Concat", &said), ("Upload-Metadata", "filename YS50eHQ=")]);
        assert_eq!((answer.status, &*answer.header("upload-offset")), (201, "12"), "{}", answer.text());
        let asset = answer.header("cloakroom-asset-id");
        assert_eq!(content(app, &asset), b"world!hello ");
        assert_eq!(app.json(&format!("/api/v1/assets/{asset}/data"))["name"], "a.txt");
        let told = head(app, &path(&answer));
        assert_eq!((&*told.header("upload-concat"), &*told.header("upload-length")), (&*said, "12"));
        assert_eq!(told.header("cloakroom-asset-id"), asset);
    }),
    ("a final upload that is asked for again is the same", |app| {
        let said = format!("final;{} {}", partial(app, b"one"), partial(app, b"two"));
        let first = create(app, &[("Upload-Concat", &said)]);
        let again = create(app, &[("Upload-Concat", &said)]);
        assert_eq!((first.status, again.status), (201, 201));
        assert_eq!(first.header("location"), again.header("location"));
    }),
    ("a final upload takes no bytes and no length", |app| {
        let said = format!("final;{}", partial(app, b"one"));
        create(app, &[("Upload-Concat", &said), ("Upload-Length", "3")]).refused(400, "INVALID_REQUEST");
        let last = create(app, &[("Upload-Concat", &said)]);
        patch(app, &path(&last), 3, b"x").refused(403, "FORBIDDEN");
        patch(app, &path(&last), 0, b"x").refused(403, "FORBIDDEN");
    }),
    ("a final upload is of parts that are complete and there", |app| {
        let open = path(&create(app, &[("Upload-Length", "5"), ("Upload-Concat", "partial")]));
        let whole = begin(app, 5);
        for said in [format!("final;{open}"), format!("final;{whole}"), "final;".to_owned(), "final".to_owned(), "finale;x".to_owned(), "final;x".to_owned(), "part".to_owned()] {
            create(app, &[("Upload-Concat", &said)]).refused(400, "INVALID_REQUEST");
        }
        create(app, &[("Upload-Concat", &format!("final;{NOBODY}"))]).refused(404, "UPLOAD_NOT_FOUND");
    }),
    ("encoded bodies are refused", |app| {
        let path = begin(app, 5);
        patch_with(app, &path, 0, &[("Content-Encoding", "gzip")], b"hello").refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }),
    ("headers that are there twice are refused", |app| {
        create(app, &[("Upload-Length", "1"), ("Upload-Length", "2")]).refused(400, "INVALID_REQUEST");
    }),
    ("other methods are refused", |app| {
        for (method, path) in [("GET", "/files"), ("PUT", "/files"), ("PUT", NOBODY), ("POST", NOBODY)] {
            assert_eq!(app.call(method, path, &[AUTH, TUS], b"").status, 405, "{method} {path}");
        }
    }),
];

#[test]
fn the_rules_of_tus() {
    let app = Appliance::start();
    for (says, rule) in RULES {
        println!("{says}");
        rule(&app);
    }
}

fn create(app: &Appliance, headers: &[(&str, &str)]) -> Answer {
    app.call("POST", "/files", &[&[AUTH, TUS], headers].concat(), b"")
}

/// The path of an upload that was begun.
fn path(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.header("location").strip_prefix("http://box").unwrap().to_owned()
}

fn begin(app: &Appliance, length: usize) -> String {
    path(&create(app, &[("Upload-Length", &length.to_string())]))
}

fn partial(app: &Appliance, body: &[u8]) -> String {
    let path = path(&create(app, &[("Upload-Length", &body.len().to_string()), ("Upload-Concat", "partial")]));
    assert_eq!(patch(app, &path, 0, body).status, 204);
    path
}

fn head(app: &Appliance, path: &str) -> Answer {
    app.call("HEAD", path, &[AUTH, TUS], b"")
}

fn delete(app: &Appliance, path: &str) -> Answer {
    unlocked(|| app.call("DELETE", path, &[AUTH, TUS], b""))
}

/// Asks again while another request is putting the upload in order.
fn unlocked(ask: impl Fn() -> Answer) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.status != 423 || Instant::now() >= deadline {
            return answer;
        }
    }
}

fn patch(app: &Appliance, path: &str, offset: usize, body: &[u8]) -> Answer {
    patch_with(app, path, offset, &[], body)
}

fn patch_with(app: &Appliance, path: &str, offset: usize, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let offset = offset.to_string();
    app.call("PATCH", path, &[&[AUTH, TUS, PIECE, ("Upload-Offset", &*offset)], headers].concat(), body)
}

fn chunked(app: &Appliance, path: &str, body: &str) -> Answer {
    let mut stream = app.connect();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nX-FileSpin-Api-Key: {KEY}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    Answer::read(stream, "PATCH")
}

fn sums(body: &[u8]) -> [(&'static str, String); 3] {
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, body);
    [
        ("md5", BASE64_STANDARD.encode(md5::Md5::digest(body))),
        ("sha1", BASE64_STANDARD.encode(sha1)),
        ("sha256", BASE64_STANDARD.encode(sha2::Sha256::digest(body))),
    ]
}

fn content(app: &Appliance, asset: &str) -> Vec<u8> {
    let answer = app.call("GET", &format!("/api/v1/assets/{asset}/content/original/download"), &[AUTH], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The offset, once it is at least so much.
fn until_offset(app: &Appliance, path: &str, wanted: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let offset = head(app, path).header("upload-offset").parse().unwrap();
        if offset >= wanted {
            return offset;
        }
        assert!(Instant::now() < deadline, "the offset of {path} is still {offset}");
    }
}

/// How many bytes have been written, whether or not they count.
fn written(app: &Appliance, path: &str) -> u64 {
    let staged = app.data_dir().join(format!("staging/{}.resumable", path.rsplit('/').next().unwrap()));
    fs::metadata(staged).unwrap().len()
}

/// Waits until so many bytes have been written, whether or not they count yet.
fn until_written(app: &Appliance, path: &str, wanted: u64) {
    let deadline = Instant::now() + PATIENCE;
    while written(app, path) < wanted {
        assert!(Instant::now() < deadline, "{path} has not {wanted} bytes");
        app.get("/livez");
    }
}

/// A piece that says it is longer than what comes of it; the connection stays open.
fn stalled(app: &Appliance, path: &str, offset: u64, declared: usize, body: &[u8]) -> TcpStream {
    let mut stream = app.connect();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nX-FileSpin-Api-Key: {KEY}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\nContent-Length: {declared}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    stream
}

#[test]
fn a_photo_in_pieces_is_an_asset_like_any_other() {
    let app = Appliance::start();
    let photo = jpeg(900, 700);
    let said = format!(
        "filename {},filetype {},booth {},custom_metadata {}",
        BASE64_STANDARD.encode("Bühne.jpg"),
        BASE64_STANDARD.encode("image/png"),
        BASE64_STANDARD.encode("7"),
        BASE64_STANDARD.encode(r#"{"data": {"evening": true}, "data_schema_id": 3}"#),
    );
    let begun = create(&app, &[("Upload-Length", &photo.len().to_string()), ("Upload-Metadata", &said)]);
    let path = path(&begun);
    let mut asset = String::new();
    for (n, piece) in photo.chunks(7000).enumerate() {
        let answer = patch(&app, &path, n * 7000, piece);
        assert_eq!(answer.status, 204, "{}", answer.text());
        asset = answer.header("cloakroom-asset-id");
    }
    let data = app.settled(&asset);
    assert_eq!((&data["status"], &data["content_type"]), (&json!("OK"), &json!("image/jpeg")));
    assert_eq!((&data["name"], &data["size"]), (&json!("Bühne.jpg"), &json!(photo.len())));
    assert_eq!((&data["data"], &data["data_schema_id"]), (&json!({"booth": "7", "evening": true}), &json!(3)));
    let sum = md5::Md5::digest(&photo).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(data["checksum"], *sum, "the running digest");
    assert!(content(&app, &asset) == photo);

    let told = head(&app, &path);
    assert_eq!(told.header("cloakroom-asset-id"), asset);
    let echoed = told.header("upload-metadata");
    assert_eq!(echoed, format!("{said},asset_id {}", BASE64_STANDARD.encode(&asset)));
    let as_json = app.call("GET", &path, &[AUTH], b"").json();
    assert_eq!((&as_json["asset_id"], &as_json["offset"]), (&json!(asset), &json!(photo.len())));
    app.staging_empties();
}

#[test]
fn a_creation_that_is_sent_again_begins_nothing_new() {
    let mut app = Appliance::start();
    let keyed = |app: &Appliance, key: &str, length: &str, body: &[u8]| {
        app.call("POST", "/files", &[AUTH, TUS, PIECE, ("Upload-Length", length), ("Idempotency-Key", key)], body)
    };
    let first = keyed(&app, "a", "10", b"");
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, String::new()), "{}", first.text());
    assert_eq!(patch(&app, &path(&first), 0, b"hello").status, 204);
    app.restart();
    let again = keyed(&app, "a", "10", b"");
    assert_eq!((again.status, &*again.header("idempotent-replayed")), (201, "true"));
    assert_eq!((path(&again), &*again.header("upload-offset")), (path(&first), "5"));
    keyed(&app, "a", "11", b"").refused(422, "IDEMPOTENCY_KEY_REUSED");
    assert_ne!(path(&keyed(&app, "b", "10", b"")), path(&first));
    // The bytes are not kept twice, nor is the asset made twice.
    let photo = jpeg(40, 30);
    let length = photo.len().to_string();
    let whole = keyed(&app, "c", &length, &photo);
    let again = keyed(&app, "c", &length, &photo);
    assert_eq!((path(&again), again.header("upload-offset")), (path(&whole), length.clone()));
    assert_eq!(again.header("cloakroom-asset-id"), whole.header("cloakroom-asset-id"));
    assert!(content(&app, &whole.header("cloakroom-asset-id")) == photo);
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
    // What was refused with the bytes is there to be tried again.
    let wrong =
        [("Upload-Checksum", "md5 AAAAAAAAAAAAAAAAAAAAAA=="), ("Upload-Length", &length), ("Idempotency-Key", "d")];
    let refused = app.call("POST", "/files", &[&[AUTH, TUS, PIECE], &wrong[..]].concat(), &photo);
    refused.refused(460, "CHECKSUM_MISMATCH");
    let again = keyed(&app, "d", &length, &photo);
    assert_eq!(again.header("upload-offset"), "0");
    assert_eq!(patch(&app, &path(&again), 0, &photo).status, 204);
    // One that was given up is not begun again by accident.
    assert_eq!(delete(&app, &path(&first)).status, 204);
    keyed(&app, "a", "10", b"").refused(410, "UPLOAD_GONE");
}

#[test]
fn a_creation_that_broke_off_is_found_by_its_key() {
    let app = Appliance::start();
    let body = noise(1_000_000);
    let mut stream = app.connect();
    let head_of = format!(
        "POST /files HTTP/1.1\r\nHost: box\r\nX-FileSpin-Api-Key: {KEY}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: application/offset+octet-stream\r\nIdempotency-Key: mine\r\nUpload-Length: 1000000\r\n\
         Content-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head_of.as_bytes()).unwrap();
    stream.write_all(&body[..600_000]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let has_bytes = || {
        fs::read_dir(app.data_dir().join("staging")).unwrap().any(|e| e.unwrap().metadata().is_ok_and(|m| m.len() > 0))
    };
    while !has_bytes() {
        assert!(Instant::now() < deadline, "nothing was written");
        app.get("/livez");
    }
    drop(stream);
    let again = create(&app, &[("Upload-Length", "1000000"), ("Idempotency-Key", "mine")]);
    let at = until_offset(&app, &path(&again), 1) as usize;
    assert!(at <= 600_000, "{at}");
    let asset = patch(&app, &path(&again), at, &body[at..]).header("cloakroom-asset-id");
    assert!(content(&app, &asset) == body);
    app.staging_empties();
}

#[test]
fn what_broke_off_is_kept() {
    let app = Appliance::start();
    let body = noise(3_000_000);
    let path = begin(&app, body.len());
    // One hangs up, one says that it is done, one falls silent and is sent away by who asks.
    // What was on its way through the server may be lost with the connection, and nothing else.
    // Nobody is sent away before something of theirs is on the disk.
    let gone = stalled(&app, &path, 0, body.len(), &body[..700_001]);
    until_written(&app, &path, 1);
    drop(gone);
    let at = until_offset(&app, &path, 1);
    assert!(at <= 700_001, "{at}");
    let done = stalled(&app, &path, at, body.len() - at as usize, &body[at as usize..1_000_000]);
    done.shutdown(std::net::Shutdown::Write).unwrap();
    until_written(&app, &path, at + 1);
    let at = until_offset(&app, &path, at + 1);
    assert!(at <= 1_000_000, "{at}");
    let silent = stalled(&app, &path, at, body.len() - at as usize, &body[at as usize..1_800_000]);
    until_written(&app, &path, at + 1);
    let at = until_offset(&app, &path, at + 1);
    Answer::read(silent, "PATCH").refused(423, "UPLOAD_LOCKED");
    let asset = patch(&app, &path, at as usize, &body[at as usize..]).header("cloakroom-asset-id");
    assert!(content(&app, &asset) == body);
    app.staging_empties();
}

/// The beginning of a piece of 1,000,000 bytes with a checksum.
fn half_of_a_checked_piece(app: &Appliance, path: &str) -> TcpStream {
    let mut stream = app.connect();
    let head_of = format!(
        "PATCH {path} HTTP/1.1\r\nHost: box\r\nX-FileSpin-Api-Key: {KEY}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nContent-Length: 1000000\r\n\
         Upload-Checksum: sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\r\n\r\n"
    );
    stream.write_all(head_of.as_bytes()).unwrap();
    stream.write_all(&noise(600_000)).unwrap();
    stream
}

#[test]
fn a_piece_with_a_checksum_is_kept_whole_or_not_at_all() {
    let app = Appliance::start();
    let path = begin(&app, 1_000_000);
    let stream = half_of_a_checked_piece(&app, &path);
    drop(stream);
    // The next piece waits until the one before is cleared away.
    assert_eq!(unlocked(|| patch(&app, &path, 0, b"anew")).header("upload-offset"), "4");
}

#[test]
fn a_piece_with_a_checksum_that_breaks_off_is_off_the_disk() {
    let app = Appliance::start();
    let path = begin(&app, 1_000_000);
    let stream = half_of_a_checked_piece(&app, &path);
    until_written(&app, &path, 1);
    drop(stream);
    let deadline = Instant::now() + PATIENCE;
    while written(&app, &path) > 0 {
        assert!(Instant::now() < deadline, "it lies there still");
        app.get("/livez");
    }
    assert_eq!(head(&app, &path).header("upload-offset"), "0");
}

#[test]
fn a_first_piece_that_breaks_off_leaves_nothing() {
    let app = Appliance::start();
    for is_reset in [false, true] {
        let mut stream = app.connect();
        let head = format!(
            "POST /files HTTP/1.1\r\nHost: box\r\nX-FileSpin-Api-Key: {KEY}\r\nTus-Resumable: 1.0.0\r\n\
             Content-Type: application/offset+octet-stream\r\nUpload-Length: 600000\r\nContent-Length: 600000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&noise(500_000)).unwrap();
        app.staging_holds(1);
        let staged = fs::read_dir(app.data_dir().join("staging")).unwrap().next().unwrap().unwrap().file_name();
        until_written(&app, staged.to_str().unwrap().trim_end_matches(".resumable"), 1);
        if is_reset {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        // Nobody has its address, so it would lie there until it expires.
        app.staging_empties();
    }
    // One that is refused as well.
    app.call("POST", "/files", &[AUTH, TUS, PIECE, ("Upload-Length", "4")], b"hello").refused(413, "TOO_LARGE");
    app.staging_empties();
}

#[test]
fn a_piece_that_stalls_is_answered_so_that_clients_go_on() {
    let app = Appliance::with(&[("CLOAKROOM_HTTP__BODY_STALL_SECONDS", "1")]);
    let path = begin(&app, 1000);
    let stalled = Answer::read(stalled(&app, &path, 0, 1000, b"hello"), "PATCH");
    assert_ne!(stalled.header("retry-after"), "");
    stalled.refused(503, "UPLOAD_INTERRUPTED");
    assert_eq!(head(&app, &path).header("upload-offset"), "5");
}

#[test]
fn who_only_looks_disturbs_nobody() {
    let app = Appliance::start();
    let path = begin(&app, 400_000);
    let mut slow = stalled(&app, &path, 0, 400_000, &noise(300_000));
    until_written(&app, &path, 1);
    for _ in 0..30 {
        assert_eq!(app.call("GET", &path, &[AUTH], b"").json()["offset"], 0);
    }
    slow.write_all(&noise(400_000)[300_000..]).unwrap();
    assert_eq!(Answer::read(slow, "PATCH").status, 204);
}

#[test]
fn bytes_that_are_lost_at_the_end_are_asked_for_again() {
    let app = Appliance::start();
    let path = path(&create(&app, &[("Upload-Defer-Length", "1")]));
    patch(&app, &path, 0, b"hello");
    let id = path.rsplit('/').next().unwrap().to_owned();
    let staged = app.data_dir().join(format!("staging/{id}.resumable"));
    fs::OpenOptions::new().write(true).open(staged).unwrap().set_len(2).unwrap();
    // Its end was recorded, and nothing was made of it.
    meddle(&app.data_dir(), "UPDATE resumable SET length_bytes = 5");
    assert_eq!(head(&app, &path).header("upload-offset"), "2");
    assert_eq!(patch(&app, &path, 2, b"llo").header("cloakroom-asset-id"), id);
    assert_eq!(content(&app, &id), b"hello");
}

#[test]
fn the_id_of_an_upload_is_taken() {
    let app = Appliance::start();
    let path = begin(&app, 5);
    let id = path.rsplit('/').next().unwrap();
    let announce = format!("/api/v1/assets/new/content_storage_url?filename=a.jpg&asset_id={id}");
    app.call("GET", &announce, &[AUTH], b"").refused(400, "ASSET_ID_EXISTS");
}

#[test]
fn a_page_may_describe_what_was_finished_without_it() {
    const UPLOAD_KEY: &str = "fedcba9876543210fedcba9876543210";
    let mut app = Appliance::with(&[("CLOAKROOM_ADMIN_UPLOAD_KEY", UPLOAD_KEY)]);
    let page = ("X-FileSpin-Upload-Key", UPLOAD_KEY);
    let path = path(&app.call("POST", "/files", &[TUS, page, ("Upload-Length", "5")], b""));
    let id = path.rsplit('/').next().unwrap().to_owned();
    // The last piece was taken, and its answer was lost with the connection.
    app.crash(|data| {
        fs::write(data.join(format!("staging/{id}.resumable")), b"hello").unwrap();
        let database = rusqlite::Connection::open(data.join("cloakroom.db")).unwrap();
        database.execute("UPDATE resumable SET offset_bytes = 5", []).unwrap();
    });
    assert_eq!(app.call("HEAD", &path, &[TUS, page], b"").header("cloakroom-asset-id"), id);
    let update = format!("/api/v1/assets/{id}/data/update");
    let described = app.call("POST", &update, &[page], b"{\"data\": {\"by\": \"page\"}}");
    assert_eq!(described.status, 200, "{}", described.text());
}

#[test]
fn a_crash_costs_only_what_was_not_acknowledged() {
    let mut app = Appliance::start();
    let body = noise(2_500_000);
    let path = begin(&app, body.len());
    assert_eq!(patch(&app, &path, 0, &body[..1_000_000]).status, 204);
    let _open = stalled(&app, &path, 1_000_000, 1_500_000, &body[1_000_000..1_900_000]);
    // Bytes behind the offset are nothing, whatever they are.
    app.crash(|data| {
        let staged = format!("staging/{}.resumable", path.rsplit('/').next().unwrap());
        fs::OpenOptions::new().append(true).open(data.join(staged)).unwrap().write_all(&[0xff; 300_000]).unwrap();
    });
    assert_eq!(head(&app, &path).header("upload-offset"), "1000000");
    assert_eq!(patch(&app, &path, 1_000_000, &body[1_000_000..2_000_000]).status, 204);
    app.restart();
    let asset = patch(&app, &path, 2_000_000, &body[2_000_000..]).header("cloakroom-asset-id");
    assert!(content(&app, &asset) == body, "after a restart the bytes are read once more");
    let sum = md5::Md5::digest(&body).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(app.json(&format!("/api/v1/assets/{asset}/data"))["checksum"], *sum);
    app.staging_empties();
}

#[test]
fn a_crash_at_the_end_is_finished_by_itself() {
    let mut app = Appliance::start();
    let body = noise(300_000);
    let path = begin(&app, body.len());
    let id = path.rsplit('/').next().unwrap().to_owned();
    patch(&app, &path, 0, &body[..100_000]);
    for was_linked in [false, true] {
        // All bytes are there and recorded, and nothing has been made of them.
        app.crash(|data| {
            let staged = data.join(format!("staging/{id}.resumable"));
            fs::write(&staged, &body).unwrap();
            if was_linked {
                let _ = fs::remove_file(data.join(format!("originals/{}/{id}.1", &id[..2])));
                fs::hard_link(&staged, data.join(format!("staging/{id}.1"))).unwrap();
                fs::hard_link(&staged, data.join(format!("originals/{}/{id}.1", &id[..2]))).unwrap();
            }
            let database = rusqlite::Connection::open(data.join("cloakroom.db")).unwrap();
            let run = |sql: &str| database.execute(sql, []).unwrap();
            run("UPDATE resumable SET state = 'open', offset_bytes = 300000, data = '{}'");
            run("DELETE FROM job");
            run("DELETE FROM asset");
            // Where originals go to a bucket, it is owed there with the asset.
            run("DELETE FROM object");
        });
        // Nobody asks for the upload: the job does it.
        app.until("/api/v1/assets", |listed| listed["total"] == 1);
        assert!(content(&app, &id) == body);
        app.staging_empties();
        let told = head(&app, &path);
        assert_eq!((&*told.header("upload-offset"), &*told.header("cloakroom-asset-id")), ("300000", &*id));
    }
}

#[test]
fn bytes_that_the_disk_lost_are_not_claimed() {
    let mut app = Appliance::start();
    let path = begin(&app, 5000);
    let staged = format!("staging/{}.resumable", path.rsplit('/').next().unwrap());
    patch(&app, &path, 0, &[b'a'; 3000]);
    app.crash(|data| fs::OpenOptions::new().write(true).open(data.join(&staged)).unwrap().set_len(1000).unwrap());
    assert_eq!(head(&app, &path).header("upload-offset"), "1000");
    assert_eq!(patch(&app, &path, 1000, &[b'b'; 1000]).header("upload-offset"), "2000");
    app.crash(|data| fs::remove_file(data.join(&staged)).unwrap());
    patch(&app, &path, 2000, b"x").refused(410, "UPLOAD_GONE");
    assert_eq!(head(&app, &path).status, 410);
    app.staging_empties();
}

#[test]
fn bytes_that_came_too_late_to_count_do_not_keep_an_upload_from_its_end() {
    let mut app = Appliance::start();
    let path = path(&create(&app, &[("Upload-Defer-Length", "1")]));
    let id = path.rsplit('/').next().unwrap().to_owned();
    patch(&app, &path, 0, b"hello");
    // More was written than was recorded, and then the length was; the end was not.
    app.crash(|data| {
        let staged = data.join(format!("staging/{id}.resumable"));
        fs::OpenOptions::new().append(true).open(staged).unwrap().write_all(&[0xff; 300_000]).unwrap();
        let database = rusqlite::Connection::open(data.join("cloakroom.db")).unwrap();
        database.execute("UPDATE resumable SET length_bytes = offset_bytes", []).unwrap();
    });
    let told = head(&app, &path);
    assert_eq!((told.status, &*told.header("cloakroom-asset-id")), (200, &*id), "{}", told.text());
    assert_eq!(content(&app, &id), b"hello");
    app.staging_empties();
}

#[test]
fn equal_wishes_to_join_at_the_same_time_are_one() {
    let app = Appliance::start();
    for _ in 0..10 {
        let said = format!("final;{} {}", partial(&app, b"one"), partial(&app, b"two"));
        let ask = || create(&app, &[("Upload-Concat", &said)]);
        let answers = std::thread::scope(|scope| [(); 4].map(|()| scope.spawn(ask)).map(|asked| asked.join().unwrap()));
        let places = answers.each_ref().map(path);
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 10);
    app.staging_empties();
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut app = Appliance::start();
    let path = begin(&app, 5);
    let asset = patch(&app, &path, 0, b"hello").header("cloakroom-asset-id");
    // The client sends blindly, then asks, before and after a restart.
    for _ in 0..2 {
        patch(&app, &path, 0, b"hello").refused(409, "OFFSET_MISMATCH");
        let told = head(&app, &path);
        assert_eq!((&*told.header("upload-offset"), told.header("cloakroom-asset-id")), ("5", asset.clone()));
        app.restart();
    }
    assert_eq!(app.json("/api/v1/assets")["total"], 1);
}

#[test]
fn two_writers_do_not_mix() {
    let app = Appliance::start();
    let (ours, theirs) = (vec![b'a'; 500_000], vec![b'b'; 500_000]);
    let deadline = Instant::now() + PATIENCE;
    let mut rounds = 0;
    while rounds < 10 {
        let path = begin(&app, 500_000);
        let answers = std::thread::scope(|scope| {
            [&ours, &theirs].map(|body| scope.spawn(|| patch(&app, &path, 0, body))).map(|sent| sent.join().unwrap())
        });
        let mut statuses = answers.each_ref().map(|answer| answer.status);
        statuses.sort_unstable();
        assert!([409, 423].contains(&statuses[1]), "{statuses:?}");
        if statuses[0] != 204 && statuses[1] == 423 && Instant::now() < deadline {
            // One that stood still for a second was sent away as silent, and the other did not begin at its end.
            continue;
        }
        assert_eq!(statuses[0], 204, "{statuses:?}");
        rounds += 1;
        let kept = content(&app, &head(&app, &path).header("cloakroom-asset-id"));
        assert!(kept == ours || kept == theirs, "the bytes of two writers were mixed");
    }
}

#[test]
fn a_rival_of_one_that_is_silent_takes_over() {
    let app = Appliance::start();
    let path = begin(&app, 1_000_000);
    let silent = stalled(&app, &path, 0, 1_000_000, &vec![b'x'; 400_000]);
    until_written(&app, &path, 1);
    unlocked(|| patch(&app, &path, 0, &vec![b'y'; 1_000_000])).refused(409, "OFFSET_MISMATCH");
    Answer::read(silent, "PATCH").refused(423, "UPLOAD_LOCKED");
    // What was on its way through the server when it stood still may be lost.
    let at = until_offset(&app, &path, 1);
    assert!(at <= 400_000, "{at}");
    let silent = stalled(&app, &path, at, 1_000_000 - at as usize, &vec![b'x'; 400_000]);
    until_written(&app, &path, at + 1);
    assert_eq!(delete(&app, &path).status, 204, "giving up sends the writer away");
    Answer::read(silent, "PATCH").refused(423, "UPLOAD_LOCKED");
    app.staging_empties();
}

#[test]
fn strangers_see_nothing() {
    let app = Appliance::start();
    let key_of = |name: &str, role: &str| {
        let made = app.cli(&["user", "add", &format!("{name}@example.com"), "--role", role]);
        let said = String::from_utf8(made.stdout).unwrap();
        let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (value("API key: "), value("upload key: "))
    };
    let (owner, other) = (key_of("owner", "creator"), key_of("other", "manager"));
    let ask = |method: &str, path: &str, key: (&str, &str), more: &[(&str, &str)]| {
        app.call(method, path, &[&[TUS, key], more].concat(), b"")
    };
    let api = |key: &'static str| ("X-FileSpin-Api-Key", key);
    let [owner_api, other_api]: [&'static str; 2] = [owner.0, other.0].map(|key| &*key.leak());
    let by_api = path(&ask("POST", "/files", api(owner_api), &[("Upload-Length", "5")]));
    let page = ("X-FileSpin-Upload-Key", &*owner.1);
    let by_page = path(&ask("POST", "/files", page, &[("Upload-Length", "5")]));
    for (path, key, status) in [
        (&by_api, api(owner_api), 200),
        (&by_api, AUTH, 200),
        (&by_api, api(other_api), 404),
        (&by_api, page, 404),
        (&by_page, page, 200),
        (&by_page, api(owner_api), 200),
        (&by_page, ("X-FileSpin-Upload-Key", &*other.1), 404),
    ] {
        assert_eq!(ask("HEAD", path, key, &[]).status, status, "{path} with {key:?}");
        if status == 404 {
            ask("DELETE", path, key, &[]).refused(404, "UPLOAD_NOT_FOUND");
            ask("PATCH", path, key, &[PIECE, ("Upload-Offset", "0")]).refused(404, "UPLOAD_NOT_FOUND");
        }
    }
    assert_eq!(app.call("HEAD", &by_api, &[TUS], b"").status, 401);
    let joined = ask("POST", "/files", api(other_api), &[("Upload-Concat", &*format!("final;{by_api}"))]);
    joined.refused(404, "UPLOAD_NOT_FOUND");
}

#[test]
fn a_page_hands_in_pieces() {
    const UPLOAD_KEY: &str = "fedcba9876543210fedcba9876543210";
    let app = Appliance::with(&[
        ("CLOAKROOM_ADMIN_UPLOAD_KEY", UPLOAD_KEY),
        ("CLOAKROOM_HTTP__CORS_ORIGINS", "https://console.example"),
        ("CLOAKROOM_ACCOUNTS__UPLOAD_KEY_MAX_BYTES", "1000"),
        ("CLOAKROOM_ACCOUNTS__UPLOAD_KEY_CALLS_PER_MINUTE", "20"),
    ]);
    let settings = app.json("/api/v1/user/settings");
    let mut auth = settings["auth"].clone();
    auth["authorized_domains"] = json!(["example.com"]);
    let body = json!({ "key": "auth", "value": auth }).to_string();
    assert_eq!(app.call("PATCH", "/api/v1/user/settings/update", &[AUTH], body.as_bytes()).status, 200);

    let ours = ("Origin", "https://www.example.com");
    let theirs = ("Origin", "https://example.org");
    // The browser asks first, without the key that will come in a header.
    let asked = app.call("OPTIONS", "/files", &[ours, ("Access-Control-Request-Method", "POST")], b"");
    assert_eq!((asked.status, &*asked.header("access-control-allow-origin")), (204, ours.1));
    for wanted in [
        "Upload-Offset",
        "Upload-Metadata",
        "Tus-Resumable",
        "Upload-Checksum",
        "X-FileSpin-Upload-Key",
        "Idempotency-Key",
    ] {
        assert!(asked.header("access-control-allow-headers").contains(wanted), "{wanted}");
    }
    assert!(asked.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(app.call("OPTIONS", "/files", &[theirs], b"").header("access-control-allow-origin"), "");

    let address = format!("/files?upload_key={UPLOAD_KEY}");
    let begun = app.call("POST", &address, &[TUS, ours, ("Upload-Length", "1000")], b"");
    assert_eq!(begun.header("access-control-allow-origin"), ours.1);
    for wanted in ["Location", "Upload-Offset", "Upload-Expires", "Cloakroom-Asset-Id"] {
        assert!(begun.header("access-control-expose-headers").contains(wanted), "{wanted}");
    }
    let path = path(&begun);
    assert!(path.ends_with(&format!("?upload_key={UPLOAD_KEY}")), "{path}");
    // More pieces than calls that begin something are allowed.
    let mut asset = String::new();
    for n in 0..40 {
        let offset = (n * 25).to_string();
        let answer = app.call("PATCH", &path, &[TUS, ours, PIECE, ("Upload-Offset", &offset)], &[b'x'; 25]);
        assert_eq!(answer.status, 204, "{}", answer.text());
        asset = answer.header("cloakroom-asset-id");
    }
    app.settled(&asset);
    let described = app.call(
        "POST",
        &format!("/api/v1/assets/{asset}/data/update?upload_key={UPLOAD_KEY}"),
        &[ours],
        b"{\"data\": {\"by\": \"page\"}}",
    );
    assert_eq!(described.status, 200, "{}", described.text());
    assert_eq!(app.json(&format!("/api/v1/assets/{asset}/data"))["upload_source"], "www.example.com");

    app.call("POST", &address, &[TUS, theirs, ("Upload-Length", "5")], b"").refused(403, "FORBIDDEN");
    app.call("PATCH", &path, &[TUS, theirs, PIECE, ("Upload-Offset", "0")], b"").refused(403, "FORBIDDEN");
    app.call("POST", &address, &[TUS, ours, ("Upload-Length", "1001")], b"").refused(413, "TOO_LARGE");
    let late = app.call("POST", &address, &[TUS, ours, ("Upload-Defer-Length", "1")], b"");
    let late = late.header("location").strip_prefix("http://box").unwrap().to_owned();
    let headers = [TUS, ours, PIECE, ("Upload-Offset", "0")];
    app.call("PATCH", &late, &headers, &[b'x'; 1001]).refused(413, "TOO_LARGE");
    let mut calls = (0..200).map(|_| app.call("POST", &address, &[TUS, ours, ("Upload-Length", "5")], b"").status);
    assert!(calls.any(|status| status == 429), "beginning is counted");
}

#[test]
fn what_nobody_goes_on_with_goes() {
    let mut app = Appliance::with(&[
        ("CLOAKROOM_INGEST__RESUMABLE_SECONDS", "3600"),
        ("CLOAKROOM_INGEST__RESUMABLE_DOUBT_SECONDS", "1"),
    ]);
    let (open, finished) = (begin(&app, 5), begin(&app, 5));
    patch(&app, &open, 0, b"hel");
    let asset = patch(&app, &finished, 0, b"hello").header("cloakroom-asset-id");
    app.crash(|data| meddle(data, "UPDATE resumable SET expires_at = expires_at - 3600000"));
    let deadline = Instant::now() + PATIENCE;
    for path in [&open, &finished] {
        while head(&app, path).status != 410 {
            assert!(Instant::now() < deadline, "{path} is still there");
        }
    }
    patch(&app, &open, 3, b"lo").refused(410, "UPLOAD_GONE");
    app.staging_empties();
    assert_eq!(content(&app, &asset), b"hello");
}

#[test]
fn one_that_cannot_be_finished_does_not_keep_the_others_from_going() {
    let mut app = Appliance::with(&[("CLOAKROOM_INGEST__RESUMABLE_DOUBT_SECONDS", "1")]);
    let part = path(&create(&app, &[("Upload-Length", "5"), ("Upload-Concat", "partial")]));
    let open = begin(&app, 5);
    app.crash(|data| {
        // First in line: to be joined of less than it should be, which fails each time.
        let columns = "user_id, offset_bytes, most_bytes, name, data, data_schema_id, said, created_at";
        let joined = format!(
            "INSERT INTO resumable (id, kind, state, length_bytes, expires_at, parts, {columns}) \
             SELECT '{}', 'joined', 'open', 7, 0, json_array(id), {columns} FROM resumable WHERE kind = 'part'",
            "a".repeat(32)
        );
        // The part stays, so that it is there to be read.
        meddle(data, &format!("{joined}; UPDATE resumable SET expires_at = 1 WHERE kind = 'whole'"));
    });
    let deadline = Instant::now() + PATIENCE;
    while head(&app, &open).status != 410 {
        assert!(Instant::now() < deadline, "{open} is still there");
    }
    assert_eq!(head(&app, &part).status, 200);
    app.staging_holds(2);
}

#[test]
fn a_full_disk_refuses_and_keeps_what_came() {
    let full = Appliance::with(&[("CLOAKROOM_STORAGE__FREE_FLOOR_BYTES", "9000000000000000000")]);
    create(&full, &[("Upload-Length", "5")]).refused(507, "DISK_FULL");
    full.staging_empties();
}

#[test]
fn many_sizes_in_many_pieces() {
    let app = Appliance::start();
    let body = noise(1_100_000);
    // Exact multiples of batches and blocks, one more, one less.
    for size in [1, 63, 64, 65, 262_143, 262_144, 262_145, 524_288, 1_048_576, 1_100_000] {
        for piece in [size, size / 2 + 1, 262_144, 100_000] {
            let path = begin(&app, size);
            let mut asset = String::new();
            for (n, bytes) in body[..size].chunks(piece).enumerate() {
                asset = patch(&app, &path, n * piece, bytes).header("cloakroom-asset-id");
            }
            let data = app.json(&format!("/api/v1/assets/{asset}/data"));
            let sum = md5::Md5::digest(&body[..size]).iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!((&data["checksum"], &data["size"]), (&json!(sum), &json!(size)), "{size} in {piece}");
        }
    }
    app.staging_empties();
}
