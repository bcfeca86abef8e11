//! What only this engine promises, against real servers that the tests start, pause and end.

mod cluster;
mod server;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use vestnik_core::ChannelId;
use vestnik_core::metric::Metric;

use super::super::contract::{Bench, bodies, draft, private, public, wait};
use super::super::{Engine, batch_of};
use super::*;
use server::free_port;
pub(in super::super) use server::{Program, Server};

pub(in super::super) fn own() -> Layout {
    Layout::Own("test".to_owned())
}

fn access(topology: Topology) -> Access {
    Access {
        topology,
        username: None,
        password: None,
        database: 0,
        tls: None,
        timeout: Duration::from_secs(2),
    }
}

fn limits() -> HistoryLimits {
    HistoryLimits::on_disk()
}

/// Waits for something that other threads do; a minute is more than any machine needs.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}

fn hear(bench: &Bench, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    until("messages arrive", || {
        heard.extend(bench.announced());
        heard.len() >= count
    });
    assert!(heard.is_sorted_by(|a, b| a.id < b.id), "in the order of ids");
    bodies(&heard)
}

fn connected(bench: &Bench) {
    until("it is connected", || bench.count(Metric::RedisConnected) == 1);
}

#[test]
fn q_154_q_163_keys_values_and_times_are_those_of_the_originals() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        let bench = Bench::redis(limits(), server.options(Layout::PushServer));
        let id = bench.say(&[private(1), public(2)], "{\"a\":1}", 60);
        let hex = |value: &[u8]| vestnik_core::receiver::hex(value);
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let key = [&b"message:"[..], &id.to_packed()].concat();
        let value: Vec<u8> = ::redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
        let created = u32::try_from(bench.clock.unix_s()).unwrap().to_le_bytes();
        let expected = format!("0a0d{id}12077b2261223a317d183c25{}", hex(&created));
        assert!(hex(&value).starts_with(&expected), "{}", hex(&value));
        let seconds: i64 = ::redis::cmd("TTL").arg(&key).query(&mut connection).unwrap();
        assert!((50..=60).contains(&seconds));
        for index in
            [[&b"channel:messages:"[..], &[1; 16]], [&b"pubchannel:messages:"[..], &[2; 16]]]
        {
            let index = index.concat();
            let members: Vec<Vec<u8>> =
                ::redis::cmd("ZRANGE").arg(&index).arg(0).arg(-1).query(&mut connection).unwrap();
            assert_eq!(members, [id.to_packed().to_vec()]);
            let seconds: i64 = ::redis::cmd("TTL").arg(&index).query(&mut connection).unwrap();
            assert!(seconds > 86_000);
        }
        assert_eq!(server.number(&["GET", "server:messagecounter"]), 1);
        assert_eq!(server.number(&["GET", "server:startdate"]).to_string(), id.epoch().to_string());

        // A process of the originals stores and announces (the bytes of queue-server.md §8.1).
        let packed = [0x17, 0x95, 0x48, 0x73, 0x20, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut stored = vec![0x0a, 0x0d];
        stored.extend(packed);
        stored.extend([0x12, 1, b'7', 0x18, 60, 0x25, 0xff, 0xff, 0xff, 0x7f, 0x2a, 2, 8, 2]);
        let key = [&b"message:"[..], &packed].concat();
        let _: () =
            ::redis::cmd("SETEX").arg(key).arg(60).arg(&stored).query(&mut connection).unwrap();
        let index = [&b"channel:messages:"[..], &[1; 16]].concat();
        let _: () =
            ::redis::cmd("ZADD").arg(index).arg(0).arg(&packed[..]).query(&mut connection).unwrap();
        let replay = bench.replay(&[private(1)], MessageId::ZERO);
        assert_eq!(bodies(&replay.envelopes), ["7", "{\"a\":1}"]);
    }
}

#[test]
fn q_156_q_160_announcements_cross_between_nodes_once_each() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        for layout in [Layout::PushServer, own()] {
            let [one, two] =
                [(); 2].map(|()| Bench::redis(limits(), server.options(layout.clone())));
            connected(&two);
            one.say(&[private(1)], "stored", 60);
            one.say(&[private(1)], "volatile", 0);
            two.say(&[private(1)], "back", 60);
            assert_eq!(hear(&one, 3), ["stored", "volatile", "back"], "own ones are not repeated");
            assert_eq!(hear(&two, 3), ["stored", "volatile", "back"]);
        }
    }
}

#[test]
fn q_176_two_nodes_that_publish_at_once_announce_in_the_order_of_ids() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        for layout in [Layout::PushServer, own()] {
            let [one, two] =
                [(); 2].map(|()| Bench::redis(limits(), server.options(layout.clone())));
            connected(&one);
            connected(&two);
            std::thread::scope(|scope| {
                for bench in [&one, &two] {
                    scope.spawn(move || {
                        for n in 0..300 {
                            bench.say(&[private(1)], &n.to_string(), 60);
                        }
                    });
                }
            });
            let stored = bodies(&one.replay(&[private(1)], MessageId::ZERO).envelopes);
            for bench in [&one, &two] {
                assert_eq!(hear(bench, 600), stored);
                assert_eq!(bench.count(Metric::RedisFailures), 0, "nothing was missing");
            }
        }
    }
}

#[test]
fn an_announcement_that_did_not_come_is_noticed_by_the_next_one_and_read() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        let [one, two] = [(); 2].map(|()| Bench::redis(limits(), server.options(own())));
        connected(&two);
        one.say(&[private(1)], "before", 60);
        hear(&two, 1);
        // Numbered and stored, not announced.
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let lost = MessageId::new(two.engine.last_id().epoch(), 2).to_packed();
        let (head, tail) = record::message_parts(&draft(&[private(1)], "lost", 60));
        let created = [&[0x25][..], &0x7fff_ffff_u32.to_le_bytes()].concat();
        let value = [&[0x0a, 0x0d][..], &lost, &head, &created, &tail].concat();
        let key = [&b"{test}:message:"[..], &lost].concat();
        let index = [&b"{test}:channel:messages:"[..], &[1; 16]].concat();
        let _: () = ::redis::pipe()
            .cmd("SETEX")
            .arg(key)
            .arg(60)
            .arg(value)
            .ignore()
            .cmd("ZADD")
            .arg(index)
            .arg(0)
            .arg(&lost[..])
            .ignore()
            .cmd("INCRBY")
            .arg("{test}:server:messagecounter")
            .arg(5)
            .ignore()
            .query(&mut connection)
            .unwrap();
        one.say(&[private(1)], "after", 60);
        assert_eq!(hear(&two, 2), ["lost", "after"]);
        until("it has looked", || two.count(Metric::RedisFailures) == 1);
        for n in 0..20 {
            one.say(&[private(n % 9 + 1)], "more", 60);
        }
        assert_eq!(hear(&two, 20).len(), 20);
        assert_eq!(two.count(Metric::RedisFailures), 1, "a hole that stays is looked at once");
    }
}

#[test]
fn q_155_q_157_q_160_an_announcement_of_an_original_is_delivered_and_rubbish_is_not() {
    let server = Server::start(&[]);
    let bench = Bench::redis(limits(), server.options(Layout::PushServer));
    connected(&bench);
    server.ask(&["PUBLISH", "pushserver:abc", "{\"id\":1}"]).unwrap();
    let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut recorded = vec![0x0a, 0x3c, 0x0a, 0x3a, 0x0a, 0x38, 0x0a, 0x14, 0x0a, 0x10];
    recorded.extend([3; 16]);
    recorded.extend([0x10, 1, 0x1a, 0x20, 0x0a, 0x0d, 0x29, 0x95, 0x48, 0x73, 0x20]);
    recorded.extend([0, 0, 0, 0, 0, 0, 0, 1, 0x12, 4, b'"', b'e', b'0', b'"', 0x18, 0]);
    recorded.extend([0x25, 0xc7, 0xf8, 0x04, 0x6b, 0x2a, 2, 8, 2]);
    let heard: i64 = ::redis::cmd("PUBLISH")
        .arg("pushserver:pn61ur6a")
        .arg(&recorded)
        .query(&mut connection)
        .unwrap();
    assert_eq!(heard, 1);
    assert_eq!(hear(&bench, 1), ["\"e0\""]);
}

#[test]
fn w_014_q_180_a_lost_counter_begins_a_new_epoch() {
    for program in Program::all() {
        let mut server = Server::of(&program, &[]);
        let bench = Bench::redis(limits(), server.options(own()));
        let before = bench.say(&[private(1)], "before", 60);
        server.kill();
        server.start_again();
        let after = bench.say(&[private(1)], "after", 60);
        assert!(after > before && after.epoch() > before.epoch(), "{before} {after}");
        let replay = bench.replay(&[private(1)], before);
        assert_eq!((bodies(&replay.envelopes), replay.gap), (vec!["after".to_owned()], true));
    }
}

#[test]
fn q_189_what_waits_while_redis_is_paused_is_published_once_and_others_miss_nothing() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        let [one, two] = [(); 2].map(|()| Bench::redis(limits(), server.options(own())));
        connected(&two);
        one.say(&[private(1)], "0", 60);
        hear(&one, 1);
        server.signal("-STOP");
        let tickets: Vec<_> = (1..=20)
            .map(|n| one.engine.submit(batch_of(draft(&[private(1)], &n.to_string(), 60))).unwrap())
            .collect();
        until("the pause is noticed", || one.count(Metric::RedisFailures) > 0);
        server.signal("-CONT");
        for ticket in tickets {
            wait(ticket).unwrap();
        }
        let expected: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
        assert_eq!(hear(&one, 20), expected);
        let all: Vec<String> = (0..=20).map(|n| n.to_string()).collect();
        assert_eq!(hear(&two, 21), all);
        let replay = one.replay(&[private(1)], MessageId::ZERO);
        assert_eq!(bodies(&replay.envelopes), all, "stored once each");
    }
}

#[test]
fn q_189_a_server_that_takes_no_writes_refuses_and_serves_again_when_it_does() {
    for program in Program::all() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("dump");
        std::fs::create_dir(&dump).unwrap();
        let path = dump.to_str().unwrap();
        let policy = ["--maxmemory-policy", "noeviction"];
        let server = Server::of(&program, &[&policy[..], &["--dir", path]].concat());
        let bench = Bench::redis(limits(), server.options(own()));
        let set = |name: &str, value: &str| server.ask(&["CONFIG", "SET", name, value]).unwrap();
        let fail_to_save = || {
            std::fs::remove_dir_all(&dump).unwrap();
            server.ask(&["BGSAVE"]).unwrap();
            until("a save fails", || {
                let info = server.ask(&["INFO", "persistence"]).unwrap();
                let info: String = redis::from_redis_value(info).unwrap();
                info.contains("rdb_last_bgsave_status:err")
            });
        };
        let cases = [
            ("OOM", ("maxmemory", "1"), ("maxmemory", "0")),
            ("NOREPLICAS", ("min-replicas-to-write", "1"), ("min-replicas-to-write", "0")),
            ("MISCONF", ("save", "3600 1"), ("stop-writes-on-bgsave-error", "no")),
        ];
        let mut expected = Vec::new();
        let mut say = |body: String| {
            bench.say(&[private(1)], &body, 60);
            expected.push(body);
        };
        for (refused, (code, begin, end)) in cases.into_iter().enumerate() {
            say(format!("before {code}"));
            set(begin.0, begin.1);
            if code == "MISCONF" {
                fail_to_save();
            }
            let answer = bench.publish(vec![draft(&[private(1)], code, 60)]);
            let Err(EngineError::Store(text)) = answer else { panic!("{code}: {answer:?}") };
            assert!(text.contains(code), "{text}");
            assert_eq!(bench.count(Metric::NotStored), refused as u64 + 1, "{code}");
            set(end.0, end.1);
            say(format!("after {code}"));
        }
        let kept = bench.replay(&[private(1)], MessageId::ZERO);
        assert_eq!(bodies(&kept.envelopes), expected);
    }
}

#[test]
fn w_036_users_passwords_databases_and_sockets_are_used() {
    for program in Program::all() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let server = Server::of(&program, &["--unixsocket", socket.to_str().unwrap()]);
        let rule = [
            "ACL",
            "SETUSER",
            "push",
            "on",
            ">secret",
            "~{test}:*",
            "resetchannels",
            "&{test}:*",
            "+@all",
        ];
        server.ask(&rule).unwrap();
        let mut options = server.options(own());
        options.access.topology = Topology::Standalone(Address::Unix(socket));
        options.access.username = Some("push".to_owned());
        options.access.password = Some(vestnik_core::Secret::new("secret".to_owned()));
        options.access.database = 3;
        let bench = Bench::redis(limits(), options);
        bench.say(&[private(1)], "x", 60);
        assert_eq!(server.number(&["DBSIZE"]), 0, "nothing in database 0");
    }
}

/// A certificate for 127.0.0.1 that is its own authority, and its key, as files of a folder.
fn certificate(folder: &std::path::Path) -> (String, String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pem = made.cert.pem();
    let key = write("key.pem", made.signing_key.serialize_pem());
    (write("cert.pem", pem.clone()), key, pem.into_bytes())
}

#[test]
fn w_036_an_encrypted_server_with_users_and_a_database_is_used_and_a_foreign_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key, authority) = certificate(folder.path());
    let port = free_port();
    let server = Server::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &file,
        "--tls-auth-clients",
        "no",
    ]);
    // The rules of docs/redis.md, to the letter.
    let rules = "~{test}:* &{test}:* +@all -@dangerous +role";
    let rule = ["ACL", "SETUSER", "push", "on", ">secret"];
    server.ask(&rule.into_iter().chain(rules.split(' ')).collect::<Vec<_>>()).unwrap();
    let options = |authorities: Option<Vec<u8>>, password: &str| {
        let mut options = server.options(own());
        options.access.topology = Topology::Standalone(Address::Tcp("127.0.0.1".into(), port));
        options.access.tls = Some(RedisTls { authorities });
        options.access.username = Some("push".to_owned());
        options.access.password = Some(vestnik_core::Secret::new(password.to_owned()));
        options.access.database = 5;
        options
    };
    let [one, two] =
        [(); 2].map(|()| Bench::redis(limits(), options(Some(authority.clone()), "secret")));
    connected(&two);
    one.say(&[private(1)], "stored", 60);
    one.say(&[private(1)], "volatile", 0);
    assert_eq!(hear(&two, 2), ["stored", "volatile"]);
    assert_eq!(bodies(&two.replay(&[private(1)], MessageId::ZERO).envelopes), ["stored"]);
    assert_eq!(server.number(&["DBSIZE"]), 0, "nothing in database 0");
    let list = || server.ask(&["ACL", "LOG"]).unwrap();
    assert!(matches!(list(), ::redis::Value::Array(it) if it.is_empty()), "nothing was refused");
    let other = tempfile::tempdir().unwrap();
    let (_, _, foreign) = certificate(other.path());
    for (authorities, password) in
        [(Some(foreign), "secret"), (None, "secret"), (Some(authority.clone()), "wrong")]
    {
        let refused = Bench::redis_unconnected(limits(), options(authorities, password));
        until("it gives up", || refused.count(Metric::RedisFailures) > 1);
        assert!(!refused.engine.is_reachable());
    }
}

#[test]
fn q_161_a_storm_of_connections_is_few_calls_and_ends_with_the_truth() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        let bench = Bench::redis(limits(), server.options(own()));
        connected(&bench);
        let lists = || match server.ask(&["KEYS", "{test}:vestnik:online:*"]).unwrap() {
            ::redis::Value::Array(keys) => keys,
            other => panic!("{other:?}"),
        };
        until("a list is begun", || lists().len() == 1);
        let key: String = ::redis::from_redis_value(lists().remove(0)).unwrap();
        // What every bench listens to, and the name of the node.
        until("it is complete", || server.number(&["HLEN", &key]) == 19);
        let calls = || {
            let info = server.ask(&["INFO", "commandstats"]).unwrap();
            let info: String = ::redis::from_redis_value(info).unwrap();
            let calls = info.split("cmdstat_evalsha:calls=").nth(1).unwrap();
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        let before = calls();
        let shard = bench.announcer.shards().next().unwrap();
        let channel = |number: u32| {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            Receiver::Private(ChannelId::from_bytes(bytes))
        };
        for round in 0..5 {
            for number in 0..4000 {
                bench.announcer.listen(shard, channel(number));
                if round < 4 || number % 2 == 0 {
                    bench.announcer.leave(shard, channel(number), 0);
                }
            }
        }
        until("half of them is there", || server.number(&["HLEN", &key]) == 19 + 2000);
        let calls = calls() - before;
        assert!(calls < 20_000 / 20, "20,000 connections, {calls} calls");
        bench.engine.close();
        assert_eq!(server.number(&["EXISTS", &key]), 0, "nobody is left who might come back");
    }
}

#[test]
fn q_155_q_160_an_announcement_is_to_the_byte_what_the_originals_expect() {
    let server = Server::start(&[]);
    let bench = Bench::redis(limits(), server.options(Layout::PushServer));
    connected(&bench);
    let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut heard = connection.as_pubsub();
    heard.psubscribe("pushserver:*").unwrap();
    let id = bench.say(&[private(3)], "\"e0\"", 0);
    let announced = heard.get_message().unwrap();
    assert!(!announced.get_channel_name()["pushserver:".len()..].contains(':'));
    let created = u32::try_from(bench.clock.unix_s()).unwrap().to_le_bytes();
    // The recording of queue-server.md §8.1 with this receiver, id and time.
    let expected = format!(
        "0a3c0a3a0a380a140a10{}10011a200a0d{id}120422653022180025{}2a020802",
        "03".repeat(16),
        vestnik_core::receiver::hex(&created)
    );
    let seen = record::as_originals_see_it(announced.get_payload_bytes());
    assert_eq!(vestnik_core::receiver::hex(&seen), expected);
}

#[test]
fn w_012_an_index_sheds_what_expired_and_keeps_the_newest() {
    for program in Program::all() {
        let server = Server::of(&program, &[]);
        let bench = Bench::redis(limits(), server.options(own()));
        for n in 0..10 {
            bench.say(&[private(1)], &n.to_string(), 1);
        }
        let index = |id: ChannelId| [&b"{test}:channel:messages:"[..], id.as_bytes()].concat();
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut length = || -> i64 {
            let index = index(ChannelId::from_bytes([1; 16]));
            ::redis::cmd("ZCARD").arg(index).query(&mut connection).unwrap()
        };
        assert_eq!(length(), 10);
        until("they expire", || {
            bench.say(&[private(2)], "tick", 0);
            server.number(&["DBSIZE"]) <= 8
        });
        for _ in 0..5 {
            bench.say(&[private(1)], "new", 60);
        }
        assert_eq!(length(), 5);
    }
}

/// A group of a master, a replica and three sentinels.
struct Watched {
    master: Server,
    replica: Server,
    sentinels: Vec<(Child, u16, tempfile::TempDir)>,
}

impl Watched {
    fn start() -> Self {
        let master = Server::start(&[]);
        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
        let sentinels = (0..3)
            .map(|_| {
                let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
                let file = folder.path().join("sentinel.conf");
                let text = format!(
                    "port {port}\nbind 127.0.0.1\nsentinel monitor group 127.0.0.1 {} 2\n\
                     sentinel down-after-milliseconds group 1000\n\
                     sentinel failover-timeout group 5000\n",
                    master.port
                );
                std::fs::write(&file, text).unwrap();
                let child = Command::new("redis-sentinel")
                    .arg(&file)
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("redis-sentinel is installed: ./test installs it");
                (child, port, folder)
            })
            .collect();
        until("the replica is in step", || {
            replica.ask(&["INFO", "replication"]).is_ok_and(|it| {
                ::redis::from_redis_value::<String>(it).unwrap().contains("master_link_status:up")
            })
        });
        Self { master, replica, sentinels }
    }

    fn knows(&self) -> bool {
        self.sentinels.iter().all(|(_, port, _)| {
            let client = ::redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let Ok(mut connection) = client.get_connection() else { return false };
            let info: Result<String, _> =
                ::redis::cmd("INFO").arg("sentinel").query(&mut connection);
            info.is_ok_and(|it| it.contains("slaves=1,sentinels=3"))
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (child, _, _) in &mut self.sentinels {
            // It may be gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn q_189_a_fail_over_of_sentinel_loses_and_doubles_nothing_that_was_acknowledged() {
    let mut group = Watched::start();
    until("the sentinels know each other", || group.knows());
    let sentinels = group.sentinels.iter();
    let sentinels = sentinels.map(|(_, port, _)| Address::Tcp("127.0.0.1".into(), *port)).collect();
    let master = "group".to_owned();
    let topology = Topology::Sentinel { sentinels, master, password: None };
    let options = RedisOptions { access: access(topology), layout: own() };
    let [one, two] = [(); 2].map(|()| Bench::redis(limits(), options.clone()));
    connected(&two);
    for n in 0..20 {
        one.say(&[private(1)], &n.to_string(), 600);
    }
    until("the replica has them", || {
        group.replica.number(&["ZCARD", "{test}:channel:messages:\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}"]) == 20
    });
    group.master.kill();
    for n in 20..40 {
        one.say(&[private(1)], &n.to_string(), 600);
    }
    let all: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(hear(&one, 40), all);
    assert_eq!(hear(&two, 40), all);
    assert_eq!(bodies(&two.replay(&[private(1)], MessageId::ZERO).envelopes), all);
}

#[test]
fn an_engine_without_a_server_starts_refuses_in_time_and_can_be_closed() {
    let options = RedisOptions {
        access: access(Topology::Standalone(Address::Tcp("127.0.0.1".into(), free_port()))),
        layout: own(),
    };
    let bench = Bench::redis_unconnected(limits(), options);
    assert!(!bench.engine.is_reachable());
    let ticket = bench.engine.submit(batch_of(draft(&[private(1)], "x", 60))).unwrap();
    assert!(bench.engine.history(&[private(1)], MessageId::ZERO, usize::MAX).read().is_err());
    bench.engine.close();
    let late = bench.engine.submit(batch_of(draft(&[private(1)], "late", 60)));
    assert!(matches!(late, Err(EngineError::Closed)));
    assert!(matches!(wait(ticket), Err(EngineError::Closed)));
    assert!(matches!(&*bench.engine, Engine::Redis(_)));
}

/// A way to a server that can be closed while the server goes on.
struct Gate {
    port: u16,
    is_open: Arc<std::sync::atomic::AtomicBool>,
    streams: Arc<Mutex<Vec<std::net::TcpStream>>>,
}

impl Gate {
    fn before(server: &Server) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        let is_open = Arc::new(AtomicBool::new(true));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (open, kept) = (Arc::clone(&is_open), Arc::clone(&streams));
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = std::net::TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (mut from, mut to) in [(&client, &server), (&server, &client)]
                    .map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    kept.lock().unwrap().push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // It ends when either side does.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port, is_open, streams }
    }

    fn set(&self, is_open: bool) {
        self.is_open.store(is_open, std::sync::atomic::Ordering::SeqCst);
        if !is_open {
            for stream in self.streams.lock().unwrap().drain(..) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn options(&self, server: &Server) -> RedisOptions {
        let mut options = server.options(own());
        let address = Address::Tcp("127.0.0.1".to_owned(), self.port);
        options.access.topology = Topology::Standalone(address);
        options
    }
}

#[test]
fn what_was_missed_in_a_long_break_is_read_in_portions_and_all_of_it_arrives_in_order() {
    let server = Server::start(&[]);
    let gate = Gate::before(&server);
    let here = Bench::redis(limits(), server.options(own()));
    let away = Bench::redis(limits(), gate.options(&server));
    connected(&away);
    here.say(&[private(1)], "before", 600);
    hear(&away, 1);
    gate.set(false);
    until("the break is noticed", || away.count(Metric::RedisFailures) > 0);
    let waiting = away.engine.submit(batch_of(draft(&[private(1)], "mine", 600))).unwrap();
    // More than fits into one portion of 64 messages of a receiver, of 1 MiB, or into what is gathered
    // before it is announced: 36 MB.
    let all: Vec<String> = (0..900).map(|n| format!("{n}-{}", "x".repeat(40_000))).collect();
    for (n, body) in all.iter().enumerate() {
        let to = [private(1), public(u8::try_from(n % 7).unwrap() + 1)];
        here.say(&to, body, if n % 5 == 0 { 0 } else { 600 });
    }
    gate.set(true);
    let stored: Vec<_> =
        all.iter().enumerate().filter(|(n, _)| n % 5 != 0).map(|it| it.1).collect();
    let heard = hear(&away, stored.len() + 1);
    assert!(heard.iter().zip(stored).all(|(heard, stored)| heard == stored), "in order, once each");
    assert_eq!(heard.last().map(String::as_str), Some("mine"));
    wait(waiting).unwrap();
}

#[test]
fn q_189_a_server_that_comes_back_and_takes_no_writes_is_read_and_refuses_what_was_in_flight() {
    for program in Program::all() {
        let mut server = Server::of(&program, &["--maxmemory-policy", "noeviction"]);
        let gate = Gate::before(&server);
        let bench = Bench::redis(limits(), gate.options(&server));
        bench.say(&[private(1)], "before", 60);
        server.signal("-STOP");
        let sent = bench.engine.submit(batch_of(draft(&[private(1)], "lost", 60))).unwrap();
        until("the pause is noticed", || bench.count(Metric::RedisFailures) > 0);
        gate.set(false);
        server.kill();
        server.start_again();
        server.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        gate.set(true);
        let Err(EngineError::Store(error)) = wait(sent) else { panic!("it was not refused") };
        assert!(error.to_string().contains("OOM"), "{error}");
        connected(&bench);
        assert!(bench.replay(&[private(1)], MessageId::ZERO).envelopes.is_empty());
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        bench.say(&[private(1)], "after", 60);
        let kept = bench.replay(&[private(1)], MessageId::ZERO);
        assert_eq!(bodies(&kept.envelopes), ["after"]);
    }
}
