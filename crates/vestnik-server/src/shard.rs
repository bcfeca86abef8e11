//! One thread: its sockets, its subscribers, its turn.
//!
//! A turn takes what was announced, queues it for the subscribers, writes to a slice of them, looks
//! at the sockets, and starts over. What gathers for a connection until its turn leaves in one
//! write, so a quiet shard delivers at once and a busy one in batches; no timer decides it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use vestnik_core::metric::Metric;
use vestnik_core::{Cursor, MessageId, Receiver};
use vestnik_hub::engine::{Lookup, Replay};
use vestnik_hub::{Shard as Subscribers, ShardNumber, SubscriberKey};

use crate::drain::Drain;
use crate::listen::Accepting;
use crate::readable::Readable;
use crate::shared::{Command, Shared};
use crate::subscribe::Subscription;
use crate::transport::between_polls::{Adopter, Place};
use crate::transport::{CloseReason, Connection, REFUSAL_PAUSE, Written};
use crate::wheel::Wheel;

/// Everything of a shard that its tasks change. Never borrowed across an `await`.
pub(crate) struct State {
    pub(crate) subscribers: Subscribers<Connection>,
    pub(crate) accepting: Accepting,
    pub(crate) registry: Registry,
    pub(crate) wheel: Wheel<SubscriberKey>,
    /// Bytes that were just read from some socket.
    pub(crate) read_buffer: Box<[u8]>,
    /// Bytes about to be written to some socket.
    pub(crate) write_buffer: Vec<u8>,
    /// WebSocket connections that may have more to read.
    pub(crate) readable: Readable,
    /// Polls on other shards that asked for what gathered here and have no answer yet.
    pub(crate) adopters: Vec<(Place, Adopter)>,
    /// Questions of WebSocket connections that wait for other nodes, in their order; there while a task asks
    /// for that connection.
    pub(crate) questions: HashMap<SubscriberKey, VecDeque<Vec<Receiver>>>,
}

/// One thread of the server.
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: ShardNumber,
    pub(crate) state: RefCell<State>,
    pub(crate) tasks: TaskTracker,
    started: Instant,
    /// Something was queued from outside the turn.
    wake: Notify,
}

/// Subscribers written to before the thread looks at anything else.
const SLICE: usize = 512;
/// Writing stops after this time too, and reading: nothing else waits longer than 10 ms (design.md §2).
const SLICE_TIME: Duration = Duration::from_millis(5);
/// Times of last seen are saved this often.
const SAVE_S: u64 = 60;
/// The other nodes are told this often how this one does.
const TELL_S: u64 = 4;
const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;

impl Shard {
    /// A shard that accepts from `listeners`, each with its place in the options.
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: ShardNumber,
        listeners: Vec<std::net::TcpListener>,
    ) -> io::Result<(Rc<Self>, mio::Poll)> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let accepting = Accepting::new(listeners, &registry)?;
        let outbox = shared.options().limits.outbox;
        let state = State {
            subscribers: Subscribers::new(number, Arc::clone(shared.hub.announcer()), outbox),
            accepting,
            registry,
            wheel: Wheel::new(0),
            read_buffer: vec![0; READ_BUFFER].into(),
            write_buffer: Vec::with_capacity(READ_BUFFER),
            readable: Readable::new(),
            adopters: Vec::new(),
            questions: HashMap::new(),
        };
        let shard = Self {
            shared,
            number,
            state: RefCell::new(state),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            wake: Notify::new(),
        };
        Ok((Rc::new(shard), poll))
    }

    /// Serves until the process stops and every connection is closed.
    pub(crate) async fn run(
        self: Rc<Self>,
        poll: mio::Poll,
        mut commands: mpsc::Receiver<Command>,
    ) {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that could swap their descriptor; an event \
                      queue owns one descriptor for its whole life"
        )]
        let watched = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE);
        let mut poll = match watched {
            Ok(poll) => poll,
            Err(error) => {
                tracing::error!(%error, "cannot watch the sockets of a shard");
                return;
            }
        };
        let mut events = Events::with_capacity(EVENTS);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut sockets_ready = false;
        let mut drain: Option<Drain> = None;
        if self.number.index() == 0 {
            self.spawn(Rc::clone(&self).announce_statuses());
            self.spawn(Rc::clone(&self).watch_memory());
            self.spawn(Rc::clone(&self).thin_out());
        }
        loop {
            self.state.borrow_mut().subscribers.deliver_announced();
            self.answer_adopters();
            self.write_slice();
            self.close_slow();
            if sockets_ready {
                sockets_ready = self.serve_sockets(&mut poll, &mut events);
            }
            self.serve_readable();
            self.accept_pending();
            let idle = {
                let state = self.state.borrow();
                !state.subscribers.has_work()
                    && state.readable.is_empty()
                    && !state.accepting.has_pending()
            };
            if !idle || sockets_ready {
                tokio::task::yield_now().await;
            }
            let stopping = &self.shared.stopping;
            tokio::select! {
                () = std::future::ready(()), if !idle || sockets_ready => {}
                () = self.shared.hub.announcer().news(self.number) => {}
                () = self.wake.notified() => {}
                ready = poll.readable_mut() => match ready {
                    Ok(_) => sockets_ready = true,
                    Err(error) => {
                        tracing::error!(%error, "the sockets of a shard cannot be watched any more");
                        return;
                    }
                },
                Some(command) = commands.recv() => self.obey(command),
                _ = tick.tick() => self.tick(),
                () = stopping.cancelled(), if drain.is_none() => drain = Some(self.start_drain()),
                () = Drain::due(drain.as_ref()), if drain.is_some() => {}
            }
            if let Some(drain) = &mut drain
                && self.drain(drain)
            {
                return;
            }
        }
    }

    /// Seconds since the shard started: the time of its wheel.
    pub(crate) fn now_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Runs `future` on this thread; the end of the process waits for it.
    #[expect(clippy::disallowed_methods, reason = "the tracker is what shutdown waits for")]
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.tasks.track_future(future));
    }

    /// Makes the loop take a turn: something was queued by a task.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Writes to the next subscribers that something waits for.
    fn write_slice(&self) {
        /// Writes between two looks at the clock.
        const LOOK: usize = 32;
        let state = &mut *self.state.borrow_mut();
        let began = Instant::now();
        for count in 1..=SLICE {
            let Some(key) = state.subscribers.next_dirty() else { return };
            let Some(subscriber) = state.subscribers.get(key) else { continue };
            let written = match &mut subscriber.connection {
                Connection::WebSocket(socket) => socket.write(
                    &mut subscriber.outbox,
                    &mut state.write_buffer,
                    self.shared.metrics(),
                ),
                Connection::Poll(poll) => {
                    poll.wake();
                    Written::Waits
                }
                Connection::BetweenPolls(_) => Written::Waits,
            };
            match written {
                Written::Waits => state.subscribers.release(key),
                Written::More => state.subscribers.write_on(key),
                Written::Ended => self.remove(state, key),
            }
            if count % LOOK == 0 && began.elapsed() >= SLICE_TIME {
                return;
            }
        }
    }

    /// Closes who reads too slowly (README D10).
    fn close_slow(&self) {
        let state = &mut *self.state.borrow_mut();
        while let Some(key) = state.subscribers.next_slow() {
            self.slow(state, key);
        }
    }

    /// Closes a connection that reads too slowly.
    pub(crate) fn slow(&self, state: &mut State, key: SubscriberKey) {
        if self.stop_gathering(state, key) {
            // Nobody is too slow: more came between two polls than may wait. The history serves its
            // client when it is back; until then it counts as online.
            return;
        }
        self.shared.metrics().increment(Metric::SlowSubscribers);
        tracing::warn!(conn = key.serial(), "slow subscriber closed");
        self.close(state, key, CloseReason::SlowSubscriber);
    }

    /// Gathers no more messages for the next poll of a client, and drops those that wait. `false`:
    /// the subscriber is something else.
    fn stop_gathering(&self, state: &mut State, key: SubscriberKey) -> bool {
        let Some(subscriber) = state.subscribers.get(key) else { return false };
        let Connection::BetweenPolls(position) = &mut subscriber.connection else { return false };
        if let Some(position) = position.take() {
            let place = Place::new(position, subscriber.receivers());
            self.shared.between_polls.remove(place, self.number, key);
        }
        if let Some(queue) = subscriber.outbox.queue() {
            while queue.pop().is_some() {}
        }
        state.subscribers.deafen(key);
        state.subscribers.release(key);
        true
    }

    /// Handles what happened at the sockets; `true` when there may be more.
    fn serve_sockets(self: &Rc<Self>, poll: &mut AsyncFd<mio::Poll>, events: &mut Events) -> bool {
        events.clear();
        let polled = poll.try_io_mut(tokio::io::Interest::READABLE, |poll| {
            poll.poll(events, Some(Duration::ZERO))?;
            // Fewer than asked for: the queue is empty now, so wait for the next edge.
            if events.iter().count() < EVENTS {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(())
            }
        });
        for event in events.iter() {
            let Token(token) = event.token();
            if Accepting::owns(token) {
                self.accept(token);
                continue;
            }
            let state = &mut *self.state.borrow_mut();
            let Some(key) = state.subscribers.key_at(token) else { continue };
            if event.is_writable() {
                state.subscribers.touch(key);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                state.readable.push(key);
            }
        }
        match polled {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) => {
                tracing::error!(%error, "the sockets of a shard cannot be read");
                false
            }
        }
    }

    /// Reads from WebSocket connections that have something, as long as others can wait.
    fn serve_readable(self: &Rc<Self>) {
        let until = Instant::now() + SLICE_TIME;
        let mut slice = self.state.borrow().readable.slice();
        loop {
            let is_late = || Instant::now() >= until;
            let next = self.state.borrow_mut().readable.next(&mut slice, is_late);
            let Some(key) = next else { return };
            self.read_websocket(key, until);
        }
    }

    /// Once a second: pings, deadlines, expiry.
    fn tick(self: &Rc<Self>) {
        let now_s = self.now_s();
        {
            let state = &mut *self.state.borrow_mut();
            state.subscribers.set_limits(self.shared.options().limits.outbox);
            state.subscribers.thin_out();
            let mut due = Vec::new();
            state.wheel.advance(now_s, |_, key| due.push(key));
            for key in due {
                self.deadline(state, key, now_s);
            }
        }
        self.tick_accepting();
        if self.number.index() == 0 {
            if self.shared.hub.is_full() {
                // What the engine keeps in memory can be done without first.
                self.shared.hub.engine().shed();
            }
            self.shared.hub.engine().sweep();
            self.shared.hub.presence().tick();
            if now_s.is_multiple_of(TELL_S) {
                self.tell_others();
            }
            if now_s.is_multiple_of(SAVE_S) {
                self.save_last_seen();
            }
        }
    }

    fn deadline(&self, state: &mut State, key: SubscriberKey, now_s: u64) {
        let Some(subscriber) = state.subscribers.get(key) else { return };
        match &mut subscriber.connection {
            Connection::WebSocket(socket) => {
                let unix_s = self.shared.hub.clock().unix_s();
                match socket.deadline(now_s, unix_s, &self.shared.options().timing) {
                    crate::transport::Deadline::Later(delay_s) => state.wheel.add(delay_s, key),
                    crate::transport::Deadline::Close(reason) => self.close(state, key, reason),
                    crate::transport::Deadline::Ping(frame, next_s) => {
                        state.wheel.add(next_s, key);
                        state.subscribers.send(key, frame);
                    }
                    crate::transport::Deadline::Dead => {
                        socket.reset();
                        self.remove(state, key);
                    }
                }
            }
            Connection::BetweenPolls(_) => {
                self.stop_gathering(state, key);
                state.subscribers.unsubscribe(key);
            }
            Connection::Poll(_) => {}
        }
    }

    /// Registers a connection for its channels, with whatever goes out first, and starts its replay.
    pub(crate) fn subscribe(
        self: &Rc<Self>,
        subscription: &Subscription,
        connection: Connection,
    ) -> SubscriberKey {
        let state = &mut *self.state.borrow_mut();
        let counted = subscription.counted();
        let (key, count) =
            state.subscribers.subscribe(&subscription.receivers, counted, connection);
        if let Some(subscriber) = state.subscribers.get(key) {
            let now_s = self.shared.hub.clock().unix_s();
            subscriber.came_s = u32::try_from(now_s).unwrap_or(u32::MAX);
        }
        if let Some(receiver) = counted
            && matches!(receiver, Receiver::User(_))
        {
            if count > self.shared.options().limits.connections_per_user {
                self.shared.metrics().increment(Metric::Evicted);
                self.refuse_later(state, key);
            }
        } else if let Some(receiver) = counted
            && count > self.shared.options().limits.connections_per_channel
        {
            let evictions = &self.shared.evictions;
            let is_chase =
                evictions.lock().unwrap_or_else(PoisonError::into_inner).is_chase(receiver);
            if is_chase {
                self.shared.metrics().increment(Metric::Evicted);
                self.refuse_later(state, key);
            } else {
                self.spawn(Rc::clone(self).evict_earliest(receiver));
            }
        }
        key
    }

    /// Closes the new connection instead of the oldest, after a pause that slows its tab down.
    pub(crate) fn refuse_later(self: &Rc<Self>, state: &mut State, key: SubscriberKey) {
        state.subscribers.uncount(key);
        state.subscribers.deafen(key);
        let shard = Rc::clone(self);
        self.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(REFUSAL_PAUSE) => {}
                () = shard.shared.stopping.cancelled() => {}
            }
            shard.close(&mut shard.state.borrow_mut(), key, CloseReason::TooManyConnections);
            shard.wake();
        });
    }

    /// Closes connections of channels that have too many over all nodes, until the process stops.
    async fn thin_out(self: Rc<Self>) {
        loop {
            let receiver = tokio::select! {
                receiver = self.shared.hub.too_many() => receiver,
                () = self.shared.stopping.cancelled() => return,
            };
            let evictions = &self.shared.evictions;
            let is_chase =
                evictions.lock().unwrap_or_else(PoisonError::into_inner).is_chase(receiver);
            let shard = Rc::clone(&self);
            self.spawn(async move {
                if is_chase {
                    // The tab that is back elsewhere is slowed down (README D12).
                    tokio::select! {
                        () = tokio::time::sleep(REFUSAL_PAUSE) => {}
                        () = shard.shared.stopping.cancelled() => return,
                    }
                }
                shard.evict_one(receiver).await;
            });
        }
    }

    /// Finds the oldest connection of a channel among all shards and closes it.
    ///
    /// Several newcomers may look at the same time and find the same one: who comes too late looks
    /// again, as long as there are too many.
    async fn evict_earliest(self: Rc<Self>, receiver: Receiver) {
        /// Each try in vain means that somebody else closed one.
        const TRIES: usize = 1000;
        let limit = self.shared.options().limits.connections_per_channel;
        for _ in 0..TRIES {
            if self.shared.hub.announcer().counted(receiver) <= limit {
                return;
            }
            if self.evict_one(receiver).await {
                return;
            }
        }
    }

    /// Closes the oldest connection of a channel; `false`: it was closed by somebody else meanwhile.
    async fn evict_one(&self, receiver: Receiver) -> bool {
        let Some((shard, key)) = self.earliest_counted(receiver).await else { return true };
        let (answer, answered) = oneshot::channel();
        // A shard that is gone has no connections left to close.
        let evict = self.shared.commands[shard].send(Command::Evict(key, answer)).await;
        let is_done = evict.is_err() || answered.await == Ok(true);
        if is_done {
            self.shared.metrics().increment(Metric::Evicted);
        }
        is_done
    }

    /// Finds the oldest connection of a channel, among all shards.
    async fn earliest_counted(&self, receiver: Receiver) -> Option<(usize, SubscriberKey)> {
        let mut earliest: Option<(usize, SubscriberKey)> = None;
        for (shard, commands) in self.shared.commands.iter().enumerate() {
            let (answer, answered) = oneshot::channel();
            if commands.send(Command::EarliestCounted(receiver, answer)).await.is_err() {
                continue;
            }
            if let Ok(Some(key)) = answered.await
                && earliest.is_none_or(|(_, known)| key.serial() < known.serial())
            {
                earliest = Some((shard, key));
            }
        }
        earliest
    }

    fn obey(self: &Rc<Self>, command: Command) {
        let state = &mut *self.state.borrow_mut();
        match command {
            Command::EarliestCounted(receiver, answer) => {
                // Nobody waits for the answer any more: nothing to do.
                let _ = answer.send(state.subscribers.earliest_counted(receiver));
            }
            Command::Evict(key, answer) => {
                let counted = state.subscribers.uncount(key);
                if counted {
                    self.close(state, key, CloseReason::TooManyConnections);
                }
                // Nobody waits for the answer any more: nothing to do.
                let _ = answer.send(counted);
            }
            Command::Adopt(place, adopter) => {
                // Whatever is being announced without regard to the asking shard is waited for: it
                // happens under the engine's lock.
                let _ = self.shared.hub.engine().last_id();
                state.adopters.push((place, adopter));
            }
            Command::Survey(answer) => {
                // Nobody waits for the answer any more: nothing to do.
                let _ = answer.send(self.survey(state));
            }
            Command::List(wanted, limit, answer) => {
                // As above.
                let _ = answer.send(self.list(state, wanted, limit));
            }
            Command::Disconnect(serial, answer) => {
                // As above.
                let _ = answer.send(self.disconnect(state, serial));
            }
            Command::Respond(answer) => {
                // Nobody waits for the answer any more: nothing to do.
                let _ = answer.send(());
            }
        }
    }

    /// Reads what a subscriber missed and opens the way for live messages. Done at once when the
    /// history is in memory; else a task reads it, while live messages wait.
    pub(crate) fn replay(self: &Rc<Self>, key: SubscriberKey, subscription: &Subscription) {
        let Cursor::After(position) = subscription.cursor else {
            self.state.borrow_mut().subscribers.replay(key, Vec::new(), MessageId::ZERO);
            self.wake();
            return;
        };
        self.read_history(key, subscription.receivers.clone(), position);
    }

    fn read_history(
        self: &Rc<Self>,
        key: SubscriberKey,
        receivers: Vec<Receiver>,
        mut position: MessageId,
    ) {
        // Bodies are half of what an outbox takes: each is written in a form of its own.
        let bytes = self.shared.options().limits.outbox.bytes / 2;
        let shard = Rc::clone(self);
        loop {
            match self.shared.hub.engine().history(&receivers, position, bytes) {
                Lookup::Ready(replay) => match self.replayed(key, position, Ok(replay)) {
                    Some(next) => position = next,
                    None => return self.wake(),
                },
                Lookup::Disk(read) => {
                    return self.spawn(async move {
                        let read = tokio::task::spawn_blocking(move || read.read()).await;
                        let replay = read.unwrap_or_else(|_| {
                            Err(vestnik_hub::EngineError::Store("the reader failed".into()))
                        });
                        shard.go_on(key, receivers, position, replay);
                    });
                }
                Lookup::Redis(read) => {
                    return self.spawn(async move {
                        let replay = read.read().await;
                        shard.go_on(key, receivers, position, replay);
                    });
                }
            }
        }
    }

    fn go_on(
        self: &Rc<Self>,
        key: SubscriberKey,
        receivers: Vec<Receiver>,
        position: MessageId,
        replay: Result<Replay, vestnik_hub::EngineError>,
    ) {
        match self.replayed(key, position, replay) {
            Some(next) => self.read_history(key, receivers, next),
            None => self.wake(),
        }
    }

    /// Hands over what a subscriber missed. Returns the position after which there is more to read at
    /// once, because it was given nothing yet.
    fn replayed(
        &self,
        key: SubscriberKey,
        position: MessageId,
        replay: Result<Replay, vestnik_hub::EngineError>,
    ) -> Option<MessageId> {
        let state = &mut *self.state.borrow_mut();
        match replay {
            Ok(replay) => {
                let metrics = self.shared.metrics();
                if replay.gap {
                    metrics.increment(Metric::RecoveryGaps);
                    tracing::debug!(conn = key.serial(), "position is no longer covered");
                }
                if replay.more && !has_form(state, key, &replay) {
                    // Closed now it would come back to the same messages for ever.
                    return replay.envelopes.last().map(|last| last.id);
                }
                metrics.add(Metric::Replayed, replay.envelopes.len() as u64);
                let seen = position.min(replay.last);
                if replay.more {
                    metrics.increment(Metric::PartialReplays);
                    state.subscribers.replay_part(key, replay.envelopes, seen);
                    self.close(state, key, CloseReason::MoreMissed);
                } else {
                    state.subscribers.replay(key, replay.envelopes, seen);
                }
            }
            Err(error) => {
                tracing::error!(%error, conn = key.serial(), "missed messages cannot be read");
                // Still replaying: what waits comes after messages it could not be given, and is
                // dropped with the close.
                self.close(state, key, CloseReason::HistoryUnreadable);
            }
        }
        None
    }

    /// Ends a connection in the way its transport and clients understand; what waits goes out first.
    pub(crate) fn close(&self, state: &mut State, key: SubscriberKey, reason: CloseReason) {
        let Some(subscriber) = state.subscribers.get(key) else { return };
        match &mut subscriber.connection {
            Connection::WebSocket(socket) => {
                let Some(frame) = socket.close(reason, self.now_s()) else { return };
                state.wheel.add(reason.patience_s(), key);
                state.subscribers.deafen(key);
                self.queue_close(state, key, reason, frame);
            }
            Connection::Poll(poll) => poll.end(reason),
            Connection::BetweenPolls(_) => {
                self.stop_gathering(state, key);
                state.subscribers.unsubscribe(key);
            }
        }
    }

    fn queue_close(
        &self,
        state: &mut State,
        key: SubscriberKey,
        reason: CloseReason,
        frame: Bytes,
    ) {
        if reason == CloseReason::SlowSubscriber
            && let Some(queue) = state.subscribers.get(key).and_then(|s| s.outbox.queue())
        {
            // What it did not read it will get again by its position; only the frame under way is
            // finished.
            queue.drop_messages();
        }
        state.subscribers.send(key, frame);
    }

    /// Takes a connection out at once.
    pub(crate) fn remove(&self, state: &mut State, key: SubscriberKey) {
        let Some(subscriber) = state.subscribers.unsubscribe(key) else { return };
        if let Connection::WebSocket(socket) = subscriber.connection {
            self.shared.metrics().subtract(Metric::ConnectionsWebSocket, 1);
            if let Some(address) = socket.admitted() {
                self.shared.admission.leave(address);
            }
            tracing::debug!(conn = key.serial(), reason = ?socket.end(), "connection closed");
        }
    }

    /// Stops accepting and ends polls; WebSocket connections follow, spread over time.
    fn start_drain(self: &Rc<Self>) -> Drain {
        /// As many slices as a full inbox may need.
        const SLICES: usize = 256;
        // What was published before the end reaches who is connected (README D10).
        for _ in 0..SLICES {
            self.state.borrow_mut().subscribers.deliver_announced();
            self.write_slice();
            self.close_slow();
            if !self.state.borrow().subscribers.has_work() {
                break;
            }
        }
        let state = &mut *self.state.borrow_mut();
        state.accepting.stop(&state.registry);
        let keys: Vec<_> = state.subscribers.keys().collect();
        let mut sockets = Vec::new();
        for key in keys {
            match state.subscribers.get(key).map(|subscriber| &mut subscriber.connection) {
                Some(Connection::WebSocket(_)) => sockets.push(key),
                Some(Connection::Poll(poll)) => poll.end(CloseReason::Stopping),
                Some(Connection::BetweenPolls(_)) | None => {
                    state.subscribers.unsubscribe(key);
                }
            }
        }
        self.tasks.close();
        // Every shard has its part of the connections, and closes them at the same time.
        let shards = u32::try_from(self.shared.commands.len()).unwrap_or(1);
        Drain::new(sockets, self.shared.options().timing.drain * shards)
    }

    /// One step of the end; `true` when everything is closed or time is up.
    fn drain(&self, drain: &mut Drain) -> bool {
        let state = &mut *self.state.borrow_mut();
        while let Some(key) = drain.next() {
            self.close(state, key, CloseReason::Stopping);
        }
        if drain.sockets.is_empty() {
            // Requests that were under way when it began may have become connections since. Not
            // before: their handshake is answered first.
            for key in state.subscribers.keys().collect::<Vec<_>>() {
                self.close(state, key, CloseReason::Stopping);
            }
        }
        let closed = drain.sockets.is_empty() && state.subscribers.is_empty();
        (closed && self.tasks.is_empty()) || drain.is_over()
    }
}

/// Whether one of the messages has a form in which a subscriber gets it. An answer to a poll says how far
/// it went, also when it has none.
fn has_form(state: &mut State, key: SubscriberKey, replay: &Replay) -> bool {
    match state.subscribers.get(key).map(|subscriber| &subscriber.connection) {
        Some(Connection::WebSocket(socket)) => {
            replay.envelopes.iter().any(|envelope| socket.has_form(envelope))
        }
        _ => true,
    }
}
