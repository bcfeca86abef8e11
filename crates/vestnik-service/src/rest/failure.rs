//! Errors as clients of Bitrix REST know them: a code, a text, an HTTP status (module.md §16).

use std::borrow::Cow;

use vestnik_core::publisher::{AskError, PublishError};

use crate::access::AccessError;
use crate::channel::ChannelError;
use crate::db::DatabaseError;
use crate::event::EventError;
use crate::option::OptionError;
use crate::push::{DeviceError, PushError};
use crate::tenant::ServiceError;
use crate::watch::WatchError;

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct RestError {
    /// What programs look at.
    pub code: Cow<'static, str>,
    /// What people read.
    pub text: String,
    /// The HTTP status that goes with it.
    pub status: u16,
}

impl RestError {
    pub(crate) fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), text: text.into(), status }
    }

    /// There is no operation of that name.
    #[must_use]
    pub fn unknown_operation(name: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        Self::new(404, "ERROR_METHOD_NOT_FOUND", format!("there is no operation `{name}`"))
    }

    /// The caller may not do that.
    pub(crate) fn denied(text: &str) -> Self {
        Self::new(403, "ACCESS_DENIED", text)
    }

    /// Nobody is known to call, or with a wrong proof.
    #[must_use]
    pub fn unauthorised() -> Self {
        let text = "no valid signature, secret or token";
        Self::new(401, "NO_AUTH_FOUND", text)
    }

    /// A field that is needed is not there.
    pub(crate) fn missing(name: &str) -> Self {
        Self::new(400, "ERROR_ARGUMENT", format!("field `{name}` is needed"))
    }

    /// A field has a value that it cannot have.
    pub(crate) fn argument(name: &str, wanted: &str) -> Self {
        Self::new(400, "ERROR_ARGUMENT", format!("field `{name}` takes {wanted}"))
    }

    /// No queue server is in use, or it does not do such things.
    pub(crate) fn no_server() -> Self {
        Self::new(500, "SERVER_ERROR", "Push & Pull server is not configured")
    }

    /// The queue server could not be asked.
    #[must_use]
    pub fn server(text: impl Into<String>) -> Self {
        Self::new(502, "SERVER_UNREACHABLE", text)
    }

    /// It cannot be done now.
    #[must_use]
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(503, "SERVICE_UNAVAILABLE", text)
    }

    fn database(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        tracing::error!(error = causes.join(": "), "an operation of the module failed");
        Self::unavailable("the database of the module is not available; try again in a moment")
    }

    /// The error as answers carry it.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self.code, "error_description": self.text }).to_string()
    }
}

impl From<DatabaseError> for RestError {
    fn from(error: DatabaseError) -> Self {
        Self::database(&error)
    }
}

impl From<OptionError> for RestError {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Database(error) => error.into(),
            error => Self::new(400, "OPTION_ERROR", error.to_string()),
        }
    }
}

impl From<ServiceError> for RestError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Database(error) => error.into(),
            ServiceError::Options(error) => error.into(),
            error @ ServiceError::HostId => Self::new(400, "ERROR_ARGUMENT", error.to_string()),
            error @ ServiceError::Random => {
                Self::new(500, "INTERNAL_SERVER_ERROR", error.to_string())
            }
        }
    }
}

impl From<AccessError> for RestError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Database(error) => error.into(),
            error @ AccessError::Random => {
                Self::new(500, "INTERNAL_SERVER_ERROR", error.to_string())
            }
            error => Self::new(400, "ERROR_ARGUMENT", error.to_string()),
        }
    }
}

impl From<ChannelError> for RestError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Database(error) => error.into(),
            ChannelError::Options(error) => error.into(),
            ChannelError::ServerOff | ChannelError::NoPublicChannels => Self::no_server(),
            ChannelError::Locked => Self::new(503, "CHANNEL_LOCKED", error.to_string()),
            ChannelError::Random => Self::new(500, "INTERNAL_SERVER_ERROR", error.to_string()),
            ChannelError::InactiveUser(_) => Self::new(400, "USER_NOT_ACTIVE", error.to_string()),
            ChannelError::Guest => Self::new(400, "GUEST_DISABLED", error.to_string()),
            ChannelError::Kind => Self::new(400, "ERROR_ARGUMENT", error.to_string()),
        }
    }
}

impl From<WatchError> for RestError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Database(error) => error.into(),
            WatchError::Channel(error) => error.into(),
            error => Self::new(400, "ERROR_ARGUMENT", error.to_string()),
        }
    }
}

impl From<EventError> for RestError {
    fn from(error: EventError) -> Self {
        match error {
            EventError::Channel(error) => error.into(),
            EventError::Watch(error) => error.into(),
            EventError::Options(error) => error.into(),
            error => Self::new(400, error.code(), error.to_string()),
        }
    }
}

impl From<PushError> for RestError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Options(error) => error.into(),
            PushError::Tenant(error) => error.into(),
            PushError::Database(error) => error.into(),
            error @ PushError::Overloaded => Self::new(503, error.code(), error.to_string()),
            error => Self::new(400, error.code(), error.to_string()),
        }
    }
}

impl From<DeviceError> for RestError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Database(error) => error.into(),
            error => Self::new(400, "ERROR_ARGUMENT", error.to_string()),
        }
    }
}

impl From<PublishError> for RestError {
    fn from(error: PublishError) -> Self {
        let text = error.to_string();
        match error {
            PublishError::Refused(_) => Self::new(400, "EVENT_REFUSED", text),
            PublishError::Unpublished(_) => Self::new(503, "EVENT_NOT_PUBLISHED", text),
            PublishError::Unknown(_) => Self::new(502, "EVENT_UNCERTAIN", text),
        }
    }
}

impl From<AskError> for RestError {
    fn from(error: AskError) -> Self {
        let text = error.to_string();
        match error {
            AskError::Unsupported(_) => Self::new(500, "SERVER_ERROR", text),
            AskError::Refused(_) | AskError::Failed(_) => Self::server(text),
        }
    }
}
