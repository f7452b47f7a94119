//! How long it takes until a peer that is dialed answers: the first time, and when it has been dialed before.
//!
//! The first time a transport knows nothing: no session to resume, no address token. Then the same transport dials again.
//! Each connection carries one QUERY and is closed when it's answered; dials follow each other.
//!
//! # Not provided
//! The fall back from QUIC to TCP where UDP is dropped: that's the node's, not a transport's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use peerlane_transport::{
    AnyTransport, Inbound,
    identity::{Identity, PeerAddr},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, Environment, Kind, Lab, Network, Variant, Workload,
    error::LabError,
    load::{Links, Tag, message},
    measurement::Times,
    report::{Grid, number},
};

/// A failed dial counts as having taken so long, or as long as it really did if that's more.
const FAILED: Duration = Duration::from_secs(10);
/// Whoever has no answer after so long has none.
const ANSWER: Duration = Duration::from_secs(30);

/// What is to be measured in each lab.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectPlan {
    /// The transports, in the table's order.
    pub variants: Vec<Variant>,
    /// Dials of each kind in a run, 1 at least.
    pub dials: u32,
    /// How often each transport is measured.
    pub runs: u32,
}

impl Default for ConnectPlan {
    fn default() -> Self {
        Self { variants: Variant::defaults(), dials: 100, runs: 5 }
    }
}

/// One transport, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectCase {
    /// The transport.
    pub variant: Variant,
    /// Dials of each kind.
    pub dials: u32,
    /// 1 for the first.
    pub run: u32,
}

/// Dials of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dials {
    /// From the dial to the connection.
    pub ready: Times,
    /// From the dial to the answer of the first QUERY.
    pub answered: Times,
    /// Dials without an answer: each counts in both with at least ten seconds.
    pub failed: u64,
}

impl Dials {
    fn new() -> Result<Self, LabError> {
        Ok(Self { ready: Times::new()?, answered: Times::new()?, failed: 0 })
    }

    fn pool(&mut self, other: &Self) {
        self.ready.pool(&other.ready);
        self.answered.pool(&other.answered);
        self.failed += other.failed;
    }
}

/// What one case gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    /// By a transport that knows nothing.
    pub first: Dials,
    /// By one that has dialed this peer before.
    pub resumed: Dials,
    /// The network between them, if it's an emulated one.
    pub network: Option<Network>,
    /// What a lab's inner end wrote to standard error.
    #[serde(skip)]
    pub log: String,
}

/// A row of [`Connected`] for a machine to read. Times in microseconds.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ConnectRecord {
    /// The transport's name.
    pub transport: &'static str,
    /// Where.
    pub lab: &'static str,
    /// The path's impairment.
    pub profile: String,
    /// Always `connect`.
    pub workload: &'static str,
    /// `first` or `resumed`.
    pub dial: &'static str,
    /// 1 for the first.
    pub run: u32,
    /// How many.
    pub samples: u64,
    /// Of them without an answer.
    pub failed: u64,
    /// Until the connection: median.
    pub ready_p50_us: Option<f64>,
    /// Until the answer: median.
    pub p50_us: Option<f64>,
    /// 99% were faster.
    pub p99_us: Option<f64>,
    /// The slowest.
    pub max_us: Option<f64>,
    /// Build and machine.
    #[serde(flatten)]
    pub environment: Environment,
}

/// Measures each transport in a lab, and gives each run's records to `each` as they're there. `stop` ends it between two
/// cases. Blocks.
///
/// # Errors
/// [`BenchError::Plan`] before anything is started; what the lab and `each` give.
pub fn connect(
    plan: &ConnectPlan,
    lab: &dyn Lab,
    stop: &CancellationToken,
    mut each: impl FnMut(&ConnectCase, &Connected, [ConnectRecord; 2]) -> Result<(), BenchError>,
) -> Result<Vec<(ConnectCase, Connected)>, BenchError> {
    if plan.variants.is_empty() || plan.runs == 0 || plan.dials == 0 {
        return Err(BenchError::Plan { what: "nothing to measure: at least one transport, one run and one dial".into() });
    }
    let here = Environment::here();
    let mut all = Vec::new();
    for run in 1..=plan.runs {
        for variant in &plan.variants {
            if stop.is_cancelled() {
                return Err(BenchError::Interrupted);
            }
            let case = ConnectCase { variant: *variant, dials: plan.dials, run };
            let connected = lab.connect(&case, stop)?;
            let environment = connected.network.as_ref().map_or_else(|| here.clone(), |network| here.on(&network.kernel));
            let record = |dial, dials: &Dials| ConnectRecord {
                transport: variant.name(),
                lab: lab.name(),
                profile: lab.profile().to_owned(),
                workload: "connect",
                dial,
                run,
                samples: dials.answered.count(),
                failed: dials.failed,
                ready_p50_us: dials.ready.quantile(0.5),
                p50_us: dials.answered.quantile(0.5),
                p99_us: dials.answered.quantile(0.99),
                max_us: dials.answered.max(),
                environment: environment.clone(),
            };
            each(&case, &connected, [record("first", &connected.first), record("resumed", &connected.resumed)])?;
            all.push((case, connected));
        }
    }
    Ok(all)
}

/// A table of one lab's measurements, pooled over runs.
pub fn table(plan: &ConnectPlan, lab: &dyn Lab, measured: &[(ConnectCase, Connected)]) -> String {
    let mut grid = Grid::new(&["transport", "dial", "", "ready p50", "p50", "p90", "p99", "max", "dials", "failed"]);
    let digits = if lab.rates_mbps().is_some() { 1 } else { 3 };
    for variant in &plan.variants {
        let its = || measured.iter().filter(|(case, _)| case.variant == *variant).map(|(_, connected)| connected);
        for (name, of) in [("first", (|c| &c.first) as fn(&Connected) -> &Dials), ("resumed", |c| &c.resumed)] {
            let mut runs = its().map(of);
            let Some(mut pooled) = runs.next().cloned() else { continue };
            runs.for_each(|run| pooled.pool(run));
            let ms = |micros: Option<f64>| number(micros.map(|micros| micros / 1e3), digits, "");
            let mut cells = vec![variant.name().to_owned(), name.to_owned(), "-".to_owned(), ms(pooled.ready.quantile(0.5))];
            cells.extend([0.5, 0.9, 0.99].map(|share| ms(pooled.answered.quantile(share))));
            cells.extend([ms(pooled.answered.max()), pooled.answered.count().to_string(), pooled.failed.to_string()]);
            grid.add(cells);
        }
    }
    format!(
        "connect: from the dial until the connection is ready, and until its first QUERY is answered, in ms; lab {}, profile {}\n{grid}",
        lab.name(),
        lab.profile(),
    )
}

/// The answering end: takes connections and answers each one's queries, until it's dropped.
pub(super) async fn serve(
    variant: Variant,
    address: std::net::IpAddr,
    tell: std::sync::mpsc::Sender<PeerAddr>,
) -> Result<std::convert::Infallible, LabError> {
    let identity = Identity::generate()?;
    let transport = variant.make(&identity, &Workload::default())?;
    let mut listener = transport.listen(&SocketAddr::from((address, 0))).await?;
    // Nobody listens any more: the other end has failed, and cancels this one.
    let _ = tell.send(PeerAddr::new(identity.peer_id(), listener.local()));
    loop {
        let arrival = listener.accept().await?;
        tokio::spawn(async move {
            // One that comes to nothing is the dialer's to tell.
            let Ok(connection) = arrival.upgrade().await else { return };
            let Ok(links) = Links::new(variant, Kind::Query, std::slice::from_ref(&connection)) else { return };
            while let Ok(Inbound::Whole(query)) = links.query.recv().await {
                let Some(id) = message::id(Tag::Query, &query) else { continue };
                let result = message::message(Tag::Result, id, Workload::default().result_bytes);
                if links.query.send(result).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The asking end.
pub(super) async fn ask(case: &ConnectCase, addr: &PeerAddr) -> Result<Connected, LabError> {
    let identity = Identity::generate()?;
    let mut connected = Connected { first: Dials::new()?, resumed: Dials::new()?, network: None, log: String::new() };
    for _ in 0..case.dials {
        let transport = case.variant.make(&identity, &Workload::default())?;
        dial(&transport, addr, case.variant, &mut connected.first).await;
        dial(&transport, addr, case.variant, &mut connected.resumed).await;
        transport.idle().await;
    }
    Ok(connected)
}

async fn dial(transport: &AnyTransport<PeerAddr, SocketAddr>, addr: &PeerAddr, variant: Variant, dials: &mut Dials) {
    let begun = Instant::now();
    let tried = async {
        let mut connections = Vec::new();
        while connections.len() < variant.connections() {
            connections.push(transport.dial(addr).await?);
        }
        let links = Links::new(variant, Kind::Query, &connections)?;
        let ready = begun.elapsed();
        links.query.send(message::message(Tag::Query, 0, Workload::default().query_bytes)).await?;
        let answered = tokio::time::timeout(ANSWER, links.query.recv()).await.is_ok_and(|answer| answer.is_ok());
        let taken = begun.elapsed();
        links.close("answered");
        Ok::<_, LabError>(answered.then_some((ready, taken)))
    };
    let (ready, answered) = match tried.await {
        Ok(Some(times)) => times,
        Ok(None) | Err(_) => {
            dials.failed += 1;
            let taken = begun.elapsed().max(FAILED);
            (taken, taken)
        }
    };
    dials.ready.record(ready);
    dials.answered.record(answered);
}
