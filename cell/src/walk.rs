//! Walking what hangs below a root: what is missing, and what is new.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::id::{Profile, ValueId};
use super::source::{CellSource, NoCells};
use super::tree::{TreeError, decode_branch};
use super::value::{Cell, refs};

/// The branches below `root` that neither source holds, nearest first, at most `limit` of them.
///
/// A cell in `complete` is taken to have everything below it there too, and isn't entered: a store that only takes whole trees
/// is such a source. A cell in `partial` is entered: what came with a message, or was acquired so far. So only what differs
/// from `complete` is visited.
///
/// # Errors
/// [`TreeError::Malformed`] when a cell of `partial` isn't canonical.
pub fn missing_below(
    root: &Cell,
    partial: &dyn CellSource,
    complete: &dyn CellSource,
    profile: &Profile,
    limit: usize,
) -> Result<Vec<ValueId>, TreeError> {
    let mut missing = Vec::new();
    walk(root, partial, complete, profile, &mut |id, held| {
        if held.is_none() {
            missing.push(id);
        }
        missing.len() < limit
    })?;
    missing.truncate(limit);
    Ok(missing)
}

/// The cells of `partial` below `root`, nearest first, that `complete` doesn't hold.
///
/// # Errors
/// [`TreeError::Missing`] when neither source holds a branch; [`TreeError::Malformed`] when a cell isn't canonical.
pub fn new_below(
    root: &Cell,
    partial: &dyn CellSource,
    complete: &dyn CellSource,
    profile: &Profile,
) -> Result<Vec<(ValueId, Bytes)>, TreeError> {
    let mut new = Vec::new();
    let mut absent = None;
    walk(root, partial, complete, profile, &mut |id, held| {
        match held {
            Some(bytes) => new.push((id, bytes.clone())),
            None => absent = absent.or(Some(id)),
        }
        absent.is_none()
    })?;
    absent.map_or(Ok(new), |id| Err(TreeError::Missing(id)))
}

/// The cells of `partial` that are still in use below `root`, nearest first. Where a branch isn't held, the walk ends.
///
/// # Errors
/// [`TreeError::Malformed`] when a cell of `partial` isn't canonical.
pub fn held_below(root: &Cell, partial: &dyn CellSource, profile: &Profile) -> Result<Vec<(ValueId, Bytes)>, TreeError> {
    let mut held = Vec::new();
    walk(root, partial, &NoCells, profile, &mut |id, bytes| {
        held.extend(bytes.map(|bytes| (id, bytes.clone())));
        true
    })?;
    Ok(held)
}

/// Visits each branch below `root` once, breadth first, as far as `partial` goes; `visit` gets the encoding if it's held there
/// and says whether to go on.
fn walk(
    root: &Cell,
    partial: &dyn CellSource,
    complete: &dyn CellSource,
    profile: &Profile,
    visit: &mut dyn FnMut(ValueId, Option<&Bytes>) -> bool,
) -> Result<(), TreeError> {
    let mut seen = HashSet::new();
    let mut queue: VecDeque<ValueId> = refs(root).filter(|id| seen.insert(*id)).collect();
    while let Some(id) = queue.pop_front() {
        if complete.has(&id) {
            continue;
        }
        let held = partial.get(&id);
        if !visit(id, held.as_ref()) {
            break;
        }
        if let Some(bytes) = held {
            let cell = decode_branch(&id, &bytes, profile)?;
            queue.extend(refs(&cell).filter(|id| seen.insert(*id)));
        }
    }
    Ok(())
}
