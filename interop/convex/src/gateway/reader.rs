//! Frames of the local peer's socket, taken piece by piece: a frame's length is judged before anything of its body is taken, and a body
//! that isn't to be held is handed on as it comes.

use std::io;

use bytes::{Bytes, BytesMut};
use peerlane_cell::vlq::{self, VlqError};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::stats::{Held, Stats};
use crate::FrameError;

/// What is read ahead of the socket. Bytes, per connection.
const READ: usize = 64 * 1024;

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("it closed in the middle of a frame")]
    Cut,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) struct FrameReader<'a, R> {
    source: R,
    /// Read and not taken: at most [`READ`] bytes.
    buffer: BytesMut,
    held: Held<'a>,
    max: usize,
}

impl<'a, R: AsyncRead + Unpin> FrameReader<'a, R> {
    pub(super) fn new(source: R, max: usize, stats: &'a Stats) -> Self {
        Self { source, buffer: BytesMut::new(), held: stats.held(), max }
    }

    /// Reads more. `false`: the source has ended.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        self.buffer.reserve(READ - self.buffer.len().min(READ - 1));
        let got = (&mut self.source).take((READ - self.buffer.len()) as u64).read_buf(&mut self.buffer).await?;
        self.held.set(self.buffer.len());
        Ok(got > 0)
    }

    async fn need(&mut self, len: usize) -> Result<(), ReadError> {
        while self.buffer.len() < len {
            if !self.fill().await? {
                return Err(ReadError::Cut);
            }
        }
        Ok(())
    }

    fn take(&mut self, max: usize) -> BytesMut {
        let piece = self.buffer.split_to(max.min(self.buffer.len()));
        self.held.set(self.buffer.len());
        piece
    }

    /// The length of the next body in bytes; `None` at the end of all frames.
    pub(super) async fn next(&mut self) -> Result<Option<u64>, ReadError> {
        loop {
            match vlq::read(&self.buffer) {
                Ok((len, used)) => {
                    if usize::try_from(len).map_or(true, |len| len > self.max) {
                        return Err(FrameError::TooLarge { len, max: self.max }.into());
                    }
                    self.take(used);
                    return Ok(Some(len));
                }
                Err(VlqError::Truncated) => {}
                Err(error) => return Err(FrameError::from(error).into()),
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Cut) };
            }
        }
    }

    /// The next bytes, which stay to be taken.
    pub(super) async fn peek(&mut self, len: usize) -> Result<&[u8], ReadError> {
        self.need(len).await?;
        Ok(self.buffer.get(..len).unwrap_or_default())
    }

    /// So many bytes in memory of their own: what waits in a queue mustn't hold the buffer alive. It grows with what comes.
    pub(super) async fn whole(&mut self, len: usize) -> Result<Bytes, ReadError> {
        let mut body = BytesMut::with_capacity(len.min(READ));
        let mut held = self.held.another();
        while body.len() < len {
            self.need(1).await?;
            let piece = self.take(len - body.len());
            body.extend_from_slice(&piece);
            held.set(body.len());
        }
        Ok(body.freeze())
    }

    /// Some bytes of at most so many, as soon as there are any.
    pub(super) async fn some(&mut self, max: usize) -> Result<Bytes, ReadError> {
        self.need(1).await?;
        Ok(self.take(max).freeze())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn frames_are_read_however_they_arrive_and_little_is_held() {
        let bodies: Vec<Vec<u8>> = [0usize, 1, 63, 64, 5000, 200_000].iter().map(|len| vec![*len as u8; *len]).collect();
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| crate::frame(body).to_vec()).collect();
        for piece in [1, 7, 4096, 1 << 20] {
            let (mut near, far) = tokio::io::duplex(piece);
            let written = bytes.clone();
            let stats = Stats::default();
            let mut reader = FrameReader::new(far, 200_000, &stats);
            let writing = async move { tokio::io::AsyncWriteExt::write_all(&mut near, &written).await.unwrap() };
            let reading = async {
                for body in &bodies {
                    assert_eq!(reader.next().await.unwrap(), Some(body.len() as u64));
                    assert_eq!(reader.peek(body.len().min(32)).await.unwrap(), &body[..body.len().min(32)]);
                    if body.len() < 10_000 {
                        assert_eq!(&reader.whole(body.len()).await.unwrap()[..], body);
                        continue;
                    }
                    let mut left = body.len();
                    while left > 0 {
                        left -= reader.some(left).await.unwrap().len();
                    }
                }
                assert_eq!(reader.next().await.unwrap(), None);
            };
            tokio::join!(writing, reading);
            assert!(stats.held_peak() <= 2 * READ as u64, "{}", stats.held_peak());
        }
    }

    #[tokio::test]
    async fn what_isnt_a_frame_is_told_from_an_end() {
        let stats = Stats::default();
        let read = async |bytes: &'static [u8]| {
            let mut reader = FrameReader::new(bytes, 1000, &stats);
            let len = reader.next().await?;
            reader.whole(len.unwrap_or(0) as usize).await
        };
        assert!(matches!(read(&[0x87, 0x69]).await, Err(ReadError::Frame(FrameError::TooLarge { len: 1001, max: 1000 }))));
        assert!(matches!(read(&[0x80, 1, 0]).await, Err(ReadError::Frame(FrameError::Length(VlqError::NotShortest)))));
        assert!(matches!(read(&[0x81]).await, Err(ReadError::Cut)));
        assert!(matches!(read(&[3, 0, 0]).await, Err(ReadError::Cut)));
        assert!(read(&[]).await.unwrap().is_empty());
    }
}
