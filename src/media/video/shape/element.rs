//! The work as an element of a pipeline.
//!
//! In: raw video of the kinds the pad lists. Out: I420 or NV12 with square pixels and BT.709
//! in its caps.
//!
//! Invariant: what the caps say of the result is what its planes hold.
//!
//! Films that say nothing of their colours are taken for BT.709, small ones for BT.601, as
//! players take them; GStreamer itself would take large ones for BT.2020.

use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::BaseTransformMode;
use gstreamer_base::subclass::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::VideoChromaSite;
use gstreamer_video::VideoColorMatrix;
use gstreamer_video::VideoColorPrimaries;
use gstreamer_video::VideoColorRange;
use gstreamer_video::VideoFormat;
use gstreamer_video::VideoFrameExt;
use gstreamer_video::VideoFrameRef;
use gstreamer_video::VideoInfo;
use gstreamer_video::VideoTransferFunction;
use gstreamer_video::subclass::prelude::*;

use super::Work;
use super::color::Colors;
use super::color::Curve;
use super::color::Primaries;
use super::color::Weights;
use super::planes::Depth;
use super::planes::Format;
use super::planes::Input;
use super::planes::Plane;
use super::planes::PlaneMut;
use super::planes::SITE;
use super::planes::Shaper;
use crate::media::video::VideoError;

/// What is taken, best first.
const FORMATS: [&str; 10] =
    ["I420", "NV12", "YV12", "I420_10LE", "P010_10LE", "Y42B", "I422_10LE", "Y444", "Y444_10LE", "GRAY8"];
/// Light of a film of high dynamic range that does not tell, in candela per square metre.
const USUAL_PEAK_NITS: f32 = 1000.0;

glib::wrapper! {
    /// Shapes frames.
    pub struct ShapeElement(ObjectSubclass<Inner>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn make(work: Work) -> Result<gst::Element, VideoError> {
    if work.width < 2 || work.height < 2 || !work.width.is_multiple_of(2) || !work.height.is_multiple_of(2) {
        return Err(VideoError::Internal(format!("frames cannot be shaped to {} x {}", work.width, work.height)));
    }
    let element: ShapeElement = glib::Object::new();
    element.imp().set_work(work);
    Ok(element.upcast())
}

/// What is behind it.
#[derive(Default)]
pub struct Inner {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    work: Work,
    shaper: Option<Shaper>,
    /// Colours before they share a plane, if they are to.
    colors: [Vec<u8>; 2],
}

impl Inner {
    fn set_work(&self, work: Work) {
        self.state().work = work;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Inner {
    const NAME: &'static str = "CloakroomShape";
    type Type = ShapeElement;
    type ParentType = gst_video::VideoFilter;
}

impl ObjectImpl for Inner {}

impl GstObjectImpl for Inner {}

impl ElementImpl for Inner {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Shape",
                "Filter/Converter/Video/Scaler",
                "Brings frames into the shape an encoder wants",
                "Cloakroom",
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = |formats: &[&str]| {
                gst::Caps::builder("video/x-raw")
                    .field("format", gst::List::new(formats.iter().copied()))
                    .field("width", gst::IntRange::new(1, 32_768))
                    .field("height", gst::IntRange::new(1, 32_768))
                    .build()
            };
            let template =
                |name, direction, caps| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok();
            [
                template("sink", gst::PadDirection::Sink, caps(&FORMATS)),
                template("src", gst::PadDirection::Src, caps(&["I420", "NV12"])),
            ]
            .into_iter()
            .flatten()
            .collect()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for Inner {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let (width, height) = {
            let state = self.state();
            (state.work.width as i32, state.work.height as i32)
        };
        let mut other = gst::Caps::new_empty();
        {
            let other = other.make_mut();
            for structure in caps.iter() {
                let mut structure = structure.to_owned();
                structure.remove_fields([
                    "format",
                    "width",
                    "height",
                    "pixel-aspect-ratio",
                    "colorimetry",
                    "chroma-site",
                    "interlace-mode",
                    "field-order",
                    "mastering-display-info",
                    "content-light-level",
                ]);
                if direction == gst::PadDirection::Sink {
                    structure.set("format", gst::List::new(["I420", "NV12"]));
                    structure.set("width", width);
                    structure.set("height", height);
                    structure.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
                    structure.set("colorimetry", "bt709");
                    structure.set("chroma-site", "mpeg2");
                    structure.set("interlace-mode", "progressive");
                } else {
                    structure.set("format", gst::List::new(FORMATS));
                    structure.set("width", gst::IntRange::new(1, 32_768));
                    structure.set("height", gst::IntRange::new(1, 32_768));
                }
                other.append_structure(structure);
            }
        }
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }
}

impl VideoFilterImpl for Inner {
    fn set_info(
        &self,
        incaps: &gst::Caps,
        in_info: &VideoInfo,
        _outcaps: &gst::Caps,
        out_info: &VideoInfo,
    ) -> Result<(), gst::LoggableError> {
        let refused = || gst::loggable_error!(gst::CAT_RUST, "frames of this kind cannot be shaped");
        let input = input_of(incaps, in_info).ok_or_else(refused)?;
        let mut state = self.state();
        let shaper = Shaper::new(input, state.work.clone()).ok_or_else(refused)?;
        let untouched = shaper.changes_nothing() && out_info.format() == in_info.format();
        state.shaper = Some(shaper);
        drop(state);
        self.obj().set_passthrough(untouched);
        Ok(())
    }

    fn transform_frame(
        &self,
        inframe: &VideoFrameRef<&gst::BufferRef>,
        outframe: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state();
        shape(&mut state, inframe, outframe).ok_or_else(|| {
            gst::element_imp_error!(self, gst::StreamError::Format, ["a frame is smaller than announced"]);
            gst::FlowError::Error
        })?;
        Ok(gst::FlowSuccess::Ok)
    }
}

fn shape(
    state: &mut State,
    inframe: &VideoFrameRef<&gst::BufferRef>,
    outframe: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> Option<()> {
    let format = inframe.format_info();
    let mut source = [Plane::default(); 3];
    let interleaved = format.n_planes() == 2;
    // Planes in the order of their components, of which YV12 has its own.
    let wanted = if interleaved { 2 } else { format.n_components() };
    for (component, plane) in (0..wanted).zip(&mut source) {
        let index = inframe.comp_plane(component);
        let stride = inframe.plane_stride().get(index as usize).copied()?;
        *plane = Plane { data: inframe.plane_data(index).ok()?, stride: usize::try_from(stride).ok()? };
    }
    let strides: Vec<usize> =
        outframe.plane_stride().iter().map(|&stride| usize::try_from(stride).unwrap_or_default()).collect();
    let joined = outframe.format() == VideoFormat::Nv12;
    let size = (outframe.width() as usize / 2, outframe.height() as usize / 2);
    let planes = outframe.planes_data_mut();
    let State { shaper, colors, .. } = state;
    let shaper = shaper.as_mut()?;
    let [luma, second, third, _] = planes;
    let luma = PlaneMut { data: luma, stride: *strides.first()? };
    if !joined {
        let blue = PlaneMut { data: second, stride: *strides.get(1)? };
        let red = PlaneMut { data: third, stride: *strides.get(2)? };
        return shaper.run(&source, &mut [luma, blue, red]);
    }
    let [blue, red] = colors;
    for plane in [&mut *blue, &mut *red] {
        plane.resize(size.0 * size.1, 0);
    }
    let stride = size.0;
    let planes = &mut [luma, PlaneMut { data: blue, stride }, PlaneMut { data: red, stride }];
    shaper.run(&source, planes)?;
    let rows = second.chunks_mut(*strides.get(1)?).zip(blue.chunks_exact(stride).zip(red.chunks_exact(stride)));
    for (row, (blue, red)) in rows {
        for (pair, (blue, red)) in row.as_chunks_mut::<2>().0.iter_mut().zip(blue.iter().zip(red)) {
            *pair = [*blue, *red];
        }
    }
    Some(())
}

/// What frames with these caps are like.
fn input_of(caps: &gst::Caps, info: &VideoInfo) -> Option<Input> {
    let ten = |shift| Depth::Ten(shift);
    let (chroma, interleaved, depth) = match info.format() {
        VideoFormat::I420 | VideoFormat::Yv12 => (Some((2, 2)), false, Depth::Eight),
        VideoFormat::Nv12 => (Some((2, 2)), true, Depth::Eight),
        VideoFormat::I42010le => (Some((2, 2)), false, ten(0)),
        VideoFormat::P01010le => (Some((2, 2)), true, ten(6)),
        VideoFormat::Y42b => (Some((2, 1)), false, Depth::Eight),
        VideoFormat::I42210le => (Some((2, 1)), false, ten(0)),
        VideoFormat::Y444 => (Some((1, 1)), false, Depth::Eight),
        VideoFormat::Y44410le => (Some((1, 1)), false, ten(0)),
        VideoFormat::Gray8 => (None, false, Depth::Eight),
        _ => return None,
    };
    let structure = caps.structure(0)?;
    let told = structure.has_field("colorimetry");
    let site = if structure.has_field("chroma-site") { info.chroma_site() } else { VideoChromaSite::MPEG2 };
    let (columns, rows) = chroma.unwrap_or((1, 1));
    let at = |per: u32, cosited: bool| if per == 2 && cosited { 0.25 } else { 0.5 };
    let site = if site.is_empty() {
        (at(columns, true), at(rows, false))
    } else {
        (at(columns, site.contains(VideoChromaSite::H_COSITED)), at(rows, site.contains(VideoChromaSite::V_COSITED)))
    };
    Some(Input {
        width: info.width(),
        height: info.height(),
        pixel_aspect: (info.par().numer().try_into().ok()?, info.par().denom().try_into().ok()?),
        format: Format { chroma, interleaved, depth },
        colors: if told { told_colors(info, structure) } else { usual_colors(info) },
        site: if chroma.is_some() { site } else { SITE },
    })
}

/// Colours of a film that does not tell.
fn usual_colors(info: &VideoInfo) -> Colors {
    let small = info.height() <= 576 && info.width() <= 1024;
    let weights = if small { Weights::BT601 } else { Weights::BT709 };
    Colors { weights, full_range: info.format() == VideoFormat::Gray8, ..Colors::TARGET }
}

fn told_colors(info: &VideoInfo, structure: &gst::StructureRef) -> Colors {
    let colorimetry = info.colorimetry();
    let usual = usual_colors(info);
    let curve = match colorimetry.transfer() {
        VideoTransferFunction::Smpte2084 => Curve::Pq,
        VideoTransferFunction::AribStdB67 => Curve::Hlg,
        _ => Curve::Standard,
    };
    let weights = match colorimetry.matrix() {
        VideoColorMatrix::Fcc => Weights::FCC,
        VideoColorMatrix::Bt709 => Weights::BT709,
        VideoColorMatrix::Bt601 => Weights::BT601,
        VideoColorMatrix::Smpte240m => Weights::SMPTE240,
        VideoColorMatrix::Bt2020 => Weights::BT2020,
        _ if curve == Curve::Standard => usual.weights,
        _ => Weights::BT2020,
    };
    let primaries = match colorimetry.primaries() {
        VideoColorPrimaries::Bt2020 => Primaries::Bt2020,
        VideoColorPrimaries::Smpterp431 | VideoColorPrimaries::Smpteeg432 => Primaries::P3,
        VideoColorPrimaries::Unknown if curve != Curve::Standard => Primaries::Bt2020,
        _ => Primaries::Bt709,
    };
    let full_range = match colorimetry.range() {
        VideoColorRange::Range0_255 => true,
        VideoColorRange::Range16_235 => false,
        _ => usual.full_range,
    };
    Colors { weights, full_range, curve, primaries, peak_nits: peak_nits(curve, structure) }
}

/// The brightest light a film announces.
fn peak_nits(curve: Curve, structure: &gst::StructureRef) -> f32 {
    if curve != Curve::Pq {
        return USUAL_PEAK_NITS;
    }
    let announced = |field: &str, index: usize, unit: f32| {
        let text = structure.get::<String>(field).ok()?;
        let value: f32 = text.split(':').nth(index)?.parse().ok()?;
        (value > 0.0).then_some(value / unit)
    };
    announced("content-light-level", 0, 1.0)
        .or_else(|| announced("mastering-display-info", 8, 10_000.0))
        .unwrap_or(USUAL_PEAK_NITS)
        .clamp(300.0, 10_000.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gstreamer_app as gst_app;

    use super::super::Turn;
    use super::*;
    use crate::media::video::Fit;

    /// The last of three frames of a test picture, shaped, and its caps.
    fn shaped(pattern: &str, caps: &str, then: &str, work: Work) -> (VideoInfo, Vec<u8>, gst::Caps) {
        gst::init().unwrap();
        let text = format!("videotestsrc num-buffers=3 pattern={pattern} ! {caps} {then} ! identity name=in");
        let source = gst::parse::bin_from_description(&text, true).unwrap();
        let shape = make(work).unwrap();
        let sink = gst_app::AppSink::builder().sync(false).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
        gst::Element::link_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut last = None;
        while let Ok(sample) = sink.pull_sample() {
            last = Some(sample);
        }
        let failed = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(failed.is_none(), "{caps}: {failed:?}");
        let sample = last.unwrap_or_else(|| panic!("no frame for {caps}"));
        let caps = sample.caps_owned().unwrap();
        let info = VideoInfo::from_caps(&caps).unwrap();
        let frame = gst_video::VideoFrame::from_buffer_readable(sample.buffer_owned().unwrap(), &info).unwrap();
        let mut bytes = Vec::new();
        for plane in 0..frame.n_planes() {
            let (wide, high) = (frame.comp_width(plane), frame.comp_height(plane));
            let stride = frame.plane_stride()[plane as usize] as usize;
            for row in frame.plane_data(plane).unwrap().chunks(stride).take(high as usize) {
                bytes.extend(&row[..wide as usize]);
            }
        }
        (info, bytes, caps)
    }

    fn work(width: u32, height: u32) -> Work {
        Work { width, height, fit: Fit::Scale, ..Work::default() }
    }

    #[test]
    fn every_kind_gives_the_same_picture() {
        let plain = "video/x-raw,format=I420,width=320,height=240,colorimetry=bt709,chroma-site=mpeg2";
        let (_, expected, _) = shaped("smpte100", plain, "", work(160, 90));
        for format in FORMATS {
            let then = format!("! videoconvert ! video/x-raw,format={format}");
            let (info, found, caps) = shaped("smpte100", plain, &then, work(160, 90));
            assert_eq!((info.width(), info.height(), info.format()), (160, 90, VideoFormat::I420));
            let structure = caps.structure(0).unwrap();
            assert_eq!(structure.get::<String>("colorimetry").unwrap(), "bt709", "{format}");
            assert_eq!(info.par(), gst::Fraction::new(1, 1));
            // Where bars of colours meet, converters differ; and `videoconvert` has its own idea
            // of how bright a colour is that becomes grey.
            let far = found.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) > 6).count();
            assert!(far * 30 < found.len() || format == "GRAY8", "{format}: {far} of {} samples are off", found.len());
        }
    }

    #[test]
    fn high_dynamic_range_becomes_standard() {
        for (colorimetry, format) in
            [("bt2100-pq", "I420_10LE"), ("bt2100-hlg", "P010_10LE"), ("bt2100-hlg", "Y444_10LE")]
        {
            let caps = "video/x-raw,format=I420,width=64,height=64,colorimetry=bt709";
            // What was white says that it is, and is not any more.
            let then = format!(
                "! videoconvert ! video/x-raw,format={format} ! capssetter join=false caps=video/x-raw,format={format},width=64,height=64,framerate=30/1,colorimetry={colorimetry},mastering-display-info=(string)35400:14600:8500:39850:6550:2300:15635:16450:10000000:1"
            );
            let (info, found, caps) = shaped("smpte100", caps, &then, work(32, 32));
            assert_eq!(caps.structure(0).unwrap().get::<String>("colorimetry").unwrap(), "bt709");
            assert!(!caps.structure(0).unwrap().has_field("mastering-display-info"));
            assert_eq!(info.format(), VideoFormat::I420);
            // The first bar is white: the brightest light there is.
            assert!(found[32 * 4 + 1] >= 234, "{colorimetry} {format}: {:?}", &found[32 * 4..][..32]);
            assert!(found[32 * 32 + 16].abs_diff(128) <= 1, "{colorimetry} {format}");
        }
    }

    #[test]
    fn orientations_are_those_of_videoflip() {
        let mut seen = HashSet::new();
        // Bars of colours in the upper half.
        let half = "! videobox bottom=24 ! videobox bottom=-24";
        for tag in [
            "rotate-0",
            "rotate-90",
            "rotate-180",
            "rotate-270",
            "flip-rotate-0",
            "flip-rotate-90",
            "flip-rotate-180",
            "flip-rotate-270",
        ] {
            let caps = "video/x-raw,format=I420,width=64,height=48,colorimetry=bt709,chroma-site=jpeg";
            let turn = Turn::from_tag(tag).unwrap();
            let (wide, high) = if turn.transposes() { (48, 64) } else { (64, 48) };
            let (_, found, _) = shaped("smpte100", caps, half, Work { turn, ..work(wide, high) });
            let flip = format!("{half} ! taginject tags=image-orientation={tag} ! videoflip video-direction=auto");
            let (_, expected, _) = shaped("smpte100", caps, &flip, work(wide, high));
            let luma = (wide * high) as usize;
            // The filter works along other edges.
            let far = found.iter().zip(&expected).take(luma).filter(|(a, b)| a.abs_diff(**b) > 12).count();
            assert!(far * 50 < luma, "{tag}: {far}");
            seen.insert(found[..luma].to_vec());
        }
        assert_eq!(seen.len(), 8, "the picture tells all turns apart");
        assert_eq!(Turn::from_tag("sideways"), None);
    }

    #[test]
    fn odd_and_extreme_sizes() {
        for (width, height, wide, high) in [
            (853, 481, 640, 360),
            (2, 2, 16, 16),
            (1, 1, 2, 2),
            (4096, 16, 16, 16),
            (17, 4001, 16, 16),
            (101, 57, 202, 114),
        ] {
            for fit in [Fit::Preserve, Fit::Pad, Fit::Scale, Fit::Crop] {
                let caps = format!("video/x-raw,format=I420,width={width},height={height}");
                let (info, _, _) = shaped("smpte100", &caps, "", Work { fit, ..work(wide, high) });
                assert_eq!((info.width(), info.height()), (wide, high));
            }
        }
    }

    #[test]
    fn right_frames_go_by() {
        gst::init().unwrap();
        let caps = "video/x-raw,format=I420,width=320,height=240,framerate=25/1,pixel-aspect-ratio=1/1";
        for (rest, turn, untouched) in [
            (",colorimetry=bt709,chroma-site=mpeg2", Turn::NONE, true),
            (",colorimetry=bt601,chroma-site=mpeg2", Turn::NONE, false),
            (",colorimetry=bt709,chroma-site=mpeg2", Turn::HALF, false),
        ] {
            let work = Work { turn, ..work(320, 240) };
            let shape = make(work).unwrap();
            let source = gst::parse::bin_from_description(
                &format!("videotestsrc num-buffers=1 ! {caps}{rest} ! identity"),
                true,
            )
            .unwrap();
            let sink = gst_app::AppSink::builder().sync(false).build();
            let pipeline = gst::Pipeline::new();
            pipeline.add_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
            gst::Element::link_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            sink.pull_sample().unwrap();
            let transform = shape.downcast_ref::<gst_base::BaseTransform>().unwrap();
            assert_eq!(transform.is_passthrough(), untouched, "{rest} {turn:?}");
            pipeline.set_state(gst::State::Null).unwrap();
        }
    }

    #[test]
    fn encoders_of_hardware_get_what_they_take() {
        gst::init().unwrap();
        let caps = "video/x-raw,format=I420,width=320,height=240,colorimetry=bt709,chroma-site=mpeg2";
        let text = format!("videotestsrc num-buffers=1 pattern=smpte100 ! {caps} ! identity");
        let source = gst::parse::bin_from_description(&text, true).unwrap();
        let shape = make(work(160, 90)).unwrap();
        let wanted = gst::Caps::builder("video/x-raw").field("format", "NV12").build();
        let sink = gst_app::AppSink::builder().sync(false).caps(&wanted).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
        gst::Element::link_many([source.upcast_ref(), &shape, sink.upcast_ref()]).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sample = sink.pull_sample().unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let frame = gst_video::VideoFrame::from_buffer_readable(sample.buffer_owned().unwrap(), &info).unwrap();
        let (_, planar, _) = shaped("smpte100", caps, "", work(160, 90));
        let stride = frame.plane_stride()[1] as usize;
        let pairs = frame.plane_data(1).unwrap();
        for (x, y) in [(0, 0), (40, 20), (79, 44)] {
            assert_eq!(pairs[y * stride + x * 2], planar[160 * 90 + y * 80 + x]);
            assert_eq!(pairs[y * stride + x * 2 + 1], planar[160 * 90 + 80 * 45 + y * 80 + x]);
        }
    }
}
