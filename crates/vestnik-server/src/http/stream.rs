//! The socket of an HTTP connection: what was read from it before, how long a write may take, and
//! whether its client is still there.

use std::future::Future as _;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A stream some bytes of which were read already, and whose writes may pause only so long.
pub(super) struct Stream {
    read: Bytes,
    /// Shared, because the service that answers looks at it too; with atomics, because hyper lets go
    /// of a connection only in a way that could change its thread.
    socket: Arc<TcpStream>,
    /// Whether to read on at the end ([`Watch::linger`]).
    lingers: Arc<AtomicBool>,
    write_pause: Duration,
    /// Runs while the kernel takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while what nobody wants is read.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// How long a closed connection is read from: a caller that is still sending would otherwise see a
/// reset connection instead of its answer.
const LINGER: Duration = Duration::from_secs(2);

impl Stream {
    pub(super) fn new(socket: TcpStream, read: Bytes, write_pause: Duration) -> Self {
        Self {
            read,
            socket: Arc::new(socket),
            lingers: Arc::default(),
            write_pause,
            stalled: None,
            lingering: None,
        }
    }

    /// The way to ask about the client while somebody else reads and writes.
    pub(super) fn watch(&self) -> Watch {
        Watch { socket: Arc::downgrade(&self.socket), lingers: Arc::clone(&self.lingers) }
    }

    /// The socket with what is still unread; `None` while somebody watches it.
    pub(super) fn into_parts(self) -> Option<(Bytes, TcpStream)> {
        Some((self.read, Arc::into_inner(self.socket)?))
    }
}

/// Tells when a client leaves.
#[derive(Clone)]
pub(super) struct Watch {
    socket: Weak<TcpStream>,
    lingers: Arc<AtomicBool>,
}

impl Watch {
    /// The connection ends with this answer, but its client may still be sending.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Waits until the client has closed its side of the connection. Takes nothing from it, so
    /// dropping this loses nothing. Behind a pipelined request the end cannot be seen: then it waits
    /// for ever.
    pub(super) async fn gone(&self) {
        let Some(socket) = self.socket.upgrade() else { return };
        match socket.peek(&mut [0]).await {
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
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read_buf(into) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
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
        while self.socket.poll_write_ready(context)?.is_ready() {
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
        let pause = self.write_pause;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            None => {
                socket2::SockRef::from(&*this.socket).shutdown(Shutdown::Write)?;
                if !this.lingers.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                this.lingering.insert(Box::pin(tokio::time::sleep(LINGER)))
            }
        };
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unwanted = [0; 16 * 1024];
        loop {
            ready!(this.socket.poll_read_ready(context))?;
            match this.socket.try_read(&mut unwanted) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
