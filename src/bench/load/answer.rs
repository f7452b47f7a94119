//! The end that answers queries and takes floods.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use peerlane_transport::{ClassId, ClassTable, Connection, Inbound, SendError};
use tokio_util::task::AbortOnDropHandle;

use super::message::{self, Tag};
use crate::bench::{Workload, error::LabError};

/// The longest BELIEF taken, in bytes: a class's largest message is less.
const LONGEST_BELIEF: usize = 64 * 1024 * 1024;

/// What the receiver's application has taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    belief_bytes: AtomicU64,
}

impl Taken {
    /// Bytes of BELIEFs.
    pub(crate) fn belief_bytes(&self) -> u64 {
        self.belief_bytes.load(Ordering::Relaxed)
    }
}

/// The class of a name in a connection's table.
pub(super) fn class(connection: &Connection, name: &str) -> Result<ClassId, LabError> {
    connection.classes().by_name(name).ok_or_else(|| std::io::Error::other(format!("no class {name:?}")).into())
}

/// Answers and takes until the connection is over. Each class has a task of its own, as in a node: a flood taken up
/// isn't in the way of a query.
///
/// # Errors
/// A RESULT that's refused while the connection lives.
pub(crate) async fn answer(connection: &Connection, workload: &Workload, taken: &Arc<Taken>) -> Result<(), LabError> {
    let (query, belief) = (class(connection, ClassTable::QUERY)?, class(connection, ClassTable::BELIEF)?);
    let _takes = AbortOnDropHandle::new(tokio::spawn(take(connection.clone(), belief, taken.clone())));
    while let Ok(Inbound::Whole(asked)) = connection.recv(query).await {
        let Some(id) = message::id(Tag::Query, &asked) else { continue };
        match connection.send(query, message::message(Tag::Result, id, workload.result_bytes)).await {
            Ok(()) => {}
            Err(SendError::Closed(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn take(connection: Connection, belief: ClassId, taken: Arc<Taken>) {
    while let Ok(message) = connection.recv(belief).await {
        let bytes = message.collect(LONGEST_BELIEF).await.map_or(0, |bytes| bytes.len());
        taken.belief_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
