//! UDP goes dark in the middle: a node that may choose goes on over TCP, and returns to QUIC.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use peerlane::{
    cad015::{Cad015, Message, Payload},
    cell::{Cell, Profile, Ref},
    node::{Context, Handler, Node, NodeBuilder, Silent},
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{AnyTransport, identity::PeerAddr};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Instant, sleep},
};

use super::{Blocked, PATIENCE, Proxy, Rules, count_panics, local, seed};
use crate::{config, number};

/// QUERYs as they were handled: which, and how often.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<BTreeMap<i64, u32>>>);

impl Handler<Cad015> for Numbers {
    async fn handle(&self, context: Context<Cad015>, message: Message) {
        let Ok(Payload::Query { id, form }) = message.parse(&Profile::NATIVE.in_network("havoc")) else { return };
        let n = number_in(&form);
        *self.0.lock().unwrap().entry(n).or_default() += 1;
        let _ = context.reply(&Message::result(id, integer(n))).await;
    }
}

pub fn integer(n: i64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer(n)))
}

pub fn number_in(form: &[Ref]) -> i64 {
    form.first().and_then(Ref::embedded).and_then(Cell::as_integer).unwrap()
}

/// Both transports, QUIC first.
pub fn node(n: u8, idle: Duration) -> NodeBuilder<Cad015, Silent> {
    let mut here = local(n);
    here.terms.limits.idle_timeout = idle;
    Node::builder(Cad015::new(Profile::NATIVE.in_network("havoc")), here.clone())
        .transport(AnyTransport::new(QuicTransport::new(here.clone(), QuicConfig::default()).unwrap()))
        .transport(AnyTransport::new(TcpTransport::new(here, TcpConfig::default()).unwrap()))
}

/// The same port on another address of loopback, which nobody else uses: TCP is passed on, UDP goes through the proxy.
pub async fn middle(target: SocketAddr) -> Proxy {
    static OWN: AtomicU8 = AtomicU8::new(1);
    let process = (std::process::id() % 256) as u8;
    let here = SocketAddr::from((Ipv4Addr::new(127, 78, process, OWN.fetch_add(1, Ordering::Relaxed)), target.port()));
    let tcp = TcpListener::bind(here).await.expect("the port is free there");
    let udp = UdpSocket::bind(here).await.expect("the port is free there");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = tcp.accept().await {
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target).await else { return };
                // Both ends' kernels acknowledge late, by the real clock, what would wait for that.
                let _ = near.set_nodelay(true).and(far.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    Proxy::start(udp, target, seed(), Rules { delay: Duration::from_millis(1), ..Rules::default() })
}

/// Asks one number after the other; each is answered with itself, or fails. When it was last over which transport.
struct Asking {
    node: Node<Cad015>,
    to: PeerAddr,
    next: i64,
    answered: Vec<i64>,
    failed: Vec<(i64, String)>,
    /// The longest time between two answers.
    gap: Duration,
    last: Instant,
}

impl Asking {
    async fn ask(&mut self) {
        self.next += 1;
        let message = Message::query(0, [integer(self.next)]);
        match self.node.request(self.to.id, message, Duration::from_secs(40)).await {
            Ok(answer) => {
                let Ok(Payload::Result(outcome)) = answer.parse(&Profile::NATIVE) else { panic!("no RESULT") };
                assert_eq!(number_in(&[outcome.value]), self.next, "the answer to another request");
                self.answered.push(self.next);
                self.gap = self.gap.max(self.last.elapsed());
                self.last = Instant::now();
            }
            Err(error) => {
                self.failed.push((self.next, error.to_string()));
                // As who has no connection would.
                sleep(Duration::from_millis(100)).await;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }

    /// Asks until it goes over this transport, and is answered over it; how long that took.
    async fn until_over(&mut self, transport: &str) -> Duration {
        let start = Instant::now();
        let mut there = 0;
        while there < 20 {
            assert!(start.elapsed() < PATIENCE, "never over {transport}: {:?} {:?}", self.node.peers(), self.failed);
            let before = self.answered.len();
            self.ask().await;
            let over = self.node.peers().first().is_some_and(|peer| peer.transport == transport && peer.connections == 1);
            there = if over && self.answered.len() > before { there + 1 } else { 0 };
        }
        start.elapsed()
    }
}

/// What became of the requests while UDP was dark.
struct Switched {
    over_tcp: Duration,
    /// The longest time without an answer.
    gap: Duration,
    failed: usize,
}

async fn switched(idle: Duration) -> Switched {
    let before = count_panics();
    let numbers = Numbers::default();
    let server = node(2, idle).listen("127.0.0.2:0".parse().unwrap()).handler(numbers.clone()).start().await.unwrap();
    let target = server.listening()[0].addr;
    let proxy = middle(target).await;
    let config = config(|config| (config.upgrade_after, config.upgrade_max) = (Duration::from_secs(1), Duration::from_secs(2)));
    let to = PeerAddr::new(server.peer_id(), proxy.addr);
    let client = node(1, idle).config(config).start().await.unwrap();
    client.connect(&to).await.unwrap();
    assert!(client.keep(&to));
    let mut asking =
        Asking { node: client, to, next: 0, answered: Vec::new(), failed: Vec::new(), gap: Duration::ZERO, last: Instant::now() };
    asking.until_over("quic").await;
    asking.gap = Duration::ZERO;
    proxy.set(Rules { blocked: Blocked::Both, ..Rules::default() });
    let over_tcp = asking.until_over("tcp").await;
    let gap = asking.gap;
    proxy.set(Rules { delay: Duration::from_millis(1), ..Rules::default() });
    let over_quic = asking.until_over("quic").await;
    println!(
        "idle timeout {idle:?}: over TCP after {over_tcp:?}, {gap:?} without an answer; back on QUIC after {over_quic:?}; {} answered, {} failed, the first: {:?}",
        asking.answered.len(),
        asking.failed.len(),
        asking.failed.first()
    );
    let handled = numbers.0.lock().unwrap().clone();
    assert!(handled.values().all(|count| *count == 1), "handled twice: {handled:?}");
    assert!(asking.answered.iter().all(|n| handled.contains_key(n)));
    assert_eq!(asking.answered.len() + asking.failed.len(), asking.next as usize, "answered once or failed once");
    assert_eq!(count_panics(), before);
    let failed = asking.failed.len();
    tokio::join!(asking.node.shutdown(), server.shutdown());
    Switched { over_tcp, gap, failed }
}

/// `PEERLANE_IDLE_SECONDS=30` for the default's idle timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_udp_goes_dark_requests_go_on_over_tcp_and_return_to_quic() {
    let idle = Duration::from_secs(number("PEERLANE_IDLE_SECONDS", 3));
    let switched = switched(idle).await;
    // What was on its way when it went dark; the next finds TCP, or that there's nothing yet.
    assert!(switched.failed > 0 && switched.over_tcp >= switched.gap);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_default_times_requests_go_on_over_tcp_long_before_the_idle_timeout() {
    let switched = switched(Duration::from_secs(30)).await;
    // It's three seconds on a machine with nothing else to do.
    assert!(switched.gap < Duration::from_secs(20), "{:?} without an answer", switched.gap);
}
