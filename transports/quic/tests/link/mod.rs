//! A path in virtual time: real quinn connections over netem's arithmetic, without I/O and without a clock.
//!
//! Two ends of quinn-proto exchange packets through [`netem`], which decides from a seed what is lost, delayed, queued
//! and dropped; a [`tcp`] model shares the bottleneck where a profile says so. CPU time is free here: it shows what a
//! congestion controller does, not what it costs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod netem;
pub mod node;
pub mod profile;
pub mod report;
pub mod tcp;
pub mod traffic;
pub mod watch;
pub mod world;
