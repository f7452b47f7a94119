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
use tokio::sync::{Notify, broadcast};

use super::{
    config::ENDED_PER_PEER,
    events::Event,
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
    table: Mutex<Table<M>>,
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
    events: broadcast::Sender<Event>,
}

/// The peers, and those that are gone while that isn't told yet.
#[derive(Debug)]
struct Table<M> {
    peers: BTreeMap<RemoteId, Arc<Peer<M>>>,
    /// At most one of an ID: who comes back has its going told first.
    leaving: BTreeMap<RemoteId, (Arc<Peer<M>>, Closed)>,
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
    pub(super) fn new(local: PeerId, classes: usize, requests: usize, limit: usize, seed: u64, events: broadcast::Sender<Event>) -> Self {
        Self {
            table: Mutex::new(Table { peers: BTreeMap::new(), leaving: BTreeMap::new() }),
            changed: Notify::new(),
            numbers: AtomicU64::new(1),
            local,
            classes,
            requests,
            first_ids: Mutex::new(StdRng::seed_from_u64(seed)),
            lingering: Mutex::default(),
            limit,
            seed,
            events,
        }
    }

    /// Adds a connection to its peer, a new one if need be. `wanted`: the bound on peers doesn't hold for it.
    pub(super) fn add(&self, connection: Connection, rank: usize, wanted: bool) -> Added<M> {
        let remote = connection.remote();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.lock();
        let Table { peers, leaving } = &mut *table;
        let link = Arc::new(Link::new(number, connection, rank));
        let peer = match peers.get(&remote.id).filter(|peer| !peer.is_gone()) {
            Some(peer) => peer.clone(),
            None if peers.len() >= self.limit && !wanted => return Added::TooManyPeers,
            None => {
                let peer_id = remote.peer_id();
                let requests = Requests::new(self.requests, self.first_ids.lock().random_range(1..FIRST_IDS));
                let earlier = self.lingering(&remote.id);
                let key = self.key(&remote.id);
                let peer = Arc::new(Peer::new(key, remote.id.clone(), peer_id, &self.local, self.classes, requests, earlier));
                if let Some((_, why)) = leaving.remove(&remote.id) {
                    self.emit(Event::PeerDisconnected { peer: remote.id.clone(), why });
                }
                peers.insert(remote.id, peer.clone());
                peer
            }
        };
        let seated = peer.seat(link.clone());
        if let Seated::First = seated {
            // Under the lock, so that its going can't be told before.
            let (transport, dialed) = (link.connection.transport(), link.connection.dialed());
            self.emit(Event::PeerConnected { peer: peer.id.clone(), transport, dialed });
        }
        drop(table);
        self.changed.notify_waiters();
        match seated {
            Seated::First => Added::First(peer, link),
            Seated::Another => Added::Another(peer, link),
            Seated::TooMany => Added::TooManyLinks,
        }
    }

    /// Takes a peer without links out; whether it was one.
    pub(super) fn remove_if_empty(&self, peer: &Arc<Peer<M>>, closed: &Closed) -> bool {
        let mut table = self.table.lock();
        if !peer.is_empty() || peer.is_gone() {
            return false;
        }
        self.linger(&peer.id, peer.end(closed.clone()));
        if table.peers.get(&peer.id).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            table.peers.remove(&peer.id);
        }
        table.leaving.insert(peer.id.clone(), (peer.clone(), closed.clone()));
        drop(table);
        self.changed.notify_waiters();
        true
    }

    /// Tells that a peer is gone, unless it was told because it's back.
    pub(super) fn say_gone(&self, peer: &Arc<Peer<M>>) {
        let mut table = self.table.lock();
        if table.leaving.get(&peer.id).is_some_and(|(leaving, _)| Arc::ptr_eq(leaving, peer))
            && let Some((_, why)) = table.leaving.remove(&peer.id)
        {
            self.emit(Event::PeerDisconnected { peer: peer.id.clone(), why });
        }
    }

    fn emit(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// The ended connections of a peer that comes back, oldest first: from now on they're the new one's.
    fn lingering(&self, id: &RemoteId) -> Vec<Arc<Link>> {
        let mut lingering = self.lingering.lock();
        let (its, others): (VecDeque<_>, VecDeque<_>) = lingering.drain(..).partition(|(of, _)| of == id);
        *lingering = others;
        its.into_iter().map(|(_, link)| link).filter(|link| link.is_reading()).collect()
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
        self.table.lock().peers.get(id).cloned()
    }

    /// All, in the order of their IDs.
    pub(super) fn peers(&self) -> Vec<Arc<Peer<M>>> {
        self.table.lock().peers.values().cloned().collect()
    }
}
