//! The victim: this program again, as a process whose heap is its own.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    Connection, Listener, Transport, TrySend, Upgrade,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
};

pub const NETWORK: &str = "memory";
const SEED: [u8; 32] = [77; 32];

/// What the process says of itself.
#[derive(Default)]
struct State {
    /// Arrivals that were taken up and aren't over.
    arrivals: AtomicUsize,
    /// Sends what its budgets take.
    sends: AtomicBool,
}

pub fn local(seed: &[u8; 32]) -> LocalPeer {
    LocalPeer::new(&Identity::from_seed(seed).unwrap(), Arc::new(Lists::everybody()), Terms::new(NETWORK).unwrap()).unwrap()
}

/// The process: listens, and answers the lines of its standard input until that ends.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let state = Arc::new(State::default());
    let local = local(&SEED);
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    runtime.block_on(async {
        let quic = QuicTransport::new(local.clone(), QuicConfig::default()).unwrap().listen(&any).await.unwrap();
        let tcp = TcpTransport::new(local, TcpConfig::default()).unwrap().listen(&any).await.unwrap();
        println!("{} {}", quic.local(), tcp.local());
        tokio::spawn(listen(quic, state.clone()));
        tokio::spawn(listen(tcp, state.clone()));
    });
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match &*line {
            "sends" => state.sends.store(true, Ordering::Relaxed),
            "reads" => state.sends.store(false, Ordering::Relaxed),
            _ => {}
        }
        let stats = crate::COUNTED.stats();
        let heap = stats.bytes_allocated as i64 - stats.bytes_deallocated as i64;
        println!("{heap} {}", state.arrivals.load(Ordering::Relaxed));
    }
    ExitCode::SUCCESS
}

async fn listen<L: Listener>(mut listener: L, state: Arc<State>) {
    while let Ok(arrival) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            state.arrivals.fetch_add(1, Ordering::Relaxed);
            let upgraded = arrival.upgrade().await;
            if let Ok(connection) = upgraded {
                if state.sends.load(Ordering::Relaxed) {
                    fill(&connection).await;
                }
                connection.closed().await;
            }
            state.arrivals.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Sends until nothing is taken any more: by name and by key, in every class.
async fn fill(connection: &Connection) {
    // What is in transit at the end leaves room behind it.
    for _ in 0..20 {
        for (class, row) in connection.classes().iter() {
            let largest = Bytes::from(vec![1; row.max_message]);
            while matches!(connection.try_send(class, Bytes::copy_from_slice(&largest)), TrySend::Queued) {}
            let _ = connection.send_latest(class, 7, largest);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Victim {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub quic: PeerAddr,
    pub tcp: PeerAddr,
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Victim {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let (asks, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let id = Identity::from_seed(&SEED).unwrap().peer_id();
        let mut at = line.split_whitespace().map(|at| PeerAddr::new(id, at.parse::<SocketAddr>().unwrap()));
        Self { child, asks, answers, quic: at.next().unwrap(), tcp: at.next().unwrap() }
    }

    /// Bytes on its heap, arrivals that were taken up.
    fn ask(&mut self, what: &str) -> (i64, usize) {
        writeln!(self.asks, "{what}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut numbers = line.split_whitespace();
        (numbers.next().unwrap().parse().unwrap(), numbers.next().unwrap().parse().unwrap())
    }

    /// From now on it sends what it can to whoever connects, or doesn't.
    pub fn sends(&mut self, sends: bool) {
        self.ask(if sends { "sends" } else { "reads" });
    }

    fn heap(&mut self) -> i64 {
        self.ask("heap").0
    }

    /// Waits until nobody is there.
    pub async fn empty(&mut self) {
        for _ in 0..1500 {
            if self.ask("heap").1 == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("connections stay");
    }

    /// What it holds when it's down to this, or doesn't come down to it for a while: the last tasks of a connection end after it.
    pub async fn back_to(&mut self, enough: i64) -> i64 {
        for _ in 0..200 {
            let heap = self.heap();
            if heap <= enough {
                return heap;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.heap()
    }

    /// What it holds when half a second has freed no more.
    pub async fn rested(&mut self) -> i64 {
        let (mut least, mut still) = (i64::MAX, 0);
        while still < 5 {
            let heap = self.heap();
            still = if heap < least - 4096 { 0 } else { still + 1 };
            least = least.min(heap);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        least
    }

    /// The most it ever held, until half a second brings no more.
    pub async fn settled(&mut self) -> i64 {
        let (mut most, mut still) = (0, 0);
        while still < 5 {
            let heap = self.heap();
            still = if heap > most + most / 100 { 0 } else { still + 1 };
            most = most.max(heap);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        most
    }
}
