//! A path that carries nothing for a while: a connection survives what's shorter than its idle timeout, ends as timed out by what's
//! longer, and is soon replaced when the path returns.
//!
//! The clock is tokio's, which stands while somebody works: half a minute of darkness takes no time, and no machine is too slow. The
//! path is a proxy on loopback: UDP that comes while it's dark is lost; TCP's bytes wait, as in a sender's kernel. What the kernel's
//! own retransmissions add to a return isn't seen here.

use std::time::Duration;

use peerlane::{
    cad015::Cad015,
    cell::Profile,
    node::{Event, Node},
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{AnyTransport, CloseCode, Connection, Listener, Transport, Upgrade, admission::LocalPeer, identity::PeerAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Blocked, Proxy, Rules, local, quic, seed, transfers};

/// One way.
const DELAY: Duration = Duration::from_millis(5);
/// The default's, of both sides.
const IDLE: Duration = Duration::from_secs(30);

/// A path that can be darkened.
enum Path {
    Udp(Proxy),
    Tcp(watch::Sender<bool>),
}

impl Path {
    fn darken(&self, dark: bool) {
        match self {
            Self::Udp(proxy) => {
                let blocked = if dark { Blocked::Both } else { Blocked::Neither };
                proxy.set(Rules { delay: DELAY, blocked, ..Rules::default() });
            }
            Self::Tcp(gate) => drop(gate.send_replace(dark)),
        }
    }
}

/// The kernel's timers, those of delayed acknowledgements say, go by the real clock. So that ours doesn't run away meanwhile, it needs
/// a millisecond for each 100 of its own: tokio's stands while a blocking task runs.
pub async fn pace() {
    loop {
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

/// Passes TCP on to a target while it isn't dark; the address to dial.
async fn tcp_path(target: std::net::SocketAddr) -> (std::net::SocketAddr, Path) {
    tokio::spawn(pace());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (gate, dark) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(target).await else { continue };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
                let mut dark = dark.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(length @ 1..) = from.read(&mut buffer).await {
                        sleep(DELAY).await;
                        if dark.wait_for(|dark| !dark).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (addr, Path::Tcp(gate))
}

/// Two ends of one connection, over a path, with what keeps them.
struct Ends {
    dialer: Connection,
    listener: Connection,
    path: Path,
    _kept: Box<dyn Send>,
}

impl Ends {
    async fn meet<T: Transport<Addr = PeerAddr>>(
        (here, mut listener): (T, T::Listener),
        (addr, path): (std::net::SocketAddr, Path),
    ) -> Self {
        path.darken(false);
        let to = PeerAddr::new(local(2).peer_id(), addr);
        let accept = async { listener.accept().await.unwrap().upgrade().await.unwrap() };
        let (dialer, accepted) = tokio::join!(here.dial(&to), accept);
        Self { dialer: dialer.unwrap(), listener: accepted, path, _kept: Box::new((here, listener)) }
    }

    async fn quic() -> Self {
        let listener = quic(2).listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let proxy = Proxy::to(listener.local(), seed(), Rules::default()).await;
        Self::meet((quic(1), listener), (proxy.addr, Path::Udp(proxy))).await
    }

    async fn tcp() -> Self {
        let tcp = |n| TcpTransport::new(local(n), TcpConfig::default()).unwrap();
        let listener = tcp(2).listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let path = tcp_path(listener.local()).await;
        Self::meet((tcp(1), listener), path).await
    }

    /// Darkness in the middle of transfers, after which they go on.
    async fn survive(self, seconds: u64) {
        let darkness = async {
            sleep(DELAY * 6).await;
            self.path.darken(true);
            sleep(Duration::from_secs(seconds)).await;
            self.path.darken(false);
            Instant::now()
        };
        let transfers = async {
            let done = transfers((&self.dialer, &self.listener), seed(), 1000.0, 40, 60_000).await;
            (done, Instant::now())
        };
        let (((count, _), done), light) = tokio::join!(transfers, darkness);
        assert!(done > light, "all was over before it got dark");
        println!("{}: {count} transfers, over {:?} after {seconds} s of darkness", self.dialer.transport(), done - light);
        assert_eq!(count, 80);
        assert!(self.dialer.close_reason().is_none() && self.listener.close_reason().is_none(), "it's the same connection");
    }

    /// Darkness for longer than is permitted: when and how each side ends.
    async fn end(self) {
        // Both have heard of each other now.
        transfers((&self.dialer, &self.listener), seed(), 1000.0, 2, 10_000).await;
        self.path.darken(true);
        let dark = Instant::now();
        let ended = async |connection: &Connection| {
            let closed = connection.closed().await;
            (closed.code, dark.elapsed())
        };
        // One has something to say, the other waits.
        let saying = async {
            while self.dialer.send(super::DATA, vec![0; 1000].into()).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let both = async { tokio::join!(ended(&self.dialer), ended(&self.listener), saying) };
        let (dialer, listener, ()) = timeout(IDLE * 2, both).await.expect("both end");
        println!("{}: the dialer ended after {dialer:?}, the listener after {listener:?}", self.dialer.transport());
        for (code, after) in [dialer, listener] {
            assert_eq!(code, CloseCode::TimedOut);
            // It's looked each second, and what was on its way came within a round trip.
            assert!(after >= IDLE && after <= IDLE + Duration::from_secs(1) + DELAY * 4, "after {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn quic_survives_darkness_that_is_shorter_than_its_idle_timeout() {
    for seconds in [1, 10, 25] {
        Ends::quic().await.survive(seconds).await;
    }
}

#[tokio::test(start_paused = true)]
async fn tcp_survives_darkness_that_is_shorter_than_its_idle_timeout() {
    for seconds in [1, 10] {
        Ends::tcp().await.survive(seconds).await;
    }
}

#[tokio::test(start_paused = true)]
async fn longer_darkness_ends_both_sides_as_timed_out_at_the_negotiated_time() {
    Ends::quic().await.end().await;
    Ends::tcp().await.end().await;
}

fn node(
    transport: impl FnOnce(LocalPeer) -> AnyTransport<PeerAddr, std::net::SocketAddr>,
    n: u8,
) -> peerlane::node::NodeBuilder<Cad015, peerlane::node::Silent> {
    let here = local(n);
    Node::builder(Cad015::new(Profile::NATIVE.in_network("havoc")), here.clone()).transport(transport(here)).seed(seed())
}

/// Nodes over one transport, apart for so long: when they're together again after the path's return, and the longest delay between dials.
async fn apart(seconds: u64, tcp: bool) -> (Duration, Duration) {
    let transport = |here: LocalPeer| match tcp {
        true => AnyTransport::new(TcpTransport::new(here, TcpConfig::default()).unwrap()),
        false => AnyTransport::new(QuicTransport::new(here, QuicConfig::default()).unwrap()),
    };
    let server = node(transport, 2).listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let target = server.listening()[0].addr;
    let (addr, path) = match tcp {
        true => tcp_path(target).await,
        false => {
            let proxy = Proxy::to(target, seed(), Rules::default()).await;
            (proxy.addr, Path::Udp(proxy))
        }
    };
    path.darken(false);
    let client = node(transport, 1).start().await.unwrap();
    let mut events = client.events();
    let to = PeerAddr::new(server.peer_id(), addr);
    client.connect(&to).await.unwrap();
    assert!(client.keep(&to));
    sleep(Duration::from_secs(15)).await;
    path.darken(true);
    sleep(Duration::from_secs(seconds)).await;
    assert!(client.peer(to.id).is_none() && server.peers().is_empty(), "both know that they're apart");
    path.darken(false);
    let light = Instant::now();
    while client.peer(to.id).is_none() || server.peers().is_empty() {
        assert!(light.elapsed() < Duration::from_secs(300), "never together again");
        sleep(Duration::from_millis(10)).await;
    }
    let together = light.elapsed();
    let mut delays = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::RetryIn { delay, .. } = event {
            delays.push(delay);
        }
    }
    tokio::join!(client.shutdown(), server.shutdown());
    (together, delays.into_iter().max().unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn peers_are_together_again_soon_after_the_paths_return() {
    for tcp in [false, true] {
        for seconds in [35, 60, 120] {
            let (together, delay) = apart(seconds, tcp).await;
            println!("tcp {tcp}: {seconds} s apart, together {together:?} after; at most {delay:?} between dials");
            assert!(together <= Duration::from_secs(2) + delay);
        }
    }
}
