//! The network edge: sockets in, vocabulary through the codecs, answers out.
//!
//! Each shard is one thread with its own listener sockets, its own event queue and its own part of
//! the hub; a connection lives and dies on one shard.

mod admission;
mod allocator;
mod bodies;
mod drain;
mod handle;
mod http;
mod listen;
mod local;
mod memory;
mod network;
mod observe;
mod options;
mod proxy;
mod publish;
mod rate;
mod readable;
mod respond;
mod route;
mod rpc;
mod server;
mod shard;
mod shared;
mod stats;
mod stream;
mod subscribe;
mod tls;
mod transport;
mod trust;
mod visit;
mod wheel;

pub use handle::Handle;
pub use listen::BindError;
pub use local::LocalPublisher;
pub use network::{Network, ParseNetworkError};
pub use observe::{ConnectionInfo, Form, Survey, Wanted, Way};
pub use options::{Limits, Listener, Options, Timing, UserPublishing};
pub use route::{Route, Routes};
pub use server::{Server, StartError};
pub use tls::{Certificate, CertificateError, Challenges, TicketFileError, Tickets, Tls};
pub use trust::{ForwardedHeader, Trust};
pub use visit::{Door, FrontDesk, Visit, Visits};
