//! How requests fail: who ended it and why.

use std::{io, sync::Arc, time::Duration};

use peerlane_cell::{TreeError, ValueId};

use crate::{ChallengeError, ErrorCode, FrameError, MessageError};

/// Why a connection is over.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    #[error("closed here")]
    Local,
    /// The peer closed it. The reference peer does so after GOODBYE, a malformed QUERY, or a frame above its limit.
    #[error("closed by the peer")]
    Remote,
    /// The peer sent what is no frame.
    #[error("the peer's bytes are no frames: {0}")]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(Arc<io::Error>),
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers there.
    #[error("can't connect: {0}")]
    Connect(Arc<io::Error>),
    /// Connecting took too long.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    Closed(CloseReason),
    /// No answer in time. The peer may still carry the request out.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The peer's answer is no answer.
    #[error("the peer sent {0}")]
    Malformed(&'static str),
    /// The peer answered with an error.
    #[error(":{code} {text}{}", origin.as_ref().map(|origin| format!(" (from {origin})")).unwrap_or_default())]
    Refused {
        /// The code.
        code: ErrorCode,
        /// What the peer says about it.
        text: String,
        /// Which part of it says so, as a form: `:PEER`, `:CVM`, `:CODE`.
        origin: Option<String>,
    },
    /// The message has no place for an ID.
    #[error("the message is no request")]
    NotARequest,
    /// A message of ours above the frame limit.
    #[error("a message of {len} bytes: at most {max} are sent")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Too many requests wait for their answers.
    #[error("{0} requests wait for their answers already")]
    TooManyPending(usize),
    /// The peer answered a data request with a cell that wasn't asked for, or has another hash.
    #[error("the peer sent another cell than {0}")]
    WrongCell(ValueId),
    /// The peer doesn't hold a cell of the tree.
    #[error("the peer has no cell {0}")]
    Missing(ValueId),
    /// The tree is larger than the caller takes.
    #[error("the tree has more than {max} {what}")]
    FetchLimit {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The answer to a challenge proves nothing.
    #[error("the peer isn't proven: {0}")]
    Challenge(#[from] ChallengeError),
    /// A message can't be made, or its answer not read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A cell can't be made, or read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}
