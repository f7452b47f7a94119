//! The taking side, in a process of its own: this very program, told what to wait for by lines of JSON.

use std::{
    io::{BufRead, Write},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::Arc,
    thread,
};

use peerlane_transport::{
    AnyListener, Connection,
    identity::{Identity, PeerAddr},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
};

use super::{Variant, Workload, cpu_seconds, raise_descriptors};
use crate::bench::{BenchError, error::LabError};

/// What the other process is asked. It answers, with [`Told`], when it's so.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// So many peers are connected, no more and no fewer.
    Peers { exactly: u64 },
    /// So many messages have been taken, all classes together, since the start.
    Taken { messages: u64 },
}

/// What the other process says of itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: f64,
    pub(super) taken: u64,
}

/// The other process, from here. It ends when this is dropped.
pub(super) struct Other {
    pub(super) addr: PeerAddr,
    /// Messages that it had taken when it last said something.
    pub(super) taken: u64,
    _process: Child,
    ask: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Other {
    pub(super) async fn start(variant: Variant) -> Result<Self, LabError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "--in-cost", variant.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(ask), Some(told)) = (process.stdin.take(), process.stdout.take()) else { return Err(LabError::OtherEnd) };
        let mut told = BufReader::new(told).lines();
        let addr = told.next_line().await?.and_then(|line| line.parse().ok()).ok_or(LabError::OtherEnd)?;
        Ok(Self { addr, taken: 0, _process: process, ask, told })
    }

    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Told, LabError> {
        let mut line = serde_json::to_vec(&ask).map_err(std::io::Error::from)?;
        line.push(b'\n');
        self.ask.write_all(&line).await?;
        let line = self.told.next_line().await?.ok_or(LabError::OtherEnd)?;
        let told: Told = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        self.taken = told.taken;
        Ok(told)
    }
}

/// What has come of the peers.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    peers: u64,
    taken: u64,
}

/// Plays the taking side of a transport until standard input ends: the program calls itself for it. Blocks.
///
/// # Errors
/// [`BenchError::Lab`] if the side can't be built.
pub fn play_other(variant: Variant) -> Result<(), BenchError> {
    raise_descriptors();
    let play = || -> Result<(), LabError> {
        let (ask, mut asked) = mpsc::unbounded_channel();
        thread::Builder::new().name("bench-asked".into()).spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let parsed = line.ok().and_then(|line| serde_json::from_str::<Ask>(&line).ok());
                // What can't be read ends it, as the end of the input does.
                if parsed.is_none_or(|parsed| ask.send(parsed).is_err()) {
                    break;
                }
            }
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let identity = Identity::generate()?;
            let transport = variant.make(&identity, &Workload::default())?;
            let listener = transport.listen(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            say(&PeerAddr::new(identity.peer_id(), listener.local()).to_string())?;
            let (counts, mut changes) = watch::channel(Counts::default());
            let accepting = accept(listener, variant.connections() as u64, Arc::new(counts));
            let answering = async {
                while let Some(ask) = asked.recv().await {
                    let is_so = |counts: &Counts| match ask {
                        Ask::Peers { exactly } => counts.peers == exactly,
                        Ask::Taken { messages } => counts.taken >= messages,
                    };
                    let taken = changes.wait_for(is_so).await.map_err(|_| LabError::OtherEnd)?.taken;
                    let told = Told { resident_bytes: resident_bytes(), cpu_seconds: cpu_seconds(), taken };
                    say(&serde_json::to_string(&told).map_err(std::io::Error::from)?)?;
                }
                Ok(())
            };
            tokio::select! {
                ended = accepting => ended,
                ended = answering => ended,
            }
        })
    };
    play().map_err(|source| BenchError::Lab { end: "taking end", variant: variant.name(), source })
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Takes peers and all that they send, for ever. A peer has so many connections.
async fn accept(mut listener: AnyListener<SocketAddr>, connections: u64, counts: Arc<watch::Sender<Counts>>) -> Result<(), LabError> {
    let mut arrived = 0_u64;
    loop {
        // One after the other: they're dialed so.
        let connection = listener.accept().await?.upgrade().await?;
        arrived += 1;
        let is_whole = arrived.is_multiple_of(connections);
        if is_whole {
            counts.send_modify(|counts| counts.peers += 1);
        }
        for (class, _) in connection.classes().iter() {
            tokio::spawn(take(connection.clone(), class, counts.clone()));
        }
        let counts = counts.clone();
        tokio::spawn(async move {
            connection.closed().await;
            if is_whole {
                counts.send_modify(|counts| counts.peers -= 1);
            }
        });
    }
}

/// Takes a class's messages until the connection is over. Only what is waited for is told: to tell of each message costs
/// more than to take it.
async fn take(connection: Connection, class: peerlane_transport::ClassId, counts: Arc<watch::Sender<Counts>>) {
    while connection.recv(class).await.is_ok() {
        let mut more = 1;
        while connection.try_recv(class).is_some() {
            more += 1;
        }
        counts.send_modify(|counts| counts.taken += more);
    }
}

/// What this process occupies of the machine's memory. `None` without `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
