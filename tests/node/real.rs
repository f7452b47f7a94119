//! The same over QUIC and TCP on loopback, on several threads: what virtual time can't show.

use std::time::Duration;

use peerlane::node::{Node, NodeBuilder, Silent};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::AnyTransport;
use tokio_util::sync::CancellationToken;

use crate::{kit::*, moves::busily};

fn builder(seed: u8, names: &[&str]) -> NodeBuilder<Simple, Silent> {
    let here = local(seed);
    let mut builder = Node::builder(Simple::default(), here.clone()).listen("127.0.0.1:0".parse().unwrap());
    for name in names {
        builder = builder.transport(match *name {
            "quic" => AnyTransport::new(QuicTransport::new(here.clone(), QuicConfig::default()).unwrap()),
            _ => AnyTransport::new(TcpTransport::new(here.clone(), TcpConfig::default()).unwrap()),
        });
    }
    builder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dial_each_other_lose_nothing() {
    for (ours, theirs) in [(["quic", "tcp"], ["quic", "tcp"]), (["quic", "tcp"], ["tcp", "quic"]), (["tcp", "quic"], ["tcp", "quic"])] {
        let (one, two) = (Echo::default(), Echo::default());
        let a = builder(1, &ours).handler(one.clone()).start().await.unwrap();
        let b = builder(2, &theirs).handler(two.clone()).start().await.unwrap();
        let (to_b, to_a) = (addr(&b), addr(&a));
        let (left, right) = tokio::join!(a.connect(&to_b), b.connect(&to_a));
        left.unwrap();
        right.unwrap();
        busily((&a, &one), (&b, &two), async {}).await;
        until("one connection is left", || [&a, &b].iter().all(|n| n.peers().len() == 1 && n.peers()[0].connections == 1)).await;
        assert_eq!(a.peers()[0].transport, b.peers()[0].transport);
        tokio::join!(a.shutdown(), b.shutdown());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_on_tcp_moves_up_to_quic_and_nothing_is_lost() {
    let (one, two) = (Echo::default(), Echo::default());
    let soon = config(|c| c.upgrade_after = Duration::from_millis(300));
    let a = builder(1, &["quic", "tcp"]).config(soon).handler(one.clone()).start().await.unwrap();
    let b = builder(2, &["quic", "tcp"]).handler(two.clone()).start().await.unwrap();
    // Connected by TCP, as if QUIC had been blocked.
    let tcp = AnyTransport::new(TcpTransport::new(local(1), TcpConfig::default()).unwrap());
    a.adopt(tcp.dial(&addr(&b)).await.unwrap()).unwrap();
    assert_eq!(a.peers()[0].transport, "tcp");
    until("both know", || b.peers().len() == 1).await;
    assert!(a.keep(&addr(&b)));
    busily((&a, &one), (&b, &two), async {
        until("it has moved", || a.peers()[0].transport == "quic" && a.peers()[0].connections == 1).await;
    })
    .await;
    assert_eq!((b.peers()[0].transport, b.peers()[0].connections), ("quic", 1));
    tokio::join!(a.shutdown(), b.shutdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_ends_and_each_request_is_answered_once_or_fails_once() {
    for name in ["quic", "tcp"] {
        let a = builder(1, &[name]).start().await.unwrap();
        let b = builder(2, &[name]).handler(Echo::default()).start().await.unwrap();
        a.connect(&addr(&b)).await.unwrap();
        let stop = CancellationToken::new();
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let (a, to, stop) = (a.handle(), b.peer_id(), stop.clone());
                tokio::spawn(async move {
                    let (mut answered, mut failed) = (0, 0);
                    while failed < 3 && !stop.is_cancelled() {
                        match a.request(to, Message::ask(QUERY, "x"), Duration::from_secs(60)).await {
                            Ok(_) => answered += 1,
                            Err(_) => failed += 1,
                        }
                    }
                    answered
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::time::timeout(Duration::from_secs(20), b.shutdown()).await.expect("the shutdown ends");
        for asked in asking {
            let answered = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("nobody is left waiting").unwrap();
            assert!(answered > 0);
        }
        a.shutdown().await;
    }
}
