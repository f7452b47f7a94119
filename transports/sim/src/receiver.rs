//! The receiving end of a connection: puts segments in order within their channel, and hands them to the session.
//!
//! Bounded by the sender, which is core's own code in the same process: a lane holds no more than its class's window,
//! the control channel no more than the connection's.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use peerlane_transport::{CloseCode, Closed, Control, LaneSource, Session, class::Lane};
use tokio::{io::ReadBuf, sync::Notify};

use crate::wire::{Channel, Parcel};

/// A lane's bytes, in order, between the network and the lane's reader.
#[derive(Default)]
struct LaneQueue {
    state: Mutex<(VecDeque<Bytes>, bool)>,
    arrived: Notify,
}

impl LaneQueue {
    fn push(&self, chunks: Vec<Bytes>, fin: bool) {
        let mut state = lock(&self.state);
        state.0.extend(chunks);
        state.1 |= fin;
        drop(state);
        self.arrived.notify_one();
    }
}

struct Source(Arc<LaneQueue>);

impl LaneSource for Source {
    async fn read(&mut self, into: &mut VecDeque<Bytes>) -> Result<bool, Closed> {
        loop {
            {
                let mut state = lock(&self.0.state);
                if !state.0.is_empty() {
                    into.append(&mut state.0);
                    return Ok(true);
                }
                if state.1 {
                    return Ok(false);
                }
            }
            self.0.arrived.notified().await;
        }
    }
}

/// A channel's order.
#[derive(Default)]
struct Order {
    next: u64,
    /// Arrived before their turn.
    early: BTreeMap<u64, Parcel>,
}

#[derive(Default)]
struct State {
    order: BTreeMap<Channel, Order>,
    control: BytesMut,
    /// The other side has hung up, or isn't there.
    ended: Option<Closed>,
    reset: Option<io::ErrorKind>,
    reader: Option<Waker>,
    lanes: BTreeMap<Lane, Arc<LaneQueue>>,
    /// Lanes whose bytes came before the session began.
    unread: Vec<(Lane, Arc<LaneQueue>)>,
    session: Option<Arc<Session>>,
    finished: bool,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Receiver(Mutex<State>);

impl Receiver {
    /// A segment arrived.
    pub(crate) fn accept(&self, parcel: Parcel) {
        let mut state = lock(&self.0);
        if state.finished {
            return;
        }
        if let Some(session) = &state.session {
            session.heard();
        }
        let channel = parcel.channel;
        if let Channel::Datagram(class) = channel {
            // Before the session has begun there's nobody to take it, as on a real path.
            if let (Some(session), [message]) = (&state.session, parcel.chunks.as_slice()) {
                let _ = session.on_datagram(class, message);
            }
            return;
        }
        let order = state.order.entry(channel).or_default();
        order.early.insert(parcel.sequence, parcel);
        let mut ready = Vec::new();
        while let Some(parcel) = order.early.remove(&order.next) {
            order.next += 1;
            ready.push(parcel);
        }
        for parcel in ready {
            if parcel.fin {
                state.order.remove(&channel);
            }
            match channel {
                Channel::Lane(lane) => state.lane(lane, parcel),
                _ => state.control(parcel),
            }
        }
    }

    /// The hello is done: what arrives goes to the session. `early` came behind the hello.
    pub(crate) fn start(&self, session: Arc<Session>, early: BytesMut) {
        let mut state = lock(&self.0);
        let behind = std::mem::replace(&mut state.control, early);
        state.control.unsplit(behind);
        for (lane, queue) in std::mem::take(&mut state.unread) {
            read(&session, lane, queue);
        }
        state.session = Some(session);
        state.obey();
    }

    /// Nothing more is taken; what has arrived is dropped.
    pub(crate) fn finish(&self) {
        let held = std::mem::replace(&mut *lock(&self.0), State { finished: true, ..State::default() });
        // Not under the lock: what it holds may be the last of a task, which comes back here.
        drop(held);
    }

    /// The connection is over, without a word of the other side.
    pub(crate) fn reset(&self, kind: io::ErrorKind, why: &'static str) {
        let mut state = lock(&self.0);
        if !state.finished {
            state.reset = Some(kind);
            state.ended.get_or_insert_with(|| Closed::transport(CloseCode::Lost, why));
            state.obey();
        }
    }

    /// Bytes of the control channel, while the hello is exchanged.
    pub(crate) fn poll_control(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if let Some(kind) = state.reset {
            return Poll::Ready(Err(kind.into()));
        }
        if state.control.is_empty() && state.ended.is_none() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = state.control.len().min(into.remaining());
        into.put_slice(&state.control.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl State {
    fn lane(&mut self, lane: Lane, parcel: Parcel) {
        let queue = self.lanes.entry(lane).or_insert_with(|| {
            let queue = Arc::<LaneQueue>::default();
            match &self.session {
                Some(session) => read(session, lane, queue.clone()),
                None => self.unread.push((lane, queue.clone())),
            }
            queue
        });
        queue.push(parcel.chunks, parcel.fin);
        if parcel.fin {
            self.lanes.remove(&lane);
        }
    }

    fn control(&mut self, parcel: Parcel) {
        parcel.chunks.iter().for_each(|chunk| self.control.extend_from_slice(chunk));
        if parcel.fin {
            self.ended.get_or_insert_with(|| Closed::transport(CloseCode::Lost, "the other side hung up without a word"));
        }
        self.obey();
    }

    /// Does what the control frames ask, once there's a session; else wakes who exchanges the hello.
    fn obey(&mut self) {
        let Some(session) = &self.session else {
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            return;
        };
        loop {
            match Control::decode(&mut self.control) {
                Ok(Some(frame)) => {
                    if session.on_control(frame).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(bad) => {
                    session.violation(CloseCode::Protocol, bad.to_string());
                    return;
                }
            }
        }
        if let Some(closed) = &self.ended {
            session.end(closed.clone());
        }
    }
}

/// Reads a lane to its end, or to the connection's.
fn read(session: &Arc<Session>, lane: Lane, queue: Arc<LaneQueue>) {
    let (session, mut source) = (session.clone(), Source(queue));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = session.over().cancelled() => {}
            _ = session.receive_lane(lane, &mut source) => {}
        }
    });
}

/// No code path panics while it holds a lock, and if one did, the others' connections must not go down with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
