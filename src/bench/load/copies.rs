//! Copies of small urgent messages over a second TCP connection: what QUIC's copies in datagrams are, as TCP can have it.
//!
//! A lost segment holds up all that follows on its connection until it's repaired, a round trip later at least; a copy on a
//! connection of its own isn't held up with it. It follows the message after a moment, so that one burst of loss doesn't take
//! both. Whichever comes first counts: the receiver knows it by its ID ([`Arrivals`]). The budget is that of QUIC's copies
//! ([`Budget`]), and they're bytes as much as those.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerlane_transport::TrySend;
use serde::{Deserialize, Serialize};

use super::links::Lane;

/// A copy leaves so long after its message: the first of QUIC's (2, 8 and 20 ms), which are made while there's no acknowledgement.
/// An application over TCP sees none, so that it has one copy, always. QUERY's p99 on wan-loss1 and wan-burst (2 runs of 20 s, full
/// flood): 63 and 115 ms with 0 ms, 63 and 102 with 2, 69 and 76 with 8.
const AFTER: Duration = Duration::from_millis(2);

/// One end's copies, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Copied {
    /// Copies that left.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that the budget, or a full queue, kept from leaving.
    pub withheld: u64,
}

/// One end of the connection for copies, and what they may cost.
#[derive(Debug, Clone)]
pub(crate) struct Copies {
    pub(super) lane: Lane,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    copied: Copied,
}

impl Copies {
    pub(super) fn new(lane: Lane) -> Self {
        let state = State { budget: Budget::new(Instant::now()), copied: Copied::default() };
        Self { lane, state: Arc::new(Mutex::new(state)) }
    }

    /// This end has sent so many bytes of messages, over whatever connection.
    pub(super) fn sent(&self, bytes: usize) {
        self.with(|state| state.budget.sent += bytes as u64);
    }

    /// Sends a copy in a moment, if it's within the budget. It never waits for room: what would queue is no help.
    pub(super) async fn copy(self, message: Bytes) {
        tokio::time::sleep(AFTER).await;
        let bytes = message.len();
        let sends = self.with(|state| state.budget.take(Instant::now(), bytes as u64));
        let sent = sends && matches!(self.lane.try_send(message), TrySend::Queued);
        self.with(|state| match sent {
            true => (state.copied.sent, state.copied.bytes) = (state.copied.sent + 1, state.copied.bytes + bytes as u64),
            false => state.copied.withheld += 1,
        });
    }

    /// What has been copied so far.
    pub(super) fn copied(&self) -> Copied {
        self.with(|state| state.copied)
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing that's done under it can leave it half changed.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What copies may cost: 5% of the bytes sent or 64 kB/s, whichever is more, with bursts of 16 KiB. The numbers are those of
/// `transports/quic/src/copies.rs`. The bottleneck's rate isn't known here, so that its tenth is no bound: TCP's copies may have more
/// than QUIC's, and never less.
#[derive(Debug)]
struct Budget {
    tokens: u64,
    /// Bytes sent since tokens were last added.
    sent: u64,
    at: Instant,
}

impl Budget {
    const SHARE: u64 = 20;
    /// Bytes per second.
    const RATE: u128 = 64_000;
    /// Bytes.
    const BURST: u64 = 16 * 1024;

    fn new(now: Instant) -> Self {
        Self { tokens: Self::BURST, sent: 0, at: now }
    }

    fn take(&mut self, now: Instant, bytes: u64) -> bool {
        let past = (Self::RATE * now.saturating_duration_since(self.at).as_micros() / 1_000_000) as u64;
        let more = past.max(self.sent / Self::SHARE);
        // Below a byte nothing is lost by waiting.
        if more > 0 {
            self.tokens = self.tokens.saturating_add(more).min(Self::BURST);
            (self.sent, self.at) = (0, now);
        }
        let left = self.tokens.checked_sub(bytes);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

/// Which messages have come, by their IDs.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BTreeSet<u64>);

impl Arrivals {
    /// IDs that are kept, the highest. What is older has come long ago.
    const WINDOW: usize = 4096;

    /// Whether it's the first of this ID.
    pub(super) fn is_first(&mut self, id: u64) -> bool {
        let is_old = self.0.len() >= Self::WINDOW && self.0.first().is_some_and(|oldest| id < *oldest);
        let is_first = !is_old && self.0.insert(id);
        if self.0.len() > Self::WINDOW {
            self.0.pop_first();
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_an_id_counts_and_memory_is_bounded() {
        let mut arrivals = Arrivals::default();
        assert!(arrivals.is_first(5) && !arrivals.is_first(5) && arrivals.is_first(4));
        (10..20_000).for_each(|id| assert!(arrivals.is_first(id)));
        assert!(arrivals.0.len() <= Arrivals::WINDOW && !arrivals.is_first(19_999) && !arrivals.is_first(6));
    }

    #[test]
    fn copies_cost_what_quics_may_cost() {
        let start = Instant::now();
        let spend = |sent_per_second: u64| {
            let mut budget = Budget::new(start);
            budget.tokens = 0;
            let mut spent = 0;
            for ms in 1..=1000 {
                budget.sent += sent_per_second / 1000;
                while budget.take(start + Duration::from_millis(ms), 100) {
                    spent += 100;
                }
            }
            spent
        };
        assert!((63_000..=64_000).contains(&spend(0)), "{}", spend(0));
        assert!((290_000..=300_000).contains(&spend(6_000_000)), "{}", spend(6_000_000));
        let mut fresh = Budget::new(start);
        assert!(fresh.take(start, Budget::BURST) && !fresh.take(start, 1), "a burst is bounded");
    }
}
