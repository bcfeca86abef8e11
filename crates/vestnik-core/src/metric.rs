//! Every metric the program shows: name, help, kind; counted without locks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        /// A number the program keeps about itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Metric { $(#[doc = $help] $variant),* }

        const ALL: &[(&str, Kind, &str)] = &[$(($name, Kind::$kind, $help)),*];
    };
}

metrics! {
    ConnectionsWebSocket = "vestnik_connections_websocket", Gauge, "Open WebSocket connections.";
    ConnectionsPolling = "vestnik_connections_polling", Gauge, "Long polls being held.";
    Accepted = "vestnik_accepted_connections_total", Counter, "TCP connections accepted.";
    ConnectionsRefused = "vestnik_refused_connections_total", Counter, "Connections closed at once because there were too many.";
    Published = "vestnik_published_messages_total", Counter, "Messages numbered by this node.";
    PublishedBytes = "vestnik_published_bytes_total", Counter, "Bytes of the bodies of numbered messages.";
    Stored = "vestnik_stored_messages_total", Counter, "Messages written to the history.";
    NotStored = "vestnik_unstored_messages_total", Counter, "Messages that should have been stored and could not be.";
    Dropped = "vestnik_dropped_publishes_total", Counter, "Publishes answered but addressed to nobody valid, or empty.";
    Refused = "vestnik_refused_publishes_total", Counter, "Publishes answered with an error.";
    Delivered = "vestnik_delivered_messages_total", Counter, "Messages handed to connections, live.";
    Replayed = "vestnik_replayed_messages_total", Counter, "Messages handed to returning subscribers from the history.";
    RecoveryGaps = "vestnik_recovery_gaps_total", Counter, "Returning subscribers whose position was no longer covered by the history.";
    PartialReplays = "vestnik_partial_replays_total", Counter, "Returning subscribers who missed more than may wait for one: they were given the beginning and come back for the rest.";
    SlowSubscribers = "vestnik_slow_subscribers_total", Counter, "Connections closed because their outbox was full.";
    Evicted = "vestnik_evicted_connections_total", Counter, "Connections closed by the limit per channel.";
    SubscribeRefused = "vestnik_refused_subscriptions_total", Counter, "Subscriptions refused for their channel ids.";
    ApiRefused = "vestnik_refused_api_requests_total", Counter, "JSON-RPC requests of sites with a wrong or missing signature.";
    NotObject = "vestnik_skipped_messages_total", Counter, "Messages not handed to a JSON-RPC connection because their body is no JSON object.";
    RateLimited = "vestnik_rate_limited_requests_total", Counter, "Requests of JSON-RPC clients refused because they came too fast.";
    RateLimitedSubscriptions = "vestnik_rate_limited_subscriptions_total", Counter, "Subscriptions refused because their address made too many.";
    RateLimitedPublishes = "vestnik_rate_limited_publishes_total", Counter, "Publishes refused because their address made too many.";
    MemoryResident = "vestnik_memory_resident_bytes", Gauge, "Memory of the process.";
    MemoryFull = "vestnik_memory_full", Gauge, "1 while memory is over its limit and nothing new is taken.";
    MemoryRefused = "vestnik_refused_for_memory_total", Counter, "Subscriptions, publishes and request bodies refused because memory was over its limit, or because strangers sent too much at a time.";
    TrustRefused = "vestnik_refused_untrusted_total", Counter, "Requests to trusted routes from addresses outside the list.";
    SocketWrites = "vestnik_socket_writes_total", Counter, "Write calls for deliveries to WebSocket connections.";
    HistoryMessages = "vestnik_history_messages", Gauge, "Messages kept in the history now.";
    HistoryBytes = "vestnik_history_bytes", Gauge, "Bytes the history takes: on disk, or in memory for the memory engine.";
    HistoryExpired = "vestnik_history_expired_messages_total", Counter, "Messages removed because their time was over.";
    HistoryEvicted = "vestnik_history_evicted_messages_total", Counter, "Messages removed early because a limit was reached.";
    HistorySegments = "vestnik_history_segments", Gauge, "Files of the history.";
    HistoryCompactedBytes = "vestnik_history_compacted_bytes_total", Counter, "Bytes of history files removed or rewritten.";
    HistorySyncs = "vestnik_history_syncs_total", Counter, "Times the history was forced to disk.";
    HistoryDamaged = "vestnik_history_damaged_bytes_total", Counter, "Bytes of the history found damaged and set aside.";
    CertificateExpires = "vestnik_acme_certificate_expires_seconds", Gauge, "When the automatic certificate ends, in seconds since 1970; 0: there is none.";
    CertificatesObtained = "vestnik_acme_certificates_total", Counter, "Certificates obtained automatically.";
    CertificateFailures = "vestnik_acme_failures_total", Counter, "Failed attempts to obtain a certificate.";
    RedisConnected = "vestnik_redis_connected", Gauge, "1 while there is a connection to Redis.";
    AnsweredAlone = "vestnik_answered_alone_total", Counter, "Questions about users and channels answered without the other nodes, because Redis could not be asked.";
    RedisFailures = "vestnik_redis_failures_total", Counter, "Connections to Redis that failed or broke, and batches it refused.";
}

/// All metrics of one process. Shared by reference; updating one is a single atomic addition.
pub struct Metrics([AtomicU64; ALL.len()]);

impl Default for Metrics {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; ALL.len()])
    }
}

impl Metrics {
    /// Adds one.
    pub fn increment(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Adds `by`.
    pub fn add(&self, metric: Metric, by: u64) {
        self.0[metric as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// Takes `by` from a gauge.
    pub fn subtract(&self, metric: Metric, by: u64) {
        self.0[metric as usize].fetch_sub(by, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, metric: Metric, value: u64) {
        self.0[metric as usize].store(value, Ordering::Relaxed);
    }

    /// Reads one.
    #[must_use]
    pub fn get(&self, metric: Metric) -> u64 {
        self.0[metric as usize].load(Ordering::Relaxed)
    }

    /// All of them in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(ALL.len() * 128);
        for ((name, kind, help), value) in ALL.iter().zip(&self.0) {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let value = value.load(Ordering::Relaxed);
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}

/// How often things took how long. Recording is one atomic addition.
pub struct Histogram([AtomicU64; Self::BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Self::BUCKETS])
    }
}

impl Histogram {
    /// Four for each doubling, from a microsecond to over a minute.
    const BUCKETS: usize = 4 * 27;

    /// Records `count` things that took `time`.
    pub fn record(&self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0[Self::bucket(micros)].fetch_add(count, Ordering::Relaxed);
    }

    fn bucket(micros: u64) -> usize {
        let micros = micros.max(1);
        let doubling = micros.ilog2();
        // The two bits behind the highest one.
        let leading =
            if doubling >= 2 { micros >> (doubling - 2) } else { micros << (2 - doubling) };
        let quarter = leading & 3;
        let bucket = 4 * u64::from(doubling) + quarter;
        usize::try_from(bucket).unwrap_or(usize::MAX).min(Self::BUCKETS - 1)
    }

    /// How many were recorded so far, by time.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The time within which this share (0 to 1) of `counts` lies; `None` when there are none. The error is
    /// a quarter at most.
    #[must_use]
    pub fn quantile(counts: &[u64], share: f64) -> Option<Duration> {
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counts"
        )]
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        // The upper end of the bucket, in microseconds.
        let (doubling, quarter) = (bucket / 4, (bucket % 4) as u64);
        let micros = ((5 + quarter) << doubling) / 4;
        Some(Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_finds_quantiles_within_a_quarter() {
        let histogram = Histogram::default();
        assert_eq!(Histogram::quantile(&histogram.counts(), 0.5), None);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros), 1);
        }
        histogram.record(Duration::from_secs(3600), 1);
        let counts = histogram.counts();
        for (share, exact) in [(0.01, 10.0), (0.5, 500.0), (0.95, 950.0)] {
            let found = Histogram::quantile(&counts, share).unwrap().as_secs_f64() * 1e6;
            assert!(found >= exact * 0.99 && found <= exact * 1.26, "{share}: {found}");
        }
        assert!(Histogram::quantile(&counts, 1.0).unwrap() >= Duration::from_secs(60));
    }

    #[test]
    fn names_follow_the_rules_and_counters_end_in_total() {
        for (name, kind, help) in ALL {
            assert!(name.starts_with("vestnik_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn rendering_shows_what_was_counted() {
        let metrics = Metrics::default();
        metrics.add(Metric::Published, 3);
        assert!(metrics.render().contains("\nvestnik_published_messages_total 3\n"));
    }
}
