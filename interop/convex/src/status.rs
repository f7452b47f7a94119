//! What a peer says of itself: the status vector.

use peerlane_cell::{Cell, Ref, ValueId};

use crate::value::Value;

/// The status vector by position; newer peers append fields, which are ignored. (`Server.getStatusData`: 9 fields in 0.8.0 to 0.8.6.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Hash of its belief.
    pub belief: ValueId,
    /// Hash of its states; the reference peer puts the consensus state's here.
    pub states: ValueId,
    /// Hash of the genesis state: the network's ID.
    pub genesis: ValueId,
    /// Its key: claimed, until a challenge proves it.
    pub key: [u8; 32],
    /// Hash of the state in consensus.
    pub state: ValueId,
    /// Blocks in consensus.
    pub consensus: Option<i64>,
    /// Blocks proposed.
    pub proposal: Option<i64>,
    /// Blocks in its own order.
    pub blocks: Option<i64>,
}

impl Status {
    /// Reads the value of the answer to STATUS.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let items = value.cell.as_short_vector()?;
        let hash = |i: usize| items.get(i).and_then(Ref::embedded).and_then(Cell::as_blob32);
        let number = |i: usize| items.get(i).and_then(Ref::embedded).and_then(Cell::as_integer);
        Some(Self {
            belief: ValueId(hash(0)?),
            states: ValueId(hash(1)?),
            genesis: ValueId(hash(2)?),
            key: hash(3)?,
            state: ValueId(hash(4)?),
            consensus: number(5),
            proposal: number(6),
            blocks: number(7),
        })
    }
}
