//! What a request comes to: the Result record, and the codes in it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use peerlane_cell::{Cell, Name, Ref, Vector};

use crate::kind;

/// Why a request failed: the keyword in a Result's third field. The reference peer's own, and whatever programs on the CVM raise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The peer is overloaded: try again later. The reference peer says so after 8 seconds of waiting for room.
    Load,
    /// The transaction's sequence isn't the account's next.
    Sequence,
    /// The signature doesn't verify, or isn't by the account's key.
    Signature,
    /// A message or transaction of the wrong form.
    Format,
    /// Cells that it needs are missing.
    Missing,
    /// There's no such account.
    Nobody,
    /// The sender isn't trusted with this, or a challenge failed.
    Trust,
    /// An argument makes no sense.
    Argument,
    /// Not possible in this state: the peer isn't live, the account has no key.
    State,
    /// Too few coins.
    Funds,
    /// Too few coins for the juice of it.
    Juice,
    /// A symbol that isn't defined.
    Undeclared,
    /// A value of the wrong type.
    Cast,
    /// A part of a Multi failed, so all of it did.
    Child,
    /// It took too long.
    Timeout,
    /// Another code.
    Other(Name),
}

impl ErrorCode {
    const KNOWN: [(Self, &'static str); 15] = [
        (Self::Load, "LOAD"),
        (Self::Sequence, "SEQUENCE"),
        (Self::Signature, "SIGNATURE"),
        (Self::Format, "FORMAT"),
        (Self::Missing, "MISSING"),
        (Self::Nobody, "NOBODY"),
        (Self::Trust, "TRUST"),
        (Self::Argument, "ARGUMENT"),
        (Self::State, "STATE"),
        (Self::Funds, "FUNDS"),
        (Self::Juice, "JUICE"),
        (Self::Undeclared, "UNDECLARED"),
        (Self::Cast, "CAST"),
        (Self::Child, "CHILD"),
        (Self::Timeout, "TIMEOUT"),
    ];

    /// The keyword's name.
    #[must_use]
    pub fn name(&self) -> Bytes {
        match self {
            Self::Other(name) => name.as_bytes().clone(),
            known => Bytes::from_static(Self::KNOWN.iter().find(|(code, _)| code == known).map_or("", |(_, name)| name).as_bytes()),
        }
    }

    /// The code of a keyword.
    #[must_use]
    pub fn from_name(name: &Name) -> Self {
        let known = Self::KNOWN.into_iter().find(|(_, known)| known.as_bytes() == name.as_bytes());
        known.map_or_else(|| Self::Other(name.clone()), |(code, _)| code)
    }

    /// Is it worthwhile to send the same request again, later?
    #[must_use]
    pub const fn may_retry(&self) -> bool {
        matches!(self, Self::Load | Self::Timeout)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.name()))
    }
}

/// A Result record (`dd`): five fields, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The ID of the request; `None` when the peer couldn't read it, or it's no integer of 64 bits.
    pub id: Option<i64>,
    /// The value, or what is said about the error (a string as a rule).
    pub value: Ref,
    /// The error's code; `None`: success. A code that is no keyword (CVM programs may raise any value) is [`ErrorCode::Other`] with the name
    /// `?`.
    pub error: Option<ErrorCode>,
    /// What was logged: a vector, or nil.
    pub log: Ref,
    /// More about it: a map, or nil.
    pub info: Ref,
}

impl Outcome {
    /// Reads a Result record.
    #[must_use]
    pub fn read(top: &Cell) -> Option<Self> {
        let Cell::Record(kind::RESULT, fields) = top else { return None };
        let [id, value, error, log, info] = fields.tail() else { return None };
        let error = match error.embedded() {
            Some(Cell::Nil) => None,
            Some(Cell::Keyword(name)) => Some(ErrorCode::from_name(name)),
            _ => Some(ErrorCode::Other(Name::new("?")?)),
        };
        let id = id.embedded().and_then(Cell::as_integer);
        Some(Self { id, value: value.clone(), error, log: log.clone(), info: info.clone() })
    }

    /// The record.
    #[must_use]
    pub fn cell(&self) -> Cell {
        let embed = |cell| Ref::Embedded(Arc::new(cell));
        let id = embed(self.id.map_or(Cell::Nil, Cell::Integer));
        let error = self.error.as_ref().and_then(|code| Name::new(code.name())).map_or(Cell::Nil, Cell::Keyword);
        Cell::Record(kind::RESULT, Vector::short([id, self.value.clone(), embed(error), self.log.clone(), self.info.clone()]))
    }
}
