//! A gateway beside a peer that has only TCP: its peer-to-peer traffic crosses the internet over peerlane, a class for each kind of message.
//!
//! The local peer connects to an address of the gateway as if to a remote peer; the gateway dials the remote gateway, and that one its own
//! local peer. So each TCP connection of one peer has one peerlane connection and one TCP connection of the other peer, and they end together.
//! Bodies pass byte for byte, IDs as they are; the gateway answers nothing itself.
//!
//! # Provided
//! * Each message in its class, by its kind: a belief of 50 MB delays no QUERY between the gateways, nor does a lost packet of one.
//! * What the wire needs in order stays in order: TRANSACT; BELIEF, DATA and LATTICE_VALUE together.
//! * A message above its class's largest (64 to 512 KiB) passes as a stream; at most 1 MiB is held of any.
//! * Backpressure: a class that isn't taken stops its own lane; the local peer's socket isn't read as long as the next frame's class has
//!   no room.
//! * Only configured gateways are admitted, by key. Connections, handshakes, dials and a connection's first silence are bounded.
//! * When one side ends, what was read of it is delivered, its GOODBYE last, then the other ends. Nothing is sent twice, nothing answered
//!   twice: a lost connection is closed, and the peer that wanted it dials again.
//!
//! # Not provided
//! * Isolation on the two TCP connections to the peers themselves: frames go one at a time, and one that has begun can't be interrupted.
//!   A streamed frame takes its socket for as long as its bytes take to come. Reading can't skip a frame whose class has no room either:
//!   behind a class's send budget (320 KiB of queries, 1 MiB of beliefs) it holds up the others.
//! * Half-closed connections: a peer that has closed its sending side gets no more answers, as with the reference peer itself.
//! * Judging messages: what no peer understands passes too, and gets the answer that the other peer gives it. A frame whose length isn't
//!   canonical or exceeds the limit ends the connection, as it does with the reference peer.

mod config;
mod dial;
mod inward;
mod link;
mod outward;
mod reader;
mod sort;
mod stats;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use peerlane_transport::{
    AnyListener, CloseCode, Connection, ListenError,
    admission::{ListSets, LocalPeer},
    identity::{Host, PeerAddr, PeerId},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{GatewayConfig, GatewayError, GatewayPeer, GatewayPeerError};
pub use sort::gateway_classes;
pub use stats::{GatewayStats, KindTraffic, PeerStats, Traffic};

use dial::{Dialer, Transports};
use link::Link;
use stats::{PeerCounters, Stats};

/// Handshakes of remote gateways at once. Count; core's gate bounds them by address as well.
const UPGRADES: usize = 64;
/// A port that is free for one transport may be taken for the next: so often another one is tried.
const SAME_PORT_ATTEMPTS: usize = 8;
/// Keys whose counters are kept where every key is admitted. Count.
const MOST_PEERS: usize = 1024;

/// A gateway at work. Dropping it ends it at once; [`shutdown`](Self::shutdown) lets connections drain.
#[derive(Debug)]
pub struct Gateway {
    inner: Arc<Inner>,
    listening: Vec<(&'static str, SocketAddr)>,
    locals: Vec<(PeerAddr, SocketAddr)>,
}

#[derive(Debug)]
struct Inner {
    config: GatewayConfig,
    transports: Transports,
    permits: Arc<Semaphore>,
    stats: Stats,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Gateway {
    /// Starts to listen, on both sides. `local` has [`GatewayConfig::terms`]; its lists come to admit the configured gateways alone,
    /// unless the configuration is open. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`GatewayError`], naming the address that isn't free or the setting that can't be.
    ///
    /// # Cancel safety
    /// Dropping the future frees all addresses.
    pub async fn start(
        local: &LocalPeer,
        transports: Vec<peerlane_transport::AnyTransport<PeerAddr, SocketAddr>>,
        config: GatewayConfig,
    ) -> Result<Self, GatewayError> {
        if local.terms.classes != gateway_classes() {
            return Err(GatewayError::Config("the classes aren't those of gateways".into()));
        }
        if config.peers.iter().any(|peer| peer.addr.id == local.peer_id()) {
            return Err(GatewayError::Config(
                "a peer has this gateway's own key: each gateway needs one of its own (peerlane key new)".into(),
            ));
        }
        if !config.open {
            let allow: HashSet<PeerId> = config.peers.iter().map(|peer| peer.addr.id).collect();
            local.lists.replace(ListSets { allow: Some(allow), ..ListSets::default() });
        }
        // Their handshakes have a budget of their own.
        local.gate.configure(config.peers.iter().filter_map(|peer| match &peer.addr.host {
            Host::Address(addr) => Some(addr.ip()),
            Host::Name(..) => None,
        }));
        let arrivals = bind(&transports, config.listen).await?;
        let mut doors = Vec::new();
        for peer in &config.peers {
            let Some(addr) = peer.local else { continue };
            let failed = |source| GatewayError::Local {
                peer: Box::new(peer.addr.clone()),
                source: ListenError::Bind { addr: addr.to_string(), source },
            };
            let listener = TcpListener::bind(addr).await.map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            doors.push((peer.addr.clone(), local, listener));
        }
        let listening = arrivals.iter().map(|(name, listener)| (*name, listener.local())).collect();
        let locals = doors.iter().map(|(peer, local, _)| (peer.clone(), *local)).collect();
        let inner = Arc::new(Inner {
            permits: Arc::new(Semaphore::new(config.connections)),
            config,
            transports,
            stats: Stats::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        for peer in &inner.config.peers {
            inner.counters(peer.addr.id);
        }
        for (name, listener) in arrivals {
            inner.tasks.spawn(inner.clone().arrivals(name, listener));
        }
        for (peer, _, listener) in doors {
            inner.tasks.spawn(inner.clone().local(Arc::new(Dialer::new(peer)), listener));
        }
        inner.tasks.close();
        Ok(Self { inner, listening, locals })
    }

    /// Where remote gateways arrive, by transport.
    pub fn listening(&self) -> &[(&'static str, SocketAddr)] {
        &self.listening
    }

    /// What stands for each remote peer: where the local one connects.
    pub fn locals(&self) -> &[(PeerAddr, SocketAddr)] {
        &self.locals
    }

    /// What has been counted so far.
    pub fn stats(&self) -> GatewayStats {
        self.inner.stats.snapshot()
    }

    /// Takes no new connections; what was read on those that are open is delivered, then they end. Takes as long as their
    /// drain timeout and two seconds at most.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the tasks that are under way.
    pub async fn shutdown(self) {
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
        for transport in &self.inner.transports {
            let _ = timeout(Duration::from_millis(250), transport.idle()).await;
        }
    }
}

/// Listens with all transports at one address. With port 0, all get the same free port.
async fn bind(transports: &Transports, addr: SocketAddr) -> Result<Vec<(&'static str, AnyListener<SocketAddr>)>, GatewayError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (mut at, mut bound, mut taken) = (addr, Vec::new(), None);
        for transport in transports {
            match transport.listen(&at).await {
                Ok(listener) => {
                    at.set_port(listener.local().port());
                    bound.push((transport.name(), listener));
                }
                Err(source) => {
                    taken = Some(GatewayError::Listen { transport: transport.name(), source });
                    break;
                }
            }
        }
        match taken {
            None => return Ok(bound),
            Some(_) if addr.port() == 0 && !bound.is_empty() && attempt < SAME_PORT_ATTEMPTS => {}
            Some(error) => return Err(error),
        }
    }
}

impl Inner {
    fn counters(&self, peer: PeerId) -> Arc<PeerCounters> {
        self.stats.peer(peer, self.config.peers.len().max(MOST_PEERS))
    }

    /// Takes the local peer's connections that stand for one remote peer.
    async fn local(self: Arc<Self>, dialer: Arc<Dialer>, listener: TcpListener) {
        let counters = self.counters(dialer.addr().id);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => match self.permits.clone().try_acquire_owned() {
                    Ok(permit) => drop(self.tasks.spawn(self.clone().dialed(dialer.clone(), counters.clone(), socket, permit))),
                    // Closed as it's dropped.
                    Err(_) => {
                        counters.refused.fetch_add(1, Ordering::Relaxed);
                        let what = format!("the limit of {} connections is reached", self.config.connections);
                        self.trouble(&counters, dialer.addr().id, &what);
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection of the local peer failed");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A connection of the local peer, which waits, unread, until the remote gateway is there.
    async fn dialed(self: Arc<Self>, dialer: Arc<Dialer>, counters: Arc<PeerCounters>, socket: TcpStream, permit: OwnedSemaphorePermit) {
        let _permit = permit;
        counters.dialed.fetch_add(1, Ordering::Relaxed);
        let dialing = dialer.dial(&self.transports, self.config.race_stagger, self.config.dial_timeout);
        let dialed = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            dialed = dialing => dialed,
        };
        match dialed {
            Ok(connection) => self.link(dialer.addr().id, &counters, socket, connection).await,
            Err(error) => {
                counters.dials_failed.fetch_add(1, Ordering::Relaxed);
                self.trouble(&counters, dialer.addr().id, &error.to_string());
            }
        }
    }

    /// Takes remote gateways.
    async fn arrivals(self: Arc<Self>, transport: &'static str, mut listener: AnyListener<SocketAddr>) {
        let permits = Arc::new(Semaphore::new(UPGRADES));
        loop {
            // The bound: a handshake holds its permit, and the next arrival waits in the listener's own queue.
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let arrival = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                arrival = listener.accept() => arrival,
            };
            let upgrade = match arrival {
                Ok(upgrade) => upgrade,
                Err(error) => {
                    tracing::error!(transport, %error, "no remote gateway can come in any more; start the gateway again");
                    return;
                }
            };
            let inner = self.clone();
            self.tasks.spawn(async move {
                let from = upgrade.remote_addr().to_owned();
                let upgraded = tokio::select! {
                    biased;
                    () = inner.stop.cancelled() => return,
                    upgraded = upgrade.upgrade() => upgraded,
                };
                drop(permit);
                match upgraded {
                    Ok(connection) => inner.arrived(connection).await,
                    Err(error) => {
                        inner.stats.accepts_failed.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(%from, transport, %error, "an arrival was refused");
                    }
                }
            });
        }
    }

    /// A connection of a remote gateway: the local peer is dialed for it.
    async fn arrived(&self, connection: Connection) {
        let Some(peer) = connection.remote().peer_id() else {
            return connection.close(CloseCode::NotAdmitted, "a gateway proves its key");
        };
        let counters = self.counters(peer);
        let Ok(_permit) = self.permits.clone().try_acquire_owned() else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            self.trouble(&counters, peer, &format!("the limit of {} connections is reached", self.config.connections));
            return connection.close(CloseCode::Overloaded, "the gateway has too many connections");
        };
        let dialed = timeout(self.config.dial_timeout, TcpStream::connect(&self.config.local)).await;
        let why = match dialed {
            Ok(Ok(socket)) => return self.link(peer, &counters, socket, connection).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.config.dial_timeout),
        };
        counters.local_failed.fetch_add(1, Ordering::Relaxed);
        let what = format!("the local peer at {} can't be reached: {why}; is it running, and is --local its address?", self.config.local);
        self.trouble(&counters, peer, &what);
        // The other operator learns that it isn't the gateway.
        connection.close(CloseCode::Application, &format!("the peer behind this gateway can't be reached: {why}"));
    }

    /// Ties the two together until they end.
    async fn link(&self, peer: PeerId, counters: &PeerCounters, socket: TcpStream, connection: Connection) {
        if !counters.add(&connection, self.config.connections_per_peer) {
            self.trouble(counters, peer, &format!("the limit of {} connections with it is reached", self.config.connections_per_peer));
            return connection.close(CloseCode::Overloaded, "too many connections between these gateways");
        }
        // Small frames mustn't wait for a delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        let (transport, dialed) = (connection.transport(), connection.dialed());
        tracing::info!(%peer, transport, dialed, addr = connection.remote_addr(), "connected");
        let link =
            Link { stats: &self.stats, counters, stop: &self.stop, max_frame: self.config.max_frame, first_frame: self.config.first_frame };
        let end = link.run(socket, &connection).await;
        counters.remove(&connection);
        if end.is_orderly() {
            if counters.fine() {
                tracing::warn!(%peer, "works again");
            }
            tracing::info!(%peer, transport, dialed, %end, "ended");
        } else {
            counters.lost.fetch_add(1, Ordering::Relaxed);
            self.trouble(counters, peer, &end.to_string());
        }
    }

    /// Says what went wrong, once until it's something else.
    fn trouble(&self, counters: &PeerCounters, peer: PeerId, what: &str) {
        if counters.trouble(what) {
            tracing::warn!(%peer, "{what}");
        } else {
            tracing::debug!(%peer, "{what}");
        }
    }
}
