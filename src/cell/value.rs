//! What a cell is: one enum over the CAD003 types, and the reference to a child.
//!
//! The tree nodes ([`Blob`], [`Vector`], [`HashTree`], [`Index`]) are opaque: only the decoder and [`super::Writer`] make them, so
//! each one that exists has a canonical layout.

use std::sync::Arc;

use bytes::Bytes;

use super::id::ValueId;
use super::shape;
use super::signed::Signed;

/// The longest encoding, in bytes, that is written within its parent; a longer one is a branch (CAD003 "Embedded References").
pub const MAX_EMBEDDED: usize = 140;

/// The longest symbol or keyword, in bytes (CAD003 `0x32`, `0x33`).
pub const NAME_MAX: usize = 128;

/// A child of a cell. Made by [`super::Writer::link`] or the decoder, which know which of the two it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    /// Within the parent's bytes: its encoding has [`MAX_EMBEDDED`] bytes at most.
    Embedded(Arc<Cell>),
    /// A cell of its own, named by the hash of its encoding.
    Branch(ValueId),
}

impl Ref {
    /// The nil reference, always embedded.
    #[must_use]
    pub fn nil() -> Self {
        Self::Embedded(Arc::new(Cell::Nil))
    }

    /// The child, if it's embedded.
    #[must_use]
    pub fn embedded(&self) -> Option<&Cell> {
        match self {
            Self::Embedded(cell) => Some(cell),
            Self::Branch(_) => None,
        }
    }

    /// The child's ID, if it's a branch.
    #[must_use]
    pub const fn branch(&self) -> Option<&ValueId> {
        match self {
            Self::Embedded(_) => None,
            Self::Branch(id) => Some(id),
        }
    }
}

/// The content of one encoding.
///
/// Equality is equality of encodings, so of values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cell {
    /// `00`
    Nil,
    /// `b0`, `b1`
    Bool(bool),
    /// `b2` to `bf`: a one-byte flag, the value is the low half of the tag (2 to 15; others are taken modulo 16).
    Flag(u8),
    /// `10` to `18`: an integer of at most 8 bytes.
    Integer(i64),
    /// `19`: an integer of 9 to 4,096 bytes.
    BigInteger(BigInteger),
    /// `1d`: the 64 bits of an IEEE 754 double; every pattern is a value of its own.
    Double(u64),
    /// `30`: bytes taken as UTF-8; CAD003 doesn't enforce it.
    String(Blob),
    /// `31`: bytes.
    Blob(Blob),
    /// `32`
    Symbol(Name),
    /// `33`
    Keyword(Name),
    /// `3c` to `3f`: a code point, at most 0x10ffff.
    Character(u32),
    /// `80`
    Vector(Vector),
    /// `81`: a vector stored in reversed order.
    List(Vector),
    /// `82`
    Map(HashTree),
    /// `83`
    Set(HashTree),
    /// `84`: a radix tree over byte-string keys.
    Index(Index),
    /// `88`: a value, then its metadata (a map or nil).
    Syntax(Box<[Ref; 2]>),
    /// `90`, `91`
    Signed(Box<Signed>),
    /// `a0` to `af`: kind (0 to 15), inclusion mask, the included fields.
    Sparse {
        /// Low half of the tag.
        kind: u8,
        /// Which fields are present; bit 0 is field 0.
        mask: u64,
        /// The fields of the set bits, none of them nil.
        fields: Vec<Ref>,
    },
    /// `c0` to `cf`: kind (0 to 15), then code and value.
    Coded(u8, Box<[Ref; 2]>),
    /// `d0` to `df`: kind (0 to 15), then fields laid out as a vector's.
    Record(u8, Vector),
    /// `e0` to `ef`: kind (0 to 15), then a count of at most 63 bits. Kind 10 is a Convex address.
    Extension(u8, u64),
}

impl Cell {
    /// The directly attached children, in encoding order.
    #[must_use]
    pub fn children(&self) -> &[Ref] {
        match self {
            Self::String(b) | Self::Blob(b) => b.children(),
            Self::Vector(v) | Self::List(v) | Self::Record(_, v) => &v.refs,
            Self::Map(t) | Self::Set(t) => t.children(),
            Self::Index(i) => i.children(),
            Self::Syntax(pair) | Self::Coded(_, pair) => &pair[..],
            Self::Signed(s) => std::slice::from_ref(&s.value),
            Self::Sparse { fields, .. } => fields,
            _ => &[],
        }
    }

    /// A blob of one cell.
    ///
    /// `None` above 4,096 bytes: such a blob is a tree, see [`super::Writer::blob`].
    #[must_use]
    pub fn blob(bytes: impl Into<Bytes>) -> Option<Self> {
        Blob::leaf(bytes.into()).map(Self::Blob)
    }

    /// A string of one cell; `None` above 4,096 bytes.
    #[must_use]
    pub fn string(text: impl Into<Bytes>) -> Option<Self> {
        Blob::leaf(text.into()).map(Self::String)
    }

    /// Is it nil?
    #[must_use]
    pub const fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The integer, if it is one of at most 64 bits.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The bytes of a blob of one cell.
    #[must_use]
    pub fn as_blob(&self) -> Option<&Bytes> {
        match self {
            Self::Blob(b) => b.bytes(),
            _ => None,
        }
    }

    /// The 32 bytes of a blob of that length: a hash or a key.
    #[must_use]
    pub fn as_blob32(&self) -> Option<[u8; 32]> {
        self.as_blob()?.as_ref().try_into().ok()
    }

    /// The bytes of a string of one cell.
    #[must_use]
    pub fn as_string(&self) -> Option<&Bytes> {
        match self {
            Self::String(b) => b.bytes(),
            _ => None,
        }
    }

    /// The name, if it's a keyword.
    #[must_use]
    pub const fn as_keyword(&self) -> Option<&Name> {
        match self {
            Self::Keyword(name) => Some(name),
            _ => None,
        }
    }

    /// The items of a vector of at most 16 elements, all in this cell.
    #[must_use]
    pub fn as_short_vector(&self) -> Option<&[Ref]> {
        match self {
            Self::Vector(v) if v.count <= 16 => Some(&v.refs),
            _ => None,
        }
    }
}

/// The bytes of a [`Cell::BigInteger`]: two's complement, big-endian, shortest form, 9 to 4,096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigInteger(pub(super) Bytes);

impl BigInteger {
    /// The largest, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Takes big-endian two's complement bytes; `None` unless they're the shortest form and 9 to 4,096 long.
    #[must_use]
    pub fn new(bytes: Bytes) -> Option<Self> {
        ((9..=Self::MAX_LEN).contains(&bytes.len()) && shape::is_minimal(&bytes)).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// The bytes of a symbol or keyword: 1 to [`NAME_MAX`], UTF-8 by convention.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub(super) Bytes);

impl Name {
    /// Takes a name; `None` unless it has 1 to 128 bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        (1..=NAME_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// A node of a blob or string tree: up to 4,096 bytes, or 2 to 16 child blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub(super) BlobNode);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlobNode {
    Leaf(Bytes),
    Tree { len: u64, children: Vec<Ref> },
}

impl Blob {
    /// The most bytes in one cell; longer ones are trees of such chunks (CAD003 `0x31`).
    pub const CHUNK: usize = 4096;

    pub(super) fn leaf(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= Self::CHUNK).then_some(Self(BlobNode::Leaf(bytes)))
    }

    /// Length of the whole value in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match &self.0 {
            BlobNode::Leaf(bytes) => bytes.len() as u64,
            BlobNode::Tree { len, .. } => *len,
        }
    }

    /// Is it of length 0?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they're all in this cell.
    #[must_use]
    pub const fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            BlobNode::Leaf(bytes) => Some(bytes),
            BlobNode::Tree { .. } => None,
        }
    }

    fn children(&self) -> &[Ref] {
        match &self.0 {
            BlobNode::Leaf(_) => &[],
            BlobNode::Tree { children, .. } => children,
        }
    }
}

/// A node of a vector: a leaf (tail items, then the prefix vector if there are more) or a tree of child vectors.
///
/// Which of the two it is follows from the count: see [`Vector::is_leaf`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    pub(super) count: u64,
    pub(super) refs: Vec<Ref>,
}

impl Vector {
    /// The empty vector.
    #[must_use]
    pub const fn empty() -> Self {
        Self { count: 0, refs: Vec::new() }
    }

    /// A vector of one cell; elements after the sixteenth are left out. Longer ones: [`super::Writer::vector`].
    #[must_use]
    pub fn short(items: impl IntoIterator<Item = Ref>) -> Self {
        let refs: Vec<Ref> = items.into_iter().take(16).collect();
        Self { count: refs.len() as u64, refs }
    }

    /// The children of a tree node, each with its number of elements; none in a leaf.
    pub fn parts(&self) -> impl Iterator<Item = (&Ref, u64)> {
        let size = shape::vector_child(self.count);
        let refs = if self.is_leaf() { &[][..] } else { &self.refs };
        refs.iter().enumerate().map(move |(i, child)| (child, shape::child_len(self.count, size, i)))
    }

    /// Replaces the first element of a vector of one cell.
    pub fn set_first(&mut self, item: Ref) {
        if self.count <= 16
            && let Some(first) = self.refs.first_mut()
        {
            *first = item;
        }
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Has it no element?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Does this cell hold items? (Count up to 16, or no multiple of 16.)
    #[must_use]
    pub const fn is_leaf(&self) -> bool {
        shape::is_vector_leaf(self.count)
    }

    /// The last items of the vector, held in this cell; none in a tree node.
    #[must_use]
    pub fn tail(&self) -> &[Ref] {
        if self.is_leaf() { &self.refs[..shape::tail_len(self.count).min(self.refs.len())] } else { &[] }
    }

    /// The vector of all elements before the tail.
    pub fn prefix(&self) -> Option<&Ref> {
        if self.is_leaf() { self.refs.get(shape::tail_len(self.count)) } else { None }
    }
}

/// A node of a map or set: up to 15 entries in the order of their keys' IDs, or a tree by hex digit of these IDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree(pub(super) HashNode);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HashNode {
    /// Keys (set) or key, value, key, value (map).
    Leaf(Vec<Ref>),
    Tree {
        count: u64,
        shift: u8,
        mask: u16,
        children: Vec<Ref>,
    },
}

impl HashTree {
    fn children(&self) -> &[Ref] {
        match &self.0 {
            HashNode::Leaf(refs) => refs,
            HashNode::Tree { children, .. } => children,
        }
    }

    /// Number of entries; `stride` is 2 for a map, 1 for a set.
    pub(super) const fn count(&self, stride: usize) -> u64 {
        match &self.0 {
            HashNode::Leaf(refs) => (refs.len() / stride) as u64,
            HashNode::Tree { count, .. } => *count,
        }
    }
}

/// A node of an Index: empty, one entry, or a branching at one hex digit of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index(pub(super) IndexNode);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IndexNode {
    Empty,
    /// Key and value.
    Single(Box<[Ref; 2]>),
    Tree {
        count: u64,
        depth: u16,
        mask: u16,
        /// Do `refs` start with the key and value of an entry whose key ends at this depth?
        has_entry: bool,
        refs: Vec<Ref>,
    },
}

impl Index {
    /// The empty index.
    #[must_use]
    pub const fn empty() -> Self {
        Self(IndexNode::Empty)
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match &self.0 {
            IndexNode::Empty => 0,
            IndexNode::Single(_) => 1,
            IndexNode::Tree { count, .. } => *count,
        }
    }

    /// Has it no entry?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.0, IndexNode::Empty)
    }

    /// Key and value of the entry at this node itself.
    pub fn entry(&self) -> Option<(&Ref, &Ref)> {
        match &self.0 {
            IndexNode::Single(pair) => Some((&pair[0], &pair[1])),
            IndexNode::Tree { has_entry: true, refs, .. } => Some((refs.first()?, refs.get(1)?)),
            _ => None,
        }
    }

    /// The nodes below, each with the depth and digit of its place.
    pub fn below(&self) -> impl Iterator<Item = (&Ref, u16, u8)> {
        let (refs, depth, mask) = match &self.0 {
            IndexNode::Tree { depth, mask, has_entry, refs, .. } => (&refs[if *has_entry { 2 } else { 0 }..], *depth, *mask),
            _ => (&[][..], 0, 0),
        };
        shape::digits(mask).zip(refs).map(move |(place, child)| (child, depth, place))
    }

    fn children(&self) -> &[Ref] {
        match &self.0 {
            IndexNode::Empty => &[],
            IndexNode::Single(pair) => &pair[..],
            IndexNode::Tree { refs, .. } => refs,
        }
    }
}

/// The IDs of the branches that a cell's own bytes name, those named by embedded children included; repeats are kept.
#[must_use]
pub fn refs(cell: &Cell) -> Refs<'_> {
    Refs { stack: vec![cell.children().iter()] }
}

/// See [`refs`].
#[derive(Debug)]
pub struct Refs<'a> {
    stack: Vec<std::slice::Iter<'a, Ref>>,
}

impl Iterator for Refs<'_> {
    type Item = ValueId;

    fn next(&mut self) -> Option<ValueId> {
        loop {
            match self.stack.last_mut()?.next() {
                None => {
                    self.stack.pop();
                }
                Some(Ref::Branch(id)) => return Some(*id),
                Some(Ref::Embedded(cell)) => {
                    if !cell.children().is_empty() {
                        self.stack.push(cell.children().iter());
                    }
                }
            }
        }
    }
}
