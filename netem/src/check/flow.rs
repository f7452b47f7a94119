//! A flow of packets along one path, from the outside: both programs started, and their words understood.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::probe::Arrival;
use crate::lab::MARK;
use crate::plan::Host;

/// Where probes are received. Each flow ends before the next begins.
const PORT: u16 = 7777;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    /// How many groups.
    pub(super) groups: u64,
    /// Packets of a group, sent at once.
    pub(super) group: u64,
    /// Frame on the wire, with headers.
    pub(super) frame: u64,
    /// From group to group.
    pub(super) interval: Duration,
}

/// Ethernet, IPv4 and UDP headers.
pub(super) const HEADERS: u64 = 14 + 20 + 8;

impl Pattern {
    pub(super) fn packets(&self) -> u64 {
        self.groups * self.group
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    /// How many were sent.
    pub(super) sent: u64,
    /// When the first was sent, in nanoseconds.
    pub(super) first: u64,
    /// How long the sending took.
    pub(super) sending: Duration,
    /// In order of arrival.
    pub(super) arrivals: Vec<Arrival>,
}

/// Both ends of a path.
pub(super) struct Path<'a> {
    pub(super) from: &'a Host,
    pub(super) to: &'a Host,
    /// Whether the probes may have to fight for a processor, which isn't the lab's fault.
    pub(super) is_real_time: bool,
}

impl Path<'_> {
    /// Sends a pattern; `tail` is how long the last packet may take.
    pub(super) fn send(&self, pattern: Pattern, tail: Duration) -> io::Result<Flow> {
        let address = format!("{}:{PORT}", self.to.address);
        let mut receiver = self.ready(&["receive", &address])?;
        let size = pattern.frame.saturating_sub(HEADERS).to_string();
        let nanos = pattern.interval.as_nanos().to_string();
        let words = ["send", &address, &pattern.groups.to_string(), &pattern.group.to_string(), &size, &nanos].map(str::to_owned);
        let output = self.probe(self.from, &words)?.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let times = numbers(&String::from_utf8_lossy(&output.stdout));
        let &[first, last] = times.as_slice() else { return Err(io::Error::other("the sender failed")) };
        thread::sleep(tail);
        let mut arrivals = Vec::new();
        for line in receiver.finish()?.lines() {
            let &[number, sent, received] = numbers(line).as_slice() else { return Err(io::Error::other("the receiver failed")) };
            arrivals.push(Arrival { number, sent, received });
        }
        Ok(Flow { sent: pattern.packets(), first, sending: Duration::from_nanos(last.saturating_sub(first)), arrivals })
    }

    /// A program of ours in a host's namespace.
    fn probe(&self, host: &Host, words: &[String]) -> io::Result<Command> {
        let program: PathBuf = env::current_exe()?;
        let hurry = if self.is_real_time && may_hurry() { &HURRY[..] } else { &[] };
        let mut line = hurry.iter().copied().chain(["ip", "netns", "exec", host.namespace.as_str()]);
        let mut command = Command::new(line.next().unwrap_or("ip"));
        command.args(line).arg(program).args([MARK, "probe"]).args(words);
        Ok(command)
    }

    /// A receiver that has said that it's ready.
    fn ready(&self, words: &[&str]) -> io::Result<Ready> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Ready::start(self.probe(self.to, &words)?)
    }

    /// Pushes bytes through a TCP connection; how many arrived.
    pub(super) fn push(&self, bytes: usize) -> io::Result<u64> {
        let address = format!("{}:{PORT}", self.to.address);
        let mut receiver = self.ready(&["drain", &address])?;
        let words = ["push", &address, &bytes.to_string()].map(str::to_owned);
        let status = self.probe(self.from, &words)?.stdin(Stdio::null()).status()?;
        if !status.success() {
            return Err(io::Error::other("the TCP sender failed"));
        }
        numbers(&receiver.finish()?).first().copied().ok_or_else(|| io::Error::other("the TCP receiver failed"))
    }
}

/// How a program gets real-time priority: below the emulator's, which is 10.
const HURRY: [&str; 3] = ["chrt", "--fifo", "5"];

/// Whether this user may give it.
fn may_hurry() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    let [program, arguments @ ..] = HURRY;
    let tried = || Command::new(program).args(arguments).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    *MAY.get_or_init(|| tried().is_ok_and(|status| status.success()))
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// A receiver that has said that it's ready. Killed when it's dropped.
struct Ready {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Ready {
    fn start(mut program: Command) -> io::Result<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut ready = Self { child, output: BufReader::new(output) };
        let mut line = String::new();
        ready.output.read_line(&mut line)?;
        if line.trim() == "ready" { Ok(ready) } else { Err(io::Error::other("the receiver didn't start")) }
    }

    /// Closes its input, and what it says then.
    fn finish(&mut self) -> io::Result<String> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        self.child.wait()?;
        Ok(text)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
