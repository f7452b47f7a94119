//! Loss, death and time: what must hold when links break, peers die and packets rot.
//!
//! * `seeds`: the reference peer over the simulator, one scenario out of each seed.
//! * `havoc`: live peers over loopback, and a proxy between them that does what networks do, and worse.
//! * `processes`: five peers as processes: kill -9, SIGSTOP, few files, a full disk.
//! * `stateful`: a client that keeps to no rule, over the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod client;
mod havoc;
mod processes;
mod seeds;
mod stateful;

use peerlane::node::NodeConfig;

/// A number that the environment sets, for longer runs than a test's.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The default, but for what `change` does.
fn config(change: impl FnOnce(&mut NodeConfig)) -> NodeConfig {
    let mut config = NodeConfig::default();
    change(&mut config);
    config
}
