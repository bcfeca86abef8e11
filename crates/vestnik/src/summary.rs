//! What `serve` prints when it is ready: the addresses, and what to enter on a site's settings page.

use std::io::Write as _;
use std::net::SocketAddr;

use vestnik_service::option::Key;
use vestnik_web::OwnAddresses;

use crate::config::{Config, KeySource, Routes};

/// Prints the summary to standard output.
pub(crate) fn print(config: &Config, addresses: &[SocketAddr]) {
    let text = text(config, addresses);
    let mut out = std::io::stdout().lock();
    // Whoever started the program may have closed its output; that is no reason not to serve.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Names of the fields, English and Russian, as the settings page of "Push and Pull" has them
/// (settings-page.md §2.4), each with the path that belongs into it.
const FIELDS: [(&str, &str, Field); 6] = [
    ("Message sender path", "Путь для публикации команд", Field::Publish),
    (
        "Command publish URL (HTTP)",
        "Публикация со стороны клиента (HTTP)",
        Field::Client("http", "pubweb"),
    ),
    ("Message listener path (HTTP)", "Путь для чтения команд (HTTP)", Field::Client("http", "sub")),
    (
        "WebSocket listener path (HTTP)",
        "Чтение команд, WebSocket (HTTP)",
        Field::Client("ws", "subws"),
    ),
    ("the same with (HTTPS)", "те же для (HTTPS)", Field::Secure),
    (
        "Signature code for server interaction",
        "Код-подпись для взаимодействия с сервером",
        Field::Key,
    ),
];

#[derive(Clone, Copy)]
enum Field {
    Publish,
    Client(&'static str, &'static str),
    Secure,
    Key,
}

fn text(config: &Config, addresses: &[SocketAddr]) -> String {
    let mut text = format!("vestnik {} is serving.\n\n", env!("CARGO_PKG_VERSION"));
    for (listener, address) in config.server.listeners.iter().zip(addresses) {
        // A listener without a name of its own is named by the address it was given.
        let is_named = listener.name != listener.address.to_string();
        let name = if is_named { format!(" ({})", listener.name) } else { String::new() };
        let scheme = listener.scheme();
        let note = if listener.proxy_protocol { ", PROXY header required" } else { "" };
        text.push_str(&format!("  listening on {scheme}://{address}{name}{note}\n"));
    }
    for certificate in &config.certificates {
        text.push_str(&format!("  certificate for {}\n", certificate.describe()));
    }
    if let Some(acme) = &config.acme
        && !config.certificates.iter().any(|it| it.files == acme.files())
    {
        let (names, directory) = (acme.names.join(", "), &acme.directory);
        text.push_str(&format!("  no certificate yet for {names}: asked for at {directory}\n"));
    }
    text.push_str(&format!("  data in {}\n", config.data_dir.display()));
    let places = places(config, addresses);
    if places.plain.or(places.secure).is_some() {
        text.push_str(&site_settings(config, &places));
    }
    text
}

fn places(config: &Config, addresses: &[SocketAddr]) -> Places {
    let all = || {
        let all = config.server.listeners.iter().zip(addresses);
        all.filter(|(listener, _)| listener.routes == Routes::Standard && !listener.proxy_protocol)
    };
    let plain = all().find(|(listener, _)| listener.tls.is_none());
    let secure = all().find(|(listener, _)| listener.tls.is_some());
    Places {
        plain: plain.map(|(_, address)| *address),
        secure: secure.map(|(_, address)| *address),
    }
}

/// Where the pages of administrators are, as this machine reaches them.
pub(crate) fn admin_page(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let places = places(config, addresses);
    let plain = places.plain.map(|address| format!("http://{}/admin/", local(address)));
    plain.or_else(|| places.secure.map(|address| format!("https://{}/admin/", local(address))))
}

/// Prints, once, who may use the pages of administrators.
pub(crate) fn print_password(page: Option<&str>, login: &str, password: &str) {
    let page = page.unwrap_or("/admin/");
    let text = format!(
        "\nSettings page and dashboard: {page}\n  login     {login}\n  password  {password}\n  This password is \
         shown once and kept nowhere; `vestnik admin password` sets another.\n"
    );
    let mut out = std::io::stdout().lock();
    // As above.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// What belongs into the fields of the settings page for this very server.
pub(crate) fn own_addresses(config: &Config, addresses: &[SocketAddr]) -> OwnAddresses {
    let places = places(config, addresses);
    let mut all = Vec::new();
    if let Some(address) = places.plain.or(places.secure) {
        let scheme = if places.plain.is_some() { "http" } else { "https" };
        for (key, path) in [(Key::PathToPublish, "pub"), (Key::PathToJsonRpc, "api")] {
            all.push((key, format!("{scheme}://{}/bitrix/{path}/", local(address))));
        }
    }
    if let Some(address) = places.plain {
        for (key, scheme, path) in [
            (Key::PathToPublishWeb, "http", "pubweb"),
            (Key::PathToModernListener, "http", "sub"),
            (Key::PathToWebsocket, "ws", "subws"),
        ] {
            all.push((key, format!("{}/bitrix/{path}/", client_base(config, scheme, address))));
        }
    }
    for (key, scheme, path) in [
        (Key::PathToPublishWebSecure, "https", "pubweb"),
        (Key::PathToModernListenerSecure, "https", "sub"),
        (Key::PathToWebsocketSecure, "wss", "subws"),
    ] {
        let base = match places.secure {
            Some(address) => secure_base(config, scheme, address),
            None => format!("{scheme}://#DOMAIN#"),
        };
        all.push((key, format!("{base}/bitrix/{path}/")));
    }
    OwnAddresses(all)
}

/// The first listeners with all routes, without and with encryption.
struct Places {
    plain: Option<SocketAddr>,
    secure: Option<SocketAddr>,
}

fn site_settings(config: &Config, places: &Places) -> String {
    let mut text = String::from(
        "\nEnter on the site: Settings > Module settings > Push and Pull, \"Use Push server\": local \
         server,\n\"Server software\": Bitrix Push server 2.0 (Настройки > Настройки модулей > Push and \
         Pull):\n\n",
    );
    for (english, russian, field) in FIELDS {
        let value = match field {
            Field::Publish => match (places.plain, places.secure) {
                (Some(address), _) => format!("http://{}/bitrix/pub/", local(address)),
                (None, Some(address)) => format!("https://{}/bitrix/pub/", local(address)),
                (None, None) => continue,
            },
            Field::Client(scheme, path) => match places.plain {
                Some(address) => {
                    format!("{}/bitrix/{path}/", client_base(config, scheme, address))
                }
                None => continue,
            },
            Field::Secure => secure(config, places),
            Field::Key => key(config),
        };
        text.push_str(&format!("  {english} / {russian}\n      {value}\n"));
    }
    text.push_str(
        "\nTry it: `vestnik sign --random` makes channel ids, `vestnik listen` and `vestnik publish` \
         use them.\n",
    );
    text
}

/// What belongs into the fields for https pages.
fn secure(config: &Config, places: &Places) -> String {
    match (places.secure, places.plain) {
        (Some(address), _) => {
            let [https, wss] = ["https", "wss"].map(|scheme| secure_base(config, scheme, address));
            format!("{https}/bitrix/sub/, {wss}/bitrix/subws/, {https}/bitrix/pubweb/")
        }
        (None, Some(address)) => format!(
            "https:// and wss:// without a port, through the site's proxy to {}",
            local(address)
        ),
        (None, None) => String::new(),
    }
}

/// Where clients of https pages reach a listener with encryption.
fn secure_base(config: &Config, scheme: &str, address: SocketAddr) -> String {
    let public = config.server.public_url.as_deref().and_then(|url| url.strip_prefix("https://"));
    match public {
        Some(host) => format!("{scheme}://{host}"),
        None => format!("{scheme}://#DOMAIN#:{}", address.port()),
    }
}

/// The address as this machine reaches it: that of the listener, or the loopback if it listens on all.
fn local(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => {
            (std::net::Ipv4Addr::LOCALHOST, address.port()).into()
        }
        SocketAddr::V6(_) if address.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        _ => address,
    }
}

/// Where clients reach the server: the public address if it is known; else, on a listener that only
/// this machine reaches, the site's name behind its proxy; else the site's name and the port.
fn client_base(config: &Config, scheme: &str, address: SocketAddr) -> String {
    let public = config.server.public_url.as_deref().and_then(|url| url.split_once("://"));
    if let Some((public, host)) = public {
        let secure = if public == "https" { "s" } else { "" };
        return format!("{scheme}{secure}://{host}");
    }
    if address.ip().is_loopback() {
        return format!("{scheme}://#DOMAIN#");
    }
    format!("{scheme}://#DOMAIN#:{}", address.port())
}

fn key(config: &Config) -> String {
    match &config.security.keys {
        KeySource::Configured { .. } => "the key of your configuration".to_owned(),
        KeySource::File { path, .. } => format!("the content of {}", path.display()),
        KeySource::Unsigned => {
            "leave empty: this server accepts unsigned ids (anybody who knows an \
                                id may listen)"
                .to_owned()
        }
    }
}
