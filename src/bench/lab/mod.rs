//! Where a case is measured: both ends and the path between them.

#[cfg(target_os = "linux")]
mod emulated;
mod ends;
mod loopback;
mod star;

#[cfg(target_os = "linux")]
pub use emulated::{Emulated, play_inside};
pub use loopback::Loopback;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, Case, Kind, Measurement, Plan,
    connect::{ConnectCase, Connected},
};

/// Builds two ends and the path between them, applies a case's load, and takes everything down again.
pub trait Lab: Send + Sync {
    /// The name in records: those of different labs never share a table.
    fn name(&self) -> &'static str;

    /// The name of the path's impairment.
    fn profile(&self) -> &str;

    /// The rates in 10^6 bits per second, if the path has configured ones: to the answering end, and back.
    fn rates_mbps(&self) -> Option<[f64; 2]>;

    /// When the path's last scheduled event is over, from the lab's start.
    fn last_event(&self) -> Option<Duration> {
        None
    }

    /// What shares which thread or process in a workload: the one's work is the other's delay.
    fn threads(&self, kind: Kind) -> String;

    /// Whether it can have a plan, before anything is started.
    ///
    /// # Errors
    /// [`BenchError::Plan`] if it can't.
    fn permits(&self, plan: &Plan) -> Result<(), BenchError> {
        let _ = plan;
        Ok(())
    }

    /// Measures the lab against what it claims, for a plan: what isn't so, a line each. `None` if it claims nothing.
    ///
    /// # Errors
    /// [`BenchError::Plan`] if this machine can't have the lab, [`BenchError::Emulation`] if it fails,
    /// [`BenchError::Interrupted`] after `stop`.
    fn check(&self, plan: &Plan, stop: &CancellationToken) -> Result<Option<Vec<String>>, BenchError> {
        let _ = (plan, stop);
        Ok(None)
    }

    /// Measures one case, on a connection of its own. `stop` ends it early: what was measured then is incomplete.
    ///
    /// # Errors
    /// [`BenchError::Lab`] if an end can't be built or a message is refused, [`BenchError::Emulation`] if the network
    /// can't, [`BenchError::Interrupted`] if `stop` leaves nothing to tell. A connection that ends by itself is a
    /// measurement that says so.
    fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError>;

    /// Measures how soon a connection stands.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    fn connect(&self, case: &ConnectCase, stop: &CancellationToken) -> Result<Connected, BenchError>;
}
