//! How a benchmark uses the lab: a command in it, its files, and what each queue dropped.
//!
//! `cargo run -p peerlane-netem --example one_run`

use std::process::ExitCode;

use peerlane_netem::check::check;
use peerlane_netem::plan::{Plan, Topology};
use peerlane_netem::profile::Profile;
use peerlane_netem::{LabError, Run, best};

fn main() -> ExitCode {
    // First of all: the lab's inner ends are played by this very program.
    if let Some(code) = peerlane_netem::enter() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<(), LabError> {
    let profile = Profile::load("wan-loss1")?;
    let plan = Plan::new(&profile, Topology::Pair)?;
    let lab = best()?;
    for host in plan.hosts() {
        println!("{} is {} in {}", host.name, host.address, host.namespace);
    }

    // A run whose check fails belongs in no table.
    let report = check(lab, &profile, &profile, Topology::Pair, |run| run)?;
    println!("lab {lab}, Linux {}, as it says: {}", report.kernel, report.ok());

    // `peerlane bench` would name itself here, with arguments that make it one end or the other.
    let outcome = Run::new(lab, &profile, Topology::Pair, ["sh", "-c", "ip netns exec $PEERLANE_LAB_NS_A ip route get $PEERLANE_LAB_B"])
        .env("RUST_LOG", "warn")
        .memory(256)
        .start()?;
    println!("exit code {}, {:.3} s there, {:.3} s here", outcome.code, outcome.lab_seconds, outcome.wall_seconds);
    for queue in outcome.queues {
        println!("{} {} ({}): {} packets, {} dropped", queue.namespace, queue.device, queue.direction, queue.packets, queue.drops);
    }
    Ok(())
}
