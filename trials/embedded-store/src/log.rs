//! The segment log under trial: the disk engine of `vestnik-hub` itself, with nobody listening.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Author, ChannelId, Clock, Draft, Expiry, MessageId, MessageKind, Receiver};
use vestnik_hub::Announcer;
use vestnik_hub::engine::{Batch, DiskOptions, Engine, HistoryLimits, IfUnstored, Lookup, Ticket};

use crate::store::{Channel, Failure, Message, Store, is_whole};

/// Unix seconds at which the trial's messages are published.
const START_S: u64 = 1_800_000_000;

struct Log {
    engine: Engine,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Opens a history with its usual options; a read gives the ten newest messages.
pub fn open(directory: &Path) -> Result<Box<dyn Store>, Failure> {
    let (clock, metrics) = (Clock::manual(START_S), Arc::<Metrics>::default());
    let limits = HistoryLimits { replay_messages: 10, ..HistoryLimits::on_disk() };
    let announcer = Arc::new(Announcer::new(1, 1));
    let options = DiskOptions::new(directory);
    let engine = Engine::disk(options, limits, announcer, clock.clone(), Arc::clone(&metrics))?;
    Ok(Box::new(Log { engine, clock, metrics }))
}

fn receiver(channel: Channel) -> Receiver {
    let mut id = [0; 16];
    id.copy_from_slice(&channel[1..]);
    Receiver::Private(ChannelId::from_bytes(id))
}

impl Store for Log {
    fn publish(&self, messages: Vec<Message>) -> Result<(), Failure> {
        let drafts = messages.into_iter().map(|message| Draft {
            receivers: message.receivers.map(receiver).into(),
            body: message.body.into(),
            expiry: Expiry::new(message.expires_s - START_S, Expiry::MAX),
            author: Author::Backend,
            kind: MessageKind::UNKNOWN,
        });
        let batch = Batch { drafts: drafts.collect(), if_unstored: IfUnstored::Deliver };
        match self.engine.submit(batch)? {
            Ticket::Ready(_) => Ok(()),
            Ticket::Pending(answer) => Ok(answer.blocking_recv()?.map(drop)?),
        }
    }

    fn newest_ten(&self, channel: Channel) -> Result<usize, Failure> {
        let replay = match self.engine.history(&[receiver(channel)], MessageId::ZERO) {
            Lookup::Ready(replay) => replay,
            Lookup::Disk(read) => read.read()?,
        };
        Ok(replay.envelopes.iter().filter(|envelope| is_whole(&envelope.body)).count())
    }

    fn expire(&self, now_s: u64) -> Result<(), Failure> {
        self.clock.advance(Duration::from_secs(now_s - START_S));
        let mut before = u64::MAX;
        while before != self.metrics.get(Metric::HistoryMessages) {
            before = self.metrics.get(Metric::HistoryMessages);
            self.engine.sweep();
        }
        // Files are removed by the writer; nothing tells when it is done but the gauge standing still.
        let (mut since, mut bytes) = (Instant::now(), 0);
        while since.elapsed() < Duration::from_millis(50) {
            if bytes != self.metrics.get(Metric::HistoryBytes) {
                (since, bytes) = (Instant::now(), self.metrics.get(Metric::HistoryBytes));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn compact(&self) -> Result<(), Failure> {
        Ok(()) // it cannot be asked: it compacts when its limit of bytes is reached
    }

    fn count(&self) -> Result<u64, Failure> {
        Ok(self.metrics.get(Metric::HistoryMessages))
    }

    fn close(&self) -> Result<(), Failure> {
        self.engine.close();
        Ok(())
    }
}
