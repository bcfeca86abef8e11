//! Networks of IP addresses, written `10.0.0.0/8`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses that share their first bits. An IPv4 network also contains the
/// IPv4-mapped form of its addresses, because that is how a socket on `[::]` shows such callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Text that is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseNetworkError {
    /// Neither an address nor an address with a prefix length.
    #[error("`{0}` is not an address or a network, such as 127.0.0.1, 10.0.0.0/8 or fd00::/8")]
    Malformed(String),
    /// The prefix is longer than the address.
    #[error("`{text}` has a prefix over {limit}")]
    PrefixTooLong {
        /// What was written.
        text: String,
        /// The longest prefix of its family.
        limit: u8,
    },
    /// Bits behind the prefix are set: either the address or the prefix is a slip.
    #[error("`{text}` has bits set behind its prefix; did you mean `{meant}`?")]
    StrayBits {
        /// What was written.
        text: String,
        /// The network that contains it.
        meant: Network,
    },
}

impl Network {
    const fn v4(a: u8, b: u8, prefix_bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix_bits }
    }

    const fn v6(first: u16, last: u16, prefix_bits: u8) -> Self {
        let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last);
        Self { address: IpAddr::V6(address), prefix_bits }
    }

    /// Loopback and private networks of both families, loopback first (README D15).
    pub const LOCAL: [Self; 6] = [
        Self::v4(127, 0, 8),
        Self::v6(0, 1, 128),
        Self::v4(10, 0, 8),
        Self::v4(172, 16, 12),
        Self::v4(192, 168, 16),
        Self::v6(0xfc00, 0, 7),
    ];

    /// Whether `address` belongs to it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let (own, own_bits) = bits(self.address);
        let (other, other_bits) = bits(address.to_canonical());
        own_bits == other_bits && mask(other, self.prefix_bits, own_bits) == own
    }

    /// Whether it is every address of its family.
    #[must_use]
    pub const fn is_everyone(self) -> bool {
        self.prefix_bits == 0
    }
}

/// The address as a number, with its width.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// `value` of `width` bits with everything behind the first `prefix_bits` cleared.
fn mask(value: u128, prefix_bits: u8, width: u8) -> u128 {
    let cleared = u32::from(width - prefix_bits);
    value.checked_shr(cleared).and_then(|it| it.checked_shl(cleared)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseNetworkError::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| malformed())?.to_canonical();
        let (value, width) = bits(address);
        let prefix_bits = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|it| it.is_ascii_digit()) => {
                digits.parse::<u8>().map_err(|_| malformed())?
            }
            Some(_) => return Err(malformed()),
        };
        if prefix_bits > width {
            return Err(ParseNetworkError::PrefixTooLong { text: text.to_owned(), limit: width });
        }
        let kept = mask(value, prefix_bits, width);
        if kept == value {
            return Ok(Self { address, prefix_bits });
        }
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept).map_err(|_| malformed())?.into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        let meant = Self { address, prefix_bits };
        Err(ParseNetworkError::StrayBits { text: text.to_owned(), meant })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, width) = bits(self.address);
        if self.prefix_bits == width {
            return write!(f, "{}", self.address);
        }
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_in_either_form() {
        for (network, inside, outside) in [
            ("127.0.0.0/8", "127.1.2.3", "128.0.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("172.16.0.0/12", "::ffff:172.31.255.255", "172.32.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::1", "::1", "127.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn slips_are_refused_with_what_was_probably_meant() {
        let stray = "10.0.0.7/24".parse::<Network>().unwrap_err();
        assert_eq!(
            stray.to_string(),
            "`10.0.0.7/24` has bits set behind its prefix; did you mean `10.0.0.0/24`?"
        );
        for bad in ["", "localhost", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/33", "::/129", "10/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_local_networks_are_written_right() {
        let text = Network::LOCAL.map(|network| network.to_string()).join(" ");
        assert_eq!(text, "127.0.0.0/8 ::1 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7");
        assert!(Network::LOCAL.iter().all(|it| it.to_string().parse() == Ok(*it)));
    }
}
