//! What goes wrong between two peers that are connected, and what becomes of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use peerlane_sim::{Link, World};
use peerlane_transport::{CloseCode, Closed, ClosedBy, Connection, Inbound, RecvError, SendError, TrySend, limits::Limits};
use tokio::time::Instant;

const IDLE: Duration = Duration::from_secs(30);

fn end(closed: &Closed) -> (ClosedBy, CloseCode) {
    (closed.by, closed.code)
}

async fn gone(world: &World) {
    tokio::time::sleep(ms(2_000)).await;
    assert_eq!(world.connections(), 0, "{world:?} still holds connections");
}

#[test]
fn a_partition_ends_both_sides_after_the_idle_timeout() {
    run(async {
        assert_eq!(Limits::default().idle_timeout, IDLE);
        let (world, a, b) = pair(1, Link::default()).await;
        a.send(QUERY, pattern(10, 1)).await.unwrap();
        whole(&b, QUERY).await;
        world.partition(&peer(1), &peer(2));
        let start = Instant::now();
        let (at_a, at_b) = tokio::join!(a.closed(), b.closed());
        assert_eq!((end(&at_a), end(&at_b)), ((ClosedBy::Transport, CloseCode::TimedOut), (ClosedBy::Transport, CloseCode::TimedOut)));
        assert!(start.elapsed() >= IDLE && start.elapsed() <= IDLE + ms(2_000), "{:?}", start.elapsed());
        gone(&world).await;
    })
}

#[test]
fn a_shorter_partition_heals_and_loses_nothing() {
    run(async {
        let (world, a, b) = pair(1, Link { latency: ms(20), ..Link::default() }).await;
        for i in 0..20 {
            a.send(TRANSACT, pattern(10_000, i)).await.unwrap();
        }
        // Cut with segments on the way in both directions, acknowledgements among them.
        tokio::time::sleep(ms(21)).await;
        world.partition(&peer(1), &peer(2));
        for i in 20..24 {
            a.send(TRANSACT, pattern(10_000, i)).await.unwrap();
        }
        tokio::time::sleep(IDLE - ms(2_000)).await;
        let before = world.delivered();
        tokio::time::sleep(ms(500)).await;
        assert_eq!(world.delivered(), before, "nothing passes");
        world.heal(&peer(1), &peer(2));
        let start = Instant::now();
        for i in 0..24 {
            assert_eq!(whole(&b, TRANSACT).await, pattern(10_000, i));
        }
        assert!(start.elapsed() <= ms(300), "sent again soon after the cut: {:?}", start.elapsed());
        tokio::time::sleep(2 * IDLE).await;
        assert!(a.close_reason().is_none() && b.close_reason().is_none());
        assert_eq!(world.in_flight(&peer(1), &peer(2)), 0);
    })
}

#[test]
fn one_way_suffices_to_end_it() {
    run(async {
        let (world, a, b) = pair(1, Link::default()).await;
        world.partition_one_way(&peer(1), &peer(2));
        b.send(QUERY, pattern(10, 1)).await.unwrap();
        assert_eq!(whole(&a, QUERY).await, pattern(10, 1), "the other way goes on");
        assert_eq!(end(&b.closed().await), (ClosedBy::Transport, CloseCode::TimedOut));
        // B says nothing any more, and what A says doesn't arrive.
        assert_eq!(end(&a.closed().await), (ClosedBy::Transport, CloseCode::TimedOut));
        gone(&world).await;
    })
}

#[test]
fn a_peer_that_gave_up_is_noticed_at_the_first_segment_after_the_cut() {
    run(async {
        let short = peerlane_transport::admission::Terms { limits: limits(ms(5_000)), ..terms() };
        let world = World::new(1);
        let (a, b) = connect(&world, 1, 2, &short).await;
        world.partition_one_way(&peer(1), &peer(2));
        assert_eq!(end(&b.closed().await), (ClosedBy::Transport, CloseCode::TimedOut));
        assert!(a.close_reason().is_none());
        world.heal(&peer(1), &peer(2));
        let start = Instant::now();
        a.send(QUERY, pattern(1, 1)).await.unwrap();
        let closed = a.closed().await;
        assert_eq!(end(&closed), (ClosedBy::Transport, CloseCode::Lost), "{closed}");
        assert!(start.elapsed() <= ms(5), "{:?}", start.elapsed());
        gone(&world).await;
    })
}

fn limits(idle_timeout: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = idle_timeout;
    limits
}

#[test]
fn a_stalled_class_stalls_no_other_and_loses_nothing() {
    run(async {
        // A window much smaller than the stalled class's credit.
        let (world, a, b) = pair(1, Link { latency: ms(10), rate: Some(5_000_000), ..Link::default() }).await;
        world.stall(&peer(1), &peer(2), "belief");
        let mut queued = 0;
        while tokio::time::timeout(ms(1_000), a.send(BELIEF, pattern([60_000, 90_000][queued % 2], queued as u8))).await.is_ok() {
            queued += 1;
            assert!(queued < 1_000, "no backpressure");
        }
        assert!(matches!(a.try_send(BELIEF, pattern(60_000, 0)), TrySend::Full { .. }));
        assert_eq!(world.in_flight(&peer(1), &peer(2)), 0, "what is held up isn't on the way");
        for i in 0..50 {
            let start = Instant::now();
            a.send(QUERY, pattern(100, i)).await.unwrap();
            assert_eq!(whole(&b, QUERY).await, pattern(100, i));
            assert!(start.elapsed() <= ms(12), "{:?}", start.elapsed());
        }
        a.send(DATA, pattern(1 << 19, 5)).await.unwrap();
        assert_eq!(whole(&b, DATA).await, pattern(1 << 19, 5));
        assert!(b.try_recv(BELIEF).is_none());
        // The other direction isn't stalled.
        b.send(BELIEF, pattern(7, 7)).await.unwrap();
        assert_eq!(whole(&a, BELIEF).await, pattern(7, 7));
        world.unstall(&peer(1), &peer(2), "belief");
        for _ in 0..queued {
            whole(&b, BELIEF).await;
        }
    })
}

#[test]
fn a_reset_ends_both_ends_and_no_other_connection() {
    run(async {
        let world = World::new(1);
        let (a, b) = connect(&world, 1, 2, &terms()).await;
        let (c, d) = connect(&world, 2, 1, &terms()).await;
        let (e, f) = connect(&world, 1, 3, &terms()).await;
        assert_eq!((world.connections(), world.reset(&peer(1), &peer(2))), (3, 2));
        for connection in [&a, &b, &c, &d] {
            assert_eq!(end(&connection.closed().await), (ClosedBy::Transport, CloseCode::Lost));
            assert!(matches!(connection.send(QUERY, Bytes::new()).await, Err(SendError::Closed(_))));
        }
        e.send(QUERY, pattern(5, 5)).await.unwrap();
        assert_eq!(whole(&f, QUERY).await, pattern(5, 5));
        drop((e, f));
        gone(&world).await;
    })
}

#[test]
fn dropping_the_last_handle_closes_and_tells_the_other_side() {
    run(async {
        let (world, a, b) = pair(1, Link { latency: ms(10), ..Link::default() }).await;
        let clone = a.clone();
        drop(a);
        tokio::time::sleep(ms(100)).await;
        assert!(b.close_reason().is_none(), "a clone is left");
        drop(clone);
        let start = Instant::now();
        assert_eq!(end(&b.closed().await), (ClosedBy::Remote, CloseCode::Done));
        assert_eq!(start.elapsed(), ms(10));
        gone(&world).await;
    })
}

#[test]
fn a_close_goes_through_a_bad_link_with_code_and_reason() {
    run(async {
        for seed in 0..50 {
            let (world, a, b) = pair(seed, Link { latency: ms(10), loss: 0.3, ..Link::default() }).await;
            a.close(CloseCode::Application, "enough");
            let closed = b.closed().await;
            assert_eq!((end(&closed), &*closed.reason), ((ClosedBy::Remote, CloseCode::Application), "enough"), "seed {seed}");
            gone(&world).await;
        }
    })
}

#[test]
fn a_close_into_a_cut_is_said_in_vain() {
    run(async {
        let (world, a, b) = pair(1, Link::default()).await;
        world.partition(&peer(1), &peer(2));
        a.close(CloseCode::Shutdown, "");
        assert_eq!(end(&b.closed().await), (ClosedBy::Transport, CloseCode::TimedOut));
        gone(&world).await;
    })
}

async fn take_all(connection: &Connection) -> usize {
    let mut got = 0;
    while let Ok(Inbound::Whole(_)) = connection.recv(DATA).await {
        got += 1;
    }
    got
}

#[test]
fn drain_delivers_all_over_a_bad_link() {
    run(async {
        for seed in 0..20 {
            let link = Link { latency: ms(10), jitter: ms(10), loss: 0.1, rate: Some(10_000_000), ..Link::default() };
            let (world, a, b) = pair(seed, link).await;
            for i in 0..30 {
                a.send(DATA, pattern(30_000 + i * 1000, 1)).await.unwrap();
                b.send(DATA, pattern(100, 1)).await.unwrap();
            }
            let other = async {
                b.remote_draining().await;
                b.drain().await
            };
            let (at_a, at_b, got, got_back) = tokio::join!(a.drain(), other, take_all(&b), take_all(&a));
            at_a.unwrap();
            at_b.unwrap();
            assert_eq!((got, got_back), (30, 30), "seed {seed}");
            gone(&world).await;
        }
    })
}

#[test]
fn a_dropped_send_queues_nothing_and_a_dropped_recv_loses_nothing() {
    run(async {
        let (_, a, b) = pair(1, Link { latency: ms(10), rate: Some(1_000_000), ..Link::default() }).await;
        let mut sent = 0;
        while tokio::time::timeout(ms(1), a.send(TRANSACT, pattern(100_000, sent))).await.is_ok() {
            sent += 1;
        }
        let mut got = 0;
        while got < sent {
            if let Ok(message) = tokio::time::timeout(ms(3), whole(&b, TRANSACT)).await {
                assert_eq!(message, pattern(100_000, got));
                got += 1;
            }
        }
        a.send(TRANSACT, pattern(3, 3)).await.unwrap();
        assert_eq!(whole(&b, TRANSACT).await, pattern(3, 3));
    })
}

#[test]
fn a_streamed_message_cut_off_by_the_end_says_so() {
    run(async {
        let (world, a, b) = pair(1, Link::default()).await;
        let mut writer = a.open(DATA).await.unwrap();
        writer.write(&mut pattern(30_000, 1)).await.unwrap();
        let Inbound::Streamed(mut reader) = b.recv(DATA).await.unwrap() else { panic!("whole") };
        tokio::time::sleep(ms(10)).await;
        world.reset(&peer(1), &peer(2));
        let mut got = 0;
        let error = loop {
            match reader.read().await {
                Ok(Some(chunk)) => got += chunk.len(),
                Ok(None) => panic!("taken for complete"),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, RecvError::Closed(closed) if closed.code == CloseCode::Lost), "{error}");
        assert_eq!(got, 30_000);
        assert!(writer.write(&mut pattern(1, 1)).await.is_err());
    })
}
