//! The lock that gives one process the data directory.
//!
//! In goes the directory; out comes a [`DataLock`] that holds `LOCK` in it until it is
//! dropped or the process ends, however it ends: the kernel forgets a `flock` with its
//! holder, so a crash leaves nothing to clean up.
//!
//! Invariant: while a [`DataLock`] lives, no other process has one for the same directory.
//! The job engine and the staging area rely on it when they take over what lies about.
//!
//! The number in the file only serves the message; the lock is the `flock`, not the file.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::Code;
use crate::error::Result;

/// The only claim to a data directory.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the directory, or says at once who has it ([`Code::Busy`]).
    pub fn take(dir: &Path) -> Result<DataLock> {
        let path = dir.join("LOCK");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Code::StorageUnavailable.from(format!("opening {}", path.display()), e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(Code::Busy.because(format!("{} is in use by process {holder}", dir.display())));
            }
            Err(e) => return Err(Code::StorageUnavailable.from(format!("locking {}", path.display()), e)),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(DataLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let refused = DataLock::take(dir.path()).unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        assert!(refused.detail.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("not-mounted");
        assert_eq!(DataLock::take(&absent).unwrap_err().code, Code::StorageUnavailable);
        assert!(!absent.exists());
    }
}
