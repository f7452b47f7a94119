//! Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another.

pub mod cad015;
pub mod cell;
pub mod node;
pub mod peer;
pub mod protocol;
