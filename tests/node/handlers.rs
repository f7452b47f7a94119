//! Workers per class, overload, fairness, broadcast, bad messages.

use std::{sync::atomic::Ordering, time::Duration};

use peerlane::node::{Event, Node, Outcome, Selection, Silent};
use peerlane::protocol::Protocol as _;
use peerlane_transport::{CloseCode, admission::ListSets};

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

fn metric(node: &Node<Simple>, name: &str, class: &str) -> u64 {
    let text = node.metrics_text();
    let line = |l: &&str| l.starts_with(&format!("{name}{{")) && l.contains(&format!("class=\"{class}\""));
    text.lines().filter(line).map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(start_paused = true)]
async fn handlers_that_never_return_stop_no_other_class() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    for class in [BULK, GOSSIP, ORDERED, CONTROL] {
        for _ in 0..100 {
            let _ = tokio::time::timeout(SECOND / 100, a.send(b.peer_id(), &Message::note(class, "stuck"))).await;
        }
    }
    for _ in 0..50 {
        assert_eq!(a.request(b.peer_id(), Message::ask(QUERY, "x"), SECOND).await.unwrap().body(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn no_peer_takes_all_workers() {
    let world = World::new();
    let b = node(&world, 2, Echo::default()).await;
    let (greedy, modest) = (node(&world, 1, Silent).await, node(&world, 3, Silent).await);
    for node in [&greedy, &modest] {
        node.connect(&addr(&b)).await.unwrap();
    }
    for _ in 0..100 {
        greedy.send(b.peer_id(), &Message::note(BULK, "stuck")).await.unwrap();
    }
    for _ in 0..10 {
        assert!(modest.request(b.peer_id(), Message::ask(BULK, "x"), SECOND).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_queries_are_told_so_and_the_modest_peer_is_served() {
    let world = World::new();
    let few = config(|c| (c.workers, c.queue_messages) = (2, 10));
    let b = builder(&world, &local(2), &["quic"]).config(few).handler(Echo::default()).start().await.unwrap();
    let (flood, modest) = (node(&world, 1, Silent).await, node(&world, 3, Silent).await);
    for node in [&flood, &modest] {
        node.connect(&addr(&b)).await.unwrap();
    }
    let ask = |node: &Node<Simple>| {
        let (node, to) = (node.handle(), b.peer_id());
        async move { node.request(to, Message::ask(QUERY, "slow"), LONG).await.unwrap() }
    };
    let flooding = futures_util::future::join_all((0..100).map(|_| ask(&flood)));
    let asking = async {
        tokio::time::sleep(SECOND / 10).await;
        futures_util::future::join_all((0..3).map(|_| ask(&modest))).await
    };
    let (flooded, asked) = tokio::join!(flooding, asking);
    let busy = flooded.iter().filter(|reply| matches!(reply, Message::Busy { .. })).count();
    assert!((85..=98).contains(&busy), "each of 100 is answered once; {busy} were told that there's no room");
    assert!(asked.iter().all(|reply| matches!(reply, Message::Reply { .. })), "{asked:?}");
    assert_eq!(metric(&b, "peerlane_overloaded_total", "query"), busy as u64);
}

#[tokio::test(start_paused = true)]
async fn too_much_gossip_loses_the_oldest_and_says_so() {
    let world = World::new();
    let few = config(|c| (c.workers, c.queue_messages) = (1, 10));
    let echo = Echo::default();
    let b = builder(&world, &local(2), &["quic"]).config(few).handler(echo.clone()).start().await.unwrap();
    let a = node(&world, 1, Silent).await;
    a.connect(&addr(&b)).await.unwrap();
    a.send(b.peer_id(), &Message::note(GOSSIP, "slow....")).await.unwrap();
    until("it's with the handler", || echo.count() == 1).await;
    for i in 0..100 {
        a.send(b.peer_id(), &Message::number(GOSSIP, i)).await.unwrap();
    }
    until("the rest is handled", || echo.count() == 11).await;
    assert_eq!(echo.numbers(GOSSIP)[1..], (90..100).collect::<Vec<_>>());
    assert_eq!(metric(&b, "peerlane_dropped_total", "gossip"), 90);
}

#[tokio::test(start_paused = true)]
async fn a_class_that_waits_loses_nothing_and_keeps_its_order() {
    let world = World::new();
    let echo = Echo::default();
    let few = config(|c| (c.workers, c.queue_messages, c.queue_per_peer) = (1, 1, 1));
    let b = builder(&world, &local(2), &["quic"]).config(few).handler(echo.clone()).start().await.unwrap();
    let a = node(&world, 1, Silent).await;
    a.connect(&addr(&b)).await.unwrap();
    for i in 0..500 {
        a.send(b.peer_id(), &Message::number(ORDERED, i)).await.unwrap();
    }
    until("all are handled", || echo.count() == 500).await;
    assert_eq!(echo.numbers(ORDERED), (0..500).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_costs_its_message_only() {
    let world = World::new();
    let one = config(|c| c.workers = 1);
    let b = builder(&world, &local(2), &["quic"]).config(one).handler(Echo::default()).start().await.unwrap();
    let a = node(&world, 1, Silent).await;
    a.connect(&addr(&b)).await.unwrap();
    a.send(b.peer_id(), &Message::note(QUERY, "panic")).await.unwrap();
    assert!(a.request(b.peer_id(), Message::ask(QUERY, "x"), SECOND).await.is_ok());
    assert!(b.metrics_text().contains("peerlane_handler_panics_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_is_encoded_once_and_counted_per_peer() {
    let world = World::new();
    let here = local(1);
    let protocol = Simple::default();
    let encoded = protocol.encoded.clone();
    let a = Node::builder(protocol, here.clone()).transport(world.transport("quic", &here)).start().await.unwrap();
    let echo = Echo::default();
    let mut others = Vec::new();
    for seed in 2..8 {
        let b = node(&world, seed, echo.clone()).await;
        a.connect(&addr(&b)).await.unwrap();
        others.push(b);
    }
    encoded.store(0, Ordering::Relaxed);
    let sent = a.broadcast(&Selection::All, &Message::number(GOSSIP, 1));
    assert_eq!((sent.queued(), sent.full(), sent.failed()), (6, 0, 0));
    assert_eq!(encoded.load(Ordering::Relaxed), 1);
    until("all have it", || echo.count() == 6).await;

    let (first, last) = (others[0].peer_id(), others[5].peer_id());
    here.lists.replace(ListSets { trust: [last].into(), ..ListSets::default() });
    let sent = a.broadcast(&Selection::Except(vec![first.into()]), &Message::number(GOSSIP, 2));
    assert_eq!(sent.queued(), 5);
    assert_eq!(sent.outcomes[0].0, last.into(), "trusted peers come first");
    assert_eq!(a.broadcast(&Selection::Only(vec![first.into()]), &Message::number(GOSSIP, 3)).queued(), 1);
    assert_eq!(a.broadcast(&Selection::Trusted, &Message::number(GOSSIP, 4)).queued(), 1);
    let sample = |count| a.broadcast(&Selection::sample(count, Vec::new()), &Message::number(GOSSIP, 5)).queued();
    assert_eq!((sample(3), sample(30)), (3, 6));
}

#[tokio::test(start_paused = true)]
async fn a_newer_message_takes_the_place_of_a_queued_one_which_comes_back() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Silent).await);
    a.connect(&addr(&b)).await.unwrap();
    world.wire(None, Wire::Hole);
    // Fill what lies between: then messages stay in the queue.
    while matches!(a.try_send(b.peer_id(), &Message::note(GOSSIP, vec![0; 60_000])).unwrap(), peerlane_transport::TrySend::Queued) {}
    let note = |n: u64| Message::Note { class: GOSSIP, key: 7, body: n.to_be_bytes().to_vec().into() };
    let first = a.broadcast(&Selection::All, &note(1));
    assert_eq!(first.queued(), 1);
    let second = a.broadcast(&Selection::All, &note(2));
    let Outcome::Superseded(old) = &second.outcomes[0].1 else { panic!("{second:?}") };
    assert_eq!(old[9..], 1u64.to_be_bytes());
    assert!(matches!(a.send_latest(b.peer_id(), 7, &note(3)).unwrap(), Outcome::Superseded(_)));
    assert!(matches!(a.send_latest(b.peer_id(), 8, &note(3)).unwrap(), Outcome::Queued));
}

#[tokio::test(start_paused = true)]
async fn bad_messages_are_counted_answered_or_end_the_connection() {
    let world = World::new();
    let echo = Echo::default();
    let (a, b) = (node(&world, 1, echo.clone()).await, node(&world, 2, Silent).await);
    b.connect(&addr(&a)).await.unwrap();
    let mut events = a.events();
    let mut theirs = b.events();
    let malformed = |e: &Event| match e {
        Event::Malformed { why, .. } => Some(*why),
        _ => None,
    };
    b.send_bytes(a.peer_id(), BULK, vec![50].into()).await.unwrap();
    assert_eq!(event(&mut events, malformed).await, "too short");
    b.send_bytes(a.peer_id(), BULK, vec![0].into()).await.unwrap();
    assert_eq!(event(&mut events, malformed).await, "too short, answered");
    until("the answer arrives", || metric(&b, "peerlane_unmatched_total", "bulk") == 1).await;
    assert!(b.request(a.peer_id(), Message::ask(BULK, "x"), SECOND).await.is_ok());
    b.send_bytes(a.peer_id(), BULK, vec![99].into()).await.unwrap();
    assert_eq!(event(&mut events, malformed).await, "too short, closed");
    let why = event(&mut theirs, |e| match e {
        Event::PeerDisconnected { why, .. } => Some(why.clone()),
        _ => None,
    })
    .await;
    assert_eq!((why.code, &*why.reason), (CloseCode::Application, "too short, closed"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_replies_holds_no_worker_for_long() {
    let world = World::new();
    let b = builder(&world, &local(2), &["quic"]).config(config(|c| c.workers = 4)).handler(Echo::default()).start().await.unwrap();
    // Not a node: it asks, and reads nothing.
    let deaf = world.transport("quic", &local(1)).dial(&addr(&b)).await.unwrap();
    let protocol = Simple::default();
    let asking = tokio::spawn(async move {
        loop {
            deaf.send(BULK, protocol.encode(&Message::ask(BULK, vec![0; 100_000]))).await.unwrap();
        }
    });
    let other = node(&world, 3, Silent).await;
    other.connect(&addr(&b)).await.unwrap();
    for _ in 0..40 {
        assert!(other.request(b.peer_id(), Message::ask(BULK, "x"), SECOND).await.is_ok());
        tokio::time::sleep(SECOND).await;
    }
    assert!(metric(&b, "peerlane_replies_lost_total", "bulk") >= 3);
    asking.abort();
}

/// One that asks, and reads nothing.
async fn deaf(world: &World, seed: u8, to: &Node<Simple>) -> tokio::task::JoinHandle<()> {
    let deaf = world.transport("quic", &local(seed)).dial(&addr(to)).await.unwrap();
    let protocol = Simple::default();
    tokio::spawn(async move { while deaf.send(BULK, protocol.encode(&Message::ask(BULK, vec![0; 100_000]))).await.is_ok() {} })
}

#[tokio::test(start_paused = true)]
async fn peers_that_read_no_replies_hold_up_nobody() {
    let world = World::new();
    let b = builder(&world, &local(2), &["quic"]).config(config(|c| c.workers = 4)).handler(Echo::default()).start().await.unwrap();
    let mut asking = Vec::new();
    for seed in 10..16 {
        asking.push(deaf(&world, seed, &b).await);
    }
    let other = node(&world, 3, Silent).await;
    other.connect(&addr(&b)).await.unwrap();
    for _ in 0..30 {
        // A reply waits for ten seconds.
        other.request(b.peer_id(), Message::ask(BULK, "x"), SECOND).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    // Six times three of them waited, and eight may.
    assert!(!b.metrics_text().contains("peerlane_handlers_given_up_total 0\n"));
    asking.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn metrics_name_peer_class_and_transport() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Echo::default()).await);
    a.connect(&addr(&b)).await.unwrap();
    a.request(b.peer_id(), Message::ask(QUERY, "x"), SECOND).await.unwrap();
    let text = a.metrics_text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("peerlane_peers 1"), "{text}");
    assert_eq!(metric(&a, "peerlane_sent_messages_total", "query"), 1);
    assert_eq!(metric(&b, "peerlane_handled_total", "query"), 1);
    assert!(text.contains(&b.peer_id().to_string()), "{text}");
}
