//! What a node tells the others, and asks of them: who listens where, which users are there, and how
//! each node does (queue-server.md §7.8, §8.1, §9).
//!
//! Each node keeps one hash of who listens to what at it, written in batches when that changes. It says
//! every few seconds that it lives; whoever finds it silent buries it and says of its users that they are
//! gone. So a connection costs Redis nothing while it is idle, and a killed node is believed gone within
//! seconds. Beside Push server 2.0 the presence keys of its processes are written and read too; only those
//! have to be refreshed one by one, a part of them each second.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::time::MissedTickBehavior;
use vestnik_core::{Receiver, User, UserId, UserSpace};

use super::{Broken, EngineError, Inner, Layout, Reader, Redis, store};
use crate::announce::{Announcer, Change};
use crate::engine::{Moment, NodeFacts, NodeStats};
use crate::presence::Presence;

const HEARTBEAT: &str = include_str!("heartbeat.lua");
const ROSTER: &str = include_str!("roster.lua");
const ONLINE: &str = include_str!("online.lua");
const USERS: &str = include_str!("users.lua");
const SEEN: &str = include_str!("seen.lua");
pub(super) const STATS: &str = include_str!("stats.lua");

/// Between two signs of life of a node.
const BEAT: Duration = Duration::from_secs(4);
/// A node that was silent for this long is gone.
const LIVES_S: u64 = 15;
/// The list of a silent node is kept for whoever buries it.
const LIST_S: u64 = 600;
/// Changes gather this long, so that a storm of connections is few calls.
const GATHER: Duration = Duration::from_millis(50);
/// Receivers or users of one script call: it holds up everybody else in Redis.
const TOGETHER: usize = 256;
/// Ids in one question about users.
const ASKED_TOGETHER: usize = 1000;
/// Life of the presence keys of Push server 2.0: its `onlineTTL` and `onlineDelta`.
const ORIGINAL_S: u64 = 130;
/// Statistics older than this are not shown.
pub(super) const STATS_S: u64 = 70;
/// Questions that may be under way at once.
const QUESTIONS: usize = 1024;
/// Users remembered per site, and for how long.
const USERS_MAX: usize = 1_000_000;
const USERS_S: u64 = 90 * 24 * 3600;

/// The loaded scripts, by their digests.
#[derive(Clone, Default)]
pub(super) struct Scripts {
    heartbeat: String,
    roster: String,
    online: String,
    users: String,
    seen: String,
    stats: String,
}

/// What belongs to this part of the engine.
#[derive(Default)]
pub(super) struct Shared {
    /// Tells apart the lists that this node has begun.
    lists: AtomicU64,
    questions: AtomicUsize,
    /// Lists that were begun and not taken out again.
    begun: Mutex<Vec<String>>,
    /// Held while users are written, so that a whole list and a single change keep their order.
    users: tokio::sync::Mutex<()>,
}

/// The list of one connection.
struct List {
    reader: Reader,
    member: String,
    /// Whether processes of Push server 2.0 run beside.
    is_beside_originals: bool,
    began: Instant,
}

impl Scripts {
    pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut pipeline = redis::pipe();
        for script in [HEARTBEAT, ROSTER, ONLINE, USERS, SEEN, STATS] {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let (heartbeat, roster, online, users, seen, stats) =
            pipeline.query_async(connection).await?;
        Ok(Self { heartbeat, roster, online, users, seen, stats })
    }
}

/// A notice that a connection is to be closed: of which receiver, and of whose list.
fn read_notice(bytes: &[u8]) -> Option<(Receiver, &str)> {
    let (receiver, member) = bytes.split_at_checked(Receiver::BYTES)?;
    let receiver = Receiver::from_bytes(receiver.try_into().ok()?)?;
    Some((receiver, std::str::from_utf8(member).ok()?))
}

impl Inner {
    /// Tells the others of this node until the connection breaks.
    pub(super) async fn tell_others(&self, reader: Reader) -> Result<Infallible, Broken> {
        loop {
            let Err(error) = self.keep_list(&reader).await else { continue };
            if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
                return Err(error.into());
            }
            // A server that is being moved or is full; publishing may go on.
            tracing::warn!(%error, "other nodes are not told who listens here; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Begins a list and keeps it true. Ends without an error when another one must be begun.
    async fn keep_list(&self, reader: &Reader) -> Result<(), RedisError> {
        let number = self.roster.lists.fetch_add(1, Ordering::Relaxed);
        let member = format!("{}-{number}", self.node);
        let mut list = List {
            reader: reader.clone(),
            member,
            is_beside_originals: false,
            began: Instant::now(),
        };
        self.lock().list = Some(list.member.clone());
        // Whatever was lost is in the new list.
        let _ = self.announcer.lost_changes();
        self.beat(&mut list).await?;
        self.begun().push(list.member.clone());
        self.write_all(&mut list).await?;
        let before: Vec<_> =
            self.begun().iter().filter(|it| **it != list.member).cloned().collect();
        for before in before {
            self.leave_list(&mut list, &before).await?;
            self.begun().retain(|it| *it != before);
        }
        let mut beats = tokio::time::interval(BEAT);
        let mut refreshes = tokio::time::interval(Duration::from_secs(1));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refreshed = 0;
        loop {
            tokio::select! {
                () = self.announcer.changed() => {
                    tokio::time::sleep(GATHER).await;
                    self.write_changes(&mut list).await?;
                    if self.announcer.lost_changes() {
                        return Ok(());
                    }
                }
                _ = beats.tick() => {
                    if !self.beat(&mut list).await? {
                        tracing::warn!("redis has lost who listens here; telling it again");
                        return Ok(());
                    }
                }
                _ = refreshes.tick(), if self.options.layout == Layout::PushServer => {
                    let part = self.announcer.part(refreshed);
                    self.write(&mut list, &part).await?;
                    refreshed = (refreshed + 1) % Announcer::parts();
                }
            }
        }
    }

    fn begun(&self) -> MutexGuard<'_, Vec<String>> {
        self.roster.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_all(&self, list: &mut List) -> Result<(), RedisError> {
        for part in 0..Announcer::parts() {
            self.write(list, &self.announcer.part(part)).await?;
        }
        if let Some(presence) = self.announcer.presence() {
            let _order = self.roster.users.lock().await;
            let change =
                |user| Change { receiver: Receiver::User(user), counted: Some(0), came: 0 };
            let users: Vec<_> = presence.online_users().into_iter().map(change).collect();
            self.write(list, &users).await?;
        }
        self.write_changes(list).await
    }

    async fn write_changes(&self, list: &mut List) -> Result<(), RedisError> {
        for part in 0..Announcer::parts() {
            self.write(list, &self.announcer.take_changes(part)).await?;
        }
        Ok(())
    }

    async fn write(&self, list: &mut List, changes: &[Change]) -> Result<(), RedisError> {
        let layout = &self.options.layout;
        let is_own = *layout != Layout::PushServer;
        let most = if is_own { self.lock().facts.connections_per_channel } else { 0 };
        for changes in changes.chunks(TOGETHER) {
            let mut command = self.script(&list.reader.scripts.roster);
            command.arg(&list.member).arg(LIVES_S).arg(if is_own { 0 } else { ORIGINAL_S });
            command.arg(u8::from(list.is_beside_originals)).arg(most);
            command.arg(list.reader.bus.command()).arg(self.bus());
            for Change { receiver, counted, came } in changes {
                command.arg(&receiver.to_bytes()[..]).arg(counted.map_or(-1, i64::from)).arg(*came);
            }
            let _: u64 = command.query_async(&mut list.reader.connection).await?;
        }
        Ok(())
    }

    /// One sign of life; `false`: this node was unknown.
    async fn beat(&self, list: &mut List) -> Result<bool, RedisError> {
        let NodeFacts { name, stats, .. } = self.lock().facts.clone();
        let mut command = self.script(&list.reader.scripts.heartbeat);
        // After a break of Redis itself everybody was silent.
        let may_bury = list.began.elapsed() > Duration::from_secs(LIVES_S);
        command.arg(&list.member).arg(if name.is_empty() { &self.node } else { &name }).arg(stats);
        command.arg(LIVES_S).arg(LIST_S).arg(STATS_S).arg(u8::from(may_bury));
        let answer: Vec<redis::Value> = command.query_async(&mut list.reader.connection).await?;
        let mut answer = answer.into_iter();
        let mut next = || answer.next().unwrap_or(redis::Value::Nil);
        let was_known: u8 = redis::from_redis_value(next())?;
        list.is_beside_originals = redis::from_redis_value::<u8>(next())? == 1;
        let was_buried: u8 = redis::from_redis_value(next())?;
        let sites: Vec<Vec<u8>> = redis::from_redis_value(next())?;
        let Some(presence) = self.announcer.presence() else { return Ok(was_known == 1) };
        presence.know_sites(
            sites.iter().filter_map(|it| Some(UserSpace::from_bytes(it[..].try_into().ok()?))),
        );
        if was_buried == 1 {
            // The others were told that our users are gone.
            presence.tell_again();
        }
        while let Some(buried) = answer.next() {
            let buried: String = redis::from_redis_value(buried)?;
            let seen_s: u64 = redis::from_redis_value(answer.next().unwrap_or(redis::Value::Nil))?;
            if was_known == 1 {
                tracing::info!(node = %buried, "another node is silent and counts as gone");
            }
            self.bury(list, presence, &buried, seen_s).await?;
        }
        Ok(was_known == 1 && was_buried == 0)
    }

    /// Says of the users of a silent node that they are gone, unless they are somewhere else.
    async fn bury(
        &self,
        list: &mut List,
        presence: &Presence,
        buried: &str,
        seen_s: u64,
    ) -> Result<(), RedisError> {
        let key = format!("{}vestnik:online:{buried}", self.options.layout.base());
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&key).arg(cursor).arg("COUNT").arg(TOGETHER);
            let (next, fields): (u64, Vec<Vec<u8>>) =
                scan.query_async(&mut list.reader.connection).await?;
            for field in fields.iter().step_by(2) {
                let receiver = field[..].try_into().ok().and_then(Receiver::from_bytes);
                if let Some(Receiver::User(user)) = receiver {
                    presence.lost(user, seen_s.saturating_mul(1000));
                }
            }
            cursor = next;
            if cursor == 0 {
                return redis::cmd("DEL").arg(&key).query_async(&mut list.reader.connection).await;
            }
        }
    }

    /// Takes a list out whose place another one has taken.
    async fn leave_list(&self, list: &mut List, before: &str) -> Result<(), RedisError> {
        let base = self.options.layout.base();
        let mut buried = redis::cmd("EXISTS");
        buried.arg(format!("{base}vestnik:buried:{before}"));
        let was_buried: u8 = buried.query_async(&mut list.reader.connection).await?;
        if was_buried == 1
            && let Some(presence) = self.announcer.presence()
        {
            presence.tell_again();
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZREM").arg(format!("{base}vestnik:nodes")).arg(before).ignore();
        pipeline.cmd("DEL").arg(format!("{base}vestnik:online:{before}")).ignore();
        pipeline.query_async(&mut list.reader.connection).await
    }

    /// The last word of a node that stops in order: nobody listens here any more. Its users have their
    /// grace: they stay in the list, which is buried when they do not come back elsewhere.
    pub(super) async fn say_farewell(&self, reader: Reader) -> Result<(), RedisError> {
        let Some(member) = self.lock().list.take() else { return Ok(()) };
        let name = self.lock().facts.name.clone();
        let mut list = List { reader, member, is_beside_originals: false, began: Instant::now() };
        self.beat(&mut list).await?;
        self.write_changes(&mut list).await?;
        let base = self.options.layout.base();
        let connection = &mut list.reader.connection;
        redis::cmd("HDEL").arg(format!("{base}stats")).arg(&name).exec_async(connection).await?;
        if self.announcer.presence().is_none_or(|it| it.online_users().is_empty()) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ZREM").arg(format!("{base}vestnik:nodes")).arg(&list.member).ignore();
            let key = format!("{base}vestnik:online:{}", list.member);
            pipeline.cmd("DEL").arg(key).ignore();
            pipeline.exec_async(connection).await?;
        }
        Ok(())
    }

    /// Takes a notice that a connection is to be closed, if it is for this node.
    pub(super) fn take_notice(&self, notice: &[u8]) {
        let Some((receiver, member)) = read_notice(notice) else { return };
        let mut state = self.lock();
        if state.list.as_deref() == Some(member) && state.too_many.len() < QUESTIONS {
            state.too_many.push_back(receiver);
            drop(state);
            self.crowded.notify_one();
        }
    }

    async fn write_users(
        &self,
        reader: &mut Reader,
        member: &str,
        changes: &[(User, Moment)],
    ) -> Result<Vec<bool>, EngineError> {
        let mut news = Vec::with_capacity(changes.len());
        for changes in changes.chunks(TOGETHER) {
            let mut command = self.script(&reader.scripts.users);
            command.arg(member).arg(LIVES_S).arg(USERS_MAX).arg(USERS_S);
            for (user, moment) in changes {
                let (kind, seen_s) = match moment {
                    Moment::Went(seen_s) => (0, seen_s),
                    Moment::Came(seen_s) => (1, seen_s),
                    Moment::Seen(seen_s) => (2, seen_s),
                };
                command.arg(&Receiver::User(*user).to_bytes()[..]).arg(kind).arg(*seen_s);
            }
            let digits: String =
                command.query_async(&mut reader.connection).await.map_err(store)?;
            news.extend(digits.bytes().map(|digit| digit == b'1'));
        }
        Ok(news)
    }

    /// A call of a script, up to its first argument.
    pub(super) fn script(&self, digest: &str) -> redis::Cmd {
        let layout = &self.options.layout;
        let mut command = redis::cmd("EVALSHA");
        command.arg(digest).arg(1).arg(layout.counter()).arg(layout.base());
        command
    }

    /// What a question needs; refused at once while Redis is not there.
    fn ask(&self) -> Result<(Question<'_>, Reader, String), EngineError> {
        let missing = || EngineError::Store("redis: not connected".into());
        let question = Question::new(&self.roster.questions)?;
        let state = self.lock();
        let reader = state.reader.clone().ok_or_else(missing)?;
        // Before the first list there is nobody to leave out.
        let member = state.list.clone().unwrap_or_default();
        Ok((question, reader, member))
    }
}

/// A question under way; counted until it is dropped.
struct Question<'a>(&'a AtomicUsize);

impl<'a> Question<'a> {
    fn new(count: &'a AtomicUsize) -> Result<Self, EngineError> {
        let waiting = count.fetch_add(1, Ordering::Relaxed);
        let question = Self(count);
        if waiting >= QUESTIONS { Err(EngineError::Overloaded { waiting }) } else { Ok(question) }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Redis {
    /// Keeps what the others are to know of this node.
    pub(crate) fn tell(&self, facts: NodeFacts) {
        self.inner.lock().facts = facts;
    }

    /// Which of `receivers` somebody listens to on another node: one round trip.
    pub(crate) async fn is_online_elsewhere(
        &self,
        receivers: &[Receiver],
    ) -> Result<Vec<bool>, EngineError> {
        let inner = &self.inner;
        let (_question, mut reader, member) = inner.ask()?;
        let mut pipeline = redis::pipe();
        for receivers in receivers.chunks(TOGETHER) {
            let mut command = inner.script(&reader.scripts.online);
            let is_beside = inner.options.layout == Layout::PushServer;
            command.arg(&member).arg(LIVES_S).arg(u8::from(is_beside));
            for receiver in receivers {
                command.arg(&receiver.to_bytes()[..]);
            }
            pipeline.add_command(command);
        }
        let digits: Vec<String> =
            pipeline.query_async(&mut reader.connection).await.map_err(store)?;
        Ok(digits.concat().bytes().map(|digit| digit == b'1').collect())
    }

    /// Writes down that users came or went, and when they were seen; answers which of them are on no
    /// other node, so that it is news.
    pub(crate) async fn settle(
        &self,
        changes: &[(User, Moment)],
    ) -> Result<Vec<bool>, EngineError> {
        let inner = &self.inner;
        let _order = inner.roster.users.lock().await;
        let (_question, mut reader, member) = inner.ask()?;
        if member.is_empty() {
            return Err(EngineError::Store("redis: not connected".into()));
        }
        inner.write_users(&mut reader, &member, changes).await
    }

    /// Notes when users of a site were seen, unix seconds; times to come are ignored.
    pub(crate) async fn update_last_seen(
        &self,
        space: UserSpace,
        seen_s: &[(UserId, u64)],
        now_s: u64,
    ) -> Result<(), EngineError> {
        let (_question, mut reader, member) = self.inner.ask()?;
        let seen =
            seen_s.iter().filter(|(_, it)| (now_s.saturating_sub(USERS_S)..=now_s).contains(it));
        let changes: Vec<_> =
            seen.map(|(id, seen_s)| (User { space, id: *id }, Moment::Seen(*seen_s))).collect();
        self.inner.write_users(&mut reader, &member, &changes).await.map(drop)
    }

    /// When users of a site were seen, on all nodes: unix seconds, 0 for who is on another one now.
    /// `None`: all of them.
    pub(crate) async fn last_seen(
        &self,
        space: UserSpace,
        asked: Option<&[UserId]>,
    ) -> Result<Vec<(UserId, u64)>, EngineError> {
        let inner = &self.inner;
        let (_question, mut reader, member) = inner.ask()?;
        let mut seen = Vec::new();
        let begin = || {
            let mut command = inner.script(&reader.scripts.seen);
            command.arg(&member).arg(LIVES_S).arg(&space.as_bytes()[..]);
            command
        };
        let mut read = |pairs: Vec<Vec<u8>>| {
            let count = pairs.len();
            for pair in pairs.chunks_exact(2) {
                let id = pair[0][..].try_into().ok().map(i64::from_be_bytes).and_then(UserId::new);
                let seen_s = std::str::from_utf8(&pair[1]).ok().and_then(|it| it.parse().ok());
                seen.extend(id.zip(seen_s));
            }
            count / 2
        };
        match asked {
            Some(asked) => {
                let mut pipeline = redis::pipe();
                for asked in asked.chunks(ASKED_TOGETHER) {
                    let mut command = begin();
                    for id in asked {
                        command.arg(&id.number().to_be_bytes()[..]);
                    }
                    pipeline.add_command(command);
                }
                let parts: Vec<Vec<Vec<u8>>> =
                    pipeline.query_async(&mut reader.connection).await.map_err(store)?;
                parts.into_iter().for_each(|pairs| _ = read(pairs));
            }
            None => {
                for rank in (0..USERS_MAX).step_by(ASKED_TOGETHER) {
                    let mut command = begin();
                    command.arg("all").arg(rank).arg(ASKED_TOGETHER);
                    let pairs: Vec<Vec<u8>> =
                        command.query_async(&mut reader.connection).await.map_err(store)?;
                    if read(pairs) < ASKED_TOGETHER {
                        break;
                    }
                }
            }
        }
        Ok(seen)
    }

    /// The statistics of all nodes that wrote some lately.
    pub(crate) async fn stats(&self) -> Result<Vec<NodeStats>, EngineError> {
        let inner = &self.inner;
        let Reader { mut connection, scripts, .. } = inner.reader().await?;
        let mut command = inner.script(&scripts.stats);
        command.arg(STATS_S).arg(1);
        let pairs: Vec<(String, String)> =
            command.query_async(&mut connection).await.map_err(store)?;
        Ok(pairs.into_iter().map(|(name, json)| NodeStats { name, json }).collect())
    }

    /// Waits for a receiver that has too many connections over all nodes, one of which is to be closed
    /// here. Cancel safe.
    pub(crate) async fn too_many(&self) -> Receiver {
        loop {
            let notified = self.inner.crowded.notified();
            if let Some(receiver) = self.inner.lock().too_many.pop_front() {
                return receiver;
            }
            notified.await;
        }
    }
}
