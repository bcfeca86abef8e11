//! Clusters of three masters whose slot moves, and that fail over.

use std::process::{Command, Stdio};

use super::server::{Program, Server};
use super::*;
use crate::engine::NodeFacts;

/// Three masters, and replicas of the one that has our slot.
struct Cluster {
    servers: Vec<Server>,
    slot: String,
}

fn text(answer: ::redis::Value) -> String {
    ::redis::from_redis_value(answer).unwrap()
}

impl Cluster {
    fn start(program: &Program) -> Self {
        let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let servers: Vec<Server> = (0..3).map(|_| Server::of(program, &more)).collect();
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(servers.iter().map(|it| format!("127.0.0.1:{}", it.port)))
            .args(["--cluster-yes"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let slot = servers[0].number(&["CLUSTER", "KEYSLOT", "{test}:"]).to_string();
        let cluster = Self { servers, slot };
        until("all agree who has the slot", || cluster.agreed().is_some());
        cluster
    }

    fn id(&self, at: usize) -> String {
        text(self.servers[at].ask(&["CLUSTER", "MYID"]).unwrap())
    }

    fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.servers[at].port)
    }

    /// Which server has our slot, in the eyes of one of them; `None` while it does not say.
    fn owner(&self, seen_by: usize) -> Option<usize> {
        let nodes = text(self.servers[seen_by].ask(&["CLUSTER", "NODES"]).ok()?);
        let slot: u64 = self.slot.parse().unwrap();
        let has_it = |line: &&str| {
            line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|it: u64| it <= slot)
                    && last.parse().is_ok_and(|it: u64| slot <= it)
            })
        };
        let line = nodes.lines().find(has_it)?;
        (0..self.servers.len()).find(|&at| line.contains(&format!("{}@", self.address(at))))
    }

    /// The owner, once all servers that run say the same.
    fn agreed(&self) -> Option<usize> {
        let all: Vec<_> = (0..self.servers.len())
            .filter(|&at| self.servers[at].ask(&["PING"]).is_ok())
            .map(|at| {
                let info = text(self.servers[at].ask(&["CLUSTER", "INFO"]).ok()?);
                self.owner(at).filter(|_| info.contains("cluster_state:ok"))
            })
            .collect();
        all.first().copied().flatten().filter(|it| all.iter().all(|other| *other == Some(*it)))
    }

    /// Adds a replica of a master.
    fn add_replica(&mut self, program: &Program, of: usize) -> usize {
        let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        self.servers.push(Server::of(program, &more));
        let at = self.servers.len() - 1;
        let (port, of) = (self.servers[of].port.to_string(), self.id(of));
        self.servers[at].ask(&["CLUSTER", "MEET", "127.0.0.1", &port]).unwrap();
        until("it knows its master", || {
            self.servers[at].ask(&["CLUSTER", "REPLICATE", &of]).is_ok()
        });
        until("it is in step", || self.follows(at));
        until("all know it", || {
            let id = self.id(at);
            let knows = |it: &Server| text(it.ask(&["CLUSTER", "NODES"]).unwrap()).contains(&id);
            self.servers.iter().all(knows)
        });
        at
    }

    fn follows(&self, at: usize) -> bool {
        let info = self.servers[at].ask(&["INFO", "replication"]);
        info.is_ok_and(|it| text(it).contains("master_link_status:up"))
    }

    /// Moves our slot key by key, as `redis-cli --cluster reshard` does.
    fn move_slot(&self, from: usize, to: usize) {
        let (source, target, slot) = (&self.servers[from], &self.servers[to], &*self.slot);
        target.ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.id(from)]).unwrap();
        source.ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.id(to)]).unwrap();
        let client = ::redis::Client::open(format!("redis://{}", self.address(from))).unwrap();
        let mut connection = client.get_connection().unwrap();
        until("all keys have moved", || {
            let mut question = ::redis::cmd("CLUSTER");
            question.arg("GETKEYSINSLOT").arg(slot).arg(100);
            let keys: Vec<Vec<u8>> = question.query(&mut connection).unwrap();
            if keys.is_empty() {
                return true;
            }
            let mut migrate = ::redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(target.port).arg("").arg(0).arg(5000).arg("KEYS");
            let _: ::redis::Value = migrate.arg(keys).query(&mut connection).unwrap();
            false
        });
        // The new owner first, as its makers say: else nobody has the slot for a moment.
        for server in [target, source].into_iter().chain(&self.servers) {
            // Replicas do not take it, and hear of it from the others.
            let _ = server.ask(&["CLUSTER", "SETSLOT", slot, "NODE", &self.id(to)]);
        }
        until("all agree where it is", || self.agreed() == Some(to));
    }

    fn options(&self) -> RedisOptions {
        let seeds = self.servers.iter().map(|it| Address::Tcp("127.0.0.1".into(), it.port));
        RedisOptions { access: access(Topology::Cluster(seeds.collect())), layout: own() }
    }

    /// How many listen for announcements at a server.
    fn listeners(&self, at: usize, question: &str) -> i64 {
        let answer = self.servers[at].ask(&["PUBSUB", question, "{test}:bus"]).unwrap();
        ::redis::from_redis_value::<(String, i64)>(answer).unwrap().1
    }
}

/// Two nodes that publish, and one that only listens.
struct Nodes {
    one: Bench,
    two: Bench,
    listener: Bench,
    said: usize,
}

impl Nodes {
    fn of(cluster: &Cluster) -> Self {
        let [one, two, listener] = [(); 3].map(|()| Bench::redis(limits(), cluster.options()));
        for bench in [&one, &two, &listener] {
            connected(bench);
        }
        Self { one, two, listener, said: 0 }
    }

    /// Both publish while something is done to the cluster, and a little longer; not more than is kept.
    fn publish_while(&mut self, deed: impl FnOnce()) {
        use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
        let (is_over, said) = (AtomicBool::new(false), AtomicUsize::new(self.said));
        std::thread::scope(|scope| {
            for bench in [&self.one, &self.two] {
                let (is_over, said) = (&is_over, &said);
                scope.spawn(move || {
                    let say = || {
                        let n = said.fetch_add(1, Ordering::SeqCst);
                        bench.say(&[private(1)], &n.to_string(), 600);
                    };
                    for _ in 0..200 {
                        if is_over.load(Ordering::SeqCst) {
                            break;
                        }
                        say();
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    until("it is done", || is_over.load(Ordering::SeqCst));
                    (0..20).for_each(|_| say());
                });
            }
            deed();
            is_over.store(true, Ordering::SeqCst);
        });
        self.said = said.into_inner();
    }

    /// Everybody has heard everything once, in one order, which is that of the history.
    fn assert_complete(&self) {
        let stored = bodies(&self.one.replay(&[private(1)], MessageId::ZERO).envelopes);
        let mut sorted: Vec<usize> = stored.iter().map(|it| it.parse().unwrap()).collect();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..self.said).collect::<Vec<_>>(), "stored once each");
        for bench in [&self.one, &self.two, &self.listener] {
            assert_eq!(hear(bench, self.said), stored);
        }
    }
}

#[test]
fn a_slot_that_moves_under_load_loses_no_announcement_whatever_the_cluster_is_made_of() {
    for program in Program::all() {
        let cluster = Cluster::start(&program);
        let mut nodes = Nodes::of(&cluster);
        let first = cluster.agreed().unwrap();
        let question = if program.is_old() { "NUMSUB" } else { "SHARDNUMSUB" };
        assert_eq!(cluster.listeners(first, question), 3, "{program:?}");
        for (from, to) in [(first, (first + 1) % 3), ((first + 1) % 3, (first + 2) % 3)] {
            nodes.publish_while(|| cluster.move_slot(from, to));
            if !program.is_old() {
                until("nobody listens where nothing is said", || {
                    cluster.listeners(from, question) == 0 && cluster.listeners(to, question) == 3
                });
            }
        }
        nodes.assert_complete();
        let calls = |name: &str| {
            let info = |it: &Server| text(it.ask(&["INFO", "commandstats"]).unwrap());
            cluster.servers.iter().any(|it| info(it).contains(&format!("cmdstat_{name}:")))
        };
        assert_eq!((calls("publish"), calls("spublish")), (program.is_old(), !program.is_old()));
    }
}

#[test]
fn a_slot_that_valkey_moves_as_one_step_loses_no_announcement() {
    for program in Program::others().into_iter().filter(Program::is_valkey) {
        let cluster = Cluster::start(&program);
        let mut nodes = Nodes::of(&cluster);
        let from = cluster.agreed().unwrap();
        let to = (from + 1) % 3;
        let (slot, target) = (&*cluster.slot, cluster.id(to));
        nodes.publish_while(|| {
            let order = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", &target];
            cluster.servers[from].ask(&order).unwrap();
            until("it has moved", || cluster.agreed() == Some(to));
        });
        nodes.assert_complete();
        until("they listen there", || cluster.listeners(to, "SHARDNUMSUB") == 3);
    }
}

#[test]
fn a_cluster_that_fails_over_by_order_and_by_death_loses_no_announcement() {
    let program = Program::installed();
    let mut cluster = Cluster::start(&program);
    let first = cluster.agreed().unwrap();
    let replica = cluster.add_replica(&program, first);
    let mut nodes = Nodes::of(&cluster);
    nodes.publish_while(|| {
        cluster.servers[replica].ask(&["CLUSTER", "FAILOVER"]).unwrap();
        until("the replica has taken over", || cluster.agreed() == Some(replica));
    });
    until("the old master follows", || cluster.follows(first));
    until("they listen at the new one", || cluster.listeners(replica, "SHARDNUMSUB") == 3);
    // Everything that was acknowledged has reached the replica, else a death may lose it.
    let offset = |at: usize| {
        let info = text(cluster.servers[at].ask(&["INFO", "replication"]).unwrap());
        let line = info.lines().find(|it| it.starts_with("master_repl_offset:")).unwrap();
        line.to_owned()
    };
    until("both have the same", || offset(replica) == offset(first));
    cluster.servers[replica].kill();
    nodes.publish_while(|| until("it is replaced", || cluster.agreed() == Some(first)));
    nodes.assert_complete();
}

#[test]
fn q_185_a_node_of_a_cluster_is_told_to_close_a_connection_of_a_crowded_channel() {
    let cluster = Cluster::start(&Program::installed());
    let nodes = Nodes::of(&cluster);
    let facts = || NodeFacts { connections_per_channel: 2, ..NodeFacts::default() };
    let [Engine::Redis(one), Engine::Redis(two)] = [&*nodes.one.engine, &*nodes.two.engine] else {
        unreachable!("both were made so")
    };
    one.tell(facts());
    two.tell(facts());
    for _ in 0..2 {
        nodes.one.announcer.count_in(private(1));
    }
    let slot_owner = cluster.agreed().unwrap();
    until("the others know", || {
        let keys = cluster.servers[slot_owner].ask(&["KEYS", "{test}:vestnik:online:*"]).unwrap();
        let keys: Vec<String> = ::redis::from_redis_value(keys).unwrap();
        let receiver = String::from_utf8(private(1).to_bytes().to_vec()).unwrap();
        keys.iter().any(|key| {
            cluster.servers[slot_owner]
                .ask(&["HGET", key, &receiver])
                .is_ok_and(|it| ::redis::from_redis_value::<Option<i64>>(it).unwrap() == Some(2))
        })
    });
    nodes.two.announcer.count_in(private(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let closed = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), one.too_many()).await });
    assert_eq!(closed.ok(), Some(private(1)));
}
