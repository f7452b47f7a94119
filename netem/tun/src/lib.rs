//! A network with delay, loss and queues between TUN devices, for kernels without netem.
//!
//! Each host is a network namespace with one TUN device, whose other end this process holds. What a host sends is put
//! through [`Link`]s, which reckon as the kernel's netem does, and is written to the device of the host that it's for
//! when it's due.
//!
//! * [`Link`] and [`Network`] do no I/O and read no clock: time and a seed come in, and the same calls give the same
//!   network.
//! * [`Emulator`] is a thread with the devices. It reads the monotonic clock, sleeps until something is due or arrives,
//!   and counts for every packet how late it was written ([`Lateness`]). A run that was late proves nothing:
//!   [`Lateness::rejection`] says so, and why.
//!
//! # Provided
//!
//! netem's delay and its scatter (uniform, normal, Pareto, Pareto-normal), loss (independent, Gilbert-Elliott), reorder,
//! duplicate, corrupt, rate, limit, and changes of all of them while packets wait. IPv4. Devices that vanish with the
//! process, however it ends.
//!
//! # Not provided
//!
//! A router that answers: the network is a wire, TTLs stay as they are, and there's nobody at its addresses. IPv6.
//! Segmentation offload: devices take packets of their MTU, and the kernel cuts what's larger.

#[cfg(target_os = "linux")]
mod device;
mod distribution;
#[cfg(target_os = "linux")]
mod emulator;
mod lateness;
mod link;
mod network;
mod random;
mod shape;
#[cfg(test)]
mod tests;

#[cfg(target_os = "linux")]
pub use device::{Device, DeviceError, MTU};
pub use distribution::Distribution;
#[cfg(target_os = "linux")]
pub use emulator::Emulator;
pub use lateness::{Lateness, Watch};
pub use link::{Counters, Link, Packet};
pub use network::{Delivery, Network, Route};
pub use shape::{Jitter, Loss, Shape};
