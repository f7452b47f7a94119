//! Collects the cells of older roots: marks what the newest root uses, and removes the rest.
//!
//! *Whole at any moment.* What the store holds must be whole, or a merge, which doesn't enter what is held, would take up a
//! cell that lacks what's below it. So a cell is removed before those it refers to, never after: whatever is left between
//! two transactions, and after a kill, holds with everything below it.
//!
//! *Beside writers.* Marking reads a snapshot and stops nobody. Each transaction removes at most [`BATCH`] cells in a writer's
//! turn. A change made meanwhile may use a cell again that's to be removed (an account's log that is cut back to what it
//! was, say): then the collection ends there, and the next one begins anew.
//!
//! *Memory.* While it runs: some 40 to 75 bytes for each cell in use, some 50 for each that is to go.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{PoisonError, atomic::Ordering},
};

use super::{
    snapshot::Snapshot,
    store::{CELLS, Store, StoreError, root_ref},
};
use crate::cell::{Cell, CellSource as _, Index, Profile, TreeError, ValueId, Vector, decode, refs};

/// Cells removed in one transaction. Count: some milliseconds, in which no operation is appended.
pub const BATCH: usize = 1000;

/// A collection is worth it when half as many cells were written as are in use, and this many more. So the store never holds
/// more than half again of what it needs, and this.
pub const SLACK: u64 = 4096;

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Cells in use when it began.
    pub live: u64,
    /// Cells removed.
    pub removed: u64,
    /// Whether all that were out of use are gone: a change made meanwhile may have needed one of them, or another collection was
    /// under way.
    pub complete: bool,
}

/// Cells written and referred to since a collection began to mark.
#[derive(Debug, Default)]
pub(super) struct Since {
    new: HashSet<ValueId>,
    used: HashSet<ValueId>,
}

impl Since {
    /// A change was stored.
    pub(super) fn note(&mut self, root: &Index, cells: &[(ValueId, bytes::Bytes)], profile: &Profile) {
        self.used.extend(refs(&Cell::Index(root.clone())));
        for (id, encoding) in cells {
            self.new.insert(*id);
            // One that doesn't parse was refused before.
            if let Ok(cell) = decode(encoding, profile) {
                self.used.extend(refs(&cell));
            }
        }
    }
}

/// How much was written since the last collection.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) written: u64,
    live: u64,
}

impl Growth {
    /// Of a store just opened, of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { written: u64::MAX, live: 0 };
}

fn below(id: &ValueId, snapshot: &Snapshot, profile: &Profile) -> Result<Vec<ValueId>, StoreError> {
    let encoding = snapshot.get(id).ok_or(TreeError::Missing(*id))?;
    let cell = decode(&encoding, profile).map_err(|_| TreeError::WrongType("cell"))?;
    Ok(refs(&cell).collect())
}

impl Store {
    /// Whether a collection is worth it: after the store was opened, and when much was written since the last one.
    #[must_use]
    pub fn wants_collection(&self) -> bool {
        let growth = &self.lock().growth;
        growth.written > (growth.live / 2).saturating_add(SLACK)
    }

    /// Removes the cells that the newest root doesn't use. Blocks for as long as it takes to read all cells once; writers wait
    /// for one transaction of [`BATCH`] removals at most. A kill at any moment leaves the store whole.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed by then is gone, and all that's in use is there.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        self.collect_by(BATCH)
    }

    /// Ends a collection under way, and all later ones, soon: nobody waits for one when the process is to end.
    pub fn end_collections(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// `most`: cells removed in one transaction.
    pub(super) fn collect_by(&self, most: usize) -> Result<Collected, StoreError> {
        let Ok(_one_at_a_time) = self.collecting.try_lock().or_else(|busy| match busy {
            std::sync::TryLockError::Poisoned(poisoned) => Ok(PoisonError::into_inner(poisoned)),
            std::sync::TryLockError::WouldBlock => Err(()),
        }) else {
            return Ok(Collected::default());
        };
        let (snapshot, root) = {
            let _turn = self.turn()?;
            let snapshot = self.view()?;
            let mut state = self.lock();
            state.since = Some(Since::default());
            state.growth.written = 0;
            (snapshot, state.root.clone())
        };
        let collected = self.mark_and_sweep(&snapshot, &root, most);
        let mut state = self.lock();
        state.since = None;
        match &collected {
            Ok(collected) if collected.complete => state.growth.live = collected.live,
            _ => state.growth.written = Growth::UNKNOWN.written,
        }
        collected
    }

    fn mark_and_sweep(&self, snapshot: &Snapshot, root: &Index, most: usize) -> Result<Collected, StoreError> {
        let profile = self.profile();
        // Whole IDs: of two that agreed in a shorter form, the second one's cells would be taken for garbage.
        let mut live: HashSet<ValueId> = HashSet::new();
        let mut stack: Vec<ValueId> = refs(&Cell::Vector(Vector::short([root_ref(root, profile)]))).collect();
        while let Some(id) = stack.pop() {
            if self.ending.load(Ordering::Relaxed) {
                return Ok(Collected::default());
            }
            if live.insert(id) {
                stack.extend(below(&id, snapshot, profile)?);
            }
        }
        // What is to go, and how many of those that are to go refer to it.
        let mut garbage: BTreeMap<ValueId, u32> = BTreeMap::new();
        for id in snapshot.ids()? {
            let id = id?;
            if !live.contains(&id) {
                garbage.insert(id, 0);
            }
        }
        let mut collected = Collected { live: live.len() as u64, removed: 0, complete: false };
        drop(live);
        let all: Vec<ValueId> = garbage.keys().copied().collect();
        for id in &all {
            for child in below(id, snapshot, profile)? {
                if let Some(parents) = garbage.get_mut(&child) {
                    *parents += 1;
                }
            }
        }
        drop(all);
        let mut ready: Vec<ValueId> = garbage.iter().filter(|(_, parents)| **parents == 0).map(|(id, _)| *id).collect();
        while !ready.is_empty() {
            let batch = ready.split_off(ready.len().saturating_sub(most));
            if self.ending.load(Ordering::Relaxed) || !self.sweep(&batch, &garbage)? {
                return Ok(collected);
            }
            collected.removed += batch.len() as u64;
            for id in &batch {
                garbage.remove(id);
                for child in below(id, snapshot, profile)? {
                    if let Some(parents) = garbage.get_mut(&child) {
                        *parents -= 1;
                        if *parents == 0 {
                            ready.push(child);
                        }
                    }
                }
            }
        }
        collected.complete = true;
        Ok(collected)
    }

    /// Removes some cells, unless a change made meanwhile uses one that is to go, or the collection is over.
    pub(super) fn sweep(&self, batch: &[ValueId], garbage: &BTreeMap<ValueId, u32>) -> Result<bool, StoreError> {
        let _turn = self.turn()?;
        {
            let mut state = self.lock();
            // The store was opened again meanwhile, perhaps with a root that uses some of it.
            let Some(Since { new, used }) = &mut state.since else { return Ok(false) };
            if used.drain().any(|id| !new.contains(&id) && garbage.contains_key(&id)) {
                return Ok(false);
            }
        }
        self.write(|transaction| {
            let mut cells = transaction.open_table(CELLS)?;
            for id in batch {
                cells.remove(id.0)?;
            }
            Ok(())
        })?;
        Ok(true)
    }
}
