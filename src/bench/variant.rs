//! The transports that are compared, by the names they have on the command line and in records.

use std::{fmt, net::SocketAddr};

use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{AnyTransport, ConnectError, admission::LocalPeer, identity::PeerAddr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Makes one end's transport of what its transports share.
type Make = fn(LocalPeer) -> Result<AnyTransport<PeerAddr, SocketAddr>, ConnectError>;

/// A transport as it's configured for a comparison. Each name's configuration is one row of [`Variant::ALL`].
#[derive(Clone, Copy)]
pub struct Variant {
    name: &'static str,
    make: Make,
}

impl Variant {
    /// Every one there is.
    pub const ALL: &'static [Self] = &[
        // The defaults, as users get them.
        Self { name: "tcp", make: |peer| Ok(AnyTransport::new(TcpTransport::new(peer, TcpConfig::default())?)) },
        Self { name: "quic", make: |peer| Ok(AnyTransport::new(QuicTransport::new(peer, QuicConfig::default())?)) },
    ];

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|variant| variant.name == name).copied()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn make(self, peer: LocalPeer) -> Result<AnyTransport<PeerAddr, SocketAddr>, ConnectError> {
        (self.make)(peer)
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variant({})", self.name)
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Variant {}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Its name: the configuration is that of whoever reads it.
impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::by_name(&name).ok_or_else(|| D::Error::custom(format!("no transport is called {name}")))
    }
}
