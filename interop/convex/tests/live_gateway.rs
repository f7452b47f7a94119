//! Three reference peers in Java whose every link goes through gateways. `interop/live/convex/run` builds what it takes and sets the
//! two variables; without them this says SKIPPED and does nothing.
//!
//! Each peer is a JVM with a hosts file of its own, as if on a machine of its own: there the names that the others have registered on chain
//! lead to addresses of the gateway beside it, and to nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use peerlane_convex::{
    Client, ClientConfig, Gateway, GatewayConfig, GatewayError, GatewayPeer, Kind, Transaction, cell::Cell, cell::ValueId, form,
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer},
    identity::{Identity, PeerAddr},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

/// Three JVMs on a busy machine.
const START: Duration = Duration::from_secs(240);
const PATIENCE: Duration = Duration::from_secs(120);
/// The genesis user: it has peer 1's key.
const USER: u64 = 11;
const TRANSFERS: i64 = 300;
/// Transfers that wait for their result at once.
const WINDOW: usize = 50;

struct Java {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    key: [u8; 32],
    network: ValueId,
}

/// Where the gateway beside peer `beside` stands for peer `of`.
fn door(beside: usize, of: usize, port: u16) -> SocketAddr {
    format!("127.77.{beside}.{of}:{port}").parse().unwrap()
}

async fn java(index: usize, port: u16, dir: &std::path::Path) -> Option<Java> {
    let (Ok(java), Ok(classpath)) = (std::env::var("CONVEX_JAVA"), std::env::var("CONVEX_CLASSPATH")) else {
        println!("SKIPPED: CONVEX_JAVA and CONVEX_CLASSPATH aren't set; interop/live/convex/run sets them");
        return None;
    };
    let hosts = dir.join(format!("hosts-{index}"));
    let others = (1..=3).filter(|other| *other != index).map(|other| format!("{} peer{other}.test\n", door(index, other, port).ip()));
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{}", others.collect::<String>())).unwrap();
    let mut child = Command::new(java)
        .arg("-Xmx400m")
        .arg(format!("-Djdk.net.hosts.file={}", hosts.display()))
        .args(["-cp", &classpath, "Peer", &index.to_string(), "3", "0", &format!("peer{index}.test:{port}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.join(format!("peer-{index}.log"))).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Some(Java { _child: child, input, lines, port: 0, key: [0; 32], network: ValueId([0; 32]) })
}

impl Java {
    /// The next line that begins with this word.
    async fn line(&mut self, word: &str, limit: Duration) -> Vec<String> {
        let found = timeout(limit, async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let words: Vec<String> = line.split(' ').map(Into::into).collect();
                if words[0] == word {
                    return words;
                }
            }
            panic!("the peer has ended")
        });
        found.await.unwrap_or_else(|_| panic!("no {word} within {limit:?}"))
    }

    async fn ready(&mut self) {
        let words = self.line("PEER", START).await;
        self.port = words[1].parse().unwrap();
        self.key = HEXLOWER.decode(words[2].as_bytes()).unwrap().try_into().unwrap();
        self.network = words[3].parse().unwrap();
    }

    async fn client(&self) -> Client {
        Client::connect(("127.0.0.1", self.port), config()).await.unwrap()
    }
}

fn config() -> ClientConfig {
    ClientConfig { deadline: PATIENCE, ..ClientConfig::default() }
}

fn seed(index: usize) -> SigningKey {
    let mut seed = [0; 32];
    seed[31] = index as u8;
    SigningKey::from_bytes(&seed)
}

/// A port that is free on every loopback address, as far as anybody can know.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn gateway_key(index: usize) -> Identity {
    Identity::from_seed(&[100 + index as u8; 32]).unwrap()
}

/// The gateway beside a peer: it leads to the two others.
async fn gateway(index: usize, local: u16, at: &[SocketAddr], port: u16) -> Gateway {
    let terms = GatewayConfig::terms("convex").unwrap();
    let local_peer = LocalPeer::new(&gateway_key(index), Arc::new(Lists::everybody()), terms).unwrap();
    let transports = vec![
        AnyTransport::new(QuicTransport::new(local_peer.clone(), QuicConfig::default()).unwrap()),
        AnyTransport::new(TcpTransport::new(local_peer.clone(), TcpConfig::default()).unwrap()),
    ];
    let mut config = GatewayConfig::new(format!("127.0.0.1:{local}"), at[index - 1]);
    let others = (1..=3).filter(|other| *other != index);
    let peer = |other: usize| GatewayPeer {
        addr: PeerAddr::new(gateway_key(other).peer_id(), at[other - 1]),
        local: Some(door(index, other, port)),
    };
    config.peers = others.map(peer).collect();
    // An endpoint that says its last words keeps its address for a moment.
    for _ in 0..100 {
        match Gateway::start(&local_peer, transports.clone(), config.clone()).await {
            Err(GatewayError::Listen { .. }) => sleep(Duration::from_millis(100)).await,
            started => return started.unwrap(),
        }
    }
    panic!("{} doesn't come free", at[index - 1])
}

/// Sends transfers of 1,000 coppers to account 12, so many at once, and waits for all results. How long it took.
async fn transfers(client: &Client, count: i64) -> Duration {
    let first = client.sequence(USER).await.unwrap() + 1;
    let started = Instant::now();
    let mut waiting = std::collections::VecDeque::new();
    for sequence in first..first + count {
        let client = client.clone();
        let transfer = Transaction::Transfer { origin: USER, sequence, target: 12, amount: 1000 };
        // Sent as soon as it's polled, so in order: the window fits the client's queue, and no budget of the task's holds it back.
        let mut sent = Box::pin(tokio::task::unconstrained(async move { client.transact(&transfer, &seed(1)).await }));
        assert!(futures_util::poll!(sent.as_mut()).is_pending());
        waiting.push_back(sent);
        if waiting.len() >= WINDOW {
            let answer = waiting.pop_front().unwrap().await.unwrap();
            assert!(answer.error.is_none(), "transfer: {answer:?}");
        }
    }
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(answer.error.is_none(), "transfer: {answer:?}");
    }
    started.elapsed()
}

/// Until all peers have the same state in consensus, with this sequence of the account.
async fn agree(clients: &[Client], sequence: i64) -> Duration {
    let started = Instant::now();
    let mut states = Vec::new();
    let agreeing = timeout(PATIENCE, async {
        loop {
            states.clear();
            for client in clients {
                states.push((client.status().await.unwrap().state, client.sequence(USER).await.unwrap()));
            }
            if states.iter().all(|state| *state == states[0] && state.1 == sequence) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let agreed = agreeing.await.is_ok();
    assert!(agreed, "the peers come to agree: {states:?}");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_peers_reach_consensus_through_gateways_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut peers = Vec::new();
    for index in 1..=3 {
        let Some(peer) = java(index, port, dir.path()).await else { return };
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.ready().await;
    }
    let at: Vec<SocketAddr> = (0..3).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port()))).collect();
    let mut gateways = Vec::new();
    for index in 1..=3 {
        gateways.push(gateway(index, peers[index - 1].port, &at, port).await);
    }
    // Nobody's name is on chain yet: the first connections are made by hand, as an operator's are by naming a source.
    for (i, peer) in peers.iter_mut().enumerate() {
        for other in (1..=3).filter(|other| *other != i + 1) {
            peer.input.write_all(format!("connect peer{other}.test {port}\n").as_bytes()).await.unwrap();
            let words = peer.line("CONNECT", PATIENCE).await;
            println!("peer {}: {}", i + 1, words.join(" "));
        }
    }
    // Behind the gateway's address for another peer stands that peer.
    for (beside, of) in [(1, 2), (2, 3), (3, 1)] {
        let through = Client::connect(door(beside, of, port), config()).await.unwrap();
        let status = through.status().await.unwrap();
        assert_eq!((status.key, status.genesis), (peers[of - 1].key, peers[0].network));
        assert_eq!(through.query(form::read("(+ 1 2)").unwrap(), Some(USER)).await.unwrap().ok().unwrap().cell, Cell::Integer(3));
    }
    let mut clients = Vec::new();
    for peer in &peers {
        clients.push(peer.client().await);
    }
    let before = clients[0].sequence(USER).await.unwrap();
    let took = transfers(&clients[0], TRANSFERS).await;
    let agreed = agree(&clients, before + TRANSFERS).await;
    println!("{TRANSFERS} transfers in {took:?}, all three peers agree {agreed:?} later");
    for (i, gateway) in gateways.iter().enumerate() {
        for peer in &gateway.stats().peers {
            let beliefs = peer.kinds.iter().find(|kind| kind.kind == Kind::Belief).unwrap();
            println!(
                "gateway {}: {} open, {} opened, beliefs {:?} out, {:?} in",
                i + 1,
                peer.open,
                peer.opened,
                beliefs.out,
                beliefs.inward
            );
            assert!(peer.open > 0 && beliefs.out.messages + beliefs.inward.messages > 0);
        }
    }
    // A gateway is lost and comes back. Now it's the peers that dial, by stake and by the names that they have registered on chain.
    gateways.remove(1).shutdown().await;
    gateways.insert(1, gateway(2, peers[1].port, &at, port).await);
    let dialed = async {
        loop {
            let counts: Vec<u64> = gateways[1].stats().peers.iter().map(|peer| peer.opened).collect();
            // Its own peer has dialed both others, or they have dialed it.
            if counts.iter().all(|count| *count > 0) {
                return counts;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let counts = timeout(PATIENCE, dialed).await.expect("peers dial the names on chain");
    println!("after the loss of gateway 2, peers have made {counts:?} connections by the names on chain");
    transfers(&clients[0], 20).await;
    agree(&clients, before + TRANSFERS + 20).await;
    for gateway in gateways {
        gateway.shutdown().await;
    }
}
