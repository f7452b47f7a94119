//! Clocks: how long our packets are under way, as far as that changes, by the other side's clock.
//!
//! A round trip that has become longer doesn't say which direction's queue did it. Where both are loaded the controller needs
//! to know, so a datagram with our clock is sent now and then, and the other side answers with the difference of its own.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::Connection;
use tokio::time::Instant;

use crate::congestion::Published;

/// First byte of a datagram with the sender's clock, four bytes: microseconds modulo 2^32.
pub(crate) const ASK: u8 = 3 << 4;
/// First byte of the answer: the answerer's clock when it came, less that one, four bytes.
pub(crate) const ANSWER: u8 = 4 << 4;
/// Between two questions at least.
const INTERVAL: Duration = Duration::from_millis(4);
/// Both directions are loaded: so many bytes came since the last question, and neither carries more than so many times the other. A
/// quiet end that answers queries would ask else.
const LOADED: u64 = 8 * 1200;
const UNEVEN: u64 = 4;
/// Paths shorter than this aren't asked about: the ends' own delays are as large as the queues.
const SHORT: Duration = Duration::from_millis(2);

/// Asks and answers for one connection.
pub(crate) struct Clocks {
    connection: Connection,
    path: Arc<Published>,
    start: Instant,
}

/// What had been received and sent at the last question.
pub(crate) struct Asked {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Asked {
    pub(crate) fn new() -> Self {
        Self { at: Instant::now(), received: 0, sent: 0 }
    }
}

impl Clocks {
    pub(crate) fn new(connection: Connection, path: Arc<Published>) -> Self {
        Self { connection, path, start: Instant::now() }
    }

    fn now(&self) -> u32 {
        // Modulo 2^32 on purpose.
        self.start.elapsed().as_micros() as u32
    }

    /// Tells the controller what has come, and asks if both directions are loaded.
    pub(crate) fn poll(&self, asked: &mut Asked) {
        if asked.at.elapsed() < INTERVAL {
            return;
        }
        asked.at = Instant::now();
        let stats = self.connection.stats();
        let (received, sent) = (stats.udp_rx.bytes, stats.udp_tx.bytes);
        self.path.heard().set_received(received);
        let came = received - asked.received;
        if came < LOADED {
            return;
        }
        let left = sent - asked.sent;
        let loaded = came > left / UNEVEN && left > came / UNEVEN && self.path.in_flight() * 2 > self.path.window();
        (asked.received, asked.sent) = (received, sent);
        if loaded && self.path.rtt().is_some_and(|rtt| rtt >= SHORT) {
            self.send(ASK, self.now());
        }
    }

    /// Whether the datagram was one of ours.
    pub(crate) fn take(&self, datagram: &[u8]) -> bool {
        match decode(datagram) {
            Some((ASK, clock)) => self.send(ANSWER, self.now().wrapping_sub(clock)),
            Some((ANSWER, difference)) => self.path.heard().set_one_way(difference),
            _ => return false,
        }
        true
    }

    /// Never instead of what waits in quinn.
    fn send(&self, kind: u8, clock: u32) {
        let datagram = encode(kind, clock);
        if self.connection.datagram_send_buffer_space() >= datagram.len() {
            let _ = self.connection.send_datagram(datagram);
        }
    }
}

fn decode(mut datagram: &[u8]) -> Option<(u8, u32)> {
    (datagram.len() == 1 + size_of::<u32>()).then(|| (datagram.get_u8(), datagram.get_u32()))
}

fn encode(kind: u8, clock: u32) -> Bytes {
    let mut datagram = BytesMut::with_capacity(1 + size_of::<u32>());
    datagram.put_u8(kind);
    datagram.put_u32(clock);
    datagram.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_five_bytes_and_nothing_else_is_one() {
        let question = encode(ASK, 0x0102_0304);
        assert_eq!(question, [0x30, 1, 2, 3, 4].as_slice());
        assert_eq!(decode(&question), Some((ASK, 0x0102_0304)));
        for bad in [&[][..], &[ASK], &[ASK, 1, 2, 3], &[ASK, 1, 2, 3, 4, 5]] {
            assert_eq!(decode(bad), None);
        }
    }
}
