//! The suite over the smallest transport there is: class framing over a pipe in memory. It's the model of a third
//! transport; and with [`Flaws`] put in on purpose, it shows that the suite sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use peerlane_transport::{
    ConnectError, Connection, ListenError, Listener, PathStats, Session, SessionInfo, Transport, Upgrade,
    admission::{LocalPeer, hello},
    conformance::{self, Capabilities, Factory, Outcome, Report},
    framing,
    identity::{PeerId, Remote},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::{mpsc, oneshot},
};

// ----- the transport

/// Where listeners are found, and the one path between them all.
#[derive(Default)]
struct World {
    listeners: Mutex<HashMap<u64, mpsc::Sender<Pipe>>>,
    next: AtomicU64,
    path: Path,
    /// Bytes that a pipe holds each way.
    depth: usize,
    flaw: Option<Flaw>,
}

/// What a transport can do wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    /// Whoever answers is taken for whom was dialed.
    AnyKey,
    /// The lists are asked at the handshake alone.
    NoGuard,
    /// A refusal isn't told to the other side.
    SilentRefusal,
    /// The connection ends without last words.
    Mute,
    /// A handshake holds up the next arrival.
    OneByOne,
    /// A task outlives its connection.
    Leak,
    /// Nobody ends a handshake that isn't answered.
    Patient,
}

struct InMemory {
    world: Arc<World>,
    peer: LocalPeer,
}

impl Transport for InMemory {
    type Addr = Address;
    type Local = Port;
    type Listener = Port0;

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn dial(&self, addr: &Address) -> Result<Connection, ConnectError> {
        let listener = self.world.listeners.lock().unwrap().get(&addr.port.0).cloned();
        let nobody = || ConnectError::Unreachable { addr: addr.to_string(), source: io::ErrorKind::ConnectionRefused.into() };
        let (ours, theirs) = tokio::io::duplex(self.world.depth);
        let [ours, theirs] = [(ours, true), (theirs, false)].map(|(io, dialed)| Pipe { io, world: self.world.clone(), dialed, lost: None });
        listener.ok_or_else(nobody)?.send(theirs).await.map_err(|_| nobody())?;
        connect(ours, &self.peer, Some(addr.peer)).await
    }

    async fn listen(&self, local: &Port) -> Result<Port0, ListenError> {
        let (sender, arrivals) = mpsc::channel(64);
        self.world.listeners.lock().unwrap().insert(local.0, sender);
        Ok(Port0 { port: local.clone(), arrivals, world: self.world.clone(), peer: self.peer.clone() })
    }
}

struct Port0 {
    port: Port,
    arrivals: mpsc::Receiver<Pipe>,
    world: Arc<World>,
    peer: LocalPeer,
}

impl Drop for Port0 {
    fn drop(&mut self) {
        self.world.listeners.lock().unwrap().remove(&self.port.0);
    }
}

impl Listener for Port0 {
    type Local = Port;
    type Upgrade = Arrival;

    fn local(&self) -> Port {
        self.port.clone()
    }

    async fn accept(&mut self) -> Result<Arrival, ListenError> {
        let pipe = self.arrivals.recv().await.ok_or(ListenError::Closed)?;
        let peer = self.peer.clone();
        if self.world.flaw == Some(Flaw::OneByOne) {
            return Ok(Arrival::Done(connect(pipe, &peer, None).await));
        }
        Ok(Arrival::Pending { pipe, peer })
    }
}

enum Arrival {
    Pending { pipe: Pipe, peer: LocalPeer },
    Done(Result<Connection, ConnectError>),
}

impl Upgrade for Arrival {
    fn remote_addr(&self) -> String {
        "memory".into()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        match self {
            Self::Pending { pipe, peer } => connect(pipe, &peer, None).await,
            Self::Done(connection) => connection,
        }
    }
}

/// Certificates are shown and not proven, which is good enough in one process; then the hello, and the session.
async fn connect(mut pipe: Pipe, peer: &LocalPeer, expected: Option<PeerId>) -> Result<Connection, ConnectError> {
    let flaw = pipe.world.flaw;
    let handshake = async {
        let own = peer.tls.credentials().certificate();
        pipe.write_u16(own.len() as u16).await?;
        pipe.write_all(own).await?;
        let mut theirs = vec![0; pipe.read_u16().await?.into()];
        pipe.read_exact(&mut theirs).await?;
        let asked = expected.as_ref().filter(|_| flaw != Some(Flaw::AnyKey));
        let (remote, verdict, own_fault) = match peer.judge(asked, &[theirs.into()]) {
            Ok((id, remote)) => (Some((id, remote)), Ok(()), None),
            Err((error, _)) if flaw == Some(Flaw::SilentRefusal) => return Err(error.into()),
            Err((error, closed)) => (None, Err(closed), Some(error)),
        };
        match hello::exchange(&mut pipe, &peer.terms, verdict).await {
            Ok(agreed) => Ok((remote.expect("admitted"), agreed)),
            Err(error) => Err(own_fault.map_or(error, ConnectError::from)),
        }
    };
    let limit = if flaw == Some(Flaw::Patient) { Duration::MAX } else { peer.terms.limits.handshake_timeout };
    let timeout = ConnectError::Timeout { what: "the handshake", limit };
    let ((id, remote), (agreed, early)): ((PeerId, Remote), _) = tokio::time::timeout(limit, handshake).await.map_err(|_| timeout)??;
    let info = SessionInfo {
        transport: "memory",
        dialed: expected.is_some(),
        remote,
        local_addr: String::new(),
        remote_addr: String::new(),
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    };
    let (session, connection) = Session::start(info, agreed, peer.terms.classes.clone(), peer.terms.limits.clone());
    if flaw != Some(Flaw::NoGuard) {
        session.guard(peer.lists.clone(), id);
    }
    match flaw {
        Some(Flaw::Mute) => drop(tokio::spawn(async move {
            tokio::select! {
                biased;
                () = session.over().cancelled() => {}
                () = framing::drive(pipe, session.clone(), early) => {}
            }
        })),
        _ => drop(tokio::spawn(framing::drive(pipe, session, early))),
    }
    if flaw == Some(Flaw::Leak) {
        tokio::spawn(std::future::pending::<()>());
    }
    Ok(connection)
}

#[derive(Clone, Debug)]
struct Port(u64);

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory:{}", self.0)
    }
}

#[derive(Clone, Debug)]
struct Address {
    peer: PeerId,
    port: Port,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.peer, self.port)
    }
}

// ----- its factory

struct Memory {
    world: Arc<World>,
    can_cut: bool,
}

impl Memory {
    fn new(depth: usize, can_cut: bool) -> Self {
        Self { world: Arc::new(World { depth, ..World::default() }), can_cut }
    }

    fn flawed(flaw: Flaw) -> Self {
        Self { world: Arc::new(World { depth: 16 * 1024, flaw: Some(flaw), ..World::default() }), can_cut: true }
    }
}

impl Factory for Memory {
    type Transport = InMemory;

    fn transport(&self, peer: &LocalPeer) -> Result<InMemory, ConnectError> {
        Ok(InMemory { world: self.world.clone(), peer: peer.clone() })
    }

    fn local(&self) -> Port {
        Port(self.world.next.fetch_add(1, Ordering::Relaxed))
    }

    fn addr(&self, local: &Port, peer: PeerId) -> Address {
        Address { peer, port: local.clone() }
    }

    fn tls(&self) -> bool {
        false
    }

    fn cut(&self, cut: bool) -> bool {
        self.world.path.cut(self.can_cut && cut);
        self.can_cut
    }

    fn lose_next(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let (told, lost) = oneshot::channel();
        *self.world.path.doomed.lock().unwrap() = Some(told);
        Some(Box::pin(async move { drop(lost.await) }))
    }
}

// ----- a path that can be cut, and loses what a dialer sends: in order as it is, it brings it later, and all else behind it

#[derive(Default)]
struct Path {
    cut: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    doomed: Mutex<Option<oneshot::Sender<()>>>,
}

impl Path {
    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        self.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    /// Ready while the path isn't cut.
    fn open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock().unwrap();
        if !self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

struct Pipe {
    io: DuplexStream,
    world: Arc<World>,
    dialed: bool,
    lost: Option<(Pin<Box<tokio::time::Sleep>>, Vec<u8>)>,
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.world.path.open(cx));
        if let Some((back, data)) = &mut self.lost {
            std::task::ready!(back.as_mut().poll(cx));
            buffer.put_slice(data);
            self.lost = None;
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let doomed = if self.dialed || buffer.filled().len() < 400 { None } else { self.world.path.doomed.lock().unwrap().take() };
        if let Some(told) = doomed {
            self.lost = Some((Box::pin(tokio::time::sleep(Duration::from_millis(30))), buffer.filled().to_vec()));
            buffer.clear();
            let _ = told.send(());
            return self.poll_read(cx, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// ----- the suite

const CLAIMS: Capabilities = Capabilities { identity: true, loss_isolated: false, datagrams: false, kernel_queue: true };

/// `CONFORMANCE=isolation` runs the checks of that name alone.
fn filter() -> String {
    std::env::var("CONFORMANCE").unwrap_or_default()
}

#[tokio::test]
async fn class_framing_over_a_pipe_conforms() -> Report {
    conformance::run_only(Memory::new(16 * 1024, true), CLAIMS, &filter()).await
}

#[tokio::test(start_paused = true)]
async fn it_conforms_on_a_paused_clock() -> Report {
    conformance::run_only(Memory::new(2048, true), CLAIMS, &filter()).await
}

/// Peers that vanish or stop run on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_several_threads() -> Report {
    conformance::run_only(Memory::new(64 * 1024, false), CLAIMS, &filter()).await
}

/// The checks that contain `filter`, all of which must have failed.
async fn red(factory: Memory, claims: Capabilities, filter: &str) {
    let what = format!("{:?}, {} bytes deep", factory.world.flaw, factory.world.depth);
    let report = conformance::run_only(factory, claims, filter).await;
    assert!(report.rows.len() == 1 && report.failed().count() == 1, "{what}: should be red\n{report}");
}

#[tokio::test(start_paused = true)]
async fn the_suite_sees_what_a_transport_does_wrong() {
    for (flaw, check) in [
        (Flaw::AnyKey, "a_wrong_key"),
        (Flaw::AnyKey, "a_known_host"),
        (Flaw::NoGuard, "blocked_later"),
        (Flaw::SilentRefusal, "the_lists_are_asked"),
        (Flaw::Mute, "code_and_reason"),
        (Flaw::OneByOne, "a_slow_handshake"),
        (Flaw::Leak, "a_thousand"),
        (Flaw::Patient, "nobody_answers"),
    ] {
        red(Memory::flawed(flaw), CLAIMS, check).await;
    }
    // Megabytes given away can't be overtaken; and what's in order waits for what's lost.
    red(Memory::new(8 << 20, true), CLAIMS, "an_urgent_message_passes").await;
    red(Memory::new(16 * 1024, true), Capabilities { loss_isolated: true, ..CLAIMS }, "a_lost_packet").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_claimed_is_said() {
    let report = conformance::run_only(Memory::new(16 * 1024, true), Capabilities::default(), "identity::").await;
    let not_claimed = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::NotClaimed(_))).count();
    assert_eq!((not_claimed, report.failed().count()), (9, 0), "{report}");
    assert!(report.to_string().contains("not claimed (identity)"));
    assert!(!Report::default().passed(), "nothing was checked, and that's no success");
}
