//! The bytes of a message: `top cell { VLQ length | branch cell }*`.
//!
//! The top cell delimits itself. Branches come in any order, each one more than 140 bytes long; one that comes twice counts once,
//! and one that nobody refers to is harmless (the reference peer takes both too). A body that leaves out branches which it refers to is
//! *partial*: beliefs are, as a rule.

use std::collections::HashSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use peerlane_cell::{
    Cell, DecodeError, MAX_EMBEDDED, MemoryCells, Ref, ValueId, decode, decode_prefix, encode_into, encoded_len, held_below, missing_below,
    vlq,
};

use crate::value::{CONVEX, Value};

/// Why bytes are no message body. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Nothing at all.
    #[error("the message is empty")]
    Empty,
    /// The top cell or a branch is no canonical cell.
    #[error(transparent)]
    Cell(#[from] DecodeError),
    /// A branch whose declared length exceeds the message or the largest cell.
    #[error("a branch of {len} bytes: at most {max} are possible here")]
    BranchLength {
        /// The declared length in bytes.
        len: u64,
        /// What's left of the message, or the largest cell, in bytes.
        max: usize,
    },
    /// A branch of at most 140 bytes, which had to be embedded.
    #[error("a branch cell has more than 140 bytes")]
    BranchEmbedded,
}

/// A top cell and the branch cells that travel with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// What comes first and says what the message is.
    pub top: Cell,
    /// Branch cells by ID, in the order of the wire, each once.
    pub branches: Vec<(ValueId, Bytes)>,
}

impl Body {
    /// A body without branches.
    #[must_use]
    pub const fn new(top: Cell) -> Self {
        Self { top, branches: Vec::new() }
    }

    /// A cell with what of it is held: only branches that it refers to, nearest first.
    #[must_use]
    pub fn of(value: Value) -> Self {
        // A cell that we hold was decoded or made here, so it can't be malformed.
        let branches = held_below(&value.cell, &value.cells, &CONVEX).unwrap_or_default();
        Self { top: value.cell, branches }
    }

    /// Reads a body that takes the whole input. Cells share the input's memory. Each one is canonical, and named by its own hash.
    ///
    /// # Errors
    /// [`BodyError`] for anything else.
    pub fn decode(input: &Bytes) -> Result<Self, BodyError> {
        if input.is_empty() {
            return Err(BodyError::Empty);
        }
        let (top, used) = decode_prefix(input, &CONVEX)?;
        let mut rest = input.slice(used..);
        let mut branches = Vec::new();
        let mut seen = HashSet::new();
        while !rest.is_empty() {
            let (len, prefix) = vlq::read(&rest).map_err(DecodeError::from)?;
            let max = (rest.len() - prefix).min(CONVEX.max_cell);
            let len = usize::try_from(len).ok().filter(|len| *len <= max).ok_or(BodyError::BranchLength { len, max })?;
            if len <= MAX_EMBEDDED {
                return Err(BodyError::BranchEmbedded);
            }
            let encoding = rest.slice(prefix..prefix + len);
            decode(&encoding, &CONVEX)?;
            let id = CONVEX.id(&encoding);
            if seen.insert(id) {
                branches.push((id, encoding));
            }
            rest = rest.slice(prefix + len..);
        }
        Ok(Self { top, branches })
    }

    /// The length of the encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let branches = self.branches.iter().map(|(_, encoding)| vlq::len(encoding.len() as u64) + encoding.len());
        encoded_len(&self.top) + branches.sum::<usize>()
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.freeze()
    }

    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        encode_into(&self.top, out);
        for (_, encoding) in &self.branches {
            vlq::write(encoding.len() as u64, out);
            out.put_slice(encoding);
        }
    }

    /// What it carries, as a source of cells.
    #[must_use]
    pub fn cells(&self) -> MemoryCells {
        MemoryCells(self.branches.iter().cloned().collect())
    }

    /// A child of the top cell with what of it is held.
    #[must_use]
    pub fn value(&self, child: &Ref) -> Option<Value> {
        Value::resolve(child, self.cells())
    }

    /// The branches that it refers to and doesn't hold, nearest first, at most `limit`.
    #[must_use]
    pub fn missing(&self, limit: usize) -> Vec<ValueId> {
        missing_below(&self.top, &self.cells(), &peerlane_cell::NoCells, &CONVEX, limit).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use data_encoding::HEXLOWER;
    use peerlane_cell::encode;
    use proptest::prelude::*;

    use super::*;
    use crate::{form, value::Build};

    fn zeros(n: usize) -> Value {
        form::read(&format!("0x{}", "00".repeat(n))).unwrap()
    }

    #[test]
    fn a_branch_that_is_named_twice_is_sent_once() {
        // facts/convex.md 2.5, "Multi-cell"
        let mut build = Build::default();
        let blob = build.value(zeros(138)).unwrap();
        let one = build.integer(1);
        let top = build.vector(&[blob.clone(), blob, one]).unwrap();
        let body = Body::of(build.finish(top));
        let bytes = body.encode();
        let id = "4ba956d5c84485313a9341f6fdd3077e5d9c73e3617fab3cb1b7068e3f1a3802";
        let expected = format!("800320{id}20{id}1101810d31810a{}", "00".repeat(138));
        assert_eq!(HEXLOWER.encode(&bytes), expected);
        assert_eq!(bytes.len(), body.encoded_len());
        assert_eq!(Body::decode(&bytes), Ok(body));
    }

    #[test]
    fn twice_and_unreferenced_is_taken_embedded_and_cut_is_not() {
        let blob = encode(&zeros(200).cell);
        let with = |parts: &[&[u8]]| Body::decode(&Bytes::from(parts.concat()));
        let prefix: &[u8] = &[0x81, 0x4b];
        assert_eq!(with(&[&[0], prefix, &blob, prefix, &blob]).unwrap().branches.len(), 1);
        assert_eq!(with(&[&[0, 1, 0]]), Err(BodyError::BranchEmbedded));
        assert_eq!(with(&[&[0], prefix, &blob[..100]]), Err(BodyError::BranchLength { len: 203, max: 100 }));
        assert_eq!(with(&[&[0, 0xff, 0xff, 0x7f], &blob]), Err(BodyError::BranchLength { len: 2_097_151, max: 203 }));
        assert!(matches!(with(&[&[0, 0x80, 1]]), Err(BodyError::Cell(DecodeError::Count(_)))));
        let mut longer = blob.to_vec();
        longer.push(0);
        assert_eq!(with(&[&[0, 0x81, 0x4c], &longer]), Err(BodyError::Cell(DecodeError::Trailing(1))));
        assert_eq!(Body::decode(&Bytes::new()), Err(BodyError::Empty));
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read_as_it_is_written(mut bytes in prop::collection::vec(any::<u8>(), 0..400), nil in any::<bool>()) {
            if nil && !bytes.is_empty() {
                bytes[0] = 0;
            }
            if let Ok(body) = Body::decode(&bytes.into()) {
                prop_assert_eq!(Body::decode(&body.encode()), Ok(body));
            }
        }
    }
}
