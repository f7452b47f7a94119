//! Profiles as they're read, and what's refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const WAN: &str = "about = \"\"\n[both]\ndelay = \"25ms\"\nrate = \"50mbit\"\nqueue = \"1bdp\"\n";

fn refused(text: &str) -> String {
    Profile::parse("mine.toml", text).expect_err("refused").to_string()
}

#[test]
fn every_built_in_profile_is_sound() {
    for name in Profile::names() {
        let profile = Profile::load(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(profile.name(), name);
        assert!(!profile.about().is_empty());
    }
    assert_eq!(Profile::names().count(), std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap().count());
}

#[test]
fn the_reference_profile_has_the_numbers_of_the_issue() {
    let wan = Profile::load("wan").unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        let impairment = wan.direction(direction);
        assert_eq!(impairment.delay, Duration::from_millis(25));
        assert_eq!(impairment.rate, 50_000_000);
        // 50 Mbit/s over 50 ms are 312,500 B, 209 packets of 1,500; half of it is on the way in each direction.
        assert_eq!((impairment.queue, impairment.on_the_way(), impairment.limit()), (209, 105, 314));
    }
    assert_eq!(Profile::load("wan-bloat").unwrap().direction(Direction::Forward).queue, 2084);
    assert_eq!(Profile::load("wan-shallow").unwrap().direction(Direction::Forward).queue, 21);
    assert_eq!(Profile::load("wan-loss0.1").unwrap().direction(Direction::Backward).loss, Loss::Random(0.001));
    let burst = Profile::load("wan-burst").unwrap().direction(Direction::Forward).loss;
    assert!((burst.mean() - 0.0099).abs() < 1e-4, "{burst:?}");
}

#[test]
fn a_direction_of_its_own_goes_before_both() {
    let satellite = Profile::load("satellite").unwrap();
    assert_eq!(satellite.direction(Direction::Forward).rate, 20_000_000);
    assert_eq!(satellite.direction(Direction::Backward).rate, 5_000_000);
    assert_eq!(satellite.direction(Direction::Backward).loss, Loss::Random(0.001));
    assert!(!satellite.is_symmetric());
    assert_eq!(satellite.rtt(), Duration::from_millis(600));
}

#[test]
fn jitter_that_mixes_the_order_has_a_stage_of_its_own() {
    let mixed = Profile::load("wan-reorder").unwrap();
    let impairment = mixed.direction(Direction::Forward);
    assert!(mixed.has_delay_stage());
    assert_eq!(impairment.limit(), 209, "nothing is on the way in the stage with the rate");
    assert!(!Profile::load("wan-jitter").unwrap().has_delay_stage());
}

#[test]
fn a_schedule_says_what_holds_when() {
    let seconds = Duration::from_secs;
    let text = format!(
        "{WAN}[[schedule]]\nat = \"1s\"\nuntil = \"3s\"\nrate = \"25mbit\"\n\
         [[schedule]]\nat = \"2s\"\nuntil = \"4s\"\ndirection = \"forward\"\nblackhole = true\n"
    );
    let profile = Profile::parse("x.toml", &text).unwrap();
    assert_eq!(profile.times(), [1, 2, 3, 4].map(seconds));
    let at = |direction, time| {
        let state = profile.state(direction, seconds(time));
        (state.impairment.rate / 1_000_000, state.blackhole)
    };
    assert_eq!([0, 1, 2, 3, 4].map(|time| at(Direction::Forward, time)), [(50, false), (25, false), (25, true), (50, true), (50, false)]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|time| at(Direction::Backward, time)),
        [(50, false), (25, false), (25, false), (50, false), (50, false)]
    );
    assert!(!profile.is_symmetric());
}

#[test]
fn an_error_names_file_key_and_remedy() {
    let with = |line: &str| refused(&format!("{WAN}{line}\n"));
    let negative = refused(&WAN.replace("\"25ms\"", "\"-25ms\""));
    assert_eq!(negative, "mine.toml: both.delay: `-25ms` is negative; a packet can't arrive before it was sent: 0ms is the least");

    let unknown = with("dely = \"5ms\"");
    assert!(unknown.starts_with("mine.toml: ") && unknown.contains("`dely`") && unknown.contains("`delay`"), "{unknown}");

    let limit = with("limit = 100");
    assert!(limit.contains("both.limit") && limit.contains("(BDP)") && limit.contains("at least 314"), "{limit}");

    let loss = with("loss = \"101%\"");
    assert!(loss.contains("both.loss") && loss.contains("100%"), "{loss}");

    let own = with("[forward]\ndelay = \"-1ms\"");
    assert!(own.contains("forward.delay"), "{own}");
}

#[test]
fn contradictions_are_refused() {
    for (line, told) in [
        ("jitter = \"26ms\"", "can't be negative"),
        ("jitter-correlation-time = \"50ms\"", "both.jitter"),
        ("jitter = \"1ms\"\njitter-correlation-time = \"1ms\"", "10ms or more"),
        ("jitter = \"1ms\"\njitter-correlation-time = \"50ms\"\njitter-order = \"mixed\"", "keeps the order"),
        ("jitter = \"1ms\"\njitter-distribution = \"gauss\"", "paretonormal"),
        ("loss = \"1%\"\n[both.gilbert-elliott]\nenter-bad = \"1%\"\nleave-bad = \"1%\"", "leave the other out"),
        ("[both.gilbert-elliott]\nenter-bad = \"1%\"\nleave-bad = \"0%\"", "never change"),
        ("[[schedule]]\nat = \"2s\"\nuntil = \"1s\"\nblackhole = true", "schedule[0].until"),
        ("[[schedule]]\nat = \"2s\"", "one thing"),
        ("[[schedule]]\nat = \"2s\"\nrate = \"1mbit\"\nblackhole = true", "one thing"),
        ("[[schedule]]\nat = \"2s\"\nrate = \"10gbit\"\n[forward]\ndelay = \"3600s\"", "lower the rate"),
        ("[sideways]\ndelay = \"1ms\"", "sideways"),
    ] {
        let error = refused(&format!("{WAN}{line}\n"));
        assert!(error.contains(told), "{line}: {error}");
    }
    assert!(refused("about = \"\"\n[both]\nqueue = \"1 packet\"\n").contains("both.rate"));
    assert!(refused("about = \"\"\n[both]\nrate = \"1mbit\"\n").contains("both.queue"));
    assert!(refused("about = \"\"\n[both]\nrate = \"1mbit\"\nqueue = \"1bdp\"\n").contains("give packets"));
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let error = Profile::load("wam").unwrap_err().to_string();
    assert!(error.contains("`wam`") && error.contains("wan-loss1"), "{error}");
    assert!(matches!(Profile::load("no/such.toml"), Err(ProfileError::File { .. })));
}
