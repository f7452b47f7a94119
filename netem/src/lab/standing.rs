//! A lab that stands until it's taken down: `up`, `exec`, `status`, `down`. Only `netem` and `tun` can: a virtual clock
//! runs ahead of whoever types.
//!
//! All of it are the namespaces of one process. Its end, however it comes, is the lab's.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde::{Deserialize, Serialize};

use super::agent::MARK;
use super::job::{self, Job, Outcome};
use super::{LabError, LabKind, directory, emulated, namespaces};
use crate::plan::{Plan, Topology};
use crate::profile::Profile;

/// How long the network may take to build.
const BUILD: Duration = Duration::from_secs(60);
const STATE: &str = "state.json";

/// A lab that stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The outermost process (`unshare`), and when it started in the kernel's ticks: a process ID alone may be another's by now.
    pid: i32,
    started: u64,
    lab: LabKind,
    profile: (String, String),
    topology: String,
}

impl Standing {
    /// Makes one, in a lab of real time.
    pub fn up(lab: LabKind, profile: &Profile, topology: Topology) -> Result<Self, LabError> {
        if !lab.is_real_time() {
            let reason = "its clock runs ahead of whoever types".to_owned();
            return Err(LabError::Unavailable { lab, reason, remedy: "use --lab netem or --lab tun, or `lab run`".to_owned() });
        }
        if let Ok(standing) = Self::find() {
            return Err(LabError::AlreadyUp(standing.describe()));
        }
        clean_up();
        Plan::new(profile, topology)?;
        let directory = place();
        fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
        let job = Job {
            lab,
            profile: (format!("{}.toml", profile.name()), profile.text().to_owned()),
            topology: topology.to_string(),
            command: Vec::new(),
            environment: Vec::new(),
            directory: PathBuf::from("/"),
            writable: Vec::new(),
            schedule: false,
        };
        job.write(&directory)?;
        let agent = env::current_exe().map_err(LabError::file("this program"))?;
        let log = directory.join("log");
        let log = File::create(&log).map_err(LabError::file(log))?;
        let mut child = Command::new("unshare")
            .args(namespaces::arguments(&agent, "hold", &directory))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(LabError::spawn("unshare"))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let standing = Self { pid, started: started(pid).unwrap_or_default(), lab, profile: job.profile, topology: job.topology };
        // Before it stands, so that a `down` finds it even if we're killed now.
        job::write(&directory.join(STATE), &standing)?;
        let begin = Instant::now();
        loop {
            if directory.join(namespaces::READY).exists() {
                return Ok(standing);
            }
            let ended = child.try_wait().map_err(LabError::spawn("unshare"))?;
            if ended.is_some() || begin.elapsed() > BUILD {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                let said = Outcome::read(&directory).ok().and_then(|outcome| outcome.error);
                let what = said.unwrap_or_else(|| log.lines().last().unwrap_or("it left no word").to_owned());
                clean_up();
                return Err(emulated::blame(lab, what));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The one that stands.
    pub fn find() -> Result<Self, LabError> {
        let standing: Self = job::read(&place().join(STATE)).map_err(|_| LabError::NotUp)?;
        if started(standing.pid) == Some(standing.started) { Ok(standing) } else { Err(LabError::NotUp) }
    }

    /// Its network.
    pub fn plan(&self) -> Result<Plan, LabError> {
        let profile = Profile::parse(&self.profile.0, &self.profile.1)?;
        Ok(Plan::new(&profile, self.topology.parse().unwrap_or_default())?)
    }

    /// Which lab it is.
    pub fn lab(&self) -> LabKind {
        self.lab
    }

    /// `wan, pair, lab netem`.
    pub fn describe(&self) -> String {
        format!("{}, {}, lab {}", self.profile.0.trim_end_matches(".toml"), self.topology, self.lab)
    }

    /// A command that enters the lab; what's added to it runs in the lab's root namespace.
    pub fn enter(&self) -> Result<Command, LabError> {
        let inner = children(self.pid).first().copied().ok_or(LabError::NotUp)?;
        let plan = self.plan()?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &inner.to_string()]);
        if !getuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--mount", "--pid", "--"]);
        command.envs(plan.environment()).env("PEERLANE_LAB", self.lab.name());
        Ok(command)
    }

    /// A command that prints what its queues count: for the tun lab, whose queues `tc` doesn't know.
    pub fn counts(&self) -> Result<Command, LabError> {
        let mut command = self.enter()?;
        command.arg(env::current_exe().map_err(LabError::file("this program"))?).args([MARK, "counts"]);
        Ok(command)
    }

    /// Ends it, and waits until it's gone.
    pub fn down(self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let begin = Instant::now();
        while started(self.pid) == Some(self.started) && begin.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_dir_all(place());
    }
}

/// Ends a standing lab, and removes what killed runs left: how many things there were.
pub fn clean_up() -> usize {
    let standing = Standing::find().map(Standing::down).is_ok();
    let state = fs::remove_dir_all(place()).is_ok();
    directory::clean() + usize::from(standing || state)
}

/// Where the standing lab's state is: one for each user.
fn place() -> PathBuf {
    env::temp_dir().join(format!("peerlane-standing-{}", getuid().as_raw()))
}

/// Parent and start time of a process, unless it's dead.
fn stat(pid: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: count from behind it. Fields 3, 4 and 22 of proc(5).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    (state != "Z").then_some((parent, started))
}

fn started(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, started)| started)
}

fn children(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|&process| stat(process).is_some_and(|(parent, _)| parent == pid)).collect()
}
