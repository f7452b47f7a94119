//! The message layer: a node carries a [`Protocol`](crate::protocol::Protocol)'s messages to and from its peers.
//!
//! * [`Node::builder`] takes the protocol, the local peer, transports, addresses and a [`Handler`].
//! * [`NodeHandle`] sends, asks and looks: [`send`](NodeHandle::send), [`request`](NodeHandle::request),
//!   [`broadcast`](NodeHandle::broadcast), [`peers`](NodeHandle::peers), [`events`](NodeHandle::events).
//! * [`Context`] is what a handler gets: who sent a message, and how to answer.
//!
//! It knows no socket and no cell: transports are below, what messages mean is above.
//!
//! # Provided
//! One logical connection per peer, whatever the transport; transports race, and a better one takes over later without
//! losing, repeating or (in Fifo classes) reordering a message. Peers to keep are dialed again with jittered delays.
//! Each request is answered once or fails once, and one that nobody waits for any more is cancelled at its responder. Handlers of one class never run on another's workers, and no peer takes
//! them all. Everything is bounded, and every task ends with the node.
//!
//! # Not provided
//! Delivery of what was queued when a connection is lost: an answer of the other side shows that. Relaying, discovery.

mod backoff;
mod broadcast;
mod builder;
mod config;
mod connect;
mod crew;
mod dial;
mod dispatch;
mod error;
mod events;
mod handle;
mod handler;
mod limits;
mod link;
mod listen;
mod metrics;
mod peer;
mod queue;
mod registry;
mod request;
mod runtime;
mod seen;
mod serving;
mod stream;
mod sync;

pub use broadcast::{Broadcast, Outcome, Selection};
pub use builder::{Node, NodeBuilder};
pub use config::NodeConfig;
pub use error::{Attempt, DialError, Listening, PeerSendError, RequestError, StartError};
pub use events::Event;
pub use handle::{NodeHandle, PeerInfo, PendingReply, Reply, Upload};
pub use handler::{Context, Handler, Silent};
pub use limits::NodeLimits;
pub use seen::SeenSet;
pub use stream::{StreamReader, StreamWriter};
