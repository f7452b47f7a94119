//! Who meets whom, and who is refused: as the real transports do it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use peerlane_sim::{Link, World};
use peerlane_transport::{
    AnyTransport, CloseCode, ClosedBy, ConnectError, ListenError, Listener, Transport, Upgrade,
    admission::{ListSets, Lists, LocalPeer, Terms},
    identity::{Identity, IdentityError, PeerAddr, Proof},
};
use tokio::time::Instant;

fn refused<T: std::fmt::Debug>(result: Result<T, ConnectError>) -> (ClosedBy, CloseCode, String) {
    match result {
        Err(ConnectError::Refused(closed)) => (closed.by, closed.code, closed.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_know_whom_they_met() {
    run(async {
        let world = World::new(1);
        let (a, b) = connect(&world, 1, 2, &terms()).await;
        assert_eq!((a.remote().peer_id(), b.remote().peer_id()), (Some(peer(2)), Some(peer(1))));
        assert_eq!((a.remote().proof, b.remote().proof), (Proof::Transport, Proof::Transport));
        assert_eq!((a.dialed(), b.dialed()), (true, false));
        assert_eq!((a.local_addr(), a.remote_addr()), (b.remote_addr(), b.local_addr()));
        assert_eq!(a.exporter(), b.exporter());
        let (c, _d) = connect(&world, 1, 2, &terms()).await;
        assert_ne!(a.exporter(), c.exporter());
        assert_ne!(a.stable_id(), c.stable_id());
    })
}

#[test]
fn a_wrong_key_is_named_and_told() {
    run(async {
        let world = World::new(1);
        let (mut listener, addr) = listen(&world.transport(peer(2), terms())).await;
        let dialer = world.transport(peer(1), terms());
        let wrong = PeerAddr { id: peer(3), ..addr };
        let (a, b) = tokio::join!(dialer.dial(&wrong), async { listener.accept().await.unwrap().upgrade().await });
        assert!(
            matches!(&a, Err(ConnectError::Identity(IdentityError::WrongKey { expected, found })) if (*expected, *found) == (peer(3), peer(2)))
        );
        assert!(!a.unwrap_err().may_retry());
        let (by, code, reason) = refused(b);
        assert_eq!((by, code), (ClosedBy::Remote, CloseCode::WrongKey));
        assert!(reason.contains(&peer(3).to_string()), "{reason}");
        tokio::time::sleep(ms(1_000)).await;
        assert_eq!(world.connections(), 0);
    })
}

#[test]
fn another_network_is_refused_on_both_sides() {
    run(async {
        let world = World::new(1);
        let (a, b) = meet(&world.transport(peer(1), terms()), &world.transport(peer(2), Terms::new("other").unwrap())).await;
        assert_eq!((refused(a).1, refused(b).1), (CloseCode::WrongNetwork, CloseCode::WrongNetwork));
        assert_eq!(world.connections(), 0);
    })
}

#[test]
fn dialing_oneself_is_refused() {
    run(async {
        let transport = World::new(1).transport(peer(1), terms());
        let (a, b) = meet(&transport, &transport).await;
        assert!(matches!(a, Err(ConnectError::Identity(IdentityError::Ourselves))));
        assert!(b.is_err());
    })
}

#[test]
fn lists_refuse_and_take_effect_on_living_connections() {
    run(async {
        let world = World::new(1);
        let lists = Arc::new(Lists::everybody());
        let local = LocalPeer::new(&Identity::from_seed(&[2; 32]).unwrap(), lists.clone(), terms()).unwrap();
        let (a, b) = (world.transport(peer(1), terms()), world.transport_for(&local));
        let (at_a, at_b) = meet(&a, &b).await;
        let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
        let mut sets = ListSets::default();
        sets.block.insert(peer(1));
        lists.replace(sets);
        let closed = at_a.closed().await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::NotAdmitted));
        assert_eq!(at_b.closed().await.by, ClosedBy::Local);
        let (at_a, at_b) = meet(&a, &b).await;
        assert_eq!(refused(at_a).1, CloseCode::NotAdmitted);
        assert!(matches!(at_b, Err(ConnectError::Identity(IdentityError::Refused { .. }))));
    })
}

#[test]
fn where_nobody_listens_is_unreachable_after_a_round_trip() {
    run(async {
        let world = World::new(1);
        world.set_default_link(Link { latency: ms(25), ..Link::default() });
        let (dialer, other) = (world.transport(peer(1), terms()), world.transport(peer(2), terms()));
        let (listener, addr) = listen(&other).await;
        drop(listener);
        for addr in
            [addr, format!("{}@192.0.2.1:5", peer(2)).parse().unwrap(), format!("{}@{}:5", peer(2), world.host(peer(2))).parse().unwrap()]
        {
            let start = Instant::now();
            let result = dialer.dial(&addr).await;
            assert!(matches!(&result, Err(ConnectError::Unreachable { .. })), "{result:?}");
            assert!(result.unwrap_err().may_retry());
            assert_eq!(start.elapsed(), ms(50), "{addr}");
        }
        assert!(matches!(dialer.dial(&format!("{}@example.org:5", peer(2)).parse().unwrap()).await, Err(ConnectError::Unreachable { .. })));
        assert_eq!(world.connections(), 0);
    })
}

#[test]
fn a_handshake_that_nobody_does_and_one_over_a_cut_time_out() {
    run(async {
        let world = World::new(1);
        let (_listener, addr) = listen(&world.transport(peer(2), terms())).await;
        let dialer = world.transport(peer(1), terms());
        let limit = terms().limits.handshake_timeout;
        for cut in [false, true] {
            if cut {
                world.partition(&peer(1), &peer(2));
            }
            let start = Instant::now();
            assert!(matches!(dialer.dial(&addr).await, Err(ConnectError::Timeout { .. })));
            assert_eq!(start.elapsed(), limit);
        }
        // What was sent into the cut has come to nothing, and doesn't arrive later.
        world.heal(&peer(1), &peer(2));
        tokio::time::sleep(ms(1_000)).await;
        assert_eq!(world.connections(), 1, "the one that the listener hasn't accepted");
    })
}

#[test]
fn a_dropped_upgrade_and_a_dropped_dial_end_at_the_other_side() {
    run(async {
        let world = World::new(1);
        let (mut listener, addr) = listen(&world.transport(peer(2), terms())).await;
        let dialer = world.transport(peer(1), terms());
        let (dialed, ()) = tokio::join!(dialer.dial(&addr), async { drop(listener.accept().await.unwrap()) });
        assert_eq!(refused(dialed).1, CloseCode::Lost);
        let dial = tokio::spawn(async move { dialer.dial(&addr).await.map(drop) });
        let upgrade = listener.accept().await.unwrap();
        dial.abort();
        let start = Instant::now();
        assert_eq!(refused(upgrade.upgrade().await).1, CloseCode::Lost);
        assert!(start.elapsed() <= ms(5), "{:?}", start.elapsed());
        tokio::time::sleep(ms(100)).await;
        assert_eq!(world.connections(), 0);
    })
}

#[test]
fn ports_are_given_kept_and_free_again() {
    run(async {
        let world = World::new(1);
        let (one, two) = (world.transport(peer(1), terms()), world.transport(peer(2), terms()));
        let first = one.listen(&"0.0.0.0:7000".parse().unwrap()).await.unwrap();
        assert_eq!(first.local(), format!("{}:7000", world.host(peer(1))).parse().unwrap());
        let taken = one.listen(&first.local()).await;
        assert!(matches!(&taken, Err(ListenError::Bind { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse));
        assert!(matches!(two.listen(&first.local()).await, Err(ListenError::Bind { .. })), "another's host");
        two.listen(&"0.0.0.0:7000".parse().unwrap()).await.unwrap();
        drop(first);
        one.listen(&"[::]:7000".parse().unwrap()).await.unwrap();
    })
}

#[test]
fn a_listener_that_accepts_nobody_holds_a_bounded_number() {
    run(async {
        let world = World::new(1);
        let (_listener, addr) = listen(&world.transport(peer(2), terms())).await;
        let dialer = world.transport(peer(1), terms());
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (dialer, addr) = (dialer.clone(), addr.clone());
            dials.spawn(async move { dialer.dial(&addr).await });
        }
        tokio::time::sleep(ms(100)).await;
        assert_eq!(world.connections(), 128);
        let mut hung_up = 0;
        while let Some(result) = dials.join_next().await {
            hung_up += i32::from(matches!(result.unwrap(), Err(ConnectError::Refused(_))));
        }
        assert_eq!(hung_up, 300 - 128);
    })
}

#[test]
fn it_fits_where_the_real_ones_go() {
    run(async {
        let world = World::new(1);
        let erase = |n| -> AnyTransport<PeerAddr, std::net::SocketAddr> { AnyTransport::new(world.transport(peer(n), terms())) };
        let (one, two) = (erase(1), erase(2));
        let mut listener = two.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = PeerAddr::new(peer(2), listener.local());
        let (a, b) = tokio::join!(one.dial(&addr), async { listener.accept().await.unwrap().upgrade().await });
        assert_eq!((a.unwrap().transport(), b.unwrap().transport()), ("sim", "sim"));
    })
}

#[test]
fn a_thousand_connections_come_and_go() {
    run(async {
        let world = World::new(1);
        let (mut listener, addr) = listen(&world.transport(peer(2), terms())).await;
        let dialer = world.transport(peer(1), terms());
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for i in 0..1_000u32 {
            let (a, b) = tokio::join!(dialer.dial(&addr), async { listener.accept().await.unwrap().upgrade().await });
            let (a, b) = (a.unwrap(), b.unwrap());
            a.send(QUERY, pattern(4, i as u8)).await.unwrap();
            whole(&b, QUERY).await;
            if i % 2 == 0 { drop(a) } else { drop(b) }
        }
        tokio::time::sleep(ms(1_000)).await;
        assert_eq!((world.connections(), tasks()), (0, before));
    })
}

#[tokio::test]
async fn it_runs_on_the_real_clock_too() {
    let world = World::new(1);
    let (a, b) = connect(&world, 1, 2, &terms()).await;
    a.send(DATA, pattern(300_000, 1)).await.unwrap();
    assert_eq!(whole(&b, DATA).await, pattern(300_000, 1));
}
