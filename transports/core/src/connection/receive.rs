//! Takes a lane's bytes up: records, messages, credit. The same code for a QUIC stream and a lane of class framing.

use std::{collections::VecDeque, future::Future, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};

use super::Session;
use crate::{
    CloseCode, Closed, RecvError,
    class::{ClassId, Credit, Inbound, Inbox, Lane, Record, StreamIn},
    limits, varint,
};

/// Where a lane's bytes come from.
pub trait LaneSource: Send {
    /// Waits for bytes and appends them to `into`. `false`: the lane has ended, and nothing was appended.
    ///
    /// # Errors
    /// How the connection ended, or that the lane was cut off.
    ///
    /// # Cancel safety
    /// Needn't be cancel-safe: a lane's reader ends with its connection.
    fn read(&mut self, into: &mut VecDeque<Bytes>) -> impl Future<Output = Result<bool, Closed>> + Send;

    /// The other side may send up to this total: for sources that keep bytes of their own.
    fn allowed(&mut self, _total: u64) {}
}

struct LaneIn<'a, S> {
    session: &'a Arc<Session>,
    source: &'a mut S,
    class: ClassId,
    /// As the other side names it.
    lane: Lane,
    chunks: VecDeque<Bytes>,
    credit: &'a Credit,
    over: bool,
}

impl Session {
    /// Reads a lane to its end, as the other side names it, and delivers its messages. `Err`: the connection is
    /// over, by this lane's fault or another's.
    pub async fn receive_lane(self: &Arc<Self>, lane: Lane, source: &mut impl LaneSource) -> Result<(), Closed> {
        let Some(class) = self.local_class(lane).filter(|class| self.occupy(*class, lane.slot)) else {
            return Err(self.violation(CloseCode::Protocol, "a lane that isn't agreed or is in use"));
        };
        let large = (lane.slot > 0).then(|| self.large_credit(class));
        let credit = large.as_ref().unwrap_or(self.credit(class));
        let mut reader = LaneIn { session: self, source, class, lane, chunks: VecDeque::new(), credit, over: false };
        let result = reader.run().await;
        if result.is_ok() && lane.slot > 0 {
            self.vacate(class, lane.slot);
            self.outbox().release(lane);
        }
        result
    }
}

impl<S: LaneSource> LaneIn<'_, S> {
    async fn run(&mut self) -> Result<(), Closed> {
        let session = self.session;
        let inbox = session.inbox(self.class).ok_or_else(|| self.protocol("no such class"))?;
        while let Some(head) = self.head().await? {
            match Record::from_varint(head) {
                Some(Record::Whole(len)) => {
                    let max = session.table()[self.class].max_message;
                    let len = usize::try_from(len).ok().filter(|len| *len <= max);
                    let len = len.ok_or_else(|| session.violation(CloseCode::TooLarge, "a message larger than its class permits"))?;
                    if !self.whole(inbox, len).await? {
                        continue;
                    }
                }
                Some(Record::Start(number)) => self.streamed(inbox, number).await?,
                _ => return Err(self.protocol("a record that may not stand here")),
            }
            session.message_completed();
            if self.lane.slot > 0 {
                return if self.fill().await? { Err(self.protocol("a second message on a large message's lane")) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// Takes a whole message up and delivers it. `false`: a copy of it was delivered before, and counted.
    async fn whole(&mut self, inbox: &Inbox, len: usize) -> Result<bool, Closed> {
        let session = self.session;
        // Only the class's own lane has copies.
        let arrived = session.arrived(self.class).filter(|_| self.lane.slot == 0);
        if arrived.is_some_and(|arrived| arrived.lock().next_is_early()) {
            self.skip(len).await?;
            return Ok(arrived.is_none_or(|arrived| arrived.lock().lane()));
        }
        let room = inbox.reserve(len).await.ok_or_else(|| self.ended())?;
        let message = self.message(len).await?;
        // Its copy may have come while the rest of it was waited for.
        let news = arrived.is_none_or(|arrived| arrived.lock().lane());
        if news {
            room.deliver(Inbound::Whole(message));
        }
        Ok(news)
    }

    /// Takes bytes up that nobody needs any more.
    async fn skip(&mut self, len: usize) -> Result<(), Closed> {
        let mut left = len;
        while left > 0 {
            let Some(piece) = self.some(left).await? else { return Err(self.protocol("a lane ended in a message")) };
            left -= piece.len();
        }
        Ok(())
    }

    fn protocol(&self, what: &'static str) -> Closed {
        self.session.violation(CloseCode::Protocol, what)
    }

    fn ended(&self) -> Closed {
        self.session.closed().cloned().unwrap_or_else(|| Closed::local(CloseCode::Done, ""))
    }

    /// Sees to it that there are bytes. `false`: the lane has ended.
    async fn fill(&mut self) -> Result<bool, Closed> {
        while self.chunks.is_empty() {
            if self.over || !self.source.read(&mut self.chunks).await? {
                self.over = true;
                return Ok(false);
            }
            self.session.heard();
            self.chunks.retain(|chunk| !chunk.is_empty());
            // None waited when the source was asked: these are new.
            if !self.credit.arrived(self.chunks.iter().map(Bytes::len).sum()) {
                return Err(self.session.violation(CloseCode::FlowControl, "more bytes on a lane than credit was given for"));
            }
        }
        Ok(true)
    }

    /// Counts bytes as taken up, and gives credit again when it's due.
    fn consumed(&mut self, len: usize) {
        let session = self.session;
        if let Some(total) = self.credit.taken(len, || session.round_trip())
            && !self.over
        {
            self.source.allowed(total);
            session.outbox().credit(self.lane, total);
        }
    }

    async fn byte(&mut self) -> Result<Option<u8>, Closed> {
        if !self.fill().await? {
            return Ok(None);
        }
        let byte = self.chunks.front_mut().map(Buf::get_u8);
        self.drop_empty();
        self.consumed(1);
        Ok(byte)
    }

    fn drop_empty(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }

    /// A record's head. `None`: the lane ended before it, as it may.
    async fn head(&mut self) -> Result<Option<u64>, Closed> {
        if !self.fill().await? {
            return Ok(None);
        }
        // Nearly always the head stands whole in the chunk.
        if let Some(front) = self.chunks.front_mut() {
            let before = front.len();
            if let Some(head) = varint::get(front) {
                let len = before - front.len();
                self.drop_empty();
                self.consumed(len);
                return Ok(Some(head));
            }
        }
        let mut head = [0u8; varint::MAX_LEN];
        let mut have = 0;
        loop {
            let Some(byte) = self.byte().await? else { return Err(self.protocol("a lane ended in a record's head")) };
            head[have] = byte;
            have += 1;
            if have == varint::len_of_first(head[0]) {
                return Ok(varint::get(&mut &head[..have]));
            }
        }
    }

    /// At most `max` bytes of what has arrived, waiting for some. `None`: the lane has ended.
    async fn some(&mut self, max: usize) -> Result<Option<Bytes>, Closed> {
        if !self.fill().await? {
            return Ok(None);
        }
        let Some(front) = self.chunks.front_mut() else { return Ok(None) };
        let piece = front.split_to(max.min(front.len()));
        self.drop_empty();
        self.consumed(piece.len());
        Ok(Some(piece))
    }

    /// A message of `len` bytes, for which there's room. It's copied: the transport's buffers are larger than what
    /// they carry, and a small message must not hold one alive.
    async fn message(&mut self, len: usize) -> Result<Bytes, Closed> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        // Reserved in full only where the class permits no more than that anyway; beyond, memory follows the
        // bytes that have arrived, not the length declared.
        let mut message = BytesMut::with_capacity(len.min(limits::SMALL_MESSAGE));
        while message.len() < len {
            let Some(piece) = self.some(len - message.len()).await? else { return Err(self.protocol("a lane ended in a message")) };
            if message.capacity() - message.len() < piece.len() {
                message.reserve(piece.len().max(message.len().min(len - message.len())));
            }
            message.extend_from_slice(&piece);
        }
        Ok(message.freeze())
    }

    async fn streamed(&mut self, inbox: &Inbox, number: u64) -> Result<(), Closed> {
        let room = inbox.reserve(0).await.ok_or_else(|| self.ended())?;
        let (session, lane) = (self.session, self.lane);
        let weak = Arc::downgrade(session);
        let (stream, reader) = StreamIn::pair(move |code| {
            if let Some(session) = weak.upgrade() {
                session.outbox().stop(lane, number, code);
            }
        });
        room.deliver(Inbound::Streamed(reader));
        let stream = EndsAnyway { stream, session };
        let result = self.parts(&stream.stream).await;
        stream.stream.end(result.clone());
        match result {
            Err(RecvError::Closed(closed)) => Err(closed),
            _ => Ok(()),
        }
    }

    async fn parts(&mut self, stream: &StreamIn) -> Result<(), RecvError> {
        let mut wanted = true;
        loop {
            match self.head().await?.and_then(Record::from_varint) {
                Some(Record::Part(len)) => {
                    let len = usize::try_from(len).ok().filter(|len| *len <= limits::QUANTUM);
                    let mut left = len.ok_or_else(|| self.protocol("a part longer than a quantum"))?;
                    while left > 0 {
                        let Some(piece) = self.some(left).await? else { return Err(self.protocol("a lane ended in a part").into()) };
                        left -= piece.len();
                        wanted = wanted && stream.push(Bytes::copy_from_slice(&piece)).await;
                    }
                }
                Some(Record::End) => return Ok(()),
                Some(Record::Abort(code)) => return Err(RecvError::Aborted(code)),
                _ => return Err(self.protocol("a record that may not stand in a streamed message").into()),
            }
        }
    }
}

/// A lane's reader may be dropped when the connection ends; the message's reader must not wait for it for ever.
struct EndsAnyway<'a> {
    stream: Arc<StreamIn>,
    session: &'a Session,
}

impl Drop for EndsAnyway<'_> {
    fn drop(&mut self) {
        let closed = self.session.closed().cloned();
        // Only the first end counts: one that came in order stays.
        self.stream.end(Err(closed.unwrap_or_else(|| Closed::transport(CloseCode::Lost, "the connection ended without a word")).into()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        SessionInfo,
        admission::{Agreed, Terms},
        connection::PathStats,
        identity::Remote,
    };

    /// A transport whose own flow control permits more than the lane's credit.
    struct TooMuch(usize);

    impl LaneSource for TooMuch {
        async fn read(&mut self, into: &mut VecDeque<Bytes>) -> Result<bool, Closed> {
            into.push_back(Bytes::from(vec![0; self.0]));
            Ok(true)
        }
    }

    fn session() -> (Arc<Session>, crate::Connection, Terms) {
        let terms = Terms::new("n").unwrap();
        let info = SessionInfo {
            transport: "test",
            dialed: true,
            remote: Remote::anonymous(([127, 0, 0, 1], 1).into()),
            local_addr: String::new(),
            remote_addr: String::new(),
            exporter: [0; 32],
            path: Box::new(PathStats::unknown),
        };
        let (session, connection) = Session::start(info, Agreed::same(&terms), terms.classes.clone(), terms.limits.clone());
        (session, connection, terms)
    }

    #[tokio::test]
    async fn more_than_a_lanes_credit_ends_the_connection() {
        let (session, _connection, terms) = session();
        let class = ClassId(0);
        let window = terms.classes[class].window;
        let ended = session.receive_lane(Lane { class: 0, slot: 0 }, &mut TooMuch(window + 1)).await.unwrap_err();
        assert_eq!(ended.code, CloseCode::FlowControl);
    }

    /// Messages on streams of their own wait for room outside every lane: credit alone bounds them.
    #[tokio::test]
    async fn message_streams_that_nobody_reads_are_bounded_by_their_classs_credit() {
        let (session, connection, terms) = session();
        let class = terms.classes.by_name("query").unwrap();
        let window = terms.classes[class].most(false);
        let len = 1000;
        let cost = len + limits::MESSAGE_STREAM_OVERHEAD;
        let mut waiting = Vec::new();
        let ended = loop {
            let mut message = Box::pin(session.on_message(class.0, Bytes::from(vec![0; len])));
            match futures_util::poll!(message.as_mut()) {
                std::task::Poll::Ready(Err(ended)) => break ended,
                std::task::Poll::Ready(Ok(())) => {}
                std::task::Poll::Pending => waiting.push(message),
            }
        };
        assert_eq!(ended.code, CloseCode::FlowControl);
        assert!(!waiting.is_empty() && waiting.len() * cost <= window, "{} wait", waiting.len());
        drop(connection);
    }
}
