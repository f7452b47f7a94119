//! A third transport: Unix sockets. Dial, listen, shake hands; all else (classes, credit, backpressure, liveness,
//! graceful close) is `framing::drive`, the same as for TCP.
//!
//! Nothing proves who is at the other end: the dialer *claims* that it's the file it dialed, the listener knows nobody.
//! `Proof::None` says so to the layers above.

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use peerlane_transport::{
    ConnectError, Connection, Inbound, ListenError, Listener, PathStats, Session, SessionInfo, Transport, Upgrade,
    admission::Terms,
    framing, hello,
    identity::{Proof, Remote, RemoteId, Scheme},
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

/// Where a peer listens: a file.
#[derive(Clone, Debug)]
struct SocketPath(PathBuf);

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// The transport: what two peers must agree on is all it needs.
struct Unix(Terms);

/// What both sides do with a stream: exchange hellos, start a session, let it be driven.
async fn establish(mut stream: UnixStream, terms: &Terms, path: &SocketPath, dialed: bool) -> Result<Connection, ConnectError> {
    let limit = terms.limits.handshake_timeout;
    let exchanged = timeout(limit, hello::exchange(&mut stream, terms, Ok(()))).await;
    let (agreed, early) = exchanged.unwrap_or(Err(ConnectError::Timeout { what: "the hello", limit }))?;
    let claimed = if dialed { path.to_string() } else { String::new() };
    let id = RemoteId::new(Scheme::new("unix"), claimed.into()).map_err(|error| ConnectError::Config(error.to_string()))?;
    let info = SessionInfo {
        transport: "unix",
        dialed,
        remote: Remote { id, proof: Proof::None },
        local_addr: if dialed { String::new() } else { path.to_string() },
        remote_addr: if dialed { path.to_string() } else { String::new() },
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    };
    let (session, connection) = Session::start(info, agreed, terms.classes.clone(), terms.limits.clone());
    tokio::spawn(framing::drive(stream, session, early));
    Ok(connection)
}

impl Transport for Unix {
    type Addr = SocketPath;
    type Local = SocketPath;
    type Listener = Listening;

    fn name(&self) -> &'static str {
        "unix"
    }

    async fn dial(&self, addr: &SocketPath) -> Result<Connection, ConnectError> {
        let connected = UnixStream::connect(&addr.0).await;
        let stream = connected.map_err(|source| ConnectError::Unreachable { addr: addr.to_string(), source })?;
        establish(stream, &self.0, addr, true).await
    }

    async fn listen(&self, local: &SocketPath) -> Result<Listening, ListenError> {
        let bound = UnixListener::bind(&local.0);
        let listener = bound.map_err(|source| ListenError::Bind { addr: local.to_string(), source })?;
        Ok(Listening { listener, path: local.clone(), terms: self.0.clone() })
    }
}

struct Listening {
    listener: UnixListener,
    path: SocketPath,
    terms: Terms,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The name outlives the socket otherwise, and nobody could listen there again.
        let _ = std::fs::remove_file(&self.path.0);
    }
}

struct Arrival(UnixStream, SocketPath, Terms);

impl Listener for Listening {
    type Local = SocketPath;
    type Upgrade = Arrival;

    fn local(&self) -> SocketPath {
        self.path.clone()
    }

    async fn accept(&mut self) -> Result<Arrival, ListenError> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Ok(Arrival(stream, self.path.clone(), self.terms.clone())),
                // Out of descriptors: they come back.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Upgrade for Arrival {
    fn remote_addr(&self) -> String {
        "a process on this machine".into()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let Self(stream, path, terms) = self;
        establish(stream, &terms, &path, false).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let unix = Unix(Terms::new("example")?);
    let path = SocketPath(std::env::temp_dir().join(format!("peerlane-example-{}.sock", std::process::id())));
    let mut listener = unix.listen(&path).await?;
    let accepting = async { Ok::<_, Box<dyn std::error::Error>>(listener.accept().await?.upgrade().await?) };
    let (dialed, accepted) = tokio::join!(unix.dial(&path), accepting);
    let (dialed, accepted) = (dialed?, accepted?);
    println!("connected to {} (proof: {:?})", dialed.remote().id, dialed.remote().proof);
    for (class, kind) in dialed.classes().iter() {
        dialed.send(class, Bytes::from(format!("a message of class {}", kind.name))).await?;
        let Inbound::Whole(message) = accepted.recv(class).await? else { return Err("streamed".into()) };
        println!("{}", String::from_utf8_lossy(&message));
    }
    let (here, there) = tokio::join!(dialed.drain(), async {
        accepted.remote_draining().await;
        accepted.drain().await
    });
    Ok(here.and(there)?)
}
