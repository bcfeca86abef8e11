//! Time as a value: the program reads it from the system, a test moves it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where wall-clock time comes from. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// A clock that stands still until a test moves it; milliseconds since 1970.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A manual clock that shows `unix_s` seconds.
    #[must_use]
    pub fn manual(unix_s: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(unix_s * 1000)))
    }

    /// Milliseconds since 1970. A system clock before 1970 reads as 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the system's clock is read")]
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Self::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// Moves a manual clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(now) = self {
            now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
        }
    }
}
