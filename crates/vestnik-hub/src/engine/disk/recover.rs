//! Opening a history: what the files say is read, checked and brought into memory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info};
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, MessageId};

use super::record::{self, CounterRecord, HEAD_BYTES, Head, Record, Salt};
use super::segment::{self, Found, RestKind, Scan};
use super::{
    Counter, DiskOptions, HistoryLimits, Index, Location, OpenError, Place, RESERVE, Recent,
    Reserve, Segment, SegmentFile, State,
};

/// Makes the directory if it is missing and takes it for this process.
pub(super) fn lock(directory: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::new(directory, source);
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        return Err(match error.kind() {
            io::ErrorKind::AlreadyExists => {
                OpenError::NotADirectory { path: directory.to_path_buf() }
            }
            _ => failed(error),
        });
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: directory.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What the files said.
pub(super) struct Recovered {
    /// Number of the segment to begin next.
    pub next_number: u32,
    counter: Counter,
    index: Index,
    recent: Recent,
    segments: BTreeMap<u32, Segment>,
}

impl Recovered {
    /// The state of an engine that has not begun to write.
    pub(super) fn into_state(self) -> State {
        State {
            reserved: self.counter.last.seq(),
            counter: self.counter,
            reserve: Reserve::Enough,
            index: self.index,
            recent: self.recent,
            segments: self.segments,
            pending: Vec::new(),
            pending_messages: 0,
            pending_bytes: 0,
            in_flight: false,
            sleeps: false,
            maintain: true,
            closed: false,
            #[cfg(test)]
            killed: false,
        }
    }
}

/// Reads all segments of the directory.
pub(super) fn read(
    options: &DiskOptions,
    limits: HistoryLimits,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Recovered, OpenError> {
    let directory = &options.directory;
    let (numbers, next_number) = list(directory)?;
    let mut recovery = Recovery {
        directory,
        metrics,
        now_s: clock.unix_s(),
        // What limits remove again was counted when they did it first.
        index: Index::new(limits, Arc::default(), MessageId::ZERO),
        recent: Recent::new(options.cache_bytes),
        segments: BTreeMap::new(),
        counter: None,
        highest: MessageId::ZERO,
        created_ms: 0,
        damaged: false,
        cut: false,
    };
    let last = numbers.last().copied();
    for number in numbers {
        recovery.segment(number, Some(number) == last)?;
    }
    Ok(recovery.finish(next_number, clock))
}

/// The segments of a directory, ascending, and the number that none has or had.
fn list(directory: &Path) -> Result<(Vec<u32>, u32), OpenError> {
    let failed = |source| OpenError::new(directory, source);
    let (mut numbers, mut highest) = (Vec::new(), 0);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if let Some(number) = segment::number(&name) {
            numbers.push(number);
            highest = highest.max(number);
        } else if let Some(number) = name.strip_suffix(".damaged").and_then(segment::number) {
            highest = highest.max(number);
        } else if name.ends_with(".log") {
            return Err(OpenError::Foreign { path: directory.join(&*name) });
        }
    }
    numbers.sort_unstable();
    Ok((numbers, highest + 1))
}

struct Recovery<'a> {
    directory: &'a Path,
    metrics: &'a Arc<Metrics>,
    now_s: u64,
    index: Index,
    recent: Recent,
    segments: BTreeMap<u32, Segment>,
    /// The counter record read last.
    counter: Option<CounterRecord>,
    highest: MessageId,
    created_ms: u64,
    /// Something was lost.
    damaged: bool,
    /// The end of the last file was cut off.
    cut: bool,
}

impl Recovery<'_> {
    fn segment(&mut self, number: u32, is_last: bool) -> Result<(), OpenError> {
        let path = segment::path(self.directory, number);
        let failed = |source| OpenError::new(&path, source);
        let file = segment::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut head = vec![0; usize::try_from(length.min(HEAD_BYTES)).unwrap_or(0)];
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        match Head::read(&head) {
            Head::Known(salt) => self.records(number, file, salt, is_last).map_err(failed),
            Head::Version(found) => Err(OpenError::Version { path, found, known: record::VERSION }),
            Head::Foreign => Err(OpenError::Foreign { path }),
            Head::Unfinished if length <= HEAD_BYTES => {
                info!(path = %path.display(), bytes = length, "unfinished history file removed");
                self.cut = true;
                fs::remove_file(&path).map_err(failed)
            }
            Head::Unfinished | Head::Damaged => {
                self.report(number, 0, length);
                fs::rename(&path, segment::damaged_path(self.directory, number)).map_err(failed)
            }
        }
    }

    fn records(&mut self, number: u32, file: File, salt: Salt, is_last: bool) -> io::Result<()> {
        let mut damaged = false;
        let mut scan = Scan::new(&file, salt)?;
        let mut end = None;
        while let Some(found) = scan.next()? {
            match found {
                Found::Record(offset, record) => match record::read(&record) {
                    Some(Record::Message(envelope)) => {
                        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
                        let offset = u32::try_from(offset).map_err(io::Error::other)?;
                        self.message(*envelope, Location { segment: number, offset, length });
                    }
                    Some(Record::Counter(counter)) => {
                        self.counter = Some(counter);
                        self.index.raise_floor(counter.floor);
                    }
                    None => {
                        damaged = true;
                        self.report(number, offset, record.len() as u64);
                    }
                },
                Found::Damage { offset, bytes } => {
                    damaged = true;
                    self.report(number, offset, bytes);
                }
                Found::Rest { offset, kind: RestKind::Unused, .. } => end = Some(offset),
                Found::Rest { offset, bytes, kind: RestKind::CutOff } if is_last => {
                    let path = segment::path(self.directory, number);
                    info!(path = %path.display(), offset, bytes, "incomplete end of the history cut off");
                    self.cut = true;
                    end = Some(offset);
                }
                Found::Rest { offset, bytes, .. } => {
                    damaged = true;
                    self.report(number, offset, bytes);
                }
            }
        }
        if let Some(end) = end.filter(|_| !damaged) {
            file.set_len(end)?;
            file.sync_all()?;
        }
        let bytes = file.metadata()?.len();
        let file = Arc::new(SegmentFile { number, file, salt });
        self.segments.insert(number, Segment { file, bytes, damaged });
        Ok(())
    }

    fn message(&mut self, envelope: vestnik_core::Envelope, location: Location) {
        self.highest = self.highest.max(envelope.id);
        self.created_ms = self.created_ms.max(envelope.created_ms);
        if envelope.expires_s() <= self.now_s {
            self.index.note(&envelope, self.now_s);
        } else if self.index.insert(&envelope, Place::Disk(location), self.now_s) {
            self.recent.push(Arc::new(envelope));
        }
    }

    /// Reports damage: someone must look, and it is counted.
    fn report(&mut self, number: u32, offset: u64, bytes: u64) {
        self.damaged = true;
        self.metrics.add(Metric::HistoryDamaged, bytes);
        let path = segment::path(self.directory, number);
        let aside = segment::damaged_path(self.directory, number);
        error!(
            path = %path.display(),
            offset,
            bytes,
            aside = %aside.display(),
            "the history is damaged; what is readable is kept, the file is put aside"
        );
    }

    /// Decides where numbering goes on.
    fn finish(mut self, next_number: u32, clock: &Clock) -> Recovered {
        let now_s = clock.unix_s().max(1);
        let known = self.counter.map_or(self.highest, |counter| counter.reserved);
        let known = known.max(self.highest);
        if self.counter.is_some_and(|counter| !counter.clean) {
            info!(messages = self.index.len(), "the history was not closed in order; recovered");
        }
        let nothing = self.counter.is_none() && self.highest == MessageId::ZERO;
        let last = if nothing || self.damaged {
            // What was lost may have held the last word on ids: a new epoch is above all of them.
            let epoch = now_s.max(known.epoch() + 1);
            let seq = if nothing { 0 } else { known.seq() + RESERVE };
            let start = MessageId::new(epoch, seq);
            self.index.raise_floor(start);
            start
        } else if self.cut {
            // The cut may have been a damaged counter; go past whatever it could have allowed.
            MessageId::new(known.epoch(), known.seq() + RESERVE)
        } else {
            known
        };
        let created_ms = self.created_ms.max(clock.unix_ms());
        self.index.count_in(Arc::clone(self.metrics));
        Recovered {
            next_number,
            counter: Counter::after(last, created_ms),
            index: self.index,
            recent: self.recent,
            segments: self.segments,
        }
    }
}
