//! What administrators see of a running server: counted by the shards when somebody asks, so that nobody pays
//! for it otherwise.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::oneshot;
use vestnik_core::{ChannelId, Receiver, UserId};
use vestnik_hub::SubscriberKey;
use vestnik_proto::query::Framing;

use crate::handle::Handle;
use crate::shard::{Shard, State};
use crate::shared::Command;
use crate::transport::{CloseReason, Connection};

/// Receivers that the survey of one shard names at most.
const TOP: usize = 20;

/// How a connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Over a WebSocket.
    WebSocket,
    /// A long poll that is being held.
    Poll,
    /// Between two long polls: its client is expected back.
    BetweenPolls,
}

/// The form in which it gets messages, which tells its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Framed text: generations 3 and earlier.
    Text,
    /// Protobuf: generation 4.
    Protobuf,
    /// JSON-RPC: generation 5.
    JsonRpc,
    /// A JSON array, on request.
    Json,
    /// Not known of polls.
    Unknown,
}

/// Numbers of all shards at one moment.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Connections by way and form.
    pub connections: HashMap<(Way, Form), u64>,
    /// Messages that wait in outboxes.
    pub waiting: u64,
    /// Connections with anything in the outbox.
    pub behind: u64,
    /// Receivers with the most connections.
    pub top: Vec<(Receiver, u64)>,
}

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// Those of a channel, private or public.
    Channel(ChannelId),
    /// Those of a user of generation 5.
    User(UserId),
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its number in the log; with the shard it names the connection.
    pub serial: u64,
    /// The shard it lives on.
    pub shard: usize,
    /// How it reads.
    pub way: Way,
    /// What it gets.
    pub form: Form,
    /// When it came, unix seconds.
    pub since_s: u64,
    /// Where it comes from, as far as that is kept.
    pub address: Option<IpAddr>,
    /// What it listens to.
    pub receivers: Vec<Receiver>,
    /// Messages that wait for it.
    pub waiting: usize,
}

impl Wanted {
    fn fits(self, receivers: impl Iterator<Item = Receiver>) -> bool {
        let mut receivers = receivers;
        match self {
            Self::All => true,
            Self::Channel(id) => receivers.any(|it| it.channel() == Some(id)),
            Self::User(id) => {
                receivers.any(|it| matches!(it, Receiver::User(user) if user.id == id))
            }
        }
    }
}

fn way_and_form(connection: &Connection) -> (Way, Form) {
    match connection {
        Connection::WebSocket(socket) => {
            let form = match socket.framing() {
                Framing::Text => Form::Text,
                Framing::Protobuf => Form::Protobuf,
                Framing::JsonRpc => Form::JsonRpc,
                Framing::Json => Form::Json,
            };
            (Way::WebSocket, form)
        }
        Connection::Poll(_) => (Way::Poll, Form::Unknown),
        Connection::BetweenPolls(_) => (Way::BetweenPolls, Form::Unknown),
    }
}

fn address(connection: &Connection) -> Option<IpAddr> {
    match connection {
        Connection::WebSocket(socket) => socket.admitted(),
        Connection::Poll(_) | Connection::BetweenPolls(_) => None,
    }
}

/// The largest few.
fn largest(counts: HashMap<Receiver, u64>) -> Vec<(Receiver, u64)> {
    let mut all: Vec<_> = counts.into_iter().collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.to_bytes().cmp(&b.0.to_bytes())));
    all.truncate(TOP);
    all
}

impl Shard {
    /// Answers what an administrator asks; each takes a walk over all subscribers.
    pub(crate) fn survey(&self, state: &mut State) -> Survey {
        let mut survey = Survey::default();
        let keys: Vec<_> = state.subscribers.keys().collect();
        for key in keys {
            let Some(subscriber) = state.subscribers.get(key) else { continue };
            *survey.connections.entry(way_and_form(&subscriber.connection)).or_default() += 1;
            let waiting = subscriber.outbox.queue().map_or(0, |queue| queue.messages().count());
            survey.waiting += waiting as u64;
            survey.behind += u64::from(waiting > 0);
        }
        survey.top = state
            .subscribers
            .most_listened(TOP)
            .into_iter()
            .map(|(receiver, count)| (receiver, count as u64))
            .collect();
        survey
    }

    /// Connections that fit, `limit` at most, the earliest first.
    pub(crate) fn list(
        &self,
        state: &mut State,
        wanted: Wanted,
        limit: usize,
    ) -> Vec<ConnectionInfo> {
        let mut keys: Vec<_> = state.subscribers.keys().collect();
        keys.sort_unstable_by_key(|key| key.serial());
        let mut list = Vec::new();
        for key in keys {
            let Some(subscriber) = state.subscribers.get(key) else { continue };
            if !wanted.fits(subscriber.receivers()) {
                continue;
            }
            let (way, form) = way_and_form(&subscriber.connection);
            list.push(ConnectionInfo {
                serial: key.serial(),
                shard: self.number.index(),
                way,
                form,
                since_s: u64::from(subscriber.came_s),
                address: address(&subscriber.connection),
                receivers: subscriber.receivers().collect(),
                waiting: subscriber.outbox.queue().map_or(0, |queue| queue.messages().count()),
            });
            if list.len() == limit {
                break;
            }
        }
        list
    }

    /// Closes the connection with this number; `false` when it is gone.
    pub(crate) fn disconnect(self: &Rc<Self>, state: &mut State, serial: u64) -> bool {
        let found: Option<SubscriberKey> =
            state.subscribers.keys().find(|it| it.serial() == serial);
        let Some(key) = found else { return false };
        self.close(state, key, CloseReason::Stopping);
        true
    }
}

impl Handle {
    /// Asks one shard; `None` when it is gone.
    async fn ask<T>(
        &self,
        shard: usize,
        ask: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.commands.get(shard)?.send(ask(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Numbers of all shards, one after another.
    pub async fn survey(&self) -> Survey {
        let mut all = Survey::default();
        let mut top: HashMap<Receiver, u64> = HashMap::new();
        for shard in 0..self.shared.commands.len() {
            let Some(survey) = self.ask(shard, Command::Survey).await else { continue };
            for (kind, count) in survey.connections {
                *all.connections.entry(kind).or_default() += count;
            }
            all.waiting += survey.waiting;
            all.behind += survey.behind;
            for (receiver, count) in survey.top {
                *top.entry(receiver).or_default() += count;
            }
        }
        all.top = largest(top);
        all
    }

    /// Connections that fit, `limit` at most.
    pub async fn connections(&self, wanted: Wanted, limit: usize) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        for shard in 0..self.shared.commands.len() {
            let ask = |answer| Command::List(wanted, limit, answer);
            all.extend(self.ask(shard, ask).await.unwrap_or_default());
        }
        all.sort_unstable_by_key(|it| it.serial);
        all.truncate(limit);
        all
    }

    /// Closes a connection, in the way its client comes back after; `false` when it is gone.
    pub async fn disconnect(&self, shard: usize, serial: u64) -> bool {
        self.ask(shard, |answer| Command::Disconnect(serial, answer)).await.unwrap_or(false)
    }
}
