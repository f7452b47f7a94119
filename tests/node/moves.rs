//! From one connection to another: upgrades, simultaneous dials, dead and too many connections. Nothing is lost,
//! repeated, or (in Fifo classes) reordered.

use std::time::Duration;

use peerlane::node::{Event, Node, NodeHandle};
use peerlane_transport::identity::PeerId;
use tokio::time::sleep;

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

/// Sends numbered messages of an ordered class and asks, all the while, until told to stop: how many of each.
async fn busy(node: NodeHandle<Simple>, to: PeerId, stop: tokio_util::sync::CancellationToken) -> u64 {
    let mut n = 0;
    while !stop.is_cancelled() {
        node.send(to, &Message::number(ORDERED, n)).await.unwrap();
        let asked = node.request(to, Message::ask(QUERY, n.to_be_bytes().to_vec()), LONG).await.unwrap();
        assert_eq!(asked.as_number(), n);
        node.send(to, &Message::number(BULK, n)).await.unwrap();
        n += 1;
        if n % 7 == 0 {
            sleep(Duration::from_millis(3)).await;
        }
    }
    n
}

/// Both are busy with each other while `during` happens and for a while after. All arrived, in order where it counts.
async fn busily(a: (&Node<Simple>, &Echo), b: (&Node<Simple>, &Echo), during: impl Future<Output = ()>) {
    let stop = tokio_util::sync::CancellationToken::new();
    let there = tokio::spawn(busy(a.0.handle(), b.0.peer_id(), stop.clone()));
    let back = tokio::spawn(busy(b.0.handle(), a.0.peer_id(), stop.clone()));
    during.await;
    sleep(SECOND).await;
    stop.cancel();
    for (sent, echo) in [(there.await.unwrap(), b.1), (back.await.unwrap(), a.1)] {
        let all: Vec<u64> = (0..sent).collect();
        until("all have arrived", || echo.numbers(BULK).len() as u64 >= sent && echo.numbers(ORDERED).len() as u64 >= sent).await;
        assert_eq!(echo.numbers(ORDERED), all);
        for class in [BULK, QUERY] {
            let mut got = echo.numbers(class);
            got.sort_unstable();
            assert_eq!(got, all, "{class:?}");
        }
        assert!(sent > 20, "{sent}");
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
