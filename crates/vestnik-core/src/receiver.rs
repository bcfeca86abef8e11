//! Where a message goes: channels, users, and who wants to know whether a user is online.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

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

/// The users of one site inside a tenant: equal user ids of two spaces are two people (README D17).
///
/// Made of the site's name, which is `hostId` where PHP asks and `iss` in a token; 8 bytes of its
/// SHA-256, so that any name takes the same little memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserSpace([u8; 8]);

impl UserSpace {
    /// The space of the site called `name`; a site without a name has one too.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&Sha256::digest(name)[..8]);
        Self(bytes)
    }

    /// The space with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Its 8 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for UserSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

/// Number of a user: negative for guests, never 0, which is nobody (json-rpc.md §4.4).
///
/// Kept as bytes so that a [`Receiver`] needs no alignment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId([u8; 8]);

/// Text that is not a user id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a user id is a whole number other than 0")]
pub struct ParseUserIdError;

impl UserId {
    /// The user with this number; `None` for 0.
    #[must_use]
    pub const fn new(number: i64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number.to_be_bytes())) }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i64 {
        i64::from_be_bytes(self.0)
    }
}

impl FromStr for UserId {
    type Err = ParseUserIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number =
            (1..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let number = if is_number { text.parse().ok() } else { None };
        number.and_then(Self::new).ok_or(ParseUserIdError)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A user of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    /// The site.
    pub space: UserSpace,
    /// The number there.
    pub id: UserId,
}

/// Where a message goes. Private and public ids are separate spaces: a public id that is asked for
/// as a private one is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// The channel that the back end writes to.
    Private(ChannelId),
    /// The channel that other clients write to; listened to by who presented the signed pair.
    Public(ChannelId),
    /// Every connection of a user of generation 5.
    User(User),
    /// Whoever wants to know when this user comes and goes.
    UserStatus(User),
    /// Whoever wants to know when any user of a site comes and goes.
    AnyUserStatus(UserSpace),
}

impl Receiver {
    /// Length of [`Receiver::to_bytes`].
    pub const BYTES: usize = 17;

    /// The channel; `None` for users.
    #[must_use]
    pub const fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Private(id) | Self::Public(id) => Some(*id),
            Self::User(_) | Self::UserStatus(_) | Self::AnyUserStatus(_) => None,
        }
    }

    /// Whether the id is one of the private space.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    /// A form to store: a kind, which never changes its meaning, and 16 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut user = |kind, user: &User| {
            bytes[0] = kind;
            bytes[1..9].copy_from_slice(&user.space.0);
            bytes[9..].copy_from_slice(&user.id.0);
        };
        match self {
            Self::User(it) => user(2, it),
            Self::UserStatus(it) => user(3, it),
            Self::AnyUserStatus(space) => {
                bytes[0] = 4;
                bytes[1..9].copy_from_slice(&space.0);
            }
            Self::Private(id) | Self::Public(id) => {
                bytes[0] = u8::from(!self.is_private());
                bytes[1..].copy_from_slice(&id.0);
            }
        }
        bytes
    }

    /// Reads the stored form; `None` for what no version of this program writes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let [kind, id @ ..] = bytes;
        let (mut space, mut number) = ([0; 8], [0; 8]);
        space.copy_from_slice(&id[..8]);
        number.copy_from_slice(&id[8..]);
        let space = UserSpace(space);
        let user = || Some(User { space, id: UserId::new(i64::from_be_bytes(number))? });
        match kind {
            0 => Some(Self::Private(ChannelId(*id))),
            1 => Some(Self::Public(ChannelId(*id))),
            2 => user().map(Self::User),
            3 => user().map(Self::UserStatus),
            4 => Some(Self::AnyUserStatus(space)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_survives_its_stored_form_and_takes_17_bytes() {
        let user = User { space: UserSpace::of("site"), id: UserId::new(-12).unwrap() };
        let id = ChannelId::from_bytes([7; 16]);
        for receiver in [
            Receiver::Private(id),
            Receiver::Public(id),
            Receiver::User(user),
            Receiver::UserStatus(user),
            Receiver::AnyUserStatus(user.space),
        ] {
            assert_eq!(Receiver::from_bytes(&receiver.to_bytes()), Some(receiver));
        }
        assert_eq!(Receiver::from_bytes(&[9; 17]), None);
        assert_eq!(Receiver::from_bytes(&[2; 17]).map(|it| it.to_bytes()), Some([2; 17]));
        assert_eq!(size_of::<Receiver>(), Receiver::BYTES);
    }

    #[test]
    fn j_024_a_user_id_is_a_whole_number_and_never_0() {
        for (text, number) in
            [("7", 7), ("-12", -12), ("9223372036854775807", i64::MAX), ("007", 7)]
        {
            assert_eq!(text.parse::<UserId>().map(UserId::number), Ok(number));
        }
        for bad in
            ["", "0", "-0", "-", "+7", "7.0", " 7", "99999999999999999999", "9223372036854775808"]
        {
            assert_eq!(bad.parse::<UserId>(), Err(ParseUserIdError), "{bad}");
        }
    }

    #[test]
    fn j_052_equal_numbers_of_two_sites_are_two_users() {
        let user = |name| User { space: UserSpace::of(name), id: UserId::new(7).unwrap() };
        assert_eq!(user("a"), user("a"));
        assert_ne!(user("a"), user("b"));
        assert_ne!(UserSpace::of(""), UserSpace::of("a"));
    }

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
