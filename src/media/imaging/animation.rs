//! Pictures that move: frame by frame through the recipe, into a moving WebP.
//!
//! In: a source whose header says that it has several frames (GIF, WebP, APNG), a recipe. Out:
//! an animated WebP of the same timing and the same number of plays.
//!
//! Invariant: one composed frame is in hand at a time, and nothing is decoded before the
//! number of frames and their pixels in sum have passed the limits. What is above them, and
//! what cannot be decoded, stands still at its first frame instead of being cut short.
//!
//! Decoders compose (disposal and blending happen there), so every frame that a step sees is
//! a whole picture. A step that looks at the picture to decide (`trim`, a clever crop) decides
//! on the first frame, and the others follow (`Canvas::chosen`): else the picture would jump.
//!
//! Only WebP moves: the other formats cannot, or (AVIF) are too dear to encode by the frame.

use std::io::Cursor;
use std::sync::Arc;

use image::AnimationDecoder as _;
use image::ImageDecoder as _;

use super::FindFaces;
use super::Guide;
use super::Limits;
use super::Order;
use super::OutputFormat;
use super::Rendered;
use super::canvas::Canvas;
use super::canvas::Choices;
use super::decode::Source;
use super::error::ImageError;
use super::format::SourceFormat;
use super::params::Plan;
use super::webp_anim;

/// What a header says about movement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Motion {
    /// 0 or 1 for a still.
    pub frames: u32,
    /// Of all frames, as they are shown.
    pub duration_ms: u64,
    /// How often it is played; 0 is for ever.
    pub plays: u32,
}

impl Motion {
    pub fn moves(&self) -> bool {
        self.frames > 1
    }

    /// Whether its frames have been counted and timed.
    pub fn is_timed(&self) -> bool {
        self.moves() && self.duration_ms > 0
    }
}

/// How long browsers show a frame that asks for so many milliseconds: hardly any file means
/// what it says with 0 or 10.
pub fn shown_ms(asked_ms: u32) -> u32 {
    if asked_ms <= 10 { 100 } else { asked_ms }
}

/// Makes a moving picture; `None` when this one has to stand still.
pub fn render(
    source: &Source<'_>,
    order: &Order,
    plan: &Plan,
    mark: Option<&Arc<Canvas>>,
    faces: FindFaces,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Rendered>, ImageError> {
    if !may_move(source, limits) {
        return Ok(None);
    }
    let profile = source.profile(limits);
    let stored = (source.width, source.height);
    let mut choices = Choices::default();
    let mut writer: Option<webp_anim::Writer> = None;
    for frame in frames(source, limits)?.take(limits.max_frames as usize) {
        if cancelled() {
            return Err(ImageError::Cancelled);
        }
        // As with a still whose tail is missing: what is there is shown.
        let Ok(frame) = frame else { break };
        let mut canvas = Canvas::rgba(stored.0, stored.1, frame.pixels)
            .decoded_from(stored, source.orientation, profile.clone())
            .heading_for(plan)
            .marked(mark.cloned())
            .guided_by(Guide { focus: order.focus, faces })
            .choosing(choices);
        for step in order.recipe.steps() {
            step.apply(&mut canvas)?;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(webp_anim::Writer::new(canvas.size(), source.motion.plays, plan.quality)?),
        };
        canvas.unpack()?;
        writer.add(&canvas, shown_ms(frame.asked_ms))?;
        choices = canvas.into_choices();
    }
    let Some(writer) = writer else { return Ok(None) };
    let (width, height) = writer.size();
    Ok(Some(Rendered { bytes: writer.finish()?, format: OutputFormat::Webp, width, height }))
}

fn may_move(source: &Source<'_>, limits: &Limits) -> bool {
    let pixels = u64::from(source.width) * u64::from(source.height) * u64::from(source.motion.frames);
    source.motion.moves()
        && matches!(source.format, SourceFormat::Gif | SourceFormat::Webp | SourceFormat::Png)
        && source.motion.frames <= limits.max_frames
        && pixels <= limits.max_animation_pixels
}

/// A whole frame, RGBA and not premultiplied.
pub struct Frame {
    pub pixels: Vec<u8>,
    pub asked_ms: u32,
}

type Frames<'a> = Box<dyn Iterator<Item = Result<Frame, ImageError>> + 'a>;

fn frames<'a>(source: &Source<'a>, limits: &Limits) -> Result<Frames<'a>, ImageError> {
    let mut caps = image::Limits::default();
    caps.max_image_width = Some(limits.max_side);
    caps.max_image_height = Some(limits.max_side);
    caps.max_alloc = Some(limits.max_decoded_bytes);
    let bytes = Cursor::new(source.bytes);
    let frames = match source.format {
        SourceFormat::Gif => {
            let mut decoder = image::codecs::gif::GifDecoder::new(bytes).map_err(ImageError::damaged)?;
            decoder.set_limits(caps).map_err(ImageError::damaged)?;
            decoder.into_frames()
        }
        SourceFormat::Png => {
            let decoder = image::codecs::png::PngDecoder::with_limits(bytes, caps).map_err(ImageError::damaged)?;
            decoder.apng().map_err(ImageError::damaged)?.into_frames()
        }
        // A file that is torn has no frames for libwebp, and stands still.
        _ => return Ok(webp_anim::Reader::open(source.bytes).map_or(Box::new(std::iter::empty()), |r| Box::new(r))),
    };
    Ok(Box::new(frames.map(|frame| {
        let frame = frame.map_err(ImageError::damaged)?;
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        Ok(Frame { asked_ms: numerator / denominator.max(1), pixels: frame.into_buffer().into_raw() })
    })))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use gif::DisposalMethod;

    use super::super::Recipe;
    use super::super::probe;
    use super::super::render;
    use super::super::webp;
    use super::*;

    const CLEAR: [u8; 4] = [0, 0, 0, 0];
    const RED: [u8; 4] = [220, 20, 20, 255];
    const GREEN: [u8; 4] = [20, 200, 20, 255];
    const BLUE: [u8; 4] = [20, 20, 220, 255];

    /// A file of 40 x 30 pixels: plain frames with their place, end and delay in hundredths.
    fn gif_of(frames: &[([u16; 4], [u8; 4], DisposalMethod, u16)], repeat: Option<gif::Repeat>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, 40, 30, &[]).unwrap();
        if let Some(repeat) = repeat {
            encoder.set_repeat(repeat).unwrap();
        }
        for ([left, top, width, height], color, dispose, delay) in frames {
            let mut frame =
                gif::Frame::from_rgba(*width, *height, &mut color.repeat(usize::from(*width) * usize::from(*height)));
            (frame.left, frame.top, frame.dispose, frame.delay) = (*left, *top, *dispose, *delay);
            frame.buffer = Cow::Owned(frame.buffer.into_owned());
            encoder.write_frame(&frame).unwrap();
        }
        drop(encoder);
        bytes
    }

    /// What disposal can do wrong is visible in these four frames.
    fn busy_gif() -> Vec<u8> {
        use DisposalMethod::*;
        gif_of(
            &[
                ([0, 0, 40, 30], RED, Keep, 7),
                ([0, 0, 20, 10], GREEN, Background, 0),
                ([20, 10, 20, 20], BLUE, Previous, 30),
                ([30, 0, 10, 10], GREEN, Any, 12),
            ],
            Some(gif::Repeat::Finite(3)),
        )
    }

    fn make(source: &[u8], query: &str) -> Rendered {
        render(source, &Recipe::from_canonical(query).unwrap(), &Limits::default(), &|| false).unwrap()
    }

    /// Each frame with the time at which it begins, and the end.
    fn played(webp: &[u8]) -> (Vec<(u32, Vec<u8>)>, u32) {
        let mut at = 0;
        let frames = webp_anim::Reader::open(webp).unwrap().map(|frame| {
            let frame = frame.unwrap();
            at += frame.asked_ms;
            (at - frame.asked_ms, frame.pixels)
        });
        (frames.collect(), at)
    }

    /// What is seen at this time and place.
    fn seen(frames: &[(u32, Vec<u8>)], width: u32, at_ms: u32, (x, y): (u32, u32)) -> [u8; 4] {
        let frame = &frames.iter().rfind(|(from, _)| *from <= at_ms).unwrap().1;
        frame.as_chunks::<4>().0[(y * width + x) as usize]
    }

    fn assert_near(seen: [u8; 4], expected: [u8; 4], what: &str) {
        let near =
            if expected[3] == 0 { seen[3] < 8 } else { seen.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 14) };
        assert!(near, "{what}: {seen:?}, not {expected:?}");
    }

    #[test]
    fn a_gif_keeps_moving_as_it_did() {
        let source = busy_gif();
        let facts = probe(&source, &Limits::default()).unwrap();
        assert_eq!((facts.animated, facts.frames, facts.duration_seconds), (true, Some(4), Some(0.59)));
        assert_eq!((facts.has_alpha, facts.warning), (false, None));

        let made = make(&source, "format=webp");
        assert_eq!((made.width, made.height, made.format), (40, 30, OutputFormat::Webp));
        let (frames, end) = played(&made.bytes);
        assert_eq!(frames.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 70, 170, 470]);
        assert_eq!(end, 590);
        let moved = probe(&made.bytes, &Limits::default()).unwrap();
        assert_eq!((moved.frames, moved.duration_seconds), (Some(4), Some(0.59)));
        assert_eq!(super::super::riff::read(&made.bytes, &Limits::default()).motion.plays, 4);
        // Left top, middle of the right bottom, right top.
        let places = [(5, 5), (30, 20), (35, 5)];
        for (at_ms, expected) in [
            (0, [RED, RED, RED]),
            (70, [GREEN, RED, RED]),
            // The green part was cleared; blue will be undone.
            (170, [CLEAR, BLUE, RED]),
            (470, [CLEAR, RED, GREEN]),
        ] {
            for (place, color) in places.into_iter().zip(expected) {
                assert_near(seen(&frames, 40, at_ms, place), color, &format!("{at_ms} ms at {place:?}"));
            }
        }
    }

    #[test]
    fn every_frame_goes_through_the_recipe() {
        let source = busy_gif();
        let made = make(&source, "rotate=90&crop=0,0,20,40&resize=10,20&format=webp");
        assert_eq!((made.width, made.height), (10, 20));
        let (frames, end) = played(&made.bytes);
        // Turned clockwise, the left part holds what was the lower two thirds, where the second
        // frame changed nothing.
        assert_eq!((frames.len(), end), (3, 590));
        assert_near(seen(&frames, 10, 170, (3, 16)), BLUE, "blue");
        assert_near(seen(&frames, 10, 470, (3, 16)), RED, "blue was undone");

        let (frames, _) = played(&make(&source, "grayscale=true&format=webp").bytes);
        for (at, pixels) in frames {
            assert!(
                pixels.as_chunks::<4>().0.iter().all(|p| p[0].abs_diff(p[1]) < 4 && p[1].abs_diff(p[2]) < 4),
                "{at}"
            );
        }
        let (frames, _) = played(&make(&source, "bgcolor=ffffff&format=webp").bytes);
        assert_near(seen(&frames, 40, 470, (5, 5)), [255; 4], "the cleared part on white");
    }

    #[test]
    fn other_formats_show_the_first_frame() {
        for format in ["jpg", "png", "avif"] {
            let made = make(&busy_gif(), &format!("format={format}"));
            assert!(!probe(&made.bytes, &Limits::default()).unwrap().animated, "{format}");
        }
    }

    #[test]
    fn how_often_it_is_played() {
        let two = [([0, 0, 40, 30], RED, DisposalMethod::Keep, 10), ([0, 0, 40, 30], BLUE, DisposalMethod::Keep, 10)];
        for (repeat, plays) in [(None, 1), (Some(gif::Repeat::Infinite), 0), (Some(gif::Repeat::Finite(1)), 2)] {
            let made = make(&gif_of(&two, repeat), "format=webp");
            assert_eq!(super::super::riff::read(&made.bytes, &Limits::default()).motion.plays, plays, "{repeat:?}");
        }
    }

    #[test]
    fn a_moving_webp_keeps_moving() {
        let mut writer = webp_anim::Writer::new((32, 24), 5, 90).unwrap();
        for (color, ms) in [(RED, 40), (BLUE, 250), (GREEN, 10)] {
            writer.add(&Canvas::rgba(32, 24, color.repeat(32 * 24)), ms).unwrap();
        }
        let source = writer.finish().unwrap();
        assert_eq!(probe(&source, &Limits::default()).unwrap().duration_seconds, Some(0.39));
        let made = make(&source, "flip=h&resize=16,16&format=webp");
        assert_eq!((made.width, made.height), (16, 12));
        let (frames, end) = played(&made.bytes);
        // A hundredth of a second is what browsers show as a tenth.
        assert_eq!((frames.iter().map(|(at, _)| *at).collect::<Vec<_>>(), end), (vec![0, 40, 290], 390));
        for (at, color) in [(0, RED), (40, BLUE), (290, GREEN)] {
            assert_near(seen(&frames, 16, at, (8, 6)), color, "webp");
        }
        assert_eq!(super::super::riff::read(&made.bytes, &Limits::default()).motion.plays, 5);
        // Torn, it shows what it can.
        let torn = make(&source[..source.len() - 20], "format=webp");
        assert_eq!((torn.width, torn.height), (32, 24));
        assert!(!webp::header(&torn.bytes).unwrap().animated);
    }

    #[test]
    fn an_apng_moves() {
        let mut source = Vec::new();
        let mut encoder = png::Encoder::new(&mut source, 20, 10);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_animated(2, 0).unwrap();
        encoder.set_frame_delay(1, 4).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&RED.repeat(200)).unwrap();
        writer.set_frame_delay(50, 0).unwrap();
        writer.set_frame_dimension(10, 10).unwrap();
        writer.set_frame_position(10, 0).unwrap();
        writer.set_blend_op(png::BlendOp::Over).unwrap();
        writer.write_image_data(&BLUE.repeat(100)).unwrap();
        writer.finish().unwrap();

        let facts = probe(&source, &Limits::default()).unwrap();
        assert_eq!((facts.frames, facts.duration_seconds), (Some(2), Some(0.75)));
        let (frames, end) = played(&make(&source, "format=webp").bytes);
        assert_eq!((frames.len(), end), (2, 750));
        assert_near(seen(&frames, 20, 250, (3, 5)), RED, "left");
        assert_near(seen(&frames, 20, 250, (16, 5)), BLUE, "right");
    }

    #[test]
    fn a_clever_choice_is_made_once() {
        // Detail at the left in the first frame and at the right in the second.
        let frames = [0_u32, 30].map(|from| {
            image::Frame::from_parts(
                image::RgbaImage::from_fn(40, 10, |x, y| {
                    let busy = (from..from + 10).contains(&x) && (x + y) % 2 == 0;
                    image::Rgba(if busy { [255, 255, 255, 255] } else { [90, 90, 90, 255] })
                }),
                0,
                0,
                image::Delay::from_numer_denom_ms(100, 1),
            )
        });
        let mut source = Vec::new();
        image::codecs::gif::GifEncoder::new(&mut source).encode_frames(frames).unwrap();
        for query in ["crop=10,10,smart&format=webp", "trim=5&format=webp"] {
            let made = make(&source, query);
            let (frames, _) = played(&made.bytes);
            let contrast = |pixels: &[u8]| {
                let reds = pixels.as_chunks::<4>().0.iter().map(|p| p[0]);
                reds.clone().max().unwrap() - reds.min().unwrap()
            };
            assert_eq!(frames.len(), 2, "{query}");
            if query.contains("smart") {
                assert_eq!((made.width, made.height), (10, 10));
                assert!(contrast(&frames[0].1) > 60 && contrast(&frames[1].1) < 40, "{query}");
            }
        }
    }

    #[test]
    fn what_is_too_much_stands_still() {
        let one = |n: u16| ([n % 40, 0, 1, 1], RED, DisposalMethod::Keep, 1);
        let long = gif_of(&(0..101).map(one).collect::<Vec<_>>(), None);
        let fits = gif_of(&(0..100).map(one).collect::<Vec<_>>(), None);
        assert_eq!(probe(&long, &Limits::default()).unwrap().frames, Some(101));
        assert!(!webp::header(&make(&long, "format=webp").bytes).unwrap().animated);
        assert!(webp::header(&make(&fits, "format=webp").bytes).unwrap().animated);
        let narrow = Limits { max_animation_pixels: 40 * 30 * 100 - 1, ..Limits::default() };
        let recipe = Recipe::from_canonical("format=webp").unwrap();
        let still = render(&fits, &recipe, &narrow, &|| false).unwrap();
        assert!(!webp::header(&still.bytes).unwrap().animated);
    }

    #[test]
    fn a_torn_gif_moves_as_far_as_it_goes() {
        let whole = busy_gif();
        let torn = &whole[..whole.len() - 60];
        assert!(probe(torn, &Limits::default()).unwrap().warning.is_some());
        let made = make(torn, "format=webp");
        let (frames, _) = played(&made.bytes);
        assert!((2..=3).contains(&frames.len()), "{}", frames.len());
        for cut in 0..whole.len() {
            let _ =
                render(&whole[..cut], &Recipe::from_canonical("format=webp").unwrap(), &Limits::default(), &|| false);
        }
    }
}
