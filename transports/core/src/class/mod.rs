//! Traffic classes: the table, the scheduler, the bounded queues on both sides, and the records on a lane.

mod copies;
mod credit;
mod inbox;
mod outbox;
mod queue;
mod record;
mod scheduler;
mod table;

pub use copies::CopyBudget;
pub(crate) use copies::{Arrived, MessageCopy, may_be_copied};
pub(crate) use credit::{Credit, Growth};
pub use inbox::{Inbound, MessageReader};
pub(crate) use inbox::{Inbox, StreamIn};
pub(crate) use outbox::OpenStream;
pub use outbox::{DatagramState, Offer, Outbox, Outgoing, Segment};
pub(crate) use queue::{End, message_stream_cost};
pub use record::{Lane, Record};
pub use scheduler::{LEAD, Scheduler};
pub use table::{ClassId, ClassTable, Delivery, Order, TableError, TrafficClass, Urgency};
