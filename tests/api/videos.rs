//! Films on their way out: renditions, streams that one signed link makes playable, storyboards,
//! posters; what an administrator chooses about them; a job that is cancelled.
//!
//! What would have been made of a film is planted: the files in their places, the rows beside
//! them, while the server does not run.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the steps that the tests share fail by panicking, too"
)]
#![expect(clippy::disallowed_methods, reason = "rows are planted behind the back of the server")]

use std::collections::BTreeSet;
use std::fs;

use rusqlite::Connection;
use serde_json::Value;
use serde_json::json;

use crate::harness::AUTH;
use crate::harness::Answer;
use crate::harness::Appliance;
use crate::harness::EMAIL;
use crate::harness::jpeg;
use crate::harness::png;
use crate::settings::LATER;
use crate::settings::signed;

const UPDATE: &str = "/api/v1/user/settings/update";
/// When everything planted was made; `v` in addresses says so.
const MADE_AT: i64 = 0x19a_0000_0000;

const MASTER: &str = "#EXTM3U\n#EXT-X-VERSION:7\n\
    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"main\",DEFAULT=YES,URI=\"audio/playlist.m3u8\"\n\
    #EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS=\"avc1.4d401e,mp4a.40.2\",AUDIO=\"audio\"\n360p/playlist.m3u8\n\
    #EXT-X-STREAM-INF:BANDWIDTH=2900000,CODECS=\"avc1.64001f,mp4a.40.2\",AUDIO=\"audio\"\n720p/playlist.m3u8\n";
const MEDIA: &str = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n\
    #EXTINF:6.0,\nsegment_00001.m4s\n#EXTINF:2.5,\nsegment_00002.m4s\n#EXT-X-ENDLIST\n";

/// A film that was uploaded long ago, and what was made of it.
struct Film<'a> {
    app: &'a Appliance,
    id: String,
    rows: Connection,
}

impl Film<'_> {
    fn of<'a>(app: &'a Appliance, content_type: &str) -> Film<'a> {
        let id = app.saved("Bühne 1.bin", &[7; 3000])["id"].as_str().unwrap().to_owned();
        let rows = Connection::open(app.data_dir().join("cloakroom.db")).unwrap();
        rows.busy_timeout(std::time::Duration::from_mins(1)).unwrap();
        let change = "UPDATE asset SET name = 'Bühne 1.mov', status = 'OK', errors = '{}', content_type = ?2, uploaded_at = 1000 WHERE id = ?1";
        rows.execute(change, (&id, content_type)).unwrap();
        Film { app, id, rows }
    }

    /// Plants a conversion: which files it has, the folder of many by its key, and what they hold.
    fn with(self, key: &str, extension: &str, content_type: &str, public: bool, files: &[(&str, &[u8])]) -> Self {
        let folder = self.app.data_dir().join(format!("conversions/{}/{}/1", &self.id[..2], self.id));
        for (name, bytes) in files {
            let path = folder.join(name.replacen(key, &format!("1.{key}"), 1));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let insert = "INSERT INTO conversion (asset_id, key, revision, extension, content_type, width, height, \
                          duration_seconds, size_bytes, public, created_at, round) VALUES (?1, ?2, 1, ?3, ?4, 1280, 720, 8.5, ?5, ?6, ?7, 1)";
        self.rows.execute(insert, (&self.id, key, extension, content_type, size as i64, public, MADE_AT)).unwrap();
        self
    }

    fn with_stream(self, public: bool) -> Self {
        let mut files = vec![("hls-video/playlist.m3u8".to_owned(), MASTER.as_bytes().to_vec())];
        for variant in ["360p", "720p", "audio"] {
            files.push((format!("hls-video/{variant}/playlist.m3u8"), MEDIA.as_bytes().to_vec()));
            for name in ["init.mp4", "segment_00001.m4s", "segment_00002.m4s"] {
                files.push((format!("hls-video/{variant}/{name}"), format!("{variant} {name}").into_bytes()));
            }
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        self.with("hls-video", "m3u8", "application/vnd.apple.mpegurl", public, &files)
    }

    fn planted(self) -> String {
        self.id
    }
}

/// Starts with a film in the cloakroom.
fn start(plant: impl FnOnce(Film) -> Film) -> (Appliance, String) {
    let mut app = Appliance::start();
    let id = plant(Film::of(&app, "video/quicktime")).planted();
    // What it remembers of the asset is from before.
    app.restart();
    (app, id)
}

fn ask(app: &Appliance, path: &str) -> Answer {
    app.call("GET", path, &[AUTH], b"")
}

#[test]
fn renditions_are_delivered_as_contents_are() {
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let (app, id) = start(|film| {
        film.with("720p-video", "mp4", "video/mp4", false, &[("720p-video.mp4", &body)])
            .with("480p-wm-video", "mp4", "video/mp4", true, &[("480p-wm-video.mp4", b"for all")])
            .with("audio_preview", "m4a", "audio/mp4", true, &[("audio_preview.m4a", b"sound")])
    });
    let at = |rest: &str| format!("/api/v1/assets/{id}/transcodes/{rest}");
    let path = at("720p-video.mp4");
    for path in [&path, &format!("/api/v1/video/{id}/720p-video.mp4")] {
        app.get(path).refused(401, "UNAUTHORIZED");
        let whole = ask(&app, path);
        assert!(whole.status == 200 && whole.body == body);
        for (name, value) in [
            ("content-type", "video/mp4"),
            ("accept-ranges", "bytes"),
            ("cache-control", "private, no-store"),
            ("last-modified", "Mon, 20 Oct 2025 05:03:11 GMT"),
            (
                "content-disposition",
                "inline; filename=\"B_hne 1-720p-video.mp4\"; filename*=UTF-8''B%C3%BChne%201-720p-video.mp4",
            ),
        ] {
            assert_eq!(whole.header(name), value, "{name}");
        }
        let head = app.call("HEAD", path, &[AUTH], b"");
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "100000".to_owned(), 0));
        let known = app.call("GET", path, &[AUTH, ("If-None-Match", &whole.header("etag"))], b"");
        assert_eq!(known.status, 304);
        let range = app.call("GET", path, &[AUTH, ("Range", "bytes=99990-")], b"");
        assert_eq!((range.status, &*range.header("content-range")), (206, "bytes 99990-99999/100000"));
        assert_eq!(range.body, body[99_990..]);
        let several = app.call("GET", path, &[AUTH, ("Range", "bytes=0-1,10-12")], b"");
        assert!(several.status == 206 && several.header("content-type").starts_with("multipart/byteranges"));
        assert_eq!(app.call("GET", path, &[AUTH, ("Range", "bytes=100000-")], b"").status, 416);
    }
    assert!(ask(&app, &format!("{path}?delivery=download")).header("content-disposition").starts_with("attachment"));

    let link = signed(&app, &format!("{id}/transcodes/720p-video.mp4"), LATER);
    assert_eq!(app.get(&link).body, body);
    assert_eq!(app.get(&link.replace(&format!("assets/{id}/transcodes"), &format!("video/{id}"))).body, body);
    app.get(&link.replace("720p-video", "480p-wm-video")).refused(403, "FORBIDDEN");
    app.get(&signed(&app, &format!("{id}/transcodes/720p-video.mp4"), 1_000_000_000)).refused(403, "FORBIDDEN");

    let page = ("Origin", "https://page.example");
    let public = app.call("GET", &at("480p-wm-video.mp4"), &[page, ("Range", "bytes=0-2")], b"");
    assert_eq!((public.status, &*public.text()), (206, "for"));
    assert!(public.header("cache-control").starts_with("public"), "{public:?}");
    assert_eq!(public.header("access-control-allow-origin"), "*");
    let asked = app.call("OPTIONS", &path, &[page, ("Access-Control-Request-Method", "GET")], b"");
    assert!(asked.status == 204 && asked.header("access-control-allow-headers").contains("Range"), "{asked:?}");
    let sound = app.get(&at("audio_preview.m4a"));
    assert_eq!((&*sound.text(), &*sound.header("content-type")), ("sound", "audio/mp4"));

    for missing in ["original.mp4", "nonsense.mp4", "720p-video.m4a", "audio_preview.mp4", "..%2F720p-video.mp4"] {
        ask(&app, &at(missing)).refused(404, "CONTENT_NOT_FOUND");
    }
    for nowhere in ["720p-video", "720p-video.webm", "playlist.m3u8/"] {
        assert_eq!(ask(&app, &at(nowhere)).status, 404, "{nowhere}");
    }
    let listed = &app.json(&format!("/api/v1/assets/{id}/data"))["conversions"]["720p-video"];
    assert_eq!((&listed["duration"], &listed["width"]), (&json!(8.5), &json!(1280)));
}

/// What the lines and tags of a playlist lead to, completed to addresses of this box.
fn addresses(playlist: &Answer, path: &str) -> Vec<String> {
    assert_eq!(playlist.status, 200, "{path}: {}", playlist.text());
    assert_eq!(playlist.header("content-type"), "application/vnd.apple.mpegurl");
    let folder = path.split('?').next().unwrap().rsplit_once('/').unwrap().0;
    let text = playlist.text();
    let named = |line: &str| match line.split_once("URI=\"") {
        Some((_, rest)) => Some(rest.split('"').next().unwrap().to_owned()),
        None => (!line.starts_with('#')).then(|| line.to_owned()),
    };
    text.lines().filter_map(named).map(|address| format!("{folder}/{address}")).collect()
}

#[test]
fn one_signed_playlist_makes_its_stream_playable_and_nothing_else() {
    let (app, id) = start(|film| {
        film.with_stream(false).with("720p-video", "mp4", "video/mp4", false, &[("720p-video.mp4", b"film")])
    });
    let master = format!("/api/v1/assets/{id}/transcodes/playlist.m3u8");
    app.get(&master).refused(401, "UNAUTHORIZED");
    app.get(&format!("/api/v1/assets/{id}/transcodes/720p/init.mp4")).refused(401, "UNAUTHORIZED");

    let link = signed(&app, &format!("{id}/transcodes/playlist.m3u8"), LATER);
    let old = link.replace(&format!("assets/{id}/transcodes"), &format!("video/{id}"));
    for link in [&link, &old] {
        let mut opened = BTreeSet::new();
        let playlist = app.get(link);
        assert_eq!(playlist.header("cache-control"), "private, no-store");
        for variant in addresses(&playlist, link) {
            opened.insert(variant.clone());
            for part in addresses(&app.get(&variant), &variant) {
                let answer = app.get(&part);
                let file = part.split('?').next().unwrap();
                let [variant, name] = [1, 0].map(|n| file.rsplit('/').nth(n).unwrap());
                assert_eq!((answer.status, answer.text()), (200, format!("{variant} {name}")), "{part}");
                let kind = if variant == "audio" { "audio/mp4" } else { "video/mp4" };
                assert_eq!(
                    (&*answer.header("content-type"), &*answer.header("cache-control")),
                    (kind, "private, no-store")
                );
                opened.insert(part);
            }
        }
        assert_eq!(opened.len(), 12, "{opened:#?}");
        for address in &opened {
            assert!(address.contains("expiry=4102444800&accessId=") && address.contains("&signature="), "{address}");
        }
        let segment = opened.iter().find(|a| a.contains("720p/segment_00001.m4s")).unwrap();
        for other in [
            segment.replace("720p/segment_00001.m4s", "360p/segment_00001.m4s"),
            segment.replace("segment_00001.m4s", "segment_00002.m4s"),
            segment.replace("720p/segment_00001.m4s", "720p-video.mp4"),
            segment.replace("720p/segment_00001.m4s", "playlist.m3u8"),
            segment.replace("4102444800", "4102444801"),
            segment.replace("v=", "v=1"),
            link.replace("playlist.m3u8", "720p/init.mp4"),
            link.replace("playlist.m3u8", "720p-video.mp4"),
        ] {
            assert_ne!(&other, segment);
            app.get(&other).refused(403, "FORBIDDEN");
        }
    }
    app.get(&link.replace("transcodes/playlist.m3u8", "content/original")).refused(403, "FORBIDDEN");
    app.get(&signed(&app, &format!("{id}/transcodes/playlist.m3u8"), 1_000_000_000)).refused(403, "FORBIDDEN");

    // Whoever sends a key sends it again: plain addresses.
    let playlist = ask(&app, &master);
    assert_eq!(playlist.text(), MASTER);
    let variant = ask(&app, &format!("/api/v1/assets/{id}/transcodes/720p/playlist.m3u8"));
    let making = format!("?v={MADE_AT:x}");
    let expected = MEDIA.replace("init.mp4", &format!("init.mp4{making}")).replace(".m4s", &format!(".m4s{making}"));
    assert_eq!(variant.text(), expected);
    assert_eq!(variant.header("last-modified"), "Mon, 20 Oct 2025 05:03:11 GMT");
    let known = app.call("GET", &master, &[AUTH, ("If-None-Match", &playlist.header("etag"))], b"");
    assert_eq!(known.status, 304);
    let head = app.call("HEAD", &master, &[AUTH], b"");
    assert_eq!((head.status, head.header("content-length")), (200, MASTER.len().to_string()));
}

#[test]
fn a_public_stream_may_be_kept_by_caches() {
    let (app, id) = start(|film| film.with_stream(true));
    let at = |rest: &str| format!("/api/v1/assets/{id}/transcodes/{rest}");
    let master = app.get(&at("playlist.m3u8"));
    assert_eq!((&*master.text(), &*master.header("cache-control")), (MASTER, "public, max-age=10, must-revalidate"));
    let link = signed(&app, &format!("{id}/transcodes/playlist.m3u8"), LATER);
    assert_eq!(app.get(&link).text(), MASTER, "nothing to be signed");
    let settled = format!("720p/segment_00001.m4s?v={MADE_AT:x}");
    let segment = app.call("GET", &at(&settled), &[("Range", "bytes=5-11")], b"");
    assert_eq!((segment.status, &*segment.text()), (206, "segment"));
    assert_eq!(segment.header("cache-control"), "public, max-age=31536000, immutable");
    let unsettled = app.get(&at("720p/segment_00001.m4s"));
    assert_eq!((unsettled.status, &*unsettled.header("cache-control")), (200, "public, max-age=300, must-revalidate"));
    let detail = app.get(&at("720p/segment_00001.m4s?v=1")).refused(404, "CONTENT_NOT_FOUND");
    assert!(detail.contains("made again"), "{detail}");
    let beyond = app.call("GET", &at(&settled), &[("Range", "bytes=99-")], b"");
    assert_eq!((beyond.status, &*beyond.header("cache-control")), (416, "no-store"));

    fs::write(app.data_dir().join("conversions/secret.mp4"), b"secret").unwrap();
    for path in [
        "720p/nonsense.m4s",
        "1080p/playlist.m3u8",
        "720p/init.txt",
        "720p/.m4s",
        "..%2F..%2F..%2F..%2Fconversions/secret.mp4",
        "%2e%2e/secret.mp4",
        "720p%2F..%2F720p/init.mp4",
        "720p/..%2Finit.mp4",
        "720p/init.mp4%00",
        "720P/init.mp4",
    ] {
        let answer = app.get(&at(path));
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    assert_eq!(app.get(&at("../transcodes/playlist.m3u8/x")).status, 404);
}

#[test]
fn a_storyboard_is_shown_frame_by_frame() {
    let cues = "WEBVTT\n\n00:00:00.000 --> 00:00:04.250\nsprite.jpg#xywh=0,0,320,180\n";
    let (frame, sprite) = (jpeg(320, 180), jpeg(640, 180));
    let files: &[(&str, &[u8])] = &[
        ("storyboard/storyboard_000008.jpg", &frame),
        ("storyboard/sprite.jpg", &sprite),
        ("storyboard/storyboard.vtt", cues.as_bytes()),
    ];
    let (app, id) = start(|film| film.with("storyboard", "vtt", "text/vtt", true, files));
    for base in [format!("/api/v1/storyboard/{id}"), format!("/api/v1/assets/{id}/storyboard")] {
        let at = |rest: &str| format!("{base}/{rest}");
        let whole = app.get(&at("storyboard_000008.jpg"));
        assert!(whole.picture() == ("image/jpeg", 320, 180) && whole.body == frame);
        let cut = app.get(&at("storyboard_000008.jpg?resize=60,60"));
        assert_eq!(cut.picture(), ("image/jpeg", 60, 34));
        let webp = app.call("GET", &at("storyboard_000008.jpg?resize=60,60"), &[("Accept", "image/webp")], b"");
        assert_eq!(webp.picture(), ("image/webp", 60, 34));
        assert_eq!(app.get(&at("sprite.jpg?resize=64,64")).picture(), ("image/jpeg", 64, 18));
        let told = app.get(&at("storyboard.vtt"));
        assert_eq!((told.status, &*told.header("content-type")), (200, "text/vtt"));
        assert_eq!(told.text(), cues.replace("sprite.jpg", &format!("sprite.jpg?v={MADE_AT:x}")));
        let settled = app.get(&at(&format!("sprite.jpg?v={MADE_AT:x}")));
        assert_eq!(
            (settled.body == sprite, &*settled.header("cache-control")),
            (true, "public, max-age=31536000, immutable")
        );
        for missing in
            ["storyboard_000009.jpg", "storyboard_000009.jpg?resize=9,9", "storyboard_8.jpg", "..%2Fx.jpg?resize=9,9"]
        {
            app.get(&at(missing)).refused(404, "CONTENT_NOT_FOUND");
        }
        app.get(&at("storyboard_000008.jpg?resize=x")).refused(400, "INVALID_REQUEST");
    }

    let (app, id) = start(|film| film.with("storyboard", "vtt", "text/vtt", false, files));
    let at = |rest: &str| format!("/api/v1/storyboard/{id}/{rest}");
    for path in ["storyboard.vtt", "sprite.jpg", "storyboard_000008.jpg", "storyboard_000008.jpg?resize=60,60"] {
        app.get(&at(path)).refused(401, "UNAUTHORIZED");
        assert_eq!(ask(&app, &at(path)).status, 200, "{path}");
    }
    let link = signed(&app, &format!("{id}/storyboard/storyboard.vtt"), LATER);
    let told = app.get(&link).text();
    let sheet = told.lines().find(|line| line.starts_with("sprite.jpg?")).unwrap().split('#').next().unwrap();
    let path = format!("/api/v1/assets/{id}/storyboard/{sheet}");
    assert_eq!(app.get(&path).body, sprite);
    app.get(&path.replace("sprite.jpg", "storyboard_000008.jpg")).refused(403, "FORBIDDEN");
    app.get(&format!("{path}&resize=60,60")).refused(403, "FORBIDDEN");
}

#[test]
fn a_picture_stands_for_a_film_and_for_a_recording() {
    let (poster, wave) = (jpeg(1600, 900), png(800, 200, true));
    let mut app = Appliance::start();
    let film =
        Film::of(&app, "video/mp4").with("poster", "jpg", "image/jpeg", false, &[("poster.jpg", &poster)]).planted();
    let sound =
        Film::of(&app, "audio/mpeg").with("waveform", "png", "image/png", false, &[("waveform.png", &wave)]).planted();
    let [bare, broken] = [Film::of(&app, "video/mp4"), Film::of(&app, "audio/mpeg")].map(|film| {
        let id = film.id.clone();
        let why = "UPDATE asset SET errors = '{\"audio_preview\": \"The sound cannot be decoded.\"}' WHERE id = ?1 AND content_type = 'audio/mpeg'";
        film.rows.execute(why, [&id]).unwrap();
        id
    });
    app.restart();
    let at = |id: &str, query: &str| format!("/api/v1/assets/{id}/conversions?{query}");
    assert_eq!(app.get(&at(&film, "resize=800,600")).picture(), ("image/jpeg", 800, 450));
    assert_eq!(app.get(&format!("/api/v1/conversion/{film}?crop=100,100")).picture(), ("image/jpeg", 100, 100));
    assert_eq!(app.get(&at(&film, "")).picture(), ("image/jpeg", 1600, 900));
    assert_eq!(app.get(&at(&sound, "resize=400,400")).picture(), ("image/png", 400, 100));
    let detail = app.get(&at(&bare, "resize=9,9")).refused(404, "NO_IMAGE");
    assert!(detail.contains("film"), "{detail}");
    let detail = app.get(&at(&broken, "resize=9,9")).refused(404, "NO_IMAGE");
    assert!(detail.contains("recording") && detail.contains("cannot be decoded"), "{detail}");

    let mut video = app.json("/api/v1/user/settings")["video"].clone();
    video["thumbnails"]["video_default"] = json!({"width": 640, "height": 480});
    assert_eq!(update(&app, "PATCH", UPDATE, &json!({"key": "video", "value": video})).status, 200);
    assert_eq!(app.get(&at(&film, "")).picture(), ("image/jpeg", 640, 360), "when no size is asked for");
    assert_eq!(app.get(&at(&film, "resize=800,600")).picture(), ("image/jpeg", 800, 450));
}

fn update(app: &Appliance, method: &str, path: &str, body: &Value) -> Answer {
    app.call(method, path, &[AUTH], body.to_string().as_bytes())
}

#[test]
fn what_is_made_of_films_is_chosen_in_the_settings() {
    let mut app = Appliance::start();
    let mut video = app.json("/api/v1/user/settings")["video"].clone();
    let keys: Vec<String> = video["transcodes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 9, "{keys:?}");
    for key in &keys {
        assert_eq!(
            (&video["transcodes"][key]["enabled"], &video["transcodes"][key]["public"]),
            (&json!(false), &json!(false))
        );
        video["transcodes"][key] = json!({"enabled": true, "public": key.contains("wm"), "aspect": "pad", "padding": "000000", "upscale": true});
    }
    video["transcodes"]["hls-video"]["watermark"] = json!(true);
    video["video_transcode_test_mode"] = json!(true);
    video["thumbnails"] = json!({
        "video_default": {"height": 480, "width": 640},
        "storyboard": {"enabled": true, "mode": "number", "mode_value": 5, "width": 480, "height": 360,
                       "public": true, "aspect": "pad", "padding": "000000", "upscale": true}});
    video["preview"] = json!({
        "video_preview_public": true, "video_preview_start": "00:00:03.001", "video_preview_length": 5,
        "video_preview_preset": "480p-wm-video", "video_preview_enabled": true, "video_preview_aspect": "pad",
        "video_preview_padding": "000000", "video_preview_upscale": true});
    let answer = update(&app, "POST", &format!("{UPDATE}?update_key=video"), &json!({"value": video}));
    assert_eq!((answer.status, &answer.json()["video"]), (200, &video), "{}", answer.text());
    app.restart();
    assert_eq!(app.json("/api/v1/user/settings")["video"], video);

    for (pointer, value, word) in [
        ("/transcodes/720p-video/aspect", json!("squeeze"), "squeeze"),
        ("/transcodes/720p-video/enabled", json!("yes"), "boolean"),
        ("/transcodes/9000p-video", video["transcodes"]["720p-video"].clone(), "9000p-video"),
        ("/thumbnails/storyboard/mode_value", json!(0), "mode_value"),
        ("/preview/video_preview_start", json!("soon"), "HH:MM:SS"),
        ("/preview/video_preview_preset", json!("hls-video"), "480p-wm-video"),
        ("/transcodes/720p-video/watermark", json!(true), "720p-wm-video"),
        ("/preview", json!(5), "PreviewData"),
    ] {
        let mut wrong = video.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[name] = value;
        let detail =
            update(&app, "PATCH", UPDATE, &json!({"key": "video", "value": wrong})).refused(400, "INVALID_REQUEST");
        assert!(detail.contains(word), "{pointer}: {detail}");
    }
    for pointer in [
        "/video_transcode_test_mode",
        "/thumbnails",
        "/thumbnails/storyboard",
        "/thumbnails/storyboard/mode_value",
        "/thumbnails/video_default/height",
        "/preview/video_preview_start",
        "/transcodes",
        "/transcodes/360p-video",
        "/transcodes/720p-wm-video/upscale",
        "/transcodes/hls-video",
        "/transcodes/hls-video/watermark",
    ] {
        let mut less = video.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        less.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        let answer = update(&app, "PATCH", UPDATE, &json!({"key": "video", "value": less}));
        let detail = answer.refused(400, "MISSING_MANDATORY_PARAMETERS");
        assert!(detail.contains(&pointer[1..]), "{pointer}: {detail}");
    }
    assert_eq!(app.json("/api/v1/user/settings")["video"], video, "nothing changed");
}

#[test]
fn who_may_see_renditions_follows_the_settings_and_before_them_what_was_said_of_a_film() {
    let (app, id) = start(|film| {
        film.with("720p-video", "mp4", "video/mp4", false, &[("720p-video.mp4", b"film")])
            .with("clip_preview", "mp4", "video/mp4", false, &[("clip_preview.mp4", b"clip")])
            .with_stream(false)
    });
    let shown = || {
        ["720p-video.mp4", "clip_preview.mp4", "playlist.m3u8"]
            .map(|file| app.get(&format!("/api/v1/assets/{id}/transcodes/{file}")).status == 200)
    };
    let mut video = app.json("/api/v1/user/settings")["video"].clone();
    let mut choose = |public: bool| {
        video["transcodes"]["720p-video"]["public"] = json!(public);
        video["transcodes"]["hls-video"]["public"] = json!(public);
        video["preview"]["video_preview_public"] = json!(public);
        assert_eq!(update(&app, "PATCH", UPDATE, &json!({"key": "video", "value": video})).status, 200);
    };
    assert_eq!(shown(), [false; 3]);
    choose(true);
    assert_eq!(shown(), [true; 3]);
    let said = app.post_json(
        &format!("/api/v1/assets/{id}/content/remove_public_access"),
        "{\"keys\": [\"hls-video\", \"original\"]}",
    );
    assert_eq!(said.json()["keys"], json!(["hls-video", "original"]));
    choose(false);
    choose(true);
    assert_eq!(shown(), [true, true, false], "somebody said so of this stream");
    choose(false);
    assert_eq!(shown(), [false; 3]);
}

#[test]
fn a_film_gets_no_marked_rendition_without_a_mark() {
    let (app, id) = start(|film| film);
    let mut video = app.json("/api/v1/user/settings")["video"].clone();
    video["transcodes"]["hls-video"]["watermark"] = json!(true);
    video["preview"]["video_preview_preset"] = json!("480p-wm-video");
    assert_eq!(update(&app, "PATCH", UPDATE, &json!({"key": "video", "value": video})).status, 200);
    let keys = "{\"keys\": [\"720p-wm-video\", \"hls-video\", \"clip_preview\"]}";
    let asked = app.post_json(&format!("/api/v1/assets/{id}/process"), keys).json();
    let job = app.until(&format!("/api/v1/jobs/{}", asked["job_id"]), |job| !job["completed_at"].is_null());
    assert_eq!(job["status"], "ERROR");
    let data = app.json(&format!("/api/v1/assets/{id}/data"));
    for key in ["720p-wm-video", "hls-video", "clip_preview"] {
        let step = &job["job_steps"]["transcodes"][key];
        assert_eq!(step["status"], "ERROR", "{job}");
        let why = step["message"].as_str().unwrap();
        assert!(why.starts_with("No watermark is set") && data["errors"][key] == why, "{data}");
    }
    assert_eq!((&data["status"], &data["conversions"]), (&json!("OK"), &json!({})));
}

#[test]
fn a_job_that_waits_can_be_cancelled() {
    let app = Appliance::start();
    let film = Film::of(&app, "video/mp4");
    // A round of two steps that nobody here can do, by one job.
    film.rows
        .execute_batch(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO job (id, kind, queue, args, state, run_at, created_at)
                 VALUES (4000, 'test.none', 'nowhere', '{{}}', 'available', 1, 1);
             INSERT INTO round (id, asset_id, revision, creator_id, kind, status, requested_at)
                 VALUES (3000, '{}', 1, 1, 'VIDEO_TRANSCODE', 'QUEUED', 1000);
             INSERT INTO step (round_id, key, status, job_id)
                 VALUES (3000, '720p-video', 'QUEUED', 4000), (3000, 'storyboard', 'QUEUED', 4000);
             COMMIT;",
            film.id
        ))
        .unwrap();
    let job = app.json("/api/v1/jobs/3000");
    assert_eq!((&job["status"], &job["type"]), (&json!("QUEUED"), &json!("VIDEO_TRANSCODE")));
    assert_eq!(job["job_steps"]["addons"]["storyboard"]["status"], "QUEUED");

    app.call("POST", "/api/v1/jobs/3000/cancel", &[], b"").refused(401, "UNAUTHORIZED");
    let cancelled = app.post_json("/api/v1/jobs/3000/cancel", "");
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let job = cancelled.json();
    assert_eq!(job, app.json("/api/v1/jobs/3000"));
    assert_eq!((&job["status"], job["completed_at"].is_string()), (&json!("ERROR"), true));
    for step in [&job["job_steps"]["transcodes"]["720p-video"], &job["job_steps"]["addons"]["storyboard"]] {
        assert_eq!(
            (&step["status"], &step["message"]),
            (&json!("ERROR"), &json!(format!("Cancelled by {EMAIL}."))),
            "{job}"
        );
    }
    let state: String = film.rows.query_row("SELECT state FROM job WHERE id = 4000", [], |row| row.get(0)).unwrap();
    assert_eq!(state, "cancelled", "nobody will do it");
    app.post_json("/api/v1/jobs/3000/cancel", "").refused(409, "CONFLICT");
    app.post_json("/api/v1/jobs/3001/cancel", "").refused(404, "JOB_NOT_FOUND");
}
