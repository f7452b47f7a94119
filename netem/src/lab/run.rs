//! A command in a lab of its own, from the host's side.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::agent::MARK;
use super::directory::JobDirectory;
use super::job::{Job, Outcome};
use super::{LabError, LabKind, emulated, machine, namespaces};
use crate::plan::{Plan, Topology};
use crate::profile::Profile;

/// The kernel's log in the job's directory.
const LOG: &str = "kernel.log";
/// How often the host looks whether the lab has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Memory of the virtual lab's machine, in MiB; pages that it never uses cost nothing.
const MEMORY: u32 = 512;
/// Real time that a run may take.
const LIMIT: Duration = Duration::from_secs(600);
/// What the virtual lab's command gets of the host's environment, beside PEERLANE_*.
const PASSED: [&str; 8] = ["HOME", "USER", "LANG", "TERM", "RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "LD_LIBRARY_PATH"];

/// A command in a lab of its own: built for it, gone after it.
///
/// Standard output and error of the command come out where [`Run::output`] says, its input is empty. It runs in the
/// lab's root namespace; `ip netns exec peerlane-a PROGRAM` enters a host's, and the environment names them
/// ([`Plan::environment`](crate::plan::Plan::environment)).
///
/// # Examples
///
/// ```no_run
/// use peerlane_netem::{LabKind, Run, plan::Topology, profile::Profile};
///
/// let profile = Profile::load("wan-loss1")?;
/// let outcome = Run::new(LabKind::Virtual, &profile, Topology::Pair, ["ip", "netns", "exec", "peerlane-a", "ping", "-c1", "10.77.2.2"])
///     .write_to("results")
///     .start()?;
/// println!("exit code {} after {} virtual seconds", outcome.code, outcome.lab_seconds);
/// # Ok::<(), peerlane_netem::LabError>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `start`"]
pub struct Run {
    lab: LabKind,
    profile: Profile,
    topology: Topology,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    writable: Vec<PathBuf>,
    files: Option<PathBuf>,
    agent: Option<PathBuf>,
    memory: u32,
    limit: Duration,
    schedule: bool,
    interrupt: Arc<AtomicBool>,
}

impl Run {
    /// A command with its arguments, for a lab that isn't made yet.
    pub fn new<S: Into<String>>(lab: LabKind, profile: &Profile, topology: Topology, command: impl IntoIterator<Item = S>) -> Self {
        Self {
            lab,
            profile: profile.clone(),
            topology,
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            writable: Vec::new(),
            files: None,
            agent: None,
            memory: MEMORY,
            limit: LIMIT,
            schedule: true,
            interrupt: Arc::default(),
        }
    }

    /// A directory that the command can write to, in the same place as on the host (it is made if it isn't there).
    /// Elsewhere the virtual lab has only /run, which is gone with it.
    pub fn write_to(mut self, directory: impl Into<PathBuf>) -> Self {
        self.writable.push(directory.into());
        self
    }

    /// A variable for the command.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The command's output and errors go to `stdout` and `stderr` in this directory, instead of the host's own.
    pub fn output(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files = Some(directory.into());
        self
    }

    /// The program that plays the lab's inner ends, by calling [`enter`](crate::enter) first: by default the one that runs.
    pub fn agent(mut self, program: impl Into<PathBuf>) -> Self {
        self.agent = Some(program.into());
        self
    }

    /// Memory of the virtual lab's machine in MiB, 512 by default.
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// The most real time that it may take, 600 s by default. A command that never sleeps stands still in virtual time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whether the profile's schedule starts with the command, as it does by default, or isn't wanted.
    pub fn schedule(mut self, wanted: bool) -> Self {
        self.schedule = wanted;
        self
    }

    /// The run ends soon after this becomes true.
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = flag;
        self
    }

    /// The command is the agent itself, in one of its parts.
    pub(crate) fn inner(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, LabError> {
        let agent = self.program()?.to_string_lossy().into_owned();
        self.command = [agent, MARK.to_owned()].into_iter().chain(words.into_iter().map(Into::into)).collect();
        Ok(self)
    }

    fn program(&self) -> Result<PathBuf, LabError> {
        match &self.agent {
            Some(agent) => agent.canonicalize().map_err(LabError::file(agent)),
            None => env::current_exe().map_err(LabError::file("this program")),
        }
    }

    /// Makes the lab, runs the command, and waits for its end. Blocks the thread: the lab dies with it.
    pub fn start(self) -> Result<Outcome, LabError> {
        let start = Instant::now();
        Plan::new(&self.profile, self.topology)?;
        let directory = JobDirectory::new()?;
        let mut writable = Vec::new();
        for path in self.writable.iter().chain(&self.files) {
            fs::create_dir_all(path).map_err(LabError::file(path))?;
            writable.push(path.canonicalize().map_err(LabError::file(path))?);
        }
        self.job(writable)?.write(directory.path())?;
        let mut command = self.command(directory.path())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut lab = Lab(command.spawn().map_err(LabError::spawn(program))?);
        // Held until the end: in `netem` and `tun`, its closing is how the lab learns of ours.
        let _stdin = lab.0.stdin.take();
        let relays = self.relays(&mut lab.0)?;
        let status = self.wait(&mut lab.0, start)?;
        for relay in relays {
            let _ = relay.join();
        }
        let mut outcome = self.outcome(directory.path(), status)?;
        outcome.wall_seconds = start.elapsed().as_secs_f64();
        Ok(outcome)
    }

    fn job(&self, writable: Vec<PathBuf>) -> Result<Job, LabError> {
        let mut environment = Vec::new();
        if self.lab == LabKind::Virtual {
            let passed = |name: &str| PASSED.contains(&name) || (name.starts_with("PEERLANE_") && !name.starts_with("PEERLANE_LAB"));
            environment.extend(env::vars().filter(|(name, _)| passed(name)));
            let path = env::var("PATH").unwrap_or_default();
            environment.push(("PATH".to_owned(), format!("{path}:{}", machine::SYSTEM)));
            environment.push(("TMPDIR".to_owned(), "/run".to_owned()));
            // Giving memory back to the kernel and asking for it again makes quinn several times slower there.
            environment.push(("MALLOC_TRIM_THRESHOLD_".to_owned(), "134217728".to_owned()));
            environment.push(("MALLOC_TOP_PAD_".to_owned(), "16777216".to_owned()));
        }
        environment.extend(self.environment.iter().cloned());
        Ok(Job {
            lab: self.lab,
            profile: (format!("{}.toml", self.profile.name()), self.profile.text().to_owned()),
            topology: self.topology.to_string(),
            command: self.command.clone(),
            environment,
            directory: env::current_dir().map_err(LabError::file("."))?,
            writable,
            schedule: self.schedule,
        })
    }

    fn command(&self, directory: &Path) -> Result<Command, LabError> {
        let agent = self.program()?;
        let (program, arguments): (OsString, _) = match self.lab {
            LabKind::Virtual => (machine::kernel()?.into(), machine::arguments(&agent, directory, self.memory)?),
            LabKind::Netem | LabKind::Tun => ("unshare".into(), namespaces::arguments(&agent, "session", directory)),
        };
        let mut command = Command::new(&agent);
        command.args([MARK, "launch", &std::process::id().to_string()]).arg(directory.join(LOG)).arg(program).args(arguments);
        // A group of its own: a terminal's Ctrl-C reaches us, and we end it.
        command.process_group(0);
        if self.lab == LabKind::Virtual {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        } else {
            command.stdin(Stdio::piped());
            if self.files.is_some() {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        Ok(command)
    }

    fn relays(&self, child: &mut Child) -> Result<Vec<JoinHandle<()>>, LabError> {
        let file = |name| -> Result<Option<File>, LabError> {
            let Some(directory) = &self.files else { return Ok(None) };
            let path = directory.join(name);
            OpenOptions::new().create(true).write(true).truncate(true).open(&path).map(Some).map_err(LabError::file(path))
        };
        let mut relays = Vec::new();
        if let Some(from) = child.stdout.take() {
            relays.push(match file("stdout")? {
                Some(file) => relay(from, file),
                None => relay(from, io::stdout()),
            });
        }
        if let Some(from) = child.stderr.take() {
            relays.push(match file("stderr")? {
                Some(file) => relay(from, file),
                None => relay(from, io::stderr()),
            });
        }
        Ok(relays)
    }

    fn wait(&self, child: &mut Child, start: Instant) -> Result<ExitStatus, LabError> {
        loop {
            if let Some(status) = child.try_wait().map_err(LabError::spawn("the lab"))? {
                return Ok(status);
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(LabError::Interrupted);
            }
            if start.elapsed() > self.limit {
                return Err(LabError::TimeLimit(self.limit));
            }
            thread::sleep(LOOK);
        }
    }

    fn outcome(&self, directory: &Path, status: ExitStatus) -> Result<Outcome, LabError> {
        match Outcome::read(directory) {
            Ok(Outcome { error: Some(what), .. }) => Err(emulated::blame(self.lab, what)),
            Ok(outcome) => Ok(outcome),
            Err(_) => {
                let log = fs::read(directory.join(LOG)).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let panic = log.lines().find(|line| line.contains("panic")).or_else(|| log.lines().last());
                let last = panic.unwrap_or("it left no word").trim().to_owned();
                Err(LabError::Died { lab: self.lab, status: status.to_string(), last })
            }
        }
    }
}

/// The lab's outermost process: killed, with all in it, when this goes.
struct Lab(Child);

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies until the end; a reader that went away ends only the copying.
fn relay(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..read).unwrap_or_default();
            let _ = to.write_all(piece).and_then(|()| to.flush());
        }
    })
}
