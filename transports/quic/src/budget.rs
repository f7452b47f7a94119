//! How much is handed to quinn ahead of the network.
//!
//! quinn charges all streams of a connection for what is written and not yet acknowledged (`send_window`), before it
//! looks at priorities. With a large window a flood fills it, and an urgent message waits behind megabytes; with a
//! small fixed one the network isn't kept busy. So the window follows the congestion window, about one quantum
//! above it, for bulk; and it's opened a little further for the moment of an urgent write, so that what a flood
//! has in flight never holds a QUERY or a control frame up.

use std::{sync::Arc, time::Duration};

use peerlane_transport::limits::QUANTUM;

use crate::congestion::Published;

/// Urgent bytes beyond the bulk window: a lead of the scheduler, and control frames. Bytes.
const URGENT: u64 = 4 * QUANTUM as u64;

/// Whose bytes are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Bulk,
    Urgent,
}

/// Keeps quinn's `send_window` where it should be.
#[derive(Debug)]
pub(crate) struct Budget {
    published: Arc<Published>,
    set: u64,
    max: u64,
}

impl Budget {
    /// `max`: the most that may be handed over, in bytes.
    pub(crate) fn new(published: Arc<Published>, max: u64) -> Self {
        Self { published, set: 0, max }
    }

    /// The window for a write of this kind, if it isn't the one in force.
    pub(crate) fn change(&mut self, claim: Claim, rtt: impl FnOnce() -> Duration) -> Option<u64> {
        let window = self.published.window();
        // After a loss quinn keeps what came behind the hole until the hole is filled, which takes a round trip:
        // those bytes are charged too, though they aren't in flight. Without room for them the flow would stall.
        let held = match self.published.since_loss() {
            Some(since) if since < Duration::from_secs(2) && since < rtt() * 3 => window,
            _ => 0,
        };
        let bulk = window.saturating_add(held).saturating_add(QUANTUM as u64).min(self.max);
        let wanted = match claim {
            Claim::Bulk => bulk,
            Claim::Urgent => bulk + URGENT,
        };
        // Bulk within an eighth of what is set isn't worth a lock; never below it for an urgent one.
        let good = match claim {
            Claim::Bulk => self.set >= bulk - bulk / 8 && self.set <= bulk + bulk / 8,
            Claim::Urgent => self.set >= wanted,
        };
        if good {
            return None;
        }
        self.set = wanted;
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_follows_the_window_and_urgent_goes_beyond() {
        let published = Published::new();
        let mut budget = Budget::new(published, 1 << 20);
        let bulk = budget.change(Claim::Bulk, || Duration::ZERO);
        assert_eq!(bulk, Some(12_000 + QUANTUM as u64));
        assert_eq!(budget.change(Claim::Bulk, || Duration::ZERO), None);
        assert_eq!(budget.change(Claim::Urgent, || Duration::ZERO), bulk.map(|b| b + URGENT));
        assert_eq!(budget.change(Claim::Bulk, || Duration::ZERO), bulk, "the urgent part is closed again for bulk");
    }
}
