//! Against the reference peer itself, in Java. `interop/live/convex/run` builds what it takes and sets the two variables; without
//! them these tests say SKIPPED and do nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod belief;
mod load;

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use peerlane_convex::{
    Answer, Body, CONVEX, Client, ClientConfig, ClientError, CloseReason, ConvexAddr, ConvexTcp, ConvexTcpConfig, ErrorCode, FetchLimits,
    Frames, Kind, Message, MultiMode, Payload, Transaction, Value,
    cell::{Cell, Ref, Signed, ValueId, encode},
    class_of, classes, form, frame,
};
use peerlane_transport::{Inbound, Transport as _, admission::Terms, identity::Proof};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

/// The genesis user of a network of one peer: it has the peer's key.
const USER: u64 = 11;
/// The peer's controller. It sends a transaction of its own when it starts, so its sequence moves.
const CONTROLLER: u64 = 12;
const START: Duration = Duration::from_secs(60);

/// A network of reference peers, killed when it's dropped.
struct Java {
    child: Child,
    port: u16,
    key: [u8; 32],
    network: ValueId,
}

/// Seed 00..01, as `Peers.java` has it.
fn key() -> SigningKey {
    peer_key(1)
}

fn peer_key(number: u8) -> SigningKey {
    let mut seed = [0; 32];
    seed[31] = number;
    SigningKey::from_bytes(&seed)
}

fn other_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

async fn java() -> Option<Java> {
    start(&["0"]).await
}

/// The first peer that runs of those that `Peers.java` is told of.
async fn start(peers: &[&str]) -> Option<Java> {
    let (Ok(java), Ok(classpath)) = (std::env::var("CONVEX_JAVA"), std::env::var("CONVEX_CLASSPATH")) else {
        println!("SKIPPED: CONVEX_JAVA and CONVEX_CLASSPATH aren't set; interop/live/convex/run sets them");
        return None;
    };
    let mut child = Command::new(java)
        .args(["-Xmx600m", "-cp", &classpath, "Peers"])
        .args(peers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = timeout(START, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let ["PEER", port, key, network] = line.split(' ').collect::<Vec<_>>()[..] {
                let key = HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap();
                return Some((port.parse().unwrap(), key, network.parse().unwrap()));
            }
        }
        None
    });
    let (port, key, network) = found.await.expect("a peer starts in time").expect("a peer starts");
    // Its output is read on, so that it never waits for us.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some(Java { child, port, key, network })
}

impl Java {
    async fn client(&self, config: ClientConfig) -> Client {
        Client::connect(("127.0.0.1", self.port), config).await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }
}

fn config() -> ClientConfig {
    ClientConfig { deadline: Duration::from_secs(30), ..ClientConfig::default() }
}

async fn query(client: &Client, text: &str) -> Answer {
    client.query(form::read(text).unwrap(), Some(USER)).await.unwrap()
}

fn code(answer: &Answer) -> String {
    answer.error.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Waits for the peer to close.
async fn closes(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    matches!(timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await, Ok(Ok(_) | Err(_)))
}

async fn next(stream: &mut TcpStream, frames: &mut Frames) -> Option<Message> {
    loop {
        if let Some(body) = frames.next_frame().unwrap() {
            return Some(Message::decode(&body).unwrap());
        }
        if timeout(Duration::from_secs(20), stream.read_buf(frames.buffer())).await.unwrap().unwrap() == 0 {
            return None;
        }
    }
}

/// Form, encoding and value ID, a line each: the peer is asked for them again.
const VECTORS: &str = include_str!("../../src/form/vectors.txt");

#[tokio::test]
async fn the_reference_peer_and_we_agree_on_cells() {
    let Some(java) = java().await else { return };
    let client = java.client(config()).await;
    let count = |start: &str, step: &str| format!("(loop [i 0 v {start}] (if (< i 300) (recur (inc i) {step}) v))");
    let long = [count("[]", "(conj v i)"), count("{}", "(assoc v i (* i i))"), count("#{}", "(conj v i)"), count("()", "(cons i v)")];
    let mut checked = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with(';')) {
        let [text, encoding, id] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let value = form::read(text).unwrap();
        let asked = format!("(let [x (quote {text})] [(encoding x) (hash (encoding x)) x])");
        let answer = query(&client, &asked).await.ok().unwrap_or_else(|error| panic!("{text}: {error}"));
        let items: Vec<Value> = answer.cell.as_short_vector().unwrap().iter().map(|item| answer.child(item).unwrap()).collect();
        let Cell::Blob(blob) = &items[0].cell else { panic!() };
        let theirs = items[0].reader().blob_bytes(blob, 1 << 20).unwrap();
        assert_eq!(encoding, HEXLOWER.encode(&theirs), "{text}");
        assert_eq!(items[1].cell.as_blob32().map(ValueId), Some(id.parse().unwrap()), "{text}");
        assert_eq!(items[2].cell, value.cell, "{text}");
        assert_eq!(form::read(&form::print(&items[2], 1 << 20)).unwrap().cell, value.cell, "{text}");
        checked += 1;
    }
    for n in [0, 1, 137, 138, 4096, 4097, 65_536, 65_537, 70_000] {
        let text = format!("0x{}", "5a".repeat(n));
        let answer = query(&client, &format!("(hash (encoding {text}))")).await.ok().unwrap();
        assert_eq!(answer.cell.as_blob32().map(ValueId), Some(form::read(&text).unwrap().id()), "a blob of {n}");
        let text = format!("\"{}\"", "z".repeat(n));
        let answer = query(&client, &format!("(hash (encoding {text}))")).await.ok().unwrap();
        assert_eq!(answer.cell.as_blob32().map(ValueId), Some(form::read(&text).unwrap().id()), "a string of {n}");
        checked += 2;
    }
    for text in long {
        let answer = query(&client, &text).await.ok().unwrap();
        let again = form::read(&form::print(&answer, 1 << 20)).unwrap();
        assert_eq!(again.id(), answer.id(), "{text}");
        checked += 1;
    }
    println!("{checked} values agree");
}

#[tokio::test]
async fn status_queries_and_their_errors() {
    let Some(java) = java().await else { return };
    let client = java.client(config()).await;
    let status = client.status().await.unwrap();
    assert_eq!((status.key, status.genesis), (java.key, java.network));
    assert_eq!(query(&client, "(+ 1 2)").await.ok().unwrap().cell, Cell::Integer(3));
    let balance = query(&client, "*balance*").await.ok().unwrap().cell.as_integer().unwrap();
    assert!(balance > 0);
    assert_eq!(
        client.query(form::read("*address*").unwrap(), Some(CONTROLLER)).await.unwrap().ok().unwrap().cell,
        peerlane_convex::address(12)
    );
    assert!(client.query(form::read("(+ 1 2)").unwrap(), None).await.unwrap().error.is_none(), "the peer chooses an account");
    for (text, expected) in [
        ("undefined-thing", "UNDECLARED"),
        ("(+ 1 :a)", "CAST"),
        ("(transfer #12 -1)", "ARGUMENT"),
        ("(transfer #12 999999999999999999)", "FUNDS"),
        ("(loop [] (recur))", "JUICE"),
        ("(fail :MINE \"words\")", "MINE"),
        ("(account-thing", ""),
    ] {
        let Ok(form) = form::read(text) else { continue };
        let answer = client.query(form, Some(USER)).await.unwrap();
        assert_eq!(code(&answer), expected, "{text}: {answer:?}");
        let ClientError::Refused { origin, .. } = answer.ok().unwrap_err() else { panic!() };
        assert!(origin.is_some(), "{text}");
    }
    let nobody = client.query(form::read("1").unwrap(), Some(999_999)).await.unwrap();
    assert_eq!(nobody.error, Some(ErrorCode::Nobody));
    // A STATUS behind long queries is answered before them.
    let mut stream = java.raw().await;
    let long = form::read("(loop [] (recur))").unwrap();
    let mut bytes: Vec<u8> = (1..=10).flat_map(|id| Message::query(id, long.clone(), Some(USER)).unwrap().frame()).collect();
    bytes.extend(Message::status(11).frame());
    stream.write_all(&bytes).await.unwrap();
    let (mut frames, mut ids) = (Frames::new(1 << 20), Vec::new());
    while ids.len() < 11 {
        ids.push(next(&mut stream, &mut frames).await.unwrap().id().unwrap());
    }
    assert!(ids.iter().position(|id| *id == 11) < Some(10), "{ids:?}");
    println!("the order of the answers to queries 1 to 10 and STATUS 11: {ids:?}");
    // Answers come in any order, each to its own request.
    let asked = (0..2000i64).map(|i| {
        let client = client.clone();
        async move {
            let answer = client.query(form::read(&format!("(* {i} 2)")).unwrap(), Some(USER)).await.unwrap();
            assert_eq!(answer.ok().unwrap().cell, Cell::Integer(i * 2));
            if i % 10 == 0 {
                client.status().await.unwrap();
            }
        }
    });
    futures_util::future::join_all(asked).await;
    println!("2000 queries and 200 statuses at once, all answered");
}

#[tokio::test]
async fn transactions_and_what_is_refused() {
    let Some(java) = java().await else { return };
    let client = java.client(config()).await;
    let key = key();
    let mut sequence = client.sequence(USER).await.unwrap();
    let invoke = |sequence, text: &str| Transaction::Invoke { origin: USER, sequence, command: form::read(text).unwrap() };
    let took = async |transaction: Transaction| {
        client.transact(&transaction, &key).await.unwrap_or_else(|error| panic!("{transaction:?}: {error}"))
    };

    sequence += 1;
    let answer = took(invoke(sequence, "(def x (+ 1 2))")).await;
    assert_eq!(answer.clone().ok().unwrap().cell, Cell::Integer(3));
    assert!(answer.info.get("fees").is_some() || answer.info.get("juice").is_some(), "{}", form::print(&answer.info, 1000));
    sequence += 1;
    let transfer = Transaction::Transfer { origin: USER, sequence, target: 13, amount: 1000 };
    assert_eq!(took(transfer).await.ok().unwrap().cell, Cell::Integer(1000));
    // A transaction of several cells.
    sequence += 1;
    let answer = took(invoke(sequence, &format!("(count 0x{})", "ab".repeat(5000)))).await;
    assert_eq!(answer.ok().unwrap().cell, Cell::Integer(5000));
    // One that fails uses its sequence up.
    sequence += 1;
    assert_eq!(code(&took(invoke(sequence, "(+ 1 :a)")).await), "CAST");
    assert_eq!(client.sequence(USER).await.unwrap(), sequence);
    let parts = |last: &str| {
        vec![invoke(0, "(def y 7)"), Transaction::Transfer { origin: USER, sequence: 0, target: 13, amount: 5 }, invoke(0, last)]
    };
    sequence += 1;
    let multi = Transaction::Multi { origin: USER, sequence, mode: MultiMode::All, parts: parts("(* y 6)") };
    let answer = took(multi).await.ok().unwrap();
    let text = form::print(&answer, 10_000);
    assert!(text.contains(":result 42"), "{text}");
    sequence += 1;
    let multi = Transaction::Multi { origin: USER, sequence, mode: MultiMode::All, parts: parts("(fail :NO)") };
    assert_eq!(took(multi).await.error, Some(ErrorCode::Child));
    println!("accepted: invoke, transfer, multi-cell, multi");

    // Refused. None of these uses a sequence up.
    assert_eq!(took(invoke(1, "1")).await.error, Some(ErrorCode::Sequence));
    let wrong = client.transact(&invoke(sequence + 1, "1"), &other_key()).await.unwrap();
    assert_eq!(wrong.error, Some(ErrorCode::Signature));
    let nobody = Transaction::Invoke { origin: 999_999, sequence: 1, command: form::read("1").unwrap() };
    assert_eq!(took(nobody).await.error, Some(ErrorCode::Nobody));
    // The core library's account has no key.
    let actor = Transaction::Invoke { origin: 8, sequence: 1, command: form::read("1").unwrap() };
    assert_eq!(took(actor).await.error, Some(ErrorCode::State));
    let future = took(invoke(sequence + 5, "1")).await;
    assert_eq!(future.error, Some(ErrorCode::Sequence), "it came into a block and failed there");
    assert_eq!(future.info.get("source").map(|source| source.cell), Some(form::read(":CVM").unwrap().cell));

    // A signature that doesn't hold, a value that's no transaction, a branch that's left out.
    let signed = invoke(sequence + 1, "(+ 2 2)").sign(&key).unwrap();
    let mut bytes = encode(&signed.cell).to_vec();
    bytes[60] ^= 1;
    let tampered = Value::leaf(peerlane_convex::cell::decode(&Bytes::from(bytes), &CONVEX).unwrap());
    assert_eq!(refused(&java, Message::transact(0, tampered).unwrap()).await, Some(ErrorCode::Signature));
    let number = Signed::sign(&CONVEX, &key, Ref::Embedded(Cell::Integer(1).into()));
    let number = Value::leaf(Cell::Signed(Box::new(number)));
    let newer = is_newer(&java).await;
    assert_eq!(refused(&java, Message::transact(0, number).unwrap()).await, Some(ErrorCode::Format));
    let mut holed = invoke(sequence + 1, &format!("(count 0x{})", "cd".repeat(500))).sign(&key).unwrap();
    holed.cells.0.retain(|_, encoding| encoding.len() < 500);
    let mut message = Message::transact(0, holed).unwrap();
    let missing = message.body().missing(10);
    assert_eq!(missing.len(), 1);
    message = Message::new(Body { top: message.body().top.clone(), branches: message.body().branches.clone() });
    // 0.8.0 says nothing, and then nothing more to any transaction.
    if newer {
        assert_eq!(refused(&java, message).await, Some(ErrorCode::Missing));
    }
    sequence += 1;
    assert_eq!(took(invoke(sequence, "(+ 2 2)")).await.ok().unwrap().cell, Cell::Integer(4));
    println!("refused: SEQUENCE (peer, CVM), SIGNATURE (key, bytes), NOBODY, STATE, FORMAT{}", if newer { ", MISSING" } else { "" });
}

#[tokio::test]
async fn a_peer_that_isnt_registered_takes_no_transaction() {
    let Some(java) = start(&["-", "!0"]).await else { return };
    let invoke = Transaction::Invoke { origin: USER, sequence: 1, command: form::read("1").unwrap() };
    let answer = java.client(config()).await.transact(&invoke, &key()).await.unwrap();
    assert_eq!(answer.error, Some(ErrorCode::State), "{answer:?}");
}

/// The code of a refusal; `None` for silence, which 0.8.0 prefers now and then.
async fn refused(java: &Java, message: Message) -> Option<ErrorCode> {
    let client = java.client(ClientConfig { deadline: Duration::from_secs(4), ..ClientConfig::default() }).await;
    match client.request(message).await {
        Ok(answer) => match answer.parse().unwrap() {
            Payload::Result(outcome) => Some(outcome.error.expect("it isn't accepted")),
            other => panic!("{other:?}"),
        },
        Err(ClientError::Deadline(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// 0.8.3 and newer know PING and CHALLENGE, and answer some of what 0.8.0 is silent about.
async fn is_newer(java: &Java) -> bool {
    let probe = java.client(ClientConfig { deadline: Duration::from_secs(3), ..ClientConfig::default() }).await;
    match probe.ping().await {
        Ok(_) => true,
        Err(ClientError::Deadline(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_state_is_fetched_down_to_its_last_cell() {
    let Some(java) = java().await else { return };
    let client = java.client(config()).await;
    let status = client.status().await.unwrap();
    for (what, root) in [("genesis", status.genesis), ("state", status.state), ("belief", status.belief)] {
        // The belief moves on every 300 ms; an old one may be gone from the peer's store.
        match client.fetch(root, FetchLimits::default()).await {
            Ok(value) => {
                assert_eq!(value.id(), root, "{what}");
                let missing = Body::of(value.clone()).missing(1);
                assert!(missing.is_empty(), "{what}: {missing:?}");
                println!("{what} {root}: {} cells, {} bytes", value.cells.0.len(), value.cells.0.values().map(Bytes::len).sum::<usize>());
                assert!(what == "belief" || value.cells.0.len() > 500);
            }
            Err(ClientError::Missing(id)) if what == "belief" => println!("belief: {id} is gone"),
            Err(error) => panic!("{what}: {error}"),
        }
    }
    let nothing = ValueId([0xee; 32]);
    let got = client.data(&[status.genesis, nothing]).await.unwrap();
    assert_eq!((got[0].is_some(), &got[1]), (true, &None));
    assert!(matches!(client.fetch(nothing, FetchLimits::default()).await, Err(ClientError::Missing(id)) if id == nothing));
}

#[tokio::test]
async fn what_the_peer_does_with_bad_frames_and_we_with_its_end() {
    let Some(mut java) = java().await else { return };
    // Above the limit: closed. Three elements in a QUERY: closed. GOODBYE: closed. (0.8.0 does nothing at the last two.)
    let newer = is_newer(&java).await;
    let query = frame(&Body::of(form::read("[:Q 1 2]").unwrap()).encode());
    for bytes in [Some(Bytes::from_static(&[0x97, 0xeb, 0xe1, 0x01])), newer.then_some(query), newer.then_some(Message::goodbye().frame())]
        .into_iter()
        .flatten()
    {
        let mut stream = java.raw().await;
        stream.write_all(&bytes).await.unwrap();
        assert!(closes(stream).await, "{}", HEXLOWER.encode(&bytes));
    }
    // No canonical cell: a Result without an ID, and the connection stays. (0.8.0 says nothing, and stays.)
    let mut stream = java.raw().await;
    let mut frames = Frames::new(1 << 20);
    for body in [&[0xff_u8][..], &[0x11, 0x00], &[0x00, 0x01, 0x00]] {
        stream.write_all(&frame(body)).await.unwrap();
    }
    stream.write_all(&Message::status(5).frame()).await.unwrap();
    let mut errors = 0;
    loop {
        let message = next(&mut stream, &mut frames).await.expect("the connection stays");
        let Payload::Result(outcome) = message.parse().unwrap() else { panic!() };
        if outcome.id == Some(5) {
            break;
        }
        assert_eq!((outcome.id, outcome.error), (None, Some(ErrorCode::Format)));
        errors += 1;
    }
    println!("three malformed bodies: {errors} :FORMAT, and STATUS is answered");
    // Killed in the middle: whoever waits is told at once, not at the deadline.
    let client = java.client(ClientConfig { deadline: Duration::from_secs(600), ..ClientConfig::default() }).await;
    client.status().await.unwrap();
    let waiting: Vec<_> = (0..50).map(|_| client.query(form::read("(loop [] (recur))").unwrap(), Some(USER))).collect();
    let (answers, ()) = tokio::join!(timeout(Duration::from_secs(60), futures_util::future::join_all(waiting)), async {
        java.child.kill().await.unwrap();
    });
    let closed = answers.unwrap().into_iter().filter(|answer| matches!(answer, Err(ClientError::Closed(_)))).count();
    assert!(closed > 0);
    assert!(matches!(client.closed().await, CloseReason::Remote | CloseReason::Io(_)));
    println!("killed in the middle: {closed} of 50 requests ended with it");
}

#[tokio::test]
async fn challenges_both_ways() {
    let Some(java) = java().await else { return };
    if !is_newer(&java).await {
        return println!("SKIPPED: this peer is older than 0.8.3: no PING, no CHALLENGE");
    }
    let client = java.client(config()).await;
    let ours = other_key();
    for (target, network) in [(None, Some(java.network)), (Some(java.key), Some(java.network)), (Some(java.key), None)] {
        assert_eq!(client.challenge(&ours, target, network).await.unwrap(), java.key);
    }
    assert_eq!(client.proven(), Some(java.key));
    for (target, network) in [(Some([7; 32]), Some(java.network)), (None, Some(ValueId([7; 32])))] {
        let refused = client.challenge(&ours, target, network).await;
        assert!(matches!(refused, Err(ClientError::Refused { code: ErrorCode::Trust, .. })), "{refused:?}");
    }
    // A belief from a connection that isn't trusted makes the peer ask who we are.
    let mut stream = java.raw().await;
    let mut frames = Frames::new(1 << 20);
    stream.write_all(&frame(&[0xd4, 0x01, 0x84, 0x00])).await.unwrap();
    let message = next(&mut stream, &mut frames).await.unwrap();
    assert_eq!(message.kind(), Kind::Challenge);
    let Payload::Challenge { id, signed } = message.parse().unwrap() else { panic!() };
    let own = key().verifying_key().to_bytes();
    let (challenger, challenge) = peerlane_convex::Challenge::verify(&message.value(&signed).unwrap(), &own, Some(&java.network)).unwrap();
    assert_eq!((challenger, challenge.context), (java.key, Some(java.network)), "its signature holds");
    stream.write_all(&Message::result(id, challenge.answer(&challenger, &key()).unwrap()).unwrap().frame()).await.unwrap();
    // Still there, and not challenged again: the key is a registered peer's.
    stream.write_all(&frame(&[0xd4, 0x01, 0x84, 0x00])).await.unwrap();
    stream.write_all(&Message::status(9).frame()).await.unwrap();
    let message = next(&mut stream, &mut frames).await.unwrap();
    assert_eq!((message.kind(), message.id()), (Kind::Result, Some(9)));
    println!("challenged both ways; the peer's signatures hold");
}

#[tokio::test]
async fn through_our_own_transport_trait() {
    let Some(java) = java().await else { return };
    let newer = is_newer(&java).await;
    let mut terms = Terms::new("convex").unwrap();
    terms.classes = classes();
    let config = ConvexTcpConfig { key: newer.then(other_key), network: Some(java.network), ..ConvexTcpConfig::default() };
    let transport = ConvexTcp::new(terms, config).unwrap();
    let connection = transport.dial(&ConvexAddr(format!("127.0.0.1:{}", java.port))).await.unwrap();
    let ask = async |message: Message| {
        let (class, id) = (class_of(message.kind()), message.id());
        connection.send(class, message.encode()).await.unwrap();
        let Inbound::Whole(body) = timeout(Duration::from_secs(30), connection.recv(class)).await.unwrap().unwrap() else { panic!() };
        let answer = Message::decode(&body).unwrap();
        assert_eq!((answer.kind(), answer.id()), (Kind::Result, id), "in the class of its request");
        let Payload::Result(outcome) = answer.parse().unwrap() else { panic!() };
        assert_eq!(outcome.error, None);
        answer.value(&outcome.value).unwrap()
    };
    let three = ask(Message::query(1, form::read("(+ 1 2)").unwrap(), Some(USER)).unwrap()).await;
    assert_eq!(three.cell, Cell::Integer(3));
    let status = peerlane_convex::Status::read(&ask(Message::status(2)).await).unwrap();
    ask(Message::data_request(3, &[status.genesis]).unwrap()).await;
    let invoke = Transaction::Invoke { origin: USER, sequence: 1, command: form::read("(* 6 7)").unwrap() };
    assert_eq!(ask(Message::transact(4, invoke.sign(&key()).unwrap()).unwrap()).await.cell, Cell::Integer(42));
    if newer {
        // It was asked when it was dialed, and answered before the rest.
        assert_eq!(connection.remote().proof, Proof::Application);
        assert_eq!(connection.remote().peer_id().map(|id| *id.as_bytes()), Some(java.key));
    } else {
        assert_eq!(connection.remote().proof, Proof::None);
    }
    println!("QUERY, STATUS, DATA_REQUEST, TRANSACT by class; proof: {:?}", connection.remote().proof);
}
