//! Who becomes a peer: by the work that a handshake costs ([`Gate`]), by name ([`Lists`]), by what it speaks ([`hello`]).
//! And how a connection that stands gets a further byte stream ([`join`]).

mod gate;
pub mod hello;
pub mod join;
mod lists;
mod local;

pub use gate::{Denied, Gate, GateConfig, GateStats, Handshake, Rate};
pub use hello::{Agreed, Terms};
pub use join::JoinToken;
pub use lists::{LIST_FILE_MAX, ListError, ListFiles, ListSets, Lists};
pub use local::LocalPeer;
