//! The sending half of a connection: bounded queues that many senders fill, and one driver that empties them in
//! the scheduler's order.
//!
//! Senders pay for a message from their class's byte budget before it's queued, so a flood in one class waits
//! for its own room and takes nobody else's. The transport's driver asks [`Outbox::next`] for the next piece;
//! it never sees a class it didn't ask the scheduler for.

mod control;
mod copying;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit, TryAcquireError},
    time::Instant,
};

use self::control::ControlOut;
use super::{
    copies::Copies,
    queue::{ClassQueue, End, Opened, Taken, cost},
    record::Lane,
    scheduler::Scheduler,
    table::{ClassId, ClassTable, Delivery, Order, TrafficClass, Urgency},
};
use crate::{Closed, SendError, TrySend, connection::SendCounters, limits, sync::Mutex};

/// What the driver writes next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outgoing {
    /// Control frames, encoded: they go before everything else.
    Control(Bytes),
    /// Bytes of a lane.
    Segment(Segment),
    /// A message that goes as a datagram: no retransmission.
    Datagram {
        /// Its class, by the local index.
        class: ClassId,
        /// The message.
        message: Bytes,
    },
    /// A small message that goes on a stream of its own.
    Message {
        /// Its class, by the local index.
        class: ClassId,
        /// The message.
        message: Bytes,
    },
}

/// The next bytes of a lane.
#[derive(Debug)]
pub struct Segment {
    /// Which lane, by the local class index.
    pub lane: Lane,
    /// The bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Their number.
    pub bytes: usize,
    /// The lane ends after them (slots above 0).
    pub fin: bool,
}

/// What a transport can do with datagrams now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DatagramState {
    /// No datagrams on this transport: `Datagram` classes are reliable.
    #[default]
    None,
    /// A message of up to so many bytes may go now.
    Ready(usize),
    /// A message of up to so many bytes will go later.
    Busy(usize),
}

/// What a transport can do now beside taking lanes' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Messages of `Datagram` classes.
    pub datagrams: DatagramState,
    /// A stream of its own for the next message of an urgent `Any` class, if it has at most so many bytes; 0 for none.
    pub message_stream: usize,
}

impl From<DatagramState> for Offer {
    fn from(datagrams: DatagramState) -> Self {
        Self { datagrams, message_stream: 0 }
    }
}

struct State {
    classes: Vec<ClassQueue>,
    scheduler: Scheduler,
    control: ControlOut,
    /// While there's a byte stream for them.
    copies: Option<Copies>,
    /// Reliable messages that have begun to leave.
    started: u64,
    /// No new messages; FINISHED says how many there are.
    finishing: bool,
    finished: bool,
    closed: Option<Closed>,
}

struct Gate {
    /// The class's send budget in bytes.
    budget: Semaphore,
    /// Senders that wait for it.
    waiting: AtomicUsize,
    /// Budget that is free and not given back yet, while somebody waits: to wake a sender for each message that leaves
    /// costs more than the message. Bytes, less than an eighth of the budget.
    held_back: AtomicUsize,
    /// What one message of a key has of the budget before it's there. Bytes, a largest message's at most.
    owed: AtomicUsize,
    /// Streamed messages that may be open.
    streamed: Arc<Semaphore>,
    size: usize,
}

impl Gate {
    /// Takes room for a message, in turn with the others who wait for some.
    async fn pay(&self, cost: usize, counters: &SendCounters) -> Result<SemaphorePermit<'_>, AcquireError> {
        match self.budget.try_acquire_many(cost as u32) {
            Err(TryAcquireError::NoPermits) => {}
            Ok(paid) => return Ok(paid),
            Err(TryAcquireError::Closed) => return self.budget.acquire().await,
        }
        let _waiting = Waiting::new(self, counters);
        self.budget.acquire_many(cost as u32).await
    }

    /// Gives room back. `more`: the class can send on without its senders, so that it's no loss if they sleep for a while.
    fn give_back(&self, bytes: usize, more: bool) {
        let free = self.held_back.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if !more || free >= self.size / 8 || self.waiting.load(Ordering::SeqCst) == 0 {
            self.release();
        }
    }

    fn release(&self) {
        let free = self.held_back.swap(0, Ordering::SeqCst);
        let owed = self.owed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |owed| Some(owed.saturating_sub(free))).unwrap_or(0);
        self.budget.add_permits(free.saturating_sub(owed));
    }

    /// Takes room without waiting for a message of which only the latest counts. It can't wait in turn, as it must be able
    /// to be replaced, and senders who do wait take all that comes free: so one at a time has room before it's there.
    fn pay_at_once(&self, cost: usize) -> bool {
        match self.budget.try_acquire_many(cost as u32) {
            Ok(paid) => paid.forget(),
            Err(_) => return self.owed.compare_exchange(0, cost, Ordering::SeqCst, Ordering::SeqCst).is_ok(),
        }
        true
    }
}

/// A sender that waits for room.
struct Waiting<'a> {
    gate: &'a Gate,
    counters: &'a SendCounters,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate, counters: &'a SendCounters) -> Self {
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        // What was held back for others counts for this one too.
        gate.release();
        Self { gate, counters, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counters.blocked(self.since.elapsed());
        // Nobody is left for whom it could be held back.
        if self.gate.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.release();
        }
    }
}

/// See the module's text.
pub struct Outbox {
    table: ClassTable,
    /// Classes that the other side has too.
    agreed: Vec<bool>,
    gates: Vec<Gate>,
    state: Mutex<State>,
    wake: AtomicWaker,
    counters: Vec<SendCounters>,
    /// Messages have left since this was last cleared.
    spoke: AtomicBool,
    /// Copies that have left.
    copied: AtomicU64,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// `table`: the effective classes (windows and lanes are the receiver's); `agreed[i]`: the other side has class `i`.
    pub(crate) fn new(table: ClassTable, agreed: Vec<bool>) -> Self {
        let gate = |class: &TrafficClass| Gate {
            budget: Semaphore::new(class.send_budget),
            waiting: AtomicUsize::new(0),
            held_back: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            streamed: Arc::new(Semaphore::new(limits::MAX_OPEN_STREAMED)),
            size: class.send_budget,
        };
        let state = State {
            classes: table.iter().map(|(_, class)| ClassQueue::new(class)).collect(),
            scheduler: Scheduler::new(&table),
            control: ControlOut::default(),
            copies: None,
            started: 0,
            finishing: false,
            finished: false,
            closed: None,
        };
        Self {
            gates: table.iter().map(|(_, class)| gate(class)).collect(),
            counters: table.iter().map(|_| SendCounters::default()).collect(),
            state: Mutex::new(state),
            wake: AtomicWaker::new(),
            spoke: AtomicBool::new(false),
            copied: AtomicU64::new(0),
            agreed,
            table,
        }
    }

    fn check(&self, class: ClassId, size: usize) -> Result<&Gate, SendError> {
        let (Some(gate), Some(true)) = (self.gates.get(class.index()), self.agreed.get(class.index())) else {
            return Err(SendError::NoSuchClass(class));
        };
        let limit = self.table[class].max_message;
        if size > limit {
            return Err(SendError::TooLarge { class, size, limit });
        }
        Ok(gate)
    }

    /// Waits for room and queues a whole message.
    pub(crate) async fn send(&self, class: ClassId, message: Bytes) -> Result<(), SendError> {
        let gate = self.check(class, message.len())?;
        let Ok(paid) = gate.pay(cost(message.len()), &self.counters[class.index()]).await else { return Err(self.closed_error()) };
        self.push(class, message, None)?;
        paid.forget();
        Ok(())
    }

    /// Queues a whole message if there's room.
    pub(crate) fn try_send(&self, class: ClassId, message: Bytes) -> TrySend {
        let gate = match self.check(class, message.len()) {
            Ok(gate) => gate,
            Err(SendError::TooLarge { limit, .. }) => return TrySend::TooLarge { limit },
            Err(error) => return TrySend::Closed(error),
        };
        match gate.budget.try_acquire_many(cost(message.len()) as u32) {
            Ok(paid) => match self.push(class, message, None) {
                Ok(()) => {
                    paid.forget();
                    TrySend::Queued
                }
                Err(error) => TrySend::Closed(error),
            },
            Err(TryAcquireError::NoPermits) => TrySend::Full { class, bytes: gate.size - gate.budget.available_permits() },
            Err(TryAcquireError::Closed) => TrySend::Closed(self.closed_error()),
        }
    }

    /// Queues a message in place of a queued one of the same key, which is handed back.
    pub(crate) fn send_latest(&self, class: ClassId, key: u64, message: Bytes) -> Result<Result<Option<Bytes>, TrySend>, SendError> {
        let gate = self.check(class, message.len())?;
        let need = cost(message.len());
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(error) = refusal(state) {
            return Err(error);
        }
        let Some(queue) = state.classes.get_mut(class.index()) else { return Err(SendError::NoSuchClass(class)) };
        let have = queue.keyed_len(key).map_or(0, cost);
        if need <= have {
            gate.give_back(have - need, false);
        } else if !gate.pay_at_once(need - have) {
            return Ok(Err(TrySend::Full { class, bytes: gate.size - gate.budget.available_permits() }));
        }
        let old = queue.supersede(key);
        queue.push(message, Some(key), Instant::now());
        state.scheduler.set_waiting(class, true);
        if old.is_some() {
            self.counters[class.index()].superseded.fetch_add(1, Ordering::Relaxed);
        }
        self.wake.wake();
        Ok(Ok(old))
    }

    fn push(&self, class: ClassId, message: Bytes, key: Option<u64>) -> Result<(), SendError> {
        let mut state = self.state.lock();
        if let Some(error) = refusal(&state) {
            return Err(error);
        }
        if let Some(queue) = state.classes.get_mut(class.index()) {
            queue.push(message, key, Instant::now());
            state.scheduler.set_waiting(class, true);
        }
        drop(state);
        self.wake.wake();
        Ok(())
    }

    /// Waits until one more streamed message may be open in the class, and opens it.
    pub(crate) async fn open(&self, class: ClassId) -> Result<OpenStream, SendError> {
        let gate = self.check(class, 0)?;
        let Ok(permit) = gate.streamed.clone().acquire_owned().await else { return Err(self.closed_error()) };
        let mut state = self.state.lock();
        if let Some(error) = refusal(&state) {
            return Err(error);
        }
        let Some(queue) = state.classes.get_mut(class.index()) else { return Err(SendError::NoSuchClass(class)) };
        let opened = queue.open(Instant::now());
        state.scheduler.set_waiting(class, true);
        drop(state);
        self.wake.wake();
        Ok(OpenStream { class, opened, _permit: permit })
    }

    /// Adds as much of `data` to a streamed message as one quantum holds, when there's room.
    pub(crate) async fn append(&self, stream: &OpenStream, data: &mut Bytes) -> Result<(), SendError> {
        let len = data.len().min(limits::QUANTUM);
        if len == 0 {
            return Ok(());
        }
        let room = stream.opened.room.acquire_many(len as u32).await;
        let mut state = self.state.lock();
        stream.check(&state)?;
        let (Some(queue), Ok(room)) = (state.classes.get_mut(stream.class.index()), room) else { return Err(SendError::Stopped(0)) };
        queue.append(stream.opened.number, data.split_to(len));
        room.forget();
        state.scheduler.set_waiting(stream.class, true);
        drop(state);
        self.wake.wake();
        Ok(())
    }

    /// Ends a streamed message.
    pub(crate) fn end(&self, stream: &OpenStream, end: End) -> Result<(), SendError> {
        let mut state = self.state.lock();
        stream.check(&state)?;
        if let Some(queue) = state.classes.get_mut(stream.class.index()) {
            queue.end(stream.opened.number, end);
        }
        state.scheduler.set_waiting(stream.class, true);
        drop(state);
        self.wake.wake();
        Ok(())
    }

    fn closed_error(&self) -> SendError {
        refusal(&self.state.lock()).unwrap_or_else(|| Closed::local(crate::CloseCode::Done, "").into())
    }

    // ----- the driver's side

    /// Registers who is to be woken when there may be something to send.
    pub fn register(&self, waker: &Waker) {
        self.wake.register(waker);
    }

    /// Wakes the driver: something outside changed (the congestion window, say).
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Waits for the next piece: see [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is taken unless the call completes. One driver at a time.
    pub async fn ready(&self, max: usize, offer: impl Into<Offer>) -> Outgoing {
        self.ready_on(0, max, offer.into()).await
    }

    /// The same for one carrier. All carriers of a connection are driven by one task: one of them is woken for all.
    pub(crate) async fn ready_on(&self, carrier: u8, max: usize, offer: Offer) -> Outgoing {
        std::future::poll_fn(|cx| {
            if let Some(next) = self.next_on(carrier, max, offer) {
                return Poll::Ready(next);
            }
            self.wake.register(cx.waker());
            // Asked again: something may have come between the answer and the registration.
            self.next_on(carrier, max, offer).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next piece in the scheduler's order, at most `max` bytes of a lane; `None` if nothing may go now
    /// (register, then ask once more before sleeping).
    pub fn next(&self, max: usize, offer: impl Into<Offer>) -> Option<Outgoing> {
        self.next_on(0, max, offer.into())
    }

    /// The same for one carrier: each class goes where it was put by [`carry`](Self::carry), and so does what is said of the
    /// other side's lanes; all other control frames go on carrier 0.
    fn next_on(&self, carrier: u8, max: usize, offer: Offer) -> Option<Outgoing> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if carrier == 0 {
            self.finish_if_counted(state);
        }
        if let Some(control) = state.control.encode(carrier) {
            return Some(Outgoing::Control(control));
        }
        if state.closed.is_some() {
            return None;
        }
        loop {
            let classes = &mut state.classes;
            let apart = |class: ClassId, queue: &mut ClassQueue| Apart::of(&self.table[class], offer, queue);
            let mut blocked = 0u16;
            let scheduler = &state.scheduler;
            let picked = scheduler.pick(|class| {
                if scheduler.group(class) != carrier {
                    return false;
                }
                let queue = &mut classes[class.index()];
                let open = match apart(class, queue) {
                    Some(Apart::Later) => false,
                    Some(_) => true,
                    None => queue.ready_lane().is_some(),
                };
                if !open {
                    blocked |= 1 << class.0;
                }
                open
            });
            if blocked != 0 {
                state.scheduler.skip_blocked(carrier, |class| blocked & (1 << class.0) != 0);
            }
            let class = picked?;
            let now = Instant::now();
            let queue = &mut state.classes[class.index()];
            if let Some(apart) = apart(class, queue) {
                let Some((message, taken)) = queue.take_small(now) else { continue };
                let waiting = queue.waiting();
                state.scheduler.charge(class, message.len());
                state.scheduler.set_waiting(class, waiting);
                let more = queue.ready_lane().is_some();
                self.account(class, &taken, more);
                if apart == Apart::Datagram {
                    return Some(Outgoing::Datagram { class, message });
                }
                state.classes[class.index()].leaves_alone(message.len());
                state.started += 1;
                self.spoke.store(true, Ordering::Relaxed);
                return Some(Outgoing::Message { class, message });
            }
            let Some(slot) = queue.ready_lane() else { continue };
            let mut taken = queue.take(slot, max, now);
            let waiting = queue.waiting();
            self.copy(&mut state.copies, class, &mut taken, now);
            state.started += taken.messages;
            state.scheduler.charge(class, taken.bytes);
            state.scheduler.set_waiting(class, waiting);
            let more = queue.ready_lane().is_some();
            self.account(class, &taken, more);
            if taken.bytes == 0 && !taken.fin {
                continue;
            }
            self.spoke.store(true, Ordering::Relaxed);
            let lane = Lane { class: class.0, slot };
            return Some(Outgoing::Segment(Segment { lane, chunks: taken.chunks, bytes: taken.bytes, fin: taken.fin }));
        }
    }

    fn account(&self, class: ClassId, taken: &Taken, more: bool) {
        self.gates[class.index()].give_back(taken.released, more);
        self.counters[class.index()].taken(taken.messages, taken.bytes as u64, taken.waited_sum, taken.waited_max);
    }

    /// Gives back the part of a segment that the transport couldn't take; its class isn't charged for it. `blocked`: it's
    /// this lane alone that the transport can't serve; it isn't offered again until [`unblock`](Self::unblock).
    pub fn give_back(&self, segment: Segment, blocked: bool) {
        let mut state = self.state.lock();
        let class = ClassId(segment.lane.class);
        if let Some(queue) = state.classes.get_mut(class.index()) {
            queue.give_back(segment.lane.slot, segment.chunks, segment.fin);
            if blocked {
                queue.block(segment.lane.slot);
            }
            state.scheduler.refund(class, segment.bytes);
            state.scheduler.set_waiting(class, true);
        }
    }

    /// The transport may take more again, on any lane.
    pub fn unblock(&self) {
        self.state.lock().classes.iter_mut().for_each(ClassQueue::unblock);
    }

    /// From now on these classes, and what is to be said of these classes of the other side, go on another carrier than the
    /// first; MOVED, behind all that has left on that, says so.
    pub(crate) fn carry(&self, carrier: u8, classes: impl Fn(ClassId) -> bool, remote: impl Fn(u8) -> bool) {
        let mut state = self.state.lock();
        for (class, _) in self.table.iter().filter(|(class, _)| classes(*class)) {
            state.scheduler.set_group(class, carrier);
        }
        for (_, place) in (0..).zip(&mut state.control.carriers).filter(|(class, _)| remote(*class)) {
            *place = carrier;
        }
        state.control.moved.push(carrier);
        drop(state);
        self.wake.wake();
    }

    /// Says how many messages there are in all, as soon as that's known: the other side can make room for them, however
    /// slow its handlers are. What may still leave as a datagram isn't counted, so that is waited for.
    fn finish_if_counted(&self, state: &mut State) {
        if !state.finishing || state.finished {
            return;
        }
        let mut queued = 0;
        for (queue, (_, class)) in state.classes.iter_mut().zip(self.table.iter()) {
            match class.delivery {
                Delivery::Reliable => queued += queue.queued(),
                Delivery::Datagram if queue.is_empty() => {}
                Delivery::Datagram => return,
            }
        }
        state.finished = true;
        state.control.finished = Some(state.started + queued);
    }

    // ----- what the other side's control frames do

    /// More credit for a lane of ours. `false`: there's no such lane.
    pub(crate) fn on_credit(&self, lane: Lane, total: u64) -> bool {
        let known = self.state.lock().classes.get_mut(usize::from(lane.class)).is_some_and(|queue| queue.credit(lane.slot, total));
        self.wake.wake();
        known
    }

    /// A large message of ours is taken. `false`: its slot wasn't waiting for that.
    pub(crate) fn on_release(&self, lane: Lane) -> bool {
        let mut state = self.state.lock();
        let Some(queue) = state.classes.get_mut(usize::from(lane.class)) else { return false };
        let known = queue.release(lane.slot);
        let waiting = queue.waiting();
        state.scheduler.set_waiting(ClassId(lane.class), waiting);
        drop(state);
        self.wake.wake();
        known
    }

    /// A streamed message of ours isn't wanted. One that has ended meanwhile is nobody's concern.
    pub(crate) fn on_stop(&self, lane: Lane, number: u64, code: u32) -> bool {
        let mut state = self.state.lock();
        let class = ClassId(lane.class);
        let Some(queue) = state.classes.get_mut(class.index()) else { return false };
        queue.stop(number, code);
        state.scheduler.set_waiting(class, true);
        drop(state);
        self.wake.wake();
        true
    }

    // ----- control frames of our own

    pub(crate) fn ping(&self, nonce: u64) {
        self.state.lock().control.ping = Some(nonce);
        self.wake.wake();
    }

    pub(crate) fn pong(&self, nonce: u64) {
        self.state.lock().control.pong = Some(nonce);
        self.wake.wake();
    }

    pub(crate) fn credit(&self, lane: Lane, total: u64) {
        let mut state = self.state.lock();
        let out = state.control.lanes_out(lane);
        match out.credits.iter_mut().find(|(l, _)| *l == lane) {
            Some((_, t)) => *t = total,
            None => out.credits.push((lane, total)),
        }
        drop(state);
        self.wake.wake();
    }

    pub(crate) fn release(&self, lane: Lane) {
        let mut state = self.state.lock();
        // Credit for a use of the lane that is over would be taken for the next one's.
        let out = state.control.lanes_out(lane);
        out.credits.retain(|(l, _)| *l != lane);
        out.releases.push(lane);
        drop(state);
        self.wake.wake();
    }

    pub(crate) fn stop(&self, lane: Lane, number: u64, code: u32) {
        let mut state = self.state.lock();
        let stops = &mut state.control.lanes_out(lane).stops;
        if !stops.iter().any(|(l, n, _)| (*l, *n) == (lane, number)) {
            // A sender that starts messages faster than it reads our STOPs loses the oldest: it's told by the next.
            if stops.len() >= limits::MAX_CLASSES * 16 {
                stops.remove(0);
            }
            stops.push((lane, number, code));
        }
        drop(state);
        self.wake.wake();
    }

    pub(crate) fn drained(&self) {
        self.state.lock().control.drained = true;
        self.wake.wake();
    }

    /// No new messages; FINISHED says how many there are.
    pub(crate) fn finish(&self) {
        self.state.lock().finishing = true;
        self.wake.wake();
    }

    /// The end: senders get `closed`, queued messages are dropped.
    pub(crate) fn close(&self, closed: Closed) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(closed);
            state.copies = None;
            for gate in &self.gates {
                gate.budget.close();
                gate.streamed.close();
            }
            // Dropping the queues closes the streamed messages' rooms and frees what was queued.
            for (queue, (_, class)) in state.classes.iter_mut().zip(self.table.iter()) {
                queue.close_rooms();
                *queue = ClassQueue::new(class);
            }
        }
        drop(state);
        self.wake.wake();
    }

    /// Whether messages have left since the last [`heard`](Self::heard).
    pub(crate) fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    /// The other side gave a life sign.
    pub(crate) fn heard(&self) {
        self.spoke.store(false, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> &[SendCounters] {
        &self.counters
    }

    /// Bytes waiting, by class.
    pub(crate) fn depths(&self) -> Vec<usize> {
        self.state.lock().classes.iter().map(ClassQueue::depth).collect()
    }
}

fn refusal(state: &State) -> Option<SendError> {
    match &state.closed {
        Some(closed) => Some(closed.clone().into()),
        None if state.finishing => Some(Closed::local(crate::CloseCode::Done, "this side is closing the connection").into()),
        None => None,
    }
}

/// How the next message of a class leaves, if not on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    Datagram,
    /// As a datagram, when there's room for one.
    Later,
    Stream,
}

impl Apart {
    fn of(class: &TrafficClass, offer: Offer, queue: &mut ClassQueue) -> Option<Self> {
        if class.delivery == Delivery::Datagram {
            let (limit, how) = match offer.datagrams {
                DatagramState::None => return None,
                DatagramState::Ready(limit) => (limit, Self::Datagram),
                DatagramState::Busy(limit) => (limit, Self::Later),
            };
            return queue.next_small().is_some_and(|len| len <= limit).then_some(how);
        }
        let may = offer.message_stream > 0 && class.urgency == Urgency::Latency && class.order == Order::Any;
        let len = queue.next_small().filter(|len| may && *len <= offer.message_stream)?;
        queue.may_leave_alone(len).then_some(Self::Stream)
    }
}

/// An open streamed message of ours.
#[derive(Debug)]
pub(crate) struct OpenStream {
    class: ClassId,
    opened: Opened,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl OpenStream {
    fn check(&self, state: &State) -> Result<(), SendError> {
        match (&state.closed, self.opened.stopped.get()) {
            (Some(closed), _) => Err(closed.clone().into()),
            (None, Some(code)) => Err(SendError::Stopped(*code)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
