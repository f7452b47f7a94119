//! Tells the versions of the compiler, and of what the transports stand on, to the benchmark's records.

use std::{path::Path, process::Command};

/// What a measurement may depend on.
const NAMED: [&str; 6] = ["quinn", "quinn-proto", "rustls", "aws-lc-rs", "tokio", "redb"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // Without it records say nothing of the compiler; no reason to fail a build.
    if let Some(version) = Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok()) {
        println!("cargo::rustc-env=PEERLANE_RUSTC={}", version.trim());
    }
    // It's there where this package is the workspace's root; elsewhere records say nothing of it.
    let lock = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("Cargo.lock");
    if let Ok(text) = std::fs::read_to_string(&lock) {
        println!("cargo::rerun-if-changed={}", lock.display());
        println!("cargo::rustc-env=PEERLANE_DEPENDENCIES={}", versions(&text).join(", "));
    }
}

/// `quinn 0.11.12` and so on: in a lock file the version follows the name.
fn versions(lock: &str) -> Vec<String> {
    let quoted = |line: &str, key: &str| line.strip_prefix(key).map(|value| value.trim_matches(['"', ' ']).to_owned());
    let pairs = lock.lines().zip(lock.lines().skip(1));
    let named = pairs.filter_map(|(name, version)| Some((quoted(name, "name = ")?, quoted(version, "version = ")?)));
    named.filter(|(name, _)| NAMED.contains(&name.as_str())).map(|(name, version)| format!("{name} {version}")).collect()
}
