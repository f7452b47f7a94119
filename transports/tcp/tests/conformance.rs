//! TCP passes the conformance suite. `PEERLANE_CONFORMANCE=group::check` runs those whose name contains that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, time::Duration};

use peerlane_tcp::{Carriers, TcpConfig, TcpTransport};
use peerlane_transport::{
    ConnectError,
    admission::LocalPeer,
    conformance::{self, Capabilities, Factory},
    identity::{PeerAddr, PeerId},
};

struct Tcp(TcpConfig);

impl Factory for Tcp {
    type Transport = TcpTransport;

    fn transport(&self, peer: &LocalPeer) -> Result<TcpTransport, ConnectError> {
        TcpTransport::new(peer.clone(), self.0.clone())
    }

    fn apart(&self) -> bool {
        self.0.carriers != Carriers::One
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn addr(&self, local: &SocketAddr, peer: PeerId) -> PeerAddr {
        PeerAddr::new(peer, *local)
    }
}

async fn passes(change: impl FnOnce(&mut TcpConfig)) {
    let mut config = TcpConfig::default();
    change(&mut config);
    // Not isolated from loss, and no datagrams: TCP has one order.
    let claims = Capabilities { identity: true, kernel_queue: true, ..Capabilities::default() };
    let filter = std::env::var("PEERLANE_CONFORMANCE").unwrap_or_default();
    let report = conformance::run_only(Tcp(config), claims, &filter).await;
    println!("{report}");
    report.assert_passed();
}

/// As it is by default: two TCP connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes() {
    passes(|_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes_on_one_connection() {
    passes(|config| config.carriers = Carriers::One).await;
}

/// As over a long way: each small urgent message is copied at once, on a third TCP connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes_with_copies() {
    passes(|config| (config.copies, config.copies_above) = (Some(Duration::ZERO), Duration::ZERO)).await;
}
