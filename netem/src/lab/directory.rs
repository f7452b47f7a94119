//! A job's directory on the host: locked while its owner lives, so that a dead one's can be told and removed.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::LabError;

const PREFIX: &str = "peerlane-lab-";
const LOCK: &str = "lock";

/// Removed when it's dropped.
#[derive(Debug)]
pub(super) struct JobDirectory {
    directory: TempDir,
    _lock: File,
}

impl JobDirectory {
    pub(super) fn new() -> Result<Self, LabError> {
        clean();
        let place = place();
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&place).map_err(LabError::file(&place))?;
        let path = directory.path().join(LOCK);
        let lock = File::create(&path).map_err(LabError::file(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| LabError::file(&path)(error.into()))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The temporary directory; but a lab without root covers /run.
fn place() -> PathBuf {
    let place = env::temp_dir();
    if place.starts_with("/run") && !rustix::process::geteuid().is_root() { PathBuf::from("/tmp") } else { place }
}

/// Removes the directories of runs that were killed. Their processes died with them. Returns how many there were.
pub(super) fn clean() -> usize {
    let entries = fs::read_dir(place()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
    ours.filter(|entry| {
        // One that has no lock file yet is being made.
        let dead = File::open(entry.path().join(LOCK)).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
        dead && fs::remove_dir_all(entry.path()).is_ok()
    })
    .count()
}
