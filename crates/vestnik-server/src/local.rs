//! The module service's way to the hub of its own process: a publisher without HTTP in between.

use std::sync::Arc;
use std::time::Duration;

use vestnik_core::message::{Additions, Expiry};
use vestnik_core::publisher::{
    AskError, BoxFuture, EVENTS_MAX, Listeners, ModuleEvent, PublishError, Publisher, Recipients,
};
use vestnik_core::{Author, ChannelId, Draft, Receiver, User, UserId, UserSpace};
use vestnik_hub::engine::{EngineError, IfUnstored};
use vestnik_hub::stats::RequestKind;
use vestnik_hub::{Hub, PublishError as HubError};
use vestnik_proto::{jsonrpc, publisher};

/// How long an event waits for being stored. Nobody of the old generations waits for it, who give up after
/// a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Publishes for one site into the hub of this process. Its futures need a tokio runtime with timers.
pub struct LocalPublisher {
    hub: Arc<Hub>,
    space: UserSpace,
    expiry_max: Expiry,
}

impl LocalPublisher {
    /// A publisher of the site called `host_id`, whose users' tokens name it as `iss`. `expiry_max`: how
    /// long a message is kept at most.
    #[must_use]
    pub fn new(hub: Arc<Hub>, host_id: &str, expiry_max: Expiry) -> Self {
        Self { hub, space: UserSpace::of(host_id), expiry_max }
    }

    /// The message of an event: its body byte for byte, unless additions are merged into it.
    fn draft(&self, event: &ModuleEvent) -> Result<Draft, PublishError> {
        let refused =
            |error: &dyn std::fmt::Display| PublishError::Refused(error.to_string().into());
        publisher::object(&event.body).map_err(|error| refused(&error))?;
        if event.recipients.is_empty() {
            return Err(refused(&publisher::EncodeError::NoRecipients));
        }
        let (body, additions) = if event.user_params.is_empty() && event.dictionary.is_none() {
            (event.body.clone(), Additions::default())
        } else {
            // How additions and a dictionary combine is the codec's knowledge, and it reads wire forms.
            let mut addressed = event.clone();
            addressed.recipients =
                Recipients { users: UserId::new(1).into_iter().collect(), ..Recipients::default() };
            let params = publisher::json_rpc_params(&addressed).map_err(|error| refused(&error))?;
            let draft = jsonrpc::site_publish(&params, self.space, self.expiry_max)
                .map_err(|error| refused(&error))?;
            (draft.body, draft.additions)
        };
        let to = &event.recipients;
        let user = |id: &UserId| Receiver::User(User { space: self.space, id: *id });
        let mut receivers: Vec<_> = (to.channels.iter().copied().map(Receiver::Private))
            .chain(to.public_channels.iter().copied().map(Receiver::Public))
            .chain(to.users.iter().map(user))
            .collect();
        receivers.sort_unstable();
        receivers.dedup();
        let mut draft = Draft {
            receivers: receivers.into(),
            body,
            expiry: event.expiry.min(self.expiry_max),
            author: Author::Backend,
            kind: event.kind.clone(),
            additions,
        };
        if to.users.is_empty() {
            self.hub.pairs().complete(&mut draft);
        } else {
            self.hub.pairs().learn(&draft);
        }
        Ok(draft)
    }

    async fn publish_all(&self, events: &[ModuleEvent]) -> Vec<Result<(), PublishError>> {
        let beyond = || Err(PublishError::Unpublished("too many events at once".into()));
        let mut drafts = Vec::new();
        let mut outcomes: Vec<_> = events
            .iter()
            .enumerate()
            .map(|(index, event)| {
                if index >= EVENTS_MAX {
                    return beyond();
                }
                self.draft(event).map(|draft| drafts.push(draft))
            })
            .collect();
        if drafts.is_empty() {
            return outcomes;
        }
        self.hub.stats().count_request(RequestKind::IncomingMessages);
        if let Err(error) =
            self.hub.publish_within(ANSWER_WITHIN, drafts, IfUnstored::Withhold).await
        {
            let error = outcome(&error);
            outcomes.iter_mut().filter(|it| it.is_ok()).for_each(|it| *it = Err(error.clone()));
        }
        outcomes
    }
}

/// What a failure of the hub means for the events of a batch.
fn outcome(error: &HubError) -> PublishError {
    let text = error.to_string().into();
    match error {
        HubError::Overloaded
        | HubError::Full
        | HubError::Engine(EngineError::Overloaded { .. } | EngineError::Closed) => {
            PublishError::Unpublished(text)
        }
        // A store that failed may have kept a part, which a returning subscriber then gets.
        HubError::Engine(EngineError::Store(_)) | HubError::TimedOut => PublishError::Unknown(text),
    }
}

impl Publisher for LocalPublisher {
    fn addresses_users(&self) -> bool {
        true
    }

    fn publish<'a>(
        &'a self,
        events: &'a [ModuleEvent],
    ) -> BoxFuture<'a, Vec<Result<(), PublishError>>> {
        Box::pin(self.publish_all(events))
    }

    fn listeners<'a>(
        &'a self,
        channels: &'a [ChannelId],
    ) -> BoxFuture<'a, Result<Vec<Listeners>, AskError>> {
        self.hub.stats().count_request(RequestKind::ChannelStats);
        Box::pin(async move {
            let receivers: Vec<_> = channels.iter().copied().map(Receiver::Private).collect();
            let online = self.hub.who_is_online(&receivers).await;
            let listeners = channels.iter().zip(online);
            Ok(listeners
                .map(|(channel, is_online)| Listeners {
                    channel: *channel,
                    count: is_online.into(),
                })
                .collect())
        })
    }

    fn last_seen<'a>(
        &'a self,
        users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<(UserId, u64)>, AskError>> {
        Box::pin(async move { Ok(self.hub.last_seen(self.space, Some(users)).await) })
    }

    fn update_last_seen<'a>(
        &'a self,
        seen_s: &'a [(UserId, u64)],
    ) -> BoxFuture<'a, Result<(), AskError>> {
        Box::pin(async move {
            self.hub.update_last_seen(self.space, seen_s).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use vestnik_core::metric::Metrics;
    use vestnik_core::{Clock, MessageKind};
    use vestnik_hub::engine::Engine;

    use super::*;

    const NOW_S: u64 = 1_795_487_320;

    fn publisher() -> LocalPublisher {
        let announcer = Arc::new(vestnik_hub::Announcer::new(1, 100));
        let (clock, metrics) = (Clock::manual(NOW_S), Arc::new(Metrics::default()));
        let limits = vestnik_hub::engine::HistoryLimits {
            messages_per_channel: 100,
            messages: 100,
            bytes: 1 << 20,
            replay_messages: 100,
        };
        let engine =
            Engine::memory(limits, Arc::clone(&announcer), clock.clone(), Arc::clone(&metrics));
        let presence = Arc::new(vestnik_hub::Presence::new(clock.clone(), Duration::from_secs(10)));
        let hub = Hub::new(Arc::new(engine), announcer, metrics, presence, clock);
        LocalPublisher::new(Arc::new(hub), "h", Expiry::MAX)
    }

    fn event(body: &'static str, recipients: Recipients) -> ModuleEvent {
        ModuleEvent {
            body: body.into(),
            kind: MessageKind::parse("im_m"),
            expiry: Expiry::new(60, Expiry::MAX),
            recipients,
            user_params: Vec::new(),
            dictionary: None,
        }
    }

    fn user(number: i64) -> UserId {
        UserId::new(number).unwrap()
    }

    #[tokio::test]
    async fn m_064_an_event_for_a_channel_and_its_user_is_one_message_of_both() {
        let publisher = publisher();
        let channel = ChannelId::from_bytes([1; 16]);
        let to = Recipients {
            channels: vec![channel],
            users: vec![user(7), user(7)],
            ..Recipients::default()
        };
        let bad = event("{", to.clone());
        let nobody = event("{}", Recipients::default());
        let outcomes = publisher.publish(&[bad, event("{}", to), nobody]).await;
        assert!(matches!(outcomes[0], Err(PublishError::Refused(_))), "{outcomes:?}");
        assert_eq!(outcomes[1], Ok(()));
        assert!(matches!(outcomes[2], Err(PublishError::Refused(_))), "{outcomes:?}");
        let engine = publisher.hub.engine();
        let id = engine.newest(&[Receiver::Private(channel)]).await;
        assert!(id.is_some());
        let addressee = Receiver::User(User { space: publisher.space, id: user(7) });
        assert_eq!(engine.newest(&[addressee]).await, id);
        let known = publisher.hub.pairs().user_of(channel);
        assert_eq!(known.map(|it| it.id), Some(user(7)), "the pair is learnt");
    }

    #[test]
    fn m_066_dictionary_and_user_params_are_merged_as_the_server_merges_them() {
        let publisher = publisher();
        let to = Recipients { users: vec![user(7), user(8)], ..Recipients::default() };
        let mut event = event(r#"{"module_id":"im","params":{"a":1}}"#, to);
        event.dictionary = Some(r#"{"d":2}"#.into());
        event.user_params = vec![(user(8), r#"{"u":3,"d":9}"#.into())];
        let draft = publisher.draft(&event).unwrap();
        assert_eq!(draft.body, r#"{"module_id":"im","params":{"a":1,"d":2}}"#);
        let additions: Vec<_> = draft.additions.iter().collect();
        assert_eq!((additions[0].0.id, &additions[0].1[..]), (user(8), &br#"{"u":3}"#[..]));
        assert_eq!((additions.len(), draft.receivers.len()), (1, 2));
    }

    #[tokio::test]
    async fn m_067_last_seen_in_the_same_process() {
        let publisher = publisher();
        assert_eq!(publisher.last_seen(&[user(1)]).await, Ok(vec![]));
        publisher.update_last_seen(&[(user(1), NOW_S - 77)]).await.unwrap();
        assert_eq!(publisher.last_seen(&[user(1), user(2)]).await, Ok(vec![(user(1), 77)]));
        let channel = ChannelId::from_bytes([1; 16]);
        let nobody = vec![Listeners { channel, count: 0 }];
        assert_eq!(publisher.listeners(&[channel]).await, Ok(nobody));
    }

    #[tokio::test]
    async fn more_events_than_one_call_takes_are_handed_back() {
        let publisher = publisher();
        let to =
            Recipients { channels: vec![ChannelId::from_bytes([1; 16])], ..Recipients::default() };
        let events = vec![event("{}", to); EVENTS_MAX + 1];
        let outcomes = publisher.publish(&events).await;
        assert_eq!(outcomes.iter().filter(|it| it.is_ok()).count(), EVENTS_MAX);
        assert!(outcomes[EVENTS_MAX].as_ref().is_err_and(PublishError::may_be_repeated));
    }
}
