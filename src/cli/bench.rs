//! `peerlane bench`: QUERY latency with and without a flood of BELIEFs, transport beside transport.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::bench::{self, BenchError, Event, Flood, How, Lab, Loopback, Outcome, Plan, Rival, Variant, Workload};
use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::CliError;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkloadName {
    /// QUERY latency in an open loop, beside a flood or not.
    Query,
    /// BELIEFs alone: the same with --rate 0 --flood full.
    Bulk,
    /// QUERY and BELIEF around a path's scheduled events: the same with --flood full --profile blackhole.
    Recover,
    /// Beside a kernel TCP flow: the same with --flood full --rival cubic,bbr --profile shared.
    Share,
    /// From the dial to the first answer: first, and resumed. Takes --lab, --profile, --transport, --dials, --runs, --quick
    /// and --json alone.
    Connect,
    /// Memory per idle peer, processor time per gigabyte and per million messages; over loopback, in real time.
    Cost,
}

/// Where it's measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LabName {
    /// This machine's loopback, in real time: no impairment.
    Loopback,
    /// A Linux kernel of its own on a virtual clock, with an impaired path between the ends: what protocols do.
    Virtual,
    /// Network namespaces with an impaired path between the ends, in real time: needs root or user namespaces.
    Netem,
    /// Network namespaces with an emulator between, in real time, where the kernel has no netem; late runs are rejected.
    Tun,
}

const EXAMPLES: &str = "\
Examples:
  peerlane bench                                                      tcp beside quic over loopback, in real time
  peerlane bench --lab virtual --profile wan,wan-loss1 --duration 60s --jobs 2 --json out.jsonl
  peerlane bench --lab virtual --profile wan-loss1 --transport tcp-per-class-bbr,quic --flood none,full,both-ways
  peerlane bench --lab virtual --profile shared --flood full --rival none,cubic,bbr
  peerlane bench --lab virtual --workload recover --transport tcp,quic --html page.html
  peerlane bench --lab netem --profile ./my-path.toml                 real time; needs root or user namespaces
  peerlane bench --lab virtual --workload connect --profile wan,wan-loss1 --transport tcp,quic
  peerlane bench --workload cost --transport tcp,quic                 memory per idle peer, processor time per GB

The virtual lab's kernel comes from `netem/virtual build`, once; `netem/lab doctor` tells what this machine can do.
Columns: latencies in ms; BELIEF's goodput, and the rival's, in Mbit/s and as a share of the profile's rate (headers cap it
at about 95%); own loss: packets dropped beyond what the profile loses by itself.";

/// Measure QUERY latency, idle and under a flood of BELIEFs, transport beside transport.
///
/// Queries leave at random times drawn beforehand (Poisson, seeded); latency counts from the scheduled time, and a query
/// without an answer counts as the worst. Runs interleave; the table pools them. Exit code: 0, 1 if something failed or
/// it was interrupted, 2 for a plan that can't be run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to measure.
    #[arg(long, value_enum, default_value_t = LabName::Loopback)]
    lab: LabName,
    /// What to measure: defaults for the options below. `cost` takes --transport, --peers, --runs, --belief-bytes, --quick
    /// and --json alone.
    #[arg(long, value_enum, default_value_t = WorkloadName::Query)]
    workload: WorkloadName,
    /// Dials of each kind in a run, for `connect` [default: 100, quick: 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    dials: Option<u32>,
    /// Idle peers whose memory is measured, for `cost` [default: 1000, quick: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    peers: Option<u64>,
    /// Impairments of the path, by their names (`netem/lab profiles`) or files; not for loopback [default: wan, or the workload's].
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',')]
    profile: Vec<String>,
    /// Transports to compare.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = variants(), default_value = "tcp,quic")]
    transport: Vec<Variant>,
    /// What else fills the connection: none, full (BELIEFs from the asking end), both-ways [default: none,full, or the
    /// workload's].
    #[arg(long, value_delimiter = ',', value_parser = flood)]
    flood: Vec<Flood>,
    /// Who else uses the bottleneck: none, or a kernel TCP flow over cubic or bbr, as fast as it can; not for loopback
    /// [default: none, or the workload's].
    #[arg(long, value_name = "RIVAL", value_delimiter = ',', value_parser = rival)]
    rival: Vec<Rival>,
    /// Queries per second on average; 0 measures the flood alone [default: 100, bulk: 0].
    #[arg(long, value_name = "QPS")]
    rate: Option<f64>,
    /// What is measured of each run, in seconds, or with a unit (500ms, 60s, 2m) [default: 10s, quick: 2s, and
    /// until 10 s after a profile's last scheduled event].
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Load applied before that [default: 1s, quick: 500ms; in a network 5s, quick: 2s].
    #[arg(long, value_name = "TIME", value_parser = time)]
    warm_up: Option<Duration>,
    /// Runs of each case [default: 5, quick: 2].
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// Bytes of each BELIEF, encoded. Above 65536 each travels on a stream of its own.
    #[arg(long, value_name = "BYTES", default_value_t = Workload::default().belief_bytes)]
    belief_bytes: usize,
    /// The schedules' seed: run N draws from seed + N.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tasks that each end's runtime polls between two looks at its sockets and timers. tokio's own default is 61.
    #[arg(long, value_name = "POLLS", default_value_t = Loopback::default().event_interval, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    event_interval: u32,
    /// Write one JSON object per measurement and line, as each ends; `-` is standard output, the table goes to standard
    /// error then.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with tables and plots, the environment, and the command that repeats it.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Labs at once, virtual ones alone: they don't disturb each other's clock. Each takes a processor and up to 512 MiB.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Believe the lab: don't measure it against its profile first.
    #[arg(long)]
    no_check: bool,
    /// Few and short runs: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Plays both ends within a lab, by the order in this directory: the program calls itself with it.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    in_lab: Option<PathBuf>,
    /// Plays the taking side of `cost`: the program calls itself with it.
    #[arg(long, value_name = "NAME", value_parser = variants(), hide = true)]
    in_cost: Option<Variant>,
}

impl WorkloadName {
    fn floods(self) -> &'static [Flood] {
        if self == Self::Query { &[Flood::None, Flood::Full] } else { &[Flood::Full] }
    }

    fn rivals(self) -> &'static [Rival] {
        if self == Self::Share { &[Rival::Cubic, Rival::Bbr] } else { &[Rival::None] }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Recover => "blackhole",
            Self::Share => "shared",
            _ => "wan",
        }
    }

    fn rate(self) -> f64 {
        if self == Self::Bulk { 0.0 } else { Workload::default().rate }
    }
}

/// What was named, or else the default.
fn or_default<T: PartialEq + Copy>(named: &[T], default: &[T]) -> Vec<T> {
    deduplicated(if named.is_empty() { default } else { named })
}

/// Measured after a profile's last scheduled event, if no duration is given.
const AFTER_EVENTS: Duration = Duration::from_secs(10);

impl Args {
    /// An option was named that the workload has no use for.
    fn refuse_what_is_idle(&self) -> Result<(), BenchError> {
        let (cost, connect) = (self.workload == WorkloadName::Cost, self.workload == WorkloadName::Connect);
        let load = !cost && !connect;
        let idle = [
            ("--flood", !self.flood.is_empty(), load),
            ("--rival", !self.rival.is_empty(), load),
            ("--rate", self.rate.is_some(), load),
            ("--duration", self.duration.is_some(), load),
            ("--warm-up", self.warm_up.is_some(), load),
            ("--html", self.html.is_some(), load),
            ("--peers", self.peers.is_some(), cost),
            ("--dials", self.dials.is_some(), connect),
        ];
        match idle.iter().find(|(_, named, useful)| *named && !useful) {
            Some((option, ..)) => {
                Err(BenchError::Plan { what: format!("{option} means nothing to this workload; see `peerlane bench --help`") })
            }
            None => Ok(()),
        }
    }

    /// One for each profile. `log`: what is logged in them.
    fn labs(&self, log: &str) -> Result<Vec<Box<dyn Lab>>, BenchError> {
        let fail = |what: &str| Err(BenchError::Plan { what: what.to_owned() });
        if self.jobs > 1 && self.lab != LabName::Virtual {
            return fail("more than one job is for --lab virtual: in real time they'd disturb each other");
        }
        if self.lab == LabName::Loopback && matches!(self.workload, WorkloadName::Recover | WorkloadName::Share) {
            return fail("loopback has neither scheduled events nor a bottleneck to share: use --lab virtual, netem or tun");
        }
        if self.lab == LabName::Loopback && self.rival.iter().any(|rival| *rival != Rival::None) {
            return fail("loopback has no bottleneck to share, so --rival needs --lab virtual, netem or tun");
        }
        let kind = match self.lab {
            LabName::Loopback if self.profile.is_empty() => {
                return Ok(vec![Box::new(Loopback { event_interval: self.event_interval })]);
            }
            LabName::Loopback => return fail("loopback has no impairment, so --profile needs --lab virtual, netem or tun"),
            LabName::Virtual => "virtual",
            LabName::Netem => "netem",
            LabName::Tun => "tun",
        };
        let profiles: Vec<&str> = match self.profile.as_slice() {
            [] => vec![self.workload.profile()],
            named => named.iter().map(String::as_str).collect(),
        };
        deduplicated(&profiles).into_iter().map(|profile| self.emulated(kind, profile, log)).collect()
    }

    #[cfg(target_os = "linux")]
    fn emulated(&self, kind: &str, profile: &str, log: &str) -> Result<Box<dyn Lab>, BenchError> {
        Ok(Box::new(bench::Emulated::new(kind, profile)?.event_interval(self.event_interval).log(log)))
    }

    #[cfg(not(target_os = "linux"))]
    fn emulated(&self, kind: &str, _: &str, _: &str) -> Result<Box<dyn Lab>, BenchError> {
        Err(BenchError::Plan { what: format!("the {kind} lab needs Linux; use --lab loopback") })
    }

    fn plan(&self) -> Plan {
        let usual = Workload::default();
        let (runs, duration) = if self.quick { (2, Duration::from_secs(2)) } else { (5, usual.duration) };
        // A network's round trip is dozens of milliseconds: a congestion control needs a hundred of them to settle.
        let warm_up = match (self.lab, self.quick) {
            (LabName::Loopback, true) => Duration::from_millis(500),
            (LabName::Loopback, false) => usual.warm_up,
            (_, true) => Duration::from_secs(2),
            (_, false) => Duration::from_secs(5),
        };
        Plan {
            variants: deduplicated(&self.transport),
            floods: or_default(&self.flood, self.workload.floods()),
            rivals: or_default(&self.rival, self.workload.rivals()),
            runs: self.runs.unwrap_or(runs),
            workload: Workload {
                rate: self.rate.unwrap_or(self.workload.rate()),
                belief_bytes: self.belief_bytes,
                duration: self.duration.unwrap_or(duration),
                warm_up: self.warm_up.unwrap_or(warm_up),
                ..usual
            },
            seed: self.seed,
        }
    }
}

fn deduplicated<T: PartialEq + Copy>(values: &[T]) -> Vec<T> {
    values.iter().enumerate().filter(|(i, value)| !values[..*i].contains(value)).map(|(_, value)| *value).collect()
}

/// The transports' names, each with what it is.
fn variants() -> impl TypedValueParser<Value = Variant> {
    let names = Variant::ALL.iter().map(|variant| PossibleValue::new(variant.name()).help(variant.about()));
    PossibleValuesParser::new(names).try_map(|name| Variant::by_name(&name).ok_or("no such transport"))
}

fn flood(name: &str) -> Result<Flood, String> {
    Flood::by_name(name).ok_or_else(|| format!("it's one of {}", names(Flood::ALL.into_iter().map(Flood::name))))
}

fn rival(name: &str) -> Result<Rival, String> {
    Rival::by_name(name).ok_or_else(|| format!("it's one of {}", names(Rival::ALL.into_iter().map(Rival::name))))
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Seconds, or a number and its unit.
fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("a time is a number of seconds, or one with ms, s or m".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number of seconds, or one with ms, s or m".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| "a time is 0 to a day".into())
}

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
    if let Some(path) = &args.html {
        // A page that can't be written is known before hours of measuring.
        File::create(path).map_err(|source| BenchError::File { path: path.clone(), source })?;
    }
    let mut records = args.json.as_deref().map(Records::create).transpose()?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(plan.len() * labs.len());
    let labs: Vec<&dyn Lab> = labs.iter().map(AsRef::as_ref).collect();
    let mut how = How::new(usize::from(args.jobs));
    if args.no_check {
        how = how.unchecked();
    }
    let to_stderr = records.as_ref().is_some_and(|records| records.to_stdout);
    let ran = bench::run(&plan, &labs, how, &stop, |event| match event {
        Event::Checks(lab) => progress.say(format!("profile {}: the lab's check", lab.profile())),
        Event::Begins(lab, case) => progress.say(format!("profile {}: {case}", lab.profile())),
        Event::Measured(_, outcome) => {
            progress.over();
            let log = &outcome.measurement.log;
            progress.suspended(|| write!(io::stderr(), "{log}"))?;
            records.as_mut().map_or(Ok(()), |records| records.write(outcome))
        }
        Event::Failed(..) => {
            progress.over();
            Ok(())
        }
        Event::Over(lab, ran) => {
            let table = bench::report::table(&plan, lab, ran);
            progress.suspended(|| if to_stderr { write!(io::stderr(), "{table}") } else { write!(io::stdout(), "{table}") })
        }
        _ => Ok(()),
    })?;
    if let Some(path) = &args.html {
        let pairs: Vec<_> = labs.iter().copied().zip(&ran).collect();
        let page = bench::page::page(&plan, &pairs, &command())?;
        std::fs::write(path, page).map_err(|source| BenchError::File { path: path.clone(), source })?;
    }
    Ok(match ran.iter().all(|ran| ran.is_whole(&plan)) {
        true => Ended::Whole,
        false if stop.is_cancelled() => Ended::Interrupted,
        false => Ended::Incomplete,
    })
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
    let mut records = args.json.as_deref().map(Records::create).transpose()?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(labs.len() * plan.variants.len() * plan.runs as usize);
    for lab in &labs {
        let measured = connect(&plan, lab.as_ref(), &stop, |_, connected, of_both| {
            progress.over();
            progress.suspended(|| write!(io::stderr(), "{}", connected.log))?;
            let Some(records) = &mut records else { return Ok(()) };
            of_both
                .iter()
                .try_for_each(|record| records.line(&serde_json::to_string(record).map_err(|error| BenchError::Output(error.into()))?))
        });
        let measured = match measured {
            Err(BenchError::Interrupted) => return Ok(Ended::Interrupted),
            measured => measured?,
        };
        let to_stderr = records.as_ref().is_some_and(|records| records.to_stdout);
        let table = table(&plan, lab.as_ref(), &measured);
        progress.suspended(|| if to_stderr { write!(io::stderr(), "{table}") } else { write!(io::stdout(), "{table}") })?;
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
    let mut records = args.json.as_deref().map(Records::create).transpose()?;
    let stop = CancellationToken::new();
    let _interrupts = Interrupts::watch(&stop);
    let progress = Progress::new(plan.variants.len() * plan.runs as usize);
    let mut measured = Vec::new();
    let result = cost(&plan, &stop, |record| {
        progress.over();
        if let Some(records) = &mut records {
            records.line(&serde_json::to_string(&record).map_err(|error| BenchError::Output(error.into()))?)?;
        }
        measured.push(record);
        Ok(())
    });
    let to_stderr = records.as_ref().is_some_and(|records| records.to_stdout);
    let table = if measured.is_empty() { String::new() } else { table(&plan, &measured) };
    progress.suspended(|| if to_stderr { write!(io::stderr(), "{table}") } else { write!(io::stdout(), "{table}") })?;
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

/// Where records go, line by line.
struct Records {
    path: PathBuf,
    to_stdout: bool,
    out: Box<dyn Write>,
}

impl Records {
    fn create(path: &Path) -> Result<Self, BenchError> {
        let to_stdout = path.as_os_str() == "-";
        let out: Box<dyn Write> = if to_stdout {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|source| BenchError::File { path: path.to_owned(), source })?)
        };
        Ok(Self { path: path.to_owned(), to_stdout, out })
    }

    fn write(&mut self, outcome: &Outcome) -> Result<(), BenchError> {
        self.line(&outcome.record.to_json().map_err(BenchError::Output)?)
    }

    fn line(&mut self, line: &str) -> Result<(), BenchError> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(|source| match self.to_stdout {
            true => BenchError::Output(source),
            false => BenchError::File { path: self.path.clone(), source },
        })
    }
}

/// What is being measured, on a terminal's standard error.
struct Progress(ProgressBar);

impl Progress {
    fn new(cases: usize) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(cases as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} [{bar:30}] {elapsed} {msg}") {
            bar.set_style(style);
        }
        // A redraw a second: it's the measured machine that draws.
        bar.enable_steady_tick(Duration::from_secs(1));
        Self(bar)
    }

    #[expect(clippy::unnecessary_wraps, reason = "an arm among others that may fail")]
    fn say(&self, what: String) -> Result<(), BenchError> {
        self.0.set_message(what);
        Ok(())
    }

    fn over(&self) {
        self.0.inc(1);
    }

    /// Does something with the terminal to itself.
    fn suspended(&self, work: impl FnOnce() -> io::Result<()>) -> Result<(), BenchError> {
        self.0.suspend(work).map_err(BenchError::Output)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Ctrl-C ends the case at hand; a second one ends the process.
struct Interrupts(CancellationToken);

impl Interrupts {
    fn watch(stop: &CancellationToken) -> Self {
        let over = CancellationToken::new();
        let (stop, until) = (stop.clone(), over.clone());
        // Without the thread Ctrl-C ends the process, as it does by default.
        let _ = thread::Builder::new().name("bench-ctrl-c".into()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                tokio::select! {
                    () = until.cancelled() => return,
                    pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
                }
                stop.cancel();
                tokio::select! {
                    () = until.cancelled() => {}
                    _ = tokio::signal::ctrl_c() => std::process::exit(130),
                }
            });
        });
        Self(over)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Ok(Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()))?.args)
    }

    #[test]
    fn without_options_its_what_users_get() {
        let plan = args("").unwrap().plan();
        assert_eq!(plan.variants, Variant::defaults());
        assert_eq!((plan.floods, plan.rivals, plan.runs), (vec![Flood::None, Flood::Full], vec![Rival::None], 5));
    }

    #[test]
    fn a_workload_is_what_its_options_are_by_default() {
        let plan = args("--lab virtual --workload share").unwrap().plan();
        assert_eq!((plan.floods, plan.rivals), (vec![Flood::Full], vec![Rival::Cubic, Rival::Bbr]));
        let plan = args("--workload bulk --flood both-ways").unwrap().plan();
        assert_eq!((plan.floods, plan.workload.rate), (vec![Flood::BothWays], 0.0));
        let labs = args("--lab virtual --workload recover").unwrap().labs("").unwrap();
        assert!(labs[0].profile() == "blackhole" && labs[0].last_event().is_some());
        for nowhere in ["--workload share", "--workload recover"] {
            assert!(matches!(args(nowhere).unwrap().labs(""), Err(BenchError::Plan { .. })), "{nowhere}");
        }
    }

    #[test]
    fn an_option_that_would_do_nothing_is_refused() {
        for idle in [
            "--workload cost --html x",
            "--workload cost --dials 3",
            "--workload connect --rate 5",
            "--peers 7",
            "--workload bulk --dials 1",
        ] {
            assert!(matches!(args(idle).unwrap().refuse_what_is_idle(), Err(BenchError::Plan { .. })), "{idle}");
        }
        for used in ["--workload cost --peers 7", "--workload connect --dials 7", "--rate 5 --html x", "--workload bulk --duration 1s"] {
            args(used).unwrap().refuse_what_is_idle().unwrap();
        }
    }

    #[test]
    fn lists_keep_their_order_and_name_nothing_twice() {
        let plan =
            args("--lab virtual --transport quic,tcp-fifo,quic --flood both-ways,none --rival bbr,none,bbr --runs 2").unwrap().plan();
        assert_eq!(plan.variants.iter().map(|variant| variant.name()).collect::<Vec<_>>(), ["quic", "tcp-fifo"]);
        assert_eq!((&plan.floods, &plan.rivals), (&vec![Flood::BothWays, Flood::None], &vec![Rival::Bbr, Rival::None]));
        assert_eq!(plan.len(), 16);
        assert_eq!(plan.workload.warm_up, Duration::from_secs(5));
    }

    #[test]
    fn every_transport_can_be_named_and_times_have_units() {
        for variant in Variant::ALL {
            assert_eq!(args(&format!("--transport {variant}")).unwrap().transport, [*variant]);
        }
        let plan = args("--duration 1500ms --warm-up 2m").unwrap().plan();
        assert_eq!((plan.workload.duration, plan.workload.warm_up), (Duration::from_millis(1500), Duration::from_secs(120)));
        for wrong in ["--duration 5h", "--duration -1s", "--transport TCP", "--jobs 0", "--flood full,", "--rival tcp"] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
