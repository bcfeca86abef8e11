//! What the original Push server 2.0 checks about itself: the 46 cases of its own test suite
//! (queue-server.md §14), told in our words and played against vestnik.
//!
//! Every group is an array of fixed length, so a case that gets lost does not compile.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value as Json;

use crate::long_poll::wait_for_presence;
use crate::raw::{self, Answer, Connection, events, get, post};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::handshake;
use crate::wire::{
    RawSocket, client_frame, field, incoming, messages_in, number_field, outgoing,
    private_receiver, public_receiver, publish_request, stats_answer, stats_request,
};

/// How many channels one case may use.
const ROOM: u64 = 1000;

/// One case.
struct Case {
    /// What is asked of the server.
    asked: &'static str,
    /// What it does.
    expected: &'static str,
    play: fn(&Ground),
}

const fn case(asked: &'static str, expected: &'static str, play: fn(&Ground)) -> Case {
    Case { asked, expected, play }
}

/// Where a case is played: a server, and channels that no other case uses.
struct Ground {
    address: SocketAddr,
    first: u64,
}

impl Ground {
    fn pair(&self, number: u64) -> Pair {
        assert!(number < ROOM);
        Pair::new(self.first + number)
    }

    fn pairs(&self, count: u64) -> Vec<Pair> {
        (0..count).map(|number| self.pair(number)).collect()
    }

    /// Publishes or asks as the site does, in binary.
    fn site(&self, batch: &[u8]) -> Answer {
        post(self.address, "/bitrix/pub/?binaryMode=true", &[], batch)
    }

    /// Publishes or asks as a client that shows these channels.
    fn client(&self, channels: &str, batch: &[u8]) -> Answer {
        post(self.address, &format!("/bitrix/rest/?CHANNEL_ID={channels}"), &[], batch)
    }

    /// A limit that the server says it has.
    fn limit(&self, name: &str) -> u64 {
        let stats: Json = serde_json::from_slice(&get(self.address, "/server-stat/").body)
            .expect("statistics are JSON");
        stats[0]["limits"][name].as_u64().expect("a limit")
    }

    /// A subscriber in binary on the route of polls, as the suite's clients connect.
    fn socket(&self, pair: Pair, more: &str) -> RawSocket {
        let channels = pair.signed();
        let mut connection = Connection::open(self.address);
        let target = format!("/bitrix/sub/?CHANNEL_ID={channels}&binaryMode=true{more}");
        connection.send(handshake(&target));
        RawSocket::upgraded(connection)
    }

    /// A new subscriber sends this and is sent away with nothing but this reason, which begins with
    /// the code.
    fn sent_away(&self, sent: &[u8], reason: &str) {
        let mut socket = self.socket(self.pair(0), "");
        socket.send(client_frame(0x82, sent));
        let frame = socket.next_data();
        let code = reason[..4].parse().expect("a code");
        assert_eq!(frame.close(), Some((code, reason)), "{frame:?}");
    }
}

fn assert_refused(answer: &Answer, reason: &str) {
    assert_eq!((answer.status, answer.text()), (400, reason));
}

fn assert_taken(answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
}

/// A batch with one message.
fn one(receivers: &[Vec<u8>], body: &str) -> Vec<u8> {
    publish_request(&[incoming(receivers, body, 60)])
}

/// A batch with one message to one public channel, signed.
fn to_public(pair: Pair, body: &str) -> Vec<u8> {
    one(&[public_receiver(pair)], body)
}

/// A batch that asks about channels, each given as it is written.
fn question(channels: &[Vec<u8>]) -> Vec<u8> {
    let channels: Vec<u8> = channels.iter().flat_map(|channel| field(1, channel)).collect();
    field(1, &field(2, &channels))
}

/// A batch that asks for the statistics of the server.
fn server_question() -> Vec<u8> {
    field(1, &field(3, &[]))
}

/// Clients that are all connected.
struct Chat<'ground> {
    ground: &'ground Ground,
    members: Vec<(Pair, RawSocket)>,
}

impl<'ground> Chat<'ground> {
    fn of(ground: &'ground Ground, count: u64) -> Self {
        let members = ground.pairs(count).into_iter();
        let members = members.map(|pair| (pair, ground.socket(pair, ""))).collect();
        Self { ground, members }
    }

    fn pairs(&self) -> Vec<Pair> {
        self.members.iter().map(|(pair, _)| *pair).collect()
    }

    /// Names of the members, from 1.
    fn names(&self) -> Vec<String> {
        (1..=self.members.len()).map(|number| number.to_string()).collect()
    }

    /// Calls `send` for every sender's name and channels and every receiver.
    fn each_to_each(&self, send: impl Fn(&str, Pair, Pair)) {
        for (name, sender) in self.names().iter().zip(self.pairs()) {
            for receiver in self.pairs() {
                send(name, sender, receiver);
            }
        }
    }

    /// Every member has got these bodies, in any order and once each, and nothing else.
    fn assert_got(mut self, expected: &[String]) {
        let expected: HashSet<&str> = expected.iter().map(String::as_str).collect();
        for (pair, socket) in &mut self.members {
            let mut got = Vec::new();
            while got.len() < expected.len() {
                got.extend(bodies(&socket.next_data().payload));
            }
            assert_eq!(got.len(), expected.len(), "{got:?}");
            assert_eq!(got.iter().map(String::as_str).collect::<HashSet<_>>(), expected);
            // What is published now comes behind everything else.
            assert_taken(&self.ground.site(&one(&[private_receiver(*pair)], "end")));
            assert_eq!(bodies(&socket.next_data().payload), ["end"]);
        }
    }

    /// Every member asks about all members and channels of nobody, and is told who is there.
    fn assert_sees(mut self, absent: &[Pair]) {
        let present = self.pairs();
        let all: Vec<Pair> = present.iter().chain(absent).copied().collect();
        let answer: Vec<_> = all
            .iter()
            .map(|pair| (*pair, present.iter().any(|it| it.public == pair.public)))
            .collect();
        for (_, socket) in &mut self.members {
            socket.send(client_frame(0x82, &stats_request(&all)));
        }
        for (_, socket) in &mut self.members {
            assert_eq!(socket.next_data().payload, stats_answer(&answer));
        }
    }
}

fn bodies(batch: &[u8]) -> Vec<String> {
    outgoing(batch).into_iter().map(|message| message.body).collect()
}

fn message_exchange() -> [Case; 10] {
    [
        case("five write to each over sockets", "each reads five", |at| sockets_chat(at, 0)),
        case("the same, one after another", "each reads five", |at| sockets_chat(at, 20)),
        case("one writes to five in one message", "each reads it", |at| {
            let mut chat = Chat::of(at, 5);
            let receivers: Vec<_> = chat.pairs().into_iter().map(public_receiver).collect();
            chat.members[0].1.send(client_frame(0x82, &one(&receivers, "12345")));
            chat.assert_got(&["12345".to_owned()]);
        }),
        case("five write to each, all in one request", "each reads five", |at| {
            let mut chat = Chat::of(at, 5);
            let (names, pairs) = (chat.names(), chat.pairs());
            for (name, (_, socket)) in names.iter().zip(&mut chat.members) {
                let to_each =
                    pairs.iter().map(|pair| incoming(&[public_receiver(*pair)], name, 60));
                let to_each: Vec<_> = to_each.collect();
                socket.send(client_frame(0x82, &publish_request(&to_each)));
            }
            chat.assert_got(&names);
        }),
        case("the site writes 15 texts to each of 15", "each reads 15", |at| {
            let chat = Chat::of(at, 15);
            chat.each_to_each(|name, _, to| {
                let private = to.private.to_string();
                assert_eq!(raw::publish(at.address, &private, 0, name).status, 200);
            });
            let names = chat.names();
            chat.assert_got(&names);
        }),
        case("the site writes one text to 15", "each reads it", |at| {
            let chat = Chat::of(at, 15);
            let list: Vec<_> = chat.pairs().iter().map(|pair| pair.private.to_string()).collect();
            assert_eq!(raw::publish(at.address, &list.join("/"), 0, "message").status, 200);
            chat.assert_got(&["message".to_owned()]);
        }),
        case("the site writes 15 times in binary to each of 15", "each reads 15", |at| {
            let chat = Chat::of(at, 15);
            chat.each_to_each(|name, from, to| {
                // The suite names the sender's channel, which means nothing here.
                let target = format!("/bitrix/pub/?CHANNEL_ID={}&binaryMode=true", from.private);
                assert_taken(&post(at.address, &target, &[], &to_public(to, name)));
            });
            let names = chat.names();
            chat.assert_got(&names);
        }),
        case("the site writes once in binary to 15 private channels", "each reads it", |at| {
            let chat = Chat::of(at, 15);
            let receivers: Vec<_> = chat.pairs().into_iter().map(private_receiver).collect();
            assert_taken(&at.site(&one(&receivers, "message")));
            chat.assert_got(&["message".to_owned()]);
        }),
        case("nine write to each over rest", "each reads nine", |at| {
            let chat = Chat::of(at, 9);
            chat.each_to_each(|name, from, to| {
                assert_taken(&at.client(&from.signed(), &to_public(to, name)));
            });
            let names = chat.names();
            chat.assert_got(&names);
        }),
        case("one writes to nine in one message over rest", "each reads it", |at| {
            let chat = Chat::of(at, 9);
            let receivers: Vec<_> = chat.pairs().into_iter().map(public_receiver).collect();
            assert_taken(&at.client(&at.pair(0).signed(), &one(&receivers, "rest message")));
            chat.assert_got(&["rest message".to_owned()]);
        }),
    ]
}

/// Five members write their names to each, one member `pause_ms` after the other.
fn sockets_chat(at: &Ground, pause_ms: u64) {
    let mut chat = Chat::of(at, 5);
    let (names, pairs) = (chat.names(), chat.pairs());
    for (name, (_, socket)) in names.iter().zip(&mut chat.members) {
        for pair in &pairs {
            socket.send(client_frame(0x82, &to_public(*pair, name)));
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    chat.assert_got(&names);
}

fn channel_stats() -> [Case; 5] {
    [
        case("members ask about each other", "all are online, in the order asked", |at| {
            Chat::of(at, 5).assert_sees(&[]);
        }),
        case("members ask about five that are not there as well", "these are offline", |at| {
            let absent: Vec<_> = (100..105).map(|number| at.pair(number)).collect();
            Chat::of(at, 5).assert_sees(&absent);
        }),
        case("the site asks about private and public channels", "each as it is", |at| {
            let chat = Chat::of(at, 5);
            let absent = (100..105).map(|number| (at.pair(number), 0));
            let all: Vec<_> =
                chat.pairs().into_iter().map(|pair| (pair, 1)).chain(absent).collect();
            let asked: Vec<_> = (all.iter().map(|(pair, _)| private_receiver(*pair)))
                .chain(all.iter().map(|(pair, _)| public_receiver(*pair)))
                .collect();
            let entry = |id, is_private, is_online| {
                field(1, &[field(1, id), vec![0x10, is_private, 0x18, is_online]].concat())
            };
            let private =
                all.iter().map(|(pair, online)| entry(pair.private.as_bytes(), 1, *online));
            let public = all.iter().map(|(pair, online)| entry(pair.public.as_bytes(), 0, *online));
            let entries: Vec<u8> = private.chain(public).flatten().collect();
            let answer = at.site(&question(&asked));
            assert_eq!((answer.status, answer.body), (200, field(1, &field(2, &entries))));
        }),
        case("the site asks about five private channels as text", "all, in order", |at| {
            let chat = Chat::of(at, 5);
            let ids: Vec<_> = chat.pairs().iter().map(|pair| pair.private.to_string()).collect();
            let answer = get(at.address, &format!("/bitrix/pub/?CHANNEL_ID={}", ids.join("/")));
            let answer: Json = serde_json::from_slice(&answer.body).expect("JSON");
            let infos = answer["infos"].as_array().expect("a list");
            let found: Vec<_> = infos.iter().filter_map(|it| it["channel"].as_str()).collect();
            assert_eq!(found, ids);
        }),
        case("a client asks about public channels over rest", "all are online", |at| {
            let chat = Chat::of(at, 5);
            let pairs = chat.pairs();
            let answer = at.client(&pairs[0].signed(), &stats_request(&pairs));
            let online: Vec<_> = pairs.into_iter().map(|pair| (pair, true)).collect();
            assert_eq!((answer.status, answer.body), (200, stats_answer(&online)));
        }),
    ]
}

fn server_stats() -> [Case; 4] {
    const NOT_ALLOWED: &str = "4014: Request command is not allowed.";
    fn assert_statistics(json: &[u8]) {
        let stats: Json = serde_json::from_slice(json).expect("JSON");
        let processes = stats.as_array().expect("a list");
        assert!(!processes.is_empty());
        assert!(processes.iter().all(|it| it["pid"].is_u64() && it["date"].is_u64()), "{stats}");
    }
    [
        case("anyone trusted gets /server-stat/", "pid and date of each process", |at| {
            let answer = get(at.address, "/server-stat/");
            assert_eq!(answer.status, 200);
            assert_statistics(&answer.body);
        }),
        case("the site asks in binary", "the same", |at| {
            let answer = at.site(&server_question());
            assert_eq!(answer.status, 200);
            let response = messages_in(&answer.body, 1).remove(0);
            let statistics = messages_in(&response, 3).remove(0);
            assert_statistics(&messages_in(&statistics, 1)[0]);
        }),
        case("a subscriber asks", NOT_ALLOWED, |at| at.sent_away(&server_question(), NOT_ALLOWED)),
        case("a client asks over rest", NOT_ALLOWED, |at| {
            assert_refused(&at.client(&at.pair(0).signed(), &server_question()), NOT_ALLOWED);
        }),
    ]
}

fn long_polling() -> [Case; 4] {
    const ALL: &str = "ten polls in a row miss nothing and repeat nothing";
    [
        case("binary publishes, binary polls", ALL, |at| poll_digits(at, true, true)),
        case("text publishes, text polls", ALL, |at| poll_digits(at, false, false)),
        case("binary publishes, text polls", ALL, |at| poll_digits(at, true, false)),
        case("text publishes, binary polls", ALL, |at| poll_digits(at, false, true)),
    ]
}

/// Publishes ten digits while a client polls, each poll behind what the poll before it has brought.
fn poll_digits(at: &Ground, is_binary_publish: bool, is_binary_poll: bool) {
    let (address, pair) = (at.address, at.pair(0));
    let digits = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"];
    let mode = if is_binary_poll { "&binaryMode=true" } else { "" };
    let channels = pair.signed();
    let poll = format!("/bitrix/sub/?CHANNEL_ID={channels}{mode}");
    let client = std::thread::spawn(move || {
        let (mut got, mut mid) = (Vec::new(), String::new());
        while got.last().is_none_or(|last| last != "0") {
            let answer = get(address, &format!("{poll}{mid}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let mut last = String::new();
            if is_binary_poll {
                for message in outgoing(&answer.body) {
                    last = message.mid();
                    got.push(message.body);
                }
            } else {
                for event in events(answer.text()) {
                    last = event["mid"].as_str().expect("a mid").to_owned();
                    got.push(event["text"].to_string());
                }
            }
            mid = format!("&mid={last}");
        }
        got
    });
    wait_for_presence(address, pair, true);
    for digit in digits {
        let answer = if is_binary_publish {
            at.site(&one(&[private_receiver(pair)], digit))
        } else {
            raw::publish(address, &pair.private.to_string(), 3600 * 24, digit)
        };
        assert_eq!(answer.status, 200);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.join().expect("every poll is answered"), digits);
}

/// A request with a body of 1 MiB, so it is larger than what clients may send.
fn too_large(pair: Pair) -> Vec<u8> {
    to_public(pair, &"1".repeat(1 << 20))
}

const NO_CHANNELS: &str = "4017: No channels found.";
const MANY_CHANNELS: &str = "4018: Request exceeded the maximum number of channels.";
const INVALID_ID: &str = "4019: Request has an invalid channel id.";
const NO_PRIVATE: &str = "4020: Private channel is not allowed.";
const WRONG_SIGNATURE: &str = "4021: Channel has an invalid signature.";

fn validation_of_requests() -> [Case; 13] {
    const WRONG_DATA: &str = "4013: Wrong Request Data.";
    const NO_PAIR: &str = "4012: Public Channel Id is Required.";
    const MANY_MESSAGES: &str = "4016: Request exceeded the maximum number of messages.";
    [
        case("five bytes that are no protobuf", WRONG_DATA, |at| {
            at.sent_away(&[1, 2, 3, 4, 5], WRONG_DATA);
        }),
        case("more than 1 MiB in a frame", "the end, and no message", |at| {
            let mut socket = at.socket(at.pair(0), "");
            socket.send(client_frame(0x82, &too_large(at.pair(0))));
            // The close frame is lost where the system resets the connection.
            let last = socket.next();
            assert!(last.as_ref().is_none_or(|frame| frame.close().is_some()), "{last:?}");
            assert!(socket.is_ended());
        }),
        case("more than 1 MiB over rest", "413", |at| {
            let pair = at.pair(0);
            assert_eq!(at.client(&pair.signed(), &too_large(pair)).status, 413);
        }),
        case("rest with a pair without a signature", NO_PAIR, |at| {
            let pair = at.pair(0);
            let unsigned = format!("{}:{}", pair.private, pair.public);
            assert_refused(&at.client(&unsigned, &to_public(pair, "test")), NO_PAIR);
        }),
        case("rest with a private channel alone", NO_PAIR, |at| {
            let pair = at.pair(0);
            let answer = at.client(&pair.private_signed(), &to_public(pair, "test"));
            assert_refused(&answer, NO_PAIR);
        }),
        case("three subscribers too many", "the oldest three get 4029", crowd),
        case("a message too many in one request", MANY_MESSAGES, |at| {
            let numbers = 0..=at.limit("maxMessagesPerRequest");
            let to = [public_receiver(at.pair(0))];
            let messages: Vec<_> = numbers.map(|n| incoming(&to, &n.to_string(), 60)).collect();
            at.sent_away(&publish_request(&messages), MANY_MESSAGES);
        }),
        case("a subscriber asks about no channel", NO_CHANNELS, |at| {
            at.sent_away(&question(&[]), NO_CHANNELS);
        }),
        case("the site asks about no channel", NO_CHANNELS, |at| {
            assert_refused(&get(at.address, "/bitrix/pub/?CHANNEL_ID="), NO_CHANNELS);
        }),
        case("a subscriber asks about a channel too many", MANY_CHANNELS, |at| {
            let pairs = at.pairs(at.limit("maxChannelsPerRequest") + 1);
            at.sent_away(&stats_request(&pairs), MANY_CHANNELS);
        }),
        case("the site asks about a channel too many", MANY_CHANNELS, |at| {
            let pairs = at.pairs(at.limit("maxChannelsPerRequest") + 1);
            let ids: Vec<_> = pairs.iter().map(|pair| pair.public.to_string()).collect();
            let target = format!("/bitrix/pub/?CHANNEL_ID={}", ids.join("/"));
            assert_refused(&get(at.address, &target), MANY_CHANNELS);
        }),
        case("a client asks about a private channel", NO_PRIVATE, |at| {
            let pair = at.pair(0);
            let answer = at.client(&pair.signed(), &question(&[private_receiver(pair)]));
            assert_refused(&answer, NO_PRIVATE);
        }),
        case("somebody polls a public channel", "4010: Wrong Channel Id.", |at| {
            let public = at.pair(0).public_signed();
            let target = format!("/bitrix/sub/?CHANNEL_ID={public}&binaryMode=true");
            assert_refused(&get(at.address, &target), "4010: Wrong Channel Id.");
        }),
    ]
}

fn validation_of_receivers() -> [Case; 7] {
    [
        case("the site asks about an id of eight bytes", INVALID_ID, |at| {
            let signature = field(3, &at.pair(0).public_signature());
            let channel = [field(1, b"wrong id"), signature].concat();
            assert_refused(&at.site(&question(&[channel])), INVALID_ID);
        }),
        case("a client asks with bytes that are no signature", WRONG_SIGNATURE, |at| {
            let pair = at.pair(0);
            let channel = [field(1, pair.public.as_bytes()), field(3, b"wrong id")].concat();
            let answer = at.client(&pair.signed(), &question(&[channel]));
            assert_refused(&answer, WRONG_SIGNATURE);
        }),
        case("a subscriber writes without a signature", WRONG_SIGNATURE, |at| {
            let receiver = field(1, at.pair(0).public.as_bytes());
            at.sent_away(&one(&[receiver], "message"), WRONG_SIGNATURE);
        }),
        case("a subscriber writes to nobody", NO_CHANNELS, |at| {
            at.sent_away(&one(&[], "message"), NO_CHANNELS);
        }),
        case("a subscriber writes with another's signature", WRONG_SIGNATURE, |at| {
            let signature = field(3, &at.pair(1).public_signature());
            let receiver = [field(1, at.pair(0).public.as_bytes()), signature].concat();
            at.sent_away(&one(&[receiver], "message"), WRONG_SIGNATURE);
        }),
        case("a subscriber writes to a private channel", NO_PRIVATE, |at| {
            at.sent_away(&one(&[private_receiver(at.pair(0))], "message"), NO_PRIVATE);
        }),
        case("the site writes to an empty id", INVALID_ID, |at| {
            let receiver = [field(1, b""), number_field(2, 1)].concat();
            assert_refused(&at.site(&one(&[receiver], "message")), INVALID_ID);
        }),
    ]
}

/// More subscribers of one channel than are allowed: the oldest go, the others stay.
fn crowd(at: &Ground) {
    let limit = usize::try_from(at.limit("maxConnPerChannel")).expect("a small number");
    let pair = at.pair(0);
    let mut sockets: Vec<_> = (0..limit + 3).map(|_| at.socket(pair, "")).collect();
    for socket in &mut sockets[..3] {
        let frame = socket.next_data();
        assert_eq!(frame.close(), Some((4029, "4029: Too many connections")), "{frame:?}");
    }
    assert_taken(&at.site(&one(&[private_receiver(pair)], "still here")));
    for socket in &mut sockets[3..] {
        assert_eq!(bodies(&socket.next_data().payload), ["still here"]);
    }
}

fn last_messages() -> [Case; 3] {
    const MISSED: [&str; 5] = ["B", "C", "D", "E", "F"];
    [
        case("a socket behind the first of six messages", "the other five at once", |at| {
            let (first, _) = publish_letters(at);
            let mut socket = at.socket(at.pair(0), &format!("&mid={first}"));
            assert_eq!(bodies(&socket.next_data().payload), MISSED);
        }),
        case("a poll behind the first of six messages", "the other five", |at| {
            let (first, _) = publish_letters(at);
            let channels = at.pair(0).signed();
            let target = format!("/bitrix/sub/?CHANNEL_ID={channels}&binaryMode=true&mid={first}");
            let answer = get(at.address, &target);
            assert_eq!(
                (answer.status, bodies(&answer.body)),
                (200, MISSED.map(str::to_owned).into())
            );
        }),
        case("a poll without news", "304 and the id of the last message", |at| {
            // The suite waits 40 s for it.
            let server = TestServer::with(&["timing.poll=1s"]);
            let at = Ground { address: server.address(), first: at.first };
            let (_, last) = publish_letters(&at);
            let channels = at.pair(0).signed();
            let target = format!("/bitrix/sub/?CHANNEL_ID={channels}&binaryMode=true");
            let answer = get(at.address, &target);
            assert_eq!((answer.status, answer.text()), (304, ""));
            assert_eq!(answer.header("last-message-id"), Some(last.as_str()));
        }),
    ]
}

/// Publishes A to F, in turn to the private and the public channel, while a socket listens; returns
/// the ids of the first and of the last one.
fn publish_letters(at: &Ground) -> (String, String) {
    let pair = at.pair(0);
    let mut socket = at.socket(pair, "");
    let mut mids = Vec::new();
    for (number, letter) in ["A", "B", "C", "D", "E", "F"].into_iter().enumerate() {
        let is_private = number % 2 == 0;
        let receiver = if is_private { private_receiver(pair) } else { public_receiver(pair) };
        let message = incoming(&[receiver], letter, 120);
        assert_taken(&at.site(&publish_request(&[message])));
        let messages = outgoing(&socket.next_data().payload);
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert_eq!(messages[0].body, letter);
        mids.push(messages[0].mid());
    }
    (mids.swap_remove(0), mids.swap_remove(0))
}

#[test]
fn q_169_the_46_cases_of_the_original_servers_own_suite_hold() {
    let cases: Vec<Case> = message_exchange()
        .into_iter()
        .chain(channel_stats())
        .chain(server_stats())
        .chain(long_polling())
        .chain(validation_of_requests())
        .chain(validation_of_receivers())
        .chain(last_messages())
        .collect();
    let titles: HashSet<_> = cases.iter().map(|case| case.asked).collect();
    assert_eq!((cases.len(), titles.len()), (46, 46), "each once");
    let server = TestServer::start();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let played: Vec<_> = (1..)
            .zip(&cases)
            .map(|(number, case)| {
                let ground = Ground { address: server.address(), first: number * ROOM };
                (case, scope.spawn(move || (case.play)(&ground)))
            })
            .collect();
        let failed = played.into_iter().filter_map(|(case, thread)| {
            let ended = thread.join();
            ended.is_err().then(|| format!("{} -> {}", case.asked, case.expected))
        });
        failed.collect()
    });
    assert!(failed.is_empty(), "{} of 46 cases fail:\n{}", failed.len(), failed.join("\n"));
}
