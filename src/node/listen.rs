//! Accepting: handshakes run beside each other, bounded, and a listener that ends is begun anew.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use peerlane_transport::{AnyListener, ListenError};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    backoff::Backoff,
    connect::attach,
    error::{Listening, StartError},
    events::Event,
    runtime::{Inner, NodeTransport},
};
use crate::protocol::Protocol;

/// A port that is free for one transport may be taken for the next: so often another one is tried.
const SAME_PORT_ATTEMPTS: usize = 8;

/// A listener with its transport.
pub(super) type Bound = (NodeTransport, AnyListener<SocketAddr>);

/// Listens with all transports at one address. With port 0, all get the same free port.
pub(super) async fn bind(transports: &[NodeTransport], addr: SocketAddr) -> Result<Vec<Bound>, StartError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind_once(transports, addr).await {
            Err(StartError::Listen { source: ListenError::Bind { source, .. }, .. })
                if addr.port() == 0 && source.kind() == std::io::ErrorKind::AddrInUse && attempt < SAME_PORT_ATTEMPTS => {}
            bound => return bound,
        }
    }
}

async fn bind_once(transports: &[NodeTransport], mut addr: SocketAddr) -> Result<Vec<Bound>, StartError> {
    let mut bound = Vec::with_capacity(transports.len());
    for transport in transports {
        let listener = transport.listen(&addr).await.map_err(|source| StartError::Listen { transport: transport.name(), source })?;
        addr.set_port(listener.local().port());
        bound.push((transport.clone(), listener));
    }
    Ok(bound)
}

/// What a listener is called.
pub(super) fn describe(bound: &Bound) -> Listening {
    Listening { transport: bound.0.name(), addr: bound.1.local() }
}

/// Accepts until the node stops.
pub(super) async fn listen<P: Protocol>(node: Arc<Inner<P>>, bound: Bound) {
    let (transport, listener) = bound;
    let local = listener.local();
    let mut listener = Some(listener);
    let permits = Arc::new(Semaphore::new(node.config.upgrades.max(1)));
    let mut backoff = Backoff::new(node.seed, Duration::from_millis(100), Duration::from_secs(30));
    loop {
        let Some(current) = &mut listener else {
            tokio::select! {
                biased;
                () = node.stopping.cancelled() => return,
                () = sleep(backoff.delay()) => listener = transport.listen(&local).await.ok(),
            }
            continue;
        };
        // The bound: a handshake holds its permit, and the next arrival waits for one in the listener's own queue.
        let permit = tokio::select! {
            biased;
            () = node.stopping.cancelled() => return,
            permit = permits.clone().acquire_owned() => permit,
        };
        let arrival = tokio::select! {
            biased;
            () = node.stopping.cancelled() => return,
            arrival = current.accept() => arrival,
        };
        match arrival {
            Ok(upgrade) => {
                backoff.reset();
                let (node, transport) = (node.clone(), transport.name());
                node.tasks.clone().spawn(async move {
                    let _permit = permit;
                    let remote_addr: Arc<str> = upgrade.remote_addr().into();
                    let upgraded = tokio::select! {
                        biased;
                        () = node.stopping.cancelled() => return,
                        upgraded = upgrade.upgrade() => upgraded,
                    };
                    match upgraded {
                        Ok(connection) => {
                            if attach(&node, connection, false).is_ok() {
                                node.counters.accepted.add(1);
                            }
                        }
                        Err(error) => {
                            node.counters.accepts_failed.add(1);
                            tracing::debug!(%remote_addr, transport, %error, "arrival refused");
                            node.emit(Event::AcceptFailed { transport, remote_addr, error: Arc::new(error) });
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%local, transport = transport.name(), %error, "listener failed");
                node.emit(Event::ListenerFailed { transport: transport.name(), local, why: error.to_string().into() });
                listener = None;
            }
        }
    }
}
