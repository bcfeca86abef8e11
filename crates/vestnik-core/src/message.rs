//! Messages: a [`Draft`] before it has an id, an [`Envelope`] afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::receiver::{ChannelId, Receiver, User, UserId};

/// Id of one message: grows within one store, and never falls back even if the store is lost.
///
/// Wire: `mid`, 26 decimal digits: 10 for the epoch (unix seconds when the counter started), 16 for
/// the number. Generation 4 packs two digits into a byte, 13 bytes, so that bytes sort as numbers
/// (queue-server.md §7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId {
    epoch: u64,
    seq: u64,
}

/// Text or bytes that are not a message id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message id is 26 decimal digits")]
pub struct ParseMessageIdError;

impl MessageId {
    /// Length of the text form in bytes.
    pub const TEXT_LENGTH: usize = 26;
    /// Below every id that was ever given.
    pub const ZERO: Self = Self { epoch: 0, seq: 0 };
    /// The largest epoch that fits the wire.
    pub const EPOCH_MAX: u64 = 9_999_999_999;
    /// The largest number that fits the wire.
    pub const SEQ_MAX: u64 = 9_999_999_999_999_999;

    /// An id from its parts; values over the wire's limits become the limits.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self {
            epoch: if epoch > Self::EPOCH_MAX { Self::EPOCH_MAX } else { epoch },
            seq: if seq > Self::SEQ_MAX { Self::SEQ_MAX } else { seq },
        }
    }

    /// Unix seconds when the counter of this id started.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number within the epoch. Wire: text `id`.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The id that follows this one.
    #[must_use]
    pub const fn next(&self) -> Self {
        Self::new(self.epoch, self.seq + 1)
    }

    /// The 26 digits, without an allocation.
    #[must_use]
    pub fn to_digits(self) -> [u8; Self::TEXT_LENGTH] {
        let mut digits = [b'0'; Self::TEXT_LENGTH];
        write_digits(&mut digits[..10], self.epoch);
        write_digits(&mut digits[10..], self.seq);
        digits
    }

    /// The 13 bytes of the protobuf form: two digits in a byte.
    #[must_use]
    pub fn to_packed(self) -> [u8; 13] {
        let digits = self.to_digits();
        let mut packed = [0; 13];
        for (byte, pair) in packed.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] - b'0') << 4 | (pair[1] - b'0');
        }
        packed
    }

    /// Reads the protobuf form.
    ///
    /// # Errors
    /// When there are not exactly 13 bytes of two decimal digits each.
    pub fn from_packed(packed: &[u8]) -> Result<Self, ParseMessageIdError> {
        if packed.len() != 13 {
            return Err(ParseMessageIdError);
        }
        let mut digits = [0; Self::TEXT_LENGTH];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(packed) {
            pair[0] = b'0' + (byte >> 4);
            pair[1] = b'0' + (byte & 15);
        }
        Self::from_digits(&digits)
    }

    fn from_digits(digits: &[u8]) -> Result<Self, ParseMessageIdError> {
        if digits.len() != Self::TEXT_LENGTH || !digits.iter().all(u8::is_ascii_digit) {
            return Err(ParseMessageIdError);
        }
        let number =
            |part: &[u8]| part.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        Ok(Self { epoch: number(&digits[..10]), seq: number(&digits[10..]) })
    }
}

fn write_digits(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

impl FromStr for MessageId {
    type Err = ParseMessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_digits(text.as_bytes())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_digits()).unwrap_or_default())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long a message is kept, in whole seconds; zero means it is not kept at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u32);

impl Expiry {
    /// Delivered to who is connected now, never stored.
    pub const VOLATILE: Self = Self(0);
    /// The longest time anything is kept: a day (queue-server.md §11).
    pub const MAX: Self = Self(86_400);

    /// An expiry of `seconds`; more than `cap` becomes `cap`.
    #[must_use]
    pub fn new(seconds: u64, cap: Self) -> Self {
        Self(u32::try_from(seconds).map_or(cap.0, |seconds| seconds.min(cap.0)))
    }

    /// Seconds; 0 for a volatile message.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Whether a message with this expiry is kept.
    #[must_use]
    pub const fn is_stored(self) -> bool {
        self.0 > 0
    }
}

/// Who a message is said to come from. Wire: protobuf `Sender`, JSON-RPC `sender`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Author {
    /// The site's back end.
    Backend,
    /// Another client, named by its public channel.
    Client(ChannelId),
    /// Another client, signed in as this user (generation 5).
    User(UserId),
    /// Another client that gave no name.
    Unnamed,
}

/// What kind of event a message carries; only counted, never delivered. Wire: protobuf `type`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageKind(Option<Box<str>>);

impl MessageKind {
    /// The kind of messages that do not say theirs.
    pub const UNKNOWN: Self = Self(None);

    /// Reads a kind: 1 to 32 of letters, digits, `_`, `*`, `-`; anything else is `unknown`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'*' | b'-'));
        Self(fits.then(|| text.into()))
    }

    /// The name to count under.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("unknown")
    }
}

/// A message that has no id yet: what a publisher asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes; at least one, in the publisher's order, repeats allowed.
    pub receivers: Box<[Receiver]>,
    /// The event, UTF-8 text (invalid bytes were replaced at the edge).
    pub body: Bytes,
    /// How long it is kept.
    pub expiry: Expiry,
    /// Who it is said to come from.
    pub author: Author,
    /// What it is counted as.
    pub kind: MessageKind,
    /// What single users get beside the body; usually nothing.
    pub additions: Additions,
}

impl Draft {
    /// Gives the body and the additions memory of their own. What was read from a connection is a piece
    /// of a buffer of many kilobytes, or of a request with many messages; as long as one message is kept,
    /// all of that would be.
    pub fn detach(&mut self) {
        self.body = Bytes::copy_from_slice(&self.body);
        for (_, addition) in &mut self.additions.0 {
            *addition = Bytes::copy_from_slice(addition);
        }
    }
}

/// What single users get beside the body: text that a codec merges into it (json-rpc.md §4.5). One
/// message all the same: one id, and one delivery to each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions(Box<[(User, Bytes)]>);

impl Additions {
    /// Additions by user; of a repeated user the first counts.
    #[must_use]
    pub fn new(mut additions: Vec<(User, Bytes)>) -> Self {
        additions.sort_by_key(|(user, _)| *user);
        additions.dedup_by_key(|(user, _)| *user);
        Self(additions.into())
    }

    /// Users with their additions, by user.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(User, Bytes)> {
        self.0.iter()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, addition)| addition.len()).sum()
    }
}

/// Which ready-made bytes of a message a connection wants. To the hub a mere slot number; the codecs
/// know what the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Framed text of generations 3 and 4.
    Text,
    /// Protobuf of generation 4.
    Protobuf,
    /// Plain JSON objects, `format=json`.
    Json,
    /// [`Encoding::Text`], compressed for connections that agreed on it.
    TextDeflated,
    /// [`Encoding::Protobuf`], compressed.
    ProtobufDeflated,
    /// [`Encoding::Json`], compressed.
    JsonDeflated,
    /// JSON-RPC of generation 5.
    JsonRpc,
    /// [`Encoding::JsonRpc`], compressed.
    JsonRpcDeflated,
}

impl Encoding {
    /// How many encodings there are.
    pub const COUNT: usize = 8;
}

/// One numbered message on its way to many subscribers.
pub struct Envelope {
    /// Its id and position.
    pub id: MessageId,
    /// Milliseconds since 1970 when it was numbered; never falls from one message to the next.
    pub created_ms: u64,
    /// How long it is kept.
    pub expiry: Expiry,
    /// Who it is said to come from.
    pub author: Author,
    /// Where it goes.
    pub receivers: Box<[Receiver]>,
    /// The event.
    pub body: Bytes,
    /// What single users get beside the body.
    pub additions: Additions,
    /// The message as those users get it, in the order of the additions; made for who needs it.
    personal: Box<[OnceLock<Box<Self>>]>,
    frames: [OnceLock<Bytes>; Encoding::COUNT],
}

impl Envelope {
    /// Numbers a draft.
    #[must_use]
    pub fn new(id: MessageId, created_ms: u64, draft: Draft) -> Self {
        Self {
            id,
            created_ms,
            expiry: draft.expiry,
            author: draft.author,
            receivers: draft.receivers,
            body: draft.body,
            personal: draft.additions.iter().map(|_| OnceLock::new()).collect(),
            additions: draft.additions,
            frames: [const { OnceLock::new() }; Encoding::COUNT],
        }
    }

    /// The message as connections of `user` get it: itself, or one whose body `merge` makes of the
    /// body and the user's addition, once. `user` is asked for only if somebody gets an addition.
    pub fn for_user(
        &self,
        user: impl FnOnce() -> Option<User>,
        merge: impl FnOnce(&Bytes, &Bytes) -> Bytes,
    ) -> &Self {
        if self.personal.is_empty() {
            return self;
        }
        let Some(user) = user() else { return self };
        let Ok(at) = self.additions.0.binary_search_by_key(&user, |(user, _)| *user) else {
            return self;
        };
        self.personal[at].get_or_init(|| {
            Box::new(Self {
                id: self.id,
                created_ms: self.created_ms,
                expiry: self.expiry,
                author: self.author,
                receivers: Box::default(),
                body: merge(&self.body, &self.additions.0[at].1),
                additions: Additions::default(),
                personal: Box::default(),
                frames: [const { OnceLock::new() }; Encoding::COUNT],
            })
        })
    }

    /// Bytes of the body and of what single users get beside it.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len() + self.additions.bytes()
    }

    /// This message in `encoding`: encoded once, by whoever asks first, shared by the rest.
    pub fn frame(&self, encoding: Encoding, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.frames[encoding as usize].get_or_init(|| encode(self))
    }

    /// Whole seconds since 1970 when it was numbered.
    #[must_use]
    pub const fn created_s(&self) -> u64 {
        self.created_ms / 1000
    }

    /// First second at which it is no longer handed out; only for stored messages.
    #[must_use]
    pub fn expires_s(&self) -> u64 {
        self.created_s() + u64::from(self.expiry.seconds())
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("expiry", &self.expiry)
            .field("receivers", &self.receivers)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_survives_both_wire_forms(
            epoch in 0..=MessageId::EPOCH_MAX,
            seq in 0..=MessageId::SEQ_MAX,
        ) {
            let id = MessageId::new(epoch, seq);
            prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
            prop_assert_eq!(MessageId::from_packed(&id.to_packed()), Ok(id));
        }

        #[test]
        fn ids_sort_as_their_wire_forms_sort(a: (u32, u32), b: (u32, u32)) {
            let [a, b] = [a, b].map(|(e, s)| MessageId::new(e.into(), s.into()));
            prop_assert_eq!(a.cmp(&b), a.to_packed().cmp(&b.to_packed()));
            prop_assert_eq!(a.cmp(&b), a.to_digits().cmp(&b.to_digits()));
        }
    }

    #[test]
    fn q_094_only_26_decimal_digits_are_an_id() {
        for bad in ["", "1:1", "1795487320000000000000333", "17954873200000000000003x40"] {
            assert_eq!(bad.parse::<MessageId>(), Err(ParseMessageIdError), "{bad}");
        }
        assert_eq!(MessageId::from_packed(&[0xff; 13]), Err(ParseMessageIdError));
    }

    #[test]
    fn q_128_the_packed_form_is_13_bytes_whose_hex_is_the_text_form() {
        let id: MessageId = "17954873200000000000003313".parse().unwrap();
        assert_eq!(crate::receiver::hex(&id.to_packed()), "17954873200000000000003313");
        assert_eq!((id.epoch(), id.seq()), (1_795_487_320, 3313));
    }

    #[test]
    fn q_149_kinds_outside_the_pattern_count_as_unknown() {
        assert_eq!(MessageKind::parse("im_message-Add*").as_str(), "im_message-Add*");
        for bad in ["", "with space", "точка", &"x".repeat(33)] {
            assert_eq!(MessageKind::parse(bad).as_str(), "unknown", "{bad}");
        }
    }
}
