//! The end that answers queries and takes floods; in a flood both ways it floods, too.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use peerlane_transport::{Inbound, TrySend};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{
    copies::Arrivals,
    flood::flood,
    links::{Lane, Links},
    message::{self, Tag},
    transact::Responder,
};
use crate::bench::{Case, Flood, Kind, error::LabError};

/// The longest BELIEF taken, in bytes: a class's largest message is less.
const LONGEST_BELIEF: usize = 64 * 1024 * 1024;

/// What a receiver's application has taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    bytes: AtomicU64,
}

impl Taken {
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of BELIEFs, or of whatever it was.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Answers, takes, and floods where the case says so, until the connection is over. Each class has a task of its own, as in a node: a flood taken up
/// isn't in the way of a query.
///
/// # Errors
/// A RESULT that's refused while the connection lives.
pub(crate) async fn answer(links: &Links, case: &Case, taken: &Arc<Taken>) -> Result<(), LabError> {
    let _flood = (case.flood == Flood::BothWays).then(|| flood(links, case, &Arc::default())).transpose()?;
    let _takes = (!links.shared()).then(|| AbortOnDropHandle::new(tokio::spawn(take(links.belief.clone(), taken.clone()))));
    // Where a flood leaves no room for a RESULT, it waits beside what's received, and not before it.
    let mut waiting = JoinSet::new();
    let responder = if case.workload.kind == Kind::Transact { Some(Responder::new()?) } else { None };
    let mut arrivals = Arrivals::default();
    while let Ok(Inbound::Whole(message)) = links.recv().await {
        let result = match &responder {
            // One after the other: order counts.
            Some(responder) => responder.answer(&message).await,
            None => message::id(Tag::Query, &message).map(|id| message::message(Tag::Result, id, case.workload.result_bytes)),
        };
        let Some(result) = result else {
            taken.add(message.len());
            continue;
        };
        if links.copies.is_some() && message::id(Tag::Result, &result).is_some_and(|id| !arrivals.is_first(id)) {
            continue;
        }
        match links.query.try_send(result.clone()) {
            TrySend::Queued => {}
            // As many as there are queries at most.
            TrySend::Full { .. } => drop(waiting.spawn(send(links.query.clone(), result.clone()))),
            TrySend::TooLarge { limit } => return Err(too_large("RESULT", limit)),
            TrySend::Closed(_) => break,
        }
        links.sent(result.len());
        if let Some(copies) = links.copies.clone() {
            waiting.spawn(copies.copy(result));
        }
        while waiting.try_join_next().is_some() {}
    }
    Ok(())
}

/// Waits for room; it has the size, so that only the connection's end is in its way.
pub(super) async fn send(lane: Lane, message: Bytes) {
    let _ = lane.send(message).await;
}

pub(super) fn too_large(what: &str, limit: usize) -> LabError {
    std::io::Error::other(format!("a {what} of this class has {limit} bytes at most")).into()
}

/// Takes BELIEFs until the connection is over.
pub(super) async fn take(lane: Lane, taken: Arc<Taken>) {
    while let Ok(message) = lane.recv().await {
        taken.add(message.collect(LONGEST_BELIEF).await.map_or(0, |bytes| bytes.len()));
    }
}
