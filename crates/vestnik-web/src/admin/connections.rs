//! Who is connected, since when, what was sent to them; a test event, and the end of a connection.

use maud::{Markup, html};
use vestnik_core::date;
use vestnik_core::publisher::{ModuleEvent, Publisher as _, Recipients};
use vestnik_core::{
    ChannelId, Envelope, Expiry, MessageId, MessageKind, Receiver, User, UserId, UserSpace,
};
use vestnik_hub::engine::Lookup;
use vestnik_server::{ConnectionInfo, Form as WireForm, Visit, Wanted, Way};
use vestnik_service::settings::Form;

use super::dashboard::masked_receiver;
use super::page::{self, Place, Tone, Viewer};
use super::text::Text;
use super::{Admin, Trouble, text};
use crate::answer::Answer;

/// Connections shown at a time.
const SHOWN_MAX: usize = 200;
/// Messages shown of a channel.
const MESSAGES_MAX: usize = 50;
const TEXT_BYTES_MAX: usize = 1000;
const RECEIVERS_SHOWN_MAX: usize = 6;

/// What was searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Everything,
    Channel(ChannelId),
    User(i64),
    /// Neither a channel nor a user.
    Nonsense,
}

impl Search {
    fn of(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Everything;
        }
        // Clients show ids with their signature, and pairs.
        let id = text.split(['.', ':']).next().unwrap_or_default();
        match (id.parse(), text.parse()) {
            (Ok(channel), _) => Self::Channel(channel),
            (Err(_), Ok(user)) => Self::User(user),
            (Err(_), Err(_)) => Self::Nonsense,
        }
    }
}

/// A message that was kept.
struct Sent {
    id: MessageId,
    at_ms: u64,
    kind: String,
    bytes: usize,
    body: Option<String>,
}

impl Sent {
    fn of(envelope: &Envelope, shows_body: bool) -> Self {
        let body: Option<serde_json::Value> = serde_json::from_slice(&envelope.body).ok();
        let member = |name: &str| Some(body.as_ref()?.get(name)?.as_str()?.to_owned());
        let kind = match (member("module_id"), member("command")) {
            (Some(module), Some(command)) => format!("{module}.{command}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => String::new(),
        };
        let shown =
            || String::from_utf8_lossy(&envelope.body).chars().take(TEXT_BYTES_MAX).collect();
        Self {
            id: envelope.id,
            at_ms: envelope.created_ms,
            kind,
            bytes: envelope.body.len(),
            body: shows_body.then(shown),
        }
    }
}

const fn way(way: Way) -> Text {
    match way {
        Way::WebSocket => text::WAY_WEBSOCKET,
        Way::Poll => text::WAY_POLL,
        Way::BetweenPolls => text::WAY_BETWEEN,
    }
}

const fn wire_form(form: WireForm) -> Text {
    match form {
        WireForm::Text => text::FORM_TEXT,
        WireForm::Protobuf => text::FORM_PROTOBUF,
        WireForm::JsonRpc => text::FORM_JSON_RPC,
        WireForm::Json => text::FORM_JSON,
        WireForm::Unknown => text::FORM_UNKNOWN,
    }
}

fn time(unix_s: u64) -> Markup {
    let iso = date::atom(unix_s);
    html! { time datetime=(iso) { (iso.get(..19).unwrap_or(&iso).replace('T', " ")) " UTC" } }
}

impl Admin {
    /// What is searched for, as receivers of the hub.
    async fn receivers_of(&self, search: Search) -> Result<Vec<Receiver>, Trouble> {
        Ok(match search {
            Search::Everything | Search::Nonsense => Vec::new(),
            Search::Channel(id) => vec![Receiver::Private(id), Receiver::Public(id)],
            Search::User(number) => {
                let tenant = self.tenant().await?;
                let mut receivers = Vec::new();
                if let Some(channel) = tenant.known_channel(number).await? {
                    receivers.push(Receiver::Private(channel.id));
                }
                if let Some(id) = UserId::new(number) {
                    let space = UserSpace::of(tenant.host_id());
                    receivers.push(Receiver::User(User { space, id }));
                }
                receivers
            }
        })
    }

    /// The newest kept messages of these receivers, newest first.
    async fn sent_to(&self, receivers: &[Receiver]) -> Vec<Sent> {
        if receivers.is_empty() {
            return Vec::new();
        }
        let replay = match self.hub.engine().history(receivers, MessageId::ZERO, usize::MAX) {
            Lookup::Ready(replay) => Ok(replay),
            Lookup::Disk(read) => match tokio::task::spawn_blocking(move || read.read()).await {
                Ok(replay) => replay,
                Err(_) => return Vec::new(),
            },
            Lookup::Redis(read) => read.read().await,
        };
        match replay {
            Ok(replay) => {
                let newest = replay.envelopes.iter().rev().take(MESSAGES_MAX);
                newest.map(|it| Sent::of(it, self.options.shows_bodies)).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the history cannot be read");
                self.remember_error(&error.to_string());
                Vec::new()
            }
        }
    }

    async fn connections_of(&self, search: Search, receivers: &[Receiver]) -> Vec<ConnectionInfo> {
        match search {
            Search::Everything => self.server.connections(Wanted::All, SHOWN_MAX).await,
            Search::Nonsense => Vec::new(),
            Search::Channel(id) => self.server.connections(Wanted::Channel(id), SHOWN_MAX).await,
            Search::User(_) => {
                let mut all = Vec::new();
                for receiver in receivers {
                    let wanted = match receiver {
                        Receiver::User(user) => Wanted::User(user.id),
                        other => match other.channel() {
                            Some(id) => Wanted::Channel(id),
                            None => continue,
                        },
                    };
                    all.extend(self.server.connections(wanted, SHOWN_MAX).await);
                }
                all.sort_unstable_by_key(|it| it.serial);
                all.dedup_by_key(|it| it.serial);
                all
            }
        }
    }

    /// `GET connections`.
    pub(super) async fn show_connections(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
    ) -> Result<Answer, Trouble> {
        let query: Vec<_> = form_urlencoded::parse(visit.query().as_bytes()).collect();
        let of = |wanted: &str| query.iter().find(|(name, _)| name == wanted).map(|(_, it)| &**it);
        let done = match of("done") {
            Some("sent") => Some((Tone::Good, text::EVENT_SENT)),
            Some("disconnected") => Some((Tone::Good, text::DISCONNECTED)),
            Some("gone") => Some((Tone::Warning, text::CONNECTION_GONE)),
            Some("failed") => Some((Tone::Bad, text::EVENT_FAILED)),
            _ => None,
        };
        let find = of("find").unwrap_or_default();
        let search = Search::of(find);
        let receivers = self.receivers_of(search).await?;
        let connections = self.connections_of(search, &receivers).await;
        let sent = self.sent_to(&receivers).await;
        let content = html! {
            @if let Some((tone, said)) = done { (page::notice(tone, &html! { (viewer.say(said)) })) }
            section.card aria-labelledby="find-title" {
                h2 #find-title { (viewer.say(text::FIND)) }
                form.inline method="get" action="/admin/connections" role="search" {
                    label { span { (viewer.say(text::FIND_WHAT)) } input type="search" name="find" value=(find) maxlength="200"; }
                    button.primary type="submit" { (viewer.say(text::FIND)) }
                }
                @if search == Search::Nonsense { p.error role="alert" { (viewer.say(text::FIND_NONSENSE)) } }
            }
            (self.connection_card(viewer, &connections, find))
            @if !receivers.is_empty() { (self.sent_card(viewer, &sent)) (send_card(viewer, find)) }
        };
        Ok(page::plain(
            viewer,
            Place::Connections,
            text::NAV_CONNECTIONS,
            text::CONNECTIONS_LEAD,
            &content,
        ))
    }

    fn connection_card(
        &self,
        viewer: &Viewer<'_>,
        connections: &[ConnectionInfo],
        find: &str,
    ) -> Markup {
        html! {
            section.card aria-labelledby="connections-title" {
                h2 #connections-title { (viewer.say(text::CONNECTED)) }
                @if connections.is_empty() { p.empty { (viewer.say(text::NOBODY_CONNECTED)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="connections-title" { table #connections {
                        thead { tr {
                            th { (viewer.say(text::SINCE)) } th { (viewer.say(text::COLUMN_WAY)) } th { (viewer.say(text::ADDRESS)) }
                            th { (viewer.say(text::LISTENS_TO)) } th.number { (viewer.say(text::FIGURE_WAITING)) } th { span.unseen { (viewer.say(text::DEEDS)) } }
                        } }
                        tbody { @for it in connections { tr {
                            td.still { (time(it.since_s)) }
                            td { (viewer.say(way(it.way))) br; small { (viewer.say(wire_form(it.form))) } }
                            td { @if let Some(address) = it.address { code { (address) } } @else { "–" } }
                            td {
                                @for receiver in it.receivers.iter().take(RECEIVERS_SHOWN_MAX) { code.line { (masked_receiver(*receiver)) } }
                                @if it.receivers.len() > RECEIVERS_SHOWN_MAX { small { "+" (it.receivers.len() - RECEIVERS_SHOWN_MAX) } }
                            }
                            td.number { (it.waiting) }
                            td.deeds { form method="post" action="/admin/connections/disconnect" {
                                (viewer.form_key())
                                input type="hidden" name="shard" value=(it.shard);
                                input type="hidden" name="serial" value=(it.serial);
                                input type="hidden" name="find" value=(find);
                                button.quiet.small type="submit" disabled[!viewer.may_write()] { (viewer.say(text::DISCONNECT)) }
                            } }
                        } } }
                    } }
                    @if connections.len() >= SHOWN_MAX { p.note { (viewer.say(text::ONLY_SOME)) } }
                }
            }
        }
    }

    fn sent_card(&self, viewer: &Viewer<'_>, sent: &[Sent]) -> Markup {
        html! {
            section.card aria-labelledby="sent-title" {
                h2 #sent-title { (viewer.say(text::SENT)) }
                p.hint { (viewer.say(text::SENT_LEAD)) }
                @if sent.is_empty() { p.empty { (viewer.say(text::NOTHING_YET)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="sent-title" { table #sent {
                        thead { tr {
                            th { (viewer.say(text::WHEN)) } th { "mid" } th { (viewer.say(text::COLUMN_KIND)) } th.number { (viewer.say(text::BYTES)) }
                            @if self.options.shows_bodies { th { (viewer.say(text::BODY)) } }
                        } }
                        tbody { @for it in sent { tr {
                            td.still { (time(it.at_ms / 1000)) }
                            td { code { (it.id) } } td { (it.kind) } td.number { (it.bytes) }
                            @if let Some(body) = &it.body { td { code { (body) } } }
                        } } }
                    } }
                }
            }
        }
    }

    /// `POST connections/disconnect`.
    pub(super) async fn disconnect(
        &self,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let number = |name: &str| form.get(name).and_then(|it| it.parse::<u64>().ok());
        let (Some(shard), Some(serial)) = (number("shard"), number("serial")) else {
            return Err(Trouble::NotFound);
        };
        let shard = usize::try_from(shard).map_err(|_| Trouble::NotFound)?;
        let was_there = self.server.disconnect(shard, serial).await;
        self.tenant()
            .await?
            .record(viewer.actor(), "connection.close", &serial.to_string(), "", "")
            .await?;
        let done = if was_there { "disconnected" } else { "gone" };
        Ok(page::see(&back(form, done)))
    }

    /// `POST connections/send`: a test event to what was searched for.
    pub(super) async fn send_event(
        &self,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let search = Search::of(form.get("find").unwrap_or_default());
        let receivers = self.receivers_of(search).await?;
        let said = form.get("text").unwrap_or_default();
        if receivers.is_empty() || said.len() > TEXT_BYTES_MAX {
            return Ok(page::see(&back(form, "failed")));
        }
        let tenant = self.tenant().await?;
        let way = self.publishers.of(&tenant).await?;
        let mut recipients = Recipients::default();
        for receiver in receivers {
            match receiver {
                Receiver::Private(id) => recipients.channels.push(id),
                // Somebody who searches for a channel means the one that is listened to.
                Receiver::Public(_) | Receiver::UserStatus(_) | Receiver::AnyUserStatus(_) => {}
                Receiver::User(user) if way.addresses_users() => recipients.users.push(user.id),
                Receiver::User(_) => {}
            }
        }
        let body = serde_json::json!({
            "module_id": "pull",
            "command": "test",
            "params": { "text": said },
            "extra": { "server_time_unix": self.hub.clock().unix_s() },
        });
        let event = ModuleEvent {
            body: body.to_string().into(),
            kind: MessageKind::parse("pull_test"),
            expiry: Expiry::new(300, Expiry::MAX),
            recipients,
            user_params: Vec::new(),
            dictionary: None,
        };
        let outcomes = way.publish(&[event]).await;
        let mut done = "sent";
        for error in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a test event was not published");
            self.remember_error(&error.to_string());
            done = "failed";
        }
        tenant.record(viewer.actor(), "event.test", "", "", done).await?;
        Ok(page::see(&back(form, done)))
    }
}

/// The page with the same search.
fn back(form: &Form, done: &str) -> String {
    let find = form.get("find").unwrap_or_default();
    let find: String = form_urlencoded::byte_serialize(find.as_bytes()).collect();
    format!("/admin/connections?find={find}&done={done}")
}

fn send_card(viewer: &Viewer<'_>, find: &str) -> Markup {
    let may = viewer.may_write();
    html! {
        section.card aria-labelledby="send-title" {
            h2 #send-title { (viewer.say(text::SEND_EVENT)) }
            p.hint { (viewer.say(text::SEND_EVENT_LEAD)) " " code { "pull.test" } }
            form.inline method="post" action="/admin/connections/send" {
                (viewer.form_key())
                input type="hidden" name="find" value=(find);
                label { span { (viewer.say(text::SEND_EVENT_TEXT)) } input name="text" maxlength="500" value="test" disabled[!may]; }
                button type="submit" disabled[!may] { (viewer.say(text::SEND)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_users_are_told_apart() {
        let id = "0123456789abcdef0123456789abcdef";
        let channel = Search::Channel(id.parse().unwrap());
        for text in [id.to_owned(), format!("{id}.aabb"), format!(" {id}:{id}.cc ")] {
            assert_eq!(Search::of(&text), channel, "{text}");
        }
        assert_eq!(Search::of("7"), Search::User(7));
        assert_eq!(Search::of("-12"), Search::User(-12));
        assert_eq!(Search::of(""), Search::Everything);
        assert_eq!(Search::of("somebody"), Search::Nonsense);
    }
}
