//! Where an asset's things lie: the on-disk format, stated.
//!
//! ```text
//! originals/{ab}/{id}.{revision}                     bytes as received; never rewritten
//! conversions/{ab}/{id}/{revision}/{round}.{key}.{ext}     a conversion of one file
//! conversions/{ab}/{id}/{revision}/{round}.{key}/{file}    one of many files: of a stream or a storyboard
//! conversions/{ab}/{id}/{revision}/{key}.{handed}          a conversion that people handed in
//! odi/{ab}/{id}/{revision}/{digest}.{ext}            on-demand images; disposable
//! settings/watermark-{digest}.png                    marks that were laid over pictures
//! staging/{id}.{revision}                            bytes on their way in; disposable
//! staging/{id}.{revision}.{key}.{handed}             a conversion on its way in; disposable
//! staging/{id}.fetched                               a file that is being fetched; a row says how far
//! staging/{id}.sent.{sent}                           a file sent straight to storage; a row says which
//! staging/{id}.resumable                             what has come of an upload in pieces
//! staging/phase-{id}                                 what has come of an upload in phases
//! ```
//!
//! `{ab}` is the first two digits of the id. An original is one directory entry in a folder
//! that exists from the start, so that taking it in costs one directory flush and not four.
//! A user's file name never enters a path. The revision in the path makes replacement atomic
//! and lets stale links fail cleanly.
//!
//! Invariant: a place that a row names never gets other bytes. A conversion that is made again has
//! another `{round}`, the number of the job in which it is made; the row names the one of the two that
//! is on record, and the other goes (`processing::sweep`). A round that is taken up again after a crash
//! writes over what it left, which no row names. `{handed}` is 16 random hex digits, for the same reason.
//!
//! A stream's `{file}` is `playlist.m3u8`, which leads to the others, or
//! `{variant}/{name}.m3u8`, `.mp4` or `.m4s`; a storyboard's is `storyboard.vtt`, `sprite.jpg`,
//! `sprite_{number}.jpg` or `storyboard_{six digits}.jpg`.
//!
//! This is the only speller of these paths. Every part is an id, a number or a word of ours,
//! so no path can leave the root; [`ObjectPath`] checks it all the same.

use crate::assets::model::AssetId;
use crate::assets::model::Conversion;
use crate::assets::model::HLS;
use crate::assets::model::STORYBOARD;
use crate::error::Result;
use crate::infra::storage::ObjectPath;

/// The folder of originals; its shards are made at the start.
pub const ORIGINALS: &str = "originals";
/// The folder of conversions.
pub const CONVERSIONS: &str = "conversions";
/// The folder of on-demand images; may be deleted while the box is stopped.
pub const ON_DEMAND: &str = "odi";

/// The file of a stream that leads to all others.
pub const PLAYLIST: &str = "playlist.m3u8";
/// The file of a storyboard that says which moment is where.
pub const CUES: &str = "storyboard.vtt";
/// The file of a storyboard that holds all frames.
pub const SPRITE: &str = "sprite.jpg";

/// The name of an original inside its shard, and of the same bytes in staging.
pub fn original_name(id: AssetId, revision: u32) -> String {
    format!("{id}.{revision}")
}

/// Reads [`original_name`] back.
pub fn parse_original_name(name: &str) -> Option<(AssetId, u32)> {
    let (id, revision) = name.split_once('.')?;
    Some((id.parse().ok()?, revision.parse().ok()?))
}

/// The name in staging of an upload that comes in pieces.
pub fn resumable_name(id: AssetId) -> String {
    format!("{id}.resumable")
}

/// Reads [`resumable_name`] back.
pub fn parse_resumable_name(name: &str) -> Option<AssetId> {
    name.strip_suffix(".resumable")?.parse().ok()
}

/// The name in staging of an upload in phases.
pub fn phased_name(id: AssetId) -> String {
    format!("phase-{id}")
}

/// Reads [`phased_name`] back.
pub fn parse_phased_name(name: &str) -> Option<AssetId> {
    name.strip_prefix("phase-")?.parse().ok()
}

/// The name in staging of a conversion that people hand in.
pub fn handed_name(id: AssetId, revision: u32, key: &str, handed: &str) -> String {
    format!("{id}.{revision}.{key}.{handed}")
}

/// Reads [`handed_name`] back: id, revision, key and what names the file.
pub fn parse_handed_name(name: &str) -> Option<(AssetId, u32, &str, &str)> {
    let mut parts = name.split('.');
    let found = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(found)
}

/// The name in staging of a file that is being fetched.
pub fn fetched_name(id: AssetId) -> String {
    format!("{id}.fetched")
}

/// The name in staging of a file that was sent straight to storage; `sent` tells it from another try.
pub fn sent_name(id: AssetId, sent: &str) -> String {
    format!("{id}.sent.{sent}")
}

/// Reads [`fetched_name`] and [`sent_name`] back: whose file waits under this name.
pub fn parse_waiting_name(name: &str) -> Option<AssetId> {
    let mut parts = name.split('.');
    let id = parts.next()?.parse().ok()?;
    match (parts.next()?, parts.next(), parts.next()) {
        ("fetched", None, None) | ("sent", Some(_), None) => Some(id),
        _ => None,
    }
}

pub fn original(id: AssetId, revision: u32) -> Result<ObjectPath> {
    ObjectPath::new(format!("{ORIGINALS}/{}/{}", shard(id), original_name(id, revision)))
}

/// A conversion; the file that leads to the others when it has many.
pub fn conversion(id: AssetId, made: &Conversion) -> Result<ObjectPath> {
    match &*made.key {
        HLS => part(id, made, PLAYLIST),
        STORYBOARD => part(id, made, CUES),
        _ => whole(id, made),
    }
}

/// A conversion with all that belongs to it: its file, or its folder when it has many.
pub fn whole(id: AssetId, made: &Conversion) -> Result<ObjectPath> {
    within(id, made.revision, &conversion_name(made))
}

/// A file of a conversion of many; `/` stands between its folder there and its name.
pub fn part(id: AssetId, made: &Conversion, file: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("{}/{file}", whole(id, made)?.as_str()))
}

/// The place of a conversion that people hand in, before there is a row of it.
pub fn handed_in(id: AssetId, revision: u32, key: &str, handed: &str) -> Result<ObjectPath> {
    within(id, revision, &handed_in_name(key, handed))
}

/// The name that a conversion, or its folder, has among all that was made of a revision.
pub fn conversion_name(made: &Conversion) -> String {
    let Conversion { key, round, extension, .. } = made;
    match (&made.handed, &**key) {
        (Some(handed), _) => handed_in_name(key, handed),
        (None, HLS | STORYBOARD) => format!("{round}.{key}"),
        (None, _) => format!("{round}.{key}.{extension}"),
    }
}

/// The name that it has there when people handed it in.
pub fn handed_in_name(key: &str, handed: &str) -> String {
    format!("{key}.{handed}")
}

/// What has this name among all that was made of a revision.
pub fn within(id: AssetId, revision: u32, name: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("{}/{name}", conversions(id, revision)?.as_str()))
}

pub fn on_demand(id: AssetId, revision: u32, digest: &str, extension: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("{ON_DEMAND}/{}/{id}/{revision}/{digest}.{extension}", shard(id)))
}

/// Everything that was made of a revision.
pub fn conversions(id: AssetId, revision: u32) -> Result<ObjectPath> {
    ObjectPath::new(format!("{CONVERSIONS}/{}/{id}/{revision}", shard(id)))
}

/// Every on-demand image of a revision.
pub fn on_demand_images(id: AssetId, revision: u32) -> Result<ObjectPath> {
    ObjectPath::new(format!("{ON_DEMAND}/{}/{id}/{revision}", shard(id)))
}

/// The folders that hold everything that was made of an asset, whatever its revision.
pub fn folders(id: AssetId) -> Result<[ObjectPath; 2]> {
    let shard = shard(id);
    Ok([ObjectPath::new(format!("conversions/{shard}/{id}"))?, ObjectPath::new(format!("{ON_DEMAND}/{shard}/{id}"))?])
}

/// A mark, by the digest of its image.
pub fn watermark(digest: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("settings/watermark-{digest}.png"))
}

fn shard(id: AssetId) -> String {
    id.to_string().chars().take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::model::Making;
    use crate::support::clock::Instant;

    fn made(key: &str, extension: &str) -> Conversion {
        Conversion::made(key, extension, "", Making { revision: 1, round: 17, begun_at: Instant(0) })
    }

    #[test]
    fn places_are_spelt_as_stated() {
        let id: AssetId = "99d819953914402babbdeb68337ea6a3".parse().unwrap();
        assert_eq!(original(id, 2).unwrap().as_str(), "originals/99/99d819953914402babbdeb68337ea6a3.2");
        assert_eq!(
            conversion(id, &made("720p-video", "mp4")).unwrap().as_str(),
            "conversions/99/99d819953914402babbdeb68337ea6a3/1/17.720p-video.mp4"
        );
        let folder = "conversions/99/99d819953914402babbdeb68337ea6a3/1/";
        let (stream, storyboard) = (made(HLS, "m3u8"), made(STORYBOARD, "vtt"));
        assert_eq!(conversion(id, &stream).unwrap().as_str(), format!("{folder}17.hls-video/playlist.m3u8"));
        assert_eq!(conversion(id, &storyboard).unwrap().as_str(), format!("{folder}17.storyboard/storyboard.vtt"));
        assert_eq!(part(id, &stream, "720p/init.mp4").unwrap().as_str(), format!("{folder}17.hls-video/720p/init.mp4"));
        assert_eq!(whole(id, &stream).unwrap().as_str(), format!("{folder}17.hls-video"));
        let handed = Conversion { handed: Some("0123456789abcdef".to_owned()), round: 0, ..made("web", "jpg") };
        assert_eq!(conversion(id, &handed).unwrap().as_str(), format!("{folder}web.0123456789abcdef"));
        assert_eq!(conversion(id, &handed).unwrap(), handed_in(id, 1, "web", "0123456789abcdef").unwrap());
        assert_eq!(parse_original_name(&original_name(id, 7)), Some((id, 7)));
        assert_eq!(parse_original_name("tmp-123"), None);
        assert_eq!(parse_resumable_name(&resumable_name(id)), Some(id));
        assert_eq!(parse_original_name(&resumable_name(id)), None);
        assert_eq!(parse_phased_name(&phased_name(id)), Some(id));
        assert_eq!((parse_original_name(&phased_name(id)), parse_phased_name("phase-x")), (None, None));
        let name = handed_name(id, 3, "web-500", "0123456789abcdef");
        assert_eq!(parse_original_name(&name), None);
        assert_eq!(parse_handed_name(&name), Some((id, 3, "web-500", "0123456789abcdef")));
        assert_eq!(parse_handed_name(&original_name(id, 7)), None);
        for waiting in [fetched_name(id), sent_name(id, "0123456789abcdef")] {
            assert_eq!(parse_waiting_name(&waiting), Some(id));
            assert_eq!((parse_original_name(&waiting), parse_handed_name(&waiting)), (None, None));
        }
        assert_eq!((parse_waiting_name(&original_name(id, 7)), parse_waiting_name(&name)), (None, None));
    }

    #[test]
    fn no_two_makings_share_a_place() {
        let id = AssetId::random().unwrap();
        let places = |round: i64| {
            ["web", HLS, STORYBOARD].map(|key| conversion(id, &Conversion { round, ..made(key, "x") }).unwrap())
        };
        assert!(places(17).iter().zip(places(18)).all(|(one, other)| *one != other));
        let handed = |handed: &str| handed_in(id, 1, "web", handed).unwrap();
        assert_ne!(handed("0123456789abcdef"), handed("0123456789abcdee"));
    }

    #[test]
    fn no_key_leaves_the_root() {
        let id = AssetId::random().unwrap();
        assert!(conversion(id, &made("../../etc/passwd", "png")).is_err());
        assert!(conversion(id, &made("a\0b", "png")).is_err());
        let stream = made(HLS, "m3u8");
        assert!(part(id, &stream, "../x").is_err() && part(id, &stream, "").is_err());
        assert!(within(id, 1, "..").is_err() && within(id, 1, "").is_err());
    }
}
