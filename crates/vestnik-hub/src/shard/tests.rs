//! Random lives of subscribers against a naive model: who gets what, exactly once and in order.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use vestnik_core::{Author, ChannelId, Draft, Expiry, MessageKind};

use super::*;
use crate::outbox::Item;

const CHANNELS: u8 = 5;
const SHARDS: usize = 2;

fn channel(number: u8) -> Receiver {
    let id = ChannelId::from_bytes([number; 16]);
    if number.is_multiple_of(2) { Receiver::Private(id) } else { Receiver::Public(id) }
}

fn envelope(seq: u64, channels: &[u8], is_stored: bool) -> Arc<Envelope> {
    let draft = Draft {
        receivers: channels.iter().map(|number| channel(*number)).collect(),
        body: Bytes::from_static(b"0123456789"),
        expiry: if is_stored { Expiry::MAX } else { Expiry::VOLATILE },
        author: Author::Backend,
        kind: MessageKind::UNKNOWN,
        additions: vestnik_core::message::Additions::default(),
    };
    Arc::new(Envelope::new(MessageId::new(1, seq), 0, draft))
}

#[derive(Clone, Debug)]
enum Step {
    /// Connect at a shard, `behind` messages back; `reads`: whether it ever takes anything.
    Subscribe {
        shard: usize,
        channels: BTreeSet<u8>,
        behind: u64,
        reads: bool,
        waits: bool,
    },
    /// The history that a subscriber waits for has been read.
    Replay(usize),
    Unsubscribe(usize),
    Deafen(usize),
    Publish {
        channels: Vec<u8>,
        stored: bool,
        times: usize,
    },
    Deliver(usize),
    Write {
        shard: usize,
        count: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let channels = proptest::collection::btree_set(0..CHANNELS, 1..4);
    prop_oneof![
        3 => (0..SHARDS, channels, 0..30_u64, prop::bool::weighted(0.8), any::<bool>()).prop_map(
            |(shard, channels, behind, reads, waits)| {
                Step::Subscribe { shard, channels, behind, reads, waits }
            }
        ),
        2 => (0..40_usize).prop_map(Step::Replay),
        2 => (0..40_usize).prop_map(Step::Unsubscribe),
        1 => (0..40_usize).prop_map(Step::Deafen),
        6 => (vec(0..CHANNELS, 1..4), any::<bool>(), 1..12_usize)
            .prop_map(|(channels, stored, times)| Step::Publish { channels, stored, times }),
        4 => (0..SHARDS).prop_map(Step::Deliver),
        4 => (0..SHARDS, 1..6_usize).prop_map(|(shard, count)| Step::Write { shard, count }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Listens,
    Left,
    Deafened,
    Slow,
}

/// What the model knows of one subscriber.
struct Client {
    shard: usize,
    key: SubscriberKey,
    channels: BTreeSet<u8>,
    position: u64,
    /// Messages up to this one were published before it came.
    came_after: u64,
    /// The last message of its history.
    history_until: u64,
    reads: bool,
    waiting: Option<Vec<Arc<Envelope>>>,
    received: Vec<u64>,
    end: End,
}

struct World {
    announcer: Arc<Announcer>,
    shards: Vec<Shard<usize>>,
    limits: OutboxLimits,
    published: Vec<Arc<Envelope>>,
    clients: Vec<Client>,
}

impl World {
    fn new(limits: OutboxLimits) -> Self {
        let announcer = Arc::new(Announcer::new(SHARDS, 1000));
        let shards =
            announcer.shards().map(|n| Shard::new(n, Arc::clone(&announcer), limits)).collect();
        Self { announcer, shards, limits, published: Vec::new(), clients: Vec::new() }
    }

    fn newest(&self) -> u64 {
        self.published.len() as u64
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Subscribe { shard, channels, behind, reads, waits } => {
                let receivers: Vec<_> = channels.iter().map(|number| channel(*number)).collect();
                let number = self.clients.len();
                let counted = receivers.iter().copied().find(Receiver::is_private);
                let (key, count) = self.shards[shard].subscribe(&receivers, counted, number);
                assert_eq!(count > 0, counted.is_some());
                let position = self.newest().saturating_sub(behind);
                let history = self.history(&channels, position);
                self.clients.push(Client {
                    shard,
                    key,
                    channels,
                    position,
                    came_after: self.newest(),
                    history_until: history.last().map_or(0, |message| message.id.seq()),
                    reads,
                    waiting: Some(history),
                    received: Vec::new(),
                    end: End::Listens,
                });
                self.shards[shard].send(key, Bytes::from_static(b"101"));
                if !waits {
                    self.replay(number);
                }
            }
            Step::Replay(client) => self.replay(client),
            Step::Unsubscribe(client) => {
                let Some(client) = self.clients.get_mut(client) else { return };
                let left = self.shards[client.shard].unsubscribe(client.key);
                assert_eq!(left.is_some(), client.end != End::Left, "a key names one subscriber");
                client.end = End::Left;
            }
            Step::Deafen(client) => {
                let Some(client) = self.clients.get_mut(client) else { return };
                self.shards[client.shard].deafen(client.key);
                if client.end == End::Listens {
                    client.end = End::Deafened;
                }
            }
            Step::Publish { channels, stored, times } => {
                for _ in 0..times {
                    let message = envelope(self.newest() + 1, &channels, stored);
                    self.published.push(Arc::clone(&message));
                    self.announcer.announce(&[message]);
                }
            }
            Step::Deliver(shard) => self.deliver(shard),
            Step::Write { shard, count } => self.write(shard, count),
        }
    }

    /// What an engine would give: stored messages of the channels after a position.
    fn history(&self, channels: &BTreeSet<u8>, position: u64) -> Vec<Arc<Envelope>> {
        self.published
            .iter()
            .filter(|message| message.expiry.is_stored() && message.id.seq() > position)
            .filter(|message| is_for(message, channels))
            .cloned()
            .collect()
    }

    fn replay(&mut self, client: usize) {
        let Some(client) = self.clients.get_mut(client) else { return };
        if let Some(history) = client.waiting.take() {
            let position = MessageId::new(1, client.position);
            self.shards[client.shard].replay(client.key, history, position);
        }
    }

    fn deliver(&mut self, shard: usize) {
        self.shards[shard].deliver_announced();
        while let Some(key) = self.shards[shard].next_slow() {
            let Some(subscriber) = self.shards[shard].get(key) else { continue };
            let client = &mut self.clients[subscriber.connection];
            // Whoever takes what it is given is never called slow, unless more comes than an outbox
            // holds before its history was even sent.
            let has_history = client.waiting.is_none()
                && client.received.last().is_none_or(|last| *last >= client.history_until)
                && (client.history_until == 0 || !client.received.is_empty());
            assert!(!(client.reads && has_history), "closed by the server's own haste");
            if let Some(queue) = subscriber.outbox.queue() {
                queue.drop_messages();
            }
            client.end = End::Slow;
        }
    }

    fn write(&mut self, shard: usize, count: usize) {
        for _ in 0..count {
            let Some(key) = self.shards[shard].next_dirty() else { return };
            let Some(subscriber) = self.shards[shard].get(key) else { continue };
            let client = &mut self.clients[subscriber.connection];
            assert_eq!(client.key, key);
            let Some(queue) = subscriber.outbox.queue() else { continue };
            if !client.reads {
                continue;
            }
            // One turn takes a bounded part.
            for item in std::iter::from_fn(|| queue.pop()).take(3) {
                match item {
                    Item::Live(message) | Item::Replayed(message) => {
                        client.received.push(message.id.seq());
                    }
                    Item::Frame(_) => assert!(client.received.is_empty(), "the answer comes first"),
                }
            }
            let is_empty = queue.is_empty();
            if is_empty {
                self.shards[shard].release(key);
            } else {
                self.shards[shard].write_on(key);
            }
        }
    }

    fn settle(&mut self) {
        for client in 0..self.clients.len() {
            self.replay(client);
        }
        for shard in 0..SHARDS {
            self.deliver(shard);
            for turns in 0.. {
                assert!(turns < 100_000, "the shard never comes to rest");
                if !self.shards[shard].has_work() {
                    break;
                }
                self.write(shard, 3);
                self.deliver(shard);
            }
        }
        assert!(self.announcer.is_calm() && self.announcer.has_room());
    }

    /// Every membership knows its place, and the directory is the sum of the shards.
    fn check_members(&self) {
        for number in 0..CHANNELS {
            let mut everywhere = 0;
            for shard in &self.shards {
                let indexes = match shard.members.get(&channel(number)) {
                    None => &[][..],
                    Some(Members::One(index)) => std::slice::from_ref(index),
                    Some(Members::Many(indexes)) => indexes,
                };
                everywhere += indexes.len();
                for (position, index) in indexes.iter().enumerate() {
                    let subscriber = &shard.subscribers[*index as usize];
                    let mut places = subscriber.listening.iter();
                    let place = places.find(|place| place.receiver == channel(number));
                    assert_eq!(place.map(|place| place.position as usize), Some(position));
                }
            }
            let listeners = self
                .clients
                .iter()
                .filter(|client| client.end != End::Left && client.channels.contains(&number));
            assert_eq!(everywhere, listeners.count());
            assert_eq!(self.announcer.is_online(channel(number)), everywhere > 0);
        }
    }

    fn check_received(&self) {
        for client in &self.clients {
            let received = &client.received;
            assert!(received.is_sorted_by(|a, b| a < b), "in order and once: {received:?}");
            let mine: Vec<_> = self
                .published
                .iter()
                .filter(|message| is_for(message, &client.channels))
                .map(|message| (message.id.seq(), message.expiry.is_stored()))
                .collect();
            let must: Vec<_> = mine
                .iter()
                .filter(|(id, stored)| {
                    *id > client.position && (*stored || *id > client.came_after)
                })
                .map(|(id, _)| *id)
                .collect();
            for id in received {
                let known = mine.iter().find(|(mine, _)| mine == id);
                assert!(*id > client.position && known.is_some(), "{id} is not for it");
            }
            // Nobody's position ever moves over something it did not get.
            let until = match client.end {
                End::Listens if client.reads => u64::MAX,
                _ => received.last().copied().unwrap_or(0),
            };
            for id in must.iter().filter(|id| **id <= until) {
                assert!(received.contains(id), "{id} is missing in {received:?} {:?}", client.end);
            }
        }
    }

    fn check_outboxes(&mut self) {
        let limits = self.limits;
        for client in self.clients.iter().filter(|client| client.end != End::Left) {
            let Some(subscriber) = self.shards[client.shard].get(client.key) else { continue };
            let Some(queue) = subscriber.outbox.queue() else { continue };
            let (messages, bytes) = queue.live();
            assert!(messages <= limits.messages && bytes <= limits.bytes.max(20));
        }
    }
}

fn is_for(message: &Envelope, channels: &BTreeSet<u8>) -> bool {
    channels.iter().any(|number| message.receivers.contains(&channel(*number)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn q_177_q_183_q_188_everybody_gets_everything_once_and_in_order_whatever_happens(
        steps in vec(step(), 1..120),
        messages in 1..20_usize,
        bytes in 10..200_usize,
    ) {
        let mut world = World::new(OutboxLimits { messages, bytes });
        for step in steps {
            world.act(step);
            world.check_members();
            world.check_outboxes();
        }
        world.settle();
        world.check_received();
        for client in 0..world.clients.len() {
            world.act(Step::Unsubscribe(client));
        }
        world.check_members();
        prop_assert_eq!(world.announcer.private_channels(), 0);
        prop_assert!(world.shards.iter().all(Shard::is_empty));
    }
}

fn one_subscriber(limits: OutboxLimits) -> (Arc<Announcer>, Shard<()>, SubscriberKey) {
    let announcer = Arc::new(Announcer::new(1, 1000));
    let number = announcer.shards().next().unwrap();
    let mut shard = Shard::new(number, Arc::clone(&announcer), limits);
    let (key, _) = shard.subscribe(&[channel(0)], Some(channel(0)), ());
    (announcer, shard, key)
}

const WIDE: OutboxLimits = OutboxLimits { messages: 1000, bytes: 1 << 20 };

#[test]
fn a_burst_larger_than_an_outbox_closes_nobody_who_reads() {
    let (announcer, mut shard, key) = one_subscriber(OutboxLimits { messages: 10, bytes: 1 << 20 });
    shard.replay(key, Vec::new(), MessageId::ZERO);
    announcer.announce(&(1..=500).map(|seq| envelope(seq, &[0], true)).collect::<Vec<_>>());
    let mut received = 0;
    while shard.has_work() {
        shard.deliver_announced();
        assert_eq!(shard.next_slow(), None);
        while let Some(key) = shard.next_dirty() {
            let Some(queue) = shard.get(key).unwrap().outbox.queue() else { continue };
            received += std::iter::from_fn(|| queue.pop()).count();
        }
    }
    assert_eq!(received, 500);
    assert!(announcer.is_calm());
}

#[test]
fn messages_that_wait_behind_an_unread_history_never_go_out_before_it() {
    let (announcer, mut shard, key) = one_subscriber(WIDE);
    shard.send(key, Bytes::from_static(b"101"));
    announcer.announce(&[envelope(9, &[0], true)]);
    shard.deliver_announced();
    assert_eq!(shard.next_dirty(), None, "its history is still being read");
    // The server stops, or evicts it, meanwhile.
    shard.deafen(key);
    shard.send(key, Bytes::from_static(b"close"));
    assert_eq!(shard.next_dirty(), Some(key));
    let queue = shard.get(key).unwrap().outbox.queue().unwrap();
    let frames: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|item| match item {
            Item::Frame(frame) => frame,
            Item::Live(message) | Item::Replayed(message) => panic!("{message:?} skips history"),
        })
        .collect();
    assert_eq!(frames, ["101", "close"]);
    shard.replay(key, vec![envelope(8, &[0], true)], MessageId::ZERO);
    assert!(shard.get(key).unwrap().outbox.is_empty(), "the history came too late");
}

#[test]
fn who_gets_a_part_of_its_history_gets_nothing_that_comes_after_what_was_left_out() {
    let (announcer, mut shard, key) = one_subscriber(WIDE);
    shard.send(key, Bytes::from_static(b"101"));
    announcer.announce(&[envelope(9, &[0], true)]);
    shard.deliver_announced();
    shard.replay_part(key, vec![envelope(1, &[0], true), envelope(2, &[0], true)], MessageId::ZERO);
    announcer.announce(&[envelope(10, &[0], true)]);
    shard.deliver_announced();
    shard.send(key, Bytes::from_static(b"close"));
    assert_eq!(shard.next_dirty(), Some(key));
    let queue = shard.get(key).unwrap().outbox.queue().unwrap();
    let items: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|item| match item {
            Item::Frame(frame) => String::from_utf8_lossy(&frame).into_owned(),
            Item::Replayed(message) => message.id.seq().to_string(),
            Item::Live(message) => panic!("{message:?} came after what was left out"),
        })
        .collect();
    assert_eq!(items, ["101", "1", "2", "close"]);
}

#[test]
fn an_outbox_that_overflows_while_history_is_read_keeps_the_handshakes_answer() {
    let (announcer, mut shard, key) = one_subscriber(OutboxLimits { messages: 4, bytes: 1 << 20 });
    shard.send(key, Bytes::from_static(b"101"));
    announcer.announce(&(1..=20).map(|seq| envelope(seq, &[0], true)).collect::<Vec<_>>());
    for _ in 0..20 {
        shard.deliver_announced();
    }
    assert_eq!(shard.next_slow(), Some(key));
    let queue = shard.get(key).unwrap().outbox.queue().unwrap();
    assert!(matches!(queue.pop(), Some(Item::Frame(answer)) if answer == "101"));
    assert!(queue.is_empty());
}

#[test]
fn what_was_seen_on_another_shard_is_not_sent_again_from_this_ones_inbox() {
    let (announcer, mut shard, _) = one_subscriber(WIDE);
    announcer.announce(&[envelope(5, &[0], true)]);
    // It read message 5 elsewhere, and its history is on disk.
    let (key, _) = shard.subscribe(&[channel(0)], None, ());
    shard.deliver_announced();
    shard.replay(key, Vec::new(), MessageId::new(1, 5));
    assert!(shard.get(key).unwrap().outbox.is_empty());
}

#[test]
fn w_029_answers_that_nobody_reads_are_bounded() {
    let (_, mut shard, key) = one_subscriber(OutboxLimits { messages: 10, bytes: 4096 });
    shard.replay(key, Vec::new(), MessageId::ZERO);
    let mut sent = 0;
    while shard.next_slow().is_none() {
        shard.send(key, Bytes::from_static(b"\x8a\0"));
        sent += 1;
        assert!(sent <= 4096, "there must be an end to it");
    }
    shard.send(key, Bytes::from_static(b"\x8a\0"));
    assert_eq!(shard.next_slow(), None, "said once");
}

#[test]
fn a_shard_that_ends_holds_nobody_back_and_leaves_no_channel_online() {
    let (announcer, mut shard, key) = one_subscriber(WIDE);
    shard.replay(key, Vec::new(), MessageId::ZERO);
    announcer.announce(&(1..=600).map(|seq| envelope(seq, &[0], true)).collect::<Vec<_>>());
    shard.deliver_announced();
    announcer.announce(&(601..=1100).map(|seq| envelope(seq, &[0], true)).collect::<Vec<_>>());
    assert!(!announcer.has_room());
    drop(shard);
    assert!(announcer.has_room() && !announcer.is_online(channel(0)));
}

#[test]
fn what_comes_while_others_are_written_to_leaves_in_the_same_write() {
    let (announcer, mut shard, first) = one_subscriber(WIDE);
    let (second, _) = shard.subscribe(&[channel(0)], None, ());
    for key in [first, second] {
        shard.replay(key, Vec::new(), MessageId::ZERO);
    }
    while shard.next_dirty().is_some() {}
    let waiting = |shard: &mut Shard<()>, seq| {
        announcer.announce(&[envelope(seq, &[0], true)]);
        shard.deliver_announced();
        let key = shard.next_dirty().unwrap();
        let queue = shard.get(key).unwrap().outbox.queue().unwrap();
        (key, std::iter::from_fn(|| queue.pop()).count())
    };
    assert_eq!(waiting(&mut shard, 1), (first, 1));
    assert_eq!(waiting(&mut shard, 2), (second, 2));
    assert_eq!(waiting(&mut shard, 3), (first, 2));
    assert_eq!(waiting(&mut shard, 4), (second, 2));
}

#[test]
fn a_round_ends_although_its_subscribers_are_touched_all_the_time() {
    let (announcer, mut shard, first) = one_subscriber(WIDE);
    let (second, _) = shard.subscribe(&[channel(1)], None, ());
    for key in [first, second] {
        shard.replay(key, Vec::new(), MessageId::ZERO);
    }
    announcer.announce(&[envelope(1, &[0], true)]);
    shard.deliver_announced();
    for _ in 0..2 {
        let key = shard.next_dirty().unwrap();
        shard.touch(key);
    }
    announcer.announce(&[envelope(2, &[1], true)]);
    shard.deliver_announced();
    assert!(
        !shard.get(second).unwrap().outbox.is_empty(),
        "the next message did not wait for ever"
    );
}

#[test]
fn a_subscriber_may_listen_to_more_and_to_less_while_it_is_there() {
    let (announcer, mut shard, key) = one_subscriber(WIDE);
    let (other, _) = shard.subscribe(&[channel(1)], None, ());
    for key in [key, other] {
        shard.replay(key, Vec::new(), MessageId::ZERO);
    }
    assert!(shard.listen(key, channel(1)));
    assert!(!shard.listen(key, channel(1)), "it does already");
    assert!(shard.listen(key, channel(2)));
    while shard.next_dirty().is_some() {}
    // Both its own channel and the further one: once.
    announcer.announce(&[envelope(1, &[0, 1], true), envelope(2, &[2], true)]);
    shard.deliver_announced();
    let live = |shard: &mut Shard<()>, key| {
        shard.get(key).unwrap().outbox.queue().map_or(0, |queue| queue.live().0)
    };
    assert_eq!((live(&mut shard, key), live(&mut shard, other)), (2, 1));
    while shard.next_dirty().is_some() {}
    assert!(shard.unlisten(key, channel(1)));
    assert!(!shard.unlisten(key, channel(1)));
    announcer.announce(&[envelope(3, &[1], true)]);
    shard.deliver_announced();
    assert_eq!(live(&mut shard, key), 2);
    assert!(announcer.is_online(channel(1)) && announcer.is_online(channel(2)));
    shard.unsubscribe(key);
    assert!(announcer.is_online(channel(1)) && !announcer.is_online(channel(2)));
}

#[test]
fn presence_hears_of_a_users_first_connection_and_of_the_last_one() {
    use vestnik_core::{Clock, User, UserId, UserSpace};
    let announcer = Arc::new(Announcer::new(2, 1000));
    let clock = Clock::manual(1_800_000_000);
    let presence = Arc::new(crate::Presence::new(clock.clone(), std::time::Duration::ZERO));
    announcer.tell(Arc::clone(&presence));
    let user = User { space: UserSpace::of(""), id: UserId::new(7).unwrap() };
    let mut shards: Vec<_> =
        announcer.shards().map(|number| Shard::new(number, Arc::clone(&announcer), WIDE)).collect();
    let keys: Vec<_> = shards
        .iter_mut()
        .map(|shard| shard.subscribe(&[Receiver::User(user)], None, ()).0)
        .collect();
    assert_eq!(presence.take_changes(), [(user, true)]);
    shards[0].unsubscribe(keys[0]);
    presence.tick();
    assert_eq!(presence.take_changes(), []);
    shards[1].unsubscribe(keys[1]);
    presence.tick();
    assert_eq!(presence.take_changes(), [(user, false)]);
}
