//! Two sessions over an in-memory byte stream: what every transport builds on, without any transport.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerlane_transport::{
    ClassId, ClassTable, CloseCode, ClosedBy, Connection, Inbound, PathStats, RecvError, SendError, Session, SessionInfo, TrySend,
    admission::{Agreed, Terms},
    framing,
    identity::Remote,
};
use tokio::io::{AsyncRead, AsyncWrite};

const QUERY: ClassId = ClassId(1);
const TRANSACT: ClassId = ClassId(2);
const DATA: ClassId = ClassId(3);
const BELIEF: ClassId = ClassId(4);

fn info(dialed: bool) -> SessionInfo {
    SessionInfo {
        transport: "duplex",
        dialed,
        remote: Remote::anonymous("127.0.0.1:1".parse().unwrap()),
        local_addr: String::new(),
        remote_addr: String::new(),
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    }
}

fn side(io: impl AsyncRead + AsyncWrite + Send + 'static, dialed: bool, terms: &Terms) -> Connection {
    let (session, connection) = Session::start(info(dialed), Agreed::same(terms), terms.classes.clone(), terms.limits.clone());
    tokio::spawn(framing::drive(io, session, BytesMut::new()));
    connection
}

fn pair() -> (Connection, Connection) {
    let terms = Terms::new("test").unwrap();
    let (a, b) = tokio::io::duplex(16 * 1024);
    (side(a, true, &terms), side(b, false, &terms))
}

async fn whole(connection: &Connection, class: ClassId) -> Bytes {
    match connection.recv(class).await.unwrap() {
        Inbound::Whole(bytes) => bytes,
        Inbound::Streamed(_) => panic!("streamed"),
    }
}

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn every_size_up_to_the_limit_and_one_over() {
    let (a, b) = pair();
    for (class, info) in ClassTable::standard().iter() {
        for len in [0, 1, 63, 64, 1023, 1024, 1025, 16384, 65535, 65536, 65537, info.max_message] {
            let len = len.min(info.max_message);
            a.send(class, pattern(len, 3)).await.unwrap();
            assert_eq!(whole(&b, class).await, pattern(len, 3));
        }
        let over = a.send(class, pattern(info.max_message + 1, 0)).await;
        assert!(matches!(over, Err(SendError::TooLarge { limit, .. }) if limit == info.max_message));
    }
}

#[tokio::test]
async fn a_streamed_message_of_many_windows_arrives_and_others_pass_it() {
    let (a, b) = pair();
    for class in [DATA, TRANSACT] {
        let mut writer = a.open(class).await.unwrap();
        let Inbound::Streamed(mut reader) = b.recv(class).await.unwrap() else { panic!() };
        let write = async {
            for i in 0..64u8 {
                writer.write(&mut pattern(100_000, i)).await.unwrap();
            }
            writer.finish().unwrap();
        };
        let read = async {
            let mut hash = 0u64;
            let mut len = 0;
            while let Some(chunk) = reader.read().await.unwrap() {
                len += chunk.len();
                hash = chunk.iter().fold(hash, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
            }
            (len, hash)
        };
        let query = async {
            a.send(QUERY, Bytes::from_static(b"q")).await.unwrap();
            whole(&b, QUERY).await
        };
        let ((), (len, hash), _) = tokio::join!(write, read, query);
        let expected = (0..64u8).flat_map(|i| pattern(100_000, i)).fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        assert_eq!((len, hash), (6_400_000, expected));
    }
}

#[tokio::test]
async fn a_class_that_nobody_reads_stops_no_other() {
    let (a, b) = pair();
    // Fill BELIEF: window, receive budget, send budget, large lanes.
    let mut queued = 0u32;
    loop {
        match tokio::time::timeout(
            Duration::from_millis(300),
            a.send(BELIEF, pattern(if queued.is_multiple_of(2) { 65_536 } else { 65_537 }, 1)),
        )
        .await
        {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        queued += 1;
        assert!(queued < 1000, "no backpressure");
    }
    assert!(matches!(a.try_send(BELIEF, pattern(65_536, 1)), TrySend::Full { .. }));
    for _ in 0..200 {
        a.send(QUERY, pattern(100, 2)).await.unwrap();
        assert_eq!(whole(&b, QUERY).await.len(), 100);
    }
    a.send(DATA, pattern(1 << 19, 5)).await.unwrap();
    assert_eq!(whole(&b, DATA).await, pattern(1 << 19, 5));
    for _ in 0..queued {
        whole(&b, BELIEF).await;
    }
}

#[tokio::test]
async fn fifo_keeps_the_order_of_mixed_sizes() {
    let (a, b) = pair();
    let send = async {
        for i in 0..200u32 {
            let len = [4, 200_000, 17, 70_000, 1024][i as usize % 5];
            let mut message = BytesMut::from(&i.to_be_bytes()[..]);
            message.resize(len, 7);
            a.send(TRANSACT, message.freeze()).await.unwrap();
        }
    };
    let receive = async {
        for i in 0..200u32 {
            assert_eq!(whole(&b, TRANSACT).await[..4], i.to_be_bytes());
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn dropping_either_end_of_a_streamed_message_tells_the_other() {
    let (a, b) = pair();
    for class in [DATA, TRANSACT] {
        let mut writer = a.open(class).await.unwrap();
        writer.write(&mut pattern(100, 0)).await.unwrap();
        let Inbound::Streamed(mut reader) = b.recv(class).await.unwrap() else { panic!() };
        assert_eq!(reader.read().await.unwrap().unwrap().len(), 100);
        drop(writer);
        assert!(matches!(reader.read().await, Err(RecvError::Aborted(0))));

        let mut writer = a.open(class).await.unwrap();
        writer.write(&mut pattern(100, 0)).await.unwrap();
        let Inbound::Streamed(reader) = b.recv(class).await.unwrap() else { panic!() };
        reader.stop(9);
        let stopped = async {
            loop {
                if let Err(error) = writer.write(&mut pattern(50_000, 0)).await {
                    return error;
                }
            }
        };
        assert!(matches!(stopped.await, SendError::Stopped(9)));
        a.send(class, pattern(5, 5)).await.unwrap();
        assert_eq!(whole(&b, class).await.len(), 5);
    }
}

#[tokio::test]
async fn the_latest_replaces_a_queued_one_of_its_key() {
    let (a, b) = pair();
    // Nobody reads: the queue stays.
    while !matches!(a.try_send(BELIEF, pattern(200_000, 1)), TrySend::Full { .. }) {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_millis(200), a.send(BELIEF, pattern(65_536, 1))).await.ok();
    let mut superseded = 0;
    for i in 0..1000u32 {
        match a.send_latest(BELIEF, 7, Bytes::copy_from_slice(&i.to_be_bytes())).unwrap() {
            Ok(Some(old)) => {
                superseded += 1;
                assert_eq!(old[..], (i - 1).to_be_bytes());
            }
            Ok(None) => assert_eq!(i, 0),
            Err(full) => panic!("{full:?}"),
        }
    }
    assert_eq!(superseded, 999);
    loop {
        let message = whole(&b, BELIEF).await;
        if message.len() == 4 {
            assert_eq!(message[..], 999u32.to_be_bytes());
            break;
        }
    }
}

#[tokio::test]
async fn drain_delivers_what_is_queued_and_says_done() {
    let (a, b) = pair();
    for i in 0..30 {
        a.send(DATA, pattern(30_000 + i * 1000, 1)).await.unwrap();
    }
    let other = async {
        b.remote_draining().await;
        b.drain().await
    };
    let receive = async {
        let mut got = 0;
        while let Ok(Inbound::Whole(_)) = b.recv(DATA).await {
            got += 1;
        }
        got
    };
    let (drained, _, got) = tokio::join!(a.drain(), other, receive);
    drained.unwrap();
    assert_eq!(got, 30);
    assert!(matches!(a.send(DATA, Bytes::new()).await, Err(SendError::Closed(_))));
    let closed = b.closed().await;
    assert_eq!(closed.code, CloseCode::Done);
}

#[tokio::test]
async fn close_reaches_the_other_side_with_code_and_reason() {
    let (a, b) = pair();
    a.close(CloseCode::Application, "enough");
    let closed = b.closed().await;
    assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Application, "enough"));
    assert!(matches!(b.recv(QUERY).await, Err(RecvError::Closed(c)) if c.code == CloseCode::Application));
}

#[tokio::test]
async fn a_streamed_message_ends_with_its_connection() {
    for class in [DATA, TRANSACT] {
        let (a, b) = pair();
        let mut writer = a.open(class).await.unwrap();
        writer.write(&mut pattern(100, 0)).await.unwrap();
        let Inbound::Streamed(mut reader) = b.recv(class).await.unwrap() else { panic!() };
        assert_eq!(reader.read().await.unwrap().unwrap().len(), 100);
        b.close(CloseCode::Shutdown, "");
        // Its lane is gone by then: the reader must be told all the same.
        let end = tokio::time::timeout(Duration::from_secs(5), reader.read()).await.expect("hung");
        assert!(matches!(end, Err(RecvError::Closed(c)) if c.code == CloseCode::Shutdown));
    }
}

#[tokio::test]
async fn a_close_is_heard_by_a_side_that_is_writing() {
    let (a, b) = pair();
    // `b` is in the middle of a write when `a` closes and hangs up: it finds the pipe broken before it finds the CLOSE.
    let flood = tokio::spawn({
        let b = b.clone();
        async move { while b.send(DATA, pattern(60_000, 1)).await.is_ok() {} }
    });
    for _ in 0..50 {
        whole(&a, DATA).await;
    }
    a.close(CloseCode::Application, "enough");
    let closed = b.closed().await;
    assert_eq!((closed.by, closed.code, &*closed.reason), (ClosedBy::Remote, CloseCode::Application, "enough"));
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_the_idle_timeout() {
    let terms = Terms::new("test").unwrap();
    let (a, b) = tokio::io::duplex(16 * 1024);
    let a = side(a, true, &terms);
    let start = tokio::time::Instant::now();
    let closed = a.closed().await;
    drop(b);
    assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::TimedOut));
    let took = start.elapsed();
    assert!(took >= terms.limits.idle_timeout && took <= terms.limits.idle_timeout + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_lives_on() {
    let (a, b) = pair();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(a.close_reason().is_none() && b.close_reason().is_none());
    assert!(a.ping().await.is_ok());
}

#[tokio::test]
async fn a_dropped_send_queues_nothing() {
    let (a, b) = pair();
    let mut queued = 0u32;
    while tokio::time::timeout(Duration::from_millis(100), a.send(TRANSACT, pattern(100_000, 1))).await.is_ok() {
        queued += 1;
    }
    // The send that timed out must not arrive.
    let mut got = 0;
    while got < queued {
        whole(&b, TRANSACT).await;
        got += 1;
    }
    a.send(TRANSACT, pattern(3, 3)).await.unwrap();
    assert_eq!(whole(&b, TRANSACT).await.len(), 3);
}

#[tokio::test]
async fn garbage_closes_the_connection_with_a_code() {
    for (bytes, code) in [
        (&[0x10, 0x80, 0x01, 0x00, 0x00][..], CloseCode::Protocol),   // a frame of 64 KiB
        (&[0xe0, 0x01, 0x00], CloseCode::Protocol),                   // class 14
        (&[0x19, 0x01, 0x00], CloseCode::Protocol),                   // slot 9 of QUERY
        (&[0x10, 0x01, 0x05], CloseCode::Protocol),                   // a record of kind 5
        (&[0x10, 0x04, 0x9f, 0xff, 0xff, 0xf8], CloseCode::TooLarge), // 64 MiB in QUERY
        (&[0xff, 0x02, 0x63, 0x00], CloseCode::Protocol),             // control frame of type 99
        (&[0xff, 0x03, 0x06, 0x01, 0x41], CloseCode::Protocol),       // RELEASE of a lane not in use
    ] {
        let terms = Arc::new(Terms::new("test").unwrap());
        let (mut raw, io) = tokio::io::duplex(16 * 1024);
        let connection = side(io, false, &terms);
        tokio::io::AsyncWriteExt::write_all(&mut raw, bytes).await.unwrap();
        let closed = connection.closed().await;
        assert_eq!((closed.by, closed.code), (ClosedBy::Local, code), "{bytes:x?}: {closed}");
    }
}

#[tokio::test]
async fn more_bytes_than_credit_close_the_connection() {
    let terms = Terms::new("test").unwrap();
    let (mut raw, io) = tokio::io::duplex(1 << 22);
    let connection = side(io, false, &terms);
    // A streamed message on QUERY's lane that nobody reads: start, then parts without end.
    let mut flood = BytesMut::from(&[0x10, 0x01, 0x01][..]);
    for _ in 0..64 {
        let mut frame = vec![0x10, 0x80, 0x00, 0x20, 0x04]; // lane, length 8196 in four bytes
        frame.extend([0x80, 0x01, 0x00, 0x02]); // part of 8192
        frame.extend(vec![0u8; 8192]);
        flood.extend_from_slice(&frame);
    }
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw, &flood).await;
    let closed = connection.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::FlowControl), "{closed}");
}

/// Takes all that's written, and passes it on only when it's told to.
#[derive(Clone, Default)]
struct Hoarder(Arc<std::sync::Mutex<Hoard>>);

#[derive(Default)]
struct Hoard {
    written: Vec<u8>,
    open: bool,
    waker: Option<std::task::Waker>,
}

impl tokio::io::AsyncRead for Hoarder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut tokio::io::ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl tokio::io::AsyncWrite for Hoarder {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut hoard = self.0.lock().unwrap();
        if hoard.written.is_empty() || hoard.open {
            return Poll::Ready(Ok(()));
        }
        hoard.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a stream holds back can't be overtaken: nothing is chosen until it has passed on what it has.
#[tokio::test]
async fn an_urgent_message_waits_behind_one_frame_at_most() {
    let hoarder = Hoarder::default();
    let connection = side(hoarder.clone(), true, &Terms::new("test").unwrap());
    for _ in 0..10 {
        connection.send(BELIEF, pattern(65_536, 1)).await.unwrap();
    }
    while hoarder.0.lock().unwrap().waker.is_none() {
        tokio::task::yield_now().await;
    }
    connection.send(QUERY, pattern(100, 2)).await.unwrap();
    tokio::task::yield_now().await;
    let first = hoarder.0.lock().unwrap().written.clone();
    assert!((1..=16 * 1024).contains(&first.len()) && first[0] == 0x40, "{} bytes of lane {:#x}", first.len(), first[0]);
    let waker = {
        let mut hoard = hoarder.0.lock().unwrap();
        hoard.open = true;
        hoard.waker.take().unwrap()
    };
    waker.wake();
    while hoarder.0.lock().unwrap().written.len() == first.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(hoarder.0.lock().unwrap().written[first.len()], 0x10, "QUERY's lane comes next");
}

/// Reads fail, and so does the end of writing, as after a reset.
struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut tokio::io::ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}

impl tokio::io::AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::ErrorKind::NotConnected.into()))
    }
}

#[tokio::test]
async fn a_stream_that_fails_both_ways_ends_the_connection_and_the_driver() {
    let terms = Terms::new("test").unwrap();
    let (session, connection) = Session::start(info(true), Agreed::same(&terms), terms.classes.clone(), terms.limits.clone());
    tokio::spawn(framing::drive(Broken, session, BytesMut::new())).await.unwrap();
    let closed = connection.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Transport, CloseCode::Lost));
}
