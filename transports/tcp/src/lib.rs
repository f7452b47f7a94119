//! TLS 1.3 over TCP for peerlane: all traffic classes on one connection, and an urgent message waits behind as few
//! bytes as TCP permits.
//!
//! [`TcpTransport`] implements [`Transport`](peerlane_transport::Transport): it dials a
//! [`PeerAddr`](peerlane_transport::identity::PeerAddr), whose key is compared after every handshake, and listens on a
//! [`SocketAddr`](std::net::SocketAddr). Above the handshake it's [`peerlane_transport::framing`], as for any byte stream.
//!
//! # What can't be overtaken
//! Bytes given to TCP leave in their order. So as few as possible are given: one record of 16 KiB in TLS,
//! [`TcpConfig::notsent_lowat`] in the kernel, and what is in flight, which is the congestion control's.
//!
//! # Provided
//! Both identities proven and compared, resumed or not; lists asked; a refusal told to the other side; a slow handshake
//! holds up nobody; descriptors running out ends no listener; the options of the socket set *and read back*.
//!
//! # Not provided
//! Isolation from loss: a lost segment of one class delays all, since TCP has one order. That's what QUIC is for.
//! Round-trip time, window and losses as the kernel sees them: safe Rust has no way to `TCP_INFO` here; the connection
//! measures the round trip itself.

mod closing;
mod config;
mod dial;
mod handshake;
mod joining;
mod joins;
mod listener;
mod socket;
mod transport;

pub use config::{Carriers, CongestionControl, TcpConfig};
pub use listener::{TcpListener, TcpUpgrade};
pub use transport::{Handshakes, TcpTransport};
