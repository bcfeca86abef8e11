//! Users as receivers under `kill -9`: who comes back with its position gets everything that was
//! acknowledged, once each and in order. A few kills run with every test, `SLOW=1` makes it 100.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error as SocketError, Message};

use crate::chaos::open_socket;
use crate::clients::slow;
use crate::generation5::{HOST, api_request, api_target, event, publish, token};
use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;

const LAST: u64 = u64::MAX >> 12;

struct Stage {
    address: SocketAddr,
    acknowledged: Mutex<Vec<u64>>,
    is_over: AtomicBool,
}

/// The site, which publishes to user 7 in both ways, single and in batches, and never twice.
fn publish_all(stage: &Stage) {
    let private = Pair::new(7).private.to_string();
    let mut next = 0;
    while !stage.is_over.load(Ordering::Relaxed) {
        let numbers: Vec<_> = (next..next + 1 + next % 3).collect();
        next += numbers.len() as u64;
        let call = |n: &u64| {
            let params = match n % 2 {
                0 => json!({"userList": [7], "channelList": [private], "body": event(*n)}),
                _ => json!({"userList": [7], "body": event(*n), "user_params": {"7": {"mine": n}}}),
            };
            json!({"jsonrpc": "2.0", "method": "publish", "params": params})
        };
        let body = Value::from(numbers.iter().map(call).collect::<Vec<_>>()).to_string();
        let request = api_request(&api_target(HOST, &body), body.as_bytes());
        let attempt = || {
            let mut connection = Connection::try_open(stage.address)?;
            std::io::Write::write_all(connection.stream(), &request)?;
            connection.try_answer()
        };
        if attempt().is_ok_and(|answer| answer.status == 200) {
            stage.acknowledged.lock().expect("no thread panicked").extend(numbers);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A tab of user 7 over all its connections: the numbers it heard, and their ids.
fn listen(stage: &Stage) -> Vec<(u64, String)> {
    let mut heard: Vec<(u64, String)> = Vec::new();
    let mut position = "0".repeat(26);
    let until = Instant::now() + raw::WAIT;
    while Instant::now() < until {
        let query = format!("token={}&jsonRpc=true&mid={position}&revision=19", token(7, &[]));
        let Ok(mut socket) = open_socket(stage.address, &query) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        loop {
            let text = match socket.read() {
                Ok(Message::Text(text)) if text == "ping" => continue,
                Ok(Message::Text(text)) => text,
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Err(SocketError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        return heard;
                    }
                    continue;
                }
                Ok(_) | Err(_) => break,
            };
            let packets = match serde_json::from_str(&text).expect("JSON") {
                Value::Array(packets) => packets,
                packet => vec![packet],
            };
            for packet in packets {
                let params = &packet["params"];
                let n = params["body"]["params"]["n"].as_u64().expect("a numbered event");
                if n % 2 == 1 && n != LAST {
                    assert_eq!(params["body"]["params"]["mine"], n);
                }
                position = params["mid"].as_str().expect("an id").to_owned();
                heard.push((n, position.clone()));
                if n == LAST {
                    return heard;
                }
            }
        }
    }
    heard
}

fn story(settings: &[&str]) {
    let server = TestServer::with(settings);
    let stage = Stage {
        address: server.address(),
        acknowledged: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    let heard = std::thread::scope(|scope| {
        let mut server = Some(server);
        let publisher = scope.spawn(|| publish_all(&stage));
        let tabs: Vec<_> = (0..3).map(|_| scope.spawn(|| listen(&stage))).collect();
        let kills = if slow() { 100 } else { 6 };
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(100 + 40 * (kill % 6)));
            server = server.take().map(TestServer::crash_and_restart);
        }
        std::thread::sleep(Duration::from_millis(100));
        stage.is_over.store(true, Ordering::Relaxed);
        publisher.join().expect("it ends");
        publish(stage.address, &json!({"userList": [7], "body": event(LAST)}));
        tabs.into_iter().map(|tab| tab.join().expect("it ends")).collect::<Vec<_>>()
    });
    let acknowledged = stage.acknowledged.into_inner().expect("no thread panicked");
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    for heard in heard {
        assert!(heard.windows(2).all(|pair| pair[0].1 < pair[1].1), "in the order of ids");
        assert!(heard.windows(2).all(|pair| pair[0].0 < pair[1].0), "once each");
        let heard: HashSet<u64> = heard.iter().map(|(number, _)| *number).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|n| !heard.contains(n)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}

#[test]
fn j_113_nothing_acknowledged_is_lost_doubled_or_swapped_by_kills() {
    story(&["history.messages_per_channel=100000", "history.replay_messages=100000"]);
}
