//! Start-up: doubling until the path is full, by whatever shows it first.
//!
//! The bursts' dispersion does before a queue grows. Where they disagree (jitter, the other direction's load), delay slows
//! the growth to a quarter a round, until a round shows that nothing waits, and it ends when there's delay and the rate no
//! longer follows.

use super::{Model, Phase, USED_IN_START_UP, round::Round};

/// The slower growth per round, once there's delay.
const CAREFUL: f64 = 1.25;
/// Rounds without more rate that end it: as BBR while doubling, fewer when each makes a quarter of the queue.
const FLAT_ROUNDS: u32 = 3;
const CAREFUL_FLAT_ROUNDS: u32 = 2;
/// What counts as more rate: BBR's quarter while doubling.
const MORE: f64 = 1.25;
const CAREFUL_MORE: f64 = 1.1;
/// Loss of a round that ends it, as a share: above what any profile loses by itself.
const LOSS: f64 = 0.05;
/// Packets of it at least, so that a short round isn't judged by one packet.
const LOST_PACKETS: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StartUp {
    growth: f64,
    best: f64,
    flat: u32,
}

impl StartUp {
    pub(super) fn new() -> Self {
        Self { growth: 2.0, best: 0.0, flat: 0 }
    }
}

impl Model {
    /// HyStart's delay threshold (RFC 9406, section 4.3), with 1 ms as its lower end, for short paths.
    fn start_up_delay(&self) -> f64 {
        (self.path.base / 8.0).clamp(0.001, 0.016)
    }

    pub(super) fn start_up_on_ack(&mut self, mut state: StartUp, bytes: u64) {
        if self.in_flight >= self.window * USED_IN_START_UP {
            self.window += (state.growth - 1.0) * bytes as f64;
        }
        let queue = self.path.delay().map(|delay| self.one_way.queue().unwrap_or(f64::INFINITY).min(delay - self.path.base));
        if queue.is_some_and(|queue| queue > self.start_up_delay()) {
            state.growth = state.growth.min(CAREFUL);
        }
        self.phase = Phase::StartUp(state);
        if let (Some(queue), Some(delay)) = (self.one_way.queue(), self.path.delay())
            && queue > 2.0 * self.start_up_delay()
        {
            // As the queue was a round trip ago.
            self.window *= (1.0 - queue / delay).max(0.5) / state.growth;
            self.leave_start_up();
            return;
        }
        if let Some(capacity) = self.path.dispersion() {
            let full = capacity * (self.path.base + self.path.target() / 2.0);
            if self.window >= full {
                self.window = full;
                self.path.set_peak(capacity);
                self.leave_start_up();
            }
        }
    }

    pub(super) fn start_up_on_round(&mut self, mut state: StartUp, round: &Round) {
        let rate = round.rate();
        let waits = round.queue >= self.start_up_delay() / 2.0;
        if !waits {
            // Nothing waits: what slowed us was a burst's, or the other direction's (as RFC 9406, section 4.2, goes back).
            (state.growth, state.flat) = (2.0, 0);
            state.best = state.best.max(rate);
        }
        let careful = state.growth <= CAREFUL;
        if rate > state.best * if careful { CAREFUL_MORE } else { MORE } {
            (state.best, state.flat) = (rate, 0);
        } else if waits {
            state.flat += 1;
        }
        let flat = state.flat >= if careful { CAREFUL_FLAT_ROUNDS } else { FLAT_ROUNDS };
        let lossy = round.lost > LOST_PACKETS * self.mtu && round.loss() > LOSS;
        // Twice the threshold, and not by jitter: a flow before us fills the path already.
        let rough = &self.path.roughness;
        let smooth = rough.known() && rough.get() < self.path.target();
        let queued = smooth && round.queue > 2.0 * self.start_up_delay();
        self.phase = Phase::StartUp(state);
        if flat || lossy || queued {
            self.leave_start_up();
            self.window = self.window.min(1.1 * rate * round.rtt);
        }
    }

    fn leave_start_up(&mut self) {
        self.phase = Phase::Steady;
        self.dip.postpone();
        self.path.rates.clear();
        self.path.forget_rounds();
    }
}
