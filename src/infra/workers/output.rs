//! What a media worker made: memory that it filled and can no longer touch.
//!
//! The server lends an empty memfd with each request; the worker writes into it and tells
//! the length. [`Output::seal`] then takes the memory back: the kernel's seals forbid every
//! later write, growth and cut, even through a descriptor or mapping the worker kept.
//!
//! Invariant: the bytes of an `Output` never change. A worker that still holds the memory
//! mapped for writing makes the seal fail, and the request with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use memmap2::MmapOptions;
use rustix::fs::MemfdFlags;
use rustix::fs::SealFlags;

use crate::error::Code;
use crate::error::Result;

/// Up to here a copy is cheaper than building and tearing down a mapping.
const COPIED_BYTES: u64 = 256 * 1024;

/// Finished bytes in sealed memory.
#[derive(Debug)]
pub struct Output {
    file: File,
    size_bytes: u64,
}

impl Output {
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The bytes: copied when few, otherwise mapped without a copy.
    pub fn bytes(&self) -> Result<Bytes> {
        let size = self.size_bytes as usize;
        if self.size_bytes > COPIED_BYTES {
            #[expect(unsafe_code, reason = "a mapping stands for immutable bytes only if nobody can change the file")]
            // SAFETY: `seal` has forbidden writing, growing and shrinking for ever.
            let map = unsafe { MmapOptions::new().len(size).map(&self.file) };
            return Ok(Bytes::from_owner(map.map_err(|e| Code::Internal.from("mapping an output", e))?));
        }
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, 0).map_err(|e| Code::Internal.from("reading an output", e))?;
        Ok(bytes.into())
    }

    /// Fresh, empty memory for a worker to fill.
    pub(super) fn lend() -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know NOEXEC_SEAL.
        let made = rustix::fs::memfd_create("cloakroom-output", flags | MemfdFlags::NOEXEC_SEAL);
        Ok(File::from(made.or_else(|_| rustix::fs::memfd_create("cloakroom-output", flags))?))
    }

    /// Takes the memory back for good, `size_bytes` being what the worker says it wrote.
    pub(super) fn seal(file: File, size_bytes: u64) -> io::Result<Output> {
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        if file.metadata()?.len() < size_bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an output shorter than told"));
        }
        Ok(Output { file, size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use memmap2::MmapMut;

    use super::*;

    #[test]
    fn a_sealed_output_no_longer_changes() {
        for size in [0, 3, COPIED_BYTES as usize + 1] {
            let mut theirs = Output::lend().unwrap();
            let ours = theirs.try_clone().unwrap();
            theirs.write_all(&vec![7; size]).unwrap();
            let output = Output::seal(ours, size as u64).unwrap();
            assert!(theirs.write_at(b"x", 0).is_err());
            assert!(theirs.set_len(size as u64 + 1).is_err());
            assert!(size == 0 || theirs.set_len(0).is_err());
            assert_eq!(output.bytes().unwrap(), vec![7; size]);
        }
    }

    #[test]
    fn an_output_still_held_or_shorter_than_told_is_refused() {
        let theirs = Output::lend().unwrap();
        theirs.set_len(4096).unwrap();
        #[expect(unsafe_code, reason = "plays the worker that does not let go")]
        // SAFETY: nobody else touches this memory.
        let held = unsafe { MmapMut::map_mut(&theirs) }.unwrap();
        assert!(Output::seal(theirs.try_clone().unwrap(), 4096).is_err());
        drop(held);
        assert!(Output::seal(theirs, 4097).is_err());
    }
}
