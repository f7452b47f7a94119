//! Which connection and class carries what.

use bytes::Bytes;
use peerlane_transport::{ClassId, ClassTable, CloseCode, Closed, Connection, Inbound, RecvError, SendError, TrySend};

use crate::bench::{Variant, error::LabError};

/// A class of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) connection: Connection,
    pub(crate) class: ClassId,
}

impl Lane {
    fn new(connection: &Connection, class: &str) -> Result<Self, LabError> {
        let found = connection.classes().by_name(class);
        let class = found.ok_or_else(|| std::io::Error::other(format!("no class {class:?}")))?;
        Ok(Self { connection: connection.clone(), class })
    }

    pub(crate) async fn send(&self, message: Bytes) -> Result<(), SendError> {
        self.connection.send(self.class, message).await
    }

    pub(super) fn try_send(&self, message: Bytes) -> TrySend {
        self.connection.try_send(self.class, message)
    }

    pub(crate) async fn recv(&self) -> Result<Inbound, RecvError> {
        self.connection.recv(self.class).await
    }
}

/// One end of all that connects the two: mostly the same connection twice.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// Carries QUERY and RESULT.
    pub(crate) query: Lane,
    /// Carries BELIEF.
    pub(crate) belief: Lane,
}

impl Links {
    /// Of a transport's connections, in the order in which they were dialed.
    pub(crate) fn new(variant: Variant, connections: &[Connection]) -> Result<Self, LabError> {
        let (Some(first), Some(last)) = (connections.first(), connections.last()) else {
            return Err(std::io::Error::other("no connection").into());
        };
        let query = Lane::new(first, variant.class(ClassTable::QUERY))?;
        Ok(Self { query, belief: Lane::new(last, variant.class(ClassTable::BELIEF))? })
    }

    /// BELIEF has a connection of its own.
    pub(crate) fn apart(&self) -> bool {
        self.query.connection.stable_id() != self.belief.connection.stable_id()
    }

    /// BELIEF arrives where QUERY does.
    pub(super) fn shared(&self) -> bool {
        !self.apart() && self.query.class == self.belief.class
    }

    /// How the first connection that ended did.
    pub(crate) fn close_reason(&self) -> Option<Closed> {
        self.query.connection.close_reason().or_else(|| self.belief.connection.close_reason())
    }

    /// Completes when one of them has ended.
    pub(super) async fn closed(&self) {
        tokio::select! {
            _ = self.query.connection.closed() => {}
            _ = self.belief.connection.closed() => {}
        }
    }

    /// Ends them.
    pub(crate) fn close(&self, reason: &str) {
        for lane in [&self.query, &self.belief] {
            lane.connection.close(CloseCode::Done, reason);
        }
    }
}
