//! The hot functions, one at a time and as often as asked for, for a count of their instructions.
//!
//! ```text
//! instructions            the names of all cases, with how many operations one repetition is
//! instructions CASE N     N repetitions of one of them, and nothing else
//! ```
//!
//! `tests/it/instructions.rs` runs it under callgrind and compares with `tests/instructions.txt`.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vestnik_core::message::Additions;
use vestnik_core::metric::Metrics;
use vestnik_core::sign::{Algorithm, Key, KeyRing};
use vestnik_core::{
    Author, ChannelId, Clock, Draft, Envelope, Expiry, MessageId, MessageKind, Receiver, Secret,
};
use vestnik_hub::engine::{Batch, HistoryLimits, IfUnstored};
use vestnik_hub::{Announcer, Engine, OutboxLimits, Shard, SubscriberKey};
use vestnik_proto::protobuf::{Caller, RequestLimits, schema};
use vestnik_proto::query::{ChannelList, Query, Trust, parse_expiry};
use vestnik_proto::websocket::{self, Opcode, Parsed, Peer};
use vestnik_proto::{jsonrpc, jwt, protobuf, text};

/// 2026-11-14, in seconds since 1970.
const NOW_S: u64 = 1_794_614_400;
/// A token of the key below, for user 7 and two channels.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJjb3VudCIsImlhdCI6MCwiZXhwIjo5OTk5OTk5OTk5LCJzdWIiOiI3IiwiY2hhbiI6IjAxMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxMDEwMTAxLDAyMDIwMjAyMDIwMjAyMDIwMjAyMDIwMjAyMDIwMjAyIn0.85EturF18_yN99x_73jk6pBLtEhMzjAHrAEJQPZMM9k";
const SUBSCRIBERS: u32 = 1000;
const IN_BATCH: u32 = 20;
const MISSED: u64 = 10;

/// A hot function: its name, how many operations one repetition is, and the preparation, which returns
/// what is repeated.
type Case = (&'static str, u32, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 11] = [
    ("channel-list", 1, channel_list),
    ("token", 1, token),
    ("publish-text", 1, publish_text),
    ("publish-protobuf", IN_BATCH, publish_protobuf),
    ("frame-text", 1, || frame(text::frame)),
    ("frame-protobuf", 1, || frame(protobuf::frame)),
    ("frame-json-rpc", 1, || frame(jsonrpc::frame)),
    ("websocket-frame", 1, websocket_frame),
    ("deliver", SUBSCRIBERS, deliver),
    ("submit", 1, submit),
    ("replay", 1, replay),
];

fn key() -> Key {
    let key = Secret::new("a-key-for-counting-instructions-0".to_owned());
    Key::new(key, Algorithm::Sha1, None)
}

fn keys() -> KeyRing {
    KeyRing::new(vec![key()]).expect("one key")
}

fn id(kind: u8) -> ChannelId {
    ChannelId::from_bytes([kind; 16])
}

fn body() -> Bytes {
    let mut body = br#"{"module_id":"count","command":"c","params":{"t":""#.to_vec();
    body.resize(197, b'x');
    body.extend_from_slice(br#""}}"#);
    body.into()
}

fn draft(body: Bytes, expiry: Expiry) -> Draft {
    Draft {
        receivers: Box::new([Receiver::Private(id(1))]),
        body,
        expiry,
        author: Author::Backend,
        kind: MessageKind::UNKNOWN,
        additions: Additions::default(),
    }
}

/// What a subscriber shows, is read and its two signatures are checked.
fn channel_list() -> Box<dyn FnMut()> {
    let keys = keys();
    let pair = format!("{}:{}", id(1), id(2));
    let shared = id(3).to_string();
    let [pair_signature, signature] =
        [&pair, &shared].map(|signed| key().sign(&[signed.as_bytes()]).to_string());
    let query = format!(
        "CHANNEL_ID={}.{pair_signature}%2F{shared}.{signature}&binaryMode=true&revision=19",
        pair.replace(':', "%3A")
    );
    Box::new(move || {
        let query = Query::parse(black_box(&query));
        let list = query.channel_id().expect("a list").expect("one");
        let list = ChannelList::parse(list, 100).expect("well formed");
        black_box(list.authorise(&keys, Trust::Client, NOW_S).expect("signed"));
    })
}

/// A token of generation 5 is read and checked.
fn token() -> Box<dyn FnMut()> {
    let keys = keys();
    Box::new(move || drop(black_box(jwt::verify(black_box(TOKEN), &keys, NOW_S).expect("signed"))))
}

/// What a text publish says, is read.
fn publish_text() -> Box<dyn FnMut()> {
    let (keys, body, query) = (keys(), body(), format!("CHANNEL_ID={}", id(1)));
    Box::new(move || {
        let query = Query::parse(black_box(&query));
        let list = query.channel_id().expect("a list").expect("one");
        let list = ChannelList::parse(list, usize::MAX).expect("well formed");
        black_box(list.authorise(&keys, Trust::Backend, NOW_S).expect("allowed"));
        black_box(parse_expiry(black_box("3600"), Expiry::MAX));
        black_box(text::published_body(body.clone()));
    })
}

/// A protobuf request of twenty messages is read.
fn publish_protobuf() -> Box<dyn FnMut()> {
    let message = schema::IncomingMessage {
        receivers: vec![schema::Receiver {
            id: id(1).as_bytes().to_vec().into(),
            is_private: true,
            ..Default::default()
        }],
        body: body(),
        expiry: 3600,
        ..Default::default()
    };
    let messages = vec![message; IN_BATCH as usize];
    let command =
        schema::RequestCommand::IncomingMessages(schema::IncomingMessagesRequest { messages });
    let requests = vec![schema::Request { command: Some(command) }];
    let batch: Bytes = schema::RequestBatch { requests }.encode_to_vec().into();
    let limits = RequestLimits::default();
    Box::new(move || {
        let decoded = protobuf::decode_request_batch(black_box(&batch), Caller::Backend, &limits);
        black_box(decoded.expect("well formed"));
    })
}

/// A message is encoded for its subscribers.
fn frame(encode: fn(&Envelope) -> &Bytes) -> Box<dyn FnMut()> {
    let body = body();
    Box::new(move || {
        let draft = draft(body.clone(), Expiry::MAX);
        let envelope = Envelope::new(MessageId::new(NOW_S, 1), NOW_S * 1000, draft);
        black_box(encode(black_box(&envelope)));
    })
}

/// A client's frame of 200 bytes is read.
fn websocket_frame() -> Box<dyn FnMut()> {
    let (mut bytes, mut payload) = (Vec::new(), body().to_vec());
    websocket::push_client_frame(&mut bytes, Opcode::Binary, &payload, [1, 2, 3, 4]);
    Box::new(move || {
        let parsed = websocket::parse(black_box(&bytes), Peer::Client, 1 << 20);
        let Ok(Parsed::Frame(frame)) = parsed else { panic!("a whole frame") };
        payload.copy_from_slice(&bytes[frame.payload]);
        websocket::unmask(&mut payload, frame.mask.expect("masked"));
        black_box(&payload);
    })
}

/// One message is announced and queued for a thousand subscribers, and taken out again.
fn deliver() -> Box<dyn FnMut()> {
    let announcer = Arc::new(Announcer::new(1, 65_536));
    let number = announcer.shards().next().expect("one shard");
    let limits = OutboxLimits { messages: 1000, bytes: 8 << 20 };
    let mut shard = Shard::new(number, Arc::clone(&announcer), limits);
    for _ in 0..SUBSCRIBERS {
        let (key, _) = shard.subscribe(&[Receiver::Private(id(1))], None, ());
        shard.replay(key, Vec::new(), MessageId::ZERO);
    }
    write_all(&mut shard);
    let (body, mut sequence) = (body(), 0);
    Box::new(move || {
        sequence += 1;
        let draft = draft(body.clone(), Expiry::VOLATILE);
        let envelope = Envelope::new(MessageId::new(NOW_S, sequence), NOW_S * 1000, draft);
        announcer.announce(&[Arc::new(envelope)]);
        shard.deliver_announced();
        assert_eq!(write_all(&mut shard), SUBSCRIBERS, "everybody has it");
    })
}

/// Takes out what waits for everybody; how much that was.
fn write_all(shard: &mut Shard<()>) -> u32 {
    let mut written = 0;
    while let Some(key) = shard.next_dirty() {
        written += take(shard, key);
        shard.release(key);
    }
    written
}

fn take(shard: &mut Shard<()>, key: SubscriberKey) -> u32 {
    let Some(queue) = shard.get(key).and_then(|it| it.outbox.queue()) else { return 0 };
    let mut taken = 0;
    while let Some(item) = queue.pop() {
        black_box(item);
        taken += 1;
    }
    taken
}

fn engine() -> (Engine, Arc<Announcer>) {
    let announcer = Arc::new(Announcer::new(1, 65_536));
    let (clock, metrics) = (Clock::manual(NOW_S), Arc::new(Metrics::default()));
    let limits = HistoryLimits::in_memory();
    (Engine::memory(limits, Arc::clone(&announcer), clock, metrics), announcer)
}

fn submit_one(engine: &Engine, body: Bytes) {
    let drafts = vec![draft(body, Expiry::MAX)];
    let ticket = engine.submit(Batch { drafts, if_unstored: IfUnstored::Deliver });
    black_box(ticket.expect("there is room"));
}

/// A message is numbered, kept in memory, and announced to nobody.
fn submit() -> Box<dyn FnMut()> {
    let ((engine, announcer), body) = (engine(), body());
    let mut inbox = VecDeque::new();
    Box::new(move || {
        submit_one(&engine, body.clone());
        for shard in announcer.shards() {
            announcer.take(shard, &mut inbox);
        }
        inbox.clear();
    })
}

/// The last ten messages of a channel with a hundred are found.
fn replay() -> Box<dyn FnMut()> {
    let ((engine, _), body) = (engine(), body());
    let mut after = MessageId::ZERO;
    for number in 0..100 {
        submit_one(&engine, body.clone());
        if number == 99 - MISSED {
            after = engine.last_id();
        }
    }
    Box::new(move || {
        let receivers = [Receiver::Private(id(1)), Receiver::Public(id(2))];
        let found =
            engine.history(black_box(&receivers), after, usize::MAX).read().expect("in memory");
        assert_eq!(found.envelopes.len() as u64, MISSED);
        black_box(found);
    })
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is asked for")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        for (name, operations, _) in CASES {
            println!("{name} {operations}");
        }
        return ExitCode::SUCCESS;
    }
    let case = CASES.iter().find(|(name, ..)| arguments.first().is_some_and(|it| it == name));
    let count = arguments.get(1).and_then(|count| count.parse::<u32>().ok());
    let (Some((_, _, prepare)), Some(count)) = (case, count) else {
        eprintln!("usage: instructions [CASE NUMBER]");
        return ExitCode::from(2);
    };
    let mut repeated = prepare();
    (0..count).for_each(|_| repeated());
    ExitCode::SUCCESS
}
