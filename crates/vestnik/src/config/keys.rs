//! Which signature keys are good enough, and where they come from (README D16).

use std::path::PathBuf;

use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key, KeyRing};

use crate::keygen::{self, KeyFileError};

/// The shortest key that is not called weak, in characters.
pub(crate) const KEY_CHARACTERS_MIN: usize = 32;

/// Keys that were printed in documentation, samples and test suites: everybody knows them.
const PUBLISHED: [&str; 3] = [
    // The sample configuration of Push server 1.0 and 2.0.
    "89133c4cb836aa3c5c505be2ad09cb6dc3d5695fc300f28ac5409d955146286b596d3151b4dbd983a7ecedcfde8e9f7e8e14e7ec173a2d8c977f90772fb1ba42",
    // Worked examples: queue-server.md §3.4, clients.md §2.2.
    "test-signature-key-0123456789abcdef",
    "s3cr3t-signature-key",
];

/// Where the keys are.
#[derive(Clone, Debug)]
pub(crate) enum KeySource {
    /// In the configuration; not empty.
    Configured {
        /// All of them, the signing one first.
        ring: KeyRing,
        /// What may be shown of each.
        shown: Vec<KeySummary>,
    },
    /// In a file, which is generated at the first start if `generate`.
    File {
        /// The file.
        path: PathBuf,
        /// Whether a missing file is made.
        generate: bool,
    },
    /// Nowhere: bare ids are accepted (queue-server.md Q-011).
    Unsigned,
}

/// What may be shown of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySummary {
    /// A name that tells nothing of it: 12 hex digits.
    pub(crate) fingerprint: String,
    /// What it is used with.
    pub(crate) algorithm: Algorithm,
    /// Its end, unix seconds.
    pub(crate) until_s: Option<u64>,
}

impl KeySummary {
    /// What may be shown of `key`, which ends at `until_s`.
    pub(crate) fn new(key: &Key, until_s: Option<u64>) -> Self {
        let digest = Key::new(key.secret().clone(), Algorithm::Sha256, None)
            .sign(&[b"vestnik key fingerprint"])
            .to_string();
        let fingerprint = digest.chars().take(12).collect();
        Self { fingerprint, algorithm: key.algorithm(), until_s }
    }
}

/// What the configuration says about signatures.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    /// Where the keys are.
    pub(crate) keys: KeySource,
    /// Algorithm of a key that names none.
    pub(crate) algorithm: Algorithm,
    /// How strict to be with a key.
    pub(crate) strictness: Strictness,
}

/// What decides whether a poor key is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strictness {
    /// `security.allow_weak_key`.
    pub(crate) weak_allowed: bool,
    /// Whether every listener is on loopback.
    pub(crate) loopback_only: bool,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoorKey {
    /// It was published.
    #[error(
        "this key was published in documentation or a test suite, so everybody can sign with it; make one with `vestnik keygen`"
    )]
    Published,
    /// It is short.
    #[error(
        "{got} characters; a signature key has at least {KEY_CHARACTERS_MIN}; make one with `vestnik keygen`"
    )]
    Weak {
        /// Its length in characters.
        got: usize,
    },
}

impl PoorKey {
    /// What is wrong with `key`, if anything.
    pub(crate) fn find(key: &str) -> Option<Self> {
        let got = key.chars().count();
        if PUBLISHED.contains(&key) {
            Some(Self::Published)
        } else {
            (got < KEY_CHARACTERS_MIN).then_some(Self::Weak { got })
        }
    }

    /// Whether the program may start with it; `imported`: it stands in a file of the originals.
    pub(crate) const fn is_tolerable(self, strictness: Strictness, imported: bool) -> bool {
        strictness.weak_allowed
            || match self {
                Self::Published => strictness.loopback_only,
                Self::Weak { .. } => imported,
            }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadKeysError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The file holds a poor key.
    #[error("key file {}", path.display())]
    Poor {
        /// The file.
        path: PathBuf,
        /// What is wrong with the key.
        #[source]
        poor: PoorKey,
    },
}

impl LoadKeysError {
    /// What the administrator can do; the text of a poor key says it itself.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => Some(error.hint()),
            Self::Poor { .. } => None,
        }
    }
}

impl Security {
    /// The keys to sign and verify with; empty if bare ids are accepted. Generates the default key
    /// file if it is missing.
    ///
    /// # Errors
    /// `File` and `Poor`: the administrator has to act.
    #[allow(dead_code, reason = "serve calls it")]
    pub(crate) fn load_keys(&self) -> Result<KeyRing, LoadKeysError> {
        match &self.keys {
            KeySource::File { path, generate: true } => {
                self.ring_of(path, keygen::load_or_create_key(path)?)
            }
            KeySource::File { .. } | KeySource::Configured { .. } | KeySource::Unsigned => {
                self.read_keys()
            }
        }
    }

    /// The same without ever generating one.
    ///
    /// # Errors
    /// As [`Security::load_keys`]; a missing file is `File`.
    pub(crate) fn read_keys(&self) -> Result<KeyRing, LoadKeysError> {
        match &self.keys {
            KeySource::Configured { ring, .. } => Ok(ring.clone()),
            KeySource::File { path, .. } => self.ring_of(path, keygen::load_key(path)?),
            KeySource::Unsigned => Ok(KeyRing::default()),
        }
    }

    fn ring_of(
        &self,
        path: &std::path::Path,
        key: Secret<String>,
    ) -> Result<KeyRing, LoadKeysError> {
        if let Some(poor) = PoorKey::find(key.expose())
            && !poor.is_tolerable(self.strictness, false)
        {
            return Err(LoadKeysError::Poor { path: path.to_owned(), poor });
        }
        let ring = KeyRing::new(vec![Key::new(key, self.algorithm, None)]);
        Ok(ring.expect("one key is not more than four"))
    }
}
