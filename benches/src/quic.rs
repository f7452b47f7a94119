//! The job over raw quinn.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane_quic::QuicTransport;
use peerlane_transport::{identity::PeerId, limits};
use quinn::{RecvStream, SendStream};
use tokio::sync::Mutex;

use crate::{Failed, Messages, Style, link::timed};

/// Up to this size a message is copied behind its length; a longer one is written beside it.
const COPY: usize = 1024;
/// Chunks taken at once.
const CHUNKS: usize = 32;

type Shared<T> = Arc<Mutex<T>>;

/// One bidirectional stream between two endpoints.
pub(crate) struct Quinn {
    dialed: (Shared<Writer>, Shared<Reader>),
    accepted: (Shared<Writer>, Shared<Reader>),
    _open: (quinn::Connection, quinn::Connection, quinn::Endpoint, QuicTransport),
}

struct Writer {
    stream: SendStream,
    style: Style,
    buffer: BytesMut,
}

struct Reader {
    stream: RecvStream,
    style: Style,
    chunks: [Bytes; CHUNKS],
    /// Of `chunks`, which is next, and how many there are.
    next: (usize, usize),
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Failed {
    Failed::Io(std::io::Error::other(error))
}

impl Quinn {
    pub(crate) async fn open(
        dialer: QuicTransport,
        listener: QuicTransport,
        expected: PeerId,
        local: SocketAddr,
        style: Style,
    ) -> Result<Self, Failed> {
        let endpoint = listener.raw_listen(local)?;
        let addr = endpoint.local_addr()?;
        let (dialed, accepted) = tokio::try_join!(dialer.raw_dial(addr, &expected), listener.raw_accept(&endpoint))?;
        let (mut send, receive) = dialed.open_bi().await.map_err(other)?;
        // A stream is known to the other side with its first byte.
        send.write_all(&[0]).await.map_err(other)?;
        let (send_back, mut receive_there) = accepted.accept_bi().await.map_err(other)?;
        receive_there.read_exact(&mut [0]).await.map_err(other)?;
        let writer = |stream| Arc::new(Mutex::new(Writer { stream, style, buffer: BytesMut::new() }));
        let reader = |stream| Arc::new(Mutex::new(Reader { stream, style, chunks: [const { Bytes::new() }; CHUNKS], next: (0, 0) }));
        Ok(Self {
            dialed: (writer(send), reader(receive)),
            accepted: (writer(send_back), reader(receive_there)),
            _open: (dialed, accepted, endpoint, dialer),
        })
    }

    pub(crate) async fn one_way(&self, messages: &Messages, count: usize) -> Result<Duration, Failed> {
        let (writer, reader) = (self.dialed.0.clone(), self.accepted.1.clone());
        let (sending, receiving) = (messages.clone(), messages.clone());
        let sender = async move {
            let mut writer = writer.lock().await;
            for i in 0..count {
                writer.send(sending.get(i)).await?;
            }
            writer.flush().await
        };
        let receiver = async move {
            let mut reader = reader.lock().await;
            for i in 0..count {
                receiving.check(i, &reader.receive().await?)?;
            }
            Ok(())
        };
        timed(sender, receiver).await
    }

    pub(crate) async fn round_trips(&self, requests: &Messages, answers: &Messages, count: usize) -> Result<Duration, Failed> {
        let (writer, reader) = self.accepted.clone();
        let (requests_, answers_) = (requests.clone(), answers.clone());
        let server = async move {
            let (mut writer, mut reader) = (writer.lock().await, reader.lock().await);
            for i in 0..count {
                requests_.check(i, &reader.receive().await?)?;
                writer.send(answers_.get(i)).await?;
                writer.flush().await?;
            }
            Ok(())
        };
        let (writer, reader) = self.dialed.clone();
        let (requests, answers) = (requests.clone(), answers.clone());
        let client = async move {
            let (mut writer, mut reader) = (writer.lock().await, reader.lock().await);
            for i in 0..count {
                writer.send(requests.get(i)).await?;
                writer.flush().await?;
                answers.check(i, &reader.receive().await?)?;
            }
            Ok(())
        };
        timed(server, client).await
    }
}

impl Writer {
    async fn send(&mut self, message: &Bytes) -> Result<(), Failed> {
        let len = message.len() as u32;
        if message.len() > COPY {
            let head = Bytes::copy_from_slice(&len.to_be_bytes());
            return self.stream.write_all_chunks(&mut [head, message.clone()]).await.map_err(other);
        }
        if self.style == Style::Tuned && self.buffer.len() + 4 + message.len() > limits::QUANTUM {
            self.flush().await?;
        }
        self.buffer.put_u32(len);
        self.buffer.put_slice(message);
        if self.style == Style::Plain {
            self.stream.write_all(&self.buffer).await.map_err(other)?;
            self.buffer.clear();
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(limits::QUANTUM));
        self.stream.write_chunk(gathered.freeze()).await.map_err(other)
    }
}

impl Reader {
    async fn receive(&mut self) -> Result<Bytes, Failed> {
        let mut head = [0; 4];
        match self.style {
            Style::Plain => {
                self.stream.read_exact(&mut head).await.map_err(other)?;
                let mut message = vec![0; u32::from_be_bytes(head) as usize];
                self.stream.read_exact(&mut message).await.map_err(other)?;
                Ok(message.into())
            }
            Style::Tuned => {
                let mut have = 0;
                while have < head.len() {
                    let front = self.front().await?;
                    let len = front.len().min(head.len() - have);
                    front.copy_to_slice(&mut head[have..have + len]);
                    have += len;
                }
                let len = u32::from_be_bytes(head) as usize;
                let mut message = BytesMut::with_capacity(len);
                while message.len() < len {
                    let front = self.front().await?;
                    let piece = front.len().min(len - message.len());
                    message.extend_from_slice(&front[..piece]);
                    front.advance(piece);
                }
                Ok(message.freeze())
            }
        }
    }

    /// The chunk in hand, not empty.
    async fn front(&mut self) -> Result<&mut Bytes, Failed> {
        while self.next.0 < self.next.1 && self.chunks[self.next.0].is_empty() {
            self.next.0 += 1;
        }
        if self.next.0 == self.next.1 {
            let end = || Failed::Setup("the stream ended".into());
            let count = self.stream.read_chunks(&mut self.chunks).await.map_err(other)?.ok_or_else(end)?;
            self.next = (0, count);
        }
        Ok(&mut self.chunks[self.next.0])
    }
}
