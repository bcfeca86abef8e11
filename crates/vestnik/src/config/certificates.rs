//! Certificates of the configuration: read and checked together with it.

use std::path::{Path, PathBuf};

use vestnik_core::Clock;
use vestnik_core::date;
use vestnik_server::{Certificate, CertificateError};

use super::value::WrittenCertificate;

/// A certificate that ends within this time is warned of: renewal should have come by then.
const WARN_DAYS: u64 = 14;

/// A certificate that was read, and from where.
#[derive(Clone, Debug)]
pub(crate) struct LoadedCertificate {
    /// Its files.
    pub(crate) files: WrittenCertificate,
    /// Itself.
    pub(crate) certificate: Certificate,
}

/// Reads the certificate in `files`.
///
/// # Errors
/// A phrase that says what is wrong and what to do.
pub(crate) fn load(files: &WrittenCertificate) -> Result<LoadedCertificate, String> {
    let now_s = Clock::System.unix_s();
    match Certificate::load(&files.certificate, &files.key, now_s) {
        Ok(certificate) => Ok(LoadedCertificate { files: files.clone(), certificate }),
        Err(CertificateError::Expired { path, at_unix_s }) => Err(format!(
            "the certificate in {} expired at {}: renew it",
            path.display(),
            date::zulu(at_unix_s)
        )),
        Err(error @ CertificateError::Unreadable { .. }) => Err(format!(
            "{error}; the user who runs vestnik must be able to read the file and its folder"
        )),
        Err(error) => Err(error.to_string()),
    }
}

impl LoadedCertificate {
    /// What deserves a warning about its time, if nobody but the administrator renews it.
    pub(crate) fn warning(&self) -> Option<String> {
        let now_s = Clock::System.unix_s();
        let path = self.files.certificate.display();
        let (from_s, until_s) = self.certificate.valid_s();
        if from_s > now_s {
            return Some(format!(
                "the certificate in {path} is not valid before {}",
                date::zulu(from_s)
            ));
        }
        let ends_soon = until_s < now_s + WARN_DAYS * 86_400;
        ends_soon.then(|| format!("the certificate in {path} expires at {}", date::zulu(until_s)))
    }

    /// One line for people: its names, its end and its file.
    pub(crate) fn describe(&self) -> String {
        let names: Vec<_> = self.certificate.names().collect();
        let names = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
        let (_, until_s) = self.certificate.valid_s();
        format!("{names} until {}, from {}", date::zulu(until_s), self.files.certificate.display())
    }
}

/// The place of a file that an imported `file` names: relative to the working folder as in the
/// original, else to the folder of the file or the one above, where the newest edition looked.
pub(crate) fn place(file: &Path, written: &str) -> PathBuf {
    let written = PathBuf::from(written);
    let folders = file.ancestors().skip(1).take(2);
    let near = folders.map(|folder| folder.join(&written)).find(|path| path.is_file());
    if written.is_file() { written } else { near.unwrap_or(written) }
}
