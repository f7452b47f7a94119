//! How much is handed to quinn ahead of the network.
//!
//! quinn charges all streams of a connection for what is written and not yet acknowledged (`send_window`), before it
//! looks at priorities. With a large window a flood fills it, and an urgent message waits behind megabytes; with a
//! small fixed one the network isn't kept busy. So the window follows the congestion window, about one quantum
//! above it, for bulk; and it's opened a little further for the moment of an urgent write, so that what a flood
//! has in flight never holds a QUERY or a control frame up.
//!
//! After a loss quinn keeps what came behind the hole until the hole is filled, two round trips later, and charges it too,
//! though it's no longer in flight. So where quinn takes no more while less is in flight than may be, the window opens
//! further, by what is missing.

use std::{sync::Arc, time::Duration};

use peerlane_transport::limits::QUANTUM;
use tokio::time::Instant;

use crate::congestion::Published;

/// Urgent bytes beyond the bulk window: a lead of the scheduler, and control frames. Bytes.
const URGENT: u64 = 4 * QUANTUM as u64;
/// What may be held behind holes, in congestion windows.
const MOST_HELD: u64 = 4;
/// Less than this isn't missing: a burst of the pacer. Bytes.
const MISSING: u64 = 4 * 1500;
/// What was held is forgotten after so many round trips without more, or so long.
const HELD_ROUND_TRIPS: u32 = 3;
const HELD_AT_MOST: Duration = Duration::from_secs(2);

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
    /// What is taken to be held behind holes, and when it was last found out.
    held: u64,
    held_at: Instant,
}

impl Budget {
    /// `max`: the most that may be handed over, in bytes.
    pub(crate) fn new(published: Arc<Published>, max: u64) -> Self {
        Self { published, set: 0, max, held: 0, held_at: Instant::now() }
    }

    /// The window for a write of this kind, if it isn't the one in force.
    pub(crate) fn change(&mut self, claim: Claim) -> Option<u64> {
        if self.held > 0 {
            let memory = self.published.rtt().map_or(HELD_AT_MOST, |rtt| (rtt * HELD_ROUND_TRIPS).min(HELD_AT_MOST));
            if self.held_at.elapsed() > memory {
                self.held = 0;
            }
        }
        let bulk = self.published.window().saturating_add(self.held).saturating_add(QUANTUM as u64).min(self.max);
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

    /// quinn takes no more: whether it should. Then the window to set.
    pub(crate) fn refill(&mut self, claim: Claim) -> Option<u64> {
        match claim {
            Claim::Bulk => self.refill_bulk(),
            // What is held behind holes is more than we know of, and none of this one's business. Few bytes are urgent at
            // once: their classes' windows bound them.
            Claim::Urgent if self.set < self.max + URGENT => {
                self.set += URGENT;
                Some(self.set)
            }
            Claim::Urgent => None,
        }
    }

    /// Whether less is in flight than may be.
    fn refill_bulk(&mut self) -> Option<u64> {
        let window = self.published.window();
        let missing = window.saturating_sub(self.published.in_flight());
        let most = window.saturating_mul(MOST_HELD);
        if missing < MISSING || self.held >= most || self.set >= self.max {
            return None;
        }
        self.held = (self.held + missing).min(most);
        self.held_at = Instant::now();
        self.set = window.saturating_add(self.held).saturating_add(QUANTUM as u64).min(self.max).max(self.set);
        Some(self.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bulk_follows_the_window_and_urgent_goes_beyond() {
        let published = Published::new();
        let mut budget = Budget::new(published, 1 << 20);
        let bulk = budget.change(Claim::Bulk);
        assert_eq!(bulk, Some(12_000 + QUANTUM as u64));
        assert_eq!(budget.change(Claim::Bulk), None);
        assert_eq!(budget.change(Claim::Urgent), bulk.map(|b| b + URGENT));
        assert_eq!(budget.change(Claim::Bulk), bulk, "the urgent part is closed again for bulk");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_behind_a_hole_is_handed_over_again_and_not_without_bound() {
        let mut budget = Budget::new(Published::new(), 1 << 20);
        let bulk = budget.change(Claim::Bulk);
        // Nothing is in flight: a whole window is missing.
        assert_eq!(budget.refill(Claim::Bulk), bulk.map(|bulk| bulk + 12_000));
        while budget.refill(Claim::Bulk).is_some() {}
        assert_eq!(budget.set, 12_000 * (1 + MOST_HELD) + QUANTUM as u64);
        assert!(budget.refill(Claim::Urgent).is_some(), "holes don't hold up what is urgent");
        while budget.refill(Claim::Urgent).is_some() {}
        assert!(budget.set < budget.max + 2 * URGENT);
        tokio::time::advance(HELD_AT_MOST * 2).await;
        assert_eq!(budget.change(Claim::Bulk), bulk, "the hole is filled long ago");
    }
}
