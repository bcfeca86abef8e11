//! The socket of an HTTP connection: what was read from it before, its encryption, how long a write
//! may take, and whether its client is still there.

use std::future::Future as _;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::stream::process;

/// A stream some bytes of which were read already, and whose writes may pause only so long.
pub(super) struct Stream {
    read: Bytes,
    /// Shared, because the service that answers looks at it too; with atomics, because hyper lets go
    /// of a connection only in a way that could change its thread.
    link: Arc<Link>,
    /// Whether to read on at the end ([`Watch::linger`]).
    lingers: Arc<AtomicBool>,
    write_pause: Duration,
    /// Runs while the kernel takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while what nobody wants is read.
    lingering: Option<Pin<Box<Sleep>>>,
    /// The goodbye of the encryption is on its way.
    is_parting: bool,
}

/// How long a closed connection is read from: a caller that is still sending would otherwise see a
/// reset connection instead of its answer.
const LINGER: Duration = Duration::from_secs(2);

/// A socket, and the session of an encrypted one.
struct Link {
    socket: TcpStream,
    session: Option<Mutex<ServerConnection>>,
}

/// The socket as sessions read and write it.
struct Socket<'link>(&'link TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(session: &Mutex<ServerConnection>) -> MutexGuard<'_, ServerConnection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Link {
    /// Reads what is there; `WouldBlock`: nothing, and the socket tells when there is.
    fn read(&self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let Some(session) = &self.session else {
            return self.socket.try_read_buf(into).map(drop);
        };
        let session = &mut *lock(session);
        loop {
            match session.reader().read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    return Ok(());
                }
                Err(error) if is_block(&error) => {}
                // Cut off without a goodbye: HTTP says itself where a message ends.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            if session.read_tls(&mut Socket(&self.socket))? == 0 {
                return Ok(());
            }
            process(session, &mut Socket(&self.socket))?;
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &self.session else { return self.socket.try_write(bytes) };
        self.flush()?;
        let taken = lock(session).writer().write(bytes)?;
        match self.flush() {
            // The bytes are taken; the next write or flush sends the rest.
            Err(error) if is_block(&error) => Ok(taken),
            flushed => flushed.map(|()| taken),
        }
    }

    /// Writes what was encrypted and could not be written.
    fn flush(&self) -> io::Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let session = &mut *lock(session);
        while session.wants_write() {
            if session.write_tls(&mut Socket(&self.socket))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn say_goodbye(&self) {
        if let Some(session) = &self.session {
            lock(session).send_close_notify();
        }
    }

    /// Waits until the client of an encrypted connection has ended it. What it says instead stays
    /// for the next read.
    async fn ended(&self, session: &Mutex<ServerConnection>) {
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            let look = {
                let session = &mut *lock(session);
                match session.read_tls(&mut Socket(&self.socket)) {
                    Ok(0) => return,
                    Ok(_) => {
                        if process(session, &mut Socket(&self.socket)).is_err() {
                            return;
                        }
                        session.process_new_packets()
                    }
                    Err(error) if is_block(&error) => continue,
                    // Its buffer is full of a request that is not read yet, or the socket failed.
                    Err(error) if error.kind() == io::ErrorKind::Other => {
                        session.process_new_packets()
                    }
                    Err(_) => return,
                }
            };
            match look {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => break,
                Ok(state) if state.peer_has_closed() => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        std::future::pending().await
    }
}

impl Stream {
    pub(super) fn new(
        socket: TcpStream,
        session: Option<ServerConnection>,
        read: Bytes,
        write_pause: Duration,
    ) -> Self {
        Self {
            read,
            link: Arc::new(Link { socket, session: session.map(Mutex::new) }),
            lingers: Arc::default(),
            write_pause,
            stalled: None,
            lingering: None,
            is_parting: false,
        }
    }

    /// The way to ask about the client while somebody else reads and writes.
    pub(super) fn watch(&self) -> Watch {
        Watch { link: Some(Arc::downgrade(&self.link)), lingers: Arc::clone(&self.lingers) }
    }

    /// What is still unread, the socket and its session; `None` while somebody watches it.
    pub(super) fn into_parts(self) -> Option<(Bytes, TcpStream, Option<ServerConnection>)> {
        let Link { socket, session } = Arc::into_inner(self.link)?;
        let session = session.map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner));
        Some((self.read, socket, session))
    }

    /// Waits until the kernel takes more, but only so long.
    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(ready) = self.link.socket.poll_write_ready(context) {
            return Poll::Ready(ready);
        }
        let pause = self.write_pause;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Tells when a client leaves.
#[derive(Clone)]
pub(super) struct Watch {
    /// `None`: whoever reads the connection notices by itself.
    link: Option<Weak<Link>>,
    lingers: Arc<AtomicBool>,
}

impl Watch {
    /// For connections of HTTP/2, which are read all the time: a request whose client leaves is
    /// dropped.
    pub(super) fn by_reader() -> Self {
        Self { link: None, lingers: Arc::default() }
    }

    /// The connection ends with this answer, but its client may still be sending.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Waits until the client has closed its side of the connection. Takes no request from it, so
    /// dropping this loses nothing. Behind a pipelined request the end cannot be seen: then it waits
    /// for ever.
    pub(super) async fn gone(&self) {
        let Some(link) = &self.link else { return std::future::pending().await };
        let Some(link) = link.upgrade() else { return };
        if let Some(session) = &link.session {
            return link.ended(session).await;
        }
        match link.socket.peek(&mut [0]).await {
            Ok(0) | Err(_) => {}
            Ok(_) => std::future::pending().await,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let length = self.read.len().min(into.remaining());
            into.put_slice(&self.read[..length]);
            self.read.advance(length);
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.link.read(into) {
                Err(error) if is_block(&error) => {
                    ready!(self.link.socket.poll_read_ready(context))?;
                }
                read => return Poll::Ready(read),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.link.write(bytes) {
                Err(error) if is_block(&error) => ready!(self.poll_writable(context))?,
                written => {
                    self.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.link.flush() {
                Err(error) if is_block(&error) => ready!(self.poll_writable(context))?,
                flushed => {
                    self.stalled = None;
                    return Poll::Ready(flushed);
                }
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_parting {
            self.is_parting = true;
            self.link.say_goodbye();
        }
        if self.lingering.is_none() {
            ready!(self.as_mut().poll_flush(context))?;
            socket2::SockRef::from(&self.link.socket).shutdown(Shutdown::Write)?;
            if !self.lingers.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        // Encrypted or not: nobody wants it.
        let mut unwanted = [0; 16 * 1024];
        loop {
            ready!(this.link.socket.poll_read_ready(context))?;
            match this.link.socket.try_read(&mut unwanted) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if is_block(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
