//! What a peer can make us hold, counted by the allocator: a victim in a process of its own, and peers that do their worst.
//!
//! The victim listens with the default tables and takes nothing of what it's sent; told so, it sends as much as its
//! budgets take to peers that read nothing. `cargo test` fails for more memory than `peerlane limits` promises and for
//! memory that stays when the connections are gone. The figures of SECURITY.md:
//!
//! ```text
//! cargo test --release --test memory -- --peers 1,64 [NAME...]
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod peers;
mod victim;

use std::process::ExitCode;

use peerlane_transport::{ClassTable, limits::Limits};
use peers::{Held, Scenario, Stage};
use victim::Victim;

#[global_allocator]
static COUNTED: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What may stay when all peers are gone: caches of names, sessions and addresses, and buffers for the next one.
const STAYS: i64 = 1024 * 1024;
/// The most before a peer is authenticated. Bytes per connection. TLS has its state in the handshake beside what it reads: 64 KiB is
/// what remains of it.
const STRANGER_TCP: i64 = 96 * 1024;
const STRANGER_QUIC: i64 = 192 * 1024;
/// What is aimed at: 64 KiB over TCP; 8 MiB for a peer, and 10% over.
const AIM_TCP: i64 = 64 * 1024;
const AIM: i64 = 8 * 1024 * 1024 * 11 / 10;
/// What a process makes once, and at a time of its own.
const ONCE: i64 = 64 * 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut counts, mut names) = (vec![4], Vec::new());
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--victim" => return victim::run(),
            "--peers" => {
                counts = arguments.next().expect("--peers 1,64").split(',').map(|n| n.parse().expect("a count of peers")).collect()
            }
            "--list" => {
                Scenario::ALL.iter().for_each(|scenario| println!("{}: test", scenario.name));
                return ExitCode::SUCCESS;
            }
            // Of the test harness that this isn't.
            option if option.starts_with('-') => {}
            name => names.push(name.to_owned()),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let promised = promised();
    println!(
        "KiB per connection on the heap of the victim: most, and in all when they're gone; at most {} by `peerlane limits`",
        promised / 1024
    );
    let mut broken = 0;
    for scenario in Scenario::ALL.iter().filter(|scenario| names.is_empty() || names.iter().any(|name| scenario.name.contains(&**name))) {
        for count in &counts {
            let (most, after, reached) = runtime.block_on(measure(scenario, *count));
            let peers = i64::try_from(reached.max(1)).unwrap();
            let each = most / peers;
            let (bound, aim) = match scenario.stage {
                Stage::TcpStranger => (STRANGER_TCP, AIM_TCP),
                Stage::QuicStranger => (STRANGER_QUIC, STRANGER_QUIC),
                Stage::Peer => (promised, AIM),
            };
            let verdict = match () {
                () if reached == 0 => "FAILED: nobody got through",
                () if each > bound + ONCE / peers => "FAILED: more than promised",
                () if after > STAYS => "FAILED: it stays",
                () if each > aim => "above the aim",
                () => "ok",
            };
            broken += usize::from(verdict.starts_with("FAILED"));
            println!("{:24} {reached:3} of {count:3} peers {:8} {:8}  {verdict}", scenario.name, each / 1024, after / 1024);
        }
    }
    println!("test result: {}. {broken} broken promises", if broken == 0 { "ok" } else { "FAILED" });
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Worst case of a connection, by the table of bounds.
fn promised() -> i64 {
    let rows = Limits::default().rows(&ClassTable::standard());
    rows.iter().map(|row| i64::try_from(row.worst_case).unwrap()).sum()
}

/// The most that the victim held, what it holds when all is over, and how many got through.
async fn measure(scenario: &Scenario, count: usize) -> (i64, i64, usize) {
    let mut victim = Victim::start();
    // What is made once and kept isn't a peer's.
    drop(scenario.attack(&mut victim, 1).await);
    victim.empty().await;
    let before = victim.rested().await;
    let held: Vec<Held> = scenario.attack(&mut victim, count).await;
    let reached = held.len();
    let most = victim.settled().await - before;
    drop(held);
    victim.empty().await;
    (most, victim.back_to(before + STAYS).await - before, reached)
}
