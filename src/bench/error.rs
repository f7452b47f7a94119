//! What can end a benchmark.

use std::path::PathBuf;

use peerlane_transport::{ConnectError, ListenError, SendError, identity::IdentityError};
use thiserror::Error;

/// Why there's no measurement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The plan can't be run; nothing was started.
    #[error("{what}")]
    Plan {
        /// What is wrong, and what is permitted.
        what: String,
    },
    /// The records' file couldn't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The page couldn't be drawn.
    #[error("the page: {what}")]
    Page {
        /// What the drawing library says.
        what: String,
    },
    /// The records couldn't be written to standard output.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// The network between the ends couldn't be had, or died.
    #[error("{case}: {what}")]
    Emulation {
        /// What was to be measured in it.
        case: String,
        /// Why, and what would help.
        what: String,
    },
    /// Stopped by the user before there was anything to tell.
    #[error("interrupted")]
    Interrupted,
    /// An end couldn't be built on this machine.
    #[error("the {end} of {variant}: {source}")]
    Lab {
        /// Which end.
        end: &'static str,
        /// The transport's name.
        variant: &'static str,
        /// Why.
        source: LabError,
    },
}

/// Why an end couldn't be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// A thread, runtime or timer was refused by the system.
    #[error("the system refused a thread, runtime or timer: {0}")]
    System(#[from] std::io::Error),
    /// The network namespace that it belongs in.
    #[error("the network namespace {}: {source}", path.display())]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// This kernel hasn't the congestion control that the transport is named after.
    #[error(
        "this kernel hasn't {name}, or doesn't permit it: {reason}; `modprobe tcp_{name}` adds it, \
         `sysctl net.ipv4.tcp_allowed_congestion_control` tells what is permitted, and the virtual lab's kernel has it (--lab virtual)"
    )]
    Kernel {
        /// The congestion control.
        name: &'static str,
        /// What was tried, and the system's reason.
        reason: String,
    },
    /// Another congestion control was in force.
    #[error("{name} was asked for, and {found} was in force: the measurement is void")]
    Congestion {
        /// The one asked for.
        name: &'static str,
        /// The one read back.
        found: String,
    },
    /// Its keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Listening.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Dialing, or the handshake.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A message was refused.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The other end failed first, and says why itself.
    #[error("the other end failed")]
    OtherEnd,
}
