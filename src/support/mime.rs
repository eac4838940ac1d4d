//! What a file is, told from its first bytes; and the table of media types.
//!
//! In go the first [`SNIFF_BYTES`] of a file, out comes its [`Kind`]: media type, extension,
//! family, and whether a browser may show it from our origin. A name is never believed: what
//! it declares is only compared ([`mismatch`]).
//!
//! Invariant: `inline` is an allow-list of raster pictures, sound and film, none of which a
//! browser runs. Everything else, known or not, is a download ([`served`]).
//!
//! `infer` knows the common signatures; what it cannot tell apart is looked at here first (ISO
//! media by their brands, raw files that are TIFF inside, office files in a ZIP, all text).
//! Whether a file is whole or decodes is the media workers' business.

/// How much of a file is looked at.
pub const SNIFF_BYTES: usize = 4096;

/// The broad sort of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Image,
    Video,
    Audio,
    Document,
    Other,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub content_type: &'static str,
    /// The usual extension, lower case, without a dot.
    pub extension: &'static str,
    pub family: Family,
    /// Whether a browser may show it from our origin.
    pub inline: bool,
}

/// A file of which nothing is known.
pub const UNKNOWN: Kind = kind("application/octet-stream", "bin", Family::Other);

const fn kind(content_type: &'static str, extension: &'static str, family: Family) -> Kind {
    Kind { content_type, extension, family, inline: false }
}

const fn shown(content_type: &'static str, extension: &'static str, family: Family) -> Kind {
    Kind { content_type, extension, family, inline: true }
}

/// Every kind that has a say here, by its usual extension. The names behind it are taken for
/// the same kind when a file's name is compared with its content.
const KINDS: &[(Kind, &[&str])] = {
    use Family::Audio;
    use Family::Document;
    use Family::Image;
    use Family::Other;
    use Family::Video;
    &[
        (shown("image/jpeg", "jpg", Image), &["jpeg", "jpe", "jfif", "jif"]),
        (shown("image/png", "png", Image), &["apng"]),
        (shown("image/gif", "gif", Image), &[]),
        (shown("image/webp", "webp", Image), &[]),
        (shown("image/avif", "avif", Image), &["avifs"]),
        (shown("image/bmp", "bmp", Image), &["dib"]),
        (kind("image/heic", "heic", Image), &["heif", "hif", "heics"]),
        (kind("image/heif", "heif", Image), &["heic", "hif", "heifs"]),
        (kind("image/tiff", "tif", Image), &["tiff"]),
        (kind("image/vnd.microsoft.icon", "ico", Image), &["cur"]),
        (kind("image/vnd.adobe.photoshop", "psd", Image), &["psb"]),
        (kind("image/svg+xml", "svg", Image), &[]),
        (kind("image/jxl", "jxl", Image), &[]),
        (kind("image/jp2", "jp2", Image), &["jpf", "jpx", "jpm", "j2k", "j2c", "jpc"]),
        (kind("image/vnd.ms-photo", "jxr", Image), &["wdp", "hdp"]),
        (kind("image/x-canon-cr2", "cr2", Image), &[]),
        (kind("image/x-canon-cr3", "cr3", Image), &["crm"]),
        (kind("image/x-nikon-nef", "nef", Image), &["nrw"]),
        (kind("image/x-sony-arw", "arw", Image), &["sr2", "srf"]),
        (kind("image/x-fuji-raf", "raf", Image), &[]),
        (kind("image/x-adobe-dng", "dng", Image), &[]),
        (kind("image/x-olympus-orf", "orf", Image), &["ori"]),
        (kind("image/x-panasonic-rw2", "rw2", Image), &["raw", "rwl"]),
        (kind("image/x-pentax-pef", "pef", Image), &[]),
        (shown("video/mp4", "mp4", Video), &["m4v", "mp4v", "m4a", "f4v"]),
        (shown("video/x-m4v", "m4v", Video), &["mp4"]),
        (shown("video/quicktime", "mov", Video), &["qt"]),
        (shown("video/webm", "webm", Video), &["mkv"]),
        (kind("video/x-matroska", "mkv", Video), &["mka", "mk3d"]),
        (kind("video/x-msvideo", "avi", Video), &["divx"]),
        (kind("video/mp2t", "ts", Video), &["mts", "m2ts", "m2t", "tod"]),
        (kind("video/mpeg", "mpg", Video), &["mpeg", "mpe", "m1v", "m2v", "vob", "mod"]),
        (kind("video/3gpp", "3gp", Video), &["3gpp", "3g2", "mp4"]),
        (kind("video/ogg", "ogv", Video), &["ogg", "ogx"]),
        (kind("video/x-ms-wmv", "wmv", Video), &["asf", "wma"]),
        (kind("video/x-flv", "flv", Video), &[]),
        (shown("audio/mpeg", "mp3", Audio), &["mp2", "mpga"]),
        (shown("audio/mp4", "m4a", Audio), &["m4b", "m4r", "mp4", "aac"]),
        (shown("audio/aac", "aac", Audio), &["adts"]),
        (shown("audio/ogg", "ogg", Audio), &["oga", "opus", "spx"]),
        (shown("audio/flac", "flac", Audio), &[]),
        (shown("audio/wav", "wav", Audio), &["wave", "bwf"]),
        (kind("audio/aiff", "aiff", Audio), &["aif", "aifc"]),
        (kind("audio/midi", "mid", Audio), &["midi", "kar"]),
        (kind("audio/amr", "amr", Audio), &[]),
        (kind("application/pdf", "pdf", Document), &["ai"]),
        (kind("application/postscript", "ps", Document), &["eps", "ai"]),
        (kind("application/rtf", "rtf", Document), &["doc"]),
        (kind("application/msword", "doc", Document), &["dot"]),
        (kind("application/vnd.ms-excel", "xls", Document), &["xlt"]),
        (kind("application/vnd.ms-powerpoint", "ppt", Document), &["pps", "pot"]),
        (
            kind("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", Document),
            &["docm", "dotx"],
        ),
        (
            kind("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx", Document),
            &["xlsm", "xltx"],
        ),
        (
            kind("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx", Document),
            &["pptm", "ppsx", "potx"],
        ),
        (kind("application/vnd.oasis.opendocument.text", "odt", Document), &["ott"]),
        (kind("application/vnd.oasis.opendocument.spreadsheet", "ods", Document), &["ots"]),
        (kind("application/vnd.oasis.opendocument.presentation", "odp", Document), &["otp"]),
        (kind("application/epub+zip", "epub", Document), &[]),
        (
            kind("text/plain", "txt", Document),
            &[
                "text", "log", "md", "ini", "cfg", "conf", "toml", "yaml", "yml", "csv", "tsv", "srt", "vtt", "ics",
                "vcf",
            ],
        ),
        (kind("text/csv", "csv", Document), &["tsv", "txt", "log", "md"]),
        (kind("text/html", "html", Document), &["htm", "xhtml", "xht"]),
        (kind("application/json", "json", Document), &["geojson", "webmanifest", "map", "txt"]),
        (
            kind("application/xml", "xml", Document),
            &["xsd", "xsl", "xslt", "xmp", "gpx", "kml", "rss", "atom", "plist", "mpd"],
        ),
        (kind("application/vnd.apple.mpegurl", "m3u8", Other), &["m3u"]),
        (kind("text/x-shellscript", "sh", Other), &["bash", "py", "pl", "rb", "txt"]),
        (
            kind("application/zip", "zip", Other),
            &[
                "cbz", "docx", "xlsx", "pptx", "odt", "ods", "odp", "odg", "epub", "jar", "apk", "ora", "kmz", "pages",
                "numbers", "key", "aar", "usdz", "xpi",
            ],
        ),
        (kind("application/gzip", "gz", Other), &["tgz", "svgz"]),
        (kind("application/x-executable", "elf", Other), &["so", "o", "bin", "run", "appimage"]),
        (kind("application/vnd.microsoft.portable-executable", "exe", Other), &["dll", "sys", "scr", "ocx"]),
        (kind("application/x-mach-binary", "mach", Other), &["dylib", "bin"]),
        (
            kind("application/x-ole-storage", "ole", Document),
            &["doc", "dot", "xls", "xlt", "ppt", "pps", "pot", "msg", "msi", "db"],
        ),
    ]
};

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

/// What the file's name declares, by its extension.
pub fn from_name(name: &str) -> Option<Kind> {
    let extension = extension_of(name)?;
    let usual = KINDS.iter().find(|(kind, _)| kind.extension == extension);
    let alias = || KINDS.iter().find(|(_, also)| also.contains(&&*extension));
    usual.or_else(alias).map(|(kind, _)| *kind)
}

/// The kind that the name says, where the content allows it and cannot say as much itself: a
/// container or plain text of many uses. No name makes a file one that is shown.
pub fn refined(kind: Kind, name: &str) -> Kind {
    let is_vague = ["zip", "ole", "tif", "txt", "xml"].contains(&kind.extension);
    let may_be_called =
        |declared: &Kind| !declared.inline && extension_of(name).is_some_and(|said| goes_by(&kind, &said));
    from_name(name).filter(|declared| is_vague && may_be_called(declared)).unwrap_or(kind)
}

/// The warning for a file whose name says one thing and whose content another; the wording is
/// that of the API's documentation. Names without a known extension and contents that nobody
/// knows give none.
pub fn mismatch(name: &str, kind: &Kind) -> Option<String> {
    let (said, named) = (extension_of(name)?, from_name(name)?);
    // Which language a text is in is guesswork: templates and notes would warn all day.
    let both_are_text = is_written(kind) && is_written(&named);
    if kind.content_type == UNKNOWN.content_type || both_are_text || goes_by(kind, &said) {
        return None;
    }
    let (is, said) = (kind.extension.to_ascii_uppercase(), said.to_ascii_uppercase());
    Some(format!("This may be a {is} file uploaded as {said}!"))
}

/// How a stored file of this type is sent: the `Content-Type`, and whether `inline` (else as
/// an attachment). Types outside the allow-list keep no type that a browser would act on.
pub fn served(content_type: &str) -> (&'static str, bool) {
    let allowed = KINDS.iter().find(|(kind, _)| kind.inline && kind.content_type.eq_ignore_ascii_case(content_type));
    allowed.map_or((UNKNOWN.content_type, false), |(kind, _)| (kind.content_type, true))
}

fn extension_of(name: &str) -> Option<String> {
    let base = name.rsplit(['/', '\\']).next()?;
    let (stem, extension) = base.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_ascii_lowercase())
}

fn is_written(kind: &Kind) -> bool {
    matches!(kind.extension, "txt" | "csv" | "html" | "json" | "xml" | "sh")
}

/// Whether files of this kind are rightly called so.
fn goes_by(kind: &Kind, extension: &str) -> bool {
    // Raw files of most makers are TIFF inside, and not every model is told apart here.
    const TIFF_INSIDE: &[&str] = &[
        "dng", "nef", "nrw", "arw", "sr2", "srf", "cr2", "pef", "orf", "rw2", "raw", "3fr", "iiq", "srw", "kdc", "dcr",
        "erf",
    ];
    let is_tiff_inside = kind.extension == "tif" || TIFF_INSIDE.contains(&kind.extension);
    if kind.extension == extension || (is_tiff_inside && TIFF_INSIDE.contains(&extension)) {
        return true;
    }
    KINDS.iter().any(|(row, also)| {
        row.content_type == kind.content_type && (row.extension == extension || also.contains(&extension))
    })
}

/// The row of this extension; the callers name only rows that exist, which a test checks.
fn known(extension: &str) -> Option<Kind> {
    KINDS.iter().map(|(kind, _)| *kind).find(|kind| kind.extension == extension)
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

#[cfg(test)]
mod tests {
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
        let source = include_str!("mime.rs");
        let code = source.split_once("#[cfg(test)]").unwrap().0;
        for call in code.split("known(\"").skip(1) {
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
}
