//! The module service's way to a queue server of another process: another vestnik, the original Push
//! servers, an nginx push stream server, a generation-5 server, a cloud server.
//!
//! `vestnik_proto::publisher` knows what the requests look like; here they are sent, and what became of
//! each event is told without guessing.

mod breaker;
mod caller;
mod cloud;
mod http;
mod server;

pub use breaker::{Breaker, BreakerEvent, BreakerState};
pub use caller::{CallError, Caller, Opened, Reply};
pub use cloud::{Cloud, CloudError, CloudServer};
pub use http::{Answer as HttpAnswer, Client as HttpClient, Failure as HttpFailure};
pub use server::{AuthoritiesError, Options, OptionsError, Protocol, RemotePublisher, trusting};
pub use vestnik_proto::publisher::BatchLimits;

/// Whom the certificates of servers are checked with.
pub type TlsConfig = std::sync::Arc<rustls::ClientConfig>;
