//! What goes on for long holds no more in the end than at the beginning: messages of all sizes with a rolling hash, and
//! connections that come and go. Memory, file descriptors and tasks are those of the whole process, so these tests are
//! alone in theirs and run one at a time.
//!
//! `PEERLANE_SOAK_MESSAGES=1000000 PEERLANE_SOAK_CYCLES=100000 cargo test --test soak -- --nocapture` for longer than a test
//! may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_sim::World;
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    ClassId, ClassTable, CloseCode, Connection, Inbound, Listener, Order, Transport, Upgrade,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const TRANSACT: ClassId = ClassId(2);
/// Smallest and largest message in bytes.
const SIZES: (f64, f64) = (32.0, 65_536.0);
/// An allocator keeps what it was given, and that isn't a leak yet. Bytes.
const SLACK: u64 = 24 << 20;

static ALONE: Mutex<()> = Mutex::new(());

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn local(n: u8) -> LocalPeer {
    let identity = Identity::from_seed(&[n; 32]).unwrap();
    LocalPeer::new(&identity, Arc::new(Lists::everybody()), Terms::new("soak").unwrap()).unwrap()
}

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory: u64,
    files: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { memory: pages * 4096, files, tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() }
    }

    /// No more than before, once what has just ended is gone.
    async fn no_more_than(before: Self, what: &str) -> Self {
        let start = Instant::now();
        loop {
            let now = Self::now();
            if now.files <= before.files && now.tasks <= before.tasks && now.memory <= before.memory + SLACK {
                return now;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {before:?} before, {now:?} now");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn size(rng: &mut StdRng) -> usize {
    (SIZES.0 * (SIZES.1 / SIZES.0).powf(rng.random())) as usize
}

async fn pair<T: Transport<Addr = PeerAddr, Local = std::net::SocketAddr>>(one: &T, two: &T) -> (Connection, Connection) {
    let mut listener = two.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = PeerAddr::new(local(2).peer_id(), listener.local());
    let (dialed, accepted) = tokio::join!(one.dial(&to), async { listener.accept().await.unwrap().upgrade().await });
    (dialed.unwrap(), accepted.unwrap())
}

/// What one direction of a class has carried. The order counts where the class has one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rolling {
    ordered: bool,
    count: u64,
    bytes: u64,
    hash: [u8; 32],
}

impl Rolling {
    fn new(ordered: bool) -> Self {
        Self { ordered, count: 0, bytes: 0, hash: [0; 32] }
    }

    fn add(&mut self, message: &[u8]) {
        self.count += 1;
        self.bytes += message.len() as u64;
        let own = blake3::hash(message);
        if self.ordered {
            self.hash = *blake3::Hasher::new().update(&self.hash).update(own.as_bytes()).finalize().as_bytes();
        } else {
            self.hash.iter_mut().zip(own.as_bytes()).for_each(|(sum, byte)| *sum = sum.wrapping_add(*byte));
        }
    }
}

async fn send(connection: Connection, class: ClassId, count: u64, seed: u64, ordered: bool) -> Rolling {
    let (mut rng, mut rolling) = (StdRng::seed_from_u64(seed), Rolling::new(ordered));
    let most = connection.classes()[class].max_message;
    for _ in 0..count {
        let mut message = vec![0; size(&mut rng).min(most)];
        rng.fill_bytes(&mut message);
        rolling.add(&message);
        connection.send(class, message.into()).await.unwrap();
    }
    rolling
}

async fn take(connection: Connection, class: ClassId, count: u64, ordered: bool) -> Rolling {
    let mut rolling = Rolling::new(ordered);
    while rolling.count < count {
        match connection.recv(class).await.unwrap() {
            Inbound::Whole(message) => rolling.add(&message),
            Inbound::Streamed(_) => panic!("a whole message is whole"),
        }
    }
    rolling
}

/// So many messages in each class, both ways at once.
async fn messages(a: &Connection, b: &Connection, each: u64, seed: u64) -> u64 {
    let mut all = Vec::new();
    for (class, kind) in ClassTable::standard().iter() {
        for (n, from, to) in [(0, a, b), (1, b, a)] {
            let ordered = kind.order == Order::Fifo;
            let seed = seed ^ (u64::from(class.0) << 8) ^ n;
            let sending = tokio::spawn(send(from.clone(), class, each, seed, ordered));
            let taking = tokio::spawn(take(to.clone(), class, each, ordered));
            all.push((class, sending, taking));
        }
    }
    let mut bytes = 0;
    for (class, sending, taking) in all {
        let (sent, taken) = (sending.await.unwrap(), taking.await.unwrap());
        assert_eq!(sent, taken, "class {class}");
        assert!(class != TRANSACT || sent.ordered);
        bytes += sent.bytes;
    }
    bytes
}

fn long_run(name: &str, connect: impl AsyncFn() -> (Connection, Connection)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (a, b) = connect().await;
        let started = Instant::now();
        // Ten rounds, five classes, two directions; the first two fill what is filled once.
        let each = (number("PEERLANE_SOAK_MESSAGES", 6_000) / 100).max(1);
        let (mut bytes, mut before) = (0, None);
        for round in 0..10 {
            bytes += messages(&a, &b, each, round).await;
            match before {
                None if round == 1 => before = Some(Held::now()),
                None => {}
                Some(before) => drop(Held::no_more_than(before, "messages").await),
            }
        }
        println!("{name}: {} messages, {bytes} bytes in {:?}; {before:?}, then {:?}", each * 100, started.elapsed(), Held::now());
    });
}

#[test]
fn messages_of_all_sizes_come_as_they_were_sent_and_leave_nothing_over_quic() {
    long_run("quic", async || {
        let new = |n| QuicTransport::new(local(n), QuicConfig::default()).unwrap();
        pair(&new(1), &new(2)).await
    });
}

#[test]
fn messages_of_all_sizes_come_as_they_were_sent_and_leave_nothing_over_tcp() {
    long_run("tcp", async || {
        let new = |n| TcpTransport::new(local(n), TcpConfig::default()).unwrap();
        pair(&new(1), &new(2)).await
    });
}

/// One connection: dialed, used both ways in every class, ended in one of several ways.
async fn cycle<T, L>(dialer: &T, listener: &mut L, to: &PeerAddr, way: u64)
where
    T: Transport<Addr = PeerAddr>,
    L: Listener,
{
    let accept = async {
        loop {
            if let Ok(connection) = listener.accept().await.unwrap().upgrade().await {
                return connection;
            }
        }
    };
    let (dialed, accepted) = tokio::join!(dialer.dial(to), accept);
    let (a, b) = (dialed.unwrap(), accepted);
    for (class, _) in ClassTable::standard().iter() {
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.send(class, Bytes::from_static(&[7; 100])).await.unwrap();
            assert!(matches!(to.recv(class).await, Ok(Inbound::Whole(message)) if message.len() == 100));
        }
    }
    match way % 6 {
        0 => a.close(CloseCode::Done, "done"),
        1 => b.close(CloseCode::Application, "enough"),
        2 => {
            let answering = async {
                b.remote_draining().await;
                b.drain().await
            };
            drop(tokio::join!(a.drain(), answering));
        }
        3 => drop(tokio::join!(a.drain(), b.drain())),
        4 => {
            // In the middle of a message.
            let mut writer = a.open(TRANSACT).await.unwrap();
            let _ = writer.write(&mut Bytes::from_static(b"half")).await;
            b.close(CloseCode::Application, "in the middle");
        }
        _ => drop(a),
    }
    b.close(CloseCode::Done, "done");
    b.closed().await;
}

#[test]
fn connections_that_come_and_go_leave_nothing_in_the_simulator() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cycles = number("PEERLANE_SOAK_CYCLES", 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(1);
        let (one, two) = (world.transport_for(&local(1)), world.transport_for(&local(2)));
        let mut listener = two.listen(&"0.0.0.0:4000".parse().unwrap()).await.unwrap();
        let to = PeerAddr::new(local(2).peer_id(), listener.local());
        let started = Instant::now();
        let mut before = None;
        for n in 0..cycles {
            cycle(&one, &mut listener, &to, n).await;
            if n == cycles / 5 {
                tokio::time::sleep(Duration::from_secs(60)).await;
                assert_eq!(world.connections(), 0);
                before = Some(Held::now());
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.connections(), 0, "connections that the network still holds");
        let now = Held::no_more_than(before.unwrap(), "cycles in the simulator").await;
        println!("sim: {cycles} cycles in {:?}; {before:?}, then {now:?}", started.elapsed());
    });
}

/// A tenth of the simulator's: each is a handshake.
fn real_cycles<T: Transport<Addr = PeerAddr, Local = std::net::SocketAddr>>(name: &str, new: impl Fn(u8) -> T) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cycles = number("PEERLANE_SOAK_CYCLES", 1_000) / 10;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (one, two) = (new(1), new(2));
        let mut listener = two.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let to = PeerAddr::new(local(2).peer_id(), listener.local());
        let started = Instant::now();
        let mut before = None;
        for n in 0..cycles {
            cycle(&one, &mut listener, &to, n).await;
            if n == cycles / 5 {
                // What has ended a moment ago is counted too: a closed QUIC connection drains for three timeouts.
                tokio::time::sleep(Duration::from_secs(1)).await;
                before = Some(Held::now());
            }
        }
        let now = Held::no_more_than(before.unwrap(), "cycles over loopback").await;
        println!("{name}: {cycles} cycles in {:?}; {before:?}, then {now:?}", started.elapsed());
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing_over_quic() {
    real_cycles("quic", |n| QuicTransport::new(local(n), QuicConfig::default()).unwrap());
}

#[test]
fn connections_that_come_and_go_leave_nothing_over_tcp() {
    real_cycles("tcp", |n| TcpTransport::new(local(n), TcpConfig::default()).unwrap());
}
