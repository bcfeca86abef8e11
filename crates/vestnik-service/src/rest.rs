//! The operations of the module for back ends in any language (module.md §21): one table of them, from
//! which calls are dispatched, rights are checked and the OpenAPI document is written.
//!
//! Nothing here knows HTTP: an operation gets an [`Input`] and whoever calls, and gives JSON or a
//! [`RestError`]. What it needs of the world outside it asks of a [`Backstage`].

mod access;
mod application;
mod batch;
mod channel;
mod cloud;
mod configuration;
mod controller;
mod event;
mod failure;
mod form;
mod input;
mod mobile;
mod online;
mod openapi;
mod polling;
mod push;
mod setting;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use vestnik_core::Secret;
use vestnik_core::publisher::{BoxFuture, Publisher};

pub use crate::access::{Caller, Right};
pub use batch::{BATCH_MAX, Batch};
pub use controller::OPEN_TO_ALL;
pub use failure::RestError;
pub use input::{INPUT_BYTES_MAX, Input, InputError};
pub use openapi::document;
pub use polling::failure as polling_failure;

use crate::tenant::Tenant;

/// Operations whose work grows with their input and with nothing else, and which rarely wait.
const BOUNDED_BY_INPUT: [&str; 3] = ["pull.event.add", "pull.config.get", "server.time"];

/// Whether the work of an operation with this JSON is bounded by it: of a short one it is short, however
/// much is in the database.
#[must_use]
pub fn is_bounded_by_input(name: &str, body: &[u8]) -> bool {
    BOUNDED_BY_INPUT.iter().any(|known| known.eq_ignore_ascii_case(name))
        && !event::may_name_tags(body)
}

/// What operations need of the world outside the database.
pub trait Backstage: Send + Sync {
    /// The queue server of a tenant. What its `publish` answers with `Ok` is accepted: it will be
    /// published, maybe later.
    ///
    /// # Errors
    /// When the options of the tenant make no server: what is wrong with them.
    fn server<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<Arc<dyn Publisher>, RestError>>;

    /// What is known of the way to the queue server of a tenant.
    fn server_state(&self, tenant: &Tenant) -> ServerState;

    /// Tries the addresses of a tenant's options, as clients and the site checker do; `domain` stands for
    /// `#DOMAIN#`.
    ///
    /// # Errors
    /// When they cannot be tried at all.
    fn try_addresses<'a>(
        &'a self,
        tenant: &'a Tenant,
        domain: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TriedAddress>, RestError>>;

    /// Addresses and regions of the cloud's servers, from the directory for a region.
    ///
    /// # Errors
    /// When the directory does not answer.
    fn cloud_servers<'a>(
        &'a self,
        region: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, RestError>>;

    /// Registers with a server of the cloud, or with the one that the directory chooses: its host, and
    /// the key that requests to it are signed with.
    ///
    /// # Errors
    /// When nobody answers, or the server refuses.
    fn cloud_register<'a>(
        &'a self,
        region: &'a str,
        host: Option<&'a str>,
        licence: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(String, Secret<String>), RestError>>;
}

/// One step of trying the addresses of the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedAddress {
    /// What was tried, as `poll`.
    pub step: &'static str,
    /// Where; empty if it was nothing with an address.
    pub address: String,
    /// `good`, `warning`, `bad` or `skipped`.
    pub outcome: &'static str,
    /// What was seen.
    pub detail: String,
    /// What would mend it, as `forward`.
    pub remedy: Option<&'static str>,
    /// The line for a configuration that mends it, where there is one.
    pub line: &'static str,
    /// How long it took.
    pub milliseconds: u64,
}

/// What became of the last events on the way to a queue server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Why the last event that was not taken was not, and when: unix seconds.
    pub last_error: Option<(String, u64)>,
    /// Whether sending is stopped after many errors.
    pub is_stopped: bool,
    /// Events that wait to be sent again.
    pub waiting: u64,
}

/// What an input field looks like; numbers, switches, lists and objects may also come as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Switch,
    List,
    Object,
    /// A list, an object or a single value.
    Any,
}

/// One field of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) is_required: bool,
    pub(crate) about: &'static str,
}

impl Field {
    pub(crate) const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_required: true, about }
    }

    pub(crate) const fn may(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_required: false, about }
    }
}

/// A running call.
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) stage: &'a dyn Backstage,
    pub(crate) input: Input,
}

impl Call<'_> {
    pub(crate) fn tenant(&self) -> &Tenant {
        &self.caller.tenant
    }

    /// The user a call is about: field `name`, or, for the page of a user, that user and nobody else.
    ///
    /// # Errors
    /// When it is no number, or another user's.
    pub(crate) fn user(&self, name: &'static str) -> Result<Option<i64>, RestError> {
        let named = self.input.number(name)?;
        match self.caller.user {
            None => Ok(named),
            Some(own) if named.is_none_or(|named| named == own) => Ok(Some(own)),
            Some(_) => Err(RestError::denied("a token speaks for its own user alone")),
        }
    }

    /// The same where there must be one.
    pub(crate) fn needed_user(&self, name: &'static str) -> Result<i64, RestError> {
        self.user(name)?.ok_or_else(|| RestError::missing(name))
    }
}

/// The JSON text of a result.
pub(crate) type Outcome = Result<String, RestError>;

/// One operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) about: &'static str,
    /// The least right that a caller needs.
    pub(crate) right: Right,
    pub(crate) fields: &'static [Field],
    /// What the result looks like: JSON Schema.
    pub(crate) result: &'static str,
    /// An input that is accepted.
    pub(crate) example: &'static str,
    pub(crate) run: for<'a> fn(Call<'a>) -> BoxFuture<'a, Outcome>,
}

/// Every operation, by group.
pub(crate) fn operations() -> impl Iterator<Item = &'static Operation> {
    [
        event::OPERATIONS,
        configuration::OPERATIONS,
        channel::OPERATIONS,
        watch::OPERATIONS,
        application::OPERATIONS,
        polling::OPERATIONS,
        cloud::OPERATIONS,
        controller::OPERATIONS,
        mobile::OPERATIONS,
        push::OPERATIONS,
        online::OPERATIONS,
        setting::OPERATIONS,
        access::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}

/// The operation called `name`, in any case, with or without `.json` behind it.
fn find(name: &str) -> Option<&'static Operation> {
    static BY_NAME: OnceLock<HashMap<String, &'static Operation>> = OnceLock::new();
    let by_name =
        BY_NAME.get_or_init(|| operations().map(|it| (it.name.to_ascii_lowercase(), it)).collect());
    let name = name.to_ascii_lowercase();
    by_name.get(name.strip_suffix(".json").unwrap_or(&name)).copied()
}

/// Whether there is an operation called `name`.
#[must_use]
pub fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// Runs an operation. The result is JSON text.
///
/// # Errors
/// When there is none of that name, the caller may not use it, the input is wrong, or it fails.
pub async fn call(
    caller: &Caller,
    stage: &dyn Backstage,
    name: &str,
    input: Input,
) -> Result<String, RestError> {
    let operation = find(name).ok_or_else(|| RestError::unknown_operation(name))?;
    if caller.right < operation.right {
        return Err(RestError::denied(&format!(
            "`{}` needs the right `{}`",
            operation.name,
            operation.right.name()
        )));
    }
    (operation.run)(Call { caller, stage, input }).await
}
