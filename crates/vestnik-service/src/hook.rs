//! What the module asks of a back end, if the back end wants to be asked: option `callback_url`. Every question
//! has an answer for when there is none.

use std::sync::Arc;

use vestnik_core::publisher::BoxFuture;

use crate::tenant::Tenant;

/// Asks back ends. Implementations limit the time of an answer, and how many questions wait.
pub trait Hooks: Send + Sync + std::fmt::Debug {
    /// Asks a tenant's back end; the text of a JSON value, or `None` without an answer: nobody is to be
    /// asked, it takes too long, or it makes no sense.
    fn ask<'a>(
        &'a self,
        tenant: &'a Tenant,
        hook: &'a str,
        params: String,
    ) -> BoxFuture<'a, Option<String>>;
}

/// Asks nobody.
#[derive(Debug)]
pub(crate) struct NoHooks;

impl Hooks for NoHooks {
    fn ask<'a>(
        &'a self,
        _tenant: &'a Tenant,
        _hook: &'a str,
        _params: String,
    ) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

impl Tenant {
    pub(crate) fn hooks(&self) -> Arc<dyn Hooks> {
        self.service().hooks()
    }

    /// Which of `users` the back end says are not active; nobody, if it says nothing.
    pub(crate) async fn inactive_by_hook(&self, users: &[i64]) -> Vec<i64> {
        let list: Vec<String> = users.iter().map(ToString::to_string).collect();
        let params = format!(r#"{{"USERS":[{}]}}"#, list.join(","));
        let Some(answer) = self.hooks().ask(self, "user.active", params).await else {
            return Vec::new();
        };
        let Ok(answers) = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&answer)
        else {
            return Vec::new();
        };
        let inactive = answers.iter().filter(|(_, is_active)| **is_active == false);
        inactive.filter_map(|(user, _)| user.parse().ok()).filter(|it| users.contains(it)).collect()
    }

    /// Tells the back end who is online at this moment; it may note so (module.md §14).
    pub async fn tell_last_activity(&self, online: &[i64]) {
        let list: Vec<String> = online.iter().map(ToString::to_string).collect();
        let params = format!(r#"{{"USERS":[{}],"TIME":{}}}"#, list.join(","), self.now_s());
        // There is nothing to do without an answer.
        let _ = self.hooks().ask(self, "user.lastActivity", params).await;
    }

    /// Tells the back end what its administrators should know.
    pub async fn tell_administrator(&self, tag: &str, message: &str) {
        let params = serde_json::json!({ "TAG": tag, "MESSAGE": message }).to_string();
        // The notification is in the database all the same.
        let _ = self.hooks().ask(self, "admin.notification", params).await;
    }
}
