//! One direction between two peers: when does a segment arrive, if it does? No I/O, no clock: time and chance
//! come in, so a row of calls has one answer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use peerlane_transport::limits::QUANTUM;
use rand::{Rng, RngExt};
use tokio::sync::oneshot;

use crate::wire::{EndId, Event, Parcel};

/// The smallest segment that a slow link is given, in bytes: QUIC's smallest datagram (RFC 9000, section 14).
const MIN_SEGMENT: usize = 1200;
/// A segment is what a link carries in this time, within its bounds: the longest that an urgent one waits for the
/// one before it.
const SEGMENT_TIME: Duration = Duration::from_millis(1);
/// Tokio's timers have a grain of 1 ms, so an acknowledgement takes up to so much longer than the links do, both
/// ways together. The automatic window covers it, or no link would ever be full.
const GRAIN: Duration = Duration::from_millis(4);
/// The automatic window where the rate has no limit, in bytes.
const OPEN_WINDOW: usize = 1024 * 1024;
/// Loss isn't noticed sooner than that (RFC 9002, section 6.1.2, kGranularity).
const MIN_RESEND: Duration = Duration::from_millis(1);
/// Losses in a row double the delay up to this, so that a path that comes back is found again.
const MAX_RESEND: Duration = Duration::from_secs(1);

/// What one direction between two peers is like.
///
/// ```
/// # use std::time::Duration;
/// # use peerlane_sim::Link;
/// let satellite = Link { latency: Duration::from_millis(280), loss: 0.01, rate: Some(1_000_000), ..Link::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From the end of sending to arrival. The default is 1 ms, the grain of tokio's timers; a delivery happens at
    /// the first whole millisecond at or after its time.
    pub latency: Duration,
    /// Up to so much is added to each segment's latency, evenly spread. Lanes may overtake one another by it.
    pub jitter: Duration,
    /// Probability that a segment, or a datagram, is lost: 0.0 to 1.0. A segment is sent again after 9/8 of the
    /// round-trip time (RFC 9002, section 6.1.2), twice that after the next loss in a row, and so on up to a second.
    pub loss: f64,
    /// Bytes per second, payload only; `None` is without limit. All connections between the two peers share it. Only where
    /// it's scarce do the classes' weights show: without limit, each class has what its window permits.
    pub rate: Option<u64>,
    /// The link's queue: a sender waits, and its scheduler stays free to choose, while segments before it need longer
    /// than this to leave. It bounds the queue to this time and one segment per connection. Below 2 ms, the link
    /// idles between two ticks of the clock.
    pub queue: Duration,
    /// Bytes of one connection on the way and not yet acknowledged, at most, as a congestion window would have it.
    /// `None` is what fills the link and little more; 1 MiB where the rate has no limit.
    pub window: Option<usize>,
}

impl Default for Link {
    /// 1 ms, nothing lost, no limit of rate.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(5),
            window: None,
        }
    }
}

/// What follows from the links of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Largest segment in bytes.
    pub(crate) segment: usize,
    /// Bytes on the way at most, at least one segment.
    pub(crate) window: usize,
    /// Round-trip time without queues.
    pub(crate) rtt: Duration,
}

impl Link {
    /// What a sender on this link does, with `back` the link that acknowledgements take.
    pub(crate) fn pace(&self, back: &Self) -> Pace {
        let rtt = self.worst().saturating_add(back.worst());
        let (segment, automatic) = match self.rate {
            None => (QUANTUM, OPEN_WINDOW),
            Some(rate) => {
                let segment = carried(rate, SEGMENT_TIME).clamp(MIN_SEGMENT, QUANTUM);
                let filling = carried(rate, rtt.saturating_add(self.queue).saturating_add(GRAIN));
                (segment, filling.saturating_add(2 * segment))
            }
        };
        let segment = segment.min(self.window.unwrap_or(segment)).max(1);
        Pace { segment, window: self.window.unwrap_or(automatic).max(segment), rtt }
    }

    fn worst(&self) -> Duration {
        self.latency.saturating_add(self.jitter)
    }

    /// How long `bytes` occupy the link.
    fn occupied(&self, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Bytes that pass in a time.
fn carried(rate: u64, time: Duration) -> usize {
    usize::try_from(u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000).unwrap_or(usize::MAX)
}

/// When a loss after `tries` losses in a row is repaired.
pub(crate) fn resend_delay(rtt: Duration, tries: u32) -> Duration {
    let first = (rtt.saturating_mul(9) / 8).max(MIN_RESEND);
    first.saturating_mul(1 << tries.min(16)).min(MAX_RESEND.max(first))
}

/// What becomes of a segment, in time since the world began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives then, unless the link is cut meanwhile.
    Arrives(Duration),
    /// It's lost after it left then.
    Lost(Duration),
    /// The link is cut.
    Cut,
}

/// One direction between two peers, with what happens on it.
#[derive(Debug, Default)]
pub(crate) struct Path {
    pub(crate) link: Link,
    /// When the last segment accepted has left.
    busy_until: Duration,
    /// Nothing passes.
    pub(crate) down: bool,
    /// How often it was cut: what was on the way then is lost.
    pub(crate) cuts: u64,
    /// What waits for the end of a cut.
    pub(crate) parked: Vec<Event>,
    /// Classes that are held up, by the sender's name for them, and what has arrived of each.
    pub(crate) stalled: BTreeMap<String, Vec<Parcel>>,
    /// Who is to be told of the loss of the next segments with data, one each.
    pub(crate) doomed: VecDeque<oneshot::Sender<()>>,
    /// Connections that wait for room in the queue, each once, served in turn.
    pub(crate) waiting: VecDeque<EndId>,
    /// It was set by itself, not by the default.
    pub(crate) own: bool,
    /// An [`Event::Room`] is due.
    pub(crate) room_due: bool,
}

impl Path {
    pub(crate) fn new(link: Link, down: bool) -> Self {
        Self { link, down, ..Self::default() }
    }

    /// When the queue has room: at once if that's past.
    pub(crate) fn room_at(&self) -> Duration {
        self.busy_until.saturating_sub(self.link.queue)
    }

    /// Sends a segment that is lost, whatever chance would say.
    pub(crate) fn swallow(&mut self, now: Duration, bytes: usize) -> Fate {
        if self.down {
            return Fate::Cut;
        }
        self.busy_until = self.busy_until.max(now).saturating_add(self.link.occupied(bytes));
        Fate::Lost(self.busy_until)
    }

    /// Sends a segment. Chance is asked only where it has a say, so a link without loss and jitter draws nothing.
    pub(crate) fn transmit(&mut self, now: Duration, bytes: usize, rng: &mut impl Rng) -> Fate {
        if self.down {
            return Fate::Cut;
        }
        let left = self.busy_until.max(now).saturating_add(self.link.occupied(bytes));
        self.busy_until = left;
        if self.link.loss > 0.0 && rng.random::<f64>() < self.link.loss {
            return Fate::Lost(left);
        }
        let jitter = u64::try_from(self.link.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = if jitter == 0 { 0 } else { rng.random_range(0..=jitter) };
        Fate::Arrives(left.saturating_add(self.link.latency).saturating_add(Duration::from_nanos(jitter)))
    }

    /// Cuts the link, or mends it. Gives what waited for that.
    pub(crate) fn set_down(&mut self, down: bool) -> Vec<Event> {
        if down && !self.down {
            self.cuts += 1;
            // A cut link has no queue.
            self.busy_until = Duration::ZERO;
        }
        self.down = down;
        if down { Vec::new() } else { std::mem::take(&mut self.parked) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(link: Link) -> Path {
        Path::new(link, false)
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    #[test]
    fn rate_and_latency_add_up_and_an_idle_link_earns_nothing() {
        let mut path = path(Link { latency: 20 * MS, rate: Some(1_000_000), ..Link::default() });
        assert_eq!(path.transmit(Duration::ZERO, 5_000, &mut rng()), Fate::Arrives(25 * MS));
        assert_eq!(path.transmit(Duration::ZERO, 7_000, &mut rng()), Fate::Arrives(32 * MS));
        assert_eq!(path.room_at(), 7 * MS, "12 ms of bytes, of which 5 may wait");
        assert_eq!(path.transmit(100 * MS, 1_000, &mut rng()), Fate::Arrives(121 * MS));
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_loss_near_its_share() {
        let mut path = path(Link { latency: 10 * MS, jitter: 5 * MS, loss: 0.2, ..Link::default() });
        let mut rng = rng();
        let (mut lost, mut least, mut most) = (0, Duration::MAX, Duration::ZERO);
        for _ in 0..10_000 {
            match path.transmit(Duration::ZERO, 1_000, &mut rng) {
                Fate::Arrives(at) => (least, most) = (least.min(at), most.max(at)),
                Fate::Lost(left) => lost += i32::from(left == Duration::ZERO),
                Fate::Cut => unreachable!("nobody cut it"),
            }
        }
        assert!((1_850..2_150).contains(&lost), "{lost}");
        assert!(least >= 10 * MS && most <= 15 * MS && most - least > 4 * MS, "{least:?} {most:?}");
    }

    #[test]
    fn a_cut_empties_the_queue_and_counts() {
        let mut path = path(Link { rate: Some(1_000), ..Link::default() });
        path.transmit(Duration::ZERO, 60_000, &mut rng());
        path.set_down(true);
        path.set_down(true);
        assert_eq!((path.cuts, path.transmit(MS, 1, &mut rng())), (1, Fate::Cut));
        path.set_down(false);
        assert_eq!(path.transmit(MS, 1, &mut rng()), Fate::Arrives(3 * MS));
    }

    #[test]
    fn losses_in_a_row_double_the_delay_up_to_a_second() {
        let delays: Vec<_> = (0..6).map(|tries| resend_delay(80 * MS, tries).as_millis()).collect();
        assert_eq!(delays, [90, 180, 360, 720, 1000, 1000]);
        assert_eq!(resend_delay(4000 * MS, 9), 4500 * MS);
        assert_eq!(resend_delay(Duration::ZERO, 0), MS);
        assert_eq!(resend_delay(Duration::MAX, u32::MAX), Duration::MAX / 8);
    }

    #[test]
    fn segments_and_windows_follow_the_rate() {
        let back = Link::default();
        let pace = |rate, window| Link { latency: 9 * MS, rate, window, ..Link::default() }.pace(&back);
        assert_eq!(pace(None, None), Pace { segment: QUANTUM, window: OPEN_WINDOW, rtt: 10 * MS });
        // 1 MB/s for 10 ms of way, 5 ms of queue and 4 of grain, and two segments.
        assert_eq!(pace(Some(1_000_000), None), Pace { segment: 1_200, window: 19_000 + 2_400, rtt: 10 * MS });
        assert_eq!(pace(Some(1_000_000_000), None).segment, QUANTUM);
        assert_eq!(pace(None, Some(1_000)), Pace { segment: 1_000, window: 1_000, rtt: 10 * MS });
        assert_eq!(pace(Some(0), Some(0)), Pace { segment: 1, window: 1, rtt: 10 * MS });
    }
}
