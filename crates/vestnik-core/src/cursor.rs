//! Where a subscriber stopped reading.

use crate::message::MessageId;

/// Position of a subscriber in the messages of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// It wants only what is published from now on.
    Live,
    /// It has seen everything up to and including this message. Wire: query parameter `mid`.
    After(MessageId),
}
