//! The bottleneck's rate, from how far apart the packets of one burst arrive.
//!
//! quinn's pacer sends bursts of about ten packets. They reach the bottleneck together and leave it one by one, at its
//! rate, and so do their ACKs. A FIFO keeps a burst together, so a rival's packets before it change nothing
//! (Dovrolis, Ramanathan, Moore: Packet-dispersion techniques and a capacity-estimation methodology, 2004).

use std::{collections::VecDeque, time::Instant};

/// Samples kept: about as many bursts as a wide-area path has in flight, and odd for the median's sake.
const SAMPLES: usize = 61;
/// Samples before anything is said: less than a round trip's bursts once slow start matters.
const ENOUGH: usize = 8;
/// Bytes behind a burst's first batch for a sample: four full packets, two ACKs of a receiver that acknowledges every second.
const SPAN: u64 = 4 * 1200;
/// Jitter spoils the method: the third quartile may be this many times the first.
const AGREEMENT: f64 = 1.5;

#[derive(Debug, Clone)]
struct Burst {
    sent: Instant,
    first: Instant,
    last: Instant,
    /// Bytes acknowledged after the first batch.
    behind: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dispersion {
    burst: Option<Burst>,
    samples: VecDeque<f64>,
    capacity: Option<f64>,
}

impl Dispersion {
    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        match &mut self.burst {
            Some(burst) if burst.sent == sent => {
                if now > burst.first {
                    burst.behind += bytes;
                    burst.last = now;
                }
            }
            _ => {
                self.close();
                self.burst = Some(Burst { sent, first: now, last: now, behind: 0 });
            }
        }
    }

    fn close(&mut self) {
        let Some(burst) = self.burst.take() else { return };
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
    fn the_rate_is_that_of_the_bursts_and_nothing_is_said_where_they_disagree() {
        let even = bursts([Duration::from_micros(500); 20]);
        assert!((even.capacity().unwrap() - 5e6).abs() < 1e4);
        assert_eq!(bursts([Duration::from_micros(500); 5]).capacity(), None, "too few");
        let uneven = bursts((0..40).map(|i| Duration::from_micros(if i % 2 == 0 { 300 } else { 900 })));
        assert_eq!(uneven.capacity(), None);
    }
}
