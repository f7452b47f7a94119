//! Listening: arrivals are handed out at once, their handshakes still to be done.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use peerlane_transport::{ConnectError, Connection, ListenError, Listener, Upgrade, admission::Handshake};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    handshake::{self, after, canonical},
    socket,
    transport::Shared,
};

/// How long accepting rests when the system has no descriptors or memory left: they come back when connections end,
/// and asking at once again would take the processor from those.
const REST: Duration = Duration::from_millis(50);

/// Log lines about arrivals that came to nothing: one in this time at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Where connections arrive. Dropping it frees the address; accepted connections live on.
pub struct TcpListener {
    shared: Arc<Shared>,
    listener: tokio::net::TcpListener,
    local: SocketAddr,
    denied: Throttle,
    failed: Throttle,
    resting: bool,
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.local).finish_non_exhaustive()
    }
}

impl TcpListener {
    pub(crate) fn bind(shared: Arc<Shared>, local: SocketAddr) -> Result<Self, ListenError> {
        let bound = || -> io::Result<tokio::net::TcpListener> {
            let socket = socket::open(local, &shared.config, shared.idle_timeout())?;
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
        Ok(Self { shared, listener, local, denied: Throttle::default(), failed: Throttle::default(), resting: false })
    }

    /// Lets an arrival in, or closes it without a word: whoever floods us isn't worth a handshake.
    fn admit(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<TcpUpgrade> {
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
        if let Err(error) = socket::tune(&SockRef::from(&stream), &self.shared.config, self.shared.idle_timeout()) {
            self.failed.log(now, |skipped| tracing::debug!(remote = %canonical(remote), %error, skipped, "arrival ended at once"));
            return None;
        }
        let deadline = after(self.shared.handshake_timeout());
        Some(TcpUpgrade { shared: self.shared.clone(), stream, remote, permit, deadline })
    }
}

impl Listener for TcpListener {
    type Local = SocketAddr;
    type Upgrade = TcpUpgrade;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> Result<TcpUpgrade, ListenError> {
        loop {
            if self.resting {
                sleep(REST).await;
                self.resting = false;
            }
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    if let Some(upgrade) = self.admit(stream, remote) {
                        return Ok(upgrade);
                    }
                }
                Err(error) => {
                    self.resting = !concerns_one_arrival(&error);
                    self.failed.log(Instant::now(), |skipped| {
                        tracing::warn!(local = %self.local, %error, skipped, "a connection couldn't be accepted; listening goes on");
                    });
                }
            }
        }
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
    stream: TcpStream,
    remote: SocketAddr,
    permit: Handshake,
    /// TLS and hello together; it runs from the arrival on, since the permit is held from there.
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
        let connection = handshake::accepted(&self.shared, self.stream, self.deadline).await?;
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
