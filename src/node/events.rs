//! What a node tells of its connections, as it happens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use peerlane_transport::{
    ClassId, Closed, ConnectError,
    identity::{PeerAddr, RemoteId},
};

/// Something happened. A listener that is too slow loses the oldest events and is told how many
/// ([`RecvError::Lagged`](tokio::sync::broadcast::error::RecvError::Lagged)); [`peers`](super::NodeHandle::peers) has the truth.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A peer has its first connection.
    PeerConnected {
        /// Who.
        peer: RemoteId,
        /// Over which transport.
        transport: &'static str,
        /// Whether this side dialed.
        dialed: bool,
    },
    /// A peer's messages take another connection now; nothing was lost.
    PeerMoved {
        /// Who.
        peer: RemoteId,
        /// Over which transport now.
        transport: &'static str,
    },
    /// A peer's last connection has ended. Told once the handlers are done with what came by it, or after five seconds, or
    /// when the peer is back: always before the next [`PeerConnected`](Self::PeerConnected).
    PeerDisconnected {
        /// Who.
        peer: RemoteId,
        /// Who ended it, and why.
        why: Closed,
    },
    /// An attempt to dial failed.
    DialFailed {
        /// Where to, and the key expected there.
        addr: PeerAddr,
        /// Over which transport.
        transport: &'static str,
        /// Why. A wrong key names both.
        error: Arc<ConnectError>,
        /// Whether the same attempt can succeed later.
        may_retry: bool,
    },
    /// A peer that is to be kept connected is dialed again after this.
    RetryIn {
        /// Who.
        peer: RemoteId,
        /// When, from now.
        delay: Duration,
    },
    /// An arrival didn't become a peer.
    AcceptFailed {
        /// On which transport.
        transport: &'static str,
        /// Where from.
        remote_addr: Arc<str>,
        /// Why.
        error: Arc<ConnectError>,
    },
    /// A listener ended. The node listens again there, with growing delays.
    ListenerFailed {
        /// On which transport.
        transport: &'static str,
        /// Where.
        local: SocketAddr,
        /// Why, in words.
        why: Arc<str>,
    },
    /// A peer sent something that doesn't parse.
    Malformed {
        /// Who.
        peer: RemoteId,
        /// In which class.
        class: ClassId,
        /// What is wrong.
        why: &'static str,
    },
}
