//! What one case gave.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Case, Flood, Kind, Rival, Series,
    error::LabError,
    load::{Copied, Lane},
};

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

    /// Each time in milliseconds, and the share of all that took longer.
    pub(super) fn slower(&self) -> Vec<(f64, f64)> {
        let (all, mut left) = (self.count(), self.count());
        let share = |bucket: hdrhistogram::iterators::IterationValue<u64>| {
            left -= bucket.count_at_value().min(left);
            (bucket.value_iterated_to() as f64 / 1e6, left as f64 / all as f64)
        };
        self.0.iter_recorded().map(share).collect()
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

/// Every bucket's value in nanoseconds and its count: nothing is lost.
impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::new().map_err(D::Error::custom)?;
        for (nanoseconds, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.record_n(nanoseconds, count).map_err(D::Error::custom)?;
        }
        Ok(times)
    }
}

/// Microseconds of nanoseconds, to a tenth.
fn micros(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

/// One end of the connection, when the measured time was over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct End {
    /// In force, as read back.
    pub congestion_control: Option<String>,
    /// As read back.
    pub send_buffer_bytes: Option<usize>,
    /// As read back.
    pub receive_buffer_bytes: Option<usize>,
    /// Smoothed round trip.
    pub rtt_us: Option<f64>,
    /// Congestion window.
    pub cwnd_bytes: Option<u64>,
    /// Bytes in a packet.
    pub mtu: Option<u16>,
    /// Packets or segments sent since the handshake.
    pub packets_sent: Option<u64>,
    /// Of them lost or sent again.
    pub packets_lost: Option<u64>,
    /// How long the messages of the class that was asked for waited for the scheduler on this end, on average, warm-up included.
    pub queue_mean_us: Option<f64>,
    /// The same at most.
    pub queue_max_us: Option<f64>,
    /// What it copied onto another connection, if it does that.
    pub copies: Option<Copied>,
}

impl End {
    /// As it stands now.
    pub(super) fn of(lane: &Lane) -> Self {
        let stats = lane.connection.stats();
        let path = stats.path;
        let class = stats.classes.get(lane.class.index()).filter(|class| class.sent_messages > 0);
        let micros = |time: Duration| micros(time.as_secs_f64() * 1e9);
        Self {
            congestion_control: path.congestion_control,
            send_buffer_bytes: path.socket_buffers.map(|(send, _)| send),
            receive_buffer_bytes: path.socket_buffers.map(|(_, receive)| receive),
            rtt_us: path.rtt.map(micros),
            cwnd_bytes: path.cwnd,
            mtu: path.mtu,
            packets_sent: path.sent,
            packets_lost: path.lost,
            queue_mean_us: class.map(|class| micros(class.queue_time.div_f64(class.sent_messages as f64))),
            queue_max_us: class.map(|class| micros(class.queue_time_max)),
            copies: None,
        }
    }
}

/// A direction of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the asking end to the answering one.
    Forward,
    /// Back.
    Backward,
}

/// One queue of an emulated network, counted from the first packet of the handshake to the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Queue {
    /// Which way its packets go.
    pub direction: Direction,
    /// Whether it's the bottleneck; if not, it only delays.
    pub bottleneck: bool,
    /// Packets that left.
    pub packets: u64,
    /// Bytes that left, with Ethernet headers.
    pub bytes: u64,
    /// Packets dropped, by the profile's loss or because the queue was full: netem counts them together.
    pub drops: u64,
    /// The share of packets that the profile itself loses: what's dropped beyond it is our own doing.
    pub loss_set: f64,
}

/// What an emulated network says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Network {
    /// Its kernel.
    pub kernel: String,
    /// Each impaired way out.
    pub queues: Vec<Queue>,
    /// Its state changes by a schedule.
    pub scheduled: bool,
    /// Seconds that the case took by its clock.
    pub lab_seconds: f64,
    /// Seconds that it took by ours, its making included.
    pub wall_seconds: f64,
}

/// Packets that were lost beyond what the profile itself loses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loss {
    lost: f64,
    sent: f64,
}

impl Loss {
    /// Of packets sent, those lost less those that a share set beforehand accounts for: less than nothing by chance.
    fn beyond(lost: u64, sent: u64, set: f64) -> Self {
        Self { lost: lost as f64 - set * sent as f64, sent: sent as f64 }
    }

    /// As a share of the packets sent.
    pub(super) fn share(self) -> f64 {
        if self.sent > 0.0 { self.lost / self.sent } else { 0.0 }
    }
}

impl std::iter::Sum for Loss {
    fn sum<I: Iterator<Item = Self>>(losses: I) -> Self {
        losses.fold(Self { lost: 0.0, sent: 0.0 }, |a, b| Self { lost: a.lost + b.lost, sent: a.sent + b.sent })
    }
}

/// What a flood in an open loop offered, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offered {
    /// All that were due.
    pub messages: u64,
    /// Of them such as found no room in their class's send budget. The others were sent.
    pub refused: u64,
}

impl Offered {
    /// What came since an earlier look.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self { messages: self.messages.saturating_sub(earlier.messages), refused: self.refused.saturating_sub(earlier.refused) }
    }
}

/// What one case gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    /// From a query's scheduled time to its answer; for one without an answer, the worst: see [`Self::unfinished`].
    pub latency: Times,
    /// Queries without an answer. Each stands in [`Self::latency`] with the time that it was waited for, or the
    /// longest time to any answer if that's more.
    pub unfinished: u64,
    /// How late the generator was: from the scheduled time, or from when the query before was queued, until it got to it.
    pub lateness: Times,
    /// Answers that say that an operation wasn't the next one of its account. Any makes the measurement incomplete.
    pub out_of_order: u64,
    /// Answers that refuse for another reason. So does any of these.
    pub refused: u64,
    /// Bytes of BELIEFs taken by the receiver's application within [`Self::window`].
    pub belief_bytes: u64,
    /// The same of the asking end, if the other one floods too.
    pub belief_bytes_back: u64,
    /// What the asking end's flood offered meanwhile, if it's one in an open loop.
    pub offered: Option<Offered>,
    /// Bytes of the rival that its receiver took meanwhile.
    pub rival_bytes: u64,
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
    /// The querying and the answering end of BELIEF's connection, if it has one of its own.
    pub belief_ends: Option<[End; 2]>,
    /// The querying and the answering end of the connection for copies, if there's one.
    pub copy_ends: Option<[End; 2]>,
    /// The network between them, if it's an emulated one.
    pub network: Option<Network>,
    /// What happened when, if the path has a schedule.
    pub series: Option<Series>,
    /// What a lab's inner end wrote to standard error: its log.
    #[serde(skip)]
    pub log: String,
}

impl Measurement {
    /// Of nothing.
    pub(super) fn empty() -> Result<Self, LabError> {
        Ok(Self {
            latency: Times::new()?,
            unfinished: 0,
            lateness: Times::new()?,
            out_of_order: 0,
            refused: 0,
            belief_bytes: 0,
            belief_bytes_back: 0,
            rival_bytes: 0,
            offered: None,
            window: Duration::ZERO,
            complete: false,
            failure: None,
            client: End::default(),
            server: End::default(),
            belief_ends: None,
            copy_ends: None,
            network: None,
            series: None,
            log: String::new(),
        })
    }
}

impl Measurement {
    /// The share of packets that an emulated network without a schedule loses where the flood goes.
    pub(super) fn loss_set(&self) -> Option<f64> {
        let network = self.network.as_ref().filter(|network| !network.scheduled)?;
        network.queues.iter().find(|queue| queue.bottleneck && queue.direction == Direction::Forward).map(|queue| queue.loss_set)
    }

    /// Packets lost through our own doing, where the flood goes. In an emulated network it's what the bottlenecks dropped
    /// beyond what is set; beside a rival, and without a network, what the transport says, less what is set. `None` if
    /// nobody knows: TCP doesn't, a schedule that swallows packets is in all counters, and in a star the link to the hub drops
    /// acknowledgements of seven leaves, which are small and many, and no flood's packets.
    pub(super) fn own_loss(&self, case: &Case) -> Option<Loss> {
        let queues = self.network.as_ref().map_or(&[][..], |network| &network.queues);
        if case.workload.kind == Kind::Propagate || self.network.as_ref().is_some_and(|network| network.scheduled) {
            return None;
        }
        let both = case.flood == Flood::BothWays;
        let mut flooded = queues.iter().filter(|queue| queue.bottleneck && (both || queue.direction == Direction::Forward));
        if self.network.is_some() && case.rival == Rival::None {
            return Some(flooded.map(|queue| Loss::beyond(queue.drops, queue.packets + queue.drops, queue.loss_set)).sum());
        }
        let set = flooded.next().map_or(0.0, |queue| queue.loss_set);
        let sender = self.belief_ends.as_ref().map_or(&self.client, |[asking, _]| asking);
        Some(Loss::beyond(sender.packets_lost?, sender.packets_sent?, set))
    }
}

/// Megabits (10^6) per second; 0 for no time.
pub(super) fn goodput(bytes: u64, window: Duration) -> f64 {
    let seconds = window.as_secs_f64();
    if seconds > 0.0 { bytes as f64 * 8.0 / 1e6 / seconds } else { 0.0 }
}
