//! QUIC over loopback: what is QUIC's own. What all transports promise is in `conformance.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_transport::{
    ClassId, ClassTable, CloseCode, ClosedBy, ConnectError, Connection, Delivery, Inbound, Listener, Order, TrafficClass, Transport,
    TrySend, Upgrade, Urgency,
    admission::{Gate, GateConfig, ListSets, Lists, LocalPeer, Terms},
    identity::{Identity, IdentityError, PeerAddr, PeerId},
};

const QUERY: ClassId = ClassId(1);
const DATA: ClassId = ClassId(3);
const BELIEF: ClassId = ClassId(4);

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32]).unwrap()
}

fn transport(seed: u8) -> QuicTransport {
    let identity = identity(seed);
    QuicTransport::new(LocalPeer::open(&identity, "test").unwrap(), QuicConfig::default()).unwrap()
}

async fn meet(dialer: &QuicTransport, listener: &QuicTransport, id: PeerId) -> (Connection, Connection) {
    let mut listening = listener.listen(&any()).await.unwrap();
    let addr = PeerAddr::new(id, listening.local());
    let (a, b) = tokio::join!(dialer.dial(&addr), async { listening.accept().await.unwrap().upgrade().await });
    (a.unwrap(), b.unwrap())
}

async fn pair() -> (Connection, Connection) {
    meet(&transport(1), &transport(2), identity(2).peer_id()).await
}

async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match connection.recv(class).await.unwrap() {
        Inbound::Whole(bytes) => bytes,
        Inbound::Streamed(_) => panic!("streamed"),
    }
}

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

/// On a quiet connection nothing but the copies' own timer wakes whoever sends them.
#[tokio::test]
async fn a_single_message_has_its_copies_though_nothing_follows_it() {
    let with_copies = |seed| {
        let mut config = QuicConfig::default();
        config.message_streams = Some(Duration::ZERO);
        // Sooner than an acknowledgement, which a single packet's receiver puts off by 25 ms.
        config.rescue = false;
        config.copies = [1, 2, 3].map(Duration::from_millis).to_vec();
        QuicTransport::new(LocalPeer::open(&identity(seed), "test").unwrap(), config).unwrap()
    };
    let (a, b) = meet(&with_copies(1), &with_copies(2), identity(2).peer_id()).await;
    let mut asked = 0;
    while a.stats().path.datagrams_sent == Some(0) {
        // Now and then this machine is slower than the acknowledgement.
        asked += 1;
        assert!(asked < 50, "no copy of {asked} messages");
        a.send(QUERY, pattern(100, asked)).await.unwrap();
        assert_eq!(whole(&b, QUERY).await, pattern(100, asked));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// A listener that answers one unvalidated address a day with a Retry: who comes again needs a token.
#[tokio::test]
async fn a_peer_dialed_before_is_dialed_without_a_retry() {
    let mut local = LocalPeer::open(&identity(2), "test").unwrap();
    let mut gate = GateConfig::default();
    (gate.unvalidated.burst, gate.unvalidated.interval) = (1, Duration::from_secs(86_400));
    local.gate = Gate::new(gate);
    let (listener, dialer) = (QuicTransport::new(local, QuicConfig::default()).unwrap(), transport(1));
    let mut listening = listener.listen(&any()).await.unwrap();
    let addr = PeerAddr::new(identity(2).peer_id(), listening.local());
    for _ in 0..4 {
        let (a, b) = tokio::try_join!(dialer.dial(&addr), async { listening.accept().await.unwrap().upgrade().await }).unwrap();
        // The tokens came before this.
        b.send(QUERY, pattern(100, 1)).await.unwrap();
        assert_eq!(whole(&a, QUERY).await, pattern(100, 1));
        a.close(CloseCode::Done, "");
        b.closed().await;
    }
}

#[tokio::test]
async fn both_know_each_other_and_talk_in_every_class() {
    let (a, b) = pair().await;
    assert_eq!(a.remote().peer_id(), Some(identity(2).peer_id()));
    assert_eq!(b.remote().peer_id(), Some(identity(1).peer_id()));
    assert_eq!(a.exporter(), b.exporter());
    assert_ne!(a.exporter(), [0; 32]);
    for (class, kind) in ClassTable::standard().iter() {
        for len in [0, 1, 1024, 65536, kind.max_message] {
            for (from, to) in [(&a, &b), (&b, &a)] {
                from.send(class, pattern(len.min(kind.max_message), 7)).await.unwrap();
                assert_eq!(whole(to, class).await, pattern(len.min(kind.max_message), 7));
            }
        }
    }
    let stats = a.stats();
    assert!(stats.path.rtt.is_some() && stats.path.mtu.is_some());
    assert_eq!(stats.path.congestion_control.as_deref(), Some("delay"));
}

#[tokio::test]
async fn a_wrong_key_is_named_with_the_expected_one() {
    let (dialer, listener) = (transport(1), transport(2));
    let mut listening = listener.listen(&any()).await.unwrap();
    let addr = PeerAddr::new(identity(3).peer_id(), listening.local());
    let (dialed, accepted) = tokio::join!(dialer.dial(&addr), async { listening.accept().await.unwrap().upgrade().await });
    match dialed {
        Err(ConnectError::Identity(IdentityError::WrongKey { expected, found })) => {
            assert_eq!((expected, found), (identity(3).peer_id(), identity(2).peer_id()));
        }
        other => panic!("{other:?}"),
    }
    assert!(accepted.is_err());
}

#[tokio::test]
async fn another_network_is_refused_on_both_sides() {
    let dialer = transport(1);
    let other = identity(2);
    let listener = QuicTransport::new(LocalPeer::open(&other, "elsewhere").unwrap(), QuicConfig::default()).unwrap();
    let mut listening = listener.listen(&any()).await.unwrap();
    let addr = PeerAddr::new(other.peer_id(), listening.local());
    let (dialed, accepted) = tokio::join!(dialer.dial(&addr), async { listening.accept().await.unwrap().upgrade().await });
    for result in [dialed, accepted] {
        match result {
            Err(ConnectError::Refused(closed)) => assert_eq!(closed.code, CloseCode::WrongNetwork, "{closed}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_blocked_peer_is_refused_and_closed_when_blocked_later() {
    let listener_id = identity(2);
    let lists = Arc::new(Lists::everybody());
    let peer = LocalPeer::new(&listener_id, lists.clone(), Terms::new("test").unwrap()).unwrap();
    let listener = QuicTransport::new(peer, QuicConfig::default()).unwrap();
    let dialer = transport(1);
    let (a, b) = meet(&dialer, &listener, listener_id.peer_id()).await;
    let mut sets = ListSets::default();
    sets.block.insert(identity(1).peer_id());
    lists.replace(sets);
    let closed = b.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::NotAdmitted));
    let closed = a.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::NotAdmitted));
    // And again, now in the handshake: the dialer would resume its session, which skips the verifier.
    let mut listening = listener.listen(&any()).await.unwrap();
    let addr = PeerAddr::new(listener_id.peer_id(), listening.local());
    let (dialed, accepted) = tokio::join!(dialer.dial(&addr), async { listening.accept().await.unwrap().upgrade().await });
    assert!(
        matches!(
            accepted,
            Err(ConnectError::Identity(IdentityError::Refused { .. } | IdentityError::RefusedInHandshake) | ConnectError::Handshake(_))
        ),
        "{accepted:?}"
    );
    assert!(matches!(dialed, Err(ConnectError::Refused(_) | ConnectError::Identity(_))), "{dialed:?}");
}

#[tokio::test]
async fn a_belief_flood_that_nobody_reads_stops_no_other_class() {
    let (a, b) = pair().await;
    let mut queued = 0u32;
    loop {
        let message = pattern(if queued.is_multiple_of(2) { 65_536 } else { 65_537 }, 1);
        match tokio::time::timeout(Duration::from_millis(500), a.send(BELIEF, message)).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        queued += 1;
        assert!(queued < 1000, "no backpressure");
    }
    assert!(matches!(a.try_send(BELIEF, pattern(65_536, 1)), TrySend::Full { .. }));
    for _ in 0..200 {
        a.send(QUERY, pattern(100, 2)).await.unwrap();
        assert_eq!(whole(&b, QUERY).await.len(), 100);
    }
    a.send(DATA, pattern(1 << 19, 5)).await.unwrap();
    assert_eq!(whole(&b, DATA).await, pattern(1 << 19, 5));
    for _ in 0..queued {
        whole(&b, BELIEF).await;
    }
}

#[tokio::test]
async fn a_streamed_message_of_64_mib_arrives() {
    let (a, b) = pair().await;
    let write = async {
        let mut writer = a.open(DATA).await.unwrap();
        for i in 0..64u8 {
            writer.write(&mut pattern(1 << 20, i)).await.unwrap();
        }
        writer.finish().unwrap();
    };
    let read = async {
        let Inbound::Streamed(mut reader) = b.recv(DATA).await.unwrap() else { panic!() };
        let mut hash = blake3::Hasher::new();
        while let Some(chunk) = reader.read().await.unwrap() {
            hash.update(&chunk);
        }
        hash.finalize()
    };
    let ((), hash) = tokio::join!(write, read);
    let mut expected = blake3::Hasher::new();
    (0..64u8).for_each(|i| {
        expected.update(&pattern(1 << 20, i));
    });
    assert_eq!(hash, expected.finalize());
}

#[tokio::test]
async fn a_change_of_the_dialers_port_loses_nothing() {
    let (dialer, listener) = (transport(1), transport(2));
    let (a, b) = meet(&dialer, &listener, identity(2).peer_id()).await;
    for i in 0..50u8 {
        if i % 10 == 5 {
            dialer.rebind().unwrap();
        }
        a.send(QUERY, pattern(1000, i)).await.unwrap();
        assert_eq!(whole(&b, QUERY).await, pattern(1000, i));
        b.send(QUERY, pattern(300, i)).await.unwrap();
        assert_eq!(whole(&a, QUERY).await, pattern(300, i));
    }
}

#[tokio::test]
async fn datagrams_arrive_and_large_ones_go_reliably() {
    let class = TrafficClass { delivery: Delivery::Datagram, ..TrafficClass::new("telemetry", 10, Urgency::Bulk, Order::Any) };
    let mut terms = Terms::new("test").unwrap();
    terms.classes = ClassTable::new(vec![class]).unwrap();
    let make = |seed| {
        let id = identity(seed);
        let peer = LocalPeer::new(&id, Arc::new(Lists::everybody()), terms.clone()).unwrap();
        QuicTransport::new(peer, QuicConfig::default()).unwrap()
    };
    let (a, b) = meet(&make(1), &make(2), identity(2).peer_id()).await;
    for len in [1, 500, 1000, 5000, 100_000] {
        a.send(ClassId(0), pattern(len, 1)).await.unwrap();
        assert_eq!(whole(&b, ClassId(0)).await, pattern(len, 1));
    }
}

#[tokio::test]
async fn drain_delivers_all_and_the_other_side_sees_done() {
    let (a, b) = pair().await;
    for i in 0..20 {
        a.send(DATA, pattern(60_000 + i * 1000, 1)).await.unwrap();
    }
    let other = async {
        b.remote_draining().await;
        b.drain().await
    };
    let receive = async {
        let mut got = 0;
        while let Ok(Inbound::Whole(_)) = b.recv(DATA).await {
            got += 1;
        }
        got
    };
    let (drained, _, got) = tokio::join!(a.drain(), other, receive);
    drained.unwrap();
    assert_eq!(got, 20);
    assert_eq!(b.closed().await.code, CloseCode::Done);
}

#[tokio::test]
async fn nobody_there_is_a_timeout_that_says_so() {
    let socket = std::net::UdpSocket::bind(any()).unwrap();
    let mut terms = Terms::new("test").unwrap();
    terms.limits.handshake_timeout = Duration::from_millis(300);
    let id = identity(1);
    let peer = LocalPeer::new(&id, Arc::new(Lists::everybody()), terms).unwrap();
    let dialer = QuicTransport::new(peer, QuicConfig::default()).unwrap();
    let dialed = dialer.dial(&PeerAddr::new(identity(2).peer_id(), socket.local_addr().unwrap())).await;
    assert!(matches!(dialed, Err(ConnectError::Timeout { .. })), "{dialed:?}");
}

/// What kill -9 does: nothing more is said, and after the restart nothing is remembered but the key.
#[tokio::test]
async fn after_a_crash_and_restart_the_other_side_learns_of_it_with_its_next_packet() {
    let (ready, port) = tokio::sync::oneshot::channel();
    let (kill, killed) = std::sync::mpsc::channel::<()>();
    let victim = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = runtime.block_on(async {
            let mut listening = transport(2).listen(&any()).await.unwrap();
            ready.send(listening.local()).unwrap();
            let accepted = listening.accept().await.unwrap().upgrade().await.unwrap();
            whole(&accepted, QUERY).await;
            (listening, accepted)
        });
        killed.recv().unwrap();
        runtime.shutdown_background();
        // Dropped outside any runtime: no packet leaves any more.
        drop(accepted);
    });
    let local = port.await.unwrap();
    let a = transport(1).dial(&PeerAddr::new(identity(2).peer_id(), local)).await.unwrap();
    a.send(QUERY, pattern(10, 1)).await.unwrap();
    a.ping().await.unwrap();
    kill.send(()).unwrap();
    victim.join().unwrap();
    let reborn = transport(2).listen(&local).await.unwrap();
    a.send(QUERY, pattern(10, 1)).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(10), a.closed()).await.expect("long before the idle timeout");
    assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::Lost), "{closed}");
    assert!(closed.reason.contains("stateless reset"), "{closed}");
    drop(reborn);
}
