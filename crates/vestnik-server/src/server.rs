//! The server as a whole: its threads, from start to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vestnik_hub::{Hub, ShardNumber};

use crate::admission::Admission;
use crate::handle::Handle;
use crate::listen::{self, BindError};
use crate::options::Options;
use crate::rate::Rates;
use crate::shard::Shard;
use crate::shared::{Command, ModuleKeys, Shared};
use crate::transport::between_polls::BetweenPolls;
use crate::visit::Door;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened at.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The operating system gives no thread or event queue.
    #[error("cannot start a thread of the server")]
    Thread(#[source] io::Error),
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Commands that may wait for a shard.
    const COMMANDS: usize = 1024;

    /// Threads of a shard that read the history from files. When thousands return at once, more of
    /// them would not make the disk faster.
    const READERS: usize = 8;

    /// Binds every listener and starts one thread for each shard. When it returns, connections are
    /// accepted. `door`: where requests for the module go; without one they are not found.
    ///
    /// # Errors
    /// When an address is taken or refused, or a thread cannot be started; nothing keeps running
    /// then.
    pub fn start(options: Options, hub: Arc<Hub>, door: Option<Door>) -> Result<Self, StartError> {
        let shards: Vec<ShardNumber> = hub.announcer().shards().collect();
        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<std::net::TcpListener>> =
            shards.iter().map(|_| Vec::new()).collect();
        for listener in &options.listeners {
            let (address, bound) = listen::bind(listener, shards.len())?;
            addresses.push(address);
            for (sockets, socket) in sockets.iter_mut().zip(bound) {
                sockets.push(socket);
            }
        }
        let (commands, inboxes): (Vec<_>, Vec<_>) =
            shards.iter().map(|_| mpsc::channel(Self::COMMANDS)).unzip();
        let limits = &options.limits;
        let admission = Admission::new(limits.connections, limits.connections_per_address);
        let keys = ModuleKeys { configured: options.tenant.keys.clone(), module: Vec::new() };
        let shared = Arc::new(Shared {
            module_keys: std::sync::Mutex::new(keys),
            accepted: Arc::new(Admission::new(limits.connections, limits.connections_per_address)),
            options: ArcSwap::from_pointee(options),
            admission,
            bodies: Arc::default(),
            subscribe_rates: Rates::new(),
            publish_rates: Rates::new(),
            hub,
            door,
            commands: commands.into(),
            evictions: std::sync::Mutex::default(),
            between_polls: BetweenPolls::default(),
            stopping: CancellationToken::new(),
            failed: CancellationToken::new(),
            hinted: std::sync::atomic::AtomicU64::new(0),
            distrust_said: std::sync::atomic::AtomicU64::new(0),
        });
        let mut server = Self { shared, addresses, threads: Vec::new() };
        for ((number, listeners), commands) in shards.into_iter().zip(sockets).zip(inboxes) {
            if let Err(error) = server.start_shard(number, listeners, commands) {
                server.stop();
                return Err(StartError::Thread(error));
            }
        }
        Ok(server)
    }

    fn start_shard(
        &mut self,
        number: ShardNumber,
        listeners: Vec<std::net::TcpListener>,
        commands: mpsc::Receiver<Command>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(Self::READERS)
            .build()?;
        let shared = Arc::clone(&self.shared);
        let (started, start) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("shard-{}", number.index())).spawn(
            move || {
                let _alarm = Alarm(Arc::clone(&shared));
                vestnik_hub::settle_on(number);
                tokio::task::LocalSet::new().block_on(&runtime, async move {
                    match Shard::new(shared, number, listeners) {
                        Ok((shard, poll)) => {
                            // The starter waits for this and cannot be gone.
                            let _ = started.send(Ok(()));
                            shard.run(poll, commands).await;
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                        }
                    }
                });
                // Blocking reads of the history may still run; they end by themselves.
                runtime.shutdown_timeout(Duration::from_secs(1));
            },
        )?;
        self.threads.push(thread);
        start.blocking_recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))
    }

    /// The addresses that are listened at, in the order of the options, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Puts other options in force, for what begins from now on; no connection is closed. Listeners
    /// keep their places, names, addresses and routes: only their certificates change, to those of the
    /// listener that has the same address now, and only where there were some. One whose address is
    /// not there any more keeps its certificates.
    pub fn reload(&self, mut options: Options) {
        let before = self.shared.options();
        let mut after = std::mem::take(&mut options.listeners);
        options.listeners = before.listeners.clone();
        for listener in &mut options.listeners {
            // Several may ask for any free port of the same address: those are told apart by their order.
            let same = after.iter().position(|it| it.address == listener.address);
            let Some(same) = same else { continue };
            let tls = after.remove(same).tls;
            if listener.tls.is_some() && tls.is_some() {
                listener.tls = tls;
            }
        }
        let limits = &options.limits;
        for admission in [&self.shared.admission, &*self.shared.accepted] {
            admission.set_limits(limits.connections, limits.connections_per_address);
        }
        self.shared.reload(options);
    }

    /// What other parts of the program may ask it and tell it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    /// Asks every shard for a sign of life. Not cancel safe in that nobody hears the answers then.
    pub async fn responds(&self) {
        for commands in &self.shared.commands {
            let (answer, answered) = oneshot::channel();
            // A shard that is gone is told of by `failed`.
            if commands.send(Command::Respond(answer)).await.is_ok() {
                let _ = answered.await;
            }
        }
    }

    /// Waits until a thread of the server has ended although nobody stopped it: its connections are
    /// lost and its port no longer served in full. Cancel safe.
    pub async fn failed(&self) {
        self.shared.failed.cancelled().await;
    }

    /// Stops: no new connections, polls are answered, WebSocket connections are closed spread over
    /// the drain time. Returns when everything is closed. Blocks.
    pub fn stop(&mut self) {
        self.shared.stopping.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the server had panicked");
            }
        }
    }
}

/// Held by a thread of the server; tells when it ends too early, also by a panic.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.0.stopping.is_cancelled() {
            self.0.failed.cancel();
        }
    }
}
