//! Two peers in a world.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use peerlane_sim::{Link, SimListener, SimTransport, World};
use peerlane_transport::{
    ClassId, ConnectError, Connection, Inbound, Listener, Transport, Upgrade,
    admission::Terms,
    identity::{Identity, PeerAddr, PeerId},
};

pub const QUERY: ClassId = ClassId(1);
pub const TRANSACT: ClassId = ClassId(2);
pub const DATA: ClassId = ClassId(3);
pub const BELIEF: ClassId = ClassId(4);

/// Runs a scenario on virtual time, of which it has an hour: one that hangs fails.
pub fn run<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3600), scenario).await.unwrap() })
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn peer(n: u8) -> PeerId {
    Identity::from_seed(&[n; 32]).unwrap().peer_id()
}

pub fn terms() -> Terms {
    Terms::new("test").unwrap()
}

pub fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

pub async fn listen(transport: &SimTransport) -> (SimListener, PeerAddr) {
    let listener = transport.listen(&"0.0.0.0:0".parse().unwrap()).await.unwrap();
    let addr = PeerAddr::new(transport.peer_id(), listener.local());
    (listener, addr)
}

/// Both ends of an attempt.
pub async fn meet(from: &SimTransport, to: &SimTransport) -> (Result<Connection, ConnectError>, Result<Connection, ConnectError>) {
    let (mut listener, addr) = listen(to).await;
    tokio::join!(from.dial(&addr), async { listener.accept().await.unwrap().upgrade().await })
}

pub async fn connect(world: &World, from: u8, to: u8, terms: &Terms) -> (Connection, Connection) {
    let (a, b) = meet(&world.transport(peer(from), terms.clone()), &world.transport(peer(to), terms.clone())).await;
    (a.unwrap(), b.unwrap())
}

/// A world of peers 1 and 2 with this link between them, connected.
pub async fn pair(seed: u64, link: Link) -> (World, Connection, Connection) {
    let world = World::new(seed);
    world.set_link(&peer(1), &peer(2), link);
    let (a, b) = connect(&world, 1, 2, &terms()).await;
    (world, a, b)
}

pub async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match connection.recv(class).await.unwrap() {
        Inbound::Whole(bytes) => bytes,
        Inbound::Streamed(_) => panic!("streamed"),
    }
}
