//! What must hold when things are not as usual: everybody comes back at once while publishing goes
//! on, somebody reads nothing, connections come and go for a long time.

use std::io::Write as _;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::figures::{KEPT_S, Run, as_f64};
use super::http;
use super::publisher::Publisher;
use super::report::{Better, Figure, GROWTH, Goal, micros_each};
use super::swarm::{event, shared_channel};

impl Run<'_> {
    /// Everybody is dropped at once and comes back for ten missed messages, while others are
    /// published. Nothing may be lost, doubled or out of order.
    pub(super) fn storm(&mut self) -> anyhow::Result<Vec<Figure>> {
        const MISSED: u64 = 10;
        const PAUSE: Duration = Duration::from_millis(500);
        let count = self.connections as u64;
        let mut publisher = Publisher::open(&self.target.publish)?;
        let positions = self.leave_for(MISSED, &mut publisher)?;
        let first = self.swarm.received.messages;
        let before = self.target.cpu();
        let start = Instant::now();
        let (origin, bytes) = (self.origin, self.bytes);
        let is_over = AtomicBool::new(false);
        let published = std::thread::scope(|scope| -> anyhow::Result<u64> {
            let publishing = scope.spawn(|| -> anyhow::Result<u64> {
                let mut published = 0;
                while !is_over.load(Relaxed) {
                    publisher.text(shared_channel(), KEPT_S, &event(origin, bytes))?;
                    published += 1;
                    std::thread::sleep(PAUSE);
                }
                Ok(published)
            });
            let back = self.swarm.reconnect(&positions);
            is_over.store(true, Relaxed);
            let published =
                publishing.join().map_err(|_| anyhow::anyhow!("the publisher failed"))?;
            back?;
            published
        })?;
        let goal = first + (MISSED + published) * count;
        self.swarm.until(|received| received.messages >= goal)?;
        let (elapsed, cpu) = (start.elapsed(), self.target.cpu() - before);
        self.is_checked()?;
        anyhow::ensure!(self.swarm.received.messages == goal, "more messages came than were sent");
        let mut whole = Figure::new(
            "storm while publishing, all whole",
            "s",
            "until everybody is back with ten missed messages and those published meanwhile (two a second), none lost, doubled or out of order",
            Better::Lower,
            Goal::Value(5.0),
        );
        whole.samples.push(elapsed.as_secs_f64());
        let mut each = Figure::new(
            "storm while publishing",
            "µs CPU per client",
            "server time of that for each client, deliveries of what was published meanwhile included",
            Better::Lower,
            Goal::Shown,
        );
        each.samples.push(micros_each(cpu, count));
        Ok(vec![whole, each])
    }

    /// One subscriber that reads nothing among a hundred that do.
    pub(super) fn slow_reader(&mut self) -> anyhow::Result<Vec<Figure>> {
        const READERS: usize = 100;
        /// What one outbox takes, and room for what memory management adds.
        const OUTBOX_MB: f64 = 8.4 + 1.6;
        self.swarm.drop_all();
        self.swarm.connect(READERS, |_| {})?;
        let (without, _) = self.large_events()?;
        let before = self.slow_subscribers();
        let address = self.target.subscribe.resolve()?;
        let mut slow = http::connect(address)?;
        let handshake = self.swarm.handshake(READERS as u64, None);
        slow.write_all(handshake.as_bytes()).context("the server hung up")?;
        let (with, grown) = self.large_events()?;
        let closed = self.slow_subscribers().zip(before).map(|(after, before)| after - before);
        drop(slow);
        let figure = |name, unit, about, goal, sample: f64| {
            let mut figure = Figure::new(name, unit, about, Better::Lower, goal);
            figure.samples.push(sample);
            figure
        };
        let mut figures = vec![
            figure(
                "memory of a reader that reads nothing",
                "MB",
                "largest growth of the server's memory while 19 MB are published to it; its outbox takes 8.4 (`limits.outbox_bytes`)",
                Goal::Value(OUTBOX_MB),
                as_f64(grown) / 1e6,
            ),
            figure(
                "delay p99 of 100 others, without it",
                "ms",
                "200 messages a second of 16 KB to all",
                Goal::Shown,
                without,
            ),
        ];
        let mut delayed = figure(
            "delay p99 of 100 others, with it",
            "ms",
            "the same; compared with that without it instead of a bare loop",
            Goal::TimesFloor(1.5),
            with,
        );
        delayed.floor.push(without);
        figures.push(delayed);
        if let Some(closed) = closed {
            figures.push(figure(
                "readers that read nothing, closed",
                "connections",
                "they come back and get the rest from the history",
                Goal::Shown,
                closed,
            ));
        }
        self.swarm.drop_all();
        Ok(figures)
    }

    /// Publishes large events to all; the delay p99 in milliseconds and how far memory grew.
    fn large_events(&mut self) -> anyhow::Result<(f64, u64)> {
        const EVENTS: u32 = 1200;
        const BYTES: usize = 16 * 1024;
        const PER_SECOND: u32 = 200;
        let count = self.swarm.len() as u64;
        let mut publisher = Publisher::open(&self.target.publish)?;
        let mut warm_up = |swarm: &mut super::swarm::Swarm| {
            let goal = swarm.received.messages + count;
            publisher.text(shared_channel(), 0, &event(self.origin, BYTES))?;
            swarm.until(|received| received.messages >= goal)
        };
        warm_up(&mut self.swarm)?;
        self.swarm.latencies.clear();
        let (before, mut largest) = (self.target.memory(), 0);
        let start = Instant::now();
        for sent in 1..=EVENTS {
            warm_up(&mut self.swarm)?;
            if sent % 20 == 0 {
                largest = largest.max(self.target.memory().saturating_sub(before));
            }
            let next = start + Duration::from_secs(1) / PER_SECOND * sent;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.is_checked()?;
        Ok((self.swarm.latencies.percentile_ms(0.99), largest))
    }

    fn slow_subscribers(&self) -> Option<f64> {
        self.counter("vestnik_slow_subscribers_total")
    }

    /// Connections come and go, a fifth of them each minute, for `duration`: how fast memory grows.
    pub(super) fn soak(&mut self, duration: Duration) -> anyhow::Result<Vec<Figure>> {
        const REPLACED_PER_MINUTE: f64 = 0.2;
        self.gather()?;
        let mut publisher = Publisher::open(&self.target.publish)?;
        let mut samples = Vec::new();
        let (mut replaced, mut next) = (0.0, 0);
        let start = Instant::now();
        let mut second = 0;
        while start.elapsed() < duration {
            second += 1;
            replaced += as_f64(self.connections as u64) * REPLACED_PER_MINUTE / 60.0;
            while replaced >= 1.0 {
                self.swarm.drop_one(next % self.connections);
                next += 1;
                replaced -= 1.0;
            }
            self.gather()?;
            let goal = self.swarm.received.messages + self.connections as u64;
            publisher.text(shared_channel(), 0, &self.event())?;
            self.swarm.until(|received| received.messages >= goal)?;
            samples.push((start.elapsed().as_secs_f64(), as_f64(self.target.memory())));
            let until = start + Duration::from_secs(second);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        self.is_checked()?;
        let mut growth = Figure::new(
            "growth of memory, connections replaced",
            GROWTH,
            "a fifth of the connections replaced each minute, a message a second; the line through the last two thirds of the time (--soak)",
            Better::Lower,
            Goal::Value(0.1),
        );
        // What a server keeps for later is taken in the first third.
        growth.samples.extend(growth_percent(&samples[samples.len() / 3..]));
        Ok(vec![growth])
    }
}

/// How many percent of its mean a value grows in ten minutes, by the straight line that fits its
/// samples (seconds, value) best; `None` with fewer than two of them.
fn growth_percent(samples: &[(f64, f64)]) -> Option<f64> {
    let count = as_f64(samples.len() as u64);
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let (mut both, mut square) = (0.0, 0.0);
    for (at, is) in samples {
        both += (at - time) * (is - value);
        square += (at - time).powi(2);
    }
    (square > 0.0 && value > 0.0).then(|| both / square * 600.0 / value * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_slope_of_the_line_that_fits_best() {
        let flat = [(0.0, 10.0), (1.0, 10.0), (2.0, 10.0)];
        assert_eq!(growth_percent(&flat), Some(0.0));
        // From 99 to 101 in ten minutes, around 100.
        let growing = [(0.0, 99.0), (300.0, 100.0), (600.0, 101.0)];
        assert!((growth_percent(&growing).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(growth_percent(&flat[..1]), None);
    }
}
