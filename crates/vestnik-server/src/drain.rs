//! The end of a shard: its connections are closed one after the other, spread over time (K-042).

use std::time::Duration;

use vestnik_hub::SubscriberKey;

/// The end of a shard: which connections are still to be closed, and when.
pub(crate) struct Drain {
    pub(crate) sockets: Vec<SubscriberKey>,
    step: Duration,
    next_at: tokio::time::Instant,
    over_at: tokio::time::Instant,
}

impl Drain {
    /// Connections that `spread` is meant for.
    const CONNECTIONS: u32 = 10_000;
    /// After the last close a connection has this long to answer.
    const LAST_WORDS: Duration = Duration::from_secs(5);

    pub(crate) fn new(sockets: Vec<SubscriberKey>, spread: Duration) -> Self {
        let now = tokio::time::Instant::now();
        let step = spread / Self::CONNECTIONS;
        let count = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
        let over_at = now + step.saturating_mul(count) + Self::LAST_WORDS;
        Self { sockets, step, next_at: now, over_at }
    }

    /// The next connection whose time has come.
    pub(crate) fn next(&mut self) -> Option<SubscriberKey> {
        if tokio::time::Instant::now() < self.next_at {
            return None;
        }
        self.next_at += self.step;
        self.sockets.pop()
    }

    /// Waits until something is to be done.
    pub(crate) async fn due(drain: Option<&Self>) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let Some(drain) = drain else { return };
        if drain.sockets.is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
        } else {
            tokio::time::sleep_until(drain.next_at).await;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        tokio::time::Instant::now() >= self.over_at
    }
}
