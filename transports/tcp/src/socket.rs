//! The socket: options set and read back, and a stream that can still be asked for them while TLS owns it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use peerlane_transport::{ConnectError, PathStats};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
};

use crate::config::TcpConfig;

/// What a TCP header with timestamps has beside the segment that `TCP_MAXSEG` tells. Bytes (RFC 9293, RFC 7323).
const TCP_HEADER: u32 = 32;

/// A new socket with its options set, not yet bound or connected: buffers must be set before either, since the
/// handshake fixes the scale of the window (RFC 7323, section 2).
pub(crate) fn open(addr: SocketAddr, config: &TcpConfig, silence: Duration) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = config.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    tune(&SockRef::from(&socket), config, silence)?;
    Ok(socket)
}

/// The options that an accepted socket doesn't have from its listener on every system. `silence`: after so long without
/// an acknowledgement the kernel gives the connection up.
pub(crate) fn tune(socket: &SockRef<'_>, config: &TcpConfig, silence: Duration) -> io::Result<()> {
    // What is written is meant to leave: the framing has put together what belongs together.
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(config.notsent_lowat)?;
        // RFC 5482. Without it a write into a dead path is retried for a quarter of an hour.
        socket.set_tcp_user_timeout(Some(silence))?;
        if let Some(name) = &config.congestion_control {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = silence;
    Ok(())
}

/// Tries the options on a socket that goes nowhere, so that what the kernel refuses is found at the start.
///
/// # Errors
/// [`ConnectError::Config`], naming the option.
pub(crate) fn check(config: &TcpConfig, silence: Duration) -> Result<(), ConnectError> {
    let fail = |what: String| Err(ConnectError::Config(what));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let plain = TcpConfig { congestion_control: None, ..config.clone() };
    let socket = match open(any, &plain, silence) {
        Ok(socket) => socket,
        Err(error) => return fail(format!("the system refused the socket's options: {error}")),
    };
    if let Some(name) = &config.congestion_control {
        if !cfg!(target_os = "linux") {
            return fail(format!("congestion control {name:?} can't be named on this system"));
        }
        #[cfg(target_os = "linux")]
        if let Err(error) = socket.set_tcp_congestion(name.as_bytes()) {
            return fail(format!("congestion control {name:?}: {error} (see net.ipv4.tcp_allowed_congestion_control)"));
        }
        let effective = congestion_control(&SockRef::from(&socket));
        if effective.as_deref() != Some(name) {
            return fail(format!("congestion control {name:?} was set, {effective:?} was read back"));
        }
    }
    // Linux tells twice what was asked for: its own bookkeeping is counted (socket(7)).
    let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
    let cut = |asked: Option<usize>, got: io::Result<usize>| asked.zip(got.ok()).filter(|(asked, got)| *got / factor < *asked);
    for (what, cut) in
        [("send", cut(config.send_buffer, socket.send_buffer_size())), ("receive", cut(config.receive_buffer, socket.recv_buffer_size()))]
    {
        if let Some((asked, got)) = cut {
            tracing::warn!(asked, effective = got / factor, "the kernel cut the {what} buffer of TCP (see net.core.wmem_max and rmem_max)");
        }
    }
    Ok(())
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

/// Connects a new socket.
pub(crate) async fn connect(addr: SocketAddr, config: &TcpConfig, silence: Duration) -> io::Result<TcpStream> {
    let socket = open(addr, config, silence)?;
    TcpSocket::from_std_stream(socket.into()).connect(addr).await
}

/// A TCP stream that TLS owns and statistics may look at. The lock is never contended but by statistics, which ask for
/// a few options; and they hold it weakly, so that the socket closes with its connection and not with the last handle.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Mutex<TcpStream>>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn lock(&self) -> MutexGuard<'_, TcpStream> {
        // Nothing panics between lock and unlock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For [`ConnectionStats::path`](peerlane_transport::ConnectionStats::path): what the kernel says now.
    pub(crate) fn path(&self) -> Box<dyn Fn() -> PathStats + Send + Sync> {
        let socket: Weak<Mutex<TcpStream>> = Arc::downgrade(&self.0);
        Box::new(move || match socket.upgrade() {
            Some(socket) => path_stats(&socket.lock().unwrap_or_else(PoisonError::into_inner)),
            None => PathStats::unknown(),
        })
    }
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
    path
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    #[test]
    fn options_are_set_and_read_back() {
        let config = TcpConfig { send_buffer: Some(100_000), receive_buffer: Some(50_000), ..TcpConfig::default() };
        check(&config, SILENCE).unwrap();
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let socket = open(addr.parse().unwrap(), &config, SILENCE).unwrap();
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
    #[test]
    fn a_congestion_control_is_named_and_read_back_or_refused_by_name() {
        // The one in force can always be named.
        let socket = open("127.0.0.1:0".parse().unwrap(), &TcpConfig::default(), SILENCE).unwrap();
        let current = congestion_control(&SockRef::from(&socket)).unwrap();
        assert!(!current.is_empty() && !current.contains('\0'));
        check(&TcpConfig { congestion_control: Some(current), ..TcpConfig::default() }, SILENCE).unwrap();

        let refused = check(&TcpConfig { congestion_control: Some("no-such".into()), ..TcpConfig::default() }, SILENCE);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("no-such"), "{text}");
    }
}
