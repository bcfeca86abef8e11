//! The subscribers of one thread: who listens to what, and what waits for whom.
//!
//! A shard belongs to one thread and takes no lock on the way of a delivery. It does not know what a
//! connection is: `C` is the transport's business, which is asked to write by the server's loop.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use slab::Slab;
use vestnik_core::{Envelope, MessageId, Receiver};

use crate::announce::{Announced, Announcer, ShardNumber};
use crate::outbox::{self, Item, Outbox, OutboxLimits, SpareQueues};

/// Names one subscriber of a shard. A key of a subscriber that left names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriberKey {
    index: u32,
    serial: u64,
}

impl SubscriberKey {
    /// Its place in the shard; used again after it left.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Grows with every subscriber of every shard: the smaller one came earlier.
    #[must_use]
    pub const fn serial(self) -> u64 {
        self.serial
    }
}

/// What happens to live messages of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its history is being read: live messages wait behind it.
    Replaying,
    /// Messages go out as they come.
    Live,
    /// It gets no more messages: it is being closed, or a poll between two requests.
    Deaf,
}

/// A receiver that a subscriber listens to, and its place among the receiver's members.
struct Listening {
    receiver: Receiver,
    position: u32,
}

/// One connection and what the shard knows of it.
pub struct Subscriber<C> {
    /// The transport's part.
    pub connection: C,
    /// What waits for it.
    pub outbox: Outbox,
    /// When it came, unix seconds; whoever subscribes it says so.
    pub came_s: u32,
    listening: Box<[Listening]>,
    serial: u64,
    /// The newest message queued for it, or its position when it came.
    last: MessageId,
    counted: Option<Receiver>,
    phase: Phase,
    dirty: bool,
}

impl<C> Subscriber<C> {
    /// The channels it listens to.
    pub fn receivers(&self) -> impl Iterator<Item = Receiver> + '_ {
        self.listening.iter().map(|listening| listening.receiver)
    }

    /// Whether messages go out to it as they come: its history was read, and it was not deafened.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether its history was not read yet: [`Shard::replay`] would be heard.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.phase == Phase::Replaying
    }

    fn deafen(&mut self) {
        if self.phase == Phase::Replaying
            && let Some(queue) = self.outbox.queue()
        {
            queue.drop_messages();
        }
        self.phase = Phase::Deaf;
    }
}

/// Who listens to one receiver. Nearly always one.
enum Members {
    One(u32),
    Many(Vec<u32>),
}

/// The subscribers of one thread.
pub struct Shard<C> {
    number: ShardNumber,
    announcer: Arc<Announcer>,
    limits: OutboxLimits,
    subscribers: Slab<Subscriber<C>>,
    members: HashMap<Receiver, Members>,
    /// Who is to be written to, in the order in which it became so.
    dirty: VecDeque<SubscriberKey>,
    slow: Vec<SubscriberKey>,
    /// Announced messages that are not queued for anybody yet.
    taken: VecDeque<Announced>,
    round: Round,
    /// The inbox was not looked into at the last call of [`Shard::deliver_announced`].
    inbox_unseen: bool,
    spare: SpareQueues,
}

/// Messages that were queued for their subscribers, and what they are made of.
#[derive(Clone, Copy, Default)]
struct Load {
    messages: usize,
    bytes: usize,
    work: usize,
    /// When the first of them was queued.
    since: Option<Instant>,
}

impl Load {
    fn add(&mut self, bytes: usize, work: usize) {
        if self.messages == 0 {
            self.since = Some(Instant::now());
        }
        self.messages += 1;
        self.bytes += bytes;
        self.work += work;
    }
}

/// One time around the dirty list: everybody who is on it at the start is written to once.
///
/// Messages join at any time, so whoever is written to gets everything that came since the last round
/// in one write. What joins late has reached everybody at the end of the next round.
#[derive(Default)]
struct Round {
    /// Subscribers at the head of the dirty list whose turn in this round is still to come.
    unwritten: usize,
    /// What everybody has at the end of this round.
    first: Load,
    /// What everybody has at the end of the next one.
    joined: Load,
    /// Somebody's outbox may be nearly full: nothing joins until it was written to.
    is_closed: bool,
}

impl Round {
    /// Deliveries that are queued at a time: that takes some milliseconds, and nothing else happens
    /// meanwhile.
    const WORK_MAX: usize = 32_768;
    const MESSAGES_MAX: usize = 512;

    /// Whether a message that costs `bytes` may join. What a subscriber is given between two writes is of two
    /// rounds at most, and that is limited to half of what an outbox takes; a single message always
    /// fits.
    fn has_room(&self, bytes: usize, limits: OutboxLimits) -> bool {
        let messages = self.first.messages + self.joined.messages;
        let messages_max = (limits.messages / 2).clamp(1, Self::MESSAGES_MAX);
        let bytes = self.first.bytes + self.joined.bytes + bytes;
        !self.is_closed && (messages == 0 || (messages < messages_max && bytes <= limits.bytes / 2))
    }
}

/// Room for messages that a shard keeps for the next burst.
const TAKEN_KEPT: usize = 4096;

impl<C> Shard<C> {
    /// An empty shard.
    #[must_use]
    pub fn new(number: ShardNumber, announcer: Arc<Announcer>, limits: OutboxLimits) -> Self {
        Self {
            number,
            announcer,
            limits,
            subscribers: Slab::new(),
            members: HashMap::new(),
            dirty: VecDeque::new(),
            slow: Vec::new(),
            taken: VecDeque::new(),
            round: Round::default(),
            inbox_unseen: false,
            spare: SpareQueues::default(),
        }
    }

    /// Changes what may wait for a subscriber. What waits already stays.
    pub fn set_limits(&mut self, limits: OutboxLimits) {
        self.limits = limits;
    }

    /// Gives back memory that deliveries lately did not need. To be called once in a while.
    pub fn thin_out(&mut self) {
        self.spare.thin_out();
    }

    /// Registers a subscriber. From now on live messages wait for it; they go out after
    /// [`Shard::replay`] was called. `receivers` must not repeat. `counted`: the one of them whose
    /// connections are limited.
    ///
    /// Returns its key and how many connections the counted receiver has now, on all shards.
    pub fn subscribe(
        &mut self,
        receivers: &[Receiver],
        counted: Option<Receiver>,
        connection: C,
    ) -> (SubscriberKey, u32) {
        let serial = self.announcer.next_serial();
        let entry = self.subscribers.vacant_entry();
        let index = u32::try_from(entry.key()).expect("a process has fewer than 2^32 connections");
        let listening = receivers
            .iter()
            .map(|&receiver| {
                self.announcer.listen(self.number, receiver);
                let position = match self.members.entry(receiver) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(Members::One(index));
                        0
                    }
                    Entry::Occupied(mut occupied) => join(occupied.get_mut(), index),
                };
                Listening { receiver, position }
            })
            .collect();
        let count = counted.map_or(0, |receiver| self.announcer.count_in(receiver));
        entry.insert(Subscriber {
            connection,
            outbox: Outbox::default(),
            came_s: 0,
            listening,
            serial,
            last: MessageId::ZERO,
            counted,
            phase: Phase::Replaying,
            dirty: false,
        });
        (SubscriberKey { index, serial }, count)
    }

    /// The receivers with the most subscribers here, `count` at most.
    #[must_use]
    pub fn most_listened(&self, count: usize) -> Vec<(Receiver, usize)> {
        let mut most: Vec<(Receiver, usize)> = Vec::new();
        let mut least = 0;
        for (receiver, members) in &self.members {
            let listeners = match members {
                Members::One(_) => 1,
                Members::Many(indexes) => indexes.len(),
            };
            if most.len() == count && listeners <= least {
                continue;
            }
            most.push((*receiver, listeners));
            if most.len() >= 2 * count.max(1) {
                most.sort_unstable_by_key(|it| Reverse(it.1));
                most.truncate(count);
                least = most.last().map_or(0, |it| it.1);
            }
        }
        most.sort_unstable_by_key(|it| Reverse(it.1));
        most.truncate(count);
        most
    }

    /// Makes a subscriber listen to one more receiver, from now on. Returns whether it did not yet.
    pub fn listen(&mut self, key: SubscriberKey, receiver: Receiver) -> bool {
        let Some(subscriber) = self.get(key) else { return false };
        if subscriber.receivers().any(|known| known == receiver) {
            return false;
        }
        self.announcer.listen(self.number, receiver);
        let position = match self.members.entry(receiver) {
            Entry::Vacant(vacant) => {
                vacant.insert(Members::One(key.index));
                0
            }
            Entry::Occupied(mut occupied) => join(occupied.get_mut(), key.index),
        };
        let subscriber = &mut self.subscribers[key.index()];
        let mut listening = std::mem::take(&mut subscriber.listening).into_vec();
        listening.push(Listening { receiver, position });
        subscriber.listening = listening.into();
        true
    }

    /// Makes a subscriber stop listening to a receiver. Returns whether it did listen.
    pub fn unlisten(&mut self, key: SubscriberKey, receiver: Receiver) -> bool {
        let Some(subscriber) = self.get(key) else { return false };
        let mut listening = std::mem::take(&mut subscriber.listening).into_vec();
        let at = listening.iter().position(|listening| listening.receiver == receiver);
        let left = at.map(|at| listening.swap_remove(at));
        subscriber.listening = listening.into();
        if let Some(left) = &left {
            self.leave(left);
        }
        left.is_some()
    }

    /// Gives a registered subscriber what it missed and opens the way for live messages.
    ///
    /// `seen`: its own position; nothing up to it is sent again.
    pub fn replay(&mut self, key: SubscriberKey, replayed: Vec<Arc<Envelope>>, seen: MessageId) {
        let Some(subscriber) = self.subscribers.get_mut(key.index()) else { return };
        if subscriber.serial != key.serial || subscriber.phase != Phase::Replaying {
            return;
        }
        let newest = replayed.last().map_or(MessageId::ZERO, |envelope| envelope.id);
        subscriber.last = subscriber.last.max(newest).max(seen);
        subscriber.phase = Phase::Live;
        subscriber.outbox.put_before(replayed, seen, &mut self.spare);
        self.touch(key);
        // What waited behind the history may nearly fill its outbox.
        self.close_round();
    }

    /// Gives a registered subscriber the beginning of what it missed, and nothing after that: what waits for
    /// it comes after messages that were left out. It is to come back for the rest.
    ///
    /// `seen`: its own position, as for [`Shard::replay`].
    pub fn replay_part(&mut self, key: SubscriberKey, part: Vec<Arc<Envelope>>, seen: MessageId) {
        let Some(subscriber) = self.subscribers.get_mut(key.index()) else { return };
        if subscriber.serial != key.serial || subscriber.phase != Phase::Replaying {
            return;
        }
        subscriber.deafen();
        subscriber.outbox.put_before(part, seen, &mut self.spare);
        self.touch(key);
    }

    /// Queues announced messages for the subscribers they are for, to be written to with
    /// [`Shard::next_dirty`].
    ///
    /// Nobody is given more than half of what an outbox takes without being written to: an outbox runs
    /// full because its peer does not read, never because messages came faster than this thread could
    /// write them.
    ///
    /// Answers for those who publish on this thread are handed to them on the way.
    pub fn deliver_announced(&mut self) {
        self.announcer.hand_answers(self.number);
        self.inbox_unseen = true;
        let mut work = 0;
        while work < Round::WORK_MAX && !self.round.is_closed {
            if self.taken.is_empty() && std::mem::take(&mut self.inbox_unseen) {
                // A burst must not pin its memory for ever.
                self.taken.shrink_to(TAKEN_KEPT);
                self.announcer.take(self.number, &mut self.taken);
            }
            let Some(next) = self.taken.front() else { break };
            let bytes = outbox::cost(&next.envelope.body);
            if !self.round.has_room(bytes, self.limits) {
                break;
            }
            let Some(Announced { envelope, work: deliveries }) = self.taken.pop_front() else {
                break;
            };
            let deliveries = deliveries as usize;
            work += deliveries;
            let is_first = self.round.unwritten == self.dirty.len();
            self.deliver(&envelope);
            if is_first {
                // Nobody had a turn yet, so the round begins with this message.
                self.round.first.add(bytes, deliveries);
                self.round.unwritten = self.dirty.len();
            } else {
                self.round.joined.add(bytes, deliveries);
            }
        }
        self.settle();
    }

    /// Ends a round that is written, begins the next one, and says what has arrived, so that publishers
    /// may go on.
    fn settle(&mut self) {
        while self.round.unwritten == 0 {
            let arrived = std::mem::take(&mut self.round.first);
            if arrived.messages > 0 {
                if let Some(since) = arrived.since {
                    self.announcer.latency().record(since.elapsed(), arrived.messages as u64);
                }
                self.announcer.delivered(self.number, arrived.messages, arrived.work);
            }
            self.round.first = std::mem::take(&mut self.round.joined);
            self.round.unwritten = self.dirty.len();
            self.round.is_closed = false;
            if self.round.first.messages == 0 {
                break;
            }
        }
    }

    /// Lets nothing join until everybody on the dirty list was written to.
    fn close_round(&mut self) {
        self.round.unwritten = self.dirty.len();
        self.round.is_closed = self.round.unwritten > 0;
    }

    /// Queues one message for every subscriber of its receivers, once each.
    fn deliver(&mut self, envelope: &Arc<Envelope>) {
        for receiver in &envelope.receivers {
            let Some(members) = self.members.get(receiver) else { continue };
            let indexes = match members {
                Members::One(index) => std::slice::from_ref(index),
                Members::Many(indexes) => indexes,
            };
            for &index in indexes {
                let Some(subscriber) = self.subscribers.get_mut(index as usize) else { continue };
                if subscriber.phase == Phase::Deaf || envelope.id <= subscriber.last {
                    continue;
                }
                let key = SubscriberKey { index, serial: subscriber.serial };
                if subscriber.outbox.push_live(envelope, self.limits, &mut self.spare) {
                    subscriber.last = envelope.id;
                    if subscriber.phase == Phase::Live && !subscriber.dirty {
                        subscriber.dirty = true;
                        self.dirty.push_back(key);
                    }
                } else {
                    subscriber.deafen();
                    self.slow.push(key);
                }
            }
        }
    }

    /// Queues ready bytes of the transport for one subscriber, behind what waits. A subscriber that
    /// takes none of them becomes a slow one.
    pub fn send(&mut self, key: SubscriberKey, frame: Bytes) {
        let (limits, spare) = (self.limits, &mut self.spare);
        let Some(subscriber) = self.subscribers.get_mut(key.index()) else { return };
        if subscriber.serial != key.serial {
            return;
        }
        if subscriber.outbox.push_frame(frame, limits, spare) {
            self.touch(key);
        } else if subscriber.phase != Phase::Deaf {
            subscriber.deafen();
            self.slow.push(key);
        }
    }

    /// Puts a subscriber on the list of those to write to, unless its history is still being read.
    pub fn touch(&mut self, key: SubscriberKey) {
        if let Some(subscriber) = self.subscribers.get_mut(key.index())
            && subscriber.serial == key.serial
            && subscriber.phase != Phase::Replaying
            && !subscriber.dirty
        {
            subscriber.dirty = true;
            self.dirty.push_back(key);
        }
    }

    /// Puts a subscriber back on the list, although its socket takes more: others have their turn
    /// first. New messages wait for it too, so that its outbox does not run full meanwhile; but not for
    /// a replay, which may be long.
    pub fn write_on(&mut self, key: SubscriberKey) {
        self.touch(key);
        let next = self.get(key).and_then(|subscriber| subscriber.outbox.queue()?.peek());
        if matches!(next, Some(Item::Live(_))) {
            self.close_round();
        }
    }

    /// Stops messages for a subscriber. What waits still goes out, unless its history is still being
    /// read: then the messages that wait come after ones it never got, and are dropped.
    pub fn deafen(&mut self, key: SubscriberKey) {
        if let Some(subscriber) = self.get(key) {
            subscriber.deafen();
        }
    }

    /// Takes the next subscriber that something waits for. The caller writes and, when the socket
    /// takes no more, calls [`Shard::touch`] once it does again.
    pub fn next_dirty(&mut self) -> Option<SubscriberKey> {
        while let Some(key) = self.dirty.pop_front() {
            self.round.unwritten = self.round.unwritten.saturating_sub(1);
            self.settle();
            if let Some(subscriber) = self.get(key) {
                subscriber.dirty = false;
                return Some(key);
            }
        }
        None
    }

    /// Whether there is something to deliver or to write that nothing else will tell of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.taken.is_empty() || self.inbox_unseen
    }

    /// Whether everything that was announced before the last call of [`Shard::deliver_announced`] is
    /// queued for its subscribers.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.taken.is_empty() && !self.inbox_unseen
    }

    /// Takes a subscriber whose outbox ran full; it hears nothing more and should be closed.
    pub fn next_slow(&mut self) -> Option<SubscriberKey> {
        self.slow.pop()
    }

    /// The subscriber named by `key`, if it is still there.
    pub fn get(&mut self, key: SubscriberKey) -> Option<&mut Subscriber<C>> {
        self.subscribers.get_mut(key.index()).filter(|subscriber| subscriber.serial == key.serial)
    }

    /// The key of who is at `index` now.
    #[must_use]
    pub fn key_at(&self, index: usize) -> Option<SubscriberKey> {
        let serial = self.subscribers.get(index)?.serial;
        Some(SubscriberKey { index: u32::try_from(index).ok()?, serial })
    }

    /// Keys of all subscribers, in no order.
    pub fn keys(&self) -> impl Iterator<Item = SubscriberKey> + '_ {
        self.subscribers.iter().filter_map(|(index, subscriber)| {
            Some(SubscriberKey { index: u32::try_from(index).ok()?, serial: subscriber.serial })
        })
    }

    /// The earliest of the connections that count against the limit of `receiver`, here.
    #[must_use]
    pub fn earliest_counted(&self, receiver: Receiver) -> Option<SubscriberKey> {
        let indexes = match self.members.get(&receiver)? {
            Members::One(index) => std::slice::from_ref(index),
            Members::Many(indexes) => indexes,
        };
        indexes
            .iter()
            .filter_map(|&index| {
                let subscriber = self.subscribers.get(index as usize)?;
                (subscriber.counted == Some(receiver))
                    .then_some(SubscriberKey { index, serial: subscriber.serial })
            })
            .min_by_key(|key| key.serial)
    }

    /// Takes a subscriber out of the count of its channel, so that the limit no longer sees it.
    /// Returns whether it was counted.
    pub fn uncount(&mut self, key: SubscriberKey) -> bool {
        let counted = self.get(key).and_then(|subscriber| subscriber.counted.take());
        if let Some(receiver) = counted {
            self.announcer.count_out(receiver);
        }
        counted.is_some()
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether there is no subscriber.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Gives back the queue of a subscriber that was written out.
    pub fn release(&mut self, key: SubscriberKey) {
        if let Some(subscriber) = self.subscribers.get_mut(key.index()) {
            subscriber.outbox.release_if_empty(&mut self.spare);
        }
    }

    /// Takes a subscriber out; what waited for it is returned with it.
    pub fn unsubscribe(&mut self, key: SubscriberKey) -> Option<Subscriber<C>> {
        self.get(key)?;
        self.uncount(key);
        let subscriber = self.subscribers.remove(key.index());
        for listening in &subscriber.listening {
            self.leave(listening);
        }
        Some(subscriber)
    }

    /// Removes one membership by swapping the last one into its place.
    fn leave(&mut self, left: &Listening) {
        let Entry::Occupied(mut entry) = self.members.entry(left.receiver) else { return };
        let Members::Many(indexes) = entry.get_mut() else {
            entry.remove();
            self.announcer.leave(self.number, left.receiver, 0);
            return;
        };
        let position = left.position as usize;
        indexes.swap_remove(position);
        self.announcer.leave(self.number, left.receiver, indexes.len());
        let moved = indexes.get(position).copied();
        if let [only] = indexes[..] {
            *entry.get_mut() = Members::One(only);
        }
        let moved = moved.and_then(|index| self.subscribers.get_mut(index as usize));
        if let Some(moved) = moved {
            let listening =
                moved.listening.iter_mut().find(|listening| listening.receiver == left.receiver);
            if let Some(listening) = listening {
                listening.position = left.position;
            }
        }
    }
}

impl<C> Drop for Shard<C> {
    /// However the thread ended: publishers must not wait for it, and its channels are offline.
    fn drop(&mut self) {
        for key in self.keys().collect::<Vec<_>>() {
            self.unsubscribe(key);
        }
        let taken_work: usize = self.taken.iter().map(|announced| announced.work as usize).sum();
        let Round { first, joined, .. } = &self.round;
        let messages = self.taken.len() + first.messages + joined.messages;
        self.announcer.retire(self.number, messages, taken_work + first.work + joined.work);
    }
}

/// Adds a member and returns its position.
fn join(members: &mut Members, index: u32) -> u32 {
    match members {
        Members::One(first) => {
            *members = Members::Many(vec![*first, index]);
            1
        }
        Members::Many(indexes) => {
            indexes.push(index);
            u32::try_from(indexes.len() - 1).expect("a shard has fewer than 2^32 subscribers")
        }
    }
}

#[cfg(test)]
mod tests;
