//! From one connection to another: upgrades, simultaneous dials, dead and too many connections. Nothing is lost,
//! repeated, or (in Fifo classes) reordered.

use std::time::Duration;

use peerlane::node::{Event, Node, NodeHandle};
use peerlane_transport::{ClassId, identity::PeerId};
use tokio::time::sleep;

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

type Stop = tokio_util::sync::CancellationToken;

/// As many numbered messages of a class as it takes, until told to stop: how many.
async fn flood(node: NodeHandle<Simple>, to: PeerId, class: ClassId, stop: Stop) -> u64 {
    let mut n = 0u64;
    while !stop.is_cancelled() {
        let mut body = n.to_be_bytes().to_vec();
        body.resize([8, 3_000, 12_000, 70_000][n as usize % 4], 1);
        node.send(to, &Message::note(class, body)).await.unwrap();
        n += 1;
    }
    n
}

/// Asks all the while, ten requests at a time, each answered after a second: how many.
async fn ask(node: NodeHandle<Simple>, to: PeerId, stop: Stop) -> u64 {
    let mut n = 0u64;
    while !stop.is_cancelled() {
        let asks = (n..n + 10).map(|n| {
            let body = [&n.to_be_bytes()[..], b"slow"].concat();
            let node = node.clone();
            async move { (n, node.request(to, Message::ask(QUERY, body), LONG).await.unwrap()) }
        });
        for (n, reply) in futures_util::future::join_all(asks).await {
            assert!(matches!(reply, Message::Reply { .. }) && reply.as_number() == n, "{reply:?}");
        }
        n += 10;
    }
    n
}

/// Both are busy with each other while `during` happens and for a while after. All arrived once, in order where it
/// counts.
pub async fn busily(a: (&Node<Simple>, &Echo), b: (&Node<Simple>, &Echo), during: impl Future<Output = ()>) {
    let stop = Stop::new();
    let start = |from: &Node<Simple>, to: &Node<Simple>| {
        let (from, to) = (from.handle(), to.peer_id());
        (
            tokio::spawn(flood(from.clone(), to, ORDERED, stop.clone())),
            tokio::spawn(flood(from.clone(), to, BULK, stop.clone())),
            tokio::spawn(ask(from, to, stop.clone())),
        )
    };
    let (there, back) = (start(a.0, b.0), start(b.0, a.0));
    during.await;
    sleep(SECOND).await;
    stop.cancel();
    for ((ordered, bulk, asked), echo) in [(there, b.1), (back, a.1)] {
        for (class, sent) in [(ORDERED, ordered.await.unwrap()), (BULK, bulk.await.unwrap()), (QUERY, asked.await.unwrap())] {
            until("all have arrived", || echo.numbers(class).len() as u64 >= sent).await;
            let mut got = echo.numbers(class);
            if class != ORDERED {
                got.sort_unstable();
            }
            assert!(got == (0..sent).collect::<Vec<_>>(), "{class:?}: lost, repeated or out of order");
            assert!(sent >= 10, "{sent}");
        }
    }
}

async fn settled(nodes: [&Node<Simple>; 2], transport: &str) {
    until("one connection is left", || nodes.iter().all(|node| node.peers().len() == 1 && node.peers()[0].connections == 1)).await;
    for node in nodes {
        assert_eq!(node.peers()[0].transport, transport);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_on_the_second_choice_moves_up_and_nothing_is_lost() {
    for (dialer, listener) in [(1, 2), (2, 1)] {
        let world = World::new();
        let (one, two) = (Echo::default(), Echo::default());
        let (a, b) = (node(&world, dialer, one.clone()).await, node(&world, listener, two.clone()).await);
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        settled([&a, &b], "tcp").await;
        let mut events = a.events();
        world.rule("quic", &b, Dialing::Works);
        sleep(57 * SECOND).await;
        busily((&a, &one), (&b, &two), async {
            event(&mut events, |e| matches!(e, Event::PeerMoved { transport: "quic", .. }).then_some(())).await;
        })
        .await;
        settled([&a, &b], "quic").await;
        assert!(!matches!(events.try_recv(), Ok(Event::PeerDisconnected { .. } | Event::PeerConnected { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_dial_each_other_end_with_one_connection_and_nothing_is_lost() {
    let (small, great) = smaller_and_greater();
    for (first, second) in [(small, great), (great, small)] {
        for delay in [0, 1, 10, 20, 21, 39, 40, 41, 60, 100] {
            let world = World::new();
            let (one, two) = (Echo::default(), Echo::default());
            let (a, b) = (node(&world, first, one.clone()).await, node(&world, second, two.clone()).await);
            let later = Duration::from_millis(delay);
            let (a_to_b, b_to_a) = (addr(&b), addr(&a));
            let (left, right) = tokio::join!(a.connect(&a_to_b), async {
                sleep(later).await;
                b.connect(&b_to_a).await
            });
            left.unwrap();
            right.unwrap();
            let (mut here, mut there) = (a.events(), b.events());
            busily((&a, &one), (&b, &two), async {}).await;
            settled([&a, &b], "quic").await;
            assert_ne!(a.peers()[0].dialed, b.peers()[0].dialed, "the same one is left on both sides");
            if world.dials().len() == 2 && delay < 40 {
                let smaller = if first == small { &a } else { &b };
                assert!(smaller.peers()[0].dialed, "tie by key: the one that the smaller key dialed");
            }
            for events in [&mut here, &mut there] {
                while let Ok(event) = events.try_recv() {
                    assert!(!matches!(event, Event::PeerDisconnected { .. }), "{event:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_prefer_another_transport_and_still_one_connection_is_left() {
    for (first, second) in [(1, 2), (2, 1)] {
        let world = World::new();
        let (one, two) = (Echo::default(), Echo::default());
        let a = builder(&world, &local(first), &["quic", "tcp"]).handler(one.clone()).start().await.unwrap();
        let b = builder(&world, &local(second), &["tcp", "quic"]).handler(two.clone()).start().await.unwrap();
        let (to_b, to_a) = (addr(&b), addr(&a));
        let (left, right) = tokio::join!(a.connect(&to_b), b.connect(&to_a));
        left.unwrap();
        right.unwrap();
        busily((&a, &one), (&b, &two), async {}).await;
        let decider = if a.peer_id().as_bytes() > b.peer_id().as_bytes() { "quic" } else { "tcp" };
        settled([&a, &b], decider).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_replaces_its_dead_connection() {
    for (stays, restarts) in [(1, 2), (2, 1)] {
        let world = World::new();
        let a = node(&world, stays, Echo::default()).await;
        let b = node(&world, restarts, Echo::default()).await;
        a.connect(&addr(&b)).await.unwrap();
        until("both know", || b.peers().len() == 1).await;
        // Its machine loses power: nobody is told.
        world.wire(None, Wire::Hole);
        drop(b);
        let again = node(&world, restarts, Echo::default()).await;
        again.connect(&addr(&a)).await.unwrap();
        let start = tokio::time::Instant::now();
        until("the dead one is gone", || a.peers().len() == 1 && a.peers()[0].connections == 1).await;
        assert!(start.elapsed() < 12 * SECOND, "{:?}", start.elapsed());
        assert!(!a.peers()[0].dialed);
        assert!(a.request(again.peer_id(), Message::ask(QUERY, "x"), SECOND).await.is_ok());
        assert!(again.request(a.peer_id(), Message::ask(QUERY, "x"), SECOND).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_of_a_peer_that_is_back_holds_up_no_shutdown() {
    for (stays, restarts) in [(1, 2), (2, 1)] {
        let world = World::new();
        let quick = config(|config| config.probe_timeout = SECOND);
        let a = builder(&world, &local(stays), &["quic"]).handler(Echo::default()).config(quick).start().await.unwrap();
        let b = node(&world, restarts, Echo::default()).await;
        b.connect(&addr(&a)).await.unwrap();
        until("both know", || a.peers().len() == 1).await;
        world.wire(None, Wire::Hole);
        drop(b);
        let again = node(&world, restarts, Echo::default()).await;
        again.connect(&addr(&a)).await.unwrap();
        until("both are there", || a.peers()[0].connections == 2).await;
        let start = tokio::time::Instant::now();
        a.shutdown().await;
        assert!(start.elapsed() <= SECOND, "longer than a life sign may take: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_streamed_message_delays_the_move_and_survives_it() {
    for (dialer, listener) in [(1, 2), (2, 1)] {
        let world = World::new();
        let echo = Echo::default();
        let (a, b) = (node(&world, dialer, Echo::default()).await, node(&world, listener, echo.clone()).await);
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        world.rule("quic", &b, Dialing::Works);
        let mut events = a.events();
        sleep(50 * SECOND).await;
        // 9 bytes of head, then half a byte a second, over the time of the move.
        let mut writer = a.open(b.peer_id(), BULK, None).await.unwrap();
        writer.write(&mut vec![3, 0, 0, 0, 0, 0, 0, 0, 0].into()).await.unwrap();
        for _ in 0..20 {
            writer.write(&mut vec![9].into()).await.unwrap();
            sleep(2 * SECOND).await;
        }
        writer.finish().unwrap();
        until("it's whole", || echo.count() == 1).await;
        event(&mut events, |e| matches!(e, Event::PeerMoved { transport: "quic", .. }).then_some(())).await;
        settled([&a, &b], "quic").await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_gives_way_to_a_connection_that_carries_nothing() {
    for (dialer, listener) in [(1, 2), (2, 1)] {
        let world = World::new();
        let (a, b) = (node(&world, dialer, Echo::default()).await, node(&world, listener, Echo::default()).await);
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        world.rule("quic", &b, Dialing::Dead);
        let mut events = a.events();
        sleep(55 * SECOND).await;
        let mut crowded = false;
        for _ in 0..200 {
            assert!(a.request(b.peer_id(), Message::ask(QUERY, "x"), SECOND).await.is_ok());
            assert!(b.request(a.peer_id(), Message::ask(ORDERED, "x"), SECOND).await.is_ok());
            crowded |= a.peers()[0].connections > 1;
            sleep(SECOND / 10).await;
        }
        assert!(crowded, "the better transport was tried");
        settled([&a, &b], "tcp").await;
        while let Ok(event) = events.try_recv() {
            assert!(!matches!(event, Event::PeerMoved { .. } | Event::PeerDisconnected { .. }), "{event:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_still_to_be_handled_comes_before_what_the_new_connection_brings() {
    for (dialer, listener) in [(1, 2), (2, 1)] {
        let world = World::new();
        let echo = Echo::default();
        let (a, b) = (node(&world, dialer, Echo::default()).await, node(&world, listener, echo.clone()).await);
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        world.rule("quic", &b, Dialing::Works);
        let mut events = a.events();
        sleep(58 * SECOND).await;
        // Thousands of small messages wait for a handler that takes 5 ms for each.
        let mut n = 0;
        let mut moved = false;
        while !moved {
            a.send(b.peer_id(), &Message::number(ORDERED, n)).await.unwrap();
            n += 1;
            while let Ok(event) = events.try_recv() {
                moved |= matches!(event, Event::PeerMoved { transport: "quic", .. });
            }
        }
        for more in n..n + 100 {
            a.send(b.peer_id(), &Message::number(ORDERED, more)).await.unwrap();
        }
        assert!(echo.count() < n as usize - 1000, "{} of {n} are handled: nothing piled up", echo.count());
        until("all are handled", || echo.count() as u64 == n + 100).await;
        assert!(echo.numbers(ORDERED) == (0..n + 100).collect::<Vec<_>>());
    }
}
