//! The end: handlers answer, queues drain, tasks end.

use std::time::Duration;

use peerlane::node::{Event, RequestError, Silent};
use peerlane_transport::CloseCode;
use tokio::time::{Instant, sleep};

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn shutting_down_answers_what_is_with_handlers_and_delivers_what_is_queued() {
    let world = World::new();
    let echo = Echo::default();
    let (a, b) = (node(&world, 1, echo.clone()).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    until("both know", || b.peers().len() == 1).await;
    let mut events = a.events();
    let asking = {
        let (a, to) = (a.handle(), b.peer_id());
        tokio::spawn(async move { a.request(to, Message::ask(CONTROL, "slow"), LONG).await })
    };
    for i in 0..100 {
        b.send(a.peer_id(), &Message::number(ORDERED, i)).await.unwrap();
    }
    sleep(SECOND / 10).await;
    for i in 100..200 {
        b.send(a.peer_id(), &Message::number(ORDERED, i)).await.unwrap();
    }
    b.shutdown().await;
    assert_eq!(asking.await.unwrap().unwrap().body(), b"slow");
    until("all was delivered", || echo.count() == 200).await;
    assert_eq!(echo.numbers(ORDERED), (0..200).collect::<Vec<_>>());
    let code = event(&mut events, |e| match e {
        Event::PeerDisconnected { why, .. } => Some(why.code),
        _ => None,
    })
    .await;
    assert_eq!(code, CloseCode::Done);
}

#[tokio::test(start_paused = true)]
async fn own_requests_are_answered_while_the_node_drains() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    let asking = {
        let (a, to) = (a.handle(), b.peer_id());
        tokio::spawn(async move { a.request(to, Message::ask(CONTROL, "slow"), LONG).await })
    };
    sleep(SECOND / 10).await;
    a.shutdown().await;
    assert_eq!(asking.await.unwrap().unwrap().body(), b"slow");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_takes_no_new_requests() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    let (a2, to) = (a.handle(), b.peer_id());
    let slow = tokio::spawn(async move { a2.request(to, Message::ask(CONTROL, "slow"), LONG).await });
    sleep(SECOND / 10).await;
    let down = tokio::spawn(b.shutdown());
    sleep(SECOND / 10).await;
    let reply = a.request(to, Message::ask(QUERY, "x"), LONG).await.unwrap();
    assert!(matches!(reply, Message::Busy { .. }));
    assert!(slow.await.unwrap().is_ok());
    down.await.unwrap();
    until("a noticed", || a.peers().is_empty()).await;
    assert!(a.connect(&addr(&a)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stuck_handler_and_a_dead_path_hold_the_end_up_for_a_bounded_time() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    let (a2, to) = (a.handle(), b.peer_id());
    let stuck = tokio::spawn(async move { a2.request(to, Message::ask(CONTROL, "stuck"), LONG).await });
    sleep(SECOND).await;
    world.wire(None, Wire::Hole);
    let start = Instant::now();
    b.shutdown().await;
    assert!(start.elapsed() <= 16 * SECOND, "{:?}", start.elapsed());
    let start = Instant::now();
    a.shutdown().await;
    assert!(start.elapsed() <= 16 * SECOND, "{:?}", start.elapsed());
    assert!(matches!(stuck.await.unwrap(), Err(RequestError::Disconnected(_))));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_known_to_be_silent_is_not_drained_for_long() {
    // Asked in vain before, or not at all; and nobody waits longer than a life sign may take.
    for (silent, most) in [(20 * SECOND, SECOND / 10), (Duration::ZERO, 3 * SECOND)] {
        let world = World::new();
        let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
        a.connect(&addr(&b)).await.unwrap();
        until("both know", || b.peers().len() == 1).await;
        world.wire(None, Wire::Hole);
        sleep(silent).await;
        for node in [a, b] {
            assert_eq!(node.peers().len(), 1, "it isn't given up yet");
            let start = Instant::now();
            node.shutdown().await;
            assert!(start.elapsed() <= most, "{:?} after {silent:?} of silence", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_task_ends_with_the_node() {
    let world = World::new();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for round in 0..20 {
        let (a, b) = (node(&world, 1, Echo::default()).await, node(&world, 2, Echo::default()).await);
        a.connect(&addr(&b)).await.unwrap();
        a.keep(&addr(&b));
        a.request(b.peer_id(), Message::ask(QUERY, "x"), SECOND).await.unwrap();
        if round % 2 == 0 {
            tokio::join!(a.shutdown(), b.shutdown());
        } else {
            drop((a, b));
        }
    }
    sleep(60 * SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
}
