//! What every engine promises, tested on each.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{
    Author, ChannelId, Clock, Draft, Envelope, Expiry, MessageId, MessageKind, Receiver,
};

use super::*;
use crate::ShardNumber;

/// Unix seconds at which tests begin.
pub(super) const START_S: u64 = 1_800_000_000;

/// An engine with everything around it.
pub(super) struct Bench {
    pub engine: Arc<Engine>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub announcer: Arc<Announcer>,
    pub options: Option<DiskOptions>,
    pub limits: HistoryLimits,
    pub directory: TempDir,
    /// The server of an engine over Redis that has one to itself.
    _server: Option<redis::tests::Server>,
}

pub(super) fn private(number: u8) -> Receiver {
    Receiver::Private(ChannelId::from_bytes([number; 16]))
}

pub(super) fn public(number: u8) -> Receiver {
    Receiver::Public(ChannelId::from_bytes([number; 16]))
}

/// A draft for `to` that is kept for `seconds`.
pub(super) fn draft(to: &[Receiver], body: &str, seconds: u64) -> Draft {
    Draft {
        receivers: to.into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        expiry: Expiry::new(seconds, Expiry::MAX),
        author: Author::Backend,
        kind: MessageKind::UNKNOWN,
        additions: vestnik_core::message::Additions::default(),
    }
}

pub(super) fn wait(ticket: Ticket) -> Result<Vec<MessageId>, EngineError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ticket.ids())
}

pub(super) fn batch(drafts: Vec<Draft>) -> Batch {
    Batch { drafts, if_unstored: IfUnstored::Deliver }
}

pub(super) fn bodies(envelopes: &[Arc<Envelope>]) -> Vec<String> {
    envelopes.iter().map(|e| String::from_utf8(e.body.to_vec()).unwrap()).collect()
}

fn announcer() -> Arc<Announcer> {
    let announcer = Announcer::new(1, 1_000_000);
    for number in 1..=9 {
        let shard = announcer.shards().next().unwrap();
        announcer.listen(shard, private(number));
        announcer.listen(shard, public(number));
    }
    Arc::new(announcer)
}

impl Bench {
    pub(super) fn memory(limits: HistoryLimits) -> Self {
        let (clock, metrics, announcer) =
            (Clock::manual(START_S), Arc::<Metrics>::default(), announcer());
        let engine =
            Engine::memory(limits, Arc::clone(&announcer), clock.clone(), Arc::clone(&metrics));
        let directory = tempfile::tempdir().unwrap();
        let engine = Arc::new(engine);
        Self { engine, clock, metrics, announcer, options: None, limits, directory, _server: None }
    }

    pub(super) fn disk(limits: HistoryLimits, change: impl FnOnce(&mut DiskOptions)) -> Self {
        let (clock, metrics, announcer) =
            (Clock::manual(START_S), Arc::<Metrics>::default(), announcer());
        let directory = tempfile::tempdir().unwrap();
        let mut options = DiskOptions::new(directory.path().join("history"));
        change(&mut options);
        let engine = Engine::disk(
            options.clone(),
            limits,
            Arc::clone(&announcer),
            clock.clone(),
            Arc::clone(&metrics),
        );
        let engine = Arc::new(engine.unwrap());
        Self {
            engine,
            clock,
            metrics,
            announcer,
            options: Some(options),
            limits,
            directory,
            _server: None,
        }
    }

    /// An engine over Redis, connected.
    pub(super) fn redis(limits: HistoryLimits, options: RedisOptions) -> Self {
        let bench = Self::redis_unconnected(limits, options);
        for _ in 0..6000 {
            if bench.engine.is_reachable() && bench.engine.last_id() != MessageId::ZERO {
                return bench;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis is not reached");
    }

    /// An engine over Redis that may find it or not.
    pub(super) fn redis_unconnected(limits: HistoryLimits, options: RedisOptions) -> Self {
        let (clock, metrics, announcer) =
            (Clock::manual(START_S), Arc::<Metrics>::default(), announcer());
        let engine = Engine::redis(
            options,
            limits,
            Arc::clone(&announcer),
            clock.clone(),
            Arc::clone(&metrics),
        );
        let directory = tempfile::tempdir().unwrap();
        let engine = Arc::new(engine.unwrap());
        Self { engine, clock, metrics, announcer, options: None, limits, directory, _server: None }
    }

    fn with_server(limits: HistoryLimits, program: &redis::tests::Program, layout: Layout) -> Self {
        let server = redis::tests::Server::of(program, &[]);
        let bench = Self::redis(limits, server.options(layout));
        Self { _server: Some(server), ..bench }
    }

    /// The newest stored message.
    pub(super) fn newest(&self, to: &[Receiver]) -> Option<MessageId> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.engine.newest(to))
    }

    /// Publishes drafts in one batch and waits for their ids.
    pub(super) fn publish(&self, drafts: Vec<Draft>) -> Result<Vec<MessageId>, EngineError> {
        wait(self.engine.submit(batch(drafts)).unwrap())
    }

    /// Publishes one draft.
    pub(super) fn say(&self, to: &[Receiver], body: &str, seconds: u64) -> MessageId {
        self.publish(vec![draft(to, body, seconds)]).unwrap()[0]
    }

    pub(super) fn replay(&self, to: &[Receiver], after: MessageId) -> Replay {
        self.engine.history(to, after, usize::MAX).read().unwrap()
    }

    /// What was announced since the last call.
    pub(super) fn announced(&self) -> Vec<Arc<Envelope>> {
        let shard: ShardNumber = self.announcer.shards().next().unwrap();
        let mut taken = std::collections::VecDeque::new();
        self.announcer.take(shard, &mut taken);
        let work = taken.iter().map(|announced| announced.work as usize).sum();
        self.announcer.delivered(shard, taken.len(), work);
        taken.into_iter().map(|announced| announced.envelope).collect()
    }

    pub(super) fn count(&self, metric: Metric) -> u64 {
        self.metrics.get(metric)
    }
}

/// Runs a test on every engine.
fn on_each(limits: HistoryLimits, test: impl Fn(&Bench)) {
    on_local(limits, &test);
    for program in redis::tests::Program::all() {
        test(&Bench::with_server(limits, &program, redis::tests::own()));
        test(&Bench::with_server(limits, &program, Layout::PushServer));
    }
}

/// Runs a test on the engines that keep messages themselves, whose memory they must bound and count;
/// the disk once with all bodies in memory, once with none.
fn on_local(limits: HistoryLimits, test: impl Fn(&Bench)) {
    test(&Bench::memory(limits));
    test(&Bench::disk(limits, |_| {}));
    test(&Bench::disk(limits, |options| options.cache_bytes = 0));
    test(&Bench::disk(limits, |options| options.sync = Sync::Never));
}

fn limits() -> HistoryLimits {
    HistoryLimits::on_disk()
}

#[test]
fn q_176_w_008_messages_of_one_batch_are_numbered_and_announced_in_its_order() {
    on_each(limits(), |bench| {
        let drafts = ["1", "2", "3", "4"].map(|body| {
            let seconds = if body == "1" || body == "3" { 60 } else { 0 };
            draft(&[private(1)], body, seconds)
        });
        let ids = bench.publish(drafts.into()).unwrap();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let announced = bench.announced();
        assert_eq!(bodies(&announced), ["1", "2", "3", "4"]);
        assert_eq!(announced.iter().map(|e| e.id).collect::<Vec<_>>(), ids);
        assert_eq!(bench.engine.last_id(), ids[3]);
    });
}

#[test]
fn q_138_q_176_batches_keep_the_order_in_which_they_were_submitted() {
    on_each(limits(), |bench| {
        let tickets: Vec<Ticket> = (0..200)
            .map(|n| {
                let one = draft(&[private(1)], &n.to_string(), if n % 3 == 0 { 60 } else { 0 });
                bench.engine.submit(batch(vec![one])).unwrap()
            })
            .collect();
        let ids: Vec<MessageId> = tickets.into_iter().map(|t| wait(t).unwrap()[0]).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let announced = bench.announced();
        assert_eq!(bodies(&announced), (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn q_129_submitters_on_several_threads_get_distinct_ids_and_keep_their_own_order() {
    on_each(limits(), |bench| {
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    for n in 0..100_u64 {
                        bench.say(&[private(thread)], &format!("{n}"), n % 2 * 60);
                    }
                });
            }
        });
        let announced = bench.announced();
        assert_eq!(announced.len(), 400);
        assert!(announced.is_sorted_by(|a, b| a.id < b.id && a.created_ms <= b.created_ms));
        for thread in 1..=4 {
            let own = announced.iter().filter(|e| e.receivers[0] == private(thread));
            let own: Vec<Arc<Envelope>> = own.cloned().collect();
            assert_eq!(bodies(&own), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    });
}

#[test]
fn w_010_a_reader_that_goes_on_by_position_skips_nothing_while_others_publish() {
    on_each(limits(), |bench| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        bench.say(&[private(1)], "x", 60);
                    }
                });
            }
            let (mut seen, mut position) = (0, MessageId::ZERO);
            while seen < 300 {
                let replay = bench.replay(&[private(1)], position);
                seen += replay.envelopes.len();
                position = replay.envelopes.last().map_or(position, |e| e.id);
            }
            assert_eq!(seen, 300);
        });
    });
}

#[test]
fn q_142_q_145_history_has_what_was_stored_ascending_and_once() {
    on_each(limits(), |bench| {
        let first = bench.say(&[private(1)], "a", 60);
        bench.say(&[public(1), private(1), public(1)], "b", 60);
        bench.say(&[private(2)], "other", 60);
        bench.say(&[public(1)], "c", 60);
        let replay = bench.replay(&[private(1), public(1), private(1)], MessageId::ZERO);
        assert_eq!(bodies(&replay.envelopes), ["a", "b", "c"]);
        assert!(!replay.gap);
        let replay = bench.replay(&[public(1), private(1)], first);
        assert_eq!(bodies(&replay.envelopes), ["b", "c"]);
        assert_eq!(replay.envelopes[0].receivers[..], [public(1), private(1), public(1)]);
        assert_eq!(bench.replay(&[public(2)], MessageId::ZERO).envelopes.len(), 0);
    });
}

#[test]
fn an_envelope_comes_back_as_it_was_announced() {
    on_each(limits(), |bench| {
        let author = Author::Client(ChannelId::from_bytes([7; 16]));
        bench.clock.advance(Duration::from_millis(123));
        let body = Bytes::from_static(b"\x00\xffno text");
        bench.publish(vec![Draft { author, body, ..draft(&[public(3)], "", 5) }]).unwrap();
        let (live, kept) = (bench.announced(), bench.replay(&[public(3)], MessageId::ZERO));
        let [live, kept] = [&live[0], &kept.envelopes[0]];
        assert_eq!((live.id, live.created_ms), (kept.id, kept.created_ms));
        assert_eq!((&live.body, live.author, live.expiry), (&kept.body, author, kept.expiry));
        assert_eq!(live.receivers, kept.receivers);
    });
}

#[test]
fn a_message_of_generation_5_comes_back_with_its_users_and_additions() {
    use vestnik_core::message::Additions;
    use vestnik_core::{User, UserId, UserSpace};
    let user = |number| User { space: UserSpace::of("site"), id: UserId::new(number).unwrap() };
    on_each(limits(), |bench| {
        let to = [private(3), Receiver::User(user(-7)), Receiver::User(user(8))];
        let additions = Additions::new(vec![
            (user(8), Bytes::from_static(b"{\"counter\":3}")),
            (user(-7), Bytes::from_static(b"{}")),
        ]);
        for author in [Author::User(UserId::new(8).unwrap()), Author::Unnamed, Author::Backend] {
            let draft = Draft { author, additions: additions.clone(), ..draft(&to, "{}", 60) };
            let before = bench.engine.last_id();
            bench.publish(vec![draft]).unwrap();
            for receiver in to {
                let kept = bench.replay(&[receiver], before);
                let [kept] = &kept.envelopes[..] else { panic!("one message") };
                assert_eq!(kept.receivers[..], to);
                assert_eq!(
                    (kept.author, &kept.additions, &kept.body[..]),
                    (author, &additions, &b"{}"[..])
                );
            }
        }
        let crowd: Vec<_> = (1..=70_000).map(|number| Receiver::User(user(number))).collect();
        bench.publish(vec![draft(&crowd, "crowd", 60)]).unwrap();
        let kept = bench.replay(&[Receiver::User(user(70_000))], MessageId::ZERO);
        assert_eq!(kept.envelopes[0].receivers.len(), crowd.len());
    });
}

#[test]
fn a_replay_that_is_too_large_is_read_from_its_beginning_on() {
    on_each(limits(), |bench| {
        let to = [private(1)];
        let ids: Vec<_> = (0..7).map(|n| bench.say(&to, &n.to_string().repeat(1000), 60)).collect();
        let mut seen = MessageId::ZERO;
        let mut read = Vec::new();
        loop {
            // Of a file whole records are counted, which are larger than their bodies.
            let part = bench.engine.history(&to, seen, 2500).read().unwrap();
            assert!(!part.gap && (1..=2).contains(&part.envelopes.len()));
            read.extend(part.envelopes.iter().map(|envelope| envelope.id));
            seen = part.envelopes.last().unwrap().id;
            if !part.more {
                break;
            }
        }
        assert_eq!(read, ids);
        let alone = bench.engine.history(&to, MessageId::ZERO, 10).read().unwrap();
        assert_eq!((alone.envelopes.len(), alone.more), (1, true), "one always fits");
        let all = bench.engine.history(&to, MessageId::ZERO, 1 << 20).read().unwrap();
        assert_eq!((all.envelopes.len(), all.more), (7, false));
        let none = bench.engine.history(&[private(2)], MessageId::ZERO, 10).read().unwrap();
        assert_eq!((none.envelopes.len(), none.more), (0, false));
    });
}

#[test]
fn q_143_volatile_messages_are_not_replayed() {
    on_each(limits(), |bench| {
        bench.say(&[private(1)], "typing", 0);
        assert_eq!(bench.announced().len(), 1);
        assert!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.is_empty());
        assert_eq!(bench.newest(&[private(1)]), None);
        assert_eq!([Metric::Stored, Metric::Published].map(|m| bench.count(m)), [0, 1]);
        assert_eq!(bench.count(Metric::PublishedBytes), 6);
    });
}

#[test]
fn q_144_expired_messages_are_not_replayed_even_before_they_are_swept() {
    on_each(limits(), |bench| {
        bench.say(&[private(1)], "short", 10);
        let long = bench.say(&[private(1)], "long", 20);
        bench.clock.advance(Duration::from_millis(9_999));
        assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 2);
        bench.clock.advance(Duration::from_millis(1));
        let replay = bench.replay(&[private(1)], MessageId::ZERO);
        assert_eq!(bodies(&replay.envelopes), ["long"]);
        assert!(!replay.gap, "expiry is no gap");
        assert_eq!(bench.newest(&[private(1)]), Some(long));
    });
}

#[test]
fn q_178_w_011_the_sweep_frees_what_expired_and_a_day_later_its_channels() {
    on_local(limits(), |bench| {
        for n in 0..1500 {
            bench.say(&[private(1), public(2)], "x", 5 + n % 10);
        }
        assert_eq!(bench.count(Metric::HistoryMessages), 1500 - 500);
        bench.clock.advance(Duration::from_secs(9));
        bench.engine.sweep();
        assert!(bench.count(Metric::HistoryMessages) < 600);
        bench.clock.advance(Duration::from_secs(20));
        bench.engine.sweep();
        assert_eq!(bench.count(Metric::HistoryMessages), 0);
        let gone = bench.count(Metric::HistoryExpired) + bench.count(Metric::HistoryEvicted);
        assert_eq!(gone, 1500);
        assert_eq!(channel_count(bench), 2);
        bench.clock.advance(Duration::from_secs(86_400));
        bench.engine.sweep();
        assert_eq!(channel_count(bench), 0);
    });
}

fn channel_count(bench: &Bench) -> usize {
    match &*bench.engine {
        Engine::Memory(memory) => memory.channel_count(),
        Engine::Disk(disk) => disk.channel_count(),
        Engine::Redis(_) => unreachable!("redis forgets by itself"),
    }
}

#[test]
fn q_178_the_entry_of_a_channel_lives_as_long_as_its_newest_message() {
    on_each(limits(), |bench| {
        bench.say(&[private(1)], "first", 86_400);
        bench.clock.advance(Duration::from_secs(80_000));
        let second = bench.say(&[private(1)], "second", 86_400);
        bench.clock.advance(Duration::from_secs(80_000));
        bench.engine.sweep();
        assert_eq!(bodies(&bench.replay(&[private(1)], MessageId::ZERO).envelopes), ["second"]);
        bench.clock.advance(Duration::from_secs(6_399));
        bench.engine.sweep();
        assert_eq!(bench.newest(&[private(1)]), Some(second));
    });
}

#[test]
fn q_179_w_013_the_newest_id_is_known_after_its_message_expired() {
    on_each(limits(), |bench| {
        bench.say(&[private(1)], "a", 60);
        let newest = bench.say(&[private(1)], "b", 5);
        bench.say(&[private(1)], "volatile", 0);
        bench.clock.advance(Duration::from_secs(61));
        bench.engine.sweep();
        assert_eq!(bench.newest(&[private(2), private(1)]), Some(newest));
        assert_eq!(bench.newest(&[private(2)]), None);
    });
}

#[test]
fn q_195_w_012_a_channel_keeps_its_newest_messages_and_older_positions_have_a_gap() {
    let limits = HistoryLimits { messages_per_channel: 3, ..limits() };
    on_each(limits, |bench| {
        let shared = bench.say(&[private(1), private(2)], "0", 60);
        let ids: Vec<MessageId> =
            (1..=4).map(|n| bench.say(&[private(1)], &n.to_string(), 60)).collect();
        let replay = bench.replay(&[private(1)], shared);
        assert_eq!(bodies(&replay.envelopes), ["2", "3", "4"]);
        assert!(replay.gap);
        assert!(!bench.replay(&[private(1)], ids[0]).gap, "1 was the newest that left");
        assert!(bench.replay(&[private(1)], MessageId::ZERO).gap);
        let replay = bench.replay(&[private(2)], MessageId::ZERO);
        assert_eq!((bodies(&replay.envelopes), replay.gap), (vec!["0".to_owned()], false));
        if !matches!(&*bench.engine, Engine::Redis(_)) {
            assert_eq!(bench.count(Metric::HistoryMessages), 4);
            assert_eq!(bench.count(Metric::HistoryEvicted), 1);
        }
    });
}

#[test]
fn q_195_a_replay_is_bounded_and_says_what_it_left_out() {
    let limits = HistoryLimits { replay_messages: 3, ..limits() };
    on_each(limits, |bench| {
        let ids: Vec<MessageId> =
            (0..6).map(|n| bench.say(&[private(1 + n % 2)], &n.to_string(), 60)).collect();
        let replay = bench.replay(&[private(1), private(2)], ids[0]);
        assert_eq!(
            (bodies(&replay.envelopes), replay.gap),
            (vec!["3".into(), "4".into(), "5".into()], true)
        );
        assert!(!bench.replay(&[private(1), private(2)], ids[2]).gap);
    });
}

#[test]
fn q_195_all_channels_together_are_bounded_the_oldest_leave_first() {
    let limits = HistoryLimits { messages: 4, ..limits() };
    on_local(limits, |bench| {
        let ids: Vec<MessageId> = (1..=6).map(|n| bench.say(&[private(n)], "x", 60)).collect();
        assert_eq!(bench.count(Metric::HistoryMessages), 4);
        assert_eq!(bench.count(Metric::HistoryEvicted), 2);
        assert!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.is_empty());
        assert!(bench.replay(&[private(2)], ids[0]).gap);
        assert!(!bench.replay(&[private(6)], ids[0]).gap);
        assert!(channel_count(bench) <= 6);
        for n in 0..100 {
            let to = Receiver::Public(ChannelId::from_bytes([100 + n; 16]));
            bench.say(&[to], "x", 60);
        }
        assert!(channel_count(bench) <= 8, "idle channels are forgotten when there are too many");
        let many: Vec<Receiver> = (1..=100).map(private).collect();
        bench.say(&many, "to a hundred", 60);
        assert!(bench.count(Metric::HistoryMessages) <= 1, "entries of channels are bounded too");
    });
}

#[test]
fn a_position_from_another_store_or_above_the_newest_id_is_a_gap() {
    on_each(limits(), |bench| {
        let id = bench.say(&[private(1)], "a", 60);
        let older = MessageId::new(id.epoch() - 1, 77);
        let replay = bench.replay(&[private(1)], older);
        assert_eq!((replay.envelopes.len(), replay.gap), (1, true));
        let replay = bench.replay(&[private(1)], MessageId::new(id.epoch(), id.seq() + 1));
        assert_eq!((replay.envelopes.len(), replay.gap), (0, true));
        let replay = bench.replay(&[private(1)], bench.engine.last_id());
        assert_eq!((replay.envelopes.len(), replay.gap), (0, false));
    });
}

#[test]
fn creation_times_never_fall_even_if_the_clock_does() {
    on_each(limits(), |bench| {
        bench.say(&[private(1)], "a", 60);
        if let Clock::Manual(now) = &bench.clock {
            now.fetch_sub(5_000, Ordering::Relaxed);
        }
        bench.say(&[private(1)], "b", 60);
        bench.say(&[private(1)], "c", 0);
        let times: Vec<u64> = bench.announced().iter().map(|e| e.created_ms).collect();
        assert_eq!(times, [START_S * 1000; 3]);
    });
}

#[test]
fn a_closed_engine_takes_nothing_and_still_answers_readers() {
    on_local(limits(), |bench| {
        let id = bench.say(&[private(1)], "a", 60);
        bench.engine.close();
        bench.engine.close();
        for seconds in [0, 60] {
            let refused = bench.engine.submit(batch(vec![draft(&[private(1)], "b", seconds)]));
            assert!(matches!(refused, Err(EngineError::Closed)));
        }
        bench.engine.sweep();
        assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 1);
        assert_eq!(bench.engine.last_id(), id);
    });
}

#[test]
fn messages_evicted_one_by_one_leave_nothing_behind_in_the_index() {
    let limits = HistoryLimits { messages_per_channel: 2, ..limits() };
    on_local(limits, |bench| {
        for n in 0..500 {
            bench.say(&[private(1), private(2)], "x", if n % 100 == 0 { 5 } else { 3600 });
            if n % 50 == 0 {
                bench.clock.advance(Duration::from_secs(6));
                bench.engine.sweep();
            }
        }
        assert_eq!(bench.count(Metric::HistoryMessages), 2);
        bench.clock.advance(Duration::from_secs(3600));
        bench.engine.sweep();
        assert_eq!(bench.count(Metric::HistoryMessages), 0);
        let removed = bench.count(Metric::HistoryExpired) + bench.count(Metric::HistoryEvicted);
        assert_eq!(removed, 500);
    });
}
