//! `peerlane bench`: QUERY latency with and without a flood of BELIEFs, transport beside transport.

mod args;
mod output;
mod values;

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

pub(super) use args::Args;
use args::{AFTER_EVENTS, LabName, WorkloadName, deduplicated};
use output::{Interrupts, Progress, Records};

use super::CliError;
use crate::bench::{self, BenchError, Event, Flood, How, Lab, Loopback, Plan, Ran, Rival, Saved, Variant, Workload};

/// Runs it. Blocks; call it on a thread that isn't a runtime's.
///
/// # Errors
/// What can't be run, built or written; [`CliError::Interrupted`] if not all of it was measured to the end.
pub(super) fn run(args: &Args, log: &str) -> Result<(), CliError> {
    #[cfg(target_os = "linux")]
    match (&args.in_lab, args.in_cost) {
        (Some(directory), _) => return Ok(bench::play_inside(directory)?),
        (_, Some(variant)) => return Ok(bench::cost::play_other(variant)?),
        _ => {}
    }
    args.refuse_what_is_idle()?;
    if !args.from.is_empty() {
        return Ok(plot_saved(args)?);
    }
    let ended = match args.workload {
        WorkloadName::Cost => measure_cost(args)?,
        WorkloadName::Connect => measure_connect(args, log)?,
        _ => measure(args, log)?,
    };
    match ended {
        Ended::Whole => Ok(()),
        Ended::Interrupted => Err(CliError::Interrupted),
        Ended::Incomplete => Err(CliError::Failed("not all of it could be measured".into())),
    }
}

/// How a measurement ended.
enum Ended {
    /// All of it was measured.
    Whole,
    /// By the user.
    Interrupted,
    /// Something failed, or a lab's check is red; it's been said what.
    Incomplete,
}

fn measure(args: &Args, log: &str) -> Result<Ended, BenchError> {
    let mut plan = args.plan();
    plan.check()?;
    let labs = args.labs(log)?;
    if args.duration.is_none() {
        // Past the last scheduled event, long enough to see what becomes of it.
        let last = labs.iter().filter_map(|lab| lab.last_event()).max();
        let needed = last.map_or(Duration::ZERO, |last| (last + AFTER_EVENTS).saturating_sub(plan.workload.warm_up));
        plan.workload.duration = plan.workload.duration.max(needed);
        plan.check()?;
    }
    for path in args.html.iter().chain(&args.plot) {
        // A page that can't be written is known before hours of measuring.
        File::create(path).map_err(|source| BenchError::File { path: path.clone(), source })?;
    }
    let mut records = Records::create(args.json.as_deref())?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(plan.len() * labs.len());
    let labs: Vec<&dyn Lab> = labs.iter().map(AsRef::as_ref).collect();
    let mut how = How::new(usize::from(args.jobs));
    if args.no_check {
        how = how.unchecked();
    }
    let ran = bench::run(&plan, &labs, how, &stop, |event| match event {
        Event::Checks(lab) => progress.say(format!("profile {}: the lab's check", lab.profile())),
        Event::Begins(lab, case) => progress.say(format!("profile {}: {case}", lab.profile())),
        Event::Measured(_, outcome) => {
            let log = &outcome.measurement.log;
            progress.suspended(|| write!(io::stderr(), "{log}"))?;
            progress.over(&bench::report::line(outcome));
            records.line(outcome.record.to_json())
        }
        Event::Failed(lab, case, record) => {
            progress.over(&format!("{}: {case}: failed: {}", lab.profile(), record.failure));
            records.line(record.to_json())
        }
        Event::Rejected(_, record) => records.line(record.to_json()),
        Event::Over(lab, ran) => progress.suspended(|| records.table(&bench::report::table(&plan, lab, ran))),
        _ => Ok(()),
    })?;
    write_pages(args, &plan, &labs, &ran)?;
    Ok(match ran.iter().all(|ran| ran.is_whole(&plan)) {
        true => Ended::Whole,
        false if stop.is_cancelled() => Ended::Interrupted,
        false => Ended::Incomplete,
    })
}

/// The page and the plot, of what was measured.
fn write_pages(args: &Args, plan: &Plan, labs: &[&dyn Lab], ran: &[Ran]) -> Result<(), BenchError> {
    if let Some(path) = &args.html {
        let pairs: Vec<_> = labs.iter().copied().zip(ran).collect();
        write_file(path, &bench::page::page(plan, &pairs, &command())?)?;
    }
    let Some(path) = &args.plot else { return Ok(()) };
    let saved: Vec<_> = ran.iter().flat_map(|ran| &ran.outcomes).filter_map(Saved::of).collect();
    let profiles: Vec<_> = labs.iter().map(|lab| lab.profile().to_owned()).collect();
    match bench::page::headline(&saved, &profiles) {
        Ok(plot) => write_file(path, &plot),
        // What was measured is no less without it.
        Err(error) => {
            let _ = std::fs::remove_file(path);
            writeln!(io::stderr(), "no plot: {error}").map_err(BenchError::Output)
        }
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|source| BenchError::File { path: path.to_owned(), source })
}

/// Plots records that were written before.
fn plot_saved(args: &Args) -> Result<(), BenchError> {
    let mut saved = Vec::new();
    for path in &args.from {
        saved.extend(Saved::read(path)?);
    }
    let plot = bench::page::headline(&saved, &args.profile)?;
    args.plot.as_deref().map_or(Ok(()), |path| write_file(path, &plot))
}

/// The command line that this is, without the program's directory.
fn command() -> String {
    let quoted = |word: String| if word.contains([' ', '\'', '"']) { format!("{word:?}") } else { word };
    std::iter::once("peerlane".to_owned()).chain(std::env::args().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

fn measure_connect(args: &Args, log: &str) -> Result<Ended, BenchError> {
    use bench::connect::{ConnectPlan, connect, table};
    let mut plan = ConnectPlan::default();
    if args.quick {
        (plan.dials, plan.runs) = (10, 1);
    }
    plan.variants = deduplicated(&args.transport);
    plan.dials = args.dials.unwrap_or(plan.dials);
    plan.runs = args.runs.unwrap_or(plan.runs);
    let labs = args.labs(log)?;
    let mut records = Records::create(args.json.as_deref())?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(labs.len() * plan.variants.len() * plan.runs as usize);
    for lab in &labs {
        let mut measured = Vec::new();
        let result = connect(&plan, lab.as_ref(), &stop, |case, connected, of_both| {
            progress.suspended(|| write!(io::stderr(), "{}", connected.log))?;
            let p50 = of_both.each_ref().map(|record| record.p50_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us / 1e3)));
            let [first, resumed] = p50;
            progress.over(&format!("{}: {}, run {}: p50 {first} ms, resumed {resumed} ms", lab.profile(), case.variant, case.run));
            measured.push((case.clone(), connected.clone()));
            of_both.iter().try_for_each(|record| records.line(serde_json::to_string(record).map_err(io::Error::from)))
        });
        if !measured.is_empty() {
            progress.suspended(|| records.table(&table(&plan, lab.as_ref(), &measured)))?;
        }
        match result {
            Err(BenchError::Interrupted) => return Ok(Ended::Interrupted),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(Ended::Whole)
}

#[cfg(target_os = "linux")]
fn measure_cost(args: &Args) -> Result<Ended, BenchError> {
    use bench::cost::{CostPlan, cost, table};
    if args.lab != LabName::Loopback || !args.profile.is_empty() {
        return Err(BenchError::Plan { what: "cost is measured in real time, without a network between: --lab loopback".to_owned() });
    }
    let mut plan = CostPlan::default();
    if args.quick {
        (plan.peers, plan.bytes, plan.messages, plan.runs) = (50, plan.bytes / 20, plan.messages / 20, 1);
    }
    plan.variants = deduplicated(&args.transport);
    plan.peers = args.peers.unwrap_or(plan.peers);
    plan.runs = args.runs.unwrap_or(plan.runs);
    plan.belief_bytes = args.belief_bytes;
    let mut records = Records::create(args.json.as_deref())?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(plan.variants.len() * plan.runs as usize);
    let mut measured = Vec::new();
    let result = cost(&plan, &stop, |record| {
        progress.over(&format!("{}, run {}", record.transport, record.run));
        records.line(serde_json::to_string(&record).map_err(io::Error::from))?;
        measured.push(record);
        Ok(())
    });
    if !measured.is_empty() {
        progress.suspended(|| records.table(&table(&plan, &measured)))?;
    }
    match result {
        Ok(()) => Ok(Ended::Whole),
        Err(BenchError::Interrupted) => Ok(Ended::Interrupted),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn measure_cost(_: &Args) -> Result<Ended, BenchError> {
    Err(BenchError::Plan { what: "cost is measured on Linux alone".to_owned() })
}

/// A short measurement for `peerlane demo`: its table.
pub(super) async fn demo() -> Result<(), CliError> {
    let plan = Plan {
        variants: Variant::defaults(),
        floods: vec![Flood::None, Flood::Full],
        rivals: vec![Rival::None],
        runs: 1,
        workload: Workload { duration: Duration::from_secs(3), warm_up: Duration::from_millis(500), ..Workload::default() },
        seed: 1,
    };
    say!("QUERY latency over loopback, idle and under a flood of BELIEFs ({} s a line):", plan.workload.duration.as_secs())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let measuring = tokio::task::spawn_blocking(move || {
        let lab = Loopback::new();
        let ran = bench::run(&plan, &[&lab], How::new(1), &stopping, |_| Ok(()))?;
        Ok::<_, BenchError>(ran.iter().map(|ran| bench::report::table(&plan, &lab, ran)).collect::<String>())
    });
    let stop_when_dropped = stop.drop_guard();
    let table = super::setup::or_interrupted(measuring).await?.map_err(CliError::failed)??;
    drop(stop_when_dropped);
    Ok(write!(std::io::stdout(), "{table}")?)
}
