//! One connection over several TCP connections: who may join, and what happens where nobody can.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use common::*;
use futures_util::FutureExt;
use peerlane_tcp::{Carriers, TcpConfig, TcpListener};
use peerlane_transport::{
    ClassTable, CloseCode, ClosedBy, Connection, Control, Listener, Transport, Upgrade,
    admission::{JoinToken, join},
    hello,
    identity::{Host, PeerAddr, PeerId, server_name},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

fn carriers(connection: &Connection) -> u8 {
    connection.stats().path.carriers.unwrap()
}

async fn joined(connections: &[&Connection], count: u8) {
    until(|| connections.iter().all(|connection| carriers(connection) == count)).await;
}

/// A message of each class there and back.
async fn passes(a: &Connection, b: &Connection) {
    bounded(async {
        for (class, info) in ClassTable::standard().iter() {
            for len in [100, info.max_message] {
                a.send(class, pattern(len, 1)).await.unwrap();
                assert_eq!(whole(b, class).await, pattern(len, 1));
                b.send(class, pattern(len, 2)).await.unwrap();
                assert_eq!(whole(a, class).await, pattern(len, 2));
            }
        }
    })
    .await;
}

fn groups(groups: &[&[&str]]) -> TcpConfig {
    let mut config = TcpConfig::default();
    config.carriers = Carriers::Groups(groups.iter().map(|group| group.iter().map(|name| (*name).to_owned()).collect()).collect());
    config
}

fn node(seed: u8, config: TcpConfig) -> Node {
    Node::with(seed, "test", |_| {}, config)
}

#[tokio::test]
async fn by_default_a_second_tcp_connection_joins_and_nobody_is_asked_to_accept_it() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    joined(&[&dialed, &accepted], 2).await;
    passes(&dialed, &accepted).await;
    // The second one was resumed, and cost what any arrival costs, until it stood.
    let handshakes = a.transport.handshakes();
    assert_eq!((handshakes.full, handshakes.resumed), (1, 1));
    until(|| b.local.gate.stats().succeeded == 2).await;
    let gate = b.local.gate.stats();
    assert_eq!((gate.admitted, gate.strangers + gate.known), (2, 0));
    assert!(listener.accept().now_or_never().is_none(), "a join is accepted as a connection");
    // The listener isn't needed any more, and both ends end.
    drop(listener);
    passes(&dialed, &accepted).await;
    dialed.close(CloseCode::Shutdown, "bye");
    let closed = bounded(accepted.closed()).await;
    assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Shutdown, "bye"));
    bounded(a.transport.idle()).await;
    bounded(b.transport.idle()).await;
}

#[tokio::test]
async fn there_are_as_many_as_both_want() {
    let three = || groups(&[&["data"], &["belief"]]);
    let cases = [
        (three(), three(), 3),
        (three(), TcpConfig::default(), 2),
        (TcpConfig::default(), three(), 2),
        (one_carrier(), TcpConfig::default(), 1),
        (TcpConfig::default(), one_carrier(), 1),
    ];
    for (here, there, count) in cases {
        let (a, b) = (node(1, here), node(2, there));
        let (mut listener, addr) = b.listen().await;
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        joined(&[&dialed, &accepted], count).await;
        passes(&dialed, &accepted).await;
        assert_eq!((carriers(&dialed), carriers(&accepted)), (count, count));
        let handshakes = a.transport.handshakes();
        assert_eq!(handshakes.full + handshakes.resumed, u64::from(count));
    }
}

/// A dialer by hand that stands, and what it has of its connection.
struct ByHand {
    tls: TlsStream<TcpStream>,
    token: JoinToken,
}

async fn stands(node: &Node, to: &Node, addr: SocketAddr, listener: &mut TcpListener) -> (ByHand, Connection) {
    let accepting = async { listener.accept().await.unwrap().upgrade().await.unwrap() };
    let dialing = async {
        let mut tls = dial_by_hand(node.client(), to.id(), addr).await.unwrap();
        let mut extensions = hello::Extensions::default();
        extensions.carriers = 2;
        hello::exchange_with(&mut tls, &node.local.terms, extensions, Ok(())).await.unwrap();
        let token = tls.get_ref().1.export_keying_material([0; JoinToken::LEN], JoinToken::EXPORTER_LABEL, None).unwrap();
        ByHand { tls, token: token.into() }
    };
    bounded(async { tokio::join!(dialing, accepting) }).await
}

async fn dial_join(node: &Node, to: PeerId, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = node.client();
    config.alpn_protocols = vec![join::ALPN.to_vec()];
    TlsConnector::from(Arc::new(config)).connect(server_name(&to).unwrap(), TcpStream::connect(addr).await?).await
}

/// What the listener says to this frame on a TCP connection that is to join.
async fn answer(node: &Node, to: &Node, addr: SocketAddr, first: &Control) -> (Control, TlsStream<TcpStream>) {
    bounded(async {
        let mut tls = dial_join(node, to.id(), addr).await.unwrap();
        let mut out = BytesMut::new();
        first.encode(&mut out);
        tls.write_all(&out).await.unwrap();
        let mut input = BytesMut::new();
        loop {
            if let Some(frame) = Control::decode(&mut input).unwrap() {
                return (frame, tls);
            }
            assert!(tls.read_buf(&mut input).await.unwrap() > 0, "no answer");
        }
    })
    .await
}

fn is_refused(answer: &Control, code: CloseCode) {
    assert!(matches!(answer, Control::Close { code: told, .. } if *told == code.number()), "{answer:?}");
}

#[tokio::test]
async fn a_join_is_its_own_connections_and_its_dialers_alone() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let (first, connection) = stands(&a, &b, to, &mut listener).await;
    let (other, _other) = stands(&a, &b, to, &mut listener).await;
    assert!(first.token != other.token, "each connection has a token of its own");
    let join = |carrier, token| Control::Join { carrier, token };

    // Guessed; for a carrier that there isn't; and the right one, from somebody else who has got hold of it.
    let mut guessed = *first.token.as_bytes();
    guessed[47] ^= 1;
    is_refused(&answer(&a, &b, to, &join(1, guessed.into())).await.0, CloseCode::NoSuchJoin);
    for carrier in [0, 200] {
        is_refused(&answer(&a, &b, to, &join(carrier, first.token)).await.0, CloseCode::NoSuchJoin);
    }
    is_refused(&answer(&c, &b, to, &join(1, first.token)).await.0, CloseCode::NoSuchJoin);
    // The listener has the token too, and can join nothing with it: not at its dialer, not elsewhere.
    let (_a_listens, a_addr) = a.listen().await;
    let Host::Address(a_to) = a_addr.host else { panic!() };
    is_refused(&answer(&b, &a, a_to, &join(1, first.token)).await.0, CloseCode::NoSuchJoin);
    // Something else than JOIN.
    is_refused(&answer(&a, &b, to, &Control::Accept).await.0, CloseCode::Protocol);
    is_refused(&answer(&a, &b, to, &Control::Hello(hello::encode(&a.local.terms))).await.0, CloseCode::Protocol);
    assert_eq!(carriers(&connection), 1);

    // Its dialer may, once.
    let (accepted, joined) = answer(&a, &b, to, &join(1, first.token)).await;
    assert_eq!(accepted, Control::Accept);
    is_refused(&answer(&a, &b, to, &join(1, first.token)).await.0, CloseCode::NoSuchJoin);
    // When it's given up, again; and when the connection is over, never.
    drop(joined);
    bounded(async {
        loop {
            match answer(&a, &b, to, &join(1, first.token)).await {
                (Control::Accept, _) => return,
                (refused, _) => is_refused(&refused, CloseCode::NoSuchJoin),
            }
        }
    })
    .await;
    drop(first.tls);
    bounded(connection.closed()).await;
    bounded(b.transport.idle()).await;
    is_refused(&answer(&a, &b, to, &join(1, first.token)).await.0, CloseCode::NoSuchJoin);

    // Whoever is blocked by now joins nothing.
    b.block(&[a.id()]);
    let mut tls = match bounded(dial_join(&a, b.id(), to)).await {
        Ok(tls) => tls,
        Err(_) => return,
    };
    let mut out = BytesMut::new();
    join(1, other.token).encode(&mut out);
    let _ = tls.write_all(&out).await;
    assert!(!matches!(bounded(tls.read_u8()).await, Ok(2)), "accepted");
    until(|| b.local.gate.stats().strangers + b.local.gate.stats().known == 0).await;
}

/// The dialer's acceptance may be lost on its way and its JOIN not: it's told to wait by nobody.
#[tokio::test]
async fn a_join_may_be_there_before_the_acceptance() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let upgrade = tokio::spawn(async move { listener.accept().await.unwrap().upgrade().await.unwrap() });
    let mut tls = bounded(dial_by_hand(a.client(), b.id(), to)).await.unwrap();
    let token = tls.get_ref().1.export_keying_material([0; JoinToken::LEN], JoinToken::EXPORTER_LABEL, None).unwrap();
    let mut extensions = hello::Extensions::default();
    extensions.carriers = 2;
    let mut out = BytesMut::new();
    Control::Hello(hello::encode_with(&a.local.terms, extensions)).encode(&mut out);
    tls.write_all(&out).await.unwrap();
    let mut heard = BytesMut::new();
    while !matches!(Control::decode(&mut heard), Ok(Some(Control::Accept))) {
        bounded(tls.read_buf(&mut heard)).await.unwrap();
    }
    let mut joining = bounded(dial_join(&a, b.id(), to)).await.unwrap();
    let mut out = BytesMut::new();
    Control::Join { carrier: 1, token: token.into() }.encode(&mut out);
    joining.write_all(&out).await.unwrap();
    until(|| b.local.gate.stats().succeeded == 1).await;
    assert!(!upgrade.is_finished());
    let mut out = BytesMut::new();
    Control::Accept.encode(&mut out);
    tls.write_all(&out).await.unwrap();
    let connection = bounded(upgrade).await.unwrap();
    assert_eq!(bounded(joining.read_u16()).await.unwrap(), 0x0200, "ACCEPT");
    drop(connection);
}

#[tokio::test]
async fn a_join_that_says_nothing_costs_no_more_than_its_permit_and_its_time() {
    let limit = Duration::from_millis(300);
    let (a, b) = (Node::new(1), Node::with(2, "test", |local| local.terms.limits.handshake_timeout = limit, TcpConfig::default()));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let mut silent = bounded(dial_join(&a, b.id(), to)).await.unwrap();
    until(|| b.local.gate.stats().strangers == 1).await;
    assert!(bounded(silent.read_u8()).await.is_err());
    until(|| b.local.gate.stats().strangers == 0).await;
    assert_eq!(b.local.gate.stats().succeeded, 0);
    assert!(listener.accept().now_or_never().is_none());

    // Where only one TCP connection is wanted, a join is no word of the protocol.
    let c = node(3, one_carrier());
    let (mut listener, addr) = c.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let accepting = async { listener.accept().await.unwrap().upgrade().await };
    let (dialed, accepted) = bounded(async { tokio::join!(dial_join(&a, c.id(), to), accepting) }).await;
    assert!(dialed.is_err() && accepted.is_err());
}

/// Passes TCP connections on to a listener: some of them.
struct Proxy {
    addr: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    kill: tokio::sync::mpsc::UnboundedSender<usize>,
}

#[derive(Clone, Copy)]
enum Beyond {
    Refused,
    Silent,
}

impl Proxy {
    async fn new(to: SocketAddr, through: fn(usize) -> bool, beyond: Beyond) -> Self {
        let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<AtomicUsize>::default();
        let (kill, mut killed) = tokio::sync::mpsc::unbounded_channel();
        let count = seen.clone();
        let task = tokio::spawn(async move {
            let (mut held, mut tasks, mut handles) = (Vec::new(), JoinSet::new(), Vec::new());
            loop {
                tokio::select! {
                    arrived = listener.accept() => {
                        let mut stream = arrived.unwrap().0;
                        match (through(count.fetch_add(1, Ordering::SeqCst)), beyond) {
                            (true, _) => handles.push(tasks.spawn(async move {
                                let mut other = TcpStream::connect(to).await.unwrap();
                                let _ = copy_bidirectional(&mut stream, &mut other).await;
                            })),
                            (false, Beyond::Refused) => drop(stream),
                            (false, Beyond::Silent) => held.push(stream),
                        }
                    }
                    Some(which) = killed.recv() => { let handle: &tokio::task::AbortHandle = &handles[which]; handle.abort() }
                }
            }
        });
        Self { addr, seen, task, kill }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn meet_through(a: &Node, b: &Node, through: fn(usize) -> bool, beyond: Beyond) -> (Connection, Connection, Proxy, TcpListener) {
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let proxy = Proxy::new(to, through, beyond).await;
    let (dialed, accepted) = try_meet(a, &mut listener, &PeerAddr::new(b.id(), proxy.addr)).await;
    (dialed.unwrap(), accepted.unwrap(), proxy, listener)
}

#[tokio::test]
async fn where_only_one_comes_through_all_classes_go_on_it_and_none_waits() {
    for beyond in [Beyond::Refused, Beyond::Silent] {
        let (a, b) = (Node::new(1), Node::new(2));
        let (dialed, accepted, proxy, _listener) = meet_through(&a, &b, |nth| nth < 1, beyond).await;
        // No waiting for what never comes: what is queued at once is there, long before anybody gives up.
        for (class, _) in ClassTable::standard().iter() {
            dialed.send(class, Bytes::from_static(b"at once")).await.unwrap();
            assert_eq!(bounded(whole(&accepted, class)).await, b"at once"[..]);
        }
        until(|| proxy.seen.load(Ordering::SeqCst) >= 2).await;
        passes(&dialed, &accepted).await;
        assert_eq!((carriers(&dialed), carriers(&accepted)), (1, 1));
        let (drained, other) = bounded(async {
            tokio::join!(dialed.drain(), async {
                accepted.remote_draining().await;
                accepted.drain().await
            })
        })
        .await;
        drained.unwrap();
        other.unwrap();
        bounded(a.transport.idle()).await;
    }
}

#[tokio::test]
async fn what_failed_once_is_tried_again() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (dialed, accepted, _proxy, _listener) = meet_through(&a, &b, |nth| nth != 1, Beyond::Refused).await;
    let flooding = dialed.clone();
    let flood = tokio::spawn(async move { while flooding.send(BELIEF, pattern(60_000, 1)).await.is_ok() {} });
    // What moves in the middle of its traffic arrives whole.
    let (mut rounds, start) = (0, std::time::Instant::now());
    while carriers(&dialed) == 1 || rounds < 100 {
        assert!(start.elapsed() < Duration::from_secs(60), "no second try");
        for class in [QUERY, TRANSACT] {
            dialed.send(class, pattern(5000, rounds)).await.unwrap();
            assert_eq!(bounded(whole(&accepted, class)).await, pattern(5000, rounds));
        }
        assert_eq!(bounded(whole(&accepted, BELIEF)).await, pattern(60_000, 1));
        rounds += 1;
    }
    joined(&[&dialed, &accepted], 2).await;
    dialed.close(CloseCode::Done, "");
    bounded(flood).await.unwrap();
}

#[tokio::test]
async fn a_tcp_connection_that_dies_takes_the_connection_with_it_and_leaves_nothing() {
    for (which, flooding) in [(0, false), (1, false), (0, true), (1, true)] {
        let (a, b) = (Node::new(1), Node::new(2));
        let (dialed, accepted, proxy, _listener) = meet_through(&a, &b, |_| true, Beyond::Refused).await;
        joined(&[&dialed, &accepted], 2).await;
        let flood = flooding.then(|| {
            let dialed = dialed.clone();
            tokio::spawn(async move { while dialed.send(BELIEF, pattern(60_000, 1)).await.is_ok() {} })
        });
        passes_query(&dialed, &accepted).await;
        proxy.kill.send(which).unwrap();
        for connection in [&dialed, &accepted] {
            let closed = bounded(connection.closed()).await;
            assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::Lost), "{closed}");
        }
        if let Some(flood) = flood {
            bounded(flood).await.unwrap();
        }
        bounded(a.transport.idle()).await;
        bounded(b.transport.idle()).await;
        assert!(dialed.stats().path.socket_buffers.is_none(), "the socket is closed");
    }
}

/// Copies at once, though the path is short.
fn with_copies() -> TcpConfig {
    let mut config = TcpConfig::default();
    (config.copies, config.copies_above) = (Some(Duration::ZERO), Duration::ZERO);
    config
}

#[tokio::test]
async fn copies_have_a_tcp_connection_of_their_own_where_both_want_them() {
    let without = || {
        let mut config = with_copies();
        config.copies = None;
        config
    };
    let one = || {
        let mut config = with_copies();
        config.carriers = Carriers::One;
        config
    };
    let cases = [
        (with_copies(), with_copies(), 3),
        // The side that dialed decides where the path is long enough, and a path on loopback isn't.
        (with_copies(), TcpConfig::default(), 3),
        (TcpConfig::default(), with_copies(), 2),
        (with_copies(), without(), 2),
        (without(), with_copies(), 2),
        (with_copies(), one(), 1),
        (one(), with_copies(), 1),
    ];
    for (here, there, count) in cases {
        let (a, b) = (node(1, here), node(2, there));
        let (mut listener, addr) = b.listen().await;
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        joined(&[&dialed, &accepted], count).await;
        passes(&dialed, &accepted).await;
        passes_query(&dialed, &accepted).await;
        assert_eq!((carriers(&dialed), carriers(&accepted)), (count, count));
        let copied = || dialed.stats().copies_sent > 0;
        match count {
            3 => until(copied).await,
            _ => assert!(!copied()),
        }
        // It's resumed, and it costs in the gate what any arrival costs, until it stands.
        let handshakes = a.transport.handshakes();
        assert_eq!((handshakes.full, handshakes.full + handshakes.resumed), (1, u64::from(count)));
        until(|| b.local.gate.stats().succeeded == u64::from(count)).await;
        let gate = b.local.gate.stats();
        assert_eq!((gate.admitted, gate.strangers + gate.known), (u64::from(count), 0));
        assert!(listener.accept().now_or_never().is_none(), "copies are accepted as a connection");
    }
}

#[tokio::test]
async fn the_tcp_connection_for_copies_may_die_and_comes_again() {
    // It's dialed at once too: which of the two is which, is seen by what dies with it.
    let (a, b) = (node(1, with_copies()), node(2, with_copies()));
    let mut survived = false;
    for which in [1, 2].into_iter().cycle().take(40) {
        if survived {
            break;
        }
        let (dialed, accepted, proxy, _listener) = meet_through(&a, &b, |_| true, Beyond::Refused).await;
        joined(&[&dialed, &accepted], 3).await;
        passes_query(&dialed, &accepted).await;
        proxy.kill.send(which).unwrap();
        bounded(async {
            while proxy.seen.load(Ordering::SeqCst) < 4 && dialed.send(QUERY, pattern(100, 1)).await.is_ok() {
                if accepted.recv(QUERY).await.is_err() {
                    break;
                }
            }
        })
        .await;
        if proxy.seen.load(Ordering::SeqCst) < 4 {
            assert_eq!(bounded(dialed.closed()).await.code, CloseCode::Lost);
            continue;
        }
        joined(&[&dialed, &accepted], 3).await;
        passes(&dialed, &accepted).await;
        survived = true;
    }
    assert!(survived, "the end of the copies was the connection's");
}

async fn passes_query(a: &Connection, b: &Connection) {
    for n in 0..20 {
        a.send(QUERY, pattern(100, n)).await.unwrap();
        assert_eq!(whole(b, QUERY).await, pattern(100, n));
    }
}
