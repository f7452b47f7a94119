//! What can be switched off, so that what it gives can be measured.

/// The mechanisms of [`Congestion::Delay`](crate::CongestionControl::Delay). All are on by default.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DelayConfig {
    /// Start-up ends at the capacity that the bursts' dispersion shows, before a queue grows.
    pub dispersion: bool,
    /// Delay that isn't our queue's, by jitter or by the other direction's load, is learnt from its costing rate.
    pub offset: bool,
    /// A rival that keeps the queue full is met with a loss-driven window.
    pub company: bool,
    /// A short dip of the window now and then shows the empty path's round trip again.
    pub dip: bool,
    /// The standing queue's share of the round trip: one part in so many.
    pub target: f64,
    /// Share.
    pub floor: f64,
}

impl Default for DelayConfig {
    fn default() -> Self {
        Self { dispersion: true, offset: true, company: true, dip: true, target: 40.0, floor: 0.42 }
    }
}
