//! Congestion control: what connections of this crate send with.
//!
//! * [`model`] decides how large the window is. It reads no clock and does no I/O.
//! * `controller` is quinn's `Controller` over it.
//! * `heard` is what the driver tells it.
//! * `publish` tells the driver what any controller's window is.

mod controller;
mod heard;
mod model;
mod publish;

pub use controller::{Delay, DelayBothWays};
pub use heard::Heard;
pub use model::DelayConfig;
pub(crate) use publish::{Factory, Published};
