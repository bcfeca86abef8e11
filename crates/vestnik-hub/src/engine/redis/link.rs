//! The way to the Redis server that writes: found anew for every connection, because it moves.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, PushKind, RedisError, TlsCertificates, Value,
};
use tokio::sync::Notify;
use vestnik_core::Secret;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// A socket file.
    Unix(PathBuf),
}

/// How servers are arranged.
#[derive(Clone, Debug)]
pub enum Topology {
    /// One server.
    Standalone(Address),
    /// Sentinels know which server writes.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Address>,
        /// The name they know the group by.
        master: String,
        /// Their password, if they have one.
        password: Option<Secret<String>>,
    },
    /// Some nodes of a cluster; they know the others.
    Cluster(Vec<Address>),
}

/// Encryption of the connections.
#[derive(Clone, Debug, Default)]
pub struct RedisTls {
    /// Authorities to trust, PEM; `None`: those of the system.
    pub authorities: Option<Vec<u8>>,
}

/// Who this program is to Redis, and where it is.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is.
    pub topology: Topology,
    /// User of the access control list; `None`: `default`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret<String>>,
    /// Number of the database; 0 in a cluster.
    pub database: u32,
    /// Encryption; `None`: none.
    pub tls: Option<RedisTls>,
    /// A server that does not answer for this long is given up.
    pub timeout: Duration,
}

/// What the server pushed: bounded, because a node that cannot keep up must reconnect and catch up.
#[derive(Default)]
pub(super) struct Pushes {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    /// Why nothing more comes that could be relied on.
    broken: Mutex<Option<&'static str>>,
    news: Notify,
}

impl Pushes {
    const MAX: usize = 65_536;

    fn put(&self, push: PushInfo) -> Result<(), ()> {
        let payload = match push.kind {
            PushKind::Message | PushKind::PMessage | PushKind::SMessage => match push.data.last() {
                Some(Value::BulkString(_)) => push.data.into_iter().next_back(),
                _ => None,
            },
            PushKind::Disconnection => {
                self.end("the connection was closed");
                return Ok(());
            }
            // We never ask for it: the slot has another master now. The client library takes it for the
            // answer to whatever is under way, so the connection is of no use any more.
            PushKind::SUnsubscribe => {
                self.end("the slot has moved to another server");
                return Ok(());
            }
            _ => None,
        };
        let Some(Value::BulkString(payload)) = payload else { return Ok(()) };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= Self::MAX {
            self.end("announcements came faster than they were taken");
        } else {
            waiting.push_back(payload);
            self.news.notify_one();
        }
        Ok(())
    }

    fn end(&self, why: &'static str) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.news.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn broken(&self) -> Option<&'static str> {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something came, or the connection broke. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

impl Access {
    /// Connects to the server that writes the keys with `tag`, with what it pushes.
    pub(super) async fn connect(
        &self,
        tag: &str,
    ) -> Result<(MultiplexedConnection, Arc<Pushes>), RedisError> {
        let address = self.locate(tag).await?;
        self.open(&address, self.username.as_deref(), self.password.as_ref(), self.database).await
    }

    async fn open(
        &self,
        address: &Address,
        username: Option<&str>,
        password: Option<&Secret<String>>,
        database: u32,
    ) -> Result<(MultiplexedConnection, Arc<Pushes>), RedisError> {
        let address = match (address, &self.tls) {
            (Address::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (Address::Tcp(host, port), None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Address::Tcp(host, port), Some(_)) => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let info = address.into_connection_info()?;
        let mut settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(database.into());
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password.expose());
        }
        let info = info.set_redis_settings(settings);
        let client = match &self.tls {
            None => Client::open(info)?,
            Some(tls) => {
                let root_cert = tls.authorities.clone();
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
            }
        };
        let pushes = Arc::new(Pushes::default());
        let taker = Arc::clone(&pushes);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_push_sender(move |push| taker.put(push));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((connection, pushes))
    }

    async fn locate(&self, tag: &str) -> Result<Address, RedisError> {
        match &self.topology {
            Topology::Standalone(address) => Ok(address.clone()),
            Topology::Sentinel { sentinels, master, password } => {
                let mut failure = nowhere("no sentinel is configured");
                for sentinel in sentinels {
                    match self.ask_sentinel(sentinel, master, password.as_ref()).await {
                        Ok(address) => return Ok(address),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
            Topology::Cluster(seeds) => {
                let mut failure = nowhere("no node of the cluster is configured");
                for seed in seeds {
                    match self.ask_cluster(seed, tag).await {
                        Ok(address) => return Ok(address),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Address,
        master: &str,
        password: Option<&Secret<String>>,
    ) -> Result<Address, RedisError> {
        let (mut connection, _) = self.open(sentinel, None, password, 0).await?;
        let found: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(master)
            .query_async(&mut connection)
            .await?;
        let (host, port) = found.ok_or_else(|| nowhere("the sentinels do not know that master"))?;
        Ok(Address::Tcp(host, port))
    }

    async fn ask_cluster(&self, seed: &Address, tag: &str) -> Result<Address, RedisError> {
        let (username, password) = (self.username.as_deref(), self.password.as_ref());
        let (mut connection, _) = self.open(seed, username, password, 0).await?;
        let slot: u64 =
            redis::cmd("CLUSTER").arg("KEYSLOT").arg(tag).query_async(&mut connection).await?;
        let slots: Vec<(u64, u64, Vec<Value>)> = redis::cmd("CLUSTER")
            .arg("SLOTS")
            .query_async::<Vec<Vec<Value>>>(&mut connection)
            .await?
            .into_iter()
            .filter_map(|row| {
                let mut row = row.into_iter();
                let first = redis::from_redis_value(row.next()?).ok()?;
                let last = redis::from_redis_value(row.next()?).ok()?;
                Some((first, last, redis::from_redis_value(row.next()?).ok()?))
            })
            .collect();
        let owner = slots.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let mut owner = owner.ok_or_else(|| nowhere("nobody has the slot"))?.2.into_iter();
        let host: Option<String> = owner.next().and_then(|it| redis::from_redis_value(it).ok());
        let port: Option<u16> = owner.next().and_then(|it| redis::from_redis_value(it).ok());
        match (host.filter(|host| !host.is_empty()), port, seed) {
            (Some(host), Some(port), _) => Ok(Address::Tcp(host, port)),
            // A node that does not know its own address is where it was asked.
            (None, Some(port), Address::Tcp(host, _)) => Ok(Address::Tcp(host.clone(), port)),
            _ => Err(nowhere("the cluster does not say where the slot is")),
        }
    }
}

/// How announcements travel between nodes. All nodes use the server that writes, so all of them choose the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// To every server of a cluster.
    Everywhere,
    /// To the servers of one slot: sharded publishing, of Redis 7.
    Shard,
}

impl Bus {
    /// The command that announces.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Everywhere => "PUBLISH",
            Self::Shard => "SPUBLISH",
        }
    }

    /// The best one that the server behind a connection has. By its commands: services under other names
    /// count their versions differently, and `INFO` is not for every user.
    pub(super) async fn of(
        topology: &Topology,
        connection: &mut MultiplexedConnection,
    ) -> Result<Self, RedisError> {
        if !matches!(topology, Topology::Cluster(_)) {
            return Ok(Self::Everywhere);
        }
        let mut question = redis::cmd("COMMAND");
        question.arg("INFO").arg(Self::Shard.command());
        let known: Vec<Value> = question.query_async(connection).await?;
        let is_known =
            known.iter().any(|it| matches!(it, Value::Array(facts) if !facts.is_empty()));
        Ok(if is_known { Self::Shard } else { Self::Everywhere })
    }
}

fn nowhere(text: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, text))
}
