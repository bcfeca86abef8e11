//! Bitrix' cloud servers: their list, and how a site registers at one (module.md §11).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use vestnik_core::Secret;
use vestnik_publisher::{CallError, Caller, Reply};
use vestnik_service::option::{Key, Options};
use vestnik_service::settings::Registration;

/// How long the cloud may take for an answer (S-57).
const WITHIN: Duration = Duration::from_secs(5);
/// Regions whose services are under another domain.
const REGIONS: [&str; 8] = ["ru", "by", "kz", "uz", "kg", "am", "az", "ge"];
const SERVERS_MAX: usize = 200;

/// A server that the cloud offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloudServer {
    pub(crate) host: String,
    pub(crate) region: String,
}

/// Why the cloud has not done what was asked, in its own words where it gave any.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloudError {
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the certificate of the cloud is not trusted: {0}")]
    Distrust(String),
    #[error("{0}")]
    Refused(String),
    #[error("Server returned {0} code")]
    Status(u16),
    #[error("Unexpected server response code {0}")]
    NoHost(u16),
    #[error("Empty server response")]
    Empty,
    #[error("Could not parse server response. Raw response: {0}")]
    Unreadable(String),
    #[error("The server gave no key")]
    NoKey,
}

/// The cloud as the options and the configuration name it.
pub(crate) struct Cloud {
    caller: Caller,
    /// Scheme and host of its directory, without a slash at the end.
    base: String,
}

impl Cloud {
    pub(crate) fn new(options: &Options, configured: Option<&str>) -> Result<Self, CloudError> {
        let caller = Caller::new(WITHIN).map_err(|error| CloudError::Tls(error.to_string()))?;
        let base = configured.map_or_else(
            || {
                let is_other = REGIONS.contains(&options.text(Key::Region));
                let domain = if is_other { "bitrix24.tech" } else { "bitrix.info" };
                format!("https://rtc-cloud.{domain}")
            },
            str::to_owned,
        );
        Ok(Self { caller, base })
    }

    /// The address of its directory.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    async fn get(&self, path: &str) -> Result<Reply, CloudError> {
        let address = format!("{}{path}", self.base);
        trusted(self.caller.send(Method::GET, &address, &[], Bytes::new()).await?)
    }

    /// The servers it offers.
    pub(crate) async fn servers(&self) -> Result<Vec<CloudServer>, CloudError> {
        let reply = self.get("/servers").await?;
        if reply.status != StatusCode::OK {
            return Err(CloudError::Status(reply.status.as_u16()));
        }
        let text = String::from_utf8_lossy(&reply.body);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let servers = lines.take(SERVERS_MAX).map(|line| {
            let (host, region) = line.split_once(';').unwrap_or((line, ""));
            CloudServer { host: host.trim().to_owned(), region: region.trim().to_owned() }
        });
        Ok(servers.collect())
    }

    /// Registers at `host`; an empty name lets the cloud choose.
    pub(crate) async fn register(
        &self,
        host: &str,
        options: &Options,
    ) -> Result<Registration, CloudError> {
        let host = if host.is_empty() {
            let reply = self.get("/hostname").await?;
            if reply.status != StatusCode::OK {
                return Err(CloudError::NoHost(reply.status.as_u16()));
            }
            String::from_utf8_lossy(&reply.body).trim().to_owned()
        } else {
            host.to_owned()
        };
        // A directory of one's own may be without encryption; so are its servers then.
        let scheme = if self.base.starts_with("http://") { "http" } else { "https" };
        let address = format!("{scheme}://{host}/register-client/");
        let query = options.cloud_verification_query();
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let body = Bytes::from(format!("verificationQuery={query}"));
        let reply = self.caller.send(Method::POST, &address, &[(CONTENT_TYPE, kind)], body).await?;
        let key = key_of(&trusted(reply)?)?;
        Ok(Registration { host, key })
    }
}

fn trusted(reply: Reply) -> Result<Reply, CloudError> {
    match reply.distrust {
        Some(reason) => Err(CloudError::Distrust(reason)),
        None => Ok(reply),
    }
}

/// The key in an answer to a registration; errors as settings-page.md §6 words them.
fn key_of(reply: &Reply) -> Result<Secret<String>, CloudError> {
    let json: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
    let member = |name: &str| Some(json.as_ref()?.get(name)?.as_str()?.to_owned());
    if reply.status != StatusCode::OK {
        return Err(match member("error") {
            Some(error) => CloudError::Refused(error),
            None => CloudError::Status(reply.status.as_u16()),
        });
    }
    if reply.body.is_empty() {
        return Err(CloudError::Empty);
    }
    if json.is_none() {
        let raw: String = String::from_utf8_lossy(&reply.body).chars().take(200).collect();
        return Err(CloudError::Unreadable(raw));
    }
    if member("status").as_deref() == Some("error") {
        return Err(CloudError::Refused(member("error").unwrap_or_default()));
    }
    // The PHP module would count as registered with an empty key.
    match member("securityKey") {
        Some(key) if !key.is_empty() => Ok(Secret::new(key)),
        _ => Err(CloudError::NoKey),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn reply(status: u16, body: &'static str) -> Reply {
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers: HeaderMap::new(), body: Bytes::from(body), distrust: None }
    }

    #[test]
    fn refusals_are_told_in_the_words_of_the_cloud() {
        for (status, body, said) in [
            (200, r#"{"status":"error","error":"no licence"}"#, "no licence"),
            (403, r#"{"error":"wrong hash"}"#, "wrong hash"),
            (500, "oops", "Server returned 500 code"),
            (200, "", "Empty server response"),
            (200, "<html>", "Could not parse server response. Raw response: <html>"),
            (200, "{}", "The server gave no key"),
        ] {
            let error = key_of(&reply(status, body)).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
        let key = key_of(&reply(200, r#"{"securityKey":"SEC"}"#)).unwrap();
        assert_eq!(key.expose(), "SEC");
    }
}
