//! Value IDs and the profile of a network: which hash makes them, how large a cell may be, what signatures bind.

use std::fmt;
use std::str::FromStr;

use sha3::Digest as _;

/// The hash of a cell's encoding: 32 bytes, shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub [u8; 32]);

impl ValueId {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Hex digit `i` (0 = the first), as map trees branch on it. Past the end: `None`.
    pub(super) fn digit(&self, i: usize) -> Option<u8> {
        digit(&self.0, i)
    }
}

/// Hex digit `i` of a byte string, most significant half first.
pub(super) fn digit(bytes: &[u8], i: usize) -> Option<u8> {
    let byte = bytes.get(i / 2)?;
    Some(if i.is_multiple_of(2) { byte >> 4 } else { byte & 0xf })
}

impl From<[u8; 32]> for ValueId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not 64 lower-case or upper-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value ID is 64 hex digits")]
pub struct ParseIdError;

impl FromStr for ValueId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let mut id = [0; 32];
        // decode_mut panics on a buffer of another length than the text's
        if s.len() != 64 {
            return Err(ParseIdError);
        }
        data_encoding::HEXLOWER_PERMISSIVE.decode_mut(s.as_bytes(), &mut id).map_err(|_| ParseIdError)?;
        Ok(Self(id))
    }
}

/// The hash function behind value IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// BLAKE3, 256 bits: native.
    Blake3,
    /// SHA3-256 (FIPS 202, not Keccak): Convex.
    Sha3_256,
}

/// What two networks of cells may differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Makes value IDs.
    pub hash: HashKind,
    /// The largest encoding of one cell, in bytes.
    pub max_cell: usize,
    /// Signed cells: what is signed is `context ‖ 0x00 ‖ ref encoding`, or the ref encoding alone when `None`. In a network
    /// ([`in_network`](Self::in_network)) it's `context ‖ " in" ‖ 0x00 ‖ network ‖ ref encoding`.
    pub signature_context: Option<&'static [u8]>,
    /// The network that signatures are bound to: the BLAKE3 hash of its name. `None`: they hold in any.
    pub network: Option<[u8; 32]>,
}

impl Profile {
    /// peerlane's own: BLAKE3, 8,192 bytes a cell (the CAD015 seed), signatures bound to their purpose.
    pub const NATIVE: Self = Self { hash: HashKind::Blake3, max_cell: 8192, signature_context: Some(b"peerlane/1 signed"), network: None };

    /// Convex since 0.8.0: SHA3-256, 16,383 bytes a cell, no domain separation.
    pub const CONVEX: Self = Self { hash: HashKind::Sha3_256, max_cell: 16383, signature_context: None, network: None };

    /// The same in a network, by its name: what is signed there holds nowhere else, though the key be the same. Signatures
    /// without a context (Convex's) can't be bound, and stay as they are.
    #[must_use]
    pub fn in_network(self, name: &str) -> Self {
        Self { network: Some(*blake3::hash(name.as_bytes()).as_bytes()), ..self }
    }

    /// The value ID of an encoding.
    #[must_use]
    pub fn id(&self, encoding: &[u8]) -> ValueId {
        ValueId(match self.hash {
            HashKind::Blake3 => *blake3::hash(encoding).as_bytes(),
            HashKind::Sha3_256 => sha3::Sha3_256::digest(encoding).into(),
        })
    }
}
