//! What is known of the path, whatever the window is made of.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{DelayConfig, after, dispersion::Dispersion, roughness::Roughness, round::Round};

/// How long the least round trip counts: it's forgotten after one to two of these, so that a longer route is found out.
pub(super) const BASE_MEMORY: Duration = Duration::from_secs(10);
/// The same for the highest rate. Longer, so that a rival doesn't make us forget what the path can carry.
pub(super) const RATE_MEMORY: Duration = Duration::from_secs(15);
/// How long the bursts' agreement counts after its end.
const AGREED_MEMORY: Duration = Duration::from_secs(60);
/// Rounds over which the rate is averaged: a single round is off by one burst in twenty.
const AVERAGED: usize = 4;
/// Rounds among which the highest rate is taken for the window's step.
const BEST_OF: usize = 10;
/// Round trips of the last few packets, the least of which is the delay now.
const RECENT: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Path {
    dispersion: Option<Dispersion>,
    pub(super) roughness: Roughness,
    /// The least round trip. Seconds.
    pub(super) base: f64,
    pub(super) next_base: f64,
    base_at: Instant,
    recent: VecDeque<f64>,
    /// The last rounds that the window, not the application, limited.
    pub(super) rounds: VecDeque<Round>,
    pub(super) rates: VecDeque<f64>,
    /// Bytes per second acknowledged, over those rounds.
    pub(super) rate: f64,
    /// The share of bytes lost, over some thirty rounds.
    pub(super) loss: f64,
    /// The last rate on which bursts agreed, and when.
    agreed: Option<(f64, Instant)>,
    peak: f64,
    next_peak: f64,
    peak_at: Instant,
}

impl Path {
    pub(super) fn new(config: DelayConfig, now: Instant) -> Self {
        Self {
            dispersion: config.dispersion.then(Dispersion::default),
            roughness: Roughness::new(),
            base: f64::INFINITY,
            next_base: f64::INFINITY,
            base_at: now,
            recent: VecDeque::new(),
            rounds: VecDeque::new(),
            rates: VecDeque::new(),
            rate: 0.0,
            loss: 0.0,
            agreed: None,
            peak: 0.0,
            next_peak: 0.0,
            peak_at: now,
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent).as_secs_f64();
        self.base = self.base.min(rtt);
        self.next_base = self.next_base.min(rtt);
        if let Some(dispersion) = &mut self.dispersion {
            dispersion.on_ack(now, sent, bytes);
        }
        self.roughness.on_ack(rtt);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(rtt);
    }

    /// Forgets a base that is too old.
    pub(super) fn age_base(&mut self, round: &Round) {
        if after(round.end, self.base_at, BASE_MEMORY) {
            self.renew_base(round);
        }
    }

    /// From now on the base is the least since the last time.
    pub(super) fn renew_base(&mut self, round: &Round) {
        (self.base, self.next_base, self.base_at) = (self.next_base, round.rtt, round.end);
    }

    /// Takes in a round that the window limited.
    pub(super) fn on_round(&mut self, round: &Round, both_ways: bool) {
        self.loss += (round.loss() - self.loss) / 32.0;
        match self.dispersion() {
            Some(rate) => self.agreed = Some((rate, round.end)),
            None if self.agreed.is_some_and(|(_, at)| after(round.end, at, AGREED_MEMORY)) => self.agreed = None,
            None => {}
        }
        if self.rates.len() == BEST_OF {
            self.rates.pop_front();
        }
        self.rates.push_back(round.rate());
        if self.rounds.len() == AVERAGED {
            self.rounds.pop_front();
        }
        self.rounds.push_back(*round);
        let (acked, elapsed) = self.rounds.iter().fold((0.0, 0.0), |sum, r| (sum.0 + r.carried(), sum.1 + r.elapsed));
        self.rate = acked / elapsed;
        if after(round.end, self.peak_at, RATE_MEMORY) {
            (self.peak, self.next_peak, self.peak_at) = (self.next_peak, self.rate, round.end);
        }
        if self.believes_rate(both_ways) {
            self.peak = self.peak.max(self.rate);
            self.next_peak = self.next_peak.max(self.rate);
        }
    }

    /// The window has changed for a reason of its own: rounds before say nothing about those after.
    pub(super) fn forget_rounds(&mut self) {
        self.rounds.clear();
    }

    /// Enough rounds since then for an average.
    pub(super) fn averaged(&self) -> bool {
        self.rounds.len() == AVERAGED
    }

    /// Where both directions are loaded, a round or two after start-up may be above what the path carries, while both queues
    /// drain.
    pub(super) fn believes_rate(&self, both_ways: bool) -> bool {
        self.averaged() || !both_ways
    }

    /// The delay now, by the least of the last few packets. `None`: too few.
    pub(super) fn delay(&self) -> Option<f64> {
        (self.recent.len() == RECENT).then(|| self.recent.iter().copied().fold(f64::INFINITY, f64::min))
    }

    pub(super) fn dispersion(&self) -> Option<f64> {
        self.dispersion.as_ref().and_then(Dispersion::capacity)
    }

    /// The dispersion is believed to be the bottleneck's rate.
    pub(super) fn set_peak(&mut self, capacity: f64) {
        (self.peak, self.next_peak) = (capacity, capacity);
    }

    /// The bottleneck's rate, whoever uses it. Bytes per second.
    pub(super) fn capacity(&self) -> f64 {
        self.peak.max(self.dispersion().unwrap_or(0.0))
    }

    /// The same where a rival's bursts between ours may have ended the agreement among ours: the path is still as wide.
    pub(super) fn width(&self) -> f64 {
        self.agreed.map_or(0.0, |(rate, _)| rate).max(self.capacity())
    }

    /// The highest rate of the last rounds.
    pub(super) fn best_rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The standing queue to keep, in seconds: a fortieth of the round trip is enough to bridge the gaps between ACKs and costs
    /// no application that the path itself doesn't cost more; bounded where the fortieth would be less than a
    /// scheduler's noise, or more than people notice.
    pub(super) fn target(&self) -> f64 {
        (self.base / 40.0).clamp(0.0005, 0.02)
    }
}
