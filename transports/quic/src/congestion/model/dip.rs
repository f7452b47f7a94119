//! The dip: now and then a little less in flight, for a round trip and a half, so that our own queue drains and the
//! least round trip is the path's again. A flow that always keeps a queue would take it for the path's delay.

use std::time::{Duration, Instant};

use super::{Model, after, path::BASE_MEMORY, round::Round};

/// The window meanwhile, of what is in flight without a queue: drains a queue of up to 15% of the round trip.
const DEPTH: f64 = 0.85;
/// What the path's delay may be taken for by the other side's clock, in base round trips: times the depth less than one, so that a
/// clock that lies hides no queue for ever.
const MOST_OWN: f64 = 1.15;
/// How long it lasts, in round trips: until the effect has been seen.
const LENGTH: f64 = 1.5;

#[derive(Debug, Clone)]
pub(super) struct Dip {
    last: Option<Instant>,
    until: Option<Instant>,
    window: f64,
    delay: f64,
}

impl Dip {
    pub(super) fn new() -> Self {
        Self { last: None, until: None, window: 0.0, delay: f64::INFINITY }
    }

    /// The next one is due a whole interval after the next round.
    pub(super) fn postpone(&mut self) {
        (self.last, self.until) = (None, None);
    }
}

impl Model {
    /// Whether a dip decides about this round.
    pub(super) fn dip(&mut self, round: &Round) -> bool {
        if let Some(until) = self.dip.until {
            self.dip.delay = self.dip.delay.min(round.queue);
            if round.end >= until {
                self.offset.at_most(self.dip.delay);
                self.path.forget_rounds();
                self.dip.until = None;
                self.window = self.dip.window;
            }
            return true;
        }
        let last = *self.dip.last.get_or_insert(round.end);
        if !self.config.dip || !after(round.end, last, BASE_MEMORY) {
            return false;
        }
        self.dip = Dip {
            last: Some(round.end),
            until: Some(round.end + Duration::from_secs_f64(round.rtt * LENGTH)),
            window: self.window,
            delay: f64::INFINITY,
        };
        self.offset.stop_test();
        let own = (round.rtt - round.queue).min(MOST_OWN * self.path.base) + self.offset.get();
        self.window = self.window.min(DEPTH * self.path.best_rate() * own);
        true
    }
}
