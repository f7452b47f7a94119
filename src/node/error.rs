//! What can go wrong above the transports, and whose doing it is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use peerlane_transport::{
    Closed, ConnectError, ListenError, SendError,
    identity::{PeerAddr, RemoteId},
};
use thiserror::Error;

/// Why a node didn't start. Nothing is left running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder has no transport, or something it can't do.
    #[error("configuration: {0}")]
    Config(String),
    /// A transport can't listen.
    #[error("{transport}: {source}")]
    Listen {
        /// Which transport.
        transport: &'static str,
        /// Why, with the address.
        #[source]
        source: ListenError,
    },
}

/// Why a message wasn't queued for a peer. Nothing of it was sent.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PeerSendError {
    /// There's no connection to the peer.
    #[error("not connected to {0}")]
    NotConnected(RemoteId),
    /// It found no room within the time that it may wait.
    #[error("no room in the class for {0:?}")]
    Timeout(Duration),
    /// The connection refused it.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why a request has no reply.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Its message has no request ID by the protocol's own account.
    #[error("the message is no request")]
    NotARequest,
    /// As many requests to this peer wait as may.
    #[error("{0} requests to this peer are waiting already")]
    TooMany(usize),
    /// It wasn't sent.
    #[error(transparent)]
    NotSent(#[from] PeerSendError),
    /// The connection ended before the reply. Whether the other side has acted on the request isn't known.
    #[error("the connection ended before the reply: {0}")]
    Disconnected(Closed),
    /// No reply in time. Whether the other side has acted on the request isn't known.
    #[error("no reply within {0:?}")]
    Deadline(Duration),
    /// The reply came as a stream, and the request asked for a whole one.
    #[error("the reply is a streamed message")]
    Streamed,
}

/// Why a peer couldn't be reached: every attempt that was made.
#[derive(Debug, Clone, Error)]
#[error("can't connect to {}: {}", .peer, Attempts(.peer, .attempts))]
pub struct DialError {
    /// Whom.
    pub peer: PeerAddr,
    /// What was tried, in the order in which it failed. Empty if the node is shutting down.
    pub attempts: Vec<Attempt>,
}

/// One attempt of a [`DialError`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// Over which transport.
    pub transport: &'static str,
    /// Where to.
    pub addr: PeerAddr,
    /// Why it failed.
    pub error: Arc<ConnectError>,
}

impl DialError {
    /// Whether dialing again, unchanged, can succeed: no attempt failed for a reason that stays.
    pub fn may_retry(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.error.may_retry() || is_duplicate(&attempt.error))
    }
}

/// The other side has a connection to us already: no reason to stay away for long.
pub(super) fn is_duplicate(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused(closed) if closed.code == peerlane_transport::CloseCode::Duplicate)
}

struct Attempts<'a>(&'a PeerAddr, &'a [Attempt]);

impl Attempts<'_> {
    /// What may help if nobody has answered at all.
    fn hint(&self) -> &'static str {
        let nobody =
            |error: &ConnectError| matches!(error, ConnectError::Timeout { .. } | ConnectError::Unreachable { .. } | ConnectError::Io(_));
        match self.1.iter().all(|attempt| nobody(&attempt.error)) {
            true if !self.1.is_empty() => {
                " (does a peer listen there? does a firewall stop UDP, which quic needs, or TCP? another transport or more time may help)"
            }
            _ => "",
        }
    }
}

impl std::fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, attempt) in self.1.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "; " }, attempt.transport)?;
            if attempt.addr != *self.0 {
                write!(f, " to {}", attempt.addr)?;
            }
            write!(f, ": {}", attempt.error)?;
        }
        f.write_str(if self.1.is_empty() { "no attempt was made: the node is shutting down" } else { self.hint() })
    }
}

/// Where a listener of a transport is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listening {
    /// The transport's name.
    pub transport: &'static str,
    /// Where it really listens.
    pub addr: SocketAddr,
}
