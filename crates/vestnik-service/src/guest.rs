//! Visitors who are not signed in: negative user ids (module.md §12).

/// Methods that a guest may call, by themselves or in a batch.
const METHODS: [&str; 2] = ["server.time", "pull.config.get"];

/// The user id of a guest of the web analytics: its number, negative. `None` unless it is positive.
#[must_use]
pub fn user_id(guest: i64) -> Option<i64> {
    if guest > 0 { Some(-guest) } else { None }
}

/// Whether a call of a guest is let through (M-079): nobody is signed in, the page gave the visitor the
/// id `acting`, the call names the same one, and every method of it is open to guests.
#[must_use]
pub fn is_admitted<'a>(
    signed_in: Option<i64>,
    acting: Option<i64>,
    named: &str,
    methods: impl IntoIterator<Item = &'a str>,
) -> bool {
    let mut methods = methods.into_iter().peekable();
    signed_in.is_none()
        && acting.is_some_and(|acting| acting.to_string() == named)
        && methods.peek().is_some()
        && methods.all(|method| METHODS.iter().any(|open| open.eq_ignore_ascii_case(method)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_079_guests_call_two_methods_and_only_with_their_own_id() {
        assert_eq!((user_id(7), user_id(0), user_id(-7)), (Some(-7), None, None));
        let check = |methods: &[&str], named, signed_in| {
            is_admitted(signed_in, Some(-7), named, methods.iter().copied())
        };
        assert!(check(&["pull.config.get"], "-7", None));
        assert!(check(&["server.time", "pull.config.get"], "-7", None), "a batch");
        assert!(!check(&["pull.config.get", "pull.watch.extend"], "-7", None));
        assert!(!check(&["pull.config.get"], "-8", None));
        assert!(!check(&["pull.config.get"], "-7", Some(1)));
        assert!(!check(&[], "-7", None), "an empty batch");
        assert!(!is_admitted(None, None, "", ["server.time"]));
    }
}
