//! The byte stream for copies: on it, and on no other, small urgent messages are sent a second time.
//!
//! A segment that's lost holds up all that follows it on its byte stream, a round trip and more, and TCP has no other
//! order. A copy on another byte stream isn't held up with it. A frame here holds one copy whole: in the place of a slot
//! [`Lane::MESSAGE`], then the message's number on its class's own lane, and the message. Nothing is ever only here:
//! so nobody waits for this byte stream, and its end means nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Control, PAYLOAD, Session, TURN, head, pause, take_frame};
use crate::{
    CloseCode, Closed,
    class::{Lane, MessageCopy},
    limits, varint,
};

/// What is read at once. Bytes: a dozen queries. Copies are small and seldom, and this is held while nothing comes.
const INPUT: usize = 4096;

/// Counts a byte stream while it's in use.
struct Used<'a>(&'a AtomicU8);

impl<'a> Used<'a> {
    fn new(count: &'a AtomicU8) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Sends copies on a byte stream, and takes the other side's, until it ends or the connection does.
pub(super) async fn carry<IO: AsyncRead + AsyncWrite + Send>(
    io: IO,
    early: BytesMut,
    used: &AtomicU8,
    session: &Arc<Session>,
    after: std::time::Duration,
) {
    let (mut input, mut output) = tokio::io::split(io);
    if !session.info().dialed {
        let mut accept = BytesMut::new();
        Control::Accept.encode(&mut accept);
        if output.write_all(&accept).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
    let _used = Used::new(used);
    session.outbox().copy_after(Some(after));
    tokio::select! {
        biased;
        () = session.over().cancelled() => {}
        // A broken rule has ended the connection; anything else ends but this.
        _ = read(&mut input, session, early) => {}
        _ = write(&mut output, session) => {}
    }
    session.outbox().copy_after(None);
}

async fn write<W: AsyncWrite + Unpin>(output: &mut W, session: &Session) -> std::io::Result<()> {
    let outbox = session.outbox();
    let mut frames = BytesMut::new();
    loop {
        let mut next = Some(outbox.next_copy().await);
        while let Some(copy) = next {
            put(&mut frames, &copy);
            // All that's due goes together.
            next = if frames.len() + limits::MESSAGE_STREAM < PAYLOAD { outbox.due_copy() } else { None };
        }
        output.write_all_buf(&mut frames).await?;
        output.flush().await?;
    }
}

fn put(frames: &mut BytesMut, copy: &MessageCopy) {
    let mut number = [0; varint::MAX_LEN];
    let mut rest = &mut number[..];
    varint::put(&mut rest, copy.number);
    let left = rest.len();
    let number = &number[..varint::MAX_LEN - left];
    head(frames, Lane { class: copy.class.0, slot: Lane::MESSAGE }.to_byte(), number.len() + copy.message.len());
    frames.put_slice(number);
    frames.put_slice(&copy.message);
}

/// Ends when the byte stream does, or a rule was broken.
async fn read<R: AsyncRead + Unpin>(input: &mut R, session: &Session, mut buffer: BytesMut) -> Result<(), Closed> {
    let bad = |what: &'static str| session.violation(CloseCode::Protocol, what);
    let mut turn = 0;
    loop {
        while let Some((lane, mut copy)) = take_frame(&mut buffer).map_err(bad)? {
            let lane = Lane::from_byte(lane);
            if lane.slot != Lane::MESSAGE {
                return Err(bad("something else than a copy among copies"));
            }
            let number = varint::get(&mut copy).ok_or_else(|| bad("a copy without its message's number"))?;
            session.on_lanes_copy(lane.class, number, copy.chunk())?;
        }
        if turn >= TURN {
            pause().await;
            turn = 0;
        }
        // Bounded: what is left is less than a frame, whose length is bounded.
        buffer.reserve(INPUT);
        match input.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => turn += read,
            _ => return Ok(()),
        }
    }
}
