//! TLS: which certificate answers for which name, and the settings of a session.
//!
//! Knows certificates and keys, not sockets: [`crate::stream`] has those.

mod challenge;
mod tickets;
mod validity;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use challenge::Challenges;
pub(crate) use challenge::PROOF_PROTOCOL;
pub use tickets::{TicketFileError, Tickets};
use validity::Validity;

/// Protocols that are offered, the first that a client knows is taken.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", PROOF_PROTOCOL];

/// Why a certificate cannot be used; the administrator can fix each.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{} {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The private key is another one's.
    #[error(
        "the key in {} does not belong to the certificate in {}: give the key that it was requested with",
        key.display(), certificate.display()
    )]
    Mismatched {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Its time is over.
    #[error("the certificate in {} has expired: renew it", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When, in seconds since 1970.
        at_unix_s: u64,
    },
}

/// A certificate with its key, and the names it is for.
#[derive(Clone)]
pub struct Certificate {
    pair: Arc<CertifiedKey>,
    names: Vec<Box<str>>,
    validity: Validity,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its key, both PEM; they may be one
    /// file. Names are those of the certificate's `subjectAltName`, in lower case.
    ///
    /// # Errors
    /// Each variant of [`CertificateError`]; `now_s` is what decides of `Expired`.
    pub fn load(certificate: &Path, key: &Path, now_s: u64) -> Result<Self, CertificateError> {
        let malformed = |reason: &str| CertificateError::Malformed {
            path: certificate.to_owned(),
            reason: reason.to_owned(),
        };
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| malformed(&format!("is no PEM file: {error}")))?;
        let Some(own) = chain.first().cloned() else {
            return Err(malformed("holds no certificate (`-----BEGIN CERTIFICATE-----`)"));
        };
        let private = read_key(key)?;
        let validity = Validity::of(&own)
            .ok_or_else(|| malformed("holds something that is no X.509 certificate"))?;
        let names = webpki::EndEntityCert::try_from(&own)
            .map_err(|error| {
                malformed(&format!("holds a certificate that no client takes: {error:?}"))
            })?
            .valid_dns_names()
            .map(|name| name.to_ascii_lowercase().into())
            .collect();
        let pair = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::Mismatched {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                },
                error => CertificateError::Malformed {
                    path: key.to_owned(),
                    reason: format!(
                        "holds a key of a kind that is not supported ({error}): use ECDSA P-256 or RSA of 2048 bits or more"
                    ),
                },
            }
        })?;
        if validity.until_s < now_s {
            return Err(CertificateError::Expired {
                path: certificate.to_owned(),
                at_unix_s: validity.until_s,
            });
        }
        Ok(Self { pair: Arc::new(pair), names, validity })
    }

    /// The names it is for, as written in it: `push.example.com`, `*.example.com`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// From when and until when it is valid, in seconds since 1970.
    #[must_use]
    pub const fn valid_s(&self) -> (u64, u64) {
        (self.validity.from_s, self.validity.until_s)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path)
        .map_err(|error| CertificateError::Unreadable { path: path.to_owned(), error })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let has = |mark: &str| bytes.windows(mark.len()).any(|part| part == mark.as_bytes());
        let reason = match error {
            _ if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => {
                "holds an encrypted key: decrypt it with `openssl pkey` and protect the file instead"
                    .to_owned()
            }
            pem::Error::NoItemsFound => {
                "holds no private key (`-----BEGIN PRIVATE KEY-----`)".to_owned()
            }
            error => format!("is no PEM file: {error}"),
        };
        CertificateError::Malformed { path: path.to_owned(), reason }
    })
}

/// The one implementation of cryptography in the program.
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// The certificates of one listener: by the name that a client asks for, else the first.
#[derive(Debug)]
struct Names {
    /// `None`: the only certificate there will be is still to come.
    default: Option<Arc<CertifiedKey>>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    challenges: Arc<Challenges>,
}

impl Names {
    fn new(certificates: &[Certificate], challenges: Arc<Challenges>) -> Self {
        let default = certificates.first().map(|it| Arc::clone(&it.pair));
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.pair));
            }
        }
        Self { default, by_name, challenges }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            // A wildcard stands for exactly one label.
            let parent = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&*name).or_else(|| self.by_name.get(&*parent()?))
        });
        found.or(self.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Names {
    /// `None` ends the handshake with an alert.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks_for_proof =
            hello.alpn().is_some_and(|mut protocols| protocols.all(|it| it == PROOF_PROTOCOL));
        if asks_for_proof {
            return self.challenges.of_handshake(hello.server_name()?);
        }
        self.find(hello.server_name())
    }
}

/// What new connections of a listener are encrypted with. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// TLS 1.2 and 1.3 with `certificates`, the first of which answers for unknown names. Without any,
    /// every handshake is refused but those that ask for a proof (`challenges`).
    ///
    /// Sessions are resumed by tickets alone, so that neither a connection nor the process keeps
    /// anything for it.
    ///
    /// # Panics
    /// Never: the provider has cipher suites of both versions.
    #[must_use]
    pub fn new(
        certificates: &[Certificate],
        challenges: Arc<Challenges>,
        tickets: Arc<Tickets>,
    ) -> Self {
        let names = Names::new(certificates, challenges);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has cipher suites of both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        // Every connection brings a new one; a client that opens several at once has several.
        config.send_tls13_tickets = 1;
        Self(Arc::new(config))
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests;
