//! A folder for work that makes files by itself, and how what it made is taken over.
//!
//! It lies in staging, on the file system of the final places, so that taking over is a rename.
//! Invariant: whatever ends the work, the folder goes: with the [`Workspace`], or at the next
//! start. What is taken over is flushed first, whole folders file by file, so that under a final
//! name there is all of it or nothing.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::error::Code;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::Storage;
use crate::infra::storage::io;
use crate::infra::storage::staging;
use crate::support::id;

/// A folder in staging; removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Workspace {
    name: String,
    path: PathBuf,
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names something in it, for staging.
    fn inside(&self, name: &str) -> String {
        format!("{}/{}/{name}", staging::FOLDER, self.name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(error = %e, staged.name = self.name, "a work folder could not be removed");
        }
    }
}

impl Storage {
    /// Makes an empty work folder.
    pub fn workspace(&self) -> Result<Workspace> {
        let name = format!("{}{}", staging::TEMPORARY, id::hex(&id::random::<8>()?));
        let dir = self.folder(staging::FOLDER)?;
        rustix::fs::mkdirat(&dir, &*name, Mode::RWXU).map_err(io)?;
        let path = self.root().join(staging::FOLDER).join(&name);
        Ok(Workspace { name, path })
    }

    /// Where an object lies, for programs that are given a path.
    pub fn path_of(&self, place: &ObjectPath) -> PathBuf {
        self.root().join(place.as_str())
    }

    /// Gives a file of a work folder its final name, durably, replacing what was there.
    pub fn adopt(&self, from: &Workspace, name: &str, place: &ObjectPath) -> Result<()> {
        self.flush(&self.regular(&from.inside(name))?)?;
        self.move_to(&from.inside(name), place, RenameFlags::empty())?;
        self.settle(place)
    }

    /// Gives a folder of a work folder its final name, durably: the named files, and nothing else
    /// that may lie there. A folder that was there is replaced as a whole.
    pub fn adopt_folder(&self, from: &Workspace, name: &str, files: &[String], place: &ObjectPath) -> Result<()> {
        let whole = format!("{}.whole", from.inside(name));
        for file in files {
            let place = ObjectPath::new(format!("{whole}/{file}"))?;
            let made = from.inside(&format!("{name}/{file}"));
            self.flush(&self.regular(&made)?)?;
            self.move_to(&made, &place, RenameFlags::empty())?;
        }
        let mut folders: Vec<&str> = files.iter().filter_map(|file| Some(file.rsplit_once('/')?.0)).collect();
        folders.dedup();
        for folder in folders {
            self.sync_folder(&format!("{whole}/{folder}"))?;
        }
        self.sync_folder(&whole)?;
        // Exchanged, the old one lies in the work folder and goes with it.
        match self.move_to(&whole, place, RenameFlags::EXCHANGE) {
            Err(e) if e.code == Code::ContentNotFound => self.move_to(&whole, place, RenameFlags::NOREPLACE)?,
            other => other?,
        }
        self.settle(place)
    }

    /// Opens a plain file; whoever made it is not trusted to have made none of another kind.
    fn regular(&self, path: &str) -> Result<File> {
        let file = match self.open_at(path, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(Code::Internal.because(format!("{path} was promised and is not there"))),
            Err(e) => return Err(io(e)),
        };
        if file.metadata()?.is_file() { Ok(file) } else { Err(Code::Internal.because(format!("{path} is no file"))) }
    }

    fn move_to(&self, from: &str, place: &ObjectPath, how: RenameFlags) -> Result<()> {
        let (from_folder, from_name) = from.rsplit_once('/').unwrap_or(("", from));
        let (folder, name) = place.split();
        self.make_folder(folder)?;
        let (from, to) = (self.folder(from_folder)?, self.folder(folder)?);
        match rustix::fs::renameat_with(&from, from_name, &to, name, how) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(Code::ContentNotFound.because(format!("nothing is stored at {place:?}"))),
            Err(e) => Err(io(e)),
        }
    }

    /// Flushes the folders above a new name, up to the root.
    pub(super) fn settle(&self, place: &ObjectPath) -> Result<()> {
        let (mut folder, _) = place.split();
        while !folder.is_empty() {
            self.sync_folder(folder)?;
            folder = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::infra::storage::Config;

    fn storage() -> (tempfile::TempDir, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_floor_bytes: 0, ..Config::default() };
        let storage = Storage::open(dir.path(), &config, &[], &[]).unwrap();
        (dir, storage)
    }

    fn place(path: &str) -> ObjectPath {
        ObjectPath::new(path).unwrap()
    }

    fn text(storage: &Storage, path: &str) -> String {
        let mut text = String::new();
        storage.open_file(&place(path)).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn files_are_taken_over_and_the_folder_goes() {
        let (_dir, storage) = storage();
        let work = storage.workspace().unwrap();
        let path = work.path().to_owned();
        for version in ["one", "two"] {
            std::fs::write(path.join("a.mp4"), version).unwrap();
            storage.adopt(&work, "a.mp4", &place("conversions/ab/x/1/a.mp4")).unwrap();
            assert_eq!(text(&storage, "conversions/ab/x/1/a.mp4"), version);
        }
        assert!(storage.adopt(&work, "missing", &place("conversions/ab/x/1/b.mp4")).is_err());
        drop(work);
        assert!(!path.exists());
        assert!(storage.staged().unwrap().is_empty());
    }

    #[test]
    fn a_folder_is_replaced_whole_and_brings_only_what_was_named() {
        let (_dir, storage) = storage();
        let names = ["720p/a.m4s".to_owned(), "playlist.m3u8".to_owned()];
        for (version, extra) in [("one", "old"), ("two", "new")] {
            let work = storage.workspace().unwrap();
            std::fs::create_dir_all(work.path().join("hls/720p")).unwrap();
            for name in names.iter().map(String::as_str).chain([extra]) {
                std::fs::write(work.path().join("hls").join(name), version).unwrap();
            }
            storage.adopt_folder(&work, "hls", &names, &place("conversions/ab/x/1/hls-video")).unwrap();
            assert_eq!(text(&storage, "conversions/ab/x/1/hls-video/720p/a.m4s"), version);
            assert!(storage.open_file(&place(&format!("conversions/ab/x/1/hls-video/{extra}"))).is_err());
        }
        assert!(storage.staged().unwrap().is_empty());
    }

    #[test]
    fn only_plain_files_are_taken_over() {
        let (_dir, storage) = storage();
        let work = storage.workspace().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", work.path().join("link.mp4")).unwrap();
        std::fs::create_dir(work.path().join("folder.mp4")).unwrap();
        for name in ["link.mp4", "folder.mp4"] {
            assert!(storage.adopt(&work, name, &place("conversions/ab/x/1/a.mp4")).is_err(), "{name}");
        }
    }
}
