//! The tun lab, if this machine may have it; else each test says SKIPPED and why. A run whose emulator was late proves
//! nothing: it's repeated, and given up as SKIPPED.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peerlane_netem::check::{Report, check_patiently};
use peerlane_netem::plan::Topology;
use peerlane_netem::profile::Profile;
use peerlane_netem::{LabKind, Run};

const LAB: &str = env!("CARGO_BIN_EXE_lab");
const LIMIT: Duration = Duration::from_secs(120);

/// One lab at a time: in real time they'd disturb each other. `None` if none can be had here.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let tried = Run::new(LabKind::Tun, &Profile::load("wan").unwrap(), Topology::Pair, ["true"]).agent(LAB).limit(LIMIT).start();
    match tried {
        Ok(_) => Some(alone),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

/// One check, in time; `None` if it never is.
fn judged(built: &str, claimed: &Profile) -> Option<Report> {
    let built = Profile::load(built).unwrap();
    let report = check_patiently(LabKind::Tun, &built, claimed, Topology::Pair, |run| run.agent(LAB).limit(LIMIT)).unwrap();
    if let Some(why) = &report.rejected {
        println!("SKIPPED: this machine is too busy: {why}");
        return None;
    }
    Some(report)
}

/// A profile whose packets are soon there.
fn short(line: &str) -> Profile {
    let text = format!("about = \"\"\n[both]\ndelay = \"5ms\"\nrate = \"20mbit\"\nqueue = \"1bdp\"\n{line}\n");
    Profile::parse("short.toml", &text).unwrap()
}

#[test]
fn the_lab_does_what_its_profile_says_and_a_lie_is_found() {
    let Some(_alone) = alone() else { return };
    let wan = Profile::load("wan").unwrap();
    let Some(report) = judged("wan", &wan) else { return };
    assert!(report.ok(), "{:#?}", report.findings);
    assert!(report.lateness.unwrap().packets > 10_000);
    // A millisecond, two in a hundred packets, half the queue: of one lab that is wrong in all of them.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wan.toml");
    let text = wan.text().replace("25ms", "24ms").replace("1bdp", "0.5bdp") + "loss = \"2%\"\n";
    fs::write(&path, text).unwrap();
    let Some(report) = judged(path.to_str().unwrap(), &wan) else { return };
    let red: Vec<_> = report.findings.iter().filter(|finding| !finding.ok).map(|finding| finding.what.as_str()).collect();
    for lie in ["delay (median)", "loss", "delay when full", "queue (packets at once)"] {
        assert!(red.contains(&lie), "{lie}: {red:?}");
    }
}

#[test]
fn hosts_reach_each_other_and_what_passed_is_counted() {
    let Some(_alone) = alone() else { return };
    // 12,000 bytes of a datagram become packets of the MTU before the device; TCP and UDP have their checksums.
    let line = "python3 - <<'EOF'
import os, socket, subprocess, sys
inside = lambda host, code: subprocess.Popen(['ip', 'netns', 'exec', os.environ['PEERLANE_LAB_NS_' + host], sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
b = os.environ['PEERLANE_LAB_B']
receiver = inside('B', f'''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{b}', 7)); s.settimeout(20)
print('ready', flush=True)
print(sorted(len(s.recv(65535)) for _ in range(10)), flush=True)
''')
assert receiver.stdout.readline() == b'ready\\n'
inside('A', f'''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, 1200)  # UDP_SEGMENT, as quinn sets it
s.sendto(bytes(12000), ('{b}', 7))
''').wait()
assert receiver.stdout.readline() == b'[' + b', '.join([b'1200'] * 10) + b']\\n'
EOF";
    let run = Run::new(LabKind::Tun, &short(""), Topology::Pair, ["sh", "-c", line]).agent(LAB).limit(LIMIT);
    let outcome = run.start().unwrap();
    if outcome.code == 127 {
        println!("SKIPPED: no python3");
        return;
    }
    assert_eq!(outcome.code, 0);
    let forward = outcome.queues.iter().find(|queue| queue.direction == "forward").unwrap();
    assert_eq!((forward.packets, forward.bytes), (10, 10 * (1200 + 42)), "cut before the device");
    let lateness = outcome.lateness.unwrap();
    assert_eq!((lateness.oversized, lateness.unread, lateness.packets), (0, 0, 10));
}

#[test]
fn every_topology_and_the_schedule() {
    let Some(_alone) = alone() else { return };
    let line = "for host in $PEERLANE_LAB_HOSTS; do ip -n peerlane-$host route get 10.77.2.2 >/dev/null || exit 1; done";
    for topology in ["pair", "star:16", "shared"] {
        let run = Run::new(LabKind::Tun, &short(""), topology.parse().unwrap(), ["sh", "-c", line]).agent(LAB).limit(LIMIT);
        assert_eq!(run.start().unwrap().code, 0, "{topology}");
    }
    let events = short("[[schedule]]\nat = \"100ms\"\nuntil = \"200ms\"\nblackhole = true");
    let outcome = Run::new(LabKind::Tun, &events, Topology::Pair, ["sleep", "0.5"]).agent(LAB).limit(LIMIT).start().unwrap();
    assert_eq!(outcome.changes.len(), 4, "{:?}", outcome.changes);
    assert!(outcome.changes.iter().all(|(_, line)| !line.starts_with("failed")));
}

fn lab(place: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(LAB).args(arguments).env("TMPDIR", place).output().unwrap()
}

#[test]
fn a_lab_stands_until_it_is_taken_down() {
    let Some(_alone) = alone() else { return };
    let place = tempfile::tempdir().unwrap();
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(lab(place.path(), &["status"]).status.code(), Some(1));
    assert!(lab(place.path(), &["up", "--lab", "tun", "--profile", "wan"]).status.success());
    let status = lab(place.path(), &["status"]);
    assert!(said(&status).contains("wan, pair, lab tun") && said(&status).contains("to-b (forward): 0 packets"), "{}", said(&status));
    let route = lab(place.path(), &["exec", "a", "--", "ip", "route", "get", "10.77.2.2"]);
    assert!(said(&route).contains("dev to-r src 10.77.1.2"), "{}", said(&route));
    let router = lab(place.path(), &["exec", "r", "--", "true"]);
    assert!(router.status.code() == Some(2) && String::from_utf8_lossy(&router.stderr).contains("there are a, b\n"));
    assert_eq!(said(&lab(place.path(), &["down"])), "down\n");
    assert_eq!(said(&lab(place.path(), &["down"])), "nothing was up\n");
    assert_eq!(processes(&place.path().display().to_string()), 0);
}

/// The processes whose arguments name a path.
fn processes(path: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(path))).count()
}

#[test]
fn a_killed_lab_leaves_nothing() {
    let Some(_alone) = alone() else { return };
    for arguments in [&["run", "--lab", "tun", "--profile", "wan", "--", "sleep", "1000"][..], &["up", "--lab", "tun", "--profile", "wan"]]
    {
        let place = tempfile::tempdir().unwrap();
        let mark = place.path().display().to_string();
        let mut child =
            Command::new(LAB).args(arguments).env("TMPDIR", place.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait(|| processes(&mark) > 0);
        if arguments[0] == "run" {
            assert!(Command::new("kill").args(["-KILL", &child.id().to_string()]).status().unwrap().success());
            child.wait().unwrap();
        } else {
            // Its outermost process, whose end is the lab's.
            assert!(child.wait().unwrap().success());
            let state = fs::read_dir(place.path()).unwrap().flatten().next().unwrap().path().join("state.json");
            let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
            assert!(Command::new("kill").args(["-KILL", &state["pid"].to_string()]).status().unwrap().success());
        }
        // Devices and namespaces are those of its processes.
        wait(|| processes(&mark) == 0);
        assert!(lab(place.path(), &["down"]).status.success());
        assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "its directory is left");
    }
}

fn wait(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "it doesn't come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_default_order_is_best_first() {
    assert_eq!(LabKind::ALL, [LabKind::Virtual, LabKind::Netem, LabKind::Tun]);
}
