//! What numbers, keeps and announces messages: one seam, one atomic step.
//!
//! # Contract
//! Every engine keeps these promises; `engine/contract.rs` tests them on each.
//! 1. Ids grow strictly, over everything, also across restarts and loss of the store.
//! 2. The order in which [`Engine::submit`] was called is the order of ids, of announcements, and of
//!    the drafts within a batch: a volatile message never overtakes a stored one (W-08).
//! 3. A message is announced after it can be read from the history, and its publisher hears of
//!    success after it was stored as durably as configured.
//! 4. [`Engine::history`] gives, ascending and once each, every unexpired stored message of the
//!    receivers that was announced before the call, as far as limits kept it.
//! 5. Memory and disk are bounded: the oldest messages leave first, and that is counted.

mod ascending;
#[cfg(test)]
mod contract;
mod disk;
mod index;
mod memory;
mod redis;

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;
use vestnik_core::metric::Metrics;
use vestnik_core::{Clock, Draft, Envelope, MessageId, Receiver};

#[doc(hidden)]
pub use disk::fuzzing;
pub use disk::{Disk, DiskOptions, OpenError, ReplayRead, Sync};
pub use memory::Memory;
pub use redis::{
    Access, Address, Layout, MigrateError, Migrated, Migration, Redis, RedisOptions, RedisRead,
    RedisTls, Topology,
};

use crate::announce::Announcer;

/// Entries a sweep removes under one hold of the lock.
const SWEEP_SLICE: usize = 512;

/// Slices a sweep does at most; what is left waits for the next one.
const SWEEP_SLICES: usize = 128;

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// Messages listed for one channel; the oldest leave first.
    pub messages_per_channel: usize,
    /// Messages in all; the oldest leave first. At most as many channels are remembered without a
    /// living message, and four times as many entries in channels.
    pub messages: usize,
    /// Bytes: of all files, or of all messages in memory for the memory engine, roughly.
    pub bytes: u64,
    /// Messages that one returning subscriber is given, the newest.
    pub replay_messages: usize,
}

impl HistoryLimits {
    /// The usual limits of the disk engine: 1,000 messages per channel and per replay, a million in
    /// all, 1 GiB.
    #[must_use]
    pub const fn on_disk() -> Self {
        Self {
            messages_per_channel: 1000,
            messages: 1_000_000,
            bytes: 1 << 30,
            replay_messages: 1000,
        }
    }

    /// The usual limits of the memory engine: as on disk, but 256 MiB.
    #[must_use]
    pub const fn in_memory() -> Self {
        Self { bytes: 256 << 20, ..Self::on_disk() }
    }
}

/// What happens to a message that ought to be stored when storing fails (README D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnstored {
    /// It is still delivered live: its publisher never repeats.
    Deliver,
    /// Nothing of its batch is delivered: its publisher will send all of it again.
    Withhold,
}

/// Drafts that are numbered one after the other and stored together.
#[derive(Debug)]
pub struct Batch {
    /// The messages, in order.
    pub drafts: Vec<Draft>,
    /// What happens to them when storing fails.
    pub if_unstored: IfUnstored,
}

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// Too much waits to be stored already; nothing of this batch was taken.
    #[error("{waiting} messages wait to be stored already")]
    Overloaded {
        /// How many messages wait.
        waiting: usize,
    },
    /// The store failed; the sentence says at what.
    #[error("history: {0}")]
    Store(Arc<str>),
    /// The engine was closed; nothing of this batch was taken.
    #[error("the history is closed")]
    Closed,
}

/// The outcome of a submitted batch, as soon as it is known.
#[derive(Debug)]
pub enum Ticket {
    /// Known at once: the batch held nothing to store.
    Ready(Vec<MessageId>),
    /// Known when the store has answered.
    Pending(oneshot::Receiver<Result<Vec<MessageId>, EngineError>>),
}

impl Ticket {
    /// Waits for the ids of the batch's messages. Dropping it does not take the batch back.
    ///
    /// # Errors
    /// [`EngineError::Store`] when the messages were not stored.
    pub async fn ids(self) -> Result<Vec<MessageId>, EngineError> {
        match self {
            Self::Ready(ids) => Ok(ids),
            Self::Pending(answer) => answer.await.unwrap_or(Err(EngineError::Closed)),
        }
    }
}

/// What a returning subscriber missed.
#[derive(Debug, Default)]
pub struct Replay {
    /// The messages, ascending, once each.
    pub envelopes: Vec<Arc<Envelope>>,
    /// Whether messages after the position may be missing: it is older than what is kept, or from
    /// another store.
    pub gap: bool,
    /// Whether newer messages were left out because all of them together are larger than was asked for.
    pub more: bool,
    /// The newest id there was when it was read: a position above it means "from now".
    pub last: MessageId,
}

/// What the other nodes are told of this one.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Its name in the statistics.
    pub name: String,
    /// Its statistics: a JSON object with `date`, milliseconds since 1970; nothing: none.
    pub stats: String,
    /// Counted connections that a channel may have over all nodes; 0: no limit.
    pub connections_per_channel: u32,
}

/// What a node wrote of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStats {
    /// Its name.
    pub name: String,
    /// Its statistics, a JSON object.
    pub json: String,
}

/// What became of a user, with the unix second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The user is at this node now.
    Came(u64),
    /// The user is not at this node any more.
    Went(u64),
    /// The user was seen somewhere.
    Seen(u64),
}

/// What [`Engine::history`] found.
pub enum Lookup {
    /// Everything was in memory.
    Ready(Replay),
    /// A part must be read from files, where blocking is allowed: [`ReplayRead::read`].
    Disk(ReplayRead),
    /// It must be asked for: [`RedisRead::read`].
    Redis(RedisRead),
}

impl Lookup {
    /// Completes the replay; blocks on files or on Redis if it must. For threads without a runtime.
    ///
    /// # Errors
    /// [`EngineError::Store`] when the history cannot be read.
    pub fn read(self) -> Result<Replay, EngineError> {
        match self {
            Self::Ready(replay) => Ok(replay),
            Self::Disk(read) => read.read(),
            Self::Redis(read) => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| EngineError::Store(error.to_string().into()))?
                .block_on(read.read()),
        }
    }
}

/// Numbers, keeps and announces messages. Shared by reference; every call is short.
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
pub enum Engine {
    /// Messages are in memory only.
    Memory(Memory),
    /// Messages are in files.
    Disk(Disk),
    /// Messages are in Redis, shared by several nodes.
    Redis(Redis),
}

impl Engine {
    /// An empty engine without files. Its first id is above those of an engine that was started in
    /// an earlier second.
    #[must_use]
    pub fn memory(
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::Memory(Memory::new(limits, announcer, clock, metrics))
    }

    /// Opens the history in a directory, or begins one; reads all of it, repairs what a killed
    /// process left, and starts the thread that writes.
    ///
    /// # Errors
    /// When the directory cannot be used; nothing of it was changed then, but for what had been
    /// repaired already.
    pub fn disk(
        options: DiskOptions,
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        Disk::open(options, limits, announcer, clock, metrics).map(Self::Disk)
    }

    /// Begins to use Redis; does not wait for it, it may come later.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn redis(
        options: RedisOptions,
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        Redis::start(options, limits, announcer, clock, metrics).map(Self::Redis)
    }

    /// Takes drafts to be numbered, stored as far as they are to be stored, and announced. The order
    /// of calls is the order of ids. Never waits for a disk.
    ///
    /// # Errors
    /// `Overloaded` and `Closed`: nothing was taken. `Store`: a draft is too long to be kept.
    pub fn submit(&self, batch: Batch) -> Result<Ticket, EngineError> {
        match self {
            Self::Memory(memory) => memory.submit(batch).map(Ticket::Ready),
            Self::Disk(disk) => disk.submit(batch),
            Self::Redis(redis) => redis.submit(batch),
        }
    }

    /// What it is called in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Disk(_) => "disk",
            Self::Redis(_) => "redis",
        }
    }

    /// The unexpired stored messages of `receivers` after a position, at most the newest
    /// [`HistoryLimits::replay_messages`]. There is a gap if that limit cut some off, if a limit
    /// removed messages after the position, if the position is of another store, or if it is above
    /// every announced id, which means "from now". Expiry is no gap.
    /// [`MessageId::ZERO`] means everything that is kept. Of those the oldest ones that have at most `bytes` of
    /// bodies together, or one that is larger alone; [`Replay::more`] says when there are others.
    #[must_use]
    pub fn history(&self, receivers: &[Receiver], after: MessageId, bytes: usize) -> Lookup {
        match self {
            Self::Memory(memory) => Lookup::Ready(memory.history(receivers, after, bytes)),
            Self::Disk(disk) => disk.history(receivers, after, bytes),
            Self::Redis(redis) => Lookup::Redis(redis.history(receivers, after, bytes)),
        }
    }

    /// The newest stored message over `receivers`, also if it expired; remembered for a day.
    /// `None` also when Redis does not answer in time.
    pub async fn newest(&self, receivers: &[Receiver]) -> Option<MessageId> {
        match self {
            Self::Memory(memory) => memory.newest(receivers),
            Self::Disk(disk) => disk.newest(receivers),
            Self::Redis(redis) => redis.newest(receivers).await,
        }
    }

    /// The part that several nodes share; `None`: this one is alone.
    pub(crate) fn shared(&self) -> Option<&Redis> {
        match self {
            Self::Memory(_) | Self::Disk(_) => None,
            Self::Redis(redis) => Some(redis),
        }
    }

    /// The newest id that was announced, or the point where numbering begins: whoever listened before
    /// this call gets everything after it live.
    #[must_use]
    pub fn last_id(&self) -> MessageId {
        match self {
            Self::Memory(memory) => memory.last_id(),
            Self::Disk(disk) => disk.last_id(),
            Self::Redis(redis) => redis.last_id(),
        }
    }

    /// Whether the store can be reached now; files and memory always can.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Disk(_) => true,
            Self::Redis(redis) => redis.is_connected(),
        }
    }

    /// Removes what expired and gives its space back, a bounded part of it per call. To be called
    /// every second.
    pub fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep(),
            Self::Disk(disk) => disk.sweep(),
            Self::Redis(_) => {}
        }
    }

    /// Gives memory back, because there is too little: an engine without a disk drops an eighth of what
    /// it keeps, the oldest. To be called every second until there is enough.
    pub fn shed(&self) {
        match self {
            Self::Memory(memory) => memory.shed(),
            // Their messages are elsewhere.
            Self::Disk(_) | Self::Redis(_) => {}
        }
    }

    /// Stores what waits, forces it to disk and stops; later batches are refused. Blocks until that
    /// is done. Dropping the engine does the same.
    pub fn close(&self) {
        match self {
            Self::Memory(memory) => memory.close(),
            Self::Disk(disk) => disk.close(),
            Self::Redis(redis) => redis.close(),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Engine::Memory",
            Self::Disk(_) => "Engine::Disk",
            Self::Redis(_) => "Engine::Redis",
        })
    }
}

#[cfg(test)]
fn batch_of(draft: Draft) -> Batch {
    Batch { drafts: vec![draft], if_unstored: IfUnstored::Deliver }
}
