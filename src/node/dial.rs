//! Dialing: transports and addresses race, what worked is remembered, lost peers are dialed again, and a peer on a second
//! choice is moved up later.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use peerlane_transport::{
    CloseCode, ConnectError, Connection,
    identity::{Host, IdentityError, PeerAddr, PeerId, RemoteId},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    backoff::Backoff,
    config::ADDRS_PER_PEER,
    connect::attach,
    error::{Attempt, DialError, is_duplicate},
    events::Event,
    peer::Peer,
    runtime::Inner,
    sync::Mutex,
};
use crate::protocol::Protocol;

/// What is known of a peer that was dialed, or is to be.
#[derive(Debug, Default)]
struct KnownPeer {
    /// At most [`ADDRS_PER_PEER`]; the oldest goes first.
    addrs: Vec<PeerAddr>,
    /// It's kept connected.
    keep: bool,
    /// Place of the transport, and the address, that worked last.
    worked: Option<(usize, PeerAddr)>,
    /// A [`keep`] task looks after it.
    kept: bool,
    /// One dial at a time.
    dialing: Arc<tokio::sync::Mutex<()>>,
}

/// How to reach a peer.
struct Route {
    addrs: Vec<PeerAddr>,
    worked: Option<(usize, PeerAddr)>,
    dialing: Arc<tokio::sync::Mutex<()>>,
}

/// Known peers, bounded by [`known_peers`](super::NodeConfig::known_peers).
#[derive(Debug)]
pub(super) struct Known {
    table: Mutex<BTreeMap<PeerId, KnownPeer>>,
    limit: usize,
}

impl Known {
    pub(super) fn new(limit: usize) -> Self {
        Self { table: Mutex::default(), limit: limit.max(1) }
    }

    /// Notes an address. Beyond the bound, one that isn't kept connected is forgotten for it; `false` if all are.
    fn learn(&self, addr: &PeerAddr, keep: bool) -> bool {
        let mut table = self.table.lock();
        if !table.contains_key(&addr.id) && table.len() >= self.limit {
            let Some(spare) = table.iter().find(|(_, known)| !known.keep && !known.kept).map(|(id, _)| *id) else { return false };
            table.remove(&spare);
        }
        let known = table.entry(addr.id).or_default();
        known.keep |= keep;
        if !known.addrs.contains(addr) {
            if known.addrs.len() >= ADDRS_PER_PEER {
                known.addrs.remove(0);
            }
            known.addrs.push(addr.clone());
        }
        true
    }

    /// Stops keeping a peer connected.
    pub(super) fn release(&self, id: &PeerId) {
        if let Some(known) = self.table.lock().get_mut(id) {
            known.keep = false;
        }
    }

    /// Claims the task that looks after a peer.
    fn claim(&self, id: &PeerId) -> bool {
        match self.table.lock().entry(*id) {
            Entry::Occupied(mut known) => !std::mem::replace(&mut known.get_mut().kept, true),
            Entry::Vacant(_) => false,
        }
    }

    /// The task ends, unless the peer is to be kept connected again.
    fn unclaim(&self, id: &PeerId) -> bool {
        let mut table = self.table.lock();
        let Some(known) = table.get_mut(id) else { return true };
        known.kept = known.keep;
        !known.keep
    }

    /// Addresses of the peers that are kept connected, as far as they're no names.
    fn kept_addresses(&self) -> Vec<IpAddr> {
        let table = self.table.lock();
        let kept = table.values().filter(|known| known.keep).flat_map(|known| &known.addrs);
        kept.filter_map(|addr| match &addr.host {
            Host::Address(addr) => Some(addr.ip()),
            Host::Name(..) => None,
        })
        .collect()
    }

    pub(super) fn keeps(&self, id: &PeerId) -> bool {
        self.table.lock().get(id).is_some_and(|known| known.keep)
    }

    fn get(&self, id: &PeerId) -> Option<Route> {
        let table = self.table.lock();
        let KnownPeer { addrs, worked, dialing, .. } = table.get(id)?;
        Some(Route { addrs: addrs.clone(), worked: worked.clone(), dialing: dialing.clone() })
    }

    fn worked(&self, addr: &PeerAddr, rank: usize) {
        if let Some(known) = self.table.lock().get_mut(&addr.id) {
            known.worked = Some((rank, addr.clone()));
        }
    }
}

/// Notes an address and starts the task that looks after its peer. `false`: too many peers are kept already.
pub(super) fn look_after<P: Protocol>(node: &Arc<Inner<P>>, addr: &PeerAddr, keep_connected: bool) -> bool {
    if !node.known.learn(addr, keep_connected) {
        return false;
    }
    if keep_connected {
        // Their handshakes have a budget of their own.
        node.local.gate.configure(node.known.kept_addresses());
    }
    if !node.stopping.is_cancelled() && node.known.claim(&addr.id) {
        node.tasks.spawn(keep(node.clone(), addr.id));
    }
    true
}

/// Connects to a peer at an address, unless it's connected already.
pub(super) async fn connect<P: Protocol>(node: &Arc<Inner<P>>, addr: &PeerAddr) -> Result<Arc<Peer<P::Message>>, DialError> {
    let failed = || DialError { peer: addr.clone(), attempts: Vec::new() };
    if !node.known.learn(addr, false) {
        return Err(failed());
    }
    let peer = dial(node, &addr.id).await?;
    // Looks for a better transport while the peer stays.
    look_after(node, addr, false);
    Ok(peer)
}

/// Connects to a known peer, unless it's connected already.
async fn dial<P: Protocol>(node: &Arc<Inner<P>>, id: &PeerId) -> Result<Arc<Peer<P::Message>>, DialError> {
    let remote = RemoteId::from(*id);
    loop {
        let Some(Route { addrs, worked, dialing }) = node.known.get(id) else { return Err(untried(id, &[])) };
        let _one_at_a_time = dialing.lock().await;
        if let Some(peer) = node.registry.get(&remote) {
            return Ok(peer);
        }
        let ranks: Vec<usize> = (0..node.transports.len()).collect();
        let connection = race(node, &addrs, &ranks, worked).await?;
        match attach(node, connection, true) {
            Ok(peer) => return Ok(peer),
            Err(CloseCode::Shutdown) => return Err(untried(id, &addrs)),
            // The peer has connected to us so many times meanwhile that this one was one too many.
            Err(_) => continue,
        }
    }
}

/// No attempt was made: the peer is known no more, or the node is shutting down.
fn untried(id: &PeerId, addrs: &[PeerAddr]) -> DialError {
    let peer = addrs.first().cloned().unwrap_or_else(|| PeerAddr::new(*id, ([0, 0, 0, 0], 0).into()));
    DialError { peer, attempts: Vec::new() }
}

/// An attempt under way: place of its transport, its address, what came of it.
type Attempting<'a> = BoxFuture<'a, (usize, &'a PeerAddr, Result<Connection, ConnectError>)>;

/// Tries all addresses over the transports of these ranks, each a little later than the one before; the first to
/// complete wins, the others are abandoned.
async fn race<P: Protocol>(
    node: &Arc<Inner<P>>,
    addrs: &[PeerAddr],
    ranks: &[usize],
    worked: Option<(usize, PeerAddr)>,
) -> Result<Connection, DialError> {
    let mut attempts: Vec<(usize, &PeerAddr)> = addrs.iter().flat_map(|addr| ranks.iter().map(move |rank| (*rank, addr))).collect();
    attempts.sort_by_key(|(rank, addr)| worked.as_ref() != Some(&(*rank, (*addr).clone())));
    let mut failed = untried(&node.local.peer_id(), addrs);
    // Bounded by the addresses times the transports.
    let mut open: Vec<(usize, &PeerAddr, Instant)> = Vec::new();
    let racing = async {
        let mut waiting = attempts.into_iter();
        let mut running: FuturesUnordered<Attempting<'_>> = FuturesUnordered::new();
        let mut next_at = Instant::now();
        loop {
            if running.is_empty() && waiting.len() == 0 {
                return None;
            }
            tokio::select! {
                biased;
                Some((rank, addr, outcome)) = running.next(), if !running.is_empty() => {
                    open.retain(|(r, a, _)| (*r, *a) != (rank, addr));
                    match outcome {
                        Ok(connection) => {
                            node.known.worked(addr, rank);
                            return Some(connection);
                        }
                        Err(error) => {
                            note_failure(node, addr, rank, error, &mut failed);
                            next_at = Instant::now();
                        }
                    }
                }
                () = sleep_until(next_at), if waiting.len() > 0 => {
                    if let Some((rank, addr)) = waiting.next() {
                        node.counters.dials.add(1);
                        open.push((rank, addr, Instant::now()));
                        running.push(Box::pin(async move { (rank, addr, one(node, addr, rank).await) }));
                    }
                    next_at = Instant::now() + node.config.race_stagger.min(Duration::from_secs(60));
                }
            }
        }
    };
    let connection = tokio::select! {
        biased;
        () = node.stopping.cancelled() => None,
        connection = timeout(node.config.dial_timeout, racing) => connection.ok().flatten(),
    };
    connection.ok_or_else(|| {
        if !node.stopping.is_cancelled() {
            for (rank, addr, since) in open {
                // To a tenth of a second: it's for people.
                let limit = Duration::from_millis(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX) / 100 * 100);
                note_failure(node, addr, rank, ConnectError::Timeout { what: "connecting", limit }, &mut failed);
            }
        }
        failed
    })
}

fn note_failure<P: Protocol>(node: &Inner<P>, addr: &PeerAddr, rank: usize, error: ConnectError, failed: &mut DialError) {
    let transport = node.transports[rank].name();
    node.counters.dials_failed.add(1);
    tracing::debug!(%addr, transport, %error, "dial failed");
    let error = Arc::new(error);
    let may_retry = error.may_retry() || is_duplicate(&error);
    node.emit(Event::DialFailed { addr: addr.clone(), transport, error: error.clone(), may_retry });
    // Bounded by the addresses times the transports.
    failed.attempts.push(Attempt { transport, addr: addr.clone(), error });
}

/// One attempt. The transport has checked the key; an answer from somebody else is refused here once more.
async fn one<P: Protocol>(node: &Inner<P>, addr: &PeerAddr, rank: usize) -> Result<Connection, ConnectError> {
    if addr.id == node.local.peer_id() {
        return Err(IdentityError::Ourselves.into());
    }
    let connection = node.transports[rank].dial(addr).await?;
    match connection.remote().peer_id() {
        Some(found) if found == addr.id => Ok(connection),
        found => {
            connection.close(CloseCode::WrongKey, "not the key that was dialed");
            Err(found.map_or(ConnectError::Handshake("the peer proved no key".into()), |found| {
                IdentityError::WrongKey { expected: addr.id, found }.into()
            }))
        }
    }
}

/// Looks after a known peer: dials it if it's to be kept connected, and looks for a better transport.
async fn keep<P: Protocol>(node: Arc<Inner<P>>, id: PeerId) {
    let mut keeper = Keeper::new(&node, id);
    loop {
        tokio::select! {
            biased;
            () = node.stopping.cancelled() => return,
            () = keeper.run() => if node.known.unclaim(&id) { return },
        }
    }
}

struct Keeper<'a, P: Protocol> {
    node: &'a Arc<Inner<P>>,
    id: PeerId,
    remote: RemoteId,
    backoff: Backoff,
}

impl<'a, P: Protocol> Keeper<'a, P> {
    fn new(node: &'a Arc<Inner<P>>, id: PeerId) -> Self {
        // A generator of its own: delays don't depend on what other peers do.
        let own = id.as_bytes().iter().fold(node.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
        let backoff = Backoff::new(own, node.config.backoff_min, node.config.backoff_max);
        Self { node, id, remote: id.into(), backoff }
    }

    /// Until there's nothing more to look after.
    async fn run(&mut self) {
        loop {
            let delay = match self.node.registry.get(&self.remote) {
                Some(peer) => self.watch(&peer).await,
                None if !self.node.known.keeps(&self.id) => return,
                None => match dial(self.node, &self.id).await {
                    Ok(_) => continue,
                    Err(error) if error.may_retry() => self.backoff.delay(),
                    Err(_) => self.backoff.jitter(self.node.config.backoff_refused),
                },
            };
            if !self.node.known.keeps(&self.id) {
                continue;
            }
            self.node.emit(Event::RetryIn { peer: self.remote.clone(), delay });
            tokio::select! {
                biased;
                () = self.appears() => {}
                () = sleep(delay) => {}
            }
        }
    }

    /// Until the peer has gone: how long to wait before it's dialed again.
    async fn watch(&mut self, peer: &Peer<P::Message>) -> Duration {
        let since = Instant::now();
        let mut upgrade = self.node.config.upgrade_after;
        let mut look_at = since;
        loop {
            tokio::select! {
                biased;
                () = peer.until(|_| false) => break,
                rank = self.dark(peer, look_at) => {
                    let others = (0..self.node.transports.len()).filter(|other| *other != rank).collect();
                    self.over(others).await;
                    look_at = Instant::now() + self.node.config.probe_timeout;
                }
                () = sleep(upgrade) => {
                    let better = match peer.current() {
                        // Those that are better than the one in use.
                        Some(link) if link.rank > 0 && !peer.is_crowded() => {
                            self.over((0..link.rank.min(self.node.transports.len())).collect()).await
                        }
                        _ => continue,
                    };
                    upgrade = match better {
                        true => self.node.config.upgrade_after,
                        false => self.backoff.jitter(upgrade.saturating_mul(2).min(self.node.config.upgrade_max)),
                    };
                }
            }
        }
        if since.elapsed() >= self.node.config.stable_after {
            self.backoff.reset();
        }
        match peer.gone_for_good() {
            true => self.backoff.jitter(self.node.config.backoff_refused),
            false => self.backoff.delay(),
        }
    }

    /// Waits until the only connection has owed a life sign for too long, though other transports could be tried: the place of its own.
    async fn dark(&self, peer: &Peer<P::Message>, look_at: Instant) -> usize {
        let limit = self.node.config.dark_after.max(Duration::from_millis(1));
        if self.node.transports.len() < 2 {
            std::future::pending().await
        }
        sleep_until(look_at).await;
        loop {
            let link = peer.current().filter(|_| !peer.is_crowded());
            let owed = link.as_ref().and_then(|link| link.connection.unanswered()).unwrap_or_default();
            match link {
                Some(link) if owed >= limit => return link.rank,
                // It can't be owed for so long before this.
                _ => sleep(limit.saturating_sub(owed)).await,
            }
        }
    }

    /// Tries the transports of these ranks. The peer decides with us which connection stays.
    async fn over(&self, ranks: Vec<usize>) -> bool {
        let Some(Route { addrs, dialing, .. }) = self.node.known.get(&self.id) else { return false };
        let _one_at_a_time = dialing.lock().await;
        match race(self.node, &addrs, &ranks, None).await {
            Ok(connection) => attach(self.node, connection, true).is_ok(),
            Err(_) => false,
        }
    }

    /// Waits until the peer is connected, because it dialed us.
    async fn appears(&self) {
        loop {
            let mut changed = std::pin::pin!(self.node.registry.changed.notified());
            changed.as_mut().enable();
            if self.node.registry.get(&self.remote).is_some() {
                return;
            }
            changed.await;
        }
    }
}
