//! How much of the bodies of strangers is in memory at a time: whoever is not known to be the site shares
//! one budget, so that no crowd of them takes the memory of those who are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of strangers' bodies that are in memory now.
#[derive(Debug, Default)]
pub(crate) struct Bodies(AtomicUsize);

impl Bodies {
    /// A share with nothing in it.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { bodies: Arc::clone(self), bytes: 0 }
    }
}

/// What one body takes of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Share {
    /// Takes `bytes` more; `false`, and nothing taken, when all shares together would exceed `budget`.
    pub(crate) fn grow(&mut self, bytes: usize, budget: usize) -> bool {
        let taken = self.bodies.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let is_enough = taken <= budget;
        if is_enough {
            self.bytes += bytes;
        } else {
            self.bodies.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_enough
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_stay_within_the_budget_and_come_back() {
        let bodies = Arc::new(Bodies::default());
        let (mut one, mut other) = (bodies.share(), bodies.share());
        assert!(one.grow(60, 100) && other.grow(40, 100));
        assert!(!other.grow(1, 100));
        drop(one);
        assert!(other.grow(60, 100) && !other.grow(1, 100));
        drop(other);
        assert!(bodies.share().grow(100, 100));
    }
}
