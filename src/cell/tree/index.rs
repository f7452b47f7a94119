//! Indexes: radix trees over byte-string keys, in the keys' order (CAD003 `0x84`).

use bytes::Bytes;

use super::hash::slot;
use super::{Reader, TreeError, Writer};
use crate::check::{self, index_key};
use crate::id::digit;
use crate::shape::digits;
use crate::value::{Cell, Index, IndexNode, Ref};

/// The longest key made here: it embeds as a blob, so that a node can be ordered by what's in its own cell.
const KEY_MAX: usize = 137;

impl<'a> Reader<'a> {
    /// The value of a key.
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`] on the key's path.
    pub fn index_get(&self, index: &Index, key: &[u8]) -> Result<Option<Ref>, TreeError> {
        let mut node = index.clone();
        loop {
            node = match &node.0 {
                IndexNode::Empty => return Ok(None),
                IndexNode::Single(pair) => {
                    return Ok((self.key_bytes(&pair[0])? == key).then(|| pair[1].clone()));
                }
                IndexNode::Tree { depth, mask, has_entry, refs, .. } => {
                    if key.len() * 2 == usize::from(*depth) {
                        let held = *has_entry && self.key_bytes(&refs[0])? == key;
                        return Ok(held.then(|| refs[1].clone()));
                    }
                    let Some(place) = digit(key, usize::from(*depth)) else {
                        return Ok(None);
                    };
                    let Some(i) = slot(*mask, place) else {
                        return Ok(None);
                    };
                    self.index_child(&refs[i + entry_refs(*has_entry)], *depth, place)?
                }
            };
        }
    }

    /// The entries in the order of their keys.
    #[must_use]
    pub fn index_iter(&self, index: &Index) -> IndexIter<'a> {
        IndexIter { reader: *self, stack: vec![Visit::Node(index.clone())] }
    }

    /// The node behind a child of an index node, which must be one for its place ([`Index::below`]).
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn index_child(&self, child: &Ref, depth: u16, place: u8) -> Result<Index, TreeError> {
        match &*self.resolve_checked(child, |cell| check::index_child(cell, depth, place))? {
            Cell::Index(index) => Ok(index.clone()),
            _ => Err(TreeError::WrongType("index")),
        }
    }

    /// The bytes that order a key, fetched if it's a branch.
    fn key_bytes(&self, key: &Ref) -> Result<Bytes, TreeError> {
        let key = Ref::Embedded(self.resolve(key)?);
        match index_key(&key) {
            Ok(Some(bytes)) => Ok(Bytes::copy_from_slice(&bytes)),
            Ok(None) => Err(TreeError::KeyTooLong),
            Err(_) => Err(TreeError::WrongType("index key")),
        }
    }

    /// A key that agrees with `key` for as many digits as any in the tree.
    fn index_nearest(&self, index: &Index, key: &[u8]) -> Result<Option<Bytes>, TreeError> {
        let mut node = index.clone();
        loop {
            node = match &node.0 {
                IndexNode::Empty => return Ok(None),
                IndexNode::Single(pair) => return self.key_bytes(&pair[0]).map(Some),
                IndexNode::Tree { depth, mask, has_entry, refs, .. } => {
                    let wanted = digit(key, usize::from(*depth)).filter(|d| slot(*mask, *d).is_some());
                    if wanted.is_none() && *has_entry {
                        return self.key_bytes(&refs[0]).map(Some);
                    }
                    let place = wanted.unwrap_or(mask.trailing_zeros() as u8);
                    let Some(i) = slot(*mask, place) else {
                        return Ok(None);
                    };
                    self.index_child(&refs[i + entry_refs(*has_entry)], *depth, place)?
                }
            };
        }
    }
}

const fn entry_refs(has_entry: bool) -> usize {
    if has_entry { 2 } else { 0 }
}

#[derive(Debug)]
enum Visit {
    Node(Index),
    Child(Ref, u16, u8),
    Entry(Ref, Ref),
}

/// See [`Reader::index_iter`]. After an error it ends.
#[derive(Debug)]
pub struct IndexIter<'a> {
    reader: Reader<'a>,
    /// What's left to visit, the next one last.
    stack: Vec<Visit>,
}

impl Iterator for IndexIter<'_> {
    type Item = Result<(Ref, Ref), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let node = match self.stack.pop()? {
                Visit::Entry(key, value) => return Some(Ok((key, value))),
                Visit::Node(node) => node,
                Visit::Child(child, depth, place) => match self.reader.index_child(&child, depth, place) {
                    Ok(node) => node,
                    Err(error) => {
                        self.stack.clear();
                        return Some(Err(error));
                    }
                },
            };
            match node.0 {
                IndexNode::Empty => {}
                IndexNode::Single(pair) => {
                    let [key, value] = *pair;
                    return Some(Ok((key, value)));
                }
                IndexNode::Tree { depth, mask, has_entry, refs, .. } => {
                    let (entry, children) = refs.split_at(entry_refs(has_entry));
                    let at = self.stack.len();
                    if let [key, value] = entry {
                        self.stack.push(Visit::Entry(key.clone(), value.clone()));
                    }
                    let places = digits(mask).zip(children).map(|(place, c)| Visit::Child(c.clone(), depth, place));
                    self.stack.extend(places);
                    self.stack[at..].reverse();
                }
            }
        }
    }
}

impl Writer<'_> {
    /// An index of these entries; of equal keys the last one counts. Keys become blobs.
    ///
    /// # Errors
    /// [`TreeError::KeyTooLong`] for a key above 137 bytes.
    pub fn index<K: Into<Bytes>>(&mut self, entries: impl IntoIterator<Item = (K, Ref)>) -> Result<Index, TreeError> {
        let mut sorted: Vec<(Bytes, Ref)> = entries.into_iter().map(|(k, v)| (k.into(), v)).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        sorted.reverse();
        sorted.dedup_by(|a, b| a.0 == b.0);
        sorted.reverse();
        self.index_split(&sorted)
    }

    fn index_split(&mut self, entries: &[(Bytes, Ref)]) -> Result<Index, TreeError> {
        let [(first, _), .., (last, _)] = entries else {
            return match entries {
                [(key, value)] => Ok(Index(IndexNode::Single(Box::new([key_ref(key)?, value.clone()])))),
                _ => Ok(Index::empty()),
            };
        };
        let depth = common(first, last);
        // Sorted: a key that ends here is the first.
        let has_entry = first.len() * 2 == depth;
        let (entry, below) = entries.split_at(usize::from(has_entry));
        let mut refs = Vec::new();
        for (key, value) in entry {
            refs.extend([key_ref(key)?, value.clone()]);
        }
        let mut mask = 0u16;
        for group in below.chunk_by(|a, b| digit(&a.0, depth) == digit(&b.0, depth)) {
            mask |= 1 << digit(&group[0].0, depth).unwrap_or(0);
            let child = self.index_split(group)?;
            refs.push(self.link(Cell::Index(child))?);
        }
        Ok(Index(IndexNode::Tree { count: entries.len() as u64, depth: depth as u16, mask, has_entry, refs }))
    }

    /// The index with this entry added or replaced.
    ///
    /// # Errors
    /// [`TreeError::KeyTooLong`]; [`TreeError::Missing`] and [`TreeError::Malformed`] on the key's path.
    pub fn index_assoc(&mut self, index: &Index, key: &[u8], value: Ref) -> Result<Index, TreeError> {
        let pair = [key_ref(key)?, value];
        let near = self.reader().index_nearest(index, key)?;
        let agree = near.as_ref().map_or(0, |near| common(near, key));
        self.index_put(index, key, pair, agree, near.as_deref().unwrap_or_default())
    }

    /// `agree`: the digits that the new key shares with `near`, its nearest neighbour in the whole tree.
    fn index_put(&mut self, index: &Index, key: &[u8], pair: [Ref; 2], agree: usize, near: &[u8]) -> Result<Index, TreeError> {
        match &index.0 {
            IndexNode::Empty => Ok(single(pair)),
            IndexNode::Single(old) => {
                if near == key {
                    return Ok(single(pair));
                }
                let old_pair = (**old).clone();
                if near.len() * 2 == agree {
                    self.index_pair(Some(old_pair), (digit(key, agree), single(pair)), None, agree, 2)
                } else if key.len() * 2 == agree {
                    self.index_pair(Some(pair), (digit(near, agree), single(old_pair)), None, agree, 2)
                } else {
                    let new = (digit(key, agree), single(pair));
                    self.index_pair(None, new, Some((digit(near, agree), single(old_pair))), agree, 2)
                }
            }
            IndexNode::Tree { count, depth, .. } if agree < usize::from(*depth) => {
                let old = (digit(near, agree), index.clone());
                if key.len() * 2 == agree {
                    self.index_pair(Some(pair), old, None, agree, count + 1)
                } else {
                    self.index_pair(None, (digit(key, agree), single(pair)), Some(old), agree, count + 1)
                }
            }
            IndexNode::Tree { count, depth, mask, has_entry, refs } => {
                let (mut refs, mut count, mut mask, mut has_entry) = (refs.clone(), *count, *mask, *has_entry);
                match digit(key, usize::from(*depth)) {
                    None => {
                        let replaced = entry_refs(has_entry);
                        refs.splice(..replaced, pair);
                        count += u64::from(!has_entry);
                        has_entry = true;
                    }
                    Some(place) => match slot(mask, place) {
                        Some(i) => {
                            let i = i + entry_refs(has_entry);
                            let old = self.reader().index_child(&refs[i], *depth, place)?;
                            let new = self.index_put(&old, key, pair, agree, near)?;
                            count += new.len() - old.len();
                            refs[i] = self.link(Cell::Index(new))?;
                        }
                        None => {
                            let i = (mask & ((1u16 << place) - 1)).count_ones() as usize + entry_refs(has_entry);
                            mask |= 1 << place;
                            let new = self.link(Cell::Index(single(pair)))?;
                            refs.insert(i, new);
                            count += 1;
                        }
                    },
                }
                Ok(Index(IndexNode::Tree { count, depth: *depth, mask, has_entry, refs }))
            }
        }
    }

    /// A node at `depth` with an entry or a second child beside the first.
    fn index_pair(
        &mut self,
        entry: Option<[Ref; 2]>,
        first: (Option<u8>, Index),
        second: Option<(Option<u8>, Index)>,
        depth: usize,
        count: u64,
    ) -> Result<Index, TreeError> {
        let has_entry = entry.is_some();
        let mut children = vec![first];
        children.extend(second);
        children.sort_by_key(|(place, _)| *place);
        let mut refs: Vec<Ref> = entry.into_iter().flatten().collect();
        let mut mask = 0u16;
        for (place, child) in children {
            mask |= 1 << place.unwrap_or(0);
            refs.push(self.link(Cell::Index(child))?);
        }
        Ok(Index(IndexNode::Tree { count, depth: depth as u16, mask, has_entry, refs }))
    }
}

fn single(pair: [Ref; 2]) -> Index {
    Index(IndexNode::Single(Box::new(pair)))
}

fn key_ref(key: &[u8]) -> Result<Ref, TreeError> {
    if key.len() > KEY_MAX {
        return Err(TreeError::KeyTooLong);
    }
    let cell = Cell::blob(Bytes::copy_from_slice(key)).ok_or(TreeError::KeyTooLong)?;
    Ok(Ref::Embedded(std::sync::Arc::new(cell)))
}

/// How many hex digits two keys share at their start.
fn common(a: &[u8], b: &[u8]) -> usize {
    let whole = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(whole), b.get(whole)) {
        (Some(x), Some(y)) if x >> 4 == y >> 4 => whole * 2 + 1,
        _ => whole * 2,
    }
}
