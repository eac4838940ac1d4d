//! The local spool: bytes on their way in, and what a crash left of them.
//!
//! Staging lies on the same file system as the final places, so that a commit is a link.
//! Names that begin with [`TEMPORARY`] are derived objects being written; they mean nothing
//! after a restart. Every other name is an upload, and its owner knows what the name says.

use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::Code;
use crate::error::Result;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::Storage;
use crate::infra::storage::io;
use crate::support::id;

pub const FOLDER: &str = "staging";
/// Whole uploads that nobody was told about. Looked at by people, never deleted in recovery.
pub const QUARANTINE: &str = "quarantine";
pub const TEMPORARY: &str = "tmp-";

/// What is found of a staged file that is to be gone on with.
pub enum Reopened {
    At(File),
    /// It has only so many bytes.
    Short(u64),
    Absent,
}

/// Said after `written_bytes` were appended: whenever a MiB is full, the kernel begins to write it, so that little
/// is left to do for the flush at the end. A hint: it fails silently, and is no flush.
pub fn start_writing(mut file: &File, written_bytes: u64) {
    let Ok(end) = file.stream_position() else { return };
    let (from, to) = (end.saturating_sub(written_bytes) >> 20 << 20, end >> 20 << 20);
    let (Ok(offset), Ok(length)) = (from.try_into(), (to - from).try_into()) else { return };
    if to > from {
        #[expect(unsafe_code, reason = "no crate that is used here has this call")]
        // SAFETY: it takes numbers alone, and the descriptor is open as long as the file is borrowed.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
}

/// What lies in a folder, in no order; a name that is not ours and no text is left out.
pub(super) fn names_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

impl Storage {
    /// Creates a staged file; fails with [`Code::Conflict`] if its name is taken.
    pub fn stage(&self, name: &str) -> Result<File> {
        match self.open_at(&format!("{FOLDER}/{name}"), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            Err(Errno::EXIST) => Err(Code::Conflict.because("this name is taken in staging")),
            other => other.map_err(io),
        }
    }

    /// Opens a staged file to write on behind its first `at_bytes`; what it has beyond them is cut off.
    pub fn reopen(&self, name: &str, at_bytes: u64) -> Result<Reopened> {
        let mut file = match self.open_at(&format!("{FOLDER}/{name}"), OFlags::RDWR) {
            Err(Errno::NOENT) => return Ok(Reopened::Absent),
            other => other.map_err(io)?,
        };
        let there = file.metadata()?.len();
        if there < at_bytes {
            return Ok(Reopened::Short(there));
        }
        if there > at_bytes {
            file.set_len(at_bytes)?;
        }
        file.seek(SeekFrom::Start(at_bytes))?;
        Ok(Reopened::At(file))
    }

    /// The same; one that has less, or is not there, begins anew. The file, and how much of it was kept.
    pub fn restage(&self, name: &str, keep_bytes: u64) -> Result<(File, u64)> {
        if let Reopened::At(file) = self.reopen(name, keep_bytes)? {
            return Ok((file, keep_bytes));
        }
        self.unstage(name);
        Ok((self.stage(name)?, 0))
    }

    /// Makes the names in staging survive a power cut.
    pub fn flush_names(&self) -> Result<()> {
        self.sync_folder(FOLDER)
    }

    /// The same as [`Storage::reopen`]; one that is shorter is refused: what it lacks would be filled with zeros.
    pub fn resume_staged(&self, name: &str, at_bytes: u64) -> Result<File> {
        let there = match self.reopen(name, at_bytes)? {
            Reopened::At(file) => return Ok(file),
            Reopened::Short(there) => there,
            Reopened::Absent => 0,
        };
        Err(Code::Internal
            .because(format!("the disk lost bytes of {name}: {there} of {at_bytes} are there; restart the box")))
    }

    /// Opens a staged file to look at it.
    pub fn open_staged(&self, name: &str) -> Result<File> {
        self.open_at(&format!("{FOLDER}/{name}"), OFlags::RDONLY).map_err(io)
    }

    /// The same for one that may not be there, which is told from one that cannot be opened.
    pub fn find_staged(&self, name: &str) -> Result<Option<File>> {
        match self.open_at(&format!("{FOLDER}/{name}"), OFlags::RDONLY) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).map_err(io),
        }
    }

    /// Opens a staged file to write on, or creates it, so that its name survives a power cut.
    pub fn stage_again(&self, name: &str) -> Result<File> {
        let path = format!("{FOLDER}/{name}");
        match self.open_at(&path, OFlags::RDWR) {
            Err(Errno::NOENT) => {
                let file = self.open_at(&path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL).map_err(io)?;
                self.flushed(rustix::fs::fsync(&self.folder(FOLDER)?))?;
                Ok(file)
            }
            other => other.map_err(io),
        }
    }

    /// Gives a staged file a second name here.
    pub fn link_staged(&self, from: &str, to: &str) -> Result<()> {
        let folder = self.folder(FOLDER)?;
        self.unstage(to);
        rustix::fs::linkat(&folder, from, &folder, to, AtFlags::empty()).map_err(io)
    }

    /// Takes an object, or a folder with all that is in it, away from its place at once: what is
    /// left to do, [`Storage::unstage`] of the name that is answered, may take its time or be left to
    /// the next start. `None` when nothing is there.
    pub fn set_aside(&self, place: &ObjectPath) -> Result<Option<String>> {
        let name = format!("{TEMPORARY}{}", id::hex(&id::random::<8>()?));
        let (folder, from) = place.split();
        let folder = match self.open_at(folder, OFlags::DIRECTORY | OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(io)?,
        };
        match rustix::fs::renameat(&folder, from, self.folder(FOLDER)?, &*name) {
            Ok(()) => Ok(Some(name)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io(e)),
        }
    }

    /// The same for a name in staging.
    pub fn set_aside_staged(&self, name: &str) -> Result<Option<String>> {
        let aside = format!("{TEMPORARY}{}", id::hex(&id::random::<8>()?));
        let folder = self.folder(FOLDER)?;
        match rustix::fs::renameat(&folder, name, &folder, &*aside) {
            Ok(()) => Ok(Some(aside)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io(e)),
        }
    }

    /// Makes what was written to a staged file survive a power cut.
    pub fn flush(&self, file: &File) -> Result<()> {
        self.flushed(rustix::fs::fdatasync(file))
    }

    /// Forgets a staged name; a work folder that a crash left goes with all that is in it.
    pub fn unstage(&self, name: &str) {
        let removed = self.folder(FOLDER).and_then(|dir| match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Ok(std::fs::remove_dir_all(self.root().join(FOLDER).join(name))?),
            Err(e) => Err(io(e)),
        });
        if let Err(e) = removed {
            tracing::warn!(error = %e, staged.name = name, "a staged file could not be removed");
        }
    }

    /// The names in staging.
    pub fn staged(&self) -> Result<Vec<String>> {
        let mut names = names_in(&self.root().join(FOLDER))?;
        names.sort();
        Ok(names)
    }

    /// Whether a staged file already had its final name: it was complete and on the disk.
    pub fn is_linked(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.root().join(FOLDER).join(name)).is_ok_and(|meta| meta.nlink() > 1)
    }

    /// Gives a staged file a name where a person can look at it, durably; those that it has stay. Done
    /// again, it is that one.
    pub fn quarantine(&self, name: &str) -> Result<()> {
        let (from, to) = (self.folder(FOLDER)?, self.folder(QUARANTINE)?);
        let which = |folder: &OwnedFd| {
            rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino))
        };
        let linked = match rustix::fs::linkat(&from, name, &to, name, AtFlags::empty()) {
            Err(Errno::EXIST) if which(&from) == which(&to) => Ok(()),
            // Another of this name was quarantined before.
            Err(Errno::EXIST) => {
                let name_there = format!("{name}.{}", id::hex(&id::random::<8>()?));
                rustix::fs::linkat(&from, name, &to, &*name_there, AtFlags::empty())
            }
            done => done,
        };
        linked.map_err(io)?;
        self.sync_folder(QUARANTINE)
    }
}
