//! The way back to a publisher. Who waits on the thread of a shard is answered through the inbox of that
//! shard, together with what is announced to it: one wake brings both, where each would cost a system call
//! and a turn of the thread.

use std::cell::Cell;

use tokio::sync::oneshot;
use vestnik_core::MessageId;

use crate::announce::ShardNumber;
use crate::engine::{EngineError, Ticket};

/// What became of a batch: the ids of its messages.
pub(crate) type Outcome = Result<Vec<MessageId>, EngineError>;

thread_local! {
    /// The shard whose inbox this thread takes.
    static HERE: Cell<Option<ShardNumber>> = const { Cell::new(None) };
}

/// Says that the calling thread takes the inbox of `shard` from now on, in a loop that waits for
/// [`crate::Announcer::news`]: who publishes on it is answered there.
pub fn settle_on(shard: ShardNumber) {
    HERE.set(Some(shard));
}

/// Where a publisher waits. Dropped, it says that the engine is closed.
pub(crate) struct Reply {
    sender: oneshot::Sender<Outcome>,
    pub(crate) shard: Option<ShardNumber>,
}

impl Reply {
    /// A way back to the caller, and what it waits for.
    pub(crate) fn new() -> (Self, Ticket) {
        let (sender, answered) = oneshot::channel();
        (Self { sender, shard: HERE.get() }, Ticket::Pending(answered))
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Answers. On the publisher's own thread this costs no system call.
    pub(crate) fn send(self, outcome: Outcome) {
        // A publisher that no longer waits needs no answer.
        let _ = self.sender.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vestnik_core::message::Additions;
    use vestnik_core::{Author, ChannelId, Draft, Envelope, Expiry, MessageKind, Receiver};

    use super::*;
    use crate::outbox::OutboxLimits;
    use crate::{Announcer, Shard};

    /// What a publisher has heard so far.
    fn heard(ticket: &mut Ticket) -> Option<Outcome> {
        let Ticket::Pending(answered) = ticket else { panic!("it waits") };
        answered.try_recv().ok()
    }

    #[test]
    fn a_publisher_on_the_thread_of_a_shard_hears_with_what_is_announced_there_by_one_wake() {
        let announcer = Arc::new(Announcer::new(2, 10));
        let here = announcer.shards().last().unwrap();
        let limits = OutboxLimits { messages: 10, bytes: 1 << 20 };
        let mut shard = Shard::<()>::new(here, Arc::clone(&announcer), limits);
        let to = Receiver::Private(ChannelId::from_bytes([1; 16]));
        let (key, _) = shard.subscribe(&[to], None, ());
        shard.replay(key, Vec::new(), MessageId::ZERO);
        let elsewhere = Reply::new();
        settle_on(here);
        let (reply, mut ticket) = Reply::new();
        let draft = Draft {
            receivers: [to].into(),
            body: bytes::Bytes::from_static(b"x"),
            expiry: Expiry::MAX,
            author: Author::Backend,
            kind: MessageKind::UNKNOWN,
            additions: Additions::default(),
        };
        let id = MessageId::new(1, 1);
        let mut unwoken = announcer.put(&[Arc::new(Envelope::new(id, 0, draft))]);
        unwoken.join(announcer.answer(reply, Ok(vec![id])));
        assert!(heard(&mut ticket).is_none(), "not before the shard looks");
        announcer.wake(unwoken);
        let mut news = std::pin::pin!(announcer.news(here));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(news.as_mut().poll(&mut context).is_ready());
        shard.deliver_announced();
        assert_eq!(shard.next_dirty(), Some(key), "the message is there");
        assert!(matches!(heard(&mut ticket), Some(Ok(ids)) if ids == [id]));

        let (reply, mut ticket) = elsewhere;
        announcer.wake(announcer.answer(reply, Ok(vec![])));
        assert!(matches!(heard(&mut ticket), Some(Ok(_))), "no shard is asked on other threads");

        let ((early, mut waits), (late, mut comes)) = (Reply::new(), Reply::new());
        announcer.wake(announcer.answer(early, Ok(vec![])));
        drop(shard);
        assert!(matches!(heard(&mut waits), Some(Ok(_))), "the shard is gone");
        announcer.wake(announcer.answer(late, Ok(vec![])));
        assert!(matches!(heard(&mut comes), Some(Ok(_))), "and stays gone");
    }
}
