//! Telling what a file is from its first bytes.
//!
//! In: a head of any bytes. Out: a row of the table; [`UNKNOWN`] when nothing fits.
//!
//! `infer` knows the common signatures; what it cannot tell apart is looked at here first (ISO
//! media by their brands, raw files that are TIFF inside, office files in a ZIP, all text).

use super::Family;
use super::KINDS;
use super::Kind;
use super::SNIFF_BYTES;
use super::UNKNOWN;
use super::kind;
use super::known;

/// Tells what a file is from its first [`SNIFF_BYTES`].
pub fn sniff(head: &[u8]) -> Kind {
    let head = head.get(..SNIFF_BYTES).unwrap_or(head);
    let found = iso_media(head)
        .or_else(|| riff(head))
        .or_else(|| tiff(head))
        .or_else(|| signature(head))
        .or_else(|| zip(head))
        .or_else(|| matroska(head))
        .or_else(|| ogg(head))
        .or_else(|| transport_stream(head))
        .or_else(|| inferred(head))
        .or_else(|| bare_audio(head))
        .or_else(|| text(head));
    found.unwrap_or(UNKNOWN)
}

fn bytes_at(head: &[u8], at: usize, want: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(want))
}

fn holds(head: &[u8], want: &[u8]) -> bool {
    head.windows(want.len()).any(|window| window == want)
}

/// ISO base media (MP4 and its many relatives), by major and compatible brands.
fn iso_media(head: &[u8]) -> Option<Kind> {
    if !bytes_at(head, 4, b"ftyp") {
        // Old QuickTime has no `ftyp`: it begins with one of these boxes.
        let boxes: [&[u8]; 4] = [b"moov", b"mdat", b"wide", b"pnot"];
        let is_quicktime = boxes.iter().any(|name| bytes_at(head, 4, name)) && head.first() == Some(&0);
        return is_quicktime.then(|| known("mov")).flatten();
    }
    let size = usize::try_from(u32::from_be_bytes(head.get(..4)?.try_into().ok()?)).ok()?;
    let brands = head.get(8..size.clamp(12, 264).min(head.len()))?;
    let (major, rest) = brands.split_at_checked(4)?;
    let compatible: Vec<&[u8]> = rest.get(4..).unwrap_or_default().chunks_exact(4).collect();
    let has = |brand: &[u8]| major == brand || compatible.contains(&brand);
    let extension = match major {
        b"avif" | b"avis" => "avif",
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => "heic",
        // The structural brands say nothing of the codec; the compatible ones do.
        b"mif1" | b"msf1" | b"mif2" | b"miaf" if has(b"avif") || has(b"avis") => "avif",
        b"mif1" | b"msf1" | b"mif2" | b"miaf" if has(b"heic") || has(b"heix") || has(b"hevc") => "heic",
        b"mif1" | b"msf1" | b"mif2" | b"miaf" => "heif",
        b"crx " => "cr3",
        b"jp2 " | b"jpx " | b"jpm " => "jp2",
        b"qt  " => "mov",
        b"M4A " | b"M4B " | b"M4P " => "m4a",
        b"M4V " | b"M4VH" | b"M4VP" => "m4v",
        _ if major.starts_with(b"3g") => "3gp",
        _ => "mp4",
    };
    known(extension)
}

fn riff(head: &[u8]) -> Option<Kind> {
    if !(head.starts_with(b"RIFF") || head.starts_with(b"RF64") || head.starts_with(b"BW64")) {
        return None;
    }
    match head.get(8..12)? {
        b"WEBP" => known("webp"),
        b"WAVE" => known("wav"),
        b"AVI " => known("avi"),
        _ => None,
    }
}

/// TIFF, and the camera raw files that are TIFF inside, told apart by the tags of their first
/// directory: a DNG says its version; other makers' raw files hold a reduced picture there.
fn tiff(head: &[u8]) -> Option<Kind> {
    const SUBFILE_TYPE: u16 = 254;
    const MAKE: u16 = 271;
    const SUB_DIRECTORIES: u16 = 330;
    const DNG_VERSION: u16 = 50_706;

    let big_endian = match head.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        b"IIRO" | b"IIRS" | b"MMOR" => return known("orf"),
        b"IIU\0" => return known("rw2"),
        b"II+\0" | b"MM\0+" => return known("tif"),
        _ => return None,
    };
    if bytes_at(head, 8, b"CR\x02") {
        return known("cr2");
    }
    let short = |at: usize| -> Option<u16> {
        let bytes = head.get(at..at + 2)?.try_into().ok()?;
        Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| -> Option<usize> {
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }).ok()
    };
    let (mut is_reduced, mut has_inner, mut make) = (false, false, None);
    let directory = long(4)?;
    for n in 0..usize::from(short(directory).unwrap_or(0)) {
        let entry = directory + 2 + 12 * n;
        let Some(tag) = short(entry) else { break };
        match tag {
            SUBFILE_TYPE => is_reduced = long(entry + 8) == Some(1),
            MAKE => make = long(entry + 8).and_then(|at| head.get(at..)),
            SUB_DIRECTORIES => has_inner = true,
            DNG_VERSION => return known("dng"),
            _ => {}
        }
    }
    match make {
        Some(make) if is_reduced && has_inner && make.starts_with(b"NIKON") => known("nef"),
        Some(make) if is_reduced && has_inner && make.starts_with(b"SONY") => known("arw"),
        Some(make) if has_inner && make.starts_with(b"PENTAX") => known("pef"),
        _ => known("tif"),
    }
}

/// Signatures that `infer` lacks, or reads too loosely or too strictly.
fn signature(head: &[u8]) -> Option<Kind> {
    let table: [(&[u8], &str); 15] = [
        (b"\xFF\xD8\xFF", "jpg"),
        (b"\x89PNG\r\n\x1A\n", "png"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"8BPS", "psd"),
        (b"FUJIFILMCCD-RAW", "raf"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "jxl"),
        (b"\xFF\x0A", "jxl"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "jp2"),
        (b"\xFF\x4F\xFF\x51", "jp2"),
        (b"\x7FELF", "elf"),
        (b"%PDF-", "pdf"),
        // Which of the old office formats it is stands somewhere in the middle of the file.
        (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "ole"),
        (b"%!PS", "ps"),
        (b"\0\0\x01\xBA", "mpg"),
    ];
    let found = table.iter().find(|(start, _)| head.starts_with(start)).map(|(_, extension)| *extension);
    // Readers look for a PDF's mark in the first KiB, and so must we, or it hides as text.
    let late_pdf = || holds(head.get(..1024).unwrap_or(head), b"%PDF-").then_some("pdf");
    // "BM" and "MZ" begin too many texts: the bitmap's header size and reserved words decide,
    // and a program is not text.
    let bitmap = || {
        let size = head.get(14..18)?.try_into().map(u32::from_le_bytes).ok()?;
        let is_bitmap =
            head.starts_with(b"BM") && bytes_at(head, 6, &[0; 4]) && [12, 16, 40, 52, 56, 64, 108, 124].contains(&size);
        is_bitmap.then_some("bmp")
    };
    let program = || (head.starts_with(b"MZ") && !is_text(head)).then_some("exe");
    found.or_else(bitmap).or_else(program).or_else(late_pdf).and_then(known)
}

/// A ZIP is what the names of its first entries say.
fn zip(head: &[u8]) -> Option<Kind> {
    if !(head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")) {
        return None;
    }
    // OpenDocument and EPUB: a first, stored entry `mimetype` whose content is the type.
    if bytes_at(head, 30, b"mimetype") {
        let stated = head.get(38..).unwrap_or_default();
        let exact = KINDS.iter().map(|(kind, _)| kind).filter(|kind| stated.starts_with(kind.content_type.as_bytes()));
        return exact.max_by_key(|kind| kind.content_type.len()).copied().or_else(|| known("zip"));
    }
    if holds(head, b"[Content_Types].xml") || holds(head, b"_rels/.rels") || holds(head, b"docProps/") {
        for (folder, extension) in [(&b"word/"[..], "docx"), (b"xl/", "xlsx"), (b"ppt/", "pptx")] {
            if holds(head, folder) {
                return known(extension);
            }
        }
    }
    known("zip")
}

fn matroska(head: &[u8]) -> Option<Kind> {
    if !head.starts_with(b"\x1A\x45\xDF\xA3") {
        return None;
    }
    let start = head.get(..128).unwrap_or(head);
    known(if holds(start, b"webm") { "webm" } else { "mkv" })
}

fn ogg(head: &[u8]) -> Option<Kind> {
    if !head.starts_with(b"OggS") {
        return None;
    }
    known(if holds(head, b"\x80theora") || holds(head, b"BBCD\0") { "ogv" } else { "ogg" })
}

/// Packets of 188 bytes, or of 192 with a time stamp before each.
fn transport_stream(head: &[u8]) -> Option<Kind> {
    let is_stream = |first: usize, step: usize| {
        let marks: Vec<_> = head.iter().skip(first).step_by(step).collect();
        marks.len() >= 3 && marks.iter().all(|&&byte| byte == 0x47)
    };
    (is_stream(0, 188) || is_stream(4, 192)).then(|| known("ts")).flatten()
}

fn inferred(head: &[u8]) -> Option<Kind> {
    let found = infer::get(head)?;
    let (content_type, extension) = match found.mime_type() {
        // Texts are judged below, by stricter rules; the others by their own rules above.
        mime if mime.starts_with("text/") => return None,
        "image/bmp" | "audio/mpeg" | "audio/aac" if !head.starts_with(b"ID3") => return None,
        "application/vnd.microsoft.portable-executable" | "application/x-compress" if is_text(head) => return None,
        "audio/x-wav" => ("audio/wav", "wav"),
        "audio/x-flac" => ("audio/flac", "flac"),
        "audio/x-aiff" => ("audio/aiff", "aiff"),
        mime => (mime, found.extension()),
    };
    let row = KINDS.iter().map(|(kind, _)| *kind).find(|kind| kind.content_type == content_type);
    Some(row.unwrap_or_else(|| {
        let family = match content_type.split('/').next() {
            Some("image") => Family::Image,
            Some("video") => Family::Video,
            Some("audio") => Family::Audio,
            _ => Family::Other,
        };
        kind(content_type, extension, family)
    }))
}

/// MPEG audio and ADTS without a tag in front: a frame header and, if it is in sight, the next.
fn bare_audio(head: &[u8]) -> Option<Kind> {
    let sync = |at: usize| head.get(at) == Some(&0xFF) && head.get(at + 1).is_some_and(|b| b & 0xE0 == 0xE0);
    let [_, second, third, fourth, fifth, sixth] = *head.first_chunk::<6>()?;
    if !sync(0) {
        return None;
    }
    if second & 0xF6 == 0xF0 {
        let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth) >> 5;
        let rate = third >> 2 & 15;
        return (rate < 13 && length >= 7 && (sync(length) || head.len() <= length)).then(|| known("aac")).flatten();
    }
    let (version, layer, bitrate, rate) = (second >> 3 & 3, second >> 1 & 3, third >> 4, third >> 2 & 3);
    let is_frame = version != 1 && layer != 0 && bitrate != 0 && bitrate != 15 && rate != 3;
    let next = (24..head.len().min(2900)).any(|at| {
        sync(at) && head.get(at + 1) == Some(&second) && head.get(at + 2).is_some_and(|t| t >> 2 & 3 == rate)
    });
    (is_frame && next).then(|| known("mp3")).flatten()
}

/// UTF-8, UTF-16 with its mark, or mostly ASCII with some bytes of an older code; without
/// control characters that no text has.
fn is_text(head: &[u8]) -> bool {
    decoded(head).is_some()
}

fn decoded(head: &[u8]) -> Option<String> {
    let wide = |read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = head.get(2..).unwrap_or_default().as_chunks().0.iter().map(|pair| read(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    let text = match head {
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => match std::str::from_utf8(head) {
            Ok(text) => text.to_owned(),
            // The last character may be cut by the end of what we look at.
            Err(error) if error.error_len().is_none() && head.len() == SNIFF_BYTES => {
                String::from_utf8_lossy(head.get(..error.valid_up_to())?).into_owned()
            }
            Err(_) => legacy(head)?,
        },
    };
    let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0C' | '\x1B');
    (!text.is_empty() && !text.contains(odd)).then_some(text)
}

/// Text in one of the older one-byte codes, read as if it were Latin-1: markup is ASCII in all
/// of them, and the rest is not looked at.
fn legacy(head: &[u8]) -> Option<String> {
    let foreign = head.iter().filter(|byte| !byte.is_ascii()).count();
    let letter = |&byte: &u8| if matches!(byte, 0x80..=0x9F) { char::REPLACEMENT_CHARACTER } else { char::from(byte) };
    (foreign * 3 <= head.len()).then(|| head.iter().map(letter).collect())
}

fn text(head: &[u8]) -> Option<Kind> {
    let text = decoded(head)?;
    let start = text.trim_start_matches('\u{FEFF}').trim_start();
    if start.starts_with("#!") {
        return known("sh");
    }
    if start.starts_with("#EXTM3U") {
        return known("m3u8");
    }
    if start.starts_with("{\\rtf") {
        return known("rtf");
    }
    if start.starts_with('<')
        && let Some(kind) = markup(start)
    {
        return Some(kind);
    }
    known(if is_json(start) {
        "json"
    } else if is_csv(start) {
        "csv"
    } else {
        "txt"
    })
}

/// XML and HTML, by the first element after declarations, comments and document type.
fn markup(start: &str) -> Option<Kind> {
    let is_xml = start.starts_with("<?xml");
    let mut rest = start;
    loop {
        rest = rest.trim_start();
        let after = if let Some(comment) = rest.strip_prefix("<!--") {
            comment.split_once("-->")
        } else if let Some(instruction) = rest.strip_prefix("<?") {
            instruction.split_once("?>")
        } else if rest.get(..9).is_some_and(|doctype| doctype.eq_ignore_ascii_case("<!doctype")) {
            let name = rest.get(9..).unwrap_or_default().trim_start();
            match name.get(..4) {
                Some(name) if name.eq_ignore_ascii_case("html") => return known("html"),
                _ if name.starts_with("svg") => return known("svg"),
                _ => {}
            }
            // An internal subset holds `>` of its own.
            let end = if name.split('>').next().is_some_and(|head| head.contains('[')) { "]>" } else { ">" };
            rest.split_once(end)
        } else {
            break;
        };
        match after {
            Some((_, after)) => rest = after,
            None => break,
        }
    }
    let element = rest.strip_prefix('<')?;
    let end = element.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).unwrap_or(element.len());
    let name = element.get(..end)?.rsplit(':').next()?.to_ascii_lowercase();
    match name.as_str() {
        "svg" => known("svg"),
        _ if is_html(rest) => known("html"),
        _ if is_xml || looks_like_xml(element, &name) => known("xml"),
        _ => None,
    }
}

/// Markup without a declaration: an element name, then its end or attributes.
fn looks_like_xml(element: &str, name: &str) -> bool {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    is_name && element.contains('>')
}

/// Whether a browser that sniffs would take it for HTML: any of these elements near the start.
fn is_html(start: &str) -> bool {
    let lower: String = start.chars().take(1024).collect::<String>().to_ascii_lowercase();
    let elements = [
        "<html",
        "<head",
        "<body",
        "<script",
        "<iframe",
        "<title",
        "<style",
        "<!doctype html",
        "<table",
        "<div",
        "<h1",
        "<img",
    ];
    elements.iter().any(|element| {
        lower.match_indices(element).any(|(at, _)| {
            lower
                .get(at + element.len()..)
                .and_then(|rest| rest.chars().next())
                .is_none_or(|c| c.is_whitespace() || matches!(c, '>' | '/'))
        })
    })
}

fn is_json(start: &str) -> bool {
    let mut chars = start.chars().filter(|c| !c.is_whitespace());
    match (chars.next(), chars.next()) {
        (Some('{'), Some('"' | '}')) => true,
        (Some('['), Some(c)) => {
            matches!(c, '{' | '[' | '"' | ']' | '-' | 't' | 'f' | 'n' | '0'..='9') && !is_section(start)
        }
        _ => false,
    }
}

/// `[name]` alone on the first line heads an INI file.
fn is_section(start: &str) -> bool {
    let line = start.lines().next().unwrap_or_default().trim_end();
    let inner = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    inner.is_some_and(|inner| {
        inner.starts_with(|c: char| c.is_ascii_alphabetic()) && !["true", "false", "null"].contains(&inner)
    })
}

/// At least two whole lines with the same number of the same separator. The last line in
/// sight may be cut and does not count.
fn is_csv(start: &str) -> bool {
    let whole = start.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines: Vec<_> = whole.lines().filter(|line| !line.trim().is_empty()).collect();
    let same = |separator: char| {
        let mut counts = lines.iter().map(|line| line.matches(separator).count());
        counts.next().is_some_and(|first| first > 0 && counts.all(|count| count == first))
    };
    lines.len() >= 2 && [',', ';', '\t'].into_iter().any(same)
}
