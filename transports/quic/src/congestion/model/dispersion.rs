//! The bottleneck's rate, from how far apart the packets of one burst arrive.
//!
//! quinn's pacer sends bursts of about ten packets. They reach the bottleneck together and leave it one by one, at its
//! rate, and so do their ACKs. A FIFO keeps a burst together, so a rival's packets before it change nothing
//! (Dovrolis, Ramanathan, Moore: Packet-dispersion techniques and a capacity-estimation methodology, 2004). Most bursts
//! are shorter, two to four packets that an ACK or two let go: they tell too, as far as they have ACKs of their own.

use std::{collections::VecDeque, time::Instant};

/// Samples kept: about as many bursts as a wide-area path has in flight, and odd for the median's sake.
const SAMPLES: usize = 61;
/// Samples before anything is said: less than a round trip's bursts once slow start matters. With half as many, short bursts of a
/// path that reorders have agreed by chance.
const ENOUGH: usize = 16;
/// Bytes behind a burst's first ACK for a sample: two packets, which is what an ACK-clocked burst of four always has.
const SPAN: u64 = 2 * 1200;
/// Jitter spoils the method: the third quartile may be this many times the first.
const AGREEMENT: f64 = 1.5;

/// The packets of one burst, as far as ACKs told of them.
#[derive(Debug, Clone)]
struct Burst {
    sent: Instant,
    first: Instant,
    last: Instant,
    /// Bytes that arrived between the two.
    behind: u64,
    /// Bytes of ACKs of one packet since then.
    lone: u64,
}

/// What one ACK acknowledges.
#[derive(Debug, Clone)]
struct Batch {
    at: Instant,
    /// When the newest packet in it was sent: the one whose arrival made the receiver answer.
    sent: Instant,
    packets: u32,
    bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dispersion {
    batch: Option<Batch>,
    burst: Option<Burst>,
    samples: VecDeque<f64>,
    capacity: Option<f64>,
}

impl Dispersion {
    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        match &mut self.batch {
            Some(batch) if batch.at == now => {
                batch.sent = sent;
                batch.packets += 1;
                batch.bytes += bytes;
            }
            batch => {
                if let Some(complete) = batch.replace(Batch { at: now, sent, packets: 1, bytes }) {
                    self.on_batch(&complete);
                }
            }
        }
    }

    /// An ACK leaves the receiver when its newest packet arrives. So the end of a burst tells nothing where it's acknowledged
    /// with the next burst's begin, nor alone, when it may have waited for the receiver's timer.
    fn on_batch(&mut self, batch: &Batch) {
        match &mut self.burst {
            Some(burst) if burst.sent == batch.sent => {
                burst.lone += batch.bytes;
                if batch.packets > 1 {
                    burst.behind += std::mem::take(&mut burst.lone);
                    burst.last = batch.at;
                }
            }
            burst => {
                let next = Burst { sent: batch.sent, first: batch.at, last: batch.at, behind: 0, lone: 0 };
                if let Some(complete) = burst.replace(next) {
                    self.sample(&complete);
                }
            }
        }
    }

    fn sample(&mut self, burst: &Burst) {
        let span = burst.last.saturating_duration_since(burst.first).as_secs_f64();
        if burst.behind >= SPAN && span > 0.0 {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(burst.behind as f64 / span);
            self.capacity = self.middle();
        }
    }

    /// Bytes per second, if the bursts agree.
    pub(super) fn capacity(&self) -> Option<f64> {
        self.capacity
    }

    fn middle(&self) -> Option<f64> {
        if self.samples.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<f64> = self.samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |numerator: usize| sorted.get(sorted.len() * numerator / 4).copied();
        let (low, middle, high) = (at(1)?, at(2)?, at(3)?);
        (high < low * AGREEMENT).then_some(middle)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    /// Bursts of ten packets, acknowledged by twos, `gap` apart.
    fn bursts(gaps: impl IntoIterator<Item = Duration>) -> Dispersion {
        let mut dispersion = Dispersion::default();
        let mut now = Instant::now();
        for gap in gaps {
            let sent = now;
            now += Duration::from_millis(50);
            for _ in 0..5 {
                now += gap;
                dispersion.on_ack(now, sent, 1250);
                dispersion.on_ack(now, sent, 1250);
            }
        }
        dispersion
    }

    #[test]
    fn the_end_of_a_burst_that_is_acknowledged_with_the_next_tells_nothing() {
        let mut dispersion = Dispersion::default();
        let packet = Duration::from_micros(250);
        let mut arrival = Instant::now() + Duration::from_millis(50);
        let mut unacknowledged = Vec::new();
        // Bursts of five; another flow's packets between them; every second packet is acknowledged, whosever burst it's of.
        for burst in 0..40u32 {
            let sent = arrival.checked_sub(Duration::from_millis(50)).unwrap();
            arrival += packet * (burst * 7 % 13);
            for _ in 0..5 {
                arrival += packet;
                unacknowledged.push(sent);
                if unacknowledged.len() == 2 {
                    unacknowledged.drain(..).for_each(|sent| dispersion.on_ack(arrival, sent, 1250));
                }
            }
        }
        assert!((dispersion.capacity().unwrap() - 5e6).abs() < 1e4);
    }

    #[test]
    fn the_rate_is_that_of_the_bursts_and_nothing_is_said_where_they_disagree() {
        let even = bursts([Duration::from_micros(500); 20]);
        assert!((even.capacity().unwrap() - 5e6).abs() < 1e4);
        assert_eq!(bursts([Duration::from_micros(500); 5]).capacity(), None, "too few");
        let uneven = bursts((0..40).map(|i| Duration::from_micros(if i % 2 == 0 { 300 } else { 900 })));
        assert_eq!(uneven.capacity(), None);
    }
}
