//! The one stream of numbered messages, split by who must hear of them: each shard has an inbox,
//! and a directory knows which shards listen to which receiver.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use vestnik_core::metric::Histogram;
use vestnik_core::{Envelope, Receiver};

use crate::presence::Presence;
use crate::reply::{Outcome, Reply};

/// Which shard: counted from 0, below [`Announcer::SHARDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardNumber(u8);

impl ShardNumber {
    /// Its place in a list of shards.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// What the directory knows of one receiver.
#[derive(Clone, Copy, Default)]
struct Listeners {
    /// Bit n: shard n has at least one subscriber.
    shards: u64,
    /// Subscribers, on all shards.
    subscribers: u32,
    /// Connections that count against the limit per channel, on all shards.
    counted: u32,
}

/// How many locks the directory is spread over.
const STRIPES: usize = 64;

/// A part of the directory, under one lock.
#[derive(Default)]
struct Stripe {
    listeners: HashMap<Receiver, Listeners>,
    /// What other nodes must be told of, with how many counted connections came since the last time.
    changed: HashMap<Receiver, u32>,
}

/// What became of a receiver that other nodes must be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The receiver.
    pub receiver: Receiver,
    /// Connections here that count against the limit per channel; `None`: nobody listens any more.
    pub counted: Option<u32>,
    /// How many of them came since it was told last.
    pub came: u32,
}

/// Takes numbered messages from the engine and hands each to the shards that have a listener.
///
/// A shard that falls behind does not lose messages: its inbox grows. Publishers that can wait are
/// held back by [`Announcer::calm`] while a shard has work for more than a moment, and nothing more is
/// taken at all while one is out of room ([`Announcer::has_room`]).
pub struct Announcer {
    stripes: [Mutex<Stripe>; STRIPES],
    hasher: RandomState,
    inboxes: Box<[Inbox]>,
    inbox_messages: usize,
    serial: AtomicU64,
    presence: OnceLock<Arc<Presence>>,
    /// Distinct private channels that somebody listens to.
    private_channels: AtomicUsize,
    /// Whether changes are noted for other nodes.
    notes_changes: AtomicBool,
    /// Changes were lost, because nobody took them for too long.
    is_behind: AtomicBool,
    changed: Notify,
    latency: Histogram,
}

/// What waits for one shard.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    /// Messages waiting or being delivered.
    messages: AtomicUsize,
    /// The work they make.
    work: AtomicUsize,
    news: Notify,
    progress: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Announced>,
    /// For publishers who wait on the thread of the shard.
    answers: Vec<(Reply, Outcome)>,
    /// The shard is gone: nothing is kept for it.
    is_retired: bool,
}

/// Shards into whose inboxes something was put, and who are not woken yet.
#[derive(Default)]
#[must_use = "they are to be woken: `Announcer::wake`"]
pub(crate) struct Unwoken(u64);

impl Unwoken {
    /// Adds other shards, so that each is woken once.
    pub(crate) fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A message on its way to one shard.
#[derive(Debug)]
pub struct Announced {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Roughly how many deliveries it makes there, at least one.
    pub work: u32,
}

impl Announcer {
    /// The most shards there can be.
    pub const SHARDS_MAX: usize = 64;

    /// Deliveries that may be outstanding on one shard before publishers are slowed down: some 100 ms
    /// of its time. The next message waits no longer than that, however many listen.
    const WORK_MAX: usize = 65_536;

    /// Receivers that may wait to be told to other nodes; some 10 MB.
    const CHANGES_MAX: usize = 262_144;

    /// An announcer for `shards` shards (1 to 64), each of which may have `inbox_messages` messages
    /// waiting before nothing more is taken.
    #[must_use]
    pub fn new(shards: usize, inbox_messages: usize) -> Self {
        Self {
            stripes: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            inboxes: (0..shards.clamp(1, Self::SHARDS_MAX)).map(|_| Inbox::default()).collect(),
            inbox_messages,
            serial: AtomicU64::new(0),
            presence: OnceLock::new(),
            private_channels: AtomicUsize::new(0),
            notes_changes: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
            changed: Notify::new(),
            latency: Histogram::default(),
        }
    }

    /// Tells `presence` of every user whose first connection comes or last one goes. To be called once,
    /// before there are connections.
    pub fn tell(&self, presence: Arc<Presence>) {
        let told_before = self.presence.set(presence).is_err();
        debug_assert!(!told_before, "connections would be missed");
    }

    /// How long messages took from a shard's hands to everybody who is connected there, one entry for each
    /// message and shard.
    #[must_use]
    pub const fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardNumber> + use<> {
        (0..u8::try_from(self.inboxes.len()).unwrap_or(u8::MAX)).map(ShardNumber)
    }

    /// Hands numbered messages, in order, to every shard that has a listener. Called by the engine
    /// inside the step that numbered them, so that no shard sees ids out of order. Never waits.
    pub fn announce(&self, envelopes: &[Arc<Envelope>]) {
        self.wake(self.put(envelopes));
    }

    /// Like [`Announcer::announce`], but leaves it to the caller to wake the shards, with
    /// [`Announcer::wake`] and soon.
    pub(crate) fn put(&self, envelopes: &[Arc<Envelope>]) -> Unwoken {
        let mut unwoken = Unwoken::default();
        for envelope in envelopes {
            let (mut shards, mut subscribers) = (0_u64, 0_u32);
            for receiver in &envelope.receivers {
                let listeners = self.listeners(*receiver);
                shards |= listeners.shards;
                subscribers = subscribers.saturating_add(listeners.subscribers);
            }
            if shards == 0 {
                continue;
            }
            // Connections are spread evenly, so each shard has about its share of them.
            let work = (subscribers / shards.count_ones()).max(1);
            unwoken.0 |= shards;
            while shards != 0 {
                let inbox = &self.inboxes[shards.trailing_zeros() as usize];
                inbox.put(Announced { envelope: Arc::clone(envelope), work });
                shards &= shards - 1;
            }
        }
        unwoken
    }

    /// Answers a publisher: through the inbox of the shard on whose thread it waits, or at once.
    pub(crate) fn answer(&self, reply: Reply, outcome: Outcome) -> Unwoken {
        let Some(shard) = reply.shard else {
            reply.send(outcome);
            return Unwoken::default();
        };
        let mut waiting = lock(&self.inboxes[shard.index()].waiting);
        if waiting.is_retired {
            drop(waiting);
            reply.send(outcome);
            return Unwoken::default();
        }
        waiting.answers.push((reply, outcome));
        Unwoken(shard.bit())
    }

    /// Wakes shards for which something was put.
    pub(crate) fn wake(&self, unwoken: Unwoken) {
        let Unwoken(mut shards) = unwoken;
        while shards != 0 {
            self.inboxes[shards.trailing_zeros() as usize].news.notify_one();
            shards &= shards - 1;
        }
    }

    /// Waits until no shard has more than a moment's work before it. Cancel safe.
    pub async fn calm(&self) {
        for inbox in &self.inboxes {
            loop {
                let progress = inbox.progress.notified();
                if self.is_calm_at(inbox) {
                    break;
                }
                progress.await;
            }
        }
    }

    /// Whether [`Announcer::calm`] would return at once.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.inboxes.iter().all(|inbox| self.is_calm_at(inbox))
    }

    fn is_calm_at(&self, inbox: &Inbox) -> bool {
        inbox.messages.load(Ordering::Acquire) < self.inbox_messages
            && inbox.work.load(Ordering::Acquire) < Self::WORK_MAX
    }

    /// Whether every shard may be given another message now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inboxes
            .iter()
            .all(|inbox| inbox.messages.load(Ordering::Relaxed) < self.inbox_messages)
    }

    /// Waits until something is there for `shard`. Cancel safe.
    pub async fn news(&self, shard: ShardNumber) {
        self.inboxes[shard.index()].news.notified().await;
    }

    /// Swaps the messages that wait for `shard` with `taken`, which must be empty.
    pub fn take(&self, shard: ShardNumber, taken: &mut VecDeque<Announced>) {
        debug_assert!(taken.is_empty(), "messages would be delivered twice");
        std::mem::swap(&mut lock(&self.inboxes[shard.index()].waiting).messages, taken);
    }

    /// Hands the answers that wait for publishers on the thread of `shard` to them. To be called on that
    /// thread.
    pub(crate) fn hand_answers(&self, shard: ShardNumber) {
        let answers = std::mem::take(&mut lock(&self.inboxes[shard.index()].waiting).answers);
        answers.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
    }

    /// Says that `messages` messages taken by `shard`, which made `work`, were handed to its
    /// connections.
    pub fn delivered(&self, shard: ShardNumber, messages: usize, work: usize) {
        let inbox = &self.inboxes[shard.index()];
        inbox.messages.fetch_sub(messages, Ordering::Release);
        inbox.work.fetch_sub(work, Ordering::Release);
        inbox.progress.notify_waiters();
    }

    /// Says that `shard` is gone, with `undelivered` messages that it had taken and the work they make:
    /// nothing is kept for it any more, and nobody waits for it.
    pub fn retire(&self, shard: ShardNumber, undelivered: usize, work: usize) {
        let inbox = &self.inboxes[shard.index()];
        let (messages, answers) = {
            let mut waiting = lock(&inbox.waiting);
            waiting.is_retired = true;
            (std::mem::take(&mut waiting.messages), std::mem::take(&mut waiting.answers))
        };
        answers.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
        let waiting_work: usize = messages.iter().map(|announced| announced.work as usize).sum();
        self.delivered(shard, messages.len() + undelivered, waiting_work + work);
    }

    /// Says that `shard` has one more subscriber that listens to `receiver`.
    pub fn listen(&self, shard: ShardNumber, receiver: Receiver) {
        let mut stripe = self.stripe(receiver);
        let listeners = stripe.listeners.entry(receiver).or_default();
        listeners.shards |= shard.bit();
        listeners.subscribers += 1;
        if listeners.subscribers > 1 {
            return;
        }
        match receiver {
            Receiver::User(user) => {
                if let Some(presence) = self.presence.get() {
                    // Under the lock of the stripe, so that coming and going are told in their order.
                    presence.came(user);
                }
            }
            Receiver::Private(_) => _ = self.private_channels.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        self.note(&mut stripe, receiver, 0);
    }

    /// Says that `shard` has one subscriber less that listens to `receiver`, and `left` others.
    pub fn leave(&self, shard: ShardNumber, receiver: Receiver, left: usize) {
        let mut stripe = self.stripe(receiver);
        let Entry::Occupied(mut entry) = stripe.listeners.entry(receiver) else { return };
        let listeners = entry.get_mut();
        listeners.subscribers = listeners.subscribers.saturating_sub(1);
        if left == 0 {
            listeners.shards &= !shard.bit();
        }
        if listeners.shards != 0 {
            return;
        }
        entry.remove();
        match receiver {
            Receiver::User(user) => {
                if let Some(presence) = self.presence.get() {
                    presence.went(user);
                }
            }
            Receiver::Private(_) => _ = self.private_channels.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        self.note(&mut stripe, receiver, 0);
    }

    /// Counts one more connection of `receiver`, which must be listened to; returns how many there
    /// are now, on all shards.
    pub fn count_in(&self, receiver: Receiver) -> u32 {
        let mut stripe = self.stripe(receiver);
        let Some(listeners) = stripe.listeners.get_mut(&receiver) else { return 0 };
        listeners.counted += 1;
        let counted = listeners.counted;
        self.note(&mut stripe, receiver, 1);
        counted
    }

    /// Counts one connection of `receiver` less. Call before [`Announcer::leave`].
    pub fn count_out(&self, receiver: Receiver) {
        let mut stripe = self.stripe(receiver);
        if let Some(listeners) = stripe.listeners.get_mut(&receiver) {
            listeners.counted = listeners.counted.saturating_sub(1);
            self.note(&mut stripe, receiver, 0);
        }
    }

    /// Notes a change for other nodes. Only channels: of users [`Presence`] knows when they are gone.
    fn note(&self, stripe: &mut Stripe, receiver: Receiver, came: u32) {
        if !self.notes_changes.load(Ordering::Relaxed) || receiver.channel().is_none() {
            return;
        }
        if stripe.changed.len() >= Self::CHANGES_MAX / STRIPES {
            stripe.changed = HashMap::new();
            self.is_behind.store(true, Ordering::Relaxed);
        }
        *stripe.changed.entry(receiver).or_default() += came;
        if stripe.changed.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Begins to note what other nodes must be told of, for [`Announcer::take_changes`].
    pub fn note_changes(&self) {
        self.notes_changes.store(true, Ordering::Relaxed);
    }

    /// Waits until something may have changed for other nodes. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what changed in one part of the directory, of [`Announcer::parts`]. A receiver that came
    /// and went is in it once, with what is true now.
    #[must_use]
    pub fn take_changes(&self, part: usize) -> Vec<Change> {
        let Some(stripe) = self.stripes.get(part) else { return Vec::new() };
        let mut stripe = lock(stripe);
        let changed = std::mem::take(&mut stripe.changed);
        let change = |(receiver, came)| {
            let counted = stripe.listeners.get(&receiver).map(|it| it.counted);
            Change { receiver, counted, came }
        };
        changed.into_iter().map(change).collect()
    }

    /// Whether changes were lost since the last call: then everything must be told again.
    #[must_use]
    pub fn lost_changes(&self) -> bool {
        self.is_behind.swap(false, Ordering::Relaxed)
    }

    /// Every channel in one part of the directory, as a change to be told.
    #[must_use]
    pub fn part(&self, part: usize) -> Vec<Change> {
        let Some(stripe) = self.stripes.get(part) else { return Vec::new() };
        let stripe = lock(stripe);
        let all = stripe.listeners.iter().filter(|(it, _)| it.channel().is_some());
        let change = |(receiver, listeners): (&Receiver, &Listeners)| Change {
            receiver: *receiver,
            counted: Some(listeners.counted),
            came: 0,
        };
        all.map(change).collect()
    }

    /// How many parts the directory has.
    #[must_use]
    pub const fn parts() -> usize {
        STRIPES
    }

    /// Who is told of users.
    #[must_use]
    pub fn presence(&self) -> Option<&Arc<Presence>> {
        self.presence.get()
    }

    /// How many connections of `receiver` count against the limit, on all shards.
    #[must_use]
    pub fn counted(&self, receiver: Receiver) -> u32 {
        self.listeners(receiver).counted
    }

    /// A number for a new subscriber: larger than any given before, on all shards.
    #[must_use]
    pub fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether anybody listens to `receiver`.
    #[must_use]
    pub fn is_online(&self, receiver: Receiver) -> bool {
        self.listeners(receiver).shards != 0
    }

    /// Every receiver that somebody listens to. Walks the whole directory.
    #[must_use]
    pub fn receivers(&self) -> Vec<Receiver> {
        let all = |it: &Mutex<Stripe>| lock(it).listeners.keys().copied().collect::<Vec<_>>();
        self.stripes.iter().flat_map(all).collect()
    }

    /// How many distinct private channels somebody listens to.
    #[must_use]
    pub fn private_channels(&self) -> usize {
        self.private_channels.load(Ordering::Relaxed)
    }

    fn listeners(&self, receiver: Receiver) -> Listeners {
        self.stripe(receiver).listeners.get(&receiver).copied().unwrap_or_default()
    }

    fn stripe(&self, receiver: Receiver) -> MutexGuard<'_, Stripe> {
        let hash = usize::try_from(self.hasher.hash_one(receiver) % STRIPES as u64);
        lock(&self.stripes[hash.unwrap_or(0)])
    }
}

impl Inbox {
    fn put(&self, announced: Announced) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_retired {
            return;
        }
        // Inside the lock: whoever takes the message finds it counted.
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.work.fetch_add(announced.work as usize, Ordering::Relaxed);
        waiting.messages.push_back(announced);
    }
}

/// Locks plain data. A panic while it was held cannot have left it half changed: the sections are
/// single assignments and insertions.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vestnik_core::{Author, ChannelId, Draft, Expiry, MessageId, MessageKind};

    use super::*;

    fn envelope(seq: u64, receivers: &[Receiver]) -> Arc<Envelope> {
        Arc::new(Envelope::new(
            MessageId::new(1, seq),
            0,
            Draft {
                receivers: receivers.into(),
                body: Bytes::new(),
                expiry: Expiry::VOLATILE,
                author: Author::Backend,
                kind: MessageKind::UNKNOWN,
                additions: vestnik_core::message::Additions::default(),
            },
        ))
    }

    #[test]
    fn a_message_reaches_only_the_shards_that_listen_and_once_each() {
        let announcer = Announcer::new(2, 10);
        let [first, second] = [ShardNumber(0), ShardNumber(1)];
        let [a, b] = [1, 2].map(|n| Receiver::Private(ChannelId::from_bytes([n; 16])));
        announcer.listen(first, a);
        announcer.listen(first, b);
        announcer.announce(&[envelope(1, &[a, b, a])]);
        let mut taken = VecDeque::new();
        announcer.take(second, &mut taken);
        assert!(taken.is_empty());
        announcer.take(first, &mut taken);
        assert_eq!(taken.len(), 1);
        announcer.leave(first, a, 0);
        assert!(!announcer.is_online(a));
        assert!(announcer.is_online(b));
        assert_eq!(announcer.private_channels(), 1);
    }

    #[tokio::test]
    async fn publishers_are_held_back_until_the_slowest_shard_caught_up() {
        let announcer = Announcer::new(1, 1);
        let shard = ShardNumber(0);
        let to = Receiver::Public(ChannelId::from_bytes([7; 16]));
        announcer.listen(shard, to);
        announcer.announce(&[envelope(1, &[to])]);
        assert!(!announcer.has_room());
        let waits = announcer.calm();
        let mut taken = VecDeque::new();
        announcer.take(shard, &mut taken);
        announcer.delivered(shard, taken.len(), 1);
        waits.await;
        assert!(announcer.has_room());
    }

    #[test]
    fn publishers_are_slowed_down_by_deliveries_and_not_only_by_messages() {
        use std::future::Future as _;
        let announcer = Announcer::new(2, 1000);
        let to = Receiver::Public(ChannelId::from_bytes([7; 16]));
        for shard in announcer.shards() {
            for _ in 0..Announcer::WORK_MAX / 4 {
                announcer.listen(shard, to);
            }
        }
        let mut calm = Box::pin(announcer.calm());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let messages: Vec<_> = (1..=4).map(|seq| envelope(seq, &[to])).collect();
        announcer.announce(&messages);
        assert!(calm.as_mut().poll(&mut context).is_pending());
        assert!(announcer.has_room(), "who cannot wait is still served");
        for shard in announcer.shards() {
            let mut taken = VecDeque::new();
            announcer.take(shard, &mut taken);
            let work = taken.iter().map(|announced| announced.work as usize).sum();
            assert_eq!(work, Announcer::WORK_MAX, "each shard has its half");
            announcer.delivered(shard, taken.len(), work);
        }
        assert!(calm.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn nobody_waits_for_a_shard_that_is_gone() {
        let announcer = Announcer::new(1, 1);
        let shard = ShardNumber(0);
        let to = Receiver::Public(ChannelId::from_bytes([7; 16]));
        announcer.listen(shard, to);
        announcer.announce(&[envelope(1, &[to])]);
        announcer.retire(shard, 0, 0);
        assert!(announcer.has_room());
        announcer.announce(&[envelope(2, &[to])]);
        assert!(announcer.has_room());
        let mut taken = VecDeque::new();
        announcer.take(shard, &mut taken);
        assert!(taken.is_empty(), "nothing is kept for it");
    }

    #[test]
    fn changes_are_noted_once_each_with_what_is_true_when_they_are_taken() {
        let announcer = Announcer::new(1, 10);
        let shard = ShardNumber(0);
        let [a, b] = [1, 2].map(|n| Receiver::Private(ChannelId::from_bytes([n; 16])));
        let changes = || (0..STRIPES).flat_map(|it| announcer.take_changes(it)).collect::<Vec<_>>();
        announcer.listen(shard, a);
        assert_eq!(changes(), [], "nobody asked for them");
        announcer.note_changes();
        for _ in 0..3 {
            announcer.listen(shard, b);
            announcer.count_in(b);
        }
        assert_eq!(changes(), [Change { receiver: b, counted: Some(3), came: 3 }]);
        announcer.count_out(b);
        announcer.leave(shard, b, 2);
        announcer.listen(shard, b);
        assert_eq!(changes(), [Change { receiver: b, counted: Some(2), came: 0 }]);
        announcer.leave(shard, a, 0);
        assert_eq!(changes(), [Change { receiver: a, counted: None, came: 0 }]);
        assert_eq!((changes(), announcer.private_channels()), (vec![], 1));
        assert_eq!((0..STRIPES).flat_map(|it| announcer.part(it)).count(), 1);
    }

    #[test]
    fn changes_that_nobody_takes_are_bounded_and_said_to_be_lost() {
        let announcer = Announcer::new(1, 10);
        announcer.note_changes();
        for number in 0..400_000_u32 {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            announcer.listen(ShardNumber(0), Receiver::Private(ChannelId::from_bytes(bytes)));
        }
        assert!(announcer.lost_changes() && !announcer.lost_changes());
        let waiting: usize = (0..STRIPES).map(|it| announcer.take_changes(it).len()).sum();
        assert!(waiting <= Announcer::CHANGES_MAX, "{waiting}");
    }

    #[test]
    fn connections_are_counted_over_all_shards() {
        let announcer = Announcer::new(2, 10);
        let to = Receiver::Private(ChannelId::from_bytes([7; 16]));
        for shard in announcer.shards() {
            announcer.listen(shard, to);
        }
        assert_eq!([announcer.count_in(to), announcer.count_in(to)], [1, 2]);
        announcer.count_out(to);
        assert_eq!(announcer.count_in(to), 2);
    }
}
