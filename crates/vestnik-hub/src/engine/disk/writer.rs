//! The thread that writes: group commit, new segments, removal of old ones.

use std::fs;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};
use vestnik_core::metric::Metric;
use vestnik_core::{Envelope, MessageId};

use super::direct::Direct;
use super::record::{self, CounterRecord, Record, Salt};
use super::segment::{self, Found, Scan};
use super::{
    EngineError, Location, Pending, Place, RESERVE, Reserve, Segment, SegmentFile, Shared, State,
    Sync, announce, number,
};
use crate::announce::Unwoken;
use crate::engine::IfUnstored;
use crate::reply::Reply;

/// Messages indexed and announced under one hold of the lock.
const ANNOUNCE_SLICE: usize = 256;

/// Messages evicted under one hold of the lock when space is short.
const EVICT_SLICE: usize = 1024;

/// Bytes copied with one write when a segment is rewritten.
const COPY_BYTES: usize = 1 << 20;

/// Longest useful segment: offsets are kept in four bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The write buffer is given back when it grew beyond this.
const BUFFER_BYTES: usize = 1 << 20;

/// The writer: the only one that changes files.
pub(super) struct Writer {
    shared: Arc<Shared>,
    tail: Option<Tail>,
    next_number: u32,
    buffer: Vec<u8>,
    /// Whether the last attempt to write succeeded; only changes are logged.
    works: bool,
    /// Since when something written is not forced to disk.
    unsynced_since: Option<Instant>,
    /// The floor of the newest counter record on disk.
    floor_written: MessageId,
}

/// Bytes by which a segment grows ahead of what is written: syncing a file that keeps its size and its
/// blocks spares the file system a commit of its journal, and the wait for everybody else's.
const ROOM_BYTES: u64 = 1 << 20;

/// What room is filled with.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The segment that is written to.
struct Tail {
    file: Arc<SegmentFile>,
    /// Bytes written.
    length: u64,
    /// Bytes of the file; zeros behind what is written.
    size: u64,
    begun_s: u64,
    /// How it is written to where every message is synced and the file system can do that.
    direct: Option<Direct>,
}

/// Makes room up to `size` in a file whose bytes up to `written` are in use and those up to `end` are about
/// to be. `fills`: with zeros, so that the blocks are there when they are written to.
fn grow(file: &fs::File, written: u64, end: u64, size: u64, fills: bool) -> io::Result<()> {
    file.set_len(size)?;
    let mut at = end;
    while fills && at < size {
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(ZEROS.len());
        if file.write_all_at(&ZEROS[..length], at).is_err() {
            // Space is short: what is left belongs to messages.
            file.set_len(written)?;
            return file.set_len(size);
        }
        at += length as u64;
    }
    Ok(())
}

/// Why nothing was appended.
enum Failed {
    /// It was not written: the file is cut back, and written to again.
    Unwritten(io::Error),
    /// Nobody knows what of the file is on disk: another one is written to.
    Unsettled(io::Error),
}

impl Failed {
    /// A direct write is on disk or not, but for want of space it is surely not.
    fn of_direct(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Unwritten(error),
            _ => Self::Unsettled(error),
        }
    }
}

/// What the writer is to do.
struct Work {
    pending: Vec<Pending>,
    reserve: bool,
    maintain: bool,
    end: bool,
}

/// A batch with ids.
struct Numbered {
    envelopes: Vec<Arc<Envelope>>,
    if_unstored: IfUnstored,
    reply: Reply,
}

impl Numbered {
    fn stored(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.envelopes.iter().filter(|envelope| envelope.expiry.is_stored())
    }
}

/// Closes the engine when the writer ends, however it ends: nobody must wait for it any more.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.pending.clear();
    }
}

impl Writer {
    /// Begins a segment and settles what recovery left to do.
    pub(super) fn start(shared: Arc<Shared>, next_number: u32) -> io::Result<Self> {
        let mut writer = Self {
            shared,
            tail: None,
            next_number,
            buffer: Vec::new(),
            works: true,
            unsynced_since: None,
            floor_written: MessageId::ZERO,
        };
        writer.roll()?;
        let damaged: Vec<u32> = {
            let state = writer.shared.lock();
            let damaged = state.segments.iter().filter(|(_, segment)| segment.damaged);
            damaged.map(|(number, _)| *number).collect()
        };
        for number in damaged {
            if let Err(error) = writer.rewrite(number) {
                warn!(
                    error = %error,
                    segment = number,
                    "a damaged history file stays where it is for now"
                );
            }
        }
        writer.make_room();
        writer.show_tail(&mut writer.shared.lock());
        Ok(writer)
    }

    /// Works until the engine is closed.
    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        while let Some(work) = self.wait() {
            if work.reserve || !work.pending.is_empty() {
                self.commit(work.pending);
            }
            self.sync_if_due();
            if work.maintain {
                self.maintain();
            }
            if work.end {
                self.end();
                return;
            }
        }
    }

    /// Waits for something to do. None: a test killed the engine.
    fn wait(&mut self) -> Option<Work> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            #[cfg(test)]
            if state.killed {
                return None;
            }
            let reserve = state.reserve == Reserve::Wanted;
            if reserve || state.maintain || state.closed || !state.pending.is_empty() {
                let pending = mem::take(&mut state.pending);
                state.pending_messages = 0;
                state.pending_bytes = 0;
                state.in_flight = !pending.is_empty();
                let end = state.closed && pending.is_empty();
                return Some(Work {
                    pending,
                    reserve,
                    maintain: mem::take(&mut state.maintain),
                    end,
                });
            }
            let due = match (shared.options.sync, self.unsynced_since) {
                (Sync::Interval(interval), Some(since)) => {
                    Some(interval.saturating_sub(since.elapsed()))
                }
                (Sync::Always | Sync::Interval(_) | Sync::Never, _) => None,
            };
            state.sleeps = true;
            state = match due {
                None => shared.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(due) => {
                    let waited = shared.work.wait_timeout(state, due);
                    let (mut state, timeout) =
                        waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                    if timeout.timed_out() {
                        state.sleeps = false;
                        let pending = Vec::new();
                        return Some(Work { pending, reserve: false, maintain: false, end: false });
                    }
                    state
                }
            };
            state.sleeps = false;
        }
    }

    /// Numbers, stores, indexes, announces and answers.
    fn commit(&mut self, pending: Vec<Pending>) {
        let group = self.number(pending);
        let outcome = self.store(&group);
        let mut unwoken = self.publish(&group, &outcome);
        let failure = outcome.err().map(|error| EngineError::Store(error.to_string().into()));
        for batch in group {
            let lost = failure.as_ref().filter(|_| batch.stored().next().is_some());
            let answer = match lost {
                Some(failure) => Err(failure.clone()),
                None => Ok(batch.envelopes.iter().map(|envelope| envelope.id).collect()),
            };
            unwoken.join(self.shared.announcer.answer(batch.reply, answer));
        }
        self.shared.announcer.wake(unwoken);
        if self.is_over_limit() {
            self.make_room();
        }
    }

    fn number(&self, pending: Vec<Pending>) -> Vec<Numbered> {
        let count = pending.iter().map(|waiting| waiting.batch.drafts.len()).sum();
        let now_ms = self.shared.clock.unix_ms();
        // Nobody else gives ids before this group is announced, so the rest needs no lock.
        let (mut before, created_ms) = self.shared.lock().counter.take(count, now_ms);
        let number_one = |waiting: Pending| Numbered {
            envelopes: number(&mut before, created_ms, waiting.batch.drafts),
            if_unstored: waiting.batch.if_unstored,
            reply: waiting.reply,
        };
        pending.into_iter().map(number_one).collect()
    }

    /// Writes what is to be stored of a group, and a counter if ids run short.
    fn store(&mut self, group: &[Numbered]) -> io::Result<Vec<Location>> {
        let (last, reserved, floor) = {
            let state = self.shared.lock();
            (state.counter.last, state.reserved, state.index.floor())
        };
        let reserve = last.seq() + RESERVE / 2 > reserved;
        if !reserve && group.iter().all(|batch| batch.stored().next().is_none()) {
            return Ok(Vec::new());
        }
        let reserved = MessageId::new(last.epoch(), last.seq() + RESERVE);
        let counter = CounterRecord { reserved, floor, clean: false };
        let outcome = self.write(group, reserve.then_some(counter));
        self.note(&outcome);
        outcome
    }

    /// Appends a counter, if one is due, and what is to be stored of a group.
    fn write(
        &mut self,
        group: &[Numbered],
        counter: Option<CounterRecord>,
    ) -> io::Result<Vec<Location>> {
        let Tail { file, length, .. } = self.tail()?;
        let (salt, segment, start) = (file.salt, file.number, *length);
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        if let Some(counter) = counter {
            salt.write_counter(&mut buffer, counter);
        }
        let mut locations = Vec::new();
        let mut fits = true;
        for envelope in group.iter().flat_map(Numbered::stored) {
            let offset = u32::try_from(start + buffer.len() as u64);
            fits &= offset.is_ok();
            let length = salt.write_message(&mut buffer, envelope);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            locations.push(Location { segment, offset: offset.unwrap_or(u32::MAX), length });
        }
        let written = if fits {
            self.append(&buffer, counter.is_some())
        } else {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "too much was published at once"))
        };
        self.keep_buffer(buffer);
        written?;
        if let Some(counter) = counter {
            self.noted(counter);
        }
        Ok(locations)
    }

    /// Indexes what was stored and announces what may be delivered, all in order. Those who hear of the
    /// last of it are to be woken yet.
    fn publish(&self, group: &[Numbered], outcome: &io::Result<Vec<Location>>) -> Unwoken {
        let shared = &*self.shared;
        let now_s = shared.clock.unix_s();
        let stored = group.iter().map(|batch| batch.stored().count() as u64).sum();
        let mut places = match outcome {
            Ok(locations) => locations.iter(),
            Err(_) => [].iter(),
        };
        let announced: Vec<Arc<Envelope>> = group
            .iter()
            .filter(|batch| {
                outcome.is_ok()
                    || batch.if_unstored == IfUnstored::Deliver
                    || batch.stored().next().is_none()
            })
            .flat_map(|batch| batch.envelopes.iter().cloned())
            .collect();
        shared
            .metrics
            .add(if outcome.is_ok() { Metric::Stored } else { Metric::NotStored }, stored);
        let mut unwoken = Unwoken::default();
        for slice in announced.chunks(ANNOUNCE_SLICE) {
            shared.announcer.wake(mem::take(&mut unwoken));
            let mut locked = shared.lock();
            let state = &mut *locked;
            for envelope in slice.iter().filter(|envelope| envelope.expiry.is_stored()) {
                let Some(location) = places.next() else { continue };
                state.index.insert(envelope, Place::Disk(*location), now_s);
                state.recent.push(Arc::clone(envelope));
            }
            unwoken = announce(&shared.announcer, &shared.metrics, &mut state.counter, slice);
        }
        let mut state = shared.lock();
        state.in_flight = false;
        state.reserve = match (outcome, state.reserve) {
            (Ok(_), Reserve::Wanted | Reserve::Failed) => Reserve::Enough,
            (Err(_), Reserve::Wanted) => Reserve::Failed,
            (_, reserve) => reserve,
        };
        self.show_tail(&mut state);
        unwoken
    }

    /// Logs a change between working and failing.
    fn note<T>(&mut self, outcome: &io::Result<T>) {
        match outcome {
            Err(error) if self.works => {
                self.works = false;
                error!(
                    error = %error,
                    directory = %self.shared.options.directory.display(),
                    "the history cannot be written; publishers are told, it is tried again"
                );
            }
            Ok(_) if !self.works => {
                self.works = true;
                info!("the history can be written again");
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Notes that a counter record is on disk.
    fn noted(&mut self, counter: CounterRecord) {
        self.floor_written = counter.floor;
        let mut state = self.shared.lock();
        state.reserved = state.reserved.max(counter.reserved.seq());
    }

    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES);
        self.buffer = buffer;
    }

    /// Bytes from which on a segment is full.
    fn full_bytes(&self) -> u64 {
        let shared = &self.shared;
        shared.options.segment_bytes.min(shared.bytes_max / 8).clamp(4096, SEGMENT_BYTES_MAX)
    }

    /// The segment to write to; a new one if there is none or it is full.
    fn tail(&mut self) -> io::Result<&mut Tail> {
        let full = self.full_bytes();
        if self.tail.as_ref().is_some_and(|tail| tail.length >= full) {
            self.leave_tail();
        }
        if self.tail.is_none() {
            self.roll()?;
        }
        self.tail.as_mut().ok_or_else(|| io::Error::other("no segment to write to"))
    }

    /// Begins a new segment; it starts with a counter record, so that older segments may go.
    fn roll(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.faults.before_write()?;
        let (last, floor) = {
            let state = shared.lock();
            (state.counter.last, state.index.floor())
        };
        let reserved = MessageId::new(last.epoch(), last.seq() + RESERVE);
        let counter = CounterRecord { reserved, floor, clean: false };
        let salt = Salt::random();
        let mut first = Vec::new();
        salt.write_counter(&mut first, counter);
        let number = self.next_number;
        self.next_number += 1;
        let (file, length) = segment::create(&shared.options.directory, number, salt, &first)?;
        let file = Arc::new(SegmentFile { number, file, salt });
        let segment = Segment { file: Arc::clone(&file), bytes: length, damaged: false };
        shared.lock().segments.insert(number, segment);
        let direct = self.direct(&file, length);
        let begun_s = shared.clock.unix_s();
        self.tail = Some(Tail { file, length, size: length, begun_s, direct });
        self.noted(counter);
        Ok(())
    }

    /// Ends the segment that is written to.
    fn leave_tail(&mut self) {
        if self.unsynced_since.is_some() {
            self.sync_now();
        }
        if let Some(tail) = self.tail.take()
            && let Err(error) = tail.file.file.set_len(tail.length)
        {
            warn!(error = %error, "the unused end of a history file could not be cut off");
        }
    }

    /// Appends to the tail and forces it to disk as configured; all or nothing.
    fn append(&mut self, bytes: &[u8], must_sync: bool) -> io::Result<()> {
        let Some(mut tail) = self.tail.take() else {
            return Err(io::Error::other("no segment to write to"));
        };
        match self.append_to(&mut tail, bytes, must_sync) {
            Ok(is_synced) => {
                tail.length += bytes.len() as u64;
                self.tail = Some(tail);
                let since = self.unsynced_since.unwrap_or_else(Instant::now);
                self.unsynced_since = (!is_synced).then_some(since);
                Ok(())
            }
            Err(Failed::Unwritten(error)) => {
                // Whatever is behind the last record must stay the file's end.
                if tail.file.file.set_len(tail.length).is_ok() {
                    tail.size = tail.length;
                    if tail.direct.is_some() {
                        tail.direct = self.direct(&tail.file, tail.length);
                    }
                    self.tail = Some(tail);
                }
                Err(error)
            }
            Err(Failed::Unsettled(error)) => {
                if let Err(error) = tail.file.file.set_len(tail.length) {
                    warn!(error = %error, "what was not stored could not be cut off");
                }
                self.unsynced_since = None;
                Err(error)
            }
        }
    }

    /// Writes behind what a segment has; whether it was forced to disk.
    fn append_to(&self, tail: &mut Tail, bytes: &[u8], must_sync: bool) -> Result<bool, Failed> {
        let shared = &*self.shared;
        let is_always = shared.options.sync == Sync::Always;
        let end = tail.length + bytes.len() as u64;
        let grows = end > tail.size;
        if grows {
            tail.size = end.next_multiple_of(ROOM_BYTES.min(self.full_bytes()));
            let grown = grow(&tail.file.file, tail.length, end, tail.size, is_always);
            grown.map_err(Failed::Unwritten)?;
        }
        shared.faults.before_write().map_err(Failed::Unwritten)?;
        let Some(direct) = &mut tail.direct else {
            tail.file.file.write_all_at(bytes, tail.length).map_err(Failed::Unwritten)?;
            if must_sync || is_always {
                self.sync_file(&tail.file).map_err(Failed::Unsettled)?;
            }
            return Ok(must_sync || is_always);
        };
        if grows {
            // What the file has grown by is settled once, not anew with every write into it.
            self.sync_file(&tail.file).map_err(Failed::Unsettled)?;
        }
        shared.faults.before_sync().map_err(Failed::Unsettled)?;
        direct.append(bytes, tail.length).map_err(Failed::of_direct)?;
        shared.metrics.increment(Metric::HistorySyncs);
        Ok(true)
    }

    /// The direct way to write to a segment of which `length` bytes are written, where every message is synced
    /// and the file system has one.
    fn direct(&self, file: &SegmentFile, length: u64) -> Option<Direct> {
        let path = segment::path(&self.shared.options.directory, file.number);
        (self.shared.options.sync == Sync::Always).then(|| Direct::open(&path, length)).flatten()
    }

    fn sync_file(&self, file: &SegmentFile) -> io::Result<()> {
        self.shared.faults.before_sync()?;
        file.file.sync_data()?;
        self.shared.metrics.increment(Metric::HistorySyncs);
        Ok(())
    }

    fn sync_if_due(&mut self) {
        if let (Sync::Interval(interval), Some(since)) =
            (self.shared.options.sync, self.unsynced_since)
            && since.elapsed() >= interval
        {
            self.sync_now();
        }
    }

    fn sync_now(&mut self) {
        self.unsynced_since = None;
        let Some(file) = self.tail.as_ref().map(|tail| Arc::clone(&tail.file)) else { return };
        let outcome = self.sync_file(&file);
        if outcome.is_err() {
            self.tail = None;
        }
        self.note(&outcome);
    }

    /// The regular housekeeping.
    fn maintain(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now_s = shared.clock.unix_s();
        let age_s = shared.options.segment_age.as_secs();
        let old = self.tail.as_ref().is_some_and(|tail| {
            now_s.saturating_sub(tail.begun_s) >= age_s
                && shared.lock().index.in_segment(tail.file.number).messages > 0
        });
        if old {
            self.leave_tail();
        }
        self.make_room();
    }

    /// Whether the files take more space than allowed.
    fn is_over_limit(&self) -> bool {
        self.shared.lock().file_bytes() > self.shared.bytes_max
    }

    /// Removes segments in which nothing lives. While the limit is exceeded: rewrites those in which
    /// little lives, or else lets the oldest messages go.
    fn make_room(&mut self) {
        let mut may_rewrite = true;
        while self.remove_dead() && self.is_over_limit() {
            let (sparse, closed) = self.sparse_segment();
            if let Some(number) = sparse.filter(|_| may_rewrite) {
                if let Err(error) = self.rewrite(number) {
                    warn!(error = %error, segment = number, "a history file could not be rewritten");
                    may_rewrite = false;
                }
                continue;
            }
            let now_s = self.shared.clock.unix_s();
            if closed == 0 || self.shared.lock().index.evict_oldest(EVICT_SLICE, now_s) == 0 {
                return;
            }
        }
    }

    /// A closed segment of which less than a quarter lives, and how many segments are closed.
    fn sparse_segment(&self) -> (Option<u32>, usize) {
        let state = self.shared.lock();
        let tail = self.tail.as_ref().map(|tail| tail.file.number);
        let newest = state.segments.keys().next_back().copied();
        let closed = || {
            let numbers = state.segments.keys().copied();
            numbers.filter(|number| Some(*number) != tail && Some(*number) != newest)
        };
        let sparse = closed().find(|number| {
            let size = state.segments.get(number).map_or(0, |segment| segment.bytes);
            let used = state.index.in_segment(*number);
            used.messages > 0 && used.bytes * 4 < size
        });
        (sparse, closed().count())
    }

    /// Removes the segments in which nothing lives, but never the newest: it has the counter.
    /// Returns whether all of them are gone.
    fn remove_dead(&mut self) -> bool {
        let dead = self.take_dead();
        if dead.is_empty() {
            return true;
        }
        if self.shared.lock().index.floor() > self.floor_written {
            // After a restart nothing else tells that messages were let go before their time.
            let outcome = self.write_counter(false);
            self.note(&outcome);
        }
        let directory = &self.shared.options.directory;
        let mut all = true;
        for (number, segment) in dead {
            let path = segment::path(directory, number);
            let outcome = if segment.damaged {
                fs::rename(&path, segment::damaged_path(directory, number))
            } else {
                fs::remove_file(&path)
            };
            match outcome {
                Ok(()) => self.shared.metrics.add(Metric::HistoryCompactedBytes, segment.bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(error = %error, path = %path.display(), "a history file could not be removed");
                    self.shared.lock().segments.insert(number, segment);
                    all = false;
                }
            }
        }
        if let Err(error) = segment::sync_directory(directory) {
            warn!(error = %error, "the history directory could not be synced");
        }
        self.shared.show(&self.shared.lock());
        all
    }

    /// Takes the segments in which nothing lives out of the state.
    fn take_dead(&self) -> Vec<(u32, Segment)> {
        let mut locked = self.shared.lock();
        let state = &mut *locked;
        let tail = self.tail.as_ref().map(|tail| tail.file.number);
        let newest = state.segments.keys().next_back().copied();
        let dead: Vec<u32> = state
            .segments
            .keys()
            .copied()
            .filter(|number| Some(*number) != tail && Some(*number) != newest)
            .filter(|number| state.index.in_segment(*number).messages == 0)
            .collect();
        dead.into_iter()
            .filter_map(|number| Some((number, state.segments.remove(&number)?)))
            .collect()
    }

    /// Copies what lives in a closed segment to the tail, so that nothing lives in it any more.
    fn rewrite(&mut self, number: u32) -> io::Result<()> {
        let Some(file) = self.shared.lock().segments.get(&number).map(|s| Arc::clone(&s.file))
        else {
            return Ok(());
        };
        let mut scan = Scan::new(&file.file, file.salt)?;
        let mut copied = Vec::new();
        let mut copied_bytes = 0;
        while let Some(found) = scan.next()? {
            let Found::Record(offset, bytes) = found else { continue };
            let Some(Record::Message(envelope)) = record::read(&bytes) else { continue };
            let offset = u32::try_from(offset).map_err(io::Error::other)?;
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let from = Location { segment: number, offset, length };
            if self.shared.lock().index.is_at(envelope.id, from) {
                copied_bytes += bytes.len();
                copied.push((envelope, from));
            }
            if copied_bytes >= COPY_BYTES {
                self.copy(&mem::take(&mut copied))?;
                copied_bytes = 0;
            }
        }
        self.copy(&copied)?;
        let mut state = self.shared.lock();
        let unreadable = state.index.forget_segment(number);
        if unreadable > 0 {
            if let Some(segment) = state.segments.get_mut(&number) {
                segment.damaged = true;
            }
            let path = segment::path(&self.shared.options.directory, number);
            error!(path = %path.display(), messages = unreadable, "messages in the history are damaged");
        }
        Ok(())
    }

    fn copy(&mut self, messages: &[(Box<Envelope>, Location)]) -> io::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let Tail { file, length, .. } = self.tail()?;
        let (salt, segment, start) = (file.salt, file.number, *length);
        let mut buffer = mem::take(&mut self.buffer);
        let mut moved = Vec::with_capacity(messages.len());
        for (envelope, from) in messages {
            let offset = u32::try_from(start + buffer.len() as u64).map_err(io::Error::other)?;
            let length = salt.write_message(&mut buffer, envelope);
            let length = u32::try_from(length).map_err(io::Error::other)?;
            moved.push((envelope.id, *from, Location { segment, offset, length }));
        }
        // The original goes right after: the copy must be on disk whatever is configured.
        let outcome = self.append(&buffer, true);
        self.keep_buffer(buffer);
        outcome?;
        let mut state = self.shared.lock();
        for (id, from, to) in moved {
            state.index.relocate(id, from, to);
        }
        self.show_tail(&mut state);
        Ok(())
    }

    /// Writes how far ids are given, on its own.
    fn write_counter(&mut self, clean: bool) -> io::Result<()> {
        let (last, floor) = {
            let state = self.shared.lock();
            (state.counter.last, state.index.floor())
        };
        let ahead = if clean { 0 } else { RESERVE };
        let reserved = MessageId::new(last.epoch(), last.seq() + ahead);
        let counter = CounterRecord { reserved, floor, clean };
        let salt = self.tail()?.file.salt;
        let mut bytes = Vec::new();
        salt.write_counter(&mut bytes, counter);
        self.append(&bytes, true)?;
        self.noted(counter);
        self.show_tail(&mut self.shared.lock());
        Ok(())
    }

    /// Brings the size of the tail, and the gauges, up to date.
    fn show_tail(&self, state: &mut State) {
        if let Some(tail) = &self.tail
            && let Some(segment) = state.segments.get_mut(&tail.file.number)
        {
            segment.bytes = tail.length;
        }
        self.shared.show(state);
    }

    /// The end in order: the next process goes on with the next id.
    fn end(&mut self) {
        let outcome = self.write_counter(true);
        self.note(&outcome);
        self.leave_tail();
    }
}
