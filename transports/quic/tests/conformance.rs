//! QUIC passes the conformance suite. `PEERLANE_CONFORMANCE=group::check` runs those whose name contains that.
//!
//! Packets go through a proxy on loopback, so that one can be lost on purpose: what QUIC claims beyond TCP is that a
//! lost packet of one class delays no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_transport::{
    ConnectError,
    admission::LocalPeer,
    conformance::{self, Capabilities, Factory},
    identity::{PeerAddr, PeerId},
};
use tokio::{net::UdpSocket, runtime::Handle, sync::Notify, time::timeout};

/// A packet this large has data in it: acknowledgements and the like are smaller.
const WITH_DATA: usize = 300;
/// A proxy that carries nothing for so long ends.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Path {
    lose: AtomicBool,
    lost: Notify,
    cut: AtomicBool,
    /// Listener to its proxy.
    proxies: Mutex<HashMap<SocketAddr, SocketAddr>>,
}

impl Path {
    /// Whether a packet passes.
    fn passes(&self, from_dialer: bool, len: usize) -> bool {
        if from_dialer && len >= WITH_DATA && self.lose.swap(false, Ordering::SeqCst) {
            self.lost.notify_one();
            return false;
        }
        !self.cut.load(Ordering::SeqCst)
    }
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Carries packets between whoever dials the proxy and the listener, each dialer by a socket of its own.
async fn carry(path: Arc<Path>, front: Arc<UdpSocket>, listener: SocketAddr) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    while let Ok(Ok((len, dialer))) = timeout(QUIET, front.recv_from(&mut buffer)).await {
        if let Entry::Vacant(vacant) = backs.entry(dialer) {
            let back = Arc::new(UdpSocket::bind(any()).await.unwrap());
            back.connect(listener).await.unwrap();
            vacant.insert(back.clone());
            let (path, front) = (path.clone(), front.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(received) = timeout(QUIET, back.recv(&mut buffer)).await {
                    // A refused port is told to us; the dialer sees silence, as on a real path.
                    if let Ok(len) = received
                        && path.passes(false, len)
                    {
                        let _ = front.send_to(&buffer[..len], dialer).await;
                    }
                }
            });
        }
        if path.passes(true, len) {
            let _ = backs[&dialer].send(&buffer[..len]).await;
        }
    }
}

struct Quic {
    config: QuicConfig,
    path: Arc<Path>,
    runtime: Handle,
}

impl Factory for Quic {
    type Transport = QuicTransport;

    fn transport(&self, peer: &LocalPeer) -> Result<QuicTransport, ConnectError> {
        QuicTransport::new(peer.clone(), self.config.clone())
    }

    fn local(&self) -> SocketAddr {
        any()
    }

    fn addr(&self, local: &SocketAddr, peer: PeerId) -> PeerAddr {
        let mut proxies = self.path.proxies.lock().unwrap();
        let proxy = *proxies.entry(*local).or_insert_with(|| {
            let front = StdSocket::bind(any()).unwrap();
            front.set_nonblocking(true).unwrap();
            let at = front.local_addr().unwrap();
            let (path, listener) = (self.path.clone(), *local);
            self.runtime.spawn(async move { carry(path, Arc::new(UdpSocket::from_std(front).unwrap()), listener).await });
            at
        });
        PeerAddr::new(peer, proxy)
    }

    fn cut(&self, cut: bool) -> bool {
        self.path.cut.store(cut, Ordering::SeqCst);
        true
    }

    fn lose_next(&self) -> Option<BoxFuture<'static, ()>> {
        let path = self.path.clone();
        path.lose.store(true, Ordering::SeqCst);
        Some(Box::pin(async move { path.lost.notified().await }))
    }
}

#[test]
fn quic_passes() {
    passes(QuicConfig::default());
}

/// As over a long way, where each small urgent message has a stream of its own; and each is copied at once.
#[test]
fn quic_passes_with_a_stream_for_each_message() {
    let mut config = QuicConfig::default();
    config.message_streams = Some(Duration::ZERO);
    config.copies = vec![Duration::ZERO, Duration::from_millis(1)];
    passes(config);
}

fn passes(config: QuicConfig) {
    // The proxy has a runtime of its own: the suite counts the tasks and descriptors of its own one.
    let proxies = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let quic = Quic { config, path: Arc::default(), runtime: proxies.handle().clone() };
    let claims = Capabilities { identity: true, loss_isolated: true, datagrams: true, kernel_queue: true };
    let filter = std::env::var("PEERLANE_CONFORMANCE").unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = runtime.block_on(conformance::run_only(quic, claims, &filter));
    println!("{report}");
    report.assert_passed();
}
