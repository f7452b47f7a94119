//! Class framing: lanes and control frames on one ordered stream of bytes. What TCP uses, and what makes a
//! third transport short: do a handshake, [`exchange`](crate::hello::exchange) hellos, start a [`Session`], and
//! [`drive`] it.
//!
//! A frame: lane (1 byte, [`Lane::to_byte`](crate::class::Lane::to_byte); `0xff` for control frames) | length (varint, at most 16 KiB) |
//! payload. An empty frame ends a lane above slot 0. One write is at most one frame of 16 KiB: what is given to
//! a byte stream can't be overtaken, so no more of it is given than that.
//!
//! A connection may go over several byte streams, *carriers*, each class on one of them ([`drive_all`]). All that is said
//! here holds for each; of control frames only those that are about a lane go on another one than the first. One more
//! may carry copies of small urgent messages, and nothing else ([`COPIES`]).
//!
//! Provided: credit per lane (a class that isn't read pauses only itself), bounded memory (a lane's window).
//! Not provided: isolation from loss; that's the byte stream's order. Shares by weight between classes on different
//! carriers: that's the path's decision.

mod carriers;
mod copies;
mod lanes;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use self::carriers::{COPIES, Carriers, Joining, Place, carriers};
use self::{
    carriers::{Moves, Shared, carry_all},
    lanes::Lanes,
};
use super::{Control, LaneSource, Session, settle};
use crate::{
    CloseCode, Closed, ClosedBy,
    class::{Offer, Outgoing},
    limits, varint,
};

/// The lane byte of control frames. Class 15, slot 15 can't be used for a lane in class framing.
const CONTROL: u8 = 0xff;
/// A frame's head: lane, and a varint of four bytes at most.
const HEAD: usize = 5;
/// Payload of a frame: head and payload are one TLS record (RFC 8446, section 5.1: 2^14 bytes).
const PAYLOAD: usize = limits::QUANTUM - HEAD;
/// What is read or written of one carrier before the others have their turn. Bytes. With no end to a flood in sight, its
/// carrier would never wait for anything, and the others would wait for it.
const TURN: usize = 2 * limits::QUANTUM;
/// How long the last words of a connection may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Drives a session over a byte stream until the connection is over. `early` is what [`exchange`](crate::hello::exchange) gave back.
///
/// # Cancel safety
/// Dropping the future ends the connection without a word.
pub async fn drive<IO: AsyncRead + AsyncWrite + Send>(io: IO, session: Arc<Session>, early: BytesMut) {
    let (_, none) = carriers(Vec::new());
    drive_all(io, session, early, none).await;
}

/// The same for a connection that further byte streams may join: `io` is the one of the hello.
///
/// # Cancel safety
/// As [`drive`].
pub async fn drive_all<IO: AsyncRead + AsyncWrite + Send>(io: IO, session: Arc<Session>, early: BytesMut, further: Carriers<IO>) {
    settle(both_ways(io, session, early, further)).await;
}

async fn both_ways<IO: AsyncRead + AsyncWrite + Send>(io: IO, session: Arc<Session>, early: BytesMut, mut further: Carriers<IO>) {
    let of = std::mem::take(&mut further.of);
    let shared = Shared { session: &session, lanes: Lanes::default(), moves: Moves::new(), of };
    let (mut input, mut output) = tokio::io::split(io);
    // Dropped last: a carrier that ended before this side's last words have been heard would look like a loss.
    let mut others = std::pin::pin!(carry_all(further, &shared));
    {
        let reading = async {
            let closed = read(&mut input, &shared, early, 0).await;
            session.end(closed);
            shared.lanes.end();
        };
        let writing = async {
            if let Err(error) = write(&mut output, &session, 0).await {
                // The other side may have said why before it hung up; the reader finds that, or the end.
                let _ = tokio::time::timeout(LAST_WORDS, session.over().cancelled()).await;
                session.end(Closed::transport(CloseCode::Lost, error.to_string()));
            }
        };
        // The reader goes on while the writer says its last words, and the other way round. The other carriers go first:
        // where there are some, they're for what is urgent.
        tokio::pin!(reading);
        tokio::select! {
            biased;
            () = &mut others => {}
            () = writing => {}
            () = async { (&mut reading).await; std::future::pending().await } => {}
        }
    }
    shared.lanes.end();
    if session.closed().is_some_and(|closed| closed.by == ClosedBy::Local) {
        hear_out(&mut input).await;
    }
}

/// Lets the rest of the connection's task have its turn.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| match std::mem::replace(&mut paused, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Reads until the other side hangs up, for a moment at most: a TCP that is closed with bytes unread resets the
/// connection, and what was said last is lost on its way.
pub(crate) async fn hear_out<R: AsyncRead + Unpin>(input: &mut R) {
    let mut ignored = [0; 4096];
    let hear = async { while input.read(&mut ignored).await.is_ok_and(|more| more > 0) {} };
    let _ = tokio::time::timeout(LAST_WORDS, hear).await;
}

/// Writes what goes on a carrier until the connection is over. The last words are the first carrier's.
async fn write<W: AsyncWrite + Unpin>(output: &mut W, session: &Session, number: u8) -> std::io::Result<()> {
    let (outbox, over) = (session.outbox(), session.over());
    let mut frame = BytesMut::with_capacity(limits::QUANTUM + HEAD);
    let mut turn = 0;
    loop {
        if turn >= TURN {
            pause().await;
            turn = 0;
        }
        // What is chosen can't be overtaken any more. So nothing is, until the byte stream has passed on what it has.
        let next = async {
            output.flush().await?;
            Ok::<_, std::io::Error>(outbox.ready_on(number, PAYLOAD, Offer::default()).await)
        };
        let next = tokio::select! {
            biased;
            next = next => next?,
            () = over.cancelled() => return last_words(output, session, number, frame).await,
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
        turn += frame.len();
        while !frame.is_empty() {
            tokio::select! {
                biased;
                written = output.write_buf(&mut frame) => match written? {
                    0 => return Err(std::io::ErrorKind::WriteZero.into()),
                    _ => continue,
                },
                () = over.cancelled() => return last_words(output, session, number, frame).await,
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

/// Completes the frame begun, and says CLOSE if this side ended the connection: on the first carrier. Another one's end
/// means nothing any more.
async fn last_words<W: AsyncWrite + Unpin>(output: &mut W, session: &Session, number: u8, mut frame: BytesMut) -> std::io::Result<()> {
    if number > 0 {
        return Ok(());
    }
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

/// Reads a carrier's frames and hands them to their lanes, until the connection is over: why.
async fn read<R: AsyncRead + Unpin>(input: &mut R, shared: &Shared<'_>, mut buffer: BytesMut, number: u8) -> Closed {
    let Shared { session, lanes, .. } = shared;
    let mut control = BytesMut::new();
    let mut turn = 0;
    loop {
        loop {
            match take_frame(&mut buffer) {
                Ok(None) => break,
                Ok(Some((CONTROL, payload))) => {
                    control.extend_from_slice(&payload);
                    if let Err(closed) = obey(shared, &mut control, number) {
                        return closed;
                    }
                }
                Ok(Some((lane, payload))) => {
                    if let Err(closed) = lanes.deliver(session, lane, payload) {
                        return closed;
                    }
                }
                Err(what) => return session.violation(CloseCode::Protocol, what),
            }
        }
        // Before the buffer is filled again: once the lanes have taken their bytes, its memory is used again.
        lanes.advance().await;
        if turn >= TURN {
            pause().await;
            turn = 0;
        }
        buffer.reserve(2 * limits::QUANTUM);
        let read = tokio::select! {
            biased;
            () = session.over().cancelled() => return session.closed().cloned().unwrap_or_else(|| Closed::local(CloseCode::Done, "")),
            () = lanes.keep_going() => continue,
            read = input.read_buf(&mut buffer) => read,
        };
        match read {
            Ok(0) => return Closed::transport(CloseCode::Lost, "the other side hung up without a word"),
            Ok(read) => {
                turn += read;
                session.heard();
            }
            Err(error) => return Closed::transport(CloseCode::Lost, error.to_string()),
        }
    }
}

/// Does what the complete control frames ask. What is left is less than one frame.
fn obey(shared: &Shared<'_>, control: &mut BytesMut, number: u8) -> Result<(), Closed> {
    let session = shared.session;
    loop {
        match Control::decode(control) {
            Ok(Some(frame @ (Control::Credit { .. } | Control::Release(_) | Control::Stop { .. }))) => session.on_control(frame)?,
            Ok(Some(_)) if number > 0 => {
                return Err(session.violation(CloseCode::Protocol, "a control frame that belongs on the first carrier"));
            }
            Ok(Some(Control::Moved(number))) => shared.moves.hear(session, number)?,
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
