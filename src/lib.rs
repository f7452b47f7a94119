//! Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another.
//!
//! From the top down:
//!
//! * [`peer`] is the reference peer: a lattice of per-account signed logs in an embedded store, its answers and its gossip.
//! * [`node`] is the message layer: [`node::Node`] carries a [`protocol::Protocol`]'s messages over whichever transport
//!   there is, one logical connection per peer.
//! * [`cad015`] is the first protocol: Convex peer messages; [`cell`] are the values in them.
//! * With the feature `convex`, messages of Convex's own wire (crate `peerlane-convex`) are a protocol too.
//! * [`transport`] has the transport trait, identity, classes and limits; [`quic`] and [`tcp`] are the two transports.
//!
//! Arrows run one way: `transport <- quic | tcp <- node <- cad015 <- peer <- cli`.

#[cfg(feature = "cli")]
pub mod bench;
pub mod cad015;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "convex")]
pub mod convex;
pub mod node;
pub mod peer;
pub mod protocol;

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use peerlane_cell as cell;
pub use peerlane_quic as quic;
pub use peerlane_tcp as tcp;
pub use peerlane_transport as transport;
