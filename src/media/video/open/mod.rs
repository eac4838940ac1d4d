//! Opening a stranger's film or recording: what is in it, and its frames and samples.
//!
//! In: the path of a file. Out: [`Facts`] about it ([`look`]), or decoded pads in a pipeline
//! ([`decode`]), each handed over once.
//!
//! Invariant: the named file is the only thing that is read. It comes through `filesrc`, and
//! `decodebin` may pick only from [`OPENERS`] and [`DECODERS`]: there is no element among them
//! that follows an address, so a playlist under a film's name is refused without a request. Streams
//! that nobody wants are not decoded at all, and tags (places, names, a rotation that would be
//! applied twice) end at the decoded pads.
//!
//! Facts come from decoding the first frame with one thread, not from reading headers: a header that
//! lies is found out here. `GstDiscoverer` would do the same over `uridecodebin`, which opens addresses.
//!
//! `facts` says what there is, `watch` what is wrong and whose fault it is.

mod facts;
#[cfg(test)]
pub(super) mod samples;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::VideoError;
use super::allowed::DECODERS;
use super::allowed::MOST_ELEMENTS;
use super::allowed::OPENERS;
use super::elements;
use super::elements::element;
use super::elements::internal;
use super::elements::invalid;
use super::elements::seconds;

use self::facts::picture;
use self::facts::sound;

pub use self::facts::Facts;
pub use self::facts::Picture;
pub use self::facts::Sound;
pub use self::facts::Wanted;
pub use self::watch::Notes;
pub use self::watch::Watch;

/// What a decoded pad carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Picture,
    Sound,
}

/// What is in a file: its first frame and first samples are decoded for it.
pub fn look(source: &Path) -> Result<Facts, VideoError> {
    check_file(source)?;
    let pipeline = gst::Pipeline::new();
    let found: Arc<Mutex<Vec<gst::Pad>>> = Arc::default();
    let found_too = Arc::clone(&found);
    let weak = pipeline.downgrade();
    let notes = open(&pipeline, source, None, 1, move |pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if sink_away(&pipeline, pad, kind(pad).is_some()).is_ok() {
            found_too.lock().unwrap_or_else(PoisonError::into_inner).push(pad.clone());
        }
    })?;
    let mut watch = Watch::new(&pipeline, notes.clone())?;
    watch.preroll()?;

    let pads = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let duration = pipeline.query_duration::<gst::ClockTime>().map(seconds);
    let mut pictures = Vec::new();
    let mut sounds = Vec::new();
    for pad in &pads {
        match kind(pad) {
            Some(Kind::Picture) => pictures.extend(picture(pad, &notes)),
            Some(Kind::Sound) => sounds.extend(sound(pad)),
            None => {}
        }
    }
    let picture = pictures.into_iter().find(|(_, cover)| !cover || sounds.is_empty()).map(|(picture, _)| picture);
    let several = sounds.len();
    let chosen = (0..several).max_by_key(|&at| (sounds.get(at).map(|(_, rank)| *rank), several - at));
    let sound = chosen.map(|at| sounds.swap_remove(at).0);
    if picture.is_none() && sound.is_none() {
        return Err(notes.fault().unwrap_or_else(|| notes.nothing_decoded()));
    }
    Ok(Facts {
        container: notes.container().unwrap_or_default(),
        duration_seconds: duration,
        picture,
        sound,
        sounds: several,
        warnings: notes.warnings(),
    })
}

/// Puts the file into a pipeline, decoding with `threads` threads (0: as many as there are cores).
///
/// `take` is called from a streaming thread, once for each wanted stream, and links the pad to
/// elements that are in the pipeline already or that it adds and brings to the pipeline's state. No
/// tags come out of the pads. Hand the notes to a [`Watch`].
pub fn decode(
    pipeline: &gst::Pipeline,
    source: &Path,
    wanted: &Wanted,
    threads: u32,
    take: impl Fn(Kind, &gst::Pad) -> Result<(), VideoError> + Send + Sync + 'static,
) -> Result<Notes, VideoError> {
    check_file(source)?;
    let weak = pipeline.downgrade();
    let decided = wanted.clone();
    let taken = Mutex::new(Vec::new());
    let moves: Arc<AtomicU64> = Arc::default();
    let moves_too = Arc::clone(&moves);
    let notes = open(pipeline, source, Some(wanted.clone()), threads, move |pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let kind = kind(pad).filter(|kind| {
            let stream = match kind {
                Kind::Picture => &decided.picture,
                Kind::Sound => &decided.sound,
            };
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let first = !taken.contains(kind);
            let ours = first && stream.is_some() && pad.stream_id().as_deref() == stream.as_deref();
            if ours {
                taken.push(*kind);
            }
            ours
        });
        let done = match kind {
            Some(kind) => {
                drop_tags(pad);
                count(pad, &moves_too);
                take(kind, pad)
            }
            None => sink_away(&pipeline, pad, false),
        };
        if let Err(error) = done {
            let message = gst::message::Error::builder(gst::CoreError::Pad, &format!("{error:?}")).src(pad).build();
            // Without a bus nobody listens.
            let _posted = pipeline.post_message(message);
        }
    })?;
    Ok(notes.counting(moves))
}

/// `filesrc ! decodebin`, with everything that is not listed above kept out.
fn open(
    pipeline: &gst::Pipeline,
    source: &Path,
    wanted: Option<Wanted>,
    threads: u32,
    take: impl Fn(&gst::Pad) + Send + Sync + 'static,
) -> Result<Notes, VideoError> {
    let notes = Notes::default();
    let location = source.to_str().ok_or_else(|| internal("the source's path is not UTF-8"))?;
    let filesrc = element("filesrc")?;
    filesrc.set_property("location", location);
    let decodebin = element("decodebin")?;
    decodebin.set_property("force-sw-decoders", true);
    if let Some(bin) = decodebin.downcast_ref::<gst::Bin>() {
        let met = notes.clone();
        bin.connect_deep_element_added(move |_, _, element| {
            set_threads(element, threads);
            if listed(element, OPENERS) {
                met.change(|noted| noted.openers.push(element.downgrade()));
            }
            if listed(element, &["avidemux"]) {
                element.connect_pad_added(|_, pad| forget_times(pad));
            }
        });
    }

    let met = notes.clone();
    decodebin.connect("autoplug-continue", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        if let Some((pad, caps)) = pad.zip(caps) {
            met.change(|noted| noted.meet(&pad, &caps));
        }
        Some(true.to_value())
    });

    let answers = answers(&decodebin)?;
    let met = notes.clone();
    let elements = AtomicU32::new(0);
    let wanted = Arc::new(wanted);
    let wanted_too = Arc::clone(&wanted);
    decodebin.connect("autoplug-select", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        let may = pad.zip(factory).is_some_and(|(pad, factory)| {
            let name = factory.name();
            (OPENERS.contains(&name.as_str()) || DECODERS.contains(&name.as_str()))
                && met.fault().is_none()
                && leads_to(wanted.as_ref().as_ref(), &pad)
                && elements.fetch_add(1, Ordering::Relaxed) < MOST_ELEMENTS
        });
        answers.to_value_by_nick(if may { "try" } else { "skip" })
    });

    let met = notes.clone();
    decodebin.connect("unknown-type", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        if let Some((pad, caps)) = pad.zip(caps)
            && leads_to(wanted_too.as_ref().as_ref(), &pad)
        {
            met.change(|noted| noted.miss(&caps));
        }
        None
    });
    decodebin.connect_pad_added(move |_, pad| take(pad));

    pipeline.add_many([&filesrc, &decodebin]).map_err(|error| internal(&error))?;
    filesrc.link(&decodebin).map_err(|error| internal(&error))?;
    Ok(notes)
}

/// What may be answered to `autoplug-select`: a type that only `decodebin` knows.
fn answers(decodebin: &gst::Element) -> Result<glib::EnumClass, VideoError> {
    glib::subclass::SignalId::lookup("autoplug-select", decodebin.type_())
        .and_then(|signal| glib::EnumClass::with_type(signal.query().return_type().type_()))
        .filter(|class| class.value_by_nick("try").is_some() && class.value_by_nick("skip").is_some())
        .ok_or_else(|| internal("decodebin lets nobody choose its elements"))
}

fn listed(element: &gst::Element, names: &[&str]) -> bool {
    element.factory().is_some_and(|factory| names.contains(&factory.name().as_str()))
}

fn set_threads(element: &gst::Element, threads: u32) {
    if !listed(element, DECODERS) {
        return;
    }
    if element.has_property_with_type("max-threads", i32::static_type()) {
        element.set_property("max-threads", threads as i32);
    } else if element.has_property_with_type("threads", u32::static_type()) && threads > 0 {
        element.set_property("threads", threads);
    }
}

/// The pad is a wanted stream, or one that a wanted stream comes out of: the names of streams grow
/// from left to right.
fn leads_to(wanted: Option<&Wanted>, pad: &gst::Pad) -> bool {
    let Some((wanted, stream)) = wanted.zip(pad.stream_id()) else { return true };
    [&wanted.picture, &wanted.sound].into_iter().flatten().any(|one| one.starts_with(stream.as_str()))
}

fn kind(pad: &gst::Pad) -> Option<Kind> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    match caps.structure(0)?.name().as_str() {
        "video/x-raw" => Some(Kind::Picture),
        "audio/x-raw" => Some(Kind::Sound),
        _ => None,
    }
}

/// AVI knows when a frame is decoded, not when it is shown. `avidemux` says the one for the other at key
/// frames, so that with reordered frames two would be shown at the same time, and one of them be lost. Without
/// it the decoder counts on from the first frame; after a gap it is told again.
fn forget_times(pad: &gst::Pad) {
    let expected = Mutex::new(None);
    // Where every frame stands for itself none is reordered, and all times are right.
    let depends = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let picture = pad.current_caps().is_some_and(|caps| caps.iter().any(|kind| kind.name().starts_with("video/")));
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && picture
        {
            depends.fetch_or(buffer.flags().contains(gst::BufferFlags::DELTA_UNIT), Ordering::Relaxed);
            let goes_on = depends.load(Ordering::Relaxed) && !buffer.flags().contains(gst::BufferFlags::DISCONT);
            let mut expected = expected.lock().unwrap_or_else(PoisonError::into_inner);
            let gap = expected.is_some_and(|expected: gst::ClockTime| {
                buffer.dts().is_some_and(|dts| dts > expected + buffer.duration().unwrap_or_default() / 2)
            });
            if goes_on && !gap {
                buffer.make_mut().set_pts(gst::ClockTime::NONE);
            }
            // A gap is told at the next key frame, which is the first that has a time.
            if !gap || buffer.pts().is_some() {
                *expected = buffer.dts().zip(buffer.duration()).map(|(dts, lasts)| dts + lasts);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn count(pad: &gst::Pad, moves: &Arc<AtomicU64>) {
    let moves = Arc::clone(moves);
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
        moves.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
}

fn drop_tags(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Tag) {
            // `Drop` would free the event twice in GStreamer 1.22.0.
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

fn sink_away(pipeline: &gst::Pipeline, pad: &gst::Pad, preroll: bool) -> Result<(), VideoError> {
    let sink = element("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", preroll);
    sink.set_property("enable-last-sample", false);
    pipeline.add(&sink).map_err(|error| internal(&error))?;
    sink.sync_state_with_parent().map_err(|error| internal(&error))?;
    let inlet = elements::pad(&sink, "sink")?;
    pad.link(&inlet).map_err(|error| internal(&error))?;
    Ok(())
}

fn check_file(source: &Path) -> Result<(), VideoError> {
    let about = source.metadata().map_err(|error| internal(&format!("the source cannot be read: {error}")))?;
    if !about.is_file() {
        return Err(internal("the source is not a file"));
    }
    if about.len() == 0 {
        return Err(invalid("The file is empty."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;
    use std::time::Instant;

    use gstreamer_video::VideoOrientationMethod;

    use super::*;

    fn sentence(result: Result<Facts, VideoError>) -> String {
        match result {
            Err(VideoError::Invalid(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_film_tells_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mkv");
        samples::make(&format!(
            "matroskamux name=mux ! filesink location={} videotestsrc num-buffers=10 \
             ! video/x-raw,format=I420,width=160,height=96,framerate=10/1,pixel-aspect-ratio=2/1 ! jpegenc ! mux. \
             audiotestsrc num-buffers=10 ! audio/x-raw,rate=32000,channels=1 ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        let picture = facts.picture.clone().unwrap();
        assert_eq!((picture.width, picture.height, picture.pixel_aspect), (160, 96, (2, 1)));
        assert_eq!((picture.fps, picture.interlaced, picture.depth), (Some((10, 1)), false, 8));
        assert_eq!(picture.upright(), (320, 96));
        let sound = facts.sound.clone().unwrap();
        assert_eq!((sound.channels, sound.rate, facts.sounds), (1, 32_000, 1));
        assert!((facts.duration_seconds.unwrap() - 1.0).abs() < 0.05, "{facts:?}");
        assert_eq!(look(&source).unwrap(), facts);
    }

    #[test]
    fn a_turned_film_says_so() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        samples::film(&source, 2, "", &samples::h264(2));
        for (matrix, orientation, upright) in [
            ([0, 1, -1, 0], VideoOrientationMethod::_90r, (96, 160)),
            ([-1, 0, 0, -1], VideoOrientationMethod::_180, (160, 96)),
            ([0, -1, 1, 0], VideoOrientationMethod::_90l, (96, 160)),
            ([-1, 0, 0, 1], VideoOrientationMethod::Horiz, (160, 96)),
            ([1, 0, 0, -1], VideoOrientationMethod::Vert, (160, 96)),
            ([0, 1, 1, 0], VideoOrientationMethod::UlLr, (96, 160)),
        ] {
            samples::turn(&source, matrix);
            let picture = look(&source).unwrap().picture.unwrap();
            assert_eq!((picture.orientation, picture.upright()), (orientation, upright));
        }
    }

    #[test]
    fn a_playlist_under_a_films_name_makes_no_request() {
        gst::init().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}/film.mp4", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        for text in [
            format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{address}\n#EXT-X-ENDLIST\n"),
            format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{address}\n"),
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\">\
                 <BaseURL>{address}</BaseURL></MPD>"
            ),
            format!("{address}\r\n"),
            format!("[playlist]\nFile1={address}\nNumberOfEntries=1\n"),
            format!("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{address}\n"),
        ] {
            std::fs::write(&source, &text).unwrap();
            let told = sentence(look(&source));
            assert!(told.ends_with('.'), "{told}");
            assert!(listener.accept().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_film_is_told_plainly() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mp4");
        std::fs::write(&source, "").unwrap();
        assert_eq!(sentence(look(&source)), "The file is empty.");
        std::fs::write(&source, "A letter.\n").unwrap();
        assert!(sentence(look(&source)).starts_with("This is no film"));
        samples::film(&source, 1, "", "jpegenc");
        assert!(sentence(look(&source)).starts_with("This is a picture"));
        samples::film(&source, 20, "pattern=snow", &samples::h264(10));
        let bytes = std::fs::read(&source).unwrap();
        std::fs::write(&source, &bytes[..bytes.len() / 2]).unwrap();
        // The second and third time, the demuxer stumbles before anybody listens to it.
        for _ in 0..3 {
            let started = Instant::now();
            assert!(sentence(look(&source)).contains("cut off"));
            assert!(started.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn a_cover_is_no_film() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("recording.mov");
        samples::make(&format!(
            "qtmux name=mux ! filesink location={} videotestsrc num-buffers=1 ! jpegenc ! mux. \
             audiotestsrc num-buffers=50 ! avenc_aac ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        assert!(facts.sound.is_some() && facts.picture.is_none(), "{facts:?}");
    }

    #[test]
    fn only_what_is_wanted_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("film.mkv");
        samples::make(&format!(
            "matroskamux name=mux ! filesink location={} videotestsrc num-buffers=10 ! jpegenc ! mux. \
             audiotestsrc num-buffers=10 ! mux.",
            source.display()
        ));
        let facts = look(&source).unwrap();
        let pipeline = gst::Pipeline::new();
        let kinds: Arc<Mutex<Vec<Kind>>> = Arc::default();
        let seen = Arc::clone(&kinds);
        let weak = pipeline.downgrade();
        let wanted = Wanted { picture: None, ..facts.wanted() };
        let notes = decode(&pipeline, &source, &wanted, 1, move |kind, pad| {
            seen.lock().unwrap().push(kind);
            sink_away(&weak.upgrade().unwrap(), pad, true)
        })
        .unwrap();
        let mut watch = Watch::new(&pipeline, notes).unwrap();
        watch.play().unwrap();
        while !watch.wait().unwrap() {}
        assert_eq!(*kinds.lock().unwrap(), [Kind::Sound]);
    }
}
