//! The overview: numbers of the running server, sampled once a second while somebody looks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use vestnik_core::Receiver;
use vestnik_core::metric::{Histogram, Metric};
use vestnik_server::{Form, Survey, Visit, Way};

use super::page::{self, Frame, Place, Tone, Viewer};
use super::text::Text;
use super::{Admin, Trouble, text};
use crate::answer::{self, Answer};

/// Ten minutes.
const SAMPLES_MAX: usize = 600;
/// Two viewers within this time get the same sample.
const FRESH: Duration = Duration::from_millis(900);
/// Nodes write of themselves every few seconds.
const NODES_FRESH: Duration = Duration::from_secs(5);
const NODES_MAX: usize = 100;
const KINDS_MAX: usize = 10;
const TOP_MAX: usize = 8;

/// Counters whose growth is drawn or listed.
const COUNTERS: [(&str, Metric); 6] = [
    ("published", Metric::Published),
    ("publishedBytes", Metric::PublishedBytes),
    ("delivered", Metric::Delivered),
    ("replayed", Metric::Replayed),
    ("stored", Metric::Stored),
    ("accepted", Metric::Accepted),
];

/// What was refused or went wrong, by reason.
const REFUSALS: [(Text, Metric); 13] = [
    (text::REFUSED_CONNECTIONS, Metric::ConnectionsRefused),
    (text::REFUSED_SUBSCRIPTIONS, Metric::SubscribeRefused),
    (text::REFUSED_PUBLISHES, Metric::Refused),
    (text::DROPPED_PUBLISHES, Metric::Dropped),
    (text::REFUSED_UNTRUSTED, Metric::TrustRefused),
    (text::REFUSED_API, Metric::ApiRefused),
    (text::REFUSED_FOR_MEMORY, Metric::MemoryRefused),
    (text::RATE_LIMITED_SUBSCRIPTIONS, Metric::RateLimitedSubscriptions),
    (text::RATE_LIMITED_PUBLISHES, Metric::RateLimitedPublishes),
    (text::EVICTED, Metric::Evicted),
    (text::SLOW, Metric::SlowSubscribers),
    (text::RECOVERY_GAPS, Metric::RecoveryGaps),
    (text::NOT_STORED, Metric::NotStored),
];

/// Samples taken so far.
#[derive(Default)]
pub(super) struct Samples(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    samples: VecDeque<(u64, Value)>,
    last: Option<Instant>,
    number: u64,
    /// Deliveries by time at the last sample.
    latency: Vec<u64>,
    /// What the nodes say of themselves, and when they were asked.
    nodes: Option<(Instant, Value)>,
}

const fn way_name(way: Way) -> &'static str {
    match way {
        Way::WebSocket => "websocket",
        Way::Poll => "poll",
        Way::BetweenPolls => "between",
    }
}

const fn form_name(form: Form) -> &'static str {
    match form {
        Form::Text => "text",
        Form::Protobuf => "protobuf",
        Form::JsonRpc => "jsonrpc",
        Form::Json => "json",
        Form::Unknown => "unknown",
    }
}

/// A receiver as administrators may see it: a whole private id is a password where ids are not signed.
pub(super) fn masked_receiver(receiver: Receiver) -> String {
    match receiver {
        Receiver::Private(id) => {
            let id = id.to_string();
            format!("{}…{}", &id[..6], &id[id.len() - 4..])
        }
        Receiver::Public(id) => {
            let id = id.to_string();
            format!("{}…{} (public)", &id[..6], &id[id.len() - 4..])
        }
        Receiver::User(user) => format!("user {}", user.id.number()),
        Receiver::UserStatus(user) => format!("status of user {}", user.id.number()),
        Receiver::AnyUserStatus(_) => "status of every user".to_owned(),
    }
}

impl Admin {
    /// One sample, taken now.
    fn sample(&self, survey: &Survey, latency: &mut Vec<u64>) -> Value {
        let metrics = self.hub.metrics();
        let counters: serde_json::Map<String, Value> = COUNTERS
            .iter()
            .map(|(name, metric)| ((*name).to_owned(), metrics.get(*metric).into()))
            .collect();
        let connections = survey.connections.iter().map(|((way, form), count)| {
            (format!("{}.{}", way_name(*way), form_name(*form)), Value::from(*count))
        });
        let connections: serde_json::Map<String, Value> = connections.collect();
        let now = self.hub.announcer().latency().counts();
        let since: Vec<u64> =
            now.iter().enumerate().map(|(n, count)| count - latency.get(n).unwrap_or(&0)).collect();
        *latency = now;
        let quantile =
            |share| Histogram::quantile(&since, share).map(|it| it.as_secs_f64() * 1000.0);
        json!({
            "at": self.hub.clock().unix_ms(),
            "counters": counters,
            "connections": connections,
            "waiting": survey.waiting,
            "behind": survey.behind,
            "latency": [quantile(0.5), quantile(0.95), quantile(0.99)],
            "historyMessages": metrics.get(Metric::HistoryMessages),
            "historyBytes": metrics.get(Metric::HistoryBytes),
            "memory": metrics.get(Metric::MemoryResident),
            "refusals": REFUSALS.map(|(_, metric)| metrics.get(metric)),
        })
    }

    /// Name, WebSocket connections, polls and channels of every node; of this one alone where nodes share
    /// nothing.
    async fn nodes(&self, survey: &Survey) -> Value {
        let others = match self.hub.stats_of_nodes().await {
            Ok(others) => others,
            Err(error) => {
                tracing::warn!(%error, "statistics of the other nodes cannot be read");
                None
            }
        };
        let Some(others) = others else {
            let of_way = |wanted: Way| -> u64 {
                let fits = survey.connections.iter().filter(|((way, _), _)| *way == wanted);
                fits.map(|(_, count)| count).sum()
            };
            let channels = self.hub.announcer().private_channels();
            return json!([[
                self.options.node,
                of_way(Way::WebSocket),
                of_way(Way::Poll),
                channels
            ]]);
        };
        let node = |node: &vestnik_hub::engine::NodeStats| {
            let stats: Value = serde_json::from_str(&node.json).unwrap_or_default();
            let number = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
            json!([node.name, number("websockets"), number("pollings"), number("channels")])
        };
        others.iter().take(NODES_MAX).map(node).collect()
    }

    /// `GET live`: the samples after the number that the query names, and what is not drawn.
    pub(super) async fn live(&self, visit: &Visit) -> Answer {
        let after = visit.query().strip_prefix("after=").and_then(|it| it.parse::<u64>().ok());
        let mut taken = self.samples.0.lock().await;
        let survey = self.server.survey().await;
        if taken.last.is_none_or(|last| last.elapsed() >= FRESH) {
            let mut latency = std::mem::take(&mut taken.latency);
            let sample = self.sample(&survey, &mut latency);
            taken.latency = latency;
            taken.last = Some(Instant::now());
            taken.number += 1;
            let number = taken.number;
            taken.samples.push_back((number, sample));
            if taken.samples.len() > SAMPLES_MAX {
                taken.samples.pop_front();
            }
        }
        if taken.nodes.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= NODES_FRESH) {
            taken.nodes = Some((Instant::now(), self.nodes(&survey).await));
        }
        let after = after.unwrap_or(0);
        let samples: Vec<&Value> =
            taken.samples.iter().filter(|(number, _)| *number > after).map(|(_, it)| it).collect();
        let today = self.hub.stats().today();
        let mut kinds: Vec<_> = today.messages.iter().collect();
        kinds.sort_unstable_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        kinds.truncate(KINDS_MAX);
        let top = survey.top.iter().take(TOP_MAX);
        let top: Vec<_> =
            top.map(|(receiver, count)| json!([masked_receiver(*receiver), count])).collect();
        let said = json!({
            "number": taken.number,
            "samples": samples,
            "kinds": kinds,
            "top": top,
            "nodes": taken.nodes.as_ref().map(|(_, nodes)| nodes),
            "isReachable": self.hub.engine().is_reachable(),
            "isFull": self.hub.is_full(),
        });
        answer::json(StatusCode::OK, said.to_string())
    }

    /// `GET /admin/`.
    pub(super) async fn show_dashboard(&self, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let options = self.tenant().await?.options("").await?;
        let engine = self.hub.engine();
        let content = html! {
            div.figures {
                (figure(viewer, "connections", text::FIGURE_CONNECTIONS))
                (figure(viewer, "published", text::FIGURE_PUBLISHED))
                (figure(viewer, "delivered", text::FIGURE_DELIVERED))
                (figure(viewer, "latency", text::FIGURE_LATENCY))
                (figure(viewer, "history", text::FIGURE_HISTORY))
                (figure(viewer, "waiting", text::FIGURE_WAITING))
            }
            div.charts {
                (chart(viewer, "chart-messages", text::CHART_MESSAGES))
                (chart(viewer, "chart-connections", text::CHART_CONNECTIONS))
                (chart(viewer, "chart-latency", text::CHART_LATENCY))
                (chart(viewer, "chart-bytes", text::CHART_BYTES))
            }
            div.charts {
                (table(viewer, "forms", text::TABLE_FORMS, &[text::COLUMN_WAY, text::COLUMN_FORM, text::COLUMN_COUNT]))
                (table(viewer, "refusals", text::TABLE_REFUSALS, &[text::COLUMN_REASON, text::COLUMN_COUNT]))
                (table(viewer, "top", text::TABLE_TOP, &[text::COLUMN_CHANNEL, text::COLUMN_CONNECTIONS]))
                (table(viewer, "nodes", text::TABLE_NODES, &[text::NODE, text::WAY_WEBSOCKET, text::WAY_POLL, text::COLUMN_CHANNELS]))
                (table(viewer, "kinds", text::TABLE_KINDS, &[text::COLUMN_KIND, text::COLUMN_COUNT]))
            }
            section.card aria-labelledby="health-title" {
                h2 #health-title { (viewer.say(text::HEALTH)) }
                div.row { span.label { (viewer.say(text::NODE)) } div.control { code { (self.options.node) } } }
                div.row { span.label { (viewer.say(text::ENGINE)) } div.control.pills {
                    (page::pill(Tone::Plain, engine.name()))
                    span #engine-health {
                        @if engine.is_reachable() { (page::pill(Tone::Good, viewer.say(text::SERVER_REACHABLE))) }
                        @else { (page::pill(Tone::Bad, viewer.say(text::SERVER_UNREACHABLE))) }
                    }
                } }
                div.row { span.label { (viewer.say(text::SERVER_STATE)) } div.control.pills {
                    @if options.is_server_on() { (page::pill(Tone::Good, viewer.say(text::SERVER_ON))) }
                    @else { (page::pill(Tone::Plain, viewer.say(text::SERVER_OFF))) }
                    (page::pill(Tone::Plain, &format!("{} {}", viewer.say(text::SERVER_GENERATION), options.generation().number())))
                } }
                div.row { span.label { (viewer.say(text::MEMORY)) } div.control #memory { "–" } }
            }
            (page::data("dashboard-data", &self.dashboard_data(viewer)))
        };
        let frame = Frame {
            place: Place::Dashboard,
            title: text::NAV_DASHBOARD,
            lead: Some(text::DASHBOARD_LEAD),
            scripts: &["dashboard.js"],
            styles: &["uplot.css"],
        };
        let page = page::page(viewer, &frame, &content);
        Ok(page::answer(StatusCode::OK, viewer.look, page))
    }

    fn dashboard_data(&self, viewer: &Viewer<'_>) -> Value {
        json!({
            "refusals": REFUSALS.map(|(name, _)| viewer.say(name)),
            "ways": {
                "websocket": viewer.say(text::WAY_WEBSOCKET),
                "poll": viewer.say(text::WAY_POLL),
                "between": viewer.say(text::WAY_BETWEEN),
            },
            "forms": {
                "text": viewer.say(text::FORM_TEXT),
                "protobuf": viewer.say(text::FORM_PROTOBUF),
                "jsonrpc": viewer.say(text::FORM_JSON_RPC),
                "json": viewer.say(text::FORM_JSON),
                "unknown": viewer.say(text::FORM_UNKNOWN),
            },
            "series": {
                "published": viewer.say(text::SERIES_PUBLISHED),
                "delivered": viewer.say(text::SERIES_DELIVERED),
                "bytes": viewer.say(text::SERIES_BYTES),
            },
            "behind": viewer.say(text::BEHIND),
            "time": viewer.say(text::WHEN),
            "nothing": viewer.say(text::NOTHING_YET),
        })
    }
}

fn figure(viewer: &Viewer<'_>, id: &str, name: Text) -> Markup {
    html! {
        div.figure {
            span.name { (viewer.say(name)) }
            b id={ "figure-" (id) } { "–" }
            small id={ "figure-" (id) "-more" } { "\u{a0}" }
        }
    }
}

fn chart(viewer: &Viewer<'_>, id: &str, name: Text) -> Markup {
    html! {
        section.card aria-labelledby={ (id) "-title" } {
            div.heading {
                h2 id={ (id) "-title" } { (viewer.say(name)) }
                button.quiet.small type="button" data-zoom-out=(id) hidden { (viewer.say(text::ZOOM_OUT)) }
            }
            div.chart id=(id) role="img" aria-labelledby={ (id) "-title" } {}
        }
    }
}

fn table(viewer: &Viewer<'_>, id: &str, name: Text, columns: &[Text]) -> Markup {
    html! {
        section.card aria-labelledby={ "table-" (id) "-title" } {
            h2 id={ "table-" (id) "-title" } { (viewer.say(name)) }
            div.scroll.inside tabindex="0" role="region" aria-labelledby={ "table-" (id) "-title" } {
                table id={ "table-" (id) } {
                    thead { tr {
                        @for (n, column) in columns.iter().enumerate() {
                            th.number[n + 1 == columns.len()] { (viewer.say(*column)) }
                        }
                    } }
                    tbody {}
                }
            }
        }
    }
}
