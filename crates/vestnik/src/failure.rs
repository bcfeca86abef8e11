//! How commands fail: what is printed, and with which exit code.

use crate::config::{ConfigErrors, LoadKeysError};
use crate::keygen::KeyFileError;

/// A failure the user can fix, with a hint how.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    what: String,
    hint: String,
}

impl Failure {
    /// `what` went wrong, as a lower-case phrase; `hint`: what to do.
    pub(crate) fn new(what: impl ToString, hint: impl Into<String>) -> Self {
        Self { what: what.to_string(), hint: hint.into() }
    }
}

/// The text for standard error and the exit code: 1 the user can fix it, 2 our fault.
pub(crate) fn report(error: &anyhow::Error) -> (String, u8) {
    let mut text = format!("error: {error:#}");
    let mut code = 2;
    for cause in error.chain() {
        let hint = if let Some(failure) = cause.downcast_ref::<Failure>() {
            Some(failure.hint.clone())
        } else if let Some(error) = cause.downcast_ref::<KeyFileError>() {
            Some(error.hint())
        } else if let Some(error) = cause.downcast_ref::<LoadKeysError>() {
            error.hint()
        } else if cause.is::<ConfigErrors>() {
            None
        } else {
            continue;
        };
        if let Some(hint) = hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        code = 1;
        break;
    }
    (text, code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn what_the_user_can_fix_exits_with_1_and_a_hint_and_the_rest_with_2() {
        let ours: anyhow::Error = std::io::Error::other("disk on fire").into();
        let ours = ours.context("history cannot be opened");
        assert_eq!(report(&ours), ("error: history cannot be opened: disk on fire".into(), 2));
        let theirs =
            Err::<(), _>(KeyFileError::Missing("k".into())).context("no start").unwrap_err();
        assert_eq!(
            report(&theirs),
            (
                "error: no start: key file k does not exist\nhint: name the server's own key with --config, --data-dir or --key-file; or, for a new server, make one with `vestnik keygen --output k`".into(),
                1
            )
        );
    }
}
