//! The workload `propagate`: how soon all peers of a star have what one of them has written.
//!
//! Eight reference peers, each on a thread and a runtime of its own: the first is the hub, the others are leaves connected with it
//! alone. One leaf, the author, appends operations in an open loop (Poisson, from the scheduled time); the real gossip carries
//! them; an operation counts as propagated when the last of the eight has merged it. One that isn't by the end counts as the
//! worst.
//!
//! A flood is a large belief that all have merged, sent over and over in the class that the gossip's own beliefs take: by the hub to
//! each leaf, in a flood both ways by each leaf too.
//!
//! Each store is looked at every millisecond ([`LOOK`]): so exact the times are.

mod belief;
mod board;
mod flood;
mod heard;
mod member;
mod write;

use std::time::Duration;

pub(super) use board::Board;
pub(super) use member::member;

use super::{error::LabError, variant::NETWORK};

/// Peers of the star.
pub(super) const MEMBERS: usize = 8;
/// The one that all others are connected with.
const HUB: usize = 0;
/// The leaf that writes.
const AUTHOR: usize = 1;
/// How often each store is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// The smallest belief of a flood, in bytes: what it must have, and two cells to fill it.
pub(super) const LEAST_BELIEF: usize = 2048;

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LabError {
    std::io::Error::other(error).into()
}
