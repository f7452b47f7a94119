//! The median of pairs, and how sure it is.

use std::time::Duration;

/// A median with an interval that holds the true one with a probability of 95% at least.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// The median of the samples.
    pub median: f64,
    /// Its upper end.
    pub high: f64,
}

/// Median and interval by order statistics: no distribution is assumed, only that samples are independent. The number of
/// samples below the true median is binomial with 1/2; the ends are the samples of the ranks that it passes with 2.5%
/// at most. Below six samples that's beyond the outermost, and the ends are those. `None` without samples.
pub fn median_interval(samples: &[f64]) -> Option<Interval> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = (sorted.get((count - 1) / 2)? + sorted.get(count / 2)?) / 2.0;
    let (mut term, mut below, mut rank) = (0.5f64.powi(i32::try_from(count).ok()?), 0.0, 0);
    while below + term <= 0.025 {
        below += term;
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let low = rank.checked_sub(1).and_then(|rank| sorted.get(rank)).copied().unwrap_or(first);
    let high = sorted.get(count - rank.max(1)).copied().unwrap_or(last);
    Some(Interval { low, median: middle, high })
}

/// Processor time of all threads of this process, where the system tells it thread by thread (Linux).
pub fn cpu_time() -> Option<Duration> {
    let mut sum = 0u64;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // A thread may end meanwhile.
        let Ok(line) = std::fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        sum += line.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // n, rank of the lower end (1-based) at 95%: tables of the sign test.
        for (n, rank) in [(6, 1), (9, 2), (12, 3), (15, 4), (20, 6), (30, 10)] {
            let samples: Vec<f64> = (1..=n).rev().map(f64::from).collect();
            let interval = median_interval(&samples).unwrap();
            assert_eq!((interval.low, interval.high), (f64::from(rank), f64::from(n + 1 - rank)), "{n}");
            assert_eq!(interval.median, f64::from(n + 1) / 2.0);
        }
        assert_eq!(median_interval(&[3.0, 1.0]), Some(Interval { low: 1.0, median: 2.0, high: 3.0 }));
        assert_eq!(median_interval(&[]), None);
    }
}
