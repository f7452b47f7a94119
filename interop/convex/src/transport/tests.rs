//! The transport against itself: what dials and what listens both speak the foreign protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::{Value, form};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn transport(key: Option<SigningKey>) -> ConvexTcp {
    let mut terms = Terms::new("convex").unwrap();
    terms.classes = classes();
    ConvexTcp::new(terms, ConvexTcpConfig { key, network: Some(ValueId([7; 32])), ..ConvexTcpConfig::default() }).unwrap()
}

async fn pair(dialing: Option<SigningKey>, listening: Option<SigningKey>) -> (Connection, Connection) {
    let mut listener = transport(listening).listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = ConvexAddr(listener.local().to_string());
    let dialing = transport(dialing);
    let (dialed, accepted) = tokio::join!(dialing.dial(&addr), async { listener.accept().await.unwrap().upgrade().await });
    (dialed.unwrap(), accepted.unwrap())
}

async fn recv(connection: &Connection, class: u8) -> Message {
    match timeout(Duration::from_secs(20), connection.recv(ClassId(class))).await.unwrap().unwrap() {
        Inbound::Whole(body) => Message::decode(&body).unwrap(),
        Inbound::Streamed(_) => panic!(),
    }
}

async fn send(connection: &Connection, class: u8, message: &Message) {
    connection.send(ClassId(class), message.encode()).await.unwrap();
}

#[tokio::test]
async fn each_message_arrives_in_its_class_and_a_result_in_its_requests() {
    let (dialed, accepted) = pair(None, None).await;
    let query = |id| Message::query(id, form::read("(+ 1 2)").unwrap(), None).unwrap();
    let request = |id| Message::data_request(id, &[ValueId([1; 32])]).unwrap();
    let transact = |id| Message::transact(id, form::read(&format!("0x{}", "00".repeat(500))).unwrap()).unwrap();
    for (class, message) in [(0, Message::status(1)), (1, query(2)), (2, transact(3)), (3, request(4))] {
        send(&dialed, class, &message).await;
        assert_eq!(recv(&accepted, class).await, message);
        let result = Message::result(message.id().unwrap(), form::read("3").unwrap()).unwrap();
        // Whatever the class on the answering side: the asking side knows.
        send(&accepted, 1, &result).await;
        assert_eq!(recv(&dialed, class).await, result);
    }
    let belief = Message::decode(&Bytes::from_static(&[0xd4, 1, 0x84, 0])).unwrap();
    send(&accepted, 4, &belief).await;
    assert_eq!(recv(&dialed, 4).await, belief);
    assert_eq!((dialed.remote().proof, dialed.remote().peer_id()), (Proof::None, None));
    let (here, there) = tokio::join!(dialed.drain(), accepted.closed());
    assert!(here.is_ok(), "{here:?} {there:?}");
}

#[tokio::test]
async fn a_remote_starts_unproven_and_is_proven_by_challenge() {
    let (dialed, accepted) = pair(Some(key(1)), Some(key(2))).await;
    let proven = |connection: Connection| async move {
        while connection.remote().proof != Proof::Application {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        *connection.remote().peer_id().unwrap().as_bytes()
    };
    let both = async { tokio::join!(proven(dialed.clone()), proven(accepted.clone())) };
    let (theirs, ours) = timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!((theirs, ours), (key(2).verifying_key().to_bytes(), key(1).verifying_key().to_bytes()));
    // One without a key hands the challenge up, and stays unproven.
    let (dialed, accepted) = pair(Some(key(1)), None).await;
    assert_eq!(recv(&accepted, 0).await.kind(), Kind::Challenge);
    send(&accepted, 0, &Message::error(Some(CHALLENGE_ID), &ErrorCode::Trust, "No signing key")).await;
    send(&accepted, 0, &Message::status(1)).await;
    assert_eq!(recv(&dialed, 0).await.kind(), Kind::Status);
    assert_eq!(dialed.remote().proof, Proof::None);
}

#[tokio::test]
async fn large_bad_and_ended() {
    let (dialed, accepted) = pair(None, None).await;
    send(&dialed, 0, &Message::status(9)).await;
    recv(&accepted, 0).await;
    // A status that is longer than the control class permits: an error under its ID instead.
    let large = form::read(&format!("0x{}", (0..50_000).map(|i| format!("{:04x}", i % 65_536)).collect::<String>())).unwrap();
    send(&accepted, 1, &Message::result(9, large).unwrap()).await;
    let answer = recv(&dialed, 0).await;
    let Payload::Result(outcome) = answer.parse().unwrap() else { panic!() };
    assert_eq!((outcome.id, outcome.error.unwrap().to_string()), (Some(9), "TOO-LARGE".into()));
    // Bytes that are no message are answered as the reference peer does.
    accepted.send(ClassId(1), Bytes::from_static(&[0xff])).await.unwrap();
    let Payload::Result(outcome) = recv(&accepted, 1).await.parse().unwrap() else { panic!() };
    assert_eq!((outcome.id, outcome.error), (None, Some(ErrorCode::Format)));
    send(&dialed, 1, &Message::query(1, Value::nil(), None).unwrap()).await;
    assert_eq!(recv(&accepted, 1).await.kind(), Kind::Query);
    accepted.close(CloseCode::Done, "");
    timeout(Duration::from_secs(20), dialed.closed()).await.unwrap();
}

#[tokio::test]
async fn a_class_that_isnt_read_holds_the_sender_back() {
    let (dialed, accepted) = pair(None, None).await;
    let belief = Message::new(crate::Body::of(Value {
        cell: Message::decode(&Bytes::from_static(&[0xd4, 1, 0x84, 0])).unwrap().body().top.clone(),
        ..Value::nil()
    }));
    let large = Message::belief(belief.body().top.clone(), large_cells());
    let mut sent = 0;
    while let Ok(done) = timeout(Duration::from_millis(700), dialed.send(ClassId(4), large.encode())).await {
        done.unwrap();
        sent += 1;
        assert!(sent < 1000, "nothing holds it back");
    }
    assert!(sent > 3);
    for _ in 0..3 {
        assert_eq!(recv(&accepted, 4).await.kind(), Kind::Belief);
    }
}

/// A megabyte of cells that nobody refers to: harmless, and sent all the same.
fn large_cells() -> Vec<(ValueId, Bytes)> {
    let value = form::read(&format!("0x{}", "ab".repeat(500_000))).unwrap();
    value
        .cells
        .0
        .into_iter()
        .chain((0..250u8).map(|n| {
            let cell = form::read(&format!("0x{}", format!("{n:02x}").repeat(4000))).unwrap();
            (cell.id(), peerlane_cell::encode(&cell.cell))
        }))
        .collect()
}
