//! Tells the compiler's version to the benchmark's records.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // Without it records say nothing of the compiler; no reason to fail a build.
    if let Some(version) = Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok()) {
        println!("cargo::rustc-env=PEERLANE_RUSTC={}", version.trim());
    }
}
