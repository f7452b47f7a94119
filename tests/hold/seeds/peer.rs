//! A reference peer that dies and comes back from its disk, and what it sees of the order of things.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use peerlane::{
    cad015::{Cad015, Message, MessageType},
    cell::Profile,
    node::{Context, Handler, Node, NodeConfig, StreamReader},
    peer::{Gossip, PeerHandler, Service, Simulation, Store},
};
use peerlane_sim::World;
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr, PeerId},
};
use tokio::{sync::Notify, time::sleep};

use super::disk::Disk;
use crate::client::{NETWORK, Wrong, attempt_of, profile};

/// Where every peer listens on its own host.
const PORT: u16 = 4000;
/// 2026-01-01, milliseconds since 1970: when every world begins.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// How long the disk takes for anything.
const DISK: Duration = Duration::from_millis(4);

pub fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[n; 32]).unwrap())
}

/// Times short enough for all of them to pass within a run.
pub fn local(identity: &Identity) -> LocalPeer {
    let mut terms = Terms::new(NETWORK).unwrap();
    (terms.limits.idle_timeout, terms.limits.ping_interval) = (Duration::from_millis(800), Duration::from_millis(200));
    terms.limits.quiet_ping_interval = Duration::from_millis(300);
    LocalPeer::new(identity, Arc::new(Lists::everybody()), terms).unwrap()
}

pub fn config() -> NodeConfig {
    crate::config(|config| (config.backoff_max, config.dial_timeout) = (Duration::from_millis(500), Duration::from_secs(1)))
}

pub fn addr(world: &World, id: PeerId) -> PeerAddr {
    PeerAddr::new(id, (world.host(id), PORT).into())
}

/// TRANSACTs as one peer has handled them: by client, the number of the last attempt. Over all of the peer's lives.
#[derive(Debug, Clone, Default)]
pub struct Order {
    last: Arc<Mutex<BTreeMap<PeerId, u64>>>,
    wrong: Wrong,
}

impl Order {
    /// A client's attempts have rising numbers, and TRANSACT is a Fifo class: what comes is newer than what came.
    fn came(&self, from: PeerId, attempt: Option<u64>) {
        let Some(attempt) = attempt else { return self.wrong.lock().unwrap().push("a TRANSACT without its number".into()) };
        let last = self.last.lock().unwrap().insert(from, attempt);
        if last.is_some_and(|last| last >= attempt) {
            self.wrong.lock().unwrap().push(format!("Fifo: attempt {attempt} of {from} was handled after {last:?}"));
        }
    }
}

struct Watched {
    handler: PeerHandler,
    order: Order,
}

impl Handler<Cad015> for Watched {
    async fn handle(&self, context: Context<Cad015>, message: Message) {
        if message.kind == MessageType::Transact {
            self.order.came(context.peer_id().unwrap(), attempt_of(&message));
        }
        self.handler.handle(context, message).await;
    }

    async fn handle_streamed(&self, context: Context<Cad015>, head: Option<Message>, body: StreamReader) {
        self.handler.handle_streamed(context, head, body).await;
    }
}

/// What runs while it lives.
struct Life {
    node: Node<Cad015>,
    gossip: Arc<Gossip>,
    store: Arc<Store>,
}

pub struct Peer {
    pub id: PeerId,
    number: u8,
    disk: Disk,
    order: Order,
    lives: u64,
    life: Option<Life>,
    /// Milliseconds by which the clock on its wall is wrong.
    wall: Arc<AtomicI64>,
}

impl Peer {
    pub fn new(number: u8, wrong: Wrong) -> Self {
        let id = identity(number).peer_id();
        Self { id, number, disk: Disk::default(), order: Order { wrong, ..Order::default() }, lives: 0, life: None, wall: Arc::default() }
    }

    /// Somebody sets the clock on the wall, while the peer lives or not.
    pub fn set_wall(&self, wrong_by_ms: i64) {
        self.wall.store(wrong_by_ms, Ordering::Relaxed);
    }

    pub fn alive(&self) -> bool {
        self.life.is_some()
    }

    pub fn store(&self) -> Arc<Store> {
        self.life.as_ref().unwrap().store.clone()
    }

    pub async fn start(&mut self, world: &World, seed: u64, others: &[PeerId]) {
        let identity = identity(self.number);
        let local = local(&identity);
        let (clock, wall) = (world.clone(), self.wall.clone());
        let disk = self.disk.clone();
        let simulation = Simulation::new(DISK, move || {
            let now = Duration::from_millis(EPOCH_MS.saturating_add_signed(wall.load(Ordering::Relaxed))) + clock.elapsed();
            UNIX_EPOCH + now
        });
        let store = Store::simulated(move || disk.clone(), NETWORK, Profile::NATIVE, simulation).expect("the store opens again");
        let (store, changed) = (Arc::new(store), Arc::new(Notify::new()));
        let gossip = Gossip::new(store.clone(), identity.clone(), changed.clone());
        let service = Service::new(store.clone(), self.id, NETWORK, changed);
        let handler = PeerHandler::new(service, gossip.clone(), identity.clone(), NETWORK);
        let handler = Arc::new(Watched { handler, order: self.order.clone() });
        self.lives += 1;
        let node = loop {
            let mut builder = Node::builder(Cad015::new(profile()), local.clone())
                .transport(AnyTransport::new(world.transport_for(&local)))
                .listen(([0, 0, 0, 0], PORT).into())
                .handler(handler.clone())
                .config(config())
                .seed(seed.rotate_left(17) ^ (u64::from(self.number) << 32) ^ self.lives);
            for other in others.iter().filter(|other| **other != self.id) {
                builder = builder.peer(addr(world, *other));
            }
            match builder.start().await {
                Ok(node) => break node,
                // The life before is still letting go of the port.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        };
        gossip.start(node.handle());
        self.life = Some(Life { node, gossip, store });
    }

    /// kill -9: whatever was being done isn't done.
    pub async fn crash(&mut self, rng: &mut impl rand::Rng) {
        let Some(life) = self.life.take() else { return };
        self.disk = self.disk.after_crash(rng);
        drop(life.node);
        life.gossip.stop().await;
    }
}
