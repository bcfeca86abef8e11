//! How many requests a second one address may make, and how many connections it may open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one address has left. A bucket: full at first, and filled again with time.
struct Bucket {
    left: f64,
    filled_at: Instant,
}

/// The rates of all addresses, for one kind of request.
pub(crate) struct Rates(Mutex<HashMap<IpAddr, Bucket>>);

impl Rates {
    /// Seconds' worth of requests that may come at once: a page opens several connections, and a
    /// restart brings everybody back.
    const BURST_S: f64 = 10.0;
    /// Addresses that are remembered. While all of them are busy, others are not limited: a table that
    /// is full must not lock out who comes next.
    const ADDRESSES_MAX: usize = 65_536;

    /// Nobody has asked for anything yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Counts a request from `address`; `false` when it makes more than `per_second`. Zero: no limit.
    pub(crate) fn allows(&self, address: IpAddr, per_second: u32) -> bool {
        per_second == 0 || self.allows_at(address, per_second, Instant::now())
    }

    fn allows_at(&self, address: IpAddr, per_second: u32, now: Instant) -> bool {
        let per_second = f64::from(per_second);
        let burst = per_second * Self::BURST_S;
        let address = network(address);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= Self::ADDRESSES_MAX && !buckets.contains_key(&address) {
            // Who asked for nothing in this time has a full bucket, which is what strangers have.
            let full_after = Duration::from_secs_f64(Self::BURST_S);
            buckets.retain(|_, bucket| now.duration_since(bucket.filled_at) < full_after);
            if buckets.len() >= Self::ADDRESSES_MAX {
                return true;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: burst, filled_at: now });
        let passed = now.duration_since(bucket.filled_at).as_secs_f64();
        bucket.left = (bucket.left + passed * per_second).min(burst);
        bucket.filled_at = now;
        let is_allowed = bucket.left >= 1.0;
        if is_allowed {
            bucket.left -= 1.0;
        }
        is_allowed
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, all of which one client may use.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_burst_and_then_its_rate() {
        let rates = Rates::new();
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let now = Instant::now();
        assert!((0..20).all(|_| rates.allows_at(a, 2, now)));
        assert!(!rates.allows_at(a, 2, now));
        assert!(rates.allows_at(b, 2, now), "another address");
        let later = now + Duration::from_secs(1);
        assert!(rates.allows_at(a, 2, later) && rates.allows_at(a, 2, later));
        assert!(!rates.allows_at(a, 2, later));
        assert!(rates.allows(a, 0), "zero is no limit");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let rates = Rates::new();
        let now = Instant::now();
        let address = |host: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host));
        assert!((0..10).all(|host| rates.allows_at(address(host), 1, now)));
        assert!(!rates.allows_at(address(11), 1, now));
        assert!(rates.allows_at(address(1 << 64), 1, now));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_is_quiet() {
        let rates = Rates::new();
        let now = Instant::now();
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for number in 0..=Rates::ADDRESSES_MAX {
            assert!(rates.allows_at(address(number), 1, now));
        }
        assert_eq!(rates.0.lock().unwrap().len(), Rates::ADDRESSES_MAX);
        let later = now + Duration::from_secs(10);
        assert!(rates.allows_at(address(Rates::ADDRESSES_MAX), 1, later));
        assert_eq!(rates.0.lock().unwrap().len(), 1);
    }
}
