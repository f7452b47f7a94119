//! Attacks on a real `peerlane peer` over loopback, and what an honest peer beside the attacker notices of them.
//!
//! Each attack is a real client, bounded in count and time. An honest peer asks QUERYs in an open loop, the attack off and
//! on in turn; its latency, what it lost, the victim's memory and what its log says are recorded. `cargo test` runs each
//! attack for a moment and fails for what doesn't depend on speed: a victim that's gone, an honest query that was lost, an
//! honest connection that broke, a log that an attacker can fill. The figures of SECURITY.md come from longer runs:
//!
//! ```text
//! cargo test --release --test attack -- --pairs 5 --seconds 3 --json FILE [NAME...]
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod attacks;
mod honest;
mod options;
mod report;
mod target;
mod victim;

use std::process::ExitCode;

use attacks::Attack;
use honest::{Honest, Phase};
use options::Options;
use report::Row;
use victim::Victim;

fn main() -> ExitCode {
    let options = match Options::of(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Attack> = attacks::ALL.iter().filter(|attack| options.names(attack.name)).collect();
    if options.list {
        chosen.iter().for_each(|attack| println!("{}: test", attack.name));
        return ExitCode::SUCCESS;
    }
    report::head(&options);
    let rows: Vec<Row> = chosen.into_iter().map(|attack| run(attack, &options)).collect();
    if let Some(file) = &options.json {
        report::write(file, &rows).unwrap();
    }
    let broken = rows.iter().flat_map(Row::broken).collect::<Vec<_>>();
    broken.iter().for_each(|what| println!("FAILED {what}"));
    println!("test result: {}. {} attacks, {} broken promises", if broken.is_empty() { "ok" } else { "FAILED" }, rows.len(), broken.len());
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One attack on a victim of its own.
fn run(attack: &'static Attack, options: &Options) -> Row {
    let mut victim = Victim::start(options.pin);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut row = Row::new(attack, options);
    runtime.block_on(async {
        let honest = Honest::connect(&victim.target, attack.honest).await;
        // What the first queries allocate isn't the attack's.
        honest.ask(options.phase).await;
        row.memory_before = victim.memory();
        for _ in 0..options.pairs {
            row.off.add(honest.ask(options.phase).await);
            let target = victim.target.clone();
            victim.listen_to_log();
            let attacker = attacks::start(attack, target, options.phase, options.pin);
            row.on.add(honest.ask(options.phase).await);
            row.memory_most = row.memory_most.max(victim.memory());
            row.tally += attacker.join().unwrap();
            row.log_lines = row.log_lines.max(victim.said_at_most_in_a_second());
        }
        // Waited for where it's published; an allocator gives back late, and that fails no test.
        row.memory_after = if options.json.is_some() { victim.settle(row.memory_before).await } else { victim.memory() };
        row.disconnects = honest.disconnects();
        honest.close().await;
    });
    row.alive = victim.alive();
    row.print();
    row
}
