//! The foreign TCP protocol behind peerlane's own trait: [`ConvexTcp`] dials and listens like any transport, and a `Node` that adopts its
//! connections sends QUERY and TRANSACT through the same calls as among peerlane's own peers.
//!
//! A connection here is two sessions of core's over a pipe in memory, one for the caller and one that the *bridge* holds. So queues,
//! budgets, credit and graceful close are those of every transport, and the bridge only turns whole messages into frames and back.
//!
//! Provided: each message in its class, by its kind; a RESULT in the class of its request; backpressure on the Java peer's
//! socket when a class isn't read; a remote that starts unproven and, with a key to ask with, is proven by CHALLENGE
//! ([`Connection::remote`] changes); the peer's own challenges answered.
//! Not provided: isolation of classes from each other between the bridge and the peer: that is one TCP connection, and one frame of it
//! is taken at a time. Streamed messages: a RESULT above its class's largest message becomes an error, a larger
//! other message is dropped.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerlane_cell::{Name, ValueId};
use peerlane_transport::{
    ClassId, ClassTable, CloseCode, ConnectError, Connection, Inbound, ListenError, Listener, PathStats, Session, SessionInfo, Transport,
    Upgrade,
    admission::{Agreed, Terms},
    framing,
    identity::{PeerId, Proof, Remote},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};

use crate::{Challenge, ErrorCode, Frames, Kind, Message, Payload, client::challenged, limits::MAX_FRAME};

/// Bytes in the pipe between the two sessions, each way: one frame of class framing and some.
const PIPE: usize = 64 * 1024;
/// How much is asked of the socket at once, in bytes.
const READ: usize = 64 * 1024;
/// Requests whose class is remembered, to send their results in it. A result of another one goes in the query class.
const MAX_PENDING: usize = 16_384;
/// How long messages may take that are on their way when a side is done.
const LINGER: Duration = Duration::from_secs(1);
/// The ID of our own challenge: negative, so that no request of a node (up to 63 bits, not negative) has it.
const CHALLENGE_ID: i64 = -1;

/// How the transport behaves.
#[derive(Debug, Clone)]
pub struct ConvexTcpConfig {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The largest frame body that is taken, in bytes.
    pub max_frame: usize,
    /// Our peer key: challenges are made and answered with it. `None`: the remote stays unproven.
    pub key: Option<SigningKey>,
    /// The network (genesis hash) that challenges are for.
    pub network: Option<ValueId>,
}

impl Default for ConvexTcpConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(8), max_frame: MAX_FRAME, key: None, network: None }
    }
}

/// Where a Convex peer is: `host:port`. It names no key: that is asked for by CHALLENGE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConvexAddr(pub String);

impl fmt::Display for ConvexAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The classes of Convex traffic: the standard ones by name and order. Query and data take whole replies of the reference peer: 254 cells of
/// 16,383 bytes are 4.2 MB. Worst case per connection and direction: the budgets' sum, 42 MiB.
#[must_use]
pub fn classes() -> ClassTable {
    const LARGEST: usize = 5 << 20;
    let standard = ClassTable::standard();
    let larger = standard.iter().map(|(_, class)| {
        let mut class = class.clone();
        class.max_message = if &*class.name == ClassTable::CONTROL { 64 << 10 } else { LARGEST };
        class.send_budget = class.send_budget.max(2 * class.max_message);
        class.receive_budget = class.receive_budget.max(2 * class.max_message);
        class
    });
    ClassTable::new(larger.collect()).unwrap_or_else(|_| ClassTable::standard())
}

/// The class of a kind; a RESULT travels in its request's.
#[must_use]
pub fn class_of(kind: Kind) -> ClassId {
    // In the standard table's order.
    ClassId(match kind {
        Kind::Query | Kind::Result | Kind::LatticeQuery => 1,
        Kind::Transact => 2,
        Kind::Data | Kind::DataRequest => 3,
        Kind::Belief | Kind::RequestBelief | Kind::LatticeValue => 4,
        _ => 0,
    })
}

/// The transport. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConvexTcp {
    terms: Terms,
    config: Arc<ConvexTcpConfig>,
}

impl ConvexTcp {
    /// Under these terms, whose classes are [`classes`]'.
    ///
    /// # Errors
    /// [`ConnectError::Config`] for other classes.
    pub fn new(terms: Terms, config: ConvexTcpConfig) -> Result<Self, ConnectError> {
        if terms.classes != classes() {
            return Err(ConnectError::Config("the classes aren't those of Convex traffic".into()));
        }
        Ok(Self { terms, config: Arc::new(config) })
    }

    fn establish(&self, stream: TcpStream, dialed: bool) -> io::Result<Connection> {
        // Small writes mustn't wait for a delayed acknowledgement.
        stream.set_nodelay(true)?;
        let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
        let session = |dialed| {
            let info = SessionInfo {
                transport: "convex",
                dialed,
                remote: Remote::anonymous(remote),
                local_addr: local.to_string(),
                remote_addr: remote.to_string(),
                exporter: [0; 32],
                path: Box::new(PathStats::unknown),
            };
            Session::start(info, Agreed::same(&self.terms), self.terms.classes.clone(), self.terms.limits.clone())
        };
        let ((outer, ours), (inner, bridged)) = (session(dialed), session(!dialed));
        let (a, b) = tokio::io::duplex(PIPE);
        tokio::spawn(framing::drive(a, outer, bytes::BytesMut::new()));
        tokio::spawn(framing::drive(b, inner, bytes::BytesMut::new()));
        let (reader, writer) = stream.into_split();
        let bridge = Arc::new(Bridge {
            inner: bridged,
            outer: ours.clone(),
            config: self.config.clone(),
            writer: AsyncMutex::new(writer),
            pending: Mutex::default(),
        });
        tokio::spawn(bridge.run(reader));
        Ok(ours)
    }
}

impl Transport for ConvexTcp {
    type Addr = ConvexAddr;
    type Local = SocketAddr;
    type Listener = ConvexListener;

    fn name(&self) -> &'static str {
        "convex"
    }

    async fn dial(&self, addr: &ConvexAddr) -> Result<Connection, ConnectError> {
        let limit = self.config.connect_timeout;
        let connected = timeout(limit, TcpStream::connect(&addr.0)).await;
        let connected = connected.map_err(|_| ConnectError::Timeout { what: "the connection", limit })?;
        let unreachable = |source| ConnectError::Unreachable { addr: addr.to_string(), source };
        self.establish(connected.map_err(unreachable)?, true).map_err(unreachable)
    }

    async fn listen(&self, local: &SocketAddr) -> Result<ConvexListener, ListenError> {
        let bind = |source| ListenError::Bind { addr: local.to_string(), source };
        let listener = TcpListener::bind(local).await.map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        Ok(ConvexListener { listener, local, transport: self.clone() })
    }
}

/// Where Convex peers arrive.
#[derive(Debug)]
pub struct ConvexListener {
    listener: TcpListener,
    local: SocketAddr,
    transport: ConvexTcp,
}

impl Listener for ConvexListener {
    type Local = SocketAddr;
    type Upgrade = ConvexArrival;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> Result<ConvexArrival, ListenError> {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => return Ok(ConvexArrival { stream, from, transport: self.transport.clone() }),
                // Out of descriptors: they come back.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// A peer that has arrived. There's no handshake: it's anonymous until a challenge.
#[derive(Debug)]
pub struct ConvexArrival {
    stream: TcpStream,
    from: SocketAddr,
    transport: ConvexTcp,
}

impl Upgrade for ConvexArrival {
    fn remote_addr(&self) -> String {
        self.from.to_string()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { addr: self.from.to_string(), source };
        self.transport.establish(self.stream, false).map_err(unreachable)
    }
}

/// Between the caller's session and the peer's socket.
struct Bridge {
    /// Our end of the pipe.
    inner: Connection,
    /// The caller's connection: told when its remote is proven.
    outer: Connection,
    config: Arc<ConvexTcpConfig>,
    /// Each class has a task that writes whole frames; they take turns.
    writer: AsyncMutex<OwnedWriteHalf>,
    /// The class of each request that isn't answered yet; bounded by [`MAX_PENDING`].
    pending: Mutex<HashMap<i64, ClassId>>,
}

impl Bridge {
    async fn run(self: Arc<Self>, reader: OwnedReadHalf) {
        let mut tasks = tokio::task::JoinSet::new();
        for (class, _) in self.inner.classes().iter() {
            let bridge = self.clone();
            tasks.spawn(async move { bridge.write_class(class).await });
        }
        let proving = async {
            let challenge = self.challenge().await;
            self.read(reader, challenge).await
        };
        let why = tokio::select! {
            why = proving => why,
            closed = self.inner.closed() => closed.to_string(),
            () = self.inner.remote_draining() => String::new(),
        };
        // What the caller hasn't read yet may still be, and what it has sent is written; a peer that went away is no fault.
        let _ = timeout(LINGER, self.inner.drain()).await;
        self.inner.close(CloseCode::Done, &why);
        let _ = timeout(LINGER, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.abort_all();
        // Last words, if anybody listens.
        let mut writer = self.writer.lock().await;
        let _ = timeout(Duration::from_secs(1), writer.write_all(&Message::goodbye().frame())).await;
        let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<i64, ClassId>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.writer.lock().await.write_all(frame).await
    }

    /// Whole messages of a class, as frames. Each class holds one at most; the rest waits within its budget.
    async fn write_class(&self, class: ClassId) {
        loop {
            let body = match self.inner.recv(class).await {
                Ok(Inbound::Whole(body)) => body,
                // Dropped, it's stopped: the caller's writer is told.
                Ok(_) => continue,
                Err(_) => return,
            };
            // Our own messages: read for their ID alone.
            if let Ok(message) = Message::decode(&body)
                && message.kind().is_request()
                && let Some(id) = message.id()
            {
                let mut pending = self.pending();
                if pending.len() < MAX_PENDING {
                    pending.insert(id, class);
                }
            }
            if self.write(&crate::frame(&body)).await.is_err() {
                return;
            }
        }
    }

    /// Asks the peer to prove its key, if we have one to ask with.
    async fn challenge(&self) -> Option<Challenge> {
        let key = self.config.key.as_ref()?;
        let challenge = Challenge { token: rand::random(), target: None, context: self.config.network };
        let message = Message::challenge(CHALLENGE_ID, challenge.sign(key).ok()?).ok()?;
        self.write(&message.frame()).await.ok()?;
        Some(challenge)
    }

    /// Reads frames until the peer's end; says why it's over.
    async fn read(&self, mut reader: OwnedReadHalf, challenge: Option<Challenge>) -> String {
        let mut frames = Frames::new(self.config.max_frame);
        loop {
            loop {
                match frames.next_frame() {
                    Ok(Some(body)) => {
                        if !self.take(body, challenge.as_ref()).await {
                            return String::new();
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            frames.buffer().reserve(READ);
            match reader.read_buf(frames.buffer()).await {
                Ok(0) => return "the Convex peer closed".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Hands a message to the caller, waiting for room in its class. `false`: there's no caller any more.
    async fn take(&self, body: Bytes, challenge: Option<&Challenge>) -> bool {
        let Ok(message) = Message::decode(&body) else {
            let answer = Message::error(None, &ErrorCode::Format, "the message isn't in canonical form");
            return self.write(&answer.frame()).await.is_ok();
        };
        let (kind, id) = (message.kind(), message.id());
        if kind == Kind::Challenge && self.config.key.is_some() {
            let answer = challenged(&message, self.config.key.as_ref(), self.config.network.as_ref());
            return match answer {
                Some(answer) => self.write(&answer.frame()).await.is_ok(),
                None => true,
            };
        }
        if kind == Kind::Result && id == Some(CHALLENGE_ID) {
            if let Some(key) = challenge.and_then(|challenge| self.proven(&message, challenge)) {
                self.outer.set_remote(Remote { id: key.into(), proof: Proof::Application });
            }
            return true;
        }
        let class = match kind {
            Kind::Result => id.and_then(|id| self.pending().remove(&id)).unwrap_or_else(|| class_of(kind)),
            kind => class_of(kind),
        };
        let max = self.inner.classes().get(class).map_or(0, |class| class.max_message);
        let body = match body.len() <= max {
            true => body,
            false if kind == Kind::Result => {
                let code = Name::new("TOO-LARGE").map_or(ErrorCode::Load, ErrorCode::Other);
                Message::error(id, &code, "the answer is longer than its class permits").encode()
            }
            false => {
                tracing::warn!(%kind, bytes = body.len(), max, "a message longer than its class permits is dropped");
                return true;
            }
        };
        self.inner.send(class, body).await.is_ok()
    }

    fn proven(&self, message: &Message, challenge: &Challenge) -> Option<PeerId> {
        let Ok(Payload::Result(outcome)) = message.parse() else { return None };
        let own = self.config.key.as_ref()?.verifying_key().to_bytes();
        let answer = message.value(&outcome.value).filter(|_| outcome.error.is_none())?;
        match challenge.verify_answer(&answer, &own) {
            Ok(key) => PeerId::from_slice(&key).ok(),
            Err(error) => {
                tracing::warn!(%error, "the Convex peer isn't proven");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
