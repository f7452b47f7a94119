//! What is on the way, and what the network keeps of each connection.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use peerlane_transport::{ClassTable, class::Lane, identity::PeerId};
use tokio::sync::Notify;

use crate::receiver::Receiver;

/// One end of a connection: side 0 has dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndId {
    pub(crate) wire: u64,
    pub(crate) side: usize,
}

impl EndId {
    pub(crate) fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// What segments keep their order within. Each is a stream of its own: a loss in one delays no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Control,
    Lane(Lane),
    /// No order, no repetition. The class's index, as the sender has it.
    Datagram(u8),
}

impl Channel {
    /// For the trace.
    pub(crate) const fn name(self) -> [u8; 2] {
        match self {
            Self::Control => [0, 0],
            Self::Lane(lane) => [1, lane.to_byte()],
            Self::Datagram(class) => [2, class],
        }
    }

    pub(crate) const fn class(self) -> Option<u8> {
        match self {
            Self::Control => None,
            Self::Lane(lane) => Some(lane.class),
            Self::Datagram(class) => Some(class),
        }
    }

    pub(crate) const fn is_datagram(self) -> bool {
        matches!(self, Self::Datagram(_))
    }
}

/// A segment on the way.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) from: EndId,
    pub(crate) channel: Channel,
    /// Its place in the channel.
    pub(crate) sequence: u64,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// The channel ends with it.
    pub(crate) fin: bool,
    /// Losses so far.
    pub(crate) tries: u32,
    /// How often the link had been cut when it left.
    pub(crate) cuts: u64,
}

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A segment arrives, if the link wasn't cut meanwhile.
    Arrive(Parcel),
    /// A segment that had arrived and was held up is handed over.
    Deliver(Parcel),
    /// A loss is noticed.
    Lost(Parcel),
    /// The sender learns that a segment has arrived.
    Ack { end: EndId, bytes: usize },
    /// An end learns that the other one isn't there.
    Reset { end: EndId, kind: io::ErrorKind },
    /// The queue of a link may have room again.
    Room { from: PeerId, to: PeerId },
}

/// For [`peerlane_transport::PathStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// What the network keeps of one end.
pub(crate) struct End {
    pub(crate) peer: PeerId,
    /// Names the class that is stalled.
    pub(crate) classes: ClassTable,
    pub(crate) receiver: Arc<Receiver>,
    /// There may be room for another segment.
    pub(crate) room: Arc<Notify>,
    pub(crate) counters: Arc<Counters>,
    /// The next place in each channel.
    next: BTreeMap<Channel, u64>,
    /// Bytes and segments sent and not acknowledged.
    pub(crate) in_flight: usize,
    pub(crate) parcels: usize,
    pub(crate) closed: bool,
}

impl End {
    pub(crate) fn new(peer: PeerId, classes: ClassTable) -> Self {
        Self {
            peer,
            classes,
            receiver: Arc::default(),
            room: Arc::default(),
            counters: Arc::default(),
            next: BTreeMap::new(),
            in_flight: 0,
            parcels: 0,
            closed: false,
        }
    }

    /// Makes a segment of what is to be sent.
    pub(crate) fn parcel(&mut self, from: EndId, channel: Channel, chunks: Vec<Bytes>, fin: bool) -> Parcel {
        let next = self.next.entry(channel).or_default();
        let sequence = *next;
        *next += 1;
        if fin {
            // The lane's next use begins anew: not before the other side has seen the end of this one.
            self.next.remove(&channel);
        }
        let bytes = chunks.iter().map(Bytes::len).sum();
        self.in_flight += bytes;
        self.parcels += 1;
        Parcel { from, channel, sequence, chunks, bytes, fin, tries: 0, cuts: 0 }
    }

    /// A segment isn't on the way any more.
    pub(crate) fn settle(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.parcels = self.parcels.saturating_sub(1);
        self.room.notify_one();
    }
}

/// A connection.
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    /// Where the dialer is, and what it has dialed.
    pub(crate) addresses: [SocketAddr; 2],
    /// The listener knows of it.
    pub(crate) announced: bool,
}

impl Wire {
    /// Nobody is interested in it any more.
    pub(crate) fn is_over(&self) -> bool {
        let [dialer, acceptor] = &self.ends;
        dialer.closed && (acceptor.closed || (!self.announced && dialer.parcels == 0))
    }
}
