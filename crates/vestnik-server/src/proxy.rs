//! The PROXY protocol, versions 1 and 2: who a proxy below HTTP speaks for. Bytes in, address out.
//!
//! Source: haproxy, `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes it takes.
    pub(crate) length: usize,
    /// Whom the proxy speaks for; `None`: for itself, or for somebody without an address of the
    /// internet.
    pub(crate) source: Option<SocketAddr>,
}

/// Bytes that are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header")]
pub(crate) struct NoHeader;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const START: &[u8] = b"PROXY ";
/// The longest header of version 1, with its line end.
const LINE_MAX: usize = 107;
/// The longest header of version 2 that is read: room for a client certificate among the extensions.
const BLOCK_MAX: usize = 4096;

/// Reads the header at the start of `bytes`; `Ok(None)`: more has to come.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let is_start_of = |mark: &[u8]| {
        let length = bytes.len().min(mark.len());
        bytes[..length] == mark[..length]
    };
    if is_start_of(&SIGNATURE) {
        block(bytes)
    } else if is_start_of(START) {
        line(bytes)
    } else {
        Err(NoHeader)
    }
}

fn line(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let looked_at = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = looked_at.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(NoHeader) };
    };
    let text = std::str::from_utf8(&bytes[START.len()..end]).map_err(|_| NoHeader)?;
    let length = end + 2;
    let mut parts = text.split(' ');
    let family = parts.next().ok_or(NoHeader)?;
    if family == "UNKNOWN" {
        return Ok(Some(Header { length, source: None }));
    }
    let mut address = || -> Result<IpAddr, NoHeader> {
        let text = parts.next().ok_or(NoHeader)?;
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| NoHeader),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| NoHeader),
            _ => Err(NoHeader),
        }
    };
    let (source, _) = (address()?, address()?);
    let mut port = || parts.next().and_then(|text| text.parse().ok()).ok_or(NoHeader);
    let (source_port, _): (u16, u16) = (port()?, port()?);
    if parts.next().is_some() {
        return Err(NoHeader);
    }
    Ok(Some(Header { length, source: Some(SocketAddr::new(source, source_port)) }))
}

fn block(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *head;
    let body_length = usize::from(u16::from_be_bytes([high, low]));
    let length = head.len() + body_length;
    if version_and_command >> 4 != 2 || length > BLOCK_MAX {
        return Err(NoHeader);
    }
    let Some(body) = rest.get(..body_length) else { return Ok(None) };
    let source = match (version_and_command & 0xf, family >> 4) {
        // The proxy itself, which looks whether we are there.
        (0, _) => None,
        (1, 1) => {
            let (Some(&[a, b, c, d]), 12..) = (body.first_chunk(), body.len()) else {
                return Err(NoHeader);
            };
            let port = u16::from_be_bytes([body[8], body[9]]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (1, 2) => {
            if body.len() < 36 {
                return Err(NoHeader);
            }
            let address: [u8; 16] = body[..16].try_into().map_err(|_| NoHeader)?;
            let port = u16::from_be_bytes([body[32], body[33]]);
            Some(SocketAddr::new(Ipv6Addr::from(address).into(), port))
        }
        // A unix socket, or nothing that can be said.
        (1, 0 | 3) => None,
        _ => return Err(NoHeader),
    };
    Ok(Some(Header { length, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_of(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_and_command, family], &length, body].concat()
    }

    fn check(bytes: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().unwrap());
        let expected = Header { length: bytes.len(), source };
        let with_request = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(header(&with_request), Ok(Some(expected)), "{}", bytes.escape_ascii());
        for end in 0..bytes.len() {
            assert_eq!(header(&bytes[..end]), Ok(None), "{}", bytes[..end].escape_ascii());
        }
    }

    #[test]
    fn both_versions_are_read_whole_and_in_pieces() {
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", Some("203.0.113.9:4711"));
        check(b"PROXY TCP6 2001:db8::1 ::1 65535 443\r\n", Some("[2001:db8::1]:65535"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ff:: ff:: 1 2\r\n", None);
        let four = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 1, 187];
        check(&block_of(0x21, 0x11, &four), Some("203.0.113.9:4711"));
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[15] = 1;
        six[33] = 80;
        check(&block_of(0x21, 0x21, &six), Some("[2001:db8::1]:80"));
        let with_extensions = [&four[..], &[4, 0, 1, 0]].concat();
        check(&block_of(0x21, 0x11, &with_extensions), Some("203.0.113.9:4711"));
        check(&block_of(0x20, 0, &[]), None);
        check(&block_of(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 100]].concat();
        let wide = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP5 1.1.1.1 1.1.1.1 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2 3\r\n",
            b"PROXY \xff\r\n",
            &long,
            &wide,
            &block_of(0x11, 0x11, &[0; 12]),
            &block_of(0x22, 0x11, &[0; 12]),
            &block_of(0x21, 0x11, &[0; 11]),
            &block_of(0x21, 0x21, &[0; 35]),
        ] {
            assert_eq!(header(bad), Err(NoHeader), "{}", bad.escape_ascii());
        }
    }
}
