//! The video worker with encoders under the names of hardware: one works, the others fail, each
//! in its own way. For the tests of the survey, and of what happens when an encoder gives up.
//!
//! Also makes a film in the cell, to show that what a film needs is allowed there. Built only as a
//! test binary; no package ships it.
#![expect(clippy::unwrap_used, reason = "a part of a test")]

use std::path::Path;

use cloakroom::infra::workers::errand;
use cloakroom::media::video;
use cloakroom::media::video::Errand;
use cloakroom::media::video::Report;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

fn main() {
    errand::serve(
        |errand| {
            video::prepare(&Errand::deserialize(errand).unwrap_or(Errand::Survey))?;
            for software in ["x264enc", "openh264enc"] {
                video::prepare(&Errand::Encoder(software.to_owned()))?;
            }
            register();
            Ok(())
        },
        |errand, tell| match errand.get("film").and_then(Value::as_str) {
            Some(folder) => tell(film(Path::new(folder))),
            None => video::run(serde_json::from_value(errand).unwrap(), &mut |report: Report| {
                tell(serde_json::to_value(report).unwrap());
            }),
        },
    )
}

/// Makes a film with sound and looks at it again, as any errand might.
fn film(folder: &Path) -> Value {
    let (made, spare) = (folder.join("made.mp4"), folder.join(".spare"));
    let make = format!(
        "videotestsrc num-buffers=50 ! video/x-raw,width=320,height=240,framerate=25/1 ! videoconvert \
         ! x264enc speed-preset=ultrafast ! h264parse ! mux. \
         audiotestsrc num-buffers=94 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! audioconvert \
         ! avenc_aac ! aacparse ! mux. mp4mux name=mux faststart=true faststart-file={} ! filesink location={}",
        spare.display(),
        made.display()
    );
    let look = format!(
        "filesrc location={} ! decodebin name=d d. ! queue ! videoconvert ! fakesink sync=false \
         d. ! queue ! audioconvert ! fakesink sync=false",
        made.display()
    );
    let complaints: Vec<Value> = [make, look].iter().map(|line| play(line)).collect();
    json!({"complaints": complaints, "bytes": std::fs::metadata(made).unwrap().len()})
}

fn play(line: &str) -> Value {
    let pipeline = gst::parse::launch(line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(100), &ends).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    match message.view() {
        gst::MessageView::Error(error) => json!(error.to_string()),
        _ => Value::Null,
    }
}

/// Fakes of hardware, and sources for a film.
fn register() {
    let library = format!("/usr/lib/{}-linux-gnu/gstreamer-1.0", std::env::consts::ARCH);
    for source in ["videotestsrc", "audiotestsrc"] {
        gst::Plugin::load_file(format!("{library}/libgst{source}.so")).unwrap();
    }
    let none = gst::Rank::NONE;
    gst::Element::register(None, "nvh264enc", none, works::Fake::static_type()).unwrap();
    gst::Element::register(None, "vah264enc", none, refuses::Fake::static_type()).unwrap();
    gst::Element::register(None, "vah264lpenc", none, hangs::Fake::static_type()).unwrap();
    gst::Element::register(None, "qsvh264enc", none, gives_up::Fake::static_type()).unwrap();
    gst::Element::register(None, "v4l2h264enc", none, crashes::Fake::static_type()).unwrap();
}

/// What is done to each frame before a true encoder sees it.
fn hang() {
    // SAFETY: a plain call.
    #[expect(unsafe_code, reason = "misbehaving is its purpose")]
    while unsafe { libc::usleep(1_000_000) } == 0 {}
}

fn crash() {
    // SAFETY: none; this is the point.
    #[expect(unsafe_code, reason = "misbehaving is its purpose")]
    unsafe {
        std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8));
    }
}

macro_rules! fake {
    ($module:ident, $name:literal, $error_after:literal, $deed:expr) => {
        mod $module {
            use super::*;

            mod inner {
                use super::*;

                #[derive(Default)]
                pub struct Fake;

                #[glib::object_subclass]
                impl ObjectSubclass for Fake {
                    const NAME: &'static str = $name;
                    type Type = super::Fake;
                    type ParentType = gst::Bin;
                }

                impl ObjectImpl for Fake {
                    fn constructed(&self) {
                        self.parent_constructed();
                        fill(self.obj().upcast_ref(), $error_after, $deed);
                    }
                }
                impl GstObjectImpl for Fake {}
                impl BinImpl for Fake {
                    /// Speaks of what is wrong inside as its own, as an encoder in one piece does.
                    fn handle_message(&self, message: gst::Message) {
                        let own = match message.view() {
                            gst::MessageView::Error(error) => {
                                gst::message::Error::builder_from_error(error.error()).src(&*self.obj()).build()
                            }
                            _ => message,
                        };
                        self.parent_handle_message(own);
                    }
                }
                impl ElementImpl for Fake {
                    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> =
                            std::sync::LazyLock::new(|| {
                                gst::subclass::ElementMetadata::new($name, "Codec/Encoder/Video", "A fake", "Cloakroom")
                            });
                        Some(&METADATA)
                    }

                    fn pad_templates() -> &'static [gst::PadTemplate] {
                        static PADS: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(templates);
                        &PADS
                    }
                }
            }

            glib::wrapper! {
                pub struct Fake(ObjectSubclass<inner::Fake>) @extends gst::Bin, gst::Element, gst::Object;
            }
        }
    };
}

fake!(works, "FakeThatWorks", -1, None);
fake!(refuses, "FakeThatRefuses", 1, None);
fake!(hangs, "FakeThatHangs", -1, Some(hang));
fake!(gives_up, "FakeThatGivesUp", 10, None);
fake!(crashes, "FakeThatCrashes", -1, Some(crash));

/// Raw frames in, H.264 out, as hardware has it.
fn templates() -> Vec<gst::PadTemplate> {
    let raw = gst::Caps::builder("video/x-raw").field("format", "NV12").build();
    let packed = gst::Caps::builder("video/x-h264").build();
    let always = gst::PadPresence::Always;
    vec![
        gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &raw).unwrap(),
        gst::PadTemplate::new("src", gst::PadDirection::Src, always, &packed).unwrap(),
    ]
}

/// An encoder behind an element that may fail after so many frames.
fn fill(bin: &gst::Bin, error_after: i32, deed: Option<fn()>) {
    let gate = gst::ElementFactory::make("identity").property("error-after", error_after).build().unwrap();
    let convert = gst::ElementFactory::make("videoconvert").build().unwrap();
    let encoder = gst::ElementFactory::make("openh264enc").build().unwrap();
    let chain = [&gate, &convert, &encoder];
    bin.add_many(chain).unwrap();
    gst::Element::link_many(chain).unwrap();
    let (sink, src) = (gate.static_pad("sink").unwrap(), encoder.static_pad("src").unwrap());
    if let Some(deed) = deed {
        sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            deed();
            gst::PadProbeReturn::Ok
        });
    }
    for (target, name) in [(&sink, "sink"), (&src, "src")] {
        let template = bin.pad_template(name).unwrap();
        bin.add_pad(&gst::GhostPad::from_template_with_target(&template, target).unwrap()).unwrap();
    }
}
