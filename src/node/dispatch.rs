//! From a connection to a handler: each class has its own bounded queue and its own bounded workers, so handlers of one
//! class never run on another's.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use peerlane_transport::{ClassId, Order};
use tokio::{sync::Notify, time::Instant};
use tracing::Instrument;

use super::{
    config::{AWAY_PER_WORKER, NodeConfig},
    crew::{Crew, Hire, Place},
    handler::{Context, Handler},
    link::Busy,
    peer::Peer,
    queue::FairQueue,
    runtime::Inner,
    serving::Served,
    stream::StreamReader,
    sync::Mutex,
};
use crate::protocol::{Overflow, Protocol};

/// What a handler gets.
#[derive(Debug)]
pub(super) enum Work<M> {
    Message(M),
    Streamed(Option<M>, StreamReader),
}

/// A received message that waits for a worker.
#[derive(Debug)]
pub(super) struct Job<M> {
    pub(super) peer: Arc<Peer<M>>,
    pub(super) busy: Busy,
    pub(super) work: Work<M>,
    pub(super) received: Instant,
    /// The place of a request among those that its peer may take back.
    pub(super) served: Option<Served>,
}

/// One class: its queue, and what its workers wait for.
#[derive(Debug)]
pub(super) struct Dispatch<M> {
    class: ClassId,
    overflow: Overflow,
    queue: Mutex<FairQueue<Job<M>>>,
    ready: Notify,
    room: Notify,
    max_messages: usize,
    max_bytes: usize,
    per_peer: usize,
    crew: Arc<Crew>,
}

/// What is counted for a waiting message beside its bytes.
const ENTRY: usize = peerlane_transport::limits::ENTRY_OVERHEAD;

impl<M> Dispatch<M> {
    pub(super) fn new(class: ClassId, order: Order, max_message: usize, overflow: Overflow, config: &NodeConfig) -> Self {
        // One peer's slow handlers leave workers for the others; where order counts, one at a time.
        let share = if order == Order::Fifo { 1 } else { config.workers - config.workers / 4 };
        Self {
            class,
            overflow,
            queue: Mutex::new(FairQueue::new(share)),
            ready: Notify::new(),
            room: Notify::new(),
            max_messages: config.queue_messages.max(1),
            max_bytes: config.queue_bytes.max(max_message.saturating_add(ENTRY)),
            per_peer: config.queue_per_peer.max(1),
            crew: Crew::new(config.workers, config.workers.saturating_mul(AWAY_PER_WORKER)),
        }
    }

    pub(super) fn depth(&self) -> (usize, usize) {
        self.queue.lock().depth()
    }

    /// Queues a message of `len` bytes, or does what the protocol wants when there's no room.
    ///
    /// # Cancel safety
    /// If the future is dropped, the message is too.
    pub(super) async fn push<P: Protocol<Message = M>>(&self, node: &Inner<P>, job: Job<M>, len: usize) {
        let (peer, trusted, cost) = (job.peer.key, node.trusts_sender(&job.peer, job.busy.link()), len.saturating_add(ENTRY));
        match self.overflow {
            Overflow::Wait => self.push_when_room(peer, trusted, job, cost).await,
            Overflow::Answer | Overflow::DropOldest => {
                let answers = self.overflow == Overflow::Answer;
                let mut lost = Vec::new();
                {
                    // The bound: no more than max_messages and max_bytes wait, over all peers.
                    let mut queue = self.queue.lock();
                    queue.push(peer, trusted, job, cost);
                    while {
                        let (messages, bytes) = queue.depth();
                        messages > self.max_messages || bytes > self.max_bytes
                    } {
                        let Some(job) = queue.victim().and_then(|victim| queue.evict(victim, answers)) else { break };
                        lost.push(job);
                    }
                }
                self.ready.notify_one();
                lost.into_iter().for_each(|job| self.refuse(node, job, answers));
            }
        }
    }

    /// Waits until the peer has room: only its own messages count, so nobody waits for somebody else.
    async fn push_when_room(&self, peer: u64, trusted: bool, job: Job<M>, cost: usize) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let mut queue = self.queue.lock();
                let (messages, bytes) = queue.depth_of(peer);
                // The bound: one message of any size, or per_peer of them with a fair part of the bytes.
                if messages == 0 || (messages < self.per_peer && bytes.saturating_add(cost) <= self.max_bytes / 8) {
                    queue.push(peer, trusted, job, cost);
                    drop(queue);
                    self.ready.notify_one();
                    return;
                }
            }
            room.await;
        }
    }

    /// There was no room for this one.
    fn refuse<P: Protocol<Message = M>>(&self, node: &Inner<P>, job: Job<M>, answer: bool) {
        let reply = match &job.work {
            Work::Message(message) | Work::Streamed(Some(message), _) if answer => node.protocol.overloaded(message),
            _ => None,
        };
        let counters = &job.peer.counters[self.class.index()];
        match reply {
            Some(reply) => {
                counters.overloaded.add(1);
                // If there's no room for this either, it's dropped: replies must not pile up.
                let _ = node.try_send_on(&job.peer, self.class, node.protocol.encode(&reply), Some(job.busy.link().number));
            }
            None => counters.dropped.add(1),
        }
    }

    async fn next(&self) -> (u64, Job<M>) {
        loop {
            if let Some(next) = self.pop() {
                return next;
            }
            let mut ready = std::pin::pin!(self.ready.notified());
            ready.as_mut().enable();
            if let Some(next) = self.pop() {
                return next;
            }
            ready.await;
        }
    }

    fn pop(&self) -> Option<(u64, Job<M>)> {
        let mut queue = self.queue.lock();
        let next = queue.pop()?;
        let more = queue.is_ready();
        drop(queue);
        if more {
            // This worker may have consumed a notice meant for one more.
            self.ready.notify_one();
        }
        if self.overflow == Overflow::Wait {
            self.room.notify_waiters();
        }
        Some(next)
    }

    fn done(&self, peer: u64) {
        let mut queue = self.queue.lock();
        queue.done(peer);
        let more = queue.is_ready();
        drop(queue);
        if more {
            self.ready.notify_one();
        }
    }
}

/// A class's handler, and where its messages come from.
struct Workplace<P: Protocol, H> {
    node: Arc<Inner<P>>,
    class: ClassId,
    handler: Arc<H>,
}

/// Starts the workers of a class. They're aborted when the node closes.
pub(super) fn start_workers<P: Protocol, H: Handler<P>>(node: &Arc<Inner<P>>, class: ClassId, handler: &Arc<H>) {
    let workplace = Arc::new(Workplace { node: node.clone(), class, handler: handler.clone() });
    (0..node.config.workers).for_each(|_| workplace.clone().hire());
}

impl<P: Protocol, H: Handler<P>> Hire for Workplace<P, H> {
    fn hire(self: Arc<Self>) {
        let node = self.node.clone();
        node.employ(work(self));
    }
}

/// One worker: handles one message after the other, while there aren't too many.
async fn work<P: Protocol, H: Handler<P>>(workplace: Arc<Workplace<P, H>>) {
    let Workplace { node, class, handler } = &*workplace;
    let dispatch = &node.dispatch[class.index()];
    let place = Place::new(dispatch.crew.clone(), workplace.clone());
    let working = async {
        while {
            let (key, job) = dispatch.next().await;
            place.begin(key);
            handle(node, *class, &**handler, job, &place).await;
            dispatch.done(key);
            dispatch.crew.stays()
        } {}
    };
    place.clone().hold(working).await;
}

async fn handle<P: Protocol, H: Handler<P>>(node: &Arc<Inner<P>>, class: ClassId, handler: &H, job: Job<P::Message>, place: &Place) {
    let Job { peer, busy, work, received, served } = job;
    if served.as_ref().is_some_and(Served::is_cancelled) {
        return;
    }
    // Nobody waits for the reply to a request of a peer that is gone.
    if peer.is_gone() && matches!(&work, Work::Message(message) if node.protocol.request_id(message).is_some()) {
        return;
    }
    let counters = &peer.counters[class.index()];
    let begun = Instant::now();
    counters.queue_time.add_time(begun.saturating_duration_since(received));
    let kind = match &work {
        Work::Message(message) | Work::Streamed(Some(message), _) => node.protocol.kind(message),
        Work::Streamed(None, _) => "streamed",
    };
    let span = tracing::trace_span!("handle", peer = %peer.id, class = class.0, kind);
    let context = Context::new(node.clone(), peer.clone(), busy, class, received);
    let progress = match &work {
        Work::Streamed(_, body) => {
            body.progress().begin();
            Some(body.progress())
        }
        Work::Message(_) => None,
    };
    let handling = async {
        match work {
            Work::Message(message) => handler.handle(context, message).await,
            Work::Streamed(head, body) => handler.handle_streamed(context, head, body).await,
        }
    };
    let taken_back = async {
        match &served {
            Some(served) => served.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let stalled = async {
        match &progress {
            Some(progress) => progress.stalled(node.config.stall_timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        handled = AssertUnwindSafe(handling.instrument(span)).catch_unwind() => if handled.is_err() {
            node.counters.panics.add(1);
            tracing::error!(peer = %peer.id, class = class.0, kind, "a handler panicked; its worker goes on");
        },
        () = taken_back => {}
        () = stalled => {
            node.counters.stalled.add(1);
            tracing::debug!(peer = %peer.id, class = class.0, kind, "a handler read nothing of a streamed message for too long");
        }
        () = place.given_up() => {
            node.counters.given_up.add(1);
            tracing::debug!(peer = %peer.id, class = class.0, kind, "a handler waited for its peer, which has the most of those that do");
        }
    }
    counters.handled.add(1);
    counters.handler_time.add_time(begun.elapsed());
}
