//! What this machine can do: each lab is tried, not guessed at.

use std::env;
use std::path::Path;
use std::time::Duration;

use super::{LabError, LabKind, Run, machine};
use crate::plan::Topology;
use crate::profile::Profile;

/// What the labs need of a system, and Debian's package of each.
const PROGRAMS: [(&str, &str); 5] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("sysctl", "procps"), ("unshare", "util-linux"), ("nsenter", "util-linux")];
/// Real time that a trial may take: it takes half a second.
const TRIAL: Duration = Duration::from_secs(30);

/// Whether a lab can be had here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which lab.
    pub lab: LabKind,
    /// Nothing if it works; else what's missing, and what would add it.
    pub trouble: Option<(String, String)>,
    /// With what, if it works.
    pub with: String,
}

/// Tries each lab, best first. A second at most each, as a rule.
pub fn doctor() -> Vec<Diagnosis> {
    LabKind::ALL.into_iter().map(diagnose).collect()
}

/// The best lab that this machine has; the reasons, if it has none.
pub fn best() -> Result<LabKind, LabError> {
    let mut reasons = Vec::new();
    for lab in LabKind::ALL {
        match diagnose(lab).trouble {
            None => return Ok(lab),
            Some((reason, _)) => reasons.push(format!("{lab}: {reason}")),
        }
    }
    let remedy = "`netem/lab doctor` names the commands that would add what's missing".to_owned();
    Err(LabError::Unavailable { lab: LabKind::Virtual, reason: format!("nor any other ({})", reasons.join("; ")), remedy })
}

fn diagnose(lab: LabKind) -> Diagnosis {
    let sick = |reason: String, remedy: String| Diagnosis { lab, trouble: Some((reason, remedy)), with: String::new() };
    let needed = if lab == LabKind::Virtual { PROGRAMS.get(..3).unwrap_or_default() } else { &PROGRAMS };
    let missing: Vec<_> = needed.iter().filter(|(program, _)| !is_installed(program)).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        return sick(format!("{} not found", programs.join(", ")), format!("apt-get install {}", packages.join(" ")));
    }
    match trial(lab) {
        Ok(with) => Diagnosis { lab, trouble: None, with },
        Err(LabError::Unavailable { reason, remedy, .. }) => sick(reason, remedy),
        Err(LabError::Setup { what, .. }) if what.contains("qdisc kind is unknown") => {
            sick("this kernel has no netem".to_owned(), "modprobe sch_netem, or a kernel with CONFIG_NET_SCH_NETEM; or --lab virtual".to_owned())
        }
        Err(LabError::Died { status, .. }) if lab != LabKind::Virtual => sick(
            format!("namespaces of its own are refused ({status})"),
            "run it as root, or permit user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 (AppArmor: kernel.apparmor_restrict_unprivileged_userns=0)"
                .to_owned(),
        ),
        Err(error) => sick(error.to_string(), "see netem/README.md".to_owned()),
    }
}

/// Makes the lab, with every option of netem's that the profiles use, and runs nothing in it.
fn trial(lab: LabKind) -> Result<String, LabError> {
    let directory = super::directory::JobDirectory::new()?;
    let profile = Profile::load("wifi-bad")?;
    let outcome = Run::new(lab, &profile, Topology::Pair, ["true"]).limit(TRIAL).output(directory.path()).start()?;
    let kernel = if lab == LabKind::Virtual { machine::kernel()?.display().to_string() } else { "this kernel".to_owned() };
    Ok(format!("{kernel}, Linux {}", outcome.kernel))
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|place| Path::new(place).to_owned()))
        .any(|place| place.join(program).is_file())
}
