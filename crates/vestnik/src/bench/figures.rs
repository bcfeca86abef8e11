//! The measurements themselves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vestnik_core::MessageId;
use vestnik_core::sign::Key;

use super::flood::Send;
use super::http::{self, Connection};
use super::process::Target;
use super::publisher::Publisher;
use super::report::{Better, Figure, Goal, micros_each};
use super::swarm::{Generation, Swarm, channel, event, shared_channel};

/// Seconds that stored events are kept.
pub(super) const KEPT_S: u32 = 600;

/// One run against one server.
pub(super) struct Run<'a> {
    pub(super) target: &'a Target,
    pub(super) key: Key,
    pub(super) connections: usize,
    pub(super) bytes: usize,
    pub(super) origin: Instant,
    pub(super) swarm: Swarm,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        target: &'a Target,
        key: Key,
        generation: Generation,
        connections: usize,
        bytes: usize,
    ) -> anyhow::Result<Self> {
        let origin = Instant::now();
        let address = target.subscribe.resolve()?;
        let swarm = Swarm::new(address, &target.subscribe.target, key.clone(), generation, origin)?;
        Ok(Self { target, key, connections, bytes, origin, swarm })
    }

    pub(super) fn event(&self) -> String {
        self.swarm.event(self.bytes)
    }

    /// Everybody connected, and nothing under way.
    pub(super) fn gather(&mut self) -> anyhow::Result<()> {
        self.swarm.connect(self.connections, |_| {})
    }

    pub(super) fn is_checked(&self) -> anyhow::Result<()> {
        let received = &self.swarm.received;
        anyhow::ensure!(
            received.duplicated == 0 && received.reordered == 0,
            "{} messages came twice, {} out of order",
            received.duplicated,
            received.reordered
        );
        Ok(())
    }

    /// Memory of an empty process and of idle connections; cost of connecting. `queue_server`: the same
    /// server without a module, if this one has one; as whatever it is compared with has none.
    pub(super) fn idle(&mut self, queue_server: Option<Target>) -> anyhow::Result<Vec<Figure>> {
        let count = self.connections as u64;
        let queue_server = queue_server.map(|server| server.memory());
        let (empty, own_memory) = (self.target.memory(), self.target.own_memory());
        let before = self.target.cpu();
        self.gather()?;
        let cpu = self.target.cpu() - before;
        let grown = self.target.memory().saturating_sub(empty);
        let mut memory = Figure::new(
            "memory of an idle WebSocket",
            "bytes",
            "growth of the server's resident memory for each subscriber of a pair and the shared channel",
            Better::Lower,
            Goal::Value(1536.0),
        );
        memory.samples.push(as_f64(grown) / as_f64(count));
        let process = Figure::new(
            "memory of an empty process",
            "MB",
            "resident memory after the start; of our own servers, of one without the module",
            Better::Lower,
            Goal::Value(10.0),
        )
        .with(as_f64(queue_server.unwrap_or(empty)) / 1e6);
        let shown = |name, about, bytes| {
            let figure = Figure::new(name, "MB", about, Better::Lower, Goal::Shown);
            figure.with(as_f64(bytes) / 1e6)
        };
        let mut figures = vec![process];
        if queue_server.is_some() {
            figures.push(shown(
                "the same with the module",
                "resident memory after the start",
                empty,
            ));
        }
        figures.push(shown(
            "of it, not mapped from files",
            "what is not the program and its libraries, whose pages the system can drop and read again",
            own_memory,
        ));
        let mut connect = Figure::new(
            "connect",
            "µs CPU",
            "server time for a new connection: accept, handshake, two signatures",
            Better::Lower,
            Goal::Value(45.0),
        );
        connect.samples.push(micros_each(cpu, count));
        figures.extend([memory, connect]);
        Ok(figures)
    }

    /// One of the server's own metrics, if it has them.
    pub(super) fn counter(&self, name: &str) -> Option<f64> {
        let page = self.fetch("/metrics").ok()?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.parse().ok()
    }

    /// Connects everybody, drops them all at once and publishes what they miss. Returns the positions at
    /// which they stopped.
    pub(super) fn leave_for(
        &mut self,
        missed: u64,
        publisher: &mut Publisher,
    ) -> anyhow::Result<Vec<Option<MessageId>>> {
        self.gather()?;
        // Everybody needs a position to come back with.
        let goal = self.swarm.received.messages + self.connections as u64;
        publisher.text(shared_channel(), KEPT_S, &self.event())?;
        self.swarm.until(|received| received.messages >= goal)?;
        let positions = self.swarm.drop_all();
        for _ in 0..missed {
            publisher.text(shared_channel(), KEPT_S, &self.event())?;
        }
        Ok(positions)
    }

    /// Everybody is dropped at once and comes back for ten missed messages.
    pub(super) fn replay(&mut self) -> anyhow::Result<Vec<Figure>> {
        const MISSED: u64 = 10;
        let count = self.connections as u64;
        let mut publisher = Publisher::open(&self.target.publish)?;
        let positions = self.leave_for(MISSED, &mut publisher)?;
        let goal = self.swarm.received.messages + MISSED * count;
        let (start, before) = (Instant::now(), self.target.cpu());
        self.swarm.reconnect(&positions)?;
        self.swarm.until(|received| received.messages >= goal)?;
        let (elapsed, cpu) = (start.elapsed(), self.target.cpu() - before);
        anyhow::ensure!(self.swarm.received.messages == goal, "messages came twice");
        let mut each = Figure::new(
            "reconnect with 10 missed messages",
            "µs CPU",
            "server time to take a subscriber back and hand over what it missed",
            Better::Lower,
            Goal::Value(90.0),
        );
        each.samples.push(micros_each(cpu, count));
        let mut all = Figure::new(
            "all back after a mass disconnect",
            "s per 10,000",
            "until every subscriber is connected again and whole",
            Better::Lower,
            Goal::Value(2.0),
        );
        all.samples.push(elapsed.as_secs_f64() * 10_000.0 / as_f64(count));
        self.is_checked()?;
        Ok(vec![each, all])
    }

    /// Delay from one publisher to one subscriber at a moderate rate.
    pub(super) fn latency(&mut self) -> anyhow::Result<Vec<Figure>> {
        const PER_SECOND: u32 = 200;
        const MESSAGES: u32 = 600;
        self.swarm.connect(1, |_| {})?;
        let mut publisher = Publisher::open(&self.target.publish)?;
        self.swarm.latencies.clear();
        let first = self.swarm.received.messages;
        let start = Instant::now();
        for sent in 1..=MESSAGES {
            publisher.text(channel(0xaa, 0), 0, &self.event())?;
            let goal = u64::from(sent);
            self.swarm.until(|received| received.messages - first >= goal)?;
            let next = start + Duration::from_secs(1) / PER_SECOND * sent;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let delay = |share: f64, name, goal, swarm: &mut Swarm| {
            let mut figure = Figure::new(
                name,
                "ms",
                "from the publish to its receipt, one to one, 200 messages a second",
                Better::Lower,
                Goal::Value(goal),
            );
            figure.samples.push(swarm.latencies.percentile_ms(share));
            figure
        };
        Ok(vec![
            delay(0.5, "delay p50, one to one", 0.3, &mut self.swarm),
            delay(0.99, "delay p99, one to one", 3.0, &mut self.swarm),
        ])
    }

    /// A publish to one subscriber, in every form.
    pub(super) fn publish(&mut self) -> anyhow::Result<Vec<Figure>> {
        const REQUESTS: u64 = 4000;
        const IN_BATCH: u64 = 20;
        self.swarm.connect(1, |_| {})?;
        let receiver = channel(0xaa, 0);
        let (origin, bytes) = (self.origin, self.bytes);
        let mut measure = |name, about, goal, messages: u64, send: &Send<'_>| {
            let cpu = self.publish_together(REQUESTS, messages, send)?;
            let mut figure = Figure::new(name, "µs CPU per message", about, Better::Lower, goal);
            figure.samples.push(micros_each(cpu, REQUESTS * messages));
            anyhow::Ok(figure)
        };
        let batch =
            || -> Vec<_> { (0..IN_BATCH).map(|_| (receiver, event(origin, bytes))).collect() };
        let keep_alive = "eight publishers, one message per request, one subscriber";
        Ok(vec![
            measure("publish, volatile", keep_alive, Goal::Value(45.0), 1, &|publisher| {
                publisher.text(receiver, 0, &event(origin, bytes))
            })?,
            measure("publish, stored", keep_alive, Goal::Value(60.0), 1, &|publisher| {
                publisher.text(receiver, KEPT_S, &event(origin, bytes))
            })?,
            measure(
                "publish, 20 in a request",
                "eight publishers, protobuf, volatile, one subscriber",
                Goal::Value(15.0),
                IN_BATCH,
                &|publisher| publisher.batch(0, &batch()),
            )?,
            measure(
                "publish as PHP does",
                "a new connection for every message",
                Goal::Value(90.0),
                1,
                &|publisher| {
                    publisher.reconnect()?;
                    publisher.text(receiver, 0, &event(origin, bytes))
                },
            )?,
        ])
    }

    /// One message after the other to many long polls.
    pub(super) fn poll(&mut self) -> anyhow::Result<Vec<Figure>> {
        const POLLS: usize = 200;
        const ROUNDS: u64 = 20;
        // A channel that only the polls listen to.
        let polled = channel(0xdd, 1);
        let signature = self.key.sign(&[polled.to_string().as_bytes()]);
        let target = &self.target.subscribe.target;
        let request =
            format!("GET {target}?CHANNEL_ID={polled}.{signature} HTTP/1.1\r\nHost: bench\r\n\r\n");
        let mut publisher = Publisher::open(&self.target.publish)?;
        let mut pollers = (0..POLLS)
            .map(|_| Poller::open(self.target.subscribe.resolve()?, &request))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut cpu = Duration::ZERO;
        for _ in 0..ROUNDS {
            self.until_held(POLLS)?;
            let before = self.target.cpu();
            publisher.text(polled, 0, &self.event())?;
            for poller in &mut pollers {
                poller.take_answer()?;
                poller.ask(&request)?;
            }
            self.until_held(POLLS)?;
            cpu += self.target.cpu() - before;
        }
        let mut figure = Figure::new(
            "long-poll cycle",
            "µs CPU per message",
            "the answer with the message and the next poll, for each of 200 polls",
            Better::Lower,
            Goal::Value(80.0),
        );
        figure.samples.push(micros_each(cpu, ROUNDS * POLLS as u64));
        Ok(vec![figure])
    }

    /// Waits until the server holds `count` polls.
    fn until_held(&self, count: usize) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        let held = format!("\"pollings\":{count},");
        loop {
            let stats = self.fetch("/server-stat/").context("no statistics to see the polls by")?;
            if stats.contains(&held) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < until, "the polls are not held: {stats}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The body of a page of the server; an error if it has none there.
    fn fetch(&self, path: &str) -> anyhow::Result<String> {
        let mut connection = Connection::open(self.target.publish.resolve()?)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
        let answer = connection.exchange(request.as_bytes())?;
        anyhow::ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
        Ok(String::from_utf8_lossy(answer.body).into_owned())
    }
}

/// A client that polls.
struct Poller(TcpStream);

impl Poller {
    fn open(address: std::net::SocketAddr, request: &str) -> anyhow::Result<Self> {
        let mut poller = Self(http::connect(address)?);
        poller.ask(request)?;
        Ok(poller)
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<()> {
        self.0.write_all(request.as_bytes()).context("the server hung up on a poll")
    }

    fn take_answer(&mut self) -> anyhow::Result<()> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"#!NGINXNME!#") {
            let read = self.0.read(&mut buffer).context("no answer to a poll")?;
            anyhow::ensure!(read > 0, "the server hung up on a poll");
            answer.extend_from_slice(&buffer[..read]);
        }
        Ok(())
    }
}

pub(super) fn as_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    let value = count as f64;
    value
}
