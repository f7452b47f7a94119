//! A connection is lost, and another one follows. What was on the lost one may be lost with it; nothing is repeated, what
//! comes of a Fifo class is in order, and events stand where they belong.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use peerlane::node::{Context, Event, Handler, Node, Silent};
use peerlane_transport::{CloseCode, Connection};
use tokio::time::sleep;

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);

/// Keeps the connection by which something came.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Option<Connection>>>);

impl Handler<Simple> for Keep {
    async fn handle(&self, context: Context<Simple>, _: Message) {
        *self.0.lock().unwrap() = Some(context.connection().clone());
    }
}

async fn send(from: &Node<Simple>, to: &Node<Simple>, numbers: std::ops::Range<u64>) {
    for n in numbers {
        from.send(to.peer_id(), &Message::number(ORDERED, n)).await.unwrap();
    }
}

#[track_caller]
fn in_order_and_once(got: &[u64]) {
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "out of order or repeated: {got:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_by_a_connection_that_its_sender_has_left_is_not_handled_after_what_came_by_the_next() {
    for (sends, receives) in [(1, 2), (2, 1)] {
        let world = World::new();
        let (keep, echo) = (Keep::default(), Echo::default());
        let (a, b) = (node(&world, sends, keep.clone()).await, node(&world, receives, echo.clone()).await);
        a.connect(&addr(&b)).await.unwrap();
        until("both know", || b.peers().len() == 1).await;
        b.send(a.peer_id(), &Message::note(CONTROL, "hello")).await.unwrap();
        until("the connection is known", || keep.0.lock().unwrap().is_some()).await;

        // Its bytes are on their way when the sender's end dies; the other end isn't told before they have arrived.
        world.wire(None, Wire::Held);
        send(&a, &b, 0..20).await;
        sleep(SECOND / 10).await;
        world.wire(None, Wire::HeldAlone);
        let first = keep.0.lock().unwrap().take().unwrap();
        first.close(CloseCode::Lost, "its host has changed networks");
        until("the sender has left it", || a.peers().is_empty()).await;
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        send(&a, &b, 100..120).await;
        until("what came by the next one is with its handler", || echo.count() > 1).await;
        assert_eq!(b.peers()[0].connections, 2, "the other side knows of no end");
        world.wire(None, Wire::Up);
        until("all that was sent by the next one is handled", || echo.numbers(ORDERED).contains(&119)).await;
        sleep(10 * SECOND).await;
        let got = echo.numbers(ORDERED);
        in_order_and_once(&got);
        assert!(got.ends_with(&(100..120).collect::<Vec<_>>()), "{got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_by_the_connection_in_use_is_handled_before_what_came_by_the_next() {
    for (sends, receives) in [(1, 2), (2, 1)] {
        let world = World::new();
        let (keep, echo) = (Keep::default(), Echo::default());
        let (a, b) = (node(&world, sends, keep.clone()).await, node(&world, receives, echo.clone()).await);
        a.connect(&addr(&b)).await.unwrap();
        send(&a, &b, 0..5).await;
        until("some are handled", || echo.count() == 5).await;
        b.send(a.peer_id(), &Message::note(CONTROL, "hello")).await.unwrap();
        until("the connection is known", || keep.0.lock().unwrap().is_some()).await;
        world.wire(None, Wire::Held);
        send(&a, &b, 5..20).await;
        sleep(SECOND / 10).await;
        world.wire(None, Wire::HeldAlone);
        let first = keep.0.lock().unwrap().take().unwrap();
        first.close(CloseCode::Lost, "its host has changed networks");
        until("the sender has left it", || a.peers().is_empty()).await;
        world.rule("quic", &b, Dialing::Refused);
        a.connect(&addr(&b)).await.unwrap();
        send(&a, &b, 100..120).await;
        sleep(SECOND / 2).await;
        assert_eq!(echo.count(), 5, "both connections seem to live");
        world.wire(None, Wire::Up);
        until("all that was sent by the next one is handled", || echo.numbers(ORDERED).contains(&119)).await;
        assert!(echo.numbers(ORDERED) == (0..20).chain(100..120).collect::<Vec<_>>(), "{:?}", echo.numbers(ORDERED));
    }
}

/// On real time and threads, because on one thread the readers of the two connections take turns that hide it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_arrived_of_a_lost_connection_is_handled_before_what_the_next_one_brings() {
    for (sends, receives) in [(1, 2), (2, 1)] {
        let world = World::new();
        let echo = Echo::default();
        let (a, b) = (node(&world, sends, Silent).await, node(&world, receives, echo.clone()).await);
        a.connect(&addr(&b)).await.unwrap();
        // 5 ms each: most of them wait for their handler when the connection is lost.
        send(&a, &b, 0..400).await;
        until("some are handled", || echo.count() > 10).await;
        world.wire(None, Wire::Cut);
        until("both know", || a.peers().is_empty() && b.peers().is_empty()).await;
        let before = echo.count();
        a.connect(&addr(&b)).await.unwrap();
        send(&a, &b, 10_000..10_100).await;
        until("all of the next one are handled", || echo.numbers(ORDERED).contains(&10_099)).await;
        let got = echo.numbers(ORDERED);
        in_order_and_once(&got);
        assert!(got.len() > before + 150, "what had arrived is handled: {} and {before}", got.len());
        assert!(got.ends_with(&(10_000..10_100).collect::<Vec<_>>()));
    }
}

/// What a node told and what its handler got, in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Connected,
    Disconnected,
    Message(u64),
}

#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<Seen>>>);

impl Handler<Simple> for Witness {
    async fn handle(&self, _: Context<Simple>, message: Message) {
        self.0.lock().unwrap().push(Seen::Message(message.as_number()));
        sleep(SECOND / 100).await;
    }
}

impl Witness {
    fn watch(&self, node: &Node<Simple>) {
        let (seen, mut events) = (self.0.clone(), node.events());
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                match event {
                    Event::PeerConnected { .. } => seen.lock().unwrap().push(Seen::Connected),
                    Event::PeerDisconnected { .. } => seen.lock().unwrap().push(Seen::Disconnected),
                    _ => {}
                }
            }
        });
    }

    fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| which(seen)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_said_to_be_gone_after_its_last_message() {
    for class in [CONTROL, ORDERED, BULK] {
        let world = World::new();
        let witness = Witness::default();
        let one = config(|c| c.workers = 1);
        let b = builder(&world, &local(2), &["quic"]).handler(witness.clone()).config(one).start().await.unwrap();
        witness.watch(&b);
        let a = node(&world, 1, Silent).await;
        a.connect(&addr(&b)).await.unwrap();
        // Three seconds of work.
        for n in 0..300 {
            a.send(b.peer_id(), &Message::number(class, n)).await.unwrap();
        }
        sleep(SECOND).await;
        world.wire(None, Wire::Cut);
        until("it's said to be gone", || witness.count(|seen| *seen == Seen::Disconnected) == 1).await;
        sleep(10 * SECOND).await;
        let seen = witness.0.lock().unwrap().clone();
        assert_eq!(seen.first(), Some(&Seen::Connected));
        assert_eq!(seen.last(), Some(&Seen::Disconnected), "{class:?}: {seen:?}");
        assert_eq!(seen.len(), 302);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_said_to_be_gone_before_it_is_said_to_be_back_however_busy_its_handlers_are() {
    let world = World::new();
    let witness = Witness::default();
    let b = node(&world, 2, witness.clone()).await;
    witness.watch(&b);
    let a = node(&world, 1, Silent).await;
    for _ in 0..5 {
        a.connect(&addr(&b)).await.unwrap();
        until("both know", || b.peers().len() == 1).await;
        send(&a, &b, 0..500).await;
        sleep(SECOND / 10).await;
        world.wire(None, Wire::Cut);
        until("both have lost it", || a.peers().is_empty() && b.peers().is_empty()).await;
    }
    until("it's said to be gone", || witness.count(|seen| *seen == Seen::Disconnected) == 5).await;
    let events: Vec<Seen> = witness.0.lock().unwrap().iter().filter(|seen| !matches!(seen, Seen::Message(_))).copied().collect();
    assert_eq!(events, [Seen::Connected, Seen::Disconnected].repeat(5));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_holds_the_news_of_the_end_up_for_a_bounded_time() {
    let world = World::new();
    let b = node(&world, 2, Echo::default()).await;
    let mut events = b.events();
    let a = node(&world, 1, Silent).await;
    a.connect(&addr(&b)).await.unwrap();
    a.send(b.peer_id(), &Message::note(BULK, "stuck")).await.unwrap();
    sleep(SECOND).await;
    let start = tokio::time::Instant::now();
    world.wire(None, Wire::Cut);
    event(&mut events, |e| matches!(e, Event::PeerDisconnected { .. }).then_some(())).await;
    assert!(start.elapsed() <= 10 * SECOND, "{:?}", start.elapsed());
}
