//! The processing keys of films and recordings.
//!
//! They are data: what each asks for stands in the settings and is looked up when its job runs
//! (`processing::film`), so all that a round wants of a film is made in as few decodings as
//! possible.

pub use crate::assets::AUDIO_PREVIEW;
use crate::assets::Asset;
use crate::assets::HLS;
use crate::assets::STORYBOARD;
use crate::processing::keys::Family;
use crate::processing::keys::ProcessingKey;
use crate::processing::keys::Work;
use crate::settings::videos::CLIP_PREVIEW;

/// One such key.
#[derive(Debug)]
pub struct FilmKey {
    pub name: &'static str,
    help: &'static str,
    pub part: Part,
}

/// What it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An MP4 of at most so many lines.
    Rendition,
    /// HTTP Live Streaming.
    Stream,
    /// A short clip.
    Preview,
    /// Frames from all along the film.
    Storyboard,
    /// The waveform of a recording, and a copy that every browser plays.
    Recording,
}

const MP4: &str = "Makes an MP4 (H.264, AAC) of at most so many lines; a smaller film is not enlarged.";
const MARKED: &str = "The same with the watermark of the settings laid over it.";

/// All of them; the renditions as in `settings::videos::RENDITIONS`.
pub static FILMS: [FilmKey; 12] = [
    FilmKey { name: "360p-video", help: MP4, part: Part::Rendition },
    FilmKey { name: "360p-wm-video", help: MARKED, part: Part::Rendition },
    FilmKey { name: "480p-video", help: MP4, part: Part::Rendition },
    FilmKey { name: "480p-wm-video", help: MARKED, part: Part::Rendition },
    FilmKey { name: "720p-video", help: MP4, part: Part::Rendition },
    FilmKey { name: "720p-wm-video", help: MARKED, part: Part::Rendition },
    FilmKey { name: "1080p-video", help: MP4, part: Part::Rendition },
    FilmKey { name: "1080p-wm-video", help: MARKED, part: Part::Rendition },
    FilmKey { name: HLS, help: "Makes an HLS stream (CMAF) with a ladder of up to 1080 lines.", part: Part::Stream },
    FilmKey { name: CLIP_PREVIEW, help: "Makes a short clip of a film, as the settings say.", part: Part::Preview },
    FilmKey {
        name: STORYBOARD,
        help: "Keeps frames from all along a film, alone, on a sheet, and as WebVTT for players.",
        part: Part::Storyboard,
    },
    FilmKey {
        name: AUDIO_PREVIEW,
        help: "Draws the waveform of a recording and makes a copy in AAC that every browser plays.",
        part: Part::Recording,
    },
];

impl ProcessingKey for FilmKey {
    fn name(&self) -> &str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn family(&self) -> Family {
        Family::Video
    }

    fn applies_to(&self, asset: &Asset) -> bool {
        match self.part {
            Part::Recording => asset.is_recording(),
            _ => asset.is_film(),
        }
    }

    fn work(&self) -> Work<'_> {
        Work::Film(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::videos::RENDITIONS;

    #[test]
    fn every_rendition_of_the_settings_is_a_key() {
        let named: Vec<&str> = FILMS.iter().filter(|key| key.part == Part::Rendition).map(|key| key.name).collect();
        assert_eq!(named, RENDITIONS.map(|(name, ..)| name));
    }
}
