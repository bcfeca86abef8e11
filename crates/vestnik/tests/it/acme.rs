//! Certificates from an authority (ACME, RFC 8555): Pebble, the test server of the makers of Let's Encrypt,
//! which looks for proofs as they do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::raw;
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::tls;
use crate::traffic::{metric_of, until};

const OBTAINED: &str = "vestnik_acme_certificates_total";
const FAILED: &str = "vestnik_acme_failures_total";

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Where an authority will be, and what it is known by.
struct Place {
    folder: tempfile::TempDir,
    own: CertificateDer<'static>,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = tls::certificate(folder.path(), "authority", &["localhost"]);
        Self { folder, own, port: free_port() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The configuration of a server that wants a certificate for `names` from here.
    fn configuration(&self, names: &[&str], rest: &str) -> String {
        format!(
            "[security]\nkey = \"{KEY}\"\n[acme]\nnames = {names:?}\naccept_terms = true\n\
             contact = \"admin@push.test\"\ndirectory = \"https://localhost:{}/dir\"\n\
             authorities = \"{}\"\n{rest}",
            self.port,
            self.file("authority.crt")
        )
    }

    /// Starts the authority. It looks for proofs at these ports, wherever a name leads: all lead to
    /// the loopback. `life_s`: of the certificates it signs.
    fn open(&self, http_port: u16, tls_port: u16, life_s: u32) -> Authority {
        let (management, dns, dns_management) = (free_port(), free_port(), free_port());
        let pebble = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": self.file("authority.crt"),
            "privateKey": self.file("authority.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "certificateValidityPeriod": life_s,
            "domainBlocklist": ["refused.test"],
        }});
        std::fs::write(self.file("pebble.json"), pebble.to_string()).expect("a folder");
        let names = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns}")])
            .args(["-management", &format!("127.0.0.1:{dns_management}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let names = names.expect("pebble is installed: ./test installs it");
        let signs = Command::new("pebble")
            .args(["-strict", "-config", &self.file("pebble.json")])
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let signs = signs.expect("pebble is installed: ./test installs it");
        let authority = Authority { names, signs, management };
        for port in [self.port, management, dns_management] {
            until("the authority listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        authority
    }
}

/// A running authority and the server of names it asks; ends with the test.
struct Authority {
    names: Child,
    signs: Child,
    management: u16,
}

impl Drop for Authority {
    fn drop(&mut self) {
        for child in [&mut self.names, &mut self.signs] {
            // It may have ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Authority {
    /// A client that believes what this authority has signed, and nothing else.
    fn client(&self, place: &Place) -> Arc<ClientConfig> {
        let management = SocketAddr::from(([127, 0, 0, 1], self.management));
        let connection = tls::connect(&tls::client(&[&place.own]), management, "localhost");
        let answer = tls::get(&mut connection.expect("the authority answers"), "/roots/0");
        let (_, root) = answer.split_once("\r\n\r\n").expect("a head");
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a certificate");
        tls::client(&[&root])
    }
}

fn write_configuration(folder: &Path, text: &str) {
    let beside = folder.join("vestnik.toml.new");
    std::fs::write(&beside, text).expect("a folder");
    std::fs::rename(beside, folder.join("vestnik.toml")).expect("a folder");
}

fn server(configuration: &str, tls_port: u16) -> TestServer {
    let folder = tempfile::tempdir().expect("a folder");
    write_configuration(folder.path(), configuration);
    let listen = format!("server.listen_tls=127.0.0.1:{tls_port}");
    TestServer::with_folder(folder, &["server.watch=0s", &listen])
}

fn obtained(server: &TestServer, count: u64) {
    until("a certificate is obtained", || metric_of(server.address(), OBTAINED) >= count);
}

/// The certificate that a client is shown, once it is shown one that it believes.
fn shown(server: &TestServer, client: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let mut shown = None;
    until("a certificate is shown", || {
        let connection = tls::connect(client, server.secure(), name).ok();
        shown = connection.and_then(|it| Some(it.conn.peer_certificates()?.first()?.to_vec()));
        shown.is_some()
    });
    shown.expect("it was waited for")
}

#[test]
fn a_certificate_for_all_names_is_obtained_by_handshakes_kept_and_not_asked_for_again() {
    let (place, tls_port) = (Place::new(), free_port());
    let authority = place.open(free_port(), tls_port, 3600);
    let names = ["push.test", "other.push.test"];
    let server = server(&place.configuration(&names, ""), tls_port);
    obtained(&server, 1);
    let client = authority.client(&place);
    let first = shown(&server, &client, names[0]);
    assert_eq!(shown(&server, &client, names[1]), first);
    // It is a certificate like any other: events come and go.
    let pair = Pair::new(1);
    let open = || tls::connect(&client, server.secure(), names[0]).expect("a handshake");
    let mut subscriber = tls::subscribe(open(), &format!("CHANNEL_ID={}", pair.signed()));
    let answer = tls::publish(&mut open(), pair.private, "hello");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(tls::next_text(&mut subscriber), "hello");
    // Proofs are over, and nobody gets one for another name.
    let proof = tls::client_of(&[&place.own], rustls::DEFAULT_VERSIONS, &["acme-tls/1"]);
    assert!(tls::connect(&proof, server.secure(), names[0]).is_err());
    // What is kept is for its owner alone, and enough for the next start.
    let folder = server.data().join("acme").join(format!("localhost_{}_dir", place.port));
    for name in ["account.json", "certificate.pem"] {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = folder.join(name).metadata().expect("it is kept");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let server = server.stop_and_restart();
    assert_eq!(shown(&server, &client, names[0]), first);
    assert_eq!(metric_of(server.address(), OBTAINED), 0);
    assert!(metric_of(server.address(), "vestnik_acme_certificate_expires_seconds") > 0);
}

#[test]
fn without_the_authority_the_server_serves_and_a_signal_has_it_asked_again() {
    let place = Place::new();
    let by_request = "challenge = \"http-01\"\n";
    let server = server(&place.configuration(&["push.test"], by_request), 0);
    until("it has failed", || metric_of(server.address(), FAILED) == 1);
    assert_eq!(raw::get(server.address(), "/healthz").status, 200);
    let anybody = tls::client(&[&place.own]);
    let Err(refused) = tls::connect(&anybody, server.secure(), "push.test") else {
        panic!("there is no certificate yet")
    };
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    // The authority is there again.
    let authority = place.open(server.address().port(), free_port(), 3600);
    server.signal("HUP");
    obtained(&server, 1);
    let client = authority.client(&place);
    let first = shown(&server, &client, "push.test");
    let unknown = raw::get(server.address(), "/.well-known/acme-challenge/unknown");
    assert_eq!(unknown.status, 404);
    // One more name, which the authority refuses: the old certificate stays in force.
    let names = ["push.test", "refused.test"];
    write_configuration(server.data(), &place.configuration(&names, by_request));
    server.signal("HUP");
    until("it is refused", || metric_of(server.address(), FAILED) == 2);
    assert_eq!(shown(&server, &client, "push.test"), first);
    // A name that it takes: one certificate for both, without a restart. The authority has lost its
    // memory meanwhile, as test servers do.
    drop(authority);
    let authority = place.open(server.address().port(), free_port(), 3600);
    let names = ["push.test", "more.test"];
    write_configuration(server.data(), &place.configuration(&names, by_request));
    server.signal("HUP");
    obtained(&server, 2);
    let client = authority.client(&place);
    assert_eq!(shown(&server, &client, "more.test"), shown(&server, &client, "push.test"));
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    for part in [
        "cannot be used",
        "must be reachable from here",
        "refuses",
        "refused.test",
        "lost our account",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn a_certificate_is_renewed_in_time_and_connections_stay() {
    let (place, tls_port) = (Place::new(), free_port());
    let authority = place.open(free_port(), tls_port, 12);
    let configuration = place.configuration(&["push.test"], "challenge = \"tls-alpn-01\"\n");
    let server = server(&configuration, tls_port);
    obtained(&server, 1);
    let client = authority.client(&place);
    let first = shown(&server, &client, "push.test");
    let pair = Pair::new(1);
    let connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    let mut subscriber = tls::subscribe(connection, &format!("CHANNEL_ID={}", pair.signed()));
    obtained(&server, 2);
    until("another one is shown", || shown(&server, &client, "push.test") != first);
    raw::publish(server.address(), &pair.private.to_string(), 60, "still there");
    assert_eq!(tls::next_text(&mut subscriber), "still there");
    assert_eq!(metric_of(server.address(), FAILED), 0);
}

#[test]
fn a_name_that_leads_elsewhere_is_told_with_the_port_that_must_lead_here() {
    let (place, tls_port) = (Place::new(), free_port());
    // It looks where nobody listens.
    let _authority = place.open(free_port(), free_port(), 3600);
    let server = server(&place.configuration(&["push.test"], ""), tls_port);
    until("it has failed", || metric_of(server.address(), FAILED) == 1);
    server.signal("TERM");
    let (_, log) = server.wait();
    for part in ["not convinced", "push.test: ", "port 443 of each name must lead to this server"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
