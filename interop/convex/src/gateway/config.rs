//! How a gateway is set up.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use peerlane_transport::{
    ConnectError, ListenError,
    admission::Terms,
    identity::{PeerAddr, PeerAddrError},
};

use super::sort::gateway_classes;
use crate::limits::MAX_FRAME;

/// A remote gateway, and the local address that stands for it: `PEERID@HOST:PORT[=LOCALADDR:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPeer {
    /// Its key, and where it listens.
    pub addr: PeerAddr,
    /// Where the local peer connects as if to the remote one; without it, the remote gateway may only come in.
    pub local: Option<SocketAddr>,
}

impl fmt::Display for GatewayPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)?;
        self.local.map_or(Ok(()), |local| write!(f, "={local}"))
    }
}

/// What is wrong with a peer's text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayPeerError {
    /// Before the `=`.
    #[error(transparent)]
    Addr(#[from] PeerAddrError),
    /// Behind it.
    #[error("{0:?} is no address and port: behind the = stands where the local peer connects, 127.0.0.2:18888 for example")]
    Local(String),
}

impl FromStr for GatewayPeer {
    type Err = GatewayPeerError;

    fn from_str(text: &str) -> Result<Self, GatewayPeerError> {
        let (addr, local) = text.split_once('=').map_or((text, None), |(addr, local)| (addr, Some(local)));
        let local = local.map(|local| local.parse().map_err(|_| GatewayPeerError::Local(local.into()))).transpose()?;
        Ok(Self { addr: addr.parse()?, local })
    }
}

/// How a gateway behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// The local peer, `HOST:PORT`: dialed once for each connection that a remote gateway makes.
    pub local: String,
    /// Where remote gateways arrive.
    pub listen: SocketAddr,
    /// The remote gateways. No others are admitted.
    pub peers: Vec<GatewayPeer>,
    /// Admit every key. A Convex peer takes anonymous connections, so who is admitted can do what any client on the internet can.
    pub open: bool,
    /// The largest frame body, both ways, in bytes.
    pub max_frame: usize,
    /// Connections at once, both ways together. Worst-case memory of each: about 13 MB (the sum of `peerlane limits`), if both its ends stop reading.
    pub connections: usize,
    /// Those with one remote gateway.
    pub connections_per_peer: usize,
    /// How long dialing a remote gateway, or the local peer, may take.
    pub dial_timeout: Duration,
    /// How much later than one transport the next is tried.
    pub race_stagger: Duration,
    /// A connection on which nothing has come for so long, neither way, is closed; after its first frame it may be silent for ever.
    pub first_frame: Duration,
}

impl GatewayConfig {
    /// For a local peer, with the default bounds and no remote gateways.
    #[must_use]
    pub fn new(local: impl Into<String>, listen: SocketAddr) -> Self {
        Self {
            local: local.into(),
            listen,
            peers: Vec::new(),
            open: false,
            max_frame: MAX_FRAME,
            connections: 256,
            connections_per_peer: 32,
            // The reference peer's own.
            dial_timeout: Duration::from_secs(8),
            race_stagger: Duration::from_millis(250),
            first_frame: Duration::from_secs(60),
        }
    }

    /// What gateways have in common: put these terms into their [`LocalPeer`](peerlane_transport::admission::LocalPeer).
    ///
    /// # Errors
    /// [`ConnectError::Config`] for a network's name that isn't 1 to 64 bytes long.
    pub fn terms(network: &str) -> Result<Terms, ConnectError> {
        let mut terms = Terms::new(network)?;
        terms.classes = gateway_classes();
        Ok(terms)
    }
}

/// Why a gateway doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Remote gateways can't arrive.
    #[error("{transport}: {source}")]
    Listen {
        /// The transport.
        transport: &'static str,
        /// Why.
        #[source]
        source: ListenError,
    },
    /// The local peer can't connect to what stands for a remote one.
    #[error("the local address of peer {peer}: {source}")]
    Local {
        /// Whose.
        peer: Box<PeerAddr>,
        /// Why.
        #[source]
        source: ListenError,
    },
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::identity::Identity;

    use super::*;

    #[test]
    fn a_peer_is_read_as_it_is_printed() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        for local in ["", "=127.0.0.2:18888", "=[::1]:0"] {
            let text = format!("{id}@gateway.example:4433{local}");
            assert_eq!(text.parse::<GatewayPeer>().unwrap().to_string(), text);
        }
        let bad = |local: &str| format!("{id}@a:1={local}").parse::<GatewayPeer>().unwrap_err();
        assert!(matches!(bad("18888"), GatewayPeerError::Local(_)) && matches!(bad(""), GatewayPeerError::Local(_)));
        assert!(matches!("a:1=127.0.0.1:1".parse::<GatewayPeer>(), Err(GatewayPeerError::Addr(_))));
    }
}
