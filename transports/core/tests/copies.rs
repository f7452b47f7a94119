//! Copies of small urgent messages on a byte stream of their own: what is delivered, once, and what a peer can do with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod streams;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerlane_transport::{ClassId, ClassTable, CloseCode, ClosedBy, Control, class::Lane, framing::COPIES, limits, varint};
use streams::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

const ONE: [u8; 5] = [0; 5];
const AFTER: Option<Duration> = Some(Duration::from_millis(2));

fn copy(class: ClassId, number: u64, text: &[u8]) -> Vec<u8> {
    let mut payload = BytesMut::new();
    varint::put(&mut payload, number);
    payload.extend_from_slice(text);
    frame(Lane { class: class.0, slot: Lane::MESSAGE }.to_byte(), &payload)
}

/// The listener's side, with its dialer's first byte stream and the one for copies by hand.
async fn by_hand() -> (Side, DuplexStream, DuplexStream) {
    let (x, y) = tokio::io::duplex(256 * 1024);
    let side = side_with(y, false, ONE, AFTER);
    let mut copies = offer(&side, COPIES);
    accepted(&mut copies).await;
    (side, x, copies)
}

/// All that has been sent before has been looked at: a later message came.
async fn until_heard(side: &Side, first: &mut DuplexStream) {
    first.write_all(&message(BELIEF, b"now")).await.unwrap();
    assert_eq!(whole(&side.connection, BELIEF).await, b"now"[..]);
}

#[tokio::test]
async fn whichever_comes_first_counts_and_once() {
    let (b, mut first, mut copies) = by_hand().await;
    first.write_all(&message(QUERY, b"zero")).await.unwrap();
    assert_eq!(whole(&b.connection, QUERY).await, b"zero"[..]);
    // Ahead of the lane, in any order, and before a message that hasn't come at all.
    for (number, text) in [(2, b"two!"), (1, b"one!"), (0, b"zero"), (2, b"two!"), (4, b"four")] {
        copies.write_all(&copy(QUERY, number, text)).await.unwrap();
    }
    for expected in [b"two!", b"one!", b"four"] {
        assert_eq!(whole(&b.connection, QUERY).await, expected[..]);
    }
    // What comes on the lane in their place is as it likes: the message was the copy.
    for text in [&b"one!"[..], b"a lie about two", b"three", b"four"] {
        first.write_all(&message(QUERY, text)).await.unwrap();
    }
    assert_eq!(whole(&b.connection, QUERY).await, b"three"[..]);
    copies.write_all(&copy(QUERY, 3, b"three")).await.unwrap();
    copies.write_all(&copy(QUERY, 5, b"five")).await.unwrap();
    assert_eq!(whole(&b.connection, QUERY).await, b"five"[..]);
    assert!(b.connection.try_recv(QUERY).is_none());
    let stats = b.connection.stats();
    assert_eq!((stats.copies_first, stats.classes[QUERY.index()].received_messages), (4, 6));
}

/// The rest of a message is held up by a loss: its copy needn't be.
#[tokio::test]
async fn a_copy_overtakes_a_message_of_which_a_part_has_come() {
    let (b, mut first, mut copies) = by_hand().await;
    let text = [7; 3000];
    let whole_frame = message(QUERY, &text);
    // The same bytes in two frames, as they may be.
    let payload = &whole_frame[3..];
    first.write_all(&frame(Lane { class: QUERY.0, slot: 0 }.to_byte(), &payload[..1000])).await.unwrap();
    until_heard(&b, &mut first).await;
    copies.write_all(&copy(QUERY, 0, &text)).await.unwrap();
    assert_eq!(whole(&b.connection, QUERY).await, text[..]);
    first.write_all(&frame(Lane { class: QUERY.0, slot: 0 }.to_byte(), &payload[1000..])).await.unwrap();
    first.write_all(&message(QUERY, b"next")).await.unwrap();
    assert_eq!(whole(&b.connection, QUERY).await, b"next"[..]);
}

/// Copies cost no credit, and what they stand for costs and gets back what it would without them.
#[tokio::test]
async fn credit_is_the_lanes_alone() {
    let (b, mut first, mut copies) = by_hand().await;
    let window = ClassTable::standard()[QUERY].window as u64;
    let (mut sent, mut total, mut heard) = (0, window, BytesMut::new());
    for number in 0..400 {
        let text = [number as u8; 1000];
        copies.write_all(&copy(QUERY, number, &text)).await.unwrap();
        assert_eq!(whole(&b.connection, QUERY).await, text[..]);
        let lane = message(QUERY, &text);
        sent += lane.len() as u64 - 3;
        while sent > total {
            assert!(bounded(first.read_buf(&mut heard)).await.unwrap() > 0);
            while heard.len() >= 2 && heard.len() >= 2 + usize::from(heard[1]) {
                let len = usize::from(heard[1]);
                let mut frames = heard.split_to(2 + len).split_off(2);
                while let Some(said) = Control::decode(&mut frames).unwrap() {
                    let Control::Credit { lane: Lane { class: 1, slot: 0 }, total: more } = said else { panic!("{said:?}") };
                    total = more;
                }
            }
            assert!(total <= sent + window, "credit for {total} bytes after {sent}");
        }
        first.write_all(&lane).await.unwrap();
    }
    until_heard(&b, &mut first).await;
    assert!(b.connection.try_recv(QUERY).is_none());
}

#[tokio::test]
async fn what_may_not_be_a_copy_ends_the_connection() {
    let small = ClassTable::standard();
    let bad = [
        ("of a class that has an order", copy(TRANSACT, 0, b"no"), CloseCode::Protocol),
        ("of a class that isn't agreed", copy(ClassId(9), 0, b"no"), CloseCode::Protocol),
        ("larger than copies are", copy(QUERY, 0, &[0; limits::MESSAGE_STREAM + 1]), CloseCode::TooLarge),
        ("without a number", frame(0x1f, b""), CloseCode::Protocol),
        ("with half a number", frame(0x1f, &[0x80, 1]), CloseCode::Protocol),
        ("a lane's bytes", message(QUERY, b"no"), CloseCode::Protocol),
        ("a control frame", control(&Control::Ping(1)), CloseCode::Protocol),
        ("the end", control(&Control::Close { code: 0, reason: Bytes::new() }), CloseCode::Protocol),
        ("too long a frame", vec![0x1f, 0x80, 0, 0x40, 1], CloseCode::Protocol),
    ];
    assert!(small[QUERY].max_message > limits::MESSAGE_STREAM);
    for (what, bytes, code) in bad {
        let (b, _first, mut copies) = by_hand().await;
        copies.write_all(&bytes).await.unwrap();
        let closed = bounded(b.connection.closed()).await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Local, code), "{what}: {closed}");
    }
    // Nor may a copy be where lanes are.
    let (b, mut first, _copies) = by_hand().await;
    first.write_all(&copy(QUERY, 0, b"no")).await.unwrap();
    assert_eq!(bounded(b.connection.closed()).await.code, CloseCode::Protocol);
}

/// A flood of copies, of messages never sent, far ahead and long past: some are delivered, as the peer's messages, and the rest
/// is nothing. What nobody reads is bounded, and no other class waits.
#[tokio::test]
async fn a_flood_of_copies_is_bounded_and_harmless() {
    let (b, mut first, mut copies) = by_hand().await;
    for number in [u64::MAX >> 2, limits::COPIES_AHEAD, 1 << 40] {
        copies.write_all(&copy(QUERY, number, b"far")).await.unwrap();
    }
    for number in 0..5000 {
        copies.write_all(&copy(QUERY, number % 2000, &[1; 100])).await.unwrap();
    }
    let mut delivered = 0;
    while delivered < limits::COPIES_EARLY {
        assert_eq!(whole(&b.connection, QUERY).await, [1; 100][..]);
        delivered += 1;
    }
    // Nobody reads: what there's no room for isn't taken, and the lane brings it.
    for number in 0..200 {
        copies.write_all(&copy(ClassId(0), number, &[2; 4096])).await.unwrap();
    }
    until_heard(&b, &mut first).await;
    assert!(b.connection.try_recv(QUERY).is_none());
    let mut held = 0;
    while b.connection.try_recv(ClassId(0)).is_some() {
        held += 4096;
    }
    assert!(held > 0 && held <= ClassTable::standard()[ClassId(0)].receive_budget);
    // The lane goes on behind those that were early.
    for number in 0..limits::COPIES_EARLY + 1 {
        first.write_all(&message(QUERY, &(number as u32).to_be_bytes())).await.unwrap();
    }
    assert_eq!(number(&whole(&b.connection, QUERY).await) as usize, limits::COPIES_EARLY);
    assert!(b.session.closed().is_none());
}

#[tokio::test]
async fn the_end_of_the_copies_is_no_end_and_another_byte_stream_may_come() {
    let (b, mut first, mut copies) = by_hand().await;
    for round in 0..3u64 {
        assert_eq!(b.joining.count(), 2);
        assert!(b.joining.take(COPIES).is_none(), "there's one at a time");
        // In the middle of a frame.
        copies.write_all(&copy(QUERY, round, &[3; 500])[..100]).await.unwrap();
        drop(copies);
        bounded(async {
            while b.joining.count() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        first.write_all(&message(QUERY, &round.to_be_bytes())).await.unwrap();
        assert_eq!(whole(&b.connection, QUERY).await, round.to_be_bytes()[..]);
        b.connection.send(QUERY, Bytes::from_static(b"on the lane")).await.unwrap();
        let expected = message(QUERY, b"on the lane");
        let mut heard = vec![0; expected.len()];
        bounded(first.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, expected);
        copies = offer(&b, COPIES);
        accepted(&mut copies).await;
        while b.joining.count() < 2 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn where_copies_are_not_offered_by_both_their_byte_stream_is_not_taken() {
    let (x, y) = tokio::io::duplex(64 * 1024);
    let b = side(y, false, ONE);
    let mut first = x;
    let mut copies = offer(&b, COPIES);
    assert_eq!(bounded(copies.read(&mut [0])).await.unwrap(), 0, "it's closed");
    until_heard(&b, &mut first).await;
    assert_eq!(b.joining.count(), 1);
}

/// Reads until `expected` is there, and tells what else is.
async fn reads(io: &mut DuplexStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    bounded(io.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn a_copy_follows_its_message_and_only_what_needs_no_order_has_one() {
    let (b, mut first, mut copies) = by_hand().await;
    let classes = ClassTable::standard();
    let long = vec![9; limits::MESSAGE_STREAM + 1];
    // Numbers are counted from the start, whether there are copies or not.
    for (class, text, copied) in [
        (QUERY, &b"zero"[..], Some(0)),
        (TRANSACT, b"in order", None),
        (BELIEF, b"bulk", None),
        (DATA, b"bulk", None),
        (QUERY, &long, None),
        (QUERY, b"two", Some(2)),
        (ClassId(0), b"control", Some(0)),
    ] {
        assert!(classes.iter().any(|(id, _)| id == class));
        let start = tokio::time::Instant::now();
        b.connection.send(class, Bytes::copy_from_slice(text)).await.unwrap();
        reads(&mut first, &message(class, text)).await;
        if let Some(number) = copied {
            reads(&mut copies, &copy(class, number, text)).await;
            assert!(start.elapsed() >= AFTER.unwrap());
        }
    }
    assert_eq!(b.connection.stats().copies_sent, 3);
    // All that's due at once.
    for text in [b"a", b"b", b"c"] {
        b.connection.send(QUERY, Bytes::from_static(text)).await.unwrap();
    }
    for (number, text) in [(3, b"a"), (4, b"b"), (5, b"c")] {
        reads(&mut copies, &copy(QUERY, number, text)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_stream_for_copies_that_stands_still_holds_nothing_up() {
    let (b, mut first, copies) = by_hand().await;
    for n in 0..2000u32 {
        let text = numbered(n, 1000);
        b.connection.send(QUERY, text.clone()).await.unwrap();
        reads(&mut first, &message(QUERY, &text)).await;
        if n % 50 == 49 {
            let total = 1003 * u64::from(n + 1) + ClassTable::standard()[QUERY].window as u64;
            first.write_all(&control(&Control::Credit { lane: Lane { class: QUERY.0, slot: 0 }, total })).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(b.joining.count(), 2);
    b.connection.close(CloseCode::Shutdown, "enough");
    bounded(b.driver).await.unwrap();
    drop(copies);
}

/// Passes bytes on, each a while later than it came: as a path would that holds all up now and then.
fn held_up(from: DuplexStream, to: DuplexStream, pause: Duration) -> JoinHandle<()> {
    async fn pass(mut from: tokio::io::ReadHalf<DuplexStream>, mut to: tokio::io::WriteHalf<DuplexStream>, pause: Duration) {
        let mut buffer = vec![0; 4000];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            tokio::time::sleep(pause).await;
            if to.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }
    let ((a, b), (c, d)) = (tokio::io::split(from), tokio::io::split(to));
    tokio::spawn(async move {
        tokio::join!(pass(a, d, pause), pass(c, b, pause));
    })
}

/// All classes both ways, with copies that are there before, behind and in between, and whose byte stream comes and goes: nothing is
/// lost, twice, or out of its order, and the end is counted rightly.
#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_twice_or_out_of_order_with_copies() {
    const COUNT: u32 = 300;
    let ms = Duration::from_millis;
    for (lanes, copies) in [(ms(7), ms(0)), (ms(0), ms(7)), (ms(2), ms(2))] {
        let [(w, x), (y, z)] = [tokio::io::duplex(16 * 1024), tokio::io::duplex(16 * 1024)];
        let _path = held_up(x, y, lanes);
        let (a, b) = (side_with(w, true, ONE, AFTER), side_with(z, false, ONE, AFTER));
        let mut tasks = Vec::new();
        for (from, to) in [(&a, &b), (&b, &a)] {
            for (class, info) in ClassTable::standard().iter() {
                let (from, to, max) = (from.connection.clone(), to.connection.clone(), info.max_message.min(70_000));
                tasks.push(tokio::spawn(async move {
                    for n in 0..COUNT {
                        from.send(class, numbered(n, [10, 300, 2000, 10, 6000, 70_000][n as usize % 6].min(max))).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(5)).await;
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
        for _ in 0..3 {
            let (c, d) = tokio::io::duplex(16 * 1024);
            let mut offered = offer(&b, COPIES);
            accepted(&mut offered).await;
            let path = held_up(d, offered, copies);
            assert!(a.joining.attach(a.joining.take(COPIES).unwrap(), c, BytesMut::new()));
            tokio::time::sleep(ms(300)).await;
            path.abort();
            while a.joining.count() + b.joining.count() > 2 {
                tokio::time::sleep(ms(1)).await;
            }
        }
        for task in tasks {
            bounded(task).await.unwrap();
        }
        let [here, there] = [&a, &b].map(|side| side.connection.stats());
        for stats in [here, there] {
            let (sent, first) = (stats.copies_sent, stats.copies_first);
            assert!(sent > 20 && (lanes <= copies || first > 20), "{sent} sent, {first} came first: it isn't tried");
        }
        let (drained, other) = bounded(async {
            tokio::join!(a.connection.drain(), async {
                b.connection.remote_draining().await;
                b.connection.drain().await
            })
        })
        .await;
        drained.unwrap();
        other.unwrap();
    }
}
