//! Dialing a remote gateway: QUIC first, TCP a little later, whichever answers.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use peerlane_transport::{AnyTransport, ConnectError, Connection, identity::PeerAddr};
use tokio::time::{Instant, sleep_until, timeout};

/// The transports, in the order of preference.
pub(super) type Transports = Vec<AnyTransport<PeerAddr, SocketAddr>>;

/// Nothing has worked yet.
const NONE: usize = usize::MAX;

/// How one remote gateway is reached.
#[derive(Debug)]
pub(super) struct Dialer {
    addr: PeerAddr,
    /// The place of the transport that worked last: it's tried first.
    worked: AtomicUsize,
}

/// What came of the attempts.
#[derive(Debug, thiserror::Error)]
#[error("no gateway at {addr}: {}", attempts.iter().map(|(transport, error)| format!("{transport}: {error}")).collect::<Vec<_>>().join("; "))]
pub(super) struct DialError {
    addr: PeerAddr,
    attempts: Vec<(&'static str, ConnectError)>,
}

type Attempt<'a> = BoxFuture<'a, (usize, Result<Connection, ConnectError>)>;

impl Dialer {
    pub(super) fn new(addr: PeerAddr) -> Self {
        Self { addr, worked: AtomicUsize::new(NONE) }
    }

    pub(super) fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// Tries all transports, each `stagger` later than the one before; the first to answer wins, the others are abandoned.
    ///
    /// # Cancel safety
    /// Dropping the future abandons all attempts.
    pub(super) async fn dial(&self, transports: &Transports, stagger: Duration, limit: Duration) -> Result<Connection, DialError> {
        let worked = self.worked.load(Ordering::Relaxed);
        let mut ranks: Vec<usize> = (0..transports.len()).collect();
        ranks.sort_by_key(|rank| *rank != worked);
        let mut open = ranks.clone();
        let mut attempts = Vec::new();
        let racing = async {
            let mut waiting = ranks.into_iter();
            let mut running: FuturesUnordered<Attempt<'_>> = FuturesUnordered::new();
            let mut next_at = Instant::now();
            loop {
                if running.is_empty() && waiting.len() == 0 {
                    return None;
                }
                tokio::select! {
                    biased;
                    Some((rank, outcome)) = running.next(), if !running.is_empty() => match outcome {
                        Ok(connection) => {
                            self.worked.store(rank, Ordering::Relaxed);
                            return Some(connection);
                        }
                        Err(error) => {
                            open.retain(|open| *open != rank);
                            attempts.push((transports[rank].name(), error));
                            next_at = Instant::now();
                        }
                    },
                    () = sleep_until(next_at), if waiting.len() > 0 => {
                        if let Some(rank) = waiting.next() {
                            running.push(Box::pin(async move { (rank, transports[rank].dial(&self.addr).await) }));
                        }
                        next_at = Instant::now() + stagger;
                    }
                }
            }
        };
        if let Ok(Some(connection)) = timeout(limit, racing).await {
            return Ok(connection);
        }
        attempts.extend(open.into_iter().map(|rank| (transports[rank].name(), ConnectError::Timeout { what: "connecting", limit })));
        Err(DialError { addr: self.addr.clone(), attempts })
    }
}
