//! JSON-RPC of generation 5: requests of sites over HTTP, and of clients over their connections
//! (json-rpc.md §4, §7).

mod client;
mod site;
mod status;

use std::fmt::Write as _;

pub(crate) use site::{api_not_found, api_too_large, api_unavailable};
use vestnik_core::{Author, User, UserId, UserSpace};

/// Who a subscriber of generation 5 is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The signed-in user; `None` for guests and for connections without a token.
    pub(crate) user: Option<User>,
    /// Whose additions it gets: the signed-in user, or the one whose private channel it hears.
    pub(crate) addressee: Option<User>,
    /// The site of a token.
    pub(crate) space: Option<UserSpace>,
    /// Who its messages are said to come from.
    pub(crate) author: Author,
    /// Whether it is a web client: mobile ones do not send `revision`.
    pub(crate) has_revision: bool,
    /// When the connection ends at the latest because of its token, unix seconds.
    pub(crate) until_s: Option<u64>,
}

/// How many requests a connection may send: so many at once, then a steady stream.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: f32,
    filled_at: std::time::Instant,
}

impl Allowance {
    const BURST: f32 = 200.0;
    const PER_SECOND: f32 = 50.0;

    pub(crate) fn new() -> Self {
        Self { left: Self::BURST, filled_at: std::time::Instant::now() }
    }

    /// Takes `cost` from it; `false`, and nothing taken, when it is used up.
    fn take(&mut self, cost: f32) -> bool {
        let elapsed = self.filled_at.elapsed().as_secs_f32();
        self.filled_at = std::time::Instant::now();
        self.left = (self.left + elapsed * Self::PER_SECOND).min(Self::BURST);
        let is_enough = self.left >= cost;
        if is_enough {
            self.left -= cost;
        }
        is_enough
    }
}

/// The result of `getUsersLastSeen`: an object of seconds by user (json-rpc.md §4.6).
fn last_seen_result(seen: &[(UserId, u64)]) -> String {
    let mut result = String::with_capacity(seen.len() * 16 + 2);
    result.push('{');
    for (index, (user, ago_s)) in seen.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // Writing to a text does not fail.
        let _ = write!(result, r#"{comma}"{user}":{ago_s}"#);
    }
    result.push('}');
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j_098_last_seen_is_an_object_also_when_it_is_empty() {
        let id = |number| UserId::new(number).unwrap();
        assert_eq!(last_seen_result(&[]), "{}");
        assert_eq!(last_seen_result(&[(id(7), 0), (id(-8), 90)]), r#"{"7":0,"-8":90}"#);
    }

    #[test]
    fn j_102_an_allowance_is_a_burst_and_then_a_steady_stream() {
        let mut allowance = Allowance::new();
        assert!((0..200).all(|_| allowance.take(1.0)));
        assert!(!allowance.take(100.0));
        allowance.filled_at -= std::time::Duration::from_secs(1);
        assert!(allowance.take(50.0));
        assert!(!allowance.take(25.0));
        allowance.filled_at -= std::time::Duration::from_secs(3600);
        assert!(allowance.take(200.0) && !allowance.take(100.0), "no more than the burst");
    }
}
