//! Where the victim is, and what it takes to speak to it.

use std::{net::SocketAddr, sync::Arc};

use peerlane::cell::Profile;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    ConnectError, Connection, Transport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Host, Identity, PeerAddr},
};

/// The network of `peerlane peer` unless told otherwise.
pub const NETWORK: &str = "peerlane";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Quic,
    Tcp,
}

#[derive(Clone)]
pub struct Target {
    pub addr: PeerAddr,
}

impl Target {
    pub fn socket(&self) -> SocketAddr {
        match &self.addr.host {
            Host::Address(address) => *address,
            Host::Name(..) => unreachable!("a peer prints addresses"),
        }
    }

    /// With the transports as they are: what the attacker does then is up to it.
    pub async fn dial(&self, local: &LocalPeer, by: By) -> Result<Connection, ConnectError> {
        match by {
            By::Quic => QuicTransport::new(local.clone(), QuicConfig::default())?.dial(&self.addr).await,
            By::Tcp => TcpTransport::new(local.clone(), TcpConfig::default())?.dial(&self.addr).await,
        }
    }

    /// Of somebody nobody knows.
    pub async fn stranger(&self, by: By) -> Connection {
        loop {
            // Refused while the rate of its address is used up: it comes again.
            match self.dial(&stranger(), by).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }
}

/// A valid key that nobody knows.
pub fn stranger() -> LocalPeer {
    local(&Identity::generate().unwrap())
}

pub fn local(identity: &Identity) -> LocalPeer {
    LocalPeer::new(identity, Arc::new(Lists::everybody()), Terms::new(NETWORK).unwrap()).unwrap()
}

pub fn profile() -> Profile {
    Profile::NATIVE.in_network(NETWORK)
}
