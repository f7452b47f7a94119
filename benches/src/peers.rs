//! The two peers.

use std::net::{Ipv4Addr, SocketAddr};

use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{admission::LocalPeer, identity::Identity};

use crate::Failed;

/// The seed of who dials.
pub(crate) const DIALER: u8 = 1;
/// The seed of who listens.
pub(crate) const LISTENER: u8 = 2;

/// Where to listen: loopback, at a port of the system's choice.
pub(crate) fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn identity(seed: u8) -> Result<Identity, Failed> {
    Identity::from_seed(&[seed; 32]).map_err(|error| Failed::Setup(error.to_string()))
}

pub(crate) fn peer(seed: u8) -> Result<LocalPeer, Failed> {
    Ok(LocalPeer::open(&identity(seed)?, "bench")?)
}

pub(crate) fn quic(seed: u8) -> Result<QuicTransport, Failed> {
    Ok(QuicTransport::new(peer(seed)?, QuicConfig::default())?)
}

pub(crate) fn tcp(seed: u8) -> Result<TcpTransport, Failed> {
    Ok(TcpTransport::new(peer(seed)?, TcpConfig::default())?)
}
