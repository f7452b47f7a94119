//! Streamed messages above the transport: they keep their link busy, and end when nothing moves in them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerlane_transport::{MessageReader, MessageWriter, RecvError, SendError};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    config::STREAM_STALLED,
    crew::wait_for_peer,
    link::{Busy, Link},
};

/// Writes a streamed message to a peer. Dropping it before [`finish`](Self::finish) aborts the message.
#[derive(Debug)]
pub struct StreamWriter {
    /// `None` once it was given up.
    writer: Option<MessageWriter>,
    stall: Duration,
    busy: Busy,
}

impl StreamWriter {
    /// `stall`: a receiver that takes nothing for so long is given up.
    pub(super) fn new(writer: MessageWriter, stall: Duration, busy: Busy) -> Self {
        Self { writer: Some(writer), stall, busy }
    }

    pub(super) fn link(&self) -> &Link {
        self.busy.link()
    }

    /// Writes all of `data`, waiting for room; what is queued is taken off its front.
    ///
    /// # Errors
    /// [`SendError::Stopped`] if the receiver doesn't want the rest, [`SendError::Stalled`] if it has taken nothing for
    /// [`stall_timeout`](super::NodeConfig::stall_timeout), which aborts the message; [`SendError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: `data` holds what wasn't queued.
    pub async fn write(&mut self, data: &mut Bytes) -> Result<(), SendError> {
        while let Some(writer) = &mut self.writer {
            let before = data.len();
            match wait_for_peer(timeout(self.stall, writer.write(data))).await {
                Ok(written) => return written,
                // A part of it has left: slow is no stall.
                Err(_) if data.len() < before => {}
                Err(_) => self.writer.take().into_iter().for_each(|writer| writer.abort(STREAM_STALLED)),
            }
        }
        Err(SendError::Stalled(self.stall))
    }

    /// Completes the message.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(self) -> Result<(), SendError> {
        self.writer.ok_or(SendError::Stalled(self.stall))?.finish()
    }

    /// Gives the message up: the receiver gets [`RecvError::Aborted`] with this code.
    pub fn abort(self, code: u32) {
        self.writer.into_iter().for_each(|writer| writer.abort(code));
    }
}

/// When a streamed message's reader last got something.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    /// Milliseconds since `begun`.
    last: AtomicU64,
    /// There's nothing more to wait for.
    over: AtomicBool,
    /// The handler is dropped because of it: see [`stalled`](Self::stalled).
    stalled: AtomicBool,
}

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last: AtomicU64::new(0), over: AtomicBool::new(false), stalled: AtomicBool::new(false) })
    }

    fn note(&self, over: bool) {
        self.last.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.over.store(over, Ordering::Relaxed);
    }

    /// Its handler begins: the time that it waited for a worker doesn't count.
    pub(super) fn begin(&self) {
        self.note(false);
    }

    /// Waits until nothing was read of the message for so long, though it has no end yet. Whoever was to read it is to be
    /// dropped then.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            // Longer than a read of its own may take: if the sender is at fault, the reader is told.
            let until = self.begun.checked_add(last).and_then(|at| at.checked_add(limit + limit / 10));
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                Some(_) if !self.over.load(Ordering::Relaxed) => break,
                // At its end, a handler takes the time it needs.
                _ => std::future::pending().await,
            }
        }
        self.stalled.store(true, Ordering::Relaxed);
    }
}

/// Reads the body of a streamed message. Dropping it before the end tells the sender to stop.
#[derive(Debug)]
pub struct StreamReader {
    /// What came along with the head.
    first: Bytes,
    /// `None` once it was given up.
    reader: Option<MessageReader>,
    stall: Duration,
    progress: Arc<Progress>,
    _busy: Busy,
}

impl StreamReader {
    /// `stall`: a sender of whom nothing comes for so long is given up.
    pub(super) fn new(first: Bytes, reader: MessageReader, stall: Duration, busy: Busy) -> Self {
        Self { first, reader: Some(reader), stall, progress: Progress::new(), _busy: busy }
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// As [`MessageReader::read`], and [`RecvError::Stalled`] if nothing comes for
    /// [`stall_timeout`](super::NodeConfig::stall_timeout), which stops the message.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is taken unless the call completes.
    pub async fn read(&mut self) -> Result<Option<Bytes>, RecvError> {
        if !self.first.is_empty() {
            self.progress.note(false);
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        let Some(reader) = &mut self.reader else { return Err(RecvError::Stalled(self.stall)) };
        match wait_for_peer(timeout(self.stall, reader.read())).await {
            Ok(read) => {
                self.progress.note(!matches!(read, Ok(Some(_))));
                read
            }
            Err(_) => {
                self.progress.note(true);
                self.reader.take().into_iter().for_each(|reader| reader.stop(STREAM_STALLED));
                Err(RecvError::Stalled(self.stall))
            }
        }
    }

    /// Reads to the end, at most `limit` bytes.
    ///
    /// # Errors
    /// [`RecvError::TooLong`] beyond `limit`, else those of [`read`](Self::read).
    ///
    /// # Cancel safety
    /// Not cancel-safe: what was read is lost.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, RecvError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.read().await? {
            if whole.len().saturating_add(chunk.len()) > limit {
                return Err(RecvError::TooLong(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Tells the sender that the rest isn't wanted, and why.
    pub fn stop(mut self, code: u32) {
        self.reader.take().into_iter().for_each(|reader| reader.stop(code));
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        // Else the transport tells that it's simply not wanted.
        if self.progress.stalled.load(Ordering::Relaxed) {
            self.reader.take().into_iter().for_each(|reader| reader.stop(STREAM_STALLED));
        }
        // A handler that keeps no reader waits for nobody.
        self.progress.over.store(true, Ordering::Relaxed);
    }
}
