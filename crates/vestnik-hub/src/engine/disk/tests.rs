//! What only the disk engine promises: restarts, failures, damage.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use vestnik_core::Draft;

use super::record::Head;
use super::*;
use crate::engine::contract::{Bench, START_S, batch, bodies, draft, private, public, wait};
use crate::engine::{Engine, IfUnstored};

impl Bench {
    fn inner(&self) -> &Disk {
        match &*self.engine {
            Engine::Disk(disk) => disk,
            Engine::Memory(_) | Engine::Redis(_) => panic!("not on disk"),
        }
    }

    fn directory(&self) -> PathBuf {
        self.directory.path().join("history")
    }

    fn open_again(&self) -> Result<Engine, OpenError> {
        Engine::disk(
            self.options.clone().unwrap(),
            self.limits,
            Arc::clone(&self.announcer),
            self.clock.clone(),
            Arc::clone(&self.metrics),
        )
    }

    /// Ends the process in order, or by force, and starts it again.
    fn restart(mut self, how: How) -> Self {
        if how == How::Killed {
            self.inner().kill();
        }
        self.engine.close();
        // The lock goes with the engine: the old one must be gone before the new one opens.
        self.engine = Arc::new(Engine::memory(
            self.limits,
            Arc::clone(&self.announcer),
            self.clock.clone(),
            Arc::default(),
        ));
        self.engine = Arc::new(self.open_again().unwrap());
        self
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }

    fn fail(&self, fault: fn(&Faults) -> &std::sync::atomic::AtomicBool, fails: bool) {
        fault(&self.inner().shared.faults).store(fails, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    InOrder,
    Killed,
}

fn bench() -> Bench {
    Bench::disk(HistoryLimits::on_disk(), |_| {})
}

#[test]
fn w_014_q_129_ids_go_on_after_a_restart_and_messages_are_there() {
    let bench = bench();
    let first = bench.say(&[private(1), public(2)], "a", 600);
    let volatile = bench.say(&[private(1)], "volatile", 0);
    let bench = bench.restart(How::InOrder);
    assert_eq!(bench.engine.last_id(), volatile);
    let second = bench.say(&[private(1)], "b", 600);
    assert_eq!(second, volatile.next());
    let replay = bench.replay(&[private(1)], MessageId::ZERO);
    assert_eq!(bodies(&replay.envelopes), ["a", "b"]);
    assert_eq!(bench.replay(&[private(1)], first).envelopes.len(), 1);
    assert!(!bench.replay(&[private(1)], volatile).gap);
    assert_eq!(bench.newest(&[public(2)]), Some(first));
    assert_eq!(bench.count(Metric::HistoryMessages), 2);
}

#[test]
fn w_014_q_129_ids_of_volatile_messages_are_not_given_again_after_a_kill() {
    let mut bench = bench();
    let mut last = MessageId::ZERO;
    for _ in 0..5 {
        bench.say(&[private(1)], "stored", 600);
        for _ in 0..10 {
            let id = bench.say(&[private(1)], "volatile", 0);
            assert!(id > last);
            last = id;
        }
        bench = bench.restart(How::Killed);
        assert!(!bench.replay(&[private(1)], last).gap, "nothing was lost");
    }
    assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 5);
    assert_eq!(last.epoch(), START_S, "the epoch is that of the store");
}

#[test]
fn q_129_ids_are_reserved_again_before_they_run_out() {
    let bench = bench();
    let first = bench.say(&[private(1)], "first", 0);
    let many = usize::try_from(RESERVE / 10).unwrap();
    for _ in 0..25 {
        let drafts = vec![draft(&[], "", 0); many];
        bench.publish(drafts).unwrap();
    }
    let last = bench.say(&[private(1)], "last", 0);
    assert_eq!(last.seq(), first.seq() + 25 * many as u64 + 1);
    let bench = bench.restart(How::Killed);
    assert!(bench.say(&[private(1)], "after", 0) > last);
}

#[test]
fn q_180_ids_do_not_fall_after_the_store_is_lost() {
    let bench = bench();
    let before = bench.say(&[private(1)], "a", 600);
    bench.engine.close();
    for name in bench.files() {
        std::fs::remove_file(bench.directory().join(name)).unwrap();
    }
    bench.clock.advance(Duration::from_secs(1));
    let bench = bench.restart(How::InOrder);
    let after = bench.say(&[private(1)], "b", 600);
    assert!(after > before);
    assert!(bench.replay(&[private(1)], before).gap, "the position is of another store");
}

#[test]
fn creation_times_do_not_fall_over_a_restart_with_a_clock_that_is_behind() {
    let bench = bench();
    bench.say(&[private(1)], "a", 600);
    if let Clock::Manual(now) = &bench.clock {
        now.fetch_sub(60_000, Ordering::Relaxed);
    }
    let bench = bench.restart(How::Killed);
    bench.say(&[private(1)], "b", 600);
    let times: Vec<u64> = bench.announced().iter().map(|e| e.created_ms).collect();
    assert_eq!(times, [START_S * 1000; 2]);
}

#[test]
fn messages_copied_to_another_file_before_a_kill_are_found_once() {
    let bench = bench();
    let ids: Vec<MessageId> = (0..3).map(|_| bench.say(&[private(1)], "x", 600)).collect();
    bench.inner().kill();
    let path = bench.directory().join("00000001.log");
    std::fs::copy(&path, bench.directory().join("00000002.log")).unwrap();
    let bench = bench.restart(How::Killed);
    let replay = bench.replay(&[private(1)], MessageId::ZERO);
    assert_eq!(replay.envelopes.iter().map(|e| e.id).collect::<Vec<_>>(), ids);
    bench.clock.advance(Duration::from_secs(600));
    housekeeping(&bench);
    assert_eq!(bench.files().len(), 1, "{:?}", bench.files());
}

#[test]
fn old_messages_are_read_from_files_and_newest_ones_from_memory() {
    let bench = Bench::disk(HistoryLimits::on_disk(), |options| options.cache_bytes = 20_000);
    let ids: Vec<MessageId> =
        (0..200).map(|n| bench.say(&[private(1)], &format!("{n:0100}"), 600)).collect();
    for restarted in [false, true] {
        assert!(matches!(
            bench.engine.history(&[private(1)], ids[195], usize::MAX),
            Lookup::Ready(_)
        ));
        assert!(matches!(
            bench.engine.history(&[private(1)], ids[10], usize::MAX),
            Lookup::Disk(_)
        ));
        let replay = bench.replay(&[private(1)], ids[99]);
        assert_eq!(replay.envelopes.iter().map(|e| e.id).collect::<Vec<_>>(), ids[100..]);
        if restarted {
            return;
        }
    }
}

#[test]
fn q_179_the_newest_id_survives_a_restart_after_its_message_expired() {
    let bench = bench();
    bench.say(&[private(2)], "lives", 3600);
    let newest = bench.say(&[private(1)], "short", 5);
    bench.clock.advance(Duration::from_secs(10));
    let bench = bench.restart(How::Killed);
    assert_eq!(bench.newest(&[private(1)]), Some(newest));
    assert_eq!(bench.count(Metric::HistoryMessages), 1);
}

#[test]
fn w_008_a_volatile_message_waits_behind_a_stored_one_that_is_being_written() {
    let bench = bench();
    let pause = bench.inner().shared.faults.pause.lock().unwrap();
    let submit = |body, seconds| {
        bench.engine.submit(batch(vec![draft(&[private(1)], body, seconds)])).unwrap()
    };
    let tickets = [submit("1", 60), submit("2", 0), submit("3", 60), submit("4", 0)];
    assert!(bench.announced().is_empty());
    assert!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.is_empty());
    drop(pause);
    let ids = tickets.map(|ticket| wait(ticket).unwrap()[0]);
    assert!(ids.is_sorted());
    assert_eq!(bodies(&bench.announced()), ["1", "2", "3", "4"]);
    assert!(matches!(submit("5", 0), Ticket::Ready(_)), "nothing waits any more");
}

#[test]
fn w_030_what_waits_to_be_stored_is_bounded_and_the_rest_is_refused() {
    let bench = Bench::disk(HistoryLimits::on_disk(), |options| {
        options.pending_messages = 10;
        options.pending_bytes = 1000;
    });
    let pause = bench.inner().shared.faults.pause.lock().unwrap();
    let submit = |body: &str| bench.engine.submit(batch(vec![draft(&[private(1)], body, 60)]));
    let mut tickets = vec![submit("first").unwrap()];
    while !bench.inner().shared.lock().in_flight {
        std::thread::yield_now();
    }
    let refused = loop {
        match submit("x") {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        assert!(tickets.len() <= 11, "one is being written, ten wait");
    };
    assert!(matches!(refused, EngineError::Overloaded { waiting: 10 }), "{refused}");
    let volatile = bench.engine.submit(batch(vec![draft(&[private(1)], "v", 0)]));
    assert!(matches!(volatile, Err(EngineError::Overloaded { .. })));
    drop(pause);
    let taken = tickets.len();
    for ticket in tickets {
        wait(ticket).unwrap();
    }
    assert_eq!(bench.announced().len(), taken, "what was refused is not delivered later");
    wait(submit(&"long".repeat(1000)).unwrap()).unwrap();
}

/// Publishes while the store fails: stored and volatile, by publishers that repeat and that do not.
fn check_failing_store(fault: fn(&Faults) -> &std::sync::atomic::AtomicBool) {
    let bench = bench();
    bench.say(&[private(1)], "before", 600);
    bench.announced();
    bench.fail(fault, true);
    let submit = |if_unstored, drafts: Vec<Draft>| {
        wait(bench.engine.submit(Batch { drafts, if_unstored }).unwrap())
    };
    let to = [private(1)];
    let stored = |body| draft(&to, body, 600);
    let volatile = |body| draft(&to, body, 0);
    for _ in 0..2 {
        let lost = submit(IfUnstored::Deliver, vec![stored("live"), volatile("with it")]);
        assert!(matches!(lost, Err(EngineError::Store(_))), "{lost:?}");
        let lost = submit(IfUnstored::Withhold, vec![volatile("again"), stored("again")]);
        assert!(matches!(lost, Err(EngineError::Store(_))), "{lost:?}");
        assert_eq!(submit(IfUnstored::Withhold, vec![volatile("typing")]).unwrap().len(), 1);
        assert_eq!(bodies(&bench.announced()), ["live", "with it", "typing"]);
    }
    assert_eq!(bench.count(Metric::NotStored), 4);
    assert_eq!(bench.count(Metric::Stored), 1);
    let kept = bench.replay(&to, MessageId::ZERO);
    assert_eq!(bodies(&kept.envelopes), ["before"]);
    bench.fail(fault, false);
    bench.say(&to, "after", 600);
    assert_eq!(bodies(&bench.replay(&to, MessageId::ZERO).envelopes), ["before", "after"]);
    let bench = bench.restart(How::Killed);
    assert_eq!(bodies(&bench.replay(&to, MessageId::ZERO).envelopes), ["before", "after"]);
    assert_eq!(bench.count(Metric::HistoryDamaged), 0);
}

#[test]
fn q_189_w_003_a_failed_write_is_answered_and_the_policy_of_the_publisher_kept() {
    check_failing_store(|faults| &faults.write);
}

#[test]
fn q_189_w_003_a_failed_sync_is_answered_and_another_file_is_begun() {
    check_failing_store(|faults| &faults.sync);
}

#[test]
fn a_message_too_long_to_be_kept_is_refused() {
    let bench = bench();
    let body = Bytes::from(vec![b'x'; record::PAYLOAD_MAX]);
    let long = Draft { body, ..draft(&[private(1)], "", 60) };
    let refused = bench.engine.submit(batch(vec![long]));
    assert!(matches!(refused, Err(EngineError::Store(_))));
}

#[test]
fn interval_and_never_sync_less_and_lose_nothing_to_a_kill() {
    for sync in [Sync::Interval(Duration::from_secs(3600)), Sync::Never] {
        let bench = Bench::disk(HistoryLimits::on_disk(), |options| options.sync = sync);
        for n in 0..20 {
            bench.say(&[private(1)], &n.to_string(), 600);
        }
        assert_eq!(bench.count(Metric::HistorySyncs), 0, "{sync:?}");
        let bench = bench.restart(How::Killed);
        assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 20);
    }
}

#[test]
fn room_is_filled_only_where_every_message_is_forced_to_disk() {
    use std::os::unix::fs::MetadataExt as _;
    /// What the system says in blocks of, whatever the file system.
    const BLOCK: u64 = 512;
    for (sync, is_filled) in [(Sync::Always, true), (Sync::Never, false)] {
        let bench = Bench::disk(HistoryLimits::on_disk(), |options| options.sync = sync);
        bench.say(&[private(1)], "a", 600);
        let files = bench.files().into_iter().map(|name| bench.directory().join(name));
        let found = files.map(|path| std::fs::metadata(path).unwrap());
        let largest = found.max_by_key(|file| file.len()).unwrap();
        assert!(largest.len() >= 1 << 20, "room ahead of the message");
        // Without a sync the system may not have given any block yet.
        assert_eq!(largest.blocks() * BLOCK >= largest.len(), is_filled, "{sync:?}");
        assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 1);
        let bench = bench.restart(How::Killed);
        assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 1);
    }
}

#[test]
fn interval_syncs_after_the_answer() {
    let bench = Bench::disk(HistoryLimits::on_disk(), |options| {
        options.sync = Sync::Interval(Duration::ZERO);
    });
    bench.say(&[private(1)], "a", 600);
    bench.say(&[private(1)], "b", 600); // written after the first one's sync
    assert!(bench.count(Metric::HistorySyncs) >= 1);
}

#[test]
fn what_waits_is_stored_before_the_end() {
    let bench = bench();
    let pause = bench.inner().shared.faults.pause.lock().unwrap();
    let tickets: Vec<Ticket> = (0..10)
        .map(|_| bench.engine.submit(batch(vec![draft(&[private(1)], "x", 600)])).unwrap())
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| bench.engine.close());
        drop(pause);
    });
    for ticket in tickets {
        assert_eq!(wait(ticket).unwrap().len(), 1);
    }
    let bench = bench.restart(How::InOrder);
    assert_eq!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.len(), 10);
}

/// Lets the writer do its regular work, and waits until it has done it.
fn housekeeping(bench: &Bench) {
    bench.engine.sweep();
    // The writer takes housekeeping and batches in order; the second answer is after the first work.
    for _ in 0..2 {
        bench.say(&[private(9)], "", 1);
    }
}

#[test]
fn q_178_files_go_when_nothing_in_them_lives() {
    let limits = HistoryLimits { bytes: 1 << 20, ..HistoryLimits::on_disk() };
    let bench = Bench::disk(limits, |options| options.segment_bytes = 8192);
    for _ in 0..300 {
        bench.say(&[private(1)], &"x".repeat(100), 60);
    }
    let many = bench.files().len();
    assert!(many > 5, "{many}");
    assert_eq!(bench.count(Metric::HistorySegments), many as u64);
    bench.clock.advance(Duration::from_secs(61));
    housekeeping(&bench);
    housekeeping(&bench);
    assert!(bench.files().len() <= 2, "{:?}", bench.files());
    assert!(bench.count(Metric::HistoryBytes) < 20_000);
    assert!(bench.count(Metric::HistoryCompactedBytes) > 30_000);
}

#[test]
fn a_file_ends_after_its_age() {
    let bench = bench();
    bench.say(&[private(1)], "a", 86_400);
    bench.clock.advance(Duration::from_secs(3600));
    housekeeping(&bench);
    assert_eq!(bench.files(), ["00000001.log", "00000002.log"]);
}

#[test]
fn q_195_files_are_bounded_sparse_ones_are_rewritten_and_the_oldest_messages_leave() {
    let limits = HistoryLimits { bytes: 64 << 10, ..HistoryLimits::on_disk() };
    let bench = Bench::disk(limits, |options| options.cache_bytes = 0);
    let mut long = Vec::new();
    for n in 0..100 {
        // One in twenty lives long; the rest expires, but not whole files.
        let seconds = if n % 20 == 0 { 86_400 } else { 5 };
        let id = bench.say(&[private(1)], &"x".repeat(400), seconds);
        if seconds > 5 {
            long.push(id);
        }
    }
    bench.clock.advance(Duration::from_secs(6));
    housekeeping(&bench);
    for _ in 0..60 {
        bench.say(&[private(2)], &"y".repeat(400), 86_400);
    }
    let found = |bench: &Bench| {
        let replay = bench.replay(&[private(1)], MessageId::ZERO);
        (replay.envelopes.iter().map(|e| e.id).collect::<Vec<_>>(), replay.gap)
    };
    assert_eq!(found(&bench), (long.clone(), false), "copied, not lost");
    assert!(bench.count(Metric::HistoryBytes) <= 72 << 10);
    let bench = bench.restart(How::Killed);
    assert_eq!(found(&bench), (long.clone(), false), "copies are found again");
    for _ in 0..300 {
        bench.say(&[private(2)], &"z".repeat(400), 86_400);
        assert!(bench.count(Metric::HistoryBytes) <= 72 << 10);
    }
    assert!(bench.count(Metric::HistoryEvicted) > 100);
    assert!(bench.replay(&[private(1)], long[0]).gap);
    let bench = bench.restart(How::Killed);
    assert!(bench.replay(&[private(1)], long[0]).gap, "the gap is known after a restart");
    assert!(!bench.replay(&[private(2)], bench.engine.last_id()).gap);
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let bench = bench();
    let refused = bench.open_again().unwrap_err();
    assert!(matches!(&refused, OpenError::Locked { .. }));
    let directory = bench.directory().display().to_string();
    assert!(refused.to_string().contains(&directory), "{refused}");
}

#[test]
fn files_and_directory_are_for_their_owner_alone() {
    let bench = bench();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.directory()), 0o700);
    assert_eq!(mode(&bench.directory().join("00000001.log")), 0o600);
    assert_eq!(mode(&bench.directory().join("lock")), 0o600);
}

#[test]
fn what_is_no_history_is_refused_with_advice() {
    let check = |prepare: &dyn Fn(&Path), expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        prepare(&path);
        let opened = Disk::open(
            DiskOptions::new(&path),
            HistoryLimits::on_disk(),
            Arc::new(Announcer::new(1, 10)),
            Clock::manual(START_S),
            Arc::default(),
        );
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("history"), "{error}");
    };
    check(&|path| std::fs::write(path, "a file").unwrap(), "not a directory");
    let with_file = |path: &Path, name: &str, bytes: &[u8]| {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join(name), bytes).unwrap();
    };
    check(&|path| with_file(path, "access.log", b"GET /"), "not a file of the history");
    check(&|path| with_file(path, "00000001.log", &[b'x'; 100]), "not a file of the history");
    let mut newer = Salt::random().head();
    newer.truncate(20);
    newer[8] = 9;
    let checksum = crc32fast::hash(&newer[..16]).to_le_bytes();
    newer[16..].copy_from_slice(&checksum);
    check(&|path| with_file(path, "00000001.log", &newer), "format version 9");
}

/// Ids of messages and where their records are in a file.
type Ranges = Vec<(MessageId, std::ops::Range<usize>)>;

/// An ended store with a few messages; the bytes of its only file, most of what is unused at its end
/// left out, and where each message is in it.
fn small_log(how: How) -> (Bench, Vec<u8>, Ranges) {
    let bench = bench();
    let ids: Vec<MessageId> =
        (0..5).map(|n| bench.say(&[private(1)], &format!("body {n}"), 86_400)).collect();
    if how == How::Killed {
        bench.inner().kill();
    }
    bench.engine.close();
    let path = bench.directory().join("00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    if how == How::Killed {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes.truncate(used + 64);
    }
    let file = segment::open(&path).unwrap();
    let Head::Known(salt) = Head::read(&bytes[..40]) else { panic!("no head") };
    let mut scan = segment::Scan::new(&file, salt).unwrap();
    let mut ranges = Vec::new();
    while let Some(segment::Found::Record(offset, record)) = scan.next().unwrap() {
        if let Some(Record::Message(envelope)) = record::read(&record) {
            let start = usize::try_from(offset).unwrap();
            ranges.push((envelope.id, start..start + record.len()));
        }
    }
    assert_eq!(ranges.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    (bench, bytes, ranges)
}

/// Opens a store whose file has these bytes; returns the ids it has and gives next.
fn open_with(bench: &Bench, bytes: &[u8]) -> (Vec<MessageId>, MessageId, Arc<Metrics>) {
    // A thousand stores are opened: where there is a file system in memory, there.
    let memory = Path::new("/dev/shm");
    let directory =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.unwrap();
    std::fs::write(directory.path().join("00000001.log"), bytes).unwrap();
    let metrics = Arc::<Metrics>::default();
    let mut options = DiskOptions::new(directory.path());
    options.cache_bytes = 0;
    let open = || {
        let announcer = Arc::clone(&bench.announcer);
        let (clock, metrics) = (bench.clock.clone(), Arc::clone(&metrics));
        Engine::disk(options.clone(), bench.limits, announcer, clock, metrics).unwrap()
    };
    let found = |engine: &Engine| -> Vec<MessageId> {
        let replay = engine.history(&[private(1)], MessageId::ZERO, usize::MAX).read().unwrap();
        replay.envelopes.iter().map(|envelope| envelope.id).collect()
    };
    let engine = open();
    let ids = found(&engine);
    let next = engine.submit(batch(vec![draft(&[private(2)], "", 60)])).unwrap();
    let next = wait(next).unwrap()[0];
    drop(engine);
    let damaged = metrics.get(Metric::HistoryDamaged);
    assert_eq!(found(&open()), ids, "a second opening finds the same");
    assert_eq!(metrics.get(Metric::HistoryDamaged), damaged, "damage is reported once");
    let aside = directory.path().join("00000001.log.damaged").exists();
    assert_eq!(aside, damaged > 0, "damaged files are kept aside");
    (ids, next, metrics)
}

#[test]
fn a_flipped_bit_anywhere_costs_at_most_the_message_it_hits_and_no_id_is_given_twice() {
    for how in [How::InOrder, How::Killed] {
        check_flipped_bits(how);
    }
}

fn check_flipped_bits(how: How) {
    let (bench, bytes, ranges) = small_log(how);
    bench.clock.advance(Duration::from_secs(1));
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        let (ids, next, _) = open_with(&bench, &flipped);
        let whole = ranges.iter().filter(|(_, range)| !range.contains(&position));
        assert_eq!(ids, whole.map(|(id, _)| *id).collect::<Vec<_>>(), "byte {position}");
        assert!(next > ranges[4].0, "byte {position}");
    }
}

#[test]
fn a_file_cut_off_anywhere_keeps_the_messages_before_the_cut_and_no_id_is_given_twice() {
    for how in [How::InOrder, How::Killed] {
        check_cuts(how);
    }
}

fn check_cuts(how: How) {
    let (bench, bytes, ranges) = small_log(how);
    bench.clock.advance(Duration::from_secs(1));
    for length in 0..bytes.len() {
        let (ids, next, metrics) = open_with(&bench, &bytes[..length]);
        let whole = ranges.iter().filter(|(_, range)| range.end <= length);
        assert_eq!(ids, whole.map(|(id, _)| *id).collect::<Vec<_>>(), "cut at {length}");
        assert!(next > ranges[4].0, "cut at {length}");
        assert_eq!(metrics.get(Metric::HistoryDamaged), 0, "a torn end is no damage");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn bytes_overwritten_anywhere_cost_at_most_what_they_hit(
        start in 40_usize..500,
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..80),
    ) {
        let (bench, mut bytes, ranges) = small_log(How::InOrder);
        let start = start.min(bytes.len() - 1);
        let end = (start + noise.len()).min(bytes.len());
        bytes[start..end].copy_from_slice(&noise[..end - start]);
        let (ids, _, _) = open_with(&bench, &bytes);
        for (id, range) in ranges {
            if range.end <= start || range.start >= end {
                proptest::prop_assert!(ids.contains(&id));
            }
        }
    }
}

/// What a history is put through.
#[derive(Clone, Debug)]
enum Step {
    Say { to: u8, seconds: u64 },
    SayBoth { seconds: u64 },
    Fail(bool),
    Advance(u64),
    Sweep,
    Restart(bool),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        6 => (1_u8..4, 0_u64..40).prop_map(|(to, seconds)| Step::Say { to, seconds }),
        3 => (1_u64..40).prop_map(|seconds| Step::SayBoth { seconds }),
        1 => any::<bool>().prop_map(Step::Fail),
        2 => (0_u64..15).prop_map(Step::Advance),
        2 => Just(Step::Sweep),
        1 => any::<bool>().prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn history_holds_what_a_list_would_whatever_happens(steps in steps()) {
        const KEPT: usize = 5;
        let limits = HistoryLimits { messages_per_channel: KEPT, ..HistoryLimits::on_disk() };
        let mut bench = Bench::disk(limits, |options| options.cache_bytes = 2000);
        let mut said: Vec<(MessageId, Vec<Receiver>, u64)> = Vec::new();
        let mut last = MessageId::ZERO;
        for step in steps {
            let (to, seconds) = match step {
                Step::Say { to, seconds } => (vec![private(to)], seconds),
                Step::SayBoth { seconds } => (vec![private(1), private(2)], seconds),
                Step::Fail(fails) => {
                    bench.fail(|faults| &faults.write, fails);
                    continue;
                }
                Step::Advance(seconds) => {
                    bench.clock.advance(Duration::from_secs(seconds));
                    continue;
                }
                Step::Sweep => {
                    bench.engine.sweep();
                    continue;
                }
                Step::Restart(killed) => {
                    bench.fail(|faults| &faults.write, false);
                    bench = bench.restart(if killed { How::Killed } else { How::InOrder });
                    continue;
                }
            };
            if let Ok(ids) = bench.publish(vec![draft(&to, "body", seconds)]) {
                proptest::prop_assert!(ids[0] > last);
                last = ids[0];
                if seconds > 0 {
                    said.push((last, to, bench.clock.unix_s() + seconds));
                }
            }
            for channel in [1, 2, 3].map(private) {
                let of_channel = said.iter().filter(|(_, to, _)| to.contains(&channel));
                let all: Vec<(MessageId, u64)> = of_channel.map(|(id, _, at)| (*id, *at)).collect();
                let lives = |(_, at): &&(MessageId, u64)| *at > bench.clock.unix_s();
                let newest = &all[all.len().saturating_sub(KEPT)..];
                let must: Vec<MessageId> = newest.iter().filter(lives).map(|(id, _)| *id).collect();
                let may: Vec<MessageId> = all.iter().filter(lives).map(|(id, _)| *id).collect();
                let replay = bench.replay(&[channel], MessageId::ZERO);
                let found: Vec<MessageId> = replay.envelopes.iter().map(|e| e.id).collect();
                proptest::prop_assert!(found.is_sorted_by(|a, b| a < b));
                proptest::prop_assert!(found.len() <= KEPT && found.ends_with(&must), "{found:?} {must:?}");
                proptest::prop_assert!(found.iter().all(|id| may.contains(id)));
            }
        }
        proptest::prop_assert_eq!(bench.count(Metric::HistoryDamaged), 0);
    }
}

#[test]
fn damage_found_while_reading_is_a_gap_and_counted() {
    let bench = Bench::disk(HistoryLimits::on_disk(), |options| options.cache_bytes = 0);
    for n in 0..3 {
        bench.say(&[private(1)], &format!("body {n}"), 600);
    }
    let path = bench.directory().join("00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let position = bytes.windows(6).position(|six| six == b"body 1").unwrap();
    bytes[position] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let replay = bench.replay(&[private(1)], MessageId::ZERO);
    assert_eq!(
        (bodies(&replay.envelopes), replay.gap),
        (vec!["body 0".into(), "body 2".into()], true)
    );
    assert!(bench.count(Metric::HistoryDamaged) > 0);
}

#[test]
fn a_record_inside_a_body_is_not_mistaken_for_one_behind_damage() {
    // The forger knows the format, but not the salt of the file.
    let mut forged = Vec::new();
    let id = MessageId::new(START_S, 1000);
    let body = draft(&[private(1)], "forged", 86_400);
    Salt::random().write_message(&mut forged, &Envelope::new(id, START_S * 1000, body));
    let bench = bench();
    let carrier = Draft { body: forged.into(), ..draft(&[private(1)], "", 600) };
    bench.publish(vec![carrier, draft(&[private(1)], "honest", 600)]).unwrap();
    bench.engine.close();
    let mut bytes = std::fs::read(bench.directory().join("00000001.log")).unwrap();
    let position = bytes.windows(6).position(|six| six == b"forged").unwrap();
    bytes[position - 80] ^= 1;
    let (ids, ..) = open_with(&bench, &bytes);
    assert_eq!(ids.len(), 1);
}
