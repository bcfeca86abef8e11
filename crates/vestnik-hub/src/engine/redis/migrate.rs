//! Copies a history from one layout to the other, on the same server.
//!
//! What is there already is left alone, so a copy may be broken off and made again. The numbering of the
//! target is raised first: whatever is published there meanwhile comes after everything that is copied.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use vestnik_core::MessageId;

use super::roster::{STATS, STATS_S};
use super::{Access, Layout, Topology};

/// Keys that are looked at together.
const PAGE: usize = 500;
/// Messages that are read together: each may have a megabyte.
const MESSAGES: usize = 50;
/// Entries of an index that are read together.
const ENTRIES: usize = 1000;
/// Numbers (of the 16 digits) by which the target is ahead while both layouts publish: a number must not
/// be given in both.
const AHEAD: u64 = 1_000_000_000_000;

/// What is copied, and how.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The way to the server.
    pub access: Access,
    /// Where the history is.
    pub from: Layout,
    /// Where it is to be.
    pub to: Layout,
    /// Count only, change nothing.
    pub is_dry: bool,
    /// Copy although nodes run: what they publish into the old layout behind the copy's back needs
    /// another one.
    pub while_running: bool,
}

/// How far a copy is, and at its end what was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Keys of the server, all together; they may come and go meanwhile.
    pub keys: u64,
    /// Keys that were looked at.
    pub seen: u64,
    /// Messages copied.
    pub messages: u64,
    /// Messages that were there already.
    pub present: u64,
    /// Channels and users whose list of messages was copied.
    pub receivers: u64,
    /// Users whose time of last seen was copied.
    pub users: u64,
}

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nodes run.
    #[error("{} still run on this Redis: {}", count(.0), .0.join(", "))]
    Running(Vec<String>),
    /// Source and target are the same, or cannot be on one server.
    #[error("{0}")]
    Impossible(&'static str),
    /// Redis failed.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
}

fn count(names: &[String]) -> String {
    if names.len() == 1 { "a node".to_owned() } else { format!("{} nodes", names.len()) }
}

/// A copy that is under way.
struct Copy<'a> {
    connection: MultiplexedConnection,
    from: String,
    to: String,
    is_dry: bool,
    ahead: u64,
    done: Migrated,
    progress: &'a mut dyn FnMut(&Migrated),
}

/// Kinds of keys that are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Index,
    Cut,
    Seen,
}

impl Kind {
    /// The kind of a key, whose base was taken off.
    fn of(name: &[u8]) -> Option<Self> {
        let kinds: [(&[u8], Self); 6] = [
            (b"message:", Self::Message),
            (b"channel:messages:", Self::Index),
            (b"pubchannel:messages:", Self::Index),
            (b"vestnik:messages:", Self::Index),
            (b"vestnik:cut:", Self::Cut),
            (b"vestnik:seen:", Self::Seen),
        ];
        kinds.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| kind)
    }
}

impl Migration {
    /// Copies; tells `progress` from time to time how far it is. May be broken off at any time, and done
    /// again.
    ///
    /// # Errors
    /// `Running` and `Impossible`: nothing was changed. `Redis`: a part may be copied.
    pub async fn run(&self, progress: &mut dyn FnMut(&Migrated)) -> Result<Migrated, MigrateError> {
        if self.from == self.to {
            return Err(MigrateError::Impossible("both layouts are the same"));
        }
        if matches!(self.access.topology, Topology::Cluster(_)) {
            return Err(MigrateError::Impossible(
                "the layout `push-server` cannot be in a cluster, so there is nothing to copy there",
            ));
        }
        let (connection, _pushes) = self.access.connect(&self.from.counter()).await?;
        let mut copy = Copy {
            connection,
            from: self.from.base(),
            to: self.to.base(),
            is_dry: self.is_dry,
            ahead: if self.while_running { AHEAD } else { 0 },
            done: Migrated::default(),
            progress,
        };
        if !self.while_running {
            let running = copy.running().await?;
            if !running.is_empty() {
                return Err(MigrateError::Running(running));
            }
        }
        copy.raise_numbering().await?;
        copy.walk().await?;
        Ok(copy.done)
    }
}

impl Copy<'_> {
    async fn ask<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        command.query_async(&mut self.connection).await
    }

    /// Names of the nodes of either layout that gave a sign of life lately.
    async fn running(&mut self) -> Result<Vec<String>, RedisError> {
        let mut names = Vec::new();
        for base in [self.from.clone(), self.to.clone()] {
            let mut command = redis::cmd("EVAL");
            command.arg(STATS).arg(1).arg(format!("{base}stats")).arg(base).arg(STATS_S).arg(0);
            let found: Vec<(String, String)> = self.ask(&command).await?;
            names.extend(found.into_iter().map(|(name, _)| name));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn newest(&mut self, base: &str) -> Result<MessageId, RedisError> {
        let mut command = redis::cmd("MGET");
        command.arg(format!("{base}server:startdate")).arg(format!("{base}server:messagecounter"));
        let (epoch, seq): (Option<u64>, Option<u64>) = self.ask(&command).await?;
        Ok(MessageId::new(epoch.unwrap_or(0), seq.unwrap_or(0)))
    }

    async fn raise_numbering(&mut self) -> Result<(), RedisError> {
        let (from, to) = (self.from.clone(), self.to.clone());
        let (newest, there) = (self.newest(&from).await?, self.newest(&to).await?);
        // A later copy finds the lead of the first one a little smaller: that is still enough.
        let least = MessageId::new(newest.epoch(), newest.seq().saturating_add(self.ahead / 2));
        if self.is_dry || newest == MessageId::ZERO || least <= there {
            return Ok(());
        }
        let newest = MessageId::new(newest.epoch(), newest.seq().saturating_add(self.ahead));
        let mut command = redis::cmd("MSET");
        command.arg(format!("{to}server:startdate")).arg(newest.epoch());
        command.arg(format!("{to}server:messagecounter")).arg(newest.seq());
        self.ask(&command).await
    }

    async fn walk(&mut self) -> Result<(), RedisError> {
        self.done.keys = self.ask(&redis::cmd("DBSIZE")).await?;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("COUNT").arg(PAGE);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.ask(&scan).await?;
            self.done.seen += keys.len() as u64;
            let names = keys.iter().filter_map(|key| key.strip_prefix(self.from.as_bytes()));
            let found: Vec<(Vec<u8>, Kind)> =
                names.filter_map(|name| Some((name.to_vec(), Kind::of(name)?))).collect();
            let texts: Vec<_> = (found.iter())
                .filter(|(_, kind)| matches!(kind, Kind::Message | Kind::Cut))
                .collect();
            for some in texts.chunks(MESSAGES) {
                self.copy_texts(some).await?;
            }
            for (name, kind) in found.iter().filter(|it| matches!(it.1, Kind::Index | Kind::Seen)) {
                self.copy_set(name, *kind).await?;
            }
            (self.progress)(&self.done);
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn copy_texts(&mut self, names: &[&(Vec<u8>, Kind)]) -> Result<(), RedisError> {
        let key = |base: &str, name: &[u8]| [base.as_bytes(), name].concat();
        let mut read = redis::pipe();
        for (name, _) in names {
            read.cmd("PTTL").arg(key(&self.from, name));
            read.cmd(if self.is_dry { "STRLEN" } else { "GET" }).arg(key(&self.from, name));
            read.cmd("EXISTS").arg(key(&self.to, name));
        }
        let values: Vec<redis::Value> = read.query_async(&mut self.connection).await?;
        let mut write = redis::pipe();
        for ((name, kind), value) in names.iter().zip(values.chunks(3)) {
            let [ttl_ms, body, is_present] = value else { continue };
            let ttl_ms: i64 = redis::from_redis_value_ref(ttl_ms)?;
            // It expired since it was found; or it would be kept for ever, which no message is.
            if ttl_ms <= 0 {
                continue;
            }
            let is_present: u8 = redis::from_redis_value_ref(is_present)?;
            if *kind == Kind::Message {
                let count =
                    if is_present == 1 { &mut self.done.present } else { &mut self.done.messages };
                *count += 1;
            }
            if !self.is_dry && is_present == 0 {
                let body: Vec<u8> = redis::from_redis_value_ref(body)?;
                write.cmd("SET").arg(key(&self.to, name)).arg(body);
                write.arg("PX").arg(ttl_ms).arg("NX").ignore();
            }
        }
        // The library calls an empty one an error.
        if write.is_empty() { Ok(()) } else { write.exec_async(&mut self.connection).await }
    }

    /// Copies the entries of a set, and lets it live at least as long as the original.
    async fn copy_set(&mut self, name: &[u8], kind: Kind) -> Result<(), RedisError> {
        let [from, to] = [&self.from, &self.to].map(|base| [base.as_bytes(), name].concat());
        let mut first = 0;
        loop {
            let mut range = redis::cmd("ZRANGE");
            range.arg(&from).arg(first).arg(first + ENTRIES - 1).arg("WITHSCORES");
            let entries: Vec<(Vec<u8>, f64)> = self.ask(&range).await?;
            if kind == Kind::Seen {
                self.done.users += entries.len() as u64;
            }
            let count = entries.len();
            if count > 0 && !self.is_dry {
                let mut add = redis::cmd("ZADD");
                // Times of last seen that the target knows already may be newer: they are kept.
                add.arg(&to).arg("NX");
                for (entry, score) in entries {
                    add.arg(score).arg(entry);
                }
                self.ask::<u64>(&add).await?;
            }
            first += count;
            if count < ENTRIES {
                break;
            }
        }
        if kind == Kind::Index && first > 0 {
            self.done.receivers += 1;
        }
        if self.is_dry {
            return Ok(());
        }
        if let Some(site) = name.strip_prefix(b"vestnik:seen:") {
            let mut sites = redis::cmd("SADD");
            sites.arg(format!("{}vestnik:sites", self.to)).arg(site);
            self.ask::<u64>(&sites).await?;
        }
        let mut lives = redis::pipe();
        lives.cmd("PTTL").arg(&from).cmd("PTTL").arg(&to);
        let (here, there): (i64, i64) = lives.query_async(&mut self.connection).await?;
        if here > there {
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&to).arg(here);
            self.ask::<u64>(&expire).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Server, own};
    use super::*;
    use crate::engine::HistoryLimits;
    use crate::engine::contract::{Bench, bodies, private};

    #[test]
    fn both_layouts_publish_between_two_copies_and_every_channel_has_its_own_messages() {
        let server = Server::start(&[]);
        let bench = |layout| Bench::redis(HistoryLimits::on_disk(), server.options(layout));
        let old = bench(Layout::PushServer);
        let migration = Migration {
            access: server.options(own()).access,
            from: Layout::PushServer,
            to: own(),
            is_dry: false,
            while_running: true,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let copy = || runtime.block_on(migration.run(&mut |_| {})).unwrap();
        old.say(&[private(1)], "first", 60);
        assert_eq!(copy().messages, 1);
        let new = bench(own());
        for n in 1..=3 {
            old.say(&[private(1)], &format!("old {n}"), 60);
            new.say(&[private(2)], &format!("new {n}"), 60);
        }
        new.say(&[private(1)], "last", 60);
        assert_eq!(copy().messages, 3);
        let kept = |who| bodies(&new.replay(&[private(who)], MessageId::ZERO).envelopes);
        assert_eq!(kept(1), ["first", "old 1", "old 2", "old 3", "last"]);
        assert_eq!(kept(2), ["new 1", "new 2", "new 3"]);
        new.say(&[private(2)], "new 4", 60);
        assert_eq!(kept(2), ["new 1", "new 2", "new 3", "new 4"]);
    }
}
