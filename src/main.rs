//! The `peerlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerlane::cli::main()
}
