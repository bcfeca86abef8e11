//! The engine of several nodes: messages are in Redis, and the nodes hear of them there.
//!
//! One thread has one connection that publishes and listens, and one that reads. What waits is
//! published together by one script, so a publish takes one round trip, and more per trip under load.
//! The answer comes behind all announcements that were made before it, on the same connection: so a
//! node announces in the order of ids, its own messages without reading them again.
//!
//! A broken connection leaves a batch whose fate is unknown. Its serial number says whether it was
//! executed; only if not, it is sent again. After a break the history of every receiver that is
//! listened to is read from the last announced id on, before anything newer is announced.

mod catch_up;
mod link;
mod migrate;
mod record;
mod roster;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, Draft, Envelope, MessageId, Receiver};

pub use link::{Access, Address, RedisTls, Topology};
pub use migrate::{MigrateError, Migrated, Migration};

use super::{Batch, EngineError, HistoryLimits, IfUnstored, NodeFacts, Replay, Ticket};
use crate::announce::{Announcer, Unwoken};
use crate::reply::Reply;
use link::{Bus, Pushes};

const PUBLISH: &str = include_str!("redis/publish.lua");
const HISTORY: &str = include_str!("redis/history.lua");
const MISSED: &str = include_str!("redis/missed.lua");

/// Names of keys and of the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Those of Push server 2.0, which may run beside.
    PushServer,
    /// Our own, behind this prefix, all in one slot of a cluster.
    Own(String),
}

/// Everything the engine is told.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The way to the server.
    pub access: Access,
    /// Names of keys.
    pub layout: Layout,
}

/// The engine.
pub struct Redis {
    inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Inner {
    options: RedisOptions,
    limits: HistoryLimits,
    announcer: Arc<Announcer>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Names this process on the bus.
    node: String,
    state: Mutex<State>,
    /// Something waits, or the engine is closed.
    wake: Notify,
    /// The connection came.
    connected: Notify,
    /// A channel has too many connections over all nodes.
    crowded: Notify,
    roster: roster::Shared,
}

struct State {
    waiting: VecDeque<Waiting>,
    waiting_messages: usize,
    waiting_bytes: usize,
    is_closed: bool,
    announced: MessageId,
    reader: Option<Reader>,
    /// Name of the list of who listens here, once there is one.
    list: Option<String>,
    /// What the other nodes are told of this one.
    facts: NodeFacts,
    /// Receivers of which a connection is to be closed.
    too_many: VecDeque<Receiver>,
}

#[derive(Clone)]
struct Reader {
    connection: MultiplexedConnection,
    history: String,
    scripts: Arc<roster::Scripts>,
    bus: Bus,
}

struct Waiting {
    drafts: Vec<Draft>,
    if_unstored: IfUnstored,
    reply: Reply,
    since: Instant,
}

impl Waiting {
    /// Bytes of its drafts.
    fn bytes(&self) -> usize {
        self.drafts.iter().map(|draft| draft.body.len() + draft.additions.bytes()).sum()
    }
}

/// A batch that was sent and not answered.
struct Flying {
    serial: u64,
    batches: Vec<Waiting>,
}

/// What the publishing script answered.
struct Numbered {
    before: MessageId,
    created_ms: u64,
    count: usize,
}

/// Why a connection is over.
enum Broken {
    Stopped,
    Failed(String),
}

impl From<RedisError> for Broken {
    fn from(error: RedisError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One connection's worth of work.
struct Session {
    connection: MultiplexedConnection,
    pushes: Arc<Pushes>,
    publish: String,
    missed: String,
    reader: Reader,
}

/// Messages that may wait while Redis does not answer.
const WAITING_MESSAGES: usize = 20_000;
/// Bytes of them.
const WAITING_BYTES: usize = 64 << 20;
/// Messages of one script call: it holds up everybody else in Redis.
const TOGETHER: usize = 256;
/// How long a message whose publisher does not repeat it waits for Redis.
const HELD: Duration = Duration::from_secs(30);
/// Seconds an index lives after its newest message: a day, as the longest message (W-11).
const INDEX_S: u64 = 86_400;
/// Between two signs of life of a connection that does not publish.
const HEARTBEAT: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// While the slot moves key by key: its end should be noticed soon.
const PAUSE_MOVING: Duration = Duration::from_millis(500);

impl Layout {
    fn base(&self) -> String {
        match self {
            Self::PushServer => String::new(),
            Self::Own(prefix) => format!("{{{prefix}}}:"),
        }
    }

    fn counter(&self) -> String {
        format!("{}server:messagecounter", self.base())
    }
}

impl Redis {
    /// Starts the thread; does not wait for Redis, which may come later.
    pub(super) fn start(
        options: RedisOptions,
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let state = State {
            waiting: VecDeque::new(),
            waiting_messages: 0,
            waiting_bytes: 0,
            is_closed: false,
            announced: MessageId::ZERO,
            reader: None,
            list: None,
            facts: NodeFacts::default(),
            too_many: VecDeque::new(),
        };
        announcer.note_changes();
        let inner = Arc::new(Inner {
            options,
            limits,
            announcer,
            clock,
            metrics,
            node: format!("v{:016x}", random()),
            state: Mutex::new(state),
            wake: Notify::new(),
            connected: Notify::new(),
            crowded: Notify::new(),
            roster: roster::Shared::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("redis".to_owned())
            // A task, not the future that is blocked on: what wakes that one costs a look at all sockets.
            .spawn(move || {
                let task = runtime.spawn(worker.run());
                if runtime.block_on(task).is_err() {
                    tracing::error!("the work with Redis has failed");
                }
            })?;
        Ok(Self { inner, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn submit(&self, batch: Batch) -> Result<Ticket, EngineError> {
        let Batch { drafts, if_unstored } = batch;
        let (reply, ticket) = Reply::new();
        let waiting = Waiting { drafts, if_unstored, reply, since: Instant::now() };
        let mut state = self.inner.lock();
        if state.is_closed {
            return Err(EngineError::Closed);
        }
        if state.waiting_messages >= WAITING_MESSAGES || state.waiting_bytes >= WAITING_BYTES {
            return Err(EngineError::Overloaded { waiting: state.waiting_messages });
        }
        state.waiting_messages += waiting.drafts.len();
        state.waiting_bytes += waiting.bytes();
        state.waiting.push_back(waiting);
        drop(state);
        self.inner.wake.notify_one();
        Ok(ticket)
    }

    pub(super) fn history(
        &self,
        receivers: &[Receiver],
        after: MessageId,
        bytes: usize,
    ) -> RedisRead {
        RedisRead { inner: Arc::clone(&self.inner), receivers: receivers.into(), after, bytes }
    }

    pub(super) async fn newest(&self, receivers: &[Receiver]) -> Option<MessageId> {
        match self.inner.newest(receivers).await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::debug!(%error, "newest message not read");
                None
            }
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.inner.lock().reader.is_some()
    }

    pub(super) fn last_id(&self) -> MessageId {
        self.inner.lock().announced
    }

    /// Publishes what waits if Redis is there, and ends the thread.
    pub(super) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.inner.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of Redis has failed");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.close();
    }
}

/// A history that is read when asked for.
pub struct RedisRead {
    inner: Arc<Inner>,
    receivers: Box<[Receiver]>,
    after: MessageId,
    bytes: usize,
}

impl RedisRead {
    /// Reads it.
    ///
    /// # Errors
    /// [`EngineError::Store`] when Redis does not answer in time.
    pub async fn read(self) -> Result<Replay, EngineError> {
        let most = self.inner.limits.replay_messages;
        let mut replay = match self.once(most).await {
            // The writing server may have moved: once more, with the next connection.
            Err(error) => {
                tracing::debug!(%error, "history not read; looking for the server again");
                self.inner.leave();
                self.once(most).await?
            }
            Ok(replay) => replay,
        };
        let current = replay.last;
        let now_s = self.inner.clock.unix_s();
        replay.envelopes.retain(|envelope| envelope.expires_s() > now_s);
        replay.gap |= self.after > current
            || (self.after != MessageId::ZERO && self.after.epoch() != current.epoch());
        let mut left = self.bytes;
        let fit = replay.envelopes.iter().take_while(|envelope| {
            left.checked_sub(envelope.body.len()).inspect(|rest| left = *rest).is_some()
        });
        let kept = fit.count().max(1);
        replay.more = kept < replay.envelopes.len();
        replay.envelopes.truncate(kept);
        Ok(replay)
    }

    async fn once(&self, most: usize) -> Result<Replay, EngineError> {
        let Reader { mut connection, history, .. } = self.inner.reader().await?;
        let read = self.inner.read(&mut connection, &history, &self.receivers, self.after, most);
        read.await.map_err(store)
    }
}

fn store(error: RedisError) -> EngineError {
    EngineError::Store(format!("redis: {error}").into())
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to read with; waits for it for a while.
    async fn reader(&self) -> Result<Reader, EngineError> {
        let wait = async {
            loop {
                let connected = self.connected.notified();
                let reader = self.lock().reader.clone();
                match reader {
                    Some(reader) => break reader,
                    None => connected.await,
                }
            }
        };
        let waited = tokio::time::timeout(self.options.access.timeout, wait).await;
        waited.map_err(|_| EngineError::Store("redis: not connected".into()))
    }

    async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        script: &str,
        receivers: &[Receiver],
        after: MessageId,
        most: usize,
    ) -> Result<Replay, RedisError> {
        let layout = &self.options.layout;
        let mut command = redis::cmd("EVALSHA");
        command.arg(script).arg(1).arg(layout.counter()).arg(layout.base());
        command.arg(&after.to_packed()[..]).arg(most);
        for receiver in receivers {
            command.arg(record::index_of(receiver));
        }
        let answer: Vec<redis::Value> = command.query_async(connection).await?;
        let mut answer = answer.into_iter();
        let mut number = || -> Result<u64, RedisError> {
            Ok(redis::from_redis_value(answer.next().unwrap_or(redis::Value::Nil))?)
        };
        let last = MessageId::new(number()?, number()?);
        let gap = number()? == 1;
        let messages: Vec<Vec<u8>> =
            answer.map(redis::from_redis_value).collect::<Result<_, _>>()?;
        let read = |bytes: Vec<u8>| record::read_message(&bytes, receivers.to_vec());
        let envelopes = messages.into_iter().filter_map(read).map(Arc::new).collect();
        Ok(Replay { envelopes, gap, more: false, last })
    }

    async fn newest(&self, receivers: &[Receiver]) -> Result<Option<MessageId>, EngineError> {
        let mut reader = self.reader().await?;
        let mut pipeline = redis::pipe();
        let base = self.options.layout.base();
        for receiver in receivers {
            let index = [base.as_bytes(), &record::index_of(receiver)].concat();
            pipeline.cmd("ZREVRANGE").arg(index).arg(0).arg(0);
        }
        let found: Vec<Vec<Vec<u8>>> =
            pipeline.query_async(&mut reader.connection).await.map_err(store)?;
        Ok(found.iter().flatten().filter_map(|id| MessageId::from_packed(id).ok()).max())
    }

    /// Gives the connection up, unless that was done already.
    fn leave(&self) {
        if self.lock().reader.take().is_some() {
            self.wake.notify_one();
        }
    }

    /// Connects, serves, and does so again, until the engine is closed.
    async fn run(self: Arc<Self>) {
        let mut flying = None;
        let mut serial = 0;
        let mut pause = PAUSE_FIRST;
        loop {
            let broken = match self.connect().await {
                Ok(mut session) => {
                    let since = Instant::now();
                    let broken = self.serve(&mut session, &mut flying, &mut serial).await;
                    // A server that can be reached and does not serve is no reason to hurry.
                    if since.elapsed() > PAUSE_MAX {
                        pause = PAUSE_FIRST;
                    }
                    broken
                }
                Err(error) => Broken::Failed(error.to_string()),
            };
            self.lock().reader = None;
            self.metrics.set(Metric::RedisConnected, 0);
            let Broken::Failed(error) = broken else { break };
            if self.lock().is_closed {
                break;
            }
            self.metrics.increment(Metric::RedisFailures);
            tracing::warn!(error, "no connection to redis; trying again");
            self.forget_overdue();
            if is_moving(&error) {
                pause = pause.min(PAUSE_MOVING);
            }
            // Half of it at random: nodes that lost Redis together do not return together.
            let half = u64::try_from(pause.as_millis() / 2).unwrap_or(0).max(1);
            let wait = Duration::from_millis(half + random() % half);
            let until = tokio::time::Instant::now() + wait;
            while !self.lock().is_closed {
                if tokio::time::timeout_at(until, self.wake.notified()).await.is_err() {
                    break;
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let unknown = flying.map(|flying: Flying| flying.batches).unwrap_or_default();
        let waiting = std::mem::take(&mut self.lock().waiting);
        for batch in unknown.into_iter().chain(waiting) {
            self.refuse(batch, &EngineError::Closed);
        }
    }

    /// Tells the publishers of what is in flight that Redis refused it.
    fn refuse_flying(&self, flying: &mut Option<Flying>, error: RedisError) {
        self.metrics.increment(Metric::RedisFailures);
        let batches = flying.take().map(|it| it.batches).unwrap_or_default();
        let error = store(error);
        tracing::error!(%error, "messages not stored");
        batches.into_iter().for_each(|batch| self.refuse(batch, &error));
    }

    fn refuse(&self, batch: Waiting, error: &EngineError) {
        let stored = batch.drafts.iter().filter(|draft| draft.expiry.is_stored()).count();
        self.metrics.add(Metric::NotStored, stored as u64);
        self.announcer.wake(self.announcer.answer(batch.reply, Err(error.clone())));
    }

    /// Whether a batch is still to be published: its publisher waits, or will not repeat it.
    fn is_wanted(batch: &Waiting) -> bool {
        !batch.reply.is_closed()
            || (batch.if_unstored == IfUnstored::Deliver && batch.since.elapsed() < HELD)
    }

    fn forget_overdue(&self) {
        let mut state = self.lock();
        let (kept, gone): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(Self::is_wanted);
        state.waiting = kept;
        Self::recount(&mut state);
        drop(state);
        let error = EngineError::Store("redis: not connected".into());
        gone.into_iter().for_each(|batch| self.refuse(batch, &error));
    }

    fn recount(state: &mut State) {
        state.waiting_messages = state.waiting.iter().map(|batch| batch.drafts.len()).sum();
        state.waiting_bytes = state.waiting.iter().map(Waiting::bytes).sum();
    }

    async fn connect(&self) -> Result<Session, RedisError> {
        let layout = &self.options.layout;
        let counter = layout.counter();
        let (mut connection, pushes) = self.options.access.connect(&counter).await?;
        let (mut reader, _) = self.options.access.connect(&counter).await?;
        let scripts = Arc::new(roster::Scripts::load(&mut reader).await?);
        let load = async |script: &str, connection: &mut MultiplexedConnection| {
            redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async::<String>(connection).await
        };
        let publish = load(PUBLISH, &mut connection).await?;
        let history = load(HISTORY, &mut connection).await?;
        let missed = load(MISSED, &mut connection).await?;
        let bus = self.listen(&mut connection).await?;
        let reader = Reader { connection: reader, history, scripts, bus };
        self.lock().reader = Some(reader.clone());
        Ok(Session { connection, pushes, publish, missed, reader })
    }

    /// Begins to hear announcements. The channel of our own layout has the slot of all keys, so the server
    /// that numbers and stores is the one that announces; it takes us off when the slot moves.
    async fn listen(&self, connection: &mut MultiplexedConnection) -> Result<Bus, RedisError> {
        if self.options.layout == Layout::PushServer {
            // Its processes know no other way.
            connection.psubscribe("pushserver:*").await?;
            return Ok(Bus::Everywhere);
        }
        let bus = Bus::of(&self.options.access.topology, connection).await?;
        match bus {
            Bus::Everywhere => connection.subscribe(self.bus()).await?,
            Bus::Shard => redis::cmd("SSUBSCRIBE").arg(self.bus()).exec_async(connection).await?,
        }
        Ok(bus)
    }

    /// The channel of this node's announcements.
    fn bus(&self) -> String {
        match &self.options.layout {
            Layout::PushServer => format!("pushserver:{}", self.node),
            Layout::Own(_) => format!("{}bus", self.options.layout.base()),
        }
    }

    async fn serve(
        &self,
        session: &mut Session,
        flying: &mut Option<Flying>,
        serial: &mut u64,
    ) -> Broken {
        if let Err(broken) = self.catch_up(session, flying).await {
            return broken;
        }
        let reader = session.reader.clone();
        let told = tokio::select! {
            told = self.tell_others(reader) => told,
            worked = self.work(session, flying, serial) => match worked {
                Ok(()) => {
                    let farewell = self.say_farewell(session.reader.clone());
                    match tokio::time::timeout(self.options.access.timeout, farewell).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "other nodes not told of the end"),
                        Err(_) => tracing::warn!("other nodes not told of the end in time"),
                    }
                    return Broken::Stopped;
                }
                Err(broken) => return broken,
            },
        };
        match told {
            Err(broken) => broken,
        }
    }

    async fn work(
        &self,
        session: &mut Session,
        flying: &mut Option<Flying>,
        serial: &mut u64,
    ) -> Result<(), Broken> {
        self.metrics.set(Metric::RedisConnected, 1);
        tracing::info!("connected to redis");
        self.connected.notify_waiters();
        // At any load: announcements may go on to come when the slot has another master.
        let mut beats = tokio::time::interval(HEARTBEAT);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.take_pushes(session)?;
            if let Some(batches) = self.next() {
                *serial += 1;
                let sent = flying.insert(Flying { serial: *serial, batches });
                let answer = self.publish(session, sent.serial, &sent.batches).await;
                let error = match answer {
                    Ok(numbered) => {
                        self.announce_in_place(session, flying, &numbered)?;
                        continue;
                    }
                    Err(error) => error,
                };
                // A connection that is over says so first: its errors say nothing of the batch.
                self.take_pushes(session)?;
                match error {
                    error if is_refusal(&error) => self.refuse_flying(flying, error),
                    error => return Err(error.into()),
                }
                continue;
            }
            {
                let state = self.lock();
                if state.is_closed {
                    return Ok(());
                }
                if state.reader.is_none() {
                    return Err(Broken::Failed("the history could not be read".to_owned()));
                }
            }
            tokio::select! {
                () = session.pushes.news() => {}
                () = self.wake.notified() => {}
                _ = beats.tick() => {
                    // Also says whether it still is the one that writes.
                    let mut pipeline = redis::pipe();
                    pipeline.cmd("ROLE").cmd("GET").arg(self.options.layout.counter());
                    let (role, _): (redis::Value, redis::Value) =
                        pipeline.query_async(&mut session.connection).await?;
                    if !is_master(&role) {
                        return Err(Broken::Failed("the server is a replica now".to_owned()));
                    }
                }
            }
        }
    }

    /// What is to be published next, together.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        let (mut batches, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = state.waiting.front() {
            if count > 0 && (count + batch.drafts.len() > TOGETHER || bytes > 4 << 20) {
                break;
            }
            let Some(batch) = state.waiting.pop_front() else { break };
            let of_batch = batch.bytes();
            state.waiting_messages = state.waiting_messages.saturating_sub(batch.drafts.len());
            state.waiting_bytes = state.waiting_bytes.saturating_sub(of_batch);
            if Self::is_wanted(&batch) {
                (count, bytes) = (count + batch.drafts.len(), bytes + of_batch);
                batches.push(batch);
            }
        }
        (!batches.is_empty()).then_some(batches)
    }

    async fn publish(
        &self,
        session: &mut Session,
        serial: u64,
        batches: &[Waiting],
    ) -> Result<Numbered, RedisError> {
        let layout = &self.options.layout;
        let known = self.lock().announced;
        let drafts = || batches.iter().flat_map(|batch| &batch.drafts);
        let mut command = redis::cmd("EVALSHA");
        command.arg(&session.publish).arg(1).arg(layout.counter());
        command.arg(layout.base()).arg(self.clock.unix_s());
        command.arg(known.epoch()).arg(known.seq()).arg(self.clock.unix_ms());
        command.arg(&self.node).arg(serial);
        command.arg(session.reader.bus.command()).arg(self.bus());
        command.arg(INDEX_S).arg(self.limits.messages_per_channel).arg(drafts().count());
        for draft in drafts() {
            let (head, tail) = record::message_parts(draft);
            let mut receivers: Vec<_> = draft.receivers.to_vec();
            receivers.sort_unstable();
            receivers.dedup();
            command.arg(draft.expiry.seconds()).arg(head).arg(tail);
            command.arg(record::bus_receivers(draft)).arg(receivers.len());
            for receiver in &receivers {
                command.arg(record::index_of(receiver));
            }
        }
        let (epoch, before, created_ms, count): (String, String, String, String) =
            command.query_async(&mut session.connection).await?;
        let number = |text: &str| {
            let wrong = || RedisError::from((redis::ErrorKind::Parse, "not a number"));
            text.parse::<u64>().map_err(|_| wrong())
        };
        Ok(Numbered {
            before: MessageId::new(number(&epoch)?, number(&before)?),
            created_ms: number(&created_ms)?,
            count: usize::try_from(number(&count)?).unwrap_or(usize::MAX),
        })
    }

    /// Announces a batch that Redis has taken in its place among those of the others: behind the answer
    /// more of them may have come before anybody looked. When one before it is missing the batch stays in
    /// flight.
    fn announce_in_place(
        &self,
        session: &Session,
        flying: &mut Option<Flying>,
        numbered: &Numbered,
    ) -> Result<(), Broken> {
        let mut later = Vec::new();
        while let Some(payload) = session.pushes.pop() {
            let fresh = self.fresh(&payload);
            if fresh.first().is_some_and(|it| it.id > numbered.before) {
                later.push(fresh);
            } else {
                self.announce_others(&fresh)?;
            }
        }
        self.check_for_a_gap(numbered.before.next())?;
        self.publish_done(flying.take(), numbered);
        later.iter().try_for_each(|it| self.announce_others(it))
    }

    /// Announces what other nodes published, unless something before it is missing.
    fn announce_others(&self, envelopes: &[Arc<Envelope>]) -> Result<(), Broken> {
        if let Some(first) = envelopes.first() {
            self.check_for_a_gap(first.id)?;
        }
        self.announce(envelopes);
        Ok(())
    }

    /// Whether the numbers between the last announced one and `next` are missing. In our own layout every
    /// message is announced, so they were lost on their way, or are late, as they may be between two servers
    /// of a cluster while the slot moves: what was stored must be read before anything newer is announced.
    fn check_for_a_gap(&self, next: MessageId) -> Result<(), Broken> {
        let announced = self.lock().announced;
        let before = if next.epoch() == announced.epoch() { announced.seq() } else { 0 };
        if self.options.layout == Layout::PushServer || next.seq() <= before + 1 {
            return Ok(());
        }
        Err(Broken::Failed("announcements are missing".to_owned()))
    }

    /// Announces a batch that Redis has taken, and answers its publishers.
    fn publish_done(&self, flying: Option<Flying>, numbered: &Numbered) {
        let mut before = numbered.before;
        let mut unwoken = Unwoken::default();
        for batch in flying.map(|it| it.batches).unwrap_or_default() {
            let envelopes = super::memory::number(&mut before, numbered.created_ms, batch.drafts);
            let stored = envelopes.iter().filter(|it| it.expiry.is_stored()).count();
            let bytes = envelopes.iter().map(|it| it.body.len() as u64).sum();
            self.metrics.add(Metric::Stored, stored as u64);
            self.metrics.add(Metric::Published, envelopes.len() as u64);
            self.metrics.add(Metric::PublishedBytes, bytes);
            unwoken.join(self.put(&envelopes));
            let ids = envelopes.iter().map(|it| it.id).collect();
            unwoken.join(self.announcer.answer(batch.reply, Ok(ids)));
        }
        self.announcer.wake(unwoken);
    }

    fn announce(&self, envelopes: &[Arc<Envelope>]) {
        self.announcer.wake(self.put(envelopes));
    }

    /// Announces; those who hear of it are to be woken yet.
    fn put(&self, envelopes: &[Arc<Envelope>]) -> Unwoken {
        let Some(last) = envelopes.iter().map(|it| it.id).max() else {
            return Unwoken::default();
        };
        // As in the other engines: who takes the lock afterwards knows that every announcement before
        // has reached the shards ([`Engine::last_id`]).
        let mut state = self.lock();
        let unwoken = self.announcer.put(envelopes);
        state.announced = state.announced.max(last);
        unwoken
    }

    /// Announces what other nodes published.
    fn take_pushes(&self, session: &Session) -> Result<(), Broken> {
        while let Some(payload) = session.pushes.pop() {
            let fresh = self.fresh(&payload);
            self.announce_others(&fresh)?;
        }
        match session.pushes.broken() {
            Some(why) => Err(Broken::Failed(why.to_owned())),
            None => Ok(()),
        }
    }

    /// Messages of others that were not announced yet. The originals may announce late; a subscriber
    /// that already has something newer does not get such a message live.
    fn fresh(&self, payload: &[u8]) -> Vec<Arc<Envelope>> {
        let Some(notification) = record::read_notification(payload) else {
            tracing::debug!("an announcement in redis is none of ours");
            return Vec::new();
        };
        notification.notices.iter().for_each(|notice| self.take_notice(notice));
        if notification.node.as_deref() == Some(&self.node) {
            return Vec::new();
        }
        let announced = self.lock().announced;
        let is_late_allowed = notification.node.is_none();
        let messages = notification.messages.into_iter();
        messages.filter(|it| is_late_allowed || it.id > announced).map(Arc::new).collect()
    }
}

/// Whether the server answered that it does not take writes although it is the right one; nothing
/// was executed.
fn is_refusal(error: &RedisError) -> bool {
    takes_no_writes(error) || says(error, &["NOPERM", "BUSY"])
}

/// Whether the server refuses all writes for now. `NOPERM` and `BUSY` are of one call, and may be gone with
/// the next one.
fn takes_no_writes(error: &RedisError) -> bool {
    says(error, &["OOM", "MISCONF", "NOREPLICAS"])
}

fn says(error: &RedisError, codes: &[&str]) -> bool {
    let said = error.code().unwrap_or_default();
    // Redis 6 says it behind the line of the script: its first write, so nothing was executed either.
    let in_script = error.detail().filter(|it| it.contains("@user_script"));
    let inner = in_script.and_then(|it| it.rsplit_once(": -")).map(|it| it.1);
    let inner = inner.and_then(|it| it.split(' ').next()).unwrap_or_default();
    codes.contains(&said) || codes.contains(&inner)
}

/// Whether a session ended because the slot of the keys is on its way to another server.
fn is_moving(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["ask", "moved", "tryagain"]
        .iter()
        .any(|code| error.split(|it: char| !it.is_ascii_alphanumeric()).any(|word| word == *code))
        || error.contains("non local key")
}

fn is_master(role: &redis::Value) -> bool {
    let redis::Value::Array(parts) = role else { return false };
    match parts.first() {
        Some(redis::Value::BulkString(name)) => name == b"master",
        Some(redis::Value::SimpleString(name)) => name == "master",
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests;
