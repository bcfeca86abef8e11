//! Who is online, and how the server does: the questions of generations 3 and 4.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use vestnik_core::Receiver;
use vestnik_core::metric::Metric;
use vestnik_hub::EngineError;
use vestnik_hub::engine::NodeFacts;
use vestnik_hub::stats::RequestKind;
use vestnik_proto::protobuf;
use vestnik_proto::query::{ChannelList, Query, Trust};
use vestnik_proto::text;

use crate::respond::{self, Answer};
use crate::shard::Shard;
use crate::shared::Shared;

impl Shard {
    /// `GET pub`: which of the private channels somebody listens to, on any node (queue-server.md §4.5).
    pub(crate) async fn presence(&self, raw_query: &str) -> Answer {
        let shared = &self.shared;
        let query = Query::parse(raw_query);
        let list = query
            .channel_id()
            .and_then(Result::ok)
            .and_then(|list| ChannelList::parse(list, usize::MAX).ok())
            .and_then(|list| {
                let now_s = shared.hub.clock().unix_s();
                list.authorise(&shared.tenant().keys, Trust::Backend, now_s).ok()?;
                Some(list)
            });
        let Some(list) = list else { return respond::refused("4017: No channels found.") };
        if list.items().len() > shared.options().limits.channels_per_request {
            return respond::refused("4018: Request exceeded the maximum number of channels.");
        }
        shared.hub.stats().count_request(RequestKind::ChannelStats);
        let channels: Vec<_> =
            list.items().iter().map(|item| Receiver::Private(item.private)).collect();
        if query.binary_mode() {
            let answer = self.channel_stats(&channels).await;
            return respond::answer(StatusCode::OK, respond::BINARY, answer);
        }
        let is_online = shared.hub.who_is_online(&channels).await;
        let online: Vec<_> = channels
            .iter()
            .zip(is_online)
            .filter(|(_, is_online)| *is_online)
            .filter_map(|(channel, _)| channel.channel())
            .collect();
        let body = text::presence(&online);
        respond::answer(StatusCode::OK, respond::TEXT, body)
    }

    /// A protobuf answer that says of each channel whether somebody listens on any node.
    pub(crate) async fn channel_stats(&self, channels: &[Receiver]) -> Bytes {
        let online = self.shared.hub.who_is_online(channels).await;
        encode_channel_stats(channels, online)
    }

    /// The answers to several questions, found out together.
    pub(crate) async fn channel_stats_of_each(&self, asked: &[Vec<Receiver>]) -> Vec<Bytes> {
        let mut online = self.shared.hub.who_is_online(&asked.concat()).await;
        let answer = |channels: &Vec<Receiver>| {
            let rest = online.split_off(channels.len());
            encode_channel_stats(channels, std::mem::replace(&mut online, rest))
        };
        asked.iter().map(answer).collect()
    }

    /// The answer to one question, if this node knows it without asking others.
    pub(crate) fn channel_stats_here(&self, channels: &[Receiver]) -> Option<Bytes> {
        let online = self.shared.hub.who_is_online_here(channels)?;
        Some(encode_channel_stats(channels, online))
    }

    /// `GET stat` (queue-server.md §4.10).
    pub(crate) async fn server_stat(&self, raw_query: &str) -> Answer {
        self.shared.hub.stats().count_request(RequestKind::ServerStats);
        let Ok(stats) = self.shared.server_stats().await else { return respond::unavailable() };
        if Query::parse(raw_query).binary_mode() {
            let answer = protobuf::server_stats(stats);
            return respond::answer(StatusCode::OK, respond::BINARY, answer);
        }
        respond::answer(StatusCode::OK, respond::TEXT, stats)
    }

    /// Keeps what the other nodes are to know of this one.
    pub(crate) fn tell_others(&self) {
        let shared = &self.shared;
        if shared.hub.is_shared() {
            shared.hub.tell(NodeFacts {
                name: shared.options().process_unique_id.clone(),
                stats: shared.stats_of_this_node(),
                connections_per_channel: shared.options().limits.connections_per_channel,
            });
        }
    }
}

fn encode_channel_stats(channels: &[Receiver], online: Vec<bool>) -> Bytes {
    let online: Vec<_> = channels.iter().copied().zip(online).collect();
    protobuf::channel_stats(&online)
}

/// Statistics of one process; names and order of the members are those of queue-server.md §9.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerStats<'a> {
    pid: u32,
    /// Milliseconds since 1970.
    date: u64,
    process_unique_id: &'a str,
    channels: usize,
    limits: StatsLimits<'a>,
    cluster_mode: bool,
    websockets: u64,
    pollings: u64,
    daily: Daily,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsLimits<'a> {
    max_payload: usize,
    max_conn_per_channel: u32,
    max_messages_per_request: usize,
    max_channels_per_request: usize,
    /// Members of an imported file that have no effect, as the originals repeat them.
    #[serde(flatten)]
    other: &'a serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Daily {
    requests: DailyRequests,
    messages: BTreeMap<Box<str>, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DailyRequests {
    incoming_messages: u64,
    channel_stats: u64,
    server_stats: u64,
}

impl Shared {
    /// The statistics of all processes that share this one's history, as an array; those
    /// of the others are as old as their last report.
    ///
    /// # Errors
    /// When the others cannot be asked.
    pub(crate) async fn server_stats(&self) -> Result<String, EngineError> {
        let own = self.stats_of_this_node();
        let all = self.hub.stats_of_nodes().await.inspect_err(|error| {
            tracing::warn!(%error, "statistics of the other nodes not read");
        })?;
        let name = &self.options().process_unique_id;
        let mut all = all.unwrap_or_default();
        all.retain(|node| node.name != *name);
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let others = all.into_iter().map(|node| node.json);
        let all: Vec<_> = std::iter::once(own).chain(others).collect();
        Ok(format!("[{}]", all.join(",")))
    }

    fn stats_of_this_node(&self) -> String {
        let today = self.hub.stats().today();
        let limits = &self.options().limits;
        let stats = ServerStats {
            pid: std::process::id(),
            date: self.hub.clock().unix_ms(),
            process_unique_id: &self.options().process_unique_id,
            channels: self.hub.announcer().private_channels(),
            limits: StatsLimits {
                max_payload: limits.max_payload,
                max_conn_per_channel: limits.connections_per_channel,
                max_messages_per_request: limits.messages_per_request,
                max_channels_per_request: limits.channels_per_request,
                other: &self.options().other_limits,
            },
            cluster_mode: self.options().cluster_mode,
            websockets: self.metrics().get(Metric::ConnectionsWebSocket),
            pollings: self.metrics().get(Metric::ConnectionsPolling),
            daily: Daily {
                requests: DailyRequests {
                    incoming_messages: today.incoming_messages,
                    channel_stats: today.channel_stats,
                    server_stats: today.server_stats,
                },
                messages: today.messages,
            },
        };
        serde_json::to_string(&stats).expect("numbers and texts always have a JSON form")
    }
}
