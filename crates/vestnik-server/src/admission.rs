//! How many connections there may be: in total and from one address (README D12).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::rate::network;

/// Counts connections against their limits.
pub(crate) struct Admission {
    total_max: AtomicUsize,
    address_max: AtomicUsize,
    total: AtomicUsize,
    /// Counted always, since a limit may be set at any time; of IPv6 by networks, as rates are.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// At most `total_max` connections, and `address_max` from one address.
    pub(crate) fn new(total_max: usize, address_max: usize) -> Self {
        Self {
            total_max: AtomicUsize::new(total_max),
            address_max: AtomicUsize::new(address_max),
            total: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }

    /// Changes the limits. Who is there already stays.
    pub(crate) fn set_limits(&self, total_max: usize, address_max: usize) {
        self.total_max.store(total_max, Ordering::Relaxed);
        self.address_max.store(address_max, Ordering::Relaxed);
    }

    /// Counts a connection in for as long as the seat is held; `None` when there are too many.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        self.enter(address).then(|| Seat { admission: Arc::clone(self), address })
    }

    /// Counts a connection in; `false`, and nothing counted, when there are too many.
    pub(crate) fn enter(&self, address: IpAddr) -> bool {
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.total_max.load(Ordering::Relaxed) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(network(address)).or_insert(0);
        if *count >= self.address_max.load(Ordering::Relaxed) {
            if *count == 0 {
                by_address.remove(&network(address));
            }
            self.total.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        *count += 1;
        true
    }

    /// Counts a connection out that was counted in.
    pub(crate) fn leave(&self, address: IpAddr) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// The place of one counted connection; given back when dropped.
pub(crate) struct Seat {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admission.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w_028_connections_are_limited_in_total_and_by_address() {
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "::1"].map(|text| text.parse().unwrap());
        let admission = Admission::new(3, 2);
        assert!(admission.enter(a) && admission.enter(a));
        assert!(!admission.enter(a), "two from one address");
        assert!(admission.enter(b));
        assert!(!admission.enter(c), "three in total");
        admission.leave(a);
        assert!(admission.enter(c));
        admission.leave(b);
        assert!(admission.enter(a));
    }

    #[test]
    fn limits_may_change_while_connections_are_there() {
        let admission = Admission::new(3, 1);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "::1"].map(|text| text.parse().unwrap());
        assert!(admission.enter(a) && !admission.enter(a));
        admission.set_limits(3, 2);
        assert!(admission.enter(a) && admission.enter(b) && !admission.enter(c));
        admission.set_limits(1, 1);
        admission.leave(a);
        admission.leave(a);
        assert!(!admission.enter(a), "b is still there");
        admission.leave(b);
        assert!(admission.enter(a));
    }

    #[test]
    fn a_limit_that_is_set_later_counts_who_was_there_before() {
        let admission = Admission::new(3, 3);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        assert!(admission.enter(a));
        admission.set_limits(3, 1);
        assert!(!admission.enter(a) && admission.enter(b));
        admission.leave(a);
        assert!(admission.enter(a));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let admission = Arc::new(Admission::new(9, 2));
        let [a, b, c, other] = ["2001:db8::1", "2001:db8::2", "2001:db8::3:4", "2001:db8:0:1::1"]
            .map(|text| text.parse().unwrap());
        assert!(admission.enter(a) && !admission.by_address.lock().unwrap().contains_key(&a));
        let seat = admission.seat(b);
        assert!(seat.is_some() && !admission.enter(c) && admission.seat(c).is_none());
        assert!(admission.enter(other), "another network");
        drop(seat);
        assert!(admission.enter(c));
        for address in [a, c, other] {
            admission.leave(address);
        }
        assert!(admission.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn w_028_a_seat_is_free_again_when_it_is_left() {
        let admission = Arc::new(Admission::new(2, 1));
        let address = "10.0.0.1".parse().unwrap();
        let seat = admission.seat(address);
        assert!(seat.is_some());
        assert!(admission.seat(address).is_none(), "one from one address");
        drop(seat);
        assert!(admission.seat(address).is_some());
    }
}
