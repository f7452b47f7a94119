//! The check's inner end: it runs in the lab's root namespace, measures path after path, and writes its findings down.

use std::ffi::OsString;
use std::fs;
use std::path::Path as FilePath;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::flow::{Flow, Path, Pattern};
use super::judge::{Judge, Packets, Tolerance};
use super::summary::Summary;
use super::{FINDINGS, Finding, ORDER, Order, measure, patterns, probe, schedule};
use crate::lab::LabKind;
use crate::plan::{Host, Plan, Stage};
use crate::profile::{Direction, Profile};
use crate::stats::{QueueStats, read_stats};

/// Plays a part of the check: `check`, or one end of a flow.
pub(crate) fn start(words: &[OsString]) -> ExitCode {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    let done = match words.as_slice() {
        ["check", directory] => check(FilePath::new(directory)),
        ["measure", directory] => {
            order(FilePath::new(directory)).and_then(|(lab, plan)| measure::inside(FilePath::new(directory), lab, &plan))
        }
        ["send", to, groups, group, size, interval] => match (groups.parse(), group.parse(), size.parse(), interval.parse()) {
            (Ok(groups), Ok(group), Ok(size), Ok(interval)) => {
                probe::send(to, groups, group, size, Duration::from_nanos(interval)).map_err(|error| error.to_string())
            }
            _ => Err("no number".to_owned()),
        },
        ["receive", address] => probe::receive(address).map_err(|error| error.to_string()),
        ["drain", address] => probe::drain(address).map_err(|error| error.to_string()),
        ["push", to, bytes] => match bytes.parse() {
            Ok(bytes) => probe::push(to, bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
        _ => Err("no part of the check".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab check: {}: {error}", words.first().unwrap_or(&""));
            ExitCode::from(1)
        }
    }
}

fn order(directory: &FilePath) -> Result<(LabKind, Plan), String> {
    let text = fs::read(directory.join(ORDER)).map_err(|error| error.to_string())?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let profile = Profile::parse(&order.profile.0, &order.profile.1).map_err(|error| error.to_string())?;
    let topology = order.topology.parse().map_err(|error| format!("{error}"))?;
    Ok((order.lab, Plan::new(&profile, topology).map_err(|error| error.to_string())?))
}

fn check(directory: &FilePath) -> Result<(), String> {
    let (lab, plan) = order(directory)?;
    let text = serde_json::to_vec(&check_here(lab, &plan)).map_err(|error| error.to_string())?;
    fs::write(directory.join(FINDINGS), text).map_err(|error| error.to_string())
}

/// Measures the lab in which this runs, in its root namespace, against a plan. Nothing else may send meanwhile. The
/// program must call [`enter`](crate::enter) first in `main`: it plays the ends of the paths.
///
/// The schedule is started by this, if there's one: the lab's own must not be under way ([`Run::schedule`](crate::Run::schedule)).
pub fn check_here(lab: LabKind, plan: &Plan) -> Vec<Finding> {
    let profile = plan.profile();
    let tolerance = Tolerance::of(lab);
    let mut findings = Vec::new();
    for (from, to, direction) in plan.paths() {
        let name = format!("{}->{}", from.name, to.name);
        let judge = Judge { path: &name, said: profile.direction(direction), tolerance };
        let measurement = Measurement { lab, plan, path: Path { from, to, is_real_time: lab.is_real_time() }, to, direction, judge };
        findings.extend(measurement.all());
    }
    if !profile.events().is_empty() {
        for (from, to, direction) in plan.paths().into_iter().take(2) {
            let name = format!("{}->{}", from.name, to.name);
            let judge = Judge { path: &name, said: profile.direction(direction), tolerance };
            findings.extend(schedule::measure(lab, plan, &Path { from, to, is_real_time: lab.is_real_time() }, direction, &judge));
        }
    }
    findings
}

/// One path's.
struct Measurement<'a> {
    lab: LabKind,
    plan: &'a Plan,
    path: Path<'a>,
    to: &'a Host,
    direction: Direction,
    judge: Judge<'a>,
}

impl Measurement<'_> {
    fn all(&self) -> Vec<Finding> {
        let said = self.judge.said;
        let mut findings = Vec::new();
        let sparse = patterns::sparse(said);
        findings.extend(self.flow("delay", sparse, |summary, _, _| self.judge.delay(sparse, summary)));
        findings.extend(self.flow("loss", patterns::dense(said), |summary, _, drops| self.judge.loss(summary, drops)));
        findings.extend(self.flow("rate", patterns::flood(said), |summary, _, _| self.judge.flood(summary)));
        findings.extend(self.flow("queue", patterns::burst(said), |summary, flow, drops| self.judge.burst(summary, flow.sending, drops)));
        findings.push(self.segments());
        findings
    }

    fn flow(&self, what: &str, pattern: Pattern, judge: impl FnOnce(&Summary, &Flow, u64) -> Vec<Finding>) -> Vec<Finding> {
        let measured = || -> Result<_, String> {
            let before = self.queue()?;
            let flow = self.path.send(pattern, patterns::tail(self.judge.said)).map_err(|error| error.to_string())?;
            Ok((flow, self.queue()?.drops.saturating_sub(before.drops)))
        };
        match measured() {
            Ok((flow, drops)) => judge(&Summary::of(&flow), &flow, drops),
            Err(error) => vec![self.judge.failure(what, error)],
        }
    }

    /// The qdisc's own counters take a superpacket for the packets that it will be; devices and the queue's length don't.
    fn segments(&self) -> Finding {
        let measured = || -> Result<_, String> {
            let before = sent(self.path.from)?;
            let (arrived, queued) = thread::scope(|scope| {
                let (done, ended) = mpsc::channel::<()>();
                let sampler = scope.spawn(move || self.sample(&ended));
                let arrived = self.path.push(patterns::TRANSFER).map_err(|error| error.to_string());
                drop(done);
                (arrived, sampler.join().unwrap_or_default())
            });
            if arrived? != patterns::TRANSFER as u64 {
                return Err("the transfer isn't whole".to_owned());
            }
            thread::sleep(patterns::tail(self.judge.said));
            let after = sent(self.path.from)?;
            let left = Packets { bytes: after.bytes.saturating_sub(before.bytes), count: after.count.saturating_sub(before.count) };
            Ok((left, queued))
        };
        match measured() {
            Ok((left, queued)) => self.judge.segments(left, queued),
            Err(error) => self.judge.failure("mean segment", error),
        }
    }

    /// What's in the bottleneck's queue, again and again until the end.
    fn sample(&self, ended: &mpsc::Receiver<()>) -> Packets {
        let mut sum = Packets::default();
        while ended.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
            if let Ok(queue) = self.queue() {
                sum.bytes += queue.backlog_bytes;
                sum.count += queue.backlog_packets;
            }
        }
        sum
    }

    /// The bottleneck on the way.
    fn queue(&self) -> Result<QueueStats, String> {
        let stats = read_stats(self.lab, self.plan).map_err(|error| error.to_string())?;
        let device = format!("to-{}", self.to.name);
        let mut bottlenecks: Vec<_> = stats
            .into_iter()
            .zip(self.plan.egresses())
            .filter(|(_, egress)| egress.stage == Stage::Bottleneck && egress.direction == self.direction)
            .map(|(stats, _)| stats)
            .collect();
        // A star has one for each host.
        if bottlenecks.len() > 1 {
            bottlenecks.retain(|queue| queue.device == device);
        }
        bottlenecks.pop().ok_or_else(|| "no bottleneck on the way".to_owned())
    }
}

/// How often a queue is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

/// What a host's only device sent.
fn sent(host: &Host) -> Result<Packets, String> {
    let output = Command::new("ip").args(["-n", &host.namespace, "-s", "-j", "link", "show"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let links: Vec<Link> = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let link = links.into_iter().find(|link| link.ifname.starts_with("to-")).ok_or("no device")?;
    Ok(Packets { bytes: link.stats64.tx.bytes, count: link.stats64.tx.packets })
}

/// The part of ip's JSON that's used.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    stats64: Counters,
}

#[derive(Deserialize)]
struct Counters {
    tx: Sent,
}

#[derive(Deserialize)]
struct Sent {
    bytes: u64,
    packets: u64,
}
