//! Tokens of generation 5: who a client is and what it may hear (module.md §5.5).

use vestnik_core::sign::Key;

use crate::php::Value;

/// How long a token lives unless `config_ttl` says otherwise, seconds.
pub(crate) const TOKEN_TTL_S: u64 = 43_200;

/// Makes a token with the claims in the order of the PHP module. `channels` are unsigned ids.
pub(crate) fn issue(
    key: &Key,
    host_id: &str,
    user: Option<i64>,
    channels: &[String],
    now_s: u64,
    expires_s: u64,
) -> String {
    let int = |seconds: u64| Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX));
    let mut claims =
        vec![("iss", Value::text(host_id)), ("iat", int(now_s)), ("exp", int(expires_s))];
    if let Some(user) = user {
        claims.push(("sub", Value::Text(user.to_string())));
    }
    if !channels.is_empty() {
        claims.push(("chan", Value::Text(channels.join(","))));
    }
    let header = base64url(br#"{"typ":"JWT","alg":"HS256"}"#);
    let signed = format!("{header}.{}", base64url(Value::map(claims).to_json().as_bytes()));
    let signature = key.sign_token(signed.as_bytes());
    format!("{signed}.{}", base64url(signature.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use vestnik_core::Secret;
    use vestnik_core::sign::Algorithm;

    use super::*;

    #[test]
    fn m_039_tokens_equal_the_vectors() {
        let key =
            Key::new(Secret::new("0123456789abcdef0123456789abcdef".into()), Algorithm::Sha1, None);
        let p = "00112233445566778899aabbccddeeff".to_owned();
        let token = issue(&key, "h", Some(1), &[p], 1_700_000_000, 1_700_043_200);
        assert_eq!(
            token,
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJoIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAwNDMyMDAsInN1YiI6IjEiLCJjaGFuIjoiMDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmYifQ.R03hyiP0NSF2hbTS9XBblBG0r_Lkt3nmFMTYsbLE9q0"
        );
        let s = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf".to_owned();
        let guest = issue(&key, "h", None, &[s], 1_767_225_600, 1_767_268_800);
        assert!(guest.ends_with(".4FGocMVCHqmy_YfSqoe_Fswf1vYPn2pDD_4WJAseUh4"), "{guest}");
    }
}
