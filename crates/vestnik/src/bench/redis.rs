//! A publish through Redis, and beside it the commands with which Push server 2.0 does the same.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Instant;

use anyhow::Context as _;

use super::figures::{KEPT_S, Run, as_f64};
use super::http;
use super::publisher::Publisher;
use super::report::{Better, Figure, Goal, micros_each};
use super::swarm::channel;
use crate::failure::Failure;

/// Publishes, one after the other.
const PUBLISHES: u64 = 3000;

/// A connection that asks one thing after the other.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(address: &str) -> anyhow::Result<Self> {
        let hint = "give the host and port of a Redis server without TLS and password, such as \
                    127.0.0.1:6379";
        let stream = address
            .to_socket_addrs()
            .map_err(anyhow::Error::from)
            .and_then(|mut addresses| http::connect(addresses.next().context("no address")?))
            .map_err(|error| Failure::new(format!("no redis at {address}: {error:#}"), hint))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends commands in one write and reads their answers: one round trip. The text of the last one.
    fn ask(&mut self, commands: &[&[&[u8]]]) -> anyhow::Result<Vec<u8>> {
        let mut request = Vec::new();
        for words in commands {
            request.extend(format!("*{}\r\n", words.len()).bytes());
            for word in *words {
                request.extend(format!("${}\r\n", word.len()).bytes());
                request.extend_from_slice(word);
                request.extend(b"\r\n");
            }
        }
        self.0.get_mut().write_all(&request)?;
        let mut answer = Vec::new();
        for _ in commands {
            answer = self.answer()?;
        }
        Ok(answer)
    }

    fn answer(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        anyhow::ensure!(!line.is_empty() && !line.starts_with('-'), "redis says: {line}");
        let (kind, rest) = line.split_at(1);
        match (kind, rest.parse::<usize>()) {
            ("$", Ok(length)) => {
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(bytes)
            }
            ("*", Ok(count)) => {
                let mut last = Vec::new();
                for _ in 0..count {
                    last = self.answer()?;
                }
                Ok(last)
            }
            _ => Ok(rest.as_bytes().to_vec()),
        }
    }

    /// How often the server has read from its connections.
    fn reads(&mut self) -> anyhow::Result<u64> {
        let info = self.ask(&[&[b"INFO", b"stats"]])?;
        let info = String::from_utf8_lossy(&info);
        let reads = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        reads.and_then(|it| it.trim().parse().ok()).context("this redis does not count its reads")
    }

    /// What Push server 2.0 does for one stored message to one receiver (queue-server.md §8.1).
    fn publish_as_original(&mut self, number: u64, event: &[u8]) -> anyhow::Result<()> {
        self.ask(&[&[b"INCR", b"bench:server:messagecounter"]])?;
        let key = format!("bench:message:{number:013}");
        let expiry = KEPT_S.to_string();
        let index: &[u8] = b"bench:channel:messages:0123456789abcdef";
        self.ask(&[
            &[b"MULTI"],
            &[b"SETEX", key.as_bytes(), expiry.as_bytes(), event],
            &[b"ZADD", index, b"0", &key.as_bytes()[14..]],
            &[b"EXEC"],
        ])?;
        self.ask(&[&[b"MULTI"], &[b"TTL", index], &[b"EXEC"]])?;
        if number == 0 {
            self.ask(&[&[b"EXPIRE", index, b"600"]])?;
        }
        self.ask(&[&[b"PUBLISH", b"bench:pushserver:1", event]]).map(drop)
    }
}

impl Run<'_> {
    /// A stored publish to one subscriber through the Redis at `address`.
    pub(super) fn through_redis(&mut self, address: &str) -> anyhow::Result<Vec<Figure>> {
        let mut redis = Redis::connect(address)?;
        self.swarm.connect(1, |_| {})?;
        let (receiver, event) = (channel(0xaa, 0), self.event());
        let mut publisher = Publisher::open(&self.target.publish)?;
        let first = self.swarm.received.messages;
        for number in 1..=100 {
            publisher.text(receiver, KEPT_S, &event)?;
            self.swarm.until(|received| received.messages >= first + number)?;
        }
        let (reads, cpu, start) = (redis.reads()?, self.target.cpu(), Instant::now());
        let first = self.swarm.received.messages;
        for number in 1..=PUBLISHES {
            publisher.text(receiver, KEPT_S, &event)?;
            self.swarm.until(|received| received.messages >= first + number)?;
        }
        let (elapsed, cpu) = (start.elapsed(), self.target.cpu() - cpu);
        let reads = redis.reads()? - reads;
        let send = |publisher: &mut Publisher| publisher.text(receiver, KEPT_S, &event);
        let together = self.publish_together(PUBLISHES, 1, &send)?;
        let start = Instant::now();
        for number in 0..PUBLISHES {
            redis.publish_as_original(number, event.as_bytes())?;
        }
        let original = start.elapsed();
        let publish = |name, about, cpu| {
            let figure = Figure::new(name, "µs CPU", about, Better::Lower, Goal::Value(120.0));
            figure.with(micros_each(cpu, PUBLISHES))
        };
        let together = publish(
            "publish through Redis, eight at once",
            "eight publishers, one message per request, one subscriber, stored",
            together,
        );
        let alone = publish(
            "publish through Redis",
            "the same from one publisher, one after the other: nothing shares a wake or a write",
            cpu,
        );
        let trips = Figure::new(
            "Redis round trips of a publish",
            "reads",
            "reads of the Redis server, one after the other; Push server 2.0 needs four",
            Better::Lower,
            Goal::Value(1.1),
        )
        .with(as_f64(reads) / as_f64(PUBLISHES));
        let mut whole = Figure::new(
            "publish through Redis until delivery",
            "µs",
            "with HTTP and WebSocket; × bare: against the bare commands of Push server 2.0 for it",
            Better::Lower,
            Goal::Shown,
        );
        whole.samples.push(micros_each(elapsed, PUBLISHES));
        whole.floor.push(micros_each(original, PUBLISHES));
        Ok(vec![together, alone, trips, whole])
    }
}
