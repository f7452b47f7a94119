//! Message streams: a small message of an urgent class on a stream of its own.
//!
//! On a class's one stream a lost packet holds up every message behind it until it's repaired, a round trip later. So where
//! a round trip is long, each small message of an urgent `Any` class has a stream to itself, as long as there are streams
//! to spare: its class in the first byte, then the message to the stream's end.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use peerlane_transport::{ClassId, CloseCode, Closed, Session, class::Lane, limits, varint};
use quinn::{Connection, RecvStream, SendStream};

use crate::{
    copies::{Arrivals, COPY, PROBE},
    error::closed,
};

/// Message streams at once. Fewer than a peer permits: it may be late in permitting more, and a large message's stream
/// mustn't wait for that.
const AT_ONCE: usize = limits::MESSAGE_STREAMS * 3 / 4;

type Opening = Pin<Box<dyn Future<Output = Result<SendStream, quinn::ConnectionError>> + Send>>;

/// The sender's side.
pub(crate) struct MessageStreams {
    connection: Connection,
    /// Opened, and not used yet: that there is one is what permits the next message to leave alone.
    spare: Option<SendStream>,
    opening: Option<Opening>,
    /// One for each that isn't acknowledged yet.
    outstanding: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// A message that quinn has not taken whole.
    leaving: Option<Leaving>,
}

struct Leaving {
    stream: SendStream,
    class: ClassId,
    message: Bytes,
    chunks: Vec<Bytes>,
}

/// A message that has left: its stream, for who wants to know whether it has arrived.
pub(crate) struct Left {
    pub(crate) stream: SendStream,
    pub(crate) class: ClassId,
    pub(crate) message: Bytes,
}

impl MessageStreams {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, spare: None, opening: None, outstanding: FuturesUnordered::new(), leaving: None }
    }

    /// Whether a message could have a stream now.
    pub(crate) fn poll_spare(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Some(())) = self.outstanding.poll_next_unpin(cx) {}
        if self.spare.is_none() && self.outstanding.len() < AT_ONCE {
            let connection = &self.connection;
            let opening = self.opening.get_or_insert_with(|| {
                let connection = connection.clone();
                Box::pin(async move { connection.open_uni().await })
            });
            if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                self.opening = None;
                self.spare = opened.ok();
            }
        }
        self.spare.is_some()
    }

    /// Gives a message the spare stream. [`poll_leave`](Self::poll_leave) writes it.
    pub(crate) fn begin(&mut self, class: ClassId, priority: i32, message: Bytes) {
        let Some(stream) = self.spare.take() else { return };
        let _ = stream.set_priority(priority);
        let head = Bytes::copy_from_slice(&[Lane { class: class.0, slot: Lane::MESSAGE }.to_byte()]);
        let chunks = [head, message.clone()].into_iter().filter(|chunk| !chunk.is_empty()).collect();
        self.leaving = Some(Leaving { stream, class, message, chunks });
    }

    /// Writes what was begun. Pending: quinn takes no more now. `Ready(None)`: nothing was begun, or it's over.
    pub(crate) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<Option<Left>> {
        let Some(leaving) = &mut self.leaving else { return Poll::Ready(None) };
        while !leaving.chunks.is_empty() {
            let written = pin!(leaving.stream.write_chunks(&mut leaving.chunks)).poll(cx);
            match written {
                Poll::Ready(Ok(written)) => drop(leaving.chunks.drain(..written.chunks)),
                Poll::Ready(Err(_)) => {
                    self.leaving = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let left = self.leaving.take().map(|Leaving { mut stream, class, message, .. }| {
            let _ = stream.finish();
            self.outstanding.push(Box::pin(stream.stopped().map(|_| ())));
            Left { stream, class, message }
        });
        Poll::Ready(left)
    }
}

/// The receiver's side: what has arrived, by stream or by copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiving(Arc<Mutex<Arrivals>>);

impl Receiving {
    fn arrivals(&self) -> std::sync::MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a message stream behind its first byte.
    pub(crate) async fn stream(&self, session: &Session, class: u8, mut stream: RecvStream) -> Result<(), Closed> {
        let number = stream.id().index();
        let message = match stream.read_to_end(limits::MESSAGE_STREAM).await {
            Ok(message) => message,
            Err(quinn::ReadToEndError::TooLong) => {
                return Err(session.violation(CloseCode::TooLarge, "a message stream with more than a small message"));
            }
            Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => return Err(closed(&error)),
            Err(error) => return Err(session.violation(CloseCode::Protocol, format!("a message stream was cut off: {error}"))),
        };
        if self.is_news(number) { session.on_message(class, message.into()).await } else { session.on_copied_message(class, message.len()) }
    }

    /// A message stream has come whole. Whether no copy of it has come before.
    pub(crate) fn is_news(&self, number: u64) -> bool {
        self.arrivals().stream(number)
    }

    /// Takes a datagram: a message of a `Datagram` class, or a copy.
    pub(crate) fn datagram(&self, session: &Session, datagram: &Bytes) -> Result<(), Closed> {
        let bad = |what: &'static str| Err(session.violation(CloseCode::Protocol, what));
        let Some((head, mut rest)) = datagram.split_first() else { return bad("an empty datagram") };
        let class = head & 15;
        match head & !15 {
            0 => session.on_datagram(class, rest),
            COPY => {
                let Some(number) = varint::get(&mut rest) else { return bad("a copy without its stream's number") };
                self.arrivals().copy(number, || session.on_copy(class, rest.chunk()))
            }
            PROBE if class == 0 && rest.is_empty() => Ok(()),
            _ => bad("a datagram of an unknown kind"),
        }
    }
}
