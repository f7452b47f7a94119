//! The outbox as its driver sees it.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::pin::pin;

use bytes::BytesMut;
use futures_util::FutureExt;

use super::*;
use crate::connection::Control;

const CLASS: ClassId = ClassId(0);
const SIZE: usize = 8_000;

fn outbox(window: usize) -> Outbox {
    let class =
        TrafficClass { send_budget: 64 * cost(SIZE), max_message: SIZE, window, ..TrafficClass::new("a", 1, Urgency::Bulk, Order::Any) };
    Outbox::new(ClassTable::new(vec![class]).unwrap(), vec![true])
}

fn message() -> Bytes {
    Bytes::from_static(&[7; SIZE])
}

fn fill(outbox: &Outbox) {
    (0..64).for_each(|_| assert!(matches!(outbox.try_send(CLASS, message()), TrySend::Queued)));
}

/// Takes about one message's bytes.
fn take(outbox: &Outbox) -> usize {
    match outbox.next(SIZE + 2, DatagramState::None) {
        Some(Outgoing::Segment(segment)) => segment.bytes,
        None => 0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_senders_wait_is_counted_and_so_is_that_of_one_who_gave_up() {
    let outbox = outbox(1 << 20);
    fill(&outbox);
    let blocked = || outbox.counters()[0].snapshot().blocked_time;
    let second = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(second, outbox.send(CLASS, message())).await.is_err());
    assert_eq!(blocked(), second);
    let room = async {
        tokio::time::sleep(second).await;
        assert!((0..9).all(|_| take(&outbox) > 0));
    };
    let (sent, ()) = tokio::join!(outbox.send(CLASS, message()), room);
    sent.unwrap();
    assert_eq!(blocked(), 2 * second);
    outbox.send(CLASS, message()).await.unwrap();
    assert_eq!(blocked(), 2 * second, "there was room");
}

#[test]
fn a_waiting_sender_sleeps_until_an_eighth_of_the_budget_is_free() {
    let outbox = outbox(1 << 20);
    fill(&outbox);
    let mut waiting = pin!(outbox.send(CLASS, message()));
    assert!(waiting.as_mut().now_or_never().is_none());
    let taken = (1..=64).find(|_| {
        assert!(take(&outbox) > 0);
        waiting.as_mut().now_or_never().is_some()
    });
    assert!(taken.is_some_and(|taken| (8..=9).contains(&taken)), "{taken:?}");
}

#[test]
fn room_that_a_sender_no_longer_waits_for_is_everybodys() {
    let outbox = outbox(1 << 20);
    fill(&outbox);
    {
        let mut waiting = pin!(outbox.send(CLASS, message()));
        assert!(waiting.as_mut().now_or_never().is_none());
        take(&outbox);
        take(&outbox);
        assert!(matches!(outbox.try_send(CLASS, message()), TrySend::Full { .. }), "it waits its turn");
    }
    assert!(matches!(outbox.try_send(CLASS, message()), TrySend::Queued));
}

#[test]
fn a_class_that_is_out_of_credit_holds_no_room_back() {
    let outbox = outbox(20_000);
    fill(&outbox);
    let mut waiting = pin!(outbox.send(CLASS, message()));
    assert!(waiting.as_mut().now_or_never().is_none());
    while take(&outbox) > 0 {}
    assert!(waiting.as_mut().now_or_never().is_some(), "the class can't send on, and there is room");
}

#[test]
fn a_class_leaves_on_its_carrier_alone_and_control_frames_on_the_first() {
    let class = |name| TrafficClass::new(name, 1, Urgency::Bulk, Order::Any);
    let outbox = Outbox::new(ClassTable::new(vec![class("a"), class("b")]).unwrap(), vec![true, true]);
    let [a, b] = [ClassId(0), ClassId(1)];
    for class in [a, b] {
        assert!(matches!(outbox.try_send(class, message()), TrySend::Queued));
        assert!(matches!(outbox.try_send(class, message()), TrySend::Queued));
    }
    let next = |carrier| match outbox.next_on(carrier, SIZE + 4, Offer::default()) {
        Some(Outgoing::Segment(segment)) => format!("class {}", segment.lane.class),
        Some(Outgoing::Control(control)) => {
            let mut control = BytesMut::from(&control[..]);
            std::iter::from_fn(|| Control::decode(&mut control).unwrap()).map(|frame| format!("{frame:?} ")).collect()
        }
        None => "nothing".into(),
        other => panic!("{other:?}"),
    };
    let credit = |class| outbox.credit(Lane { class, slot: 0 }, 77);
    assert_eq!([next(0), next(0), next(1)], ["class 0", "class 1", "nothing"]);
    credit(5);
    // The other side's class 5 is our class 1.
    outbox.carry(1, |class| class == b, |remote| remote == 5);
    outbox.ping(1);
    credit(5);
    credit(6);
    let said = |class| format!("Credit {{ lane: Lane {{ class: {class}, slot: 0 }}, total: 77 }} ");
    assert_eq!(next(1), said(5), "what is said of a class goes with it");
    assert_eq!(next(1), "class 1");
    assert_eq!(next(0), ["Ping(1) ", &said(5), &said(6), "Moved(1) "].concat(), "MOVED comes after all that was said before");
    assert_eq!([next(0), next(0), next(1)], ["class 0", "nothing", "nothing"]);
}

#[tokio::test]
async fn one_keyed_message_has_room_where_a_flood_of_its_class_has_used_it_up() {
    let outbox = outbox(1 << 20);
    fill(&outbox);
    // A flood: somebody waits for whatever comes free.
    let mut waiting = pin!(outbox.send(CLASS, message()));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(matches!(outbox.send_latest(CLASS, 1, message()), Ok(Ok(None))));
    assert!(matches!(outbox.send_latest(CLASS, 2, message()), Ok(Err(TrySend::Full { .. }))), "one, not as many as there are keys");
    assert!(matches!(outbox.send_latest(CLASS, 1, message()), Ok(Ok(Some(_)))), "it can be replaced as any");
    // What it has before its time is the first that's given back, and no more of it.
    take(&outbox);
    take(&outbox);
    assert!(waiting.as_mut().now_or_never().is_none());
    for _ in 0..8 {
        take(&outbox);
    }
    assert!(waiting.now_or_never().is_some());
    assert!(matches!(outbox.send_latest(CLASS, 2, message()), Ok(Ok(None))));
}
