//! Peers on loopback, ours and made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use peerlane_tcp::{Carriers, TcpConfig, TcpListener, TcpTransport};
use peerlane_transport::{
    ClassId, ConnectError, Connection, Inbound, Listener, Transport, Upgrade,
    admission::{Gate, GateConfig, ListSets, Lists, LocalPeer, Terms},
    hello,
    identity::{Identity, PeerAddr, PeerId, TlsOptions, server_name},
};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub const CONTROL: ClassId = ClassId(0);
pub const QUERY: ClassId = ClassId(1);
pub const TRANSACT: ClassId = ClassId(2);
pub const DATA: ClassId = ClassId(3);
pub const BELIEF: ClassId = ClassId(4);

/// A test that hangs is a test that fails.
pub async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

pub struct Node {
    pub local: LocalPeer,
    pub transport: TcpTransport,
}

impl Node {
    pub fn new(seed: u8) -> Self {
        Self::with(seed, "test", |_| {}, TcpConfig::default())
    }

    pub fn with(seed: u8, network: &str, change: impl FnOnce(&mut LocalPeer), config: TcpConfig) -> Self {
        let identity = Identity::from_seed(&[seed; 32]).unwrap();
        let mut local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), Terms::new(network).unwrap()).unwrap();
        change(&mut local);
        Self { transport: TcpTransport::new(local.clone(), config).unwrap(), local }
    }

    pub fn with_gate(seed: u8, config: GateConfig) -> Self {
        Self::with(seed, "test", |local| local.gate = Gate::new(config), TcpConfig::default())
    }

    pub fn id(&self) -> PeerId {
        self.local.peer_id()
    }

    pub fn block(&self, peers: &[PeerId]) {
        self.local.lists.replace(ListSets { block: peers.iter().copied().collect(), ..ListSets::default() });
    }

    pub fn allow(&self, peers: &[PeerId]) {
        self.local.lists.replace(ListSets { allow: Some(peers.iter().copied().collect()), ..ListSets::default() });
    }

    pub async fn listen(&self) -> (TcpListener, PeerAddr) {
        let listener = self.transport.listen(&any()).await.unwrap();
        let addr = PeerAddr::new(self.id(), listener.local());
        (listener, addr)
    }

    /// A dialer's configuration for a peer made by hand.
    pub fn client(&self) -> ClientConfig {
        self.local.tls.client_config(&TlsOptions::default()).unwrap()
    }

    /// A listener's.
    pub fn server(&self) -> ServerConfig {
        self.local.tls.server_config(&TlsOptions::default()).unwrap()
    }
}

/// The default, on one TCP connection: for tests that count handshakes.
pub fn one_carrier() -> TcpConfig {
    let mut config = TcpConfig::default();
    config.carriers = Carriers::One;
    config
}

/// Waits until a condition holds that nothing tells of.
pub async fn until(mut condition: impl FnMut() -> bool) {
    bounded(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub type Ended = Result<Connection, ConnectError>;

/// Dials, and does the handshake of one arrival: what both sides say.
pub async fn try_meet(dialer: &Node, listener: &mut TcpListener, addr: &PeerAddr) -> (Ended, Ended) {
    let accepting = async { listener.accept().await.unwrap().upgrade().await };
    bounded(async { tokio::join!(dialer.transport.dial(addr), accepting) }).await
}

pub async fn meet(dialer: &Node, other: &Node) -> (Connection, Connection) {
    let (mut listener, addr) = other.listen().await;
    let (dialed, accepted) = try_meet(dialer, &mut listener, &addr).await;
    (dialed.unwrap(), accepted.unwrap())
}

/// A peer made by hand, after hello: bytes as they come. With a receive buffer of so many bytes, if that matters.
pub async fn by_hand(
    node: &Node,
    addr: &PeerAddr,
    to: SocketAddr,
    receive_buffer: Option<u32>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let stream = socket.connect(to).await.unwrap();
    let mut tls = TlsConnector::from(Arc::new(node.client())).connect(server_name(&addr.id).unwrap(), stream).await.unwrap();
    hello::exchange(&mut tls, &node.local.terms, Ok(())).await.unwrap();
    tls
}

/// A dialer made by hand: the result of its TLS handshake.
pub async fn dial_by_hand(
    config: ClientConfig,
    peer: PeerId,
    to: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(Arc::new(config)).connect(server_name(&peer).unwrap(), stream).await
}

/// A listener made by hand: where it is, and the result of its first TLS handshake.
pub async fn listen_by_hand(
    config: ServerConfig,
) -> (SocketAddr, tokio::task::JoinHandle<std::io::Result<tokio_rustls::server::TlsStream<TcpStream>>>) {
    let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        TlsAcceptor::from(Arc::new(config)).accept(stream).await
    });
    (addr, accepting)
}

pub async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match connection.recv(class).await.unwrap() {
        Inbound::Whole(bytes) => bytes,
        Inbound::Streamed(_) => panic!("streamed"),
    }
}

/// `len` bytes that differ with the seed and along the message.
pub fn pattern(len: usize, seed: u64) -> Bytes {
    let mut bytes = BytesMut::zeroed(len);
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.freeze()
}
