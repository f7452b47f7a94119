//! Peerlane's network lab: impairment profiles, and labs that put them under a program and can be believed.
//!
//! A [`profile`] says what a network does to packets, a [`plan`] which commands build that network, and a [`Run`] makes a
//! lab, runs a command in it, and leaves nothing behind. The labs ([`LabKind`]) share profiles and commands:
//!
//! * `virtual` boots a real Linux kernel as a process (User-Mode Linux) whose clock jumps from event to event. A noisy
//!   machine can't disturb it, and processing costs no time in it: it shows what protocols do.
//! * `netem` uses namespaces and netem of the kernel that runs, in real time.
//! * `tun` uses namespaces and an emulator of our own between TUN devices ([`peerlane_tun`]), in real time, for kernels
//!   without netem. It says how late it was, and a late run is rejected.
//!
//! A program that starts labs calls [`enter`] first in its `main`: it plays the labs' inner ends as well.
//!
//! # Provided
//!
//! Profiles that are judged before anything starts; the same commands in every lab; schedules; counters of every queue
//! ([`read_stats`]); a functional [`check`] that fails when a lab lies; labs that die with whoever made them.
//!
//! # Not provided
//!
//! Seeds: runs with loss differ, as keys and the order of packets do. Drops of a full queue apart from the
//! profile's losses: netem counts them together.

pub mod check;
mod lab;
pub mod plan;
pub mod profile;
mod stats;

pub use lab::{Diagnosis, LabError, LabKind, Outcome, Run, Standing, UnknownLab, best, clean_up, doctor, enter};
pub use peerlane_tun::Lateness;
pub use stats::{QueueStats, StatsError, read_stats};
