//! The socket: options set and read back, and a stream that can still be asked for them while TLS owns it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use peerlane_transport::{ConnectError, PathStats};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
};

use crate::config::{CongestionControl, TcpConfig};

/// What a TCP header with timestamps has beside the segment that `TCP_MAXSEG` tells. Bytes (RFC 9293, RFC 7323).
const TCP_HEADER: u32 = 32;

/// The congestion control that [`CongestionControl::Best`] means, by its name in the kernel.
const BEST: &str = "bbr";

/// BBR looks for the path's own round trip when it hasn't seen it for 10 seconds: for 200 ms it has four packets in flight at
/// most, and what comes then waits for up to a round trip. That empties a queue for those who fill it. A connection that
/// sends seldom fills none; begun anew more often than that, its BBR never does it. (Measured on `wan` and `wan-bloat`: p99.9 of QUERY
/// 65 ms instead of 74 to 85.)
#[cfg(target_os = "linux")]
const ANEW: Duration = Duration::from_secs(8);
/// A connection that has written no more than this in that time sends seldom. Bytes: half a Mbit/s.
#[cfg(target_os = "linux")]
const SELDOM: u64 = 512 * 1024;
/// What BBR is begun anew by way of: every kernel has it.
#[cfg(target_os = "linux")]
const BETWEEN: &str = "reno";

/// What is set on every socket of a transport.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    notsent_lowat: u32,
    /// After so long without an acknowledgement the kernel gives the connection up.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    silence: Duration,
    /// By its name; `None`: the system's.
    congestion_control: Option<String>,
    /// A socket that doesn't take it is of no use.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    insist: bool,
}

impl Settings {
    /// Tries the options on a socket that goes nowhere, so that what the kernel refuses is found at the start.
    ///
    /// # Errors
    /// [`ConnectError::Config`], naming the option.
    pub(crate) fn new(config: &TcpConfig, silence: Duration) -> Result<Self, ConnectError> {
        let fail = |what: String| Err(ConnectError::Config(what));
        let mut settings = Self {
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
            notsent_lowat: config.notsent_lowat,
            silence,
            congestion_control: None,
            insist: false,
        };
        let socket = match settings.open(SocketAddr::from(([127, 0, 0, 1], 0))) {
            Ok(socket) => socket,
            Err(error) => return fail(format!("the system refused the socket's options: {error}")),
        };
        match &config.congestion_control {
            CongestionControl::System => {}
            CongestionControl::Named(name) => match try_congestion_control(&socket, name) {
                Ok(()) => (settings.congestion_control, settings.insist) = (Some(name.clone()), true),
                Err(why) => return fail(format!("congestion control {name:?}: {why}")),
            },
            CongestionControl::Best => match try_congestion_control(&socket, BEST) {
                Ok(()) => {
                    tracing::debug!(congestion_control = BEST, "TCP's congestion control");
                    settings.congestion_control = Some(BEST.into());
                }
                Err(why) => {
                    let system = congestion_control(&SockRef::from(&socket));
                    tracing::info!(congestion_control = ?system, %why, "TCP has the system's congestion control; {BEST} would be better");
                }
            },
        }
        settings.say_cut_buffers(&socket);
        Ok(settings)
    }

    /// A new socket with its options set, not yet bound or connected: buffers must be set before either, since the
    /// handshake fixes the scale of the window (RFC 7323, section 2).
    pub(crate) fn open(&self, addr: SocketAddr) -> io::Result<socket2::Socket> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        self.tune(&SockRef::from(&socket))?;
        Ok(socket)
    }

    /// The options that an accepted socket doesn't have from its listener on every system.
    pub(crate) fn tune(&self, socket: &SockRef<'_>) -> io::Result<()> {
        // What is written is meant to leave: the framing has put together what belongs together.
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_notsent_lowat(self.notsent_lowat)?;
            // RFC 5482. Without it a write into a dead path is retried for a quarter of an hour.
            socket.set_tcp_user_timeout(Some(self.silence))?;
            if let Some(name) = &self.congestion_control {
                let set = socket.set_tcp_congestion(name.as_bytes());
                // What was permitted at the start may not be in another network namespace.
                if self.insist {
                    set?;
                }
            }
        }
        Ok(())
    }

    /// Connects a new socket.
    pub(crate) async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.open(addr)?;
        TcpSocket::from_std_stream(socket.into()).connect(addr).await
    }

    /// Whether a connection for small urgent messages does better when its congestion control is [begun
    /// anew](Socket::stay_ready) now and then.
    pub(crate) fn begins_anew(&self) -> bool {
        cfg!(target_os = "linux") && !self.insist && self.congestion_control.as_deref() == Some(BEST)
    }

    fn say_cut_buffers(&self, socket: &socket2::Socket) {
        // Linux tells twice what was asked for: its own bookkeeping is counted (socket(7)).
        let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
        let cut = |asked: Option<usize>, got: io::Result<usize>| asked.zip(got.ok()).filter(|(asked, got)| *got / factor < *asked);
        let buffers =
            [("send", cut(self.send_buffer, socket.send_buffer_size())), ("receive", cut(self.receive_buffer, socket.recv_buffer_size()))];
        for (what, cut) in buffers {
            if let Some((asked, got)) = cut {
                tracing::warn!(
                    asked,
                    effective = got / factor,
                    "the kernel cut the {what} buffer of TCP (see net.core.wmem_max and rmem_max)"
                );
            }
        }
    }
}

/// Sets a congestion control and reads it back. `Err`: why it can't be had, in words.
fn try_congestion_control(socket: &socket2::Socket, name: &str) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        if let Err(error) = socket.set_tcp_congestion(name.as_bytes()) {
            return Err(format!("{error} (see net.ipv4.tcp_allowed_congestion_control)"));
        }
        match congestion_control(&SockRef::from(socket)) {
            Some(effective) if effective == name => Ok(()),
            effective => Err(format!("it was set, {effective:?} was read back")),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, name);
        Err("none can be named on this system".into())
    }
}

#[cfg(target_os = "linux")]
fn congestion_control(socket: &SockRef<'_>) -> Option<String> {
    let name = socket.tcp_congestion().ok()?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(not(target_os = "linux"))]
fn congestion_control(_: &SockRef<'_>) -> Option<String> {
    None
}

/// A TCP stream that TLS owns and statistics may look at. The lock is never contended but by statistics, which ask for
/// a few options; and they hold it weakly, so that the socket closes with its connection and not with the last handle.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    /// When the congestion control was last looked at, if it's [begun anew](Socket::stay_ready), and bytes written since.
    anew: Option<(Instant, u64)>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, anew: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics between lock and unlock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel look after a connection that says nothing for so long: for a TCP connection on which no life signs
    /// travel. It keeps NAT's entry alive, and an end that has gone is noticed after the silence that ends any connection.
    pub(crate) fn keep_alive(&self, after: Duration) -> io::Result<()> {
        let keepalive = TcpKeepalive::new().with_time(after);
        #[cfg(any(target_os = "linux", target_vendor = "apple", windows))]
        let keepalive = keepalive.with_interval(after);
        SockRef::from(&self.lock().stream).set_tcp_keepalive(&keepalive)
    }

    /// From now on keeps BBR from going slow while this connection sends seldom: see [`ANEW`].
    pub(crate) fn stay_ready(&self) {
        self.lock().anew = Some((Instant::now(), 0));
    }

    /// For [`ConnectionStats::path`](peerlane_transport::ConnectionStats::path): what the kernel says now.
    pub(crate) fn path(&self) -> Box<dyn Fn() -> PathStats + Send + Sync> {
        let socket: Weak<Mutex<Inner>> = Arc::downgrade(&self.0);
        Box::new(move || match socket.upgrade() {
            Some(socket) => path_stats(&socket.lock().unwrap_or_else(PoisonError::into_inner).stream),
            None => PathStats::unknown(),
        })
    }
}

#[cfg(target_os = "linux")]
fn begin_anew(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_congestion(BETWEEN.as_bytes())?;
    socket.set_tcp_congestion(BEST.as_bytes())
}

fn path_stats(stream: &TcpStream) -> PathStats {
    let socket = SockRef::from(stream);
    let mut path = PathStats::unknown();
    path.congestion_control = congestion_control(&socket);
    path.socket_buffers = socket.send_buffer_size().ok().zip(socket.recv_buffer_size().ok());
    #[cfg(unix)]
    {
        // The packet that a full segment makes; loopback's is over what the field holds.
        let ip_header = if stream.peer_addr().is_ok_and(|addr| addr.is_ipv6()) { 40 } else { 20 };
        let packet = socket.tcp_mss().ok().map(|segment| segment.saturating_add(TCP_HEADER).saturating_add(ip_header));
        path.mtu = packet.map(|packet| u16::try_from(packet).unwrap_or(u16::MAX));
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Some(info) = crate::info::read(std::os::fd::AsFd::as_fd(stream)) {
        (path.rtt, path.min_rtt, path.cwnd) = (Some(info.rtt), info.min_rtt, Some(info.cwnd));
        (path.lost, path.sent) = (Some(info.retransmitted), info.segments);
    }
    path
}

impl Inner {
    fn wrote(&mut self, write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        self.look_after();
        let written = write(Pin::new(&mut self.stream));
        if let (Poll::Ready(Ok(len)), Some((_, bytes))) = (&written, &mut self.anew) {
            *bytes = bytes.saturating_add(*len as u64);
        }
        written
    }

    /// Before a write, so that it costs a connection that's silent nothing.
    #[cfg(target_os = "linux")]
    fn look_after(&mut self) {
        let Some((since, bytes)) = self.anew else { return };
        let now = Instant::now();
        if now.saturating_duration_since(since) >= ANEW {
            let goes_on = bytes > SELDOM || begin_anew(&SockRef::from(&self.stream)).is_ok();
            self.anew = goes_on.then_some((now, 0));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().wrote(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.lock().wrote(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    fn settings(change: impl FnOnce(&mut TcpConfig)) -> Result<Settings, ConnectError> {
        let mut config = TcpConfig::default();
        change(&mut config);
        Settings::new(&config, SILENCE)
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn options_are_set_and_read_back() {
        let settings = settings(|config| (config.send_buffer, config.receive_buffer) = (Some(100_000), Some(50_000))).unwrap();
        for addr in [any(), "[::1]:0".parse().unwrap()] {
            let socket = settings.open(addr).unwrap();
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.send_buffer_size().unwrap() >= 100_000);
            assert!(socket.recv_buffer_size().unwrap() >= 50_000);
            #[cfg(target_os = "linux")]
            {
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), 16 * 1024);
                assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENCE));
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_without_life_signs_of_its_own_is_kept_alive_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
        let settings = settings(|_| ()).unwrap();
        let socket = Socket::new(settings.connect(listener.local_addr().unwrap()).await.unwrap());
        socket.keep_alive(Duration::from_secs(7)).unwrap();
        let inner = socket.lock();
        let socket = SockRef::from(&inner.stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_congestion_control_that_begins_anew_is_the_same_and_what_is_sent_arrives() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let settings = settings(|_| ()).unwrap();
        if !settings.begins_anew() {
            return;
        }
        assert!(!super::tests::settings(|config| config.congestion_control = CongestionControl::Named(BEST.into())).unwrap().begins_anew());
        let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
        let mut socket = Socket::new(settings.connect(listener.local_addr().unwrap()).await.unwrap());
        let mut other = listener.accept().await.unwrap().0;
        let long_ago = || Instant::now().checked_sub(ANEW).unwrap();
        for n in 0..50u8 {
            socket.lock().anew = Some((long_ago(), 0));
            socket.write_all(&[n; 3000]).await.unwrap();
            assert!(socket.lock().anew.unwrap().0.elapsed() < ANEW, "it wasn't looked at");
            let mut heard = [0; 3000];
            other.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, [n; 3000]);
        }
        assert_eq!(congestion_control(&SockRef::from(&socket.lock().stream)).unwrap(), BEST);
        // One that sends much is left alone.
        socket.lock().anew = Some((long_ago(), SELDOM + 1));
        socket.write_all(&[7; 10]).await.unwrap();
        assert_eq!(socket.lock().anew.unwrap().1, 10);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_congestion_control_is_named_and_read_back_or_refused_by_name() {
        let named = |name: &str| settings(|config| config.congestion_control = CongestionControl::Named(name.into()));
        let in_force = |settings: &Settings| congestion_control(&SockRef::from(&settings.open(any()).unwrap())).unwrap();
        // The one in force can always be named.
        let system = in_force(&settings(|config| config.congestion_control = CongestionControl::System).unwrap());
        assert!(!system.is_empty() && !system.contains('\0'));
        assert_eq!(in_force(&named(&system).unwrap()), system);

        let text = named("no-such").unwrap_err().to_string();
        assert!(text.contains("no-such"), "{text}");

        // By default the best one, where there is one, and what there is where not.
        let default = settings(|_| ()).unwrap();
        let best = named(BEST).is_ok();
        assert_eq!(in_force(&default), if best { BEST } else { &system });
        assert_eq!(default.congestion_control.is_some(), best, "it's asked for, whatever the system's is");
    }
}
