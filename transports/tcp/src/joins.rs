//! Connections that further TCP connections may join, and who may join them: see [`peerlane_transport::admission::join`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use peerlane_transport::{
    admission::JoinToken,
    framing::{Joining, Place},
    identity::PeerId,
};

/// Accepted connections that await joins, by their token's handle. Each has one entry, for as long as it lives: so there
/// are never more than there are connections, and what a TCP connection that nobody awaits costs is its handshake.
pub(crate) struct Joins<IO>(Mutex<HashMap<[u8; 16], Awaiting<IO>>>);

impl<IO> Default for Joins<IO> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

struct Awaiting<IO> {
    token: JoinToken,
    /// Whose key the connection's dialer has proven.
    peer: PeerId,
    joining: Joining<IO>,
}

/// Keeps an entry until it's dropped.
pub(crate) struct Awaited<IO> {
    joins: Arc<Joins<IO>>,
    handle: [u8; 16],
}

impl<IO> Joins<IO> {
    /// From now on this peer may join a connection of this token.
    pub(crate) fn await_from(self: &Arc<Self>, token: JoinToken, peer: PeerId, joining: Joining<IO>) -> Awaited<IO> {
        let handle = token.handle();
        self.lock().insert(handle, Awaiting { token, peer, joining });
        Awaited { joins: self.clone(), handle }
    }

    /// The connection of this token, and this carrier's place in it, which nobody has taken. `None` if any of it isn't so;
    /// which of it isn't is nobody's business.
    pub(crate) fn find(&self, token: &JoinToken, peer: &PeerId, carrier: u8) -> Option<(Joining<IO>, Place)> {
        let entries = self.lock();
        let entry = entries.get(&token.handle()).filter(|entry| entry.token == *token && entry.peer == *peer)?;
        let place = entry.joining.take(carrier)?;
        Some((entry.joining.clone(), place))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Awaiting<IO>>> {
        // Nothing panics between lock and unlock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO> Drop for Awaited<IO> {
    fn drop(&mut self) {
        let entry = self.joins.lock().remove(&self.handle);
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::{framing, identity::Identity};

    use super::*;

    fn peer(seed: u8) -> PeerId {
        Identity::from_seed(&[seed; 32]).unwrap().peer_id()
    }

    #[test]
    fn a_place_is_found_by_all_of_the_token_and_the_key_and_taken_once() {
        let joins = Arc::new(Joins::<()>::default());
        let bytes: [u8; JoinToken::LEN] = std::array::from_fn(|i| i as u8);
        let (joining, _carriers) = framing::carriers(vec![0, 1]);
        let awaited = joins.await_from(bytes.into(), peer(1), joining);

        for i in 0..JoinToken::LEN {
            let mut other = bytes;
            other[i] ^= 1;
            assert!(joins.find(&other.into(), &peer(1), 1).is_none(), "byte {i} isn't compared");
        }
        assert!(joins.find(&bytes.into(), &peer(2), 1).is_none(), "another key");
        for carrier in [0, 4, 8, 16, 254] {
            assert!(joins.find(&bytes.into(), &peer(1), carrier).is_none(), "there's no carrier {carrier}");
        }
        let found = joins.find(&bytes.into(), &peer(1), 1).unwrap();
        assert!(joins.find(&bytes.into(), &peer(1), 1).is_none(), "it's taken");
        for carrier in [2, framing::COPIES] {
            assert!(joins.find(&bytes.into(), &peer(1), carrier).is_some(), "another one isn't");
        }
        drop(found);
        assert!(joins.find(&bytes.into(), &peer(1), 1).is_some(), "it was given up");
        drop(awaited);
        assert!(joins.find(&bytes.into(), &peer(1), 1).is_none(), "the connection is over");
    }
}
