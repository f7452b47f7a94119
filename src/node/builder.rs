//! From parts to a running node.

use std::{net::SocketAddr, ops::Deref, sync::Arc};

use peerlane_transport::{admission::LocalPeer, identity::PeerAddr};
use rand::Rng;

use super::{
    config::NodeConfig,
    dial,
    dispatch::start_workers,
    error::StartError,
    handle::NodeHandle,
    handler::{Handler, Silent},
    listen::{bind, describe, listen},
    runtime::{Inner, NodeTransport, Parts},
};
use crate::protocol::Protocol;

/// Listens, dials, and carries a protocol's messages: one logical connection per peer, whatever the transport. It
/// derefs to [`NodeHandle`], which has what it can do.
///
/// Dropping it ends everything at once; [`shutdown`](Self::shutdown) does so gracefully.
#[derive(Debug)]
pub struct Node<P: Protocol> {
    handle: NodeHandle<P>,
}

impl<P: Protocol> Node<P> {
    /// Begins to build a node of this protocol.
    pub fn builder(protocol: P, local: LocalPeer) -> NodeBuilder<P, Silent> {
        NodeBuilder {
            protocol,
            local,
            transports: Vec::new(),
            listen: Vec::new(),
            peers: Vec::new(),
            handler: Silent,
            config: NodeConfig::default(),
            seed: None,
        }
    }

    /// A handle that can be given away.
    pub fn handle(&self) -> NodeHandle<P> {
        self.handle.clone()
    }

    /// Stops accepting and dialing, waits for handlers for [`shutdown_timeout`](NodeConfig::shutdown_timeout) at most
    /// (new requests get the overload answer meanwhile), lets every connection drain, and ends all tasks.
    ///
    /// # Cancel safety
    /// If the future is dropped, everything ends at once.
    pub async fn shutdown(self) {
        self.handle.inner().shut_down().await;
    }
}

impl<P: Protocol> Deref for Node<P> {
    type Target = NodeHandle<P>;

    fn deref(&self) -> &NodeHandle<P> {
        &self.handle
    }
}

impl<P: Protocol> Drop for Node<P> {
    fn drop(&mut self) {
        self.handle.inner().close();
    }
}

/// Collects a node's parts.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder<P, H> {
    protocol: P,
    local: LocalPeer,
    transports: Vec<NodeTransport>,
    listen: Vec<SocketAddr>,
    peers: Vec<PeerAddr>,
    handler: H,
    config: NodeConfig,
    seed: Option<u64>,
}

impl<P: Protocol, H: Handler<P>> NodeBuilder<P, H> {
    /// Adds a transport. The first is the first choice.
    pub fn transport(mut self, transport: NodeTransport) -> Self {
        self.transports.push(transport);
        self
    }

    /// Listens at this address with every transport. Port 0: a free one, the same for all.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen.push(addr);
        self
    }

    /// Keeps a peer connected.
    pub fn peer(mut self, addr: PeerAddr) -> Self {
        self.peers.push(addr);
        self
    }

    /// Handles received messages. Without one they're taken in and forgotten.
    pub fn handler<H2: Handler<P>>(self, handler: H2) -> NodeBuilder<P, H2> {
        let Self { protocol, local, transports, listen, peers, handler: _, config, seed } = self;
        NodeBuilder { protocol, local, transports, listen, peers, handler, config, seed }
    }

    /// Other bounds and times than the default.
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Where random numbers begin: the same seed gives the same delays and choices. For tests on a virtual clock.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Listens, and starts all tasks. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing is left running.
    pub async fn start(self) -> Result<Node<P>, StartError> {
        let Self { protocol, local, transports, listen: addrs, peers, handler, config, seed } = self;
        let refuse = |why: &str| Err(StartError::Config(why.into()));
        if transports.is_empty() {
            return refuse("a node needs a transport");
        }
        if protocol.classes() != local.terms.classes {
            return refuse("the local peer's terms must have the protocol's classes");
        }
        if config.workers == 0 {
            return refuse("each class needs a worker");
        }
        let mut bound = Vec::new();
        for addr in addrs {
            bound.extend(bind(&transports, addr).await?);
        }
        let listening = bound.iter().map(describe).collect();
        let seed = seed.unwrap_or_else(|| rand::rng().next_u64());
        let inner = Inner::new(Parts { protocol, local, transports, config, listening, seed });
        let node = Node { handle: NodeHandle::new(inner.clone()) };
        let handler = Arc::new(handler);
        for (class, _) in inner.classes.iter() {
            start_workers(&inner, class, &handler);
        }
        for bound in bound {
            inner.tasks.spawn(listen(inner.clone(), bound));
        }
        for peer in peers {
            if !dial::look_after(&inner, &peer, true) {
                return refuse("more peers are to be kept connected than may be known");
            }
        }
        Ok(node)
    }
}
