//! Signatures of channel ids: private and public form, several keys at once.
//!
//! A signature is the HMAC of ASCII text, printed as lower-case hex (queue-server.md §3.2).

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use subtle::ConstantTimeEq;

use crate::receiver::{ChannelId, hex, hex_value};
use crate::secret::Secret;

/// Which HMAC a key is used with. Wire: option `signature_algo`, `security.algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// 16 bytes, 32 hex digits.
    Md5,
    /// 20 bytes, 40 hex digits: what sites use unless told otherwise.
    #[default]
    Sha1,
    /// 28 bytes, 56 hex digits.
    Sha224,
    /// 32 bytes, 64 hex digits.
    Sha256,
    /// 48 bytes, 96 hex digits.
    Sha384,
    /// 64 bytes, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// Every algorithm there is, weakest first.
    pub const ALL: [Self; 6] =
        [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Length of a signature in bytes.
    #[must_use]
    pub const fn digest_length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The name used in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

/// A name that is no algorithm.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a signature algorithm; use md5, sha1, sha224, sha256, sha384 or sha512")]
pub struct ParseAlgorithmError(String);

impl FromStr for Algorithm {
    type Err = ParseAlgorithmError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| ParseAlgorithmError(text.to_owned()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bytes of a signature; 1 to 64 of them. Wire, text: lower-case hex; protobuf: raw bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    bytes: [u8; Self::LENGTH_MAX],
    length: u8,
}

impl Signature {
    /// The longest signature in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// A signature from raw bytes; `None` when there are none or more than 64.
    #[must_use]
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let length = u8::try_from(raw.len()).ok()?;
        if raw.is_empty() || raw.len() > Self::LENGTH_MAX {
            return None;
        }
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Self { bytes, length })
    }

    /// A signature from lower-case hex; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > 2 * Self::LENGTH_MAX {
            return None;
        }
        let mut raw = [0; Self::LENGTH_MAX];
        for (byte, pair) in raw.iter_mut().zip(text.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Self::from_bytes(&raw[..text.len() / 2])
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.as_bytes()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An HMAC whose key was already mixed in: cloning it and adding text is all a signature costs.
#[derive(Clone)]
enum PreparedMac {
    Md5(Hmac<md5::Md5>),
    Sha1(Hmac<sha1::Sha1>),
    Sha224(Hmac<sha2::Sha224>),
    Sha256(Hmac<sha2::Sha256>),
    Sha384(Hmac<sha2::Sha384>),
    Sha512(Hmac<sha2::Sha512>),
}

/// A signature key with its algorithm and, in a rotation, its end.
#[derive(Clone)]
pub struct Key {
    secret: Secret<String>,
    algorithm: Algorithm,
    until_s: Option<u64>,
    mac: PreparedMac,
    /// For tokens, which are always signed with SHA-256 (json-rpc.md §5.3).
    token_mac: Hmac<sha2::Sha256>,
}

impl Key {
    /// A key that is used as raw bytes. `until_s`: unix seconds after which it is void.
    #[must_use]
    pub fn new(secret: Secret<String>, algorithm: Algorithm, until_s: Option<u64>) -> Self {
        let bytes = secret.expose().as_bytes();
        const ANY_LENGTH: &str = "an HMAC takes a key of any length";
        let mac = match algorithm {
            Algorithm::Md5 => PreparedMac::Md5(Hmac::new_from_slice(bytes).expect(ANY_LENGTH)),
            Algorithm::Sha1 => PreparedMac::Sha1(Hmac::new_from_slice(bytes).expect(ANY_LENGTH)),
            Algorithm::Sha224 => {
                PreparedMac::Sha224(Hmac::new_from_slice(bytes).expect(ANY_LENGTH))
            }
            Algorithm::Sha256 => {
                PreparedMac::Sha256(Hmac::new_from_slice(bytes).expect(ANY_LENGTH))
            }
            Algorithm::Sha384 => {
                PreparedMac::Sha384(Hmac::new_from_slice(bytes).expect(ANY_LENGTH))
            }
            Algorithm::Sha512 => {
                PreparedMac::Sha512(Hmac::new_from_slice(bytes).expect(ANY_LENGTH))
            }
        };
        let token_mac = Hmac::new_from_slice(bytes).expect(ANY_LENGTH);
        Self { secret, algorithm, until_s, mac, token_mac }
    }

    /// Signs the first two parts of a token, `header.payload`: HMAC with SHA-256, whatever the key's
    /// algorithm is.
    #[must_use]
    pub fn sign_token(&self, signed: &[u8]) -> Signature {
        let mut mac = self.token_mac.clone();
        mac.update(signed);
        Signature::from_bytes(&mac.finalize().into_bytes()).expect("a digest has 32 bytes")
    }

    /// The algorithm it is used with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key text, to be shown only where an administrator asked for it.
    #[must_use]
    pub const fn secret(&self) -> &Secret<String> {
        &self.secret
    }

    /// Signs the concatenation of `parts`.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Signature {
        fn finish<M: Mac + Clone>(mac: &M, parts: &[&[u8]]) -> Signature {
            let mut mac = mac.clone();
            for part in parts {
                mac.update(part);
            }
            Signature::from_bytes(&mac.finalize().into_bytes())
                .expect("every digest has 16 to 64 bytes")
        }
        match &self.mac {
            PreparedMac::Md5(mac) => finish(mac, parts),
            PreparedMac::Sha1(mac) => finish(mac, parts),
            PreparedMac::Sha224(mac) => finish(mac, parts),
            PreparedMac::Sha256(mac) => finish(mac, parts),
            PreparedMac::Sha384(mac) => finish(mac, parts),
            PreparedMac::Sha512(mac) => finish(mac, parts),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm)
            .field("until_s", &self.until_s)
            .finish_non_exhaustive()
    }
}

/// The keys of a tenant: the first signs, all verify (README D16).
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Vec<Key>);

/// More keys than a ring holds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{got} signature keys, at most {} can be valid at once", KeyRing::KEYS_MAX)]
pub struct TooManyKeys {
    got: usize,
}

impl KeyRing {
    /// The most keys that can be valid at once.
    pub const KEYS_MAX: usize = 4;

    /// A ring of `keys`; the first one signs.
    ///
    /// # Errors
    /// When there are more than [`KeyRing::KEYS_MAX`].
    pub fn new(keys: Vec<Key>) -> Result<Self, TooManyKeys> {
        if keys.len() > Self::KEYS_MAX {
            return Err(TooManyKeys { got: keys.len() });
        }
        Ok(Self(keys))
    }

    /// The keys, the signing one first.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// A ring in which `first` come before the keys of this one: each once, as many as a ring holds.
    #[must_use]
    pub fn led_by(&self, first: &[Key]) -> Self {
        let mut keys: Vec<Key> = Vec::with_capacity(Self::KEYS_MAX);
        for key in first.iter().chain(&self.0) {
            let is_known = keys.iter().any(|known| {
                known.secret().expose() == key.secret().expose()
                    && known.algorithm() == key.algorithm()
            });
            if !is_known && keys.len() < Self::KEYS_MAX {
                keys.push(key.clone());
            }
        }
        Self(keys)
    }

    /// Whether there is no key, so that nothing can be signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that signs.
    #[must_use]
    pub fn signing_key(&self) -> Option<&Key> {
        self.0.first()
    }

    /// Whether `signature` has a length that some key makes; without keys that of SHA-1.
    #[must_use]
    pub fn fits(&self, signature: &Signature) -> bool {
        let length = signature.as_bytes().len();
        if self.0.is_empty() {
            return length == Algorithm::Sha1.digest_length();
        }
        self.0.iter().any(|key| key.algorithm.digest_length() == length)
    }

    /// Whether some key made `signature` of the concatenated `parts`; in constant time for each key
    /// whose digest has that length.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], signature: &Signature, now_s: u64) -> bool {
        let fitting = self.0.iter().filter(|key| {
            key.algorithm.digest_length() == signature.as_bytes().len()
                && key.until_s.is_none_or(|until| now_s <= until)
        });
        fitting.fold(false, |ok, key| {
            ok | bool::from(key.sign(parts).as_bytes().ct_eq(signature.as_bytes()))
        })
    }

    /// Whether some key made `signature` of a token's `header.payload`; in constant time for each key.
    #[must_use]
    pub fn verify_token(&self, signed: &[u8], signature: &Signature, now_s: u64) -> bool {
        let valid = self.0.iter().filter(|key| key.until_s.is_none_or(|until| now_s <= until));
        valid.fold(false, |ok, key| {
            ok | bool::from(key.sign_token(signed).as_bytes().ct_eq(signature.as_bytes()))
        })
    }

    /// Whether `signature` is that of a single private id.
    #[must_use]
    pub fn verify_private(&self, id: ChannelId, signature: &Signature, now_s: u64) -> bool {
        self.verify(&[&id.to_hex()], signature, now_s)
    }

    /// Whether `signature` is that of the pair of a private and a public id.
    #[must_use]
    pub fn verify_pair(
        &self,
        private: ChannelId,
        public: ChannelId,
        signature: &Signature,
        now_s: u64,
    ) -> bool {
        self.verify(&[&private.to_hex(), b":", &public.to_hex()], signature, now_s)
    }

    /// Whether `signature` is that of a public id as a receiver.
    #[must_use]
    pub fn verify_public(&self, id: ChannelId, signature: &Signature, now_s: u64) -> bool {
        self.verify(&[b"public:", &id.to_hex()], signature, now_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "00112233445566778899aabbccddeeff";
    const PUBLIC: &str = "ffeeddccbbaa99887766554433221100";

    fn key(algorithm: Algorithm) -> Key {
        let secret = Secret::new("test-signature-key-0123456789abcdef".to_owned());
        Key::new(secret, algorithm, None)
    }

    /// The worked examples of queue-server.md §3.4.
    #[test]
    fn q_018_the_key_is_used_as_raw_bytes_and_the_output_is_lower_case_hex() {
        let pair = format!("{PRIVATE}:{PUBLIC}");
        let public = format!("public:{PUBLIC}");
        for (algorithm, text, expected) in [
            (Algorithm::Sha1, PRIVATE, "cf29ff07dc09d1c9fb80211d358b1301f601054d"),
            (Algorithm::Sha1, &pair, "c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155"),
            (Algorithm::Sha1, &public, "d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0"),
            (
                Algorithm::Sha256,
                PRIVATE,
                "929e436b38ca60607ef2228809fdb7b09d71c29eb22c7bce63d72ee342639af7",
            ),
            (
                Algorithm::Sha256,
                &pair,
                "6327cbc2ea6c7f30d6514350a4add1b3b9527cad7cbebcd2ae2913b986bb99a5",
            ),
            (
                Algorithm::Sha256,
                &public,
                "7bad31150f2e1d5c9a3c13b7f733364f36e1bebdd8b2126bed4829364e684ebb",
            ),
            (Algorithm::Md5, PRIVATE, "fb95d1d5aa3c74c48ef9cbc556bc8db0"),
            (Algorithm::Md5, &pair, "a025ab1f9b1dde07c326cc1bb47ec9e7"),
            (Algorithm::Md5, &public, "3ec712a9acbc3e632f47d6b37ba3968f"),
            (
                Algorithm::Sha512,
                PRIVATE,
                "c87075a655a485c2f413076fcb6450422916b9e5a5f20e19aa6d3744e24462ddb7240499df55afeb7897fe7fdc2c6388fcc94bf49dc35e5ea32985464ee8d71e",
            ),
        ] {
            assert_eq!(key(algorithm).sign(&[text.as_bytes()]).to_string(), expected);
        }
    }

    #[test]
    fn w_023_a_ring_verifies_with_every_key_of_fitting_length_and_until_its_end() {
        let old = Key::new(
            Secret::new("an old key of enough length 0123".into()),
            Algorithm::Sha1,
            Some(100),
        );
        let ring = KeyRing::new(vec![key(Algorithm::Sha256), old.clone()]).unwrap();
        let id: ChannelId = PRIVATE.parse().unwrap();
        let by_new = ring.signing_key().unwrap().sign(&[PRIVATE.as_bytes()]);
        let by_old = old.sign(&[PRIVATE.as_bytes()]);
        assert!(ring.verify_private(id, &by_new, 1_000));
        assert!(ring.verify_private(id, &by_old, 100));
        assert!(!ring.verify_private(id, &by_old, 101), "the old key has ended");
        let foreign = key(Algorithm::Md5).sign(&[PRIVATE.as_bytes()]);
        assert!(!ring.fits(&foreign));
        assert!(!ring.verify_private(id, &foreign, 0));
    }

    #[test]
    fn signatures_are_read_from_lower_case_hex_only_and_never_shown() {
        let text = "cf29ff07dc09d1c9fb80211d358b1301f601054d";
        let signature = Signature::from_hex(text).unwrap();
        assert_eq!(signature.to_string(), text);
        assert_eq!(format!("{signature:?}"), "***");
        for bad in ["", "cf2", &text.to_uppercase(), &"ab".repeat(65)] {
            assert_eq!(Signature::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_ring_holds_at_most_four_keys() {
        let keys = vec![key(Algorithm::Sha1); 5];
        assert_eq!(KeyRing::new(keys).unwrap_err(), TooManyKeys { got: 5 });
    }
}
