//! Parameters of the methods.

use std::collections::HashSet;

use bytes::Bytes;
use vestnik_core::message::{Additions, Author, Draft, Expiry, MessageKind};
use vestnik_core::sign::{KeyRing, Signature};
use vestnik_core::{ChannelId, Receiver, User, UserId, UserSpace};

use super::RpcError;
use super::merge::{with_params, without};
use crate::body::{elements, is_reserved, member, members, pick, string_text};

/// The channel of `subscribe` that stands for the coming and going of all users of a site.
pub const STATUS_CHANNEL: &str = "internal:user_status";

/// Reads the parameters of a site's `publish` (json-rpc.md §4.4). `cap`: the longest expiry.
///
/// Whoever is named in both lists is named once in effect, since a connection gets a message once.
/// What in the lists is neither a channel nor a user is skipped, and so is user 0, which is nobody.
///
/// # Errors
/// When there is no body, or it is no object.
pub fn site_publish(params: &str, space: UserSpace, cap: Expiry) -> Result<Draft, RpcError> {
    const NAMES: [&str; 7] =
        ["body", "channelList", "userList", "user_params", "dictionary", "expiry", "type"];
    let [body, channels, users, user_params, dictionary, expiry, kind] = pick(params, NAMES);
    let body = object_of(body)?;
    // PHP swaps the lists of deferred messages: what an element is shows in itself (J-025).
    let mut receivers: Vec<_> =
        values(channels).chain(values(users)).filter_map(|value| receiver(value, space)).collect();
    receivers.sort_unstable();
    receivers.dedup();
    let mut body = body.to_owned();
    let dictionary = dictionary.filter(|it| it.starts_with('{'));
    if let Some(merged) = dictionary.and_then(|dictionary| with_params(&body, dictionary)) {
        body = merged;
    }
    let additions = additions(user_params, space, dictionary.unwrap_or_default());
    let asked = expiry.and_then(number).unwrap_or_default();
    let expiry = match u64::try_from(asked) {
        Ok(seconds) if seconds > 0 => Expiry::new(seconds, cap),
        // Missing or not positive (J-031).
        Ok(_) | Err(_) => cap,
    };
    let kind = kind.and_then(string_text);
    Ok(Draft {
        receivers: receivers.into(),
        body: body.into(),
        expiry,
        author: Author::Backend,
        kind: MessageKind::parse(kind.as_deref().unwrap_or_default()),
        additions,
    })
}

fn object_of(body: Option<&str>) -> Result<&str, RpcError> {
    let body = body.filter(|body| body.starts_with('{'));
    body.ok_or(RpcError::InvalidParams("body must be an object"))
}

/// What single users get, without the names that the dictionary has too, because it wins (J-029).
fn additions(user_params: Option<&str>, space: UserSpace, dictionary: &str) -> Additions {
    let names: HashSet<_> = members(dictionary).map(|(key, _)| key).collect();
    let additions = members(user_params.unwrap_or_default());
    let additions = additions.filter_map(|(user, addition)| {
        let user = User { space, id: user.parse().ok()? };
        Some((user, Bytes::from(without(addition, &names)?)))
    });
    Additions::new(additions.collect())
}

/// A receiver of a site's list: 32 hex digits are a channel, a number other than 0 is a user.
fn receiver(value: &str, space: UserSpace) -> Option<Receiver> {
    let user = |id| Receiver::User(User { space, id });
    let Some(text) = string_text(value) else { return value.parse().ok().map(user) };
    let id = text.to_ascii_lowercase().parse::<ChannelId>();
    id.map(Receiver::Private).ok().or_else(|| text.parse().ok().map(user))
}

/// Who publishes, and what it may.
#[derive(Clone, Copy, Debug)]
pub struct ClientCaller<'a> {
    /// Who it is said to come from.
    pub author: Author,
    /// The users it may write to; `None`: none.
    pub space: Option<UserSpace>,
    /// Keys that sign public channels.
    pub keys: &'a KeyRing,
    /// Unix seconds, for keys that have an end.
    pub now_s: u64,
    /// The longest expiry.
    pub expiry_max: Expiry,
    /// The most channels of one message.
    pub channels_max: usize,
    /// The most users of one message.
    pub users_max: usize,
}

/// A client's message; without receivers it goes nowhere.
pub type ClientPublish = Draft;

/// Reads the parameters of a client's `publish` (json-rpc.md §7).
///
/// # Errors
/// When something in them is wrong or not allowed; nothing is published then.
pub fn client_publish(params: &str, caller: &ClientCaller<'_>) -> Result<ClientPublish, RpcError> {
    let [body, channels, users, expiry] =
        pick(params, ["body", "channelList", "userList", "expiry"]);
    let body = object_of(body)?;
    if member(body, "module_id").and_then(string_text).is_none() {
        return Err(RpcError::InvalidParams("body.module_id must be a string"));
    }
    if is_reserved(body.as_bytes()) {
        return Err(RpcError::InvalidParams("this module_id is not for clients"));
    }
    let channels: Vec<_> = values(channels).collect();
    if channels.len() > caller.channels_max {
        return Err(RpcError::InvalidParams("too many channels"));
    }
    let mut receivers = Vec::with_capacity(channels.len());
    for channel in channels {
        receivers.push(public_channel(channel, caller)?);
    }
    let users = user_list(users, caller.users_max)?;
    match caller.space {
        Some(space) => {
            receivers.extend(users.into_iter().map(|id| Receiver::User(User { space, id })));
        }
        None if users.is_empty() => {}
        None => return Err(RpcError::InvalidParams("only signed-in users may write to users")),
    }
    receivers.sort_unstable();
    receivers.dedup();
    let seconds = expiry.and_then(number).unwrap_or_default();
    Ok(Draft {
        receivers: receivers.into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        expiry: Expiry::new(u64::try_from(seconds).unwrap_or(0), caller.expiry_max),
        author: caller.author,
        kind: MessageKind::UNKNOWN,
        additions: Additions::default(),
    })
}

/// A signed public channel: `"<id>.<signature>"` or `{publicId, signature}`.
fn public_channel(value: &str, caller: &ClientCaller<'_>) -> Result<Receiver, RpcError> {
    let whole = string_text(value);
    let member = |name| member(value, name).and_then(string_text);
    let (id, signature) = match &whole {
        Some(whole) => whole.split_once('.').map(|(id, it)| (id.to_owned(), it.to_owned())),
        None => member("publicId")
            .zip(member("signature"))
            .map(|(id, it)| (id.into_owned(), it.into_owned())),
    }
    .ok_or(RpcError::InvalidParams("a channel is `id.signature` or {publicId, signature}"))?;
    let id = id.parse().map_err(|_| RpcError::InvalidParams("a channel id is 32 hex digits"))?;
    let is_signed = Signature::from_hex(&signature)
        .is_some_and(|signature| caller.keys.verify_public(id, &signature, caller.now_s));
    if is_signed {
        Ok(Receiver::Public(id))
    } else {
        Err(RpcError::InvalidParams("wrong signature of a channel"))
    }
}

/// The users of a list, which may be absent; user 0 is nobody.
///
/// # Errors
/// When an element is no user id, or there are more than `users_max`.
pub fn user_list(list: Option<&str>, users_max: usize) -> Result<Vec<UserId>, RpcError> {
    let mut users = Vec::new();
    for value in values(list) {
        let id = number(value).ok_or(RpcError::InvalidParams("a user id is a whole number"))?;
        if users.len() == users_max {
            return Err(RpcError::InvalidParams("too many users"));
        }
        users.extend(UserId::new(id));
    }
    Ok(users)
}

/// Reads the parameters of `getUsersLastSeen`: the users asked about, `None` for all.
///
/// # Errors
/// As [`user_list`].
pub fn last_seen(params: &str, users_max: usize) -> Result<Option<Vec<UserId>>, RpcError> {
    match member(params, "userList") {
        None | Some("null") => Ok(None),
        list @ Some(_) => user_list(list, users_max).map(Some),
    }
}

/// Reads the parameters of `updateUsersLastSeen`: users and when they were seen, unix seconds. What is
/// no user or no time is skipped.
///
/// # Errors
/// When the parameters are neither an object nor an empty array.
pub fn last_seen_updates(params: &str) -> Result<Vec<(UserId, u64)>, RpcError> {
    if !params.starts_with(['{', '[']) {
        return Err(RpcError::InvalidParams("params must be an object"));
    }
    let update = |(user, time): (std::borrow::Cow<'_, str>, &str)| {
        Some((user.parse().ok()?, u64::try_from(number(time)?).ok()?))
    };
    Ok(members(params).filter_map(update).collect())
}

/// Reads the parameters of `subscribeStatusChange` and its opposite: a number or its text (J-099).
///
/// # Errors
/// When there is no user id.
pub fn watched_user(params: &str) -> Result<UserId, RpcError> {
    let id = member(params, "userId").and_then(number).and_then(UserId::new);
    id.ok_or(RpcError::InvalidParams("userId must be a user id"))
}

/// Reads the parameters of `subscribe`: names of channels.
///
/// # Errors
/// When there is no list.
pub fn channel_names(params: &str) -> Result<Vec<String>, RpcError> {
    let list = member(params, "channelList").filter(|list| list.starts_with(['[', '{']));
    let list = list.ok_or(RpcError::InvalidParams("channelList must be an array"))?;
    Ok(values(Some(list)).filter_map(string_text).map(std::borrow::Cow::into_owned).collect())
}

/// The values of a list; PHP writes one with gaps in its keys as an object.
fn values(list: Option<&str>) -> impl Iterator<Item = &str> {
    let list = list.unwrap_or_default();
    elements(list).chain(members(list).map(|(_, value)| value))
}

/// A whole number, or a string that holds one.
fn number(value: &str) -> Option<i64> {
    match string_text(value) {
        Some(text) => text.parse().ok(),
        None => value.parse().ok(),
    }
}
