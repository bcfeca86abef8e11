//! A TLS client of another maker's cut: certificates of our own, names, tickets, HTTP and WebSocket.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::raw::{WAIT, find};
use crate::websocket::handshake;

/// A connection that is encrypted.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Makes a certificate for `names` as `<name>.crt` and `<name>.key`; returns it.
pub(crate) fn certificate(folder: &Path, name: &str, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("names");
    let write = |kind: &str, text: String| {
        // Beside first, as those do who renew certificates.
        let path = folder.join(format!("{name}.{kind}"));
        let beside = folder.join(format!("{name}.{kind}.new"));
        std::fs::write(&beside, text).expect("a folder");
        std::fs::rename(beside, path).expect("a folder");
    };
    write("crt", made.cert.pem());
    write("key", made.signing_key.serialize_pem());
    made.cert.der().clone()
}

/// A client that trusts `certificates` and nobody else; it keeps its tickets.
pub(crate) fn client(certificates: &[&CertificateDer<'static>]) -> Arc<ClientConfig> {
    client_of(certificates, rustls::DEFAULT_VERSIONS, &[])
}

/// The same with versions and protocols of its own.
pub(crate) fn client_of(
    certificates: &[&CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add((*certificate).clone()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Connects as `name`; fails at the handshake if the server cannot show that name.
pub(crate) fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> io::Result<Secure> {
    let stream = TcpStream::connect(address)?;
    over(config, stream, name)
}

/// The same over a connection that was used for something else before.
pub(crate) fn over(
    config: &Arc<ClientConfig>,
    mut stream: TcpStream,
    name: &str,
) -> io::Result<Secure> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

/// Whether a session was resumed.
pub(crate) fn is_resumed(connection: &Secure) -> bool {
    connection.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// Sends a request and reads its answer as text; answers have a length.
pub(crate) fn exchange(connection: &mut Secure, request: impl AsRef<[u8]>) -> String {
    connection.write_all(request.as_ref()).expect("the server reads");
    answer(connection)
}

/// Reads one answer as text.
pub(crate) fn answer(connection: &mut Secure) -> String {
    let mut received = Vec::new();
    loop {
        if let Some(end) = find(&received, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |it| it.parse::<usize>().expect("a length"));
            if received.len() >= end + 4 + length {
                return String::from_utf8(received).expect("text");
            }
        }
        let mut buffer = [0; 4096];
        let read = connection.read(&mut buffer).expect("an answer");
        assert!(read > 0, "cut off: {}", received.escape_ascii());
        received.extend_from_slice(&buffer[..read]);
    }
}

/// `GET target` on an open connection.
pub(crate) fn get(connection: &mut Secure, target: &str) -> String {
    exchange(connection, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// Publishes a text on an open connection.
pub(crate) fn publish(
    connection: &mut Secure,
    channel: impl std::fmt::Display,
    body: &str,
) -> String {
    let target = format!("/bitrix/pub/?CHANNEL_ID={channel}");
    exchange(connection, crate::raw::post_bytes(&target, &["Message-Expiry: 60"], body.as_bytes()))
}

/// Opens a WebSocket connection for channels over an encrypted one.
pub(crate) fn subscribe(mut connection: Secure, query: &str) -> WebSocket<Secure> {
    let answer = exchange(&mut connection, handshake(&format!("/bitrix/subws/?{query}")));
    let (head, rest) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    WebSocket::from_partially_read(connection, rest.as_bytes().to_vec(), Role::Client, None)
}

/// The `text` of the next event; pings are answered on the way.
pub(crate) fn next_text(socket: &mut WebSocket<Secure>) -> String {
    loop {
        match socket.read().expect("a message") {
            Message::Text(text) => {
                let mut events = crate::raw::events(&text);
                assert_eq!(events.len(), 1, "one event per frame");
                return events.remove(0)["text"].as_str().expect("a text").to_owned();
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("no text frame: {other:?}"),
        }
    }
}
