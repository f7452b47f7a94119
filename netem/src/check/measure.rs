//! What a lab does in numbers, judged by nobody: to lay two labs beside each other.

use std::fs;
use std::path::Path as Directory;

use peerlane_tun::Lateness;
use serde::{Deserialize, Serialize};

use super::flow::{Path, Pattern};
use super::summary::Summary;
use super::{ORDER, Order, patterns};
use crate::lab::{LabError, LabKind, Run};
use crate::plan::{Plan, Topology};
use crate::profile::{Direction, FRAME, Impairment, Profile};

const MEASURED: &str = "measured.json";

/// What one way of a path did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// `a->b`.
    pub path: String,
    /// One-way delays of sparse packets, in milliseconds: the 5th, 50th and 95th percentile.
    pub delay_ms: [f64; 3],
    /// The share of small packets that were lost, as many as full ones fit.
    pub loss: f64,
    /// How many a lost packet has with it on average, itself included; 0 without losses.
    pub run: f64,
    /// What got through of twice the rate, in 10^6 bit/s.
    pub rate_mbps: f64,
    /// One-way delay then, in milliseconds.
    pub full_ms: f64,
    /// Packets of a burst that got through.
    pub burst: u64,
}

/// What a lab did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// There, and back unless both ways are alike.
    pub ways: Vec<Way>,
    /// How late the tun lab's emulator was.
    pub lateness: Option<Lateness>,
    /// Why that's too late, if it is.
    pub rejected: Option<String>,
}

/// Makes a lab of a pair and measures it. The schedule isn't run.
pub fn measure(lab: LabKind, profile: &Profile, prepare: impl FnOnce(Run) -> Run) -> Result<Measured, LabError> {
    let directory = tempfile::tempdir().map_err(LabError::file(std::env::temp_dir()))?;
    let directory = directory.path();
    let order =
        Order { lab, profile: (format!("{}.toml", profile.name()), profile.text().to_owned()), topology: Topology::Pair.to_string() };
    let text = serde_json::to_vec(&order).map_err(|error| LabError::file(directory)(error.into()))?;
    fs::write(directory.join(ORDER), text).map_err(LabError::file(directory))?;
    let run = Run::new(lab, profile, Topology::Pair, [String::new()]).schedule(false).write_to(directory);
    let outcome = prepare(run).inner(["probe", "measure", &directory.to_string_lossy()])?.start()?;
    let ways = fs::read(directory.join(MEASURED)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let failed = || LabError::Setup { lab, what: format!("the measurement ended early, with exit code {}", outcome.code) };
    Ok(Measured { ways: ways.ok_or_else(failed)?, rejected: outcome.rejection(), lateness: outcome.lateness })
}

/// The inner end.
pub(super) fn inside(directory: &Directory, lab: LabKind, plan: &Plan) -> Result<(), String> {
    let mut ways = Vec::new();
    let both = if plan.profile().is_symmetric() { 1 } else { 2 };
    for (from, to, direction) in plan.paths().into_iter().take(both) {
        let path = Path { from, to, is_real_time: lab.is_real_time() };
        let name = format!("{}->{}", from.name, to.name);
        ways.push(way(name, &path, plan.profile(), direction).map_err(|error| error.to_string())?);
    }
    let text = serde_json::to_vec(&ways).map_err(|error| error.to_string())?;
    fs::write(directory.join(MEASURED), text).map_err(|error| error.to_string())
}

fn way(name: String, path: &Path<'_>, profile: &Profile, direction: Direction) -> std::io::Result<Way> {
    let said = profile.direction(direction);
    let flow = |pattern: fn(&Impairment) -> Pattern| Ok::<_, std::io::Error>(Summary::of(&path.send(pattern(said), patterns::tail(said))?));
    let (sparse, dense, flood, burst) = (flow(patterns::sparse)?, flow(patterns::dense)?, flow(patterns::flood)?, flow(patterns::burst)?);
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Ok(Way {
        path: name,
        delay_ms: [0.05, 0.5, 0.95].map(|share| ms(sparse.delay(share))),
        loss: dense.lost() as f64 / dense.sent.max(1) as f64,
        run: dense.lost() as f64 / dense.runs.max(1) as f64,
        rate_mbps: flood.pace() * FRAME as f64 * 8.0 / 1e6,
        full_ms: ms(flood.late_delay()),
        burst: burst.arrived,
    })
}
