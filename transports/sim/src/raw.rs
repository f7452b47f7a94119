//! A connection whose far end keeps to no rule, for tests of what a peer does about that.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use peerlane_transport::{class::Lane, identity::PeerId};

use crate::{
    connection::SimStream,
    network::Network,
    receiver::Receiver,
    wire::{Channel, EndId},
};

/// One end of a connection after its hello: bytes go out as they're given, and what comes in is dropped unread. Nothing it
/// sends waits for credit, for a window or for a turn. Dropping it hangs up.
///
/// Made by [`SimTransport::dial_raw`](crate::SimTransport::dial_raw).
pub struct RawConnection {
    /// Hangs up when it's dropped.
    _stream: SimStream,
    network: Arc<Network>,
    end: EndId,
    peer: PeerId,
}

impl fmt::Debug for RawConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl RawConnection {
    pub(crate) fn new(stream: SimStream, network: Arc<Network>, end: EndId, receiver: &Receiver, peer: PeerId) -> Self {
        receiver.finish();
        Self { _stream: stream, network, end, peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Sends bytes of the control stream; `fin` ends it, which hangs up.
    pub fn send_control(&self, bytes: Bytes, fin: bool) {
        self.network.transmit(self.end, Channel::Control, vec![bytes], fin);
    }

    /// Sends bytes on a lane, which may be one that there can't be; `fin` ends this use of it.
    pub fn send_lane(&self, lane: u8, bytes: Bytes, fin: bool) {
        self.network.transmit(self.end, Channel::Lane(Lane::from_byte(lane)), vec![bytes], fin);
    }

    /// Sends a datagram in a class, which may be one that there isn't.
    pub fn send_datagram(&self, class: u8, bytes: Bytes) {
        self.network.transmit(self.end, Channel::Datagram(class), vec![bytes], false);
    }
}
