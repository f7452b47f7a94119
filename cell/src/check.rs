//! What a parent can know of its children: kind, count, place. Used by the decoder for embedded children and by the reader
//! for fetched branches, so that a tree read to its end is canonical as a whole.

use std::borrow::Cow;

use super::decode::{DecodeError, rule};
use super::id::{Profile, ValueId, digit};
use super::shape::{self, digits};
use super::value::{Blob, Cell, HashNode, HashTree, Index, IndexNode, Ref};

type Checked = Result<(), DecodeError>;

/// The longest blob that embeds: tag, a two-byte count, 137 bytes.
const EMBEDDED_BLOB: u64 = 137;

pub(super) fn blob_children(len: u64, child: u64, children: &[Ref]) -> Checked {
    for (i, r) in children.iter().enumerate() {
        let part = shape::child_len(len, child, i);
        match r {
            Ref::Branch(_) if part <= EMBEDDED_BLOB => return rule("a short blob is embedded"),
            Ref::Branch(_) => {}
            Ref::Embedded(cell) => blob_child(cell, part)?,
        }
    }
    Ok(())
}

pub(super) fn blob_child(cell: &Cell, len: u64) -> Checked {
    match cell {
        Cell::Blob(blob) if blob.len() == len => Ok(()),
        _ => rule("a blob's child is a blob of the length its place demands"),
    }
}

pub(super) fn vector_child(child: &Ref, count: u64) -> Checked {
    match child.embedded() {
        None => Ok(()),
        Some(cell) => vector_node(cell, count),
    }
}

pub(super) fn vector_node(cell: &Cell, count: u64) -> Checked {
    match cell {
        Cell::Vector(v) if v.count == count => Ok(()),
        _ => rule("a vector's child is a vector of the count its place demands"),
    }
}

pub(super) fn entries_in_order(refs: &[Ref], stride: usize, profile: &Profile) -> Checked {
    if refs.len() <= stride {
        return Ok(());
    }
    let mut last = None;
    for key in refs.iter().step_by(stride) {
        let id = key.id(profile);
        if last.is_some_and(|last| last >= id) {
            return rule("entries stand in the order of their keys' IDs, each key once");
        }
        last = Some(id);
    }
    Ok(())
}

/// The node of a map (stride 2) or set (1).
pub(super) fn hash_node(cell: &Cell, stride: usize) -> Option<&HashTree> {
    match (cell, stride) {
        (Cell::Map(tree), 2) | (Cell::Set(tree), 1) => Some(tree),
        _ => None,
    }
}

/// IDs of the keys that can be seen without fetching a branch.
fn known_ids(tree: &HashTree, stride: usize, profile: &Profile, ids: &mut Vec<ValueId>) {
    match &tree.0 {
        HashNode::Leaf(refs) => ids.extend(refs.iter().step_by(stride).map(|key| key.id(profile))),
        HashNode::Tree { children, .. } => {
            for child in children.iter().filter_map(|c| hash_node(c.embedded()?, stride)) {
                known_ids(child, stride, profile, ids);
            }
        }
    }
}

/// A child under digit `digit` at `shift`: right kind, not empty, branching later, its keys with that digit.
pub(super) fn hash_child(cell: &Cell, stride: usize, shift: u8, place: u8, profile: &Profile) -> Result<u64, DecodeError> {
    let Some(tree) = hash_node(cell, stride) else {
        return rule("the child of a map or set tree is of its kind");
    };
    if matches!(&tree.0, HashNode::Tree { shift: below, .. } if *below <= shift) || tree.count(stride) == 0 {
        return rule("a map tree's child has entries and branches at a later digit");
    }
    let mut ids = Vec::new();
    known_ids(tree, stride, profile, &mut ids);
    if ids.iter().any(|id| id.digit(usize::from(shift)) != Some(place)) {
        return rule("a key's ID has the digit of its branch");
    }
    Ok(tree.count(stride))
}

/// A tree node with whatever of its children is embedded. A leaf is fine by itself.
pub(super) fn hash_tree(tree: &HashTree, stride: usize, profile: &Profile) -> Checked {
    let HashNode::Tree { count, shift, mask, children } = &tree.0 else {
        return Ok(());
    };
    let mut total = Total::default();
    for (place, child) in digits(*mask).zip(children) {
        total.add(match child.embedded() {
            None => None,
            Some(cell) => Some(hash_child(cell, stride, *shift, place, profile)?),
        });
    }
    total.compare(*count)?;
    let mut ids = Vec::new();
    known_ids(tree, stride, profile, &mut ids);
    same_prefix(ids.iter().map(|id| &id.0[..]), usize::from(*shift))
}

/// Sums the children's counts; one that isn't fetched counts as at least one.
#[derive(Default)]
struct Total {
    least: u64,
    unknown: bool,
}

impl Total {
    fn add(&mut self, known: Option<u64>) {
        self.unknown |= known.is_none();
        self.least = self.least.saturating_add(known.unwrap_or(1));
    }

    fn compare(&self, count: u64) -> Checked {
        if self.least > count || (!self.unknown && self.least != count) {
            return rule("a tree's count is the sum of its children's");
        }
        Ok(())
    }
}

fn same_prefix<'a>(mut keys: impl Iterator<Item = &'a [u8]>, len: usize) -> Checked {
    let Some(first) = keys.next() else {
        return Ok(());
    };
    for key in keys {
        if (0..len).any(|i| digit(first, i) != digit(key, i)) {
            return rule("the keys below a node agree up to its digit");
        }
    }
    Ok(())
}

/// The bytes that an Index orders a key by; `Ok(None)` when they aren't in sight (a branch, a long blob).
pub(super) fn index_key(key: &Ref) -> Result<Option<Cow<'_, [u8]>>, DecodeError> {
    let Some(cell) = key.embedded() else {
        return Ok(None);
    };
    match cell {
        Cell::Blob(blob) | Cell::String(blob) => Ok(blob_bytes(blob)),
        Cell::Symbol(name) | Cell::Keyword(name) => Ok(Some(Cow::Borrowed(&name.0))),
        // An address: ordered as its eight bytes
        Cell::Extension(10, number) => Ok(Some(Cow::Owned(number.to_be_bytes().to_vec()))),
        _ => rule("an index's key is a blob, string, symbol, keyword or address"),
    }
}

fn blob_bytes(blob: &Blob) -> Option<Cow<'_, [u8]>> {
    blob.bytes().map(|bytes| Cow::Borrowed(&bytes[..]))
}

fn known_keys<'a>(index: &'a Index, keys: &mut Vec<Cow<'a, [u8]>>) -> Checked {
    match &index.0 {
        IndexNode::Empty => {}
        IndexNode::Single(pair) => keys.extend(index_key(&pair[0])?),
        IndexNode::Tree { has_entry, refs, .. } => {
            let (entry, children) = refs.split_at(if *has_entry { 2 } else { 0 });
            if let [key, ..] = entry {
                keys.extend(index_key(key)?);
            }
            for child in children {
                if let Some(Cell::Index(below)) = child.embedded() {
                    known_keys(below, keys)?;
                }
            }
        }
    }
    Ok(())
}

/// A child under digit `place` at `depth`: an index with entries, branching later, its keys with that digit.
pub(super) fn index_child(cell: &Cell, depth: u16, place: u8) -> Result<u64, DecodeError> {
    let Cell::Index(index) = cell else {
        return rule("an index's child is an index");
    };
    if index.is_empty() || matches!(&index.0, IndexNode::Tree { depth: below, .. } if *below <= depth) {
        return rule("an index's child has entries and branches at a later digit");
    }
    let mut keys = Vec::new();
    known_keys(index, &mut keys)?;
    if keys.iter().any(|key| digit(key, usize::from(depth)) != Some(place)) {
        return rule("a key has the digit of its branch");
    }
    Ok(index.len())
}

/// A tree node with whatever of its children is embedded.
pub(super) fn index(index: &Index) -> Checked {
    let IndexNode::Tree { count, depth, mask, has_entry, refs } = &index.0 else {
        return Ok(());
    };
    let (entry, children) = refs.split_at(if *has_entry { 2 } else { 0 });
    let mut total = Total::default();
    if let [key, ..] = entry {
        if index_key(key)?.is_some_and(|key| key.len() * 2 != usize::from(*depth)) {
            return rule("an index node's entry has a key that ends at its depth");
        }
        total.add(Some(1));
    }
    for (place, child) in digits(*mask).zip(children) {
        total.add(match child.embedded() {
            None => None,
            Some(cell) => Some(index_child(cell, *depth, place)?),
        });
    }
    total.compare(*count)?;
    let mut keys = Vec::new();
    known_keys(index, &mut keys)?;
    same_prefix(keys.iter().map(|key| &key[..]), usize::from(*depth))
}
