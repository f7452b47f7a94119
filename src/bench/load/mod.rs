//! The load itself, over any connection: queries in an open loop, floods, and the end that answers and takes.
//!
//! Nothing here knows a lab: an end in another process or behind an emulated link runs the same code.

mod answer;
mod ask;
mod copies;
mod flood;
mod links;
pub(super) mod message;
mod questions;
pub(super) mod rival;
mod schedule;
mod timer;
mod transact;

pub(super) use answer::{Taken, answer};
pub(super) use ask::{Scheduled, apply, latencies};
pub use copies::Copied;
pub(super) use flood::Pushed;
pub(super) use links::{Lane, Links};
pub(super) use message::{HEAD, Tag};
pub(super) use schedule::poisson;
pub(super) use timer::Timer;
pub(super) use transact::OVERHEAD;
