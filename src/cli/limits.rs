//! `peerlane limits`.

use std::io::Write as _;

use peerlane_transport::{
    ClassTable, CloseCode,
    limits::{LimitRow, Limits},
};

use super::CliError;
use crate::{
    cad015::Cad015,
    cell::Profile,
    node::{NodeConfig, NodeLimits},
    peer::limit_rows,
    protocol::Protocol as _,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Add up for so many connected peers [default: as many as may be connected]
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
    /// Print the close codes instead
    #[arg(long)]
    close_codes: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    if args.close_codes {
        for (_, number, retry, meaning) in CloseCode::TABLE {
            if args.json {
                writeln!(out, "{}", serde_json::json!({ "code": number, "may_retry": retry, "meaning": meaning }))?;
            } else {
                writeln!(out, "{number:>4}  {}  {meaning}", if *retry { "may be dialed again" } else { "don't dial again   " })?;
            }
        }
        return Ok(());
    }
    let classes = ClassTable::standard();
    let protocol = Cad015::new(Profile::NATIVE);
    let config = NodeConfig::default();
    let sum = |rows: &[LimitRow]| rows.iter().map(|row| row.worst_case).fold(0, usize::saturating_add);
    let limits = Limits::default();
    let connection = limits.rows(&classes);
    let NodeLimits { per_peer, mut per_node, .. } = config.limit_rows(&classes, &limits, |class| protocol.overflow(class));
    per_node.extend(limit_rows(&classes));
    let mut of_a_peer = 0usize;
    for (per, rows, what) in [
        ("connection", &connection, "per connection, if a peer does its worst everywhere at once"),
        ("peer", &per_peer, "per connected peer, beside its first connection"),
        ("node", &per_node, "per process, beside its peers; requests, beliefs and the store included"),
    ] {
        for row in rows {
            if args.json {
                writeln!(
                    out,
                    "{}",
                    serde_json::json!({
                        "per": per, "name": row.name, "bound": row.bound, "reason": row.reason, "worst_case_bytes": row.worst_case,
                    })
                )?;
            } else {
                writeln!(out, "{:<42} {:>24} {:>12}  {}", row.name, row.bound, memory(row.worst_case), row.reason)?;
            }
        }
        let total = sum(rows);
        if args.json {
            writeln!(out, "{}", serde_json::json!({ "per": per, "name": format!("total per {per}"), "worst_case_bytes": total }))?;
        } else {
            writeln!(out, "{:<42} {:>24} {:>12}  {what}\n", "total", "", memory(total))?;
        }
        if per != "node" {
            of_a_peer = of_a_peer.saturating_add(total);
        }
    }
    let peers = args.peers.unwrap_or(config.peers);
    let all = sum(&per_node).saturating_add(peers.saturating_mul(of_a_peer));
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "per": "process", "name": "total", "peers": peers, "worst_case_bytes": all }))?;
    } else {
        writeln!(out, "{:<42} {:>24} {:>12}  all peers at their worst at once", "process", format!("{peers} peers"), memory(all))?;
    }
    Ok(())
}

fn memory(bytes: usize) -> String {
    match bytes {
        0 => "-".into(),
        n if n < 10 * 1024 => format!("{n} B"),
        n if n < 100 << 20 => format!("{} KiB", n.div_ceil(1024)),
        n => format!("{} MiB", n.div_ceil(1 << 20)),
    }
}
