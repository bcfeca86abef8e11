//! The section `acme`: certificates that are obtained automatically.

use std::path::{Path, PathBuf};

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::value::{Value, WrittenCertificate};
use super::{Build, Listener};

/// Which certificate to obtain, from whom, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acme {
    /// At least one, in lower case.
    pub(crate) names: Vec<String>,
    /// The authority.
    pub(crate) directory: String,
    /// Certificates that the directory's one is checked with; `None`: the public authorities.
    pub(crate) authorities: Option<Vec<CertificateDer<'static>>>,
    /// A mail address.
    pub(crate) contact: Option<String>,
    /// How the names are proved.
    pub(crate) proof: Proof,
    /// Where the account and the certificate are kept.
    pub(crate) folder: PathBuf,
}

/// How an authority sees that a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It asks for a page at port 80.
    Request,
    /// It begins a handshake at port 443.
    Handshake,
}

impl Proof {
    /// The port that the authority connects to.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Request => 80,
            Self::Handshake => 443,
        }
    }

    /// Its name in the option and in the protocol.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "http-01",
            Self::Handshake => "tls-alpn-01",
        }
    }
}

impl Acme {
    /// The file with the certificate, its chain and its key.
    pub(crate) fn certificate(&self) -> PathBuf {
        files_in(&self.folder).certificate
    }

    /// The file with the account at the authority and its key.
    pub(crate) fn account(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// The certificate as listeners name it.
    pub(crate) fn files(&self) -> WrittenCertificate {
        files_in(&self.folder)
    }
}

/// The most names of one certificate; what Let's Encrypt takes.
const NAMES_MAX: usize = 100;

/// The certificate and its key are one file, so that they are replaced together.
fn files_in(folder: &Path) -> WrittenCertificate {
    let file = folder.join("certificate.pem");
    WrittenCertificate { key: file.clone(), certificate: file }
}

impl Build<'_> {
    fn acme_names(&self) -> Vec<String> {
        match self.layers.value("acme.names") {
            Value::Hosts(names) => names.clone(),
            _ => unreachable!("acme.names is a list of hosts in the table"),
        }
    }

    fn acme_folder(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("acme").join(label(self.layers.text("acme.directory")))
    }

    /// Where the automatic certificate is or will be, if there is to be one.
    pub(super) fn automatic_certificate(&self, data_dir: &Path) -> Option<WrittenCertificate> {
        (!self.acme_names().is_empty()).then(|| files_in(&self.acme_folder(data_dir)))
    }

    /// What is to be obtained, if anything.
    pub(super) fn acme(&mut self, listeners: &[Listener], data_dir: &Path) -> Option<Acme> {
        let names = self.acme_names();
        if names.is_empty() {
            return None;
        }
        let folder = self.acme_folder(data_dir);
        let files = files_in(&folder);
        if names.len() > NAMES_MAX {
            self.problem("acme.names", format!("must be {NAMES_MAX} at most"));
        }
        if !self.layers.flag("acme.accept_terms") {
            let text = "must be true for a certificate: read the terms of service of the authority in `acme.directory` first";
            self.problem("acme.accept_terms", text);
        }
        if !listeners.iter().any(|it| it.tls.as_ref().is_some_and(|it| it.contains(&files))) {
            self.problem("acme.names", "are of no use: set `server.listen_tls`");
        }
        let directory = self.layers.text("acme.directory").to_owned();
        let is_address = directory
            .parse::<Uri>()
            .is_ok_and(|it| it.scheme_str() == Some("https") && it.host().is_some());
        if !is_address {
            self.problem("acme.directory", "must be an address that begins with https://");
        }
        let contact = self.layers.text("acme.contact").to_owned();
        let is_mail = contact.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !contact.contains([' ', ',', ':', '?'])
        });
        if !contact.is_empty() && !is_mail {
            self.problem("acme.contact", "must be one mail address, such as admin@example.com");
        }
        Some(Acme {
            proof: self.proof(listeners),
            folder,
            contact: (!contact.is_empty()).then_some(contact),
            authorities: self.authorities(),
            names,
            directory,
        })
    }

    fn proof(&mut self, listeners: &[Listener]) -> Proof {
        let has_plain = |port: Option<u16>| {
            let mut plain = listeners.iter().filter(|it| it.tls.is_none());
            plain.any(|it| port.is_none_or(|port| it.address.port() == port))
        };
        let proof = match self.layers.text("acme.challenge") {
            "http-01" => Proof::Request,
            "tls-alpn-01" => Proof::Handshake,
            _ if has_plain(Some(Proof::Request.port())) => Proof::Request,
            _ => Proof::Handshake,
        };
        if proof == Proof::Request && !has_plain(None) {
            self.problem("acme.challenge", "`http-01` needs a listener without TLS");
        }
        if !listeners.iter().any(|it| it.address.port() == proof.port()) {
            let text = format!(
                "nothing listens at port {}, which the authority connects to for {}: have it forwarded here",
                proof.port(),
                proof.name()
            );
            self.warn("acme.challenge", text);
        }
        proof
    }

    fn authorities(&mut self) -> Option<Vec<CertificateDer<'static>>> {
        let file = self.layers.text("acme.authorities").to_owned();
        if file.is_empty() {
            return None;
        }
        let read = std::fs::read(&file).map_err(|error| format!("cannot be read: {error}"));
        let certificates = read.and_then(|bytes| {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            certificates.map_err(|error| format!("is no PEM file: {error}"))
        });
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                self.problem("acme.authorities", "holds no certificate");
                None
            }
            Ok(certificates) => Some(certificates),
            Err(text) => {
                self.problem("acme.authorities", text);
                None
            }
        }
    }
}

/// The name of the folder of what belongs to an authority.
fn label(directory: &str) -> String {
    const LENGTH_MAX: usize = 100;
    let address = directory.trim_start_matches("https://");
    let plain = |it: char| if it.is_ascii_alphanumeric() || it == '-' { it } else { '_' };
    address.chars().map(plain).take(LENGTH_MAX).collect()
}
