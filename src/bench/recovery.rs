//! What happens around a scheduled event of the path: a time series, and how soon all was well again. No clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measurement::goodput;

/// The length of a slot of a series.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// Goodput is back when it is so much of what it was,
const BACK: f64 = 0.9;
/// over so many slots.
const SUSTAINED: usize = 5;

/// A tenth of a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Slot {
    /// When it began, in seconds from the lab's start, as a schedule's times.
    pub at_s: f64,
    /// BELIEFs taken by the receiver's application, in 10^6 bits per second.
    pub belief_mbps: f64,
    /// Queries that were due.
    pub queries: u64,
    /// Of them without an answer to the end.
    pub unanswered: u64,
    /// The longest that an answered one of them took, in milliseconds.
    pub latency_max_ms: Option<f64>,
}

/// How a connection came back after a scheduled event was over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recovery {
    /// When the event began, in seconds from the lab's start.
    pub from_s: f64,
    /// When it was over.
    pub until_s: f64,
    /// Queries that were waiting for their answer then.
    pub waiting: u64,
    /// How long after that the oldest of them was answered, in milliseconds; `None`: never, or none was waiting.
    pub oldest_ms: Option<f64>,
    /// The same for the last of them.
    pub all_ms: Option<f64>,
    /// BELIEF's goodput before the event, in 10^6 bits per second.
    pub before_mbps: f64,
    /// From the event's end to the first half second with 90% of that, in milliseconds; `None`: never.
    pub back_ms: Option<f64>,
}

/// A series, and what follows from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Series {
    /// Every tenth of a second.
    pub slots: Vec<Slot>,
    /// One for each scheduled event that was over in time.
    pub recoveries: Vec<Recovery>,
}

/// A query: when it was due, and how long its answer took.
pub(super) type Query = (Duration, Option<Duration>);

impl Series {
    /// `samples`: bytes taken until then, one at the end of each slot from `start` on. `queries`: ascending. `events`: from
    /// and until. `measured`: what's before it, warm-up, tells nothing of goodput before an event. All from the lab's start.
    pub(super) fn new(start: Duration, samples: &[u64], queries: &[Query], events: &[[Duration; 2]], measured: Duration) -> Self {
        let slots: Vec<Slot> = (samples.windows(2).enumerate())
            .map(|(i, pair)| {
                let at = start + STEP * u32::try_from(i).unwrap_or(u32::MAX);
                let due: Vec<_> = queries.iter().filter(|(due, _)| *due >= at && *due < at + STEP).collect();
                Slot {
                    at_s: at.as_secs_f64(),
                    belief_mbps: goodput(pair[1].saturating_sub(pair[0]), STEP),
                    queries: due.len() as u64,
                    unanswered: due.iter().filter(|(_, took)| took.is_none()).count() as u64,
                    latency_max_ms: due.iter().filter_map(|(_, took)| *took).max().map(millis),
                }
            })
            .collect();
        let end = start + STEP * u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let over = events.iter().filter(|[from, until]| *from >= start && *until < end);
        let recoveries = over.map(|[from, until]| recovery(&slots, queries, *from, *until, measured)).collect();
        Self { slots, recoveries }
    }
}

fn recovery(slots: &[Slot], queries: &[Query], from: Duration, until: Duration, measured: Duration) -> Recovery {
    let waiting: Vec<_> = queries.iter().filter(|(due, took)| *due < until && took.is_none_or(|took| *due + took > until)).collect();
    let after = |(due, took): &Query| took.map(|took| *due + took - until);
    let answered: Option<Vec<_>> = waiting.iter().map(|query| after(query)).collect();

    let before = slots.iter().filter(|slot| slot.at_s >= measured.as_secs_f64() && slot.at_s + STEP.as_secs_f64() <= from.as_secs_f64());
    let before: Vec<_> = before.map(|slot| slot.belief_mbps).collect();
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let was = mean(&before);
    let later = slots.iter().position(|slot| slot.at_s >= until.as_secs_f64()).and_then(|first| slots.get(first..)).unwrap_or_default();
    let is_back = |slots: &&[Slot]| mean(&slots.iter().map(|slot| slot.belief_mbps).collect::<Vec<_>>()) >= BACK * was;
    let back = later.windows(SUSTAINED).find(is_back).filter(|_| was > 0.0);
    Recovery {
        from_s: from.as_secs_f64(),
        until_s: until.as_secs_f64(),
        waiting: waiting.len() as u64,
        oldest_ms: waiting.first().and_then(|query| after(query)).map(millis),
        all_ms: answered.and_then(|times| times.into_iter().max()).map(millis),
        before_mbps: was,
        back_ms: back.and_then(|slots| slots.first()).map(|slot| (slot.at_s - until.as_secs_f64()) * 1e3),
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A query every 50 ms for 4 s; bytes by slot.
    fn series(took: impl Fn(Duration) -> Option<Duration>, bytes: impl Fn(u32) -> u64) -> Series {
        let queries: Vec<_> = (0..80).map(|i| (i * 50 * MS, took(i * 50 * MS))).collect();
        let samples: Vec<u64> = (0..=40).scan(0, |sum, slot| Some(std::mem::replace(sum, *sum + bytes(slot)))).collect();
        Series::new(Duration::ZERO, &samples, &queries, &[[1000 * MS, 2000 * MS], [3000 * MS, 9000 * MS]], 500 * MS)
    }

    #[test]
    fn the_oldest_waiting_query_and_the_goodputs_return_are_found() {
        // A hole from 1 to 2 s: what was due in it, or just before, is answered at 2.08 s and later; one of them last of all.
        let held = |due: Duration| (950 * MS..2000 * MS).contains(&due);
        let answered = |due: Duration| match due {
            due if !held(due) => due + 50 * MS,
            due if due == 1500 * MS => 2300 * MS,
            _ => 2080 * MS,
        };
        let took = |due: Duration| Some(answered(due) - due);
        // At half its rate until 2.7 s; what was there in warm-up doesn't count.
        let rate = |slot| match slot {
            0..5 => 9999,
            5..10 => 100_000,
            10..20 => 0,
            20..27 => 50_000,
            _ => 95_000,
        };
        let found = series(took, rate);
        assert_eq!((found.slots.len(), found.recoveries.len()), (40, 1), "the second event wasn't over in time");
        let back = &found.recoveries[0];
        assert_eq!((back.waiting, back.oldest_ms, back.all_ms), (21, Some(80.0), Some(300.0)));
        assert!((back.before_mbps - 8.0).abs() < 1e-9 && (back.back_ms.unwrap() - 700.0).abs() < 1e-6, "{back:?}");
        assert_eq!((found.slots[0].queries, found.slots[0].latency_max_ms), (2, Some(50.0)));
        assert!((found.slots[3].at_s - 0.3).abs() < 1e-9);
    }

    #[test]
    fn never_answered_and_never_back_are_said_and_not_a_time() {
        let found = series(|due| (!(900 * MS..2000 * MS).contains(&due)).then_some(MS), |slot| if slot < 10 { 1000 } else { 800 });
        let back = &found.recoveries[0];
        assert_eq!((back.waiting, back.oldest_ms, back.all_ms, back.back_ms), (22, None, None, None));
        assert_eq!(found.slots[9].unanswered, 2);
        // Nothing floods: there's nothing to come back.
        assert_eq!(series(|_| Some(MS), |_| 0).recoveries[0].back_ms, None);
    }
}
