//! Endpoint, dialing, accepting.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use peerlane_transport::{
    Closed, ClosedBy, ConnectError, Connection, ListenError, Listener, PathStats, Session, SessionInfo, Transport, Upgrade,
    admission::{Handshake, LocalPeer},
    hello,
    identity::{Challenge, PeerAddr, PeerId, check_alpn, server_name},
};
use quinn::{Connecting, Endpoint, Incoming, crypto::rustls::QuicClientConfig};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::{
    budget::Budget,
    config::{self, EndpointKeys, QuicConfig},
    congestion::Published,
    driver::{Established, MessagePolicy, drive},
    error::{self, close_number},
    runtime::{ConnectionTask, Joined},
    socket::{self, Buffers},
};

/// Between two addresses of one name that are tried at once (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// An address that hasn't completed by then is dialed once more, beside the attempts under way; the first to complete wins. A lost
/// handshake is repeated by QUIC after 0.3, 0.9 and 2.1 s (RFC 9002, section 6.2: each twice as long after the one before), which is
/// too seldom where a third of all packets is lost: a new attempt begins with short pauses. Four round trips make a handshake with
/// its Retry and hello, so a path of more than 250 ms sees one that it didn't need.
const AGAIN: Duration = Duration::from_secs(1);
/// Attempts at an address in one dial: a listener that's slow, not lossy, has so many handshakes to do at most.
const ATTEMPTS: usize = 4;

struct Shared {
    peer: LocalPeer,
    config: QuicConfig,
    keys: EndpointKeys,
    crypto: Arc<QuicClientConfig>,
    /// Of the peers dialed.
    tokens: Arc<dyn quinn::TokenStore>,
    /// Endpoints for dialing, one per address family, bound at the first dial.
    v4: OnceLock<(Endpoint, Buffers)>,
    v6: OnceLock<(Endpoint, Buffers)>,
    connections: AtomicU64,
    /// Endpoints of dropped listeners that still have connections.
    closing: TaskTracker,
}

/// QUIC. Cheap to clone; all clones share their dialing sockets and session store.
#[derive(Clone)]
pub struct QuicTransport(Arc<Shared>);

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport").field("peer", &self.0.peer.peer_id()).field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl QuicTransport {
    /// A transport for this peer. The keys of resets, tokens and connection IDs derive from its identity's secret, so
    /// they're the same after a restart.
    ///
    /// # Errors
    /// [`ConnectError::Config`], [`ConnectError::Identity`].
    pub fn new(peer: LocalPeer, config: QuicConfig) -> Result<Self, ConnectError> {
        let crypto = config::client(&peer, &config)?;
        let keys = EndpointKeys::new(&peer.tls);
        let shared = Shared {
            peer,
            config,
            keys,
            crypto,
            tokens: config::tokens(),
            v4: OnceLock::new(),
            v6: OnceLock::new(),
            connections: AtomicU64::new(0),
            closing: TaskTracker::new(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Moves dialed connections to a new local port, as a change of network does. They live on.
    ///
    /// # Errors
    /// If no new socket can be bound.
    pub fn rebind(&self) -> std::io::Result<()> {
        for (endpoint, any) in [(&self.0.v4, unspecified(false)), (&self.0.v6, unspecified(true))] {
            if let Some((endpoint, _)) = endpoint.get() {
                endpoint.rebind(socket::bind(any, self.0.config.socket_buffer)?.0)?;
            }
        }
        Ok(())
    }

    pub(crate) fn peer(&self) -> &LocalPeer {
        &self.0.peer
    }

    pub(crate) fn config(&self) -> &QuicConfig {
        &self.0.config
    }

    pub(crate) fn keys(&self) -> &EndpointKeys {
        &self.0.keys
    }

    pub(crate) fn crypto(&self) -> &Arc<QuicClientConfig> {
        &self.0.crypto
    }

    pub(crate) fn dialing(&self, v6: bool) -> Result<&(Endpoint, Buffers), ConnectError> {
        let cell = if v6 { &self.0.v6 } else { &self.0.v4 };
        if let Some(endpoint) = cell.get() {
            return Ok(endpoint);
        }
        let (socket, buffers) = socket::bind(unspecified(v6), self.0.config.socket_buffer)?;
        let endpoint = Endpoint::new(self.0.keys.endpoint(), None, socket, Arc::new(Joined))?;
        // Two first dials at once: one's endpoint is kept, the other's has no connection and goes.
        Ok(cell.get_or_init(|| (endpoint, buffers)))
    }

    fn qlog(&self, side: &str) -> Option<quinn::QlogStream> {
        let dir = self.0.config.qlog.as_ref()?;
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{}-{}-{side}-{number}.qlog", &self.0.peer.peer_id().to_string()[..8], std::process::id()));
        let open = std::fs::create_dir_all(dir).and_then(|()| std::fs::File::create(&path));
        match open {
            Ok(file) => {
                let mut qlog = quinn::QlogConfig::default();
                qlog.writer(Box::new(std::io::BufWriter::new(file))).title(Some("peerlane".into()));
                qlog.into_stream()
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no qlog for this connection");
                None
            }
        }
    }

    async fn dial_one(&self, addr: SocketAddr, expected: &PeerId) -> Result<Connection, ConnectError> {
        let (endpoint, buffers) = self.dialing(addr.is_ipv6())?;
        let published = Published::new();
        let mut client = quinn::ClientConfig::new(self.0.crypto.clone());
        client.token_store(self.0.tokens.clone()).transport_config(config::transport(
            &self.0.config,
            &self.0.peer,
            &published,
            self.qlog("dial"),
        ));
        let name = server_name(expected)?;
        let (connecting, task) = ConnectionTask::spawn(|| endpoint.connect_with(client, addr, &name.to_str()));
        let connecting = connecting.map_err(|error| ConnectError::Config(error.to_string()))?;
        self.establish(connecting, task, Some(expected), published, *buffers).await
    }

    /// Handshake, identity, hello, session: the same on both sides.
    async fn establish(
        &self,
        connecting: Connecting,
        task: ConnectionTask,
        expected: Option<&PeerId>,
        published: Arc<Published>,
        buffers: Buffers,
    ) -> Result<Connection, ConnectError> {
        let peer = &self.0.peer;
        let connection = connecting.await.map_err(error::connect)?;
        let guard = CloseOnDrop(Some(connection.clone()));
        let alpn = connection
            .handshake_data()
            .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
            .and_then(|data| data.protocol);
        check_alpn(peerlane_transport::identity::ALPN, alpn.as_deref())?;
        let certificates =
            connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok()).unwrap_or_default();
        let (verdict, judged) = match peer.judge(expected, &certificates) {
            Ok(judged) => (Ok(()), Ok(judged)),
            Err((error, closed)) => (Err(closed), Err(error)),
        };
        let dialed = expected.is_some();
        let streams = if dialed { connection.open_bi().await } else { connection.accept_bi().await };
        let (send, receive) = streams.map_err(error::connect)?;
        let mut control = tokio::io::join(receive, send);
        let exchanged = hello::exchange(&mut control, &peer.terms, verdict).await;
        let (agreed, early) = match exchanged {
            Ok(exchanged) => exchanged,
            Err(ConnectError::Io(io)) => return Err(connection.close_reason().map_or(ConnectError::Io(io), error::connect)),
            Err(error) => {
                // Our own verdict on the identity, or on the hello.
                refuse(&connection, &error);
                return Err(judged.err().map_or(error, ConnectError::from));
            }
        };
        let (id, remote) = judged?;
        connection.set_receive_window(config::receive_window(peer));
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, Challenge::EXPORTER_LABEL, &[])
            .map_err(|_| ConnectError::Handshake("no keying material could be exported".into()))?;
        let info = SessionInfo {
            transport: "quic",
            dialed,
            remote,
            local_addr: connection.local_ip().map_or_else(String::new, |ip| ip.to_string()),
            remote_addr: connection.remote_address().to_string(),
            exporter,
            path: path_stats(&connection, self.0.config.congestion.name(), buffers),
        };
        let (session, handle) = Session::start(info, agreed, peer.terms.classes.clone(), peer.terms.limits.clone());
        session.guard(peer.lists.clone(), id);
        let (receive, send) = control.into_inner();
        let config = &self.0.config;
        let (above, copies) = (config.message_streams, config.copies.clone());
        let messages = MessagePolicy { above, copies, rescue: config.rescue, path: published.clone() };
        let budget = Budget::new(published, config.max_in_flight);
        guard.disarm();
        task.join(drive(Established { connection, control: (send, receive), early, budget, messages }, session)).await;
        Ok(handle)
    }
}

/// Tells the other side why, as QUIC does.
fn refuse(connection: &quinn::Connection, error: &ConnectError) {
    if let ConnectError::Refused(Closed { by: ClosedBy::Local, code, reason }) = error {
        connection.close(close_number(*code), reason.as_bytes());
    }
}

/// An attempt that is dropped or fails leaves no connection behind.
struct CloseOnDrop(Option<quinn::Connection>);

impl CloseOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close(close_number(peerlane_transport::CloseCode::BadHello), b"the handshake was given up");
        }
    }
}

fn unspecified(v6: bool) -> SocketAddr {
    let ip = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}

fn path_stats(connection: &quinn::Connection, congestion: &'static str, buffers: Buffers) -> Box<dyn Fn() -> PathStats + Send + Sync> {
    // The driver closes the connection when the session is over; a handle held here keeps only its counters.
    let connection = connection.clone();
    Box::new(move || {
        let mut path = PathStats::unknown();
        path.congestion_control = Some(congestion.into());
        path.socket_buffers = Some(buffers);
        let stats = connection.stats();
        path.datagrams_sent = Some(stats.frame_tx.datagram);
        let stats = stats.path;
        path.rtt = Some(stats.rtt);
        path.min_rtt = Some(stats.min_rtt);
        path.cwnd = Some(stats.cwnd);
        path.lost = Some(stats.lost_packets);
        path.sent = Some(stats.sent_packets);
        path.mtu = Some(stats.current_mtu);
        path
    })
}

impl Transport for QuicTransport {
    type Addr = PeerAddr;
    type Local = SocketAddr;
    type Listener = QuicListener;

    fn name(&self) -> &'static str {
        "quic"
    }

    async fn dial(&self, addr: &PeerAddr) -> Result<Connection, ConnectError> {
        let limit = self.0.peer.terms.limits.handshake_timeout;
        let deadline = Instant::now() + limit;
        let work = async {
            let unreachable = |source: std::io::Error| ConnectError::Unreachable { addr: addr.to_string(), source };
            let addresses = addr.resolve().await.map_err(|error| unreachable(std::io::Error::other(error)))?;
            let (count, mut begun, mut due) = (addresses.len(), 0, true);
            // Bounded by the addresses times the attempts at each.
            let mut attempts = tokio::task::JoinSet::new();
            let mut last = None;
            loop {
                if due && let Some(next) = addresses.get(begun % count.max(1)).copied() {
                    let (transport, expected) = (self.clone(), addr.id);
                    attempts.spawn(async move { transport.dial_one(next, &expected).await });
                    begun += 1;
                }
                let pause = if begun % count.max(1) == 0 { AGAIN } else { STAGGER };
                due = tokio::select! {
                    biased;
                    done = attempts.join_next() => {
                        match done {
                            Some(Ok(Ok(connection))) => return Ok(connection),
                            Some(Ok(Err(error))) => last = Some(error),
                            Some(Err(error)) => last = Some(ConnectError::Handshake(error.to_string())),
                            None => return Err(last.unwrap_or_else(|| unreachable(std::io::Error::other("the name has no address")))),
                        }
                        // The next address at once; who has refused isn't asked again.
                        begun < count
                    }
                    () = tokio::time::sleep(pause), if begun < count * ATTEMPTS => true,
                };
            }
        };
        timeout_at(deadline, work).await.unwrap_or(Err(ConnectError::Timeout { what: "the QUIC handshake", limit }))
    }

    async fn listen(&self, local: &SocketAddr) -> Result<QuicListener, ListenError> {
        let bind = |source| ListenError::Bind { addr: format!("{local} (UDP)"), source };
        let (socket, buffers) = socket::bind(*local, self.0.config.socket_buffer).map_err(bind)?;
        let server = config::server(&self.0.peer, &self.0.config, &self.0.keys)?;
        let endpoint = Endpoint::new(self.0.keys.endpoint(), Some(server.clone()), socket, Arc::new(Joined)).map_err(bind)?;
        let local = endpoint.local_addr().map_err(bind)?;
        Ok(QuicListener { transport: self.clone(), endpoint, server, local, buffers })
    }

    async fn idle(&self) {
        for (endpoint, _) in [&self.0.v4, &self.0.v6].into_iter().filter_map(OnceLock::get) {
            endpoint.wait_idle().await;
        }
        self.0.closing.close();
        self.0.closing.wait().await;
    }
}

/// A UDP socket where QUIC connections arrive.
pub struct QuicListener {
    transport: QuicTransport,
    endpoint: Endpoint,
    server: quinn::ServerConfig,
    local: SocketAddr,
    buffers: Buffers,
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        // Accepted connections live on; newcomers are refused.
        self.endpoint.set_server_config(None);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let endpoint = self.endpoint.clone();
            self.transport.0.closing.spawn_on(async move { endpoint.wait_idle().await }, &runtime);
        }
    }
}

impl Listener for QuicListener {
    type Local = SocketAddr;
    type Upgrade = QuicUpgrade;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> Result<QuicUpgrade, ListenError> {
        loop {
            let incoming = self.endpoint.accept().await.ok_or(ListenError::Closed)?;
            let (now, gate) = (Instant::now(), &self.transport.0.peer.gate);
            let from = incoming.remote_address();
            if !incoming.remote_address_validated() {
                // A Retry costs us a packet and proves the sender's address; even that has a budget.
                if gate.unvalidated(now).is_err() || incoming.retry().is_err() {
                    tracing::trace!(%from, "an unvalidated Initial is ignored");
                }
                continue;
            }
            match gate.admit(from.ip(), now) {
                Ok(handshake) => {
                    let arrival = Arrival { incoming, server: self.server.clone(), handshake };
                    return Ok(QuicUpgrade { transport: self.transport.clone(), from, arrival, buffers: self.buffers });
                }
                Err(why) => {
                    tracing::debug!(%from, %why, "handshake refused");
                    incoming.refuse();
                }
            }
        }
    }
}

struct Arrival {
    incoming: Incoming,
    server: quinn::ServerConfig,
    handshake: Handshake,
}

/// A QUIC handshake to be done.
pub struct QuicUpgrade {
    transport: QuicTransport,
    from: SocketAddr,
    arrival: Arrival,
    buffers: Buffers,
}

impl Upgrade for QuicUpgrade {
    fn remote_addr(&self) -> String {
        self.from.to_string()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let Self { transport, arrival: Arrival { incoming, mut server, handshake }, buffers, .. } = self;
        let limit = transport.0.peer.terms.limits.handshake_timeout;
        let work = async {
            let published = Published::new();
            server.transport_config(config::transport(&transport.0.config, &transport.0.peer, &published, transport.qlog("accept")));
            let (connecting, task) = ConnectionTask::spawn(|| incoming.accept_with(Arc::new(server)));
            transport.establish(connecting.map_err(error::connect)?, task, None, published, buffers).await
        };
        let connection =
            tokio::time::timeout(limit, work).await.unwrap_or(Err(ConnectError::Timeout { what: "the QUIC handshake", limit }))?;
        handshake.succeeded(Instant::now());
        Ok(connection)
    }
}
