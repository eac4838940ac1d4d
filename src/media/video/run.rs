//! Doing an errand: the one way into the room for the worker's program.
//!
//! In: an [`Errand`], in a process that was prepared for it. Out: reports, of which the last is
//! [`Report::Done`] or [`Report::Failed`].

use super::Errand;
use super::Outcome;
use super::Report;
use super::encoders;
use super::poster::poster;
use super::recording::recording;
use super::storyboard::storyboard;
use super::transcode::transcode;

pub fn run(errand: Errand, tell: &mut dyn FnMut(Report)) {
    let outcome = match errand {
        Errand::Survey => Ok(Outcome::Survey(encoders::look())),
        Errand::Encoder(factory) => encoders::attempt(&factory).map(|()| Outcome::Encoder),
        Errand::Transcode(order) => transcode(&order, tell).map(Outcome::Transcoded),
        Errand::Poster(order) => poster(&order, tell).map(Outcome::Poster),
        Errand::Storyboard(order) => storyboard(&order, tell).map(Outcome::Storyboard),
        Errand::Recording(order) => recording(&order, tell).map(Outcome::Recording),
    };
    tell(match outcome {
        Ok(outcome) => Report::Done(outcome),
        Err(error) => Report::Failed(error),
    });
}
