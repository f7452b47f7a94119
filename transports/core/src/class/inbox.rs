//! The receiving half of one class: a queue bounded in bytes, and the readers of streamed messages.
//!
//! The transport reserves room before it takes a message's bytes up, so a class whose handler is slow pauses
//! its own lanes and nothing else.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::Instant,
};

use super::queue::cost;
use crate::{RecvError, limits, sync::Mutex};

/// A received message.
#[derive(Debug)]
pub enum Inbound {
    /// Whole, as it was sent.
    Whole(Bytes),
    /// Streamed: read it part by part.
    Streamed(MessageReader),
}

impl Inbound {
    /// The whole message, at most `limit` bytes of it if it's streamed.
    ///
    /// # Errors
    /// [`RecvError::TooLong`], [`RecvError::Aborted`] or [`RecvError::Closed`] for a streamed one.
    ///
    /// # Cancel safety
    /// Not cancel-safe: what was read of a streamed message is lost.
    pub async fn collect(self, limit: usize) -> Result<Bytes, RecvError> {
        match self {
            Self::Whole(bytes) if bytes.len() > limit => Err(RecvError::TooLong(limit)),
            Self::Whole(bytes) => Ok(bytes),
            Self::Streamed(reader) => reader.collect(limit).await,
        }
    }
}

/// One class's received messages.
#[derive(Debug)]
pub(crate) struct Inbox {
    budget: Semaphore,
    /// What has arrived, and when.
    queue: Mutex<VecDeque<(Instant, Inbound)>>,
    arrived: Notify,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) dropped: AtomicU64,
    waited_ns: AtomicU64,
    waited_max_ns: AtomicU64,
}

impl Inbox {
    pub(crate) fn new(receive_budget: usize) -> Self {
        Self {
            budget: Semaphore::new(receive_budget),
            queue: Mutex::new(VecDeque::new()),
            arrived: Notify::new(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            waited_max_ns: AtomicU64::new(0),
        }
    }

    /// Room for a message of `len` bytes, at most the class's largest. `None`: the connection is over.
    pub(crate) async fn reserve(&self, len: usize) -> Option<Reserved<'_>> {
        let permit = self.budget.acquire_many(cost(len) as u32).await.ok()?;
        Some(Reserved { inbox: self, permit })
    }

    /// Room now, or not at all.
    pub(crate) fn try_reserve(&self, len: usize) -> Option<Reserved<'_>> {
        let permit = self.budget.try_acquire_many(u32::try_from(cost(len)).ok()?).ok()?;
        Some(Reserved { inbox: self, permit })
    }

    fn push(&self, message: Inbound) {
        if let Inbound::Whole(bytes) = &message {
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.queue.lock().push_back((Instant::now(), message));
        self.arrived.notify_one();
    }

    pub(crate) fn pop(&self) -> Option<Inbound> {
        let mut queue = self.queue.lock();
        let (arrived, message) = queue.pop_front()?;
        let more = !queue.is_empty();
        drop(queue);
        let waited = u64::try_from(arrived.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(waited, Ordering::Relaxed);
        self.waited_max_ns.fetch_max(waited, Ordering::Relaxed);
        if let Inbound::Whole(bytes) = &message {
            self.budget.add_permits(cost(bytes.len()));
        } else {
            self.budget.add_permits(cost(0));
        }
        if more {
            // Notify keeps one permit only: a second receiver of this class must not sleep on.
            self.arrived.notify_one();
        }
        Some(message)
    }

    /// How long messages waited here, summed, and the longest.
    pub(crate) fn waited(&self) -> (Duration, Duration) {
        let get = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        (get(&self.waited_ns), get(&self.waited_max_ns))
    }

    /// The next message, or `None` when the connection is over and all is taken.
    pub(crate) async fn recv(&self, over: &tokio_util::sync::CancellationToken) -> Option<Inbound> {
        loop {
            if let Some(message) = self.pop() {
                return Some(message);
            }
            tokio::select! {
                biased;
                () = self.arrived.notified() => {}
                () = over.cancelled() => return self.pop(),
            }
        }
    }

    pub(crate) fn close(&self) {
        self.budget.close();
        self.arrived.notify_waiters();
    }
}

/// Room for one message in an [`Inbox`].
pub(crate) struct Reserved<'a> {
    inbox: &'a Inbox,
    permit: SemaphorePermit<'a>,
}

impl Reserved<'_> {
    pub(crate) fn deliver(self, message: Inbound) {
        self.permit.forget();
        self.inbox.push(message);
    }
}

#[derive(Debug, Default)]
struct StreamState {
    chunks: VecDeque<Bytes>,
    end: Option<Result<(), RecvError>>,
}

/// A streamed message between its lane and its reader.
pub(crate) struct StreamIn {
    state: Mutex<StreamState>,
    readable: Notify,
    /// [`limits::STREAM_BUFFER`] bytes; the lane takes, the reader gives back.
    room: Semaphore,
    /// The reader doesn't want the rest: its code, or nothing.
    stopped: Mutex<Option<u32>>,
    is_stopped: AtomicBool,
    /// Tells the sender.
    on_stop: Box<dyn Fn(u32) + Send + Sync>,
}

impl std::fmt::Debug for StreamIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamIn").field("state", &self.state).finish_non_exhaustive()
    }
}

impl StreamIn {
    /// `on_stop` is called once, with the reader's code, if the reader doesn't want the rest.
    pub(crate) fn pair(on_stop: impl Fn(u32) + Send + Sync + 'static) -> (Arc<Self>, MessageReader) {
        let shared = Arc::new(Self {
            state: Mutex::default(),
            readable: Notify::new(),
            room: Semaphore::new(limits::STREAM_BUFFER),
            stopped: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
            on_stop: Box::new(on_stop),
        });
        (shared.clone(), MessageReader { shared, ended: false })
    }

    /// Waits for room and adds a chunk of at most a quantum. `false`: the rest isn't wanted.
    pub(crate) async fn push(&self, chunk: Bytes) -> bool {
        if !self.is_stopped.load(Ordering::Acquire) {
            let len = chunk.len().min(limits::STREAM_BUFFER) as u32;
            if let Ok(room) = self.room.acquire_many(len).await {
                room.forget();
                self.state.lock().chunks.push_back(chunk);
                self.readable.notify_one();
                return true;
            }
        }
        false
    }

    pub(crate) fn end(&self, result: Result<(), RecvError>) {
        self.state.lock().end.get_or_insert(result);
        self.readable.notify_one();
    }
}

/// Reads a streamed message. Dropping it before the end tells the sender to stop.
#[derive(Debug)]
pub struct MessageReader {
    shared: Arc<StreamIn>,
    ended: bool,
}

impl MessageReader {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`RecvError::Aborted`] if the sender gave up, [`RecvError::Closed`] if the connection ended before the
    /// message did. Bytes that arrived before are given first.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is taken unless the call completes.
    pub async fn read(&mut self) -> Result<Option<Bytes>, RecvError> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if let Some(chunk) = state.chunks.pop_front() {
                    self.shared.room.add_permits(chunk.len().min(limits::STREAM_BUFFER));
                    return Ok(Some(chunk));
                }
                if let Some(end) = &state.end {
                    self.ended = true;
                    return end.clone().map(|()| None);
                }
            }
            self.shared.readable.notified().await;
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
        let mut whole = bytes::BytesMut::new();
        while let Some(chunk) = self.read().await? {
            if whole.len() + chunk.len() > limit {
                return Err(RecvError::TooLong(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Tells the sender that the rest isn't wanted, and why.
    pub fn stop(self, code: u32) {
        *self.shared.stopped.lock() = Some(code);
    }
}

impl Drop for MessageReader {
    fn drop(&mut self) {
        if !self.ended {
            let code = *self.shared.stopped.lock().get_or_insert(0);
            self.shared.is_stopped.store(true, Ordering::Release);
            self.shared.room.close();
            self.shared.state.lock().chunks.clear();
            if self.shared.state.lock().end.is_none() {
                (self.shared.on_stop)(code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_from_arrival_to_the_application_is_counted() {
        let inbox = Inbox::new(1 << 20);
        for _ in 0..2 {
            inbox.try_reserve(3).unwrap().deliver(Inbound::Whole(Bytes::from_static(b"abc")));
        }
        let second = Duration::from_secs(1);
        tokio::time::advance(second).await;
        inbox.pop().unwrap();
        tokio::time::advance(2 * second).await;
        inbox.pop().unwrap();
        assert_eq!(inbox.waited(), (4 * second, 3 * second));
    }
}
