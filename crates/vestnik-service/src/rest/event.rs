//! Publishing: `pull.event.add`, `pull.event.addBatch`.

use serde_json::value::RawValue;
use vestnik_core::publisher::{EVENTS_MAX, ModuleEvent, PublishError};

use super::input::{Input, items_of, number_of, plain, text_of};
use super::{Call, Field, Kind, Operation, Outcome, RestError, Right, push};
use crate::channel::ChannelKind;
use crate::event::{Event, EventError, Params, Recipient};
use crate::push::{Push, PushError};
use crate::tenant::Tenant;
use crate::watch::TAGS_MAX;

const FIELDS: &[Field] = &[
    Field::needed(
        "recipients",
        Kind::Any,
        "An object with `users`, `channels`, `tags` and `shared`; or a list of user ids and channel ids.",
    ),
    Field::needed("module_id", Kind::Text, "The module it is of; made lower case."),
    Field::may("command", Kind::Text, "What it says; needed but for a notification alone."),
    Field::may("params", Kind::Any, "The details: an object or a list."),
    Field::may("expiry", Kind::Number, "Seconds it is kept; 86400 unless given."),
    Field::may("extra", Kind::Object, "More than the usual `extra`; given times are kept."),
    Field::may("user_params", Kind::Object, "For user ids, what they get beside `params`."),
    Field::may("dictionary", Kind::Object, "What all users get beside `params`."),
    Field::may("skip_users", Kind::List, "Users whom a tag does not reach."),
    Field::may(
        "groupId",
        Kind::Text,
        "Events of one batch with the same value are one: the first.",
    ),
    Field::may("channelType", Kind::Text, "Which channel of the users: `private`, or a client id."),
    Field::may(
        "push",
        Kind::Object,
        "A notification for the mobile devices of its users, as `PUSH` of `pull.push.add`; beside a `command` nothing comes of it while option `push` is off, or cannot be stored.",
    ),
];

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.event.add",
        group: "Events",
        about: "Publishes an event to users, channels, whoever watches a tag, or everybody.",
        right: Right::Backend,
        fields: FIELDS,
        result: r#"{"const":true}"#,
        example: r#"{"recipients":{"users":[1,2],"tags":["CRM_DEAL_7"]},"module_id":"crm","command":"dealUpdate","params":{"id":7},"skip_users":[2],"expiry":3600}"#,
        run: |call| Box::pin(add(call)),
    },
    Operation {
        name: "pull.event.addBatch",
        group: "Events",
        about: "Publishes events together; equal ones become one. A mistake of one is its own.",
        right: Right::Backend,
        fields: &[Field::needed(
            "events",
            Kind::List,
            "Events with the fields of `pull.event.add`, at most 1000.",
        )],
        result: r#"{"type":"array","items":{"oneOf":[{"const":true},{"type":"object","required":["error","error_description"]}]}}"#,
        example: r#"{"events":[{"recipients":{"users":[1]},"module_id":"im","command":"a"},{"recipients":{"shared":true},"module_id":"im","command":"b"}]}"#,
        run: |call| Box::pin(add_batch(call)),
    },
];

async fn add(call: Call<'_>) -> Outcome {
    let event = read(&call.input)?;
    let mut results = publish(&call, vec![Ok(event)]).await?;
    results.pop().unwrap_or(Ok(())).map(|()| "true".to_owned())
}

async fn add_batch(call: Call<'_>) -> Outcome {
    let items = call.input.list("events")?.ok_or_else(|| RestError::missing("events"))?;
    if items.len() > EVENTS_MAX {
        return Err(EventError::TooMany(items.len()).into());
    }
    let mut events = Vec::with_capacity(items.len());
    for item in items {
        events.push(match Input::of_json(item.get().as_bytes()) {
            Ok(input) => read(&input),
            Err(error) => Err(error.into()),
        });
    }
    let results = publish(&call, events).await?;
    let results = results.into_iter().map(|result| match result {
        Ok(()) => "true".to_owned(),
        Err(error) => error.to_json(),
    });
    Ok(format!("[{}]", results.collect::<Vec<_>>().join(",")))
}

/// What one call asks for: an event, a notification, or both.
struct Asked {
    /// Without a command there is none; it says who is notified then.
    event: Event,
    push: Option<Params>,
}

impl Asked {
    fn has_event(&self) -> bool {
        !self.event.command.is_empty()
    }

    /// The notification that is asked for; none beside an event for those who have no devices: channels and
    /// guests.
    async fn notification(&self, tenant: &Tenant) -> Result<Option<Push>, RestError> {
        let Some(description) = &self.push else { return Ok(None) };
        if !tenant.options("").await?.is_push_on() {
            return if self.has_event() { Ok(None) } else { Err(PushError::Disabled.into()) };
        }
        let made = push::beside_event(tenant, &self.event, description).await?;
        if self.has_event() && made.users.is_empty() {
            return Ok(None);
        }
        made.check()?;
        Ok(Some(made))
    }
}

/// Publishes and notifies what could be read; the result of each at its place.
async fn publish(
    call: &Call<'_>,
    asked: Vec<Result<Asked, RestError>>,
) -> Result<Vec<Result<(), RestError>>, RestError> {
    // Whatever is wrong with a notification is said before anything is published.
    let mut events = Vec::with_capacity(asked.len());
    let mut checked = Vec::with_capacity(asked.len());
    for asked in asked {
        let notification = match &asked {
            Ok(asked) => asked.notification(call.tenant()).await,
            Err(error) => Err(error.clone()),
        };
        let event = asked.ok().filter(|_| notification.is_ok()).filter(Asked::has_event);
        checked.push(notification.map(|made| (event.is_some(), made)));
        events.extend(event.map(|asked| asked.event));
    }
    let mut outcomes = send(call, &events).await?.into_iter();
    let mut results = Vec::with_capacity(checked.len());
    let mut pushes: Vec<(usize, bool, Push)> = Vec::new();
    for checked in checked {
        let outcome = match checked {
            Ok((has_event, notification)) => {
                let outcome = if has_event { outcomes.next().unwrap_or(Ok(())) } else { Ok(()) };
                let notified = notification.filter(|_| outcome.is_ok());
                pushes.extend(notified.map(|made| (results.len(), has_event, made)));
                outcome
            }
            Err(error) => Err(error),
        };
        results.push(outcome);
    }
    notify(call, pushes, &mut results).await;
    Ok(results)
}

/// Notifies where that was asked for. An event that is published stays so: whoever asked for both is not told
/// to ask again.
async fn notify(
    call: &Call<'_>,
    pushes: Vec<(usize, bool, Push)>,
    results: &mut [Result<(), RestError>],
) {
    if pushes.is_empty() {
        return;
    }
    let (places, made): (Vec<_>, Vec<_>) =
        pushes.into_iter().map(|(place, has_event, made)| ((place, has_event), made)).unzip();
    let Err(error) = call.tenant().push(made).await else { return };
    let error = RestError::from(error);
    for (place, has_event) in places {
        if has_event {
            tracing::warn!(%error, "an event is published, and nobody is notified of it");
        } else {
            results[place] = Err(error.clone());
        }
    }
}

/// The users above 0 whom an event reaches, those who watch its tags among them.
pub(super) async fn users_of(tenant: &Tenant, event: &Event) -> Result<Vec<i64>, RestError> {
    let mut users = Vec::new();
    let mut tags = Vec::new();
    for recipient in &event.recipients {
        match recipient {
            Recipient::User(user) => users.push(*user),
            Recipient::Tag(tag) => tags.push(tag.as_str()),
            Recipient::Channel(_) | Recipient::Shared => {}
        }
    }
    for tags in tags.chunks(TAGS_MAX) {
        users.extend(tenant.watching_users(tags).await?);
    }
    users.retain(|user| *user > 0);
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Publishes events; the result of each at its place.
pub(super) async fn send(
    call: &Call<'_>,
    events: &[Event],
) -> Result<Vec<Result<(), RestError>>, RestError> {
    if !call.tenant().options("").await?.is_server_on() {
        // Clients poll then.
        let results = call.tenant().stack_events(events).await?;
        return Ok(results.into_iter().map(|result| Ok(result?)).collect());
    }
    let prepared = call.tenant().prepare_events(events).await?;
    let outcomes = publish_prepared(call, &prepared.events).await?;
    let result = |parts: Result<Vec<usize>, EventError>| {
        let parts = parts?;
        let failed = parts.iter().find_map(|part| outcomes.get(*part)?.as_ref().err());
        failed.map_or(Ok(()), |error| Err(RestError::from(error.clone())))
    };
    Ok(prepared.of_asked.into_iter().map(result).collect())
}

async fn publish_prepared(
    call: &Call<'_>,
    events: &[ModuleEvent],
) -> Result<Vec<Result<(), PublishError>>, RestError> {
    let mut outcomes = Vec::with_capacity(events.len());
    if events.is_empty() {
        return Ok(outcomes);
    }
    let server = call.stage.server(call.tenant()).await?;
    for events in events.chunks(EVENTS_MAX) {
        outcomes.extend(server.publish(events).await);
    }
    Ok(outcomes)
}

/// The event that an input describes.
fn read(input: &Input) -> Result<Asked, RestError> {
    let push = input.object("push")?;
    let module_id = input.text("module_id")?.unwrap_or_default();
    let command = input.text("command")?.unwrap_or_default();
    if module_id.trim().is_empty() || (command.is_empty() && push.is_none()) {
        return Err(EventError::Parameters.into());
    }
    let mut event = Event::new(recipients(input)?, &module_id, &command);
    event.params = input.params("params")?;
    event.expiry_s = input.number("expiry")?;
    event.extra = input.params("extra")?;
    event.dictionary = input.params("dictionary")?;
    event.skip_users = input.numbers("skip_users")?.unwrap_or_default();
    event.group = input.text("groupId")?.filter(|group| !group.is_empty());
    if let Some(kind) = input.text("channelType")?.filter(|kind| !kind.is_empty()) {
        event.kind = ChannelKind::named(&kind)?;
    }
    if let Some(own) = input.object("user_params")? {
        for (user, params) in own.members() {
            let user = user.parse().map_err(|_| {
                RestError::argument("user_params", "an object whose names are user ids")
            })?;
            let params = crate::event::Params::parse(params.get())?;
            event.user_params.push((user, params));
        }
    }
    Ok(Asked { event, push })
}

/// Whether an input may be an event for whoever watches something: of those there may be any number.
pub(super) fn may_name_tags(body: &[u8]) -> bool {
    let Ok(input) = Input::of_json(body) else { return true };
    let Some(recipients) = input.raw("recipients") else { return false };
    // Names are compared without underscores, and JSON may be in a text, or escaped.
    recipients.get().contains('\\') || plain(recipients.get()).contains("tags")
}

/// Who gets an event: an object of lists, a list, or a single one.
fn recipients(input: &Input) -> Result<Vec<Recipient>, RestError> {
    let wrong = || RestError::from(EventError::Recipient);
    let Some(raw) = input.raw("recipients") else { return Err(wrong()) };
    let text = text_of(raw).unwrap_or_default();
    let json = if text.trim_start().starts_with('{') { &text } else { raw.get() };
    if !json.trim_start().starts_with('{') {
        let items = items_of(raw).ok_or_else(wrong)?;
        return items.iter().map(|item| recipient(item)).collect();
    }
    let lists = Input::of_json(json.as_bytes()).map_err(|_| wrong())?;
    let list = |name| lists.list(name).map(Option::unwrap_or_default).map_err(|_| wrong());
    let mut recipients = Vec::new();
    for user in list("users")? {
        let user = number_of(&user).ok_or_else(wrong)?;
        recipients.push(Recipient::User(user));
    }
    for channel in list("channels")? {
        let channel = text_of(&channel).and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
        recipients.push(Recipient::Channel(channel));
    }
    for tag in list("tags")? {
        recipients.push(Recipient::Tag(text_of(&tag).ok_or_else(wrong)?));
    }
    if lists.switch("shared").map_err(|_| wrong())? == Some(true) {
        recipients.push(Recipient::Shared);
    }
    Ok(recipients)
}

/// A number is a user; a text of 32 characters a channel, another one a user (M-042).
fn recipient(raw: &RawValue) -> Result<Recipient, RestError> {
    let text = text_of(raw).ok_or(EventError::Recipient)?;
    if raw.get().starts_with('"') {
        return Ok(Recipient::of_text(&text)?);
    }
    text.parse().map(Recipient::User).map_err(|_| EventError::Recipient.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_for_those_who_watch_is_known_however_it_is_written() {
        for body in [
            r#"{"recipients":{"users":[1],"tags":["T"]},"module_id":"m"}"#,
            r#"{"RECIPIENTS":{"TAGS":["T"]}}"#,
            r#"{"recipients":{"t_ags":["T"]}}"#,
            r#"{"recipients":"{\"tags\":[\"T\"]}"}"#,
            r#"{"recip_ients":{"\u0074ags":["T"]}}"#,
            r#"{"recipi\u0065nts":{"tags":["T"]}}"#,
            "recipients[tags][]=T",
        ] {
            assert!(may_name_tags(body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"recipients":{"users":[1,2]},"params":{"tags":["\u0442"]}}"#,
            r#"{"recipients":[1,"0123456789abcdef0123456789abcdef"]}"#,
            "{}",
            "",
        ] {
            assert!(!may_name_tags(body.as_bytes()), "{body}");
        }
    }
}
