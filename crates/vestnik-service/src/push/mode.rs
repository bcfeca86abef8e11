//! How a notification reaches one user: at once, later, in silence, or not at all (module.md §19). Pure.

/// What is known of a user when somebody is to be notified. Everything but `has_device` and `wants_push` is
/// false where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// A device of the user has the application, and the user is active.
    pub has_device: bool,
    /// The user has not switched notifications off.
    pub wants_push: bool,
    /// The application was used on a mobile device within five minutes.
    pub is_mobile: bool,
    /// The user was active within five minutes.
    pub is_online: bool,
    /// Notifications wait while the user is online.
    pub has_smart_filter: bool,
    /// The desktop application is running.
    pub has_desktop: bool,
    /// Nobody sits before it.
    pub is_idle: bool,
}

/// What becomes of a notification for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sent now.
    Immediately,
    /// Sent now, with a sound that is none.
    Silently,
    /// The number on the badge now, the rest in a while, unless it was read until then.
    Deferred,
    /// The number on the badge and the data for the application, without a text.
    Skip,
    /// Nothing is sent.
    NotFound,
}

impl Mode {
    /// The mode for a situation, before what the notification itself asks for (mobile-push.md §6).
    #[must_use]
    pub fn of(situation: Situation, is_important: bool) -> Self {
        let it = situation;
        match it {
            _ if !it.has_device => Self::NotFound,
            _ if is_important => Self::Immediately,
            _ if !it.wants_push => Self::NotFound,
            _ if it.is_mobile || !it.is_online => Self::Immediately,
            _ if !it.has_smart_filter => Self::Silently,
            _ if it.has_desktop && it.is_idle => Self::Immediately,
            _ if it.has_desktop => Self::Skip,
            _ => Self::Deferred,
        }
    }

    /// With what the notification asks for: users who are left out, and no waiting.
    #[must_use]
    pub fn asked(self, is_left_out: bool, is_urgent: bool) -> Self {
        match self {
            _ if is_left_out => Self::Skip,
            Self::Deferred if is_urgent => Self::Immediately,
            other => other,
        }
    }

    /// Its name in the PHP module.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Immediately => "IMMEDIATELY",
            Self::Silently => "IMMEDIATELY_SILENT",
            Self::Deferred => "DEFERRED",
            Self::Skip => "SKIP",
            Self::NotFound => "NOT_FOUND",
        }
    }

    /// The mode of that name, in any case; nobody can ask for [`Mode::NotFound`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Immediately, Self::Silently, Self::Deferred, Self::Skip]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of the table: device, important, status, mobile, online, smart filter, desktop, idle. A dot
    /// stands for both.
    fn check(row: &str, mode: Mode) {
        for bits in 0_u32..256 {
            let given: Vec<bool> = (0..8).map(|at| bits >> at & 1 == 1).collect();
            let fits = row.bytes().zip(&given).all(|(wanted, is)| match wanted {
                b'y' => *is,
                b'n' => !*is,
                _ => true,
            });
            if !fits {
                continue;
            }
            let situation = Situation {
                has_device: given[0],
                wants_push: given[2],
                is_mobile: given[3],
                is_online: given[4],
                has_smart_filter: given[5],
                has_desktop: given[6],
                is_idle: given[7],
            };
            assert_eq!(Mode::of(situation, given[1]), mode, "{row} {situation:?}");
        }
    }

    #[test]
    fn m_090_p_023_every_row_of_the_table_decides_as_it_says() {
        check("n.......", Mode::NotFound);
        check("yy......", Mode::Immediately);
        check("ynn.....", Mode::NotFound);
        check("ynyy....", Mode::Immediately);
        check("ynynn...", Mode::Immediately);
        check("ynynyn..", Mode::Silently);
        check("ynynyyyn", Mode::Skip);
        check("ynynyyyy", Mode::Immediately);
        check("ynynyyn.", Mode::Deferred);
    }

    #[test]
    fn m_090_users_left_out_are_skipped_and_urgency_ends_the_waiting_alone() {
        for mode in [Mode::NotFound, Mode::Immediately, Mode::Deferred, Mode::Skip] {
            assert_eq!(mode.asked(true, true), Mode::Skip);
        }
        assert_eq!(Mode::Deferred.asked(false, true), Mode::Immediately);
        assert_eq!(Mode::Deferred.asked(false, false), Mode::Deferred);
        assert_eq!(Mode::Skip.asked(false, true), Mode::Skip);
        assert_eq!(Mode::NotFound.asked(false, true), Mode::NotFound);
        assert_eq!(Mode::named("immediately_silent"), Some(Mode::Silently));
        assert_eq!(Mode::named("NOT_FOUND"), None);
    }
}
