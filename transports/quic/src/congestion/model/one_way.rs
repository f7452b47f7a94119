//! The delay of our own direction, by the other side's clock.
//!
//! Where both directions are loaded a round trip is two queues, and only one is ours. Each end that took the sum for its own
//! queue would leave its direction to the other end's. So the driver asks the other side now and then what its clock says when a
//! packet comes. The clocks' difference is unknown but constant: what exceeds its least is the queue before us, as in LEDBAT
//! (RFC 6817), and all other delay is part of the path.

use std::{collections::VecDeque, time::Instant};

use super::{after, path::BASE_MEMORY};

/// Answers that make a round's least one worth something, where there's jitter too.
const ENOUGH: u32 = 6;
/// Answers among which the least is the delay now.
const RECENT: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct OneWay {
    /// The first difference, from which the others are counted, so that they may wrap around.
    origin: Option<u32>,
    /// The least since the last time but one that it was renewed, and since the last. Seconds.
    base: f64,
    next_base: f64,
    base_at: Instant,
    /// The least and the most of this round, of how many, and the latest. Seconds.
    least: f64,
    most: f64,
    heard: u32,
    latest: VecDeque<f64>,
}

impl OneWay {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            origin: None,
            base: f64::INFINITY,
            next_base: f64::INFINITY,
            base_at: now,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
            heard: 0,
            latest: VecDeque::new(),
        }
    }

    /// The clocks' difference, as of the latest packet that is answered. Microseconds, modulo 2^32.
    pub(super) fn on_difference(&mut self, difference: u32) {
        let origin = *self.origin.get_or_insert(difference);
        let delay = f64::from(difference.wrapping_sub(origin).cast_signed()) * 1e-6;
        self.base = self.base.min(delay);
        self.next_base = self.next_base.min(delay);
        self.least = self.least.min(delay);
        self.most = self.most.max(delay);
        self.heard += 1;
        if self.latest.len() == RECENT {
            self.latest.pop_front();
        }
        self.latest.push_back(delay);
    }

    /// The queue before us now, by the least of the last few answers. `None`: too little was heard in a round.
    pub(super) fn queue(&self) -> Option<f64> {
        (self.latest.len() == RECENT).then(|| self.latest.iter().copied().fold(f64::INFINITY, f64::min) - self.base)
    }

    /// The least and the largest queue in the round that ended `now`, if enough was heard of it. `ages`: no rival's queue may become the
    /// base.
    pub(super) fn end_round(&mut self, now: Instant, ages: bool) -> Option<(f64, f64)> {
        let least = std::mem::replace(&mut self.least, f64::INFINITY);
        let most = std::mem::replace(&mut self.most, f64::NEG_INFINITY);
        if std::mem::take(&mut self.heard) < ENOUGH {
            self.latest.clear();
            return None;
        }
        let queues = (least - self.base, most - self.base);
        // The clocks may run apart by some microseconds a second: what is old is forgotten.
        if ages && after(now, self.base_at, BASE_MEMORY) {
            (self.base, self.next_base, self.base_at) = (self.next_base, least, now);
        }
        Some(queues)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_exceeds_the_least_difference_is_queue_whatever_the_clocks_say() {
        let mut now = Instant::now();
        let mut one_way = OneWay::new(now);
        // The difference wraps around.
        for delay in [0, 200, 3000, 3000, 3000, 4000u32] {
            one_way.on_difference(delay.wrapping_sub(100));
        }
        assert_eq!(one_way.queue(), Some(0.003));
        assert_eq!(one_way.end_round(now, true), Some((0.0, 0.004)));
        assert_eq!(one_way.end_round(now, true), None, "nothing was heard");
        assert_eq!(one_way.queue(), None, "and what is old isn't told");
        // The other clock runs faster: after two terms its first difference is forgotten.
        for _ in 0..2 {
            now += BASE_MEMORY;
            (0..ENOUGH).for_each(|_| one_way.on_difference(5000));
            one_way.end_round(now + Duration::from_millis(1), true);
        }
        (0..ENOUGH).for_each(|_| one_way.on_difference(5000));
        assert_eq!(one_way.end_round(now, true), Some((0.0, 0.0)));
    }
}
