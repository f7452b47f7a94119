//! From the local peer's socket to the remote gateway.
//!
//! A class's send budget is the lookahead: frames are read on until the class of the next one has no room. Then reading stops, for all
//! classes, because what comes behind can't be read past it; that's as far as one TCP stream permits.

use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};
use peerlane_cell::vlq;
use peerlane_transport::{ClassId, SendError};
use tokio::io::AsyncRead;

use super::{
    link::Ends,
    reader::{FrameReader, ReadError},
    sort::{BELIEF, CONTROL, HEAD, Head},
};
use crate::Kind;

/// How the local peer's frames ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It closed, or said GOODBYE.
    Closed,
    /// It broke off, or sent what is no frame.
    Broken(ReadError),
    /// The remote gateway takes no more.
    Remote(SendError),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Broken(error)
    }
}

impl From<SendError> for Ended {
    fn from(error: SendError) -> Self {
        Self::Remote(error)
    }
}

pub(super) struct Inward<'a, R> {
    pub(super) frames: FrameReader<'a, R>,
    pub(super) ends: Ends<'a>,
}

impl<R: AsyncRead + Unpin> Inward<'_, R> {
    /// Until there's nothing more to take.
    ///
    /// # Cancel safety
    /// Not cancel-safe: a frame that has been read in part is lost, and a stream of it is aborted.
    pub(super) async fn run(mut self) -> Ended {
        loop {
            match self.one().await {
                Ok(true) => {}
                Ok(false) => return Ended::Closed,
                Err(ended) => return ended,
            }
        }
    }

    /// One frame. `false`: it was the last.
    async fn one(&mut self) -> Result<bool, Ended> {
        let Some(len) = self.frames.next().await? else { return Ok(false) };
        (self.ends.moved)();
        // Below the reader's limit, so it fits.
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let head = Head::look(self.frames.peek(size.min(HEAD)).await?, len);
        let (head, body) = match head {
            Some(head) => (head, None),
            None => {
                let body = self.frames.whole(size).await?;
                (Head::of(&body), Some(body))
            }
        };
        let request = head.id.filter(|_| head.kind == Kind::Result);
        let request = request.and_then(|id| self.ends.pending.lock().unwrap_or_else(PoisonError::into_inner).answered(id));
        let mut class = head.class(request);
        if class == CONTROL && size > self.most(CONTROL) {
            // Not what control messages are like: it takes no urgent class's time.
            class = BELIEF;
        }
        match body {
            Some(body) => self.ends.connection.send(class, body).await?,
            None if size <= self.most(class) => {
                let body = self.frames.whole(size).await?;
                self.ends.connection.send(class, body).await?;
            }
            None => self.stream(class, size).await?,
        }
        self.ends.counters.passed(head.kind, len, true);
        Ok(head.kind != Kind::Goodbye)
    }

    fn most(&self, class: ClassId) -> usize {
        self.ends.connection.classes().get(class).map_or(0, |class| class.max_message)
    }

    /// A message that isn't held: its length first, so that the other side can begin its frame, then its body as it comes.
    async fn stream(&mut self, class: ClassId, len: usize) -> Result<(), Ended> {
        let mut writer = self.ends.connection.open(class).await?;
        let mut prefix = BytesMut::new();
        vlq::write(len as u64, &mut prefix);
        writer.write(&mut prefix.freeze()).await?;
        let mut left = len;
        while left > 0 {
            let mut piece: Bytes = self.frames.some(left).await?;
            left -= piece.len();
            writer.write(&mut piece).await?;
        }
        writer.finish()?;
        Ok(())
    }
}
