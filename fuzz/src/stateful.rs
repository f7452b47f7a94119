//! A live peer over the simulator, behind the handshake: the input is what a client does to it, one operation after the other,
//! valid and invalid, while an honest one asks.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use peerlane::{
    cad015::{Cad015, ErrorCode, Message},
    cell::{Cell, MemoryCells, Profile, Reader, Ref, ValueId},
    node::{Node, Silent},
    peer::{Edit, Gossip, Include, MAX_BELIEF, Operation, PeerHandler, Query, Service, Simulation, Store, Verified, read_outcome},
    protocol::Protocol,
};
use peerlane_sim::{RawConnection, SimTransport, World};
use peerlane_transport::{
    AnyTransport, Control,
    admission::{Lists, LocalPeer, Terms},
    class::{Lane, Record},
    identity::{Identity, PeerAddr},
};
use tokio::{
    runtime::Builder,
    sync::Notify,
    time::{sleep, timeout},
};

const NETWORK: &str = "fuzz";
/// Operations of one input.
const MOST: usize = 200;
/// Connections of the attacker at once. A further one takes the place of the first.
const CONNECTIONS: usize = 3;
/// Virtual time within which an honest client is answered, whatever somebody else does.
const ANSWER: Duration = Duration::from_secs(30);
/// Virtual time after which nothing is left of who has gone: longer than any limit.
const GONE: Duration = Duration::from_secs(300);
/// Bytes that one operation sends at most: the simulator's network has no bound of its own.
const RUN: usize = 1 << 20;

fn profile() -> Profile {
    Profile::NATIVE.in_network(NETWORK)
}

/// Well-formed messages of every kind.
static MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| messages().unwrap_or_default());

fn integer(n: i64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer(n)))
}

fn messages() -> Option<Vec<Message>> {
    let profile = profile();
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut all = vec![Message::status(1), Message::ping(2), Message::goodbye("done"), Message::cancel(2)];
    let account = key.verifying_key().to_bytes();
    let queries = [
        Query::Count,
        Query::Root,
        Query::Next { account },
        Query::Get { account, key: "k1".into() },
        Query::Prefix { account, prefix: "k".into(), after: None, limit: 1000 },
        Query::Accounts { after: None, limit: 1000 },
    ];
    all.extend(queries.iter().filter_map(|query| query.message(&profile).ok()));
    // An account's first operations, and two that contradict them.
    let mut operations = Vec::new();
    for (sequence, length) in [(1, 10), (2, 500), (3, 10_000), (2, 20), (9, 20)] {
        let mut cells = MemoryCells::default();
        let edit = Edit::Put { key: format!("k{sequence}").into(), value: vec![7; length].into() };
        let signed = Operation::sign(&edit, sequence, &key, &profile, &mut cells).ok()?;
        all.push(Message::transact(3, [signed.clone()], &profile).ok()?.with_branches(cells.0.clone()));
        operations.push((signed, cells));
    }
    // Beliefs in them: whole, without some of their cells, and in parts.
    let store = Store::in_memory(NETWORK, Profile::NATIVE).ok()?;
    for (signed, cells) in operations.into_iter().take(3) {
        let verified = Verified::new(Operation::read(&signed, &Reader::new(&profile, &cells)).ok()?, &profile).ok()?;
        store.append(vec![verified], &cells).ok()?;
    }
    let delta = store.belief(0, Include::All);
    let attacker = identity(1)?;
    for most in [MAX_BELIEF, 9_000] {
        let beliefs = delta.messages(attacker.signing_key(), 1, most, &profile).ok()?;
        for belief in beliefs {
            let mut partial = belief.clone();
            partial.branches.truncate(belief.branches.len() / 2);
            let mut bare = belief.clone();
            bare.branches.clear();
            all.extend([belief, partial, bare]);
        }
    }
    let long = peerlane::cell::encode(&Cell::blob(vec![7; 200])?);
    let branch = (profile.id(&long), long);
    all.push(Message::result(7, integer(1)));
    all.push(Message::error(8, &ErrorCode::Load, "overload"));
    all.push(Message::missing_data(9, &[ValueId([1; 32]), branch.0, store.root()], &profile).ok()?);
    all.push(Message::data(11, &[Some(branch), None], 1 << 20, &profile).ok()?);
    all.push(Message::challenge(12, [integer(1)]));
    all.push(Message::challenge(12, [Ref::Embedded(Arc::new(Cell::blob(vec![9; 32])?))]));
    all.push(Message::response(12, [integer(1)]));
    Some(all)
}

fn identity(n: u8) -> Option<Identity> {
    Identity::from_seed(&[n; 32]).ok()
}

fn local(identity: &Identity) -> Option<LocalPeer> {
    LocalPeer::new(identity, Arc::new(Lists::everybody()), Terms::new(NETWORK).ok()?).ok()
}

/// The input, byte by byte; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        // Small ones, and those about which arithmetic stumbles.
        match self.byte() {
            255 => u64::MAX,
            254 => (1 << 62) - 1,
            253 => 1 << 62,
            252 => u64::from(u32::MAX),
            251 => 1 << 40,
            n @ 240.. => 1 << (n - 230),
            n => u64::from(n),
        }
    }

    fn bytes(&mut self) -> Bytes {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }
}

struct Peer {
    node: Node<Cad015>,
    gossip: Arc<Gossip>,
    at: SocketAddr,
}

impl Peer {
    async fn start(world: &World) -> Option<Self> {
        let identity = Arc::new(identity(2)?);
        let local = local(&identity)?;
        let clock = world.clone();
        let simulation = Simulation::new(Duration::from_millis(2), move || UNIX_EPOCH + clock.elapsed());
        let store = Arc::new(Store::simulated(redb::backends::InMemoryBackend::new, NETWORK, Profile::NATIVE, simulation).ok()?);
        let changed = Arc::new(Notify::new());
        let gossip = Gossip::new(store.clone(), identity.clone(), changed.clone());
        let service = Service::new(store, identity.peer_id(), NETWORK, changed);
        let node = Node::builder(Cad015::new(profile()), local.clone())
            .transport(AnyTransport::new(world.transport_for(&local)))
            .listen(([0, 0, 0, 0], 4000).into())
            .handler(PeerHandler::new(service, gossip.clone(), identity, NETWORK))
            .seed(1)
            .start()
            .await
            .ok()?;
        gossip.start(node.handle());
        let at = node.listening().first()?.addr;
        Some(Self { node, gossip, at })
    }
}

/// What a client does to a peer: the operations are the input's.
struct Attacker {
    transport: SimTransport,
    at: SocketAddr,
    connections: Vec<RawConnection>,
    protocol: Cad015,
}

impl Attacker {
    /// A well-formed message, and the class that it belongs to.
    fn message(&self, input: &mut Input<'_>) -> (u8, BytesMut) {
        let Some(message) = MESSAGES.get(usize::from(input.byte()) % MESSAGES.len().max(1)) else { return (0, BytesMut::new()) };
        let id = u64::from(input.byte());
        let message = message.clone().with_id(id);
        (self.protocol.class_of(&message).0, BytesMut::from(&message.encode()[..]))
    }

    fn control(input: &mut Input<'_>) -> Control {
        let lane = |input: &mut Input<'_>| Lane::from_byte(input.byte());
        match input.byte() % 12 {
            0 => Control::Ping(input.number()),
            1 => Control::Pong(input.number()),
            2 => Control::Credit { lane: lane(input), total: input.number() },
            3 => Control::Release(lane(input)),
            4 => Control::Stop { lane: lane(input), number: input.number(), code: u32::from(input.byte()) },
            5 => Control::Finished { messages: input.number() },
            6 => Control::Drained,
            7 => Control::Join { carrier: input.byte(), token: [input.byte(); 48].into() },
            8 => Control::Moved(input.byte()),
            9 => Control::Accept,
            10 => Control::Hello(input.bytes()),
            _ => Control::Close { code: u32::from(input.byte()), reason: input.bytes() },
        }
    }

    fn record(input: &mut Input<'_>) -> Record {
        match input.byte() % 5 {
            0 => Record::Whole(input.number()),
            1 => Record::Start(input.number()),
            2 => Record::Part(input.number()),
            3 => Record::End,
            _ => Record::Abort(u32::from(input.byte())),
        }
    }

    async fn connect(&mut self) {
        if self.connections.len() == CONNECTIONS {
            self.connections.remove(0);
        }
        // Refused, or not answered: the peer's right.
        if let Ok(connection) = self.transport.dial_raw(self.at).await {
            self.connections.push(connection);
        }
    }

    async fn act(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let which = usize::from(op >> 4) % self.connections.len().max(1);
        let Some(connection) = self.connections.get(which) else { return self.connect().await };
        match op & 15 {
            // A message as it should be, on its class's lane or as a datagram.
            0..4 => {
                let (class, message) = self.message(input);
                let mut out = BytesMut::new();
                Record::Whole(message.len() as u64).encode(&mut out);
                out.extend_from_slice(&message);
                connection.send_lane(Lane { class, slot: 0 }.to_byte(), out.freeze(), false);
            }
            4 => {
                let (class, message) = self.message(input);
                connection.send_datagram(class, message.freeze());
            }
            // One that isn't: a byte changed, cut, in another class, longer or shorter than it says.
            5 | 6 => {
                let (class, mut message) = self.message(input);
                let at = usize::from(input.byte()) * message.len() / 256;
                match input.byte() % 4 {
                    0 => message.truncate(at),
                    1 => message.extend_from_slice(&input.bytes()),
                    _ => message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= input.byte()),
                }
                let mut out = BytesMut::new();
                let said = if input.byte() > 240 { input.number() } else { message.len() as u64 };
                Record::Whole(said).encode(&mut out);
                out.extend_from_slice(&message);
                let class = if input.byte() > 224 { input.byte() } else { class };
                connection.send_lane(Lane { class, slot: 0 }.to_byte(), out.freeze(), input.byte() > 224);
            }
            // Records in any order, on any lane, whole or with bytes missing.
            7 | 8 => {
                let lane = input.byte();
                let mut out = BytesMut::new();
                Self::record(input).encode(&mut out);
                out.extend_from_slice(&input.bytes());
                connection.send_lane(lane, out.freeze(), input.byte() > 200);
            }
            9 => {
                let (lane, fin) = (input.byte(), input.byte() > 200);
                connection.send_lane(lane, input.bytes(), fin);
            }
            // More than anybody gave credit for.
            10 => {
                let (lane, length) = (input.byte(), usize::try_from(input.number()).unwrap_or(RUN).min(RUN));
                connection.send_lane(lane, vec![input.byte(); length].into(), false);
            }
            11 | 12 => {
                let mut out = BytesMut::new();
                Self::control(input).encode(&mut out);
                connection.send_control(out.freeze(), false);
            }
            13 => {
                let fin = input.byte() > 240;
                connection.send_control(input.bytes(), fin);
            }
            14 => sleep(Duration::from_millis(input.number().min(20_000))).await,
            _ if input.byte() > 128 => drop(self.connections.remove(which)),
            _ => self.connect().await,
        }
    }
}

/// An honest client is answered.
async fn asks(client: &Node<Cad015>, to: &PeerAddr) {
    let asked = timeout(ANSWER, async {
        loop {
            let Ok(query) = Query::Count.message(&profile()) else { unreachable!("it's a constant") };
            let connected = client.peer(to.id).is_some() || client.connect(to).await.is_ok();
            if connected && let Ok(answer) = client.request(to.id, query, ANSWER).await {
                return answer;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let Ok(answer) = asked.await else { panic!("an honest client isn't answered") };
    assert!(read_outcome(&answer, &profile()).is_ok_and(|outcome| outcome.error.is_none()), "an honest client's question is refused");
}

async fn run(data: &[u8]) -> Option<()> {
    let world = World::new(1);
    let peer = Peer::start(&world).await?;
    let honest = local(&identity(3)?)?;
    let transport = AnyTransport::new(world.transport_for(&honest));
    let client = Node::builder(Cad015::new(profile()), honest).transport(transport).handler(Silent).seed(3).start().await.ok()?;
    let to = PeerAddr::new(peer.node.peer_id(), peer.at);
    asks(&client, &to).await;
    let transport = world.transport_for(&local(&identity(1)?)?);
    let mut attacker = Attacker { transport, at: peer.at, connections: Vec::new(), protocol: Cad015::new(profile()) };
    attacker.connect().await;
    let mut input = Input(data);
    for _ in 0..MOST {
        if input.0.is_empty() {
            break;
        }
        attacker.act(&mut input).await;
    }
    // While all that is still on its way.
    asks(&client, &to).await;
    sleep(Duration::from_secs(1)).await;
    asks(&client, &to).await;
    drop(attacker);
    sleep(GONE).await;
    asks(&client, &to).await;
    assert_eq!(peer.node.peers().len(), 1, "who has gone is still there");
    assert_eq!(world.connections(), 1, "a connection that nobody has");
    peer.gossip.stop().await;
    client.shutdown().await;
    peer.node.shutdown().await;
    Some(())
}

/// See the module's text.
pub fn stateful(data: &[u8]) {
    let Ok(runtime) = Builder::new_current_thread().enable_time().start_paused(true).build() else { return };
    let ran = runtime.block_on(async { timeout(GONE * 100, run(data)).await });
    assert_eq!(ran, Ok(Some(())), "the peer can't be started, or hangs");
}
