//! Requests of clients: over a connection of their own, or posted by those that poll
//! (json-rpc.md §6.2, §6.4, §7).

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use vestnik_core::metric::Metric;
use vestnik_core::{Author, ChannelId, Receiver, User, UserId, UserSpace};
use vestnik_hub::engine::Ticket;
use vestnik_hub::stats::RequestKind;
use vestnik_hub::{Hub, PublishError, SubscriberKey};
use vestnik_proto::jsonrpc::{self, Call, ClientCaller, Item, Packet, RpcError};
use vestnik_proto::protobuf::RequestError;
use vestnik_proto::query::Query;
use vestnik_proto::websocket::{Opcode, frame};

use super::{Identity, last_seen_result};
use crate::options::UserPublishing;
use crate::respond::{self, Answer};
use crate::shard::{Shard, State};
use crate::shared::Shared;
use crate::transport::websocket;

/// Elements of one array.
const ITEMS_MAX: usize = 100;
/// Users that one message may go to.
const USERS_MAX: usize = 1000;
/// Users in one question.
const ASKED_MAX: usize = 5000;
/// Users whose coming and going a connection may watch.
const WATCHED_MAX: usize = 5000;
/// What a question about everybody costs, in messages.
const ASK_ALL_COST: f32 = 20.0;

const RATE_LIMIT: RpcError = RpcError::Internal("Rate limit");

/// How a request is answered.
enum Reply {
    /// Not at all: it has no id, or is an answer itself.
    None,
    Ready(String),
    /// When its message is stored; with the id.
    Stored(Ticket, String),
    /// When the other nodes were asked; with the id.
    LastSeen(Question, String),
}

/// A question when users of a site were seen; `None`: all of them.
struct Question(UserSpace, Option<Vec<UserId>>);

/// What a call came to.
enum Done {
    /// Its result.
    Now(String),
    /// An empty one, when a message is stored.
    Stored(Ticket),
    /// What the other nodes say.
    Asks(Question),
}

impl Done {
    fn now(result: impl Into<String>) -> Self {
        Self::Now(result.into())
    }
}

impl Shard {
    /// Acts on a text that came over a JSON-RPC connection. Nothing in it closes the connection.
    pub(crate) fn client_text(self: &Rc<Self>, state: &mut State, key: SubscriberKey, text: &[u8]) {
        let text = text.trim_ascii();
        // `pong`, `mack:…`, `undefined`, `null` and whatever other clients say in words (J-076).
        if !matches!(text.first(), Some(b'{' | b'[')) {
            return;
        }
        let packet = jsonrpc::parse(text, ITEMS_MAX).unwrap_or(Err(RpcError::InvalidRequest));
        match packet {
            Err(error) => self.answer_client(state, key, &jsonrpc::error(None, error)),
            Ok(Packet::Batch(items)) if items.is_empty() => {
                let error = jsonrpc::error(None, RpcError::InvalidRequest);
                self.answer_client(state, key, &error);
            }
            Ok(Packet::Single(item)) => match self.reply(state, key, item) {
                Reply::None => {}
                Reply::Ready(answer) => self.answer_client(state, key, &answer),
                later @ (Reply::Stored(..) | Reply::LastSeen(..)) => {
                    self.answer_later(key, vec![later], false);
                }
            },
            Ok(Packet::Batch(items)) => {
                let replies: Vec<_> =
                    items.into_iter().map(|item| self.reply(state, key, item)).collect();
                self.answer_later(key, replies, true);
            }
        }
    }

    fn answer_client(&self, state: &mut State, key: SubscriberKey, answer: &str) {
        state.subscribers.send(key, frame(Opcode::Text, &[answer.as_bytes()]));
    }

    /// Answers when everything is stored that is to be.
    fn answer_later(self: &Rc<Self>, key: SubscriberKey, replies: Vec<Reply>, is_batch: bool) {
        let shard = Rc::clone(self);
        self.spawn(async move {
            let answers = answers(&shard.shared.hub, replies).await;
            let answer = match &answers[..] {
                [] => return,
                [answer] if !is_batch => answer.clone(),
                answers => jsonrpc::array(answers),
            };
            shard.answer_client(&mut shard.state.borrow_mut(), key, &answer);
            shard.wake();
        });
    }

    fn reply(self: &Rc<Self>, state: &mut State, key: SubscriberKey, item: Item<'_>) -> Reply {
        match item {
            Item::Answer => Reply::None,
            Item::Invalid(id) => Reply::Ready(jsonrpc::error(id, RpcError::InvalidRequest)),
            Item::Call(call) => {
                let done = self.call(state, key, &call);
                if let Err(error) = &done {
                    tracing::debug!(conn = key.serial(), ?error, "client request refused");
                }
                replied(call.id, done)
            }
        }
    }

    /// Does what a client asks over its connection.
    fn call(
        &self,
        state: &mut State,
        key: SubscriberKey,
        call: &Call<'_>,
    ) -> Result<Done, RpcError> {
        let address = websocket(state, key).and_then(|socket| socket.admitted());
        let Some(rpc) = websocket(state, key).and_then(|socket| socket.rpc_mut()) else {
            return Err(RpcError::MethodNotFound);
        };
        let identity = rpc.identity;
        let cost = match &*call.method {
            "publish" => 1.0,
            "getUsersLastSeen" if jsonrpc::last_seen(call.params, ASKED_MAX) == Ok(None) => {
                ASK_ALL_COST
            }
            _ => 0.0,
        };
        if cost > 0.0 && !rpc.allowance.take(cost) {
            self.shared.metrics().increment(Metric::RateLimited);
            return Err(RATE_LIMIT);
        }
        if call.method == "publish"
            && address.is_some_and(|address| !self.shared.may_publish(address))
        {
            return Err(RATE_LIMIT);
        }
        let space = self.shared.space_of(&identity);
        match &*call.method {
            "subscribeStatusChange" => {
                let id = jsonrpc::watched_user(call.params)?;
                if let Some(space) = space {
                    watch(state, key, Receiver::UserStatus(User { space, id }))?;
                }
                Ok(Done::now("{}"))
            }
            "unsubscribeStatusChange" => {
                let id = jsonrpc::watched_user(call.params)?;
                if let Some(space) = space {
                    let receiver = Receiver::UserStatus(User { space, id });
                    state.subscribers.unlisten(key, receiver);
                }
                Ok(Done::now("{}"))
            }
            "subscribe" => {
                let names = jsonrpc::channel_names(call.params)?;
                // Other names are accepted and mean nothing (J-100).
                if let Some(space) = space
                    && names.iter().any(|name| name == jsonrpc::STATUS_CHANNEL)
                {
                    watch(state, key, Receiver::AnyUserStatus(space))?;
                }
                Ok(Done::now("{}"))
            }
            "listChannels" => Ok(Done::now(channels(state, key))),
            _ => self.shared.call(&identity, call),
        }
    }

    /// `POST pubweb` or `rest` with text: what a client that polls has to say. Its signed ids are its
    /// only credential (json-rpc.md §6.4).
    pub(crate) async fn publish_text_of_client(
        self: &Rc<Self>,
        raw_query: &str,
        author: Option<ChannelId>,
        body: Bytes,
    ) -> Answer {
        let text = body.trim_ascii();
        if !matches!(text.first(), Some(b'{' | b'[')) {
            return respond::taken();
        }
        let Some(author) = author else {
            return self.refusal(&RequestError::PublicChannelRequired);
        };
        let identity = Identity {
            user: None,
            addressee: None,
            space: None,
            author: Author::Client(author),
            has_revision: Query::parse(raw_query).has_revision(),
            until_s: None,
        };
        let reply = |item: Item<'_>| match item {
            Item::Answer => Reply::None,
            Item::Invalid(id) => Reply::Ready(jsonrpc::error(id, RpcError::InvalidRequest)),
            Item::Call(call) => replied(call.id, self.shared.call(&identity, &call)),
        };
        let packet = jsonrpc::parse(text, ITEMS_MAX).unwrap_or(Err(RpcError::InvalidRequest));
        let (replies, is_batch) = match packet {
            Err(error) => (vec![Reply::Ready(jsonrpc::error(None, error))], false),
            Ok(Packet::Single(item)) => (vec![reply(item)], false),
            Ok(Packet::Batch(items)) => (items.into_iter().map(reply).collect(), true),
        };
        // The messages are taken already: a caller that hangs up does not take them back.
        let answers = answers(&self.shared.hub, replies).await;
        match &answers[..] {
            [] => respond::taken(),
            [answer] if !is_batch => respond::answer(StatusCode::OK, respond::JSON, answer.clone()),
            answers => respond::answer(StatusCode::OK, respond::JSON, jsonrpc::array(answers)),
        }
    }
}

impl Shared {
    /// Does what a client asks, as far as it needs no connection.
    fn call(&self, identity: &Identity, call: &Call<'_>) -> Result<Done, RpcError> {
        match &*call.method {
            "publish" => self.client_publish(identity, call.params),
            "getUsersLastSeen" => {
                let users = jsonrpc::last_seen(call.params, ASKED_MAX)?;
                match self.space_of(identity) {
                    None => Ok(Done::now(last_seen_result(&[]))),
                    Some(space) if self.hub.is_shared() => Ok(Done::Asks(Question(space, users))),
                    Some(space) => {
                        let seen = self.hub.presence().last_seen(space, users.as_deref());
                        Ok(Done::now(last_seen_result(&seen)))
                    }
                }
            }
            "ping" => Ok(Done::now(r#""pong""#)),
            _ => Err(RpcError::MethodNotFound),
        }
    }

    fn client_publish(&self, identity: &Identity, params: &str) -> Result<Done, RpcError> {
        let may_write_to_users =
            identity.user.is_some() || self.options().user_publishing == UserPublishing::Everybody;
        let caller = ClientCaller {
            author: identity.author,
            space: self.space_of(identity).filter(|_| may_write_to_users),
            keys: &self.tenant().keys,
            now_s: self.hub.clock().unix_s(),
            expiry_max: self.options().message_ttl,
            channels_max: self.options().limits.channels_per_request,
            users_max: USERS_MAX,
        };
        let draft = jsonrpc::client_publish(params, &caller)?;
        self.hub.stats().count_request(RequestKind::IncomingMessages);
        if draft.receivers.is_empty() {
            return Ok(Done::now("{}"));
        }
        let ticket = self.hub.publish_now(vec![draft]).map_err(|error| {
            // Full memory is said once, when it began.
            if !matches!(error, PublishError::Full) {
                tracing::warn!(%error, "client message not accepted");
            }
            RpcError::Internal("Overloaded")
        })?;
        Ok(Done::Stored(ticket))
    }

    /// The site of a client: that of its token, else the only one there is.
    fn space_of(&self, identity: &Identity) -> Option<UserSpace> {
        identity.space.or_else(|| self.hub.presence().only_space())
    }
}

fn replied(id: Option<&str>, done: Result<Done, RpcError>) -> Reply {
    match done {
        // By the letter of JSON-RPC a request without an id wants no answer.
        _ if id.is_none() => Reply::None,
        Ok(Done::Now(result)) => Reply::Ready(jsonrpc::result(id, &result)),
        Ok(Done::Stored(ticket)) => Reply::Stored(ticket, id.unwrap_or_default().to_owned()),
        Ok(Done::Asks(question)) => Reply::LastSeen(question, id.unwrap_or_default().to_owned()),
        Err(error) => Reply::Ready(jsonrpc::error(id, error)),
    }
}

/// The answers of all requests that get one, as soon as all are known.
async fn answers(hub: &Hub, replies: Vec<Reply>) -> Vec<String> {
    let mut answers = Vec::with_capacity(replies.len());
    for reply in replies {
        match reply {
            Reply::None => {}
            Reply::Ready(answer) => answers.push(answer),
            Reply::LastSeen(Question(space, users), id) => {
                let seen = hub.last_seen(space, users.as_deref()).await;
                answers.push(jsonrpc::result(Some(&id), &last_seen_result(&seen)));
            }
            Reply::Stored(ticket, id) => {
                let stored = tokio::time::timeout(Hub::ANSWER_WITHIN, ticket.ids()).await;
                let stored = match stored {
                    Ok(stored) => stored.map_err(PublishError::from),
                    Err(_) => Err(PublishError::TimedOut),
                };
                answers.push(match stored {
                    Ok(_) => jsonrpc::result(Some(&id), "{}"),
                    Err(error) => {
                        tracing::error!(%error, "client message not stored");
                        jsonrpc::error(Some(&id), RpcError::Internal("Message not stored"))
                    }
                });
            }
        }
    }
    answers
}

/// Makes a connection hear of one more status.
fn watch(state: &mut State, key: SubscriberKey, receiver: Receiver) -> Result<(), RpcError> {
    let Some(subscriber) = state.subscribers.get(key) else { return Ok(()) };
    let watched = subscriber.receivers().filter(|it| it.channel().is_none()).count();
    if watched > WATCHED_MAX {
        return Err(RpcError::InvalidParams("too many users are watched"));
    }
    state.subscribers.listen(key, receiver);
    Ok(())
}

/// The channels of a connection as a JSON array, each once.
fn channels(state: &mut State, key: SubscriberKey) -> String {
    let Some(subscriber) = state.subscribers.get(key) else { return "[]".to_owned() };
    let mut ids: Vec<ChannelId> = Vec::new();
    for id in subscriber.receivers().filter_map(|receiver| receiver.channel()) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let ids: Vec<_> = ids.iter().map(|id| format!(r#""{id}""#)).collect();
    jsonrpc::array(&ids)
}
