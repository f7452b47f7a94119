//! Vectors: a tail of up to 16 items in the root, the rest in trees of 16 (CAD003 `0x80`).
//!
//! Lists and dense records hold a [`Vector`] too; the functions here take the node, so they serve all three.

use std::ops::Range;

use super::{Reader, TreeError, Writer};
use crate::check;
use crate::shape;
use crate::value::{Cell, Ref, Vector};

/// Items in a leaf.
const FAN: usize = 16;

impl<'a> Reader<'a> {
    /// Element `i` of a vector; `None` past its end.
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn vector_get(&self, vector: &Vector, i: u64) -> Result<Option<Ref>, TreeError> {
        if i >= vector.count {
            return Ok(None);
        }
        let (items, start) = self.vector_leaf(vector, i)?;
        Ok(items.get((i - start) as usize).cloned())
    }

    /// The elements in `range`, cut at the vector's end, in order.
    #[must_use]
    pub fn vector_iter(&self, vector: &Vector, range: Range<u64>) -> VectorIter<'a> {
        VectorIter {
            reader: *self,
            root: vector.clone(),
            next: range.start,
            end: range.end.min(vector.count),
            leaf: Vec::new(),
            leaf_start: 0,
        }
    }

    /// The items of the leaf that holds element `i`, and the number of its first.
    fn vector_leaf(&self, vector: &Vector, i: u64) -> Result<(Vec<Ref>, u64), TreeError> {
        let mut node = vector.clone();
        let mut start = 0;
        loop {
            let within = i.saturating_sub(start);
            let (child, count, before) = if node.is_leaf() {
                let before = node.count - node.tail().len() as u64;
                match node.prefix() {
                    Some(prefix) if within < before => (prefix, before, 0),
                    _ => return Ok((node.tail().to_vec(), start + before)),
                }
            } else {
                let size = shape::vector_child(node.count);
                let place = (within / size) as usize;
                let child = node.refs.get(place).ok_or(TreeError::WrongType("vector with that element"))?;
                (child, shape::child_len(node.count, size, place), size * place as u64)
            };
            start += before;
            node = self.vector_child(child, count)?;
        }
    }

    /// The node behind a child of a vector node, which must hold `count` elements ([`Vector::parts`], [`Vector::prefix`]).
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn vector_child(&self, child: &Ref, count: u64) -> Result<Vector, TreeError> {
        match &*self.resolve_checked(child, |cell| check::vector_node(cell, count))? {
            Cell::Vector(v) => Ok(v.clone()),
            _ => Err(TreeError::WrongType("vector")),
        }
    }
}

/// See [`Reader::vector_iter`]. After an error it ends.
#[derive(Debug)]
pub struct VectorIter<'a> {
    reader: Reader<'a>,
    root: Vector,
    next: u64,
    end: u64,
    leaf: Vec<Ref>,
    leaf_start: u64,
}

impl Iterator for VectorIter<'_> {
    type Item = Result<Ref, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let i = self.next;
        self.next += 1;
        if i >= self.leaf_start.saturating_add(self.leaf.len() as u64) || self.leaf.is_empty() {
            match self.reader.vector_leaf(&self.root, i) {
                Ok((leaf, start)) => (self.leaf, self.leaf_start) = (leaf, start),
                Err(error) => {
                    self.next = self.end;
                    return Some(Err(error));
                }
            }
        }
        self.leaf.get((i - self.leaf_start) as usize).cloned().map(Ok)
    }
}

impl Writer<'_> {
    /// A vector of these items.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn vector(&mut self, items: &[Ref]) -> Result<Vector, TreeError> {
        let count = items.len() as u64;
        if shape::is_vector_leaf(count) {
            let (before, tail) = items.split_at(items.len() - shape::tail_len(count));
            let mut refs = tail.to_vec();
            if !before.is_empty() {
                let prefix = self.vector(before)?;
                refs.push(self.link(Cell::Vector(prefix))?);
            }
            return Ok(Vector { count, refs });
        }
        let size = shape::vector_child(count) as usize;
        let mut refs = Vec::with_capacity(FAN);
        for part in items.chunks(size) {
            let child = self.vector(part)?;
            refs.push(self.link(Cell::Vector(child))?);
        }
        Ok(Vector { count, refs })
    }

    /// The vector with one more element at its end. Amortised O(1): only each sixteenth push touches more than the root.
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`] on the right edge of the tree.
    pub fn vector_push(&mut self, vector: &Vector, item: Ref) -> Result<Vector, TreeError> {
        let count = vector.count + 1;
        if vector.count > 0 && vector.count.is_multiple_of(FAN as u64) {
            let prefix = self.link(Cell::Vector(vector.clone()))?;
            return Ok(Vector { count, refs: vec![item, prefix] });
        }
        let mut tail = vector.tail().to_vec();
        tail.push(item);
        match vector.prefix() {
            None => Ok(Vector { count, refs: tail }),
            Some(prefix) if tail.len() < FAN => {
                tail.push(prefix.clone());
                Ok(Vector { count, refs: tail })
            }
            Some(prefix) => {
                let packed = self.reader().vector_child(prefix, count - FAN as u64)?;
                let leaf = self.link(Cell::Vector(Vector { count: FAN as u64, refs: tail }))?;
                self.append_leaf(&packed, leaf)
            }
        }
    }

    /// `packed` (a positive multiple of 16 elements) with one more full leaf.
    fn append_leaf(&mut self, packed: &Vector, leaf: Ref) -> Result<Vector, TreeError> {
        let count = packed.count + FAN as u64;
        let size = shape::vector_child(packed.count);
        if packed.count == FAN as u64 || packed.count == size * FAN as u64 {
            let full = self.link(Cell::Vector(packed.clone()))?;
            return Ok(Vector { count, refs: vec![full, leaf] });
        }
        let mut refs = packed.refs.clone();
        let last_len = shape::child_len(packed.count, size, refs.len().saturating_sub(1));
        if last_len == size {
            refs.push(leaf);
        } else if let Some(last) = refs.pop() {
            let last = self.reader().vector_child(&last, last_len)?;
            let grown = self.append_leaf(&last, leaf)?;
            refs.push(self.link(Cell::Vector(grown))?);
        }
        Ok(Vector { count, refs })
    }

    /// The vector of the first `count` elements, sharing all whole blocks: O(log n). It is the vector that pushing these
    /// elements makes, so comparing two prefixes compares all their elements.
    ///
    /// # Errors
    /// [`TreeError::Missing`] and [`TreeError::Malformed`] along the cut.
    pub fn vector_prefix(&mut self, vector: &Vector, count: u64) -> Result<Vector, TreeError> {
        if count >= vector.count {
            return Ok(vector.clone());
        }
        if count == 0 {
            return Ok(Vector::empty());
        }
        let fan = FAN as u64;
        let tail = count % fan;
        if tail == 0 {
            return self.packed_prefix(vector, count);
        }
        let (leaf, start) = self.reader().vector_leaf(vector, count - 1)?;
        let mut refs = leaf;
        refs.truncate((count - start) as usize);
        if start > 0 {
            let packed = self.packed_prefix(vector, start)?;
            refs.push(self.link(Cell::Vector(packed))?);
        }
        Ok(Vector { count, refs })
    }

    /// `count`: a positive multiple of 16, at most the vector's.
    fn packed_prefix(&mut self, vector: &Vector, count: u64) -> Result<Vector, TreeError> {
        if count == vector.count {
            return Ok(vector.clone());
        }
        if let Some(prefix) = vector.prefix() {
            let before = vector.count - vector.tail().len() as u64;
            let prefix = self.reader().vector_child(prefix, before)?;
            return self.packed_prefix(&prefix, count);
        }
        let size = shape::vector_child(vector.count);
        let child = |i: usize| vector.refs.get(i).ok_or(TreeError::WrongType("vector of that length"));
        if count <= size {
            let first = self.reader().vector_child(child(0)?, size.min(vector.count))?;
            return self.packed_prefix(&first, count);
        }
        let whole = (count / size) as usize;
        let mut refs = vector.refs.get(..whole).unwrap_or_default().to_vec();
        let rest = count % size;
        if rest > 0 {
            let cut = self.reader().vector_child(child(whole)?, shape::child_len(vector.count, size, whole))?;
            let cut = self.packed_prefix(&cut, rest)?;
            refs.push(self.link(Cell::Vector(cut))?);
        }
        Ok(Vector { count, refs })
    }

    /// The vector with element `i` replaced.
    ///
    /// # Errors
    /// [`TreeError::WrongType`] when there is no element `i`; [`TreeError::Missing`] and [`TreeError::Malformed`] on its path.
    pub fn vector_set(&mut self, vector: &Vector, i: u64, item: Ref) -> Result<Vector, TreeError> {
        if i >= vector.count {
            return Err(TreeError::WrongType("vector with that element"));
        }
        let mut refs = vector.refs.clone();
        let (place, inner) = if vector.is_leaf() {
            let tail = vector.tail().len();
            let before = vector.count - tail as u64;
            if i >= before { ((i - before) as usize, None) } else { (tail, Some((i, before))) }
        } else {
            let size = shape::vector_child(vector.count);
            let place = (i / size) as usize;
            (place, Some((i % size, shape::child_len(vector.count, size, place))))
        };
        let Some(slot) = refs.get_mut(place) else {
            return Err(TreeError::WrongType("vector with that element"));
        };
        *slot = match inner {
            None => item,
            Some((i, count)) => {
                let child = self.reader().vector_child(slot, count)?;
                let child = self.vector_set(&child, i, item)?;
                self.link(Cell::Vector(child))?
            }
        };
        Ok(Vector { count: vector.count, refs })
    }
}
