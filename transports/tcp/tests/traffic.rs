//! What travels, and that one class doesn't hold up another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use common::*;
use peerlane_tcp::TcpConfig;
use peerlane_transport::{
    ClassId, ClassTable, Connection, Inbound, Listener, SendError, TrySend, Upgrade, admission::LocalPeer, identity::Host, varint,
};
use tokio::io::AsyncReadExt;

type Hash = blake3::Hash;

/// Messages of every size that matters in a class, and a streamed one of 4 MiB in between.
async fn send_all(connection: Connection, class: ClassId, seed: u64) -> Vec<Hash> {
    let max = connection.classes()[class].max_message;
    let mut sent = Vec::new();
    for (n, len) in [0, 1, 63, 64, 1024, 1025, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, max, 300, max - 1].into_iter().enumerate() {
        let message = pattern(len.min(max), seed + n as u64);
        sent.push(blake3::hash(&message));
        connection.send(class, message).await.unwrap();
        if n == 7 {
            let mut hasher = blake3::Hasher::new();
            let mut writer = connection.open(class).await.unwrap();
            for part in 0..64 {
                let mut part = pattern(65_536, seed + 1000 + part);
                hasher.update(&part);
                writer.write(&mut part).await.unwrap();
            }
            writer.finish().unwrap();
            sent.push(hasher.finalize());
        }
    }
    let over = connection.send(class, pattern(max + 1, 0)).await;
    assert!(matches!(over, Err(SendError::TooLarge { limit, .. }) if limit == max));
    sent
}

async fn receive_all(connection: Connection, class: ClassId) -> Vec<Hash> {
    let mut got = Vec::new();
    let mut streams = Vec::new();
    while got.len() + streams.len() < 16 {
        match connection.recv(class).await.unwrap() {
            Inbound::Whole(message) => got.push(blake3::hash(&message)),
            Inbound::Streamed(mut reader) => {
                let task = tokio::spawn(async move {
                    let mut hasher = blake3::Hasher::new();
                    while let Some(chunk) = reader.read().await.unwrap() {
                        hasher.update(&chunk);
                    }
                    hasher.finalize()
                });
                if class == TRANSACT { got.push(task.await.unwrap()) } else { streams.push(task) }
            }
        }
    }
    for stream in streams {
        got.push(stream.await.unwrap());
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_class_carries_every_size_both_ways_at_once() {
    let (a, b) = meet(&Node::new(1), &Node::new(2)).await;
    let mut tasks = Vec::new();
    for (class, kind) in ClassTable::standard().iter() {
        for (from, to, seed) in [(&a, &b, 0), (&b, &a, 1 << 32)] {
            let sending = tokio::spawn(send_all(from.clone(), class, seed + (u64::from(class.0) << 20)));
            let receiving = tokio::spawn(receive_all(to.clone(), class));
            tasks.push((kind.order, sending, receiving));
        }
    }
    for (order, sending, receiving) in tasks {
        let (mut sent, mut got) = (bounded(sending).await.unwrap(), bounded(receiving).await.unwrap());
        if order == peerlane_transport::Order::Any {
            sent.sort_by_key(|hash| *hash.as_bytes());
            got.sort_by_key(|hash| *hash.as_bytes());
        }
        assert_eq!(sent, got);
    }
    assert!(a.close_reason().is_none() && b.close_reason().is_none());
}

/// Sends until nothing more goes: windows, queues and buffers are full.
async fn fill(connection: &Connection, class: ClassId) -> usize {
    let mut queued = 0;
    loop {
        let message = pattern(if queued % 2 == 0 { 65_536 } else { 65_537 }, 1);
        match tokio::time::timeout(Duration::from_millis(300), connection.send(class, message)).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => return queued,
        }
        queued += 1;
        assert!(queued < 1000, "no backpressure");
    }
}

#[tokio::test]
async fn a_flood_that_nobody_reads_stops_no_other_class() {
    let (a, b) = meet(&Node::new(1), &Node::new(2)).await;
    let (here, there) = tokio::join!(fill(&a, BELIEF), fill(&b, BELIEF));
    assert!(matches!(a.try_send(BELIEF, pattern(65_536, 1)), TrySend::Full { .. }));
    bounded(async {
        for n in 0..200 {
            a.send(QUERY, pattern(100, n)).await.unwrap();
            assert_eq!(whole(&b, QUERY).await, pattern(100, n));
            b.send(QUERY, pattern(300, n)).await.unwrap();
            assert_eq!(whole(&a, QUERY).await, pattern(300, n));
        }
        a.send(DATA, pattern(1 << 19, 5)).await.unwrap();
        assert_eq!(whole(&b, DATA).await, pattern(1 << 19, 5));
        a.ping().await.unwrap();
        for _ in 0..here {
            whole(&b, BELIEF).await;
        }
        for _ in 0..there {
            whole(&a, BELIEF).await;
        }
    })
    .await;
}

const FLOOD: usize = 1 << 20;

/// BELIEF takes the whole flood without waiting for credit: what holds it up is TCP alone.
fn wide(local: &mut LocalPeer) {
    let mut classes: Vec<_> = local.terms.classes.iter().map(|(_, class)| class.clone()).collect();
    (classes[BELIEF.index()].window, classes[BELIEF.index()].send_budget) = (2 * FLOOD, 2 * FLOOD);
    local.terms.classes = ClassTable::new(classes).unwrap();
}

/// A peer stops reading; 1 MiB of BELIEF is queued and as much as possible given to TCP; then a QUERY. How many bytes
/// of BELIEF arrive before it.
async fn overtaken(config: TcpConfig) -> usize {
    let (slow, sender) = (Node::with(1, "test", wide, TcpConfig::default()), Node::with(2, "test", wide, config));
    let (mut listener, addr) = sender.listen().await;
    let Host::Address(to) = addr.host else { panic!() };
    let accepting = async { listener.accept().await.unwrap().upgrade().await.unwrap() };
    let (mut tls, connection) = tokio::join!(by_hand(&slow, &addr, to, Some(32 * 1024)), accepting);
    for n in 0..16 {
        connection.send(BELIEF, pattern(FLOOD / 16, n)).await.unwrap();
    }
    // Until TCP takes nothing more: there's no event for that but that nothing happens.
    let (mut given, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = connection.stats().classes[BELIEF.index()].sent_bytes;
        still = if now == given && now > 0 { still + 1 } else { 0 };
        given = now;
    }
    assert!(given < FLOOD as u64, "TCP took it all, so nothing is shown");
    connection.send(QUERY, Bytes::from_static(b"urgent")).await.unwrap();

    let (mut input, mut belief, mut before) = (BytesMut::new(), 0, None);
    while belief < FLOOD {
        assert!(tls.read_buf(&mut input).await.unwrap() > 0);
        loop {
            let mut rest = &input[..];
            if rest.len() < 2 {
                break;
            }
            let lane = rest.get_u8();
            let Some(len) = varint::get(&mut rest) else { break };
            if rest.len() < len as usize {
                break;
            }
            input.advance(input.len() - rest.len() + len as usize);
            match lane {
                0x10 => before = Some(belief),
                0x40 => belief += len as usize,
                _ => {}
            }
        }
    }
    before.expect("the QUERY came before the last of BELIEF")
}

#[tokio::test]
async fn an_urgent_message_overtakes_what_the_kernel_has_not_taken() {
    let ahead = bounded(overtaken(TcpConfig::default())).await;
    assert!(ahead <= 256 * 1024, "{ahead} bytes of {FLOOD} went before the QUERY");
    #[cfg(target_os = "linux")]
    {
        // The defence removed: the kernel takes what its buffer holds.
        let mut config = TcpConfig::default();
        config.notsent_lowat = 1 << 30;
        config.send_buffer = Some(FLOOD / 4);
        let without = bounded(overtaken(config)).await;
        assert!(without > 2 * ahead, "{ahead} bytes went before the QUERY, {without} without TCP_NOTSENT_LOWAT");
    }
}
