//! Which connection and class carries what.

use bytes::Bytes;
use peerlane_transport::{ClassId, ClassTable, CloseCode, Closed, Connection, Inbound, RecvError, SendError, TrySend};

use super::copies::{Copied, Copies};
use crate::bench::{Kind, Variant, error::LabError};

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
    /// Carries what is asked and answered, as a rule QUERY and RESULT.
    pub(crate) query: Lane,
    /// Carries copies of them, if there's a connection for that.
    pub(super) copies: Option<Copies>,
    /// Carries BELIEF.
    pub(crate) belief: Lane,
}

impl Links {
    /// Of a transport's connections, in the order in which they were dialed.
    pub(crate) fn new(variant: Variant, kind: Kind, connections: &[Connection]) -> Result<Self, LabError> {
        let (Some(first), Some(last)) = (connections.first(), connections.last()) else {
            return Err(std::io::Error::other("no connection").into());
        };
        let query = |connection| Lane::new(connection, variant.class(kind.class()));
        // In a Fifo class a copy could only come too early.
        let copies =
            if variant.copies() && kind == Kind::Query { connections.get(1).map(query).transpose()?.map(Copies::new) } else { None };
        Ok(Self { query: query(first)?, copies, belief: Lane::new(last, variant.class(ClassTable::BELIEF))? })
    }

    /// BELIEF has a connection of its own.
    pub(crate) fn apart(&self) -> bool {
        self.query.connection.stable_id() != self.belief.connection.stable_id()
    }

    /// BELIEF arrives where QUERY does.
    pub(super) fn shared(&self) -> bool {
        !self.apart() && self.query.class == self.belief.class
    }

    /// The next message of the class that is asked in, by whichever connection it comes. Cancel-safe.
    pub(super) async fn recv(&self) -> Result<Inbound, RecvError> {
        let Some(copies) = &self.copies else { return self.query.recv().await };
        tokio::select! {
            message = self.query.recv() => message,
            message = copies.lane.recv() => message,
        }
    }

    /// This end has sent a message of so many bytes: copies may be a share of them.
    pub(super) fn sent(&self, bytes: usize) {
        if let Some(copies) = &self.copies {
            copies.sent(bytes);
        }
    }

    /// This end's copies, if it makes any.
    pub(crate) fn copied(&self) -> Option<Copied> {
        self.copies.as_ref().map(Copies::copied)
    }

    /// The lane of copies, if there's one.
    pub(crate) fn copy_lane(&self) -> Option<&Lane> {
        self.copies.as_ref().map(|copies| &copies.lane)
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        [Some(&self.query), self.copy_lane(), Some(&self.belief)].into_iter().flatten()
    }

    /// How the first connection that ended did.
    pub(crate) fn close_reason(&self) -> Option<Closed> {
        self.lanes().find_map(|lane| lane.connection.close_reason())
    }

    /// Completes when one of them has ended.
    pub(super) async fn closed(&self) {
        let copies = async {
            match self.copy_lane() {
                Some(lane) => drop(lane.connection.closed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = copies => {}
            _ = self.query.connection.closed() => {}
            _ = self.belief.connection.closed() => {}
        }
    }

    /// Ends them.
    pub(crate) fn close(&self, reason: &str) {
        for lane in self.lanes() {
            lane.connection.close(CloseCode::Done, reason);
        }
    }
}
