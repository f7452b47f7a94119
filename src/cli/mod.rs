//! The `peerlane` command: one file a command. Nothing below knows it.

/// Prints a line. Unlike `println!`, it doesn't panic when nobody reads any more.
macro_rules! say {
    ($($arg:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($arg)*)))
    };
}

mod bench;
mod client;
mod convex;
mod convex_cell;
mod demo;
mod error;
mod gateway;
mod key;
mod limits;
mod metrics;
mod operations;
mod peer;
mod query;
mod setup;
mod transact;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;

/// Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another.
#[derive(Debug, Parser)]
#[command(name = "peerlane", version, max_term_width = 110, after_long_help = EXAMPLES)]
struct Cli {
    /// What to log on stderr: error, warn, info, debug, trace, or a filter as of tracing's EnvFilter
    #[arg(long, global = true, value_name = "FILTER", default_value = "warn", env = "PEERLANE_LOG")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  peerlane demo                                        three peers over QUIC, a file loaded, a crash survived, latencies measured
  peerlane key new --out me.pem                        a new identity
  peerlane peer --key me.pem --listen 127.0.0.1:4001 --data me
  peerlane transact --key account.pem --to PEERID@127.0.0.1:4001 put colour blue
  peerlane query --key me2.pem --to PEERID@127.0.0.1:4001 accounts

Exit codes: 0 done, 1 failed, 2 wrong usage or input.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes or shows a key file
    Key(key::Args),
    /// Runs a peer
    Peer(peer::Args),
    /// Asks a peer how it is
    Status(client::StatusArgs),
    /// Measures the round trip to a peer, answered by its handler
    Ping(client::PingArgs),
    /// Signs operations with an account's key and has a peer apply them
    Transact(transact::Args),
    /// Reads from a peer's store
    Query(query::Args),
    /// Talks to a Convex peer in its own protocol, and shows Convex's cells
    Convex(convex::Args),
    /// Carries a foreign peer's own protocol to its other peers over QUIC
    Gateway(gateway::Args),
    /// Prints the table of bounds and the worst-case memory they add up to
    Limits(limits::Args),
    /// Measures QUERY latency with and without a flood of BELIEFs
    Bench(bench::Args),
    /// Shows it all: three peers, a file of operations, a crash, and the latencies of TCP beside QUIC
    Demo(demo::Args),
}

/// Runs the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or input.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = init_log(&cli.log) {
        return error.report();
    }
    // Sockets are looked at after every task instead of every 61st: under a flood, tasks are long, and an urgent
    // message waits in its socket meanwhile (`peerlane bench --event-interval`).
    let runtime = match tokio::runtime::Builder::new_multi_thread().event_interval(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Failed(format!("the runtime can't start: {error}")).report(),
    };
    {
        let _runtime = runtime.enter();
        if !matches!(cli.command, Command::Key(_) | Command::Limits(_) | Command::Bench(_) | Command::Convex(_)) {
            setup::watch_signals();
        }
    }
    let result = match cli.command {
        Command::Key(args) => key::run(args),
        Command::Limits(args) => limits::run(&args),
        Command::Peer(args) => runtime.block_on(peer::run(args)),
        Command::Status(args) => runtime.block_on(client::status(args)),
        Command::Ping(args) => runtime.block_on(client::ping(args)),
        Command::Transact(args) => runtime.block_on(transact::run(args)),
        Command::Query(args) => runtime.block_on(query::run(args)),
        Command::Convex(args) => runtime.block_on(convex::run(args)),
        Command::Gateway(args) => runtime.block_on(gateway::run(args)),
        Command::Bench(args) => bench::run(&args, &cli.log),
        Command::Demo(args) => runtime.block_on(demo::run(args)),
    };
    // Blocking work of a cancelled command must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn init_log(filter: &str) -> Result<(), CliError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| CliError::Usage(format!("--log: {error}")))?;
    // A second initialisation is a test's; the first one stays.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
