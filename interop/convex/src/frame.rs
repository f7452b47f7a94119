//! Frames since 0.8.0: `VLQ length | body`. No magic, no version, no type, no checksum (CAD015 "Message transport"; the
//! reference peer's Netty handlers).
//!
//! The length is judged as soon as it's there, before anything is reserved for the body; the body is taken as it comes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use peerlane_cell::vlq::{self, VlqError};

/// Why a stream of bytes is no sequence of frames. What follows can't be read any more: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body would be longer than the limit in force.
    #[error("a frame of {len} bytes: at most {max} are taken here")]
    TooLarge {
        /// The declared length in bytes.
        len: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// The length isn't a canonical count.
    #[error("a frame's length is malformed: {0}")]
    Length(#[from] VlqError),
    /// A legacy frame that has no room for its type.
    #[error("a frame without a message type")]
    NoType,
}

/// How a frame's length is read from the front of the bytes: the body's length and that of the prefix, `None` while more are needed.
pub(crate) type Prefix = fn(&[u8]) -> Result<Option<(u64, usize)>, FrameError>;

/// Cuts a stream of bytes into frame bodies. Put what arrives into [`buffer`](Self::buffer), then ask for the [`next_frame`](Self::next_frame).
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    max: usize,
    prefix: Prefix,
}

impl Frames {
    /// For bodies of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self::with_prefix(max, prefix)
    }

    pub(crate) fn with_prefix(max: usize, prefix: Prefix) -> Self {
        Self { buffer: BytesMut::new(), max, prefix }
    }

    /// What has arrived and isn't taken yet. It grows with what is appended, never with a declared length.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next body, `None` while it isn't there as a whole.
    ///
    /// # Errors
    /// [`FrameError`], for good: what follows isn't found any more.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((len, used)) = (self.prefix)(&self.buffer)? else { return Ok(None) };
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= self.max) else {
            return Err(FrameError::TooLarge { len, max: self.max });
        };
        if self.buffer.len() - used < len {
            return Ok(None);
        }
        self.buffer.advance(used);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

fn prefix(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    match vlq::read(bytes) {
        Ok(read) => Ok(Some(read)),
        Err(VlqError::Truncated) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A body with its length before it.
#[must_use]
pub fn frame(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(vlq::len(body.len() as u64) + body.len());
    vlq::write(body.len() as u64, &mut out);
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::limits::MAX_FRAME;

    #[test]
    fn the_limit_holds_before_the_body_is_there() {
        for (len, fits) in [(MAX_FRAME as u64, true), (MAX_FRAME as u64 + 1, false), (vlq::MAX, false)] {
            let mut frames = Frames::new(MAX_FRAME);
            vlq::write(len, frames.buffer());
            assert_eq!(frames.next_frame(), if fits { Ok(None) } else { Err(FrameError::TooLarge { len, max: MAX_FRAME }) });
            assert!(frames.buffer().capacity() < 1024, "nothing is reserved for what is only claimed");
        }
        let mut frames = Frames::new(MAX_FRAME);
        frames.buffer().put_slice(&[0x80, 0x01, 0x10]);
        assert_eq!(frames.next_frame(), Err(FrameError::Length(VlqError::NotShortest)));
        let mut frames = Frames::new(MAX_FRAME);
        frames.buffer().put_slice(&[0xff; 10]);
        assert_eq!(frames.next_frame(), Err(FrameError::Length(VlqError::TooLong)));
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_frames_are_the_same(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8), step in 1usize..40) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(body).to_vec()).collect();
            let mut frames = Frames::new(1000);
            let mut read = Vec::new();
            for part in bytes.chunks(step) {
                frames.buffer().put_slice(part);
                while let Some(body) = frames.next_frame().unwrap() {
                    read.push(body.to_vec());
                }
            }
            prop_assert_eq!(read, bodies);
            prop_assert!(frames.buffer().is_empty());
        }

        #[test]
        fn noise_ends_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut frames = Frames::new(32);
            frames.buffer().put_slice(&bytes);
            while let Ok(Some(body)) = frames.next_frame() {
                prop_assert!(body.len() <= 32);
            }
        }
    }
}
