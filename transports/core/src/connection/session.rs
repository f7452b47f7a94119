//! One connection's life: queues, scheduler, credit, liveness and the end, shared by all transports.
//!
//! A transport makes a [`Session`] after its handshake and hello, then drives it: it writes what
//! [`Session::outbox`] gives, hands each lane's bytes to [`Session::receive_lane`], each control frame to
//! [`Session::on_control`], calls [`Session::heard`] when bytes arrive, and stops at [`Session::over`]. What the
//! application holds is a [`Connection`].

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Connection, Control,
    stats::{ClassStats, ConnectionStats, PathStats},
};
use crate::{
    CloseCode, Closed, ClosedBy,
    admission::Agreed,
    class::{
        Arrived, ClassId, ClassTable, Credit, Delivery, Growth, Inbound, Inbox, Lane, Order, Outbox, may_be_copied, message_stream_cost,
    },
    identity::Remote,
    limits::{self, Limits},
    sync::Mutex,
};

/// What a transport tells of a connection when it makes the session.
pub struct SessionInfo {
    /// The transport's name.
    pub transport: &'static str,
    /// This side dialed.
    pub dialed: bool,
    /// The other side.
    pub remote: Remote,
    /// Address of this side, for logs.
    pub local_addr: String,
    /// Address of the other side, for logs.
    pub remote_addr: String,
    /// Keying material that both sides of this very connection share and nobody else has (RFC 8446, section
    /// 7.5), for challenges; zero where the transport has none.
    pub exporter: [u8; 32],
    /// Asked for [`ConnectionStats::path`].
    pub path: Box<dyn Fn() -> PathStats + Send + Sync>,
}

/// The inside of a connection: see the module's text.
pub struct Session {
    /// Counted rather than an address: one that is never used again, and in the same order in every run of a simulation.
    number: usize,
    info: SessionInfo,
    remote: Mutex<Remote>,
    agreed: Agreed,
    table: ClassTable,
    limits: Limits,
    outbox: Outbox,
    inboxes: Vec<Inbox>,
    /// What the other side may send on each class's own lane and its message streams.
    credits: Vec<Credit>,
    /// What all lanes' windows may grow by.
    growth: Arc<Growth>,
    /// When the path was last looked at, by our clock, and its shortest round trip.
    round_trip: Mutex<(Option<u64>, Option<Duration>)>,
    started: Instant,
    over: CancellationToken,
    closed: OnceLock<Closed>,
    heard: AtomicBool,
    /// When a life sign was last asked for after one had come, by our clock plus 1; 0 for never.
    asked_us: AtomicU64,
    /// Something has come since.
    came: AtomicBool,
    expecting: AtomicUsize,
    ping_rtt_us: AtomicU64,
    /// Reliable messages taken in, and how many there are in all once the other side has finished.
    completed: AtomicU64,
    target: AtomicU64,
    remote_finishing: CancellationToken,
    drained: CancellationToken,
    progress: Notify,
    /// Slots of the other side's large messages in use, one bit each, by local class.
    slots: Mutex<Vec<u16>>,
    /// What each class's own lane has brought, and copies before it.
    arrived: Vec<Mutex<Arrived>>,
    copies_first: AtomicU64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("transport", &self.info.transport).field("remote", &self.info.remote_addr).finish_non_exhaustive()
    }
}

/// A message on a stream of its own that holds credit until it's taken up.
struct MessageArrived {
    remote: u8,
    class: ClassId,
    cost: usize,
}

impl MessageArrived {
    fn taken(self, session: &Session) {
        if let Some(total) = session.credits[self.class.index()].taken(self.cost, || session.round_trip()) {
            session.outbox.credit(Lane { class: self.remote, slot: 0 }, total);
        }
    }
}

/// How old a look at the path may be. Microseconds.
const LOOK_AT_PATH_US: u64 = 100_000;

/// No target yet.
const OPEN: u64 = u64::MAX;

impl Session {
    /// Makes a session from what the hello agreed, and starts its supervisor (liveness). Must be called in a
    /// tokio runtime.
    pub fn start(info: SessionInfo, agreed: Agreed, table: ClassTable, limits: Limits) -> (Arc<Self>, Connection) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let growth = Growth::new(limits.window_growth);
        let session = Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            remote: Mutex::new(info.remote.clone()),
            outbox: Outbox::new(agreed.sending.clone(), agreed.known.clone()),
            inboxes: table.iter().map(|(_, class)| Inbox::new(class.receive_budget)).collect(),
            credits: table.iter().map(|(_, class)| Credit::new(class.window, class.most(false), growth.clone())).collect(),
            growth,
            round_trip: Mutex::default(),
            slots: Mutex::new(vec![0; table.len()]),
            arrived: table.iter().map(|_| Mutex::default()).collect(),
            copies_first: AtomicU64::new(0),
            info,
            agreed,
            table,
            limits,
            started: Instant::now(),
            over: CancellationToken::new(),
            closed: OnceLock::new(),
            heard: AtomicBool::new(true),
            asked_us: AtomicU64::new(0),
            came: AtomicBool::new(true),
            expecting: AtomicUsize::new(0),
            ping_rtt_us: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            target: AtomicU64::new(OPEN),
            remote_finishing: CancellationToken::new(),
            drained: CancellationToken::new(),
            progress: Notify::new(),
        });
        tokio::spawn(supervise(session.clone()));
        (session.clone(), Connection::new(session))
    }

    /// What is to be sent.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What the transport told.
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// The local classes.
    pub fn table(&self) -> &ClassTable {
        &self.table
    }

    /// Cancelled when the connection has ended; then [`closed`](Self::closed) says why.
    pub fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Why it ended, once it has.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.get()
    }

    /// A lane of the other side is named by the other side's index: the local class for it, if both have it.
    pub fn local_class(&self, remote: Lane) -> Option<ClassId> {
        *self.agreed.from_remote.get(usize::from(remote.class))?
    }

    /// Bytes arrived: the other side lives.
    pub fn heard(&self) {
        // A load first: a flag is nearly always set already, and a shared cache line stays shared.
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
        if !self.came.load(Ordering::Relaxed) {
            self.came.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the connection. Only the first call counts.
    pub fn end(&self, closed: Closed) {
        if self.closed.set(closed.clone()).is_ok() {
            if closed.code != CloseCode::Done {
                tracing::debug!(transport = self.info.transport, remote = %self.info.remote_addr, %closed, "connection ended");
            }
            self.outbox.close(closed);
            self.over.cancel();
            self.inboxes.iter().for_each(Inbox::close);
        }
    }

    /// Ends the connection because the other side broke the rules.
    pub fn violation(&self, code: CloseCode, what: impl Into<Arc<str>>) -> Closed {
        let closed = Closed::local(code, what);
        self.end(closed.clone());
        closed
    }

    /// Closes the connection as soon as the lists don't admit this peer any more.
    pub fn guard(self: &Arc<Self>, lists: Arc<crate::admission::Lists>, peer: crate::identity::PeerId) {
        let session = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = session.over.cancelled() => {}
                refusal = lists.refused(&peer) => session.end(Closed::local(CloseCode::NotAdmitted, refusal.to_string())),
            }
        });
    }

    /// Does what a control frame of the other side asks. `Err`: it broke the rules, and the connection is over.
    pub fn on_control(&self, frame: Control) -> Result<(), Closed> {
        self.heard();
        let known = match frame {
            Control::Ping(nonce) => {
                self.outbox.pong(nonce);
                true
            }
            Control::Pong(nonce) => {
                // The nonce is our clock at the PING. One from the future is nobody's.
                let now = self.clock_us();
                if nonce <= now {
                    self.ping_rtt_us.store(now - nonce, Ordering::Relaxed);
                    self.progress.notify_waiters();
                }
                true
            }
            Control::Credit { lane, total } => self.outbox.on_credit(lane, total),
            Control::Release(lane) => self.outbox.on_release(lane),
            Control::Stop { lane, number, code } => self.outbox.on_stop(lane, number, code),
            Control::Finished { messages } => {
                let first = self.target.compare_exchange(OPEN, messages.min(OPEN - 1), Ordering::AcqRel, Ordering::Acquire).is_ok();
                self.remote_finishing.cancel();
                self.check_drained();
                first
            }
            Control::Drained => {
                self.drained.cancel();
                true
            }
            Control::Close { code, reason } => {
                self.end(Closed::remote(CloseCode::from_number(code), &reason));
                true
            }
            Control::Hello(_) | Control::Accept | Control::Join { .. } | Control::Moved(_) => false,
        };
        if known { Ok(()) } else { Err(self.violation(CloseCode::Protocol, "a control frame that doesn't fit the connection's state")) }
    }

    /// A datagram arrived: its class's index as the other side has it, and the message. Dropped, and counted, if
    /// the class's queue is full.
    pub fn on_datagram(&self, class: u8, message: &[u8]) -> Result<(), Closed> {
        self.heard();
        let class = self.local_class(Lane { class, slot: 0 }).filter(|class| self.table[*class].delivery == Delivery::Datagram);
        let Some(class) = class else {
            return Err(self.violation(CloseCode::Protocol, "a datagram of a class that isn't agreed or has none"));
        };
        if message.len() > self.table[class].max_message {
            return Err(self.violation(CloseCode::TooLarge, "a datagram larger than its class permits"));
        }
        let inbox = &self.inboxes[class.index()];
        match inbox.try_reserve(message.len()) {
            // A copy: the datagram's buffer is many times larger than a small message in it.
            Some(room) => room.deliver(Inbound::Whole(Bytes::copy_from_slice(message))),
            None => {
                inbox.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The local class of a message on a stream of its own, by the class's index as the other side has it.
    fn message_class(&self, class: u8, len: usize) -> Result<ClassId, Closed> {
        let local = self.local_class(Lane { class, slot: 0 });
        let fits = |class: &ClassId| {
            let class = &self.table[*class];
            class.order == Order::Any && class.delivery == Delivery::Reliable
        };
        let local = local.filter(fits).ok_or_else(|| self.violation(CloseCode::Protocol, "a message stream of a class that has none"))?;
        if len > limits::MESSAGE_STREAM.min(self.table[local].max_message) {
            return Err(self.violation(CloseCode::TooLarge, "a message stream with more than a small message"));
        }
        Ok(local)
    }

    /// A message that arrived on a stream of its own: its class's index as the other side has it, and all of it. Waits
    /// for room in the class's queue; what may wait is bounded by the credit of the class's own lane.
    ///
    /// # Errors
    /// The connection is over, by this message's fault or another's.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the message is lost.
    pub async fn on_message(&self, class: u8, message: Bytes) -> Result<(), Closed> {
        let arrived = self.message_arrived(class, message.len())?;
        let ended = || self.closed().cloned().unwrap_or_else(|| Closed::local(CloseCode::Done, ""));
        let room = self.inboxes[arrived.class.index()].reserve(message.len()).await.ok_or_else(ended)?;
        room.deliver(Inbound::Whole(message));
        self.message_completed();
        arrived.taken(self);
        Ok(())
    }

    /// A message of so many bytes arrived on a stream of its own, and a copy of it was delivered before: it costs the
    /// other side credit, and that's all.
    ///
    /// # Errors
    /// The connection is over by this message's fault.
    pub fn on_copied_message(&self, class: u8, len: usize) -> Result<(), Closed> {
        self.message_arrived(class, len)?.taken(self);
        Ok(())
    }

    fn message_arrived(&self, remote: u8, len: usize) -> Result<MessageArrived, Closed> {
        self.heard();
        let class = self.message_class(remote, len)?;
        let cost = message_stream_cost(len);
        match self.credits[class.index()].arrived(cost) {
            true => Ok(MessageArrived { remote, class, cost }),
            false => Err(self.violation(CloseCode::FlowControl, "more bytes on message streams than credit was given for")),
        }
    }

    /// A copy of such a message arrived before the message itself. `true`: it's delivered, and the message mustn't be
    /// any more; `false`: there's no room for it now.
    pub fn on_copy(&self, class: u8, message: &[u8]) -> Result<bool, Closed> {
        self.heard();
        let class = self.message_class(class, message.len())?;
        Ok(self.deliver_copy(class, message))
    }

    /// A copy of a message that a class's own lane brings, or has brought: its number there, and all of it. It's no life
    /// sign: the lanes may be dead where it came alive.
    pub(crate) fn on_lanes_copy(&self, class: u8, number: u64, message: &[u8]) -> Result<(), Closed> {
        let class = self.message_class(class, message.len())?;
        self.arrived[class.index()].lock().copy(number, || self.deliver_copy(class, message));
        Ok(())
    }

    fn deliver_copy(&self, class: ClassId, message: &[u8]) -> bool {
        let Some(room) = self.inboxes[class.index()].try_reserve(message.len()) else { return false };
        room.deliver(Inbound::Whole(Bytes::copy_from_slice(message)));
        self.copies_first.fetch_add(1, Ordering::Relaxed);
        self.message_completed();
        true
    }

    pub(crate) fn arrived(&self, class: ClassId) -> Option<&Mutex<Arrived>> {
        self.arrived.get(class.index())
    }

    /// Messages so far, both ways, in the classes that may be copied.
    pub fn copied_classes_messages(&self) -> u64 {
        let (sent, received) = (self.outbox.counters(), &self.inboxes);
        let classes = self.table.iter().filter(|(_, class)| may_be_copied(class)).map(|(class, _)| class.index());
        classes.map(|class| sent[class].messages() + received[class].messages.load(Ordering::Relaxed)).sum()
    }

    /// The shortest that the path has had, if the transport tells. Looked at ten times a second at most.
    pub fn round_trip(&self) -> Option<Duration> {
        let now = self.clock_us();
        let mut known = self.round_trip.lock();
        // Kernel and library are asked seldom: windows are looked at thousands of times a second.
        if known.0.is_none_or(|at| now.saturating_sub(at) >= LOOK_AT_PATH_US) {
            *known = (Some(now), (self.info.path)().min_rtt);
        }
        known.1
    }

    /// The credit of a large message's lane.
    pub(crate) fn large_credit(&self, class: ClassId) -> Credit {
        let class = &self.table[class];
        Credit::new(class.large_window, class.most(true), self.growth.clone())
    }

    pub(crate) fn credit(&self, class: ClassId) -> &Credit {
        &self.credits[class.index()]
    }

    pub(crate) fn inbox(&self, class: ClassId) -> Option<&Inbox> {
        self.inboxes.get(class.index())
    }

    pub(crate) fn agreed(&self, class: ClassId) -> bool {
        self.agreed.known.get(class.index()).copied().unwrap_or(false)
    }

    /// Takes a slot of the other side into use; a second use before the release breaks the rules.
    pub(crate) fn occupy(&self, class: ClassId, slot: u8) -> bool {
        let mut slots = self.slots.lock();
        let permitted = slot <= self.table[class].large_lanes && slots[class.index()] & (1 << slot) == 0;
        if permitted {
            slots[class.index()] |= 1 << slot;
        }
        permitted
    }

    pub(crate) fn vacate(&self, class: ClassId, slot: u8) {
        self.slots.lock()[class.index()] &= !(1 << slot);
    }

    pub(crate) fn message_completed(&self) {
        self.completed.fetch_add(1, Ordering::AcqRel);
        self.check_drained();
    }

    fn check_drained(&self) {
        if self.completed.load(Ordering::Acquire) >= self.target.load(Ordering::Acquire) {
            self.outbox.drained();
            self.progress.notify_waiters();
        }
    }

    fn clock_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    // ----- for the handle

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote.lock().clone()
    }

    pub(crate) fn set_remote(&self, remote: Remote) {
        *self.remote.lock() = remote;
    }

    pub(crate) fn remote_finishing(&self) -> &CancellationToken {
        &self.remote_finishing
    }

    pub(crate) fn expect(&self, more: bool) {
        if more {
            self.expecting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.expecting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Finishes both directions: what is queued on either side is taken in by the other.
    pub(crate) async fn drain(&self) -> Result<(), Closed> {
        self.outbox.finish();
        let both = async {
            self.drained.cancelled().await;
            self.remote_finishing.cancelled().await;
            loop {
                let progress = self.progress.notified();
                if self.completed.load(Ordering::Acquire) >= self.target.load(Ordering::Acquire) {
                    return;
                }
                progress.await;
            }
        };
        tokio::select! {
            biased;
            () = self.over.cancelled() => {}
            _ = tokio::time::timeout(self.limits.drain_timeout, both) => {}
        }
        let delivered = self.drained.is_cancelled();
        // The other side may take Done for "all that you sent me has arrived": not unless it's so.
        self.end(match delivered {
            true => Closed::local(CloseCode::Done, ""),
            false => Closed::local(CloseCode::Shutdown, "not all was taken in within the drain timeout"),
        });
        match self.closed() {
            Some(closed) if !delivered => Err(closed.clone()),
            _ => Ok(()),
        }
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let depths = self.outbox.depths();
        let class = |((counters, inbox), depth): ((&super::SendCounters, &Inbox), usize)| ClassStats {
            queued_bytes: depth as u64,
            received_messages: inbox.messages.load(Ordering::Relaxed),
            received_bytes: inbox.bytes.load(Ordering::Relaxed),
            dropped: inbox.dropped.load(Ordering::Relaxed),
            receive_time: inbox.waited().0,
            receive_time_max: inbox.waited().1,
            ..counters.snapshot()
        };
        let rtt = self.ping_rtt_us.load(Ordering::Relaxed);
        ConnectionStats {
            classes: self.outbox.counters().iter().zip(&self.inboxes).zip(depths).map(class).collect(),
            path: (self.info.path)(),
            copies_sent: self.outbox.copies_sent(),
            copies_first: self.copies_first.load(Ordering::Relaxed),
            ping_rtt: (rtt > 0).then(|| Duration::from_micros(rtt)),
        }
    }

    fn ask(&self) {
        let now = self.clock_us();
        self.outbox.ping(now);
        // One asked twice in vain counts from the first time.
        if self.came.swap(false, Ordering::Relaxed) {
            self.asked_us.store(now.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// How long a life sign has been asked for in vain.
    pub(crate) fn unanswered(&self) -> Option<Duration> {
        let asked = self.asked_us.load(Ordering::Relaxed).checked_sub(1)?;
        let silent = !self.came.load(Ordering::Relaxed);
        silent.then(|| Duration::from_micros(self.clock_us().saturating_sub(asked)))
    }

    /// Asks for a life sign and waits for the next one.
    pub(crate) async fn ping(&self) -> Result<Duration, Closed> {
        let answered = self.progress.notified();
        let asked = Instant::now();
        self.ask();
        tokio::select! {
            biased;
            () = answered => Ok(asked.elapsed()),
            () = self.over.cancelled() => Err(self.closed().cloned().unwrap_or_else(|| Closed::local(CloseCode::Done, ""))),
        }
    }
}

/// Liveness: asks for a life sign after a silence, and ends a connection that stays silent. It's answered by the
/// other side's connection, never behind a handler.
async fn supervise(session: Arc<Session>) {
    let limits = &session.limits;
    let idle = limits.idle_timeout.min(session.agreed.idle_timeout);
    let mut last = Instant::now();
    let mut ticks = tokio::time::interval_at(Instant::now() + limits.ping_interval, limits.ping_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = session.over.cancelled() => return,
            now = ticks.tick() => {
                if session.heard.swap(false, Ordering::Relaxed) {
                    last = now;
                    session.outbox.heard();
                    continue;
                }
                let silent = now.saturating_duration_since(last);
                let busy = session.expecting.load(Ordering::Relaxed) > 0 || session.outbox.spoke();
                if silent >= idle {
                    session.end(Closed { by: ClosedBy::Transport, code: CloseCode::TimedOut, reason: format!("silent for {silent:?}").into() });
                } else if silent >= if busy { limits.ping_interval } else { limits.quiet_ping_interval.min(idle / 3) } {
                    session.ask();
                }
            }
        }
    }
}
