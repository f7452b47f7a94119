//! Maps and sets: up to 15 entries in the order of their keys' IDs, above that a tree by the hex digits of the IDs
//! (CAD003 `0x82`, `0x83`).
//!
//! One implementation for both: a map's entry is two references (stride 2), a set's is one (stride 1).

use super::{Reader, TreeError, Writer};
use crate::check;
use crate::id::ValueId;
use crate::shape::digits;
use crate::value::{Cell, HashNode, HashTree, Ref};

/// The most entries in one cell.
const LEAF: usize = 15;

/// An entry: the key's ID, then the key and, in a map, the value.
type Entry = (ValueId, Vec<Ref>);

impl<'a> Reader<'a> {
    /// The value of a key in a map.
    ///
    /// # Errors
    /// [`TreeError::WrongType`] unless `map` is one; [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn map_get(&self, map: &Cell, key: &Ref) -> Result<Option<Ref>, TreeError> {
        let Cell::Map(tree) = map else {
            return Err(TreeError::WrongType("map"));
        };
        Ok(self.hash_find(tree, 2, &key.id(self.profile))?.and_then(|mut entry| entry.pop()))
    }

    /// Is the item in the set?
    ///
    /// # Errors
    /// [`TreeError::WrongType`] unless `set` is one; [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn set_contains(&self, set: &Cell, item: &Ref) -> Result<bool, TreeError> {
        let Cell::Set(tree) = set else {
            return Err(TreeError::WrongType("set"));
        };
        Ok(self.hash_find(tree, 1, &item.id(self.profile))?.is_some())
    }

    /// The entries of a map (key, value) in the order of the keys' IDs.
    ///
    /// # Errors
    /// [`TreeError::WrongType`] unless `map` is one.
    pub fn map_iter(&self, map: &Cell) -> Result<HashIter<'a>, TreeError> {
        let Cell::Map(tree) = map else {
            return Err(TreeError::WrongType("map"));
        };
        Ok(HashIter { reader: *self, stride: 2, stack: Vec::new(), leaf: tree.clone(), next: 0 })
    }

    /// The items of a set in the order of their IDs, each given as key and (again) as value.
    ///
    /// # Errors
    /// [`TreeError::WrongType`] unless `set` is one.
    pub fn set_iter(&self, set: &Cell) -> Result<HashIter<'a>, TreeError> {
        let Cell::Set(tree) = set else {
            return Err(TreeError::WrongType("set"));
        };
        Ok(HashIter { reader: *self, stride: 1, stack: Vec::new(), leaf: tree.clone(), next: 0 })
    }

    fn hash_child(&self, child: &Ref, stride: usize, shift: u8, place: u8) -> Result<HashTree, TreeError> {
        let cell = self.resolve_checked(child, |cell| check::hash_child(cell, stride, shift, place, self.profile))?;
        check::hash_node(&cell, stride).cloned().ok_or(TreeError::WrongType("map or set"))
    }

    fn hash_find(&self, tree: &HashTree, stride: usize, id: &ValueId) -> Result<Option<Vec<Ref>>, TreeError> {
        let mut node = tree.clone();
        loop {
            node = match &node.0 {
                HashNode::Leaf(refs) => {
                    return Ok(refs.chunks(stride).find(|e| e[0].id(self.profile) == *id).map(<[Ref]>::to_vec));
                }
                HashNode::Tree { shift, mask, children, .. } => {
                    let place = id.digit(usize::from(*shift)).unwrap_or(0);
                    let Some(child) = slot(*mask, place).and_then(|i| children.get(i)) else {
                        return Ok(None);
                    };
                    self.hash_child(child, stride, *shift, place)?
                }
            };
        }
    }

    /// A key's ID that agrees with `id` for as many digits as any in the tree.
    fn hash_nearest(&self, tree: &HashTree, stride: usize, id: &ValueId) -> Result<Option<ValueId>, TreeError> {
        let mut node = tree.clone();
        loop {
            node = match &node.0 {
                HashNode::Leaf(refs) => {
                    let ids = refs.iter().step_by(stride).map(|key| key.id(self.profile));
                    return Ok(ids.max_by_key(|other| common(id, other)));
                }
                HashNode::Tree { shift, mask, children, .. } => {
                    let wanted = id.digit(usize::from(*shift)).unwrap_or(0);
                    let place = if slot(*mask, wanted).is_some() { wanted } else { mask.trailing_zeros() as u8 };
                    let Some(child) = slot(*mask, place).and_then(|i| children.get(i)) else {
                        return Ok(None);
                    };
                    self.hash_child(child, stride, *shift, place)?
                }
            };
        }
    }
}

/// See [`Reader::map_iter`]. After an error it ends.
#[derive(Debug)]
pub struct HashIter<'a> {
    reader: Reader<'a>,
    stride: usize,
    /// Children yet to visit, the next one last, with the digit and shift of their place.
    stack: Vec<(Ref, u8, u8)>,
    leaf: HashTree,
    next: usize,
}

impl Iterator for HashIter<'_> {
    type Item = Result<(Ref, Ref), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match &self.leaf.0 {
                HashNode::Leaf(refs) => {
                    if let Some(entry) = refs.chunks_exact(self.stride).nth(self.next) {
                        self.next += 1;
                        return Some(Ok((entry[0].clone(), entry[self.stride - 1].clone())));
                    }
                }
                HashNode::Tree { shift, mask, children, .. } => {
                    let places = digits(*mask).zip(children).map(|(place, child)| (child.clone(), *shift, place));
                    let at = self.stack.len();
                    self.stack.extend(places);
                    self.stack[at..].reverse();
                }
            }
            let (child, shift, place) = self.stack.pop()?;
            self.next = 0;
            match self.reader.hash_child(&child, self.stride, shift, place) {
                Ok(node) => self.leaf = node,
                Err(error) => {
                    self.stack.clear();
                    self.leaf = HashTree(HashNode::Leaf(Vec::new()));
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Writer<'_> {
    /// A map of these entries; of equal keys the last one counts.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn map(&mut self, entries: impl IntoIterator<Item = (Ref, Ref)>) -> Result<Cell, TreeError> {
        let entries = entries.into_iter().map(|(k, v)| vec![k, v]).collect();
        Ok(Cell::Map(self.hash_build(entries, 2)?))
    }

    /// A set of these items.
    ///
    /// # Errors
    /// As [`Writer::map`].
    pub fn set(&mut self, items: impl IntoIterator<Item = Ref>) -> Result<Cell, TreeError> {
        let entries = items.into_iter().map(|k| vec![k]).collect();
        Ok(Cell::Set(self.hash_build(entries, 1)?))
    }

    /// The map with this entry added or replaced.
    ///
    /// # Errors
    /// [`TreeError::WrongType`] unless `map` is one; [`TreeError::Missing`] and [`TreeError::Malformed`] on the key's path.
    pub fn map_assoc(&mut self, map: &Cell, key: Ref, value: Ref) -> Result<Cell, TreeError> {
        let Cell::Map(tree) = map else {
            return Err(TreeError::WrongType("map"));
        };
        Ok(Cell::Map(self.hash_assoc(tree, 2, vec![key, value])?))
    }

    /// The set with this item.
    ///
    /// # Errors
    /// As [`Writer::map_assoc`].
    pub fn set_insert(&mut self, set: &Cell, item: Ref) -> Result<Cell, TreeError> {
        let Cell::Set(tree) = set else {
            return Err(TreeError::WrongType("set"));
        };
        Ok(Cell::Set(self.hash_assoc(tree, 1, vec![item])?))
    }

    fn hash_build(&mut self, entries: Vec<Vec<Ref>>, stride: usize) -> Result<HashTree, TreeError> {
        let mut sorted: Vec<Entry> = entries.into_iter().filter_map(|e| Some((e.first()?.id(self.profile), e))).collect();
        // Stable, so that the last of equal keys stands last; reversed, it's the one that dedup keeps.
        sorted.sort_by_key(|(id, _)| *id);
        sorted.reverse();
        sorted.dedup_by_key(|(id, _)| *id);
        sorted.reverse();
        self.hash_split(&sorted, stride)
    }

    fn hash_split(&mut self, entries: &[Entry], stride: usize) -> Result<HashTree, TreeError> {
        let ([(first, _), .., (last, _)], true) = (entries, entries.len() > LEAF) else {
            return Ok(leaf(entries));
        };
        let shift = common(first, last);
        let mut mask = 0u16;
        let mut children = Vec::new();
        for group in entries.chunk_by(|a, b| a.0.digit(shift) == b.0.digit(shift)) {
            mask |= 1 << group[0].0.digit(shift).unwrap_or(0);
            let child = self.hash_split(group, stride)?;
            children.push(self.link(node(child, stride))?);
        }
        Ok(HashTree(HashNode::Tree { count: entries.len() as u64, shift: shift as u8, mask, children }))
    }

    fn hash_assoc(&mut self, tree: &HashTree, stride: usize, entry: Vec<Ref>) -> Result<HashTree, TreeError> {
        let Some(key) = entry.first() else {
            return Ok(tree.clone());
        };
        let id = key.id(self.profile);
        let agree = self.reader().hash_nearest(tree, stride, &id)?.map_or(0, |near| common(&id, &near));
        self.hash_put(tree, stride, &(id, entry), agree)
    }

    /// `agree`: the digits that the new ID shares with its nearest neighbour in the whole tree.
    fn hash_put(&mut self, tree: &HashTree, stride: usize, entry: &Entry, agree: usize) -> Result<HashTree, TreeError> {
        match &tree.0 {
            HashNode::Leaf(refs) => {
                let mut entries: Vec<Entry> = refs.chunks(stride).map(|e| (e[0].id(self.profile), e.to_vec())).collect();
                match entries.binary_search_by_key(&entry.0, |(id, _)| *id) {
                    Ok(i) => entries[i] = entry.clone(),
                    Err(i) => entries.insert(i, entry.clone()),
                }
                self.hash_split(&entries, stride)
            }
            HashNode::Tree { count, shift, .. } if agree < usize::from(*shift) => {
                // The new key leaves before this node branches: a node above it, with the two of them.
                let place = entry.0.digit(agree).unwrap_or(0);
                let other = self.reader().hash_nearest(tree, stride, &entry.0)?.and_then(|id| id.digit(agree)).unwrap_or(0);
                let old = self.link(node(tree.clone(), stride))?;
                let new = self.link(node(leaf(std::slice::from_ref(entry)), stride))?;
                let children = if place < other { vec![new, old] } else { vec![old, new] };
                Ok(HashTree(HashNode::Tree { count: count + 1, shift: agree as u8, mask: 1 << place | 1 << other, children }))
            }
            HashNode::Tree { count, shift, mask, children } => {
                let place = entry.0.digit(usize::from(*shift)).unwrap_or(0);
                let (mut children, mut count, mut mask) = (children.clone(), *count, *mask);
                if let Some(i) = slot(mask, place) {
                    let old = self.reader().hash_child(&children[i], stride, *shift, place)?;
                    let new = self.hash_put(&old, stride, entry, agree)?;
                    count += new.count(stride) - old.count(stride);
                    children[i] = self.link(node(new, stride))?;
                } else {
                    mask |= 1 << place;
                    let at = (mask & ((1 << place) - 1)).count_ones() as usize;
                    let new = self.link(node(leaf(std::slice::from_ref(entry)), stride))?;
                    children.insert(at, new);
                    count += 1;
                }
                Ok(HashTree(HashNode::Tree { count, shift: *shift, mask, children }))
            }
        }
    }
}

fn node(tree: HashTree, stride: usize) -> Cell {
    if stride == 2 { Cell::Map(tree) } else { Cell::Set(tree) }
}

fn leaf(entries: &[Entry]) -> HashTree {
    HashTree(HashNode::Leaf(entries.iter().flat_map(|(_, e)| e.iter().cloned()).collect()))
}

/// Where the child of a digit stands among the children, if it's there.
pub(super) fn slot(mask: u16, place: u8) -> Option<usize> {
    (mask >> place & 1 == 1).then(|| (mask & ((1u16 << place) - 1)).count_ones() as usize)
}

/// How many digits two IDs share at their start.
fn common(a: &ValueId, b: &ValueId) -> usize {
    (0..64).find(|i| a.digit(*i) != b.digit(*i)).unwrap_or(64)
}
