//! Numbers from arrivals: pure arithmetic.

use std::collections::HashSet;
use std::time::Duration;

use super::flow::Flow;
use super::probe::Arrival;

/// What the judge looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) sent: u64,
    /// Different packets that arrived.
    pub(super) arrived: u64,
    /// Further copies of those.
    pub(super) twice: u64,
    /// Packets that came after a later one.
    pub(super) late: u64,
    /// How many runs of missing packets there are.
    pub(super) runs: u64,
    /// One-way delays, sorted.
    delays: Vec<u64>,
    /// Times of arrival, sorted.
    arrivals: Vec<u64>,
    /// Delays in order of arrival.
    history: Vec<u64>,
}

impl Summary {
    pub(super) fn of(flow: &Flow) -> Self {
        let mut seen = HashSet::with_capacity(flow.arrivals.len());
        let (mut twice, mut late, mut highest) = (0, 0, None);
        let mut history = Vec::with_capacity(flow.arrivals.len());
        for Arrival { number, sent, received } in &flow.arrivals {
            if !seen.insert(*number) {
                twice += 1;
                continue;
            }
            late += u64::from(highest.is_some_and(|highest| number < highest));
            highest = highest.max(Some(number));
            history.push(received.saturating_sub(*sent));
        }
        let missing = |number: &u64| !seen.contains(number);
        let runs = (0..flow.sent).filter(|number| missing(number) && (*number == 0 || !missing(&(number - 1)))).count();
        let mut delays = history.clone();
        delays.sort_unstable();
        let mut arrivals: Vec<_> = flow.arrivals.iter().map(|arrival| arrival.received).collect();
        arrivals.sort_unstable();
        Self { sent: flow.sent, arrived: seen.len() as u64, twice, late, runs: runs as u64, delays, arrivals, history }
    }

    pub(super) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.arrived)
    }

    /// The one-way delay that a share of the packets doesn't exceed.
    pub(super) fn delay(&self, share: f64) -> Duration {
        quantile(&self.delays, share)
    }

    /// How much a delay resembles the one before, -1 to 1.
    pub(super) fn resemblance(&self) -> f64 {
        let delays: Vec<_> = self.history.iter().map(|&delay| delay as f64).collect();
        let mean = delays.iter().sum::<f64>() / delays.len().max(1) as f64;
        let variance: f64 = delays.iter().map(|delay| (delay - mean).powi(2)).sum();
        let both: f64 = delays.windows(2).map(|pair| pair.iter().map(|delay| delay - mean).product::<f64>()).sum();
        if variance > 0.0 { both / variance } else { 0.0 }
    }

    /// The median delay of the last quarter.
    pub(super) fn late_delay(&self) -> Duration {
        let mut last = self.history.get(self.history.len() * 3 / 4..).unwrap_or_default().to_vec();
        last.sort_unstable();
        quantile(&last, 0.5)
    }

    /// Packets a second over the later half.
    pub(super) fn pace(&self) -> f64 {
        let half = self.arrivals.get(self.arrivals.len() / 2..).unwrap_or_default();
        match half {
            [first, .., last] if last > first => (half.len() - 1) as f64 * 1e9 / (last - first) as f64,
            _ => 0.0,
        }
    }
}

pub(super) fn quantile(sorted: &[u64], share: f64) -> Duration {
    let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    Duration::from_nanos(sorted.get(index).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(sent: u64, arrivals: &[(u64, u64)]) -> Flow {
        let arrivals = arrivals.iter().map(|&(number, received)| Arrival { number, sent: number * 10, received }).collect();
        Flow { sent, arrivals, ..Flow::default() }
    }

    #[test]
    fn losses_copies_and_overtaking_are_counted_apart() {
        let summary = Summary::of(&flow(8, &[(0, 100), (3, 130), (2, 135), (3, 140), (5, 150)]));
        assert_eq!((summary.arrived, summary.lost(), summary.twice, summary.late), (4, 4, 1, 1));
        assert_eq!(summary.runs, 3, "1, 4, and 6 with 7");
    }

    #[test]
    fn delays_and_pace_are_of_what_arrived() {
        let summary = Summary::of(&flow(4, &[(0, 100), (1, 120), (2, 140), (3, 160)]));
        assert_eq!(summary.delay(0.0), Duration::from_nanos(100));
        assert_eq!(summary.delay(1.0), Duration::from_nanos(130));
        assert_eq!(summary.pace(), 5e7);
        assert_eq!(Summary::of(&flow(1, &[])).pace(), 0.0);
        assert_eq!(Summary::of(&flow(1, &[])).delay(0.5), Duration::ZERO);
    }
}
