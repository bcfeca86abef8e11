//! The bytes of a history file.
//!
//! ```text
//! file    head, head again (a damaged copy does not cost the file), records
//! head    "vestnikH" version:u32 salt:u32 crc:u32, the CRC over what precedes it
//! record  mark:u32 length:u32 crc:u32 kind:u8 payload; the CRC over length, kind and payload
//! message epoch:u64 seq:u64 created_ms:u64 expiry_s:u32 author receivers:u16 receiver… body
//! wide    additions:u32 (space number length:u32 text)…, then as a message, but receivers:u32
//! counter epoch:u64 reserved_seq:u64 floor_epoch:u64 floor_seq:u64 clean:u8
//! ```
//! Numbers are little endian, the CRC is CRC-32 (IEEE). Mark and CRC start from the file's random
//! salt: a body that contains a copy of a record is not mistaken for one when a reader looks for the
//! next whole record behind damage.

use bytes::Bytes;
use vestnik_core::message::Additions;
use vestnik_core::{
    Author, ChannelId, Draft, Envelope, Expiry, MessageId, MessageKind, Receiver, User, UserId,
    UserSpace,
};

/// The format this program writes, and the only one it reads.
pub(super) const VERSION: u32 = 1;

/// Bytes of the head with its copy.
pub(super) const HEAD_BYTES: u64 = 2 * COPY_BYTES as u64;

/// Bytes before a record's payload.
pub(super) const RECORD_HEAD_BYTES: usize = 13;

/// Longest payload; longer messages are refused before they get here.
pub(super) const PAYLOAD_MAX: usize = 64 << 20;

const COPY_BYTES: usize = 20;
const MAGIC: &[u8; 8] = b"vestnikH";
const KIND_MESSAGE: u8 = 1;
const KIND_COUNTER: u8 = 2;
/// A message to which something is added for single users, or with very many receivers.
const KIND_WIDE: u8 = 3;
const BACKEND: u8 = 0;
const CLIENT: u8 = 1;
const USER: u8 = 2;
const UNNAMED: u8 = 3;
/// Bytes before the text of an addition.
const ADDITION_HEAD_BYTES: usize = 20;

/// What makes the records of one file its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u32);

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// One of ours.
    Known(Salt),
    /// One of ours that was never finished: its process died while it began the file.
    Unfinished,
    /// One of ours, but the head is damaged in both copies.
    Damaged,
    /// Of another version of the format.
    Version(u32),
    /// Not a file of the history.
    Foreign,
}

/// How far ids may have been given, written ahead of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CounterRecord {
    /// No id above this was given without another counter record; if `clean`, exactly the last one.
    pub reserved: MessageId,
    /// Positions below it may have lost something.
    pub floor: MessageId,
    /// Whether the process ended in order right after.
    pub clean: bool,
}

/// A record, read.
#[derive(Debug)]
pub(super) enum Record {
    Message(Box<Envelope>),
    Counter(CounterRecord),
}

impl Salt {
    /// A salt nobody can foresee.
    pub(super) fn random() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let hash = std::hash::RandomState::new().build_hasher().finish();
        Self(u32::try_from(hash >> 32).unwrap_or_default())
    }

    /// The salt of this number.
    pub(super) const fn of(number: u32) -> Self {
        Self(number)
    }

    /// The four bytes every record of the file starts with.
    pub(super) fn mark(self) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(MAGIC);
        hasher.finalize().to_le_bytes()
    }

    /// The head of the file, with its copy.
    pub(super) fn head(self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(2 * COPY_BYTES);
        copy.extend_from_slice(MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.extend_from_slice(&self.0.to_le_bytes());
        copy.extend_from_slice(&crc32fast::hash(&copy).to_le_bytes());
        copy.extend_from_within(..);
        copy
    }

    /// Whether `record`, head and payload, is whole.
    pub(super) fn approves(self, record: &[u8]) -> bool {
        record.len() >= RECORD_HEAD_BYTES
            && record[..4] == self.mark()
            && payload_length(record) == record.len() - RECORD_HEAD_BYTES
            && record[8..12] == self.checksum(&record[4..8], &record[12..])
    }

    fn checksum(self, length: &[u8], rest: &[u8]) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(length);
        hasher.update(rest);
        hasher.finalize().to_le_bytes()
    }

    /// Appends a record to `into`, its payload written by `payload`. Returns its whole length.
    pub(super) fn write(
        self,
        into: &mut Vec<u8>,
        kind: u8,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = into.len();
        into.extend_from_slice(&self.mark());
        into.extend_from_slice(&[0; 8]);
        into.push(kind);
        payload(into);
        let length = into.len() - start - RECORD_HEAD_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        into[start + 4..start + 8].copy_from_slice(&length);
        let checksum = self.checksum(&length, &into[start + 12..]);
        into[start + 8..start + 12].copy_from_slice(&checksum);
        into.len() - start
    }

    /// Appends a message. Returns the length of its record.
    pub(super) fn write_message(self, into: &mut Vec<u8>, envelope: &Envelope) -> usize {
        let additions = envelope.additions.iter();
        let receivers = u16::try_from(envelope.receivers.len());
        let is_wide = additions.len() > 0 || receivers.is_err();
        let kind = if is_wide { KIND_WIDE } else { KIND_MESSAGE };
        self.write(into, kind, |into| {
            if is_wide {
                let count = u32::try_from(additions.len()).unwrap_or(u32::MAX);
                into.extend_from_slice(&count.to_le_bytes());
                for (user, text) in additions {
                    into.extend_from_slice(user.space.as_bytes());
                    into.extend_from_slice(&user.id.number().to_le_bytes());
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    into.extend_from_slice(&length.to_le_bytes());
                    into.extend_from_slice(text);
                }
            }
            into.extend_from_slice(&envelope.id.epoch().to_le_bytes());
            into.extend_from_slice(&envelope.id.seq().to_le_bytes());
            into.extend_from_slice(&envelope.created_ms.to_le_bytes());
            into.extend_from_slice(&envelope.expiry.seconds().to_le_bytes());
            match &envelope.author {
                Author::Backend => into.push(BACKEND),
                Author::Client(id) => {
                    into.push(CLIENT);
                    into.extend_from_slice(id.as_bytes());
                }
                Author::User(id) => {
                    into.push(USER);
                    into.extend_from_slice(&id.number().to_le_bytes());
                }
                Author::Unnamed => into.push(UNNAMED),
            }
            match receivers {
                Ok(count) if !is_wide => into.extend_from_slice(&count.to_le_bytes()),
                Ok(_) | Err(_) => {
                    let count = u32::try_from(envelope.receivers.len()).unwrap_or(u32::MAX);
                    into.extend_from_slice(&count.to_le_bytes());
                }
            }
            for receiver in &envelope.receivers {
                into.extend_from_slice(&receiver.to_bytes());
            }
            into.extend_from_slice(&envelope.body);
        })
    }

    /// Appends a counter.
    pub(super) fn write_counter(self, into: &mut Vec<u8>, counter: CounterRecord) {
        self.write(into, KIND_COUNTER, |into| {
            for id in [counter.reserved, counter.floor] {
                into.extend_from_slice(&id.epoch().to_le_bytes());
                into.extend_from_slice(&id.seq().to_le_bytes());
            }
            into.push(u8::from(counter.clean));
        });
    }
}

impl Head {
    /// Reads the first bytes of a file: up to [`HEAD_BYTES`] of them.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut copies = bytes.chunks_exact(COPY_BYTES);
        for copy in copies.by_ref() {
            if copy[16..] == crc32fast::hash(&copy[..16]).to_le_bytes() && copy.starts_with(MAGIC) {
                return match word(&copy[8..]) {
                    VERSION => Self::Known(Salt(word(&copy[12..]))),
                    other => Self::Version(other),
                };
            }
        }
        let ours = bytes.chunks(COPY_BYTES).any(|copy| copy.starts_with(MAGIC));
        if bytes.iter().all(|byte| *byte == 0)
            || (bytes.len() < COPY_BYTES && MAGIC.starts_with(&bytes[..bytes.len().min(8)]))
        {
            Self::Unfinished
        } else if ours {
            Self::Damaged
        } else {
            Self::Foreign
        }
    }
}

/// The payload's length as a record's head says it.
pub(super) fn payload_length(head: &[u8]) -> usize {
    usize::try_from(word(&head[4..])).unwrap_or(usize::MAX)
}

/// The longest a message's record can get.
pub(super) fn message_bytes(draft: &Draft) -> usize {
    let receivers = draft.receivers.len() * Receiver::BYTES;
    let additions =
        6 + draft.additions.iter().len() * ADDITION_HEAD_BYTES + draft.additions.bytes();
    RECORD_HEAD_BYTES + 47 + receivers + draft.body.len() + additions
}

/// Whether a draft can be written at all.
pub(super) fn fits(draft: &Draft) -> bool {
    message_bytes(draft) <= PAYLOAD_MAX
}

/// Reads a record that [`Salt::approves`]. None if it says what no version of this program writes.
pub(super) fn read(record: &Bytes) -> Option<Record> {
    let mut fields = Fields(record.slice(RECORD_HEAD_BYTES..));
    match record[12] {
        kind @ (KIND_MESSAGE | KIND_WIDE) => {
            let additions =
                if kind == KIND_WIDE { fields.additions()? } else { Additions::default() };
            let id = fields.id()?;
            let created_ms = fields.long()?;
            let expiry = Expiry::new(u64::from(word(&fields.take(4)?)), Expiry::MAX);
            let author = match fields.byte()? {
                BACKEND => Author::Backend,
                CLIENT => Author::Client(fields.channel()?),
                USER => Author::User(fields.user_id()?),
                UNNAMED => Author::Unnamed,
                _ => return None,
            };
            let count = if kind == KIND_WIDE {
                word(&fields.take(4)?)
            } else {
                let count = fields.take(2)?;
                u16::from_le_bytes([count[0], count[1]]).into()
            };
            let receivers = (0..count).map(|_| fields.receiver()).collect::<Option<_>>()?;
            let kind = MessageKind::UNKNOWN;
            let draft = Draft { receivers, body: fields.0, expiry, author, kind, additions };
            Some(Record::Message(Box::new(Envelope::new(id, created_ms, draft))))
        }
        KIND_COUNTER => Some(Record::Counter(CounterRecord {
            reserved: fields.id()?,
            floor: fields.id()?,
            clean: fields.byte()? != 0,
        })),
        _ => None,
    }
}

/// What is left of a payload.
struct Fields(Bytes);

impl Fields {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (self.0.len() >= count).then(|| self.0.split_to(count))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| bytes[..].try_into().ok()).map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Option<MessageId> {
        Some(MessageId::new(self.long()?, self.long()?))
    }

    fn channel(&mut self) -> Option<ChannelId> {
        self.take(16).and_then(|bytes| bytes[..].try_into().ok()).map(ChannelId::from_bytes)
    }

    fn receiver(&mut self) -> Option<Receiver> {
        Receiver::from_bytes(self.take(Receiver::BYTES)?[..].try_into().ok()?)
    }

    fn user_id(&mut self) -> Option<UserId> {
        UserId::new(i64::from_le_bytes(self.take(8)?[..].try_into().ok()?))
    }

    fn additions(&mut self) -> Option<Additions> {
        let count = word(&self.take(4)?);
        let addition = |_| {
            let space = UserSpace::from_bytes(self.take(8)?[..].try_into().ok()?);
            let user = User { space, id: self.user_id()? };
            let length = usize::try_from(word(&self.take(4)?)).ok()?;
            Some((user, self.take(length)?))
        };
        let additions = (0..count).map(addition);
        additions.collect::<Option<_>>().map(Additions::new)
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
