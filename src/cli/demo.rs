//! `peerlane demo`: the main job in one command, with real processes.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use peerlane_transport::identity::{Identity, PeerAddr};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{
    CliError, operations,
    setup::{Client, ClientArgs, TransportChoice, or_interrupted},
    transact::load,
};
use crate::peer::{Answer, MAX_KEY, MAX_VALUE, Query, Status};

/// Files of real data that most systems have; the first one found is loaded.
const SOURCES: &[&str] = &["/var/lib/dpkg/status", "/lib/apk/db/installed", "/usr/share/dict/words", "/etc/services", "/etc/passwd"];
/// The most that is read of such a file, in bytes.
const MAX_SOURCE: u64 = 64 << 20;
/// All peers must have the same root within this.
const CONVERGE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
What it does, in a temporary directory, on loopback alone:
  1. starts three peers as processes of their own, each connected to the others
  2. makes a file of operations from a real file (a package list, if there is one) and loads it through the first peer
  3. reads an operation back from the third, and compares the roots of all three
  4. loads the rest while the second is killed (kill -9), restarts it, and compares again
  5. measures QUERY latency, idle and under a flood of BELIEFs, TCP beside QUIC

Examples:
  peerlane demo
  peerlane demo --transport tcp --from /usr/share/dict/words --skip-bench")]
pub(super) struct Args {
    /// How the three peers reach each other
    #[arg(long, value_enum, default_value = "quic")]
    transport: TransportChoice,
    /// The file to make operations from [default: the first of some that most systems have]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The most operations
    #[arg(long, value_name = "N", default_value = "20000")]
    operations: usize,
    /// Leave the latencies out
    #[arg(long)]
    skip_bench: bool,
}

/// A peer's process.
struct Peer {
    name: &'static str,
    child: Child,
    addr: PeerAddr,
}

struct Demo {
    dir: PathBuf,
    program: PathBuf,
    transport: TransportChoice,
    identity: Identity,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let started = Instant::now();
    let dir = tempfile::Builder::new().prefix("peerlane-demo-").tempdir()?;
    let program = std::env::current_exe()?;
    let identity = Identity::generate().map_err(CliError::failed)?;
    let demo = Demo { dir: dir.path().to_path_buf(), program, transport: args.transport, identity };
    let source = source(args.from.as_deref())?;
    let lines = make_operations(&source, args.operations)?;
    let file = demo.dir.join("OPS.jsonl");
    fs::write(&file, &lines.text)?;
    say!("{} operations made from {}", lines.count, source.display())?;
    let last = lines.last;

    // Children are killed when they're dropped, so an error or Ctrl-C leaves nothing behind; for worse ends see `start`.
    demo.keys()?;
    let a = demo.start("a", "127.0.0.1:0".parse().map_err(CliError::failed)?, &[]).await?;
    let b = demo.start("b", "127.0.0.1:0".parse().map_err(CliError::failed)?, &[&a.addr]).await?;
    let c = demo.start("c", "127.0.0.1:0".parse().map_err(CliError::failed)?, &[&a.addr, &b.addr]).await?;
    say!("three peers run over {}", args.transport.names())?;

    let edits = operations::read(&file)?;
    let half = edits.len() / 2;
    let (first, rest) = (edits[..half].to_vec(), edits[half..].to_vec());
    let client = demo.client(&a).await?;
    let loading = Instant::now();
    let loaded = load(&client, &demo.identity, first, false, true).await?;
    say!("{} loaded through {} in {:.2?}", loaded.applied, a.name, loading.elapsed())?;
    let root = demo.converged(&[&a, &b, &c]).await?;
    say!("all three have root {root}")?;

    say!("killing {} (kill -9) while the rest is loaded through {} ...", b.name, a.name)?;
    let (loaded, b) = {
        let local = b.addr.clone();
        let restart = async {
            kill(b).await?;
            demo.start("b", socket(&local)?, &[&a.addr, &c.addr]).await
        };
        let loading = load(&client, &demo.identity, rest, false, true);
        let (loaded, restarted) = tokio::join!(loading, restart);
        (loaded?, restarted?)
    };
    say!("{} more loaded meanwhile; {} is back", loaded.applied, b.name)?;
    let root = demo.converged(&[&a, &b, &c]).await?;
    let status = demo.status(&c).await?;
    say!("all three have root {root}: {} operations, {} keys", status.counts.operations, status.counts.keys)?;
    if status.counts.operations != lines.count as u64 {
        return Err(CliError::Failed(format!("{} operations were acknowledged, {} are there", lines.count, status.counts.operations)));
    }
    demo.read_back(&c, &last).await?;
    client.close().await;
    for peer in [a, b, c] {
        stop(peer).await?;
    }
    say!("the peers have ended cleanly ({:.1?} so far)\n", started.elapsed())?;
    if !args.skip_bench {
        super::bench::demo().await?;
    }
    Ok(())
}

impl Demo {
    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    fn keys(&self) -> Result<(), CliError> {
        for name in ["a", "b", "c"] {
            Identity::generate().map_err(CliError::failed)?.save_new(&self.key(name)).map_err(CliError::failed)?;
        }
        Ok(())
    }

    /// Starts a peer and waits for its ready line.
    async fn start(&self, name: &'static str, listen: SocketAddr, peers: &[&PeerAddr]) -> Result<Peer, CliError> {
        let transport = match self.transport {
            TransportChoice::Auto => "auto",
            TransportChoice::Quic => "quic",
            TransportChoice::Tcp => "tcp",
        };
        let mut command = Command::new(&self.program);
        command.args(["--log", "error", "peer", "--transport", transport, "--listen", &listen.to_string(), "--key"]);
        command.arg(self.key(name)).arg("--data").arg(self.dir.join(name));
        for peer in peers {
            command.args(["--peer", &peer.to_string()]);
        }
        // Its end is the peers' end: whoever kills this program, or interrupts it twice, leaves none of them behind.
        command.arg("--end-with-stdin").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let fail = |what: &dyn std::fmt::Display| CliError::Failed(format!("peer {name} didn't start: {what}"));
        let out = child.stdout.take().ok_or_else(|| fail(&"no output"))?;
        let mut lines = BufReader::new(out).lines();
        let line = or_interrupted(tokio::time::timeout(Duration::from_secs(20), lines.next_line())).await?;
        let line = line.map_err(|_| fail(&"no ready line within 20 s"))?.map_err(|error| fail(&error))?;
        let line = line.ok_or_else(|| fail(&"it ended before it was ready; its message is above"))?;
        let addr = line.split_whitespace().nth(1).and_then(|addr| addr.parse().ok()).ok_or_else(|| fail(&line))?;
        Ok(Peer { name, child, addr })
    }

    async fn client(&self, peer: &Peer) -> Result<Client, CliError> {
        let args = ClientArgs {
            to: peer.addr.clone(),
            transport: self.transport,
            network: super::setup::DEFAULT_NETWORK.into(),
            timeout: Duration::from_secs(20),
        };
        // Each with a key of its own: a node has one connection per key, and two clients of one key would take it from each other.
        Client::connect(&args, &Identity::generate().map_err(CliError::failed)?).await
    }

    async fn status(&self, peer: &Peer) -> Result<Status, CliError> {
        let client = self.client(peer).await?;
        let asked = client.ask(crate::cad015::Message::status(0)).await;
        let status =
            asked.and_then(|(answer, outcome)| Status::read(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed));
        client.close().await;
        status
    }

    /// Waits until all have the same root.
    async fn converged(&self, peers: &[&Peer]) -> Result<String, CliError> {
        let started = Instant::now();
        let mut clients = Vec::new();
        for peer in peers {
            clients.push(self.client(peer).await?);
        }
        let root = loop {
            let mut roots = Vec::new();
            for client in &clients {
                let query = Query::Root;
                let message = query.message(client.profile()).map_err(CliError::failed)?;
                let (answer, outcome) = client.ask(message).await?;
                match query.read_answer(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed)? {
                    Answer::Root(root) => roots.push(root),
                    _ => return Err(CliError::Failed("no root".into())),
                }
            }
            if roots.windows(2).all(|pair| pair[0] == pair[1]) {
                break roots[0];
            }
            if started.elapsed() > CONVERGE {
                return Err(CliError::Failed(format!("the peers' roots still differ after {CONVERGE:?}")));
            }
            or_interrupted(tokio::time::sleep(Duration::from_millis(20))).await?;
        };
        for client in clients {
            client.close().await;
        }
        say!("  equal roots after {:.2?}", started.elapsed())?;
        Ok(root.to_string())
    }

    async fn read_back(&self, peer: &Peer, (key, value): &(String, String)) -> Result<(), CliError> {
        let client = self.client(peer).await?;
        let query = Query::Get { account: *self.identity.peer_id().as_bytes(), key: key.clone().into() };
        let message = query.message(client.profile()).map_err(CliError::failed)?;
        let (answer, outcome) = client.ask(message).await?;
        let found = query.read_answer(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed)?;
        client.close().await;
        if found != Answer::Value(Some(value.clone().into())) {
            return Err(CliError::Failed(format!("{} has another value of {key:?} than was loaded", peer.name)));
        }
        say!("{key:?} read back from {}: {} bytes, as they were loaded", peer.name, value.len())?;
        Ok(())
    }
}

fn socket(addr: &PeerAddr) -> Result<SocketAddr, CliError> {
    addr.to_string().split_once('@').and_then(|(_, socket)| socket.parse().ok()).ok_or_else(|| CliError::Failed("no socket address".into()))
}

async fn kill(mut peer: Peer) -> Result<(), CliError> {
    // SIGKILL: nothing is flushed, nobody is told.
    peer.child.kill().await?;
    Ok(())
}

/// Asks the process to end, as Ctrl-C does, and waits for it.
async fn stop(mut peer: Peer) -> Result<(), CliError> {
    if let Some(pid) = peer.child.id() {
        let status = Command::new("kill").args(["-INT", &pid.to_string()]).status().await?;
        if !status.success() {
            return Err(CliError::Failed(format!("peer {} can't be told to end", peer.name)));
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), peer.child.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(CliError::Failed(format!("peer {} ended with {status}", peer.name))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(CliError::Failed(format!("peer {} doesn't end", peer.name))),
    }
}

fn source(from: Option<&Path>) -> Result<PathBuf, CliError> {
    let found = match from {
        Some(file) => Some(file.to_path_buf()),
        None => SOURCES.iter().map(PathBuf::from).find(|file| file.is_file()),
    };
    found.ok_or_else(|| CliError::Usage(format!("none of {} is here; name a text file with --from", SOURCES.join(", "))))
}

struct Made {
    text: String,
    count: usize,
    last: (String, String),
}

/// One operation per record of the file: a paragraph of a package list, or else a line.
fn make_operations(source: &Path, most: usize) -> Result<Made, CliError> {
    let mut raw = Vec::new();
    let fail = |error: std::io::Error| CliError::Usage(format!("{}: {error}", source.display()));
    fs::File::open(source).map_err(fail)?.take(MAX_SOURCE).read_to_end(&mut raw).map_err(fail)?;
    let text = String::from_utf8_lossy(&raw);
    let paragraphs = text.split("\n\n").filter(|record| !record.trim().is_empty()).count() > 20;
    let records: Vec<&str> = if paragraphs { text.split("\n\n").collect() } else { text.lines().collect() };
    let mut made = Made { text: String::new(), count: 0, last: Default::default() };
    for (i, record) in records.into_iter().filter(|record| !record.trim().is_empty()).take(most.max(1)).enumerate() {
        let name = record.lines().next().unwrap_or_default();
        let key = cut(&format!("{i:06} {}", name.strip_prefix("Package: ").unwrap_or(name)), MAX_KEY).to_owned();
        let value = cut(record, MAX_VALUE).to_owned();
        let _ = writeln!(made.text, "{}", operations::line(&key, &value));
        made.count += 1;
        made.last = (key, value);
    }
    if made.count < 2 {
        return Err(CliError::Usage(format!("{} has fewer than two records", source.display())));
    }
    Ok(made)
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
