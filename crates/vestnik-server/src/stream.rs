//! The socket of a connection on a shard's own event queue, plain or encrypted.
//!
//! Both behave like a non-blocking socket that is watched edge-triggered: a refused read or write is
//! followed by an event.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::tls::{PROOF_PROTOCOL, Tls};

/// A plain or encrypted socket.
pub(crate) enum Stream {
    /// Bytes go as they are.
    Plain(TcpStream),
    /// Bytes go through a session.
    Tls(Box<Encrypted>),
}

/// A socket and the session that runs over it.
pub(crate) struct Encrypted {
    socket: TcpStream,
    session: ServerConnection,
}

impl Stream {
    /// The server's side of a new connection; `None`: the library refuses to begin a session.
    pub(crate) fn accepted(socket: TcpStream, tls: Option<&Tls>) -> Option<Self> {
        let Some(tls) = tls else { return Some(Self::Plain(socket)) };
        match ServerConnection::new(tls.config()) {
            Ok(session) => Some(Self::Tls(Box::new(Encrypted::new(socket, session)))),
            Err(error) => {
                tracing::error!(%error, "a TLS session cannot be begun");
                None
            }
        }
    }

    /// A connection that somebody else served until now.
    pub(crate) fn resumed(socket: TcpStream, session: Option<ServerConnection>) -> Self {
        match session {
            None => Self::Plain(socket),
            Some(session) => Self::Tls(Box::new(Encrypted::new(socket, session))),
        }
    }

    /// The socket below, to be watched and peeked at.
    pub(crate) fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(encrypted) => &mut encrypted.socket,
        }
    }

    /// The socket and its session, for somebody else to serve.
    pub(crate) fn into_parts(self) -> (TcpStream, Option<ServerConnection>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Tls(encrypted) => (encrypted.socket, Some(encrypted.session)),
        }
    }

    /// Whether it was opened to see a proof (ACME) and for nothing else.
    pub(crate) fn is_for_proof(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(encrypted) => encrypted.session.alpn_protocol() == Some(PROOF_PROTOCOL),
        }
    }

    /// Ends our side: the peer reads what was written and then the end.
    pub(crate) fn shut(&mut self) -> io::Result<()> {
        if let Self::Tls(encrypted) = self {
            encrypted.session.send_close_notify();
            encrypted.flush()?;
        }
        self.socket_mut().shutdown(Shutdown::Write)
    }

    /// Says goodbye before the socket is dropped, if that is possible at once.
    pub(crate) fn part(&mut self) {
        if let Self::Tls(encrypted) = self {
            encrypted.session.send_close_notify();
            // Nothing is lost if the kernel takes no more: the connection ends either way.
            let _ = encrypted.flush();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(encrypted) => encrypted.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(encrypted) => encrypted.write(bytes),
        }
    }

    /// Writes what was encrypted and could not be written; a plain socket keeps nothing.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(encrypted) => encrypted.flush(),
        }
    }
}

impl Encrypted {
    fn new(socket: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(BUFFER_MAX));
        Self { socket, session }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Reads what a record brought, or the next records; the handshake goes on by the way.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Cut off without a goodbye counts as an end, as it does on a plain socket: WebSocket
                // and HTTP say themselves where a message ends.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.session.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            process(&mut self.session, &mut self.socket)?;
        }
    }

    /// Encrypts as much as may wait here, once nothing waits from before.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.session.writer().write(bytes)?;
        match self.flush() {
            // The bytes are taken; the next write or flush sends the rest.
            Err(error) if is_pause(&error) => Ok(taken),
            flushed => flushed.map(|()| taken),
        }
    }
}

/// Bytes that may wait encrypted for a kernel that takes no more: one large write.
pub(crate) const BUFFER_MAX: usize = 64 * 1024;

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Takes in what was read, and answers what has to be: a handshake, a change of keys, an alert. What
/// the kernel does not take of it goes before the next write.
///
/// # Errors
/// The peer broke the protocol; it was told so.
pub(crate) fn process(session: &mut ServerConnection, socket: &mut impl Write) -> io::Result<()> {
    let processed = session.process_new_packets();
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if is_pause(&error) => break,
            Err(error) if processed.is_ok() => return Err(error),
            Err(_) => break,
        }
    }
    match processed {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
