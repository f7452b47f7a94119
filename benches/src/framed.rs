//! Messages over a raw stream of bytes: a 4-byte length, big-endian, before each, in both styles.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane_transport::{ClassId, PathStats, limits};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    Failed, Style,
    job::{End, ReceiveHalf, SendHalf},
};

/// Bytes of a length.
const HEAD: usize = 4;
/// Longer than any message here. Bytes; a length above it means that the framing is broken.
const LONGEST: usize = 1024 * 1024;

/// Where bytes go.
pub(crate) trait Sink: Send + 'static {
    /// Up to this size a message is copied behind its length; a longer one is written beside it. Bytes.
    const COPY: usize;

    /// Writes all of it.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Writes all that's in the buffer, which is empty then and has room for as much again.
    fn write_gathered(&mut self, buffer: &mut BytesMut) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Writes both, one behind the other.
    fn write_beside(&mut self, head: [u8; HEAD], message: Bytes) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Sends what the writes left behind.
    fn flush(&mut self) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Where bytes come from.
pub(crate) trait Source: Send + 'static {
    /// A run of bytes, as the stream gives it.
    type Piece: Buf + Send;

    /// Fills `into`.
    fn read_exact(&mut self, into: &mut [u8]) -> impl Future<Output = Result<(), Failed>> + Send;

    /// What has arrived and wasn't taken yet, not empty: of this the taker advances over what it takes.
    fn front(&mut self) -> impl Future<Output = Result<&mut Self::Piece, Failed>> + Send;
}

/// One end of a raw link.
pub(crate) struct Raw<S, R> {
    writer: Arc<Mutex<Writer<S>>>,
    reader: Arc<Mutex<Reader<R>>>,
    path: Box<dyn Fn() -> PathStats + Send + Sync>,
}

impl<S: Sink, R: Source> Raw<S, R> {
    /// `path` also owns what has to stay open.
    pub(crate) fn new(sink: S, source: R, style: Style, path: impl Fn() -> PathStats + Send + Sync + 'static) -> Self {
        Self {
            writer: Arc::new(Mutex::new(Writer { sink, style, buffer: BytesMut::new() })),
            reader: Arc::new(Mutex::new(Reader { source, style })),
            path: Box::new(path),
        }
    }
}

impl<S: Sink, R: Source> End for Raw<S, R> {
    type Send = OwnedMutexGuard<Writer<S>>;
    type Receive = OwnedMutexGuard<Reader<R>>;

    async fn halves(&self, _: ClassId) -> (Self::Send, Self::Receive) {
        (self.writer.clone().lock_owned().await, self.reader.clone().lock_owned().await)
    }

    fn path(&self) -> PathStats {
        (self.path)()
    }
}

pub(crate) struct Writer<S> {
    sink: S,
    style: Style,
    buffer: BytesMut,
}

impl<S: Sink> SendHalf for OwnedMutexGuard<Writer<S>> {
    async fn send(&mut self, message: &Bytes) -> Result<(), Failed> {
        let Writer { sink, style, buffer } = &mut **self;
        let len = message.len() as u32;
        let copied = message.len() <= S::COPY;
        if !buffer.is_empty() && (!copied || buffer.len() + HEAD + message.len() > limits::QUANTUM) {
            sink.write_gathered(buffer).await?;
        }
        if !copied {
            return sink.write_beside(len.to_be_bytes(), message.clone()).await;
        }
        buffer.put_u32(len);
        buffer.put_slice(message);
        if *style == Style::Plain {
            sink.write(buffer).await?;
            buffer.clear();
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        let Writer { sink, buffer, .. } = &mut **self;
        if !buffer.is_empty() {
            sink.write_gathered(buffer).await?;
        }
        sink.flush().await
    }
}

pub(crate) struct Reader<R> {
    source: R,
    style: Style,
}

impl<R: Source> ReceiveHalf for OwnedMutexGuard<Reader<R>> {
    async fn receive(&mut self) -> Result<Bytes, Failed> {
        let Reader { source, style } = &mut **self;
        let mut head = [0; HEAD];
        match style {
            Style::Plain => {
                source.read_exact(&mut head).await?;
                // As it's mostly written: filled with zeros, then with the message.
                let mut message = vec![0; length(head)?];
                source.read_exact(&mut message).await?;
                Ok(message.into())
            }
            Style::Tuned => {
                let mut have = 0;
                while have < HEAD {
                    let front = source.front().await?;
                    let len = front.remaining().min(HEAD - have);
                    front.copy_to_slice(&mut head[have..have + len]);
                    have += len;
                }
                let len = length(head)?;
                // The message is a buffer of its own, as a receiver that keeps it needs it.
                let mut message = BytesMut::with_capacity(len);
                while message.len() < len {
                    let front = source.front().await?;
                    let chunk = front.chunk();
                    let piece = chunk.len().min(len - message.len());
                    message.extend_from_slice(&chunk[..piece]);
                    front.advance(piece);
                }
                Ok(message.freeze())
            }
        }
    }
}

fn length(head: [u8; HEAD]) -> Result<usize, Failed> {
    let len = u32::from_be_bytes(head) as usize;
    if len > LONGEST { Err(Failed::Setup(format!("a message of {len} bytes is announced"))) } else { Ok(len) }
}

/// What both kinds of stream say when there's nothing more.
pub(crate) fn ended() -> Failed {
    Failed::Setup("the stream ended".into())
}
