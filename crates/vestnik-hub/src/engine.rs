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

use std::sync::Arc;

use tokio::sync::oneshot;
use vestnik_core::{Draft, Envelope, MessageId};

/// What happens to a message that ought to be stored when storing fails (README D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnstored {
    /// It is still delivered live: its publisher never repeats.
    Deliver,
    /// It is not delivered at all: its publisher will send it again.
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
}
