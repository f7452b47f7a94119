//! The command `lab`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    peerlane_netem::enter().unwrap_or_else(cli::main)
}
