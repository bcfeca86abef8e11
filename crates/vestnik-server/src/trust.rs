//! Who may use the trusted routes: publishing, presence, statistics, metrics (README D15).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::network::Network;

/// Where proxies write whom they speak for.
///
/// One of the two: a proxy passes the other on as the client sent it, so believing both would let
/// clients choose their address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: address, address`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=address, for="[address]:port"` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    /// The name of the header, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The addresses in one value of the header, in order; `None` for what is no address: a name, a
    /// mistake, "unknown".
    fn addresses(self, value: &str) -> Vec<Option<IpAddr>> {
        match self {
            Self::XForwardedFor => {
                value.split(',').map(|entry| entry.trim().parse().ok()).collect()
            }
            Self::Forwarded => split_unquoted(value, ',')
                .map(|element| {
                    let mut nodes = split_unquoted(element, ';').filter_map(|pair| {
                        let (name, node) = pair.split_once('=')?;
                        name.trim().eq_ignore_ascii_case("for").then_some(node.trim())
                    });
                    // Twice in one element: somebody wrote into another's.
                    nodes.next().filter(|_| nodes.next().is_none()).and_then(node_address)
                })
                .collect(),
        }
    }
}

/// The parts of `text` between separators that are not inside quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => is_escaped = true,
            _ => {}
        }
        character == separator && !is_quoted
    })
}

/// The address of a node: `192.0.2.1`, `192.0.2.1:4711`, `"[2001:db8::1]"`, `"[2001:db8::1]:4711"`.
fn node_address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    if let Some(address) = bare.strip_prefix('[').and_then(|node| node.strip_suffix(']')) {
        return Some(IpAddr::V6(address.parse().ok()?));
    }
    bare.parse::<SocketAddr>()
        .map(|address| address.ip())
        .or_else(|_| bare.parse::<std::net::Ipv4Addr>().map(IpAddr::V4))
        .ok()
}

/// The rule of trusted routes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Addresses that may use them.
    pub allow: Vec<Network>,
    /// Proxies whose word on the caller is believed. Empty: nobody's.
    pub proxies: Vec<Network>,
    /// Where proxies write it.
    pub forwarded: ForwardedHeader,
    /// A path segment behind the publish path that opens it to every address.
    pub path_secret: Option<vestnik_core::Secret<String>>,
}

impl Trust {
    /// The address a request really comes from: the peer, or, when the peer is a known proxy, the
    /// rightmost forwarded address that is none; if all are proxies, the leftmost.
    ///
    /// `forwarded`: the values of all headers of the name that `self.forwarded` has, in order.
    #[must_use]
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let is_proxy = |address| self.is_proxy(address);
        if !is_proxy(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in
            forwarded.rev().flat_map(|value| self.forwarded.addresses(value).into_iter().rev())
        {
            // An entry that is no address (a port, "unknown") hides who is behind it: whoever wrote
            // it is the last one known, and must not be taken for the proxy itself.
            let Some(address) = entry else {
                return IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            };
            client = address;
            if !is_proxy(address) {
                break;
            }
        }
        client
    }

    /// Whether `peer` is a known proxy, which speaks for others.
    #[must_use]
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(peer))
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
    fn w_027_forwarded_addresses_are_believed_from_known_proxies_only() {
        let trust = Trust {
            allow: networks(&["127.0.0.0/8"]),
            proxies: networks(&["127.0.0.0/8", "10.0.0.1"]),
            ..Trust::default()
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
    fn w_027_the_forwarded_header_follows_the_same_rule() {
        let trust = Trust {
            proxies: networks(&["127.0.0.0/8", "10.0.0.1", "::1"]),
            forwarded: ForwardedHeader::Forwarded,
            ..Trust::default()
        };
        for (forwarded, client) in [
            (&[][..], "127.0.0.1"),
            (&["for=203.0.113.9"], "203.0.113.9"),
            (&["For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1"], "2001:db8::1"),
            (&["for=127.0.0.1, for=203.0.113.9;host=a, for=10.0.0.1"], "203.0.113.9"),
            (&["for=1.2.3.4", "proto=http; for=\"203.0.113.9:80\""], "203.0.113.9"),
            (&["for=127.0.0.5,for=\"[::1]\""], "127.0.0.5"),
            // A comma and a semicolon inside quotes belong to the value.
            (&["for=203.0.113.9;host=\"a,for=127.0.0.1;b\\\",\""], "203.0.113.9"),
            (&["for=127.0.0.1, for=unknown"], "::"),
            (&["for=_hidden"], "::"),
            (&["proto=https"], "::"),
            (&["for=127.0.0.1;for=127.0.0.1"], "::"),
            (&["203.0.113.9"], "::"),
            (&["for=\"127.0.0.1, for=203.0.113.9"], "::"),
        ] {
            let found = trust.client("127.0.0.1".parse().unwrap(), forwarded.iter().copied());
            assert_eq!(found.to_string(), client, "{forwarded:?}");
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
