//! The delay law: the window that leaves a small standing queue, whatever is lost.
//!
//! As in FAST TCP (Wei, Jin, Low, Hegde 2006) the window moves half way, once per round trip, towards
//!
//! > window x base / rtt + room
//!
//! so that it rests where our part of the queue is `room`. With `room` proportional to the rate any division among
//! flows would be a rest; with the square root of rate times capacity, flows that see the same queue have the same
//! rate, N of them a queue of sqrt(N) targets.

use super::{Model, round::Round};

/// The most that the window grows in a round.
const MOST_GROWTH: f64 = 1.5;
/// The least growth in a round in which the other side's clock has seen our direction empty.
const EMPTY: f64 = 1.06;
/// The window never exceeds this many times what the path's known rate can use: a wrong base mustn't let it run away.
const MARGIN: f64 = 1.3;
/// The least room, in packets: a flow whose own rate is all it knows of the capacity must still grow.
const LEAST_ROOM: f64 = 3.0;

impl Model {
    pub(super) fn steady(&mut self, round: &Round) {
        if self.dip(round) || self.catches_up(round) || self.meets_company(round) || self.tests_offset(round) {
            return;
        }
        let path = &self.path;
        let (target, capacity) = (path.target(), path.capacity());
        let own = round.rtt - round.queue + self.offset.get();
        let room = ((path.best_rate() * capacity).sqrt() * target).max(LEAST_ROOM * self.mtu as f64);
        let goal = self.window * own / round.rtt + room;
        let sure = if round.empty { EMPTY * self.window } else { 0.0 };
        self.window = ((self.window + goal) / 2.0).max(sure).min(self.window * MOST_GROWTH).min(MARGIN * capacity * (own + 1.5 * target));
    }
}
