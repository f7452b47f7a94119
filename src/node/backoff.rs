//! Delays between attempts: doubled each time, jittered so that peers that lost each other together don't return together.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Growing, jittered delays. The same seed gives the same delays.
#[derive(Debug)]
pub(super) struct Backoff {
    rng: StdRng,
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(seed: u64, min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { rng: StdRng::seed_from_u64(seed), min, max: max.max(min), next: min }
    }

    /// The next delay: between half and one and a half times the nominal one.
    pub(super) fn delay(&mut self) -> Duration {
        let nominal = self.next;
        self.next = nominal.saturating_mul(2).min(self.max);
        self.jitter(nominal)
    }

    /// A given delay, jittered in the same way.
    pub(super) fn jitter(&mut self, nominal: Duration) -> Duration {
        nominal.mul_f64(self.rng.random_range(0.5..1.5))
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_largest_stay_within_the_jitter_and_repeat_with_the_seed() {
        let (min, max) = (Duration::from_millis(250), Duration::from_secs(60));
        let mut backoff = Backoff::new(7, min, max);
        let delays: Vec<_> = (0..12).map(|_| backoff.delay()).collect();
        let mut nominal = min;
        for delay in &delays {
            assert!(*delay >= nominal / 2 && *delay < nominal * 3 / 2, "{delay:?} around {nominal:?}");
            nominal = (nominal * 2).min(max);
        }
        let mut again = Backoff::new(7, min, max);
        assert_eq!(delays, (0..12).map(|_| again.delay()).collect::<Vec<_>>());
        backoff.reset();
        assert!(backoff.delay() < min * 3 / 2);
    }
}
