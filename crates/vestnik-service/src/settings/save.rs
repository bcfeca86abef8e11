//! Puts a plan in force, and writes down what was changed.

use super::Plan;
use crate::audit::{Actor, masked};
use crate::option::{Key, Kind, OptionError, Options};
use crate::tenant::Tenant;

/// What a registration at the cloud has brought.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Host name of the server.
    pub host: String,
    /// The key it gave.
    pub key: vestnik_core::Secret<String>,
}

/// What saving has changed: names of options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The options, in the order of the page.
    pub changed: Vec<&'static str>,
}

/// A value as the audit log may show it.
fn shown(key: Key, value: &str) -> String {
    if key.kind() == Kind::Secret { masked(value) } else { value.to_owned() }
}

impl Tenant {
    /// Puts a plan in force for all sites; clients are told, also when nothing has changed (S-51).
    ///
    /// # Errors
    /// When the store fails or a value is refused; nothing was changed then.
    pub async fn save_settings(
        &self,
        plan: &Plan,
        registration: Option<&Registration>,
        actor: Actor<'_>,
    ) -> Result<Saved, OptionError> {
        let before = self.options("").await?;
        let mut changes: Vec<(Key, Option<&str>)> = Vec::new();
        if let Some(registration) = registration {
            changes.push((Key::SharedServerAddress, Some(&registration.host)));
            changes.push((Key::SharedServerKey, Some(registration.key.expose())));
            changes.push((Key::RegisteredOnSharedServer, Some("Y")));
            changes.push((Key::Nginx, Some("Y")));
            changes.push((Key::ServerMode, Some("shared")));
        }
        changes.extend(plan.changes.iter().map(|(key, value)| (*key, value.as_deref())));
        self.change_settings("", &changes, &before, "settings.save", actor).await
    }

    /// Sets single options of `site` (empty: of all) by the rules of the page.
    ///
    /// # Errors
    /// As [`Tenant::set_options`].
    pub async fn set_settings(
        &self,
        site: &str,
        changes: &[(Key, Option<&str>)],
        actor: Actor<'_>,
    ) -> Result<Saved, OptionError> {
        let before = self.options(site).await?;
        self.change_settings(site, changes, &before, "settings.set", actor).await
    }

    async fn change_settings(
        &self,
        site: &str,
        changes: &[(Key, Option<&str>)],
        before: &Options,
        action: &str,
        actor: Actor<'_>,
    ) -> Result<Saved, OptionError> {
        self.set_options(site, changes).await?;
        let after = self.options(site).await?;
        self.record_changes(action, before, &after, actor).await
    }

    /// Takes away what was set (S-35); clients are told (S-51).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn restore_default_settings(&self, actor: Actor<'_>) -> Result<Saved, OptionError> {
        let before = self.options("").await?;
        self.restore_default_options("").await?;
        let after = self.options("").await?;
        self.record_changes("settings.defaults", &before, &after, actor).await
    }

    async fn record_changes(
        &self,
        action: &str,
        before: &Options,
        after: &Options,
        actor: Actor<'_>,
    ) -> Result<Saved, OptionError> {
        let mut saved = Saved::default();
        for key in Key::ALL.iter().copied().filter(|key| *key != Key::ConfigTimestamp) {
            let (old, new) = (before.text(key), after.text(key));
            if old == new {
                continue;
            }
            saved.changed.push(key.name());
            self.record(actor, action, key.name(), &shown(key, old), &shown(key, new)).await?;
        }
        // That somebody pressed the button is a fact of its own.
        if saved.changed.is_empty() {
            self.record(actor, action, "", "", "").await?;
        }
        Ok(saved)
    }
}
