//! What the other side may send of a class, by the bytes that this side has taken up: totals that only grow, so that a
//! credit frame that is overtaken does no harm.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The credit of one lane, or of a class's own lane together with the class's message streams. Bytes.
///
/// Atomics for shared access, not for order among threads: a connection's readers run in one task.
#[derive(Debug)]
pub(crate) struct Credit {
    window: u64,
    arrived: AtomicU64,
    taken: AtomicU64,
    allowed: AtomicU64,
}

impl Credit {
    pub(crate) fn new(window: usize) -> Self {
        let window = window as u64;
        Self { window, arrived: AtomicU64::new(0), taken: AtomicU64::new(0), allowed: AtomicU64::new(window) }
    }

    /// Counts bytes that have arrived. `false`: they're more than the other side has credit for.
    #[must_use]
    pub(crate) fn arrived(&self, bytes: usize) -> bool {
        self.arrived.fetch_add(bytes as u64, Relaxed) + bytes as u64 <= self.allowed.load(Relaxed)
    }

    /// Counts bytes as taken up. Once an eighth of the window is: the new total to tell the other side.
    /// Credit that comes later than that keeps a flow from using its window where a loss holds bytes back.
    pub(crate) fn taken(&self, bytes: usize) -> Option<u64> {
        let total = self.taken.fetch_add(bytes as u64, Relaxed) + bytes as u64 + self.window;
        let due = total.saturating_sub(self.allowed.load(Relaxed)) >= self.window / 8;
        due.then(|| self.allowed.fetch_max(total, Relaxed).max(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_follows_what_is_taken_up_not_what_has_arrived() {
        let credit = Credit::new(100);
        assert!(credit.arrived(100));
        assert_eq!(credit.taken(11), None);
        assert_eq!(credit.taken(1), Some(112));
        assert!(credit.arrived(12));
        assert!(!credit.arrived(1));
    }
}
