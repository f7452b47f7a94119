//! The wire of 0.7.15 and before: `signed VLC length | type byte | body`. The length counts the type byte.
//!
//! A signed VLC long has the groups of a VLQ count, but bit 0x40 of its first byte is the sign, so 64 takes two bytes: `80 40`.
//! Cells have 8,191 bytes at most. Element 0 of a request's payload is its ID.

use bytes::{BufMut as _, Bytes, BytesMut};
use peerlane_cell::vlq::VlqError;

use crate::{
    body::{Body, BodyError},
    frame::{FrameError, Frames},
    kind::Kind,
    limits::MAX_FRAME_LEGACY,
};

/// The largest cell of 0.7.15, in bytes.
const MAX_CELL: usize = 8191;

/// Why bytes are no legacy message. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// No type byte.
    #[error("a message without a type")]
    NoType,
    /// A type that 0.7.15 doesn't have.
    #[error("{0} is no message type of 0.7.15")]
    UnknownType(u8),
    /// The body.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A cell above 8,191 bytes.
    #[error("a cell has at most {MAX_CELL} bytes before 0.8.0")]
    CellTooLarge,
}

/// A message of the legacy wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyMessage {
    /// What it is: one that has a [`Kind::legacy_code`].
    pub kind: Kind,
    /// Payload and branches.
    pub body: Body,
}

impl LegacyMessage {
    /// Reads what a frame of [`legacy_frames`] holds: type and body.
    ///
    /// # Errors
    /// [`LegacyError`].
    pub fn decode(input: &Bytes) -> Result<Self, LegacyError> {
        let code = *input.first().ok_or(LegacyError::NoType)?;
        let kind = Kind::from_legacy_code(code).ok_or(LegacyError::UnknownType(code))?;
        let body = Body::decode(&input.slice(1..))?;
        let branch = body.branches.iter().any(|(_, encoding)| encoding.len() > MAX_CELL);
        if branch || peerlane_cell::encoded_len(&body.top) > MAX_CELL {
            return Err(LegacyError::CellTooLarge);
        }
        Ok(Self { kind, body })
    }

    /// The frame; `None` for a kind that the legacy wire doesn't have.
    #[must_use]
    pub fn frame(&self) -> Option<Bytes> {
        let code = self.kind.legacy_code()?;
        let len = 1 + self.body.encoded_len();
        let mut out = BytesMut::with_capacity(len + 10);
        write_vlc(len as i64, &mut out);
        out.put_u8(code);
        self.body.encode_into(&mut out);
        Some(out.freeze())
    }

    /// The request's ID: element 0 of a payload that is a vector of up to 16, field 0 of a Result.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        match (&self.kind, &self.body.top) {
            (Kind::Result, peerlane_cell::Cell::Record(_, fields)) => fields.tail().first()?.embedded()?.as_integer(),
            (_, top) => top.as_short_vector()?.first()?.embedded()?.as_integer(),
        }
    }
}

/// Cuts a stream of the legacy wire into type and body.
#[must_use]
pub fn legacy_frames() -> Frames {
    // The limit is the body's, the length counts the type byte as well.
    Frames::with_prefix(MAX_FRAME_LEGACY + 1, prefix)
}

fn prefix(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    match read_vlc(bytes) {
        Ok(None) => Ok(None),
        Ok(Some((len, used))) => match u64::try_from(len) {
            Ok(0) | Err(_) => Err(FrameError::NoType),
            Ok(len) => Ok(Some((len, used))),
        },
        Err(error) => Err(error.into()),
    }
}

/// Appends a signed VLC long in its shortest form.
fn write_vlc(value: i64, out: &mut BytesMut) {
    // Bits with the sign, in groups of seven.
    let bits = 65 - if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    for group in (0..bits.div_ceil(7)).rev() {
        let more = if group == 0 { 0 } else { 0x80 };
        out.put_u8((value >> (7 * group)) as u8 & 0x7f | more);
    }
}

/// A signed VLC long in its shortest form and the bytes it took; `None` while more are needed.
fn read_vlc(bytes: &[u8]) -> Result<Option<(i64, usize)>, VlqError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let mut value: i64 = if first & 0x40 == 0 { 0 } else { -1 };
    for (i, byte) in bytes.iter().enumerate() {
        // Ten groups are 70 bits; the ninth shift must lose nothing.
        if i == 9 && (value << 7) >> 7 != value || i == 10 {
            return Err(VlqError::TooLong);
        }
        value = value << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let mut shortest = BytesMut::new();
            write_vlc(value, &mut shortest);
            return if shortest.len() == i + 1 { Ok(Some((value, i + 1))) } else { Err(VlqError::NotShortest) };
        }
    }
    if bytes.len() >= 10 { Err(VlqError::TooLong) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::form;

    fn vlc(value: i64) -> Vec<u8> {
        let mut out = BytesMut::new();
        write_vlc(value, &mut out);
        out.to_vec()
    }

    #[test]
    fn the_sign_takes_a_bit_of_the_first_byte() {
        // facts/convex.md 1.2: one byte covers -64 to 63.
        assert_eq!((vlc(63), vlc(64), vlc(-64), vlc(0)), (vec![0x3f], vec![0x80, 0x40], vec![0x40], vec![0]));
        for value in [0, 1, 63, 64, 8191, 8192, i64::MAX, -1, -64, -65, i64::MIN] {
            let bytes = vlc(value);
            assert_eq!(read_vlc(&bytes), Ok(Some((value, bytes.len()))), "{value}");
            assert_eq!(read_vlc(&bytes[..bytes.len() - 1]), Ok(None), "{value}");
        }
        assert_eq!(read_vlc(&[0x80, 0x01]), Err(VlqError::NotShortest));
        assert_eq!(read_vlc(&[0xff, 0x7f]), Err(VlqError::NotShortest));
        assert_eq!(read_vlc(&[0xbf; 12]), Err(VlqError::TooLong));
    }

    #[test]
    fn a_query_of_0_7_15() {
        let body = Body::of(form::read("[1 (+ 1 2) #12]").unwrap());
        let message = LegacyMessage { kind: Kind::Query, body };
        let bytes = message.frame().unwrap();
        assert_eq!(bytes[..3], [bytes.len() as u8 - 1, 6, 0x80]);
        let mut frames = legacy_frames();
        frames.buffer().put_slice(&bytes);
        let read = LegacyMessage::decode(&frames.next_frame().unwrap().unwrap()).unwrap();
        assert_eq!((read.id(), &read), (Some(1), &message));
    }

    #[test]
    fn what_the_legacy_wire_refuses() {
        let next = |bytes: &[u8]| {
            let mut frames = legacy_frames();
            frames.buffer().put_slice(bytes);
            frames.next_frame()
        };
        assert_eq!(next(&vlc(0)), Err(FrameError::NoType));
        assert_eq!(next(&vlc(-5)), Err(FrameError::NoType));
        assert_eq!(next(&vlc(20_000_002)), Err(FrameError::TooLarge { len: 20_000_002, max: 20_000_001 }));
        assert_eq!(next(&vlc(20_000_001)), Ok(None));
        assert_eq!(LegacyMessage::decode(&Bytes::from_static(&[16, 0])), Err(LegacyError::UnknownType(16)));
        assert_eq!(LegacyMessage::decode(&Bytes::new()), Err(LegacyError::NoType));
        let ping = LegacyMessage { kind: Kind::Ping, body: Body::new(peerlane_cell::Cell::Nil) };
        assert_eq!(ping.frame(), None);
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_taken(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut frames = legacy_frames();
            frames.buffer().put_slice(&bytes);
            while let Ok(Some(message)) = frames.next_frame() {
                if let Ok(message) = LegacyMessage::decode(&message) {
                    prop_assert!(message.frame().is_some());
                }
            }
        }
    }
}
