//! Films and recordings on their way out: renditions, streams, storyboards.
//!
//! A rendition is a content like any other. A stream and a storyboard are conversions of many
//! files, read by descriptor like contents; which names they may have is a grammar
//! (`belongs`), so that no path and no file of somebody else's can be asked for. The
//! addresses mirror the folder: what a playlist says of its neighbours holds as it stands.
//!
//! Playlists and cues are completed on the way out. Each address in them gets `v`, which names
//! the making of the conversion: such an address never means other bytes, so caches may keep
//! it for ever, and one of an earlier making is gone. And when a private one was reached by a
//! signed link, each address is signed for the same signer until the same instant
//! (`delivery::link`), so that one signed playlist plays, and opens nothing but its stream.
//! Whoever sent a key or a token finds plain addresses and sends it again.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::assets::AssetId;
use crate::assets::Conversion;
use crate::assets::HLS;
use crate::assets::STORYBOARD;
use crate::assets::place;
use crate::delivery::Content;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::Standing;
use crate::delivery::access;
use crate::delivery::content;
use crate::delivery::content::Key;
use crate::delivery::link::Cosigner;
use crate::delivery::on_demand::named;
use crate::error::Code;
use crate::error::Result;
use crate::support::clock::Instant;

/// A playlist of a day in segments of two seconds has less.
const MOST_TEXT_BYTES: u64 = 16 * 1024 * 1024;

/// A text that was completed for this answer.
pub struct Text {
    pub text: String,
    pub content_type: &'static str,
    pub public: bool,
    pub modified_at: Instant,
}

/// A file of a conversion that has many.
pub struct Part {
    pub content: Arc<Content>,
    /// The address named the making that it is of, so it will never mean other bytes.
    pub is_settled: bool,
}

impl Delivery {
    /// A conversion of one file, asked for by its key and extension.
    pub async fn transcode(&self, ground: Ground, id: AssetId, key: &str, extension: &str) -> Result<Arc<Content>> {
        let full = self.assets.recall(id).await?;
        if named(&full, key)?.extension != extension {
            return Err(Code::ContentNotFound.because(format!("Asset {id} has no `{key}.{extension}`.")));
        }
        self.content(ground, id, key).await
    }

    /// A playlist of the stream; `file` is `playlist.m3u8` or `{variant}/{name}.m3u8`.
    pub async fn playlist(&self, standing: &Standing, id: AssetId, file: &str) -> Result<Text> {
        let (made, content) = self.file(standing.ground, id, HLS, file).await?;
        let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let within = Within { id, section: "transcodes", made: &made, cosigner: standing.cosigner.as_ref() };
        let text = self.text(&content).await?;
        let text = completed_playlist(&text, |address| {
            let file = format!("{folder}{address}");
            belongs(HLS, &file).then(|| within.query(&file))
        });
        Ok(Text {
            text,
            content_type: "application/vnd.apple.mpegurl",
            public: made.public,
            modified_at: made.created_at,
        })
    }

    /// A segment of the stream, or the head of segments.
    pub async fn segment(&self, ground: Ground, id: AssetId, file: &str, making: Option<&str>) -> Result<Part> {
        self.part(ground, id, HLS, file, making).await
    }

    /// Which moment of a film is where in its storyboard, as `WebVTT`.
    pub async fn cues(&self, standing: &Standing, id: AssetId) -> Result<Text> {
        let (made, content) = self.file(standing.ground, id, STORYBOARD, place::CUES).await?;
        let within = Within { id, section: "storyboard", made: &made, cosigner: standing.cosigner.as_ref() };
        let text = self.text(&content).await?;
        let text = completed_cues(&text, |address| is_frame(address).then(|| within.query(address)));
        Ok(Text { text, content_type: "text/vtt", public: made.public, modified_at: made.created_at })
    }

    /// A picture of the storyboard, as it is stored.
    pub async fn frame(&self, ground: Ground, id: AssetId, file: &str, making: Option<&str>) -> Result<Part> {
        self.part(ground, id, STORYBOARD, file, making).await
    }

    async fn part(&self, ground: Ground, id: AssetId, key: &str, file: &str, making: Option<&str>) -> Result<Part> {
        let (made, content) = self.file(ground, id, key, file).await?;
        if making.is_some_and(|making| making != making_of(&made)) {
            return Err(Code::ContentNotFound.because(format!(
                "`{key}` was made again since this address was given out: start from its playlist."
            )));
        }
        Ok(Part { content, is_settled: making.is_some() })
    }

    /// Opens a file of a conversion for whoever may see it.
    async fn file(&self, ground: Ground, id: AssetId, key: &str, file: &str) -> Result<(Conversion, Arc<Content>)> {
        let full = self.assets.recall(id).await?;
        let (asset, made) = (&full.asset, named(&full, key)?);
        access::admit_content(ground, made.public)?;
        if !belongs(key, file) {
            return Err(Code::ContentNotFound.because(format!("`{key}` has no file of this name.")));
        }
        let content = format!("{key}/{file}");
        let known = Key { id, revision: asset.revision, content, made_at: Some(made.created_at) };
        let place = || place::part(id, made, file);
        let name = file.rsplit('/').next().unwrap_or(file);
        let opened = self.opened(known, made.public, place, |source, size_bytes| Content {
            source,
            size_bytes,
            content_type: media_type(file).to_owned(),
            etag: content::etag(asset, made, size_bytes),
            name: format!("{}-{name}", content::stem(asset)),
            public: made.public,
            modified_at: made.created_at,
        });
        Ok((made.clone(), opened.await?))
    }

    async fn text(&self, content: &Arc<Content>) -> Result<String> {
        let content = Arc::clone(content);
        if content.size_bytes > MOST_TEXT_BYTES {
            return Err(Code::Internal.because(format!("{} is not a text to be read", content.name)));
        }
        self.cpu
            .run(move || {
                let mut text = vec![0; content.size_bytes as usize];
                content.source.file()?.read_exact_at(&mut text, 0)?;
                String::from_utf8(text).map_err(|e| Code::Internal.from("reading a playlist", e))
            })
            .await
    }
}

/// Where the addresses of a text lead, and what they are given to get there.
struct Within<'a> {
    id: AssetId,
    /// Of the documented address.
    section: &'static str,
    made: &'a Conversion,
    cosigner: Option<&'a Cosigner>,
}

impl Within<'_> {
    fn query(&self, file: &str) -> String {
        // A playlist is read anew, whatever was made meanwhile; what it leads to is of one making.
        let making = if is_playlist(file) { String::new() } else { format!("v={}", making_of(self.made)) };
        match self.cosigner.filter(|_| !self.made.public) {
            Some(cosigner) => cosigner.query(&format!("{}/{}/{file}", self.id, self.section), &making),
            None => making,
        }
    }
}

/// Names one making of a conversion.
fn making_of(made: &Conversion) -> String {
    format!("{:x}", made.created_at.0)
}

/// Whether a conversion of many files may have one of this name.
fn belongs(key: &str, file: &str) -> bool {
    let plain = |part: &str| {
        (1..=64).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    match key {
        HLS if file == place::PLAYLIST => true,
        HLS => file.split_once('/').is_some_and(|(variant, name)| {
            let (stem, extension) = name.rsplit_once('.').unwrap_or_default();
            plain(variant) && plain(stem) && matches!(extension, "m3u8" | "m4s" | "mp4")
        }),
        STORYBOARD => file == place::CUES || is_frame(file),
        _ => false,
    }
}

/// Whether this names a picture of a storyboard.
pub(super) fn is_frame(file: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let between = |before: &str| file.strip_prefix(before)?.strip_suffix(".jpg");
    file == place::SPRITE
        || between("storyboard_").is_some_and(|number| number.len() == 6 && digits(number))
        || between("sprite_").is_some_and(|number| (1..=3).contains(&number.len()) && digits(number))
}

/// Whether this leads on to more files of its stream.
pub fn is_playlist(file: &str) -> bool {
    extension(file) == "m3u8"
}

fn media_type(file: &str) -> &'static str {
    match extension(file) {
        "m3u8" => "application/vnd.apple.mpegurl",
        "vtt" => "text/vtt",
        "jpg" => "image/jpeg",
        _ if file.starts_with("audio") => "audio/mp4",
        _ => "video/mp4",
    }
}

fn extension(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Adds to every address of a playlist (RFC 8216 §4.1): its own lines, and `URI` of tags.
fn completed_playlist(playlist: &str, query: impl Fn(&str) -> Option<String>) -> String {
    let mut whole = String::with_capacity(playlist.len() * 2);
    for line in playlist.lines() {
        if !line.starts_with('#') {
            whole.push_str(&with_query(line, &query));
        } else if let Some((before, address, after)) = attribute(line) {
            whole.push_str(before);
            whole.push_str(&with_query(address, &query));
            whole.push_str(after);
        } else {
            whole.push_str(line);
        }
        whole.push('\n');
    }
    whole
}

/// Cuts a tag around the value of its attribute `URI`. Values in quotes hold no quotes.
fn attribute(tag: &str) -> Option<(&str, &str, &str)> {
    const NAME: &str = "URI=\"";
    let at = tag.match_indices(NAME).map(|(at, _)| at).find(|at| {
        let before = tag.get(..*at).unwrap_or_default();
        before.ends_with([':', ',']) && before.matches('"').count().is_multiple_of(2)
    })?;
    let start = at + NAME.len();
    let end = start + tag.get(start..)?.find('"')?;
    Some((tag.get(..start)?, tag.get(start..end)?, tag.get(end..)?))
}

/// Adds to every address of cues: a line that names a picture, or a rectangle of one.
fn completed_cues(cues: &str, query: impl Fn(&str) -> Option<String>) -> String {
    let mut whole = String::with_capacity(cues.len() * 2);
    for line in cues.lines() {
        let (address, rectangle) = line.find('#').map_or((line, ""), |at| line.split_at(at));
        whole.push_str(&with_query(address, &query));
        whole.push_str(rectangle);
        whole.push('\n');
    }
    whole
}

fn with_query(address: &str, query: impl Fn(&str) -> Option<String>) -> String {
    match query(address).filter(|query| !query.is_empty()) {
        Some(query) => format!("{address}?{query}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_conversion_belong() {
        for file in ["playlist.m3u8", "720p/playlist.m3u8", "720p/init.mp4", "audio_en-2/segment_00001.m4s"] {
            assert!(belongs(HLS, file), "{file}");
        }
        for file in [
            "",
            "/",
            "init.mp4",
            "../playlist.m3u8",
            "720p/../playlist.m3u8",
            "720p//playlist.m3u8",
            "720p/.m3u8",
            "/init.mp4",
            "720p/init.mp4/",
            "720p/a/b.m4s",
            "720p/INIT.mp4",
            "720p/init.txt",
            "720p/in.it.mp4",
            "720p/init.mp4\0",
            "720p\\init.mp4",
        ] {
            assert!(!belongs(HLS, file), "{file:?}");
        }
        for file in ["storyboard.vtt", "sprite.jpg", "sprite_2.jpg", "storyboard_000008.jpg"] {
            assert!(belongs(STORYBOARD, file), "{file}");
        }
        for file in [
            "storyboard_8.jpg",
            "storyboard_00000a.jpg",
            "storyboard_000008.png",
            "playlist.m3u8",
            "../x.jpg",
            "sprite_.jpg",
            "sprite_1234.jpg",
        ] {
            assert!(!belongs(STORYBOARD, file), "{file}");
        }
        assert!(!belongs("720p-video", "playlist.m3u8"));
    }

    #[test]
    fn every_address_of_a_playlist_is_completed() {
        let query = |address: &str| (!address.contains(':')).then(|| format!("q={}", address.len()));
        let master = "#EXTM3U\n#EXT-X-VERSION:7\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"x,URI=\",URI=\"audio/playlist.m3u8\",DEFAULT=YES\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"a\"\n360p/playlist.m3u8\n\n#EXT-X-MAP:URI=\"init.mp4\"\n# URI=\"no\"\nhttp://x/y\n";
        let expected = master
            .replace("audio/playlist.m3u8", "audio/playlist.m3u8?q=19")
            .replace("360p/playlist.m3u8", "360p/playlist.m3u8?q=18")
            .replace("init.mp4", "init.mp4?q=8");
        // An empty line is no address.
        let completed = completed_playlist(master, |address| query(address).filter(|_| !address.is_empty()));
        assert_eq!(completed, expected);
        assert_eq!(completed_playlist("a.m4s\r\n", |_| None), "a.m4s\n");
    }

    #[test]
    fn cues_are_completed_before_their_rectangles() {
        let cues = "WEBVTT\n\n00:00:00.000 --> 00:00:05.000\nsprite.jpg#xywh=0,0,160,90\n";
        let completed = completed_cues(cues, |address| is_frame(address).then(|| "v=1".to_owned()));
        assert_eq!(completed, cues.replace("sprite.jpg#", "sprite.jpg?v=1#"));
    }
}
