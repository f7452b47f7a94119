//! What one case gave.

use std::time::Duration;

use hdrhistogram::Histogram;
use peerlane_transport::{ClassId, ClassStats, ClassTable, Connection, PathStats};

use super::error::LabError;

/// The longest time that a histogram tells apart, in nanoseconds: ten minutes. Longer ones count as that.
const LONGEST: u64 = 600_000_000_000;
/// Significant digits of a time in a histogram.
const DIGITS: u8 = 3;

/// Times to three digits, up to ten minutes. About 230 KiB.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Result<Self, LabError> {
        Histogram::new_with_bounds(1, LONGEST, DIGITS).map(Self).map_err(|error| std::io::Error::other(error).into())
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST));
    }

    /// Takes another's in as well.
    pub fn pool(&mut self, other: &Self) {
        // Both have the same bounds, so nothing of the other is out of range.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a share of all, 0 to 1, doesn't exceed, in microseconds; `None` if there are no times.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| micros(self.0.value_at_quantile(share) as f64))
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| micros(self.0.max() as f64))
    }

    /// The mean, in microseconds.
    pub fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| micros(self.0.mean()))
    }
}

/// Microseconds of nanoseconds, to a tenth.
fn micros(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

/// One end's connection when the measurement was over.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// What its transport knows of the path.
    pub path: PathStats,
    /// The measured class on this end, warm-up included.
    pub class: ClassStats,
}

impl End {
    /// As it stands now.
    pub(super) fn of(connection: &Connection) -> Self {
        let mut stats = connection.stats();
        let class = connection.classes().by_name(ClassTable::QUERY).map(ClassId::index);
        let class = class.filter(|class| *class < stats.classes.len()).map(|class| stats.classes.swap_remove(class));
        Self { path: stats.path, class: class.unwrap_or_default() }
    }
}

/// What one case gave.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// From a query's scheduled time to its answer; for one without an answer, the worst: see [`Self::unfinished`].
    pub latency: Times,
    /// Queries without an answer. Each stands in [`Self::latency`] with the time that it was waited for, or the
    /// longest time to any answer if that's more.
    pub unfinished: u64,
    /// How late the generator was: from the scheduled time, or from when the query before was queued, until it got to it.
    pub lateness: Times,
    /// Bytes of BELIEFs taken by the receiver's application within [`Self::window`].
    pub belief_bytes: u64,
    /// How long it was measured.
    pub window: Duration,
    /// It ran to its end: neither interrupted, nor did the connection end.
    pub complete: bool,
    /// How the connection ended, if it did by itself.
    pub failure: Option<String>,
    /// The querying end.
    pub client: End,
    /// The answering end.
    pub server: End,
}

impl Measurement {
    /// BELIEF bytes that arrived, in megabits (10^6) per second.
    pub fn goodput_mbps(&self) -> f64 {
        goodput(self.belief_bytes, self.window)
    }
}

/// Megabits per second; 0 for no time.
pub(super) fn goodput(bytes: u64, window: Duration) -> f64 {
    let seconds = window.as_secs_f64();
    if seconds > 0.0 { bytes as f64 * 8.0 / 1e6 / seconds } else { 0.0 }
}
