//! When queries are due: drawn beforehand, so that nothing that happens moves them. No clock.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Times from the start of the load, ascending, of a Poisson process of `rate` per second, before `end`.
pub(crate) fn poisson(rate: f64, end: Duration, seed: u64) -> Vec<Duration> {
    let (mut random, end) = (StdRng::seed_from_u64(seed), end.as_secs_f64());
    let mut times = Vec::new();
    let mut at = 0.0;
    if rate > 0.0 {
        loop {
            // 1 - u is above 0, so the logarithm is finite.
            at -= (1.0 - random.random::<f64>()).ln() / rate;
            if at >= end {
                break;
            }
            times.push(Duration::from_secs_f64(at));
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_its_seeds_and_has_its_rate_and_spread() {
        let minute = Duration::from_secs(100);
        let times = poisson(100.0, minute, 5);
        assert_eq!(times, poisson(100.0, minute, 5));
        assert_ne!(times, poisson(100.0, minute, 6));
        assert!(times.is_sorted() && times.iter().all(|at| *at < minute));
        // 10,000 on average, standard deviation 100.
        assert!((9_500..10_500).contains(&times.len()), "{}", times.len());
        // Gaps of a Poisson process: a share of e^-2 is longer than twice the mean.
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_millis(20)).count() as f64;
        assert!((0.11..0.16).contains(&(long / times.len() as f64)), "{long}");
        assert!(poisson(0.0, minute, 5).is_empty());
    }
}
