//! One peer of a star: a real node, store and gossip.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use peerlane_transport::{
    AnyTransport,
    identity::{Identity, PeerAddr},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    AUTHOR, Board, HUB, LOOK, MEMBERS, NETWORK,
    belief::{author, profile},
    failed, flood,
    heard::{Heard, Listening},
    write,
};
use crate::{
    bench::{Measurement, error::LabError},
    cad015::{Cad015, Message},
    cell::Profile,
    node::Node,
    peer::{Gossip, PeerHandler, Service, Store},
};

/// The star is connected within so long, or it isn't measured.
const CONNECTED: Duration = Duration::from_secs(30);
/// How often it's looked whether it is.
const POLL: Duration = Duration::from_millis(10);
/// The end of a node, and a closed connection's last words, are waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Plays a member of the star until it's over. The author gives what was measured.
///
/// # Errors
/// What can't be built, and a star that doesn't connect.
///
/// # Cancel safety
/// If the future is dropped, the peer ends at once, and the others with it.
pub(in crate::bench) async fn member(
    board: &Arc<Board>,
    index: usize,
    address: IpAddr,
    stop: &CancellationToken,
) -> Result<Option<Measurement>, LabError> {
    // The end of one is the end of all.
    let _over = board.over.clone().drop_guard();
    let Some(peer) = board.over.run_until_cancelled(Peer::start(board, index, address)).await.transpose()? else { return Ok(None) };
    let played = board.over.run_until_cancelled(peer.play(board, stop)).await.transpose();
    board.over.cancel();
    if let Some(end) = peer.heard.end() {
        board.ends(index, end);
    }
    peer.end().await;
    Ok(played?.flatten())
}

/// A member's parts.
pub(super) struct Peer {
    pub(super) index: usize,
    pub(super) node: Node<Cad015>,
    pub(super) store: Arc<Store>,
    gossip: Arc<Gossip>,
    pub(super) changed: Arc<Notify>,
    transport: AnyTransport<PeerAddr, SocketAddr>,
    heard: Arc<Heard>,
}

impl Peer {
    async fn start(board: &Arc<Board>, index: usize, address: IpAddr) -> Result<Self, LabError> {
        let case = &board.case;
        let identity = Arc::new(Identity::generate()?);
        if index == AUTHOR {
            // The hub knows it by that.
            let _ = board.author.set(identity.peer_id());
        }
        let local = case.variant.local(&identity, &case.workload)?;
        let transport = case.variant.transport(local.clone())?;
        let store = Arc::new(Store::in_memory(NETWORK, Profile::NATIVE).map_err(failed)?);
        let changed = Arc::new(Notify::new());
        let gossip = Gossip::new(store.clone(), identity.clone(), changed.clone());
        let service = Service::new(store.clone(), identity.peer_id(), NETWORK, changed.clone());
        let heard = Arc::new(Heard::new(board.clone(), index));
        let handler = PeerHandler::new(service, gossip.clone(), identity, NETWORK);
        let mut builder = Node::builder(Cad015::new(profile()), local)
            .transport(transport.clone())
            .listen(SocketAddr::from((address, 0)))
            .handler(Listening { handler, heard: heard.clone() })
            .seed(case.seed.wrapping_add(index as u64));
        if index != HUB {
            let mut hub = board.hub.subscribe();
            let addr = hub.wait_for(Option::is_some).await.map_err(|_| LabError::OtherEnd)?.clone();
            builder = addr.into_iter().fold(builder, |builder, addr| builder.peer(addr));
        }
        let node = builder.start().await.map_err(failed)?;
        if index == HUB {
            let addr = node.listening().first().ok_or_else(|| failed("the hub listens nowhere"))?.addr;
            board.hub.send_replace(Some(PeerAddr::new(node.peer_id(), addr)));
        }
        gossip.start(node.handle());
        Ok(Self { index, node, store, gossip, changed, transport, heard })
    }

    async fn play(&self, board: &Arc<Board>, stop: &CancellationToken) -> Result<Option<Measurement>, LabError> {
        let operations = if self.index == AUTHOR { Some(write::operations(board).await?) } else { None };
        timeout(CONNECTED, self.connected()).await.map_err(|_| failed(format!("the star isn't connected after {CONNECTED:?}")))?;
        board.connected.wait().await;
        self.greet().await;
        let _floods = flood::floods(self, board)?;
        let writing = async {
            match operations {
                Some(operations) => write::write(self, board, operations, stop).await.map(Some),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            watched = self.watch(board) => watched.map(|()| None),
            written = writing => written,
        }
    }

    /// Asks each peer once: each has then heard by which connection it's connected.
    async fn greet(&self) {
        for peer in self.node.peers() {
            let _ = self.node.request(peer.id, Message::ping(0), CONNECTED).await;
        }
    }

    async fn connected(&self) {
        let expected = if self.index == HUB { MEMBERS - 1 } else { 1 };
        while self.node.peers().len() < expected {
            sleep(POLL).await;
        }
    }

    /// Tells the board what the store has, until there's nobody to tell.
    async fn watch(&self, board: &Board) -> Result<(), LabError> {
        let (author, mut known) = (author(), None);
        loop {
            let version = self.store.version();
            if known.replace(version) != Some(version) {
                let next = self.store.snapshot().and_then(|snapshot| snapshot.next_sequence(&author)).map_err(failed)?;
                board.has(self.index, usize::try_from(next).unwrap_or(usize::MAX).saturating_sub(1), Instant::now());
            }
            sleep(LOOK).await;
        }
    }

    async fn end(self) {
        self.gossip.stop().await;
        let _ = timeout(LAST_WORDS, self.node.shutdown()).await;
        let _ = timeout(LAST_WORDS, self.transport.idle()).await;
    }
}
