//! Control frames that wait: bounded, since of each kind the latest counts.

use bytes::{Bytes, BytesMut};

use crate::{class::record::Lane, connection::Control, limits};

/// What is to be said of the other side's lanes, on the carrier of their class.
#[derive(Debug, Default)]
pub(super) struct LanesOut {
    /// Latest credit total per lane; one entry a lane at most.
    pub(super) credits: Vec<(Lane, u64)>,
    /// Slots to free; one entry a lane at most, since the lane can't be used again before.
    pub(super) releases: Vec<Lane>,
    /// Streamed messages that aren't wanted; bounded by the lanes as well.
    pub(super) stops: Vec<(Lane, u64, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct ControlOut {
    pub(super) ping: Option<u64>,
    /// The latest PING's nonce only: replies can't pile up.
    pub(super) pong: Option<u64>,
    /// By carrier.
    pub(super) lanes: [LanesOut; limits::MAX_CARRIERS],
    /// On which carrier that is, by the other side's class index.
    pub(super) carriers: [u8; limits::MAX_CLASSES],
    /// To be told: reliable messages in all.
    pub(super) finished: Option<u64>,
    pub(super) drained: bool,
    /// Carriers that classes go on from here on; one entry a carrier at most.
    pub(super) moved: Vec<u8>,
}

impl LanesOut {
    fn encode(&mut self, out: &mut BytesMut) {
        for (lane, total) in self.credits.drain(..) {
            Control::Credit { lane, total }.encode(out);
        }
        for (lane, number, code) in self.stops.drain(..) {
            Control::Stop { lane, number, code }.encode(out);
        }
        for lane in self.releases.drain(..) {
            Control::Release(lane).encode(out);
        }
    }
}

impl ControlOut {
    /// Where to say something of a lane of the other side.
    pub(super) fn lanes_out(&mut self, lane: Lane) -> &mut LanesOut {
        let carrier = self.carriers.get(usize::from(lane.class)).map_or(0, |carrier| usize::from(*carrier));
        // In range: carriers are.
        &mut self.lanes[carrier.min(limits::MAX_CARRIERS - 1)]
    }

    pub(super) fn encode(&mut self, carrier: u8) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let first = carrier == 0;
        if let Some(nonce) = self.pong.take_if(|_| first) {
            Control::Pong(nonce).encode(&mut out);
        }
        if let Some(nonce) = self.ping.take_if(|_| first) {
            Control::Ping(nonce).encode(&mut out);
        }
        if let Some(lanes) = self.lanes.get_mut(usize::from(carrier)) {
            lanes.encode(&mut out);
        }
        if first {
            for carrier in self.moved.drain(..) {
                Control::Moved(carrier).encode(&mut out);
            }
            if let Some(messages) = self.finished.take() {
                Control::Finished { messages }.encode(&mut out);
            }
            if std::mem::take(&mut self.drained) {
                Control::Drained.encode(&mut out);
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}
