//! The client's side of a connection of the benchmark, plain or encrypted, and what both sides of an
//! encrypted one need.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

/// The name in the certificate of the benchmark.
const NAME: &str = "bench.invalid";

/// A certificate of its own (ECDSA P-256), as files in a folder that is removed with it.
pub(super) struct Identity {
    folder: tempfile::TempDir,
    /// Believes this certificate alone, speaks TLS 1.3 alone, and begins every session anew.
    pub(super) client: Arc<ClientConfig>,
}

impl Identity {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for a certificate")?;
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let identity = Self { folder, client: Arc::new(client) };
        std::fs::write(identity.certificate(), made.cert.pem())?;
        std::fs::write(identity.key(), made.signing_key.serialize_pem())?;
        Ok(identity)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.path().join("bench.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.path().join("bench.key")
    }
}

/// What a bare server with such files needs.
pub(super) fn server(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A socket that does not block, and the session over it if there is one.
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<(TcpStream, ClientConnection)>),
}

impl Link {
    /// `tls`: begin a session; it is made while the link is read and written.
    pub(super) fn new(stream: TcpStream, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from(NAME).context("no name")?;
        let session = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Self::Tls(Box::new((stream, session))))
    }

    /// Whether a read that gave `read` of `asked` bytes has left nothing behind, as far as can be told
    /// without another one.
    pub(super) const fn is_drained_by(&self, read: usize, asked: usize) -> bool {
        match self {
            Self::Plain(_) => read < asked,
            // A session may hold more than it gives at once.
            Self::Tls(_) => false,
        }
    }

    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &mut tls.0,
        }
    }
}

impl Source for Link {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket().deregister(registry)
    }
}

/// Sends what a session has to say; what the kernel does not take goes with the next call.
fn send(stream: &mut TcpStream, session: &mut ClientConnection) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            written => drop(written?),
        }
    }
    Ok(())
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stream, session) = match self {
            Self::Plain(stream) => return stream.read(buffer),
            Self::Tls(tls) => (&mut tls.0, &mut tls.1),
        };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if session.read_tls(stream)? == 0 {
                return Ok(0);
            }
            session.process_new_packets().map_err(io::Error::other)?;
            send(stream, session)?;
        }
    }
}

impl Write for Link {
    /// An encrypted link takes everything, and sends it once the session is made.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (stream, session) = match self {
            Self::Plain(stream) => return stream.write(bytes),
            Self::Tls(tls) => (&mut tls.0, &mut tls.1),
        };
        // Before anything is taken: the connection may still be on its way.
        send(stream, session)?;
        let taken = session.writer().write(bytes)?;
        send(stream, session)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => send(&mut tls.0, &mut tls.1),
        }
    }
}
