//! Five peers as processes, under load: one is killed again and again, one is stopped and goes on, one has few file
//! descriptors and somebody takes them all, one's disk is full for a while.
//!
//! What was acknowledged is there in the end, once, in all of them. `PEERLANE_PROCESSES_SECONDS=60` for longer than a test may take.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use peerlane::{
    cad015::Cad015,
    node::Node,
    peer::{Answer, Query, read_outcome},
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr, PeerId},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{self, Client, Ledger, Log, NETWORK, Patience, Wrong, profile},
    config, number,
};

/// Whatever is waited for must come within this; nothing is asserted about how fast.
const PATIENCE: Duration = Duration::from_secs(120);
/// A process that may open no more files than this.
const FEW_FILES: &str = "64";
/// The disk that gets full, as `mount` has it.
const SMALL_DISK: &str = "size=32m";

/// A file system in memory, small enough to fill.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None`: mounting isn't permitted here.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(&at).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self { at })
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.at.join("ballast")).unwrap();
        let zeros = vec![0; 4096];
        while ballast.write_all(&zeros).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

struct Process {
    child: Child,
    addr: PeerAddr,
    args: Vec<String>,
    /// Where its log goes.
    log: PathBuf,
    few_files: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(dir: &Path, name: &str, n: u8, others: &[&Self], few_files: bool, more: &[&str]) -> Self {
        let key = dir.join(format!("{name}.pem"));
        Identity::from_seed(&[n; 32]).unwrap().save_new(&key).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut args = ["--log", "error", "peer", "--network", NETWORK, "--listen", "127.0.0.1:0", "--key"].map(str::to_owned).to_vec();
        args.extend([text(&key), "--data".to_owned(), text(&dir.join(name).join("data"))]);
        others.iter().for_each(|other| args.extend(["--peer".to_owned(), other.addr.to_string()]));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        fs::create_dir_all(dir.join(name)).unwrap();
        Self::spawn(args, dir.join(format!("{name}.log")), few_files).expect("it starts")
    }

    /// `None`: it ended before it was ready.
    fn spawn(args: Vec<String>, log: PathBuf, few_files: bool) -> Option<Self> {
        let program = env!("CARGO_BIN_EXE_peerlane");
        let mut command = if few_files {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {FEW_FILES} && exec \"$@\""), "sh", program]);
            command
        } else {
            Command::new(program)
        };
        let errors = fs::File::options().create(true).append(true).open(&log).unwrap();
        command.args(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).env_remove("PEERLANE_LOG");
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(addr) = line.split_whitespace().nth(1).and_then(|addr| addr.parse().ok()) else {
            let _ = child.wait();
            return None;
        };
        Some(Self { child, addr, args, log, few_files })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same peer again, on the same port. `false`: it didn't start.
    fn restart(&mut self) -> bool {
        let listen = self.args.iter().position(|arg| arg == "--listen").unwrap() + 1;
        self.args[listen] = self.addr.to_string().split_once('@').unwrap().1.to_owned();
        let Some(new) = Self::spawn(self.args.clone(), self.log.clone(), self.few_files) else { return false };
        *self = new;
        true
    }

    /// Where it serves what it counts, as it says when it starts; and there again after a restart.
    async fn metrics(&mut self) -> SocketAddr {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            if let Some(addr) = log.split_once("metrics at http://").and_then(|(_, rest)| rest.split_once("/metrics")) {
                let at = self.args.iter().position(|arg| arg == "--metrics").unwrap() + 1;
                addr.0.clone_into(&mut self.args[at]);
                return addr.0.parse().unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "no metrics: {log}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Open file descriptors.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

async fn node(n: u8) -> Node<Cad015> {
    let identity = Identity::from_seed(&[n; 32]).unwrap();
    let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), Terms::new(NETWORK).unwrap()).unwrap();
    Node::builder(Cad015::new(profile()), local.clone())
        .transport(AnyTransport::new(QuicTransport::new(local.clone(), QuicConfig::default()).unwrap()))
        .transport(AnyTransport::new(TcpTransport::new(local, TcpConfig::default()).unwrap()))
        .config(config(|config| config.dial_timeout = Duration::from_secs(3)))
        .start()
        .await
        .unwrap()
}

/// Asks a peer, until it answers.
async fn ask(node: &Node<Cad015>, peer: &PeerAddr, query: &Query) -> Answer {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "{peer} doesn't answer");
        if node.peer(peer.id).is_some() || node.connect(peer).await.is_ok() {
            let asked = node.request(peer.id, query.message(&profile()).unwrap(), Duration::from_secs(10)).await;
            if let Ok(answer) = asked
                && let Ok(outcome) = read_outcome(&answer, &profile())
                && outcome.error.is_none()
            {
                return query.read_answer(&outcome.value, &answer.cells(), &profile()).unwrap();
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// All keys and values of an account, page by page.
async fn entries(node: &Node<Cad015>, peer: &PeerAddr, account: [u8; 32]) -> BTreeMap<bytes::Bytes, bytes::Bytes> {
    let mut all = BTreeMap::new();
    loop {
        let after = all.last_key_value().map(|(key, _): (&bytes::Bytes, _)| key.clone());
        let query = Query::Prefix { account, prefix: "".into(), after, limit: 1000 };
        let Answer::Entries(page) = ask(node, peer, &query).await else { panic!("no entries") };
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// What a peer serves as its metrics, if it's there.
async fn scrape(metrics: SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(metrics).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// How long others take to be connected to a peer that is ready again: by name. Who isn't within `longest` has no time.
async fn reconnects(metrics: SocketAddr, mut others: Vec<(String, PeerId)>, longest: Duration) -> Vec<(String, Option<Duration>)> {
    let ready = Instant::now();
    let mut times = Vec::new();
    while !others.is_empty() && ready.elapsed() < longest {
        if let Ok(Ok(text)) = timeout(Duration::from_secs(1), scrape(metrics)).await {
            let after = ready.elapsed();
            // A peer's series are there while it's connected.
            let (here, away) = others.into_iter().partition(|(_, id)| text.contains(&format!("{id}\"")));
            others = away;
            times.extend(here.into_iter().map(|(name, _): (String, PeerId)| (name, Some(after))));
        }
        sleep(Duration::from_millis(5)).await;
    }
    times.extend(others.into_iter().map(|(name, _)| (name, None)));
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_peers_lose_nothing_acknowledged() {
    let length = Duration::from_secs(number("PEERLANE_PROCESSES_SECONDS", 12));
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path().join("full"));
    if disk.is_none() {
        println!("SKIPPED a full disk: mounting isn't permitted here");
    }
    let plain = Process::start(dir.path(), "plain", 1, &[], false, &[]);
    let mut killed = Process::start(dir.path(), "killed", 2, &[&plain], false, &["--metrics", "127.0.0.1:0"]);
    let stopped = Process::start(dir.path(), "stopped", 3, &[&plain, &killed], false, &[]);
    let mut full = Process::start(dir.path(), "full", 4, &[&plain, &killed, &stopped], false, &[]);
    let mut few = Process::start(dir.path(), "few", 5, &[&plain, &killed, &stopped, &full], true, &[]);
    let metrics = killed.metrics().await;
    let addrs: Vec<PeerAddr> = [&plain, &killed, &stopped, &full, &few].map(|process| process.addr.clone()).to_vec();

    let stop = Arc::new(AtomicBool::new(false));
    let (log, wrong, started) = (Log::default(), Wrong::default(), Instant::now());
    let ledgers: Vec<_> = (1..=3).map(Ledger::new).collect();
    let mut clients = Vec::new();
    for (number, ledger) in (1..).zip(&ledgers) {
        let client = Client {
            node: node(50 + number).await,
            number,
            ledger: ledger.clone(),
            addrs: addrs.clone(),
            rng: StdRng::seed_from_u64(u64::from(number)),
            attempts: 0,
            patience: Patience { request: Duration::from_secs(3), slack: Duration::from_secs(5) },
            stop: stop.clone(),
            log: log.clone(),
            wrong: wrong.clone(),
            started,
        };
        clients.push(tokio::spawn(client.run()));
    }

    // In twelfths of the time, and a kill in each.
    let mut held = Vec::new();
    let mut reconnecting = Vec::new();
    let (mut kills, mut restarts, mut files) = (0, 0, 0);
    for twelfth in 0..12 {
        match twelfth {
            2 => stopped.signal("-STOP"),
            6 => stopped.signal("-CONT"),
            3 if disk.is_some() => disk.as_ref().unwrap().fill(),
            8 if disk.is_some() => disk.as_ref().unwrap().free(),
            // More connections than it may have files, none of which says anything.
            4 | 5 | 9 => {
                let at = few.addr.to_string().split_once('@').unwrap().1.parse().unwrap();
                held.extend((0..40).map_while(|_| TcpStream::connect_timeout(&at, Duration::from_millis(200)).ok()));
            }
            7 => held.clear(),
            _ => {}
        }
        sleep(length / 24).await;
        files = files.max(few.files());
        if twelfth % 2 == 0 {
            killed.kill();
            kills += 1;
        }
        sleep(length / 24).await;
        if !killed.alive() && killed.restart() {
            restarts += 1;
            let others = [("plain", &plain), ("stopped", &stopped), ("full", &full), ("few", &few)];
            // It's stopped until the sixth twelfth.
            let running = others.into_iter().filter(|(name, _)| *name != "stopped" || !(2..6).contains(&twelfth));
            let running = running.map(|(name, process)| (name.to_owned(), process.addr.id)).collect();
            // Before it's killed again.
            reconnecting.push(tokio::spawn(reconnects(metrics, running, length / 10)));
        }
        if !full.alive() && full.restart() {
            restarts += 1;
        }
    }
    drop(held);
    let (mut times, mut never) = (Vec::new(), 0);
    for reconnecting in reconnecting {
        for (name, time) in reconnecting.await.unwrap() {
            println!("{name} is connected to who was killed {time:?} after it was ready again");
            never += u32::from(time.is_none());
            times.extend(time);
        }
    }
    times.sort();
    let percent = |p: usize| times.get((times.len() * p).div_ceil(100).saturating_sub(1));
    println!(
        "{} reconnects: p50 {:?}, p99 {:?}, the longest {:?}; {never} not within {:?}",
        times.len(),
        percent(50),
        percent(99),
        times.last(),
        length / 10
    );
    assert!(!times.is_empty());
    println!("{kills} kills, {restarts} restarts; alive: full {} few {}, with {files} files of {FEW_FILES}", full.alive(), few.alive());
    assert!(few.alive(), "who has few files lives on");
    for process in [&plain, &killed, &stopped, &full, &few] {
        let log = fs::read_to_string(&process.log).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        println!("{}: {} lines, the last: {:?}", process.log.file_stem().unwrap().display(), log.lines().count(), log.lines().last());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let reader = node(90).await;
    let healed = Instant::now();
    loop {
        let mut roots = Vec::new();
        for addr in &addrs {
            let mut state = vec![format!("{:?}", ask(&reader, addr, &Query::Root).await)];
            for ledger in &ledgers {
                let Answer::Next(next) = ask(&reader, addr, &Query::Next { account: ledger.account }).await else { panic!("no number") };
                assert!(next <= ledger.sent.load(Ordering::Relaxed) + 1, "operations that nobody sent");
                state.push(if next > ledger.acknowledged.load(Ordering::Relaxed) { "all".into() } else { format!("only {next}") });
            }
            roots.push(state);
        }
        if roots.iter().all(|state| *state == roots[0] && state[1..].iter().all(|all| all == "all")) {
            break;
        }
        assert!(
            healed.elapsed() < PATIENCE,
            "{roots:#?} {:?}",
            ledgers.iter().map(|l| l.acknowledged.load(Ordering::Relaxed)).collect::<Vec<_>>()
        );
        sleep(Duration::from_millis(200)).await;
    }
    println!("one root {:?} after the last client ended", healed.elapsed());
    for ledger in &ledgers {
        let Answer::Next(next) = ask(&reader, &addrs[1], &Query::Next { account: ledger.account }).await else { panic!("no number") };
        let due = client::state(&ledger.account, next - 1);
        for addr in &addrs {
            assert!(entries(&reader, addr, ledger.account).await == due, "the state isn't that of the operations, each once");
        }
        println!(
            "{} acknowledged, {} in the log; {} answered, {} failed, {} refused",
            ledger.acknowledged.load(Ordering::Relaxed),
            next - 1,
            ledger.answered.load(Ordering::Relaxed),
            ledger.failed.load(Ordering::Relaxed),
            ledger.refused.load(Ordering::Relaxed)
        );
        assert!(ledger.acknowledged.load(Ordering::Relaxed) > 0);
    }
    let wrong = std::mem::take(&mut *wrong.lock().unwrap());
    assert!(wrong.is_empty(), "{wrong:#?}");
    reader.shutdown().await;
}
