//! From when and until when a certificate is valid: the few bytes of DER that say it.
//!
//! A certificate is `SEQUENCE { tbsCertificate SEQUENCE { [0] version?, serialNumber, signature,
//! issuer, validity SEQUENCE { notBefore, notAfter }, … }, … }` (RFC 5280 §4.1).

use vestnik_core::date;

/// Seconds since 1970; times before it are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from_s: u64,
    pub(super) until_s: u64,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Reads it from a certificate; `None`: that is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, mut certificate, _) = element(certificate)? else { return None };
        let SEQUENCE = tag(certificate)? else { return None };
        let mut fields = take(&mut certificate)?;
        if tag(fields)? == VERSION {
            take(&mut fields)?;
        }
        for _ in ["serialNumber", "signature", "issuer"] {
            take(&mut fields)?;
        }
        let SEQUENCE = tag(fields)? else { return None };
        let mut times = take(&mut fields)?;
        Some(Self { from_s: time(&mut times)?, until_s: time(&mut times)? })
    }
}

fn tag(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

/// Tag and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits.iter().fold(0u64, |sum, digit| sum << 8 | u64::from(*digit));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Takes the first element off `bytes`; its content.
fn take<'der>(bytes: &mut &'der [u8]) -> Option<&'der [u8]> {
    let (_, content, rest) = element(bytes)?;
    *bytes = rest;
    Some(content)
}

/// Takes a time off `bytes`: `YYMMDDHHMMSSZ` of 1950 to 2049, or with the whole year.
fn time(bytes: &mut &[u8]) -> Option<u64> {
    let tag = tag(bytes)?;
    let text = std::str::from_utf8(take(bytes)?).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok();
    let (year, at) = match tag {
        UTC_TIME => match number(0..2)? {
            year @ 0..=49 => (2000 + year, 2),
            year => (1900 + year, 2),
        },
        GENERALIZED_TIME => (number(0..4)?, 4),
        _ => return None,
    };
    let part = |index: usize| u8::try_from(number(at + 2 * index..at + 2 * index + 2)?).ok();
    let midnight_s = date::midnight_s(i32::from(year), part(0)?, part(1)?)?;
    let of_day = i64::from(part(2)?) * 3600 + i64::from(part(3)?) * 60 + i64::from(part(4)?);
    Some(u64::try_from(midnight_s + of_day).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        let read = |tag: u8, text: &str| {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
            der.extend_from_slice(text.as_bytes());
            time(&mut der.as_slice())
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "240229120000Z"), Some(1_709_208_000));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(read(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for bad in ["", "Z", "240229120000", "2402291200Z", "24022912000+Z"] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bad in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80, 0, 0]] {
            assert_eq!(Validity::of(bad), None, "{bad:?}");
        }
    }
}
