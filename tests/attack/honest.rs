//! The honest peer: QUERYs in an open loop, through a node as everybody has it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use peerlane::{
    cad015::Cad015,
    node::{Event, Node, Silent},
    peer::Query,
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport,
    identity::{Identity, RemoteId},
};
use tokio::{task::JoinSet, time::Instant};

use crate::target::{By, Target, local, profile};

/// Between two QUERYs.
const EVERY: Duration = Duration::from_millis(10);
/// An answer that takes longer is lost. Long: how late answers are is for the figures, and a busy machine must fail no test.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Honest {
    node: Node<Cad015>,
    peer: RemoteId,
    disconnects: Arc<AtomicUsize>,
}

/// What came of some QUERYs: latency from the scheduled time, in microseconds; and what never came.
#[derive(Default)]
pub struct Phase {
    pub latencies: Vec<u64>,
    pub lost: Vec<String>,
}

impl Phase {
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.lost.extend(other.lost);
    }

    /// A quantile in microseconds; a lost one counts as the worst.
    pub fn quantile(&self, q: f64) -> u64 {
        let mut all = self.latencies.clone();
        all.extend(self.lost.iter().map(|_| u64::MAX));
        all.sort_unstable();
        let at = ((all.len() as f64 * q).ceil() as usize).clamp(1, all.len().max(1)) - 1;
        all.get(at).copied().unwrap_or(0)
    }
}

impl Honest {
    pub async fn connect(target: &Target, by: By) -> Self {
        let here = local(&Identity::generate().unwrap());
        let transport = match by {
            By::Quic => AnyTransport::new(QuicTransport::new(here.clone(), QuicConfig::default()).unwrap()),
            By::Tcp => AnyTransport::new(TcpTransport::new(here.clone(), TcpConfig::default()).unwrap()),
        };
        let node = Node::builder(Cad015::new(profile()), here).transport(transport).handler(Silent).start().await.unwrap();
        let peer = node.connect(&target.addr).await.unwrap();
        let disconnects = Arc::<AtomicUsize>::default();
        let (mut events, counter) = (node.events(), disconnects.clone());
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if matches!(event, Event::PeerDisconnected { .. }) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { node, peer, disconnects }
    }

    /// Asks for so long.
    pub async fn ask(&self, span: Duration) -> Phase {
        let query = Query::Count.message(&profile()).unwrap();
        let mut asked = JoinSet::new();
        let began = Instant::now();
        let mut due = began;
        while due < began + span {
            tokio::time::sleep_until(due).await;
            let (node, peer, query, scheduled) = (self.node.handle(), self.peer.clone(), query.clone(), due);
            asked.spawn(async move {
                let answer = node.request(peer, query, PATIENCE).await;
                answer.map(|_| scheduled.elapsed().as_micros() as u64).map_err(|error| error.to_string())
            });
            due += EVERY;
        }
        let mut phase = Phase::default();
        while let Some(answer) = asked.join_next().await {
            match answer.unwrap() {
                Ok(latency) => phase.latencies.push(latency),
                Err(error) => phase.lost.push(error),
            }
        }
        phase
    }

    pub fn disconnects(&self) -> usize {
        self.disconnects.load(Ordering::Relaxed)
    }

    pub async fn close(self) {
        self.node.shutdown().await;
    }
}
