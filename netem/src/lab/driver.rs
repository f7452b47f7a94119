//! What moves while a lab stands: the profile's schedule, and delays that wander.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::LabKind;
use super::emulated::Remote;
use super::session::run;
use crate::plan::{Egress, Plan, Stage, Step, TICK, Wander};

/// Moves them, until it's stopped.
pub(crate) struct Driver {
    stop: mpsc::Sender<()>,
    worker: thread::JoinHandle<Vec<(f64, String)>>,
}

impl Driver {
    /// Starts now, in this lab; the schedule too, if it's wanted.
    pub(crate) fn start(lab: LabKind, plan: &Plan, schedule: bool) -> Self {
        let plan = plan.clone();
        let (stop, stopped) = mpsc::channel();
        let worker = thread::spawn(move || drive(lab, &plan, schedule, &stopped));
        Self { stop, worker }
    }

    /// Stops it where it is; what the schedule changed, with the seconds after its start.
    pub(crate) fn stop(self) -> Vec<(f64, String)> {
        drop(self.stop);
        self.worker.join().unwrap_or_default()
    }
}

fn drive(lab: LabKind, plan: &Plan, schedule: bool, stopped: &mpsc::Receiver<()>) -> Vec<(f64, String)> {
    let start = Instant::now();
    let mut times = if schedule { plan.profile().times() } else { Vec::new() }.into_iter().peekable();
    let mut wanders = plan.wanders();
    if times.peek().is_none() && wanders.is_empty() {
        return Vec::new();
    }
    let mut hands = match Hands::new(lab) {
        Ok(hands) => hands,
        Err(error) => return vec![(0.0, format!("failed: {error}"))],
    };
    let (mut made, mut ticks) = (Vec::new(), 0u32);
    loop {
        let tick = (!wanders.is_empty()).then(|| TICK * (ticks + 1));
        let change = times.peek().copied();
        let Some(next) = [tick, change].into_iter().flatten().min() else { break };
        let wait = next.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return made;
        }
        if change == Some(next) {
            times.next();
            made.extend(hands.change(plan, next).into_iter().map(|line| (start.elapsed().as_secs_f64(), line)));
        }
        if tick == Some(next) {
            ticks += 1;
            hands.tick(plan, &mut wanders, if schedule { next } else { Duration::ZERO });
        }
    }
    made
}

/// What moves the network.
enum Hands {
    /// The kernel's netem.
    Tc(Writers),
    Emulator(Remote),
}

impl Hands {
    fn new(lab: LabKind) -> std::io::Result<Self> {
        match lab {
            LabKind::Tun => Remote::connect().map(Self::Emulator),
            _ => Ok(Self::Tc(Writers::default())),
        }
    }

    /// Makes the changes of a time of the schedule; a line for each.
    fn change(&mut self, plan: &Plan, time: Duration) -> Vec<String> {
        match self {
            Self::Tc(_) => plan.change(time).iter().map(line).collect(),
            Self::Emulator(remote) => {
                let bottlenecks = plan.egresses().iter().enumerate().filter(|(_, egress)| egress.stage == Stage::Bottleneck);
                let made = bottlenecks.map(|(index, egress)| match remote.set(index, time, None) {
                    Ok(()) => format!("{} {}: as the profile has it from {time:?} on", egress.namespace, egress.device),
                    Err(error) => format!("failed: the emulator: {error}"),
                });
                made.collect()
            }
        }
    }

    fn tick(&mut self, plan: &Plan, wanders: &mut [(&Egress, Wander)], time: Duration) {
        match self {
            Self::Tc(writers) => writers.tick(plan, wanders, time),
            Self::Emulator(remote) => {
                for (egress, wander) in wanders {
                    let delay = wander.step();
                    let Some(index) = plan.egresses().iter().position(|other| other == *egress) else { continue };
                    // If it's dead, so is the lab.
                    let _ = remote.set(index, time, Some(delay));
                }
            }
        }
    }
}

fn line(step: &Step) -> String {
    match run(step) {
        Ok(()) => step.to_string(),
        Err(what) => format!("failed: {what}"),
    }
}

/// One `tc` for each namespace, which takes its commands line by line: starting one every few milliseconds would cost
/// more than it does.
#[derive(Default)]
struct Writers(HashMap<String, Option<(Child, ChildStdin)>>);

impl Writers {
    fn tick(&mut self, plan: &Plan, wanders: &mut [(&Egress, Wander)], time: Duration) {
        for (egress, wander) in wanders {
            let step = plan.moved(egress, time, wander.step());
            let Some((_, input)) = self.0.entry(egress.namespace.clone()).or_insert_with(|| start(&egress.namespace)) else { continue };
            // `tc -n NAMESPACE` is said already.
            let line = step.argv.get(3..).unwrap_or_default().join(" ");
            // If it's dead, the delay stays where it is; the functional check would see it.
            let _ = writeln!(input, "{line}");
        }
    }
}

fn start(namespace: &str) -> Option<(Child, ChildStdin)> {
    let command = ["-n", namespace, "-force", "-batch", "-"];
    let mut child = Command::new("tc").args(command).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().ok()?;
    let input = child.stdin.take()?;
    Some((child, input))
}

impl Drop for Writers {
    fn drop(&mut self) {
        for (mut child, input) in self.0.drain().filter_map(|(_, writer)| writer) {
            drop(input);
            let _ = child.wait();
        }
    }
}
