//! What a subscriber asks for, and whether it may have it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use vestnik_core::metric::Metric;
use vestnik_core::{Author, ChannelId, Cursor, Receiver};
use vestnik_proto::jwt::{self, TokenError};
use vestnik_proto::query::{ChannelList, Framing, Query, Trust};

use crate::rpc::Identity;
use crate::shared::Shared;

/// A checked request to subscribe.
pub(crate) struct Subscription {
    /// The channels, without repeats.
    pub(crate) receivers: Vec<Receiver>,
    /// The receiver whose connections are limited (README D12): the private channel of the first
    /// pair, or the user.
    counted: Option<Receiver>,
    /// The public channel it may publish under.
    pub(crate) author: Option<ChannelId>,
    /// How it wants its messages.
    pub(crate) framing: Framing,
    /// Where it stopped reading.
    pub(crate) cursor: Cursor,
    /// Who it is, when it came with a token or speaks JSON-RPC.
    pub(crate) identity: Option<Identity>,
    /// Its token is refused: the handshake completes, and the connection is closed with 4010, because
    /// web clients then fetch another one (J-056).
    pub(crate) is_rejected: bool,
}

impl Subscription {
    /// The receiver whose limit this connection counts against.
    pub(crate) fn counted(&self) -> Option<Receiver> {
        self.counted
    }
}

/// Why a subscription is refused. Wire: 4010.
pub(crate) enum SubscriptionRefused {
    /// The channels are malformed, missing, repeated or wrongly signed.
    Channels,
    /// The token is not to be trusted.
    Token(TokenError),
}

impl Shared {
    /// Reads and checks what the query of a request asks for.
    pub(crate) fn subscription(
        &self,
        raw_query: &str,
    ) -> Result<Subscription, SubscriptionRefused> {
        let query = Query::parse(raw_query);
        if let Some(token) = query.token() {
            return self.by_token(&query, token).map_err(SubscriptionRefused::Token);
        }
        let refused = SubscriptionRefused::Channels;
        let Some(Ok(list)) = query.channel_id() else { return Err(refused) };
        let items_max = self.options().limits.channels_per_request;
        let Ok(list) = ChannelList::parse(list, items_max) else { return Err(refused) };
        let now_s = self.hub.clock().unix_s();
        let authorised = list.authorise(&self.tenant().keys, Trust::Client, now_s);
        let Ok(authorised) = authorised else { return Err(refused) };
        let framing = query.framing();
        let author = authorised.author();
        let private = authorised.pairs.first().map(|pair| pair.private);
        let addressee = private.and_then(|channel| self.hub.pairs().user_of(channel));
        let is_five = framing == Framing::JsonRpc || addressee.is_some();
        let identity = is_five.then(|| Identity {
            user: None,
            addressee,
            space: None,
            author: author.map_or(Author::Unnamed, Author::Client),
            has_revision: query.has_revision(),
            until_s: None,
        });
        Ok(Subscription {
            counted: private.map(Receiver::Private),
            author,
            receivers: authorised.receivers,
            framing,
            cursor: query.mid().map_or(Cursor::Live, Cursor::After),
            identity,
            is_rejected: false,
        })
    }

    /// What a token says its bearer may hear (json-rpc.md §5).
    fn by_token(&self, query: &Query<'_>, token: &str) -> Result<Subscription, TokenError> {
        let now_s = self.hub.clock().unix_s();
        let token = jwt::verify(token, &self.tenant().keys, now_s)?;
        let user = token.user();
        let mut receivers: Vec<_> = user.map(Receiver::User).into_iter().collect();
        // A shared channel stands alone. Anonymous channels come as a private and a public id, and
        // the token does not say which is which.
        receivers.extend(token.channels.iter().map(|id| Receiver::Private(*id)));
        receivers.extend(token.channels.iter().skip(1).map(|id| Receiver::Public(*id)));
        let public = match token.channels[..] {
            [_, public] if user.is_none() => Some(public),
            _ => None,
        };
        let private = public.and(token.channels.first()).map(|id| Receiver::Private(*id));
        let author = match (user, public) {
            (Some(user), _) => Author::User(user.id),
            (None, Some(public)) => Author::Client(public),
            (None, None) => Author::Unnamed,
        };
        let grace_s = self.options().timing.token_grace.as_secs();
        Ok(Subscription {
            receivers,
            counted: user.map(Receiver::User).or(private),
            author: public,
            framing: query.framing(),
            cursor: query.mid().map_or(Cursor::Live, Cursor::After),
            identity: Some(Identity {
                user,
                addressee: user,
                space: Some(token.space),
                author,
                has_revision: query.has_revision(),
                until_s: Some(token.expires_s.saturating_add(grace_s)),
            }),
            is_rejected: false,
        })
    }

    /// The same for a handshake, where a refused token of a web client opens a connection, which is
    /// then closed with 4010.
    pub(crate) fn handshake_subscription(
        &self,
        raw_query: &str,
    ) -> Result<Subscription, SubscriptionRefused> {
        match self.subscription(raw_query) {
            Err(SubscriptionRefused::Token(error)) => {
                let query = Query::parse(raw_query);
                if !query.has_revision() {
                    return Err(SubscriptionRefused::Token(error));
                }
                self.token_refused(error);
                Ok(Subscription {
                    receivers: Vec::new(),
                    counted: None,
                    author: None,
                    framing: query.framing(),
                    cursor: Cursor::Live,
                    identity: None,
                    is_rejected: true,
                })
            }
            other => other,
        }
    }

    fn token_refused(&self, error: TokenError) {
        self.metrics().increment(Metric::SubscribeRefused);
        if error == TokenError::NoKey {
            self.hint(
                "connection tokens are refused: generation 5 needs a signature key; set the same one \
                 here and in the site",
            );
        }
        tracing::debug!(%error, "token refused");
    }

    /// Counts and logs a refused subscription; the target is masked.
    pub(crate) fn subscription_refused(
        &self,
        client: IpAddr,
        target: &str,
        refused: &SubscriptionRefused,
    ) {
        match refused {
            SubscriptionRefused::Token(error) => self.token_refused(*error),
            SubscriptionRefused::Channels => self.metrics().increment(Metric::SubscribeRefused),
        }
        let target = vestnik_proto::query::masked(target);
        tracing::debug!(%client, target, "subscription refused");
        self.hint_unsigned(&target);
    }

    /// Once a minute: how to serve old sites that sign nothing (README D3).
    fn hint_unsigned(&self, target: &str) {
        if !target.contains('.') && target.contains("CHANNEL_ID=") {
            self.hint(
                "channel ids without signature are refused; set the same signature key in the site, \
                 or security.unsigned = true to accept them",
            );
        }
    }

    fn hint(&self, advice: &'static str) {
        const SAY_AGAIN_S: u64 = 60;
        let now_s = self.hub.clock().unix_s();
        if now_s >= self.hinted.load(Ordering::Relaxed) + SAY_AGAIN_S {
            self.hinted.store(now_s, Ordering::Relaxed);
            tracing::warn!("{advice}");
        }
    }
}
