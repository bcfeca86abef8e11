//! What waits for one connection: bounded in messages and bytes, and absent while nothing waits.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vestnik_core::Envelope;

/// How much may wait for one connection before it counts as a slow subscriber.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Live messages.
    pub messages: usize,
    /// Bytes of the bodies of live messages.
    pub bytes: usize,
}

/// One thing to send.
#[derive(Debug)]
pub enum Item {
    /// A message published while the connection was there; counts against the limits.
    Live(Arc<Envelope>),
    /// A message from the history; bounded by the length of a replay instead.
    Replayed(Arc<Envelope>),
    /// Ready bytes of the transport: an answer, a ping, a close.
    Frame(Bytes),
}

/// What waits, in the order in which it will be sent.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Item>,
    /// The rest of a write that the kernel took only in part; goes before all items.
    rest: Bytes,
    live_messages: usize,
    live_bytes: usize,
}

impl Queue {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.rest.is_empty()
    }

    /// The rest of a write under way; to be sent before any item.
    pub const fn rest_mut(&mut self) -> &mut Bytes {
        &mut self.rest
    }

    /// The next item, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<&Item> {
        self.items.front()
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Live(envelope) = &item {
            self.live_messages -= 1;
            self.live_bytes -= envelope.body.len();
        }
        Some(item)
    }

    fn push(&mut self, item: Item) {
        if let Item::Live(envelope) = &item {
            self.live_messages += 1;
            self.live_bytes += envelope.body.len();
        }
        self.items.push_back(item);
    }

    /// Drops everything but the rest of the write under way, so that the peer can still read it.
    pub fn keep_rest_only(&mut self) {
        self.items.clear();
        self.live_messages = 0;
        self.live_bytes = 0;
    }

    /// Whether one more message of `bytes` would be over the limits. A single message of any size
    /// always fits an empty queue.
    fn is_full(&self, bytes: usize, limits: OutboxLimits) -> bool {
        self.live_messages > 0
            && (self.live_messages >= limits.messages || self.live_bytes + bytes > limits.bytes)
    }
}

/// The outbox of one connection: a pointer, null while nothing waits.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

impl Outbox {
    /// What waits, if anything does.
    pub fn queue(&mut self) -> Option<&mut Queue> {
        self.0.as_deref_mut()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_deref().is_none_or(Queue::is_empty)
    }

    /// Adds an item without looking at the limits: for frames and replays, which have their own.
    pub fn push(&mut self, item: Item, spare: &mut SpareQueues) {
        self.0.get_or_insert_with(|| spare.take()).push(item);
    }

    /// Adds a live message; `false`, and nothing added, when that would be over `limits`.
    #[must_use]
    pub fn push_live(
        &mut self,
        envelope: &Arc<Envelope>,
        limits: OutboxLimits,
        spare: &mut SpareQueues,
    ) -> bool {
        let queue = self.0.get_or_insert_with(|| spare.take());
        if queue.is_full(envelope.body.len(), limits) {
            return false;
        }
        queue.push(Item::Live(Arc::clone(envelope)));
        true
    }

    /// Puts `replayed` before all messages that wait, and drops those of them that it repeats, which
    /// are the ones numbered up to its last. Frames at the head (a handshake's answer) stay there.
    pub fn put_before(&mut self, replayed: Vec<Arc<Envelope>>, spare: &mut SpareQueues) {
        let Some(last) = replayed.last().map(|envelope| envelope.id) else { return };
        let queue = self.0.get_or_insert_with(|| spare.take());
        let waiting = std::mem::take(&mut queue.items);
        let (messages, bytes) = (&mut queue.live_messages, &mut queue.live_bytes);
        let mut waiting = waiting.into_iter().peekable();
        while let Some(frame) = waiting.next_if(|item| matches!(item, Item::Frame(_))) {
            queue.items.push_back(frame);
        }
        queue.items.extend(replayed.into_iter().map(Item::Replayed));
        for item in waiting {
            match &item {
                Item::Live(envelope) if envelope.id <= last => {
                    *messages -= 1;
                    *bytes -= envelope.body.len();
                }
                Item::Live(_) | Item::Replayed(_) | Item::Frame(_) => queue.items.push_back(item),
            }
        }
    }

    /// Gives an empty queue back for another connection to use.
    pub fn release_if_empty(&mut self, spare: &mut SpareQueues) {
        if self.0.as_deref().is_some_and(Queue::is_empty)
            && let Some(queue) = self.0.take()
        {
            spare.give_back(queue);
        }
    }
}

/// Queues that no connection needs now: a delivery takes one and gives it back, so that fan-out does
/// not allocate.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "the boxes themselves are what is kept: an outbox is one pointer"
)]
pub struct SpareQueues(Vec<Box<Queue>>);

impl SpareQueues {
    const KEPT: usize = 1024;
    /// A queue that grew beyond this is freed instead of kept.
    const ITEMS_KEPT: usize = 16;

    fn take(&mut self) -> Box<Queue> {
        self.0.pop().unwrap_or_default()
    }

    fn give_back(&mut self, queue: Box<Queue>) {
        if self.0.len() < Self::KEPT && queue.items.capacity() <= Self::ITEMS_KEPT {
            self.0.push(queue);
        }
    }
}
