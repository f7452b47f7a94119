//! The reference peer: a lattice of per-account signed logs, kept in an embedded store.
//!
//! * `operation`: what an account signs.
//! * `lattice`: the logs of all accounts and how two lattices join.
//! * `belief`: what a peer tells others that it holds.
//! * `store`, `snapshot`: on disk, and reading it; `collect`: letting go of what is out of use; `reopen`: after a full disk.
//! * `gossip`: how lattices spread; `handler`: all of it as a handler of a node.
//! * `limits`: its rows of the table of bounds.
//! * `service`: what it answers to requests.
//! * `form`: what a QUERY asks and its RESULT says.
//! * `surroundings`: threads and the clock on the wall, or a simulation's.

mod belief;
mod collect;
mod form;
mod gossip;
mod handler;
mod lattice;
mod limits;
mod operation;
mod reopen;
mod service;
mod snapshot;
mod store;
mod surroundings;

pub use belief::{Belief, BeliefDelta, BeliefError, MAX_BELIEF, MAX_PARTS};
pub use collect::{BATCH, Collected, SLACK};
pub use form::{Answer, FormError, MAX_PAGE, MAX_PAGE_BYTES, Query};
pub use gossip::{GATHER, Gossip, GossipCounters, REPEAT};
pub use handler::PeerHandler;
pub use lattice::{AccountChange, Appended, Change, Equivocation, MERGE_STEP, MergeError, Step, WrongSequence, append, log_of, merge};
pub use limits::limit_rows;
pub use operation::{Account, Edit, MAX_KEY, MAX_VALUE, Operation, OperationError, Verified};
pub use service::{MAX_DATA, STATUS_AGE, Service, Status, read_outcome};
pub use snapshot::{Counts, Snapshot};
pub use store::{FORMAT, Include, MAX_EQUIVOCATIONS, MAX_RECENT, Merged, Store, StoreError, StoreMergeError};
pub use surroundings::Simulation;

#[cfg(test)]
mod tests;
