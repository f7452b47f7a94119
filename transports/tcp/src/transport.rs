//! The transport: one configuration for each role, shared by all its connections.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use peerlane_transport::{
    ConnectError, Connection, ListenError, Transport,
    admission::{LocalPeer, join},
    identity::{PeerAddr, TlsOptions},
};
use rustls::ServerConfig;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    closing::Driven,
    config::TcpConfig,
    dial,
    joins::Joins,
    listener::TcpListener,
    socket::{Settings, Socket},
};

/// TLS 1.3 over TCP. Cheap to clone; clones share sessions to resume.
#[derive(Clone)]
pub struct TcpTransport(pub(crate) Arc<Shared>);

/// What all connections of a transport share.
pub(crate) struct Shared {
    pub(crate) local: LocalPeer,
    pub(crate) config: TcpConfig,
    pub(crate) settings: Settings,
    /// On which carrier each local class goes.
    pub(crate) carriers: Vec<u8>,
    pub(crate) connector: TlsConnector,
    pub(crate) acceptor: Arc<ServerConfig>,
    /// The same with the application protocol of a join. They share tickets with the others.
    pub(crate) join_connector: TlsConnector,
    pub(crate) join_acceptor: Arc<ServerConfig>,
    pub(crate) joins: Arc<Joins<TlsStream<Socket>>>,
    pub(crate) driven: Arc<Driven>,
    pub(crate) full: AtomicU64,
    pub(crate) resumed: AtomicU64,
}

/// TLS handshakes that a transport has completed, in both roles, refused ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshakes {
    /// With certificates and signatures.
    pub full: u64,
    /// With a ticket of an earlier one.
    pub resumed: u64,
}

impl TcpTransport {
    /// A transport of this peer. Opens no connection; tries the options on a socket of its own.
    ///
    /// # Errors
    /// [`ConnectError::Config`] for an option that the system refuses, or carriers that the classes don't have, naming it;
    /// [`ConnectError::Identity`] if TLS can't be configured.
    pub fn new(local: LocalPeer, config: TcpConfig) -> Result<Self, ConnectError> {
        let settings = Settings::new(&config, local.terms.limits.idle_timeout)?;
        let carriers = config.carriers.assign(&local.terms.classes)?;
        let mut options = TlsOptions::default();
        options.key_log = config.key_log;
        let connector = local.tls.client_config(&options)?;
        let acceptor = local.tls.server_config(&options)?;
        let (mut join_connector, mut join_acceptor) = (connector.clone(), acceptor.clone());
        join_connector.alpn_protocols = vec![join::ALPN.to_vec()];
        join_acceptor.alpn_protocols = vec![join::ALPN.to_vec()];
        Ok(Self(Arc::new(Shared {
            local,
            config,
            settings,
            carriers,
            connector: Arc::new(connector).into(),
            acceptor: acceptor.into(),
            join_connector: Arc::new(join_connector).into(),
            join_acceptor: join_acceptor.into(),
            joins: Arc::default(),
            driven: Arc::default(),
            full: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
        })))
    }

    /// How many TLS handshakes were completed, and how.
    pub fn handshakes(&self) -> Handshakes {
        Handshakes { full: self.0.full.load(Ordering::Relaxed), resumed: self.0.resumed.load(Ordering::Relaxed) }
    }
}

impl Shared {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.local.terms.limits.handshake_timeout
    }

    /// TCP connections that one connection may have.
    pub(crate) fn most_carriers(&self) -> u8 {
        self.carriers.iter().max().map_or(1, |carrier| carrier + 1)
    }

    /// When copies leave after their messages, if this side wants any.
    pub(crate) fn copies(&self) -> Option<Duration> {
        self.config.copies.filter(|_| self.most_carriers() > 1)
    }

    /// After how much silence the kernel looks whether a TCP connection without life signs of its own lives.
    pub(crate) fn keep_alive_after(&self) -> Duration {
        let limits = &self.local.terms.limits;
        // The kernel counts in seconds.
        limits.quiet_ping_interval.min(limits.idle_timeout / 3).max(Duration::from_secs(1))
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").field("peer", &self.0.local.peer_id()).field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Transport for TcpTransport {
    type Addr = PeerAddr;
    type Local = SocketAddr;
    type Listener = TcpListener;

    fn name(&self) -> &'static str {
        crate::handshake::NAME
    }

    /// Tries all addresses that the name has, see [`Transport::dial`]. The handshake timeout bounds all of it together.
    async fn dial(&self, addr: &PeerAddr) -> Result<Connection, ConnectError> {
        dial::dial(&self.0, addr).await
    }

    async fn listen(&self, local: &SocketAddr) -> Result<TcpListener, ListenError> {
        TcpListener::bind(self.0.clone(), *local)
    }

    /// Waits for accepted connections too, a second or two at most, and not for living ones. See [`Transport::idle`].
    async fn idle(&self) {
        self.0.driven.idle().await;
    }
}
