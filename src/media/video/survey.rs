//! What a machine can do with films: asked step by step, each in a process of its own.
//!
//! In: a way to have an errand done. Out: a [`Survey`] whose encoders have been tried, and the
//! lines in which it is shown to an operator.
//!
//! Invariant: an encoder whose driver crashes, hangs or lies costs itself and nothing else. One that
//! was late is tried again before it counts as failing: a busy machine looks like a driver that hangs.
//!
//! This is the server's part: it has nothing to do with GStreamer.

use super::Errand;
use super::Missing;
use super::Outcome;
use super::Survey;
use super::VideoError;

/// What films are made with unless the survey knows better.
pub const SOFTWARE: &str = "x264enc";

/// How often an encoder that is late is tried.
const TRIALS: u32 = 3;

/// Whether an encoder needs no hardware.
pub fn is_software(encoder: &str) -> bool {
    [SOFTWARE, "openh264enc"].contains(&encoder)
}

/// Has `ask` do errands until everything is known. What an errand's process dies of, `ask` tells
/// as [`VideoError::Internal`], or as [`VideoError::Late`] when that may have been the machine's doing.
/// Fails when even the first errand does.
pub async fn survey<F>(mut ask: impl FnMut(Errand) -> F) -> Result<Survey, VideoError>
where
    F: Future<Output = Result<Outcome, VideoError>>,
{
    let Outcome::Survey(mut survey) = ask(Errand::Survey).await? else {
        return Err(VideoError::Internal("the survey was answered with something else".to_owned()));
    };
    for factory in std::mem::take(&mut survey.candidates) {
        let mut tried = ask(Errand::Encoder(factory.clone())).await;
        for _ in 1..TRIALS {
            if matches!(tried, Err(VideoError::Late(_))) {
                tried = ask(Errand::Encoder(factory.clone())).await;
            }
        }
        match tried {
            Ok(_) => survey.encoders.push(factory),
            Err(VideoError::Missing(missing)) if missing.element == SOFTWARE => survey.missing.push(missing),
            // Hardware that has no such encoder is nothing to complain about.
            Err(VideoError::Missing(_)) => {}
            Err(
                VideoError::Invalid(why) | VideoError::Encoder(why) | VideoError::Late(why) | VideoError::Internal(why),
            ) => survey.failing.push((factory, why)),
        }
    }
    Ok(survey)
}

impl Survey {
    /// The encoder to begin with; `None` when no film can be made.
    pub fn best(&self) -> Option<&str> {
        self.encoders.first().map(String::as_str)
    }

    /// The best one that needs no hardware.
    pub fn software(&self) -> Option<&str> {
        self.encoders.iter().map(String::as_str).find(|encoder| is_software(encoder))
    }

    /// For the terminal: a line for each thing worth knowing.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.version.clone()];
        lines.push(match self.best() {
            Some(best) if self.encoders.len() == 1 => format!("films are encoded with {best}"),
            Some(best) => format!(
                "films are encoded with {best} (also here: {})",
                self.encoders.get(1..).unwrap_or_default().join(", ")
            ),
            None => "no film can be made: there is no encoder that works".to_owned(),
        });
        lines.extend(self.failing.iter().map(|(encoder, why)| format!("{encoder} is here and fails: {why}")));
        lines.extend(self.missing.iter().map(Missing::line));
        lines
    }
}

impl Missing {
    /// As a sentence with its remedy.
    pub fn line(&self) -> String {
        format!("{} ({} is missing; install {})", self.without.trim_end_matches('.'), self.element, self.package)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    use super::*;

    fn missing(element: &str, package: &str, without: &str) -> Missing {
        Missing { element: element.to_owned(), package: package.to_owned(), without: without.to_owned() }
    }

    /// Nothing here ever waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn each_candidate_is_tried_alone() {
        let names = ["nvh264enc", "vah264enc", "qsvh264enc", "v4l2h264enc", "x264enc"].map(str::to_owned);
        let seen = now(survey(async |errand| match errand {
            Errand::Survey => Ok(Outcome::Survey(Survey { candidates: names.to_vec(), ..Survey::default() })),
            Errand::Encoder(name) => match name.as_str() {
                "nvh264enc" => Err(VideoError::Encoder("no memory".to_owned())),
                "vah264enc" => Err(VideoError::Missing(missing("vah264enc", "", ""))),
                "v4l2h264enc" => Err(VideoError::Internal("the decoder stopped on this film".to_owned())),
                _ => Ok(Outcome::Encoder),
            },
            other => panic!("{other:?}"),
        }))
        .unwrap();
        assert_eq!((seen.best(), seen.software()), (Some("qsvh264enc"), Some("x264enc")));
        let failing: Vec<_> = seen.failing.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(failing, ["nvh264enc", "v4l2h264enc"]);
        assert!(seen.candidates.is_empty() && seen.missing.is_empty());
    }

    #[test]
    fn one_that_was_late_is_tried_again() {
        let trials = std::cell::RefCell::new(vec![]);
        let seen = now(survey(async |errand| match errand {
            Errand::Survey => {
                let candidates = ["nvh264enc", "vah264enc", "x264enc"].map(str::to_owned).to_vec();
                Ok(Outcome::Survey(Survey { candidates, ..Survey::default() }))
            }
            Errand::Encoder(name) => {
                trials.borrow_mut().push(name.clone());
                let is_first = trials.borrow().iter().filter(|tried| **tried == name).count() == 1;
                match name.as_str() {
                    "nvh264enc" if is_first => Err(VideoError::Late("3 of 20 frames came".to_owned())),
                    "vah264enc" => Err(VideoError::Late("none came".to_owned())),
                    _ => Ok(Outcome::Encoder),
                }
            }
            other => panic!("{other:?}"),
        }))
        .unwrap();
        assert_eq!(seen.encoders, ["nvh264enc", "x264enc"]);
        assert_eq!(seen.failing, [("vah264enc".to_owned(), "none came".to_owned())]);
        let tried = trials.into_inner();
        assert_eq!(tried, ["nvh264enc", "nvh264enc", "vah264enc", "vah264enc", "vah264enc", "x264enc"]);
    }

    #[test]
    fn the_report_names_the_remedy() {
        let survey = Survey {
            version: "GStreamer 1.22.0".to_owned(),
            failing: vec![("nvh264enc".to_owned(), "no memory".to_owned())],
            missing: vec![missing("avdec_h264", "gstreamer1.0-libav", "H.264 cannot be decoded.")],
            ..Survey::default()
        };
        assert_eq!(
            survey.lines(),
            [
                "GStreamer 1.22.0",
                "no film can be made: there is no encoder that works",
                "nvh264enc is here and fails: no memory",
                "H.264 cannot be decoded (avdec_h264 is missing; install gstreamer1.0-libav)",
            ]
        );
    }
}
