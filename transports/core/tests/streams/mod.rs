//! The two ends of a connection over byte streams in memory: ours, and made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use peerlane_transport::{
    ClassId, Connection, Control, Inbound, PathStats, Session, SessionInfo,
    admission::{Agreed, Terms},
    class::{Lane, Record},
    framing::{self, Joining},
    identity::Remote,
    varint,
};
use tokio::io::{AsyncReadExt, DuplexStream};

pub const QUERY: ClassId = ClassId(1);
pub const TRANSACT: ClassId = ClassId(2);
pub const DATA: ClassId = ClassId(3);
pub const BELIEF: ClassId = ClassId(4);

pub async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

pub struct Side {
    pub connection: Connection,
    pub session: Arc<Session>,
    pub joining: Joining<DuplexStream>,
    pub driver: tokio::task::JoinHandle<()>,
}

pub fn side(io: DuplexStream, dialed: bool, of: [u8; 5]) -> Side {
    side_with(io, dialed, of, None)
}

/// With copies, so long after their messages. Then windows don't grow, so that credit can be counted.
pub fn side_with(io: DuplexStream, dialed: bool, of: [u8; 5], copies: Option<Duration>) -> Side {
    let mut terms = Terms::new("test").unwrap();
    if copies.is_some() {
        terms.limits.window_growth = 0;
    }
    let info = SessionInfo {
        transport: "duplex",
        dialed,
        remote: Remote::anonymous("127.0.0.1:1".parse().unwrap()),
        local_addr: String::new(),
        remote_addr: String::new(),
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    };
    let (session, connection) = Session::start(info, Agreed::same(&terms), terms.classes.clone(), terms.limits.clone());
    let (joining, carriers) = framing::carriers(of.to_vec());
    let driver = tokio::spawn(framing::drive_all(io, session.clone(), BytesMut::new(), carriers.with_copies(copies)));
    Side { connection, session, joining, driver }
}

/// A byte stream that the listener's side is offered: ours is what its dialer has.
pub fn offer(to: &Side, number: u8) -> DuplexStream {
    let (x, y) = tokio::io::duplex(16 * 1024);
    assert!(to.joining.attach(to.joining.take(number).expect("the place is free"), y, BytesMut::new()));
    x
}

pub async fn accepted(io: &mut DuplexStream) {
    let mut accept = [0; 2];
    bounded(io.read_exact(&mut accept)).await.unwrap();
    assert_eq!(accept, [2, 0]);
}

pub async fn join(dialer: &Side, other: &Side, number: u8) {
    let mut io = offer(other, number);
    accepted(&mut io).await;
    let place = dialer.joining.take(number).unwrap();
    assert!(dialer.joining.attach(place, io, BytesMut::new()));
}

pub async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match bounded(connection.recv(class)).await.unwrap() {
        Inbound::Whole(bytes) => bytes,
        Inbound::Streamed(_) => panic!("streamed"),
    }
}

pub fn numbered(n: u32, len: usize) -> Bytes {
    let mut message = BytesMut::zeroed(len.max(4));
    message[..4].copy_from_slice(&n.to_be_bytes());
    message.freeze()
}

pub fn number(message: &[u8]) -> u32 {
    u32::from_be_bytes(*message.first_chunk().unwrap())
}

/// A frame of class framing: a lane's bytes, or control frames.
pub fn frame(lane: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![lane];
    varint::put(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

pub fn control(frame_: &Control) -> Vec<u8> {
    let mut body = BytesMut::new();
    frame_.encode(&mut body);
    frame(0xff, &body)
}

pub fn message(class: ClassId, text: &[u8]) -> Vec<u8> {
    let mut record = BytesMut::new();
    Record::Whole(text.len() as u64).encode(&mut record);
    record.extend_from_slice(text);
    frame(Lane { class: class.0, slot: 0 }.to_byte(), &record)
}
