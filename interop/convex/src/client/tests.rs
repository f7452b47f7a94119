//! The client against a scripted peer on loopback. Against the real one: interop/live/convex.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::{BufMut as _, BytesMut};
use peerlane_cell::{CellSource as _, encode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{ChallengeError, FrameError, Frames, Kind, form, frame, value::CONVEX};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// The scripted side: reads messages, writes messages.
struct Peer {
    stream: TcpStream,
    frames: Frames,
}

impl Peer {
    async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(body) = self.frames.next_frame().unwrap() {
                return Some(Message::decode(&body).unwrap());
            }
            if self.stream.read_buf(self.frames.buffer()).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, message: &Message) {
        self.raw(&message.frame()).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

async fn pair(config: ClientConfig) -> (Client, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(Client::connect(listener.local_addr().unwrap(), config), listener.accept());
    (client.unwrap(), Peer { stream: accepted.unwrap().0, frames: Frames::new(MAX_FRAME) })
}

fn short() -> ClientConfig {
    ClientConfig { deadline: Duration::from_millis(200), ..ClientConfig::default() }
}

#[tokio::test]
async fn answers_are_matched_by_their_id_whatever_their_order() {
    let (client, mut peer) = pair(ClientConfig::default()).await;
    let script = async {
        let (first, second) = (peer.message().await.unwrap(), peer.message().await.unwrap());
        assert_eq!((first.kind(), second.kind()), (Kind::Query, Kind::Query));
        for query in [second, first] {
            let Payload::Query { id, form, .. } = query.parse().unwrap() else { panic!() };
            peer.send(&Message::result(id, query.value(&form).unwrap()).unwrap()).await;
            // Answered twice: the second time nobody waits.
            peer.send(&Message::result(id, Value::nil()).unwrap()).await;
        }
    };
    let ask = |text| client.query(form::read(text).unwrap(), Some(11));
    let (one, two, ()) = tokio::join!(ask("1"), ask("2"), script);
    assert_eq!(one.unwrap().ok().unwrap().cell, form::read("1").unwrap().cell);
    assert_eq!(two.unwrap().ok().unwrap().cell, form::read("2").unwrap().cell);
    assert!(client.shared.pending().is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_with_its_source() {
    let (client, mut peer) = pair(ClientConfig::default()).await;
    let transaction = Transaction::Transfer { origin: 11, sequence: 1, target: 12, amount: 5 };
    let account = key(1);
    let transact = client.transact(&transaction, &account);
    let (answer, ()) = tokio::join!(transact, async {
        let request = peer.message().await.unwrap();
        let Payload::Transact { id, signed } = request.parse().unwrap() else { panic!() };
        let signed = request.value(&signed).unwrap();
        let Cell::Signed(cell) = &signed.cell else { panic!() };
        cell.verify(&CONVEX).unwrap();
        assert!(Transaction::read(&signed.child(cell.value()).unwrap()).is_some());
        let result = format!("#[dd05{}300c547278206f7665726c6f616433044c4f41440082013306736f75726365330450454552]", "1101");
        let result = Message::new(crate::Body::of(form::read(&result).unwrap()));
        peer.send(&result.with_id(id)).await;
    });
    let error = answer.unwrap().ok().unwrap_err();
    assert_eq!(error.to_string(), ":LOAD Trx overload (from :PEER)");
    assert!(matches!(error, ClientError::Refused { code, .. } if code.may_retry()));
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_a_close_at_once() {
    let (client, mut peer) = pair(short()).await;
    assert!(matches!(client.ping().await, Err(ClientError::Deadline(_))));
    assert!(client.shared.pending().is_empty());
    peer.message().await.unwrap();
    let (client, peer) = pair(ClientConfig::default()).await;
    let (status, ()) = tokio::join!(client.status(), async { drop(peer) });
    assert!(matches!(status, Err(ClientError::Closed(CloseReason::Remote | CloseReason::Io(_)))), "{status:?}");
    assert!(matches!(client.status().await, Err(ClientError::Closed(_))));
}

#[tokio::test]
async fn frames_above_the_limit_and_no_frames_at_all_end_it() {
    let config = ClientConfig { max_frame: 1000, ..ClientConfig::default() };
    let (client, mut peer) = pair(config.clone()).await;
    peer.raw(&[0x87, 0x69]).await;
    assert!(matches!(client.closed().await, CloseReason::Frame(FrameError::TooLarge { len: 1001, max: 1000 })));
    let large = Message::query(0, form::read(&format!("0x{}", "00".repeat(1000))).unwrap(), None).unwrap();
    assert!(matches!(client.send(&large).await, Err(ClientError::TooLarge { max: 1000, .. })));
    let (client, mut peer) = pair(config).await;
    peer.raw(&[0x80, 0x01]).await;
    assert!(matches!(client.closed().await, CloseReason::Frame(FrameError::Length(_))));
}

#[tokio::test]
async fn a_malformed_answer_is_the_end_of_its_request_alone() {
    let (client, mut peer) = pair(ClientConfig::default()).await;
    let (ping, ()) = tokio::join!(client.ping(), async {
        let id = peer.message().await.unwrap().id().unwrap();
        // A Result with trailing bytes that are no branch, an empty frame, noise.
        let body = [&Message::result(id, Value::nil()).unwrap().encode()[..], &[1, 0]].concat();
        for body in [&[][..], &[0xff, 1, 2], &body] {
            peer.raw(&frame(body)).await;
        }
    });
    assert!(matches!(ping, Err(ClientError::Malformed(_))), "{ping:?}");
    let (ping, ()) = tokio::join!(client.ping(), async {
        let id = peer.message().await.unwrap().id().unwrap();
        peer.send(&Message::result(id, form::read("5").unwrap()).unwrap()).await;
    });
    assert_eq!(ping.unwrap(), 5);
}

#[tokio::test]
async fn challenges_both_ways() {
    let network = ValueId([7; 32]);
    let config = ClientConfig { key: Some(key(1)), network: Some(network), ..ClientConfig::default() };
    let (client, mut peer) = pair(config).await;
    let theirs = key(2);
    let (our_key, their_key) = (key(1).verifying_key().to_bytes(), theirs.verifying_key().to_bytes());
    assert_eq!(client.proven(), None);
    for signer in [key(3), theirs.clone()] {
        let ours = key(1);
        let (proven, ()) = tokio::join!(client.challenge(&ours, Some(their_key), Some(network)), async {
            let message = peer.message().await.unwrap();
            let Payload::Challenge { id, signed } = message.parse().unwrap() else { panic!() };
            let (challenger, challenge) = Challenge::verify(&message.value(&signed).unwrap(), &their_key, Some(&network)).unwrap();
            assert_eq!(challenger, our_key);
            peer.send(&Message::result(id, challenge.answer(&challenger, &signer).unwrap()).unwrap()).await;
        });
        match signer == theirs {
            true => assert_eq!((proven.unwrap(), client.proven()), (their_key, Some(their_key))),
            false => assert!(matches!(proven, Err(ClientError::Challenge(ChallengeError::Signer))) && client.proven().is_none()),
        }
    }
    // The peer asks: for us, for somebody else, in another network.
    for (target, context, expected) in [
        (None, network, None),
        (Some(our_key), network, None),
        (Some([4; 32]), network, Some(ErrorCode::Trust)),
        (None, ValueId([1; 32]), Some(ErrorCode::Trust)),
    ] {
        let challenge = Challenge { token: [9; 32], target, context: Some(context) };
        peer.send(&Message::challenge(77, challenge.sign(&theirs).unwrap()).unwrap()).await;
        let answer = peer.message().await.unwrap();
        let Payload::Result(outcome) = answer.parse().unwrap() else { panic!() };
        assert_eq!((outcome.id, outcome.error.clone()), (Some(77), expected));
        if outcome.error.is_none() {
            let value = answer.value(&outcome.value).unwrap();
            assert_eq!(challenge.verify_answer(&value, &their_key), Ok(our_key));
        }
    }
    peer.send(&Message::new(crate::Body::of(form::read("[:CH 5]").unwrap()))).await;
    let Payload::Result(outcome) = peer.message().await.unwrap().parse().unwrap() else { panic!() };
    assert_eq!((outcome.id, outcome.error), (Some(5), Some(ErrorCode::Format)));
}

/// Answers data requests from a store, as the reference peer does: one level, short cells embedded.
async fn serve(peer: &mut Peer, held: &MemoryCells, lies: bool) {
    while let Some(message) = peer.message().await {
        let Payload::DataRequest { id, hashes } = message.parse().unwrap() else { panic!() };
        let mut build = crate::Build::default();
        let mut items = Vec::new();
        for hash in hashes {
            items.push(match held.get(&hash) {
                None => peerlane_cell::Ref::nil(),
                Some(_) if lies => build.link(form::read(&format!("0x{}", "01".repeat(150))).unwrap().cell).unwrap(),
                Some(bytes) => build.link(peerlane_cell::decode(&bytes, &CONVEX).unwrap()).unwrap(),
            });
        }
        let vector = build.vector(&items).unwrap();
        peer.send(&Message::result(id, build.finish(vector)).unwrap()).await;
    }
}

use peerlane_cell::MemoryCells;

#[tokio::test]
async fn a_tree_is_fetched_to_its_last_cell_and_each_hash_is_checked() {
    // Wide (more than one request of 254), deep, with a shared branch.
    let text: Vec<String> = (0..600).map(|i| format!("0x{:0300}", i)).collect();
    let value = form::read(&format!("[{} 0x{} \"{}\"]", text.join(" "), "ab".repeat(70_000), "y".repeat(5000))).unwrap();
    let root = value.id();
    let mut held = value.cells.clone();
    held.0.insert(root, encode(&value.cell));
    let cells = held.0.len();
    assert!(cells > 600);
    let limits = FetchLimits::default();

    let (client, mut peer) = pair(ClientConfig::default()).await;
    let (fetched, ()) = tokio::join!(
        async {
            let fetched = client.fetch(root, limits).await;
            let few = client.fetch(root, FetchLimits { cells: cells - 1, ..limits }).await;
            let small = client.fetch(root, FetchLimits { bytes: 1000, ..limits }).await;
            assert!(matches!((few, small), (Err(ClientError::FetchLimit { .. }), Err(ClientError::FetchLimit { .. }))));
            let none = client.fetch(ValueId([1; 32]), limits).await;
            assert!(matches!(none, Err(ClientError::Missing(id)) if id == ValueId([1; 32])));
            client.shared.stop.cancel();
            fetched
        },
        serve(&mut peer, &held, false)
    );
    let fetched = fetched.unwrap();
    assert_eq!((fetched.id(), &fetched.cells), (root, &held));

    // One cell of it is missing; and a peer that sends something else.
    let gone = *value.cells.0.keys().nth(300).unwrap();
    let mut holed = held.clone();
    holed.0.remove(&gone);
    for (held, lies) in [(&holed, false), (&held, true)] {
        let (client, mut peer) = pair(ClientConfig::default()).await;
        let (fetched, ()) = tokio::join!(
            async {
                let fetched = client.fetch(root, limits).await;
                client.shared.stop.cancel();
                fetched
            },
            serve(&mut peer, held, lies)
        );
        match lies {
            true => assert!(matches!(fetched, Err(ClientError::WrongCell(id)) if id == root)),
            false => assert!(matches!(fetched, Err(ClientError::Missing(id)) if id == gone)),
        }
    }
}

#[tokio::test]
async fn other_messages_go_to_the_inbox_and_never_fill_more_than_it() {
    let (sender, mut inbox) = mpsc::channel(1);
    let (client, mut peer) = pair(ClientConfig { inbox: Some(sender), ..ClientConfig::default() }).await;
    let mut beliefs = BytesMut::new();
    for _ in 0..100 {
        beliefs.put_slice(&frame(&[0xd4, 1, 0x84, 0]));
    }
    peer.raw(&beliefs).await;
    peer.send(&Message::ping(3)).await;
    let answer = peer.message().await.unwrap();
    assert_eq!((answer.kind(), answer.id()), (Kind::Result, Some(3)));
    assert_eq!(inbox.recv().await.unwrap().kind(), Kind::Belief);
    assert!(inbox.try_recv().is_err());
    client.goodbye().await.unwrap();
    assert_eq!(peer.message().await.unwrap().kind(), Kind::Goodbye);
    drop(client);
    assert!(peer.message().await.is_none());
}
