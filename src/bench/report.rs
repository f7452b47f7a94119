//! Measurements as a person reads them.

use std::fmt::Write;

use super::{
    Flood, Lab, Outcome, Plan,
    measurement::{Times, goodput},
};

/// One row: a case's runs, pooled.
struct Row {
    transport: &'static str,
    flood: Flood,
    times: Times,
    unfinished: u64,
    goodput: f64,
    runs: usize,
}

impl Row {
    fn pool(outcomes: &[&Outcome]) -> Option<Self> {
        let first = outcomes.first()?;
        let mut times = first.measurement.latency.clone();
        outcomes[1..].iter().for_each(|outcome| times.pool(&outcome.measurement.latency));
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|outcome| of(outcome)).sum::<u64>();
        Some(Self {
            transport: first.case.variant.name(),
            flood: first.case.flood,
            times,
            unfinished: sum(|outcome| outcome.measurement.unfinished),
            goodput: goodput(
                sum(|outcome| outcome.measurement.belief_bytes),
                outcomes.iter().map(|outcome| outcome.measurement.window).sum(),
            ),
            runs: outcomes.len(),
        })
    }

    /// p50, p90, p99, p99.9, max, mean, in microseconds.
    fn columns(&self) -> [Option<f64>; 6] {
        let quantile = |share| self.times.quantile(share);
        [quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), self.times.max(), self.times.mean()]
    }
}

/// A table of all complete measurements in one lab, pooled over runs: a row per transport and flood, then flood against
/// idle. Tells how many are left out because they're incomplete.
pub fn table(plan: &Plan, lab: &dyn Lab, outcomes: &[Outcome]) -> String {
    let work = &plan.workload;
    let mut out = String::new();
    let (complete, incomplete): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.record.complete);
    // Round trips over loopback are tenths of a millisecond, those over a network dozens.
    let (unit, scale, digits) = if lab.rate_mbps().is_some() { ("ms", 1e-3, 1) } else { ("us", 1.0, 0) };
    let _ = writeln!(
        out,
        "QUERY {} B -> RESULT {} B, open loop at {}/s, latency from the scheduled time in {unit}; flood: BELIEFs of {} B; lab {}, {}",
        work.query_bytes,
        work.result_bytes,
        work.rate,
        work.belief_bytes,
        lab.name(),
        path(lab),
    );
    let _ = writeln!(
        out,
        "{:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>10} {:>13} {:>6} {:>5}",
        "transport", "flood", "p50", "p90", "p99", "p99.9", "max", "mean", "samples", "unfinished", "BELIEF Mbit/s", "share", "runs"
    );
    for variant in &plan.variants {
        let rows: Vec<Row> = plan
            .floods
            .iter()
            .filter_map(|flood| {
                let these = complete.iter().filter(|outcome| outcome.case.variant == *variant && outcome.case.flood == *flood);
                Row::pool(&these.copied().collect::<Vec<_>>())
            })
            .collect();
        for row in &rows {
            let _ = write!(out, "{:<18} {:<9}", row.transport, row.flood.name());
            row.columns().iter().for_each(|time| cell(&mut out, time.map(|time| time * scale), digits, ""));
            let goodput = (row.flood != Flood::None).then_some(row.goodput);
            let share = goodput.zip(lab.rate_mbps()).map(|(goodput, rate)| goodput / rate * 100.0);
            let _ = write!(out, " {:>8} {:>10} {:>13}", row.times.count(), row.unfinished, number(goodput, 1, ""));
            let _ = writeln!(out, " {:>6} {:>5}", number(share, 1, "%"), row.runs);
        }
        let of = |flood| rows.iter().find(|row| row.flood == flood);
        if let (Some(idle), Some(full)) = (of(Flood::None), of(Flood::Full)) {
            let _ = write!(out, "{:<18} {:<9}", variant.name(), "ratio");
            for (idle, full) in idle.columns().into_iter().zip(full.columns()) {
                cell(&mut out, idle.zip(full).filter(|(idle, _)| *idle > 0.0).map(|(idle, full)| full / idle), 2, "x");
            }
            out.push('\n');
        }
    }
    if !incomplete.is_empty() {
        let _ = writeln!(out, "left out, incomplete: {}", incomplete.len());
        for outcome in incomplete {
            let why = outcome.record.failure.as_deref().unwrap_or("interrupted");
            let _ = writeln!(out, "  {} flood={} run={}: {why}", outcome.case.variant, outcome.case.flood, outcome.case.run);
        }
    }
    out
}

fn path(lab: &dyn Lab) -> String {
    match lab.rate_mbps() {
        Some(rate) => format!("profile {} ({rate} Mbit/s)", lab.profile()),
        None => "no impairment".to_owned(),
    }
}

fn cell(out: &mut String, value: Option<f64>, digits: usize, unit: &str) {
    let _ = write!(out, " {:>9}", number(value, digits, unit));
}

fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
}
