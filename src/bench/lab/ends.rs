//! Both ends in this process: each has an operating system's thread and a `current_thread` runtime of its own, so that
//! one's work isn't in the other's queue. They share the processors, as two processes would.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use peerlane_transport::identity::{Identity, PeerAddr};
use serde::{Deserialize, Serialize};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::bench::{
    BenchError, Case, End, Measurement, Rival,
    connect::{self, ConnectCase, Connected},
    error::LabError,
    load::{self, Links, Scheduled, Taken, rival},
};

/// A closed connection's last words are waited for so long before its runtime goes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where an end is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The file of its network namespace; `None`: the process's own.
    pub(super) namespace: Option<PathBuf>,
    /// Its address.
    pub(super) address: IpAddr,
}

impl Place {
    /// Takes this thread there, and those that it starts.
    pub(super) fn enter(&self) -> Result<(), LabError> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let failed = |source| LabError::Namespace { path: namespace.clone(), source };
        #[cfg(target_os = "linux")]
        {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            use std::os::fd::AsFd;
            let file = std::fs::File::open(namespace).map_err(failed)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|errno| failed(errno.into()))
        }
        #[cfg(not(target_os = "linux"))]
        Err(failed(std::io::ErrorKind::Unsupported.into()))
    }
}

impl Place {
    /// Does something in a runtime of its own there, which polls so many tasks between two looks at its sockets and timers.
    pub(super) fn run<T>(&self, event_interval: u32, work: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
        // Before the runtime: its sockets and threads are where it was made.
        self.enter()?;
        runtime::Builder::new_current_thread().enable_all().event_interval(event_interval.max(1)).build()?.block_on(work)
    }
}

/// The two ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ends {
    pub(super) asking: Place,
    pub(super) answering: Place,
    /// Where a rival sends from, and where to.
    pub(super) rival: Option<[Place; 2]>,
    /// The path's scheduled events, from and until after the lab's start, which is when they're told to measure.
    pub(super) events: Vec<[Duration; 2]>,
    /// Tasks that each runtime polls between two looks at its sockets and timers, 1 at least.
    pub(super) event_interval: u32,
}

impl Ends {
    /// Measures one case, on a connection of its own. See [`Lab::measure`](super::Lab::measure).
    pub(super) fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError> {
        let schedule = (!self.events.is_empty()).then(|| Scheduled { start: Instant::now(), events: self.events.clone() });
        let (tell, told) = mpsc::channel();
        // The end of one is the end of the other: it never waits for what won't come.
        let over = CancellationToken::new();
        let blame = |end| move |source| BenchError::Lab { end, variant: case.variant.name(), source };
        let (rival_taken, ending) = (Taken::default(), Arc::new(rival::Ending::default()));
        let (server, client, beside) = thread::scope(|scope| {
            let (over, rival_taken, ending, schedule) = (&over, &rival_taken, &ending, schedule.as_ref());
            let start = |name: &str| thread::Builder::new().name(name.into());
            let beside = match case.rival {
                Rival::None => None,
                // It's there first, and leaves last.
                _ => Some(self.start_rival(case.rival, scope, rival_taken, ending)),
            };
            let server = start("bench-server")
                .spawn_scoped(scope, move || self.run_at(&self.answering, serve(case, self.answering.address, tell, over)));
            let client =
                start("bench-client").spawn_scoped(scope, move || self.run_at(&self.asking, ask(case, &told, rival_taken, schedule, stop)));
            let client = join(client);
            over.cancel();
            let server = join(server);
            ending.end();
            let beside = beside.map_or(Ok(()), |threads| threads?.into_iter().try_for_each(|thread| join(Ok(thread))));
            (server, client, beside)
        });
        if let Err(error) = beside {
            return Err(blame("rival")(error));
        }
        match (client, server) {
            (Ok(measurement), Ok(())) => Ok(measurement),
            (Ok(_) | Err(LabError::OtherEnd), Err(error)) => Err(blame("answering end")(error)),
            (Err(error), _) => Err(blame("asking end")(error)),
        }
    }

    /// Measures how soon connections stand. See [`Lab::connect`](super::Lab::connect).
    pub(super) fn connect(&self, case: &ConnectCase, stop: &CancellationToken) -> Result<Connected, BenchError> {
        let (tell, told) = mpsc::channel();
        let over = CancellationToken::new();
        let blame = |end| move |source| BenchError::Lab { end, variant: case.variant.name(), source };
        let (server, client) = thread::scope(|scope| {
            let over = &over;
            let start = |name: &str| thread::Builder::new().name(name.into());
            let serving = async move {
                let serving = connect::serve(case.variant, self.answering.address, tell);
                match over.run_until_cancelled(serving).await {
                    Some(Err(error)) => Err(error),
                    None => Ok(()),
                    Some(Ok(never)) => match never {},
                }
            };
            let asking = async move {
                // Blocks: this runtime has nothing else to do yet.
                let addr = told.recv().map_err(|_| LabError::OtherEnd)?;
                stop.run_until_cancelled(connect::ask(case, &addr)).await.transpose()
            };
            let server = start("bench-server").spawn_scoped(scope, move || self.run_at(&self.answering, serving));
            let client = start("bench-client").spawn_scoped(scope, move || self.run_at(&self.asking, asking));
            let client = join(client);
            over.cancel();
            (join(server), client)
        });
        match (client, server) {
            (Ok(connected), Ok(())) => connected.ok_or(BenchError::Interrupted),
            (Ok(_) | Err(LabError::OtherEnd), Err(error)) => Err(blame("answering end")(error)),
            (Err(error), _) => Err(blame("asking end")(error)),
        }
    }

    /// Starts both ends of a rival, once it has a place to send to.
    fn start_rival<'scope, 'env: 'scope>(
        &'env self,
        rival: Rival,
        scope: &'scope thread::Scope<'scope, 'env>,
        taken: &'scope Taken,
        ending: &'scope Arc<rival::Ending>,
    ) -> Result<Vec<thread::ScopedJoinHandle<'scope, Result<(), LabError>>>, LabError> {
        let Some([from, to]) = &self.rival else {
            return Err(std::io::Error::other("a rival needs a network of its own: --lab virtual or --lab netem").into());
        };
        let (tell, told) = mpsc::channel();
        let start = |name: &str| thread::Builder::new().name(name.into());
        let drains = start("bench-rival-to").spawn_scoped(scope, move || {
            to.enter()?;
            let listener = rival::listen(to.address)?;
            let _ = tell.send(listener.local_addr()?);
            rival::drain(&listener, taken, ending)
        })?;
        let pushes = start("bench-rival-from").spawn_scoped(scope, move || {
            from.enter()?;
            let to = told.recv().map_err(|_| LabError::OtherEnd)?;
            rival::push(rival, to, ending)
        })?;
        Ok(vec![pushes, drains])
    }

    /// What the ends share, for a record.
    pub(super) fn threads(&self) -> String {
        format!(
            "each end: a thread and a current_thread runtime of its own (event_interval {}), in one process",
            self.event_interval.max(1)
        )
    }

    fn run_at<T>(&self, place: &Place, work: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
        place.run(self.event_interval, work)
    }
}

/// What the answering end tells the other one.
struct Listening {
    addr: PeerAddr,
    /// Its end of the connections, for the counters.
    accepted: mpsc::Receiver<Links>,
    taken: Arc<Taken>,
}

pub(super) fn join<T>(thread: std::io::Result<thread::ScopedJoinHandle<'_, Result<T, LabError>>>) -> Result<T, LabError> {
    thread?.join().unwrap_or_else(|_| Err(std::io::Error::other("an end's thread panicked").into()))
}

/// The answering end: a case's connections, until they're over.
async fn serve(case: &Case, address: IpAddr, tell: mpsc::Sender<Listening>, over: &CancellationToken) -> Result<(), LabError> {
    let identity = Identity::generate()?;
    let transport = case.variant.make(&identity, &case.workload)?;
    let mut listener = transport.listen(&SocketAddr::from((address, 0))).await?;
    let (accept, accepted) = mpsc::channel();
    let taken = Arc::new(Taken::default());
    // Nobody listens any more: the other end has failed, and cancels this one.
    let _ = tell.send(Listening { addr: PeerAddr::new(identity.peer_id(), listener.local()), accepted, taken: taken.clone() });
    let links = async {
        let mut connections = Vec::new();
        // They come in the order in which they're dialed, since each is dialed when the one before stands.
        while connections.len() < case.variant.connections() {
            connections.push(listener.accept().await?.upgrade().await?);
        }
        Links::new(case.variant, case.workload.kind, &connections)
    };
    let links = tokio::select! {
        biased;
        () = over.cancelled() => return Ok(()),
        arrived = links => arrived?,
    };
    let _ = accept.send(links.clone());
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        served = load::answer(&links, case, &taken) => served?,
    }
    drop((listener, links, accept));
    let _ = tokio::time::timeout(LAST_WORDS, transport.idle()).await;
    Ok(())
}

/// The asking end: dials, applies the load, closes.
async fn ask(
    case: &Case,
    told: &mpsc::Receiver<Listening>,
    rival: &Taken,
    schedule: Option<&Scheduled>,
    stop: &CancellationToken,
) -> Result<Measurement, LabError> {
    let identity = Identity::generate()?;
    let transport = case.variant.make(&identity, &case.workload)?;
    // Blocks: this runtime has nothing else to do yet.
    let Listening { addr, accepted, taken } = told.recv().map_err(|_| LabError::OtherEnd)?;
    let mut connections = Vec::new();
    while connections.len() < case.variant.connections() {
        connections.push(transport.dial(&addr).await?);
    }
    let links = Links::new(case.variant, case.workload.kind, &connections)?;
    drop(connections);
    let mut measured = load::apply(&links, case, &taken, rival, schedule, stop).await?;
    let other = accepted.recv().map_err(|_| LabError::OtherEnd)?;
    measured.client = End { copies: links.copied(), ..End::of(&links.query) };
    measured.server = End { copies: other.copied(), ..End::of(&other.query) };
    measured.copy_ends = links.copy_lane().zip(other.copy_lane()).map(|(asking, answering)| [End::of(asking), End::of(answering)]);
    measured.belief_ends = links.apart().then(|| [End::of(&links.belief), End::of(&other.belief)]);
    links.close("measured");
    drop((links, other));
    let _ = tokio::time::timeout(LAST_WORDS, transport.idle()).await;
    // Of a dead connection nothing can be read.
    if measured.failure.is_none() {
        let ends = [&measured.client, &measured.server].into_iter();
        let mut ends = ends.chain(measured.belief_ends.iter().flatten()).chain(measured.copy_ends.iter().flatten());
        ends.try_for_each(|end| case.variant.verify(end))?;
    }
    Ok(measured)
}
