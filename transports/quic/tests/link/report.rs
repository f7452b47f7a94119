//! What came out of a run, and how several runs are summed up.

use std::time::Duration;

use super::{
    netem::{Link, Nanos},
    node::Node,
    world::Run,
};

/// Results of one run. Latencies in milliseconds, shares in percent.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub queries: usize,
    /// BELIEF bytes in percent of the link, by flow, then the other way.
    pub goodput: Vec<f64>,
    pub goodput_back: Vec<f64>,
    pub rival: Option<f64>,
    /// Packets of our flows that found the queue full, of all that they sent: forward and backward.
    pub own_loss: f64,
    pub own_loss_back: f64,
    /// Packets declared lost by quinn beyond those that were, in percent of those sent.
    pub spurious: f64,
    /// Why a connection ended before its time.
    pub failed: Option<String>,
    /// Each question: when it was scheduled and how long it took.
    pub latencies: Vec<(Nanos, Nanos)>,
    /// BELIEF bytes of the first flow in each tenth of a second.
    pub series: Vec<u64>,
}

fn quantile(sorted: &[Nanos], q: f64) -> f64 {
    // The smallest value that at least this share doesn't exceed.
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).map_or(f64::NAN, |value| *value as f64 / 1e6)
}

impl Outcome {
    pub fn new(run: &Run, nodes: &[[Node; 2]], rival: Option<u64>, links: [&Link; 2]) -> Self {
        let from = run.warm_up.as_nanos() as Nanos;
        let stop = run.duration.as_nanos() as Nanos;
        let mut latencies = Vec::new();
        for [a, _] in nodes {
            latencies.extend(a.traffic.latencies.iter().copied().filter(|(at, _)| *at >= from));
            // What was never answered took at least until the end.
            latencies.extend(a.traffic.unanswered().filter(|at| *at >= from).map(|at| (at, stop + 1_000_000_000 - at)));
        }
        latencies.sort_unstable();
        let mut sorted: Vec<Nanos> = latencies.iter().map(|(_, took)| *took).collect();
        sorted.sort_unstable();
        let share = |bytes: u64, rate: u64| bytes as f64 * 8.0 / ((stop - from) as f64 / 1e9) / rate as f64 * 100.0;
        let [forward, backward] = [run.profile.forward.rate, run.profile.backward.rate];
        let ours = |link: &Link| {
            let counts = &link.counts[..nodes.len()];
            let (sent, dropped) = counts.iter().fold((0, 0), |sum, flow| (sum.0 + flow.sent, sum.1 + flow.dropped));
            dropped as f64 / sent.max(1) as f64 * 100.0
        };
        let declared: u64 = nodes.iter().filter_map(|[a, _]| a.connection()).map(|a| a.stats().path.lost_packets).sum();
        let counts = &links[0].counts[..nodes.len()];
        let lost: u64 = counts.iter().map(|flow| flow.lost + flow.dropped).sum();
        let sent: u64 = counts.iter().map(|flow| flow.sent).sum();
        Self {
            p50: quantile(&sorted, 0.5),
            p99: quantile(&sorted, 0.99),
            p999: quantile(&sorted, 0.999),
            max: quantile(&sorted, 1.0),
            queries: sorted.len(),
            goodput: nodes.iter().map(|[_, b]| share(b.traffic.flooded, forward)).collect(),
            goodput_back: nodes.iter().map(|[a, _]| share(a.traffic.flooded, backward)).collect(),
            rival: rival.map(|bytes| share(bytes, forward)),
            own_loss: ours(links[0]),
            own_loss_back: ours(links[1]),
            spurious: declared.saturating_sub(lost) as f64 / sent.max(1) as f64 * 100.0,
            failed: nodes.iter().flatten().find_map(|node| node.failed.clone()),
            latencies,
            series: nodes[0][1].traffic.series.clone(),
        }
    }

    /// The oldest question that waited when the path came back at `end`: how long after that it was answered. Milliseconds.
    pub fn rescue(&self, end: Duration) -> Option<f64> {
        let end = end.as_nanos() as Nanos;
        let waiting = self.latencies.iter().find(|(at, took)| *at < end && at + took > end)?;
        Some((waiting.0 + waiting.1 - end) as f64 / 1e6)
    }

    /// Seconds after `end` until BELIEF is back at `share` percent of the link in each of three tenths of a second.
    pub fn recovery(&self, end: Duration, rate: u64, share: f64) -> Option<f64> {
        let enough = (rate as f64 / 80.0 * share / 100.0) as u64;
        let first = (end.as_millis() / 100) as usize;
        let tenths = self.series.get(first..)?.windows(3).position(|three| three.iter().all(|bytes| *bytes >= enough))?;
        Some(tenths as f64 / 10.0)
    }
}

/// The values' 5th, 50th and 95th percentile.
pub fn spread(values: impl IntoIterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let rank = (values.len() as f64 * q).ceil() as usize;
        values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    };
    [at(0.05), at(0.5), at(0.95)]
}
