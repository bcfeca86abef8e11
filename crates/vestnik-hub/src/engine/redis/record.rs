//! Bytes in Redis: the protobuf of queue-server.md §5 and §8, and our own fields beside it.
//!
//! ```text
//! OutgoingMessage    100 fixed64 created_ms; 101 bytes receivers, 17 each; 102 bytes user (author);
//!                    103 bytes space user text (an addition for one user), repeated
//! NotificationBatch  100 bytes node that sent it; 101 bytes receiver list (a connection to be closed)
//! ```
//! Readers of the original skip fields they do not know.

use bytes::Bytes;
use vestnik_core::message::Additions;
use vestnik_core::{
    Author, ChannelId, Draft, Envelope, Expiry, MessageId, MessageKind, Receiver, User, UserId,
    UserSpace,
};

const CREATED_MS: u64 = 100;
const RECEIVERS: u64 = 101;
const AUTHOR: u64 = 102;
const ADDITION: u64 = 103;
const NODE: u64 = 100;
const NOTICE: u64 = 101;

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        into.push(value.to_le_bytes()[0] | 128);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

fn field(into: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(into, number << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Parts of an `OutgoingMessage`: before its creation time, and after it. The id goes before both.
pub(super) fn message_parts(draft: &Draft) -> (Vec<u8>, Vec<u8>) {
    let mut head = Vec::with_capacity(draft.body.len() + 16);
    field(&mut head, 2, &draft.body);
    head.push(0x18);
    varint(&mut head, draft.expiry.seconds().into());
    let mut tail = Vec::with_capacity(40 + draft.receivers.len() * Receiver::BYTES);
    match &draft.author {
        Author::Backend => field(&mut tail, 5, &[0x08, 2]),
        Author::Unnamed => field(&mut tail, 5, &[0x08, 1]),
        Author::Client(id) => {
            let mut sender = vec![0x08, 1];
            field(&mut sender, 2, id.as_bytes());
            field(&mut tail, 5, &sender);
        }
        Author::User(id) => {
            field(&mut tail, 5, &[0x08, 1]);
            field(&mut tail, AUTHOR, &id.number().to_be_bytes());
        }
    }
    let receivers: Vec<u8> = draft.receivers.iter().flat_map(Receiver::to_bytes).collect();
    field(&mut tail, RECEIVERS, &receivers);
    for (user, text) in draft.additions.iter() {
        let mut addition = user.space.as_bytes().to_vec();
        addition.extend_from_slice(&user.id.number().to_be_bytes());
        addition.extend_from_slice(text);
        field(&mut tail, ADDITION, &addition);
    }
    (head, tail)
}

/// The receivers of an `IPCMessage`, as far as the originals know their kind.
pub(super) fn bus_receivers(draft: &Draft) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(draft.receivers.len() * 22);
    for receiver in &draft.receivers {
        if let Some(channel) = receiver.channel() {
            let mut one = Vec::with_capacity(20);
            field(&mut one, 1, channel.as_bytes());
            one.extend_from_slice(&[0x10, u8::from(receiver.is_private())]);
            field(&mut bytes, 1, &one);
        }
    }
    bytes
}

/// The name of the index of a receiver, behind the base of all keys.
pub(super) fn index_of(receiver: &Receiver) -> Vec<u8> {
    let bytes = receiver.to_bytes();
    match receiver {
        Receiver::Private(_) => [b"channel:messages:", &bytes[1..]].concat(),
        Receiver::Public(_) => [b"pubchannel:messages:", &bytes[1..]].concat(),
        Receiver::User(_) | Receiver::UserStatus(_) | Receiver::AnyUserStatus(_) => {
            [b"vestnik:messages:", &bytes[..]].concat()
        }
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order; ends with `Err` where the bytes are no protobuf.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 127).checked_shl(7 * at)?;
            if first & 128 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn one(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let one = self.one();
            if one.is_none() {
                self.0 = &[];
            }
            one
        })
    }
}

/// Reads an `OutgoingMessage`; `receivers` are those that stand beside it, used when it names none.
pub(super) fn read_message(bytes: &[u8], receivers: Vec<Receiver>) -> Option<Envelope> {
    let (mut id, mut body, mut expiry, mut created_ms) = (None, Bytes::new(), 0, 0);
    let (mut created_s, mut sender, mut client, mut author_user) = (0, 0, None, None);
    let (mut receivers, mut own, mut additions) = (receivers, Vec::new(), Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(packed)) => id = MessageId::from_packed(packed).ok(),
            (2, Value::Bytes(text)) => body = Bytes::copy_from_slice(text),
            (3, Value::Number(seconds)) => expiry = seconds,
            (4, Value::Number(seconds)) => created_s = seconds,
            (5, Value::Bytes(it)) => {
                for field in Fields(it) {
                    match field? {
                        (1, Value::Number(kind)) => sender = kind,
                        (2, Value::Bytes(id)) => client = id.try_into().ok(),
                        _ => {}
                    }
                }
            }
            (CREATED_MS, Value::Number(ms)) => created_ms = ms,
            (RECEIVERS, Value::Bytes(all)) => {
                for one in all.chunks(Receiver::BYTES) {
                    own.push(Receiver::from_bytes(one.try_into().ok()?)?);
                }
            }
            (AUTHOR, Value::Bytes(it)) => {
                author_user = UserId::new(i64::from_be_bytes(it.try_into().ok()?));
            }
            (ADDITION, Value::Bytes(it)) => {
                let (space, rest) = it.split_at_checked(8)?;
                let (number, text) = rest.split_at_checked(8)?;
                let number = i64::from_be_bytes(number.try_into().ok()?);
                let space = UserSpace::from_bytes(space.try_into().ok()?);
                let user = User { space, id: UserId::new(number)? };
                additions.push((user, Bytes::copy_from_slice(text)));
            }
            _ => {}
        }
    }
    if !own.is_empty() {
        receivers = own;
    }
    let author = match (sender, author_user, client) {
        (1, Some(user), _) => Author::User(user),
        (1, None, Some(id)) => Author::Client(ChannelId::from_bytes(id)),
        (1, None, None) => Author::Unnamed,
        _ => Author::Backend,
    };
    let draft = Draft {
        receivers: receivers.into(),
        body,
        expiry: Expiry::new(expiry, Expiry::MAX),
        author,
        kind: MessageKind::UNKNOWN,
        additions: Additions::new(additions),
    };
    let created_ms = if created_ms == 0 { created_s.saturating_mul(1000) } else { created_ms };
    Some(Envelope::new(id?, created_ms, draft))
}

/// What came over the bus.
#[derive(Debug, Default)]
pub(super) struct Notification {
    /// The node that sent it, if it is one of ours.
    pub node: Option<String>,
    /// Notices of connections that are to be closed.
    pub notices: Vec<Vec<u8>>,
    /// Its messages that can be read.
    pub messages: Vec<Envelope>,
}

/// Reads a `NotificationBatch`; `None` for what is none (Q-157). Messages without an id or receivers
/// that could listen are left out.
pub(super) fn read_notification(bytes: &[u8]) -> Option<Notification> {
    let mut found = Notification::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(notification)) => {
                for field in Fields(notification) {
                    let (1, Value::Bytes(messages)) = field? else { continue };
                    for field in Fields(messages) {
                        let (1, Value::Bytes(message)) = field? else { continue };
                        found.messages.extend(read_bus_message(message)?);
                    }
                }
            }
            (NOTICE, Value::Bytes(notice)) => found.notices.push(notice.to_vec()),
            (NODE, Value::Bytes(node)) => found.node = String::from_utf8(node.into()).ok(),
            _ => {}
        }
    }
    Some(found)
}

/// Reads an `IPCMessage`: outer `None` where it is no protobuf, inner where nothing can be delivered.
fn read_bus_message(bytes: &[u8]) -> Option<Option<Envelope>> {
    let (mut receivers, mut outgoing) = (Vec::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(receiver)) => {
                let (mut id, mut is_private) = (None, false);
                for field in Fields(receiver) {
                    match field? {
                        (1, Value::Bytes(bytes)) => id = bytes.try_into().ok(),
                        (2, Value::Number(flag)) => is_private = flag != 0,
                        _ => {}
                    }
                }
                let Some(id) = id.map(ChannelId::from_bytes) else { continue };
                let receiver = if is_private { Receiver::Private } else { Receiver::Public };
                receivers.push(receiver(id));
            }
            (3, Value::Bytes(message)) => outgoing = Some(message),
            _ => {}
        }
    }
    Some(outgoing.and_then(|message| read_message(message, receivers)))
}

/// A batch of announcements without the fields that the originals do not know.
#[cfg(test)]
pub(super) fn as_originals_see_it(bytes: &[u8]) -> Vec<u8> {
    // Notifications, their messages, one of these, what goes out.
    fn known(bytes: &[u8], nested: &[u64]) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut fields = Fields(bytes);
        loop {
            let before = fields.0;
            let Some(one) = fields.next() else { return kept };
            let (number, value) = one.expect("protobuf");
            match value {
                Value::Bytes(inner) if nested.first() == Some(&number) => {
                    field(&mut kept, number, &known(inner, &nested[1..]));
                }
                _ if number < 100 => kept.extend(&before[..before.len() - fields.0.len()]),
                _ => {}
            }
        }
    }
    known(bytes, &[1, 1, 1, 3])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn q_155_a_recorded_announcement_of_the_original_is_read() {
        let recorded = bytes(
            "0a3c 0a3a 0a38 0a14 0a10 55c77b7a91c7757009ddbaada864a3d5 1001
             1a20 0a0d 17954873200000000000000001 1204 22653022 1800 25c7f8046b 2a02 0802",
        );
        let found = read_notification(&recorded).unwrap();
        let [message] = &found.messages[..] else { panic!("one message") };
        assert_eq!(message.id.to_string(), "17954873200000000000000001");
        let channel = "55c77b7a91c7757009ddbaada864a3d5".parse().unwrap();
        assert_eq!(message.receivers[..], [Receiver::Private(channel)]);
        assert_eq!((&message.body[..], message.author), (&b"\"e0\""[..], Author::Backend));
        assert_eq!((message.created_s(), message.expiry.seconds()), (0x6b04_f8c7, 0));
        assert_eq!(found.node, None);
    }

    #[test]
    fn q_158_several_notifications_and_messages_in_one_batch_are_all_read() {
        let message = |n: u8| {
            let mut outgoing = bytes("0a0d 179548732000000000000000");
            outgoing.push(n);
            outgoing.extend(bytes("1201 31"));
            let mut one = bytes("0a14 0a10 55c77b7a91c7757009ddbaada864a3d5 1001");
            field(&mut one, 3, &outgoing);
            one
        };
        let mut batch = Vec::new();
        for pair in [[1, 2], [3, 4]] {
            let (mut messages, mut notification) = (Vec::new(), Vec::new());
            pair.iter().for_each(|n| field(&mut messages, 1, &message(*n)));
            field(&mut notification, 1, &messages);
            field(&mut batch, 1, &notification);
        }
        let found = read_notification(&batch).unwrap();
        let numbers: Vec<_> = found.messages.iter().map(|it| it.id.seq()).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn q_157_what_is_no_notification_is_refused() {
        assert!(read_notification(br#"{"id":1,"text":"of generation 3"}"#).is_none());
        assert!(read_notification(&[0x0a, 0xff]).is_none());
    }

    #[test]
    fn q_157_a_time_beyond_all_measure_is_read() {
        // Field 4, the time in seconds, as a fixed number of 64 bits; then no id.
        let bytes = [33, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(read_message(&bytes, Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn q_157_no_bytes_end_the_process(bytes: Vec<u8>) {
            let _ = read_notification(&bytes);
            let _ = read_message(&bytes, Vec::new());
        }
    }
}
