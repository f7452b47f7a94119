//! A transport in memory, on virtual time, out of one seed: for tests, ours and our users'.
//!
//! A [`World`] holds peers, the links between them, and a network on which all that is on the way stands in order of its
//! time. [`World::transport`] gives a peer its [`SimTransport`], which goes wherever peerlane's TCP and QUIC go: the
//! addresses are the same. What it carries, and in which order, is decided by the same code as theirs
//! ([`peerlane_transport::Session`]); the links in between are drawn.
//!
//! ```
//! # use std::time::Duration;
//! use peerlane_sim::{Link, World};
//! use peerlane_transport::{ClassId, Inbound, Listener, Transport, Upgrade, admission::Terms, identity::{Identity, PeerAddr}};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (alice, bob) = (Identity::from_seed(&[1; 32])?.peer_id(), Identity::from_seed(&[2; 32])?.peer_id());
//! let world = World::new(7);
//! world.set_link(&alice, &bob, Link { latency: Duration::from_millis(40), loss: 0.02, ..Link::default() });
//! let mut listener = world.transport(bob, Terms::new("test")?).listen(&"0.0.0.0:4000".parse()?).await?;
//! let to_bob = PeerAddr::new(bob, listener.local());
//! let dialer = world.transport(alice, Terms::new("test")?);
//! let (a, b) = tokio::join!(dialer.dial(&to_bob), async { listener.accept().await.unwrap().upgrade().await });
//! a.as_ref().unwrap().send(ClassId(1), "hello".into()).await?;
//! assert!(matches!(b?.recv(ClassId(1)).await?, Inbound::Whole(bytes) if bytes == "hello"));
//! println!("{:?} of virtual time, run {}", world.elapsed(), world.trace_hash());
//! # Ok(())
//! # }
//! ```
//!
//! # Provided
//! * Latency, jitter, loss (a retransmission's delay; datagrams are lost for good), rate with a bounded queue, all per
//!   direction: [`Link`].
//! * As on QUIC, each class and each large message is a lane of its own: what one loses or waits for delays no other. Within a
//!   lane the order is kept.
//! * Cuts both ways or one way, classes that stall, resets, and a listener that is gone: see [`World`].
//! * The real hello, with what it refuses; the check of the key dialed; lists.
//! * The same run from the same seed, and a hash to show it: [`World::trace_hash`].
//!
//! # Not provided
//! Certificates and encryption: a peer is whom the world says it is. Congestion control: a sender knows the link's rate and
//! keeps a window that fits. Packet headers: rates count payload.
//!
//! # The same run twice
//! A run is the same if the program is. So: a current-thread runtime with a paused clock (`#[tokio::test(start_paused = true)]`),
//! `biased` in every `select!`, ordered maps or a seeded hasher wherever one iterates, no `spawn_blocking`, no other
//! time than tokio's, no other chance than a seed's, keys from fixed seeds. Then compare [`World::trace_hash`] of two runs; where they
//! differ, one of these isn't kept.

mod connection;
mod link;
mod network;
mod raw;
mod receiver;
mod trace;
mod transport;
mod wire;
mod world;

pub use link::Link;
pub use raw::RawConnection;
pub use trace::TraceHash;
pub use transport::{SimListener, SimTransport, SimUpgrade};
pub use world::World;
