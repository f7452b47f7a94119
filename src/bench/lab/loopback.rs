//! Both ends in this process, over the kernel's loopback, in real time.
//!
//! Each end has an operating system's thread and a `current_thread` runtime of its own, so that one's work isn't in
//! the other's queue. They share the processors, as two processes would; a machine with one of them shows it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use peerlane_transport::{
    Connection,
    admission::LocalPeer,
    identity::{Identity, PeerAddr},
};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use super::Lab;
use crate::bench::{
    BenchError, Case, End, Measurement,
    error::LabError,
    load::{self, Taken},
};

/// The network's name of a benchmark's two ends.
const NETWORK: &str = "peerlane-bench";
/// A closed connection's last words are waited for so long before its runtime goes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Tasks that a runtime polls between two looks at its sockets and timers (tokio's `event_interval`, 61 by default).
/// Under a flood a poll here encrypts tens of kilobytes, so that 61 of them are most of a millisecond in which an
/// arrived RESULT lies in its socket: on two cores QUERY's median over QUIC fell from 1.0 to 0.3 ms with 4 and its mean
/// from 1.1 to 0.6, and BELIEF's rate didn't fall; over TCP all stayed within the noise.
const EVENT_INTERVAL: u32 = 4;

/// The loopback lab. See the module's text.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Loopback {
    /// Tasks that each end's runtime polls between two looks at its sockets and timers, 1 at least. 4 by default; tokio's
    /// own default is 61.
    pub event_interval: u32,
}

impl Default for Loopback {
    fn default() -> Self {
        Self { event_interval: EVENT_INTERVAL }
    }
}

impl Loopback {
    /// The lab as it's by default.
    pub fn new() -> Self {
        Self::default()
    }

    fn block_on<T>(self, work: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
        runtime::Builder::new_current_thread().enable_all().event_interval(self.event_interval.max(1)).build()?.block_on(work)
    }
}

/// What the answering end tells the other one.
struct Listening {
    addr: PeerAddr,
    /// Its connection, for the counters at the end.
    accepted: mpsc::Receiver<Connection>,
    taken: Arc<Taken>,
}

impl Lab for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn profile(&self) -> &str {
        "none"
    }

    fn threads(&self) -> String {
        format!(
            "each end: a thread and a current_thread runtime of its own (event_interval {}), in one process",
            self.event_interval.max(1)
        )
    }

    fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError> {
        let (tell, told) = mpsc::channel();
        // The end of one is the end of the other: it never waits for what won't come.
        let over = CancellationToken::new();
        let blame = |end| move |source| BenchError::Lab { end, variant: case.variant.name(), source };
        let (server, client) = thread::scope(|scope| {
            let over = &over;
            let server = thread::Builder::new()
                .name("bench-server".into())
                .spawn_scoped(scope, move || self.block_on(async move { serve(case, tell, over).await }));
            let client = thread::Builder::new()
                .name("bench-client".into())
                .spawn_scoped(scope, move || self.block_on(async move { ask(case, &told, stop).await }));
            let client = join(client);
            over.cancel();
            (join(server), client)
        });
        match (client, server) {
            (Ok(measurement), Ok(())) => Ok(measurement),
            (Ok(_) | Err(LabError::OtherEnd), Err(error)) => Err(blame("answering end")(error)),
            (Err(error), _) => Err(blame("asking end")(error)),
        }
    }
}

fn join<T>(thread: std::io::Result<thread::ScopedJoinHandle<'_, Result<T, LabError>>>) -> Result<T, LabError> {
    thread?.join().unwrap_or_else(|_| Err(std::io::Error::other("an end's thread panicked").into()))
}

/// The answering end: one connection, until it's over.
async fn serve(case: &Case, tell: mpsc::Sender<Listening>, over: &CancellationToken) -> Result<(), LabError> {
    let identity = Identity::generate()?;
    let transport = case.variant.make(LocalPeer::open(&identity, NETWORK)?)?;
    let mut listener = transport.listen(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let (accept, accepted) = mpsc::channel();
    let taken = Arc::new(Taken::default());
    // Nobody listens any more: the other end has failed, and cancels this one.
    let _ = tell.send(Listening { addr: PeerAddr::new(identity.peer_id(), listener.local()), accepted, taken: taken.clone() });
    let connection = tokio::select! {
        biased;
        () = over.cancelled() => return Ok(()),
        arrived = async { Ok::<_, LabError>(listener.accept().await?.upgrade().await?) } => arrived?,
    };
    let _ = accept.send(connection.clone());
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        served = load::answer(&connection, &case.workload, &taken) => served?,
    }
    drop((listener, connection, accept));
    let _ = tokio::time::timeout(LAST_WORDS, transport.idle()).await;
    Ok(())
}

/// The asking end: dials, applies the load, closes.
async fn ask(case: &Case, told: &mpsc::Receiver<Listening>, stop: &CancellationToken) -> Result<Measurement, LabError> {
    let identity = Identity::generate()?;
    let transport = case.variant.make(LocalPeer::open(&identity, NETWORK)?)?;
    // Blocks: this runtime has nothing else to do yet.
    let Listening { addr, accepted, taken } = told.recv().map_err(|_| LabError::OtherEnd)?;
    let connection = transport.dial(&addr).await?;
    let mut measured = load::apply(&connection, case, &taken, stop).await?;
    measured.client = End::of(&connection);
    if let Ok(other) = accepted.recv() {
        measured.server = End::of(&other);
    }
    connection.close(peerlane_transport::CloseCode::Done, "measured");
    let _ = tokio::time::timeout(LAST_WORDS, transport.idle()).await;
    Ok(measured)
}
