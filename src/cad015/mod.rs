//! CAD015, the first protocol of the message layer: Convex peer messages in peerlane's native dialect.
//!
//! * `message`: the bytes of one message and the typed view of its payload.

mod message;

pub use message::*;
