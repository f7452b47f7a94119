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
    let cases: [(&[&str], &str); 9] = [
        (&["--profile", "wan"], "--lab virtual"),
        (&["--rival", "cubic"], "--lab virtual"),
        (&["--jobs", "2"], "--lab virtual"),
        (&["--lab", "virtual", "--profile", "nonsense"], "wan-loss1"),
        (&["--transport", "carrier-pigeon"], "tcp-per-class-bbr"),
        (&["--flood", "rain"], "both-ways"),
        (&["--rival", "reno"], "bbr"),
        (&["--duration", "0"], "measures nothing"),
        (&["--rate=-1"], "0 or more"),
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
        assert!(record["belief_goodput_share"].as_f64().unwrap() < 0.96, "{record}");
        let rival = record["rival_goodput_mbps"].as_f64();
        assert_eq!(rival.is_some_and(|rate| rate > 0.0), record["rival"] == "cubic", "{record}");
        if record["transport"] == "tcp-bbr" {
            assert_eq!((&record["client"]["congestion_control"], &record["server"]["congestion_control"]), (&"bbr".into(), &"bbr".into()));
        }
    }
    // Records have standard output for themselves.
    assert!(said.contains("p99.9") && said.contains("profile wan (50 Mbit/s)"), "{said}");
}
