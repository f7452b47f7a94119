//! Whether a lab does what its profile says: measured with packets of our own and the qdiscs' counters, not believed.
//!
//! For each path of the topology, one after the other on an otherwise idle network:
//!
//! * *delay*: sparse packets, their one-way delays and how they scatter;
//! * *loss*: small packets, as many as full ones fit: how many are missing, in what runs, whether the qdisc counted them,
//!   how many came twice or out of order;
//! * *rate* and *queue*: twice the rate for a while: what gets through, and how long it waits when the queue is full;
//!   then more packets at once than the queue holds: how many get through;
//! * *segments*: a TCP transfer: whether more than a frame travels at once;
//! * *schedule*: pairs of packets across its events: what's lost when, and the rate from the pairs' distances.

mod flow;
mod inside;
mod judge;
mod measure;
mod patterns;
mod probe;
mod schedule;
mod summary;

use std::fs;

use peerlane_tun::Lateness;
use serde::{Deserialize, Serialize};

use crate::lab::{LabError, LabKind, Run};
use crate::plan::Topology;
use crate::profile::Profile;

pub use inside::check_here;
pub(crate) use inside::start as probe;
pub use measure::{Measured, Way, measure};

/// One thing that was measured against the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `a->b`.
    pub path: String,
    /// What: `delay`, `loss`, `rate`.
    pub what: String,
    /// What the profile says, with the tolerance.
    pub expected: String,
    /// What was measured.
    pub measured: String,
    /// Whether it is so.
    pub ok: bool,
}

/// All that was measured in one lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The lab.
    pub lab: LabKind,
    /// The profile that it was measured against.
    pub profile: String,
    /// The topology.
    pub topology: String,
    /// The lab's kernel.
    pub kernel: String,
    /// Real seconds that it took.
    pub wall_seconds: f64,
    /// The findings.
    pub findings: Vec<Finding>,
    /// How late the tun lab's emulator was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lateness: Option<Lateness>,
    /// The emulator was late, and why that's too late: the findings prove nothing, either way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rejected: Option<String>,
    /// Which try it is, 1 for the first: see [`check_patiently`].
    #[serde(default)]
    pub tries: u32,
}

impl Report {
    /// Whether everything is as the profile says, and was measured in time.
    pub fn ok(&self) -> bool {
        self.rejected.is_none() && !self.findings.is_empty() && self.findings.iter().all(|finding| finding.ok)
    }
}

/// What the inner end is told, in its directory.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    lab: LabKind,
    profile: (String, String),
    topology: String,
}

const ORDER: &str = "order.json";
const FINDINGS: &str = "findings.json";

/// How often a check is made whose emulator was late: the machine may be busy for a moment.
const TRIES: u32 = 3;

/// [`check`], and in real time with patience: one that was late is repeated, three times in all, and one that's red once,
/// because the probes that measure may have had no processor. A lab that lies does so again.
pub fn check_patiently(
    lab: LabKind,
    built: &Profile,
    claimed: &Profile,
    topology: Topology,
    prepare: impl Fn(Run) -> Run,
) -> Result<Report, LabError> {
    let mut was_red = false;
    let mut tries = 1;
    loop {
        let report = Report { tries, ..check(lab, built, claimed, topology, &prepare)? };
        let is_late = report.rejected.is_some();
        let is_doubted = !report.ok() && !is_late && !was_red && lab.is_real_time();
        if tries == TRIES || !(is_late || is_doubted) {
            return Ok(report);
        }
        was_red |= is_doubted;
        tries += 1;
    }
}

/// Makes a lab by one profile and measures it against another, normally the same. `prepare` may set the run's limits.
pub fn check(
    lab: LabKind,
    built: &Profile,
    claimed: &Profile,
    topology: Topology,
    prepare: impl FnOnce(Run) -> Run,
) -> Result<Report, LabError> {
    let directory = tempfile::tempdir().map_err(LabError::file(std::env::temp_dir()))?;
    let directory = directory.path();
    let order = Order { lab, profile: (format!("{}.toml", claimed.name()), claimed.text().to_owned()), topology: topology.to_string() };
    let text = serde_json::to_vec(&order).map_err(|error| LabError::file(directory)(error.into()))?;
    fs::write(directory.join(ORDER), text).map_err(LabError::file(directory))?;
    // The schedule is started by the check itself, when it comes to it.
    let run = Run::new(lab, built, topology, [String::new()]).schedule(false).write_to(directory);
    let outcome = prepare(run).inner(["probe", "check", &directory.to_string_lossy()])?.start()?;
    let findings = fs::read(directory.join(FINDINGS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Some(findings) = findings else {
        return Err(LabError::Setup { lab, what: format!("the check ended early, with exit code {}", outcome.code) });
    };
    Ok(Report {
        lab,
        profile: claimed.name().to_owned(),
        topology: topology.to_string(),
        rejected: outcome.rejection(),
        tries: 1,
        kernel: outcome.kernel,
        wall_seconds: outcome.wall_seconds,
        findings,
        lateness: outcome.lateness,
    })
}
