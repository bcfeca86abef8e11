//! Tokens of generation 5, for the program's own clients.

use vestnik_core::sign::Key;

/// The token with these claims, the text of a JSON object, signed with `key` (module.md §5.5).
pub(crate) fn signed(key: &Key, claims: &str) -> String {
    let header = base64url(br#"{"typ":"JWT","alg":"HS256"}"#);
    let signed = format!("{header}.{}", base64url(claims.as_bytes()));
    let signature = base64url(key.sign_token(signed.as_bytes()).as_bytes());
    format!("{signed}.{signature}")
}

/// Base64 with the alphabet for addresses, without padding (RFC 4648 §5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| usize::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.extend((0..=group.len()).map(|at| char::from(ALPHABET[bits >> (18 - 6 * at) & 63])));
    }
    text
}
