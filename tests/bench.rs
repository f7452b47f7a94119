//! `peerlane bench` as a user has it: what it refuses before anything starts, and a short run in the virtual lab if this
//! machine has one, else SKIPPED and why. No time is asserted on a real clock.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peerlane")).arg("bench").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code, and what was said on standard error.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = bench(arguments);
    assert!(output.stdout.is_empty(), "nothing was measured: {}", text(&output.stdout));
    (output.status.code(), text(&output.stderr))
}

#[test]
fn what_cant_be_run_is_refused_with_a_remedy_before_anything_starts() {
    let cases: [(&[&str], &str); 13] = [
        (&["--profile", "wan"], "--lab virtual"),
        (&["--rival", "cubic"], "--lab virtual"),
        (&["--jobs", "2"], "--lab virtual"),
        (&["--lab", "virtual", "--profile", "nonsense"], "wan-loss1"),
        (&["--transport", "carrier-pigeon"], "tcp-per-class-bbr"),
        (&["--flood", "rain"], "both-ways"),
        (&["--rival", "reno"], "bbr"),
        (&["--duration", "0"], "measures nothing"),
        (&["--rate=-1"], "0 or more"),
        (&["--flood", "50%"], "10Mbit/s"),
        (&["--flood", "5"], "2MB/s"),
        (&["--workload", "propagate", "--transport", "tcp-fifo"], "a node's"),
        (&["--workload", "propagate", "--lab", "virtual", "--profile", "lte"], "symmetric"),
    ];
    for (arguments, remedy) in cases {
        let (code, said) = refused(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(remedy), "{arguments:?}: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_lab_that_isnt_there_is_wrong_usage_and_the_remedy_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_peerlane"))
        .args(["bench", "--lab", "virtual", "--quick"])
        .env("PEERLANE_UML", "no-such-kernel")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{said}");
    assert!(cfg!(not(target_arch = "x86_64")) || said.contains("netem/virtual build"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_short_run_in_the_virtual_lab() {
    let output = bench(&[
        "--lab",
        "virtual",
        "--profile",
        "wan",
        "--transport",
        "tcp-bbr,quic",
        "--flood",
        "full",
        "--rival",
        "none,cubic",
        "--runs",
        "1",
        "--warm-up",
        "1s",
        "--duration",
        "1s",
        "--jobs",
        "2",
        "--json",
        "-",
    ]);
    let (records, said) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() == Some(2) && said.contains("can't be had here") {
        println!("SKIPPED: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    let records: Vec<serde_json::Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 4);
    for record in &records {
        // The clock is the lab's: an empty path of 50 ms can't be beaten, by whom and on what machine ever.
        assert!(record["p50_us"].as_f64().unwrap() >= 50_000.0, "{record}");
        assert!(record["complete"] == true && record["lab_checked"] == true && record["unfinished"] == 0, "{record}");
        // Headers leave 96%. What waited behind a hole when the second began, a window of 2 MiB at most, may be taken in it too.
        let window = f64::from(2 << 20) / 6.25e6;
        assert!(record["belief_goodput_share"].as_f64().unwrap() < 0.96 + window, "{record}");
        let rival = record["rival_goodput_mbps"].as_f64();
        assert_eq!(rival.is_some_and(|rate| rate > 0.0), record["rival"] == "cubic", "{record}");
        if record["transport"] == "tcp-bbr" {
            assert_eq!((&record["client"]["congestion_control"], &record["server"]["congestion_control"]), (&"bbr".into(), &"bbr".into()));
        }
    }
    // Records have standard output for themselves.
    assert!(said.contains("p99.9") && said.contains("profile wan (50 Mbit/s)"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn operations_in_the_virtual_lab_to_a_service_and_through_a_star() {
    // In round trips of 50 ms: an operation's answer takes one; by gossip a belief takes half of one to the hub and half to the last leaf.
    for (workload, class) in [("transact", "transact"), ("propagate", "belief")] {
        let output = bench(
            &["--lab virtual --profile wan --transport quic --no-check --runs 1 --warm-up 1s --duration 1s --flood none,20% --json - --workload", workload]
                .join(" ")
                .split(' ')
                .collect::<Vec<_>>(),
        );
        let (records, said) = (text(&output.stdout), text(&output.stderr));
        if output.status.code() == Some(2) && said.contains("can't be had here") {
            println!("SKIPPED: {said}");
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{said}");
        let records: Vec<serde_json::Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 2, "{said}");
        for record in &records {
            assert!(record["workload"] == workload && record["class"] == class && record["status"] == "complete", "{record}");
            assert!(record["unfinished"] == 0 && record["out_of_order"] == 0 && record["refused"] == 0, "{record}");
            assert!(record["p50_us"].as_f64().unwrap() >= 50_000.0, "{record}");
            assert_eq!(record["belief_offered"].as_u64().is_some_and(|offered| offered > 0), record["flood"] == "20%", "{record}");
        }
    }
}

/// A living process's parent, and when it began: its ID may be another one's later.
#[cfg(target_os = "linux")]
fn living(id: u32) -> Option<(u32, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may have anything in it: state, parent, ..., and as the 20th when it began.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, (*fields.get(19)?).to_owned())).filter(|_| fields[0] != "Z")
}

/// The processes below one, each with when it began.
#[cfg(target_os = "linux")]
fn below(parent: u32) -> Vec<(u32, String)> {
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: Vec<_> = ids.filter_map(|id| Some((id, living(id)?))).collect();
    let (mut found, mut parents) = (Vec::new(), vec![parent]);
    while let Some(parent) = parents.pop() {
        for (id, (_, began)) in all.iter().filter(|(_, (of, _))| *of == parent) {
            parents.push(*id);
            found.push((*id, began.clone()));
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_a_lab_with_what_was_measured_and_leaves_no_process() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::Stdio,
        time::{Duration, Instant},
    };
    let mut bench = Command::new(env!("CARGO_BIN_EXE_peerlane"))
        .args(["bench", "--lab", "virtual", "--profile", "wan", "--transport", "tcp-bbr", "--flood", "none", "--no-check", "--json", "-"])
        .args(["--runs", "1000", "--warm-up", "1s", "--duration", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut records = BufReader::new(bench.stdout.take().unwrap());
    let mut first = String::new();
    records.read_line(&mut first).unwrap();
    let mut said = String::new();
    if first.is_empty() {
        bench.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(bench.wait().unwrap().code() == Some(2) && said.contains("can't be had here"), "{said}");
        println!("SKIPPED: {said}");
        return;
    }
    // Until the next lab stands.
    let mut labs = Vec::new();
    while labs.is_empty() && bench.try_wait().unwrap().is_none() {
        labs = below(bench.id());
    }
    assert!(Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap().success());
    bench.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("1/1000 wan: tcp-bbr") && said.contains("left out, interrupted") && said.contains("p99.9"), "{said}");
    let rest: Vec<String> = records.lines().map(Result::unwrap).collect();
    for record in std::iter::once(&first).chain(&rest) {
        assert_eq!(serde_json::from_str::<serde_json::Value>(record).unwrap()["status"], "complete", "{record}");
    }
    // What dies takes its time on a busy machine; nothing lives on.
    let alive = |(id, began): &(u32, String)| living(*id).is_some_and(|(_, at)| at == *began);
    let patience = Instant::now() + Duration::from_secs(60);
    while labs.iter().any(alive) {
        assert!(Instant::now() < patience, "left behind: {labs:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
