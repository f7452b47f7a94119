//! A flood of large beliefs, by a node's own means.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerlane_transport::{ClassId, identity::RemoteId};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{Board, HUB, belief, member::Peer};
use crate::{
    bench::{Flood, error::LabError, load::Timer},
    cad015::Cad015,
    node::{NodeHandle, Selection},
};

/// After a connection was lost, a flood goes on when it may be back.
const RETRY: Duration = Duration::from_millis(10);

/// This member's part in the flood, until it's dropped: the hub's to each leaf, and if both ways each leaf's to the hub.
pub(super) fn floods(peer: &Peer, board: &Arc<Board>) -> Result<Vec<AbortOnDropHandle<()>>, LabError> {
    let floods = match board.case.flood {
        Flood::None => false,
        Flood::BothWays => true,
        Flood::Full | Flood::Rate(_) => peer.index == HUB,
    };
    if !floods {
        return Ok(Vec::new());
    }
    let bytes = board.case.workload.belief_bytes;
    let (message, class) = (belief::large(bytes)?, peer.node.protocol().belief_class());
    let tasks = match board.case.offered_bps {
        None => {
            let flood = |to| tokio::spawn(as_fast_as_it_goes(peer.node.handle(), to, class, message.clone()));
            peer.node.peers().into_iter().map(|peer| flood(peer.id)).collect()
        }
        Some(bits) => {
            let gap = Duration::from_secs_f64(8.0 * bytes as f64 / bits);
            vec![tokio::spawn(in_open_loop(peer.node.handle(), class, message, gap, Timer::new()?, board.clone()))]
        }
    };
    Ok(tasks.into_iter().map(AbortOnDropHandle::new).collect())
}

async fn as_fast_as_it_goes(node: NodeHandle<Cad015>, to: RemoteId, class: ClassId, message: Bytes) {
    loop {
        if node.send_bytes(to.clone(), class, message.clone()).await.is_err() {
            sleep(RETRY).await;
        }
    }
}

/// Offers a message to each peer at each multiple of `gap`; one that finds no room is refused, and counted.
async fn in_open_loop(node: NodeHandle<Cad015>, class: ClassId, message: Bytes, gap: Duration, timer: Timer, board: Arc<Board>) {
    let mut due = Instant::now();
    // Without its timer the flood ends: what was offered says so.
    while timer.until(due).await.is_ok() {
        let offered = node.broadcast_bytes(&Selection::All, class, None, &message);
        board.pushed.add(offered.outcomes.len(), offered.outcomes.len() - offered.queued());
        due += gap;
        // One that is late catches up, and lets others work meanwhile.
        tokio::task::yield_now().await;
    }
}
