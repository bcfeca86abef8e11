//! Which private channel is whose, as far as sites have shown it.
//!
//! A site of generation 5 names a user and the user's private channel together; then publishers and
//! connections of older generations, which know the channel only, can be joined to the user
//! (json-rpc.md §4.5).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use vestnik_core::{ChannelId, Draft, Receiver, User};

/// Channels with their users. Bounded: when it is full it is emptied, and learns again.
#[derive(Default)]
pub struct Pairs(Mutex<HashMap<ChannelId, User>>);

impl Pairs {
    const CHANNELS_MAX: usize = 100_000;

    /// Learns from a site's message that goes to exactly one private channel and one user.
    pub fn learn(&self, draft: &Draft) {
        if let [Receiver::Private(channel), Receiver::User(user)]
        | [Receiver::User(user), Receiver::Private(channel)] = draft.receivers[..]
        {
            let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pairs.len() >= Self::CHANNELS_MAX && !pairs.contains_key(&channel) {
                pairs.clear();
            }
            pairs.insert(channel, user);
        }
    }

    /// The user of a private channel, if it is known.
    #[must_use]
    pub fn user_of(&self, channel: ChannelId) -> Option<User> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&channel).copied()
    }

    /// Adds the users of the channels that a message of an older generation goes to.
    pub fn complete(&self, draft: &mut Draft) {
        let pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.is_empty() {
            return;
        }
        let user = |receiver: &Receiver| match receiver {
            Receiver::Private(channel) => pairs.get(channel).copied().map(Receiver::User),
            Receiver::Public(_)
            | Receiver::User(_)
            | Receiver::UserStatus(_)
            | Receiver::AnyUserStatus(_) => None,
        };
        let users: Vec<_> = draft.receivers.iter().filter_map(user).collect();
        if !users.is_empty() {
            draft.receivers = draft.receivers.iter().copied().chain(users).collect();
        }
    }
}
