//! Who may use the trusted routes: publishing, presence, statistics, metrics (README D15).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address or a block of addresses: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
    text: (IpAddr, u8),
}

/// Text that is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an address or a network; write for example 10.0.0.0/8, 192.168.1.7 or ::1")]
pub struct ParseNetworkError(String);

impl Network {
    /// Whether `address` belongs to it. IPv4 addresses in IPv6 form count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.address
    }

    /// Whether every address in it is one of this machine's own.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.text.0.to_canonical().is_loopback()
    }
}

/// Every address as 128 bits; IPv4 in its mapped form.
fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseNetworkError(text.to_owned());
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(length) => {
                length.trim().parse().ok().filter(|l| *l <= longest).ok_or_else(wrong)?
            }
        };
        let hidden = u32::from(longest - length);
        let mask = u128::MAX.checked_shl(hidden).unwrap_or(0);
        Ok(Self { address: bits(address) & mask, mask, text: (address, length) })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.text.0, self.text.1)
    }
}

/// The rule of trusted routes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Addresses that may use them.
    pub allow: Vec<Network>,
    /// Proxies whose `X-Forwarded-For` is believed. Empty: the header is ignored.
    pub proxies: Vec<Network>,
    /// A path segment behind the publish path that opens it to every address.
    pub path_secret: Option<vestnik_core::Secret<String>>,
}

impl Trust {
    /// The address a request really comes from: the peer, or, when the peer is a known proxy, the
    /// rightmost forwarded address that is none; if all are proxies, the leftmost.
    ///
    /// `forwarded`: the values of all `X-Forwarded-For` headers, in order.
    #[must_use]
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let is_proxy = |address| self.proxies.iter().any(|network| network.contains(address));
        if !is_proxy(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded.rev().flat_map(|value| value.rsplit(',')) {
            // An entry that is no address (a port, "unknown") hides who is behind it: whoever wrote
            // it is the last one known, and must not be taken for the proxy itself.
            let Ok(address) = entry.trim().parse() else {
                return IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            };
            client = address;
            if !is_proxy(address) {
                break;
            }
        }
        client
    }

    /// Whether `client` may use trusted routes.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(client))
    }

    /// Whether `rest`, the target behind the publish path, opens with the secret segment.
    #[must_use]
    pub fn has_secret(&self, rest: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        let Some(secret) = &self.path_secret else { return false };
        let segment = rest.split(['/', '?']).next().unwrap_or_default();
        bool::from(segment.as_bytes().ct_eq(secret.expose().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_contain_what_they_say() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("::1", "::1", true),
            ("fd00::/8", "fd12::1", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
        }
        for bad in ["", "10.0.0.0/33", "localhost", "10.0.0/8", "::1/129", "1.2.3.4/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn w_027_forwarded_addresses_are_believed_from_known_proxies_only() {
        let trust = Trust {
            allow: networks(&["127.0.0.0/8"]),
            proxies: networks(&["127.0.0.0/8", "10.0.0.1"]),
            path_secret: None,
        };
        for (peer, forwarded, client) in [
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["127.0.0.1, 203.0.113.9, 10.0.0.1"], "203.0.113.9"),
            ("127.0.0.1", &["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["127.0.0.5,10.0.0.1"], "127.0.0.5"),
            ("127.0.0.1", &["127.0.0.1, unknown"], "::"),
            ("203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
        ] {
            let found = trust.client(peer.parse().unwrap(), forwarded.iter().copied());
            assert_eq!(found.to_string(), client, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn q_186_a_secret_segment_is_compared_whole() {
        let secret = Some(vestnik_core::Secret::new("s3cret".to_owned()));
        let trust = Trust { path_secret: secret, ..Trust::default() };
        assert!(trust.has_secret("s3cret/?CHANNEL_ID=1"));
        assert!(trust.has_secret("s3cret?x"));
        assert!(!trust.has_secret("s3cret2/"));
        assert!(!trust.has_secret(""));
        assert!(!Trust::default().has_secret(""));
    }
}
