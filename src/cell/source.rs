//! Where branches come from and go to.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::id::ValueId;

/// Takes the branches of a tree that is being built.
pub trait CellSink {
    /// Takes one branch: `id` is the hash of `encoding`. The same branch may come more than once.
    fn put(&mut self, id: ValueId, encoding: Bytes);
}

/// Gives branches by their ID.
pub trait CellSource {
    /// The encoding whose hash is `id`, or `None` when it isn't held.
    ///
    /// A source vouches for the hash: what came from a peer is hashed before it's offered here.
    fn get(&self, id: &ValueId) -> Option<Bytes>;

    /// Is it held?
    fn has(&self, id: &ValueId) -> bool {
        self.get(id).is_some()
    }
}

impl<S: CellSource + ?Sized> CellSource for &S {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        (**self).get(id)
    }

    fn has(&self, id: &ValueId) -> bool {
        (**self).has(id)
    }
}

/// Cells in memory, in the order of their IDs, so that a run can be repeated. Unbounded: whoever puts a peer's cells here bounds
/// them first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryCells(pub BTreeMap<ValueId, Bytes>);

impl CellSink for MemoryCells {
    fn put(&mut self, id: ValueId, encoding: Bytes) {
        self.0.insert(id, encoding);
    }
}

impl CellSource for MemoryCells {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        self.0.get(id).cloned()
    }

    fn has(&self, id: &ValueId) -> bool {
        self.0.contains_key(id)
    }
}

/// Nothing at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCells;

impl CellSource for NoCells {
    fn get(&self, _id: &ValueId) -> Option<Bytes> {
        None
    }
}

/// Two sources as one; the first is asked first.
#[derive(Clone, Copy)]
pub struct Layers<'a>(pub &'a dyn CellSource, pub &'a dyn CellSource);

impl std::fmt::Debug for Layers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layers(..)")
    }
}

impl CellSource for Layers<'_> {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        self.0.get(id).or_else(|| self.1.get(id))
    }

    fn has(&self, id: &ValueId) -> bool {
        self.0.has(id) || self.1.has(id)
    }
}

/// New cells over a source that stays as it is: what a change writes before it's committed.
pub struct Overlay<'a> {
    below: &'a dyn CellSource,
    /// The cells put since the overlay was made.
    pub new: HashMap<ValueId, Bytes>,
}

impl std::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("new", &self.new.len()).finish_non_exhaustive()
    }
}

impl<'a> Overlay<'a> {
    /// An overlay with nothing new.
    #[must_use]
    pub fn new(below: &'a dyn CellSource) -> Self {
        Self { below, new: HashMap::new() }
    }
}

impl CellSink for Overlay<'_> {
    fn put(&mut self, id: ValueId, encoding: Bytes) {
        self.new.insert(id, encoding);
    }
}

impl CellSource for Overlay<'_> {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        self.new.get(id).cloned().or_else(|| self.below.get(id))
    }

    fn has(&self, id: &ValueId) -> bool {
        self.new.contains_key(id) || self.below.has(id)
    }
}
