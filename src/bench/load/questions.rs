//! What is asked, by the workload: the messages, and what their answers say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    links::Lane,
    message::{self, Tag},
    transact::{self, Applied},
};
use crate::bench::{Kind, Workload, error::LabError};

/// One run's questions. The ID of each is its index.
#[derive(Debug)]
pub(super) enum Questions {
    /// QUERYs of so many bytes.
    Query(usize),
    /// TRANSACTs, made beforehand.
    Transact(Vec<Bytes>),
}

impl Questions {
    /// So many of them. Signatures take their time: this does, before the load begins.
    pub(super) async fn new(work: &Workload, count: usize) -> Result<Self, LabError> {
        if work.kind != Kind::Transact {
            return Ok(Self::Query(work.query_bytes));
        }
        let work = work.clone();
        // Off the runtime, so that the connection lives meanwhile.
        let made = tokio::task::spawn_blocking(move || transact::requests(count, &work)).await;
        made.unwrap_or_else(|_| Err(std::io::Error::other("the requests couldn't be made").into())).map(Self::Transact)
    }

    /// The question of an ID; `None` if there's none.
    pub(super) fn get(&self, id: usize) -> Option<Bytes> {
        match self {
            Self::Query(bytes) => Some(message::message(Tag::Query, id as u64, *bytes)),
            Self::Transact(requests) => requests.get(id).cloned(),
        }
    }

    /// Which question a message answers, and how; `None` if it's no answer.
    pub(super) fn answered(&self, message: &Bytes) -> Option<(u64, Applied)> {
        match self {
            Self::Query(_) => message::id(Tag::Result, message).map(|id| (id, Applied::InOrder)),
            Self::Transact(_) => transact::read(message),
        }
    }

    /// Whether each must leave behind the one before.
    pub(super) fn are_ordered(&self) -> bool {
        matches!(self, Self::Transact(_))
    }
}

/// Messages that found no room and must keep their order: sent one by one as there is some. Bounded by the schedule.
#[derive(Debug)]
pub(super) struct Backlog {
    messages: mpsc::UnboundedSender<Bytes>,
    left: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Backlog {
    /// Must be called in a runtime.
    pub(super) fn new(lane: Lane) -> Self {
        let (messages, mut waiting) = mpsc::unbounded_channel::<Bytes>();
        let left = Arc::new(AtomicUsize::new(0));
        let waits = left.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                // It has the size: only the connection's end is in its way, and who receives says so.
                if lane.send(message).await.is_err() {
                    return;
                }
                waits.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { messages, left, _task: AbortOnDropHandle::new(task) }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    pub(super) fn push(&self, message: Bytes) {
        self.left.fetch_add(1, Ordering::Relaxed);
        // Its task has ended with the connection.
        let _ = self.messages.send(message);
    }
}
