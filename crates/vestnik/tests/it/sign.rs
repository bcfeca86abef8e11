//! Channel ids of the tests, signed with the test key.

use vestnik_core::sign::{Algorithm, Key};
use vestnik_core::{ChannelId, Secret};

/// The key of every test server: that of the worked examples (queue-server.md §3.4).
pub(crate) const KEY: &str = "test-signature-key-0123456789abcdef";

/// A private and a public id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) private: ChannelId,
    pub(crate) public: ChannelId,
}

impl Pair {
    /// The pair number `number`; different numbers share nothing.
    pub(crate) fn new(number: u64) -> Self {
        let id = |kind: u8| {
            let mut bytes = [kind; 16];
            bytes[8..].copy_from_slice(&number.to_be_bytes());
            ChannelId::from_bytes(bytes)
        };
        Self { private: id(0xaa), public: id(0xbb) }
    }

    /// `priv.sig`.
    pub(crate) fn private_signed(self) -> String {
        format!("{}.{}", self.private, sign(&self.private.to_string()))
    }

    /// `priv:pub.sig`.
    pub(crate) fn signed(self) -> String {
        let pair = format!("{}:{}", self.private, self.public);
        format!("{pair}.{}", sign(&pair))
    }

    /// `pub.sig`, as others name it as a receiver.
    pub(crate) fn public_signed(self) -> String {
        format!("{}.{}", self.public, sign(&format!("public:{}", self.public)))
    }

    /// The raw signature that others need to write to the public channel.
    pub(crate) fn public_signature(self) -> Vec<u8> {
        key().sign(&[format!("public:{}", self.public).as_bytes()]).as_bytes().to_vec()
    }
}

/// The signature of a text in lower-case hex.
pub(crate) fn sign(text: &str) -> String {
    key().sign(&[text.as_bytes()]).to_string()
}

/// The signature of the first two parts of a token.
pub(crate) fn sign_token(text: &str) -> Vec<u8> {
    key().sign_token(text.as_bytes()).as_bytes().to_vec()
}

fn key() -> Key {
    Key::new(Secret::new(KEY.to_owned()), Algorithm::Sha1, None)
}
