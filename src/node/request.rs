//! Which reply belongs to which request: one table per peer, bounded. Each request is answered once or fails once.

use std::{collections::BTreeMap, sync::Arc};

use peerlane_transport::{Closed, Expecting};
use tokio::sync::oneshot;

use super::{
    error::RequestError,
    link::{Ended, Link},
    stream::StreamReader,
    sync::Mutex,
};

/// A reply.
#[derive(Debug)]
pub(super) enum Answer<M> {
    Whole(M),
    Streamed(M, StreamReader),
}

#[derive(Debug)]
struct Pending<M> {
    answer: oneshot::Sender<Result<Answer<M>, RequestError>>,
    /// The link over which it was sent, by its number, once it is. A reply may come over any.
    sent: Option<u64>,
    /// The connection watches more closely while a reply is expected.
    _expecting: Option<Expecting>,
}

#[derive(Debug)]
struct Table<M> {
    next: u64,
    pending: BTreeMap<u64, Pending<M>>,
}

impl<M> Table<M> {
    /// The reply is expected to come over this link, or to fail with it.
    fn expect_from(&mut self, id: u64, link: &Link) -> Option<(Pending<M>, Closed)> {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.sent = Some(link.number);
            pending._expecting = Some(link.connection.expecting());
        }
        None
    }
}

/// The requests to one peer that wait for a reply.
#[derive(Debug)]
pub(super) struct Requests<M> {
    table: Mutex<Table<M>>,
    limit: usize,
}

/// A request's place in the table. Dropping it forgets the request: a late reply finds nobody, and the responder is told.
pub(super) struct Ticket<M> {
    requests: Arc<Requests<M>>,
    pub(super) id: u64,
    pub(super) answer: oneshot::Receiver<Result<Answer<M>, RequestError>>,
    /// Tells the responder.
    pub(super) cancel: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl<M> std::fmt::Debug for Ticket<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<M> Drop for Ticket<M> {
    fn drop(&mut self) {
        let forgotten = self.requests.table.lock().pending.remove(&self.id);
        // One that was answered, or never sent, is none of the responder's business any more.
        if forgotten.is_some_and(|pending| pending.sent.is_some())
            && let Some(cancel) = self.cancel.take()
        {
            cancel();
        }
    }
}

impl<M> Requests<M> {
    /// `first`: the first ID. Drawn at random, because the other side may still be at work for an earlier life of this
    /// node, or of its connection, and send the reply over the new one: it must fit no request of this one.
    pub(super) fn new(limit: usize, first: u64) -> Arc<Self> {
        Arc::new(Self { table: Mutex::new(Table { next: first, pending: BTreeMap::new() }), limit })
    }

    /// A place and an ID for a request.
    pub(super) fn register(self: &Arc<Self>) -> Result<Ticket<M>, RequestError> {
        let (sender, answer) = oneshot::channel();
        let mut table = self.table.lock();
        if table.pending.len() >= self.limit {
            return Err(RequestError::TooMany(self.limit));
        }
        let id = table.next;
        // 2^63 requests at a million a second take 292,000 years; signed 64-bit IDs of some protocols are kept in mind.
        table.next = id.wrapping_add(1) & (u64::MAX >> 1);
        table.pending.insert(id, Pending { answer: sender, sent: None, _expecting: None });
        Ok(Ticket { requests: self.clone(), id, answer, cancel: None })
    }

    /// The request was queued on `link`. If the link has ended meanwhile, its end is the request's, unless all that was
    /// queued has arrived and the reply may come over `heir`.
    pub(super) fn sent(&self, id: u64, link: &Link, heir: Option<&Link>) {
        let mut table = self.table.lock();
        // `ended` is set before `link_ended` takes the lock: either this sees it, or that sees what is done here.
        let failed = match link.ended.get() {
            None => table.expect_from(id, link),
            Some(ended) => match heir.filter(|heir| ended.drained && heir.ended.get().is_none()) {
                Some(heir) => table.expect_from(id, heir),
                None => table.pending.remove(&id).map(|pending| (pending, ended.closed.clone())),
            },
        };
        drop(table);
        if let Some((pending, closed)) = failed {
            let _ = pending.answer.send(Err(RequestError::Disconnected(closed)));
        }
    }

    /// Gives a reply to who waits for it, or back.
    pub(super) fn answer(&self, id: u64, answer: Answer<M>) -> Result<(), Answer<M>> {
        let Some(pending) = self.table.lock().pending.remove(&id) else { return Err(answer) };
        // Who waited may be gone at this very moment: then the reply is dropped, and a streamed one stops.
        let _ = pending.answer.send(Ok(answer));
        Ok(())
    }

    /// A link has ended: `Link::ended` is set already. What was sent over it fails, or is expected from `heir`.
    pub(super) fn link_ended(&self, link: u64, ended: &Ended, heir: Option<&Link>) {
        let mut table = self.table.lock();
        let ids: Vec<u64> = table.pending.iter().filter(|(_, p)| p.sent == Some(link)).map(|(id, _)| *id).collect();
        for id in ids {
            match heir.filter(|heir| ended.drained && heir.ended.get().is_none()) {
                Some(heir) => drop(table.expect_from(id, heir)),
                None => {
                    if let Some(pending) = table.pending.remove(&id) {
                        let _ = pending.answer.send(Err(RequestError::Disconnected(ended.closed.clone())));
                    }
                }
            }
        }
    }

    /// The peer is gone: all fail.
    pub(super) fn fail_all(&self, closed: &Closed) {
        for (_, pending) in std::mem::take(&mut self.table.lock().pending) {
            let _ = pending.answer.send(Err(RequestError::Disconnected(closed.clone())));
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.table.lock().pending.len()
    }
}
