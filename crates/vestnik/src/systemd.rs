//! What systemd and a service say to each other: sockets handed over, states told.
//!
//! Without systemd all of it does nothing.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::config::InheritedSocket;
use crate::failure::Failure;

/// The listening sockets that the process was started with (`LISTEN_FDS`), with the names that
/// `environment` has for them.
///
/// # Errors
/// One of them is no TCP listener.
pub(crate) fn sockets(environment: &[(String, String)]) -> anyhow::Result<Vec<InheritedSocket>> {
    let mut handed_over = listenfd::ListenFd::from_env();
    let names = environment.iter().find(|(name, _)| name == "LISTEN_FDNAMES");
    let mut names = names.map_or("", |(_, names)| names.as_str()).split(':');
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        let name = names.next().filter(|it| !it.is_empty()).unwrap_or("inherited").to_owned();
        let wrong = |error: std::io::Error| {
            Failure::new(
                format!(
                    "the socket `{name}` that the process was started with cannot be used: {error}"
                ),
                "ListenStream= of the socket unit must be a TCP port",
            )
        };
        let Some(socket) = handed_over.take_tcp_listener(index).map_err(wrong)? else { continue };
        let address = socket.local_addr().map_err(wrong)?;
        sockets.push(InheritedSocket { name, address, socket: Arc::new(socket) });
    }
    Ok(sockets)
}

/// A state of the service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// It serves.
    Ready,
    /// It reads its configuration again; `Ready` follows.
    Reloading,
    /// It closes its connections.
    Stopping,
    /// It is alive.
    Alive,
}

/// Tells systemd.
pub(crate) fn tell(state: State) {
    let told = match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, ?state, "systemd cannot be told");
    }
}

/// How often systemd wants to hear [`State::Alive`], if at all: half of what it waits for.
pub(crate) fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| (timeout / 2).max(Duration::from_millis(1)))
}

/// Does `work`, which blocks, and says meanwhile that the process is alive: the end of a server takes
/// as long as its connections are closed, and systemd bounds that by itself (`TimeoutStopSec=`).
pub(crate) fn alive_during<T>(work: impl FnOnce() -> T) -> T {
    let Some(period) = watchdog_period() else { return work() };
    let (done, is_done) = std::sync::mpsc::sync_channel::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                tell(State::Alive);
            }
        });
        let result = work();
        drop(done);
        result
    })
}
