//! The world: peers, links, clock, and what goes wrong when.

use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use peerlane_transport::{
    admission::{LocalPeer, Terms},
    identity::PeerId,
};

use tokio::sync::oneshot;

use crate::{
    link::{Link, resend_delay},
    network::{Network, State},
    trace::TraceHash,
    transport::SimTransport,
    wire::Event,
};

/// A world of peers and the links between them. Cheap to clone; all clones are the same world.
///
/// It lives as long as one of its clones, transports, listeners or connections does.
#[derive(Clone)]
pub struct World {
    network: Arc<Network>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.network.seed).field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

impl World {
    /// A world whose every chance, loss and jitter, comes of this seed. Must be called in a tokio runtime, which is to
    /// be single-threaded and started with its clock paused where runs are to be alike.
    ///
    /// The generator is ChaCha8, one for the world, asked in the order in which segments are sent, and only on links that
    /// have loss or jitter.
    pub fn new(seed: u64) -> Self {
        Self { network: Network::new(seed) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.network.seed
    }

    /// A way into the world for a peer. One that is asked for twice has two; they are at the same host.
    pub fn transport(&self, peer: PeerId, terms: Terms) -> SimTransport {
        self.host(peer);
        SimTransport::new(self.network.clone(), peer, terms)
    }

    /// The same for a peer that its other transports, or a node, know already: with its key, terms and lists.
    pub fn transport_for(&self, peer: &LocalPeer) -> SimTransport {
        self.transport(peer.peer_id(), peer.terms.clone()).with_lists(peer.lists.clone())
    }

    /// The address of a peer's host: 10.0.0.1 for the first peer that the world hears of, and so on. Listening on
    /// `0.0.0.0` is listening there.
    pub fn host(&self, peer: PeerId) -> Ipv4Addr {
        self.network.host(peer)
    }

    /// Time since the world began, by tokio's clock.
    pub fn elapsed(&self) -> Duration {
        self.network.now()
    }

    /// What has happened so far: see [`TraceHash`].
    pub fn trace_hash(&self) -> TraceHash {
        self.network.state().trace.hash()
    }

    /// Segments delivered so far, those of handshakes included.
    pub fn delivered(&self) -> u64 {
        self.network.state().trace.segments
    }

    /// Bytes on the way from one peer to another and not yet acknowledged, over all their connections.
    pub fn in_flight(&self, from: &PeerId, to: &PeerId) -> usize {
        let state = self.network.state();
        let ends = state.wires.values().flat_map(|wire| [(&wire.ends[0], &wire.ends[1]), (&wire.ends[1], &wire.ends[0])]);
        ends.filter(|(a, b)| (&a.peer, &b.peer) == (from, to)).map(|(a, _)| a.in_flight).sum()
    }

    /// Connections that an end still holds, handshakes included.
    pub fn connections(&self) -> usize {
        self.network.state().wires.len()
    }

    /// What every link is like that isn't set by itself.
    pub fn set_default_link(&self, link: Link) {
        self.network.change(|state, now| {
            state.default_link = link;
            let pairs: Vec<_> = state.paths.iter().filter(|(_, path)| !path.own).map(|(pair, _)| *pair).collect();
            for (from, to) in pairs {
                state.path(from, to).link = link;
                state.pass_on(from, to, now);
            }
        });
    }

    /// What the links between two peers are like, both ways. What is on the way already isn't touched.
    pub fn set_link(&self, a: &PeerId, b: &PeerId, link: Link) {
        self.set_link_one_way(a, b, link);
        self.set_link_one_way(b, a, link);
    }

    /// What the link from one peer to another is like.
    pub fn set_link_one_way(&self, from: &PeerId, to: &PeerId, link: Link) {
        self.network.change(|state, now| {
            let path = state.path(*from, *to);
            (path.link, path.own) = (link, true);
            wake(state, from, to, now);
        });
    }

    /// The link from one peer to another as it is.
    pub fn link(&self, from: &PeerId, to: &PeerId) -> Link {
        self.network.state().path(*from, *to).link
    }

    /// Cuts the links between two peers, both ways. What is on the way is lost, and what is sent meanwhile waits; it's sent
    /// again when the cut is over. A connection ends when it has heard nothing for its idle timeout.
    pub fn partition(&self, a: &PeerId, b: &PeerId) {
        self.partition_one_way(a, b);
        self.partition_one_way(b, a);
    }

    /// Cuts the link from one peer to another; the other direction goes on.
    pub fn partition_one_way(&self, from: &PeerId, to: &PeerId) {
        // Nothing has waited for the beginning of a cut.
        self.network.change(|state, _| drop(state.path(*from, *to).set_down(true)));
    }

    /// Ends the cuts between two peers, both ways. What waited is sent again one retransmission delay later.
    pub fn heal(&self, a: &PeerId, b: &PeerId) {
        self.heal_one_way(a, b);
        self.heal_one_way(b, a);
    }

    /// Ends the cut from one peer to another.
    pub fn heal_one_way(&self, from: &PeerId, to: &PeerId) {
        self.network.change(|state, now| {
            let again = now.saturating_add(resend_delay(state.pace(*from, *to).rtt, 0));
            for event in state.path(*from, *to).set_down(false) {
                state.schedule(again, event);
            }
            wake(state, from, to, now);
        });
    }

    /// Cuts every link, those of peers to come included, until [`heal`](Self::heal) or [`heal_all`](Self::heal_all).
    pub fn partition_all(&self) {
        self.network.change(|state, _| {
            state.all_down = true;
            state.paths.values_mut().for_each(|path| drop(path.set_down(true)));
        });
    }

    /// Ends every cut.
    pub fn heal_all(&self) {
        let cut: Vec<_> = self.network.change(|state, _| {
            state.all_down = false;
            state.paths.iter().filter(|(_, path)| path.down).map(|(pair, _)| *pair).collect()
        });
        cut.iter().for_each(|(from, to)| self.heal_one_way(from, to));
    }

    /// Loses the next segment with data from one peer to another, whatever the link's chance is. The future completes when
    /// it's lost; needn't be awaited.
    pub fn lose_next(&self, from: &PeerId, to: &PeerId) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (told, lost) = oneshot::channel();
        self.network.change(|state, _| state.path(*from, *to).doomed.push_back(told));
        async { lost.await.unwrap_or_default() }
    }

    /// The same for the next that any dialer sends to whom it has dialed.
    pub fn lose_next_of_any(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (told, lost) = oneshot::channel();
        self.network.change(|state, _| state.doomed.push_back(told));
        async { lost.await.unwrap_or_default() }
    }

    /// Holds up the messages of a class from one peer to another at the receiver's door: they arrive, but aren't handed over, as
    /// if nobody read the class. The name is the sender's. Datagrams of the class are dropped.
    pub fn stall(&self, from: &PeerId, to: &PeerId, class: &str) {
        self.network.change(|state, _| {
            state.path(*from, *to).stalled.entry(class.to_owned()).or_default();
        });
    }

    /// Hands over what a stall has held up, and what comes.
    pub fn unstall(&self, from: &PeerId, to: &PeerId, class: &str) {
        self.network.change(|state, now| {
            for parcel in state.path(*from, *to).stalled.remove(class).unwrap_or_default() {
                state.schedule(now, Event::Deliver(parcel));
            }
        });
    }

    /// Ends every connection between two peers at once, at both ends, without a word: as a middlebox does that forgets its
    /// table. How many.
    pub fn reset(&self, a: &PeerId, b: &PeerId) -> usize {
        let state = self.network.state();
        let between = |peers: [PeerId; 2]| peers == [*a, *b] || peers == [*b, *a];
        let wires = state.wires.values().map(|wire| &wire.ends).filter(|[x, y]| between([x.peer, y.peer]));
        let receivers: Vec<_> = wires.map(|ends| ends.each_ref().map(|end| end.receiver.clone())).collect();
        drop(state);
        for receiver in receivers.iter().flatten() {
            receiver.reset(io::ErrorKind::ConnectionReset, "the connection was reset");
        }
        receivers.len()
    }
}

/// A link has changed: who waits for room looks again.
fn wake(state: &mut State, from: &PeerId, to: &PeerId, now: Duration) {
    let ends = state.wires.values().flat_map(|wire| [(&wire.ends[0], wire.ends[1].peer), (&wire.ends[1], wire.ends[0].peer)]);
    ends.filter(|(end, other)| (end.peer, *other) == (*from, *to)).for_each(|(end, _)| end.room.notify_one());
    state.pass_on(*from, *to, now);
}
