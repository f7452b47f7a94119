//! Tells jitter from a queue: a queue's delay changes steadily from packet to packet, jitter's doesn't.
//!
//! The measure is half the second difference of the least round trips of successive blocks of ACKs: nothing for a queue
//! that grows or drains at a constant rate, about the jitter's size for jitter. Simulated at 50 Mbit/s: 0.05 to 0.3 ms with queues of
//! any kind, 0.5 ms with a correlated jitter of 0.7 ms, 1.8 to 2.8 ms with 5 ms of it.

/// ACKs in a block: the least of them hides the receiver's acknowledging every second packet, and a burst's shape.
const BLOCK: u32 = 8;
/// Blocks that the average reaches back: half a second of full packets at 50 Mbit/s.
const MEMORY: u32 = 256;
/// Blocks before the average says anything: what slow start has acknowledged when it sends eighty packets a round.
const KNOWN: u32 = 16;

#[derive(Debug, Clone)]
pub(super) struct Roughness {
    acks: u32,
    least: f64,
    older: Option<f64>,
    old: Option<f64>,
    blocks: u32,
    average: f64,
}

impl Roughness {
    pub(super) fn new() -> Self {
        Self { acks: 0, least: f64::INFINITY, older: None, old: None, blocks: 0, average: 0.0 }
    }

    pub(super) fn on_ack(&mut self, rtt: f64) {
        self.acks += 1;
        self.least = self.least.min(rtt);
        if self.acks < BLOCK {
            return;
        }
        let latest = std::mem::replace(&mut self.least, f64::INFINITY);
        self.acks = 0;
        if let (Some(older), Some(old)) = (self.older, self.old) {
            let rough = (latest - 2.0 * old + older).abs() / 2.0;
            self.blocks = (self.blocks + 1).min(MEMORY);
            self.average += (rough - self.average) / f64::from(self.blocks);
        }
        (self.older, self.old) = (self.old, Some(latest));
    }

    /// Seconds.
    pub(super) fn get(&self) -> f64 {
        self.average
    }

    /// Whether enough was seen to tell jitter from none.
    pub(super) fn known(&self) -> bool {
        self.blocks >= KNOWN
    }

    /// Whether enough was seen to believe a small value.
    pub(super) fn settled(&self) -> bool {
        self.blocks == MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_queue_is_smooth_and_scattered_delay_is_rough() {
        let (mut queue, mut jitter) = (Roughness::new(), Roughness::new());
        for i in 0..4096u32 {
            queue.on_ack(0.05 + f64::from(i) * 1e-5);
            // Blocks of 50 and of 60 ms in turn.
            jitter.on_ack(if i / 8 % 2 == 0 { 0.05 } else { 0.06 });
        }
        assert!(queue.get() < 1e-6, "{}", queue.get());
        assert!((jitter.get() - 0.01).abs() < 1e-6, "{}", jitter.get());
        assert!(queue.settled());
    }
}
