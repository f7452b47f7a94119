#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Two gateways with a peer of our own beside each, that speaks frames and nothing else, over real sockets on loopback.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Body, ErrorCode, Frames, Message, Value, cell::ValueId, form, frame, limits::MAX_FRAME};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    Auto,
    Quic,
    Tcp,
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32]).unwrap()
}

async fn gateway(seed: u8, over: Over, config: GatewayConfig) -> Gateway {
    gateway_under(GatewayConfig::terms("test").unwrap(), seed, over, config).await
}

async fn gateway_under(terms: Terms, seed: u8, over: Over, config: GatewayConfig) -> Gateway {
    let local = LocalPeer::new(&identity(seed), Arc::new(Lists::everybody()), terms).unwrap();
    let mut transports = Vec::new();
    if over != Over::Tcp {
        transports.push(AnyTransport::new(QuicTransport::new(local.clone(), QuicConfig::default()).unwrap()));
    }
    if over != Over::Quic {
        transports.push(AnyTransport::new(TcpTransport::new(local.clone(), TcpConfig::default()).unwrap()));
    }
    // An endpoint that says its last words keeps its address for a moment.
    for _ in 0..100 {
        match Gateway::start(&local, transports.clone(), config.clone()).await {
            Err(GatewayError::Listen { .. }) => sleep(Duration::from_millis(100)).await,
            started => return started.unwrap(),
        }
    }
    panic!("{} doesn't come free", config.listen)
}

/// What stands in a Java peer's place.
struct Peer {
    stream: TcpStream,
    frames: Frames,
}

impl Peer {
    async fn dial(at: SocketAddr) -> Self {
        Self::new(TcpStream::connect(at).await.unwrap())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, frames: Frames::new(MAX_FRAME) }
    }

    async fn send(&mut self, body: &[u8]) {
        self.stream.write_all(&frame(body)).await.unwrap();
    }

    /// The next body; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let next = async {
            loop {
                if let Some(body) = self.frames.next_frame().unwrap() {
                    return Some(body);
                }
                match self.stream.read_buf(self.frames.buffer()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a frame, or the end")
    }
}

/// Two gateways, and a connection of peer `a` through both to peer `b`.
struct Pair {
    near: Gateway,
    far: Gateway,
    a: Peer,
    b: Peer,
    /// Where b takes connections, and where a's gateway stands for it.
    listener: TcpListener,
    door: SocketAddr,
}

async fn gateways(over: Over, adjust: impl Fn(&mut GatewayConfig)) -> (Gateway, Gateway, TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let addr = |seed, at| PeerAddr::new(identity(seed).peer_id(), at);
    let mut config = GatewayConfig::new(listener.local_addr().unwrap().to_string(), loopback);
    config.peers = vec![GatewayPeer { addr: addr(1, loopback), local: None }];
    adjust(&mut config);
    let far = gateway(2, over, config).await;
    let mut config = GatewayConfig::new("127.0.0.1:1", loopback);
    config.peers = vec![GatewayPeer { addr: addr(2, far.listening()[0].1), local: Some(loopback) }];
    adjust(&mut config);
    let near = gateway(1, over, config).await;
    let door = near.locals()[0].1;
    (near, far, listener, door)
}

async fn pair_with(over: Over, adjust: impl Fn(&mut GatewayConfig)) -> Pair {
    let (near, far, listener, door) = gateways(over, adjust).await;
    let (a, b) = tokio::join!(Peer::dial(door), async { timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0 });
    Pair { near, far, a, b: Peer::new(b), listener, door }
}

async fn pair(over: Over) -> Pair {
    pair_with(over, |_| {}).await
}

fn query(id: i64) -> Bytes {
    Message::query(id, form::read("(+ 1 2)").unwrap(), None).unwrap().encode()
}

/// A belief by its first byte, of this length in all, whose bytes say which it is.
fn belief(number: u64, len: usize) -> Bytes {
    let mut body = vec![0xd4, 1, 0x84];
    body.extend_from_slice(&number.to_be_bytes());
    body.extend((body.len()..len).map(|i| (i as u64).wrapping_mul(number + 7) as u8));
    body.into()
}

/// One body of each kind, both that a peer asks with and that it answers with.
fn kinds() -> Vec<Bytes> {
    let text = |text: &str| Body::of(form::read(text).unwrap()).encode();
    let hashes: Vec<ValueId> = (0..254).map(|i| ValueId([i as u8; 32])).collect();
    let mut all = vec![
        Message::status(1).encode(),
        query(2),
        Message::data_request(3, &hashes).unwrap().encode(),
        Message::result(4, Value::nil()).unwrap().encode(),
        Message::error(None, &ErrorCode::Load, "words").encode(),
        // A signed Order, and the challenges of 0.8.0, by their first byte.
        Bytes::from([&[0x90][..], &[7; 96], &[0x10]].concat()),
        belief(5, 4000),
        belief(6, 3 * MIB),
    ];
    all.extend(["[:TX 5 1]", "[:PING 6]", "[:CH 7 1]", "[:LV [1] 2]", "[:LV 8 [1] 2]", "[:LQ 9 [1]]", "[:DATA 1]", "[:XX 1]"].map(text));
    // What isn't canonical, or nothing at all, is for the other peer to refuse.
    all.extend([Bytes::new(), Bytes::from_static(&[0]), Bytes::from_static(&[0xff, 1, 2]), Bytes::from_static(&[0x11, 0])]);
    // A control message, a query and a RESULT that are larger than their classes permit.
    all.push([&body_of_len("[:SR 1]", 100_000)[..]].concat().into());
    all.push([&query(10)[..], &vec![5; 700_000]].concat().into());
    all.push([&[0xdd, 5, 0x11, 99][..], &vec![6; 2 * MIB]].concat().into());
    all
}

fn body_of_len(text: &str, len: usize) -> Vec<u8> {
    let mut body = Body::of(form::read(text).unwrap()).encode().to_vec();
    body.resize(len, 0x55);
    body
}

#[tokio::test]
async fn every_kind_passes_byte_for_byte_both_ways_over_each_transport() {
    for over in [Over::Auto, Over::Quic, Over::Tcp] {
        let Pair { near, far, mut a, mut b, .. } = pair(over).await;
        for there in [true, false] {
            let (from, to) = if there { (&mut a, &mut b) } else { (&mut b, &mut a) };
            for (i, body) in kinds().into_iter().enumerate() {
                let (passed, ()) = tokio::join!(to.next(), from.send(&body));
                assert!(passed.as_ref() == Some(&body), "{over:?} {there} kind {i} {:?}", crate::gateway::sort::Head::of(&body));
            }
        }
        let stats = near.stats();
        let kinds = &stats.peers[0].kinds;
        assert!(
            kinds.iter().all(|kind| kind.kind == crate::Kind::Goodbye || (kind.out.messages > 0 && kind.inward.messages > 0)),
            "{kinds:?}"
        );
        assert_eq!((stats.peers[0].open, stats.peers[0].dialed, far.stats().peers[0].dialed), (1, 1, 0));
        // All at once, in both directions: none is lost, doubled or changed.
        let mut sent = kinds_sorted();
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        let ((mut read_a, mut write_a), (mut read_b, mut write_b)) = (a.stream.split(), b.stream.split());
        let all: Bytes = kinds_sorted().iter().flat_map(|body| frame(body)).collect();
        let take = async |reader: &mut tokio::net::tcp::ReadHalf<'_>, into: &mut Vec<Bytes>| {
            let mut frames = Frames::new(MAX_FRAME);
            while into.len() < sent.len() {
                reader.read_buf(frames.buffer()).await.unwrap();
                while let Some(body) = frames.next_frame().unwrap() {
                    into.push(body);
                }
            }
        };
        let passing = async {
            tokio::join!(take(&mut read_a, &mut at_a), take(&mut read_b, &mut at_b), write_a.write_all(&all), write_b.write_all(&all))
        };
        let ((), (), wrote_a, wrote_b) = timeout(PATIENCE, passing).await.unwrap();
        wrote_a.and(wrote_b).unwrap();
        at_a.sort();
        at_b.sort();
        sent.sort();
        assert!(at_a == sent && at_b == sent, "{over:?}");
        near.shutdown().await;
        far.shutdown().await;
    }
}

fn kinds_sorted() -> Vec<Bytes> {
    let mut all = kinds();
    all.sort();
    all
}

#[tokio::test]
async fn transactions_and_beliefs_arrive_in_their_order_whatever_stands_between() {
    for over in [Over::Quic, Over::Tcp] {
        let Pair { mut a, mut b, near: _near, far: _far, .. } = pair(over).await;
        const N: u64 = 400;
        // Some so large that they're streamed: a stream doesn't let what's behind it pass.
        let transact = |i: u64| {
            let head = Body::of(form::read(&format!("[:TX {i} 1]")).unwrap()).encode();
            Bytes::from([&head[..], &vec![i as u8; if i % 50 == 7 { 300_000 } else { 100 }]].concat())
        };
        let belief_of = |i: u64| belief(i, if i % 100 == 3 { 1_500_000 } else { 500 });
        let sending = async {
            for i in 0..N {
                a.send(&transact(i)).await;
                a.send(&query(i as i64)).await;
                a.send(&belief_of(i)).await;
            }
        };
        let receiving = async {
            let (mut transactions, mut beliefs, mut queries) = (0, 0, 0);
            while transactions + beliefs + queries < 3 * N {
                let body = b.next().await.unwrap();
                match sort::Head::of(&body).kind {
                    crate::Kind::Transact => {
                        assert!(body == transact(transactions), "{over:?}: transaction {transactions}");
                        transactions += 1;
                    }
                    crate::Kind::Belief => {
                        assert!(body == belief_of(beliefs), "{over:?}: belief {beliefs}");
                        beliefs += 1;
                    }
                    _ => queries += 1,
                }
            }
        };
        tokio::join!(sending, receiving);
    }
}

/// A query that was sent behind a flood overtakes what of it waits in the gateways, as long as that fits their lookahead.
#[tokio::test]
async fn a_flood_of_beliefs_stops_no_query() {
    for over in [Over::Quic, Over::Tcp] {
        let Pair { mut a, mut b, near: _near, far: _far, .. } = pair(over).await;
        // Peer b reads nothing: more than its socket takes (2.6 MB here), less than both gateways do beside that.
        const FLOOD: u64 = 130;
        for i in 0..FLOOD {
            a.send(&belief(i, 40_000)).await;
        }
        a.send(&query(77)).await;
        let mut before = 0;
        loop {
            let body = b.next().await.unwrap();
            if sort::Head::of(&body).kind == crate::Kind::Query {
                break;
            }
            before += 1;
        }
        println!("{over:?}: {before} of {FLOOD} beliefs came before the query behind them");
        assert!(before < FLOOD);
        for _ in before..FLOOD {
            assert_eq!(sort::Head::of(&b.next().await.unwrap()).kind, crate::Kind::Belief);
        }
    }
}

/// Beliefs without end, as fast as they go, and queries beside them on another connection of the same peer: all are answered.
#[tokio::test]
async fn queries_are_answered_while_a_flood_lasts() {
    let Pair { near: _near, far: _far, mut a, mut b, listener, door } = pair(Over::Quic).await;
    let (mut asking, answering) = tokio::join!(Peer::dial(door), async { listener.accept().await.unwrap().0 });
    let mut answering = Peer::new(answering);
    let flood = async {
        for i in 0.. {
            a.send(&belief(i, 100_000)).await;
        }
    };
    let draining = async { while b.next().await.is_some() {} };
    let asked = async {
        for id in 0..200 {
            let answer = Message::result(id, Value::nil()).unwrap().encode();
            asking.send(&query(id)).await;
            assert_eq!(answering.next().await, Some(query(id)));
            answering.send(&answer).await;
            assert_eq!(asking.next().await, Some(answer));
        }
    };
    tokio::select! {
        () = asked => {}
        () = flood => panic!("a flood has no end"),
        () = draining => panic!("a flood has no end"),
    }
}

#[tokio::test]
async fn fifty_megabytes_pass_with_a_megabyte_held() {
    for over in [Over::Quic, Over::Tcp] {
        let Pair { near, far, mut a, mut b, .. } = pair(over).await;
        let body = belief(9, MAX_FRAME);
        let (bytes, again) = (frame(&body), belief(10, 300));
        let (mut most_queued, mut read) = (0, 0usize);
        let sending = async {
            a.stream.write_all(&bytes).await.unwrap();
            a.send(&again).await;
        };
        let receiving = async {
            let mut buffer = vec![0; 256 * 1024];
            while read < bytes.len() {
                let want = buffer.len().min(bytes.len() - read);
                let n = b.stream.read(&mut buffer[..want]).await.unwrap();
                assert!(n > 0 && buffer[..n] == bytes[read..read + n], "at byte {read}");
                read += n;
                let queued = |stats: GatewayStats| -> u64 {
                    stats
                        .peers
                        .iter()
                        .flat_map(|peer| &peer.connections)
                        .flat_map(|connection| &connection.classes)
                        .map(|class| class.queued_bytes)
                        .sum()
                };
                most_queued = most_queued.max(queued(near.stats()));
            }
        };
        timeout(2 * PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
        assert_eq!(b.next().await, Some(again));
        println!("{over:?}: {most_queued} bytes queued, {} and {} held at most", near.stats().held_peak, far.stats().held_peak);
        assert!(most_queued <= MIB as u64);
        assert!(near.stats().held_peak <= MIB as u64 && far.stats().held_peak <= MIB as u64);
    }
}

#[tokio::test]
async fn when_one_side_ends_what_it_said_arrives_and_the_other_ends() {
    for over in [Over::Quic, Over::Tcp] {
        // A peer that goes with many messages just written, GOODBYE last though it's the most urgent class.
        let Pair { mut a, mut b, near, far, .. } = pair(over).await;
        let mut bytes: Vec<u8> = (0..100).flat_map(|i| frame(&belief(i, 20_000))).collect();
        bytes.extend(frame(&Message::goodbye().encode()));
        let (mut reader, mut writer) = a.stream.split();
        let (_, ()) = tokio::join!(writer.write_all(&bytes), async {
            for i in 0..100 {
                assert_eq!(b.next().await, Some(belief(i, 20_000)), "{over:?}");
            }
            assert_eq!(b.next().await, Some(Message::goodbye().encode()));
            assert_eq!(b.next().await, None);
        });
        let mut rest = Vec::new();
        assert_eq!(timeout(PATIENCE, reader.read_to_end(&mut rest)).await.unwrap().unwrap(), 0, "the gateway closed it");
        for gateway in [&near, &far] {
            until(|| gateway.stats().peers[0].open == 0).await;
            assert_eq!(gateway.stats().peers[0].lost, 0);
        }
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it comes true in time");
}

#[tokio::test]
async fn a_lost_gateway_closes_the_local_sockets_and_a_new_connection_works() {
    for over in [Over::Quic, Over::Tcp] {
        let Pair { near, far, mut a, mut b, listener, door } = pair(over).await;
        a.send(&query(1)).await;
        assert_eq!(b.next().await, Some(query(1)));
        let at = far.listening()[0].1;
        far.shutdown().await;
        assert_eq!((a.next().await, b.next().await), (None, None), "{over:?}");
        // Nobody there: accepted, and closed.
        assert_eq!(Peer::dial(door).await.next().await, None);
        assert!(near.stats().peers[0].dials_failed > 0);
        let mut config = GatewayConfig::new(listener.local_addr().unwrap().to_string(), at);
        config.peers = vec![GatewayPeer { addr: PeerAddr::new(identity(1).peer_id(), at), local: None }];
        let _far = gateway(2, over, config).await;
        let (mut a, b) = tokio::join!(Peer::dial(door), async { timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0 });
        let mut b = Peer::new(b);
        b.send(&query(2)).await;
        assert_eq!(a.next().await, Some(query(2)));
    }
}

#[tokio::test]
async fn a_peer_that_breaks_off_in_a_frame_takes_its_connection_with_it() {
    let Pair { mut a, mut b, near: _near, far, .. } = pair(Over::Quic).await;
    let bytes = frame(&belief(1, 3 * MIB));
    a.stream.write_all(&bytes[..2 * MIB]).await.unwrap();
    // It has begun on the other side.
    let mut first = [0; 1000];
    b.stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first[..], bytes[..1000]);
    drop(a);
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, b.stream.read_to_end(&mut rest)).await.unwrap();
    assert!(end.is_err() || rest.len() < bytes.len() - 1000, "no frame is completed with anything else");
    until(|| far.stats().peers[0].open == 0).await;
}

#[tokio::test]
async fn a_frame_that_is_too_long_or_malformed_ends_the_connection_and_what_came_before_arrives() {
    for bytes in [&[0x97, 0xeb, 0xe1, 0x01][..], &[0x80, 1, 0x10], &[0xff; 10]] {
        let Pair { mut a, mut b, near, far: _far, .. } = pair(Over::Tcp).await;
        a.send(&query(1)).await;
        a.stream.write_all(bytes).await.unwrap();
        assert_eq!(b.next().await, Some(query(1)));
        assert_eq!((a.next().await, b.next().await), (None, None));
        until(|| near.stats().peers[0].lost == 1).await;
    }
    // One gateway's own, lower limit: what the other one sends beyond it is refused.
    let limited = |config: &mut GatewayConfig| {
        if config.local == "127.0.0.1:1" {
            config.max_frame = 2 * MIB;
        }
    };
    for len in [2 * MIB + 1, 3 * MIB] {
        let Pair { mut a, mut b, near, far: _far, .. } = pair_with(Over::Quic, limited).await;
        b.send(&belief(1, 2 * MIB)).await;
        assert_eq!(a.next().await, Some(belief(1, 2 * MIB)));
        let _ = b.stream.write_all(&frame(&belief(2, len))).await;
        assert_eq!(a.next().await, None);
        until(|| near.stats().peers[0].lost == 1 && near.stats().peers[0].open == 0).await;
    }
}

#[tokio::test]
async fn strangers_are_refused_unless_the_gateway_is_open() {
    for (over, open) in [(Over::Quic, false), (Over::Tcp, false), (Over::Quic, true)] {
        let stranger = |config: &mut GatewayConfig| {
            config.open = open;
            if config.local != "127.0.0.1:1" {
                config.peers = vec![GatewayPeer { addr: PeerAddr::new(identity(9).peer_id(), config.listen), local: None }];
            }
        };
        let (near, far, listener, door) = gateways(over, stranger).await;
        let mut a = Peer::dial(door).await;
        if open {
            let mut b = Peer::new(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0);
            b.send(&query(1)).await;
            assert_eq!(a.next().await, Some(query(1)));
            continue;
        }
        assert_eq!(a.next().await, None, "{over:?}");
        assert_eq!((near.stats().peers[0].dials_failed, near.stats().peers[0].opened), (1, 0));
        until(|| far.stats().accepts_failed > 0).await;
    }
}

#[tokio::test]
async fn a_local_peer_that_isnt_there_and_too_many_connections_are_told_to_the_other_side() {
    let (near, far, listener, door) = gateways(Over::Quic, |config| config.connections_per_peer = 2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut a, b) = tokio::join!(Peer::dial(door), async { timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().0 });
        let mut b = Peer::new(b);
        a.send(&query(1)).await;
        assert_eq!(b.next().await, Some(query(1)));
        open.push((a, b));
    }
    assert_eq!(Peer::dial(door).await.next().await, None);
    assert!(near.stats().peers[0].refused + far.stats().peers[0].refused >= 1);
    drop(open);
    until(|| near.stats().peers[0].open + far.stats().peers[0].open == 0).await;
    drop(listener);
    assert_eq!(Peer::dial(door).await.next().await, None);
    until(|| far.stats().peers[0].local_failed == 1).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_closed_and_one_that_has_spoken_may_be_silent() {
    let short = |config: &mut GatewayConfig| config.first_frame = Duration::from_millis(300);
    let Pair { mut a, mut b, near: _near, far: _far, .. } = pair_with(Over::Quic, short).await;
    assert_eq!((a.next().await, b.next().await), (None, None));
    let Pair { mut a, mut b, near, far: _far, .. } = pair_with(Over::Quic, short).await;
    a.send(&query(1)).await;
    assert_eq!(b.next().await, Some(query(1)));
    sleep(Duration::from_millis(900)).await;
    b.send(&query(2)).await;
    assert_eq!(a.next().await, Some(query(2)));
    assert_eq!(near.stats().peers[0].open, 1);
}

#[tokio::test]
async fn what_was_read_is_delivered_when_a_gateway_is_shut_down() {
    let Pair { mut a, mut b, near, far: _far, .. } = pair(Over::Quic).await;
    for i in 0..20 {
        a.send(&belief(i, 20_000)).await;
    }
    until(|| near.stats().peers[0].kinds.iter().any(|kind| kind.out.messages == 20)).await;
    let ((), ()) = tokio::join!(near.shutdown(), async {
        for i in 0..20 {
            assert_eq!(b.next().await, Some(belief(i, 20_000)));
        }
        assert_eq!(b.next().await, None);
    });
    assert_eq!(a.next().await, None);
}

fn transact(id: i64) -> Bytes {
    let head = Body::of(form::read(&format!("[:TX {id} 1]")).unwrap()).encode();
    Bytes::from([&head[..], &[7; 150]].concat())
}

/// Sends requests without a pause, until the end.
async fn ask(mut writer: OwnedWriteHalf, request: impl Fn(i64) -> Bytes) {
    for id in 0.. {
        if writer.write_all(&frame(&request(id))).await.is_err() {
            return;
        }
    }
}

/// Answers each request, until the end.
async fn answer(b: Peer) {
    let (mut reader, mut writer) = b.stream.into_split();
    let mut frames = b.frames;
    while reader.read_buf(frames.buffer()).await.is_ok_and(|n| n > 0) {
        while let Some(body) = frames.next_frame().unwrap() {
            let result = Message::result(sort::Head::of(&body).id.unwrap(), Value::nil()).unwrap();
            if writer.write_all(&result.frame()).await.is_err() {
                return;
            }
        }
    }
}

/// Hands the IDs of answers on, until the end. None comes twice.
async fn answers(mut reader: OwnedReadHalf, mut each: impl FnMut(usize)) {
    let (mut frames, mut seen) = (Frames::new(MAX_FRAME), HashSet::new());
    while reader.read_buf(frames.buffer()).await.is_ok_and(|n| n > 0) {
        while let Some(body) = frames.next_frame().unwrap() {
            let id = Message::decode(&body).unwrap().id().unwrap();
            assert!(seen.insert(id), "{id} is answered twice");
            each(seen.len());
        }
    }
}

/// Whoever waits for an answer gets it, or sees his connection end: nothing in between, wherever in a stream of requests a gateway ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_ends_in_a_stream_of_requests_leaves_none_waiting() {
    for over in [Over::Quic, Over::Tcp] {
        for round in 0..8usize {
            let Pair { near, far, a, b, .. } = pair(over).await;
            let (reader, writer) = a.stream.into_split();
            let (now, ending) = tokio::sync::oneshot::channel();
            let mut now = Some(now);
            let tasks = [tokio::spawn(ask(writer, transact)), tokio::spawn(answer(b))];
            let at = 50 + 173 * round;
            let ended = async {
                tokio::join!(
                    answers(reader, |count| {
                        if count == at {
                            let _ = now.take().map(|now| now.send(()));
                        }
                    }),
                    async {
                        ending.await.unwrap();
                        match round % 4 {
                            0 => far.shutdown().await,
                            1 => drop(far),
                            2 => near.shutdown().await,
                            _ => drop(near),
                        }
                    }
                )
            };
            timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{over:?}, round {round}: it's neither answered nor closed"));
            for task in tasks {
                timeout(PATIENCE, task).await.expect("the other peer's connection ends too").unwrap();
            }
        }
    }
}

/// Two peers whose gateways are joined by a path that ends in one of two ways.
struct Joined {
    near: Gateway,
    far: Gateway,
    a: Peer,
    b: Peer,
    /// From then on it takes nothing and brings nothing.
    silence: CancellationToken,
    /// Its ends are closed.
    cut: CancellationToken,
}

async fn joined() -> Joined {
    let terms = || {
        let mut terms = GatewayConfig::terms("test").unwrap();
        terms.limits.idle_timeout = Duration::from_secs(2);
        terms.limits.ping_interval = Duration::from_millis(200);
        terms
    };
    let (listener, path) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = GatewayConfig::new(listener.local_addr().unwrap().to_string(), loopback);
    config.peers = vec![GatewayPeer { addr: PeerAddr::new(identity(1).peer_id(), loopback), local: None }];
    let far = gateway_under(terms(), 2, Over::Tcp, config).await;
    let mut config = GatewayConfig::new("127.0.0.1:1", loopback);
    config.peers = vec![GatewayPeer { addr: PeerAddr::new(identity(2).peer_id(), path.local_addr().unwrap()), local: Some(loopback) }];
    let near = gateway_under(terms(), 1, Over::Tcp, config).await;
    let (silence, cut) = (CancellationToken::new(), CancellationToken::new());
    let (at, silent, ended) = (far.listening()[0].1, silence.clone(), cut.clone());
    tokio::spawn(async move {
        let mut here = path.accept().await.unwrap().0;
        let mut there = TcpStream::connect(at).await.unwrap();
        let carrying = silent.run_until_cancelled(tokio::io::copy_bidirectional(&mut here, &mut there));
        if ended.run_until_cancelled(carrying).await.is_some() {
            std::future::pending::<()>().await;
        }
    });
    let (a, b) = tokio::join!(Peer::dial(near.locals()[0].1), listener.accept());
    Joined { near, far, a, b: Peer::new(b.unwrap().0), silence, cut }
}

#[tokio::test]
async fn a_path_that_falls_silent_closes_the_connections_of_those_who_wait() {
    let Joined { near, far, mut a, mut b, silence, .. } = joined().await;
    a.send(&transact(1)).await;
    assert_eq!(b.next().await, Some(transact(1)));
    silence.cancel();
    b.send(&Message::result(1, Value::nil()).unwrap().encode()).await;
    assert_eq!((a.next().await, b.next().await), (None, None));
    until(|| near.stats().peers[0].lost == 1 && far.stats().peers[0].lost == 1).await;
}

#[tokio::test]
async fn a_local_peer_that_reads_nothing_keeps_no_lost_connection() {
    let Joined { near, far, a, mut b, silence: _silence, cut } = joined().await;
    let mut number = 0;
    while timeout(Duration::from_millis(500), b.send(&belief(number, 40_000))).await.is_ok() {
        number += 1;
    }
    cut.cancel();
    until(|| near.stats().peers[0].open == 0 && far.stats().peers[0].open == 0).await;
    drop(a);
}

/// Requests as fast as the gateways take them, on one connection: their answers come meanwhile.
#[tokio::test]
async fn answers_come_while_requests_flood_in_on_the_same_connection() {
    for over in [Over::Quic, Over::Tcp] {
        let Pair { near: _near, far: _far, a, b, .. } = pair(over).await;
        let (reader, writer) = a.stream.into_split();
        let (enough, reached) = tokio::sync::oneshot::channel();
        let mut enough = Some(enough);
        let count = move |count| {
            if count == 5000 {
                let _ = enough.take().map(|enough| enough.send(()));
            }
        };
        let all = async {
            tokio::select! {
                reached = reached => reached.unwrap(),
                _ = async { tokio::join!(ask(writer, query), answer(b), answers(reader, count)) } => panic!("{over:?}: it ended"),
            }
        };
        timeout(PATIENCE, all).await.expect("answers come");
    }
}
