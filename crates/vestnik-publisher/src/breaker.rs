//! Stops asking a server that does not answer (module.md §8.1, M-057).

use std::sync::{Mutex, PoisonError};

/// What an administrator is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerEvent {
    /// Sending was stopped for a while: show the notification `PULL_ERROR_SEND`.
    Opened,
    /// Sending goes on: take the notification away.
    Closed,
}

/// Errors counted so far, unix seconds; option `nginx_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// How many.
    pub count: u32,
    /// When the first came.
    pub first_s: u64,
    /// When the last was counted.
    pub counted_s: u64,
}

/// Counts errors of one server, at most one a second; ten within two minutes stop it until these are over.
/// A success does not start the count anew.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<(Option<BreakerState>, bool)>);

impl Breaker {
    const ERRORS_MAX: u32 = 10;
    const WINDOW_S: u64 = 120;

    /// A breaker that goes on from a stored state.
    #[must_use]
    pub fn from_state(state: Option<BreakerState>) -> Self {
        let is_open = state.is_some_and(|state| state.count >= Self::ERRORS_MAX);
        Self(Mutex::new((state, is_open)))
    }

    /// The state to be stored.
    #[must_use]
    pub fn state(&self) -> Option<BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether a request may be sent now, and what changed by asking.
    #[must_use]
    pub fn ask(&self, now_s: u64) -> (bool, Option<BreakerEvent>) {
        let (state, is_open) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(errors) = *state else { return (true, None) };
        if errors.first_s + Self::WINDOW_S < now_s {
            *state = None;
            return (true, std::mem::take(is_open).then_some(BreakerEvent::Closed));
        }
        if errors.count < Self::ERRORS_MAX {
            return (true, None);
        }
        (false, (!std::mem::replace(is_open, true)).then_some(BreakerEvent::Opened))
    }

    /// Counts an error.
    pub fn failed(&self, now_s: u64) {
        let (state, _) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            None => *state = Some(BreakerState { count: 1, first_s: now_s, counted_s: now_s }),
            Some(errors) if errors.counted_s + 1 < now_s => {
                errors.count += 1;
                errors.counted_s = now_s;
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_057_ten_errors_in_two_minutes_stop_sending_until_they_are_over() {
        let breaker = Breaker::default();
        breaker.failed(1000);
        breaker.failed(1001);
        assert_eq!(breaker.state().map(|it| it.count), Some(1), "one in a second");
        for n in 1..9 {
            breaker.failed(1000 + 2 * n);
            assert_eq!(breaker.ask(1000 + 2 * n), (true, None));
        }
        breaker.failed(1018);
        assert_eq!(breaker.ask(1018), (false, Some(BreakerEvent::Opened)));
        assert_eq!(breaker.ask(1019), (false, None), "told once");
        let stored = Breaker::from_state(breaker.state());
        assert_eq!(stored.ask(1120), (false, None));
        assert_eq!(stored.ask(1121), (true, Some(BreakerEvent::Closed)));
        assert_eq!((stored.ask(1121), stored.state()), ((true, None), None));
    }
}
