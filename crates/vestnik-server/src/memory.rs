//! The limit of the process' memory: above it nothing new is taken, instead of the system ending all.

use std::rc::Rc;
use std::time::{Duration, Instant};

use vestnik_core::metric::Metric;

use crate::allocator;
use crate::shard::Shard;
use crate::shared::Shared;

/// Below this share of the limit things are taken again: 9 of 10.
const ENOUGH: (u64, u64) = (9, 10);

/// Whether memory is full now, given that it was before: it is from the limit on, and until it is well
/// below.
fn is_full(used: u64, limit: u64, was_full: bool) -> bool {
    let (part, whole) = ENOUGH;
    limit > 0 && (used > limit || (was_full && used > limit / whole * part))
}

impl Shard {
    /// Looks at the process' memory until the server stops; one shard does.
    pub(crate) async fn watch_memory(self: Rc<Self>) {
        /// Some hundred megabytes may arrive in a second.
        const OFTEN: Duration = Duration::from_millis(100);
        const SELDOM: Duration = Duration::from_secs(5);
        /// Looking through all memory is work.
        const GIVE_BACK: Duration = Duration::from_secs(1);
        let mut given_back = None::<Instant>;
        loop {
            self.shared.look_at_memory();
            let is_due = given_back.is_none_or(|at| at.elapsed() >= GIVE_BACK);
            if self.shared.hub.is_full() && is_due {
                given_back = Some(Instant::now());
                // Beside this thread, which serves connections meanwhile. It fails only when the process ends.
                let _ = tokio::task::spawn_blocking(allocator::give_back).await;
            }
            let is_limited = self.shared.options().limits.memory > 0;
            let pause = if is_limited { OFTEN } else { SELDOM };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.stopping.cancelled() => return,
            }
        }
    }
}

impl Shared {
    /// Looks at the process' memory.
    fn look_at_memory(&self) {
        let limit = self.options().limits.memory;
        let was_full = self.hub.is_full();
        let Some(used) = resident_bytes() else { return };
        self.metrics().set(Metric::MemoryResident, used);
        let is_full = is_full(used, limit, was_full);
        if is_full == was_full {
            return;
        }
        self.hub.set_full(is_full);
        self.metrics().set(Metric::MemoryFull, u64::from(is_full));
        if is_full {
            tracing::error!(used, limit, "memory is full: no new connections and messages");
        } else {
            tracing::info!(used, limit, "memory is enough again");
        }
    }
}

/// Memory of this process that is really there, in bytes; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_full_from_the_limit_until_well_below_it() {
        assert!(!is_full(100, 100, false));
        assert!(is_full(101, 100, false));
        assert!(is_full(95, 100, true) && !is_full(95, 100, false));
        assert!(!is_full(90, 100, true));
        assert!(!is_full(u64::MAX, 0, true), "no limit");
    }

    #[test]
    fn the_system_says_how_much_there_is() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
