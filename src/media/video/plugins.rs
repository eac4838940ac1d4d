//! GStreamer's plug-ins: which there are for a stranger's film, and loading them.
//!
//! In: the errand, which says what is needed. Out: a process in which those elements can be made.
//!
//! Invariant: only files of [`PLUGINS`] and of [`encoders::CANDIDATES`] are loaded, by their
//! names. There is none among them that opens an address, follows a playlist or draws on a
//! screen, so that no file can ask for one.
//!
//! No folder is scanned, no registry read or written and no scanner started: the process is
//! locked in already, and its first film is its last. [`super::ENVIRONMENT`] says so to
//! GStreamer, and must be there from the start.
//!
//! A plug-in that is not installed is no error here; what needs it will say so, and the survey
//! does beforehand.

use std::path::Path;
use std::path::PathBuf;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::Errand;
use super::Missing;
use super::VideoError;
use super::encoders;
use super::encoders::Candidate;

/// A plug-in: the file `libgst{file}.so`.
#[derive(Clone, Copy, Debug)]
struct Plugin {
    file: &'static str,
    /// One of its elements, known by name to whoever looks for help.
    element: &'static str,
    /// Debian's package.
    package: &'static str,
    /// What cannot be done without it; empty where others step in.
    without: &'static str,
}

const CORE: &str = "libgstreamer1.0-0";
const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";

const NOTHING: &str = "Films and recordings cannot be worked on at all.";

/// What every errand may need.
const PLUGINS: &[Plugin] = &[
    // The frame.
    plugin("coreelements", "queue", CORE, NOTHING),
    plugin("typefindfunctions", "typefind", BASE, NOTHING),
    plugin("playback", "decodebin", BASE, NOTHING),
    plugin("app", "appsink", BASE, NOTHING),
    plugin("videoconvertscale", "videoconvert", BASE, NOTHING),
    plugin("videorate", "videorate", BASE, NOTHING),
    plugin("videofilter", "videoflip", GOOD, "Films that were taken upright cannot be made."),
    plugin("deinterlace", "deinterlace", GOOD, "Interlaced films cannot be made."),
    plugin("audioconvert", "audioconvert", BASE, NOTHING),
    plugin("audioresample", "audioresample", BASE, NOTHING),
    plugin("audiorate", "audiorate", BASE, NOTHING),
    plugin("videoparsersbad", "h264parse", BAD, "No H.264 can be written or read."),
    plugin("audioparsers", "aacparse", GOOD, "No AAC can be written or read."),
    // Containers.
    plugin("isomp4", "mp4mux", GOOD, "MP4 and MOV can be neither written nor read."),
    plugin("matroska", "matroskademux", GOOD, "MKV and WebM cannot be read."),
    plugin("mpegtsdemux", "tsdemux", BAD, "Transport streams (TS, M2TS) cannot be read."),
    plugin("mpegpsdemux", "mpegpsdemux", BAD, "MPEG program streams (MPG, VOB) cannot be read."),
    plugin("avi", "avidemux", GOOD, "AVI cannot be read."),
    plugin("flv", "flvdemux", GOOD, "FLV cannot be read."),
    plugin("asf", "asfdemux", UGLY, "WMV and WMA cannot be read."),
    plugin("mxf", "mxfdemux", BAD, "MXF cannot be read."),
    plugin("ogg", "oggdemux", BASE, "Ogg cannot be read."),
    plugin("dv", "dvdemux", GOOD, "DV cannot be read."),
    plugin("ivfparse", "ivfparse", BAD, "IVF cannot be read."),
    plugin("wavparse", "wavparse", GOOD, "WAV cannot be read."),
    plugin("aiff", "aiffparse", BAD, "AIFF cannot be read."),
    plugin("auparse", "auparse", GOOD, "AU cannot be read."),
    plugin("id3demux", "id3demux", GOOD, "MP3 with a title or a cover cannot be read."),
    plugin("apetag", "apedemux", GOOD, ""),
    // Codecs that libav has not, or not as well.
    plugin("opusparse", "opusparse", BAD, ""),
    plugin("opus", "opusdec", BASE, ""),
    plugin("vorbis", "vorbisdec", BASE, "Vorbis cannot be decoded."),
    plugin("theora", "theoradec", BASE, "Theora cannot be decoded."),
    plugin("vpx", "vp9dec", GOOD, "VP8 and VP9 with transparency cannot be decoded."),
    plugin("aom", "av1dec", BAD, "AV1 cannot be decoded."),
    plugin("flac", "flacdec", GOOD, ""),
    plugin("mpg123", "mpg123audiodec", GOOD, ""),
    plugin("speex", "speexdec", GOOD, "Speex cannot be decoded."),
    plugin("wavpack", "wavpackdec", GOOD, "WavPack cannot be decoded."),
    plugin("alaw", "alawdec", GOOD, "A-law cannot be decoded."),
    plugin("mulaw", "mulawdec", GOOD, "Mu-law cannot be decoded."),
    plugin("gsm", "gsmdec", BAD, ""),
    plugin("adpcmdec", "adpcmdec", BAD, ""),
    plugin("amrnb", "amrnbdec", UGLY, ""),
    plugin("amrwbdec", "amrwbdec", UGLY, ""),
    plugin("jpeg", "jpegdec", GOOD, "Motion JPEG cannot be decoded, and films get no pictures."),
    plugin("jpegformat", "jpegparse", BAD, ""),
    plugin("png", "pngdec", GOOD, ""),
    LIBRARY,
];

/// Needs as long as all others together, because it brings a hundred libraries.
const LIBRARY: Plugin = plugin(
    "libav",
    "avdec_h264",
    LIBAV,
    "H.264, HEVC, AAC and most other codecs cannot be decoded, and no film can have sound.",
);

const fn plugin(file: &'static str, element: &'static str, package: &'static str, without: &'static str) -> Plugin {
    Plugin { file, element, package, without }
}

/// Starts GStreamer and loads what `errand` may need.
pub fn prepare(errand: &Errand) -> Result<(), VideoError> {
    let internal = |e: String| VideoError::Internal(format!("GStreamer does not start: {e}"));
    gst::init().map_err(|e| internal(e.to_string()))?;
    gstfmp4::plugin_register_static().map_err(|e| internal(e.to_string()))?;
    let encoder = match errand {
        Errand::Encoder(factory) => Some(factory),
        Errand::Transcode(order) => Some(&order.encoder),
        _ => None,
    };
    // To try an encoder nothing is decoded.
    let decodes = !matches!(errand, Errand::Encoder(_));
    let folder = folder();
    for plugin in PLUGINS.iter().filter(|plugin| decodes || plugin.file != LIBRARY.file) {
        load(&folder, plugin.file);
    }
    if let Some(candidate) = encoder.and_then(|factory| encoders::candidate_named(factory)) {
        load_encoder(&folder, candidate);
    }
    Ok(())
}

/// What is not installed, for a process that has been prepared for a survey.
pub fn missing() -> Vec<Missing> {
    let absent = |plugin: &&Plugin| !plugin.without.is_empty() && !is_known(plugin.element);
    PLUGINS.iter().filter(absent).map(|plugin| missing_one(plugin.element, plugin.package, plugin.without)).collect()
}

/// Everything that is not installed as one, for what could not be done without some of it.
pub fn missing_together(without: &str) -> Option<Missing> {
    let all = missing();
    let list = |each: fn(&Missing) -> &str| {
        let mut names: Vec<&str> = all.iter().map(each).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    (!all.is_empty()).then(|| missing_one(&list(|m| &m.element), &list(|m| &m.package), without))
}

/// What is missing where there is no such element; what no plug-in above brings is an encoder.
pub fn absent(factory: &str) -> Missing {
    match bringing(factory) {
        Some(plugin) => missing_one(factory, plugin.package, plugin.without),
        None => encoders::absent(factory),
    }
}

/// Whether there is such an element, or one that was loaded under this name.
pub fn is_known(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// The plug-in of an element that our pipelines are built with.
fn bringing(factory: &str) -> Option<&'static Plugin> {
    let known = match factory {
        "filesrc" | "filesink" | "fakesink" | "tee" | "capsfilter" => "queue",
        "avenc_aac" => LIBRARY.element,
        "jpegenc" => "jpegdec",
        other => other,
    };
    PLUGINS.iter().find(|plugin| plugin.element == known)
}

pub fn missing_one(element: &str, package: &str, without: &str) -> Missing {
    Missing { element: element.to_owned(), package: package.to_owned(), without: without.to_owned() }
}

/// Also drivers' decoders come with an encoder; they are never to be chosen.
fn load_encoder(folder: &Path, candidate: &Candidate) {
    if is_known(candidate.factory) {
        return;
    }
    let Some(plugin) = load(folder, candidate.plugin) else { return };
    for feature in gst::Registry::get().features_by_plugin(&plugin.plugin_name()) {
        feature.set_rank(gst::Rank::NONE);
    }
}

fn load(folder: &Path, file: &str) -> Option<gst::Plugin> {
    gst::Plugin::load_file(folder.join(format!("libgst{file}.so"))).ok()
}

/// Where the plug-ins of this machine's architecture are: beside GStreamer itself on Debian.
fn folder() -> PathBuf {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let here = |library: &&str| Path::new(library).join("gstreamer-1.0").is_dir();
    let library = [multiarch.as_str(), "/usr/lib64", "/usr/lib"].into_iter().find(here).unwrap_or("/usr/lib");
    Path::new(library).join("gstreamer-1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_listed_is_there_under_its_name() {
        prepare(&Errand::Survey).unwrap();
        assert_eq!(missing(), []);
        for plugin in PLUGINS {
            assert!(is_known(plugin.element), "{} brings no {}", plugin.file, plugin.element);
        }
        assert!(is_known("cmafmux"));
    }

    #[test]
    fn an_element_that_is_missing_is_in_the_plugin_that_is_named() {
        prepare(&Errand::Survey).unwrap();
        for factory in [
            "filesrc",
            "filesink",
            "fakesink",
            "tee",
            "capsfilter",
            "queue",
            "decodebin",
            "videoconvert",
            "videorate",
            "deinterlace",
            "audioconvert",
            "audioresample",
            "aacparse",
            "avenc_aac",
            "h264parse",
            "jpegenc",
            "mp4mux",
        ] {
            let named = format!("libgst{}.so", bringing(factory).unwrap().file);
            let plugin = gst::ElementFactory::find(factory).unwrap().plugin().unwrap();
            assert!(plugin.filename().unwrap().ends_with(&named), "{factory}: {plugin:?}");
        }
        assert_eq!(absent("aacparse").package, GOOD);
        assert_eq!(absent("x264enc").package, UGLY);
    }

    #[test]
    fn nothing_listed_opens_an_address() {
        for word in ["gio", "soup", "curl", "hls", "dash", "adaptivedemux", "rtp", "rtsp", "rtmp", "udp", "tcp", "srt"]
        {
            assert!(PLUGINS.iter().all(|plugin| !plugin.file.contains(word)), "{word}");
        }
    }
}
