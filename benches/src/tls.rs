//! The job over raw tokio-rustls.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane_transport::{
    admission::LocalPeer,
    identity::{TlsOptions, server_name},
    limits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{Failed, Messages, Style, link::timed};

type Shared<T> = Arc<Mutex<T>>;

/// One TLS connection.
pub(crate) struct Tls {
    dialed: (Shared<Writer>, Shared<Reader>),
    accepted: (Shared<Writer>, Shared<Reader>),
}

struct Writer {
    stream: WriteHalf<TlsStream<TcpStream>>,
    style: Style,
    buffer: BytesMut,
}

struct Reader {
    stream: ReadHalf<TlsStream<TcpStream>>,
    style: Style,
    buffer: BytesMut,
}

fn setup(error: impl std::fmt::Display) -> Failed {
    Failed::Setup(error.to_string())
}

/// What peerlane-tcp sets on a socket.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(limits::QUANTUM as u32)?;
    Ok(())
}

impl Tls {
    pub(crate) async fn open(dialer: &LocalPeer, listener: &LocalPeer, local: SocketAddr, style: Style) -> Result<Self, Failed> {
        let options = TlsOptions::default();
        let connector = TlsConnector::from(Arc::new(dialer.tls.client_config(&options).map_err(setup)?));
        let acceptor = TlsAcceptor::from(Arc::new(listener.tls.server_config(&options).map_err(setup)?));
        let listening = TcpListener::bind(local).await?;
        let addr = listening.local_addr()?;
        let name = server_name(&listener.peer_id()).map_err(setup)?;
        let dial = async {
            let stream = TcpStream::connect(addr).await?;
            tune(&stream)?;
            connector.connect(name, stream).await
        };
        let accept = async {
            let (stream, _) = listening.accept().await?;
            tune(&stream)?;
            acceptor.accept(stream).await
        };
        let (mut dialed, mut accepted) = tokio::try_join!(dial, accept)?;
        dialed.get_mut().1.set_buffer_limit(Some(limits::QUANTUM));
        accepted.get_mut().1.set_buffer_limit(Some(limits::QUANTUM));
        let halves = |stream: TlsStream<TcpStream>| {
            let (reader, writer) = tokio::io::split(stream);
            let writer = Writer { stream: writer, style, buffer: BytesMut::new() };
            let reader = Reader { stream: reader, style, buffer: BytesMut::new() };
            (Arc::new(Mutex::new(writer)), Arc::new(Mutex::new(reader)))
        };
        Ok(Self { dialed: halves(dialed.into()), accepted: halves(accepted.into()) })
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
        if message.len() >= limits::QUANTUM {
            // Two pieces, one record after the other: no copy but TLS's.
            let head = len.to_be_bytes();
            self.stream.write_all_buf(&mut Buf::chain(&head[..], message.clone())).await?;
            return Ok(());
        }
        if self.style == Style::Tuned && self.buffer.len() + 4 + message.len() > limits::QUANTUM {
            self.flush().await?;
        }
        self.buffer.put_u32(len);
        self.buffer.put_slice(message);
        if self.style == Style::Plain {
            self.stream.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        if !self.buffer.is_empty() {
            self.stream.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(self.stream.flush().await?)
    }
}

impl Reader {
    async fn receive(&mut self) -> Result<Bytes, Failed> {
        match self.style {
            Style::Plain => {
                let len = self.stream.read_u32().await? as usize;
                let mut message = vec![0; len];
                self.stream.read_exact(&mut message).await?;
                Ok(message.into())
            }
            Style::Tuned => {
                self.fill(4).await?;
                let len = self.buffer.get_u32() as usize;
                // The message is a buffer of its own, as a receiver that keeps it needs it.
                let mut message = BytesMut::with_capacity(len);
                while message.len() < len {
                    self.fill(1).await?;
                    let piece = self.buffer.len().min(len - message.len());
                    message.extend_from_slice(&self.buffer[..piece]);
                    self.buffer.advance(piece);
                }
                Ok(message.freeze())
            }
        }
    }

    async fn fill(&mut self, least: usize) -> Result<(), Failed> {
        while self.buffer.len() < least {
            self.buffer.reserve(2 * limits::QUANTUM);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Failed::Setup("the stream ended".into()));
            }
        }
        Ok(())
    }
}
