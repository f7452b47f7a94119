//! One connection of a peer, as the node sees it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use peerlane_transport::{ClassId, Closed, Connection};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// How a link ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) closed: Closed,
    /// Each side has taken in all that the other had queued.
    pub(super) drained: bool,
}

/// A connection, and what the node counts on it.
#[derive(Debug)]
pub(super) struct Link {
    /// This link's alone in this process; later ones are greater.
    pub(super) number: u64,
    pub(super) connection: Connection,
    /// Place of its transport in the node's list: 0 is the first choice.
    pub(super) rank: usize,
    pub(super) since: Instant,
    /// Received messages that wait for a handler or are with one.
    handling: AtomicUsize,
    /// Streamed messages open on it, both ways.
    streams: AtomicUsize,
    /// One of the two above fell to 0, or `ended` was set.
    pub(super) idle: Notify,
    /// A life sign is wanted: there's a second connection.
    pub(super) probe: Notify,
    /// This side wants it to give way.
    pub(super) retire: CancellationToken,
    /// It gives way: what still comes is taken in at once, so that it can drain.
    pub(super) giving_way: CancellationToken,
    /// Messages not yet handled are given up.
    pub(super) abandon: CancellationToken,
    /// A reader of one of its classes may still have messages to hand over; by class.
    pub(super) reading: Vec<AtomicBool>,
    pub(super) ended: OnceLock<Ended>,
}

impl Link {
    pub(super) fn new(number: u64, connection: Connection, rank: usize) -> Self {
        let reading = connection.classes().iter().map(|_| AtomicBool::new(true)).collect();
        Self {
            number,
            connection,
            rank,
            since: Instant::now(),
            handling: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            idle: Notify::new(),
            probe: Notify::new(),
            retire: CancellationToken::new(),
            giving_way: CancellationToken::new(),
            abandon: CancellationToken::new(),
            reading,
            ended: OnceLock::new(),
        }
    }

    pub(super) fn handling(self: &Arc<Self>) -> Busy {
        self.handling.fetch_add(1, Ordering::AcqRel);
        Busy { link: self.clone(), stream: false }
    }

    pub(super) fn streaming(self: &Arc<Self>) -> Busy {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Busy { link: self.clone(), stream: true }
    }

    pub(super) fn is_handling(&self) -> bool {
        self.handling.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.iter().any(|class| class.load(Ordering::Acquire))
    }

    pub(super) fn reads(&self, class: ClassId) -> bool {
        self.reading.get(class.index()).is_some_and(|reading| reading.load(Ordering::Acquire))
    }

    /// Whether messages that came by it are still to be handled.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_reading() || self.is_handling()
    }

    /// Waits until `done` holds. Looked at again whenever the link falls idle.
    pub(super) async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let idle = self.idle.notified();
            if done(self) {
                return;
            }
            idle.await;
        }
    }
}

/// While it lives, a link has something to do.
#[derive(Debug)]
pub(super) struct Busy {
    link: Arc<Link>,
    stream: bool,
}

impl Busy {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let count = if self.stream { &self.link.streams } else { &self.link.handling };
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.link.idle.notify_waiters();
        }
    }
}
