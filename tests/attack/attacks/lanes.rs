//! Attacks behind the handshake, below messages: frames, lengths, life signs, streamed messages.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerlane_transport::{ClassId, admission::Terms, class::Lane, hello, varint};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tokio_rustls::client::TlsStream;

use super::{Bound, Tally, before::secured};
use crate::target::{By, NETWORK, Target};

/// A TCP connection after the hello, with nobody between the attacker and the frames.
async fn greeted(target: &Target, n: u64) -> Option<TlsStream<TcpStream>> {
    let mut stream = secured(target, n).await?;
    hello::exchange(&mut stream, &Terms::new(NETWORK).unwrap(), Ok(())).await.ok()?;
    Some(stream)
}

/// A frame's head: lane and length.
fn head(class: u8, slot: u8, len: u64) -> BytesMut {
    let mut head = BytesMut::from(&[Lane { class, slot }.to_byte()][..]);
    varint::put(&mut head, len);
    head
}

pub async fn slow_frame(target: Target, mut bound: Bound) -> Tally {
    let (mut tally, mut running) = (Tally::default(), JoinSet::new());
    while bound.more() && running.len() < 16 {
        let Some(mut stream) = greeted(&target, tally.done).await else {
            tally.refused += 1;
            continue;
        };
        tally.done += 1;
        running.spawn(async move {
            // A message as large as each class permits, and then next to nothing of it.
            for (class, len) in [(0, 60_000), (1, 60_000), (2, 200_000), (3, 60_000), (4, 60_000)] {
                let mut begin = BytesMut::new();
                varint::put(&mut begin, len << 2);
                let mut frame = head(class, 0, begin.len() as u64);
                frame.extend_from_slice(&begin);
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(&head(4, 0, 16_000)).await;
            while stream.write_all(&[0]).await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    bound.over().await;
    tally
}

pub async fn huge_lengths(target: Target, mut bound: Bound) -> Tally {
    let mut tally = Tally::default();
    while bound.more() {
        let Some(mut stream) = greeted(&target, tally.done).await else {
            tally.refused += 1;
            continue;
        };
        let mut bytes = match tally.done % 3 {
            // A frame of a gigabyte; a message of 2^50 bytes; a streamed message's part of 2^40.
            0 => head(4, 0, 1 << 30),
            1 => {
                let mut frame = head(4, 0, 8);
                varint::put(&mut frame, 1 << 52);
                frame
            }
            _ => {
                let mut frame = head(1, 0, 9);
                varint::put(&mut frame, 1);
                varint::put(&mut frame, (1 << 42) | 2);
                frame
            }
        };
        bytes.extend_from_slice(&[0; 64]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.flush().await;
        tally.done += 1;
    }
    tally
}

pub async fn pings(target: Target, mut bound: Bound) -> Tally {
    let connection = target.stranger(By::Quic).await;
    let (mut tally, mut running) = (Tally::default(), JoinSet::new());
    while bound.more() {
        if running.len() >= 64 {
            running.join_next().await;
        }
        let connection = connection.clone();
        running.spawn(async move { connection.ping().await.is_ok() });
        tally.done += 1;
    }
    tally
}

pub async fn streamed_never_ends(target: Target, mut bound: Bound) -> Tally {
    let (mut tally, mut open, mut held) = (Tally::default(), Vec::new(), Vec::new());
    while bound.more() {
        let connection = target.stranger(By::Quic).await;
        for class in 0..5 {
            for _ in 0..4 {
                let opening = tokio::time::timeout(Duration::from_millis(20), connection.open(ClassId(class))).await;
                if let Ok(Ok(mut writer)) = opening {
                    let write = async { writer.write(&mut Bytes::from_static(&[3; 8192])).await };
                    let _ = tokio::time::timeout(Duration::from_millis(20), write).await;
                    open.push(writer);
                }
            }
        }
        held.push(connection);
        tally.done += 1;
    }
    bound.over().await;
    tally
}
