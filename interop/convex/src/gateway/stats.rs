//! What a gateway counts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use peerlane_transport::{Connection, ConnectionStats, identity::PeerId};

use crate::Kind;

/// Kinds that a frame of today's wire can be, in the order of [`GatewayStats`]' counters.
const KINDS: [Kind; 13] = [
    Kind::Status,
    Kind::Ping,
    Kind::Challenge,
    Kind::Query,
    Kind::LatticeQuery,
    Kind::Transact,
    Kind::Result,
    Kind::DataRequest,
    Kind::Data,
    Kind::Belief,
    Kind::LatticeValue,
    Kind::Goodbye,
    Kind::Unknown,
];

/// Messages and their bytes, one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// One kind's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindTraffic {
    /// The kind.
    pub kind: Kind,
    /// From the local peer to the remote one.
    pub out: Traffic,
    /// From the remote peer to the local one.
    pub inward: Traffic,
}

/// What happened with one remote gateway.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerStats {
    /// Whose.
    pub peer: PeerId,
    /// Connections now.
    pub open: u64,
    /// Connections since the start, and how many of them the local peer asked for.
    pub opened: u64,
    /// Those that the local peer asked for.
    pub dialed: u64,
    /// Dials of the remote gateway that failed.
    pub dials_failed: u64,
    /// Dials of the local peer that failed.
    pub local_failed: u64,
    /// Connections refused because there were too many.
    pub refused: u64,
    /// Connections that ended otherwise than by either peer's wish.
    pub lost: u64,
    /// By kind.
    pub kinds: Vec<KindTraffic>,
    /// Of each connection that is open now.
    pub connections: Vec<ConnectionStats>,
}

/// What a gateway has counted since it started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayStats {
    /// By remote gateway.
    pub peers: Vec<PeerStats>,
    /// Bytes that the gateway itself holds now, beside its connections' queues.
    pub held: u64,
    /// The most that it held at any moment.
    pub held_peak: u64,
    /// Arrivals that never became a connection.
    pub accepts_failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    peers: Mutex<BTreeMap<PeerId, Arc<PeerCounters>>>,
    held: AtomicU64,
    held_peak: AtomicU64,
    pub(super) accepts_failed: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct PeerCounters {
    pub(super) opened: AtomicU64,
    pub(super) dialed: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) local_failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) lost: AtomicU64,
    kinds: [[AtomicU64; 4]; KINDS.len()],
    /// Bounded by the limit of connections per peer.
    connections: Mutex<Vec<Connection>>,
    /// What went wrong last: peers try again twice a second, and a log line says it once.
    trouble: Mutex<Option<String>>,
}

/// Bytes held somewhere, counted until it's dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    stats: &'a Stats,
    bytes: u64,
}

impl Held<'_> {
    pub(super) fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes > self.bytes {
            let now = self.stats.held.fetch_add(bytes - self.bytes, Relaxed) + (bytes - self.bytes);
            self.stats.held_peak.fetch_max(now, Relaxed);
        } else {
            self.stats.held.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl<'a> Held<'a> {
    /// Another place of the same gateway, empty.
    pub(super) fn another(&self) -> Held<'a> {
        self.stats.held()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Stats {
    pub(super) fn held(&self) -> Held<'_> {
        Held { stats: self, bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn held_peak(&self) -> u64 {
        self.held_peak.load(Relaxed)
    }

    /// The counters of a peer. Those of unknown ones are bounded by `most`; beyond, all share one.
    pub(super) fn peer(&self, peer: PeerId, most: usize) -> Arc<PeerCounters> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains_key(&peer) && peers.len() >= most {
            return Arc::default();
        }
        peers.entry(peer).or_default().clone()
    }

    pub(super) fn snapshot(&self) -> GatewayStats {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        GatewayStats {
            peers: peers.iter().map(|(peer, counters)| counters.snapshot(*peer)).collect(),
            held: self.held.load(Relaxed),
            held_peak: self.held_peak.load(Relaxed),
            accepts_failed: self.accepts_failed.load(Relaxed),
        }
    }
}

impl PeerCounters {
    /// A message has passed: `out` from the local peer to the remote one.
    pub(super) fn passed(&self, kind: Kind, len: u64, out: bool) {
        let place = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1);
        let way = if out { 0 } else { 2 };
        self.kinds[place][way].fetch_add(1, Relaxed);
        self.kinds[place][way + 1].fetch_add(len, Relaxed);
    }

    /// Whether this trouble is news.
    pub(super) fn trouble(&self, what: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = trouble.as_deref() != Some(what);
        *trouble = Some(what.into());
        news
    }

    /// It works. Whether there was trouble.
    pub(super) fn fine(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// Notes a connection, if fewer than `most` are open.
    pub(super) fn add(&self, connection: &Connection, most: usize) -> bool {
        let mut connections = self.connections();
        let fits = connections.len() < most;
        if fits {
            connections.push(connection.clone());
            self.opened.fetch_add(1, Relaxed);
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
        fits
    }

    pub(super) fn remove(&self, connection: &Connection) {
        self.connections().retain(|open| open.stable_id() != connection.stable_id());
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self, peer: PeerId) -> PeerStats {
        let connections: Vec<Connection> = self.connections().clone();
        let traffic = |counters: &[AtomicU64]| Traffic {
            messages: counters.first().map_or(0, |counter| counter.load(Relaxed)),
            bytes: counters.get(1).map_or(0, |counter| counter.load(Relaxed)),
        };
        let kinds = KINDS.iter().zip(&self.kinds);
        PeerStats {
            peer,
            open: connections.len() as u64,
            opened: self.opened.load(Relaxed),
            dialed: self.dialed.load(Relaxed),
            dials_failed: self.dials_failed.load(Relaxed),
            local_failed: self.local_failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            lost: self.lost.load(Relaxed),
            kinds: kinds.map(|(kind, c)| KindTraffic { kind: *kind, out: traffic(&c[..2]), inward: traffic(&c[2..]) }).collect(),
            connections: connections.iter().map(Connection::stats).collect(),
        }
    }
}
