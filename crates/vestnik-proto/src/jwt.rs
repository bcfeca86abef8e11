//! Connection tokens of generation 5: who a subscriber is and which channels it may hear
//! (json-rpc.md §5).

use serde_json::Value;
use vestnik_core::sign::{KeyRing, Signature};
use vestnik_core::{ChannelId, User, UserId, UserSpace};

/// A verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The site that made it.
    pub space: UserSpace,
    /// Who is signed in; `None` for guests and anonymous channels.
    pub user: Option<UserId>,
    /// The channels, in the token's order, without repeats.
    pub channels: Vec<ChannelId>,
    /// When it ends, unix seconds.
    pub expires_s: u64,
}

impl Token {
    /// Who is signed in, with the site.
    #[must_use]
    pub fn user(&self) -> Option<User> {
        self.user.map(|id| User { space: self.space, id })
    }
}

/// Why a token is refused; for the log, clients are told nothing but that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no key to check it with: PHP signs with an empty key then, and so could anybody
    /// (J-059).
    #[error("tokens need a signature key, and this server has none")]
    NoKey,
    /// Not three parts of base64url, or not JSON inside.
    #[error("the token is malformed")]
    Malformed,
    /// Not signed with HMAC-SHA256 (J-050).
    #[error("the token's algorithm is not HS256")]
    Algorithm,
    /// No key made the signature.
    #[error("the token's signature is wrong")]
    Signature,
    /// It ended more than the leeway ago.
    #[error("the token has expired")]
    Expired,
    /// It begins later than the leeway from now.
    #[error("the token is not valid yet")]
    TooEarly,
    /// `sub` is no user id.
    #[error("the token's subject is no user id")]
    Subject,
    /// Neither a user nor a channel (J-054).
    #[error("the token names neither a user nor a channel")]
    Nobody,
}

/// Clocks of the site and of this server may differ by so many seconds (J-053).
const LEEWAY_S: f64 = 60.0;

/// Channels taken from one token; further ones are skipped.
const CHANNELS_MAX: usize = 100;

/// Reads a token and checks it; `now_s` in unix seconds.
///
/// # Errors
/// When it is not to be trusted, for whatever reason.
pub fn verify(token: &str, keys: &KeyRing, now_s: u64) -> Result<Token, TokenError> {
    if keys.is_empty() {
        return Err(TokenError::NoKey);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = object(header)?;
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return Err(TokenError::Algorithm);
    }
    let signature = base64url(signature).ok_or(TokenError::Malformed)?;
    let signature = Signature::from_bytes(&signature).ok_or(TokenError::Signature)?;
    if !keys.verify_token(signed.as_bytes(), &signature, now_s) {
        return Err(TokenError::Signature);
    }
    claims(&object(payload)?, now_s)
}

type Object = serde_json::Map<String, Value>;

fn claims(claims: &Object, now_s: u64) -> Result<Token, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "seconds fit the 53 bits of a float")]
    let now = now_s as f64;
    let time = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
    };
    let expires = time("exp")?.ok_or(TokenError::Malformed)?;
    if expires <= now - LEEWAY_S {
        return Err(TokenError::Expired);
    }
    for begin in [time("iat")?, time("nbf")?].into_iter().flatten() {
        if begin > now + LEEWAY_S {
            return Err(TokenError::TooEarly);
        }
    }
    let text = |name| claims.get(name).and_then(Value::as_str);
    let user = match claims.get("sub") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.parse().map_err(|_| TokenError::Subject)?),
        Some(Value::Number(id)) => {
            Some(id.as_i64().and_then(UserId::new).ok_or(TokenError::Subject)?)
        }
        Some(_) => return Err(TokenError::Subject),
    };
    let mut channels = Vec::new();
    for id in text("chan").unwrap_or_default().split(',') {
        // Garbage is skipped (J-055).
        let Ok(id) = id.to_ascii_lowercase().parse::<ChannelId>() else { continue };
        if !channels.contains(&id) && channels.len() < CHANNELS_MAX {
            channels.push(id);
        }
    }
    if user.is_none() && channels.is_empty() {
        return Err(TokenError::Nobody);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the conversion saturates, and the time is not before 1970"
    )]
    let expires_s = expires as u64;
    let space = UserSpace::of(text("iss").unwrap_or_default());
    Ok(Token { space, user, channels, expires_s })
}

fn object(part: &str) -> Result<Object, TokenError> {
    let json = base64url(part).ok_or(TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

/// Decodes base64 with the alphabet for addresses and without padding (RFC 4648 §5); `None` for
/// anything else.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &letter in group {
            bits = bits << 6 | u32::from(sextet(letter)?);
        }
        let [_, first, second, third] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        match group.len() {
            4 => bytes.extend([first, second, third]),
            3 if third == 0 => bytes.extend([first, second]),
            2 if second == 0 && third == 0 => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

const fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vestnik_core::Secret;
    use vestnik_core::sign::{Algorithm, Key};

    use super::*;

    const KEY: &str = "s3cr3t-signature-key";
    /// The example of json-rpc.md §5.1.
    const EXAMPLE: &str = concat!(
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.",
        "eyJpc3MiOiJRbUYwT2FOOGhWWXQza3pxMVdjVWU1UnhMZDdTZ1BqSSIsImlhdCI6MTc2NzIyNTYwMCwiZXhwIjoxNzY3",
        "MjY4ODAwLCJzdWIiOiI3IiwiY2hhbiI6ImFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhIn0.",
        "2LJM0Z2TRds3QjRV5yPntHveekSuU8lMhRxiKoxAv9Q"
    );
    const EXAMPLE_S: u64 = 1_767_225_600;

    fn key(secret: &str) -> Key {
        Key::new(Secret::new(secret.to_owned()), Algorithm::Sha1, None)
    }

    fn ring() -> KeyRing {
        KeyRing::new(vec![key("another key"), key(KEY)]).unwrap()
    }

    pub(crate) fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..=group.len() {
                let sextet = bits >> (18 - 6 * at) & 63;
                text.push(char::from(ALPHABET[usize::try_from(sextet).unwrap()]));
            }
        }
        text
    }

    fn signed(header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = key(KEY).sign_token(signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_bytes()))
    }

    fn check(claims: &str) -> Result<Token, TokenError> {
        verify(&signed(r#"{"alg":"HS256"}"#, claims), &ring(), EXAMPLE_S)
    }

    #[test]
    fn j_051_the_example_token_verifies_with_its_key() {
        let token = verify(EXAMPLE, &ring(), EXAMPLE_S).unwrap();
        assert_eq!(token.space, UserSpace::of("QmF0OaN8hVYt3kzq1WcUe5RxLd7SgPjI"));
        assert_eq!(token.user, UserId::new(7));
        assert_eq!(token.channels, [ChannelId::from_bytes([0xaa; 16])]);
        assert_eq!(token.expires_s, 1_767_268_800);
        let other = KeyRing::new(vec![key("another key")]).unwrap();
        assert_eq!(verify(EXAMPLE, &other, EXAMPLE_S), Err(TokenError::Signature));
        let empty = KeyRing::default();
        assert_eq!(verify(EXAMPLE, &empty, EXAMPLE_S), Err(TokenError::NoKey));
    }

    #[test]
    fn j_050_no_algorithm_but_hs256_is_accepted() {
        let claims = r#"{"exp":1767268800,"sub":"7"}"#;
        for header in [
            r#"{"typ":"JWT","alg":"none"}"#,
            r#"{"typ":"JWT","alg":"HS512"}"#,
            r#"{"typ":"JWT","alg":"RS256"}"#,
            r#"{"typ":"JWT","alg":"hs256"}"#,
            r#"{"typ":"JWT","alg":["HS256"]}"#,
            r#"{"typ":"JWT"}"#,
        ] {
            let token = signed(header, claims);
            assert_eq!(verify(&token, &ring(), EXAMPLE_S), Err(TokenError::Algorithm), "{header}");
        }
        let unsigned = format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(claims.as_bytes()));
        assert_eq!(verify(&unsigned, &ring(), EXAMPLE_S), Err(TokenError::Algorithm));
        let unsigned = format!("{}.{}.", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
        assert_eq!(verify(&unsigned, &ring(), EXAMPLE_S), Err(TokenError::Signature));
    }

    #[test]
    fn j_053_clocks_may_differ_by_a_minute() {
        let now = EXAMPLE_S;
        for (claims, expected) in [
            (format!(r#"{{"sub":"7","exp":{}}}"#, now - 59), Ok(())),
            (format!(r#"{{"sub":"7","exp":{}}}"#, now - 60), Err(TokenError::Expired)),
            (format!(r#"{{"sub":"7","exp":{},"iat":{}}}"#, now + 9, now + 60), Ok(())),
            (
                format!(r#"{{"sub":"7","exp":{},"iat":{}}}"#, now + 99, now + 61),
                Err(TokenError::TooEarly),
            ),
            (
                format!(r#"{{"sub":"7","exp":{},"nbf":{}}}"#, now + 99, now + 61),
                Err(TokenError::TooEarly),
            ),
            (r#"{"sub":"7"}"#.to_owned(), Err(TokenError::Malformed)),
            (r#"{"sub":"7","exp":"never"}"#.to_owned(), Err(TokenError::Malformed)),
        ] {
            assert_eq!(check(&claims).map(|_| ()), expected, "{claims}");
        }
    }

    #[test]
    fn j_054_j_055_a_token_needs_a_user_or_a_channel_and_garbage_among_channels_is_skipped() {
        let token = check(
            r#"{"exp":1767268800,"chan":"x,, AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB,bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}"#,
        )
        .unwrap();
        assert_eq!(token.channels, [ChannelId::from_bytes([0xbb; 16])]);
        assert_eq!(token.user, None);
        for nobody in [r#"{"exp":1767268800}"#, r#"{"exp":1767268800,"chan":"x,y","extra":[1]}"#] {
            assert_eq!(check(nobody), Err(TokenError::Nobody));
        }
        for subject in [r#""0""#, "0", r#""""#, r#""+7""#, r#""7x""#, "7.5", "{}", "true"] {
            let claims = format!(r#"{{"exp":1767268800,"sub":{subject}}}"#);
            assert_eq!(check(&claims), Err(TokenError::Subject), "{subject}");
        }
        assert_eq!(check(r#"{"exp":1767268800,"sub":"-12"}"#).unwrap().user, UserId::new(-12));
    }

    #[test]
    fn damaged_tokens_are_malformed_and_never_a_panic() {
        for token in
            ["", ".", "..", "a.b", "a.b.c", "e30.e30", "e30.e30.e30", "é.é.é", "e30=.e30.e30"]
        {
            assert!(verify(token, &ring(), EXAMPLE_S).is_err(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn base64url_is_read_as_it_is_written(bytes: Vec<u8>) {
            prop_assert_eq!(base64url(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_refused_or_read(text: String, at in 0..EXAMPLE.len(), letter in "[A-Za-z0-9_.-]") {
            prop_assert!(verify(&text, &ring(), EXAMPLE_S).is_err());
            let mut changed = EXAMPLE.to_owned();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(verify(&changed, &ring(), EXAMPLE_S).is_ok(), changed == EXAMPLE);
        }
    }
}
