//! What a lab is asked to do and what it answers: two files in a directory that host and lab both see.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LabError, LabKind};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::stats::QueueStats;
use peerlane_tun::Lateness;

const JOB: &str = "job.json";
const OUTCOME: &str = "outcome.json";

/// What a lab is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) lab: LabKind,
    /// The profile's file name and text: it's read again in the lab.
    pub(super) profile: (String, String),
    pub(super) topology: String,
    /// Program and arguments; empty: stand until killed.
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) directory: PathBuf,
    /// Directories that can be written to.
    pub(super) writable: Vec<PathBuf>,
    /// Whether the schedule starts with the command.
    pub(super) schedule: bool,
}

impl Job {
    pub(super) fn plan(&self) -> Result<Plan, LabError> {
        let profile = Profile::parse(&self.profile.0, &self.profile.1)?;
        let topology = self.topology.parse().unwrap_or_default();
        Ok(Plan::new(&profile, topology)?)
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), LabError> {
        write(&directory.join(JOB), self)
    }

    pub(super) fn read(directory: &Path) -> Result<Self, LabError> {
        read(&directory.join(JOB))
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The command's exit code; 128 and the signal's number if a signal ended it.
    pub code: u8,
    /// Seconds that the command took by the lab's clock.
    pub lab_seconds: f64,
    /// Seconds that the whole took by the host's clock, start and end of the lab included.
    pub wall_seconds: f64,
    /// Each impaired way out at the end: packets, bytes, drops.
    pub queues: Vec<QueueStats>,
    /// The schedule's changes as they were made: seconds after the command's start, and the command.
    pub changes: Vec<(f64, String)>,
    /// The lab's kernel.
    pub kernel: String,
    /// How late the emulator of the tun lab was. A run that was too late proves nothing: [`Outcome::rejection`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lateness: Option<Lateness>,
    /// What went wrong before the command ran.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) error: Option<String>,
}

impl Outcome {
    /// Why nothing that was measured in this run may be believed, if that's so: the emulator was late.
    pub fn rejection(&self) -> Option<String> {
        self.lateness.as_ref().and_then(Lateness::rejection)
    }

    pub(super) fn failed(what: String) -> Self {
        Self { error: Some(what), ..Self::default() }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), LabError> {
        write(&directory.join(OUTCOME), self)
    }

    pub(super) fn read(directory: &Path) -> Result<Self, LabError> {
        read(&directory.join(OUTCOME))
    }
}

/// Whole or not at all.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), LabError> {
    let part = path.with_extension("part");
    let text = serde_json::to_vec(value).map_err(|error| LabError::file(path)(error.into()))?;
    fs::write(&part, text).map_err(LabError::file(&part))?;
    fs::rename(&part, path).map_err(LabError::file(path))
}

pub(super) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, LabError> {
    let text = fs::read(path).map_err(LabError::file(path))?;
    serde_json::from_slice(&text).map_err(|error| LabError::file(path)(error.into()))
}
