//! How late packets were written, and when that's too late.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The 99th percentile that a run may have.
const BOUND: Duration = Duration::from_millis(1);
/// What's outrageous, and the share of packets that may be.
const OUTRAGEOUS: Duration = Duration::from_millis(5);
const OUTRAGES: f64 = 0.001;

/// Counts how late each packet is.
#[derive(Debug)]
pub struct Watch {
    nanos: Histogram<u64>,
    outrageous: u64,
}

impl Watch {
    /// Nothing counted yet; `None` never happens (the histogram's bounds are sound).
    pub fn new() -> Option<Self> {
        // 1 us to a minute, three digits: 200 KiB.
        Some(Self { nanos: Histogram::new_with_bounds(1_000, 60_000_000_000, 3).ok()?, outrageous: 0 })
    }

    /// A packet was so late.
    pub fn record(&mut self, late: Duration) {
        self.nanos.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        self.outrageous += u64::from(late > OUTRAGEOUS);
    }

    /// All so far.
    pub fn lateness(&self) -> Lateness {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Lateness {
            packets: self.nanos.len(),
            p50_us: micros(self.nanos.value_at_quantile(0.5)),
            p99_us: micros(self.nanos.value_at_quantile(0.99)),
            max_us: micros(self.nanos.max()),
            above_5ms: self.outrageous,
            ..Lateness::default()
        }
    }
}

/// How late packets were written: after they were due, and with what they may have lain unread before while the emulator
/// was busy. Not in it: how long the system took to wake a sleeping emulator for an arrival; it takes as long for a
/// packet that's due, which is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lateness {
    /// Packets written.
    pub packets: u64,
    /// Half of them were less late, in microseconds.
    pub p50_us: f64,
    /// 99% were less late.
    pub p99_us: f64,
    /// The latest.
    pub max_us: f64,
    /// Packets more than 5 ms late.
    pub above_5ms: u64,
    /// Packets that the receiving host's kernel didn't take: a corrupted header, as a rule.
    pub refused: u64,
    /// Packets for nobody's address.
    pub stray: u64,
    /// Packets above the MTU: there must be none.
    pub oversized: u64,
    /// Packets that a host's device dropped because the emulator didn't read: there must be none.
    pub unread: u64,
    /// Whether the emulator had real-time priority.
    pub realtime: bool,
}

impl Lateness {
    /// Why a run with it proves nothing, if it was late: a 99th percentile above 1 ms, more than 0.1% above 5 ms, or
    /// packets that were dropped unread or weren't cut to the MTU.
    pub fn rejection(&self) -> Option<String> {
        if self.p99_us > BOUND.as_secs_f64() * 1e6 {
            return Some(format!("1% of packets were more than {:.1} ms late, 1 ms is permitted", self.p99_us / 1e3));
        }
        if self.above_5ms as f64 > self.packets as f64 * OUTRAGES {
            let share = self.above_5ms as f64 * 100.0 / self.packets.max(1) as f64;
            return Some(format!("{share:.2}% of packets were more than 5 ms late, 0.1% is permitted"));
        }
        if self.unread > 0 {
            return Some(format!("{} packets were dropped before the emulator read them", self.unread));
        }
        (self.oversized > 0).then(|| format!("{} packets were larger than the MTU", self.oversized))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rejection(late: &[(u64, u64)]) -> Option<String> {
        let mut watch = Watch::new().unwrap();
        for &(count, micros) in late {
            (0..count).for_each(|_| watch.record(Duration::from_micros(micros)));
        }
        watch.lateness().rejection()
    }

    #[test]
    fn both_sides_of_each_bound() {
        assert_eq!(rejection(&[]), None);
        assert_eq!(rejection(&[(990, 20), (10, 4_900)]), None, "the 99th percentile is the 990th");
        assert!(rejection(&[(980, 20), (20, 1_100)]).unwrap().contains("1 ms"));
        assert_eq!(rejection(&[(9_990, 20), (10, 6_000)]), None);
        assert!(rejection(&[(9_989, 20), (11, 6_000)]).unwrap().contains("5 ms"));
    }

    #[test]
    fn what_was_not_emulated_is_rejected() {
        assert!(Lateness { unread: 1, ..Lateness::default() }.rejection().is_some());
        assert!(Lateness { oversized: 1, ..Lateness::default() }.rejection().is_some());
    }
}
