//! Who may use the trusted routes: publishing, presence, statistics, metrics (README D15).

use std::net::{IpAddr, Ipv6Addr};

use crate::network::Network;

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
        let is_proxy = |address| self.is_proxy(address);
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
