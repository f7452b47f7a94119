//! `peerlane gateway`: beside a peer of a foreign system that has only TCP.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use clap::Subcommand;
use peerlane_convex::{Gateway, GatewayConfig, GatewayError, GatewayPeer, GatewayStats, limits::MAX_FRAME};
use peerlane_transport::admission::{Lists, LocalPeer};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, metrics,
    setup::{Debugging, TransportChoice, interrupted, load_key, transports},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carries a Convex peer's traffic to other gateways over QUIC, a class for each kind of message
    Convex(Convex),
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples, on the machine of each of two peers whose Java processes listen on port 18889:
  peerlane key new --out gateway.pem
  peerlane gateway convex --key gateway.pem --local 127.0.0.1:18889 --listen 0.0.0.0:4433 \\
      --peer PEERID@gateway.other.example:4433=127.0.0.2:18888

and in the machine's /etc/hosts, where other.example:18888 is what the other peer has registered on chain (its :url):
  127.0.0.2  other.example

When it's ready it prints a line per peer, `at LOCALADDR stands PEERID@HOST:PORT`, and one for itself:
ready PEERID@ADDR transport=quic,tcp
Ctrl-C or SIGTERM ends it: what was read is delivered. interop/live/convex/README.md has more.")]
struct Convex {
    /// Who this gateway is: a key file (`peerlane key new`), not the peer's own key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The Java peer beside it
    #[arg(long, value_name = "HOST:PORT")]
    local: String,
    /// Where remote gateways arrive; port 0 for a free one. With `auto`, UDP and TCP have the same port number
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// A remote gateway, and where the Java peer connects as if to the peer behind it; without the latter, it may only come in.
    /// May be given several times
    #[arg(long, value_name = "PEERID@HOST:PORT[=LOCALADDR:PORT]")]
    peer: Vec<GatewayPeer>,
    /// Admit every gateway, not only those named by --peer: whoever comes can talk to the Java peer
    #[arg(long)]
    open: bool,
    /// How to reach and be reached
    #[arg(long, value_enum, default_value = "auto")]
    transport: TransportChoice,
    /// The network's name: gateways of another one are refused
    #[arg(long, value_name = "NAME", default_value = "convex")]
    network: String,
    /// The largest frame, both ways
    #[arg(long, value_name = "BYTES", default_value_t = MAX_FRAME)]
    max_frame: usize,
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "256")]
    connections: usize,
    /// Serve Prometheus's text at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Convex(args) => convex(args).await,
    }
}

fn config(args: &Convex) -> Result<GatewayConfig, CliError> {
    if args.peer.is_empty() && !args.open {
        return Err(CliError::Usage("nobody is admitted: name the remote gateways with --peer, or admit everybody with --open".into()));
    }
    if args.max_frame == 0 || args.max_frame > MAX_FRAME {
        return Err(CliError::Usage(format!("--max-frame: 1 to {MAX_FRAME} bytes, Convex's own limit")));
    }
    if !args.local.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(CliError::Usage(format!("--local {:?}: a host and a port, 127.0.0.1:18888 for example", args.local)));
    }
    let mut config = GatewayConfig::new(args.local.clone(), args.listen);
    config.peers.clone_from(&args.peer);
    config.open = args.open;
    config.max_frame = args.max_frame;
    config.connections = args.connections;
    Ok(config)
}

async fn convex(args: Convex) -> Result<(), CliError> {
    let config = config(&args)?;
    let identity = load_key(&args.key)?;
    let terms = GatewayConfig::terms(&args.network).map_err(CliError::usage)?;
    let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), terms).map_err(CliError::failed)?;
    let transports = transports(args.transport, &local, &Debugging::default())?;
    let gateway = Gateway::start(&local, transports, config).await.map_err(|error| match error {
        GatewayError::Config(_) => CliError::usage(error),
        _ => CliError::failed(error),
    });
    let gateway = Arc::new(gateway?);
    let stop = CancellationToken::new();
    if let Some(addr) = args.metrics {
        let counted = Arc::downgrade(&gateway);
        let served =
            metrics::serve(addr, stop.clone(), move || counted.upgrade().map_or_else(String::new, |gateway| text(&gateway.stats())));
        eprintln!("metrics at http://{}/metrics", served.await?);
    }
    let mut out = std::io::stdout();
    for (peer, at) in gateway.locals() {
        writeln!(out, "at {at} stands {peer}")?;
    }
    let addr = gateway.listening().first().map_or(args.listen, |(_, addr)| *addr);
    writeln!(out, "ready {}@{addr} transport={}", identity.peer_id(), args.transport.names())?;
    out.flush()?;
    interrupted().await;
    tracing::info!("shutting down");
    stop.cancel();
    match Arc::try_unwrap(gateway) {
        Ok(gateway) => gateway.shutdown().await,
        // A scrape is under way: it ends without a drain.
        Err(gateway) => drop(gateway),
    }
    Ok(())
}

/// OpenMetrics text. Series exist for configured peers (and, in an open gateway, those that came), so their number is bounded.
fn text(stats: &GatewayStats) -> String {
    let mut out = String::new();
    // Writing to a String doesn't fail.
    let _ = write_text(stats, &mut out);
    out
}

fn write_text(stats: &GatewayStats, out: &mut String) -> fmt::Result {
    let mut simple = |name: &str, help: &str, kind: &str, value: u64| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{suffix} {value}")
    };
    simple("peerlane_gateway_held_bytes", "Bytes held beside the connections' queues.", "gauge", stats.held)?;
    simple("peerlane_gateway_held_bytes_max", "The most held at any moment.", "gauge", stats.held_peak)?;
    simple("peerlane_gateway_accepts_failed", "Arrivals that never became a connection.", "counter", stats.accepts_failed)?;
    type Field = fn(&peerlane_convex::PeerStats) -> u64;
    let per_peer: [(&str, &str, &str, Field); 7] = [
        ("peerlane_gateway_connections", "Connections now.", "gauge", |peer| peer.open),
        ("peerlane_gateway_opened", "Connections made.", "counter", |peer| peer.opened),
        ("peerlane_gateway_dialed", "Connections that the local peer asked for.", "counter", |peer| peer.dialed),
        ("peerlane_gateway_dials_failed", "Dials of the remote gateway that failed.", "counter", |peer| peer.dials_failed),
        ("peerlane_gateway_local_failed", "Dials of the local peer that failed.", "counter", |peer| peer.local_failed),
        ("peerlane_gateway_refused", "Connections refused: too many.", "counter", |peer| peer.refused),
        ("peerlane_gateway_lost", "Connections that ended by no peer's wish.", "counter", |peer| peer.lost),
    ];
    for (name, help, kind, value) in per_peer {
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for peer in &stats.peers {
            writeln!(out, "{name}{suffix}{{peer=\"{}\"}} {}", peer.peer, value(peer))?;
        }
    }
    for (name, help, bytes) in [
        ("peerlane_gateway_messages", "Messages passed, by kind; out is from the local peer.", false),
        ("peerlane_gateway_bytes", "Bytes of their bodies.", true),
    ] {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter")?;
        for peer in &stats.peers {
            for kind in &peer.kinds {
                for (way, traffic) in [("out", kind.out), ("in", kind.inward)] {
                    let value = if bytes { traffic.bytes } else { traffic.messages };
                    writeln!(out, "{name}_total{{peer=\"{}\",kind=\"{}\",direction=\"{way}\"}} {value}", peer.peer, kind.kind)?;
                }
            }
        }
    }
    writeln!(out, "# HELP peerlane_gateway_queued_bytes Bytes that wait to leave, by class.\n# TYPE peerlane_gateway_queued_bytes gauge")?;
    let classes = peerlane_convex::gateway_classes();
    for peer in &stats.peers {
        for (id, class) in classes.iter() {
            let queued = peer.connections.iter().filter_map(|connection| connection.classes.get(id.index()));
            let queued: u64 = queued.map(|class| class.queued_bytes).sum();
            writeln!(out, "peerlane_gateway_queued_bytes{{peer=\"{}\",class=\"{}\"}} {queued}", peer.peer, class.name)?;
        }
    }
    writeln!(out, "# EOF")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Convex,
    }

    fn parse(args: &str) -> Result<GatewayConfig, CliError> {
        let all = format!("x --key k --listen 127.0.0.1:0 {args}");
        config(&Cli::try_parse_from(all.split_whitespace()).map_err(CliError::usage)?.args)
    }

    #[test]
    fn nobody_is_admitted_by_mistake_and_mistakes_are_named() {
        let id = peerlane_transport::identity::Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let peer = format!("--peer {id}@a.example:4433=127.0.0.2:18888");
        let config = parse(&format!("--local localhost:18889 {peer}")).unwrap();
        assert_eq!((config.peers.len(), config.open, config.max_frame), (1, false, MAX_FRAME));
        assert!(parse("--local 127.0.0.1:18889 --open").unwrap().open);
        for bad in [
            "--local 127.0.0.1:18889".into(),
            format!("--local 18889 {peer}"),
            format!("--local 127.0.0.1:0 {peer}"),
            format!("--local 127.0.0.1:1 {peer} --max-frame 50000001"),
            format!("--local 127.0.0.1:1 --peer {id}@a:1=18888"),
        ] {
            assert!(matches!(parse(&bad), Err(CliError::Usage(_))), "{bad}");
        }
    }
}
