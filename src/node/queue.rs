//! Who is handled next: a queue that is fair to peers. No I/O, no clock.
//!
//! Each peer has its own first-in-first-out queue; peers take turns. Those with priority go first, but one turn in
//! [`UNTRUSTED_SHARE`] is the others'. A peer never has more running than its share, so it can't take all workers.

use std::collections::{BTreeMap, VecDeque};

use super::config::UNTRUSTED_SHARE;

/// A peer, by a number that stays its own however often it connects: what it has waiting and running counts together.
/// Two peers hardly ever share one; then they share a turn.
pub(super) type PeerKey = u64;

#[derive(Debug)]
struct PeerQueue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    running: usize,
    trusted: bool,
    /// Whether it stands in a ring: it has items and may run more.
    queued: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    peers: BTreeMap<PeerKey, PeerQueue<T>>,
    /// Peers that wait for their turn: those with priority, the others.
    rings: [VecDeque<PeerKey>; 2],
    messages: usize,
    bytes: usize,
    turn: u8,
    /// What one peer may have running: 1 where order counts.
    share: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new(share: usize) -> Self {
        Self { peers: BTreeMap::new(), rings: Default::default(), messages: 0, bytes: 0, turn: 0, share: share.max(1) }
    }

    /// Waiting: messages, bytes.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// Waiting of one peer: messages, bytes.
    pub(super) fn depth_of(&self, peer: PeerKey) -> (usize, usize) {
        self.peers.get(&peer).map_or((0, 0), |p| (p.items.len(), p.bytes))
    }

    /// Adds a message. The caller has seen to the bound: see [`Dispatch`](super::dispatch::Dispatch).
    pub(super) fn push(&mut self, peer: PeerKey, trusted: bool, item: T, bytes: usize) {
        let queue =
            self.peers.entry(peer).or_insert_with(|| PeerQueue { items: VecDeque::new(), bytes: 0, running: 0, trusted, queued: false });
        if !queue.queued {
            queue.trusted = trusted;
        }
        queue.items.push_back((item, bytes));
        queue.bytes += bytes;
        self.messages += 1;
        self.bytes += bytes;
        self.enqueue(peer);
    }

    fn enqueue(&mut self, peer: PeerKey) {
        let Some(queue) = self.peers.get_mut(&peer) else { return };
        if !queue.queued && !queue.items.is_empty() && queue.running < self.share {
            queue.queued = true;
            self.rings[usize::from(!queue.trusted)].push_back(peer);
        }
    }

    /// The next message to handle, and whose. [`done`](Self::done) must follow.
    pub(super) fn pop(&mut self) -> Option<(PeerKey, T)> {
        self.turn = (self.turn + 1) % UNTRUSTED_SHARE;
        let first = usize::from(self.turn == 0);
        loop {
            let peer = match self.rings[first].pop_front() {
                Some(peer) => peer,
                None => self.rings[1 - first].pop_front()?,
            };
            let Some(queue) = self.peers.get_mut(&peer) else { continue };
            queue.queued = false;
            let Some((item, bytes)) = queue.items.pop_front() else { continue };
            queue.bytes -= bytes;
            queue.running += 1;
            self.messages -= 1;
            self.bytes -= bytes;
            self.enqueue(peer);
            return Some((peer, item));
        }
    }

    /// Whether [`pop`](Self::pop) would give something.
    pub(super) fn is_ready(&self) -> bool {
        self.rings.iter().any(|ring| !ring.is_empty())
    }

    /// A message of the peer has been handled.
    pub(super) fn done(&mut self, peer: PeerKey) {
        if let Some(queue) = self.peers.get_mut(&peer) {
            queue.running = queue.running.saturating_sub(1);
        }
        self.enqueue(peer);
        self.tidy(peer);
    }

    fn tidy(&mut self, peer: PeerKey) {
        if self.peers.get(&peer).is_some_and(|q| q.items.is_empty() && q.running == 0) {
            let ring = self.peers.remove(&peer).filter(|q| q.queued).map(|q| usize::from(!q.trusted));
            if let Some(ring) = ring {
                self.rings[ring].retain(|p| *p != peer);
            }
        }
    }

    /// Who loses a message when there are too many: the peer with the most waiting, those without priority first.
    pub(super) fn victim(&self) -> Option<PeerKey> {
        let waiting = self.peers.iter().filter(|(_, queue)| !queue.items.is_empty());
        waiting.max_by_key(|(peer, queue)| (!queue.trusted, queue.items.len(), **peer)).map(|(peer, _)| *peer)
    }

    /// Takes the oldest (or the newest) waiting message of a peer out.
    pub(super) fn evict(&mut self, peer: PeerKey, newest: bool) -> Option<T> {
        let queue = self.peers.get_mut(&peer)?;
        let (item, bytes) = if newest { queue.items.pop_back() } else { queue.items.pop_front() }?;
        queue.bytes -= bytes;
        self.messages -= 1;
        self.bytes -= bytes;
        if queue.items.is_empty() && queue.queued {
            queue.queued = false;
            let ring = usize::from(!queue.trusted);
            self.rings[ring].retain(|p| *p != peer);
        }
        self.tidy(peer);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn peers_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::new(8);
        for i in 0..100 {
            queue.push(1, false, i, 1);
        }
        for i in 0..3 {
            queue.push(2, false, 1000 + i, 1);
        }
        let order: Vec<_> = (0..8).map(|_| queue.pop().unwrap().1).collect();
        assert_eq!(order, [0, 1000, 1, 1001, 2, 1002, 3, 4]);
        assert_eq!(queue.depth(), (95, 95));
    }

    #[test]
    fn a_peer_has_no_more_running_than_its_share() {
        let mut queue = FairQueue::new(2);
        for i in 0..5 {
            queue.push(1, false, i, 1);
        }
        queue.push(2, false, 9, 1);
        let got: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(got, [(1, 0), (2, 9), (1, 1)]);
        assert!(queue.pop().is_none());
        queue.done(2);
        assert!(queue.pop().is_none());
        queue.done(1);
        assert_eq!(queue.pop(), Some((1, 2)));
    }

    #[test]
    fn trusted_peers_go_first_and_starve_nobody() {
        let mut queue = FairQueue::new(1000);
        for i in 0..100 {
            queue.push(1, true, i, 1);
            queue.push(2, false, i, 1);
        }
        let first: Vec<_> = (0..80).map(|_| queue.pop().unwrap().0).collect();
        assert_eq!(first.iter().filter(|peer| **peer == 2).count(), 10);
    }

    #[test]
    fn the_greediest_peer_without_priority_loses() {
        let mut queue = FairQueue::new(8);
        for i in 0..10 {
            queue.push(1, true, i, 1);
        }
        for i in 0..5 {
            queue.push(2, false, i, 1);
        }
        assert_eq!(queue.victim(), Some(2));
        assert_eq!((queue.evict(2, false), queue.evict(2, true)), (Some(0), Some(4)));
        for _ in 0..3 {
            queue.evict(2, false).unwrap();
        }
        assert_eq!(queue.evict(2, false), None);
        assert_eq!(queue.victim(), Some(1));
        queue.push(3, false, 0, 1);
        assert_eq!(queue.victim(), Some(3));
        queue.evict(3, true);
        assert_eq!(queue.depth(), (10, 10));
    }

    #[test]
    fn nothing_is_kept_of_a_peer_without_messages() {
        let mut queue = FairQueue::new(1);
        for peer in 0..100 {
            queue.push(peer, false, (), 5);
            queue.push(peer, false, (), 5);
            queue.evict(peer, true);
        }
        while let Some((peer, ())) = queue.pop() {
            queue.done(peer);
        }
        assert_eq!(queue.depth(), (0, 0));
        assert!(queue.peers.is_empty() && queue.rings.iter().all(VecDeque::is_empty));
    }
}
