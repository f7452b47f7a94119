//! Which peers are connected.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use peerlane_transport::{
    Closed, Connection,
    identity::{PeerId, RemoteId},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::Notify;

use super::{
    config::ENDED_PER_PEER,
    link::Link,
    peer::{Peer, Seated},
    queue::PeerKey,
    request::Requests,
    sync::Mutex,
};

/// IDs of requests begin below this: so few of a peer's are open at once that two lives hardly ever share one, and an ID
/// takes six bytes where numbers are written short.
const FIRST_IDS: u64 = 1 << 40;

/// The peers with a connection, by ID. Bounded by [`peers`](super::NodeConfig::peers).
#[derive(Debug)]
pub(super) struct Registry<M> {
    peers: Mutex<BTreeMap<RemoteId, Arc<Peer<M>>>>,
    /// A peer came or went.
    pub(super) changed: Notify,
    numbers: AtomicU64,
    local: PeerId,
    classes: usize,
    requests: usize,
    /// Where the IDs of requests begin.
    first_ids: Mutex<StdRng>,
    /// Ended connections of peers that are gone, while their last messages wait for handlers. At most
    /// [`ENDED_PER_PEER`] of one peer, and `limit` in all.
    lingering: Mutex<VecDeque<(RemoteId, Arc<Link>)>>,
    limit: usize,
    seed: u64,
}

/// What came of a connection.
#[derive(Debug)]
pub(super) enum Added<M> {
    First(Arc<Peer<M>>, Arc<Link>),
    Another(Arc<Peer<M>>, Arc<Link>),
    /// The peer has as many links as it may.
    TooManyLinks,
    /// There are as many peers as may be.
    TooManyPeers,
}

impl<M> Registry<M> {
    pub(super) fn new(local: PeerId, classes: usize, requests: usize, limit: usize, seed: u64) -> Self {
        Self {
            peers: Mutex::default(),
            changed: Notify::new(),
            numbers: AtomicU64::new(1),
            local,
            classes,
            requests,
            first_ids: Mutex::new(StdRng::seed_from_u64(seed)),
            lingering: Mutex::default(),
            limit,
            seed,
        }
    }

    /// Adds a connection to its peer, a new one if need be. `wanted`: the bound on peers doesn't hold for it.
    pub(super) fn add(&self, connection: Connection, rank: usize, wanted: bool) -> Added<M> {
        let remote = connection.remote();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut peers = self.peers.lock();
        let link = Arc::new(Link::new(number, connection, rank));
        let peer = match peers.get(&remote.id).filter(|peer| !peer.is_gone()) {
            Some(peer) => peer.clone(),
            None if peers.len() >= self.limit && !wanted => return Added::TooManyPeers,
            None => {
                let peer_id = remote.peer_id();
                let requests = Requests::new(self.requests, self.first_ids.lock().random_range(1..FIRST_IDS));
                let peer = Arc::new(Peer::new(self.key(&remote.id), remote.id.clone(), peer_id, &self.local, self.classes, requests));
                peers.insert(remote.id, peer.clone());
                peer
            }
        };
        let seated = peer.seat(link.clone());
        drop(peers);
        self.changed.notify_waiters();
        match seated {
            Seated::First => Added::First(peer, link),
            Seated::Another => Added::Another(peer, link),
            Seated::TooMany => Added::TooManyLinks,
        }
    }

    /// Takes a peer without links out; whether it was one.
    pub(super) fn remove_if_empty(&self, peer: &Arc<Peer<M>>, closed: &Closed) -> bool {
        let mut peers = self.peers.lock();
        if !peer.is_empty() || peer.is_gone() {
            return false;
        }
        self.linger(&peer.id, peer.end(closed.clone()));
        if peers.get(&peer.id).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.id);
        }
        drop(peers);
        self.changed.notify_waiters();
        true
    }

    /// See [`PeerKey`].
    fn key(&self, id: &RemoteId) -> PeerKey {
        let mut hasher = DefaultHasher::new();
        (self.seed, id).hash(&mut hasher);
        hasher.finish()
    }

    /// Keeps ended connections whose last messages are still to be handled; the oldest are given up beyond the bounds, or
    /// who comes back again and again would fill our memory.
    fn linger(&self, id: &RemoteId, links: Vec<Arc<Link>>) {
        let mut lingering = self.lingering.lock();
        lingering.retain(|(_, link)| link.is_reading());
        lingering.extend(links.into_iter().map(|link| (id.clone(), link)));
        while lingering.iter().filter(|(of, _)| of == id).count() > ENDED_PER_PEER {
            let Some(oldest) = lingering.iter().position(|(of, _)| of == id) else { break };
            lingering.remove(oldest).into_iter().for_each(|(_, link)| link.abandon.cancel());
        }
        while lingering.len() > self.limit.max(ENDED_PER_PEER) {
            lingering.pop_front().into_iter().for_each(|(_, link)| link.abandon.cancel());
        }
    }

    pub(super) fn get(&self, id: &RemoteId) -> Option<Arc<Peer<M>>> {
        self.peers.lock().get(id).cloned()
    }

    /// All, in the order of their IDs.
    pub(super) fn peers(&self) -> Vec<Arc<Peer<M>>> {
        self.peers.lock().values().cloned().collect()
    }
}
