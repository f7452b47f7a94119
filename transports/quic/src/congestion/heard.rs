//! What a connection's driver hears that quinn doesn't tell a controller.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing new.
const NOTHING: u64 = u64::MAX;

/// How much has come from the other side, and what its clock says of our packets' way.
#[derive(Debug)]
pub struct Heard {
    received: AtomicU64,
    one_way: AtomicU64,
}

impl Default for Heard {
    fn default() -> Self {
        Self { received: AtomicU64::new(0), one_way: AtomicU64::new(NOTHING) }
    }
}

impl Heard {
    /// So many bytes were received so far, more or less.
    pub fn set_received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    /// The other side's clock when a packet of ours came, less ours when it left: microseconds, modulo 2^32.
    pub fn set_one_way(&self, difference: u32) {
        self.one_way.store(u64::from(difference), Ordering::Relaxed);
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The newest difference, once.
    pub(crate) fn take_one_way(&self) -> Option<u32> {
        u32::try_from(self.one_way.swap(NOTHING, Ordering::Relaxed)).ok()
    }
}
