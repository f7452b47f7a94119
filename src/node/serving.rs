//! Requests of a peer that wait for a handler here or are with one: how they're taken back.
//!
//! A requester that gives up says so ([`Protocol::cancel`](crate::protocol::Protocol::cancel)); the handler's future is then
//! dropped, or never begun. The word may overtake its request, which then finds that it came too late.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{config::EARLY_CANCELS, sync::Mutex};

#[derive(Debug, Default)]
struct State {
    /// By the request's ID and a number of ours: a peer may use an ID twice. As many as messages wait for handlers.
    open: BTreeMap<(u64, u64), CancellationToken>,
    next: u64,
    /// Taken back, and not here (any more, or yet). At most [`EARLY_CANCELS`]; the oldest is forgotten beyond.
    early: VecDeque<u64>,
}

/// The requests of one peer.
#[derive(Debug, Default)]
pub(super) struct Serving(Mutex<State>);

/// A request here. Dropping it says that it's done with.
#[derive(Debug)]
pub(super) struct Served {
    serving: Arc<Serving>,
    key: (u64, u64),
    cancelled: CancellationToken,
}

impl Serving {
    /// A request has arrived.
    pub(super) fn begin(self: &Arc<Self>, id: u64) -> Served {
        let cancelled = CancellationToken::new();
        let mut state = self.0.lock();
        if let Some(at) = state.early.iter().position(|early| *early == id) {
            state.early.remove(at);
            cancelled.cancel();
        }
        let key = (id, state.next);
        state.next += 1;
        state.open.insert(key, cancelled.clone());
        drop(state);
        Served { serving: self.clone(), key, cancelled }
    }

    /// The peer has taken a request back.
    pub(super) fn cancel(&self, id: u64) {
        let mut state = self.0.lock();
        let open: Vec<_> = state.open.range((id, 0)..=(id, u64::MAX)).map(|(_, token)| token.clone()).collect();
        if open.is_empty() {
            // The bound.
            if state.early.len() >= EARLY_CANCELS {
                state.early.pop_front();
            }
            state.early.push_back(id);
        }
        drop(state);
        open.iter().for_each(CancellationToken::cancel);
    }
}

impl Served {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Waits until the peer takes the request back.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.0.lock().open.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_cancelled_by_its_id_and_no_other_is() {
        let serving = Arc::new(Serving::default());
        let (one, same, other) = (serving.begin(1), serving.begin(1), serving.begin(2));
        serving.cancel(1);
        assert!(one.is_cancelled() && same.is_cancelled() && !other.is_cancelled());
        drop((one, same, other));
        assert!(serving.0.lock().open.is_empty());
    }

    #[test]
    fn a_word_that_overtakes_its_request_counts_once_and_such_words_are_bounded() {
        let serving = Arc::new(Serving::default());
        serving.cancel(7);
        assert!(serving.begin(7).is_cancelled());
        assert!(!serving.begin(7).is_cancelled());
        for id in 0..10 * EARLY_CANCELS as u64 {
            serving.cancel(id);
        }
        assert_eq!(serving.0.lock().early.len(), EARLY_CANCELS);
        assert!(!serving.begin(0).is_cancelled() && serving.begin(10 * EARLY_CANCELS as u64 - 1).is_cancelled());
    }
}
