//! Traffic classes: what each promises, and the table of them that two peers agree on.

use std::{fmt, sync::Arc};

use thiserror::Error;

use super::record::Lane;
use crate::limits;

/// The index of a class in the local [`ClassTable`], 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassId(pub u8);

impl ClassId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether messages of a class arrive in the order they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// First in, first out: never split over streams.
    Fifo,
    /// Any order: a large message doesn't hold up the small ones behind it.
    Any,
}

/// How messages of a class travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Each message arrives unless the connection ends.
    Reliable,
    /// A message that fits a datagram (RFC 9221) travels as one and may be lost; others, and all of them on a
    /// transport without datagrams, are reliable.
    Datagram,
}

/// Whether the scheduler lets a class go first while it's within its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// Goes first while within its share.
    Latency,
    /// Goes by its weight.
    Bulk,
}

/// One class of traffic: a quality of service, not a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficClass {
    /// 1 to 32 bytes; how two peers recognise the class.
    pub name: Arc<str>,
    /// Its share of the connection when others wait too, 1 to 1,000, relative to the other classes' weights.
    pub weight: u32,
    /// Whether it goes first while within its share.
    pub urgency: Urgency,
    /// Order of arrival.
    pub order: Order,
    /// How messages travel.
    pub delivery: Delivery,
    /// The largest whole message in bytes. Larger ones are refused, or streamed.
    pub max_message: usize,
    /// Bytes that may wait to be sent, each message counted with [`limits::ENTRY_OVERHEAD`]. Worst-case memory per connection.
    pub send_budget: usize,
    /// Bytes of whole messages that may wait to be received, counted in the same way. Worst-case memory per connection.
    pub receive_budget: usize,
    /// Bytes in transit on the class's one stream that the receiver hasn't taken up, as long as that doesn't hold the
    /// sender up. Worst-case memory per connection.
    pub window: usize,
    /// What the window grows to where it does, within [`Limits::window_growth`](limits::Limits::window_growth) for all
    /// streams of a connection together. Less than `window`: it doesn't grow.
    pub window_most: usize,
    /// Large messages (`Any` classes only) that may be in transit at once, 0 to 14, each on a stream of its own.
    pub large_lanes: u8,
    /// Bytes in transit on each of these streams, at first. Worst-case memory per connection: `large_lanes * large_window`.
    pub large_window: usize,
    /// What each of these windows grows to, as `window_most`.
    pub large_window_most: usize,
}

impl TrafficClass {
    /// A reliable class with moderate budgets: 256 KiB messages, 320 KiB queues, windows of 128 KiB that grow to 512;
    /// adjust the public fields.
    pub fn new(name: &str, weight: u32, urgency: Urgency, order: Order) -> Self {
        let large_lanes = if order == Order::Any { 2 } else { 0 };
        Self {
            name: name.into(),
            weight,
            urgency,
            order,
            delivery: Delivery::Reliable,
            max_message: 256 * 1024,
            send_budget: 320 * 1024,
            receive_budget: 320 * 1024,
            window: 128 * 1024,
            window_most: 512 * 1024,
            large_lanes,
            large_window: 128 * 1024,
            large_window_most: 512 * 1024,
        }
    }

    /// Streams that this class may have in one direction: its own, and one per large message in transit.
    pub fn lanes(&self) -> usize {
        1 + usize::from(self.large_lanes)
    }

    /// Bytes that the receiver has promised to take, over all streams of the class, before any has grown.
    pub fn window_total(&self) -> usize {
        self.window.saturating_add(usize::from(self.large_lanes).saturating_mul(self.large_window))
    }

    /// What the window of one of its streams grows to: the class's own, or a large message's.
    pub fn most(&self, large: bool) -> usize {
        if large { self.large_window.max(self.large_window_most) } else { self.window.max(self.window_most) }
    }
}

/// What is wrong with a class table.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// No class, or more than 16.
    #[error("a table has 1 to {max} classes, not {0}", max = limits::MAX_CLASSES)]
    Count(usize),
    /// Two classes of one name.
    #[error("two classes are named {0:?}")]
    Duplicate(Arc<str>),
    /// A field out of range.
    #[error("class {class:?}: {what}")]
    Field {
        /// The class.
        class: Arc<str>,
        /// What is wrong and what is permitted.
        what: &'static str,
    },
}

/// The classes of one side, in order: earlier latency classes go first. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTable(Arc<[TrafficClass]>);

impl ClassTable {
    /// Checks and makes a table.
    ///
    /// # Errors
    /// A [`TableError`] that names the class and what it may be.
    pub fn new(classes: Vec<TrafficClass>) -> Result<Self, TableError> {
        if classes.is_empty() || classes.len() > limits::MAX_CLASSES {
            return Err(TableError::Count(classes.len()));
        }
        for (i, class) in classes.iter().enumerate() {
            let fail = |what| Err(TableError::Field { class: class.name.clone(), what });
            if classes[..i].iter().any(|c| c.name == class.name) {
                return Err(TableError::Duplicate(class.name.clone()));
            }
            if class.name.is_empty() || class.name.len() > limits::MAX_CLASS_NAME {
                return fail("a name has 1 to 32 bytes");
            }
            if class.weight == 0 || class.weight > 1000 {
                return fail("a weight is 1 to 1,000");
            }
            if class.large_lanes >= Lane::MESSAGE {
                return fail("at most 14 large messages are in transit at once");
            }
            if class.order == Order::Fifo && class.large_lanes != 0 {
                return fail("a Fifo class has one stream: large_lanes must be 0");
            }
            if class.order == Order::Any && class.large_lanes == 0 && class.max_message > limits::SMALL_MESSAGE {
                return fail("an Any class with messages over 64 KiB needs large_lanes");
            }
            let need = class.max_message.saturating_add(limits::ENTRY_OVERHEAD);
            if need > class.send_budget || need > class.receive_budget {
                return fail("max_message must fit the send and the receive budget");
            }
            if class.send_budget > limits::MAX_BUDGET || class.receive_budget > limits::MAX_BUDGET {
                return fail("a budget is at most 1 GiB");
            }
            if class.window < limits::MIN_WINDOW || (class.large_lanes > 0 && class.large_window < limits::MIN_WINDOW) {
                return fail("a window is at least 16 KiB");
            }
            if class.most(false) > limits::MAX_BUDGET || class.most(true) > limits::MAX_BUDGET {
                return fail("a window is at most 1 GiB");
            }
        }
        Ok(Self(classes.into()))
    }

    /// The classes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ClassId, &TrafficClass)> + DoubleEndedIterator {
        self.0.iter().enumerate().map(|(i, class)| (ClassId(i as u8), class))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a table has at least one class.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One class, if there is such a one.
    pub fn get(&self, id: ClassId) -> Option<&TrafficClass> {
        self.0.get(id.index())
    }

    /// The class of a name.
    pub fn by_name(&self, name: &str) -> Option<ClassId> {
        self.iter().find(|(_, c)| &*c.name == name).map(|(id, _)| id)
    }

    /// Bytes that a receiver with this table has promised to take, over all classes and streams, before any has grown.
    pub fn window_total(&self) -> usize {
        self.0.iter().map(TrafficClass::window_total).fold(0, usize::saturating_add)
    }

    /// Streams that one side may open, over all classes.
    pub fn lanes_total(&self) -> usize {
        self.0.iter().map(TrafficClass::lanes).sum()
    }

    /// The default of peerlane: control, query, transact (Fifo), data, belief.
    pub fn standard() -> Self {
        const KIB: usize = 1024;
        let class = |name, weight, urgency, order| TrafficClass::new(name, weight, urgency, order);
        let control = TrafficClass {
            max_message: 64 * KIB,
            send_budget: 128 * KIB,
            receive_budget: 128 * KIB,
            window: 64 * KIB,
            window_most: 128 * KIB,
            large_lanes: 0,
            ..class(Self::CONTROL, 10, Urgency::Latency, Order::Any)
        };
        let query = class(Self::QUERY, 30, Urgency::Latency, Order::Any);
        let transact = class(Self::TRANSACT, 20, Urgency::Latency, Order::Fifo);
        // 2 MiB: a BDP of 312 KB (50 Mbit/s, 50 ms) with 3% of its packets lost needs 1.5 (benches/RESULTS.md).
        let bulk = |name, lanes| TrafficClass {
            max_message: 512 * KIB,
            send_budget: 1024 * KIB,
            receive_budget: 640 * KIB,
            window_most: 2048 * KIB,
            large_lanes: lanes,
            large_window_most: 1024 * KIB,
            ..class(name, 20, Urgency::Bulk, Order::Any)
        };
        Self([control, query, transact, bulk(Self::DATA, 4), bulk(Self::BELIEF, 4)].into())
    }

    /// Name of the class for STATUS, PING, CHALLENGE, RESPONSE and GOODBYE.
    pub const CONTROL: &'static str = "control";
    /// Name of the class for QUERY and its RESULT.
    pub const QUERY: &'static str = "query";
    /// Name of the class for TRANSACT and its RESULT.
    pub const TRANSACT: &'static str = "transact";
    /// Name of the class for DATA and MISSING_DATA.
    pub const DATA: &'static str = "data";
    /// Name of the class for BELIEF.
    pub const BELIEF: &'static str = "belief";
}

impl std::ops::Index<ClassId> for ClassTable {
    type Output = TrafficClass;

    fn index(&self, id: ClassId) -> &TrafficClass {
        &self.0[id.index()]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_standard_table_passes_its_own_check() {
        let table = ClassTable::standard();
        assert_eq!(ClassTable::new(table.0.to_vec()), Ok(table.clone()));
        assert_eq!(table.by_name("transact"), Some(ClassId(2)));
        assert_eq!(table[ClassId(2)].order, Order::Fifo);
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let base = TrafficClass::new("a", 1, Urgency::Bulk, Order::Any);
        let refuse = |class: TrafficClass| ClassTable::new(vec![class]).unwrap_err();
        for bad in [
            TrafficClass { weight: 0, ..base.clone() },
            TrafficClass { name: "".into(), ..base.clone() },
            TrafficClass { large_lanes: 15, ..base.clone() },
            TrafficClass { order: Order::Fifo, ..base.clone() },
            TrafficClass { send_budget: base.max_message, ..base.clone() },
            TrafficClass { window: 1, ..base.clone() },
        ] {
            assert!(matches!(refuse(bad), TableError::Field { .. }));
        }
        assert_eq!(ClassTable::new(vec![base.clone(), base]), Err(TableError::Duplicate("a".into())));
        assert_eq!(ClassTable::new(vec![]), Err(TableError::Count(0)));
    }
}
