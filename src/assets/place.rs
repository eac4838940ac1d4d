//! Where an asset's things lie: the on-disk format, stated.
//!
//! ```text
//! originals/{ab}/{id}.{revision}                     bytes as received; never rewritten
//! conversions/{ab}/{id}/{revision}/{key}.{ext}       one object per conversion
//! odi/{ab}/{id}/{revision}/{digest}.{ext}            on-demand images; disposable
//! settings/watermark-{digest}.png                    marks that were laid over pictures
//! staging/{id}.{revision}                            bytes on their way in; disposable
//! ```
//!
//! `{ab}` is the first two digits of the id. An original is one directory entry in a folder
//! that exists from the start, so that taking it in costs one directory flush and not four.
//! A user's file name never enters a path. The revision in the path makes replacement atomic
//! and lets stale links fail cleanly.
//!
//! This is the only speller of these paths. Every part is an id, a number or a word of ours,
//! so no path can leave the root; [`ObjectPath`] checks it all the same.

use crate::assets::model::AssetId;
use crate::error::Result;
use crate::infra::storage::ObjectPath;

/// The folder of originals; its shards are made at the start.
pub const ORIGINALS: &str = "originals";
/// The folder of on-demand images; may be deleted while the box is stopped.
pub const ON_DEMAND: &str = "odi";

/// The name of an original inside its shard, and of the same bytes in staging.
pub fn original_name(id: AssetId, revision: u32) -> String {
    format!("{id}.{revision}")
}

/// Reads [`original_name`] back.
pub fn parse_original_name(name: &str) -> Option<(AssetId, u32)> {
    let (id, revision) = name.split_once('.')?;
    Some((id.parse().ok()?, revision.parse().ok()?))
}

pub fn original(id: AssetId, revision: u32) -> Result<ObjectPath> {
    ObjectPath::new(format!("{ORIGINALS}/{}/{}", shard(id), original_name(id, revision)))
}

pub fn conversion(id: AssetId, revision: u32, key: &str, extension: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("conversions/{}/{id}/{revision}/{key}.{extension}", shard(id)))
}

pub fn on_demand(id: AssetId, revision: u32, digest: &str, extension: &str) -> Result<ObjectPath> {
    ObjectPath::new(format!("{ON_DEMAND}/{}/{id}/{revision}/{digest}.{extension}", shard(id)))
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

    #[test]
    fn places_are_spelt_as_stated() {
        let id: AssetId = "99d819953914402babbdeb68337ea6a3".parse().unwrap();
        assert_eq!(original(id, 2).unwrap().as_str(), "originals/99/99d819953914402babbdeb68337ea6a3.2");
        assert_eq!(
            conversion(id, 1, "720p-video", "mp4").unwrap().as_str(),
            "conversions/99/99d819953914402babbdeb68337ea6a3/1/720p-video.mp4"
        );
        assert_eq!(parse_original_name(&original_name(id, 7)), Some((id, 7)));
        assert_eq!(parse_original_name("tmp-123"), None);
    }

    #[test]
    fn no_key_leaves_the_root() {
        let id = AssetId::random().unwrap();
        assert!(conversion(id, 1, "../../etc/passwd", "png").is_err());
        assert!(conversion(id, 1, "a\0b", "png").is_err());
    }
}
