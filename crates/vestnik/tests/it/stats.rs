//! What the server says about itself, and what it makes of settings of the originals.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::observe::hold_poll;
use crate::raw;
use crate::requests::{
    Field, ask, batch, channel_stats, fields, message, publish, receiver, server_stats,
};
use crate::server::{TestServer, launch, wait_for};
use crate::sign::{KEY, Pair};
use crate::websocket::Subscriber;

fn stat(server: &TestServer) -> Value {
    let answer = raw::get(server.address(), "/server-stat/");
    assert_eq!(answer.status, 200);
    serde_json::from_str(answer.text()).expect("JSON")
}

/// Names of the members of a JSON object in the order of its text; only the outermost ones.
fn names(text: &str) -> Vec<String> {
    let (mut names, mut depth, mut rest) = (Vec::new(), 0, text);
    while let Some(at) = rest.find(['{', '}', '"']) {
        let found = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match found {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {
                let (name, behind) = rest.split_once('"').expect("a closed string");
                if depth == 1 && behind.starts_with(':') {
                    names.push(name.to_owned());
                }
                rest = behind;
            }
        }
    }
    names
}

#[test]
fn q_148_statistics_are_an_array_with_the_members_in_their_order() {
    let server = TestServer::start();
    let [a, b] = [1, 2].map(Pair::new);
    let list = format!("CHANNEL_ID={}/{}", a.signed(), b.private_signed());
    let _socket = Subscriber::open(server.address(), &list);
    let _poll = hold_poll(server.address(), &format!("CHANNEL_ID={}", b.private_signed()));
    let answer = raw::get(server.address(), "/server-stat/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let expected = [
        "pid",
        "date",
        "processUniqueId",
        "channels",
        "limits",
        "clusterMode",
        "websockets",
        "pollings",
        "daily",
    ];
    assert!(answer.text().starts_with('['));
    assert_eq!(names(answer.text()), expected);
    let stats: Value = serde_json::from_str(answer.text()).expect("JSON");
    assert_eq!(stats.as_array().map(Vec::len), Some(1));
    let stats = &stats[0];
    assert_eq!(stats["pid"], server.pid());
    assert!(stats["date"].as_u64().is_some_and(|date| date > 1_700_000_000_000), "milliseconds");
    let id = stats["processUniqueId"].as_str().expect("text");
    assert!(id.ends_with(&format!("-{}", server.pid())), "{id}");
    assert_eq!(stats["channels"], 2, "private channels, each once");
    assert_eq!(stats["clusterMode"], false);
    assert_eq!((&stats["websockets"], &stats["pollings"]), (&1.into(), &1.into()));
    let requests: Vec<_> =
        stats["daily"]["requests"].as_object().expect("an object").iter().collect();
    assert_eq!(requests.len(), 3);
    for name in ["incomingMessages", "channelStats", "serverStats"] {
        assert!(stats["daily"]["requests"][name].is_u64(), "{name}");
    }
    assert!(stats["daily"]["messages"].is_object());
}

#[test]
fn q_149_q_150_messages_are_counted_by_type_and_text_as_unknown() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let to = || vec![receiver(pair.private.as_bytes(), true, &[])];
    for (kind, counted) in
        [("im_add", true), ("a-b*C_9", true), ("with space", false), (&"x".repeat(33), false)]
    {
        let mut sent = message(&to(), b"{}", 0);
        sent.extend(crate::requests::field(5, kind.as_bytes()));
        assert_eq!(ask(server.address(), &batch(&[publish(&[sent])])).status, 200);
        let messages = stat(&server)[0]["daily"]["messages"].clone();
        assert_eq!(messages[kind], if counted { 1.into() } else { Value::Null }, "{kind}");
    }
    raw::publish(server.address(), &pair.private.to_string(), 0, "{}");
    let messages = stat(&server)[0]["daily"]["messages"].clone();
    assert_eq!(messages["unknown"], 3, "{messages}");
}

#[test]
fn q_151_binary_requests_and_questions_are_counted_and_text_publishes_are_not() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let to = vec![receiver(pair.private.as_bytes(), true, &[])];
    ask(server.address(), &batch(&[publish(&[message(&to, b"{}", 0)])]));
    ask(server.address(), &batch(&[channel_stats(&to)]));
    raw::get(server.address(), &format!("/pub/?CHANNEL_ID={}", pair.private));
    raw::publish(server.address(), &pair.private.to_string(), 0, "{}");
    stat(&server);
    let requests = stat(&server)[0]["daily"]["requests"].clone();
    let expected = serde_json::json!({"incomingMessages": 1, "channelStats": 2, "serverStats": 2});
    assert_eq!(requests, expected);
}

#[test]
fn q_152_binary_statistics_are_the_same_json() {
    let server = TestServer::start();
    let binary = |answer: raw::Answer| -> Value {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let batch = fields(&answer.body);
        let [(1, Field::Bytes(response))] = &batch[..] else { panic!("{batch:?}") };
        let response = fields(response);
        let [(3, Field::Bytes(stats))] = &response[..] else { panic!("{response:?}") };
        let stats = fields(stats);
        let [(1, Field::Bytes(json))] = &stats[..] else { panic!("{stats:?}") };
        serde_json::from_slice(json).expect("JSON")
    };
    // The worked example of queue-server.md §4.4.
    assert_eq!(batch(&[server_stats()]), [0x0a, 0x02, 0x1a, 0x00]);
    let without_moment = |mut stats: Value| {
        stats[0]["date"].take();
        stats[0]["daily"]["requests"]["serverStats"].take();
        stats
    };
    let text = without_moment(stat(&server));
    let asked = binary(ask(server.address(), &batch(&[server_stats()])));
    assert_eq!(without_moment(asked), text);
    let got = binary(raw::get(server.address(), "/server-stat/?binaryMode=true"));
    assert_eq!(without_moment(got), text);
}

#[test]
fn q_153_limits_are_those_of_the_configuration() {
    let server = TestServer::with(&[
        "limits.max_payload=4KiB",
        "limits.connections_per_channel=7",
        "limits.messages_per_request=8",
        "limits.channels_per_request=9",
    ]);
    let text = raw::get(server.address(), "/server-stat/").text().to_owned();
    let expected = r#""limits":{"maxPayload":4096,"maxConnPerChannel":7,"maxMessagesPerRequest":8,"maxChannelsPerRequest":9}"#;
    assert!(text.contains(expected), "{text}");
}

/// Starts a server from a file of the original server with these extra members.
fn imported(hostname: &str, extra: &str) -> (std::process::Child, std::net::SocketAddr, Imported) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("push-server-sub-8010.json");
    // A port that was free a moment ago: the original knows no port 0.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let port = free.expect("bound").port();
    let text = format!(
        r#"{{"servers":[{{"port":{port},"hostname":"{hostname}","routes":{{"pub":"/bitrix/pub/","sub":"/bitrix/subws/","stat":"/server-stat/"}}}}],
            "security":{{"key":"{KEY}"}}{extra}}}"#
    );
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    command.arg("serve").arg("--config").arg(&file).arg("--data-dir").arg(folder.path().join("d"));
    let (child, address, log) = launch(command);
    (child, address.expect("it starts"), Imported { _folder: folder, log })
}

struct Imported {
    _folder: tempfile::TempDir,
    log: std::thread::JoinHandle<String>,
}

#[test]
fn q_153_q_191_w_038_limits_and_slips_of_an_imported_file() {
    let (mut child, address, import) = imported(
        "127.0.0.1",
        r#","limits":{"maxPayload":5000,"maxRequestsPerSecond":50,"own":[1]},"storage":{"messageTLL":5}"#,
    );
    let stats = raw::get(address, "/server-stat/").text().to_owned();
    let expected = r#""limits":{"maxPayload":5000,"maxConnPerChannel":100,"maxMessagesPerRequest":100,"maxChannelsPerRequest":100,"maxRequestsPerSecond":50,"own":[1]}"#;
    assert!(stats.contains(expected), "{stats}");
    child.kill().expect("it runs");
    wait_for(&mut child);
    let log = import.log.join().expect("the log is read");
    assert!(log.contains("WARN") && log.contains("messageTLL"), "{log}");
    assert!(log.contains("maxRequestsPerSecond"), "{log}");
}

#[test]
fn w_038_a_misspelt_option_stops_the_start_with_the_name_that_was_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vestnik.toml");
    std::fs::write(&file, "[history]\nmesage_ttl = \"1h\"\n").expect("a file");
    let failed = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .output()
        .expect("it is built");
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(said.contains("mesage_ttl") && said.contains("message_ttl"), "{said}");
}

#[test]
fn q_192_w_037_a_missing_log_folder_or_a_full_log_stops_nothing() {
    let (mut child, address, _import) =
        imported("127.0.0.1", r#","debug":{"folderName":"/nowhere/at/all"}"#);
    assert_eq!(raw::get(address, "/server-stat/").status, 200);
    child.kill().expect("it runs");
    wait_for(&mut child);
    // Every write to the log fails as on a full disk.
    let data = tempfile::tempdir().expect("a folder");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log=debug", "--data-dir"])
        .arg(data.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(full))
        .spawn()
        .expect("it is built");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            line.trim().strip_prefix("listening on http://")?.split(' ').next()?.parse().ok()
        })
        .expect("it starts");
    for _ in 0..3 {
        assert_eq!(raw::get(address, "/sub/?CHANNEL_ID=x").status, 400, "logged at debug");
        assert_eq!(raw::publish(address, "x", 0, "{}").status, 200, "logged at warn");
    }
    child.kill().expect("it runs");
    wait_for(&mut child);
}

#[test]
fn w_043_only_the_configured_address_is_listened_at() {
    let (mut child, address, _import) = imported("127.0.0.1", "");
    assert_eq!(raw::get(address, "/server-stat/").status, 200);
    // The whole of 127.0.0.0/8 is this machine: a socket on all interfaces would answer here.
    let other = std::net::SocketAddr::new("127.0.0.2".parse().expect("an address"), address.port());
    assert!(std::net::TcpStream::connect(other).is_err(), "nothing listens at other addresses");
    child.kill().expect("it runs");
    wait_for(&mut child);
}
