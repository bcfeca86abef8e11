//! One file of the history: its name, how it begins, and how it is read from end to end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::record::{self, HEAD_BYTES, PAYLOAD_MAX, RECORD_HEAD_BYTES, Salt};

/// Bytes read at once when a file is read from end to end.
const READ_BYTES: usize = 256 << 10;

/// The path of segment `number`.
pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.log"))
}

/// Where a damaged segment is put aside.
pub(super) fn damaged_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.log.damaged"))
}

/// The number in a file's name, if it is that of a segment.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    let decimal = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| digits.parse().ok()).flatten()
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens an existing segment, to read it and to cut its tail.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Begins a new segment; the head and `first` are in it and on disk when this returns.
pub(super) fn create(
    directory: &Path,
    number: u32,
    salt: Salt,
    first: &[u8],
) -> io::Result<(File, u64)> {
    let path = path(directory, number);
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    let mut bytes = salt.head();
    bytes.extend_from_slice(first);
    let written = file
        .write_all_at(&bytes, 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_directory(directory));
    match written {
        Ok(()) => Ok((file, bytes.len() as u64)),
        Err(error) => {
            // What is left, if it cannot be removed, is read as an unfinished file.
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
}

/// What a scan came across.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole record at this offset.
    Record(u64, Bytes),
    /// Bytes that are no record, with a whole record behind them.
    Damage { offset: u64, bytes: u64 },
    /// Bytes at the end that are no record.
    Rest { offset: u64, bytes: u64, kind: RestKind },
}

/// What the bytes behind the last record look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestKind {
    /// Zeros: the file was made larger ahead of being written.
    Unused,
    /// A write that was cut off: less than a record's head, or a record longer than what the file
    /// still has, or only the beginning of one before zeros.
    CutOff,
    /// Neither.
    Damaged,
}

/// Reads a segment from end to end, over damage too, with bounded memory: one record or
/// [`READ_BYTES`], whichever is more.
pub(super) struct Scan<'a> {
    file: &'a File,
    salt: Salt,
    offset: u64,
    end: u64,
    /// Bytes of the file from `window_offset` on.
    window: Vec<u8>,
    window_offset: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a File, salt: Salt) -> io::Result<Self> {
        let end = file.metadata()?.len();
        let offset = HEAD_BYTES.min(end);
        Ok(Self { file, salt, offset, end, window: Vec::new(), window_offset: 0 })
    }

    /// The next thing, or None at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        let offset = self.offset;
        if offset >= self.end {
            return Ok(None);
        }
        if let Some(record) = self.record_at(offset)? {
            self.offset += record.len() as u64;
            return Ok(Some(Found::Record(offset, record)));
        }
        if let Some(next) = self.next_record_after(offset)? {
            self.offset = next;
            return Ok(Some(Found::Damage { offset, bytes: next - offset }));
        }
        self.offset = self.end;
        let kind = self.rest_kind(offset)?;
        Ok(Some(Found::Rest { offset, bytes: self.end - offset, kind }))
    }

    /// The whole record at `offset`, if there is one.
    fn record_at(&mut self, offset: u64) -> io::Result<Option<Bytes>> {
        let Some(head) = self.bytes(offset, RECORD_HEAD_BYTES)? else { return Ok(None) };
        let length = record::payload_length(head);
        let mark = self.salt.mark();
        if self.bytes(offset, 4)?.is_none_or(|found| *found != mark) || length > PAYLOAD_MAX {
            return Ok(None);
        }
        let salt = self.salt;
        let Some(record) = self.bytes(offset, RECORD_HEAD_BYTES + length)? else {
            return Ok(None);
        };
        Ok(salt.approves(record).then(|| Bytes::copy_from_slice(record)))
    }

    fn next_record_after(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mark = self.salt.mark();
        let mut from = offset + 1;
        while from + RECORD_HEAD_BYTES as u64 <= self.end {
            let count = READ_BYTES.min(usize::try_from(self.end - from).unwrap_or(READ_BYTES));
            let Some(bytes) = self.bytes(from, count)? else { return Ok(None) };
            match bytes.windows(4).position(|four| four == mark) {
                Some(position) => {
                    let candidate = from + position as u64;
                    if self.record_at(candidate)?.is_some() {
                        return Ok(Some(candidate));
                    }
                    from = candidate + 1;
                }
                None => from += (count - 3) as u64,
            }
        }
        Ok(None)
    }

    fn rest_kind(&mut self, offset: u64) -> io::Result<RestKind> {
        // The last byte that is not zero: a write that was cut off is followed by unused zeros.
        let (mut from, mut written_end) = (offset, offset);
        while from < self.end {
            let count = READ_BYTES.min(usize::try_from(self.end - from).unwrap_or(READ_BYTES));
            let Some(bytes) = self.bytes(from, count)? else { break };
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                written_end = from + last as u64 + 1;
            }
            from += count as u64;
        }
        if written_end == offset {
            return Ok(RestKind::Unused);
        }
        if written_end - offset < RECORD_HEAD_BYTES as u64 {
            return Ok(RestKind::CutOff);
        }
        let mark = self.salt.mark();
        let Some(head) = self.bytes(offset, RECORD_HEAD_BYTES)? else {
            return Ok(RestKind::CutOff);
        };
        let longer =
            offset + (RECORD_HEAD_BYTES + record::payload_length(head)) as u64 > written_end;
        Ok(if head[..4] == mark && longer { RestKind::CutOff } else { RestKind::Damaged })
    }

    /// `count` bytes at `offset`, or None if the file ends before.
    fn bytes(&mut self, offset: u64, count: usize) -> io::Result<Option<&[u8]>> {
        if offset + count as u64 > self.end {
            return Ok(None);
        }
        let window_end = self.window_offset + self.window.len() as u64;
        if offset < self.window_offset || offset + count as u64 > window_end {
            let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
            self.window.resize(count.max(READ_BYTES).min(left), 0);
            self.window.shrink_to(READ_BYTES);
            self.window_offset = offset;
            self.file.read_exact_at(&mut self.window, offset)?;
        }
        let start = usize::try_from(offset - self.window_offset).unwrap_or(usize::MAX);
        Ok(self.window.get(start..start + count))
    }
}
