//! Beliefs: what a peer says it holds. A signed root, and the cells that are new below it.
//!
//! `Signed<[:belief time part parts root]>`. A belief message has at most [`MAX_BELIEF`] bytes; one delta that needs more goes in several
//! parts, each signed, with the same root. Who receives part i of n, i < n - 1, keeps its cells and waits for the rest before asking for what's missing.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::operation::{Account, keyword};
use crate::cad015::{Message, MessageError, MessageType};
use crate::cell::{
    Cell, CellSink, MemoryCells, Profile, Reader, Ref, SignatureError, Signed, TreeError, ValueId, Vector, Writer, held_below, vlq,
};

/// The largest belief message in bytes, encoded.
pub const MAX_BELIEF: usize = 65_536;

/// The most parts that one belief is sent in. What doesn't fit is left out; receivers ask for it.
pub const MAX_PARTS: usize = 64;

/// Room kept in each message for the type, the signed root and its branch if it needs one.
const HEAD_ROOM: usize = 512;

/// Why a message is no belief. Its sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeliefError {
    /// Not a BELIEF, or none that parses.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The signature doesn't hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The signed value is no belief.
    #[error("the belief is malformed: {0}")]
    Shape(&'static str),
}

/// A belief received, its signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belief {
    /// Who signed it.
    pub peer: Account,
    /// The signer's clock, milliseconds since 1970. Only for comparing beliefs of one signer.
    pub time: u64,
    /// Which part this message is, from 0.
    pub part: u64,
    /// Of how many.
    pub parts: u64,
    /// The root: an index from account to log.
    pub root: Ref,
}

impl Belief {
    /// Reads and verifies a BELIEF message. The cells it carries are not judged.
    ///
    /// # Errors
    /// [`BeliefError`].
    pub fn open(message: &Message, profile: &Profile) -> Result<Self, BeliefError> {
        let Cell::Signed(signed) = &message.payload else { return Err(BeliefError::Shape("the payload is a signed cell")) };
        if message.kind != MessageType::Belief {
            return Err(BeliefError::Shape("the message is a BELIEF"));
        }
        let peer = *signed.key().ok_or(SignatureError::NoKey)?;
        let cells = message.cells();
        let value = Reader::new(profile, &cells).resolve(signed.value()).map_err(MessageError::from)?;
        let shape = || BeliefError::Shape("it is [:belief time part parts root]");
        let [name, time, part, parts, root] = value.as_short_vector().ok_or_else(shape)? else { return Err(shape()) };
        if *name != keyword("belief") {
            return Err(shape());
        }
        let number = |r: &Ref| r.embedded().and_then(Cell::as_integer).and_then(|i| u64::try_from(i).ok()).ok_or_else(shape);
        let (time, part, parts) = (number(time)?, number(part)?, number(parts)?);
        if part >= parts || parts > MAX_PARTS as u64 {
            return Err(BeliefError::Shape("its part is one of at most 64"));
        }
        // Last, because it costs the most.
        signed.verify(profile)?;
        Ok(Self { peer, time, part, parts, root: root.clone() })
    }

    /// Is nothing more coming for this root?
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.part + 1 == self.parts
    }
}

/// What changed in a store since some version: a root, and cells below it, nearest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeliefDelta {
    /// The store's version with this root; what's new after it is the next delta.
    pub version: u64,
    /// The root.
    pub root: Ref,
    /// New cells, nearest to the root first.
    pub cells: Vec<(ValueId, Bytes)>,
}

impl BeliefDelta {
    /// The delta that says what both say, for a queued one that a newer one replaces: the newer root, and the cells of either that are still below it.
    #[must_use]
    pub fn fold(older: Self, newer: Self, profile: &Profile) -> Self {
        let (older, newer) = if older.version > newer.version { (newer, older) } else { (older, newer) };
        let mut all = MemoryCells::default();
        for (id, encoding) in older.cells.into_iter().chain(newer.cells) {
            all.put(id, encoding);
        }
        let cells = in_use(&newer.root, &all, profile);
        Self { version: newer.version, root: newer.root, cells }
    }

    /// The messages that carry it, each of at most `max` bytes ([`MAX_BELIEF`] at most, 1,024 at least), in the order to send them.
    ///
    /// Cells that [`MAX_PARTS`] messages don't hold, or that alone exceed one, are left out.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn messages(&self, key: &SigningKey, time: u64, max: usize, profile: &Profile) -> Result<Vec<Message>, TreeError> {
        let room = max.clamp(1024, MAX_BELIEF) - HEAD_ROOM;
        let mut groups: Vec<Vec<(ValueId, Bytes)>> = vec![Vec::new()];
        let mut used = 0;
        for (id, encoding) in &self.cells {
            let len = vlq::len(encoding.len() as u64) + encoding.len();
            if len > room {
                continue;
            }
            if used + len > room {
                if groups.len() == MAX_PARTS {
                    break;
                }
                groups.push(Vec::new());
                used = 0;
            }
            used += len;
            if let Some(group) = groups.last_mut() {
                group.push((*id, encoding.clone()));
            }
        }
        let parts = groups.len();
        let integer = |n: u64| Ref::Embedded(Arc::new(Cell::Integer(i64::try_from(n).unwrap_or(i64::MAX))));
        let messages = groups.into_iter().enumerate().map(|(part, cells)| {
            let items = [keyword("belief"), integer(time), integer(part as u64), integer(parts as u64), self.root.clone()];
            // The belief itself is a branch if its root is a small, embedded one.
            let mut own = MemoryCells::default();
            let value = Writer::new(profile, &mut own).link(Cell::Vector(Vector::short(items)))?;
            Ok(Message::belief(Signed::sign(profile, key, value), own.0.into_iter().chain(cells)))
        });
        messages.collect()
    }
}

/// The cells still in use below a root. A cell that's malformed can't be one of ours; then all are kept.
pub(super) fn in_use(root: &Ref, cells: &MemoryCells, profile: &Profile) -> Vec<(ValueId, Bytes)> {
    let holder = Cell::Vector(Vector::short([root.clone()]));
    held_below(&holder, cells, profile).unwrap_or_else(|_| cells.0.iter().map(|(id, bytes)| (*id, bytes.clone())).collect())
}
