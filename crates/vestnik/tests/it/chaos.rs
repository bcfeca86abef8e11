//! The delivery promises (design.md §3) under `kill -9`, disconnects, slow readers and bursts.
//!
//! Publishers write down what they publish and which of it was acknowledged; subscribers write down
//! what they parsed, over all their reconnects; at the end both are compared. Messages must reach each
//! subscriber exactly once and in the order of their ids. What may be missing: volatile and short-lived
//! messages, and publishes without a 200.
//!
//! About 10 kills run with every test. `SLOW=1` makes it 200; `CHAOS_KILLS` sets any number and
//! `CHAOS_SEED` repeats the choices of an earlier run, as far as threads allow:
//!
//! ```text
//! SLOW=1 cargo test -p vestnik --test it -- chaos --nocapture
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::protocol::Role;
use tungstenite::{Error as SocketError, WebSocket};
use vestnik_core::Clock;

use crate::clients::slow;
use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{self, Message, To};
use crate::websocket::handshake;

/// Pairs that messages go to; each has a private and a public channel.
const PAIRS: u64 = 12;
const SUBSCRIBERS: u64 = 24;
/// How long subscribers may take for the rest when everything has been published.
const REST: Duration = Duration::from_secs(30);

/// Choices that can be repeated: splitmix64.
struct Dice(u64);

impl Dice {
    /// One of `0..sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pause(&mut self, millis: std::ops::Range<u64>) {
        let length = millis.start + self.roll(millis.end - millis.start);
        std::thread::sleep(Duration::from_millis(length));
    }
}

/// What all threads share.
struct Stage {
    address: SocketAddr,
    seed: u64,
    next: AtomicU64,
    published: Mutex<HashMap<u64, Published>>,
    stop_publishing: AtomicBool,
    give_up: AtomicBool,
}

/// What a publisher knows of one message.
struct Published {
    pairs: BTreeSet<u64>,
    /// It must be there whenever a subscriber returns.
    is_lasting: bool,
    is_acknowledged: bool,
}

impl Stage {
    /// Writes down a message that is about to be published; returns its number and body.
    fn announce(&self, pairs: &[u64], is_lasting: bool, padding: usize) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let pairs = pairs.iter().copied().collect();
        let published = Published { pairs, is_lasting, is_acknowledged: false };
        self.published.lock().expect("no thread panicked").insert(number, published);
        (number, json!({ "n": number, "padding": "x".repeat(padding) }).to_string())
    }

    fn acknowledge(&self, numbers: &[u64]) {
        let mut published = self.published.lock().expect("no thread panicked");
        for number in numbers {
            published.get_mut(number).expect("it was announced").is_acknowledged = true;
        }
    }

    fn end(&self) {
        self.stop_publishing.store(true, Ordering::Relaxed);
        self.give_up.store(true, Ordering::Relaxed);
    }

    fn is_publishing(&self) -> bool {
        !self.stop_publishing.load(Ordering::Relaxed)
    }

    fn dice(&self, thread: u64) -> Dice {
        Dice(self.seed ^ (thread + 1).wrapping_mul(0xd129_0db3_3d1f_2a55))
    }
}

/// Ends all threads, also when the one that leads them panics: the test fails then, and does not hang.
struct Curtain<'a>(&'a Stage);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Expiry in seconds and whether it outlasts every absence of this test.
fn expiry(dice: &mut Dice) -> (u32, bool) {
    match dice.roll(10) {
        0 | 1 => (0, false),
        2 => (1, false),
        3..=6 => (600, true),
        _ => (86_400, true),
    }
}

fn some_pairs(dice: &mut Dice) -> Vec<u64> {
    let count = if dice.one_in(3) { 2 } else { 1 };
    (0..count).map(|_| dice.roll(PAIRS)).collect()
}

/// One exchange on a connection that is kept as long as it works. `Some(true)`: answered with 200.
fn exchange(kept: &mut Option<Connection>, address: SocketAddr, request: &[u8]) -> Option<bool> {
    let mut attempt = || -> io::Result<bool> {
        let connection = match kept {
            Some(connection) => connection,
            None => kept.insert(Connection::try_open(address)?),
        };
        connection.stream().write_all(request)?;
        Ok(connection.try_answer()?.status == 200)
    };
    match attempt() {
        Ok(is_taken) => Some(is_taken),
        Err(_) => {
            *kept = None;
            None
        }
    }
}

/// A back end that publishes texts to channel lists, as PHP does: now and then on a new connection.
fn publish_texts(stage: &Stage, thread: u64) {
    let mut dice = stage.dice(thread);
    let mut connection = None;
    while stage.is_publishing() {
        let pairs = some_pairs(&mut dice);
        let (expiry_s, is_lasting) = expiry(&mut dice);
        let (number, body) = stage.announce(&pairs, is_lasting, 0);
        let list: Vec<_> = pairs
            .iter()
            .map(|pair| match dice.roll(2) {
                0 => Pair::new(*pair).private_signed(),
                _ => Pair::new(*pair).signed(),
            })
            .collect();
        let target = format!("/bitrix/pub/?CHANNEL_ID={}", list.join("/"));
        let header = format!("Message-Expiry: {expiry_s}");
        let request = raw::post_bytes(&target, &[&header], body.as_bytes());
        if exchange(&mut connection, stage.address, &request) == Some(true) {
            stage.acknowledge(&[number]);
        }
        if dice.one_in(20) {
            connection = None;
        }
        dice.pause(0..12);
    }
}

/// A back end that publishes protobuf batches, now and then many at once.
fn publish_batches(stage: &Stage, thread: u64) {
    let mut dice = stage.dice(thread);
    let mut connection = None;
    while stage.is_publishing() {
        let is_burst = dice.one_in(60);
        let padding = if dice.one_in(3) { 8000 } else { 0 };
        let only = dice.roll(PAIRS);
        for _ in 0..if is_burst { 5 } else { 1 } {
            let (mut numbers, mut messages) = (Vec::new(), Vec::new());
            for _ in 0..if is_burst { 30 } else { 1 + dice.roll(3) } {
                let pairs = if is_burst { vec![only] } else { some_pairs(&mut dice) };
                let (expiry_s, is_lasting) = expiry(&mut dice);
                let size = if is_burst { padding } else { 0 };
                let (number, body) = stage.announce(&pairs, is_lasting, size);
                let to: Vec<_> = pairs
                    .iter()
                    .map(|pair| match dice.roll(2) {
                        0 => To::Private(Pair::new(*pair)),
                        _ => To::Public(Pair::new(*pair)),
                    })
                    .collect();
                numbers.push(number);
                messages.push(traffic::incoming(&to, expiry_s, &body));
            }
            let batch = traffic::batch(&messages);
            let request = raw::post_bytes("/bitrix/pub/?binaryMode=true", &[], &batch);
            if exchange(&mut connection, stage.address, &request) == Some(true) {
                stage.acknowledge(&numbers);
            }
        }
        dice.pause(5..25);
    }
}

/// A client that writes to others' public channels by requests.
fn publish_as_client(stage: &Stage, thread: u64) {
    let mut dice = stage.dice(thread);
    let mut connection = None;
    let target = format!("/bitrix/rest/?CHANNEL_ID={}", Pair::new(PAIRS + thread).signed());
    while stage.is_publishing() {
        let (number, message) = client_message(stage, &mut dice);
        let request = raw::post_bytes(&target, &[], &traffic::batch(&[message]));
        if exchange(&mut connection, stage.address, &request) == Some(true) {
            stage.acknowledge(&[number]);
        }
        dice.pause(5..30);
    }
}

/// A client that writes over its WebSocket connection, where nothing is acknowledged.
fn publish_over_websocket(stage: &Stage, thread: u64) {
    let mut dice = stage.dice(thread);
    let query = format!("CHANNEL_ID={}&binaryMode=true", Pair::new(PAIRS + thread).signed());
    let mut socket = None;
    while stage.is_publishing() {
        if socket.is_none() {
            socket = open_socket(stage.address, &query).ok();
        }
        if let Some(open) = &mut socket {
            let (_, message) = client_message(stage, &mut dice);
            if open.send(tungstenite::Message::binary(traffic::batch(&[message]))).is_err() {
                socket = None;
            }
        }
        dice.pause(5..40);
    }
}

fn client_message(stage: &Stage, dice: &mut Dice) -> (u64, Vec<u8>) {
    let pairs = some_pairs(dice);
    let (expiry_s, is_lasting) = expiry(dice);
    let (number, body) = stage.announce(&pairs, is_lasting, 0);
    let to: Vec<_> = pairs.iter().map(|pair| To::SignedPublic(Pair::new(*pair))).collect();
    (number, traffic::incoming(&to, expiry_s, &body))
}

pub(crate) fn open_socket(
    address: SocketAddr,
    query: &str,
) -> io::Result<WebSocket<std::net::TcpStream>> {
    let mut connection = Connection::try_open(address)?;
    connection.stream().write_all(handshake(&format!("/bitrix/subws/?{query}")).as_bytes())?;
    let answer = connection.try_answer()?;
    assert_eq!(answer.status, 101, "{answer:?}");
    let (stream, received) = connection.into_parts();
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(WebSocket::from_partially_read(stream, received, Role::Client, None))
}

/// How a subscriber connects and reads.
#[derive(Clone, Copy, Debug)]
struct Manner {
    polls: bool,
    is_binary: bool,
    /// It stops reading for a while now and then.
    is_slow: bool,
}

/// A subscriber over all its connections.
struct Listener<'a> {
    stage: &'a Stage,
    dice: Dice,
    manner: Manner,
    pairs: BTreeSet<u64>,
    /// The id of the last message that was parsed to its end.
    position: String,
    /// Number and id of all messages, as they came.
    received: Vec<(u64, String)>,
    /// Messages that tell that nothing comes after them: one for each pair.
    ends: HashSet<u64>,
    connections: u64,
}

impl<'a> Listener<'a> {
    fn new(stage: &'a Stage, number: u64, position: String) -> Self {
        let mut dice = stage.dice(1000 + number);
        let manner = Manner {
            polls: number.is_multiple_of(3),
            is_binary: number.is_multiple_of(2),
            is_slow: number % 4 == 1,
        };
        let mut pairs: BTreeSet<_> = [number % PAIRS].into();
        pairs.extend((0..dice.roll(3)).map(|_| dice.roll(PAIRS)).collect::<Vec<_>>());
        let (received, ends) = (Vec::new(), HashSet::new());
        Self { stage, dice, manner, pairs, position, received, ends, connections: 0 }
    }

    /// Listens until the end of every pair was heard, or the test gives up.
    fn listen(&mut self) {
        let mut kept = None;
        while self.ends.len() < self.pairs.len() && !self.stage.give_up.load(Ordering::Relaxed) {
            let lost = if self.manner.polls {
                self.poll(&mut kept).is_err()
            } else {
                self.listen_to_socket().is_err()
            };
            if lost {
                kept = None;
                self.dice.pause(1..10);
            } else if self.dice.one_in(4) {
                // Away for a moment, less than it takes to fill a channel.
                self.dice.pause(0..300);
            }
        }
    }

    fn query(&self) -> String {
        let channels: Vec<_> = self.pairs.iter().map(|pair| Pair::new(*pair).signed()).collect();
        let binary = if self.manner.is_binary { "&binaryMode=true" } else { "" };
        format!("CHANNEL_ID={}&mid={}{binary}", channels.join("/"), self.position)
    }

    fn poll(&mut self, kept: &mut Option<Connection>) -> io::Result<()> {
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let opened = Connection::try_open(self.stage.address)?;
                self.connections += 1;
                kept.insert(opened)
            }
        };
        connection.stream().write_all(traffic::poll_bytes(&self.query()).as_bytes())?;
        if self.dice.one_in(25) {
            // Gives up before the answer; whatever it was, it comes again.
            self.dice.pause(0..30);
            *kept = None;
            return Ok(());
        }
        if self.manner.is_slow && self.dice.one_in(20) {
            self.dice.pause(50..600);
        }
        let answer = connection.try_answer()?;
        match answer.status {
            200 if self.manner.is_binary => self.take(&traffic::binary_messages(&answer.body)),
            200 => self.take(&traffic::text_messages(answer.text())),
            304 => {
                let position = answer.header("last-message-id");
                assert_eq!(position, Some(self.position.as_str()), "a poll keeps its position");
            }
            _ => panic!("{answer:?}"),
        }
        Ok(())
    }

    fn listen_to_socket(&mut self) -> Result<(), SocketError> {
        let mut socket = open_socket(self.stage.address, &self.query())?;
        self.connections += 1;
        let lifetime = if self.dice.one_in(2) { self.dice.roll(300) } else { u64::MAX };
        let mut frames = 0;
        while frames < lifetime && self.ends.len() < self.pairs.len() {
            match socket.read() {
                Ok(tungstenite::Message::Text(text)) => self.take(&traffic::text_messages(&text)),
                Ok(tungstenite::Message::Binary(batch)) => {
                    self.take(&traffic::binary_messages(&batch));
                }
                Ok(tungstenite::Message::Close(frame)) => {
                    // K-043: nothing else is ever said to a client that did nothing wrong.
                    let code = frame.map(|frame| u16::from(frame.code));
                    assert_eq!(code, Some(1001));
                }
                Ok(_) => {}
                Err(SocketError::Io(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.stage.give_up.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            frames += 1;
            if self.manner.is_slow && self.dice.one_in(100) {
                self.dice.pause(50..600);
            }
        }
        if self.dice.one_in(2) {
            // The other half of the connections just vanishes.
            socket.close(None)?;
        }
        Ok(())
    }

    fn take(&mut self, messages: &[Message]) {
        assert!(!messages.is_empty(), "frames and bodies are never empty");
        for message in messages {
            if let Some(pair) = message.body["end"].as_u64() {
                self.ends.insert(pair);
            } else {
                let number = message.body["n"].as_u64().expect("a message of this test");
                self.received.push((number, message.mid.clone()));
            }
            message.mid.clone_into(&mut self.position);
        }
    }
}

/// What became of everything.
#[derive(Default)]
struct Verdict {
    published: usize,
    acknowledged: usize,
    delivered: usize,
    connections: u64,
    lost: usize,
    duplicated: usize,
    reordered: usize,
    misdirected: usize,
}

#[expect(clippy::print_stdout, reason = "the run is described; only shown on failure or demand")]
fn judge(stage: &Stage, listeners: &[Listener<'_>]) -> Verdict {
    let published = stage.published.lock().expect("no thread panicked");
    let mut verdict = Verdict {
        published: published.len(),
        acknowledged: published.values().filter(|message| message.is_acknowledged).count(),
        ..Verdict::default()
    };
    for (number, listener) in listeners.iter().enumerate() {
        verdict.delivered += listener.received.len();
        verdict.connections += listener.connections;
        let mut seen = HashSet::new();
        for (message, _) in &listener.received {
            verdict.duplicated += usize::from(!seen.insert(*message));
            let is_for =
                published.get(message).is_some_and(|m| !m.pairs.is_disjoint(&listener.pairs));
            verdict.misdirected += usize::from(!is_for);
        }
        for pair in listener.received.windows(2) {
            verdict.reordered += usize::from(pair[0].1 >= pair[1].1);
        }
        for (message, it) in published.iter() {
            let must = it.is_acknowledged && it.is_lasting;
            if must && !it.pairs.is_disjoint(&listener.pairs) && !seen.contains(message) {
                verdict.lost += 1;
                println!("message {message} never reached {number} {:?}", listener.manner);
            }
        }
    }
    verdict
}

/// Kills and restarts the server at random moments; returns it, and what it counted.
fn kill(mut server: TestServer, stage: &Stage, kills: u64) -> (TestServer, u64, u64) {
    let mut dice = stage.dice(999);
    let (mut replayed, mut gaps, mut slow) = (0, 0, 0);
    for _ in 0..kills {
        dice.pause(100..900);
        let page = raw::get(stage.address, "/metrics");
        replayed += traffic::metric(&page, "vestnik_replayed_messages_total");
        gaps += traffic::metric(&page, "vestnik_recovery_gaps_total");
        slow += traffic::metric(&page, "vestnik_slow_subscribers_total");
        // Not at the end of a turn that the question about metrics made.
        dice.pause(0..20);
        server = server.crash_and_restart();
    }
    assert_eq!(gaps, 0, "the load keeps within what the history holds");
    (server, replayed, slow)
}

/// Tells the listeners of every pair that nothing more comes.
fn publish_ends(address: SocketAddr) {
    for pair in 0..PAIRS {
        let channel = Pair::new(pair).private_signed();
        let answer = raw::publish(address, &channel, 600, &json!({ "end": pair }).to_string());
        assert_eq!(answer.status, 200);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting of the program"
)]
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Lets everybody run while the server is killed, then waits until all have got everything. Returns
/// how many messages were replayed, and how many slow subscribers closed.
fn play(
    server: TestServer,
    stage: &Stage,
    listeners: &mut [Listener<'_>],
    kills: u64,
) -> (u64, u64) {
    std::thread::scope(|scope| {
        let _curtain = Curtain(stage);
        let listening: Vec<_> =
            listeners.iter_mut().map(|listener| scope.spawn(|| listener.listen())).collect();
        let publishers: [fn(&Stage, u64); 6] = [
            publish_texts,
            publish_texts,
            publish_batches,
            publish_batches,
            publish_as_client,
            publish_over_websocket,
        ];
        let publishing: Vec<_> = (0..)
            .zip(publishers)
            .map(|(thread, publish)| scope.spawn(move || publish(stage, thread)))
            .collect();
        let (server, replayed, closed) = kill(server, stage, kills);
        stage.stop_publishing.store(true, Ordering::Relaxed);
        for publisher in publishing {
            publisher.join().expect("a publisher does not panic");
        }
        publish_ends(server.address());
        let until = Instant::now() + REST;
        while Instant::now() < until && !listening.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        (replayed, closed)
    })
}

#[test]
fn q_177_k_043_w_009_w_010_nothing_acknowledged_is_lost_doubled_or_swapped_by_kills_and_reconnects()
{
    let kills = setting("CHAOS_KILLS").unwrap_or(if slow() { 200 } else { 10 });
    let seed = setting("CHAOS_SEED").unwrap_or_else(|| Clock::System.unix_ms() % 1_000_000);
    println!("chaos: CHAOS_SEED={seed} CHAOS_KILLS={kills}");
    let began = Instant::now();
    let server = TestServer::with(&[
        "server.shards=2",
        "timing.poll=1s",
        "limits.outbox_messages=100",
        "limits.outbox_bytes=64KiB",
        // Some replays come from files.
        "history.cache_bytes=64KiB",
        // On a fast disk readers that are slow fall behind by more than the usual thousand messages.
        "history.messages_per_channel=20000",
        "history.replay_messages=20000",
        "log.level=error",
    ]);
    let stage = Arc::new(Stage {
        address: server.address(),
        seed,
        next: AtomicU64::new(0),
        published: Mutex::default(),
        stop_publishing: AtomicBool::new(false),
        give_up: AtomicBool::new(false),
    });
    let first = first_position(stage.address);
    let mut listeners: Vec<_> =
        (0..SUBSCRIBERS).map(|number| Listener::new(&stage, number, first.clone())).collect();
    let (replayed, closed) = play(server, &stage, &mut listeners, kills);
    let verdict = judge(&stage, &listeners);
    println!(
        "chaos: published {}, acknowledged {}, delivered {}, replayed {replayed}, lost {}, \
         duplicated {}, reordered {}, misdirected {}, connections {}, slow subscribers closed \
         {closed}, kills {kills}, {:.1} s",
        verdict.published,
        verdict.acknowledged,
        verdict.delivered,
        verdict.lost,
        verdict.duplicated,
        verdict.reordered,
        verdict.misdirected,
        verdict.connections,
        began.elapsed().as_secs_f64()
    );
    assert!(listeners.iter().all(|listener| listener.ends.len() == listener.pairs.len()));
    let faults = [verdict.lost, verdict.duplicated, verdict.reordered, verdict.misdirected];
    assert_eq!(faults, [0; 4], "lost, duplicated, reordered, misdirected");
    assert!(verdict.acknowledged > 0 && verdict.delivered > 0 && replayed > 0);
}

/// The position of a subscriber that has read everything there is.
fn first_position(address: SocketAddr) -> String {
    let channel = Pair::new(PAIRS + 100).private_signed();
    assert_eq!(raw::publish(address, &channel, 600, "{}").status, 200);
    let all = format!("CHANNEL_ID={channel}&mid={:026}", 0);
    let answer = raw::get(address, &format!("/bitrix/sub/?{all}"));
    traffic::text_messages(answer.text())[0].mid.clone()
}
