//! Class framing: lanes and control frames on one ordered stream of bytes. What TCP uses, and what makes a
//! third transport short: do a handshake, [`exchange`](crate::hello::exchange) hellos, start a [`Session`], and
//! [`drive`] it.
//!
//! A frame: lane (1 byte, [`Lane::to_byte`]; `0xff` for control frames) | length (varint, at most 16 KiB) |
//! payload. An empty frame ends a lane above slot 0. One write is at most one frame of 16 KiB: what is given to
//! a byte stream can't be overtaken, so no more of it is given than that.
//!
//! Provided: credit per lane (a class that isn't read pauses only itself), bounded memory (a lane's window).
//! Not provided: isolation from loss; that's the byte stream's order.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered, task::AtomicWaker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Control, LaneSource, Session, settle};
use crate::{
    CloseCode, Closed, ClosedBy,
    class::{DatagramState, Lane, Outgoing},
    limits,
    sync::Mutex,
    varint,
};

/// The lane byte of control frames. Class 15, slot 15 can't be used for a lane in class framing.
const CONTROL: u8 = 0xff;
/// A frame's head: lane, and a varint of four bytes at most.
const HEAD: usize = 5;
/// Payload of a frame: head and payload are one TLS record (RFC 8446, section 5.1: 2^14 bytes).
const PAYLOAD: usize = limits::QUANTUM - HEAD;
/// Payloads below this are copied together: many tiny ones would cost more in bookkeeping than in bytes.
const COPY_BELOW: usize = 8 * 1024;
/// How long the last words of a connection may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Drives a session over a byte stream until the connection is over. `early` is what [`exchange`](crate::hello::exchange) gave back.
///
/// # Cancel safety
/// Dropping the future ends the connection without a word.
pub async fn drive<IO: AsyncRead + AsyncWrite + Send>(io: IO, session: Arc<Session>, early: BytesMut) {
    settle(both_ways(io, session, early)).await;
}

async fn both_ways<IO: AsyncRead + AsyncWrite + Send>(io: IO, session: Arc<Session>, early: BytesMut) {
    let (mut input, mut output) = tokio::io::split(io);
    {
        let reading = async {
            let closed = read(&mut input, &session, early).await;
            session.end(closed);
        };
        let writing = async {
            if let Err(error) = write(&mut output, &session).await {
                // The other side may have said why before it hung up; the reader finds that, or the end.
                let _ = tokio::time::timeout(LAST_WORDS, session.over().cancelled()).await;
                session.end(Closed::transport(CloseCode::Lost, error.to_string()));
            }
        };
        // The reader goes on while the writer says its last words, and the other way round.
        tokio::pin!(reading);
        tokio::select! {
            biased;
            () = writing => {}
            () = async { (&mut reading).await; std::future::pending().await } => {}
        }
    }
    if session.closed().is_some_and(|closed| closed.by == ClosedBy::Local) {
        hear_out(&mut input).await;
    }
}

/// Reads until the other side hangs up, for a moment at most: a TCP that is closed with bytes unread resets the
/// connection, and what was said last is lost on its way.
pub(crate) async fn hear_out<R: AsyncRead + Unpin>(input: &mut R) {
    let mut ignored = [0; 4096];
    let hear = async { while input.read(&mut ignored).await.is_ok_and(|more| more > 0) {} };
    let _ = tokio::time::timeout(LAST_WORDS, hear).await;
}

async fn write<W: AsyncWrite + Unpin>(output: &mut W, session: &Session) -> std::io::Result<()> {
    let (outbox, over) = (session.outbox(), session.over());
    let mut frame = BytesMut::with_capacity(limits::QUANTUM + HEAD);
    loop {
        // What is chosen can't be overtaken any more. So nothing is, until the byte stream has passed on what it has.
        let next = async {
            output.flush().await?;
            Ok::<_, std::io::Error>(outbox.ready(PAYLOAD, DatagramState::None).await)
        };
        let next = tokio::select! {
            biased;
            next = next => next?,
            () = over.cancelled() => return last_words(output, session, frame).await,
        };
        match next {
            Outgoing::Control(control) => control.chunks(PAYLOAD).for_each(|piece| put(&mut frame, CONTROL, &[piece])),
            Outgoing::Segment(segment) => {
                let lane = segment.lane.to_byte();
                if segment.bytes > 0 {
                    put(&mut frame, lane, &segment.chunks);
                }
                if segment.fin {
                    put(&mut frame, lane, &[[]]);
                }
            }
            // Neither was offered.
            Outgoing::Datagram { .. } | Outgoing::Message { .. } => {}
        }
        while !frame.is_empty() {
            tokio::select! {
                biased;
                written = output.write_buf(&mut frame) => match written? {
                    0 => return Err(std::io::ErrorKind::WriteZero.into()),
                    _ => continue,
                },
                () = over.cancelled() => return last_words(output, session, frame).await,
            }
        }
    }
}

/// Appends a frame.
fn put<B: AsRef<[u8]>>(frame: &mut BytesMut, lane: u8, payload: &[B]) {
    head(frame, lane, payload.iter().map(|piece| piece.as_ref().len()).sum());
    payload.iter().for_each(|piece| frame.put_slice(piece.as_ref()));
}

fn head(frame: &mut BytesMut, lane: u8, len: usize) {
    frame.put_u8(lane);
    varint::put(frame, len as u64);
}

/// Completes the frame begun, and says CLOSE if this side ended the connection.
async fn last_words<W: AsyncWrite + Unpin>(output: &mut W, session: &Session, mut frame: BytesMut) -> std::io::Result<()> {
    if let Some(Closed { by: ClosedBy::Local, code, reason }) = session.closed() {
        let mut body = BytesMut::new();
        Control::Close { code: code.number(), reason: Bytes::copy_from_slice(reason.as_bytes()) }.encode(&mut body);
        put(&mut frame, CONTROL, &[body]);
    }
    let words = async {
        output.write_all_buf(&mut frame).await?;
        output.shutdown().await
    };
    // A stuck byte stream must not hold the end up.
    tokio::time::timeout(LAST_WORDS, words).await.unwrap_or(Ok(()))
}

/// A lane's bytes between the stream's reader and the lane's own.
#[derive(Default)]
struct Channel {
    queue: Mutex<ChannelQueue>,
    arrived: AtomicWaker,
    taken: AtomicU64,
}

#[derive(Default)]
struct ChannelQueue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    ended: bool,
}

impl ChannelQueue {
    /// Hands over what there is. `None`: nothing yet. `Some(false)`: nothing, and nothing will come.
    fn take(&mut self, into: &mut VecDeque<Bytes>) -> Option<bool> {
        into.append(&mut self.chunks);
        if !self.tail.is_empty() {
            into.push_back(self.tail.split().freeze());
        }
        match into.is_empty() {
            false => Some(true),
            true => self.ended.then_some(false),
        }
    }
}

struct ChannelSource(Arc<Channel>);

impl LaneSource for ChannelSource {
    fn read(&mut self, into: &mut VecDeque<Bytes>) -> impl Future<Output = Result<bool, Closed>> + Send {
        let channel = &self.0;
        poll_fn(move |cx| {
            // Registered first: what comes afterwards wakes, what came before is found.
            channel.arrived.register(cx.waker());
            channel.queue.lock().take(into).map_or(Poll::Pending, |more| Poll::Ready(Ok(more)))
        })
    }

    fn taken(&mut self, bytes: usize) {
        self.0.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

struct LaneState {
    channel: Arc<Channel>,
    received: u64,
    window: u64,
}

/// The lanes that the other side uses, and those who take their bytes up: one each, so that one who waits for room
/// holds up no other. They're polled by the stream's own task: what they do is to copy, and to be woken on another
/// thread for that takes longer than the copy.
#[derive(Default)]
struct Lanes {
    states: HashMap<u8, LaneState>,
    readers: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Lanes {
    /// Lets those who have something to do go on, and doesn't wait for any.
    async fn advance(&mut self) {
        poll_fn(|cx| {
            while let Poll::Ready(Some(())) = self.readers.poll_next_unpin(cx) {}
            Poll::Ready(())
        })
        .await;
    }
}

/// Reads frames and hands them to their lanes, until the connection is over: why.
async fn read<R: AsyncRead + Unpin>(input: &mut R, session: &Arc<Session>, mut buffer: BytesMut) -> Closed {
    let mut lanes = Lanes::default();
    let mut control = BytesMut::new();
    loop {
        loop {
            match take_frame(&mut buffer) {
                Ok(None) => break,
                Ok(Some((CONTROL, payload))) => {
                    control.extend_from_slice(&payload);
                    if let Err(closed) = obey(session, &mut control) {
                        return closed;
                    }
                }
                Ok(Some((lane, payload))) => {
                    if let Err(closed) = deliver(session, &mut lanes, lane, payload) {
                        return closed;
                    }
                }
                Err(what) => return session.violation(CloseCode::Protocol, what),
            }
        }
        // Before the buffer is filled again: once the lanes have taken their bytes, its memory is used again.
        lanes.advance().await;
        buffer.reserve(2 * limits::QUANTUM);
        let read = tokio::select! {
            biased;
            () = session.over().cancelled() => return session.closed().cloned().unwrap_or_else(|| Closed::local(CloseCode::Done, "")),
            Some(()) = lanes.readers.next() => continue,
            read = input.read_buf(&mut buffer) => read,
        };
        match read {
            Ok(0) => return Closed::transport(CloseCode::Lost, "the other side hung up without a word"),
            Ok(_) => session.heard(),
            Err(error) => return Closed::transport(CloseCode::Lost, error.to_string()),
        }
    }
}

/// Does what the complete control frames ask. What is left is less than one frame.
fn obey(session: &Session, control: &mut BytesMut) -> Result<(), Closed> {
    loop {
        match Control::decode(control) {
            Ok(Some(frame)) => session.on_control(frame)?,
            Ok(None) => return Ok(()),
            Err(bad) => return Err(session.violation(CloseCode::Protocol, bad.to_string())),
        }
    }
}

/// A whole frame off the front of the buffer: lane and payload.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<(u8, BytesMut)>, &'static str> {
    let Some((lane, len, head)) = frame_head(buffer)? else { return Ok(None) };
    if buffer.len() < head + len {
        return Ok(None);
    }
    buffer.advance(head);
    Ok(Some((lane, buffer.split_to(len))))
}

/// Lane, payload length, length of the head.
fn frame_head(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, &'static str> {
    let Some((&lane, mut rest)) = buffer.split_first() else { return Ok(None) };
    let before = rest.len();
    let Some(len) = varint::get(&mut rest) else { return Ok(None) };
    match usize::try_from(len) {
        Ok(len) if len <= limits::QUANTUM => Ok(Some((lane, len, 1 + before - rest.len()))),
        _ => Err("a frame longer than a quantum"),
    }
}

fn deliver(session: &Arc<Session>, lanes: &mut Lanes, byte: u8, payload: BytesMut) -> Result<(), Closed> {
    let lane = Lane::from_byte(byte);
    let state = match lanes.states.entry(byte) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let class = session.local_class(lane).map(|class| &session.table()[class]);
            let Some(class) = class.filter(|class| lane.slot <= class.large_lanes) else {
                return Err(session.violation(CloseCode::Protocol, "a lane that isn't agreed"));
            };
            let channel = Arc::<Channel>::default();
            let window = (if lane.slot == 0 { class.window } else { class.large_window }) as u64;
            let (session, mut source) = (session.clone(), ChannelSource(channel.clone()));
            // What ends the connection ends the lanes: they're dropped with the stream's reader.
            lanes.readers.push(Box::pin(async move {
                let _ = session.receive_lane(lane, &mut source).await;
            }));
            entry.insert(LaneState { channel, received: 0, window })
        }
    };
    if payload.is_empty() {
        if lane.slot == 0 {
            return Err(session.violation(CloseCode::Protocol, "the end of a class's own lane"));
        }
        state.channel.queue.lock().ended = true;
        state.channel.arrived.wake();
        lanes.states.remove(&byte);
        return Ok(());
    }
    state.received += payload.len() as u64;
    if state.received > state.channel.taken.load(Ordering::Relaxed) + state.window {
        return Err(session.violation(CloseCode::FlowControl, "more bytes on a lane than credit was given for"));
    }
    let mut queue = state.channel.queue.lock();
    if payload.len() < COPY_BELOW {
        queue.tail.extend_from_slice(&payload);
    } else {
        if !queue.tail.is_empty() {
            let tail = queue.tail.split().freeze();
            queue.chunks.push_back(tail);
        }
        queue.chunks.push_back(payload.freeze());
    }
    drop(queue);
    state.channel.arrived.wake();
    Ok(())
}
