//! The peer that is attacked: a process of the real program.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use peerlane_transport::identity::Identity;

use crate::target::Target;

/// How long memory may take to come back.
const SETTLES: Duration = Duration::from_secs(10);
/// What may stay.
const KEPT: u64 = 1024 * 1024;

pub struct Victim {
    child: Child,
    pub target: Target,
    /// When it said something at WARN or above.
    said: Arc<Mutex<Vec<Instant>>>,
    _dir: tempfile::TempDir,
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Victim {
    /// `pin`: on the first core alone.
    pub fn start(pin: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("victim.pem");
        let identity = Identity::generate().unwrap();
        identity.save_new(&key).unwrap();
        let peerlane = env!("CARGO_BIN_EXE_peerlane");
        let mut command = if pin {
            let mut command = Command::new("taskset");
            command.args(["-c", "0", peerlane]);
            command
        } else {
            Command::new(peerlane)
        };
        let args = ["peer", "--listen", "127.0.0.1:0", "--log", "warn"];
        let mut child = command
            .args(args)
            .arg("--key")
            .arg(&key)
            .env_remove("PEERLANE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("peerlane, by taskset of util-linux (--no-pin does without)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let at = line.strip_prefix("ready ").and_then(|rest| rest.split_whitespace().next());
        let target = Target { addr: at.unwrap_or_else(|| panic!("not ready: {line:?}")).parse().unwrap() };
        let said = Arc::default();
        listen(child.stderr.take().unwrap(), Arc::clone(&said));
        Self { child, target, said, _dir: dir }
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        resident.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Waits until memory is back where it was, for a while; what it is then.
    pub async fn settle(&self, before: u64) -> u64 {
        let began = Instant::now();
        loop {
            let now = self.memory();
            if now <= before + KEPT || began.elapsed() > SETTLES {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn listen_to_log(&self) {
        self.said.lock().unwrap().clear();
    }

    /// The most lines of its log within one second since [`listen_to_log`](Self::listen_to_log).
    pub fn said_at_most_in_a_second(&self) -> usize {
        let said = self.said.lock().unwrap();
        let within = |from: &Instant| said.iter().filter(|at| *at >= from && at.duration_since(*from) < Duration::from_secs(1)).count();
        said.iter().map(within).max().unwrap_or(0)
    }

    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

fn listen(stderr: ChildStderr, said: Arc<Mutex<Vec<Instant>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if std::env::var_os("ATTACK_LOG").is_some() {
                eprintln!("victim: {line}");
            }
            said.lock().unwrap().push(Instant::now());
        }
    });
}
