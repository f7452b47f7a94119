//! Measures congestion controllers over simulated paths: `cargo run -p peerlane-quic --example link -- --help`.
//!
//! A wrong argument ends it with a panic that names it: it's a tool for who works on this crate. Ten times faster with
//! `CARGO_PROFILE_DEV_OPT_LEVEL=2` in the environment of cargo, which rebuilds the workspace's own crates alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/link/mod.rs"]
mod link;

use std::{sync::Arc, time::Duration};

use link::{
    profile::Profile,
    report::{Outcome, spread},
    traffic::Budget,
    world::{Make, Run},
};
use peerlane_quic::{DelayBothWays, DelayConfig};
use quinn_proto::congestion::{BbrConfig, CubicConfig, NewRenoConfig};

const HELP: &str = "usage: link [--profile P,..|all] [--controller C,..] [--seeds N] [--first SEED] [--duration S]
            [--held WINDOWS] [--no-copies] [--one-stream] [--no-flood] [--loss-detection PACKETS,TIME] [--runs] [--trace MS]
controllers: cubic bbr newreno delay, and delay without a part: delay-nodispersion -nooffset -nobothways -nooneway -nocompany -nocatchup -nodip";

type Change = Box<dyn Fn(&mut Run)>;

fn controller(name: &str) -> Option<Make> {
    match name {
        "cubic" => Some(Arc::new(|_| Arc::new(CubicConfig::default()))),
        "bbr" => Some(Arc::new(|_| Arc::new(BbrConfig::default()))),
        "newreno" => Some(Arc::new(|_| Arc::new(NewRenoConfig::default()))),
        name => {
            let mut config = DelayConfig::default();
            let mut parts = name.split('-');
            if parts.next() != Some("delay") {
                return None;
            }
            for part in parts {
                match part {
                    "nodispersion" => config.dispersion = false,
                    "nooffset" => config.offset = false,
                    "nobothways" => config.both_ways = false,
                    "nooneway" => config.one_way = false,
                    "nocompany" => config.company = false,
                    "nocatchup" => config.catch_up = false,
                    "nodip" => config.dip = false,
                    _ => return None,
                }
            }
            Some(Arc::new(move |heard| Arc::new(DelayBothWays { config, heard })))
        }
    }
}

fn main() {
    let mut profiles = "wan".to_owned();
    let mut controllers = "cubic".to_owned();
    let (mut seeds, mut first, mut each) = (3u64, 1u64, false);
    let mut changes: Vec<Change> = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} wants a value\n{HELP}"));
        match arg.as_str() {
            "--profile" => profiles = value(),
            "--controller" => controllers = value(),
            "--seeds" => seeds = value().parse().unwrap(),
            "--first" => first = value().parse().unwrap(),
            "--duration" => {
                let seconds = value().parse().unwrap();
                changes.push(Box::new(move |run| run.duration = Duration::from_secs_f64(seconds)));
            }
            "--no-copies" => changes.push(Box::new(|run| run.copies.clear())),
            "--one-stream" => changes.push(Box::new(|run| run.stream_each = false)),
            "--no-flood" => changes.push(Box::new(|run| run.flood = false)),
            "--loss-detection" => {
                let value = value();
                let (packets, time) = value.split_once(',').unwrap();
                let detection = (packets.parse().unwrap(), time.parse().unwrap());
                changes.push(Box::new(move |run| run.loss_detection = detection));
            }
            "--held" => {
                let windows = value().parse().unwrap();
                changes.push(Box::new(move |run| run.budget = Budget::Lost(windows)));
            }
            "--trace" => {
                let every = Duration::from_millis(value().parse().unwrap());
                changes.push(Box::new(move |run| run.trace = Some(every)));
            }
            "--runs" => each = true,
            _ => {
                println!("{HELP}");
                return;
            }
        }
    }
    let profiles: Vec<Profile> = match profiles.as_str() {
        "all" => Profile::all(),
        names => names.split(',').map(|name| Profile::named(name).unwrap_or_else(|| panic!("no profile {name}"))).collect(),
    };
    println!(
        "profile                controller    p50 |    p99 (5/50/95%)     |  p99.9 |    max | goodput (5/50/95%)  | back  | rival | own loss | spurious"
    );
    for profile in profiles {
        for name in controllers.split(',') {
            let factory = controller(name).unwrap_or_else(|| panic!("no controller {name}"));
            let outcomes: Vec<Outcome> = (first..first + seeds)
                .map(|seed| {
                    let mut run = Run::new(profile.clone(), factory.clone(), seed);
                    changes.iter().for_each(|change| change(&mut run));
                    let outcome = run.go();
                    if each {
                        print_row(&profile, &format!("{name}#{seed}"), std::slice::from_ref(&outcome));
                    }
                    outcome
                })
                .collect();
            print_row(&profile, name, &outcomes);
        }
    }
}

fn print_row(profile: &Profile, name: &str, outcomes: &[Outcome]) {
    let of = |f: fn(&Outcome) -> f64| spread(outcomes.iter().map(f));
    let [_, p50, _] = of(|o| o.p50);
    let p99 = of(|o| o.p99);
    let [_, p999, _] = of(|o| o.p999);
    let max = outcomes.iter().map(|o| o.max).fold(0.0, f64::max);
    let goodput = of(|o| o.goodput.iter().sum());
    let [_, back, _] = of(|o| o.goodput_back.iter().sum());
    let rival = of(|o| o.rival.unwrap_or(f64::NAN));
    let [_, own, most] = of(|o| o.own_loss.max(o.own_loss_back));
    let [_, spurious, _] = of(|o| o.spurious);
    println!(
        "{:22} {:10} {p50:6.1} | {:6.1} {:6.1} {:7.1} | {p999:6.1} | {max:6.0} | {:5.1} {:5.1} {:5.1}   | {back:5.1} | {:5.1} | {own:4.2} {most:4.2} | {spurious:.2}",
        profile.name, name, p99[0], p99[1], p99[2], goodput[0], goodput[1], goodput[2], rival[1],
    );
    for why in outcomes.iter().filter_map(|o| o.failed.as_ref()) {
        println!("{:22} {:10} FAILED: {why}", "", "");
    }
    if profile.flows > 1 {
        let shares: Vec<[f64; 3]> = (0..profile.flows).map(|flow| spread(outcomes.iter().map(|o| o.goodput[flow]))).collect();
        println!("{:22} {:10} by flow: {shares:.0?}", "", "");
    }
    if let Some((_, end)) = profile.forward.outages.first() {
        let rescue = spread(outcomes.iter().map(|o| o.rescue(*end).unwrap_or(f64::NAN)));
        let back = spread(outcomes.iter().map(|o| o.recovery(*end, profile.forward.rate, 90.0).unwrap_or(f64::NAN)));
        println!("{:22} {:10} oldest answered {rescue:.0?} ms after the return, at 90% after {back:.1?} s", "", "");
    }
}
