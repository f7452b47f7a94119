//! What the application gives to a node: a handler, and what a handler gets.

use std::{future::Future, sync::Arc};

use peerlane_transport::{
    ClassId, CloseCode, Connection,
    identity::{PeerId, RemoteId},
};
use tokio::time::Instant;

use super::{
    config::STREAM_REFUSED,
    error::PeerSendError,
    handle::NodeHandle,
    link::Busy,
    peer::Peer,
    runtime::Inner,
    stream::{StreamReader, StreamWriter},
};
use crate::protocol::Protocol;

/// Handles received messages. Each class has [`workers`](super::NodeConfig::workers) of its own that call it; one
/// message of a peer at a time in a Fifo class, several at once in others. A panic is caught, counted and logged.
///
/// Replies that somebody waits for never come here: they go to [`request`](super::NodeHandle::request).
pub trait Handler<P: Protocol>: Send + Sync + 'static {
    /// Handles a message. It holds a worker of its class until it's done, but for the time in which it waits for a peer: in
    /// [`reply`](Context::reply), in the [node's](NodeHandle) ways to send and ask, in a [`StreamWriter`] or a [`StreamReader`].
    ///
    /// # Cancel safety
    /// The future is dropped when the node closes before it's done, when the peer takes its request back
    /// ([`Protocol::cancel`]), and while it waits for a peer if too many do and its peer has the most of them. What must be
    /// completed once it's begun belongs in a task of its own.
    fn handle(&self, context: Context<P>, message: P::Message) -> impl Future<Output = ()> + Send;

    /// Handles a streamed message: its head, if it has one, and the body as it arrives. It holds a worker of its class as
    /// [`handle`](Self::handle) does.
    ///
    /// The default collects one without a head, up to the class's largest message, and has it handled as a message; one
    /// with a head is stopped.
    ///
    /// A body of which nothing comes ends in an error, and a handler that reads nothing of a body that goes on is dropped:
    /// both after [`stall_timeout`](super::NodeConfig::stall_timeout), about.
    ///
    /// # Cancel safety
    /// As [`handle`](Self::handle), and dropped when it stalls.
    fn handle_streamed(&self, context: Context<P>, head: Option<P::Message>, body: StreamReader) -> impl Future<Output = ()> + Send {
        async move {
            if head.is_some() {
                body.stop(STREAM_REFUSED);
                return context.refused("a streamed message that nobody handles", false);
            }
            let limit = context.connection().classes().get(context.class).map_or(0, |class| class.max_message);
            let Ok(bytes) = body.collect(limit).await else {
                return context.refused("a streamed message that ended early or is too long", false);
            };
            match context.node.protocol().decode(context.class, bytes) {
                Ok(message) => self.handle(context, message).await,
                Err(malformed) => {
                    if let Some(answer) = malformed.answer {
                        let _ = context.reply(&answer).await;
                    }
                    context.refused(malformed.why, malformed.close);
                }
            }
        }
    }
}

/// Handles nothing: for a node that only asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl<P: Protocol> Handler<P> for Silent {
    async fn handle(&self, _: Context<P>, _: P::Message) {}
}

impl<P: Protocol, H: Handler<P>> Handler<P> for Arc<H> {
    fn handle(&self, context: Context<P>, message: P::Message) -> impl Future<Output = ()> + Send {
        (**self).handle(context, message)
    }

    fn handle_streamed(&self, context: Context<P>, head: Option<P::Message>, body: StreamReader) -> impl Future<Output = ()> + Send {
        (**self).handle_streamed(context, head, body)
    }
}

/// Where a message came from, and how to answer. While it lives, a connection that closes gracefully waits for the
/// answer, for its drain timeout at most.
#[derive(Debug)]
pub struct Context<P: Protocol> {
    node: NodeHandle<P>,
    peer: Arc<Peer<P::Message>>,
    busy: Busy,
    class: ClassId,
    received: Instant,
}

impl<P: Protocol> Context<P> {
    pub(super) fn new(node: Arc<Inner<P>>, peer: Arc<Peer<P::Message>>, busy: Busy, class: ClassId, received: Instant) -> Self {
        Self { node: NodeHandle::new(node), peer, busy, class, received }
    }

    /// The node.
    pub fn node(&self) -> &NodeHandle<P> {
        &self.node
    }

    /// Who sent it.
    pub fn peer(&self) -> &RemoteId {
        &self.peer.id
    }

    /// Its key, if it has one and has proven it, to the transport or since ([`Connection::set_remote`]).
    pub fn peer_id(&self) -> Option<PeerId> {
        self.peer.peer_id.or_else(|| self.connection().remote().peer_id())
    }

    /// Whether the peer has priority by the trust list.
    pub fn trusted(&self) -> bool {
        self.node.inner().trusts_sender(&self.peer, self.busy.link())
    }

    /// The class in which it came.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// When it came out of the connection.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// The connection by which it came: for its [exporter](Connection::exporter) and to
    /// [prove](Connection::set_remote) the peer. Messages are better sent by [`reply`](Self::reply) or the
    /// [node](Self::node), which know when another connection takes over.
    pub fn connection(&self) -> &Connection {
        &self.busy.link().connection
    }

    /// Answers, in the class in which the message came, waiting for room in it for
    /// [`reply_timeout`](super::NodeConfig::reply_timeout) at most.
    ///
    /// # Errors
    /// A [`PeerSendError`]: the reply was dropped, and counted.
    ///
    /// # Cancel safety
    /// Cancel-safe: the reply is queued whole or not at all.
    pub async fn reply(&self, message: &P::Message) -> Result<(), PeerSendError> {
        let node = self.node.inner();
        let bytes = node.protocol.encode(message);
        let limit = node.config.reply_timeout;
        let sending = node.send_on(&self.peer, self.class, bytes, Some(self.busy.link().number));
        let sent = tokio::time::timeout(limit, sending).await.unwrap_or(Err(PeerSendError::Timeout(limit)));
        if sent.is_err() {
            self.peer.counters[self.class.index()].replies_lost.add(1);
        }
        sent
    }

    /// Answers with a streamed message in the class in which the message came. The head says which request it answers
    /// ([`Protocol::reply_to`]). A requester that has given up stops it.
    ///
    /// # Errors
    /// A [`PeerSendError`]; nothing was sent.
    ///
    /// # Cancel safety
    /// If the future is dropped, the streamed message is aborted.
    pub async fn reply_streamed(&self, head: &P::Message) -> Result<StreamWriter, PeerSendError> {
        let node = self.node.inner();
        let limit = node.config.reply_timeout;
        let opening = node.open_on(&self.peer, self.class, Some(head), Some(self.busy.link().number));
        tokio::time::timeout(limit, opening).await.unwrap_or(Err(PeerSendError::Timeout(limit)))
    }

    /// Closes the connection by which the message came: the peer broke the rules of the application.
    pub fn close(&self, why: &str) {
        self.connection().close(CloseCode::Application, why);
    }

    pub(super) fn refused(&self, why: &'static str, close: bool) {
        self.node.inner().malformed(&self.peer, self.busy.link(), self.class, why, close);
    }
}
