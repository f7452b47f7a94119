//! Lanes on QUIC streams: the class streams and the large-message streams, both ways.
//!
//! A unidirectional stream's first byte names its lane by the sender's class index ([`Lane::to_byte`]); records follow.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use peerlane_transport::{
    ClassTable, CloseCode, Closed, ClosedBy, LaneSource, Session, Urgency,
    class::{Lane, Segment},
};
use quinn::{Connection, RecvStream, SendStream};

use crate::{error::closed, messages::Receiving};

/// Chunks taken from quinn at once: one lock for that many packets.
const CHUNKS: usize = 32;

/// quinn sends streams of a higher priority first. Control frames go before all.
pub(crate) const CONTROL_PRIORITY: i32 = 1000;

pub(crate) fn priority(table: &ClassTable, class: u8) -> i32 {
    match table.get(peerlane_transport::ClassId(class)) {
        Some(class_) if class_.urgency == Urgency::Latency => 100 - i32::from(class),
        // Bulk classes share one priority: what of them is in quinn is little, and quinn's round robin is fair.
        _ => 0,
    }
}

/// The streams that this side sends on.
pub(crate) struct SendLanes {
    connection: Connection,
    table: ClassTable,
    streams: BTreeMap<Lane, SendStream>,
    /// A lane waiting for the other side's permission to open a stream.
    opening: Option<Opening>,
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Result<SendStream, quinn::ConnectionError>> + Send>>;

/// What became of a segment.
pub(crate) enum Wrote {
    All,
    /// quinn takes no more of any lane now; this is what's left.
    Full(Segment),
    /// The lane's stream can't be opened now.
    Unopened(Segment),
    /// The connection is over.
    Over,
}

impl SendLanes {
    pub(crate) fn new(connection: Connection, table: ClassTable) -> Self {
        Self { connection, table, streams: BTreeMap::new(), opening: None }
    }

    /// Whether a lane's bytes are urgent.
    pub(crate) fn urgent(&self, lane: Lane) -> bool {
        self.table.get(peerlane_transport::ClassId(lane.class)).is_some_and(|class| class.urgency == Urgency::Latency)
    }

    /// Writes what can be written now; wakes the task when more can.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, mut segment: Segment) -> Wrote {
        let lane = segment.lane;
        if !self.streams.contains_key(&lane) {
            match self.poll_open(cx) {
                Poll::Ready(Ok(stream)) => {
                    let _ = stream.set_priority(priority(&self.table, lane.class));
                    self.streams.insert(lane, stream);
                    segment.chunks.insert(0, Bytes::copy_from_slice(&[lane.to_byte()]));
                }
                Poll::Ready(Err(_)) => return Wrote::Over,
                Poll::Pending => return Wrote::Unopened(segment),
            }
        }
        let Some(stream) = self.streams.get_mut(&lane) else { return Wrote::Over };
        let mut from = 0;
        while from < segment.chunks.len() {
            // Dropping a write that is pending is safe: it has written nothing (quinn's `write_chunks`, cancel safety).
            let written = pin!(stream.write_chunks(&mut segment.chunks[from..])).poll(cx);
            match written {
                Poll::Ready(Ok(written)) => from += written.chunks,
                // The other side never stops a stream; it closes the connection.
                Poll::Ready(Err(_)) => return Wrote::Over,
                // A lane has no more bytes than the other side's stream window has room for (its credit is smaller), so it
                // can only be what quinn holds for all lanes together.
                Poll::Pending => {
                    segment.chunks.drain(..from);
                    segment.bytes = segment.chunks.iter().map(Bytes::len).sum();
                    return Wrote::Full(segment);
                }
            }
        }
        if segment.fin {
            // Dropping a finished stream doesn't reset it; quinn goes on until all is acknowledged.
            let _ = stream.finish();
            self.streams.remove(&lane);
        }
        Wrote::All
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, quinn::ConnectionError>> {
        let connection = self.connection.clone();
        let opening = self.opening.get_or_insert_with(|| Box::pin(async move { connection.open_uni().await }));
        let opened = opening.as_mut().poll(cx);
        if opened.is_ready() {
            self.opening = None;
        }
        opened
    }
}

/// A stream that this side receives on.
struct StreamSource {
    session: Arc<Session>,
    stream: RecvStream,
    chunks: [Bytes; CHUNKS],
}

impl LaneSource for StreamSource {
    async fn read(&mut self, into: &mut VecDeque<Bytes>) -> Result<bool, Closed> {
        match self.stream.read_chunks(&mut self.chunks).await {
            Ok(Some(count)) => {
                into.extend(self.chunks.iter_mut().take(count).map(std::mem::take));
                Ok(true)
            }
            Ok(None) => Ok(false),
            // What the session says comes first: once the connection has been closed here too, quinn knows only that.
            Err(quinn::ReadError::ConnectionLost(error)) => Err(self.session.closed().cloned().unwrap_or_else(|| closed(&error))),
            Err(error) => Err(Closed::local(CloseCode::Protocol, format!("a lane was cut off: {error}"))),
        }
    }
}

/// Reads one of the other side's streams to its end. `Err`: the connection is over.
pub(crate) async fn receive(session: Arc<Session>, messages: Receiving, mut stream: RecvStream) -> Result<(), Closed> {
    let mut lane = [0];
    match stream.read_exact(&mut lane).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => return Err(closed(&error)),
        Err(_) => return Err(session.violation(CloseCode::Protocol, "a stream without a lane")),
    }
    let Lane { class, slot } = Lane::from_byte(lane[0]);
    if slot == Lane::MESSAGE {
        return messages.stream(&session, class, stream).await.inspect_err(|error| fault(&session, error));
    }
    let mut source = StreamSource { session: session.clone(), stream, chunks: [const { Bytes::new() }; CHUNKS] };
    let received = session.receive_lane(Lane { class, slot }, &mut source).await;
    if received.is_ok() && slot == 0 && session.closed().is_none() {
        return Err(session.violation(CloseCode::Protocol, "the end of a class's own lane"));
    }
    received.inspect_err(|error| fault(&session, error))
}

/// Ends the connection for a lane's fault. That the connection is lost isn't one: who drives it sees to that, when what had
/// arrived before has been read.
fn fault(session: &Session, error: &Closed) {
    if error.by == ClosedBy::Local {
        session.end(error.clone());
    }
}
