//! The `netem` and the `tun` lab: namespaces that die with their first process, so that nothing can be left of one, however it ends.
//! Root isn't needed where user namespaces are permitted.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::agent::MARK;
use super::driver::Driver;
use super::job::{Job, write};
use super::{LabError, LabKind, session};

/// Written when the network stands.
pub(super) const READY: &str = "ready.json";

/// `unshare` and what it runs: the agent as the first process of namespaces of its own.
pub(super) fn arguments(agent: &Path, part: &str, directory: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        arguments.extend(["--user", "--map-root-user"].map(OsString::from));
    }
    arguments.extend(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"].map(OsString::from));
    arguments.push(agent.into());
    arguments.extend([MARK, part].map(OsString::from));
    arguments.push(directory.into());
    arguments
}

/// A place for the names of namespaces that only this lab sees.
pub(super) fn prepare(lab: LabKind) -> Result<(), LabError> {
    let setup = |error| LabError::Setup { lab, what: format!("a place for the namespaces' names: {error}") };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(setup)?;
    // Only over /run/netns where that's possible: programs may need the rest of /run.
    let place = if fs::create_dir_all("/run/netns").is_ok() { "/run/netns" } else { "/run" };
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).map_err(setup)?;
    fs::create_dir_all("/run/netns").map_err(LabError::file("/run/netns"))
}

/// Builds the network, says so, and stands until killed.
pub(super) fn hold(directory: &Path, job: &Job) -> Result<(), LabError> {
    let plan = job.plan()?;
    let _network = session::build(job.lab, &plan).map_err(|what| LabError::Setup { lab: job.lab, what })?;
    let _driver = Driver::start(job.lab, &plan, false);
    write(&directory.join(READY), &())?;
    loop {
        thread::park();
    }
}
