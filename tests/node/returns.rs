//! A peer that comes back: what its earlier connections left behind neither reaches the later ones nor adds up.

use std::time::Duration;

use peerlane::node::{Node, RequestError, Silent};
use peerlane_transport::ClassId;
use tokio::time::sleep;

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);

/// A node of this key with random numbers of its own: a process that was started anew draws others.
async fn again(world: &World, key: u8, seed: u64) -> Node<Simple> {
    builder(world, &local(key), &["quic", "tcp"]).handler(Silent).seed(seed).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_a_request_of_an_earlier_life_answers_none_of_a_later_one() {
    let world = World::new();
    let b = node(&world, 2, Echo::default()).await;
    let first = again(&world, 1, 8).await;
    first.connect(&addr(&b)).await.unwrap();
    let old = tokio::spawn({
        let (first, to) = (first.handle(), b.peer_id());
        async move { first.request(to, Message::ask(CONTROL, "slow, of the first life"), 600 * SECOND).await }
    });
    sleep(SECOND / 2).await;
    // Its host is gone, and nobody is told: the other side keeps the old connection, and the handler goes on.
    world.wire(None, Wire::Hole);
    let second = again(&world, 1, 9).await;
    second.connect(&addr(&b)).await.unwrap();
    until("b has both", || b.peers()[0].connections == 2).await;
    let reply = second.request(b.peer_id(), Message::ask(CONTROL, "stuck, of the second life"), 60 * SECOND).await;
    assert!(matches!(reply, Err(RequestError::Deadline(_))), "{reply:?}");
    assert!(old.await.unwrap().is_err());
}

/// Connects as this key, has `count` messages stick in the other side's handlers, and is gone at once.
async fn come_and_go(world: &World, key: u8, seed: u64, to: &Node<Simple>, class: ClassId, count: usize) {
    let node = again(world, key, seed).await;
    node.connect(&addr(to)).await.unwrap();
    for _ in 0..count {
        node.send(to.peer_id(), &Message::note(class, b"stuck".to_vec())).await.unwrap();
    }
    node.shutdown().await;
    until("it's gone", || to.peers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_again_and_again_takes_no_more_workers_than_who_stays() {
    let world = World::new();
    let (local, echo) = (local(2), Echo::default());
    let few = config(|config| config.workers = 4);
    let b = builder(&world, &local, &["quic", "tcp"]).handler(echo.clone()).config(few).start().await.unwrap();
    for (class, seed) in [(BULK, 10), (BULK, 11), (GOSSIP, 12), (GOSSIP, 13)] {
        come_and_go(&world, 1, seed, &b, class, 3).await;
    }
    let other = again(&world, 3, 14).await;
    other.connect(&addr(&b)).await.unwrap();
    for class in [BULK, GOSSIP] {
        other.send(b.peer_id(), &Message::number(class, 77)).await.unwrap();
        until("another peer's message is handled", || {
            echo.got.lock().unwrap().iter().any(|(peer, message)| *peer == other.peer_id() && *message == Message::number(class, 77))
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_of_a_peer_that_comes_back_again_and_again_is_bounded() {
    let world = World::new();
    let b = node(&world, 2, Echo::default()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // Twelve are handled and sixteen are queued of one peer; the rest waits with its connection.
    let mut alive = Vec::new();
    for seed in 0..40 {
        come_and_go(&world, 1, 100 + seed, &b, BULK, 60).await;
        sleep(2 * SECOND).await;
        alive.push(tasks());
    }
    assert!(alive[39] <= alive[9], "{alive:?}");
}
