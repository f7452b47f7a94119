//! What our layer costs, as a ratio to raw: `cargo bench -p peerlane-benches --bench ratio`.
//!
//! Each round runs the same job over our layer and over raw in both styles, in changing order, in one process, so that
//! what the machine does meanwhile hits all alike; a ratio is made within a round. Printed are the median of the rounds'
//! ratios (1.0: our layer costs nothing; higher is better) and its 95% interval.
//!
//! Two peers are two processes: each end has a tokio runtime of its own, the same for ours and raw, and the thread that
//! waits for both works for neither. `--runtime shared` puts both ends on one, whose scheduler then decides how much of the
//! two ends' work is done at the same time. All else of the runtimes is tokio's default.
#![allow(missing_docs)]

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use peerlane::bench::Environment;
use peerlane_benches::{Failed, Interval, Kind, Link, Messages, Mode, Provenance, Runtimes, Style, cpu_time, median_interval};
use peerlane_transport::{ClassId, ClassTable};
use serde::Serialize;

#[derive(Parser)]
struct Args {
    /// Rounds. At least 15 for figures to publish.
    #[arg(long, default_value_t = 21)]
    pairs: usize,
    /// Seconds of one run.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Only rows whose name contains this, `quic/bulk` for example.
    #[arg(long)]
    only: Option<String>,
    /// Writes one JSON object per row into this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// `own`: each end has a runtime; `shared`: both have one.
    #[arg(long, default_value = "own")]
    runtime: Mode,
    /// Worker threads of each runtime. By default two threads in all.
    #[arg(long)]
    workers: Option<usize>,
    /// Runs one side alone, for a profiler: `ours`, `raw` or `tuned`. Prints what is known of its path.
    #[arg(long)]
    side: Option<String>,
    /// Exit code 1 if a goal is missed.
    #[arg(long)]
    check: bool,
    /// What cargo says to a benchmark. Without it (`cargo test --benches`) one short round is run.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One job.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    class: &'static str,
    size: usize,
    /// Bytes of the answer, if there is one: one after the other then.
    answer: Option<usize>,
    /// What the interval's lower end is to exceed.
    goal: Option<f64>,
}

const WORK: [Work; 3] = [
    Work { name: "bulk 64 KiB", class: ClassTable::BELIEF, size: 65_536, answer: None, goal: Some(0.90) },
    Work { name: "one way 256 B", class: ClassTable::QUERY, size: 256, answer: None, goal: Some(0.85) },
    Work { name: "request 100 B, answer 300 B", class: ClassTable::QUERY, size: 100, answer: Some(300), goal: None },
];

#[derive(Serialize)]
struct Row {
    transport: &'static str,
    work: &'static str,
    baseline: &'static str,
    pairs: usize,
    /// Of one run, as asked for.
    seconds: f64,
    runtime: &'static str,
    /// Threads of each runtime.
    workers: usize,
    /// Messages (or round trips) per second, medians.
    ours_per_s: f64,
    raw_per_s: f64,
    /// Processor time for a message, medians, both ends together.
    ours_cpu_ns: Option<f64>,
    raw_cpu_ns: Option<f64>,
    ratio: Interval,
    /// Raw's processor time by ours: the same ratio without what the machine does meanwhile.
    cpu_ratio: Option<Interval>,
    goal: Option<f64>,
    met: Option<bool>,
    #[serde(flatten)]
    provenance: Provenance,
    /// Its `load` is the one at the row's start.
    #[serde(flatten)]
    environment: Environment,
    load_end: Option<f64>,
}

struct Run {
    wall: f64,
    cpu: Option<f64>,
}

/// A job's messages, made before it's measured.
struct Load {
    class: ClassId,
    messages: Messages,
    answers: Option<Messages>,
}

impl Load {
    fn new(work: &Work) -> Self {
        let class = ClassTable::standard().by_name(work.class).unwrap_or(ClassId(0));
        Self { class, messages: Messages::new(work.size), answers: work.answer.map(Messages::new) }
    }
}

async fn run(link: &Link, Load { class, messages, answers }: &Load, count: usize) -> Result<Run, Failed> {
    let before = cpu_time();
    let wall = match answers {
        None => link.one_way(*class, messages, count).await?,
        Some(answers) => link.round_trips(*class, messages, answers, count).await?,
    };
    let cpu = before.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before).as_secs_f64());
    Ok(Run { wall: wall.as_secs_f64(), cpu })
}

/// How many messages take about so long. Also warms the link up: windows, MTU discovery, allocators.
async fn calibrate(link: &Link, load: &Load, seconds: f64) -> Result<usize, Failed> {
    let mut count = 64;
    loop {
        let took = run(link, load, count).await?.wall;
        if took >= seconds / 2.0 {
            return Ok(((count as f64 * seconds / took) as usize).max(64));
        }
        count *= 2;
    }
}

const STYLES: [(&str, Style); 2] = [("raw", Style::Plain), ("raw tuned", Style::Tuned)];

async fn measure(kind: Kind, work: &Work, args: &Args, runtimes: &Runtimes) -> Result<Vec<Row>, Failed> {
    let (provenance, environment) = (Provenance::here(), Environment::here());
    let links = [
        Link::peerlane(kind, runtimes).await?,
        Link::raw(kind, Style::Plain, runtimes).await?,
        Link::raw(kind, Style::Tuned, runtimes).await?,
    ];
    let (load, mut counts) = (Load::new(work), Vec::new());
    for link in &links {
        counts.push(calibrate(link, &load, args.seconds).await?);
    }
    let mut runs: [Vec<Run>; 3] = [const { Vec::new() }; 3];
    for round in 0..args.pairs {
        for turn in 0..links.len() {
            // Each is first, second and last equally often, and each follows each.
            let i = if round % 2 == 0 { (round / 2 + turn) % 3 } else { (round / 2 + 2 * turn) % 3 };
            runs[i].push(run(&links[i], &load, counts[i]).await?);
        }
    }
    let [ours, raw @ ..] = &runs;
    let rate = |runs: &[Run], count: usize| median(runs.iter().map(|run| count as f64 / run.wall));
    let cpu = |runs: &[Run], count: usize| runs.iter().map(|run| Some(run.cpu? * 1e9 / count as f64)).collect::<Option<Vec<_>>>();
    let mut rows = Vec::new();
    for (i, (baseline, _)) in STYLES.into_iter().enumerate() {
        let per = |run: &Run, i: usize| run.wall / counts[i] as f64;
        let ratios: Vec<f64> = raw[i].iter().zip(ours).map(|(raw, ours)| per(raw, i + 1) / per(ours, 0)).collect();
        let (ours_cpu, raw_cpu) = (cpu(ours, counts[0]), cpu(&raw[i], counts[i + 1]));
        let cpu_ratios = ours_cpu.clone().zip(raw_cpu.clone());
        let cpu_ratios = cpu_ratios.map(|(ours, raw)| raw.iter().zip(&ours).map(|(raw, ours)| raw / ours).collect::<Vec<_>>());
        let Some(ratio) = median_interval(&ratios) else { continue };
        rows.push(Row {
            transport: kind.name(),
            work: work.name,
            baseline,
            pairs: args.pairs,
            seconds: args.seconds,
            runtime: args.runtime.name(),
            workers: workers(args),
            ours_per_s: rate(ours, counts[0]),
            raw_per_s: rate(&raw[i], counts[i + 1]),
            ours_cpu_ns: ours_cpu.map(|cpu| median(cpu.into_iter())),
            raw_cpu_ns: raw_cpu.map(|cpu| median(cpu.into_iter())),
            ratio,
            cpu_ratio: cpu_ratios.and_then(|ratios| median_interval(&ratios)),
            goal: work.goal,
            met: work.goal.map(|goal| ratio.low > goal),
            provenance: provenance.clone(),
            environment: environment.clone(),
            load_end: Environment::here().load,
        });
    }
    Ok(rows)
}

/// One side alone.
async fn alone(kind: Kind, work: &Work, side: &str, args: &Args, runtimes: &Runtimes) -> Result<(), Failed> {
    let link = match side {
        "ours" => Link::peerlane(kind, runtimes).await?,
        "tuned" => Link::raw(kind, Style::Tuned, runtimes).await?,
        "raw" => Link::raw(kind, Style::Plain, runtimes).await?,
        _ => return Err(Failed::Setup(format!("{side:?} is none of \"ours\", \"raw\", \"tuned\""))),
    };
    let load = Load::new(work);
    let count = calibrate(&link, &load, args.seconds).await?;
    for _ in 0..args.pairs {
        let Run { wall, cpu } = run(&link, &load, count).await?;
        let cpu = cpu.map_or(f64::NAN, |cpu| cpu * 1e6 / count as f64);
        println!("{side} {} {}: {:.0}/s, {cpu:.2} us of processor time each", kind.name(), work.name, count as f64 / wall);
    }
    let [dialer, listener] = link.paths();
    println!("    dialer:   {dialer:?}\n    listener: {listener:?}");
    Ok(())
}

fn workers(args: &Args) -> usize {
    args.workers.unwrap_or(args.runtime.default_workers())
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    median_interval(&samples.collect::<Vec<_>>()).map_or(f64::NAN, |interval| interval.median)
}

fn print(row: &Row) {
    let cpu = |ns: Option<f64>| ns.map_or_else(|| "-".into(), |ns| format!("{:.2}", ns / 1000.0));
    println!(
        "{:<4} {:<28} {:<10} {:>9.0}/s {:>9.0}/s   {:.3} [{:.3}, {:.3}]  {:<12} cpu us {:>7} {:>7}  {}",
        row.transport,
        row.work,
        row.baseline,
        row.ours_per_s,
        row.raw_per_s,
        row.ratio.median,
        row.ratio.low,
        row.ratio.high,
        match (row.goal, row.met) {
            (Some(goal), Some(met)) => format!("{} > {goal:.2}", if met { "met" } else { "MISSED" }),
            _ => String::new(),
        },
        cpu(row.ours_cpu_ns),
        cpu(row.raw_cpu_ns),
        row.cpu_ratio.map_or_else(String::new, |ratio| format!("{:.3} [{:.3}, {:.3}]", ratio.median, ratio.low, ratio.high)),
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = Args::parse();
    if !args.bench {
        (args.pairs, args.seconds) = (1, 0.01);
    }
    let runtimes = Runtimes::new(args.runtime, workers(&args))?;
    let mut json = args.json.as_ref().map(File::create).transpose()?;
    let (mut missed, start) = (0, Instant::now());
    println!("runtime {}, {} worker threads each", args.runtime.name(), workers(&args));
    println!("{:<4} {:<28} {:<10} {:>11} {:>11}   ratio [95%]", "", "", "baseline", "ours", "raw");
    for kind in [Kind::Quic, Kind::Tcp] {
        for work in &WORK {
            let name = format!("{}/{}", kind.name(), work.name);
            if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            if let Some(side) = &args.side {
                runtimes.wait(alone(kind, work, side, &args, &runtimes))?;
                continue;
            }
            let limit = Duration::from_secs_f64(60.0 + args.seconds * 12.0 * (args.pairs + 10) as f64);
            let measured = runtimes.wait(async { tokio::time::timeout(limit, measure(kind, work, &args, &runtimes)).await });
            for row in measured.map_err(|_| format!("{name} hung"))?? {
                print(&row);
                missed += usize::from(row.met == Some(false));
                if let Some(json) = &mut json {
                    writeln!(json, "{}", serde_json::to_string(&row)?)?;
                }
            }
        }
    }
    println!("{} rounds, {:.0} s; a ratio above 1: our layer is faster", args.pairs, start.elapsed().as_secs_f64());
    if args.check && missed > 0 {
        return Err(format!("{missed} goals missed").into());
    }
    Ok(())
}
