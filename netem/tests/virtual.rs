//! The virtual lab, really booted, if this machine has its kernel; else each test says SKIPPED and why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use peerlane_netem::check::check;
use peerlane_netem::plan::Topology;
use peerlane_netem::profile::Profile;
use peerlane_netem::{LabError, LabKind, Outcome, Run};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

fn profile(name: &str) -> Profile {
    Profile::load(name).unwrap()
}

/// Runs a shell line in the lab; `None` if there's no lab here.
fn run(profile_name: &str, line: &str, prepare: impl FnOnce(Run) -> Run) -> Option<Result<Outcome, LabError>> {
    let run = Run::new(LabKind::Virtual, &profile(profile_name), Topology::Pair, ["sh", "-c", line]).agent(LAB);
    match prepare(run.limit(Duration::from_secs(120))).start() {
        Err(error) if is_missing(&error) => None,
        other => Some(other),
    }
}

fn is_missing(error: &LabError) -> bool {
    let missing = match error {
        LabError::Unavailable { .. } => true,
        // No `ip` or `tc` on this machine.
        LabError::Setup { what, .. } => what.contains("can't be started") && what.contains("No such file"),
        _ => false,
    };
    if missing {
        println!("SKIPPED: {error}");
    }
    missing
}

#[test]
fn the_lab_does_what_its_profile_says_and_a_lie_is_found() {
    let wan = profile("wan");
    let judged = |built: &str, claimed: &Profile| {
        check(LabKind::Virtual, &profile(built), claimed, Topology::Pair, |run| run.agent(LAB).limit(Duration::from_secs(120)))
    };
    let report = match judged("wan", &wan) {
        Err(error) if is_missing(&error) => return,
        report => report.unwrap(),
    };
    assert!(report.ok(), "{:#?}", report.findings);
    for (lie, found) in
        [("metro", "rate"), ("wan-loss1", "loss"), ("wan-shallow", "queue (packets at once)"), ("wan-jitter", "jitter (5th to 95th)")]
    {
        let report = judged(lie, &wan).unwrap();
        let red: Vec<_> = report.findings.iter().filter(|finding| !finding.ok).map(|finding| finding.what.as_str()).collect();
        assert!(red.contains(&found), "{lie}: {red:?}");
    }
}

#[test]
fn wrong_commands_make_the_check_red() {
    let out = tempfile::tempdir().unwrap();
    for (wrong, found) in [
        ("tc -n peerlane-r qdisc change dev to-b root netem limit 314 delay 24ms rate 50mbit", "delay (median)"),
        ("tc -n peerlane-r qdisc change dev to-b root netem limit 300 delay 25ms rate 50mbit", "queue (packets at once)"),
        ("for end in a:to-r r:to-b; do ip -n peerlane-${end%:*} link set ${end#*:} gso_max_segs 64; done", "mean segment"),
    ] {
        let Some(outcome) = run("wan", &format!("{wrong}; exec {LAB} check --profile wan"), |run| run.output(out.path())) else { return };
        assert_eq!(outcome.unwrap().code, 1, "{wrong}");
        let output = fs::read_to_string(out.path().join("stdout")).unwrap();
        assert!(output.lines().any(|line| line.contains("RED") && line.contains(found)), "{wrong}: {output}");
    }
}

#[test]
fn a_command_gets_its_hosts_and_gives_its_exit_code_and_files() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("file");
    let line = format!("echo $PEERLANE_LAB $PEERLANE_LAB_B; echo trouble >&2; echo kept > {}; exit 7", file.display());
    let Some(outcome) = run("wan", &line, |run| run.output(out.path())) else { return };
    let outcome = outcome.unwrap();
    assert_eq!((outcome.code, outcome.queues.len()), (7, 2));
    assert_eq!(fs::read_to_string(out.path().join("stdout")).unwrap(), "virtual 10.77.2.2\n");
    assert_eq!(fs::read_to_string(out.path().join("stderr")).unwrap(), "trouble\n");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept\n");
}

#[test]
fn the_clock_jumps_and_the_schedule_goes_by_it() {
    let Some(outcome) = run("blackhole", "sleep 30", |run| run) else { return };
    let outcome = outcome.unwrap();
    assert!((30.0..30.5).contains(&outcome.lab_seconds), "{}", outcome.lab_seconds);
    assert!(outcome.wall_seconds < 25.0, "thirty seconds took {}", outcome.wall_seconds);
    let times: Vec<_> = outcome.changes.iter().map(|(time, _)| time.round() as u64).collect();
    assert_eq!(times, [20, 20, 22, 22]);
}

#[test]
fn a_command_that_stands_still_is_ended() {
    let start = Instant::now();
    let Some(outcome) = run("wan", "while :; do :; done", |run| run.limit(Duration::from_secs(3))) else { return };
    assert!(matches!(outcome, Err(LabError::TimeLimit(_))), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn output_in_plenty_arrives_whole() {
    let out = tempfile::tempdir().unwrap();
    let Some(outcome) = run("wan", "seq 1 200000", |run| run.output(out.path())) else { return };
    assert_eq!(outcome.unwrap().code, 0);
    let output = fs::read_to_string(out.path().join("stdout")).unwrap();
    assert!(output.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=200_000));
}

/// The processes whose arguments name a path.
fn processes(path: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(path))).count()
}

#[test]
fn a_killed_lab_leaves_no_process() {
    let Some(outcome) = run("wan", "true", |run| run) else { return };
    outcome.unwrap();
    for signal in ["KILL", "TERM"] {
        let place = tempfile::tempdir().unwrap();
        let mark = place.path().display().to_string();
        let mut child = Command::new(LAB)
            .args(["run", "--lab", "virtual", "--profile", "wan", "--", "sh", "-c", "while :; do :; done"])
            .env("TMPDIR", place.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The kernel's arguments name its directory, which is there.
        wait(|| processes(&mark) > 0);
        assert!(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(!status.success());
        wait(|| processes(&mark) == 0);
        if signal == "TERM" {
            assert_eq!(status.code(), Some(130));
            assert!(is_empty(place.path()), "its directory is left");
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

fn wait(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "it doesn't come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}
