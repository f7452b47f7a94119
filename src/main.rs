//! The `peerlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: this very program plays the inner ends of the benchmark's labs.
    #[cfg(target_os = "linux")]
    if let Some(code) = peerlane_netem::enter() {
        return code;
    }
    peerlane::cli::main()
}
