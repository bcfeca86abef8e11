//! The engine that keeps messages in files: a log of segments, one writer thread, group commit.
//!
//! Publishers queue batches; the writer takes everything that waits, numbers it, appends it with one
//! write, syncs once, and then indexes, announces and answers. A volatile batch that nothing stored
//! precedes takes none of this way: it is numbered and announced by its publisher's thread. What
//! lives where is known in memory ([`super::index`]); bodies of the newest messages too.

mod direct;
#[doc(hidden)]
pub mod fuzzing;
mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tracing::error;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, Envelope, MessageId, Receiver};

use super::index::{Index, Location, Place, memory_bytes};
use super::memory::{Counter, announce, number};
use super::{
    Announcer, Batch, EngineError, HistoryLimits, Lookup, Replay, SWEEP_SLICE, SWEEP_SLICES, Ticket,
};
use crate::reply::Reply;
use record::{Record, Salt};
use writer::Writer;

/// How many ids are given before the store must note it again: a counter record covers that many.
const RESERVE: u64 = 1_000_000;

/// When the history is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before a publisher hears of success: survives a power cut.
    Always,
    /// At least this often: a power cut costs what came since, a killed process nothing.
    Interval(Duration),
    /// When the operating system likes: a killed process costs nothing, a power cut up to a minute.
    Never,
}

/// How the disk engine keeps its files.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Where the files are; made if it is missing, and used by one process at a time.
    pub directory: PathBuf,
    /// When written messages are forced to the disk.
    pub sync: Sync,
    /// Bytes of a file after which the next one is begun; at most 1 GiB, and at most an eighth of
    /// [`HistoryLimits::bytes`] is used.
    pub segment_bytes: u64,
    /// Age of a file after which the next one is begun.
    pub segment_age: Duration,
    /// Messages that may wait to be stored before publishers are refused.
    pub pending_messages: usize,
    /// Bytes of bodies that may wait to be stored before publishers are refused.
    pub pending_bytes: usize,
    /// Memory for the bodies of the newest messages, in bytes.
    pub cache_bytes: u64,
}

impl DiskOptions {
    /// The usual values: sync always, files of 64 MiB or an hour, 10,000 messages or 32 MiB waiting,
    /// 16 MiB of newest messages in memory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            sync: Sync::Always,
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(3600),
            pending_messages: 10_000,
            pending_bytes: 32 << 20,
            cache_bytes: 16 << 20,
        }
    }
}

/// Why the history could not be opened; the sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is something else than a directory.
    #[error("history directory {}: not a directory; name another path", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error(
        "history directory {}: another process uses it; stop that one, or give this one a directory of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It may not be written.
    #[error("{}: may not be written; give it to the user this program runs as", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("{}: no space left; free some, or move the history to another disk", path.display())]
    NoSpace {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is in the way that was not written by this program.
    #[error("{}: not a file of the history; move it away, or name another directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file is of a version this program does not read.
    #[error(
        "{}: format version {found}, this program reads version {known}; start the program that wrote it, or move the directory away",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// Anything else the system said.
    #[error("{}: cannot be opened", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, source }
            }
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { path, source },
        }
    }
}

/// The engine that keeps messages in files.
pub struct Disk {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the directory is used.
    _lock: File,
}

/// What publishers, readers and the writer share.
struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    announcer: Arc<Announcer>,
    clock: Clock,
    metrics: Arc<Metrics>,
    options: DiskOptions,
    bytes_max: u64,
    faults: Faults,
}

struct State {
    counter: Counter,
    /// Ids up to this number are covered by a counter record on disk.
    reserved: u64,
    reserve: Reserve,
    index: Index,
    recent: Recent,
    segments: BTreeMap<u32, Segment>,
    pending: Vec<Pending>,
    pending_messages: usize,
    pending_bytes: usize,
    /// The writer has numbered messages that are not announced yet.
    in_flight: bool,
    /// The writer sleeps and nobody has woken it yet: waking is a system call even if nobody sleeps.
    sleeps: bool,
    maintain: bool,
    closed: bool,
    #[cfg(test)]
    killed: bool,
}

/// Whether more ids are to be covered by a counter record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    /// Enough are.
    Enough,
    /// The writer is to write one.
    Wanted,
    /// Writing one failed; ids are given all the same, and it is tried again at the next sweep.
    Failed,
}

/// A batch that waits for the writer.
struct Pending {
    batch: Batch,
    reply: Reply,
}

/// A file of the history.
struct Segment {
    file: Arc<SegmentFile>,
    bytes: u64,
    /// It is put aside, not removed, when nothing in it lives.
    damaged: bool,
}

struct SegmentFile {
    number: u32,
    file: File,
    salt: Salt,
}

/// Places where a test makes the disk fail.
#[derive(Default)]
struct Faults {
    #[cfg(test)]
    write: std::sync::atomic::AtomicBool,
    #[cfg(test)]
    sync: std::sync::atomic::AtomicBool,
    /// The writer waits before it writes as long as a test holds this.
    #[cfg(test)]
    pause: Mutex<()>,
}

impl Faults {
    fn before_write(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            drop(self.pause.lock().unwrap_or_else(PoisonError::into_inner));
            if self.write.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn before_sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.sync.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("injected failure to sync"));
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        self.metrics.set(Metric::HistoryMessages, state.index.len() as u64);
        self.metrics.set(Metric::HistoryBytes, state.file_bytes());
        self.metrics.set(Metric::HistorySegments, state.segments.len() as u64);
    }
}

impl State {
    fn file_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Whether `count` ids can be given without another counter record.
    fn has_numbers(&self, count: usize) -> bool {
        self.reserve == Reserve::Failed || self.counter.last.seq() + count as u64 <= self.reserved
    }
}

impl Disk {
    pub(super) fn open(
        options: DiskOptions,
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let lock = recover::lock(&options.directory)?;
        let recovered = recover::read(&options, limits, &clock, &metrics)?;
        let directory = options.directory.clone();
        let next_number = recovered.next_number;
        let shared = Arc::new(Shared {
            state: Mutex::new(recovered.into_state()),
            work: Condvar::new(),
            announcer,
            clock,
            metrics,
            options,
            bytes_max: limits.bytes,
            faults: Faults::default(),
        });
        let writer = Writer::start(Arc::clone(&shared), next_number)
            .map_err(|source| OpenError::new(&directory, source))?;
        let thread = std::thread::Builder::new()
            .name("history".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::new(&directory, source))?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)), _lock: lock })
    }

    pub(super) fn submit(&self, batch: Batch) -> Result<Ticket, EngineError> {
        let count = batch.drafts.len();
        let stored = batch.drafts.iter().any(|draft| draft.expiry.is_stored());
        if let Some(draft) = batch.drafts.iter().find(|draft| !record::fits(draft)) {
            let bytes = record::message_bytes(draft);
            let text = format!("a message of {bytes} bytes is too long to be kept");
            return Err(EngineError::Store(text.into()));
        }
        let mut locked = self.shared.lock();
        let state = &mut *locked;
        if state.closed {
            return Err(EngineError::Closed);
        }
        let idle = state.pending.is_empty() && !state.in_flight;
        if !stored && idle && state.has_numbers(count) {
            return Ok(Ticket::Ready(self.announce_now(state, batch)));
        }
        let bytes = batch.drafts.iter().map(|draft| draft.body.len() + draft.additions.bytes());
        let bytes = bytes.sum::<usize>();
        let full = state.pending_messages + count > self.shared.options.pending_messages
            || state.pending_bytes + bytes > self.shared.options.pending_bytes;
        if full && !state.pending.is_empty() {
            return Err(EngineError::Overloaded { waiting: state.pending_messages });
        }
        let (reply, ticket) = Reply::new();
        state.pending.push(Pending { batch, reply });
        state.pending_messages += count;
        state.pending_bytes += bytes;
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(locked);
        if sleeps {
            self.shared.work.notify_one();
        }
        Ok(ticket)
    }

    /// Numbers and announces messages that are not stored, ahead of which nothing waits.
    fn announce_now(&self, state: &mut State, batch: Batch) -> Vec<MessageId> {
        let shared = &self.shared;
        let (mut before, created_ms) =
            state.counter.take(batch.drafts.len(), shared.clock.unix_ms());
        let envelopes = number(&mut before, created_ms, batch.drafts);
        let unwoken = announce(&shared.announcer, &shared.metrics, &mut state.counter, &envelopes);
        shared.announcer.wake(unwoken);
        if state.counter.last.seq() + RESERVE / 2 > state.reserved
            && state.reserve == Reserve::Enough
        {
            state.reserve = Reserve::Wanted;
            shared.work.notify_one();
        }
        envelopes.iter().map(|envelope| envelope.id).collect()
    }

    pub(super) fn history(&self, receivers: &[Receiver], after: MessageId, bytes: usize) -> Lookup {
        let state = self.shared.lock();
        let now_s = self.shared.clock.unix_s();
        let found =
            state.index.find(receivers, after, state.counter.announced, now_s).within(bytes);
        let mut on_disk = false;
        let mut parts = Vec::with_capacity(found.messages.len());
        for (id, place) in found.messages {
            let part = match (state.recent.get(id), place) {
                (Some(envelope), _) => Part::Here(envelope),
                (None, Place::Memory(envelope)) => Part::Here(envelope),
                (None, Place::Disk(location)) => match state.segments.get(&location.segment) {
                    Some(segment) => Part::There(Arc::clone(&segment.file), location),
                    None => continue, // a living message's segment is never removed
                },
            };
            on_disk |= matches!(part, Part::There(..));
            parts.push(part);
        }
        let last = state.counter.announced;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let read = ReplayRead { parts, gap: found.gap, more: found.more, last, shared };
        if on_disk { Lookup::Disk(read) } else { Lookup::Ready(read.without_disk()) }
    }

    pub(super) fn newest(&self, receivers: &[Receiver]) -> Option<MessageId> {
        self.shared.lock().index.newest(receivers)
    }

    pub(super) fn last_id(&self) -> MessageId {
        self.shared.lock().counter.announced
    }

    pub(super) fn sweep(&self) {
        let now_s = self.shared.clock.unix_s();
        for _ in 0..SWEEP_SLICES {
            let mut state = self.shared.lock();
            let more = state.index.sweep(now_s, SWEEP_SLICE);
            self.shared.show(&state);
            if !more {
                break;
            }
        }
        let mut state = self.shared.lock();
        state.recent.trim(now_s);
        state.maintain = true;
        if state.reserve == Reserve::Failed {
            state.reserve = Reserve::Wanted;
        }
        drop(state);
        self.shared.work.notify_one();
    }

    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.join();
    }

    fn join(&self) {
        self.shared.work.notify_one();
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the thread that writes the history panicked");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// A replay of which a part must be read from files first.
pub struct ReplayRead {
    parts: Vec<Part>,
    gap: bool,
    more: bool,
    last: MessageId,
    shared: Arc<Shared>,
}

enum Part {
    Here(Arc<Envelope>),
    There(Arc<SegmentFile>, Location),
}

impl ReplayRead {
    /// Reads the messages; blocks on files. A record that turns out damaged is left out, reported
    /// and counted, and the replay has a gap.
    ///
    /// # Errors
    /// [`EngineError::Store`] when the files cannot be read.
    pub fn read(self) -> Result<Replay, EngineError> {
        let envelopes = Vec::with_capacity(self.parts.len());
        let mut replay = Replay { envelopes, gap: self.gap, more: self.more, last: self.last };
        let now_s = self.shared.clock.unix_s();
        for part in self.parts {
            match part {
                Part::Here(envelope) => replay.envelopes.push(envelope),
                Part::There(file, location) => match file.message(location) {
                    Ok(Some(envelope)) => replay.envelopes.push(Arc::new(envelope)),
                    Ok(None) => {
                        replay.gap = true;
                        self.shared.metrics.add(Metric::HistoryDamaged, location.length.into());
                        let path = segment::path(&self.shared.options.directory, file.number);
                        error!(
                            path = %path.display(),
                            offset = location.offset,
                            bytes = location.length,
                            "a message in the history is damaged"
                        );
                    }
                    Err(error) => {
                        let path = segment::path(&self.shared.options.directory, file.number);
                        error!(error = %error, path = %path.display(), "reading the history failed");
                        return Err(EngineError::Store(format!("reading: {error}").into()));
                    }
                },
            }
        }
        replay.envelopes.retain(|envelope| envelope.expires_s() > now_s);
        Ok(replay)
    }

    fn without_disk(self) -> Replay {
        let here = self.parts.into_iter().filter_map(|part| match part {
            Part::Here(envelope) => Some(envelope),
            Part::There(..) => None,
        });
        Replay { envelopes: here.collect(), gap: self.gap, more: self.more, last: self.last }
    }
}

impl SegmentFile {
    /// Reads one message. None if its record is damaged.
    fn message(&self, location: Location) -> io::Result<Option<Envelope>> {
        let mut bytes = vec![0; location.length as usize];
        match self.file.read_exact_at(&mut bytes, location.offset.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        if !self.salt.approves(&bytes) {
            return Ok(None);
        }
        Ok(match record::read(&Bytes::from(bytes)) {
            Some(Record::Message(envelope)) => Some(*envelope),
            Some(Record::Counter(_)) | None => None,
        })
    }
}

/// The newest stored messages, held in memory.
struct Recent {
    /// Ascending by id.
    envelopes: VecDeque<Arc<Envelope>>,
    bytes: u64,
    bytes_max: u64,
}

impl Recent {
    fn new(bytes_max: u64) -> Self {
        Self { envelopes: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn push(&mut self, envelope: Arc<Envelope>) {
        if self.envelopes.back().is_some_and(|last| last.id >= envelope.id) {
            return; // found late by recovery: it is read from its file
        }
        self.bytes += cached_bytes(&envelope);
        self.envelopes.push_back(envelope);
        while self.bytes > self.bytes_max && self.pop() {}
    }

    fn pop(&mut self) -> bool {
        self.envelopes.pop_front().is_some_and(|envelope| {
            self.bytes -= cached_bytes(&envelope);
            true
        })
    }

    fn get(&self, id: MessageId) -> Option<Arc<Envelope>> {
        let position = self.envelopes.binary_search_by_key(&id, |envelope| envelope.id).ok()?;
        self.envelopes.get(position).cloned()
    }

    /// Lets the oldest go as far as they expired.
    fn trim(&mut self, now_s: u64) {
        while self.envelopes.front().is_some_and(|oldest| oldest.expires_s() <= now_s) {
            self.pop();
        }
        if self.envelopes.is_empty() {
            self.envelopes.shrink_to_fit();
        }
    }
}

/// Memory of a cached message: subscribers leave an encoded frame of it behind, about as long.
fn cached_bytes(envelope: &Envelope) -> u64 {
    memory_bytes(envelope) + envelope.body_bytes() as u64
}

#[cfg(test)]
impl Disk {
    /// Ends the writer as `kill -9` would: nothing more is written.
    pub(super) fn kill(&self) {
        {
            let mut state = self.shared.lock();
            state.killed = true;
            state.closed = true;
        }
        self.join();
    }

    pub(super) fn channel_count(&self) -> usize {
        self.shared.lock().index.channel_count()
    }
}
