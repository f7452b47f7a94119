//! Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another.

#[cfg(feature = "cli")]
pub mod bench;
pub mod cad015;
pub mod cell;
pub mod peer;
pub mod protocol;
