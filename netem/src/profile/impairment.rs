//! What one direction does to a packet, and the arithmetic of its queue.

use std::time::Duration;

/// The bytes of a full packet as the queue's arithmetic counts them: an Ethernet MTU.
pub const MTU: u64 = 1500;
/// The bytes of a full packet as netem's rate counts them: with the Ethernet header.
pub const FRAME: u64 = 1514;
/// Room in the stage that delays, where packets must never be dropped: it holds what's on the way, and this many more.
const SPARE: u32 = 1000;

/// How delays scatter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distribution {
    /// From delay - jitter to delay + jitter.
    Uniform,
    /// Jitter is the standard deviation; cut off at four of them.
    Normal,
    /// Pareto, with jitter as the standard deviation.
    Pareto,
    /// A quarter normal, three quarters Pareto.
    ParetoNormal,
}

/// Whether packets may overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JitterOrder {
    /// Never. netem keeps the order wherever it has a rate.
    Kept,
    /// By their delays. The delay is then a stage of its own, behind the rate.
    Mixed,
}

/// A scatter of the delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// How far, by the distribution's own measure.
    pub spread: Duration,
    /// The shape.
    pub distribution: Distribution,
    /// If the delay wanders instead of being drawn for each packet: after how long it has forgotten where it was (to
    /// 1/e). The lab moves it every few milliseconds, because netem's own correlation does nothing: its random numbers
    /// are taken modulo the spread, and what they had in common is gone.
    pub correlation_time: Option<Duration>,
    /// Whether packets may overtake each other.
    pub order: JitterOrder,
}

/// How packets are lost, drawn before the rate: a lost packet takes no time on the link.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// None.
    None,
    /// Each packet for itself, with this share.
    Random(f64),
    /// In bursts (Gilbert-Elliott): netem's `gemodel`, shares from 0 to 1 per packet.
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

impl Loss {
    /// The share lost in the long run.
    pub fn mean(&self) -> f64 {
        match *self {
            Self::None => 0.0,
            Self::Random(share) => share,
            Self::Bursts { enter, leave, bad, good } => {
                let in_bad = enter / (enter + leave);
                in_bad * bad + (1.0 - in_bad) * good
            }
        }
    }
}

/// One direction of a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Impairment {
    /// One way.
    pub delay: Duration,
    /// Its scatter.
    pub jitter: Option<Jitter>,
    /// Losses, not counting those of the full queue.
    pub loss: Loss,
    /// The share that goes at once, past delay and rate. Keep it small.
    pub reorder: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share with one wrong bit.
    pub corrupt: f64,
    /// Of the bottleneck, in bit/s, Ethernet headers included.
    pub rate: u64,
    /// Packets that wait at the bottleneck before one is dropped, beside those on the way.
    pub queue: u32,
    /// netem's own limit, where the file sets it.
    pub(super) limit: Option<u32>,
}

impl Impairment {
    /// The jitter, if the lab itself moves the delay.
    pub fn wander(&self) -> Option<(Duration, Duration)> {
        self.jitter.and_then(|jitter| Some((jitter.spread, jitter.correlation_time?)))
    }

    /// Whether the delay needs a stage of its own behind the rate, because its packets may overtake each other.
    pub fn has_delay_stage(&self) -> bool {
        self.jitter.is_some_and(|jitter| jitter.order == JitterOrder::Mixed)
    }

    /// Packets that the rate puts on the way within the delay.
    pub fn on_the_way(&self) -> u32 {
        packets(self.rate, self.delay)
    }

    /// netem's `limit` of the stage with the rate. netem counts delayed packets against it, so they're added to the queue.
    pub fn limit(&self) -> u32 {
        let held = if self.has_delay_stage() { 0 } else { self.on_the_way() };
        self.limit.unwrap_or(held.saturating_add(self.queue))
    }

    /// netem's `limit` of the stage that only delays: never reached.
    pub fn delay_stage_limit(&self) -> u32 {
        let spread = self.jitter.map_or(Duration::ZERO, |jitter| jitter.spread * 4);
        // Packets that skip the rate add to it: twice is ample.
        packets(self.rate, self.delay + spread).saturating_mul(2).saturating_add(SPARE)
    }

    /// How long a frame of so many bytes is on the link.
    pub fn transmission(&self, frame: u64) -> Duration {
        Duration::from_nanos(frame.saturating_mul(8_000_000_000) / self.rate.max(1))
    }
}

/// Full packets that a rate puts out in a time, rounded up.
pub(super) fn packets(rate: u64, time: Duration) -> u32 {
    let bits = u128::from(rate) * time.as_nanos();
    u32::try_from(bits.div_ceil(u128::from(MTU) * 8 * 1_000_000_000)).unwrap_or(u32::MAX)
}
