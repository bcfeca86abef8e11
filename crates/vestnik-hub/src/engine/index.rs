//! What is kept, seen from memory: which messages live, where they are, which channels hold them.
//!
//! Knows neither files nor numbering. Both engines use it; the memory engine keeps the messages
//! themselves in it, the disk engine where they lie.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Envelope, Expiry, MessageId, Receiver};

use super::HistoryLimits;
use super::ascending::Ascending;

/// How many entries of channels there may be per message of the limit: most messages have one or
/// two receivers, and a flood of messages with a hundred must not take a hundred times the memory.
const ENTRIES_PER_MESSAGE: usize = 4;

/// How many idle channels are looked at for every new one when there are too many.
const FORGET_TRIES: usize = 4;

/// Where a message is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Here.
    Memory(Arc<Envelope>),
    /// In a file.
    Disk(Location),
}

/// A record in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Number of the segment.
    pub segment: u32,
    /// Bytes before the record.
    pub offset: u32,
    /// Bytes of the record, with its head.
    pub length: u32,
}

/// What lives in one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Living messages.
    pub messages: usize,
    /// Bytes of their records.
    pub bytes: u64,
}

/// A message that lives.
struct Message {
    expires_s: u32,
    /// Channels that still list it.
    holders: u32,
    place: Place,
    channels: Channels,
}

/// Numbers of the channels a message went to, without an allocation for the usual one or two.
enum Channels {
    One([u32; 1]),
    Two([u32; 2]),
    Many(Box<[u32]>),
}

impl Channels {
    fn new(numbers: Vec<u32>) -> Self {
        match numbers[..] {
            [one] => Self::One([one]),
            [one, two] => Self::Two([one, two]),
            _ => Self::Many(numbers.into()),
        }
    }

    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(numbers) => numbers,
            Self::Two(numbers) => numbers,
            Self::Many(numbers) => numbers,
        }
    }
}

/// What is known of one receiver.
struct Channel {
    receiver: Receiver,
    /// Its living messages, ascending.
    ids: VecDeque<MessageId>,
    /// Its newest stored message, living or not.
    newest: MessageId,
    /// The newest message that a limit removed before its time.
    removed: MessageId,
    /// When the entry may go: a day after the newest message.
    forget_s: u32,
    /// Its second in the queue of channels to look at.
    queued_s: u32,
}

/// Messages that expire in the same second.
#[derive(Default)]
struct Bucket {
    ids: Vec<MessageId>,
    /// How many of them were removed by a limit meanwhile.
    stale: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Removal {
    Expired,
    Evicted,
}

/// What [`Index::find`] found.
pub(super) struct Found {
    /// Ids and places, ascending, once each.
    pub messages: Vec<(MessageId, Place)>,
    /// Whether messages after the position may be missing.
    pub gap: bool,
    /// Whether there are newer ones beside these.
    pub more: bool,
}

impl Found {
    /// The oldest ones that have at most `bytes` together, or one alone. A record in a file counts whole.
    pub(super) fn within(mut self, bytes: usize) -> Self {
        let mut left = bytes;
        let fit = self.messages.iter().take_while(|(_, place)| {
            let size = match place {
                Place::Memory(envelope) => envelope.body.len(),
                Place::Disk(location) => location.length as usize,
            };
            left.checked_sub(size).inspect(|rest| left = *rest).is_some()
        });
        let kept = fit.count().max(1);
        self.more |= kept < self.messages.len();
        self.messages.truncate(kept);
        self
    }
}

/// All living messages of one engine.
pub(super) struct Index {
    limits: HistoryLimits,
    metrics: Arc<Metrics>,
    messages: Ascending<MessageId, Message>,
    numbers: HashMap<Receiver, u32>,
    channels: Vec<Option<Channel>>,
    unused: Vec<u32>,
    /// Where the search for idle channels goes on when there are too many.
    hand: usize,
    /// Second and number of every channel, once each: when to look whether it may be forgotten.
    forget: BTreeSet<(u32, u32)>,
    expiry: BTreeMap<u32, Bucket>,
    segments: BTreeMap<u32, Use>,
    /// Sum of the lengths of all channels' lists.
    entries: usize,
    /// Memory that messages held here take, roughly.
    memory_bytes: u64,
    /// Positions below it are from another store, or something was lost after them.
    floor: MessageId,
    /// Newest message that was removed by a limit over all channels.
    evicted: MessageId,
    /// Newest message removed by a limit from a channel that is forgotten.
    forgotten: MessageId,
}

impl Index {
    /// An empty index. Positions below `floor` are reported as gaps, except the very first one.
    pub(super) fn new(limits: HistoryLimits, metrics: Arc<Metrics>, floor: MessageId) -> Self {
        Self {
            limits,
            metrics,
            messages: Ascending::new(),
            numbers: HashMap::new(),
            channels: Vec::new(),
            unused: Vec::new(),
            hand: 0,
            forget: BTreeSet::new(),
            expiry: BTreeMap::new(),
            segments: BTreeMap::new(),
            entries: 0,
            memory_bytes: 0,
            floor,
            evicted: MessageId::ZERO,
            forgotten: MessageId::ZERO,
        }
    }

    /// Counts removals in `metrics` from now on.
    pub(super) fn count_in(&mut self, metrics: Arc<Metrics>) {
        self.metrics = metrics;
    }

    /// How many messages live, expired ones not yet swept included.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of the messages held in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many receivers have an entry.
    #[cfg(test)]
    pub(super) fn channel_count(&self) -> usize {
        self.numbers.len()
    }

    /// What lives in `segment`.
    pub(super) fn in_segment(&self, segment: u32) -> Use {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    /// The newest position that may have lost something once the store is opened again.
    pub(super) fn floor(&self) -> MessageId {
        self.floor.max(self.evicted)
    }

    /// Raises the floor.
    pub(super) fn raise_floor(&mut self, floor: MessageId) {
        self.floor = self.floor.max(floor);
    }

    /// Adds a message; older ones leave where limits say so. Ids usually ascend, but need not.
    /// Returns whether it was added: a message known already is left where it is.
    pub(super) fn insert(&mut self, envelope: &Envelope, place: Place, now_s: u64) -> bool {
        if envelope.receivers.is_empty() || self.messages.contains(envelope.id) {
            return false;
        }
        let expires_s = second(envelope.expires_s());
        let numbers = self.channel_numbers(envelope);
        let holders = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        match &place {
            Place::Memory(kept) => self.memory_bytes += memory_bytes(kept),
            Place::Disk(location) => {
                let used = self.segments.entry(location.segment).or_default();
                used.messages += 1;
                used.bytes += u64::from(location.length);
            }
        }
        self.expiry.entry(expires_s).or_default().ids.push(envelope.id);
        self.entries += numbers.len();
        let channels = Channels::new(numbers.clone());
        self.messages.insert(envelope.id, Message { expires_s, holders, place, channels });
        for number in numbers {
            if let Some(channel) = self.channels[number as usize].as_mut() {
                insert_sorted(&mut channel.ids, envelope.id);
            }
            self.trim_channel(number, now_s);
        }
        self.trim_all(now_s);
        true
    }

    /// Notes that a message was stored for these receivers, though it does not live any more.
    pub(super) fn note(&mut self, envelope: &Envelope, now_s: u64) {
        if envelope.created_s() + u64::from(Expiry::MAX.seconds()) > now_s {
            self.channel_numbers(envelope);
        }
    }

    /// Finds the unexpired messages of `receivers` after a position; at most the newest
    /// `replay_messages`. `announced` is the newest id that was announced.
    pub(super) fn find(
        &self,
        receivers: &[Receiver],
        after: MessageId,
        announced: MessageId,
        now_s: u64,
    ) -> Found {
        let mut found = Found { messages: Vec::new(), gap: after > announced, more: false };
        if found.gap {
            return found;
        }
        found.gap = after != MessageId::ZERO && after < self.floor;
        // The channels' lists are merged from their newest ends: work for what is returned only.
        let (mut lists, mut newest) = (Vec::new(), BinaryHeap::new());
        for receiver in receivers.iter().collect::<HashSet<_>>() {
            let Some(channel) = self.channel(*receiver) else {
                found.gap |= self.forgotten > after;
                continue;
            };
            found.gap |= channel.removed > after;
            let news = channel.ids.iter().rev().copied().take_while(|id| *id > after);
            let mut news = news.filter(|id| self.lives(*id, now_s));
            newest.extend(news.next().map(|id| (id, lists.len())));
            lists.push(news);
        }
        let mut ids = Vec::new();
        while let Some((id, list)) = newest.pop() {
            newest.extend(lists[list].next().map(|next| (next, list)));
            if ids.last() == Some(&id) {
                continue;
            }
            if ids.len() == self.limits.replay_messages {
                found.gap = true;
                break;
            }
            ids.push(id);
        }
        found.messages = ids
            .into_iter()
            .rev()
            .filter_map(|id| self.messages.get(id).map(|message| (id, message.place.clone())))
            .collect();
        found
    }

    /// The newest stored message over `receivers`, living or not.
    pub(super) fn newest(&self, receivers: &[Receiver]) -> Option<MessageId> {
        receivers.iter().filter_map(|to| self.channel(*to)).map(|channel| channel.newest).max()
    }

    /// Removes expired messages and forgotten channels, at most about `budget` of them. Returns
    /// whether more is left to do.
    pub(super) fn sweep(&mut self, now_s: u64, mut budget: usize) -> bool {
        let now = second(now_s);
        while let Some(mut entry) = self.expiry.first_entry() {
            if *entry.key() > now {
                break;
            }
            if budget == 0 {
                return true;
            }
            budget -= 1;
            let bucket = entry.get_mut();
            match bucket.ids.pop() {
                Some(id) if self.messages.contains(id) => self.remove(id, Removal::Expired),
                Some(_) => bucket.stale = bucket.stale.saturating_sub(1),
                None => drop(entry.remove()),
            }
        }
        while let Some((when, number)) = self.forget.first().copied() {
            if when > now {
                break;
            }
            if budget == 0 {
                return true;
            }
            budget -= 1;
            self.forget.pop_first();
            let Some(channel) = self.channels[number as usize].as_mut() else { continue };
            if channel.ids.is_empty() && channel.forget_s <= now {
                self.forget_channel(number);
            } else {
                channel.queued_s = channel.forget_s.max(now + 1);
                self.forget.insert((channel.queued_s, number));
            }
        }
        false
    }

    /// Removes up to `count` of the oldest messages for lack of space. Returns how many there were.
    pub(super) fn evict_oldest(&mut self, count: usize, now_s: u64) -> usize {
        (0..count).take_while(|_| self.evict_first(now_s)).count()
    }

    /// Whether the living message `id` is at `location`.
    pub(super) fn is_at(&self, id: MessageId, location: Location) -> bool {
        matches!(self.messages.get(id), Some(Message { place: Place::Disk(at), .. }) if *at == location)
    }

    /// Notes that a message moved, if it still lives at `from`.
    pub(super) fn relocate(&mut self, id: MessageId, from: Location, to: Location) {
        let Some(Message { place: Place::Disk(at), .. }) = self.messages.get_mut(id) else {
            return;
        };
        if *at == from {
            *at = to;
            self.leave_segment(from);
            let used = self.segments.entry(to.segment).or_default();
            used.messages += 1;
            used.bytes += u64::from(to.length);
        }
    }

    /// Drops what still lives in a segment, because it cannot be read. Returns how many there were.
    pub(super) fn forget_segment(&mut self, segment: u32) -> usize {
        if self.in_segment(segment).messages == 0 {
            return 0;
        }
        let lost: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, message)| {
                matches!(&message.place, Place::Disk(location) if location.segment == segment)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &lost {
            self.mark_stale(*id);
            self.remove(*id, Removal::Evicted);
        }
        lost.len()
    }

    fn lives(&self, id: MessageId, now_s: u64) -> bool {
        self.messages.get(id).is_some_and(|message| u64::from(message.expires_s) > now_s)
    }

    fn channel(&self, receiver: Receiver) -> Option<&Channel> {
        self.channels[*self.numbers.get(&receiver)? as usize].as_ref()
    }

    /// The channels of a message, once each, made where they are missing; it becomes their newest.
    fn channel_numbers(&mut self, envelope: &Envelope) -> Vec<u32> {
        let forget_s = second(envelope.created_s() + u64::from(Expiry::MAX.seconds()));
        let mut numbers = Vec::with_capacity(envelope.receivers.len());
        for receiver in &envelope.receivers {
            let number = match self.numbers.get(receiver) {
                Some(number) => *number,
                None => self.add_channel(*receiver, forget_s, &numbers),
            };
            if let Some(channel) = self.channels[number as usize].as_mut() {
                channel.newest = channel.newest.max(envelope.id);
                channel.forget_s = channel.forget_s.max(forget_s);
            }
            numbers.push(number);
        }
        if numbers.len() > 1 {
            numbers.sort_unstable();
            numbers.dedup();
        }
        numbers
    }

    /// Makes an entry for `receiver`. `busy` are numbers about to be used, which must stay.
    fn add_channel(&mut self, receiver: Receiver, forget_s: u32, busy: &[u32]) -> u32 {
        for _ in 0..FORGET_TRIES {
            if self.numbers.len() < self.limits.messages.max(1) {
                break;
            }
            self.hand = if self.hand + 1 < self.channels.len() { self.hand + 1 } else { 0 };
            let number = u32::try_from(self.hand).unwrap_or(u32::MAX);
            let Some(channel) = self.channels.get(self.hand).and_then(Option::as_ref) else {
                continue;
            };
            if channel.ids.is_empty() && !busy.contains(&number) {
                self.forget.remove(&(channel.queued_s, number));
                self.forget_channel(number);
            }
        }
        let channel = Channel {
            receiver,
            ids: VecDeque::new(),
            newest: MessageId::ZERO,
            removed: MessageId::ZERO,
            forget_s,
            queued_s: forget_s,
        };
        let number = if let Some(number) = self.unused.pop() {
            self.channels[number as usize] = Some(channel);
            number
        } else {
            self.channels.push(Some(channel));
            u32::try_from(self.channels.len() - 1).unwrap_or(u32::MAX)
        };
        self.numbers.insert(receiver, number);
        self.forget.insert((forget_s, number));
        number
    }

    /// Drops an entry that is out of the queue of entries to forget.
    fn forget_channel(&mut self, number: u32) {
        if let Some(channel) = self.channels[number as usize].take() {
            self.numbers.remove(&channel.receiver);
            self.forgotten = self.forgotten.max(channel.removed);
            self.unused.push(number);
        }
        if self.numbers.is_empty() {
            // Nothing refers to a number now: give the memory of a busy day back.
            self.numbers = HashMap::new();
            self.channels = Vec::new();
            self.unused = Vec::new();
        }
    }

    fn trim_channel(&mut self, number: u32, now_s: u64) {
        while let Some(channel) = self.channels[number as usize].as_mut() {
            if channel.ids.len() <= self.limits.messages_per_channel {
                return;
            }
            let Some(id) = channel.ids.pop_front() else { return };
            self.entries -= 1;
            let Some(message) = self.messages.get_mut(id) else { continue };
            message.holders -= 1;
            let (holders, expired) = (message.holders, u64::from(message.expires_s) <= now_s);
            if !expired {
                channel.removed = channel.removed.max(id);
            }
            if holders == 0 {
                self.mark_stale(id);
                self.remove(id, if expired { Removal::Expired } else { Removal::Evicted });
            }
        }
    }

    fn trim_all(&mut self, now_s: u64) {
        while self.messages.len() > self.limits.messages
            || self.entries > self.limits.messages.saturating_mul(ENTRIES_PER_MESSAGE)
            || self.memory_bytes > self.limits.bytes
        {
            if !self.evict_first(now_s) {
                return;
            }
        }
    }

    fn evict_first(&mut self, now_s: u64) -> bool {
        let Some((id, message)) = self.messages.first() else { return false };
        let (id, expired) = (*id, u64::from(message.expires_s) <= now_s);
        self.mark_stale(id);
        if !expired {
            self.evicted = self.evicted.max(id);
        }
        self.remove(id, if expired { Removal::Expired } else { Removal::Evicted });
        true
    }

    /// Notes that the expiry bucket of a living message is about to hold a dead id.
    fn mark_stale(&mut self, id: MessageId) {
        let Some(message) = self.messages.get(id) else { return };
        let expires_s = message.expires_s;
        let Some(bucket) = self.expiry.get_mut(&expires_s) else { return };
        bucket.stale += 1;
        if bucket.stale == bucket.ids.len() {
            self.expiry.remove(&expires_s);
        } else if bucket.stale > bucket.ids.len() / 2 + 32 {
            bucket.ids.retain(|kept| *kept != id && self.messages.contains(*kept));
            bucket.ids.shrink_to_fit();
            bucket.stale = 0;
        }
    }

    /// Removes a message from everything but its expiry bucket.
    fn remove(&mut self, id: MessageId, why: Removal) {
        let Some(message) = self.messages.remove(id) else { return };
        for number in message.channels.as_slice() {
            let Some(channel) = self.channels[*number as usize].as_mut() else { continue };
            if let Ok(position) = channel.ids.binary_search(&id) {
                channel.ids.remove(position);
                self.entries -= 1;
                if why == Removal::Evicted {
                    channel.removed = channel.removed.max(id);
                }
            }
            if channel.ids.capacity() > 8 && channel.ids.len() < channel.ids.capacity() / 4 {
                channel.ids.shrink_to(channel.ids.len() * 2);
            }
        }
        match message.place {
            Place::Memory(kept) => self.memory_bytes -= memory_bytes(&kept),
            Place::Disk(location) => self.leave_segment(location),
        }
        self.metrics.increment(match why {
            Removal::Expired => Metric::HistoryExpired,
            Removal::Evicted => Metric::HistoryEvicted,
        });
    }

    fn leave_segment(&mut self, location: Location) {
        if let Some(used) = self.segments.get_mut(&location.segment) {
            used.messages -= 1;
            used.bytes -= u64::from(location.length);
            if used.messages == 0 {
                self.segments.remove(&location.segment);
            }
        }
    }
}

/// Inserts an id that is not there yet; at the end unless recovery found it late.
fn insert_sorted(ids: &mut VecDeque<MessageId>, id: MessageId) {
    if ids.back().is_none_or(|last| *last < id) {
        ids.push_back(id);
    } else if let Err(position) = ids.binary_search(&id) {
        ids.insert(position, id);
    }
}

/// Seconds since 1970 in four bytes, which last until 2106.
fn second(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX - 1)
}

/// Memory a message takes, roughly: body, receivers, the structures around them and their entries.
pub(super) fn memory_bytes(envelope: &Envelope) -> u64 {
    let receivers = envelope.receivers.len() * 48;
    let additions = envelope.additions.iter().len() * 64;
    u64::try_from(envelope.body_bytes() + receivers + additions + 384).unwrap_or(u64::MAX)
}
