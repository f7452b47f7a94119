//! One measurement as a machine reads it: a JSON object on a line.

use serde::Serialize;

use super::{Case, End, Environment, Flood, Kind, Lab, Measurement, Network, Rival, Series, measurement::goodput};

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Measured to the end.
    Complete,
    /// Interrupted, or the connection ended, or answers say that order was broken. Not for a table.
    Incomplete,
    /// It couldn't be measured.
    Failed,
    /// It wasn't measured, because its lab's check is red.
    Rejected,
}

/// A case that gave no measurement: the fields that it shares with a [`Record`], and why.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Unmeasured {
    /// The transport's name.
    pub transport: &'static str,
    /// Where.
    pub lab: &'static str,
    /// The path's impairment.
    pub profile: String,
    /// The lab was measured against its profile before, and did as it says.
    pub lab_checked: bool,
    /// What was to be asked.
    pub workload: &'static str,
    /// What else was to fill the connection.
    pub flood: String,
    /// Who else was to use the bottleneck.
    pub rival: &'static str,
    /// 1 for the first.
    pub run: u32,
    /// The schedule's seed.
    pub seed: u64,
    /// Failed or rejected.
    pub status: Status,
    /// Always `false`.
    pub complete: bool,
    /// Why.
    pub failure: String,
    /// Build and machine.
    #[serde(flatten)]
    pub environment: Environment,
}

impl Unmeasured {
    pub(super) fn new(case: &Case, lab: &dyn Lab, lab_checked: bool, environment: &Environment, status: Status, failure: String) -> Self {
        Self {
            transport: case.variant.name(),
            lab: lab.name(),
            profile: lab.profile().to_owned(),
            lab_checked,
            workload: case.workload.kind.name(),
            flood: case.flood.to_string(),
            rival: case.rival.name(),
            run: case.run,
            seed: case.seed,
            status,
            complete: false,
            failure,
            environment: environment.clone(),
        }
    }

    /// As one line of JSON, without its end.
    ///
    /// # Errors
    /// None that this type can cause; the encoder's.
    pub fn to_json(&self) -> Result<String, std::io::Error> {
        serde_json::to_string(self).map_err(std::io::Error::other)
    }
}

/// One class of one case. Times in microseconds; `null` where nothing was measured.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// The transport's name.
    pub transport: &'static str,
    /// Where: records of different labs never share a table.
    pub lab: &'static str,
    /// The path's impairment.
    pub profile: String,
    /// The lab was measured against its profile before, and did as it says.
    pub lab_checked: bool,
    /// What was asked: `query`, `transact`, `propagate`.
    pub workload: &'static str,
    /// What else filled the connection.
    pub flood: String,
    /// Who else used the bottleneck: a kernel TCP flow's congestion control, set and read back.
    pub rival: &'static str,
    /// The class that was measured.
    pub class: &'static str,
    /// Median.
    pub p50_us: Option<f64>,
    /// 90% were faster.
    pub p90_us: Option<f64>,
    /// 99% were faster.
    pub p99_us: Option<f64>,
    /// 99.9% were faster; with less than 1,000 samples the slowest.
    pub p999_us: Option<f64>,
    /// The slowest.
    pub max_us: Option<f64>,
    /// Mean.
    pub mean_us: Option<f64>,
    /// Queries scheduled in the measured time, unfinished ones included.
    pub samples: u64,
    /// Of them without an answer; they count as the worst.
    pub unfinished: u64,
    /// `transact`: answers that say that an operation wasn't the next one of its account. 0, or the run isn't complete.
    pub out_of_order: u64,
    /// `transact`: answers that refuse for another reason. 0, or the run isn't complete.
    pub refused: u64,
    /// BELIEF bytes that the receiver's application took, in 10^6 bits per second.
    pub belief_goodput_mbps: f64,
    /// The same as a share of the rate that the profile gives this direction.
    pub belief_goodput_share: Option<f64>,
    /// The same two of the other direction, in a flood both ways.
    pub belief_back_goodput_mbps: Option<f64>,
    /// Of the rate that the profile gives that direction.
    pub belief_back_goodput_share: Option<f64>,
    /// What a flood in an open loop offered while it was measured, in 10^6 bits per second: `null` for any other flood.
    pub belief_offered_mbps: Option<f64>,
    /// Of that what found room to be sent.
    pub belief_sent_mbps: Option<f64>,
    /// BELIEFs that it offered.
    pub belief_offered: Option<u64>,
    /// Of them those that were refused, as their class's send budget was used up.
    pub belief_refused: Option<u64>,
    /// What the rival's receiver took, in 10^6 bits per second.
    pub rival_goodput_mbps: Option<f64>,
    /// Of the rate that the profile gives this direction.
    pub rival_goodput_share: Option<f64>,
    /// 1 for the first.
    pub run: u32,
    /// The schedule's seed.
    pub seed: u64,
    /// What became of it: complete or incomplete.
    pub status: Status,
    /// `false`: interrupted, or the connection ended. Not for a table.
    pub complete: bool,
    /// How the connection ended, if it did by itself, or what was wrong with the answers.
    pub failure: Option<String>,
    /// How late the generator was, median: the system's time to wake a sleeping thread. It's part of the latencies.
    pub lateness_p50_us: Option<f64>,
    /// The same at 99%.
    pub lateness_p99_us: Option<f64>,
    /// The same at most.
    pub lateness_max_us: Option<f64>,
    /// Queries per second on average, at random times (Poisson), whether or not earlier ones are answered.
    pub rate_qps: f64,
    /// Bytes of a query, encoded; for other workloads bytes of an operation's value.
    pub query_bytes: usize,
    /// Bytes of a query's answer, encoded.
    pub result_bytes: Option<usize>,
    /// Bytes of a flood's message, encoded.
    pub belief_bytes: usize,
    /// Seconds measured.
    pub duration_s: f64,
    /// Seconds under the same load before.
    pub warm_up_s: f64,
    /// What shares which thread.
    pub threads: String,
    /// The end that asks and floods.
    pub client: End,
    /// The end that answers and takes.
    pub server: End,
    /// The asking and the answering end of BELIEF's connection, if it has one of its own.
    pub belief_ends: Option<[End; 2]>,
    /// The same of the connection for copies, if there's one.
    pub copy_ends: Option<[End; 2]>,
    /// The network between them, if it's an emulated one.
    pub network: Option<Network>,
    /// What happened when, if the profile has a schedule.
    pub series: Option<Series>,
    /// Build and machine.
    #[serde(flatten)]
    pub environment: Environment,
}

impl Record {
    pub(super) fn new(case: &Case, lab: &dyn Lab, lab_checked: bool, environment: &Environment, measured: &Measurement) -> Self {
        let (times, work, rates) = (&measured.latency, &case.workload, lab.rates_mbps());
        let forward = goodput(measured.belief_bytes, measured.window);
        let back = (case.flood == Flood::BothWays).then(|| goodput(measured.belief_bytes_back, measured.window));
        let rival = (case.rival != Rival::None).then(|| goodput(measured.rival_bytes, measured.window));
        let offered_mbps = |messages: u64| rounded(goodput(messages * work.belief_bytes as u64, measured.window), 10.0);
        Self {
            transport: case.variant.name(),
            lab: lab.name(),
            profile: lab.profile().to_owned(),
            lab_checked,
            workload: work.kind.name(),
            flood: case.flood.to_string(),
            rival: case.rival.name(),
            class: work.kind.class(),
            p50_us: times.quantile(0.5),
            p90_us: times.quantile(0.9),
            p99_us: times.quantile(0.99),
            p999_us: times.quantile(0.999),
            max_us: times.max(),
            mean_us: times.mean(),
            samples: times.count(),
            unfinished: measured.unfinished,
            out_of_order: measured.out_of_order,
            refused: measured.refused,
            belief_goodput_mbps: rounded(forward, 10.0),
            belief_goodput_share: rates.map(|[rate, _]| rounded(forward / rate, 1e4)),
            belief_back_goodput_mbps: back.map(|back| rounded(back, 10.0)),
            belief_back_goodput_share: back.zip(rates).map(|(back, [_, rate])| rounded(back / rate, 1e4)),
            belief_offered_mbps: measured.offered.map(|offered| offered_mbps(offered.messages)),
            belief_sent_mbps: measured.offered.map(|offered| offered_mbps(offered.messages.saturating_sub(offered.refused))),
            belief_offered: measured.offered.map(|offered| offered.messages),
            belief_refused: measured.offered.map(|offered| offered.refused),
            rival_goodput_mbps: rival.map(|rival| rounded(rival, 10.0)),
            rival_goodput_share: rival.zip(rates).map(|(rival, [rate, _])| rounded(rival / rate, 1e4)),
            run: case.run,
            seed: case.seed,
            status: if measured.complete { Status::Complete } else { Status::Incomplete },
            complete: measured.complete,
            failure: measured.failure.clone(),
            lateness_p50_us: measured.lateness.quantile(0.5),
            lateness_p99_us: measured.lateness.quantile(0.99),
            lateness_max_us: measured.lateness.max(),
            rate_qps: work.rate,
            query_bytes: work.query_bytes,
            result_bytes: (work.kind == Kind::Query).then_some(work.result_bytes),
            belief_bytes: work.belief_bytes,
            duration_s: measured.window.as_secs_f64(),
            warm_up_s: work.warm_up.as_secs_f64(),
            threads: lab.threads(work.kind),
            client: measured.client.clone(),
            server: measured.server.clone(),
            belief_ends: measured.belief_ends.clone(),
            copy_ends: measured.copy_ends.clone(),
            network: measured.network.clone(),
            series: measured.series.clone(),
            environment: measured.network.as_ref().map_or_else(|| environment.clone(), |network| environment.on(&network.kernel)),
        }
    }

    /// As one line of JSON, without its end.
    ///
    /// # Errors
    /// None that this type can cause; the encoder's.
    pub fn to_json(&self) -> Result<String, std::io::Error> {
        serde_json::to_string(self).map_err(std::io::Error::other)
    }
}

/// To so many parts of one.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
