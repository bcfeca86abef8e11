//! Expected text with holes for what varies, and protobuf bytes written as hex.

use vestnik_core::receiver::hex;

use super::scope::Scope;

/// Expected text: literal pieces and holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Hole { name: String, kind: Hole },
}

/// What may stand in a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// 26 digits; 13 bytes in hex.
    Mid,
    /// Three digits.
    Tag,
    /// One or more digits.
    Number,
    /// An RFC 1123 date.
    Date,
    /// Four bytes in hex.
    U32,
    /// Anything up to what follows.
    Any,
}

impl Hole {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "mid" => Self::Mid,
            "tag" => Self::Tag,
            "number" => Self::Number,
            "date" => Self::Date,
            "u32" => Self::U32,
            "any" => Self::Any,
            _ => return Err(format!("`{text}` is no kind of hole")),
        })
    }

    /// How much of `text` it takes; `follows`: the literal behind it.
    fn length(self, text: &str, follows: &str) -> Option<usize> {
        let leading = |is: fn(&u8) -> bool| text.bytes().take_while(is).count();
        let exactly = |length: usize, is: fn(&u8) -> bool| {
            text.get(..length).filter(|part| part.bytes().all(|byte| is(&byte))).map(|_| length)
        };
        match self {
            Self::Mid => exactly(26, u8::is_ascii_digit),
            Self::Tag => exactly(3, u8::is_ascii_digit),
            Self::Number => Some(leading(u8::is_ascii_digit)).filter(|length| *length > 0),
            Self::U32 => exactly(8, u8::is_ascii_hexdigit),
            Self::Date => text.get(..29).filter(|text| is_date(text)).map(str::len),
            Self::Any if follows.is_empty() => Some(text.len()),
            Self::Any => text.find(follows),
        }
    }

    /// Hex digits it stands for in protobuf.
    fn hex_digits(self) -> Option<usize> {
        match self {
            Self::Mid => Some(26),
            Self::U32 => Some(8),
            Self::Tag | Self::Number | Self::Date | Self::Any => None,
        }
    }
}

/// Whether `text` reads like `Tue, 24 Nov 2026 02:36:07 GMT`.
fn is_date(text: &str) -> bool {
    let form = "Aaa, 00 Aaa 0000 00:00:00 GMT";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            b'a' => byte.is_ascii_lowercase(),
            _ => byte == form,
        })
}

/// Captured names and values.
pub(crate) type Captures = Vec<(String, String)>;

impl Pattern {
    /// Fills the placeholders of `written` and leaves its holes open.
    ///
    /// # Errors
    /// A phrase that says which placeholder means nothing.
    pub(crate) fn of_text(written: &str, scope: &Scope<'_>) -> Result<Self, String> {
        let mut pattern = Self::default();
        let mut rest = written;
        while let Some(start) = rest.find('{') {
            pattern.push(&rest[..start]);
            let inside = rest[start + 1..].split_once('}').map(|(inside, _)| inside);
            match inside.filter(|inside| is_placeholder(inside)) {
                Some(inside) => {
                    match inside.split_once('=') {
                        Some((name, kind)) => {
                            let (name, kind) = (name.to_owned(), Hole::parse(kind)?);
                            pattern.0.push(Piece::Hole { name, kind });
                        }
                        None => pattern.push(&scope.value(inside)?),
                    }
                    rest = &rest[start + inside.len() + 2..];
                }
                None => {
                    pattern.push("{");
                    rest = &rest[start + 1..];
                }
            }
        }
        pattern.push(rest);
        Ok(pattern)
    }

    /// The same for bytes that are written in hex (docs/conformance.md, "Protobuf").
    ///
    /// # Errors
    /// A phrase that says what is no hex.
    pub(crate) fn of_hex(written: &str, scope: &Scope<'_>) -> Result<Self, String> {
        let mut reader = Hex { rest: written, scope };
        let pattern = reader.sequence(0)?;
        match reader.rest.is_empty() {
            true => Ok(pattern),
            false => Err(format!("`{}` closes nothing", reader.rest)),
        }
    }

    /// The text itself; without holes only.
    ///
    /// # Errors
    /// A phrase, if there are holes: nobody can send them.
    pub(crate) fn literal(self) -> Result<String, String> {
        let mut text = String::new();
        for piece in self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(&literal),
                Piece::Hole { .. } => return Err("a hole cannot be sent".to_owned()),
            }
        }
        Ok(text)
    }

    fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Literal(literal)) => literal.push_str(text),
            _ => self.0.push(Piece::Literal(text.to_owned())),
        }
    }

    fn append(&mut self, other: Self) {
        for piece in other.0 {
            match piece {
                Piece::Literal(literal) => self.push(&literal),
                hole @ Piece::Hole { .. } => self.0.push(hole),
            }
        }
    }

    /// Hex digits of a pattern made by [`Pattern::of_hex`].
    pub(crate) fn hex_digits(&self) -> usize {
        let digits = |piece: &Piece| match piece {
            Piece::Literal(literal) => literal.len(),
            Piece::Hole { kind, .. } => kind.hex_digits().unwrap_or_default(),
        };
        self.0.iter().map(digits).sum()
    }

    /// Matches the start of `text`: length and what was captured.
    pub(crate) fn match_start(&self, text: &str) -> Option<(usize, Captures)> {
        let (mut at, mut captures) = (0, Captures::new());
        for (index, piece) in self.0.iter().enumerate() {
            let rest = text.get(at..)?;
            match piece {
                Piece::Literal(literal) => {
                    rest.starts_with(literal.as_str()).then_some(())?;
                    at += literal.len();
                }
                Piece::Hole { name, kind } => {
                    let follows = match self.0.get(index + 1) {
                        Some(Piece::Literal(literal)) => literal,
                        _ => "",
                    };
                    let length = kind.length(rest, follows)?;
                    if !name.is_empty() {
                        captures.push((name.clone(), rest[..length].to_owned()));
                    }
                    at += length;
                }
            }
        }
        Some((at, captures))
    }

    /// Matches all of `text`.
    pub(crate) fn match_all(&self, text: &str) -> Option<Captures> {
        self.match_start(text).filter(|(length, _)| *length == text.len()).map(|(_, found)| found)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => f.write_str(literal)?,
                Piece::Hole { kind, .. } => {
                    write!(f, "{{{}}}", format!("{kind:?}").to_lowercase())?;
                }
            }
        }
        Ok(())
    }
}

/// Braces of JSON and JavaScript are no placeholders: those begin with a letter or `=`.
fn is_placeholder(inside: &str) -> bool {
    let mut bytes = inside.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'=')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b" :=-_.#!".contains(&byte))
}

/// Bytes of more than this are no message but a slip.
const HEX_DIGITS_MAX: usize = 64 << 20;

/// Deepest nesting of lengths.
const DEPTH_MAX: usize = 32;

struct Hex<'a, 'b> {
    rest: &'a str,
    scope: &'a Scope<'b>,
}

impl Hex<'_, '_> {
    /// Reads up to the end or a closing bracket, which stays.
    fn sequence(&mut self, depth: usize) -> Result<Pattern, String> {
        if depth > DEPTH_MAX {
            return Err("lengths are nested too deeply".to_owned());
        }
        let mut pattern = Pattern::default();
        loop {
            self.rest = self.rest.trim_start();
            let Some(first) = self.rest.chars().next() else { return Ok(pattern) };
            match first {
                ']' | ')' => return Ok(pattern),
                '#' => self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest),
                '[' => {
                    let inner = self.bracketed(']', depth)?;
                    pattern.push(&hex(&varint(inner.hex_digits() / 2)));
                    pattern.append(inner);
                }
                '\'' => {
                    let (text, rest) =
                        self.rest[1..].split_once('\'').ok_or("a string is not closed")?;
                    self.rest = rest;
                    let text = Pattern::of_text(text, self.scope)?.literal()?;
                    pattern.push(&hex(text.as_bytes()));
                }
                '{' => pattern.append(self.placeholder()?),
                _ => match self.times()? {
                    Some(count) => {
                        let inner = self.bracketed(')', depth)?;
                        if inner.hex_digits().saturating_mul(count) > HEX_DIGITS_MAX {
                            return Err(format!("{count} times that is too long"));
                        }
                        for _ in 0..count {
                            pattern.append(inner.clone());
                        }
                    }
                    None => pattern.push(&self.byte()?),
                },
            }
        }
    }

    fn bracketed(&mut self, close: char, depth: usize) -> Result<Pattern, String> {
        self.rest = &self.rest[1..];
        let inner = self.sequence(depth + 1)?;
        self.rest =
            self.rest.strip_prefix(close).ok_or_else(|| format!("a `{close}` is missing"))?;
        Ok(inner)
    }

    fn placeholder(&mut self) -> Result<Pattern, String> {
        let (inside, rest) = self.rest[1..].split_once('}').ok_or("a brace is not closed")?;
        self.rest = rest;
        let pattern = Pattern::of_text(&format!("{{{inside}}}"), self.scope)?;
        let is_hex = pattern.0.iter().all(|piece| match piece {
            Piece::Literal(text) => {
                text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Piece::Hole { kind, .. } => kind.hex_digits().is_some(),
        });
        is_hex.then_some(pattern).ok_or(format!("{{{inside}}} is no hex"))
    }

    /// The count of `101*(…)`, with the bracket left.
    fn times(&mut self) -> Result<Option<usize>, String> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some(rest) = self.rest[digits..].strip_prefix('*').filter(|r| r.starts_with('('))
        else {
            return Ok(None);
        };
        let count = self.rest[..digits].parse().map_err(|_| "a count is missing".to_owned())?;
        self.rest = rest;
        Ok(Some(count))
    }

    fn byte(&mut self) -> Result<String, String> {
        let byte = self.rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.ok_or_else(|| {
            format!("`{}` is no hex", self.rest.chars().take(10).collect::<String>())
        })?;
        self.rest = &self.rest[2..];
        Ok(byte.to_ascii_lowercase())
    }
}

/// A length as protobuf writes it.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f).to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The bytes of hex digits made by [`Pattern::of_hex`].
pub(crate) fn bytes_of(digits: &str) -> Vec<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.filter_map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use vestnik_core::Secret;
    use vestnik_core::sign::{Algorithm, Key};

    use super::*;

    fn with_scope(check: impl FnOnce(&mut Scope<'_>)) {
        let key = Key::new(Secret::new("k".to_owned()), Algorithm::Sha1, None);
        check(&mut Scope::new([0; 16], 0, &key, Algorithm::Sha1));
    }

    #[test]
    fn text_with_json_and_holes_matches_and_captures() {
        with_scope(|scope| {
            scope.capture("m", "5");
            let written = r#"{"id":{i=number},"mid":"{=mid}","x":{m},"text":{'a':{}}}"#;
            let pattern = Pattern::of_text(written, scope).unwrap();
            let text = r#"{"id":12,"mid":"17954873200000000000003313","x":5,"text":{'a':{}}}"#;
            assert_eq!(pattern.match_all(text), Some(vec![("i".into(), "12".into())]));
            assert_eq!(pattern.match_all(&text.replace("12", "1x")), None);
            assert_eq!(pattern.match_all(&format!("{text} ")), None);
            assert_eq!(pattern.match_start(&format!("{text} ")).unwrap().0, text.len());
            assert!(Pattern::of_text("{unknown}", scope).is_err());
            assert!(Pattern::of_text("{a=nothing}", scope).is_err());
            assert!(pattern.literal().is_err());
        });
    }

    #[test]
    fn dates_and_tags_are_checked() {
        with_scope(|scope| {
            let pattern = Pattern::of_text("{=tag} {=date}", scope).unwrap();
            assert!(pattern.match_all("007 Tue, 24 Nov 2026 02:36:07 GMT").is_some());
            assert!(pattern.match_all("007 Tue, 24 NOV 2026 02:36:07 GMT").is_none());
            assert!(pattern.match_all("07 Tue, 24 Nov 2026 02:36:07 GMT").is_none());
        });
    }

    #[test]
    fn the_example_of_the_specification_can_be_written_with_lengths_and_strings() {
        with_scope(|scope| {
            scope.capture("id", "00112233445566778899aabbccddeeff");
            let written = "0a[0a[0a[ 0a[0a[{id}] 1001] # a receiver\n \
                           1a['{\"a\":1}'] 203c 2a['im_test'] ]]]";
            let expected = "0a2e0a2c0a2a0a140a1000112233445566778899aabbccddeeff1001\
                            1a077b2261223a317d203c2a07696d5f74657374";
            let hex = Pattern::of_hex(written, scope).unwrap().literal().unwrap();
            assert_eq!(hex, expected);
            assert_eq!(bytes_of(&hex).len(), hex.len() / 2);
            let holes = Pattern::of_hex("0a[{m=mid}] 25{=u32}", scope).unwrap();
            let found = holes
                .match_all("0a0d17954873200000000000000001 2500f15365".replace(' ', "").as_str());
            assert_eq!(found, Some(vec![("m".into(), "17954873200000000000000001".into())]));
            let repeated = Pattern::of_hex("0a[200*(ff)]", scope).unwrap().literal().unwrap();
            assert!(repeated.starts_with("0ac801ff") && repeated.len() == 406);
            for wrong in ["0a[", "0a]", "x", "'a", "{id", "0", "{=any}", "999999999*(ff)"] {
                assert!(Pattern::of_hex(wrong, scope).is_err(), "{wrong}");
            }
        });
    }
}
