//! Who is online, and how the server does: the questions of generations 3 and 4.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use vestnik_core::Receiver;
use vestnik_core::metric::Metric;
use vestnik_hub::stats::RequestKind;
use vestnik_proto::protobuf;
use vestnik_proto::query::{ChannelList, Query, Trust};
use vestnik_proto::quirks;

use crate::respond::{self, Answer};
use crate::shard::{Shard, Shared};

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
        if list.items().len() > shared.options.limits.channels_per_request {
            return respond::refused("4018: Request exceeded the maximum number of channels.");
        }
        shared.hub.stats().count_request(RequestKind::ChannelStats);
        let channels: Vec<_> =
            list.items().iter().map(|item| Receiver::Private(item.private)).collect();
        if query.binary_mode() {
            let answer = self.channel_stats(&channels);
            return respond::answer(StatusCode::OK, respond::BINARY, answer);
        }
        let infos: Vec<_> = channels
            .iter()
            .filter(|channel| shared.hub.is_online(**channel))
            .map(|channel| json!({"channel": channel.id().to_string(), "subscribers": quirks::ONLINE_SUBSCRIBERS}))
            .collect();
        let body = json!({ "infos": infos }).to_string();
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

impl Shared {
    /// The statistics of this process, keys in the order of queue-server.md §9.
    pub(crate) fn server_stats(&self) -> String {
        let today = self.hub.stats().today();
        let limits = &self.options.limits;
        let gauge = |metric| self.metrics().get(metric);
        let stats: [(&str, Value); 9] = [
            ("pid", json!(std::process::id())),
            ("date", json!(self.hub.clock().unix_ms())),
            ("processUniqueId", json!(self.options.process_unique_id)),
            ("channels", json!(self.hub.announcer().private_channels())),
            (
                "limits",
                json!({
                    "maxPayload": limits.max_payload,
                    "maxConnPerChannel": limits.connections_per_channel,
                    "maxMessagesPerRequest": limits.messages_per_request,
                    "maxChannelsPerRequest": limits.channels_per_request,
                }),
            ),
            ("clusterMode", json!(false)),
            ("websockets", json!(gauge(Metric::ConnectionsWebSocket))),
            ("pollings", json!(gauge(Metric::ConnectionsPolling))),
            (
                "daily",
                json!({
                    "requests": {
                        "incomingMessages": today.incoming_messages,
                        "channelStats": today.channel_stats,
                        "serverStats": today.server_stats,
                    },
                    "messages": today.messages,
                }),
            ),
        ];
        // Written by hand, since the order of keys is part of the promise.
        let members: Vec<_> =
            stats.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
        format!("[{{{}}}]", members.join(","))
    }
}
