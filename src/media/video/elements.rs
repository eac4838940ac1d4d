//! What every pipeline is put together with: elements, links, and words for what goes wrong.
//!
//! In: names of factories, elements. Out: elements that are linked, or a [`VideoError`] that says whose
//! fault it is: [`invalid`] is the file's, [`internal`] is ours, and an element that is not installed is the
//! machine's, with the package that brings it ([`plugins::absent`]).

use std::fmt;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::VideoError;
use super::plugins;

/// An element by its factory's name, or what is missing.
pub fn element(factory: &str) -> Result<gst::Element, VideoError> {
    gst::ElementFactory::make(factory).build().map_err(|_| missing(factory))
}

/// That there is no such element.
pub fn missing(factory: &str) -> VideoError {
    VideoError::Missing(plugins::absent(factory))
}

/// A filter that lets only this through.
pub fn caps_filter(caps: &gst::Caps) -> Result<gst::Element, VideoError> {
    let filter = element("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

/// A queue that is bounded by its number of buffers alone; 0 is no bound.
pub fn queue(buffers: u32) -> Result<gst::Element, VideoError> {
    let queue = element("queue")?;
    bound(&queue, buffers);
    Ok(queue)
}

/// As [`queue`], under a name.
pub fn queue_named(name: &str, buffers: u32) -> Result<gst::Element, VideoError> {
    let queue = gst::ElementFactory::make("queue").name(name).build().map_err(|_| missing("queue"))?;
    bound(&queue, buffers);
    Ok(queue)
}

/// Puts elements into a pipeline and links them in their order.
pub fn join(pipeline: &gst::Pipeline, chain: &[gst::Element]) -> Result<(), VideoError> {
    pipeline.add_many(chain).map_err(|error| internal(&error))?;
    gst::Element::link_many(chain).map_err(|error| internal(&error))
}

/// Lets an element have what comes out of a tee.
pub fn branch(tee: &gst::Element, element: &gst::Element) -> Result<(), VideoError> {
    let outlet = tee.request_pad_simple("src_%u").ok_or_else(|| internal("a tee has no pad left"))?;
    outlet.link(&pad(element, "sink")?).map(|_| ()).map_err(|error| internal(&error))
}

pub fn pad(element: &gst::Element, name: &str) -> Result<gst::Pad, VideoError> {
    element.static_pad(name).ok_or_else(|| internal("an element has no such pad"))
}

pub fn seconds(time: gst::ClockTime) -> f64 {
    time.nseconds() as f64 / 1e9
}

/// The file is to blame; a sentence for its owner.
pub fn invalid(sentence: &str) -> VideoError {
    VideoError::Invalid(sentence.to_owned())
}

/// We are to blame.
pub fn internal(what: &(impl fmt::Display + ?Sized)) -> VideoError {
    VideoError::Internal(what.to_string())
}

fn bound(queue: &gst::Element, buffers: u32) {
    queue.set_property("max-size-buffers", buffers);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
}
