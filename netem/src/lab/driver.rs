//! What moves while a lab stands: the profile's schedule, and delays that wander.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::session::run;
use crate::plan::{Egress, Plan, Step, TICK, Wander};

/// Moves them, until it's stopped.
pub(crate) struct Driver {
    stop: mpsc::Sender<()>,
    worker: thread::JoinHandle<Vec<(f64, String)>>,
}

impl Driver {
    /// Starts now, in this lab; the schedule too, if it's wanted.
    pub(crate) fn start(plan: &Plan, schedule: bool) -> Self {
        let plan = plan.clone();
        let (stop, stopped) = mpsc::channel();
        let worker = thread::spawn(move || drive(&plan, schedule, &stopped));
        Self { stop, worker }
    }

    /// Stops it where it is; what the schedule changed, with the seconds after its start.
    pub(crate) fn stop(self) -> Vec<(f64, String)> {
        drop(self.stop);
        self.worker.join().unwrap_or_default()
    }
}

fn drive(plan: &Plan, schedule: bool, stopped: &mpsc::Receiver<()>) -> Vec<(f64, String)> {
    let start = Instant::now();
    let mut changes = if schedule { plan.changes() } else { Vec::new() }.into_iter().peekable();
    let mut wanders = plan.wanders();
    let mut writers = Writers::default();
    let (mut made, mut ticks) = (Vec::new(), 0u32);
    loop {
        let tick = (!wanders.is_empty()).then(|| TICK * (ticks + 1));
        let change = changes.peek().map(|(time, _)| *time);
        let Some(next) = [tick, change].into_iter().flatten().min() else { break };
        let wait = next.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return made;
        }
        if change == Some(next) {
            let (_, steps) = changes.next().unwrap_or_default();
            made.extend(steps.iter().map(|step| (start.elapsed().as_secs_f64(), line(step))));
        }
        if tick == Some(next) {
            ticks += 1;
            let time = if schedule { next } else { Duration::ZERO };
            writers.tick(plan, &mut wanders, time);
        }
    }
    made
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
