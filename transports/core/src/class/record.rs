//! What a class's stream consists of: records, the same on every transport.
//!
//! A *lane* is one ordered stream of bytes of one class and direction: lane 0 is the class's own, lanes 1 to 14
//! carry one large message each. On a lane stand records: a varint (RFC 9000, section 16) of `value << 3 | kind`,
//! then the bytes that the kind says.
//!
//! | kind | value | then | meaning |
//! |---|---|---|---|
//! | 0 whole | length | `length` bytes | a message |
//! | 1 start | number | - | a streamed message begins; numbers count up per class |
//! | 2 part | length | `length` bytes | the next bytes of the streamed message |
//! | 3 end | 0 | - | the streamed message is complete |
//! | 4 abort | code | - | the sender gives the streamed message up |
//!
//! Between start and end or abort a lane carries nothing but parts. A lane above 0 carries one message and ends.

use bytes::BufMut;

use crate::varint;

/// One ordered stream of bytes: a class and a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The class's index.
    pub class: u8,
    /// 0: the class's own stream; 1 to 14: a large message.
    pub slot: u8,
}

impl Lane {
    /// Not a lane: what a stream that carries one small message, and no record, says in the place of a slot.
    pub const MESSAGE: u8 = 15;

    /// As one byte on the wire: class in the high half.
    pub const fn to_byte(self) -> u8 {
        self.class << 4 | self.slot & 15
    }

    /// From one byte on the wire.
    pub const fn from_byte(byte: u8) -> Self {
        Self { class: byte >> 4, slot: byte & 15 }
    }
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A message of so many bytes.
    Whole(u64),
    /// A streamed message of this number begins.
    Start(u64),
    /// So many bytes of it.
    Part(u64),
    /// It's complete.
    End,
    /// It's given up, with a code.
    Abort(u32),
}

impl Record {
    /// Appends the head.
    pub fn encode(self, out: &mut impl BufMut) {
        let (kind, value) = match self {
            Self::Whole(len) => (0, len),
            Self::Start(number) => (1, number),
            Self::Part(len) => (2, len),
            Self::End => (3, 0),
            Self::Abort(code) => (4, u64::from(code)),
        };
        varint::put(out, value << 3 | kind);
    }

    /// From the head's varint; `None` if there's no such kind, or its value is out of range.
    pub fn from_varint(head: u64) -> Option<Self> {
        let value = head >> 3;
        Some(match head & 7 {
            0 => Self::Whole(value),
            1 => Self::Start(value),
            2 => Self::Part(value),
            3 if value == 0 => Self::End,
            4 => Self::Abort(u32::try_from(value).ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn heads_and_lanes_round_trip() {
        for record in
            [Record::Whole(0), Record::Whole(1 << 40), Record::Start(7), Record::Part(16384), Record::End, Record::Abort(u32::MAX)]
        {
            let mut out = Vec::new();
            record.encode(&mut out);
            assert_eq!(Record::from_varint(varint::get(&mut &out[..]).unwrap()), Some(record));
        }
        for kind in 5..8 {
            assert_eq!(Record::from_varint(kind), None);
        }
        assert_eq!(Record::from_varint(8 | 3), None, "an end has no value");
        let lane = Lane { class: 11, slot: 3 };
        assert_eq!((lane.to_byte(), Lane::from_byte(0xb3)), (0xb3, lane));
    }
}
