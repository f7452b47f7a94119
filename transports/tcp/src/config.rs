//! What an operator may choose of TCP.

use peerlane_transport::limits;

/// Settings of a [`TcpTransport`](crate::TcpTransport). The default suits any network: take it and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Bytes that may wait in the kernel before they're first sent (`TCP_NOTSENT_LOWAT`): they can't be overtaken any
    /// more. 16 KiB, one quantum, by default: less costs throughput by waking the writer more often, more is added to the
    /// latency of every urgent message. Worst-case memory: none of its own, it's part of the send buffer. On Linux alone.
    pub notsent_lowat: u32,
    /// Send buffer in bytes (`SO_SNDBUF`): what is in flight and what waits. `None`, the default: the kernel adjusts it to
    /// the path, up to `net.ipv4.tcp_wmem`. Set, it bounds throughput to itself per round trip. Worst-case memory in the
    /// kernel: twice this per connection.
    pub send_buffer: Option<usize>,
    /// Receive buffer in bytes (`SO_RCVBUF`). `None`, the default: the kernel adjusts it to the path, up to
    /// `net.ipv4.tcp_rmem`. Worst-case memory in the kernel: twice this per connection.
    pub receive_buffer: Option<usize>,
    /// The congestion control by its name in the kernel (`TCP_CONGESTION`), `bbr` say. `None`, the default: the system's.
    /// One that the kernel doesn't have or doesn't permit is refused when the transport is made.
    pub congestion_control: Option<String>,
    /// Connections that may wait in the kernel to be accepted. 1024 by default; the kernel cuts it to
    /// `net.core.somaxconn`. Worst-case memory in the kernel: a few KiB each.
    pub backlog: i32,
    /// Write the secrets of every connection to the file named by `SSLKEYLOGFILE`. For debugging alone; false by default.
    pub key_log: bool,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            // Lossless: a quantum is 16 KiB.
            notsent_lowat: limits::QUANTUM as u32,
            send_buffer: None,
            receive_buffer: None,
            congestion_control: None,
            backlog: 1024,
            key_log: false,
        }
    }
}
