//! `lab check`: a table of what was measured against what was said, and an exit code.

use peerlane_netem::check::{Finding, Report, check_here, check_patiently};
use peerlane_netem::plan::{Plan, Topology};
use peerlane_netem::profile::Profile;
use peerlane_netem::{LabError, LabKind};

use super::Machine;
use super::commands::{Failure, failed, interrupts, load, wrong_use};

/// The exit code of a check whose emulator was late again and again: neither green nor red.
const LATE: u8 = 3;

/// What's asked for.
pub(super) struct Request {
    pub(super) lab: LabKind,
    pub(super) profiles: Vec<String>,
    pub(super) topology: Topology,
    pub(super) lie: Option<String>,
    pub(super) json: Option<String>,
    pub(super) machine: Machine,
}

pub(super) fn run(request: &Request) -> Result<u8, Failure> {
    let names: Vec<String> = match request.profiles.as_slice() {
        [all] if all == "all" => Profile::names().map(str::to_owned).collect(),
        names => names.to_vec(),
    };
    // All are judged before the first lab is made.
    let profiles = names.iter().map(|name| load(name)).collect::<Result<Vec<_>, _>>()?;
    let lie = request.lie.as_deref().map(load).transpose()?;
    for profile in profiles.iter().chain(&lie) {
        Plan::new(profile, request.topology).map_err(|error| wrong_use(error.to_string()))?;
    }
    let interrupt = interrupts()?;
    let mut reports: Vec<Report> = Vec::new();
    let (mut red, mut late) = (0, 0);
    for profile in &profiles {
        let built = lie.as_ref().unwrap_or(profile);
        let prepare =
            |run: peerlane_netem::Run| run.memory(request.machine.memory).limit(request.machine.limit()).interrupt(interrupt.clone());
        match check_patiently(request.lab, built, profile, request.topology, prepare) {
            Ok(report) => {
                print(&report, built.name());
                late += usize::from(report.rejected.is_some());
                red += usize::from(report.rejected.is_none() && !report.ok());
                reports.push(report);
            }
            Err(LabError::Interrupted) => return Err(LabError::Interrupted.into()),
            Err(error @ LabError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                println!("{}: FAILED: {error}", profile.name());
                red += 1;
            }
        }
    }
    if let Some(path) = &request.json {
        let text = serde_json::to_string_pretty(&reports).map_err(failed)?;
        std::fs::write(path, text + "\n").map_err(|error| failed(format!("{path}: {error}")))?;
    }
    let rejected = if late > 0 { format!(", {late} rejected, the emulator was late") } else { String::new() };
    println!("{} of {} profiles as they say, lab {}{rejected}", profiles.len() - red - late, profiles.len(), request.lab);
    Ok(if red > 0 { 1 } else { LATE * u8::from(late > 0) })
}

/// The lab in which this runs.
pub(super) fn here(lab: LabKind, profiles: &[String], topology: Topology) -> Result<u8, Failure> {
    let [name] = profiles else { return Err(wrong_use("within a lab, one profile can be measured")) };
    let plan = Plan::new(&load(name)?, topology).map_err(|error| wrong_use(error.to_string()))?;
    let findings = check_here(lab, &plan);
    findings.iter().for_each(line);
    Ok(u8::from(findings.is_empty() || findings.iter().any(|finding| !finding.ok)))
}

fn print(report: &Report, built: &str) {
    let lie = if built == report.profile { String::new() } else { format!(", built as {built}") };
    println!(
        "{}, {}, lab {} (Linux {}){lie}: {} in {:.1} s{}",
        report.profile,
        report.topology,
        report.lab,
        report.kernel,
        match &report.rejected {
            Some(why) => format!("REJECTED, the emulator was late ({why})"),
            None => if report.ok() { "ok" } else { "RED" }.to_owned(),
        },
        report.wall_seconds,
        if report.tries > 1 { format!(", try {}", report.tries) } else { String::new() }
    );
    report.findings.iter().for_each(line);
    if let Some(late) = &report.lateness {
        let (p99, max) = (late.p99_us / 1e3, late.max_us / 1e3);
        println!("  lateness of {} packets: p99 {p99:.3} ms, at most {max:.3} ms, {} above 5 ms", late.packets, late.above_5ms);
    }
}

fn line(finding: &Finding) {
    let mark = if finding.ok { "  ok " } else { "  RED" };
    println!("{mark} {:<6} {:<34} {:<28} {}", finding.path, finding.what, finding.expected, finding.measured);
}
