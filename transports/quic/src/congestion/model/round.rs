//! One round trip: what the rest of the model decides on.

use std::time::Instant;

/// A round trip that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Round {
    /// When its last ACK came.
    pub(super) end: Instant,
    /// How long it took. Seconds.
    pub(super) elapsed: f64,
    /// The least round-trip time in it. Seconds. Includes the receiver's ACK delay, which is least too.
    pub(super) rtt: f64,
    /// The least queue in it: what the round trip exceeds the path's by, or its part in our direction. Seconds.
    pub(super) queue: f64,
    /// The other side's clock told.
    pub(super) by_clock: bool,
    /// It saw no queue at any time.
    pub(super) empty: bool,
    pub(super) acked: u64,
    pub(super) lost: u64,
    /// What was in flight on average when ACKs came. Bytes.
    pub(super) in_flight: f64,
}

impl Round {
    /// Bytes per second acknowledged.
    pub(super) fn rate(&self) -> f64 {
        self.acked as f64 / self.elapsed
    }

    /// Bytes acknowledged, or fewer where the ACKs were compressed, as while the other direction's queue drains: no path
    /// carries more than what is in flight per round trip (Little 1961).
    pub(super) fn carried(&self) -> f64 {
        (self.acked as f64).min(self.in_flight * self.elapsed / self.rtt)
    }

    /// The share of bytes lost.
    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acked).max(1) as f64
    }
}

/// Collects the current round, which ends with the first ACK of a packet sent after it began.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    began: Instant,
    rtt: f64,
    acked: u64,
    lost: u64,
    in_flight: f64,
    batches: u32,
    batch: u64,
    over: bool,
}

impl Collector {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, rtt: f64::INFINITY, acked: 0, lost: 0, in_flight: 0.0, batches: 0, batch: 0, over: false }
    }

    pub(super) fn on_ack(&mut self, rtt: f64, sent: Instant, bytes: u64) {
        self.rtt = self.rtt.min(rtt);
        self.acked += bytes;
        self.batch += bytes;
        self.over |= sent >= self.began;
    }

    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// All packets of one ACK frame are counted: the round, if that was its last.
    pub(super) fn end(&mut self, now: Instant, in_flight: u64) -> Option<Round> {
        self.in_flight += (in_flight + std::mem::take(&mut self.batch)) as f64;
        self.batches += 1;
        let elapsed = now.saturating_duration_since(self.began).as_secs_f64();
        if !self.over || elapsed <= 0.0 {
            return None;
        }
        let in_flight = self.in_flight / f64::from(self.batches);
        let round = Round {
            end: now,
            elapsed,
            rtt: self.rtt,
            queue: 0.0,
            by_clock: false,
            empty: false,
            acked: self.acked,
            lost: self.lost,
            in_flight,
        };
        *self = Self::new(now);
        Some(round)
    }
}
