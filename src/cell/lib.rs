//! CAD003 cells: immutable, content-addressed values with exactly one encoding each.
//!
//! A [`Cell`] is the content of *one* encoding. Its children are either embedded in the same bytes (140 bytes or
//! less) or named by the hash of their own encoding, their [`ValueId`], and are then called branches. So a large value is a
//! Merkle tree of small cells, two values are equal when their IDs are, and a peer that lacks a branch knows its name.
//!
//! * [`decode`] takes bytes and accepts canonical form only; [`encode`] gives the same bytes back.
//! * [`Writer`] builds trees and hands each branch to a [`CellSink`]; [`Reader`] walks them, fetching branches from
//!   a [`CellSource`], and says [`TreeError::Missing`] with the ID when one is absent.
//! * [`Profile`] holds what two networks may differ in: the hash, the largest cell, the signature's context.
//!
//! Source: Convex CAD003 as the reference implementation encodes it. Where the two differ (a vector leaf's prefix comes last, an
//! Index entry is marked 0x80, a Syntax has its value first), the implementation is followed.

mod check;
mod decode;
mod encode;
mod id;
mod shape;
mod signed;
mod source;
mod tree;
mod value;
pub mod vlq;
mod walk;

pub use decode::{DecodeError, decode, decode_prefix, decode_ref};
pub use encode::{encode, encode_into, encode_ref_into, encoded_len};
pub use id::{HashKind, ParseIdError, Profile, ValueId};
pub use signed::{SignatureError, Signed};
pub use source::{CellSink, CellSource, Layers, MemoryCells, NoCells, Overlay};
pub use tree::{HashIter, IndexIter, Reader, TreeError, VectorIter, Writer};
pub use value::{BigInteger, Blob, Cell, HashTree, Index, MAX_EMBEDDED, NAME_MAX, Name, Ref, Refs, Vector, refs};

pub use walk::{held_below, missing_below, new_below};

#[cfg(test)]
mod tests;
