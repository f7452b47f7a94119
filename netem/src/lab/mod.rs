//! Labs: what can be had on this machine, and commands run in them.

mod agent;
mod directory;
mod doctor;
mod driver;
pub(crate) mod emulated;
mod error;
mod guest;
mod job;
mod kind;
mod machine;
mod namespaces;
mod run;
mod session;
mod standing;

pub(crate) use agent::MARK;
pub use agent::enter;
pub use doctor::{Diagnosis, best, doctor};
pub(crate) use driver::Driver;
pub use error::LabError;
pub use job::Outcome;
pub use kind::{LabKind, UnknownLab};
pub use run::Run;
pub use standing::{Standing, clean_up};
