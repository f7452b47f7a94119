//! Inside a lab: builds the network, runs the command while the schedule goes on, counts.
//!
//! The same in every lab: in the virtual one it runs under a kernel of its own, in the others in namespaces of its own.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use super::LabKind;
use super::driver::Driver;
use super::emulated::Emulated;
use super::job::{Job, Outcome};
use crate::plan::{Plan, Step};
use crate::stats::read_stats;

/// A network that stands.
pub(super) enum Network {
    /// In the kernel, as long as its namespaces are there.
    Kernel,
    /// As long as this is.
    Emulated(Emulated),
}

/// Builds the network.
pub(super) fn build(lab: LabKind, plan: &Plan) -> Result<Network, String> {
    if lab == LabKind::Tun {
        return Emulated::build(plan).map(Network::Emulated);
    }
    plan.steps().iter().try_for_each(run)?;
    Ok(Network::Kernel)
}

/// Runs one step.
pub(super) fn run(step: &Step) -> Result<(), String> {
    let [program, arguments @ ..] = step.argv.as_slice() else { return Ok(()) };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    match output {
        Err(error) => Err(format!("{program} can't be started: {error}")),
        Ok(output) if output.status.success() || step.may_fail => Ok(()),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(format!("`{step}`: {}", words.trim().replace('\n', ", ")))
        }
    }
}

/// Builds the network and runs the job's command in it, with the given standard output and error.
pub(super) fn run_command(job: &Job, stdout: Stdio, stderr: Stdio) -> Outcome {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let failed = |what: String| Outcome { error: Some(what), kernel: kernel.clone(), ..Outcome::default() };
    let plan = match job.plan() {
        Ok(plan) => plan,
        Err(error) => return failed(error.to_string()),
    };
    let network = match build(job.lab, &plan) {
        Ok(network) => network,
        Err(what) => return failed(what),
    };
    let Some((program, arguments)) = job.command.split_first() else { return failed("there's no command".to_owned()) };
    let start = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .envs(job.environment.iter().cloned())
        .envs(plan.environment())
        .env("PEERLANE_LAB", job.lab.name())
        .current_dir(&job.directory)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed(format!("{program} can't be started: {error}")),
    };
    let driver = Driver::start(job.lab, &plan, job.schedule);
    let status = child.wait();
    let lab_seconds = start.elapsed().as_secs_f64();
    let changes = driver.stop();
    let status = match status {
        Ok(status) => status,
        Err(error) => return failed(format!("{program}: {error}")),
    };
    let lateness = match &network {
        Network::Kernel => None,
        Network::Emulated(emulated) => Some(emulated.lateness()),
    };
    match read_stats(job.lab, &plan) {
        Ok(queues) => Outcome { code: code(status), lab_seconds, queues, changes, kernel, lateness, ..Outcome::default() },
        Err(error) => failed(error.to_string()),
    }
}

/// A shell's way to put it: 128 and the signal's number.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
