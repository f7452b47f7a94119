//! `docs/WIRE.md` is true: each of its golden blocks is built again with the public API and read back, and its tables are those of
//! the code. A block without a case here fails, and so does a case without a block.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use peerlane::{
    cad015::{ErrorCode, MAX_HASHES, MAX_OPERATIONS, Message, MessageType, Payload, peek_id},
    cell::{
        Cell, HashKind, MemoryCells, Name, Profile, Reader, Ref, Signed, ValueId, Vector, Writer, decode, encode, encode_ref_into, vlq,
    },
    peer::{
        Answer, Belief, BeliefDelta, Counts, Edit, Include, MAX_BELIEF, MAX_KEY, MAX_PAGE, MAX_PARTS, MAX_VALUE, Operation, Query, Service,
        Status, Store, Verified, log_of, read_outcome,
    },
    protocol::{MAX_HEAD, Protocol, StreamHead},
    transport::{
        ClassId, ClassTable, CloseCode, Closed, Connection, Control, Delivery, Inbound, LaneSource, Order, PathStats, Session, SessionInfo,
        TrafficClass, Urgency,
        admission::{Agreed, JoinToken, Terms, join},
        class::{DatagramState, Lane, Offer, Outgoing, Record},
        framing, hello,
        identity::{ALPN, Challenge, Credentials, Identity, Remote, Role, peer_key, server_name},
        limits, varint,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const NATIVE: Profile = Profile::NATIVE;
/// In the network of the examples, which operations and beliefs are bound to.
static HERE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(|| NATIVE.in_network(NETWORK));
const QUERY: ClassId = ClassId(1);
const DATA: ClassId = ClassId(3);
const NETWORK: &str = "peerlane";
/// The clock in the examples, milliseconds since 1970.
const TIME: u64 = 1_700_000_000_000;

// ----- the document

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/WIRE.md")).expect("docs/WIRE.md is there")
}

struct Block {
    bytes: Bytes,
    /// `gets=N`: bytes that break a rule, and the close code they get.
    gets: Option<u32>,
}

/// The blocks that start with ```` ```golden name=NAME ````, by name. A block consists of hex digits, `HH*COUNT`, `"text"` and `#` comments.
fn blocks() -> BTreeMap<String, Block> {
    let text = document();
    let mut lines = text.lines();
    let mut blocks = BTreeMap::new();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("```golden ") else { continue };
        let field = |key: &str| head.split_whitespace().find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        let name = field("name").unwrap_or_else(|| panic!("a block without a name: {line}")).to_owned();
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            read_line(line, &mut bytes).unwrap_or_else(|what| panic!("{name}: {what}: {line}"));
        }
        let block = Block { bytes: bytes.into(), gets: field("gets").map(|code| code.parse().unwrap()) };
        assert!(blocks.insert(name.clone(), block).is_none(), "two blocks are named {name}");
    }
    blocks
}

fn read_line(line: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        if let Some(text) = rest.strip_prefix('"') {
            let (text, after) = text.split_once('"').ok_or("an open quote")?;
            out.extend_from_slice(text.as_bytes());
            rest = after.trim_start();
            continue;
        }
        let (token, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (hex, count) = token.split_once('*').map_or((token, Ok(1)), |(hex, count)| (hex, count.parse::<usize>()));
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|error| format!("{token:?}: {error}"))?;
        let count = count.map_err(|error| format!("{token:?}: {error}"))?;
        (0..count).for_each(|_| out.extend_from_slice(&bytes));
        rest = after.trim_start();
    }
    Ok(())
}

/// The rows of the table that follows `<!-- table: NAME -->`: its cells, without the head.
fn table(name: &str) -> Vec<Vec<String>> {
    let text = document();
    let (_, rest) = text.split_once(&format!("<!-- table: {name} -->\n")).unwrap_or_else(|| panic!("no table {name}"));
    let rows = rest.lines().take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()).collect()
}

// ----- cases

/// What a block must be: the bytes built here, and what reading the document's bytes must give.
struct Case {
    name: &'static str,
    built: Bytes,
    read: Box<dyn Fn(Bytes)>,
}

fn case(name: &'static str, built: impl Into<Bytes>, read: impl Fn(Bytes) + 'static) -> Case {
    Case { name, built: built.into(), read: Box::new(read) }
}

fn cases() -> Vec<Case> {
    [varints(), identity(), control(), hellos(), records(), lanes(), framed(), challenges(), cells(), messages(), operations(), answers()]
        .into_iter()
        .flatten()
        .collect()
}

/// Shortens runs of one byte, as the document does.
fn shown(bytes: &[u8]) -> String {
    let run = |chunk: &[u8]| if chunk.len() > 8 { format!(" {:02x}*{} ", chunk[0], chunk.len()) } else { HEXLOWER.encode(chunk) };
    bytes.chunk_by(|a, b| a == b).map(run).collect()
}

#[test]
fn each_block_is_what_the_code_writes_and_reads() {
    let blocks = blocks();
    let mut failed = Vec::new();
    let mut names = Vec::new();
    for Case { name, built, read } in cases() {
        names.push(name);
        let Some(block) = blocks.get(name) else {
            failed.push(format!("{name}: no such block; the code writes\n{}", shown(&built)));
            continue;
        };
        if block.bytes != built {
            failed.push(format!("{name}: the document says\n{}\nthe code writes\n{}", shown(&block.bytes), shown(&built)));
            continue;
        }
        // Shown if reading panics.
        println!("reading {name}");
        read(block.bytes.clone());
    }
    let idle = blocks.iter().filter(|(name, block)| block.gets.is_none() && !names.contains(&name.as_str()));
    failed.extend(idle.map(|(name, _)| format!("{name}: a block without a case")));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

// ----- numbers, keys, certificates

fn put_varint(value: u64) -> BytesMut {
    let mut out = BytesMut::new();
    varint::put(&mut out, value);
    out
}

fn varints() -> Vec<Case> {
    let one = |name, value: u64| {
        case(name, put_varint(value), move |mut bytes| {
            assert_eq!(varint::get(&mut bytes), Some(value));
            assert!(bytes.is_empty());
        })
    };
    let count = |name, value: u64| {
        let mut out = BytesMut::new();
        vlq::write(value, &mut out);
        case(name, out, move |bytes| assert_eq!(vlq::read(&bytes), Ok((value, bytes.len()))))
    };
    vec![
        one("varint-37", 37),
        one("varint-15293", 15_293),
        one("varint-494878333", 494_878_333),
        one("varint-max", varint::MAX),
        count("vlq-127", 127),
        count("vlq-128", 128),
        count("vlq-16384", 16_384),
        count("vlq-max", vlq::MAX),
    ]
}

fn seed(n: u8) -> Identity {
    Identity::from_seed(&[n; 32]).unwrap()
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn account(n: u8) -> [u8; 32] {
    key(n).verifying_key().to_bytes()
}

fn identity() -> Vec<Case> {
    let derived = |name, context: &'static str| {
        case(name, seed(1).derive_secret(context).to_vec(), move |bytes| {
            assert_eq!(bytes[..], blake3::derive_key(context, &[1; 32]));
            assert!(document().contains(&format!("`{context}`")), "the document names the context {context:?}");
            // The contexts are the transport's own affair; here it's only seen that they're still the same.
            let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/transports/quic/src/config.rs"));
            assert!(source.is_ok_and(|source| source.contains(&format!("{context:?}"))));
        })
    };
    let name = server_name(&seed(1).peer_id()).unwrap().to_str().into_owned();
    let certificate = Credentials::new(&seed(1)).unwrap().certificate().to_vec();
    vec![
        case("peer-id", seed(1).peer_id().as_bytes().to_vec(), |bytes| assert_eq!(bytes[..], account(1))),
        case("alpn", ALPN, |bytes| assert_eq!(bytes[..], *ALPN)),
        case("server-name", name, |bytes| {
            let label = bytes.strip_suffix(b".peerlane.invalid").unwrap().to_ascii_uppercase();
            assert_eq!(data_encoding::BASE32_NOPAD.decode(&label).unwrap(), account(1));
        }),
        // The block's bytes are these, or reading isn't reached.
        case("certificate", certificate, |_| {
            let ours = Credentials::new(&seed(1)).unwrap();
            assert_eq!(peer_key(std::slice::from_ref(ours.certificate())).unwrap(), seed(1).peer_id());
        }),
        case("exporter-label", Challenge::EXPORTER_LABEL, |bytes| assert_eq!(bytes[..], *Challenge::EXPORTER_LABEL)),
        derived("derived-reset", "peerlane/1 quic stateless reset"),
        derived("derived-token", "peerlane/1 quic address token"),
        derived("derived-connection-id", "peerlane/1 quic connection id"),
    ]
}

// ----- control frames and the hello

fn frame(control: &Control) -> BytesMut {
    let mut out = BytesMut::new();
    control.encode(&mut out);
    out
}

fn control() -> Vec<Case> {
    let one = |name, control: Control| {
        case(name, frame(&control), move |bytes| {
            let mut input = BytesMut::from(&bytes[..]);
            assert_eq!(Control::decode(&mut input), Ok(Some(control.clone())));
            assert!(input.is_empty());
        })
    };
    let lane = Lane { class: 3, slot: 1 };
    vec![
        one("control-accept", Control::Accept),
        one("control-ping", Control::Ping(1_000_000)),
        one("control-pong", Control::Pong(1_000_000)),
        one("control-credit", Control::Credit { lane, total: 393_216 }),
        one("control-release", Control::Release(lane)),
        one("control-stop", Control::Stop { lane, number: 7, code: 1 }),
        one("control-finished", Control::Finished { messages: 12 }),
        one("control-drained", Control::Drained),
        one("control-close", Control::Close { code: CloseCode::WrongNetwork.number(), reason: Bytes::from_static(b"network main here") }),
        one("control-join", Control::Join { carrier: 1, token: [7; JoinToken::LEN].into() }),
        one("control-moved", Control::Moved(1)),
    ]
}

fn terms() -> Terms {
    Terms::new(NETWORK).unwrap()
}

fn hellos() -> Vec<Case> {
    let mut small = terms();
    let mut class = ClassTable::standard()[QUERY].clone();
    class.delivery = Delivery::Datagram;
    class.order = Order::Fifo;
    class.large_lanes = 0;
    small.classes = ClassTable::new(vec![class]).unwrap();
    let read_small = small.clone();
    let mut carriers = hello::Extensions::default();
    carriers.carriers = 2;
    carriers.copies = true;
    vec![
        case("hello-standard", frame(&Control::Hello(hello::encode(&terms()))), |bytes| {
            let Ok(Some(Control::Hello(body))) = Control::decode(&mut BytesMut::from(&bytes[..])) else { panic!("no hello") };
            assert!(hello::judge(&terms(), body.clone()).is_ok());
            // What a later version adds and doesn't insist on is ignored.
            assert!(hello::judge(&terms(), [&body[..], &[6, 5], b"later"].concat().into()).is_ok());
            let foreign = hello::judge(&Terms::new("main").unwrap(), body).unwrap_err();
            assert_eq!(foreign.code, CloseCode::WrongNetwork);
        }),
        case("hello-carriers", hello::encode_with(&terms(), carriers).split_off(hello::encode(&terms()).len()), move |bytes| {
            let body = [&hello::encode(&terms())[..], &bytes].concat();
            assert_eq!(hello::judge(&terms(), body.into()).unwrap().extensions(), carriers);
        }),
        case("join-alpn", join::ALPN, |_| {}),
        case("hello-one-class", hello::encode(&small), move |bytes| assert!(hello::judge(&read_small, bytes).is_ok())),
    ]
}

// ----- records, lanes, class framing

fn record(record: Record) -> BytesMut {
    let mut out = BytesMut::new();
    record.encode(&mut out);
    out
}

fn records() -> Vec<Case> {
    let one = |name, value: Record| {
        case(name, record(value), move |mut bytes| {
            assert_eq!(Record::from_varint(varint::get(&mut bytes).unwrap()), Some(value));
            assert!(bytes.is_empty());
        })
    };
    vec![
        one("record-whole", Record::Whole(300)),
        one("record-start", Record::Start(7)),
        one("record-part", Record::Part(16_384)),
        one("record-end", Record::End),
        one("record-abort", Record::Abort(1)),
    ]
}

fn info() -> SessionInfo {
    SessionInfo {
        transport: "test",
        dialed: true,
        remote: Remote::anonymous("127.0.0.1:1".parse().unwrap()),
        local_addr: String::new(),
        remote_addr: String::new(),
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    }
}

fn session(terms: &Terms) -> (Arc<Session>, Connection) {
    Session::start(info(), Agreed::same(terms), terms.classes.clone(), terms.limits.clone())
}

/// Runs on a clock that moves only when everything waits, so no life sign comes in between.
fn run<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(scenario)
}

fn large() -> Bytes {
    vec![0x5a; 70_000].into()
}

/// What the QUIC driver writes on a new stream: the lane's byte, then the segments that the session lets go.
fn stream(class: ClassId, message: Bytes) -> Bytes {
    run(async {
        let (session, connection) = session(&terms());
        connection.send(class, message).await.unwrap();
        let (mut out, mut ends) = (BytesMut::new(), false);
        while let Some(Outgoing::Segment(segment)) = session.outbox().next(limits::QUANTUM, DatagramState::None) {
            if out.is_empty() {
                out.extend_from_slice(&[segment.lane.to_byte()]);
            }
            segment.chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
            assert_eq!((out[0], ends), (segment.lane.to_byte(), false), "one lane, and nothing behind its end");
            ends = segment.fin;
        }
        assert_eq!(ends, out[0] & 15 > 0, "a large message's stream ends, a class's own doesn't");
        out.freeze()
    })
}

/// A stream's bytes, then its end.
struct Arrived(Option<Bytes>);

impl LaneSource for Arrived {
    async fn read(&mut self, into: &mut VecDeque<Bytes>) -> Result<bool, Closed> {
        into.extend(self.0.take());
        Ok(!into.is_empty())
    }
}

async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match connection.recv(class).await.unwrap() {
        Inbound::Whole(message) => message,
        Inbound::Streamed(_) => panic!("a streamed message"),
    }
}

fn read_stream(mut bytes: Bytes) -> (Lane, Bytes) {
    run(async {
        let (session, connection) = session(&terms());
        let lane = Lane::from_byte(bytes.get_u8());
        session.receive_lane(lane, &mut Arrived(Some(bytes))).await.unwrap();
        (lane, whole(&connection, ClassId(lane.class)).await)
    })
}

/// A table whose class "query" is a `Datagram` class.
fn datagram_terms() -> Terms {
    let mut terms = terms();
    let mut classes: Vec<_> = terms.classes.iter().map(|(_, class)| class.clone()).collect();
    classes[1].delivery = Delivery::Datagram;
    terms.classes = ClassTable::new(classes).unwrap();
    terms
}

fn lanes() -> Vec<Case> {
    let lane = Lane { class: 11, slot: 3 };
    let datagram = run(async {
        let (session, connection) = session(&datagram_terms());
        connection.send(QUERY, Bytes::from_static(b"hello")).await.unwrap();
        match session.outbox().next(limits::QUANTUM, DatagramState::Ready(1199)) {
            Some(Outgoing::Datagram { class, message }) => [&[class.0], &message[..]].concat(),
            other => panic!("{other:?}"),
        }
    });
    let message = run(async {
        let (session, connection) = session(&terms());
        connection.send(QUERY, Bytes::from_static(b"hello")).await.unwrap();
        let offer = Offer { message_stream: limits::MESSAGE_STREAM, ..Offer::default() };
        match session.outbox().next(limits::QUANTUM, offer) {
            Some(Outgoing::Message { class, message }) => {
                [&[Lane { class: class.0, slot: Lane::MESSAGE }.to_byte()], &message[..]].concat()
            }
            other => panic!("{other:?}"),
        }
    });
    let mut copy = vec![16 | QUERY.0];
    varint::put(&mut copy, 98 / 4);
    copy.extend_from_slice(b"hello");
    vec![
        case("lane", vec![lane.to_byte()], move |bytes| assert_eq!(Lane::from_byte(bytes[0]), lane)),
        case("quic-stream-small", stream(QUERY, Bytes::from_static(b"hello")), |bytes| {
            assert_eq!(read_stream(bytes), (Lane { class: 1, slot: 0 }, Bytes::from_static(b"hello")));
        }),
        case("quic-stream-large", stream(DATA, large()), |bytes| assert_eq!(read_stream(bytes), (Lane { class: 3, slot: 1 }, large()))),
        case("quic-message-stream", message, |bytes| {
            run(async {
                let (session, connection) = session(&terms());
                let Lane { class, slot } = Lane::from_byte(bytes[0]);
                assert_eq!(slot, Lane::MESSAGE);
                session.on_message(class, Bytes::copy_from_slice(&bytes[1..])).await.unwrap();
                assert_eq!(whole(&connection, QUERY).await, Bytes::from_static(b"hello"));
            });
        }),
        case("quic-copy", copy, |bytes| {
            run(async {
                let (session, connection) = session(&terms());
                let mut rest = &bytes[1..];
                assert_eq!((bytes[0], varint::get(&mut rest)), (16 | QUERY.0, Some(98 / 4)));
                assert!(session.on_copy(bytes[0] & 15, rest).unwrap());
                assert_eq!(whole(&connection, QUERY).await, Bytes::from_static(b"hello"));
            });
        }),
        case("quic-datagram", datagram, |bytes| {
            run(async {
                let (session, connection) = session(&datagram_terms());
                session.on_datagram(bytes[0], &bytes[1..]).unwrap();
                assert_eq!(whole(&connection, QUERY).await, Bytes::from_static(b"hello"));
            });
        }),
    ]
}

/// The other side of a connection, by hand: what it writes, and what it reads frame by frame.
struct Raw(DuplexStream);

impl Raw {
    /// A connection after its hello, driven by class framing, and its other side. What was written before: HELLO and ACCEPT.
    async fn meet() -> (Connection, Self, Bytes) {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let mut raw = Self(theirs);
        raw.write(&frame(&Control::Hello(hello::encode(&terms())))).await;
        raw.write(&frame(&Control::Accept)).await;
        let (agreed, early) = hello::exchange(&mut ours, &terms(), Ok(())).await.unwrap();
        let mut before = vec![0; frame(&Control::Hello(hello::encode(&terms()))).len() + frame(&Control::Accept).len()];
        raw.0.read_exact(&mut before).await.unwrap();
        let (session, connection) = Session::start(info(), agreed, terms().classes, terms().limits);
        tokio::spawn(framing::drive(ours, session, early));
        (connection, raw, before.into())
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next frame: its bytes, its lane byte, the length of its payload. `None` at the end.
    async fn frame(&mut self) -> Option<(Vec<u8>, u8, usize)> {
        let mut frame = vec![self.0.read_u8().await.ok()?, self.0.read_u8().await.unwrap()];
        for _ in 1..varint::len_of_first(frame[1]) {
            frame.push(self.0.read_u8().await.unwrap());
        }
        let len = varint::get(&mut &frame[1..]).unwrap() as usize;
        let head = frame.len();
        frame.resize(head + len, 0);
        self.0.read_exact(&mut frame[head..]).await.unwrap();
        let lane = frame[0];
        Some((frame, lane, len))
    }

    /// Frames up to and including the one that ends a lane.
    async fn lane(&mut self) -> Bytes {
        let mut all = Vec::new();
        loop {
            let (frame, _, len) = self.frame().await.unwrap();
            all.extend(frame);
            if len == 0 {
                return all.into();
            }
        }
    }

    /// All until the end.
    async fn rest(&mut self) -> Bytes {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).await.unwrap();
        all.into()
    }
}

/// A framed control frame.
fn framed_control(control: &Control) -> Bytes {
    let control = frame(control);
    let mut out = BytesMut::from(&[0xff][..]);
    varint::put(&mut out, control.len() as u64);
    out.extend_from_slice(&control);
    out.freeze()
}

/// What a connection really writes when it sends three messages and closes, by parts.
struct Exchange {
    hello: Bytes,
    small: Bytes,
    large: Bytes,
    streamed: Bytes,
    finished: Bytes,
    close: Bytes,
}

fn exchange() -> Exchange {
    run(async {
        let (connection, mut raw, hello) = Raw::meet().await;
        connection.send(QUERY, Bytes::from_static(b"hello")).await.unwrap();
        let small = raw.frame().await.unwrap().0.into();
        connection.send(DATA, large()).await.unwrap();
        let large = raw.lane().await;
        raw.write(&framed_control(&Control::Release(Lane { class: 3, slot: 1 }))).await;
        let mut writer = connection.open(DATA).await.unwrap();
        writer.write(&mut Bytes::from_static(b"part one, ")).await.unwrap();
        writer.write(&mut Bytes::from_static(b"part two")).await.unwrap();
        writer.finish().unwrap();
        let streamed = raw.lane().await;
        let drain = tokio::spawn(async move { connection.drain().await });
        let finished = raw.frame().await.unwrap().0.into();
        raw.write(&framed_control(&Control::Drained)).await;
        raw.write(&framed_control(&Control::Finished { messages: 0 })).await;
        let close = raw.rest().await;
        drain.await.unwrap().unwrap();
        Exchange { hello, small, large, streamed, finished, close }
    })
}

/// A connection with a byte stream for copies, and the other side's ends: of the first one, and of that.
async fn with_copies() -> (Connection, Raw, Raw) {
    let (first, theirs) = tokio::io::duplex(1 << 20);
    let (copies, their_copies) = tokio::io::duplex(1 << 20);
    let (session, connection) = Session::start(info(), Agreed::same(&terms()), terms().classes, terms().limits);
    let (joining, carriers) = framing::carriers(vec![0; 5]);
    tokio::spawn(framing::drive_all(first, session, BytesMut::new(), carriers.with_copies(Some(Duration::from_millis(2)))));
    assert!(joining.attach(joining.take(framing::COPIES).unwrap(), copies, BytesMut::new()));
    while joining.count() < 2 {
        tokio::task::yield_now().await;
    }
    (connection, Raw(theirs), Raw(their_copies))
}

fn copied() -> Case {
    let frame = run(async {
        let (connection, _first, mut copies) = with_copies().await;
        connection.send(QUERY, Bytes::from_static(b"hello")).await.unwrap();
        copies.frame().await.unwrap().0
    });
    case("tcp-copy", frame, |bytes| {
        run(async {
            let (connection, _first, mut copies) = with_copies().await;
            copies.write(&bytes).await;
            assert_eq!(whole(&connection, QUERY).await, Bytes::from_static(b"hello"));
        });
    })
}

fn framed() -> Vec<Case> {
    let Exchange { hello, small, large: large_frames, streamed, finished, close } = exchange();
    assert_eq!(hello, [frame(&Control::Hello(hello::encode(&terms()))), frame(&Control::Accept)].concat(), "bare frames, no lane bytes");
    vec![
        case("tcp-small", small, |bytes| {
            run(async {
                let (connection, mut raw, _) = Raw::meet().await;
                raw.write(&bytes).await;
                assert_eq!(whole(&connection, QUERY).await, Bytes::from_static(b"hello"));
            });
        }),
        case("tcp-large", large_frames, |bytes| {
            run(async {
                let (connection, mut raw, _) = Raw::meet().await;
                raw.write(&bytes).await;
                assert_eq!(whole(&connection, DATA).await, large());
                let lane = Lane { class: 3, slot: 1 };
                let mut next = raw.frame().await.unwrap().0;
                // Credit for more of it may have been given before it ended.
                while let Ok(Some(Control::Credit { lane: of, .. })) = Control::decode(&mut BytesMut::from(&next[2..])) {
                    assert_eq!(of, lane);
                    next = raw.frame().await.unwrap().0;
                }
                assert_eq!(next, framed_control(&Control::Release(lane)), "the slot is free again");
            });
        }),
        case("tcp-release", framed_control(&Control::Release(Lane { class: 3, slot: 1 })), |_| {}),
        case("tcp-streamed", streamed, |bytes| {
            run(async {
                let (connection, mut raw, _) = Raw::meet().await;
                raw.write(&bytes).await;
                let Inbound::Streamed(reader) = connection.recv(DATA).await.unwrap() else { panic!("a whole message") };
                assert_eq!(reader.collect(100).await.unwrap(), Bytes::from_static(b"part one, part two"));
            });
        }),
        copied(),
        case("tcp-finished", finished, |bytes| {
            run(async {
                let (connection, mut raw, _) = Raw::meet().await;
                raw.write(&bytes).await;
                connection.remote_draining().await;
            });
        }),
        case("tcp-close", close, |bytes| {
            run(async {
                let (connection, mut raw, _) = Raw::meet().await;
                raw.write(&bytes).await;
                assert_eq!(connection.closed().await.code, CloseCode::Done);
            });
        }),
    ]
}

/// Bytes that break a rule get the close code that the document says, and the code is told.
#[test]
fn each_violation_gets_its_code() {
    let mut seen = 0;
    for (name, Block { bytes, gets }) in blocks() {
        let Some(expected) = gets else { continue };
        seen += 1;
        let code = run(async {
            if name.starts_with("hello-") {
                let (mut ours, theirs) = tokio::io::duplex(1 << 20);
                let mut raw = Raw(theirs);
                raw.write(&bytes).await;
                assert!(hello::exchange(&mut ours, &terms(), Ok(())).await.is_err(), "{name}");
                drop(ours);
                let mut said = BytesMut::from(&raw.rest().await[..]);
                let Ok(Some(Control::Hello(_))) = Control::decode(&mut said) else { panic!("{name}: no hello") };
                return match Control::decode(&mut said) {
                    Ok(Some(Control::Close { code, .. })) => code,
                    other => panic!("{name}: {other:?}"),
                };
            }
            let (connection, mut raw, _) = Raw::meet().await;
            raw.write(&bytes).await;
            loop {
                let (frame, lane, _) = raw.frame().await.unwrap_or_else(|| panic!("{name}: no CLOSE"));
                let mut payload = BytesMut::from(&frame[2..]);
                if lane == 0xff
                    && let Ok(Some(Control::Close { code, .. })) = Control::decode(&mut payload)
                {
                    assert_eq!(connection.closed().await.code.number(), code);
                    return code;
                }
            }
        });
        assert_eq!(code, expected, "{name}");
    }
    assert!(seen >= 10, "the violations were found");
}

// ----- CHALLENGE

fn challenge() -> Challenge<'static> {
    Challenge { role: Role::Dialer, other: seed(2).peer_id(), network: NETWORK, exporter: [4; 32], nonce: [5; 32] }
}

fn challenges() -> Vec<Case> {
    let (signer, other) = (account(1), account(2));
    let network = (NETWORK.len() as u64).to_be_bytes();
    let parts: [&[u8]; 9] = [b"peerlane/1 challenge", &[0], &[0], &signer, &other, &network, NETWORK.as_bytes(), &[4; 32], &[5; 32]];
    let signature = challenge().sign(&seed(1));
    vec![
        case("challenge-transcript", parts.concat(), |bytes| {
            // The signature that the code makes is the plain Ed25519 signature of the document's bytes.
            assert_eq!(key(1).sign(&bytes).to_bytes(), challenge().sign(&seed(1)));
        }),
        case("challenge-signature", signature.to_vec(), |bytes| {
            challenge().verify(&seed(1).peer_id(), &bytes[..].try_into().unwrap()).unwrap();
        }),
    ]
}

// ----- cells

fn embed(cell: Cell) -> Ref {
    Ref::Embedded(Arc::new(cell))
}

fn int(i: i64) -> Ref {
    embed(Cell::Integer(i))
}

fn keyword(name: &'static str) -> Ref {
    embed(Cell::Keyword(Name::new(name).unwrap()))
}

fn blob(bytes: impl Into<Bytes>) -> Ref {
    embed(Cell::blob(bytes).unwrap())
}

fn reads_as(cell: Cell) -> impl Fn(Bytes) {
    move |bytes| assert_eq!(decode(&bytes, &NATIVE), Ok(cell.clone()))
}

fn cells() -> Vec<Case> {
    let one = |name, cell: Cell| case(name, encode(&cell), reads_as(cell));
    let mut store = MemoryCells::default();
    let mut writer = Writer::new(&NATIVE, &mut store);
    let long_blob = writer.blob(vec![7; 4097].into()).unwrap();
    let items: Vec<Ref> = (1..=18).map(int).collect();
    let vector = Cell::Vector(writer.vector(&items).unwrap());
    let map = writer.map([(keyword("a"), int(1)), (keyword("b"), int(2))]).unwrap();
    let set = writer.set([int(1), int(2), int(3)]).unwrap();
    let index = Cell::Index(writer.index([(&b"ab"[..], int(1)), (&b"ac"[..], int(2)), (&b"a"[..], int(3))]).unwrap());
    let list = Cell::List(Vector::short([int(2), int(1)]));
    let long_items = {
        let items: Vec<Ref> = (0..32).map(|i| blob(vec![i; 8])).collect();
        Cell::Vector(writer.vector(&items).unwrap())
    };
    let chunk = encode(&Cell::blob(vec![7; 4096]).unwrap());
    let signed = Signed::sign(&NATIVE, &key(1), int(1));
    let text = Cell::string(&b"\xc3\xa9t\xc3\xa9"[..]).unwrap();
    let hash = |name, kind: HashKind| {
        let id = Profile { hash: kind, ..NATIVE }.id(&[0x00]);
        case(name, id.0.to_vec(), move |bytes| assert_eq!(Profile { hash: kind, ..NATIVE }.id(&encode(&Cell::Nil)).0[..], bytes))
    };
    vec![
        one("cell-nil", Cell::Nil),
        one("cell-true", Cell::Bool(true)),
        one("cell-zero", Cell::Integer(0)),
        one("cell-128", Cell::Integer(128)),
        one("cell-minus-one", Cell::Integer(-1)),
        one("cell-double", Cell::Double(1.5f64.to_bits())),
        one("cell-string", text),
        one("cell-keyword", Cell::Keyword(Name::new("put").unwrap())),
        one("cell-character", Cell::Character(0x20ac)),
        one("cell-vector", Cell::Vector(Vector::short([int(1), keyword("a"), Ref::nil()]))),
        one("cell-list", list),
        one("cell-vector-18", vector),
        one("cell-vector-32", long_items),
        one("cell-map", map),
        one("cell-set", set),
        one("cell-index", index),
        one("cell-blob-4097", long_blob),
        case("cell-blob-4097-id", NATIVE.id(&chunk).0.to_vec(), {
            let store = store.clone();
            move |bytes| assert_eq!(store.0[&ValueId(bytes[..].try_into().unwrap())], chunk)
        }),
        case("cell-signed", encode(&Cell::Signed(Box::new(signed))), |bytes| {
            let Ok(Cell::Signed(signed)) = decode(&bytes, &NATIVE) else { panic!("not a signed cell") };
            signed.verify(&NATIVE).unwrap();
            let mut message = BytesMut::from(&b"peerlane/1 signed\0"[..]);
            encode_ref_into(&int(1), &mut message);
            assert_eq!(key(1).sign(&message).to_bytes(), *signed.signature());
        }),
        hash("id-nil-blake3", HashKind::Blake3),
        hash("id-nil-sha3", HashKind::Sha3_256),
    ]
}

// ----- CAD015 messages

fn message(name: &'static str, message: Message, check: impl Fn(Payload) + 'static) -> Case {
    case(name, message.encode(), move |bytes| {
        let decoded = Message::decode(&bytes, &NATIVE).unwrap();
        assert_eq!(decoded, message);
        assert_eq!(peek_id(&bytes), message.id());
        check(decoded.parse(&NATIVE).unwrap());
    })
}

fn small_operation(cells: &mut MemoryCells) -> Signed {
    let edit = Edit::Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"hello") };
    Operation::sign(&edit, 1, &key(1), &HERE, cells).unwrap()
}

fn messages() -> Vec<Case> {
    let cell = encode(&Cell::blob(vec![0; 138]).unwrap());
    let id = NATIVE.id(&cell);
    let nonce = Bytes::from(vec![5; 32]);
    let signature = Bytes::copy_from_slice(&challenge().sign(&seed(1)));
    let head = peerlane::cad015::Cad015::new(NATIVE).encode_head(Some(&Message::result(9, Ref::nil())));
    let operation = small_operation(&mut MemoryCells::default());
    let sent = operation.clone();
    vec![
        message("message-challenge", Message::challenge(3, [blob(nonce.clone())]), move |payload| {
            assert_eq!(payload, Payload::Challenge { id: 3, parts: vec![blob(nonce.clone())] });
        }),
        message("message-response", Message::response(3, [blob(signature.clone())]), move |payload| {
            assert_eq!(payload, Payload::Response { id: 3, parts: vec![blob(signature.clone())] });
        }),
        message("message-data", Message::data(4, &[Some((id, cell)), None], 4096, &NATIVE).unwrap(), move |payload| {
            assert_eq!(payload, Payload::Data { id: 4, cells: vec![Some(id), None] });
        }),
        message("message-missing-data", Message::missing_data(4, &[ValueId([7; 32])], &NATIVE).unwrap(), |payload| {
            assert_eq!(payload, Payload::MissingData { id: 4, hashes: vec![ValueId([7; 32])] });
        }),
        message("message-query", Message::query(5, [keyword("root")]), |payload| {
            assert_eq!(payload, Payload::Query { id: 5, form: vec![keyword("root")] });
        }),
        message("message-transact", Message::transact(6, [operation], &NATIVE).unwrap(), move |payload| {
            assert_eq!(payload, Payload::Transact { id: 6, operations: vec![sent.clone()] });
        }),
        message("message-result", Message::result(6, int(1)), |payload| {
            assert!(matches!(payload, Payload::Result(outcome) if outcome.id == 6 && outcome.error.is_none() && outcome.value == int(1)));
        }),
        message("message-error", Message::error(2, &ErrorCode::Load, "full"), |payload| {
            assert!(matches!(payload, Payload::Result(outcome) if outcome.error == Some(ErrorCode::Load)));
        }),
        message("message-goodbye", Message::goodbye("bye"), |payload| {
            assert_eq!(payload, Payload::Goodbye { text: Bytes::from_static(b"bye") });
        }),
        message("message-status", Message::status(1), |payload| assert_eq!(payload, Payload::Status { id: 1 })),
        message("message-ping", Message::ping(300), |payload| assert_eq!(payload, Payload::Ping { id: 300 })),
        message("message-cancel", Message::cancel(5), |payload| assert_eq!(payload, Payload::Cancel { id: 5 })),
        message("message-command", Message::new(MessageType::Command, Cell::Nil), |payload| assert_eq!(payload, Payload::Other)),
        message("message-request-belief", Message::new(MessageType::RequestBelief, Cell::Nil), |payload| {
            assert_eq!(payload, Payload::Other);
        }),
        case("streamed-head", head, |bytes| {
            let head = peerlane::cad015::Cad015::new(NATIVE).decode_head(QUERY, &bytes).unwrap();
            assert_eq!(head, Some(StreamHead { message: Some(Message::result(9, Ref::nil())), length: bytes.len() }));
        }),
        case("streamed-no-head", peerlane::cad015::Cad015::new(NATIVE).encode_head(None), |bytes| {
            let head = peerlane::cad015::Cad015::new(NATIVE).decode_head(QUERY, &bytes).unwrap();
            assert_eq!(head, Some(StreamHead { message: None, length: 1 }));
        }),
    ]
}

// ----- the reference peer

fn read_operation(bytes: &Bytes, cells: &MemoryCells) -> Operation {
    let Ok(Cell::Signed(signed)) = decode(bytes, &NATIVE) else { panic!("not a signed cell") };
    let operation = Operation::read(&signed, &Reader::new(&NATIVE, cells)).unwrap();
    Verified::new(operation.clone(), &HERE).unwrap();
    operation
}

fn operations() -> Vec<Case> {
    let mut cells = MemoryCells::default();
    let put = small_operation(&mut cells);
    assert!(cells.0.is_empty(), "it embeds");
    let del = Operation::sign(&Edit::Del { key: Bytes::from_static(b"k") }, 2, &key(1), &HERE, &mut cells).unwrap();
    assert!(cells.0.is_empty(), "it embeds");
    let edit = Edit::Put { key: Bytes::from_static(b"k"), value: vec![b'v'; 200].into() };
    let long = Operation::sign(&edit, 3, &key(1), &HERE, &mut cells).unwrap();
    let long_message = Message::transact(7, [long], &NATIVE).unwrap().with_branches(cells.0);
    let encoded = |signed: Signed| encode(&Cell::Signed(Box::new(signed)));
    vec![
        case("operation-put", encoded(put), |bytes| {
            let read = read_operation(&bytes, &MemoryCells::default());
            assert_eq!((read.account, read.sequence, &read.key[..]), (account(1), 1, &b"k"[..]));
            assert_eq!(read.value, Some(blob(&b"hello"[..])));
        }),
        case("operation-del", encoded(del), |bytes| {
            let read = read_operation(&bytes, &MemoryCells::default());
            assert_eq!((read.account, read.sequence, &read.key[..], read.value), (account(1), 2, &b"k"[..], None));
        }),
        message("operation-long", long_message, |payload| {
            let Payload::Transact { id: 7, operations } = payload else { panic!("not a TRANSACT") };
            let mut cells = MemoryCells::default();
            let edit = Edit::Put { key: Bytes::from_static(b"k"), value: vec![b'v'; 200].into() };
            let signed = Operation::sign(&edit, 3, &key(1), &HERE, &mut cells).unwrap();
            assert_eq!(operations, std::slice::from_ref(&signed));
            let read = read_operation(&encode(&Cell::Signed(Box::new(signed))), &cells);
            assert_eq!(Reader::new(&NATIVE, &cells).resolve(&read.value.unwrap()).unwrap().as_blob().unwrap().len(), 200);
        }),
    ]
}

/// A peer with the key of seed 2 that holds one operation of the account of seed 1, and has run for 1.5 seconds.
fn answers() -> Vec<Case> {
    let (status, belief, empty, root) = run(async {
        let store = Arc::new(Store::in_memory(NETWORK, NATIVE).unwrap());
        let service = Service::new(store.clone(), seed(2).peer_id(), NETWORK, Arc::default());
        let first = |delta: BeliefDelta| delta.messages(&key(2), TIME, MAX_BELIEF, &HERE).unwrap().remove(0);
        let empty = first(store.belief(0, Include::Own));
        let transact = Message::transact(6, [small_operation(&mut MemoryCells::default())], &NATIVE).unwrap();
        assert_eq!(service.answer(&transact).await.unwrap(), Message::result(6, int(1)));
        tokio::time::advance(Duration::from_millis(1500)).await;
        let status = service.answer(&Message::status(1)).await.unwrap();
        (status, first(store.belief(0, Include::Own)), empty, store.root())
    });
    let get = Query::Get { account: account(1), key: Bytes::from_static(b"k") };
    let prefix = Query::Prefix { account: account(1), prefix: Bytes::from_static(b"k"), after: None, limit: 10 };
    let accounts = Query::Accounts { after: None, limit: 10 };
    let entries = Answer::Entries(vec![(Bytes::from_static(b"k"), Bytes::from_static(b"hello"))]);
    let counts = Counts { accounts: 1, operations: 1, keys: 1, cells: 2 };
    let asked = |name, query: &Query, id| {
        let (sent, expected) = (query.message(&NATIVE).unwrap().with_id(id), query.clone());
        let cells = sent.cells();
        message(name, sent, move |payload| {
            let Payload::Query { form, .. } = payload else { panic!("not a QUERY") };
            assert_eq!(Query::read(&form, &cells, &NATIVE).unwrap(), expected);
        })
    };
    let answered = |name, query: &Query, answer: Answer, id| {
        let (sent, query) = (answer.message(id, &NATIVE).unwrap(), query.clone());
        case(name, sent.encode(), move |bytes| {
            let result = Message::decode(&bytes, &NATIVE).unwrap();
            let outcome = read_outcome(&result, &NATIVE).unwrap();
            assert_eq!((outcome.id, &outcome.error), (id, &None));
            assert_eq!(query.read_answer(&outcome.value, &result.cells(), &NATIVE).unwrap(), answer);
        })
    };
    let believed = |name, message: Message, count: u64| {
        case(name, message.encode(), move |bytes| {
            let message = Message::decode(&bytes, &NATIVE).unwrap();
            let belief = Belief::open(&message, &HERE).unwrap();
            assert_eq!((belief.peer, belief.time, belief.part, belief.parts), (account(2), TIME, 0, 1));
            let cells = message.cells();
            let reader = Reader::new(&NATIVE, &cells);
            let Cell::Index(root) = &*reader.resolve(&belief.root).unwrap() else { panic!("the root is an index") };
            assert_eq!(root.len(), count);
            assert_eq!(log_of(&reader, root, &account(1)).unwrap().len(), count);
        })
    };
    vec![
        asked("query-get", &get, 5),
        answered("answer-get", &get, Answer::Value(Some(Bytes::from_static(b"hello"))), 5),
        answered("answer-get-none", &get, Answer::Value(None), 5),
        asked("query-prefix", &prefix, 6),
        answered("answer-prefix", &prefix, entries, 6),
        asked("query-accounts", &accounts, 7),
        answered("answer-accounts", &accounts, Answer::Accounts(vec![(account(1), 1)]), 7),
        asked("query-next", &Query::Next { account: account(1) }, 8),
        answered("answer-next", &Query::Next { account: account(1) }, Answer::Next(2), 8),
        asked("query-count", &Query::Count, 9),
        answered("answer-count", &Query::Count, Answer::Counts(counts), 9),
        answered("answer-root", &Query::Root, Answer::Root(root), 10),
        case("answer-status", status.encode(), move |bytes| {
            let result = Message::decode(&bytes, &NATIVE).unwrap();
            let outcome = read_outcome(&result, &NATIVE).unwrap();
            let status = Status::read(&outcome.value, &result.cells(), &NATIVE).unwrap();
            assert_eq!((status.peer, &status.network[..], status.uptime), (seed(2).peer_id(), NETWORK, Duration::from_millis(1500)));
            assert_eq!((status.root, status.counts.accounts, status.counts.operations), (root, 1, 1));
        }),
        believed("belief-empty", empty, 0),
        believed("belief", belief, 1),
    ]
}

// ----- tables

fn rows<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> Vec<Vec<String>> {
    rows.into_iter().map(Vec::from).collect()
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

#[test]
fn the_close_codes_are_the_tables() {
    let ours = CloseCode::TABLE
        .iter()
        .map(|(code, number, retry, meaning)| [number.to_string(), format!("{code:?}"), yes(*retry), (*meaning).to_string()]);
    assert_eq!(table("close-codes"), rows(ours));
}

#[test]
fn the_message_types_are_the_tables() {
    let protocol = peerlane::cad015::Cad015::new(NATIVE);
    let ours = MessageType::KNOWN.map(|kind| {
        let class = match kind {
            MessageType::Result => "its request's".to_owned(),
            kind => protocol.classes()[protocol.class_of(&Message::new(kind, Cell::Nil))].name.to_string(),
        };
        [kind.code().to_string(), kind.to_string(), class]
    });
    let theirs: Vec<_> = table("message-types").into_iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(theirs, rows(ours));
}

#[test]
fn the_classes_are_the_standard_table() {
    let ours = ClassTable::standard();
    let ours = ours.iter().map(|(id, class)| {
        let TrafficClass { name, weight, urgency, order, delivery, max_message, window, large_lanes, large_window, .. } = class;
        assert_eq!(*delivery, Delivery::Reliable);
        let urgency = if *urgency == Urgency::Latency { "latency" } else { "bulk" };
        let numbers = [*max_message, *window, usize::from(*large_lanes), *large_window].map(|n| n.to_string());
        let [max, window, lanes, large] = numbers;
        [id.to_string(), name.to_string(), format!("{order:?}"), max, window, lanes, large, weight.to_string(), urgency.to_owned()]
    });
    assert_eq!(table("classes"), rows(ours));
}

#[test]
fn the_error_codes_are_the_tables() {
    for row in table("error-codes") {
        let code = ErrorCode::from_name(&Name::new(row[0].trim_start_matches(':').to_owned()).unwrap());
        assert!(!matches!(code, ErrorCode::Other(_)), "{row:?}");
    }
    assert_eq!(table("error-codes").len(), 9);
}

#[test]
fn the_limits_are_the_constants() {
    let ours: [(&str, u64); 23] = [
        ("HELLO body", limits::MAX_HELLO as u64),
        ("other control frame body", limits::MAX_CONTROL_FRAME as u64),
        ("close reason", limits::MAX_REASON as u64),
        ("network name", limits::MAX_NETWORK_NAME as u64),
        ("class name", limits::MAX_CLASS_NAME as u64),
        ("classes", limits::MAX_CLASSES as u64),
        ("extensions of a HELLO", limits::MAX_EXTENSIONS as u64),
        ("carriers of a connection", limits::MAX_CARRIERS as u64),
        ("message with copies", limits::MESSAGE_STREAM as u64),
        ("frame payload, class framing", limits::QUANTUM as u64),
        ("part of a streamed message", limits::QUANTUM as u64),
        ("message on its class's own lane", limits::SMALL_MESSAGE as u64),
        ("smallest window", limits::MIN_WINDOW as u64),
        ("largest window or message", limits::MAX_BUDGET as u64),
        ("head of a streamed message", MAX_HEAD as u64),
        ("cell", NATIVE.max_cell as u64),
        ("embedded cell", peerlane::cell::MAX_EMBEDDED as u64),
        ("hashes in a MISSING_DATA", MAX_HASHES as u64),
        ("operations in a TRANSACT", MAX_OPERATIONS as u64),
        ("BELIEF message", MAX_BELIEF as u64),
        ("parts of a belief", MAX_PARTS as u64),
        ("key of an operation", MAX_KEY as u64),
        ("value of an operation", MAX_VALUE as u64),
    ];
    let theirs: BTreeMap<String, String> = table("limits").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    for (name, value) in ours {
        assert_eq!(theirs.get(name), Some(&value.to_string()), "{name}");
    }
    assert_eq!(theirs.len(), ours.len() + 2);
    assert_eq!(theirs["branches in a message"], peerlane::cad015::MAX_BRANCHES.to_string());
    assert_eq!(theirs["entries of a page"], MAX_PAGE.to_string());
}
