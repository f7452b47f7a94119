//! What all parts of a node share, and the ways of a message out.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use peerlane_transport::{
    AnyTransport, ClassId, ClassTable, CloseCode, Closed, Order, SendError, TrySend,
    admission::LocalPeer,
    identity::{PeerAddr, PeerId},
    varint,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::broadcast, task::AbortHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    config::NodeConfig,
    crew::wait_for_peer,
    dial::Known,
    dispatch::Dispatch,
    error::{Listening, PeerSendError},
    events::Event,
    link::Link,
    metrics::NodeCounters,
    peer::{Peer, Route},
    registry::Registry,
    stream::StreamWriter,
    sync::Mutex,
};
use crate::protocol::{MAX_HEAD, Protocol};

pub(super) type NodeTransport = AnyTransport<PeerAddr, std::net::SocketAddr>;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Inner<P: Protocol> {
    pub(super) protocol: P,
    pub(super) local: LocalPeer,
    pub(super) classes: ClassTable,
    /// In the order of preference.
    pub(super) transports: Vec<NodeTransport>,
    pub(super) config: NodeConfig,
    pub(super) registry: Registry<P::Message>,
    pub(super) dispatch: Vec<Dispatch<P::Message>>,
    pub(super) known: Known,
    pub(super) listening: Vec<Listening>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) counters: NodeCounters,
    pub(super) seed: u64,
    pub(super) rng: Mutex<StdRng>,
    /// No new connections.
    pub(super) stopping: CancellationToken,
    /// The end: all tasks return.
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// They look at no token between two messages: they're aborted.
    pub(super) workers: Mutex<Vec<AbortHandle>>,
}

/// What [`Inner`] is made of.
pub(super) struct Parts<P> {
    pub(super) protocol: P,
    pub(super) local: LocalPeer,
    pub(super) transports: Vec<NodeTransport>,
    pub(super) config: NodeConfig,
    pub(super) listening: Vec<Listening>,
    pub(super) seed: u64,
}

impl<P: Protocol> Inner<P> {
    pub(super) fn new(parts: Parts<P>) -> Arc<Self> {
        let Parts { protocol, local, transports, config, listening, seed } = parts;
        let classes = protocol.classes();
        let dispatch = classes.iter().map(|(id, c)| Dispatch::new(id, c.order, c.max_message, protocol.overflow(id), &config)).collect();
        let events = broadcast::Sender::new(config.events.clamp(1, 1 << 20));
        Arc::new(Self {
            registry: Registry::new(local.peer_id(), classes.len(), config.requests_per_peer, config.peers, seed, events.clone()),
            dispatch,
            known: Known::new(config.known_peers),
            events,
            counters: NodeCounters::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            stopping: CancellationToken::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            workers: Mutex::default(),
            protocol,
            local,
            classes,
            transports,
            config,
            listening,
            seed,
        })
    }

    /// Starts a worker.
    pub(super) fn employ(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut workers = self.workers.lock();
        workers.retain(|worker| !worker.is_finished());
        let worker = self.tasks.spawn(work).abort_handle();
        // `close` sets this before it takes the lock.
        if self.closed.is_cancelled() {
            worker.abort();
        } else {
            workers.push(worker);
        }
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Whether a peer has priority.
    pub(super) fn trusts(&self, peer: Option<&PeerId>) -> bool {
        peer.is_some_and(|peer| self.local.lists.trusted(peer))
    }

    /// Whether the sender of a message has priority. A key that the application has proven counts as well.
    pub(super) fn trusts_sender(&self, peer: &Peer<P::Message>, link: &Link) -> bool {
        match &peer.peer_id {
            Some(id) => self.local.lists.trusted(id),
            None => self.trusts(link.connection.remote().peer_id().as_ref()),
        }
    }

    pub(super) fn order(&self, class: ClassId) -> Order {
        self.classes.get(class).map_or(Order::Any, |class| class.order)
    }

    /// Queues a message for a peer, waiting for room, over whichever link is its now.
    ///
    /// # Cancel safety
    /// Cancel-safe: queued whole or not at all.
    pub(super) async fn send_on(
        &self,
        peer: &Peer<P::Message>,
        class: ClassId,
        bytes: Bytes,
        origin: Option<u64>,
    ) -> Result<(), PeerSendError> {
        self.send_tracked(peer, class, bytes, origin).await.map(drop)
    }

    /// As [`send_on`](Self::send_on), and says which link it took.
    pub(super) async fn send_tracked(
        &self,
        peer: &Peer<P::Message>,
        class: ClassId,
        bytes: Bytes,
        origin: Option<u64>,
    ) -> Result<Arc<Link>, PeerSendError> {
        let order = self.order(class);
        loop {
            let link = match peer.route(order, origin) {
                Route::To(link) => link,
                Route::Wait => wait_for_peer(peer.wait_route(order, origin)).await.map_err(|closed| gone(peer, closed))?,
                Route::Gone(closed) => return Err(gone(peer, closed)),
            };
            match wait_for_peer(link.connection.send(class, bytes.clone())).await {
                Ok(()) => return Ok(link),
                // The link closed while we waited for room, and nothing was queued: another may take it.
                Err(SendError::Closed(_)) => self.left(peer, &link).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a link that refuses messages is out of the way.
    async fn left(&self, peer: &Peer<P::Message>, link: &Link) {
        peer.until(|peer| !peer.offers(link.number)).await;
    }

    /// Queues a message for a peer if there's room now.
    pub(super) fn try_send_on(&self, peer: &Peer<P::Message>, class: ClassId, bytes: Bytes, origin: Option<u64>) -> TrySend {
        match peer.route(self.order(class), origin) {
            Route::To(link) => link.connection.try_send(class, bytes),
            Route::Wait => TrySend::Full { class, bytes: 0 },
            Route::Gone(closed) => TrySend::Closed(closed.into()),
        }
    }

    /// Begins a streamed message and writes its head.
    pub(super) async fn open_on(
        &self,
        peer: &Peer<P::Message>,
        class: ClassId,
        head: Option<&P::Message>,
        origin: Option<u64>,
    ) -> Result<StreamWriter, PeerSendError> {
        let order = self.order(class);
        let mut head = self.protocol.encode_head(head);
        if head.len() > MAX_HEAD + varint::MAX_LEN {
            // The other side would close the connection over it.
            return Err(SendError::TooLarge { class, size: head.len(), limit: MAX_HEAD }.into());
        }
        loop {
            let link = wait_for_peer(peer.wait_route(order, origin)).await.map_err(|closed| gone(peer, closed))?;
            // Counted before it's open, so that the link isn't made to give way in between.
            let busy = link.streaming();
            match wait_for_peer(link.connection.open(class)).await {
                Ok(writer) => {
                    let mut writer = StreamWriter::new(writer, self.config.stall_timeout, busy);
                    writer.write(&mut head).await?;
                    return Ok(writer);
                }
                Err(SendError::Closed(_)) => self.left(peer, &link).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Counts, tells and maybe punishes a message that doesn't parse.
    pub(super) fn malformed(&self, peer: &Peer<P::Message>, link: &Link, class: ClassId, why: &'static str, close: bool) {
        peer.malformed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(peer = %peer.id, class = %class, why, "malformed message");
        self.emit(Event::Malformed { peer: peer.id.clone(), class, why });
        if close {
            link.connection.close(CloseCode::Application, why);
        }
    }

    /// Ends everything gracefully: see [`Node::shutdown`](super::Node::shutdown).
    pub(super) async fn shut_down(&self) {
        self.stopping.cancel();
        let links: Vec<_> = self.registry.peers().iter().flat_map(|peer| peer.links()).collect();
        let deadline = Instant::now() + self.config.shutdown_timeout.min(std::time::Duration::from_secs(3600));
        for link in &links {
            if tokio::time::timeout_at(deadline, link.until(|link| !link.is_handling() || link.ended.get().is_some())).await.is_err() {
                break;
            }
        }
        let peers = self.registry.peers();
        peers.iter().flat_map(|peer| peer.links()).for_each(|link| link.retire.cancel());
        for peer in peers {
            // Each link's drain has its timeout, and ends in the peer's end.
            peer.until(|_| false).await;
        }
        self.close();
        self.tasks.wait().await;
    }

    /// Ends everything at once.
    pub(super) fn close(&self) {
        self.stopping.cancel();
        self.closed.cancel();
        self.workers.lock().drain(..).for_each(|worker| worker.abort());
        self.tasks.close();
    }
}

/// The peer of a message is gone.
pub(super) fn gone<M>(peer: &Peer<M>, closed: Closed) -> PeerSendError {
    tracing::trace!(peer = %peer.id, %closed, "no connection left for a message");
    PeerSendError::NotConnected(peer.id.clone())
}
