//! One message to several peers: encoded once, never waiting for any of them.

use bytes::Bytes;
use peerlane_transport::{
    ClassId, SendError, TrySend,
    identity::{PeerId, RemoteId},
};
use rand::seq::SliceRandom;

use super::{peer::Route, runtime::Inner};
use crate::protocol::Protocol;

/// To whom a broadcast goes. Trusted peers come first, then the others; each in the order of their IDs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// To all connected peers.
    #[default]
    All,
    /// To all but these: where it came from, say.
    Except(Vec<RemoteId>),
    /// To these, as far as they're connected.
    Only(Vec<RemoteId>),
    /// To so many, drawn by the node's random numbers, trusted ones first; not to those of the list.
    Sample {
        /// How many at most.
        count: usize,
        /// Not to these.
        except: Vec<RemoteId>,
    },
    /// To trusted peers.
    Trusted,
}

impl Selection {
    /// To so many, drawn by the node's random numbers, but not to these.
    pub const fn sample(count: usize, except: Vec<RemoteId>) -> Self {
        Self::Sample { count, except }
    }
}

/// What became of a broadcast at one peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// It's in the queue.
    Queued,
    /// It's in the queue in place of an older message of its key, whose bytes these are. What only those carried is the
    /// caller's to fold into the next.
    Superseded(Bytes),
    /// There's no room in its class now.
    Full,
    /// It's larger than the class permits.
    TooLarge,
    /// The connection has just ended, or has no such class.
    Closed,
}

/// What became of a broadcast.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Broadcast {
    /// By peer, in the order in which they were served.
    pub outcomes: Vec<(RemoteId, Outcome)>,
}

impl Broadcast {
    /// Peers that will get it, unless their connection ends before.
    pub fn queued(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Queued | Outcome::Superseded(_)))
    }

    /// Peers whose queue has no room.
    pub fn full(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Full))
    }

    /// Peers that don't get it for another reason.
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::TooLarge | Outcome::Closed))
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| which(outcome)).count()
    }
}

/// Queues encoded bytes for a selection of peers.
pub(super) fn broadcast<P: Protocol>(node: &Inner<P>, selection: &Selection, class: ClassId, key: Option<u64>, bytes: &Bytes) -> Broadcast {
    let mut peers = node.registry.peers();
    let trusted = |id: Option<&PeerId>| node.trusts(id);
    peers.retain(|peer| match selection {
        Selection::All => true,
        Selection::Except(except) | Selection::Sample { except, .. } => !except.contains(&peer.id),
        Selection::Only(only) => only.contains(&peer.id),
        Selection::Trusted => trusted(peer.peer_id.as_ref()),
    });
    if let Selection::Sample { .. } = selection {
        peers.shuffle(&mut *node.rng.lock());
    }
    // Stable: the order within each tier stays.
    peers.sort_by_cached_key(|peer| !trusted(peer.peer_id.as_ref()));
    if let Selection::Sample { count, .. } = selection {
        peers.truncate(*count);
    }
    let outcome = |peer: &super::peer::Peer<P::Message>| match key {
        Some(key) => latest(node, peer, class, key, bytes.clone()),
        None => match node.try_send_on(peer, class, bytes.clone(), None) {
            TrySend::Queued => Outcome::Queued,
            refused => refusal(&refused),
        },
    };
    Broadcast { outcomes: peers.iter().map(|peer| (peer.id.clone(), outcome(peer))).collect() }
}

/// Queues a message in place of an older one of its key.
pub(super) fn latest<P: Protocol>(
    node: &Inner<P>,
    peer: &super::peer::Peer<P::Message>,
    class: ClassId,
    key: u64,
    bytes: Bytes,
) -> Outcome {
    match peer.route(node.order(class), None) {
        Route::To(link) => match link.connection.send_latest(class, key, bytes) {
            Ok(Ok(None)) => Outcome::Queued,
            Ok(Ok(Some(old))) => Outcome::Superseded(old),
            Ok(Err(refused)) => refusal(&refused),
            Err(SendError::TooLarge { .. }) => Outcome::TooLarge,
            Err(_) => Outcome::Closed,
        },
        Route::Wait => Outcome::Full,
        Route::Gone(_) => Outcome::Closed,
    }
}

fn refusal(refused: &TrySend) -> Outcome {
    match refused {
        TrySend::Queued => Outcome::Queued,
        TrySend::Full { .. } => Outcome::Full,
        TrySend::TooLarge { .. } => Outcome::TooLarge,
        TrySend::Closed(_) => Outcome::Closed,
    }
}
