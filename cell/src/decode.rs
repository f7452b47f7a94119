//! From bytes to a cell, canonical form only: what is accepted encodes to the same bytes again.
//!
//! Work and memory are bounded by the bytes that are there. An embedded child is read from at most 140 bytes, so nesting ends by itself;
//! a count decides a layout of at most 63 children and nothing is reserved from it. What a branch holds can't be judged
//! here: [`super::Reader`] checks it against its parent when it's fetched.

use std::sync::Arc;

use bytes::Bytes;

use super::check;
use super::encode::{INDEX_ENTRY, TAG_REF};
use super::id::{Profile, ValueId};
use super::shape;
use super::signed::Signed;
use super::value::{BigInteger, Blob, BlobNode, Cell, HashNode, HashTree, Index, IndexNode, MAX_EMBEDDED, Name, Ref, Vector};
use super::vlq::{self, VlqError};

/// Children nest no deeper: each level takes at least one of the 140 bytes of an embedded cell.
const MAX_DEPTH: usize = MAX_EMBEDDED;
/// The most digits that an Index can branch at (CAD003 since 0.8.11: 0 to 509).
const MAX_INDEX_DEPTH: u64 = 509;

/// Why bytes are no canonical cell. Always the fault of whoever made them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ended within the cell.
    #[error("the input ends within a cell")]
    Truncated,
    /// Bytes follow the cell.
    #[error("{0} bytes follow the cell")]
    Trailing(usize),
    /// The tag is not one of CAD003's.
    #[error("{0:#04x} is no cell tag")]
    UnknownTag(u8),
    /// The encoding is longer than the profile's largest cell.
    #[error("a cell is longer than {max} bytes")]
    TooLarge {
        /// The profile's limit in bytes.
        max: usize,
    },
    /// A count is malformed.
    #[error(transparent)]
    Count(#[from] VlqError),
    /// Well-formed, but not the one encoding of any value; the rule broken is named.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    /// Children nest deeper than any 140 bytes can.
    #[error("children nest too deep")]
    TooDeep,
}

/// Decodes one cell that takes the whole input.
///
/// # Errors
/// [`DecodeError`] unless the input is exactly one canonical encoding within the profile's limit.
pub fn decode(input: &Bytes, profile: &Profile) -> Result<Cell, DecodeError> {
    let (cell, used) = decode_prefix(input, profile)?;
    match input.len() - used {
        0 => Ok(cell),
        rest => Err(DecodeError::Trailing(rest)),
    }
}

/// Decodes one cell from the front of the input: the cell and how many bytes it took.
///
/// Blobs, strings and names share the input's memory, which lives as long as they do.
///
/// # Errors
/// [`DecodeError`] unless the input starts with a canonical encoding within the profile's limit.
pub fn decode_prefix(input: &Bytes, profile: &Profile) -> Result<(Cell, usize), DecodeError> {
    let end = input.len().min(profile.max_cell);
    let mut decoder = Decoder { input, pos: 0, end, profile };
    match decoder.cell(0) {
        Ok(cell) => Ok((cell, decoder.pos)),
        Err(DecodeError::Truncated) if end < input.len() => Err(DecodeError::TooLarge { max: profile.max_cell }),
        Err(error) => Err(error),
    }
}

/// Decodes a child as its parent holds it (see [`super::encode_ref_into`]), alone in the input.
///
/// # Errors
/// [`DecodeError`] unless the input is exactly one reference or embedded cell.
pub fn decode_ref(input: &Bytes, profile: &Profile) -> Result<Ref, DecodeError> {
    let mut decoder = Decoder { input, pos: 0, end: input.len(), profile };
    let child = decoder.child(0)?;
    match input.len() - decoder.pos {
        0 => Ok(child),
        rest => Err(DecodeError::Trailing(rest)),
    }
}

struct Decoder<'a> {
    input: &'a Bytes,
    pos: usize,
    end: usize,
    profile: &'a Profile,
}

type Decoded<T> = Result<T, DecodeError>;

pub(super) const fn rule<T>(what: &'static str) -> Decoded<T> {
    Err(DecodeError::NotCanonical(what))
}

impl Decoder<'_> {
    fn rest(&self) -> &[u8] {
        self.input.get(self.pos..self.end).unwrap_or_default()
    }

    fn u8(&mut self) -> Decoded<u8> {
        let byte = *self.rest().first().ok_or(DecodeError::Truncated)?;
        self.pos += 1;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let array = *self.rest().first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.pos += N;
        Ok(array)
    }

    fn bytes(&mut self, len: u64) -> Decoded<Bytes> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.rest().len()).ok_or(DecodeError::Truncated)?;
        let bytes = self.input.slice(self.pos..self.pos + len);
        self.pos += len;
        Ok(bytes)
    }

    fn count(&mut self) -> Decoded<u64> {
        let (count, used) = vlq::read(self.rest()).map_err(|error| match error {
            VlqError::Truncated => DecodeError::Truncated,
            other => DecodeError::Count(other),
        })?;
        self.pos += used;
        Ok(count)
    }

    fn child(&mut self, depth: usize) -> Decoded<Ref> {
        if self.rest().first() == Some(&TAG_REF) {
            self.pos += 1;
            return Ok(Ref::Branch(ValueId(self.array()?)));
        }
        if depth >= MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        let whole = self.end;
        self.end = whole.min(self.pos.saturating_add(MAX_EMBEDDED));
        let cut = self.end < whole;
        let cell = self.cell(depth + 1).map_err(|error| match error {
            DecodeError::Truncated if cut => DecodeError::NotCanonical("an embedded child takes at most 140 bytes"),
            other => other,
        })?;
        self.end = whole;
        Ok(Ref::Embedded(Arc::new(cell)))
    }

    /// At most 63: the callers' layouts allow no more.
    fn children(&mut self, count: usize, depth: usize) -> Decoded<Vec<Ref>> {
        let mut children = Vec::with_capacity(count.min(63));
        for _ in 0..count {
            children.push(self.child(depth)?);
        }
        Ok(children)
    }

    fn pair(&mut self, depth: usize) -> Decoded<Box<[Ref; 2]>> {
        Ok(Box::new([self.child(depth)?, self.child(depth)?]))
    }

    fn cell(&mut self, depth: usize) -> Decoded<Cell> {
        let tag = self.u8()?;
        let kind = tag & 0xf;
        Ok(match tag {
            0x00 => Cell::Nil,
            0x10..=0x18 => self.integer(usize::from(kind))?,
            0x19 => {
                let len = self.count()?;
                if len > BigInteger::MAX_LEN as u64 {
                    return rule("an integer has at most 4,096 bytes");
                }
                let bytes = self.bytes(len)?;
                let Some(integer) = BigInteger::new(bytes) else {
                    return rule("a big integer has at least 9 bytes, none of them redundant");
                };
                Cell::BigInteger(integer)
            }
            0x1d => Cell::Double(u64::from_be_bytes(self.array()?)),
            0x30 => Cell::String(self.blob(depth)?),
            0x31 => Cell::Blob(self.blob(depth)?),
            0x32 => Cell::Symbol(self.name()?),
            0x33 => Cell::Keyword(self.name()?),
            0x3c..=0x3f => self.character(usize::from(tag - 0x3b))?,
            0x80 => Cell::Vector(self.vector(depth)?),
            0x81 => Cell::List(self.vector(depth)?),
            0x82 => Cell::Map(self.hash_tree(2, depth)?),
            0x83 => Cell::Set(self.hash_tree(1, depth)?),
            0x84 => Cell::Index(self.index(depth)?),
            0x88 => {
                let pair = self.pair(depth)?;
                match pair[1].embedded() {
                    None | Some(Cell::Nil) => {}
                    Some(Cell::Map(map)) if map.count(2) > 0 => {}
                    Some(_) => return rule("a syntax's metadata is nil or a map with entries"),
                }
                Cell::Syntax(pair)
            }
            0x90 | 0x91 => Cell::Signed(Box::new(Signed {
                key: if tag == 0x90 { Some(self.array()?) } else { None },
                signature: self.array()?,
                value: self.child(depth)?,
            })),
            0xa0..=0xaf => {
                let mask = self.count()?;
                let fields = self.children(mask.count_ones() as usize, depth)?;
                if fields.iter().any(|field| field.embedded().is_some_and(Cell::is_nil)) {
                    return rule("a sparse record leaves nil fields out");
                }
                Cell::Sparse { kind, mask, fields }
            }
            0xb0 | 0xb1 => Cell::Bool(kind == 1),
            0xb2..=0xbf => Cell::Flag(kind),
            0xc0..=0xcf => Cell::Coded(kind, self.pair(depth)?),
            0xd0..=0xdf => Cell::Record(kind, self.vector(depth)?),
            0xe0..=0xef => Cell::Extension(kind, self.count()?),
            other => return Err(DecodeError::UnknownTag(other)),
        })
    }

    fn integer(&mut self, len: usize) -> Decoded<Cell> {
        let bytes = self.rest().get(..len).ok_or(DecodeError::Truncated)?;
        if !shape::is_minimal(bytes) {
            return rule("an integer has no redundant sign byte");
        }
        let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
        let value = bytes.iter().fold(sign, |value: i64, b| value << 8 | i64::from(*b));
        self.pos += len;
        Ok(Cell::Integer(value))
    }

    fn character(&mut self, len: usize) -> Decoded<Cell> {
        let bytes = self.rest().get(..len).ok_or(DecodeError::Truncated)?;
        if len > 1 && bytes[0] == 0 {
            return rule("a character has no leading zero byte");
        }
        let point = bytes.iter().fold(0u32, |value, b| value << 8 | u32::from(*b));
        if point > 0x10_ffff {
            return rule("a code point is at most 0x10ffff");
        }
        self.pos += len;
        Ok(Cell::Character(point))
    }

    fn name(&mut self) -> Decoded<Name> {
        let len = self.u8()?;
        let Some(name) = Name::new(self.bytes(u64::from(len))?) else {
            return rule("a name has 1 to 128 bytes");
        };
        Ok(name)
    }

    fn blob(&mut self, depth: usize) -> Decoded<Blob> {
        let len = self.count()?;
        if len <= Blob::CHUNK as u64 {
            return Ok(Blob(BlobNode::Leaf(self.bytes(len)?)));
        }
        let child = shape::blob_child(len);
        let children = self.children(shape::child_count(len, child), depth)?;
        check::blob_children(len, child, &children)?;
        Ok(Blob(BlobNode::Tree { len, children }))
    }

    fn vector(&mut self, depth: usize) -> Decoded<Vector> {
        let count = self.count()?;
        if shape::is_vector_leaf(count) {
            let tail = shape::tail_len(count);
            let refs = self.children(tail + usize::from(count > 16), depth)?;
            if count > 16 {
                check::vector_child(&refs[tail], count - tail as u64)?;
            }
            return Ok(Vector { count, refs });
        }
        let child = shape::vector_child(count);
        let refs = self.children(shape::child_count(count, child), depth)?;
        for (i, r) in refs.iter().enumerate() {
            check::vector_child(r, shape::child_len(count, child, i))?;
        }
        Ok(Vector { count, refs })
    }

    fn hash_tree(&mut self, stride: usize, depth: usize) -> Decoded<HashTree> {
        let count = self.count()?;
        if count < 16 {
            let refs = self.children(count as usize * stride, depth)?;
            check::entries_in_order(&refs, stride, self.profile)?;
            return Ok(HashTree(HashNode::Leaf(refs)));
        }
        let shift = self.u8()?;
        let mask = u16::from_be_bytes(self.array()?);
        if shift > 63 || mask.count_ones() < 2 {
            return rule("a map tree branches within 64 digits and at least in two");
        }
        let children = self.children(mask.count_ones() as usize, depth)?;
        let node = HashTree(HashNode::Tree { count, shift, mask, children });
        check::hash_tree(&node, stride, self.profile)?;
        Ok(node)
    }

    fn index(&mut self, depth: usize) -> Decoded<Index> {
        let count = self.count()?;
        if count == 0 {
            return Ok(Index::empty());
        }
        if count == 1 {
            let pair = self.pair(depth)?;
            check::index_key(&pair[0])?;
            return Ok(Index(IndexNode::Single(pair)));
        }
        let has_entry = match self.u8()? {
            0 => false,
            INDEX_ENTRY => true,
            _ => return rule("an index node has an entry, 0x80, or none, 0x00"),
        };
        let mut refs = self.children(if has_entry { 2 } else { 0 }, depth)?;
        let digits = self.count()?;
        if digits > MAX_INDEX_DEPTH {
            return rule("an index branches at digit 509 at most");
        }
        let mask = u16::from_be_bytes(self.array()?);
        if mask.count_ones() + u32::from(has_entry) < 2 {
            return rule("an index node holds an entry and a child, or two children");
        }
        refs.extend(self.children(mask.count_ones() as usize, depth)?);
        let node = Index(IndexNode::Tree { count, depth: digits as u16, mask, has_entry, refs });
        check::index(&node)?;
        Ok(node)
    }
}
