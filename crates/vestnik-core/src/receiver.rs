//! Where a message goes: channels.

use std::fmt;
use std::str::FromStr;

/// Id of a channel: 16 bytes. Wire, text: 32 lower-case hex digits; protobuf: 16 raw bytes.
///
/// `Debug` shows only the first four digits: without a signature key a private id is a password.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId([u8; 16]);

/// Text that is not a channel id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a channel id is 32 lower-case hex digits")]
pub struct ParseChannelIdError;

impl ChannelId {
    /// Length of the text form in bytes.
    pub const TEXT_LENGTH: usize = 32;

    /// An id from its 16 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The text form, without an allocation.
    #[must_use]
    pub fn to_hex(self) -> [u8; Self::TEXT_LENGTH] {
        let mut text = [0; Self::TEXT_LENGTH];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 15);
        }
        text
    }
}

/// The lower-case hex digit of `nibble`, which is below 16.
const fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

/// Value of a lower-case hex digit.
pub(crate) const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)])
        .map(char::from)
        .collect()
}

impl FromStr for ChannelId {
    type Err = ParseChannelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.as_bytes();
        if text.len() != Self::TEXT_LENGTH {
            return Err(ParseChannelIdError);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let high = hex_value(pair[0]).ok_or(ParseChannelIdError)?;
            let low = hex_value(pair[1]).ok_or(ParseChannelIdError)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_hex()).unwrap_or_default())
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Where a message goes. Private and public ids are separate spaces: a public id that is asked for
/// as a private one is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// The channel that the back end writes to.
    Private(ChannelId),
    /// The channel that other clients write to; listened to by who presented the signed pair.
    Public(ChannelId),
}

impl Receiver {
    /// The id without its space.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        match self {
            Self::Private(id) | Self::Public(id) => *id,
        }
    }

    /// Whether the id is one of the private space.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_007_an_id_is_32_lower_case_hex_digits_and_prints_as_it_was_read() {
        let text = "00112233445566778899aabbccddeeff";
        let id: ChannelId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), "0011…");
        for bad in [
            "",
            "00112233445566778899AABBCCDDEEFF",
            "00112233445566778899aabbccddeef",
            "00112233445566778899aabbccddeefff",
            "0011223344556677 899aabbccddeeff",
            "яяяяяяяяяяяяяяяя",
        ] {
            assert_eq!(bad.parse::<ChannelId>(), Err(ParseChannelIdError), "{bad}");
        }
    }
}
