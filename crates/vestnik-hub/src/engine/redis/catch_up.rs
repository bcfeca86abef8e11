//! After a break: what became of the batch that was under way, and what was stored meanwhile.
//!
//! It is read in portions, of a span of ids at a time: so neither Redis nor this process is held up by it,
//! and it takes a bounded amount of memory, however long the break was.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::RedisError;
use vestnik_core::{Envelope, MessageId, Receiver};

use super::{Broken, Flying, Inner, Numbered, Session, record, takes_no_writes};

/// Receivers whose history is read in one call.
const RECEIVERS: usize = 200;
/// Messages of one receiver in one call.
const MESSAGES: usize = 64;
/// Bytes of messages after which a call ends.
const BYTES: usize = 1 << 20;
/// Bytes of messages that are gathered before they are announced.
const GATHERED_BYTES: usize = 32 << 20;

/// The highest id there can be.
const END: [u8; 13] = [0x99; 13];

/// A portion of what was stored.
struct Portion {
    current: MessageId,
    has_more: bool,
    until: [u8; 13],
    envelopes: Vec<Arc<Envelope>>,
}

/// Messages by their ids, not more than some bytes of them.
#[derive(Default)]
struct Gathered {
    messages: BTreeMap<MessageId, Arc<Envelope>>,
    bytes: usize,
}

impl Gathered {
    /// Adds messages; when they are too many, lets the newest go. Returns the id up to which they are
    /// complete, if some went.
    fn add(&mut self, envelopes: Vec<Arc<Envelope>>) -> Option<MessageId> {
        for envelope in envelopes {
            let bytes = envelope.body.len();
            if self.messages.insert(envelope.id, envelope).is_none() {
                self.bytes += bytes;
            }
        }
        let mut until = None;
        while self.bytes > GATHERED_BYTES && self.messages.len() > 1 {
            let Some((_, gone)) = self.messages.pop_last() else { break };
            self.bytes -= gone.body.len();
            until = self.messages.last_key_value().map(|(id, _)| *id);
        }
        until
    }
}

impl Inner {
    /// Settles what was in flight, and announces what was stored meanwhile. When it fails, what is still
    /// unsettled stays in flight.
    pub(super) async fn catch_up(
        &self,
        session: &mut Session,
        flying: &mut Option<Flying>,
    ) -> Result<(), Broken> {
        let mut executed = match flying.as_ref() {
            None => None,
            // With nothing in it: executed before, the script says so; else it never will be.
            Some(sent) => match self.publish(session, sent.serial, &[]).await {
                Ok(numbered) => Some(numbered),
                // The script looks first whether it was executed, and writes only then: it was not. What
                // was stored must be readable although nothing can be written.
                Err(error) if takes_no_writes(&error) => {
                    self.refuse_flying(flying, error);
                    None
                }
                Err(error) => return Err(error.into()),
            },
        };
        if let (Some(sent), Some(numbered)) = (flying.as_ref(), &executed)
            && numbered.count != sent.batches.iter().map(|it| it.drafts.len()).sum::<usize>()
        {
            let batches = flying.take().map(|it| it.batches).unwrap_or_default();
            let mut state = self.lock();
            batches.into_iter().rev().for_each(|it| state.waiting.push_front(it));
            Self::recount(&mut state);
            executed = None;
        }
        let after = self.lock().announced;
        let receivers =
            if after == MessageId::ZERO { Vec::new() } else { self.announcer.receivers() };
        let (mut position, mut count) = (after.to_packed(), 0);
        let current = loop {
            let (mut messages, until, current) = self.gather(session, &receivers, position).await?;
            count += messages.len();
            let Some(until) = until else {
                while let Some(payload) = session.pushes.pop() {
                    let fresh = self.fresh(&payload);
                    count += fresh.len();
                    messages.extend(fresh.into_iter().map(|it| (it.id, it)));
                }
                self.announce_among(messages, flying, &mut executed);
                if let Some(numbered) = executed {
                    self.publish_done(flying.take(), &numbered);
                }
                break current;
            };
            self.announce_among(messages, flying, &mut executed);
            position = until.to_packed();
            // The connections have their share before more comes; but not for ever.
            let pause = self.announcer.calm();
            let _ = tokio::time::timeout(self.options.access.timeout, pause).await;
        };
        if count > 0 {
            tracing::info!(messages = count, "messages published meanwhile are delivered");
        }
        let mut state = self.lock();
        if state.announced == MessageId::ZERO {
            let start = MessageId::new(self.clock.unix_s().max(1), 0);
            state.announced = if current.epoch() == 0 { start } else { current };
        }
        // What nobody here listens to was not read, and is not missing.
        state.announced = state.announced.max(current);
        Ok(())
    }

    /// Announces messages, with the batch that was executed in its place among them.
    fn announce_among(
        &self,
        mut messages: BTreeMap<MessageId, Arc<Envelope>>,
        flying: &mut Option<Flying>,
        executed: &mut Option<Numbered>,
    ) {
        let last = messages.keys().next_back().copied().unwrap_or(MessageId::ZERO);
        if let Some(numbered) = executed.take_if(|it| last > it.before) {
            let newer = messages.split_off(&numbered.before.next());
            self.announce(&messages.into_values().collect::<Vec<_>>());
            self.publish_done(flying.take(), &numbered);
            let announced = self.lock().announced;
            messages = newer.into_iter().filter(|(id, _)| *id > announced).collect();
        }
        self.announce(&messages.into_values().collect::<Vec<_>>());
    }

    /// The messages of `receivers` behind a position, as many as may be gathered; the id up to which they
    /// are complete if there are more; and the newest id there is.
    async fn gather(
        &self,
        session: &mut Session,
        receivers: &[Receiver],
        position: [u8; 13],
    ) -> Result<(BTreeMap<MessageId, Arc<Envelope>>, Option<MessageId>, MessageId), RedisError>
    {
        let mut gathered = Gathered::default();
        let (mut until, mut end, mut current) = (None, END, MessageId::ZERO);
        for some in receivers.chunks(RECEIVERS).chain(receivers.is_empty().then_some(&[][..])) {
            let mut from = position;
            loop {
                let portion = self.portion(session, some, from, end).await?;
                current = current.max(portion.current);
                if let Some(complete) = gathered.add(portion.envelopes) {
                    until = Some(complete);
                    end = complete.to_packed();
                }
                from = portion.until;
                if !portion.has_more || from >= end {
                    break;
                }
            }
        }
        Ok((gathered.messages, until, current))
    }

    async fn portion(
        &self,
        session: &mut Session,
        receivers: &[Receiver],
        from: [u8; 13],
        end: [u8; 13],
    ) -> Result<Portion, RedisError> {
        let mut command = self.script(&session.missed);
        command.arg(&from[..]).arg(&end[..]).arg(MESSAGES).arg(BYTES);
        for receiver in receivers {
            command.arg(record::index_of(receiver));
        }
        let answer: Vec<redis::Value> = command.query_async(&mut session.connection).await?;
        let mut answer = answer.into_iter();
        let mut next = || answer.next().unwrap_or(redis::Value::Nil);
        let current =
            MessageId::new(redis::from_redis_value(next())?, redis::from_redis_value(next())?);
        let has_more = redis::from_redis_value::<u8>(next())? == 1;
        let until: Vec<u8> = redis::from_redis_value(next())?;
        let messages: Vec<Vec<u8>> =
            answer.map(redis::from_redis_value).collect::<Result<_, _>>()?;
        let read = |bytes: Vec<u8>| record::read_message(&bytes, receivers.to_vec());
        Ok(Portion {
            current,
            has_more,
            // Of another length only in a damaged index: then this span is over.
            until: until.try_into().unwrap_or(end),
            envelopes: messages.into_iter().filter_map(read).map(Arc::new).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::contract::{draft, private};

    #[test]
    fn what_is_gathered_is_bounded_and_says_how_far_it_is_complete() {
        let body = "x".repeat(1 << 20);
        let envelope = |seq| {
            Arc::new(Envelope::new(MessageId::new(1, seq), 0, draft(&[private(1)], &body, 60)))
        };
        let mut gathered = Gathered::default();
        let most = GATHERED_BYTES >> 20;
        let numbers = 1..=u64::try_from(most).unwrap();
        assert_eq!(gathered.add(numbers.map(|n| envelope(2 * n)).collect()), None);
        let until = gathered.add(vec![envelope(3), envelope(3), envelope(5)]);
        assert_eq!(until, Some(MessageId::new(1, 2 * (most as u64) - 4)));
        assert_eq!((gathered.messages.len(), gathered.bytes), (most, GATHERED_BYTES));
    }
}
