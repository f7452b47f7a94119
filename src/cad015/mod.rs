//! CAD015, the first protocol of the message layer: Convex peer messages in peerlane's native dialect.
//!
//! * `kind`: the type numbers and the error codes.
//! * `message`: the bytes of a message: `type | payload cell | { VLQ length | branch cell }*`.
//! * `payload`: what each type's payload holds.
//! * `pen`, `staging`, `acquire`: partial messages, and how what they lack is acquired.
//! * `protocol`: how it travels: [`Cad015`].

mod acquire;
mod kind;
mod message;
mod payload;
mod pen;
mod protocol;
mod staging;

pub use acquire::{Fetch, Fetched, HEDGE, IN_FLIGHT, acquire};
pub use kind::{ErrorCode, MessageType};
pub use message::{MAX_BRANCHES, MAX_REQUEST_ID, Message, MessageError, peek_id, peek_kind};
pub use payload::{MAX_HASHES, MAX_OPERATIONS, Outcome, Payload};
pub use pen::{Pen, PenLimits, Penned};
pub use protocol::Cad015;
pub use staging::Staging;

#[cfg(test)]
mod tests;
