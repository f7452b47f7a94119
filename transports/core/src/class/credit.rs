//! What the other side may send of a class, by the bytes that this side has taken up: totals that only grow, so that a
//! credit frame that is overtaken does no harm.
//!
//! A lane begins with little credit, its *window*, and gets more where that holds it up: where half a window is taken up
//! within two round trips of an empty path, the window is doubled, to the class's largest at most. So a long path is
//! kept filled, through the round trips that the repair of a loss takes; and on a short one, where it's the receiver's
//! processor that is the bottleneck, no more waits in the socket before it than it needs to stay busy: what is urgent
//! comes behind that. The shortest round trip counts, not the last: one that has grown because data waits would let still
//! more wait. (Linux sizes TCP's receive buffer by `tcp_rcv_space_adjust` for the same reason, Chromium QUIC's windows by
//! the same rule of two round trips.)
//!
//! All lanes of a connection grow within one [`Growth`], its worst case.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::sync::Mutex;

/// Half a window taken up within so many round trips: it's the window that holds the sender up.
const HELD_UP: u32 = 2;
/// A path shorter than this counts as so long: what the ends take to rouse each other is more than the path is, and half a
/// window less than that keeps the sender waiting.
const SHORTEST: Duration = Duration::from_micros(50);
/// In more than so many: the window is larger than needed.
const NEEDLESS: u32 = 8;

/// Bytes by which the lanes of a connection may grow together.
#[derive(Debug)]
pub(crate) struct Growth {
    left: AtomicUsize,
    /// A lane got less than it asked for.
    short: AtomicBool,
}

impl Growth {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes), short: AtomicBool::new(false) })
    }

    fn take(&self, wanted: u64) -> u64 {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut got = 0;
        let _ = self.left.fetch_update(Relaxed, Relaxed, |left| {
            got = left.min(wanted);
            Some(left - got)
        });
        if got < wanted {
            self.short.store(true, Relaxed);
        }
        got as u64
    }

    fn give(&self, bytes: u64) {
        // Only ever what was taken.
        self.left.fetch_add(usize::try_from(bytes).unwrap_or(0), Relaxed);
    }
}

/// The credit of one lane, or of a class's own lane together with the class's message streams. Bytes.
///
/// Atomics for shared access, not for order among threads: a connection's readers run in one task.
#[derive(Debug)]
pub(crate) struct Credit {
    first: u64,
    most: u64,
    window: AtomicU64,
    arrived: AtomicU64,
    taken: AtomicU64,
    allowed: AtomicU64,
    growth: Arc<Growth>,
    pace: Mutex<Pace>,
}

/// How fast the lane's bytes are taken up.
#[derive(Debug, Default)]
struct Pace {
    /// Where and when the half window began that is being taken up.
    from: u64,
    since: Option<Instant>,
    /// What this lane has of the connection's growth.
    held: u64,
}

impl Credit {
    /// `first`: the credit that the hello gave; `most`: what it may grow to.
    pub(crate) fn new(first: usize, most: usize, growth: Arc<Growth>) -> Self {
        let first = first as u64;
        Self {
            first,
            most: first.max(most as u64),
            window: AtomicU64::new(first),
            arrived: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            allowed: AtomicU64::new(first),
            growth,
            pace: Mutex::default(),
        }
    }

    /// Counts bytes that have arrived. `false`: they're more than the other side has credit for.
    #[must_use]
    pub(crate) fn arrived(&self, bytes: usize) -> bool {
        self.arrived.fetch_add(bytes as u64, Relaxed) + bytes as u64 <= self.allowed.load(Relaxed)
    }

    /// Counts bytes as taken up. Once an eighth of the window is: the new total to tell the other side.
    /// Credit that comes later than that keeps a flow from using its window where a loss holds bytes back.
    ///
    /// `round_trip`: the shortest that the path has had, asked for when the window may have to change.
    pub(crate) fn taken(&self, bytes: usize, round_trip: impl FnOnce() -> Option<Duration>) -> Option<u64> {
        let taken = self.taken.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        let window = self.window.load(Relaxed);
        let allowed = self.allowed.load(Relaxed);
        if (taken + window).saturating_sub(allowed) < window / 8 {
            return None;
        }
        let total = taken + self.pace(taken, allowed, window, round_trip);
        // A window that has shrunk takes nothing back that was given.
        (self.allowed.fetch_max(total, Relaxed) < total).then_some(total)
    }

    /// Of a window that needn't be so large: whether that does harm. It does where the sender fills it, as all of it waits
    /// then on this side, and where another lane lacks it. A sender that has a pause shall find it as it was.
    fn too_large(&self, allowed: u64, window: u64) -> bool {
        let filled = allowed.saturating_sub(self.arrived.load(Relaxed)) <= window / 4;
        filled || self.growth.short.swap(false, Relaxed)
    }

    /// Looks at the pace, once half a window has been taken up since it last did. The window from now on.
    fn pace(&self, taken: u64, allowed: u64, window: u64, round_trip: impl FnOnce() -> Option<Duration>) -> u64 {
        let mut pace = self.pace.lock();
        // What was held beyond the window is given back when it can't arrive any more.
        let need = window.max(allowed.saturating_sub(taken)).saturating_sub(self.first);
        if pace.held > need {
            self.growth.give(pace.held - need);
            pace.held = need;
        }
        if taken - pace.from < window / 2 {
            return window;
        }
        let now = Instant::now();
        let took = pace.since.map(|since| now.saturating_duration_since(since));
        (pace.from, pace.since) = (taken, Some(now));
        let Some(took) = took else { return window };
        let round_trip = round_trip().map(|trip| trip.max(SHORTEST));
        let window = if round_trip.is_none_or(|trip| took < trip * HELD_UP) && window < self.most {
            let got = self.growth.take(window.min(self.most - window));
            pace.held += got;
            window + got
        } else if window > self.first && round_trip.is_some_and(|trip| took > trip * NEEDLESS) && self.too_large(allowed, window) {
            (window / 2).max(self.first)
        } else {
            window
        };
        self.window.store(window, Relaxed);
        window
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.growth.give(self.pace.lock().held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(50);

    fn left(growth: &Growth) -> usize {
        growth.left.load(Relaxed)
    }

    /// The other side uses all the credit it has, and a window's worth takes so long.
    async fn flood(credit: &Credit, windows: usize, each: Duration) {
        for _ in 0..windows {
            let window = credit.window.load(Relaxed);
            let mut used = 0;
            while used < window {
                let step = (window / 16).max(1);
                assert!(credit.arrived(step as usize));
                tokio::time::advance(each / 16).await;
                let _ = credit.taken(step as usize, || Some(TRIP));
                used += step;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credit_follows_what_is_taken_up_not_what_has_arrived() {
        let credit = Credit::new(100, 100, Growth::new(0));
        assert!(credit.arrived(100));
        assert_eq!(credit.taken(11, || None), None);
        assert_eq!(credit.taken(1, || None), Some(112));
        assert!(credit.arrived(12));
        assert!(!credit.arrived(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_holds_a_long_path_up_grows_and_a_short_paths_doesnt() {
        let growth = Growth::new(1 << 20);
        let far = Credit::new(1000, 16_000, growth.clone());
        flood(&far, 8, TRIP).await;
        assert_eq!(far.window.load(Relaxed), 16_000, "a window in each round trip: it's the window that limits");
        let near = Credit::new(1000, 16_000, growth.clone());
        flood(&near, 8, 5 * TRIP).await;
        assert_eq!(near.window.load(Relaxed), 1000, "a window holds more than two round trips: something else limits");
        drop(far);
        assert_eq!(left(&growth), 1 << 20, "what a lane grew by is the connection's again");
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_grow_within_what_the_connection_has_and_the_idle_one_gives_way() {
        let growth = Growth::new(4000);
        let (one, other) = (Credit::new(1000, 16_000, growth.clone()), Credit::new(1000, 16_000, growth.clone()));
        flood(&one, 8, TRIP).await;
        assert_eq!((one.window.load(Relaxed), left(&growth)), (5000, 0));
        flood(&other, 4, TRIP).await;
        assert_eq!(other.window.load(Relaxed), 1000);
        // The first one goes on, at a pace that needs no such window.
        flood(&one, 4, 20 * TRIP).await;
        assert!(one.window.load(Relaxed) < 5000 && left(&growth) > 0, "{one:?}");
        flood(&other, 4, TRIP).await;
        assert!(other.window.load(Relaxed) > 1000);
        let outstanding = |credit: &Credit| credit.allowed.load(Relaxed) - credit.taken.load(Relaxed);
        assert!(outstanding(&one) + outstanding(&other) <= 2 * 1000 + 4000);
    }
}
