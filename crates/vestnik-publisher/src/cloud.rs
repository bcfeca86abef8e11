//! The client's side of Bitrix' cloud: which servers there are, and registration with one (module.md §11).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use vestnik_proto::publisher::{self, Registration, RegistrationError};

use crate::http::{Answer, Client, Failure};

/// Regions with a directory of their own.
const REGIONS: [&str; 8] = ["ru", "by", "kz", "uz", "kg", "am", "az", "ge"];

/// The domain of the directory for a region.
fn region_domain(region: &str) -> &'static str {
    if REGIONS.contains(&region) { "bitrix24.tech" } else { "bitrix.info" }
}

/// A server of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudServer {
    /// Its address.
    pub url: String,
    /// Where it is.
    pub region: String,
}

/// Why the cloud could not be used. The texts are what the settings page shows (M-078).
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] Failure),
    /// The directory answered something else than 200.
    #[error("Unexpected server response code {0}")]
    Status(StatusCode),
    /// The directory answered something else than text.
    #[error("the answer is no text")]
    NoText,
    /// A server's address is none.
    #[error("{0:?} is no address of a server")]
    Address(String),
    /// The server does not register this site.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
}

/// The directory of servers, and the way to each of them.
#[derive(Clone)]
pub struct Cloud {
    tls: Arc<rustls::ClientConfig>,
    directory: String,
}

impl Cloud {
    const LIMIT: Duration = Duration::from_secs(5);

    /// The cloud whose directory is at an address such as `https://rtc-cloud.bitrix.info`.
    #[must_use]
    pub fn new(directory: &str, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls, directory: directory.trim_end_matches('/').to_owned() }
    }

    /// The cloud that serves a region, unless another directory is configured.
    #[must_use]
    pub fn of(region: &str, configured: Option<&str>, tls: Arc<rustls::ClientConfig>) -> Self {
        match configured {
            Some(directory) => Self::new(directory, tls),
            None => Self::new(&format!("https://rtc-cloud.{}", region_domain(region)), tls),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The servers there are.
    ///
    /// # Errors
    /// When the directory does not answer within 5 s, or makes no sense.
    pub async fn servers(&self) -> Result<Vec<CloudServer>, CloudError> {
        let list = self.directory_text("servers").await?;
        let servers = publisher::cloud_servers(&list)
            .map(|(url, region)| CloudServer { url: url.to_owned(), region: region.to_owned() });
        Ok(servers.collect())
    }

    /// The host of the server that the directory chooses.
    ///
    /// # Errors
    /// As [`Cloud::servers`].
    pub async fn hostname(&self) -> Result<String, CloudError> {
        let text = self.directory_text("hostname").await?;
        Ok(host_of(&text)?.to_owned())
    }

    /// Registers a site with the server at `host`; the key that its requests are signed with.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn register(&self, host: &str, licence: Option<&str>) -> Result<String, CloudError> {
        let host = host_of(host)?;
        let scheme = if self.directory.starts_with("http://") { "http" } else { "https" };
        let url = format!("{scheme}://{host}/register-client/");
        let form = Registration::of(licence).form;
        let answer = self.send(Method::POST, &url, Bytes::from(form)).await?;
        Ok(publisher::registration_key(answer.status.as_u16(), &answer.body)?)
    }

    async fn directory_text(&self, path: &str) -> Result<String, CloudError> {
        let url = format!("{}/{path}", self.directory);
        let answer = self.send(Method::GET, &url, Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(CloudError::Status(answer.status));
        }
        String::from_utf8(answer.body.to_vec()).map_err(|_| CloudError::NoText)
    }

    async fn send(&self, method: Method, url: &str, body: Bytes) -> Result<Answer, CloudError> {
        let mut request = Request::builder().method(method).uri(url);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| Failure::Unsent(error.to_string()))?;
        let client = Client::new(Arc::clone(&self.tls), Self::LIMIT, Self::LIMIT);
        Ok(client.send(request).await?)
    }
}

/// The host, with its port, of an address with or without a scheme.
fn host_of(address: &str) -> Result<&str, CloudError> {
    let wrong = || CloudError::Address(address.chars().take(100).collect());
    let address = address.trim();
    let host = address.split_once("://").map_or(address, |(_, rest)| rest).trim_end_matches('/');
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._:[]".contains(it);
    let is_good = !host.is_empty() && host.len() <= 255 && host.chars().all(is_plain);
    if is_good { Ok(host) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_077_directories_go_by_region_and_hosts_are_hosts() {
        assert_eq!((region_domain("kz"), region_domain("de")), ("bitrix24.tech", "bitrix.info"));
        assert_eq!(host_of(" https://rtc.test:8080/ \n").unwrap(), "rtc.test:8080");
        assert_eq!(host_of("rtc.test").unwrap(), "rtc.test");
        for bad in ["", "https://", "a b", "host/path", "user@host", "<html>"] {
            assert!(host_of(bad).is_err(), "{bad}");
        }
    }
}
