//! A middle of the path on loopback: it passes UDP on, and does to it what a seed says. Each dialing address has an outgoing socket
//! of its own, whose port may change under its feet.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// The largest datagram there is.
const DATAGRAM: usize = 65_536;
/// Packets remembered for a replay, in each direction.
const REMEMBERED: usize = 256;
/// Packets on the way at once in each direction. One more is dropped.
const ON_THE_WAY: usize = 4096;

/// What happens to a packet, as probabilities.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// A burst of loss begins.
    pub lose: f64,
    /// Packets in such a burst; 0 is 1.
    pub burst: u32,
    /// A byte is changed.
    pub corrupt: f64,
    /// It's cut short.
    pub truncate: f64,
    /// It comes twice.
    pub duplicate: f64,
    /// It comes up to so much later, and others overtake it.
    pub reorder: f64,
    pub late: Duration,
    /// An old one comes once more.
    pub replay: f64,
    /// Everything takes so long.
    pub delay: Duration,
    /// Where nothing passes.
    pub blocked: Blocked,
}

/// The directions in which nothing passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Blocked {
    #[default]
    Neither,
    /// From the dialer to the target.
    There,
    Back,
    Both,
}

impl Rules {
    /// Bursts of `burst` packets that are this share of all.
    pub fn loss(share: f64, burst: u32) -> Self {
        let burst = burst.max(1);
        // In a packet's turn a burst begins with p: share = np / (1 - p + np).
        let n = f64::from(burst);
        Self { lose: share / (n - share * (n - 1.0)), burst, ..Self::default() }
    }
}

/// What the proxy has done.
#[derive(Debug, Default)]
pub struct Done {
    pub passed: AtomicU64,
    pub lost: AtomicU64,
    pub corrupted: AtomicU64,
    pub truncated: AtomicU64,
    pub duplicated: AtomicU64,
    pub reordered: AtomicU64,
    pub replayed: AtomicU64,
    pub rebound: AtomicU64,
}

struct Shared {
    rules: Mutex<Rules>,
    /// Counts up when all outgoing ports are to change.
    rebind: AtomicU64,
    done: Done,
    seeds: AtomicU64,
}

/// Runs until it's dropped.
pub struct Proxy {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One direction of one flow.
struct Direction {
    /// The one that this is.
    way: Blocked,
    rng: StdRng,
    losing: u32,
    old: VecDeque<Vec<u8>>,
    out: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Direction {
    /// What becomes of a packet goes to `out`.
    fn pass(&mut self, shared: &Shared, mut packet: Vec<u8>) {
        let rules = *shared.rules.lock().unwrap();
        let done = &shared.done;
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        if rules.blocked == Blocked::Both || rules.blocked == self.way {
            return count(&done.lost);
        }
        if self.losing == 0 && self.rng.random_bool(rules.lose) {
            self.losing = rules.burst.max(1);
        }
        if self.losing > 0 {
            self.losing -= 1;
            return count(&done.lost);
        }
        let now = Instant::now() + rules.delay;
        if rules.replay > 0.0 {
            if self.old.len() == REMEMBERED {
                self.old.pop_front();
            }
            self.old.push_back(packet.clone());
            if self.rng.random_bool(rules.replay) {
                let at = self.rng.random_range(0..self.old.len());
                self.send(now, self.old[at].clone());
                count(&done.replayed);
            }
        }
        if self.rng.random_bool(rules.duplicate) {
            self.send(now, packet.clone());
            count(&done.duplicated);
        }
        if self.rng.random_bool(rules.corrupt) && !packet.is_empty() {
            for _ in 0..self.rng.random_range(1..4) {
                let at = self.rng.random_range(0..packet.len());
                packet[at] ^= 1 << self.rng.random_range(0..8);
            }
            count(&done.corrupted);
        }
        if self.rng.random_bool(rules.truncate) {
            packet.truncate(self.rng.random_range(0..=packet.len()));
            count(&done.truncated);
        }
        let mut at = now;
        if self.rng.random_bool(rules.reorder) {
            at += rules.late.mul_f64(self.rng.random());
            count(&done.reordered);
        }
        self.send(at, packet);
        count(&done.passed);
    }

    fn send(&self, at: Instant, packet: Vec<u8>) {
        let _ = self.out.try_send((at, packet));
    }
}

/// Where packets of a direction leave.
enum Out {
    /// To the target, from the port of the moment.
    There(Arc<Mutex<Arc<UdpSocket>>>),
    /// To the dialer.
    Back(Arc<UdpSocket>, SocketAddr),
}

impl Out {
    async fn send(&self, packet: &[u8]) {
        // What can't be sent is lost, as on any path.
        let _ = match self {
            Self::There(socket) => {
                let socket = socket.lock().unwrap().clone();
                socket.send(packet).await
            }
            Self::Back(socket, dialer) => socket.send_to(packet, dialer).await,
        };
    }
}

/// Sends packets at their times.
async fn deliver(mut packets: mpsc::Receiver<(Instant, Vec<u8>)>, out: Out) {
    let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = waiting.first_key_value().map(|((at, _), _)| *at);
        tokio::select! {
            biased;
            packet = packets.recv() => {
                let Some((at, packet)) = packet else { return };
                number += 1;
                waiting.insert((at, number), packet);
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            out.send(&entry.remove()).await;
        }
    }
}

impl Proxy {
    /// From a socket to a target.
    pub fn start(socket: UdpSocket, target: SocketAddr, seed: u64, rules: Rules) -> Self {
        let addr = socket.local_addr().unwrap();
        let shared =
            Arc::new(Shared { rules: Mutex::new(rules), rebind: AtomicU64::new(0), done: Done::default(), seeds: AtomicU64::new(seed) });
        let task = tokio::spawn(listen(Arc::new(socket), target, shared.clone()));
        Self { addr, shared, task }
    }

    pub async fn to(target: SocketAddr, seed: u64, rules: Rules) -> Self {
        Self::start(UdpSocket::bind("127.0.0.1:0").await.unwrap(), target, seed, rules)
    }

    pub fn set(&self, rules: Rules) {
        *self.shared.rules.lock().unwrap() = rules;
    }

    /// All outgoing ports change with the next packet.
    pub fn rebind(&self) {
        self.shared.rebind.fetch_add(1, Ordering::Relaxed);
    }

    pub fn done(&self) -> &Done {
        &self.shared.done
    }
}

/// Takes packets from dialers, each flow its own task, which ends with this one.
async fn listen(socket: Arc<UdpSocket>, target: SocketAddr, shared: Arc<Shared>) {
    let mut flows: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // A port unreachable of a dialer that is gone; the next one is of another.
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let flow = flows.entry(from).or_insert_with(|| {
            let (packets, receiver) = mpsc::channel(ON_THE_WAY);
            tasks.spawn(flow(socket.clone(), from, target, receiver, shared.clone()));
            packets
        });
        let _ = flow.try_send(buffer[..length].to_vec());
    }
}

/// One dialer's packets there and back.
async fn flow(socket: Arc<UdpSocket>, dialer: SocketAddr, target: SocketAddr, mut packets: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    let outgoing = || async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(target).await.unwrap();
        socket
    };
    let seed = shared.seeds.fetch_add(1, Ordering::Relaxed);
    let direction = |n: u64, way: Blocked| {
        let (out, delivering) = mpsc::channel(ON_THE_WAY);
        (Direction { way, rng: StdRng::seed_from_u64(seed.wrapping_mul(2) + n), losing: 0, old: VecDeque::new(), out }, delivering)
    };
    let (mut there, going) = direction(0, Blocked::There);
    let (mut back, coming) = direction(1, Blocked::Back);
    let out = Arc::new(Mutex::new(Arc::new(outgoing().await)));
    let going = deliver(going, Out::There(out.clone()));
    let coming = deliver(coming, Out::Back(socket, dialer));
    let pass = async {
        let mut buffer = vec![0; DATAGRAM];
        let mut bound = shared.rebind.load(Ordering::Relaxed);
        loop {
            let current = out.lock().unwrap().clone();
            tokio::select! {
                packet = packets.recv() => {
                    let Some(packet) = packet else { return };
                    let wanted = shared.rebind.load(Ordering::Relaxed);
                    if wanted != bound {
                        bound = wanted;
                        let fresh = Arc::new(outgoing().await);
                        *out.lock().unwrap() = fresh;
                        shared.done.rebound.fetch_add(1, Ordering::Relaxed);
                    }
                    there.pass(&shared, packet);
                }
                received = current.recv(&mut buffer) => match received {
                    Ok(length) => back.pass(&shared, buffer[..length].to_vec()),
                    Err(_) => sleep(Duration::from_millis(1)).await,
                },
            }
        }
    };
    tokio::select! {
        () = going => {}
        () = coming => {}
        () = pass => {}
    }
}
