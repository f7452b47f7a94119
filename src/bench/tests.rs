//! The whole of it over loopback, with the real transports. No time is asserted, only what is counted.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;

fn plan(floods: &[Flood], duration: Duration) -> Plan {
    let workload = Workload { rate: 200.0, duration, warm_up: Duration::from_millis(50), ..Workload::default() };
    Plan { variants: Variant::defaults(), floods: floods.to_vec(), rivals: vec![Rival::None], runs: 1, workload, seed: 3 }
}

/// What a plan gives on loopback.
fn on_loopback(plan: &Plan, stop: &CancellationToken, each: impl FnMut(Event<'_>) -> Result<(), BenchError>) -> Result<Ran, BenchError> {
    Ok(run(plan, &[&Loopback::new()], How::new(1), stop, each)?.remove(0))
}

#[test]
fn every_scheduled_query_counts_and_the_flood_arrives() {
    let plan = plan(&[Flood::None, Flood::Full], Duration::from_millis(300));
    let mut lines = Vec::new();
    let each = |event: Event<'_>| {
        if let Event::Measured(_, outcome) = event {
            lines.push(outcome.record.to_json().unwrap());
        }
        Ok(())
    };
    let ran = on_loopback(&plan, &CancellationToken::new(), each).unwrap();
    let outcomes = &ran.outcomes;
    assert!(ran.is_whole(&plan) && ran.failed.is_empty());
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
        let versions = [&json["rustc"], &json["dependencies"]].map(|said| said.as_str().unwrap_or_default().to_owned());
        assert!(versions[0].contains("rustc") && versions[1].contains("quinn ") && versions[1].contains("rustls "), "{line}");
        for end in ["client", "server"] {
            assert!(json[end]["congestion_control"].is_string() && json[end]["send_buffer_bytes"].is_u64(), "{line}");
            assert!(json[end]["queue_max_us"].is_f64(), "{line}");
        }
    }
    let table = report::table(&plan, &Loopback::new(), &ran);
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
    for variant in Variant::ALL {
        // A busy machine gets less done: what counts is that it flows, however long that takes.
        let flows = (0..6).any(|doubled| {
            let mut plan = plan(&[Flood::BothWays], Duration::from_millis(300) * (1 << doubled));
            plan.variants = vec![*variant];
            let ran = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap();
            if let [(_, error @ BenchError::Lab { source: error::LabError::Kernel { .. }, .. })] = &*ran.failed {
                println!("SKIPPED: {error}");
                return true;
            }
            let record = &ran.outcomes[0].record;
            let json = record.to_json().unwrap();
            assert!(record.complete && record.unfinished == 0, "{json}");
            assert_eq!(record.belief_ends.is_some(), variant.name().contains("per-class"), "{variant}");
            let copied = [&record.client, &record.server].map(|end| end.copies.map_or(0, |copies| copies.sent));
            assert_eq!(copied.iter().all(|copies| *copies > 0), variant.name() == "tcp-per-class-bbr-copies", "{json}");
            record.belief_goodput_mbps > 0.0 && record.belief_back_goodput_mbps > Some(0.0)
        });
        assert!(flows, "{variant}: no BELIEF in twenty seconds");
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
        if let Event::Begins(..) = event {
            begun += 1;
            let interrupt = interrupt.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(400));
                interrupt.cancel();
            });
        }
        Ok(())
    };
    let ran = on_loopback(&plan, &stop, each).unwrap();
    assert_eq!((begun, ran.outcomes.len()), (1, 1), "no other case begins");
    assert!(!ran.outcomes[0].record.complete && !ran.is_whole(&plan));
    assert_eq!(ran.outcomes[0].record.status, Status::Incomplete);
    assert!(report::line(&ran.outcomes[0]).contains("incomplete: interrupted"));
    let table = report::table(&plan, &Loopback::new(), &ran);
    assert!(table.contains("interrupted") && !table.contains("QUERY"), "no table of nothing: {table}");
}

#[test]
fn a_plan_that_cant_be_run_starts_nothing() {
    let mut plan = plan(&[Flood::None], Duration::from_secs(1));
    plan.runs = 0;
    let result = on_loopback(&plan, &CancellationToken::new(), |_| panic!("something began"));
    assert!(matches!(result, Err(BenchError::Plan { .. })));
}

#[test]
fn a_rate_of_zero_measures_the_flood_alone() {
    let mut plan = plan(&[Flood::Full], Duration::from_millis(100));
    plan.workload.rate = 0.0;
    plan.variants.truncate(1);
    let outcomes = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap().outcomes;
    assert_eq!((outcomes[0].record.samples, outcomes[0].record.p50_us), (0, None));
    assert!(outcomes[0].record.belief_goodput_mbps > 0.0);
}

#[test]
fn a_flood_at_a_rate_is_offered_whatever_the_path_takes_and_what_is_refused_is_counted() {
    let mut plan = plan(&["20Mbit/s".parse().unwrap(), "40Gbit/s".parse().unwrap()], Duration::from_millis(300));
    (plan.workload.belief_bytes, plan.workload.rate) = (65_536, 50.0);
    let ran = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap();
    assert_eq!(ran.outcomes.len(), 4);
    for outcome in &ran.outcomes {
        let (record, line) = (&outcome.record, outcome.record.to_json().unwrap());
        let (offered, refused) = (record.belief_offered.unwrap(), record.belief_refused.unwrap());
        assert!(offered > 0 && record.belief_sent_mbps <= record.belief_offered_mbps, "{line}");
        if record.flood == "20Mbit/s" {
            // Eleven or so in the time, unless the machine is too busy to make them.
            assert!(refused == 0 && offered < 40 && record.belief_sent_mbps == record.belief_offered_mbps, "{line}");
        } else {
            assert!(record.flood == "40000Mbit/s" && (1..offered).contains(&refused), "{line}");
            assert!(record.belief_goodput_mbps > 0.0, "{line}");
        }
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(json["belief_offered_mbps"].is_f64() && json["belief_sent_mbps"].is_f64(), "{line}");
    }
    let table = report::table(&plan, &Loopback::new(), &ran);
    assert!(["offered Mbit/s", "refused", "20Mbit/s", "40000Mbit/s"].iter().all(|word| table.contains(word)), "{table}");

    plan.floods = vec!["50%".parse().unwrap()];
    let refused = on_loopback(&plan, &CancellationToken::new(), |_| panic!("something began"));
    assert!(matches!(refused, Err(BenchError::Plan { what }) if what.contains("10Mbit/s")), "loopback has no rate to be a share of");
}

#[test]
fn operations_arrive_in_order_on_every_transport_under_a_flood() {
    let names = ["tcp", "quic", "tcp-fifo", "quic-one-stream", "tcp-per-class-bbr-copies"];
    let mut plan = plan(&[Flood::None, Flood::Full], Duration::from_millis(400));
    plan.variants = names.map(|name| Variant::by_name(name).unwrap()).to_vec();
    (plan.workload.kind, plan.workload.rate) = (Kind::Transact, 100.0);
    let ran = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap();
    for outcome in &ran.outcomes {
        let (record, line) = (&outcome.record, outcome.record.to_json().unwrap());
        assert!(record.complete && record.samples > 0 && record.unfinished == 0, "{line}");
        assert_eq!((record.workload, record.class, record.out_of_order, record.refused), ("transact", "transact", 0, 0));
    }
    let skipped = ran.failed.iter().filter(|(_, error)| matches!(error, BenchError::Lab { source: error::LabError::Kernel { .. }, .. }));
    assert_eq!(skipped.count(), ran.failed.len(), "{:?}", ran.failed);
    assert!(report::table(&plan, &Loopback::new(), &ran).contains("TRANSACT, a signed operation with a value of 100 B"));
}

/// A short plan of the workload `propagate`.
fn star(floods: &[Flood]) -> Plan {
    let mut plan = plan(floods, Duration::from_millis(700));
    plan.workload = Workload { kind: Kind::Propagate, rate: 10.0, belief_bytes: 20_000, grace: Duration::from_secs(30), ..plan.workload };
    plan
}

#[test]
fn an_operation_reaches_the_last_of_eight_peers_by_gossip() {
    let plan = star(&[Flood::None, "2Mbit/s".parse().unwrap()]);
    let ran = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap();
    assert!(ran.is_whole(&plan) && ran.failed.is_empty(), "{:?}", ran.failed);
    for outcome in &ran.outcomes {
        let (record, line) = (&outcome.record, outcome.record.to_json().unwrap());
        assert_eq!((record.workload, record.class, record.samples), ("propagate", "belief", ran.outcomes[0].record.samples));
        assert!(record.samples > 0 && record.unfinished == 0 && record.threads.starts_with("each of 8 peers"), "{line}");
        // Gossip gathers for 10 ms, at the author and at the hub: most are no sooner than half of that.
        assert!(record.p50_us > Some(10_000.0), "{line}");
        assert_eq!(record.belief_offered.is_some_and(|offered| offered > 0), record.flood == "2Mbit/s", "{line}");
        assert_eq!(record.belief_goodput_mbps > 0.0, record.flood == "2Mbit/s", "{line}");
        let ends = [&record.client, &record.server].map(|end| end.congestion_control.is_some());
        assert_eq!(ends, [true, true], "{line}");
    }
    assert!(report::table(&plan, &Loopback::new(), &ran).contains("the last of a star of 8 peers"));
}

#[test]
fn beliefs_flood_a_star_from_its_hub_and_its_leaves() {
    // A busy machine gets less done: what counts is that it flows, however long that takes.
    let flows = (0..5).any(|doubled| {
        let mut plan = star(&[Flood::BothWays]);
        plan.variants.truncate(1);
        (plan.workload.grace, plan.workload.duration) = (Duration::ZERO, plan.workload.duration * (1 << doubled));
        let ran = on_loopback(&plan, &CancellationToken::new(), |_| Ok(())).unwrap();
        let record = &ran.outcomes[0].record;
        assert!(record.complete, "{}", record.to_json().unwrap());
        record.belief_goodput_mbps > 0.0 && record.belief_back_goodput_mbps > Some(0.0)
    });
    assert!(flows, "no BELIEF in twenty seconds");
}

#[test]
fn what_a_star_cant_have_is_refused_before_anything_begins() {
    let refused = |change: fn(&mut Plan)| {
        let mut plan = star(&[Flood::Full]);
        change(&mut plan);
        on_loopback(&plan, &CancellationToken::new(), |_| panic!("something began")).unwrap_err().to_string()
    };
    assert!(refused(|plan| plan.variants = vec![Variant::by_name("tcp-fifo").unwrap()]).contains("tcp-fifo"));
    assert!(refused(|plan| plan.workload.rate = 0.0).contains("--rate 0"));
    assert!(refused(|plan| plan.rivals = vec![Rival::Bbr]).contains("--rival"));
    assert!(refused(|plan| plan.workload.belief_bytes = 100).contains("2048"));
}

/// A lab without a network: it gives what it's told to, later cases sooner.
struct Told {
    name: &'static str,
    red: bool,
    fails: bool,
    at_once: (std::sync::Mutex<usize>, std::sync::atomic::AtomicUsize),
}

impl Told {
    fn new(name: &'static str) -> Self {
        Self { name, red: false, fails: false, at_once: Default::default() }
    }
}

impl Lab for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn profile(&self) -> &str {
        self.name
    }

    fn rates_mbps(&self) -> Option<[f64; 2]> {
        Some([10.0, 5.0])
    }

    fn threads(&self, _: Kind) -> String {
        String::new()
    }

    fn check(&self, _: &Plan, _: &CancellationToken) -> Result<Option<Vec<String>>, BenchError> {
        Ok(Some(if self.red { vec!["a->b rate: 10, measured 3".to_owned()] } else { Vec::new() }))
    }

    fn measure(&self, case: &Case, _: &CancellationToken) -> Result<Measurement, BenchError> {
        use std::sync::atomic::Ordering;
        {
            let mut now = self.at_once.0.lock().unwrap();
            *now += 1;
            self.at_once.1.fetch_max(*now, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(20 / u64::from(case.run)));
        *self.at_once.0.lock().unwrap() -= 1;
        if self.fails && case.run == 1 {
            return Err(BenchError::Emulation { case: case.to_string(), what: "it fell over".into() });
        }
        let mut measured = Measurement::empty().unwrap();
        measured.latency.record(Duration::from_millis(51));
        (measured.belief_bytes, measured.window, measured.complete) = (1_250_000, Duration::from_secs(2), true);
        Ok(measured)
    }

    fn connect(&self, _: &connect::ConnectCase, _: &CancellationToken) -> Result<connect::Connected, BenchError> {
        Err(BenchError::Interrupted)
    }
}

#[test]
fn a_red_check_leaves_a_profile_out_of_every_table_and_a_failed_case_holds_up_no_other() {
    let plan = Plan { runs: 3, ..plan(&[Flood::Full], Duration::from_secs(2)) };
    let (good, red, failing) = (Told::new("good"), Told { red: true, ..Told::new("red") }, Told { fails: true, ..Told::new("failing") });
    let labs: [&dyn Lab; 3] = [&good, &red, &failing];
    for jobs in [1, 4] {
        let (mut ends, mut unmeasured) = (Vec::new(), Vec::new());
        let each = |event: Event<'_>| {
            match event {
                Event::Over(lab, ran) => ends.push((lab.profile().to_owned(), report::table(&plan, lab, ran))),
                Event::Failed(_, _, record) | Event::Rejected(_, record) => {
                    unmeasured.push(serde_json::from_str::<serde_json::Value>(&record.to_json().unwrap()).unwrap());
                }
                _ => {}
            }
            Ok(())
        };
        let ran = run(&plan, &labs, How::new(jobs), &CancellationToken::new(), each).unwrap();
        assert_eq!(ran.iter().map(|ran| ran.is_whole(&plan)).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!((ran[1].outcomes.len(), ran[2].outcomes.len(), ran[2].failed.len()), (0, 4, 2));
        assert!(
            ran[0].outcomes.iter().map(|outcome| &outcome.case).eq(plan.cases(good.rates_mbps()).collect::<Vec<_>>().iter()),
            "in the plan's order"
        );
        assert!(ran[0].outcomes.iter().all(|outcome| outcome.record.lab_checked));

        assert_eq!(ends.iter().map(|(lab, _)| lab.as_str()).collect::<Vec<_>>(), ["good", "red", "failing"]);
        let rows = |table: &str| table.lines().filter(|line| line.starts_with("tcp ") || line.starts_with("quic ")).count();
        assert_eq!(ends.iter().map(|(_, table)| rows(table)).collect::<Vec<_>>(), [2, 0, 2]);
        assert!(ends[0].1.contains("51.0") && ends[0].1.contains("50.0%"), "{}", ends[0].1);
        assert!(ends[1].1.contains("measured 3") && ends[1].1.contains("left out, rejected: 6"), "{}", ends[1].1);
        assert!(ends[2].1.contains("it fell over") && ends[2].1.contains("left out, failed: 2"), "{}", ends[2].1);

        // What isn't measured stands in the records, with its reason.
        let of = |profile: &str, status: &str, why: &str| {
            let is = |record: &&serde_json::Value| {
                record["profile"] == profile && record["status"] == status && record["failure"].as_str().unwrap().contains(why)
            };
            unmeasured.iter().filter(is).count()
        };
        assert_eq!((of("red", "rejected", "measured 3"), of("failing", "failed", "it fell over"), unmeasured.len()), (6, 2, 8));
        assert!(unmeasured.iter().all(|record| record["complete"] == false && record["transport"].is_string() && record["seed"].is_u64()));
        let shown: Vec<(&dyn Lab, &Ran)> = labs.iter().copied().zip(&ran).collect();
        let page = page::page(&plan, &shown, "peerlane bench").unwrap();
        assert!(page.contains("left out, rejected: 6") && page.contains("left out, failed: 2"));
    }
    let most = good.at_once.1.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");

    let unchecked = run(&plan, &labs[1..2], How::new(1).unchecked(), &CancellationToken::new(), |_| Ok(())).unwrap();
    assert!(unchecked[0].is_whole(&plan) && !unchecked[0].outcomes[0].record.lab_checked);
}

#[test]
fn a_dial_is_measured_until_its_answer_and_a_second_one_by_the_same_transport_too() {
    let plan = {
        let mut plan = connect::ConnectPlan::default();
        (plan.dials, plan.runs) = (2, 2);
        plan
    };
    let mut records = Vec::new();
    let keep = |_: &connect::ConnectCase, _: &connect::Connected, both: [connect::ConnectRecord; 2]| {
        records.extend(both);
        Ok(())
    };
    let lab = Loopback::new();
    let measured = connect::connect(&plan, &lab, &CancellationToken::new(), keep).unwrap();
    assert_eq!((measured.len(), records.len()), (4, 8));
    assert!(records.iter().all(|record| record.samples == 2 && record.failed == 0 && record.ready_p50_us < record.p50_us));
    let table = connect::table(&plan, &lab, &measured);
    assert!(["tcp        first", "quic       resumed"].iter().all(|row| table.contains(row)), "{table}");
}
