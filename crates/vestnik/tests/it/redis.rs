//! Several nodes on one real Redis (queue-server.md §8, §10).

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::generation5::{self, RpcClient, token};
use crate::raw;
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{hold_poll, metric_of, until};
use crate::wire::RawSocket;

/// A real server of its own port; ends with the test.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let child = Self::spawn(port, &folder);
        Self { child, port, folder }
    }

    fn spawn(port: u16, folder: &tempfile::TempDir) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes"])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: ./test installs it")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.folder);
    }

    pub(crate) fn node(&self, layout: &str) -> TestServer {
        self.node_with(layout, &[])
    }

    /// A node with more settings.
    pub(crate) fn node_with(&self, layout: &str, more: &[&str]) -> TestServer {
        let address = format!("redis.address=127.0.0.1:{}", self.port);
        let layout = format!("redis.layout={layout}");
        let settings = [&["history.engine=redis", &address, &layout], more].concat();
        let node = TestServer::with(&settings);
        connected(node.address());
        node
    }

    /// What the server says to a command: the texts and numbers of its answer, one after the other; a
    /// missing one is left out.
    pub(crate) fn ask(&self, words: &[&[u8]]) -> Vec<Vec<u8>> {
        fn value(reader: &mut impl std::io::BufRead, into: &mut Vec<Vec<u8>>) {
            let mut line = String::new();
            reader.read_line(&mut line).expect("an answer");
            let (kind, rest) = line.trim_end().split_at(1);
            match (kind, rest.parse::<usize>()) {
                ("$", Ok(length)) => {
                    let mut bytes = vec![0; length + 2];
                    reader.read_exact(&mut bytes).expect("a text");
                    bytes.truncate(length);
                    into.push(bytes);
                }
                ("*", Ok(count)) => (0..count).for_each(|_| value(reader, into)),
                (":" | "+", _) => into.push(rest.into()),
                ("$" | "*", Err(_)) => {}
                _ => panic!("redis says {line}"),
            }
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it runs");
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).bytes());
            request.extend_from_slice(word);
            request.extend(b"\r\n");
        }
        stream.write_all(&request).expect("it is sent");
        let mut answer = Vec::new();
        value(&mut BufReader::new(stream), &mut answer);
        answer
    }

    /// The number a command answers.
    pub(crate) fn number(&self, words: &[&[u8]]) -> i64 {
        let answer = self.ask(words);
        std::str::from_utf8(&answer[0]).expect("text").parse().expect("a number")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn connected(address: SocketAddr) {
    until("redis is connected", || metric_of(address, "vestnik_redis_connected") == 1);
}

fn say(node: &TestServer, pair: Pair, number: usize) -> u16 {
    let body = format!("{{\"n\":{number}}}");
    raw::publish(node.address(), &pair.private.to_string(), 600, &body).status
}

/// The numbers and the last position of the next messages, `count` of them.
fn hear(socket: &mut RawSocket, count: usize) -> (Vec<usize>, String) {
    let (mut numbers, mut mid) = (Vec::new(), String::new());
    while numbers.len() < count {
        let frame = socket.next_data();
        for event in raw::events(std::str::from_utf8(&frame.payload).expect("text")) {
            let number = event["text"]["n"].as_u64().expect("a number");
            numbers.push(usize::try_from(number).expect("a small number"));
            let next = event["mid"].as_str().expect("a mid").to_owned();
            assert!(next > mid, "ids grow");
            mid = next;
        }
    }
    (numbers, mid)
}

#[test]
fn q_139_q_159_q_163_three_nodes_are_one_server_and_replay_crosses_them() {
    let redis = Redis::start();
    for layout in ["own", "push-server"] {
        let nodes = [(); 3].map(|()| redis.node(layout));
        let pair = Pair::new(layout.len() as u64);
        let query = format!("CHANNEL_ID={}", pair.signed());
        let mut sockets = [0, 1, 2].map(|n: usize| RawSocket::open(nodes[n].address(), &query));
        for number in 0..9 {
            assert_eq!(say(&nodes[number % 3], pair, number), 200);
        }
        let all: Vec<usize> = (0..9).collect();
        let mut mid = String::new();
        for socket in &mut sockets {
            let heard = hear(socket, 9);
            assert_eq!(heard.0, all);
            mid = heard.1;
        }
        drop(sockets);
        assert_eq!(say(&nodes[0], pair, 9), 200);
        let mut back = RawSocket::open(nodes[2].address(), &format!("{query}&mid={mid}"));
        assert_eq!(hear(&mut back, 1).0, [9]);
        // A poll without a position is told the newest one of all nodes.
        let mut poll = hold_poll(nodes[1].address(), &query);
        assert_eq!(say(&nodes[0], pair, 10), 200);
        assert!(poll.answer().text().contains("\"n\":10"));
    }
}

#[test]
fn q_189_chaos_nothing_acknowledged_is_lost_or_doubled_when_redis_is_killed_under_three_nodes() {
    let mut redis = Redis::start();
    let nodes = [(); 3].map(|()| redis.node("own"));
    let pair = Pair::new(3);
    let query = format!("CHANNEL_ID={}", pair.signed());
    let mut sockets = [0, 1, 2].map(|n: usize| RawSocket::open(nodes[n].address(), &query));
    let mut acknowledged = Vec::new();
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..30 {
            if say(&nodes[number % 3], pair, number) == 200 {
                acknowledged.push(number);
            }
            number += 1;
        }
        redis.kill();
        assert_eq!(say(&nodes[0], pair, number), 503, "an error that PHP understands");
        number += 1;
        let health = raw::get(nodes[0].address(), "/healthz");
        assert!(health.status == 200 && health.text().contains("redis is not connected"));
        redis.start_again();
        nodes.iter().for_each(|node| connected(node.address()));
    }
    // Text publishes wait for redis, so the refused ones arrive too; nothing arrives twice.
    let mut orders = Vec::new();
    for socket in &mut sockets {
        let (heard, _) = hear(socket, number);
        let distinct: std::collections::BTreeSet<_> = heard.iter().copied().collect();
        assert_eq!(distinct.len(), heard.len(), "nothing twice");
        assert!(acknowledged.iter().all(|it| distinct.contains(it)), "nothing is lost");
        orders.push(heard);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order on all nodes");
}

#[test]
fn q_190_two_of_three_nodes_are_restarted_in_turn_without_a_loss() {
    let redis = Redis::start();
    let mut nodes: Vec<_> = (0..3).map(|_| redis.node("own")).collect();
    let pair = Pair::new(4);
    let query = format!("CHANNEL_ID={}", pair.signed());
    let mut steady = RawSocket::open(nodes[2].address(), &query);
    let mut number = 0;
    for _ in 0..2 {
        let node = nodes.remove(0);
        node.signal("TERM");
        for _ in 0..20 {
            assert_eq!(say(&nodes[number % 2], pair, number), 200);
            number += 1;
        }
        let node = node.restarted();
        connected(node.address());
        nodes.push(node);
        nodes.swap(1, 2);
    }
    let (heard, _) = hear(&mut steady, number);
    assert_eq!(heard, (0..number).collect::<Vec<_>>());
    for node in &nodes {
        let zero = "0".repeat(26);
        let mut late = RawSocket::open(node.address(), &format!("{query}&mid={zero}"));
        assert_eq!(hear(&mut late, heard.len()).0, heard);
    }
}

#[test]
fn users_of_generation_5_are_reached_and_come_back_across_nodes_with_what_is_theirs() {
    let redis = Redis::start();
    for layout in ["own", "push-server"] {
        let nodes = [(); 2].map(|()| redis.node(layout));
        let [here, there] = [nodes[0].address(), nodes[1].address()];
        let (seven, eight) = (token(7, &[]), token(8, &[]));
        let mut client = RpcClient::connect(here, &seven);
        let mut other = RpcClient::connect(there, &eight);
        let event = |n: u64| {
            json!({
                "userList": [7, 8],
                "body": {"module_id": "m", "command": "c", "params": {"n": n}},
                "user_params": {"7": {"mine": n}},
                "dictionary": {"all": true},
                "expiry": 600,
            })
        };
        generation5::publish(there, &event(1));
        let message = client.message();
        assert_eq!(message["body"]["params"], json!({"n": 1, "all": true, "mine": 1}), "{layout}");
        assert_eq!(other.message()["body"]["params"], json!({"n": 1, "all": true}));
        let mid = message["mid"].as_str().expect("an id");
        drop(client);
        generation5::publish(here, &event(2));
        generation5::publish(there, &event(3));
        let mut back = RpcClient::reconnect(there, &seven, mid);
        for n in 2..=3 {
            let own = json!({"n": n, "all": true, "mine": n});
            assert_eq!(back.message()["body"]["params"], own, "{layout}");
        }
        back.heard_nothing();
    }
}

#[test]
fn a_history_moves_between_the_layouts_and_back_with_its_expiries_while_nobody_runs() {
    let redis = Redis::start();
    let pair = Pair::new(6);
    let query = format!("CHANNEL_ID={}", pair.signed());
    let address = format!("redis.address=127.0.0.1:{}", redis.port);
    let migrate = |more: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_vestnik"))
            .args(["migrate", "--set", "history.engine=redis", "--set", &address])
            .args(more)
            .output()
            .expect("it is built");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let node = redis.node("push-server");
    for number in 0..120 {
        assert_eq!(say(&node, pair, number), 200);
    }
    let mid = {
        let mut socket =
            RawSocket::open(node.address(), &format!("{query}&mid={}", "0".repeat(26)));
        hear(&mut socket, 60).1
    };
    generation5::publish(
        node.address(),
        &json!({
            "userList": [7], "expiry": 600,
            "body": {"module_id": "m", "command": "c", "params": {"n": 1}},
        }),
    );
    until("it has reported", || redis.number(&[b"HLEN", b"stats"]) == 1);
    let (code, _, error) = migrate(&["--to", "own"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("still run on this Redis") && error.contains("hint: stop them"),
        "{error}"
    );
    node.signal("TERM");
    assert!(node.wait().0.success());
    let before = redis.number(&[b"DBSIZE"]);
    let (code, said, _) = migrate(&["--to", "own", "--dry-run"]);
    assert_eq!((code, redis.number(&[b"DBSIZE"])), (Some(0), before), "{said}");
    assert!(said.starts_with("would be copied: 121 messages of 2 channels and users"), "{said}");
    let (code, said, error) = migrate(&["--to", "own"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(said.starts_with("copied: 121 messages"), "{said}");
    let (_, said, _) = migrate(&["--to", "own"]);
    assert!(
        said.contains("copied: 0 messages") && said.contains("already: 121 messages"),
        "{said}"
    );

    // Whoever was at the old layout goes on at the new one.
    let node = redis.node("own");
    for key in redis.ask(&[b"KEYS", b"{vestnik}:message:*"]) {
        let seconds = redis.number(&[b"TTL", &key]);
        assert!((500..=600).contains(&seconds), "{seconds}");
    }
    let mut back = RawSocket::open(node.address(), &format!("{query}&mid={mid}"));
    assert_eq!(hear(&mut back, 60).0, (60..120).collect::<Vec<_>>());
    assert_eq!(say(&node, pair, 120), 200);
    let (heard, newest) = hear(&mut back, 1);
    assert!(heard == [120] && newest > mid, "ids go on growing");
    let mut seven = RpcClient::reconnect(node.address(), &token(7, &[]), &"0".repeat(26));
    assert_eq!(seven.message()["body"]["params"]["n"], 1);
    node.signal("TERM");
    assert!(node.wait().0.success());
    let (code, said, _) = migrate(&["--to", "push-server"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("copied: 1 messages"), "{said}");
    let node = redis.node("push-server");
    let mut back = RawSocket::open(node.address(), &format!("{query}&mid={mid}"));
    assert_eq!(hear(&mut back, 61).0, (60..=120).collect::<Vec<_>>());
    assert_eq!(say(&node, pair, 121), 200);
    let (heard, last) = hear(&mut back, 1);
    assert!(heard == [121] && last > newest);
}
