//! The bodies of the fuzz targets: each takes any bytes and panics if a promise is broken.
//!
//! The promises: no panic, no hang, no memory from a declared length; and what is accepted comes back the same.

mod convex;
mod files;
mod framing;
mod messages;
mod stateful;
mod wire;

pub use convex::{convex_form, convex_frame, convex_message};
pub use files::{key_file, lists, profile};
pub use framing::framing;
#[cfg(fuzzing)]
pub use framing::quic;
pub use messages::{cell, message};
pub use stateful::stateful;
pub use wire::{address, control, hello, record};
