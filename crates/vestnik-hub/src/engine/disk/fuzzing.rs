//! The reader of history files for the fuzzers: bytes instead of a directory. Not an interface.

use std::fs::File;
use std::io::{self, Write as _};

use super::record::{self, HEAD_BYTES, Head, Salt};
use super::segment::{Found, Scan};

/// What was found in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records with the right checksum.
    pub whole: usize,
    /// Those of them that say something.
    pub understood: usize,
}

/// Reads bytes as a history file, from its head to its end; None if the head is no good.
///
/// # Panics
/// When the system has no room for a temporary file, or a scan does not move on.
#[must_use]
pub fn read_file(bytes: &[u8]) -> Option<Counts> {
    let head = &bytes[..bytes.len().min(usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX))];
    let Head::Known(salt) = Head::read(head) else { return None };
    let file = temporary(bytes).expect("a temporary file can be written");
    let mut scan = Scan::new(&file, salt).expect("it can be read");
    let (mut counts, mut last) = (Counts::default(), None);
    while let Some(found) = scan.next().expect("it can be read") {
        let (Found::Record(offset, _) | Found::Damage { offset, .. } | Found::Rest { offset, .. }) =
            &found;
        assert!(last.is_none_or(|last| last < *offset), "a scan moves on");
        last = Some(*offset);
        if let Found::Record(_, record) = found {
            counts.whole += 1;
            counts.understood += usize::from(record::read(&record).is_some());
        }
    }
    Some(counts)
}

/// A file with a good head, some bytes of damage and one whole record.
#[must_use]
pub fn file_with(damage: &[u8], kind: u8, payload: &[u8]) -> Vec<u8> {
    // Fixed, so that the fuzzer meets the same bytes again.
    let salt = Salt::of(0x5eed);
    let mut file = salt.head();
    file.extend_from_slice(damage);
    salt.write(&mut file, kind, |into| into.extend_from_slice(payload));
    file
}

fn temporary(bytes: &[u8]) -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("vestnik-fuzzing-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    // Open, but without a name: gone with the process.
    std::fs::remove_file(&path)?;
    file.write_all(bytes)?;
    Ok(file)
}
