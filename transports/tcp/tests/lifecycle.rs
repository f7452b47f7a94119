//! How connections end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use peerlane_tcp::TcpConfig;
use peerlane_transport::{CloseCode, ClosedBy, Inbound, Listener, SendError, Transport, Upgrade, identity::Host};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_peer_blocked_while_connected_is_closed_on_both_sides() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let (dialed, accepted) = meet(&a, &b).await;
    let (other, _other) = meet(&c, &b).await;
    b.block(&[a.id()]);
    let (here, there) = bounded(async { tokio::join!(accepted.closed(), dialed.closed()) }).await;
    assert_eq!((here.by, here.code), (ClosedBy::Local, CloseCode::NotAdmitted));
    assert_eq!((there.by, there.code), (ClosedBy::Remote, CloseCode::NotAdmitted), "{there}");
    bounded(other.ping()).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_vanishes_is_lost() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    // With a FIN; with a reset; and in the middle of a message.
    for n in 0..3 {
        let accepting = async { listener.accept().await.unwrap().upgrade().await.unwrap() };
        let (mut tls, accepted) = tokio::join!(by_hand(&a, &addr, to, None), accepting);
        match n {
            0 => {}
            1 => socket2::SockRef::from(tls.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap(),
            _ => {
                // QUERY's lane: a record of 100 bytes, of which 10 come.
                tls.write_all(&[&[0x10, 12, 0x43, 0x20][..], &[7; 10]].concat()).await.unwrap();
                tls.flush().await.unwrap();
            }
        }
        drop(tls);
        let closed = bounded(accepted.closed()).await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::Lost), "{closed}");
        assert!(accepted.recv(QUERY).await.is_err(), "no part of a message is delivered");
    }
}

#[tokio::test]
async fn a_dropped_connection_is_closed_with_nothing_wrong() {
    let (dialed, accepted) = meet(&Node::new(1), &Node::new(2)).await;
    let clone = dialed.clone();
    drop(dialed);
    bounded(clone.ping()).await.unwrap();
    drop(clone);
    let closed = bounded(accepted.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::Done), "{closed}");
}

#[tokio::test]
async fn a_graceful_close_delivers_all_that_was_queued() {
    for dialer_drains in [true, false] {
        let (dialed, accepted) = meet(&Node::new(1), &Node::new(2)).await;
        let (a, b) = if dialer_drains { (dialed, accepted) } else { (accepted, dialed) };
        let mut sent = Vec::new();
        for n in 0..40u64 {
            let message = pattern(n as usize * 1_000 + 30_000, n);
            sent.push(message.len());
            a.send([DATA, BELIEF][n as usize % 2], message).await.unwrap();
        }
        let other = async {
            b.remote_draining().await;
            b.drain().await
        };
        let count = |class| {
            let b = &b;
            async move {
                let mut lens = Vec::new();
                while let Ok(Inbound::Whole(message)) = b.recv(class).await {
                    lens.push(message.len());
                }
                lens
            }
        };
        let (drained, other, data, belief) = bounded(async { tokio::join!(a.drain(), other, count(DATA), count(BELIEF)) }).await;
        drained.unwrap();
        other.unwrap();
        let mut got = [data, belief].concat();
        got.sort_unstable();
        assert_eq!(got, sent);
        assert!(matches!(a.send(DATA, pattern(1, 1)).await, Err(SendError::Closed(_))));
    }
}

/// What is sent before a close is unread at the side that closes: its socket answers with a reset, which must not
/// overtake the CLOSE.
#[tokio::test]
async fn the_reason_arrives_though_the_other_side_is_flooding() {
    let (a, b) = (Node::new(1), Node::new(2));
    for _ in 0..20 {
        let (dialed, accepted) = meet(&a, &b).await;
        let flooding = dialed.clone();
        let flood = tokio::spawn(async move { while flooding.send(BELIEF, pattern(60_000, 1)).await.is_ok() {} });
        for _ in 0..10 {
            whole(&accepted, BELIEF).await;
        }
        accepted.close(CloseCode::Application, "enough");
        let closed = bounded(dialed.closed()).await;
        assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Application, "enough"));
        bounded(flood).await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_path_is_noticed_at_the_idle_timeout() {
    let idle = Duration::from_secs(1);
    let limits = |local: &mut peerlane_transport::admission::LocalPeer| {
        local.terms.limits.idle_timeout = idle;
        local.terms.limits.ping_interval = Duration::from_millis(100);
    };
    let a = Node::with(1, "test", limits, TcpConfig::default());
    let b = Node::with(2, "test", limits, TcpConfig::default());
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let accepting = async { listener.accept().await.unwrap().upgrade().await.unwrap() };
    // Holds the connection open and neither reads nor writes.
    let (_tls, accepted) = tokio::join!(by_hand(&a, &addr, to, None), accepting);
    let closed = bounded(accepted.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::TimedOut), "{closed}");
}

/// A process that ends when its transport is idle has told its peers.
#[test]
fn what_was_said_last_has_left_when_the_transport_is_idle() {
    let (runtime, other) = (tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let (a, b) = (Node::new(1), Node::new(2));
    for _ in 0..20 {
        let (mut listener, addr) = other.block_on(b.listen());
        let accepting = other.spawn(async move { listener.accept().await.unwrap().upgrade().await.unwrap() });
        let dialed = runtime.block_on(a.transport.dial(&addr)).unwrap();
        let accepted = other.block_on(accepting).unwrap();
        dialed.close(CloseCode::Shutdown, "bye");
        runtime.block_on(bounded(a.transport.idle()));
        let closed = other.block_on(bounded(accepted.closed()));
        assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Shutdown, "bye"));
        assert!(dialed.stats().path.socket_buffers.is_none(), "the socket is closed");
    }
    // A living one isn't waited for.
    let living = other.block_on(async { meet(&a, &b).await });
    other.block_on(bounded(a.transport.idle()));
    drop(living);
}
