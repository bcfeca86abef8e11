//! What `serve` prints when it is ready: the addresses, and what to enter on a site's settings page.

use std::io::Write as _;
use std::net::SocketAddr;

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
        text.push_str(&format!("  listening on http://{address}{name}\n"));
    }
    text.push_str(&format!("  data in {}\n", config.data_dir.display()));
    let standard = config
        .server
        .listeners
        .iter()
        .zip(addresses)
        .find(|(listener, _)| listener.routes == Routes::Standard);
    if let Some((_, address)) = standard {
        text.push_str(&site_settings(config, *address));
    }
    text
}

fn site_settings(config: &Config, address: SocketAddr) -> String {
    let mut text = String::from(
        "\nEnter on the site: Settings > Module settings > Push and Pull, \"Use Push server\": local \
         server,\n\"Server software\": Bitrix Push server 2.0 (Настройки > Настройки модулей > Push and \
         Pull):\n\n",
    );
    for (english, russian, field) in FIELDS {
        let value = match field {
            Field::Publish => format!("http://{}/bitrix/pub/", local(address)),
            Field::Client(scheme, path) => {
                let base = client_base(config, scheme, address);
                format!("{base}/bitrix/{path}/")
            }
            Field::Secure => format!(
                "https:// and wss:// without a port, through the site's proxy to {}",
                local(address)
            ),
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
