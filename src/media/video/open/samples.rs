//! Films and recordings for tests, made by GStreamer itself.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

/// Runs a pipeline to its end.
pub fn make(description: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
}

/// A film of 160 x 96 and 10 frames a second.
pub fn film(path: &Path, frames: u32, pattern: &str, encoding: &str) {
    make(&format!(
        "videotestsrc num-buffers={frames} {pattern} ! video/x-raw,format=I420,width=160,height=96,framerate=10/1 \
         ! {encoding} ! filesink location={}",
        path.display()
    ));
}

/// H.264 in MP4, a key frame every so many frames.
pub fn h264(key_frames: u32) -> String {
    format!("x264enc speed-preset=ultrafast tune=zerolatency key-int-max={key_frames} threads=1 ! mp4mux")
}

/// Writes a matrix that asks players to turn the film.
pub fn turn(path: &Path, matrix: [i16; 4]) {
    let mut bytes = std::fs::read(path).unwrap();
    let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap() + 4;
    let place = header + if bytes[header] == 0 { 40 } else { 52 };
    let [a, b, c, d] = matrix.map(|value| i32::from(value) << 16);
    for (at, value) in [a, b, 0, c, d, 0, 0, 0, 1 << 30].into_iter().enumerate() {
        bytes[place + at * 4..place + at * 4 + 4].copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}
