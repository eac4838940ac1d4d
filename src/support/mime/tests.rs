//! Heads of files and what they are; names, and what they may say.

use proptest::prelude::*;

use super::*;

fn ftyp(major: &str, compatible: &[&str]) -> Vec<u8> {
    let size = 16 + 4 * compatible.len() as u32;
    let mut head = [&size.to_be_bytes()[..], b"ftyp", major.as_bytes(), &[0; 4]].concat();
    head.extend(compatible.concat().bytes());
    head.extend(b"\0\0\0\x08free");
    head
}

/// A little-endian TIFF of one directory; texts and long values lie behind it.
fn tiff_with(tags: &[(u16, u32)], make: &str) -> Vec<u8> {
    let count = tags.len() as u16 + 1;
    let make_at = 8 + 2 + 12 * u32::from(count) + 4;
    let mut head = [b"II*\0", &8u32.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for (tag, value) in tags.iter().chain([&(271, make_at)]) {
        head.extend([&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &value.to_le_bytes()].concat());
    }
    head.extend([0; 4]);
    head.extend(make.bytes());
    head
}

fn zip_of(names: &[&str]) -> Vec<u8> {
    let entry = |name: &&str| {
        [b"PK\x03\x04", &[0; 22][..], &(name.len() as u16).to_le_bytes(), &[0; 2], name.as_bytes()].concat()
    };
    names.iter().flat_map(entry).collect()
}

fn mpeg_audio(frames: usize) -> Vec<u8> {
    let frame = [&[0xFF, 0xFB, 0x90, 0x64][..], &[0; 413]].concat();
    frame.repeat(frames)
}

fn adts(frames: usize) -> Vec<u8> {
    let frame = [&[0xFF, 0xF1, 0x50, 0x80, 0x0C, 0x9F, 0xFC][..], &[0; 93]].concat();
    frame.repeat(frames)
}

fn utf16(text: &str) -> Vec<u8> {
    [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

fn bmp() -> Vec<u8> {
    [b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", &40u32.to_le_bytes()[..], &[0; 40]].concat()
}

#[test]
fn heads_and_what_they_are() {
    let check = |head: &[u8], extension: &str, content_type: &str| {
        let found = sniff(head);
        let start = String::from_utf8_lossy(&head[..head.len().min(40)]);
        assert_eq!((found.extension, found.content_type), (extension, content_type), "{start:?}");
    };
    check(b"\xFF\xD8\xFF\xE0\0\x10JFIF", "jpg", "image/jpeg");
    check(b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR", "png", "image/png");
    check(b"GIF89a\x01\0\x01\0", "gif", "image/gif");
    check(b"GIF89a/*\x01\0*/=alert(1)", "gif", "image/gif");
    check(b"RIFF\x24\0\0\0WEBPVP8 ", "webp", "image/webp");
    check(&ftyp("avif", &["mif1", "miaf"]), "avif", "image/avif");
    check(&ftyp("mif1", &["avif", "miaf"]), "avif", "image/avif");
    check(&ftyp("heic", &["mif1", "heic"]), "heic", "image/heic");
    check(&ftyp("mif1", &["heic"]), "heic", "image/heic");
    check(&ftyp("mif1", &["miaf"]), "heif", "image/heif");
    check(&ftyp("crx ", &["crx ", "isom"]), "cr3", "image/x-canon-cr3");
    check(&bmp(), "bmp", "image/bmp");
    check(b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0", "ico", "image/vnd.microsoft.icon");
    check(b"8BPS\0\x01\0\0\0\0\0\0", "psd", "image/vnd.adobe.photoshop");
    check(b"\xFF\x0A\xFA\x7F", "jxl", "image/jxl");
    check(b"\0\0\0\x0CJXL \r\n\x87\n\0\0", "jxl", "image/jxl");
    check(b"\0\0\0\x0CjP  \r\n\x87\n\0\0", "jp2", "image/jp2");
    check(b"\xFF\x4F\xFF\x51\0\x2F", "jp2", "image/jp2");
    // Camera raw, and TIFF that is not.
    check(b"II*\0\x10\0\0\0CR\x02\0", "cr2", "image/x-canon-cr2");
    check(b"FUJIFILMCCD-RAW 0201", "raf", "image/x-fuji-raf");
    check(b"IIRO\x08\0\0\0", "orf", "image/x-olympus-orf");
    check(b"IIU\0\x18\0\0\0", "rw2", "image/x-panasonic-rw2");
    check(&tiff_with(&[(254, 1), (330, 99)], "NIKON CORPORATION"), "nef", "image/x-nikon-nef");
    check(&tiff_with(&[(254, 1), (330, 99)], "SONY"), "arw", "image/x-sony-arw");
    check(&tiff_with(&[(254, 1), (50_706, 0x0401)], "NIKON CORPORATION"), "dng", "image/x-adobe-dng");
    check(&tiff_with(&[(254, 0)], "NIKON CORPORATION"), "tif", "image/tiff");
    check(b"MM\0*\0\0\0\x08\0\0", "tif", "image/tiff");
    check(b"MM\0*\xFF\xFF\xFF\xFF", "tif", "image/tiff");
    // Film and sound.
    check(&ftyp("isom", &["iso2", "avc1", "mp41"]), "mp4", "video/mp4");
    check(&ftyp("mp42", &["mp42"]), "mp4", "video/mp4");
    check(&ftyp("XAVC", &["mp42"]), "mp4", "video/mp4");
    check(&ftyp("qt  ", &[]), "mov", "video/quicktime");
    check(b"\0\0\0\x08wide\0\0\x10\0mdat", "mov", "video/quicktime");
    check(&ftyp("M4V ", &["isom"]), "m4v", "video/x-m4v");
    check(&ftyp("M4A ", &["isom"]), "m4a", "audio/mp4");
    check(&ftyp("3gp4", &["isom"]), "3gp", "video/3gpp");
    check(b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\x82\x84webm", "webm", "video/webm");
    check(b"\x1A\x45\xDF\xA3\xA3\x42\x86\x81\x01\x42\x82\x88matroska", "mkv", "video/x-matroska");
    check(b"RIFF\x24\0\0\0AVI LIST", "avi", "video/x-msvideo");
    check(&[&b"\x47\x40\0\x10"[..], &[0xFF; 184]].concat().repeat(4), "ts", "video/mp2t");
    check(&[&b"\0\0\0\0\x47\x40\0\x10"[..], &[0xFF; 184]].concat().repeat(4), "ts", "video/mp2t");
    check(b"\0\0\x01\xBA\x44\0", "mpg", "video/mpeg");
    check(b"\0\0\x01\xB3\x16\0", "mpg", "video/mpeg");
    check(b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\x13vorbis", "ogg", "audio/ogg");
    check(b"OggS\0\x02\0\0\0\0\0\0\0\0OpusHead", "ogg", "audio/ogg");
    check(b"OggS\0\x02\0\0\0\0\0\0\0\0\x80theora", "ogv", "video/ogg");
    check(b"fLaC\0\0\0\x22", "flac", "audio/flac");
    check(b"RIFF\x24\0\0\0WAVEfmt ", "wav", "audio/wav");
    check(b"ID3\x03\0\0\0\0\0\x0A", "mp3", "audio/mpeg");
    check(&mpeg_audio(3), "mp3", "audio/mpeg");
    check(&adts(3), "aac", "audio/aac");
    // Documents.
    check(b"%PDF-1.7\n%\xE2\xE3", "pdf", "application/pdf");
    check(b"junk\n%PDF-1.4\n", "pdf", "application/pdf");
    check(
        &zip_of(&["[Content_Types].xml", "_rels/.rels", "word/document.xml"]),
        "docx",
        from_name("a.docx").unwrap().content_type,
    );
    check(&zip_of(&["[Content_Types].xml", "xl/workbook.xml"]), "xlsx", from_name("a.xlsx").unwrap().content_type);
    check(&zip_of(&["_rels/.rels", "ppt/presentation.xml"]), "pptx", from_name("a.pptx").unwrap().content_type);
    check(
        &zip_of(&["mimetypeapplication/vnd.oasis.opendocument.text"]),
        "odt",
        "application/vnd.oasis.opendocument.text",
    );
    check(&zip_of(&["mimetypeapplication/epub+zip"]), "epub", "application/epub+zip");
    check(&zip_of(&["photo.jpg", "word/trick.txt"]), "zip", "application/zip");
    check(b"{\\rtf1\\ansi", "rtf", "application/rtf");
    check(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0\0", "ole", "application/x-ole-storage");
    // Text.
    check(b"plain words\n", "txt", "text/plain");
    check("Größe, größer\n".as_bytes(), "txt", "text/plain");
    check(&utf16("plain words"), "txt", "text/plain");
    check(b"Gr\xF6\xDFe, gr\xF6\xDFer \x96 1252\n", "txt", "text/plain");
    check(b"BM is not a bitmap, MZ no program", "txt", "text/plain");
    check(b"MZ is no program", "txt", "text/plain");
    check(b"name,size\na,1\nb,2\n", "csv", "text/csv");
    check(b" { \"a\": 1 }", "json", "application/json");
    check(b"[1, 2]", "json", "application/json");
    check(b"[storage]\nbackend = 'fs'\n", "txt", "text/plain");
    check(b"<?xml version='1.0'?><note/>", "xml", "application/xml");
    check(b"<note a='1'>x</note>", "xml", "application/xml");
    check(b"I <3 you", "txt", "text/plain");
    check(b"<3 you", "txt", "text/plain");
    check(b"#!/bin/sh\n", "sh", "text/x-shellscript");
    check(b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/\n", "m3u8", "application/vnd.apple.mpegurl");
    // What runs elsewhere.
    check(b"\x7FELF\x02\x01\x01", "elf", "application/x-executable");
    check(b"MZ\x90\0\x03\0\0\0", "exe", "application/vnd.microsoft.portable-executable");
    check(b"\xCF\xFA\xED\xFE\x07\0\0\x01", "mach", "application/x-mach-binary");
    check(b"\x1F\x8B\x08\0", "gz", "application/gzip");
    check(b"7z\xBC\xAF\x27\x1C", "7z", "application/x-7z-compressed");
    check(b"", "bin", "application/octet-stream");
    check(b"\0\x01\x02\x03", "bin", "application/octet-stream");
    check(&[0xFF; 64], "bin", "application/octet-stream");
}

#[test]
fn active_content_is_known_however_it_is_dressed() {
    for (head, extension) in [
        (&b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>"[..], "svg"),
        (b"\xEF\xBB\xBF<?xml version='1.0'?>\n<!-- > --><!DOCTYPE svg PUBLIC '-//W3C'>\n<svg>", "svg"),
        (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a '>'><!ENTITY b '&a;'>]><svg:svg xmlns:svg='s'>", "svg"),
        (b"<!-- <html> --><svg>", "svg"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><!-- Gr\xFC\xDFe --><svg>", "svg"),
        (b"<title>Gr\xFC\xDFe</title><script>", "html"),
        (b"<html><svg/></html>", "html"),
        (b"  \r\n<!DOCTYPE HTML>", "html"),
        (b"<!-- x --><SCRIPT>alert(1)</SCRIPT>", "html"),
        (b"<b><iframe src=x>", "html"),
        (b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>", "html"),
        (&utf16("<html>"), "html"),
        (&utf16("<svg onload=x()>"), "svg"),
    ] {
        let found = sniff(head);
        assert_eq!(found.extension, extension, "{}", String::from_utf8_lossy(head));
        assert!(!found.inline);
        assert_eq!(served(found.content_type), ("application/octet-stream", false));
    }
}

#[test]
fn a_long_comment_does_not_make_markup_showable() {
    let head = format!("<!-- {} --><svg onload=x()>", "x".repeat(5000));
    assert!(!sniff(head.as_bytes()).inline);
}

#[test]
fn where_infer_alone_would_be_wrong() {
    let mime = |head: &[u8]| infer::get(head).map(|found| found.mime_type());
    assert_eq!(mime(b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0\0"), Some("application/msword"));
    assert_ne!(mime(&ftyp("crx ", &["isom"])), Some("image/x-canon-cr3"));
    assert_ne!(mime(&tiff_with(&[(254, 1), (330, 99)], "NIKON")), Some("image/x-nikon-nef"));
    assert_eq!(mime(b"BM is not a bitmap"), Some("image/bmp"));
    assert_eq!(mime(b"MZ is no program"), Some("application/vnd.microsoft.portable-executable"));
    assert_ne!(mime(&[&b"\x47\x40\0\x10"[..], &[0xFF; 184]].concat().repeat(4)), Some("video/mp2t"));
    assert_eq!(mime(b"<svg onload='x()'>"), None);
    // And where it is right, it is what answers.
    for head in
        [&b"fLaC\0\0\0\x22"[..], b"\0\0\x01\0\x01\0\x10\x10", b"\x1F\x8B\x08\0", b"7z\xBC\xAF\x27\x1C", b"FLV\x01"]
    {
        assert!(mime(head).is_some() && sniff(head) != UNKNOWN, "{head:?}");
    }
}

#[test]
fn names_are_compared_with_contents() {
    let png = known("png").unwrap();
    assert_eq!(mismatch("a.jpg", &png).as_deref(), Some("This may be a PNG file uploaded as JPG!"));
    for (name, is, warning) in [
        ("a.png", "png", None),
        ("a.PNG", "png", None),
        ("a.jpeg", "jpg", None),
        ("a.JPEG", "png", Some("This may be a PNG file uploaded as JPEG!")),
        ("a.jpg", "txt", Some("This may be a TXT file uploaded as JPG!")),
        ("a.jpg", "html", Some("This may be a HTML file uploaded as JPG!")),
        ("a.jpg", "heic", Some("This may be a HEIC file uploaded as JPG!")),
        ("a.mp4", "m3u8", Some("This may be a M3U8 file uploaded as MP4!")),
        ("a.mp4", "mov", Some("This may be a MOV file uploaded as MP4!")),
        ("a.heic", "heif", None),
        ("a.tiff", "tif", None),
        ("a.nef", "tif", None),
        ("a.3fr", "tif", None),
        ("a.tif", "nef", Some("This may be a NEF file uploaded as TIF!")),
        ("a.mp4", "m4v", None),
        ("a.mkv", "webm", None),
        ("a.webm", "mkv", Some("This may be a MKV file uploaded as WEBM!")),
        ("a.md", "txt", None),
        ("a.md", "html", None),
        ("a.svg", "html", Some("This may be a HTML file uploaded as SVG!")),
        ("a.txt", "svg", Some("This may be a SVG file uploaded as TXT!")),
        ("a.docx", "zip", None),
        ("a", "png", None),
        (".png", "jpg", None),
        ("a.unheard", "png", None),
        ("a.jpg.", "png", None),
        ("dir.jpg/a", "png", None),
    ] {
        assert_eq!(mismatch(name, &known(is).unwrap()).as_deref(), warning, "{name} is {is}");
    }
    assert_eq!(mismatch("a.jpg", &UNKNOWN), None);
}

#[test]
fn names_refine_what_the_content_leaves_open() {
    for (is, name, refined_to) in [
        ("ole", "a.xls", "xls"),
        ("zip", "a.docx", "docx"),
        ("tif", "a.nef", "nef"),
        ("tif", "a.tiff", "tif"),
        ("txt", "a.csv", "csv"),
        ("txt", "a.html", "txt"),
        ("txt", "a.jpg", "txt"),
        ("zip", "a.jpg", "zip"),
        ("xml", "a.svg", "xml"),
        ("png", "a.jpg", "png"),
        ("zip", "a", "zip"),
    ] {
        assert_eq!(refined(known(is).unwrap(), name).extension, refined_to, "{is} named {name}");
    }
    let names = KINDS.iter().flat_map(|(kind, also)| also.iter().copied().chain([kind.extension]));
    for name in names.map(|extension| format!("a.{extension}")) {
        for (kind, _) in KINDS {
            assert!(refined(*kind, &name).inline <= kind.inline, "{kind:?} named {name}");
        }
    }
}

#[test]
fn names_declare_types() {
    for (name, content_type) in [
        ("photo.JPG", Some("image/jpeg")),
        ("a.b.jpeg", Some("image/jpeg")),
        ("clip.mts", Some("video/mp2t")),
        ("clip.m4v", Some("video/x-m4v")),
        ("x.heif", Some("image/heif")),
        ("noname", None),
        ("..", None),
        ("", None),
    ] {
        assert_eq!(from_name(name).map(|kind| kind.content_type), content_type, "{name}");
    }
}

#[test]
fn only_pictures_sound_and_film_are_shown() {
    for (kind, _) in KINDS.iter().filter(|(kind, _)| kind.inline) {
        assert!(matches!(kind.family, Family::Image | Family::Video | Family::Audio), "{kind:?}");
        assert_eq!(served(kind.content_type), (kind.content_type, true));
    }
    assert_eq!(served("IMAGE/PNG"), ("image/png", true));
    for refused in
        ["image/svg+xml", "text/html", "application/pdf", "application/xhtml+xml", "text/plain", "image/png; x", ""]
    {
        assert_eq!(served(refused), ("application/octet-stream", false), "{refused}");
    }
}

#[test]
fn the_table_is_consistent_and_every_row_that_is_named_exists() {
    let mut extensions: Vec<_> = KINDS.iter().map(|(kind, _)| kind.extension).collect();
    extensions.sort_unstable();
    assert!(extensions.windows(2).all(|pair| pair[0] != pair[1]));
    let mut types: Vec<_> = KINDS.iter().map(|(kind, _)| kind.content_type).collect();
    types.sort_unstable();
    assert!(types.windows(2).all(|pair| pair[0] != pair[1]));
    for call in include_str!("sniff.rs").split("known(\"").skip(1) {
        let extension = call.split('"').next().unwrap();
        assert!(known(extension).is_some(), "{extension}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(head in prop::collection::vec(any::<u8>(), 0..600)) {
        sniff(&head);
    }

    #[test]
    fn no_broken_head_breaks_it(cut in 0usize..200, at in 0usize..200, byte in any::<u8>()) {
        for mut head in [tiff_with(&[(254, 1), (330, 9)], "SONY"), ftyp("mif1", &["avif"]), mpeg_audio(2), adts(2), bmp(), utf16("<svg>")] {
            if let Some(place) = head.get_mut(at) { *place = byte; }
            head.truncate(cut);
            sniff(&head);
        }
    }

    #[test]
    fn no_text_is_ever_shown(text in "[ -~\\n]{1,300}") {
        prop_assert!(!sniff(text.as_bytes()).inline || text.starts_with("GIF8"), "{:?}", sniff(text.as_bytes()));
    }
}
