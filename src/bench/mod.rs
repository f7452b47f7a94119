//! Measures what the product promises: the latency of one class while another is flooded.
//!
//! A [`Plan`] is a matrix of [`Case`]s: transports ([`Variant`]s), floods and rivals, over several runs that interleave, so
//! that what else the machine does falls on all of them. [`run`] takes each case to a [`Lab`], which builds both ends and
//! the path between them, and makes one [`Record`] of each; [`report`] pools runs into a table.
//!
//! # How it's measured
//! * *Open loop*: queries leave at times drawn beforehand (Poisson, seeded), whatever became of the earlier ones, and
//!   latency counts from the **scheduled** time. A stall is paid for by every query that it meets, not by one
//!   (coordinated omission). How late the generator itself was stands in each record.
//! * *Nothing is forgotten*: a query without an answer counts as the worst of its run.
//! * *Warm-up is excluded*: handshake, slow start, the first allocations.
//! * *Same work for all*: cases of one run share their schedule, to the nanosecond.
//! * *Labs are checked*: an emulated network is measured against its profile first; a red one is in no table.
//! * *What is left out is said*: a case that failed or was rejected has a record with its reason, and the table counts it.
//! * *Comparators are honest*: each is the best version of itself, and a congestion control that isn't in force voids the
//!   measurement instead of being replaced.
//! * A record names the congestion control and the socket buffers of both ends, as read back, and the build.
//!
//! # Provided
//! The loopback lab (real time, this machine's kernel, no impairment); the virtual and the netem lab, with any profile of
//! `netem/`; what a transport [costs](cost), and how soon it [connects](connect); the workloads query, transact (signed operations in
//! order) and propagate (gossip through a star of peers) with floods one way, both ways and at a rate, alone or beside a kernel TCP
//! flow; where the path has a schedule, a [`Series`] and how soon all was well again.
//!
//! # Not provided
//! The tun lab. Numbers of a debug build or,
//! in real time, of a busy machine mean little; both are named in the record.

pub mod connect;
#[cfg(target_os = "linux")]
pub mod cost;
mod environment;
mod error;
mod flood;
mod lab;
mod load;
mod measurement;
pub mod page;
mod plan;
mod propagate;
mod record;
mod recovery;
pub mod report;
mod runner;
mod saved;
#[cfg(test)]
mod tests;
mod variant;

pub use environment::Environment;
pub use error::BenchError;
pub use flood::{Flood, FloodRate};
#[cfg(target_os = "linux")]
pub use lab::{Emulated, play_inside};
pub use lab::{Lab, Loopback};
pub use load::Copied;
pub use measurement::{Direction, End, Measurement, Network, Offered, Queue, Times};
pub use plan::{Case, Kind, Plan, Rival, Workload};
pub use record::{Record, Status, Unmeasured};
pub use recovery::{Recovery, Series, Slot};
pub use runner::{Event, How, Outcome, Ran, run};
pub use saved::Saved;
pub use variant::Variant;
