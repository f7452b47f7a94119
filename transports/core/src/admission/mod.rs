//! Whom a peer lets in: by name ([`Lists`]) and by the work that a handshake costs ([`Gate`]).

mod gate;
mod lists;

pub use gate::{Denied, Gate, GateConfig, GateStats, Handshake, Rate};
pub use lists::{LIST_FILE_MAX, ListError, ListFiles, ListSets, Lists};
