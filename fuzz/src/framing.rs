//! Class framing: any bytes from the other side, on a virtual clock.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

#[cfg(fuzzing)]
use bytes::Bytes;
use bytes::BytesMut;
#[cfg(fuzzing)]
use peerlane::quic::fuzzing::Arriving;
use peerlane_transport::{
    Closed, Connection, Inbound, PathStats, Session, SessionInfo,
    admission::{Agreed, Terms},
    framing,
    identity::Remote,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Builder,
    time::timeout,
};

/// Virtual time after which a connection whose other side has hung up must be over. Longer than any limit of it.
const HANG: Duration = Duration::from_secs(600);

/// What QUIC carries beside lanes: datagrams and message streams, in any order. Each is a length, whether it's a datagram, and that
/// many bytes. A copy of a message is delivered once, and what is kept of it stays small.
#[cfg(fuzzing)]
pub fn quic(data: &[u8]) {
    let Ok(runtime) = Builder::new_current_thread().enable_time().start_paused(true).build() else { return };
    runtime.block_on(async {
        let (session, _connection, _) = session();
        let arriving = Arriving::default();
        let mut rest = data;
        while let Some((&head, bytes)) = rest.split_first() {
            let (one, more) = bytes.split_at(usize::from(head & 63).min(bytes.len()));
            rest = more;
            if head & 64 == 0 {
                if !arriving.datagram(&session, &Bytes::copy_from_slice(one)) {
                    assert!(session.closed().is_some(), "an end without a reason");
                    return;
                }
            } else {
                arriving.stream(one.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
            }
        }
    });
}

/// A session that nothing carries.
fn session() -> (Arc<Session>, Connection, Terms) {
    let Ok(terms) = Terms::new("fuzz") else { unreachable!("four letters are a name") };
    let info = SessionInfo {
        transport: "fuzz",
        dialed: false,
        remote: Remote::anonymous((Ipv4Addr::LOCALHOST, 1).into()),
        local_addr: String::new(),
        remote_addr: String::new(),
        exporter: [0; 32],
        path: Box::new(PathStats::unknown),
    };
    let (session, connection) = Session::start(info, Agreed::same(&terms), terms.classes.clone(), terms.limits.clone());
    (session, connection, terms)
}

/// The other side sends these bytes behind its hello and hangs up. The connection ends and says why; what it delivered
/// before keeps to its classes. The first byte's lowest bit decides whether anybody reads the messages, the next one
/// whether the second half of the bytes comes on a further byte stream, which has joined.
pub fn framing(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let Ok(runtime) = Builder::new_current_thread().enable_time().start_paused(true).build() else { return };
    runtime.block_on(async {
        let closed = timeout(HANG, one(data, mode & 1 == 0, mode & 2 != 0)).await;
        assert!(closed.is_ok(), "the connection hangs");
    });
}

async fn one(data: &[u8], reading: bool, apart: bool) -> Closed {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (session, connection, terms) = session();
    let (joining, carriers) = framing::carriers(vec![1, 0, 1, 0, 1]);
    let driver = tokio::spawn(framing::drive_all(ours, Arc::clone(&session), BytesMut::new(), carriers));
    let (data, mut further) = match joining.take(1).filter(|_| apart) {
        Some(place) => {
            let (data, more) = data.split_at(data.len() / 2);
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            assert!(joining.attach(place, ours, BytesMut::new()), "the connection is over before it has begun");
            (data, Some((theirs, more)))
        }
        None => (data, None),
    };
    if let Some((further, more)) = &mut further {
        // Room for all of it isn't there before MOVED has come; what doesn't fit is never sent.
        let _ = timeout(Duration::from_millis(1), further.write_all(more)).await;
    }
    if reading {
        for (class, kind) in terms.classes.iter() {
            let (connection, max) = (connection.clone(), kind.max_message);
            tokio::spawn(async move {
                while let Ok(message) = connection.recv(class).await {
                    match message {
                        Inbound::Whole(message) => assert!(message.len() <= max, "a message over its class's limit"),
                        Inbound::Streamed(mut reader) => while let Ok(Some(_)) = reader.read().await {},
                    }
                }
            });
        }
    }
    let closed = speak(theirs, data, &connection).await;
    assert!(driver.await.is_ok(), "the driver panicked");
    assert!(session.closed().is_some());
    closed
}

async fn speak(theirs: DuplexStream, data: &[u8], connection: &Connection) -> Closed {
    let (mut read, mut write) = tokio::io::split(theirs);
    let hear = async {
        let mut heard = BytesMut::new();
        while let Ok(1..) = read.read_buf(&mut heard).await {
            heard.clear();
        }
    };
    let speak = async {
        // An error: the other side has closed already.
        let _ = write.write_all(data).await;
        let _ = write.shutdown().await;
    };
    let (closed, (), ()) = tokio::join!(connection.closed(), hear, speak);
    closed
}
