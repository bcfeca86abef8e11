//! Which server the options of a tenant name, and how it is spoken to (module.md §8).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use vestnik_core::publisher::Publisher;
use vestnik_core::{Clock, Expiry};
use vestnik_hub::Hub;
use vestnik_publisher::{
    BatchLimits, Breaker, BreakerEvent, BreakerState, Options as RemoteOptions, Protocol,
    RemotePublisher, TlsConfig,
};
use vestnik_server::LocalPublisher;
use vestnik_service::option::{Generation, Key, Options, Source};
use vestnik_service::php::{self, Value};
use vestnik_service::rest::RestError;

/// As the PHP module with the older generations; with the others it gives up after a second, and that second
/// is short where an answer decides whether an event counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A way, compared to see whether options changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The queue server of this process.
    Own(String),
    /// Another one.
    Remote(Box<Remote>),
}

/// A server over the network. The key is compared by what it signs: it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    url: String,
    protocol: Protocol,
    hostname: String,
    limits: (usize, usize, usize),
    key_mark: String,
}

/// A publisher, and its breaker where it has one.
pub(super) struct Made {
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) remote: Option<Arc<RemotePublisher>>,
}

impl Way {
    /// The way that the options name; `own`: where the queue server of this process listens.
    pub(super) fn of(options: &Options, host_id: &str, own: &[SocketAddr]) -> Self {
        let hostname = options.text(Key::ServerName).to_owned();
        let number = |key| usize::try_from(options.number(key)).unwrap_or(1).max(1);
        let generation = options.generation();
        let (url, protocol) = if options.is_cloud() {
            let host = options.text(Key::SharedServerAddress);
            (format!("https://{host}/pub/"), Protocol::Protobuf(Some(options.cloud_client_id())))
        } else {
            let is_rpc = generation == Generation::Five;
            let key = if is_rpc { Key::PathToJsonRpc } else { Key::PathToPublish };
            let url = options.address(key, &hostname);
            // Nobody named a server: the one that is here.
            if options.source(key) == Source::BuiltIn || is_own(&url, own) {
                return Self::Own(host_id.to_owned());
            }
            let per_request = number(Key::NginxCommandPerHit);
            let protocol = match generation {
                Generation::Five => Protocol::JsonRpc(host_id.to_owned()),
                Generation::Four if options.is_on(Key::EnableProtobuf) => Protocol::Protobuf(None),
                // It takes one channel at a time.
                Generation::One => Protocol::Text(1),
                Generation::Two | Generation::Three | Generation::Four => {
                    Protocol::Text(per_request)
                }
            };
            (url, protocol)
        };
        let limits = (
            number(Key::LimitMaxPayload),
            number(Key::LimitMaxMessagesPerRequest),
            number(Key::LimitMaxChannelsPerRequest),
        );
        let key_mark = options.signing_key().map(|key| key.sign(&[b"key mark"]).to_string());
        let key_mark = key_mark.unwrap_or_default();
        Self::Remote(Box::new(Remote { url, protocol, hostname, limits, key_mark }))
    }

    /// The publisher of this way.
    ///
    /// # Errors
    /// When the options make none.
    pub(super) fn publisher(
        &self,
        options: &Options,
        (hub, expiry_max): (Arc<Hub>, Expiry),
        tls: Option<TlsConfig>,
        clock: Clock,
        tell: Box<dyn Fn(BreakerEvent) + Send + Sync>,
    ) -> Result<Made, RestError> {
        let remote = match self {
            Self::Own(host_id) => {
                let publisher = Arc::new(LocalPublisher::new(hub, host_id, expiry_max));
                return Ok(Made { publisher, remote: None });
            }
            Self::Remote(remote) => remote,
        };
        let made = RemotePublisher::new(
            RemoteOptions {
                url: remote.url.clone(),
                protocol: remote.protocol.clone(),
                hostname: remote.hostname.clone(),
                key: options.signing_key().cloned(),
                limits: BatchLimits {
                    bytes: remote.limits.0,
                    messages: remote.limits.1,
                    receivers: remote.limits.2,
                },
                connect_within: CONNECT_WITHIN,
                answer_within: ANSWER_WITHIN,
                tls,
            },
            Breaker::from_state(breaker_state(options.text(Key::NginxError))),
            clock,
            tell,
        );
        let made = made.map_err(|error| {
            RestError::server(format!("the options make no queue server: {error}"))
        })?;
        let made = Arc::new(made);
        let publisher: Arc<dyn Publisher> = Arc::<RemotePublisher>::clone(&made);
        Ok(Made { publisher, remote: Some(made) })
    }
}

/// Whether an address is one that this process listens at.
fn is_own(url: &str, own: &[SocketAddr]) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let is_secure = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address: Option<IpAddr> = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.parse().ok(),
    };
    let Some(address) = address else { return false };
    own.iter().any(|own| {
        own.port() == port
            && (own.ip() == address || (own.ip().is_unspecified() && address.is_loopback()))
    })
}

/// The state that option `nginx_error` holds; a broken one is none.
fn breaker_state(text: &str) -> Option<BreakerState> {
    let state = php::unserialize(text).ok()?;
    let number = |name| match state.get(name)? {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => u64::try_from(php::intval(&other.to_text()?)).ok(),
    };
    Some(BreakerState {
        count: u32::try_from(number("count")?).ok()?,
        first_s: number("date")?,
        counted_s: number("date_increment")?,
    })
}

/// The text of option `nginx_error` for a state.
pub(super) fn breaker_text(state: Option<BreakerState>) -> String {
    let Some(state) = state else { return "N".to_owned() };
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    Value::map([
        ("count", int(state.count.into())),
        ("date", int(state.first_s)),
        ("date_increment", int(state.counted_s)),
    ])
    .serialize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_process_is_known_by_host_and_port() {
        let own = ["0.0.0.0:8895".parse().unwrap(), "10.0.0.7:9010".parse().unwrap()];
        for url in [
            "http://127.0.0.1:8895/bitrix/pub/",
            "http://localhost:8895/bitrix/pub/",
            "http://10.0.0.7:9010/bitrix/pub/",
        ] {
            assert!(is_own(url, &own), "{url}");
        }
        for url in [
            "http://127.0.0.1:8896/bitrix/pub/",
            "http://10.0.0.7:8895/bitrix/pub/",
            "https://push.test/bitrix/pub/",
            "nonsense",
        ] {
            assert!(!is_own(url, &own), "{url}");
        }
    }

    #[test]
    fn m_057_the_state_of_the_breaker_is_what_the_php_module_writes() {
        let state = BreakerState { count: 3, first_s: 1000, counted_s: 1004 };
        let text = breaker_text(Some(state));
        let php = r#"a:3:{s:5:"count";i:3;s:4:"date";i:1000;s:14:"date_increment";i:1004;}"#;
        assert_eq!(text, php);
        assert_eq!(breaker_state(&text), Some(state));
        for none in ["N", "", "a:0:{}", "garbage"] {
            assert_eq!(breaker_state(none), None, "{none}");
        }
        assert_eq!(breaker_text(None), "N");
    }

    #[tokio::test]
    async fn m_054_options_choose_the_server_and_generation_4_without_protobuf_speaks_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("module.db");
        let database = vestnik_service::DatabaseOptions::new(format!("sqlite:{}", file.display()));
        let opened = vestnik_service::Service::open(&database, Clock::manual(1_000_000)).await;
        let (service, _notices) = opened.expect("it opens");
        let tenant = service.create_tenant("h", "h").await.expect("a tenant");
        let own = ["0.0.0.0:8895".parse().expect("an address")];
        let way = async |changes: &[(Key, &str)]| {
            let changes: Vec<_> = changes.iter().map(|(key, it)| (*key, Some(*it))).collect();
            tenant.set_options("", &changes).await.expect("good values");
            Way::of(&tenant.options("").await.expect("options"), "h", &own)
        };
        let protocol = |way: Way| match way {
            Way::Remote(remote) => (remote.url, remote.protocol),
            Way::Own(_) => panic!("another server"),
        };
        assert_eq!(way(&[(Key::Nginx, "Y")]).await, Way::Own("h".into()), "nobody named one");
        let here = "http://127.0.0.1:8895/bitrix/pub/";
        assert_eq!(way(&[(Key::PathToPublish, here)]).await, Way::Own("h".into()));
        let (url, binary) = protocol(way(&[(Key::PathToPublish, "http://other.test/pub/")]).await);
        assert_eq!((url.as_str(), binary), ("http://other.test/pub/", Protocol::Protobuf(None)));
        let (_, text) = protocol(way(&[(Key::EnableProtobuf, "N")]).await);
        assert_eq!(text, Protocol::Text(100));
        let (_, old) = protocol(way(&[(Key::NginxVersion, "1")]).await);
        assert_eq!(old, Protocol::Text(1));
        assert_eq!(way(&[(Key::NginxVersion, "5")]).await, Way::Own("h".into()));
        let site = [(Key::PathToJsonRpc, "https://#DOMAIN#/api/"), (Key::ServerName, "a.test")];
        let (url, rpc) = protocol(way(&site).await);
        assert_eq!((url.as_str(), rpc), ("https://a.test/api/", Protocol::JsonRpc("h".into())));
        let cloud = [(Key::ServerMode, "shared"), (Key::SharedServerAddress, "cloud.test")];
        let (url, _) = protocol(way(&cloud).await);
        assert_eq!(url, "https://cloud.test/pub/");
    }
}
