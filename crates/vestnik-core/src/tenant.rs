//! A tenant: one isolated customer with its own keys and habits.

use crate::message::Expiry;
use crate::sign::KeyRing;

/// What a text publish without `Message-Expiry` means (README D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MissingExpiry {
    /// Live delivery only: generation 4.
    #[default]
    Volatile,
    /// Kept for a day: sites of generation 3 never send the header and rely on storage.
    KeepDay,
}

impl MissingExpiry {
    /// The expiry such a message gets.
    #[must_use]
    pub const fn expiry(self) -> Expiry {
        match self {
            Self::Volatile => Expiry::VOLATILE,
            Self::KeepDay => Expiry::MAX,
        }
    }
}

/// One customer of the installation.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Keys that sign and verify its channel ids; empty: unsigned ids are accepted.
    pub keys: KeyRing,
    /// What a publish without an expiry means.
    pub missing_expiry: MissingExpiry,
}
