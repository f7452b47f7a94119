//! What the benchmarks share: links that do one job, ours and raw, and the statistics of pairs.
//!
//! The job: carry messages over one connection, each whole and recognisable, into a buffer of its own at the receiver.
//!
//! * [`Link::peerlane`]: a [`Connection`](peerlane_transport::Connection), one class.
//! * [`Link::quinn`]: one stream of raw quinn, a 4-byte length before each message; the configuration, the sockets, the
//!   MTU, the provider and the runtime are those of peerlane-quic.
//! * [`Link::tls`]: the same over raw tokio-rustls, with the sockets' options and the TLS configuration of peerlane-tcp.
//!
//! Raw has two styles, since it can be written in two ways: see [`Style`].

mod link;
mod messages;
mod quic;
mod ratio;
mod tls;

pub use link::{Failed, Kind, Link, Style};
pub use messages::Messages;
pub use ratio::{Interval, cpu_time, median_interval};
