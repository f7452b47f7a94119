//! Which class a frame goes in: judged by its first bytes, as the reference peer judges its kind, and never by more than that.
//!
//! Order, as the wire needs it:
//!
//! * BELIEF, DATA and LATTICE_VALUE share one `Fifo` class. Beliefs are deltas: one that overtakes the cells it builds on fails at
//!   the receiver. A kind that this version doesn't know goes there too, since nobody can say what order it needs.
//! * TRANSACT is `Fifo`: sequence numbers.
//! * STATUS, PING, CHALLENGE; QUERY, LATTICE_QUERY; DATA_REQUEST: `Any`. Their answers are told apart by ID, and the reference peer itself
//!   answers them out of order.
//! * A RESULT travels in the class of its request.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use peerlane_cell::vlq;
use peerlane_transport::{ClassId, ClassTable, Order, TrafficClass, Urgency};

use crate::{Kind, Message};

/// As many of a body's first bytes tell its kind and its ID: a vector's head, a keyword of at most 4 letters, an integer of 8 bytes.
pub(super) const HEAD: usize = 32;

/// A vector of more than 16 items has its first ones in a branch, so its kind takes the whole body. Legally that's a DATA_REQUEST (254
/// hashes, about 9 KB) or a DATA (larger, mostly); beyond this many bytes nobody looks.
const LOOK: u64 = 16 * 1024;

/// Requests whose class is remembered until their RESULT comes. Count, per connection: about 0.5 MB at most. Beyond it the oldest is
/// forgotten, and its RESULT goes among the queries'.
const MAX_PENDING: usize = 16_384;

pub(super) const CONTROL: ClassId = ClassId(0);
pub(super) const QUERY: ClassId = ClassId(1);
pub(super) const TRANSACT: ClassId = ClassId(2);
pub(super) const DATA: ClassId = ClassId(3);
pub(super) const BELIEF: ClassId = ClassId(4);

/// The classes between gateways: the standard ones, with BELIEF in order. Worst case per connection: see `peerlane limits`, whose budgets
/// these are; a message above a class's largest passes as a stream.
#[must_use]
pub fn gateway_classes() -> ClassTable {
    let standard = ClassTable::standard();
    let classes = standard.iter().map(|(_, class)| match &*class.name {
        ClassTable::BELIEF => TrafficClass {
            max_message: class.max_message,
            send_budget: class.send_budget,
            receive_budget: class.receive_budget,
            window_most: class.window_most,
            ..TrafficClass::new(ClassTable::BELIEF, class.weight, Urgency::Bulk, Order::Fifo)
        },
        _ => class.clone(),
    });
    ClassTable::new(classes.collect()).unwrap_or(standard)
}

/// What the first bytes of a body say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) id: Option<i64>,
}

impl Head {
    const UNKNOWN: Self = Self { kind: Kind::Unknown, id: None };

    /// From a body's first [`HEAD`] bytes, or all of it if it's shorter. `None`: the whole body is needed.
    pub(super) fn look(head: &[u8], len: u64) -> Option<Self> {
        Some(match head {
            [0xd4, ..] | [0x90, ..] => Self { kind: Kind::Belief, id: None },
            [0xdd, 5, rest @ ..] => Self { kind: Kind::Result, id: integer(rest) },
            [0xdd, ..] => Self { kind: Kind::Result, id: None },
            [0x80, rest @ ..] => {
                let Ok((count, used)) = vlq::read(rest) else { return Some(Self::UNKNOWN) };
                if count > 16 && len <= LOOK {
                    return None;
                }
                match rest.get(used..) {
                    Some([0x33, tag, rest @ ..]) if count <= 16 && rest.len() >= usize::from(*tag) => {
                        let (tag, rest) = rest.split_at(usize::from(*tag));
                        let kind = Kind::of_tag(tag);
                        let numbered = kind.is_request() || (kind == Kind::LatticeValue && count == 4);
                        Self { kind, id: integer(rest).filter(|_| numbered) }
                    }
                    _ => Self::UNKNOWN,
                }
            }
            _ => Self::UNKNOWN,
        })
    }

    /// From a whole body. One that isn't in canonical form is unknown: it's for the other peer to refuse.
    pub(super) fn of(body: &Bytes) -> Self {
        let short = &body[..body.len().min(HEAD)];
        Self::look(short, body.len() as u64)
            .or_else(|| Message::decode(body).ok().map(|message| Self { kind: message.kind(), id: message.id() }))
            .unwrap_or(Self::UNKNOWN)
    }

    /// The class, given that of the request if it's a RESULT.
    pub(super) fn class(self, request: Option<ClassId>) -> ClassId {
        match self.kind {
            Kind::Result => request.unwrap_or(QUERY),
            Kind::Query | Kind::LatticeQuery => QUERY,
            Kind::Transact => TRANSACT,
            Kind::DataRequest => DATA,
            Kind::Status | Kind::Ping | Kind::Challenge | Kind::Goodbye => CONTROL,
            _ => BELIEF,
        }
    }
}

/// An integer that fits 64 bits, at the front.
fn integer(bytes: &[u8]) -> Option<i64> {
    let [tag @ 0x10..=0x18, rest @ ..] = bytes else { return None };
    let bytes = rest.get(..usize::from(tag & 0xf))?;
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    Some(bytes.iter().fold(sign, |id, byte| id << 8 | i64::from(*byte)))
}

/// The classes of requests that went to the local peer and aren't answered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    classes: HashMap<i64, (ClassId, u64)>,
    order: VecDeque<(i64, u64)>,
    next: u64,
}

impl Pending {
    /// A request of this ID came in this class. One of the same ID that isn't answered is forgotten.
    pub(super) fn asked(&mut self, id: i64, class: ClassId) {
        self.next += 1;
        self.classes.insert(id, (class, self.next));
        self.order.push_back((id, self.next));
        // Answered ones stay in the order until they come to its front, so both have the same bound.
        while self.order.len() > MAX_PENDING || self.order.front().is_some_and(|front| !self.holds(*front)) {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.holds(oldest) {
                self.classes.remove(&oldest.0);
            }
        }
    }

    /// The class that the answer to this request goes in.
    pub(super) fn answered(&mut self, id: i64) -> Option<ClassId> {
        self.classes.remove(&id).map(|(class, _)| class)
    }

    fn holds(&self, (id, number): (i64, u64)) -> bool {
        self.classes.get(&id).is_some_and(|(_, latest)| *latest == number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use peerlane_cell::ValueId;
    use proptest::prelude::*;

    use super::*;
    use crate::{ErrorCode, Value, form};

    fn body(text: &str) -> Bytes {
        crate::Body::of(form::read(text).unwrap()).encode()
    }

    #[test]
    fn each_kind_has_its_class_by_its_first_bytes() {
        for (text, kind, id, class) in [
            ("[:SR 1]", Kind::Status, Some(1), CONTROL),
            ("[:PING -7]", Kind::Ping, Some(-7), CONTROL),
            ("[:CH 9223372036854775807 1]", Kind::Challenge, Some(i64::MAX), CONTROL),
            ("[:BYE]", Kind::Goodbye, None, CONTROL),
            ("[:Q 300 (+ 1 2) nil]", Kind::Query, Some(300), QUERY),
            ("[:LQ 5 [1]]", Kind::LatticeQuery, Some(5), QUERY),
            ("[:TX 70000 1]", Kind::Transact, Some(70000), TRANSACT),
            ("[:LV [1] 2]", Kind::LatticeValue, None, BELIEF),
            ("[:LV 4 [1] 2]", Kind::LatticeValue, Some(4), BELIEF),
            ("[:DATA 1]", Kind::Data, None, BELIEF),
            ("[:XX 1]", Kind::Unknown, None, BELIEF),
            ("[]", Kind::Unknown, None, BELIEF),
            ("12", Kind::Unknown, None, BELIEF),
            ("nil", Kind::Unknown, None, BELIEF),
        ] {
            let head = Head::of(&body(text));
            assert_eq!((head, head.class(None)), (Head { kind, id }, class), "{text}");
        }
        let answer = Message::error(Some(-300), &ErrorCode::Load, "x").encode();
        assert_eq!(Head::of(&answer), Head { kind: Kind::Result, id: Some(-300) });
        assert_eq!(Head::of(&answer).class(Some(TRANSACT)), TRANSACT);
        assert_eq!(Head::of(&Message::error(None, &ErrorCode::Load, "x").encode()), Head { kind: Kind::Result, id: None });
        assert_eq!(Head::of(&Bytes::from_static(&[0xd4, 1, 0x84, 0])).class(None), BELIEF);
    }

    #[test]
    fn a_long_data_request_is_known_though_its_head_stands_in_a_branch() {
        for n in [1, 14, 15, 30, 31, 254] {
            let hashes: Vec<ValueId> = (0..n).map(|i| ValueId([i as u8; 32])).collect();
            let body = Message::data_request(9, &hashes).unwrap().encode();
            let head = Head::of(&body);
            assert_eq!((head.kind, head.id, head.class(None)), (Kind::DataRequest, Some(9), DATA), "{n} hashes, {} bytes", body.len());
            assert!(body.len() as u64 <= LOOK);
        }
    }

    #[test]
    fn pending_is_bounded_and_forgets_the_oldest() {
        let mut pending = Pending::default();
        for id in 0..3 * MAX_PENDING as i64 {
            pending.asked(id, TRANSACT);
            assert!(pending.order.len() <= MAX_PENDING && pending.classes.len() <= MAX_PENDING);
        }
        assert_eq!((pending.answered(0), pending.answered(3 * MAX_PENDING as i64 - 1)), (None, Some(TRANSACT)));
        let mut pending = Pending::default();
        for id in 0..100_000 {
            pending.asked(id, QUERY);
            assert_eq!(pending.answered(id), Some(QUERY));
            assert!(pending.order.len() <= 2, "answered ones are gone");
        }
        pending.asked(1, QUERY);
        pending.asked(1, DATA);
        assert_eq!((pending.answered(1), pending.answered(1)), (Some(DATA), None));
    }

    #[test]
    fn the_classes_are_the_standard_ones_with_beliefs_in_order() {
        let classes = gateway_classes();
        assert_eq!(classes[BELIEF].order, Order::Fifo);
        assert!(classes.iter().all(|(_, class)| class.max_message <= 1 << 20), "1 MiB at most is held of each message");
        assert_eq!(classes.by_name(ClassTable::TRANSACT), Some(TRANSACT));
    }

    proptest! {
        #[test]
        fn noise_has_a_class_and_agrees_with_the_whole_message(bytes in prop::collection::vec(any::<u8>(), 0..80), vector in any::<bool>()) {
            let bytes: Vec<u8> = if vector { [&[0x80, 3, 0x33][..], &bytes].concat() } else { bytes };
            let bytes = Bytes::from(bytes);
            let head = Head::of(&bytes);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(head.kind, message.kind());
                if message.kind().is_request() {
                    prop_assert_eq!(head.id, message.id());
                }
            }
        }

        #[test]
        fn integers_are_read_as_they_are_written(n in any::<i64>()) {
            let body = Message::result(n, Value::nil()).unwrap().encode();
            prop_assert_eq!(Head::of(&body).id, Some(n));
        }
    }
}
