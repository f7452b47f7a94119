//! `peerlane peer`.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc};

use peerlane_transport::{
    admission::{ListFiles, Lists, LocalPeer, Terms},
    identity::PeerAddr,
};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    CliError, metrics,
    setup::{DEFAULT_NETWORK, Debugging, TransportChoice, interrupted, load_key, transports},
};
use crate::{
    cad015::Cad015,
    cell::Profile,
    node::{Event, Node},
    peer::{Gossip, PeerHandler, Service, Store},
};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  peerlane key new --out a.pem
  peerlane peer --key a.pem --listen 127.0.0.1:4001 --data a
  peerlane peer --key b.pem --listen 127.0.0.1:0 --transport quic --peer PEERID@127.0.0.1:4001

When it's ready it prints one line: ready PEERID@ADDR transport=quic,tcp
SIGHUP reads the lists again. Ctrl-C or SIGTERM ends it: connections drain, nothing acknowledged is lost.

Lists have one PEERID per line; # begins a comment. --config FILE is TOML with the same names: key, listen, transport,
peer (a list), data, trust, allow, block, network, metrics, qlog, keylog. What the command line says comes first.")]
pub(super) struct Args {
    /// Who this peer is: a key file (`peerlane key new`)
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    key: Option<PathBuf>,
    /// Where to listen; port 0 for a free one. With `auto`, UDP and TCP have the same port number
    #[arg(long, value_name = "ADDR", required_unless_present = "config")]
    listen: Option<SocketAddr>,
    /// How to reach and be reached [default: auto]
    #[arg(long, value_enum)]
    transport: Option<TransportChoice>,
    /// A peer to keep connected; may be given several times
    #[arg(long, value_name = "PEERID@HOST:PORT")]
    peer: Vec<PeerAddr>,
    /// The directory of the store; made if it isn't there [default: in memory, gone with the process]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Peers with priority
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Peers admitted [default: everybody]
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
    /// Peers refused
    #[arg(long, value_name = "FILE")]
    block: Option<PathBuf>,
    /// The network's name: peers of another one are refused [default: peerlane]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Serve Prometheus's text at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Write one qlog file per QUIC connection into this directory
    #[arg(long, value_name = "DIR")]
    qlog: Option<PathBuf>,
    /// Write TLS secrets to the file named by SSLKEYLOGFILE, so that a capture can be decrypted
    #[arg(long)]
    keylog: bool,
    /// End when standard input does: for a program that starts peers and may be killed
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    /// A TOML file with these options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The file of `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    key: Option<PathBuf>,
    listen: Option<SocketAddr>,
    transport: Option<TransportChoice>,
    #[serde(default)]
    peer: Vec<String>,
    data: Option<PathBuf>,
    trust: Option<PathBuf>,
    allow: Option<PathBuf>,
    block: Option<PathBuf>,
    network: Option<String>,
    metrics: Option<SocketAddr>,
    qlog: Option<PathBuf>,
    #[serde(default)]
    keylog: bool,
}

/// The largest configuration file in bytes.
const MAX_CONFIG: u64 = 1 << 20;

fn read_config(path: &std::path::Path) -> Result<ConfigFile, CliError> {
    let fail = |what: &dyn std::fmt::Display| CliError::Usage(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| fail(&error))?.len();
    if size > MAX_CONFIG {
        return Err(fail(&format!("a configuration has at most {MAX_CONFIG} bytes, not {size}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    toml::from_str(&text).map_err(|error| fail(&error))
}

/// What is in force.
struct Settings {
    key: PathBuf,
    listen: SocketAddr,
    transport: TransportChoice,
    peers: Vec<PeerAddr>,
    data: Option<PathBuf>,
    lists: ListFiles,
    network: String,
    metrics: Option<SocketAddr>,
    debugging: Debugging,
    end_with_stdin: bool,
}

fn settings(args: Args) -> Result<Settings, CliError> {
    let file = args.config.as_deref().map_or_else(|| Ok(ConfigFile::default()), read_config)?;
    let missing = |what: &str| CliError::Usage(format!("--{what} is missing, on the command line and in the configuration"));
    let parse = |text: &String| text.parse().map_err(|error| CliError::Usage(format!("peer {text:?} in the configuration: {error}")));
    let from_file: Vec<PeerAddr> = file.peer.iter().map(parse).collect::<Result<_, _>>()?;
    let lists = ListFiles { trust: args.trust.or(file.trust), allow: args.allow.or(file.allow), block: args.block.or(file.block) };
    Ok(Settings {
        key: args.key.or(file.key).ok_or_else(|| missing("key"))?,
        listen: args.listen.or(file.listen).ok_or_else(|| missing("listen"))?,
        transport: args.transport.or(file.transport).unwrap_or(TransportChoice::Auto),
        peers: args.peer.into_iter().chain(from_file).collect(),
        data: args.data.or(file.data),
        lists,
        network: args.network.or(file.network).unwrap_or_else(|| DEFAULT_NETWORK.into()),
        metrics: args.metrics.or(file.metrics),
        debugging: Debugging { qlog: args.qlog.or(file.qlog), key_log: args.keylog || file.keylog },
        end_with_stdin: args.end_with_stdin,
    })
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let settings = settings(args)?;
    let orphaned = CancellationToken::new();
    if settings.end_with_stdin {
        watch_stdin(orphaned.clone());
    }
    let identity = Arc::new(load_key(&settings.key)?);
    let terms = Terms::new(&settings.network).map_err(CliError::usage)?;
    let lists = Arc::new(Lists::open(settings.lists).map_err(CliError::usage)?);
    if settings.debugging.key_log && std::env::var_os("SSLKEYLOGFILE").is_none() {
        return Err(CliError::Usage("--keylog writes to the file named by SSLKEYLOGFILE, which isn't set".into()));
    }
    if settings.debugging.qlog.is_some() && settings.transport == TransportChoice::Tcp {
        return Err(CliError::Usage("--qlog writes what QUIC does, and --transport tcp has none of it; leave one of the two out".into()));
    }
    let local = LocalPeer::new(&identity, lists.clone(), terms).map_err(CliError::failed)?;
    let store = match &settings.data {
        Some(dir) => Store::open(dir, &settings.network, Profile::NATIVE),
        None => Store::in_memory(&settings.network, Profile::NATIVE),
    };
    let store = Arc::new(store.map_err(CliError::failed)?);
    let transports = transports(settings.transport, &local, &settings.debugging)?;

    let changed = Arc::new(Notify::new());
    let gossip = Gossip::new(store.clone(), identity.clone(), changed.clone());
    let service = Service::new(store, identity.peer_id(), &settings.network, changed);
    let handler = PeerHandler::new(service, gossip.clone(), identity.clone(), &settings.network);
    let mut builder =
        Node::builder(Cad015::new(Profile::NATIVE.in_network(&settings.network)), local).listen(settings.listen).handler(handler);
    for transport in &transports {
        builder = builder.transport(transport.clone());
    }
    for peer in settings.peers {
        builder = builder.peer(peer);
    }
    let node = builder.start().await.map_err(CliError::failed)?;
    gossip.start(node.handle());
    let stop = CancellationToken::new();
    tokio::spawn(log_events(node.events(), stop.clone()));
    if let Some(addr) = settings.metrics {
        let (handle, counters) = (node.handle(), gossip.clone());
        let served = metrics::serve(addr, stop.clone(), move || counters.add_metrics(handle.metrics_text())).await?;
        eprintln!("metrics at http://{served}/metrics");
    }
    // Before the ready line: unhandled, a SIGHUP ends the process.
    if let Ok(hangups) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        tokio::spawn(reload(hangups, lists, stop.clone()));
    }

    let addr = node.listening().first().map_or(settings.listen, |listening| listening.addr);
    let mut out = std::io::stdout();
    writeln!(out, "ready {}@{addr} transport={}", identity.peer_id(), settings.transport.names())?;
    out.flush()?;

    tokio::select! {
        () = interrupted() => {}
        () = orphaned.cancelled() => {}
    }
    tracing::info!("shutting down");
    stop.cancel();
    gossip.stop().await;
    node.shutdown().await;
    for transport in &transports {
        let _ = tokio::time::timeout(super::setup::LAST_WORDS, transport.idle()).await;
    }
    Ok(())
}

/// Cancels when standard input ends. A thread of its own, which nobody waits for: the runtime would wait for its own ones.
fn watch_stdin(ended: CancellationToken) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ended.cancel();
    });
}

/// SIGHUP reads the lists again. A broken list changes nothing.
async fn reload(mut hangups: tokio::signal::unix::Signal, lists: Arc<Lists>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hangups.recv() => {}
        }
        let lists = lists.clone();
        match tokio::task::spawn_blocking(move || lists.reload()).await {
            Ok(Ok(changed)) => eprintln!("lists read again{}", if changed { "" } else { ": nothing has changed" }),
            Ok(Err(error)) => eprintln!("the lists stay as they were: {error}"),
            Err(_) => return,
        }
    }
}

async fn log_events(mut events: tokio::sync::broadcast::Receiver<Event>, stop: CancellationToken) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(Event::DialFailed { addr, transport, error, may_retry }) if !may_retry => {
                tracing::warn!(%addr, transport, %error, "dialing won't help before something changes");
            }
            Ok(event) => tracing::info!(?event),
            Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "too many events to log"),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn with_file(text: &str, args: &[&str]) -> Result<Settings, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peer.toml");
        std::fs::write(&file, text).unwrap();
        let args = ["peer", "--config", file.to_str().unwrap()].into_iter().chain(args.iter().copied());
        settings(Command::try_parse_from(args).unwrap().args)
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let id = peerlane_transport::identity::Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let text = format!("key = \"a.pem\"\nlisten = \"127.0.0.1:1\"\ntransport = \"tcp\"\npeer = [\"{id}@localhost:5\"]\n");
        let settings = with_file(&text, &["--listen", "127.0.0.1:2", "--peer", &format!("{id}@[::1]:6")]).unwrap();
        assert_eq!((settings.listen.port(), settings.transport, settings.peers.len()), (2, TransportChoice::Tcp, 2));
        assert_eq!(settings.network, DEFAULT_NETWORK);
    }

    #[test]
    fn a_bad_file_is_named() {
        for bad in
            ["key = 1", "colour = \"blue\"", "key = \"a\"\nlisten = \"here\"", "key = \"a\"\nlisten = \"127.0.0.1:1\"\npeer = [\"x\"]"]
        {
            let Err(CliError::Usage(what)) = with_file(bad, &[]) else { unreachable!() };
            assert!(what.contains("peer.toml") || what.contains("in the configuration"), "{what}");
        }
        assert!(matches!(with_file("key = \"a\"", &[]), Err(CliError::Usage(what)) if what.contains("--listen")));
    }
}
