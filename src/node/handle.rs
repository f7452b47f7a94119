//! What the application and its handlers hold: to send, to ask, to look.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerlane_transport::{
    ClassId, ClassTable, TrySend,
    identity::{PeerAddr, PeerId, RemoteId},
};
use tokio::{
    sync::broadcast,
    time::{Instant, timeout_at},
};

use super::{
    broadcast::{Broadcast, Outcome, Selection, latest},
    connect::attach,
    crew::wait_for_peer,
    dial,
    error::{DialError, Listening, PeerSendError, RequestError},
    events::Event,
    metrics,
    peer::Peer,
    request::{Answer, Ticket},
    runtime::Inner,
    stream::{StreamReader, StreamWriter},
};
use crate::protocol::Protocol;

/// A node, to be used from anywhere. Cheap to clone; keeping one doesn't keep the node running.
#[derive(Debug)]
pub struct NodeHandle<P: Protocol>(Arc<Inner<P>>);

impl<P: Protocol> Clone for NodeHandle<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connected peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who.
    pub id: RemoteId,
    /// Its key, proven by the transport.
    pub peer_id: Option<PeerId>,
    /// Whether it has priority by the trust list.
    pub trusted: bool,
    /// The transport that carries its messages.
    pub transport: &'static str,
    /// Whether this side dialed.
    pub dialed: bool,
    /// Its address, for logs.
    pub remote_addr: String,
    /// How long this connection lasts.
    pub age: Duration,
    /// How many connections it has now: more than one only while one gives way to another.
    pub connections: usize,
}

/// The reply to [`request_streamed`](NodeHandle::request_streamed).
#[derive(Debug)]
pub struct Reply<M> {
    /// The reply, or the head of the streamed one.
    pub message: M,
    /// The body, if the reply is streamed. Dropping it tells the responder to stop.
    pub body: Option<StreamReader>,
}

/// A request that is sent as a stream, and its reply to come: [`upload`](NodeHandle::upload).
#[derive(Debug)]
pub struct Upload<M> {
    /// Takes the body.
    pub writer: StreamWriter,
    /// Waits for the reply.
    pub reply: PendingReply<M>,
}

/// A reply to come. Dropping it forgets the request, and tells the responder to stop.
#[derive(Debug)]
pub struct PendingReply<M> {
    ticket: Ticket<M>,
    deadline: Instant,
    limit: Duration,
}

impl<M> PendingReply<M> {
    /// Waits for the reply.
    ///
    /// # Errors
    /// [`RequestError::Disconnected`], [`RequestError::Deadline`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is forgotten, and the responder told.
    pub async fn wait(mut self) -> Result<Reply<M>, RequestError> {
        let limit = self.limit;
        match wait_for_peer(timeout_at(self.deadline, &mut self.ticket.answer)).await {
            Err(_) => Err(RequestError::Deadline(limit)),
            Ok(Ok(Ok(Answer::Whole(message)))) => Ok(Reply { message, body: None }),
            Ok(Ok(Ok(Answer::Streamed(message, body)))) => Ok(Reply { message, body: Some(body) }),
            Ok(Ok(Err(error))) => Err(error),
            // Only the table drops the other end, and says why before it does.
            Ok(Err(_)) => Err(RequestError::Deadline(limit)),
        }
    }
}

impl<P: Protocol> NodeHandle<P> {
    pub(super) fn new(inner: Arc<Inner<P>>) -> Self {
        Self(inner)
    }

    pub(super) fn inner(&self) -> &Arc<Inner<P>> {
        &self.0
    }

    /// The protocol.
    pub fn protocol(&self) -> &P {
        &self.0.protocol
    }

    /// The classes.
    pub fn classes(&self) -> &ClassTable {
        &self.0.classes
    }

    /// This node's key.
    pub fn peer_id(&self) -> PeerId {
        self.0.local.peer_id()
    }

    /// Where it listens.
    pub fn listening(&self) -> &[Listening] {
        &self.0.listening
    }

    /// The connected peers, in the order of their IDs.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.0.registry.peers().iter().filter_map(|peer| self.info(peer)).collect()
    }

    /// A connected peer.
    pub fn peer(&self, peer: impl Into<RemoteId>) -> Option<PeerInfo> {
        self.info(&*self.0.registry.get(&peer.into())?)
    }

    fn info(&self, peer: &Peer<P::Message>) -> Option<PeerInfo> {
        let links = peer.links();
        let link = links.first()?;
        Some(PeerInfo {
            id: peer.id.clone(),
            peer_id: peer.peer_id,
            trusted: self.0.trusts(peer.peer_id.as_ref()),
            transport: link.connection.transport(),
            dialed: link.connection.dialed(),
            remote_addr: link.connection.remote_addr().to_owned(),
            age: link.since.elapsed(),
            connections: links.len(),
        })
    }

    fn find(&self, peer: impl Into<RemoteId>) -> Result<Arc<Peer<P::Message>>, PeerSendError> {
        let peer = peer.into();
        self.0.registry.get(&peer).ok_or(PeerSendError::NotConnected(peer))
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Queues a message for a peer, waiting for room in its class. Queued isn't delivered: only an answer shows that.
    /// If another connection takes over meanwhile, it takes this message too; messages of a Fifo class stay in order.
    ///
    /// # Errors
    /// A [`PeerSendError`]; nothing was queued.
    ///
    /// # Cancel safety
    /// Cancel-safe: the message is queued whole, or not at all if the future is dropped before it completes.
    pub async fn send(&self, peer: impl Into<RemoteId>, message: &P::Message) -> Result<(), PeerSendError> {
        let class = self.0.protocol.class_of(message);
        self.send_bytes(peer, class, self.0.protocol.encode(message)).await
    }

    /// As [`send`](Self::send), of an encoded message.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_bytes(&self, peer: impl Into<RemoteId>, class: ClassId, bytes: Bytes) -> Result<(), PeerSendError> {
        self.0.send_on(&*self.find(peer)?, class, bytes, None).await
    }

    /// Queues a message for a peer if there's room in its class now. While a Fifo class moves to another connection,
    /// it's full.
    ///
    /// # Errors
    /// [`PeerSendError::NotConnected`].
    pub fn try_send(&self, peer: impl Into<RemoteId>, message: &P::Message) -> Result<TrySend, PeerSendError> {
        let peer = self.find(peer)?;
        Ok(self.0.try_send_on(&peer, self.0.protocol.class_of(message), self.0.protocol.encode(message), None))
    }

    /// Queues a message for a peer in place of a queued one of the same key.
    ///
    /// # Errors
    /// [`PeerSendError::NotConnected`].
    pub fn send_latest(&self, peer: impl Into<RemoteId>, key: u64, message: &P::Message) -> Result<Outcome, PeerSendError> {
        let peer = self.find(peer)?;
        Ok(latest(&self.0, &peer, self.0.protocol.class_of(message), key, self.0.protocol.encode(message)))
    }

    /// Queues a message, encoded once, for each selected peer that has room for it. A message with a
    /// [key](Protocol::latest_key) replaces a queued older one.
    pub fn broadcast(&self, selection: &Selection, message: &P::Message) -> Broadcast {
        let protocol = &self.0.protocol;
        let bytes = protocol.encode(message);
        super::broadcast::broadcast(&self.0, selection, protocol.class_of(message), protocol.latest_key(message), &bytes)
    }

    /// As [`broadcast`](Self::broadcast), of an encoded message.
    pub fn broadcast_bytes(&self, selection: &Selection, class: ClassId, key: Option<u64>, bytes: &Bytes) -> Broadcast {
        super::broadcast::broadcast(&self.0, selection, class, key, bytes)
    }

    /// Begins a streamed message of any length, waiting until one more may be open in the class.
    ///
    /// # Errors
    /// A [`PeerSendError`]; nothing was sent.
    ///
    /// # Cancel safety
    /// If the future is dropped, the streamed message is aborted, or never begun.
    pub async fn open(&self, peer: impl Into<RemoteId>, class: ClassId, head: Option<&P::Message>) -> Result<StreamWriter, PeerSendError> {
        self.0.open_on(&*self.find(peer)?, class, head, None).await
    }

    /// Sends a request and waits for its reply, `deadline` at most. The node gives it its ID. It fails at once when the
    /// connection ends, unless another one has taken over.
    ///
    /// # Errors
    /// A [`RequestError`], which says whether the request was sent.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is forgotten: if it was sent, the responder is told to stop
    /// ([`Protocol::cancel`]), and a late reply is dropped. The same when the deadline passes.
    pub async fn request(&self, peer: impl Into<RemoteId>, message: P::Message, deadline: Duration) -> Result<P::Message, RequestError> {
        let Reply { message, body } = self.request_streamed(peer, message, deadline).await?;
        match body {
            None => Ok(message),
            Some(_) => Err(RequestError::Streamed),
        }
    }

    /// As [`request`](Self::request), for a reply that may be streamed. The deadline is for its head; the body is read
    /// at the caller's pace.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    /// If the future is dropped before the head has come, as [`request`](Self::request); if the body is, its sender is
    /// told to stop.
    pub async fn request_streamed(
        &self,
        peer: impl Into<RemoteId>,
        mut message: P::Message,
        deadline: Duration,
    ) -> Result<Reply<P::Message>, RequestError> {
        let (peer, pending) = self.prepare(peer, &mut message, deadline)?;
        let protocol = &self.0.protocol;
        let (class, bytes) = (protocol.class_of(&message), protocol.encode(&message));
        let sending = self.0.send_tracked(&peer, class, bytes, None);
        let link = timeout_at(pending.deadline, sending).await.map_err(|_| RequestError::Deadline(deadline))??;
        peer.requests.sent(pending.ticket.id, &link, peer.current().as_deref());
        pending.wait().await
    }

    /// Sends a request as a stream: its head now, its body by the writer. The reply may come before the body is
    /// complete.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is aborted and forgotten, and the responder told.
    pub async fn upload(
        &self,
        peer: impl Into<RemoteId>,
        mut head: P::Message,
        deadline: Duration,
    ) -> Result<Upload<P::Message>, RequestError> {
        let (peer, reply) = self.prepare(peer, &mut head, deadline)?;
        let opening = self.0.open_on(&peer, self.0.protocol.class_of(&head), Some(&head), None);
        let writer = timeout_at(reply.deadline, opening).await.map_err(|_| RequestError::Deadline(deadline))??;
        peer.requests.sent(reply.ticket.id, writer.link(), peer.current().as_deref());
        Ok(Upload { writer, reply })
    }

    #[allow(clippy::type_complexity)]
    fn prepare(
        &self,
        peer: impl Into<RemoteId>,
        message: &mut P::Message,
        limit: Duration,
    ) -> Result<(Arc<Peer<P::Message>>, PendingReply<P::Message>), RequestError> {
        let peer = self.find(peer)?;
        let mut ticket = peer.requests.register()?;
        self.0.protocol.with_id(message, ticket.id);
        if self.0.protocol.request_id(message) != Some(ticket.id) {
            return Err(RequestError::NotARequest);
        }
        ticket.cancel = self.canceller(&peer, ticket.id);
        // A caller's "forever" must not overflow the clock: a year is as good.
        let deadline = Instant::now() + limit.min(Duration::from_secs(365 * 24 * 3600));
        Ok((peer, PendingReply { ticket, deadline, limit }))
    }

    /// What tells the responder that a request is forgotten: if there's room for that now, since nobody waits for it.
    fn canceller(&self, peer: &Arc<Peer<P::Message>>, id: u64) -> Option<Box<dyn FnOnce() + Send + Sync>> {
        let cancel = self.0.protocol.cancel(id)?;
        let (node, peer) = (self.0.clone(), peer.clone());
        Some(Box::new(move || {
            let (class, bytes) = (node.protocol.class_of(&cancel), node.protocol.encode(&cancel));
            let _ = node.try_send_on(&peer, class, bytes, None);
        }))
    }

    /// Connects to a peer, unless it's connected already. All transports race. The address is remembered; if the
    /// connection is lost, it's not dialed again: see [`keep`](Self::keep).
    ///
    /// # Errors
    /// A [`DialError`] with every attempt.
    ///
    /// # Cancel safety
    /// If the future is dropped, the attempts are abandoned.
    pub async fn connect(&self, addr: &PeerAddr) -> Result<RemoteId, DialError> {
        dial::connect(&self.0, addr).await.map(|peer| peer.id.clone())
    }

    /// Keeps a peer connected from now on: it's dialed, and dialed again when it's lost. `false`: as many peers are
    /// known as [may be](super::NodeConfig::known_peers).
    pub fn keep(&self, addr: &PeerAddr) -> bool {
        dial::look_after(&self.0, addr, true)
    }

    /// Adds a connection that was made in another way: by a transport with addresses of its own, say.
    ///
    /// # Errors
    /// Why it was closed.
    pub fn adopt(&self, connection: peerlane_transport::Connection) -> Result<RemoteId, peerlane_transport::CloseCode> {
        attach(&self.0, connection, true).map(|peer| peer.id.clone())
    }

    /// Lets a peer's connections drain and close, and stops keeping it connected.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connections close all the same.
    pub async fn disconnect(&self, peer: impl Into<RemoteId>) {
        let peer = peer.into();
        if let Some(id) = peer.as_peer_id() {
            self.0.known.release(&id);
        }
        if let Some(peer) = self.0.registry.get(&peer) {
            peer.links().iter().for_each(|link| link.retire.cancel());
            peer.until(|_| false).await;
        }
    }

    /// What it has counted, per peer and class, as Prometheus's text (OpenMetrics 1.0).
    pub fn metrics_text(&self) -> String {
        metrics::text(&self.0)
    }
}
