//! Where the cells of partial messages wait until the message is whole.

use bytes::Bytes;

use crate::cell::{CellSink as _, CellSource, MemoryCells, ValueId};

/// Cells that arrived and belong to no stored tree yet, bounded in bytes.
///
/// What's put in beyond the bound is refused, not evicted: cells that a merge counts on stay.
#[derive(Debug, Default)]
pub struct Staging {
    cells: MemoryCells,
    bytes: usize,
    max: usize,
}

impl Staging {
    /// Staging for at most `max` bytes of encodings.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { cells: MemoryCells::default(), bytes: 0, max }
    }

    /// Takes cells, their IDs already checked against their bytes; how many didn't fit.
    pub fn add(&mut self, cells: impl IntoIterator<Item = (ValueId, Bytes)>) -> usize {
        let mut refused = 0;
        for (id, encoding) in cells {
            if self.cells.has(&id) {
                continue;
            }
            if self.bytes + encoding.len() > self.max {
                refused += 1;
                continue;
            }
            self.bytes += encoding.len();
            // Its own memory: a slice would keep the whole message alive, unaccounted.
            self.cells.put(id, Bytes::copy_from_slice(&encoding));
        }
        refused
    }

    /// Lets go of what a store holds by now.
    pub fn prune(&mut self, held: &dyn CellSource) {
        self.cells.0.retain(|id, encoding| {
            let keep = !held.has(id);
            if !keep {
                self.bytes -= encoding.len();
            }
            keep
        });
    }

    /// Encoded bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl CellSource for Staging {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        self.cells.get(id)
    }

    fn has(&self, id: &ValueId) -> bool {
        self.cells.has(id)
    }
}
