//! The transport trait of peerlane, and all that its transports share.
//!
//! Peers exchange typed messages over TCP or QUIC, and one class of traffic never delays another. A transport
//! knows *classes* and bytes, never message types:
//!
//! * [`Transport`], [`Listener`] and [`Upgrade`] are what a transport implements; [`AnyTransport`] is the choice
//!   at run time.
//! * [`Connection`] is what it gives: [`send`](Connection::send), [`try_send`](Connection::try_send),
//!   [`send_latest`](Connection::send_latest), [`open`](Connection::open) for streamed messages,
//!   [`recv`](Connection::recv), [`drain`](Connection::drain). It's one piece of code for all transports; they
//!   drive its [`Session`].
//! * [`class`] has the traffic classes, the scheduler (no I/O, no clock) and the bounded queues.
//! * [`identity`] has keys, addresses, the certificate that is the key, and the verifier.
//! * [`admission`] has the hello, the join of a further byte stream, the lists and the handshake gate.
//! * [`framing`] carries classes over any byte stream, or several: what TCP uses, and what makes a third transport short.
//! * [`limits`] is every bound in one table; [`CloseCode::TABLE`] is every reason to close.
//!
//! # Provided
//! Isolation between classes at the write side, in scheduling, in flow control and at the receive side; bounded
//! memory per class and peer; backpressure; cancel-safe sends and receives; liveness; graceful close.
//!
//! # Not provided
//! Delivery receipts (an answer of the other side is one), isolation from loss over one byte stream, message types.

pub mod admission;
pub mod class;
pub mod conformance;
mod connection;
mod error;
pub mod identity;
pub mod limits;
mod sync;
pub mod varint;

pub use admission::hello;
pub use class::{ClassId, ClassTable, Delivery, Inbound, MessageReader, Order, TrafficClass, Urgency};
pub use connection::{
    AnyListener, AnyTransport, AnyUpgrade, BadControl, ClassStats, Connection, ConnectionStats, Control, Expecting, LaneSource, Listener,
    MessageWriter, PathStats, Session, SessionInfo, Settle, Transport, Upgrade, framing, settle,
};
pub use error::{CloseCode, Closed, ClosedBy, ConnectError, ListenError, RecvError, SendError, TrySend};
