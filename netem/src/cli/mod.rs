//! The command line: what it understands, and exit codes.

mod calibrate;
mod check;
mod commands;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use peerlane_netem::LabKind;
use peerlane_netem::plan::Topology;

const EXAMPLES: &str = "Examples:
  lab doctor
  lab show wan-loss1
  lab run --profile wan -- ip netns exec peerlane-a ping -c 3 10.77.2.2
  lab run --lab virtual --profile blackhole --out results -- sh -c 'ip netns exec $PEERLANE_LAB_NS_A ./program $PEERLANE_LAB_B'
  lab check --lab virtual --profile wan,wan-loss1
  lab up --profile wan && lab exec a -- ping -c 3 10.77.2.2; lab down

Exit codes: 0 success; 1 the command, the check or the lab failed (`run` and `exec`: the command's own);
2 wrong use: an option, a profile, or a lab that can't be had here; 3 a check is rejected, for the tun lab was late.";

/// Networks with delay, loss and queues, made on one machine: built for a command, gone after it.
#[derive(Parser)]
#[command(name = "lab", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What this machine can do, and the command that would add what's missing
    Doctor,
    /// List the profiles
    Profiles,
    /// A profile as it's understood, and the commands that would build it
    Show {
        /// A built-in profile, or the path of a .toml file
        profile: String,
        #[command(flatten)]
        shape: Shape,
    },
    /// Run a command in a lab of its own; the environment names its hosts (PEERLANE_LAB_A, PEERLANE_LAB_NS_A, ...)
    Run {
        #[command(flatten)]
        network: Network,
        #[command(flatten)]
        machine: Machine,
        /// Set a variable for the command (repeatable)
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// A directory that the command can write to (repeatable); elsewhere the virtual lab has only /run
        #[arg(long, value_name = "DIR")]
        out: Vec<String>,
        /// Write exit code, times and the queues' counters to this file, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<String>,
        /// Leave the profile's schedule out
        #[arg(long)]
        no_schedule: bool,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Measure whether a lab does what its profile says; red if not. Within a lab (`lab run -- lab check`), that one
    Check {
        /// Profiles, separated by commas; `all` for every one
        #[arg(long, value_delimiter = ',', default_value = "wan")]
        profile: Vec<String>,
        #[command(flatten)]
        shape: Shape,
        /// The lab; the best that can be had by default
        #[arg(long)]
        lab: Option<LabKind>,
        #[command(flatten)]
        machine: Machine,
        /// Build this profile instead and measure against the other: to see the check fail
        #[arg(long, value_name = "PROFILE")]
        lie: Option<String>,
        /// Write the findings to this file, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<String>,
    },
    /// Lay the tun lab beside the virtual one, profile by profile, and write the table: `netem/calibrate` does it all
    Calibrate {
        /// Profiles, separated by commas; `all` for every one
        #[arg(long, value_delimiter = ',', default_value = "all")]
        profile: Vec<String>,
        /// The program `peerlane`, for QUERY and BELIEF; without it the network alone is measured
        #[arg(long, value_name = "PROGRAM")]
        bench: Option<String>,
        /// Seconds of a run of the benchmark, after half as many of warm-up
        #[arg(long, default_value_t = 6)]
        duration: u32,
        /// Where the table goes, after each profile as it's then
        #[arg(long, value_name = "FILE")]
        out: String,
        #[command(flatten)]
        machine: Machine,
    },
    /// Make a lab that stands until `down` (netem or tun)
    Up {
        #[command(flatten)]
        network: Network,
    },
    /// Run a command on a host of the standing lab
    Exec {
        /// a, b, ... or r for the router
        host: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// The standing lab and its queues
    Status,
    /// End the standing lab, and remove what killed runs left
    Down,
}

#[derive(Args)]
struct Shape {
    /// pair, star:N, or shared
    #[arg(long, default_value = "pair")]
    topology: Topology,
}

#[derive(Args)]
struct Network {
    /// A built-in profile, or the path of a .toml file
    #[arg(long)]
    profile: String,
    #[command(flatten)]
    shape: Shape,
    /// virtual, netem or tun; the best that can be had by default
    #[arg(long)]
    lab: Option<LabKind>,
}

#[derive(Args)]
struct Machine {
    /// Memory of the virtual lab's machine, in MiB
    #[arg(long, default_value_t = 512)]
    memory: u32,
    /// Real seconds after which it's ended
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

impl Machine {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

pub(super) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match commands::run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("lab: {}", failure.what);
            ExitCode::from(failure.code)
        }
    }
}
