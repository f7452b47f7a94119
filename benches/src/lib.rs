//! What the benchmarks share: links that do one job, ours and raw, and the statistics of pairs.
//!
//! The job: carry messages over one connection, each whole and recognisable, into a buffer of its own at the receiver.
//!
//! * [`Link::peerlane`]: a [`Connection`](peerlane_transport::Connection), one class.
//! * [`Link::raw`] over QUIC: one stream of raw quinn, a 4-byte length before each message; the configuration, the sockets,
//!   the MTU and the provider are those of peerlane-quic.
//! * [`Link::raw`] over TCP: the same over raw tokio-rustls, with the sockets' options and the TLS configuration of
//!   peerlane-tcp.
//!
//! Raw has two styles, since it can be written in two ways: see [`Style`]. Where the two ends run is the same for all:
//! see [`Runtimes`].

mod framed;
mod job;
mod link;
mod messages;
mod ours;
mod peers;
mod provenance;
mod quic;
mod ratio;
mod runtimes;
mod tls;

pub use link::{Failed, Kind, Link, Style};
pub use messages::Messages;
pub use provenance::Provenance;
pub use ratio::{Interval, cpu_time, median_interval};
pub use runtimes::{Mode, Runtimes};
