//! QUIC for peerlane: quinn, one stream per traffic class.
//!
//! * [`QuicTransport`] dials and listens; it's a [`Transport`](peerlane_transport::Transport) like any other.
//! * Each class has one long-lived stream per direction; a large message of an `Any` class has a stream of its
//!   own, in its class's priority. Small messages of a `Datagram` class travel as datagrams (RFC 9221) when they
//!   fit. Where a round trip is long, small messages of urgent `Any` classes have a stream each, and copies as
//!   datagrams while they aren't acknowledged ([`QuicConfig::message_streams`], [`QuicConfig::copies`]). Control frames
//!   have the connection's one bidirectional stream.
//! * The congestion controller is our own ([`CongestionControl::Delay`]): it keeps the bottleneck's queue short, so that
//!   priorities mean something, and gives up no rate to random loss. After an outage [`QuicConfig::rescue`] finds its end.
//! * What is handed to quinn and not acknowledged follows the congestion window, so that the session's scheduler
//!   decides what leaves next, not quinn's queues; urgent classes and control frames aren't held by what a flood
//!   has in flight (`budget`).
//! * The stateless-reset key, the token key and the connection-ID key come from the identity's secret: after
//!   kill -9 and restart on the same port the other side learns of it with its next packet.
//!
//! # Provided
//! Isolation between classes also from loss; survival of the dialing side's change of address; address validation
//! (Retry, tokens); GSO and GRO; path MTU discovery; qlog.
//!
//! # Not provided
//! 0-RTT (a replayed hello has no design yet); migration of the accepting side (that's a reconnect).

mod budget;
mod clocks;
mod config;
mod congestion;
mod copies;
mod driver;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lanes;
mod messages;
mod raw;
mod rescue;
mod runtime;
mod socket;
mod transport;

pub use config::{CongestionControl, QuicConfig};
pub use congestion::{Delay, DelayBothWays, DelayConfig, Heard};
pub use transport::{QuicListener, QuicTransport, QuicUpgrade};
