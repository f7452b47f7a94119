//! One connection over several byte streams in memory: what moves, in which order, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod streams;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerlane_transport::{
    ClassTable, CloseCode, ClosedBy, Control,
    class::{Lane, Record},
};
use streams::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// TRANSACT, whose messages must keep their order, goes on carrier 1 with the bulk classes; on the other side on carrier 2.
const HERE: [u8; 5] = [0, 0, 1, 1, 1];
const THERE: [u8; 5] = [0, 0, 2, 1, 2];

/// `a` dialed.
fn pair() -> (Side, Side) {
    let (x, y) = tokio::io::duplex(16 * 1024);
    (side(x, true, HERE), side(y, false, THERE))
}

/// Messages of all sizes in every class both ways while carriers join: none is lost, twice, or out of its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_overtaken_when_classes_move() {
    const COUNT: u32 = 200;
    for moment in [0u32, 1, 5, 40, 150] {
        let (a, b) = pair();
        let mut tasks = Vec::new();
        for (from, to) in [(&a, &b), (&b, &a)] {
            for (class, info) in ClassTable::standard().iter() {
                let (from, to, max) = (from.connection.clone(), to.connection.clone(), info.max_message.min(100_000));
                tasks.push(tokio::spawn(async move {
                    for n in 0..COUNT {
                        from.send(class, numbered(n, [10, 3000, 70_000][n as usize % 3].min(max))).await.unwrap();
                    }
                }));
                tasks.push(tokio::spawn(async move {
                    let mut got = Vec::new();
                    for _ in 0..COUNT {
                        got.push(number(&whole(&to, class).await));
                    }
                    if class != TRANSACT {
                        got.sort_unstable();
                    }
                    assert!(got.into_iter().eq(0..COUNT), "class {class}");
                }));
            }
        }
        while a.connection.stats().classes[BELIEF.index()].sent_messages < u64::from(moment) {
            tokio::task::yield_now().await;
        }
        join(&a, &b, 1).await;
        join(&a, &b, 2).await;
        for task in tasks {
            bounded(task).await.unwrap();
        }
        assert_eq!((a.joining.count(), b.joining.count()), (3, 3));
        let (drained, other) = bounded(async {
            tokio::join!(a.connection.drain(), async {
                b.connection.remote_draining().await;
                b.connection.drain().await
            })
        })
        .await;
        drained.unwrap();
        other.unwrap();
        bounded(a.driver).await.unwrap();
        bounded(b.driver).await.unwrap();
    }
}

/// The listener's side, and its dialer by hand.
fn by_hand() -> (Side, DuplexStream) {
    let (x, y) = tokio::io::duplex(64 * 1024);
    (side(y, false, HERE), x)
}

#[tokio::test]
async fn what_comes_on_a_carrier_waits_for_what_was_sent_before_it() {
    let (b, mut first) = by_hand();
    let mut second = offer(&b, 1);
    accepted(&mut second).await;
    // The second message of a Fifo class is here before the first one.
    second.write_all(&message(TRANSACT, b"two")).await.unwrap();
    first.write_all(&message(QUERY, b"asked")).await.unwrap();
    assert_eq!(whole(&b.connection, QUERY).await, b"asked"[..]);
    assert!(b.connection.try_recv(TRANSACT).is_none());
    first.write_all(&message(TRANSACT, b"one")).await.unwrap();
    first.write_all(&control(&Control::Moved(1))).await.unwrap();
    assert_eq!(whole(&b.connection, TRANSACT).await, b"one"[..]);
    assert_eq!(whole(&b.connection, TRANSACT).await, b"two"[..]);

    // It moves too: MOVED on the first carrier, its classes and their credit on the second.
    b.connection.send(BELIEF, Bytes::from_static(b"bulk")).await.unwrap();
    let moved = control(&Control::Moved(1));
    let mut heard = vec![0; moved.len()];
    bounded(first.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, moved);
    let belief = message(BELIEF, b"bulk");
    let mut heard = vec![0; belief.len()];
    bounded(second.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, belief);
    second.write_all(&message(DATA, &[7; 40_000])).await.ok();
}

/// The same for the dialer, who moves first.
#[tokio::test]
async fn the_dialer_waits_for_the_other_sides_move_too() {
    let (io, mut first) = tokio::io::duplex(64 * 1024);
    let a = side(io, true, HERE);
    let (io, mut second) = tokio::io::duplex(64 * 1024);
    assert!(a.joining.attach(a.joining.take(1).unwrap(), io, BytesMut::new()));
    let moved = control(&Control::Moved(1));
    let mut heard = vec![0; moved.len()];
    bounded(first.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, moved);
    second.write_all(&message(TRANSACT, b"two")).await.unwrap();
    first.write_all(&message(QUERY, b"asked")).await.unwrap();
    assert_eq!(whole(&a.connection, QUERY).await, b"asked"[..]);
    assert!(a.connection.try_recv(TRANSACT).is_none());
    first.write_all(&message(TRANSACT, b"one")).await.unwrap();
    first.write_all(&moved).await.unwrap();
    assert_eq!(whole(&a.connection, TRANSACT).await, b"one"[..]);
    assert_eq!(whole(&a.connection, TRANSACT).await, b"two"[..]);
}

#[tokio::test]
async fn a_dialer_that_gives_up_may_try_again() {
    let (b, mut first) = by_hand();
    for _ in 0..3 {
        let mut given_up = offer(&b, 1);
        accepted(&mut given_up).await;
        assert!(b.joining.take(1).is_none(), "a number is taken once");
        drop(given_up);
        bounded(async {
            while b.joining.take(1).is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(b.joining.count(), 1);
    }
    // Nobody waits for it: what has no carrier of its own goes on the first one.
    b.connection.send(BELIEF, Bytes::from_static(b"bulk")).await.unwrap();
    let expected = message(BELIEF, b"bulk");
    let mut heard = vec![0; expected.len()];
    bounded(first.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_frame_that_may_not_stand_there_ends_the_connection() {
    enum On {
        First,
        Second,
    }
    let bad = [
        ("a move to a carrier that hasn't joined", On::First, Control::Moved(2)),
        ("a move to the first carrier", On::First, Control::Moved(0)),
        ("a move to one beyond all bounds", On::First, Control::Moved(255)),
        ("a second move", On::First, Control::Moved(1)),
        ("a JOIN", On::First, Control::Join { carrier: 2, token: [0; 48].into() }),
        ("a PING that isn't on the first carrier", On::Second, Control::Ping(1)),
        ("a CLOSE that isn't on the first carrier", On::Second, Control::Close { code: 0, reason: Bytes::new() }),
    ];
    for (what, on, sent) in bad {
        let (b, mut first) = by_hand();
        let mut second = offer(&b, 1);
        accepted(&mut second).await;
        first.write_all(&control(&Control::Moved(1))).await.unwrap();
        let io = match on {
            On::First => &mut first,
            On::Second => &mut second,
        };
        io.write_all(&control(&sent)).await.unwrap();
        let closed = bounded(b.connection.closed()).await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::Protocol), "{what}");
    }
    // Credit is measured per lane, whichever carrier its bytes come on.
    let (b, mut first) = by_hand();
    let mut second = offer(&b, 1);
    accepted(&mut second).await;
    let window = ClassTable::standard()[TRANSACT].window;
    let lane = Lane { class: TRANSACT.0, slot: 0 }.to_byte();
    let mut head = BytesMut::new();
    Record::Start(0).encode(&mut head);
    first.write_all(&frame(lane, &head)).await.unwrap();
    first.write_all(&control(&Control::Moved(1))).await.unwrap();
    let writing = async {
        // Nobody reads the streamed message.
        for _ in 0..window / 16_000 + 8 {
            let mut part = BytesMut::new();
            Record::Part(16_000).encode(&mut part);
            part.resize(part.len() + 16_000, 0);
            if second.write_all(&frame(lane, &part)).await.is_err() {
                return;
            }
        }
    };
    let (closed, ()) = bounded(async { tokio::join!(b.connection.closed(), writing) }).await;
    assert_eq!(closed.code, CloseCode::FlowControl);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_one_carrier_is_the_end_of_all() {
    for dead in [0, 1, 2] {
        // As one end sees it whose other one is gone: without a word on one carrier, the others stay open.
        let (b, first) = by_hand();
        let mut streams = vec![Some(first)];
        for number in [1, 2] {
            let mut io = offer(&b, number);
            accepted(&mut io).await;
            streams[0].as_mut().unwrap().write_all(&control(&Control::Moved(number))).await.unwrap();
            streams.push(Some(io));
        }
        while b.joining.count() < 3 {
            tokio::task::yield_now().await;
        }
        streams[dead].take();
        let closed = bounded(b.connection.closed()).await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::Lost), "{closed}");
        assert!(dead == 0 || closed.reason.contains(&format!("carrier {dead}")), "{closed}");
        bounded(b.driver).await.unwrap();
        // Nothing holds the streams any more.
        for mut io in streams.into_iter().flatten() {
            bounded(io.read_to_end(&mut Vec::new())).await.unwrap();
        }
    }
}

/// A byte stream may end before another one's last words are there.
#[tokio::test(start_paused = true)]
async fn why_it_ended_is_heard_though_a_carrier_ends_first() {
    let (b, mut first) = by_hand();
    let mut second = offer(&b, 1);
    accepted(&mut second).await;
    first.write_all(&control(&Control::Moved(1))).await.unwrap();
    while b.joining.count() < 2 {
        tokio::task::yield_now().await;
    }
    drop(second);
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.write_all(&control(&Control::Close { code: 1, reason: Bytes::from_static(b"bye") })).await.unwrap();
    let closed = bounded(b.connection.closed()).await;
    assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Shutdown, "bye"));
}

#[tokio::test]
async fn a_carrier_that_stands_still_stops_no_other() {
    let (b, mut first) = by_hand();
    let mut second = offer(&b, 1);
    accepted(&mut second).await;
    first.write_all(&control(&Control::Moved(1))).await.unwrap();
    let mut moved = vec![0; control(&Control::Moved(1)).len()];
    bounded(first.read_exact(&mut moved)).await.unwrap();
    // Nobody reads the second one. Its classes fill their queues; the first one's classes go on.
    while let peerlane_transport::TrySend::Queued = b.connection.try_send(BELIEF, numbered(1, 60_000)) {}
    for n in 0..50u8 {
        b.connection.send(QUERY, Bytes::from(vec![n; 5])).await.unwrap();
        let expected = message(QUERY, &[n; 5]);
        let mut heard = vec![0; expected.len()];
        bounded(first.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, expected);
        first.write_all(&expected).await.unwrap();
        assert_eq!(whole(&b.connection, QUERY).await, [n; 5][..]);
    }
    assert!(b.session.closed().is_none());
    b.connection.close(CloseCode::Shutdown, "enough");
    let mut rest = Vec::new();
    bounded(first.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"enough"), "the last words are the first carrier's");
    drop(first);
    bounded(b.driver).await.unwrap();
}
