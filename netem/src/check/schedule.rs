//! A schedule at work: pairs of packets all the while, each judged by what holds when it's sent.

use std::collections::HashMap;
use std::time::Duration;

use super::flow::{Flow, Path};
use super::judge::Judge;
use super::summary::quantile;
use super::{Finding, patterns, probe};
use crate::lab::{Driver, LabKind};
use crate::plan::Plan;
use crate::profile::{Direction, FRAME, State};

/// Packets this close to a change are nobody's: the `tc` of each direction takes its time.
const NEAR: Duration = Duration::from_millis(60);
/// How long it's watched after the last change.
const AFTER: Duration = Duration::from_secs(1);

/// A stretch of time in which nothing changes.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    from: Duration,
    to: Duration,
    state: State,
}

/// Runs the schedule once and watches one path.
pub(super) fn measure(lab: LabKind, plan: &Plan, path: &Path<'_>, direction: Direction, judge: &Judge<'_>) -> Vec<Finding> {
    let stretches = stretches(plan, direction);
    let length = stretches.last().map_or(AFTER, |last| last.to);
    let start = probe::now();
    let driver = Driver::start(lab, plan, true);
    let flow = path.send(patterns::pairs(length), patterns::tail(judge.said));
    let changes = driver.stop();
    let mut findings: Vec<_> =
        changes.iter().filter(|(_, line)| line.starts_with("failed")).map(|(_, line)| judge.failure("schedule", line)).collect();
    match flow {
        Ok(flow) => findings.extend(stretches.iter().flat_map(|stretch| self::judge(stretch, &flow, start, judge))),
        Err(error) => findings.push(judge.failure("schedule", error)),
    }
    findings
}

fn stretches(plan: &Plan, direction: Direction) -> Vec<Stretch> {
    let times = plan.profile().times();
    let starts = std::iter::once(Duration::ZERO).chain(times.iter().copied());
    let ends = times.iter().copied().chain(times.last().map(|last| *last + AFTER));
    starts.zip(ends).map(|(from, to)| Stretch { from, to, state: plan.profile().state(direction, from) }).collect()
}

fn judge(stretch: &Stretch, flow: &Flow, start: u64, judge: &Judge<'_>) -> Vec<Finding> {
    let arrived: HashMap<_, _> = flow.arrivals.iter().map(|arrival| (arrival.number, arrival.received)).collect();
    // The sender takes a moment to start.
    let offset = Duration::from_nanos(flow.first.saturating_sub(start));
    let (mut sent, mut lost, mut gaps) = (0u64, 0u64, Vec::new());
    for pair in 0..flow.sent / 2 {
        let at = offset + patterns::PAIRS * u32::try_from(pair).unwrap_or(u32::MAX);
        if at < stretch.from + NEAR || at + NEAR > stretch.to {
            continue;
        }
        let received = [pair * 2, pair * 2 + 1].map(|number| arrived.get(&number).copied());
        sent += 2;
        lost += received.iter().filter(|packet| packet.is_none()).count() as u64;
        if let [Some(first), Some(second)] = received {
            gaps.push(second.saturating_sub(first));
        }
    }
    gaps.sort_unstable();
    let when = format!("{} to {} s", stretch.from.as_secs_f64(), stretch.to.as_secs_f64());
    let mut findings = vec![judge.blackhole(&when, stretch.state.blackhole, sent, lost)];
    if !stretch.state.blackhole {
        findings.push(judge.gap(&when, stretch.state.impairment.transmission(FRAME), quantile(&gaps, 0.5)));
    }
    findings
}
