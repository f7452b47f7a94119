//! Measurements as a person reads them.

use std::fmt::Write;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Flood, Kind, Lab, Outcome, Plan, Ran, Recovery, Rival, Variant,
    measurement::{Loss, Times, goodput},
};

/// Fewer runs than these say nothing of how they differ.
const RUNS: usize = 3;
/// Resamples for an interval.
const RESAMPLES: usize = 500;

/// What isn't known or wasn't measured.
const NOTHING: &str = "-";

/// A case's runs, pooled.
pub(super) struct Row {
    pub(super) times: Times,
    /// 95% intervals of p99 and p99.9, in milliseconds; see [`interval`].
    intervals: [Option<[f64; 2]>; 2],
    unfinished: u64,
    /// In Mbit/s: BELIEFs there and back, and the rival's bytes.
    pub(super) goodput: [f64; 3],
    /// Of a flood in an open loop: what was offered, in Mbit/s, and the share of it that was refused.
    offered: Option<(f64, f64)>,
    loss: Option<Loss>,
    /// The share of packets that the profile loses where the flood goes.
    pub(super) loss_set: Option<f64>,
    /// After each scheduled event, of all runs.
    recoveries: Vec<Recovery>,
    runs: usize,
}

impl Row {
    fn pool(outcomes: &[&Outcome]) -> Option<Self> {
        let (first, others) = outcomes.split_first()?;
        let mut times = first.measurement.latency.clone();
        others.iter().for_each(|outcome| times.pool(&outcome.measurement.latency));
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|outcome| of(outcome)).sum::<u64>();
        let window = outcomes.iter().map(|outcome| outcome.measurement.window).sum();
        let loss = |outcome: &&Outcome| outcome.measurement.own_loss(&outcome.case);
        let runs: Vec<_> = outcomes.iter().map(|outcome| &outcome.measurement.latency).collect();
        Some(Self {
            times,
            intervals: [0.99, 0.999].map(|share| interval(&runs, share)),
            unfinished: sum(|outcome| outcome.measurement.unfinished),
            goodput: [
                goodput(sum(|outcome| outcome.measurement.belief_bytes), window),
                goodput(sum(|outcome| outcome.measurement.belief_bytes_back), window),
                goodput(sum(|outcome| outcome.measurement.rival_bytes), window),
            ],
            offered: offered(outcomes, window),
            loss: outcomes.iter().map(loss).sum(),
            loss_set: first.measurement.loss_set(),
            recoveries: outcomes
                .iter()
                .filter_map(|outcome| outcome.measurement.series.as_ref())
                .flat_map(|series| series.recoveries.clone())
                .collect(),
            runs: outcomes.len(),
        })
    }

    /// p50, p90, p99, p99.9, max, mean, in milliseconds.
    fn latencies(&self) -> [Option<f64>; 6] {
        let quantile = |share| self.times.quantile(share);
        [quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), self.times.max(), self.times.mean()]
            .map(|time| time.map(|micros| micros / 1e3))
    }
}

/// What floods in an open loop offered, in Mbit/s, and the share of it that was refused.
fn offered(outcomes: &[&Outcome], window: std::time::Duration) -> Option<(f64, f64)> {
    let all: Option<Vec<_>> =
        outcomes.iter().map(|outcome| Some((outcome.measurement.offered?, outcome.case.workload.belief_bytes))).collect();
    let all = all?;
    let bytes = all.iter().map(|(offered, bytes)| offered.messages * *bytes as u64).sum();
    let (messages, refused) = all.iter().fold((0, 0), |(all, none), (offered, _)| (all + offered.messages, none + offered.refused));
    (messages > 0).then(|| (goodput(bytes, window), refused as f64 / messages as f64))
}

/// A table of all complete measurements in one lab, pooled over runs: a row per transport and flood, then flood against
/// idle. Tells what is left out because it's incomplete, because it failed, or because the lab's check is red. Nothing
/// measured is nothing printed.
pub fn table(plan: &Plan, lab: &dyn Lab, ran: &Ran) -> String {
    let (complete, incomplete): (Vec<_>, Vec<_>) = ran.outcomes.iter().partition(|outcome| outcome.record.complete);
    let mut out = String::new();
    if !ran.red.is_empty() {
        let (profile, lab, runs) = (lab.profile(), lab.name(), plan.len());
        let _ = writeln!(out, "left out, rejected: {runs}, as profile {profile} in lab {lab} doesn't do as it says:");
        ran.red.iter().for_each(|finding| out.extend(["  ", finding, "\n"]));
    }
    if !complete.is_empty() {
        out += &title(plan, lab);
        let pooled = pooled(plan, &complete);
        out += &rows(lab, &pooled).to_string();
        let back = recoveries(&pooled);
        if !back.rows.is_empty() {
            out += "after the path's scheduled events, the worst of all runs in ms: the oldest waiting QUERY, and all of them, answered; \
                    BELIEF at 90% of what it was\n";
            out += &back.to_string();
        }
    }
    out += &left_out(plan, ran, &incomplete);
    out
}

/// A measurement in a line, as it ends.
pub fn line(outcome: &Outcome) -> String {
    let (record, measured) = (&outcome.record, &outcome.measurement);
    let ms = |quantile| number(measured.latency.quantile(quantile).map(|micros| micros / 1e3), 1, "");
    let mut line = format!("{}: {}: p50 {}, p99 {} ms", record.profile, outcome.case, ms(0.5), ms(0.99));
    if outcome.case.flood != Flood::None {
        let _ = write!(line, ", BELIEF {:.1} Mbit/s", record.belief_goodput_mbps);
    }
    if measured.unfinished > 0 {
        let _ = write!(line, ", {} unfinished", measured.unfinished);
    }
    if !record.complete {
        let _ = write!(line, ", incomplete: {}", record.failure.as_deref().unwrap_or("interrupted"));
    }
    line
}

/// What the table hasn't, how much of it, and why.
fn left_out(plan: &Plan, ran: &Ran, incomplete: &[&Outcome]) -> String {
    let mut out = String::new();
    let mut list = |what: &str, count: usize, lines: Vec<String>| {
        if count > 0 {
            let _ = writeln!(out, "left out, {what}: {count}");
            lines.iter().for_each(|line| out.extend(["  ", line, "\n"]));
        }
    };
    let why = |outcome: &&Outcome| format!("{}: {}", outcome.case, outcome.record.failure.as_deref().unwrap_or("interrupted"));
    list("incomplete", incomplete.len(), incomplete.iter().map(why).collect());
    list("failed", ran.failed.len(), ran.failed.iter().map(|(case, error)| format!("{case}: {error}")).collect());
    let rejected = if ran.red.is_empty() { 0 } else { plan.len() };
    let begun = ran.outcomes.len() + ran.failed.len() + rejected;
    list("interrupted before there was anything to tell", plan.len().saturating_sub(begun), Vec::new());
    out
}

fn title(plan: &Plan, lab: &dyn Lab) -> String {
    let work = &plan.workload;
    let path = match lab.rates_mbps() {
        Some([there, back]) if there == back => format!("profile {} ({there} Mbit/s)", lab.profile()),
        Some([there, back]) => format!("profile {} ({there} Mbit/s, back {back})", lab.profile()),
        None => "no impairment".to_owned(),
    };
    let asked = match work.kind {
        Kind::Query => format!("QUERY {} B -> RESULT {} B", work.query_bytes, work.result_bytes),
        Kind::Propagate => {
            format!("BELIEF of a signed operation with a value of {} B, from a leaf to the last of a star of 8 peers", work.query_bytes)
        }
        Kind::Transact => format!("TRANSACT, a signed operation with a value of {} B -> RESULT", work.query_bytes),
    };
    format!(
        "{asked}, open loop at {}/s, latency from the scheduled time in ms; flood: BELIEFs of {} B; lab {}, {path}\n",
        work.rate,
        work.belief_bytes,
        lab.name(),
    )
}

/// A row of the table, and whose it is.
pub(super) type Pooled = ((Variant, Flood, Rival), Row);

/// All complete measurements in one lab, pooled over runs.
pub(super) fn complete(plan: &Plan, ran: &Ran) -> Vec<Pooled> {
    pooled(plan, &ran.outcomes.iter().filter(|outcome| outcome.record.complete).collect::<Vec<_>>())
}

fn pooled(plan: &Plan, complete: &[&Outcome]) -> Vec<Pooled> {
    let pool = |key| {
        let these = complete.iter().filter(|outcome| (outcome.case.variant, outcome.case.flood, outcome.case.rival) == key);
        Some((key, Row::pool(&these.copied().collect::<Vec<_>>())?))
    };
    plan.rows().filter_map(pool).collect()
}

/// The first cells of a row.
fn names((variant, flood, rival): &(Variant, Flood, Rival)) -> Vec<String> {
    let beside = if *rival == Rival::None { NOTHING } else { rival.name() };
    vec![variant.name().to_owned(), flood.to_string(), beside.to_owned()]
}

fn recoveries(pooled: &[Pooled]) -> Grid {
    let mut grid = Grid::new(&["transport", "flood", "beside", "from s", "until s", "waiting", "oldest", "all", "before Mbit/s", "90%"]);
    for (key, row) in pooled {
        let mut events: Vec<_> = row.recoveries.iter().map(|back| (back.from_s, back.until_s)).collect();
        events.sort_by(|a, b| a.0.total_cmp(&b.0));
        events.dedup();
        for event in events {
            let runs: Vec<_> = row.recoveries.iter().filter(|back| (back.from_s, back.until_s) == event).collect();
            let (waiting, floods) = (runs.iter().map(|back| back.waiting).max().unwrap_or(0), key.1 != Flood::None);
            let worst = |of: fn(&Recovery) -> Option<f64>, is_expected: &dyn Fn(&Recovery) -> bool| {
                let expected: Vec<_> = runs.iter().filter(|back| is_expected(back)).collect();
                let times: Option<Vec<f64>> = expected.iter().map(|back| of(back)).collect();
                match times.map(|times| times.into_iter().max_by(f64::total_cmp)) {
                    Some(Some(time)) => format!("{time:.0}"),
                    Some(None) => NOTHING.to_owned(),
                    None => "never".to_owned(),
                }
            };
            let waited = |back: &Recovery| back.waiting > 0;
            let mut cells = names(key);
            cells.extend([format!("{:.1}", event.0), format!("{:.1}", event.1), waiting.to_string()]);
            cells.extend([worst(|back| back.oldest_ms, &waited), worst(|back| back.all_ms, &waited)]);
            let before = runs.iter().map(|back| back.before_mbps).sum::<f64>() / runs.len().max(1) as f64;
            cells.extend([number(floods.then_some(before), 1, ""), worst(|back| back.back_ms, &|_| floods)]);
            grid.add(cells);
        }
    }
    grid
}

fn rows(lab: &dyn Lab, pooled: &[Pooled]) -> Grid {
    let mut grid = Grid::new(&[
        "transport",
        "flood",
        "beside",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "mean",
        "p99: 95%",
        "p99.9: 95%",
        "BELIEF Mbit/s",
        "of rate",
        "back Mbit/s",
        "of rate",
        "offered Mbit/s",
        "refused",
        "rival Mbit/s",
        "of rate",
        "own loss",
        "samples",
        "unfinished",
        "runs",
    ]);
    // Round trips over loopback are tenths of a millisecond, those over a network dozens.
    let digits = if lab.rates_mbps().is_some() { 1 } else { 3 };
    for (key, row) in pooled {
        let (variant, flood, rival) = key;
        let mut cells = names(key);
        cells.extend(row.latencies().map(|time| number(time, digits, "")));
        let ends = |[low, high]: [f64; 2]| format!("{low:.digits$}-{high:.digits$}");
        cells.extend(row.intervals.map(|interval| interval.map_or_else(|| NOTHING.to_owned(), ends)));
        let flows = [*flood != Flood::None, *flood == Flood::BothWays, *rival != Rival::None];
        for (i, flows) in flows.into_iter().enumerate() {
            if i == 2 {
                cells.push(number(row.offered.map(|(mbps, _)| mbps), 1, ""));
                cells.push(number(row.offered.map(|(_, refused)| refused * 100.0), 1, "%"));
            }
            let goodput = flows.then_some(row.goodput[i]);
            // The rival goes our way.
            let share = goodput.zip(lab.rates_mbps()).map(|(goodput, [there, back])| goodput / if i == 1 { back } else { there });
            cells.extend([number(goodput, 1, ""), number(share.map(|share| share * 100.0), 1, "%")]);
        }
        // Of the few packets without a flood it would be chance.
        cells.push(number(row.loss.filter(|_| flows[0]).map(|loss| loss.share() * 100.0), 2, "%"));
        cells.extend([row.times.count(), row.unfinished, row.runs as u64].map(|count| count.to_string()));
        grid.add(cells);

        let idle = pooled.iter().find(|(key, _)| *key == (*variant, Flood::None, *rival));
        if let (Flood::Full | Flood::Rate(_), Some((_, idle))) = (*flood, idle) {
            let ratio =
                |(idle, full): (Option<f64>, Option<f64>)| idle.zip(full).filter(|(idle, _)| *idle > 0.0).map(|(idle, full)| full / idle);
            let mut cells = names(key);
            cells[1] = "ratio".to_owned();
            cells.extend(idle.latencies().into_iter().zip(row.latencies()).map(|times| number(ratio(times), 2, "x")));
            grid.add(cells);
        }
    }
    grid
}

pub(super) fn number(value: Option<f64>, digits: usize, unit: &str) -> String {
    // A loss of nothing may be a little less than what was set.
    let value = value.map(|value| if value.abs() < 0.5 * 0.1_f64.powi(i32::try_from(digits).unwrap_or(0)) { 0.0 } else { value });
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.digits$}{unit}"))
}

/// The 95% interval of a pooled quantile, in milliseconds, by resampling whole runs (a bootstrap of clusters: what one run's
/// queries have in common, they have in common). `None` for fewer than [`RUNS`].
fn interval(runs: &[&Times], share: f64) -> Option<[f64; 2]> {
    if runs.len() < RUNS {
        return None;
    }
    let mut random = StdRng::seed_from_u64(0);
    let mut drawn: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut times = runs[random.random_range(0..runs.len())].clone();
            (1..runs.len()).for_each(|_| times.pool(runs[random.random_range(0..runs.len())]));
            times.quantile(share)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn.get((drawn.len() as f64 * share) as usize).map(|micros| micros / 1e3);
    Some([at(0.025)?, at(0.975)?])
}

/// Columns as wide as they need to be; one with nothing in it isn't shown.
pub(super) struct Grid {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// The first three columns stand on the left, the others on the right.
    const LEFT: usize = 3;

    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells at its end may be missing.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filled = |column: usize| self.rows.iter().filter_map(move |row| row.get(column)).filter(|cell| *cell != NOTHING);
        let columns: Vec<(usize, usize)> = (0..self.heads.len())
            .filter_map(|column| Some((column, filled(column).map(String::len).max()?.max(self.heads[column].len()))))
            .collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells = columns.iter().map(|&(column, width)| {
                let cell = cell(column);
                if column < Self::LEFT { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        writeln!(f, "{}", line(&|column| self.heads[column].to_owned()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(&|column| row.get(column).cloned().unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_interval_spans_what_runs_differ_by() {
        let run = |ms: u64| {
            let mut times = Times::new().unwrap();
            (0..100).for_each(|i| times.record(std::time::Duration::from_micros(ms * 1000 + i)));
            times
        };
        let runs = [run(50), run(50), run(50), run(60)];
        let [low, high] = interval(&runs.iter().collect::<Vec<_>>(), 0.99).unwrap();
        assert!(low < 51.0 && high > 59.0, "{low} {high}");
        assert_eq!(interval(&[&runs[0], &runs[3]], 0.99), None);
        let [low, high] = interval(&[&runs[0], &runs[1], &runs[2]], 0.99).unwrap();
        assert!(high - low < 0.1);
    }

    #[test]
    fn a_column_without_content_is_left_out_and_the_rest_line_up() {
        let mut grid = Grid::new(&["a", "b", "c", "number", "empty"]);
        grid.add(["long name", "x", "-", "1.5", "-"].map(str::to_owned).to_vec());
        grid.add(["n", "x", "-", "-"].map(str::to_owned).to_vec());
        assert_eq!(grid.to_string(), "a          b  number\nlong name  x     1.5\nn          x       -\n");
        assert_eq!(number(Some(-0.004), 2, "%"), "0.00%");
    }
}
