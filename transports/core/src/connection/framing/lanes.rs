//! The receiving side of class framing: a frame's bytes on their way to the reader of their lane.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered, task::AtomicWaker};

use super::{LaneSource, Session};
use crate::{CloseCode, Closed, class::Lane, sync::Mutex};

/// Payloads below this are copied together: many tiny ones would cost more in bookkeeping than in bytes.
const COPY_BELOW: usize = 8 * 1024;

/// A lane's bytes between the stream's reader and the lane's own.
struct Channel {
    queue: Mutex<ChannelQueue>,
    arrived: AtomicWaker,
    /// What the other side may send in all.
    allowed: AtomicU64,
}

#[derive(Default)]
struct ChannelQueue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    ended: bool,
}

impl ChannelQueue {
    /// Hands over what there is. `None`: nothing yet. `Some(false)`: nothing, and nothing will come.
    fn take(&mut self, into: &mut VecDeque<Bytes>) -> Option<bool> {
        into.append(&mut self.chunks);
        if !self.tail.is_empty() {
            into.push_back(self.tail.split().freeze());
        }
        match into.is_empty() {
            false => Some(true),
            true => self.ended.then_some(false),
        }
    }
}

struct ChannelSource(Arc<Channel>);

impl LaneSource for ChannelSource {
    fn read(&mut self, into: &mut VecDeque<Bytes>) -> impl Future<Output = Result<bool, Closed>> + Send {
        let channel = &self.0;
        poll_fn(move |cx| {
            // Registered first: what comes afterwards wakes, what came before is found.
            channel.arrived.register(cx.waker());
            channel.queue.lock().take(into).map_or(Poll::Pending, |more| Poll::Ready(Ok(more)))
        })
    }

    fn allowed(&mut self, total: u64) {
        self.0.allowed.fetch_max(total, Ordering::Relaxed);
    }
}

struct LaneState {
    channel: Arc<Channel>,
    received: u64,
}

/// The lanes that the other side uses, and those who take their bytes up: one each, so that one who waits for room
/// holds up no other. They're polled by the connection's own task: what they do is to copy, and to be woken on another
/// thread for that takes longer than the copy. All carriers share them; the lock is never contended.
#[derive(Default)]
pub(super) struct Lanes(Mutex<LaneStates>);

#[derive(Default)]
struct LaneStates {
    by_byte: HashMap<u8, LaneState>,
    readers: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Lanes {
    /// Lets those who have something to do go on, and doesn't wait for any.
    pub(super) async fn advance(&self) {
        poll_fn(|cx| {
            self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Lets them go on for ever.
    pub(super) async fn keep_going(&self) {
        poll_fn(|cx| {
            self.poll(cx);
            Poll::Pending
        })
        .await
    }

    /// The connection is over: who still reads a message learns it now.
    pub(super) fn end(&self) {
        let states = std::mem::take(&mut *self.0.lock());
        drop(states);
    }

    fn poll(&self, cx: &mut Context<'_>) {
        let mut states = self.0.lock();
        while let Poll::Ready(Some(())) = states.readers.poll_next_unpin(cx) {}
    }

    /// Hands a frame's payload to its lane. `Err`: it may not stand here, and the connection is over.
    pub(super) fn deliver(&self, session: &Arc<Session>, byte: u8, payload: BytesMut) -> Result<(), Closed> {
        let lane = Lane::from_byte(byte);
        let mut states = self.0.lock();
        let lanes = &mut *states;
        let state = match lanes.by_byte.entry(byte) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let class = session.local_class(lane).map(|class| &session.table()[class]);
                let Some(class) = class.filter(|class| lane.slot <= class.large_lanes) else {
                    return Err(session.violation(CloseCode::Protocol, "a lane that isn't agreed"));
                };
                let first = (if lane.slot == 0 { class.window } else { class.large_window }) as u64;
                let channel = Arc::new(Channel { queue: Mutex::default(), arrived: AtomicWaker::new(), allowed: AtomicU64::new(first) });
                let (session, mut source) = (session.clone(), ChannelSource(channel.clone()));
                // What ends the connection ends the lanes: they're dropped with the stream's reader.
                lanes.readers.push(Box::pin(async move {
                    let _ = session.receive_lane(lane, &mut source).await;
                }));
                entry.insert(LaneState { channel, received: 0 })
            }
        };
        if payload.is_empty() {
            if lane.slot == 0 {
                return Err(session.violation(CloseCode::Protocol, "the end of a class's own lane"));
            }
            state.channel.queue.lock().ended = true;
            state.channel.arrived.wake();
            lanes.by_byte.remove(&byte);
            return Ok(());
        }
        state.received += payload.len() as u64;
        if state.received > state.channel.allowed.load(Ordering::Relaxed) {
            return Err(session.violation(CloseCode::FlowControl, "more bytes on a lane than credit was given for"));
        }
        let mut queue = state.channel.queue.lock();
        if payload.len() < COPY_BELOW {
            queue.tail.extend_from_slice(&payload);
        } else {
            if !queue.tail.is_empty() {
                let tail = queue.tail.split().freeze();
                queue.chunks.push_back(tail);
            }
            queue.chunks.push_back(payload.freeze());
        }
        drop(queue);
        state.channel.arrived.wake();
        Ok(())
    }
}
