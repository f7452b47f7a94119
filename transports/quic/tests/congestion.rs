//! Congestion control over simulated paths: what must not get worse.
//!
//! Each bound is clearly looser than what twenty seeds gave (`cargo run -p peerlane-quic --example link -- --controller
//! delay --seeds 20 --duration 6`), in the comment beside it: QUERY p99 in ms and BELIEF goodput in percent, 5th to 95th
//! percentile. A simulated path shows what a controller does and nothing of its cost: the figures that count are the lab's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod link;

use std::{sync::Arc, time::Duration};

use link::{profile::Profile, report::Outcome, world::Run};
use peerlane_quic::DelayConfig;
use quinn_proto::congestion::CubicConfig;

/// Six virtual seconds, the first one and a half not measured: long enough for start-up and some hundred questions.
fn run(profile: &str, delay: bool) -> Outcome {
    let profile = Profile::named(profile).unwrap();
    let mut run =
        if delay { Run::new(profile, Arc::new(DelayConfig::default()), 7) } else { Run::new(profile, Arc::new(CubicConfig::default()), 7) };
    (run.duration, run.warm_up) = (Duration::from_secs(6), Duration::from_millis(1500));
    let outcome = run.go();
    assert_eq!(outcome.failed, None);
    outcome
}

fn check(profile: &str, p99: f64, goodput: f64) {
    let outcome = run(profile, true);
    let carried: f64 = outcome.goodput.iter().sum();
    assert!(outcome.p99 <= p99, "{profile}: p99 {} ms", outcome.p99);
    assert!(carried >= goodput, "{profile}: goodput {carried}%");
    assert!(outcome.own_loss <= 0.5, "{profile}: {}% of our packets found the queue full", outcome.own_loss);
}

#[test]
fn the_simulator_shows_cubic_as_the_lab_does() {
    // The lab: p50 86 ms, 95%; with 1% loss 5%.
    let cubic = run("wan", false);
    assert!((75.0..100.0).contains(&cubic.p50), "{}", cubic.p50);
    assert!(cubic.goodput[0] > 90.0);
    assert!(run("wan-loss1", false).goodput[0] < 12.0);
}

#[test]
fn a_full_link_with_hardly_a_queue() {
    check("wan", 58.0, 91.0);
    check("wan-shallow", 58.0, 90.0);
}

#[test]
fn random_loss_costs_little() {
    check("wan-loss1", 66.0, 88.0);
    check("wan-loss3", 70.0, 86.0);
}

#[test]
fn jitter_isnt_taken_for_a_queue() {
    check("wan-jitter", 85.0, 75.0);
    check("wan-reorder", 75.0, 80.0);
}

#[test]
fn flows_of_our_own_share_in_peace() {
    let outcome = run("two", true);
    assert!(outcome.goodput.iter().all(|share| *share > 30.0), "{:?}", outcome.goodput);
    assert!(outcome.p99 < 70.0, "{}", outcome.p99);
}
