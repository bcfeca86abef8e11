//! Telling who wants to know that users came and went, and keeping when they were seen.

use std::rc::Rc;

use vestnik_core::message::Additions;
use vestnik_core::{Author, Draft, Expiry, MessageKind, Receiver, User};
use vestnik_hub::engine::IfUnstored;
use vestnik_proto::jsonrpc;

use crate::shard::Shard;
use crate::shared::Shared;

/// Messages published together when many users come or go at once.
const CHUNK: usize = 512;

impl Shard {
    /// Publishes what happens to the presence of users, until the process stops. A status is a
    /// volatile message like any other, so it has an id that sorts among them (J-110).
    pub(crate) async fn announce_statuses(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.shared.hub.presence().changed() => {}
                () = self.shared.stopping.cancelled() => return,
            }
            let changes = self.shared.hub.presence().take_changes();
            for changes in changes.chunks(CHUNK) {
                let news = self.shared.hub.settle(changes.to_vec()).await;
                let drafts: Vec<_> = news
                    .iter()
                    .filter_map(|(user, is_online)| self.shared.status(*user, *is_online))
                    .collect();
                if let Err(error) = self.shared.hub.publish(drafts, IfUnstored::Deliver).await {
                    tracing::warn!(%error, "changes of presence not announced");
                }
            }
        }
    }

    /// Writes when users were last seen, away from the shard's thread.
    pub(crate) fn save_last_seen(&self) {
        let Some(path) = self.shared.options().last_seen.clone() else { return };
        let presence = std::sync::Arc::clone(self.shared.hub.presence());
        self.spawn(async move {
            let saved = tokio::task::spawn_blocking(move || presence.save(&path)).await;
            if let Ok(Err(error)) = saved {
                tracing::error!(%error, "times of last seen not saved");
            }
        });
    }
}

impl Shared {
    /// The message that says so; `None` when nobody asked. Whether somebody at another node has asked a
    /// moment ago cannot be known, so there it is always said.
    fn status(&self, user: User, is_online: bool) -> Option<Draft> {
        let receivers = [Receiver::UserStatus(user), Receiver::AnyUserStatus(user.space)];
        if !self.hub.is_shared() && !receivers.iter().any(|it| self.hub.is_online(*it)) {
            return None;
        }
        let body = jsonrpc::status_body(user.id, is_online, self.hub.clock().unix_ms());
        Some(Draft {
            receivers: receivers.into(),
            body: body.into(),
            expiry: Expiry::VOLATILE,
            author: Author::Backend,
            kind: MessageKind::parse("online_userStatusChange"),
            additions: Additions::default(),
        })
    }
}
