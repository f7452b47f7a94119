//! Company: a rival that fills the queue, which a flow that avoids delay would leave the path to.
//!
//! It's recognised by what flows of this kind don't do to each other: a queue well above what our own number would
//! explain, for several rounds, while our rate is well below the path's. Then the window is CUBIC's (RFC 9438), driven
//! by those losses that come with a full queue, and kept near half of the path's content: a policy for one rival. Beside
//! several it takes more than a fair share, which is said in the documentation.

use std::time::{Duration, Instant};

use super::{Model, Phase, after, round::Round};

/// A rate below this share of the capacity, with the queue, for so many rounds.
const SHORT: f64 = 0.75;
const ROUNDS: u32 = 8;
/// The queue that tells: this share of the round trip, at least so many targets, or as many times what flows of our kind make.
const QUEUE: f64 = 0.2;
const TARGETS: f64 = 4.0;
const OURS: f64 = 3.0;
/// The window's bounds, as shares of capacity x round trip.
const LEAST_SHARE: f64 = 0.45;
const MOST_SHARE: f64 = 0.58;
/// RFC 9438, sections 4.6 and 5: the factor after a loss and the constant of growth, in packets per cubic second.
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// A loss counts where the delay then was above this share of the highest queue lately.
const FULL: f64 = 0.7;
/// What that highest queue keeps per round.
const FORGET: f64 = 0.98;
/// We stay so long at least; each return within [`SOON`] doubles it.
const STAY: Duration = Duration::from_secs(2);
const STAY_MOST: Duration = Duration::from_secs(16);
const SOON: Duration = Duration::from_secs(5);
/// No full queue's loss for so long: it's no rival but a longer path.
const QUIET: Duration = Duration::from_secs(10);
/// A rate above this share of the capacity: the rival is gone.
const ALONE: f64 = 0.9;

#[derive(Debug, Clone)]
pub(super) struct Company {
    crowded: u32,
    stay: Duration,
    until: Instant,
    left: Instant,
    high_queue: f64,
    w_max: f64,
    k: f64,
    epoch: Instant,
}

impl Company {
    pub(super) fn new(now: Instant) -> Self {
        Self { crowded: 0, stay: STAY, until: now, left: now, high_queue: 0.0, w_max: 0.0, k: 0.0, epoch: now }
    }
}

impl Model {
    fn crowd_queue(&self) -> f64 {
        (QUEUE * self.path.base).max(TARGETS * self.path.target()) + 4.0 * self.path.roughness.get()
    }

    /// Whether there's a rival.
    pub(super) fn meets_company(&mut self, round: &Round) -> bool {
        let path = &self.path;
        let capacity = path.width();
        let ours = OURS * path.target() * (capacity / path.rate).sqrt() + 4.0 * path.roughness.get();
        let crowded = round.rtt - path.base > self.crowd_queue().min(ours) && path.rate < SHORT * capacity;
        self.company.crowded = if crowded { self.company.crowded + 1 } else { 0 };
        if !self.config.company || self.company.crowded < ROUNDS {
            return false;
        }
        self.phase = Phase::Company;
        self.offset.clear();
        // Half of the path at once: growing there would take CUBIC half a minute. Losses decide from here.
        self.window = self.window.max(0.5 * capacity * round.rtt);
        self.path.next_base = round.rtt;
        let soon = !after(round.end, self.company.left, SOON);
        let stay = if soon { (self.company.stay * 2).min(STAY_MOST) } else { STAY };
        self.company = Company {
            crowded: 0,
            stay,
            until: round.end + stay,
            left: self.company.left,
            high_queue: round.rtt - self.path.base,
            w_max: self.window,
            k: 0.0,
            epoch: round.end,
        };
        true
    }

    pub(super) fn company(&mut self, round: &Round) {
        let queue = round.rtt - self.path.base;
        let capacity = self.path.width();
        let whole = capacity * round.rtt;
        let state = &mut self.company;
        state.high_queue = (state.high_queue * FORGET).max(queue);
        let elapsed = round.end.saturating_duration_since(state.epoch).as_secs_f64();
        let cubic = C * (elapsed - state.k).powi(3) * self.mtu as f64 + state.w_max;
        self.window = cubic.clamp(self.window * 0.5, self.window * 1.5).clamp(LEAST_SHARE * whole, MOST_SHARE * whole);
        let quiet = after(round.end, state.epoch, QUIET);
        let stayed = round.end > state.until;
        let free = self.path.rate > ALONE * capacity || queue < self.crowd_queue() / 2.0;
        if stayed && (free || quiet) {
            if quiet {
                self.path.renew_base(round);
            }
            self.phase = Phase::Steady;
            self.company.left = round.end;
            self.dip.postpone();
        }
    }

    pub(super) fn company_on_lost(&mut self, now: Instant, sent: Instant) {
        let full = self.path.delay().is_some_and(|delay| delay - self.path.base > FULL * self.company.high_queue);
        // Once per round trip.
        if !full || sent <= self.company.epoch {
            return;
        }
        // Fast convergence, RFC 9438, section 4.7.
        let w_max = if self.window < self.company.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window *= BETA;
        self.company.k = ((w_max - self.window).max(0.0) / self.mtu as f64 / C).cbrt();
        (self.company.w_max, self.company.epoch) = (w_max, now);
    }
}
