//! A peer on a thread and a runtime of its own, which can be stopped or ended: a process that hangs, or is killed.

use std::{sync::Arc, thread};

use tokio::sync::{mpsc, oneshot};

use super::{
    Factory,
    kit::{AddrOf, Kit, Peer},
    report::Stop,
};
use crate::{Connection, Listener, Transport, Upgrade, admission::Terms};

enum Order {
    /// Takes nothing up until the sender is dropped.
    Stall(std::sync::mpsc::Receiver<()>),
    /// Ends without a word.
    Die,
}

/// A connection whose other end lives elsewhere.
pub(super) struct Elsewhere<F: Factory> {
    /// This side, which dialed.
    pub(super) a: Connection,
    /// The other side. Its methods may be called from here.
    pub(super) b: Connection,
    orders: mpsc::UnboundedSender<Order>,
    _dialer: Peer<F>,
}

/// While it lives, the other side takes nothing up.
pub(super) struct Stalled(#[allow(dead_code, reason = "dropping it is the message")] std::sync::mpsc::Sender<()>);

type Told<F> = oneshot::Sender<Result<AddrOf<F>, Stop>>;
type Met = oneshot::Sender<Result<Connection, Stop>>;

impl<F: Factory> Elsewhere<F> {
    /// Connects to a new peer elsewhere.
    pub(super) async fn new(kit: &Arc<Kit<F>>, terms: &Terms) -> Result<Self, Stop> {
        let ((told, addr), (met, connection)) = (oneshot::channel(), oneshot::channel());
        let (orders, inbox) = mpsc::unbounded_channel();
        let (their_kit, their_terms) = (kit.clone(), terms.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("conformance peer".into()).spawn(move || {
            runtime.block_on(live(their_kit, their_terms, told, met, inbox));
            // Its tasks are dropped where they stand; its sockets are closed by the operating system.
            runtime.shutdown_background();
        })?;
        let dialer = kit.peer(terms)?;
        let a = dialer.transport.dial(&addr.await??).await?;
        Ok(Self { a, b: connection.await??, orders, _dialer: dialer })
    }

    /// The other side takes nothing up until what is returned is dropped.
    pub(super) fn stall(&self) -> Stalled {
        let (go_on, wait) = std::sync::mpsc::channel();
        let _ = self.orders.send(Order::Stall(wait));
        Stalled(go_on)
    }

    /// The other side's process ends.
    pub(super) fn kill(&self) {
        let _ = self.orders.send(Order::Die);
    }
}

async fn live<F: Factory>(kit: Arc<Kit<F>>, terms: Terms, told: Told<F>, met: Met, mut orders: mpsc::UnboundedReceiver<Order>) {
    let (_peer, mut listener) = match listen(&kit, &terms).await {
        Ok((peer, listener, addr)) => {
            let _ = told.send(Ok(addr));
            (peer, listener)
        }
        Err(stop) => return drop(told.send(Err(stop))),
    };
    let accepted = async { Ok(listener.accept().await?.upgrade().await?) };
    let _ = met.send(accepted.await);
    while let Some(Order::Stall(wait)) = orders.recv().await {
        // Blocks the thread, and with it everything of this peer: that's the purpose.
        let _ = wait.recv();
    }
}

type Listening<F> = (Peer<F>, super::kit::ListenerOf<F>, AddrOf<F>);

async fn listen<F: Factory>(kit: &Kit<F>, terms: &Terms) -> Result<Listening<F>, Stop> {
    let peer = kit.peer(terms)?;
    let (listener, addr) = kit.listen(&peer).await?;
    Ok((peer, listener, addr))
}
