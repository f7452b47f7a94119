//! Connections: the traits of a transport, the session that all transports drive, and class framing.

mod control;
pub mod framing;
mod handle;
mod receive;
mod session;
mod settle;
mod stats;
mod transport;

pub use control::{BadControl, Control};
pub use handle::{Connection, Expecting, MessageWriter};
pub use receive::LaneSource;
pub use session::{Session, SessionInfo};
pub use settle::{Settle, settle};
pub(crate) use stats::SendCounters;
pub use stats::{ClassStats, ConnectionStats, PathStats};
pub use transport::{AnyListener, AnyTransport, AnyUpgrade, Listener, Transport, Upgrade};
