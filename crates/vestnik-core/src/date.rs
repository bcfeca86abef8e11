//! Moments as people and protocols write them: dates of the Gregorian calendar, UTC.

use std::time::{Duration, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime};

/// The end of the year 9999. What comes later is shown as this.
const LAST_S: u64 = 253_402_300_799;

/// A unix second as PHP's `DATE_ATOM`, for instance `2026-11-24T02:36:07+00:00`.
#[must_use]
pub fn atom(unix_s: u64) -> String {
    written(unix_s, "+00:00")
}

/// A unix second for people and configurations, for instance `2026-11-24T02:36:07Z`.
#[must_use]
pub fn zulu(unix_s: u64) -> String {
    written(unix_s, "Z")
}

/// A unix second as HTTP writes it, for instance `Tue, 24 Nov 2026 02:36:07 GMT`.
#[must_use]
pub fn http(unix_s: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S)))
}

/// The unix second of a date as HTTP writes it, in any of its forms (RFC 9110 §5.6.7). `None`: it is none, or
/// before 1970.
#[must_use]
pub fn from_http(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The unix second at which a day (`month` and `day` from 1) begins; negative before 1970. `None`: there
/// is no such day.
#[must_use]
pub fn midnight_s(year: i32, month: u8, day: u8) -> Option<i64> {
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    Some(date.midnight().assume_utc().unix_timestamp())
}

fn written(unix_s: u64, zone: &str) -> String {
    let at = moment(unix_s);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}")
}

fn moment(unix_s: u64) -> OffsetDateTime {
    let unix_s = i64::try_from(unix_s.min(LAST_S)).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years_and_centuries() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_197_200, "2024-02-29T09:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_S, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(zulu(unix_s), expected);
        }
        for (unix_s, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (94_734_661, "Mon, 01 Jan 1973 11:11:01 GMT"),
            (1_795_487_767, "Tue, 24 Nov 2026 02:36:07 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST_S, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http(unix_s), expected);
            assert_eq!(from_http(expected), Some(unix_s));
        }
        assert_eq!(http(u64::MAX), http(LAST_S));
        assert_eq!(from_http("yesterday"), None);
    }

    #[test]
    fn m_032_times_are_iso_with_a_numeric_zone() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (1_767_225_600, "2026-01-01T00:00:00+00:00"),
            (1_709_210_096, "2024-02-29T12:34:56+00:00"),
            (1_735_689_599, "2024-12-31T23:59:59+00:00"),
        ] {
            assert_eq!(atom(unix_s), text);
        }
    }

    #[test]
    fn a_day_begins_where_dates_say() {
        for unix_s in [0, 951_782_400, 951_868_800, 1_709_164_800, 4_107_542_400] {
            let text = zulu(unix_s);
            let year = text[..4].parse().unwrap();
            let (month, day) = (text[5..7].parse().unwrap(), text[8..10].parse().unwrap());
            assert_eq!(midnight_s(year, month, day), i64::try_from(unix_s).ok());
        }
        assert_eq!(midnight_s(1969, 12, 31), Some(-86_400));
        for (year, month, day) in [(2023, 2, 29), (2026, 13, 1), (2026, 0, 1), (2026, 4, 31)] {
            assert_eq!(midnight_s(year, month, day), None);
        }
    }
}
