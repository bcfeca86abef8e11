//! Events: what back ends publish, checked, merged, and addressed to channels (module.md §7).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use vestnik_core::publisher::{EVENTS_MAX, ModuleEvent, Recipients};
use vestnik_core::{ChannelId, Expiry, MessageKind, UserId};

use crate::channel::{ChannelError, ChannelKind};
use crate::notice;
use crate::option::{Key, OptionError, Options};
use crate::php;
use crate::tenant::Tenant;
use crate::watch::{TAG_BYTES_MAX, TAGS_MAX, WatchError};

/// Seconds an event is kept unless it says otherwise.
const EXPIRY_S: i64 = 86_400;
/// Characters of a channel id: a recipient of this length is one.
const CHANNEL_ID_LENGTH: usize = ChannelId::TEXT_LENGTH;

/// Who an event is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// A user; negative: a guest. 0 is everybody who uses an application, and nobody else.
    User(i64),
    /// Whoever listens to a channel.
    Channel(ChannelId),
    /// Whoever watches a tag.
    Tag(String),
    /// Everybody.
    Shared,
}

impl Recipient {
    /// A recipient written as text: 32 characters are a channel id, anything else begins with the number
    /// of a user, as PHP reads it (M-042).
    ///
    /// # Errors
    /// When 32 characters are no channel id.
    pub fn of_text(text: &str) -> Result<Self, EventError> {
        if text.len() != CHANNEL_ID_LENGTH {
            return Ok(Self::User(php::intval(text)));
        }
        text.parse().map(Self::Channel).map_err(|_| EventError::Recipient)
    }
}

/// The text of a JSON object or array, its members in their order and otherwise untouched. An empty one is
/// `[]`, as PHP writes it.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, Box<RawValue>)>, Shape);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    List,
    #[default]
    Object,
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Params {
    /// Reads JSON; what is neither an object nor an array counts as empty (M-043).
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn parse(json: &str) -> Result<Self, EventError> {
        match json.trim_start().as_bytes().first() {
            Some(b'{' | b'[') => serde_json::from_str(json).map_err(|_| EventError::Json),
            _ => {
                let _: serde::de::IgnoredAny =
                    serde_json::from_str(json).map_err(|_| EventError::Json)?;
                Ok(Self::default())
            }
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self(members, shape) = self;
        let is_list = members.is_empty() || *shape == Shape::List;
        let mut json = String::from(if is_list { "[" } else { "{" });
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            if !is_list {
                json.push_str(&serde_json::Value::from(name.as_str()).to_string());
                json.push(':');
            }
            json.push_str(value.get());
        }
        json.push(if is_list { ']' } else { '}' });
        json
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With the members of `over`, which win; as PHP's `array_merge` for arrays with names.
    #[must_use]
    fn merged(mut self, over: &Self) -> Self {
        for (name, value) in &over.0 {
            self.set(name, value.clone());
        }
        self
    }

    /// The members with their names, in order; the items of a list with their places.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn set(&mut self, name: &str, value: Box<RawValue>) {
        self.1 = Shape::Object;
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut places: BTreeMap<String, usize> = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Of members with one name the last one counts.
                    match places.get(&name) {
                        Some(&place) => members[place].1 = value,
                        None => {
                            places.insert(name.clone(), members.len());
                            members.push((name, value));
                        }
                    }
                }
                Ok(Params(members, Shape::Object))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Params, A::Error> {
                let mut members = Vec::new();
                while let Some(value) = list.next_element::<Box<RawValue>>()? {
                    members.push((members.len().to_string(), value));
                }
                Ok(Params(members, Shape::List))
            }
        }
        deserializer.deserialize_any(Members)
    }
}

/// One event as a back end asks for it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Who gets it; not empty.
    pub recipients: Vec<Recipient>,
    /// The module it is of.
    pub module_id: String,
    /// What it says.
    pub command: String,
    /// The details.
    pub params: Params,
    /// Seconds it is kept; a day unless given. Not above 0: for who is connected.
    pub expiry_s: Option<i64>,
    /// More than the usual `extra`. `server_time` and `server_time_unix` win over ours (M-045).
    pub extra: Params,
    /// What single users get beside `params`.
    pub user_params: Vec<(i64, Params)>,
    /// What all users get beside `params`.
    pub dictionary: Params,
    /// Users whom a tag does not reach.
    pub skip_users: Vec<i64>,
    /// Events of one group are one event: the first (M-046).
    pub group: Option<String>,
    /// Which channel of the users it goes to.
    pub kind: ChannelKind,
}

impl Event {
    /// An event with everything else at its default.
    #[must_use]
    pub fn new(recipients: Vec<Recipient>, module_id: &str, command: &str) -> Self {
        Self {
            recipients,
            module_id: module_id.to_owned(),
            command: command.to_owned(),
            params: Params::default(),
            expiry_s: None,
            extra: Params::default(),
            user_params: Vec::new(),
            dictionary: Params::default(),
            skip_users: Vec::new(),
            group: None,
            kind: ChannelKind::Private,
        }
    }
}

/// Why an event is not published. [`EventError::code`] is what the module calls it.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It names no module or no command.
    #[error("an event needs `module_id` and `command`")]
    Parameters,
    /// Something in it that should be JSON is not.
    #[error("an event holds text that is not JSON")]
    Json,
    /// It is for nobody, for a channel that is none, or for user 0.
    #[error(
        "an event needs recipients: users, channels of 32 hex digits, tags of at most 255 bytes, or everybody"
    )]
    Recipient,
    /// One call brings too many.
    #[error("a call brings at most {EVENTS_MAX} events, got {0}")]
    TooMany(usize),
    /// Channels cannot be had; also: no queue server is in use.
    #[error("the channels of the recipients cannot be had")]
    Channel(#[from] ChannelError),
    /// Those who watch a tag cannot be found.
    #[error("those who watch a tag cannot be found")]
    Watch(#[from] WatchError),
    /// The options cannot be read.
    #[error("the options could not be read")]
    Options(#[from] OptionError),
}

impl EventError {
    /// The code of the PHP module (module.md §7.3), or of its REST for what PHP drops in silence.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Parameters | Self::Json | Self::TooMany(_) => "EVENT_PARAMETERS_FORMAT",
            Self::Recipient => "RECIPIENT_FORMAT",
            Self::Channel(_) | Self::Watch(_) | Self::Options(_) => "SERVER_ERROR",
        }
    }
}

/// Events that are ready for a publisher.
#[derive(Debug)]
pub struct Prepared {
    /// In the order of their first mention.
    pub events: Vec<ModuleEvent>,
    /// For each event that was asked for, which of `events` carry it; none when nobody gets it: a tag
    /// that nobody watches, users who are not active.
    pub of_asked: Vec<Result<Vec<usize>, EventError>>,
}

/// Events that are one: their recipients are united.
struct Merged<'a> {
    event: &'a Event,
    recipients: Vec<&'a Recipient>,
    asked: Vec<usize>,
}

impl Tenant {
    /// Checks events, merges equal ones, finds the channels of their recipients, and makes what a publisher
    /// sends. A mistake of one event is its own; the rest is prepared.
    ///
    /// # Errors
    /// When nothing can be published at all: no queue server, no database.
    pub async fn prepare_events(&self, asked: &[Event]) -> Result<Prepared, EventError> {
        if asked.len() > EVENTS_MAX {
            return Err(EventError::TooMany(asked.len()));
        }
        let options = self.options("").await?;
        if !options.is_server_on() {
            return Err(ChannelError::ServerOff.into());
        }
        self.prepare(asked, &options).await
    }

    /// The same also while no server is in use; nobody polls a shared channel, so an event for everybody is
    /// a mistake then (M-051).
    pub(crate) async fn prepare(
        &self,
        asked: &[Event],
        options: &Options,
    ) -> Result<Prepared, EventError> {
        if asked.len() > EVENTS_MAX {
            return Err(EventError::TooMany(asked.len()));
        }
        let check = |event: &Event| match check(event) {
            Ok(()) if !options.is_server_on() && event.recipients.contains(&Recipient::Shared) => {
                Err(ChannelError::ServerOff.into())
            }
            other => other,
        };
        let mut of_asked: Vec<Result<Vec<usize>, EventError>> =
            asked.iter().map(|event| check(event).map(|()| Vec::new())).collect();
        let mut events = Vec::new();
        for merged in merge(asked, &of_asked) {
            let first = events.len();
            events.extend(self.addressed(&merged, options).await?);
            for &at in &merged.asked {
                of_asked[at] = Ok((first..events.len()).collect());
            }
        }
        Ok(Prepared { events, of_asked })
    }

    /// What a publisher sends for one merged event: one, or one for each user where the server cannot tell
    /// users apart (M-050).
    async fn addressed(
        &self,
        merged: &Merged<'_>,
        options: &Options,
    ) -> Result<Vec<ModuleEvent>, EventError> {
        let event = merged.event;
        let mut users = Vec::new();
        let mut tags = Vec::new();
        let mut channels = Vec::new();
        for recipient in &merged.recipients {
            match recipient {
                Recipient::User(user) => users.push(*user),
                Recipient::Channel(channel) => channels.push(*channel),
                Recipient::Tag(tag) => tags.push(tag.as_str()),
                Recipient::Shared => channels.push(self.shared_channel().await?.id),
            }
        }
        for tags in tags.chunks(TAGS_MAX) {
            let watching = self.watching_users(tags).await?;
            users.extend(watching.into_iter().filter(|user| !event.skip_users.contains(user)));
        }
        let of_users = self.any_channels(&users, &event.kind, options).await?;
        let addresses_users = options.is_server_on() && options.generation().has_tokens();
        let has_own = !event.user_params.is_empty() || !event.dictionary.is_empty();
        if !has_own || addresses_users {
            let numbers = of_users.iter().map(|channel| channel.user);
            channels.extend(of_users.iter().map(|channel| channel.id));
            let recipients = Recipients {
                channels: unique(channels),
                users: numbers.filter(|_| addresses_users).filter_map(UserId::new).collect(),
                ..Recipients::default()
            };
            let ready = self.ready(event, &event.params, recipients, options);
            return Ok(ready.into_iter().map(|ready| with_own(ready, event)).collect());
        }
        // Whoever has nothing of its own shares one event.
        let common = event.params.clone().merged(&event.dictionary);
        let own: HashMap<i64, &Params> =
            event.user_params.iter().map(|(user, params)| (*user, params)).collect();
        let mut ready = Vec::new();
        let to = |channels| Recipients { channels: unique(channels), ..Recipients::default() };
        for channel in of_users {
            match own.get(&channel.user) {
                None => channels.push(channel.id),
                Some(own) => {
                    let params = common.clone().merged(own);
                    ready.extend(self.ready(event, &params, to(vec![channel.id]), options));
                }
            }
        }
        ready.extend(self.ready(event, &common, to(channels), options));
        Ok(ready)
    }

    /// The event as it is sent; none when nobody gets it.
    fn ready(
        &self,
        event: &Event,
        params: &Params,
        recipients: Recipients,
        options: &Options,
    ) -> Option<ModuleEvent> {
        if recipients.is_empty() {
            return None;
        }
        let module_id = event.module_id.to_lowercase();
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let body = format!(
            r#"{{"module_id":{},"command":{},"params":{},"extra":{}}}"#,
            text(&module_id),
            text(&event.command),
            params.to_json(),
            self.extra(event, options),
        );
        let mut kind = format!("{module_id}_{}", event.command);
        kind.retain(|letter| letter.is_alphanumeric() || letter == '_');
        let seconds = u64::try_from(event.expiry_s.unwrap_or(EXPIRY_S)).unwrap_or(0);
        Some(ModuleEvent {
            body: Bytes::from(body),
            kind: MessageKind::parse(&kind),
            expiry: Expiry::new(seconds, Expiry::MAX),
            recipients,
            user_params: Vec::new(),
            dictionary: None,
        })
    }

    /// The JSON of the member `extra`: ours over what was given, but for the times (M-045).
    fn extra(&self, event: &Event, options: &Options) -> String {
        let ours = notice::extra(self.now_ms(), options.text(Key::ServerName)).to_json();
        if event.extra.is_empty() {
            return ours;
        }
        // It is what this program has just written.
        let ours = Params::parse(&ours).unwrap_or_default();
        let mut extra = event.extra.clone().merged(&ours);
        for name in TIMES {
            if let Some(given) = event.extra.get(name) {
                extra.set(name, given.to_owned());
            }
        }
        extra.to_json()
    }
}

/// Members of `extra` that say when, not what.
const TIMES: [&str; 2] = ["server_time", "server_time_unix"];

fn with_own(ready: ModuleEvent, event: &Event) -> ModuleEvent {
    let own = event
        .user_params
        .iter()
        .filter_map(|(user, params)| Some((UserId::new(*user)?, Bytes::from(object(params)))));
    let dictionary = (!event.dictionary.is_empty()).then(|| object(&event.dictionary).into());
    ModuleEvent { user_params: own.collect(), dictionary, ..ready }
}

/// The text of an object, also of an empty one, and of a list with its places for names.
fn object(params: &Params) -> String {
    if params.is_empty() {
        return "{}".to_owned();
    }
    Params(params.0.clone(), Shape::Object).to_json()
}

fn unique(channels: Vec<ChannelId>) -> Vec<ChannelId> {
    if channels.len() < 2 {
        return channels;
    }
    let mut known = HashSet::new();
    channels.into_iter().filter(|channel| known.insert(*channel)).collect()
}

fn check(event: &Event) -> Result<(), EventError> {
    if event.module_id.trim().is_empty() || event.command.is_empty() {
        return Err(EventError::Parameters);
    }
    let is_nobody = |it: &Recipient| match it {
        // For an application it is everybody who uses it.
        Recipient::User(0) => !matches!(event.kind, ChannelKind::Application(_)),
        Recipient::Tag(tag) => !(1..=TAG_BYTES_MAX).contains(&tag.trim().len()),
        Recipient::User(_) | Recipient::Channel(_) | Recipient::Shared => false,
    };
    if event.recipients.is_empty() || event.recipients.iter().any(is_nobody) {
        return Err(EventError::Recipient);
    }
    Ok(())
}

/// What makes two events equal: everything but recipients and times, or the name of their group (M-046).
fn identity(event: &Event) -> String {
    if let Some(group) = &event.group {
        return format!("group {group}");
    }
    let mut extra = event.extra.clone();
    extra.0.retain(|(name, _)| !TIMES.contains(&name.as_str()));
    let own: BTreeMap<i64, String> =
        event.user_params.iter().map(|(user, params)| (*user, params.to_json())).collect();
    let parts = (
        (event.module_id.to_lowercase(), &event.command, event.params.to_json(), event.expiry_s),
        (extra.to_json(), own, event.dictionary.to_json(), &event.skip_users, event.kind.name()),
    );
    format!("event {parts:?}")
}

/// Unites equal events, in the order of their first mention; those with mistakes are left out.
fn merge<'a>(asked: &'a [Event], checked: &[Result<Vec<usize>, EventError>]) -> Vec<Merged<'a>> {
    if let ([event], [Ok(_)]) = (asked, checked) {
        return vec![Merged {
            event,
            recipients: event.recipients.iter().collect(),
            asked: vec![0],
        }];
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut merged: Vec<Merged<'a>> = Vec::new();
    for (at, event) in asked.iter().enumerate().filter(|(at, _)| checked[*at].is_ok()) {
        let place = *places.entry(identity(event)).or_insert_with(|| {
            merged.push(Merged { event, recipients: Vec::new(), asked: Vec::new() });
            merged.len() - 1
        });
        merged[place].recipients.extend(&event.recipients);
        merged[place].asked.push(at);
    }
    merged
}
