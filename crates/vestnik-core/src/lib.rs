//! The vocabulary of vestnik: ids, messages, cursors, keys, time.
//!
//! Pure values: no async, no input or output, no wire format. Every other crate speaks these types,
//! and whoever holds one may trust it: it was checked when it was made.

pub mod clock;
pub mod cursor;
pub mod date;
pub mod message;
pub mod metric;
pub mod publisher;
pub mod receiver;
pub mod secret;
pub mod sign;
pub mod tenant;

pub use clock::Clock;
pub use cursor::Cursor;
pub use message::{Author, Draft, Encoding, Envelope, Expiry, MessageId, MessageKind};
pub use receiver::{ChannelId, Receiver, User, UserId, UserSpace};
pub use secret::Secret;
