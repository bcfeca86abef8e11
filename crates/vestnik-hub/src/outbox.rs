//! What waits for one connection: bounded in messages and bytes, and absent while nothing waits.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use vestnik_core::{Envelope, MessageId};

/// How much may wait for one connection before it counts as a slow subscriber.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Live messages.
    pub messages: usize,
    /// Bytes of live messages ([`cost`]) and of a write under way, and as many again of the transport's
    /// own frames.
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
    frame_bytes: usize,
}

/// Bytes of memory that a message takes while it waits: its body, and the encoded form that will be
/// written. Forms that only others need are theirs.
#[must_use]
pub(crate) const fn cost(body: &Bytes) -> usize {
    body.len().saturating_mul(2)
}

/// What a frame in the queue costs beside its bytes: most are as short as a pong.
const FRAME_OVERHEAD: usize = 64;

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

    /// The messages that wait, in order, without taking them.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.items.iter().filter_map(|item| match item {
            Item::Live(envelope) | Item::Replayed(envelope) => Some(envelope),
            Item::Frame(_) => None,
        })
    }

    /// The messages at the head, before the next frame, without taking them.
    pub fn next_messages(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.items.iter().map_while(|item| match item {
            Item::Live(envelope) | Item::Replayed(envelope) => Some(envelope),
            Item::Frame(_) => None,
        })
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match &item {
            Item::Live(envelope) => {
                self.live_messages -= 1;
                self.live_bytes -= cost(&envelope.body);
            }
            Item::Frame(frame) => self.frame_bytes -= frame.len() + FRAME_OVERHEAD,
            Item::Replayed(_) => {}
        }
        Some(item)
    }

    fn push(&mut self, item: Item) {
        match &item {
            Item::Live(envelope) => {
                self.live_messages += 1;
                self.live_bytes += cost(&envelope.body);
            }
            Item::Frame(frame) => self.frame_bytes += frame.len() + FRAME_OVERHEAD,
            Item::Replayed(_) => {}
        }
        self.items.push_back(item);
    }

    /// Drops the messages. The rest of a write under way stays, so that the peer can still read it,
    /// and so do the transport's frames: a handshake's answer may be among them.
    pub fn drop_messages(&mut self) {
        self.items.retain(|item| matches!(item, Item::Frame(_)));
        self.live_messages = 0;
        self.live_bytes = 0;
    }

    /// How many live messages wait, and their cost.
    #[cfg(test)]
    pub(crate) const fn live(&self) -> (usize, usize) {
        (self.live_messages, self.live_bytes)
    }

    /// Whether one more message of this cost would be over the limits. A single message of any size
    /// always fits an empty queue.
    fn is_full(&self, cost: usize, limits: OutboxLimits) -> bool {
        let bytes = self.live_bytes + self.rest.len() + cost;
        self.live_messages > 0 && (self.live_messages >= limits.messages || bytes > limits.bytes)
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

    /// Adds a frame; `false`, and nothing added, when frames are over `limits`: a peer that asks for
    /// answers and reads none.
    #[must_use]
    pub fn push_frame(
        &mut self,
        frame: Bytes,
        limits: OutboxLimits,
        spare: &mut SpareQueues,
    ) -> bool {
        let queue = self.0.get_or_insert_with(|| spare.take());
        if queue.frame_bytes > 0 && queue.frame_bytes + frame.len() > limits.bytes {
            return false;
        }
        queue.push(Item::Frame(frame));
        true
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
        if queue.is_full(cost(&envelope.body), limits) {
            return false;
        }
        queue.push(Item::Live(Arc::clone(envelope)));
        true
    }

    /// Puts `replayed` before all messages that wait, and drops those of them that were sent already:
    /// the ones numbered up to `seen` and up to the last replayed one. Frames at the head (a
    /// handshake's answer) stay there.
    pub fn put_before(
        &mut self,
        replayed: Vec<Arc<Envelope>>,
        seen: MessageId,
        spare: &mut SpareQueues,
    ) {
        if replayed.is_empty() && self.is_empty() {
            return;
        }
        let sent = replayed.last().map_or(seen, |envelope| envelope.id.max(seen));
        let queue = self.0.get_or_insert_with(|| spare.take());
        let waiting = std::mem::take(&mut queue.items);
        (queue.live_messages, queue.live_bytes, queue.frame_bytes) = (0, 0, 0);
        let mut waiting = waiting.into_iter().peekable();
        while let Some(frame) = waiting.next_if(|item| matches!(item, Item::Frame(_))) {
            queue.push(frame);
        }
        queue.items.reserve(replayed.len());
        for envelope in replayed {
            queue.push(Item::Replayed(envelope));
        }
        for item in waiting {
            if !matches!(&item, Item::Live(envelope) if envelope.id <= sent) {
                queue.push(item);
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
/// not allocate. As many are kept as were needed at a time lately.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "the boxes themselves are what is kept: an outbox is one pointer"
)]
pub struct SpareQueues {
    queues: Vec<Box<Queue>>,
    /// The fewest there were since [`SpareQueues::thin_out`]: so many nobody needed.
    unused: usize,
}

impl SpareQueues {
    /// Kept even if nobody needs them.
    const KEPT: usize = 256;
    /// Some 30 MB with room for [`Self::ITEMS_KEPT`] messages each, while everybody is written to.
    const KEPT_MAX: usize = 65_536;
    /// A queue that grew beyond this is freed instead of kept.
    const ITEMS_KEPT: usize = 16;

    fn take(&mut self) -> Box<Queue> {
        let queue = self.queues.pop().unwrap_or_default();
        self.unused = self.unused.min(self.queues.len());
        queue
    }

    fn give_back(&mut self, queue: Box<Queue>) {
        if self.queues.len() < Self::KEPT_MAX && queue.items.capacity() <= Self::ITEMS_KEPT {
            self.queues.push(queue);
        }
    }

    /// Frees what was not needed since the last call, but for a few. To be called once in a while.
    pub fn thin_out(&mut self) {
        let needed = self.queues.len() - self.unused.min(self.queues.len());
        self.queues.truncate(needed.max(Self::KEPT));
        self.queues.shrink_to(2 * self.queues.len());
        self.unused = self.queues.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_queues_are_kept_as_were_needed() {
        let mut spare = SpareQueues::default();
        let taken: Vec<_> = (0..1000).map(|_| spare.take()).collect();
        taken.into_iter().for_each(|queue| spare.give_back(queue));
        // They were needed since the last time, and then six hundred were.
        spare.thin_out();
        assert_eq!(spare.queues.len(), 1000);
        let taken: Vec<_> = (0..600).map(|_| spare.take()).collect();
        taken.into_iter().for_each(|queue| spare.give_back(queue));
        spare.thin_out();
        assert_eq!(spare.queues.len(), 600);
        spare.thin_out();
        assert_eq!(spare.queues.len(), SpareQueues::KEPT);
    }
}
