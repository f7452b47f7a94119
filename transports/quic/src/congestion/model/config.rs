//! What can be switched off, so that what it gives can be measured.

/// The mechanisms of [`CongestionControl::Delay`](crate::CongestionControl::Delay), each with a switch. All are on by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelayConfig {
    /// Start-up ends at the capacity that the dispersion of bursts shows, before a queue grows. Off: only when delay or
    /// rate shows that it's full.
    pub dispersion: bool,
    /// Delay that isn't our queue's, by jitter or by the other direction's load, is learnt by steps of the window. Off:
    /// all delay above the least is taken for queue.
    pub offset: bool,
    /// Where the other direction is loaded too, such delay is looked for in what would pass for smooth otherwise. Off: of two
    /// ends that flood each other one may stay below its part.
    pub both_ways: bool,
    /// Where both directions are loaded, the other side's clock tells our direction's queue from the other's. Off: it's guessed
    /// by steps of the window, as jitter is.
    pub one_way: bool,
    /// A rival that keeps the queue full is met with a window that losses drive. Off: it takes the path.
    pub company: bool,
    /// An empty path that bursts show to be wider than what is sent is taken quickly. Off: only as the delay law grows.
    pub catch_up: bool,
    /// A short dip of the window every ten seconds shows the empty path's round trip. Off: the base creeps up by the
    /// standing queue.
    pub dip: bool,
}

impl Default for DelayConfig {
    fn default() -> Self {
        Self { dispersion: true, offset: true, both_ways: true, one_way: true, company: true, catch_up: true, dip: true }
    }
}
