//! The `tun` lab's network: hosts with a TUN device each, and the emulator in the routers' place.
//!
//! Whoever is in the lab's root namespace reaches the emulator by an abstract socket, which only that namespace has: it
//! needs no file, and goes with the process.

use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peerlane_tun::{Counters, Device, Emulator, Jitter, Lateness, Loss, Network, Shape};
use serde::{Deserialize, Serialize};

use super::session::run;
use super::{LabError, LabKind};
use crate::plan::{Plan, Stage};
use crate::profile::{self, Distribution, State};
use crate::stats::QueueStats;

const SOCKET: &[u8] = b"peerlane-tun";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// The kernel's TUN devices, as an error names them.
const TUN: &str = "/dev/net/tun";
const REMEDY: &str = "modprobe tun if it isn't there; run it as root, or permit it to this user: chmod 666 /dev/net/tun; in a container: --device /dev/net/tun; or --lab virtual";

/// Why a lab couldn't be built, said by its inner end: without TUN devices this machine can't have it.
pub(super) fn blame(lab: LabKind, what: String) -> LabError {
    match what.find(TUN).and_then(|at| what.get(at..)).filter(|_| lab == LabKind::Tun) {
        Some(reason) => LabError::Unavailable { lab, reason: reason.to_owned(), remedy: REMEDY.to_owned() },
        None => LabError::Setup { lab, what },
    }
}

/// A network that stands as long as this.
pub(super) struct Emulated {
    emulator: Arc<Emulator>,
    hosts: Vec<String>,
}

impl Emulated {
    /// Makes namespaces, devices, and the emulator between them.
    pub(super) fn build(plan: &Plan) -> Result<Self, String> {
        let (before, after) = plan.host_steps();
        before.iter().try_for_each(run)?;
        let devices: Result<Vec<_>, _> =
            plan.hosts().iter().map(|host| Device::new(&Path::new(NAMESPACES).join(&host.namespace), "to-r")).collect();
        let devices = devices.map_err(|error| error.to_string())?;
        after.iter().try_for_each(run)?;

        let start = |egress: &crate::plan::Egress| shape(&plan.profile().state(egress.direction, Duration::ZERO), egress.stage);
        let addresses = plan.hosts().iter().map(|host| host.address).collect();
        // Another seed for each run: with keys and times that differ anyway, an equal one would promise what isn't so.
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let network = Network::new(addresses, plan.egresses().iter().map(start), |from, to| plan.route(from, to), seed);
        let emulator = Arc::new(Emulator::start(devices, network).map_err(|error| format!("the emulator: {error}"))?);

        let address = SocketAddr::from_abstract_name(SOCKET).map_err(|error| error.to_string())?;
        let listener = UnixListener::bind_addr(&address).map_err(|error| format!("the emulator's socket: {error}"))?;
        let (server, plan_there) = (Arc::clone(&emulator), plan.clone());
        thread::spawn(move || serve(&listener, &server, &plan_there));
        let hosts = plan.hosts().iter().map(|host| host.namespace.clone()).collect();
        Ok(Self { emulator, hosts })
    }

    /// How late it was so far.
    pub(super) fn lateness(&self) -> Lateness {
        let mut lateness = self.emulator.lateness();
        lateness.unread = self.hosts.iter().map(|namespace| dropped(namespace)).sum();
        lateness
    }
}

/// Packets that a host's device dropped: its ring was full.
fn dropped(namespace: &str) -> u64 {
    #[derive(Deserialize)]
    struct Link {
        ifname: String,
        stats64: Stats,
    }
    #[derive(Deserialize)]
    struct Stats {
        tx: Sent,
    }
    #[derive(Deserialize)]
    struct Sent {
        dropped: u64,
    }
    let output = Command::new("ip").args(["-n", namespace, "-s", "-j", "link", "show"]).stdin(Stdio::null()).output();
    let links: Vec<Link> = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    links.iter().filter(|link| link.ifname == "to-r").map(|link| link.stats64.tx.dropped).sum()
}

/// A question to the emulator; a line of JSON each, as the answers are.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Queues,
    Lateness,
    /// A way out, by its number in the plan, is to be as the profile has it at a time of the schedule; if its delay
    /// wanders, with this one. Nanoseconds.
    Set {
        egress: usize,
        time: u64,
        delay: Option<u64>,
    },
}

/// The emulator, from another process in the lab's root namespace.
pub(crate) struct Remote {
    stream: BufReader<UnixStream>,
}

impl Remote {
    pub(crate) fn connect() -> io::Result<Self> {
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(SOCKET)?)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn queues(&mut self) -> io::Result<Vec<QueueStats>> {
        self.ask(&Question::Queues)
    }

    pub(crate) fn lateness(&mut self) -> io::Result<Lateness> {
        self.ask(&Question::Lateness)
    }

    pub(crate) fn set(&mut self, egress: usize, time: Duration, delay: Option<Duration>) -> io::Result<()> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.ask(&Question::Set { egress, time: nanos(time), delay: delay.map(nanos) })
    }

    fn ask<A: for<'a> Deserialize<'a>>(&mut self, question: &Question) -> io::Result<A> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

fn serve(listener: &UnixListener, emulator: &Arc<Emulator>, plan: &Plan) {
    for stream in listener.incoming().flatten() {
        let (emulator, plan) = (Arc::clone(emulator), plan.clone());
        thread::spawn(move || {
            // Whoever asks nonsense, or goes away, is no longer answered.
            let _ = answer(stream, &emulator, &plan);
        });
    }
}

fn answer(stream: UnixStream, emulator: &Emulator, plan: &Plan) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let mut answer = match serde_json::from_str(&line?)? {
            Question::Queues => serde_json::to_vec(&queues(plan, &emulator.counters()))?,
            Question::Lateness => serde_json::to_vec(&emulator.lateness())?,
            Question::Set { egress, time, delay } => {
                if let Some(place) = plan.egresses().get(egress) {
                    let mut state = plan.profile().state(place.direction, Duration::from_nanos(time));
                    state.delay = delay.map(Duration::from_nanos);
                    emulator.reshape(egress, shape(&state, place.stage));
                }
                serde_json::to_vec(&())?
            }
        };
        answer.push(b'\n');
        out.write_all(&answer)?;
    }
    Ok(())
}

/// What the emulator counted, in the words of `tc`.
fn queues(plan: &Plan, counters: &[Counters]) -> Vec<QueueStats> {
    let queue = |(egress, counted): (&crate::plan::Egress, &Counters)| QueueStats {
        namespace: egress.namespace.clone(),
        device: egress.device.clone(),
        direction: egress.direction.name().to_owned(),
        bottleneck: egress.stage == Stage::Bottleneck,
        bytes: counted.left_bytes,
        packets: counted.left,
        drops: counted.dropped(),
        backlog_bytes: counted.held_bytes,
        backlog_packets: counted.held,
    };
    plan.egresses().iter().zip(counters).map(queue).collect()
}

/// Part of an impairment as the emulator has it: what `tc`'s arguments say in the other labs.
fn shape(state: &State, stage: Stage) -> Shape {
    let said = &state.impairment;
    let apart = said.has_delay_stage();
    let delays = Shape {
        delay: state.delay.unwrap_or(said.delay),
        // A delay that wanders is moved by the lab.
        jitter: said.jitter.filter(|jitter| jitter.correlation_time.is_none()).map(|jitter| Jitter {
            spread: jitter.spread,
            distribution: match jitter.distribution {
                Distribution::Uniform => peerlane_tun::Distribution::Uniform,
                Distribution::Normal => peerlane_tun::Distribution::Normal,
                Distribution::Pareto => peerlane_tun::Distribution::Pareto,
                Distribution::ParetoNormal => peerlane_tun::Distribution::ParetoNormal,
            },
        }),
        reorder: said.reorder,
        ..Shape::default()
    };
    match stage {
        Stage::Delay => Shape { limit: said.delay_stage_limit(), ..delays },
        Stage::Bottleneck => Shape {
            loss: match said.loss {
                _ if state.blackhole => Loss::Random(1.0),
                profile::Loss::None => Loss::Random(0.0),
                profile::Loss::Random(share) => Loss::Random(share),
                profile::Loss::Bursts { enter, leave, bad, good } => Loss::Bursts { enter, leave, bad, good },
            },
            duplicate: said.duplicate,
            corrupt: said.corrupt,
            rate: Some(said.rate),
            limit: said.limit(),
            ..if apart { Shape::default() } else { delays }
        },
    }
}

/// Prints what the emulator counts, for `status`.
pub(super) fn print_counts() -> ExitCode {
    let counted = Remote::connect().and_then(|mut remote| Ok((remote.queues()?, remote.lateness()?)));
    match counted {
        Ok((queues, late)) => {
            for queue in queues {
                println!(
                    "{} {} ({}): {} packets, {} bytes, {} dropped, {} inside",
                    queue.namespace, queue.device, queue.direction, queue.packets, queue.bytes, queue.drops, queue.backlog_packets
                );
            }
            println!(
                "lateness of {} packets: median {:.0} us, p99 {:.0} us, at most {:.0} us; {} above 5 ms{}",
                late.packets,
                late.p50_us,
                late.p99_us,
                late.max_us,
                late.above_5ms,
                if late.realtime { "" } else { "; no real-time priority" }
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the emulator doesn't answer: {error}");
            ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::plan::Topology;
    use crate::profile::Profile;

    fn shapes(name: &str) -> Vec<Shape> {
        let plan = Plan::new(&Profile::load(name).unwrap(), Topology::Pair).unwrap();
        plan.egresses().iter().map(|egress| shape(&plan.profile().state(egress.direction, Duration::ZERO), egress.stage)).collect()
    }

    #[test]
    fn a_shape_says_what_tc_is_told() {
        let wan = Shape { delay: Duration::from_millis(25), rate: Some(50_000_000), limit: 314, ..Shape::default() };
        assert_eq!(shapes("wan"), [wan, wan]);
        assert_eq!(shapes("wan-loss1")[0], Shape { loss: Loss::Random(0.01), ..wan });
        assert_eq!(shapes("wan-jitter-correlated")[0], wan, "the lab moves the delay itself");
        let jitter = Some(Jitter { spread: Duration::from_millis(5), distribution: peerlane_tun::Distribution::Uniform });
        assert_eq!(shapes("wan-jitter")[0], Shape { jitter, ..wan });
        // Backward and forward, each at its bottleneck.
        assert_eq!(
            shapes("satellite").iter().map(|shape| (shape.rate, shape.limit)).collect::<Vec<_>>(),
            [(Some(5_000_000), 375), (Some(20_000_000), 1500)]
        );
    }

    #[test]
    fn jitter_that_mixes_the_order_is_a_stage_without_a_rate() {
        let shapes = shapes("wan-reorder");
        let stages: Vec<_> =
            shapes.iter().map(|shape| (shape.rate, shape.delay.as_millis(), shape.jitter.is_some(), shape.limit)).collect();
        assert_eq!(
            stages,
            [(Some(50_000_000), 0, false, 209), (Some(50_000_000), 0, false, 209), (None, 25, true, 1376), (None, 25, true, 1376)]
        );
    }
}
