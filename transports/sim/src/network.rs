//! The simulated network: what is on the way, in order of its time, and the one task that lets it happen.
//!
//! All that happens stands in one map, by time and then by number, so two things at the same time happen in the order
//! in which they were caused. The task sleeps until the next one's time; on tokio's paused clock that's at once,
//! as soon as no other task has anything to do.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use peerlane_transport::{ClassTable, PathStats, identity::PeerId};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use crate::{
    connection::SimStream,
    link::{Fate, Link, Pace, Path, resend_delay},
    receiver::Receiver,
    trace::Trace,
    transport::Arrival,
    wire::{Channel, End, EndId, Event, Parcel, Wire},
};

/// Times that the last words of a connection are sent again before they're given up.
const LAST_WORDS_TRIES: u32 = 8;
/// Connections that a listener hasn't accepted yet. One more is hung up on. Count.
const BACKLOG: usize = 128;
/// Ports for who doesn't ask for one (RFC 6335, section 6).
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Where somebody listens, or did.
struct Listening {
    peer: PeerId,
    classes: ClassTable,
    arrivals: Option<mpsc::Sender<Arrival>>,
}

/// What the world is made of; see [`Network`].
pub(crate) struct State {
    rng: ChaCha8Rng,
    pub(crate) default_link: Link,
    /// Every link is cut that isn't mended by itself.
    pub(crate) all_down: bool,
    /// As [`Path::doomed`], for what any dialer sends to whom it has dialed.
    pub(crate) doomed: VecDeque<oneshot::Sender<()>>,
    pub(crate) paths: BTreeMap<(PeerId, PeerId), Path>,
    hosts: BTreeMap<PeerId, Ipv4Addr>,
    listeners: BTreeMap<SocketAddr, Listening>,
    next_port: u16,
    pub(crate) wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    pub(crate) trace: Trace,
}

/// See the module's text.
pub(crate) struct Network {
    pub(crate) seed: u64,
    epoch: Instant,
    state: Mutex<State>,
    /// There's something new to happen, or the network is gone.
    changed: Arc<Notify>,
}

/// What an event does outside the network's lock.
enum Effect {
    Accept(Arc<Receiver>, Parcel),
    /// A listener learns of a connection, whose first segment this is.
    Announce(mpsc::Sender<Arrival>, EndId, Arc<Receiver>, Parcel),
    Reset(Arc<Receiver>, io::ErrorKind),
}

/// What a dial gives.
pub(crate) struct Dialed {
    pub(crate) end: EndId,
    pub(crate) receiver: Arc<Receiver>,
    /// Who is there, proven by construction.
    pub(crate) peer: PeerId,
    pub(crate) local: SocketAddr,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(seed),
            default_link: Link::default(),
            all_down: false,
            doomed: VecDeque::new(),
            paths: BTreeMap::new(),
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            next_port: *DYNAMIC_PORTS.start(),
            wires: BTreeMap::new(),
            next_wire: 0,
            events: BTreeMap::new(),
            next_event: 0,
            trace: Trace::default(),
        };
        let network = Arc::new(Self { seed, epoch: Instant::now(), state: Mutex::new(state), changed: Arc::default() });
        tokio::spawn(run(Arc::downgrade(&network), network.changed.clone(), network.epoch));
        network
    }

    /// Virtual time since the world began.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// No code path panics while it holds the lock; see `receiver::lock`.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world, and lets happen what follows.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state();
        let first = state.first();
        let result = change(&mut state, self.now());
        if state.first() != first {
            self.changed.notify_one();
        }
        result
    }

    /// Sends a segment on its way.
    pub(crate) fn transmit(&self, end: EndId, channel: Channel, chunks: Vec<Bytes>, fin: bool) {
        self.change(|state, now| {
            let Some(sender) = state.end(end).filter(|sender| !sender.closed) else { return };
            let parcel = sender.parcel(end, channel, chunks, fin);
            state.launch(now, parcel);
        });
    }

    /// Waits until one more segment may leave: the window and the link's queue have room. How long it may be, in bytes.
    pub(crate) async fn permit(&self, end: EndId) -> usize {
        // Without an end there's nothing to be sent, ever.
        let Some(room) = self.room(end) else { return std::future::pending().await };
        loop {
            if let Some(segment) = self.change(|state, now| state.permit(end, now)) {
                return segment;
            }
            room.notified().await;
        }
    }

    fn room(&self, end: EndId) -> Option<Arc<Notify>> {
        Some(self.state().end(end)?.room.clone())
    }

    /// An end is over: it takes nothing more, and what it has sent isn't sent again, but for its last words.
    pub(crate) fn close(&self, end: EndId) {
        let receiver = self.change(|state, now| {
            let sender = state.end(end)?;
            sender.closed = true;
            let receiver = sender.receiver.clone();
            if let Some((from, to)) = state.route(end) {
                let path = state.path(from, to);
                path.waiting.retain(|waiting| *waiting != end);
                // Nobody is left to say it again when the cut is over.
                for said_in_vain in
                    path.parked.extract_if(.., |event| matches!(event, Event::Lost(parcel) if parcel.from == end)).collect::<Vec<_>>()
                {
                    if let Event::Lost(parcel) = said_in_vain {
                        state.settle(end, parcel.bytes);
                    }
                }
                state.pass_on(from, to, now);
            }
            state.tidy(end.wire);
            Some(receiver)
        });
        if let Some(receiver) = receiver {
            receiver.finish();
        }
    }

    /// What a connection knows of its path.
    pub(crate) fn path_stats(self: &Arc<Self>, end: EndId) -> Box<dyn Fn() -> PathStats + Send + Sync> {
        let (from_to, counters) = {
            let mut state = self.state();
            (state.route(end), state.end(end).map(|end| end.counters.clone()).unwrap_or_default())
        };
        let network = Arc::downgrade(self);
        Box::new(move || {
            let mut stats = PathStats::unknown();
            stats.sent = Some(counters.sent.load(Ordering::Relaxed));
            stats.lost = Some(counters.lost.load(Ordering::Relaxed));
            stats.congestion_control = Some("a fixed window".into());
            if let (Some(network), Some((from, to))) = (network.upgrade(), from_to) {
                let pace = network.state().pace(from, to);
                stats.rtt = Some(pace.rtt);
                stats.cwnd = Some(pace.window as u64);
                stats.mtu = u16::try_from(pace.segment).ok();
            }
            stats
        })
    }

    /// Begins a connection. `None`: nobody was ever there.
    pub(crate) fn dial(&self, from: PeerId, classes: &ClassTable, address: SocketAddr) -> Option<Dialed> {
        let mut state = self.state();
        let (peer, their_classes) = state.who(address)?;
        let local = SocketAddr::new(state.host(from).into(), state.port());
        let end = EndId { wire: state.next_wire, side: 0 };
        state.next_wire += 1;
        let ends = [End::new(from, classes.clone()), End::new(peer, their_classes.unwrap_or_else(|| classes.clone()))];
        let receiver = ends[0].receiver.clone();
        state.wires.insert(end.wire, Wire { ends, addresses: [local, address], announced: false });
        Some(Dialed { end, receiver, peer, local })
    }

    /// Listens. What arrives, and where it really is.
    pub(crate) fn listen(
        &self,
        peer: PeerId,
        classes: &ClassTable,
        local: SocketAddr,
    ) -> io::Result<(SocketAddr, mpsc::Receiver<Arrival>)> {
        let mut state = self.state();
        let own = IpAddr::from(state.host(peer));
        let ip = if local.ip().is_unspecified() { own } else { local.ip() };
        if state.hosts.iter().any(|(other, host)| *other != peer && ip == *host) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let free = |state: &mut State| {
            let port = if local.port() == 0 { state.port() } else { local.port() };
            let at = SocketAddr::new(ip, port);
            state.listeners.get(&at).is_none_or(|listening| listening.arrivals.is_none()).then_some(at)
        };
        let mut tries = if local.port() == 0 { DYNAMIC_PORTS } else { 0..=0 };
        let at = tries.find_map(|_| free(&mut state)).ok_or(io::ErrorKind::AddrInUse)?;
        let (arrivals, receiver) = mpsc::channel(BACKLOG);
        state.listeners.insert(at, Listening { peer, classes: classes.clone(), arrivals: Some(arrivals) });
        Ok((at, receiver))
    }

    /// Nobody listens there any more.
    pub(crate) fn unlisten(&self, at: SocketAddr) {
        if let Some(listening) = self.state().listeners.get_mut(&at) {
            listening.arrivals = None;
        }
    }

    /// Where a peer is.
    pub(crate) fn host(&self, peer: PeerId) -> Ipv4Addr {
        self.state().host(peer)
    }

    /// Lets happen what is due, and says when the next thing is.
    fn advance(self: &Arc<Self>) -> Option<Duration> {
        loop {
            let mut state = self.state();
            let next = state.first()?;
            if next > self.now() {
                return Some(next);
            }
            let (_, event) = state.events.pop_first()?;
            let effect = state.happen(next, event);
            drop(state);
            match effect {
                Some(Effect::Accept(receiver, parcel)) => receiver.accept(parcel),
                Some(Effect::Announce(arrivals, end, receiver, parcel)) => {
                    receiver.accept(parcel);
                    if let Some(arrival) = self.arrival(end, receiver) {
                        // A full backlog drops it, which hangs up.
                        let _ = arrivals.try_send(arrival);
                    }
                }
                Some(Effect::Reset(receiver, kind)) => receiver.reset(kind, "the other side doesn't know this connection (any more)"),
                None => {}
            }
        }
    }

    fn arrival(self: &Arc<Self>, end: EndId, receiver: Arc<Receiver>) -> Option<Arrival> {
        let state = self.state();
        let wire = state.wires.get(&end.wire)?;
        let (peer, [remote, local]) = (wire.ends[0].peer, wire.addresses);
        drop(state);
        Some(Arrival { stream: SimStream::new(self.clone(), end, receiver), peer, remote, local })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// Lets time pass until the network is dropped.
async fn run(network: Weak<Network>, changed: Arc<Notify>, epoch: Instant) {
    while let Some(alive) = network.upgrade() {
        let next = alive.advance();
        drop(alive);
        // A time past the end of time is as good as never.
        match next.and_then(|next| epoch.checked_add(next)) {
            Some(next) => tokio::select! {
                biased;
                () = changed.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            },
            None => changed.notified().await,
        }
    }
}

impl State {
    fn first(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn schedule(&mut self, at: Duration, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.wires.get_mut(&id.wire)?.ends.get_mut(id.side)
    }

    /// From whom to whom an end sends.
    fn route(&self, end: EndId) -> Option<(PeerId, PeerId)> {
        let ends = &self.wires.get(&end.wire)?.ends;
        Some((ends[end.side].peer, ends[1 - end.side].peer))
    }

    pub(crate) fn path(&mut self, from: PeerId, to: PeerId) -> &mut Path {
        let (link, down) = (self.default_link, self.all_down);
        self.paths.entry((from, to)).or_insert_with(|| Path::new(link, down))
    }

    pub(crate) fn pace(&mut self, from: PeerId, to: PeerId) -> Pace {
        let back = self.path(to, from).link;
        self.path(from, to).link.pace(&back)
    }

    /// 10.0.0.1 is the first, and so on.
    fn host(&mut self, peer: PeerId) -> Ipv4Addr {
        let number = self.hosts.len() as u32 + 1;
        *self.hosts.entry(peer).or_insert_with(|| Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)).wrapping_add(number)))
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(*DYNAMIC_PORTS.start());
        port
    }

    /// Who listens at an address, or has, or whose host it is; and the classes there, if somebody listens.
    fn who(&self, address: SocketAddr) -> Option<(PeerId, Option<ClassTable>)> {
        match self.listeners.get(&address) {
            Some(listening) => Some((listening.peer, Some(listening.classes.clone()))),
            None => self.hosts.iter().find(|(_, host)| address.ip() == **host).map(|(peer, _)| (*peer, None)),
        }
    }

    fn permit(&mut self, end: EndId, now: Duration) -> Option<usize> {
        let (from, to) = self.route(end)?;
        let pace = self.pace(from, to);
        let in_flight = self.end(end)?.in_flight;
        let path = self.path(from, to);
        if in_flight > 0 && in_flight.saturating_add(pace.segment) > pace.window {
            // Without room in its window it must not hold up those behind it.
            path.waiting.retain(|waiting| *waiting != end);
            self.pass_on(from, to, now);
            return None;
        }
        if path.room_at() > now || path.waiting.front().is_some_and(|first| *first != end) {
            if !path.waiting.contains(&end) {
                path.waiting.push_back(end);
            }
            self.pass_on(from, to, now);
            return None;
        }
        path.waiting.pop_front();
        self.pass_on(from, to, now);
        Some(pace.segment)
    }

    /// Wakes the first that waits for room in a link's queue, now or when there's some.
    pub(crate) fn pass_on(&mut self, from: PeerId, to: PeerId, now: Duration) {
        let path = self.path(from, to);
        let (Some(&first), room_at) = (path.waiting.front(), path.room_at()) else { return };
        if room_at <= now {
            if let Some(end) = self.end(first) {
                end.room.notify_one();
            }
        } else if !path.room_due {
            path.room_due = true;
            self.schedule(room_at, Event::Room { from, to });
        }
    }

    fn launch(&mut self, now: Duration, mut parcel: Parcel) {
        let Some((from, to)) = self.route(parcel.from) else { return };
        if let Some(sender) = self.end(parcel.from) {
            sender.counters.sent.fetch_add(1, Ordering::Relaxed);
        }
        let rtt = self.pace(from, to).rtt;
        let Some(path) = self.paths.get_mut(&(from, to)) else { return };
        parcel.cuts = path.cuts;
        let doom = match parcel.channel {
            Channel::Control => None,
            _ if path.down => None,
            _ if parcel.from.side == 0 => path.doomed.pop_front().or_else(|| self.doomed.pop_front()),
            _ => path.doomed.pop_front(),
        };
        let fate = match &doom {
            Some(_) => path.swallow(now, parcel.bytes),
            None => path.transmit(now, parcel.bytes, &mut self.rng),
        };
        if let Some(told) = doom {
            let _ = told.send(());
        }
        match fate {
            Fate::Arrives(at) => self.schedule(at, Event::Arrive(parcel)),
            Fate::Lost(left) => self.schedule(left.saturating_add(resend_delay(rtt, parcel.tries)), Event::Lost(parcel)),
            Fate::Cut => self.lose(now, parcel),
        }
    }

    /// A cut has swallowed a segment: it's noticed later, or when the cut is over.
    fn lose(&mut self, now: Duration, parcel: Parcel) {
        let Some((from, to)) = self.route(parcel.from) else { return };
        let rtt = self.pace(from, to).rtt;
        let closed = self.end(parcel.from).is_none_or(|sender| sender.closed);
        let path = self.path(from, to);
        if !path.down {
            self.schedule(now.saturating_add(resend_delay(rtt, parcel.tries)), Event::Lost(parcel));
        } else if closed || parcel.channel.is_datagram() {
            self.settle(parcel.from, parcel.bytes);
        } else {
            path.parked.push(Event::Lost(parcel));
        }
    }

    fn settle(&mut self, end: EndId, bytes: usize) {
        if let Some(sender) = self.end(end) {
            sender.settle(bytes);
        }
        self.tidy(end.wire);
    }

    fn tidy(&mut self, wire: u64) {
        if self.wires.get(&wire).is_some_and(Wire::is_over) {
            self.wires.remove(&wire);
        }
    }

    fn happen(&mut self, now: Duration, event: Event) -> Option<Effect> {
        match event {
            Event::Arrive(parcel) => return self.arrive(now, parcel),
            Event::Deliver(parcel) => return self.deliver(now, parcel),
            Event::Lost(mut parcel) => {
                let sender = self.end(parcel.from)?;
                sender.counters.lost.fetch_add(1, Ordering::Relaxed);
                parcel.tries += 1;
                let last_words = parcel.channel == Channel::Control && parcel.tries <= LAST_WORDS_TRIES;
                if parcel.channel.is_datagram() || (sender.closed && !last_words) {
                    self.settle(parcel.from, parcel.bytes);
                } else {
                    self.launch(now, parcel);
                }
            }
            Event::Ack { end, bytes } => {
                let (from, to) = self.route(end.other())?;
                let path = self.path(from, to);
                if path.down {
                    path.parked.push(Event::Ack { end, bytes });
                } else {
                    self.settle(end, bytes);
                }
            }
            Event::Reset { end, kind } => {
                let (from, to) = self.route(end.other())?;
                if !self.path(from, to).down {
                    return Some(Effect::Reset(self.end(end)?.receiver.clone(), kind));
                }
            }
            Event::Room { from, to } => {
                self.path(from, to).room_due = false;
                self.pass_on(from, to, now);
            }
        }
        None
    }

    fn arrive(&mut self, now: Duration, parcel: Parcel) -> Option<Effect> {
        let (sender, taker) = (parcel.from, parcel.from.other());
        let (from, to) = self.route(sender)?;
        let path = self.path(from, to);
        if path.down || path.cuts != parcel.cuts {
            self.lose(now, parcel);
            return None;
        }
        let answered = now.saturating_add(self.path(to, from).link.latency);
        self.schedule(answered, Event::Ack { end: sender, bytes: parcel.bytes });
        let wire = self.wires.get_mut(&sender.wire)?;
        if taker.side == 1 && !wire.announced && !wire.ends[1].closed {
            let (receiver, address) = (wire.ends[1].receiver.clone(), wire.addresses[1]);
            let listening = self.listeners.get(&address).filter(|listening| listening.peer == to);
            if let Some(arrivals) = listening.and_then(|listening| listening.arrivals.clone()) {
                wire.announced = true;
                self.trace(now, &parcel);
                return Some(Effect::Announce(arrivals, taker, receiver, parcel));
            }
            wire.ends[1].closed = true;
            self.schedule(answered, Event::Reset { end: sender, kind: io::ErrorKind::ConnectionRefused });
            self.tidy(sender.wire);
            return None;
        }
        if wire.ends[taker.side].closed {
            // Once its last words have arrived or are given up, it answers as who knows no such connection.
            if wire.ends[taker.side].parcels == 0 && !wire.ends[sender.side].closed {
                self.schedule(answered, Event::Reset { end: sender, kind: io::ErrorKind::ConnectionReset });
            }
            return None;
        }
        self.deliver(now, parcel)
    }

    fn deliver(&mut self, now: Duration, parcel: Parcel) -> Option<Effect> {
        let (from, to) = self.route(parcel.from)?;
        let sender = self.end(parcel.from)?;
        let class = parcel.channel.class().and_then(|class| sender.classes.iter().nth(usize::from(class)));
        let name = class.map(|(_, class)| class.name.clone());
        if let Some(held) = name.and_then(|name| self.path(from, to).stalled.get_mut(&*name)) {
            // Bounded by the class's credit; a datagram has none.
            if !parcel.channel.is_datagram() {
                held.push(parcel);
            }
            return None;
        }
        self.trace(now, &parcel);
        let taker = self.end(parcel.from.other()).filter(|taker| !taker.closed)?;
        Some(Effect::Accept(taker.receiver.clone(), parcel))
    }

    fn trace(&mut self, now: Duration, parcel: &Parcel) {
        if let Some((from, to)) = self.route(parcel.from) {
            self.trace.delivered(now, &from, &to, parcel.channel, parcel.fin, &parcel.chunks);
        }
    }
}
