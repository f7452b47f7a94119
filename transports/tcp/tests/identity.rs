//! Who may connect, and what both sides are told when somebody mayn't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::BytesMut;
use common::*;
use futures_util::FutureExt;
use peerlane_tcp::TcpConfig;
use peerlane_transport::{
    CloseCode, Closed, ClosedBy, ConnectError, Control, ListenError, Listener, Transport, Upgrade,
    admission::GateConfig,
    identity::{Host, IdentityError, PeerAddr, Refusal},
};
use rustls::AlertDescription;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn identity(result: Ended) -> IdentityError {
    match result {
        Err(ConnectError::Identity(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refused(result: Ended) -> Closed {
    match result {
        Err(ConnectError::Refused(closed)) => closed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let (a, b) = (Node::new(1), Node::new(2));
    for (dialer, other) in [(&a, &b), (&b, &a)] {
        let (dialed, accepted) = meet(dialer, other).await;
        assert_eq!((dialed.remote().peer_id(), accepted.remote().peer_id()), (Some(other.id()), Some(dialer.id())));
        assert!(dialed.dialed() && !accepted.dialed());
        assert_eq!(dialed.transport(), "tcp");
        assert_eq!((dialed.local_addr(), dialed.remote_addr()), (accepted.remote_addr(), accepted.local_addr()));
        assert_eq!(dialed.exporter(), accepted.exporter());
        assert_ne!(dialed.exporter(), [0; 32]);
    }
}

#[tokio::test]
async fn the_path_is_read_back_while_the_connection_lives() {
    let small = TcpConfig::default();
    let mut large = TcpConfig::default();
    large.receive_buffer = Some(64 * 1024);
    let (a, b) = (Node::with(1, "test", |_| {}, large), Node::with(2, "test", |_| {}, small));
    let (dialed, _accepted) = meet(&a, &b).await;
    let path = dialed.stats().path;
    let (send, receive) = path.socket_buffers.unwrap();
    assert!(send > 0 && receive >= 64 * 1024, "{path:?}");
    #[cfg(target_os = "linux")]
    assert!(!path.congestion_control.unwrap().is_empty());
    dialed.close(CloseCode::Done, "");
    bounded(async {
        // The handle lives on, the socket doesn't.
        while dialed.stats().path.socket_buffers.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_wrong_key_is_named_with_the_one_expected() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let (mut listener, addr) = b.listen().await;
    let wrong = PeerAddr { id: c.id(), ..addr };
    let (dialed, accepted) = try_meet(&a, &mut listener, &wrong).await;
    let error = dialed.unwrap_err();
    assert!(!error.may_retry());
    let ConnectError::Identity(IdentityError::WrongKey { expected, found }) = error else { panic!("{error}") };
    assert_eq!((expected, found), (c.id(), b.id()));
    assert!(matches!(identity(accepted), IdentityError::RefusedByRemote(AlertDescription::CertificateUnknown)));
}

#[tokio::test]
async fn a_blocked_dialer_is_told_every_time() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.block(&[a.id()]);
    let (mut listener, addr) = b.listen().await;
    // With TLS 1.3 the dialer has written before it learns; whichever comes first, it must learn why.
    for _ in 0..30 {
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        assert!(matches!(identity(dialed), IdentityError::RefusedByRemote(AlertDescription::AccessDenied)));
        assert!(matches!(identity(accepted), IdentityError::RefusedInHandshake));
    }
}

#[tokio::test]
async fn a_blocked_listener_is_told_every_time() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.block(&[b.id()]);
    let (mut listener, addr) = b.listen().await;
    for _ in 0..30 {
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        assert!(matches!(identity(dialed), IdentityError::RefusedInHandshake));
        assert!(matches!(identity(accepted), IdentityError::RefusedByRemote(AlertDescription::AccessDenied)));
    }
}

#[tokio::test]
async fn an_allow_list_admits_those_on_it() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    b.allow(&[a.id()]);
    let (mut listener, addr) = b.listen().await;
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(dialed.is_ok() && accepted.is_ok());
    let (dialed, accepted) = try_meet(&c, &mut listener, &addr).await;
    assert!(matches!(identity(dialed), IdentityError::RefusedByRemote(AlertDescription::AccessDenied)));
    assert!(matches!(identity(accepted), IdentityError::RefusedInHandshake));
}

/// So that the dialer has taken up its tickets: they come with the first bytes.
async fn connect_and_close(dialer: &Node, listener: &mut peerlane_tcp::TcpListener, addr: &PeerAddr) {
    let (dialed, accepted) = try_meet(dialer, listener, addr).await;
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    dialed.ping().await.unwrap();
    dialed.close(CloseCode::Done, "");
    accepted.closed().await;
}

#[tokio::test]
async fn sessions_are_resumed_and_the_lists_still_asked() {
    let (a, b) = (Node::with(1, "test", |_| {}, one_carrier()), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    for _ in 0..5 {
        connect_and_close(&a, &mut listener, &addr).await;
    }
    let counts = a.transport.handshakes();
    assert_eq!((counts.full, counts.resumed), (1, 4));
    assert_eq!(b.transport.handshakes(), counts);

    // Resumption asks no verifier. Blocked by the listener, then by the dialer.
    b.block(&[a.id()]);
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    let closed = refused(dialed);
    assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::NotAdmitted));
    assert!(closed.reason.contains("block list"), "{closed}");
    assert!(matches!(identity(accepted), IdentityError::Refused { peer, why: Refusal::Blocked } if peer == a.id()));
    assert_eq!(a.transport.handshakes().resumed, 5, "the handshake was resumed, and refused afterwards");

    b.block(&[]);
    connect_and_close(&a, &mut listener, &addr).await;
    a.block(&[b.id()]);
    let before = a.transport.handshakes();
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(matches!(identity(dialed), IdentityError::Refused { peer, why: Refusal::Blocked } if peer == b.id()));
    let closed = refused(accepted);
    assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::NotAdmitted));
    assert_eq!(a.transport.handshakes().resumed, before.resumed + 1);
}

#[tokio::test]
async fn a_session_of_one_peer_is_not_resumed_at_another() {
    // With a second connection, this one might be resumed at its own peer before the counts are read.
    let (a, b, c) = (Node::with(1, "test", |_| {}, one_carrier()), Node::new(2), Node::new(3));
    let (mut listener, addr) = b.listen().await;
    connect_and_close(&a, &mut listener, &addr).await;
    let elsewhere = PeerAddr { id: c.id(), ..addr };
    let (dialed, _) = try_meet(&a, &mut listener, &elsewhere).await;
    assert!(matches!(identity(dialed), IdentityError::WrongKey { found, .. } if found == b.id()));
    assert_eq!(a.transport.handshakes().resumed, 0);
}

#[tokio::test]
async fn another_network_is_closed_with_its_code_on_both_sides() {
    let (a, b) = (Node::with(1, "one", |_| {}, TcpConfig::default()), Node::with(2, "two", |_| {}, TcpConfig::default()));
    let (mut listener, addr) = b.listen().await;
    for _ in 0..20 {
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        for result in [dialed, accepted] {
            let error = result.unwrap_err();
            assert!(!error.may_retry());
            let ConnectError::Refused(closed) = error else { panic!("{error}") };
            assert_eq!(closed.code, CloseCode::WrongNetwork);
            assert!(closed.reason.contains("one") && closed.reason.contains("two"), "{closed}");
        }
    }
}

#[tokio::test]
async fn another_alpn_is_refused_whoever_has_it() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let mut config = a.client();
    config.alpn_protocols = vec![b"peerlane/2".to_vec()];
    let accepting = async { listener.accept().await.unwrap().upgrade().await };
    let (dialed, accepted) = tokio::join!(dial_by_hand(config, b.id(), to), accepting);
    assert!(dialed.is_err());
    assert!(matches!(identity(accepted), IdentityError::Protocol { .. }));

    let mut config = b.server();
    config.alpn_protocols = vec![b"peerlane/2".to_vec()];
    let (to, accepting) = listen_by_hand(config).await;
    let error = bounded(a.transport.dial(&PeerAddr::new(b.id(), to))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Identity(IdentityError::Protocol { .. })), "{error}");
    assert!(accepting.await.unwrap().is_err());
}

#[tokio::test]
async fn no_alpn_passes_tls_and_is_refused_afterwards() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let mut config = a.client();
    config.alpn_protocols.clear();
    let accepting = async { listener.accept().await.unwrap().upgrade().await };
    let dialing = async {
        let mut tls = dial_by_hand(config, b.id(), to).await.unwrap();
        let mut heard = Vec::new();
        tls.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (heard, accepted) = bounded(async { tokio::join!(dialing, accepting) }).await;
    assert!(matches!(identity(accepted), IdentityError::Protocol { .. }));
    closed_with(&heard, CloseCode::WrongVersion);

    let mut config = b.server();
    config.alpn_protocols.clear();
    let (to, accepting) = listen_by_hand(config).await;
    let listening = async {
        let mut tls = accepting.await.unwrap().unwrap();
        let mut heard = Vec::new();
        tls.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let addr = PeerAddr::new(b.id(), to);
    let (dialed, heard) = bounded(async { tokio::join!(a.transport.dial(&addr), listening) }).await;
    assert!(matches!(identity(dialed), IdentityError::Protocol { .. }));
    closed_with(&heard, CloseCode::WrongVersion);
}

fn closed_with(heard: &[u8], expected: CloseCode) {
    let frame = Control::decode(&mut BytesMut::from(heard)).unwrap().unwrap();
    assert!(matches!(frame, Control::Close { code, .. } if code == expected.number()), "{frame:?}");
}

#[tokio::test]
async fn garbage_is_refused_and_the_next_peer_connects() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 100], &[0x16, 0x03, 0x01, 0xff, 0xff, 0x00], &[0xff; 70_000]] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        // The far side may hang up in the middle of so much.
        let writing = async {
            let _ = stream.write_all(garbage).await;
        };
        let accepting = async { listener.accept().await.unwrap().upgrade().await };
        let (result, ()) = bounded(async { tokio::join!(accepting, writing) }).await;
        assert!(matches!(result, Err(ConnectError::Handshake(_) | ConnectError::Io(_))), "{result:?}");
    }
    // Those that hang up before they have said what they want are shown to nobody.
    for begun in [&b""[..], &[0x16], &[0x16, 0x03, 0x01, 0x00, 0xff, 0x01]] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stream.shutdown().await.unwrap();
        bounded(stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
    until(|| b.local.gate.stats().strangers == 0).await;
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(dialed.is_ok() && accepted.is_ok());
    assert_eq!(b.local.gate.stats().strangers, 0);
}

#[tokio::test]
async fn a_dialer_meets_something_else_on_the_port() {
    let (a, b) = (Node::new(1), Node::new(2));
    let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
    let addr = PeerAddr::new(b.id(), listener.local_addr().unwrap());
    let other = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").await.unwrap();
        stream
    };
    let (dialed, _stream) = bounded(async { tokio::join!(a.transport.dial(&addr), other) }).await;
    let error = dialed.unwrap_err();
    assert!(matches!(&error, ConnectError::Handshake(what) if what.contains("doesn't speak TLS")), "{error}");
}

#[tokio::test]
async fn a_silent_connection_ends_at_the_timeout_and_holds_up_nobody() {
    let limit = Duration::from_millis(700);
    let a = Node::with(1, "test", |_| {}, one_carrier());
    let b = Node::with(2, "test", |local| local.terms.limits.handshake_timeout = limit, TcpConfig::default());
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };

    // Silent from the first byte on; and silent after TLS, where the hello should be.
    let _silent = TcpStream::connect(to).await.unwrap();
    until(|| b.local.gate.stats().strangers == 1).await;
    let dialing = tokio::spawn(dial_by_hand(a.client(), b.id(), to));
    let upgrade = tokio::spawn(listener.accept().await.unwrap().upgrade());
    let _tls = dialing.await.unwrap().unwrap();
    assert_eq!(b.local.gate.stats().strangers, 2);

    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(dialed.is_ok() && accepted.is_ok());
    assert!(!upgrade.is_finished(), "the slow one is still at it");

    // The one that said nothing is shown when its time is over.
    let first = tokio::spawn(bounded(listener.accept()).await.unwrap().upgrade());
    for (handshake, step) in [(first, "TLS"), (upgrade, "hello")] {
        let error = bounded(handshake).await.unwrap().unwrap_err();
        assert!(matches!(&error, ConnectError::Timeout { what, limit: l } if what.contains(step) && *l == limit), "{error}");
    }
    assert_eq!(b.local.gate.stats().strangers, 0);
    assert_eq!(b.local.gate.stats().succeeded, 1);
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up() {
    let limit = Duration::from_millis(200);
    let a = Node::with(1, "test", |local| local.terms.limits.handshake_timeout = limit, TcpConfig::default());
    let b = Node::new(2);
    let listener = tokio::net::TcpListener::bind(any()).await.unwrap();
    let addr = PeerAddr::new(b.id(), listener.local_addr().unwrap());
    let error = bounded(a.transport.dial(&addr)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Timeout { .. }) && error.may_retry(), "{error}");
}

#[tokio::test]
async fn dialing_oneself_is_refused_on_both_ends() {
    let a = Node::new(1);
    let (mut listener, addr) = a.listen().await;
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(matches!(identity(dialed), IdentityError::Ourselves));
    assert!(matches!(identity(accepted), IdentityError::Ourselves));
}

#[tokio::test]
async fn nobody_there_and_a_port_taken_are_errors_with_the_address() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (listener, addr) = b.listen().await;
    let taken = b.transport.listen(&listener.local()).await.unwrap_err();
    assert!(matches!(&taken, ListenError::Bind { addr, .. } if *addr == listener.local().to_string()), "{taken}");
    assert!(taken.to_string().contains("another program"));
    drop(listener);
    // The port is free at once.
    let Host::Address(to) = addr.host else { panic!() };
    drop(b.transport.listen(&to).now_or_never().unwrap().unwrap());
    let error = a.transport.dial(&addr).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Unreachable { addr: a, .. } if *a == addr.to_string()), "{error}");
}

#[tokio::test]
async fn a_name_with_several_addresses_finds_the_one_that_answers() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let named = PeerAddr { id: b.id(), host: Host::Name("localhost".into(), to.port()) };
    let (dialed, accepted) = try_meet(&a, &mut listener, &named).await;
    assert!(dialed.is_ok() && accepted.is_ok());
    let nowhere = PeerAddr { id: b.id(), host: Host::Name("no-such-host.invalid".into(), 1) };
    let error = bounded(a.transport.dial(&nowhere)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. } | ConnectError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_closed_gate_denies_counts_and_opens_again() {
    let mut config = GateConfig::default();
    config.strangers = 1;
    let (a, b) = (Node::new(1), Node::with_gate(2, config));
    let (mut listener, addr) = b.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let first = tokio::spawn(dial_by_hand(a.client(), b.id(), to));
    let held = listener.accept().await.unwrap();
    assert!(held.remote_addr().starts_with("127.0.0.1:"));
    {
        let accepting = listener.accept();
        tokio::pin!(accepting);
        let dialing = a.transport.dial(&addr);
        let error = bounded(async {
            tokio::select! {
                accepted = &mut accepting => panic!("{accepted:?}"),
                dialed = dialing => dialed.unwrap_err(),
            }
        })
        .await;
        assert!(error.may_retry(), "{error}");
    }
    assert_eq!((b.local.gate.stats().denied_busy, b.local.gate.stats().admitted), (1, 1));
    // An upgrade that's dropped gives its permit back.
    drop(held);
    assert!(bounded(first).await.unwrap().is_err());
    let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
    assert!(dialed.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_dropped_dial_ends_at_the_listener() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let arrived = {
        let dialing = a.transport.dial(&addr);
        tokio::pin!(dialing);
        bounded(async {
            tokio::select! {
                _ = &mut dialing => panic!("nobody has answered"),
                arrived = listener.accept() => arrived.unwrap(),
            }
        })
        .await
    };
    let error = bounded(arrived.upgrade()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_) | ConnectError::Io(_)), "{error}");
    assert_eq!(b.local.gate.stats().strangers, 0);
}
