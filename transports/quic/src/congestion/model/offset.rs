//! Delay that isn't ours: jitter, the other direction's queue.
//!
//! A queue's delay costs no rate, so with less of it we'd be as fast; delay that isn't our queue's makes the law shrink
//! the window and the rate. Where the rate falls below what it was, the window steps up for a few rounds. Does the
//! delay answer as our own queue would, then what was expected is too much; if not, the delay before the step wasn't
//! ours, and the law counts it as part of the path. It's tried only where the delay is rough: among smooth flows a step
//! would only take from others what the law divides. Where the other direction is loaded too, less roughness will do and
//! less is believed.

use std::time::{Duration, Instant};

use super::{
    Model, after,
    path::{Path, RATE_MEMORY},
    round::Round,
};

/// A rate below this share of what it was calls for a test, one above this lets the offset fade. What is short of all is given for
/// a shorter queue: in the lab, at 0.95 and 0.97 a wandering delay has a higher p99.9, at 0.92 and 0.94 a lower p99 by 2 ms.
const SHORT: f64 = 0.93;
const FINE: f64 = 0.95;
/// The largest step of the window: a quarter of the path's content as queue, if it was wrong.
const STEP: f64 = 1.25;
/// Rounds of a test, and how many of them count: the step's effect takes one to come back.
const ROUNDS: u32 = 4;
/// How readily delay is taken for another's.
struct Belief {
    /// Roughness, as a share of the target queue, that allows tests once its average is settled.
    rough: f64,
    /// How much of the delay that a test has shown not to be ours is believed.
    believed: f64,
    /// What is left of the offset after each fine round: the jitter may have gone.
    fade: f64,
    /// The offset's bound, as a share of the base, beside four times the roughness. Beyond it's a rival's queue.
    most: f64,
}

const ONE_WAY: Belief = Belief { rough: 0.36, believed: 1.0, fade: 0.95, most: 0.3 };
/// The other direction's bursts are less rough than jitter. Part of its delay is made by our own queue, behind which its ACKs
/// wait, and two ends that blamed each other for all of it would keep it: in the lab 10 ms.
const BOTH_WAYS: Belief = Belief { rough: 0.1, believed: 0.5, fade: 0.93, most: 0.15 };
/// The same, seconds, where the base is next to nothing.
const MOST_LEAST: f64 = 0.001;
/// After a test that lost packets: no other for so long.
const PENANCE: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy)]
struct Test {
    /// Before the step.
    window: f64,
    queue: f64,
    rounds: u32,
    /// Since the step took effect.
    queues: f64,
    acked: f64,
    elapsed: f64,
    lost: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Offset {
    delay: f64,
    /// The other direction is loaded too.
    pub(super) both_ways: bool,
    /// The rate that ought to be reached. Bytes per second.
    reach: f64,
    next_reach: f64,
    reach_at: Instant,
    /// The dispersion isn't asked until then: a test has shown it wrong.
    distrust_until: Instant,
    test: Option<Test>,
    not_before: Instant,
}

impl Offset {
    pub(super) fn new(now: Instant) -> Self {
        Self { delay: 0.0, both_ways: false, reach: 0.0, next_reach: 0.0, reach_at: now, distrust_until: now, test: None, not_before: now }
    }

    /// Seconds.
    pub(super) fn get(&self) -> f64 {
        self.delay
    }

    pub(super) fn at_most(&mut self, delay: f64) {
        self.delay = self.delay.min(delay);
    }

    pub(super) fn stop_test(&mut self) {
        self.test = None;
    }

    pub(super) fn clear(&mut self) {
        (self.delay, self.test) = (0.0, None);
    }

    pub(super) fn on_rate(&mut self, now: Instant, rate: f64) {
        if after(now, self.reach_at, RATE_MEMORY) {
            (self.reach, self.next_reach, self.reach_at) = (self.next_reach, rate, now);
        }
        self.reach = self.reach.max(rate);
        self.next_reach = self.next_reach.max(rate);
    }

    /// The rate that ought to be reached.
    fn reach(&self, now: Instant, path: &Path) -> f64 {
        match path.dispersion() {
            Some(capacity) if now >= self.distrust_until => capacity.max(self.reach),
            _ => self.reach,
        }
    }

    fn belief(&self) -> &'static Belief {
        if self.both_ways { &BOTH_WAYS } else { &ONE_WAY }
    }

    fn bound(&self, path: &Path) -> f64 {
        (self.belief().most * path.base).max(MOST_LEAST) + 4.0 * path.roughness.get()
    }

    /// Starts a test if the rate is short: by how much the window is to grow.
    fn start(&mut self, round: &Round, path: &Path, window: f64) -> Option<f64> {
        let reach = self.reach(round.end, path);
        if path.rate > FINE * reach {
            self.delay *= self.belief().fade;
        }
        let target = path.target();
        let possible = (target..self.bound(path) + target).contains(&round.queue);
        if !path.averaged() || path.rate >= SHORT * reach || round.end < self.not_before || !possible {
            return None;
        }
        let counted = path.rounds.iter().skip(1);
        let queue = counted.map(|round| round.queue).sum::<f64>() / f64::from(ROUNDS - 1);
        self.test = Some(Test { window, queue, rounds: 0, queues: 0.0, acked: 0.0, elapsed: 0.0, lost: 0.0 });
        Some((1.02 * reach / path.rate).min(STEP))
    }

    /// The last round of a test is over: the window to go back to, or `None`: it stays.
    fn judge(&mut self, test: &Test, round: &Round, path: &Path, window: f64, mtu: f64) -> Option<f64> {
        self.not_before = round.end + Duration::from_secs_f64(f64::from(ROUNDS) * round.rtt);
        let reach = self.reach(round.end, path);
        let queue = test.queues / f64::from(ROUNDS - 1);
        let queued = queue - test.queue > 0.5 * (window - test.window) / reach;
        // Half more than usual and three standard deviations: chance, in a test of some hundred packets, loses as much rarely.
        let packets = (test.acked + test.lost) / mtu;
        let usual = path.loss * packets;
        let lossy = test.lost / mtu > 1.5 * usual + 0.003 * packets + 3.0 * usual.sqrt() + 4.0;
        if !queued && !lossy {
            let seen = test.queue - path.target();
            self.delay = (self.delay + self.belief().believed * (seen - self.delay).max(0.0)).min(self.bound(path));
            return None;
        }
        // Half way: the other direction's queue may have spoken instead of ours.
        self.reach = (reach + test.acked / test.elapsed) / 2.0;
        self.next_reach = self.next_reach.min(self.reach);
        self.distrust_until = round.end + RATE_MEMORY;
        if lossy {
            self.delay = 0.0;
            self.not_before = round.end + PENANCE;
        }
        Some(test.window)
    }
}

impl Model {
    /// Whether a test of the offset decides about this round.
    pub(super) fn tests_offset(&mut self, round: &Round) -> bool {
        let rough = &self.path.roughness;
        let enough = self.offset.belief().rough;
        let allowed = rough.get() > self.path.target() || rough.settled() && rough.get() > enough * self.path.target();
        if !self.config.offset || !allowed && self.offset.test.is_none() {
            return false;
        }
        let Some(mut test) = self.offset.test.take() else {
            let step = self.offset.start(round, &self.path, self.window);
            self.window *= step.unwrap_or(1.0);
            return step.is_some();
        };
        test.rounds += 1;
        if test.rounds > 1 {
            test.queues += round.queue;
            test.acked += round.acked as f64;
            test.elapsed += round.elapsed;
            test.lost += round.lost as f64;
        }
        if test.rounds < ROUNDS {
            self.offset.test = Some(test);
            return true;
        }
        if let Some(window) = self.offset.judge(&test, round, &self.path, self.window, self.mtu as f64) {
            self.window = window;
            self.path.forget_rounds();
        }
        false
    }
}
