//! What a transport costs: memory for each idle peer, processor time for each gigabyte and each million messages.
//!
//! Real time, over loopback, between two processes: this one sends, and a child of its own takes ([`play_other`]), so that
//! each side's memory and time are its own. Cases follow each other, and nothing else runs in either process.
//!
//! # Provided
//! Resident memory of the accepting process per peer, its idle connections held as a node holds them (a reader waits in
//! each class); processor time of either side, system calls and tasks included.
//!
//! # Not provided
//! The kernel's memory (socket buffers), and allocations per message: to count them takes an allocator of our own.

mod other;

use std::time::{Duration, Instant};

use peerlane_transport::{
    AnyTransport, ClassTable, Connection,
    identity::{Identity, PeerAddr},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use other::play_other;
use other::{Ask, Other, Told};

use super::{
    BenchError, Environment, Kind, Variant, Workload,
    error::LabError,
    load::{Lane, Links, Tag, message},
    report::{Grid, number},
};

/// A message whose cost is its handling, in bytes.
const SMALL: usize = 100;
/// Idle connections are left alone for so long before their memory is read: what a handshake needed is given back.
const SETTLE: Duration = Duration::from_secs(2);

/// What is to be measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CostPlan {
    /// The transports, in the table's order.
    pub variants: Vec<Variant>,
    /// Idle peers that memory is divided by, 1 at least.
    pub peers: u64,
    /// Bytes of BELIEFs sent.
    pub bytes: u64,
    /// Small messages sent.
    pub messages: u64,
    /// Bytes of each BELIEF, encoded.
    pub belief_bytes: usize,
    /// How often each transport is measured.
    pub runs: u32,
}

impl Default for CostPlan {
    fn default() -> Self {
        Self { variants: Variant::defaults(), peers: 1_000, bytes: 4 << 30, messages: 2_000_000, belief_bytes: 65_536, runs: 3 }
    }
}

/// One transport, measured once.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CostRecord {
    /// The transport's name.
    pub transport: &'static str,
    /// Always `loopback`.
    pub lab: &'static str,
    /// Always `cost`.
    pub workload: &'static str,
    /// 1 for the first.
    pub run: u32,
    /// Idle peers that memory was divided by.
    pub peers: u64,
    /// Resident memory of the accepting process for each, in KiB; `null` where it can't be read.
    pub resident_kib_per_peer: Option<f64>,
    /// Processor seconds for 10^9 bytes of BELIEFs: of the sending side, and of the taking one.
    pub cpu_s_per_gb: [f64; 2],
    /// 10^6 bits of BELIEFs per second.
    pub belief_mbps: f64,
    /// Processor seconds for 10^6 messages of 100 bytes, one way: of the sending side, and of the taking one.
    pub cpu_s_per_million: [f64; 2],
    /// Such messages per second.
    pub messages_per_s: f64,
    /// Bytes of each BELIEF.
    pub belief_bytes: usize,
    /// Build and machine.
    #[serde(flatten)]
    pub environment: Environment,
}

/// Measures each transport in turn and gives each record to `each` as it's there. `stop` ends it between two steps. Blocks;
/// don't call it on a runtime's thread.
///
/// # Errors
/// [`BenchError::Plan`] before anything is started, [`BenchError::Lab`] if a side fails, [`BenchError::Interrupted`]; what
/// `each` gives.
pub fn cost(
    plan: &CostPlan,
    stop: &CancellationToken,
    mut each: impl FnMut(CostRecord) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    if plan.variants.is_empty() || plan.runs == 0 || plan.peers == 0 || plan.bytes == 0 || plan.messages == 0 {
        return Err(BenchError::Plan { what: "nothing to measure: at least one transport, one run, one peer and one message".into() });
    }
    raise_descriptors();
    let environment = Environment::here();
    for run in 1..=plan.runs {
        for variant in &plan.variants {
            let blame = |source| BenchError::Lab { end: "sending end", variant: variant.name(), source };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| blame(error.into()))?;
            let measured = runtime.block_on(stop.run_until_cancelled(measure(plan, *variant, run, &environment)));
            each(measured.ok_or(BenchError::Interrupted)?.map_err(blame)?)?;
        }
    }
    Ok(())
}

async fn measure(plan: &CostPlan, variant: Variant, run: u32, environment: &Environment) -> Result<CostRecord, LabError> {
    let mut other = Other::start(variant).await?;
    let work = Workload { belief_bytes: plan.belief_bytes, query_bytes: SMALL, ..Workload::default() };
    let transport = variant.make(&Identity::generate()?, &work)?;
    let addr = other.addr.clone();

    // One peer more than is counted: what only the first one costs isn't a peer's.
    let links = dial(&transport, &addr, variant).await?;
    let before = settled(&mut other, 1).await?;
    let mut idle = Vec::new();
    for _ in 0..plan.peers {
        idle.push(dial(&transport, &addr, variant).await?);
    }
    let after = settled(&mut other, 1 + plan.peers).await?;
    idle.drain(..).for_each(|links| links.close("measured"));
    let _ = other.ask(Ask::Peers { exactly: 1 }).await?;

    let belief = message::message(Tag::Belief, 0, plan.belief_bytes);
    let small = message::message(Tag::Query, 0, SMALL);
    let bulk = flow(&mut other, &links.belief, &belief, plan.bytes.div_ceil(plan.belief_bytes as u64)).await?;
    let many = flow(&mut other, &links.query, &small, plan.messages).await?;
    links.close("measured");
    let gigabytes = (bulk.messages * plan.belief_bytes as u64) as f64 / 1e9;
    let millions = many.messages as f64 / 1e6;
    let resident = |told: &Told| told.resident_bytes.map(|bytes| bytes as f64);
    let grown = resident(&after).zip(resident(&before)).map(|(after, before)| after - before);
    Ok(CostRecord {
        transport: variant.name(),
        lab: "loopback",
        workload: "cost",
        run,
        peers: plan.peers,
        resident_kib_per_peer: grown.map(|bytes| rounded(bytes / 1024.0 / plan.peers as f64)),
        cpu_s_per_gb: bulk.cpu.map(|seconds| rounded(seconds / gigabytes)),
        belief_mbps: rounded(gigabytes * 8e3 / bulk.elapsed),
        cpu_s_per_million: many.cpu.map(|seconds| rounded(seconds / millions)),
        messages_per_s: (many.messages as f64 / many.elapsed).round(),
        belief_bytes: plan.belief_bytes,
        environment: environment.clone(),
    })
}

async fn dial(transport: &AnyTransport<PeerAddr, std::net::SocketAddr>, addr: &PeerAddr, variant: Variant) -> Result<Links, LabError> {
    let mut connections: Vec<Connection> = Vec::new();
    while connections.len() < variant.connections() {
        connections.push(transport.dial(addr).await?);
    }
    Links::new(variant, Kind::Query, &connections)
}

/// What the other side says when it has so many peers, and they've been idle for a while.
async fn settled(other: &mut Other, peers: u64) -> Result<Told, LabError> {
    other.ask(Ask::Peers { exactly: peers }).await?;
    tokio::time::sleep(SETTLE).await;
    other.ask(Ask::Peers { exactly: peers }).await
}

/// Messages sent one way.
struct Flow {
    messages: u64,
    elapsed: f64,
    /// Processor seconds of the sending side and of the taking one.
    cpu: [f64; 2],
}

/// Sends messages, a tenth of them beforehand, until all are taken.
async fn flow(other: &mut Other, lane: &Lane, message: &bytes::Bytes, messages: u64) -> Result<Flow, LabError> {
    let warm_up = messages / 10;
    let send = async |so_many: u64, other: &mut Other| -> Result<Told, LabError> {
        let taken = other.taken;
        for _ in 0..so_many {
            lane.send(message.clone()).await?;
        }
        other.ask(Ask::Taken { messages: taken + so_many }).await
    };
    let before = send(warm_up, other).await?;
    let (at, ours) = (Instant::now(), cpu_seconds());
    let after = send(messages, other).await?;
    Ok(Flow { messages, elapsed: at.elapsed().as_secs_f64(), cpu: [cpu_seconds() - ours, after.cpu_seconds - before.cpu_seconds] })
}

/// This process's processor time, user and system.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A thousand peers over TCP are a thousand descriptors: as many as the system permits without asking.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If that's refused and too few, a dial says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A table of records: a row per transport, the median of its runs.
pub fn table(plan: &CostPlan, records: &[CostRecord]) -> String {
    let mut grid = Grid::new(&[
        "transport",
        "KiB/idle peer",
        "sender s/GB",
        "receiver s/GB",
        "Mbit/s",
        "sender s/10^6",
        "receiver s/10^6",
        "messages/s",
        "runs",
    ]);
    for variant in &plan.variants {
        let its: Vec<_> = records.iter().filter(|record| record.transport == variant.name()).collect();
        let of = |value: &dyn Fn(&CostRecord) -> Option<f64>| median(its.iter().filter_map(|record| value(record)).collect());
        let mut cells = vec![variant.name().to_owned(), number(of(&|record| record.resident_kib_per_peer), 1, "")];
        cells.extend((0..2).map(|side| number(of(&|record| Some(record.cpu_s_per_gb[side])), 3, "")));
        cells.push(number(of(&|record| Some(record.belief_mbps)), 0, ""));
        cells.extend((0..2).map(|side| number(of(&|record| Some(record.cpu_s_per_million[side])), 3, "")));
        cells.extend([number(of(&|record| Some(record.messages_per_s)), 0, ""), its.len().to_string()]);
        grid.add(cells);
    }
    format!(
        "cost over loopback, in real time, two processes: resident memory of the accepting one per idle peer ({} peers); processor \
         seconds per 10^9 bytes of BELIEFs of {} B and per 10^6 messages of {SMALL} B in {}; medians\n{grid}",
        plan.peers,
        plan.belief_bytes,
        ClassTable::QUERY,
    )
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn nothing_is_refused_before_anything_is_started() {
        let plan = CostPlan { peers: 0, ..CostPlan::default() };
        assert!(matches!(cost(&plan, &CancellationToken::new(), |_| Ok(())), Err(BenchError::Plan { .. })));
    }
}
