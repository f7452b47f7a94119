//! Who ended it, and why: close codes in one table, and the errors of dialing, listening, sending and receiving.
//!
//! A close code is the number that travels: QUIC's application error code (RFC 9000, section 20.2) and the
//! CLOSE frame of class framing carry the same one. Each code has one row in [`CloseCode::TABLE`]; the same
//! table is printed in `docs/WIRE.md`.

use std::{fmt, io, sync::Arc};

use thiserror::Error;

use crate::class::ClassId;

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retry:literal, $text:literal;)*) => {
        /// Why a connection was closed: one number on the wire, the same on every transport.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum CloseCode { $($(#[$doc])* $name,)* /** A code that this version doesn't know. */ Other(u32) }

        impl CloseCode {
            /// Every code: the value, its number on the wire, whether dialing again can help, and what it means.
            pub const TABLE: &'static [(CloseCode, u32, bool, &'static str)] =
                &[$((CloseCode::$name, $code, $retry, $text),)*];

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self { $(CloseCode::$name => $code,)* CloseCode::Other(n) => n }
            }

            /// The code of a number on the wire.
            pub const fn from_number(number: u32) -> Self {
                match number { $($code => CloseCode::$name,)* n => CloseCode::Other(n) }
            }

            /// Whether dialing again, unchanged, can succeed.
            pub const fn may_retry(self) -> bool {
                match self { $(CloseCode::$name => $retry,)* CloseCode::Other(_) => true }
            }

            /// What the code means, in words.
            pub const fn meaning(self) -> &'static str {
                match self { $(CloseCode::$name => $text,)* CloseCode::Other(_) => "a code that this version doesn't know" }
            }
        }
    };
}

close_codes! {
    /// Done: nothing is wrong.
    Done = 0, true, "done, nothing is wrong";
    /// The node is shutting down.
    Shutdown = 1, true, "the node is shutting down";
    /// Another connection to the same peer won the tie.
    Duplicate = 2, false, "another connection to the same peer is kept instead";
    /// No life sign for the negotiated time.
    TimedOut = 3, true, "no life sign for the negotiated time";
    /// Too many handshakes or connections.
    Overloaded = 4, true, "too many handshakes or connections";
    /// The path or the other process ended without a word.
    Lost = 5, true, "the path or the other process ended without a word";
    /// The hello has another version of peerlane's protocol.
    WrongVersion = 16, false, "another version of the protocol";
    /// The hello names another network.
    WrongNetwork = 17, false, "another network";
    /// The peer's key isn't the one that was dialed.
    WrongKey = 18, false, "the peer's key isn't the expected one";
    /// The peer is blocked, or not on the allow list.
    NotAdmitted = 19, false, "the peer isn't admitted (block or allow list)";
    /// The hello doesn't parse, or comes too late.
    BadHello = 20, false, "the hello doesn't parse or comes too late";
    /// A JOIN names no connection that this peer has with the sender and that waits for it.
    NoSuchJoin = 21, false, "a JOIN of no connection that waits for it";
    /// A frame doesn't parse or stands where it may not.
    Protocol = 32, false, "a frame doesn't parse or stands where it may not";
    /// More bytes, streams or frames than credit was given for.
    FlowControl = 33, false, "more bytes or streams than credit was given for";
    /// A message larger than its class permits.
    TooLarge = 34, false, "a message larger than its class permits";
    /// The layer above refused a message.
    Application = 48, false, "the layer above refused a message";
    /// A fault of our own.
    Internal = 49, true, "an internal fault";
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.meaning(), self.number())
    }
}

/// Which side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// This side.
    Local,
    /// The other side, in so many words.
    Remote,
    /// Neither: the path or the operating system.
    Transport,
}

/// How a connection ended. Cheap to clone; the same for every user of the connection.
#[derive(Debug, Clone, Error)]
#[error("closed by {}: {code}{}{reason}", match by { ClosedBy::Local => "this side", ClosedBy::Remote => "the other side", ClosedBy::Transport => "the transport" }, if reason.is_empty() { "" } else { ": " })]
pub struct Closed {
    /// Who ended it.
    pub by: ClosedBy,
    /// Why, as a number.
    pub code: CloseCode,
    /// Why, in words; at most [`MAX_REASON`](crate::limits::MAX_REASON) bytes when it came from the other side.
    pub reason: Arc<str>,
}

impl Closed {
    /// Ended by this side.
    pub fn local(code: CloseCode, reason: impl Into<Arc<str>>) -> Self {
        Self { by: ClosedBy::Local, code, reason: reason.into() }
    }

    /// Ended by the other side. The reason is cut to what a log line bears.
    pub fn remote(code: CloseCode, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(crate::limits::MAX_REASON)]);
        let clean: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { by: ClosedBy::Remote, code, reason: clean.into() }
    }

    /// Ended by the path or the operating system.
    pub fn transport(code: CloseCode, reason: impl Into<Arc<str>>) -> Self {
        Self { by: ClosedBy::Transport, code, reason: reason.into() }
    }
}

/// Why a connection couldn't be made, dialing or accepting.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name didn't resolve, or nobody answered there.
    #[error("can't reach {addr}: {source}")]
    Unreachable {
        /// Where to.
        addr: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It took longer than the limit.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// The step that was too slow.
        what: &'static str,
        /// The limit.
        limit: std::time::Duration,
    },
    /// The TLS or QUIC handshake failed.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// The other side is not whom it should be.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    /// This side refused, or the other one did: see [`Closed::by`].
    #[error("{0}")]
    Refused(#[from] Closed),
    /// The listener's admission control has no room now.
    #[error("not admitted now: {0}")]
    Busy(String),
    /// A setting that the transport can't use.
    #[error("configuration: {0}")]
    Config(String),
    /// The operating system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ConnectError {
    /// Whether dialing again, unchanged, can succeed.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused(closed) => closed.code.may_retry(),
            Self::Identity(_) | Self::Config(_) => false,
            _ => true,
        }
    }
}

/// Why a listener couldn't be made or ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is taken, not ours, or not permitted.
    #[error("can't listen on {addr}: {source}{}", if source.kind() == io::ErrorKind::AddrInUse { " (another program uses this port; choose another, or port 0 for a free one)" } else { "" })]
    Bind {
        /// Where.
        addr: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A setting that the transport can't use.
    #[error("configuration: {0}")]
    Config(String),
    /// The listener was closed.
    #[error("the listener is closed")]
    Closed,
}

/// Why a message wasn't queued.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Larger than the class permits: it can never be sent; nothing was queued.
    #[error("{size} bytes are more than class {class} permits ({limit})")]
    TooLarge {
        /// The class.
        class: ClassId,
        /// The message's size in bytes.
        size: usize,
        /// The class's largest message in bytes.
        limit: usize,
    },
    /// The two sides didn't agree on such a class.
    #[error("class {0} isn't agreed with this peer")]
    NoSuchClass(ClassId),
    /// The receiver doesn't want the rest of this streamed message (code as it gave it).
    #[error("the receiver stopped the message (code {0})")]
    Stopped(u32),
    /// The receiver has taken nothing of this streamed message for so long, so the sender gave it up.
    #[error("the receiver has taken nothing of the message for {0:?}")]
    Stalled(std::time::Duration),
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// What became of a [`try_send`](crate::Connection::try_send).
#[derive(Debug, Clone)]
#[must_use]
pub enum TrySend {
    /// In the class's queue.
    Queued,
    /// The class's send budget has no room for it now.
    Full {
        /// The class.
        class: ClassId,
        /// Bytes of its budget in use.
        bytes: usize,
    },
    /// Larger than the class permits: it never fits.
    TooLarge {
        /// The class's largest message in bytes.
        limit: usize,
    },
    /// The connection has ended, or the class isn't agreed.
    Closed(SendError),
}

/// Why a message didn't arrive whole.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The sender gave up on this streamed message (code as it gave it).
    #[error("the sender aborted the message (code {0})")]
    Aborted(u32),
    /// The two sides didn't agree on such a class.
    #[error("class {0} isn't agreed with this peer")]
    NoSuchClass(ClassId),
    /// The message is longer than the caller accepts.
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
    /// Nothing of this streamed message has come for so long, so the receiver gave it up.
    #[error("nothing of the message has come for {0:?}")]
    Stalled(std::time::Duration),
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}
