//! Trees of cells: building them into a sink, walking them from a source.
//!
//! One file per layout: `vector`, `blob` (strings too), `hash` (maps and sets), `index`.

mod blob;
mod hash;
mod index;
mod vector;

use std::sync::Arc;

use bytes::Bytes;

use super::decode::{DecodeError, decode};
use super::encode::{encode, encoded_len};
use super::id::{Profile, ValueId};
use super::source::{CellSink, CellSource};
use super::value::{Cell, MAX_EMBEDDED, Ref};

pub use hash::HashIter;
pub use index::IndexIter;
pub use vector::VectorIter;

/// Why a tree can't be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The source doesn't hold this branch. Acquire it and try again.
    #[error("cell {0} is missing")]
    Missing(ValueId),
    /// A branch is held, but it's not canonical, or not what its place in the tree demands. Its maker is at fault.
    #[error("cell {id} is malformed: {error}")]
    Malformed {
        /// The branch.
        id: ValueId,
        /// The rule that it breaks.
        error: DecodeError,
    },
    /// The cell is of another type than the operation needs.
    #[error("the cell is no {0}")]
    WrongType(&'static str),
    /// A cell would be longer than the profile's limit, or a value longer than the caller's.
    #[error("{size} bytes exceed the limit of {max}")]
    TooLarge {
        /// What it would take, in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// An Index key is longer than the 137 bytes that embed as a blob, so its node couldn't be ordered without fetching it.
    #[error("an index key has at most 137 bytes here")]
    KeyTooLong,
}

/// Walks trees. Each step loads and decodes at most one cell per level; nothing is cached.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    profile: &'a Profile,
    source: &'a dyn CellSource,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("profile", self.profile).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// A reader over a source.
    #[must_use]
    pub fn new(profile: &'a Profile, source: &'a dyn CellSource) -> Self {
        Self { profile, source }
    }

    /// The branch with this ID.
    ///
    /// # Errors
    /// [`TreeError::Missing`], or [`TreeError::Malformed`] when it isn't canonical or so short that it had to be embedded.
    pub fn load(&self, id: &ValueId) -> Result<Arc<Cell>, TreeError> {
        let bytes = self.source.get(id).ok_or(TreeError::Missing(*id))?;
        decode_branch(id, &bytes, self.profile).map(Arc::new)
    }

    /// The cell behind a reference.
    ///
    /// # Errors
    /// As [`Reader::load`].
    pub fn resolve(&self, child: &Ref) -> Result<Arc<Cell>, TreeError> {
        match child {
            Ref::Embedded(cell) => Ok(cell.clone()),
            Ref::Branch(id) => self.load(id),
        }
    }

    /// Resolves, and checks the cell against its place if it was a branch (an embedded one was checked when decoded).
    fn resolve_checked<T>(&self, child: &Ref, check: impl FnOnce(&Cell) -> Result<T, DecodeError>) -> Result<Arc<Cell>, TreeError> {
        let cell = self.resolve(child)?;
        if let Ref::Branch(id) = child {
            check(&cell).map_err(|error| malformed(id, error))?;
        }
        Ok(cell)
    }
}

/// Decodes a branch that is held: canonical, and too long to be embedded.
pub(super) fn decode_branch(id: &ValueId, bytes: &Bytes, profile: &Profile) -> Result<Cell, TreeError> {
    if bytes.len() <= MAX_EMBEDDED {
        return Err(malformed(id, DecodeError::NotCanonical("a cell of at most 140 bytes is embedded")));
    }
    decode(bytes, profile).map_err(|error| malformed(id, error))
}

fn malformed(id: &ValueId, error: DecodeError) -> TreeError {
    TreeError::Malformed { id: *id, error }
}

/// A place that both keeps new cells and gives them back.
trait Store: CellSource + CellSink {
    fn source(&self) -> &dyn CellSource;
}

impl<T: CellSource + CellSink> Store for T {
    fn source(&self) -> &dyn CellSource {
        self
    }
}

/// Builds and changes trees. Every branch it makes goes to the store; the root is returned as a cell, to be linked or kept by
/// the caller. Changes copy the path from the root, O(log n) cells; the old root stays valid.
pub struct Writer<'a> {
    profile: &'a Profile,
    store: &'a mut dyn Store,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("profile", self.profile).finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    /// A writer into a store, often an [`super::Overlay`].
    pub fn new<S: CellSource + CellSink>(profile: &'a Profile, store: &'a mut S) -> Self {
        Self { profile, store }
    }

    /// A reader of what was built so far and of what the store held before.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { profile: self.profile, source: self.store.source() }
    }

    /// Makes a child of a cell: embedded up to 140 bytes, else a branch that goes to the store.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] above the profile's limit.
    pub fn link(&mut self, cell: Cell) -> Result<Ref, TreeError> {
        let size = encoded_len(&cell);
        if size <= MAX_EMBEDDED {
            return Ok(Ref::Embedded(Arc::new(cell)));
        }
        if size > self.profile.max_cell {
            return Err(TreeError::TooLarge { size: size as u64, max: self.profile.max_cell as u64 });
        }
        let encoding = encode(&cell);
        let id = self.profile.id(&encoding);
        self.store.put(id, encoding);
        Ok(Ref::Branch(id))
    }
}
