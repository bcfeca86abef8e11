//! Who is online, and how the server does: the questions of generations 3 and 4.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use vestnik_core::Receiver;
use vestnik_core::metric::Metric;
use vestnik_hub::stats::RequestKind;
use vestnik_proto::protobuf;
use vestnik_proto::query::{ChannelList, Query, Trust};
use vestnik_proto::text;

use crate::respond::{self, Answer};
use crate::shard::Shard;
use crate::shared::Shared;

impl Shard {
    /// `GET pub`: which of the private channels somebody listens to (queue-server.md §4.5).
    pub(crate) fn presence(&self, raw_query: &str) -> Answer {
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
            let answer = self.channel_stats(&channels);
            return respond::answer(StatusCode::OK, respond::BINARY, answer);
        }
        let online: Vec<_> = channels
            .iter()
            .filter(|channel| shared.hub.is_online(**channel))
            .filter_map(Receiver::channel)
            .collect();
        let body = text::presence(&online);
        respond::answer(StatusCode::OK, respond::TEXT, body)
    }

    /// A protobuf answer that says of each channel whether somebody listens.
    pub(crate) fn channel_stats(&self, channels: &[Receiver]) -> Bytes {
        let hub = &self.shared.hub;
        let online: Vec<_> =
            channels.iter().map(|channel| (*channel, hub.is_online(*channel))).collect();
        protobuf::channel_stats(&online)
    }

    /// `GET stat` (queue-server.md §4.10).
    pub(crate) fn server_stat(&self, raw_query: &str) -> Answer {
        self.shared.hub.stats().count_request(RequestKind::ServerStats);
        let stats = self.shared.server_stats();
        if Query::parse(raw_query).binary_mode() {
            let answer = protobuf::server_stats(stats);
            return respond::answer(StatusCode::OK, respond::BINARY, answer);
        }
        respond::answer(StatusCode::OK, respond::TEXT, stats)
    }
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
    /// The statistics of this process, as the only member of an array.
    pub(crate) fn server_stats(&self) -> String {
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
        serde_json::to_string(&[stats]).expect("numbers and texts always have a JSON form")
    }
}
