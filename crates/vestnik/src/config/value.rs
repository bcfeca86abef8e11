//! Values of settings: how they are written, what is allowed, what they mean.
//!
//! Knows nothing of files or sections: a raw value and a [`Kind`] go in, a checked [`Value`] or a
//! phrase that says what is wrong comes out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vestnik_core::date;
use vestnik_server::Network;

/// A value as a source wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// Text; from the environment and the command line everything is text.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// True or false.
    Flag(bool),
    /// Several values.
    List(Vec<Raw>),
    /// Named values, with the line of each name.
    Table(Vec<(String, Option<usize>, Raw)>),
    /// A date or a date with a time, as TOML writes it.
    Date(String),
    /// Something no setting takes; the name of its type.
    Other(&'static str),
}

impl Raw {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Date(_) => "a date",
            Self::Other(name) => name,
        }
    }
}

/// Whether values carry their type (files) or are all text (environment, command line).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typing {
    /// A number is a number and text is text.
    Strict,
    /// Everything is text; lists are separated by commas.
    Text,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// Text that must not be shown.
    Secret,
    /// True or false.
    Flag,
    /// A whole number of the range.
    Count(u64, u64),
    /// A number of bytes of the range, written `"16KiB"` or as a plain number.
    Size(u64, u64),
    /// A duration of the range, in milliseconds here, written `"40s"`.
    Time(u64, u64),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Some `address:port`.
    Addresses,
    /// Some networks, such as `10.0.0.0/8`.
    Networks,
    /// Some names of hosts.
    Hosts,
    /// Some signature keys: tables of `key`, `algorithm`, `until`.
    Keys,
    /// Some certificates: tables of `certificate`, `key`.
    Certificates,
}

/// One signature key as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenKey {
    /// The key text.
    pub(crate) key: String,
    /// The name of its algorithm; absent: that of the section.
    pub(crate) algorithm: Option<String>,
    /// Its end, unix seconds.
    pub(crate) until_s: Option<u64>,
}

/// The files of one certificate as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenCertificate {
    /// The chain.
    pub(crate) certificate: PathBuf,
    /// The private key; the same file unless told.
    pub(crate) key: PathBuf,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Of `Text`, `Secret` and `Choice`.
    Text(String),
    /// Of `Flag`.
    Flag(bool),
    /// Of `Count` and `Size`.
    Number(u64),
    /// Of `Time`.
    Time(Duration),
    /// Of `Addresses`.
    Addresses(Vec<SocketAddr>),
    /// Of `Networks`.
    Networks(Vec<Network>),
    /// Of `Hosts`: in lower case.
    Hosts(Vec<String>),
    /// Of `Keys`.
    Keys(Vec<WrittenKey>),
    /// Of `Certificates`.
    Certificates(Vec<WrittenCertificate>),
}

const KIB: u64 = 1024;
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", KIB * KIB * KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("MiB", KIB * KIB),
    ("KiB", KIB),
    ("B", 1),
];
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A size in the largest unit that keeps it whole: `16KiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    show_in_units(bytes, &SIZE_UNITS, "B")
}

/// A duration in the largest unit up to hours that keeps it whole: `40s`, `24h`.
pub(crate) fn show_time(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    show_in_units(milliseconds, &TIME_UNITS[1..], "s")
}

fn show_in_units(amount: u64, units: &[(&str, u64)], unit_of_zero: &str) -> String {
    if amount == 0 {
        return format!("0{unit_of_zero}");
    }
    units
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .map_or_else(|| amount.to_string(), |(unit, factor)| format!("{}{unit}", amount / factor))
}

/// Reads `text` as a number with one of `units`.
fn number_with_unit(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let names = || units.iter().rev().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if number.is_empty() {
        return Err(format!("`{text}` must be a whole number with a unit, such as \"{example}\""));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` needs a unit ({}), such as \"{example}\"", names()));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is not a unit; use one of {}", names()));
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is too large"))?;
    number.checked_mul(*factor).ok_or_else(|| format!("`{text}` is too large"))
}

impl Kind {
    /// Checks `raw`.
    ///
    /// # Errors
    /// Phrases that say what is wrong with it, without the name of the setting.
    pub(crate) fn parse(self, raw: &Raw, typing: Typing) -> Result<Value, Vec<String>> {
        let one = |result: Result<Value, String>| result.map_err(|problem| vec![problem]);
        match self {
            Self::Text | Self::Secret => {
                one(text_of(raw, "text").map(|it| Value::Text(it.to_owned())))
            }
            Self::Flag => one(flag(raw, typing)),
            Self::Count(low, high) => one(count(raw, typing, low, high)),
            Self::Size(low, high) => one(size(raw, typing, low, high)),
            Self::Time(low, high) => one(time(raw, low, high)),
            Self::Choice(words) => one(choice(raw, typing, words)),
            Self::Addresses => list(raw, typing, "addresses, such as [\"0.0.0.0:8895\"]", |text| {
                text.parse::<SocketAddr>().map_err(|_| {
                    format!(
                        "`{text}` is not an address with a port, such as 0.0.0.0:8895 or [::]:8895"
                    )
                })
            })
            .map(Value::Addresses),
            Self::Networks => list(raw, typing, "networks, such as [\"10.0.0.0/8\"]", |text| {
                text.parse::<Network>().map_err(|error| error.to_string())
            })
            .map(Value::Networks),
            Self::Hosts => {
                list(raw, typing, "names, such as [\"push.example.com\"]", host).map(Value::Hosts)
            }
            Self::Keys => keys(raw).map(Value::Keys),
            Self::Certificates => certificates(raw, typing).map(Value::Certificates),
        }
    }

    /// What the setting takes, in words, for the documentation.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Secret => "text, secret".into(),
            Self::Flag => "true or false".into(),
            Self::Count(low, high) => format!("number, {low} to {high}"),
            Self::Size(low, high) => format!("size, {} to {}", show_size(low), show_size(high)),
            Self::Time(low, high) => format!(
                "duration, {} to {}",
                show_time(Duration::from_millis(low)),
                show_time(Duration::from_millis(high))
            ),
            Self::Choice(words) if words.iter().all(|word| word.parse::<u8>().is_ok()) => {
                words.join(", ")
            }
            Self::Choice(words) => {
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
            }
            Self::Addresses => "list of `address:port`".into(),
            Self::Networks => "list of networks".into(),
            Self::Hosts => "list of names of hosts".into(),
            Self::Keys => "list of `{ key, algorithm, until }`, secret".into(),
            Self::Certificates => "list of `{ certificate, key }`".into(),
        }
    }
}

fn text_of<'raw>(raw: &'raw Raw, wanted: &str) -> Result<&'raw str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        other => Err(format!("must be {wanted}, got {}", other.type_name())),
    }
}

fn flag(raw: &Raw, typing: Typing) -> Result<Value, String> {
    match (raw, typing) {
        (Raw::Flag(value), _) => Ok(Value::Flag(*value)),
        (Raw::Text(text), Typing::Text) => match text.as_str() {
            "true" => Ok(Value::Flag(true)),
            "false" => Ok(Value::Flag(false)),
            other => Err(format!("must be true or false, got `{other}`")),
        },
        (other, _) => Err(format!("must be true or false, got {}", other.type_name())),
    }
}

fn integer(raw: &Raw, typing: Typing) -> Option<i128> {
    match (raw, typing) {
        (Raw::Integer(number), _) => Some(*number),
        (Raw::Text(text), Typing::Text) => text.parse().ok(),
        _ => None,
    }
}

fn count(raw: &Raw, typing: Typing, low: u64, high: u64) -> Result<Value, String> {
    let Some(number) = integer(raw, typing) else {
        return Err(match raw {
            Raw::Text(text) => format!("must be a whole number, got `{text}`"),
            other => format!("must be a whole number, got {}", other.type_name()),
        });
    };
    u64::try_from(number)
        .ok()
        .filter(|number| (low..=high).contains(number))
        .map(Value::Number)
        .ok_or_else(|| format!("must be {low} to {high}, got {number}"))
}

fn size(raw: &Raw, typing: Typing, low: u64, high: u64) -> Result<Value, String> {
    let out_of_range =
        |got: String| format!("must be {} to {}, got {got}", show_size(low), show_size(high));
    let bytes = match (integer(raw, typing), raw) {
        (Some(number), _) => u64::try_from(number).map_err(|_| out_of_range(number.to_string()))?,
        (None, Raw::Text(text)) => number_with_unit(text, &SIZE_UNITS, "1MiB")?,
        (None, other) => {
            return Err(format!("must be a size such as \"1MiB\", got {}", other.type_name()));
        }
    };
    if (low..=high).contains(&bytes) {
        Ok(Value::Number(bytes))
    } else {
        Err(out_of_range(show_size(bytes)))
    }
}

fn time(raw: &Raw, low: u64, high: u64) -> Result<Value, String> {
    let milliseconds = match raw {
        Raw::Text(text) => number_with_unit(text, &TIME_UNITS, "40s").or_else(|problem| {
            // Zero is zero in every unit.
            if text == "0" { Ok(0) } else { Err(problem) }
        })?,
        Raw::Integer(number) => {
            return Err(format!("{number} needs a unit, such as \"{number}s\""));
        }
        other => {
            return Err(format!("must be a duration such as \"40s\", got {}", other.type_name()));
        }
    };
    let time = Duration::from_millis(milliseconds);
    if (low..=high).contains(&milliseconds) {
        return Ok(Value::Time(time));
    }
    let [low, high] = [low, high].map(|limit| show_time(Duration::from_millis(limit)));
    Err(format!("must be {low} to {high}, got {}", show_time(time)))
}

fn choice(raw: &Raw, typing: Typing, words: &'static [&'static str]) -> Result<Value, String> {
    // A word that is a number, such as a generation, may be written as one.
    let written = match (raw, typing) {
        (Raw::Integer(number), _) => number.to_string(),
        _ => text_of(raw, &format!("one of {}", words.join(", ")))?.to_owned(),
    };
    if words.contains(&written.as_str()) {
        return Ok(Value::Text(written));
    }
    let mut problem = format!("must be one of {}, got `{written}`", words.join(", "));
    if let Some(word) = nearest(&written, words.iter().copied()) {
        problem.push_str(&format!("; did you mean `{word}`?"));
    }
    Err(problem)
}

fn list<T>(
    raw: &Raw,
    typing: Typing,
    wanted: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Vec<String>> {
    let mut values = Vec::new();
    let mut problems = Vec::new();
    let mut take = |item: Result<&str, String>| match item.and_then(&parse) {
        Ok(value) => values.push(value),
        Err(problem) => problems.push(problem),
    };
    match (raw, typing) {
        (Raw::List(items), _) => items.iter().for_each(|item| take(text_of(item, "text"))),
        (Raw::Text(text), Typing::Text) => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .for_each(|item| take(Ok(item))),
        (other, _) => {
            return Err(vec![format!("must be a list of {wanted}, got {}", other.type_name())]);
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// The name of one host, which a certificate can be for.
fn host(text: &str) -> Result<String, String> {
    const NAME_MAX: usize = 253;
    let is_label = |label: &str| {
        let is_edge = |byte: Option<u8>| byte.is_some_and(|it| it.is_ascii_alphanumeric());
        (1..=63).contains(&label.len())
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
            && is_edge(label.bytes().next())
            && is_edge(label.bytes().last())
    };
    let problem = if text.starts_with("*.") {
        "stands for many names: name them one by one, or get such a certificate elsewhere"
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        "is an address, not a name"
    } else if !text.is_ascii() {
        "must be written in its ASCII form (`xn--…`)"
    } else if text.len() > NAME_MAX || !text.split('.').all(is_label) {
        "is no name of a host, such as push.example.com"
    } else {
        return Ok(text.to_ascii_lowercase());
    };
    Err(format!("`{text}` {problem}"))
}

fn keys(raw: &Raw) -> Result<Vec<WrittenKey>, Vec<String>> {
    let Raw::List(items) = raw else {
        return Err(vec![format!(
            "must be a list of tables in a file, such as [{{ key = \"…\", algorithm = \"sha1\" }}], got {}",
            raw.type_name()
        )]);
    };
    let mut keys = Vec::new();
    let mut problems = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match written_key(item) {
            Ok(key) => keys.push(key),
            Err(found) => {
                problems.extend(found.into_iter().map(|it| format!("key {}: {it}", index + 1)));
            }
        }
    }
    if problems.is_empty() { Ok(keys) } else { Err(problems) }
}

fn certificates(raw: &Raw, typing: Typing) -> Result<Vec<WrittenCertificate>, Vec<String>> {
    let of_text = |text: &str| {
        let (certificate, key) = text.split_once(':').unwrap_or((text, text));
        if certificate.is_empty() || key.is_empty() {
            return Err(format!("must be certificate:key, got `{text}`"));
        }
        Ok(WrittenCertificate { certificate: certificate.into(), key: key.into() })
    };
    match (raw, typing) {
        (Raw::Text(_), Typing::Text) => list(raw, typing, "certificates", of_text),
        (Raw::List(items), _) => {
            let mut certificates = Vec::new();
            let mut problems = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match written_certificate(item) {
                    Ok(certificate) => certificates.push(certificate),
                    Err(problem) => problems.push(format!("certificate {}: {problem}", index + 1)),
                }
            }
            if problems.is_empty() { Ok(certificates) } else { Err(problems) }
        }
        (other, _) => Err(vec![format!(
            "must be a list of tables, such as [{{ certificate = \"chain.pem\", key = \"key.pem\" }}], got {}",
            other.type_name()
        )]),
    }
}

fn written_certificate(item: &Raw) -> Result<WrittenCertificate, String> {
    const NAMES: [&str; 2] = ["certificate", "key"];
    let Raw::Table(fields) = item else {
        return Err(format!("must be a table with `certificate`, got {}", item.type_name()));
    };
    let (mut certificate, mut key) = (None, None);
    for (name, _, value) in fields {
        let into = match name.as_str() {
            "certificate" => &mut certificate,
            "key" => &mut key,
            unknown => return Err(unknown_name("key", unknown, NAMES)),
        };
        let path = text_of(value, "a path").map_err(|problem| format!("`{name}` {problem}"))?;
        if path.is_empty() {
            return Err(format!("`{name}` is empty"));
        }
        *into = Some(PathBuf::from(path));
    }
    let certificate = certificate.ok_or("`certificate` is missing")?;
    Ok(WrittenCertificate { key: key.unwrap_or_else(|| certificate.clone()), certificate })
}

fn written_key(item: &Raw) -> Result<WrittenKey, Vec<String>> {
    const NAMES: [&str; 3] = ["key", "algorithm", "until"];
    let Raw::Table(fields) = item else {
        return Err(vec![format!("must be a table with `key`, got {}", item.type_name())]);
    };
    let mut written = WrittenKey { key: String::new(), algorithm: None, until_s: None };
    let mut problems = Vec::new();
    for (name, _, value) in fields {
        match name.as_str() {
            "key" => match text_of(value, "text") {
                Ok(text) => text.clone_into(&mut written.key),
                Err(problem) => problems.push(format!("`key` {problem}")),
            },
            "algorithm" => match text_of(value, "text") {
                Ok(text) => written.algorithm = Some(text.to_owned()),
                Err(problem) => problems.push(format!("`algorithm` {problem}")),
            },
            "until" => match date(value) {
                Ok(until_s) => written.until_s = Some(until_s),
                Err(problem) => problems.push(format!("`until` {problem}")),
            },
            unknown => problems.push(unknown_name("key", unknown, NAMES)),
        }
    }
    if written.key.is_empty() && problems.is_empty() {
        problems.push("`key` is missing or empty".into());
    }
    if problems.is_empty() { Ok(written) } else { Err(problems) }
}

/// The unix second at which `raw` ends: of a date alone the end of that day, UTC.
fn date(raw: &Raw) -> Result<u64, String> {
    const WANTED: &str = "must be a date such as 2030-12-31 or a time such as 2030-12-31T12:00:00Z";
    let (Raw::Date(text) | Raw::Text(text)) = raw else {
        return Err(format!("{WANTED}, got {}", raw.type_name()));
    };
    let wrong = || format!("{WANTED}, got `{text}`");
    let parsed: toml::value::Datetime = text.parse().map_err(|_| wrong())?;
    let day = parsed.date.ok_or_else(wrong)?;
    let midnight_s = date::midnight_s(day.year.into(), day.month, day.day).ok_or_else(wrong)?;
    let seconds = match (parsed.time, parsed.offset) {
        (None, _) => midnight_s + 86_399,
        (Some(_), None) => return Err(format!("`{text}` needs a time zone, such as {text}Z")),
        (Some(time), Some(offset)) => {
            let minutes_east = match offset {
                toml::value::Offset::Z => 0,
                toml::value::Offset::Custom { minutes } => i64::from(minutes),
            };
            let of_day = i64::from(time.hour) * 3600
                + i64::from(time.minute) * 60
                + i64::from(time.second.unwrap_or(0));
            midnight_s + of_day - minutes_east * 60
        }
    };
    u64::try_from(seconds).map_err(|_| format!("`{text}` is before 1970"))
}

/// The sentence for a name that is not known, with the nearest one that is.
pub(crate) fn unknown_name<'name>(
    what: &str,
    unknown: &str,
    known: impl IntoIterator<Item = &'name str>,
) -> String {
    nearest(unknown, known).map_or_else(
        || format!("unknown {what}"),
        |name| format!("unknown {what}; did you mean `{name}`?"),
    )
}

/// The name most like `written`, if any is alike enough to be meant.
pub(crate) fn nearest<'name>(
    written: &str,
    known: impl IntoIterator<Item = &'name str>,
) -> Option<&'name str> {
    let written = written.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, written: &str) -> Result<Value, Vec<String>> {
        kind.parse(&Raw::Text(written.into()), Typing::Text)
    }

    #[test]
    fn sizes_and_durations_need_units_and_keep_to_their_range() {
        let size = Kind::Size(1, KIB * KIB);
        assert_eq!(text(size, "16KiB"), Ok(Value::Number(16_384)));
        assert_eq!(text(size, "1 MiB"), Ok(Value::Number(1_048_576)));
        assert_eq!(text(size, "500"), Ok(Value::Number(500)));
        assert_eq!(text(size, "2MiB").unwrap_err(), ["must be 1B to 1MiB, got 2MiB"]);
        assert_eq!(
            text(size, "1MB").unwrap_err(),
            ["`MB` is not a unit; use one of B, KiB, MiB, GiB, TiB"]
        );
        assert_eq!(
            text(size, "99999999999999999TiB").unwrap_err(),
            ["`99999999999999999TiB` is too large"]
        );
        assert!(text(size, "").is_err());
        let time = Kind::Time(0, 60_000);
        assert_eq!(text(time, "40s"), Ok(Value::Time(Duration::from_secs(40))));
        assert_eq!(text(time, "100ms"), Ok(Value::Time(Duration::from_millis(100))));
        assert_eq!(text(time, "0"), Ok(Value::Time(Duration::ZERO)));
        assert_eq!(text(time, "2m").unwrap_err(), ["must be 0s to 1m, got 2m"]);
        assert!(text(time, "40").unwrap_err()[0].contains("needs a unit"));
        assert!(text(time, "-1s").is_err());
        assert_eq!(
            time.parse(&Raw::Integer(40), Typing::Strict).unwrap_err(),
            ["40 needs a unit, such as \"40s\""]
        );
    }

    #[test]
    fn files_are_typed_and_the_environment_is_not() {
        let three = Raw::Text("3".into());
        assert_eq!(Kind::Count(0, 9).parse(&three, Typing::Text), Ok(Value::Number(3)));
        assert!(Kind::Count(0, 9).parse(&three, Typing::Strict).is_err());
        assert_eq!(
            Kind::Count(1, 9).parse(&Raw::Integer(-4), Typing::Strict).unwrap_err(),
            ["must be 1 to 9, got -4"]
        );
        assert_eq!(text(Kind::Flag, "true"), Ok(Value::Flag(true)));
        assert_eq!(text(Kind::Flag, "yes").unwrap_err(), ["must be true or false, got `yes`"]);
        let found = text(Kind::Addresses, "127.0.0.1:1, [::]:2").unwrap();
        assert_eq!(
            found,
            Value::Addresses(vec!["127.0.0.1:1".parse().unwrap(), "[::]:2".parse().unwrap()])
        );
        assert_eq!(text(Kind::Addresses, "localhost,8895,127.0.0.1:99999").unwrap_err().len(), 3);
    }

    #[test]
    fn certificates_are_pairs_of_files_or_one_file_with_both() {
        let pair = |certificate: &str, key: &str| WrittenCertificate {
            certificate: certificate.into(),
            key: key.into(),
        };
        let expected = Value::Certificates(vec![pair("a.crt", "a.key"), pair("b.pem", "b.pem")]);
        assert_eq!(text(Kind::Certificates, "a.crt:a.key, b.pem"), Ok(expected));
        assert!(text(Kind::Certificates, ":a.key").is_err());
        let table = |fields: &[(&str, &str)]| {
            let fields = fields.iter();
            let fields =
                fields.map(|(name, value)| ((*name).into(), None, Raw::Text((*value).into())));
            Kind::Certificates.parse(&Raw::List(vec![Raw::Table(fields.collect())]), Typing::Strict)
        };
        let found = table(&[("certificate", "a.crt"), ("key", "a.key")]);
        assert_eq!(found, Ok(Value::Certificates(vec![pair("a.crt", "a.key")])));
        for (fields, part) in [
            (&[("key", "a.key")][..], "certificate 1: `certificate` is missing"),
            (&[("certificat", "a.crt")], "did you mean `certificate`?"),
            (&[("certificate", "")], "is empty"),
        ] {
            assert!(table(fields).unwrap_err()[0].contains(part), "{part}");
        }
    }

    #[test]
    fn names_of_hosts_are_those_that_a_certificate_can_be_for() {
        let found = text(Kind::Hosts, "Push.Example.com, localhost").unwrap();
        assert_eq!(found, Value::Hosts(vec!["push.example.com".into(), "localhost".into()]));
        for (written, part) in [
            ("*.example.com", "name them one by one"),
            ("192.0.2.1", "is an address"),
            ("пуш.example.com", "xn--"),
            ("push..example.com", "is no name"),
            ("-push.example.com", "is no name"),
            ("https://push.example.com", "is no name"),
        ] {
            assert!(text(Kind::Hosts, written).unwrap_err()[0].contains(part), "{written}");
        }
    }

    #[test]
    fn words_are_compared_whole_and_the_nearest_is_named() {
        let kind = Kind::Choice(&["always", "interval", "never"]);
        assert_eq!(text(kind, "always"), Ok(Value::Text("always".into())));
        assert_eq!(
            text(kind, "alway").unwrap_err(),
            ["must be one of always, interval, never, got `alway`; did you mean `always`?"]
        );
        assert_eq!(nearest("zzz", ["always"]), None);
        assert_eq!(nearest("messageTLL", ["messageTTL", "channelTTL"]), Some("messageTTL"));
    }

    #[test]
    fn the_end_of_a_key_is_a_day_or_an_instant_with_a_zone() {
        let end = |text: &str| date(&Raw::Date(text.into()));
        assert_eq!(end("1970-01-01"), Ok(86_399));
        assert_eq!(end("2000-03-01T00:00:00Z"), Ok(951_868_800));
        assert_eq!(end("2024-02-29T12:00:00+03:00"), Ok(1_709_197_200));
        for unix_s in [0, 86_399, 951_868_799, 951_868_800, 1_709_197_200, 4_102_444_799] {
            assert_eq!(end(&date::zulu(unix_s)), Ok(unix_s), "{}", date::zulu(unix_s));
        }
        assert_eq!(date::zulu(1_709_197_200), "2024-02-29T09:00:00Z");
        for bad in ["12:00:00", "2024-02-29T12:00:00", "1969-12-30", "tomorrow"] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }
}
