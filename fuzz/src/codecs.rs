//! What must hold for any bytes that the codecs of `vestnik-proto` read. Shared by the fuzzer and by
//! the test that replays the corpus.

use std::io::{Cursor, Read, Write};

use bytes::Bytes;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};
use vestnik_core::sign::{Algorithm, Key, KeyRing};
use vestnik_core::{
    Author, ChannelId, Draft, Encoding, Envelope, Expiry, MessageId, MessageKind, Receiver, Secret,
    UserSpace,
};
use vestnik_proto::jsonrpc::{self, ClientCaller, Item, Packet};
use vestnik_proto::protobuf::{self, Caller, Request, RequestLimits};
use vestnik_proto::query::{self, ChannelList, Query, Trust};
use vestnik_proto::websocket::{Assembler, Event, MessageType, Peer, ProtocolError, Step};
use vestnik_proto::{json, jwt, text};

const START: &str = "#!NGINXNMS!#";
const END: &str = "#!NGINXNME!#";

/// Name and check of a target.
type Target = (&'static str, fn(&[u8]));

/// The targets of this file.
pub(crate) const TARGETS: &[Target] = &[
    ("query", query_string),
    ("channel_list", channel_list),
    ("expiry", expiry),
    ("masked", masked),
    ("escape_target", escape_target),
    ("request_client", request_client),
    ("request_backend", request_backend),
    ("websocket", websocket),
    ("body_text", body_text),
    ("body_json", body_json),
    ("jsonrpc", json_rpc),
    ("jwt", token),
];

fn keys() -> KeyRing {
    let secret = Secret::new("test-signature-key-0123456789abcdef".to_owned());
    KeyRing::new(vec![Key::new(secret, Algorithm::Sha1, None)]).expect("one key is not too many")
}

/// A query string: everything it says can be asked for, and a position keeps its digits.
fn query_string(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let query = Query::parse(&raw);
    if let Some(mid) = query.mid() {
        assert_eq!(mid.to_string().len(), MessageId::TEXT_LENGTH);
    }
    let framing = query.framing();
    assert_eq!(framing.encoding() == Encoding::JsonRpc, query.json_rpc());
    if let Some(Ok(list)) = query.channel_id() {
        channel_list(list.as_bytes());
    }
    assert!(!format!("{query:?}").contains("signature-key"));
    let _ = (query.token().map(str::len), query.has_revision(), query.format_json());
}

/// A channel list: as many items as slashes divide, and whoever may use it gets each once.
fn channel_list(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let Ok(list) = ChannelList::parse(&raw, 100) else { return };
    assert_eq!(list.items().len(), raw.split('/').count());
    assert!(list.items().len() <= 100);
    let written: Vec<String> = list
        .items()
        .iter()
        .map(|item| {
            let public = item.public.map_or(String::new(), |public| format!(":{public}"));
            let signature = item.signature.as_ref().map_or(String::new(), |s| format!(".{s}"));
            format!("{}{public}{signature}", item.private)
        })
        .collect();
    assert_eq!(written.join("/"), raw, "what was read is what was written");
    let keys = keys();
    if let Ok(client) = list.authorise(&keys, Trust::Client, 0) {
        for (index, receiver) in client.receivers.iter().enumerate() {
            assert!(!client.receivers[..index].contains(receiver));
        }
        assert!(!list.is_bare(), "a tenant with a key takes no bare ids");
        list.authorise(&keys, Trust::Backend, 0).expect("who signs may also publish");
    }
}

/// `Message-Expiry`: never above the cap.
fn expiry(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let cap = Expiry::new(3600, Expiry::MAX);
    let expiry = query::parse_expiry(&raw, cap);
    assert!(expiry.seconds() <= 3600);
    if raw.trim_start().starts_with('-') {
        assert_eq!(expiry, Expiry::VOLATILE);
    }
}

/// A target for the log: short, on one line, and without the ids that were in it.
fn masked(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let masked = query::masked(&raw);
    assert!(masked.len() <= 512 + '…'.len_utf8());
    assert!(!masked.contains(char::is_control));
    // Runs of 32 and more are cut; the two digits of an escape may stand before one.
    for word in masked.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        assert!(word.len() < 32 + 2, "an id or a signature stays out of the log: {word}");
    }
}

/// The escaping of raw spaces: adds nothing but `%20`, and only once.
fn escape_target(data: &[u8]) {
    let mut head = data.to_vec();
    query::escape_target(&mut head);
    let spaces = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b' ').count();
    assert_eq!(head.len(), data.len() + 2 * (spaces(data) - spaces(&head)));
    let once = head.clone();
    query::escape_target(&mut head);
    assert_eq!(head, once);
}

fn limits() -> RequestLimits {
    RequestLimits { requests: 4, messages: 5, channels: 6, ..RequestLimits::default() }
}

fn request(data: &[u8], caller: Caller<'_>, check: impl Fn(&Draft)) {
    let limits = limits();
    let Ok(decoded) =
        protobuf::decode_request_batch(&Bytes::copy_from_slice(data), caller, &limits)
    else {
        return;
    };
    assert!(decoded.requests.len() <= limits.requests && !decoded.requests.is_empty());
    for request in decoded.requests {
        match request {
            Request::Publish(drafts) => {
                assert!(drafts.len() <= limits.messages);
                for draft in &drafts {
                    assert!((1..=limits.channels).contains(&draft.receivers.len()));
                    assert!(draft.body.len() <= data.len());
                    assert!(std::str::from_utf8(&draft.body).is_ok());
                    check(draft);
                }
            }
            Request::ChannelStats(channels) => {
                assert!((1..=limits.channels).contains(&channels.len()));
            }
            Request::ServerStats => {}
        }
    }
}

/// A request of the back end.
fn request_backend(data: &[u8]) {
    request(data, Caller::Backend, |draft| assert_eq!(draft.author, Author::Backend));
}

/// A request of a client: only public channels, and in its own name.
fn request_client(data: &[u8]) {
    let author = ChannelId::from_bytes([7; 16]);
    let keys = keys();
    let caller = Caller::Client { author: Some(author), keys: &keys, now_s: 0 };
    request(data, caller, |draft| {
        assert_eq!(draft.author, Author::Client(author));
        assert!(draft.receivers.iter().all(|receiver| !receiver.is_private()));
    });
}

/// A message whose first byte says who wrote it.
fn envelope(data: &[u8]) -> Envelope {
    let (first, body) = data.split_first().map_or((0, data), |(first, body)| (*first, body));
    let author = match first & 1 {
        0 => Author::Backend,
        _ => Author::Client(ChannelId::from_bytes([7; 16])),
    };
    let draft = Draft {
        receivers: Box::new([Receiver::Private(ChannelId::from_bytes([1; 16]))]),
        body: Bytes::copy_from_slice(body),
        expiry: Expiry::VOLATILE,
        author,
        kind: MessageKind::UNKNOWN,
        additions: vestnik_core::message::Additions::default(),
    };
    Envelope::new(MessageId::new(1_795_487_320, 3313), 1_795_487_767_733, draft)
}

/// A body in framed text: one start and one end marker, on one line, and JSON unless it is a
/// literal of the back end.
fn body_text(data: &[u8]) {
    let envelope = envelope(data);
    let record = text::record(&envelope);
    let record = std::str::from_utf8(&record).expect("text is UTF-8");
    assert_eq!((record.matches(START).count(), record.matches(END).count()), (1, 1));
    assert!(!record.contains(['\n', '\r', '\u{2028}', '\u{2029}']));
    let event = record.strip_prefix(START).and_then(|rest| rest.strip_suffix(END));
    let event = event.expect("markers stand at the ends");
    let parsed = serde_json::from_str::<serde_json::Value>(event);
    let is_literal = envelope.author == Author::Backend && envelope.body.first() == Some(&b'{');
    match parsed {
        Ok(value) => assert_eq!(value["id"], 3313),
        Err(error) => assert!(is_literal || is_beyond(&error), "{error}: {event}"),
    }
}

/// A body in plain JSON: an array of one event with its id.
fn body_json(data: &[u8]) {
    let record = json::record(&envelope(data));
    match serde_json::from_slice::<serde_json::Value>(&record) {
        Ok(array) => {
            assert_eq!(array.as_array().map(Vec::len), Some(1));
            assert_eq!(array[0]["id"], 3313);
        }
        Err(error) => assert!(is_beyond(&error), "{error}"),
    }
}

/// JSON that JavaScript reads and this checker does not: deep nesting, numbers out of range, lone
/// surrogates. Clients get it as it was published.
fn is_beyond(error: &serde_json::Error) -> bool {
    let error = error.to_string();
    ["recursion limit", "number out of range", "surrogate", "hex escape"]
        .iter()
        .any(|part| error.contains(part))
}

/// The most requests in one array, and the most users of one list.
const ITEMS_MAX: usize = 20;

/// JSON-RPC: taken apart as another reader would, and every part of it is valid JSON again.
fn json_rpc(data: &[u8]) {
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    let packet = match jsonrpc::parse(data, ITEMS_MAX) {
        Ok(Ok(packet)) => packet,
        Ok(Err(error)) => {
            let is_request = theirs.is_ok_and(|it| it.is_object() || it.is_array());
            assert!(!is_request, "{error}");
            return;
        }
        Err(too_many) => return assert_eq!(too_many.limit, ITEMS_MAX),
    };
    let items = match &packet {
        Packet::Single(item) => std::slice::from_ref(item),
        Packet::Batch(items) => items,
    };
    assert!(items.len() <= ITEMS_MAX);
    let keys = keys();
    let space = UserSpace::of("fuzz");
    for (index, item) in items.iter().enumerate() {
        let Item::Call(call) = item else { continue };
        if let Ok(theirs) = &theirs {
            let theirs = theirs.get(index).unwrap_or(theirs);
            assert_eq!(theirs["method"], *call.method);
            let params = serde_json::from_str::<serde_json::Value>(call.params);
            assert_eq!(theirs["params"], params.expect("a part of what was read"));
        }
        let answer = jsonrpc::result(call.id, "true");
        assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{answer}");
        let caller = ClientCaller {
            author: Author::Backend,
            space: Some(space),
            keys: &keys,
            now_s: 0,
            expiry_max: Expiry::VOLATILE,
            channels_max: ITEMS_MAX,
            users_max: ITEMS_MAX,
        };
        let _ = jsonrpc::client_publish(call.params, &caller);
        let _ = jsonrpc::site_publish(call.params, space, Expiry::VOLATILE);
        let _ = jsonrpc::last_seen_updates(call.params);
        if let Ok(Some(users)) = jsonrpc::last_seen(call.params, ITEMS_MAX) {
            assert!(users.len() <= ITEMS_MAX);
        }
    }
}

/// Tokens: as they come, and as the claims of one that is rightly signed.
fn token(data: &[u8]) {
    const NOW_S: u64 = 1_700_000_000;
    let keys = keys();
    let raw = String::from_utf8_lossy(data);
    assert!(jwt::verify(&raw, &keys, NOW_S).is_err(), "nobody guesses a signature");
    let signed = format!("{}.{}", base64url(br#"{"alg":"HS256"}"#), base64url(data));
    let key = keys.signing_key().expect("there is one");
    let signature = base64url(key.sign_token(signed.as_bytes()).as_bytes());
    let Ok(token) = jwt::verify(&format!("{signed}.{signature}"), &keys, NOW_S) else { return };
    assert!(token.user.is_some() || !token.channels.is_empty(), "it names somebody");
    assert!(token.channels.len() <= 100);
    for (index, channel) in token.channels.iter().enumerate() {
        assert!(!token.channels[..index].contains(channel));
    }
    // Of clocks that differ.
    assert!(token.expires_s.saturating_add(60) >= NOW_S, "it has expired");
}

/// Base64 with the alphabet for addresses, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..=group.len() {
            let sextet = bits >> (18 - 6 * index) & 63;
            text.push(char::from(LETTERS[sextet as usize]));
        }
    }
    text
}

/// Bytes for tungstenite to read.
struct Pipe(Cursor<Vec<u8>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const MESSAGE_MAX: usize = 300;

/// Frames of a client: the messages are those that another implementation reads.
fn websocket(data: &[u8]) {
    let (ours, ended) = our_messages(data);
    // What another reader makes of the same bytes when they come in pieces.
    let (pieces, _) = our_messages_in_pieces(data);
    assert_eq!(ours, pieces, "the cuts between reads do not matter");
    let theirs = their_messages(data);
    match ended {
        // Ours knows the whole size from the first header, and takes no long form of a short length
        // in control frames; theirs goes on.
        Some(ProtocolError::TooLarge { .. } | ProtocolError::InvalidControlFrame) => {
            assert!(theirs.starts_with(&ours));
        }
        Some(_) | None => assert_eq!(ours, theirs, "ours ended with {ended:?}"),
    }
}

fn our_messages(data: &[u8]) -> (Vec<Message>, Option<ProtocolError>) {
    read_pieces(std::iter::once(data))
}

fn our_messages_in_pieces(data: &[u8]) -> (Vec<Message>, Option<ProtocolError>) {
    read_pieces(data.chunks(3))
}

fn read_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Message>, Option<ProtocolError>) {
    let (mut assembler, mut waiting, mut messages) = (Assembler::new(), Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        loop {
            match assembler.read(&mut waiting, Peer::Client, MESSAGE_MAX) {
                Ok(Step::Incomplete { needed }) => {
                    assert!(needed > waiting.len(), "it asks for more than there is");
                    break;
                }
                Ok(Step::Event { consumed, event }) => {
                    let closes = matches!(event, Event::Close(_));
                    match event {
                        Event::Message(MessageType::Text, text) => {
                            let text = String::from_utf8(text.into_owned()).expect("it is checked");
                            messages.push(Message::Text(text.into()));
                        }
                        Event::Message(MessageType::Binary, bytes) => {
                            messages.push(Message::Binary(bytes.into_owned().into()));
                        }
                        Event::Ping(payload) => {
                            messages.push(Message::Ping(payload.to_vec().into()));
                        }
                        Event::Pong(payload) => {
                            messages.push(Message::Pong(payload.to_vec().into()));
                        }
                        Event::Fragment | Event::Close(_) => {}
                    }
                    if closes {
                        return (messages, None);
                    }
                    waiting.drain(..consumed);
                }
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn their_messages(data: &[u8]) -> Vec<Message> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let pipe = Pipe(Cursor::new(data.to_vec()));
    let mut socket = WebSocket::from_raw_socket(pipe, Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Close(_)) | Err(_) => return messages,
            Ok(message) => messages.push(message),
        }
    }
}
