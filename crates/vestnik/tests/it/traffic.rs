//! Traffic as sites and clients make it, for tests about delivery: protobuf by hand, messages as
//! subscribers see them, and what a server says of itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::raw::{self, Answer, Connection};
use crate::sign::Pair;

/// Waits until something is so; fails when it is not after the longest wait.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + raw::WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "not within {:?}: {what}", raw::WAIT);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number on the page of metrics.
pub(crate) fn metric(page: &Answer, name: &str) -> u64 {
    let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().expect("a number")
}

/// A metric now.
pub(crate) fn metric_of(address: SocketAddr, name: &str) -> u64 {
    metric(&raw::get(address, "/metrics"), name)
}

/// The bytes of a long poll.
pub(crate) fn poll_bytes(query: &str) -> String {
    format!("GET /bitrix/sub/?{query} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Sends a poll and waits until it is held.
pub(crate) fn hold_poll(address: SocketAddr, query: &str) -> Connection {
    const HELD: &str = "vestnik_connections_polling";
    let before = metric_of(address, HELD);
    let mut connection = Connection::open(address);
    connection.send(poll_bytes(query));
    until("the poll is held", || metric_of(address, HELD) > before);
    connection
}

/// Whether somebody listens to a channel, as the back end asks.
pub(crate) fn is_online(address: SocketAddr, channel: impl std::fmt::Display) -> bool {
    let answer = raw::get(address, &format!("/bitrix/pub/?CHANNEL_ID={channel}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().contains("subscribers")
}

/// A message as a subscriber sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// 26 digits: texts sort as ids do.
    pub(crate) mid: String,
    pub(crate) body: Value,
}

/// The messages of a text frame or body.
pub(crate) fn text_messages(text: &str) -> Vec<Message> {
    let message = |mut event: Value| Message {
        mid: event["mid"].as_str().expect("a mid").to_owned(),
        body: event["text"].take(),
    };
    raw::events(text).into_iter().map(message).collect()
}

/// The messages of a protobuf frame or body.
pub(crate) fn binary_messages(batch: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    for response in members(batch, 1) {
        for outgoing in members(response, 1).iter().flat_map(|outgoing| members(outgoing, 1)) {
            let id = members(outgoing, 1)[0];
            messages.push(Message {
                mid: id.iter().map(|byte| format!("{byte:02x}")).collect(),
                body: serde_json::from_slice(members(outgoing, 2)[0]).expect("a body of JSON"),
            });
        }
    }
    messages
}

/// The seconds that the messages of a protobuf batch are kept.
pub(crate) fn expiries(batch: &[u8]) -> Vec<u64> {
    let mut expiries = Vec::new();
    for response in members(batch, 1) {
        for outgoing in members(response, 1).iter().flat_map(|outgoing| members(outgoing, 1)) {
            // Id and body come first; the expiry is the next field.
            let before: usize =
                2 + members(outgoing, 1)[0].len() + varint_field(members(outgoing, 2)[0]);
            let mut rest = &outgoing[before..];
            assert_eq!(rest[0], 3 << 3, "the field of the expiry");
            rest = &rest[1..];
            expiries.push(read_varint(&mut rest));
        }
    }
    expiries
}

/// How many bytes a field with this content takes.
fn varint_field(content: &[u8]) -> usize {
    let mut bytes = Vec::new();
    field(2, content, &mut bytes);
    bytes.len()
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The contents of all fields of a number that have bytes.
fn members(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = read_varint(&mut message);
        match tag & 7 {
            0 => {
                read_varint(&mut message);
            }
            2 => {
                let length = usize::try_from(read_varint(&mut message)).expect("a length");
                let (content, rest) = message.split_at(length);
                message = rest;
                if tag >> 3 == wanted {
                    found.push(content);
                }
            }
            5 => message = &message[4..],
            other => panic!("wire type {other}"),
        }
    }
    found
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    into.push(u8::try_from(value).expect("seven bits"));
}

fn field(number: u64, content: &[u8], into: &mut Vec<u8>) {
    varint(number << 3 | 2, into);
    varint(content.len() as u64, into);
    into.extend_from_slice(content);
}

/// A receiver in a protobuf request.
pub(crate) enum To {
    Private(Pair),
    Public(Pair),
    /// With the signature that other clients need.
    SignedPublic(Pair),
}

/// An `IncomingMessage`.
pub(crate) fn incoming(to: &[To], expiry_s: u32, body: &str) -> Vec<u8> {
    let mut message = Vec::new();
    for to in to {
        let mut receiver = Vec::new();
        match to {
            To::Private(pair) => {
                field(1, pair.private.as_bytes(), &mut receiver);
                receiver.extend([2 << 3, 1]);
            }
            To::Public(pair) => field(1, pair.public.as_bytes(), &mut receiver),
            To::SignedPublic(pair) => {
                field(1, pair.public.as_bytes(), &mut receiver);
                field(3, &pair.public_signature(), &mut receiver);
            }
        }
        field(1, &receiver, &mut message);
    }
    field(3, body.as_bytes(), &mut message);
    varint(4 << 3, &mut message);
    varint(u64::from(expiry_s), &mut message);
    message
}

/// A `RequestBatch` of one request with messages.
pub(crate) fn batch(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut request = Vec::new();
    for message in messages {
        field(1, message, &mut request);
    }
    let (mut command, mut batch) = (Vec::new(), Vec::new());
    field(1, &request, &mut command);
    field(1, &command, &mut batch);
    batch
}

/// Publishes a protobuf batch as the back end does.
pub(crate) fn publish_batch(address: SocketAddr, messages: &[Vec<u8>]) -> Answer {
    raw::post(address, "/bitrix/pub/?binaryMode=true", &[], &batch(messages))
}
