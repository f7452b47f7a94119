//! Who is at the other end, as the transport trait says it: an opaque ID, and how well it's proven.
//!
//! Foreign systems have identities of their own (a multihash, an address, a key of another curve), and some connect
//! first and prove themselves later. So the trait speaks of a [`Remote`], and [`PeerId`] is one scheme among others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::peer_id::PeerId;

/// Longest [`RemoteId`], in bytes: an RSA key of 4,096 bits fits. One per connection, so the worst case is this times
/// the connections.
pub const REMOTE_ID_MAX: usize = 512;

/// What kind of ID a [`RemoteId`] is: two IDs of different schemes are never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheme(&'static str);

impl Scheme {
    /// A [`PeerId`], 32 bytes.
    pub const ED25519: Self = Self("ed25519");
    /// Where the remote is, for one that hasn't said who it is: 4 or 16 bytes of address, 2 of port, big-endian.
    pub const ADDRESS: Self = Self("address");

    /// A scheme of another system, by a short name that no other uses.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The scheme's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// A remote's ID in some scheme: opaque bytes, [`REMOTE_ID_MAX`] at most. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId {
    scheme: Scheme,
    bytes: Bytes,
}

impl RemoteId {
    /// An ID of any scheme.
    ///
    /// # Errors
    /// [`RemoteIdError::TooLong`] over [`REMOTE_ID_MAX`] bytes; [`RemoteIdError::NotAPeerId`] if the scheme is
    /// [`Scheme::ED25519`] and the bytes are no [`PeerId`].
    pub fn new(scheme: Scheme, bytes: Bytes) -> Result<Self, RemoteIdError> {
        if bytes.len() > REMOTE_ID_MAX {
            return Err(RemoteIdError::TooLong(bytes.len()));
        }
        if scheme == Scheme::ED25519 {
            PeerId::from_slice(&bytes)?;
        }
        Ok(Self { scheme, bytes })
    }

    /// The ID of a remote that is known by its address alone.
    #[must_use]
    pub fn from_address(address: SocketAddr) -> Self {
        let mut bytes = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend_from_slice(&address.port().to_be_bytes());
        Self { scheme: Scheme::ADDRESS, bytes: bytes.into() }
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bytes, whose meaning is the scheme's.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key, if the scheme is [`Scheme::ED25519`]. Says nothing about proof: see [`Remote::peer_id`].
    #[must_use]
    pub fn as_peer_id(&self) -> Option<PeerId> {
        (self.scheme == Scheme::ED25519).then(|| PeerId::from_slice(&self.bytes).ok()).flatten()
    }
}

impl From<PeerId> for RemoteId {
    fn from(id: PeerId) -> Self {
        Self { scheme: Scheme::ED25519, bytes: Bytes::copy_from_slice(id.as_bytes()) }
    }
}

/// `scheme:hex`.
impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme.0, HEXLOWER.encode(&self.bytes))
    }
}

impl fmt::Debug for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteId({self})")
    }
}

/// Why bytes are no [`RemoteId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RemoteIdError {
    /// Over [`REMOTE_ID_MAX`]; the number of bytes.
    #[error("a remote's ID has {REMOTE_ID_MAX} bytes at most, not {0}")]
    TooLong(usize),
    /// The scheme promises a key, and it isn't one.
    #[error("an ID of scheme ed25519 is a peer's key: {0}")]
    NotAPeerId(#[from] super::peer_id::PeerIdError),
}

/// How well a [`RemoteId`] is proven. Ordered: more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Not at all: the remote claims it, or it's only an address.
    None,
    /// By the transport's handshake.
    Transport,
    /// By the application, a signed challenge for example.
    Application,
}

/// Who is at the other end of a connection, as far as is known now. It may change once: from unproven to proven.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Who.
    pub id: RemoteId,
    /// How well that is proven.
    pub proof: Proof,
}

impl Remote {
    /// A peer whose key the transport's handshake has proven.
    #[must_use]
    pub fn authenticated(id: PeerId) -> Self {
        Self { id: id.into(), proof: Proof::Transport }
    }

    /// A remote that is known by its address alone.
    #[must_use]
    pub fn anonymous(address: SocketAddr) -> Self {
        Self { id: RemoteId::from_address(address), proof: Proof::None }
    }

    /// The remote's key, if it has one *and has proven it*. A claim is in [`Remote::id`].
    #[must_use]
    pub fn peer_id(&self) -> Option<PeerId> {
        match self.proof {
            Proof::None => None,
            Proof::Transport | Proof::Application => self.id.as_peer_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn ids_are_bounded_and_checked() {
        let scheme = Scheme::new("test");
        assert!(RemoteId::new(scheme, vec![0; REMOTE_ID_MAX].into()).is_ok());
        assert_eq!(RemoteId::new(scheme, vec![0; REMOTE_ID_MAX + 1].into()), Err(RemoteIdError::TooLong(REMOTE_ID_MAX + 1)));
        assert!(matches!(RemoteId::new(Scheme::ED25519, vec![0; 32].into()), Err(RemoteIdError::NotAPeerId(_))));
    }

    #[test]
    fn equal_bytes_of_different_schemes_differ() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let same_bytes = Bytes::copy_from_slice(id.as_bytes());
        let foreign = RemoteId::new(Scheme::new("test"), same_bytes).unwrap();
        assert_ne!(RemoteId::from(id), foreign);
        assert_eq!(foreign.as_peer_id(), None);
        assert_eq!(RemoteId::from(id).as_peer_id(), Some(id));
        assert_eq!(RemoteId::from(id).to_string(), format!("ed25519:{id}"));
    }

    #[test]
    fn an_unproven_key_is_no_peer() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let mut remote = Remote { id: id.into(), proof: Proof::None };
        assert_eq!(remote.peer_id(), None);
        remote.proof = Proof::Application;
        assert_eq!(remote.peer_id(), Some(id));
        assert_eq!(Remote::authenticated(id).peer_id(), Some(id));
        assert_eq!(Remote::anonymous("[::1]:5".parse().unwrap()).peer_id(), None);
        assert!(Proof::None < Proof::Transport && Proof::Transport < Proof::Application);
    }
}
