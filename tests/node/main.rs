//! The message layer over transports in memory, on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod cancel;
mod dialing;
mod handlers;
mod kit;
mod lost;
mod moves;
mod real;
mod requests;
mod returns;
mod shutdown;
mod stalls;
