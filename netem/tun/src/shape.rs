//! What a link does to packets, in numbers.

use std::time::Duration;

use crate::Distribution;

/// A scatter of the delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// How far, by the distribution's own measure.
    pub spread: Duration,
    /// The shape.
    pub distribution: Distribution,
}

/// How packets are lost, drawn before anything else: a lost packet takes no time on the link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each packet for itself, with this share, 0 to 1.
    Random(f64),
    /// In bursts (Gilbert-Elliott), netem's `gemodel`: shares from 0 to 1 per packet. The state that a packet finds
    /// decides on its loss; then it may change.
    Bursts {
        /// From good to bad (p).
        enter: f64,
        /// From bad to good (r).
        leave: f64,
        /// Lost while bad (1-h).
        bad: f64,
        /// Lost while good (1-k).
        good: f64,
    },
}

/// What a link does to packets: one netem qdisc's arguments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// One way.
    pub delay: Duration,
    /// Its scatter. With a rate the order is kept whatever the scatter, without one packets overtake each other.
    pub jitter: Option<Jitter>,
    /// Losses, not counting those of the full queue.
    pub loss: Loss,
    /// The share that goes at once, past delay and rate.
    pub reorder: f64,
    /// The share that arrives twice. Copies are lost and corrupted like others.
    pub duplicate: f64,
    /// The share with one wrong bit.
    pub corrupt: f64,
    /// In bit/s, frame headers included; `None`: no limit.
    pub rate: Option<u64>,
    /// Packets inside, waiting or on the way, above which one is dropped.
    pub limit: u32,
}

impl Default for Shape {
    /// Nothing at all: a wire.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: None,
            loss: Loss::Random(0.0),
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            rate: None,
            limit: 1000,
        }
    }
}

impl Shape {
    /// How long a frame of so many bytes is on the link.
    pub(crate) fn transmission(&self, bytes: usize) -> Duration {
        let nanos = |rate: u64| (bytes as u64).saturating_mul(8_000_000_000) / rate.max(1);
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_nanos(nanos(rate)))
    }
}
