//! A peer that comes back: what its earlier connections left behind neither reaches the later ones nor adds up.

use std::time::Duration;

use peerlane::node::{Node, RequestError, Silent};
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
