//! The module service's way to a queue server: in the same process, or over the network.

use std::borrow::Cow;
use std::pin::Pin;

use bytes::Bytes;

use crate::message::{Expiry, MessageKind};
use crate::receiver::{ChannelId, UserId};

/// A future in a box: implementations live in other crates than their callers.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The most events of one [`Publisher::publish`].
pub const EVENTS_MAX: usize = 1000;

/// One event of the module, addressed and ready to be sent (module.md §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleEvent {
    /// `{"module_id":…,"command":…,"params":…,"extra":…}`: the text of one JSON object. How a
    /// generation escapes it is the publisher's matter.
    pub body: Bytes,
    /// `{module_id}_{command}`, what the event is counted as. Wire: `type`.
    pub kind: MessageKind,
    /// How long it is kept. JSON-RPC cannot say "not at all": a volatile event is kept for a day there,
    /// as with PHP (module.md §8.3).
    pub expiry: Expiry,
    /// Who gets it.
    pub recipients: Recipients,
    /// What single users get beside `params`: the text of a JSON object each. Only for servers that
    /// address users; for others the caller makes an event of each (M-050).
    pub user_params: Vec<(UserId, Bytes)>,
    /// What all users get beside `params`: the text of a JSON object. As `user_params`.
    pub dictionary: Option<Bytes>,
}

/// Who gets an event. Somebody named twice, by channel and as a user, gets it once (M-064).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Channels that the back end writes to: those of users, shared ones, those of tags.
    pub channels: Vec<ChannelId>,
    /// Public channels. Protobuf and a server in this process alone can address them.
    pub public_channels: Vec<ChannelId>,
    /// Users; servers below generation 5 do not know any, so their channels are named as well.
    pub users: Vec<UserId>,
}

impl Recipients {
    /// Whether it names nobody.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.public_channels.is_empty() && self.users.is_empty()
    }

    /// How many it names.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.channels.len() + self.public_channels.len() + self.users.len()
    }
}

/// Why an event is not known to be published: a variant for each thing to do about it. The texts say
/// what happened, for a log or a person.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// It was not published and will not be: repeating it changes nothing.
    #[error("the event was refused: {0}")]
    Refused(Cow<'static, str>),
    /// Nobody got it, since it was never sent or nothing of it was taken: it may be sent again later
    /// and will not be doubled by that.
    #[error("the event was not published: {0}")]
    Unpublished(Cow<'static, str>),
    /// It was sent, maybe to some of its receivers only, and the answer does not tell whether it was
    /// published: sent again, it may be doubled.
    #[error("it is not known whether the event was published: {0}")]
    Unknown(Cow<'static, str>),
}

impl PublishError {
    /// Whether the event may be sent again without being doubled.
    #[must_use]
    pub const fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Unpublished(_))
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// This kind of server does not know such things.
    #[error("the queue server cannot tell {0}")]
    Unsupported(&'static str),
    /// The question is wrong, or who asks is not trusted: asking again changes nothing.
    #[error("the queue server refused the question: {0}")]
    Refused(Cow<'static, str>),
    /// No answer, or none that makes sense; asking again may help.
    #[error("the queue server did not answer: {0}")]
    Failed(Cow<'static, str>),
}

/// How many connections listen to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// The channel that was asked about.
    pub channel: ChannelId,
    /// Connections; 1 where the server tells only that there are some.
    pub count: u32,
}

/// A queue server that one site publishes through. What it is and how it is reached was decided when it
/// was made.
pub trait Publisher: Send + Sync {
    /// Whether users can be addressed as such, with `user_params` and `dictionary`: generation 5. An
    /// event with those is refused where this is `false`.
    fn addresses_users(&self) -> bool;

    /// Publishes `events` in their order, and tells of each, at the same index, what became of it. At
    /// most [`EVENTS_MAX`]; those beyond are `Unpublished`.
    ///
    /// Events are never repeated by the publisher once a byte of them was sent. Not cancel safe: dropped
    /// midway, events may have been published.
    fn publish<'a>(
        &'a self,
        events: &'a [ModuleEvent],
    ) -> BoxFuture<'a, Vec<Result<(), PublishError>>>;

    /// How many listen to each of `channels`, which are private or shared ones; in their order.
    ///
    /// # Errors
    /// See [`AskError`]; there is no answer for a part of the channels.
    fn listeners<'a>(
        &'a self,
        channels: &'a [ChannelId],
    ) -> BoxFuture<'a, Result<Vec<Listeners>, AskError>>;

    /// Seconds since each of `users` was seen, 0 for who is online; users never seen are left out
    /// (M-067).
    ///
    /// # Errors
    /// `Unsupported` below generation 5.
    fn last_seen<'a>(
        &'a self,
        users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<(UserId, u64)>, AskError>>;

    /// Tells when users were seen elsewhere, unix seconds (M-067).
    ///
    /// # Errors
    /// `Unsupported` below generation 5.
    fn update_last_seen<'a>(
        &'a self,
        seen_s: &'a [(UserId, u64)],
    ) -> BoxFuture<'a, Result<(), AskError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_got_may_be_repeated() {
        assert!(PublishError::Unpublished("refused connection".into()).may_be_repeated());
        assert!(!PublishError::Refused("too large".into()).may_be_repeated());
        assert!(!PublishError::Unknown("no answer".into()).may_be_repeated());
    }

    #[test]
    fn a_publisher_can_be_chosen_at_run_time() {
        fn takes(_: Option<std::sync::Arc<dyn Publisher>>) {}
        takes(None);
    }
}
