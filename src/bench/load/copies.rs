//! Copies of small urgent messages over a second TCP connection: what QUIC's copies in datagrams are, as TCP can have it.
//!
//! A lost segment holds up all that follows on its connection until it's repaired, a round trip later at least; a copy on a
//! connection of its own isn't held up with it. It follows the message after a moment, so that one burst of loss doesn't take
//! both. Whichever comes first counts: the receiver knows it by its ID ([`Arrivals`]). The budget is that of QUIC's copies
//! ([`CopyBudget`]), but that the bottleneck's rate isn't known here, so that its tenth is no bound; and they're bytes as much as those.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use peerlane_transport::{TrySend, class::CopyBudget};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

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
    budget: CopyBudget,
    copied: Copied,
}

impl Copies {
    pub(super) fn new(lane: Lane) -> Self {
        let state = State { budget: CopyBudget::new(Instant::now()), copied: Copied::default() };
        Self { lane, state: Arc::new(Mutex::new(state)) }
    }

    /// This end has sent so many bytes of messages, over whatever connection.
    pub(super) fn sent(&self, bytes: usize) {
        self.with(|state| state.budget.sent(bytes));
    }

    /// Sends a copy in a moment, if it's within the budget. It never waits for room: what would queue is no help.
    pub(super) async fn copy(self, message: Bytes) {
        tokio::time::sleep(AFTER).await;
        let bytes = message.len();
        let sends = self.with(|state| state.budget.take(Instant::now(), bytes, None));
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
}
