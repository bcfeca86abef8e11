//! What the trial asks of a store, and the two libraries behind it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use fjall::{KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

/// Bytes of a receiver: its space and 16 bytes of id.
pub type Channel = [u8; 17];

/// A message as the trial publishes it.
#[derive(Clone)]
pub struct Message {
    pub receivers: [Channel; 2],
    pub expires_s: u64,
    pub body: Vec<u8>,
}

/// Anything Send and Sync that a failing store can say.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One store under trial.
pub trait Store: Send + Sync {
    /// Stores the messages; returns when they would survive a power cut.
    fn publish(&self, messages: Vec<Message>) -> Result<(), Failure>;
    /// Reads the ten newest messages of a channel; returns how many there were.
    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure>;
    /// Removes what expired until `now_s`; returns when that is done.
    fn expire(&self, now_s: u64) -> Result<(), Failure>;
    /// Asks for space back, if the store can be asked.
    fn compact(&self) -> Result<(), Failure>;
    /// How many messages there are.
    fn count(&self) -> Result<u64, Failure>;
    /// Ends in an orderly way.
    fn close(&self) -> Result<(), Failure>;
}

/// What a library must do; numbering and group commit are done around it, the same for both.
trait Library: Send + Sync + 'static {
    fn commit(&self, first: u64, messages: &[Message]) -> Result<(), Failure>;
    fn last(&self) -> Result<u64, Failure>;
    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure>;
    fn expire(&self, now_s: u64) -> Result<(), Failure>;
    fn compact(&self) -> Result<(), Failure>;
    fn count(&self) -> Result<u64, Failure>;
}

struct Waiting {
    messages: Vec<Message>,
    done: std::sync::mpsc::SyncSender<bool>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

/// Group commit around a library: one thread takes everything that waits and commits it at once.
struct Grouped<L> {
    library: Arc<L>,
    queue: Arc<(Mutex<Queue>, Condvar)>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl<L: Library> Grouped<L> {
    fn start(library: L) -> Result<Self, Failure> {
        let library = Arc::new(library);
        let queue = Arc::<(Mutex<Queue>, Condvar)>::default();
        let mut next = library.last()? + 1;
        let writer = std::thread::spawn({
            let (library, queue) = (Arc::clone(&library), Arc::clone(&queue));
            move || loop {
                let mut locked = queue.0.lock().unwrap();
                while locked.waiting.is_empty() && !locked.closed {
                    locked = queue.1.wait(locked).unwrap();
                }
                let taken = std::mem::take(&mut locked.waiting);
                drop(locked);
                if taken.is_empty() {
                    return;
                }
                let mut answers = Vec::new();
                let mut messages = Vec::new();
                for waiting in taken {
                    messages.extend(waiting.messages);
                    answers.push(waiting.done);
                }
                let outcome = library.commit(next, &messages);
                next += messages.len() as u64;
                if let Err(failure) = &outcome {
                    eprintln!("commit failed: {failure}");
                }
                for answer in answers {
                    let _ = answer.send(outcome.is_ok());
                }
            }
        });
        Ok(Self { library, queue, writer: Mutex::new(Some(writer)) })
    }
}

impl<L: Library> Store for Grouped<L> {
    fn publish(&self, messages: Vec<Message>) -> Result<(), Failure> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.queue.0.lock().unwrap().waiting.push_back(Waiting { messages, done });
        self.queue.1.notify_one();
        if answer.recv()? { Ok(()) } else { Err("not stored".into()) }
    }

    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure> {
        self.library.newest_ten(channel)
    }

    fn expire(&self, now_s: u64) -> Result<(), Failure> {
        self.library.expire(now_s)
    }

    fn compact(&self) -> Result<(), Failure> {
        self.library.compact()
    }

    fn count(&self) -> Result<u64, Failure> {
        self.library.count()
    }

    fn close(&self) -> Result<(), Failure> {
        self.queue.0.lock().unwrap().closed = true;
        self.queue.1.notify_one();
        if let Some(writer) = self.writer.lock().unwrap().take() {
            writer.join().map_err(|_| "writer panicked")?;
        }
        Ok(())
    }
}

/// Whether a body is as it was published: 200 hex digits.
pub fn is_whole(body: &[u8]) -> bool {
    body.len() == 200 && body.iter().all(u8::is_ascii_hexdigit)
}

/// Key of the index: receiver, id. Value: nothing.
fn index_key(channel: Channel, id: u64) -> [u8; 25] {
    let mut key = [0; 25];
    key[..17].copy_from_slice(&channel);
    key[17..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Key of the expiry queue: second, id. Value: the receivers, to find the index entries.
fn expiry_key(expires_s: u64, id: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&expires_s.to_be_bytes());
    key[8..].copy_from_slice(&id.to_be_bytes());
    key
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[bytes.len() - 8..]);
    u64::from_be_bytes(number)
}

struct Fjall {
    database: fjall::Database,
    messages: fjall::Keyspace,
    index: fjall::Keyspace,
    expiry: fjall::Keyspace,
}

/// Opens a store of fjall: 16 MiB of cache, the rest as it comes.
pub fn fjall(directory: &Path) -> Result<Box<dyn Store>, Failure> {
    let database = fjall::Database::builder(directory).cache_size(16 << 20).open()?;
    let messages = database.keyspace("messages", KeyspaceCreateOptions::default)?;
    let index = database.keyspace("index", KeyspaceCreateOptions::default)?;
    let expiry = database.keyspace("expiry", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Grouped::start(Fjall { database, messages, index, expiry })?))
}

impl Library for Fjall {
    fn commit(&self, first: u64, messages: &[Message]) -> Result<(), Failure> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (id, message) in (first..).zip(messages) {
            batch.insert(&self.messages, id.to_be_bytes(), &message.body[..]);
            for channel in message.receivers {
                batch.insert(&self.index, index_key(channel, id), []);
            }
            let receivers = message.receivers.concat();
            batch.insert(&self.expiry, expiry_key(message.expires_s, id), receivers);
        }
        Ok(batch.commit()?)
    }

    fn last(&self) -> Result<u64, Failure> {
        self.messages.last_key_value().map_or(Ok(0), |last| Ok(number(&last.key()?)))
    }

    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure> {
        let mut found = 0;
        for entry in self.index.prefix(channel).rev().take(10) {
            let body = self.messages.get(number(&entry.key()?).to_be_bytes())?;
            found += usize::from(body.is_some_and(|body| is_whole(&body)));
        }
        Ok(found)
    }

    fn expire(&self, now_s: u64) -> Result<(), Failure> {
        loop {
            let mut batch = self.database.batch();
            let mut removed = 0;
            for entry in self.expiry.range(..expiry_key(now_s + 1, 0)).take(10_000) {
                let (key, receivers) = entry.into_inner()?;
                let id = number(&key);
                for channel in receivers.chunks_exact(17) {
                    let mut whole = [0; 17];
                    whole.copy_from_slice(channel);
                    batch.remove(&self.index, index_key(whole, id));
                }
                batch.remove(&self.messages, id.to_be_bytes());
                batch.remove(&self.expiry, key);
                removed += 1;
            }
            if removed == 0 {
                return Ok(());
            }
            batch.commit()?;
        }
    }

    fn compact(&self) -> Result<(), Failure> {
        for keyspace in [&self.messages, &self.index, &self.expiry] {
            keyspace.rotate_memtable_and_wait()?;
            keyspace.major_compact()?;
        }
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.messages.len()? as u64)
    }
}

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
const INDEX: TableDefinition<'_, &[u8], ()> = TableDefinition::new("index");
const EXPIRY: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("expiry");

struct Redb(Mutex<redb::Database>);

/// Opens a store of redb: 16 MiB of cache, the rest as it comes.
pub fn redb(directory: &Path) -> Result<Box<dyn Store>, Failure> {
    std::fs::create_dir_all(directory)?;
    let database = redb::Database::builder()
        .set_cache_size(16 << 20)
        .create(directory.join("history.redb"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(MESSAGES)?;
    transaction.open_table(INDEX)?;
    transaction.open_table(EXPIRY)?;
    transaction.commit()?;
    Ok(Box::new(Grouped::start(Redb(Mutex::new(database)))?))
}

impl Library for Redb {
    fn commit(&self, first: u64, messages: &[Message]) -> Result<(), Failure> {
        let database = self.0.lock().unwrap();
        let transaction = database.begin_write()?;
        {
            let mut bodies = transaction.open_table(MESSAGES)?;
            let mut index = transaction.open_table(INDEX)?;
            let mut expiry = transaction.open_table(EXPIRY)?;
            for (id, message) in (first..).zip(messages) {
                bodies.insert(id, &message.body[..])?;
                for channel in message.receivers {
                    index.insert(&index_key(channel, id)[..], ())?;
                }
                let receivers = message.receivers.concat();
                expiry.insert(&expiry_key(message.expires_s, id)[..], &receivers[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn last(&self) -> Result<u64, Failure> {
        let transaction = self.0.lock().unwrap().begin_read()?;
        Ok(transaction.open_table(MESSAGES)?.last()?.map_or(0, |(id, _)| id.value()))
    }

    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure> {
        let transaction = self.0.lock().unwrap().begin_read()?;
        let bodies = transaction.open_table(MESSAGES)?;
        let index = transaction.open_table(INDEX)?;
        let (low, high) = (index_key(channel, 0), index_key(channel, u64::MAX));
        let mut found = 0;
        for entry in index.range(&low[..]..=&high[..])?.rev().take(10) {
            let body = bodies.get(number(entry?.0.value()))?;
            found += usize::from(body.is_some_and(|body| is_whole(body.value())));
        }
        Ok(found)
    }

    fn expire(&self, now_s: u64) -> Result<(), Failure> {
        loop {
            let transaction = self.0.lock().unwrap().begin_write()?;
            let mut removed = 0;
            {
                let mut bodies = transaction.open_table(MESSAGES)?;
                let mut index = transaction.open_table(INDEX)?;
                let mut expiry = transaction.open_table(EXPIRY)?;
                let end = expiry_key(now_s + 1, 0);
                let due: Vec<(Vec<u8>, Vec<u8>)> = expiry
                    .range(..&end[..])?
                    .take(10_000)
                    .map(|entry| entry.map(|(key, to)| (key.value().into(), to.value().into())))
                    .collect::<Result<_, _>>()?;
                for (key, receivers) in due {
                    let id = number(&key);
                    for channel in receivers.chunks_exact(17) {
                        let mut whole = [0; 17];
                        whole.copy_from_slice(channel);
                        index.remove(&index_key(whole, id)[..])?;
                    }
                    bodies.remove(id)?;
                    expiry.remove(&key[..])?;
                    removed += 1;
                }
            }
            transaction.commit()?;
            if removed == 0 {
                return Ok(());
            }
        }
    }

    fn compact(&self) -> Result<(), Failure> {
        self.0.lock().unwrap().compact()?;
        Ok(())
    }

    fn count(&self) -> Result<u64, Failure> {
        let transaction = self.0.lock().unwrap().begin_read()?;
        Ok(transaction.open_table(MESSAGES)?.len()?)
    }
}
