//! `peerlane bench`'s options, and the plan that follows from them.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::values::{flood, rival, time, variants};
#[cfg(target_os = "linux")]
use crate::bench::Emulated;
use crate::bench::{BenchError, Flood, FloodRate, Kind, Lab, Loopback, Plan, Rival, Variant, Workload};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WorkloadName {
    /// QUERY latency in an open loop, beside a flood or not.
    Query,
    /// Signed operations of one account to a reference peer's service, in order, until their RESULTs; the same options.
    Transact,
    /// An operation of one leaf in a star of eight reference peers, until the last of them has merged it by gossip; floods are
    /// large beliefs from the hub to each leaf, or both ways. Over transports that a node can have.
    Propagate,
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
pub(super) enum LabName {
    /// This machine's loopback, in real time: no impairment.
    Loopback,
    /// A Linux kernel of its own on a virtual clock, with an impaired path between the ends: what protocols do.
    Virtual,
    /// Network namespaces with an impaired path between the ends, in real time: needs root or user namespaces.
    Netem,
}

const EXAMPLES: &str = "\
Examples:
  peerlane bench                                                      tcp beside quic over loopback, in real time
  peerlane bench --lab virtual --profile wan,wan-loss1 --duration 60s --jobs 2 --json out.jsonl
  peerlane bench --lab virtual --profile wan-loss1 --transport tcp-per-class-bbr,quic --flood none,full,both-ways
  peerlane bench --lab virtual --profile wan-loss1 --flood 50%,90%,120%       overload: offered, refused, delivered
  peerlane bench --lab virtual --profile shared --flood full --rival none,cubic,bbr
  peerlane bench --lab virtual --workload recover --transport tcp,quic --html page.html
  peerlane bench --lab netem --profile ./my-path.toml                 real time; needs root or user namespaces
  peerlane bench --lab virtual --workload connect --profile wan,wan-loss1 --transport tcp,quic
  peerlane bench --lab virtual --workload transact --profile wan-loss1 --transport tcp,quic
  peerlane bench --lab virtual --workload propagate --profile wan --transport tcp,quic
  peerlane bench --workload cost --transport tcp,quic                 memory per idle peer, processor time per GB
  peerlane bench --from a.jsonl,b.jsonl --plot p99.svg                a plot of what was measured before

The virtual lab's kernel comes from `netem/virtual build`, once; `netem/lab doctor` tells what this machine can do.
Columns: latencies in ms; BELIEF's goodput, and the rival's, in Mbit/s and as a share of the profile's rate (headers cap it
at about 95%); own loss: packets dropped beyond what the profile loses by itself; offered, refused: of a flood at a rate,
and what of it found no room to be sent.";

/// Measure QUERY latency, idle and under a flood of BELIEFs, transport beside transport.
///
/// Queries leave at random times drawn beforehand (Poisson, seeded); latency counts from the scheduled time, and a query
/// without an answer counts as the worst. Runs interleave; the table pools them. Exit code: 0, 1 if something failed or
/// it was interrupted, 2 for a plan that can't be run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Where to measure.
    #[arg(long, value_enum, default_value_t = LabName::Loopback)]
    pub(super) lab: LabName,
    /// What to measure: defaults for the options below. `cost` takes --transport, --peers, --runs, --belief-bytes, --quick
    /// and --json alone.
    #[arg(long, value_enum, default_value_t = WorkloadName::Query)]
    pub(super) workload: WorkloadName,
    /// Dials of each kind in a run, for `connect` [default: 100, quick: 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) dials: Option<u32>,
    /// Idle peers whose memory is measured, for `cost` [default: 1000, quick: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) peers: Option<u64>,
    /// Impairments of the path, by their names (`netem/lab profiles`) or files; not for loopback [default: wan, or the workload's].
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',')]
    pub(super) profile: Vec<String>,
    /// Transports to compare.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = variants(), default_value = "tcp,quic")]
    pub(super) transport: Vec<Variant>,
    /// What else fills the connection: none, full (BELIEFs from the asking end, as fast as they're taken), both-ways, or a rate
    /// of BELIEFs from the asking end, in an open loop: 10Mbit/s, 2MB/s, 50% (of the profile's rate). What finds no room is
    /// refused and counted [default: none,full, or the workload's; propagate: none,50%, over loopback none,20Mbit/s].
    #[arg(long, value_name = "FLOOD", value_delimiter = ',', value_parser = flood)]
    pub(super) flood: Vec<Flood>,
    /// Who else uses the bottleneck: none, or a kernel TCP flow over cubic or bbr, as fast as it can; not for loopback
    /// [default: none, or the workload's].
    #[arg(long, value_name = "RIVAL", value_delimiter = ',', value_parser = rival)]
    pub(super) rival: Vec<Rival>,
    /// Queries, or operations, per second on average; 0 measures the flood alone [default: 100, propagate: 10, bulk: 0].
    #[arg(long, value_name = "QPS")]
    pub(super) rate: Option<f64>,
    /// What is measured of each run, in seconds, or with a unit (500ms, 60s, 2m) [default: 10s, quick: 2s, and
    /// until 10 s after a profile's last scheduled event].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) duration: Option<Duration>,
    /// Load applied before that [default: 1s, quick: 500ms; in a network 5s, quick: 2s].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) warm_up: Option<Duration>,
    /// Runs of each case [default: 5, quick: 2].
    #[arg(long, value_name = "N")]
    pub(super) runs: Option<u32>,
    /// Bytes of each BELIEF, encoded. Above 65536 each travels on a stream of its own.
    #[arg(long, value_name = "BYTES", default_value_t = Workload::default().belief_bytes)]
    pub(super) belief_bytes: usize,
    /// The schedules' seed: run N draws from seed + N.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Tasks that each end's runtime polls between two looks at its sockets and timers. tokio's own default is 61.
    #[arg(long, value_name = "POLLS", default_value_t = Loopback::default().event_interval, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) event_interval: u32,
    /// Write one JSON object per measurement and line, as each ends, and one for each case that failed, or was rejected with its
    /// lab, with the reason; `-` is standard output, the table goes to standard
    /// error then.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a page with tables and plots, the environment, and the command that repeats it.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write a small SVG: QUERY's p99 under a full flood, profile by profile, quic beside TCP (tcp, tcp-per-class-bbr,
    /// tcp-per-class-bbr-copies, tcp-fifo); the runs' medians, and a line from the least to the greatest.
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Measure nothing: plot these records, written by --json. --profile names the profiles, in their order [default: all with two
    /// transports at least].
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "plot")]
    pub(super) from: Vec<PathBuf>,
    /// Labs at once, virtual ones alone: they don't disturb each other's clock. Each takes a processor and up to 512 MiB.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: u16,
    /// Believe the lab: don't measure it against its profile first.
    #[arg(long)]
    pub(super) no_check: bool,
    /// Few and short runs: to see that it works.
    #[arg(long)]
    pub(super) quick: bool,
    /// Plays both ends within a lab, by the order in this directory: the program calls itself with it.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(super) in_lab: Option<PathBuf>,
    /// Plays the taking side of `cost`: the program calls itself with it.
    #[arg(long, value_name = "NAME", value_parser = variants(), hide = true)]
    pub(super) in_cost: Option<Variant>,
}

impl WorkloadName {
    fn floods(self, lab: LabName) -> Vec<Flood> {
        match self {
            Self::Query | Self::Transact => vec![Flood::None, Flood::Full],
            // A full one leaves gossip, which waits for nothing, no room in its own class.
            Self::Propagate if lab == LabName::Loopback => vec![Flood::None, Flood::Rate(FloodRate::Bits(20_000_000))],
            Self::Propagate => vec![Flood::None, Flood::Rate(FloodRate::Share(50_000))],
            _ => vec![Flood::Full],
        }
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

    fn kind(self) -> Kind {
        match self {
            Self::Transact => Kind::Transact,
            Self::Propagate => Kind::Propagate,
            _ => Kind::Query,
        }
    }

    fn rate(self) -> f64 {
        match self {
            Self::Bulk => 0.0,
            Self::Propagate => 10.0,
            _ => Workload::default().rate,
        }
    }
}

/// What was named, or else the default.
fn or_default<T: PartialEq + Copy>(named: &[T], default: &[T]) -> Vec<T> {
    deduplicated(if named.is_empty() { default } else { named })
}

/// Measured after a profile's last scheduled event, if no duration is given.
pub(super) const AFTER_EVENTS: Duration = Duration::from_secs(10);

impl Args {
    /// An option was named that the workload has no use for.
    pub(super) fn refuse_what_is_idle(&self) -> Result<(), BenchError> {
        let (cost, connect) = (self.workload == WorkloadName::Cost, self.workload == WorkloadName::Connect);
        let measures = self.from.is_empty();
        let load = !cost && !connect && measures;
        let query = !matches!(self.workload, WorkloadName::Transact | WorkloadName::Propagate);
        let idle = [
            ("--flood", !self.flood.is_empty(), load),
            ("--rival", !self.rival.is_empty(), load),
            ("--rate", self.rate.is_some(), load),
            ("--duration", self.duration.is_some(), load),
            ("--warm-up", self.warm_up.is_some(), load),
            ("--html", self.html.is_some(), load),
            ("--plot", self.plot.is_some(), (load || !measures) && query),
            ("--json", self.json.is_some(), measures),
            ("--runs", self.runs.is_some(), measures),
            ("--quick", self.quick, measures),
            ("--peers", self.peers.is_some(), cost),
            ("--dials", self.dials.is_some(), connect),
        ];
        match idle.iter().find(|(_, named, useful)| *named && !useful) {
            Some((option, ..)) => Err(BenchError::Plan {
                what: format!("{option} means nothing to this workload, or beside --from; see `peerlane bench --help`"),
            }),
            None => Ok(()),
        }
    }

    /// One for each profile. `log`: what is logged in them.
    pub(super) fn labs(&self, log: &str) -> Result<Vec<Box<dyn Lab>>, BenchError> {
        let fail = |what: &str| Err(BenchError::Plan { what: what.to_owned() });
        if self.jobs > 1 && self.lab != LabName::Virtual {
            return fail("more than one job is for --lab virtual: in real time they'd disturb each other");
        }
        if self.lab == LabName::Loopback && matches!(self.workload, WorkloadName::Recover | WorkloadName::Share) {
            return fail("loopback has neither scheduled events nor a bottleneck to share: use --lab virtual or --lab netem");
        }
        if self.lab == LabName::Loopback && self.rival.iter().any(|rival| *rival != Rival::None) {
            return fail("loopback has no bottleneck to share, so --rival needs --lab virtual or --lab netem");
        }
        let kind = match self.lab {
            LabName::Loopback if self.profile.is_empty() => {
                return Ok(vec![Box::new(Loopback { event_interval: self.event_interval })]);
            }
            LabName::Loopback => return fail("loopback has no impairment, so --profile needs --lab virtual or --lab netem"),
            LabName::Virtual => "virtual",
            LabName::Netem => "netem",
        };
        let profiles: Vec<&str> = match self.profile.as_slice() {
            [] => vec![self.workload.profile()],
            named => named.iter().map(String::as_str).collect(),
        };
        deduplicated(&profiles).into_iter().map(|profile| self.emulated(kind, profile, log)).collect()
    }

    #[cfg(target_os = "linux")]
    fn emulated(&self, kind: &str, profile: &str, log: &str) -> Result<Box<dyn Lab>, BenchError> {
        Ok(Box::new(Emulated::new(kind, profile)?.event_interval(self.event_interval).log(log)))
    }

    #[cfg(not(target_os = "linux"))]
    fn emulated(&self, kind: &str, _: &str, _: &str) -> Result<Box<dyn Lab>, BenchError> {
        Err(BenchError::Plan { what: format!("the {kind} lab needs Linux; use --lab loopback") })
    }

    pub(super) fn plan(&self) -> Plan {
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
            floods: or_default(&self.flood, &self.workload.floods(self.lab)),
            rivals: or_default(&self.rival, self.workload.rivals()),
            runs: self.runs.unwrap_or(runs),
            workload: Workload {
                kind: self.workload.kind(),
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

pub(super) fn deduplicated<T: PartialEq + Copy>(values: &[T]) -> Vec<T> {
    values.iter().enumerate().filter(|(i, value)| !values[..*i].contains(value)).map(|(_, value)| *value).collect()
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
        for (line, floods) in [("", "none,20Mbit/s"), ("--lab virtual", "none,50%")] {
            let plan = args(&format!("{line} --workload propagate")).unwrap().plan();
            let named: Vec<_> = plan.floods.iter().map(ToString::to_string).collect();
            assert_eq!((named.join(","), plan.workload.kind, plan.workload.rate), (floods.to_owned(), Kind::Propagate, 10.0));
        }
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
            "--workload cost --plot x",
            "--workload transact --plot x",
            "--from a --plot x --json y",
            "--from a --plot x --flood none",
        ] {
            assert!(matches!(args(idle).unwrap().refuse_what_is_idle(), Err(BenchError::Plan { .. })), "{idle}");
        }
        for used in [
            "--from a,b --plot x --profile wan",
            "--plot x",
            "--workload cost --peers 7",
            "--workload connect --dials 7",
            "--rate 5 --html x",
            "--workload bulk --duration 1s",
        ] {
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
        for wrong in ["--duration 5h", "--duration -1s", "--transport TCP", "--jobs 0", "--flood full,", "--rival tcp", "--from a"] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }
}
