//! What a subscriber asks for, and whether it may have it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use vestnik_core::metric::Metric;
use vestnik_core::{ChannelId, Cursor, Receiver};
use vestnik_proto::query::{ChannelList, Framing, Query, Trust};

use crate::shard::Shared;

/// A checked request to subscribe.
pub(crate) struct Subscription {
    /// The channels, without repeats.
    pub(crate) receivers: Vec<Receiver>,
    /// The private channel of the first signed pair: its connections are limited (README D12).
    pair: Option<ChannelId>,
    /// The public channel it may publish under.
    pub(crate) author: Option<ChannelId>,
    /// How it wants its messages.
    pub(crate) framing: Framing,
    /// Where it stopped reading.
    pub(crate) cursor: Cursor,
}

impl Subscription {
    /// The channel whose limit this connection counts against.
    pub(crate) fn counted(&self) -> Option<Receiver> {
        self.pair.map(Receiver::Private)
    }
}

/// The channels are malformed, missing, repeated or wrongly signed. Wire: 4010.
pub(crate) struct SubscriptionRefused;

impl Shared {
    /// Reads and checks what the query of a request asks for.
    pub(crate) fn subscription(
        &self,
        raw_query: &str,
    ) -> Result<Subscription, SubscriptionRefused> {
        let query = Query::parse(raw_query);
        let framing = query.framing();
        // Tokens and JSON-RPC belong to generation 5: a client that relies on them must not get a
        // connection that it cannot read.
        if framing == Framing::JsonRpc || query.token().is_some() {
            return Err(SubscriptionRefused);
        }
        let Some(Ok(list)) = query.channel_id() else { return Err(SubscriptionRefused) };
        let items_max = self.options.limits.channels_per_request;
        let authorised = ChannelList::parse(list, items_max)
            .map_err(|_| SubscriptionRefused)?
            .authorise(&self.tenant().keys, Trust::Client, self.hub.clock().unix_s())
            .map_err(|_| SubscriptionRefused)?;
        Ok(Subscription {
            pair: authorised.pairs.first().map(|pair| pair.private),
            author: authorised.author(),
            receivers: authorised.receivers,
            framing,
            cursor: query.mid().map_or(Cursor::Live, Cursor::After),
        })
    }

    /// Counts and logs a refused subscription; the target is masked.
    pub(crate) fn subscription_refused(&self, client: IpAddr, target: &str) {
        self.metrics().increment(Metric::SubscribeRefused);
        let target = vestnik_proto::query::masked(target);
        tracing::debug!(%client, target, "subscription refused");
        self.hint_unsigned(&target);
    }

    /// Once a minute: how to serve old sites that sign nothing (README D3).
    fn hint_unsigned(&self, target: &str) {
        const SAY_AGAIN_S: u64 = 60;
        let now_s = self.hub.clock().unix_s();
        let last = self.hinted.load(Ordering::Relaxed);
        let is_bare = !target.contains('.') && target.contains("CHANNEL_ID=");
        if is_bare && now_s >= last + SAY_AGAIN_S {
            self.hinted.store(now_s, Ordering::Relaxed);
            tracing::warn!(
                "channel ids without signature are refused; set the same signature key in the site, \
                 or security.unsigned = true to accept them"
            );
        }
    }
}
