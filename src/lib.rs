//! Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another.

pub mod node;
pub mod protocol;
