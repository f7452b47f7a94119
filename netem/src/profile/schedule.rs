//! What happens when: a blackhole from 20 to 22 s, a rate that halves.

use std::time::Duration;

use super::Impairment;

/// A direction of a path: forward is from `a` to `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From `a` to `b`.
    Forward,
    /// From `b` to `a`.
    Backward,
}

impl Direction {
    /// `forward` or `backward`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Every packet is lost that isn't on the way yet.
    Blackhole,
    /// Another rate, in bit/s. Packets that already wait leave at the old one.
    Rate(u64),
}

/// Something that happens at a time, counted from the schedule's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it begins.
    pub at: Duration,
    /// When it ends and the profile's own numbers come back; `None`: never.
    pub until: Option<Duration>,
    /// Which direction; `None`: both.
    pub direction: Option<Direction>,
    /// What happens.
    pub change: Change,
}

impl Event {
    fn holds(&self, direction: Direction, time: Duration) -> bool {
        self.at <= time && self.until.is_none_or(|until| time < until) && self.direction.is_none_or(|only| only == direction)
    }
}

/// The state of one direction at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// With the rate of that time.
    pub impairment: Impairment,
    /// Where the delay is at the moment, if it wanders.
    pub delay: Option<Duration>,
    /// Whether everything is lost.
    pub blackhole: bool,
}

/// When anything changes, in order, without the beginning.
pub(super) fn times(events: &[Event]) -> Vec<Duration> {
    let mut times: Vec<_> = events.iter().flat_map(|event| [Some(event.at), event.until]).flatten().collect();
    times.sort_unstable();
    times.dedup();
    times
}

/// The state at a time: a blackhole wins, of several rates the one that came last.
pub(super) fn state(base: &Impairment, events: &[Event], direction: Direction, time: Duration) -> State {
    let mut state = State { impairment: base.clone(), delay: None, blackhole: false };
    let mut latest = None;
    for event in events.iter().filter(|event| event.holds(direction, time)) {
        match event.change {
            Change::Blackhole => state.blackhole = true,
            Change::Rate(rate) if latest.is_none_or(|at| at <= event.at) => {
                latest = Some(event.at);
                state.impairment.rate = rate;
            }
            Change::Rate(_) => {}
        }
    }
    state
}
