//! Both ends in hosts of an emulated network (`netem/`), on a virtual clock or in real time.
//!
//! Each case has a network of its own, made for it and gone after it. In it this very program runs once more
//! ([`play_inside`]) and plays both ends, each on a thread that moved into its host's network namespace. Order and
//! measurement travel as files in a directory that both sides see.

use std::{
    fs,
    io::IsTerminal,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use peerlane_netem::{
    LabError as NetemError, LabKind, Outcome, Run,
    check::check,
    doctor,
    plan::{Host, Plan, Topology},
    profile::{Direction, Profile},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{
    Lab,
    ends::{Ends, Place},
    loopback::EVENT_INTERVAL,
    star::Star,
};
use crate::bench::{
    BenchError, Case, Kind, Measurement, Network, Plan as BenchPlan, Queue, Rival,
    connect::{ConnectCase, Connected},
    measurement,
    propagate::MEMBERS,
};

/// The hosts of the workload `propagate`.
const STAR: Topology = Topology::Star(MEMBERS as u8);
const ORDER: &str = "order.json";
const MEASURED: &str = "measured.json";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Real time that a lab may take to come and go, and to run its command if that hangs.
const LIMIT: Duration = Duration::from_secs(300);
/// A dial of either kind, on a slow path.
const DIAL: Duration = Duration::from_secs(2);
/// Real seconds that a second in the lab may take: a debug build needs one or two.
const SLOWEST: u32 = 20;

/// A lab with an impairment profile between the ends. The asking end is host `a`, the answering one is `b`.
#[derive(Debug, Clone)]
pub struct Emulated {
    kind: LabKind,
    profile: Profile,
    ends: Ends,
    log: Option<String>,
}

/// What the program is asked to do inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    Measure { ends: Ends, case: Box<Case> },
    Propagate { star: Star, case: Box<Case> },
    Connect { ends: Ends, case: ConnectCase },
}

impl Emulated {
    /// A lab of a kind (`virtual`, `netem`) with a profile by its name or file. Starts nothing.
    ///
    /// # Errors
    /// [`BenchError::Plan`] if there's no such lab or profile, or the profile is at fault.
    pub fn new(kind: &str, profile: &str) -> Result<Self, BenchError> {
        let wrong = |error: &dyn std::error::Error| BenchError::Plan { what: error.to_string() };
        let kind: LabKind = kind.parse().map_err(|error| wrong(&error))?;
        let profile = Profile::load(profile).map_err(|error| wrong(&error))?;
        // A pair has the same hosts, without those of the rival.
        let plan = Plan::new(&profile, Topology::Shared).map_err(|error| wrong(&error))?;
        let [asking, answering, from, to] = plan.hosts() else {
            return Err(BenchError::Plan { what: "a shared bottleneck has four hosts".into() });
        };
        let ends = Ends {
            asking: place(asking),
            answering: place(answering),
            rival: Some([place(from), place(to)]),
            events: profile.events().iter().filter_map(|event| Some([event.at, event.until?])).collect(),
            event_interval: EVENT_INTERVAL,
        };
        Ok(Self { kind, profile, ends, log: None })
    }

    /// Tasks that each end's runtime polls between two looks at its sockets and timers, 1 at least; 4 by default.
    #[must_use]
    pub fn event_interval(mut self, polls: u32) -> Self {
        self.ends.event_interval = polls;
        self
    }

    /// What the inner end logs, as `PEERLANE_LOG` has it.
    #[must_use]
    pub fn log(mut self, filter: &str) -> Self {
        self.log = Some(filter.to_owned());
        self
    }

    /// The hosts of a star, if the profile can be one's.
    fn star(&self) -> Result<Star, BenchError> {
        let plan = Plan::new(&self.profile, STAR).map_err(|error| BenchError::Plan { what: error.to_string() })?;
        Ok(Star { places: plan.hosts().iter().map(place).collect(), event_interval: self.ends.event_interval })
    }

    fn failed(&self, case: impl std::fmt::Display) -> impl Fn(String) -> BenchError {
        let case = format!("{case}, profile {}", self.profile.name());
        move |what| BenchError::Emulation { case: case.clone(), what }
    }

    /// Why there's no lab. One that this machine can't have is the plan's fault, and the remedy is said.
    fn blame(&self, error: NetemError, case: impl std::fmt::Display) -> BenchError {
        match error {
            NetemError::Interrupted => BenchError::Interrupted,
            NetemError::Unavailable { .. } => BenchError::Plan { what: error.to_string() },
            NetemError::Setup { .. } | NetemError::Died { .. } | NetemError::Spawn { .. } => {
                let sick = doctor().into_iter().find(|diagnosis| diagnosis.lab == self.kind).and_then(|diagnosis| diagnosis.trouble);
                match sick {
                    Some((reason, remedy)) => {
                        BenchError::Plan { what: format!("the {} lab can't be had here: {reason}; remedy: {remedy}", self.kind) }
                    }
                    None => self.failed(case)(error.to_string()),
                }
            }
            error => self.failed(case)(error.to_string()),
        }
    }

    fn network(&self, outcome: Outcome) -> Network {
        let queue = |queue: peerlane_netem::QueueStats| {
            let (of_profile, direction) = match queue.direction == Direction::Forward.name() {
                true => (Direction::Forward, measurement::Direction::Forward),
                false => (Direction::Backward, measurement::Direction::Backward),
            };
            let loss_set = if queue.bottleneck { self.profile.direction(of_profile).loss.mean() } else { 0.0 };
            let (packets, bytes, drops) = (queue.packets, queue.bytes, queue.drops);
            Queue { direction, bottleneck: queue.bottleneck, packets, bytes, drops, loss_set }
        };
        Network {
            kernel: outcome.kernel,
            queues: outcome.queues.into_iter().map(queue).collect(),
            scheduled: !self.profile.events().is_empty(),
            lab_seconds: outcome.lab_seconds,
            wall_seconds: outcome.wall_seconds,
        }
    }
}

impl Lab for Emulated {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn profile(&self) -> &str {
        self.profile.name()
    }

    fn rates_mbps(&self) -> Option<[f64; 2]> {
        Some([Direction::Forward, Direction::Backward].map(|direction| self.profile.direction(direction).rate as f64 / 1e6))
    }

    fn last_event(&self) -> Option<Duration> {
        self.profile.times().into_iter().max()
    }

    fn threads(&self, kind: Kind) -> String {
        match (kind, self.star()) {
            (Kind::Propagate, Ok(star)) => star.threads(),
            _ => self.ends.threads(),
        }
    }

    fn permits(&self, plan: &BenchPlan) -> Result<(), BenchError> {
        if plan.workload.kind == Kind::Propagate { self.star().map(drop) } else { Ok(()) }
    }

    fn check(&self, plan: &BenchPlan, stop: &CancellationToken) -> Result<Option<Vec<String>>, BenchError> {
        let mut topologies: Vec<_> = plan.rivals.iter().map(|rival| topology(plan.workload.kind, *rival)).collect();
        topologies.dedup();
        let mut red = Vec::new();
        for topology in topologies {
            let interrupt = Arc::new(AtomicBool::new(false));
            let prepare = |run: Run| run.limit(LIMIT).interrupt(interrupt.clone());
            let checked = until(stop, &interrupt, || check(self.kind, &self.profile, &self.profile, topology, prepare));
            let report = checked.map_err(|error| self.blame(error, "the lab's check"))?;
            let wrong = report.findings.iter().filter(|finding| !finding.ok);
            red.extend(wrong.map(|it| format!("{topology} {} {}: {}, measured {}", it.path, it.what, it.expected, it.measured)));
            if report.findings.is_empty() {
                red.push(format!("{topology}: the check found nothing to measure"));
            }
        }
        Ok(Some(red))
    }

    fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError> {
        let work = &case.workload;
        let limit = LIMIT + (work.warm_up + work.duration + work.grace) * SLOWEST;
        let case_too = Box::new(case.clone());
        let order = match work.kind {
            Kind::Propagate => Order::Propagate { star: self.star()?, case: case_too },
            _ => Order::Measure { ends: self.ends.clone(), case: case_too },
        };
        let (mut measured, network, log): (Measurement, _, _) = self.play(&order, case, topology(work.kind, case.rival), limit, stop)?;
        (measured.network, measured.log) = (Some(network), log);
        Ok(measured)
    }

    fn connect(&self, case: &ConnectCase, stop: &CancellationToken) -> Result<Connected, BenchError> {
        let order = Order::Connect { ends: self.ends.clone(), case: case.clone() };
        let limit = LIMIT + DIAL * case.dials * SLOWEST;
        let (mut connected, network, log): (Connected, _, _) = self.play(&order, case.variant, Topology::Pair, limit, stop)?;
        (connected.network, connected.log) = (Some(network), log);
        Ok(connected)
    }
}

impl Emulated {
    /// Makes the network, has this very program play both ends in it, and reads what it measured; and the inner end's log.
    fn play<R: DeserializeOwned>(
        &self,
        order: &Order,
        case: impl std::fmt::Display + Copy,
        topology: Topology,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(R, Network, String), BenchError> {
        let failed = self.failed(case);
        let directory = tempfile::tempdir().map_err(|error| failed(format!("no temporary directory: {error}")))?;
        let directory = directory.path();
        write(&directory.join(ORDER), order).map_err(&failed)?;
        let program = std::env::current_exe().map_err(|error| failed(format!("this program's file: {error}")))?;

        let interrupt = Arc::new(AtomicBool::new(false));
        let run = [&*program.to_string_lossy(), "bench", "--in-lab", &*directory.to_string_lossy()];
        let mut run = Run::new(self.kind, &self.profile, topology, run)
            .write_to(directory)
            .output(directory)
            .limit(limit)
            .interrupt(interrupt.clone());
        if let Some(filter) = &self.log {
            run = run.env("PEERLANE_LOG", filter);
        }
        if !std::io::stderr().is_terminal() {
            // Within, it's a console.
            run = run.env("NO_COLOR", "1");
        }
        let outcome = until(stop, &interrupt, || run.start()).map_err(|error| self.blame(error, case))?;
        let log = String::from_utf8_lossy(&fs::read(directory.join("stderr")).unwrap_or_default()).into_owned();
        if outcome.code != 0 {
            return Err(failed(format!("exit code {} in the lab: {}", outcome.code, log.trim())));
        }
        let measured = read(&directory.join(MEASURED)).map_err(&failed)?;
        Ok((measured, self.network(outcome), log))
    }
}

fn place(host: &Host) -> Place {
    Place { namespace: Some(Path::new(NAMESPACES).join(&host.namespace)), address: host.address.into() }
}

/// Two hosts, four with a rival, or a star.
fn topology(kind: Kind, rival: Rival) -> Topology {
    match (kind, rival) {
        (Kind::Propagate, _) => STAR,
        (_, Rival::None) => Topology::Pair,
        _ => Topology::Shared,
    }
}

/// Raises the flag if `stop` is cancelled while the work goes on.
fn until<T>(stop: &CancellationToken, flag: &AtomicBool, work: impl FnOnce() -> T) -> T {
    let over = CancellationToken::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Without a runtime Ctrl-C still ends the process at the second time, and the lab with it.
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
            if runtime.block_on(over.run_until_cancelled(stop.cancelled())).is_some() {
                flag.store(true, Ordering::Relaxed);
            }
        });
        let _over = over.clone().drop_guard();
        work()
    })
}

/// Plays both ends, inside a lab: the order is in the directory, and what was measured is written there.
///
/// # Errors
/// [`BenchError::File`] for order or measurement, and what a [`Lab`] gives.
pub fn play_inside(directory: &Path) -> Result<(), BenchError> {
    let failed = |what| BenchError::Emulation { case: "in the lab".into(), what };
    let order: Order = read(&directory.join(ORDER)).map_err(failed)?;
    let never = CancellationToken::new();
    let measured = directory.join(MEASURED);
    match order {
        Order::Measure { ends, case } => write(&measured, &ends.measure(&case, &never)?),
        Order::Propagate { star, case } => write(&measured, &star.measure(&case, &never)?),
        Order::Connect { ends, case } => write(&measured, &ends.connect(&case, &never)?),
    }
    .map_err(failed)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_vec(value).map_err(std::io::Error::from);
    text.and_then(|text| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, String> {
    let read = || -> std::io::Result<T> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().map_err(|error| format!("{}: {error}", path.display()))
}
