//! The model over a path that is a formula: a constant rate, a base delay, a queue without end.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::*;

const MTU: u16 = 1200;

/// A path of `rate` bytes per second and `base` seconds, its queue filled by whatever is in flight beyond it.
struct Fluid {
    model: Model,
    now: Instant,
    rate: f64,
    base: f64,
    /// Seconds of queue that somebody else holds.
    foreign: f64,
    /// Seconds that every second eight packets take longer.
    wobble: f64,
    /// As much is received as is acknowledged.
    both_ways: bool,
    /// The other side tells its clock.
    clocks: bool,
    acked: u64,
}

impl Fluid {
    fn new(config: DelayConfig, rate: f64, base: f64) -> Self {
        let now = Instant::now();
        Self { model: Model::new(config, now, MTU), now, rate, base, foreign: 0.0, wobble: 0.0, both_ways: false, clocks: false, acked: 0 }
    }

    fn rtt(&self) -> f64 {
        (self.model.window() as f64 / self.rate).max(self.base + self.foreign)
    }

    /// One round trip: a whole window is acknowledged, two packets at a time, evenly; so many bytes of it are lost.
    fn round(&mut self, lost: u64) {
        let window = self.model.window();
        let rtt = self.rtt();
        let pairs = (window / (2 * u64::from(MTU))).max(1);
        for _ in 0..pairs {
            self.now += Duration::from_secs_f64(rtt / pairs as f64);
            let wobble = if (self.acked / (8 * u64::from(MTU))).is_multiple_of(2) { 0.0 } else { self.wobble };
            let sent = self.now.checked_sub(Duration::from_secs_f64(rtt + wobble)).unwrap();
            self.model.on_ack(self.now, sent, u64::from(MTU));
            self.model.on_ack(self.now, sent, u64::from(MTU));
            self.acked += 2 * u64::from(MTU);
            if self.both_ways {
                self.model.on_received(self.acked);
            }
            if self.clocks {
                let queue = (window as f64 / self.rate - self.base - self.foreign).max(0.0);
                self.model.on_clocks(1_000_000 + (queue * 1e6) as u32);
            }
            self.model.on_acks_end(self.now, self.model.window());
        }
        if lost > 0 {
            self.model.on_lost(self.now, lost, false);
        }
    }

    /// One round trip without a queue, in which so many bytes come through, at most, and this share of them.
    fn shallow_round(&mut self, most: f64, kept: f64) -> u64 {
        let window = self.model.window();
        let through = (kept * window as f64).min(most) as u64;
        let pairs = (through / (2 * u64::from(MTU))).max(1);
        let sent = self.now;
        for i in 1..=pairs {
            let now = sent + Duration::from_secs_f64(self.base * (1.0 + i as f64 / pairs as f64));
            self.model.on_ack(now, now.checked_sub(Duration::from_secs_f64(self.base)).unwrap(), 2 * u64::from(MTU));
            self.model.on_acks_end(now, window);
        }
        self.now = sent + Duration::from_secs_f64(self.base);
        let lost = window.saturating_sub(2 * u64::from(MTU) * pairs);
        if lost > 0 {
            self.model.on_lost(self.now, lost, false);
        }
        lost
    }

    /// One round trip in which the application sends a burst of so many packets, which the path's rate spreads.
    fn burst(&mut self, packets: u64) {
        let sent = self.now;
        self.now += Duration::from_secs_f64(self.base);
        for left in (0..packets).rev().step_by(2) {
            self.now += Duration::from_secs_f64(2.0 * f64::from(MTU) / self.rate);
            self.model.on_ack(self.now, sent, u64::from(MTU));
            self.model.on_ack(self.now, sent, u64::from(MTU));
            self.model.on_acks_end(self.now, left * u64::from(MTU));
        }
    }

    fn queue(&self) -> f64 {
        self.rtt() - self.base
    }
}

#[test]
fn rests_at_a_small_queue_and_a_full_link_from_any_loss() {
    for lost in [0, 10, 30] {
        let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
        for _ in 0..150 {
            let window = path.model.window();
            path.round(window * lost / 1000);
        }
        assert!(path.queue() > 0.0 && path.queue() < 0.003, "{lost} per mille lost: {} s of queue", path.queue());
    }
}

#[test]
fn the_least_window_is_ten_packets_or_a_trickle_over_the_round_trip() {
    let path = Fluid::new(DelayConfig::default(), 1e3, 0.01);
    assert_eq!(path.model.window(), 12_000);
    let mut path = Fluid::new(DelayConfig::default(), 1e6, 0.3);
    path.round(0);
    path.model.window = 0.0;
    assert_eq!(path.model.window(), (128_000.0 * path.model.path.base) as u64);
}

#[test]
fn a_round_that_the_application_limits_changes_nothing() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    let before = path.model.window();
    for _ in 0..20 {
        path.now += Duration::from_millis(80);
        path.model.on_ack(path.now, path.now.checked_sub(Duration::from_millis(80)).unwrap(), 1200);
        path.model.on_acks_end(path.now, 0);
    }
    assert_eq!(path.model.window(), before);
}

#[test]
fn a_slow_application_neither_opens_the_window_nor_ends_start_up_for_good() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..200 {
        path.burst(8);
    }
    let quiet = path.model.window();
    assert!(quiet < 100_000, "{quiet}");
    // Whatever phase that has led to: now there's more to send.
    path.model.phase = Phase::Steady;
    for _ in 0..20 {
        path.round(0);
    }
    assert!(path.model.window() > 200_000, "{} after 20 round trips", path.model.window());
}

#[test]
fn a_path_stays_as_wide_as_the_bursts_showed_when_they_no_longer_agree() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    // Rounds that the window limits, whatever else the bursts have led to.
    let burst = |path: &mut Fluid| {
        (path.model.phase, path.model.window) = (Phase::StartUp(StartUp::new()), 12_000.0);
        path.burst(10);
    };
    for _ in 0..40 {
        burst(&mut path);
    }
    let shown = path.model.bottleneck().unwrap();
    for i in 0..100 {
        path.rate = if i % 2 == 0 { 5e6 } else { 1e6 };
        burst(&mut path);
    }
    assert_eq!(path.model.bottleneck(), None);
    assert!(path.model.path.width() > 0.9 * shown as f64, "{}", path.model.path.width());
}

#[test]
fn a_rival_queue_is_met_and_its_absence_noticed() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    path.foreign = 0.04;
    let mut met = false;
    for _ in 0..100 {
        path.round(0);
        met |= path.model.phase == Phase::Company;
    }
    assert!(met);
    path.foreign = 0.0;
    for _ in 0..100 {
        path.round(0);
    }
    assert_eq!(path.model.phase, Phase::Steady);
    assert!(path.queue() < 0.005, "{}", path.queue());

    let alone = DelayConfig { company: false, ..DelayConfig::default() };
    let mut path = Fluid::new(alone, 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    path.foreign = 0.04;
    for _ in 0..100 {
        path.round(0);
    }
    assert!(path.model.window() < 100_000, "without the mechanism it gives way: {}", path.model.window());
}

#[test]
fn what_is_lost_beside_a_rival_isnt_sent_again_at_once() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    path.foreign = 0.04;
    while path.model.phase != Phase::Company {
        path.round(0);
    }
    path.round(1200);
    let before = path.model.window();
    path.model.on_lost(path.now, 6000, false);
    assert_eq!(path.model.window(), before - 6000);
    path.round(1200);
    assert!((path.model.window() as f64) < 1.1 * before as f64);
    for _ in 0..200 {
        path.round(1200);
    }
    let part = path.model.window() as f64 / (5e6 * path.rtt());
    assert!((0.4..0.6).contains(&part), "{part} of the path's content");
}

#[test]
fn start_up_goes_on_while_nothing_waits_in_the_queue() {
    let after = |rtt: f64| {
        let now = Instant::now();
        let mut model = Model::new(DelayConfig::default(), now, MTU);
        model.path.base = 0.05;
        for _ in 0..6 {
            if let Phase::StartUp(state) = model.phase {
                // The rate doesn't grow.
                let round = Round {
                    end: now,
                    elapsed: rtt,
                    rtt,
                    queue: rtt - 0.05,
                    by_clock: false,
                    empty: false,
                    acked: 12_000,
                    lost: 0,
                    in_flight: 12_000.0,
                };
                model.start_up_on_round(state, &round);
            }
        }
        model.phase
    };
    assert!(matches!(after(0.0505), Phase::StartUp(_)));
    assert_eq!(after(0.06), Phase::Steady);
}

#[test]
fn half_of_an_empty_path_is_taken_quickly_and_no_more_than_most_of_it() {
    let after = |config| {
        let mut path = Fluid::new(config, 5e6, 0.05);
        for _ in 0..20 {
            path.burst(10);
        }
        assert!(path.model.path.dispersion().is_some());
        (path.model.phase, path.model.window) = (Phase::Steady, 40_000.0);
        for _ in 0..4 {
            path.round(0);
        }
        let soon = path.model.window();
        for _ in 0..5 {
            path.round(0);
        }
        [soon, path.model.window()]
    };
    let [soon, later] = after(DelayConfig::default());
    assert!(soon >= 120_000 && later < 190_000, "{soon}, {later} of 250,000");
    let [_, later] = after(DelayConfig { catch_up: false, ..DelayConfig::default() });
    assert!(later < 100_000, "without the mechanism {later}");
}

#[test]
fn a_loaded_other_direction_doesnt_hold_this_one_down() {
    let after = |config| {
        let mut path = Fluid::new(config, 5e6, 0.05);
        for _ in 0..60 {
            path.round(0);
        }
        // The other direction's queue, and its bursts.
        (path.foreign, path.wobble, path.both_ways) = (0.003, 0.0003, true);
        for _ in 0..200 {
            path.round(0);
        }
        path.model.window() as f64 / (5e6 * path.rtt())
    };
    let reached = after(DelayConfig::default());
    assert!(reached > 0.9, "{reached} of the rate");
    let reached = after(DelayConfig { both_ways: false, ..DelayConfig::default() });
    assert!(reached < 0.8, "without the mechanism {reached}");
}

#[test]
fn the_other_sides_clock_tells_whose_queue_it_is() {
    let after = |config| {
        let mut path = Fluid::new(config, 5e6, 0.05);
        (path.both_ways, path.clocks) = (true, true);
        for _ in 0..60 {
            path.round(0);
        }
        // A smooth queue of the other direction, larger than any that would be guessed.
        path.foreign = 0.015;
        for _ in 0..100 {
            path.round(0);
        }
        let window = path.model.window() as f64;
        [window / (5e6 * path.rtt()), window / 5e6 - path.base - path.foreign]
    };
    let [reached, queue] = after(DelayConfig::default());
    assert!(reached > 0.97 && queue < 0.003, "{reached} of the rate, {queue} s of queue");
    let [reached, _] = after(DelayConfig { one_way: false, ..DelayConfig::default() });
    assert!(reached < 0.5, "without the mechanism {reached}");
}

#[test]
fn a_clock_that_always_says_nothing_waits_isnt_believed_for_ever() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    path.both_ways = true;
    for _ in 0..200 {
        (0..8).for_each(|_| path.model.on_clocks(7));
        path.round(0);
    }
    // Twice the path's delay may be another's; the base is looked at every ten seconds.
    assert!(path.queue() < 4.0 * path.base, "{} s of queue", path.queue());
}

#[test]
fn start_up_ends_by_the_queue_of_its_own_direction() {
    let after = |queue: u32| {
        let now = Instant::now();
        let mut model = Model::new(DelayConfig::default(), now, MTU);
        // Both directions' queues together are the same.
        for (rtt, difference) in [(50, 0), (50, 0), (80, queue), (80, queue), (80, queue), (80, queue)] {
            model.on_clocks(difference);
            for _ in 0..2 {
                model.on_ack(now + Duration::from_millis(rtt), now, u64::from(MTU));
            }
        }
        for _ in 0..8 {
            model.on_ack(now + Duration::from_millis(80), now, u64::from(MTU));
        }
        model.phase
    };
    assert!(matches!(after(1000), Phase::StartUp(_)));
    assert_eq!(after(29_000), Phase::Steady);
}

#[test]
fn a_window_beside_a_rival_isnt_shrunk_by_what_the_pacer_holds_back() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    path.foreign = 0.04;
    while path.model.phase != Phase::Company {
        path.round(0);
    }
    path.round(0);
    let window = path.model.window();
    let sent = path.now.checked_sub(Duration::from_secs_f64(path.rtt())).unwrap();
    // ACKs come in a clump, faster than the pacer lets packets go.
    for left in 1..=10 {
        path.model.on_ack(path.now, sent, u64::from(MTU));
        path.model.on_acks_end(path.now, window - left * u64::from(MTU));
    }
    assert!(path.model.window() >= window, "{} of {window}", path.model.window());
}

#[test]
fn persistent_congestion_starts_over() {
    let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
    for _ in 0..60 {
        path.round(0);
    }
    assert!(path.model.window() > 200_000);
    path.model.on_lost(path.now, 200_000, true);
    assert_eq!(path.model.window(), 12_000);
    assert!(matches!(path.model.phase, Phase::StartUp(_)));
    assert_eq!((path.model.path.capacity(), path.model.bottleneck()), (0.0, None));
}

#[test]
fn loss_that_less_in_flight_ends_is_a_rivals_and_loss_that_stays_is_the_paths() {
    let full = 250_000.0;
    let after = |most: f64, kept: f64| {
        let mut path = Fluid::new(DelayConfig::default(), 5e6, 0.05);
        for _ in 0..60 {
            path.round(0);
        }
        let (mut sent, mut lost) = (0, 0);
        for _ in 0..600 {
            sent += path.model.window();
            lost += path.shallow_round(most, kept);
        }
        (sent as f64 / 600.0 / full, lost as f64 / sent as f64)
    };
    // Somebody leaves a fifth of a path without a queue.
    let (sent, lost) = after(0.2 * full, 1.0);
    assert!(lost < 0.2, "{lost} of {sent} of the path lost");
    // A third is lost of whatever is sent.
    let (sent, _) = after(full, 0.67);
    assert!(sent > 0.7, "{sent} of the path");
}
