//! Peers in memory: transports with names of their own, delays and failures, over duplex pipes with latency. All of it
//! runs on tokio's paused clock.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane::{
    node::{Context, Event, Handler, Node, NodeBuilder, NodeConfig, Silent},
    protocol::{Malformed, Overflow, Protocol},
};
use peerlane_transport::{
    AnyTransport, ClassId, ClassTable, CloseCode, Closed, ConnectError, Connection, ListenError, Listener, Order, PathStats, Session,
    SessionInfo, TrafficClass, Transport, Upgrade, Urgency,
    admission::{Agreed, ListSets, Lists, LocalPeer, Terms},
    framing,
    identity::{Admission, Host, Identity, IdentityError, PeerAddr, PeerId, Remote},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

// ----- the protocol

pub const CONTROL: ClassId = ClassId(0);
pub const QUERY: ClassId = ClassId(1);
pub const ORDERED: ClassId = ClassId(2);
pub const BULK: ClassId = ClassId(3);
pub const GOSSIP: ClassId = ClassId(4);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request {
        class: ClassId,
        id: u64,
        body: Bytes,
    },
    Reply {
        class: ClassId,
        id: u64,
        body: Bytes,
    },
    Busy {
        class: ClassId,
        id: u64,
    },
    Note {
        class: ClassId,
        key: u64,
        body: Bytes,
    },
    /// Takes a request back.
    Cancel {
        id: u64,
    },
}

impl Message {
    pub fn ask(class: ClassId, body: impl Into<Bytes>) -> Self {
        Self::Request { class, id: 0, body: body.into() }
    }

    pub fn note(class: ClassId, body: impl Into<Bytes>) -> Self {
        Self::Note { class, key: 0, body: body.into() }
    }

    pub fn number(class: ClassId, n: u64) -> Self {
        Self::note(class, n.to_be_bytes().to_vec())
    }

    pub fn body(&self) -> &[u8] {
        match self {
            Self::Request { body, .. } | Self::Reply { body, .. } | Self::Note { body, .. } => body,
            Self::Busy { .. } => b"busy",
            Self::Cancel { .. } => b"",
        }
    }

    pub fn as_number(&self) -> u64 {
        u64::from_be_bytes(self.body()[..8].try_into().unwrap())
    }
}

/// Kind (1 byte) | ID or key (8 bytes) | body.
#[derive(Debug, Default)]
pub struct Simple {
    pub encoded: Arc<AtomicUsize>,
}

impl Protocol for Simple {
    type Message = Message;

    fn classes(&self) -> ClassTable {
        let class = TrafficClass::new;
        ClassTable::new(vec![
            class("control", 10, Urgency::Latency, Order::Any),
            class("query", 30, Urgency::Latency, Order::Any),
            class("ordered", 20, Urgency::Latency, Order::Fifo),
            class("bulk", 20, Urgency::Bulk, Order::Any),
            class("gossip", 20, Urgency::Bulk, Order::Any),
        ])
        .unwrap()
    }

    fn class_of(&self, message: &Message) -> ClassId {
        match message {
            Message::Request { class, .. } | Message::Reply { class, .. } | Message::Busy { class, .. } | Message::Note { class, .. } => {
                *class
            }
            Message::Cancel { .. } => CONTROL,
        }
    }

    fn encode(&self, message: &Message) -> Bytes {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let (kind, number) = match message {
            Message::Request { id, .. } => (0, *id),
            Message::Reply { id, .. } => (1, *id),
            Message::Busy { id, .. } => (2, *id),
            Message::Note { key, .. } => (3, *key),
            Message::Cancel { id } => (4, *id),
        };
        let mut out = BytesMut::new();
        out.put_u8(kind);
        out.put_u64(number);
        out.put_slice(message.body());
        out.freeze()
    }

    fn decode(&self, class: ClassId, mut bytes: Bytes) -> Result<Message, Malformed<Message>> {
        if bytes.len() < 9 {
            return Err(match bytes.first() {
                Some(0) => Malformed::answer(Message::Busy { class, id: 0 }, "too short, answered"),
                Some(99) => Malformed::close("too short, closed"),
                _ => Malformed::ignore("too short"),
            });
        }
        let (kind, id) = (bytes.get_u8(), bytes.get_u64());
        match kind {
            0 => Ok(Message::Request { class, id, body: bytes }),
            1 => Ok(Message::Reply { class, id, body: bytes }),
            2 => Ok(Message::Busy { class, id }),
            3 => Ok(Message::Note { class, key: id, body: bytes }),
            4 => Ok(Message::Cancel { id }),
            _ => Err(Malformed::close("an unknown kind")),
        }
    }

    fn request_id(&self, message: &Message) -> Option<u64> {
        match message {
            Message::Request { id, .. } => Some(*id),
            _ => None,
        }
    }

    fn reply_to(&self, message: &Message) -> Option<u64> {
        match message {
            Message::Reply { id, .. } | Message::Busy { id, .. } => Some(*id),
            _ => None,
        }
    }

    fn with_id(&self, message: &mut Message, new: u64) {
        if let Message::Request { id, .. } = message {
            *id = new;
        }
    }

    fn cancel(&self, id: u64) -> Option<Message> {
        Some(Message::Cancel { id })
    }

    fn cancels(&self, message: &Message) -> Option<u64> {
        match message {
            Message::Cancel { id } => Some(*id),
            _ => None,
        }
    }

    fn overloaded(&self, message: &Message) -> Option<Message> {
        match message {
            Message::Request { class, id, .. } => Some(Message::Busy { class: *class, id: *id }),
            _ => None,
        }
    }

    fn latest_key(&self, message: &Message) -> Option<u64> {
        match message {
            Message::Note { key, .. } if *key > 0 => Some(*key),
            _ => None,
        }
    }

    fn overflow(&self, class: ClassId) -> Overflow {
        match class {
            QUERY => Overflow::Answer,
            GOSSIP => Overflow::DropOldest,
            _ => Overflow::Wait,
        }
    }
}

/// Answers a request with its own body.
pub fn echo(message: &Message) -> Option<Message> {
    match message {
        Message::Request { class, id, body } => Some(Message::Reply { class: *class, id: *id, body: body.clone() }),
        _ => None,
    }
}

/// Echoes requests and notes what comes; a body that starts with `stuck` is never done with, one that starts or ends with
/// `slow` takes a second. What is ordered takes 5 ms, so that it piles up on the way.
#[derive(Debug, Clone, Default)]
pub struct Echo {
    pub got: Arc<Mutex<Vec<(PeerId, Message)>>>,
}

impl Echo {
    pub fn numbers(&self, wanted: ClassId) -> Vec<u64> {
        let got = self.got.lock().unwrap();
        got.iter()
            .filter(|(_, m)| matches!(m, Message::Note { class, .. } | Message::Request { class, .. } if *class == wanted))
            .map(|(_, m)| m.as_number())
            .collect()
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

impl Handler<Simple> for Echo {
    async fn handle(&self, context: Context<Simple>, message: Message) {
        self.got.lock().unwrap().push((context.peer_id().unwrap(), message.clone()));
        if message.body().starts_with(b"stuck") {
            std::future::pending::<()>().await;
        }
        if message.body().starts_with(b"slow") || message.body().ends_with(b"slow") {
            sleep(Duration::from_secs(1)).await;
        }
        if context.class() == ORDERED {
            sleep(Duration::from_millis(5)).await;
        }
        if message.body().starts_with(b"panic") {
            panic!("as asked");
        }
        if let Some(reply) = echo(&message) {
            let _ = context.reply(&reply).await;
        }
    }
}

// ----- the world

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wire {
    #[default]
    Up,
    /// Bytes wait on their way until it's up again.
    Held,
    /// Those that were held wait on, later ones vanish.
    HeldAlone,
    /// Bytes vanish, and nobody is told.
    Hole,
    /// Both ends see the end at once.
    Cut,
}

/// What dialing over a transport to an address does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialing {
    #[default]
    Works,
    Refused,
    Hangs,
    Slow(Duration),
    /// Works, and then nothing passes any more.
    Dead,
}

struct Arrival {
    from: PeerId,
    io: DuplexStream,
    answer: oneshot::Sender<Result<PeerId, Closed>>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<(&'static str, SocketAddr), mpsc::Sender<Arrival>>,
    rules: BTreeMap<(&'static str, SocketAddr), Dialing>,
    cables: Vec<(&'static str, watch::Sender<Wire>)>,
    dials: Vec<(&'static str, Duration)>,
    next_port: u16,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    pub latency: Duration,
    pub start: Instant,
}

impl World {
    pub fn new() -> Self {
        Self { state: Arc::default(), latency: Duration::from_millis(20), start: Instant::now() }
    }

    pub fn rule(&self, transport: &'static str, node: &Node<Simple>, dialing: Dialing) {
        self.rule_at(transport, node.listening()[0].addr, dialing);
    }

    pub fn rule_at(&self, transport: &'static str, addr: SocketAddr, dialing: Dialing) {
        self.state.lock().unwrap().rules.insert((transport, addr), dialing);
    }

    /// Does something to all connections made so far over a transport (or over any).
    pub fn wire(&self, transport: Option<&str>, wire: Wire) {
        for (name, cable) in &self.state.lock().unwrap().cables {
            if transport.is_none_or(|t| t == *name) {
                cable.send_replace(wire);
            }
        }
    }

    /// Which transports were dialed, and when.
    pub fn dials(&self) -> Vec<(&'static str, Duration)> {
        self.state.lock().unwrap().dials.clone()
    }

    pub fn forget_dials(&self) {
        self.state.lock().unwrap().dials.clear();
    }

    pub fn transport(&self, name: &'static str, local: &LocalPeer) -> AnyTransport<PeerAddr, SocketAddr> {
        AnyTransport::new(Mem { name, world: self.clone(), local: local.clone() })
    }

    fn side(&self, name: &'static str, local: &LocalPeer, io: DuplexStream, dialed: bool, remote: PeerId) -> Connection {
        let info = SessionInfo {
            transport: name,
            dialed,
            remote: Remote::authenticated(remote),
            local_addr: String::new(),
            remote_addr: "memory".into(),
            exporter: [0; 32],
            path: Box::new(PathStats::unknown),
        };
        let terms = &local.terms;
        let (session, connection) = Session::start(info, Agreed::same(terms), terms.classes.clone(), terms.limits.clone());
        tokio::spawn(framing::drive(io, session, BytesMut::new()));
        connection
    }

    /// A pipe with latency between two ends.
    fn cable(&self, name: &'static str) -> (DuplexStream, DuplexStream) {
        let (a, a_far) = tokio::io::duplex(64 * 1024);
        let (b, b_far) = tokio::io::duplex(64 * 1024);
        let (control, wire) = watch::channel(Wire::Up);
        self.state.lock().unwrap().cables.push((name, control));
        let (a_read, a_write) = tokio::io::split(a_far);
        let (b_read, b_write) = tokio::io::split(b_far);
        // The first choice is faster: what it carries overtakes, if it may.
        let latency = if name == "quic" { self.latency / 4 } else { self.latency };
        carry(a_read, b_write, latency, wire.clone());
        carry(b_read, a_write, latency, wire);
        (a, b)
    }
}

async fn cut(wire: &mut watch::Receiver<Wire>) {
    if wire.wait_for(|wire| *wire == Wire::Cut).await.is_err() {
        // The world is gone, and with it whoever could cut.
        std::future::pending().await
    }
}

fn carry(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    latency: Duration,
    mut wire: watch::Receiver<Wire>,
) {
    let (queue, mut arriving) = mpsc::channel::<(Instant, Bytes)>(256);
    let mut wire2 = wire.clone();
    tokio::spawn(async move {
        loop {
            let mut chunk = BytesMut::with_capacity(16 * 1024);
            tokio::select! {
                biased;
                () = cut(&mut wire) => return,
                read = from.read_buf(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        let carried = matches!(*wire.borrow(), Wire::Up | Wire::Held);
                        if carried && queue.send((Instant::now() + latency, chunk.freeze())).await.is_err() {
                            return;
                        }
                    }
                },
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, chunk)) = arriving.recv().await {
            tokio::select! {
                biased;
                () = cut(&mut wire2) => break,
                () = sleep_until(at) => {}
            }
            // The world may be gone, and with it whoever could release it.
            let _ = wire2.wait_for(|wire| !matches!(wire, Wire::Held | Wire::HeldAlone)).await;
            let up = *wire2.borrow() == Wire::Up;
            if up && to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        if *wire2.borrow() == Wire::Hole {
            // The end vanishes too.
            cut(&mut wire2).await;
        }
        let _ = to.shutdown().await;
    });
}

struct Mem {
    name: &'static str,
    world: World,
    local: LocalPeer,
}

impl Transport for Mem {
    type Addr = PeerAddr;
    type Local = SocketAddr;
    type Listener = MemListener;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn dial(&self, addr: &PeerAddr) -> Result<Connection, ConnectError> {
        let Host::Address(at) = addr.host else { panic!("only addresses here") };
        let unreachable = || ConnectError::Unreachable { addr: addr.to_string(), source: std::io::ErrorKind::ConnectionRefused.into() };
        let (rule, listener) = {
            let mut state = self.world.state.lock().unwrap();
            state.dials.push((self.name, self.world.start.elapsed()));
            (state.rules.get(&(self.name, at)).copied().unwrap_or_default(), state.listeners.get(&(self.name, at)).cloned())
        };
        match rule {
            Dialing::Works | Dialing::Dead => {}
            Dialing::Refused => return Err(unreachable()),
            Dialing::Hangs => std::future::pending().await,
            Dialing::Slow(delay) => sleep(delay).await,
        }
        sleep(self.world.latency * 2).await;
        let (near, far) = self.world.cable(self.name);
        let (answer, answered) = oneshot::channel();
        let arrival = Arrival { from: self.local.peer_id(), io: far, answer };
        listener.ok_or_else(unreachable)?.send(arrival).await.map_err(|_| unreachable())?;
        let found = answered.await.map_err(|_| unreachable())??;
        if found != addr.id {
            return Err(IdentityError::WrongKey { expected: addr.id, found }.into());
        }
        if rule == Dialing::Dead {
            self.world.state.lock().unwrap().cables.last().unwrap().1.send_replace(Wire::Hole);
        }
        Ok(self.world.side(self.name, &self.local, near, true, found))
    }

    async fn listen(&self, local: &SocketAddr) -> Result<MemListener, ListenError> {
        let mut state = self.world.state.lock().unwrap();
        let mut local = *local;
        if local.port() == 0 {
            state.next_port += 1;
            local.set_port(state.next_port);
        }
        if state.listeners.get(&(self.name, local)).is_some_and(|sender| !sender.is_closed()) {
            return Err(ListenError::Bind { addr: local.to_string(), source: std::io::ErrorKind::AddrInUse.into() });
        }
        let (sender, arrivals) = mpsc::channel(64);
        state.listeners.insert((self.name, local), sender);
        Ok(MemListener { name: self.name, world: self.world.clone(), peer: self.local.clone(), local, arrivals })
    }
}

struct MemListener {
    name: &'static str,
    world: World,
    peer: LocalPeer,
    local: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Listener for MemListener {
    type Local = SocketAddr;
    type Upgrade = MemUpgrade;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> Result<MemUpgrade, ListenError> {
        let arrival = self.arrivals.recv().await.ok_or(ListenError::Closed)?;
        Ok(MemUpgrade { name: self.name, world: self.world.clone(), local: self.peer.clone(), arrival })
    }
}

struct MemUpgrade {
    name: &'static str,
    world: World,
    local: LocalPeer,
    arrival: Arrival,
}

impl Upgrade for MemUpgrade {
    fn remote_addr(&self) -> String {
        "memory".into()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let Arrival { from, io, answer } = self.arrival;
        if let Err(why) = self.local.lists.admits(&from) {
            let closed = Closed::remote(CloseCode::NotAdmitted, why.to_string().as_bytes());
            let _ = answer.send(Err(closed));
            return Err(IdentityError::Refused { peer: from, why }.into());
        }
        let _ = answer.send(Ok(self.local.peer_id()));
        Ok(self.world.side(self.name, &self.local, io, false, from))
    }
}

// ----- nodes

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32]).unwrap()
}

pub fn local(seed: u8) -> LocalPeer {
    let mut terms = Terms::new("test").unwrap();
    terms.classes = Simple::default().classes();
    LocalPeer::new(&identity(seed), Arc::new(Lists::everybody()), terms).unwrap()
}

/// Two seeds: the key of the first is smaller than that of the second.
pub fn smaller_and_greater() -> (u8, u8) {
    if identity(1).peer_id().as_bytes() < identity(2).peer_id().as_bytes() { (1, 2) } else { (2, 1) }
}

pub fn builder(world: &World, local: &LocalPeer, names: &[&'static str]) -> NodeBuilder<Simple, Silent> {
    let mut builder = Node::builder(Simple::default(), local.clone()).listen("127.0.0.1:0".parse().unwrap()).seed(7);
    for name in names {
        builder = builder.transport(world.transport(name, local));
    }
    builder
}

pub async fn node(world: &World, seed: u8, handler: impl Handler<Simple>) -> Node<Simple> {
    builder(world, &local(seed), &["quic", "tcp"]).handler(handler).start().await.unwrap()
}

pub fn config(change: impl FnOnce(&mut NodeConfig)) -> NodeConfig {
    let mut config = NodeConfig::default();
    change(&mut config);
    config
}

pub fn addr(node: &Node<Simple>) -> PeerAddr {
    PeerAddr::new(node.peer_id(), node.listening()[0].addr)
}

pub fn block(local: &LocalPeer, peer: PeerId) {
    local.lists.replace(ListSets { block: [peer].into(), ..ListSets::default() });
}

/// Waits for an event that fits.
pub async fn event<T>(events: &mut broadcast::Receiver<Event>, which: impl Fn(&Event) -> Option<T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), async {
        loop {
            if let Some(found) = which(&events.recv().await.unwrap()) {
                return found;
            }
        }
    })
    .await
    .expect("no such event")
}

/// Waits until something holds, on the virtual clock.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
