//! Listening: arrivals are handed out as soon as they have begun, their handshakes still to be done. Those that join a
//! connection are handed to it, and to nobody else.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use peerlane_transport::{ConnectError, Connection, ListenError, Listener, Upgrade, admission::Handshake};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    handshake::{self, Begun, Ends, after, canonical},
    joining,
    transport::Shared,
};

/// How long accepting rests when the system has no descriptors or memory left: they come back when connections end,
/// and asking at once again would take the processor from those.
const REST: Duration = Duration::from_millis(50);

/// How long the end of a silent arrival waits for somebody who accepts it, to be told.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// Log lines about arrivals that came to nothing: one in this time at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Arrivals that have begun and that nobody has accepted yet, beside those whose tasks wait for room here. Count.
const ARRIVALS: usize = 1;

/// Where connections arrive. Dropping it frees the address; accepted connections live on.
///
/// Arrivals are taken from the kernel by a task of the listener's own, whether or not somebody [accepts](Listener::accept):
/// some of them belong to connections that stand, and are nobody's to accept. All hold permits of the gate from the start.
pub struct TcpListener {
    local: SocketAddr,
    socket: Arc<Listening>,
    arrivals: mpsc::Receiver<TcpUpgrade>,
    task: AbortHandle,
}

/// The listening socket, until the listener is dropped: then the address is free at once.
struct Listening(Mutex<Option<tokio::net::TcpListener>>);

impl Listening {
    /// `None`: nobody listens any more.
    async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        poll_fn(|cx| match &*self.lock() {
            Some(socket) => socket.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Option<tokio::net::TcpListener>> {
        // Nothing panics between lock and unlock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        drop(self.socket.lock().take());
        self.task.abort();
    }
}

impl TcpListener {
    pub(crate) fn bind(shared: Arc<Shared>, local: SocketAddr) -> Result<Self, ListenError> {
        let bound = || -> io::Result<tokio::net::TcpListener> {
            let socket = shared.settings.open(local)?;
            // A restarted peer gets its port back though connections of its former life are still in TIME-WAIT. (Windows
            // means something else by it: that somebody else may have the port too.)
            #[cfg(not(windows))]
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.listen(shared.config.backlog)?;
            tokio::net::TcpListener::from_std(socket.into())
        };
        let fail = |source| ListenError::Bind { addr: local.to_string(), source };
        let listener = bound().map_err(fail)?;
        let local = listener.local_addr().map_err(fail)?;
        let socket = Arc::new(Listening(Mutex::new(Some(listener))));
        let (give, arrivals) = mpsc::channel(ARRIVALS);
        let arriving = Arriving { shared, local, give, denied: Throttle::default(), failed: Throttle::default() };
        let task = tokio::spawn(arriving.run(socket.clone())).abort_handle();
        Ok(Self { local, socket, arrivals, task })
    }
}

impl Listener for TcpListener {
    type Local = SocketAddr;
    type Upgrade = TcpUpgrade;

    fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next arrival that has begun its handshake, or begun with something else; a silent one is shown when its time is
    /// over, one that hangs up before it begins isn't. See [`Listener::accept`].
    async fn accept(&mut self) -> Result<TcpUpgrade, ListenError> {
        self.arrivals.recv().await.ok_or(ListenError::Closed)
    }
}

/// Takes arrivals from the kernel.
struct Arriving {
    shared: Arc<Shared>,
    local: SocketAddr,
    give: mpsc::Sender<TcpUpgrade>,
    denied: Throttle,
    failed: Throttle,
}

impl Arriving {
    async fn run(mut self, socket: Arc<Listening>) {
        while let Some(accepted) = socket.accept().await {
            match accepted {
                Ok((stream, remote)) => {
                    if let Some(arrival) = self.admit(stream, remote) {
                        tokio::spawn(arrival.begin(self.give.clone()));
                    }
                }
                Err(error) => {
                    self.failed.log(Instant::now(), |skipped| {
                        tracing::warn!(local = %self.local, %error, skipped, "a connection couldn't be accepted; listening goes on");
                    });
                    if !concerns_one_arrival(&error) {
                        sleep(REST).await;
                    }
                }
            }
        }
    }

    /// Lets an arrival in, or closes it without a word: whoever floods us isn't worth a handshake.
    fn admit(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<Arrival> {
        let now = Instant::now();
        let permit = match self.shared.local.gate.admit(remote.ip(), now) {
            Ok(permit) => permit,
            Err(why) => {
                self.denied.log(now, |skipped| tracing::warn!(remote = %canonical(remote), %why, skipped, "arrival not admitted"));
                // A reset: nothing of a flood is kept, not even in TIME-WAIT.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return None;
            }
        };
        if let Err(error) = self.shared.settings.tune(&SockRef::from(&stream)) {
            self.failed.log(now, |skipped| tracing::debug!(remote = %canonical(remote), %error, skipped, "arrival ended at once"));
            return None;
        }
        let deadline = after(self.shared.handshake_timeout());
        Some(Arrival { shared: self.shared.clone(), stream, remote, permit, deadline })
    }
}

/// A connection that has arrived. It holds a permit of the gate.
struct Arrival {
    shared: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    permit: Handshake,
    deadline: Instant,
}

impl Arrival {
    /// Hears how it begins, and hands it to whom it belongs: to a connection that stands, or to whoever accepts the next.
    async fn begin(self, give: mpsc::Sender<TcpUpgrade>) {
        let Self { shared, stream, remote, permit, deadline } = self;
        let (socket, ends) = Ends::of(stream);
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket);
        let heard = tokio::select! {
            biased;
            // Nobody listens any more.
            () = give.closed() => return,
            heard = timeout_at(deadline, &mut hello) => heard,
        };
        let begun = match heard {
            Ok(Ok(start)) if joining::is_join(&shared, &start) => {
                if let Err(error) = joining::accepted(&shared, start, permit, deadline).await {
                    tracing::debug!(remote = %canonical(remote), %error, "a TCP connection hasn't joined");
                }
                return;
            }
            Ok(Ok(start)) => Begun::Hello(Box::new(start)),
            // What isn't TLS is shown. Who hangs up before has wanted nothing yet, or to join what's over by now.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Begun::Failed(error, hello.take_io()),
            Ok(Err(error)) => {
                tracing::debug!(remote = %canonical(remote), %error, "an arrival hung up before it began");
                return;
            }
            Err(_) => Begun::Silent,
        };
        // One that nobody accepts in time gives its permit back. A silent one is told at once, if somebody hears it.
        let last = deadline.max(Instant::now() + SILENT_FOR);
        let _ = timeout_at(last, give.send(TcpUpgrade { shared, begun, ends, remote, permit, deadline })).await;
    }
}

/// Whether an error of `accept` is about an arrival that's gone, and the next may be taken at once: Linux hands on the
/// network errors of the new socket (accept(2)). All else is the system's: out of descriptors, out of memory.
fn concerns_one_arrival(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
    )
}

/// At most one log line per [`LOG_INTERVAL`]; it's told how many were left out before it.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    skipped: u64,
}

impl Throttle {
    fn log(&mut self, now: Instant, line: impl FnOnce(u64)) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            self.skipped = self.skipped.saturating_add(1);
            return;
        }
        self.last = Some(now);
        line(std::mem::take(&mut self.skipped));
    }
}

/// A connection that has arrived, and isn't a peer yet. It holds a permit of the gate.
pub struct TcpUpgrade {
    shared: Arc<Shared>,
    begun: Begun,
    ends: Ends,
    remote: SocketAddr,
    permit: Handshake,
    deadline: Instant,
}

impl fmt::Debug for TcpUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpUpgrade").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Upgrade for TcpUpgrade {
    fn remote_addr(&self) -> String {
        canonical(self.remote)
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let connection = handshake::accepted(&self.shared, self.begun, self.ends, self.deadline).await?;
        self.permit.succeeded(Instant::now());
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_lost_arrival_is_skipped_and_an_exhausted_system_is_given_a_rest() {
        // Linux's numbers: ECONNABORTED, EHOSTUNREACH; EMFILE, ENFILE, ENOBUFS, ENOMEM.
        #[cfg(target_os = "linux")]
        for (number, one) in [(103, true), (113, true), (24, false), (23, false), (105, false), (12, false)] {
            assert_eq!(concerns_one_arrival(&io::Error::from_raw_os_error(number)), one, "{number}");
        }
    }

    #[test]
    fn a_flood_of_log_lines_is_one_line_a_second_with_a_count() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut lines = Vec::new();
        for ms in 0..2500 {
            throttle.log(start + Duration::from_millis(ms), |skipped| lines.push((ms, skipped)));
        }
        assert_eq!(lines, [(0, 0), (1000, 999), (2000, 999)]);
    }
}
