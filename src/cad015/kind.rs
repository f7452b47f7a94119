//! The type numbers and the error codes of CAD015 messages.

use std::fmt;

use bytes::Bytes;

use crate::cell::{Cell, Name};

/// What a message is: its first byte. The numbers are those of Convex 0.7.15, plus PING, which came later, and CANCEL, which is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MessageType {
    /// 1: prove that you hold your key. Answered by RESPONSE.
    Challenge,
    /// 2: the answer to CHALLENGE.
    Response,
    /// 3: cells, in answer to MISSING_DATA.
    Data,
    /// 4: reserved; no payload is defined for it.
    Command,
    /// 5: send me these cells. Answered by DATA.
    MissingData,
    /// 6: read. Answered by RESULT.
    Query,
    /// 7: signed operations. Answered by RESULT when they're durable.
    Transact,
    /// 8: the answer to QUERY, TRANSACT, STATUS, PING.
    Result,
    /// 9: a signed root and what's new below it. Not answered.
    Belief,
    /// 10: reserved; no payload is defined for it.
    RequestBelief,
    /// 11: the sender is about to close. Not answered.
    Goodbye,
    /// 12: how are you. Answered by RESULT.
    Status,
    /// 16: answered by RESULT with the responder's clock.
    Ping,
    /// 17: nobody waits for the answer to this request any more. Not answered.
    Cancel,
    /// A number that this version doesn't know: counted, not answered.
    Unknown(u8),
}

impl MessageType {
    /// All types that have a name.
    pub const KNOWN: [Self; 14] = [
        Self::Challenge,
        Self::Response,
        Self::Data,
        Self::Command,
        Self::MissingData,
        Self::Query,
        Self::Transact,
        Self::Result,
        Self::Belief,
        Self::RequestBelief,
        Self::Goodbye,
        Self::Status,
        Self::Ping,
        Self::Cancel,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Challenge => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Command => 4,
            Self::MissingData => 5,
            Self::Query => 6,
            Self::Transact => 7,
            Self::Result => 8,
            Self::Belief => 9,
            Self::RequestBelief => 10,
            Self::Goodbye => 11,
            Self::Status => 12,
            Self::Ping => 16,
            Self::Cancel => 17,
            Self::Unknown(code) => code,
        }
    }

    /// The type with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::KNOWN.into_iter().find(|kind| kind.code() == code).unwrap_or(Self::Unknown(code))
    }

    /// Does its sender wait for an answer?
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::Challenge | Self::MissingData | Self::Query | Self::Transact | Self::Status | Self::Ping)
    }

    /// Is it an answer, found by its request's ID?
    #[must_use]
    pub const fn is_reply(self) -> bool {
        matches!(self, Self::Response | Self::Data | Self::Result)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Challenge => "CHALLENGE",
            Self::Response => "RESPONSE",
            Self::Data => "DATA",
            Self::Command => "COMMAND",
            Self::MissingData => "MISSING_DATA",
            Self::Query => "QUERY",
            Self::Transact => "TRANSACT",
            Self::Result => "RESULT",
            Self::Belief => "BELIEF",
            Self::RequestBelief => "REQUEST_BELIEF",
            Self::Goodbye => "GOODBYE",
            Self::Status => "STATUS",
            Self::Ping => "PING",
            Self::Cancel => "CANCEL",
            Self::Unknown(code) => return write!(f, "UNKNOWN({code})"),
        })
    }
}

/// Why a request failed: the keyword in a RESULT's error element.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The peer is overloaded; the request may be tried again.
    Load,
    /// The operation's sequence isn't the account's next.
    Sequence,
    /// The signature doesn't verify.
    Signature,
    /// The message or its payload is malformed.
    Format,
    /// A cell that the request names is missing.
    Missing,
    /// There is no such account. The reference peer never sends it: its answer to a query is nil, or empty.
    Nobody,
    /// The sender isn't trusted with this. The reference peer never sends it.
    Trust,
    /// The request's arguments make no sense.
    Argument,
    /// The peer isn't in a state to serve it.
    State,
    /// A code that this version doesn't know.
    Other(Name),
}

impl ErrorCode {
    const KNOWN: [(Self, &'static str); 9] = [
        (Self::Load, "LOAD"),
        (Self::Sequence, "SEQUENCE"),
        (Self::Signature, "SIGNATURE"),
        (Self::Format, "FORMAT"),
        (Self::Missing, "MISSING"),
        (Self::Nobody, "NOBODY"),
        (Self::Trust, "TRUST"),
        (Self::Argument, "ARGUMENT"),
        (Self::State, "STATE"),
    ];

    /// The keyword's name.
    #[must_use]
    pub fn name(&self) -> Bytes {
        match self {
            Self::Other(name) => name.as_bytes().clone(),
            known => Bytes::from_static(Self::KNOWN.iter().find(|(code, _)| code == known).map_or("", |(_, name)| name).as_bytes()),
        }
    }

    /// The code of a keyword's name.
    #[must_use]
    pub fn from_name(name: &Name) -> Self {
        let known = Self::KNOWN.into_iter().find(|(_, known)| known.as_bytes() == name.as_bytes());
        known.map_or_else(|| Self::Other(name.clone()), |(code, _)| code)
    }

    pub(super) fn cell(&self) -> Cell {
        Name::new(self.name()).map_or(Cell::Nil, Cell::Keyword)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.name()))
    }
}
