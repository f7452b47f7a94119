//! What the kernel knows of a connection's path: `TCP_INFO`, see tcp(7).
//!
//! The one module of this workspace with unsafe code: no library has this option behind a safe call.
#![expect(unsafe_code, reason = "a socket option that only the C library has")]

use std::{
    mem::{MaybeUninit, offset_of, size_of},
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// Of one TCP connection, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Smoothed round-trip time.
    pub(crate) rtt: Duration,
    /// The shortest of the last minutes; `None` from a kernel that doesn't tell (before Linux 4.6).
    pub(crate) min_rtt: Option<Duration>,
    /// Congestion window in bytes.
    pub(crate) cwnd: u64,
    /// Segments sent again since the connection stands.
    pub(crate) retransmitted: u64,
    /// Segments sent since then; `None` from a kernel that doesn't count them (before Linux 4.2).
    pub(crate) segments: Option<u64>,
}

/// `None` if the kernel doesn't tell.
pub(crate) fn read(socket: BorrowedFd<'_>) -> Option<Info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes, which is the length of what is pointed to, and both pointers are to
    // locals that outlive the call. The descriptor is borrowed, so it's open.
    let failed = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len) };
    if failed != 0 {
        return None;
    }
    // SAFETY: it has integers alone, of which every pattern of bits is one, and was filled with zeros before.
    let info = unsafe { info.assume_init() };
    // An older kernel fills less of it.
    let told = |end: usize| usize::try_from(len).is_ok_and(|len| len >= end);
    told(offset_of!(libc::tcp_info, tcpi_total_retrans) + size_of::<u32>()).then(|| Info {
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
        min_rtt: told(offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>()).then(|| Duration::from_micros(info.tcpi_min_rtt.into())),
        cwnd: u64::from(info.tcpi_snd_cwnd) * u64::from(info.tcpi_snd_mss),
        retransmitted: info.tcpi_total_retrans.into(),
        segments: told(offset_of!(libc::tcp_info, tcpi_segs_out) + size_of::<u32>()).then(|| info.tcpi_segs_out.into()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn the_kernel_tells_of_a_connection_and_of_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let before = read(stream.as_fd()).unwrap();
        stream.write_all(&[1; 10_000]).unwrap();
        other.read_exact(&mut [0; 10_000]).unwrap();
        let after = read(stream.as_fd()).unwrap();
        assert!(after.cwnd > 0 && after.retransmitted == 0 && after.segments > before.segments, "{before:?} {after:?}");
        assert!(after.rtt > Duration::ZERO && after.rtt < Duration::from_secs(10), "{after:?}");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(read(udp.as_fd()), None);
    }
}
