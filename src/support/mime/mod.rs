//! What a file is, told from its first bytes; and the table of media types.
//!
//! In go the first [`SNIFF_BYTES`] of a file, out comes its [`Kind`]: media type, extension,
//! family, and whether a browser may show it from our origin. A name is never believed: what
//! it declares is only compared ([`mismatch`]).
//!
//! Invariant: `inline` is an allow-list of raster pictures, sound and film, none of which a
//! browser runs. Everything else, known or not, is a download ([`served`]).
//!
//! Whether a file is whole or decodes is the media workers' business.

mod sniff;

pub use self::sniff::sniff;

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

#[cfg(test)]
mod tests;
