//! Reference peers over the simulator, on virtual time: a slow one, or one that doesn't answer, holds up no other.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::Path, sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use peerlane::{
    cad015::Cad015,
    cell::{MemoryCells, Profile, Reader},
    node::Node,
    peer::{Edit, Gossip, Operation, PeerHandler, Service, Store, Verified},
};
use peerlane_sim::World;
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

const NETWORK: &str = "test";
const SECOND: Duration = Duration::from_secs(1);

struct Peer {
    node: Node<Cad015>,
    store: Arc<Store>,
    gossip: Arc<Gossip>,
    changed: Arc<Notify>,
}

impl Peer {
    async fn start(world: &World, n: u8, store: Store, peers: &[&Self]) -> Self {
        let identity = Arc::new(Identity::from_seed(&[n; 32]).unwrap());
        let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), Terms::new(NETWORK).unwrap()).unwrap();
        let (store, changed) = (Arc::new(store), Arc::new(Notify::new()));
        let gossip = Gossip::new(store.clone(), identity.clone(), changed.clone());
        let service = Service::new(store.clone(), identity.peer_id(), NETWORK, changed.clone());
        let handler = PeerHandler::new(service, gossip.clone(), identity.clone(), NETWORK);
        let mut builder = Node::builder(Cad015::new(Profile::NATIVE.in_network(NETWORK)), local.clone())
            .transport(AnyTransport::new(world.transport_for(&local)))
            .listen("0.0.0.0:0".parse().unwrap())
            .handler(handler)
            .seed(u64::from(n));
        for peer in peers {
            builder = builder.peer(peer.addr());
        }
        let node = builder.start().await.unwrap();
        gossip.start(node.handle());
        Self { node, store, gossip, changed }
    }

    fn addr(&self) -> PeerAddr {
        PeerAddr::new(self.node.peer_id(), self.node.listening()[0].addr)
    }

    fn append(&self, sequence: u64) {
        append(&self.store, sequence);
        self.changed.notify_one();
    }
}

/// An operation of one account, with a value of 20 KB.
fn append(store: &Store, sequence: u64) {
    let mut cells = MemoryCells::default();
    let edit = Edit::Put { key: format!("k{sequence}").into(), value: vec![sequence as u8; 20_000].into() };
    let signed = Operation::sign(&edit, sequence, &SigningKey::from_bytes(&[77; 32]), store.profile(), &mut cells).unwrap();
    let operation = Operation::read(&signed, &Reader::new(store.profile(), &cells)).unwrap();
    let verified = Verified::new(operation, store.profile()).unwrap();
    assert!(store.append(vec![verified], &cells).unwrap()[0].is_ok());
}

fn in_memory() -> Store {
    Store::in_memory(NETWORK, Profile::NATIVE).unwrap()
}

/// Waits until all have the root of the first; how long it took.
async fn converged(peers: &[&Peer], within: Duration) -> Duration {
    let start = Instant::now();
    while !peers.iter().all(|peer| peer.store.root() == peers[0].store.root()) {
        assert!(start.elapsed() <= within, "no common root within {within:?}");
        sleep(SECOND / 100).await;
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_keeps_no_belief_from_the_others_and_misses_nothing() {
    let world = World::new(1);
    let author = Peer::start(&world, 1, in_memory(), &[]).await;
    let quick = Peer::start(&world, 2, in_memory(), &[&author]).await;
    let slow = Peer::start(&world, 3, in_memory(), &[&author]).await;
    let late = Peer::start(&world, 4, in_memory(), &[&author]).await;
    converged(&[&author, &quick, &slow, &late], 5 * SECOND).await;
    while author.node.peers().len() < 3 {
        sleep(SECOND / 100).await;
    }
    // Not a byte of beliefs passes to one of them.
    world.stall(&author.node.peer_id(), &slow.node.peer_id(), "belief");
    let before = slow.store.root();
    for sequence in 1..=100 {
        author.append(sequence);
        let took = converged(&[&author, &quick, &late], SECOND).await;
        assert!(took < SECOND / 2, "operation {sequence} took {took:?}");
    }
    assert_eq!(slow.store.root(), before);
    // What waits for it is one belief, not a hundred.
    let metrics = author.node.metrics_text();
    let waits = |line: &&str| line.starts_with("peerlane_send_queue_bytes") && line.contains("belief");
    let queued: f64 = metrics.lines().filter(waits).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
    assert!(queued < 3_000_000.0, "{queued} bytes wait");
    world.unstall(&author.node.peer_id(), &slow.node.peer_id(), "belief");
    converged(&[&author, &slow], 30 * SECOND).await;
}

/// A store that holds operations and remembers no recent ones: its beliefs name a root, and the rest is asked for.
fn reopened(dir: &Path) -> Store {
    let open = || Store::open(dir, NETWORK, Profile::NATIVE).unwrap();
    let store = open();
    (1..=30).for_each(|sequence| append(&store, sequence));
    drop(store);
    open()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_holds_an_acquisition_up_for_no_longer_than_it_takes_to_ask_another() {
    let world = World::new(2);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let silent = Peer::start(&world, 1, reopened(one.path()), &[]).await;
    let good = Peer::start(&world, 2, reopened(two.path()), &[]).await;
    assert_eq!(silent.store.root(), good.store.root());
    let lacking = Peer::start(&world, 3, in_memory(), &[]).await;
    lacking.node.connect(&silent.addr()).await.unwrap();
    // It says what it has, and gives nothing of it.
    world.stall(&silent.node.peer_id(), &lacking.node.peer_id(), "data");
    while lacking.gossip.counters().received.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        sleep(SECOND / 100).await;
    }
    lacking.node.connect(&good.addr()).await.unwrap();
    let took = converged(&[&good, &lacking], 60 * SECOND).await;
    assert!(took < 8 * SECOND, "{took:?}");
    // Nor does it hold up what comes later.
    let discarded = lacking.gossip.counters().discarded.load(std::sync::atomic::Ordering::Relaxed);
    good.append(31);
    let took = converged(&[&good, &lacking], 5 * SECOND).await;
    assert!(took < SECOND, "{took:?} after {discarded} were discarded");
}
