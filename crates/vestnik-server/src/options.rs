//! What the network edge needs to know; checked by whoever fills it in.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vestnik_core::Expiry;
use vestnik_core::tenant::Tenant;
use vestnik_hub::OutboxLimits;

use crate::route::Routes;
use crate::tls::{Challenges, Tls};
use crate::trust::Trust;

/// One address to listen at.
#[derive(Clone, Debug)]
pub struct Listener {
    /// For logs.
    pub name: String,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections the kernel may hold that were not accepted yet.
    pub backlog: u32,
    /// What is served there.
    pub routes: Routes,
    /// What its connections are encrypted with; `None`: nothing.
    pub tls: Option<Tls>,
    /// Whether its connections begin with a PROXY header; then they come from `trust.proxies` alone.
    pub proxy_protocol: bool,
    /// A socket that listens there already, opened by whoever started the process.
    pub inherited: Option<Arc<TcpListener>>,
}

/// Sizes and counts; all are at least 1 unless said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a text publish, a client's publish or a client's WebSocket message (README D18).
    pub max_payload: usize,
    /// Bytes of a binary publish on the trusted route.
    pub max_trusted_payload: usize,
    /// Connections of one private channel, over all shards (README D12).
    pub connections_per_channel: u32,
    /// Connections of one user of generation 5, over all shards.
    pub connections_per_user: u32,
    /// Connections of the whole process.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Subscriptions a second from one address; 0: no limit.
    pub subscriptions_per_second: u32,
    /// Publishes a second from one address that is not trusted; 0: no limit.
    pub publishes_per_second: u32,
    /// Bytes of memory of the process above which nothing new is taken; 0: no limit.
    pub memory: u64,
    /// Messages in one binary request.
    pub messages_per_request: usize,
    /// Receivers of one message, channels of one question, channels of one subscription.
    pub channels_per_request: usize,
    /// Bytes of a request's head.
    pub request_head: usize,
    /// What may wait for one connection.
    pub outbox: OutboxLimits,
}

impl Limits {
    /// Bytes of the bodies of everybody who is not trusted, at a time: a quarter of the memory, or a fixed
    /// amount where that has no limit; but always enough for one body.
    pub(crate) fn strangers_bodies(&self) -> usize {
        const WITHOUT_LIMIT: u64 = 256 * 1024 * 1024;
        let budget = if self.memory > 0 { self.memory / 4 } else { WITHOUT_LIMIT };
        usize::try_from(budget).unwrap_or(usize::MAX).max(self.max_trusted_payload)
    }
}

/// How long things take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A long poll without news ends after this; below 60 s (K-070).
    pub poll: Duration,
    /// Between two pings of a WebSocket connection (README D14); at most [`Timing::PING_MAX`].
    pub ping: Duration,
    /// Between two text pings of a JSON-RPC connection; one without `revision` gets twice as many
    /// (json-rpc.md §6.3).
    pub text_ping: Duration,
    /// A JSON-RPC connection that says nothing for this long is dropped.
    pub text_silence: Duration,
    /// A connection may outlive its token by this (json-rpc.md §5.4).
    pub token_grace: Duration,
    /// A request body may pause this long.
    pub body: Duration,
    /// A request head must be complete after this.
    pub head: Duration,
    /// A kept-alive connection may be idle this long.
    pub keep_alive: Duration,
    /// A poll counts as online this long after its answer (README D13).
    pub presence_grace: Duration,
    /// At shutdown, 10,000 connections are closed over this time (K-042).
    pub drain: Duration,
}

impl Timing {
    /// The longest time between two pings; below the span of the timer wheel.
    pub const PING_MAX: Duration = Duration::from_secs(3600);
}

/// Which clients of generation 5 may write to users by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserPublishing {
    /// Those whose token names a user.
    SignedIn,
    /// Guests and anonymous pages too.
    Everybody,
}

/// Everything the network edge needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// Who may use trusted routes.
    pub trust: Trust,
    /// Sizes and counts.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
    /// Who may write to users by their numbers (json-rpc.md §7).
    pub user_publishing: UserPublishing,
    /// The file that keeps when users were last seen; `None`: nothing is kept.
    pub last_seen: Option<PathBuf>,
    /// What authorities of certificates are shown; the same over every reload.
    pub challenges: Arc<Challenges>,
    /// The default tenant.
    pub tenant: Tenant,
    /// Whether WebSocket messages are compressed for clients that offer it.
    pub compression: bool,
    /// The longest time a message is kept; publishers that ask for more get this.
    pub message_ttl: Expiry,
    /// Whether the statistics say that this process is one of a cluster.
    pub cluster_mode: bool,
    /// What the statistics say of limits beside those in force: members of an imported file.
    pub other_limits: serde_json::Map<String, serde_json::Value>,
    /// How this process calls itself in the statistics.
    pub process_unique_id: String,
}
