//! From a cell to its bytes. No hashing: a branch is already named by its ID.

use bytes::{BufMut, Bytes, BytesMut};

use super::id::{Profile, ValueId};
use super::shape;
use super::value::{BlobNode, Cell, HashNode, HashTree, Index, IndexNode, Ref, Vector};
use super::vlq;

/// The tag of a reference to a branch (CAD003 `0x20`).
pub(super) const TAG_REF: u8 = 0x20;
/// Marks an entry in an Index node. CAD003's text says 0x20; the reference implementation writes and reads 0x80.
pub(super) const INDEX_ENTRY: u8 = 0x80;

/// The encoding of a cell.
#[must_use]
pub fn encode(cell: &Cell) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_len(cell));
    encode_into(cell, &mut out);
    out.freeze()
}

/// Appends the encoding of a cell.
pub fn encode_into(cell: &Cell, out: &mut impl BufMut) {
    put(cell, &mut Out(out));
}

/// Appends a child as its parent holds it: the embedded encoding, or 0x20 and the ID. This is also what a signature covers.
pub fn encode_ref_into(child: &Ref, out: &mut impl BufMut) {
    put_ref(child, &mut Out(out));
}

/// The length of the encoding, in bytes, without building it.
#[must_use]
pub fn encoded_len(cell: &Cell) -> usize {
    let mut count = Count(0);
    put(cell, &mut count);
    count.0
}

impl Ref {
    /// The child's value ID; an embedded one is encoded and hashed for it.
    #[must_use]
    pub fn id(&self, profile: &Profile) -> ValueId {
        match self {
            Self::Embedded(cell) => profile.id(&encode(cell)),
            Self::Branch(id) => *id,
        }
    }
}

/// Where encodings go: bytes, or only their number.
trait Put {
    fn slice(&mut self, bytes: &[u8]);
    fn u8(&mut self, byte: u8) {
        self.slice(&[byte]);
    }
    fn count(&mut self, count: u64);
}

struct Out<'a, B>(&'a mut B);

impl<B: BufMut> Put for Out<'_, B> {
    fn slice(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }
    fn count(&mut self, count: u64) {
        vlq::write(count, self.0);
    }
}

struct Count(usize);

impl Put for Count {
    fn slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn count(&mut self, count: u64) {
        self.0 += vlq::len(count);
    }
}

fn put(cell: &Cell, out: &mut impl Put) {
    match cell {
        Cell::Nil => out.u8(0x00),
        Cell::Bool(b) => out.u8(0xb0 | u8::from(*b)),
        Cell::Flag(kind) => out.u8(0xb0 | kind & 0xf),
        Cell::Integer(i) => {
            let bytes = i.to_be_bytes();
            let bytes = shape::minimal(&bytes);
            out.u8(0x10 + bytes.len() as u8);
            out.slice(bytes);
        }
        Cell::BigInteger(i) => {
            out.u8(0x19);
            out.count(i.0.len() as u64);
            out.slice(&i.0);
        }
        Cell::Double(bits) => {
            out.u8(0x1d);
            out.slice(&bits.to_be_bytes());
        }
        Cell::String(blob) => put_blob(0x30, &blob.0, out),
        Cell::Blob(blob) => put_blob(0x31, &blob.0, out),
        Cell::Symbol(name) => put_name(0x32, &name.0, out),
        Cell::Keyword(name) => put_name(0x33, &name.0, out),
        Cell::Character(point) => {
            let bytes = point.to_be_bytes();
            let zeros = (point.leading_zeros() as usize / 8).min(3);
            out.u8(0x3f - zeros as u8);
            out.slice(&bytes[zeros..]);
        }
        Cell::Vector(v) => put_vector(0x80, v, out),
        Cell::List(v) => put_vector(0x81, v, out),
        Cell::Map(tree) => put_hash_tree(0x82, tree, 2, out),
        Cell::Set(tree) => put_hash_tree(0x83, tree, 1, out),
        Cell::Index(index) => put_index(index, out),
        Cell::Syntax(pair) => {
            out.u8(0x88);
            put_refs(&pair[..], out);
        }
        Cell::Signed(signed) => {
            match &signed.key {
                Some(key) => {
                    out.u8(0x90);
                    out.slice(key);
                }
                None => out.u8(0x91),
            }
            out.slice(&signed.signature);
            put_ref(&signed.value, out);
        }
        Cell::Sparse { kind, mask, fields } => {
            out.u8(0xa0 | kind & 0xf);
            out.count(*mask);
            put_refs(fields, out);
        }
        Cell::Coded(kind, pair) => {
            out.u8(0xc0 | kind & 0xf);
            put_refs(&pair[..], out);
        }
        Cell::Record(kind, v) => put_vector(0xd0 | kind & 0xf, v, out),
        Cell::Extension(kind, count) => {
            out.u8(0xe0 | kind & 0xf);
            out.count(*count);
        }
    }
}

fn put_ref(child: &Ref, out: &mut impl Put) {
    match child {
        Ref::Embedded(cell) => put(cell, out),
        Ref::Branch(ValueId(id)) => {
            out.u8(TAG_REF);
            out.slice(id);
        }
    }
}

fn put_refs(children: &[Ref], out: &mut impl Put) {
    for child in children {
        put_ref(child, out);
    }
}

fn put_blob(tag: u8, node: &BlobNode, out: &mut impl Put) {
    out.u8(tag);
    match node {
        BlobNode::Leaf(bytes) => {
            out.count(bytes.len() as u64);
            out.slice(bytes);
        }
        BlobNode::Tree { len, children } => {
            out.count(*len);
            put_refs(children, out);
        }
    }
}

fn put_name(tag: u8, name: &[u8], out: &mut impl Put) {
    out.u8(tag);
    out.u8(name.len() as u8);
    out.slice(name);
}

fn put_vector(tag: u8, vector: &Vector, out: &mut impl Put) {
    out.u8(tag);
    out.count(vector.count);
    put_refs(&vector.refs, out);
}

fn put_hash_tree(tag: u8, tree: &HashTree, stride: usize, out: &mut impl Put) {
    out.u8(tag);
    out.count(tree.count(stride));
    match &tree.0 {
        HashNode::Leaf(refs) => put_refs(refs, out),
        HashNode::Tree { shift, mask, children, .. } => {
            out.u8(*shift);
            out.slice(&mask.to_be_bytes());
            put_refs(children, out);
        }
    }
}

fn put_index(index: &Index, out: &mut impl Put) {
    out.u8(0x84);
    out.count(index.len());
    match &index.0 {
        IndexNode::Empty => {}
        IndexNode::Single(pair) => put_refs(&pair[..], out),
        IndexNode::Tree { depth, mask, has_entry, refs, .. } => {
            let (entry, children) = refs.split_at(if *has_entry { 2 } else { 0 });
            out.u8(if *has_entry { INDEX_ENTRY } else { 0 });
            put_refs(entry, out);
            out.count(u64::from(*depth));
            out.slice(&mask.to_be_bytes());
            put_refs(children, out);
        }
    }
}
