//! The whole of it over loopback, with the real transports. No time is asserted, only what is counted.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;

fn plan(floods: &[Flood], duration: Duration) -> Plan {
    let workload = Workload { rate: 200.0, duration, warm_up: Duration::from_millis(50), ..Workload::default() };
    Plan { variants: Variant::defaults(), floods: floods.to_vec(), runs: 1, workload, seed: 3 }
}

#[test]
fn every_scheduled_query_counts_and_the_flood_arrives() {
    let plan = plan(&[Flood::None, Flood::Full], Duration::from_millis(300));
    let mut lines = Vec::new();
    let each = |event: Event<'_>| {
        if let Event::Measured(outcome) = event {
            lines.push(outcome.record.to_json().unwrap());
        }
        Ok(())
    };
    let outcomes = run(&plan, &Loopback::new(), &CancellationToken::new(), each).unwrap();
    assert_eq!((outcomes.len(), lines.len()), (4, 4));
    for (outcome, line) in outcomes.iter().zip(&lines) {
        let record = &outcome.record;
        assert!(record.complete, "{line}");
        // One schedule for all.
        assert_eq!(record.samples, outcomes[0].record.samples);
        assert!(record.samples > 0 && record.samples == outcome.measurement.lateness.count());
        assert_eq!(record.unfinished, 0, "{line}");
        assert_eq!(record.belief_goodput_mbps > 0.0, record.flood == "full", "{line}");
        assert!(record.p50_us <= record.p99_us && record.p99_us <= record.max_us);
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in
            "transport lab profile flood class p50_us p90_us p99_us p999_us max_us mean_us samples belief_goodput_mbps run".split(' ')
        {
            assert!(!json[field].is_null(), "{field}: {line}");
        }
        for end in ["client", "server"] {
            assert!(json[end]["congestion_control"].is_string() && json[end]["send_buffer_bytes"].is_u64(), "{line}");
            assert!(json[end]["queue_max_us"].is_f64(), "{line}");
        }
    }
    let table = report::table(&plan, &Loopback::new(), &outcomes);
    assert_eq!(table.matches("ratio").count(), 2, "{table}");

    // What a lab's inner end writes is what the outer one reads.
    let there_and_back = |outcome: &Outcome| {
        let (case, measured) = (serde_json::to_vec(&outcome.case).unwrap(), serde_json::to_vec(&outcome.measurement).unwrap());
        let case: Case = serde_json::from_slice(&case).unwrap();
        assert_eq!(case, outcome.case);
        let again: Measurement = serde_json::from_slice(&measured).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), measured);
        assert_eq!(again.latency.quantile(0.99), outcome.measurement.latency.quantile(0.99));
    };
    outcomes.iter().for_each(there_and_back);
}

#[test]
fn every_comparator_answers_under_floods_from_both_sides() {
    let mut plan = plan(&[Flood::BothWays], Duration::from_millis(300));
    for variant in Variant::ALL {
        plan.variants = vec![*variant];
        let outcomes = match run(&plan, &Loopback::new(), &CancellationToken::new(), |_| Ok(())) {
            Err(error @ BenchError::Lab { source: error::LabError::Kernel { .. }, .. }) => {
                println!("SKIPPED: {error}");
                continue;
            }
            outcomes => outcomes.unwrap(),
        };
        let record = &outcomes[0].record;
        let json = record.to_json().unwrap();
        assert!(record.complete && record.unfinished == 0, "{json}");
        assert!(record.belief_goodput_mbps > 0.0 && record.belief_back_goodput_mbps > Some(0.0), "{json}");
        assert_eq!(record.belief_ends.is_some(), variant.name().contains("per-class"), "{variant}");
    }
}

#[test]
fn an_interruption_keeps_what_was_measured_and_says_so() {
    // It would take an hour.
    let plan = plan(&[Flood::Full], Duration::from_secs(3600));
    let stop = CancellationToken::new();
    let mut begun = 0;
    let interrupt = stop.clone();
    let each = |event: Event<'_>| {
        if let Event::Begins(_) = event {
            begun += 1;
            let interrupt = interrupt.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(400));
                interrupt.cancel();
            });
        }
        Ok(())
    };
    let outcomes = run(&plan, &Loopback::new(), &stop, each).unwrap();
    assert_eq!((begun, outcomes.len()), (1, 1), "no other case begins");
    assert!(!outcomes[0].record.complete);
    let table = report::table(&plan, &Loopback::new(), &outcomes);
    assert!(table.contains("interrupted") && !table.contains("QUERY"), "no table of nothing: {table}");
}

#[test]
fn a_plan_that_cant_be_run_starts_nothing() {
    let mut plan = plan(&[Flood::None], Duration::from_secs(1));
    plan.runs = 0;
    let result = run(&plan, &Loopback::new(), &CancellationToken::new(), |_| panic!("something began"));
    assert!(matches!(result, Err(BenchError::Plan { .. })));
}

#[test]
fn a_rate_of_zero_measures_the_flood_alone() {
    let mut plan = plan(&[Flood::Full], Duration::from_millis(100));
    plan.workload.rate = 0.0;
    plan.variants.truncate(1);
    let outcomes = run(&plan, &Loopback::new(), &CancellationToken::new(), |_| Ok(())).unwrap();
    assert_eq!((outcomes[0].record.samples, outcomes[0].record.p50_us), (0, None));
    assert!(outcomes[0].record.belief_goodput_mbps > 0.0);
}
