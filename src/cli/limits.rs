//! `peerlane limits`.

use std::io::Write as _;

use peerlane_transport::{ClassTable, CloseCode, limits::Limits};

use super::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
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
    let rows = Limits::default().rows(&ClassTable::standard());
    let total: usize = rows.iter().map(|row| row.worst_case).sum();
    for row in &rows {
        if args.json {
            writeln!(
                out,
                "{}",
                serde_json::json!({ "name": row.name, "bound": row.bound, "reason": row.reason, "worst_case_bytes": row.worst_case })
            )?;
        } else {
            writeln!(out, "{:<28} {:>22} {:>12}  {}", row.name, row.bound, memory(row.worst_case), row.reason)?;
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "name": "total per connection", "worst_case_bytes": total }))?;
    } else {
        writeln!(out, "{:<28} {:>22} {:>12}  per connection, if a peer does its worst everywhere at once", "total", "", memory(total))?;
    }
    Ok(())
}

fn memory(bytes: usize) -> String {
    match bytes {
        0 => "-".into(),
        n if n < 10 * 1024 => format!("{n} B"),
        n => format!("{} KiB", n.div_ceil(1024)),
    }
}
