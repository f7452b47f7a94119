//! The bytes of a message: `type tag (1) | payload cell | { VLQ length | branch cell }*`.
//!
//! The length isn't part of it: a frame, a stream's end or a datagram delimits it. A message that leaves out branches which it
//! refers to is *partial*. Branches may come in any order; one that comes twice counts once, one that nobody refers to is harmless.
//!
//! The payload of each request and reply is a vector whose element 0 is the request's ID, an integer from 0 to 2^63 - 1. Such a vector
//! has 16 elements at most, so that its ID stands in the first bytes of the message ([`peek_id`]).
//!
//! Source: the CAD015 seed, "Messages"; the checks on branches are Convex's for its multi-cell messages.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::kind::MessageType;
use crate::cell::{
    Cell, CellSink, CellSource, DecodeError, MAX_EMBEDDED, MemoryCells, Profile, Ref, TreeError, ValueId, decode, decode_prefix,
    encode_into, encoded_len, missing_below, vlq,
};

/// The most branch cells in a message. Each has more than 140 bytes, so a class's message limit is usually met first.
pub const MAX_BRANCHES: usize = 16_384;

/// The largest request ID: it's an integer cell of at most 64 bits, and not negative.
pub const MAX_REQUEST_ID: u64 = i64::MAX as u64;

/// Why bytes are no message, or a message not one of its type. The sender is at fault, unless it's `Partial`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not even a type.
    #[error("the message is empty")]
    Empty,
    /// The payload or a branch is no canonical cell.
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
    /// More branches than [`MAX_BRANCHES`].
    #[error("more than {MAX_BRANCHES} branches")]
    TooManyBranches,
    /// The payload isn't what its type demands.
    #[error("{kind}: {what}")]
    Payload {
        /// The message's type.
        kind: MessageType,
        /// The rule broken.
        what: &'static str,
    },
    /// The payload's own structure is in branches that the message doesn't carry.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A message: a type, a payload, and the branch cells that travel with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// The payload cell, nil if the type is unknown.
    pub payload: Cell,
    /// Branch cells by ID, in the order of the wire.
    pub branches: Vec<(ValueId, Bytes)>,
}

impl Message {
    /// A message without branches.
    #[must_use]
    pub const fn new(kind: MessageType, payload: Cell) -> Self {
        Self { kind, payload, branches: Vec::new() }
    }

    /// Adds branches to what it carries. One that it has already is left out.
    #[must_use]
    pub fn with_branches(mut self, branches: impl IntoIterator<Item = (ValueId, Bytes)>) -> Self {
        let mut seen: HashSet<ValueId> = self.branches.iter().map(|(id, _)| *id).collect();
        self.branches.extend(branches.into_iter().filter(|(id, _)| seen.insert(*id)));
        self
    }

    /// Decodes a message that takes the whole input. Cells share the input's memory.
    ///
    /// Of an unknown type nothing but the type is looked at.
    ///
    /// # Errors
    /// [`MessageError`] for anything that isn't a message in canonical form within the profile's limits.
    pub fn decode(input: &Bytes, profile: &Profile) -> Result<Self, MessageError> {
        let kind = peek_kind(input).ok_or(MessageError::Empty)?;
        if matches!(kind, MessageType::Unknown(_)) {
            return Ok(Self::new(kind, Cell::Nil));
        }
        let body = input.slice(1..);
        let (payload, used) = decode_prefix(&body, profile)?;
        let mut rest = body.slice(used..);
        let mut branches = Vec::new();
        let mut seen = HashSet::new();
        let mut count = 0;
        while !rest.is_empty() {
            count += 1;
            if count > MAX_BRANCHES {
                return Err(MessageError::TooManyBranches);
            }
            let (len, prefix) = vlq::read(&rest).map_err(DecodeError::from)?;
            let max = (rest.len() - prefix).min(profile.max_cell);
            let len = usize::try_from(len).ok().filter(|len| *len <= max).ok_or(MessageError::BranchLength { len, max })?;
            if len <= MAX_EMBEDDED {
                return Err(MessageError::BranchEmbedded);
            }
            let encoding = rest.slice(prefix..prefix + len);
            // What's kept or passed on later is canonical.
            decode(&encoding, profile)?;
            let id = profile.id(&encoding);
            if seen.insert(id) {
                branches.push((id, encoding));
            }
            rest = rest.slice(prefix + len..);
        }
        Ok(Self { kind, payload, branches })
    }

    /// The length of the encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + encoded_len(&self.payload) + self.branches.iter().map(|(_, b)| branch_len(b)).sum::<usize>()
    }

    /// The bytes of the message, copied once.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        out.put_u8(self.kind.code());
        encode_into(&self.payload, &mut out);
        for (_, encoding) in &self.branches {
            vlq::write(encoding.len() as u64, &mut out);
            out.put_slice(encoding);
        }
        out.freeze()
    }

    /// The request's ID: element 0 of the payload of a request or reply.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        if !self.kind.is_request() && !self.kind.is_reply() {
            return None;
        }
        let id = self.payload.as_short_vector()?.first()?.embedded()?.as_integer()?;
        u64::try_from(id).ok()
    }

    /// The ID of the request that a CANCEL takes back.
    #[must_use]
    pub fn cancels(&self) -> Option<u64> {
        match (self.kind, self.payload.as_short_vector()?) {
            (MessageType::Cancel, [id]) => u64::try_from(id.embedded()?.as_integer()?).ok(),
            _ => None,
        }
    }

    /// The same request or reply under another ID (its low 63 bits). A message without an ID stays as it is.
    #[must_use]
    pub fn with_id(mut self, id: u64) -> Self {
        if self.id().is_some()
            && let Cell::Vector(vector) = &mut self.payload
        {
            vector.set_first(id_ref(id));
        }
        self
    }

    /// What it carries, as a source of cells.
    #[must_use]
    pub fn cells(&self) -> MemoryCells {
        MemoryCells(self.branches.iter().cloned().collect())
    }

    /// The branches that it refers to, directly or through those it carries, and that neither it nor `complete` holds:
    /// nearest first, at most `limit`. Empty for a message that isn't partial.
    ///
    /// `complete` is a source that holds whole trees only; see [`missing_below`]. A lattice that knows what its cells mean may need fewer:
    /// the reference peer asks for what its merge names.
    ///
    /// # Errors
    /// [`TreeError::Malformed`] never for a decoded message: its branches were checked.
    pub fn missing(&self, complete: &dyn CellSource, profile: &Profile, limit: usize) -> Result<Vec<ValueId>, TreeError> {
        missing_below(&self.payload, &self.cells(), complete, profile, limit)
    }
}

/// What one branch adds to a message, in bytes.
pub(super) fn branch_len(encoding: &Bytes) -> usize {
    vlq::len(encoding.len() as u64) + encoding.len()
}

pub(super) fn id_ref(id: u64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer((id & MAX_REQUEST_ID) as i64)))
}

/// The type of an encoded message; `None` if it's empty.
#[must_use]
pub fn peek_kind(message: &[u8]) -> Option<MessageType> {
    message.first().copied().map(MessageType::from_code)
}

/// The ID of an encoded request or reply, from its first bytes: nothing else is decoded or checked.
///
/// `None` for other types and for what can't be a payload of one.
#[must_use]
pub fn peek_id(message: &[u8]) -> Option<u64> {
    let kind = peek_kind(message)?;
    if !kind.is_request() && !kind.is_reply() {
        return None;
    }
    // type, vector tag, count of 1 to 16, integer tag, at most eight bytes
    let [_, 0x80, 1..=16, tag @ 0x10..=0x18, rest @ ..] = message else { return None };
    let bytes = rest.get(..usize::from(tag & 0xf))?;
    if bytes.first().is_some_and(|sign| sign & 0x80 != 0) {
        return None;
    }
    Some(bytes.iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

/// The branches of a payload under construction, in the order of their making.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) branches: Vec<(ValueId, Bytes)>,
    seen: HashSet<ValueId>,
}

impl CellSink for Carried {
    fn put(&mut self, id: ValueId, encoding: Bytes) {
        if self.seen.insert(id) {
            self.branches.push((id, encoding));
        }
    }
}

impl CellSource for Carried {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        self.branches.iter().find(|(held, _)| held == id).map(|(_, encoding)| encoding.clone())
    }
}
