//! What the peers of a star tell each other beside the network: when it begins, who has merged what, and when it's over.

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use peerlane_transport::identity::{PeerAddr, PeerId};
use tokio::sync::{Barrier, Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{AUTHOR, HUB, MEMBERS};
use crate::bench::{
    Case, End, Measurement, Offered,
    error::LabError,
    load::{Pushed, Taken, latencies, poisson},
    measurement::Times,
};

/// Shared by the threads of a star.
#[derive(Debug)]
pub(in crate::bench) struct Board {
    pub(super) case: Case,
    /// When operations are due, from the start on.
    pub(super) due: Vec<Duration>,
    /// Who the author is.
    pub(super) author: OnceLock<PeerId>,
    /// Where the hub listens.
    pub(super) hub: watch::Sender<Option<PeerAddr>>,
    /// All are connected.
    pub(super) connected: Barrier,
    /// The measurement is over, or somebody has failed.
    pub(in crate::bench) over: CancellationToken,
    /// Bytes of the flood that leaves took, all of them together, and that the hub took.
    pub(super) taken: [Taken; 2],
    /// What an open-loop flood has offered to all leaves together.
    pub(super) pushed: Pushed,
    /// All operations have propagated.
    pub(super) done: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Operations that each member has.
    have: [usize; MEMBERS],
    /// By operation: how many members have it, and when the last one got it.
    merged: Vec<(usize, Option<Instant>)>,
    propagated: usize,
    ends: [Option<End>; MEMBERS],
}

/// What was counted until a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    at: Instant,
    taken: [u64; 2],
    offered: Offered,
}

impl Board {
    pub(in crate::bench) fn new(case: &Case) -> Self {
        let work = &case.workload;
        let due = poisson(work.rate, work.warm_up.saturating_add(work.duration), case.seed);
        let state = State { have: [0; MEMBERS], merged: vec![(0, None); due.len()], propagated: 0, ends: Default::default() };
        Self {
            case: case.clone(),
            due,
            author: OnceLock::new(),
            hub: watch::Sender::new(None),
            connected: Barrier::new(MEMBERS),
            over: CancellationToken::new(),
            taken: Default::default(),
            pushed: Pushed::default(),
            done: Notify::new(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that's done under it can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member has the author's first `count` operations now.
    pub(super) fn has(&self, member: usize, count: usize, now: Instant) {
        let state = &mut *self.state();
        let Some(had) = state.have.get_mut(member) else { return };
        let news = std::mem::replace(had, count.max(*had))..count;
        for (members, last) in state.merged.get_mut(news).unwrap_or_default() {
            (*members, *last) = (*members + 1, Some(now));
            state.propagated += usize::from(*members == MEMBERS);
        }
        if state.propagated == state.merged.len() {
            self.done.notify_one();
        }
    }

    /// What a member's connection was like at the end: the author's with the hub, or the hub's with the author.
    pub(super) fn ends(&self, member: usize, end: End) {
        if let Some(place) = self.state().ends.get_mut(member) {
            *place = Some(end);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { at: Instant::now(), taken: self.taken.each_ref().map(Taken::bytes), offered: self.pushed.now() }
    }

    /// What came of it: the operations due after the warm-up and before `to`, and what the flood did from the one moment to the other.
    /// The ends' paths are told later.
    pub(super) fn sum_up(&self, start: Instant, [from, to]: [Counts; 2], lateness: Times, complete: bool) -> Result<Measurement, LabError> {
        let (work, state) = (&self.case.workload, self.state());
        let took = |(due, (members, last)): (&Duration, &(usize, Option<Instant>))| {
            last.filter(|_| *members == MEMBERS).map(|last| last.saturating_duration_since(start + *due))
        };
        let all: Vec<_> = self.due.iter().zip(self.due.iter().zip(&state.merged).map(took)).collect();
        let counted = all.into_iter().filter(|(due, _)| **due >= work.warm_up && start + **due < to.at);
        let (latency, unfinished) = latencies(counted, start.elapsed())?;
        let [leaves, hub] = std::array::from_fn(|i| to.taken[i].saturating_sub(from.taken[i]));
        let links = (MEMBERS - 1) as u64;
        let offered = to.offered.since(from.offered);
        Ok(Measurement {
            latency,
            unfinished,
            lateness,
            // Of one link: all leaves have one of their own, and all of them share the hub's.
            belief_bytes: leaves / links,
            belief_bytes_back: hub,
            offered: self.case.offered_bps.map(|_| Offered { messages: offered.messages / links, refused: offered.refused / links }),
            window: to.at.saturating_duration_since(from.at),
            complete,
            ..Measurement::empty()?
        })
    }

    /// The author's end and the hub's, once all have ended.
    pub(in crate::bench) fn take_ends(&self) -> [End; 2] {
        let mut state = self.state();
        [AUTHOR, HUB].map(|member| state.ends.get_mut(member).and_then(Option::take).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::{Flood, Rival, Variant, Workload};

    #[test]
    fn an_operation_has_propagated_when_the_last_one_has_it() {
        let workload = Workload { rate: 20.0, warm_up: Duration::ZERO, duration: Duration::from_secs(1), ..Workload::default() };
        let variant = Variant::by_name("quic").unwrap();
        let case = Case { variant, flood: Flood::None, offered_bps: None, rival: Rival::None, run: 1, seed: 1, workload };
        let board = Board::new(&case);
        let (start, from) = (Instant::now(), board.counts());
        let count = board.due.len();
        assert!(count > 3);
        let at = |ms| start + Duration::from_secs(2) + Duration::from_millis(ms);
        (0..MEMBERS - 1).for_each(|member| board.has(member, count, at(1)));
        // What is told again is no news, and a step back isn't one.
        board.has(0, 1, at(900));
        board.has(MEMBERS - 1, count - 1, at(500));
        let to = Counts { at: start + Duration::from_secs(1), ..board.counts() };
        let measured = board.sum_up(start, [from, to], Times::new().unwrap(), true).unwrap();
        assert_eq!((measured.latency.count(), measured.unfinished), (count as u64, 1));
        // The first one was due earliest.
        let longest = (at(500) - start - board.due[0]).as_secs_f64() * 1e6;
        let max = measured.latency.max().unwrap();
        assert!((max / longest - 1.0).abs() < 1e-3, "{max} {longest}");
        board.has(MEMBERS - 1, count, at(600));
        let measured = board.sum_up(start, [from, to], Times::new().unwrap(), true).unwrap();
        assert_eq!(measured.unfinished, 0);
    }
}
