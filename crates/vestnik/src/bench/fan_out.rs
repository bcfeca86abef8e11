//! Messages to everybody: from one at a time to thirty under way.

use std::time::{Duration, Instant};

use super::figures::{Run, as_f64};
use super::flood::Flood;
use super::floor::Floor;
use super::process::Target;
use super::publisher::Publisher;
use super::report::{Better, Figure, Goal, micros_each};
use super::swarm::{Swarm, event, shared_channel};

/// Messages that go one after the other.
const ROUNDS: u64 = 20;

/// What came of messages with others under way.
struct Flooded {
    deliveries: u64,
    cpu: Duration,
    elapsed: Duration,
    /// Write calls of the server, if it counts them.
    writes: Option<f64>,
}

impl Run<'_> {
    /// One message at a time, and up to ten under way.
    pub(super) fn fan_out(&mut self) -> anyhow::Result<Vec<Figure>> {
        const TOGETHER: u64 = 10;
        self.gather()?;
        let one_at_a_time = one_to_all(self.target, &mut self.swarm, ROUNDS, self.bytes)?;
        let mut slow = Figure::new(
            "fan-out, one message at a time",
            "µs CPU per delivery",
            "server time for each subscriber that gets a message, against one send() to as many sockets",
            Better::Lower,
            Goal::TimesFloor(1.2),
        )
        .with(one_at_a_time);
        slow.floor.push(self.floor()?);

        let flooded = self.flood_all(TOGETHER)?;
        let saturated = Figure::new(
            "fan-out, up to ten under way",
            "µs CPU per delivery",
            "the same from publishers that wait only while ten messages have not reached everybody",
            Better::Lower,
            Goal::Value(3.0),
        )
        .with(micros_each(flooded.cpu, flooded.deliveries));
        let rate = Figure::new(
            "deliveries, up to ten under way",
            "per second",
            "messages received by all subscribers together; the reader shares the machine",
            Better::Higher,
            Goal::Value(350_000.0),
        )
        .with(as_f64(flooded.deliveries) / flooded.elapsed.as_secs_f64());
        let delay = Figure::new(
            "delay p99, up to ten under way",
            "ms",
            "from the publish to its receipt, for all but one in a hundred deliveries",
            Better::Lower,
            Goal::Value(250.0),
        )
        .with(self.swarm.latencies.percentile_ms(0.99));
        self.is_checked()?;
        Ok(vec![slow, saturated, rate, delay])
    }

    /// How messages gather, and what that costs and saves, from a server with time to one without.
    pub(super) fn coalescing(&mut self) -> anyhow::Result<Vec<Figure>> {
        /// How many may be under way.
        const LOADS: [u64; 4] = [1, 3, 10, 30];
        self.gather()?;
        let mut figures = Vec::new();
        for together in LOADS {
            let flooded = self.flood_all(together)?;
            let shown = |name, unit, about, better| {
                let name = format!("{together} under way: {name}");
                Figure::new(name, unit, about, better, Goal::Shown)
            };
            figures.push(
                shown(
                    "cost",
                    "µs CPU per delivery",
                    "server time for each subscriber and message",
                    Better::Lower,
                )
                .with(micros_each(flooded.cpu, flooded.deliveries)),
            );
            if let Some(calls) = flooded.writes.filter(|calls| *calls > 0.0) {
                figures.push(
                    shown(
                        "in one write",
                        "messages",
                        "messages that leave in one write to a socket",
                        Better::Higher,
                    )
                    .with(as_f64(flooded.deliveries) / calls),
                );
            }
            for (name, share) in [("delay p50", 0.5), ("delay p99", 0.99)] {
                let delay = self.swarm.latencies.percentile_ms(share);
                figures.push(
                    shown(name, "ms", "from the publish to its receipt", Better::Lower).with(delay),
                );
            }
        }
        self.is_checked()?;
        Ok(figures)
    }

    /// Publishes to everybody, and never more than `ahead` messages that somebody does not have yet.
    fn flood_all(&mut self, ahead: u64) -> anyhow::Result<Flooded> {
        let messages = ROUNDS * ahead.min(10);
        /// One alone would wait for each answer while others could be published.
        const PUBLISHERS: usize = 4;
        let (origin, bytes) = (self.origin, self.bytes);
        self.swarm.latencies.clear();
        self.swarm.count_whole(messages);
        let deliveries = messages * self.swarm.len() as u64;
        let (writes, start, cpu) = (self.writes(), Instant::now(), self.target.cpu());
        self.flood(
            Flood { publishers: PUBLISHERS, requests: messages, ahead },
            &|publisher| publisher.text(shared_channel(), 0, &event(origin, bytes)),
            |received| received.whole,
        )?;
        let (elapsed, cpu) = (start.elapsed(), self.target.cpu() - cpu);
        let writes = self.writes().zip(writes).map(|(after, before)| after - before);
        Ok(Flooded { deliveries, cpu, elapsed, writes })
    }

    /// Processor time of one bare send to each of as many sockets, in microseconds.
    fn floor(&self) -> anyhow::Result<f64> {
        let mut floor = Floor::start(self.connections, None)?;
        floor.rounds(ROUNDS, self.bytes + self.swarm.wrapping())
    }

    /// Fifty messages to everybody at once: how many writes a client costs.
    pub(super) fn burst(&mut self) -> anyhow::Result<Vec<Figure>> {
        const MESSAGES: u64 = 50;
        self.gather()?;
        let Some(before) = self.writes() else { return Ok(Vec::new()) };
        let mut publisher = Publisher::open(&self.target.publish)?;
        let events: Vec<_> = (0..MESSAGES).map(|_| (shared_channel(), self.event())).collect();
        let goal = self.swarm.received.messages + MESSAGES * self.connections as u64;
        publisher.batch(0, &events)?;
        self.swarm.until(|received| received.messages >= goal)?;
        let Some(after) = self.writes() else { return Ok(Vec::new()) };
        let writes = Figure::new(
            "burst of 50 messages",
            "writes per client",
            "kernel writes for each subscriber while 50 messages reach everybody",
            Better::Lower,
            Goal::Value(3.0),
        )
        .with((after - before) / as_f64(self.connections as u64));
        self.is_checked()?;
        Ok(vec![writes])
    }

    /// The server's own count of write calls; another server has none.
    fn writes(&self) -> Option<f64> {
        self.counter("vestnik_socket_writes_total")
    }
}

/// Processor time of the server for each delivery, in microseconds, when `rounds` messages go to the whole
/// swarm, one after the other.
pub(super) fn one_to_all(
    target: &Target,
    swarm: &mut Swarm,
    rounds: u64,
    bytes: usize,
) -> anyhow::Result<f64> {
    let count = swarm.len() as u64;
    let mut publisher = Publisher::open(&target.publish)?;
    let before = target.cpu();
    for _ in 0..rounds {
        let goal = swarm.received.messages + count;
        publisher.text(shared_channel(), 0, &swarm.event(bytes))?;
        swarm.until(|received| received.messages >= goal)?;
    }
    Ok(micros_each(target.cpu() - before, rounds * count))
}
