//! What a link does to the traffic on it. The clock is virtual, so times are asserted as they are.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use peerlane_sim::{Link, World};
use peerlane_transport::{ClassTable, Delivery, Inbound, TrafficClass, admission::Terms};
use tokio::time::Instant;

#[test]
fn latency_is_kept_to_the_millisecond_each_way() {
    run(async {
        let world = World::new(1);
        world.set_link_one_way(&peer(1), &peer(2), Link { latency: ms(70), ..Link::default() });
        world.set_link_one_way(&peer(2), &peer(1), Link { latency: ms(30), ..Link::default() });
        let (a, b) = connect(&world, 1, 2, &terms()).await;
        // HELLO there, HELLO and ACCEPT back and forth: the dialer is done first, the acceptor when the dialer's ACCEPT is there.
        assert_eq!(world.elapsed(), ms(170));
        for (from, to, latency) in [(&a, &b, 70), (&b, &a, 30)] {
            let start = Instant::now();
            from.send(QUERY, pattern(100, 1)).await.unwrap();
            assert_eq!(whole(to, QUERY).await, pattern(100, 1));
            assert_eq!(start.elapsed(), ms(latency));
        }
        assert_eq!(a.ping().await.unwrap(), ms(100));
        assert_eq!(a.stats().path.rtt, Some(ms(100)));
    })
}

#[test]
fn a_rate_is_filled_and_not_exceeded() {
    run(async {
        let (_, a, b) = pair(1, Link { latency: ms(50), rate: Some(1_000_000), ..Link::default() }).await;
        tokio::time::sleep(ms(1000)).await;
        let start = Instant::now();
        let send = async {
            for _ in 0..80 {
                a.send(BELIEF, pattern(50_000, 1)).await.unwrap();
            }
        };
        let receive = async {
            for _ in 0..80 {
                whole(&b, BELIEF).await;
            }
        };
        tokio::join!(send, receive);
        // 4 MB and some 800 bytes of heads, BELIEF's and credit's: 4 s and a bit, then 50 ms of way.
        let took = start.elapsed();
        assert!(took >= ms(4050) && took <= ms(4056), "{took:?}");
    })
}

#[test]
fn an_urgent_message_waits_for_the_link_queue_and_no_longer() {
    run(async {
        let link = Link { latency: ms(20), rate: Some(1_000_000), ..Link::default() };
        let (world, a, b) = pair(1, link).await;
        let flood = tokio::spawn({
            let a = a.clone();
            async move { while a.send(BELIEF, pattern(65_536, 1)).await.is_ok() {} }
        });
        tokio::spawn({
            let b = b.clone();
            async move { while b.recv(BELIEF).await.is_ok() {} }
        });
        tokio::time::sleep(ms(1000)).await;
        assert!(world.in_flight(&peer(1), &peer(2)) > 20_000, "the flood fills the link");
        for _ in 0..50 {
            let start = Instant::now();
            a.send(QUERY, pattern(100, 2)).await.unwrap();
            whole(&b, QUERY).await;
            // 20 ms of way, 5 of queue, a segment before it, and the clock's grain.
            assert!(start.elapsed() <= ms(20 + 5 + 2 + 2), "{:?}", start.elapsed());
            tokio::time::sleep(ms(7)).await;
        }
        flood.abort();
    })
}

#[test]
fn two_connections_share_a_link_evenly() {
    run(async {
        let world = World::new(1);
        world.set_link(&peer(1), &peer(2), Link { rate: Some(2_000_000), ..Link::default() });
        let mut received = Vec::new();
        for _ in 0..2 {
            let (a, b) = connect(&world, 1, 2, &terms()).await;
            tokio::spawn(async move { while a.send(BELIEF, pattern(60_000, 1)).await.is_ok() {} });
            let taker = b.clone();
            tokio::spawn(async move { while taker.recv(BELIEF).await.is_ok() {} });
            received.push(b);
        }
        tokio::time::sleep(ms(10_000)).await;
        let bytes: Vec<_> = received.iter().map(|b| b.stats().classes[BELIEF.index()].received_bytes).collect();
        assert!(bytes.iter().sum::<u64>() > 19_500_000, "{bytes:?}");
        assert!(bytes[0].abs_diff(bytes[1]) < 200_000, "{bytes:?}");
    })
}

#[test]
fn a_window_is_never_exceeded_and_gives_the_rate() {
    run(async {
        let (world, a, b) = pair(1, Link { latency: ms(50), window: Some(100_000), ..Link::default() }).await;
        let start = Instant::now();
        tokio::spawn(async move {
            for _ in 0..100 {
                a.send(BELIEF, pattern(65_536, 1)).await.unwrap();
            }
            a.drain().await
        });
        let mut most = 0;
        for _ in 0..100 {
            most = most.max(world.in_flight(&peer(1), &peer(2)));
            whole(&b, BELIEF).await;
        }
        assert!(most > 80_000 && most <= 100_000, "{most}");
        // Six segments of 16 KiB fit the window, each 100 ms: 6.5 MB take 67 round trips.
        let took = start.elapsed().as_millis();
        assert!((6_600..6_900).contains(&took), "{took} ms");
    })
}

#[test]
fn a_loss_costs_one_retransmission_and_only_its_lane() {
    run(async {
        let (world, a, b) = pair(3, Link { latency: ms(40), ..Link::default() }).await;
        let lost = world.lose_next(&peer(1), &peer(2));
        let start = Instant::now();
        a.send(TRANSACT, pattern(10, 1)).await.unwrap();
        lost.await;
        tokio::time::sleep(ms(1)).await;
        a.send(TRANSACT, pattern(10, 2)).await.unwrap();
        a.send(QUERY, pattern(10, 3)).await.unwrap();
        whole(&b, QUERY).await;
        assert_eq!(start.elapsed(), ms(41), "QUERY waits for nobody");
        assert_eq!(b.try_recv(TRANSACT).map(|_| ()), None, "the second waits for the first");
        assert_eq!(whole(&b, TRANSACT).await, pattern(10, 1));
        // Noticed 9/8 of 80 ms after it left, then 40 ms of way.
        assert_eq!(start.elapsed(), ms(130));
        assert_eq!(whole(&b, TRANSACT).await, pattern(10, 2));
        assert_eq!(start.elapsed(), ms(130));
        assert_eq!(a.stats().path.lost, Some(1));
    })
}

#[test]
fn order_in_a_fifo_class_survives_loss_and_jitter() {
    run(async {
        let (_, a, b) = pair(5, Link { latency: ms(10), jitter: ms(30), loss: 0.1, ..Link::default() }).await;
        let send = async {
            for i in 0..500u32 {
                let mut message = i.to_be_bytes().to_vec();
                message.resize([4, 20_000, 1_000, 150_000][i as usize % 4], 7);
                a.send(TRANSACT, message.into()).await.unwrap();
            }
        };
        let receive = async {
            for i in 0..500u32 {
                assert_eq!(whole(&b, TRANSACT).await[..4], i.to_be_bytes());
            }
        };
        tokio::join!(send, receive);
        assert!(a.stats().path.lost > Some(100));
    })
}

#[test]
fn every_size_arrives_whole_over_a_bad_link() {
    run(async {
        let (_, a, b) = pair(6, Link { latency: ms(5), jitter: ms(5), loss: 0.05, rate: Some(20_000_000), ..Link::default() }).await;
        for (class, info) in ClassTable::standard().iter() {
            for len in [0, 1, 1024, 16_384, 65_536, 65_537, info.max_message] {
                let len = len.min(info.max_message);
                a.send(class, pattern(len, 3)).await.unwrap();
                assert_eq!(whole(&b, class).await, pattern(len, 3));
            }
        }
        let mut writer = b.open(DATA).await.unwrap();
        let write = async {
            for i in 0..64u8 {
                writer.write(&mut pattern(100_000, i)).await.unwrap();
            }
            writer.finish().unwrap();
        };
        let read = async {
            let Inbound::Streamed(reader) = a.recv(DATA).await.unwrap() else { panic!("whole") };
            reader.collect(10_000_000).await.unwrap()
        };
        let ((), got) = tokio::join!(write, read);
        assert!(got == (0..64u8).flat_map(|i| pattern(100_000, i)).collect::<Bytes>());
    })
}

fn with_datagrams() -> Terms {
    let standard = ClassTable::standard();
    let classes = standard.iter().map(|(_, class)| class.clone());
    let datagram =
        |class: TrafficClass| if &*class.name == "belief" { TrafficClass { delivery: Delivery::Datagram, ..class } } else { class };
    Terms { classes: ClassTable::new(classes.map(datagram).collect()).unwrap(), ..terms() }
}

#[test]
fn datagrams_are_lost_for_good_and_larger_messages_are_not() {
    run(async {
        let world = World::new(8);
        let (a, b) = connect(&world, 1, 2, &with_datagrams()).await;
        world.set_link(&peer(1), &peer(2), Link { loss: 0.3, ..Link::default() });
        for i in 0..1_000u32 {
            a.send(BELIEF, Bytes::copy_from_slice(&i.to_be_bytes())).await.unwrap();
            if i % 50 == 0 {
                a.send(BELIEF, pattern(5_000, 0)).await.unwrap();
            }
            tokio::time::sleep(ms(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (mut small, mut large) = (0, 0);
        while let Some(Inbound::Whole(bytes)) = b.try_recv(BELIEF) {
            if bytes.len() == 4 { small += 1 } else { large += 1 }
        }
        assert!((640..760).contains(&small), "{small}");
        assert_eq!(large, 20);
        assert_eq!(world.in_flight(&peer(1), &peer(2)), 0, "what is lost is not on the way for ever");
    })
}
