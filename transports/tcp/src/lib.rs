//! TLS 1.3 over TCP for peerlane: the latency classes on one TCP connection, the bulk classes on another, and an urgent
//! message waits behind as few bytes as TCP permits.
//!
//! [`TcpTransport`] implements [`Transport`](peerlane_transport::Transport): it dials a
//! [`PeerAddr`](peerlane_transport::identity::PeerAddr), whose key is compared after every handshake, and listens on a
//! [`SocketAddr`](std::net::SocketAddr). Above the handshake it's [`peerlane_transport::framing`], as for any byte stream.
//!
//! # One connection, several TCP connections
//! A [`Connection`](peerlane_transport::Connection) stands as soon as its first TCP connection does, and all classes go on
//! that at once. A second one [joins](peerlane_transport::admission::join) some round trips later, resumed, and the
//! latency classes move to it ([`Carriers`] says otherwise): so neither a queue nor a loss of the bulk's delays them. Where
//! none can join (a proxy that lets one through, a listener that's gone), all stays on the first, nothing waits, nothing is
//! lost, and the log says so; [`PathStats::carriers`](peerlane_transport::PathStats::carriers) tells how many there are.
//! The end of any of them is the end of the connection.
//!
//! A third one has copies of small urgent messages and nothing else, where the path is long enough for a loss to matter
//! ([`TcpConfig::copies`]): what stands behind a lost segment on the one comes on the other. Its end means nothing.
//!
//! # What can't be overtaken
//! Bytes given to TCP leave in their order. So as few as possible are given: one record of 16 KiB in TLS,
//! [`TcpConfig::notsent_lowat`] in the kernel, and what is in flight, which is the congestion control's: BBR, where the
//! kernel has it ([`CongestionControl`]).
//!
//! # Provided
//! Both identities proven and compared, resumed or not, on each TCP connection; lists asked; a refusal told to the other
//! side; a slow handshake holds up nobody; descriptors running out ends no listener; the options of the socket set *and
//! read back*. Isolation of the latency classes from a flood's queue and losses.
//!
//! # Not provided
//! Isolation from loss within a TCP connection: a lost segment of one class delays all that share it, since TCP has one
//! order. Copies help small messages, unless both are held up, and those of `Fifo` classes not at all. That's what QUIC is for. Weights between classes on different TCP connections: floods on both get what the path
//! gives each; within each the scheduler decides. Round-trip time, window and
//! retransmissions (`TCP_INFO`, on Linux alone) of further TCP connections: what is told is the first one's, which bulk uses.

mod closing;
mod config;
mod dial;
mod handshake;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod info;
mod joining;
mod joins;
mod listener;
mod socket;
mod transport;

pub use config::{Carriers, CongestionControl, TcpConfig};
pub use listener::{TcpListener, TcpUpgrade};
pub use transport::{Handshakes, TcpTransport};
