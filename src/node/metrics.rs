//! What a node counts, per peer and class, and its text for Prometheus.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use peerlane_transport::{ClassStats, ConnectionStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::runtime::Inner;
use crate::protocol::Protocol;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// In nanoseconds: 584 years fit.
    pub(super) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One class of one peer, above its connections.
#[derive(Debug, Default)]
pub(super) struct ClassCounters {
    pub(super) handled: Count,
    pub(super) handler_time: Count,
    pub(super) queue_time: Count,
    pub(super) overloaded: Count,
    pub(super) dropped: Count,
    pub(super) unmatched: Count,
    pub(super) cancelled: Count,
    pub(super) late: Count,
    pub(super) replies_lost: Count,
}

/// The node's own.
#[derive(Debug, Default)]
pub(super) struct NodeCounters {
    pub(super) panics: Count,
    pub(super) stalled: Count,
    /// Handlers dropped because too many waited for peers.
    pub(super) given_up: Count,
    pub(super) dials: Count,
    pub(super) dials_failed: Count,
    pub(super) accepted: Count,
    pub(super) accepts_failed: Count,
    pub(super) moves: Count,
}

type Label = (&'static str, String);

/// One metric with all its label sets.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    gauge: bool,
    values: Vec<(Vec<Label>, f64)>,
}

/// A snapshot, to be written once.
#[derive(Debug)]
struct Snapshot(Vec<Metric>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = if metric.gauge { MetricType::Gauge } else { MetricType::Counter };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (labels, value) in &metric.values {
                if labels.is_empty() {
                    // The only value of its metric.
                    write_value(*value, metric.gauge, family)?;
                    break;
                }
                write_value(*value, metric.gauge, family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn write_value(value: f64, gauge: bool, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    // Whole numbers without a fraction: what was counted is exact up to 2^53.
    let whole = (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64);
    match (gauge, whole) {
        (true, Some(n)) => ConstGauge::new(n).encode(encoder),
        (true, None) => ConstGauge::new(value).encode(encoder),
        (false, Some(n)) => ConstCounter::new(n.unsigned_abs()).encode(encoder),
        (false, None) => ConstCounter::new(value).encode(encoder),
    }
}

struct Table(Vec<Metric>);

impl Table {
    fn put(&mut self, name: &'static str, help: &'static str, gauge: bool, labels: &[Label], value: f64) {
        let row = (labels.to_vec(), value);
        match self.0.iter_mut().find(|metric| metric.name == name) {
            Some(metric) => metric.values.push(row),
            None => self.0.push(Metric { name, help, gauge, values: vec![row] }),
        }
    }

    fn count(&mut self, name: &'static str, help: &'static str, labels: &[Label], value: u64) {
        self.put(name, help, false, labels, value as f64);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[Label], value: f64) {
        self.put(name, help, true, labels, value);
    }
}

/// What all of a peer's connections have counted in a class. Counters of connections that have ended are kept by the peer.
pub(super) fn add_stats(into: &mut [ClassStats], stats: &ConnectionStats) {
    for (sum, class) in into.iter_mut().zip(&stats.classes) {
        sum.sent_messages += class.sent_messages;
        sum.sent_bytes += class.sent_bytes;
        sum.queue_time += class.queue_time;
        sum.queue_time_max = sum.queue_time_max.max(class.queue_time_max);
        sum.blocked_time += class.blocked_time;
        sum.receive_time += class.receive_time;
        sum.receive_time_max = sum.receive_time_max.max(class.receive_time_max);
        sum.queued_bytes += class.queued_bytes;
        sum.superseded += class.superseded;
        sum.received_messages += class.received_messages;
        sum.received_bytes += class.received_bytes;
        sum.dropped += class.dropped;
    }
}

/// The text for Prometheus. Series exist for connected peers only, so their number is bounded.
pub(super) fn text<P: Protocol>(node: &Inner<P>) -> String {
    let mut table = Table(Vec::new());
    let own = &node.counters;
    let peers = node.registry.peers();
    table.gauge("peerlane_peers", "Connected peers", &[], peers.len() as f64);
    for (name, help, count) in [
        ("peerlane_dials", "Dials that were begun", &own.dials),
        ("peerlane_dials_failed", "Dials that failed", &own.dials_failed),
        ("peerlane_accepted", "Arrivals that became peers' connections", &own.accepted),
        ("peerlane_accepts_failed", "Arrivals that did not", &own.accepts_failed),
        ("peerlane_moves", "Peers moved to another connection", &own.moves),
        ("peerlane_handler_panics", "Handlers that panicked", &own.panics),
        ("peerlane_handler_stalls", "Handlers that read nothing of a streamed message for too long", &own.stalled),
        ("peerlane_handlers_given_up", "Handlers dropped because too many of their peer's waited for it", &own.given_up),
    ] {
        table.count(name, help, &[], count.get());
    }
    for (id, class) in node.classes.iter() {
        let labels = [("class", class.name.to_string())];
        let (messages, bytes) = node.dispatch[id.index()].depth();
        table.gauge("peerlane_handler_queue_messages", "Messages that wait for a handler", &labels, messages as f64);
        table.gauge("peerlane_handler_queue_bytes", "Bytes that wait for a handler", &labels, bytes as f64);
    }
    for peer in peers {
        let label = [("peer", peer.id.to_string())];
        table.gauge("peerlane_requests_waiting", "Requests that wait for a reply", &label, peer.requests.waiting() as f64);
        table.count("peerlane_malformed", "Messages that didn't parse", &label, peer.malformed.load(Ordering::Relaxed));
        let mut classes = peer.past_stats();
        for link in peer.links() {
            let stats = link.connection.stats();
            add_stats(&mut classes, &stats);
            let labels = [label[0].clone(), ("transport", link.connection.transport().to_string())];
            let path = &stats.path;
            let rtt = path.rtt.or(stats.ping_rtt).map(|rtt| rtt.as_secs_f64());
            for (name, help, value) in [
                ("peerlane_rtt_seconds", "Round-trip time", rtt),
                ("peerlane_cwnd_bytes", "Congestion window", path.cwnd.map(|n| n as f64)),
                ("peerlane_mtu_bytes", "Bytes of a packet", path.mtu.map(f64::from)),
                ("peerlane_packets_lost", "Packets lost or sent again, on this connection", path.lost.map(|n| n as f64)),
                ("peerlane_packets_sent", "Packets sent, on this connection", path.sent.map(|n| n as f64)),
            ] {
                if let Some(value) = value {
                    table.gauge(name, help, &labels, value);
                }
            }
        }
        for ((id, class), stats) in node.classes.iter().zip(&classes) {
            let own = &peer.counters[id.index()];
            let labels = [label[0].clone(), ("class", class.name.to_string())];
            table.gauge("peerlane_send_queue_bytes", "Bytes that wait to be sent", &labels, stats.queued_bytes as f64);
            for (name, help, value) in [
                ("peerlane_sent_messages", "Messages that began to leave", stats.sent_messages),
                ("peerlane_sent_bytes", "Bytes handed to the transport", stats.sent_bytes),
                ("peerlane_superseded", "Queued messages replaced by newer ones", stats.superseded),
                ("peerlane_received_messages", "Messages received", stats.received_messages),
                ("peerlane_received_bytes", "Bytes of whole messages received", stats.received_bytes),
                ("peerlane_datagrams_dropped", "Datagrams dropped for want of room", stats.dropped),
                ("peerlane_handled", "Messages handled", own.handled.get()),
                ("peerlane_overloaded", "Requests answered that there's no room", own.overloaded.get()),
                ("peerlane_dropped", "Messages dropped for want of a handler's time", own.dropped.get()),
                ("peerlane_unmatched", "Replies that nobody waited for", own.unmatched.get()),
                ("peerlane_cancelled", "Requests that the peer took back", own.cancelled.get()),
                ("peerlane_late", "Messages of a Fifo class that came by a lost connection after another's", own.late.get()),
                ("peerlane_replies_lost", "Replies that found no room or no connection", own.replies_lost.get()),
            ] {
                table.count(name, help, &labels, value);
            }
            let seconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64();
            for (name, help, value) in [
                ("peerlane_send_queue_seconds", "Time that messages waited to be sent", stats.queue_time.as_secs_f64()),
                ("peerlane_send_blocked_seconds", "Time that senders waited for room in the queue", stats.blocked_time.as_secs_f64()),
                ("peerlane_receive_queue_seconds", "Time that messages waited, arrived, to be taken", stats.receive_time.as_secs_f64()),
                ("peerlane_handler_queue_seconds", "Time that messages waited for a handler", seconds(own.queue_time.get())),
                ("peerlane_handler_seconds", "Time that handlers took", seconds(own.handler_time.get())),
            ] {
                table.put(name, help, false, &labels, value);
            }
        }
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(table.0)));
    let mut out = String::new();
    // Writing to a string doesn't fail.
    let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
    out
}
