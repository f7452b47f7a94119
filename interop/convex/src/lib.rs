//! The Convex peer protocol as the Java peer speaks it, since 0.8.0: what CAD015 has become on the wire.
//!
//! * [`Frames`], [`frame`]: a stream of bytes cut into message bodies; [`legacy_frames`], [`LegacyMessage`]: the wire up to 0.7.15.
//! * [`Body`], [`Message`], [`Kind`], [`Payload`]: what a body is; its kind follows from its first cell.
//! * [`Transaction`], [`Challenge`]: what accounts and peers sign. [`Outcome`], [`ErrorCode`], [`Status`]: what comes back.
//! * [`Client`]: a connection to a peer: status, query, transact, fetch, challenge.
//! * [`Gateway`]: beside a Java peer, carries its traffic to other gateways over peerlane's transports.
//! * [`ConvexTcp`]: the same behind peerlane's own transport trait.
//! * [`Value`], [`Build`], [`form`]: cells with what's below them, put together or read from text: `(transfer #12 1000)`.
//!
//! Cells are [`peerlane_cell`]'s in its profile [`CONVEX`]. Everything that comes from a peer is canonical or refused, and named by its own
//! hash; nothing is allocated from a declared length.
//!
//! Sources: CAD003, CAD015, and the reference peer's behaviour where it differs (a Vector's prefix comes last, QUERY is `:Q`).

mod body;
mod challenge;
mod client;
pub mod form;
mod frame;
mod gateway;
mod kind;
mod legacy;
pub mod limits;
mod message;
mod outcome;
mod status;
mod transaction;
mod transport;
mod value;

pub use body::{Body, BodyError};
pub use challenge::{Challenge, ChallengeError};
pub use client::{Answer, Client, ClientConfig, ClientError, CloseReason, FetchLimits};
pub use frame::{FrameError, Frames, frame};
pub use gateway::{
    Gateway, GatewayConfig, GatewayError, GatewayPeer, GatewayPeerError, GatewayStats, KindTraffic, PeerStats, Traffic, gateway_classes,
};
pub use kind::Kind;
pub use legacy::{LegacyError, LegacyMessage, legacy_frames};
pub use message::{Message, MessageError, Payload};
pub use outcome::{ErrorCode, Outcome};
pub use status::Status;
pub use transaction::{MultiMode, Transaction};
pub use transport::{ConvexAddr, ConvexArrival, ConvexListener, ConvexTcp, ConvexTcpConfig, class_of, classes};
pub use value::{Build, CONVEX, Value, address, as_address};

pub use peerlane_cell as cell;
