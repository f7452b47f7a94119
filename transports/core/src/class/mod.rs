//! Traffic classes: the table, the scheduler, the bounded queues on both sides, and the records on a stream.

mod table;
mod scheduler;

pub use scheduler::{LEAD, Scheduler};
pub use table::{ClassId, ClassTable, Delivery, Order, TableError, TrafficClass, Urgency};
