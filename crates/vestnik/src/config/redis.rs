//! The section `redis`: where it is, and how its keys are called.

use std::time::Duration;

use vestnik_core::Secret;
use vestnik_hub::engine::{Access, Address, Layout, RedisOptions, RedisTls, Topology};

use super::{Build, Rank};

impl Build<'_> {
    /// What the engine is told; problems are told only if it is the one in use.
    pub(super) fn redis(&mut self) -> RedisOptions {
        let is_used = self.layers.text("history.engine") == "redis";
        let before = self.problems.len();
        let options = self.redis_options();
        if !is_used && self.layers.rank("redis.address") == Rank::Default {
            self.problems.truncate(before);
        }
        options
    }

    fn redis_options(&mut self) -> RedisOptions {
        let layers = self.layers;
        let mut addresses = Vec::new();
        for written in layers.text("redis.address").split(',').map(str::trim) {
            match address(written) {
                Some(address) => addresses.push(address),
                None => self.problem(
                    "redis.address",
                    format!("must be `host:port` or `unix:/path`, got `{written}`"),
                ),
            }
        }
        let topology = match (layers.text("redis.topology"), &addresses[..]) {
            ("sentinel", _) => Topology::Sentinel {
                sentinels: addresses,
                master: layers.text("redis.master").to_owned(),
                password: secret(layers.text("redis.sentinel_password")),
            },
            ("cluster", _) => Topology::Cluster(addresses),
            (_, [one]) => Topology::Standalone(one.clone()),
            (_, several) => {
                if !several.is_empty() {
                    let text =
                        "names several servers; set `redis.topology` to `sentinel` or `cluster`";
                    self.problem("redis.address", text);
                }
                Topology::Standalone(Address::Tcp("127.0.0.1".to_owned(), 6379))
            }
        };
        let prefix = layers.text("redis.prefix");
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"_-.:".contains(&it);
        if !(1..=64).contains(&prefix.len()) || !prefix.bytes().all(plain) {
            self.problem("redis.prefix", "must be 1 to 64 of A-Z a-z 0-9 _ - . :");
        }
        let is_cluster = matches!(topology, Topology::Cluster(_));
        let layout = if layers.text("redis.layout") == "push-server" {
            Layout::PushServer
        } else {
            Layout::Own(prefix.to_owned())
        };
        if is_cluster && layout == Layout::PushServer {
            self.problem(
                "redis.layout",
                "`push-server` spreads its keys over all slots, which a cluster cannot change in one step; use `own`",
            );
        }
        let database = u32::try_from(layers.amount("redis.database")).unwrap_or(0);
        if is_cluster && database != 0 {
            self.problem("redis.database", "a cluster has only the database 0");
        }
        let username = layers.text("redis.username");
        let access = Access {
            topology,
            username: (!username.is_empty()).then(|| username.to_owned()),
            password: secret(layers.text("redis.password")),
            database,
            tls: self.redis_tls(),
            timeout: layers.time("redis.timeout").max(Duration::from_millis(100)),
        };
        RedisOptions { access, layout }
    }

    fn redis_tls(&mut self) -> Option<RedisTls> {
        let file = self.layers.text("redis.tls_authorities").to_owned();
        if !self.layers.flag("redis.tls") {
            return None;
        }
        if file.is_empty() {
            return Some(RedisTls::default());
        }
        match std::fs::read(&file) {
            Ok(authorities) => return Some(RedisTls { authorities: Some(authorities) }),
            Err(error) => {
                self.problem("redis.tls_authorities", format!("cannot be read: {error}"));
            }
        }
        Some(RedisTls::default())
    }
}

fn secret(text: &str) -> Option<Secret<String>> {
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

fn address(written: &str) -> Option<Address> {
    if let Some(path) = written.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Address::Unix(path.into()));
    }
    let (host, port) = written.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| Address::Tcp(host.to_owned(), port))
}
