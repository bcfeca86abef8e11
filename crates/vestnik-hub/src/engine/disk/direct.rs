//! Writes that go past the page cache and are on disk when they return. Forcing what was written through the
//! cache costs the processor about twice as much for each message.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Blocks are written whole, from memory that is aligned as they are. No file system wants more.
const BLOCK: usize = 4096;

/// Bytes of one write at most, so that the memory for it is bounded.
const WRITE_BYTES: usize = 1 << 20;

/// A file that is appended to in whole blocks; zeros fill the last one.
pub(super) struct Direct {
    file: File,
    /// What is written of the last block, as long as it is not full.
    begun: Vec<u8>,
    /// What is written next, somewhere in it, where it is aligned.
    memory: Vec<u8>,
}

impl Direct {
    /// For the file at `path`, of which `length` bytes are written. `None`: this system or its file system
    /// has no such writes.
    pub(super) fn open(path: &Path, length: u64) -> Option<Self> {
        let file = open(path)?;
        let begun = usize::try_from(length % BLOCK as u64).ok()?;
        let mut direct = Self { file, begun: vec![0; begun], memory: Vec::new() };
        let read = File::open(path)
            .and_then(|file| file.read_exact_at(&mut direct.begun, length - begun as u64));
        read.ok()?;
        // Some only say at the first write that they cannot.
        direct.write(&[], length).ok()?;
        Some(direct)
    }

    /// Writes `bytes` behind the `length` bytes that are written; they are on disk when it returns.
    ///
    /// # Errors
    /// When some of it may not be on disk. Nothing more can be written in this way then.
    pub(super) fn append(&mut self, bytes: &[u8], mut length: u64) -> io::Result<()> {
        for bytes in bytes.chunks(WRITE_BYTES) {
            self.write(bytes, length)?;
            length += bytes.len() as u64;
        }
        if self.memory.len() > WRITE_BYTES / 4 {
            self.memory = Vec::new();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], length: u64) -> io::Result<()> {
        let used = self.begun.len() + bytes.len();
        let whole = used.next_multiple_of(BLOCK);
        if self.memory.len() < whole + BLOCK {
            self.memory.resize(whole + BLOCK, 0);
        }
        let at = self.memory.as_ptr().align_offset(BLOCK);
        let blocks = self
            .memory
            .get_mut(at..at.saturating_add(whole))
            .ok_or_else(|| io::Error::other("memory cannot be aligned"))?;
        let (before, rest) = blocks.split_at_mut(self.begun.len());
        let (new, padding) = rest.split_at_mut(bytes.len());
        before.copy_from_slice(&self.begun);
        new.copy_from_slice(bytes);
        padding.fill(0);
        self.file.write_all_at(blocks, length - self.begun.len() as u64)?;
        let full = used - used % BLOCK;
        let begun = blocks[full..used].to_vec();
        self.begun = begun;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn open(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    std::fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open(_path: &Path) -> Option<File> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_in_pieces_of_any_length_stands_in_the_file_behind_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut expected: Vec<u8> =
            (0..5000_u32).map(|it| u8::try_from(it % 251).unwrap()).collect();
        std::fs::write(&path, &expected).unwrap();
        let direct = Direct::open(&path, expected.len() as u64);
        let mut direct = direct.expect("the file system of temporary files has direct writes");
        let mut piece = 1;
        while expected.len() < 3 << 20 {
            let bytes: Vec<u8> =
                (0..piece).map(|it| u8::try_from((it + piece) % 253).unwrap()).collect();
            direct.append(&bytes, expected.len() as u64).unwrap();
            expected.extend(bytes);
            piece = piece * 3 / 2 + 1;
        }
        let written = std::fs::read(&path).unwrap();
        assert!(written.starts_with(&expected));
        assert_eq!(written.len(), expected.len().next_multiple_of(BLOCK));
        assert!(written[expected.len()..].iter().all(|byte| *byte == 0));
        assert!(direct.memory.len() <= WRITE_BYTES, "memory for a large write is given back");
    }
}
