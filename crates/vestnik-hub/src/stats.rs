//! What was asked and published today, as the statistics of generations 3 and 4 show it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use vestnik_core::{Clock, MessageKind};

/// A kind of request that the statistics count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Messages to publish.
    IncomingMessages,
    /// Who is online.
    ChannelStats,
    /// The statistics themselves.
    ServerStats,
}

/// Counters of one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Today {
    /// Requests with messages.
    pub incoming_messages: u64,
    /// Requests for presence.
    pub channel_stats: u64,
    /// Requests for statistics.
    pub server_stats: u64,
    /// Messages by kind.
    pub messages: BTreeMap<Box<str>, u64>,
}

/// Counts requests and messages since midnight, UTC.
pub struct DailyStats {
    clock: Clock,
    day: Mutex<(u64, Today)>,
}

impl DailyStats {
    /// Kinds counted by name; further ones count as `unknown`, so that callers cannot fill memory.
    const KINDS_MAX: usize = 1000;

    /// Counters that start at zero.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, day: Mutex::default() }
    }

    /// Counts a request.
    pub fn count_request(&self, kind: RequestKind) {
        self.update(|today| {
            *match kind {
                RequestKind::IncomingMessages => &mut today.incoming_messages,
                RequestKind::ChannelStats => &mut today.channel_stats,
                RequestKind::ServerStats => &mut today.server_stats,
            } += 1;
        });
    }

    /// Counts messages under their kinds.
    pub fn count_messages<'a>(&self, kinds: impl Iterator<Item = &'a MessageKind>) {
        self.update(|today| {
            for kind in kinds {
                let name = kind.as_str();
                if let Some(count) = today.messages.get_mut(name) {
                    *count += 1;
                } else {
                    let full = today.messages.len() >= Self::KINDS_MAX;
                    let name = if full { MessageKind::UNKNOWN.as_str() } else { name };
                    *today.messages.entry(name.into()).or_default() += 1;
                }
            }
        });
    }

    /// The counters of today.
    #[must_use]
    pub fn today(&self) -> Today {
        self.update(|today| today.clone())
    }

    fn update<T>(&self, change: impl FnOnce(&mut Today) -> T) -> T {
        const DAY_S: u64 = 86_400;
        let mut day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.unix_s() / DAY_S;
        if day.0 != now {
            *day = (now, Today::default());
        }
        change(&mut day.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counters_start_again_at_midnight() {
        let clock = Clock::manual(86_400 * 20_000 + 86_399);
        let stats = DailyStats::new(clock.clone());
        stats.count_request(RequestKind::ChannelStats);
        stats.count_messages([MessageKind::UNKNOWN, MessageKind::parse("im_x")].iter());
        let today = stats.today();
        assert_eq!((today.channel_stats, today.messages["unknown"]), (1, 1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(stats.today(), Today::default());
    }

    #[test]
    fn w_028_foreign_kinds_cannot_fill_memory() {
        let stats = DailyStats::new(Clock::manual(0));
        let kinds: Vec<_> = (0..2000).map(|n| MessageKind::parse(&format!("k{n}"))).collect();
        stats.count_messages(kinds.iter());
        let messages = stats.today().messages;
        assert_eq!(messages.len(), 1001);
        assert_eq!(messages["unknown"], 1000);
    }
}
