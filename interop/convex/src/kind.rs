//! What a message is. Since 0.8.0 that stands nowhere: it follows from the first cell. Before, it was a byte.

use std::fmt;

use peerlane_cell::{Cell, Ref};

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `[:CH id signed]`: prove your key. Answered.
    Challenge,
    /// The answer to a challenge up to 0.8.2; later it's a [`Result`](Self::Result).
    Response,
    /// `[:DATA cell...]` (0.8.15 and newer): cells that nobody asked for, to be kept aside. On the legacy wire: one cell.
    Data,
    /// Legacy: reserved.
    Command,
    /// `[:DR id hash...]`: send me these cells. Answered.
    DataRequest,
    /// `[:Q id form address]`: evaluate. Answered.
    Query,
    /// `[:TX id signed]`: a transaction. Answered when it's final, or refused.
    Transact,
    /// A Result record: an answer.
    Result,
    /// A Belief record, or a signed Order: usually a delta. Not answered.
    Belief,
    /// Legacy: send me your belief.
    RequestBelief,
    /// `[:BYE]` or `[:BYE message]`: the connection ends. Not answered.
    Goodbye,
    /// `[:SR id]`: how are you. Answered.
    Status,
    /// Nothing that has a meaning here: the reference peer says nothing to it.
    Unknown,
    /// `[:LV path value]`, or `[:LV id path value]`, which is answered.
    LatticeValue,
    /// `[:LQ id path]`. Answered by lattice nodes.
    LatticeQuery,
    /// `[:PING id]`: your clock, please. Answered.
    Ping,
}

/// Keywords that say what a vector is (the reference peer's code; CAD015's text has `:QR` for QUERY, which no peer understands).
const TAGS: [(&str, Kind); 10] = [
    ("SR", Kind::Status),
    ("Q", Kind::Query),
    ("TX", Kind::Transact),
    ("DR", Kind::DataRequest),
    ("BYE", Kind::Goodbye),
    ("PING", Kind::Ping),
    ("CH", Kind::Challenge),
    ("LV", Kind::LatticeValue),
    ("LQ", Kind::LatticeQuery),
    ("DATA", Kind::Data),
];

/// Dense record kinds (low half of the tag) that are messages by themselves.
pub(crate) const BELIEF: u8 = 0x4;
pub(crate) const RESULT: u8 = 0xd;

impl Kind {
    /// What a message with this first cell is. `head` are the first items of a vector: of a long one they stand in a branch.
    pub(crate) fn of(top: &Cell, head: &[Ref]) -> Self {
        match top {
            Cell::Record(BELIEF, _) => Self::Belief,
            Cell::Signed(signed) if signed.key().is_some() => Self::Belief,
            Cell::Record(RESULT, _) => Self::Result,
            Cell::Vector(_) => {
                let tag = head.first().and_then(|first| first.embedded()?.as_keyword());
                tag.map_or(Self::Unknown, |tag| Self::of_tag(tag.as_bytes()))
            }
            _ => Self::Unknown,
        }
    }

    /// What a vector that starts with this keyword is.
    pub(crate) fn of_tag(tag: &[u8]) -> Self {
        TAGS.iter().find(|(name, _)| name.as_bytes() == tag).map_or(Self::Unknown, |(_, kind)| *kind)
    }

    /// The keyword that a vector of this kind starts with.
    #[must_use]
    pub fn tag(self) -> Option<&'static str> {
        TAGS.iter().find(|(_, kind)| *kind == self).map(|(name, _)| *name)
    }

    /// Does its sender wait for an answer?
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::Challenge | Self::DataRequest | Self::Query | Self::Transact | Self::Status | Self::Ping | Self::LatticeQuery)
    }

    /// The type byte of 0.7.15; `None` for what came later.
    #[must_use]
    pub const fn legacy_code(self) -> Option<u8> {
        Some(match self {
            Self::Challenge => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Command => 4,
            Self::DataRequest => 5,
            Self::Query => 6,
            Self::Transact => 7,
            Self::Result => 8,
            Self::Belief => 9,
            Self::RequestBelief => 10,
            Self::Goodbye => 11,
            Self::Status => 12,
            Self::Unknown | Self::LatticeValue | Self::LatticeQuery | Self::Ping => return None,
        })
    }

    /// The kind with this type byte in 0.7.15.
    #[must_use]
    pub const fn from_legacy_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Challenge,
            2 => Self::Response,
            3 => Self::Data,
            4 => Self::Command,
            5 => Self::DataRequest,
            6 => Self::Query,
            7 => Self::Transact,
            8 => Self::Result,
            9 => Self::Belief,
            10 => Self::RequestBelief,
            11 => Self::Goodbye,
            12 => Self::Status,
            _ => return None,
        })
    }

    /// What it's called in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::Response => "response",
            Self::Data => "data",
            Self::Command => "command",
            Self::DataRequest => "data_request",
            Self::Query => "query",
            Self::Transact => "transact",
            Self::Result => "result",
            Self::Belief => "belief",
            Self::RequestBelief => "request_belief",
            Self::Goodbye => "goodbye",
            Self::Status => "status",
            Self::Unknown => "unknown",
            Self::LatticeValue => "lattice_value",
            Self::LatticeQuery => "lattice_query",
            Self::Ping => "ping",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the ID of a message stands: element 1 of a vector, field 0 of a Result.
pub(crate) fn id_place(kind: Kind, top: &Cell) -> Option<usize> {
    match (kind, top) {
        (Kind::Result, Cell::Record(..)) => Some(0),
        (Kind::Goodbye | Kind::Data | Kind::Unknown, _) => None,
        // Confirmed pushes have an ID, the others don't: [:LV id path value] and [:LV path value].
        (Kind::LatticeValue, Cell::Vector(items)) if items.len() != 4 => None,
        (_, Cell::Vector(items)) if items.len() > 1 => Some(1),
        _ => None,
    }
}
