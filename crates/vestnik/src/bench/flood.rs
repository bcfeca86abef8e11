//! Several publishers at once, as fast as subscribers take what they send.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::figures::Run;
use super::publisher::Publisher;
use super::swarm::Received;

/// Sends one request.
pub(super) type Send<'a> = dyn Fn(&mut Publisher) -> anyhow::Result<()> + Sync + 'a;

/// Publishers that are as fast as they may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    pub(super) publishers: usize,
    /// Requests of all of them together.
    pub(super) requests: u64,
    /// How many of those may be on their way.
    pub(super) ahead: u64,
}

/// What the publishers of a flood may send.
#[derive(Default)]
struct Permits {
    given: Mutex<Given>,
    changed: Condvar,
}

#[derive(Default)]
struct Given {
    /// Requests that may be sent in all, and those that were.
    permitted: u64,
    taken: u64,
    is_ended: bool,
}

impl Permits {
    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request may be sent; `false`: none will.
    fn take(&self) -> bool {
        let mut given = self
            .changed
            .wait_while(self.given(), |given| !given.is_ended && given.taken >= given.permitted)
            .unwrap_or_else(PoisonError::into_inner);
        given.taken += u64::from(!given.is_ended);
        !given.is_ended
    }

    fn give_up_to(&self, permitted: u64) {
        let mut given = self.given();
        let more = permitted.saturating_sub(given.permitted);
        given.permitted += more;
        for _ in 0..more {
            self.changed.notify_one();
        }
    }

    fn end(&self) {
        self.given().is_ended = true;
        self.changed.notify_all();
    }

    fn is_ended(&self) -> bool {
        self.given().is_ended
    }
}

impl Run<'_> {
    /// Publishes from eight publishers at once, `messages` messages with each request, until the one
    /// subscriber has all of them; the server's time.
    pub(super) fn publish_together(
        &mut self,
        requests: u64,
        messages: u64,
        send: &Send<'_>,
    ) -> anyhow::Result<Duration> {
        const PUBLISHERS: usize = 8;
        /// Messages: a subscriber that is left behind is closed, as it should be.
        const AHEAD_MAX: u64 = 400;
        let before = self.target.cpu();
        let first = self.swarm.received.messages;
        let flood = Flood { publishers: PUBLISHERS, requests, ahead: AHEAD_MAX / messages };
        self.flood(flood, send, |received| (received.messages - first) / messages)?;
        Ok(self.target.cpu() - before)
    }

    /// Publishes from several publishers at once until everything has arrived. `arrived`: with how many
    /// requests that is so.
    pub(super) fn flood(
        &mut self,
        flood: Flood,
        send: &Send<'_>,
        arrived: impl Fn(&Received) -> u64,
    ) -> anyhow::Result<()> {
        let Flood { publishers, requests, ahead } = flood;
        let permits = Permits::default();
        let publish = || -> anyhow::Result<()> {
            // Not connected before there is something to say: a server drops who says nothing.
            let mut publisher = None;
            while permits.take() {
                let publisher = match &mut publisher {
                    Some(publisher) => publisher,
                    none => none.insert(Publisher::open(&self.target.publish)?),
                };
                send(publisher)?;
            }
            Ok(())
        };
        // What one could not send nobody needs to wait for.
        let publish = || publish().inspect_err(|_| permits.end());
        let swarm = &mut self.swarm;
        std::thread::scope(|scope| {
            let publishers: Vec<_> = (0..publishers).map(|_| scope.spawn(publish)).collect();
            let mut receive = || -> anyhow::Result<()> {
                loop {
                    let done = arrived(&swarm.received);
                    permits.give_up_to(requests.min(done + ahead));
                    if done >= requests || permits.is_ended() {
                        return Ok(());
                    }
                    swarm.until(|received| arrived(received) > done || permits.is_ended())?;
                }
            };
            let received = receive();
            permits.end();
            // What stopped a publisher explains what did not arrive.
            for publisher in publishers {
                publisher.join().map_err(|_| anyhow::anyhow!("a publisher failed"))??;
            }
            received
        })
    }
}
