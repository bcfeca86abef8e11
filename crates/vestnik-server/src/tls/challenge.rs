//! What an authority of certificates asks for to believe that a name is ours (ACME, RFC 8555 and 8737).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The protocol of a connection that asks for a proof and for nothing else.
pub(crate) const PROOF_PROTOCOL: &[u8] = b"acme-tls/1";

/// Proofs that are to be shown to whoever asks for them, on all shards. Empty but while a certificate
/// is being obtained; then it has one for each of its names.
#[derive(Default)]
pub struct Challenges(Mutex<Proofs>);

#[derive(Default)]
struct Proofs {
    /// Answers of requests, by what the authority asks for.
    http: HashMap<Box<str>, Box<str>>,
    /// Certificates of handshakes, by name.
    tls: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}

impl Challenges {
    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers `GET /.well-known/acme-challenge/<token>` with `proof` from now on (http-01).
    pub fn answer_requests(&self, token: &str, proof: &str) {
        self.proofs().http.insert(token.into(), proof.into());
    }

    /// Shows `certificate` in handshakes that ask for a proof of `name` from now on (tls-alpn-01).
    ///
    /// # Errors
    /// The key is of no kind that is supported.
    pub fn answer_handshakes(
        &self,
        name: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), rustls::Error> {
        // Unlike `from_der`, this does not look at the certificate: its extension is critical, so that
        // nobody takes it for an ordinary one, and a verifier refuses it for that.
        let key = super::provider().key_provider.load_private_key(key)?;
        let pair = CertifiedKey::new(vec![certificate], key);
        self.proofs().tls.insert(name.to_ascii_lowercase().into(), Arc::new(pair));
        Ok(())
    }

    /// Forgets all proofs.
    pub fn clear(&self) {
        *self.proofs() = Proofs::default();
    }

    pub(crate) fn of_request(&self, token: &str) -> Option<Box<str>> {
        self.proofs().http.get(token).cloned()
    }

    pub(super) fn of_handshake(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs().tls.get(&*name.to_ascii_lowercase()).cloned()
    }
}
